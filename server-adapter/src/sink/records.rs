//! `sinks.db`: where the sinks of a tenant are that cannot say it themselves, and what they refused for good.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use firsthop_core::Timestamp;
use rusqlite::{Connection, OptionalExtension, ToSql, params, params_from_iter};

use super::{
    Failure, Rejected,
    batch::Position,
    events::read_row,
    kept::KeptRow,
    row::{Field, Row, first_columns, rules_columns},
};
use crate::{Error, clock, journal, migrate::Schema};

const SCHEMA: Schema = Schema {
    what: "a record of sinks",
    application: i32::from_be_bytes(*b"FHsk"),
    first: 1,
    base: TABLES,
    steps: &[rules_columns!("dead")],
};

/// - `cursors`: all frames up to and with `frame`, and `within` events of what follows it. `mark` is the sink's own: what it must find
///   again to go on from there. `journal` and `sum` say which journal it was.
/// - `troubles`: why a sink takes nothing at the moment.
/// - `dead`: events that a sink refused for good, as it got them, until somebody has them retried or discarded.
const TABLES: &str = concat!(
    "
CREATE TABLE cursors (
    sink TEXT PRIMARY KEY,
    frame INTEGER NOT NULL,
    within INTEGER NOT NULL,
    sum INTEGER NOT NULL,
    journal INTEGER NOT NULL,
    mark TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE troubles (
    sink TEXT PRIMARY KEY,
    since_ms INTEGER NOT NULL,
    times INTEGER NOT NULL,
    what TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE dead (
    id INTEGER PRIMARY KEY,
    sink TEXT NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    times INTEGER NOT NULL,
    reason TEXT NOT NULL,
    event_id TEXT NOT NULL,",
    first_columns!(),
    ",
    UNIQUE (sink, event_id)
) STRICT;
"
);

/// Dead letters that one sink may have. A sink that has refused so many has a fault that a person must look at, and waits for it.
const MOST_DEAD: u64 = 10_000;
/// Of a reason, or of what went wrong: the other side says as much as it likes.
const MOST_TEXT: usize = 1000;

/// How long to wait for others who write to the file, who do so for a few rows each, or hold it by hand. Somebody who has given an order waits for
/// that anyway.
pub(super) const ORDERED: Duration = Duration::from_secs(10);
/// A sink tries again by itself, and may be told to end.
pub(super) const NOTING: Duration = Duration::from_secs(1);
/// What is only said of a sink holds up nothing.
pub(super) const SAYING: Duration = Duration::from_millis(100);

/// The file, open to be written by one sink.
#[derive(Debug)]
pub(super) struct Records {
    connection: Connection,
    path: PathBuf,
    sink: String,
}

/// Where a sink is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Saved {
    pub(super) at: Position,
    pub(super) journal: i64,
    pub(super) mark: String,
}

/// An event that was refused for good.
#[derive(Debug)]
pub(super) struct Dead {
    pub(super) id: i64,
    pub(super) row: KeptRow,
}

impl Records {
    /// Opens it for this sink, and makes it if need be. With others it has so much patience.
    pub(super) fn open(path: &Path, sink: &str, patience: Duration) -> Result<Self, Error> {
        let open = || -> rusqlite::Result<Connection> {
            let connection = journal::open_private(path)?;
            connection.busy_timeout(patience)?;
            let _: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
            // Retention removes what a sink has confirmed: a cursor that went back with the power would ask for it again.
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "cache_size", -512)?;
            // What is retried or discarded is overwritten, and not only forgotten.
            connection.pragma_update(None, "secure_delete", "ON")?;
            Ok(connection)
        };
        let connection = open().map_err(Error::database(path))?;
        SCHEMA.prepare(&connection, path)?;
        Ok(Self { connection, path: path.to_owned(), sink: sink.to_owned() })
    }

    fn error(&self) -> impl FnOnce(rusqlite::Error) -> Failure {
        let error = Error::database(&self.path);
        move |cause| Failure::of_records(error(cause))
    }

    /// Where the sink is. None: it has never been anywhere.
    pub(super) fn saved(&self) -> Result<Option<Saved>, Failure> {
        let sql = "SELECT frame, within, sum, journal, mark FROM cursors WHERE sink = ?1";
        let read = |row: &rusqlite::Row<'_>| {
            let at = Position { frame: row.get(0)?, within: row.get(1)?, sum: row.get(2)? };
            Ok(Saved { at, journal: row.get(3)?, mark: row.get(4)? })
        };
        self.connection.query_row(sql, [&self.sink], read).optional().map_err(self.error())
    }

    /// Moves the cursor, past the events that were refused.
    pub(super) fn save(&self, saved: &Saved, refused: &[(KeptRow, String)]) -> Result<(), Failure> {
        let write = || -> rusqlite::Result<()> {
            let transaction = self.connection.unchecked_transaction()?;
            for (row, reason) in refused {
                self.insert_dead(&row.row(), reason)?;
            }
            transaction
                .prepare_cached(
                    "INSERT INTO cursors VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                     ON CONFLICT (sink) DO UPDATE SET (frame, within, sum, journal, mark) = (?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![
                    self.sink,
                    saved.at.frame,
                    saved.at.within,
                    saved.at.sum,
                    saved.journal,
                    saved.mark
                ])?;
            transaction.commit()
        };
        write().map_err(self.error())
    }

    /// Keeps one event that was refused.
    pub(super) fn bury(&self, row: &Row<'_>, reason: &str) -> Result<(), Failure> {
        self.insert_dead(row, reason).map_err(self.error())
    }

    fn insert_dead(&self, row: &Row<'_>, reason: &str) -> rusqlite::Result<()> {
        let fields = row.fields();
        let names = fields.map(|(name, _)| name).join(", ");
        let now = clock::now().as_millis() as i64;
        let reason = cut(reason);
        let mut values: Vec<&dyn ToSql> = vec![&self.sink, &now, &reason];
        values.extend(fields.iter().map(|(_, field)| match field {
            Field::Text(text) => text as &dyn ToSql,
            Field::Json(text) => text,
            Field::Number(number) => number,
        }));
        let places = (4..fields.len() + 4).map(|place| format!("?{place}")).collect::<Vec<_>>().join(", ");
        self.connection
            .prepare_cached(&format!(
                "INSERT INTO dead (sink, first_ms, last_ms, times, reason, {names}) VALUES (?1, ?2, ?2, 1, ?3, {places})
                 ON CONFLICT (sink, event_id) DO UPDATE SET (last_ms, times, reason) = (?2, times + 1, ?3)"
            ))?
            .execute(params_from_iter(values))?;
        Ok(())
    }

    /// How many dead letters the sink has.
    pub(super) fn dead_count(&self) -> Result<u64, Failure> {
        count_dead(&self.connection, &self.sink).map_err(self.error())
    }

    /// Whether so many more may be kept. The reasons are not said: they are the other side's words, which may quote an event, and this
    /// goes to the log.
    pub(super) fn check_room(&self, rejected: &[Rejected]) -> Result<(), Failure> {
        let dead = self.dead_count()?;
        if rejected.is_empty() || dead + rejected.len() as u64 <= MOST_DEAD {
            return Ok(());
        }
        Err(Failure::new(format!(
            "{dead} events were refused and wait for a person: `firsthop sinks dead` says why, then `firsthop replay --dead` or \
             `firsthop sinks discard`"
        )))
    }

    /// Some dead letters, the oldest first, after this one.
    pub(super) fn dead(&self, after: i64, most: usize) -> Result<Vec<Dead>, Failure> {
        let read = || -> rusqlite::Result<Vec<Dead>> {
            let mut statement =
                self.connection.prepare("SELECT * FROM dead WHERE sink = ?1 AND id > ?2 ORDER BY id LIMIT ?3")?;
            let rows = statement.query_map(params![self.sink, after, most as i64], |row| {
                Ok(Dead { id: row.get("id")?, row: KeptRow::new(&read_row(row)?) })
            })?;
            rows.collect()
        };
        read().map_err(self.error())
    }

    /// Forgets dead letters: they are delivered, or nobody wants them any more.
    pub(super) fn forget(&self, letters: &[Dead]) -> Result<(), Failure> {
        let write = || -> rusqlite::Result<()> {
            let transaction = self.connection.unchecked_transaction()?;
            for letter in letters {
                transaction.prepare_cached("DELETE FROM dead WHERE id = ?1")?.execute([letter.id])?;
            }
            transaction.commit()
        };
        write().map_err(self.error())
    }

    /// Notes why the sink takes nothing.
    pub(super) fn note(&self, what: &str) -> Result<(), Failure> {
        let now = clock::now().as_millis() as i64;
        let sql = "INSERT INTO troubles VALUES (?1, ?2, 1, ?3)
             ON CONFLICT (sink) DO UPDATE SET (times, what) = (times + 1, ?3)";
        self.connection.execute(sql, params![self.sink, now, cut(what)]).map(drop).map_err(self.error())
    }

    /// Notes that it takes again.
    pub(super) fn well(&self) -> Result<(), Failure> {
        let sql = "DELETE FROM troubles WHERE sink = ?1";
        self.connection.execute(sql, [&self.sink]).map(drop).map_err(self.error())
    }
}

