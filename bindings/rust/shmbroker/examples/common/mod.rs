// SPDX-License-Identifier: Apache-2.0
//! What the examples share.
#![allow(dead_code)] // not every one uses all of it

use std::os::raw::{c_int, c_long};

use shmbroker::Char;

shmbroker::record! {
    /// The record of the examples, the same in every language.
    #[derive(Debug)]
    pub struct Tick: "example.tick" {
        /// CLOCK_MONOTONIC.
        pub time_ns: u64,
        pub price: f64,
        pub count: u32,
        pub flags: u32,
    }
}

shmbroker::record! {
    /// The value of the examples of state channels.
    #[derive(Debug)]
    pub struct Pose: "example.pose" {
        /// CLOCK_MONOTONIC.
        pub time_ns: u64,
        pub x: f64,
        pub y: f64,
    }
}

shmbroker::record! {
    /// The record of the examples of queues.
    #[derive(Debug)]
    pub struct Task: "example.task" {
        pub number: u64,
    }
}

shmbroker::record! {
    /// The record of the examples that pass open files.
    #[derive(Debug)]
    pub struct FileRecord: "example.file" {
        pub len: u64,
        /// Padded with zeroes.
        pub name: [Char; 248],
    }
}

shmbroker::record! {
    /// The record of the examples of priorities and conflation.
    #[derive(Debug)]
    pub struct Price: "example.price" {
        pub instrument: u32,
        /// Counts the prices of this instrument.
        pub number: u32,
        pub price: f64,
    }
}

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: c_long,
}

extern "C" {
    fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int;
}

/// CLOCK_MONOTONIC, which all processes of a machine share. `Instant` does not give it away.
pub fn monotonic_ns() -> u64 {
    const CLOCK_MONOTONIC: c_int = 1;
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: fills one timespec, as 64-bit Linux has it.
    unsafe { clock_gettime(CLOCK_MONOTONIC, &mut time) };
    time.seconds as u64 * 1_000_000_000 + time.nanoseconds as u64
}
