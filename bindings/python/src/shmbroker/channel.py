# SPDX-License-Identifier: Apache-2.0
"""Channels: named, typed meeting places of publishers and subscribers."""

from typing import TYPE_CHECKING, Any, Optional, Tuple, Type, Union

from shmbroker import _core
from shmbroker.call import Caller, Server
from shmbroker.publisher import Publisher
from shmbroker.queue import QueuePublisher, QueueSubscriber
from shmbroker.schema import ANY, Record, record_from_schema, resolve
from shmbroker.state import StatePublisher, StateSubscriber
from shmbroker.subscriber import Subscriber

if TYPE_CHECKING:
    from shmbroker.client import Client

CREATE, EXCLUSIVE, ANY_SCHEMA, ORDERED, RETAIN = 1, 2, 4, 8, 16
BACKINGS = ("auto", "posix", "sealed")
STREAM, QUEUE, CALL, STATE = 1, 2, 3, 4
PATTERNS = {STREAM: "stream", QUEUE: "queue", CALL: "call", STATE: "state"}
DROP_NEWEST = 1
TRUSTING = 2
LOSSY, NO_HISTORY = 1, 4
FAIL_FAST, CALLER_TRUSTING, SERVER_TRUSTING = 1, 4, 2


class Channel(_core.Channel):
    """A channel that is open. Made by Client.channel(); close it, or use it with `with`."""

    __slots__ = ("name", "record", "arrays", "pattern")

    name: str
    """What it is called."""
    record: Optional[Type[Record]]
    """Class of its records; None: raw bytes."""
    arrays: bool
    """It was opened with a numpy dtype: batches are arrays."""
    pattern: str
    """What it is: stream, queue, call or state."""

    @classmethod
    def _open(
        cls,
        client: "Client",
        name: str,
        schema: Any,
        create: bool,
        exclusive: bool,
        backing: str,
        pattern: int = STREAM,
        retain: bool = False,
        **limits: int,
    ) -> "Channel":
        if backing not in BACKINGS:
            raise ValueError(f"backing is one of {', '.join(BACKINGS)}, not {backing!r}")
        record, arrays = resolve(schema, name)
        flags = (CREATE if create else 0) | (EXCLUSIVE if exclusive else 0)
        flags |= (ANY_SCHEMA if schema is ANY else 0) | (RETAIN if retain else 0)
        flags |= ORDERED if limits.get("ordered") else 0
        self = cls(
            client,
            name,
            record.schema if record else None,
            flags,
            limits.get("lane_len", 0),
            limits["max_publishers"],
            limits["max_subscribers"],
            limits.get("history", 0),
            BACKINGS.index(backing),
            pattern,
            limits.get("max_keys", 0),
            limits.get("value_len", 0),
            limits.get("record_len_max", 0),
            limits.get("arena_len", 0),
            limits.get("inline_len_max", 0),
            limits.get("max_holds", 0),
            limits.get("block_flags", 0),
            limits.get("numa_node", 0),
            limits.get("ttl_ms", 0),
            limits.get("max_fds", 0),
        )
        if schema is ANY and self.schema:
            record = record_from_schema(self.schema)
        self.name = name
        self.record = record
        self.arrays = arrays
        self.pattern = PATTERNS[pattern]
        return self

    @property
    def schema(self) -> Optional[bytes]:
        """The schema table, the same bytes in every language; None: records are raw."""
        return self._table() or None

    def wait_for_publishers(self, n: int = 1, timeout: Optional[float] = None) -> None:
        """Wait until at least n publishers are there. Timeout."""
        self.wait_members(publishers=n, timeout=timeout)

    def wait_for_subscribers(self, n: int = 1, timeout: Optional[float] = None) -> None:
        """Wait until at least n subscribers are there. Timeout."""
        self.wait_members(subscribers=n, timeout=timeout)

    def publisher(
        self,
        *,
        drop_newest: bool = False,
        trusting: bool = False,
        arena_len: int = 0,
        priority: int = 0,
    ) -> Publisher:
        """Start to publish.

        drop_newest: a record that finds no room is dropped and counted; nothing ever waits.
        trusting: subscribers of the same user may map the lane writable. None writes there, but
        nothing stops one that has lost its way; some processors are much faster with it.
        arena_len: so many bytes of blocks are ready from the start; otherwise they come with the
        first record that needs one.
        priority: 0 to 7. As long as there is a record of a publisher with a higher one, subscribers
        receive none of a lower one.

        Denied: policy, also if it does not allow that priority; Error: no place, quota or memory left; NotConnected; Timeout.
        """
        flags = (DROP_NEWEST if drop_newest else 0) | (TRUSTING if trusting else 0)
        return Publisher(self, self.record, flags, arena_len, priority)

    def subscriber(
        self,
        *,
        lossy: bool = False,
        spin: float = 0.0,
        history: Optional[int] = None,
        evict_after: float = 0.0,
        conflate: Union[None, str, Tuple[int, int]] = None,
    ) -> Subscriber:
        """Start to receive: every record that is published from now on, after the channel's history.

        lossy: never hold a publisher back, but be lapped, and count what is lost. spin: seconds
        to poll before sleeping, if records come faster than that; 0 is the library's default.
        history: at most so many earlier records of each publisher; None: as many as the channel
        keeps. evict_after: hold no publisher up for longer than so many seconds without reading;
        it goes on then, recv() raises Evicted once, and this subscriber is lossy for it. 0: never.
        conflate: a field of the records, "side" or "pos.x", or (offset, length) in their bytes. Of
        all records of one publisher that have the same there and wait to be received, receive only
        the newest; stats().conflated counts the others.

        Denied: policy, also if it does not let it hold publishers up for so long; Error: no place,
        quota or memory left; Invalid: lossy and evict_after, or nothing can be conflated here;
        ValueError: no such field; NotConnected; Timeout.
        """
        flags = (LOSSY if lossy else 0) | (NO_HISTORY if history == 0 else 0)
        evict_after_ms = max(1, round(evict_after * 1e3)) if evict_after else 0
        offset, length = self._key(conflate)
        subscriber = Subscriber(
            self,
            self.record,
            flags,
            int(spin * 1e9),
            history or 0,
            0,
            0,
            evict_after_ms,
            offset,
            length,
        )
        subscriber.record = self.record
        subscriber.arrays = self.arrays
        return subscriber

    def _key(self, conflate: Union[None, str, Tuple[int, int]]) -> Tuple[int, int]:
        if conflate is None:
            return 0, 0
        if isinstance(conflate, tuple):
            offset, length = conflate
            if length < 1:
                raise ValueError(f"a key has at least 1 byte, not {length}")
            return offset, length
        within: Any = self.record
        count, offset, length = 1, 0, 0
        for name in conflate.split("."):
            fields = getattr(within, "__fields__", ()) if count == 1 else ()
            field = next((field for field in fields if field.name == name), None)
            if field is None:
                raise ValueError(f"records of {self.name} have no field {conflate!r}")
            within, count, length = field.type, field.count, field.size * field.count
            offset += field.offset
        return offset, length

    def __repr__(self) -> str:
        what = self.record.__schema_name__ if self.record else "raw"
        return f"<shmbroker.Channel {self.name!r} of {what!r}{', closed' if self.closed else ''}>"


