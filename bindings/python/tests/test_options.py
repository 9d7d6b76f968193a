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


if __name__ == "__main__":
    unittest.main()
