// SPDX-License-Identifier: Apache-2.0
//! Finds libshmbroker: in `$SHMBROKER_LIB_DIR`, else where pkg-config says.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SHMBROKER_LIB_DIR");
    println!("cargo:rerun-if-env-changed=PKG_CONFIG");
    println!("cargo:rerun-if-env-changed=PKG_CONFIG_PATH");
    if env::var_os("DOCS_RS").is_some() {
        return; // Documentation needs no library.
    }
    if let Ok(dir) = env::var("SHMBROKER_LIB_DIR") {
        println!("cargo:rustc-link-search=native={}", dir);
        println!("cargo:rustc-link-lib=shmbroker");
        // Whoever depends on this crate directly reads it as DEP_SHMBROKER_RPATH.
        println!("cargo:rpath={}", dir);
        return;
    }
    match pkg_config() {
        Ok(flags) => {
            for flag in flags.split_whitespace() {
                if let Some(dir) = flag.strip_prefix("-L") {
                    println!("cargo:rustc-link-search=native={}", dir);
                } else if let Some(library) = flag.strip_prefix("-l") {
                    println!("cargo:rustc-link-lib={}", library);
                }
            }
        }
        Err(why) => {
            eprintln!("libshmbroker was not found: {}", why);
            eprintln!("Install it, set PKG_CONFIG_PATH to the directory of libshmbroker.pc,");
            eprintln!("or set SHMBROKER_LIB_DIR to the directory of libshmbroker.so.");
            std::process::exit(1);
        }
    }
}

fn pkg_config() -> Result<String, String> {
    let program = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".to_string());
    let output = Command::new(&program)
        .args(["--libs", "libshmbroker"])
        .output()
        .map_err(|error| format!("{}: {}", program, error))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_string());
    }
    String::from_utf8(output.stdout).map_err(|error| error.to_string())
}
