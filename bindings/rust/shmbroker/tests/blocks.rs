// SPDX-License-Identifier: Apache-2.0
//! Long records in blocks, and holds.

use std::time::Duration;

use shmbroker::{
    Broker, Channel, ChannelOptions, ClientOptions, ErrorKind, PublisherOptions, SubscriberOptions,
};

const LEN: usize = 1 << 20;

fn channel(broker: &Broker, holds: u32) -> Channel<[u8]> {
    let client = ClientOptions::new().address(broker.address()).open().unwrap();
    ChannelOptions::new()
        .record_len_max(LEN as u32)
        .inline_len_max(1024)
        .max_holds(holds)
        .open_bytes(&client, "frames")
        .unwrap()
}

#[test]
fn short_and_long_records_arrive() {
    let broker = Broker::start().unwrap();
    let channel = channel(&broker, 1);
    let subscriber = channel.subscriber().unwrap();
    let mut publisher = PublisherOptions::new().arena_len(4 << 20).open(&channel).unwrap();
    assert!(publisher.stats().unwrap().arena_len >= 4 << 20);
    for len in [0, 1, 1024, 1025, 4096, 65537, LEN] {
        let record: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        publisher.send(&record).unwrap();
        assert!(subscriber.recv_vec().unwrap().unwrap() == record);
    }
    let error = publisher.send(&vec![0; LEN + 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MessageSize);
}

#[test]
fn what_is_held_stays() {
    let broker = Broker::start().unwrap();
    let channel = channel(&broker, 2);
    for lossy in [false, true] {
        let subscriber = SubscriberOptions::new().lossy(lossy).open(&channel).unwrap();
        let mut publisher = channel.publisher().unwrap();
        let mut held = Vec::new();
        for i in 0..2 {
            publisher.send(&vec![i; LEN]).unwrap();
            assert!(subscriber.wait(Duration::from_secs(10)).unwrap());
            held.push(subscriber.peek().unwrap().unwrap().hold().unwrap());
        }
        for i in 2..40 {
            publisher.send(&vec![i; LEN]).unwrap();
            assert_eq!(subscriber.recv_vec().unwrap().unwrap()[LEN - 1], i);
        }
        publisher.send(&[9; 8]).unwrap();
        let error = subscriber.peek().unwrap().unwrap().hold().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Quota);
        // It stays the next one.
        assert_eq!(subscriber.recv_vec().unwrap().unwrap(), [9; 8]);
        for (i, hold) in held.into_iter().enumerate() {
            assert_eq!((hold.len(), hold.received().sequence), (LEN, i as u64));
            assert!(hold.to_vec().iter().all(|&byte| byte == i as u8));
            hold.release().unwrap();
        }
        assert_eq!(publisher.stats().unwrap().held, 0);
        assert_eq!(subscriber.lost(), 0);
    }
}

#[test]
fn a_short_record_is_held_as_a_copy() {
    let broker = Broker::start().unwrap();
    let channel = channel(&broker, 1);
    let subscriber = channel.subscriber().unwrap();
    let mut publisher = channel.publisher().unwrap();
    publisher.send(b"first").unwrap();
    let hold = subscriber.peek().unwrap().unwrap().hold().unwrap();
    for _ in 0..1000 {
        publisher.send(&[7; 1024]).unwrap();
        subscriber.recv_vec().unwrap().unwrap();
    }
    assert_eq!(hold.to_vec(), b"first");
}
