// SPDX-License-Identifier: Apache-2.0
//! Requests and replies.

use std::fmt;
use std::mem::{size_of, MaybeUninit};
use std::os::raw::{c_char, c_void};
use std::os::unix::io::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use shmbroker_sys as sys;

use crate::broker::no_handle;
use crate::channel::{Backing, Channel, ChannelInfo, ChannelOptions, ChannelShared};
use crate::client::Client;
use crate::error::{
    check, check_unless, length, nanoseconds, Error, Result, EMSGSIZE, ENODATA, EPROTO, ETIMEDOUT,
};

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
    /// reply can have up to half of it, less 24 bytes.
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

    /// What lies behind its memory; rules of the broker may decide otherwise.
    pub fn backing(mut self, backing: Backing) -> CallsOptions {
        self.channel = self.channel.backing(backing);
        self
    }

    /// Opens the channel.
    pub fn open(&self, client: &Client, name: &str) -> Result<Calls> {
        Ok(Calls { channel: self.channel.open_bytes(client, name)? })
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
/// let mut server = calls.server()?;
/// let thread = std::thread::spawn(move || -> shmbroker::Result<()> {
///     let request = server.recv(None)?.unwrap();
///     server.reply(request.call, 0, &request.data.to_ascii_uppercase(), None)
/// });
/// let mut caller = calls.caller()?;
/// assert_eq!(caller.call(0, b"hello", Duration::from_secs(10))?, b"HELLO");
/// thread.join().unwrap()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Calls {
    channel: Channel<[u8]>,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("info", &self.info()).finish()
    }
}

impl Calls {
    /// What the channel is and who is there: its publishers are callers, its subscribers servers.
    pub fn info(&self) -> Result<ChannelInfo> {
        self.channel.info()
    }

    /// Starts to call.
    pub fn caller(&self) -> Result<Caller> {
        CallerOptions::new().open(self)
    }

