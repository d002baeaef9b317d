//! Whose fault a failure is, and when to try again.

use super::Fate;

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
        let slow = if fate.takes_an_operator() { Self::SLOW } else { 1 };
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

/// What one round of attempts has met with, and what follows from it.
///
/// One answer does not tell whether it is the frame or the server. Others do: a frame that fails where others get through has a strike, and
/// from then on says nothing of the server. What has none is tried first, so that no number of frames that will not pass keeps the others from
/// being tried.
#[derive(Clone, Debug, Default)]
pub struct Round {
    asked: u32,
    passed: u32,
    /// Failures since something got through.
    in_a_row: u32,
    /// Of those that say something of the server.
    failed: Vec<(Fate, Option<u64>)>,
    /// Some that have strikes failed, or by the word of somebody who has something against single frames.
    has_suspects: bool,
}

/// What becomes of a frame that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    /// Its strikes from now on.
    pub strikes: u32,
    /// How long it is held back, in milliseconds.
    pub after_ms: u64,
}

/// What a round says of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It is there, or nothing new is known.
    Same,
    /// Whoever has something against single frames is there.
    There,
    /// To try again has to wait, for what the most hopeful of the answers says, and as long as was asked for.
    Failed(Fate, Option<u64>),
}

impl Round {
    /// Most requests in one round. A platform has a bound for what one wake-up may ask for, and counts them all: Cloudflare's free plan 50.
    pub const MOST: u32 = 40;
    /// So many failures in a row end a round in which nothing got through; twice as many one in which something did.
    pub const DOUBT: u32 = 6;

    /// Whether to go on.
    #[must_use]
    pub const fn goes_on(&self) -> bool {
        self.asked < Self::MOST && !self.is_hopeless()
    }

    const fn is_hopeless(&self) -> bool {
        self.in_a_row >= if self.passed == 0 { Self::DOUBT } else { 2 * Self::DOUBT }
    }

    /// One more request goes out.
    pub const fn ask(&mut self) {
        self.asked += 1;
    }

    /// A frame is through.
    pub const fn pass(&mut self) {
        self.passed += 1;
        self.in_a_row = 0;
    }

    /// A frame with so many strikes has failed. The pause that it was [asked](Pace::LONGEST_ASKED) for, if any, in seconds.
    pub fn fail(&mut self, strikes: u32, fate: &Fate, asked: Option<u64>) {
        if fate.is_of_the_frame() {
            self.has_suspects = true;
            return;
        }
        self.in_a_row += 1;
        if strikes > 0 {
            self.has_suspects = true;
        } else {
            self.failed.push((fate.clone(), asked));
        }
    }

    /// Whether what has failed for want of the server failed by itself.
    const fn server_was_there(&self) -> bool {
        self.passed > 0 && !self.is_hopeless()
    }

    /// What becomes of a frame that has failed in this round, now that it is over.
    #[must_use]
    pub fn again(&self, strikes: u32, fate: &Fate, asked: Option<u64>, pace: Pace, random: u32) -> Again {
        // Nothing is held against it; but it waits as long as it was told, and comes after what was not tried yet.
        if strikes == 0 && !fate.is_of_the_frame() && !self.server_was_there() {
            return Again { strikes, after_ms: asked.map_or(0, |_| pace.pause(0, fate, asked, random)) };
        }
        // Whoever names a time for what cannot be done now does not mean the frame, as often as that may be: its order is kept.
        let is_asked_for = *fate == Fate::Limited || *fate == Fate::Away && asked.is_some();
        let most = if is_asked_for { strikes.max(STRIKES - 1) } else { u32::MAX };
        let strikes = strikes.saturating_add(1).min(most);
        let after_ms = match strikes.checked_sub(STRIKES) {
            // It takes somebody to look into it.
            Some(more) => pace.pause(more + 1, &Fate::Refused, asked, random),
            None => pace.pause(strikes, fate, asked, random),
        };
        Again { strikes, after_ms }
    }

