// SPDX-License-Identifier: Apache-2.0
//! Sending.

use std::fmt;
use std::marker::PhantomData;
use std::mem::{size_of, ManuallyDrop, MaybeUninit};
use std::ops::{Deref, DerefMut};
use std::os::raw::c_void;
use std::os::unix::io::{BorrowedFd, RawFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use shmbroker_sys as sys;

use crate::broker::no_handle;
use crate::channel::{Channel, ChannelShared, Content, Deadline};
use crate::error::{check, length, nanoseconds, Error, ErrorKind, Result, EINVAL, ETIMEDOUT};
use crate::schema::Record;

/// How to publish.
///
/// ```
/// # use shmbroker::{Broker, ClientOptions, PublisherOptions};
/// # fn main() -> shmbroker::Result<()> {
/// # let broker = Broker::start()?;
/// # let client = ClientOptions::new().address(broker.address()).open()?;
/// let channel = client.channel_bytes("log")?;
/// let mut publisher = PublisherOptions::new().drop_newest(true).open(&channel)?;
/// # let _ = &mut publisher;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct PublisherOptions {
    flags: u32,
    arena_len: u64,
    priority: u32,
}

impl PublisherOptions {
    /// The defaults: sending fails while the lane is full.
    pub fn new() -> PublisherOptions {
        PublisherOptions::default()
    }

    /// Whether a full lane drops the record and counts it, instead of failing.
    pub fn drop_newest(self, yes: bool) -> PublisherOptions {
        self.set(sys::SHMB_PUBLISHER_DROP_NEWEST, yes)
    }

    /// Whether subscribers of the same user may map the lane writable. None writes there, but
    /// nothing stops one that has lost its way; some processors are much faster with it.
    pub fn trusting(self, yes: bool) -> PublisherOptions {
        self.set(sys::SHMB_PUBLISHER_TRUSTING, yes)
    }

    /// So many bytes of blocks are ready when it is open; they come with the first record that needs
    /// one otherwise, which then takes as long as opening does.
    pub fn arena_len(mut self, bytes: u64) -> PublisherOptions {
        self.arena_len = bytes;
        self
    }

    /// From 0, as otherwise, to 7. As long as there is a record of a publisher with a higher priority,
    /// subscribers receive none of a lower one, and workers take none.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions, PublisherOptions};
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let orders = client.channel_bytes("orders")?;
    /// let subscriber = orders.subscriber()?;
    /// let mut bulk = orders.publisher()?;
    /// let mut urgent = PublisherOptions::new().priority(7).open(&orders)?;
    /// bulk.send(b"when you have time")?;
    /// urgent.send(b"stop")?;
    /// assert_eq!(subscriber.recv_vec()?.unwrap(), b"stop");
    /// assert_eq!(subscriber.recv_vec()?.unwrap(), b"when you have time");
    /// # Ok(())
    /// # }
    /// ```
    pub fn priority(mut self, priority: u32) -> PublisherOptions {
        self.priority = priority;
        self
    }

    fn set(mut self, flag: u32, yes: bool) -> PublisherOptions {
        self.flags = if yes { self.flags | flag } else { self.flags & !flag };
        self
    }

    /// Starts to publish.
    pub fn open<T: Content + ?Sized>(&self, channel: &Channel<T>) -> Result<Publisher<T>> {
        let options = sys::shmb_publisher_options {
            options_len: size_of::<sys::shmb_publisher_options>() as u32,
            flags: self.flags,
            arena_len: self.arena_len,
            priority: self.priority,
            pad: 0,
        };
        let mut handle = ptr::null_mut();
        // SAFETY: the channel is open, the options live until it returns.
        check(
            channel.shared.handle.with(|channel| unsafe {
                sys::shmb_publisher_open(channel, &options, &mut handle)
            }),
        )?;
        let handle = NonNull::new(handle).ok_or_else(no_handle)?;
        // SAFETY: open.
        let view = unsafe { sys::shmb_publisher_view(handle.as_ptr()) };
        let view = NonNull::new(view).ok_or_else(no_handle)?;
        let channel = channel.shared.clone();
        Ok(Publisher { handle, view, _channel: channel, content: PhantomData })
    }
}

