//! The balance: of all that was issued, what became of it.
//!
//! `issued = stored + suppressed + dropped + quarantined + discarded + erased + in flight + unaccounted`. The counters have the first
//! six, a scan of the sources' gaps the other two. Duplicates and what was damaged on the way are told beside: both came again.

use std::{collections::BTreeMap, time::Duration};

use firsthop_core::{Epoch, Region, SourceId, Timestamp};
use rusqlite::{Connection, params};

use super::{
    missing::Scan,
    walk::{Missing, Place, Proof},
};
use crate::{Error, journal::open_reader, tenants::StoredTenant};

/// What to reconcile.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Scope {
    /// From the hour that holds this moment on.
    pub from: Option<Timestamp>,
    /// Up to the hour that holds this moment, without it.
    pub to: Option<Timestamp>,
    /// For how long after a source was last heard of its gaps are in flight.
    pub grace: Duration,
    /// How many gaps of each kind are named one by one.
    pub limit: usize,
    /// A line for each hour.
    pub hours: bool,
    /// The moment that this is asked.
    pub now: Timestamp,
}

impl Scope {
    /// Everything, with a day of grace.
    #[must_use]
    pub const fn at(now: Timestamp) -> Self {
        Self { from: None, to: None, grace: Duration::from_secs(24 * 3600), limit: 100, hours: false, now }
    }

    /// The hours, the last not included.
    fn range(&self) -> (u32, u32) {
        let hour = |time: Timestamp| Epoch::at(time).get();
        (self.from.map_or(0, hour), self.to.map_or(u32::MAX, hour))
    }

    const fn is_all(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }
}

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The hour, if each has its own line.
    pub hour: Option<Timestamp>,
    /// The first hop's region.
    pub region: Region,
    /// The first hop: 0 for this server, else the number of an edge.
    pub hop: u32,
}

/// Events, by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// By outcome; what is quarantined, or damaged on the way, stands below.
    pub outcomes: BTreeMap<String, i64>,
    /// In quarantine, by reason.
    pub quarantined: BTreeMap<String, i64>,
    /// Missing, of trusted sources that were heard of within the grace period.
    pub in_flight: u64,
    /// Missing, of trusted sources that were not.
    pub unaccounted: u64,
    /// The same, and quarantine has entries with these numbers, for which nobody answers. In no sum: what is in quarantine is counted there.
    pub doubtful: u64,
    /// Missing, of sources that no session vouches for: their numbers may be made up. In no sum.
    pub untrusted: u64,
}

impl Figures {
    /// Events of this outcome.
    #[must_use]
    pub fn outcome(&self, name: &str) -> i64 {
        self.outcomes.get(name).copied().unwrap_or_default()
    }

    /// Events in quarantine.
    #[must_use]
    pub fn all_quarantined(&self) -> i64 {
        self.quarantined.values().sum()
    }

    /// All that was given a number, or arrived without one. (An event that came in two forms, of which one was refused, came twice.)
    #[must_use]
    pub fn issued(&self) -> i64 {
        let named = ["stored", "suppressed", "dropped", "discarded", "erased"].map(|name| self.outcome(name));
        let missing = i64::try_from(self.in_flight.saturating_add(self.unaccounted)).unwrap_or(i64::MAX);
        named.into_iter().fold(missing, i64::saturating_add).saturating_add(self.all_quarantined())
    }

    fn count(&mut self, outcome: &str, reason: &str, events: i64) {
        if outcome == "quarantined" {
            *self.quarantined.entry(reason.to_owned()).or_default() += events;
        } else {
            *self.outcomes.entry(outcome.to_owned()).or_default() += events;
        }
    }

    fn miss(&mut self, state: State, events: u64) {
        let figure = match state {
            State::InFlight => &mut self.in_flight,
            State::Unaccounted => &mut self.unaccounted,
            State::Doubtful => &mut self.doubtful,
            State::Untrusted => &mut self.untrusted,
        };
        *figure = figure.saturating_add(events);
    }
}

/// What a gap is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Of a trusted source, heard of within the grace period.
    InFlight,
    /// Of a trusted source, not heard of for longer than that.
    Unaccounted,
    /// The same, and quarantine has entries with these numbers, for which nobody answers.
    Doubtful,
    /// Of a source that no session vouches for.
    Untrusted,
}

impl State {
    /// The state's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::Unaccounted => "unaccounted",
            Self::Doubtful => "doubtful",
            Self::Untrusted => "untrusted",
        }
    }

    pub(crate) fn of(missing: &Missing, grace: Duration, now: Timestamp) -> Self {
        let silent = now.as_millis().saturating_sub(missing.heard.as_millis());
        match missing.proof {
            Proof::Anybody => Self::Untrusted,
            _ if u128::from(silent) < grace.as_millis() => Self::InFlight,
            Proof::Session => Self::Unaccounted,
            Proof::Doubtful => Self::Doubtful,
        }
    }
}

