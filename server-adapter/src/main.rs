//! The binary `firsthop`.

use std::process::ExitCode;

/// Requests come and go on several threads, each with a handful of pieces of memory: the C library's allocator took a tenth of their
/// time, and musl's, of which a static binary would have to make do, far more. Without huge pages, which an idle server would hold 12 MiB of.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    firsthop_server::cli::main()
}
