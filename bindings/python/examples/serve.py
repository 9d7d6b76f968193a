# SPDX-License-Identifier: Apache-2.0
"""Serves calls: UPPER answers with the text in capitals, COUNT with the numbers from 1 on, one after
the other. As many calls as asked for: serve.py [COUNT]. Run call (of any language) beside it.
"""

import errno
import itertools
import struct
import sys

import shmbroker

UPPER, COUNT = 1, 2

with shmbroker.connect() as client, client.calls("example/calls") as channel:
    with channel.server() as server:
        for request in itertools.islice(server, int(sys.argv[1]) if len(sys.argv) > 1 else None):
            # A caller that went away, or does not read, is no reason to stop.
            try:
                if request.type == UPPER:
                    request.reply(request.data.upper(), timeout=1)
                elif request.type == COUNT:
                    for i in range(1, 6):
                        request.send(struct.pack("=Q", i), timeout=1)
                    request.end(timeout=1)
                else:
                    request.fail(errno.ENOSYS, "no such method", timeout=1)
            except shmbroker.Error as error:
                print(f"process {request.pid} got no answer: {error}", file=sys.stderr)
