//! What became of every event, counted: in the transaction that made it so, and for the metrics.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

use firsthop_core::{Epoch, Region, Timestamp};
use rusqlite::{Connection, params};

/// What is counted apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CounterKey {
    /// The first hop's region.
    pub(crate) region: Region,
    /// [`Outcome::as_str`](firsthop_core::Outcome::as_str); or `damaged`, which is none: set aside, but the sender sends it again.
    pub(crate) outcome: Cow<'static, str>,
    /// Why, for what is in quarantine; or empty.
    pub(crate) reason: Cow<'static, str>,
}

/// How many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Events. Of a body that could not be read: what it says of itself.
    pub(crate) events: u64,
    /// Frames that had such events.
    pub(crate) frames: u64,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.frames += other.frames;
    }
}

/// The counts of one transaction.
#[derive(Debug, Default)]
pub(super) struct Batch {
    counts: HashMap<(u32, CounterKey), Count>,
}

impl Batch {
    /// Counts some events of one frame, in the hour in which the first hop had it. None are not counted.
    pub(super) fn add(
        &mut self,
        received: Timestamp,
        region: Region,
        outcome: &'static str,
        reason: Cow<'static, str>,
        events: u64,
        frames: u64,
    ) {
        if events + frames > 0 {
            let key = CounterKey { region, outcome: Cow::Borrowed(outcome), reason };
            *self.counts.entry((Epoch::at(received).get(), key)).or_default() += Count { events, frames };
        }
    }

    pub(super) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(
            "INSERT INTO counters VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO UPDATE SET events = events + excluded.events, frames = frames + excluded.frames",
        )?;
        for ((hour, key), count) in &self.counts {
            let (events, frames) = (count.events as i64, count.frames as i64);
            statement.execute(params![hour, key.region.as_str(), key.outcome, key.reason, events, frames])?;
        }
        Ok(())
    }
}

/// The counts of all committed transactions since the journal began.
#[derive(Debug, Default)]
pub(crate) struct Totals(Mutex<BTreeMap<CounterKey, Count>>);

impl Totals {
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<BTreeMap<CounterKey, Count>> {
        let mut statement = connection.prepare(
            "SELECT region, outcome, reason, SUM(events), SUM(frames) FROM counters GROUP BY region, outcome, reason",
        )?;
        let rows = statement.query_map([], |row| {
            let region: String = row.get(0)?;
            let key = CounterKey {
                region: region.parse().unwrap_or_default(),
                outcome: Cow::Owned(row.get(1)?),
                reason: Cow::Owned(row.get(2)?),
            };
            Ok((key, Count { events: row.get::<_, i64>(3)? as u64, frames: row.get::<_, i64>(4)? as u64 }))
        })?;
        rows.collect()
    }

    pub(super) fn set(&self, totals: BTreeMap<CounterKey, Count>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = totals;
    }

    pub(super) fn add(&self, batch: Batch) {
        let mut totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ((_, key), count) in batch.counts {
            *totals.entry(key).or_default() += count;
        }
    }

    /// A copy.
    pub(crate) fn get(&self) -> BTreeMap<CounterKey, Count> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
