# SPDX-License-Identifier: Apache-2.0
"""Wait sets: one place to wait for many subscribers, callers, servers and fds."""

import errno
import select
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Protocol, Tuple, Union

from shmbroker import _core
from shmbroker.call import Caller, Server
from shmbroker.errors import NotFound
from shmbroker.queue import QueueSubscriber
from shmbroker.state import StateSubscriber
from shmbroker.subscriber import Subscriber

if TYPE_CHECKING:
    from shmbroker.client import Client


class HasFileno(Protocol):
    """Anything with an fd: a socket, a pipe's end, ..."""

    def fileno(self) -> int:
        """Its fd."""


Member = Union[Subscriber, QueueSubscriber, StateSubscriber, Caller, Server, HasFileno, int]
_HANDLES = (_core.Subscriber, _core.Caller, _core.Server)


def _key(member: Member) -> int:
    if isinstance(member, _HANDLES):
        return -id(member)
    return member if isinstance(member, int) else member.fileno()


class WaitSet(_core.WaitSet):
    """Waits for subscribers, callers and servers of a client, and for fds. For one thread at a time.

    What is in a wait set is used only by its thread.
    """

    __slots__ = ("_members", "_cookies", "_next")

    _members: Dict[int, Any]  # by cookie
    _cookies: Dict[int, int]  # by fd; of a handle, by its negative id
    _next: int

    def __new__(cls, client: "Client") -> "WaitSet":
        """Error: no memory or no fd left."""
        self = super().__new__(cls, client)
        self._members = {}
        self._cookies = {}
        self._next = 1
        return self

    def add(self, member: Member, events: int = select.POLLIN) -> None:
        """Add a subscriber, caller or server, or an fd with the events to wait for, as in select.poll().

        A caller is ready when Caller.recv_any(timeout=0) has something, be it that a call has ended;
        a server when Server.recv(timeout=0) has. Now and then there is nothing then: Timeout.

        Exists: it is in a wait set already; Error.
        """
        cookie = self._next
        key = _key(member)
        if isinstance(member, _HANDLES):
            self._add(member, cookie)
        else:
            self._add_fd(key, events, cookie)
        self._next += 1
        self._members[cookie] = member
        self._cookies[key] = cookie

    def remove(self, member: Member) -> None:
        """Take a member out again. NotFound: it is not in there."""
        key = _key(member)
        if key not in self._cookies:
            raise NotFound(errno.ENOENT, f"{member!r} is not in this wait set")
        if isinstance(member, _HANDLES):
            self._remove(member)
        else:
            self._remove_fd(key)
        del self._members[self._cookies.pop(key)]

    def wait(self, timeout: Optional[float] = None, max: int = 64) -> List[Tuple[Any, int]]:
        """Wait until some members are ready: a list of (member, events), at most max.

        timeout: seconds, None waits for ever; an empty list when it was up. What was ready and not
        emptied is reported again.
        """
        members = self._members
        return [
            (members[cookie], events or select.POLLIN)
            for cookie, events in self._wait(timeout, max)
        ]
