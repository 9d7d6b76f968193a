# SPDX-License-Identifier: Apache-2.0
"""Wait sets: one place to wait for many subscribers and fds."""

import select
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Protocol, Tuple, Union

from shmbroker import _core
from shmbroker.subscriber import Subscriber

if TYPE_CHECKING:
    from shmbroker.client import Client


class HasFileno(Protocol):
    """Anything with an fd: a socket, a pipe's end, ..."""

    def fileno(self) -> int:
        """Its fd."""


Member = Union[Subscriber, HasFileno, int]


class WaitSet(_core.WaitSet):
    """Waits for subscribers of a client and for fds. For one thread at a time.

    A subscriber that is in a wait set is used only by its thread.
    """

    __slots__ = ("_members", "_cookies", "_next")

    def __new__(cls, client: "Client") -> "WaitSet":
        """Error: no memory or no fd left."""
        self = super().__new__(cls, client)
        self._members: Dict[int, Any] = {}  # by cookie
        self._cookies: Dict[Any, Tuple[int, int]] = {}  # cookie and fd (-1: a subscriber)
        self._next = 1
        return self

    def add(self, member: Member, events: int = select.POLLIN) -> None:
        """Add a subscriber, or an fd with the events to wait for, as in select.poll().

        Exists: it is in a wait set already; Error.
        """
        cookie = self._next
        if isinstance(member, Subscriber):
            fd = -1
            self._add(member, cookie)
        else:
            fd = member if isinstance(member, int) else member.fileno()
            self._add_fd(fd, events, cookie)
        self._next += 1
        self._members[cookie] = member
        self._cookies[id(member) if fd < 0 else fd] = (cookie, fd)

    def remove(self, member: Member) -> None:
        """Take a member out again. NotFound: it is not in there."""
        if isinstance(member, Subscriber):
            key = id(member)
        else:
            key = member if isinstance(member, int) else member.fileno()
        if isinstance(member, Subscriber) and key in self._cookies:
            self._remove(member)
        elif not isinstance(member, Subscriber):
            self._remove_fd(key)
        else:
            raise KeyError("this subscriber is not in this wait set")
        cookie, _ = self._cookies.pop(key)
        del self._members[cookie]

    def wait(self, timeout: Optional[float] = None, max: int = 64) -> List[Tuple[Any, int]]:
        """Wait until some members are ready: a list of (member, events), at most max.

        timeout: seconds, None waits for ever; an empty list when it was up. A subscriber that was
        ready and not emptied is reported again.
        """
        members = self._members
        return [
            (members[cookie], events or select.POLLIN)
            for cookie, events in self._wait(timeout, max)
        ]
