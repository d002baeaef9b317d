//! Quarantine: what was meant to be an event and was refused, as it came, with its reason.
//!
//! The same bytes are kept once, however often they come; all of it together is bounded. Over the bound nothing old makes
//! room, and what comes is only counted. What nobody answers for has a smaller bound of its own within that, so that those
//! who know no key cannot take the room of those who do.

#[cfg(feature = "cli")]
mod change;
#[cfg(feature = "cli")]
pub(crate) mod decode;
#[cfg(feature = "cli")]
mod entries;
#[cfg(all(test, feature = "cli"))]
mod model_tests;

use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

#[cfg(all(test, feature = "cli"))]
pub(super) use self::change::{discard, replay};
#[cfg(feature = "cli")]
pub(crate) use self::{
    change::{Discarded, Judged, Note, Replayed, Sentence},
    entries::{Item, Part, Reader, Select},
};
use super::{arrival::Asked, store::open_body};

/// What is set aside.
pub(super) struct Entry<'a> {
    pub(super) received_ms: i64,
    pub(super) reason: &'a str,
    pub(super) region: &'a str,
    pub(super) events: u16,
    pub(super) annotation: Option<&'a [u8]>,
    pub(super) body: &'a [u8],
    /// Whether somebody answers for it: a session's signature holds, or a write key is the tenant's.
    pub(super) vouched: bool,
    /// What else the request said.
    pub(super) request: Option<&'a Asked>,
}

/// What an entry costs besides its body and annotation: its other columns, its place in the index.
const OVERHEAD: u64 = 256;
/// What nobody answers for has this part of the whole.
const UNVOUCHED: u64 = 4;

fn cost(body: &[u8], annotation: Option<&[u8]>) -> u64 {
    OVERHEAD + (body.len() + annotation.map_or(0, <[u8]>::len)) as u64
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It is in quarantine now.
    New,
    /// It was already.
    Again,
    /// There is no room.
    Full,
}

/// Whether there is room: what the last that asked for some found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// For all.
    Enough,
    /// Not for what nobody answers for.
    Vouched,
    /// For nothing.
    None,
}

impl Room {
    /// From a gauge.
    pub(crate) const fn of_gauge(value: u64) -> Self {
        match value {
            0 => Self::Enough,
            1 => Self::Vouched,
            _ => Self::None,
        }
    }
}

/// Bytes in quarantine: figures that move in the same transactions as the rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quarantine {
    /// Of all entries.
    bytes: u64,
    /// Of those that nobody answers for.
    unvouched: u64,
    /// The last id that was given.
    last: i64,
    room: Room,
    most: u64,
}

/// The reason of an event that contradicts a stored one.
pub(crate) const CONFLICT: &str = "conflict";

const BYTES: &str = "quarantine_bytes";
const UNVOUCHED_BYTES: &str = "quarantine_unvouched_bytes";
const LAST: &str = "quarantine_last";

