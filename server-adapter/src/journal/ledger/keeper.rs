//! The thread that keeps the ledger: has over hours closed, and looks for what is missing, for the metrics.
//!
//! The look goes a few rows at a time and rests for nineteen times as long as it worked, so it takes a twentieth of one core while it
//! lasts, and holds no snapshot for longer than a step.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use firsthop_core::{TenantId, Timestamp};
use rusqlite::Connection;

use super::{balance::State, chain::due, missing::Scan};
use crate::{
    Error,
    background::Background,
    clock,
    journal::{
        Journal, JournalStatus, Unavailable,
        counters::{Count, CounterKey},
        open_reader,
    },
    metrics::Gauge,
    tenants::{Live, SigningKey, Tenants},
};

/// Figures for `/metrics`.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// The end of the last hour that was closed, in seconds since the Unix epoch.
    pub(crate) closed: Gauge,
    /// When the others were last true.
    pub(crate) checked: Gauge,
    pub(crate) in_flight: Gauge,
    pub(crate) unaccounted: Gauge,
    pub(crate) doubtful: Gauge,
    pub(crate) untrusted: Gauge,
}

impl Journal {
    /// Has the writer close the hours that are over. Blocks.
    pub(crate) fn close_hours(&self, key: &SigningKey, now: Timestamp) -> Result<(), Unavailable> {
        let tenant = self.tenant();
        loop {
            let key = key.secret();
            let (before, done, head) = self.change(0, move |connection, tables, _| {
                let before = tables.chain.head();
                let done = tables.chain.close(connection, tenant, &key, now)?;
                Ok((before, done, tables.chain.head()))
            })?;
            if head != before {
                // Kept elsewhere, with the logs, it shows whether the chain's end is the one that it had.
                let (entry, sha256) = head;
                tracing::info!(%tenant, entry, sha256, "hours of the ledger are closed");
            }
            if done {
                return Ok(());
            }
        }
    }
}

/// Rows between two rests: some milliseconds.
const STEP: u64 = 10_000;
/// When an hour that could not be closed is tried again.
const RETRY: Duration = Duration::from_secs(30);
/// A rest is so many times as long as the work before it.
const REST: u32 = 19;

/// Looks for what is missing as often as `interval`; what was not heard of for `grace` is unaccounted for.
pub(crate) fn keep(tenants: Arc<Tenants>, interval: Duration, grace: Duration) -> std::io::Result<Background> {
    const LONGEST: Duration = Duration::from_secs(1);
    Background::start("ledger", LONGEST, move || {
        let mut round = Round::new(tenants, interval, grace);
        move |_| {
            round.close_hours(clock::now());
            round.look(clock::now()).min(LONGEST)
        }
    })
}

/// What the thread is at.
struct Round {
    tenants: Arc<Tenants>,
    interval: Duration,
    grace: Duration,
    /// Through which hour each tenant's were closed.
    closed: HashMap<TenantId, u32>,
    /// Whose hour could not be closed, and when that was.
    failed: HashMap<TenantId, Instant>,
    /// When the last round began, and whom it has not come to yet.
    began: Option<Instant>,
    left: Vec<Arc<Live>>,
    at: Option<Look>,
    rest: Instant,
    /// What was there when a tenant was last looked at.
    known: HashMap<TenantId, Known>,
}

/// What changes when something changes.
type Known = (i64, BTreeMap<CounterKey, Count>);

/// A look at one tenant that is not done.
struct Look {
    live: Arc<Live>,
    known: Known,
    connection: Connection,
    scan: Scan,
    missing: BTreeMap<State, u64>,
}

impl Round {
    fn new(tenants: Arc<Tenants>, interval: Duration, grace: Duration) -> Self {
        Self {
            tenants,
            interval,
            grace,
            closed: HashMap::new(),
            failed: HashMap::new(),
            began: None,
            left: Vec::new(),
            at: None,
            rest: Instant::now(),
            known: HashMap::new(),
        }
    }

    fn close_hours(&mut self, now: Timestamp) {
        let due = due(now);
        for live in self.tenants.all() {
            let done = self.closed.get(&live.id).is_some_and(|closed| *closed >= due);
            let waits = self.failed.get(&live.id).is_some_and(|failed| failed.elapsed() < RETRY);
            if done || waits || live.journal.status() == JournalStatus::Down {
                continue;
            }
            let Some(key) = live.known().keys.ledger.clone() else { continue };
            match live.journal.close_hours(&key, now) {
                Ok(()) => {
                    self.closed.insert(live.id, due);
                    self.failed.remove(&live.id);
                }
                Err(reason) => {
                    self.failed.insert(live.id, Instant::now());
                    tracing::warn!(tenant = %live.id, reason = reason.as_str(), "an hour could not be closed yet");
                }
            }
        }
    }

    /// Does a little, and says for how long to rest.
    fn look(&mut self, now: Timestamp) -> Duration {
        let began = Instant::now();
        if began < self.rest {
            return self.rest - began;
        }
        if let Err(error) = self.step(now) {
            // Also of a journal that is away: then that is told elsewhere. The figures stay, with the time when they were true.
            tracing::warn!(%error, "the look for what is missing");
            self.at = None;
        }
        if self.at.is_none() && self.left.is_empty() {
            return Duration::from_secs(1);
        }
        let rest = began.elapsed() * REST;
        self.rest = Instant::now() + rest;
        rest
    }

    fn step(&mut self, now: Timestamp) -> Result<(), Error> {
        let Some(mut look) = self.at.take() else { return self.begin(now) };
        let path = self.tenants.journal(look.live.id);
        let (missing, grace) = (&mut look.missing, self.grace);
        let found = look.scan.step(&look.connection, STEP, |found| {
            let sum = missing.entry(State::of(&found, grace, now)).or_default();
            *sum = sum.saturating_add(found.events);
        });
        let done = found.map_err(Error::database(&path))?;
        if !done {
            self.at = Some(look);
            return Ok(());
        }
        let of = |state| look.missing.get(&state).copied().unwrap_or_default();
        let figures = &look.live.journal.stats().ledger;
        figures.in_flight.set(of(State::InFlight));
        figures.unaccounted.set(of(State::Unaccounted));
        figures.doubtful.set(of(State::Doubtful));
        figures.untrusted.set(of(State::Untrusted));
        figures.checked.set(now.as_millis() / 1000);
        self.known.insert(look.live.id, look.known);
        Ok(())
    }

    /// Begins with the next tenant, or a round.
    fn begin(&mut self, now: Timestamp) -> Result<(), Error> {
        let Some(live) = self.left.pop() else {
            if self.began.is_none_or(|began| began.elapsed() >= self.interval) {
                self.began = Some(Instant::now());
                self.left = self.tenants.all();
            }
            return Ok(());
        };
        let journal = &live.journal;
        let known = (journal.tip(), journal.totals().get());
        let figures = &journal.stats().ledger;
        // Where nothing has come since, only time can change something: what is in flight.
        if figures.in_flight.get() == 0 && self.known.get(&live.id) == Some(&known) {
            figures.checked.set(now.as_millis() / 1000);
            return Ok(());
        }
        let path = self.tenants.journal(live.id);
        let connection = open_reader(&path)?;
        let scan = Scan::begin(&connection).map_err(Error::database(&path))?;
        self.at = Some(Look { live, known, connection, scan, missing: BTreeMap::new() });
        Ok(())
    }
}
