//! What a check says.

use std::collections::BTreeSet;

/// What was checked, and what is wrong.
#[derive(Debug, Default)]
pub struct Report {
    /// Frames.
    pub frames: u64,
    /// Events that those brought.
    pub events: u64,
    /// Events that were counted, and of which nothing was kept.
    pub suppressed: u64,
    /// Frames that came in an edge's envelope, whose signature was checked.
    pub envelopes: u64,
    /// Frames whose session's signature was checked.
    pub signed: u64,
    /// Frames from before their source had a session: nothing but a CRC.
    pub unsigned: u64,
    /// Frames that are sealed to a region key, and were opened.
    pub sealed: u64,
    /// Frames that are sealed to a region key that is not here: their signatures were checked, and what is in them was not.
    pub closed: u64,
    /// The keys of those: `1 of EU`.
    pub missing_keys: BTreeSet<String>,
    /// Frames of which events were erased: their signatures cannot be checked any more.
    pub redacted: u64,
    /// Frames whose bodies retention has removed.
    pub removed: u64,
    /// Entries in quarantine.
    pub quarantined: u64,
    /// Hours that the ledger has closed, all of whose signatures were checked.
    pub closed_hours: u64,
    /// Rows of the events table.
    pub rows: u64,
    /// What is wrong; the first hundred.
    pub faults: Vec<String>,
    /// How much is wrong.
    pub fault_count: u64,
}

/// Faults that are told one by one.
const TOLD: usize = 100;

impl Report {
    pub(super) fn fault(&mut self, what: impl Into<String>) {
        self.fault_count += 1;
        if self.faults.len() < TOLD {
            self.faults.push(what.into());
        }
    }
}
