// SPDX-License-Identifier: Apache-2.0
//! Records that carry file descriptors.

mod common;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::io::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use common::{start, tick, Tick, LONG, SHORT};
use shmbroker::{ChannelOptions, ErrorKind, SubscriberOptions};

/// One end of it; the other says when nobody has this one any more.
fn pair() -> (UnixStream, UnixStream) {
    UnixStream::pair().unwrap()
}

fn says(fd: OwnedFd, mut other: &UnixStream, text: &str) {
    let mut file = File::from(fd);
    file.write_all(text.as_bytes()).unwrap();
    let mut got = vec![0; text.len()];
    other.read_exact(&mut got).unwrap();
    assert_eq!(got, text.as_bytes());
}

/// Does it end because nobody has its other end any more?
fn ends(mut stream: &UnixStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    matches!(stream.read(&mut [0; 1]), Ok(0))
}

#[test]
fn they_come_with_their_record_and_belong_to_who_takes_them() {
    let (_broker, client) = start();
    let channel = ChannelOptions::new().max_fds(2).open::<Tick>(&client, "fds").unwrap();
    assert_eq!(channel.info().unwrap().max_fds, 2);
    let subscriber = channel.subscriber().unwrap();
    let mut publisher = channel.publisher().unwrap();
    let ours: Vec<_> = (0..3).map(|_| pair()).collect();

    publisher.send_fds(&tick(1), &[ours[0].0.as_fd(), ours[1].0.as_fd()]).unwrap();
    publisher.send(&tick(2)).unwrap();
    let mut loan = publisher.loan().unwrap();
    loan.write(tick(3));
    loan.publish_fds(&[ours[2].0.as_fd()]).unwrap();

    assert_eq!(subscriber.recv().unwrap(), Some(tick(1)));
    assert_eq!((subscriber.last().fds, subscriber.last().fds_lost), (2, 0));
    let fds = subscriber.take_fds().unwrap();
    assert_eq!((fds.len(), subscriber.last().fds), (2, 0));
    for (i, fd) in fds.into_iter().enumerate() {
        says(fd, &ours[i].1, "hello");
    }
    assert!(subscriber.take_fds().unwrap().is_empty());
    assert_eq!(subscriber.recv().unwrap(), Some(tick(2)));
    assert!(subscriber.take_fds().unwrap().is_empty());
    let sample = subscriber.peek().unwrap().unwrap();
    assert_eq!((sample.read(), sample.received().fds), (tick(3), 1));
    says(subscriber.take_fds().unwrap().pop().unwrap(), &ours[2].1, "there");
    sample.release().unwrap();
    for (mine, other) in ours {
        drop(mine);
        assert!(ends(&other));
    }
}

#[test]
fn what_is_not_taken_is_closed() {
    let (_broker, client) = start();
    let channel = ChannelOptions::new().max_fds(1).open_bytes(&client, "fds").unwrap();
    let subscriber = channel.subscriber().unwrap();
    let mut publisher = channel.publisher().unwrap();
    let (mine, other) = pair();
    publisher.send_fds(b"first", &[mine.as_fd()]).unwrap();
    drop(mine);
    assert_eq!(subscriber.recv_vec().unwrap().unwrap(), b"first");
    assert!(!ends(&other));
    assert_eq!(subscriber.recv_vec().unwrap(), None);
    assert!(ends(&other));
}

#[test]
fn slow_subscribers_hold_up_or_lose() {
    let (_broker, client) = start();
    let channel = ChannelOptions::new().max_fds(1).open_bytes(&client, "fds").unwrap();
    let mut publisher = channel.publisher().unwrap();
    let file = File::open("/dev/null").unwrap();
    let fds = [file.as_fd()];

    let reliable = channel.subscriber().unwrap();
    let mut sent = 0;
    let error = loop {
        match publisher.send_fds(b"x", &fds) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let error = publisher.send_fds_timeout(b"x", &fds, SHORT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    for _ in 0..sent {
        assert!(reliable.recv_vec().unwrap().is_some());
        assert_eq!(reliable.take_fds().unwrap().len(), 1);
    }
    publisher.send_fds_timeout(b"x", &fds, LONG).unwrap();
    drop(reliable);

    let lossy = SubscriberOptions::new().lossy(true).open(&channel).unwrap();
    for _ in 0..2000 {
        publisher.send_fds(b"x", &fds).unwrap();
    }
    assert!(publisher.stats().unwrap().fds_lost > 0);
    let (mut taken, mut lost) = (0, 0);
    while lossy.recv_vec().unwrap().is_some() {
        lost += lossy.last().fds_lost;
        taken += lossy.take_fds().unwrap().len();
    }
    assert!(taken > 0 && lost > 0);
    assert_eq!(lossy.stats().unwrap().fds_lost, lost as u64);
}

#[test]
fn what_cannot_be_is_refused() {
    let (_broker, client) = start();
    let file = File::open("/dev/null").unwrap();
    let fds: [BorrowedFd<'_>; 2] = [file.as_fd(), file.as_fd()];
    let mut plain = client.channel_bytes("plain").unwrap().publisher().unwrap();
    assert!(plain.send_fds(b"x", &fds).unwrap_err().to_string().contains("max_fds"));
    plain.send_fds(b"x", &[]).unwrap();
    let channel = ChannelOptions::new().max_fds(1).open_bytes(&client, "fds").unwrap();
    let mut publisher = channel.publisher().unwrap();
    assert_eq!(publisher.send_fds(b"x", &fds).unwrap_err().kind(), ErrorKind::InvalidInput);
    let loan = publisher.loan(1).unwrap();
    assert_eq!(loan.publish_fds(&fds).unwrap_err().kind(), ErrorKind::InvalidInput);
    publisher.send_fds(b"y", &fds[..1]).unwrap();
    assert!(ChannelOptions::new().max_fds(65).open_bytes(&client, "none").is_err());
}

#[test]
fn a_file_is_the_same_file() {
    let (_broker, client) = start();
    let channel = ChannelOptions::new().max_fds(1).open_bytes(&client, "fds").unwrap();
    let subscriber = channel.subscriber().unwrap();
    let path = std::env::temp_dir().join(format!("shmbroker-fds-{}", std::process::id()));
    let mut file =
        std::fs::OpenOptions::new().read(true).write(true).create(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.write_all(b"in the file").unwrap();
    channel.publisher().unwrap().send_fds(b"", &[file.as_fd()]).unwrap();
    assert!(subscriber.recv_vec().unwrap().unwrap().is_empty());
    let mut got = File::from(subscriber.take_fds().unwrap().pop().unwrap());
    got.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    got.read_to_string(&mut text).unwrap();
    assert_eq!(text, "in the file");
}
