//! A database's write-ahead log: where it is, how long it is, and how it is moved into the database.
//!
//! A sync that fails is never tried again: the kernel may have dropped what it could not write, and would call the second one a success.
//! What was moved, and may be nowhere now, is then moved once more, from the log.

use std::{
    fs::File,
    mem::ManuallyDrop,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
};

use rusqlite::{Connection, ffi, hooks::Wal};

/// The log of a database.
pub(crate) fn path_of(database: &Path) -> PathBuf {
    beside(database, "-wal")
}

/// Has a connection count the pages that are in the log after each of its commits.
pub(crate) fn watch(connection: &mut Connection, pages: &Arc<AtomicI32>) -> rusqlite::Result<()> {
    let pages = Arc::clone(pages);
    connection.wal_hook(Some(move |_: &mut Wal, count| {
        pages.store(count, Ordering::Relaxed);
        Ok(())
    }))
}

/// Moves what no reader needs. Returns the pages of the log, and how many of them are moved.
pub(crate) fn move_some(connection: &Connection) -> rusqlite::Result<(i32, i32)> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(1)?, row.get(2)?)))
}

/// Moves all of it into the database, syncs that, and begins the log anew. False: a reader holds on to it.
pub(crate) fn move_all(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0)).map(|busy| !busy)
}

/// The same, where that a reader holds on to it is an error.
pub(crate) fn truncate(connection: &Connection) -> rusqlite::Result<()> {
    if move_all(connection)? {
        Ok(())
    } else {
        Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), None))
    }
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// The index of a log, as far as it says what of it has been moved.
#[derive(Debug)]
pub(crate) struct LogIndex {
    path: PathBuf,
    /// The file, by its number. Never closed: that would take away the locks that SQLite has on it, all of this process's.
    file: Option<(u64, ManuallyDrop<File>)>,
}

impl LogIndex {
    pub(crate) fn of(database: &Path) -> Self {
        Self { path: beside(database, "-shm"), file: None }
    }

    /// Has the next checkpoint move all of the log, also what was moved before. Other connections of this process keep the index of the
    /// log in memory, and with it how much of the log has been moved: the number at byte 96 (<https://sqlite.org/walformat.html>, 2.2).
    /// Less than there is does no harm; only checkpoints change it, and there must be none under way.
    pub(crate) fn move_again(&mut self) -> std::io::Result<()> {
        const MOVED: u64 = 96;
        let number = match std::fs::metadata(&self.path) {
            Ok(meta) => meta.ino(),
            // Without an index nothing is known of it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if self.file.as_ref().is_none_or(|(known, _)| *known != number) {
            self.file = Some((number, ManuallyDrop::new(File::options().write(true).open(&self.path)?)));
        }
        self.file.as_ref().map_or(Ok(()), |(_, file)| file.write_all_at(&[0; 4], MOVED))
    }
}
