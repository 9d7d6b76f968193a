// SPDX-License-Identifier: Apache-2.0
//! State channels: claims, values, waiting, successors.

mod common;

use std::thread;

use common::{connect, start, tick, Tick, LONG, SHORT};
use shmbroker::{ErrorKind, State, StateOptions, StatePublisher, StateSubscriber, WaitSet};

#[test]
fn they_go_to_other_threads() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    is_send::<(State<Tick>, StatePublisher<Tick>, StateSubscriber<[u8]>)>();
    is_sync::<State<Tick>>();
}

#[test]
fn the_latest_value_is_read() {
    let (broker, client) = start();
    let state = client.state::<Tick>("state").unwrap();
    let subscriber = connect(&broker).state::<Tick>("state").unwrap().subscriber().unwrap();
    assert!(subscriber.is_empty().unwrap());
    assert_eq!(subscriber.find("k").unwrap(), None);
    let mut publisher = state.publisher().unwrap();
    let key = publisher.claim("k").unwrap();
    assert_eq!(subscriber.find("k").unwrap(), Some(key));
    assert_eq!(subscriber.get(key).unwrap(), None);
    for number in 1..1000 {
        publisher.put(key, &tick(number)).unwrap();
        assert_eq!(subscriber.get(key).unwrap(), Some(tick(number)));
        assert_eq!(subscriber.last().version, number);
        assert_eq!(subscriber.last().term, publisher.term());
    }
    let id = publisher.stats().unwrap().publisher_id;
    assert_eq!(subscriber.last().publisher_id, Some(id));
    assert_eq!(subscriber.owner(key).unwrap(), Some(id));
    publisher.erase(key).unwrap();
    assert_eq!(subscriber.get(key).unwrap(), None);
    assert_eq!(subscriber.name(key).unwrap(), "k");
    assert_eq!(subscriber.keys().unwrap(), [key]);
}

#[test]
fn values_outlive_their_publisher() {
    let (broker, client) = start();
    let state = client.state::<Tick>("state").unwrap();
    let subscriber = state.subscriber().unwrap();
    let mut first = state.publisher().unwrap();
    let mut second = connect(&broker).state::<Tick>("state").unwrap().publisher().unwrap();
    let key = first.claim("k").unwrap();
    first.put(key, &tick(1)).unwrap();
    let error = second.claim("k").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains("process"), "{}", error);
    assert_eq!(second.put(key, &tick(2)).unwrap_err().kind(), ErrorKind::PermissionDenied);
    drop(first);
    assert_eq!(subscriber.get(key).unwrap(), Some(tick(1)));
    // Closing waits for nobody: the broker hears of it a moment later, and then says where the value is.
    loop {
        let owner = subscriber.owner(key).unwrap();
        assert_eq!(subscriber.get(key).unwrap(), Some(tick(1)));
        if owner.is_none() && subscriber.last().publisher_id.is_none() {
            break;
        }
        thread::yield_now();
    }
    assert_eq!(second.claim("k").unwrap(), key);
    assert_eq!(state.subscriber().unwrap().get(key).unwrap(), Some(tick(1)));
    second.put(key, &tick(2)).unwrap();
    assert_eq!(subscriber.get(key).unwrap(), Some(tick(2)));
    assert_eq!(subscriber.last().version, 2);
    second.disclaim(key).unwrap();
    assert_eq!(second.put(key, &tick(3)).unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(subscriber.owner(key).unwrap(), None);
    assert_eq!(subscriber.get(key).unwrap(), Some(tick(2)));
}

#[test]
fn bytes_have_any_length() {
    let (_broker, client) = start();
    let options = StateOptions::new().max_keys(2).value_len(100_000);
    let state = options.open_bytes(&client, "bytes").unwrap();
    assert_eq!(state.info().unwrap().max_keys, 2);
    let mut publisher = state.publisher().unwrap();
    let subscriber = state.subscriber().unwrap();
    let long = publisher.claim("long").unwrap();
    let short = publisher.claim([0xff, 0x00]).unwrap();
    publisher.put(long, &[7; 100_000]).unwrap();
    publisher.put(short, b"").unwrap();
    assert_eq!(subscriber.get(long).unwrap().unwrap(), [7; 100_000]);
    assert_eq!(subscriber.name_bytes(short).unwrap(), [0xff, 0x00]);
    let all = subscriber.snapshot().unwrap();
    assert_eq!(all, [(long, vec![7; 100_000]), (short, Vec::new())]);
    let error = publisher.put(long, &[0; 200_000]).unwrap_err();
    assert!(error.to_string().contains("at most"), "{}", error);
    assert!(publisher.claim("one too many").is_err());
    assert_eq!(publisher.claim("").unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn changes_are_told_once() {
    let (_broker, client) = start();
    let state = client.state::<Tick>("state").unwrap();
    let mut publisher = state.publisher().unwrap();
    let subscriber = state.subscriber().unwrap();
    let (a, b) = (publisher.claim("a").unwrap(), publisher.claim("b").unwrap());
    assert_eq!(subscriber.next_changed().unwrap(), None);
    assert!(!subscriber.wait(SHORT).unwrap());
    for number in 0..3 {
        publisher.put(a, &tick(number)).unwrap();
    }
    assert!(!subscriber.wait_key(b, SHORT).unwrap());
    assert!(subscriber.wait_key(a, SHORT).unwrap());
    assert_eq!(subscriber.next_changed().unwrap(), Some(a));
    assert_eq!(subscriber.next_changed().unwrap(), None);
    let writer = thread::spawn(move || {
        thread::sleep(SHORT);
        publisher.put(b, &tick(9)).unwrap();
        publisher
    });
    assert!(subscriber.wait_key(b, LONG).unwrap());
    let mut publisher = writer.join().unwrap();
    assert_eq!(subscriber.get(b).unwrap(), Some(tick(9)));
    assert_eq!(subscriber.next_changed().unwrap(), None);

    let mut set = WaitSet::open(&client).unwrap();
    set.add(subscriber.as_subscriber(), 7).unwrap();
    assert!(set.wait(SHORT).unwrap().is_empty());
    publisher.put(a, &tick(10)).unwrap();
    assert_eq!(set.wait(LONG).unwrap()[0].cookie(), 7);
}

#[test]
fn records_and_values_are_of_different_channels() {
    let (_broker, client) = start();
    let _stream = client.channel::<Tick>("stream").unwrap();
    let state = client.state::<Tick>("state").unwrap();
    assert_eq!(client.state::<Tick>("stream").unwrap_err().kind(), ErrorKind::SchemaMismatch);
    assert_eq!(client.channel::<Tick>("state").unwrap_err().kind(), ErrorKind::SchemaMismatch);
    let subscriber = state.subscriber().unwrap();
    assert!(subscriber.as_subscriber().recv().is_err());
    let any = StateOptions::new().create(false).any_schema(true);
    assert!(any.open_bytes(&client, "state").unwrap().schema().unwrap().is_some());
}
