// SPDX-License-Identifier: Apache-2.0
//! Between processes: this test program starts itself again, and `child` is what runs there.

mod common;

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use common::{start, tick, Tick, LONG};
use shmbroker::{Broker, Client};

const ROLE: &str = "SHMB_TEST_ROLE";
const COUNT: u64 = 200_000;

fn spawn(broker: &Broker, role: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env("SHMBROKER_ADDRESS", broker.address())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn child() {
    let role = match std::env::var(ROLE) {
        Ok(role) => role,
        Err(_) => return, // in the parent
    };
    let client = Client::open().unwrap();
    match &role[..] {
        "echo" => {
            let requests = client.channel::<Tick>("requests").unwrap();
            let replies = client.channel::<Tick>("replies").unwrap();
            let mut publisher = replies.publisher().unwrap();
            let subscriber = requests.subscriber().unwrap();
            replies.wait_members(1, 1, LONG).unwrap();
            for tick in subscriber.iter().take(COUNT as usize) {
                publisher.send_timeout(&tick.unwrap(), LONG).unwrap();
            }
        }
        "endless" => {
            let mut publisher = client.channel::<Tick>("endless").unwrap().publisher().unwrap();
            for number in 0.. {
                publisher.send_timeout(&tick(number), LONG).unwrap();
            }
        }
        other => panic!("{}", other),
    }
}

#[test]
fn there_and_back() {
    let (broker, client) = start();
    let requests = client.channel::<Tick>("requests").unwrap();
    let replies = client.channel::<Tick>("replies").unwrap();
    let subscriber = replies.subscriber().unwrap();
    let mut echo = spawn(&broker, "echo");
    requests.wait_members(0, 1, LONG).unwrap();
    let mut publisher = requests.publisher().unwrap();
    let sender = thread::spawn(move || {
        let ticks: Vec<_> = (0..COUNT).map(tick).collect();
        let mut rest = &ticks[..];
        while !rest.is_empty() {
            match publisher.send_many(&rest[..rest.len().min(500)]) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.is_would_block() => assert!(publisher.wait(LONG).unwrap()),
                Err(error) => panic!("{}", error),
            }
        }
    });
    for number in 0..COUNT {
        assert_eq!(subscriber.recv_timeout(LONG).unwrap(), Some(tick(number)));
    }
    sender.join().unwrap();
    assert!(echo.wait().unwrap().success());
    let stats = subscriber.stats().unwrap();
    assert_eq!((stats.lost, stats.backstops), (0, 0));
}

#[test]
fn a_killed_publisher_leaves_whole_records() {
    let (broker, client) = start();
    let channel = client.channel::<Tick>("endless").unwrap();
    let subscriber = channel.subscriber().unwrap();
    let mut endless = spawn(&broker, "endless");
    let mut next = 0;
    while next < 10_000 {
        assert_eq!(subscriber.recv_timeout(LONG).unwrap(), Some(tick(next)));
        next += 1;
    }
    endless.kill().unwrap();
    endless.wait().unwrap();
    // It published on until it was killed; what it finished comes, in order, and then no more.
    while let Some(received) = subscriber.recv_timeout(Duration::from_millis(200)).unwrap() {
        assert_eq!(received, tick(next));
        next += 1;
    }
    assert_eq!(channel.info().unwrap().publishers, 0);
    let stats = subscriber.stats().unwrap();
    assert_eq!((stats.lost, stats.backstops), (0, 0));
}
