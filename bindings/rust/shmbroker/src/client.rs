// SPDX-License-Identifier: Apache-2.0
//! The connection to a broker.

use std::fmt;
use std::mem::size_of;
use std::os::raw::c_char;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shmbroker_sys as sys;

use crate::broker::{c_path, no_handle};
use crate::call::{Call, Calls, CallsOptions};
use crate::channel::{Channel, ChannelOptions, Content};
use crate::check_abi;
use crate::error::{check, length, nanoseconds, Result};
use crate::queue::{Queue, QueueOptions};
use crate::state::{State, StateOptions};

/// How to connect.
///
/// ```
/// use shmbroker::{Broker, ClientOptions};
/// use std::time::Duration;
/// # fn main() -> shmbroker::Result<()> {
/// let broker = Broker::start()?;
/// let client = ClientOptions::new()
///     .address(broker.address())
///     .label("camera")
///     .connect_timeout(Duration::from_secs(1))
///     .open()?;
/// # let _ = client;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    flags: u32,
    address: Option<PathBuf>,
    label: Option<String>,
    key_file: Option<PathBuf>,
    broker_key_file: Option<PathBuf>,
    connect_timeout: Option<Duration>,
}

impl ClientOptions {
    /// The defaults: `$SHMBROKER_ADDRESS`, else the system's broker if its socket exists, else the
    /// user's own, which is started if there is none.
    pub fn new() -> ClientOptions {
        ClientOptions::default()
    }

    /// Path of the broker's control socket.
    pub fn address(mut self, address: impl AsRef<Path>) -> ClientOptions {
        self.address = Some(address.as_ref().to_path_buf());
        self
    }

    /// What `shmctl` shows for this process, at most 32 bytes; its command name otherwise.
    pub fn label(mut self, label: impl Into<String>) -> ClientOptions {
        self.label = Some(label.into());
        self
    }

    /// Private key of this client; `$SHMBROKER_KEY`, else a new one, otherwise.
    pub fn key_file(mut self, path: impl AsRef<Path>) -> ClientOptions {
        self.key_file = Some(path.as_ref().to_path_buf());
        self
    }

    /// Public key of the broker; `broker.pub` beside the socket otherwise.
    pub fn broker_key_file(mut self, path: impl AsRef<Path>) -> ClientOptions {
        self.broker_key_file = Some(path.as_ref().to_path_buf());
        self
    }

    /// How long to try; five seconds otherwise.
    pub fn connect_timeout(mut self, timeout: Duration) -> ClientOptions {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Whether a per-user broker may be started; yes otherwise.
    pub fn start_broker(mut self, yes: bool) -> ClientOptions {
        self.set(sys::SHMB_CLIENT_NO_START, !yes);
        self
    }

    /// Whether to accept a broker that sees another process than this one, as behind a relay.
    pub fn allow_relay(mut self, yes: bool) -> ClientOptions {
        self.set(sys::SHMB_CLIENT_ALLOW_RELAY, yes);
        self
    }

    fn set(&mut self, flag: u32, yes: bool) {
        self.flags = if yes { self.flags | flag } else { self.flags & !flag };
    }

    /// Connects.
    pub fn open(&self) -> Result<Client> {
        check_abi()?;
        let address = self.address.as_ref().map(|path| path.as_os_str().as_bytes());
        let label = self.label.as_ref().map(|label| label.as_bytes());
        let key_file = self.key_file.as_deref().map(c_path).transpose()?;
        let broker_key_file = self.broker_key_file.as_deref().map(c_path).transpose()?;
        let text = |bytes: Option<&[u8]>| match bytes {
            None => (ptr::null(), 0),
            Some(bytes) => (bytes.as_ptr() as *const c_char, length(bytes.len())),
        };
        let options = sys::shmb_client_options {
            options_len: size_of::<sys::shmb_client_options>() as u32,
            flags: self.flags,
            address: text(address).0,
            address_len: text(address).1,
            label_len: text(label).1,
            label: text(label).0,
            key_file: key_file.as_ref().map_or(ptr::null(), |path| path.as_ptr()),
            broker_key_file: broker_key_file.as_ref().map_or(ptr::null(), |path| path.as_ptr()),
            // Zero would mean the default: no time at all is the shortest there is.
            connect_timeout_ns: self.connect_timeout.map_or(0, |t| nanoseconds(Some(t)).max(1)),
        };
        let mut handle = ptr::null_mut();
        // SAFETY: the options and what they point to live until it returns.
        check(unsafe { sys::shmb_client_open(&options, &mut handle) })?;
        let handle = NonNull::new(handle).ok_or_else(no_handle)?;
        Ok(Client { shared: Arc::new(ClientShared { handle: Handle::new(handle) }) })
    }
}

/// A process's connection to a broker. Clones share it; it closes with the last thing that was
/// opened from it.
///
/// When the broker is gone, channels that are open keep flowing, and the client reconnects by
/// itself once there is a broker again.
///
/// ```no_run
/// # fn main() -> shmbroker::Result<()> {
/// let client = shmbroker::Client::open()?;
/// let log = client.channel_bytes("log")?;
/// log.publisher()?.send(b"hello")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) shared: Arc<ClientShared>,
}

#[derive(Debug)]
pub(crate) struct ClientShared {
    pub(crate) handle: Handle<sys::shmb_client>,
}

