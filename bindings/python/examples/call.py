# SPDX-License-Identifier: Apache-2.0
"""Calls what serve (of any language) serves: call.py [TEXT]."""

import struct
import sys

import shmbroker

UPPER, COUNT = 1, 2

with shmbroker.connect() as client, client.calls("example/calls") as channel:
    with channel.caller() as caller:
        text = sys.argv[1] if len(sys.argv) > 1 else "hello"
        # One request, one reply.
        print(caller.call(text.encode(), UPPER, timeout=10).decode())
        # One request, several replies.
        with caller.start(type=COUNT, timeout=10) as call:
            for reply in call:
                print(struct.unpack("=Q", reply)[0])
