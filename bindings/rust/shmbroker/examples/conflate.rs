// SPDX-License-Identifier: Apache-2.0
//! A subscriber that was away while many prices of a few instruments came, and cares only for the
//! newest of each: the instrument is the key.

mod common;

use common::Price;
use shmbroker::{Client, SubscriberOptions};

const INSTRUMENTS: u32 = 4;
const PRICES: u32 = 100;

fn main() -> shmbroker::Result<()> {
    let client = Client::open()?;
    let channel = client.channel::<Price>("example/conflate")?;
    // Where the instrument is in the record.
    let subscriber = SubscriberOptions::new().conflate(0..4).open(&channel)?;
    let mut publisher = channel.publisher()?;
    for i in 0..PRICES {
        let (number, instrument) = (i / INSTRUMENTS, i % INSTRUMENTS);
        publisher.send(&Price { instrument, number, price: 100.0 + f64::from(i) * 0.25 })?;
    }
    while let Some(price) = subscriber.recv()? {
        let Price { instrument, number, price } = price;
        println!("instrument {}, number {}, at {:.2}", instrument, number, price);
    }
    println!("{} older ones were skipped", subscriber.stats()?.conflated);
    Ok(())
}
