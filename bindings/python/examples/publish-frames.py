#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Publishes a picture of two megabytes thirty times a second, for ten seconds or as asked for.

It is drawn where subscribers look at it; nobody copies it. Run hold-frames (of any language)
beside it.

    publish-frames.py [COUNT]
"""

import struct
import sys
import time

import shmbroker

WIDTH, HEIGHT = 1920, 1080
LEN = 16 + WIDTH * HEIGHT


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    with shmbroker.connect() as client:
        channel = client.channel("example/frames", record_len_max=LEN, max_holds=3)
        with channel, channel.publisher() as publisher:
            for i in range(count):
                left = i * 8 % (WIDTH - 64)
                row = bytes([16]) * left + bytes([235]) * 64 + bytes([16]) * (WIDTH - 64 - left)
                try:
                    with publisher.loan(LEN, block=False) as frame:
                        struct.pack_into("<QII", frame, 0, time.monotonic_ns(), i, 0)
                        frame[16:] = row * HEIGHT
                except shmbroker.Full:
                    pass  # a camera does not wait: what finds no room is not taken
                time.sleep(1 / 30)


if __name__ == "__main__":
    main()
