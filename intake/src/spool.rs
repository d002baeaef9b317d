//! What an edge's spool decides, free of I/O: what an answer says of a frame, whose fault a failure is, and when to try again.
//!
//! The spool keeps envelopes while the server is away and hands them over in order per source. What it keeps them in, and the
//! clock by which it wakes up, are the edge's.

use firsthop_core::Header;

use crate::{Problem, Receipt, Refusal, Verdict};

/// What an answer to an envelope says of what is inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The server has it.
    Stored(Receipt),
    /// The server has looked at it and set it aside: to send it again is of no use.
    SetAside,
    /// The server has looked at it and will not have it, and has no room to set it aside: nothing of it is kept.
    NotKept,
    /// The tenant sends more than it may. The server is there; the frame has to wait.
    Limited,
    /// The server is away, or in trouble: it says nothing of the frame.
    Away,
    /// Somebody will not have these very bytes, and has not set them aside: too large for a proxy, damaged on the way, or for quarantine, which
    /// is full. They must be kept; others may well get through.
    Unfit,
    /// Somebody between here and the server will not have it, and does not say whether it is these bytes (a firewall's rule) or anything of
    /// this edge's (a wrong address). It must be kept; what becomes of others tells.
    Barred,
    /// The server will have nothing of this edge's or this tenant's, by its own word: an enrolment that ended, a root that is gone. It may take
    /// an operator, so to ask often is of no use; and nothing was set aside, so it must be kept.
    Refused,
}

/// What is in an envelope: what its receipt has to be of.
#[derive(Clone, Copy, Debug)]
pub enum Inside<'a> {
    /// A producer's frame. Its receipt names it and accounts for every event.
    Frame(&'a Header),
    /// What a hop has refused, as so many events by its own word. It is none, so its receipt has none.
    Refused(u16),
}

impl Inside<'_> {
    /// How many events it is by its own word.
    #[must_use]
    pub const fn count(self) -> u16 {
        match self {
            Self::Frame(header) => header.count,
            Self::Refused(count) => count,
        }
    }

    fn is_in(self, receipt: &Receipt) -> bool {
        let Receipt { count, stored, duplicate, conflict, spooled, suppressed, .. } = *receipt;
        let known = [stored, duplicate, conflict, suppressed].into_iter().map(u64::from).sum::<u64>();
        // A server has no spool.
        if spooled > 0 || known != u64::from(count) {
            return false;
        }
        match self {
            Self::Frame(header) => {
                let expected = (header.source, header.batch_seq, header.first_seq, u32::from(header.count));
                (receipt.source, receipt.batch, receipt.first, count) == expected
            }
            Self::Refused(_) => count == 0,
        }
    }
}

impl Fate {
    /// Reads an answer to an envelope with this inside: its status, its header [`Verdict::HEADER`] and its body.
    ///
    /// A refusal is the server's verdict on the frame only if it says in its receipt what became of it. Any other is of the envelope, or of
    /// somebody between here and the server; to take it for a verdict would throw away what was never looked at. What answers 2xx without this
    /// very frame's receipt has not answered: nothing is known to be stored.
    #[must_use]
    pub fn of(status: u16, verdict: Option<&str>, body: &[u8], inside: Inside<'_>) -> Self {
        let verdict = || verdict.and_then(|verdict| Verdict::from_header(verdict).ok());
        match status {
            200..=299 => match Receipt::from_json(body) {
                Ok(receipt) if inside.is_in(&receipt) => Self::Stored(receipt),
                _ => Self::Away,
            },
            400..=499 | 501 if verdict().is_some_and(|verdict| verdict.quarantined > 0) => Self::SetAside,
            400..=499 | 501 if verdict().is_some_and(|verdict| verdict == Verdict::default()) => Self::NotKept,
            429 => Self::Limited,
            503 if Problem::code_in(body).as_deref() == Some(Refusal::QuarantineFull.code()) => Self::Unfit,
            408 | 425 | 500.. => Self::Away,
            400 | 409 | 411..=415 | 422 | 431 => Self::Unfit,
            _ if Problem::code_in(body).is_some() => Self::Refused,
            _ => Self::Barred,
        }
    }

    /// Whether it says something of this frame and nothing of others.
    const fn is_of_the_frame(&self) -> bool {
        matches!(self, Self::Unfit | Self::NotKept)
    }

