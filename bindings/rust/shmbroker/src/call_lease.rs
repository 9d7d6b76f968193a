// SPDX-License-Identifier: Apache-2.0
//! Requests and replies that are written, or read, where they lie.

use std::fmt;
use std::marker::PhantomData;
use std::mem::{size_of, ManuallyDrop};
use std::ops::{Deref, DerefMut};
use std::ptr;
use std::slice;
use std::time::Duration;

use shmbroker_sys as sys;

use crate::call::{Call, CallId, Caller, Server};
use crate::error::{check, length, nanoseconds, Result};
use crate::schema::Record;
use crate::subscriber::copy_shared;

/// A request or reply that stays where it lies, from [`Caller::recv_hold`] and
/// [`Server::recv_hold`], whatever becomes of the call and of who sent it. Dropping it gives it back.
///
/// Its bytes are shared: a hostile peer can change them meanwhile, so they are read volatile, and
/// copied before they are checked.
#[must_use = "what is dropped is not held any more"]
pub struct HeldMessage<'e, T: ?Sized> {
    unhold: &'e dyn Unhold,
    hold: u32,
    data: *const u8,
    len: usize,
    content: PhantomData<fn(&T)>,
}

/// Whoever holds it.
pub(crate) trait Unhold {
    fn unhold(&self, hold: u32) -> i32;
}

impl<C: Call + ?Sized> Unhold for Caller<C> {
    fn unhold(&self, hold: u32) -> i32 {
        // SAFETY: open.
        unsafe { sys::shmb_caller_unhold(self.end.handle.as_ptr(), hold) }
    }
}

impl<C: Call + ?Sized> Unhold for Server<C> {
    fn unhold(&self, hold: u32) -> i32 {
        // SAFETY: open.
        unsafe { sys::shmb_server_unhold(self.end.handle.as_ptr(), hold) }
    }
}

impl<'e, T: ?Sized> HeldMessage<'e, T> {
    pub(crate) fn new(
        unhold: &'e dyn Unhold,
        hold: u32,
        view: &sys::shmb_call_view,
    ) -> HeldMessage<'e, T> {
        let (data, len) = (view.data as usize as *const u8, view.len as usize);
        HeldMessage { unhold, hold, data, len, content: PhantomData }
    }

    /// Is done with it. Fails with [`ErrorKind::Stale`](crate::ErrorKind::Stale) if the broker has
    /// thrown this end out meanwhile, so that it may have been overwritten.
    pub fn release(self) -> Result<()> {
        let held = ManuallyDrop::new(self);
        check(held.unhold.unhold(held.hold)).map(drop)
    }
}

impl<T: Record> HeldMessage<'_, T> {
    /// A copy.
    pub fn read(&self) -> T {
        // SAFETY: mapped as long as it is held, aligned to 8; any bytes are a T, and the library
        // sees to it that there are as many.
        unsafe { ptr::read_volatile(self.data as *const T) }
    }

    /// Where it lies; good until it is released. Read it volatile.
    pub fn as_ptr(&self) -> *const T {
        self.data as *const T
    }
}

impl HeldMessage<'_, [u8]> {
    /// Its bytes.
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

impl<T: ?Sized> Drop for HeldMessage<'_, T> {
    fn drop(&mut self) {
        // Whoever cares whether it was whole calls release().
        self.unhold.unhold(self.hold);
    }
}

impl<T: ?Sized> fmt::Debug for HeldMessage<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldMessage").field("len", &self.len).finish()
    }
}

/// Memory for a request, where its server will read it, from [`Caller::loan`]. It is a record of the
/// channel's type, or bytes; dropping it gives it back unsent.
#[must_use = "a loan that is dropped is not sent"]
pub struct RequestLoan<'c, C: Call + ?Sized> {
    caller: &'c Caller<C>,
    data: *mut u8,
    len: usize,
}

/// Memory for a reply, where its caller will read it, from [`Server::loan`]. It is a record of the
/// channel's type, or bytes; dropping it gives it back unsent, and the call stays open.
#[must_use = "a loan that is dropped is not sent"]
pub struct ReplyLoan<'s, C: Call + ?Sized> {
    server: &'s Server<C>,
    data: *mut u8,
    len: usize,
}

