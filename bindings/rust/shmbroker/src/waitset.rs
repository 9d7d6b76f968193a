// SPDX-License-Identifier: Apache-2.0
//! Waiting for many things at once.

use std::ffi::CStr;
use std::fmt;
use std::marker::PhantomData;
use std::os::unix::io::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use shmbroker_sys as sys;

use crate::broker::no_handle;
use crate::call::{Call, Caller, End, Server, Side};
use crate::client::{Client, ClientShared};
use crate::error::{check, check_unless, nanoseconds, Error, Result, EINVAL, ETIMEDOUT};
use crate::subscriber::Subscriber;

/// At most so many things are reported at once; the others come with the next call.
const READY_MAX: usize = 64;

/// One place to wait for many subscribers, callers, servers and fds.
///
/// Subscribers, callers and servers are only borrowed, so that you use them as ever. They cannot move, be
/// dropped or go to another thread as long as the set lives, and the set stays on its thread;
/// [`WaitSet::add_shared`] is for those that come and go.
///
/// ```
/// # use shmbroker::{Broker, ClientOptions, WaitSet};
/// # fn main() -> shmbroker::Result<()> {
/// # let broker = Broker::start()?;
/// # let client = ClientOptions::new().address(broker.address()).open()?;
/// let log = client.channel_bytes("log")?;
/// let audit = client.channel_bytes("audit")?;
/// let subscribers = [log.subscriber()?, audit.subscriber()?];
/// let mut set = WaitSet::open(&client)?;
/// for (index, subscriber) in subscribers.iter().enumerate() {
///     set.add(subscriber, index as u64)?;
/// }
///
/// audit.publisher()?.send(b"login")?;
/// for ready in set.wait(None)? {
///     let subscriber = &subscribers[ready.cookie() as usize];
///     while let Some(record) = subscriber.recv_vec()? {
///         assert_eq!(record, b"login");
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// ```compile_fail
/// # fn main() -> shmbroker::Result<()> {
/// let client = shmbroker::Client::open()?;
/// let subscriber = client.channel_bytes("log")?.subscriber()?;
/// let mut set = shmbroker::WaitSet::open(&client)?;
/// set.add(&subscriber, 0)?;
/// drop(subscriber);
/// set.wait(None)?;
/// # Ok(())
/// # }
/// ```
pub struct WaitSet<'a> {
    handle: NonNull<sys::shmb_waitset>,
    ready: Vec<Ready>,
    /// What add_shared() keeps alive, by handle. Dropped after our own drop() has closed the set.
    shared: Vec<(*mut sys::shmb_subscriber, Rc<dyn Member>)>,
    client: Arc<ClientShared>,
    /// Neither Send nor Sync, as shared references to subscribers are not.
    members: PhantomData<&'a Subscriber<[u8]>>,
}

trait Member {}
impl<T: ?Sized> Member for Subscriber<T> {}

impl Drop for WaitSet<'_> {
    fn drop(&mut self) {
        // SAFETY: open; what is in it stays open.
        unsafe { sys::shmb_waitset_close(self.handle.as_ptr()) };
    }
}

impl fmt::Debug for WaitSet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitSet").field("backend", &self.backend()).finish()
    }
}

/// One thing that is ready.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Ready(sys::shmb_ready);

impl Ready {
    /// As given when it was added.
    pub fn cookie(&self) -> u64 {
        self.0.cookie
    }

    /// Is it a subscriber?
    pub fn is_subscriber(&self) -> bool {
        self.0.kind == sys::SHMB_READY_SUBSCRIBER
    }

    /// Is it a caller?
    pub fn is_caller(&self) -> bool {
        self.0.kind == sys::SHMB_READY_CALLER
    }

    /// Is it a server?
    pub fn is_server(&self) -> bool {
        self.0.kind == sys::SHMB_READY_SERVER
    }

    /// Is it an fd?
    pub fn is_fd(&self) -> bool {
        self.0.kind == sys::SHMB_READY_FD
    }

