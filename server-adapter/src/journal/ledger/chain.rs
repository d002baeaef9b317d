//! Closed hours: their counts as text, each chained to the one before and signed.
//!
//! ```text
//! firsthop ledger 1
//! tenant 8d0b9c3f6a1e2475
//! entry 2
//! hour 2026-11-21T18:00:00.000Z
//! closed 2026-11-21T19:10:00.042Z
//! key 3b6a27bc…
//! previous 9f86d081…                          SHA-256 of the entry before; zeros in the first
//! EU 0 duplicate - 12 0 3                      region, hop, outcome, reason, events, taken, frames
//! EU 0 stored - 1200 0 8
//! ```
//!
//! The signature is Ed25519 over these bytes as they are: `openssl` and `sha256sum` can check them.

use std::{fmt::Write, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use firsthop_core::{Epoch, PublicKey, SecretKey, TenantId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use crate::{Error, clock, journal::open_reader};

/// How long after its end an hour is closed: what a first hop took in it is on disk by then, but for what was delayed.
pub(crate) const SETTLE_MS: i64 = 10 * 60 * 1000;

/// Hours that are closed in one transaction.
const AT_A_TIME: u32 = 256;

const TITLE: &str = "firsthop ledger 1";

/// The end of the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    entry: i64,
    /// The first hour that is open.
    open: u32,
    hash: [u8; 32],
}

impl Chain {
    pub(crate) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let last = connection
            .query_row("SELECT entry, hour, hash FROM ledger ORDER BY entry DESC LIMIT 1", [], |row| {
                Ok(Self { entry: row.get(0)?, open: row.get::<_, u32>(1)?.saturating_add(1), hash: row.get(2)? })
            })
            .optional()?;
        Ok(last.unwrap_or_default())
    }

    /// Its last entry, and that one's SHA-256.
    pub(crate) fn head(&self) -> (i64, String) {
        (self.entry, hex(&self.hash))
    }

    /// The first hour that is not closed. What is counted goes there, or into a later one.
    pub(crate) const fn open(&self) -> u32 {
        self.open
    }

    /// When the last closed hour ended.
    pub(crate) const fn closed_until(&self) -> Timestamp {
        Epoch::new(self.open).start()
    }

    /// Closes the hours that have counts and are over for long enough. Says whether that was all.
    pub(crate) fn close(
        &mut self,
        connection: &Connection,
        tenant: TenantId,
        key: &SecretKey,
        now: Timestamp,
    ) -> rusqlite::Result<bool> {
        let until = due(now);
        let mut due = connection.prepare_cached(
            "SELECT DISTINCT hour FROM counters WHERE hour >= ?1 AND hour < ?2 ORDER BY hour LIMIT ?3",
        )?;
        let hours: Vec<u32> =
            due.query_map(params![self.open, until, AT_A_TIME], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for hour in &hours {
            let head = Head {
                tenant: tenant.to_string(),
                entry: self.entry + 1,
                hour: clock::format(Epoch::new(*hour).start()),
                closed: clock::format(now),
                key: hex(key.public().as_bytes()),
                previous: hex(&self.hash),
            };
            let body = head.text() + &counts(connection, *hour)?;
            let hash: [u8; 32] = Sha256::digest(body.as_bytes()).into();
            let signature = key.sign_message(body.as_bytes());
            connection.prepare_cached("INSERT INTO ledger VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
                head.entry,
                hour,
                body,
                &hash[..],
                &signature[..]
            ])?;
            *self = Self { entry: head.entry, open: hour.saturating_add(1), hash };
        }
        Ok(hours.len() < AT_A_TIME as usize)
    }
}

/// The first hour that is not over for long enough.
pub(crate) const fn due(now: Timestamp) -> u32 {
    Epoch::at(now.offset(-SETTLE_MS)).get()
}

/// What stands before an entry's counts.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    tenant: String,
    entry: i64,
    hour: String,
    closed: String,
    key: String,
    previous: String,
}

