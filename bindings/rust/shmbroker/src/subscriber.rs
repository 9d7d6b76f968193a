// SPDX-License-Identifier: Apache-2.0
//! Receiving.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::mem::{size_of, ManuallyDrop, MaybeUninit};
use std::ops::Range;
use std::os::raw::c_void;
use std::os::unix::io::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use shmbroker_sys as sys;

use crate::broker::no_handle;
use crate::channel::{Channel, ChannelShared, Content, Deadline};
use crate::error::{
    check, check_unless, length, nanoseconds, Error, Result, EAGAIN, EBADMSG, EBUSY, EMSGSIZE,
    ETIMEDOUT,
};
use crate::schema::Record;

/// How the library copies out one record: [`sys::shmb_subscriber_recv`] or `_take`.
pub(crate) type Receive =
    unsafe extern "C" fn(*mut sys::shmb_subscriber, *mut c_void, u32) -> i32;

/// More than a record can carry.
const FDS_MAX: usize = 256;

/// How many bytes of records a vector grows by at most.
const MANY_LEN: usize = 1 << 20;

/// How to receive.
///
/// ```
/// # use shmbroker::{Broker, ClientOptions, SubscriberOptions};
/// # fn main() -> shmbroker::Result<()> {
/// # let broker = Broker::start()?;
/// # let client = ClientOptions::new().address(broker.address()).open()?;
/// let channel = client.channel_bytes("log")?;
/// let viewer = SubscriberOptions::new().lossy(true).open(&channel)?;
/// assert_eq!(viewer.lost(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct SubscriberOptions {
    flags: u32,
    history: u32,
    spin: Option<Duration>,
    pub(crate) credit: u32,
    pub(crate) max_attempts: u32,
    evict_after: Option<Duration>,
    key: Range<u32>,
}

impl SubscriberOptions {
    /// The defaults: reliable.
    pub fn new() -> SubscriberOptions {
        SubscriberOptions::default()
    }

    /// Whether it never holds a publisher back, and may be lapped instead. What it loses is
    /// counted: [`Subscriber::lost`].
    pub fn lossy(mut self, yes: bool) -> SubscriberOptions {
        let flag = sys::SHMB_SUBSCRIBER_LOSSY;
        self.flags = if yes { self.flags | flag } else { self.flags & !flag };
        self
    }

    /// To hold no publisher up for longer than this without reading. It goes on then; the next call
    /// that receives fails once with [`ErrorKind::Evicted`](crate::ErrorKind::Evicted), and from
    /// then on this subscriber is lossy for that publisher: [`Subscriber::lost`] counts. At least a
    /// millisecond. Otherwise it holds them up for as long as it takes.
    ///
    /// ```
    /// # use shmbroker::{Broker, ChannelOptions, ClientOptions, ErrorKind, SubscriberOptions};
    /// # use std::time::Duration;
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let log = ChannelOptions::new().lane_len(4096).open_bytes(&client, "log")?;
    /// let slow = SubscriberOptions::new().evict_after(Duration::from_millis(5)).open(&log)?;
    /// let mut publisher = log.publisher()?;
    /// for _ in 0..10 {
    ///     publisher.send_timeout(&[0; 1000], None)?; // waits for it, but not for ever
    /// }
    /// assert_eq!(slow.recv_vec().unwrap_err().kind(), ErrorKind::Evicted);
    /// let mut received = 0;
    /// while slow.recv_vec()?.is_some() {
    ///     received += 1;
    /// }
    /// assert_eq!(received + slow.lost(), 10);
    /// # Ok(())
    /// # }
    /// ```
    pub fn evict_after(mut self, time: Duration) -> SubscriberOptions {
        self.evict_after = Some(time);
        self
    }

    /// To receive, of all records of one publisher that have the same bytes here and wait to be
    /// received, only the newest. [`SubscriberStats::conflated`] counts the others. At most 64 bytes;
    /// an empty range, as otherwise, receives all. Records that are shorter have no key.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions, SubscriberOptions};
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let prices = client.channel_bytes("prices")?;
    /// let slow = SubscriberOptions::new().conflate(0..1).open(&prices)?;
    /// let mut publisher = prices.publisher()?;
    /// for price in [b"a 1", b"b 7", b"a 2"] {
    ///     publisher.send(price)?;
    /// }
    /// assert_eq!(slow.recv_vec()?.unwrap(), b"b 7");
    /// assert_eq!(slow.recv_vec()?.unwrap(), b"a 2");
    /// assert_eq!(slow.stats()?.conflated, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn conflate(mut self, key: Range<u32>) -> SubscriberOptions {
        self.key = key;
        self
    }

    /// How long a wait may poll before it sleeps, if records come faster than that; 50 µs
    /// otherwise.
    pub fn spin(mut self, time: Duration) -> SubscriberOptions {
        self.spin = Some(time);
        self
    }

    /// To get at most so many records of the channel's history; all of it otherwise.
    ///
    /// ```
    /// # use shmbroker::{Broker, ChannelOptions, ClientOptions, SubscriberOptions};
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let log = ChannelOptions::new().history(10).open_bytes(&client, "log")?;
    /// let mut publisher = log.publisher()?;
    /// publisher.send(b"before")?;
    /// let all = log.subscriber()?;
    /// let none = SubscriberOptions::new().history(0).open(&log)?;
    /// publisher.send(b"after")?;
    /// assert_eq!(all.recv_vec()?.unwrap(), b"before");
    /// assert_eq!(none.recv_vec()?.unwrap(), b"after");
    /// # Ok(())
    /// # }
    /// ```
    pub fn history(mut self, records: u32) -> SubscriberOptions {
        let flag = sys::SHMB_SUBSCRIBER_NO_HISTORY;
        self.flags = if records == 0 { self.flags | flag } else { self.flags & !flag };
        self.history = records;
        self
    }

    /// Starts to receive.
    pub fn open<T: Content + ?Sized>(&self, channel: &Channel<T>) -> Result<Subscriber<T>> {
        let options = sys::shmb_subscriber_options {
            options_len: size_of::<sys::shmb_subscriber_options>() as u32,
            flags: self.flags,
            // Zero would mean the default: one nanosecond is as good as none.
            spin_ns: self
                .spin
                .map_or(0, |time| u32::try_from(time.as_nanos()).unwrap_or(u32::MAX).max(1)),
            history: self.history,
            credit: self.credit,
            max_attempts: self.max_attempts,
            evict_after_ms: self
                .evict_after
                .map_or(0, |time| u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1)),
            conflate_offset: if self.key.is_empty() { 0 } else { self.key.start },
            conflate_len: self.key.len() as u32,
        };
        let mut handle = ptr::null_mut();
        // SAFETY: the channel is open, the options live until it returns.
        check(
            channel.shared.handle.with(|channel| unsafe {
                sys::shmb_subscriber_open(channel, &options, &mut handle)
            }),
        )?;
        let handle = NonNull::new(handle).ok_or_else(no_handle)?;
        // SAFETY: open.
        let view = unsafe { sys::shmb_subscriber_view(handle.as_ptr()) };
        let view = NonNull::new(view).ok_or_else(no_handle)?;
        Ok(Subscriber {
            handle,
            view,
            peeked: Cell::new(false),
            lens: Cell::new(Vec::new()),
            channel: channel.shared.clone(),
            content: PhantomData,
        })
    }
}

