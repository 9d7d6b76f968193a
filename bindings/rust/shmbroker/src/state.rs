// SPDX-License-Identifier: Apache-2.0
//! Latest values by key.

use std::fmt;
use std::mem::{size_of, MaybeUninit};
use std::os::raw::c_void;
use std::time::Duration;

use shmbroker_sys as sys;

use crate::channel::{Backing, Channel, ChannelInfo, ChannelOptions, Content};
use crate::client::Client;
use crate::error::{
    check, check_unless, length, nanoseconds, Error, Result, EAGAIN, EBADMSG, EMSGSIZE, ENODATA,
    ENOENT, ETIMEDOUT,
};
use crate::publisher::{Publisher, PublisherStats};
use crate::schema::{Record, Schema};
use crate::subscriber::{Subscriber, SubscriberStats};

/// Bytes of the longest key.
const KEY_LEN_MAX: usize = 64;

/// How to open a state channel. Sizes and limits count when it is created.
///
/// ```
/// # use shmbroker::{Broker, ClientOptions, StateOptions};
/// # fn main() -> shmbroker::Result<()> {
/// # let broker = Broker::start()?;
/// # let client = ClientOptions::new().address(broker.address()).open()?;
/// let settings = StateOptions::new().max_keys(1000).value_len(64).open_bytes(&client, "settings")?;
/// assert_eq!(settings.info()?.max_keys, 1000);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct StateOptions {
    channel: ChannelOptions,
}

impl Default for StateOptions {
    fn default() -> Self {
        StateOptions::new()
    }
}

impl StateOptions {
    /// The defaults: create it if there is none.
    pub fn new() -> StateOptions {
        StateOptions { channel: ChannelOptions::state() }
    }

    /// Whether to create it if there is none; yes otherwise.
    pub fn create(mut self, yes: bool) -> StateOptions {
        self.channel = self.channel.create(yes);
        self
    }

    /// Whether it must be new.
    pub fn exclusive(mut self, yes: bool) -> StateOptions {
        self.channel = self.channel.exclusive(yes);
        self
    }

    /// Whether a channel of bytes may have any schema; [`State::schema`] tells it.
    pub fn any_schema(mut self, yes: bool) -> StateOptions {
        self.channel = self.channel.any_schema(yes);
        self
    }

    /// Whether the channel stays, until [`Client::remove`], although nobody has it open.
    ///
    /// [`Client::remove`]: crate::Client::remove
    pub fn retain(mut self, yes: bool) -> StateOptions {
        self.channel = self.channel.retain(yes);
        self
    }

    /// At most so many keys over the life of the channel, 4096 at most; 64 otherwise.
    pub fn max_keys(mut self, count: u32) -> StateOptions {
        self.channel.max_keys = count;
        self
    }

    /// Bytes of the longest value of a channel of bytes; 232 otherwise.
    pub fn value_len(mut self, bytes: u32) -> StateOptions {
        self.channel.value_len = bytes;
        self
    }

    /// At most so many publishers; 64 otherwise.
    pub fn max_publishers(mut self, count: u32) -> StateOptions {
        self.channel = self.channel.max_publishers(count);
        self
    }

    /// At most so many subscribers; 64 otherwise.
    pub fn max_subscribers(mut self, count: u32) -> StateOptions {
        self.channel = self.channel.max_subscribers(count);
        self
    }

    /// What lies behind its memory; rules of the broker may decide otherwise.
    pub fn backing(mut self, backing: Backing) -> StateOptions {
        self.channel = self.channel.backing(backing);
        self
    }

    /// Opens the channel.
    pub fn open<T: Content + ?Sized>(&self, client: &Client, name: &str) -> Result<State<T>> {
        Ok(State { channel: self.channel.open(client, name)? })
    }

    /// Opens the channel for untyped values.
    pub fn open_bytes(&self, client: &Client, name: &str) -> Result<State<[u8]>> {
        self.open(client, name)
    }
}

/// A state channel: the latest value of each key, instead of records. Clones share it.
///
/// A publisher claims keys and puts their values; nobody else can until it disclaims them or goes.
/// Values stay for as long as some process has the channel open.
///
/// ```
/// # use shmbroker::{Broker, ClientOptions};
/// shmbroker::record! {
///     #[derive(Debug, PartialEq)]
///     pub struct Pose: "doc.pose" { pub x: f64, pub y: f64 }
/// }
/// # fn main() -> shmbroker::Result<()> {
/// # let broker = Broker::start()?;
/// # let client = ClientOptions::new().address(broker.address()).open()?;
/// let poses = client.state::<Pose>("robot/poses")?;
/// let mut publisher = poses.publisher()?;
/// let left = publisher.claim("left")?;
/// publisher.put(left, &Pose { x: 1.0, y: 2.0 })?;
///
/// let subscriber = poses.subscriber()?;
/// let key = subscriber.find("left")?.unwrap();
/// assert_eq!(subscriber.get(key)?, Some(Pose { x: 1.0, y: 2.0 }));
/// # Ok(())
/// # }
/// ```
pub struct State<T: ?Sized> {
    channel: Channel<T>,
}