macro_rules! loan {
    ($loan:ident, $end:ident, $side:ident, $message:ident, $cancel:ident) => {
        impl<'e, C: Call + ?Sized> $loan<'e, C> {
            pub(crate) fn new($end: &'e $side<C>, view: &sys::shmb_call_view) -> $loan<'e, C> {
                let (data, len) = (view.data as usize as *mut u8, view.len as usize);
                $loan { $end, data, len }
            }
        }

        impl<C: Call + ?Sized> Drop for $loan<'_, C> {
            fn drop(&mut self) {
                // SAFETY: open. If nothing is lent any more, it says so and does nothing.
                unsafe { sys::$cancel(self.$end.end.handle.as_ptr()) };
            }
        }

        impl<C: Call + ?Sized> Deref for $loan<'_, C>
        where
            C::$message: Lendable,
        {
            type Target = C::$message;

            fn deref(&self) -> &C::$message {
                // SAFETY: as many bytes as the library has lent, aligned to 8, initialised with
                // old ones or zeroes. Only this process can write there, and only through this
                // loan: there is one at a time.
                unsafe { C::$message::lent(self.data, self.len) }
            }
        }

        impl<C: Call + ?Sized> DerefMut for $loan<'_, C>
        where
            C::$message: Lendable,
        {
            fn deref_mut(&mut self) -> &mut C::$message {
                // SAFETY: as above; nobody reads it before it is sent.
                unsafe { C::$message::lent(self.data, self.len) }
            }
        }

        impl<C: Call + ?Sized> fmt::Debug for $loan<'_, C> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($loan)).field("len", &self.len).finish()
            }
        }
    };
}

loan! { RequestLoan, caller, Caller, Request, shmb_caller_cancel_loan }
loan! { ReplyLoan, server, Server, Reply, shmb_server_cancel_loan }

/// What memory can be lent for: a [`Record`], or `[u8]`.
pub trait Lendable {
    #[doc(hidden)]
    const LEN: Option<usize>;

    /// # Safety
    ///
    /// `len` initialised bytes at `data`, which are aligned to 8, and nobody else's for as long.
    #[doc(hidden)]
    unsafe fn lent<'l>(data: *mut u8, len: usize) -> &'l mut Self;
}

impl<T: Record> Lendable for T {
    const LEN: Option<usize> = Some(size_of::<T>());

    unsafe fn lent<'l>(data: *mut u8, _: usize) -> &'l mut T {
        // SAFETY: no record exceeds an alignment of 8, and any bytes are a T.
        unsafe { &mut *(data as *mut T) }
    }
}

impl Lendable for [u8] {
    const LEN: Option<usize> = None;

    unsafe fn lent<'l>(data: *mut u8, len: usize) -> &'l mut [u8] {
        // SAFETY: as the caller says.
        unsafe { slice::from_raw_parts_mut(data, len) }
    }
}

impl<C: Call + ?Sized> RequestLoan<'_, C> {
    /// Sends all of it. The call ends after the timeout. If that fails, it has been given back.
    ///
    /// `ConnectionReset`: the server that was to get it has gone.
    pub fn start(self, kind: u32, timeout: impl Into<Option<Duration>>) -> Result<CallId> {
        let len = self.len;
        self.start_len(len, kind, timeout)
    }

    /// Sends the first `len` bytes.
    pub fn start_len(
        self,
        len: usize,
        kind: u32,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<CallId> {
        let timeout = nanoseconds(timeout.into());
        let caller = self.caller.end.handle.as_ptr();
        // SAFETY: open, and lent.
        let call = unsafe { sys::shmb_caller_start_loan(caller, kind, length(len), timeout) };
        // Dropped in any case: what was sent is not lent any more.
        check(call).map(|call| CallId::new(call as i32))
    }
}

impl<C: Call + ?Sized> ReplyLoan<'_, C> {
    /// Sends all of it as the last reply, or the only one. If that fails, it has been given back.
    pub fn reply(self, kind: u32) -> Result<()> {
        let len = self.len;
        self.reply_bytes(len, kind, 0)
    }

    /// Sends the first `len` bytes as the last reply.
    pub fn reply_len(self, len: usize, kind: u32) -> Result<()> {
        self.reply_bytes(len, kind, 0)
    }

    /// Sends all of it as a reply that is not the last one.
    pub fn send(self, kind: u32) -> Result<()> {
        let len = self.len;
        self.reply_bytes(len, kind, sys::SHMB_REPLY_MORE)
    }

    /// Sends the first `len` bytes as a reply that is not the last one.
    pub fn send_len(self, len: usize, kind: u32) -> Result<()> {
        self.reply_bytes(len, kind, sys::SHMB_REPLY_MORE)
    }

    fn reply_bytes(self, len: usize, kind: u32, flags: u32) -> Result<()> {
        let server = self.server.end.handle.as_ptr();
        // SAFETY: open, and lent.
        let result = unsafe { sys::shmb_server_reply_loan(server, kind, length(len), flags) };
        // Dropped in any case: what was sent is not lent any more.
        check(result).map(drop)
    }
}
