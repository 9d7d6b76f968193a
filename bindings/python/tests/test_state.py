# SPDX-License-Identifier: Apache-2.0
"""State channels: claims, values, waiting, deaths."""

import threading
import time
import unittest

import shmbroker
from support import BrokerTest, Everything, Tick, numpy


class State(BrokerTest):
    def state(self, schema=None, client=None, name=None, **options):
        return (client or self.client).state(name or next(self.names), schema, **options)

    def members(self, schema=None, **options):
        channel = self.state(schema, **options)
        return channel.publisher(), channel.subscriber()

    def wait_unowned(self, subscriber):
        """The broker hears of it a moment later, and then says where the value is now."""
        for _ in range(2000):
            owner = subscriber.owner("k")
            subscriber.get("k")
            if not owner and not subscriber.publisher_id:
                return
            time.sleep(0.01)
        self.fail("the key is still claimed")

    def test_the_latest_value(self):
        publisher, subscriber = self.members()
        self.assertIsNone(subscriber.get("k"))
        self.assertEqual(subscriber.get("k", 7), 7)
        publisher.claim("k")
        self.assertIsNone(subscriber.get("k"))
        self.assertNotIn("k", subscriber)
        for i in range(1, 1000):
            publisher["k"] = b"%d" % i
            self.assertEqual(subscriber["k"], b"%d" % i)
            self.assertEqual(subscriber.sequence, i)
            self.assertEqual(subscriber.term, publisher.term)
        publisher["k"] = b""
        self.assertEqual(subscriber["k"], b"")
        del publisher["k"]
        with self.assertRaises(KeyError):
            subscriber["k"]
        self.assertEqual(subscriber.keys(), ["k"])
        self.assertEqual(list(subscriber), ["k"])

    def test_records(self):
        publisher, subscriber = self.members(Tick)
        publisher.claim("a", b"b", "\u00e9")
        for i, key in enumerate(("a", "b", "\u00e9")):
            publisher.put(key, Tick(time_ns=i, price=i / 2))
        self.assertEqual(subscriber["a"], Tick(time_ns=0, price=0))
        self.assertEqual(subscriber["b"].time_ns, 1)
        self.assertEqual(
            subscriber.snapshot(),
            {key: Tick(time_ns=i, price=i / 2) for i, key in enumerate(("a", "b", "\u00e9"))},
        )
        with self.assertRaises(TypeError):
            publisher["a"] = Everything()
        with self.assertRaises(shmbroker.Invalid):
            publisher["a"] = b"short"
        # A copy: it does not change behind our back.
        tick = subscriber["a"]
        publisher["a"] = Tick(time_ns=9)
        self.assertEqual(tick.time_ns, 0)

    @unittest.skipUnless(numpy, "numpy is not installed")
    def test_numpy(self):
        dtype = numpy.dtype([("x", "<f8"), ("n", "<u4", (3,))], align=True)
        publisher, subscriber = self.members(dtype)
        publisher.claim("a")
        array = numpy.zeros(2, dtype)
        array["x"], array["n"] = 1.5, (1, 2, 3)
        publisher["a"] = array[1:]
        value = subscriber["a"]
        self.assertEqual(value["x"], 1.5)
        self.assertEqual(list(value["n"]), [1, 2, 3])
        self.assertEqual(subscriber.snapshot()["a"].tobytes(), array[1].tobytes())

    def test_long_values(self):
        publisher, subscriber = self.members(value_len=100000, max_keys=2)
        publisher.claim("a", "b")
        publisher["a"] = bytes(100000)
        publisher["b"] = b"x" * 5000
        self.assertEqual(subscriber["a"], bytes(100000))
        self.assertEqual(subscriber["b"], b"x" * 5000)
        self.assertEqual(len(subscriber.snapshot()["b"]), 5000)
        with self.assertRaises(shmbroker.Invalid) as caught:
            publisher["a"] = bytes(200000)
        self.assertIn("at most", str(caught.exception))
        with self.assertRaisesRegex(shmbroker.Error, "all 2 keys"):
            publisher.claim("c")

    def test_one_writer(self):
        channel = self.state()
        first, second, subscriber = channel.publisher(), channel.publisher(), channel.subscriber()
        first.claim("k")
        with self.assertRaisesRegex(shmbroker.Busy, "process"):
            second.claim("k")
        with self.assertRaises(KeyError):
            second["k"] = b"no"
        first["k"] = b"one"
        self.assertNotEqual(subscriber.owner("k"), 0)
        first.disclaim("k")
        self.assertEqual(subscriber.owner("k"), 0)
        with self.assertRaises(KeyError):
            first["k"] = b"no"
        second.claim("k")
        self.assertEqual(subscriber["k"], b"one")
        second["k"] = b"two"
        self.assertEqual((subscriber["k"], subscriber.sequence), (b"two", 2))
        second.close()
        self.wait_unowned(subscriber)
        self.assertEqual((subscriber["k"], subscriber.publisher_id), (b"two", 0))
        with self.assertRaises(shmbroker.Closed):
            second.claim("k")

    def test_changes(self):
        publisher, subscriber = self.members()
        publisher.claim("a", "b")
        self.assertIsNone(subscriber.changed())
        with self.assertRaises(shmbroker.Timeout):
            subscriber.wait(timeout=0.01)
        with self.assertRaises(KeyError):
            subscriber.wait("nobody", timeout=0.01)
        publisher["a"] = b"1"
        publisher["b"] = b"2"
        publisher["b"] = b"3"
        subscriber.wait(timeout=5)
        self.assertEqual({subscriber.changed(), subscriber.changed()}, {"a", "b"})
        self.assertIsNone(subscriber.changed())
        with self.assertRaises(shmbroker.Timeout):
            subscriber.wait("a", timeout=0.01)
        timer = threading.Timer(0.05, publisher.put, ("a", b"4"))
        timer.start()
        subscriber.wait("a", timeout=10)
        timer.join()
        changes = subscriber.changes(timeout=0.1)
        self.assertEqual(next(changes), ("a", b"4"))
        publisher.erase("b")
        self.assertEqual(next(changes), ("b", None))
        with self.assertRaises(shmbroker.Timeout):
            next(changes)

    def test_wait_set(self):
        publisher, subscriber = self.members()
        publisher.claim("a")
        with shmbroker.WaitSet(self.client) as waitset:
            waitset.add(subscriber)
            self.assertEqual(list(waitset.wait(timeout=0.01)), [])
            for value in (b"1", b"2"):
                publisher["a"] = value
                self.assertIs(next(iter(waitset.wait(timeout=5)))[0], subscriber)
                self.assertEqual(subscriber.changed(), "a")
                self.assertEqual(list(waitset.wait(timeout=0.01)), [])
            waitset.remove(subscriber)

    def test_a_value_outlives_its_process(self):
        channel = self.state(Tick, name="test/outlived")
        subscriber = channel.subscriber()
        process = self.script(
            """
import sys, time, shmbroker
class Tick(shmbroker.Record, name="market.tick"):
    time_ns: shmbroker.u64
    price: shmbroker.f64
publisher = shmbroker.connect(sys.argv[1]).state("test/outlived", Tick).publisher()
publisher.claim("k")
publisher["k"] = Tick(time_ns=5)
print("put", flush=True)
time.sleep(60)
"""
        )
        self.assertEqual(process.stdout.readline(), "put\n")
        self.assertEqual(subscriber["k"].time_ns, 5)
        with self.assertRaises(shmbroker.Busy):
            channel.publisher().claim("k")
        process.kill()
        process.wait()
        self.wait_unowned(subscriber)
        self.assertEqual(subscriber["k"].time_ns, 5)
        self.assertEqual(channel.subscriber()["k"].time_ns, 5)

    def test_wrong_channels(self):
        stream, state = self.channel(), self.state()
        with self.assertRaisesRegex(shmbroker.SchemaMismatch, "pattern"):
            self.client.state(stream.name)
        with self.assertRaisesRegex(shmbroker.SchemaMismatch, "pattern"):
            self.client.channel(state.name)
        publisher, subscriber = state.publisher(), state.subscriber()
        with self.assertRaises(shmbroker.Error):
            publisher.send(b"x")
        with self.assertRaises(shmbroker.Error):
            subscriber.recv(block=False)
        with self.assertRaises(shmbroker.Invalid):
            publisher.claim("")
        with self.assertRaises(shmbroker.Invalid):
            publisher.claim("k" * 65)
        with self.assertRaises(shmbroker.Invalid):
            self.state(max_keys=5000)
        info = state.info()
        self.assertEqual((info.pattern, info.max_keys), (4, 64))
        self.assertGreaterEqual(info.value_len_max, 232)


if __name__ == "__main__":
    unittest.main()
