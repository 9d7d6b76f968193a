// SPDX-License-Identifier: Apache-2.0
//! Records, and the tables that describe them to other processes and languages.
//!
//! [`record!`](crate::record) defines a struct and its table. What a record may contain:
//!
//! | Rust | in the table |
//! |---|---|
//! | `u8` … `u64`, `i8` … `i64`, `f32`, `f64` | the same |
//! | [`Bool8`] | `bool` |
//! | [`Char`], usually `[Char; N]` | `char`: NUL-padded text |
//! | another record | `struct`, its fields follow |
//! | `[T; N]` of any of these | an array |
//! | [`Pad<N>`] | nothing: it only keeps the place |
//!
//! Every one of them is valid whatever its bytes are, because those come from another process.
//! That is why there is no `bool`, no `char` and no `enum`. There is no `usize` either, because
//! the other process may have another one.

use std::fmt;
use std::mem::{align_of, size_of, MaybeUninit};
use std::os::raw::c_void;
use std::ptr;
use std::str::Utf8Error;

use shmbroker_sys as sys;

use crate::error::{check, length, Result};

/// Bytes of a table's head, and of each of its rows.
const ROW_LEN: usize = 64;

/// One thing that a field can hold, or an array of it: a scalar or a record.
///
/// # Safety
///
/// Every pattern of bytes is a value of the type, it has no padding, and the constants describe
/// it. [`record!`](crate::record) implements it for records.
pub unsafe trait Element: Copy + 'static {
    /// `SHMB_KIND_*`.
    const KIND: u8;
    /// The table of a record; empty for a scalar.
    const TABLE: &'static [u8];
}

macro_rules! scalars {
    ($($type:ty = $kind:ident)+) => {$(
        // SAFETY: without padding, and every pattern of bytes is a value.
        unsafe impl Element for $type {
            const KIND: u8 = sys::$kind;
            const TABLE: &'static [u8] = &[];
        }
    )+};
}

scalars! {
    u8 = SHMB_KIND_U8
    i8 = SHMB_KIND_I8
    u16 = SHMB_KIND_U16
    i16 = SHMB_KIND_I16
    u32 = SHMB_KIND_U32
    i32 = SHMB_KIND_I32
    u64 = SHMB_KIND_U64
    i64 = SHMB_KIND_I64
    f32 = SHMB_KIND_F32
    f64 = SHMB_KIND_F64
    Bool8 = SHMB_KIND_BOOL
    Char = SHMB_KIND_CHAR
}

/// What a field of a record can be: an [`Element`], an array of them, or [`Pad`].
///
/// # Safety
///
/// Every pattern of bytes is a value of the type, it has no padding, and the constants describe
/// it.
pub unsafe trait Field: Copy + 'static {
    /// `SHMB_KIND_*`, 0 for padding.
    const KIND: u8;
    /// Bytes of one element.
    const SIZE: usize;
    /// Alignment of one element.
    const ALIGN: usize;
    /// How many elements.
    const COUNT: usize;
    /// The table of a record; empty for a scalar.
    const TABLE: &'static [u8];
    /// Rows that the field takes in a table, those of a record in it included.
    const ROWS: usize;
}

const fn rows_of(table: &[u8]) -> usize {
    if table.is_empty() {
        1
    } else {
        table.len() / ROW_LEN // its head makes up for the row of the struct itself
    }
}

// SAFETY: as the element says.
unsafe impl<T: Element> Field for T {
    const KIND: u8 = T::KIND;
    const SIZE: usize = size_of::<T>();
    const ALIGN: usize = align_of::<T>();
    const COUNT: usize = 1;
    const TABLE: &'static [u8] = T::TABLE;
    const ROWS: usize = rows_of(T::TABLE);
}

// SAFETY: as the element says; arrays add no padding.
unsafe impl<T: Element, const N: usize> Field for [T; N] {
    const KIND: u8 = T::KIND;
    const SIZE: usize = size_of::<T>();
    const ALIGN: usize = align_of::<T>();
    const COUNT: usize = N;
    const TABLE: &'static [u8] = T::TABLE;
    const ROWS: usize = rows_of(T::TABLE);
}

// SAFETY: bytes.
unsafe impl<const N: usize> Field for Pad<N> {
    const KIND: u8 = 0;
    const SIZE: usize = N;
    const ALIGN: usize = 1;
    const COUNT: usize = 1;
    const TABLE: &'static [u8] = &[];
    const ROWS: usize = 0;
}

