# SPDX-License-Identifier: Apache-2.0
"""Wait sets, and the fds behind selectors."""

import gc
import os
import select
import selectors
import threading
import time
import unittest

import shmbroker
from support import BrokerTest, Tick


class WaitSet(BrokerTest):
    def setUp(self):
        super().setUp()
        self.waitset = shmbroker.WaitSet(self.client)

    def test_subscribers(self):
        pairs = [self.pair(Tick) for _ in range(5)]
        for _, subscriber in pairs:
            self.waitset.add(subscriber)
        self.assertEqual(self.waitset.wait(0.01), [])
        pairs[3][0].send(Tick(3))
        self.assertEqual(self.waitset.wait(5), [(pairs[3][1], select.POLLIN)])
        # Not emptied: reported again.
        self.assertEqual(self.waitset.wait(5), [(pairs[3][1], select.POLLIN)])
        self.assertEqual(pairs[3][1].try_recv(), Tick(3))
        self.assertEqual(self.waitset.wait(0.01), [])
        for publisher, _ in pairs:
            publisher.send(Tick())
        ready = set()
        while len(ready) < 5:
            for subscriber, _ in self.waitset.wait(5, max=2):
                subscriber.try_recv()
                ready.add(id(subscriber))
        self.assertIn(self.waitset.backend, ("io_uring", "epoll"))

    def test_wakes_up(self):
        publisher, subscriber = self.pair(Tick)
        self.waitset.add(subscriber)
        timer = threading.Timer(0.1, publisher.send, (Tick(9),))
        timer.start()
        self.assertEqual(self.waitset.wait(10), [(subscriber, select.POLLIN)])
        timer.join()
        self.assertEqual(subscriber.try_recv(), Tick(9))

    def test_fds(self):
        reader, writer = os.pipe()
        try:
            self.waitset.add(reader)
            self.assertEqual(self.waitset.wait(0.01), [])
            os.write(writer, b"x")
            [(member, events)] = self.waitset.wait(5)
            self.assertEqual(member, reader)
            self.assertTrue(events & select.POLLIN)
            with open(writer, "wb", closefd=False) as file:
                self.waitset.add(file, select.POLLOUT)
                ready = {}
                while len(ready) < 2:
                    ready.update(self.waitset.wait(5))
                self.assertTrue(ready[file] & select.POLLOUT)
                self.waitset.remove(file)
            self.waitset.remove(reader)
            self.assertEqual(self.waitset.wait(0.01), [])
        finally:
            os.close(reader)
            os.close(writer)

    def test_membership(self):
        publisher, subscriber = self.pair(Tick)
        self.waitset.add(subscriber)
        with self.assertRaises(shmbroker.Exists):
            self.waitset.add(subscriber)
        with self.assertRaises(shmbroker.Error):
            self.waitset.add(10**6)
        self.waitset.remove(subscriber)
        with self.assertRaises(shmbroker.NotFound):
            self.waitset.remove(subscriber)
        with self.assertRaises(shmbroker.NotFound):
            self.waitset.remove(10**6)
        publisher.send(Tick())
        self.assertEqual(self.waitset.wait(0.01), [])
        self.waitset.add(subscriber)
        self.assertEqual(len(self.waitset.wait(5)), 1)

    def test_closing_either_first(self):
        _, subscriber = self.pair(Tick)
        self.waitset.add(subscriber)
        subscriber.close()
        self.assertEqual(self.waitset.wait(0.01), [])
        self.waitset.remove(subscriber)
        _, subscriber = self.pair(Tick)
        self.waitset.add(subscriber)
        self.waitset.close()
        again = shmbroker.WaitSet(self.client)
        again.add(subscriber)
        del again
        gc.collect()
        subscriber.close()

    def test_a_member_is_kept(self):
        publisher, subscriber = self.pair(Tick)
        self.waitset.add(subscriber)
        del subscriber
        gc.collect()
        publisher.send(Tick(4))
        [(subscriber, _)] = self.waitset.wait(5)
        self.assertEqual(subscriber.try_recv(), Tick(4))

    def test_fileno(self):
        publisher, subscriber = self.pair(Tick)
        self.waitset.add(subscriber)
        poll = select.poll()
        poll.register(self.waitset, select.POLLIN)
        self.assertEqual(self.waitset.wait(0), [])
        timer = threading.Timer(0.1, publisher.send, (Tick(9),))
        timer.start()
        self.assertTrue(poll.poll(10000))
        timer.join()
        self.assertEqual(self.waitset.wait(0), [(subscriber, select.POLLIN)])


class Selectors(BrokerTest):
    def test_arm(self):
        publisher, subscriber = self.pair(Tick)
        with selectors.DefaultSelector() as selector:
            selector.register(subscriber, selectors.EVENT_READ)
            for i in range(3):
                self.assertFalse(subscriber.arm())
                self.assertEqual(selector.select(0.01), [])
                timer = threading.Timer(0.05, publisher.send, (Tick(i),))
                timer.start()
                before = time.monotonic()
                [(key, _)] = selector.select(10)
                self.assertLess(time.monotonic() - before, 4)
                timer.join()
                self.assertIs(key.fileobj, subscriber)
                self.assertEqual(subscriber.try_recv(), Tick(i))
                self.assertIsNone(subscriber.try_recv())
            publisher.send(Tick())
            self.assertTrue(subscriber.arm())


if __name__ == "__main__":
    unittest.main()
