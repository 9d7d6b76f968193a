// SPDX-License-Identifier: Apache-2.0
//! Serves calls: UPPER answers with the text in capitals, COUNT with the numbers from 1 on, one
//! after the other. As many calls as asked for: serve [COUNT]. Run call (of any language) beside it.

use std::time::Duration;

use shmbroker::{Client, Request, Result, Server};

const UPPER: u32 = 1;
const COUNT: u32 = 2;
const ENOSYS: i32 = 38;
const PATIENCE: Duration = Duration::from_secs(1);

fn answer(server: &Server, request: &Request) -> Result<()> {
    match request.kind {
        UPPER => server.reply(request.call, 0, &request.data.to_ascii_uppercase(), PATIENCE),
        COUNT => {
            for i in 1..=5u64 {
                server.send(request.call, 0, &i.to_ne_bytes(), PATIENCE)?;
            }
            server.end(request.call, PATIENCE)
        }
        _ => server.fail(request.call, ENOSYS, "no such method", PATIENCE),
    }
}

fn main() -> Result<()> {
    let count = std::env::args().nth(1).map_or(usize::MAX, |n| n.parse().expect("a number"));
    let client = Client::open()?;
    let server = client.calls("example/calls")?.server()?;
    for _ in 0..count {
        if let Some(request) = server.recv(None)? {
            // A caller that went away, or does not read, is no reason to stop.
            if let Err(error) = answer(&server, &request) {
                eprintln!("process {} got no answer: {}", request.pid, error);
            }
        }
    }
    Ok(())
}