    /// An fd's `POLLIN`, `POLLOUT`, ... as in poll(2).
    pub fn events(&self) -> u32 {
        self.0.events
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'a> WaitSet<'a> {
    /// An empty set, for subscribers of this client.
    pub fn open(client: &Client) -> Result<WaitSet<'a>> {
        let mut handle = ptr::null_mut();
        // SAFETY: the client is open.
        check(
            client
                .shared
                .handle
                .with(|client| unsafe { sys::shmb_waitset_open(client, &mut handle) }),
        )?;
        Ok(WaitSet {
            handle: NonNull::new(handle).ok_or_else(no_handle)?,
            ready: Vec::with_capacity(READY_MAX),
            shared: Vec::new(),
            client: client.shared.clone(),
            members: PhantomData,
        })
    }

    /// Adds a subscriber; `cookie` comes back when it is ready.
    pub fn add<T: ?Sized>(&mut self, subscriber: &'a Subscriber<T>, cookie: u64) -> Result<()> {
        self.add_handle(subscriber, cookie)
    }

    /// Adds a subscriber that the set owns a share of, until it is removed.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions, WaitSet};
    /// # use std::rc::Rc;
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let mut set = WaitSet::open(&client)?;
    /// let subscriber = Rc::new(client.channel_bytes("log")?.subscriber()?);
    /// set.add_shared(subscriber.clone(), 7)?;
    /// set.remove(&subscriber)?;
    /// assert!(Rc::try_unwrap(subscriber).is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn add_shared<T: ?Sized + 'static>(
        &mut self,
        subscriber: Rc<Subscriber<T>>,
        cookie: u64,
    ) -> Result<()> {
        self.add_handle(&*subscriber, cookie)?;
        self.shared.push((subscriber.handle.as_ptr(), subscriber));
        Ok(())
    }

    fn add_handle<T: ?Sized>(&mut self, subscriber: &Subscriber<T>, cookie: u64) -> Result<()> {
        if !Arc::ptr_eq(&self.client, &subscriber.channel.client) {
            return Err(Error::new(EINVAL, "the subscriber belongs to another client"));
        }
        // SAFETY: both are open; the callers see to it that the subscriber outlives the set, and
        // that only this thread uses it.
        check(unsafe {
            sys::shmb_waitset_add(self.handle.as_ptr(), subscriber.handle.as_ptr(), cookie)
        })
        .map(drop)
    }

    /// Takes a subscriber out.
    pub fn remove<T: ?Sized>(&mut self, subscriber: &Subscriber<T>) -> Result<()> {
        let handle = subscriber.handle.as_ptr();
        // SAFETY: both are open.
        check(unsafe { sys::shmb_waitset_remove(self.handle.as_ptr(), handle) })?;
        self.shared.retain(|(member, _)| *member != handle);
        Ok(())
    }

    /// Adds a caller. It is ready when [`Caller::recv_any`] without time has something, be it that a call
    /// has ended; now and then there is nothing then.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions, WaitSet};
    /// # use std::time::Duration;
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let calls = client.calls("shout")?;
    /// let (server, caller) = (calls.server()?, calls.caller()?);
    /// let mut set = WaitSet::open(&client)?;
    /// set.add_server(&server, 1)?;
    /// set.add_caller(&caller, 2)?;
    /// caller.start(0, b"hello", Duration::from_secs(10))?;
    /// let mut done = false;
    /// while !done {
    ///     for ready in set.wait(None)?.to_vec() {
    ///         if ready.is_server() {
    ///             while let Some(request) = server.recv(Duration::ZERO)? {
    ///                 server.reply(request.call, 0, &request.data, None)?;
    ///             }
    ///         } else if let Ok(reply) = caller.recv_any(Duration::ZERO) {
    ///             done = reply.data.as_deref() == Some(b"hello");
    ///         }
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn add_caller<C: Call + ?Sized>(
        &mut self,
        caller: &'a Caller<C>,
        cookie: u64,
    ) -> Result<()> {
        self.add_end(&caller.end, cookie)
    }

    /// Takes a caller out.
    pub fn remove_caller<C: Call + ?Sized>(&mut self, caller: &Caller<C>) -> Result<()> {
        self.remove_end(&caller.end)
    }

    /// Adds a server. It is ready when [`Server::recv`] without time has a request; now and then there is
    /// none then.
    pub fn add_server<C: Call + ?Sized>(
        &mut self,
        server: &'a Server<C>,
        cookie: u64,
    ) -> Result<()> {
        self.add_end(&server.end, cookie)
    }

