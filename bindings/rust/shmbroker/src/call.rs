// SPDX-License-Identifier: Apache-2.0
//! Requests and replies.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::mem::{size_of, MaybeUninit};
use std::os::raw::{c_char, c_void};
use std::os::unix::io::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use shmbroker_sys as sys;

use crate::broker::no_handle;
use crate::call_lease::{HeldMessage, Lendable, ReplyLoan, RequestLoan};
use crate::channel::{Backing, Channel, ChannelInfo, ChannelOptions, ChannelShared, Content};
use crate::client::Client;
use crate::error::{
    check, check_unless, length, nanoseconds, Error, Result, EBADMSG, EINVAL, EMSGSIZE, ENODATA,
    ENOENT, EPROTO, ETIMEDOUT,
};

/// What requests and replies of a call channel are. Define it with [`call!`](crate::call!), or use
/// `[u8]`: both are bytes.
///
/// # Safety
///
/// `SCHEMA` is that of a struct of the records `Request` and `Reply`, which are called request and
/// reply; or `None`, and both are `[u8]`.
pub unsafe trait Call: 'static {
    /// A [`Record`](crate::Record), or `[u8]`.
    type Request: Content + ?Sized;
    /// A [`Record`](crate::Record), or `[u8]`.
    type Reply: Content + ?Sized;
    /// The table that the channel must have.
    const SCHEMA: Option<&'static [u8]>;
}

// SAFETY: bytes.
unsafe impl Call for [u8] {
    type Request = [u8];
    type Reply = [u8];
    const SCHEMA: Option<&'static [u8]> = None;
}

/// Defines what the requests and replies of a typed call channel are.
///
/// The string is what the call is called in every language. A channel of which somebody says something
/// else is refused, and the error names the field.
///
/// ```
/// # use shmbroker::{call, record, Broker, ClientOptions};
/// # use std::time::Duration;
/// record! {
///     #[derive(Debug, PartialEq)]
///     pub struct Query: "doc.query" { pub id: u32 }
/// }
/// record! {
///     #[derive(Debug, PartialEq)]
///     pub struct Quote: "doc.quote" { pub price: f64 }
/// }
/// call! { pub struct Lookup: "doc.lookup" { request: Query, reply: Quote } }
///
/// # fn main() -> shmbroker::Result<()> {
/// # let broker = Broker::start()?;
/// # let client = ClientOptions::new().address(broker.address()).open()?;
/// let calls = client.typed_calls::<Lookup>("lookup")?;
/// let server = calls.server()?;
/// let thread = std::thread::spawn(move || -> shmbroker::Result<()> {
///     let request = server.recv(None)?.unwrap();
///     server.reply(request.call, 0, &Quote { price: f64::from(request.data.id) }, None)
/// });
/// let caller = calls.caller()?;
/// let quote = caller.call(0, &Query { id: 7 }, Duration::from_secs(10))?;
/// assert_eq!(quote, Quote { price: 7.0 });
/// thread.join().unwrap()?;
/// # Ok(())
/// # }
/// ```
#[macro_export]
macro_rules! call {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident : $schema:literal {
            request: $request:ty, reply: $reply:ty $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis enum $name {}

        // SAFETY: the table's maker adds up the offsets as a compiler does.
        unsafe impl $crate::Call for $name {
            type Request = $request;
            type Reply = $reply;
            const SCHEMA: ::core::option::Option<&'static [u8]> = {
                const ROWS: usize = <$request as $crate::schema::Field>::ROWS
                    + <$reply as $crate::schema::Field>::ROWS;
                const LEN: usize = $crate::schema::Table::<0>::len(ROWS);
                const TABLE: [u8; LEN] = $crate::schema::Table::<LEN>::new($schema)
                    .part::<$request>("request")
                    .part::<$reply>("reply")
                    .finish_parts();
                ::core::option::Option::Some(&TABLE)
            };
        }

        // Computed even where nobody uses it, so that a mistake is seen here.
        const _: ::core::option::Option<&[u8]> = <$name as $crate::Call>::SCHEMA;
    };
}

/// How to open a call channel. Sizes and limits count when it is created.
#[derive(Clone, Debug)]
pub struct CallsOptions {
    channel: ChannelOptions,
}

impl Default for CallsOptions {
    fn default() -> Self {
        CallsOptions::new()
    }
}

impl CallsOptions {
    /// The defaults: create it if there is none.
    pub fn new() -> CallsOptions {
        CallsOptions { channel: ChannelOptions::calls() }
    }

    /// Whether to create it if there is none; yes otherwise.
    pub fn create(mut self, yes: bool) -> CallsOptions {
        self.channel = self.channel.create(yes);
        self
    }