/// Sends records into a channel. Dropping it stops; subscribers still get all that was sent.
///
/// It may move to another thread, and is used by one at a time.
///
/// ```
/// # use shmbroker::{Broker, ClientOptions};
/// # fn main() -> shmbroker::Result<()> {
/// # let broker = Broker::start()?;
/// # let client = ClientOptions::new().address(broker.address()).open()?;
/// let channel = client.channel_bytes("log")?;
/// let subscriber = channel.subscriber()?;
/// let mut publisher = channel.publisher()?;
/// std::thread::spawn(move || publisher.send(b"from another thread")).join().unwrap()?;
/// assert_eq!(subscriber.recv_vec()?.unwrap(), b"from another thread");
/// # Ok(())
/// # }
/// ```
pub struct Publisher<T: ?Sized> {
    pub(crate) handle: NonNull<sys::shmb_publisher>,
    view: NonNull<sys::shmb_view>,
    _channel: Arc<ChannelShared>,
    content: PhantomData<fn(&T)>,
}

// SAFETY: the library binds no handle to a thread. It is not Sync, because one thread at a time
// uses it; NonNull sees to that.
unsafe impl<T: ?Sized> Send for Publisher<T> {}

impl<T: ?Sized> Drop for Publisher<T> {
    fn drop(&mut self) {
        // SAFETY: open; loans borrowed it, and are gone.
        unsafe { sys::shmb_publisher_close(self.handle.as_ptr()) };
    }
}

impl<T: ?Sized> fmt::Debug for Publisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("stats", &self.stats()).finish()
    }
}

/// Counters since the publisher was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublisherStats {
    /// Unique in this broker's life and after.
    pub publisher_id: u64,
    /// Records.
    pub published: u64,
    /// Bytes of ring that they took, headers and padding included.
    pub published_len: u64,
    /// Records dropped because the lane was full.
    pub dropped: u64,
    /// Calls refused because the lane was full.
    pub refused: u64,
    /// System calls made to wake subscribers.
    pub rings: u64,
    /// Subscribers that it serves now.
    pub subscribers: u32,
    /// Blocks in use: published, and not passed by all reliable subscribers.
    pub blocks: u32,
    /// Blocks that were passed, but are held.
    pub held: u32,
    /// Bytes of memory for blocks that it has now.
    pub arena_len: u64,
    /// Subscribers that it has stopped waiting for, see
    /// [`SubscriberOptions::evict_after`](crate::SubscriberOptions::evict_after).
    pub evicted: u32,
    /// Bounded sleeps that ended by themselves and found room: lost wake-ups, should be 0.
    pub backstops: u64,
    /// File descriptors that a subscriber could not be sent, as a lossy one that has not taken earlier
    /// ones: of each subscriber.
    pub fds_lost: u64,
}

impl<T: ?Sized> Publisher<T> {
    pub(crate) fn view(&self) -> &sys::shmb_view {
        // SAFETY: it lives as long as the handle, in memory of this process; only calls on the
        // handle write there, in this thread, and no reference outlives the next one.
        unsafe { self.view.as_ref() }
    }

    /// The counters.
    pub fn stats(&self) -> Result<PublisherStats> {
        // SAFETY: numbers, for which zeroes will do.
        let mut stats: sys::shmb_publisher_stats = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: open, and as many bytes as we say.
        check(unsafe {
            let len = size_of::<sys::shmb_publisher_stats>() as u32;
            sys::shmb_publisher_stats(self.handle.as_ptr(), &mut stats, len)
        })?;
        Ok(PublisherStats {
            publisher_id: stats.publisher_id,
            published: stats.published,
            published_len: stats.published_len,
            dropped: stats.dropped,
            refused: stats.refused,
            rings: stats.rings,
            subscribers: stats.n_subscribers,
            blocks: stats.n_blocks,
            held: stats.n_held,
            arena_len: stats.arena_len,
            evicted: stats.n_evicted,
            backstops: stats.backstops,
            fds_lost: stats.fds_lost,
        })
    }