    /// Takes a server out.
    pub fn remove_server<C: Call + ?Sized>(&mut self, server: &Server<C>) -> Result<()> {
        self.remove_end(&server.end)
    }

    fn add_end<S: Side>(&mut self, end: &End<S>, cookie: u64) -> Result<()> {
        if !Arc::ptr_eq(&self.client, &end.channel.client) {
            return Err(Error::new(EINVAL, "the caller or server belongs to another client"));
        }
        // SAFETY: both are open, and the end outlives the set on this thread.
        check(unsafe { S::add(self.handle.as_ptr(), end.handle.as_ptr(), cookie) }).map(drop)
    }

    fn remove_end<S: Side>(&mut self, end: &End<S>) -> Result<()> {
        // SAFETY: both are open.
        check(unsafe { S::remove(self.handle.as_ptr(), end.handle.as_ptr()) }).map(drop)
    }

    /// Adds an fd, which stays open as long as the set lives. `events` are `POLLIN`, `POLLOUT`, ...
    /// as in poll(2); level-triggered.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions, WaitSet};
    /// # use std::io::Write;
    /// # use std::os::unix::{io::AsFd, net::UnixStream};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// const POLLIN: u32 = 1;
    /// let (mut here, there) = UnixStream::pair()?;
    /// let mut set = WaitSet::open(&client)?;
    /// set.add_fd(there.as_fd(), POLLIN, 7)?;
    /// here.write_all(b"x")?;
    /// let ready = set.wait(None)?;
    /// assert!(ready[0].is_fd() && ready[0].cookie() == 7);
    /// # Ok(())
    /// # }
    /// ```
    pub fn add_fd(&mut self, fd: BorrowedFd<'a>, events: u32, cookie: u64) -> Result<()> {
        // SAFETY: open, and fd is too.
        check(unsafe {
            sys::shmb_waitset_add_fd(self.handle.as_ptr(), fd.as_raw_fd(), events, cookie)
        })
        .map(drop)
    }

    /// Takes an fd out.
    pub fn remove_fd(&mut self, fd: BorrowedFd<'_>) -> Result<()> {
        // SAFETY: open.
        check(unsafe { sys::shmb_waitset_remove_fd(self.handle.as_ptr(), fd.as_raw_fd()) })
            .map(drop)
    }

    /// Waits for any of them: those that are ready, none when the time is over. `None` waits for
    /// ever.
    ///
    /// What was ready and not emptied is reported again.
    pub fn wait(&mut self, timeout: impl Into<Option<Duration>>) -> Result<&[Ready]> {
        self.ready.clear();
        let timeout_ns = nanoseconds(timeout.into());
        // SAFETY: open, there is room for READY_MAX, and Ready is a transparent shmb_ready.
        let result = unsafe {
            let ready = self.ready.as_mut_ptr() as *mut sys::shmb_ready;
            sys::shmb_waitset_wait(self.handle.as_ptr(), ready, READY_MAX as u32, timeout_ns)
        };
        let count = check_unless(result, ETIMEDOUT)?.unwrap_or(0);
        // SAFETY: it filled so many.
        unsafe { self.ready.set_len(count.min(READY_MAX)) };
        Ok(&self.ready)
    }

    /// An fd for event loops: readable whenever something may have become ready since
    /// [`WaitSet::wait`] without time last found nothing. Never read from it.
    pub fn fd(&self) -> Result<BorrowedFd<'_>> {
        // SAFETY: open.
        let fd = check(unsafe { sys::shmb_waitset_fd(self.handle.as_ptr()) })?;
        // SAFETY: it is open until the set is closed.
        Ok(unsafe { BorrowedFd::borrow_raw(fd as RawFd) })
    }

    /// How it sleeps: "io_uring" or "epoll".
    pub fn backend(&self) -> &'static str {
        // SAFETY: open; gives a string that lives as long as the process.
        let text = unsafe { CStr::from_ptr(sys::shmb_waitset_backend(self.handle.as_ptr())) };
        text.to_str().unwrap_or("?")
    }
}

/// The fd of [`WaitSet::fd`], or -1 where that fails.
impl AsRawFd for WaitSet<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.fd().map_or(-1, |fd| fd.as_raw_fd())
    }
}
