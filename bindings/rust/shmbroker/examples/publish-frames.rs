// SPDX-License-Identifier: Apache-2.0
//! Publishes a picture of two megabytes thirty times a second, for ten seconds or as often as asked
//! for: `publish-frames [COUNT]`. It is drawn where subscribers look at it; nobody copies it. Run
//! hold-frames (of any language) beside it.

mod common;

use std::thread;
use std::time::Duration;

use common::monotonic_ns;
use shmbroker::{ChannelOptions, Client, ErrorKind};

const WIDTH: usize = 1920;
const HEIGHT: usize = 1080;
const LEN: usize = 16 + WIDTH * HEIGHT;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: u32 = std::env::args().nth(1).map_or(Ok(300), |text| text.parse())?;
    let client = Client::open()?;
    let options = ChannelOptions::new().record_len_max(LEN as u32).max_holds(3);
    let mut publisher = options.open_bytes(&client, "example/frames")?.publisher()?;
    for count in 0..count {
        match publisher.loan(LEN) {
            Ok(mut frame) => {
                frame[..8].copy_from_slice(&monotonic_ns().to_le_bytes());
                frame[8..12].copy_from_slice(&count.to_le_bytes());
                frame[12..].fill(16);
                let left = count as usize * 8 % (WIDTH - 64);
                for row in frame[16..].chunks_mut(WIDTH) {
                    row[left..left + 64].fill(235);
                }
                frame.publish()?;
            }
            // A camera does not wait: what finds no room is not taken.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        thread::sleep(Duration::from_millis(33));
    }
    Ok(())
}
