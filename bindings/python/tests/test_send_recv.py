# SPDX-License-Identifier: Apache-2.0
"""Sending and receiving, one record and many, waiting and not."""

import array
import threading
import time
import unittest

import shmbroker
from support import BrokerTest, Everything, Leg, Tick, numpy


class One(BrokerTest):
    def test_records(self):
        publisher, subscriber = self.pair(Everything)
        sent = Everything(1, leg=Leg(2, 0.5), text="abc", levels=(1, 2, 3, 4))
        publisher.send(sent)
        received = subscriber.recv(timeout=5)
        self.assertIs(type(received), Everything)
        self.assertEqual(received, sent)

    def test_order_type_sequence(self):
        publisher, subscriber = self.pair(Tick)
        for i in range(10):
            publisher.send(Tick(i), type=i * 7000)
        for i in range(10):
            self.assertEqual(subscriber.recv(timeout=5).time_ns, i)
            self.assertEqual((subscriber.type, subscriber.sequence), (i * 7000, i))
            self.assertEqual(subscriber.publisher_id, publisher.stats().publisher_id)
        self.assertEqual(subscriber.lost, 0)

    def test_bytes(self):
        publisher, subscriber = self.pair()
        for size in (0, 1, 7, 8, 4096, 4097, 100000, 500000):
            sent = bytes(i % 251 for i in range(size))
            publisher.send(sent)
            self.assertEqual(subscriber.recv(timeout=5), sent)
        for sent in (bytearray(b"abc"), memoryview(b"xabcx")[1:4], array.array("B", b"abc")):
            publisher.send(sent)
            self.assertEqual(subscriber.recv(timeout=5), b"abc")

    def test_bytes_on_a_typed_channel(self):
        publisher, subscriber = self.pair(Tick)
        publisher.send(bytes(Tick(1, 2.0)))
        self.assertEqual(subscriber.recv(timeout=5), Tick(1, 2.0))
        publisher.send(Tick(3, 4.0))
        self.assertEqual(subscriber.recv_bytes(timeout=5), bytes(Tick(3, 4.0)))

    def test_parts_of_records(self):
        publisher, subscriber = self.pair(Leg)
        publisher.send(Everything(leg=Leg(7)).leg)
        self.assertEqual(subscriber.recv(timeout=5), Leg(7))

    def test_wrong_records(self):
        publisher, subscriber = self.pair(Tick)
        with self.assertRaisesRegex(TypeError, "Tick.*not of.*Leg"):
            publisher.send(Leg())
        with self.assertRaises(shmbroker.Invalid):
            publisher.send(b"short")
        with self.assertRaises(TypeError):
            publisher.send("text")
        with self.assertRaises(TypeError):
            publisher.send(5)
        for bad_type in (-1, 65536, 2**80):
            with self.assertRaises(OverflowError):
                publisher.send(Tick(), type=bad_type)
        raw = self.channel().publisher()
        with self.assertRaisesRegex(TypeError, "raw"):
            raw.send(Tick())
        with self.assertRaises(shmbroker.Invalid):
            raw.send(bytes(600000))
        self.assertIsNone(subscriber.try_recv())

    def test_bad_arguments(self):
        publisher, subscriber = self.pair(Tick)
        tick = Tick()
        for call in (
            lambda: publisher.send(),
            lambda: publisher.send(tick, None, True, 0, 0),
            lambda: publisher.send(tick, record=tick),
            lambda: publisher.send(tick, nonsense=1),
            lambda: subscriber.recv(1, True, 2),
            lambda: subscriber.recv(timeout="1"),
        ):
            with self.assertRaises(TypeError):
                call()
        for call in (
            lambda: subscriber.recv(timeout=-1),
            lambda: subscriber.recv(timeout=float("nan")),
            lambda: subscriber.recv_many(0),
            lambda: subscriber.peek(-5),
        ):
            with self.assertRaises(ValueError):
                call()

    def test_two_publishers_and_subscribers(self):
        channel = self.channel(Tick)
        subscribers = [channel.subscriber() for _ in range(2)]
        publishers = [channel.publisher() for _ in range(2)]
        for i in range(100):
            publishers[i % 2].send(Tick(i))
        for subscriber in subscribers:
            got = [subscriber.recv(timeout=5).time_ns for _ in range(100)]
            self.assertEqual(sorted(got), list(range(100)))
            self.assertEqual([t for t in got if t % 2], list(range(1, 100, 2)))
        info = channel.info()
        self.assertEqual((info.n_publishers, info.n_subscribers), (2, 2))

    def test_iteration(self):
        publisher, subscriber = self.pair(Tick)
        for i in range(5):
            publisher.send(Tick(i))
        got = []
        for tick in subscriber:
            got.append(tick.time_ns)
            if len(got) == 5:
                break
        self.assertEqual(got, [0, 1, 2, 3, 4])

    def test_any_schema(self):
        channel = self.channel(Everything)
        other = self.client.channel(channel.name, shmbroker.ANY, create=False)
        subscriber = other.subscriber()
        channel.publisher().send(Everything(5, text="hello"))
        received = subscriber.recv(timeout=5)
        self.assertEqual((received.a, received.text), (5, "hello"))
        self.assertEqual(other.schema, Everything.schema)
        publisher = other.publisher()
        publisher.send(other.record(a=6))
        publisher.send(Everything(a=7))
        self.assertEqual([subscriber.recv(timeout=5).a for _ in range(2)], [6, 7])
        raw = self.channel()
        self.assertIsNone(self.client.channel(raw.name, shmbroker.ANY).record)
        self.assertIsNone(raw.schema)