/// Neighbouring numbers of a source that nobody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// Whose.
    pub source: SourceId,
    /// The first number.
    pub first: u64,
    /// The last number.
    pub last: u64,
    /// Where the frame was counted that showed the gap: its hour, region, hop.
    pub place: Key,
    /// When the source was last heard of.
    pub heard: Timestamp,
    /// Of all gaps of this source, how many events it says it gave up. Which, it does not say.
    pub given_up: u64,
}

/// Gaps of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gaps {
    /// Sources that have some.
    pub sources: u64,
    /// Events that are missing.
    pub events: u64,
    /// Gaps.
    pub count: u64,
    /// The first of them.
    pub named: Vec<Gap>,
}

/// The balance of one tenant.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Balance {
    /// By region and hop, or by hour, region and hop.
    pub lines: BTreeMap<Key, Figures>,
    /// All of it.
    pub total: Figures,
    /// What is missing, by state.
    pub gaps: BTreeMap<State, Gaps>,
    /// Tables that contradict each other. Not looked for in a part of the hours.
    pub faults: Vec<String>,
}

impl Balance {
    /// Whether every event of a trusted source has its outcome, or is in flight, and the tables agree.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.total.unaccounted == 0 && self.total.doubtful == 0 && self.faults.is_empty()
    }

    fn line(&mut self, place: Place, scope: &Scope) -> &mut Figures {
        self.lines.entry(key(place, scope.hours)).or_default()
    }

    fn count(&mut self, connection: &Connection, scope: &Scope) -> rusqlite::Result<()> {
        let (from, to) = scope.range();
        let mut statement = connection.prepare(
            "SELECT hour, region, hop, outcome, reason, events FROM counters WHERE hour >= ?1 AND hour < ?2",
        )?;
        let mut rows = statement.query(params![from, to])?;
        while let Some(row) = rows.next()? {
            let region = row.get_ref(1)?.as_str().ok().and_then(|text| text.parse().ok()).unwrap_or_default();
            let place = Place { hour: row.get(0)?, region, hop: row.get(2)? };
            let (outcome, reason): (String, String) = (row.get(3)?, row.get(4)?);
            let events = row.get(5)?;
            self.line(place, scope).count(&outcome, &reason, events);
            self.total.count(&outcome, &reason, events);
        }
        Ok(())
    }

    fn miss(&mut self, missing: &Missing, scope: &Scope) {
        let (from, to) = scope.range();
        let within = |place: &Place| from <= place.hour && place.hour < to;
        let state = State::of(missing, scope.grace, scope.now);
        let mut events = 0_u64;
        for (place, missing) in missing.places.iter().filter(|(place, _)| within(place)) {
            self.line(*place, scope).miss(state, *missing);
            events = events.saturating_add(*missing);
        }
        if events == 0 {
            return;
        }
        self.total.miss(state, events);
        let gaps = self.gaps.entry(state).or_default();
        gaps.sources += 1;
        gaps.events = gaps.events.saturating_add(events);
        // Of a source with very many, those that are not kept one by one count as if all were within.
        gaps.count += missing.range_count - missing.ranges.len() as u64;
        for range in missing.ranges.iter().filter(|range| within(&range.place)) {
            gaps.count += 1;
            if gaps.named.len() == scope.limit {
                continue;
            }
            gaps.named.push(Gap {
                source: missing.source,
                first: range.first,
                last: range.last,
                place: key(range.place, true),
                heard: missing.heard,
                given_up: missing.given_up,
            });
        }
    }
}

fn key(place: Place, hours: bool) -> Key {
    let hour = hours.then(|| Epoch::new(place.hour).start());
    Key { hour, region: place.region, hop: place.hop }
}

/// Draws up a tenant's balance, as its journal is at this moment; a server may go on writing.
///
/// # Errors
/// [`Error::Database`] if the journal cannot be read.
pub fn reconcile(stored: &StoredTenant, scope: &Scope) -> Result<Balance, Error> {
    let path = stored.journal();
    let connection = open_reader(&path)?;
    let draw = || -> rusqlite::Result<Balance> {
        // One snapshot for all of it.
        connection.execute_batch("BEGIN")?;
        draw(&connection, scope)
    };
    draw().map_err(Error::database(&path))
}

pub(super) fn draw(connection: &Connection, scope: &Scope) -> rusqlite::Result<Balance> {
    let mut balance = Balance::default();
    balance.count(connection, scope)?;
    let mut scan = Scan::begin(connection)?;
    while !scan.step(connection, u64::MAX, |missing| balance.miss(&missing, scope))? {}
    let noted = i64::try_from(scan.noted).unwrap_or(i64::MAX);
    let counted = ["stored", "suppressed", "erased"].iter().map(|outcome| balance.total.outcome(outcome)).sum::<i64>();
    if scope.is_all() && noted != counted {
        balance.faults.push(format!(
            "{counted} events are counted as stored, suppressed or erased, and {noted} are noted as seen: `firsthop verify` says more"
        ));
    }
    Ok(balance)
}
