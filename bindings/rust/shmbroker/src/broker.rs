// SPDX-License-Identifier: Apache-2.0
//! A broker on a thread of this process.

use std::ffi::{CStr, CString, OsStr};
use std::mem::{size_of, ManuallyDrop};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};

use shmbroker_sys as sys;

use crate::check_abi;
use crate::error::{check, Error, Result, EINVAL};

/// How to start a [`Broker`].
///
/// ```
/// use shmbroker::BrokerOptions;
/// # fn main() -> shmbroker::Result<()> {
/// let directory = std::env::temp_dir().join(format!("shmb-doc-{}", std::process::id()));
/// let broker = BrokerOptions::new().directory(&directory).start()?;
/// assert!(broker.address().starts_with(&directory));
/// # drop(broker);
/// # let _ = std::fs::remove_dir_all(directory);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct BrokerOptions {
    directory: Option<PathBuf>,
}

impl BrokerOptions {
    /// The defaults: a directory of its own, removed at the end.
    pub fn new() -> BrokerOptions {
        BrokerOptions::default()
    }

    /// Where its socket, key and state are; made with mode 0700 if it does not exist.
    pub fn directory(mut self, directory: impl AsRef<Path>) -> BrokerOptions {
        self.directory = Some(directory.as_ref().to_path_buf());
        self
    }

    /// Starts it; clients can connect once this returns.
    pub fn start(&self) -> Result<Broker> {
        check_abi()?;
        let directory = self.directory.as_deref().map(c_path).transpose()?;
        let options = sys::shmb_broker_options {
            options_len: size_of::<sys::shmb_broker_options>() as u32,
            flags: 0,
            directory: directory.as_ref().map_or(ptr::null(), |path| path.as_ptr()),
        };
        let mut handle = ptr::null_mut();
        // SAFETY: the options and what they point to live until it returns.
        check(unsafe { sys::shmb_broker_start(&options, &mut handle) })?;
        let handle = NonNull::new(handle).ok_or_else(no_handle)?;
        // SAFETY: the handle is open; the string lives until the broker is stopped.
        let address = unsafe { CStr::from_ptr(sys::shmb_broker_address(handle.as_ptr())) };
        let address = PathBuf::from(OsStr::from_bytes(address.to_bytes()));
        Ok(Broker { handle, address })
    }
}

/// A broker on a thread of this process, for tests, process trees and containers.
///
/// It is the same core as the daemon `shmbrokerd`, and serves this user only. Dropping it stops
/// it and removes everything it made; channels that are open then still carry records between
/// those who are on them.
///
/// ```
/// use shmbroker::{Broker, ClientOptions};
/// # fn main() -> shmbroker::Result<()> {
/// let broker = Broker::start()?;
/// let client = ClientOptions::new().address(broker.address()).open()?;
/// assert!(client.is_connected());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Broker {
    handle: NonNull<sys::shmb_broker>,
    address: PathBuf,
}

// SAFETY: any thread but its own may stop it, and nobody else can name its own thread.
unsafe impl Send for Broker {}
// SAFETY: through a shared reference only the address can be read, which is ours.
unsafe impl Sync for Broker {}

impl Broker {
    /// Starts a broker with the defaults of [`BrokerOptions`].
    pub fn start() -> Result<Broker> {
        BrokerOptions::new().start()
    }

    /// Path of its control socket, for [`ClientOptions::address`](crate::ClientOptions::address)
    /// or `$SHMBROKER_ADDRESS`.
    pub fn address(&self) -> &Path {
        &self.address
    }

    /// Stops it; as dropping it, with the result.
    pub fn stop(self) -> Result<()> {
        let mut broker = ManuallyDrop::new(self);
        broker.address = PathBuf::new(); // what the forgotten broker owns
                                         // SAFETY: open, and gone after this: its drop never runs.
        check(unsafe { sys::shmb_broker_stop(broker.handle.as_ptr()) }).map(drop)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // SAFETY: open, and gone after this. It cannot fail.
        unsafe { sys::shmb_broker_stop(self.handle.as_ptr()) };
    }
}

/// A path or other text as C takes it.
pub(crate) fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::new(EINVAL, format!("path {:?} contains a NUL", path)))
}

/// For a NULL that cannot be: never trust it blindly.
pub(crate) fn no_handle() -> Error {
    Error::new(EINVAL, "the library reported success without a handle")
}
