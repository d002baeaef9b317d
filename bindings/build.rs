//! The linker reserves a stack of a megabyte, unless told otherwise; a page should not pay for that.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() != Ok("wasm32") {
        return;
    }
    // `test/module.test.mjs` measures what a page's needs. The stack lies below everything else, so that an overflow
    // traps. The vectors' algorithms want more.
    let size = match (env::var_os("CARGO_FEATURE_VECTORS"), env::var_os("CARGO_FEATURE_SEAL")) {
        (Some(_), _) => 256 * 1024,
        (_, Some(_)) => 32 * 1024,
        _ => 8 * 1024,
    };
    println!("cargo::rustc-cdylib-link-arg=-zstack-size={size}");
    println!("cargo::rustc-cdylib-link-arg=--stack-first");
}
