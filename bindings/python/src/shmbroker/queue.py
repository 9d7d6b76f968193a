# SPDX-License-Identifier: Apache-2.0
"""Queues: each record is for one worker."""

from types import TracebackType
from typing import Any, AsyncIterator, Iterable, Iterator, List, Optional, Type

from shmbroker import _core, aio
from shmbroker.schema import Record


class QueuePublisher(_core.QueuePublisher):
    """Sends records, each to one worker. Made by Channel.publisher() of a queue.

    Of the workers with credit the one gets a record that has least to do. Full: no worker has
    credit, or the lane is full. For one thread at a time; close it, or use it with `with`.
    """

    __slots__ = ()

    async def await_done(self, timeout: Optional[float] = None) -> None:
        """wait_done() for asyncio: waits without blocking the loop. Timeout, Evicted.

        What a worker leaves that goes meanwhile others get at once.
        """
        await aio.done(self, timeout)


class Job:
    """A record that a worker has taken, and has to say done() or fail() of.

    With `with` it is the record; at the end it is done, on an exception it has failed.
    """

    __slots__ = ("record", "attempt", "_job", "_subscriber")

    record: Any
    """What was sent: a Record, or bytes on a raw channel."""
    attempt: int
    """How often it has been handed to a worker, this time included."""

    def __init__(self, subscriber: "QueueSubscriber", record: Any, job: int, attempt: int) -> None:
        self.record = record
        self.attempt = attempt
        self._job = job
        self._subscriber = subscriber

    def done(self) -> None:
        """The work is done: nobody is given the record again. NotFound: it has ended already."""
        self._subscriber._done((self._job,))

    def fail(self) -> None:
        """The work has failed: the worker gets it again, after what it has not taken yet.

        NotFound: it has ended already.
        """
        self._subscriber._fail(self._job)

    def __enter__(self) -> Any:
        return self.record

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        exception: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if kind is None:
            self.done()
        else:
            self.fail()

    def __repr__(self) -> str:
        return f"<shmbroker.Job {self.record!r}, attempt {self.attempt}>"


class QueueSubscriber(_core.QueueSubscriber):
    """A worker. Made by Channel.subscriber() of a queue.

    `for job in worker` waits for each job, `async for` too. What it has not done when it is closed
    or dies others get. For one thread at a time; close it, or use it with `with`.
    """

    __slots__ = ("record", "arrays")

    record: Optional[Type[Record]]
    """Class of its records; None: raw bytes."""
    arrays: bool
    """It was opened with a numpy dtype."""

    def take(self, timeout: Optional[float] = None, block: bool = True) -> Job:
        """The next record that is for this worker. timeout: seconds, None waits for ever.

        Empty: none there (block=False or timeout=0); Timeout; CorruptPeer; Evicted.
        """
        return Job(self, *self._take(timeout, block))

    def try_take(self) -> Optional[Job]:
        """The next record that is for this worker, or None if there is none. Never waits."""
        taken = self._try_take()
        return None if taken is None else Job(self, *taken)

    def take_many(
        self, max: int = 1000, timeout: Optional[float] = None, block: bool = True
    ) -> List[Job]:
        """A list of jobs, at least one: what is there, at most max. Errors as take()."""
        jobs = [self.take(timeout, block)]
        while len(jobs) < max:
            job = self.try_take()
            if job is None:
                break
            jobs.append(job)
        return jobs

    def done_many(self, jobs: Iterable[Job]) -> None:
        """The work on all of these is done. NotFound: one has ended, and nothing has happened."""
        self._done([job._job for job in jobs])

    async def atake(self, timeout: Optional[float] = None) -> Job:
        """take() for asyncio: waits without blocking the loop. Timeout, CorruptPeer."""
        job = await aio.receive(self, self.try_take, timeout)
        assert isinstance(job, Job)
        return job

    def __iter__(self) -> Iterator[Job]:  # type: ignore[override]
        return self

    def __next__(self) -> Job:
        return self.take()

    def __aiter__(self) -> AsyncIterator[Job]:
        return aio.records(self, self.try_take)
