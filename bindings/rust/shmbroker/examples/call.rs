// SPDX-License-Identifier: Apache-2.0
//! Calls what serve (of any language) serves: call [TEXT].

use std::time::Duration;

use shmbroker::Client;

const UPPER: u32 = 1;
const COUNT: u32 = 2;
const TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> shmbroker::Result<()> {
    let text = std::env::args().nth(1).unwrap_or_else(|| "hello".to_string());
    let client = Client::open()?;
    let caller = client.calls("example/calls")?.caller()?;
    // One request, one reply.
    let reply = caller.call(UPPER, text.as_bytes(), TIMEOUT)?;
    println!("{}", String::from_utf8_lossy(&reply));
    // One request, several replies.
    for reply in caller.stream(COUNT, &[], TIMEOUT)? {
        let mut number = [0; 8];
        number.copy_from_slice(&reply?);
        println!("{}", u64::from_ne_bytes(number));
    }
    Ok(())
}
