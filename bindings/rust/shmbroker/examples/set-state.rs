// SPDX-License-Identifier: Apache-2.0
//! Puts the pose of a robot ten times a second, for a minute or as often as asked for:
//! `set-state [COUNT [ROBOT]]`. Run watch-state (of any language) beside it, at any time: it sees the
//! latest pose at once.

mod common;

use std::thread;
use std::time::Duration;

use common::{monotonic_ns, Pose};
use shmbroker::Client;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: u32 = std::env::args().nth(1).map_or(Ok(600), |text| text.parse())?;
    let robot = std::env::args().nth(2).unwrap_or_else(|| "left".into());
    let client = Client::open()?;
    let mut publisher = client.state::<Pose>("example/poses")?.publisher()?;
    // Fails if another process puts its pose.
    let key = publisher.claim(&robot)?;
    for count in 0..count {
        let angle = f64::from(count) / 10.0;
        publisher.put(key, &Pose { time_ns: monotonic_ns(), x: angle.cos(), y: angle.sin() })?;
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
