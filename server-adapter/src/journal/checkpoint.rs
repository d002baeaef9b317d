//! Moving the write-ahead log into the database file without making a commit wait for it.
//!
//! A checkpoint of a large log takes as long as writing it again. So most of it is done on another thread while
//! commits go on; once little is left, the writer does that between two commits, and the log begins again from its
//! front. The log's file keeps its size: writing over what is allocated is cheaper than appending. A reader that
//! holds on to an old snapshot keeps the log from beginning again; it delays nobody.
//!
//! SQLite syncs the database file only with the last page of a log, which is the writer's: with all that was moved before, tens of
//! milliseconds in which nothing is committed. So the other thread syncs what it has moved, and little is left of that too.

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

use rusqlite::{Connection, hooks::Wal};

use super::schema;

/// Pages (of 16 KiB) in the log from which on it is time: 64 MiB. Each time the writer has to sync what is left, and nothing is committed.
const DUE: i32 = 4096;
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
    thread: Option<JoinHandle<()>>,
    /// Never closed: that would take away the locks that SQLite has on the file, all of this process's.
    file: Option<Arc<ManuallyDrop<File>>>,
    /// Tried, and a reader stood in the way: not again before the log has grown to this.
    next: i32,
}

impl Checkpoints {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, pages: Arc::default(), state: Arc::new(AtomicU8::new(IDLE)), thread: None, file: None, next: DUE }
    }

    /// Lets this connection tell how long the log is.
    pub(super) fn watch(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        let pages = Arc::clone(&self.pages);
        connection.wal_hook(Some(move |_: &mut Wal, count| {
            pages.store(count, Ordering::Relaxed);
            Ok(())
        }))
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
        self.join();
        let (log, moved) = passive(connection)?;
        // Where a reader holds on to the rest, it is for later.
        self.next = if moved == log { DUE } else { log + DUE };
        Ok(())
    }

    fn start(&mut self) {
        self.state.store(RUNNING, Ordering::Release);
        let (path, state) = (self.path.clone(), Arc::clone(&self.state));
        let file = self.file();
        let work = move || {
            if let Err(error) = move_most(&path, file.as_ref().map(|file| &***file)) {
                // The writer's own attempt shows whether it is serious.
                tracing::warn!(%error, "checkpoint");
            }
            state.store(DONE, Ordering::Release);
        };
        match std::thread::Builder::new().name("checkpoint".into()).stack_size(512 << 10).spawn(work) {
            Ok(thread) => self.thread = Some(thread),
            Err(_) => self.state.store(DONE, Ordering::Release),
        }
    }

    /// To sync the database file by. None: the writer's own sync has to do.
    fn file(&mut self) -> Option<Arc<ManuallyDrop<File>>> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok().map(|file| Arc::new(ManuallyDrop::new(file)));
        }
        self.file.clone()
    }

    /// Waits for the other thread, if it runs.
    pub(super) fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // It has no state of ours: a panic there is as good as no checkpoint.
            let _ = thread.join();
        }
        self.state.store(IDLE, Ordering::Release);
    }
}

fn move_most(path: &std::path::Path, file: Option<&File>) -> rusqlite::Result<()> {
    let connection = Connection::open(path)?;
    schema::configure(&connection)?;
    let mut before = 0;
    // Each round moves and syncs what came during the one before it, until that was little.
    for _ in 0..8 {
        let (_, moved) = passive(&connection)?;
        // The kernel tells every descriptor of a failure, so SQLite's own hears of it too, from the writer's sync.
        if let Some(Err(error)) = file.map(File::sync_data) {
            tracing::warn!(path = %path.display(), %error, "the database file cannot be synced");
            break;
        }
        if moved - before <= LITTLE {
            break;
        }
        before = moved;
    }
    Ok(())
}

/// Moves what no reader needs. Returns the pages of the log, and how many of them are moved.
fn passive(connection: &Connection) -> rusqlite::Result<(i32, i32)> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(1)?, row.get(2)?)))
}
