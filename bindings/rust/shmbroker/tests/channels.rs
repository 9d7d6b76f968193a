// SPDX-License-Identifier: Apache-2.0
//! Clients and channels: who may open what, and how long it all lives.

mod common;

use std::thread;
use std::time::Duration;

use common::{connect, start, tick, Tick, LONG, SHORT};
use shmbroker::{
    record, Broker, BrokerOptions, Channel, ChannelOptions, Client, ClientOptions, ErrorKind,
    Publisher, Subscriber, SubscriberOptions, WaitSet,
};

fn is_send<T: Send>() {}
fn is_sync<T: Sync>() {}

#[test]
fn what_goes_to_other_threads() {
    is_send::<(Broker, Client, Channel<Tick>, Publisher<Tick>, Subscriber<[u8]>)>();
    is_sync::<(Broker, Client, Channel<Tick>)>();

    // Neither trait where it would be unsound: these would be ambiguous.
    trait NotSync<A> {
        fn ok() {}
    }
    impl<T: ?Sized> NotSync<()> for T {}
    struct IsSync;
    impl<T: ?Sized + Sync> NotSync<IsSync> for T {}
    <Publisher<Tick> as NotSync<_>>::ok();
    <Subscriber<Tick> as NotSync<_>>::ok();
    trait NotSend<A> {
        fn ok() {}
    }
    impl<T: ?Sized> NotSend<()> for T {}
    struct IsSend;
    impl<T: ?Sized + Send> NotSend<IsSend> for T {}
    <WaitSet<'static> as NotSend<_>>::ok();
    <shmbroker::Sample<'static, Tick> as NotSend<_>>::ok();
}

#[test]
fn another_schema_is_refused_and_the_field_named() {
    record! { struct Other: "test.tick" { number: u64, price: u64 } }
    let (broker, client) = start();
    let _channel = client.channel::<Tick>("ticks").unwrap();
    let error = connect(&broker).channel::<Other>("ticks").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaMismatch);
    let text = error.to_string();
    assert!(text.contains("'price'") && text.contains("f64") && text.contains("u64"), "{}", text);

    let error = client.channel_bytes("ticks").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaMismatch);
    let _bytes = client.channel_bytes("bytes").unwrap();
    assert_eq!(client.channel::<Tick>("bytes").unwrap_err().kind(), ErrorKind::SchemaMismatch);
}