class QueueChannel(Channel):
    """A queue that is open. Made by Client.queue()."""

    __slots__ = ()

    def publisher(  # type: ignore[override]
        self, *, drop_newest: bool = False, trusting: bool = False, priority: int = 0
    ) -> QueuePublisher:
        """Start to send records to workers. drop_newest, trusting, priority: as for a stream.

        Denied, Error: no place, quota or memory left; NotConnected; Timeout.
        """
        flags = (DROP_NEWEST if drop_newest else 0) | (TRUSTING if trusting else 0)
        return QueuePublisher(self, self.record, flags, 0, priority)

    def subscriber(  # type: ignore[override]
        self, *, credit: int = 0, max_attempts: int = 0, spin: float = 0.0
    ) -> QueueSubscriber:
        """Start to work.

        credit: of each publisher at most so many records that are not done, 1 to 64; 32 unless
        said. max_attempts: a record that would be handed out more often goes to the queue of the
        dead letters, which is called NAME/dead; 0: no limit. spin: as for a stream.

        Denied, Error: no place, quota or memory left; NotConnected; Timeout.
        """
        subscriber = QueueSubscriber(
            self, self.record, 0, int(spin * 1e9), 0, credit, max_attempts
        )
        subscriber.record = self.record
        subscriber.arrays = self.arrays
        return subscriber


class StateChannel(Channel):
    """A state channel that is open. Made by Client.state()."""

    __slots__ = ()

    def publisher(self) -> StatePublisher:  # type: ignore[override]
        """Start to put values.

        Denied, Error: no place, quota or memory left; NotConnected; Timeout.
        """
        publisher = StatePublisher(self, self.record, 0)
        publisher._keys = {}
        return publisher

    def subscriber(self, *, spin: float = 0.0) -> StateSubscriber:  # type: ignore[override]
        """Start to read values. spin: seconds to poll before sleeping; 0: the library's default.

        Denied, Error: no place, quota or memory left; NotConnected; Timeout.
        """
        subscriber = StateSubscriber(self, self.record, 0, int(spin * 1e9), 0)
        subscriber.record = self.record
        subscriber.arrays = self.arrays
        subscriber._keys = {}
        return subscriber


class CallChannel(Channel):
    """A call channel that is open. Made by Client.calls()."""

    __slots__ = ()

    def _part(self, name: str) -> Optional[Type[Record]]:
        for field in self.record.__fields__ if self.record else ():
            if field.name == name:
                return field.type  # type: ignore[no-any-return]
        return None

    @property
    def request(self) -> Optional[Type[Record]]:
        """Class of its requests; None: bytes."""
        return self._part("request")

    @property
    def reply(self) -> Optional[Type[Record]]:
        """Class of its replies; None: bytes."""
        return self._part("reply")

    def caller(
        self, *, fail_fast: bool = False, trusting: bool = False, spin: float = 0.0
    ) -> Caller:
        """Start to call.

        fail_fast: do not wait for a server if there is none. trusting: servers of the same user may
        map the lanes of requests writable; see Channel.publisher(). spin: seconds to poll before
        sleeping; 0: the library's default.

        Denied, Error: no place, quota or memory left; NotConnected; Timeout.
        """
        flags = (FAIL_FAST if fail_fast else 0) | (CALLER_TRUSTING if trusting else 0)
        return Caller(self, self.request, self.reply, flags, int(spin * 1e9))

    def server(self, *, trusting: bool = False, spin: float = 0.0) -> Server:
        """Start to serve. Arguments and errors as caller()."""
        flags = SERVER_TRUSTING if trusting else 0
        return Server(self, self.reply, self.request, flags, int(spin * 1e9))

    def wait_for_callers(self, n: int = 1, timeout: Optional[float] = None) -> None:
        """Wait until at least n callers are there. Timeout."""
        self.wait_members(publishers=n, timeout=timeout)

    def wait_for_servers(self, n: int = 1, timeout: Optional[float] = None) -> None:
        """Wait until at least n servers are there. Timeout."""
        self.wait_members(subscribers=n, timeout=timeout)
