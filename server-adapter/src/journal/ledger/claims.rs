//! Claims: numbers of a source that are accounted for, though the table of what was seen does not have them.
//!
//! Somebody who has put a frame into quarantine, or has thrown it away from there after a look, knows what became of its events, whatever
//! is wrong with them: their numbers are no gap. Unless nobody answers for the entry: then they are doubtful, until it is replayed or thrown
//! away. Claims are never taken back: what is replayed is then in `seen` as well, which does no harm.

use firsthop_core::{Envelope, Error, Flags, Frame, Header, SourceId, Timestamp, WorkerId};
use rusqlite::{Connection, params};

use super::super::{counters::At, quarantine::CONFLICT, store::open_body, writer::is_damage};

/// Who answers for a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// A write key, or who threw the entry away after a look: its numbers are accounted for.
    WriteKey,
    /// A session's signature: so the numbers before these were given as well.
    Session,
    /// Nobody. A number that a session has given is not accounted for by what anybody can make up.
    Nobody,
}

impl Trust {
    pub(super) const fn of_column(column: i64) -> Self {
        match column {
            0 => Self::WriteKey,
            1 => Self::Session,
            _ => Self::Nobody,
        }
    }

    const fn column(self) -> i64 {
        match self {
            Self::WriteKey => 0,
            Self::Session => 1,
            Self::Nobody => 2,
        }
    }
}

/// Some neighbouring numbers of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) source: SourceId,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) trust: Trust,
}

impl Claim {
    /// What an entry in quarantine claims. Nothing, if its events are known, or come again whole because the bytes were damaged on the way.
    /// That its signature does not hold says more of a key than of the way: the CRC did, and it may not come again.
    pub(crate) fn of_entry(reason: &str, body: &[u8], vouched: bool) -> Option<Self> {
        let claims = reason != CONFLICT && (!is_damage(reason) || reason == Error::Signature.code());
        claims.then(|| Self::of(body, vouched)).flatten()
    }

    /// Somebody has looked, and decided that this is not to be stored.
    pub(crate) fn settle(self, connection: &Connection, at: At) -> rusqlite::Result<()> {
        match self.trust {
            Trust::Nobody => Self { trust: Trust::WriteKey, ..self }.note(connection, at),
            _ => Ok(()),
        }
    }

    /// What a body claims: as far as its header can be read, and whoever made it. None if it names no numbers.
    pub(crate) fn of(body: &[u8], vouched: bool) -> Option<Self> {
        let bytes = open_body(body).map_or(body, |(_, frame)| frame);
        let header = Header::peek(bytes).ok()?;
        let events = header.count.checked_sub(1)?;
        if header.flags.contains(Flags::ENVELOPE) {
            return None;
        }
        // Of a frame that says it has a session, nobody answers but by its signature.
        let trust = match (vouched, header.flags.contains(Flags::TRUST)) {
            (false, _) => Trust::Nobody,
            (true, false) => Trust::WriteKey,
            (true, true) => Trust::Session,
        };
        Some(Self { source: header.source, first: header.first_seq, last: header.first_seq + u64::from(events), trust })
    }

    pub(crate) fn note(&self, connection: &Connection, at: At) -> rusqlite::Result<()> {
        connection
            .prepare_cached(
                "INSERT INTO claims VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT DO UPDATE SET received_ms = MAX(received_ms, excluded.received_ms)",
            )?
            .execute(params![
                &self.source.as_bytes()[..],
                self.first as i64,
                self.last as i64,
                self.trust.column(),
                at.time.as_millis() as i64,
                at.region.as_str(),
                at.hop.get()
            ])?;
        Ok(())
    }
}

/// Notes what entries claim that were set aside before there were claims. Nothing, once that is done.
pub(crate) fn note_old(connection: &Connection) -> rusqlite::Result<()> {
    let last: i64 = connection.query_row("SELECT value FROM meta WHERE key = 'unclaimed'", [], |row| row.get(0))?;
    if last == 0 {
        return Ok(());
    }
    connection.execute_batch("BEGIN IMMEDIATE")?;
    {
        let mut statement = connection
            .prepare("SELECT reason, body, vouched, last_ms, region FROM quarantine WHERE id <= ?1 ORDER BY id")?;
        let mut rows = statement.query([last])?;
        while let Some(row) = rows.next()? {
            let (reason, body) = (row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_blob()?);
            if let Some(claim) = Claim::of_entry(reason, body, row.get(2)?) {
                let time = Timestamp::from_millis(row.get::<_, i64>(3)? as u64);
                let region = row.get_ref(4)?.as_str()?.parse().unwrap_or_default();
                claim.note(connection, At { time, region, hop: hop_of(body) })?;
            }
        }
    }
    connection.execute_batch("UPDATE meta SET value = 0 WHERE key = 'unclaimed'; COMMIT")
}

/// The first hop of a stored body: the edge that signed the envelope, or this server.
pub(crate) fn hop_of(body: &[u8]) -> WorkerId {
    let edge = Frame::parse(body).ok().filter(|frame| frame.header().flags.contains(Flags::ENVELOPE));
    edge.and_then(|outer| Envelope::worker(&outer).ok()).unwrap_or(WorkerId::new(0))
}