#[test]
fn any_schema_shows_records_as_bytes() {
    let (_broker, client) = start();
    let ticks = client.channel::<Tick>("ticks").unwrap();
    let any = ChannelOptions::new().create(false).any_schema(true);
    assert_eq!(any.open::<Tick>(&client, "ticks").unwrap_err().kind(), ErrorKind::InvalidInput);
    let bytes = any.open_bytes(&client, "ticks").unwrap();
    let schema = bytes.schema().unwrap().unwrap();
    assert_eq!((schema.name(), &schema.fields()[1].name[..]), ("test.tick", "price"));
    assert_eq!(schema, shmbroker::Schema::of::<Tick>());

    let subscriber = bytes.subscriber().unwrap();
    ticks.publisher().unwrap().send(&tick(5)).unwrap();
    use shmbroker::Record;
    let record = subscriber.recv_vec().unwrap().unwrap();
    assert_eq!(Tick::from_bytes(&record), Some(tick(5)));
    let error = bytes.publisher().unwrap().send(b"short").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn late_subscribers_get_the_history() {
    let (_broker, client) = start();
    let channel = ChannelOptions::new().history(3).open_bytes(&client, "a/b").unwrap();
    assert_eq!(channel.info().unwrap().history, 3);
    let mut publisher = channel.publisher().unwrap();
    channel.wait_for_publishers(1, Duration::from_secs(5)).unwrap();
    for number in 0..9u8 {
        publisher.send(&[number]).unwrap();
    }
    let all = channel.subscriber().unwrap();
    let one = SubscriberOptions::new().history(1).open(&channel).unwrap();
    let none = SubscriberOptions::new().history(0).open(&channel).unwrap();
    channel.wait_for_subscribers(3, Duration::from_secs(5)).unwrap();
    publisher.send(&[9]).unwrap();
    for (subscriber, first) in [(&all, 6), (&one, 8), (&none, 9)] {
        for number in first..10u8 {
            assert_eq!(subscriber.recv_vec().unwrap().unwrap(), [number]);
        }
        assert!(subscriber.recv_vec().unwrap().is_none());
    }
    let error = ChannelOptions::new().history(u32::MAX).open_bytes(&client, "c").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn retained_channels_stay() {
    let (_broker, client) = start();
    let retained = ChannelOptions::new().history(3).retain(true);
    let existing = ChannelOptions::new().create(false);
    let channel = retained.open_bytes(&client, "a/b").unwrap();
    assert!(channel.info().unwrap().retained);
    for number in 0..5u8 {
        channel.publisher().unwrap().send(&[number]).unwrap();
    }
    drop(channel);
    let channel = existing.open_bytes(&client, "a/b").unwrap();
    let late = channel.subscriber().unwrap();
    for number in 2..5u8 {
        assert_eq!(late.recv_vec().unwrap().unwrap(), [number]);
    }
    client.remove("a/b").unwrap();
    assert!(!channel.info().unwrap().retained);
    drop(late);
    drop(channel);
    assert_eq!(existing.open_bytes(&client, "a/b").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(client.remove("a/b").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn options_of_channels() {
    let (_broker, client) = start();
    let existing = ChannelOptions::new().create(false);
    assert_eq!(existing.open_bytes(&client, "a/b").unwrap_err().kind(), ErrorKind::NotFound);
    let options =
        ChannelOptions::new().exclusive(true).lane_len(8192).max_publishers(1).max_subscribers(2);
    let channel = options.open_bytes(&client, "a/b").unwrap();
    assert_eq!(options.open_bytes(&client, "a/b").unwrap_err().kind(), ErrorKind::AlreadyExists);
    let info = existing.open_bytes(&client, "a/b").unwrap().info().unwrap();
    assert_eq!((info.lane_len, info.max_publishers, info.max_subscribers), (8192, 1, 2));
    assert_eq!((info.record_len, info.record_len_max), (0, 8192 / 2 - 16));

    let publisher = channel.publisher().unwrap();
    let error = channel.publisher().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Quota);
    drop(publisher);
    let _publisher = (0..200)
        .find_map(|_| {
            thread::sleep(Duration::from_millis(5)); // close does not wait for the broker
            channel.publisher().ok()
        })
        .expect("the slot is free again");
    for name in ["", "Upper", "a//b", "/a", &"x".repeat(129)] {
        let error = client.channel_bytes(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{}: {}", name, error);
    }
}

#[test]
fn no_broker_is_an_error() {
    let error = ClientOptions::new()
        .address("/nonexistent/shmbroker/control.sock")
        .start_broker(false)
        .connect_timeout(SHORT)
        .open()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{:?}", error);
    let error = ClientOptions::new().key_file("a\0b").open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_broker_in_a_directory() {
    let directory = std::env::temp_dir().join(format!("shmb-rust-{}", std::process::id()));
    let broker = BrokerOptions::new().directory(&directory).start().unwrap();
    assert_eq!(broker.address().parent().unwrap(), directory);
    let second = BrokerOptions::new().directory(&directory).start().unwrap_err();
    assert_eq!(second.kind(), ErrorKind::AddressInUse);
    let client = ClientOptions::new().address(broker.address()).label("labelled").open().unwrap();
    assert!(client.is_connected());
    client.ping(LONG).unwrap();
    broker.stop().unwrap();
    let _ = std::fs::remove_dir_all(&directory);
}

#[test]
fn any_order_of_dropping() {
    let (broker, client) = start();
    let channel = client.channel::<Tick>("ticks").unwrap();
    let subscriber = channel.subscriber().unwrap();
    let mut publisher = channel.publisher().unwrap();
    let same = channel.clone();
    drop(channel);
    drop(client);
    publisher.send(&tick(1)).unwrap();
    drop(publisher);
    assert_eq!(subscriber.recv().unwrap(), Some(tick(1)));
    drop(subscriber);
    assert!(same.info().is_ok());
    drop(same);
    // All of it is closed: a new client finds no such channel.
    let client = connect(&broker);
    let existing = ChannelOptions::new().create(false);
    let gone = (0..200).any(|_| {
        thread::sleep(Duration::from_millis(5));
        existing.open::<Tick>(&client, "ticks").map(drop).map_err(|error| error.kind())
            == Err(ErrorKind::NotFound)
    });
    assert!(gone);
}

#[test]
fn lanes_flow_without_a_broker() {
    let (broker, client) = start();
    let channel = client.channel::<Tick>("ticks").unwrap();
    let subscriber = channel.subscriber().unwrap();
    let mut publisher = channel.publisher().unwrap();
    publisher.send(&tick(0)).unwrap();
    drop(broker);
    for number in 1..1000 {
        publisher.send(&tick(number)).unwrap();
    }
    for number in 0..1000 {
        assert_eq!(subscriber.recv_timeout(LONG).unwrap(), Some(tick(number)));
    }
}

#[test]
fn publishers_and_subscribers_move_to_threads() {
    const EACH: u64 = 20_000;
    let (_broker, client) = start();
    let channel = client.channel::<Tick>("ticks").unwrap();
    let subscriber = channel.subscriber().unwrap();
    let reader = thread::spawn(move || {
        let mut sums = std::collections::HashMap::new();
        for tick in subscriber.iter().take(3 * EACH as usize) {
            let next = sums.entry(subscriber.last().publisher_id).or_insert(0);
            assert_eq!(tick.unwrap(), common::tick(*next));
            *next += 1;
        }
        sums.into_values().collect::<Vec<_>>()
    });
    let writers: Vec<_> = (0..3)
        .map(|_| {
            let channel = channel.clone();
            thread::spawn(move || {
                let mut publisher = channel.publisher().unwrap();
                for number in 0..EACH {
                    publisher.send_timeout(&tick(number), LONG).unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    assert_eq!(reader.join().unwrap(), [EACH; 3]);
}

#[test]
fn a_sleeper_is_woken() {
    let (_broker, client) = start();
    let channel = client.channel::<Tick>("ticks").unwrap();
    let subscriber = channel.subscriber().unwrap();
    let mut publisher = channel.publisher().unwrap();
    let sleeper = thread::spawn(move || {
        let tick = subscriber.recv_timeout(LONG).unwrap();
        (tick, subscriber.stats().unwrap())
    });
    thread::sleep(Duration::from_millis(100));
    publisher.send(&tick(1)).unwrap();
    let (received, stats) = sleeper.join().unwrap();
    assert_eq!(received, Some(tick(1)));
    assert_eq!((stats.sleeps >= 1, stats.backstops), (true, 0));
    assert_eq!(publisher.stats().unwrap().rings, 1);
}

#[test]
fn waiting_for_a_member_that_comes_through_the_same_channel() {
    let (_broker, client) = start();
    let channel = client.channel::<Tick>("ticks").unwrap();
    let same = channel.clone();
    let waiter = thread::spawn(move || same.wait_members(1, 1, None));
    thread::sleep(SHORT);
    let _subscriber = channel.subscriber().unwrap();
    let _publisher = channel.publisher().unwrap();
    waiter.join().unwrap().unwrap();
}