/// Receives the records of a channel, those of each publisher in order. Dropping it stops.
///
/// It may move to another thread, and is used by one at a time. Its methods take `&self`, so that
/// it can be in a [`WaitSet`](crate::WaitSet) meanwhile.
pub struct Subscriber<T: ?Sized> {
    pub(crate) handle: NonNull<sys::shmb_subscriber>,
    view: NonNull<sys::shmb_view>,
    /// A view of records is out: what it shows may neither move on nor be released twice.
    peeked: Cell<bool>,
    /// Room for the lengths of a batch, kept from call to call.
    lens: Cell<Vec<u32>>,
    pub(crate) channel: Arc<ChannelShared>,
    content: PhantomData<fn() -> Box<T>>,
}

// SAFETY: the library binds no handle to a thread. It is not Sync, because one thread at a time
// uses it; NonNull and Cell see to that.
unsafe impl<T: ?Sized> Send for Subscriber<T> {}

impl<T: ?Sized> Drop for Subscriber<T> {
    fn drop(&mut self) {
        // SAFETY: open; views borrowed it, and are gone. If a forgotten wait set still has it, it
        // stays open, and nothing is freed.
        unsafe { sys::shmb_subscriber_close(self.handle.as_ptr()) };
    }
}

impl<T: ?Sized> fmt::Debug for Subscriber<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("stats", &self.stats()).finish()
    }
}

/// Where a record came from: what [`Subscriber::last`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// Who sent it.
    pub publisher_id: u64,
    /// Its number among those of its publisher, from 0.
    pub sequence: u64,
    /// The type that its publisher gave it, 0 if none.
    pub record_type: u16,
    /// So many file descriptors came with it and were not taken: [`Subscriber::take_fds`].
    pub fds: usize,
    /// So many came with it that this subscriber cannot have any more.
    pub fds_lost: usize,
}

/// Counters since the subscriber was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriberStats {
    /// Unique in this broker's life and after.
    pub subscriber_id: u64,
    /// Records.
    pub received: u64,
    /// Records lost because a publisher lapped this lossy or evicted subscriber.
    pub lost: u64,
    /// Times it went to sleep.
    pub sleeps: u64,
    /// Bounded sleeps that ended by themselves and found data; should be 0.
    pub backstops: u64,
    /// Records published and not received yet; at least this many.
    pub pending: u64,
    /// Publishers that it reads now, those that have gone but are not drained included.
    pub publishers: u32,
    /// Records skipped because they were older than the channel's
    /// [`ChannelOptions::ttl`](crate::ChannelOptions::ttl).
    pub expired: u64,
    /// Records of an ordered channel that were received behind one that was published later.
    pub disordered: u64,
    /// Records skipped because a newer one of their key was there: [`SubscriberOptions::conflate`].
    pub conflated: u64,
    /// File descriptors that came with records received and that it could not have any more.
    pub fds_lost: u64,
}

impl<T: ?Sized> Subscriber<T> {
    pub(crate) fn view(&self) -> &sys::shmb_view {
        // SAFETY: it lives as long as the handle, in memory of this process; only calls on the
        // handle write there, in this thread, and no reference outlives the next one.
        unsafe { self.view.as_ref() }
    }

    /// Where the last record came from; of a batch, its first.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let channel = client.channel_bytes("log")?;
    /// let subscriber = channel.subscriber()?;
    /// let mut publisher = channel.publisher()?;
    /// publisher.send(b"first")?;
    /// publisher.send(b"second")?;
    /// subscriber.recv_vec()?;
    /// subscriber.recv_vec()?;
    /// assert_eq!(subscriber.last().sequence, 1);
    /// assert_eq!(subscriber.last().publisher_id, publisher.stats()?.publisher_id);
    /// # Ok(())
    /// # }
    /// ```
    pub fn last(&self) -> Received {
        let view = self.view();
        Received {
            publisher_id: view.publisher_id,
            sequence: view.sequence,
            record_type: view.type_ as u16,
            fds: usize::from(view.n_fds),
            fds_lost: usize::from(view.n_fds_lost),
        }
    }

    /// The last record's number among those of its publisher, from 0.
    pub fn sequence(&self) -> u64 {
        self.view().sequence
    }

