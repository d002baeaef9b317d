//! Figures of requests.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use firsthop_intake::Route;

use crate::metrics::{Counter, Histogram, Page};

/// Figures of requests, since the start.
#[derive(Debug)]
pub(crate) struct Traffic {
    requests: [[Counter; STATUSES.len() + 1]; ROUTES.len()],
    refused: Mutex<BTreeMap<&'static str, u64>>,
    ingest: Histogram,
    opened: Counter,
    closed: [Counter; Closed::ALL.len()],
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "a mounted router has no connections"))]
pub(super) enum Closed {
    End,
    Idle,
    HeadTimeout,
    NotHttp,
    BrokenOff,
    Shed,
    Refused,
}

impl Closed {
    const ALL: [Self; 7] =
        [Self::End, Self::Idle, Self::HeadTimeout, Self::NotHttp, Self::BrokenOff, Self::Shed, Self::Refused];

    const fn as_str(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Idle => "idle",
            Self::HeadTimeout => "head-timeout",
            Self::NotHttp => "not-http",
            Self::BrokenOff => "broken-off",
            Self::Shed => "shed",
            Self::Refused => "refused",
        }
    }
}

/// A label for each, so that a path that somebody invents is no new series.
const ROUTES: [&str; 10] =
    ["frame", "envelope", "segment", "preflight", "leases", "health", "metrics", "region-keys", "sdk", "other"];
const STATUSES: [u16; 19] =
    [200, 204, 304, 307, 400, 401, 403, 404, 405, 408, 413, 415, 421, 429, 431, 500, 501, 502, 503];

impl Default for Traffic {
    fn default() -> Self {
        Self {
            requests: std::array::from_fn(|_| std::array::from_fn(|_| Counter::default())),
            refused: Mutex::default(),
            ingest: Histogram::default(),
            opened: Counter::default(),
            closed: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl Traffic {
    #[cfg(feature = "cli")]
    pub(super) fn opened(&self) {
        self.opened.add(1);
    }

    #[cfg(feature = "cli")]
    pub(super) fn closed(&self, why: Closed) {
        self.closed[why as usize].add(1);
    }

    pub(super) fn answered(&self, route: Option<Route<'_>>, status: u16) {
        let route = match route {
            Some(Route::Frame) => 0,
            Some(Route::Envelope) => 1,
            Some(Route::Segment(_)) => 2,
            Some(Route::Preflight) => 3,
            Some(Route::Leases) => 4,
            Some(Route::Live | Route::Ready | Route::Startup) => 5,
            Some(Route::Metrics) => 6,
            Some(Route::RegionKeys(_)) => 7,
            Some(Route::Sdk(_)) => 8,
            _ => 9,
        };
        let status = STATUSES.iter().position(|&known| known == status).unwrap_or(STATUSES.len());
        self.requests[route][status].add(1);
    }

    pub(super) fn refused(&self, code: &'static str) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
    }

    pub(super) fn took(&self, time: Duration) {
        self.ingest.observe(time);
    }

    pub(super) fn write(&self, page: &mut Page) {
        page.family("firsthop_http_requests_total", "counter", "Requests answered, by route and status.");
        for (route, counts) in ROUTES.iter().zip(&self.requests) {
            for (i, count) in counts.iter().enumerate().filter(|(_, count)| count.get() > 0) {
                let status = STATUSES.get(i).map_or_else(|| "other".to_owned(), u16::to_string);
                page.sample("firsthop_http_requests_total", &[("route", route), ("status", &status)], count.get());
            }
        }
        page.family("firsthop_refused_total", "counter", "Requests refused, by problem code.");
        for (code, count) in &*self.refused.lock().unwrap_or_else(PoisonError::into_inner) {
            page.sample("firsthop_refused_total", &[("code", code)], count);
        }
        page.family(
            "firsthop_ingest_seconds",
            "histogram",
            "Time from a request's headers to its answer, commit included.",
        );
        page.histogram("firsthop_ingest_seconds", &[], &self.ingest);
        let (closed, opened) = (self.closed.iter().map(Counter::get).sum::<u64>(), self.opened.get());
        page.single("firsthop_connections", "gauge", "Open connections.", opened.saturating_sub(closed));
        page.single("firsthop_connections_total", "counter", "Connections accepted.", opened);
        let ended = "firsthop_connections_closed_total";
        page.family(ended, "counter", "Connections that ended, by why.");
        for why in Closed::ALL {
            page.sample(ended, &[("reason", why.as_str())], self.closed[why as usize].get());
        }
    }
}
