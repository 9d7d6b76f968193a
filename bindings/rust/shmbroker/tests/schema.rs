// SPDX-License-Identifier: Apache-2.0
//! The tables against those that the C macro makes of the same structs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use shmbroker::{record, Bool8, Char, Pad, Record, Schema, Text};

record! {
    #[derive(Debug, PartialEq)]
    pub struct Tick: "market.tick" {
        pub time_ns: u64,
        pub price: f64,
        pub count: u32,
        pub flags: u32,
    }
}

record! {
    pub struct Every: "test/every:kind-1" {
        u64_field: u64,
        i64_field: i64,
        f64_field: f64,
        u32_field: u32,
        i32_field: i32,
        f32_field: f32,
        u16_field: u16,
        i16_field: i16,
        u8_field: u8,
        i8_field: i8,
        bool_field: Bool8,
        char_field: Char,
        text: [Char; 12],
        numbers: [i32; 6],
        wide: [f64; 2],
    }
}

record! { pub struct Leg: "leg" { price: f64, count: u32, side: u8, pad0: Pad<3> } }

record! {
    pub struct Spread: "spread" {
        r#type: u8,
        pad0: Pad<7>,
        leg: Leg,
        legs: [Leg; 3],
        last: u16,
        pad1: Pad<6>,
    }
}

record! { pub struct Inner: "inner" { a: u16, b: [u8; 2] } }
record! { pub struct Middle: "middle" { c: u32, inner: Inner, d: u32 } }
record! { pub struct Outer: "outer" { before: u32, middle: Middle, after: [Inner; 2] } }

const PROGRAM: &str = r#"
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <shmbroker/schema.h>
struct tick { uint64_t time_ns; double price; uint32_t count; uint32_t flags; };
SHMB_SCHEMA(tick, struct tick, "market.tick",
	    SHMB_FIELD(struct tick, time_ns), SHMB_FIELD(struct tick, price),
	    SHMB_FIELD(struct tick, count), SHMB_FIELD(struct tick, flags));
struct every {
	uint64_t u64_field; int64_t i64_field; double f64_field;
	uint32_t u32_field; int32_t i32_field; float f32_field;
	uint16_t u16_field; int16_t i16_field; uint8_t u8_field; int8_t i8_field;
	bool bool_field; char char_field; char text[12]; int32_t numbers[6]; double wide[2];
};
#define F(field) SHMB_FIELD(struct every, field)
#define A(field) SHMB_ARRAY(struct every, field)
SHMB_SCHEMA(every, struct every, "test/every:kind-1",
	    F(u64_field), F(i64_field), F(f64_field), F(u32_field), F(i32_field), F(f32_field),
	    F(u16_field), F(i16_field), F(u8_field), F(i8_field), F(bool_field), F(char_field),
	    A(text), A(numbers), A(wide));
struct leg { double price; uint32_t count; uint8_t side; };
SHMB_SCHEMA(leg, struct leg, "leg", SHMB_FIELD(struct leg, price), SHMB_FIELD(struct leg, count),
	    SHMB_FIELD(struct leg, side));
struct spread { uint8_t type; struct leg leg; struct leg legs[3]; uint16_t last; };
SHMB_SCHEMA(spread, struct spread, "spread",
	    SHMB_FIELD(struct spread, type),
	    SHMB_STRUCT(struct spread, leg),
	    SHMB_FIELD_IN(1, struct leg, price), SHMB_FIELD_IN(1, struct leg, count),
	    SHMB_FIELD_IN(1, struct leg, side),
	    { .name = "legs", .offset = offsetof(struct spread, legs), .size = sizeof(struct leg),
	      .count = 3, .parent = SHMB_FIELD_NO_PARENT, .kind = SHMB_KIND_STRUCT,
	      .align = _Alignof(struct leg) },
	    SHMB_FIELD_IN(5, struct leg, price), SHMB_FIELD_IN(5, struct leg, count),
	    SHMB_FIELD_IN(5, struct leg, side),
	    SHMB_FIELD(struct spread, last));
struct inner { uint16_t a; uint8_t b[2]; };
struct middle { uint32_t c; struct inner inner; uint32_t d; };
struct outer { uint32_t before; struct middle middle; struct inner after[2]; };
#define B(parent_) { .name = "b", .offset = offsetof(struct inner, b), .size = 1, .count = 2, \
	.parent = parent_, .kind = SHMB_KIND_U8, .align = 1 }
SHMB_SCHEMA(outer, struct outer, "outer",
	    SHMB_FIELD(struct outer, before),
	    SHMB_STRUCT(struct outer, middle),
	    SHMB_FIELD_IN(1, struct middle, c),
	    { .name = "inner", .offset = offsetof(struct middle, inner), .size = sizeof(struct inner),
	      .count = 1, .parent = 1, .kind = SHMB_KIND_STRUCT, .align = _Alignof(struct inner) },
	    SHMB_FIELD_IN(3, struct inner, a), B(3),
	    SHMB_FIELD_IN(1, struct middle, d),
	    { .name = "after", .offset = offsetof(struct outer, after), .size = sizeof(struct inner),
	      .count = 2, .parent = SHMB_FIELD_NO_PARENT, .kind = SHMB_KIND_STRUCT,
	      .align = _Alignof(struct inner) },
	    SHMB_FIELD_IN(7, struct inner, a), B(7));