    /// An fd for event loops. Once it was asked for, [`Publisher::wait`] with no time left prepares
    /// it: readable when it may succeed. Never read from it.
    pub fn fd(&self) -> Result<BorrowedFd<'_>> {
        // SAFETY: open.
        let fd = check(unsafe { sys::shmb_publisher_fd(self.handle.as_ptr()) })?;
        // SAFETY: it is open until the publisher is closed.
        Ok(unsafe { BorrowedFd::borrow_raw(fd as RawFd) })
    }

    fn send_bytes(&mut self, data: *const u8, len: usize) -> Result<()> {
        // SAFETY: open; the callers' data has len bytes (more than u32::MAX are refused).
        check(unsafe {
            sys::shmb_publisher_send(self.handle.as_ptr(), data as *const c_void, length(len))
        })
        .map(drop)
    }

    fn send_bytes_typed(&mut self, data: *const u8, len: usize, record_type: u16) -> Result<()> {
        // SAFETY: as send_bytes().
        check(unsafe {
            sys::shmb_publisher_send_typed(
                self.handle.as_ptr(),
                data as *const c_void,
                length(len),
                u32::from(record_type),
            )
        })
        .map(drop)
    }

    fn send_bytes_fds(&mut self, data: *const u8, len: usize, fds: &[BorrowedFd<'_>]) -> Result<()> {
        // SAFETY: as send_bytes(); a BorrowedFd is represented as a RawFd, and open.
        check(unsafe {
            sys::shmb_publisher_send_fds(
                self.handle.as_ptr(),
                data as *const c_void,
                length(len),
                0,
                fds.as_ptr() as *const RawFd,
                length(fds.len()),
            )
        })
        .map(drop)
    }

    fn send_bytes_fds_timeout(
        &mut self,
        data: *const u8,
        len: usize,
        fds: &[BorrowedFd<'_>],
        timeout: Option<Duration>,
    ) -> Result<()> {
        let deadline = Deadline::after(timeout);
        loop {
            match self.send_bytes_fds(data, len, fds) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            if !self.wait_bytes(len, deadline.left())? {
                return Err(Error::new(ETIMEDOUT, "no room for a record with its fds in time"));
            }
        }
    }

    fn send_bytes_timeout(
        &mut self,
        data: *const u8,
        len: usize,
        timeout: Option<Duration>,
    ) -> Result<()> {
        // SAFETY: as send_bytes().
        check(unsafe {
            sys::shmb_publisher_send_wait(
                self.handle.as_ptr(),
                data as *const c_void,
                length(len),
                nanoseconds(timeout),
            )
        })
        .map(drop)
    }

    fn wait_bytes(&mut self, len: usize, timeout: Option<Duration>) -> Result<bool> {
        // SAFETY: open.
        let result = unsafe {
            sys::shmb_publisher_wait(self.handle.as_ptr(), length(len), nanoseconds(timeout))
        };
        Ok(crate::error::check_unless(result, crate::error::ETIMEDOUT)?.is_some())
    }

    /// Address and length of a new loan.
    fn loan_bytes(&mut self, len: usize) -> Result<(NonNull<u8>, usize)> {
        // SAFETY: open.
        check(unsafe { sys::shmb_publisher_loan(self.handle.as_ptr(), length(len)) })?;
        // SAFETY: the view lives as long as the handle, and only calls on it write there.
        let view = unsafe { self.view.as_ref() };
        let data = NonNull::new(view.data as usize as *mut u8).ok_or_else(no_handle)?;
        Ok((data, view.len as usize))
    }
}

impl<T: Record> Publisher<T> {
    /// Sends a copy of a record. It never waits: while a reliable subscriber is a whole ring
    /// behind, it fails with [`ErrorKind::WouldBlock`](crate::ErrorKind::WouldBlock).
    pub fn send(&mut self, record: &T) -> Result<()> {
        self.send_bytes(record as *const T as *const u8, size_of::<T>())
    }

    /// [`Publisher::send`] with a type of your own, which the subscribers are told.
    pub fn send_typed(&mut self, record: &T, record_type: u16) -> Result<()> {
        self.send_bytes_typed(record as *const T as *const u8, size_of::<T>(), record_type)
    }

    /// Sends a copy of a record that carries file descriptors. They stay open here, and are there
    /// before the record is: [`Subscriber::take_fds`](crate::Subscriber::take_fds).
    ///
    /// While a reliable subscriber has not taken those of some dozens of earlier records, it fails
    /// with [`ErrorKind::WouldBlock`](crate::ErrorKind::WouldBlock), as for want of room.
    ///
    /// ```
    /// # use shmbroker::{Broker, ChannelOptions, ClientOptions};
    /// # use std::{fs::File, io::{Read, Write}, os::unix::io::AsFd, os::unix::net::UnixStream};
    /// shmbroker::record! { pub struct Offer: "doc.offer" { pub number: u64 } }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let channel = ChannelOptions::new().max_fds(1).open::<Offer>(&client, "offers")?;
    /// let subscriber = channel.subscriber()?;
    /// let (mut mine, theirs) = UnixStream::pair()?;
    /// channel.publisher()?.send_fds(&Offer { number: 1 }, &[theirs.as_fd()])?;
    ///
    /// let offer = subscriber.recv()?.unwrap();
    /// let fd = subscriber.take_fds()?.pop().unwrap();
    /// write!(UnixStream::from(fd), "I take number {}", offer.number)?;
    /// drop(theirs);
    /// let mut answer = String::new();
    /// mine.read_to_string(&mut answer)?;
    /// assert_eq!(answer, "I take number 1");
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_fds(&mut self, record: &T, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.send_bytes_fds(record as *const T as *const u8, size_of::<T>(), fds)
    }

    /// [`Publisher::send_fds`], and waits for room; `None` waits for ever.
    pub fn send_fds_timeout(
        &mut self,
        record: &T,
        fds: &[BorrowedFd<'_>],
        timeout: impl Into<Option<Duration>>,
    ) -> Result<()> {
        let data = record as *const T as *const u8;
        self.send_bytes_fds_timeout(data, size_of::<T>(), fds, timeout.into())
    }

    /// Sends a copy of a record, and waits for room; `None` waits for ever.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// # use std::time::Duration;
    /// shmbroker::record! { pub struct Point: "doc.point" { pub x: f32, pub y: f32 } }
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let mut publisher = client.channel::<Point>("points")?.publisher()?;
    /// publisher.send_timeout(&Point { x: 1.0, y: 2.0 }, Duration::from_millis(100))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_timeout(&mut self, record: &T, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let data = record as *const T as *const u8;
        self.send_bytes_timeout(data, size_of::<T>(), timeout.into())
    }

    /// Sends copies of several records, which become visible together. Says how many fitted, from
    /// the first on; if none did, it fails as [`Publisher::send`] does.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// shmbroker::record! { #[derive(Debug)] pub struct Point: "doc.point" { pub x: f32, pub y: f32 } }
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let channel = client.channel::<Point>("points")?;
    /// let subscriber = channel.subscriber()?;
    /// let points = [Point { x: 1.0, y: 2.0 }; 100];
    /// assert_eq!(channel.publisher()?.send_many(&points)?, 100);
    ///
    /// let mut received = Vec::new();
    /// assert_eq!(subscriber.recv_many(&mut received, 1000)?, 100);
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_many(&mut self, records: &[T]) -> Result<usize> {
        if records.is_empty() {
            return Ok(0);
        }
        // SAFETY: open; a slice has no padding between its elements.
        check(unsafe {
            sys::shmb_publisher_send_many(
                self.handle.as_ptr(),
                records.as_ptr() as *const c_void,
                length(size_of::<T>()),
                ptr::null(),
                length(records.len()).min(i32::MAX as u32),
            )
        })
    }

    /// Waits until a record fits: `false` when the time is over.
    pub fn wait(&mut self, timeout: impl Into<Option<Duration>>) -> Result<bool> {
        self.wait_bytes(size_of::<T>(), timeout.into())
    }

    /// Lends memory in the lane for one record, to be filled in place.
    ///
    /// It dereferences to the record, which holds an old one's bytes. [`Loan::publish`] sends it;
    /// dropping it gives it back.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// shmbroker::record! { pub struct Point: "doc.point" { pub x: f32, pub y: f32 } }
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let channel = client.channel::<Point>("points")?;
    /// let subscriber = channel.subscriber()?;
    /// let mut publisher = channel.publisher()?;
    /// let mut point = publisher.loan()?;
    /// point.write(Point { x: 1.0, y: 0.0 });
    /// point.y = 2.0;
    /// point.publish()?;
    ///
    /// assert_eq!(subscriber.recv()?.unwrap().y, 2.0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn loan(&mut self) -> Result<Loan<'_, T>> {
        let (data, len) = self.loan_bytes(size_of::<T>())?;
        Ok(Loan { publisher: self, data, len })
    }
}