    /// Whether it takes somebody to look into it.
    const fn takes_an_operator(&self) -> bool {
        matches!(self, Self::Barred | Self::Refused)
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
    use firsthop_core::{SourceId, Timestamp};
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header { count: 2, ..Header::new(Default::default(), SourceId::default(), Timestamp::default()) }
    }

    fn receipt() -> Receipt {
        Receipt::stored(&header())
    }

    #[test]
    fn what_an_answer_says_of_a_frame() {
        let good = receipt().to_json();
        let aside = Some("stored=0, duplicate=0, conflict=0, quarantined=1");
        let nothing = Some("stored=0, duplicate=0, conflict=0, quarantined=0");
        let problem = |refusal| Problem::new(refusal).to_json();
        let (full, unavailable) = (problem(Refusal::QuarantineFull), problem(Refusal::Unavailable));
        let (enrolment, elsewhere) = (problem(Refusal::Enrolment), problem(Refusal::NotFound));
        for (status, verdict, body, expected) in [
            (200, None, good.as_str(), Fate::Stored(receipt())),
            (200, None, "", Fate::Away),
            (204, None, "", Fate::Away),
            (200, None, "<html>welcome", Fate::Away),
            (400, aside, "", Fate::SetAside),
            (401, aside, "", Fate::SetAside),
            (413, aside, "", Fate::SetAside),
            (501, aside, "", Fate::SetAside),
            (400, nothing, "", Fate::NotKept),
            (401, nothing, &enrolment, Fate::NotKept),
            (501, nothing, "", Fate::NotKept),
            // Of a server in trouble, no word counts for a verdict.
            (500, aside, "", Fate::Away),
            (503, aside, "", Fate::Away),
            (503, nothing, "", Fate::Away),
            // Its own word for trouble with this one.
            (503, None, &full, Fate::Unfit),
            (503, None, &unavailable, Fate::Away),
            (500, None, &full, Fate::Away),
            (400, Some("quarantined"), "", Fate::Unfit),
            (400, None, "", Fate::Unfit),
            (415, None, "", Fate::Unfit),
            (422, None, "", Fate::Unfit),
            (413, None, "<html>too large", Fate::Unfit),
            // The server's word, and somebody's on the way.
            (401, None, &enrolment, Fate::Refused),
            (404, None, &elsewhere, Fate::Refused),
            (401, None, "", Fate::Barred),
            (403, None, "<html>blocked", Fate::Barred),
            (404, None, r#"{"type":"about:blank","code":"not-found"}"#, Fate::Barred),
            // One that only a newer server knows.
            (418, None, r#"{"type":"https://firsthop.dev/problems/made-up"}"#, Fate::Refused),
            (301, None, "", Fate::Barred),
            // What `redirect: manual` gives.
            (0, None, "", Fate::Barred),
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
            let fate = Fate::of(status, verdict, body.as_bytes(), Inside::Frame(&header()));
            assert_eq!(fate, expected, "{status} {verdict:?} {body}");
        }
    }

    #[test]
    fn a_receipt_is_of_this_very_frame() {
        let none = Receipt { count: 0, stored: 0, ..receipt() };
        for (what, receipt, of_frame, of_refused) in [
            ("its own", receipt(), true, false),
            ("duplicates", Receipt::duplicate(&header()), true, false),
            ("all kinds", Receipt { stored: 1, suppressed: 1, ..receipt() }, true, false),
            ("another source's", Receipt { source: SourceId::new([1; 16]), ..receipt() }, false, false),
            ("another batch's", Receipt { batch: 1, ..receipt() }, false, false),
            ("of other events", Receipt { first: 1, ..receipt() }, false, false),
            ("of fewer events", Receipt { count: 1, stored: 1, ..receipt() }, false, false),
            ("of none", none.clone(), false, true),
            ("of none, though some were stored", Receipt { count: 0, ..receipt() }, false, false),
            ("with one unaccounted for", Receipt { stored: 1, ..receipt() }, false, false),
            ("with one too many", Receipt { conflict: 1, ..receipt() }, false, false),
            ("that overflows", Receipt { stored: 3, duplicate: u32::MAX, ..receipt() }, false, false),
            ("of a hop that has it in a spool", Receipt::spooled(&header()), false, false),
            ("of another source's refusal", Receipt { source: SourceId::new([1; 16]), ..none }, false, true),
        ] {
            let is =
                |inside| Fate::of(200, None, receipt.to_json().as_bytes(), inside) == Fate::Stored(receipt.clone());
            assert_eq!((is(Inside::Frame(&header())), is(Inside::Refused(2))), (of_frame, of_refused), "{what}");
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