int main(void)
{
#define PUT(table) do { fwrite(&table, sizeof(table), 1, stdout); } while (0)
	PUT(tick); PUT(every); PUT(leg); PUT(spread); PUT(outer);
	return 0;
}
"#;

#[test]
fn tables_are_those_of_the_c_macro() {
    let include = match std::env::var_os("SHMBROKER_INCLUDE_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../include"),
    };
    if !include.join("shmbroker/schema.h").is_file() {
        return eprintln!("no headers here");
    }
    let base = std::env::temp_dir().join(format!("shmbroker-schema-{}", std::process::id()));
    let source = base.with_extension("c");
    fs::write(&source, PROGRAM).unwrap();
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".to_string());
    let mut words = cc.split_whitespace();
    let status = Command::new(words.next().unwrap_or("cc"))
        .args(words)
        .args(["-std=gnu11", "-Wall", "-Werror", "-I"])
        .arg(&include)
        .arg("-o")
        .arg(&base)
        .arg(&source)
        .status()
        .unwrap();
    fs::remove_file(&source).unwrap();
    assert!(status.success());
    let mut c = Command::new(&base).output().unwrap().stdout;
    fs::remove_file(&base).unwrap();

    for (name, rust) in [
        ("tick", Tick::SCHEMA),
        ("every", Every::SCHEMA),
        ("leg", Leg::SCHEMA),
        ("spread", Spread::SCHEMA),
        ("outer", Outer::SCHEMA),
    ] {
        let rest = c.split_off(rust.len().min(c.len()));
        assert_eq!(c.len(), rust.len(), "{}", name);
        for (row, (c, rust)) in c.chunks(64).zip(rust.chunks(64)).enumerate() {
            assert_eq!(c, rust, "{} row {}", name, row);
        }
        c = rest;
    }
    assert!(c.is_empty());
}

#[test]
fn a_table_byte_by_byte() {
    let mut want = b"SHT1\x01\0\x04\0\x18\0\0\0\x08\0\0\0market.tick".to_vec();
    want.resize(64, 0);
    for (name, offset, size, kind) in
        [("time_ns", 0, 8, 7), ("price", 8, 8, 10), ("count", 16, 4, 5), ("flags", 20, 4, 5)]
    {
        let mut row = name.as_bytes().to_vec();
        row.resize(40, 0);
        row.extend_from_slice(&[offset, 0, 0, 0, size, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff]);
        row.extend_from_slice(&[kind, size]);
        row.resize(64, 0);
        want.extend_from_slice(&row);
    }
    assert_eq!(Tick::SCHEMA, &want[..]);
}

#[test]
fn the_library_accepts_them() {
    for table in [Tick::SCHEMA, Every::SCHEMA, Leg::SCHEMA, Spread::SCHEMA, Outer::SCHEMA] {
        let schema = Schema::from_bytes(table).unwrap();
        assert_eq!(schema.as_bytes(), table);
    }
    let mut bad = Tick::SCHEMA.to_vec();
    bad[64 + 54] = 99;
    let error = Schema::from_bytes(bad).unwrap_err();
    assert!(error.to_string().contains("time_ns"), "{}", error);
}

#[test]
fn a_schema_can_be_read() {
    let schema = Schema::of::<Spread>();
    assert_eq!((schema.name(), schema.record_len()), ("spread", 80));
    let fields = schema.fields();
    let names: Vec<_> = fields.iter().map(|field| &field.name[..]).collect();
    let want = ["type", "leg", "price", "count", "side", "legs", "price", "count", "side", "last"];
    assert_eq!(names, want);
    assert_eq!((fields[0].parent, fields[4].parent, fields[8].parent), (None, Some(1), Some(5)));
    assert_eq!((fields[5].offset, fields[5].size, fields[5].count), (24, 16, 3));
    assert_eq!((fields[5].kind_name(), fields[9].kind_name()), ("struct", "u16"));
}

#[test]
fn the_field_that_differs_is_named() {
    record! {
        struct Other: "market.tick" { time_ns: u64, price: u64, count: u32, flags: u32 }
    }
    let error = Schema::of::<Tick>().compare(&Schema::of::<Other>()).unwrap_err();
    assert_eq!(error.kind(), shmbroker::ErrorKind::SchemaMismatch);
    let text = error.to_string();
    assert!(text.contains("price") && text.contains("f64") && text.contains("u64"), "{}", text);
}

#[test]
fn any_bytes_are_a_record() {
    let bytes = [0xff; std::mem::size_of::<Every>()];
    let every = Every::from_bytes(&bytes).unwrap();
    assert!(every.bool_field.get());
    assert_eq!(every.bool_field, Bool8::TRUE);
    assert_eq!(every.as_bytes(), bytes);
    assert!(every.text.to_str().is_err());
    assert!(Every::from_bytes(&bytes[1..]).is_none());
    assert_eq!(Every::zeroed().text.to_str(), Ok(""));
}

#[test]
fn text_is_cut_where_a_character_ends() {
    assert_eq!(Char::text::<3>("naïve").to_str(), Ok("na"));
    let mut text = Char::text::<5>("naïve");
    assert_eq!(text.to_str(), Ok("naïv"));
    text.set("nai\u{ef}");
    assert_eq!(text.to_str(), Ok("naiï"));
    text.set("");
    assert_eq!(text, [Char(0); 5]);
}
