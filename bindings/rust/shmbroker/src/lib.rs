// SPDX-License-Identifier: Apache-2.0
//! Shared-memory channels between processes of any language, on Linux.
//!
//! A [`Client`] opens a named, typed [`Channel`]; any number of [`Publisher`]s and [`Subscriber`]s
//! meet there. Records go through shared memory: sending and receiving are a few stores and
//! loads, without a system call, a lock or a broker in between.
//!
//! ```
//! use shmbroker::{record, Broker, ClientOptions};
//!
//! record! {
//!     #[derive(Debug, PartialEq)]
//!     pub struct Tick: "market.tick" { pub time_ns: u64, pub price: f64 }
//! }
//!
//! # fn main() -> shmbroker::Result<()> {
//! // A broker of this process's own. Without one, Client::open() finds the system's or the user's.
//! let broker = Broker::start()?;
//! let client = ClientOptions::new().address(broker.address()).open()?;
//!
//! let channel = client.channel::<Tick>("market/ticks")?;
//! let subscriber = channel.subscriber()?;
//! let mut publisher = channel.publisher()?;
//!
//! publisher.send(&Tick { time_ns: 1, price: 9.5 })?;
//! assert_eq!(subscriber.recv()?, Some(Tick { time_ns: 1, price: 9.5 }));
//! assert_eq!(subscriber.recv()?, None);
//! # Ok(())
//! # }
//! ```
//!
//! # State
//!
//! On a [`State`] channel there are no records but keys, each with the latest value: one publisher
//! puts it, any number of subscribers read it whenever they like, and it outlives its publisher.
//!
//! # Calls
//!
//! On a [`Calls`] channel a [`Caller`] sends requests, and a [`Server`] answers each with one reply,
//! with several, or with a failure. [`call!`] says what both are.
//!
//! # Types
//!
//! [`record!`] defines the records; a channel of another language or version that describes them
//! differently is refused, and the error names the field. Channels of plain bytes are
//! `Channel<[u8]>`, with the same methods on slices.
//!
//! # Threads
//!
//! [`Client`] and [`Channel`] are `Send + Sync`; clones share one handle. [`Publisher`] and
//! [`Subscriber`], [`Caller`] and [`Server`] are `Send`, not `Sync`: each is used by one thread at a
//! time. A [`WaitSet`] stays on its thread, with what is in it. Whatever is open keeps what it was opened from
//! alive, so drop them in any order.
//!
//! # Memory that others write
//!
//! A publisher can change a record while somebody looks at it: a hostile one at any time, and
//! every one of them under a lossy subscriber that was lapped. So [`Subscriber::recv`] copies, and
//! the views of [`Subscriber::peek`] hand out copies and raw pointers, never a reference. What
//! arrives is a valid value whatever its bytes are, because [`record!`] admits only such types.

#![deny(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]
#![warn(missing_debug_implementations)]

mod broker;
mod call;
mod call_lease;
mod channel;
mod client;
mod error;
mod publisher;
mod queue;
pub mod schema;
mod state;
mod subscriber;
mod waitset;

pub use broker::{Broker, BrokerOptions};
pub use call_lease::{HeldMessage, Lendable, ReplyLoan, RequestLoan};
pub use call::{
    Call, CallId, Caller, CallerOptions, CallerStats, Calls, CallsOptions, Replies, Reply, Request, Server,
    ServerOptions, ServerStats,
};
pub use channel::{Backing, Channel, ChannelInfo, ChannelOptions, Content};
pub use client::{Client, ClientOptions};
pub use error::{Error, ErrorKind, Result};
pub use publisher::{Loan, Publisher, PublisherOptions, PublisherStats};
pub use queue::{Job, Queue, QueueOptions, QueuePublisher, QueueSubscriber, WorkerOptions};
pub use schema::{Bool8, Char, Pad, Record, Schema, SchemaField, Text};
pub use state::{Key, State, StateOptions, StatePublisher, StateSubscriber, Version};
pub use subscriber::{
    Batch, BatchIter, Held, Iter, Received, Records, Sample, Subscriber, SubscriberOptions,
    SubscriberStats, TryIter,
};
pub use waitset::{Ready, WaitSet};

/// Version of the library that is running.
///
/// ```
/// assert!(shmbroker::version().contains('.'));
/// ```
pub fn version() -> &'static str {
    // SAFETY: gives a string that lives as long as the process.
    let text = unsafe { std::ffi::CStr::from_ptr(shmbroker_sys::shmb_version()) };
    text.to_str().unwrap_or("?")
}

/// Refuses a library that lacks functions we need.
fn check_abi() -> Result<()> {
    // SAFETY: takes nothing, gives a number.
    let abi = unsafe { shmbroker_sys::shmb_abi_version() };
    if abi < shmbroker_sys::SHMB_ABI_VERSION {
        let sentence = format!(
            "libshmbroker {} has ABI {}, this program needs {}",
            version(),
            abi,
            shmbroker_sys::SHMB_ABI_VERSION
        );
        return Err(Error::new(error::EPROTONOSUPPORT, sentence));
    }
    Ok(())
}
