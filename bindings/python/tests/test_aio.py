# SPDX-License-Identifier: Apache-2.0
"""asyncio."""

import asyncio
import threading
import time
import unittest

import shmbroker
from support import BrokerTest, Tick


class Asyncio(BrokerTest):
    def setUp(self):
        super().setUp()
        self.publisher, self.subscriber = self.pair(Tick)

    def run_async(self, coroutine):
        return asyncio.run(asyncio.wait_for(coroutine, 20))

    def test_records(self):
        async def send():
            for i in range(50):
                self.publisher.send(Tick(i))
                if i % 10 == 0:
                    await asyncio.sleep(0.002)

        async def main():
            task = asyncio.ensure_future(send())
            got = []
            async for tick in self.subscriber:
                got.append(tick.time_ns)
                if len(got) == 50:
                    break
            await task
            self.assertEqual(got, list(range(50)))

        self.run_async(main())

    def test_from_another_thread(self):
        async def main():
            return [(await self.subscriber.arecv()).time_ns for _ in range(5)]

        def send():
            for i in range(5):
                time.sleep(0.02)
                self.publisher.send(Tick(i))

        thread = threading.Thread(target=send)
        thread.start()
        self.assertEqual(self.run_async(main()), [0, 1, 2, 3, 4])
        thread.join()

    def test_timeout(self):
        async def main():
            before = time.monotonic()
            with self.assertRaises(shmbroker.Timeout):
                await self.subscriber.arecv(timeout=0.05)
            self.assertGreaterEqual(time.monotonic() - before, 0.04)
            with self.assertRaises(shmbroker.Timeout):
                await self.subscriber.abatch(timeout=0)
            self.publisher.send(Tick(1))
            self.assertEqual(await self.subscriber.arecv(timeout=5), Tick(1))

        self.run_async(main())

    def test_batch(self):
        async def main():
            self.publisher.send_many([Tick(i) for i in range(10)])
            self.assertEqual(await self.subscriber.abatch(4), [Tick(i) for i in range(4)])
            self.assertEqual(len(await self.subscriber.abatch()), 6)
            task = asyncio.ensure_future(self.subscriber.abatch())
            await asyncio.sleep(0.02)
            self.publisher.send(Tick(7))
            self.assertEqual(await task, [Tick(7)])

        self.run_async(main())

    def test_the_loop_runs_meanwhile(self):
        async def main():
            task = asyncio.ensure_future(self.subscriber.arecv())
            for _ in range(20):
                await asyncio.sleep(0.001)
            self.assertFalse(task.done())
            self.publisher.send(Tick(2))
            self.assertEqual(await task, Tick(2))

        self.run_async(main())

    def test_cancel(self):
        async def main():
            task = asyncio.ensure_future(self.subscriber.arecv())
            await asyncio.sleep(0.02)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            self.publisher.send(Tick(3))
            self.assertEqual(await self.subscriber.arecv(), Tick(3))

        self.run_async(main())

    def test_close_while_waiting(self):
        async def main():
            task = asyncio.ensure_future(self.subscriber.arecv())
            await asyncio.sleep(0.02)
            self.client.close()
            with self.assertRaises(shmbroker.Closed):
                await task

        self.run_async(main())

    def test_a_record_before_the_sleep(self):
        # Between try_recv() and arm() another process may publish: then nobody rings.
        async def main():
            self.assertIsNone(self.subscriber.try_recv())
            self.publisher.send(Tick(6))
            await asyncio.wait_for(shmbroker.aio.ready(self.subscriber), 2)
            self.assertEqual(self.subscriber.try_recv(), Tick(6))

        self.run_async(main())

    def test_two_tasks(self):
        async def main():
            task = asyncio.ensure_future(self.subscriber.arecv())
            await asyncio.sleep(0.02)
            with self.assertRaisesRegex(RuntimeError, "another task"):
                await self.subscriber.arecv()
            self.publisher.send(Tick(4))
            self.assertEqual(await task, Tick(4))

        self.run_async(main())

    def test_others_have_their_turn(self):
        async def main():
            self.publisher.send_many([Tick(i) for i in range(5000)])
            turns = 0

            async def count():
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            task = asyncio.ensure_future(count())
            n = 0
            async for _ in self.subscriber:
                n += 1
                if n == 5000:
                    break
            task.cancel()
            self.assertGreater(turns, 50)

        self.run_async(main())


if __name__ == "__main__":
    unittest.main()
