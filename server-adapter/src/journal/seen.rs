//! Which events of which sources are in the journal: exact, for ever, a few bytes for each run of events.
//!
//! The table holds runs that never overlap, each with the frame that brought it. In front of it stands a bounded memory of where
//! each source's numbers end: a frame that begins there or beyond is new for certain, and costs no look-up. That is
//! nearly every frame of a producer that counts up. What the memory does not know, the table decides.

use std::collections::HashMap;

use firsthop_core::SourceId;
use rusqlite::{Connection, OptionalExtension, params};

/// A run of events in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) last: u64,
    /// The frame that brought it.
    pub(super) frame: i64,
    /// What the event says, if its source is made of another vendor's id: [`content_digest`](firsthop_intake::content_digest).
    pub(super) digest: Option<[u8; 16]>,
}

/// The table, and the memory in front of it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    ends: Ends,
}

impl Seen {
    /// The runs that share an event with `first..=last`, in their order. None: every event of those is new.
    pub(super) fn overlapping(
        &mut self,
        connection: &Connection,
        source: SourceId,
        first: u64,
        last: u64,
    ) -> rusqlite::Result<Vec<Run>> {
        let end = match self.ends.get(source) {
            Some(end) => end,
            None => {
                let end: Option<i64> = connection
                    .prepare_cached("SELECT last FROM seen WHERE source = ?1 ORDER BY first DESC LIMIT 1")?
                    .query_row([&source.as_bytes()[..]], |row| row.get(0))
                    .optional()?;
                let end = end.map_or(0, |last| last as u64 + 1);
                self.ends.set(source, end);
                end
            }
        };
        if first >= end {
            return Ok(Vec::new());
        }
        let mut statement = connection.prepare_cached(
            "SELECT first, last, frame, digest FROM seen WHERE source = ?1 AND first <= ?2 ORDER BY first DESC",
        )?;
        let mut rows = statement.query(params![&source.as_bytes()[..], last as i64])?;
        let mut runs = Vec::new();
        while let Some(row) = rows.next()? {
            let run = Run {
                first: row.get::<_, i64>(0)? as u64,
                last: row.get::<_, i64>(1)? as u64,
                frame: row.get(2)?,
                digest: row.get(3)?,
            };
            if run.last < first {
                break;
            }
            runs.push(run);
        }
        runs.reverse();
        Ok(runs)
    }

    /// Notes a run that shares no event with any other.
    pub(super) fn insert(&mut self, connection: &Connection, source: SourceId, run: &Run) -> rusqlite::Result<()> {
        connection.prepare_cached("INSERT INTO seen VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
            &source.as_bytes()[..],
            run.first as i64,
            run.last as i64,
            run.frame,
            run.digest
        ])?;
        self.ends.raise(source, run.last + 1);
        Ok(())
    }

    /// Notes the one event of a source that is made of another vendor's id, or says what is there already.
    ///
    /// Such a source comes once, so it has no place in the memory; and no run but one that begins at 0 can hold its one
    /// event, so the table's key decides alone.
    pub(super) fn insert_foreign(
        &mut self,
        connection: &Connection,
        source: SourceId,
        frame: i64,
        digest: &[u8; 16],
    ) -> rusqlite::Result<Option<Run>> {
        let inserted = connection
            .prepare_cached("INSERT INTO seen VALUES (?1, 0, 0, ?2, ?3) ON CONFLICT DO NOTHING")?
            .execute(params![&source.as_bytes()[..], frame, digest])?;
        if inserted == 1 {
            self.ends.raise_known(source, 1);
            return Ok(None);
        }
        connection.prepare_cached("SELECT last, frame, digest FROM seen WHERE source = ?1 AND first = 0")?.query_row(
            [&source.as_bytes()[..]],
            |row| {
                Ok(Some(Run { first: 0, last: row.get::<_, i64>(0)? as u64, frame: row.get(1)?, digest: row.get(2)? }))
            },
        )
    }

    /// After a transaction that did not commit: what it said is not so.
    pub(super) fn forget(&mut self) {
        self.ends = Ends::default();
    }
}

/// Sources that are remembered, in each of two generations. About 100 bytes each.
const GENERATION: usize = 32 * 1024;

/// Where the numbers of the sources end that were used last: two generations, of which the older is dropped whole, so that
/// keeping order costs nothing.
#[derive(Debug, Default)]
struct Ends {
    young: HashMap<SourceId, u64>,
    old: HashMap<SourceId, u64>,
}

impl Ends {
    fn get(&mut self, source: SourceId) -> Option<u64> {
        if let Some(&end) = self.young.get(&source) {
            return Some(end);
        }
        let end = self.old.get(&source).copied()?;
        self.set(source, end);
        Some(end)
    }

    fn set(&mut self, source: SourceId, end: u64) {
        if self.young.len() == GENERATION && !self.young.contains_key(&source) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(source, end);
    }

    fn raise(&mut self, source: SourceId, end: u64) {
        let end = self.get(source).map_or(end, |known| known.max(end));
        self.set(source, end);
    }

    /// Raises the end of a source that is remembered, and remembers no other.
    fn raise_known(&mut self, source: SourceId, end: u64) {
        if let Some(known) = self.get(source) {
            self.set(source, known.max(end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_forgets_the_oldest_and_never_wrongly() {
        let mut ends = Ends::default();
        let source = |i: u64| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&i.to_le_bytes());
            SourceId::new(bytes)
        };
        for i in 0..3 * GENERATION as u64 {
            ends.set(source(i), i);
            // In use all the time, so never forgotten.
            assert_eq!(ends.get(source(0)), Some(0));
        }
        assert!(ends.young.len() <= GENERATION && ends.old.len() <= GENERATION);
        assert_eq!(ends.get(source(3 * GENERATION as u64 - 1)), Some(3 * GENERATION as u64 - 1));
        assert_eq!(ends.get(source(1)), None, "forgotten, and the table is asked");
    }
}