    /// Whether it must be new.
    pub fn exclusive(mut self, yes: bool) -> CallsOptions {
        self.channel = self.channel.exclusive(yes);
        self
    }

    /// Bytes of each lane: a power of two from 4 KiB to 2 GiB, 256 KiB otherwise. A request or
    /// reply can have up to half of it, less 24 bytes, or up to [`CallsOptions::record_len_max`].
    pub fn lane_len(mut self, bytes: u32) -> CallsOptions {
        self.channel = self.channel.lane_len(bytes);
        self
    }

    /// At most so many lanes, of which there are two for each caller of each server; 1024
    /// otherwise.
    pub fn max_lanes(mut self, count: u32) -> CallsOptions {
        self.channel = self.channel.max_publishers(count);
        self
    }

    /// At most so many callers and servers; 256 otherwise.
    pub fn max_members(mut self, count: u32) -> CallsOptions {
        self.channel = self.channel.max_subscribers(count);
        self
    }

    /// Bytes of the longest request or reply; see [`ChannelOptions::record_len_max`]. Long ones
    /// then lie in blocks, of which a caller has some for each server and a server for each caller,
    /// and can be held.
    pub fn record_len_max(mut self, bytes: u32) -> CallsOptions {
        self.channel = self.channel.record_len_max(bytes);
        self
    }

    /// See [`ChannelOptions::arena_len`].
    pub fn arena_len(mut self, bytes: u64) -> CallsOptions {
        self.channel = self.channel.arena_len(bytes);
        self
    }

    /// See [`ChannelOptions::inline_len_max`]; here 1028 at least.
    pub fn inline_len_max(mut self, bytes: u32) -> CallsOptions {
        self.channel = self.channel.inline_len_max(bytes);
        self
    }

    /// So many requests or replies may each end hold, at most 64; 4 otherwise.
    pub fn max_holds(mut self, count: u32) -> CallsOptions {
        self.channel = self.channel.max_holds(count);
        self
    }

    /// See [`ChannelOptions::huge_pages`].
    pub fn huge_pages(mut self, yes: bool) -> CallsOptions {
        self.channel = self.channel.huge_pages(yes);
        self
    }

    /// See [`ChannelOptions::numa_node`].
    pub fn numa_node(mut self, node: u32) -> CallsOptions {
        self.channel = self.channel.numa_node(node);
        self
    }

    /// What lies behind its memory; rules of the broker may decide otherwise.
    pub fn backing(mut self, backing: Backing) -> CallsOptions {
        self.channel = self.channel.backing(backing);
        self
    }

    /// Opens the channel for bytes.
    pub fn open(&self, client: &Client, name: &str) -> Result<Calls> {
        self.open_typed(client, name)
    }

    /// Opens the channel for requests and replies of these types.
    pub fn open_typed<C: Call + ?Sized>(&self, client: &Client, name: &str) -> Result<Calls<C>> {
        let channel = self.channel.open_table(client, name, C::SCHEMA)?;
        Ok(Calls { channel, call: PhantomData })
    }
}

/// A call channel: requests to servers, and their replies. Clones share it.
///
/// Each call ends exactly once: with its last reply, with a failure, at its deadline, when it is
/// cancelled, or at once when its server goes. What goes between a caller and a server nobody else
/// can read.
///
/// ```
/// # use shmbroker::{Broker, ClientOptions};
/// # use std::time::Duration;
/// # fn main() -> shmbroker::Result<()> {
/// # let broker = Broker::start()?;
/// # let client = ClientOptions::new().address(broker.address()).open()?;
/// let calls = client.calls("shout")?;
/// let server = calls.server()?;
/// let thread = std::thread::spawn(move || -> shmbroker::Result<()> {
///     let request = server.recv(None)?.unwrap();
///     server.reply(request.call, 0, &request.data.to_ascii_uppercase(), None)
/// });
/// let caller = calls.caller()?;
/// assert_eq!(caller.call(0, b"hello", Duration::from_secs(10))?, b"HELLO");
/// thread.join().unwrap()?;
/// # Ok(())
/// # }
/// ```
pub struct Calls<C: ?Sized = [u8]> {
    channel: Channel<[u8]>,
    call: PhantomData<fn(&C)>,
}

impl<C: ?Sized> Clone for Calls<C> {
    fn clone(&self) -> Self {
        Calls { channel: self.channel.clone(), call: PhantomData }
    }
}

impl<C: Call + ?Sized> fmt::Debug for Calls<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("info", &self.info()).finish()
    }
}

impl<C: Call + ?Sized> Calls<C> {
    /// What the channel is and who is there: its publishers are callers, its subscribers servers.
    pub fn info(&self) -> Result<ChannelInfo> {
        self.channel.info()
    }