impl Publisher<[u8]> {
    /// Sends a copy of a record; an empty one is a record too. It never waits: while a reliable
    /// subscriber is a whole ring behind, it fails with
    /// [`ErrorKind::WouldBlock`](crate::ErrorKind::WouldBlock).
    pub fn send(&mut self, record: &[u8]) -> Result<()> {
        self.send_bytes(record.as_ptr(), record.len())
    }

    /// [`Publisher::send`](Publisher::<[u8]>::send) with a type of your own, which the subscribers
    /// are told.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let channel = client.channel_bytes("log")?;
    /// let subscriber = channel.subscriber()?;
    /// channel.publisher()?.send_typed(b"{}", 7)?;
    /// assert_eq!(subscriber.recv_vec()?.unwrap(), b"{}");
    /// assert_eq!(subscriber.last().record_type, 7);
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_typed(&mut self, record: &[u8], record_type: u16) -> Result<()> {
        self.send_bytes_typed(record.as_ptr(), record.len(), record_type)
    }

    /// Sends a copy of a record that carries file descriptors, see
    /// [`Publisher::send_fds`](Publisher::send_fds) of records.
    pub fn send_fds(&mut self, record: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.send_bytes_fds(record.as_ptr(), record.len(), fds)
    }

    /// The same, and waits for room; `None` waits for ever.
    pub fn send_fds_timeout(
        &mut self,
        record: &[u8],
        fds: &[BorrowedFd<'_>],
        timeout: impl Into<Option<Duration>>,
    ) -> Result<()> {
        self.send_bytes_fds_timeout(record.as_ptr(), record.len(), fds, timeout.into())
    }

    /// Sends a copy of a record, and waits for room; `None` waits for ever.
    pub fn send_timeout(
        &mut self,
        record: &[u8],
        timeout: impl Into<Option<Duration>>,
    ) -> Result<()> {
        self.send_bytes_timeout(record.as_ptr(), record.len(), timeout.into())
    }

    /// Sends several records, which become visible together: `records` holds their bytes one
    /// after the other, `lens` says how many each has. Says how many fitted.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let channel = client.channel_bytes("log")?;
    /// let subscriber = channel.subscriber()?;
    /// assert_eq!(channel.publisher()?.send_many(b"onethree", &[3, 5])?, 2);
    /// assert_eq!(subscriber.recv_vec()?.unwrap(), b"one");
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_many(&mut self, records: &[u8], lens: &[u32]) -> Result<usize> {
        let len: u64 = lens.iter().map(|&len| u64::from(len)).sum();
        if len != records.len() as u64 {
            let sentence = format!("the lengths add up to {}, not to {}", len, records.len());
            return Err(Error::new(EINVAL, sentence));
        }
        if lens.is_empty() {
            return Ok(0);
        }
        // SAFETY: open; the data has as many bytes as the lengths say together.
        check(unsafe {
            sys::shmb_publisher_send_many(
                self.handle.as_ptr(),
                records.as_ptr() as *const c_void,
                0,
                lens.as_ptr(),
                length(lens.len()).min(i32::MAX as u32),
            )
        })
    }

    /// Waits until a record of `len` bytes fits: `false` when the time is over.
    pub fn wait(&mut self, len: usize, timeout: impl Into<Option<Duration>>) -> Result<bool> {
        self.wait_bytes(len, timeout.into())
    }

    /// Lends `len` bytes of the lane for one record, to be filled in place.
    ///
    /// It dereferences to the bytes, which are old ones. [`Loan::publish`] sends them all,
    /// [`Loan::publish_len`] the first few; dropping it gives it back.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let channel = client.channel_bytes("log")?;
    /// let subscriber = channel.subscriber()?;
    /// let mut publisher = channel.publisher()?;
    /// let mut loan = publisher.loan(4096)?;
    /// loan[..5].copy_from_slice(b"hello");
    /// loan.publish_len(5)?;
    /// assert_eq!(subscriber.recv_vec()?.unwrap(), b"hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn loan(&mut self, len: usize) -> Result<Loan<'_, [u8]>> {
        let (data, len) = self.loan_bytes(len)?;
        Ok(Loan { publisher: self, data, len })
    }
}

