// SPDX-License-Identifier: Apache-2.0
//! The declarations against the headers they mirror, when those are at hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const LIB: &str = include_str!("../src/lib.rs");

/// The headers of this source tree; `None` outside of it.
fn include_dir() -> Option<PathBuf> {
    let dir = match std::env::var_os("SHMBROKER_INCLUDE_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../include"),
    };
    dir.join("shmbroker/shmbroker.h").is_file().then_some(dir)
}

fn header(dir: &Path, name: &str) -> String {
    let text = fs::read_to_string(dir.join("shmbroker").join(name)).unwrap();
    // Without comments.
    let mut out = String::new();
    let mut rest = &text[..];
    while let Some(start) = rest.find("/*") {
        out.push_str(&rest[..start]);
        rest = &rest[start + rest[start..].find("*/").unwrap() + 2..];
    }
    out + rest
}

/// "name(n parameters)" of each function that `text` declares after one of `starts`.
fn functions(text: &str, is_start: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("shmb_") {
        let before = &text[..text.len() - rest.len() + at];
        rest = &rest[at..];
        let len = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, after) = rest.split_at(len);
        rest = after;
        let line = before.rsplit('\n').next().unwrap();
        if after.starts_with('(') && is_start(line) {
            let list = after[1..after.find(')').unwrap()].trim().trim_end_matches(',');
            let count = if list.is_empty() || list == "void" { 0 } else { list.split(',').count() };
            found.push(format!("{}({})", name, count));
        }
    }
    found.sort();
    found
}

#[test]
fn every_function_is_declared() {
    let dir = match include_dir() {
        Some(dir) => dir,
        None => return eprintln!("no headers here"),
    };
    let text = header(&dir, "shmbroker.h") + &header(&dir, "schema.h");
    let c = functions(&text, |line| {
        ["int32_t ", "const char *", "struct shmb_view *", "struct shmb_call_view *"]
            .contains(&line)
    });
    let rust = functions(LIB, |line| line == "    pub fn ");
    assert!(c.len() > 40, "{:?}", c);
    assert_eq!(c, rust);
}

/// "struct.field" and "CONSTANT" with their values, as the C compiler sees them.
#[test]
fn every_struct_and_constant_is_the_same() {
    let dir = match include_dir() {
        Some(dir) => dir,
        None => return eprintln!("no headers here"),
    };
    let mut program = String::from(
        "#include <stddef.h>\n#include <stdint.h>\n\
         #include <shmbroker/shmbroker.h>\n#include <shmbroker/schema.h>\n",
    );
    let mut checks = 0;
    let mut check = |expression: String, value: &str| {
        program += &format!("_Static_assert(({}) == ({}), \"\");\n", expression, value);
        checks += 1;
    };
    for line in LIB.lines() {
        if let Some(rest) = line.strip_prefix("pub const ") {
            let (name, rest) = rest.split_once(": ").unwrap();
            let value = rest.split_once("= ").unwrap().1.trim_end_matches(';').replace('_', "");
            if name != "SHMB_ABI_VERSION" {
                check(name.to_string(), &value);
            }
        }
    }
    // layout! { name, size, field: offset, ... }
    for part in LIB.split("layout! {").skip(1) {
        let body = part[..part.find('}').unwrap()].replace(char::is_whitespace, "");
        let mut items = body.split(',').filter(|item| !item.is_empty());
        let name = items.next().unwrap();
        check(format!("sizeof(struct {})", name), items.next().unwrap());
        for item in items {
            let (field, offset) = item.split_once(':').unwrap();
            check(format!("offsetof(struct {}, {})", name, field.trim_end_matches('_')), offset);
        }
    }
    assert!(checks > 100, "{}", checks);

    // version.h is made by configure; an empty one will do.
    let temp = std::env::temp_dir().join(format!("shmbroker-sys-{}", std::process::id()));
    let source = temp.join("check.c");
    fs::create_dir_all(temp.join("shmbroker")).unwrap();
    fs::write(temp.join("shmbroker/version.h"), "").unwrap();
    fs::write(&source, program).unwrap();
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".to_string());
    let mut words = cc.split_whitespace();
    let output = Command::new(words.next().unwrap_or("cc"))
        .args(words)
        .args(["-std=c11", "-fsyntax-only"])
        .arg("-I")
        .arg(&dir)
        .arg("-I")
        .arg(&temp)
        .arg(&source)
        .output()
        .unwrap();
    fs::remove_dir_all(&temp).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