    /// Starts to call.
    pub fn caller(&self) -> Result<Caller<C>> {
        CallerOptions::new().open(self)
    }

    /// Starts to serve.
    pub fn server(&self) -> Result<Server<C>> {
        ServerOptions::new().open(self)
    }

    /// Waits until there are at least so many callers; `None` waits for ever.
    pub fn wait_for_callers(&self, n: u32, timeout: impl Into<Option<Duration>>) -> Result<()> {
        self.channel.wait_for_publishers(n, timeout)
    }

    /// Waits until there are at least so many servers; `None` waits for ever.
    pub fn wait_for_servers(&self, n: u32, timeout: impl Into<Option<Duration>>) -> Result<()> {
        self.channel.wait_for_subscribers(n, timeout)
    }
}

/// Number of a call, of its caller or of its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(i32);

impl CallId {
    pub(crate) fn new(number: i32) -> CallId {
        CallId(number)
    }
}

/// What one end of calls does in its own way: the library's functions take their own types.
pub(crate) trait Side: Sized {
    /// Counters.
    type Stats: Copy;
    unsafe fn open(channel: *mut sys::shmb_channel, options: &Options, ret: &mut *mut Self) -> i32;
    unsafe fn close(this: *mut Self) -> i32;
    unsafe fn view(this: *mut Self) -> *mut sys::shmb_call_view;
    unsafe fn fd(this: *mut Self) -> i32;
    unsafe fn arm(this: *mut Self) -> i32;
    unsafe fn stats(this: *mut Self, stats: *mut Self::Stats, cap: u32) -> i32;
    unsafe fn add(set: *mut sys::shmb_waitset, this: *mut Self, cookie: u64) -> i32;
    unsafe fn remove(set: *mut sys::shmb_waitset, this: *mut Self) -> i32;
}

macro_rules! side {
    (
        $side:ty, $stats:ty, $options:ident, $open:ident, $close:ident, $view:ident, $fd:ident,
        $arm:ident, $get_stats:ident, $add:ident, $remove:ident
    ) => {
        // SAFETY: all of them: the callers see to it that what they give is open.
        impl Side for $side {
            type Stats = $stats;
            unsafe fn open(
                channel: *mut sys::shmb_channel,
                options: &Options,
                ret: &mut *mut Self,
            ) -> i32 {
                let options = sys::$options {
                    options_len: size_of::<sys::$options>() as u32,
                    flags: options.flags,
                    spin_ns: u32::try_from(options.spin.as_nanos()).unwrap_or(u32::MAX),
                    pad: 0,
                };
                unsafe { sys::$open(channel, &options, ret) }
            }
            unsafe fn close(this: *mut Self) -> i32 {
                unsafe { sys::$close(this) }
            }
            unsafe fn view(this: *mut Self) -> *mut sys::shmb_call_view {
                unsafe { sys::$view(this) }
            }
            unsafe fn fd(this: *mut Self) -> i32 {
                unsafe { sys::$fd(this) }
            }
            unsafe fn arm(this: *mut Self) -> i32 {
                unsafe { sys::$arm(this) }
            }
            unsafe fn stats(this: *mut Self, stats: *mut $stats, cap: u32) -> i32 {
                unsafe { sys::$get_stats(this, stats, cap) }
            }
            unsafe fn add(set: *mut sys::shmb_waitset, this: *mut Self, cookie: u64) -> i32 {
                unsafe { sys::$add(set, this, cookie) }
            }
            unsafe fn remove(set: *mut sys::shmb_waitset, this: *mut Self) -> i32 {
                unsafe { sys::$remove(set, this) }
            }
        }
    };
}

side! {
    sys::shmb_caller, sys::shmb_caller_stats, shmb_caller_options, shmb_caller_open,
    shmb_caller_close, shmb_caller_view, shmb_caller_fd, shmb_caller_arm, shmb_caller_stats,
    shmb_waitset_add_caller, shmb_waitset_remove_caller
}
side! {
    sys::shmb_server, sys::shmb_server_stats, shmb_server_options, shmb_server_open,
    shmb_server_close, shmb_server_view, shmb_server_fd, shmb_server_arm, shmb_server_stats,
    shmb_waitset_add_server, shmb_waitset_remove_server
}

/// How an end is opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    flags: u32,
    spin: Duration,
}

impl Options {
    fn set(&mut self, flag: u32, yes: bool) {
        self.flags = if yes { self.flags | flag } else { self.flags & !flag };
    }
}

/// What caller and server have in common. It is closed when it is dropped.
pub(crate) struct End<S: Side> {
    pub(crate) handle: NonNull<S>,
    view: NonNull<sys::shmb_call_view>,
    /// For what comes, which may be longer than expected.
    buffer: Cell<Vec<u8>>,
    pub(crate) channel: Arc<ChannelShared>,
}

