// SPDX-License-Identifier: Apache-2.0
//! Publishes a tick every millisecond on a typed channel, for five seconds or as long as asked
//! for: `publish [COUNT]`. Run subscribe (of any language) beside it. No broker needs to be started
//! before.

mod common;

use std::thread;
use std::time::Duration;

use common::{monotonic_ns, Tick};
use shmbroker::Client;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: u32 = std::env::args().nth(1).map_or(Ok(5000), |text| text.parse())?;
    let client = Client::open()?;
    let mut publisher = client.channel::<Tick>("example/ticks")?.publisher()?;
    for count in 0..count {
        let price = 100.0 + f64::from(count) * 0.25;
        let tick = Tick { time_ns: monotonic_ns(), price, count, flags: 0 };
        // Waits up to a second for a subscriber that is a whole ring behind.
        publisher.send_timeout(&tick, Duration::from_secs(1))?;
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
