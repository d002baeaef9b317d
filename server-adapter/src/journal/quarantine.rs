//! Quarantine: what was meant to be an event and was refused, as it came, with its reason.
//!
//! The same bytes are kept once, however often they come; all of it together is bounded. Over the bound nothing old makes
//! room, and what comes is only counted.

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

/// Bytes in quarantine: one figure that moves in the same transactions as the rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quarantine {
    bytes: u64,
    most: u64,
}

impl Quarantine {
    pub(super) fn load(connection: &Connection, most: u64) -> rusqlite::Result<Self> {
        let bytes: i64 =
            connection.query_row("SELECT value FROM meta WHERE key = 'quarantine_bytes'", [], |row| row.get(0))?;
        Ok(Self { bytes: bytes as u64, most })
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
        let size = entry.body.len() as u64;
        if self.bytes + size > self.most {
            return Ok(Kept::Full);
        }
        connection
            .prepare_cached(
                "INSERT INTO quarantine (hash, first_ms, last_ms, times, reason, region, events, annotation, body)
                 VALUES (?1, ?2, ?2, 1, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                hash,
                entry.received_ms,
                entry.reason,
                entry.region,
                entry.events,
                entry.annotation,
                entry.body
            ])?;
        self.bytes += size;
        connection
            .prepare_cached("UPDATE meta SET value = ?1 WHERE key = 'quarantine_bytes'")?
            .execute([self.bytes as i64])?;
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
    let (mut count, mut bytes, mut faults) = (0, 0, Vec::new());
    let mut statement = connection.prepare("SELECT id, hash, body FROM quarantine")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, hash, body): (i64, _, _) = (row.get(0)?, row.get_ref(1)?, row.get_ref(2)?);
        let (hash, body) = (hash.as_bytes().unwrap_or_default(), body.as_bytes().unwrap_or_default());
        if self::hash(body)[..] != *hash {
            faults.push(format!("quarantine {id}: its bytes are not those that were set aside"));
        }
        count += 1;
        bytes += body.len() as i64;
    }
    let figure: Option<i64> = connection
        .query_row("SELECT value FROM meta WHERE key = 'quarantine_bytes'", [], |row| row.get(0))
        .optional()?;
    if figure != Some(bytes) {
        faults.push(format!("quarantine: holds {bytes} bytes, and its figure says {figure:?}"));
    }
    Ok((count, faults))
}