// SAFETY: the library binds no handle to a thread. It is not Sync: NonNull sees to that.
unsafe impl<S: Side> Send for End<S> {}

impl<S: Side> Drop for End<S> {
    fn drop(&mut self) {
        // SAFETY: open; what borrowed it is gone.
        unsafe { S::close(self.handle.as_ptr()) };
    }
}

impl<S: Side> End<S> {
    fn open<C: ?Sized>(calls: &Calls<C>, options: &Options) -> Result<End<S>> {
        let mut handle = ptr::null_mut();
        // SAFETY: the channel is open.
        check(
            calls
                .channel
                .shared
                .handle
                .with(|channel| unsafe { S::open(channel, options, &mut handle) }),
        )?;
        let handle = NonNull::new(handle).ok_or_else(no_handle)?;
        // SAFETY: open.
        let view = NonNull::new(unsafe { S::view(handle.as_ptr()) }).ok_or_else(no_handle)?;
        let channel = calls.channel.shared.clone();
        Ok(End { handle, view, buffer: Cell::new(vec![0; 4096]), channel })
    }

    fn view(&self) -> sys::shmb_call_view {
        // SAFETY: lives as long as the end, and only our calls write it.
        unsafe { *self.view.as_ptr() }
    }

    /// Calls until what comes fits, and makes of it what it is; `None`: the result was `-errno`.
    fn receive<T: Content + ?Sized>(
        &self,
        errno: i32,
        call: impl Fn(*mut S, *mut c_void, u32) -> i32,
    ) -> Result<Option<T::Owned>> {
        let mut buffer = self.buffer.take();
        let result = loop {
            let data = buffer.as_mut_ptr() as *mut c_void;
            let result = call(self.handle.as_ptr(), data, length(buffer.len()));
            let needed = self.view().len as usize;
            if result != -EMSGSIZE || needed <= buffer.len() {
                break result;
            }
            buffer.resize(needed, 0);
        };
        let received = check_unless(result, errno).and_then(|len| match len {
            None => Ok(None),
            Some(len) => match T::from_payload(&buffer[..len]) {
                Some(owned) => Ok(Some(owned)),
                None => Err(Error::new(EBADMSG, "it has not the length of the channel's type")),
            },
        });
        self.buffer.set(buffer);
        received
    }

    fn fd(&self) -> Result<BorrowedFd<'_>> {
        // SAFETY: open.
        let fd = check(unsafe { S::fd(self.handle.as_ptr()) })?;
        // SAFETY: it is open until the end is closed.
        Ok(unsafe { BorrowedFd::borrow_raw(fd as RawFd) })
    }

    fn arm(&self) -> Result<bool> {
        // SAFETY: open.
        Ok(check(unsafe { S::arm(self.handle.as_ptr()) })? == 1)
    }

    fn stats(&self) -> Result<S::Stats> {
        // SAFETY: numbers, for which zeroes will do.
        let mut stats: S::Stats = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: open, and as many bytes as we say.
        check(unsafe {
            S::stats(self.handle.as_ptr(), &mut stats, size_of::<S::Stats>() as u32)
        })?;
        Ok(stats)
    }
}

/// The bytes of a request or reply, as the library takes them.
fn bytes_of<T: Content + ?Sized>(payload: &T) -> (*const c_void, u32) {
    let bytes = payload.as_payload();
    (bytes.as_ptr() as *const c_void, length(bytes.len()))
}

/// How many bytes to lend.
fn loan_len<T: Lendable + ?Sized>(given: Option<usize>) -> Result<u32> {
    match (T::LEN, given) {
        (Some(len), None) => Ok(length(len)),
        (Some(len), Some(given)) if len == given => Ok(length(len)),
        (None, Some(given)) => Ok(length(given)),
        (None, None) => Err(Error::new(EINVAL, "a loan of bytes needs a len")),
        (Some(len), Some(given)) => {
            Err(Error::new(EINVAL, format!("the type has {} bytes, not {}", len, given)))
        }
    }
}

/// How a [`Caller`] calls.
#[derive(Clone, Debug, Default)]
pub struct CallerOptions(Options);

impl CallerOptions {
    /// The defaults.
    pub fn new() -> CallerOptions {
        CallerOptions::default()
    }

    /// Whether a call fails at once if there is no server; it waits for one otherwise.
    pub fn fail_fast(mut self, yes: bool) -> CallerOptions {
        self.0.set(sys::SHMB_CALLER_FAIL_FAST, yes);
        self
    }

    /// Whether servers of the same user may map the lanes of requests writable; see
    /// [`PublisherOptions::trusting`](crate::PublisherOptions::trusting).
    pub fn trusting(mut self, yes: bool) -> CallerOptions {
        self.0.set(sys::SHMB_CALLER_TRUSTING, yes);
        self
    }

