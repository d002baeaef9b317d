//! What an edge's spool decides, free of I/O: what an answer says of a frame, when to try again, and what to send next.
//!
//! The spool keeps envelopes while the server is away and hands them over in order per source. What it keeps them in, and the
//! clock by which it wakes up, are the edge's.

use crate::{Receipt, Verdict};

/// What an answer to an envelope says of the frame inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The server has it.
    Stored(Receipt),
    /// The server has looked at it and set it aside: to send it again is of no use.
    SetAside,
    /// The tenant sends more than it may. The server is there; the frame has to wait.
    Limited,
    /// The server is away, or in trouble: it says nothing of the frame.
    Away,
    /// Somebody will not have these very bytes, and has not set them aside: too large for a proxy, or damaged on the way. They must be
    /// kept; others may well get through.
    Unfit,
    /// Somebody will have nothing of this edge's or this tenant's: an enrolment that ended, a wrong address. It takes an operator, so to
    /// ask often is of no use; and nothing was set aside, so it must be kept.
    Refused,
}

impl Fate {
    /// Reads an answer: its status, its header [`Verdict::HEADER`] and its body.
    ///
    /// A refusal is the server's verdict on the frame only if it says in its receipt that the frame was set aside. Any other is of the
    /// envelope, or of somebody between here and the server; to take it for a verdict would throw away what was never looked at. What
    /// answers 2xx without a receipt is no Firsthop server: nothing is known to be stored.
    #[must_use]
    pub fn of(status: u16, verdict: Option<&str>, body: &[u8]) -> Self {
        match status {
            200..=299 => Receipt::from_json(body).map_or(Self::Away, Self::Stored),
            400..=499 | 501
                if verdict.map(Verdict::from_header).is_some_and(|it| it.is_ok_and(|v| v.quarantined > 0)) =>
            {
                Self::SetAside
            }
            429 => Self::Limited,
            408 | 425 | 500.. => Self::Away,
            400 | 409 | 411..=415 | 422 | 431 => Self::Unfit,
            _ => Self::Refused,
        }
    }
}

/// How long to wait between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The pause after the first failure, in milliseconds. Each further one doubles it, up to [`Self::LONGEST`] times.
    pub first_ms: u64,
}

impl Pace {
    /// The longest pause, in first pauses.
    pub const LONGEST: u64 = 64;
    /// How many times longer the pauses are where it takes an operator.
    pub const SLOW: u64 = 16;
    /// Longest `Retry-After` that is honoured, in seconds: more is a mistake, or somebody else's server.
    pub const LONGEST_ASKED: u64 = 600;

    /// Milliseconds until the next attempt after so many failures in a row, of which the last one brought this `Retry-After`.
    ///
    /// Half of it is chance, so that edges that lost the server together do not come back together; `Retry-After` is a lower bound.
    #[must_use]
    pub fn pause(self, failures: u32, fate: &Fate, asked: Option<u64>, random: u32) -> u64 {
        let doubled =
            1_u64.checked_shl(failures.saturating_sub(1)).map_or(Self::LONGEST, |n| n.clamp(1, Self::LONGEST));
        let slow = if *fate == Fate::Refused { Self::SLOW } else { 1 };
        let whole = self.first_ms.saturating_mul(doubled).saturating_mul(slow).max(2);
        let half = whole / 2;
        let chance = ((u128::from(half) * u128::from(random)) >> 32) as u64;
        let asked = asked.unwrap_or(0).min(Self::LONGEST_ASKED) * 1000;
        // What was asked for is asked of all edges: they are spread behind it, too.
        let spread = ((u128::from(asked / 8) * u128::from(random)) >> 32) as u64;
        (half + chance).max(asked + spread)
    }
}

/// How often a frame may fail by itself, or while others get through, before those behind it, of its source, need wait for it no longer.
pub const STRIKES: u32 = 8;

/// Distributes what waits, in its order, over lanes: one for each source, which are sent side by side, and each in order.
#[must_use]
pub fn lanes<S: PartialEq, T>(waiting: impl IntoIterator<Item = (S, T)>) -> Vec<(S, Vec<T>)> {
    let mut lanes: Vec<(S, Vec<T>)> = Vec::new();
    for (source, item) in waiting {
        match lanes.iter_mut().find(|(known, _)| *known == source) {
            Some((_, lane)) => lane.push(item),
            None => lanes.push((source, vec![item])),
        }
    }
    lanes
}

#[cfg(test)]
mod tests {
    use firsthop_core::{Header, SourceId, Timestamp};
    use proptest::prelude::*;

