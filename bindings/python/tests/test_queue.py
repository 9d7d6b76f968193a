# SPDX-License-Identifier: Apache-2.0
"""Queues: jobs, credit, failure, dead letters, workers that go."""

import asyncio
import signal
import time
import unittest

import shmbroker
from support import BrokerTest, Tick

WORKER = """
import sys, time, shmbroker
client = shmbroker.connect(sys.argv[1])
worker = client.queue(sys.argv[2]).subscriber()
print("ready", flush=True)
job = worker.take()
worker.take().done()
print(job.record.decode(), flush=True)
time.sleep(60)
"""


class Queue(BrokerTest):
    def queue(self, schema=None, client=None, name=None, **options):
        return (client or self.client).queue(name or next(self.names), schema, **options)

    def test_each_job_is_for_one_worker(self):
        queue = self.queue()
        self.assertEqual(queue.pattern, "queue")
        self.assertEqual(queue.info().pattern, 2)
        workers = [queue.subscriber(credit=8) for _ in range(2)]
        publisher = queue.publisher()
        for i in range(16):
            publisher.send(b"%d" % i)
        with self.assertRaises(shmbroker.Full):
            publisher.send(b"too many", block=False)
        with self.assertRaises(shmbroker.Timeout):
            publisher.send(b"too many", timeout=0.01)
        with self.assertRaises(shmbroker.Timeout):
            publisher.wait_done(0.01)
        got = []
        for worker in workers:
            jobs = worker.take_many(timeout=5)
            self.assertEqual(len(jobs), 8)
            self.assertIsNone(worker.try_take())
            with self.assertRaises(shmbroker.Empty):
                worker.take(block=False)
            got += [job.record for job in jobs]
            worker.done_many(jobs)
            with self.assertRaises(shmbroker.NotFound):
                jobs[0].done()
        self.assertEqual(sorted(got), sorted(b"%d" % i for i in range(16)))
        publisher.wait_done(5)

    def test_records(self):
        queue = self.queue(Tick)
        worker, publisher = queue.subscriber(), queue.publisher()
        publisher.send(Tick(time_ns=7, price=1.5))
        job = worker.take(timeout=5)
        self.assertEqual(job.record, Tick(time_ns=7, price=1.5))
        self.assertEqual(job.attempt, 1)
        self.assertIn("attempt 1", repr(job))
        job.done()
        with publisher.loan() as tick:
            tick.time_ns = 8
        with worker.take(timeout=5) as tick:
            self.assertEqual(tick.time_ns, 8)
        publisher.wait_done(5)
        with self.assertRaises(TypeError):
            publisher.send(shmbroker.Record)
        with self.assertRaises(shmbroker.Error):
            worker.recv(block=False)
        with self.assertRaises(shmbroker.SchemaMismatch):
            self.client.channel(queue.name, Tick)

    def test_failure_and_dead_letters(self):
        queue = self.queue()
        dead = self.queue(name=queue.name + "/dead")
        undertaker = dead.subscriber()
        worker, publisher = queue.subscriber(max_attempts=2), queue.publisher()
        publisher.send(b"bad")
        for attempt in (1, 2):
            job = worker.take(timeout=5)
            self.assertEqual((job.record, job.attempt), (b"bad", attempt))
            with self.assertRaises(ZeroDivisionError):
                with job:
                    1 / 0
        self.assertIsNone(worker.try_take())
        with undertaker.take(timeout=5) as letter:
            self.assertEqual(letter, b"bad")
        publisher.wait_done(5)

    def test_wrong_use(self):
        queue = self.queue()
        with self.assertRaises(shmbroker.Invalid):
            queue.subscriber(credit=65)
        worker = queue.subscriber()
        publisher = queue.publisher()
        publisher.send(b"x")
        job = worker.take(timeout=5)
        worker.close()
        with self.assertRaises(shmbroker.Closed):
            job.done()

    def test_what_a_killed_worker_has_not_done_comes_again(self):
        queue = self.queue()
        publisher = queue.publisher()
        process = self.script(WORKER, queue.name)
        self.assertEqual(process.stdout.readline(), "ready\n")
        for text in (b"first", b"second", b"third"):
            publisher.send(text)
        self.assertEqual(process.stdout.readline(), "first\n")
        worker = queue.subscriber()
        process.send_signal(signal.SIGKILL)
        process.wait()
        jobs = []
        while len(jobs) < 2:
            try:
                publisher.wait_done(0.01)
            except shmbroker.Timeout:
                pass
            job = worker.try_take()
            if job:
                jobs.append((job.record, job.attempt))
                job.done()
        self.assertEqual(jobs, [(b"first", 2), (b"third", 1)])
        publisher.wait_done(5)

    def test_waiting(self):
        queue = self.queue()
        worker, publisher = queue.subscriber(), queue.publisher()
        with shmbroker.WaitSet(self.client) as waitset:
            waitset.add(worker)
            self.assertEqual(waitset.wait(0.01), [])
            publisher.send(b"x")
            self.assertIs(waitset.wait(5)[0][0], worker)
            worker.take(block=False).done()
            waitset.remove(worker)
        before = time.monotonic()
        with self.assertRaises(shmbroker.Timeout):
            worker.take(timeout=0.02)
        self.assertGreaterEqual(time.monotonic() - before, 0.015)
        for _ in range(3):
            publisher.send(b"x")
        for n, job in enumerate(worker):
            job.done()
            if n == 2:
                break

    def test_asyncio(self):
        queue = self.queue()
        worker, publisher = queue.subscriber(), queue.publisher()

        async def work(count):
            async for job in worker:
                with job:
                    count -= 1
                if not count:
                    return

        async def both():
            await asyncio.gather(work(20), send_all(20))
            publisher.send(b"last")
            with await worker.atake(timeout=5) as record:
                self.assertEqual(record, b"last")

        async def send_all(count):
            for _ in range(count):
                publisher.send(b"x")
                await asyncio.sleep(0)

        asyncio.run(both())
        publisher.wait_done(5)

    def test_an_event_loop_hears_of_workers_that_go(self):
        queue = self.queue()
        leaver, publisher = queue.subscriber(), queue.publisher()

        async def leave():
            await asyncio.sleep(0.02)
            worker = queue.subscriber()
            leaver.close()
            with await worker.atake(timeout=5) as record:
                self.assertEqual(record, b"x")

        async def both():
            publisher.send(b"x")
            with self.assertRaises(shmbroker.Timeout):
                await publisher.await_done(timeout=0.01)
            await asyncio.gather(leave(), publisher.await_done(timeout=5))

        asyncio.run(both())


if __name__ == "__main__":
    unittest.main()
