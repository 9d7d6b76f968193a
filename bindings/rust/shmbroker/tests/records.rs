// SPDX-License-Identifier: Apache-2.0
//! Every way to send and receive.

mod common;

use std::thread;
use std::time::Instant;

use common::{start, tick, Tick, LONG, SHORT};
use shmbroker::{ChannelOptions, ErrorKind, PublisherOptions, Records, SubscriberOptions};

#[test]
fn typed_records_every_way() {
    let (_broker, client) = start();
    let channel = client.channel::<Tick>("ticks").unwrap();
    let subscriber = channel.subscriber().unwrap();
    let mut publisher = channel.publisher().unwrap();
    assert_eq!(subscriber.recv().unwrap(), None);

    publisher.send(&tick(0)).unwrap();
    publisher.send_timeout(&tick(1), SHORT).unwrap();
    publisher.send_typed(&tick(2), 65535).unwrap();
    let many: Vec<_> = (3..1000).map(tick).collect();
    assert_eq!(publisher.send_many(&many).unwrap(), 997);
    assert_eq!(publisher.send_many(&[]).unwrap(), 0);
    let mut loan = publisher.loan().unwrap();
    loan.write(tick(0));
    loan.number = 1000;
    loan.price = 250.0;
    loan.publish().unwrap();

    assert_eq!(subscriber.recv().unwrap(), Some(tick(0)));
    assert_eq!(subscriber.last().record_type, 0);
    assert_eq!(subscriber.recv_timeout(LONG).unwrap(), Some(tick(1)));
    assert_eq!(subscriber.recv_timeout(None).unwrap(), Some(tick(2)));
    assert_eq!((subscriber.last().record_type, subscriber.sequence()), (65535, 2));

    let mut received = vec![tick(2)];
    assert_eq!(subscriber.recv_many(&mut received, 100).unwrap(), 100);
    assert_eq!(received, (2..103).map(tick).collect::<Vec<_>>());
    assert_eq!(subscriber.last().sequence, 3);
    assert_eq!(subscriber.recv_many(&mut received, 0).unwrap(), 0);

    let sample = subscriber.peek().unwrap().unwrap();
    assert_eq!(sample.read(), tick(103));
    // SAFETY: the publisher is ours, and leaves it alone.
    assert_eq!(unsafe { sample.as_ref().number }, 103);
    assert_eq!(sample.received().sequence, 103);
    sample.keep();
    assert_eq!(subscriber.peek().unwrap().unwrap().read(), tick(103)); // dropped: released

    let batch = subscriber.peek_many(50).unwrap().unwrap();
    assert_eq!(batch.len(), 50);
    assert_eq!(batch.iter().len(), 50);
    assert!((&batch).into_iter().eq((104..154).map(tick)));
    assert_eq!(batch.read(49), tick(153));
    batch.release_first(10).unwrap();
    assert_eq!(subscriber.recv().unwrap(), Some(tick(114)));

    let mut record = tick(0);
    assert!(subscriber.recv_into(&mut record).unwrap());
    assert_eq!(record, tick(115));
    let rest: Vec<_> = subscriber.try_iter().map(Result::unwrap).collect();
    assert_eq!(rest, (116..1001).map(tick).collect::<Vec<_>>());
    assert_eq!(subscriber.recv_many(&mut received, usize::MAX).unwrap(), 0);
    assert!(subscriber.peek().unwrap().is_none());

    let stats = subscriber.stats().unwrap();
    assert_eq!((stats.received, stats.lost, stats.pending), (1001, 0, 0));
    let stats = publisher.stats().unwrap();
    assert_eq!((stats.published, stats.dropped, stats.subscribers), (1001, 0, 1));
    assert_eq!(stats.publisher_id, subscriber.last().publisher_id);
}