    use super::*;

    fn receipt() -> Receipt {
        Receipt::stored(&Header {
            count: 2,
            ..Header::new(Default::default(), SourceId::default(), Timestamp::default())
        })
    }

    #[test]
    fn what_an_answer_says_of_a_frame() {
        let good = receipt().to_json();
        let aside = Some("stored=0, duplicate=0, conflict=0, quarantined=1");
        let nothing = Some("stored=0, duplicate=0, conflict=0, quarantined=0");
        for (status, verdict, body, expected) in [
            (200, None, good.as_str(), Fate::Stored(receipt())),
            (200, None, "", Fate::Away),
            (204, None, "", Fate::Away),
            (200, None, "<html>welcome", Fate::Away),
            (400, aside, "", Fate::SetAside),
            (401, aside, "", Fate::SetAside),
            (413, aside, "", Fate::SetAside),
            (501, aside, "", Fate::SetAside),
            // Of a server in trouble, no word counts for a verdict.
            (500, aside, "", Fate::Away),
            (503, aside, "", Fate::Away),
            (400, nothing, "", Fate::Unfit),
            (400, Some("quarantined"), "", Fate::Unfit),
            (400, None, "", Fate::Unfit),
            (415, None, "", Fate::Unfit),
            (422, None, "", Fate::Unfit),
            (401, None, "", Fate::Refused),
            (403, None, "", Fate::Refused),
            (404, None, "", Fate::Refused),
            (413, None, "<html>too large", Fate::Unfit),
            (301, None, "", Fate::Refused),
            // What `redirect: manual` gives.
            (0, None, "", Fate::Refused),
            (408, None, "", Fate::Away),
            (425, None, "", Fate::Away),
            (429, None, "", Fate::Limited),
            (500, None, "", Fate::Away),
            (501, None, "", Fate::Away),
            (502, None, "", Fate::Away),
            (503, None, "", Fate::Away),
            (504, None, "", Fate::Away),
            (599, None, "", Fate::Away),
        ] {
            assert_eq!(Fate::of(status, verdict, body.as_bytes()), expected, "{status} {verdict:?} {body}");
        }
    }

    #[test]
    fn pauses_double_to_a_bound_and_are_long_where_it_takes_an_operator() {
        let pace = Pace { first_ms: 1_000 };
        let most = u32::MAX;
        for (failures, shortest, longest) in [
            (0, 500, 1_000),
            (1, 500, 1_000),
            (2, 1_000, 2_000),
            (4, 4_000, 8_000),
            (7, 32_000, 64_000),
            (8, 32_000, 64_000),
            (u32::MAX, 32_000, 64_000),
        ] {
            assert_eq!(pace.pause(failures, &Fate::Away, None, 0), shortest);
            assert!((longest - 1..=longest).contains(&pace.pause(failures, &Fate::Limited, None, most)));
            assert_eq!(pace.pause(failures, &Fate::Refused, None, 0), shortest * Pace::SLOW);
        }
    }

    #[test]
    fn what_the_server_asks_for_is_the_least_and_bounded() {
        let pace = Pace { first_ms: 1_000 };
        assert_eq!(pace.pause(1, &Fate::Away, Some(30), 0), 30_000);
        assert_eq!(pace.pause(1, &Fate::Away, Some(0), 0), 500);
        assert_eq!(pace.pause(7, &Fate::Away, Some(3), 0), 32_000);
        assert_eq!(pace.pause(1, &Fate::Limited, Some(u64::MAX), 0), Pace::LONGEST_ASKED * 1000);
    }

    #[test]
    fn lanes_keep_the_order_within_a_source() {
        let waiting = [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5), ("a", 6)];
        assert_eq!(lanes(waiting), [("a", vec![1, 3, 6]), ("b", vec![2, 5]), ("c", vec![4])]);
    }

    proptest! {
        #[test]
        fn a_pause_is_never_nothing_and_never_for_ever(first_ms: u64, failures: u32, asked: Option<u64>, random: u32) {
            for fate in [Fate::Away, Fate::Limited, Fate::Unfit, Fate::Refused] {
                let pace = Pace { first_ms: first_ms % 3_600_000 };
                let pause = pace.pause(failures, &fate, asked, random);
                prop_assert!(pause > 0);
                let asked = asked.unwrap_or(0).min(Pace::LONGEST_ASKED) * 1000;
                prop_assert!(pause >= asked);
                prop_assert!(pause <= (pace.first_ms.max(2) * Pace::LONGEST * Pace::SLOW).max(asked + asked / 8));
            }
        }
    }
}
