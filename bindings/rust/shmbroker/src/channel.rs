// SPDX-License-Identifier: Apache-2.0
//! Named, typed meeting places.

use std::fmt;
use std::marker::PhantomData;
use std::mem::{size_of, MaybeUninit};
use std::os::raw::{c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use shmbroker_sys as sys;

use crate::broker::no_handle;
use crate::client::{Client, ClientShared, Handle};
use crate::error::{check, length, nanoseconds, Error, Result, EINVAL, ETIMEDOUT};
use crate::publisher::{Publisher, PublisherOptions};
use crate::schema::{Record, Schema};
use crate::state;
use crate::subscriber::{Receive, Subscriber, SubscriberOptions};

mod sealed {
    pub trait Sealed {}
    impl<T: super::Record> Sealed for T {}
    impl Sealed for [u8] {}
}

/// What a channel can carry: a [`Record`], or `[u8]` for untyped records of any length.
pub trait Content: sealed::Sealed + 'static {
    /// A record that has been copied out: the type itself, or `Vec<u8>`.
    type Owned;

    /// The table that the channel must have.
    const SCHEMA: Option<&'static [u8]>;

    #[doc(hidden)]
    fn receive(subscriber: &Subscriber<Self>, receive: Receive) -> Result<Option<Self::Owned>>;

    #[doc(hidden)]
    fn get(subscriber: &Subscriber<Self>, key: u32) -> Result<Option<Self::Owned>>;

    #[doc(hidden)]
    fn as_payload(&self) -> &[u8];

    #[doc(hidden)]
    fn from_payload(bytes: &[u8]) -> Option<Self::Owned>;
}

impl<T: Record> Content for T {
    type Owned = T;
    const SCHEMA: Option<&'static [u8]> = Some(T::SCHEMA);

    fn receive(subscriber: &Subscriber<T>, receive: Receive) -> Result<Option<T>> {
        subscriber.record_by(receive)
    }

    fn get(subscriber: &Subscriber<T>, key: u32) -> Result<Option<T>> {
        state::get_record(subscriber, key)
    }

    fn as_payload(&self) -> &[u8] {
        self.as_bytes()
    }

    fn from_payload(bytes: &[u8]) -> Option<T> {
        T::from_bytes(bytes)
    }
}

impl Content for [u8] {
    type Owned = Vec<u8>;
    const SCHEMA: Option<&'static [u8]> = None;

    fn receive(subscriber: &Subscriber<[u8]>, receive: Receive) -> Result<Option<Vec<u8>>> {
        subscriber.vec_by(receive)
    }

    fn get(subscriber: &Subscriber<[u8]>, key: u32) -> Result<Option<Vec<u8>>> {
        state::get_vec(subscriber, key)
    }

    fn as_payload(&self) -> &[u8] {
        self
    }

    fn from_payload(bytes: &[u8]) -> Option<Vec<u8>> {
        Some(bytes.to_vec())
    }
}

/// How to open a channel. Sizes and limits count when it is created.
///
/// ```
/// # use shmbroker::{Broker, ChannelOptions, ClientOptions, ErrorKind};
/// # fn main() -> shmbroker::Result<()> {
/// # let broker = Broker::start()?;
/// # let client = ClientOptions::new().address(broker.address()).open()?;
/// let frames = ChannelOptions::new()
///     .exclusive(true)
///     .lane_len(16 << 20)
///     .max_publishers(1)
///     .open_bytes(&client, "camera/frames")?;
/// assert_eq!(frames.info()?.lane_len, 16 << 20);
///
/// let existing = ChannelOptions::new().create(false);
/// assert_eq!(existing.open_bytes(&client, "nobody").unwrap_err().kind(), ErrorKind::NotFound);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ChannelOptions {
    flags: u32,
    lane_len: u32,
    max_publishers: u32,
    max_subscribers: u32,
    history: u32,
    backing: Backing,
    pattern: u32,
    pub(crate) max_keys: u32,
    pub(crate) value_len: u32,
    record_len_max: u32,
    arena_len: u64,
    inline_len_max: u32,
    max_holds: u32,
    block_flags: u32,
    numa_node: u32,
    ttl: Option<Duration>,
    max_fds: u32,
}

/// What lies behind the memory of a channel's members; see shmbroker(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backing {
    /// Posix, until its members are of more than one user; then sealed.
    #[default]
    Auto = 0,
    /// Named objects in /dev/shm.
    Posix = 1,
    /// Anonymous memory that nobody can truncate.
    Sealed = 2,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        ChannelOptions::new()
    }
}