#[test]
fn bytes_every_way() {
    let (_broker, client) = start();
    let channel = client.channel_bytes("bytes").unwrap();
    let subscriber = channel.subscriber().unwrap();
    let mut publisher = channel.publisher().unwrap();
    let large: Vec<u8> = (0..300_001u32).map(|i| (i * 7 % 251) as u8).collect();

    publisher.send(b"").unwrap();
    publisher.send(b"short").unwrap();
    publisher.send_timeout(&large, SHORT).unwrap();
    assert_eq!(publisher.send_many(b"abbccc", &[1, 2, 3]).unwrap(), 3);
    let wrong = publisher.send_many(b"abbccc", &[1, 2, 4]).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::InvalidInput);
    let mut loan = publisher.loan(100).unwrap();
    loan[..3].copy_from_slice(b"xyz");
    loan.publish_len(3).unwrap();
    let mut loan = publisher.loan(2).unwrap();
    loan.copy_from_slice(b"??");
    drop(loan); // not sent
    let loan = publisher.loan(2).unwrap();
    assert_eq!(loan.publish_len(3).unwrap_err().kind(), ErrorKind::InvalidInput);
    let mut loan = publisher.loan(2).unwrap(); // so that one was given back
    loan.copy_from_slice(b"ok");
    loan.publish().unwrap();

    let mut buffer = [0xee; 4];
    assert_eq!(subscriber.recv(&mut buffer).unwrap(), Some(0));
    let short = subscriber.recv(&mut buffer).unwrap_err();
    assert_eq!(short.kind(), ErrorKind::MessageSize);
    assert_eq!(subscriber.recv_vec().unwrap().unwrap(), b"short");
    let sample = subscriber.peek().unwrap().unwrap();
    assert_eq!((sample.len(), sample.is_empty()), (large.len(), false));
    assert_eq!(sample.copy_to(&mut buffer), 4);
    assert_eq!(buffer, large[..4]);
    assert_eq!(sample.to_vec(), large);
    // SAFETY: the publisher is ours, and leaves it alone.
    assert_eq!(unsafe { sample.as_slice() }, large);
    sample.keep();
    assert_eq!(subscriber.recv_vec().unwrap().unwrap(), large);

    let mut records = Records::with_capacity(4, 10); // "a" and "bb", but no room for "ccc"
    assert_eq!(subscriber.recv_many(&mut records).unwrap(), 2);
    assert_eq!(records.iter().collect::<Vec<_>>(), [&b"a"[..], b"bb"]);
    assert_eq!((records.len(), records.is_empty()), (2, false));
    let batch = subscriber.peek_many(10).unwrap().unwrap();
    assert_eq!((batch.len(), batch.record_len(), batch.to_vec(0)), (2, 3, b"ccc".to_vec()));
    assert_eq!(batch.to_vec(1), b"xyz");
    batch.release().unwrap();
    assert_eq!(subscriber.recv_vec().unwrap().unwrap(), b"ok");
    assert_eq!(subscriber.recv_many(&mut records).unwrap(), 0);
    assert!(records.is_empty());
}