/// A type that a channel can carry. Define one with [`record!`](crate::record).
///
/// # Safety
///
/// As for [`Element`], and `SCHEMA` describes the type: all of its bytes but those of [`Pad`].
pub unsafe trait Record: Element {
    /// The table of the type: the same bytes as `SHMB_SCHEMA` makes in C for the same struct.
    const SCHEMA: &'static [u8];

    /// A record of zero bytes.
    ///
    /// ```
    /// shmbroker::record! {
    ///     #[derive(Debug, PartialEq)]
    ///     pub struct Point: "doc.point" { pub x: f32, pub y: f32 }
    /// }
    /// use shmbroker::Record;
    /// assert_eq!(Point::zeroed(), Point { x: 0.0, y: 0.0 });
    /// ```
    fn zeroed() -> Self {
        // SAFETY: every pattern of bytes is a value.
        unsafe { MaybeUninit::zeroed().assume_init() }
    }

    /// Its bytes.
    ///
    /// ```
    /// # shmbroker::record! { pub struct Pair: "doc.pair" { pub a: u16, pub b: u16 } }
    /// use shmbroker::Record;
    /// assert_eq!(Pair { a: 1, b: 2 }.as_bytes().len(), 4);
    /// ```
    fn as_bytes(&self) -> &[u8] {
        // SAFETY: there is no padding, so all of them are initialised.
        unsafe { std::slice::from_raw_parts(self as *const Self as *const u8, size_of::<Self>()) }
    }

    /// A record from exactly its bytes, `None` if there are more or fewer.
    ///
    /// ```
    /// # shmbroker::record! { pub struct Pair: "doc.pair" { pub a: u16, pub b: u16 } }
    /// use shmbroker::Record;
    /// let pair = Pair { a: 1, b: 2 };
    /// assert_eq!(Pair::from_bytes(pair.as_bytes()).unwrap().b, 2);
    /// assert!(Pair::from_bytes(&[0; 5]).is_none());
    /// ```
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        // SAFETY: as many bytes as the type has, and every pattern is a value.
        Some(unsafe { ptr::read_unaligned(bytes.as_ptr() as *const Self) })
    }
}