impl ChannelOptions {
    /// The defaults: create it if there is none.
    pub fn new() -> ChannelOptions {
        ChannelOptions {
            flags: sys::SHMB_CHANNEL_CREATE,
            lane_len: 0,
            max_publishers: 0,
            max_subscribers: 0,
            history: 0,
            backing: Backing::Auto,
            pattern: sys::SHMB_CHANNEL_STREAM,
            max_keys: 0,
            value_len: 0,
            record_len_max: 0,
            arena_len: 0,
            inline_len_max: 0,
            max_holds: 0,
            block_flags: 0,
            numa_node: 0,
            ttl: None,
            max_fds: 0,
        }
    }

    /// Of a queue.
    pub(crate) fn queue() -> ChannelOptions {
        ChannelOptions { pattern: sys::SHMB_CHANNEL_QUEUE, ..ChannelOptions::new() }
    }

    /// Of a state channel.
    pub(crate) fn state() -> ChannelOptions {
        ChannelOptions { pattern: sys::SHMB_CHANNEL_STATE, ..ChannelOptions::new() }
    }

    /// Of a call channel.
    pub(crate) fn calls() -> ChannelOptions {
        ChannelOptions { pattern: sys::SHMB_CHANNEL_CALL, ..ChannelOptions::new() }
    }

    /// Whether to create it if there is none; yes otherwise.
    pub fn create(mut self, yes: bool) -> ChannelOptions {
        self.set(sys::SHMB_CHANNEL_CREATE, yes);
        self
    }

    /// Whether it must be new.
    pub fn exclusive(mut self, yes: bool) -> ChannelOptions {
        self.set(sys::SHMB_CHANNEL_EXCLUSIVE, yes);
        self
    }

    /// Whether a channel of bytes may have any schema; [`Channel::schema`] tells it. Its records
    /// are then handled as their bytes. Channels of records always check theirs.
    pub fn any_schema(mut self, yes: bool) -> ChannelOptions {
        self.set(sys::SHMB_CHANNEL_ANY_SCHEMA, yes);
        self
    }

    /// Whether the channel stays, until [`Client::remove`], although nobody has it open. Its history
    /// then is also that of publishers that have gone.
    pub fn retain(mut self, yes: bool) -> ChannelOptions {
        self.set(sys::SHMB_CHANNEL_RETAIN, yes);
        self
    }

    /// Bytes of each publisher's ring: a power of two from 4 KiB to 2 GiB, 1 MiB otherwise. A
    /// record can have up to half of it, less 16 bytes.
    pub fn lane_len(mut self, bytes: u32) -> ChannelOptions {
        self.lane_len = bytes;
        self
    }

    /// At most so many publishers; 64 otherwise.
    pub fn max_publishers(mut self, count: u32) -> ChannelOptions {
        self.max_publishers = count;
        self
    }

    /// At most so many subscribers; 64 otherwise.
    pub fn max_subscribers(mut self, count: u32) -> ChannelOptions {
        self.max_subscribers = count;
        self
    }

    /// How many of the last records of each publisher a late subscriber gets, at most as many as
    /// fit into half a lane; none otherwise.
    pub fn history(mut self, records: u32) -> ChannelOptions {
        self.history = records;
        self
    }