#[test]
fn one_view_at_a_time() {
    let (_broker, client) = start();
    let channel = client.channel::<Tick>("ticks").unwrap();
    let subscriber = channel.subscriber().unwrap();
    channel.publisher().unwrap().send_many(&[tick(0), tick(1)]).unwrap();
    let sample = subscriber.peek().unwrap().unwrap();
    assert_eq!(subscriber.peek().unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(subscriber.recv().unwrap_err().kind(), ErrorKind::Busy);
    drop(sample);
    assert_eq!(subscriber.recv().unwrap(), Some(tick(1)));
}

#[test]
fn a_full_lane_refuses_waits_or_drops() {
    let (_broker, client) = start();
    let channel = ChannelOptions::new().lane_len(4096).open::<Tick>(&client, "small").unwrap();
    let subscriber = channel.subscriber().unwrap();
    let mut publisher = channel.publisher().unwrap();
    let mut sent = 0;
    let error = loop {
        match publisher.send(&tick(sent)) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(sent > 100, "{}", sent);
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(error.is_would_block());
    assert_eq!(publisher.loan().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(publisher.send_many(&[tick(0)]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let start = Instant::now();
    assert_eq!(publisher.send_timeout(&tick(0), SHORT).unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(!publisher.wait(SHORT).unwrap());
    assert!(start.elapsed() >= SHORT * 2);
    assert!(publisher.stats().unwrap().refused >= 1);

    let mut dropping = PublisherOptions::new().drop_newest(true).open(&channel).unwrap();
    for number in 0..1000 {
        dropping.send(&tick(number)).unwrap();
    }
    let stats = dropping.stats().unwrap();
    assert!(stats.dropped > 500, "{:?}", stats);
    assert_eq!(stats.published + stats.dropped, 1000);

    let mut trusting = PublisherOptions::new().trusting(true).open(&channel).unwrap();
    trusting.send(&tick(0)).unwrap();
    assert_eq!(trusting.stats().unwrap().published, 1);
    drop(trusting);

    // A publisher that waits goes on as soon as there is room.
    let waiting = thread::spawn(move || {
        for number in sent..sent + 1000 {
            publisher.send_timeout(&tick(number), LONG).unwrap();
        }
        assert!(publisher.wait(LONG).unwrap());
        publisher.stats().unwrap().publisher_id
    });
    let mut received = Vec::new();
    while (received.len() as u64) < sent + 1000 + stats.published + 1 {
        let tick = subscriber.recv_timeout(LONG).unwrap().expect("another record");
        received.push((subscriber.last().publisher_id, tick.number));
    }
    let id = waiting.join().unwrap();
    let numbers: Vec<_> = received.iter().filter(|r| r.0 == id).map(|r| r.1).collect();
    assert_eq!(numbers, (0..sent + 1000).collect::<Vec<_>>());
    assert_eq!(subscriber.lost(), 0);
}

#[test]
fn a_lossy_subscriber_counts_what_it_loses() {
    let (_broker, client) = start();
    let channel = ChannelOptions::new().lane_len(4096).open::<Tick>(&client, "small").unwrap();
    let subscriber = SubscriberOptions::new().lossy(true).open(&channel).unwrap();
    let mut publisher = channel.publisher().unwrap();
    let mut received = 0;
    let mut next = 0;
    for round in 0..50u64 {
        for number in 0..97 {
            publisher.send(&tick(round * 97 + number)).unwrap();
        }
        if round % 5 == 4 {
            for tick in subscriber.try_iter() {
                let tick = tick.unwrap();
                assert!(tick.number >= next);
                assert_eq!(tick, common::tick(tick.number));
                assert_eq!(tick.number, subscriber.sequence());
                next = tick.number + 1;
                received += 1;
            }
            assert_eq!(received + subscriber.lost(), next);
        }
    }
    assert_eq!(next, 50 * 97);
    assert!(received > 0 && subscriber.lost() > 100, "{} {}", received, subscriber.lost());
    let stats = subscriber.stats().unwrap();
    assert_eq!((stats.received, stats.lost), (received, subscriber.lost()));

    // What is overwritten while we look at it is void.
    publisher.send(&tick(0)).unwrap();
    let sample = subscriber.peek().unwrap().unwrap();
    for number in 0..1000 {
        publisher.send(&tick(number)).unwrap();
    }
    assert_eq!(sample.release().unwrap_err().kind(), ErrorKind::Stale);
}

#[test]
fn nothing_comes_in_time() {
    let (_broker, client) = start();
    let channel = client.channel::<Tick>("ticks").unwrap();
    let subscriber = channel.subscriber().unwrap();
    let start = Instant::now();
    assert_eq!(subscriber.recv_timeout(SHORT).unwrap(), None);
    assert!(!subscriber.wait(SHORT).unwrap());
    let error = channel.wait_members(1, 1, SHORT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(!error.to_string().is_empty());
    let elapsed = start.elapsed();
    assert!(elapsed >= SHORT * 3 && elapsed < LONG, "{:?}", elapsed);
}

#[test]
fn a_record_that_is_too_long() {
    let (_broker, client) = start();
    let channel = ChannelOptions::new().lane_len(4096).open_bytes(&client, "small").unwrap();
    let mut publisher = channel.publisher().unwrap();
    let max = channel.info().unwrap().record_len_max as usize;
    publisher.send(&vec![0; max]).unwrap();
    let error = publisher.send(&vec![0; max + 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MessageSize);
    assert!(error.to_string().contains(&(max + 1).to_string()), "{}", error);
    assert_eq!(publisher.loan(max + 1).unwrap_err().kind(), ErrorKind::MessageSize);
    assert_eq!(publisher.wait(max + 1, SHORT).unwrap_err().kind(), ErrorKind::MessageSize);
}
