// SPDX-License-Identifier: Apache-2.0
//! Prints the poses that set-state (of any language) puts, first as they are and then as they
//! change, until none has changed for two seconds.

mod common;

use std::time::Duration;

use common::Pose;
use shmbroker::Client;

fn main() -> shmbroker::Result<()> {
    let client = Client::open()?;
    let subscriber = client.state::<Pose>("example/poses")?.subscriber()?;
    while subscriber.wait(Duration::from_secs(2))? {
        while let Some(key) = subscriber.next_changed()? {
            if let Some(pose) = subscriber.get(key)? {
                println!("{} at {:.2} {:.2}", subscriber.name(key)?, pose.x, pose.y);
            }
        }
    }
    Ok(())
}
