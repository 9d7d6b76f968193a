#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Publishes a tick every millisecond on a typed channel, for five seconds or as long as asked for.

Run subscribe (of any language) beside it. No broker needs to be started before.

    publish.py [COUNT]
"""

import sys
import time

import shmbroker


class Tick(shmbroker.Record, name="example.tick"):
    time_ns: shmbroker.u64  # CLOCK_MONOTONIC
    price: shmbroker.f64
    count: shmbroker.u32
    flags: shmbroker.u32


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    with shmbroker.connect() as client:
        with client.channel("example/ticks", Tick) as channel, channel.publisher() as publisher:
            for i in range(count):
                tick = Tick(time_ns=time.monotonic_ns(), price=100 + i * 0.25, count=i)
                # Waits up to a second for a subscriber that is a whole ring behind.
                publisher.send(tick, timeout=1.0)
                time.sleep(0.001)


if __name__ == "__main__":
    main()
