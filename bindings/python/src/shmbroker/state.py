# SPDX-License-Identifier: Apache-2.0
"""State channels: the latest value of each key."""

from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Tuple, Type, Union

from shmbroker import _core
from shmbroker.schema import Record

if TYPE_CHECKING:
    import numpy

Key = Union[str, bytes]
ANY_KEY = 0xFFFFFFFF


def _bytes(key: Key) -> bytes:
    return key.encode(errors="surrogateescape") if isinstance(key, str) else bytes(key)


def _name(key: bytes) -> str:
    return key.decode(errors="surrogateescape")


class StatePublisher(_core.StatePublisher):
    """Puts the latest values of keys. Made by Channel.publisher() of a state channel.

    A key has to be claimed first; nobody else can put its value until this publisher disclaims it,
    is closed or dies. Values stay. For one thread at a time; close it, or use it with `with`.
    """

    __slots__ = ("_keys",)

    _keys: Dict[bytes, int]

    def claim(self, *keys: Key) -> None:
        """Become the one that puts the values of these keys.

        Busy: another process has claimed one, the sentence names it; Invalid: a key has 1 to 64
        bytes; Error: the channel has max_keys keys; Evicted, NotConnected, Timeout.
        """
        for key in keys:
            name = _bytes(key)
            self._keys[name] = self._claim(name)

    def disclaim(self, *keys: Key) -> None:
        """Let others claim these keys; their values stay. KeyError: not claimed."""
        for key in keys:
            self._disclaim(self._index(key))
            del self._keys[_bytes(key)]

    def put(self, key: Key, value: Any) -> None:
        """Replace the value of a key: a Record, or anything with bytes of the right length.

        Whoever waits for it is woken. Nothing ever waits for subscribers. KeyError: not claimed;
        Invalid: the length; Evicted; after a claim also NotConnected and Timeout.
        """
        self._put(self._index(key), value)

    def erase(self, key: Key) -> None:
        """From now on the key has no value; a change like any other. Errors as put()."""
        self._erase(self._index(key))

    __setitem__ = put
    __delitem__ = erase

    def _index(self, key: Key) -> int:
        try:
            return self._keys[_bytes(key)]
        except KeyError:
            raise KeyError(f"{key!r} is not claimed by this publisher") from None


class StateSubscriber(_core.StateSubscriber):
    """Reads the latest values. Made by Channel.subscriber() of a state channel.

    It is a mapping from keys to values as they are at that moment. After get(), `sequence` is the
    value's version, which counts what was put for that key, and `term` tells the claim under which
    it was put. For one thread at a time; close it, or use it with `with`. In wait sets, and with
    fileno() and arm(), it is ready when a key has changed.
    """

    __slots__ = ("record", "arrays", "_dtype", "_keys")

    record: Optional[Type[Record]]
    """Class of its values; None: raw bytes."""
    arrays: bool
    """Values are numpy scalars, as the channel was opened with a numpy dtype."""
    _dtype: "numpy.dtype[Any]"
    _keys: Dict[bytes, int]

    def get(self, key: Key, default: Any = None) -> Any:
        """The latest value of a key: a Record, or bytes on a raw channel; default: it has none.

        Never waits for its publisher, be it alive, stopped or dead. Empty: it is overwritten each
        time while it is copied, or its publisher has to move first, which it does with its next
        call; CorruptPeer.
        """
        index = self._index(key)
        if index < 0:
            return default
        value = self._value(index)
        return default if value is None else value

    def __getitem__(self, key: Key) -> Any:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key: Key) -> bool:
        return self.get(key) is not None

    def keys(self) -> List[str]:
        """All keys that were ever claimed, with a value or without."""
        return [_name(self._key(index)[0]) for index in range(self._n_keys())]

    def owner(self, key: Key) -> int:
        """Id of the publisher that has claimed a key now; 0: nobody has."""
        index = self._index(key)
        return self._key(index)[1] if index >= 0 else 0

    def snapshot(self) -> Dict[str, Any]:
        """All keys that have a value, with copies of the values.

        Each value is whole; together they are no transaction. Errors as get().
        """
        return {_name(self._key(i)[0]): self._convert(data) for i, data in self._snapshot()}

    def wait(self, key: Optional[Key] = None, timeout: Optional[float] = None) -> None:
        """Wait until a key, or any, has changed since it was last read here, or told of. Timeout.

        KeyError: nobody has ever claimed that key.
        """
        index = ANY_KEY if key is None else self._index(key)
        if index < 0:
            raise KeyError(key)
        self._wait(timeout, index)

    def changed(self) -> Optional[str]:
        """The next key that has changed; None: no key has. Never waits.

        Each is told of once for all its values so far. To a new subscriber all that have one have.
        """
        index = self._next()
        return None if index is None else _name(self._key(index)[0])

    def changes(self, timeout: Optional[float] = None) -> Iterator[Tuple[str, Any]]:
        """For ever the next key that has changed, and its value; None: it was erased.

        Of several changes in a row only the last may be seen. Timeout: nothing has changed for that
        many seconds.
        """
        while True:
            index = self._next()
            if index is None:
                self._wait(timeout, ANY_KEY)
            else:
                yield _name(self._key(index)[0]), self._value(index)

    @property
    def dtype(self) -> "numpy.dtype[Any]":
        """The numpy dtype of the values. TypeError: the channel is raw."""
        if self.record is None:
            raise TypeError("this channel has raw values, which have no dtype")
        return self.record.dtype

    def _index(self, key: Key) -> int:
        name = _bytes(key)
        index = self._keys.get(name, -1)
        if index < 0:
            index = self._find(name)
            if index >= 0:
                self._keys[name] = index
        return index

    def _value(self, index: int) -> Any:
        if not self.arrays:
            return self._get(index)
        data = self._get(index, True)
        return None if data is None else self._convert(data)

    def _convert(self, data: bytes) -> Any:
        if self.record is None:
            return data
        if not self.arrays:
            return self.record.from_buffer(bytearray(data))
        import numpy

        return numpy.frombuffer(data, self.dtype)[0]

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        return iter(self.keys())

    def __len__(self) -> int:
        return self._n_keys()