    /// What follows for all.
    #[must_use]
    pub fn outlook(&self) -> Outlook {
        // The most hopeful of what was met with: somebody who is away comes back by himself.
        let weight = |fate: &Fate| match fate {
            Fate::Refused | Fate::Barred => 2,
            Fate::Limited => 1,
            _ => 0,
        };
        let worst = self.failed.iter().map(|(fate, _)| fate).min_by_key(|fate| weight(fate));
        match worst {
            _ if self.server_was_there() => Outlook::Same,
            Some(fate) => {
                // What one frame was told may be meant for that one alone.
                let asked = self.failed.iter().filter_map(|(_, asked)| *asked);
                let (_, second) = asked.fold((None, None), |(most, second), asked| {
                    (most.max(Some(asked)), second.max(most.min(Some(asked))))
                });
                Outlook::Failed(fate.clone(), second)
            }
            // Of those that fail time and again nothing follows, but there may be many.
            None if self.is_hopeless() => Outlook::Failed(Fate::Unfit, None),
            None if self.has_suspects && self.in_a_row == 0 => Outlook::There,
            None => Outlook::Same,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
            for fate in [Fate::Refused, Fate::Barred] {
                assert_eq!(pace.pause(failures, &fate, None, 0), shortest * Pace::SLOW);
            }
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

    /// What happens in a round, in its order.
    #[derive(Clone, Debug)]
    enum Met {
        Passed,
        Failed(u32, Fate, Option<u64>),
    }

    fn round(met: &[Met]) -> Round {
        let mut round = Round::default();
        for met in met {
            round.ask();
            match met {
                Met::Passed => round.pass(),
                Met::Failed(strikes, fate, asked) => round.fail(*strikes, fate, *asked),
            }
        }
        round
    }

    #[test]
    fn whose_fault_a_failure_is() {
        use Met::{Failed, Passed};
        let away = |strikes| Failed(strikes, Fate::Away, None);
        let told = |asked| Failed(0, Fate::Away, Some(asked));
        let many = |met: Met, times: u32| vec![met; times as usize];
        let failed = |fate, asked| Outlook::Failed(fate, asked);
        let rows = [
            // What happened; whether it goes on; what is known of the server; the strikes of a frame that had 0, and of one that had 3, and was refused for `Away`.
            ("nothing", vec![], true, Outlook::Same, 0, 4),
            ("one is through", vec![Passed], true, Outlook::Same, 1, 4),
            ("one fails", vec![away(0)], true, failed(Fate::Away, None), 0, 4),
            ("one of two fails", vec![away(0), Passed], true, Outlook::Same, 1, 4),
            ("the other of two", vec![Passed, away(0)], true, Outlook::Same, 1, 4),
            ("it fails again", vec![away(1)], true, Outlook::Same, 0, 4),
            ("one was told a time", vec![told(60)], true, failed(Fate::Away, None), 0, 4),
            ("two were", vec![told(60), told(30)], true, failed(Fate::Away, Some(30)), 0, 4),
            ("three were", vec![told(30), told(7), told(60)], true, failed(Fate::Away, Some(30)), 0, 4),
            ("one was, and one is through", vec![told(60), Passed], true, Outlook::Same, 1, 4),
            ("all six fail", many(away(0), Round::DOUBT), false, failed(Fate::Away, None), 0, 4),
            ("all six fail again", many(away(2), Round::DOUBT), false, failed(Fate::Unfit, None), 0, 4),
            ("six of seven", [vec![Passed], many(away(0), Round::DOUBT)].concat(), true, Outlook::Same, 1, 4),
            (
                "it goes away",
                [vec![Passed], many(away(0), 2 * Round::DOUBT)].concat(),
                false,
                failed(Fate::Away, None),
                0,
                4,
            ),
            ("its own bytes", many(Failed(0, Fate::Unfit, None), 9), true, Outlook::There, 0, 4),
            ("no room to keep it", vec![Failed(0, Fate::NotKept, None)], true, Outlook::There, 0, 4),
            (
                "the most hopeful counts",
                vec![Failed(0, Fate::Refused, None), Failed(0, Fate::Limited, None)],
                true,
                failed(Fate::Limited, None),
                0,
                4,
            ),
            ("as many as one may ask for", many(Passed, Round::MOST), false, Outlook::Same, 1, 4),
        ];
        let pace = Pace { first_ms: 1_000 };
        for (what, met, goes_on, outlook, none, three) in rows {
            let round = round(&met);
            assert_eq!((round.goes_on(), round.outlook()), (goes_on, outlook), "{what}");
            let strikes = |had| round.again(had, &Fate::Away, None, pace, 0).strikes;
            assert_eq!((strikes(0), strikes(3)), (none, three), "{what}");
        }
    }

    #[test]
    fn what_is_held_back_and_for_how_long() {
        let pace = Pace { first_ms: 1_000 };
        let (good, bad) = (round(&[Met::Passed]), round(&[Met::Failed(0, Fate::Away, None)]));
        for (round, strikes, fate, asked, expected) in [
            // The server is away: only what the frame was told.
            (&bad, 0, Fate::Away, None, (0, 0)),
            (&bad, 0, Fate::Away, Some(60), (0, 60_000)),
            (&bad, 0, Fate::Limited, Some(7), (0, 7_000)),
            (&bad, 0, Fate::Barred, None, (0, 0)),
            // By its own bytes, whatever became of others.
            (&bad, 0, Fate::Unfit, None, (1, 500)),
            (&bad, 0, Fate::NotKept, Some(60), (1, 60_000)),
            (&good, 0, Fate::Away, None, (1, 500)),
            (&good, 2, Fate::Away, None, (3, 2_000)),
            (&good, 0, Fate::Barred, None, (1, 500 * Pace::SLOW)),
            // At its last strike it lets the others go, and takes somebody to look into it.
            (&good, 7, Fate::Away, None, (8, 500 * Pace::SLOW)),
            (&good, 8, Fate::Away, None, (9, 1_000 * Pace::SLOW)),
            // Not for a time that the server named, as often as that may be.
            (&good, 7, Fate::Away, Some(60), (7, 60_000)),
            (&good, 7, Fate::Limited, None, (7, 32_000)),
            (&good, 9, Fate::Limited, None, (9, 1_000 * Pace::SLOW)),
        ] {
            let Again { strikes: then, after_ms } = round.again(strikes, &fate, asked, pace, 0);
            assert_eq!((then, after_ms), expected, "{strikes} {fate:?} {asked:?}");
        }
    }

    fn met() -> impl Strategy<Value = Met> {
        let fate = prop::sample::select(vec![
            Fate::Away,
            Fate::Limited,
            Fate::Unfit,
            Fate::NotKept,
            Fate::Barred,
            Fate::Refused,
        ]);
        prop_oneof![
            Just(Met::Passed),
            (0..STRIKES + 2, fate, any::<Option<u64>>())
                .prop_map(|(strikes, fate, asked)| Met::Failed(strikes, fate, asked)),
        ]
    }

    proptest! {
        #[test]
        fn a_pause_is_never_nothing_and_never_for_ever(first_ms: u64, failures: u32, asked: Option<u64>, random: u32) {
            for fate in [Fate::Away, Fate::Limited, Fate::Unfit, Fate::Barred, Fate::Refused] {
                let pace = Pace { first_ms: first_ms % 3_600_000 };
                let pause = pace.pause(failures, &fate, asked, random);
                prop_assert!(pause > 0);
                let asked = asked.unwrap_or(0).min(Pace::LONGEST_ASKED) * 1000;
                prop_assert!(pause >= asked);
                prop_assert!(pause <= (pace.first_ms.max(2) * Pace::LONGEST * Pace::SLOW).max(asked + asked / 8));
            }
        }

        /// Whatever comes: a round ends, strikes never fall, and what failed is tried again at once only where all of them wait.
        #[test]
        fn a_round_ends_and_nothing_is_tried_without_a_pause(met in prop::collection::vec(met(), 0..60), random: u32) {
            let mut done = Round::default();
            let mut failed = Vec::new();
            for met in met.into_iter().take_while(|_| {
                let goes_on = done.goes_on();
                done.ask();
                goes_on
            }).collect::<Vec<_>>() {
                match met {
                    Met::Passed => done.pass(),
                    Met::Failed(strikes, fate, asked) => {
                        done.fail(strikes, &fate, asked);
                        failed.push((strikes, fate, asked));
                    }
                }
            }
            let pace = Pace { first_ms: 10 };
            let all_wait = matches!(done.outlook(), Outlook::Failed(..));
            for (strikes, fate, asked) in failed {
                let again = done.again(strikes, &fate, asked, pace, random);
                prop_assert!(again.strikes >= strikes);
                prop_assert!(again.after_ms > 0 || again.strikes == 0 && all_wait);
            }
        }
    }
}