impl Quarantine {
    pub(super) fn load(connection: &Connection, most: u64) -> rusqlite::Result<Self> {
        let figure = |key| -> rusqlite::Result<u64> {
            let bytes: i64 = connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))?;
            Ok(bytes as u64)
        };
        Ok(Self {
            bytes: figure(BYTES)?,
            unvouched: figure(UNVOUCHED_BYTES)?,
            last: figure(LAST)? as i64,
            room: Room::Enough,
            most,
        })
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) const fn room(&self) -> Room {
        self.room
    }

    /// Sets something aside. If the transaction fails, so has this: restore the value from before it.
    pub(super) fn put(&mut self, connection: &Connection, entry: &Entry<'_>) -> rusqlite::Result<Kept> {
        let hash = &hash(entry.body)[..];
        if self.again(connection, hash, entry.received_ms)? {
            return Ok(Kept::Again);
        }
        let cost = cost(entry.body, entry.annotation);
        if self.bytes + cost > self.most {
            self.room = Room::None;
            return Ok(Kept::Full);
        }
        if !entry.vouched && self.unvouched + cost > self.most / UNVOUCHED {
            self.room = Room::Vouched;
            return Ok(Kept::Full);
        }
        if !entry.vouched || self.room == Room::None {
            // A small one may find room where a large one found none; then it is nearly full, and the next says so.
            self.room = Room::Enough;
        }
        self.insert(connection, None, hash, entry)?;
        Ok(Kept::New)
    }

    /// Whether the same bytes are there. Then they have come once more.
    fn again(&self, connection: &Connection, hash: &[u8], received_ms: i64) -> rusqlite::Result<bool> {
        let again = connection
            .prepare_cached("UPDATE quarantine SET times = times + 1, last_ms = MAX(last_ms, ?2) WHERE hash = ?1")?
            .execute(params![hash, received_ms])?;
        Ok(again > 0)
    }

    /// Inserts a row, under an id that was never given or under the one that it had.
    fn insert(
        &mut self,
        connection: &Connection,
        id: Option<i64>,
        hash: &[u8],
        entry: &Entry<'_>,
    ) -> rusqlite::Result<()> {
        let request = entry.request;
        connection
            .prepare_cached("INSERT INTO quarantine VALUES (?1, ?2, ?3, ?3, 1, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)")?
            .execute(params![
                id.unwrap_or(self.last + 1),
                hash,
                entry.received_ms,
                entry.reason,
                entry.region,
                entry.events,
                entry.vouched,
                entry.annotation,
                entry.body,
                request.map(|request| &*request.path),
                request.and_then(|request| request.origin.as_deref()),
                request.and_then(|request| request.write_key.as_deref()),
            ])?;
        self.last += i64::from(id.is_none());
        let cost = cost(entry.body, entry.annotation);
        self.bytes += cost;
        self.unvouched += if entry.vouched { 0 } else { cost };
        self.write(connection)
    }

    fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut figure = connection.prepare_cached("UPDATE meta SET value = ?2 WHERE key = ?1")?;
        for (key, value) in [(BYTES, self.bytes as i64), (UNVOUCHED_BYTES, self.unvouched as i64), (LAST, self.last)] {
            figure.execute(params![key, value])?;
        }
        Ok(())
    }
}

/// By what the same bytes are known again: those of the producer. A retry comes through an edge in another envelope.
pub(super) fn hash(body: &[u8]) -> [u8; 16] {
    let bytes = open_body(body).map_or(body, |(_, frame)| frame);
    let mut hash = [0; 16];
    hash.copy_from_slice(&Sha256::digest(bytes)[..16]);
    hash
}

/// Whether an entry was made blank and never taken out: its erasure was interrupted. Of such a one the hop is not known any more.
pub(super) fn is_blank(body: &[u8], hash: &[u8]) -> bool {
    !body.is_empty() && body.iter().all(|&byte| byte == 0) && self::hash(body)[..] != *hash
}

/// Checks the entries: each body against its hash, their sizes against the figure. Returns how many there are, and
/// what is wrong.
pub(super) fn verify(connection: &Connection) -> rusqlite::Result<(u64, Vec<String>)> {
    let (mut count, mut bytes, mut unvouched, mut faults) = (0, 0, 0, Vec::new());
    let mut statement = connection.prepare("SELECT id, hash, body, annotation, vouched FROM quarantine")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, hash, body): (i64, _, _) = (row.get(0)?, row.get_ref(1)?, row.get_ref(2)?);
        let (hash, body) = (hash.as_bytes().unwrap_or_default(), body.as_bytes().unwrap_or_default());
        if self::hash(body)[..] != *hash {
            faults.push(format!("quarantine {id}: its bytes are not those that were set aside"));
        }
        count += 1;
        let cost = cost(body, row.get_ref(3)?.as_blob_or_null().unwrap_or_default()) as i64;
        bytes += cost;
        if !row.get::<_, bool>(4)? {
            unvouched += cost;
        }
    }
    for (key, bytes) in [(BYTES, bytes), (UNVOUCHED_BYTES, unvouched)] {
        let figure: Option<i64> =
            connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()?;
        if figure != Some(bytes) {
            faults.push(format!("quarantine: holds {bytes} bytes, and {key} says {figure:?}"));
        }
    }
    // What is counted as being there is there: whatever was replayed or discarded was taken from the count.
    let mut statement = connection.prepare(
        "SELECT reason, SUM(counted), SUM(kept) FROM (
             SELECT reason, events AS counted, 0 AS kept FROM counters WHERE outcome IN ('quarantined', 'damaged')
             UNION ALL SELECT reason, 0, events FROM quarantine)
         GROUP BY reason HAVING SUM(counted) <> SUM(kept)",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (reason, counted, kept): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        faults.push(format!("quarantine: {kept} events for {reason}, and {counted} are counted"));
    }
    Ok((count, faults))
}
