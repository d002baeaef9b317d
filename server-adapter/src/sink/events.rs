//! The first sink: an `events` table in an SQLite file of its own, that any tool can open.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
};

use rusqlite::{CachedStatement, Connection, ErrorCode, OpenFlags, config::DbConfig, params};

use super::{
    Delivery, Failure, Opened, Rejected, Saved, Sink,
    batch::{Batch, Limits, Position, meet},
    records::{NOTING, Records, RecordsReader},
    row::{Buffers, COLUMNS, Field, Row, first_columns, rules_columns},
    spec::EVENTS,
};
use crate::{
    Error,
    journal::{
        self,
        log::{self, LogIndex},
    },
    migrate::Schema,
};

/// An events table. What changes after version 2, the first that was released, is a step.
const SCHEMA: Schema = Schema {
    what: "an events table",
    application: i32::from_be_bytes(*b"FHev"),
    first: 2,
    base: TABLES,
    steps: &[rules_columns!("events")],
};

/// Of one transaction: enough to make its commit cheap for each event.
const LIMITS: Limits = Limits { events: 8192, bytes: 4 << 20 };
/// Pages of the log that are moved into the table at once: 4 MiB. What is synced at once keeps the journal's syncs waiting.
const MOVED: i32 = 512;
/// Pages in memory, in KiB: those that one transaction changes, with room, so that none is written before its time and then again.
const CACHED: i64 = 16 << 10;
/// What the write-ahead log keeps of the disk that it once took.
const WAL_KEPT: i64 = 16 << 20;

/// The table that people query: a [`Row`], side by side. And beside it the frame up to which it has the journal's events.
const TABLES: &str = concat!(
    "
CREATE TABLE events (
    rowid INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,",
    first_columns!(),
    "
) STRICT;
CREATE TABLE firsthop_cursor (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    frame INTEGER NOT NULL,
    journal INTEGER NOT NULL,
    sum INTEGER NOT NULL
) STRICT;
INSERT INTO firsthop_cursor VALUES (0, 0, 0, 0);
"
);

const INSERT: &str = "
INSERT INTO events (event_id, received_at, time, kind, name, user_id, anonymous_id, session_id, url, title, referrer,
    properties, context, country, pop, network, agent, traffic, trust, source, seq, vendor, foreign_id, consent, region, subdivision, city,
    referrer_class, utm_source, utm_medium, utm_campaign, utm_term, utm_content, click_id, skew_ms, rules, effects)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26,
    ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35, ?36, ?37)
ON CONFLICT (event_id) DO NOTHING";

/// Whether a sync of the table's files has failed since all of them were proved to be on disk: what it should have written may be in
/// memory alone, and another sync would call that a success. It outlives the connection.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    is: AtomicBool,
    /// Of the log's index there is one file for as long as the server runs.
    index: Mutex<Option<LogIndex>>,
}

impl Doubt {
    /// Writes all of the log anew, into the table, and begins the log again: what is found from then on is on disk.
    fn settle(&self, connection: &Connection, table: &Path, wal: &Path) -> Result<(), Error> {
        if !self.is.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.get_or_insert_with(|| LogIndex::of(table)).move_again().map_err(Error::io(table))?;
        log::truncate(connection).map_err(Error::database(table))?;
        sync(wal).map_err(Error::io(wal))?;
        self.is.store(false, Ordering::Relaxed);
        Ok(())
    }
}

/// The table, open to be written.
#[derive(Debug)]
pub(super) struct Events {
    table: Connection,
    /// Its write-ahead log.
    wal: PathBuf,
    /// Pages in the log after the last commit.
    pages: Arc<AtomicI32>,
    doubt: Arc<Doubt>,
    buffers: Buffers,
    /// Where rows go that the table refuses.
    records: PathBuf,
}

