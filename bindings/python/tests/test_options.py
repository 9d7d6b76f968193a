# SPDX-License-Identifier: Apache-2.0
"""Options of streams: who is waited for, and for how long records live."""

import time
import unittest

import shmbroker
from support import BrokerTest, Tick


class EvictAfter(BrokerTest):
    def test_told_once_and_lossy_then(self):
        channel = self.client.channel("options/evict", lane_len=4096)
        subscriber = channel.subscriber(evict_after=0.02)
        publisher = channel.publisher()
        for i in range(1000):
            publisher.send(i.to_bytes(8, "little"))
        self.assertEqual(publisher.stats().n_evicted, 1)
        with self.assertRaisesRegex(shmbroker.Evicted, "20 ms.*lossy from now on"):
            subscriber.recv(timeout=5)
        received = [int.from_bytes(subscriber.recv(timeout=5), "little")]
        while True:
            record = subscriber.try_recv()
            if record is None:
                break
            received.append(int.from_bytes(record, "little"))
        self.assertEqual(received, list(range(1000 - len(received), 1000)))
        self.assertEqual(len(received) + subscriber.lost, 1000)

    def test_not_for_lossy_ones(self):
        channel = self.client.channel("options/evict", lane_len=4096)
        with self.assertRaises(shmbroker.Invalid):
            channel.subscriber(lossy=True, evict_after=1)


class TimeToLive(BrokerTest):
    def test_old_records_are_skipped(self):
        channel = self.client.channel("options/ttl", Tick, ttl=0.02)
        self.assertEqual(channel.info().ttl_ms, 20)
        subscriber = channel.subscriber()
        publisher = channel.publisher()
        publisher.send(Tick(1))
        time.sleep(0.04)
        self.assertIsNone(subscriber.try_recv())
        self.assertEqual(subscriber.stats().expired, 1)

    def test_young_records_come(self):
        channel = self.client.channel("options/long", Tick, ttl=3600)
        subscriber = channel.subscriber()
        publisher = channel.publisher()
        publisher.send_many([Tick(i, i / 2) for i in range(100)])
        self.assertEqual(
            subscriber.recv_many(timeout=5), [Tick(i, i / 2) for i in range(100)]
        )
        publisher.send(Tick(7, 8.0))
        with subscriber.peek(timeout=5) as peek:
            self.assertEqual(list(peek), [Tick(7, 8.0)])
        self.assertEqual(subscriber.stats().expired, 0)


class Ordered(BrokerTest):
    def test_records_of_several_publishers(self):
        channel = self.client.channel("options/ordered", Tick, ordered=True)
        self.assertEqual(channel.info().ordered, 1)
        subscriber = channel.subscriber()
        publishers = [channel.publisher() for _ in range(3)]
        for i in range(300):
            publishers[i * 7 % 3].send(Tick(i))
        self.assertEqual([subscriber.recv(timeout=5).time_ns for _ in range(300)], list(range(300)))
        self.assertEqual(subscriber.stats().disordered, 0)


class Priority(BrokerTest):
    def test_the_highest_first(self):
        channel = self.client.channel("options/priority", Tick)
        subscriber = channel.subscriber()
        publishers = [channel.publisher(priority=priority) for priority in (2, 7, 0)]
        for i, publisher in enumerate(publishers):
            for k in range(20):
                publisher.send(Tick(100 * i + k))
        got = [subscriber.recv(timeout=5).time_ns for _ in range(60)]
        self.assertEqual(got, [100 * i + k for i in (1, 0, 2) for k in range(20)])

    def test_of_a_queue(self):
        queue = self.client.queue("options/priority-queue", Tick)
        worker = queue.subscriber()
        low, high = queue.publisher(), queue.publisher(priority=1)
        low.send(Tick(1))
        high.send(Tick(2))
        for expected in (2, 1):
            with worker.take(timeout=5) as tick:
                self.assertEqual(tick.time_ns, expected)

    def test_refused(self):
        channel = self.client.channel("options/priority-order", Tick, ordered=True)
        with self.assertRaisesRegex(shmbroker.Invalid, "in one order"):
            channel.publisher(priority=1)
        with self.assertRaisesRegex(shmbroker.Invalid, "0 to 7, not 8"):
            channel.publisher(priority=8)


class Point(shmbroker.Record):
    x: shmbroker.i32
    y: shmbroker.i32


class Robot(shmbroker.Record):
    id: shmbroker.u32
    at: Point
    trail: Point[2]


class Conflate(BrokerTest):
    def test_by_field(self):
        channel = self.client.channel("options/conflate", Robot)
        slow, nested = channel.subscriber(conflate="id"), channel.subscriber(conflate="at.y")
        everything = channel.subscriber()
        publisher = channel.publisher()
        for i in range(30):
            publisher.send(Robot(id=i % 3, at=Point(x=i, y=i % 2)))
        self.assertEqual([slow.recv(timeout=5).at.x for _ in range(3)], [27, 28, 29])
        self.assertIsNone(slow.try_recv())
        self.assertEqual(slow.stats().conflated, 27)
        self.assertEqual(slow.lost, 0)
        self.assertEqual([nested.recv(timeout=5).at.x for _ in range(2)], [28, 29])
        self.assertEqual([everything.recv(timeout=5).at.x for _ in range(30)], list(range(30)))

    def test_by_bytes(self):
        channel = self.client.channel("options/conflate-bytes")
        subscriber = channel.subscriber(conflate=(1, 2))
        publisher = channel.publisher()
        for record in (b"1aa", b"2bb", b"3aa", b"4b", b"5bbx"):
            publisher.send(record)
        self.assertEqual([subscriber.recv(timeout=5) for _ in range(3)], [b"3aa", b"4b", b"5bbx"])

    def test_refused(self):
        channel = self.client.channel("options/conflate-field", Robot)
        for field in ("nope", "id.x", "at.z", "trail.x", ""):
            with self.assertRaisesRegex(ValueError, "have no field"):
                channel.subscriber(conflate=field)
        with self.assertRaisesRegex(ValueError, "at least 1 byte"):
            channel.subscriber(conflate=(0, 0))
        with self.assertRaisesRegex(shmbroker.Invalid, "at most 64 bytes"):
            channel.subscriber(conflate=(0, 65))


if __name__ == "__main__":
    unittest.main()
