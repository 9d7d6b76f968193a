// SPDX-License-Identifier: Apache-2.0
//! Takes open files from pass-files of any language, and counts their lines: `take-files [COUNT]`. It
//! ends after so many files.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;

use common::FileRecord;
use shmbroker::{ChannelOptions, Client, Text};

fn count_lines(file: &File) -> std::io::Result<usize> {
    let mut data = [0; 4096];
    let (mut lines, mut at) = (0, 0);
    loop {
        // The position is the file's own, and perhaps others read it as well.
        let n = file.read_at(&mut data, at)?;
        if n == 0 {
            return Ok(lines);
        }
        lines += data[..n].iter().filter(|&&byte| byte == b'\n').count();
        at += n as u64;
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: u64 = std::env::args().nth(1).map_or(Ok(u64::MAX), |text| text.parse())?;
    let client = Client::open()?;
    let channel = ChannelOptions::new().max_fds(1).open::<FileRecord>(&client, "example/files")?;
    let subscriber = channel.subscriber()?;
    for _ in 0..count {
        let record = subscriber.recv_timeout(None)?.expect("it waits for ever");
        let name = record.name.to_str().unwrap_or("a file whose name is no text");
        match subscriber.take_fds()?.pop() {
            None => println!("{}: it came without the file", name),
            Some(fd) => {
                let lines = count_lines(&File::from(fd))?;
                println!("{}: {} bytes, {} lines", name, record.len, lines);
            }
        }
    }
    Ok(())
}
