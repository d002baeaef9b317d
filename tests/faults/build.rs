//! Compiles the shim (`shim/shim.c`), which stands between the server and its system calls. With the C compiler that SQLite needs
//! anyway.

use std::{env, error::Error, path::PathBuf, process::Command};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=shim/shim.c");
    println!("cargo::rerun-if-env-changed=CC");
    if env::var("CARGO_CFG_TARGET_OS")? != "linux" {
        println!("cargo::rustc-env=FAULTS_SHIM=");
        return Ok(());
    }
    let shim = PathBuf::from(env::var("OUT_DIR")?).join("shim.so");
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".into());
    let flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread", "shim/shim.c"];
    let status = Command::new(&compiler).args(flags).args(["-ldl", "-o"]).arg(&shim).status()?;
    if !status.success() {
        return Err(format!("{compiler} does not compile shim/shim.c").into());
    }
    println!("cargo::rustc-env=FAULTS_SHIM={}", shim.display());
    Ok(())
}
