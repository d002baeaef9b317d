//! The other side of `shim/shim.c`: what shall fail, and what has happened.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{Outcome, random::Random};

/// The slots, in their order in the file.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
enum Slot {
    Loaded,
    ClockMs,
    Sync,
    Write = 7,
    Syncs = 12,
    SyncsFailed,
    WritesFailed = 15,
    Random,
    Lies,
    End,
}

/// Numbers of errors, as Linux has them.
pub(crate) const EIO: i64 = 5;
pub(crate) const ENOSPC: i64 = 28;

/// How calls of a kind fail.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Failing {
    /// Each takes so much longer.
    pub(crate) delay: Duration,
    /// The error; 0: none.
    pub(crate) errno: i64,
    /// So many succeed before.
    pub(crate) skip: i64,
    /// So many fail; below 0: all from then on.
    pub(crate) times: i64,
    /// Of a million, so many; 0: all.
    pub(crate) per_million: i64,
}

#[derive(Debug)]
pub(crate) struct Shim {
    control: PathBuf,
    file: File,
    pub(super) record: Option<PathBuf>,
    /// How the path of a file ends whose syncs may fail.
    pub(crate) syncs: &'static str,
}

impl Shim {
    /// `records`: whether a power cut is to be played.
    pub(crate) fn new(folder: &Path, records: bool, random: &mut Random) -> Outcome<Self> {
        if env!("FAULTS_SHIM").is_empty() {
            return Err("the shim is for Linux only".into());
        }
        let control = folder.join("shim.control");
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&control)?;
        // Written, not only made that long: the server maps it, and a page that finds no room on the disk would end it without a word.
        file.write_all_at(&[0; Slot::End as usize * 8], 0)?;
        let record = records.then(|| folder.join("shim.record"));
        let shim = Self { control, file, record, syncs: "" };
        shim.set(Slot::Random as u64, (random.next() >> 1) as i64)?;
        Ok(shim)
    }

    pub(crate) fn lay_under(&self, command: &mut Command) {
        command.env("LD_PRELOAD", env!("FAULTS_SHIM")).env("FAULTS_CONTROL", &self.control);
        command.env("FAULTS_MATCH", "/tenants/").env("FAULTS_SYNCS", self.syncs);
        if let Some(record) = &self.record {
            command.env("FAULTS_RECORD", record);
        }
    }

    fn set(&self, slot: u64, value: i64) -> Outcome<()> {
        Ok(self.file.write_all_at(&value.to_ne_bytes(), slot * 8)?)
    }

    fn get(&self, slot: Slot) -> Outcome<i64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, slot as u64 * 8)?;
        Ok(i64::from_ne_bytes(bytes))
    }

    pub(crate) fn is_loaded(&self) -> Outcome<bool> {
        Ok(self.get(Slot::Loaded)? > 0)
    }

    /// How far the clock is off.
    pub(crate) fn shift_clock(&self, millis: i64) -> Outcome<()> {
        self.set(Slot::ClockMs as u64, millis)
    }

    pub(crate) fn syncs(&self, failing: Failing) -> Outcome<()> {
        self.fail(Slot::Sync, failing)
    }

    pub(crate) fn writes(&self, failing: Failing) -> Outcome<()> {
        self.fail(Slot::Write, failing)
    }

    /// Syncs say that they have, and have not.
    pub(crate) fn lie(&self, lies: bool) -> Outcome<()> {
        self.set(Slot::Lies as u64, lies.into())
    }

    fn fail(&self, at: Slot, failing: Failing) -> Outcome<()> {
        let at = at as u64;
        // Off first, on last: the server looks at them meanwhile.
        self.set(at + 1, 0)?;
        self.set(at, failing.delay.as_micros() as i64)?;
        self.set(at + 2, failing.skip)?;
        self.set(at + 3, failing.times)?;
        self.set(at + 4, failing.per_million)?;
        self.set(at + 1, failing.errno)
    }

    /// Syncs, failed syncs, failed writes since the beginning.
    pub(crate) fn counts(&self) -> Outcome<(i64, i64, i64)> {
        Ok((self.get(Slot::Syncs)?, self.get(Slot::SyncsFailed)?, self.get(Slot::WritesFailed)?))
    }
}