    /// How long to poll before sleeping; zero never does.
    pub fn spin(mut self, spin: Duration) -> CallerOptions {
        self.0.set(sys::SHMB_CALLER_NO_SPIN, spin.is_zero());
        self.0.spin = spin;
        self
    }

    /// Starts to call.
    pub fn open<C: Call + ?Sized>(&self, calls: &Calls<C>) -> Result<Caller<C>> {
        Ok(Caller { end: End::open(calls, &self.0)?, call: PhantomData })
    }
}

/// One reply, from [`Caller::recv`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reply<T = Vec<u8>> {
    /// To which call.
    pub call: CallId,
    /// What the server has given, 0 to 4095.
    pub kind: u32,
    /// The reply; `None`: the call has ended without another one.
    pub data: Option<T>,
    /// Other replies follow.
    pub more: bool,
}

/// Sends requests to the servers of a channel, of several to the one with the fewest open calls.
/// Dropping it cancels what is open.
///
/// It may move to another thread, and is used by one at a time.
pub struct Caller<C: ?Sized = [u8]> {
    pub(crate) end: End<sys::shmb_caller>,
    call: PhantomData<fn(&C)>,
}

impl<C: Call + ?Sized> fmt::Debug for Caller<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("stats", &self.stats()).finish()
    }
}

/// Counters since the caller was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallerStats {
    /// Unique in this broker's life and after.
    pub caller_id: u64,
    /// Requests sent.
    pub calls: u64,
    /// Replies received.
    pub replies: u64,
    /// Replies to calls that had ended.
    pub late: u64,
    /// Calls that ended because their time was up.
    pub timeouts: u64,
    /// Calls that ended because their server had gone.
    pub resets: u64,
    /// Calls open now.
    pub open: u32,
    /// Servers now.
    pub servers: u32,
}