/// Memory in the lane for one record, from [`Publisher::loan`].
///
/// The publisher cannot send anything else meanwhile:
///
/// ```compile_fail
/// # fn main() -> shmbroker::Result<()> {
/// let mut publisher = shmbroker::Client::open()?.channel_bytes("log")?.publisher()?;
/// let loan = publisher.loan(8)?;
/// publisher.send(b"too early")?;
/// loan.publish()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a loan that is dropped is not sent"]
pub struct Loan<'p, T: ?Sized> {
    publisher: &'p mut Publisher<T>,
    data: NonNull<u8>,
    len: usize,
}

impl<T: ?Sized> Loan<'_, T> {
    fn publish_bytes(self, len: usize, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let loan = ManuallyDrop::new(self);
        // SAFETY: open, and lent; a BorrowedFd is represented as a RawFd, and open.
        let result = unsafe {
            sys::shmb_publisher_publish_fds(
                loan.publisher.handle.as_ptr(),
                length(len),
                fds.as_ptr() as *const RawFd,
                length(fds.len()),
            )
        };
        let result = check(result).map(drop);
        if result.is_err() {
            drop(ManuallyDrop::into_inner(loan)); // still lent: gives it back
        }
        result
    }
}

impl<T: Record> Loan<'_, T> {
    /// Stores a whole record.
    pub fn write(&mut self, record: T) {
        **self = record;
    }

    /// Sends it. If that fails, it has been given back.
    pub fn publish(self) -> Result<()> {
        self.publish_bytes(size_of::<T>(), &[])
    }

    /// Sends it with file descriptors, see [`Publisher::send_fds`]. If that fails, it has been given
    /// back.
    pub fn publish_fds(self, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.publish_bytes(size_of::<T>(), fds)
    }
}

