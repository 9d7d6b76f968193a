# SPDX-License-Identifier: Apache-2.0
"""Connections to a broker, and a broker of one's own."""

import os
from typing import Any, Optional, Union

from shmbroker import _core
from shmbroker.channel import (
    CALL,
    QUEUE,
    STATE,
    CallChannel,
    Channel,
    QueueChannel,
    StateChannel,
)


class Client(_core.Client):
    """A connection to a broker. Made by connect(); close it, or use it with `with`."""

    __slots__ = ()

    def channel(
        self,
        name: str,
        schema: Any = None,
        *,
        create: bool = True,
        exclusive: bool = False,
        lane_len: int = 0,
        max_publishers: int = 0,
        max_subscribers: int = 0,
        history: int = 0,
        ttl: float = 0.0,
        ordered: bool = False,
        max_fds: int = 0,
        backing: str = "auto",
        record_len_max: int = 0,
        arena_len: int = 0,
        inline_len_max: int = 0,
        max_holds: int = 0,
        huge_pages: bool = False,
        numa_node: Optional[int] = None,
        retain: bool = False,
    ) -> Channel:
        """Open a channel, creating it if there is none.

        schema: a Record class; a structured numpy dtype (its type is called like the channel); a
        schema table; None: records are raw bytes; ANY: whatever the channel has.
        create: False raises NotFound if there is none. exclusive: Exists if there is one.
        lane_len: bytes of each publisher's ring, a power of two from 4 KiB to 2 GiB; a record can
        have up to half of it. history: so many of the last records of each publisher a late
        subscriber gets, at most as many as fit into half a lane. ttl: subscribers skip records that
        were published longer ago than so many seconds, and count them; 0: none. ordered: all
        subscribers receive the records of all publishers in one order. max_fds: so many file
        descriptors may a record carry, 64 at most. These and the limits count only when the channel
        is created.
        backing: "posix", "sealed", or "auto": posix until its members are of more than one user.
        retain: the channel stays until remove(), and its history is also that of publishers that
        have gone.

        record_len_max: records of up to so many bytes, 1 GiB at most: those of more than
        inline_len_max bytes, 16 KiB unless said, lie in blocks outside of the lanes, and can be
        held. Without it there are no blocks. arena_len: bytes that the blocks of each publisher
        may take, eight times the longest record unless said. max_holds: so many records may each
        subscriber hold, 4 unless said. huge_pages: have blocks in huge pages, as far as the kernel
        gives some; numa_node: on that node.

        SchemaMismatch: the channel has another schema; Denied, Invalid, NotConnected, Timeout.
        """
        return Channel._open(
            self,
            name,
            schema,
            create=create,
            exclusive=exclusive,
            lane_len=lane_len,
            max_publishers=max_publishers,
            max_subscribers=max_subscribers,
            history=history,
            ttl_ms=max(1, round(ttl * 1e3)) if ttl else 0,
            ordered=ordered,
            max_fds=max_fds,
            backing=backing,
            record_len_max=record_len_max,
            arena_len=arena_len,
            inline_len_max=inline_len_max,
            max_holds=max_holds,
            block_flags=1 if huge_pages else 0,
            numa_node=0 if numa_node is None else numa_node + 1,
            retain=retain,
        )

    def queue(
        self,
        name: str,
        schema: Any = None,
        *,
        create: bool = True,
        exclusive: bool = False,
        lane_len: int = 0,
        max_publishers: int = 0,
        max_subscribers: int = 0,
        backing: str = "auto",
    ) -> QueueChannel:
        """Open a queue: each record is for one worker, and is kept until it is done.

        schema, create, exclusive, lane_len, backing: as channel(); a record can have an eighth of
        the lane.

        SchemaMismatch: the channel has another schema, or is no queue; Denied, Invalid,
        NotConnected, Timeout.
        """
        channel = QueueChannel._open(
            self,
            name,
            schema,
            create=create,
            exclusive=exclusive,
            backing=backing,
            pattern=QUEUE,
            lane_len=lane_len,
            max_publishers=max_publishers,
            max_subscribers=max_subscribers,
        )
        assert isinstance(channel, QueueChannel)
        return channel

    def state(
        self,
        name: str,
        schema: Any = None,
        *,
        create: bool = True,
        exclusive: bool = False,
        max_keys: int = 0,
        value_len: int = 0,
        max_publishers: int = 0,
        max_subscribers: int = 0,
        backing: str = "auto",
        retain: bool = False,
    ) -> StateChannel:
        """Open a state channel: the latest value of each key, instead of records.

        schema, create, exclusive, backing, retain: as channel(). max_keys: how many keys there can be over
        the life of the channel, 64 unless said. value_len: bytes of the longest value if there is
        no schema, 232 unless said. These and the limits count only when the channel is created.

        SchemaMismatch: the channel has another schema, or has records; Denied, Invalid,
        NotConnected, Timeout.
        """
        channel = StateChannel._open(
            self,
            name,
            schema,
            create=create,
            exclusive=exclusive,
            retain=retain,
            backing=backing,
            pattern=STATE,
            max_keys=max_keys,
            value_len=value_len,
            max_publishers=max_publishers,
            max_subscribers=max_subscribers,
        )
        assert isinstance(channel, StateChannel)
        return channel

    def calls(
        self,
        name: str,
        schema: Any = None,
        *,
        create: bool = True,
        exclusive: bool = False,
        lane_len: int = 0,
        max_lanes: int = 0,
        max_members: int = 0,
        backing: str = "auto",
        record_len_max: int = 0,
        arena_len: int = 0,
        inline_len_max: int = 0,
        max_holds: int = 0,
        huge_pages: bool = False,
        numa_node: Optional[int] = None,
    ) -> CallChannel:
        """Open a call channel: requests to servers, and their replies.

        schema: a Record class with two fields called request and reply, each of a Record class; with
        one of them, the other is bytes; None: both are; ANY: whatever the channel has. create,
        exclusive, backing: as channel(). lane_len: bytes of each lane, 256 KiB unless said; a
        request or reply can have up to half of it, or record_len_max if that is given: then long
        ones lie in blocks, as channel() says of records, and can be held. max_lanes: there are two
        for each caller of each server; 1024 unless said. max_members: callers and servers; 256
        unless said. These count only when the channel is created.

        SchemaMismatch: the channel has another schema or pattern; Denied, Invalid, NotConnected,
        Timeout.
        """
        channel = CallChannel._open(
            self,
            name,
            schema,
            create=create,
            exclusive=exclusive,
            backing=backing,
            pattern=CALL,
            lane_len=lane_len,
            max_publishers=max_lanes,
            max_subscribers=max_members,
            record_len_max=record_len_max,
            arena_len=arena_len,
            inline_len_max=inline_len_max,
            max_holds=max_holds,
            block_flags=1 if huge_pages else 0,
            numa_node=0 if numa_node is None else numa_node + 1,
        )
        assert isinstance(channel, CallChannel)
        return channel


