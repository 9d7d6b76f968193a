// SPDX-License-Identifier: Apache-2.0
//! Gives numbers to be factored to workers, and waits until all of them are done: `submit [COUNT]`.
//! Run as many work (of any language) beside it as you like, at any time, and kill them as you like.

mod common;

use common::Task;
use shmbroker::Client;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: u64 = std::env::args().nth(1).map_or(Ok(1000), |text| text.parse())?;
    let client = Client::open()?;
    let mut publisher = client.queue::<Task>("example/numbers")?.publisher()?;
    for i in 0..count {
        // Waits until a worker has credit.
        publisher.send_timeout(&Task { number: 1001 + i }, None)?;
    }
    publisher.wait_done(None)?;
    println!("{} tasks are done", count);
    Ok(())
}
