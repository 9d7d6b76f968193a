// SPDX-License-Identifier: Apache-2.0
//! Wait sets and foreign event loops.

mod common;

use std::io::{Read, Write};
use std::os::raw::{c_int, c_short, c_ulong};
use std::os::unix::io::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use common::{connect, start, tick, Tick, LONG, SHORT};
use shmbroker::{ErrorKind, WaitSet};

const POLLIN: u32 = 1;

#[test]
fn subscribers_and_fds() {
    let (_broker, client) = start();
    let ticks = client.channel::<Tick>("ticks").unwrap();
    let bytes = client.channel_bytes("bytes").unwrap();
    let tick_subscriber = ticks.subscriber().unwrap();
    let byte_subscriber = bytes.subscriber().unwrap();
    let (mut here, mut there) = UnixStream::pair().unwrap();
    let reader = there.try_clone().unwrap();
    let mut set = WaitSet::open(&client).unwrap();
    assert!(["io_uring", "epoll"].contains(&set.backend()), "{}", set.backend());
    set.add(&tick_subscriber, 1).unwrap();
    set.add(&byte_subscriber, 2).unwrap();
    set.add_fd(reader.as_fd(), POLLIN, 3).unwrap();
    assert_eq!(set.add(&tick_subscriber, 9).unwrap_err().kind(), ErrorKind::AlreadyExists);

    let start = Instant::now();
    assert!(set.wait(SHORT).unwrap().is_empty());
    assert!(start.elapsed() >= SHORT);

    let mut publisher = ticks.publisher().unwrap();
    publisher.send_many(&[tick(1), tick(2)]).unwrap();
    let ready = set.wait(LONG).unwrap();
    assert_eq!((ready.len(), ready[0].cookie(), ready[0].is_subscriber()), (1, 1, true));
    assert_eq!(tick_subscriber.recv().unwrap(), Some(tick(1)));
    let ready = set.wait(LONG).unwrap(); // it was not emptied
    assert_eq!((ready.len(), ready[0].cookie()), (1, 1));
    assert_eq!(tick_subscriber.peek().unwrap().unwrap().read(), tick(2));
    assert_eq!(tick_subscriber.recv().unwrap(), None);
    assert!(set.wait(Duration::ZERO).unwrap().is_empty());

    here.write_all(b"x").unwrap();
    let ready = set.wait(LONG).unwrap();
    assert_eq!((ready.len(), ready[0].cookie(), ready[0].is_fd()), (1, 3, true));
    assert_eq!(ready[0].events() & POLLIN, POLLIN);
    there.read_exact(&mut [0]).unwrap();

    // A sleeping set is woken.
    let sender = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        bytes.publisher().unwrap().send(b"wake").unwrap();
    });
    let ready = set.wait(LONG).unwrap();
    assert_eq!((ready.len(), ready[0].cookie()), (1, 2));
    assert_eq!(byte_subscriber.recv_vec().unwrap().unwrap(), b"wake");
    sender.join().unwrap();

    set.remove(&tick_subscriber).unwrap();
    set.remove_fd(reader.as_fd()).unwrap();
    publisher.send(&tick(3)).unwrap();
    here.write_all(b"x").unwrap();
    assert!(set.wait(SHORT).unwrap().is_empty());
    assert_eq!(set.remove(&tick_subscriber).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(tick_subscriber.recv_timeout(LONG).unwrap(), Some(tick(3)));
}

#[test]
fn members_of_another_client() {
    let (broker, client) = start();
    let other = connect(&broker);
    let subscriber = other.channel_bytes("bytes").unwrap().subscriber().unwrap();
    let mut set = WaitSet::open(&client).unwrap();
    assert_eq!(set.add(&subscriber, 0).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn members_that_come_and_go() {
    let (_broker, client) = start();
    let channel = client.channel::<Tick>("ticks").unwrap();
    let mut publisher = channel.publisher().unwrap();
    let mut set = WaitSet::open(&client).unwrap();
    for number in 0..10 {
        let subscriber = Rc::new(channel.subscriber().unwrap());
        set.add_shared(subscriber.clone(), number).unwrap();
        publisher.send_timeout(&tick(number), LONG).unwrap();
        assert_eq!(set.wait(LONG).unwrap()[0].cookie(), number);
        assert_eq!(subscriber.recv().unwrap(), Some(tick(number)));
        if number % 2 == 0 {
            set.remove(&subscriber).unwrap();
            assert_eq!(Rc::strong_count(&subscriber), 1);
        } else {
            drop(subscriber); // the set's share keeps it
            publisher.send_timeout(&tick(number), LONG).unwrap();
            assert_eq!(set.wait(LONG).unwrap()[0].cookie(), number);
            set = WaitSet::open(&client).unwrap(); // closes the other, and what it had
        }
    }
}

#[test]
fn a_forgotten_set_harms_nobody() {
    let (_broker, client) = start();
    let channel = client.channel::<Tick>("ticks").unwrap();
    let subscriber = channel.subscriber().unwrap();
    let mut set = WaitSet::open(&client).unwrap();
    set.add(&subscriber, 0).unwrap();
    std::mem::forget(set);
    channel.publisher().unwrap().send(&tick(1)).unwrap();
    assert_eq!(subscriber.recv_timeout(LONG).unwrap(), Some(tick(1)));
    drop(subscriber);
    assert!(channel.info().is_ok());
}

#[repr(C)]
struct PollFd {
    fd: c_int,
    events: c_short,
    revents: c_short,
}

extern "C" {
    fn poll(fds: *mut PollFd, count: c_ulong, timeout_ms: c_int) -> c_int;
}

fn is_readable(fd: &impl AsRawFd, timeout: Duration) -> bool {
    let mut fds = PollFd { fd: fd.as_raw_fd(), events: 1, revents: 0 };
    assert!(fds.fd >= 0);
    // SAFETY: one struct of poll(2).
    unsafe { poll(&mut fds, 1, timeout.as_millis() as c_int) == 1 }
}

#[test]
fn foreign_loops() {
    let (_broker, client) = start();
    let channel = client.channel::<Tick>("ticks").unwrap();
    let subscriber = channel.subscriber().unwrap();
    let mut publisher = channel.publisher().unwrap();
    assert_eq!(subscriber.fd().unwrap().as_raw_fd(), subscriber.as_raw_fd());
    for round in 0..20 {
        while subscriber.arm().unwrap() {
            while subscriber.recv().unwrap().is_some() {}
        }
        assert!(!is_readable(&subscriber, Duration::ZERO) || round == 0);
        publisher.send(&tick(round)).unwrap();
        assert!(is_readable(&subscriber, LONG));
        assert_eq!(subscriber.recv().unwrap(), Some(tick(round)));
    }
    publisher.send(&tick(0)).unwrap();
    assert!(subscriber.arm().unwrap());
    assert_eq!(subscriber.recv().unwrap(), Some(tick(0)));

    let other = client.channel::<Tick>("others").unwrap();
    let others = other.subscriber().unwrap();
    let mut set = WaitSet::open(&client).unwrap();
    set.add(&others, 4).unwrap();
    assert!(set.fd().is_ok());
    while !set.wait(Duration::ZERO).unwrap().is_empty() {}
    other.publisher().unwrap().send(&tick(1)).unwrap();
    assert!(is_readable(&set, LONG));
    assert_eq!(set.wait(LONG).unwrap()[0].cookie(), 4);
}
