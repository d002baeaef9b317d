//! The index of a write-ahead log, as far as it says what of the log has been moved.
//!
//! A sync that fails is never tried again: the kernel may have dropped what it could not write, and would call the second one a success.
//! What was moved, and may be nowhere now, is then moved once more, from the log.

use std::{
    fs::File,
    mem::ManuallyDrop,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

/// The index of a database's log.
#[derive(Debug)]
pub(crate) struct LogIndex {
    path: PathBuf,
    /// The file, by its number. Never closed: that would take away the locks that SQLite has on it, all of this process's.
    file: Option<(u64, ManuallyDrop<File>)>,
}

impl LogIndex {
    pub(crate) fn of(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-shm");
        Self { path: path.into(), file: None }
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
