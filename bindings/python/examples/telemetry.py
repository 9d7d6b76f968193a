#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Publishes this machine's telemetry, and streams a file meanwhile.

Samples /proc at --rate on channel demo/telemetry, as records "machine.telemetry". With --file,
the file goes to channel demo/file between the samples, as records of at most 4 KiB:

    type 1  u64 bytes of the file, 32 bytes SHA-256 of it
    type 2  the next bytes
    type 3  the end
"""

import argparse
import hashlib
import os
import struct
import sys
import time

import shmbroker

TYPE_HEADER, TYPE_DATA, TYPE_END = 1, 2, 3
CHUNK_LEN = 4096
# Chunks that are sent between two looks at the clock.
BURST = 16
WAIT_S = 60.0
CATCH_UP_NS = 100_000_000


class Telemetry(shmbroker.Record, name="machine.telemetry"):
    time_ns: shmbroker.u64  # CLOCK_MONOTONIC when it was sent
    sequence: shmbroker.u64
    cpu_busy: shmbroker.u64  # jiffies of all CPUs together
    cpu_idle: shmbroker.u64
    mem_total_kib: shmbroker.u64
    mem_available_kib: shmbroker.u64
    disk_read_sectors: shmbroker.u64
    disk_written_sectors: shmbroker.u64
    net_received_bytes: shmbroker.u64
    net_sent_bytes: shmbroker.u64
    load_1min: shmbroker.f64


class Proc:
    """The files in /proc, opened once: reading at offset 0 gives new text each time."""

    def __init__(self):
        names = ("stat", "meminfo", "diskstats", "net/dev", "loadavg")
        self.fds = [os.open("/proc/" + name, os.O_RDONLY | os.O_CLOEXEC) for name in names]
        try:
            self.disks = {name.encode() for name in os.listdir("/sys/block")}
        except OSError:
            self.disks = None  # no /sys in this container: partitions count, too

    def sample(self, telemetry):
        """Fill in everything but time and sequence."""
        stat, meminfo, diskstats, net, loadavg = (os.pread(fd, 65536, 0) for fd in self.fds)

        # cpu user nice system idle iowait irq softirq steal ...
        jiffies = [int(word) for word in stat[: stat.index(b"\n")].split()[1:9]]
        telemetry.cpu_idle = jiffies[3] + jiffies[4]
        telemetry.cpu_busy = sum(jiffies) - telemetry.cpu_idle

        telemetry.mem_total_kib = self.kib(meminfo, b"MemTotal:")
        telemetry.mem_available_kib = self.kib(meminfo, b"MemAvailable:")

        # major minor name reads merged SECTORS ms writes merged SECTORS ...
        read = written = 0
        for line in diskstats.splitlines():
            words = line.split()
            if self.disks is None or words[2] in self.disks:
                read += int(words[5])
                written += int(words[9])
        telemetry.disk_read_sectors = read
        telemetry.disk_written_sectors = written

        # name: BYTES packets errs drop fifo frame compressed multicast BYTES ...
        received = sent = 0
        for line in net.splitlines()[2:]:
            words = line.partition(b":")[2].split()
            received += int(words[0])
            sent += int(words[8])
        telemetry.net_received_bytes = received
        telemetry.net_sent_bytes = sent

        telemetry.load_1min = float(loadavg[: loadavg.index(b" ")])

    @staticmethod
    def kib(meminfo, name):
        at = meminfo.index(name) + len(name)
        return int(meminfo[at : meminfo.index(b"kB", at)])


class FileStream:
    """A file on its way, as far as there is room."""

    def __init__(self, path, publisher):
        self.file = open(path, "rb")  # pylint: disable=consider-using-with
        self.publisher = publisher
        self.size = os.fstat(self.file.fileno()).st_size
        self.sent = self.records = 0
        self.seconds = None
        self.started = None
        self.pending = None
        self.sha256 = hashlib.sha256()
        for chunk in iter(lambda: self.file.read(1 << 20), b""):
            self.sha256.update(chunk)
        self.file.seek(0)

    def start(self):
        self.started = time.monotonic()
        header = struct.pack("<Q32s", self.size, self.sha256.digest())
        self.publisher.send(header, type=TYPE_HEADER)

    def go_on(self):
        """Send some. Returns False when there is no room now, or nothing left."""
        if self.seconds is not None:
            return False
        for _ in range(BURST):
            if self.pending is None:
                self.pending = self.file.read(CHUNK_LEN)
            try:
                kind = TYPE_DATA if self.pending else TYPE_END
                self.publisher.send(self.pending, block=False, type=kind)
            except shmbroker.Full:
                return False
            if not self.pending:
                self.seconds = time.monotonic() - self.started
                return False
            self.sent += len(self.pending)
            self.records += 1
            self.pending = None
        return True

    def finish(self):
        """Send the rest, however long the subscribers take."""
        while self.seconds is None:
            if not self.go_on() and self.seconds is None:
                time.sleep(0.0002)


def percentile(values, percent):
    return values[min(len(values) - 1, int(len(values) * percent / 100))]


def run(proc, publisher, stream, rate, seconds):
    """Sample on time, stream in between. Returns the times at which samples were sent."""
    period_ns = int(1e9 / rate)
    telemetry = Telemetry()
    times = []
    due = time.monotonic_ns()
    end = due + int(seconds * 1e9)
    while due < end:
        proc.sample(telemetry)
        telemetry.sequence = len(times)
        telemetry.time_ns = now = time.monotonic_ns()
        publisher.send(telemetry, timeout=WAIT_S)
        times.append(now)
        # Catch up with what was missed, unless the machine was away for long.
        due = max(due + period_ns, now - CATCH_UP_NS)
        while True:
            left = due - time.monotonic_ns()
            if left <= 0:
                break
            if not stream or not stream.go_on():
                time.sleep(min(left, 200000 if stream and stream.seconds is None else left) / 1e9)
    return times


def report(times, publisher, stream):
    periods = sorted((b - a) / 1000 for a, b in zip(times, times[1:]))
    seconds = (times[-1] - times[0]) / 1e9 or 1.0
    stats = publisher.stats()
    print(
        f"telemetry: {stats.published} records in {seconds:.2f} s, {len(periods) / seconds:.1f}/s, "
        f"{stats.n_subscribers} subscriber(s), {stats.dropped} dropped"
    )
    if periods:
        marks = (f"p{p} {percentile(periods, p):.0f}" for p in (1, 50, 90, 99, 99.9))
        print(f"telemetry: sampling period in us: {', '.join(marks)}, max {periods[-1]:.0f}")
    if stream:
        print(
            f"file: {stream.sent} bytes in {stream.records} records, {stream.seconds:.2f} s, "
            f"{stream.sent / stream.seconds / 1e6:.1f} MB/s"
        )
        print(f"file: sha256 {stream.sha256.hexdigest()}")


def main():
    parser = argparse.ArgumentParser(description="publish telemetry, and a file meanwhile")
    parser.add_argument("--seconds", type=float, default=10, help="how long (default 10)")
    parser.add_argument("--rate", type=float, default=1000, help="samples per second")
    parser.add_argument("--file", help="stream this file on demo/file")
    parser.add_argument(
        "--wait-for-subscribers",
        type=int,
        default=0,
        metavar="N",
        help="wait until each channel has N subscribers",
    )
    arguments = parser.parse_args()
    if arguments.rate <= 0 or arguments.seconds <= 0:
        parser.error("rate and seconds must be positive")

    # Closing the client at the end closes the channels and publishers with it.
    with shmbroker.connect(label="telemetry.py") as client:
        channels = [client.channel("demo/telemetry", Telemetry)]
        publisher = channels[0].publisher()
        stream = None
        if arguments.file:
            channels.append(client.channel("demo/file"))
            stream = FileStream(arguments.file, channels[1].publisher())
        for channel in channels:
            channel.wait_for_subscribers(arguments.wait_for_subscribers, timeout=WAIT_S)
        if stream:
            stream.start()
        times = run(Proc(), publisher, stream, arguments.rate, arguments.seconds)
        if stream:
            stream.finish()
        report(times, publisher, stream)


if __name__ == "__main__":
    try:
        main()
    except shmbroker.Error as error:
        sys.exit(f"telemetry.py: {error}")