class Waiting(BrokerTest):
    def test_empty(self):
        _, subscriber = self.pair(Tick)
        for call in (subscriber.recv, subscriber.recv_many, subscriber.peek, subscriber.recv_bytes):
            with self.assertRaises(shmbroker.Empty) as caught:
                call(block=False)
            self.assertIsInstance(caught.exception, BlockingIOError)
            with self.assertRaises(shmbroker.Empty):
                call(timeout=0)
        self.assertIsNone(subscriber.try_recv())

    def test_recv_timeout(self):
        _, subscriber = self.pair(Tick)
        for timeout in (0.02, 0.25):
            before = time.monotonic()
            with self.assertRaises(shmbroker.Timeout) as caught:
                subscriber.recv(timeout=timeout)
            self.assertGreaterEqual(time.monotonic() - before, timeout)
            self.assertLess(time.monotonic() - before, timeout + 2)
            self.assertIsInstance(caught.exception, TimeoutError)
        with self.assertRaises(shmbroker.Timeout):
            subscriber.wait(0.01)

    def test_full(self):
        publisher, subscriber = self.pair(Tick, lane_len=4096)
        n = self.fill(publisher, Tick())
        self.assertGreater(n, 100)
        with self.assertRaises(shmbroker.Full) as caught:
            publisher.send(Tick(), timeout=0)
        self.assertIsInstance(caught.exception, BlockingIOError)
        self.assertIn("bytes behind", str(caught.exception))
        with self.assertRaises(shmbroker.Full):
            publisher.loan(block=False)
        with self.assertRaises(shmbroker.Full):
            publisher.send_many([Tick()], block=False)
        before = time.monotonic()
        for call in (publisher.send, lambda r, timeout: publisher.send_many([r], timeout)):
            with self.assertRaises(shmbroker.Timeout):
                call(Tick(), timeout=0.15)
        self.assertGreaterEqual(time.monotonic() - before, 0.3)
        subscriber.recv_many(n)
        publisher.send(Tick(), timeout=5)

    def test_send_waits_for_room(self):
        publisher, subscriber = self.pair(Tick, lane_len=4096)
        n = self.fill(publisher, Tick())
        drained = []

        def drain():
            time.sleep(0.05)
            while len(drained) < n + 1:
                drained.append(subscriber.recv(timeout=5))

        thread = threading.Thread(target=drain)
        thread.start()
        publisher.send(Tick(77))
        thread.join()
        self.assertEqual(drained[-1].time_ns, 77)

    def test_the_gil_is_free_while_one_waits(self):
        publisher, subscriber = self.pair(Tick)
        progress, received = [0], []

        def receive():
            received.append(subscriber.recv(timeout=20))

        thread = threading.Thread(target=receive)
        thread.start()
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline:
            progress[0] += 1
        publisher.send(Tick(5))
        thread.join(10)
        self.assertEqual(received, [Tick(5)])
        self.assertGreater(progress[0], 1000)

    def test_one_thread_at_a_time(self):
        publisher, subscriber = self.pair(Tick)
        thread = threading.Thread(target=lambda: subscriber.recv(timeout=20))
        thread.start()
        time.sleep(0.1)
        for call in (subscriber.try_recv, subscriber.close, self.client.close, subscriber.arm):
            with self.assertRaisesRegex(shmbroker.Error, "another thread"):
                call()
        publisher.send(Tick())
        thread.join()
        subscriber.close()

    def test_wait_members(self):
        channel = self.channel()
        with self.assertRaises(shmbroker.Timeout):
            channel.wait_members(subscribers=1, timeout=0.02)
        subscriber = channel.subscriber()
        channel.wait_members(subscribers=1, timeout=5)
        subscriber.close()
        other = self.client.channel(channel.name)
        publishers = []
        timer = threading.Timer(0.1, lambda: publishers.append(other.publisher()))
        timer.start()
        channel.wait_members(publishers=1, timeout=5)
        timer.join()

    def test_ping(self):
        self.client.ping()
        self.client.ping(5.0)
        self.assertTrue(self.client.connected)