impl<C: Call + ?Sized> Caller<C> {
    /// Sends a request and waits for its reply; `None` waits for ever.
    ///
    /// `kind` is handed to the server, 0 to 4095: which method it is, say. The wait for a server
    /// counts, too. The error is `TimedOut`, and the server finds the call cancelled;
    /// `ConnectionReset` if the server goes; `Remote` if it fails, see [`Caller::code`]; `NoServer`
    /// if none is there and the caller is to fail fast; or another one if the server ends without
    /// a reply or replies more than once.
    pub fn call(
        &self,
        kind: u32,
        request: &C::Request,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<<C::Reply as Content>::Owned> {
        let call = self.start(kind, request, timeout)?;
        let reply = self.recv(call, None)?;
        if reply.more {
            self.cancel(call)?;
            return Err(Error::new(EPROTO, "the server replies more than once: start the call"));
        }
        reply.data.ok_or_else(|| Error::new(ENODATA, "the server has ended the call"))
    }

    /// Sends a request; its replies are asked for later. The call ends after the timeout.
    ///
    /// It waits only while there is no server, or no room in its lane.
    pub fn start(
        &self,
        kind: u32,
        request: &C::Request,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<CallId> {
        // SAFETY: open; the request has as many bytes as we say.
        let call = check(unsafe {
            let (data, len) = bytes_of(request);
            let timeout = nanoseconds(timeout.into());
            sys::shmb_caller_start(self.end.handle.as_ptr(), kind, data, len, timeout)
        })?;
        Ok(CallId(call as i32))
    }

    /// Lends memory for a request, where its server will read it: nobody copies it.
    ///
    /// `len`: its bytes at most, if requests are bytes; `None` if they have a type. The caller sends
    /// nothing else until it is sent or dropped: that is `Busy`. Others as [`Caller::start`].
    ///
    /// ```
    /// # use shmbroker::{Broker, CallsOptions, ClientOptions};
    /// # use std::time::Duration;
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let calls = CallsOptions::new().record_len_max(8 << 20).open(&client, "frames")?;
    /// let (server, caller) = (calls.server()?, calls.caller()?);
    /// let patience = Duration::from_secs(10);
    /// let mut loan = caller.loan(8 << 20, patience)?;
    /// loan[0] = 7;
    /// let call = loan.start(0, patience)?;
    ///
    /// let request = server.recv_hold(patience)?.unwrap();
    /// assert_eq!(request.data.len(), 8 << 20);
    /// let mut loan = server.loan(request.call, 8 << 20, patience)?;
    /// // SAFETY: inside the request, which is held.
    /// loan[0] = 2 * unsafe { request.data.as_ptr().read_volatile() };
    /// loan.reply(0)?;
    ///
    /// let reply = caller.recv_hold(call, patience)?;
    /// assert_eq!(reply.data.unwrap().to_vec()[0], 14);
    /// # Ok(())
    /// # }
    /// ```
    pub fn loan(
        &self,
        len: impl Into<Option<usize>>,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<RequestLoan<'_, C>>
    where
        C::Request: Lendable,
    {
        let len = loan_len::<C::Request>(len.into())?;
        // SAFETY: open.
        check(unsafe {
            sys::shmb_caller_loan(self.end.handle.as_ptr(), len, nanoseconds(timeout.into()))
        })?;
        Ok(RequestLoan::new(self, &self.end.view()))
    }

    /// As [`Caller::recv`], but the reply stays where it lies, with no copy, until it is dropped:
    /// as many as the channel's `max_holds` says. `Quota`: no more can be held, or the channel has
    /// no blocks.
    pub fn recv_hold(
        &self,
        call: CallId,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Reply<HeldMessage<'_, C::Reply>>> {
        self.receive_hold(call.0, nanoseconds(timeout.into()))
    }

    /// As [`Caller::recv_any`], and held as [`Caller::recv_hold`] does.
    pub fn recv_any_hold(
        &self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Reply<HeldMessage<'_, C::Reply>>> {
        self.receive_hold(0, nanoseconds(timeout.into()))
    }

    fn receive_hold(
        &self,
        call: i32,
        timeout: i64,
    ) -> Result<Reply<HeldMessage<'_, C::Reply>>> {
        // SAFETY: open.
        let result = unsafe { sys::shmb_caller_recv_hold(self.end.handle.as_ptr(), call, timeout) };
        let hold = check_unless(result, ENODATA)?;
        let view = self.end.view();
        Ok(Reply {
            call: CallId(view.call),
            kind: if hold.is_some() { view.type_ } else { 0 },
            more: hold.is_some() && view.more != 0,
            data: hold.map(|hold| HeldMessage::new(self, hold as u32, &view)),
        })
    }

    /// Sends a request and gives its replies, one after the other; dropping that cancels the call.
    pub fn stream(
        &self,
        kind: u32,
        request: &C::Request,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Replies<'_, C>> {
        let call = self.start(kind, request, timeout)?;
        Ok(Replies { caller: self, call, ended: false })
    }

    /// Waits for the next reply to a call; `None` waits until the call ends.
    ///
    /// `TimedOut` says that none has come in this time, and the call goes on, or that the time of
    /// the call is up; then its errno is `ETIME`.
    pub fn recv(&self, call: CallId, timeout: impl Into<Option<Duration>>) -> Result<Reply<<C::Reply as Content>::Owned>> {
        self.receive(call.0, nanoseconds(timeout.into()))
    }

    /// Waits for the next reply to any call; `NotFound`: none is open. [`Caller::last`] tells which
    /// one an error is about.
    pub fn recv_any(&self, timeout: impl Into<Option<Duration>>) -> Result<Reply<<C::Reply as Content>::Owned>> {
        self.receive(0, nanoseconds(timeout.into()))
    }

    fn receive(&self, call: i32, timeout: i64) -> Result<Reply<<C::Reply as Content>::Owned>> {
        let data = self.end.receive::<C::Reply>(ENODATA, |handle, data, cap| {
            // SAFETY: open, and as many bytes as it says.
            unsafe { sys::shmb_caller_recv(handle, call, data, cap, timeout) }
        })?;
        let view = self.end.view();
        Ok(Reply {
            call: CallId(view.call),
            kind: if data.is_some() { view.type_ } else { 0 },
            more: data.is_some() && view.more != 0,
            data,
        })
    }

    /// Ends a call; its server is told. `false`: it had ended.
    pub fn cancel(&self, call: CallId) -> Result<bool> {
        // SAFETY: open.
        let result = unsafe { sys::shmb_caller_cancel(self.end.handle.as_ptr(), call.0) };
        check_unless(result, ENOENT).map(|done| done.is_some())
    }

    /// The call that was last received for.
    pub fn last(&self) -> CallId {
        CallId(self.end.view().call)
    }

    /// The code of the last `Remote` error.
    pub fn code(&self) -> i32 {
        self.end.view().code
    }

    /// An fd for event loops, readable when something may have come since [`Caller::arm`].
    pub fn fd(&self) -> Result<BorrowedFd<'_>> {
        self.end.fd()
    }

    /// Prepares to sleep on [`Caller::fd`]: `true` if there is something to receive already.
    pub fn arm(&self) -> Result<bool> {
        self.end.arm()
    }

    /// The counters.
    pub fn stats(&self) -> Result<CallerStats> {
        let stats = self.end.stats()?;
        Ok(CallerStats {
            caller_id: stats.caller_id,
            calls: stats.calls,
            replies: stats.replies,
            late: stats.late,
            timeouts: stats.timeouts,
            resets: stats.resets,
            open: stats.n_open,
            servers: stats.n_servers,
        })
    }
}

/// The fd of [`Caller::fd`], or -1 where that fails.
impl<C: Call + ?Sized> AsRawFd for Caller<C> {
    fn as_raw_fd(&self) -> RawFd {
        self.fd().map_or(-1, |fd| fd.as_raw_fd())
    }
}

/// The replies to a request, from [`Caller::stream`].
#[derive(Debug)]
pub struct Replies<'c, C: Call + ?Sized = [u8]> {
    caller: &'c Caller<C>,
    call: CallId,
    ended: bool,
}

