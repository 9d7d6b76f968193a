// SPDX-License-Identifier: Apache-2.0
//! Declarations of libshmbroker's C API, as in `shmbroker/shmbroker.h` and `shmbroker/schema.h`.
//!
//! The headers say what each function does, and the crate `shmbroker` wraps them safely. What is
//! here is written by hand: no generator runs when you build. The sizes and offsets are asserted
//! at compile time, and `tests/header.rs` compares everything with the headers.

#![allow(non_camel_case_types)]

pub use std::os::raw::{c_char, c_void};

/// Wait for ever.
pub const SHMB_FOREVER: i64 = -1;
/// The first library version that has every function below.
pub const SHMB_ABI_VERSION: i32 = 1;

macro_rules! opaque {
    ($($name:ident)+) => {$(
        #[repr(C)]
        pub struct $name {
            _bytes: [u8; 0],
            // Neither Send nor Sync nor Unpin: only libshmbroker knows what is inside.
            _marker: core::marker::PhantomData<(*mut u8, core::marker::PhantomPinned)>,
        }
    )+};
}
opaque! {
    shmb_client shmb_channel shmb_publisher shmb_subscriber shmb_caller shmb_server shmb_waitset
    shmb_broker
}

/// Process-private block of a publisher or subscriber that its calls fill.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmb_view {
    pub data: u64,
    pub len: u32,
    pub count: u32,
    pub stride: u32,
    pub type_: u32,
    pub sequence: u64,
    pub lost: u64,
    pub publisher_id: u64,
    pub term: u64,
    pub attempt: u32,
    pub n_fds: u16,
    pub n_fds_lost: u16,
}

/// Client options; zeroes mean the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmb_client_options {
    pub options_len: u32,
    pub flags: u32,
    pub address: *const c_char,
    pub address_len: u32,
    pub label_len: u32,
    pub label: *const c_char,
    pub key_file: *const c_char,
    pub broker_key_file: *const c_char,
    pub connect_timeout_ns: i64,
}

/// Channel options; zeroes mean the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmb_channel_options {
    pub options_len: u32,
    pub flags: u32,
    pub schema: *const c_void,
    pub schema_len: u32,
    pub lane_len: u32,
    pub max_publishers: u32,
    pub max_subscribers: u32,
    pub history: u32,
    pub backing: u32,
    pub pattern: u32,
    pub max_keys: u32,
    pub value_len: u32,
    pub record_len_max: u32,
    pub arena_len: u64,
    pub inline_len_max: u32,
    pub max_holds: u32,
    pub block_flags: u32,
    pub numa_node: u32,
    pub ttl_ms: u32,
    pub max_fds: u32,
}

/// What a channel is and who is there.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmb_channel_info {
    pub lane_len: u32,
    pub record_len_max: u32,
    pub record_len: u32,
    pub max_publishers: u32,
    pub max_subscribers: u32,
    pub n_publishers: u32,
    pub n_subscribers: u32,
    pub history: u32,
    pub backing: u32,
    pub pattern: u32,
    pub max_keys: u32,
    pub value_len_max: u32,
    pub arena_len: u64,
    pub inline_len_max: u32,
    pub max_holds: u32,
    pub block_flags: u32,
    pub numa_node: u32,
    pub ttl_ms: u32,
    pub ordered: u32,
    pub retained: u32,
    pub request_len: u32,
    pub reply_len: u32,
    pub max_fds: u32,
}

/// A value in a snapshot; `len` bytes follow, padded with zeroes to 8.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmb_state_value {
    pub version: u64,
    pub term: u64,
    pub publisher_id: u64,
    pub key: u32,
    pub len: u32,
}

/// Publisher options; zeroes mean the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmb_publisher_options {
    pub options_len: u32,
    pub flags: u32,
    pub arena_len: u64,
    pub priority: u32,
    pub pad: u32,
}

/// Counters since the publisher was opened.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmb_publisher_stats {
    pub publisher_id: u64,
    pub published: u64,
    pub published_len: u64,
    pub dropped: u64,
    pub refused: u64,
    pub rings: u64,
    pub n_subscribers: u32,
    pub n_blocks: u32,
    pub n_held: u32,
    pub n_evicted: u32,
    pub arena_len: u64,
    pub backstops: u64,
    pub fds_lost: u64,
}

