// SPDX-License-Identifier: Apache-2.0
//! Two publishers of one channel: what the urgent one sends last is received first, although the
//! other one's records have waited for longer.

mod common;

use common::Price;
use shmbroker::{Client, PublisherOptions};

fn main() -> shmbroker::Result<()> {
    let client = Client::open()?;
    let channel = client.channel::<Price>("example/priorities")?;
    let subscriber = channel.subscriber()?;
    let mut usual = channel.publisher()?;
    let mut urgent = PublisherOptions::new().priority(7).open(&channel)?;
    // Whose they are the instrument says here.
    for number in 0..4 {
        usual.send(&Price { instrument: 0, number, price: 100.0 })?;
    }
    for number in 0..2 {
        urgent.send(&Price { instrument: 7, number, price: 100.0 })?;
    }
    while let Some(price) = subscriber.recv()? {
        println!("priority {}, number {}", price.instrument, price.number);
    }
    Ok(())
}
