#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares each picture of publish-frames (of any language) with the one two before it.

It holds the last three, and ends when none has come for two seconds. Nobody copies a picture.
"""

import collections
import struct

import shmbroker

WIDTH, HEIGHT = 1920, 1080
LEN = 16 + WIDTH * HEIGHT


def head(hold):
    """Number of a picture, and its first row."""
    with memoryview(hold) as frame:
        return struct.unpack_from("<QII", frame)[1], bytes(frame[16 : 16 + WIDTH])


def main():
    held = collections.deque()
    with shmbroker.connect() as client:
        channel = client.channel("example/frames", record_len_max=LEN, max_holds=3)
        with channel, channel.subscriber() as subscriber:
            while True:
                if len(held) == 3:
                    held.popleft().release()
                try:
                    held.append(subscriber.peek(1, timeout=2).hold())
                except shmbroker.Timeout:
                    break
                if len(held) == 3:
                    (first, before), (last, row) = head(held[0]), head(held[-1])
                    different = sum(a != b for a, b in zip(before, row))
                    print(f"{last}: {different} columns differ from {first}")


if __name__ == "__main__":
    main()
