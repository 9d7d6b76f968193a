// SPDX-License-Identifier: Apache-2.0
//! Compares each picture that publish-frames (of any language) sends with the one two before it,
//! which it holds meanwhile, until none has come for two seconds. Nobody copies a picture.

use std::collections::VecDeque;
use std::ptr;
use std::time::Duration;

use shmbroker::{ChannelOptions, Client, Held};

const WIDTH: usize = 1920;
const HEIGHT: usize = 1080;
const LEN: usize = 16 + WIDTH * HEIGHT;

/// A byte of a picture. Its publisher could change it, so it is read volatile.
fn byte(frame: &Held<'_, [u8]>, at: usize) -> u8 {
    assert!(at < frame.len());
    // SAFETY: inside the record, which is held.
    unsafe { ptr::read_volatile(frame.as_ptr().add(at)) }
}

fn number(frame: &Held<'_, [u8]>) -> u32 {
    u32::from_le_bytes([byte(frame, 8), byte(frame, 9), byte(frame, 10), byte(frame, 11)])
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::open()?;
    let options = ChannelOptions::new().record_len_max(LEN as u32).max_holds(3);
    let subscriber = options.open_bytes(&client, "example/frames")?.subscriber()?;
    let mut held = VecDeque::new();
    while subscriber.wait(Duration::from_secs(2))? {
        if held.len() == 3 {
            held.pop_front();
        }
        match subscriber.peek()? {
            Some(frame) if frame.len() == LEN => held.push_back(frame.hold()?),
            Some(frame) => return Err(format!("a picture of {} bytes", frame.len()).into()),
            None => continue,
        }
        if let [first, _, last] = held.make_contiguous() {
            let different = (16..16 + WIDTH).filter(|&at| byte(first, at) != byte(last, at)).count();
            println!("{}: {} columns differ from {}", number(last), different, number(first));
        }
    }
    Ok(())
}