    /// How many records this subscriber has lost so far, of all publishers together, as of the
    /// last call that looked for one. A reliable one loses none.
    pub fn lost(&self) -> u64 {
        self.view().lost
    }

    /// Waits for a record: `true` when there is something to receive, `false` when the time is
    /// over. `None` waits for ever.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// # use std::time::Duration;
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let channel = client.channel_bytes("log")?;
    /// let subscriber = channel.subscriber()?;
    /// assert!(!subscriber.wait(Duration::from_millis(1))?);
    /// channel.publisher()?.send(b"hello")?;
    /// assert!(subscriber.wait(None)?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<bool> {
        let timeout_ns = nanoseconds(timeout.into());
        // SAFETY: open.
        let result = unsafe { sys::shmb_subscriber_wait(self.handle.as_ptr(), timeout_ns) };
        Ok(check_unless(result, ETIMEDOUT)?.is_some())
    }

    /// An fd for event loops, such as tokio's `AsyncFd` or `mio`: readable whenever something may
    /// have come since [`Subscriber::arm`] said `false`. Never read from it.
    ///
    /// The loop is: receive until there is nothing; arm; if that says `true`, receive again; else
    /// wait until the fd is readable.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let subscriber = client.channel_bytes("log")?.subscriber()?;
    /// let fd = subscriber.fd()?;
    /// while subscriber.arm()? {
    ///     while let Some(record) = subscriber.recv_vec()? {
    ///         println!("{} bytes", record.len());
    ///     }
    /// }
    /// // ... wait until fd is readable, and receive again.
    /// # let _ = fd;
    /// # Ok(())
    /// # }
    /// ```
    pub fn fd(&self) -> Result<BorrowedFd<'_>> {
        // SAFETY: open.
        let fd = check(unsafe { sys::shmb_subscriber_fd(self.handle.as_ptr()) })?;
        // SAFETY: it is open until the subscriber is closed.
        Ok(unsafe { BorrowedFd::borrow_raw(fd as RawFd) })
    }

    /// Prepares to sleep on [`Subscriber::fd`]: `true` if there is something to receive already.
    pub fn arm(&self) -> Result<bool> {
        // SAFETY: open.
        Ok(check(unsafe { sys::shmb_subscriber_arm(self.handle.as_ptr()) })? == 1)
    }

    /// The counters.
    pub fn stats(&self) -> Result<SubscriberStats> {
        // SAFETY: numbers, for which zeroes will do.
        let mut stats: sys::shmb_subscriber_stats = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: open, and as many bytes as we say.
        check(unsafe {
            let len = size_of::<sys::shmb_subscriber_stats>() as u32;
            sys::shmb_subscriber_stats(self.handle.as_ptr(), &mut stats, len)
        })?;
        Ok(SubscriberStats {
            subscriber_id: stats.subscriber_id,
            received: stats.received,
            lost: stats.lost,
            sleeps: stats.sleeps,
            backstops: stats.backstops,
            pending: stats.pending,
            publishers: stats.n_publishers,
            expired: stats.expired,
            disordered: stats.disordered,
            conflated: stats.conflated,
            fds_lost: stats.fds_lost,
        })
    }

    /// Takes the file descriptors that came with the record that was received last, or is looked at;
    /// none if it carries none or they were taken. What is not taken before the next call is closed
    /// without having been opened. [`Received::fds_lost`] says if some are missing, as those of
    /// records from before this subscriber came.
    ///
    /// What they are their publisher says: look before you use one.
    pub fn take_fds(&self) -> Result<Vec<OwnedFd>> {
        let mut fds = [0; FDS_MAX];
        // SAFETY: open, and there is room for so many.
        let count = check(unsafe {
            let cap = length(fds.len());
            sys::shmb_subscriber_take_fds(self.handle.as_ptr(), fds.as_mut_ptr(), cap)
        })?;
        // SAFETY: they are open, and nobody else's.
        Ok(fds[..count].iter().map(|&fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect())
    }

    /// Copies the next record to `data`; its length, `None` if there is none.
    ///
    /// # Safety
    ///
    /// `data` must be valid for writes of `cap` bytes.
    unsafe fn recv_bytes(
        &self,
        receive: Receive,
        data: *mut u8,
        cap: usize,
    ) -> Result<Option<usize>> {
        // SAFETY: open, and as the caller says.
        let result =
            unsafe { receive(self.handle.as_ptr(), data as *mut c_void, length(cap)) };
        check_unless(result, EAGAIN)
    }

    /// Copies records to `data`, their lengths to `lens`; how many.
    ///
    /// # Safety
    ///
    /// `data` must be valid for writes of `cap` bytes.
    unsafe fn recv_many_bytes(
        &self,
        data: *mut u8,
        cap: usize,
        lens: &mut Vec<u32>,
        max: usize,
    ) -> Result<usize> {
        let max = max.min(i32::MAX as usize);
        lens.clear();
        lens.reserve(max);
        // SAFETY: open, as the caller says, and lens has room for max.
        let result = unsafe {
            sys::shmb_subscriber_recv_many(
                self.handle.as_ptr(),
                data as *mut c_void,
                length(cap),
                lens.as_mut_ptr(),
                max as u32,
            )
        };
        let count = check_unless(result, EAGAIN)?.unwrap_or(0);
        // SAFETY: it filled one for each record, at most max.
        unsafe { lens.set_len(count.min(max)) };
        Ok(count)
    }

    fn peek_bytes(&self, max: usize) -> Result<Option<Batch<'_, T>>> {
        if self.peeked.get() {
            return Err(Error::new(EBUSY, "records are being looked at already"));
        }
        // SAFETY: open.
        let result = unsafe {
            sys::shmb_subscriber_peek(self.handle.as_ptr(), length(max).min(i32::MAX as u32))
        };
        let count = match check_unless(result, EAGAIN)? {
            None => return Ok(None),
            Some(count) => count,
        };
        let view = self.view();
        let (data, len, stride) = (view.data as usize as *const u8, view.len, view.stride);
        self.peeked.set(true);
        Ok(Some(Batch {
            subscriber: self,
            data,
            record_len: len as usize,
            count,
            stride: stride as usize,
        }))
    }

    fn release_bytes(&self, count: usize) -> Result<()> {
        self.peeked.set(false);
        // SAFETY: open.
        check(unsafe { sys::shmb_subscriber_release(self.handle.as_ptr(), length(count)) })
            .map(drop)
    }
}

