//! Moving the write-ahead log into the database file without making a commit wait for it.
//!
//! A checkpoint of a large log takes as long as writing it again. So most of it is done on another thread while
//! commits go on; once little is left, the writer does that between two commits, and the log begins again from its
//! front. The log's file keeps its size: writing over what is allocated is cheaper than appending. A reader that
//! holds on to an old snapshot keeps the log from beginning again; it delays nobody.
//!
//! SQLite syncs the database file only with the last page of a log, which is the writer's: with all that was moved before, tens of
//! milliseconds in which nothing is committed. So the other thread syncs what it has moved, and little is left of that too.
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
};

use rusqlite::{Connection, ffi};

use super::{
    log::{self, LogIndex},
    room, schema,
};

/// Pages (of 16 KiB) in the log from which on it is time: 16 MiB. Each time the writer has to sync what is left, and nothing is committed;
/// but a disk that is given much at once keeps the next commit's sync waiting for as long as it takes, and that one all who have sent
/// something: with 64 MiB the slowest hundredth of requests took half as long again.
const DUE: i32 = 1024;
/// Pages that the writer may move itself: 1 MiB.
const LITTLE: i32 = 64;
/// Pages from which on commits wait for it: 1 GiB. The disk takes less than comes in, and says so by being slow.
const TOO_MANY: i32 = 65_536;

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
const DONE: u8 = 2;

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
    /// Tried, and a reader stood in the way: not again before the log has grown to this.
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
            next: DUE,
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
        self.next = if moved == log { DUE } else { log + DUE };
        Ok(())
    }

    fn start(&mut self) {
        self.state.store(RUNNING, Ordering::Release);
        let (path, state) = (self.path.clone(), Arc::clone(&self.state));
        let file = self.file();
        let work = move || {
            let moved = move_most(&path, file.as_ref().map(|file| &***file));
            state.store(DONE, Ordering::Release);
            moved
        };
        match std::thread::Builder::new().name("checkpoint".into()).stack_size(512 << 10).spawn(work) {
            Ok(thread) => self.thread = Some(thread),
            Err(_) => self.state.store(DONE, Ordering::Release),
        }
    }

    /// Gives the disk back what the database file has of it and does not use, unless there is other work.
    pub(super) fn give_back(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if !self.holes || self.state.load(Ordering::Acquire) != IDLE {
            return Ok(());
        }
        let Some(file) = self.file() else { return Ok(()) };
        let Some(punched) = room::give_back(connection, &file, &self.path)? else { return Ok(()) };
        self.pages.store(0, Ordering::Relaxed);
        self.next = DUE;
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

    /// Waits for the other thread, if it runs. Returns whether what it moved is on disk.
    pub(super) fn join(&mut self) -> rusqlite::Result<()> {
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

fn move_most(path: &std::path::Path, file: Option<&File>) -> rusqlite::Result<()> {
    let connection = Connection::open(path)?;
    schema::configure(&connection)?;
    let mut before = 0;
    // Each round moves and syncs what came during the one before it, until that was little.
    for _ in 0..8 {
        let (_, moved) = log::move_some(&connection)?;
        if let Some(Err(error)) = file.map(File::sync_data) {
            let code = ffi::Error::new(ffi::SQLITE_IOERR_FSYNC);
            return Err(rusqlite::Error::SqliteFailure(code, Some(error.to_string())));
        }
        if moved - before <= LITTLE {
            break;
        }
        before = moved;
    }
    Ok(())
}
