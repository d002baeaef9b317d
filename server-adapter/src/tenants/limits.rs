//! What a tenant may send: rates with a burst, a body's size, requests under way.
//!
//! Who may spend a tenant's share is whom the tenant answers for: a session whose signature holds, a write key of the
//! tenant's from an origin on its list, an enrolled edge. What anybody can make, bytes that name a tenant and prove nothing, takes from a
//! share of its own, which bounds what the tenant's quarantine has to write for it and nothing else.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use firsthop_intake::{Problem, Refusal};
use serde::{Deserialize, Serialize};

use crate::{
    Settings,
    metrics::Counter,
    settings::{Bytes, Span},
};

/// `[limits]` of `tenant.toml`: what differs from the server's settings `limit_…`. 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsFile {
    /// Requests a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Events a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<u64>,
    /// Bytes a second, of bodies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Bytes>,
    /// How many seconds' worth may come at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Span>,
    /// Bytes of one body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Bytes>,
    /// Requests under way at a time: as many connections it can keep busy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u64>,
    /// Bytes a second that quarantine takes of what nobody answers for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unvouched: Option<Bytes>,
}

impl LimitsFile {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The limits in force: the tenant's own, the server's for the rest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Requests, events and bytes a second, as [`Rate`] counts them.
    rates: [u64; 3],
    burst: Duration,
    body: usize,
    concurrent: usize,
    unvouched: u64,
}

impl Limits {
    pub(crate) fn new(settings: &Settings, own: &LimitsFile) -> Self {
        let count = |n: u64| usize::try_from(n).ok().filter(|&n| n > 0).unwrap_or(usize::MAX);
        Self {
            rates: [
                own.requests.unwrap_or(settings.limit_requests),
                own.events.unwrap_or(settings.limit_events),
                own.bytes.unwrap_or(settings.limit_bytes).0,
            ],
            burst: own.burst.unwrap_or(settings.limit_burst).0.max(Duration::from_millis(1)),
            body: count(own.body.unwrap_or(settings.limit_body).0),
            concurrent: count(own.concurrent.unwrap_or(settings.limit_concurrent)),
            unvouched: own.unvouched.unwrap_or(settings.limit_unvouched).0,
        }
    }

    /// Whether anything bounds what the tenant sends in a second.
    fn has_rates(&self) -> bool {
        self.rates != [0; 3]
    }
}

/// What is limited: the label of the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Requests,
    Events,
    Bytes,
    Body,
    Concurrent,
    Unvouched,
    Share,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] =
        [Self::Requests, Self::Events, Self::Bytes, Self::Body, Self::Concurrent, Self::Unvouched, Self::Share];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Events => "events",
            Self::Bytes => "bytes",
            Self::Body => "body",
            Self::Concurrent => "concurrent",
            Self::Unvouched => "unvouched",
            Self::Share => "share",
        }
    }
}

const RATES: [Kind; 3] = [Kind::Requests, Kind::Events, Kind::Bytes];

/// What a tenant has used of its limits. Changed limits apply to it at once.
#[derive(Debug)]
pub(crate) struct Usage {
    began: Instant,
    /// For each rate, and for what nobody answers for: how far ahead of the clock it is paid, in nanoseconds since `began`.
    /// This is the bucket: empty when that is `burst` ahead (GCRA, ITU-T I.371).
    paid: Mutex<[u64; 4]>,
    under_way: AtomicUsize,
    refused: [Counter; Kind::ALL.len()],
    /// When the last refusal of what is over a limit goes out, in nanoseconds since `began`.
    told: Mutex<u64>,
}

/// Refusals of what is over a limit wait this long before they go out: whoever asks again at once, as many do, asks less often so.
const PAUSE: Duration = Duration::from_millis(100);
/// And this long after the one before, for the same tenant: so they are no burst that the others would feel, and however many
/// connections ask, the server answers so often and no more.
const APART: Duration = Duration::from_millis(1);
/// But no longer than this.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request under way, until dropped.
#[derive(Debug)]
pub(crate) struct UnderWay<'a>(&'a Usage);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

impl Default for Usage {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            paid: Mutex::default(),
            under_way: AtomicUsize::new(0),
            refused: std::array::from_fn(|_| Counter::default()),
            told: Mutex::default(),
        }
    }
}