/// Subscriber options; zeroes mean the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmb_subscriber_options {
    pub options_len: u32,
    pub flags: u32,
    pub spin_ns: u32,
    pub history: u32,
    pub credit: u32,
    pub max_attempts: u32,
    pub evict_after_ms: u32,
    pub conflate_offset: u32,
    pub conflate_len: u32,
}

/// Counters since the subscriber was opened.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmb_subscriber_stats {
    pub subscriber_id: u64,
    pub received: u64,
    pub lost: u64,
    pub sleeps: u64,
    pub backstops: u64,
    pub pending: u64,
    pub n_publishers: u32,
    pub pad: u32,
    pub expired: u64,
    pub disordered: u64,
    pub conflated: u64,
    pub fds_lost: u64,
}

/// Process-private block of a caller or server that its calls fill.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmb_call_view {
    pub data: u64,
    pub len: u32,
    pub call: i32,
    pub type_: u32,
    pub code: i32,
    pub more: u32,
    pub pid: u32,
    pub uid: u32,
    pub pad0: u32,
    pub peer_id: u64,
    pub deadline_ns: u64,
    pub pad1: [u8; 8],
}

/// Caller options; zeroes mean the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmb_caller_options {
    pub options_len: u32,
    pub flags: u32,
    pub spin_ns: u32,
    pub pad: u32,
}

/// Counters of a caller.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmb_caller_stats {
    pub caller_id: u64,
    pub calls: u64,
    pub replies: u64,
    pub late: u64,
    pub timeouts: u64,
    pub resets: u64,
    pub n_open: u32,
    pub n_servers: u32,
}

/// Server options; zeroes mean the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmb_server_options {
    pub options_len: u32,
    pub flags: u32,
    pub spin_ns: u32,
    pub pad: u32,
}

/// Counters of a server.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmb_server_stats {
    pub server_id: u64,
    pub requests: u64,
    pub replies: u64,
    pub expired: u64,
    pub cancelled: u64,
    pub n_open: u32,
    pub n_callers: u32,
    pub n_held: u32,
    pub pad: u32,
}

/// One thing that is ready.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmb_ready {
    pub cookie: u64,
    pub kind: u32,
    pub events: u32,
}

/// Broker options; zeroes mean the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmb_broker_options {
    pub options_len: u32,
    pub flags: u32,
    pub directory: *const c_char,
}

/// One entry of a schema.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmb_schema_field {
    pub name: [u8; 40],
    pub offset: u32,
    pub size: u32,
    pub count: u32,
    pub parent: u16,
    pub kind: u8,
    pub align: u8,
    pub zero: [u8; 8],
}

/// The head of a schema.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmb_schema {
    pub magic: u32,
    pub version: u16,
    pub n_fields: u16,
    pub record_len: u32,
    pub align: u32,
    pub name: [u8; 48],
}

pub const SHMB_CLIENT_NO_START: u32 = 1 << 0;
pub const SHMB_CLIENT_ALLOW_RELAY: u32 = 1 << 1;
pub const SHMB_CHANNEL_CREATE: u32 = 1 << 0;
pub const SHMB_CHANNEL_EXCLUSIVE: u32 = 1 << 1;
pub const SHMB_CHANNEL_ANY_SCHEMA: u32 = 1 << 2;
pub const SHMB_CHANNEL_RETAIN: u32 = 1 << 4;
pub const SHMB_BLOCKS_HUGE_PAGES: u32 = 1 << 0;
pub const SHMB_CHANNEL_ORDERED: u32 = 1 << 3;
pub const SHMB_BACKING_AUTO: u32 = 0;
pub const SHMB_BACKING_POSIX: u32 = 1;
pub const SHMB_BACKING_SEALED: u32 = 2;
pub const SHMB_CHANNEL_STREAM: u32 = 1;
pub const SHMB_CHANNEL_QUEUE: u32 = 2;
pub const SHMB_CHANNEL_CALL: u32 = 3;
pub const SHMB_CHANNEL_STATE: u32 = 4;
pub const SHMB_PUBLISHER_DROP_NEWEST: u32 = 1 << 0;
pub const SHMB_PUBLISHER_TRUSTING: u32 = 1 << 1;
pub const SHMB_SUBSCRIBER_LOSSY: u32 = 1 << 0;
pub const SHMB_SUBSCRIBER_NO_HISTORY: u32 = 1 << 2;
pub const SHMB_CALLER_FAIL_FAST: u32 = 1 << 0;
pub const SHMB_CALLER_NO_SPIN: u32 = 1 << 1;
pub const SHMB_CALLER_TRUSTING: u32 = 1 << 2;
pub const SHMB_SERVER_NO_SPIN: u32 = 1 << 0;
pub const SHMB_SERVER_TRUSTING: u32 = 1 << 1;
pub const SHMB_REPLY_MORE: u32 = 1 << 0;
pub const SHMB_READY_SUBSCRIBER: u32 = 1;
pub const SHMB_READY_FD: u32 = 2;
pub const SHMB_READY_CALLER: u32 = 3;
pub const SHMB_READY_SERVER: u32 = 4;

