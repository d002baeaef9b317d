//! The binary `firsthop`.

use std::process::ExitCode;

fn main() -> ExitCode {
    firsthop_server::cli::main()
}
