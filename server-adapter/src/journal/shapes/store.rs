//! What is known of the events' shape, in a file of its own: derived, so it may be lost, and nothing else waits for its lock.

use std::path::Path;

use firsthop_core::EventKind;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::{Named, Overflow, Seen, Shapes, Type};
use crate::{Error, journal, migrate::Schema};

/// What `PRAGMA application_id` says of it: "FHsh".
pub(crate) const SCHEMA: Schema =
    Schema { what: "a file of shapes", application: i32::from_be_bytes(*b"FHsh"), first: 1, base: TABLES, steps: &[] };

/// - `names`: each kind and name, and how many events had it.
/// - `properties`: each property of these, a row for each type that it had. `path`: `a.b` for what is in a map, `a[]` in a list.
/// - `state`: the journal, the frame up to which it was read, and what was over a bound or passed over.
const TABLES: &str = "
CREATE TABLE names (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    events INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE properties (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    path TEXT NOT NULL,
    type TEXT NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    events INTEGER NOT NULL,
    PRIMARY KEY (kind, name, path, type)
) STRICT, WITHOUT ROWID;
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    journal INTEGER NOT NULL,
    frame INTEGER NOT NULL,
    skipped_frames INTEGER NOT NULL,
    over_names INTEGER NOT NULL,
    over_paths INTEGER NOT NULL
) STRICT;
INSERT INTO state VALUES (0, 0, 0, 0, 0, 0);
";

/// Where the observer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Which journal.
    pub(crate) journal: i64,
    /// The last frame that was looked at or passed over.
    pub(crate) frame: i64,
    pub(crate) skipped: u64,
    pub(crate) overflow: Overflow,
}

/// The file, open to be written.
#[derive(Debug)]
pub(super) struct File(Connection);

impl File {
    /// Opens it, and makes it if need be.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let connection = journal::open_private(path).map_err(Error::database(path))?;
        SCHEMA.admit(&connection, path)?;
        let set = || -> rusqlite::Result<()> {
            let _: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
            // A power cut may take the last of it: it comes again from the journal.
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.pragma_update(None, "cache_size", -512)?;
            connection.pragma_update(None, "journal_size_limit", 1 << 20)?;
            connection.busy_timeout(std::time::Duration::from_secs(1))
        };
        set().map_err(Error::database(path))?;
        SCHEMA.prepare(&connection, path)?;
        Ok(Self(connection))
    }

    pub(super) fn load(&self) -> rusqlite::Result<(Shapes, State)> {
        load(&self.0)
    }

    /// Writes what changed, and where the observer is, in one transaction.
    pub(super) fn save(&self, shapes: &mut Shapes, state: State) -> rusqlite::Result<()> {
        let transaction = self.0.unchecked_transaction()?;
        {
            let mut put_name =
                transaction.prepare_cached("INSERT OR REPLACE INTO names VALUES (?1, ?2, ?3, ?4, ?5)")?;
            let mut put_path =
                transaction.prepare_cached("INSERT OR REPLACE INTO properties VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
            for (kind, name, named) in shapes.changed() {
                let seen = named.seen;
                put_name.execute(params![kind.as_str(), name, seen.first_ms, seen.last_ms, seen.events as i64])?;
                for (path, types) in &named.paths {
                    for (of, seen) in Type::ALL.iter().zip(types).filter(|(_, seen)| seen.changed) {
                        let Seen { first_ms, last_ms, events, .. } = *seen;
                        let row = params![kind.as_str(), name, path, of.as_str(), first_ms, last_ms, events as i64];
                        put_path.execute(row)?;
                    }
                }
            }
            let State { journal, frame, skipped, overflow } = state;
            transaction
                .prepare_cached(
                    "UPDATE state SET journal = ?1, frame = ?2, skipped_frames = ?3, over_names = ?4, over_paths = ?5",
                )?
                .execute([journal, frame, skipped as i64, overflow.names as i64, overflow.paths as i64])?;
        }
        transaction.commit()?;
        shapes.saved();
        Ok(())
    }
}

/// What a file says. None: there is none yet.
#[cfg(feature = "cli")]
pub(crate) fn read(path: &Path) -> Result<Option<(Shapes, State)>, Error> {
    if !path.exists() {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(Error::database(path))?;
    connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(Error::database(path))?;
    // One that is just being made has a name before there is anything in it.
    let is_empty = "SELECT NOT EXISTS (SELECT * FROM sqlite_schema)";
    if connection.query_row(is_empty, [], |row| row.get(0)).map_err(Error::database(path))? {
        return Ok(None);
    }
    SCHEMA.check(&connection, path)?;
    load(&connection).map(Some).map_err(Error::database(path))
}

fn load(connection: &Connection) -> rusqlite::Result<(Shapes, State)> {
    // One moment for all of it.
    let transaction = connection.unchecked_transaction()?;
    let mut shapes = Shapes::default();
    let seen =
        |first_ms, last_ms, events: i64| Seen { first_ms, last_ms, events: events as u64, stamp: 0, changed: false };
    let mut statement = transaction.prepare("SELECT kind, name, first_ms, last_ms, events FROM names")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (kind, name): (String, Box<str>) = (row.get(0)?, row.get(1)?);
        let Some(kind) = kind_of(&kind) else { continue };
        let named = Named { seen: seen(row.get(2)?, row.get(3)?, row.get(4)?), ..Named::default() };
        shapes.names[kind as usize].insert(name, named);
    }
    let mut statement =
        transaction.prepare("SELECT kind, name, path, type, first_ms, last_ms, events FROM properties")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (kind, of): (String, String) = (row.get(0)?, row.get(3)?);
        let of = Type::ALL.into_iter().find(|known| known.as_str() == of);
        let (Some(kind), Some(of)) = (kind_of(&kind), of) else { continue };
        let Some(named) = shapes.names[kind as usize].get_mut(row.get_ref(1)?.as_str()?) else { continue };
        let types = named.paths.entry(row.get(2)?).or_default();
        types[of as usize] = seen(row.get(4)?, row.get(5)?, row.get(6)?);
    }
    let state = transaction
        .query_row("SELECT journal, frame, skipped_frames, over_names, over_paths FROM state", [], |row| {
            let number = |at| row.get::<_, i64>(at).map(|number| number as u64);
            let overflow = Overflow { names: number(3)?, paths: number(4)? };
            Ok(State { journal: row.get(0)?, frame: row.get(1)?, skipped: number(2)?, overflow })
        })
        .optional()?
        .unwrap_or_default();
    shapes.overflow = state.overflow;
    Ok((shapes, state))
}

fn kind_of(name: &str) -> Option<EventKind> {
    EventKind::ALL.into_iter().find(|kind| kind.as_str() == name)
}
