//! The ledger: where every event that a source has numbered is.
//!
//! ```text
//! counters, by hour, region, hop ─────────────────────┐
//! gaps between the numbers of a source ── missing ────┴─► balance ──► `firsthop reconcile`, metrics
//! numbers in quarantine ── claims ──┘
//! ```

mod balance;
mod chain;
#[cfg(test)]
mod chain_tests;
mod claims;
mod keeper;
mod missing;
#[cfg(test)]
mod model_tests;
#[cfg(all(test, feature = "cli"))]
mod trust_tests;
mod walk;

use firsthop_core::limits::MAX_EVENTS;

pub use self::balance::{Balance, Figures, Gap, Gaps, Key, Scope, State, reconcile};
pub use self::chain::{Checked, check_ledger, parse_key};
pub(crate) use self::chain::{check, hex};
pub(crate) use self::keeper::{Figures as LedgerFigures, keep};
#[cfg(feature = "cli")]
pub(super) use self::missing::untold;
pub(super) use self::{
    chain::Chain,
    claims::{Claim, Trust, hop_of, note_old},
};

/// Of what a frame says its source gave up, what is believed. What is not signed anybody can make up: of that no more than a frame could
/// have brought.
pub(super) fn given_up(dropped: u32, trusted: bool) -> u32 {
    if trusted { dropped } else { dropped.min(MAX_EVENTS.into()) }
}
