// SPDX-License-Identifier: Apache-2.0
//! Sends a tick every few milliseconds: `publish [COUNT [CHANNEL]]`.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shmbroker::{record, Client};

record! {
    pub struct Tick: "market.tick" {
        pub time_ns: u64,
        pub price: f64,
        pub count: u32,
        pub flags: u32,
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let count: u32 = args.next().map_or(Ok(100), |text| text.parse())?;
    let name = args.next().unwrap_or_else(|| "market/ticks".to_string());

    let client = Client::open()?;
    let channel = client.channel::<Tick>(&name)?;
    let mut publisher = channel.publisher()?;
    println!("waiting for a subscriber of {}", name);
    channel.wait_members(1, 1, None)?;
    for number in 0..count {
        let time_ns = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
        let price = 100.0 + f64::from(number % 50) / 8.0;
        let tick = Tick { time_ns, price, count: number, flags: 0 };
        publisher.send_timeout(&tick, Duration::from_secs(5))?;
        thread::sleep(Duration::from_millis(5));
    }
    println!("sent {} ticks", count);
    Ok(())
}
