#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints the latest value of each key of a state channel, first as it is and then as it changes:
watch-state.py [CHANNEL]"""

import sys

import shmbroker


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else "example/poses"
    with shmbroker.connect() as client:
        with client.state(name, shmbroker.ANY) as channel, channel.subscriber() as subscriber:
            print(f"{channel!r}: {len(subscriber)} keys", file=sys.stderr)
            for key, value in subscriber.changes():
                print(key, value)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