impl Events {
    /// Opens the table, and makes it if need be.
    pub(super) fn open(journal: &Path, table: &Path, records: &Path, doubt: &Arc<Doubt>) -> Result<Opened, Error> {
        let sql = || Error::database(table);
        let reader = journal::open_reader(journal)?;
        let mut connection = journal::open_private(table).map_err(sql())?;
        let (wal, pages) = (log::path_of(table), Arc::default());
        SCHEMA.admit(&connection, table)?;
        let mut open = || -> rusqlite::Result<()> {
            connection.pragma_update(None, "page_size", 8192)?;
            let _: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
            // A power cut may take the last transactions, rows and cursor together: they come again from the journal.
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.pragma_update(None, "cache_size", -CACHED)?;
            // A page that is written anew keeps nothing of what it was: some of that may be erased by then.
            connection.pragma_update(None, "secure_delete", "ON")?;
            // One large transaction shall not keep its disk for ever.
            connection.pragma_update(None, "journal_size_limit", WAL_KEPT)?;
            // It would hold its tongue when a sync fails: see `tend`.
            connection.pragma_update(None, "wal_autocheckpoint", 0)?;
            log::watch(&mut connection, &pages)?;
            // Somebody may be writing to it by hand. There is no hurry, but the end of the server must not wait for
            // long.
            connection.busy_timeout(std::time::Duration::from_secs(1))
        };
        open().map_err(sql())?;
        doubt.settle(&connection, table, &wal)?;
        SCHEMA.prepare(&connection, table)?;
        let met = read_position(&connection).and_then(|(at, known)| meet(&reader, at, known)).map_err(sql())?;
        connection
            .execute(
                "UPDATE firsthop_cursor SET frame = ?1, sum = ?2, journal = ?3 WHERE (frame, journal) IS NOT (?1, ?3)",
                params![met.at.frame, met.at.sum, met.journal],
            )
            .map_err(sql())?;
        let saved = Saved { at: met.at, journal: met.journal, mark: String::new() };
        let sink = Self {
            table: connection,
            wal,
            pages,
            doubt: Arc::clone(doubt),
            buffers: Buffers::default(),
            records: records.to_owned(),
        };
        Ok(Opened { sink: Box::new(sink), saved, records: None, rewound: met.rewound })
    }

    /// All of it, and the cursor, in one transaction.
    fn write(&mut self, batch: &Batch) -> Result<Vec<Rejected>, Trouble> {
        let mut rejected = Vec::new();
        // Dropped without a commit, it is rolled back.
        let transaction = self.table.unchecked_transaction()?;
        let mut insert = Insert::new(&transaction)?;
        batch.each(&mut self.buffers, |index, row| match insert.row(row) {
            Err(error) if is_of_the_row(&error) => {
                rejected.push(Rejected { index, reason: error.to_string() });
                Ok(())
            }
            result => result,
        })?;
        drop(insert);
        if !rejected.is_empty() {
            // They are noted before the cursor is past them.
            let records = Records::open(&self.records, EVENTS, NOTING).map_err(Failure::of_records)?;
            records.check_room(&rejected)?;
            batch.each(&mut self.buffers, |index, row| {
                match rejected.iter().find(|rejected| rejected.index == index) {
                    Some(rejected) => records.bury(row, &rejected.reason),
                    None => Ok(()),
                }
            })?;
        }
        if batch.frames() > 0 {
            let end = batch.end();
            transaction
                .prepare_cached("UPDATE firsthop_cursor SET frame = ?1, sum = ?2")?
                .execute([end.frame, end.sum])?;
        }
        transaction.commit()?;
        Ok(rejected)
    }

    /// Moves the log into the table once it is long enough.
    fn tend(&mut self) -> Result<(), Failure> {
        if self.pages.load(Ordering::Relaxed) < MOVED {
            return Ok(());
        }
        self.move_log()
    }

    fn move_log(&mut self) -> Result<(), Failure> {
        log::move_some(&self.table).map(drop).map_err(|error| {
            self.doubt();
            error.into()
        })
    }

    /// A sync has failed, or may have. The connection is given up without another word of it to the disk, and the next one proves all anew.
    fn doubt(&mut self) {
        self.doubt.is.store(true, Ordering::Relaxed);
        if let Err(error) = self.table.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
            tracing::warn!(%error, "{}", self.wal.display());
        }
    }
}

