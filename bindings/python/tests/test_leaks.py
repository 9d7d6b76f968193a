# SPDX-License-Identifier: Apache-2.0
"""Loops over everything, to see that neither references, memory nor fds pile up."""

import gc
import os
import subprocess
import sys
import unittest

import shmbroker
from support import BrokerTest, Everything, Leg, Tick, numpy

BROKER = """
import sys, shmbroker
with shmbroker.Broker() as broker:
    print(broker.address, flush=True)
    sys.stdin.read()
"""


def memory_kib():
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * 4


class Leaks(BrokerTest):
    @classmethod
    def setUpClass(cls):
        """The broker has a process of its own, so that its fds and memory are not counted here."""
        cls.process = subprocess.Popen(
            [sys.executable, "-c", BROKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
            text=True,
        )
        cls.address = cls.process.stdout.readline().strip()

    @classmethod
    def tearDownClass(cls):
        cls.process.communicate()

    def setUp(self):
        self.client = shmbroker.connect(self.address)
        self.addCleanup(self.client.close)

    def check(self, step, rounds=2000, warm=0, slack_kib=1024):
        """A step repeated must not grow the process by more than some slack."""
        for _ in range(max(rounds // 10, warm)):
            step()
        gc.collect()
        blocks, before = sys.getallocatedblocks(), memory_kib()
        for _ in range(rounds):
            step()
        gc.collect()
        self.assertLess(sys.getallocatedblocks() - blocks, rounds // 2)
        self.assertLess(memory_kib() - before, slack_kib)

    def test_records(self):
        def step():
            record = Everything(1, leg=Leg(1), text="abc", levels=(1, 2, 3, 4))
            record.legs = record.legs
            record.leg.id, record.levels, record.astuple(), record.asdict(), repr(record)
            bytes(record), memoryview(record), record == Everything.from_buffer(record)
            for bad in (lambda: Everything(text="x" * 20), lambda: Everything(levels=(1, 2, 3, -1)),
                        lambda: Tick(x=1), lambda: record["x"], lambda: Tick.from_buffer(b"")):  # fmt: skip
                try:
                    bad()
                except (ValueError, OverflowError, TypeError, KeyError):
                    pass

        self.check(step)

    def test_classes(self):
        def step():
            made = shmbroker.record_from_schema(Everything.schema)
            made().leg
            try:
                shmbroker.record_from_schema(Everything.schema[:-1])
            except shmbroker.Invalid:
                pass

        self.check(step, rounds=400, warm=400)

    def test_messages(self):
        publisher, subscriber = self.pair(Everything)
        record = Everything(1)
        references = [(o, sys.getrefcount(o)) for o in (record, Everything, Everything.__layout__)]

        def step():
            publisher.send(record)
            subscriber.recv()
            publisher.send_many([record, record])
            subscriber.recv_many()
            publisher.send(bytes(record), type=3)
            subscriber.recv_bytes()
            with publisher.loan() as loan:
                loan.a = 1
            with subscriber.peek() as peek:
                peek[0].leg.id, memoryview(peek).nbytes
            if numpy:
                publisher.send_many(numpy.zeros(2, Everything.dtype))
                subscriber.recv_array(2)
            for bad in (lambda: publisher.send(b"x"), lambda: publisher.send_many([record, 5]),
                        subscriber.recv_many, subscriber.recv, subscriber.peek,
                        lambda: publisher.send(Leg()), lambda: publisher.loan(1)):  # fmt: skip
                try:
                    if bad in (subscriber.recv_many, subscriber.recv, subscriber.peek):
                        bad(block=False)
                    else:
                        bad()
                except (shmbroker.Error, TypeError):
                    pass
            subscriber.try_recv(), subscriber.arm(), subscriber.stats(), publisher.stats()

        self.check(step)
        for object_, count in references:
            self.assertLessEqual(abs(sys.getrefcount(object_) - count), 3, object_)

    def test_raw_messages(self):
        publisher, subscriber = self.pair()

        def step():
            for size in (0, 10, 5000):
                publisher.send(bytes(size))
                subscriber.recv()
            publisher.send_many([b"abc", b"defg"])
            subscriber.recv_many()
            loan = publisher.loan(10)
            with loan as view:
                view[:3] = b"abc"
                loan.truncate(3)
            with subscriber.peek() as peek:
                peek[0].release()

        self.check(step)

    def test_calls(self):
        channel = self.client.calls(next(self.names), record_len_max=100000, inline_len_max=2000)
        caller, server = channel.caller(), channel.server()

        def step():
            loan = caller.loan(5000, 20)
            with loan as view:
                view[0] = 1
            call = caller.start(loan, timeout=20)
            request = server.recv_hold(20)
            loan = request.loan(10)
            with loan as view:
                view[0] = 2
            request.send(loan)
            request.loan(5000)
            request.reply(bytes(5000))
            with request.data as hold:
                bytes(hold)
            call.recv_hold(20)
            call.recv(20)

        self.check(step)

    def test_handles(self):
        def step():
            with shmbroker.connect(self.address) as client:
                channel = client.channel(next(self.names), Tick)
                publisher, subscriber = channel.publisher(), channel.subscriber()
                waitset = shmbroker.WaitSet(client)
                waitset.add(subscriber)
                subscriber.fileno()
                publisher.send(Tick())
                waitset.wait(5)
                subscriber.recv()
                publisher.loan(), subscriber.stats()

        for _ in range(5):
            step()
        gc.collect()
        fds = len(os.listdir("/proc/self/fd"))
        self.check(step, rounds=40, slack_kib=4096)
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), fds)

    def test_forgotten_handles(self):
        def step():
            channel = shmbroker.connect(self.address).channel(next(self.names), Tick)
            channel.publisher(), channel.subscriber()

        step()
        gc.collect()
        fds = len(os.listdir("/proc/self/fd"))
        self.check(step, rounds=40, slack_kib=4096)
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), fds)


if __name__ == "__main__":
    unittest.main()
