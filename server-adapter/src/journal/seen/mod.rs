//! Which events of which sources are in the journal: exact, for ever, a few bytes for each run of events.
//!
//! ```text
//!  Ends      where the numbers of a source end       memory, bounded, forgets    a frame from there on is new for certain
//!  young     runs of the last frames                 memory, bounded             made again from the frames at a start
//!  settling  runs of those before, being written     memory and table
//!  table     all runs before                         disk
//! ```
//!
//! A run that went straight into the table would dirty a page of its own in nearly every case, since thousands of
//! sources write in turn: a commit of 40 small frames would write 40 pages. So runs gather in memory and go into the
//! table in the table's order, some with every commit, many to a page. Nothing depends on that memory: the frames of
//! the same transaction say it all, and `meta.settled` says from which frame on they have to be asked.
//!
//! One kind of frame does not say it to everybody: what ids of other vendors' stand in a sealed one, only its region key tells, and that may be
//! taken away. So its runs go into the table with it.

mod ends;
mod loading;

use std::{collections::BTreeMap, ops::Bound};

use firsthop_core::SourceId;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};

use self::ends::Ends;
pub(super) use self::loading::Loading;
use super::store::Accepted;

/// A run of events of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) last: u64,
    /// The frame that brought it.
    pub(super) frame: i64,
    /// What the event says, if its source is made of another vendor's id:
    /// [`content_digest`](firsthop_intake::content_digest).
    pub(super) digest: Option<[u8; 16]>,
}

/// Runs in the table's order: by source, then by number.
type Runs = BTreeMap<(SourceId, u64), Run>;

/// Runs that gather before they settle: about 12 MB, and as much again while those before them settle. Visitors who come back write to
/// pages all over the table: the more of them gather, the more go into each page.
const GATHER: usize = 128 * 1024;
/// Bytes of frames that a start may have to read again.
const REREAD: u64 = 256 << 20;

/// All that is known of what was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    ends: Ends,
    young: Runs,
    /// Bytes of the frames of `young`.
    young_bytes: u64,
    /// The last frame of `young`.
    young_frame: i64,
    settling: Option<Settling>,
    /// What the open transaction has changed.
    open: Open,
}

/// Runs on their way into the table.
#[derive(Debug)]
struct Settling {
    runs: Runs,
    /// The last frame that they come from.
    frame: i64,
    /// The first that is not written yet.
    next: Option<(SourceId, u64)>,
}

/// What a transaction that fails leaves to be undone.
#[derive(Debug, Default)]
struct Open {
    added: Vec<(SourceId, u64)>,
    /// The last of the young ones' frames, and their bytes, as they were before.
    young: Option<(i64, u64)>,
    /// Where the settling ones are, if the transaction has written some: none at their end.
    moved: Option<Option<(SourceId, u64)>>,
}