class Many(BrokerTest):
    def test_lists(self):
        publisher, subscriber = self.pair(Everything)
        sent = [Everything(i, text=str(i)) for i in range(200)]
        self.assertEqual(publisher.send_many(sent), 200)
        self.assertEqual(publisher.send_many(iter(sent[:3])), 3)
        self.assertEqual(publisher.send_many([]), 0)
        got = []
        while len(got) < 203:
            got += subscriber.recv_many(timeout=5)
        self.assertEqual(got, sent + sent[:3])

    def test_max(self):
        publisher, subscriber = self.pair(Tick)
        publisher.send_many([Tick(i) for i in range(10)])
        self.assertEqual(subscriber.recv_many(3), [Tick(0), Tick(1), Tick(2)])
        self.assertEqual(subscriber.sequence, 0)
        self.assertEqual(subscriber.recv_many(max=2), [Tick(3), Tick(4)])
        self.assertEqual(subscriber.sequence, 3)

    def test_raw_lengths(self):
        publisher, subscriber = self.pair(lane_len=1 << 22)
        sent = [bytes([i % 256]) * (i * 37 % 3000) for i in range(300)] + [b"", b"x" * 700000]
        self.assertEqual(publisher.send_many(sent), len(sent))
        got = []
        while len(got) < len(sent):
            got += subscriber.recv_many(timeout=5)
        self.assertEqual(got, sent)

    def test_more_than_the_ring_holds(self):
        publisher, subscriber = self.pair(Tick, lane_len=4096)
        sent = [Tick(i) for i in range(1000)]
        got = []

        def drain():
            while len(got) < 1000:
                got.extend(subscriber.recv_many(timeout=5))

        thread = threading.Thread(target=drain)
        thread.start()
        self.assertEqual(publisher.send_many(sent, timeout=10), 1000)
        thread.join()
        self.assertEqual(got, sent)

    def test_some_fit(self):
        publisher, subscriber = self.pair(Tick, lane_len=4096)
        sent = [Tick(i) for i in range(1000)]
        before = time.monotonic()
        n = publisher.send_many(sent, timeout=0.2)
        self.assertGreaterEqual(time.monotonic() - before, 0.2)
        self.assertTrue(0 < n < 1000)
        self.assertEqual(subscriber.recv_many(), sent[:n])
        self.assertAlmostEqual(publisher.send_many(sent, block=False), n, delta=2)

    def test_the_timeout_is_for_all_of_them(self):
        publisher, subscriber = self.pair(Tick, lane_len=4096)
        stop = threading.Event()

        def trickle():
            while not stop.wait(0.02):
                subscriber.recv_many(20, timeout=5)

        thread = threading.Thread(target=trickle)
        thread.start()
        before = time.monotonic()
        n = publisher.send_many([Tick()] * 5000, timeout=0.4)
        self.assertLess(time.monotonic() - before, 2)
        self.assertTrue(0 < n < 5000)
        stop.set()
        thread.join()

    def test_buffers(self):
        publisher, subscriber = self.pair(Tick)
        flat = b"".join(bytes(Tick(i)) for i in range(5))
        self.assertEqual(publisher.send_many(flat), 5)
        self.assertEqual(subscriber.recv_many(), [Tick(i) for i in range(5)])
        room = bytearray(16 * 3)
        publisher.send_many(flat)
        self.assertEqual(subscriber.recv_into(room), 3)
        self.assertEqual(room, flat[:48])
        self.assertEqual(subscriber.recv_into(room), 2)
        self.assertEqual(room[:32], flat[48:])
        with self.assertRaises(ValueError):
            subscriber.recv_into(bytearray(15))
        with self.assertRaises(BufferError):
            subscriber.recv_into(bytes(16))

    def test_raw_into(self):
        publisher, subscriber = self.pair()
        publisher.send(b"abc")
        room = bytearray(8)
        with self.assertRaises(shmbroker.Invalid):
            subscriber.recv_into(bytearray(2))
        self.assertEqual(subscriber.recv_into(room), 3)
        self.assertEqual(room, b"abc\0\0\0\0\0")

    def test_wrong_batches(self):
        publisher, subscriber = self.pair(Tick)
        for bad in (Tick(), "text", 5, [5], [Leg()], array.array("I", [1] * 4)):
            with self.assertRaises(TypeError):
                publisher.send_many(bad)
        with self.assertRaises(ValueError):
            publisher.send_many(bytes(17))
        with self.assertRaises(shmbroker.Invalid):
            publisher.send_many([Tick(), b"short"])
        with self.assertRaisesRegex(TypeError, "raw records come as a list"):
            self.channel().publisher().send_many(b"abc")
        self.assertIsNone(subscriber.try_recv())

    def test_batches(self):
        publisher, subscriber = self.pair(Tick)
        publisher.send_many([Tick(i) for i in range(7)])
        batches = subscriber.batches(max=3, timeout=0.05)
        self.assertEqual([len(next(batches)) for _ in range(3)], [3, 3, 1])
        with self.assertRaises(shmbroker.Timeout):
            next(batches)