pub const SHMB_SCHEMA_MAGIC: u32 = 0x3154_4853;
pub const SHMB_SCHEMA_FIELDS_MAX: u32 = 200;
pub const SHMB_SCHEMA_NAME_LEN: u32 = 48;
pub const SHMB_FIELD_NAME_LEN: u32 = 40;
pub const SHMB_FIELD_NO_PARENT: u16 = 0xffff;
pub const SHMB_KIND_U8: u8 = 1;
pub const SHMB_KIND_I8: u8 = 2;
pub const SHMB_KIND_U16: u8 = 3;
pub const SHMB_KIND_I16: u8 = 4;
pub const SHMB_KIND_U32: u8 = 5;
pub const SHMB_KIND_I32: u8 = 6;
pub const SHMB_KIND_U64: u8 = 7;
pub const SHMB_KIND_I64: u8 = 8;
pub const SHMB_KIND_F32: u8 = 9;
pub const SHMB_KIND_F64: u8 = 10;
pub const SHMB_KIND_BOOL: u8 = 11;
pub const SHMB_KIND_CHAR: u8 = 12;
pub const SHMB_KIND_STRUCT: u8 = 13;

// Where a field lies, without offset_of!, which rustc 1.63 does not have: fill the struct with
// bytes that count up from 0, and look which of them the field begins with.
#[allow(dead_code)] // rustc 1.63 does not see the uses in constants
const fn first_byte<T: Copy>(value: T) -> usize {
    #[repr(C)]
    union Bytes<T: Copy> {
        value: T,
        first: u8,
    }
    // SAFETY: every caller's field has at least one byte and no padding.
    unsafe { Bytes { value }.first as usize }
}

