//! Claims: numbers of a source that are accounted for, though the table of what was seen does not have them.
//!
//! Somebody who has put a frame into quarantine, or has thrown it away from there after a look, knows what became of its events, whatever
//! is wrong with them: their numbers are no gap. Claims are never taken back: what is replayed is then in `seen` as well, which does no
//! harm.

use firsthop_core::{Envelope, Flags, Frame, Header, SourceId, Timestamp, WorkerId};
use rusqlite::{Connection, params};

use super::super::{counters::At, store::open_body, writer::is_damage};

/// Some neighbouring numbers of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) source: SourceId,
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// A session's signature holds: so the numbers before these were given as well.
    pub(crate) trusted: bool,
}

impl Claim {
    /// What a body in quarantine claims: as far as its header can be read, and whoever made it. None if it names no numbers.
    pub(crate) fn of(body: &[u8], vouched: bool) -> Option<Self> {
        let bytes = open_body(body).map_or(body, |(_, frame)| frame);
        let header = Header::peek(bytes).ok()?;
        let events = header.count.checked_sub(1)?;
        if header.flags.contains(Flags::ENVELOPE) {
            return None;
        }
        // Of a frame that says it has a session, nobody answers but by its signature.
        let trusted = vouched && header.flags.contains(Flags::TRUST);
        Some(Self {
            source: header.source,
            first: header.first_seq,
            last: header.first_seq + u64::from(events),
            trusted,
        })
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
                self.trusted,
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
            if reason != "conflict"
                && !is_damage(reason)
                && let Some(claim) = Claim::of(body, row.get(2)?)
            {
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
