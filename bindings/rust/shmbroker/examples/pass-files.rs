// SPDX-License-Identifier: Apache-2.0
//! Passes open files on to whoever takes them: `pass-files FILE...`. Run take-files of any language
//! before: it can read them although it may not be allowed to open them.

mod common;

use std::fs::File;
use std::os::unix::io::AsFd;

use common::FileRecord;
use shmbroker::{ChannelOptions, Char, Client};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::open()?;
    let channel = ChannelOptions::new().max_fds(1).open::<FileRecord>(&client, "example/files")?;
    let mut publisher = channel.publisher()?;
    channel.wait_for_subscribers(1, None)?;
    for name in std::env::args().skip(1) {
        let file = File::open(&name)?;
        let record = FileRecord { len: file.metadata()?.len(), name: Char::text(&name) };
        // Some dozens at most are on their way. Each subscriber has its own.
        publisher.send_fds_timeout(&record, &[file.as_fd()], None)?;
    }
    Ok(())
}