impl<T: ?Sized> Clone for State<T> {
    fn clone(&self) -> Self {
        State { channel: self.channel.clone() }
    }
}

impl<T: ?Sized> fmt::Debug for State<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("info", &self.info()).finish()
    }
}

impl<T: ?Sized> State<T> {
    /// What the channel is and who is there.
    pub fn info(&self) -> Result<ChannelInfo> {
        self.channel.info()
    }

    /// What its values are, `None` if they are untyped.
    pub fn schema(&self) -> Result<Option<Schema>> {
        self.channel.schema()
    }
}

impl<T: Content + ?Sized> State<T> {
    /// Starts to put values.
    pub fn publisher(&self) -> Result<StatePublisher<T>> {
        Ok(StatePublisher { inner: self.channel.publisher()? })
    }

    /// Starts to read values.
    pub fn subscriber(&self) -> Result<StateSubscriber<T>> {
        Ok(StateSubscriber { inner: self.channel.subscriber()? })
    }
}

/// A key of a channel: its index, the same in all processes for the life of the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u32);

impl Key {
    /// From 0.
    pub fn index(self) -> u32 {
        self.0
    }
}

/// Puts the latest values of keys. Dropping it gives its keys up; their values stay.
///
/// It may move to another thread, and is used by one at a time.
pub struct StatePublisher<T: ?Sized> {
    inner: Publisher<T>,
}

impl<T: ?Sized> fmt::Debug for StatePublisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatePublisher").field("stats", &self.stats()).finish()
    }
}

impl<T: ?Sized> StatePublisher<T> {
    /// Becomes the one that puts the values of a key, which has 1 to 64 bytes.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions, ErrorKind};
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let settings = client.state_bytes("settings")?;
    /// let mut first = settings.publisher()?;
    /// let mut second = settings.publisher()?;
    /// first.claim("volume")?;
    /// assert_eq!(second.claim("volume").unwrap_err().kind(), ErrorKind::Busy);
    /// drop(first);
    /// second.claim("volume")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn claim(&mut self, key: impl AsRef<[u8]>) -> Result<Key> {
        let key = key.as_ref();
        // SAFETY: open; the key has as many bytes as we say.
        let index = check(unsafe {
            let data = key.as_ptr() as *const c_void;
            sys::shmb_publisher_claim(self.inner.handle.as_ptr(), data, length(key.len()))
        })?;
        Ok(Key(index as u32))
    }

    /// Lets others claim a key; its value stays.
    pub fn disclaim(&mut self, key: Key) -> Result<()> {
        // SAFETY: open.
        check(unsafe { sys::shmb_publisher_disclaim(self.inner.handle.as_ptr(), key.0) }).map(drop)
    }

    /// From now on the key has no value; a change like any other.
    pub fn erase(&mut self, key: Key) -> Result<()> {
        // SAFETY: open.
        check(unsafe { sys::shmb_publisher_erase(self.inner.handle.as_ptr(), key.0) }).map(drop)
    }

    /// The term of the last claim: higher than that of any claim before.
    pub fn term(&self) -> u64 {
        self.inner.view().term
    }

    /// The counters.
    pub fn stats(&self) -> Result<PublisherStats> {
        self.inner.stats()
    }

    fn put_bytes(&mut self, key: Key, data: *const u8, len: usize) -> Result<()> {
        // SAFETY: open; the callers' data has len bytes (more than u32::MAX are refused).
        check(unsafe {
            let data = data as *const c_void;
            sys::shmb_publisher_put(self.inner.handle.as_ptr(), key.0, data, length(len))
        })
        .map(drop)
    }
}

impl<T: Record> StatePublisher<T> {
    /// Replaces the value of a key that this publisher has claimed, and wakes who waits for it.
    ///
    /// The first time after a claim this asks the broker; from then on it waits for nobody. A
    /// process that is killed meanwhile has replaced the value wholly or not at all.
    pub fn put(&mut self, key: Key, value: &T) -> Result<()> {
        self.put_bytes(key, value as *const T as *const u8, size_of::<T>())
    }
}