impl Seen {
    /// Reads the frames whose runs may not be in the table.
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut loading = Loading::begin(connection)?;
        while !loading.go_on(connection, u64::MAX)? {}
        Ok(loading.seen)
    }

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
                let end = self.end(connection, source)?;
                self.ends.set(source, end);
                end
            }
        };
        if first >= end {
            return Ok(Vec::new());
        }
        let mut found = in_table(connection, source, first, last)?;
        for runs in [Some(&self.young), self.settling.as_ref().map(|settling| &settling.runs)].into_iter().flatten() {
            let before = runs.range((source, 0)..=(source, last)).rev();
            found.extend(before.map(|(_, run)| *run).take_while(|run| run.last >= first));
        }
        // One that is settling may be in the table already.
        found.sort_unstable_by_key(|run| run.first);
        found.dedup_by_key(|run| run.first);
        Ok(found)
    }

    /// How many of these numbers were not seen.
    #[cfg(feature = "cli")]
    pub(super) fn missing(
        &mut self,
        connection: &Connection,
        source: SourceId,
        first: u64,
        last: u64,
    ) -> rusqlite::Result<i64> {
        let runs = self.overlapping(connection, source, first, last)?;
        let seen: u64 = runs.iter().map(|run| run.last.min(last) - run.first.max(first) + 1).sum();
        Ok((last - first + 1 - seen) as i64)
    }

    /// One more than the highest number that was seen.
    fn end(&self, connection: &Connection, source: SourceId) -> rusqlite::Result<u64> {
        let in_memory = [Some(&self.young), self.settling.as_ref().map(|settling| &settling.runs)]
            .into_iter()
            .flatten()
            .filter_map(|runs| runs.range((source, 0)..=(source, u64::MAX)).next_back())
            .map(|(_, run)| run.last + 1)
            .max();
        let in_table: Option<i64> = connection
            .prepare_cached("SELECT last FROM seen WHERE source = ?1 ORDER BY first DESC LIMIT 1")?
            .query_row([&source.as_bytes()[..]], |row| row.get(0))
            .optional()?;
        Ok(in_memory.unwrap_or(0).max(in_table.map_or(0, |last| last as u64 + 1)))
    }

    /// Notes a run that shares no event with any other.
    pub(super) fn insert(&mut self, source: SourceId, run: Run) {
        self.ends.raise(source, run.last + 1);
        self.young.insert((source, run.first), run);
        self.open.added.push((source, run.first));
    }

    /// Notes the one event of a source that is made of another vendor's id, or says what is there already.
    ///
    /// Such a source comes once, so its end is not worth remembering; and no run but one that begins at 0 can hold its
    /// one event.
    pub(super) fn insert_foreign(
        &mut self,
        connection: &Connection,
        source: SourceId,
        frame: i64,
        digest: [u8; 16],
    ) -> rusqlite::Result<Option<Run>> {
        let key = (source, 0);
        let in_memory = self.young.get(&key).or_else(|| self.settling.as_ref()?.runs.get(&key)).copied();
        let known = match in_memory {
            Some(run) => Some(run),
            None => connection
                .prepare_cached("SELECT first, last, frame, digest FROM seen WHERE source = ?1 AND first = 0")?
                .query_row([&source.as_bytes()[..]], from_row)
                .optional()?,
        };
        if known.is_none() {
            self.ends.raise_known(source, 1);
            self.young.insert(key, Run { first: 0, last: 0, frame, digest: Some(digest) });
            self.open.added.push(key);
        }
        Ok(known)
    }

    /// Writes the runs that the open transaction has added for its last frame, `frame`, at once.
    pub(super) fn write_through(&self, connection: &Connection, frame: i64) -> rusqlite::Result<()> {
        let mut write = Write::new(connection)?;
        let added = self.open.added.iter().rev().map_while(|key| Some((key, self.young.get(key)?)));
        added.take_while(|(_, run)| run.frame == frame).try_for_each(|((source, _), run)| write.run(*source, run))
    }

    /// At the end of a transaction, after frames of so many bytes, of which the last is `frame`: writes some of the
    /// runs that settle. Twice as many as were added, so that they are done before the young ones are too many.
    pub(super) fn settle(&mut self, connection: &Connection, frame: i64, bytes: u64) -> rusqlite::Result<()> {
        let budget = 2 * self.open.added.len() + 16;
        self.open.young.get_or_insert((self.young_frame, self.young_bytes));
        (self.young_frame, self.young_bytes) = (frame, self.young_bytes + bytes);
        self.settle_some(connection, budget)
    }

    fn settle_some(&mut self, connection: &Connection, budget: usize) -> rusqlite::Result<()> {
        let Some(settling) = &mut self.settling else { return Ok(()) };
        let Some(next) = settling.next else { return Ok(()) };
        let mut write = Write::new(connection)?;
        let mut rest = settling.runs.range(next..);
        for ((source, _), run) in rest.by_ref().take(budget) {
            write.run(*source, run)?;
        }
        let next = rest.next().map(|(key, _)| *key);
        if next.is_none() {
            connection.prepare_cached("UPDATE meta SET value = ?1 WHERE key = 'settled'")?.execute([settling.frame])?;
        }
        self.open.moved = Some(next);
        Ok(())
    }

    /// The transaction is on disk.
    pub(super) fn committed(&mut self) {
        let open = std::mem::take(&mut self.open);
        if let (Some(settling), Some(next)) = (&mut self.settling, open.moved) {
            settling.next = next;
            if next.is_none() {
                self.settling = None;
            }
        }
        if self.young.len() >= GATHER || self.young_bytes >= REREAD {
            self.seal();
        }
        // The vector of the last transaction, so that the next one need not grow its own.
        self.open.added = open.added;
        self.open.added.clear();
    }

    /// The transaction failed: what it added is not so.
    pub(super) fn undo(&mut self) {
        let open = std::mem::take(&mut self.open);
        for key in open.added {
            self.young.remove(&key);
        }
        // Its frames are not there. Were the last of them taken for settled, the next one of that number would be too.
        if let Some(before) = open.young {
            (self.young_frame, self.young_bytes) = before;
        }
        self.ends = Ends::default();
    }

    /// Runs that may not be in the table yet, of the sources after this one: what was [read](Loading) of frames.
    pub(super) fn young_after(&self, after: Option<SourceId>) -> impl Iterator<Item = (SourceId, Run)> {
        let from = after.map_or(Bound::Unbounded, |source| Bound::Excluded((source, u64::MAX)));
        self.young.range((from, Bound::Unbounded)).map(|((source, _), run)| (*source, *run))
    }

    /// Those of one source.
    pub(super) fn young_of(&self, source: SourceId) -> impl Iterator<Item = (SourceId, Run)> {
        self.young.range((source, 0)..=(source, u64::MAX)).map(|((source, _), run)| (*source, *run))
    }

    /// Forgets where sources end, as if there were too many.
    #[cfg(test)]
    pub(super) fn forget_ends(&mut self) {
        self.ends = Ends::default();
    }

    /// The young ones are to settle, if none do.
    pub(super) fn seal(&mut self) {
        if self.settling.is_none() && !self.young.is_empty() {
            let runs = std::mem::take(&mut self.young);
            let next = runs.keys().next().copied();
            self.settling = Some(Settling { runs, frame: self.young_frame, next });
            self.young_bytes = 0;
        }
    }

    /// Writes what has gathered, in the transaction that is open; unless that has added some, which are not to be believed yet.
    pub(super) fn settle_now(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if self.open.added.is_empty() {
            self.seal();
        }
        self.settle_some(connection, usize::MAX)
    }

    /// Writes all that has gathered, so that the next start has no frames to read again.
    pub(super) fn settle_all(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        loop {
            self.seal();
            if self.settling.is_none() {
                return Ok(());
            }
            connection.execute_batch("BEGIN IMMEDIATE")?;
            self.settle_some(connection, usize::MAX)?;
            connection.execute_batch("COMMIT")?;
            self.committed();
        }
    }
}

