#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Gives numbers to be factored to workers, and waits until all of them are done.

Run as many work (of any language) beside it as you like, at any time, and kill them as you like.

    submit.py [COUNT]
"""

import sys

import shmbroker


class Task(shmbroker.Record, name="example.task"):
    number: shmbroker.u64


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with shmbroker.connect() as client:
        with client.queue("example/numbers", Task) as queue, queue.publisher() as publisher:
            for i in range(count):
                publisher.send(Task(number=1001 + i))  # waits until a worker has credit
            publisher.wait_done()
    print(f"{count} tasks are done")


if __name__ == "__main__":
    main()
