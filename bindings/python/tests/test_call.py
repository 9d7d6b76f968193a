# SPDX-License-Identifier: Apache-2.0
"""Call channels: replies, streams, failures, deadlines, cancelling, deaths."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
import unittest

import shmbroker
from support import BrokerTest

SERVER = """
import sys, shmbroker
with shmbroker.connect(sys.argv[1]) as client, client.calls(sys.argv[2]) as channel:
    with channel.server() as server:
        print("ready", flush=True)
        for request in server:
            if request.data == b"keep":
                print("kept", flush=True)
            else:
                request.reply(request.data)
"""


class Query(shmbroker.Record, name="test.query"):
    id: shmbroker.u32


class Quote(shmbroker.Record, name="test.quote"):
    price: shmbroker.f64
    count: shmbroker.u32
    flags: shmbroker.u32


class OtherQuote(shmbroker.Record, name="test.quote"):
    price: shmbroker.f64
    count: shmbroker.i32
    flags: shmbroker.u32


class Lookup(shmbroker.Record, name="test.lookup"):
    request: Query
    reply: Quote


class OtherLookup(shmbroker.Record, name="test.lookup"):
    request: Query
    reply: OtherQuote


class ReplyOnly(shmbroker.Record, name="test.reply"):
    reply: Quote


class Calls(BrokerTest):
    def calls(self, schema=None, **options):
        return self.client.calls(next(self.names), schema, **options)

    def ends(self, schema=None, **options):
        channel = self.calls(schema, **options)
        return channel.caller(), channel.server()

    def serve(self, server, answer):
        """Answers on a thread until it is told to end."""

        def run():
            for request in server:
                if request.data == b"end":
                    request.reply()
                    return
                answer(request)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def test_a_call(self):
        caller, server = self.ends()
        thread = self.serve(server, lambda request: request.reply(request.data[::-1], request.type))
        for i in range(1000):
            self.assertEqual(caller.call(b"abc%d" % i, 7, timeout=20), (b"abc%d" % i)[::-1])
        self.assertEqual(caller.call(bytearray(5), timeout=20), bytes(5))
        with caller.start(b"xyz", 9, timeout=20) as call:
            self.assertEqual(call.recv(timeout=20), b"zyx")
            self.assertEqual(call.type, 9)
            self.assertFalse(call.more)
            self.assertIsNone(call.recv())
        caller.call(b"end", timeout=20)
        thread.join()
        self.assertEqual(caller.stats().replies, 1003)
        self.assertEqual(caller.stats().n_open, 0)
        self.assertEqual(server.stats().requests, 1003)
        self.assertEqual(server.stats().n_callers, 1)

    def test_who_asks(self):
        caller, server = self.ends()
        caller.start(b"x", 5, timeout=60)
        request = server.recv(timeout=20)
        self.assertEqual((request.data, request.type), (b"x", 5))
        self.assertEqual((request.pid, request.uid), (os.getpid(), os.getuid()))
        self.assertLess(abs(request.deadline - time.monotonic() - 60), 20)
        self.assertFalse(request.cancelled)
        request.reply()
        with self.assertRaises(shmbroker.NotFound):
            request.reply()
        with self.assertRaises(shmbroker.NotFound):
            request.cancelled
        caller.start()
        self.assertIsNone(server.recv(timeout=20).deadline)

    def test_long_ones(self):
        caller, server = self.ends(lane_len=1 << 20)
        thread = self.serve(server, lambda request: request.reply(request.data * 2))
        self.assertEqual(caller.call(bytes(200000), timeout=20), bytes(400000))
        self.assertEqual(caller.call(bytes(2048), timeout=20), bytes(4096))
        self.assertEqual(caller.call(bytes(4096), timeout=20), bytes(8192))
        with self.assertRaises(shmbroker.Invalid):
            caller.call(bytes(1 << 20), timeout=20)
        caller.call(b"end", timeout=20)
        thread.join()

    def test_streams(self):
        caller, server = self.ends(lane_len=4096)

        def answer(request):
            for i in range(int(request.data)):
                request.send(b"%d" % i)
            request.end()

        thread = self.serve(server, answer)
        with caller.start(b"1000", timeout=60) as call:
            self.assertEqual([int(reply) for reply in call], list(range(1000)))
        self.assertEqual(list(caller.start(b"0", timeout=20)), [])
        with self.assertRaisesRegex(shmbroker.Error, "more than once"):
            caller.call(b"3", timeout=20)
        with self.assertRaisesRegex(shmbroker.Error, "without a reply"):
            caller.call(b"0", timeout=20)
        caller.call(b"end", timeout=20)
        thread.join()

    def test_failures(self):
        caller, server = self.ends()
        call = caller.start(timeout=20)
        server.recv(timeout=20).fail(-42, "h\u00e4tte k\u00f6nnen")
        with self.assertRaisesRegex(shmbroker.RemoteError, "h\u00e4tte k\u00f6nnen") as caught:
            call.recv(timeout=20)
        self.assertEqual(caught.exception.code, -42)
        self.assertIsNone(call.recv())

    def test_any(self):
        caller, server = self.ends()
        calls = {caller.start(b"%d" % i, timeout=20).number: b"%d" % i for i in range(10)}
        for request in [server.recv(timeout=20) for _ in range(10)][::-1]:
            request.reply(request.data)
        for _ in range(10):
            number, reply, more = caller.recv_any(timeout=20)
            self.assertEqual(calls.pop(number), reply)
            self.assertFalse(more)
        with self.assertRaises(shmbroker.NotFound):
            caller.recv_any(timeout=0)

    def test_time(self):
        caller, server = self.ends()
        with self.assertRaises(shmbroker.Timeout):
            server.recv(timeout=0)
        began = time.monotonic()
        with self.assertRaises(shmbroker.Timeout):
            caller.call(b"x", timeout=0.3)
        self.assertGreater(time.monotonic() - began, 0.25)
        call = caller.start(timeout=60)
        with self.assertRaises(shmbroker.Timeout):
            call.recv(timeout=0.1)
        self.assertTrue(call.more)
        self.assertTrue(call.cancel())
        self.assertFalse(call.cancel())
        late = caller.start(timeout=0.1)
        with self.assertRaises(shmbroker.Timeout):
            late.recv()
        self.assertFalse(late.more)
        # Handed out before its cancelling has been read.
        self.assertTrue(server.recv(timeout=20).cancelled)
        with self.assertRaises(shmbroker.Timeout):
            server.recv(timeout=0.2)
        self.assertEqual(server.stats().cancelled + server.stats().expired, 3)

    def test_cancelling(self):
        caller, server = self.ends()
        with caller.start(b"1", timeout=60):
            request = server.recv(timeout=20)
            self.assertFalse(request.cancelled)
        self.assertTrue(request.cancelled)
        with self.assertRaises(shmbroker.Cancelled):
            request.reply()
        caller.start(b"2", timeout=60)
        request = server.recv(timeout=20)
        caller.close()
        for _ in range(1000):
            if request.cancelled:
                break
            time.sleep(0.01)
        with self.assertRaises(shmbroker.PeerGone):
            request.reply()

    def test_no_server(self):
        channel = self.calls()
        with channel.caller(fail_fast=True) as caller:
            with self.assertRaises(shmbroker.NoServer):
                caller.call(timeout=20)
        with channel.caller() as caller:
            with self.assertRaisesRegex(shmbroker.Timeout, "no server"):
                caller.call(timeout=0.2)
        with self.assertRaises(shmbroker.Timeout):
            channel.wait_for_servers(timeout=0.1)
        self.assertEqual(channel.pattern, "call")
        self.assertEqual(channel.info().pattern, 3)

    def test_other_patterns(self):
        channel = self.calls()
        with self.assertRaises(shmbroker.SchemaMismatch):
            self.client.channel(channel.name)
        with self.assertRaises(shmbroker.Error):
            shmbroker.Channel.publisher(channel)
        with self.assertRaises(shmbroker.Error):
            shmbroker.Channel.subscriber(channel)

    def test_a_server_that_is_killed(self):
        channel = self.calls()
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, self.broker.address, channel.name],
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), "ready\n")
        with channel.caller() as caller:
            self.assertEqual(caller.call(b"x", timeout=20), b"x")
            with caller.start(b"keep", timeout=60) as call:
                self.assertEqual(process.stdout.readline(), "kept\n")
                process.kill()
                began = time.monotonic()
                with self.assertRaises(shmbroker.PeerGone):
                    call.recv()
                self.assertLess(time.monotonic() - began, 30)

    def test_event_loop(self):
        caller, server = self.ends()
        with self.assertRaises(shmbroker.Timeout):
            server.recv(timeout=0)
        self.assertFalse(server.arm())
        call = caller.start(b"x", timeout=20)
        self.assertTrue(select.select([server.fileno()], [], [], 20)[0])
        self.assertTrue(server.arm())
        request = server.recv(timeout=20)
        # It hears of the server's lane.
        with self.assertRaises(shmbroker.Timeout):
            call.recv(timeout=0)
        self.assertFalse(caller.arm())
        request.reply(b"y")
        self.assertTrue(select.select([caller.fileno()], [], [], 20)[0])
        self.assertEqual(call.recv(timeout=0), b"y")

    def test_interrupts(self):
        caller, server = self.ends()
        call = caller.start(timeout=60)

        def interrupt(signum, frame):
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        for blocked in (call.recv, lambda: caller.call(), lambda: [r for r in server]):
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with self.assertRaises(KeyboardInterrupt):
                blocked()

    def test_types(self):
        channel = self.calls(Lookup)
        self.assertEqual((channel.request, channel.reply), (Query, Quote))
        self.assertEqual((channel.info().request_len, channel.info().reply_len), (4, 16))
        caller, server = channel.caller(), channel.server()
        call = caller.start(Query(id=7), timeout=20)
        request = server.recv(timeout=20)
        self.assertEqual(request.data, Query(id=7))
        request.send(Quote(price=1.5, count=2))
        with self.assertRaises(TypeError):
            request.reply(Query(id=1))
        with self.assertRaises(shmbroker.Invalid):
            request.reply(b"12345")
        request.fail(1, "no more")
        self.assertEqual(call.recv(timeout=20), Quote(price=1.5, count=2))
        with self.assertRaises(shmbroker.RemoteError):
            call.recv(timeout=20)
        with self.assertRaises(shmbroker.Invalid):
            caller.start(b"", timeout=20)
        thread = self.serve_one(server, lambda data: Quote(price=data.id))
        self.assertEqual(caller.call(Query(id=3), timeout=20).price, 3)
        thread.join()

    def serve_one(self, server, answer):
        def run():
            request = server.recv(timeout=20)
            request.reply(answer(request.data))

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def test_other_types(self):
        name = next(self.names)
        with self.client.calls(name, Lookup):
            with self.assertRaisesRegex(shmbroker.SchemaMismatch, "reply.count"):
                self.client.calls(name, OtherLookup)
            with self.assertRaises(shmbroker.SchemaMismatch):
                self.client.calls(name)
            with self.client.calls(name, shmbroker.ANY) as channel:
                self.assertEqual(channel.schema, Lookup.schema)
                caller, server = channel.caller(), channel.server()
                caller.start(channel.request(id=5), timeout=20)
                self.assertEqual(server.recv(timeout=20).data.id, 5)
        with self.assertRaises(shmbroker.Invalid):
            self.client.calls(name, Quote)
        # One side can be bytes.
        caller, server = self.ends(ReplyOnly)
        call = caller.start(b"as long as you like", timeout=20)
        request = server.recv(timeout=20)
        self.assertEqual(request.data, b"as long as you like")
        request.reply(Quote(price=2))
        self.assertEqual(call.recv(timeout=20).price, 2)

    def test_in_a_wait_set(self):
        caller, server = self.ends()
        done = 0
        with shmbroker.WaitSet(self.client) as waitset:
            waitset.add(server)
            waitset.add(caller)
            with self.assertRaises(shmbroker.Exists):
                waitset.add(caller)
            with self.assertRaises((TypeError, AttributeError)):
                waitset.add(self.client)
            caller.start(b"x", timeout=60)
            while done < 100:
                for member, _ in waitset.wait(timeout=20):
                    try:
                        if member is server:
                            request = server.recv(timeout=0)
                            request.reply(request.data)
                        else:
                            self.assertEqual(caller.recv_any(timeout=0)[1], b"x")
                            caller.start(b"x", timeout=60)
                            done += 1
                    except shmbroker.Timeout:
                        pass
            waitset.remove(server)
            with self.assertRaises(shmbroker.NotFound):
                waitset.remove(server)
            # One that is closed leaves by itself.
            caller.close()
            waitset.remove(caller)

    def test_closed(self):
        channel = self.calls()
        caller, server = channel.caller(), channel.server()
        call = caller.start(timeout=20)
        channel.close()
        self.assertTrue(caller.closed and server.closed)
        with self.assertRaises(shmbroker.Closed):
            call.recv()
        with self.assertRaises(shmbroker.Closed):
            server.recv()


if __name__ == "__main__":
    unittest.main()