/// Defines a record: a `#[repr(C)]` struct that is `Copy`, and its table, at compile time.
///
/// The string is what the record is called in every language; the names, types and order of the
/// fields are compared when a channel is opened. Attributes and visibility are yours; `Clone`,
/// `Copy` and `#[repr(C)]` come by themselves.
///
/// ```
/// use shmbroker::{record, Bool8, Char, Text};
///
/// record! {
///     /// A trade.
///     #[derive(Debug, PartialEq)]
///     pub struct Tick: "market.tick" {
///         pub time_ns: u64,
///         pub price: f64,
///         pub symbol: [Char; 12],
///         pub count: u16,
///         pub last: Bool8,
///         pub flags: u8,
///     }
/// }
///
/// let tick = Tick {
///     time_ns: 0,
///     price: 1.25,
///     symbol: Char::text("ACME"),
///     count: 3,
///     last: true.into(),
///     flags: 0,
/// };
/// assert_eq!(tick.symbol.to_str(), Ok("ACME"));
/// ```
///
/// Padding would carry bytes of the sender's memory to everybody who listens, so it does not
/// compile:
///
/// ```compile_fail
/// shmbroker::record! {
///     pub struct Gap: "doc.gap" { pub small: u8, pub large: u64 }
/// }
/// ```
///
/// Where another language's struct has it, say so with [`Pad`](crate::Pad):
///
/// ```
/// use shmbroker::{record, Pad};
/// record! {
///     pub struct Gap: "doc.gap" { pub small: u8, pub pad0: Pad<7>, pub large: u64 }
/// }
/// ```
///
/// Nor does what another process could make invalid:
///
/// ```compile_fail
/// shmbroker::record! { pub struct Flag: "doc.flag" { pub on: bool } }
/// ```
#[macro_export]
macro_rules! record {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident : $schema:literal {
            $($(#[$field_meta:meta])* $field_vis:vis $field:ident : $type:ty),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy)]
        #[repr(C)]
        $vis struct $name {
            $($(#[$field_meta])* $field_vis $field: $type),+
        }

        // SAFETY: repr(C), made of fields for which the same holds; the table's maker refuses
        // padding, and adds up the same offsets as the compiler does.
        unsafe impl $crate::schema::Element for $name {
            const KIND: u8 = $crate::schema::Table::<0>::KIND;
            const TABLE: &'static [u8] = <$name as $crate::schema::Record>::SCHEMA;
        }

        // SAFETY: as above.
        unsafe impl $crate::schema::Record for $name {
            const SCHEMA: &'static [u8] = {
                const ROWS: usize = 0 $(+ <$type as $crate::schema::Field>::ROWS)+;
                const LEN: usize = $crate::schema::Table::<0>::len(ROWS);
                const TABLE: [u8; LEN] = $crate::schema::Table::<LEN>::new($schema)
                    $(.field::<$type>(::core::stringify!($field)))+
                    .finish::<$name>();
                &TABLE
            };
        }

        // Computed even where nobody uses the record, so that a mistake is seen here.
        const _: &[u8] = <$name as $crate::schema::Record>::SCHEMA;
    };
}

/// A table in the making; [`record!`](crate::record) uses it at compile time.
#[doc(hidden)]
#[derive(Debug)]
pub struct Table<const LEN: usize> {
    bytes: [u8; LEN],
    rows: usize,
    offset: usize,
    described: usize,
    align: usize,
}

impl Table<0> {
    pub const KIND: u8 = sys::SHMB_KIND_STRUCT;

    pub const fn len(rows: usize) -> usize {
        (rows + 1) * ROW_LEN
    }
}

impl<const LEN: usize> Table<LEN> {
    pub const fn new(name: &str) -> Self {
        let table = Table { bytes: [0; LEN], rows: 0, offset: 0, described: 0, align: 1 };
        assert!(
            is_name(name.as_bytes(), 0, b".:/-"),
            "a record is called by characters of [A-Za-z0-9_.:/-]"
        );
        assert!(
            name.len() < sys::SHMB_SCHEMA_NAME_LEN as usize,
            "a record's name has at most 47 characters"
        );
        table.put(0, sys::SHMB_SCHEMA_MAGIC as u64, 4).put(4, 1, 2).put_text(16, name.as_bytes(), 0)
    }

    const fn put(mut self, at: usize, value: u64, len: usize) -> Self {
        let mut i = 0;
        while i < len {
            self.bytes[at + i] = (value >> (8 * i)) as u8;
            i += 1;
        }
        self
    }

    const fn put_text(mut self, at: usize, text: &[u8], from: usize) -> Self {
        let mut i = from;
        while i < text.len() {
            self.bytes[at + i - from] = text[i];
            i += 1;
        }
        self
    }

    pub const fn field<F: Field>(mut self, name: &str) -> Self {
        if F::ALIGN > self.align {
            self.align = F::ALIGN;
        }
        assert!(
            self.offset % F::ALIGN == 0,
            "padding before a field: order the fields by size, or put a Pad<N> there"
        );
        let offset = self.offset;
        self.offset += F::SIZE * F::COUNT;
        if F::KIND == 0 {
            return self;
        }

        assert!(F::SIZE > 0 && F::COUNT > 0, "a field has at least one byte");
        assert!(
            offset - self.described < 8,
            "a Pad of 8 bytes or more would be a field that nobody describes"
        );
        assert!(self.offset <= u32::MAX as usize, "a record has less than 4 GiB");
        self.described = self.offset;

        let name = name.as_bytes();
        let raw = name.len() > 2 && name[0] == b'r' && name[1] == b'#';
        let from = if raw { 2 } else { 0 };
        assert!(is_name(name, from, b""), "a field is called by characters of [A-Za-z0-9_]");
        assert!(
            name.len() - from < sys::SHMB_FIELD_NAME_LEN as usize,
            "a field's name has at most 39 characters"
        );
        let row = self.rows;
        let at = (row + 1) * ROW_LEN;
        self.rows += 1;
        let table = self
            .put_text(at, name, from)
            .put(at + 40, offset as u64, 4)
            .put(at + 44, F::SIZE as u64, 4)
            .put(at + 48, F::COUNT as u64, 4)
            .put(at + 52, sys::SHMB_FIELD_NO_PARENT as u64, 2)
            .put(at + 54, F::KIND as u64, 1)
            .put(at + 55, F::ALIGN as u64, 1);
        table.nested(row, F::TABLE)
    }

    /// The rows of a record that is the field of row `parent`.
    const fn nested(mut self, parent: usize, inner: &[u8]) -> Self {
        let mut from = ROW_LEN;
        while from < inner.len() {
            let at = (self.rows + 1) * ROW_LEN;
            let mut i = 0;
            while i < ROW_LEN {
                self.bytes[at + i] = inner[from + i];
                i += 1;
            }
            let grandparent = inner[from + 52] as usize | (inner[from + 53] as usize) << 8;
            let index = if grandparent == sys::SHMB_FIELD_NO_PARENT as usize {
                parent
            } else {
                parent + 1 + grandparent
            };
            self = self.put(at + 52, index as u64, 2);
            self.rows += 1;
            from += ROW_LEN;
        }
        self
    }

    /// A record of a call: between the two there is padding, of which nobody sends a byte.
    pub const fn part<F: Field>(mut self, name: &str) -> Self {
        self.offset = (self.offset + F::ALIGN - 1) / F::ALIGN * F::ALIGN;
        self.field::<F>(name)
    }

    pub const fn finish_parts(self) -> [u8; LEN] {
        let len = (self.offset + self.align - 1) / self.align * self.align;
        let align = self.align;
        self.close(len, align)
    }

    pub const fn finish<T: Record>(self) -> [u8; LEN] {
        assert!(
            self.offset == size_of::<T>(),
            "padding at the end: order the fields by size, or put a Pad<N> there"
        );
        assert!(self.align == align_of::<T>(), "a record has the alignment that repr(C) gives");
        self.close(size_of::<T>(), align_of::<T>())
    }

    const fn close(self, len: usize, align: usize) -> [u8; LEN] {
        assert!(self.align <= 8, "a record is aligned to at most 8");
        assert!(self.rows > 0, "a record has at least one field");
        assert!(self.rows <= sys::SHMB_SCHEMA_FIELDS_MAX as usize, "a record has too many fields");
        assert!(
            self.offset - self.described < 8,
            "a Pad of 8 bytes or more would be a field that nobody describes"
        );
        let rows = self.rows as u64;
        self.put(6, rows, 2).put(8, len as u64, 4).put(12, align as u64, 4).bytes
    }
}

const fn is_name(name: &[u8], from: usize, also: &[u8]) -> bool {
    let mut i = from;
    while i < name.len() {
        let mut good = name[i].is_ascii_alphanumeric() || name[i] == b'_';
        let mut j = 0;
        while j < also.len() {
            if name[i] == also[j] {
                good = true;
            }
            j += 1;
        }
        if !good {
            return false;
        }
        i += 1;
    }
    name.len() > from
}

/// A byte that means yes or no. Another process may have written any byte: all but 0 are yes.
///
/// ```
/// use shmbroker::Bool8;
/// assert!(Bool8::from(true).get());
/// assert!(!bool::from(Bool8::default()));
/// ```
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub struct Bool8(u8);

impl Bool8 {
    /// Yes.
    pub const TRUE: Bool8 = Bool8(1);
    /// No.
    pub const FALSE: Bool8 = Bool8(0);

    /// Yes or no.
    ///
    /// ```
    /// assert!(shmbroker::Bool8::TRUE.get());
    /// ```
    pub const fn get(self) -> bool {
        self.0 != 0
    }
}

impl From<bool> for Bool8 {
    fn from(value: bool) -> Bool8 {
        Bool8(value as u8)
    }
}

impl From<Bool8> for bool {
    fn from(value: Bool8) -> bool {
        value.get()
    }
}

impl PartialEq for Bool8 {
    fn eq(&self, other: &Bool8) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Bool8 {}

impl fmt::Debug for Bool8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// A byte of text. A field `[Char; N]` is a NUL-padded string; see [`Text`].
///
/// ```
/// use shmbroker::{Char, Text};
/// let name: [Char; 8] = Char::text("ACME");
/// assert_eq!(name.to_str(), Ok("ACME"));
/// assert_eq!(name[4], Char(0));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Char(pub u8);

impl Char {
    /// As much of `text` as fits into `N` bytes, cut where a character ends.
    ///
    /// ```
    /// use shmbroker::{Char, Text};
    /// assert_eq!(Char::text::<3>("äö").to_str(), Ok("ä"));
    /// ```
    pub fn text<const N: usize>(text: &str) -> [Char; N] {
        let mut chars = [Char(0); N];
        chars.set(text);
        chars
    }
}

impl fmt::Debug for Char {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        char::from(self.0).fmt(f)
    }
}

/// NUL-padded text in an array of [`Char`].
pub trait Text {
    /// The bytes before the first NUL.
    ///
    /// ```
    /// use shmbroker::{Char, Text};
    /// assert_eq!(Char::text::<8>("ACME").text_bytes(), b"ACME");
    /// ```
    fn text_bytes(&self) -> &[u8];

    /// The text; an error where another process wrote something that is none.
    ///
    /// ```
    /// use shmbroker::{Char, Text};
    /// assert!([Char(0xff)].to_str().is_err());
    /// ```
    fn to_str(&self) -> std::result::Result<&str, Utf8Error> {
        std::str::from_utf8(self.text_bytes())
    }

    /// Stores as much of `text` as fits, cut where a character ends, and fills up with NUL.
    ///
    /// ```
    /// use shmbroker::{Char, Text};
    /// let mut name = [Char(0xff); 6];
    /// name.set("ACME");
    /// assert_eq!(name.to_str(), Ok("ACME"));
    /// ```
    fn set(&mut self, text: &str);
}

impl Text for [Char] {
    fn text_bytes(&self) -> &[u8] {
        let len = self.iter().position(|&c| c == Char(0)).unwrap_or(self.len());
        // SAFETY: Char is a transparent u8.
        unsafe { std::slice::from_raw_parts(self.as_ptr() as *const u8, len) }
    }

    fn set(&mut self, text: &str) {
        let mut len = text.len().min(self.len());
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        let (head, tail) = self.split_at_mut(len);
        for (to, from) in head.iter_mut().zip(text.bytes()) {
            *to = Char(from);
        }
        tail.fill(Char(0));
    }
}

/// `N` bytes between fields that no table describes, as a C compiler leaves them. At most 7.
///
/// ```
/// use shmbroker::{record, Pad, Record};
/// record! {
///     #[derive(Debug, Default)]
///     pub struct Sample: "doc.sample" { pub value: f64, pub channel: u8, pub pad0: Pad<7> }
/// }
/// let sample = Sample { value: 0.5, channel: 1, ..Sample::default() };
/// assert_eq!(sample.as_bytes().len(), 16);
/// ```
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Pad<const N: usize>([u8; N]);

impl<const N: usize> Pad<N> {
    /// Zeroes.
    ///
    /// ```
    /// let pad = shmbroker::Pad::<3>::new();
    /// # let _ = pad;
    /// ```
    pub const fn new() -> Self {
        Pad([0; N])
    }
}

impl<const N: usize> Default for Pad<N> {
    fn default() -> Self {
        Pad::new()
    }
}

/// Padding means nothing: all of it is equal.
impl<const N: usize> PartialEq for Pad<N> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<const N: usize> Eq for Pad<N> {}

impl<const N: usize> fmt::Debug for Pad<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pad<{}>", N)
    }
}

/// What a channel carries: the table of its records, to look at.
///
/// ```
/// shmbroker::record! { pub struct Arm: "doc.arm" { pub name: [shmbroker::Char; 4], pub angles: [f32; 3] } }
/// let schema = shmbroker::Schema::of::<Arm>();
/// let angles = &schema.fields()[1];
/// assert_eq!((angles.offset, angles.size, angles.count), (4, 4, 3));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Schema {
    bytes: Vec<u8>,
}

