#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Takes open files from pass-files of any language, and counts their lines.

    take-files.py [COUNT]

It ends after so many files.
"""

import itertools
import os
import sys

import shmbroker


class File(shmbroker.Record, name="example.file"):
    len: shmbroker.u64
    name: shmbroker.char[248]


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else None
    with shmbroker.connect() as client, client.channel("example/files", File, max_fds=1) as channel:
        with channel.subscriber() as subscriber:
            for _ in range(count) if count else itertools.count():
                record, fds = subscriber.recv_fds()
                if not fds:
                    print(f"{record.name}: it came without the file")
                    continue
                with os.fdopen(fds[0], "rb") as file:
                    # The position is the file's own, and perhaps others read it as well.
                    data = os.pread(file.fileno(), record.len, 0)
                print(f"{record.name}: {record.len} bytes, {data.count(10)} lines")


if __name__ == "__main__":
    main()
