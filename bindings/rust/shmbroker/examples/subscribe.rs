// SPDX-License-Identifier: Apache-2.0
//! Prints ticks as they come: `subscribe [COUNT [CHANNEL]]`.

use shmbroker::{record, Client};

record! {
    #[derive(Debug)]
    pub struct Tick: "market.tick" {
        pub time_ns: u64,
        pub price: f64,
        pub count: u32,
        pub flags: u32,
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let count: usize = args.next().map_or(Ok(100), |text| text.parse())?;
    let name = args.next().unwrap_or_else(|| "market/ticks".to_string());

    let client = Client::open()?;
    let subscriber = client.channel::<Tick>(&name)?.subscriber()?;
    for tick in subscriber.iter().take(count) {
        let tick = tick?;
        println!("{:>8} {:10.3}  at {} ns", tick.count, tick.price, tick.time_ns);
    }
    Ok(())
}
