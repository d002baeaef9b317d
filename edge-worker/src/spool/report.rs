//! What a shard says of itself, and what that comes to for a tenant.

use serde::Serialize;

use firsthop_intake::fields::{self, Fault, Others, Read, needed, optional};

/// What a shard says of itself.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// What waits.
    pub(crate) frames: u64,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    /// Since when the oldest frame waits, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) oldest: Option<u64>,
    /// When the next attempt is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<u64>,
    /// Attempts in a row of which none got through.
    pub(crate) failures: u32,
    /// Frames that failed while others got through, and that nothing waits for any longer.
    pub(crate) stuck: u64,
    /// What was ever taken, and what became of it.
    pub(crate) taken_frames: u64,
    pub(crate) taken_events: u64,
    pub(crate) stored: u64,
    pub(crate) duplicate: u64,
    pub(crate) conflict: u64,
    pub(crate) quarantined: u64,
    /// How often there was no room.
    pub(crate) full: u64,
}

impl Read for Report {
    fn read(json: &str) -> std::result::Result<Self, Fault> {
        let mut report = Self::default();
        fields::fill(
            json,
            Others::Skipped,
            &mut [
                needed("frames", &mut report.frames),
                needed("events", &mut report.events),
                needed("bytes", &mut report.bytes),
                optional("oldest", &mut report.oldest),
                optional("next", &mut report.next),
                needed("failures", &mut report.failures),
                needed("stuck", &mut report.stuck),
                needed("takenFrames", &mut report.taken_frames),
                needed("takenEvents", &mut report.taken_events),
                needed("stored", &mut report.stored),
                needed("duplicate", &mut report.duplicate),
                needed("conflict", &mut report.conflict),
                needed("quarantined", &mut report.quarantined),
                needed("full", &mut report.full),
            ],
        )?;
        Ok(report)
    }
}

impl std::iter::Sum for Report {
    fn sum<I: Iterator<Item = Self>>(reports: I) -> Self {
        let earliest = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        reports.fold(Self::default(), |a, b| Self {
            frames: a.frames + b.frames,
            events: a.events + b.events,
            bytes: a.bytes + b.bytes,
            oldest: earliest(a.oldest, b.oldest),
            next: earliest(a.next, b.next),
            failures: a.failures.max(b.failures),
            stuck: a.stuck + b.stuck,
            taken_frames: a.taken_frames + b.taken_frames,
            taken_events: a.taken_events + b.taken_events,
            stored: a.stored + b.stored,
            duplicate: a.duplicate + b.duplicate,
            conflict: a.conflict + b.conflict,
            quarantined: a.quarantined + b.quarantined,
            full: a.full + b.full,
        })
    }
}
