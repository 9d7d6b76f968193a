# SPDX-License-Identifier: Apache-2.0
"""Long records in blocks, and holds."""

import unittest

import shmbroker
from support import BrokerTest, Tick, numpy

LEN = 1 << 20


class Blocks(BrokerTest):
    def members(self, **options):
        options = {"record_len_max": LEN, "inline_len_max": 1024, "max_holds": 2, **options}
        channel = self.client.channel(next(self.names), None, **options)
        return channel.publisher(), channel.subscriber()

    def test_long_records(self):
        publisher, subscriber = self.members()
        for length in (1, 1024, 1025, 65536, LEN):
            record = bytes(i % 251 for i in range(256)) * (length // 256) + b"x" * (length % 256)
            publisher.send(record)
            self.assertEqual(subscriber.recv(), record)
        with self.assertRaisesRegex(shmbroker.Invalid, "record_len_max"):
            publisher.send(b"x" * (LEN + 1))

    def test_loan(self):
        publisher, subscriber = self.members()
        with publisher.loan(LEN) as view:
            view[0] = 1
            view[LEN - 1] = 2
        with subscriber.peek(1) as peek:
            view = memoryview(peek)
            self.assertEqual((len(view), view[0], view[LEN - 1]), (LEN, 1, 2))
            view.release()

    def test_hold(self):
        publisher, subscriber = self.members()
        holds = []
        for i in range(2):
            publisher.send(bytes([i]) * LEN)
            holds.append(subscriber.peek(1).hold())
        for i in range(2, 40):
            publisher.send(bytes([i]) * LEN)
            self.assertEqual(subscriber.recv()[:1], bytes([i]))
        self.assertEqual(publisher.stats().n_held, 2)
        publisher.send(b"y" * LEN)
        with subscriber.peek(1) as peek:
            with self.assertRaisesRegex(shmbroker.Error, "2 holds"):
                peek.hold()
        for i, hold in enumerate(holds):
            with hold:
                with memoryview(hold) as view:
                    self.assertEqual((len(view), view[0], view[LEN - 1]), (LEN, i, i))
                self.assertEqual(hold.sequence, i)
            with self.assertRaisesRegex(BufferError, "given back"):
                memoryview(hold)
        self.assertEqual(publisher.stats().n_held, 0)

    def test_views_of_a_hold(self):
        publisher, subscriber = self.members()
        publisher.send(b"z" * LEN)
        hold = subscriber.peek(1).hold()
        view = memoryview(hold)
        with self.assertRaisesRegex(BufferError, "still exist"):
            hold.release()
        with self.assertRaisesRegex(BufferError, "still exist"):
            subscriber.close()
        with self.assertRaises(TypeError):
            view[0] = 1
        view.release()
        subscriber.close()
        with self.assertRaisesRegex(BufferError, "given back"):
            memoryview(hold)

    def test_a_hold_that_is_forgotten_ends(self):
        publisher, subscriber = self.members()
        for _ in range(10):
            publisher.send(b"f" * LEN)
            subscriber.peek(1).hold()
        publisher.send(b"f" * LEN)
        self.assertEqual(publisher.stats().n_held, 0)

    def test_typed(self):
        channel = self.client.channel(
            next(self.names), Tick, record_len_max=4096, inline_len_max=8, max_holds=1
        )
        publisher, subscriber = channel.publisher(), channel.subscriber()
        publisher.send(Tick(1, 2.5))
        publisher.send(Tick(2, 5))
        with subscriber.peek(2).hold() as hold:
            self.assertEqual(subscriber.recv(), Tick(2, 5))
            self.assertEqual(hold.record, Tick(1, 2.5))

    @unittest.skipUnless(numpy, "there is no numpy")
    def test_numpy(self):
        publisher, subscriber = self.members()
        frame = numpy.arange(LEN // 4, dtype="u4").reshape(512, -1)
        publisher.send(frame)
        with subscriber.peek(1).hold() as hold:
            seen = numpy.frombuffer(hold, "u4").reshape(512, -1)
            self.assertTrue((seen == frame).all())
            del seen

    def test_options(self):
        publisher, _ = self.members()
        info = self.client.channel(
            next(self.names), record_len_max=LEN, arena_len=4 * LEN, numa_node=0, huge_pages=True
        ).info()
        self.assertEqual((info.record_len_max, info.max_holds), (LEN, 4))
        self.assertEqual(info.arena_len, 4 * LEN)
        self.assertEqual(publisher.stats().arena_len, 0)
        with self.assertRaisesRegex(shmbroker.Invalid, "NUMA node 999"):
            self.client.channel(next(self.names), record_len_max=LEN, numa_node=999)
        channel = self.client.channel(next(self.names), record_len_max=LEN)
        self.assertGreaterEqual(channel.publisher(arena_len=2 * LEN).stats().arena_len, 2 * LEN)


if __name__ == "__main__":
    unittest.main()
