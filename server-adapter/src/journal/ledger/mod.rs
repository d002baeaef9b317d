//! The ledger: where every event that a source has numbered is.

mod claims;

pub(super) use self::claims::{Claim, note_old};
