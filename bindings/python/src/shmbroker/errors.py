# SPDX-License-Identifier: Apache-2.0
"""What can go wrong. Every exception carries the library's sentence, and an errno value."""


class Error(OSError):
    """A call of libshmbroker failed. `errno` says how, `str()` gives the library's sentence."""

    def __str__(self) -> str:
        return str(self.strerror)


class Timeout(Error, TimeoutError):
    """The time was up."""


class Full(Error, BlockingIOError):
    """A reliable subscriber is a whole ring behind, or no worker has credit: there is no room."""


class Empty(Error, BlockingIOError):
    """There is no record to receive now."""


class SchemaMismatch(Error, TypeError):
    """The channel's records are laid out differently; the sentence names the first field."""


class CorruptPeer(Error):
    """A publisher wrote impossible bytes. It is read no more, the others are."""


class Evicted(Error):
    """The broker has thrown this publisher out."""


class Overwritten(Error):
    """A lossy subscriber was lapped while it peeked: what it saw is void, and counted as lost."""


class Forked(Error):
    """The handle was made before fork(), and this is the child."""


class NotConnected(Error, ConnectionError):
    """There is no broker, or it is not the one whose key we hold."""


class NotFound(Error, FileNotFoundError):
    """There is no such channel."""


class Exists(Error, FileExistsError):
    """There is one already."""


class Denied(Error, PermissionError):
    """The broker's policy, or the mode of its files, says no."""


class Invalid(Error, ValueError):
    """An impossible argument: a bad name, limit, schema or length."""


class Busy(Error):
    """Somebody else has claimed the key, or another thread is using the object."""


class RemoteError(Error):
    """The server has failed. `code` is its code, `str()` tells its sentence."""

    code: int = 0


class PeerGone(Error, ConnectionResetError):
    """The server has gone, and nobody knows whether it worked on the request; or the caller has."""


class NoServer(Error, ConnectionError):
    """The channel has no server."""


class Cancelled(Error):
    """The caller does not wait for the reply any more."""


class Closed(Error, ValueError):
    """The object has been closed."""
