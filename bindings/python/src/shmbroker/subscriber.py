# SPDX-License-Identifier: Apache-2.0
"""Subscribers read records; the hot methods are in C, see _core.pyi."""

from typing import TYPE_CHECKING, Any, AsyncIterator, Iterator, List, Optional, Tuple, Type, Union

from shmbroker import _core, aio
from shmbroker.schema import Record

if TYPE_CHECKING:
    import numpy


class Subscriber(_core.Subscriber):
    """Reads the records of all publishers of a channel. Made by Channel.subscriber().

    `for record in subscriber` waits for each record, `async for` too. For one thread at a time;
    close it, or use it with `with`.
    """

    __slots__ = ("record", "arrays", "_dtype")

    record: Optional[Type[Record]]
    """Class of its records; None: raw bytes."""
    arrays: bool
    """batches() gives arrays."""
    _dtype: "numpy.dtype[Any]"

    def recv_array(
        self, max: int = 1000, timeout: Optional[float] = None, block: bool = True
    ) -> "numpy.ndarray[Any, Any]":
        """A structured numpy array with a copy of the next records, at least one, at most max.

        Empty, Timeout, CorruptPeer as recv(); TypeError: the channel is raw.
        """
        import numpy

        array = numpy.empty(max, self.dtype)
        return array[: self.recv_into(array, timeout, block)]

    @property
    def dtype(self) -> "numpy.dtype[Any]":
        """The numpy dtype of the records. TypeError: the channel is raw."""
        try:
            return self._dtype
        except AttributeError:
            if self.record is None:
                raise TypeError("this channel has raw records, which have no dtype") from None
            self._dtype = self.record.dtype
            return self._dtype

    def recv_fds(
        self, timeout: Optional[float] = None, block: bool = True
    ) -> Tuple[Any, List[int]]:
        """The next record and the file descriptors that came with it, as socket.recv_fds().

        They are the caller's to close, and not inherited by programs that are started. What they
        are their publisher says: look before you use one. n_fds_lost says how many are missing.
        Errors as recv(); Error: this process has no room for them, take_fds() can be tried again.
        """
        record = self.recv(timeout, block)
        return record, self.take_fds()

    def batches(
        self, max: int = 1000, timeout: Optional[float] = None
    ) -> Iterator[Union[List[Any], "numpy.ndarray[Any, Any]"]]:
        """For ever the records that have come meanwhile: lists of at most max.

        On a channel that was opened with a numpy dtype, arrays. Timeout: none came for that
        many seconds.
        """
        receive = self.recv_array if self.arrays else self.recv_many
        while True:
            yield receive(max, timeout)

    async def arecv(self, timeout: Optional[float] = None) -> Any:
        """recv() for asyncio: waits without blocking the loop. Timeout, CorruptPeer."""
        return await aio.receive(self, self.try_recv, timeout)

    async def arecv_fds(self, timeout: Optional[float] = None) -> Tuple[Any, List[int]]:
        """recv_fds() for asyncio. Timeout, CorruptPeer."""
        record = await self.arecv(timeout)
        return record, self.take_fds()

    async def abatch(self, max: int = 1000, timeout: Optional[float] = None) -> Any:
        """recv_many() for asyncio. Timeout, CorruptPeer."""
        return await aio.receive(self, lambda: aio.batch_or_none(self, max), timeout)

    def __aiter__(self) -> AsyncIterator[Any]:
        return aio.records(self, self.try_recv)
