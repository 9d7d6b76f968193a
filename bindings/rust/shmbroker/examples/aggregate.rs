// SPDX-License-Identifier: Apache-2.0
//! Sums up the machine's telemetry that another program publishes on `demo/telemetry`, such as
//! bindings/python/examples/telemetry.py: `aggregate [--seconds N]`.
//!
//! It ends after N seconds of telemetry, or when the publisher has gone and nothing is left.

mod common;

use std::time::{Duration, Instant};

use common::monotonic_ns;
use shmbroker::{record, Client, Subscriber};

const CHANNEL: &str = "demo/telemetry";
/// Bytes of a sector in /proc/diskstats, whatever the disk has.
const SECTOR_LEN: u64 = 512;
/// How many records one look takes at most.
const BATCH: usize = 1024;

record! {
    /// Counters of a machine, as the kernel counts them.
    #[derive(Debug)]
    pub struct Telemetry: "machine.telemetry" {
        /// CLOCK_MONOTONIC when it was sent.
        pub time_ns: u64,
        pub sequence: u64,
        /// Jiffies of all CPUs together.
        pub cpu_busy: u64,
        pub cpu_idle: u64,
        pub mem_total_kib: u64,
        pub mem_available_kib: u64,
        pub disk_read_sectors: u64,
        pub disk_written_sectors: u64,
        pub net_received_bytes: u64,
        pub net_sent_bytes: u64,
        pub load_1min: f64,
    }
}

#[derive(Default)]
struct Summary {
    first: Option<Telemetry>,
    last: Option<Telemetry>,
    count: u64,
    gaps: u64,
    load_max: f64,
    latencies_ns: Vec<u64>,
}

impl Summary {
    fn add(&mut self, telemetry: &Telemetry) {
        self.latencies_ns.push(monotonic_ns().saturating_sub(telemetry.time_ns));
        if let Some(last) = &self.last {
            // Another publisher begins anew; within one, nothing may be missing.
            if telemetry.sequence > last.sequence {
                self.gaps += telemetry.sequence - last.sequence - 1;
            }
        }
        self.first.get_or_insert(*telemetry);
        self.last = Some(*telemetry);
        self.count += 1;
        self.load_max = self.load_max.max(telemetry.load_1min);
    }

    fn print(mut self) {
        let (first, last) = match (self.first, self.last) {
            (Some(first), Some(last)) => (first, last),
            _ => return println!("no telemetry came"),
        };
        let seconds = last.time_ns.saturating_sub(first.time_ns) as f64 / 1e9;
        let rate = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let more = |from: u64, to: u64| to.saturating_sub(from);
        let mib = 1024.0 * 1024.0;
        let busy = more(first.cpu_busy, last.cpu_busy);
        let idle = more(first.cpu_idle, last.cpu_idle);
        let cpu = 100.0 * busy as f64 / (busy + idle).max(1) as f64;
        let used = more(last.mem_available_kib, last.mem_total_kib);
        let read = more(first.disk_read_sectors, last.disk_read_sectors) * SECTOR_LEN;
        let written = more(first.disk_written_sectors, last.disk_written_sectors) * SECTOR_LEN;
        let received = more(first.net_received_bytes, last.net_received_bytes);
        let sent = more(first.net_sent_bytes, last.net_sent_bytes);
        self.latencies_ns.sort_unstable();
        let latencies = &self.latencies_ns;
        let percentile = |percent: usize| {
            latencies[(latencies.len() * percent / 100).min(latencies.len() - 1)] as f64 / 1e3
        };

        println!("records   {:>12}   in {:.2} s, {} missing", self.count, seconds, self.gaps);
        println!("rate      {:>12.0} /s", rate(self.count - 1));
        println!(
            "cpu       {:>12.1} %  load {:.2}, at most {:.2}",
            cpu, last.load_1min, self.load_max
        );
        println!(
            "memory    {:>12.1} %  {} of {} MiB",
            100.0 * used as f64 / last.mem_total_kib.max(1) as f64,
            used / 1024,
            last.mem_total_kib / 1024
        );
        println!(
            "disk      {:>12.2} MiB/s read, {:.2} MiB/s written",
            rate(read) / mib,
            rate(written) / mib
        );
        println!(
            "network   {:>12.2} MiB/s in, {:.2} MiB/s out",
            rate(received) / mib,
            rate(sent) / mib
        );
        println!(
            "latency   {:>12.1} us p50, {:.1} us p99, {:.1} us max",
            percentile(50),
            percentile(99),
            percentile(100)
        );
    }
}

/// Takes in what is there: how much.
fn drain(subscriber: &Subscriber<Telemetry>, summary: &mut Summary) -> shmbroker::Result<usize> {
    let mut count = 0;
    while let Some(batch) = subscriber.peek_many(BATCH)? {
        count += batch.len();
        batch.iter().for_each(|telemetry| summary.add(&telemetry));
        batch.release()?;
    }
    Ok(count)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut limit = None;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match (&arg[..], args.next()) {
            ("--seconds", Some(seconds)) => {
                limit = Some(Duration::from_millis((seconds.parse::<f64>()? * 1e3) as u64));
            }
            _ => return Err("usage: aggregate [--seconds N]".into()),
        }
    }

    let client = Client::open()?;
    let channel = client.channel::<Telemetry>(CHANNEL)?;
    let subscriber = channel.subscriber()?;
    eprintln!("waiting for a publisher of {}", CHANNEL);
    channel.wait_members(1, 1, None)?;

    let mut summary = Summary::default();
    let end = limit.map(|limit| Instant::now() + limit);
    while end.map_or(true, |end| Instant::now() < end) {
        // Asked before looking: what comes after the last one has gone, comes from nobody.
        let publishers = channel.info()?.publishers;
        if drain(&subscriber, &mut summary)? == 0 {
            if publishers == 0 {
                break;
            }
            subscriber.wait(Duration::from_millis(100))?;
        }
    }
    summary.print();
    Ok(())
}