impl Head {
    fn text(&self) -> String {
        let Self { tenant, entry, hour, closed, key, previous } = self;
        format!(
            "{TITLE}\ntenant {tenant}\nentry {entry}\nhour {hour}\nclosed {closed}\nkey {key}\nprevious {previous}\n"
        )
    }

    /// From an entry's text, with the rest of it.
    fn parse(body: &str) -> Option<(Self, &str)> {
        let mut rest = body.strip_prefix(TITLE)?.strip_prefix('\n')?;
        let mut field = |name: &str| {
            let (line, more) = rest.split_once('\n')?;
            rest = more;
            Some(line.strip_prefix(name)?.strip_prefix(' ')?.to_owned())
        };
        let head = Self {
            tenant: field("tenant")?,
            entry: field("entry")?.parse().ok()?,
            hour: field("hour")?,
            closed: field("closed")?,
            key: field("key")?,
            previous: field("previous")?,
        };
        Some((head, rest))
    }
}

/// An hour's counts, in the one order that they have.
fn counts(connection: &Connection, hour: u32) -> rusqlite::Result<String> {
    let mut statement = connection.prepare_cached(
        "SELECT region, hop, outcome, reason, events, taken, frames FROM counters WHERE hour = ?1
         ORDER BY region, hop, outcome, reason",
    )?;
    let mut rows = statement.query([hour])?;
    let mut text = String::new();
    while let Some(row) = rows.next()? {
        let (region, hop): (String, u32) = (row.get(0)?, row.get(1)?);
        let (outcome, reason): (String, String) = (row.get(2)?, row.get(3)?);
        let (events, taken, frames): (i64, i64, i64) = (row.get(4)?, row.get(5)?, row.get(6)?);
        let reason = if reason.is_empty() { "-" } else { &reason };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{region} {hop} {outcome} {reason} {events} {taken} {frames}");
    }
    Ok(text)
}

/// Bytes as text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a check of the chain found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// Entries: hours that were closed.
    pub entries: u64,
    /// The tenant that the entries name.
    pub tenant: String,
    /// The last hour that was closed.
    pub last_hour: String,
    /// SHA-256 of the last entry. Who keeps it notices if the chain's end is cut off.
    pub head: String,
    /// Whether the entry that was asked for is among them.
    pub has_known: bool,
    /// What is wrong.
    pub faults: Vec<String>,
}

/// A public key as people hand it on: 64 hex digits, or base64.
///
/// # Errors
/// [`Error::Tenant`] if it is neither.
pub fn parse_key(text: &str) -> Result<PublicKey, Error> {
    let from_hex = || -> Option<Vec<u8>> {
        let pairs = text.is_ascii().then(|| text.as_bytes().chunks(2))?;
        pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
    };
    let bytes = if text.len() == 64 { from_hex() } else { BASE64_STANDARD.decode(text).ok() };
    let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes
        .and_then(|bytes| PublicKey::from_bytes(&bytes).ok())
        .ok_or_else(|| Error::tenant("a public key is 64 hex digits, as `firsthop key ledger` prints them, or base64"))
}

/// Checks the ledger in a journal, with nothing but the public key: the chain, the signatures, and that the counts are those that were
/// signed. `known`: SHA-256 in hex of an entry that must be there.
///
/// # Errors
/// [`Error::Database`] if the journal cannot be read. What is wrong inside is in the answer.
pub fn check_ledger(journal: &Path, public: &PublicKey, known: Option<&str>) -> Result<Checked, Error> {
    let connection = open_reader(journal)?;
    let read = || -> rusqlite::Result<Checked> {
        connection.execute_batch("BEGIN")?;
        check(&connection, public, known)
    };
    read().map_err(Error::database(journal))
}

