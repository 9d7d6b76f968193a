# SPDX-License-Identifier: Apache-2.0
"""Shared-memory channels between processes of any language.

::

    import shmbroker

    class Tick(shmbroker.Record, name="market.tick"):
        time_ns: shmbroker.u64
        price: shmbroker.f64

    with shmbroker.connect() as client:
        with client.channel("market/ticks", Tick) as channel:
            with channel.publisher() as publisher:
                publisher.send(Tick(time_ns=1, price=2.0))

Names and meanings are those of the C library: see shmbroker(7). All times are in seconds.
"""

from shmbroker._core import (
    CallerStats,
    ChannelInfo,
    Loan,
    Peek,
    PublisherStats,
    ServerStats,
    SubscriberStats,
    abi_version,
    version,
)
from shmbroker.call import Call, Caller, Request, Server
from shmbroker.channel import CallChannel, Channel, QueueChannel, StateChannel
from shmbroker.client import Broker, Client, connect
from shmbroker.errors import (
    Busy,
    Cancelled,
    Closed,
    CorruptPeer,
    Denied,
    Empty,
    Error,
    Evicted,
    Exists,
    Forked,
    Full,
    Invalid,
    NoServer,
    NotConnected,
    NotFound,
    Overwritten,
    PeerGone,
    RemoteError,
    SchemaMismatch,
    Timeout,
)
from shmbroker.publisher import Publisher
from shmbroker.queue import Job, QueuePublisher, QueueSubscriber
from shmbroker.schema import (
    ANY,
    Array,
    Field,
    Record,
    bool_,
    char,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
    record_from_dtype,
    record_from_schema,
    u8,
    u16,
    u32,
    u64,
)
from shmbroker.state import StatePublisher, StateSubscriber
from shmbroker.subscriber import Subscriber
from shmbroker.waitset import WaitSet

__version__ = "0.1.0"

__all__ = [
    "ANY",
    "Array",
    "Broker",
    "Busy",
    "Call",
    "CallChannel",
    "Caller",
    "CallerStats",
    "Cancelled",
    "Channel",
    "ChannelInfo",
    "Client",
    "Closed",
    "CorruptPeer",
    "Denied",
    "Empty",
    "Error",
    "Evicted",
    "Exists",
    "Field",
    "Forked",
    "Full",
    "Invalid",
    "Job",
    "Loan",
    "NoServer",
    "NotConnected",
    "NotFound",
    "Overwritten",
    "Peek",
    "PeerGone",
    "Publisher",
    "PublisherStats",
    "QueueChannel",
    "QueuePublisher",
    "QueueSubscriber",
    "Record",
    "RemoteError",
    "Request",
    "SchemaMismatch",
    "Server",
    "ServerStats",
    "StateChannel",
    "StatePublisher",
    "StateSubscriber",
    "Subscriber",
    "SubscriberStats",
    "Timeout",
    "WaitSet",
    "abi_version",
    "bool_",
    "char",
    "connect",
    "f32",
    "f64",
    "i16",
    "i32",
    "i64",
    "i8",
    "record_from_dtype",
    "record_from_schema",
    "u16",
    "u32",
    "u64",
    "u8",
    "version",
]
