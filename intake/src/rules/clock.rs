//! Clocks that differ. Times are stored as the producer has them; by how much it may be wrong is noted beside them.

use firsthop_core::{Header, Timestamp};
use serde::Serialize;

use super::RulesError;
use crate::fields::fields;

/// From when on two clocks are told to differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClockRule {
    /// Less than this, either way, is nothing: a frame waits a while before it is sent, and travels.
    pub from_ms: u64,
    /// More than this is told as this.
    pub up_to_ms: u64,
}

fields! { ClockRule { from_ms, up_to_ms } }

/// A hundred years: beyond, a clock is just wrong.
const MOST: u64 = 100 * 365 * 24 * 3600 * 1000;

impl Default for ClockRule {
    fn default() -> Self {
        Self { from_ms: 60_000, up_to_ms: 30 * 24 * 3600 * 1000 }
    }
}

impl ClockRule {
    pub(super) fn check(&self) -> Result<(), RulesError> {
        if self.up_to_ms < self.from_ms.max(1) || self.up_to_ms > MOST {
            return Err(RulesError::new("clock.up_to_ms", "from `from_ms` (at least 1) to a hundred years"));
        }
        Ok(())
    }

    /// The hop's clock less the producer's; 0 if they are near enough. Positive may as well be a frame that was long on its way.
    pub(super) fn skew_ms(&self, header: &Header, now: Timestamp) -> i64 {
        let (now, created) = (now.as_millis(), header.created.as_millis());
        let apart = now.abs_diff(created);
        if apart < self.from_ms {
            return 0;
        }
        let apart = i64::try_from(apart.min(self.up_to_ms)).unwrap_or(i64::MAX);
        if now < created { -apart } else { apart }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skew_is_bounded_on_both_sides() {
        let rule = ClockRule { from_ms: 1_000, up_to_ms: 60_000 };
        for (created, now, skew) in [
            (10_000, 10_000, 0),
            (10_000, 10_999, 0),
            (10_999, 10_000, 0),
            (10_000, 11_000, 1_000),
            (11_000, 10_000, -1_000),
            (0, 60_000, 60_000),
            (0, 1 << 50, 60_000),
            (u64::MAX, 0, -60_000),
        ] {
            let header = Header::new(Default::default(), Default::default(), Timestamp::from_millis(created));
            assert_eq!(rule.skew_ms(&header, Timestamp::from_millis(now)), skew, "{created} {now}");
        }
    }
}