/// A record of another length than its channel's schema says.
fn wrong_length(len: usize, want: usize) -> Error {
    Error::new(EBADMSG, format!("a publisher sent {} bytes where records have {}", len, want))
}

impl<T: Record> Subscriber<T> {
    /// Copies out the next record, `None` if there is none now. It never waits.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// shmbroker::record! { pub struct Point: "doc.point" { pub x: f32, pub y: f32 } }
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let channel = client.channel::<Point>("points")?;
    /// let subscriber = channel.subscriber()?;
    /// channel.publisher()?.send(&Point { x: 1.0, y: 2.0 })?;
    /// while let Some(point) = subscriber.recv()? {
    ///     assert_eq!(point.x, 1.0);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn recv(&self) -> Result<Option<T>> {
        self.record_by(sys::shmb_subscriber_recv)
    }

    pub(crate) fn record_by(&self, receive: Receive) -> Result<Option<T>> {
        let mut record = MaybeUninit::<T>::uninit();
        // SAFETY: room for one.
        if unsafe { self.recv_record(receive, record.as_mut_ptr())? } {
            // SAFETY: all of its bytes have been written, and any bytes are a T.
            Ok(Some(unsafe { record.assume_init() }))
        } else {
            Ok(None)
        }
    }

    /// Copies the next record over `record`, for those too large for a stack: `false` if there is
    /// none now.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions, Record};
    /// shmbroker::record! { pub struct Frame: "doc.frame" { pub pixels: [u8; 10000] } }
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let channel = client.channel::<Frame>("frames")?;
    /// let subscriber = channel.subscriber()?;
    /// channel.publisher()?.send(&Frame { pixels: [7; 10000] })?;
    ///
    /// let mut frame = Box::new(Frame::zeroed());
    /// assert!(subscriber.recv_into(&mut frame)?);
    /// assert_eq!(frame.pixels[9999], 7);
    /// assert!(!subscriber.recv_into(&mut frame)?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn recv_into(&self, record: &mut T) -> Result<bool> {
        // SAFETY: room for one.
        unsafe { self.recv_record(sys::shmb_subscriber_recv, record) }
    }

    /// # Safety
    ///
    /// `record` must be valid for writes of one.
    unsafe fn recv_record(&self, receive: Receive, record: *mut T) -> Result<bool> {
        // SAFETY: as the caller says.
        match unsafe { self.recv_bytes(receive, record as *mut u8, size_of::<T>()) } {
            Ok(None) => Ok(false),
            Ok(Some(len)) if len == size_of::<T>() => Ok(true),
            Ok(Some(len)) => Err(wrong_length(len, size_of::<T>())),
            Err(error) if error.errno() == EMSGSIZE => {
                // It would stay the next one for ever.
                let len = self.view().len as usize;
                if let Some(record) = self.peek_bytes(1)? {
                    drop(record);
                }
                Err(wrong_length(len, size_of::<T>()))
            }
            Err(error) => Err(error),
        }
    }

    /// Copies out up to `max` records in one call, and adds them to `records`. Says how many, 0 if
    /// there are none now.
    ///
    /// One call takes at most a mebibyte, or what `records` has room for already, so any `max` will
    /// do.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// shmbroker::record! { pub struct Point: "doc.point" { pub x: f32, pub y: f32 } }
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let subscriber = client.channel::<Point>("points")?.subscriber()?;
    /// let mut points = Vec::new();
    /// while subscriber.recv_many(&mut points, 1000)? > 0 {
    ///     for point in points.drain(..) {
    ///         println!("{} {}", point.x, point.y);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn recv_many(&self, records: &mut Vec<T>, max: usize) -> Result<usize> {
        let room = (MANY_LEN / size_of::<T>()).max(records.capacity() - records.len()).max(1);
        let max = max.min(room).min(u32::MAX as usize / size_of::<T>());
        if max == 0 {
            return Ok(0);
        }
        records.reserve(max);
        let mut lens = self.lens.take();
        let start = records.len();
        // SAFETY: room for max records behind those that are there.
        let result = unsafe {
            let data = records.as_mut_ptr().add(start) as *mut u8;
            self.recv_many_bytes(data, max * size_of::<T>(), &mut lens, max)
        };
        let wrong = lens.iter().position(|&len| len as usize != size_of::<T>());
        let wrong_len = wrong.map(|index| lens[index] as usize);
        self.lens.set(lens);
        match result {
            Ok(count) => {
                // Behind one of another length, nothing is where we could take it from.
                let good = wrong.unwrap_or(count);
                // SAFETY: the bytes of so many have been written, and any bytes are a T.
                unsafe { records.set_len(start + good) };
                match wrong_len {
                    Some(len) if good == 0 => Err(wrong_length(len, size_of::<T>())),
                    _ => Ok(good),
                }
            }
            // One that is too long: say so, and step over it.
            Err(error) if error.errno() == EMSGSIZE => match self.recv()? {
                None => Ok(0),
                Some(record) => {
                    records.push(record);
                    Ok(1)
                }
            },
            Err(error) => Err(error),
        }
    }

    /// Looks at the next record where it lies, `None` if there is none now.
    ///
    /// The sample borrows the subscriber, and is released when it is dropped. Only one view can be
    /// out at a time: another one, or a [`recv`](Subscriber::recv), meanwhile fails with
    /// [`ErrorKind::Busy`](crate::ErrorKind::Busy).
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// shmbroker::record! { pub struct Point: "doc.point" { pub x: f32, pub y: f32 } }
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let channel = client.channel::<Point>("points")?;
    /// let subscriber = channel.subscriber()?;
    /// channel.publisher()?.send(&Point { x: 1.0, y: 2.0 })?;
    /// if let Some(sample) = subscriber.peek()? {
    ///     let point = sample.read();
    ///     assert_eq!(point.y, 2.0);
    /// } // released here
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// It cannot outlive the subscriber:
    ///
    /// ```compile_fail
    /// # shmbroker::record! { pub struct Point: "doc.point" { pub x: f32, pub y: f32 } }
    /// # fn main() -> shmbroker::Result<()> {
    /// let subscriber = shmbroker::Client::open()?.channel::<Point>("points")?.subscriber()?;
    /// let sample = subscriber.peek()?;
    /// drop(subscriber);
    /// drop(sample);
    /// # Ok(())
    /// # }
    /// ```
    pub fn peek(&self) -> Result<Option<Sample<'_, T>>> {
        Ok(self.peek_many(1)?.map(|batch| Sample { batch }))
    }

    /// Looks at up to `max` records of one publisher where they lie, `None` if there are none now.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// shmbroker::record! { #[derive(Debug)] pub struct Point: "doc.point" { pub x: f32, pub y: f32 } }
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let channel = client.channel::<Point>("points")?;
    /// let subscriber = channel.subscriber()?;
    /// channel.publisher()?.send_many(&[Point { x: 1.0, y: 2.0 }; 10])?;
    /// let mut sum = 0.0;
    /// while let Some(batch) = subscriber.peek_many(64)? {
    ///     sum += batch.iter().map(|point| point.y).sum::<f32>();
    /// }
    /// assert_eq!(sum, 20.0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn peek_many(&self, max: usize) -> Result<Option<Batch<'_, T>>> {
        match self.peek_bytes(max)? {
            Some(batch) if batch.record_len != size_of::<T>() => {
                let len = batch.record_len;
                drop(batch);
                Err(wrong_length(len, size_of::<T>()))
            }
            other => Ok(other),
        }
    }
}

