//! What became of every event, counted: in the transaction that made it so, and for the metrics.
//!
//! Double entry: what was counted stays counted. A correction takes from one outcome what it gives to another, in the hour in which it
//! is made. An hour that the ledger has closed takes nothing more: what comes late for it is counted in the first that is open.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use firsthop_core::{Epoch, Region, Timestamp, WorkerId};
use rusqlite::{Connection, params};

/// What is counted apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CounterKey {
    /// The first hop's region.
    pub(crate) region: Region,
    /// The first hop: 0 is this server, another number an edge.
    pub(crate) hop: WorkerId,
    /// [`Outcome::as_str`](firsthop_core::Outcome::as_str); or `damaged`, which is none: set aside, but the sender sends it again.
    pub(crate) outcome: Cow<'static, str>,
    /// Why, for what is in quarantine; or empty.
    pub(crate) reason: Cow<'static, str>,
}

/// Where and when something happened, for the ledger.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    /// When the first hop had it; of a correction, when it is made.
    pub(crate) time: Timestamp,
    /// The first hop's region.
    pub(crate) region: Region,
    /// The first hop.
    pub(crate) hop: WorkerId,
}

/// An outcome and its reason, which is empty for all but quarantine.
pub(crate) type Kind<'a> = (&'static str, Cow<'a, str>);

/// How many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Events, as corrected. Of a body that could not be read: what it says of itself.
    pub(crate) events: i64,
    /// Events that corrections have taken away.
    pub(crate) taken: i64,
    /// Frames that had such events.
    pub(crate) frames: i64,
}

impl Count {
    /// What was ever counted: this never falls.
    pub(crate) const fn ever(&self) -> i64 {
        self.events.saturating_add(self.taken)
    }
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.taken += other.taken;
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
        at: At,
        outcome: &'static str,
        reason: impl Into<Cow<'static, str>>,
        events: i64,
        frames: i64,
    ) {
        if events != 0 || frames != 0 {
            let taken = (-events).max(0);
            *self.entry(at, outcome, reason.into()) += Count { events, taken, frames };
        }
    }

    /// Moves some events from one outcome to another. `at`: now, and the region and hop in which they were counted.
    pub(super) fn correct(&mut self, at: At, from: Kind<'_>, to: Kind<'_>, events: i64) {
        for ((outcome, reason), events) in [(from, -events), (to, events)] {
            self.add(at, outcome, reason.into_owned(), events, 0);
        }
    }

    fn entry(&mut self, at: At, outcome: &'static str, reason: Cow<'static, str>) -> &mut Count {
        let key = CounterKey { region: at.region, hop: at.hop, outcome: Cow::Borrowed(outcome), reason };
        self.counts.entry((Epoch::at(at.time).get(), key)).or_default()
    }

    /// Writes them. `open`: the first hour that is not closed.
    pub(super) fn write(&self, connection: &Connection, open: u32) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(
            "INSERT INTO counters VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT DO UPDATE SET events = events + excluded.events, taken = taken + excluded.taken,
                 frames = frames + excluded.frames",
        )?;
        for ((hour, CounterKey { region, hop, outcome, reason }), count) in &self.counts {
            let (hour, hop, region) = ((*hour).max(open), hop.get(), region.as_str());
            let Count { events, taken, frames } = count;
            statement.execute(params![hour, region, hop, outcome, reason, events, taken, frames])?;
        }
        Ok(())
    }
}

/// Beyond so many reasons, none is counted apart that this build does not know. It knows about fifty.
const MOST_REASONS: usize = 128;

/// The counts of all committed transactions since the journal began.
#[derive(Debug, Default)]
pub(crate) struct Totals(Mutex<BTreeMap<CounterKey, Count>>);

impl Totals {
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<BTreeMap<CounterKey, Count>> {
        let mut statement = connection.prepare(
            "SELECT region, hop, outcome, reason, SUM(events), SUM(taken), SUM(frames) FROM counters
             GROUP BY region, hop, outcome, reason",
        )?;
        let rows = statement.query_map([], |row| {
            let region: String = row.get(0)?;
            let key = CounterKey {
                region: region.parse().unwrap_or_default(),
                hop: WorkerId::new(row.get(1)?),
                outcome: Cow::Owned(row.get(2)?),
                reason: Cow::Owned(row.get(3)?),
            };
            Ok((key, Count { events: row.get(4)?, taken: row.get(5)?, frames: row.get(6)? }))
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

    /// Whether what somebody else calls a reason may be counted as one: there is such a one, or room for it.
    pub(crate) fn take_reason(&self, reason: &str) -> bool {
        let totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reasons: BTreeSet<&str> = totals.keys().map(|key| &*key.reason).collect();
        reasons.len() < MOST_REASONS || reasons.contains(reason)
    }

    /// A copy.
    pub(crate) fn get(&self) -> BTreeMap<CounterKey, Count> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
