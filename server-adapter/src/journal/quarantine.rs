//! Quarantine: what was meant to be an event and was refused, as it came, with its reason.
//!
//! The same bytes are kept once, however often they come; all of it together is bounded. Over the bound nothing old makes
//! room, and what comes is only counted. What nobody answers for has a smaller bound of its own within that, so that those
//! who know no key cannot take the room of those who do.

use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::store::open_body;

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

/// Bytes in quarantine: figures that move in the same transactions as the rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quarantine {
    /// Of all entries.
    bytes: u64,
    /// Of those that nobody answers for.
    unvouched: u64,
    most: u64,
}

const BYTES: &str = "quarantine_bytes";
const UNVOUCHED_BYTES: &str = "quarantine_unvouched_bytes";

impl Quarantine {
    pub(super) fn load(connection: &Connection, most: u64) -> rusqlite::Result<Self> {
        let figure = |key| -> rusqlite::Result<u64> {
            let bytes: i64 = connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))?;
            Ok(bytes as u64)
        };
        Ok(Self { bytes: figure(BYTES)?, unvouched: figure(UNVOUCHED_BYTES)?, most })
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sets something aside. If the transaction fails, so has this: restore the value from before it.
    pub(super) fn put(&mut self, connection: &Connection, entry: &Entry<'_>) -> rusqlite::Result<Kept> {
        let hash = &hash(entry.body)[..];
        let again = connection
            .prepare_cached("UPDATE quarantine SET times = times + 1, last_ms = MAX(last_ms, ?2) WHERE hash = ?1")?
            .execute(params![hash, entry.received_ms])?;
        if again > 0 {
            return Ok(Kept::Again);
        }
        let cost = cost(entry.body, entry.annotation);
        let unvouched = if entry.vouched { 0 } else { cost };
        if self.bytes + cost > self.most || (!entry.vouched && self.unvouched + cost > self.most / UNVOUCHED) {
            return Ok(Kept::Full);
        }
        connection
            .prepare_cached(
                "INSERT INTO quarantine (hash, first_ms, last_ms, times, reason, region, events, vouched, annotation, body)
                 VALUES (?1, ?2, ?2, 1, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                hash,
                entry.received_ms,
                entry.reason,
                entry.region,
                entry.events,
                entry.vouched,
                entry.annotation,
                entry.body
            ])?;
        self.bytes += cost;
        self.unvouched += unvouched;
        let mut figure = connection.prepare_cached("UPDATE meta SET value = ?2 WHERE key = ?1")?;
        figure.execute(params![BYTES, self.bytes as i64])?;
        figure.execute(params![UNVOUCHED_BYTES, self.unvouched as i64])?;
        Ok(Kept::New)
    }
}

/// By what the same bytes are known again: those of the producer. A retry comes through an edge in another envelope.
fn hash(body: &[u8]) -> [u8; 16] {
    let bytes = open_body(body).map_or(body, |(_, frame)| frame);
    let mut hash = [0; 16];
    hash.copy_from_slice(&Sha256::digest(bytes)[..16]);
    hash
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
    Ok((count, faults))
}