    /// How long its records live: subscribers skip those that were published longer ago, and count
    /// them. At least a millisecond; otherwise they do not expire.
    ///
    /// ```
    /// # use shmbroker::{Broker, ChannelOptions, ClientOptions};
    /// # use std::{thread::sleep, time::Duration};
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let quotes = ChannelOptions::new().ttl(Duration::from_millis(5)).open_bytes(&client, "quotes")?;
    /// let subscriber = quotes.subscriber()?;
    /// quotes.publisher()?.send(b"old")?;
    /// sleep(Duration::from_millis(20));
    /// assert_eq!(subscriber.recv_vec()?, None);
    /// assert_eq!(subscriber.stats()?.expired, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn ttl(mut self, time: Duration) -> ChannelOptions {
        self.ttl = Some(time);
        self
    }

    /// So many file descriptors may a record carry, at most 64; none otherwise. See
    /// [`Publisher::send_fds`](crate::Publisher::send_fds).
    pub fn max_fds(mut self, fds: u32) -> ChannelOptions {
        self.max_fds = fds;
        self
    }

    /// Whether all subscribers receive the records of all publishers in one order.
    ///
    /// ```
    /// # use shmbroker::{Broker, ChannelOptions, ClientOptions};
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let journal = ChannelOptions::new().ordered(true).open_bytes(&client, "journal")?;
    /// let subscriber = journal.subscriber()?;
    /// let (mut a, mut b) = (journal.publisher()?, journal.publisher()?);
    /// a.send(b"one")?;
    /// b.send(b"two")?;
    /// a.send(b"three")?;
    /// assert_eq!(subscriber.recv_vec()?.unwrap(), b"one");
    /// assert_eq!(subscriber.recv_vec()?.unwrap(), b"two");
    /// assert_eq!(subscriber.recv_vec()?.unwrap(), b"three");
    /// # Ok(())
    /// # }
    /// ```
    pub fn ordered(mut self, yes: bool) -> ChannelOptions {
        self.set(sys::SHMB_CHANNEL_ORDERED, yes);
        self
    }

    /// What lies behind its memory; rules of the broker may decide otherwise.
    pub fn backing(mut self, backing: Backing) -> ChannelOptions {
        self.backing = backing;
        self
    }

    /// Records of up to so many bytes, 1 GiB at most: long ones then lie in blocks outside of the
    /// lanes. Without this there are no blocks.
    ///
    /// ```
    /// # use shmbroker::{Broker, ChannelOptions, ClientOptions};
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let frames = ChannelOptions::new().record_len_max(8 << 20).open_bytes(&client, "frames")?;
    /// let subscriber = frames.subscriber()?;
    /// let mut publisher = frames.publisher()?;
    /// publisher.send(&vec![1; 8 << 20])?;
    /// assert_eq!(subscriber.peek()?.unwrap().len(), 8 << 20);
    /// # Ok(())
    /// # }
    /// ```
    pub fn record_len_max(mut self, bytes: u32) -> ChannelOptions {
        self.record_len_max = bytes;
        self
    }

    /// Bytes that the blocks of each publisher may take; eight times the longest record otherwise,
    /// but 4 MiB at least.
    pub fn arena_len(mut self, bytes: u64) -> ChannelOptions {
        self.arena_len = bytes;
        self
    }

    /// Longer records lie in blocks, others in the lane; 16 KiB otherwise, or as much as fits.
    pub fn inline_len_max(mut self, bytes: u32) -> ChannelOptions {
        self.inline_len_max = bytes;
        self
    }

    /// So many records may each subscriber hold, at most 64; 4 otherwise.
    pub fn max_holds(mut self, count: u32) -> ChannelOptions {
        self.max_holds = count;
        self
    }

    /// Whether blocks are to be in huge pages, as far as the kernel gives some.
    pub fn huge_pages(mut self, yes: bool) -> ChannelOptions {
        let flag = sys::SHMB_BLOCKS_HUGE_PAGES;
        self.block_flags = if yes { self.block_flags | flag } else { self.block_flags & !flag };
        self
    }

    /// The NUMA node that the memory of blocks is to come from; any otherwise.
    pub fn numa_node(mut self, node: u32) -> ChannelOptions {
        self.numa_node = node.saturating_add(1);
        self
    }

    fn set(&mut self, flag: u32, yes: bool) {
        self.flags = if yes { self.flags | flag } else { self.flags & !flag };
    }

    /// Opens the channel.
    pub fn open<T: Content + ?Sized>(&self, client: &Client, name: &str) -> Result<Channel<T>> {
        let any_schema = self.flags & sys::SHMB_CHANNEL_ANY_SCHEMA != 0;
        if any_schema && T::SCHEMA.is_some() {
            return Err(Error::new(EINVAL, "only a channel of bytes can have any schema"));
        }
        self.open_table(client, name, T::SCHEMA)
    }

    /// Opens the channel with this table, whatever is made of its records.
    pub(crate) fn open_table<T: ?Sized>(
        &self,
        client: &Client,
        name: &str,
        table: Option<&[u8]>,
    ) -> Result<Channel<T>> {
        let options = sys::shmb_channel_options {
            options_len: size_of::<sys::shmb_channel_options>() as u32,
            flags: self.flags,
            schema: table.map_or(ptr::null(), |table| table.as_ptr() as *const c_void),
            schema_len: length(table.map_or(0, <[u8]>::len)),
            lane_len: self.lane_len,
            max_publishers: self.max_publishers,
            max_subscribers: self.max_subscribers,
            history: self.history,
            backing: self.backing as u32,
            pattern: self.pattern,
            max_keys: self.max_keys,
            value_len: self.value_len,
            record_len_max: self.record_len_max,
            arena_len: self.arena_len,
            inline_len_max: self.inline_len_max,
            max_holds: self.max_holds,
            block_flags: self.block_flags,
            numa_node: self.numa_node,
            ttl_ms: self
                .ttl
                .map_or(0, |time| u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1)),
            max_fds: self.max_fds,
        };
        let mut handle = ptr::null_mut();
        // SAFETY: the client is open; name and options live until it returns.
        check(client.shared.handle.with(|client| unsafe {
            let name_ptr = name.as_ptr() as *const c_char;
            sys::shmb_channel_open(client, name_ptr, length(name.len()), &options, &mut handle)
        }))?;
        let handle = Handle::new(NonNull::new(handle).ok_or_else(no_handle)?);
        let shared = Arc::new(ChannelShared { handle, client: client.shared.clone() });
        Ok(Channel { shared, content: PhantomData })
    }

    /// Opens the channel for untyped records.
    pub fn open_bytes(&self, client: &Client, name: &str) -> Result<Channel<[u8]>> {
        self.open(client, name)
    }
}

