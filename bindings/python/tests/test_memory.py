# SPDX-License-Identifier: Apache-2.0
"""Zero-copy: loans and peeks, and that nothing reads memory that has been given back."""

import gc
import unittest

import shmbroker
from support import BrokerTest, Everything, Leg, Tick, numpy


class Loan(BrokerTest):
    def test_record(self):
        publisher, subscriber = self.pair(Everything, lane_len=4096)
        old = Everything(*[100] + [1] * 10, "x", "x" * 12, (9, 9, 9, 9))
        for _ in range(100):  # so that there is no place in the ring without old bytes
            publisher.send(old)
            subscriber.recv()
        with publisher.loan() as record:
            self.assertEqual(record, Everything())
            record.a = 5
            record.leg.ratio = 0.5
            record.levels = (1, 2, 3, 4)
            self.assertIsNone(subscriber.try_recv())
        self.assertEqual(subscriber.recv(), Everything(5, leg=Leg(ratio=0.5), levels=(1, 2, 3, 4)))

    def test_dead_afterwards(self):
        publisher, subscriber = self.pair(Everything)
        loan = publisher.loan()
        with loan as record:
            leg = record.leg
        for use in (
            lambda: record.a,
            lambda: leg.ratio,
            lambda: setattr(record, "a", 1),
            lambda: setattr(record, "leg", Leg()),
            lambda: setattr(record, "text", "x"),
            lambda: setattr(record, "levels", (1, 2, 3, 4)),
            lambda: setattr(leg, "id", 1),
            lambda: bytes(record),
            lambda: memoryview(leg),
            lambda: repr(record),
            lambda: record == Everything(),
            lambda: publisher.send(record),
            lambda: Everything(leg=leg),
            lambda: loan.publish(),
            lambda: loan.cancel(),
            lambda: memoryview(loan),
            lambda: loan.__enter__(),
        ):
            with self.assertRaisesRegex(BufferError, "given back"):
                use()
        self.assertEqual(subscriber.recv(), Everything())

    def test_exception_cancels(self):
        publisher, subscriber = self.pair(Tick)
        with self.assertRaises(ZeroDivisionError):
            with publisher.loan() as tick:
                tick.time_ns = 1 // 0
        publisher.send(Tick(5))
        self.assertEqual(subscriber.recv(), Tick(5))

    def test_raw(self):
        publisher, subscriber = self.pair()
        with publisher.loan(10) as memory:
            memory[:] = b"0123456789"
        with self.assertRaises(ValueError):
            memory[0]
        self.assertEqual(subscriber.recv(), b"0123456789")
        loan = publisher.loan(10)
        with loan as memory:
            memory[:3] = b"abc"
            loan.truncate(3)
        self.assertEqual(subscriber.recv(), b"abc")
        with publisher.loan(0):
            pass
        self.assertEqual(subscriber.recv(), b"")

    def test_live_views(self):
        publisher, subscriber = self.pair()
        loan = publisher.loan(4)
        with self.assertRaises(BufferError):
            with loan as memory:
                part = memory[1:3]
        with self.assertRaisesRegex(BufferError, "view"):
            publisher.close()
        part[:] = b"xy"
        part.release()
        memory.release()
        loan.cancel()
        self.assertIsNone(subscriber.try_recv())

    def test_by_hand(self):
        publisher, subscriber = self.pair(Tick)
        loan = publisher.loan()
        with self.assertRaises(shmbroker.Error):
            publisher.loan()
        with self.assertRaises(shmbroker.Error):
            publisher.send(Tick())
        loan.cancel()
        publisher.loan().publish()
        self.assertEqual(subscriber.recv(), Tick())
        # A loan that is dropped is cancelled.
        publisher.loan()
        gc.collect()
        publisher.send(Tick(1))
        self.assertEqual(subscriber.recv(), Tick(1))

    def test_bad_lengths(self):
        publisher, _ = self.pair()
        with self.assertRaises(TypeError):
            publisher.loan()
        for bad in (-1, 2**40):
            with self.assertRaises((OverflowError, shmbroker.Invalid)):
                publisher.loan(bad)
        with self.assertRaises(shmbroker.Invalid):
            publisher.loan(600000)
        with publisher.loan(10) as memory:
            pass
        loan = publisher.loan(10)
        for bad in (11, -1):
            with self.assertRaises((ValueError, OverflowError)):
                loan.truncate(bad)
        typed, _ = self.pair(Tick)
        with self.assertRaises(shmbroker.Invalid):
            typed.loan(5)