impl Usage {
    /// Whether there is anything left, and a body of this size allowed at all. Takes nothing, so that it may be asked for whoever
    /// names the tenant, before any work is done for them.
    pub(crate) fn check(&self, limits: &Limits, bytes: usize) -> Result<(), Problem> {
        if bytes > limits.body {
            self.refused[Kind::Body as usize].add(1);
            return Err(Problem::body_too_large(limits.body));
        }
        if limits.has_rates() {
            self.check_rates(limits, &self.lock(), self.now())?;
        }
        Ok(())
    }

    /// Takes a request from the tenant's share. What is left need only be more than nothing: so one request may be larger than a
    /// second's worth, and those after it wait for longer.
    pub(crate) fn take(&self, limits: &Limits, events: u16, bytes: usize) -> Result<(), Problem> {
        if limits.has_rates() {
            let (mut paid, now) = (self.lock(), self.now());
            self.check_rates(limits, &paid, now)?;
            for ((paid, rate), cost) in paid.iter_mut().zip(limits.rates).zip([1, u64::from(events), bytes as u64]) {
                *paid = pay(*paid, now, cost, rate);
            }
        }
        Ok(())
    }

    /// Takes a place among the requests under way.
    pub(crate) fn enter(&self, limits: &Limits) -> Result<UnderWay<'_>, Problem> {
        let place = UnderWay(self);
        if self.under_way.fetch_add(1, Relaxed) < limits.concurrent {
            return Ok(place);
        }
        Err(self.refuse(Kind::Concurrent, format!("at most {} requests under way", limits.concurrent), 1))
    }

    /// The refusal of what finds no room even to wait for its turn beside other tenants.
    pub(crate) fn no_turn(&self) -> Problem {
        self.refuse(Kind::Share, "too much under way beside other tenants".into(), 1)
    }

    /// Whether quarantine takes so many bytes of what nobody answers for.
    pub(crate) fn take_unvouched(&self, limits: &Limits, bytes: usize) -> bool {
        // A row has a cost of its own, however small its body.
        const ROW: u64 = 4096;
        let (mut paid, now) = (self.lock(), self.now());
        if limits.unvouched > 0 && left(paid[3], now, limits.burst).is_err() {
            self.refused[Kind::Unvouched as usize].add(1);
            return false;
        }
        paid[3] = pay(paid[3], now, bytes as u64 + ROW, limits.unvouched);
        true
    }

    pub(crate) fn refused(&self, kind: Kind) -> u64 {
        self.refused[kind as usize].get()
    }

    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Relaxed)
    }

    /// How much of the burst each rate has used: 1 and more is all of it.
    pub(crate) fn used(&self, limits: &Limits) -> [(Kind, f64); 3] {
        let (paid, now) = (*self.lock(), self.now());
        let used = |i: usize| paid[i].saturating_sub(now) as f64 / limits.burst.as_nanos() as f64;
        std::array::from_fn(|i| (RATES[i], if limits.rates[i] == 0 { 0.0 } else { used(i) }))
    }

    fn check_rates(&self, limits: &Limits, paid: &[u64; 4], now: u64) -> Result<(), Problem> {
        let mut longest: Option<(Kind, u64, Duration)> = None;
        for ((kind, &paid), rate) in RATES.into_iter().zip(paid).zip(limits.rates) {
            if rate > 0
                && let Err(wait) = left(paid, now, limits.burst)
                && longest.is_none_or(|(.., longest)| wait > longest)
            {
                longest = Some((kind, rate, wait));
            }
        }
        let Some((kind, rate, wait)) = longest else { return Ok(()) };
        let seconds = u32::try_from(wait.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u32::MAX).max(1);
        Err(self.refuse(kind, format!("at most {rate} {} a second", kind.as_str()), seconds))
    }

    /// The refusal of what is over a limit, with its turn among those of this tenant.
    fn refuse(&self, kind: Kind, detail: String, retry_after: u32) -> Problem {
        self.refused[kind as usize].add(1);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Duration::from_nanos(self.now());
        let turn = (now + PAUSE).max(Duration::from_nanos(*told) + APART).min(now + PATIENCE);
        *told = u64::try_from(turn.as_nanos()).unwrap_or(u64::MAX);
        Problem::new(Refusal::RateLimited).with_detail(detail).with_retry_after(retry_after).with_pause(turn - now)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, [u64; 4]> {
        self.paid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Whether a bucket has something left, or else when it will have.
fn left(paid: u64, now: u64, burst: Duration) -> Result<(), Duration> {
    let burst = u64::try_from(burst.as_nanos()).unwrap_or(u64::MAX);
    match paid.saturating_sub(now).checked_sub(burst) {
        None => Ok(()),
        Some(over) => Err(Duration::from_nanos(over.saturating_add(1))),
    }
}

/// Where a bucket stands after so much. A rate of 0 is no limit, and costs nothing.
fn pay(paid: u64, now: u64, cost: u64, rate: u64) -> u64 {
    let Some(nanos) = (u128::from(cost) * 1_000_000_000).checked_div(rate.into()) else { return paid };
    paid.max(now).saturating_add(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    proptest! {
        /// Over any stretch of time from the first request on, no more than the rate and one burst comes through, but for the
        /// one request that may be larger than what is left.
        #[test]
        fn no_more_than_rate_and_burst(
            rate in 1_u64..1000,
            burst_ms in 1_u64..5000,
            arrivals in proptest::collection::vec((0_u64..SECOND, 1_u64..500), 1..200),
        ) {
            let burst = Duration::from_millis(burst_ms);
            let (mut paid, mut now, mut through, mut largest) = (0, 0, 0, 0);
            for (gap, cost) in arrivals {
                now += gap;
                if left(paid, now, burst).is_ok() {
                    paid = pay(paid, now, cost, rate);
                    through += cost;
                    largest = largest.max(cost);
                }
                let most = u128::from(rate) * u128::from(now + burst_ms * 1_000_000) / u128::from(SECOND);
                prop_assert!(u128::from(through) <= most + u128::from(largest) + 1, "{through} through, {most} allowed");
            }
        }

        /// Whoever comes back when told to, is let in.
        #[test]
        fn the_wait_is_long_enough(rate in 1_u64..1000, cost in 1_u64..100_000, now in 0..u64::from(u32::MAX)) {
            let burst = Duration::from_secs(1);
            let paid = pay(0, now, cost, rate);
            if let Err(wait) = left(paid, now, burst) {
                prop_assert!(left(paid, now + wait.as_nanos() as u64, burst).is_ok());
            }
        }
    }

    #[test]
    fn no_limit_is_no_limit() {
        let settings = Settings { limit_unvouched: Bytes(0), ..Settings::default() };
        let limits = Limits::new(&settings, &LimitsFile::default());
        let usage = Usage::default();
        for _ in 0..10_000 {
            usage.check(&limits, usize::MAX - 1).expect("no limit");
            usage.take(&limits, u16::MAX, 1 << 40).expect("no limit");
            assert!(usage.take_unvouched(&limits, 1 << 40));
        }
        let places: Vec<_> = (0..1000).map(|_| usage.enter(&limits).expect("no limit")).collect();
        assert_eq!(usage.under_way(), 1000);
        drop(places);
        assert_eq!(usage.under_way(), 0);
    }

    #[test]
    fn refusals_go_out_one_after_the_other() {
        let own = LimitsFile { requests: Some(1), ..LimitsFile::default() };
        let limits = Limits::new(&Settings::default(), &own);
        let usage = Usage::default();
        let wait =
            || std::iter::repeat_with(|| usage.take(&limits, 1, 1)).find_map(Result::err).expect("refused").pause();
        let first = wait();
        assert!(first >= PAUSE - Duration::from_millis(1) && first <= PAUSE, "{first:?}");
        let many: Vec<_> = (0..200).map(|_| wait()).collect();
        assert!(*many.last().expect("some") > PAUSE + 90 * APART, "each has its turn: {many:?}");
        assert!((0..10_000).map(|_| wait()).all(|wait| wait <= PATIENCE), "nobody waits for ever");
    }

    #[test]
    fn the_rate_that_is_waited_for_longest_is_named() {
        let own = LimitsFile { requests: Some(1000), events: Some(10), ..LimitsFile::default() };
        let limits = Limits::new(&Settings::default(), &own);
        let usage = Usage::default();
        usage.take(&limits, 100, 1).expect("the first");
        let problem = usage.check(&limits, 1).expect_err("10 seconds' worth");
        assert_eq!((problem.status(), problem.detail()), (429, "at most 10 events a second"));
        assert!((7..=8).contains(&problem.retry_after().expect("when")), "{problem:?}");
        assert_eq!(usage.refused(Kind::Events), 1);
        // And is let in at once when the limit is gone.
        let limits = Limits::new(&Settings::default(), &LimitsFile { events: Some(0), ..own });
        usage.take(&limits, 100, 1).expect("changed limits");
    }
}
