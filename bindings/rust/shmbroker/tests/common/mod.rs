// SPDX-License-Identifier: Apache-2.0
//! What the tests share.
#![allow(dead_code)] // not every one uses all of it

use std::time::Duration;

use shmbroker::{record, Broker, Client, ClientOptions};

record! {
    #[derive(Debug, PartialEq)]
    pub struct Tick: "test.tick" { pub number: u64, pub price: f64 }
}

pub fn tick(number: u64) -> Tick {
    Tick { number, price: number as f64 / 4.0 }
}

pub const SHORT: Duration = Duration::from_millis(20);
/// Longer than anything here takes, even on a loaded machine.
pub const LONG: Duration = Duration::from_secs(20);

pub fn connect(broker: &Broker) -> Client {
    ClientOptions::new().address(broker.address()).open().unwrap()
}

pub fn start() -> (Broker, Client) {
    let broker = Broker::start().unwrap();
    let client = connect(&broker);
    (broker, client)
}