impl Drop for ClientShared {
    fn drop(&mut self) {
        // SAFETY: open; everything that was opened from it held a reference, and has closed.
        self.handle.with(|client| unsafe { sys::shmb_client_close(client) });
    }
}

impl Client {
    /// Connects with the defaults of [`ClientOptions`].
    pub fn open() -> Result<Client> {
        ClientOptions::new().open()
    }

    /// Lets a retained channel go: what publishers that have gone have left there now, the channel
    /// when nobody has it open any more.
    ///
    /// ```
    /// # use shmbroker::{Broker, ChannelOptions, ClientOptions};
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let retained = ChannelOptions::new().retain(true).history(10);
    /// let log = retained.open_bytes(&client, "log")?;
    /// log.publisher()?.send(b"hello")?; // and it has gone
    /// assert_eq!(log.subscriber()?.recv_vec()?.unwrap(), b"hello");
    /// client.remove("log")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn remove(&self, name: &str) -> Result<()> {
        // SAFETY: the client is open; the name lives until it returns.
        check(self.shared.handle.with(|client| unsafe {
            sys::shmb_channel_remove(client, name.as_ptr() as *const c_char, length(name.len()))
        }))?;
        Ok(())
    }

    /// Opens a channel of records, which is created if there is none.
    ///
    /// `name` is parts of `[a-z0-9._-]+` separated by `/`, at most 128 bytes. See
    /// [`ChannelOptions`] for more.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// shmbroker::record! { pub struct Point: "doc.point" { pub x: f32, pub y: f32 } }
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let channel = client.channel::<Point>("robot/target")?;
    /// assert_eq!(channel.info()?.record_len, 8);
    /// # Ok(())
    /// # }
    /// ```
    pub fn channel<T: Content + ?Sized>(&self, name: &str) -> Result<Channel<T>> {
        ChannelOptions::new().open(self, name)
    }

    /// Opens a channel of untyped records of any length, which is created if there is none.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// let channel = client.channel_bytes("log")?;
    /// assert!(channel.schema()?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn channel_bytes(&self, name: &str) -> Result<Channel<[u8]>> {
        self.channel(name)
    }

    /// Opens a queue: each record is for one worker. It is created if there is none.
    ///
    /// See [`Queue`], and [`QueueOptions`] for more.
    pub fn queue<T: Content + ?Sized>(&self, name: &str) -> Result<Queue<T>> {
        QueueOptions::new().open(self, name)
    }

    /// Opens a queue of untyped records, which is created if there is none.
    pub fn queue_bytes(&self, name: &str) -> Result<Queue<[u8]>> {
        self.queue(name)
    }

    /// Opens a state channel: the latest value of each key. It is created if there is none.
    ///
    /// See [`State`], and [`StateOptions`] for more.
    pub fn state<T: Content + ?Sized>(&self, name: &str) -> Result<State<T>> {
        StateOptions::new().open(self, name)
    }

    /// Opens a state channel of untyped values, which is created if there is none.
    pub fn state_bytes(&self, name: &str) -> Result<State<[u8]>> {
        self.state(name)
    }

    /// Opens a call channel: requests and replies. It is created if there is none.
    ///
    /// See [`Calls`], and [`CallsOptions`] for more.
    pub fn calls(&self, name: &str) -> Result<Calls> {
        CallsOptions::new().open(self, name)
    }

    /// Opens a typed call channel. It is created if there is none.
    ///
    /// See [`call!`](crate::call!).
    pub fn typed_calls<C: Call + ?Sized>(&self, name: &str) -> Result<Calls<C>> {
        CallsOptions::new().open_typed(self, name)
    }

    /// Asks the broker for a sign of life, and takes in what it has sent.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// # use std::time::Duration;
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// client.ping(Duration::from_secs(1))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn ping(&self, timeout: impl Into<Option<Duration>>) -> Result<()> {
        let timeout = nanoseconds(timeout.into());
        // SAFETY: open.
        check(self.shared.handle.with(|client| unsafe { sys::shmb_client_ping(client, timeout) }))
            .map(drop)
    }

    /// Is there a broker now? Either way channels that are open keep flowing.
    ///
    /// ```
    /// # use shmbroker::{Broker, ClientOptions};
    /// # fn main() -> shmbroker::Result<()> {
    /// # let broker = Broker::start()?;
    /// # let client = ClientOptions::new().address(broker.address()).open()?;
    /// assert!(client.is_connected());
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_connected(&self) -> bool {
        // SAFETY: open.
        self.shared.handle.with(|client| unsafe { sys::shmb_client_connected(client) }) == 1
    }
}

/// A handle that several threads may own: the library wants one of them at a time.
pub(crate) struct Handle<H> {
    pointer: NonNull<H>,
    lock: Mutex<()>,
}

// SAFETY: the library binds no handle to a thread, and with() lets in one at a time.
unsafe impl<H> Send for Handle<H> {}
// SAFETY: as above.
unsafe impl<H> Sync for Handle<H> {}

impl<H> fmt::Debug for Handle<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pointer.fmt(f)
    }
}

impl<H> Handle<H> {
    pub(crate) fn new(pointer: NonNull<H>) -> Handle<H> {
        Handle { pointer, lock: Mutex::new(()) }
    }

    pub(crate) fn with<R>(&self, call: impl FnOnce(*mut H) -> R) -> R {
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        call(self.pointer.as_ptr())
    }
}