def connect(
    address: Union[None, str, "os.PathLike[str]"] = None,
    *,
    label: Optional[str] = None,
    key_file: Union[None, str, "os.PathLike[str]"] = None,
    broker_key_file: Union[None, str, "os.PathLike[str]"] = None,
    start: bool = True,
    timeout: Optional[float] = 5.0,
) -> Client:
    """Connect to a broker.

    address: path of its socket; None: $SHMBROKER_ADDRESS, else the system's broker if there is
    one, else the user's own. start: start the user's own if it does not run. label: what shmctl
    shows, at most 32 bytes. key_file, broker_key_file: our private key and its public one.
    timeout: seconds.

    NotConnected: no broker there, or not the one whose key we hold; Timeout; Denied.
    """
    return Client(
        address=None if address is None else os.fspath(address),
        label=label,
        key_file=None if key_file is None else os.fspath(key_file),
        broker_key_file=None if broker_key_file is None else os.fspath(broker_key_file),
        start=start,
        connect_timeout=timeout,
    )


class Broker(_core.Broker):
    """A broker on a thread of this process, for tests, process trees and containers.

    directory: holds its socket, keys and state; None: a new one, removed at the end. Connect with
    connect(address=broker.address), from any process of this user.
    """

    __slots__ = ()

    def connect(self, **options: Any) -> Client:
        """connect() to this broker."""
        return connect(self.address, **options)