impl<C: Call + ?Sized> Iterator for Replies<'_, C> {
    type Item = Result<<C::Reply as Content>::Owned>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.caller.recv(self.call, None) {
            Ok(reply) => {
                self.ended = !reply.more;
                reply.data.map(Ok)
            }
            Err(error) => {
                self.ended = true;
                Some(Err(error))
            }
        }
    }
}

impl<C: Call + ?Sized> Drop for Replies<'_, C> {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.caller.cancel(self.call);
        }
    }
}

/// How a [`Server`] serves.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions(Options);

impl ServerOptions {
    /// The defaults.
    pub fn new() -> ServerOptions {
        ServerOptions::default()
    }

    /// As [`CallerOptions::trusting`], for replies.
    pub fn trusting(mut self, yes: bool) -> ServerOptions {
        self.0.set(sys::SHMB_SERVER_TRUSTING, yes);
        self
    }

    /// How long to poll before sleeping; zero never does.
    pub fn spin(mut self, spin: Duration) -> ServerOptions {
        self.0.set(sys::SHMB_SERVER_NO_SPIN, spin.is_zero());
        self.0.spin = spin;
        self
    }

    /// Starts to serve.
    pub fn open<C: Call + ?Sized>(&self, calls: &Calls<C>) -> Result<Server<C>> {
        Ok(Server { end: End::open(calls, &self.0)?, call: PhantomData })
    }
}

/// A request, to be answered by its number.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request<T = Vec<u8>> {
    /// For [`Server::reply`] and its kin.
    pub call: CallId,
    /// What the caller has given, 0 to 4095.
    pub kind: u32,
    /// The request.
    pub data: T,
    /// Process of the caller, as the broker knows it.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Unique in this broker's life and after.
    pub caller_id: u64,
    /// When the caller gives up, since the start of `CLOCK_MONOTONIC`, to some milliseconds.
    pub deadline: Option<Duration>,
}

/// Answers the requests of callers. Several servers share them. Dropping it ends its open calls.
///
/// It may move to another thread, and is used by one at a time.
pub struct Server<C: ?Sized = [u8]> {
    pub(crate) end: End<sys::shmb_server>,
    call: PhantomData<fn(&C)>,
}

impl<C: Call + ?Sized> fmt::Debug for Server<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("stats", &self.stats()).finish()
    }
}

/// Counters since the server was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Unique in this broker's life and after.
    pub server_id: u64,
    /// Requests handed out.
    pub requests: u64,
    /// Replies sent.
    pub replies: u64,
    /// Requests that were not handed out because their deadline had passed.
    pub expired: u64,
    /// Calls that were cancelled, or whose caller went, before they were answered.
    pub cancelled: u64,
    /// Calls open now.
    pub open: u32,
    /// Callers now.
    pub callers: u32,
    /// Of them, those whose requests wait because they have as many calls open as they may.
    pub held: u32,
}

