# SPDX-License-Identifier: Apache-2.0
"""What the tests share: a broker per test class, a client per test, and some record types."""

import itertools
import os
import signal
import subprocess
import sys
import unittest

import shmbroker

try:
    import numpy
except ImportError:
    numpy = None

HERE = os.path.dirname(os.path.abspath(__file__))


def hear_interrupts():
    """In a new process: a shell's background jobs, and what they start, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Leg(shmbroker.Record, name="leg"):
    id: shmbroker.u32
    ratio: shmbroker.f32
    side: shmbroker.u8


class Tick(shmbroker.Record, name="market.tick"):
    time_ns: shmbroker.u64
    price: shmbroker.f64


class Everything(shmbroker.Record, name="test.everything"):
    a: shmbroker.u8
    b: shmbroker.i8
    c: shmbroker.u16
    d: shmbroker.i16
    e: shmbroker.u32
    f: shmbroker.i32
    g: shmbroker.u64
    h: shmbroker.i64
    i: shmbroker.f32
    j: shmbroker.f64
    k: shmbroker.bool_
    m: shmbroker.char
    text: shmbroker.char[12]
    levels: shmbroker.u32[4]
    leg: Leg
    legs: Leg[2]


class BrokerTest(unittest.TestCase):
    """Has `broker`, and per test `client`."""

    names = (f"test/{n}" for n in itertools.count())

    @classmethod
    def setUpClass(cls):
        cls.broker = shmbroker.Broker()

    @classmethod
    def tearDownClass(cls):
        cls.broker.stop()

    def setUp(self):
        self.client = self.broker.connect()
        self.addCleanup(self.client.close)

    def channel(self, schema=None, client=None, **options):
        return (client or self.client).channel(next(self.names), schema, **options)

    def pair(self, schema=None, lossy=False, drop_newest=False, **options):
        """A publisher and a subscriber of a new channel."""
        channel = self.channel(schema, **options)
        subscriber = channel.subscriber(lossy=lossy)
        return channel.publisher(drop_newest=drop_newest), subscriber

    def fill(self, publisher, record):
        """Send until there is no room. Returns how many."""
        for n in itertools.count():
            try:
                publisher.send(record, block=False)
            except shmbroker.Full:
                return n

    def script(self, source, *arguments):
        """Start a Python process that runs some source with this package."""
        process = subprocess.Popen(
            [sys.executable, "-c", source, self.broker.address, *arguments],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
            preexec_fn=hear_interrupts,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process
