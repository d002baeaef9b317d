//! A row of the table: what is done, what must hold, and what came of it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{Outcome, folder::Folder, random::Random};

/// One kind of fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// What is done, and what must hold besides the columns.
    pub(crate) what: &'static str,
    /// Most seconds, in full.
    pub(crate) limit: u64,
    pub(crate) run: fn(&mut Bench) -> Outcome<Figures>,
}

/// The columns, in events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) sent: u64,
    pub(crate) acked: u64,
    pub(crate) stored: u64,
    /// Refused for good, with a reason, and kept where the row says so.
    pub(crate) refused: u64,
    /// Sent again, and known to have been stored.
    pub(crate) duplicates: u64,
    /// Acknowledged and not there.
    pub(crate) lost: u64,
    /// There more than once.
    pub(crate) twice: u64,
    /// The longest time from the end of a fault, or the start of a new process, to the next acknowledgement.
    pub(crate) recovery: Option<Duration>,
    /// What else is worth a word.
    pub(crate) note: String,
}

impl Figures {
    pub(crate) fn recovered(mut self, time: Duration) -> Self {
        self.recovery = Some(self.recovery.map_or(time, |before| before.max(time)));
        self
    }

    pub(crate) fn noting(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    /// What every row must show. Everything that was sent is stored or refused, since producers go on until they have an answer.
    pub(crate) fn fault(&self) -> Option<String> {
        let Self { sent, acked, stored, refused, lost, twice, .. } = *self;
        match () {
            () if lost > 0 => Some(format!("{lost} acknowledged events are not there")),
            () if twice > 0 => Some(format!("{twice} events are stored twice")),
            () if acked == 0 => Some("nothing was acknowledged: the row shows nothing".into()),
            () if acked + refused != sent => Some(format!("{} events were never answered", sent - acked - refused)),
            () if stored != acked => Some(format!("{acked} events acknowledged, {stored} stored")),
            () => None,
        }
    }
}

/// What a row works with.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) short: bool,
    pub(crate) random: Random,
    pub(crate) path: PathBuf,
    pub(crate) binary: PathBuf,
    folders: u32,
    watch: Watch,
}

/// The servers of a row and what they have logged, for when it goes wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    pids: Arc<Mutex<Vec<u32>>>,
    logs: Arc<Mutex<Vec<Arc<Mutex<String>>>>>,
}

impl Watch {
    pub(crate) fn started(&self, pid: u32) {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner).push(pid);
    }

    pub(crate) fn ended(&self, pid: u32) {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| *other != pid);
    }

    /// Ends the servers that are left.
    pub(crate) fn kill(&self) {
        for pid in &*self.pids.lock().unwrap_or_else(PoisonError::into_inner) {
            // It may have ended meanwhile.
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
    }

    pub(crate) fn log(&self) -> Arc<Mutex<String>> {
        let log = Arc::default();
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&log));
        log
    }

    /// Prints the end of what the servers have logged.
    pub(crate) fn print_log(&self) {
        for log in &*self.logs.lock().unwrap_or_else(PoisonError::into_inner) {
            let log = log.lock().unwrap_or_else(PoisonError::into_inner);
            let lines: Vec<&str> = log.lines().collect();
            println!("--- the server's log, its last lines");
            lines[lines.len().saturating_sub(20)..].iter().for_each(|line| println!("{line}"));
        }
    }
}

impl Bench {
    pub(crate) fn new(short: bool, seed: u64, path: &Path, binary: &Path) -> Self {
        Self {
            short,
            random: Random::new(seed),
            path: path.to_owned(),
            binary: binary.to_owned(),
            folders: 0,
            watch: Watch::default(),
        }
    }

    /// A new data folder.
    pub(crate) fn folder(&mut self) -> Outcome<Folder> {
        self.folders += 1;
        let path = self.path.join(format!("data-{}", self.folders));
        self.folder_at(path)
    }

    pub(crate) fn folder_at(&mut self, path: PathBuf) -> Outcome<Folder> {
        Folder::new(path, &self.binary, self.watch.clone(), &mut self.random)
    }

    pub(crate) fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// So many in the short version, or so many in full.
    pub(crate) const fn times<T: Copy>(&self, short: T, full: T) -> T {
        if self.short { short } else { full }
    }
}