/// One field of a [`Schema`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaField {
    /// What it is called.
    pub name: String,
    /// Bytes from the start of the record, or of the parent's first element.
    pub offset: u32,
    /// Bytes of one element.
    pub size: u32,
    /// Elements.
    pub count: u32,
    /// Which field contains it.
    pub parent: Option<u16>,
    /// `SHMB_KIND_*`.
    pub kind: u8,
    /// Alignment of one element.
    pub align: u8,
}

impl SchemaField {
    /// Its type as the library's sentences say it: `u8`, `f64`, `char`, `struct`.
    ///
    /// ```
    /// shmbroker::record! { pub struct Point: "doc.point" { pub x: f32, pub y: f32 } }
    /// let schema = shmbroker::Schema::of::<Point>();
    /// assert_eq!(schema.fields()[0].kind_name(), "f32");
    /// ```
    pub fn kind_name(&self) -> &'static str {
        const NAMES: [&str; 14] = [
            "?", "u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bool",
            "char", "struct",
        ];
        NAMES.get(usize::from(self.kind)).copied().unwrap_or("?")
    }
}

impl Schema {
    /// The schema of a record type.
    ///
    /// ```
    /// shmbroker::record! { pub struct Point: "doc.point" { pub x: f32, pub y: f32 } }
    /// let schema = shmbroker::Schema::of::<Point>();
    /// assert_eq!((schema.name(), schema.record_len()), ("doc.point", 8));
    /// ```
    pub fn of<T: Record>() -> Schema {
        Schema { bytes: T::SCHEMA.to_vec() }
    }

