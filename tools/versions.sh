# shellcheck shell=bash
# The versions of the tools that neither Cargo.toml nor package.json can name. Sourced by the scripts beside it.
#
# wasm-bindgen is not here: it must be the very version of the library, so tools/env.sh reads it from Cargo.toml.

RUST_MIN=1.91        # worker-build needs it; the crates themselves build with 1.90
NODE_MIN=22.12       # wrangler and miniflare need it; an older system node is left alone and 22 put beside it
NODE_VERSION=22.23.3
NPM_VERSION=10.9.9
WORKER_BUILD_VERSION=0.8.7
NEXTEST_VERSION=0.9.148
DENY_VERSION=0.20.2