/// Checks the chain, its signatures, and the counts against it. `known`: SHA-256 in hex of an entry that must be there.
pub(crate) fn check(connection: &Connection, public: &PublicKey, known: Option<&str>) -> rusqlite::Result<Checked> {
    let mut checked = Checked::default();
    let mut statement = connection.prepare("SELECT entry, hour, body, hash, signature FROM ledger ORDER BY entry")?;
    let mut rows = statement.query([])?;
    let (mut previous, mut before) = ("0".repeat(64), None::<u32>);
    while let Some(row) = rows.next()? {
        let (entry, hour): (i64, u32) = (row.get(0)?, row.get(1)?);
        let (body, hash, signature): (String, Vec<u8>, Vec<u8>) = (row.get(2)?, row.get(3)?, row.get(4)?);
        checked.entries += 1;
        let digest = Sha256::digest(body.as_bytes());
        let mut fault = |what: &str| checked.faults.push(format!("entry {entry}: {what}"));
        let signature: Option<&[u8; 64]> = signature.as_slice().try_into().ok();
        if digest[..] != hash[..] {
            fault("its text is not the one that its hash is of");
        }
        if signature.is_none_or(|signature| public.verify_message(body.as_bytes(), signature).is_err()) {
            fault("the key has not signed this text");
        }
        match Head::parse(&body) {
            None => fault("its text is no ledger entry"),
            Some((head, figures)) => {
                if head.entry != entry || entry != checked.entries as i64 {
                    fault(&format!("it is entry {} in place {}", head.entry, checked.entries));
                }
                if head.previous != previous {
                    fault("it does not follow the one before it: something between was removed, added or moved");
                }
                if head.hour != clock::format(Epoch::new(hour).start()) || before.is_some_and(|before| hour <= before) {
                    fault("its hour is not its own");
                }
                if counts(connection, hour)? != figures {
                    fault(&format!("the counters of {} are not those that were signed", head.hour));
                }
                if checked.entries > 1 && head.tenant != checked.tenant {
                    fault("it is another tenant's");
                }
                (checked.tenant, checked.last_hour) = (head.tenant, head.hour);
            }
        }
        previous = hex(&digest);
        checked.has_known |= known.is_some_and(|known| known.eq_ignore_ascii_case(&previous));
        before = Some(hour);
    }
    checked.head = previous;
    let mut unsigned = connection.prepare(
        "SELECT DISTINCT hour FROM counters WHERE hour <= ?1 AND hour NOT IN (SELECT hour FROM ledger) ORDER BY hour LIMIT 100",
    )?;
    // Before the first entry no hour is over: not even the first there is, in which an edge without a clock may be.
    for hour in unsigned.query_map([before.map_or(-1, i64::from)], |row| row.get(0))? {
        let hour = clock::format(Epoch::new(hour?).start());
        checked.faults.push(format!("{hour} is over and has counts, and no entry"));
    }
    // A server that has counted in two later hours, by its own clock, has closed these. An edge's clock proves nothing, nor does one that is
    // ahead of today's. Where no hour was ever closed, that is what is told.
    let mut left = connection.prepare(
        "SELECT DISTINCT hour FROM counters WHERE hour > ?1 AND hour + 2 <=
             (SELECT DISTINCT hour FROM counters WHERE hop = 0 AND hour <= ?2 ORDER BY hour DESC LIMIT 1 OFFSET 1)
         ORDER BY hour LIMIT 100",
    )?;
    let today = Epoch::at(clock::now()).get();
    for hour in left.query_map([before.unwrap_or(u32::MAX), today], |row| row.get(0))? {
        let hour = clock::format(Epoch::new(hour?).start());
        checked.faults.push(format!(
            "{hour} is over and has counts, and was never closed: the chain's end was cut off, or its server could not close it"
        ));
    }
    if let Some(known) = known.filter(|_| !checked.has_known) {
        checked.faults.push(format!("the entry {known} is not there: the chain was cut off before it, or is another"));
    }
    Ok(checked)
}