class Peek(BrokerTest):
    def test_records(self):
        publisher, subscriber = self.pair(Everything)
        publisher.send_many([Everything(i, leg=Leg(i)) for i in range(5)])
        with subscriber.peek(3) as peek:
            self.assertEqual(len(peek), 3)
            self.assertEqual([r.a for r in peek], [0, 1, 2])
            self.assertEqual(peek[2].leg.id, 2)
            self.assertEqual((peek.sequence, peek.type, peek.len), (0, 0, Everything.__size__))
            with self.assertRaises(IndexError):
                peek[3]
        self.assertEqual(subscriber.recv().a, 3)

    def test_read_only(self):
        publisher, subscriber = self.pair(Everything)
        publisher.send(Everything())
        with subscriber.peek() as peek:
            for change in (
                lambda: setattr(peek[0], "a", 1),
                lambda: setattr(peek[0].leg, "id", 1),
                lambda: setattr(peek[0], "levels", (1, 2, 3, 4)),
                lambda: memoryview(peek[0]).__setitem__(0, 1),
            ):
                with self.assertRaisesRegex(TypeError, "read-only"):
                    change()
            self.assertTrue(memoryview(peek).readonly)

    def test_dead_afterwards(self):
        publisher, subscriber = self.pair(Everything)
        publisher.send(Everything())
        with subscriber.peek() as peek:
            record = peek[0]
            leg = record.leg
        for use in (
            lambda: peek[0],
            lambda: memoryview(peek),
            lambda: record.a,
            lambda: record.levels,
            lambda: leg.id,
            lambda: bytes(record),
            lambda: peek.release(),
        ):
            with self.assertRaisesRegex(BufferError, "given back"):
                use()

    def test_live_views(self):
        publisher, subscriber = self.pair()
        publisher.send(b"abcdef")
        peek = subscriber.peek()
        view = memoryview(peek)
        part = view[2:4]
        view.release()
        with self.assertRaisesRegex(BufferError, "1 view"):
            peek.release()
        for close in (subscriber.close, self.client.close):
            with self.assertRaisesRegex(BufferError, "1 view.* of this subscriber's memory"):
                close()
        self.assertEqual(bytes(part), b"cd")
        part.release()
        peek.release()
        with self.assertRaises(BufferError):
            memoryview(peek)

    def test_a_view_keeps_the_memory(self):
        publisher, subscriber = self.pair()
        publisher.send(b"abcdef")
        view = memoryview(subscriber.peek())
        del subscriber
        gc.collect()
        self.assertEqual(bytes(view), b"abcdef")
        view.release()

    def test_keep_and_partial(self):
        publisher, subscriber = self.pair(Tick)
        publisher.send_many([Tick(i) for i in range(6)])
        with self.assertRaises(ZeroDivisionError):
            with subscriber.peek(2):
                1 // 0
        with subscriber.peek(4) as peek:
            self.assertEqual(peek[0].time_ns, 0)
            peek.release(1)
        peek = subscriber.peek(2)
        self.assertEqual(peek[0].time_ns, 1)
        for bad in (-1, 3):
            with self.assertRaises(ValueError):
                peek.release(bad)
        peek.release(0)
        self.assertEqual(subscriber.recv().time_ns, 1)
        # A peek that is dropped keeps its records.
        subscriber.peek(2)
        gc.collect()
        self.assertEqual(subscriber.recv().time_ns, 2)

    def test_one_at_a_time(self):
        publisher, subscriber = self.pair(Tick)
        publisher.send_many([Tick(i) for i in range(6)])
        with subscriber.peek(2):
            with self.assertRaisesRegex(shmbroker.Error, "peek"):
                subscriber.peek(2)
            with self.assertRaisesRegex(shmbroker.Error, "peek"):
                subscriber.recv()

    def test_raw_rows(self):
        publisher, subscriber = self.pair()
        publisher.send_many([b"abc", b"def", b"ghi", b"longer"])
        with subscriber.peek() as peek:
            self.assertEqual([bytes(row) for row in peek], [b"abc", b"def", b"ghi"])
            self.assertEqual(memoryview(peek).tolist()[1], list(b"def"))
            row = peek[1]
            with self.assertRaises(BufferError):
                peek.release()
            row.release()
        with subscriber.peek() as peek:
            self.assertEqual(bytes(memoryview(peek)), b"longer")

    def test_closing_ends_a_peek(self):
        publisher, subscriber = self.pair(Tick)
        publisher.send(Tick())
        peek = subscriber.peek()
        record = peek[0]
        subscriber.close()
        for use in (lambda: record.time_ns, lambda: peek[0], peek.release):
            with self.assertRaises(BufferError):
                use()

    def test_finalizers_cannot_pull_the_memory_away(self):
        publisher, subscriber = self.pair(Everything)
        publisher.send(Everything(leg=Leg(1), legs=(Leg(2), Leg(3))))
        peek = subscriber.peek()
        record = peek[0]
        outcomes = []

        def collecting(phase, info):
            try:
                peek.release()
                outcomes.append("released")
            except BufferError:
                outcomes.append("refused")

        threshold = gc.get_threshold()
        gc.collect()
        gc.callbacks.append(collecting)
        gc.set_threshold(1)
        try:
            legs = record.legs
        finally:
            gc.set_threshold(*threshold)
            gc.callbacks.remove(collecting)
        if not outcomes:
            self.skipTest("this Python does not collect inside allocations")
        self.assertEqual(set(outcomes), {"refused"})
        self.assertEqual([leg.id for leg in legs], [2, 3])

    @unittest.skipUnless(numpy, "numpy is not installed")
    def test_numpy(self):
        publisher, subscriber = self.pair(Everything)
        publisher.send_many([Everything(i, legs=(Leg(i), Leg(9)), levels=(i, 2, 3, 4), text="abc")
                             for i in range(5)])  # fmt: skip
        with subscriber.peek() as peek:
            array = numpy.asarray(peek)
            self.assertEqual(array.dtype.itemsize, Everything.__size__)
            self.assertEqual(array.strides, (peek.stride,))
            self.assertEqual(array["a"].tolist(), [0, 1, 2, 3, 4])
            self.assertEqual(array["legs"]["id"].tolist(), [[i, 9] for i in range(5)])
            self.assertEqual(array["levels"][:, 0].tolist(), [0, 1, 2, 3, 4])
            self.assertEqual(array["text"].tolist(), [b"abc"] * 5)
            self.assertFalse(array.flags.writeable)
            with self.assertRaises(BufferError):
                peek.release()
            part = array["g"][1:]
            del array
            with self.assertRaises(BufferError):
                peek.release()
            del part
        self.assertIsNone(subscriber.try_recv())