/// Writes runs into the table. After a crash, or of a sealed frame, some are there already.
struct Write<'c>(CachedStatement<'c>);

impl<'c> Write<'c> {
    fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        connection
            .prepare_cached("INSERT INTO seen VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (source, first) DO NOTHING")
            .map(Self)
    }

    fn run(&mut self, source: SourceId, run: &Run) -> rusqlite::Result<()> {
        let (first, last) = (run.first as i64, run.last as i64);
        self.0.execute(params![&source.as_bytes()[..], first, last, run.frame, run.digest]).map(drop)
    }
}

/// The last frame all of whose runs, and those of all before, are in the table.
pub(super) fn settled(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT value FROM meta WHERE key = 'settled'", [], |row| row.get(0))
}

fn in_table(connection: &Connection, source: SourceId, first: u64, last: u64) -> rusqlite::Result<Vec<Run>> {
    let mut statement = connection.prepare_cached(
        "SELECT first, last, frame, digest FROM seen WHERE source = ?1 AND first <= ?2 ORDER BY first DESC",
    )?;
    let mut rows = statement.query(params![&source.as_bytes()[..], last as i64])?;
    let mut runs = Vec::new();
    while let Some(row) = rows.next()? {
        let run = from_row(row)?;
        if run.last < first {
            break;
        }
        runs.push(run);
    }
    Ok(runs)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Run> {
    Ok(Run {
        first: row.get::<_, i64>(0)? as u64,
        last: row.get::<_, i64>(1)? as u64,
        frame: row.get(2)?,
        digest: row.get(3)?,
    })
}

/// The runs of a frame's own source: neighbours that were accepted and have no id of another vendor's.
pub(super) fn own_runs(
    first: u64,
    count: u16,
    accepted: &Accepted,
    is_foreign: impl Fn(u16) -> bool,
) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for index in (0..count).filter(|index| accepted.has((*index).into()) && !is_foreign(*index)) {
        let seq = first + u64::from(index);
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == seq => *last = seq,
            _ => runs.push((seq, seq)),
        }
    }
    runs
}
