//! The journal's tables, and connections to them.

use std::{fs::File, os::unix::fs::OpenOptionsExt, path::Path};

use firsthop_core::crc32;
use rusqlite::{Connection, OpenFlags};

use crate::{Error, migrate::Schema};

/// A journal.
pub(crate) const SCHEMA: Schema =
    Schema { what: "a journal", application: i32::from_be_bytes(*b"FHJn"), first: 2, base: BASE, steps: &MIGRATIONS };

/// Measured: single events and frames of 300 both do well at 16 KiB. Smaller pages chain a frame over many, larger ones write
/// much for little.
pub(super) const PAGE: i32 = 16 * 1024;

/// - `frames.body`: verbatim, the producer's frame or an edge's envelope around it.
/// - `frames.ids`: how many of its events have an id of another vendor's.
/// - `frames.annotation`: what this server noted, an annotation and perhaps notes; NULL if all of that stands in the envelope.
/// - `frames.accepted`: a bit for each event that was new with this frame, the first in the lowest bit of the first byte; NULL: all.
/// - `frames.sum`: CRC-32 of the row's other columns ([`row_sum`]); the body has its own inside.
/// - `seen`: a run of events, `first` to `last`, and the frame that brought it. `digest` of an event with an id of
///   another vendor's, which is a source by itself. Of frames after `meta.settled` the runs may not be there yet.
/// - `quarantine.hash`: of the producer's bytes in the body; the same again only count.
///
/// Version 2, the first that was released: never changed. What came later stands in [`MIGRATIONS`].
const BASE: &str = "
CREATE TABLE frames (
    id INTEGER PRIMARY KEY,
    received_ms INTEGER NOT NULL,
    source BLOB NOT NULL,
    batch_seq INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    count INTEGER NOT NULL,
    ids INTEGER NOT NULL,
    region TEXT NOT NULL,
    annotation BLOB,
    accepted BLOB,
    sum INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE TABLE seen (
    source BLOB NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    frame INTEGER NOT NULL,
    digest BLOB,
    PRIMARY KEY (source, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE counters (
    hour INTEGER NOT NULL,
    region TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    events INTEGER NOT NULL,
    frames INTEGER NOT NULL,
    PRIMARY KEY (hour, region, outcome, reason)
) STRICT, WITHOUT ROWID;
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    times INTEGER NOT NULL,
    reason TEXT NOT NULL,
    region TEXT NOT NULL,
    events INTEGER NOT NULL,
    vouched INTEGER NOT NULL,
    annotation BLOB,
    body BLOB NOT NULL
) STRICT;
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('journal', random()), ('quarantine_bytes', 0), ('quarantine_unvouched_bytes', 0), ('settled', 0);
";

/// The steps from version 2 on. What has landed is never changed either: somebody's file has taken it.
const MIGRATIONS: [&str; 5] = [
    // What remains of a frame whose body was removed or rewritten.
    // - `erased`: a bit for each event that was erased, as in `frames.accepted`; NULL: none.
    // - `foreign_ids`: a bit for each event that had an id of another vendor's; NULL: none.
    // - `hash`: of the producer's bytes, as in `quarantine`: what has it is the same frame again.
    // - `digests`: 8 bytes for each event, of what it said and when; zeros for those that were erased.
    // - `sum`: CRC-32 of the row's other columns.
    "CREATE TABLE tombstones (
        frame INTEGER PRIMARY KEY,
        erased BLOB,
        foreign_ids BLOB,
        hash BLOB NOT NULL,
        digests BLOB NOT NULL,
        sum INTEGER NOT NULL
    ) STRICT;",
    // The ledger.
    // - `counters.hop`: the first hop's number, 0 for this server (and for all that was counted before this step). `events` is what
    //   remains, `taken` how many corrections took away: together, what was ever counted.
    // - `frames.hop`, `trust` (1: its session's signature was checked), `dropped`: NULL in rows of before, whose bodies say it.
    // - `claims`: numbers of a source that are accounted for though `seen` does not have them: in quarantine, or discarded from there;
    //   or of events that are known by another vendor's id. `trust` as in `frames`: only then they prove those before them.
    // - `meta.unclaimed`: entries in quarantine up to this one are not among the claims yet.
    // - `ledger`: one entry for each hour that was closed with something counted in it; `body` is text, signed as it is.
    "CREATE TABLE counters_by_hop (
        hour INTEGER NOT NULL,
        region TEXT NOT NULL,
        hop INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        reason TEXT NOT NULL,
        events INTEGER NOT NULL,
        taken INTEGER NOT NULL,
        frames INTEGER NOT NULL,
        PRIMARY KEY (hour, region, hop, outcome, reason)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO counters_by_hop SELECT hour, region, 0, outcome, reason, events, 0, frames FROM counters;
    DROP TABLE counters;
    ALTER TABLE counters_by_hop RENAME TO counters;
    ALTER TABLE frames ADD COLUMN hop INTEGER;
    ALTER TABLE frames ADD COLUMN trust INTEGER;
    ALTER TABLE frames ADD COLUMN dropped INTEGER;
    CREATE TABLE claims (
        source BLOB NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        trust INTEGER NOT NULL,
        received_ms INTEGER NOT NULL,
        region TEXT NOT NULL,
        hop INTEGER NOT NULL,
        PRIMARY KEY (source, first, last, trust)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO meta SELECT 'unclaimed', COALESCE(MAX(id), 0) FROM quarantine;
    CREATE TABLE ledger (
        entry INTEGER PRIMARY KEY,
        hour INTEGER NOT NULL UNIQUE,
        body TEXT NOT NULL,
        hash BLOB NOT NULL,
        signature BLOB NOT NULL
    ) STRICT;",
    // Quarantine that is emptied again.
    // - `quarantine.path`, `origin`, `write_key`: what a replay has to know of the request besides its body. Without a path nothing is
    //   known, as in rows of before and of what an edge forwarded.
    // - `discards`: what was thrown away by hand: all but its body and what was noted on it. `id` is the entry's.
    // - `meta.quarantine_last`: the highest id that was ever given, so that none is given twice.
    "ALTER TABLE quarantine ADD COLUMN path TEXT;
    ALTER TABLE quarantine ADD COLUMN origin TEXT;
    ALTER TABLE quarantine ADD COLUMN write_key TEXT;
    CREATE TABLE discards (
        id INTEGER PRIMARY KEY,
        hash BLOB NOT NULL,
        first_ms INTEGER NOT NULL,
        last_ms INTEGER NOT NULL,
        times INTEGER NOT NULL,
        reason TEXT NOT NULL,
        region TEXT NOT NULL,
        events INTEGER NOT NULL,
        vouched INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        discarded_ms INTEGER NOT NULL,
        who TEXT NOT NULL,
        why TEXT NOT NULL
    ) STRICT;
    INSERT INTO meta SELECT 'quarantine_last', COALESCE(MAX(id), 0) FROM quarantine;",
    // Rules. The tables stay as they are, and builds of before must not write to them any more: behind an annotation there may be notes, and
    // frames may be written anew, of which nothing is compared but identity, and nothing delivered if they are suppressed.
    "SELECT 1;",
    // `claims.trust` may be 2: nobody answers for it. Builds of before would take such a claim for a session's.
    "SELECT 1;",
];

/// Opens a journal to write, and makes it if it is not there.
pub(super) fn open_writer(path: &Path) -> Result<Connection, Error> {
    let connection = open_private(path).map_err(Error::database(path))?;
    SCHEMA.admit(&connection, path)?;
    let set = || -> rusqlite::Result<()> {
        // Only in a new file.
        connection.pragma_update(None, "page_size", PAGE)?;
        let _: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        configure(&connection)?;
        // What is removed is overwritten, and not only forgotten.
        connection.pragma_update(None, "secure_delete", "ON")?;
        // The writer decides when: a checkpoint in the middle of a commit would delay those who wait for it.
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.pragma_update(None, "cache_size", -8192)
    };
    set().map_err(Error::database(path))?;
    SCHEMA.prepare(&connection, path)?;
    Ok(connection)
}

/// Opens a database that only its owner can read, whoever may enter the folder; the files beside it take after it.
pub(crate) fn open_private(path: &Path) -> rusqlite::Result<Connection> {
    // Only one that is not there: to close a file that SQLite has open elsewhere in this process would take its locks away. Another
    // error is one of SQLite's in a moment, with what it knows to say of it.
    drop(File::options().create_new(true).append(true).mode(0o600).open(path));
    Connection::open(path)
}

/// Brings a journal that nobody serves up to this build's version, and leaves it as one file.
pub(crate) fn bring_up(path: &Path) -> Result<(), Error> {
    let connection = open_writer(path)?;
    super::log::move_all(&connection)
        .and_then(|_| connection.close().map_err(|(_, error)| error))
        .map_err(Error::database(path))
}

/// Whether retention has removed bodies: what they held is in no journal any more.
pub(crate) fn has_removed(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT COUNT(*) > 0 FROM meta WHERE key = 'removed' AND value > 0", [], |row| row.get(0))
}

/// Whether this build can go on with a journal: of its own version, or of an older one. A server may be writing to it.
pub(crate) fn admit(path: &Path) -> Result<(), Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(Error::database(path))?;
    SCHEMA.admit(&connection, path)
}

/// Opens a journal to read. A server may be writing to it.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(Error::database(path))?;
    SCHEMA.check(&connection, path)?;
    configure(&connection).map_err(Error::database(path))?;
    Ok(connection)
}