@unittest.skipUnless(numpy, "numpy is not installed")
class Arrays(BrokerTest):
    def ticks(self, n):
        ticks = numpy.zeros(n, Tick.dtype)
        ticks["time_ns"] = numpy.arange(n)
        return ticks

    def test_both_ways(self):
        publisher, subscriber = self.pair(Tick)
        sent = self.ticks(500)
        self.assertEqual(publisher.send_many(sent), 500)
        got = []
        while sum(map(len, got)) < 500:
            got.append(subscriber.recv_array(300, timeout=5))
        self.assertTrue((numpy.concatenate(got) == sent).all())
        self.assertEqual(publisher.send_many(sent[:0]), 0)
        publisher.send_many(sent[5:6])
        self.assertEqual(subscriber.recv().time_ns, 5)
        with self.assertRaises(shmbroker.Empty):
            subscriber.recv_array(block=False)

    def test_wrong_arrays(self):
        publisher, _ = self.pair(Tick)
        with self.assertRaises((ValueError, BufferError)):
            publisher.send_many(self.ticks(10)[::2])
        with self.assertRaises(TypeError):
            publisher.send_many(numpy.zeros(10, Leg.dtype))
        _, raw = self.pair()
        with self.assertRaisesRegex(TypeError, "raw"):
            raw.recv_array()

    def test_rows_as_raw_records(self):
        publisher, subscriber = self.pair()
        rows = numpy.arange(12, dtype="u1").reshape(3, 4)
        self.assertEqual(publisher.send_many(rows), 3)
        self.assertEqual(subscriber.recv_many(), [bytes(row) for row in rows])
        self.assertEqual(publisher.send_many(numpy.arange(3, dtype="<u4")), 3)
        self.assertEqual(subscriber.recv(), bytes(4))

    def test_dtype_as_schema(self):
        dtype = numpy.dtype([("time_ns", "u8"), ("value", "f4", (2,))], align=True)
        publisher, subscriber = self.pair(dtype)
        sent = numpy.zeros(3, dtype)
        sent["value"][1] = (1.5, 2.5)
        publisher.send_many(sent)
        batch = next(subscriber.batches())
        self.assertEqual(batch.dtype.fields, subscriber.dtype.fields)
        self.assertTrue((batch["value"] == sent["value"]).all())
        publisher.send(sent[:1])
        self.assertEqual(subscriber.recv().value, (0.0, 0.0))

    def test_received_arrays_are_copies(self):
        publisher, subscriber = self.pair(Tick, lane_len=4096)
        publisher.send(Tick(7))
        array_ = subscriber.recv_array()
        for i in range(1000):
            publisher.send(Tick(i))
            subscriber.recv()
        self.assertEqual(array_["time_ns"].tolist(), [7])


if __name__ == "__main__":
    unittest.main()
