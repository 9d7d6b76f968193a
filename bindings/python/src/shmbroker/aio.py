# SPDX-License-Identifier: Apache-2.0
"""Receiving in an asyncio loop, through the subscriber's fd."""

import asyncio
import errno
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, List, Optional, Union

from shmbroker.errors import Closed, Empty, Timeout

if TYPE_CHECKING:
    from shmbroker.queue import QueuePublisher, QueueSubscriber
    from shmbroker.subscriber import Subscriber

    Sleeper = Union[Subscriber, QueueSubscriber]


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


async def ready(subscriber: "Sleeper") -> None:
    """Wait until there may be something to receive. Closed: it was closed meanwhile."""
    if subscriber._on_close is not None:
        raise RuntimeError("another task is waiting on this subscriber")
    if subscriber.arm():
        return
    loop = asyncio.get_running_loop()
    future: "asyncio.Future[None]" = loop.create_future()
    fd = subscriber.fileno()
    closing = False

    def close() -> None:
        # The fd is about to go: the loop must forget it before its number is used again.
        nonlocal closing
        closing = True
        loop.remove_reader(fd)
        _wake(future)

    loop.add_reader(fd, _wake, future)
    subscriber._on_close = close
    try:
        await future
    finally:
        if not closing:
            loop.remove_reader(fd)
            subscriber._on_close = None
    if closing:
        raise Closed(errno.EBADF, "this subscriber was closed while a task waited on it")


def batch_or_none(subscriber: "Subscriber", limit: int) -> Optional[List[Any]]:
    """What is there, or None."""
    try:
        return subscriber.recv_many(limit, block=False)
    except Empty:
        return None


async def receive(
    subscriber: "Sleeper", attempt: Callable[[], Any], timeout: Optional[float]
) -> Any:
    """Try until something comes. Timeout: nothing came for that many seconds."""
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    while True:
        received = attempt()
        if received is not None:
            return received
        if deadline is None:
            await ready(subscriber)
            continue
        try:
            await asyncio.wait_for(ready(subscriber), max(0.0, deadline - loop.time()))
        except asyncio.TimeoutError:
            raise Timeout(errno.ETIMEDOUT, "no record came in time") from None


async def done(publisher: "QueuePublisher", timeout: Optional[float]) -> None:
    """Wait until all is done. Timeout: it was not within that many seconds."""
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    fd = publisher.fileno()
    while True:
        try:
            return publisher.wait_done(0)
        except Timeout:
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                raise
        future: "asyncio.Future[None]" = loop.create_future()
        loop.add_reader(fd, _wake, future)
        try:
            await asyncio.wait_for(future, left)
        except asyncio.TimeoutError:
            pass
        finally:
            loop.remove_reader(fd)


async def records(
    subscriber: "Sleeper", attempt: Callable[[], Any], fairness: int = 64
) -> AsyncIterator[Any]:
    """For ever what comes next. Lets other tasks run after that many in a row."""
    in_a_row = 0
    while True:
        record = attempt()
        if record is None:
            await ready(subscriber)
            in_a_row = 0
            continue
        yield record
        in_a_row += 1
        if in_a_row == fairness:
            in_a_row = 0
            await asyncio.sleep(0)