/// Which journal it is: a number drawn when it was made.
pub(crate) fn read_id(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT value FROM meta WHERE key = 'journal'", [], |row| row.get(0))
}

pub(super) fn configure(connection: &Connection) -> rusqlite::Result<()> {
    // A 2xx is a promise about a disk, so every commit is synced.
    connection.pragma_update(None, "synchronous", "FULL")?;
    set_busy_timeout(connection)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

pub(super) fn set_busy_timeout(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_secs(5))
}

/// The columns of a row in `frames`, but for `sum` and `body`.
pub(crate) struct RowSum<'a> {
    pub id: i64,
    pub received_ms: i64,
    pub source: &'a [u8],
    pub batch_seq: i64,
    pub first_seq: i64,
    pub count: i64,
    pub ids: i64,
    pub region: &'a str,
    pub annotation: Option<&'a [u8]>,
    pub accepted: Option<&'a [u8]>,
    /// None in rows from before there was such a column.
    pub ledger: Option<LedgerColumns>,
}

/// What the ledger asks a row for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LedgerColumns {
    /// The first hop: 0 for this server.
    pub hop: i64,
    /// 1 if its session's signature was checked.
    pub trust: i64,
    /// What its producer says it gave up.
    pub dropped: i64,
}

/// CRC-32 of a row: so that a flipped bit in a column shows, as one in the body does.
pub(crate) fn row_sum(row: &RowSum<'_>) -> i64 {
    let length = |bytes: Option<&[u8]>| bytes.map_or(-1, |bytes| bytes.len() as i64).to_le_bytes();
    let mut ledger = [0; 24];
    if let Some(LedgerColumns { hop, trust, dropped }) = row.ledger {
        for (bytes, number) in ledger.chunks_exact_mut(8).zip([hop, trust, dropped]) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
    }
    crc32(&[
        &row.id.to_le_bytes(),
        &row.received_ms.to_le_bytes(),
        row.source,
        &row.batch_seq.to_le_bytes(),
        &row.first_seq.to_le_bytes(),
        &row.count.to_le_bytes(),
        &row.ids.to_le_bytes(),
        row.region.as_bytes(),
        &length(row.annotation),
        row.annotation.unwrap_or_default(),
        &length(row.accepted),
        row.accepted.unwrap_or_default(),
        if row.ledger.is_some() { &ledger } else { &[] },
    ])
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A journal with things of every kind in it, as the first release left it.
    const FIRST: &str = include_str!("../../tests/fixtures/version-2/journal.sql");

    fn text(connection: &Connection, sql: &str) -> String {
        connection.query_row(sql, [], |row| row.get(0)).expect(sql)
    }

    /// Whichever build wrote it last, and at whatever step an update was interrupted: it has the tables of a new one, and all that was in it.
    #[test]
    fn a_journal_of_each_older_version_is_brought_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let tables = "SELECT group_concat(sql, ';' ORDER BY name) FROM sqlite_master WHERE sql IS NOT NULL";
        let stored = "SELECT group_concat(id || hex(body) || sum, ' ' ORDER BY id) FROM frames";
        let aside = "SELECT group_concat(id || reason || hex(body), ' ' ORDER BY id) FROM quarantine";
        let counted = "SELECT group_concat(outcome || reason || events || ' ' || frames, ';' ORDER BY outcome, reason) FROM counters";
        let new = text(&open_writer(&folder.path().join("new.db")).expect("made"), tables);
        for steps in 0..=MIGRATIONS.len() {
            let path = folder.path().join(format!("{steps}.db"));
            let old = Connection::open(&path).expect("opens");
            old.execute_batch(FIRST).expect("SQL");
            Schema { steps: &MIGRATIONS[..steps], ..SCHEMA }.prepare(&old, &path).expect("an older build");
            let version = old.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
            assert_eq!(version, Ok(2 + steps as i64));
            let before = [stored, aside, counted].map(|sql| text(&old, sql));
            drop(old);
            if steps < MIGRATIONS.len() {
                let said = open_reader(&path).expect_err("it only reads").to_string();
                assert!(
                    said.contains(&format!("schema version {}", 2 + steps)) && said.contains("firsthop serve"),
                    "{said}"
                );
            }
            bring_up(&path).expect("brought up");
            let journal = open_reader(&path).expect("of today");
            assert_eq!(text(&journal, tables), new, "from version {}", 2 + steps);
            assert_eq!([stored, aside, counted].map(|sql| text(&journal, sql)), before, "from version {}", 2 + steps);
        }
    }
}
