# SPDX-License-Identifier: Apache-2.0
"""Call channels: requests and replies, as bytes or, on a typed channel, as records."""

import errno
from typing import Any, Iterator, List, Optional, Tuple, Union

from shmbroker import _core
from shmbroker._core import Hold, Loan
from shmbroker.errors import Error, RemoteError, Timeout
from shmbroker.schema import Record

Bytes = Union[bytes, bytearray, memoryview]
Payload = Union[Bytes, Record, Loan]
MORE = 1
TEXT_LEN_MAX = 1024


class Caller(_core.Caller):
    """Sends requests to the servers of a channel. Made by CallChannel.caller().

    Of several servers the one with the fewest open calls of this caller gets the request. For one
    thread at a time; close it, or use it with `with`.
    """

    __slots__ = ()

    def call(self, request: Payload = b"", type: int = 0, timeout: Optional[float] = None) -> Any:
        """Send a request and wait for its reply: bytes, or a record of the channel's type.

        type: 0 to 4095, which method it is, say. timeout: seconds, the wait for a server included.

        Timeout: the server finds the call cancelled; PeerGone: it died or was closed, at once;
        RemoteError: it failed; Error: it ended without a reply, or replies more than once;
        NoServer: none is there, with fail_fast; Invalid: too long, or not the length of the type;
        TypeError: a record of another type.
        """
        with self.start(request, type, timeout) as call:
            reply = call.recv()
            if call.more:
                raise Error(errno.EPROTO, "the server replies more than once: start the call")
            if reply is None:
                raise Error(errno.ENODATA, "the server has ended the call without a reply")
            return reply

    def start(
        self, request: Payload = b"", type: int = 0, timeout: Optional[float] = None
    ) -> "Call":
        """Send a request; its replies are asked for later. Errors as call().

        request: also a Loan, which is sent as it lies there.
        """
        return Call(self, self._start(type, request, timeout))

    def loan(self, len: Optional[int] = None, timeout: Optional[float] = None) -> Loan:
        """Memory to write a request into, where its server will read it: for start() or call().

        With `with` it is a writable memoryview, or a record of the channel's type; an exception
        gives it back. len: its bytes at most, if requests are bytes; truncate() makes it shorter.

        Busy: one is on loan; others as call().
        """
        return self._loan(len, timeout)

    def recv_any(self, timeout: Optional[float] = None) -> Tuple[int, Any, bool]:
        """The next reply of any call: its number, the reply or None at the end, are there more?

        Timeout: none has come, or the time of a call is up; NotFound: no call is open. Others as
        Call.recv().
        """
        reply, number, _, more = self._receive(0, timeout)
        return number, reply, more

    def _receive(
        self, number: int, timeout: Optional[float], hold: bool = False
    ) -> Tuple[Any, int, int, bool]:
        try:
            return (self._recv_hold if hold else self._recv)(number, timeout)
        except RemoteError as error:
            error.code = self._code
            raise


class Call:
    """A call that was started. Iterate over its replies, or use recv().

    With `with` it is cancelled at the end, if it has not ended.
    """

    __slots__ = ("_caller", "number", "type", "more")

    number: int
    """What the caller calls it."""
    type: int
    """Type of the last reply."""
    more: bool
    """Are there other replies?"""

    def __init__(self, caller: Caller, number: int) -> None:
        self._caller = caller
        self.number = number
        self.type = 0
        self.more = True

    def recv(self, timeout: Optional[float] = None) -> Any:
        """The next reply; None: there is none any more.

        Timeout: none has come in this time, or the time of the call is up, then it has ended;
        PeerGone, RemoteError, Error as Caller.call().
        """
        return self._next(timeout, False)

    def recv_hold(self, timeout: Optional[float] = None) -> Optional[Hold]:
        """As recv(), but where it lies, with no copy: a Hold, to be released.

        It stays as it is, whatever becomes of the call and its server. Error: the channel does not
        allow more holds, or has no blocks.
        """
        hold = self._next(timeout, True)
        assert hold is None or isinstance(hold, Hold)
        return hold

    def _next(self, timeout: Optional[float], hold: bool) -> Any:
        if not self.more:
            return None
        try:
            reply, _, self.type, self.more = self._caller._receive(self.number, timeout, hold)
        except Timeout as error:
            self.more = error.errno != errno.ETIME
            raise
        except Error as error:
            self.more = error.errno == errno.EDQUOT
            raise
        return reply

    def cancel(self) -> bool:
        """End it; its server is told. False: it had ended."""
        self.more = False
        return self._caller._cancel(self.number)

    def __iter__(self) -> Iterator[Any]:
        while True:
            reply = self.recv()
            if reply is None:
                return
            yield reply

    def __enter__(self) -> "Call":
        return self

    def __exit__(self, *exception: Any) -> None:
        if not self._caller.closed and self.more:
            self.cancel()


