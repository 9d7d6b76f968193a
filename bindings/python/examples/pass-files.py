#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Passes open files on to whoever takes them.

Run take-files of any language before: it can read them although it may not be allowed to open them.

    pass-files.py FILE...
"""

import os
import sys

import shmbroker


class File(shmbroker.Record, name="example.file"):
    len: shmbroker.u64
    name: shmbroker.char[248]


def main():
    with shmbroker.connect() as client, client.channel("example/files", File, max_fds=1) as channel:
        with channel.publisher() as publisher:
            channel.wait_for_subscribers()
            for name in sys.argv[1:]:
                with open(name, "rb") as file:
                    length = os.fstat(file.fileno()).st_size
                    # Some dozens at most are on their way. Each subscriber has its own.
                    publisher.send(File(len=length, name=name), fds=[file])


if __name__ == "__main__":
    main()