    /// Starts to serve.
    pub fn server(&self) -> Result<Server> {
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

// What both sides have in common: memory for what comes, which may be longer than expected.
#[derive(Debug)]
struct Buffer(Vec<u8>);

impl Buffer {
    fn new() -> Buffer {
        Buffer(vec![0; 4096])
    }

    /// Calls until what comes fits. `len` tells what is needed.
    fn fill(
        &mut self,
        mut receive: impl FnMut(*mut c_void, u32) -> i32,
        len: impl Fn() -> u32,
    ) -> i32 {
        loop {
            let result = receive(self.0.as_mut_ptr() as *mut c_void, length(self.0.len()));
            let needed = len() as usize;
            if result != -EMSGSIZE || needed <= self.0.len() {
                return result;
            }
            self.0.resize(needed, 0);
        }
    }
}

/// How a [`Caller`] calls.
#[derive(Clone, Debug, Default)]
pub struct CallerOptions {
    flags: u32,
    spin: Duration,
}

impl CallerOptions {
    /// The defaults.
    pub fn new() -> CallerOptions {
        CallerOptions::default()
    }

    /// Whether a call fails at once if there is no server; it waits for one otherwise.
    pub fn fail_fast(mut self, yes: bool) -> CallerOptions {
        self.set(sys::SHMB_CALLER_FAIL_FAST, yes);
        self
    }

    /// Whether servers of the same user may map the lanes of requests writable; see
    /// [`PublisherOptions::trusting`](crate::PublisherOptions::trusting).
    pub fn trusting(mut self, yes: bool) -> CallerOptions {
        self.set(sys::SHMB_CALLER_TRUSTING, yes);
        self
    }

    /// How long to poll before sleeping; zero never does.
    pub fn spin(mut self, spin: Duration) -> CallerOptions {
        self.set(sys::SHMB_CALLER_NO_SPIN, spin.is_zero());
        self.spin = spin;
        self
    }

    fn set(&mut self, flag: u32, yes: bool) {
        self.flags = if yes { self.flags | flag } else { self.flags & !flag };
    }

    /// Starts to call.
    pub fn open(&self, calls: &Calls) -> Result<Caller> {
        let options = sys::shmb_caller_options {
            options_len: size_of::<sys::shmb_caller_options>() as u32,
            flags: self.flags,
            spin_ns: u32::try_from(self.spin.as_nanos()).unwrap_or(u32::MAX),
            pad: 0,
        };
        let mut handle = ptr::null_mut();
        // SAFETY: the channel is open, the options live until it returns.
        check(
            calls
                .channel
                .shared
                .handle
                .with(|channel| unsafe { sys::shmb_caller_open(channel, &options, &mut handle) }),
        )?;
        let handle = NonNull::new(handle).ok_or_else(no_handle)?;
        // SAFETY: open.
        let view = unsafe { sys::shmb_caller_view(handle.as_ptr()) };
        let view = NonNull::new(view).ok_or_else(no_handle)?;
        let channel = calls.channel.shared.clone();
        Ok(Caller { handle, view, buffer: Buffer::new(), _channel: channel })
    }
}

/// One reply, from [`Caller::recv`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reply {
    /// To which call.
    pub call: CallId,
    /// What the server has given, 0 to 4095.
    pub kind: u32,
    /// The reply; `None`: the call has ended without another one.
    pub data: Option<Vec<u8>>,
    /// Other replies follow.
    pub more: bool,
}

/// Sends requests to the servers of a channel, of several to the one with the fewest open calls.
/// Dropping it cancels what is open.
///
/// It may move to another thread, and is used by one at a time.
pub struct Caller {
    handle: NonNull<sys::shmb_caller>,
    view: NonNull<sys::shmb_call_view>,
    buffer: Buffer,
    _channel: Arc<ChannelShared>,
}

// SAFETY: the library binds no handle to a thread. It is not Sync: NonNull sees to that.
unsafe impl Send for Caller {}

impl Drop for Caller {
    fn drop(&mut self) {
        // SAFETY: open; streams borrowed it, and are gone.
        unsafe { sys::shmb_caller_close(self.handle.as_ptr()) };
    }
}

impl fmt::Debug for Caller {
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

impl Caller {
    fn view(&self) -> sys::shmb_call_view {
        // SAFETY: lives as long as the caller, and only our calls write it.
        unsafe { *self.view.as_ptr() }
    }

