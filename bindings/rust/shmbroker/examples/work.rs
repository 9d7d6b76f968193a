// SPDX-License-Identifier: Apache-2.0
//! Factors the numbers that submit (of any language) sends, until none has come for two seconds.
//! What it has not done when it is killed other workers get.

mod common;

use std::time::Duration;

use common::Task;
use shmbroker::Client;

fn factors(mut number: u64) -> Vec<String> {
    let mut factors = Vec::new();
    let mut divisor = 2;
    while divisor * divisor <= number {
        if number % divisor == 0 {
            factors.push(divisor.to_string());
            number /= divisor;
        } else {
            divisor += 1;
        }
    }
    factors.push(number.to_string());
    factors
}

fn main() -> shmbroker::Result<()> {
    let client = Client::open()?;
    let worker = client.queue::<Task>("example/numbers")?.subscriber()?;
    while let Some(task) = worker.take_timeout(Duration::from_secs(2))? {
        println!("{} = {}", task.number, factors(task.number).join(" * "));
        // A task that is dropped without it comes again.
        task.done()?;
    }
    Ok(())
}