impl Loan<'_, [u8]> {
    /// Sends all of it. If that fails, it has been given back.
    pub fn publish(self) -> Result<()> {
        let len = self.len;
        self.publish_bytes(len, &[])
    }

    /// Sends all of it with file descriptors. If that fails, it has been given back.
    pub fn publish_fds(self, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let len = self.len;
        self.publish_bytes(len, fds)
    }

    /// Sends the first `len` bytes. If that fails, it has been given back.
    pub fn publish_len(self, len: usize) -> Result<()> {
        self.publish_bytes(len, &[])
    }
}

impl<T: ?Sized> Drop for Loan<'_, T> {
    fn drop(&mut self) {
        // SAFETY: open. If nothing is lent any more, it says so and does nothing.
        unsafe { sys::shmb_publisher_cancel(self.publisher.handle.as_ptr()) };
    }
}

impl<T: Record> Deref for Loan<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: size_of::<T>() bytes, aligned to 8 as no record exceeds, initialised with old
        // records or zeroes, any of which is a T. Only this process can write there, and only
        // through this loan, which borrows the publisher.
        unsafe { &*(self.data.as_ptr() as *const T) }
    }
}

impl<T: Record> DerefMut for Loan<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above; nobody reads it before it is published.
        unsafe { &mut *(self.data.as_ptr() as *mut T) }
    }
}

impl Deref for Loan<'_, [u8]> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: as for records.
        unsafe { slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl DerefMut for Loan<'_, [u8]> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for records.
        unsafe { slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

impl<T: ?Sized> fmt::Debug for Loan<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan").field("len", &self.len).finish()
    }
}
