//! Moving the write-ahead log into the database file without making a commit wait for it.
//!
//! Another thread does nearly all of it while commits go on, as it comes: what is written at once keeps every other sync of the same
//! disk waiting, and for as long as the kernel hands it over, whoever needs that processor. A megabyte is a fraction of a millisecond,
//! sixteen were six. Once the log is long and little of it is left, the writer moves that between two commits, and the log begins again
//! from its front. The log's file keeps its size: writing over what is allocated is cheaper than appending. A reader that holds on to an
//! old snapshot keeps the log from beginning again; it delays nobody.
//!
//! SQLite syncs the database file only with the last page of a log, which is the writer's: with all that was moved before, tens of
//! milliseconds in which nothing is committed. So the other thread has the kernel begin to write what it moves, without waiting for it,
//! and syncs all of it once the log is long: little is left of that too.
//!
//! After a sync that failed, what was moved is moved once more, from the log, which is on disk ([`LogIndex`]).

use std::{
    fs::File,
    mem::ManuallyDrop,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI32, AtomicU8, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rusqlite::{Connection, ffi};

use super::{
    log::{self, LogIndex},
    room, schema,
};

/// Pages (of 16 KiB) in the log from which on the other thread begins: 4 MiB. And those that must have come since for it to move them.
const BEGIN: i32 = 256;
const SLICE: i32 = 64;
/// Pages of a log that may begin again: 16 MiB. Each time the writer has to sync what is left, and nothing is committed; but what is
/// synced at once keeps the next commit waiting too.
const LONG: i32 = 1024;
/// Pages that the writer may move itself: 1 MiB.
const LITTLE: i32 = 64;
/// Pages from which on commits wait for it: 1 GiB. The disk takes less than comes in, and says so by being slow.
const TOO_MANY: i32 = 65_536;
/// How often the thread looks for what has come, or for a reader who stood in its way to be gone; and how often in vain before it ends.
const LOOK: Duration = Duration::from_millis(1);
const LOOKS: u32 = 50;
/// Of a long log: how often what came during one round is moved in another before the writer has to, if that does not become little.
const ROUNDS: u32 = 8;

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
/// The thread has ended: too little comes.
const PAUSED: u8 = 2;
/// The thread has ended: the rest is the writer's.
const DONE: u8 = 3;

#[derive(Debug)]
pub(super) struct Checkpoints {
    path: PathBuf,
    /// Pages in the log after the last commit.
    pages: Arc<AtomicI32>,
    state: Arc<AtomicU8>,
    thread: Option<JoinHandle<rusqlite::Result<()>>>,
    /// The database file, to sync it and to make holes in it. Never closed: that would take away the locks that SQLite has on it, all of this process's.
    file: Option<Arc<ManuallyDrop<File>>>,
    index: LogIndex,
    /// Not before the log has grown to this.
    next: i32,
    /// Whether the file system has holes, as far as is known.
    holes: bool,
}

impl Checkpoints {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            index: LogIndex::of(&path),
            path,
            pages: Arc::default(),
            state: Arc::new(AtomicU8::new(IDLE)),
            thread: None,
            file: None,
            next: BEGIN,
            holes: true,
        }
    }

    /// Lets this connection tell how long the log is.
    pub(super) fn watch(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        log::watch(connection, &self.pages)
    }

    /// Pages in the log.
    pub(super) fn pages(&self) -> i32 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Between two commits: does what is due.
    pub(super) fn tend(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let pages = self.pages();
        match self.state.load(Ordering::Acquire) {
            IDLE if pages >= self.next => self.start(),
            PAUSED => {
                self.join()?;
                self.next = pages + BEGIN;
            }
            DONE => self.finish(connection)?,
            _ if pages >= TOO_MANY.max(self.next) => self.finish(connection)?,
            _ => {}
        }
        Ok(())
    }

    /// Moves what the other thread has left.
    fn finish(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.join()?;
        let (log, moved) = log::move_some(connection)?;
        // Where a reader holds on to the rest, it is for later.
        self.next = if moved == log { BEGIN } else { log + LONG };
        Ok(())
    }

    fn start(&mut self) {
        self.state.store(RUNNING, Ordering::Release);
        let (pages, state) = (Arc::clone(&self.pages), Arc::clone(&self.state));
        let mover = Mover { path: self.path.clone(), file: self.file(), pages, state };
        let work = move || {
            let moved = mover.run();
            mover.state.store(moved.as_ref().map_or(DONE, |end| *end), Ordering::Release);
            moved.map(drop)
        };
        match std::thread::Builder::new().name("checkpoint".into()).stack_size(512 << 10).spawn(work) {
            Ok(thread) => self.thread = Some(thread),
            Err(_) => self.state.store(DONE, Ordering::Release),
        }
    }

    /// Gives the disk back what the database file has of it and does not use.
    pub(super) fn give_back(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if !self.holes {
            return Ok(());
        }
        // What it has moved must be on disk, and it must not look while the log is taken away.
        self.join()?;
        let Some(file) = self.file() else { return Ok(()) };
        let Some(punched) = room::give_back(connection, &file, &self.path)? else { return Ok(()) };
        self.pages.store(0, Ordering::Relaxed);
        self.next = BEGIN;
        if let Err(error) = punched {
            // Nothing depends on it, and it costs a checkpoint each time.
            tracing::warn!(%error, "{} keeps its free room: the file system has no holes", self.path.display());
            self.holes = false;
        }
        Ok(())
    }

    /// None: the writer's own sync has to do.
    fn file(&mut self) -> Option<Arc<ManuallyDrop<File>>> {
        if self.file.is_none() {
            self.file = File::options()
                .read(true)
                .write(true)
                .open(&self.path)
                .ok()
                .map(|file| Arc::new(ManuallyDrop::new(file)));
        }
        self.file.clone()
    }

    /// Ends the other thread, if it runs. Returns whether what it moved is on disk.
    pub(super) fn join(&mut self) -> rusqlite::Result<()> {
        self.state.store(IDLE, Ordering::Release);
        let moved = self.thread.take().map(JoinHandle::join);
        self.state.store(IDLE, Ordering::Release);
        // A panic there is as good as no checkpoint: it has no state of ours.
        moved.and_then(Result::ok).unwrap_or(Ok(()))
    }

    /// Has the next checkpoint move all of the log, also what was moved before. There must be none under way.
    pub(super) fn move_again(&mut self) -> std::io::Result<()> {
        self.index.move_again()
    }
}

