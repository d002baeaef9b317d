//! The first sink: an `events` table in an SQLite file of its own, that any tool can open.

use std::path::Path;

use firsthop_core::{Annotation, Frame, Timestamp};
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::row::{Buffers, FrameRow, INSERT, TABLES};
use crate::{
    Error,
    journal::{self, Accepted},
    migrate::Schema,
};

/// An events table. What changes after version 2, the first that was released, is a step.
const SCHEMA: Schema =
    Schema { what: "an events table", application: i32::from_be_bytes(*b"FHev"), first: 2, base: TABLES, steps: &[] };

/// Events of one transaction: enough to make its commit cheap for each.
const BATCH_EVENTS: u64 = 8192;
/// Bodies of one transaction.
const BATCH_BYTES: usize = 4 << 20;
/// What the write-ahead log keeps of the disk that it once took.
const WAL_KEPT: i64 = 16 << 20;

/// The journal on one side, the table on the other.
#[derive(Debug)]
pub(super) struct Events {
    journal: Connection,
    table: Connection,
    buffers: Buffers,
    pub(super) cursor: i64,
    /// Whether the journal turned out to be another than the one that the table came from, or an older state of it.
    pub(super) rewound: bool,
}

/// What one transaction brought.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delivered {
    pub(super) rows: u64,
    pub(super) frames: u64,
    /// Frames that could not be read: damaged on disk. `firsthop verify` names them.
    pub(super) unreadable: u64,
}

impl Events {
    pub(super) fn open(journal: &Path, table: &Path) -> Result<Self, Error> {
        let sql = || Error::database(table);
        let reader = journal::open_reader(journal)?;
        let connection = journal::open_private(table).map_err(sql())?;
        SCHEMA.admit(&connection, table)?;
        let open = || -> rusqlite::Result<()> {
            connection.pragma_update(None, "page_size", 8192)?;
            let _: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
            // A power cut may take the last transactions, rows and cursor together: they come again from the journal.
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.pragma_update(None, "cache_size", -4096)?;
            // One large transaction shall not keep its disk for ever.
            connection.pragma_update(None, "journal_size_limit", WAL_KEPT)?;
            // Somebody may be writing to it by hand. There is no hurry, but the end of the server must not wait for
            // long.
            connection.busy_timeout(std::time::Duration::from_secs(1))
        };
        open().map_err(sql())?;
        SCHEMA.prepare(&connection, table)?;
        let was = read_cursor(&connection).map_err(sql())?;
        let cursor = meet(&reader, &connection).map_err(sql())?;
        if cursor != was {
            tracing::error!(
                table = %table.display(),
                frame = was,
                "the journal is not the one that the events table was at: another, or an older state of it; all of it is delivered again"
            );
        }
        Ok(Self { journal: reader, table: connection, buffers: Buffers::default(), cursor, rewound: cursor != was })
    }

    /// Delivers what comes next, in one transaction. No frames: there is nothing more.
    pub(super) fn deliver(&mut self) -> rusqlite::Result<Delivered> {
        let mut delivered = Delivered::default();
        let (mut cursor, mut sum) = (self.cursor, 0_i64);
        let mut size = 0;
        // Dropped without a commit, it is rolled back.
        let transaction = self.table.unchecked_transaction()?;
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            let mut select = self.journal.prepare_cached(
                "SELECT id, received_ms, region, annotation, accepted, body, sum FROM frames WHERE id > ?1 ORDER BY id",
            )?;
            let mut rows = select.query([self.cursor])?;
            while let Some(row) = rows.next()? {
                (cursor, sum) = (row.get(0)?, row.get(6)?);
                let received = Timestamp::from_millis(row.get::<_, i64>(1)? as u64);
                let region = row.get_ref(2)?.as_str()?;
                let annotation = row.get_ref(3)?.as_blob_or_null()?;
                let accepted = Accepted::from_column(row.get_ref(4)?.as_blob_or_null()?);
                let body = row.get_ref(5)?.as_blob()?;
                delivered.frames += 1;
                match Readable::new(annotation, body) {
                    Some(readable) => {
                        let brought = readable.insert(&mut insert, &mut self.buffers, received, region, &accepted)?;
                        delivered.rows += brought;
                    }
                    None => {
                        tracing::error!(
                            frame = cursor,
                            "a stored frame cannot be read; its events are not in the table"
                        );
                        delivered.unreadable += 1;
                    }
                }
                size += body.len();
                if delivered.rows >= BATCH_EVENTS || size >= BATCH_BYTES {
                    break;
                }
            }
        }
        if delivered.frames > 0 {
            transaction.prepare_cached("UPDATE firsthop_cursor SET frame = ?1, sum = ?2")?.execute([cursor, sum])?;
            transaction.commit()?;
            self.cursor = cursor;
        }
        Ok(delivered)
    }
}