class Server(_core.Server):
    """Answers the requests of callers. Made by CallChannel.server().

    Iterate over its requests, or use recv(). For one thread at a time: for several threads open
    several; they share the calls. Close it, or use it with `with`.
    """

    __slots__ = ()

    def recv(self, timeout: Optional[float] = None) -> "Request":
        """The next request. Timeout.

        4096 can be open, and of one caller as many as are left for the others: it is not listened
        to until one of its calls ends.
        """
        return Request(self, *self._recv(timeout))

    def recv_hold(self, timeout: Optional[float] = None) -> "Request":
        """As recv(), but where it lies, with no copy: data is a Hold, to be released.

        It stays as it is, whatever becomes of the call and its caller. Error: the channel does not
        allow more holds, or has no blocks.
        """
        return Request(self, *self._recv_hold(timeout))

    def __iter__(self) -> Iterator["Request"]:
        while True:
            yield self.recv()


class Request:
    """A request: answer it with reply(), with several send() and end() or reply(), or fail()."""

    __slots__ = ("_server", "data", "number", "type", "pid", "uid", "caller_id", "deadline")

    data: Any
    """The request: bytes, or a record of the channel's type; from recv_hold() a Hold."""
    number: int
    """What the server calls it."""
    type: int
    """What its caller has given, 0 to 4095."""
    pid: int
    """Process of the caller, as the broker knows it."""
    uid: int
    """Its user."""
    caller_id: int
    """Unique in this broker's life and after."""
    deadline: Optional[float]
    """time.monotonic() of when the caller gives up, to some milliseconds; None: it does not say."""

    def __init__(
        self,
        server: Server,
        data: Any,
        number: int,
        type: int,
        pid: int,
        uid: int,
        caller_id: int,
        deadline_ns: int,
    ) -> None:
        self._server = server
        self.data = data
        self.number = number
        self.type = type
        self.pid = pid
        self.uid = uid
        self.caller_id = caller_id
        self.deadline = deadline_ns / 1e9 if deadline_ns else None

    @property
    def cancelled(self) -> bool:
        """Is it of no use any more to work on it? NotFound: it has been answered."""
        return self._server._cancelled(self.number)

    def reply(self, data: Payload = b"", type: int = 0, timeout: Optional[float] = None) -> None:
        """Send the last reply, or the only one. data: also a Loan, which is sent as it lies there.

        timeout: seconds to wait while the caller has a whole lane of replies to read.

        Timeout: no room, the call goes on; Cancelled: the caller does not wait any more;
        PeerGone; NotFound: it has been answered; Invalid: too long, or not the length of the type;
        TypeError: a record of another type.
        """
        self._server._reply(self.number, type, data, 0, timeout)

    def send(self, data: Payload = b"", type: int = 0, timeout: Optional[float] = None) -> None:
        """Send a reply that is not the last one. Errors as reply()."""
        self._server._reply(self.number, type, data, MORE, timeout)

    def loan(self, len: Optional[int] = None, timeout: Optional[float] = None) -> Loan:
        """Memory to write a reply into, where its caller will read it: for reply() or send().

        As Caller.loan(). The server sends nothing else until it is sent or cancelled.
        Busy: one is on loan; others as reply().
        """
        return self._server._loan(self.number, len, timeout)

    def end(self, timeout: Optional[float] = None) -> None:
        """There is no reply any more. Errors as reply()."""
        self._server._end(self.number, timeout)

    def fail(self, code: int, text: str = "", timeout: Optional[float] = None) -> None:
        """It has failed: the caller gets a RemoteError with code and text. Errors as reply()."""
        self._server._fail(self.number, code, text.encode()[:TEXT_LEN_MAX], timeout)


__all__: List[str] = ["Call", "Caller", "Request", "Server"]