impl StatePublisher<[u8]> {
    /// Replaces the value of a key that this publisher has claimed, and wakes who waits for it.
    ///
    /// The first time after a claim this asks the broker; from then on it waits for nobody.
    pub fn put(&mut self, key: Key, value: &[u8]) -> Result<()> {
        self.put_bytes(key, value.as_ptr(), value.len())
    }
}

/// Where a value came from: what [`StateSubscriber::last`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Version {
    /// Counts what was put for that key, whoever put it, from 1.
    pub version: u64,
    /// Under which claim it was put.
    pub term: u64,
    /// Who put it; `None`: somebody who does not have the key any more.
    pub publisher_id: Option<u64>,
}

/// Reads the latest values of a channel. Dropping it stops.
///
/// It may move to another thread, and is used by one at a time. In a [`WaitSet`](crate::WaitSet)
/// it is ready when a key has changed: add [`StateSubscriber::as_subscriber`].
pub struct StateSubscriber<T: ?Sized> {
    inner: Subscriber<T>,
}

impl<T: ?Sized> fmt::Debug for StateSubscriber<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateSubscriber").field("stats", &self.stats()).finish()
    }
}

/// Reads one value into the memory given. `None`: there is none.
///
/// # Safety
///
/// `data` must be valid for writes of `cap` bytes.
unsafe fn get_bytes<T: ?Sized>(
    subscriber: &Subscriber<T>,
    key: u32,
    data: *mut u8,
    cap: usize,
) -> Result<Option<usize>> {
    // SAFETY: open, and as the caller says.
    let result = unsafe {
        let data = data as *mut c_void;
        sys::shmb_subscriber_get(subscriber.handle.as_ptr(), key, data, length(cap))
    };
    check_unless(result, ENODATA)
}

pub(crate) fn get_record<T: Record>(subscriber: &Subscriber<T>, key: u32) -> Result<Option<T>> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: it has room for as many bytes as we say.
    let len = unsafe { get_bytes(subscriber, key, value.as_mut_ptr() as *mut u8, size_of::<T>()) }?;
    match len {
        None => Ok(None),
        // SAFETY: all of it was written, and any bytes are a record.
        Some(len) if len == size_of::<T>() => Ok(Some(unsafe { value.assume_init() })),
        Some(_) => Err(Error::new(EBADMSG, "the key's publisher wrote another length")),
    }
}

pub(crate) fn get_vec(subscriber: &Subscriber<[u8]>, key: u32) -> Result<Option<Vec<u8>>> {
    let mut value = Vec::with_capacity(256);
    loop {
        let cap = value.capacity();
        // SAFETY: it has room for as many bytes as we say.
        match unsafe { get_bytes(subscriber, key, value.as_mut_ptr(), cap) } {
            Ok(None) => return Ok(None),
            Ok(Some(len)) => {
                // SAFETY: so many were written.
                unsafe { value.set_len(len.min(cap)) };
                return Ok(Some(value));
            }
            // It may be longer the next time, too, but never longer than the channel allows.
            Err(error) if error.errno() == EMSGSIZE => {
                value = Vec::with_capacity(subscriber.view().len as usize);
            }
            Err(error) => return Err(error),
        }
    }
}

impl<T: Content + ?Sized> StateSubscriber<T> {
    /// A copy of the latest value of a key, `None` if it has none.
    ///
    /// Never waits for its publisher, alive, stopped or dead. An error of the kind `WouldBlock`
    /// says that it was overwritten each time while it was copied, or that its publisher has to
    /// move to other memory first, which it does with its next call.
    pub fn get(&self, key: Key) -> Result<Option<T::Owned>> {
        T::get(&self.inner, key.0)
    }

    /// Copies of the values of all keys that have one.
    ///
    /// Each value is whole; together they are no transaction.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let settings = client.state_bytes("settings")?;
    /// let mut publisher = settings.publisher()?;
    /// for (name, value) in [("volume", "11"), ("colour", "black")] {
    ///     let key = publisher.claim(name)?;
    ///     publisher.put(key, value.as_bytes())?;
    /// }
    /// let subscriber = settings.subscriber()?;
    /// for (key, value) in subscriber.snapshot()? {
    ///     println!("{:?} = {:?}", subscriber.name(key)?, value);
    /// }
    /// # assert_eq!(subscriber.snapshot()?.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn snapshot(&self) -> Result<Vec<(Key, T::Owned)>> {
        let mut values = Vec::new();
        for index in 0..self.len()? {
            if let Some(value) = self.get(Key(index as u32))? {
                values.push((Key(index as u32), value));
            }
        }
        Ok(values)
    }
}

