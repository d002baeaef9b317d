//! A walk through one source's numbers, in their order: which are missing, what proves that, and how many of them are explained. It reads
//! nothing, and keeps no more than the first gaps.

use std::collections::BTreeMap;

use firsthop_core::{Region, SourceId, Timestamp};

/// Where something is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Hours since the Unix epoch.
    pub(crate) hour: u32,
    pub(crate) region: Region,
    pub(crate) hop: u32,
}

/// Neighbouring numbers that are missing, and where the frame was that showed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) place: Place,
}

/// What one source misses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) source: SourceId,
    pub(crate) proof: Proof,
    /// Events, without those that the source says it gave up.
    pub(crate) events: u64,
    /// Of the ranges, how many events the source says it gave up: which of them, it does not say.
    pub(crate) given_up: u64,
    /// When it was last heard of: a trusted source, by what is trusted.
    pub(crate) heard: Timestamp,
    /// The first few ranges.
    pub(crate) ranges: Vec<Range>,
    /// How many ranges there are.
    pub(crate) range_count: u64,
    /// Where `events` are counted.
    pub(crate) places: BTreeMap<Place, u64>,
}

/// How it is known that something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// A session answers for the numbers that prove the gaps.
    Session,
    /// The same; and in quarantine there are entries with the numbers that are missing, for which nobody answers.
    Doubtful,
    /// No session does.
    Anybody,
}

/// Ranges that are named of one source.
const NAMED: usize = 64;

/// One source's numbers, in their order.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// By what proves them: a session, a write key, nothing yet.
    trusted: Level,
    untrusted: Level,
    unproven: Level,
    heard_trusted: Option<Timestamp>,
    heard: Timestamp,
    /// One more than the last number that somebody has, for sure or not.
    next: u64,
    next_sure: u64,
    /// Numbers from the last sure one on that only what nobody answers for has.
    doubtful: Option<(u64, u64)>,
}

impl Walk {
    /// The next piece.
    pub(super) fn pass(&mut self, first: u64, last: u64, evidence: &Evidence) {
        let place = evidence.place;
        if let Some((from, to)) = self.doubtful.filter(|(from, _)| *from < first) {
            self.unproven.doubtful.add(Range { first: from, last: to.min(first - 1), place });
            self.doubtful = (to >= first).then_some((first, to));
        }
        if first > self.next {
            self.unproven.missing.add(Range { first: self.next, last: first - 1, place });
        }
        self.next = self.next.max(last + 1);
        if evidence.doubtful {
            let (from, to) = self.doubtful.unwrap_or((first.max(self.next_sure), last));
            self.doubtful = (from <= last.max(to)).then_some((from, last.max(to)));
            return;
        }
        self.next_sure = self.next_sure.max(last + 1);
        let next = self.next_sure;
        self.doubtful = self.doubtful.filter(|(_, to)| *to >= next).map(|(from, to)| (from.max(next), to));
        if !evidence.proves {
            return;
        }
        self.untrusted.append(std::mem::take(&mut self.unproven));
        self.heard = self.heard.max(evidence.received);
        if evidence.trusted {
            let mut untrusted = std::mem::take(&mut self.untrusted);
            // What is not signed says nothing of what lies between signed numbers.
            if self.heard_trusted.is_some() {
                untrusted.explained = 0;
            }
            self.trusted.append(untrusted);
            self.heard_trusted = self.heard_trusted.max(Some(evidence.received));
            self.trusted.explain(evidence.given_up);
        } else {
            self.untrusted.explain(evidence.given_up);
        }
    }

    /// All pieces have passed.
    pub(super) fn finish(self, source: SourceId, each: &mut impl FnMut(Missing)) {
        let Self { trusted, untrusted, heard_trusted, heard, .. } = self;
        let (mut explained, heard_trusted) = (trusted.explained, heard_trusted.unwrap_or_default());
        trusted.missing.finish(source, Proof::Session, heard_trusted, &mut explained).map(&mut *each);
        trusted.doubtful.finish(source, Proof::Doubtful, heard_trusted, &mut explained).map(&mut *each);
        let mut explained = untrusted.explained;
        // What is doubtful explains what is doubtful itself.
        untrusted.missing.finish(source, Proof::Anybody, heard, &mut explained).map(&mut *each);
    }
}

/// What a piece says of the numbers before it.
pub(super) struct Evidence {
    /// Nobody answers for it: not even its own numbers are sure.
    pub(super) doubtful: bool,
    pub(super) proves: bool,
    pub(super) trusted: bool,
    pub(super) received: Timestamp,
    pub(super) place: Place,
    /// What its frame says was given up, if this is the frame's first piece.
    pub(super) given_up: u64,
}

/// Gaps that have the same proof, and what is said of them.
#[derive(Debug, Default)]
struct Level {
    /// Nobody has them.
    missing: Gaps,
    /// Only what nobody answers for has them.
    doubtful: Gaps,
    /// How many of them the source says it gave up.
    explained: u64,
}

impl Level {
    fn append(&mut self, other: Self) {
        self.missing.append(other.missing);
        self.doubtful.append(other.doubtful);
        self.explained = self.explained.saturating_add(other.explained);
    }

    /// A frame behind all of them says that so many were given up.
    fn explain(&mut self, events: u64) {
        let all = self.missing.events.saturating_add(self.doubtful.events);
        self.explained = self.explained.saturating_add(events).min(all);
    }
}

/// Gaps that have the same kind of proof.
#[derive(Debug, Default)]
struct Gaps {
    events: u64,
    ranges: Vec<Range>,
    range_count: u64,
    places: BTreeMap<Place, u64>,
}

impl Gaps {
    fn add(&mut self, range: Range) {
        let events = range.last - range.first + 1;
        self.events = self.events.saturating_add(events);
        self.range_count += 1;
        if self.ranges.len() < NAMED {
            self.ranges.push(range);
        }
        let place = self.places.entry(range.place).or_default();
        *place = place.saturating_add(events);
    }

    fn append(&mut self, other: Self) {
        self.events = self.events.saturating_add(other.events);
        self.range_count += other.range_count;
        let room = NAMED - self.ranges.len();
        self.ranges.extend(other.ranges.into_iter().take(room));
        for (place, events) in other.places {
            let sum = self.places.entry(place).or_default();
            *sum = sum.saturating_add(events);
        }
    }

    /// What is left, of which some are explained: the earliest, as far as figures go.
    fn finish(mut self, source: SourceId, proof: Proof, heard: Timestamp, given_up: &mut u64) -> Option<Missing> {
        let explained = self.events.min(*given_up);
        *given_up -= explained;
        let mut rest = explained;
        self.places.retain(|_, events| {
            let taken = rest.min(*events);
            rest -= taken;
            *events -= taken;
            *events > 0
        });
        let Self { events, ranges, range_count, places } = self;
        let events = events - explained;
        (events > 0).then_some(Missing {
            source,
            proof,
            events,
            given_up: explained,
            heard,
            ranges,
            range_count,
            places,
        })
    }
}