    /// Sends a request and waits for its reply; `None` waits for ever.
    ///
    /// `kind` is handed to the server, 0 to 4095: which method it is, say. The wait for a server
    /// counts, too. The error is `TimedOut`, and the server finds the call cancelled;
    /// `ConnectionReset` if the server goes; `Remote` if it fails, see [`Caller::code`]; `NoServer`
    /// if none is there and the caller is to fail fast; or another one if the server ends without
    /// a reply or replies more than once.
    pub fn call(
        &mut self,
        kind: u32,
        request: &[u8],
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Vec<u8>> {
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
        &mut self,
        kind: u32,
        request: &[u8],
        timeout: impl Into<Option<Duration>>,
    ) -> Result<CallId> {
        // SAFETY: open; the request has as many bytes as we say.
        let call = check(unsafe {
            let (data, len) = (request.as_ptr() as *const c_void, length(request.len()));
            let timeout = nanoseconds(timeout.into());
            sys::shmb_caller_start(self.handle.as_ptr(), kind, data, len, timeout)
        })?;
        Ok(CallId(call as i32))
    }

    /// Sends a request and gives its replies, one after the other; dropping that cancels the call.
    pub fn stream(
        &mut self,
        kind: u32,
        request: &[u8],
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Replies<'_>> {
        let call = self.start(kind, request, timeout)?;
        Ok(Replies { caller: self, call, ended: false })
    }

    /// Waits for the next reply to a call; `None` waits until the call ends.
    ///
    /// `TimedOut` says that none has come in this time, and the call goes on, or that the time of
    /// the call is up; then its errno is `ETIME`.
    pub fn recv(&mut self, call: CallId, timeout: impl Into<Option<Duration>>) -> Result<Reply> {
        self.receive(call.0, nanoseconds(timeout.into()))
    }

    /// Waits for the next reply to any call; `NotFound`: none is open. [`Caller::last`] tells which
    /// one an error is about.
    pub fn recv_any(&mut self, timeout: impl Into<Option<Duration>>) -> Result<Reply> {
        self.receive(0, nanoseconds(timeout.into()))
    }

    fn receive(&mut self, call: i32, timeout: i64) -> Result<Reply> {
        let (handle, view) = (self.handle.as_ptr(), self.view.as_ptr());
        let result = self.buffer.fill(
            // SAFETY: open, and as many bytes as the buffer says.
            |data, cap| unsafe { sys::shmb_caller_recv(handle, call, data, cap, timeout) },
            // SAFETY: lives as long as the caller.
            || unsafe { (*view).len },
        );
        let len = check_unless(result, ENODATA)?;
        let view = self.view();
        Ok(Reply {
            call: CallId(view.call),
            kind: if len.is_some() { view.type_ } else { 0 },
            data: len.map(|len| self.buffer.0[..len].to_vec()),
            more: len.is_some() && view.more != 0,
        })
    }

    /// Ends a call; its server is told. `false`: it had ended.
    pub fn cancel(&mut self, call: CallId) -> Result<bool> {
        // SAFETY: open.
        let result = unsafe { sys::shmb_caller_cancel(self.handle.as_ptr(), call.0) };
        check_unless(result, crate::error::ENOENT).map(|done| done.is_some())
    }

    /// The call that was last received for.
    pub fn last(&self) -> CallId {
        CallId(self.view().call)
    }

    /// The code of the last `Remote` error.
    pub fn code(&self) -> i32 {
        self.view().code
    }

    /// An fd for event loops, readable when something may have come since [`Caller::arm`].
    pub fn fd(&self) -> Result<BorrowedFd<'_>> {
        // SAFETY: open.
        let fd = check(unsafe { sys::shmb_caller_fd(self.handle.as_ptr()) })?;
        // SAFETY: it is open until the caller is closed.
        Ok(unsafe { BorrowedFd::borrow_raw(fd as RawFd) })
    }

    /// Prepares to sleep on [`Caller::fd`]: `true` if there is something to receive already.
    pub fn arm(&mut self) -> Result<bool> {
        // SAFETY: open.
        Ok(check(unsafe { sys::shmb_caller_arm(self.handle.as_ptr()) })? == 1)
    }

    /// The counters.
    pub fn stats(&self) -> Result<CallerStats> {
        // SAFETY: numbers, for which zeroes will do.
        let mut stats: sys::shmb_caller_stats = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: open, and as many bytes as we say.
        check(unsafe {
            let len = size_of::<sys::shmb_caller_stats>() as u32;
            sys::shmb_caller_stats(self.handle.as_ptr(), &mut stats, len)
        })?;
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
impl AsRawFd for Caller {
    fn as_raw_fd(&self) -> RawFd {
        self.fd().map_or(-1, |fd| fd.as_raw_fd())
    }
}

/// The replies to a request, from [`Caller::stream`].
#[derive(Debug)]
pub struct Replies<'c> {
    caller: &'c mut Caller,
    call: CallId,
    ended: bool,
}

impl Iterator for Replies<'_> {
    type Item = Result<Vec<u8>>;

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

impl Drop for Replies<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.caller.cancel(self.call);
        }
    }
}

/// How a [`Server`] serves.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    flags: u32,
    spin: Duration,
}

impl ServerOptions {
    /// The defaults.
    pub fn new() -> ServerOptions {
        ServerOptions::default()
    }

