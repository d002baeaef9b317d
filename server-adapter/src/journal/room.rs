//! Room that nothing uses any more, given back to the disk.
//!
//! Retention frees pages, and SQLite keeps them for what comes next: the file never gets shorter, and what a sink that stood still has filled
//! would stay full. To move what is behind them (a vacuum) costs as much as writing it again. So free pages become holes of the file instead:
//! a hole takes nothing of the disk, reads as zeros, and is filled by the next write.
//!
//! That is safe only while nobody can ask for what stood there: the log is moved and empty, so that the file itself says which pages are free,
//! and no reader sees an older state; and nobody writes meanwhile. SQLite says the first by a checkpoint of the kind TRUNCATE, and sees to the
//! second by its write lock.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path, time::Duration};

use rusqlite::Connection;

use super::{log, schema};

/// What one time gives back, about: the writer does nothing else meanwhile.
const MOST: u64 = 256 << 20;

/// What the file takes of the disk; 0 if that cannot be told.
pub(super) fn taken(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).map_or(0, |meta| meta.blocks() * 512)
}

/// Makes holes of pages that are free. `connection` is the only writer's. None: a reader stands in the way, and nothing was done. The inner error
/// is that of a file system that has no holes.
pub(super) fn give_back(
    connection: &Connection,
    file: &File,
    path: &Path,
) -> rusqlite::Result<Option<std::io::Result<()>>> {
    // Whoever reads need not wait, and nobody shall wait for them.
    connection.busy_timeout(Duration::ZERO)?;
    let is_moved = log::move_all(connection);
    schema::set_busy_timeout(connection)?;
    if !is_moved? {
        return Ok(None);
    }
    connection.execute_batch("BEGIN IMMEDIATE")?;
    // Whoever else may have written in between, has written there.
    let is_alone = std::fs::metadata(log::path_of(path)).map_or(0, |meta| meta.len()) == 0;
    let punched = if is_alone { punch(file, MOST) } else { Ok(()) };
    connection.execute_batch("ROLLBACK")?;
    Ok(Some(punched))
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// Walks the list of free pages (<https://sqlite.org/fileformat2.html>, 1.5): a trunk names the next trunk and some leaves, and what a leaf
/// holds means nothing.
fn punch(file: &File, most: u64) -> std::io::Result<()> {
    let mut header = [0; 100];
    file.read_exact_at(&mut header, 0)?;
    let size = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        size => usize::from(size),
    };
    let (pages, mut trunk, mut left) = (number(&header, 28), number(&header, 32), number(&header, 36));
    let (mut page, mut given) = (vec![0; size], 0);
    while trunk > 1 && trunk <= pages && left > 0 && given < most {
        file.read_exact_at(&mut page, u64::from(trunk - 1) * size as u64)?;
        let count = (number(&page, 4) as usize).min(size / 4 - 2);
        let leaf = |at: usize| number(&page, 8 + 4 * at);
        let mut leaves: Vec<u32> = (0..count).map(leaf).filter(|&leaf| leaf > 1 && leaf <= pages).collect();
        leaves.sort_unstable();
        for run in leaves.chunk_by(|a, b| a + 1 == *b) {
            given += hole(file, u64::from(run[0] - 1) * size as u64, run.len() as u64 * size as u64)?;
        }
        left = left.saturating_sub(count as u32 + 1);
        trunk = number(&page, 0);
    }
    Ok(())
}

/// Makes a hole, unless it is one. Returns how large it is.
#[cfg(target_os = "linux")]
fn hole(file: &File, from: u64, length: u64) -> std::io::Result<u64> {
    use rustix::{
        fs::{FallocateFlags, SeekFrom, fallocate, seek},
        io::Errno,
    };
    match seek(file, SeekFrom::Data(from)) {
        Ok(data) if data < from + length => {
            fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, from, length)?;
            Ok(length)
        }
        // No data there, or none at all after it.
        Ok(_) | Err(Errno::NXIO) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn hole(_: &File, _: u64, _: u64) -> std::io::Result<u64> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::journal::schema::{configure, open_reader, open_writer};

    const FRAME: &str =
        "INSERT INTO frames VALUES (NULL, 0, x'', 0, 0, 0, 0, '', NULL, NULL, 0, randomblob(40000), NULL, NULL, NULL)";

    fn rows(connection: &Connection) -> Vec<(i64, Vec<u8>)> {
        let mut statement = connection.prepare("SELECT id, body FROM frames ORDER BY id").expect("prepares");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("read");
        rows.collect::<Result<_, _>>().expect("whole")
    }

    /// Frames are removed as retention does it, in any order; what is left is what it was, for readers of all kinds, and the room is used again.
    #[test]
    fn what_is_free_takes_nothing_of_the_disk_and_nothing_else_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal.db");
        let connection = open_writer(&path).expect("opens");
        let file = File::options().read(true).write(true).open(&path).expect("there");
        for _ in 0..400 {
            connection.execute(FRAME, []).expect("stored");
        }
        let give_back =
            || give_back(&connection, &file, &path).expect("SQLite does it").map(|punched| punched.expect("holes"));
        assert!(give_back().is_some(), "nothing is free");
        let (all, before) = (rows(&connection), taken(&path));
        // Whoever still sees the state of before finds it.
        let reader = open_reader(&path).expect("opens");
        reader.execute_batch("BEGIN").expect("begins");
        assert_eq!(rows(&reader), all);
        connection.execute("DELETE FROM frames WHERE id <= 300 OR id % 3 = 0", []).expect("removed");
        assert!(give_back().is_none(), "not yet");
        assert_eq!((rows(&reader), taken(&path)), (all.clone(), before));
        drop(reader);
        assert!(give_back().is_some());
        let after = taken(&path);
        assert!(after < before / 3, "{before} bytes before, {after} after");
        let left: Vec<_> = all.into_iter().filter(|(id, _)| *id > 300 && id % 3 != 0).collect();
        assert_eq!(rows(&connection), left);
        assert_eq!(rows(&open_reader(&path).expect("opens")), left);
        assert!(give_back().is_some(), "once more");
        assert_eq!(taken(&path), after);
        let size = || std::fs::metadata(&path).expect("there").len();
        let long = size();
        for _ in 0..200 {
            connection.execute(FRAME, []).expect("stored");
        }
        let all = rows(&connection);
        drop(connection);
        assert_eq!(size(), long, "what was free is used");
        let connection = open_writer(&path).expect("opens");
        configure(&connection).expect("set");
        assert_eq!(rows(&connection), all);
        let said: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checked");
        assert_eq!(said, "ok");
    }
}
