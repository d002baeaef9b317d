# shellcheck shell=bash
# The environment that everything here is built and tested in:
#
#     source tools/env.sh
#
# Sets PATH (Node 22, wasm-bindgen, worker-build, cargo-nextest, cargo-deny, node_modules/.bin), the *_BIN variables by which
# worker-build and the SDK build find their tools, and CHROMIUM_BIN. It installs nothing: `tools/setup` does that, and `make` calls it.
# In a build of your own with open internet none of this is needed: worker-build then fetches its tools itself.

FIRSTHOP_ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]:-$0}")/.." && pwd)
# Outside the clone, so that a second clone does not compile the tools again. FIRSTHOP_TOOLS=.tools keeps them inside.
FIRSTHOP_TOOLS=${FIRSTHOP_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/firsthop-tools}
case $FIRSTHOP_TOOLS in /*) ;; *) FIRSTHOP_TOOLS=$FIRSTHOP_ROOT/$FIRSTHOP_TOOLS ;; esac

. "$FIRSTHOP_ROOT/tools/versions.sh"
WASM_BINDGEN_VERSION=$(sed -n 's/^wasm-bindgen = .*"=\([0-9.]*\)".*/\1/p' "$FIRSTHOP_ROOT/Cargo.toml")

# Every tool has a folder named by its version: clones with different pins share one FIRSTHOP_TOOLS without a quarrel.
NODE_DIR=$FIRSTHOP_TOOLS/node-$NODE_VERSION
WASM_BINDGEN_DIR=$FIRSTHOP_TOOLS/wasm-bindgen-$WASM_BINDGEN_VERSION
WORKER_BUILD_DIR=$FIRSTHOP_TOOLS/worker-build-$WORKER_BUILD_VERSION
CARGO_TOOLS_DIR=$FIRSTHOP_TOOLS/cargo-nextest-$NEXTEST_VERSION-deny-$DENY_VERSION

# Our folders once, in front, however often this is sourced. A cargo-nextest or cargo-deny that the machine has comes first.
_fh_clean=:$PATH:
for _fh_dir in "$NODE_DIR/bin" "$WASM_BINDGEN_DIR/bin" "$WORKER_BUILD_DIR/bin" "$FIRSTHOP_ROOT/node_modules/.bin" "$CARGO_TOOLS_DIR/bin"; do
  _fh_clean=${_fh_clean//:"$_fh_dir":/:}
done
_fh_clean=${_fh_clean#:} _fh_clean=${_fh_clean%:}
PATH=$NODE_DIR/bin:$WASM_BINDGEN_DIR/bin:$WORKER_BUILD_DIR/bin:$FIRSTHOP_ROOT/node_modules/.bin:$_fh_clean:$CARGO_TOOLS_DIR/bin
unset _fh_clean _fh_dir

WASM_BINDGEN_BIN=$WASM_BINDGEN_DIR/bin/wasm-bindgen
WASM_OPT_BIN=$FIRSTHOP_ROOT/node_modules/binaryen/bin/wasm-opt
ESBUILD_BIN=$FIRSTHOP_ROOT/node_modules/esbuild/bin/esbuild
CHROMIUM_BIN=${CHROMIUM_BIN:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || echo /usr/bin/chromium)}

# wrangler asks for consent to send usage data, and looks for updates, unless told not to.
WRANGLER_SEND_METRICS=false

export FIRSTHOP_ROOT FIRSTHOP_TOOLS PATH WASM_BINDGEN_BIN WASM_OPT_BIN ESBUILD_BIN CHROMIUM_BIN WRANGLER_SEND_METRICS
