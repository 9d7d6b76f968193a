# SPDX-License-Identifier: Apache-2.0
"""Requests and replies of any length, lent and held."""

import errno
import unittest

import shmbroker
from support import BrokerTest

LEN = 1 << 20
PATIENCE = 20


class Vector(shmbroker.Record, name="test.vector"):
    id: shmbroker.u64
    values: shmbroker.u64[16384]


class Twice(shmbroker.Record, name="test.twice"):
    request: Vector
    reply: Vector


class CallBlocks(BrokerTest):
    def ends(self, schema=None, **options):
        options = {"record_len_max": LEN, "inline_len_max": 2000, "max_holds": 2, **options}
        channel = self.client.calls(next(self.names), schema, **options)
        return channel.caller(), channel.server()

    def test_copies(self):
        caller, server = self.ends()
        for length in (0, 1, 2000, 2001, 65536, LEN):
            data = bytes(i % 251 for i in range(256)) * (length // 256) + b"x" * (length % 256)
            call = caller.start(data, timeout=PATIENCE)
            request = server.recv(PATIENCE)
            self.assertEqual(request.data, data)
            request.reply(data[::-1])
            self.assertEqual(call.recv(PATIENCE), data[::-1])
        with self.assertRaisesRegex(shmbroker.Invalid, "record_len_max"):
            caller.start(b"x" * (LEN + 1))

    def test_no_copies(self):
        caller, server = self.ends()
        for length in (100, LEN):
            loan = caller.loan(length, PATIENCE)
            with loan as view:
                view[0], view[length - 1] = 1, 2
            call = caller.start(loan, 7, PATIENCE)
            with self.assertRaisesRegex(BufferError, "given back"):
                memoryview(loan)
            request = server.recv_hold(PATIENCE)
            self.assertEqual((request.type, request.data.len), (7, length))
            with request.data as hold, memoryview(hold) as view:
                self.assertEqual((len(view), view[0], view[length - 1]), (length, 1, 2))
                with self.assertRaises(TypeError):
                    view[0] = 3
            loan = request.loan(length, PATIENCE)
            with loan as view:
                view[0], view[length // 2 - 1] = 3, 4
            loan.truncate(length // 2)
            request.send(loan, 9)
            loan = request.loan(16, PATIENCE)
            loan.cancel()
            request.end()
            with call.recv_hold(PATIENCE) as hold, memoryview(hold) as view:
                self.assertEqual((call.type, call.more), (9, True))
                self.assertEqual((len(view), view[0], view[-1]), (length // 2, 3, 4))
            self.assertIsNone(call.recv_hold(PATIENCE))

    def test_holds_stay(self):
        caller, server = self.ends()
        holds = []
        for i in range(2):
            caller.start(bytes([i]) * LEN, timeout=PATIENCE)
            holds.append(server.recv_hold(PATIENCE).data)
        for i in range(2, 20):
            call = caller.start(bytes([i]) * LEN, timeout=PATIENCE)
            server.recv(PATIENCE).reply(bytes([i]) * LEN)
            self.assertEqual(call.recv(PATIENCE)[:1], bytes([i]))
        with self.assertRaisesRegex(shmbroker.Error, "2 holds"):
            server.recv_hold(0)
        for i, hold in enumerate(holds):
            with memoryview(hold) as view:
                self.assertEqual((view[0], view[LEN - 1]), (i, i))
                with self.assertRaisesRegex(BufferError, "still exist"):
                    hold.release()
            hold.release()
            with self.assertRaisesRegex(BufferError, "given back"):
                memoryview(hold)

    def test_too_many_holds_end_no_call(self):
        caller, server = self.ends(max_holds=1)
        holds = []
        calls = [caller.start(b"x", timeout=PATIENCE) for _ in range(2)]
        for _ in calls:
            server.recv(PATIENCE).reply(b"y" * LEN)
        hold = calls[0].recv_hold(PATIENCE)
        with self.assertRaises(shmbroker.Error) as raised:
            calls[1].recv_hold(PATIENCE)
        self.assertEqual(raised.exception.errno, errno.EDQUOT)
        hold.release()
        calls[1].recv_hold(PATIENCE).release()

    def test_types(self):
        caller, server = self.ends(Twice)
        loan = caller.loan(timeout=PATIENCE)
        with loan as vector:
            vector.id = 5
        del vector
        call = caller.start(loan, timeout=PATIENCE)
        request = server.recv_hold(PATIENCE)
        with request.data as hold:
            self.assertEqual((hold.len, hold.record.id), (8 + 8 * 16384, 5))
        loan = request.loan(timeout=PATIENCE)
        with loan as vector:
            vector.id = 7
        del vector
        request.reply(loan)
        self.assertEqual(call.recv(PATIENCE).id, 7)

    def test_wrong_use(self):
        caller, server = self.ends()
        with self.assertRaisesRegex(TypeError, "needs a len"):
            caller.loan()
        loan = caller.loan(16, PATIENCE)
        with self.assertRaises(shmbroker.Busy):
            caller.start(b"x", timeout=PATIENCE)
        with self.assertRaisesRegex(TypeError, "start"):
            loan.publish()
        view = memoryview(loan)
        with self.assertRaisesRegex(BufferError, "still exist"):
            caller.start(loan)
        view.release()
        # One that nobody sends is given back.
        with self.assertRaises(ZeroDivisionError):
            with loan:
                raise ZeroDivisionError
        loan = caller.loan(16, PATIENCE)
        del loan
        first, second = (caller.start(b"x", timeout=PATIENCE) for _ in range(2))
        one, other = server.recv(PATIENCE), server.recv(PATIENCE)
        loan = one.loan(LEN, PATIENCE)
        with self.assertRaisesRegex(ValueError, "another request"):
            other.reply(loan)
        with self.assertRaises(shmbroker.Busy):
            other.reply(b"y")
        # Whoever has gone gets nothing, and the loan is no more.
        first.cancel()
        caller.close()
        while not one.cancelled:
            pass
        with self.assertRaises(shmbroker.Error):
            one.reply(loan)
        with self.assertRaisesRegex(BufferError, "given back"):
            loan.cancel()

    def test_closing_with_leases(self):
        caller, server = self.ends()
        caller.start(b"x" * LEN, timeout=PATIENCE)
        request = server.recv_hold(PATIENCE)
        loan = caller.loan(LEN, PATIENCE)
        view = memoryview(request.data)
        with self.assertRaises(BufferError):
            server.close()
        view.release()
        server.close()
        caller.close()
        for lease in (request.data, loan):
            with self.assertRaises((BufferError, shmbroker.Closed)):
                memoryview(lease)


if __name__ == "__main__":
    unittest.main()