impl Subscriber<[u8]> {
    /// Copies the next record into `buffer`: its length, `None` if there is none now. It never
    /// waits.
    ///
    /// A record longer than the buffer stays the next one, and the call fails with
    /// [`ErrorKind::MessageSize`](crate::ErrorKind::MessageSize).
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let channel = client.channel_bytes("log")?;
    /// let subscriber = channel.subscriber()?;
    /// channel.publisher()?.send(b"hello")?;
    /// let mut buffer = [0; 64];
    /// let len = subscriber.recv(&mut buffer)?.unwrap();
    /// assert_eq!(&buffer[..len], b"hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn recv(&self, buffer: &mut [u8]) -> Result<Option<usize>> {
        // SAFETY: as many bytes as the slice has.
        unsafe { self.recv_bytes(sys::shmb_subscriber_recv, buffer.as_mut_ptr(), buffer.len()) }
    }

    /// Copies the next record into a new vector, `None` if there is none now.
    pub fn recv_vec(&self) -> Result<Option<Vec<u8>>> {
        self.vec_by(sys::shmb_subscriber_recv)
    }

    pub(crate) fn vec_by(&self, receive: Receive) -> Result<Option<Vec<u8>>> {
        let mut record = Vec::with_capacity(256);
        loop {
            // SAFETY: as many bytes as the vector has room for.
            match unsafe { self.recv_bytes(receive, record.as_mut_ptr(), record.capacity()) } {
                Ok(None) => return Ok(None),
                Ok(Some(len)) => {
                    // SAFETY: so many bytes have been written.
                    unsafe { record.set_len(len) };
                    return Ok(Some(record));
                }
                Err(error) if error.errno() == EMSGSIZE => {
                    let len = self.view().len as usize;
                    if len <= record.capacity() {
                        return Err(error);
                    }
                    record.reserve(len);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Copies records into `records`, as many as fit, in one call. Says how many, 0 if there are
    /// none now.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions, Records};
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let channel = client.channel_bytes("log")?;
    /// let subscriber = channel.subscriber()?;
    /// channel.publisher()?.send_many(b"onethree", &[3, 5])?;
    ///
    /// let mut records = Records::with_capacity(64 << 10, 1000);
    /// assert_eq!(subscriber.recv_many(&mut records)?, 2);
    /// assert_eq!(records.iter().collect::<Vec<_>>(), [&b"one"[..], b"three"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn recv_many(&self, records: &mut Records) -> Result<usize> {
        let (data, cap) = (records.bytes.as_mut_ptr(), records.bytes.len());
        // SAFETY: as many bytes as there are.
        unsafe { self.recv_many_bytes(data, cap, &mut records.lens, records.max) }
    }

    /// Looks at the next record where it lies, `None` if there is none now; see
    /// [`Sample`].
    pub fn peek(&self) -> Result<Option<Sample<'_, [u8]>>> {
        Ok(self.peek_bytes(1)?.map(|batch| Sample { batch }))
    }

    /// Looks at up to `max` records of one publisher and one length where they lie, `None` if
    /// there are none now.
    pub fn peek_many(&self, max: usize) -> Result<Option<Batch<'_, [u8]>>> {
        self.peek_bytes(max)
    }
}