/// Why a batch was not written.
struct Trouble {
    failure: Failure,
    is_of_the_disk: bool,
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        let is_of_the_disk = error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure);
        Self { failure: error.into(), is_of_the_disk }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self { failure, is_of_the_disk: false }
    }
}

/// Syncs a log. One that is not there has nothing to sync.
fn sync(wal: &Path) -> io::Result<()> {
    match File::open(wal).and_then(|log| log.sync_data()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Sink for Events {
    fn limits(&self) -> Limits {
        LIMITS
    }

    fn deliver(&mut self, batch: &Batch) -> Delivery {
        match self.write(batch) {
            // What is committed is done, whatever becomes of moving it.
            Ok(rejected) => Delivery { done: batch.len(), rejected, failed: self.tend().err() },
            Err(Trouble { failure, is_of_the_disk }) => {
                if is_of_the_disk {
                    self.doubt();
                }
                Delivery { failed: Some(failure), ..Delivery::default() }
            }
        }
    }

    /// A commit is on disk once its part of the log is. Moving that into the table begins by its sync, but not while somebody reads
    /// the table as it is: so it is synced here. Where it was moved already, the table was synced, and there is little to do. SQLite
    /// holds no locks on the log that closing it here would let go.
    fn flush(&mut self) -> Result<(), Failure> {
        self.move_log()?;
        sync(&self.wal).map_err(|error| {
            self.doubt();
            Failure::new(format!("{}: {error}", self.wal.display()))
        })
    }
}

/// Has the table ask again for all that follows this position. Its sink must not be open.
pub(super) fn move_to(table: &Path, at: Position) -> Result<(), Error> {
    let connection =
        Connection::open_with_flags(table, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(Error::database(table))?;
    connection
        .execute("UPDATE firsthop_cursor SET frame = ?1, sum = ?2", [at.frame, at.sum])
        .map(drop)
        .map_err(Error::database(table))
}

/// The insertion of rows, one after the other. Most columns are the same in all events of a frame, and often in many frames; and to give
/// SQLite a text costs more than to compare it: so what a parameter has already it is not given again.
struct Insert<'c> {
    statement: CachedStatement<'c>,
    given: [Option<String>; COLUMNS],
    /// Whether the parameters have the row before, but for what is an event's own.
    holds: bool,
}

impl<'c> Insert<'c> {
    fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self { statement: connection.prepare_cached(INSERT)?, given: [const { None }; COLUMNS], holds: false })
    }

    /// Inserts one event. An event that is there already stays as it is.
    fn row(&mut self, row: &Row<'_>) -> rusqlite::Result<()> {
        if row.repeats && self.holds {
            for (place, field) in row.own() {
                self.give(place, field)?;
            }
        } else {
            self.holds = false;
            for (place, (_, field)) in row.fields().into_iter().enumerate() {
                self.give(place, field)?;
            }
            self.holds = true;
        }
        self.statement.raw_execute().map(drop)
    }

    fn give(&mut self, place: usize, field: Field<'_>) -> rusqlite::Result<()> {
        let text = match field {
            Field::Text(text) => text,
            Field::Json(text) => Some(text),
            Field::Number(number) => return self.statement.raw_bind_parameter(place + 1, number),
        };
        let given = &mut self.given[place];
        if given.as_deref() == text {
            return Ok(());
        }
        // A text that is refused leaves NULL.
        let kept = given.take().unwrap_or_default();
        self.statement.raw_bind_parameter(place + 1, text)?;
        *given = text.map(|text| replaced(kept, text));
        Ok(())
    }
}

/// A text in the memory of another.
fn replaced(mut old: String, text: &str) -> String {
    old.clear();
    old.push_str(text);
    old
}

/// Whether the table refuses this row, and would take the next.
fn is_of_the_row(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch))
}

/// Where the table is, and in which journal.
fn read_position(connection: &Connection) -> rusqlite::Result<(Position, i64)> {
    connection.query_row("SELECT frame, sum, journal FROM firsthop_cursor", [], |row| {
        Ok((Position { frame: row.get(0)?, within: 0, sum: row.get(1)? }, row.get(2)?))
    })
}