/// A stored frame that can be decoded.
struct Readable<'a> {
    frame: Frame<'a>,
    annotation: Annotation<'a>,
}

impl<'a> Readable<'a> {
    fn new(annotation: Option<&'a [u8]>, body: &'a [u8]) -> Option<Self> {
        let (enveloped, bytes) = journal::open_body(body).ok()?;
        // The server's own note is the later word.
        let annotation = match annotation {
            Some(own) => Annotation::from_bytes(own).ok()?,
            None => enveloped?,
        };
        let frame = Frame::parse(bytes).ok()?;
        frame.check().ok()?;
        Some(Self { frame, annotation })
    }

    fn insert(
        &self,
        statement: &mut rusqlite::CachedStatement<'_>,
        buffers: &mut Buffers,
        received: Timestamp,
        region: &str,
        accepted: &Accepted,
    ) -> rusqlite::Result<u64> {
        // Checked in `new`.
        let Ok((context, events)) = self.frame.open() else { return Ok(0) };
        let shared = FrameRow::new(&self.frame, context, self.annotation, received, region);
        let mut rows = 0;
        for (index, event) in events.enumerate() {
            if let Ok(event) = event
                && accepted.has(index)
            {
                rows += shared.insert(statement, buffers, index, &event)? as u64;
            }
        }
        Ok(rows)
    }
}

/// Where to go on: the cursor, if the journal still has the frame that it was at. A journal that was put back from a copy gives
/// ids again that the table has passed, and the events behind them would never be in it. What is delivered twice is there
/// once, by its id.
fn meet(journal: &Connection, table: &Connection) -> rusqlite::Result<i64> {
    let (cursor, known, sum): (i64, i64, i64) =
        table.query_row("SELECT frame, journal, sum FROM firsthop_cursor", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    let id = journal::read_id(journal)?;
    let sum_there: Option<i64> =
        journal.query_row("SELECT sum FROM frames WHERE id = ?1", [cursor], |row| row.get(0)).optional()?;
    if known == id && (cursor == 0 || sum_there == Some(sum)) {
        return Ok(cursor);
    }
    // From the beginning, since nothing says how far the two agree: what is missing at its end may have been given again already.
    table.execute("UPDATE firsthop_cursor SET frame = 0, journal = ?1, sum = 0", [id])?;
    Ok(0)
}

fn read_cursor(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT frame FROM firsthop_cursor", [], |row| row.get(0))
}

/// Opens an events table to read. A server may be writing to it.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(Error::database(path))?;
    connection.busy_timeout(std::time::Duration::from_secs(10)).map_err(Error::database(path))?;
    Ok(connection)
}

/// The table at one moment, for `verify`.
#[derive(Debug)]
pub(crate) struct State {
    /// The frame up to which it has the journal's events.
    pub(crate) cursor: i64,
    /// Its rows.
    pub(crate) rows: u64,
    /// What is wrong with the file.
    pub(crate) faults: Vec<String>,
}

impl State {
    /// None: there is no table yet.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Error> {
        if !path.exists() {
            return Ok(None);
        }
        let connection = open_reader(path)?;
        let read = || -> rusqlite::Result<Self> {
            connection.execute_batch("BEGIN")?;
            let cursor = read_cursor(&connection)?;
            let rows: i64 = connection.query_row("SELECT COUNT(*) FROM events", [], |row| row.get(0))?;
            let mut check = connection.prepare("PRAGMA quick_check(20)")?;
            let says = check.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
            let faults = says.into_iter().filter(|says| says != "ok").map(|says| format!("events table: {says}"));
            Ok(Self { cursor, rows: rows as u64, faults: faults.collect() })
        };
        // A table that cannot be read is a fault of the table's, to be told beside those of the journal.
        Ok(Some(read().unwrap_or_else(|error| Self {
            cursor: 0,
            rows: 0,
            faults: vec![format!("events table: cannot be read: {error}")],
        })))
    }
}
