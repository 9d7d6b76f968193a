// SPDX-License-Identifier: Apache-2.0
//! Examples that begin and end by themselves say what they should.

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::start;

/// Beside the tests cargo builds the examples.
fn example(name: &str) -> Option<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let path = test.parent()?.parent()?.join("examples").join(name);
    path.exists().then_some(path)
}

fn says(name: &str, expected: &[&str]) {
    let (broker, _client) = start();
    let path = match example(name) {
        Some(path) => path,
        None => return println!("the examples were not built"),
    };
    let output = Command::new(path).env("SHMBROKER_ADDRESS", broker.address()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn priorities() {
    says(
        "priorities",
        &[
            "priority 7, number 0",
            "priority 7, number 1",
            "priority 0, number 0",
            "priority 0, number 1",
            "priority 0, number 2",
            "priority 0, number 3",
        ],
    );
}

#[test]
fn conflate() {
    says(
        "conflate",
        &[
            "instrument 0, number 24, at 124.00",
            "instrument 1, number 24, at 124.25",
            "instrument 2, number 24, at 124.50",
            "instrument 3, number 24, at 124.75",
            "96 older ones were skipped",
        ],
    );
}