    /// As [`CallerOptions::trusting`], for replies.
    pub fn trusting(mut self, yes: bool) -> ServerOptions {
        self.set(sys::SHMB_SERVER_TRUSTING, yes);
        self
    }

    /// How long to poll before sleeping; zero never does.
    pub fn spin(mut self, spin: Duration) -> ServerOptions {
        self.set(sys::SHMB_SERVER_NO_SPIN, spin.is_zero());
        self.spin = spin;
        self
    }

    fn set(&mut self, flag: u32, yes: bool) {
        self.flags = if yes { self.flags | flag } else { self.flags & !flag };
    }

    /// Starts to serve.
    pub fn open(&self, calls: &Calls) -> Result<Server> {
        let options = sys::shmb_server_options {
            options_len: size_of::<sys::shmb_server_options>() as u32,
            flags: self.flags,
            spin_ns: u32::try_from(self.spin.as_nanos()).unwrap_or(u32::MAX),
            pad: 0,
        };
        let mut handle = ptr::null_mut();
        // SAFETY: the channel is open, the options live until it returns.
        check(
            calls
                .channel
                .shared
                .handle
                .with(|channel| unsafe { sys::shmb_server_open(channel, &options, &mut handle) }),
        )?;
        let handle = NonNull::new(handle).ok_or_else(no_handle)?;
        // SAFETY: open.
        let view = unsafe { sys::shmb_server_view(handle.as_ptr()) };
        let view = NonNull::new(view).ok_or_else(no_handle)?;
        let channel = calls.channel.shared.clone();
        Ok(Server { handle, view, buffer: Buffer::new(), _channel: channel })
    }
}

/// A request, to be answered by its number.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// For [`Server::reply`] and its kin.
    pub call: CallId,
    /// What the caller has given, 0 to 4095.
    pub kind: u32,
    /// The request.
    pub data: Vec<u8>,
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
pub struct Server {
    handle: NonNull<sys::shmb_server>,
    view: NonNull<sys::shmb_call_view>,
    buffer: Buffer,
    _channel: Arc<ChannelShared>,
}

// SAFETY: the library binds no handle to a thread. It is not Sync: NonNull sees to that.
unsafe impl Send for Server {}

impl Drop for Server {
    fn drop(&mut self) {
        // SAFETY: open.
        unsafe { sys::shmb_server_close(self.handle.as_ptr()) };
    }
}

impl fmt::Debug for Server {
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
}

impl Server {
    /// The next request; `None`: none has come in this time.
    pub fn recv(&mut self, timeout: impl Into<Option<Duration>>) -> Result<Option<Request>> {
        let timeout = nanoseconds(timeout.into());
        let (handle, view) = (self.handle.as_ptr(), self.view.as_ptr());
        let result = self.buffer.fill(
            // SAFETY: open, and as many bytes as the buffer says.
            |data, cap| unsafe { sys::shmb_server_recv(handle, data, cap, timeout) },
            // SAFETY: lives as long as the server.
            || unsafe { (*view).len },
        );
        let len = match check_unless(result, ETIMEDOUT)? {
            None => return Ok(None),
            Some(len) => len,
        };
        // SAFETY: as above.
        let view = unsafe { *view };
        Ok(Some(Request {
            call: CallId(view.call),
            kind: view.type_,
            data: self.buffer.0[..len].to_vec(),
            pid: view.pid,
            uid: view.uid,
            caller_id: view.peer_id,
            deadline: match view.deadline_ns {
                0 => None,
                ns => Some(Duration::from_nanos(ns)),
            },
        }))
    }

    /// Sends the last reply to a call, or the only one.
    ///
    /// `timeout` says how long to wait while the caller has a whole lane of replies to read:
    /// `TimedOut`, and the call goes on. `Cancelled` and `ConnectionReset` say that nobody waits
    /// for it any more, `NotFound` that it has been answered.
    pub fn reply(
        &mut self,
        call: CallId,
        kind: u32,
        data: &[u8],
        timeout: impl Into<Option<Duration>>,
    ) -> Result<()> {
        self.send_reply(call, kind, data, 0, nanoseconds(timeout.into()))
    }

