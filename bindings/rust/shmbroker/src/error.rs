// SPDX-License-Identifier: Apache-2.0
//! Errors: a negative errno of the library, and its sentence.

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::os::raw::c_char;
use std::time::Duration;

use shmbroker_sys as sys;

/// The result of everything that can fail here.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something failed.
///
/// `Display` gives the library's sentence, with the limit and the value where there are any:
///
/// ```
/// use shmbroker::{Broker, Client, ClientOptions, ErrorKind};
/// # fn main() -> shmbroker::Result<()> {
/// let broker = Broker::start()?;
/// let client = ClientOptions::new().address(broker.address()).open()?;
/// let error = client.channel_bytes("No Such Name").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidInput);
/// assert!(error.to_string().len() > 10);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Error {
    errno: i32,
    // None where failing is everyday business: nothing is allocated for "try again".
    sentence: Option<Box<str>>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $($errno:literal)|+,)+) => {
        /// What sort of error it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind {
            $($(#[$doc])* $kind,)+
            /// Anything else; see [`Error::errno`].
            Other,
        }

        fn kind_of(errno: i32) -> ErrorKind {
            match errno {
                $($($errno)|+ => ErrorKind::$kind,)+
                _ => ErrorKind::Other,
            }
        }
    };
}

// errno numbers as Linux has them on x86, ARM and RISC-V.
kinds! {
    /// There is no broker or channel of that name, or none for this user.
    NotFound = 2,
    /// Nothing there now, or no room now: try again, or wait.
    WouldBlock = 11,
    /// No memory.
    OutOfMemory = 12,
    /// Policy or file permissions do not allow it.
    PermissionDenied = 1 | 13,
    /// Something that belongs to it is still in use: a loan, a peek, a wait set. Or another
    /// publisher has claimed the key.
    Busy = 16,
    /// It exists already.
    AlreadyExists = 17,
    /// An argument is impossible.
    InvalidInput = 22,
    /// This process or the system has too many open files.
    TooManyFiles = 23 | 24,
    /// No room in shared memory.
    NoSpace = 28,
    /// The handle was made before a fork, and this is the child.
    Forked = 10,
    /// A publisher wrote impossible bytes.
    BadMessage = 74,
    /// The record is longer than it can be.
    MessageSize = 90,
    /// The channel has another schema; the sentence names the field.
    SchemaMismatch = 91,
    /// No common protocol version, or a library that is too old.
    Unsupported = 93,
    /// Another broker runs there.
    AddressInUse = 98,
    /// There is no broker now; channels that are open keep flowing.
    NotConnected = 107,
    /// The server, or the caller, has gone.
    ConnectionReset = 104,
    /// It took too long.
    TimedOut = 62 | 110,
    /// Nobody listens on that socket.
    ConnectionRefused = 111,
    /// The channel has no server.
    NoServer = 113,
    /// The publisher was evicted, or what was looked at has been overwritten.
    Stale = 116,
    /// The server has failed; see [`Caller::code`](crate::Caller::code).
    Remote = 121,
    /// No slot or quota left.
    Quota = 122,
    /// The caller does not wait for the reply any more.
    Cancelled = 125,
    /// A key is not the one that was expected.
    KeyRejected = 129,
}

pub(crate) const ENOENT: i32 = 2;
pub(crate) const EAGAIN: i32 = 11;
pub(crate) const EBUSY: i32 = 16;
pub(crate) const EINVAL: i32 = 22;
pub(crate) const ENODATA: i32 = 61;
pub(crate) const EPROTO: i32 = 71;
pub(crate) const EBADMSG: i32 = 74;
pub(crate) const EMSGSIZE: i32 = 90;
pub(crate) const EPROTONOSUPPORT: i32 = 93;
pub(crate) const ETIMEDOUT: i32 = 110;

impl Error {
    /// From the negative result of a call that has just failed in this thread.
    pub(crate) fn last(result: i32) -> Error {
        let errno = result.wrapping_neg();
        if errno == EAGAIN || errno == ETIMEDOUT {
            return Error { errno, sentence: None };
        }
        let mut text = vec![0u8; 256];
        loop {
            // SAFETY: text is writable for as many bytes as we say.
            let len = unsafe {
                sys::shmb_last_error(text.as_mut_ptr() as *mut c_char, text.len() as u32)
            };
            let len = usize::try_from(len).unwrap_or(0);
            if len < text.len() {
                text.truncate(len);
                break;
            }
            text.resize(len + 1, 0);
        }
        let sentence = match text.len() {
            0 => None,
            _ => Some(String::from_utf8_lossy(&text).into()),
        };
        Error { errno, sentence }
    }

    /// An error found on this side.
    pub(crate) fn new(errno: i32, sentence: impl Into<String>) -> Error {
        Error { errno, sentence: Some(sentence.into().into_boxed_str()) }
    }

    /// What sort of error it is.
    pub fn kind(&self) -> ErrorKind {
        kind_of(self.errno)
    }

    /// The positive errno value.
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// Is it only that nothing was there, or no room was left, within the time given?
    pub fn is_would_block(&self) -> bool {
        matches!(self.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(sentence) = &self.sentence {
            return f.write_str(sentence);
        }
        // SAFETY: takes any number; gives NULL or a string that lives as long as the process.
        let text = unsafe { sys::shmb_strerror(self.errno.wrapping_neg()) };
        if text.is_null() {
            return write!(f, "error {}", self.errno);
        }
        // SAFETY: as above.
        f.write_str(&unsafe { CStr::from_ptr(text) }.to_string_lossy())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} (errno {}): {}", self.kind(), self.errno, self)
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        io::Error::new(io::Error::from_raw_os_error(error.errno).kind(), error)
    }
}

/// `result` as a count, or the error it stands for.
pub(crate) fn check(result: i32) -> Result<usize> {
    if result < 0 {
        Err(Error::last(result))
    } else {
        Ok(result as usize)
    }
}

/// As [`check`], with `None` for one errno that is no failure here.
pub(crate) fn check_unless(result: i32, errno: i32) -> Result<Option<usize>> {
    if result == -errno {
        Ok(None)
    } else {
        check(result).map(Some)
    }
}

/// A timeout as the library takes it: `None` waits for ever.
pub(crate) fn nanoseconds(timeout: Option<Duration>) -> i64 {
    match timeout {
        None => sys::SHMB_FOREVER,
        Some(timeout) => i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX),
    }
}

/// A length as the library takes it; nothing longer than u32::MAX can be sent anyway.
pub(crate) fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_io_kinds() {
        for (errno, kind, io_kind) in [
            (2, ErrorKind::NotFound, io::ErrorKind::NotFound),
            (11, ErrorKind::WouldBlock, io::ErrorKind::WouldBlock),
            (13, ErrorKind::PermissionDenied, io::ErrorKind::PermissionDenied),
            (110, ErrorKind::TimedOut, io::ErrorKind::TimedOut),
        ] {
            let error = Error::new(errno, "why");
            assert_eq!(error.kind(), kind);
            let error = io::Error::from(error);
            assert_eq!(error.kind(), io_kind);
            assert_eq!(error.to_string(), "why");
            let inner = error.get_ref().unwrap().downcast_ref::<Error>().unwrap();
            assert_eq!(inner.errno(), errno);
        }
        assert_eq!(Error::new(9999, "").kind(), ErrorKind::Other);
    }

    #[test]
    fn timeouts() {
        assert_eq!(nanoseconds(None), -1);
        assert_eq!(nanoseconds(Some(Duration::from_micros(3))), 3000);
        assert_eq!(nanoseconds(Some(Duration::MAX)), i64::MAX);
    }
}
