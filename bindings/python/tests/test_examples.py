# SPDX-License-Identifier: Apache-2.0
"""The examples do what they say."""

import hashlib
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import shmbroker
from support import HERE, BrokerTest, hear_interrupts


class Examples(BrokerTest):
    def example(self, name, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-u", os.path.join(HERE, "..", "examples", name), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(
                os.environ,
                PYTHONPATH=os.pathsep.join(sys.path),
                SHMBROKER_ADDRESS=self.broker.address,
            ),
            preexec_fn=hear_interrupts,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def wait_for(self, process, name):
        """The channel that a process is about to create."""
        while True:
            try:
                return self.client.channel(name, shmbroker.ANY, create=False)
            except shmbroker.NotFound:
                self.assertIsNone(process.poll())
                time.sleep(0.01)

    def test_publish_and_subscribe(self):
        publish = self.example("publish.py", "1000")
        self.wait_for(publish, "example/ticks").wait_members(publishers=1, timeout=20)
        subscribe = self.example("subscribe.py")
        self.assertRegex(subscribe.stdout.readline(), r"Tick\(time_ns=\d+, price=[\d.]+, count=\d+")
        self.assertEqual(publish.communicate(timeout=30)[1], "")
        self.assertEqual(publish.returncode, 0)
        subscribe.send_signal(signal.SIGINT)
        subscribe.communicate(timeout=10)
        self.assertEqual(subscribe.returncode, 0)

    def test_publish_and_hold_frames(self):
        hold = self.example("hold-frames.py")
        self.wait_for(hold, "example/frames").wait_for_subscribers(1, timeout=20)
        publish = self.example("publish-frames.py", "6")
        self.assertEqual(publish.communicate(timeout=30)[1], "")
        self.assertEqual(publish.returncode, 0)
        out, error = hold.communicate(timeout=30)
        self.assertEqual((error, hold.returncode), ("", 0))
        self.assertEqual(out.splitlines()[-1], "5: 32 columns differ from 3")

    def test_pass_and_take_files(self):
        take = self.example("take-files.py", "2")
        self.wait_for(take, "example/files").wait_for_subscribers(1, timeout=20)
        with tempfile.TemporaryDirectory() as directory:
            names = [os.path.join(directory, name) for name in ("one", "two")]
            for i, name in enumerate(names):
                with open(name, "w", encoding="ascii") as file:
                    file.write("line\n" * (i + 1))
            hand = self.example("pass-files.py", *names)
            self.assertEqual(hand.communicate(timeout=30)[1], "")
        self.assertEqual(hand.returncode, 0)
        out, error = take.communicate(timeout=30)
        self.assertEqual((error, take.returncode), ("", 0))
        self.assertEqual(
            out.splitlines(),
            [f"{names[0]}: 5 bytes, 1 lines", f"{names[1]}: 10 bytes, 2 lines"],
        )

    def test_set_and_watch_state(self):
        setter = self.example("set-state.py", "20", "right")
        while True:
            try:
                channel = self.client.state("example/poses", shmbroker.ANY, create=False)
                break
            except shmbroker.NotFound:
                self.assertIsNone(setter.poll())
                time.sleep(0.01)
        watch = self.example("watch-state.py")
        self.assertRegex(watch.stdout.readline(), r"right Pose\(time_ns=\d+, x=")
        self.assertEqual(setter.communicate(timeout=30)[1], "")
        self.assertEqual(setter.returncode, 0)
        # It has gone; its last value has not.
        self.assertEqual(channel.subscriber().sequence, 0)
        self.assertGreater(channel.subscriber()["right"].time_ns, 0)
        watch.send_signal(signal.SIGINT)
        watch.communicate(timeout=10)
        self.assertEqual(watch.returncode, 0)

    def test_submit_and_work(self):
        workers = [self.example("work.py") for _ in range(2)]
        queue = self.wait_for_queue(workers[0], "example/numbers")
        queue.wait_for_subscribers(2, timeout=20)
        submit = self.example("submit.py", "100")
        self.assertEqual(submit.communicate(timeout=30), ("100 tasks are done\n", ""))
        self.assertEqual(submit.returncode, 0)
        lines = []
        for worker in workers:
            worker.send_signal(signal.SIGINT)
            lines += worker.communicate(timeout=10)[0].splitlines()
            self.assertEqual(worker.returncode, 0)
        self.assertEqual(len(set(lines)), 100)
        self.assertEqual(len(lines), 100)
        self.assertIn("1001 = 7 * 11 * 13", lines)

    def wait_for_queue(self, process, name):
        while True:
            try:
                return self.client.queue(name, shmbroker.ANY, create=False)
            except shmbroker.NotFound:
                self.assertIsNone(process.poll())
                time.sleep(0.01)

    def test_call_and_serve(self):
        serve = self.example("serve.py", "3")
        call = self.example("call.py", "world")
        self.assertEqual(call.communicate(timeout=30), ("WORLD\n1\n2\n3\n4\n5\n", ""))
        self.assertEqual(call.returncode, 0)
        with self.client.calls("example/calls") as channel, channel.caller() as caller:
            with self.assertRaisesRegex(shmbroker.RemoteError, "no such method"):
                caller.call(b"", 3, timeout=20)
        self.assertEqual(serve.communicate(timeout=30), ("", ""))
        self.assertEqual(serve.returncode, 0)

    def test_priorities(self):
        process = self.example("priorities.py")
        output = process.communicate(timeout=30)
        self.assertEqual(
            output[0].splitlines(),
            [f"priority 7, number {i}" for i in range(2)]
            + [f"priority 0, number {i}" for i in range(4)],
        )
        self.assertEqual((output[1], process.returncode), ("", 0))

    def test_conflate(self):
        process = self.example("conflate.py")
        output = process.communicate(timeout=30)
        self.assertEqual(
            output[0].splitlines(),
            [f"instrument {i}, number 24, at {124 + i * 0.25:.2f}" for i in range(4)]
            + ["96 older ones were skipped"],
        )
        self.assertEqual((output[1], process.returncode), ("", 0))

    def test_telemetry(self):
        with tempfile.NamedTemporaryFile() as file:
            content = os.urandom(300001)
            file.write(content)
            file.flush()
            process = self.example(
                "telemetry.py", "--seconds", "1", "--rate", "200", "--file", file.name,
                "--wait-for-subscribers", "1",
            )  # fmt: skip
            files = self.client.channel("demo/file").subscriber()
            telemetry = self.wait_for(process, "demo/telemetry").subscriber()

            got, kinds = b"", []
            while 3 not in kinds:
                record = files.recv(timeout=20)
                kinds.append(files.type)
                if files.type == 1:
                    size, digest = struct.unpack("<Q32s", record)
                got += record if files.type == 2 else b""
            self.assertEqual(got, content)
            self.assertEqual((size, digest), (len(content), hashlib.sha256(content).digest()))
            self.assertEqual(kinds, [1] + [2] * 74 + [3])

            output, errors = process.communicate(timeout=20)
        self.assertEqual((process.returncode, errors), (0, ""))
        # A machine that is away for long gets fewer.
        count = int(re.search(r"telemetry: (\d+) records", output)[1])
        self.assertTrue(2 <= count <= 201, count)
        samples = [telemetry.recv(timeout=20) for _ in range(count)]
        self.assertIn(digest.hex(), output)
        self.assertEqual([sample.sequence for sample in samples], list(range(count)))
        first, last = samples[0], samples[-1]
        self.assertLess(first.time_ns, last.time_ns)
        self.assertGreater(last.cpu_busy + last.cpu_idle, first.cpu_busy + first.cpu_idle)
        with open("/proc/meminfo", encoding="ascii") as meminfo:
            self.assertEqual(last.mem_total_kib, int(meminfo.readline().split()[1]))
        self.assertTrue(0 < last.mem_available_kib <= last.mem_total_kib)


if __name__ == "__main__":
    unittest.main()