macro_rules! layout {
    ($name:ident, $size:expr, $($field:ident: $offset:expr),+) => {
        #[cfg(target_pointer_width = "64")]
        const _: () = {
            assert!(core::mem::size_of::<$name>() == $size);
            let mut bytes = [0u8; $size];
            let mut i = 0;
            while i < $size {
                bytes[i] = i as u8;
                i += 1;
            }
            // SAFETY: integers and raw pointers, for which any bytes will do.
            let probe: $name = unsafe { core::mem::transmute(bytes) };
            $(assert!(first_byte(probe.$field) == $offset);)+
        };
    };
}
layout! { shmb_view, 64, data: 0, len: 8, count: 12, stride: 16, type_: 20, sequence: 24, lost: 32, publisher_id: 40, term: 48, attempt: 56, n_fds: 60, n_fds_lost: 62 }
layout! { shmb_client_options, 56, options_len: 0, flags: 4, address: 8, address_len: 16, label_len: 20, label: 24, key_file: 32, broker_key_file: 40, connect_timeout_ns: 48 }
layout! { shmb_channel_options, 88, options_len: 0, flags: 4, schema: 8, schema_len: 16, lane_len: 20, max_publishers: 24, max_subscribers: 28, history: 32, backing: 36, pattern: 40, max_keys: 44, value_len: 48, record_len_max: 52, arena_len: 56, inline_len_max: 64, max_holds: 68, block_flags: 72, numa_node: 76, ttl_ms: 80, max_fds: 84 }
layout! { shmb_channel_info, 96, lane_len: 0, record_len_max: 4, record_len: 8, max_publishers: 12, max_subscribers: 16, n_publishers: 20, n_subscribers: 24, history: 28, backing: 32, pattern: 36, max_keys: 40, value_len_max: 44, arena_len: 48, inline_len_max: 56, max_holds: 60, block_flags: 64, numa_node: 68, ttl_ms: 72, ordered: 76, retained: 80, request_len: 84, reply_len: 88, max_fds: 92 }
layout! { shmb_state_value, 32, version: 0, term: 8, publisher_id: 16, key: 24, len: 28 }
layout! { shmb_publisher_options, 24, options_len: 0, flags: 4, arena_len: 8, priority: 16, pad: 20 }
layout! { shmb_publisher_stats, 88, publisher_id: 0, published: 8, published_len: 16, dropped: 24, refused: 32, rings: 40, n_subscribers: 48, n_blocks: 52, n_held: 56, n_evicted: 60, arena_len: 64, backstops: 72, fds_lost: 80 }
layout! { shmb_subscriber_options, 36, options_len: 0, flags: 4, spin_ns: 8, history: 12, credit: 16, max_attempts: 20, evict_after_ms: 24, conflate_offset: 28, conflate_len: 32 }
layout! { shmb_subscriber_stats, 88, subscriber_id: 0, received: 8, lost: 16, sleeps: 24, backstops: 32, pending: 40, n_publishers: 48, pad: 52, expired: 56, disordered: 64, conflated: 72, fds_lost: 80 }
layout! { shmb_call_view, 64, data: 0, len: 8, call: 12, type_: 16, code: 20, more: 24, pid: 28, uid: 32, pad0: 36, peer_id: 40, deadline_ns: 48, pad1: 56 }
layout! { shmb_caller_options, 16, options_len: 0, flags: 4, spin_ns: 8, pad: 12 }
layout! { shmb_caller_stats, 56, caller_id: 0, calls: 8, replies: 16, late: 24, timeouts: 32, resets: 40, n_open: 48, n_servers: 52 }
layout! { shmb_server_options, 16, options_len: 0, flags: 4, spin_ns: 8, pad: 12 }
layout! { shmb_server_stats, 56, server_id: 0, requests: 8, replies: 16, expired: 24, cancelled: 32, n_open: 40, n_callers: 44, n_held: 48, pad: 52 }
layout! { shmb_ready, 16, cookie: 0, kind: 8, events: 12 }
layout! { shmb_broker_options, 16, options_len: 0, flags: 4, directory: 8 }
layout! { shmb_schema_field, 64, name: 0, offset: 40, size: 44, count: 48, parent: 52, kind: 54, align: 55, zero: 56 }
layout! { shmb_schema, 64, magic: 0, version: 4, n_fields: 6, record_len: 8, align: 12, name: 16 }