impl<T: Content + ?Sized> Subscriber<T> {
    /// Copies out the next record, and waits for it: `None` when the time is over, which
    /// without a timeout it never is.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// # use std::time::Duration;
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let subscriber = client.channel_bytes("log")?.subscriber()?;
    /// assert_eq!(subscriber.recv_timeout(Duration::from_millis(1))?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn recv_timeout(&self, timeout: impl Into<Option<Duration>>) -> Result<Option<T::Owned>> {
        self.timeout_by(sys::shmb_subscriber_recv, timeout.into())
    }

    pub(crate) fn timeout_by(
        &self,
        receive: Receive,
        timeout: Option<Duration>,
    ) -> Result<Option<T::Owned>> {
        // The clock is read only once there is nothing.
        if let Some(record) = T::receive(self, receive)? {
            return Ok(Some(record));
        }
        let deadline = Deadline::after(timeout);
        loop {
            let found = self.wait(deadline.left())?;
            match T::receive(self, receive)? {
                None if found => {}
                other => return Ok(other),
            }
        }
    }

    /// Waits for each record in turn, for ever.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let channel = client.channel_bytes("log")?;
    /// let subscriber = channel.subscriber()?;
    /// channel.publisher()?.send_many(b"abc", &[1, 1, 1])?;
    /// for record in subscriber.iter() {
    ///     if record? == b"c" {
    ///         break;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { subscriber: self }
    }

    /// The records that are there now.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let channel = client.channel_bytes("log")?;
    /// let subscriber = channel.subscriber()?;
    /// channel.publisher()?.send_many(b"abc", &[1, 1, 1])?;
    /// assert_eq!(subscriber.try_iter().count(), 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter { subscriber: self }
    }
}

/// The fd of [`Subscriber::fd`], or -1 where that fails. Event loops take the subscriber itself
/// with it.
impl<T: ?Sized> AsRawFd for Subscriber<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.fd().map_or(-1, |fd| fd.as_raw_fd())
    }
}

/// Waits for each record in turn; from [`Subscriber::iter`].
#[derive(Debug)]
pub struct Iter<'s, T: ?Sized> {
    subscriber: &'s Subscriber<T>,
}

impl<T: Content + ?Sized> Iterator for Iter<'_, T> {
    type Item = Result<T::Owned>;

    fn next(&mut self) -> Option<Self::Item> {
        self.subscriber.recv_timeout(None).transpose()
    }
}

impl<'s, T: Content + ?Sized> IntoIterator for &'s Subscriber<T> {
    type Item = Result<T::Owned>;
    type IntoIter = Iter<'s, T>;

    fn into_iter(self) -> Iter<'s, T> {
        self.iter()
    }
}

/// The records that are there now; from [`Subscriber::try_iter`].
#[derive(Debug)]
pub struct TryIter<'s, T: ?Sized> {
    subscriber: &'s Subscriber<T>,
}

impl<T: Content + ?Sized> Iterator for TryIter<'_, T> {
    type Item = Result<T::Owned>;

    fn next(&mut self) -> Option<Self::Item> {
        T::receive(self.subscriber, sys::shmb_subscriber_recv).transpose()
    }
}

/// Room for records of any length, and the records in it; for
/// [`Subscriber::recv_many`](Subscriber::<[u8]>::recv_many).
#[derive(Clone, Debug)]
pub struct Records {
    bytes: Vec<u8>,
    lens: Vec<u32>,
    max: usize,
}

impl Records {
    /// Room for `records` records with `bytes` bytes together.
    pub fn with_capacity(bytes: usize, records: usize) -> Records {
        Records { bytes: vec![0; bytes], lens: Vec::with_capacity(records), max: records }
    }

    /// How many records there are.
    ///
    /// ```
    /// assert_eq!(shmbroker::Records::with_capacity(64, 8).len(), 0);
    /// ```
    pub fn len(&self) -> usize {
        self.lens.len()
    }

    /// Are there none?
    ///
    /// ```
    /// assert!(shmbroker::Records::with_capacity(64, 8).is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.lens.is_empty()
    }

    /// The records.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..];
        self.lens.iter().map(move |&len| {
            let (record, others) = rest.split_at(len as usize);
            rest = others;
            record
        })
    }
}

/// A record where it lies, from [`Subscriber::peek`]. Dropping it releases it.
///
/// The bytes are shared memory. A hostile publisher can change them at any time, and any publisher
/// can under a lossy subscriber, so this hands out copies and raw pointers, no reference. Under a
/// lossy subscriber a copy counts only once [`Sample::release`] has succeeded.
///
/// ```
/// # use shmbroker::{Broker, ClientOptions};
/// # fn main() -> shmbroker::Result<()> {
/// # let broker = Broker::start()?;
/// # let client = ClientOptions::new().address(broker.address()).open()?;
/// let channel = client.channel_bytes("log")?;
/// let subscriber = channel.subscriber()?;
/// channel.publisher()?.send(b"hello")?;
/// let sample = subscriber.peek()?.unwrap();
/// let mut start = [0; 2];
/// sample.copy_to(&mut start);
/// assert_eq!((&start, sample.len()), (b"he", 5));
/// sample.release()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a sample that is dropped is released"]
pub struct Sample<'s, T: ?Sized> {
    batch: Batch<'s, T>,
}

impl<T: ?Sized> Sample<'_, T> {
    /// Is done with it. Fails with [`ErrorKind::Stale`](crate::ErrorKind::Stale) if the subscriber
    /// is lossy and the record was overwritten meanwhile: what was seen is void.
    pub fn release(self) -> Result<()> {
        self.batch.release()
    }

    /// Leaves it where it is, as the next record.
    pub fn keep(self) {
        // Forgetting a look cannot fail: nothing of it is shared.
        let _ = self.batch.release_first(0);
    }

    /// Where it came from.
    pub fn received(&self) -> Received {
        self.batch.received()
    }
}

