//! The journal: what was acknowledged is in here, and nothing is acknowledged that is not.
//!
//! ```text
//! request tasks ──► queue (bounded in bytes) ──► writer thread, one for each tenant
//!                                                  │ takes all that has arrived
//!                                                  │ decides what is new (seen), in one transaction with
//!                                                  │ frames, identities, counters, quarantine
//!                                                  │ COMMIT, synced
//!                                                  ├──► answers all of them
//!                                                  └──► wakes the sinks
//! ```
//!
//! A frame is one row, as it came. `seen` has one row for each run of events that a frame brought; the runs of a source
//! never overlap, and each points to its frame, so that a second event of the same identity can be compared with the
//! first: the same ([`content_digest`](firsthop_intake::content_digest)) is a duplicate, another is a conflict and
//! goes to quarantine. Nothing here is approximate.

mod aging;
mod answers;
mod arrival;
mod checkpoint;
mod counters;
mod erase;
pub mod ledger;
pub(crate) mod log;
mod memory;
#[cfg(test)]
mod model_tests;
pub(crate) mod quarantine;
mod queue;
mod retention;
mod room;
mod schema;
mod sealed;
mod seen;
pub(crate) mod shapes;
mod store;
mod tombstone;
pub(crate) mod verify;
mod writer;

pub(crate) use self::{
    answers::Lane,
    arrival::{Arrival, Asked, Noted, SetAside, Verdict, is_suppressed, stored_as},
    counters::{At, Count, Totals},
    erase::{Found, names_escaped, scrub},
    memory::{Held, Memory},
    queue::{Follower, Journal, JournalStatus, Unavailable, Waited},
    retention::Keep,
    schema::{SCHEMA, admit, bring_up, has_removed, open_private, open_reader, read_id},
    sealed::{Readable, Seals},
    store::{Accepted, open_frame},
    tombstone::{Delivered, Subject},
};
