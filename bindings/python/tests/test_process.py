# SPDX-License-Identifier: Apache-2.0
"""Several processes: another Python, fork, spawn, signals, kill."""

import multiprocessing
import os
import signal
import sys
import threading
import time
import unittest

import shmbroker
from support import BrokerTest, Tick

PUBLISH = """
import sys, shmbroker
class Tick(shmbroker.Record, name="market.tick"):
    time_ns: shmbroker.u64
    price: shmbroker.f64
with shmbroker.connect(sys.argv[1], start=False) as client:
    with client.channel(sys.argv[2], Tick) as channel, channel.publisher() as publisher:
        channel.wait_members(subscribers=1, timeout=20)
        for i in range(int(sys.argv[3])):
            publisher.send(Tick(i, i / 2))
        print("sent", flush=True)
        sys.stdin.read()
"""


def spawned(address, name):
    with shmbroker.connect(address, start=False) as client:
        with client.channel(name, Tick) as channel, channel.subscriber() as subscriber:
            sys.exit(sum(subscriber.recv(timeout=20).time_ns for _ in range(10)))


class Processes(BrokerTest):
    def test_another_process_publishes(self):
        channel = self.channel(Tick, lane_len=1 << 14)
        subscriber = channel.subscriber()
        process = self.script(PUBLISH, channel.name, "50000")
        got = []
        while len(got) < 50000:
            got += subscriber.recv_many(timeout=20)
        self.assertEqual(
            got[:3] + got[-1:], [Tick(0, 0), Tick(1, 0.5), Tick(2, 1), Tick(49999, 24999.5)]
        )
        self.assertEqual([t.time_ns for t in got], list(range(50000)))
        process.communicate()
        self.assertEqual(process.returncode, 0)

    def test_spawn(self):
        context = multiprocessing.get_context("spawn")
        channel = self.channel(Tick)
        process = context.Process(target=spawned, args=(self.broker.address, channel.name))
        process.start()
        publisher = channel.publisher()
        channel.wait_members(subscribers=1, timeout=20)
        publisher.send_many([Tick(i) for i in range(10)])
        process.join(20)
        self.assertEqual(process.exitcode, 45)

    def test_kill(self):
        channel = self.channel(Tick)
        subscriber = channel.subscriber()
        process = self.script(PUBLISH, channel.name, "100")
        self.assertEqual(process.stdout.readline(), "sent\n")
        process.kill()
        process.wait()
        self.assertEqual([subscriber.recv(timeout=5).time_ns for _ in range(100)],
                         list(range(100)))  # fmt: skip
        with self.assertRaises(shmbroker.Empty):
            subscriber.recv(block=False)
        deadline = time.monotonic() + 10
        while channel.info().n_publishers and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertEqual(channel.info().n_publishers, 0)

    def in_child(self, function):
        """Run a function in a forked child. Returns its exit code."""
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                function()
                code = 0
            except BaseException as error:  # pylint: disable=broad-except
                print(repr(error), file=sys.stderr)
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def test_fork(self):
        channel = self.channel(Tick)
        publisher, subscriber = channel.publisher(), channel.subscriber()
        publisher.send(Tick(1))

        def child():
            for use in (
                lambda: publisher.send(Tick(2)),
                lambda: publisher.send_many([Tick(2)]),
                publisher.loan,
                subscriber.recv,
                subscriber.peek,
                subscriber.arm,
                channel.publisher,
                channel.info,
                self.client.ping,
                lambda: self.client.channel("test/child"),
            ):
                with self.assertRaises(shmbroker.Forked):
                    use()
            self.client.close()
            with shmbroker.connect(self.broker.address, start=False) as client:
                with client.channel(channel.name, Tick) as again, again.publisher() as own:
                    own.send(Tick(3))

        self.assertEqual(self.in_child(child), 0)
        self.assertEqual([subscriber.recv(timeout=5).time_ns for _ in range(2)], [1, 3])
        publisher.send(Tick(4))
        self.assertEqual(subscriber.recv(timeout=5), Tick(4))

    def test_forked_child_forgets(self):
        channel = self.channel(Tick)
        members = [channel.publisher(), channel.subscriber(), shmbroker.WaitSet(self.client)]

        def child():
            del members[:]

        self.assertEqual(self.in_child(child), 0)
        members[0].send(Tick(4))
        self.assertEqual(members[1].recv(timeout=5), Tick(4))

    def interrupted(self, call):
        class Alarm(Exception):
            pass

        def handler(number, frame):
            raise Alarm

        before = signal.signal(signal.SIGALRM, handler)
        started = time.monotonic()
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with self.assertRaises(Alarm):
                call()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        self.assertLess(time.monotonic() - started, 10)

    def test_signals_interrupt_waits(self):
        publisher, subscriber = self.pair(Tick, lane_len=4096)
        waitset = shmbroker.WaitSet(self.client)
        for call in (
            subscriber.recv,
            lambda: subscriber.recv(timeout=30),
            subscriber.recv_many,
            subscriber.peek,
            subscriber.wait,
            lambda: next(iter(subscriber)),
            waitset.wait,
            lambda: self.channel().wait_members(subscribers=5),
        ):
            self.interrupted(call)
        n = self.fill(publisher, Tick())
        self.interrupted(lambda: publisher.send(Tick()))
        self.interrupted(lambda: publisher.send_many([Tick()]))
        self.interrupted(publisher.loan)
        self.assertEqual(len(subscriber.recv_many(n)), n)

    def test_keyboard_interrupt(self):
        process = self.script(
            "import sys, shmbroker\n"
            "client = shmbroker.connect(sys.argv[1])\n"
            "subscriber = client.channel('test/interrupt').subscriber()\n"
            "try:\n"
            "    print('ready', flush=True)\n"
            "    subscriber.recv()\n"
            "except KeyboardInterrupt:\n"
            "    print('interrupted')\n"
        )
        self.assertEqual(process.stdout.readline(), "ready\n")
        threading.Timer(0.1, process.send_signal, (signal.SIGINT,)).start()
        self.assertEqual(process.communicate(timeout=10)[0], "interrupted\n")

    def test_exit_without_closing(self):
        process = self.script(
            "import sys, shmbroker\n"
            "client = shmbroker.connect(sys.argv[1])\n"
            "channel = client.channel('test/exit')\n"
            "publisher, subscriber = channel.publisher(), channel.subscriber()\n"
            "publisher.send(b'abc')\n"
            "peek = subscriber.peek()\n"
            "view = memoryview(peek)\n"
            "loan = publisher.loan(5)\n"
        )
        process.communicate(timeout=20)
        self.assertEqual(process.returncode, 0)


if __name__ == "__main__":
    unittest.main()