impl<'s, T: ?Sized> Sample<'s, T> {
    /// Keeps it, while the subscriber goes on reading. The channel says how many can be held at
    /// once; one that has no blocks allows none, and this fails with
    /// [`ErrorKind::Quota`](crate::ErrorKind::Quota). What lay in the lane is copied.
    ///
    /// Also of a lossy subscriber nobody overwrites what is held.
    ///
    /// ```
    /// # use shmbroker::{Broker, ChannelOptions, ClientOptions};
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let frames = ChannelOptions::new().record_len_max(1 << 20).open_bytes(&client, "frames")?;
    /// let subscriber = frames.subscriber()?;
    /// let mut publisher = frames.publisher()?;
    /// publisher.send(&vec![1; 1 << 20])?;
    /// publisher.send(&vec![2; 1 << 20])?;
    /// let first = subscriber.peek()?.unwrap().hold()?;
    /// let second = subscriber.peek()?.unwrap().hold()?;
    /// assert_eq!((first.to_vec()[0], second.to_vec()[0]), (1, 2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn hold(self) -> Result<Held<'s, T>> {
        let batch = ManuallyDrop::new(self.batch);
        let subscriber = batch.subscriber;
        let received = batch.received();
        subscriber.peeked.set(false);
        // SAFETY: open.
        let result = check(unsafe { sys::shmb_subscriber_hold(subscriber.handle.as_ptr()) });
        let hold = match result {
            Ok(hold) => hold as u32,
            Err(error) => {
                // It is still the next one, unless it is gone.
                let _ = subscriber.release_bytes(0);
                return Err(error);
            }
        };
        let view = subscriber.view();
        let (data, len) = (view.data as usize as *const u8, view.len as usize);
        Ok(Held { subscriber, hold, data, len, received })
    }
}

/// A record that is kept while the subscriber goes on reading, from [`Sample::hold`]. Dropping it
/// gives it back.
///
/// What [`Sample`] says about shared bytes holds here too, but that nobody overwrites it.
#[must_use = "a record that is dropped is not held any more"]
pub struct Held<'s, T: ?Sized> {
    subscriber: &'s Subscriber<T>,
    hold: u32,
    data: *const u8,
    len: usize,
    received: Received,
}

impl<T: ?Sized> Held<'_, T> {
    /// Is done with it. Fails with [`ErrorKind::Stale`](crate::ErrorKind::Stale) if the broker has
    /// thrown the subscriber out meanwhile, so that the record may have been overwritten.
    pub fn release(self) -> Result<()> {
        ManuallyDrop::new(self).unhold()
    }

    /// Where it came from.
    pub fn received(&self) -> Received {
        self.received
    }

    fn unhold(&self) -> Result<()> {
        // SAFETY: open, and dropped once.
        check(unsafe {
            sys::shmb_subscriber_unhold(self.subscriber.handle.as_ptr(), self.hold)
        })
        .map(drop)
    }
}

impl<T: Record> Held<'_, T> {
    /// A copy.
    pub fn read(&self) -> T {
        // SAFETY: mapped as long as it is held, aligned to 8; any bytes are a T.
        unsafe { ptr::read_volatile(self.data as *const T) }
    }

    /// Where it lies; good until it is released. Read it volatile.
    pub fn as_ptr(&self) -> *const T {
        self.data as *const T
    }
}

impl Held<'_, [u8]> {
    /// Bytes of the record.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Has it no bytes?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A copy.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len);
        // SAFETY: so many bytes are mapped, and there is room for them.
        unsafe {
            copy_shared(self.data, bytes.as_mut_ptr(), self.len);
            bytes.set_len(self.len);
        }
        bytes
    }

    /// Where it lies, aligned to 8; good until it is released. Read it volatile.
    pub fn as_ptr(&self) -> *const u8 {
        self.data
    }
}

impl<T: ?Sized> Drop for Held<'_, T> {
    fn drop(&mut self) {
        // Whoever cares whether it was whole calls release().
        let _ = self.unhold();
    }
}

impl<T: ?Sized> fmt::Debug for Held<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("len", &self.len).finish()
    }
}

impl<T: Record> Sample<'_, T> {
    /// A copy.
    pub fn read(&self) -> T {
        self.batch.read(0)
    }

    /// Where it lies. Read it with [`std::ptr::read_volatile`], field by field if you like; the
    /// pointer is good until the sample is released.
    pub fn as_ptr(&self) -> *const T {
        self.batch.data as *const T
    }

    /// The record itself.
    ///
    /// # Safety
    ///
    /// The subscriber is reliable, and you trust the publisher, who could change the record while
    /// the reference lives.
    pub unsafe fn as_ref(&self) -> &T {
        // SAFETY: initialised, aligned, any bytes are a T; nobody writes, as the caller says.
        unsafe { &*self.as_ptr() }
    }
}

impl Sample<'_, [u8]> {
    /// Bytes of the record.
    pub fn len(&self) -> usize {
        self.batch.record_len
    }

    /// Has it no bytes?
    pub fn is_empty(&self) -> bool {
        self.batch.record_len == 0
    }

    /// Copies its beginning: as many bytes as both have, and says how many.
    pub fn copy_to(&self, buffer: &mut [u8]) -> usize {
        let len = buffer.len().min(self.batch.record_len);
        // SAFETY: so many bytes are mapped, and the subscriber is borrowed.
        unsafe { copy_shared(self.batch.data, buffer.as_mut_ptr(), len) };
        len
    }

    /// A copy.
    pub fn to_vec(&self) -> Vec<u8> {
        self.batch.to_vec(0)
    }

    /// Where it lies, aligned to 8; good until the sample is released. Read it volatile.
    pub fn as_ptr(&self) -> *const u8 {
        self.batch.data
    }

    /// The bytes themselves.
    ///
    /// # Safety
    ///
    /// The subscriber is reliable, and you trust the publisher, who could change the bytes while
    /// the reference lives.
    pub unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: mapped and initialised; nobody writes, as the caller says.
        unsafe { std::slice::from_raw_parts(self.batch.data, self.batch.record_len) }
    }
}