/// A named meeting place of publishers and subscribers. Clones share it.
///
/// A channel lives while some process has it open.
///
/// ```
/// # use shmbroker::{Broker, ClientOptions};
/// # fn main() -> shmbroker::Result<()> {
/// # let broker = Broker::start()?;
/// # let client = ClientOptions::new().address(broker.address()).open()?;
/// let channel = client.channel_bytes("log")?;
/// let _publisher = channel.publisher()?;
/// assert_eq!(channel.info()?.publishers, 1);
/// # Ok(())
/// # }
/// ```
pub struct Channel<T: ?Sized> {
    pub(crate) shared: Arc<ChannelShared>,
    content: PhantomData<fn(&T)>,
}

#[derive(Debug)]
pub(crate) struct ChannelShared {
    pub(crate) handle: Handle<sys::shmb_channel>,
    // Dropped after our own drop() has closed the channel.
    pub(crate) client: Arc<ClientShared>,
}

impl Drop for ChannelShared {
    fn drop(&mut self) {
        // SAFETY: open; its publishers and subscribers held a reference, and have closed.
        self.handle.with(|channel| unsafe { sys::shmb_channel_close(channel) });
    }
}

impl<T: ?Sized> Clone for Channel<T> {
    fn clone(&self) -> Self {
        Channel { shared: self.shared.clone(), content: PhantomData }
    }
}

impl<T: ?Sized> fmt::Debug for Channel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("info", &self.info()).finish()
    }
}

/// What a channel is and who is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelInfo {
    /// Bytes of each publisher's ring.
    pub lane_len: u32,
    /// Bytes of the largest record.
    pub record_len_max: u32,
    /// Bytes of every record, 0 if untyped.
    pub record_len: u32,
    /// Limit.
    pub max_publishers: u32,
    /// Limit.
    pub max_subscribers: u32,
    /// How many there are now.
    pub publishers: u32,
    /// How many there are now.
    pub subscribers: u32,
    /// How many of the last records of each publisher a late subscriber gets.
    pub history: u32,
    /// What is made for its members from now on: posix or sealed.
    pub backing: Backing,
    /// How many keys a state channel can have; 0: it is none.
    pub max_keys: u32,
    /// Bytes of the longest value of a state channel.
    pub value_len_max: u32,
    /// Bytes that the blocks of each publisher may take; 0: there are no blocks.
    pub arena_len: u64,
    /// Longer records lie in blocks.
    pub inline_len_max: u32,
    /// So many records may each subscriber hold.
    pub max_holds: u32,
    /// How long its records live, `None`: they do not expire.
    pub ttl: Option<Duration>,
    /// Whether the records of all publishers have one order.
    pub ordered: bool,
    /// So many file descriptors may a record carry.
    pub max_fds: u32,
    /// It stays until it is removed.
    pub retained: bool,
    /// Bytes of every request of a call channel, 0 if untyped.
    pub request_len: u32,
    /// Bytes of every reply of a call channel, 0 if untyped.
    pub reply_len: u32,
}

/// How long one thread keeps others from a channel while it waits for members.
const TURN: Duration = Duration::from_millis(5);

impl<T: Content + ?Sized> Channel<T> {
    /// Starts to publish.
    pub fn publisher(&self) -> Result<Publisher<T>> {
        PublisherOptions::new().open(self)
    }

    /// Starts to receive, reliably: publishers wait for this subscriber. See
    /// [`SubscriberOptions`] for the other way.
    ///
    /// It gets every record whose send begins after this has returned, and of each publisher in
    /// order; before them the channel's history, if it has one.
    pub fn subscriber(&self) -> Result<Subscriber<T>> {
        SubscriberOptions::new().open(self)
    }
}