/// The other thread.
struct Mover {
    path: PathBuf,
    file: Option<Arc<ManuallyDrop<File>>>,
    pages: Arc<AtomicI32>,
    state: Arc<AtomicU8>,
}

impl Mover {
    /// Moves what comes. Returns how it ended.
    fn run(&self) -> rusqlite::Result<u8> {
        let connection = Connection::open(&self.path)?;
        schema::configure(&connection)?;
        let (mut before, mut rounds, mut in_vain) = (-1, 0, 0);
        let mut written = self.size();
        loop {
            let (_, moved) = log::move_some(&connection)?;
            let is_long = moved >= LONG;
            if moved <= before {
                // A reader stands in the way.
                in_vain += 1;
                if in_vain == LOOKS || !self.is_wanted() {
                    return Ok(if is_long { DONE } else { PAUSED });
                }
                std::thread::sleep(LOOK);
                continue;
            }
            (before, in_vain) = (moved, 0);
            if !is_long {
                self.begin_to_write(&mut written);
                if self.waits_for_more(moved) {
                    continue;
                }
                return Ok(PAUSED);
            }
            self.sync()?;
            rounds += 1;
            if rounds == ROUNDS || self.pages.load(Ordering::Relaxed) - moved <= LITTLE {
                return Ok(DONE);
            }
        }
    }

    fn size(&self) -> u64 {
        self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.len())
    }

    /// Has the kernel begin to write what was appended since, and no more than that: of what is on disk already, this advice is to forget it.
    fn begin_to_write(&self, written: &mut u64) {
        #[cfg(target_os = "linux")]
        if let (Some(file), Some(len)) = (&self.file, std::num::NonZeroU64::new(self.size().saturating_sub(*written))) {
            // It is advice: the sync does not depend on it.
            let _ = rustix::fs::fadvise(&***file, *written, Some(len), rustix::fs::Advice::DontNeed);
        }
        *written = self.size().max(*written);
    }

    fn sync(&self) -> rusqlite::Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.sync_data()).map_err(|error| {
            let code = ffi::Error::new(ffi::SQLITE_IOERR_FSYNC);
            rusqlite::Error::SqliteFailure(code, Some(error.to_string()))
        })
    }

    /// Waits until some have come after so many. Not: too little comes, the log has begun again, or it is to end.
    fn waits_for_more(&self, moved: i32) -> bool {
        for _ in 0..LOOKS {
            let came = self.pages.load(Ordering::Relaxed) - moved;
            if came >= SLICE {
                return true;
            } else if came < 0 || !self.is_wanted() {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        false
    }

    fn is_wanted(&self) -> bool {
        self.state.load(Ordering::Acquire) == RUNNING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half a megabyte each, until the log has begun again, if it does within so many.
    fn begins_again(checkpoints: &mut Checkpoints, connection: &Connection, within: u32) -> bool {
        let mut before = checkpoints.pages();
        for _ in 0..within {
            connection.execute("INSERT INTO t VALUES (zeroblob(500000))", []).unwrap();
            if checkpoints.pages() < before {
                return true;
            }
            before = checkpoints.pages();
            checkpoints.tend(connection).unwrap();
            // As between two requests: the thread has its turn.
            std::thread::sleep(LOOK);
        }
        false
    }

    #[test]
    fn a_log_begins_again_once_no_reader_holds_on_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let mut connection = schema::open_writer(&path).unwrap();
        connection.execute_batch("CREATE TABLE t (body BLOB)").unwrap();
        let mut checkpoints = Checkpoints::new(path.clone());
        checkpoints.watch(&mut connection).unwrap();
        assert!(begins_again(&mut checkpoints, &connection, 2000));
        assert!(begins_again(&mut checkpoints, &connection, 2000), "and again");

        // Something that only the log has.
        checkpoints.join().unwrap();
        connection.execute("INSERT INTO t VALUES (zeroblob(1))", []).unwrap();
        let reader = Connection::open(&path).unwrap();
        reader.execute_batch("BEGIN; SELECT COUNT(*) FROM t;").unwrap();
        // More than a log is long.
        assert!(!begins_again(&mut checkpoints, &connection, 50), "what it reads stays");
        let count: i64 = reader.query_row("SELECT COUNT(*) FROM t", [], |row| row.get(0)).unwrap();
        reader.execute_batch("COMMIT").unwrap();
        assert!(begins_again(&mut checkpoints, &connection, 2000), "it is gone");
        assert!(checkpoints.join().is_ok());
        let now: i64 = connection.query_row("SELECT COUNT(*) FROM t", [], |row| row.get(0)).unwrap();
        let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert!(now >= count + 50 && check == "ok", "{now}, {count}, {check}");
    }
}