impl<T: ?Sized> fmt::Debug for Sample<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sample").field("len", &self.batch.record_len).finish()
    }
}

/// Consecutive records of one publisher where they lie, from [`Subscriber::peek_many`]. Dropping it
/// releases them all.
///
/// What [`Sample`] says about shared bytes holds here too.
#[must_use = "a batch that is dropped is released"]
pub struct Batch<'s, T: ?Sized> {
    subscriber: &'s Subscriber<T>,
    data: *const u8,
    record_len: usize,
    count: usize,
    stride: usize,
}

impl<'s, T: ?Sized> Batch<'s, T> {
    /// How many records there are, at least 1.
    #[allow(clippy::len_without_is_empty)] // it never is
    pub fn len(&self) -> usize {
        self.count
    }

    /// Bytes from one record to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Where the first one came from.
    pub fn received(&self) -> Received {
        self.subscriber.last()
    }

    /// Is done with all of them; see [`Sample::release`].
    pub fn release(self) -> Result<()> {
        let count = self.count;
        self.release_first(count)
    }

    /// Is done with the first `count` of them; the others are the next records.
    pub fn release_first(self, count: usize) -> Result<()> {
        let batch = ManuallyDrop::new(self);
        batch.subscriber.release_bytes(count.min(batch.count))
    }

    fn at(&self, index: usize) -> *const u8 {
        assert!(index < self.count, "record {} of {}", index, self.count);
        // SAFETY: inside the records that are peeked at.
        unsafe { self.data.add(index * self.stride) }
    }
}

impl<'s, T: Record> Batch<'s, T> {
    /// A copy of one of them.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub fn read(&self, index: usize) -> T {
        // SAFETY: mapped as long as the subscriber is borrowed; records are aligned to 8, as much
        // as any T; any bytes are a T. Volatile, because another process may write there.
        unsafe { ptr::read_volatile(self.at(index) as *const T) }
    }

    /// Where the first one lies; the others follow at [`Batch::stride`]. Good until the batch is
    /// released. Read it volatile.
    pub fn as_ptr(&self) -> *const T {
        self.data as *const T
    }

    /// Copies of all of them.
    pub fn iter(&self) -> BatchIter<'_, T> {
        BatchIter { data: self.data, stride: self.stride, left: self.count, batch: PhantomData }
    }
}

impl Batch<'_, [u8]> {
    /// Bytes of each record.
    pub fn record_len(&self) -> usize {
        self.record_len
    }

    /// A copy of one of them.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub fn to_vec(&self, index: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.record_len);
        // SAFETY: so many bytes are mapped, and there is room for them.
        unsafe {
            copy_shared(self.at(index), bytes.as_mut_ptr(), self.record_len);
            bytes.set_len(self.record_len);
        }
        bytes
    }

    /// Where the first one lies; the others follow at [`Batch::stride`]. Good until the batch is
    /// released. Read it volatile.
    pub fn as_ptr(&self) -> *const u8 {
        self.data
    }
}

impl<T: ?Sized> Drop for Batch<'_, T> {
    fn drop(&mut self) {
        // Overwritten under a lossy subscriber: it is counted, and whoever cares calls release().
        let _ = self.subscriber.release_bytes(self.count);
    }
}

impl<T: ?Sized> fmt::Debug for Batch<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("count", &self.count)
            .field("record_len", &self.record_len)
            .finish()
    }
}

impl<'b, T: Record> IntoIterator for &'b Batch<'_, T> {
    type Item = T;
    type IntoIter = BatchIter<'b, T>;

    fn into_iter(self) -> BatchIter<'b, T> {
        self.iter()
    }
}

/// Copies of the records of a [`Batch`].
#[derive(Debug)]
pub struct BatchIter<'b, T> {
    data: *const u8,
    stride: usize,
    left: usize,
    batch: PhantomData<&'b T>,
}

impl<T: Record> Iterator for BatchIter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.left == 0 {
            return None;
        }
        // SAFETY: as Batch::read(); the batch is borrowed.
        let record = unsafe { ptr::read_volatile(self.data as *const T) };
        self.data = self.data.wrapping_add(self.stride);
        self.left -= 1;
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T: Record> ExactSizeIterator for BatchIter<'_, T> {}

/// Copies bytes that another process may be writing: each is loaded once, and what the compiler
/// sees later is the copy.
///
/// # Safety
///
/// `from` is aligned to 8 and readable, `to` writable, for `len` bytes.
pub(crate) unsafe fn copy_shared(from: *const u8, to: *mut u8, len: usize) {
    const BLOCK: usize = 64;
    let mut at = 0;
    while len - at >= BLOCK {
        // SAFETY: as the caller says; from + at is aligned to 8.
        unsafe {
            let block = ptr::read_volatile(from.add(at) as *const [u64; BLOCK / 8]);
            ptr::write_unaligned(to.add(at) as *mut [u64; BLOCK / 8], block);
        }
        at += BLOCK;
    }
    while at < len {
        // SAFETY: as the caller says.
        unsafe { *to.add(at) = ptr::read_volatile(from.add(at)) };
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_every_length() {
        let from: Vec<u64> = (0..64).map(|i| 0x0101_0101_0101_0101u64.wrapping_mul(i)).collect();
        // SAFETY: u64 as bytes.
        let bytes = unsafe { std::slice::from_raw_parts(from.as_ptr() as *const u8, 512) };
        for len in 0..=512 {
            let mut to = vec![0xee; 520];
            // SAFETY: so many bytes are there.
            unsafe { copy_shared(bytes.as_ptr(), to.as_mut_ptr(), len) };
            assert_eq!(&to[..len], &bytes[..len]);
            assert!(to[len..].iter().all(|&byte| byte == 0xee));
        }
    }
}