impl<T: ?Sized> Channel<T> {
    /// What the channel is and who is there.
    pub fn info(&self) -> Result<ChannelInfo> {
        // SAFETY: numbers, for which zeroes will do.
        let mut info: sys::shmb_channel_info = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: open, and as many bytes as we say.
        check(self.shared.handle.with(|channel| unsafe {
            let len = size_of::<sys::shmb_channel_info>() as u32;
            sys::shmb_channel_info(channel, &mut info, len)
        }))?;
        Ok(ChannelInfo {
            lane_len: info.lane_len,
            record_len_max: info.record_len_max,
            record_len: info.record_len,
            max_publishers: info.max_publishers,
            max_subscribers: info.max_subscribers,
            publishers: info.n_publishers,
            subscribers: info.n_subscribers,
            history: info.history,
            backing: match info.backing {
                sys::SHMB_BACKING_SEALED => Backing::Sealed,
                _ => Backing::Posix,
            },
            max_keys: info.max_keys,
            value_len_max: info.value_len_max,
            arena_len: info.arena_len,
            inline_len_max: info.inline_len_max,
            max_holds: info.max_holds,
            ttl: match info.ttl_ms {
                0 => None,
                ms => Some(Duration::from_millis(u64::from(ms))),
            },
            ordered: info.ordered != 0,
            max_fds: info.max_fds,
            retained: info.retained != 0,
            request_len: info.request_len,
            reply_len: info.reply_len,
        })
    }

    /// What its records are, `None` if they are untyped.
    ///
    /// ```
    /// # use shmbroker::{Broker, ChannelOptions, ClientOptions};
    /// shmbroker::record! { pub struct Point: "doc.point" { pub x: f32, pub y: f32 } }
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let _points = client.channel::<Point>("points")?;
    /// // Somebody else, who does not know the type:
    /// let channel = ChannelOptions::new().any_schema(true).open_bytes(&client, "points")?;
    /// assert_eq!(channel.schema()?.unwrap().fields()[1].name, "y");
    /// # Ok(())
    /// # }
    /// ```
    pub fn schema(&self) -> Result<Option<Schema>> {
        let mut bytes = vec![0u8; 64 * (1 + sys::SHMB_SCHEMA_FIELDS_MAX as usize)];
        // SAFETY: open, and as many bytes as we say.
        let len = check(self.shared.handle.with(|channel| unsafe {
            let cap = length(bytes.len());
            sys::shmb_channel_schema(channel, bytes.as_mut_ptr() as *mut c_void, cap)
        }))?;
        if len == 0 {
            return Ok(None);
        }
        bytes.truncate(len);
        Schema::from_bytes(bytes).map(Some)
    }

    /// Waits until there are at least so many publishers; `None` waits for ever.
    pub fn wait_for_publishers(&self, n: u32, timeout: impl Into<Option<Duration>>) -> Result<()> {
        self.wait_members(n, 0, timeout)
    }

    /// Waits until there are at least so many subscribers; `None` waits for ever.
    pub fn wait_for_subscribers(&self, n: u32, timeout: impl Into<Option<Duration>>) -> Result<()> {
        self.wait_members(0, n, timeout)
    }

    /// Waits until there are at least so many publishers and subscribers; `None` waits for ever.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// # use std::time::Duration;
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let channel = client.channel_bytes("log")?;
    /// let _subscriber = channel.subscriber()?;
    /// channel.wait_members(0, 1, Duration::from_secs(1))?;
    /// assert!(channel.wait_members(1, 0, Duration::ZERO).unwrap_err().is_would_block());
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait_members(
        &self,
        publishers: u32,
        subscribers: u32,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<()> {
        let deadline = Deadline::after(timeout.into());
        loop {
            // In turns: the member we wait for may have to come through this very channel.
            let left = deadline.left();
            let turn = left.map_or(TURN, |left| left.min(TURN));
            // SAFETY: open.
            let result = check(self.shared.handle.with(|channel| unsafe {
                let timeout_ns = nanoseconds(Some(turn));
                sys::shmb_channel_wait_members(channel, publishers, subscribers, timeout_ns)
            }));
            match result {
                Err(error) if error.errno() == ETIMEDOUT && left != Some(turn) => {
                    thread::sleep(Duration::from_micros(50));
                }
                other => return other.map(drop),
            }
        }
    }
}

/// When a timeout ends.
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    pub(crate) fn after(timeout: Option<Duration>) -> Deadline {
        // One that no clock can tell is for ever.
        Deadline(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    /// `None`: for ever.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.0.map(|end| end.saturating_duration_since(Instant::now()))
    }
}
