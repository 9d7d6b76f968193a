# SPDX-License-Identifier: Apache-2.0
"""Records that carry file descriptors."""

import asyncio
import gc
import os
import socket
import tempfile
import unittest

import shmbroker
from support import BrokerTest, Tick


def is_closed(sock):
    """Does nobody have its other end any more?"""
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False


class Fds(BrokerTest):
    def members(self, schema=None, **options):
        channel = self.client.channel(next(self.names), schema, max_fds=4)
        return channel.publisher(), channel.subscriber(**options)

    def pair(self):
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        return ours, theirs

    def test_sockets_and_files(self):
        publisher, subscriber = self.members(Tick)
        ours, theirs = self.pair()
        with tempfile.TemporaryFile() as file:
            file.write(b"in the file")
            file.flush()
            publisher.send(Tick(1), fds=[theirs, file.fileno()])
        theirs.close()
        publisher.send(Tick(2))
        tick, fds = subscriber.recv_fds(timeout=5)
        self.assertEqual((tick, len(fds)), (Tick(1), 2))
        with socket.socket(fileno=fds[0]) as taken, os.fdopen(fds[1], "rb") as file:
            self.assertFalse(taken.get_inheritable())
            taken.sendall(b"hello")
            self.assertEqual(ours.recv(5), b"hello")
            file.seek(0)
            self.assertEqual(file.read(), b"in the file")
        self.assertTrue(is_closed(ours))
        self.assertEqual(subscriber.recv_fds(timeout=5), (Tick(2), []))

    def test_not_taken(self):
        publisher, subscriber = self.members()
        ours, theirs = self.pair()
        publisher.send(b"x", fds=(theirs,))
        theirs.close()
        self.assertEqual(subscriber.recv(timeout=5), b"x")
        self.assertEqual((subscriber.n_fds, subscriber.n_fds_lost), (1, 0))
        self.assertFalse(is_closed(ours))
        self.assertIsNone(subscriber.try_recv())
        self.assertEqual((subscriber.n_fds, subscriber.take_fds()), (0, []))
        self.assertTrue(is_closed(ours))

    def test_loan_and_peek(self):
        publisher, subscriber = self.members(Tick)
        ours, theirs = self.pair()
        loan = publisher.loan()
        with loan as tick:
            tick.time_ns = 7
            loan.publish([theirs])
        with subscriber.peek(timeout=5) as peek:
            self.assertEqual(list(peek), [Tick(7)])
            (fd,) = subscriber.take_fds()
        os.write(fd, b"!")
        os.close(fd)
        self.assertEqual(ours.recv(1), b"!")

    def test_room(self):
        publisher, subscriber = self.members()
        sent = 0
        with open(os.devnull, "rb") as file:
            with self.assertRaises(shmbroker.Full):
                while True:
                    publisher.send(b"x", block=False, fds=[file])
                    sent += 1
            with self.assertRaises(shmbroker.Timeout):
                publisher.send(b"x", timeout=0.02, fds=[file])
            for _ in range(sent):
                _, fds = subscriber.recv_fds(timeout=5)
                self.assertEqual(len(fds), 1)
                os.close(fds[0])
            publisher.send(b"x", timeout=20, fds=[file])
        self.assertEqual(publisher.stats().fds_lost + subscriber.stats().fds_lost, 0)

    def test_lost(self):
        publisher, subscriber = self.members(lossy=True)
        with open(os.devnull, "rb") as file:
            for _ in range(1000):
                publisher.send(b"x", fds=[file])
        self.assertGreater(publisher.stats().fds_lost, 0)
        lost = 0
        for _ in range(1000):
            _, fds = subscriber.recv_fds(timeout=5)
            for fd in fds:
                os.close(fd)
            self.assertEqual(len(fds) + subscriber.n_fds_lost, 1)
            lost += subscriber.n_fds_lost
        self.assertGreater(lost, 0)
        self.assertEqual(subscriber.stats().fds_lost, lost)

    def test_refused(self):
        publisher, subscriber = self.members()
        with open(os.devnull, "rb") as file:
            with self.assertRaisesRegex(shmbroker.Invalid, "at most 4"):
                publisher.send(b"x", fds=[file] * 5)
            with self.assertRaises(ValueError):
                publisher.send(b"x", fds=[file] * 1000)
            with self.assertRaises(TypeError):
                publisher.send(b"x", fds=["file"])
            with self.assertRaises(TypeError):
                publisher.send(b"x", fds=3)
            plain = self.client.channel(next(self.names)).publisher()
            with self.assertRaisesRegex(shmbroker.Error, "max_fds"):
                plain.send(b"x", fds=[file])
            plain.send(b"x", fds=None)
        with self.assertRaises(shmbroker.Error):
            publisher.send(b"x", fds=[100000])
        with self.assertRaisesRegex(shmbroker.Invalid, "at most 64"):
            self.client.channel(next(self.names), max_fds=65)
        self.assertIsNone(subscriber.try_recv())
        self.assertEqual(self.client.channel(next(self.names), max_fds=7).info().max_fds, 7)

    def test_asyncio(self):
        publisher, subscriber = self.members()

        async def run():
            task = asyncio.ensure_future(subscriber.arecv_fds(timeout=20))
            await asyncio.sleep(0.01)
            with open(os.devnull, "rb") as file:
                publisher.send(b"later", fds=[file])
            return await task

        record, (fd,) = asyncio.run(run())
        os.close(fd)
        self.assertEqual(record, b"later")

    def test_nothing_is_left_open(self):
        publisher, subscriber = self.members()
        publisher.send(b"x")
        subscriber.recv(timeout=5)
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        for i in range(200):
            ours, theirs = socket.socketpair()
            publisher.send(b"x", fds=[ours, theirs])
            ours.close()
            theirs.close()
            if i % 3:
                for fd in subscriber.recv_fds(timeout=5)[1]:
                    os.close(fd)
            else:
                subscriber.recv(timeout=5)
        gc.collect()
        subscriber.try_recv()
        gc.collect()
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), before)


if __name__ == "__main__":
    unittest.main()
