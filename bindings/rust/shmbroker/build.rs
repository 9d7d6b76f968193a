// SPDX-License-Identifier: Apache-2.0
//! Lets tests and examples find a library that is not installed.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if let Ok(dir) = std::env::var("DEP_SHMBROKER_RPATH") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", dir);
    }
}