/// A row of the table, as it was inserted.
pub(crate) fn read_row<'a>(row: &'a rusqlite::Row<'_>) -> rusqlite::Result<Row<'a>> {
    let text = |name| -> rusqlite::Result<&'a str> { Ok(row.get_ref(name)?.as_str()?) };
    let some = |name| -> rusqlite::Result<Option<&'a str>> { Ok(row.get_ref(name)?.as_str_or_null()?) };
    Ok(Row {
        event_id: text("event_id")?,
        received_at: text("received_at")?,
        time: text("time")?,
        kind: text("kind")?,
        name: text("name")?,
        user_id: some("user_id")?,
        anonymous_id: some("anonymous_id")?,
        session_id: some("session_id")?,
        url: some("url")?,
        title: some("title")?,
        referrer: some("referrer")?,
        properties: text("properties")?,
        context: text("context")?,
        country: some("country")?,
        pop: some("pop")?,
        network: some("network")?,
        agent: text("agent")?,
        traffic: text("traffic")?,
        trust: text("trust")?,
        source: text("source")?,
        seq: row.get("seq")?,
        vendor: some("vendor")?,
        foreign_id: some("foreign_id")?,
        consent: text("consent")?,
        region: text("region")?,
        subdivision: some("subdivision")?,
        city: some("city")?,
        referrer_class: some("referrer_class")?,
        utm: [some("utm_source")?, some("utm_medium")?, some("utm_campaign")?, some("utm_term")?, some("utm_content")?],
        click_id: some("click_id")?,
        skew_ms: row.get("skew_ms")?,
        rules: some("rules")?,
        effects: text("effects")?,
        traceparent: None,
        repeats: false,
    })
}

/// Opens an events table to read. A server may be writing to it, or about to make it.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, Error> {
    SCHEMA.open_reader(path).map(|(connection, _)| connection)
}

/// Brings a table that nobody serves up to this build's version.
pub(super) fn bring_up(path: &Path) -> Result<(), Error> {
    SCHEMA.prepare(&journal::open_private(path).map_err(Error::database(path))?, path)
}

/// The table at one moment, for `verify`.
#[derive(Debug)]
pub(crate) struct State {
    /// The frame up to which it has the journal's events.
    pub(crate) cursor: i64,
    /// Its rows.
    pub(crate) rows: u64,
    /// Events that it refused.
    pub(crate) refused: u64,
    /// What is wrong with the file.
    pub(crate) faults: Vec<String>,
}

impl State {
    /// The frame up to which a table has the journal's events. None: there is no table yet.
    pub(crate) fn cursor(path: &Path) -> Result<Option<i64>, Error> {
        if !path.exists() {
            return Ok(None);
        }
        let cursor = read_position(&open_reader(path)?).map_err(Error::database(path))?.0.frame;
        Ok(Some(cursor))
    }

    /// None: there is no table yet.
    pub(crate) fn read(path: &Path, records: &Path) -> Result<Option<Self>, Error> {
        if !path.exists() {
            return Ok(None);
        }
        let connection = open_reader(path)?;
        let refused = RecordsReader::open(records)?.map(|records| records.known(EVENTS)).transpose();
        let refused = refused.map_err(Error::database(records))?.map_or(0, |known| known.dead);
        let read = || -> rusqlite::Result<Self> {
            connection.execute_batch("BEGIN")?;
            let cursor = read_position(&connection)?.0.frame;
            let rows: i64 = connection.query_row("SELECT COUNT(*) FROM events", [], |row| row.get(0))?;
            let mut check = connection.prepare("PRAGMA quick_check(20)")?;
            let says = check.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
            let faults = says.into_iter().filter(|says| says != "ok").map(|says| format!("events table: {says}"));
            Ok(Self { cursor, rows: rows as u64, refused, faults: faults.collect() })
        };
        // A table that cannot be read is a fault of the table's, to be told beside those of the journal.
        Ok(Some(read().unwrap_or_else(|error| Self {
            cursor: 0,
            rows: 0,
            refused,
            faults: vec![format!("events table: cannot be read: {error}")],
        })))
    }
}