impl<T: ?Sized> StateSubscriber<T> {
    /// The key of this name, `None` if nobody has claimed it so far.
    pub fn find(&self, name: impl AsRef<[u8]>) -> Result<Option<Key>> {
        let name = name.as_ref();
        if name.len() > KEY_LEN_MAX {
            return Ok(None);
        }
        // SAFETY: open; the name has as many bytes as we say.
        let result = unsafe {
            let data = name.as_ptr() as *const c_void;
            sys::shmb_subscriber_find(self.inner.handle.as_ptr(), data, length(name.len()))
        };
        Ok(check_unless(result, ENOENT)?.map(|index| Key(index as u32)))
    }

    /// How many keys have been claimed so far.
    pub fn len(&self) -> Result<usize> {
        // SAFETY: open.
        check(unsafe { sys::shmb_subscriber_n_keys(self.inner.handle.as_ptr()) })
    }

    /// Has no key been claimed so far?
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// All keys that have been claimed so far.
    pub fn keys(&self) -> Result<Vec<Key>> {
        Ok((0..self.len()?).map(|index| Key(index as u32)).collect())
    }

    fn look_at(&self, key: Key) -> Result<Vec<u8>> {
        let mut name = vec![0u8; KEY_LEN_MAX];
        // SAFETY: open, and as many bytes as we say.
        let len = check(unsafe {
            let data = name.as_mut_ptr() as *mut c_void;
            sys::shmb_subscriber_key(self.inner.handle.as_ptr(), key.0, data, length(KEY_LEN_MAX))
        })?;
        name.truncate(len);
        Ok(name)
    }

    /// The name of a key; bytes that are not UTF-8 are replaced.
    pub fn name(&self, key: Key) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.look_at(key)?).into_owned())
    }

    /// The name of a key as it is.
    pub fn name_bytes(&self, key: Key) -> Result<Vec<u8>> {
        self.look_at(key)
    }

    /// Which publisher has claimed a key now.
    pub fn owner(&self, key: Key) -> Result<Option<u64>> {
        self.look_at(key)?;
        let id = self.inner.view().publisher_id;
        Ok(if id == 0 { None } else { Some(id) })
    }

    /// Where the last value that [`StateSubscriber::get`] gave came from.
    pub fn last(&self) -> Version {
        let view = self.inner.view();
        let publisher_id = if view.publisher_id == 0 { None } else { Some(view.publisher_id) };
        Version { version: view.sequence, term: view.term, publisher_id }
    }

    /// The next key that has changed since it was last read here, or told of; `None`: no key has.
    ///
    /// To a new subscriber every key that has a value has changed.
    pub fn next_changed(&self) -> Result<Option<Key>> {
        // SAFETY: open.
        let result = unsafe { sys::shmb_subscriber_next(self.inner.handle.as_ptr()) };
        Ok(check_unless(result, EAGAIN)?.map(|index| Key(index as u32)))
    }

    /// Waits until a key has changed: `false` when the time is over. `None` waits for ever.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// # use std::time::Duration;
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let settings = client.state_bytes("settings")?;
    /// let subscriber = settings.subscriber()?;
    /// let mut publisher = settings.publisher()?;
    /// let volume = publisher.claim("volume")?;
    /// assert!(!subscriber.wait(Duration::from_millis(1))?);
    /// publisher.put(volume, b"11")?;
    /// assert!(subscriber.wait(None)?);
    /// assert_eq!(subscriber.next_changed()?, Some(volume));
    /// assert_eq!(subscriber.next_changed()?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<bool> {
        self.inner.wait(timeout)
    }

    /// Waits until this key has changed: `false` when the time is over. `None` waits for ever.
    pub fn wait_key(&self, key: Key, timeout: impl Into<Option<Duration>>) -> Result<bool> {
        let timeout_ns = nanoseconds(timeout.into());
        // SAFETY: open.
        let result =
            unsafe { sys::shmb_subscriber_wait_key(self.inner.handle.as_ptr(), key.0, timeout_ns) };
        Ok(check_unless(result, ETIMEDOUT)?.is_some())
    }

    /// For wait sets, and for event loops its fd. It has no records to receive.
    pub fn as_subscriber(&self) -> &Subscriber<T> {
        &self.inner
    }

    /// The counters.
    pub fn stats(&self) -> Result<SubscriberStats> {
        self.inner.stats()
    }
}
