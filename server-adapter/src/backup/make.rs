//! Making a backup. A server may be writing: it notices nothing but a log that grows meanwhile.

use std::{
    fs::{self, File},
    path::Path,
    sync::mpsc,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};

use super::{
    Partial, Progress, copy, create,
    manifest::{Entry, Manifest, Stored},
    parent, partial, read_all,
};
use crate::{
    Error, clock, journal,
    tenants::{DOCUMENTS, StoredTenant, make_folder, sync_folder},
};

/// What was copied of a tenant.
#[derive(Debug)]
#[non_exhaustive]
pub struct Made {
    /// The tenant's name.
    pub name: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// The last frame in it.
    pub last_frame: i64,
    /// Whether the events table is in it.
    pub events: bool,
}

/// Copies tenants into a folder that is not there yet. `events`: their events tables too; without it only where the
/// journal could not make them again, because retention has removed the bodies.
///
/// # Errors
/// [`Error::Fault`] if the folder is there or stands in the data folder; [`Error::Io`], [`Error::Database`].
pub fn back_up(
    data: &Path,
    tenants: &[StoredTenant],
    to: &Path,
    events: bool,
    progress: Progress<'_>,
) -> Result<Vec<Made>, Error> {
    if to.exists() {
        return Err(Error::Fault(format!("{}: is there already; a backup is never written over", to.display())));
    }
    make_folder(parent(to)).map_err(Error::io(parent(to)))?;
    let (inside, data) = (fs::canonicalize(parent(to)), fs::canonicalize(data).map_err(Error::io(data))?);
    if inside.map_err(Error::io(to))?.starts_with(&data) {
        return Err(Error::Fault(format!("{}: a backup does not belong into the data folder", to.display())));
    }
    let folder = Partial::begin(partial(to)?)?;
    let mut manifest = Manifest::new(clock::format(clock::now()));
    let mut made = Vec::new();
    for stored in tenants {
        let at = folder.path.join("tenants").join(stored.tenant.id.to_string());
        make_folder(&at).map_err(Error::io(&at))?;
        let (entry, with_events) = tenant(stored, &at, events, progress)?;
        made.push(Made {
            name: entry.name.clone(),
            bytes: entry.files.iter().map(|file| file.bytes).sum(),
            last_frame: entry.last_frame,
            events: with_events,
        });
        manifest.tenants.push(entry);
        sync_folder(&at).map_err(Error::io(&at))?;
    }
    sync_folder(&folder.path.join("tenants")).map_err(Error::io(&folder.path))?;
    manifest.write(&folder.path)?;
    folder.finish(to)?;
    Ok(made)
}

fn tenant(stored: &StoredTenant, at: &Path, events: bool, progress: Progress<'_>) -> Result<(Entry, bool), Error> {
    let name = stored.tenant.name.clone();
    let mut entry =
        Entry { id: stored.tenant.id.to_string(), name: name.clone(), last_frame: 0, schema: 0, files: Vec::new() };
    let mut with_events = false;
    if stored.journal().exists() {
        let reader = read_only(&stored.journal())?;
        journal::SCHEMA.admit(&reader, &stored.journal())?;
        with_events = stored.events().exists()
            && (events || journal::has_removed(&reader).map_err(Error::database(&stored.journal()))?);
        if with_events {
            // Before the journal: the table's cursor must not be ahead of it.
            let table = read_only(&stored.events())?;
            entry.files.push(database(table, &at.join("events.db"), &name, progress)?);
        }
        for (path, file) in [(stored.sinks(), "sinks.db"), (stored.shapes(), "schema.db")] {
            if path.exists() {
                // Before the journal, for the same reason.
                entry.files.push(database(read_only(&path)?, &at.join(file), &name, progress)?);
            }
        }
        entry.files.push(database(reader, &at.join("journal.db"), &name, progress)?);
        let copied = read_only(&at.join("journal.db"))?;
        let number = |sql: &str| -> Result<i64, Error> {
            copied.query_row(sql, [], |row| row.get(0)).map_err(Error::database(&at.join("journal.db")))
        };
        entry.last_frame = number("SELECT COALESCE(MAX(id), 0) FROM frames")?;
        entry.schema = number("PRAGMA user_version")? as i32;
    }
    // After the journal: a root is there before a frame that it verifies.
    for file in ["keys.toml", "tenant.toml"] {
        let from = stored.folder.join(file);
        let (bytes, sha256) = copy(&from, &at.join(file), &mut |_| ()).map_err(Error::io(&from))?;
        entry.files.push(Stored { name: file.into(), bytes, sha256 });
    }
    let from = stored.folder.join(DOCUMENTS);
    if from.exists() {
        let (bytes, sha256) = copy(&from, &at.join(DOCUMENTS), &mut |_| ()).map_err(Error::io(&from))?;
        entry.files.push(Stored { name: DOCUMENTS.into(), bytes, sha256 });
    }
    Ok((entry, with_events))
}

fn read_only(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(Error::database(path))?;
    connection.busy_timeout(Duration::from_secs(10)).map_err(Error::database(path))?;
    Ok(connection)
}

/// One snapshot of a database as a file of its own. `VACUUM INTO` reads in one transaction, which delays no commit, and
/// copies rows, not pages: what was deleted is not in it. It does not sync, so that is done here.
fn database(source: Connection, to: &Path, name: &str, progress: Progress<'_>) -> Result<Stored, Error> {
    let file_name = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let sql = || Error::database(to);
    let pages = |pragma| source.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).map_err(sql());
    let total = ((pages("page_count")? - pages("freelist_count")?) * pages("page_size")?) as u64;
    // Empty and its owner's alone, before SQLite makes it everybody's.
    drop(create(to).map_err(Error::io(to))?);
    let what = format!("{name}: {file_name}");
    let text = to.to_str().ok_or_else(|| Error::Fault(format!("{}: not a path that SQLite takes", to.display())))?;
    let copied = watched(to, &mut |done| progress(&what, done.min(total), total), move || {
        source.execute("VACUUM INTO ?1", [text])
    });
    copied.map_err(sql())?;
    File::open(to).and_then(|file| file.sync_all()).map_err(Error::io(to))?;
    let (bytes, sha256) = read_all(to, |_| Ok(())).map_err(Error::io(to))?;
    progress(&what, total, total);
    Ok(Stored { name: file_name, bytes, sha256 })
}

/// Does some work on another thread, and tells meanwhile how far its file has grown.
fn watched<T: Send>(path: &Path, told: &mut dyn FnMut(u64), work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let (done, is_done) = mpsc::channel();
        scope.spawn(move || done.send(work()));
        loop {
            match is_done.recv_timeout(Duration::from_millis(100)) {
                Ok(result) => return result,
                Err(mpsc::RecvTimeoutError::Timeout) => told(fs::metadata(path).map_or(0, |meta| meta.len())),
                Err(mpsc::RecvTimeoutError::Disconnected) => panic!("the copying thread panicked"),
            }
        }
    })
}