class Lossy(BrokerTest):
    def test_counts(self):
        publisher, subscriber = self.pair(Tick, lossy=True, lane_len=4096)
        for i in range(10000):
            publisher.send(Tick(i), block=False)
        got = []
        while True:
            tick = subscriber.try_recv()
            if tick is None:
                break
            got.append(tick.time_ns)
        self.assertEqual(got, sorted(set(got)))
        self.assertEqual(got[-1], 9999)
        self.assertGreater(subscriber.lost, 9000)
        self.assertEqual(len(got) + subscriber.lost, 10000)
        self.assertEqual(subscriber.stats().lost, subscriber.lost)
        self.assertEqual(subscriber.stats().received, len(got))

    def test_overwritten_peek(self):
        publisher, subscriber = self.pair(Tick, lossy=True, lane_len=4096)
        publisher.send(Tick(1))
        peek = subscriber.peek()
        for i in range(1000):
            publisher.send(Tick(i), block=False)
        with self.assertRaises(shmbroker.Overwritten):
            peek.release()
        self.assertGreater(subscriber.lost, 0)

    def lanes_we_could_write(self, length):
        with open("/proc/self/maps", encoding="ascii") as maps:
            areas = [line.split()[:2] for line in maps]
        ends = [[int(end, 16) for end in area.split("-")] for area, mode in areas if mode == "rw-s"]
        return sum(end - begin == length + 4096 for begin, end in ends)

    def test_trusting(self):
        for trusting, lanes in ((False, 1), (True, 2)):
            channel = self.channel(Tick, lane_len=1 << 17)
            with channel.subscriber() as subscriber:
                with channel.publisher(trusting=trusting) as publisher:
                    publisher.send(Tick(7))
                    self.assertEqual(subscriber.recv(), Tick(7))
                    self.assertEqual(self.lanes_we_could_write(1 << 17), lanes)
            channel.close()

    def test_drop_newest(self):
        publisher, subscriber = self.pair(Tick, drop_newest=True, lane_len=4096)
        for i in range(1000):
            publisher.send(Tick(i))
        stats = publisher.stats()
        got = subscriber.recv_many(1000)
        self.assertEqual(got, [Tick(i) for i in range(len(got))])
        self.assertEqual(len(got) + stats.dropped, 1000)
        self.assertEqual((stats.published, subscriber.lost), (len(got), 0))


if __name__ == "__main__":
    unittest.main()