    /// A schema from its table, if that keeps every rule.
    ///
    /// ```
    /// assert!(shmbroker::Schema::from_bytes(&b"SHT1"[..]).is_err());
    /// ```
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Schema> {
        let bytes = bytes.into();
        // SAFETY: as many bytes as we say.
        check(unsafe {
            sys::shmb_schema_check(bytes.as_ptr() as *const c_void, length(bytes.len()))
        })?;
        Ok(Schema { bytes })
    }

    /// Is `mine` the same? The error names the first field that differs.
    ///
    /// ```
    /// shmbroker::record! { pub struct A: "doc.x" { pub x: f32, pub y: f32 } }
    /// shmbroker::record! { pub struct B: "doc.x" { pub x: f32, pub y: i32 } }
    /// use shmbroker::Schema;
    /// let error = Schema::of::<A>().compare(&Schema::of::<B>()).unwrap_err();
    /// assert!(error.to_string().contains("'y'"));
    /// ```
    pub fn compare(&self, mine: &Schema) -> Result<()> {
        // SAFETY: as many bytes as we say.
        check(unsafe {
            sys::shmb_schema_compare(
                self.bytes.as_ptr() as *const c_void,
                length(self.bytes.len()),
                mine.bytes.as_ptr() as *const c_void,
                length(mine.bytes.len()),
            )
        })?;
        Ok(())
    }