extern "C" {
    pub fn shmb_version() -> *const c_char;
    pub fn shmb_abi_version() -> i32;
    pub fn shmb_last_error(text: *mut c_char, cap: u32) -> i32;
    pub fn shmb_strerror(result: i32) -> *const c_char;
    pub fn shmb_client_open(
        options: *const shmb_client_options,
        ret_client: *mut *mut shmb_client,
    ) -> i32;
    pub fn shmb_client_close(client: *mut shmb_client) -> i32;
    pub fn shmb_client_ping(client: *mut shmb_client, timeout_ns: i64) -> i32;
    pub fn shmb_client_connected(client: *mut shmb_client) -> i32;
    pub fn shmb_channel_open(
        client: *mut shmb_client,
        name: *const c_char,
        name_len: u32,
        options: *const shmb_channel_options,
        ret_channel: *mut *mut shmb_channel,
    ) -> i32;
    pub fn shmb_channel_close(channel: *mut shmb_channel) -> i32;
    pub fn shmb_channel_schema(channel: *mut shmb_channel, schema: *mut c_void, cap: u32) -> i32;
    pub fn shmb_channel_remove(
        client: *mut shmb_client,
        name: *const c_char,
        name_len: u32,
    ) -> i32;
    pub fn shmb_channel_info(
        channel: *mut shmb_channel,
        info: *mut shmb_channel_info,
        cap: u32,
    ) -> i32;
    pub fn shmb_channel_wait_members(
        channel: *mut shmb_channel,
        publishers: u32,
        subscribers: u32,
        timeout_ns: i64,
    ) -> i32;
    pub fn shmb_publisher_open(
        channel: *mut shmb_channel,
        options: *const shmb_publisher_options,
        ret_publisher: *mut *mut shmb_publisher,
    ) -> i32;
    pub fn shmb_publisher_close(publisher: *mut shmb_publisher) -> i32;
    pub fn shmb_publisher_view(publisher: *mut shmb_publisher) -> *mut shmb_view;
    pub fn shmb_publisher_send(
        publisher: *mut shmb_publisher,
        data: *const c_void,
        len: u32,
    ) -> i32;
    pub fn shmb_publisher_send_typed(
        publisher: *mut shmb_publisher,
        data: *const c_void,
        len: u32,
        type_: u32,
    ) -> i32;
    pub fn shmb_publisher_send_fds(
        publisher: *mut shmb_publisher,
        data: *const c_void,
        len: u32,
        type_: u32,
        fds: *const i32,
        n_fds: u32,
    ) -> i32;
    pub fn shmb_publisher_publish_fds(
        publisher: *mut shmb_publisher,
        len: u32,
        fds: *const i32,
        n_fds: u32,
    ) -> i32;
    pub fn shmb_subscriber_take_fds(
        subscriber: *mut shmb_subscriber,
        fds: *mut i32,
        cap: u32,
    ) -> i32;
    pub fn shmb_publisher_send_many(
        publisher: *mut shmb_publisher,
        data: *const c_void,
        len: u32,
        lens: *const u32,
        count: u32,
    ) -> i32;
    pub fn shmb_publisher_loan(publisher: *mut shmb_publisher, len: u32) -> i32;
    pub fn shmb_publisher_publish(publisher: *mut shmb_publisher, len: u32) -> i32;
    pub fn shmb_publisher_cancel(publisher: *mut shmb_publisher) -> i32;
    pub fn shmb_publisher_fd(publisher: *mut shmb_publisher) -> i32;
    pub fn shmb_publisher_wait(publisher: *mut shmb_publisher, len: u32, timeout_ns: i64) -> i32;
    pub fn shmb_publisher_send_wait(
        publisher: *mut shmb_publisher,
        data: *const c_void,
        len: u32,
        timeout_ns: i64,
    ) -> i32;
    pub fn shmb_publisher_stats(
        publisher: *mut shmb_publisher,
        stats: *mut shmb_publisher_stats,
        cap: u32,
    ) -> i32;
    pub fn shmb_subscriber_open(
        channel: *mut shmb_channel,
        options: *const shmb_subscriber_options,
        ret_subscriber: *mut *mut shmb_subscriber,
    ) -> i32;
    pub fn shmb_subscriber_close(subscriber: *mut shmb_subscriber) -> i32;
    pub fn shmb_subscriber_view(subscriber: *mut shmb_subscriber) -> *mut shmb_view;
    pub fn shmb_subscriber_recv(
        subscriber: *mut shmb_subscriber,
        data: *mut c_void,
        cap: u32,
    ) -> i32;
    pub fn shmb_subscriber_recv_many(
        subscriber: *mut shmb_subscriber,
        data: *mut c_void,
        cap: u32,
        lens: *mut u32,
        max: u32,
    ) -> i32;
    pub fn shmb_subscriber_peek(subscriber: *mut shmb_subscriber, max: u32) -> i32;
    pub fn shmb_subscriber_release(subscriber: *mut shmb_subscriber, count: u32) -> i32;
    pub fn shmb_subscriber_hold(subscriber: *mut shmb_subscriber) -> i32;
    pub fn shmb_subscriber_unhold(subscriber: *mut shmb_subscriber, hold: u32) -> i32;
    pub fn shmb_subscriber_wait(subscriber: *mut shmb_subscriber, timeout_ns: i64) -> i32;
    pub fn shmb_subscriber_fd(subscriber: *mut shmb_subscriber) -> i32;
    pub fn shmb_subscriber_arm(subscriber: *mut shmb_subscriber) -> i32;
    pub fn shmb_subscriber_stats(
        subscriber: *mut shmb_subscriber,
        stats: *mut shmb_subscriber_stats,
        cap: u32,
    ) -> i32;
    pub fn shmb_publisher_claim(
        publisher: *mut shmb_publisher,
        key: *const c_void,
        key_len: u32,
    ) -> i32;
    pub fn shmb_publisher_disclaim(publisher: *mut shmb_publisher, key: u32) -> i32;
    pub fn shmb_publisher_put(
        publisher: *mut shmb_publisher,
        key: u32,
        data: *const c_void,
        len: u32,
    ) -> i32;
    pub fn shmb_publisher_erase(publisher: *mut shmb_publisher, key: u32) -> i32;
    pub fn shmb_subscriber_find(
        subscriber: *mut shmb_subscriber,
        key: *const c_void,
        len: u32,
    ) -> i32;
    pub fn shmb_subscriber_n_keys(subscriber: *mut shmb_subscriber) -> i32;
    pub fn shmb_subscriber_key(
        subscriber: *mut shmb_subscriber,
        key: u32,
        name: *mut c_void,
        cap: u32,
    ) -> i32;
    pub fn shmb_subscriber_get(
        subscriber: *mut shmb_subscriber,
        key: u32,
        data: *mut c_void,
        cap: u32,
    ) -> i32;
    pub fn shmb_subscriber_next(subscriber: *mut shmb_subscriber) -> i32;
    pub fn shmb_subscriber_wait_key(
        subscriber: *mut shmb_subscriber,
        key: u32,
        timeout_ns: i64,
    ) -> i32;
    pub fn shmb_subscriber_snapshot(
        subscriber: *mut shmb_subscriber,
        data: *mut c_void,
        cap: u32,
    ) -> i32;
    pub fn shmb_publisher_wait_done(publisher: *mut shmb_publisher, timeout_ns: i64) -> i32;
    pub fn shmb_subscriber_take(
        subscriber: *mut shmb_subscriber,
        data: *mut c_void,
        cap: u32,
    ) -> i32;
    pub fn shmb_subscriber_take_many(
        subscriber: *mut shmb_subscriber,
        data: *mut c_void,
        cap: u32,
        lens: *mut u32,
        jobs: *mut u64,
        max: u32,
    ) -> i32;
    pub fn shmb_subscriber_done(subscriber: *mut shmb_subscriber, job: u64) -> i32;
    pub fn shmb_subscriber_done_many(
        subscriber: *mut shmb_subscriber,
        jobs: *const u64,
        count: u32,
    ) -> i32;
    pub fn shmb_subscriber_fail(subscriber: *mut shmb_subscriber, job: u64) -> i32;
    pub fn shmb_caller_open(
        channel: *mut shmb_channel,
        options: *const shmb_caller_options,
        ret_caller: *mut *mut shmb_caller,
    ) -> i32;
    pub fn shmb_caller_close(caller: *mut shmb_caller) -> i32;
    pub fn shmb_caller_view(caller: *mut shmb_caller) -> *mut shmb_call_view;
    pub fn shmb_caller_call(
        caller: *mut shmb_caller,
        type_: u32,
        request: *const c_void,
        len: u32,
        reply: *mut c_void,
        cap: u32,
        timeout_ns: i64,
    ) -> i32;
    pub fn shmb_caller_start(
        caller: *mut shmb_caller,
        type_: u32,
        request: *const c_void,
        len: u32,
        timeout_ns: i64,
    ) -> i32;
    pub fn shmb_caller_wait(caller: *mut shmb_caller, len: u32, timeout_ns: i64) -> i32;
    pub fn shmb_caller_recv(
        caller: *mut shmb_caller,
        call: i32,
        reply: *mut c_void,
        cap: u32,
        timeout_ns: i64,
    ) -> i32;
    pub fn shmb_caller_loan(caller: *mut shmb_caller, len: u32, timeout_ns: i64) -> i32;
    pub fn shmb_caller_start_loan(
        caller: *mut shmb_caller,
        type_: u32,
        len: u32,
        timeout_ns: i64,
    ) -> i32;
    pub fn shmb_caller_cancel_loan(caller: *mut shmb_caller) -> i32;
    pub fn shmb_caller_recv_hold(caller: *mut shmb_caller, call: i32, timeout_ns: i64) -> i32;
    pub fn shmb_caller_unhold(caller: *mut shmb_caller, hold: u32) -> i32;
    pub fn shmb_caller_cancel(caller: *mut shmb_caller, call: i32) -> i32;
    pub fn shmb_caller_fd(caller: *mut shmb_caller) -> i32;
    pub fn shmb_caller_arm(caller: *mut shmb_caller) -> i32;
    pub fn shmb_caller_stats(
        caller: *mut shmb_caller,
        stats: *mut shmb_caller_stats,
        cap: u32,
    ) -> i32;
    pub fn shmb_server_open(
        channel: *mut shmb_channel,
        options: *const shmb_server_options,
        ret_server: *mut *mut shmb_server,
    ) -> i32;
    pub fn shmb_server_close(server: *mut shmb_server) -> i32;
    pub fn shmb_server_view(server: *mut shmb_server) -> *mut shmb_call_view;
    pub fn shmb_server_recv(
        server: *mut shmb_server,
        data: *mut c_void,
        cap: u32,
        timeout_ns: i64,
    ) -> i32;
    pub fn shmb_server_reply(
        server: *mut shmb_server,
        call: i32,
        type_: u32,
        data: *const c_void,
        len: u32,
        flags: u32,
        timeout_ns: i64,
    ) -> i32;
    pub fn shmb_server_recv_hold(server: *mut shmb_server, timeout_ns: i64) -> i32;
    pub fn shmb_server_unhold(server: *mut shmb_server, hold: u32) -> i32;
    pub fn shmb_server_loan(
        server: *mut shmb_server,
        call: i32,
        len: u32,
        timeout_ns: i64,
    ) -> i32;
    pub fn shmb_server_reply_loan(
        server: *mut shmb_server,
        type_: u32,
        len: u32,
        flags: u32,
    ) -> i32;
    pub fn shmb_server_cancel_loan(server: *mut shmb_server) -> i32;
    pub fn shmb_server_end(server: *mut shmb_server, call: i32, timeout_ns: i64) -> i32;
    pub fn shmb_server_fail(
        server: *mut shmb_server,
        call: i32,
        code: i32,
        text: *const c_char,
        len: u32,
        timeout_ns: i64,
    ) -> i32;
    pub fn shmb_server_cancelled(server: *mut shmb_server, call: i32) -> i32;
    pub fn shmb_server_fd(server: *mut shmb_server) -> i32;
    pub fn shmb_server_arm(server: *mut shmb_server) -> i32;
    pub fn shmb_server_stats(
        server: *mut shmb_server,
        stats: *mut shmb_server_stats,
        cap: u32,
    ) -> i32;
    pub fn shmb_waitset_open(client: *mut shmb_client, ret_waitset: *mut *mut shmb_waitset) -> i32;
    pub fn shmb_waitset_close(waitset: *mut shmb_waitset) -> i32;
    pub fn shmb_waitset_add(
        waitset: *mut shmb_waitset,
        subscriber: *mut shmb_subscriber,
        cookie: u64,
    ) -> i32;
    pub fn shmb_waitset_add_caller(
        waitset: *mut shmb_waitset,
        caller: *mut shmb_caller,
        cookie: u64,
    ) -> i32;
    pub fn shmb_waitset_add_server(
        waitset: *mut shmb_waitset,
        server: *mut shmb_server,
        cookie: u64,
    ) -> i32;
    pub fn shmb_waitset_add_fd(
        waitset: *mut shmb_waitset,
        fd: i32,
        events: u32,
        cookie: u64,
    ) -> i32;
    pub fn shmb_waitset_remove(waitset: *mut shmb_waitset, subscriber: *mut shmb_subscriber)
        -> i32;
    pub fn shmb_waitset_remove_caller(
        waitset: *mut shmb_waitset,
        caller: *mut shmb_caller,
    ) -> i32;
    pub fn shmb_waitset_remove_server(
        waitset: *mut shmb_waitset,
        server: *mut shmb_server,
    ) -> i32;
    pub fn shmb_waitset_remove_fd(waitset: *mut shmb_waitset, fd: i32) -> i32;
    pub fn shmb_waitset_wait(
        waitset: *mut shmb_waitset,
        ready: *mut shmb_ready,
        max: u32,
        timeout_ns: i64,
    ) -> i32;
    pub fn shmb_waitset_fd(waitset: *mut shmb_waitset) -> i32;
    pub fn shmb_waitset_backend(waitset: *mut shmb_waitset) -> *const c_char;
    pub fn shmb_broker_start(
        options: *const shmb_broker_options,
        ret_broker: *mut *mut shmb_broker,
    ) -> i32;
    pub fn shmb_broker_address(broker: *mut shmb_broker) -> *const c_char;
    pub fn shmb_broker_stop(broker: *mut shmb_broker) -> i32;

    pub fn shmb_schema_check(schema: *const c_void, schema_len: u32) -> i32;
    pub fn shmb_schema_compare(
        channel: *const c_void,
        channel_len: u32,
        mine: *const c_void,
        mine_len: u32,
    ) -> i32;
}
