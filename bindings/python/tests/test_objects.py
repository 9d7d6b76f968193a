# SPDX-License-Identifier: Apache-2.0
"""Opening, closing, and what goes wrong."""

import errno
import gc
import os
import tempfile
import unittest

import shmbroker
from support import BrokerTest, Leg, Tick


class Errors(BrokerTest):
    def test_schema_mismatch(self):
        class Tick2(shmbroker.Record, name="market.tick"):
            time_ns: shmbroker.u64
            price: shmbroker.i64

        channel = self.channel(Tick)
        with self.assertRaises(shmbroker.SchemaMismatch) as caught:
            self.client.channel(channel.name, Tick2)
        self.assertIn("'price': channel has f64 at 8, you have i64 at 8", str(caught.exception))
        self.assertEqual(caught.exception.errno, errno.EPROTOTYPE)
        for schema in (Leg, None):
            with self.assertRaises(shmbroker.SchemaMismatch):
                self.client.channel(channel.name, schema)

    def test_channels(self):
        with self.assertRaises(shmbroker.NotFound) as caught:
            self.client.channel("test/nothing", create=False)
        self.assertIsInstance(caught.exception, FileNotFoundError)
        channel = self.channel()
        with self.assertRaises(shmbroker.Exists):
            self.client.channel(channel.name, exclusive=True)
        for name in ("", "A", "a//b", "/a", "a b", "x" * 129, "\u00e4"):
            with self.assertRaises(shmbroker.Invalid):
                self.client.channel(name)
        for options in ({"lane_len": 5000}, {"lane_len": 2048}, {"max_publishers": 5000}):
            with self.assertRaises(shmbroker.Invalid):
                self.channel(**options)
        for schema in (5, "x", int, shmbroker.Record):
            with self.assertRaises(TypeError):
                self.channel(schema)

    def test_limits_of_members(self):
        channel = self.channel(max_publishers=1, max_subscribers=1)
        publisher, _ = channel.publisher(), channel.subscriber()
        with self.assertRaises(shmbroker.Error):
            channel.publisher()
        with self.assertRaises(shmbroker.Error):
            channel.subscriber()
        publisher.close()

    def test_no_broker(self):
        with tempfile.TemporaryDirectory() as directory:
            address = os.path.join(directory, "control.sock")
            with self.assertRaises(shmbroker.NotConnected) as caught:
                shmbroker.connect(address, start=False, timeout=1)
            self.assertIsInstance(caught.exception, ConnectionError)
            self.assertTrue(str(caught.exception))
            self.assertGreater(caught.exception.errno, 0)

    def test_two_brokers_in_one_place(self):
        directory = os.path.dirname(self.broker.address)
        with self.assertRaises(shmbroker.Error) as caught:
            shmbroker.Broker(directory)
        self.assertEqual(caught.exception.errno, errno.EADDRINUSE)

    def test_every_exception(self):
        for name, base in (
            ("Timeout", TimeoutError), ("Full", BlockingIOError), ("Empty", BlockingIOError),
            ("NotConnected", ConnectionError), ("NotFound", FileNotFoundError),
            ("Exists", FileExistsError), ("Denied", PermissionError), ("Invalid", ValueError),
            ("Closed", ValueError), ("SchemaMismatch", TypeError), ("CorruptPeer", OSError),
            ("Evicted", OSError), ("Forked", OSError), ("Overwritten", OSError),
        ):  # fmt: skip
            error = getattr(shmbroker, name)(errno.EIO, "a sentence")
            self.assertIsInstance(error, base)
            self.assertIsInstance(error, shmbroker.Error)
            self.assertEqual((error.errno, str(error)), (errno.EIO, "a sentence"))


