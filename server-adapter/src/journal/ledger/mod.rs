//! The ledger: where every event that a source has numbered is.
//!
//! ```text
//! counters, by hour, region, hop ─────────────────────┐
//! gaps between the numbers of a source ── missing ────┴─► balance ──► `firsthop reconcile`, metrics
//! numbers in quarantine ── claims ──┘
//! ```

mod balance;
mod claims;
mod missing;
#[cfg(test)]
mod model_tests;

pub use self::balance::{Balance, Figures, Gap, Gaps, Key, Scope, State, reconcile};
pub(super) use self::claims::{Claim, hop_of, note_old};