impl<C: Call + ?Sized> Server<C> {
    /// The next request; `None`: none has come in this time.
    pub fn recv(
        &self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Option<Request<<C::Request as Content>::Owned>>> {
        let timeout = nanoseconds(timeout.into());
        let data = self.end.receive::<C::Request>(ETIMEDOUT, |handle, data, cap| {
            // SAFETY: open, and as many bytes as it says.
            unsafe { sys::shmb_server_recv(handle, data, cap, timeout) }
        })?;
        Ok(data.map(|data| self.request(data)))
    }

    /// As [`Server::recv`], but the request stays where it lies, with no copy, until it is dropped:
    /// as many as the channel's `max_holds` says. `Quota`: no more can be held, or the channel has
    /// no blocks.
    pub fn recv_hold(
        &self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Option<Request<HeldMessage<'_, C::Request>>>> {
        let timeout = nanoseconds(timeout.into());
        // SAFETY: open.
        let result = unsafe { sys::shmb_server_recv_hold(self.end.handle.as_ptr(), timeout) };
        let hold = check_unless(result, ETIMEDOUT)?;
        let view = self.end.view();
        Ok(hold.map(|hold| self.request(HeldMessage::new(self, hold as u32, &view))))
    }

    fn request<T>(&self, data: T) -> Request<T> {
        let view = self.end.view();
        Request {
            call: CallId(view.call),
            kind: view.type_,
            data,
            pid: view.pid,
            uid: view.uid,
            caller_id: view.peer_id,
            deadline: match view.deadline_ns {
                0 => None,
                ns => Some(Duration::from_nanos(ns)),
            },
        }
    }

    /// Lends memory for a reply, where its caller will read it: nobody copies it.
    ///
    /// `len`: its bytes at most, if replies are bytes; `None` if they have a type. The server sends
    /// nothing else until it is sent or dropped: that is `Busy`. Others as [`Server::reply`].
    pub fn loan(
        &self,
        call: CallId,
        len: impl Into<Option<usize>>,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<ReplyLoan<'_, C>>
    where
        C::Reply: Lendable,
    {
        let len = loan_len::<C::Reply>(len.into())?;
        let timeout = nanoseconds(timeout.into());
        // SAFETY: open.
        check(unsafe { sys::shmb_server_loan(self.end.handle.as_ptr(), call.0, len, timeout) })?;
        Ok(ReplyLoan::new(self, &self.end.view()))
    }

    /// Sends the last reply to a call, or the only one.
    ///
    /// `timeout` says how long to wait while the caller has a whole lane of replies to read:
    /// `TimedOut`, and the call goes on. `Cancelled` and `ConnectionReset` say that nobody waits
    /// for it any more, `NotFound` that it has been answered.
    pub fn reply(
        &self,
        call: CallId,
        kind: u32,
        data: &C::Reply,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<()> {
        self.send_reply(call, kind, data, 0, nanoseconds(timeout.into()))
    }

    /// Sends a reply that is not the last one.
    pub fn send(
        &self,
        call: CallId,
        kind: u32,
        data: &C::Reply,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<()> {
        self.send_reply(call, kind, data, sys::SHMB_REPLY_MORE, nanoseconds(timeout.into()))
    }

    fn send_reply(
        &self,
        call: CallId,
        kind: u32,
        data: &C::Reply,
        flags: u32,
        timeout: i64,
    ) -> Result<()> {
        // SAFETY: open; the reply has as many bytes as we say.
        check(unsafe {
            let (data, len) = bytes_of(data);
            let server = self.end.handle.as_ptr();
            sys::shmb_server_reply(server, call.0, kind, data, len, flags, timeout)
        })
        .map(drop)
    }

    /// There is no reply any more.
    pub fn end(&self, call: CallId, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let timeout = nanoseconds(timeout.into());
        // SAFETY: open.
        check(unsafe { sys::shmb_server_end(self.end.handle.as_ptr(), call.0, timeout) }).map(drop)
    }

    /// The call has failed: the caller gets the code and this sentence, of at most 1024 bytes.
    pub fn fail(
        &self,
        call: CallId,
        code: i32,
        text: &str,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<()> {
        let timeout = nanoseconds(timeout.into());
        // SAFETY: open; the text has as many bytes as we say.
        check(unsafe {
            let (data, len) = (text.as_ptr() as *const c_char, length(text.len()));
            sys::shmb_server_fail(self.end.handle.as_ptr(), call.0, code, data, len, timeout)
        })
        .map(drop)
    }

    /// Is it of no use any more to work on a call? `NotFound`: it has been answered.
    pub fn is_cancelled(&self, call: CallId) -> Result<bool> {
        // SAFETY: open.
        let result = unsafe { sys::shmb_server_cancelled(self.end.handle.as_ptr(), call.0) };
        check(result).map(|yes| yes == 1)
    }

    /// An fd for event loops, readable when something may have come since [`Server::arm`].
    pub fn fd(&self) -> Result<BorrowedFd<'_>> {
        self.end.fd()
    }

    /// Prepares to sleep on [`Server::fd`]: `true` if there is something to receive already.
    pub fn arm(&self) -> Result<bool> {
        self.end.arm()
    }

    /// The counters.
    pub fn stats(&self) -> Result<ServerStats> {
        let stats = self.end.stats()?;
        Ok(ServerStats {
            server_id: stats.server_id,
            requests: stats.requests,
            replies: stats.replies,
            expired: stats.expired,
            cancelled: stats.cancelled,
            open: stats.n_open,
            callers: stats.n_callers,
            held: stats.n_held,
        })
    }
}

/// The fd of [`Server::fd`], or -1 where that fails.
impl<C: Call + ?Sized> AsRawFd for Server<C> {
    fn as_raw_fd(&self) -> RawFd {
        self.fd().map_or(-1, |fd| fd.as_raw_fd())
    }
}
