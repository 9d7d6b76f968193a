#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints what is published on a channel, whatever its records are: subscribe.py [CHANNEL]"""

import sys

import shmbroker


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else "example/ticks"
    with shmbroker.connect() as client:
        with client.channel(name, shmbroker.ANY) as channel, channel.subscriber() as subscriber:
            print(f"{channel!r}: {channel.info().n_publishers} publishers", file=sys.stderr)
            for record in subscriber:
                print(record)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
