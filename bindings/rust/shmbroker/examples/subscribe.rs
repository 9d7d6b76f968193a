// SPDX-License-Identifier: Apache-2.0
//! Prints the ticks that publish (of any language) sends, until none has come for two seconds.

mod common;

use std::time::Duration;

use common::Tick;
use shmbroker::Client;

fn main() -> shmbroker::Result<()> {
    let client = Client::open()?;
    let subscriber = client.channel::<Tick>("example/ticks")?.subscriber()?;
    while let Some(tick) = subscriber.recv_timeout(Duration::from_secs(2))? {
        println!("{} at {:.2}", tick.count, tick.price);
    }
    Ok(())
}
