//! What must not happen to an event, tried on the real server: `make faults`.
//!
//! Each row does something bad to a server process while producers send, and then compares what they know (every frame sent, every 2xx received)
//! with what is in the files. What was acknowledged must be there, once, and as it was sent. `docs/faults.md` says what each row does.

mod edge;
mod folder;
mod http;
mod load;
mod power;
mod producer;
mod random;
mod receiver;
mod report;
mod row;
mod rows;
mod shim;
mod stored;

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;

use crate::{
    report::Report,
    row::{Bench, Figures, Row},
};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Tries faults on the server, and prints one table. Ends with 1 if anything acknowledged was lost, altered or stored twice, or if a row could not
/// show what it is for.
#[derive(Debug, Parser)]
struct Options {
    /// Rows to try; without any: all.
    rows: Vec<String>,
    /// The short version of each, as `make test` has it.
    #[arg(long)]
    short: bool,
    /// Show the rows.
    #[arg(long)]
    list: bool,
    /// What decides on all that is random but the time that things take.
    #[arg(long)]
    seed: Option<u64>,
    /// The server [default: FIRSTHOP_BIN, or the one beside this program]
    #[arg(long)]
    server: Option<PathBuf>,
    /// Keep the folders of rows that went well, too.
    #[arg(long)]
    keep: bool,
    /// Write the figures into this document, between its two marks.
    #[arg(long)]
    write: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("firsthop-faults: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Outcome<bool> {
    let all = rows::all();
    if options.list {
        all.iter().for_each(|row| println!("{:<20}{}", row.name, row.what));
        return Ok(true);
    }
    let unknown = options.rows.iter().find(|name| all.iter().all(|row| row.name != **name));
    if let Some(unknown) = unknown {
        return Err(format!("no row {unknown:?}; --list names them").into());
    }
    let is_chosen = |row: &&Row| options.rows.is_empty() || options.rows.iter().any(|name| name == row.name);
    let binary = server(options)?;
    let mut eight = [0; 8];
    getrandom::fill(&mut eight)?;
    let seed = options.seed.unwrap_or(u64::from_le_bytes(eight) >> 32);
    println!("faults: {} with seed {seed}", binary.display());
    let folder = tempfile::Builder::new().prefix("firsthop-faults-").tempdir()?;
    let mut report = Report::default();
    let mut is_kept = options.keep;
    for row in all.iter().filter(is_chosen) {
        let path = folder.path().join(row.name);
        std::fs::create_dir(&path)?;
        let began = Instant::now();
        let result = attempt(row, Bench::new(options.short, seed, &path, &binary));
        let is_well = report.add(row, began.elapsed(), result);
        if is_well && !options.keep {
            std::fs::remove_dir_all(&path)?;
        } else if !is_well {
            is_kept = true;
            println!("  its folder: {}", path.display());
        }
    }
    println!("\n{report}");
    if is_kept {
        println!("kept: {}", folder.keep().display());
    }
    if let Some(document) = &options.write {
        report.write(document, options.short)?;
    }
    Ok(report.is_well())
}

/// Runs a row, for as long as it may.
fn attempt(row: &Row, mut bench: Bench) -> Outcome<Figures> {
    let (done, is_done) = mpsc::channel();
    let (run, watch) = (row.run, bench.watch());
    let attempt = thread::spawn(move || {
        let result = run(&mut bench);
        let _ = done.send(result);
    });
    let result = match is_done.recv_timeout(Duration::from_secs(row.limit)) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("the row panicked".into()),
        Err(mpsc::RecvTimeoutError::Timeout) => {
            // Without its servers it comes to an end by itself.
            watch.kill();
            let _ = is_done.recv_timeout(Duration::from_secs(30));
            Err(format!("not done after {} s", row.limit).into())
        }
    };
    let result = result.and_then(|figures| match figures.fault() {
        Some(fault) => Err(format!("{fault}: {figures:?}").into()),
        None => Ok(figures),
    });
    if result.is_err() {
        watch.print_log();
    }
    if attempt.is_finished() {
        // Its panic has been printed already.
        let _ = attempt.join();
    }
    result
}

fn server(options: &Options) -> Outcome<PathBuf> {
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("firsthop"));
    let path = options.server.clone().or_else(|| std::env::var_os("FIRSTHOP_BIN").map(PathBuf::from)).or_else(beside);
    let path = path.filter(|path| Path::is_file(path)).ok_or("no server: build it, and name it by --server")?;
    Ok(path.canonicalize()?)
}
