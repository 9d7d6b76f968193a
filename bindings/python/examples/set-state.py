#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Puts the pose of a robot ten times a second, for a minute or as often as asked for.

Run watch-state (of any language) beside it, at any time: it sees the latest pose at once.

    set-state.py [COUNT [ROBOT]]
"""

import math
import sys
import time

import shmbroker


class Pose(shmbroker.Record, name="example.pose"):
    time_ns: shmbroker.u64  # CLOCK_MONOTONIC
    x: shmbroker.f64
    y: shmbroker.f64


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    robot = sys.argv[2] if len(sys.argv) > 2 else "left"
    with shmbroker.connect() as client:
        with client.state("example/poses", Pose) as channel, channel.publisher() as publisher:
            publisher.claim(robot)  # Busy: another process puts its pose
            for i in range(count):
                angle = i / 10
                publisher[robot] = Pose(
                    time_ns=time.monotonic_ns(), x=math.cos(angle), y=math.sin(angle)
                )
                time.sleep(0.1)


if __name__ == "__main__":
    main()