    /// Sends a reply that is not the last one.
    pub fn send(
        &mut self,
        call: CallId,
        kind: u32,
        data: &[u8],
        timeout: impl Into<Option<Duration>>,
    ) -> Result<()> {
        self.send_reply(call, kind, data, sys::SHMB_REPLY_MORE, nanoseconds(timeout.into()))
    }

    fn send_reply(
        &mut self,
        call: CallId,
        kind: u32,
        data: &[u8],
        flags: u32,
        timeout: i64,
    ) -> Result<()> {
        // SAFETY: open; the reply has as many bytes as we say.
        check(unsafe {
            let (data, len) = (data.as_ptr() as *const c_void, length(data.len()));
            let server = self.handle.as_ptr();
            sys::shmb_server_reply(server, call.0, kind, data, len, flags, timeout)
        })
        .map(drop)
    }

    /// There is no reply any more.
    pub fn end(&mut self, call: CallId, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let timeout = nanoseconds(timeout.into());
        // SAFETY: open.
        check(unsafe { sys::shmb_server_end(self.handle.as_ptr(), call.0, timeout) }).map(drop)
    }

    /// The call has failed: the caller gets the code and this sentence, of at most 1024 bytes.
    pub fn fail(
        &mut self,
        call: CallId,
        code: i32,
        text: &str,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<()> {
        let timeout = nanoseconds(timeout.into());
        // SAFETY: open; the text has as many bytes as we say.
        check(unsafe {
            let (data, len) = (text.as_ptr() as *const c_char, length(text.len()));
            sys::shmb_server_fail(self.handle.as_ptr(), call.0, code, data, len, timeout)
        })
        .map(drop)
    }

    /// Is it of no use any more to work on a call? `NotFound`: it has been answered.
    pub fn is_cancelled(&mut self, call: CallId) -> Result<bool> {
        // SAFETY: open.
        let result = unsafe { sys::shmb_server_cancelled(self.handle.as_ptr(), call.0) };
        check(result).map(|yes| yes == 1)
    }

    /// An fd for event loops, readable when something may have come since [`Server::arm`].
    pub fn fd(&self) -> Result<BorrowedFd<'_>> {
        // SAFETY: open.
        let fd = check(unsafe { sys::shmb_server_fd(self.handle.as_ptr()) })?;
        // SAFETY: it is open until the server is closed.
        Ok(unsafe { BorrowedFd::borrow_raw(fd as RawFd) })
    }

    /// Prepares to sleep on [`Server::fd`]: `true` if there is something to receive already.
    pub fn arm(&mut self) -> Result<bool> {
        // SAFETY: open.
        Ok(check(unsafe { sys::shmb_server_arm(self.handle.as_ptr()) })? == 1)
    }

    /// The counters.
    pub fn stats(&self) -> Result<ServerStats> {
        // SAFETY: numbers, for which zeroes will do.
        let mut stats: sys::shmb_server_stats = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: open, and as many bytes as we say.
        check(unsafe {
            let len = size_of::<sys::shmb_server_stats>() as u32;
            sys::shmb_server_stats(self.handle.as_ptr(), &mut stats, len)
        })?;
        Ok(ServerStats {
            server_id: stats.server_id,
            requests: stats.requests,
            replies: stats.replies,
            expired: stats.expired,
            cancelled: stats.cancelled,
            open: stats.n_open,
            callers: stats.n_callers,
        })
    }
}

/// The fd of [`Server::fd`], or -1 where that fails.
impl AsRawFd for Server {
    fn as_raw_fd(&self) -> RawFd {
        self.fd().map_or(-1, |fd| fd.as_raw_fd())
    }
}