class Closing(BrokerTest):
    def test_use_after_close(self):
        channel = self.channel(Tick)
        publisher, subscriber = channel.publisher(), channel.subscriber()
        waitset = shmbroker.WaitSet(self.client)
        self.client.close()
        for use in (
            lambda: publisher.send(Tick()),
            lambda: publisher.send_many([Tick()]),
            publisher.loan,
            publisher.stats,
            subscriber.recv,
            subscriber.try_recv,
            subscriber.recv_many,
            subscriber.peek,
            subscriber.arm,
            subscriber.fileno,
            subscriber.stats,
            lambda: subscriber.type,
            lambda: subscriber.sequence,
            lambda: next(subscriber),
            lambda: subscriber.__enter__(),
            channel.info,
            channel.publisher,
            channel.subscriber,
            lambda: channel.schema,
            lambda: waitset.wait(0),
            waitset.fileno,
            self.channel,
            self.client.ping,
            lambda: self.client.connected,
            lambda: shmbroker.WaitSet(self.client),
        ):
            with self.assertRaisesRegex(shmbroker.Closed, "is closed"):
                use()
        for handle in (publisher, subscriber, channel, waitset, self.client):
            self.assertTrue(handle.closed)
            handle.close()

    def test_with(self):
        with self.broker.connect(label="test") as client:
            with client.channel(next(self.names), Tick) as channel:
                with channel.publisher() as publisher, channel.subscriber() as subscriber:
                    publisher.send(Tick(1))
                    self.assertEqual(subscriber.recv(), Tick(1))
                self.assertTrue(publisher.closed and subscriber.closed)
                self.assertFalse(channel.closed)
            self.assertTrue(channel.closed)
        self.assertTrue(client.closed)

    def test_parts_close_alone(self):
        channel = self.channel(Tick)
        first, second = channel.subscriber(), channel.subscriber()
        publisher = channel.publisher()
        first.close()
        publisher.send(Tick(1))
        self.assertEqual(second.recv(timeout=5), Tick(1))
        publisher.close()
        channel.wait_members(timeout=0)
        self.assertFalse(channel.closed)

    def test_what_was_sent_outlives_the_publisher(self):
        publisher, subscriber = self.pair(Tick)
        publisher.send_many([Tick(i) for i in range(100)])
        publisher.close()
        self.assertEqual([subscriber.recv(timeout=5).time_ns for _ in range(100)],
                         list(range(100)))  # fmt: skip

    def test_forgotten_objects(self):
        client = self.broker.connect()
        channel = self.channel(Tick, client=client)
        subscriber = channel.subscriber()
        publisher = channel.publisher()
        del client, channel
        gc.collect()
        publisher.send(Tick(3))
        self.assertEqual(subscriber.recv(timeout=5), Tick(3))

    def test_repr_and_info(self):
        channel = self.channel(Tick, lane_len=1 << 16)
        info = channel.info()
        self.assertEqual((info.lane_len, info.record_len), (1 << 16, 16))
        self.assertEqual(info.record_len_max, (1 << 15) - 16)
        self.assertEqual((info.n_publishers, info.n_subscribers), (0, 0))
        self.assertIn(channel.name, repr(channel))
        self.assertIn("market.tick", repr(channel))
        channel.close()
        self.assertIn("closed", repr(channel))

    def test_stats(self):
        publisher, subscriber = self.pair(Tick)
        publisher.send_many([Tick()] * 5)
        subscriber.recv()
        stats = publisher.stats()
        self.assertEqual((stats.published, stats.dropped, stats.n_subscribers), (5, 0, 1))
        self.assertEqual(subscriber.stats().received, 1)
        self.assertEqual(subscriber.stats().n_publishers, 1)

    def test_retained(self):
        channel = self.channel(Tick, history=3, retain=True)
        name = channel.name
        self.assertEqual(channel.info().retained, 1)
        with channel.publisher() as publisher:
            for i in range(5):
                publisher.send(Tick(time_ns=i))
        channel.close()
        with self.client.channel(name, Tick, create=False) as again:
            with again.subscriber() as late:
                self.assertEqual([late.recv(timeout=5).time_ns for _ in range(3)], [2, 3, 4])
            self.client.remove(name)
            self.assertEqual(again.info().retained, 0)
            with self.assertRaises(shmbroker.Invalid):
                self.client.remove(name)
        with self.assertRaises(shmbroker.NotFound):
            self.client.channel(name, Tick, create=False)
        with self.assertRaises(shmbroker.NotFound):
            self.client.remove(name)

    def test_history(self):
        channel = self.channel(Tick, history=3)
        self.assertEqual(channel.info().history, 3)
        publisher = channel.publisher()
        channel.wait_for_publishers(1, timeout=5)
        publisher.send_many([Tick()] * 9)
        late, one, none = (channel.subscriber(history=n) for n in (None, 1, 0))
        channel.wait_for_subscribers(3, timeout=5)
        publisher.send(Tick())
        for subscriber, first in (late, 6), (one, 8), (none, 9):
            self.assertEqual(len(subscriber.recv_many(20)), 10 - first)
        with self.assertRaises(shmbroker.Timeout):
            channel.wait_for_subscribers(4, timeout=0)
        with self.assertRaisesRegex(shmbroker.Invalid, "half a lane"):
            self.channel(Tick, history=10**9)

    def test_broker(self):
        with tempfile.TemporaryDirectory() as directory:
            directory = os.path.join(directory, "broker")
            with shmbroker.Broker(directory) as broker:
                self.assertTrue(broker.address.startswith(directory))
                broker.connect().close()
            with self.assertRaises(shmbroker.Closed):
                broker.address
            with self.assertRaises(shmbroker.NotConnected):
                shmbroker.connect(directory + "/control.sock", start=False)

    def test_versions(self):
        self.assertRegex(shmbroker.version(), r"^\d+\.\d+\.\d+")
        self.assertGreaterEqual(shmbroker.abi_version(), 1)


if __name__ == "__main__":
    unittest.main()