    /// The table.
    ///
    /// ```
    /// # shmbroker::record! { pub struct Point: "doc.point" { pub x: f32, pub y: f32 } }
    /// assert!(shmbroker::Schema::of::<Point>().as_bytes().starts_with(b"SHT1"));
    /// ```
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What its user calls the type.
    ///
    /// ```
    /// # shmbroker::record! { pub struct Point: "doc.point" { pub x: f32, pub y: f32 } }
    /// assert_eq!(shmbroker::Schema::of::<Point>().name(), "doc.point");
    /// ```
    pub fn name(&self) -> &str {
        text_at(&self.bytes, 16, sys::SHMB_SCHEMA_NAME_LEN as usize)
    }

    /// Bytes of a record.
    ///
    /// ```
    /// # shmbroker::record! { pub struct Point: "doc.point" { pub x: f32, pub y: f32 } }
    /// assert_eq!(shmbroker::Schema::of::<Point>().record_len(), 8);
    /// ```
    pub fn record_len(&self) -> usize {
        u32_at(&self.bytes, 8) as usize
    }

    /// Its fields; those of a struct follow it.
    ///
    /// ```
    /// # shmbroker::record! { pub struct Point: "doc.point" { pub x: f32, pub y: f32 } }
    /// let names: Vec<_> =
    ///     shmbroker::Schema::of::<Point>().fields().into_iter().map(|field| field.name).collect();
    /// assert_eq!(names, ["x", "y"]);
    /// ```
    pub fn fields(&self) -> Vec<SchemaField> {
        let rows = self.bytes.chunks_exact(ROW_LEN).skip(1);
        rows.map(|row| SchemaField {
            name: text_at(row, 0, sys::SHMB_FIELD_NAME_LEN as usize).to_string(),
            offset: u32_at(row, 40),
            size: u32_at(row, 44),
            count: u32_at(row, 48),
            parent: match u16::from_le_bytes([row[52], row[53]]) {
                sys::SHMB_FIELD_NO_PARENT => None,
                index => Some(index),
            },
            kind: row[54],
            align: row[55],
        })
        .collect()
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema")
            .field("name", &self.name())
            .field("record_len", &self.record_len())
            .field("fields", &self.fields())
            .finish()
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn text_at(bytes: &[u8], at: usize, len: usize) -> &str {
    let text = &bytes[at..at + len];
    let len = text.iter().position(|&byte| byte == 0).unwrap_or(len);
    std::str::from_utf8(&text[..len]).unwrap_or("?")
}