fn count_dead(connection: &Connection, sink: &str) -> rusqlite::Result<u64> {
    let count: i64 =
        connection.prepare_cached("SELECT COUNT(*) FROM dead WHERE sink = ?1")?.query_row([sink], |row| row.get(0))?;
    Ok(count as u64)
}

fn cut(text: &str) -> String {
    let end = (0..=MOST_TEXT.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text[..end].to_owned()
}

/// The file, to be looked at. A server may be writing to it.
#[derive(Debug)]
pub(crate) struct RecordsReader(Connection);

/// What is known of a sink.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// The last frame of which all is delivered; none if the sink has not begun, or has its cursor elsewhere.
    pub(crate) frame: Option<i64>,
    /// Since when it takes nothing, and why.
    pub(crate) trouble: Option<(Timestamp, String)>,
    pub(crate) dead: u64,
}

/// A dead letter, for people.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) last: Timestamp,
    pub(crate) times: u64,
    pub(crate) reason: String,
    pub(crate) event_id: String,
    pub(crate) name: String,
    /// The event, in the one shape.
    pub(crate) json: String,
}

impl RecordsReader {
    /// None: no sink has noted anything yet.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, Error> {
        if !path.exists() {
            return Ok(None);
        }
        let (connection, is_made) = SCHEMA.open_reader(path)?;
        Ok(is_made.then_some(Self(connection)))
    }

    pub(crate) fn known(&self, sink: &str) -> rusqlite::Result<Known> {
        let frame =
            self.0.query_row("SELECT frame FROM cursors WHERE sink = ?1", [sink], |row| row.get(0)).optional()?;
        let trouble = self
            .0
            .query_row("SELECT since_ms, what FROM troubles WHERE sink = ?1", [sink], |row| {
                Ok((Timestamp::from_millis(row.get::<_, i64>(0)? as u64), row.get(1)?))
            })
            .optional()?;
        Ok(Known { frame, trouble, dead: count_dead(&self.0, sink)? })
    }

    /// The newest dead letters of one sink, or of all.
    pub(crate) fn letters(&self, sink: &str, most: u32) -> rusqlite::Result<Vec<Letter>> {
        let mut statement = self.0.prepare("SELECT * FROM dead WHERE sink = ?1 ORDER BY id DESC LIMIT ?2")?;
        let letters = statement.query_map(params![sink, most], |row| {
            let event = read_row(row)?;
            let mut json = Vec::new();
            event.write_json(&mut json);
            Ok(Letter {
                last: Timestamp::from_millis(row.get::<_, i64>("last_ms")? as u64),
                times: row.get::<_, i64>("times")? as u64,
                reason: row.get("reason")?,
                event_id: event.event_id.to_owned(),
                name: event.name.to_owned(),
                json: String::from_utf8_lossy(&json).into_owned(),
            })
        })?;
        letters.collect()
    }
}
