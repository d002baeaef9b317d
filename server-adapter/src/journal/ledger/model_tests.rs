//! The balance against a plain model: frames in any order, duplicates, gaps, drops, quarantine, corrections.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use firsthop_core::{
    Alg, Annotation, Epoch, Event, Flags, Frame, FrameWriter, Header, MacKey, Region, SourceId, TenantId, Timestamp,
    Unsigned, WorkerId,
};
use proptest::prelude::*;
use rusqlite::Connection;

use super::{
    balance::{Balance, Scope, State, draw},
    missing::Scan,
    walk::Missing,
};
use crate::journal::{
    arrival::{Arrival, SetAside},
    counters::{At, Batch},
    model_tests::{connection, tables_of},
    seen::Seen,
    store::Tables,
    writer::set_aside,
};

const HOUR: u64 = Epoch::MILLIS;
/// In the middle of an hour.
const NOW: u64 = 1_700_000_000_000;
const GRACE_HOURS: u64 = 2;

#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) source: u8,
    pub(super) first: u64,
    pub(super) count: u16,
    pub(super) trusted: bool,
    pub(super) dropped: u32,
    pub(super) content: u8,
    /// How many hours ago the first hop had it.
    pub(super) ago: u64,
    pub(super) hop: u8,
}

#[derive(Clone, Debug)]
enum Step {
    Store(Sent),
    /// Refused for this reason; somebody answers for it or not.
    Refuse(Sent, bool, &'static str),
    Discard(u8),
    Erase(u8),
    /// Runs settle.
    Seal,
    Restart,
    /// A transaction that fails.
    Fail(Sent),
}

fn sent() -> impl Strategy<Value = Sent> {
    let first = prop_oneof![8 => 0..40_u64, 1 => Just(1 << 40)];
    let dropped = prop_oneof![8 => Just(0_u32), 2 => 1..4_u32, 1 => Just(u32::MAX)];
    (0..3_u8, first, 1..7_u16, any::<bool>(), dropped, 0..6_u8, 0..5_u64, 0..2_u8).prop_map(
        |(source, first, count, trusted, dropped, content, ago, hop)| {
            // Mostly the same, as with retries.
            Sent { source, first, count, trusted, dropped, content: content.saturating_sub(4), ago, hop }
        },
    )
}

fn reason() -> impl Strategy<Value = &'static str> {
    prop_oneof![3 => Just("payload"), 1 => Just("bad-crc"), 1 => Just("bad-signature")]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => sent().prop_map(Step::Store),
        3 => (sent(), any::<bool>(), reason()).prop_map(|(sent, vouched, reason)| Step::Refuse(sent, vouched, reason)),
        1 => (1..4_u8).prop_map(Step::Discard),
        1 => (1..4_u8).prop_map(Step::Erase),
        1 => Just(Step::Seal),
        1 => Just(Step::Restart),
        1 => sent().prop_map(Step::Fail),
    ]
}

impl Sent {
    pub(super) fn bytes(&self) -> Bytes {
        let source = SourceId::v7(Timestamp::from_millis(NOW), [self.source; 10]);
        let mut header = Header::new(TenantId::new(7), source, Timestamp::from_millis(NOW));
        (header.first_seq, header.dropped) = (self.first, self.dropped);
        if self.trusted {
            (header.flags, header.alg) = (Flags::TRUST, Alg::HmacSha256Trunc128);
        }
        let mut buffer = vec![0; 16 * 1024];
        let mut writer = FrameWriter::new(&mut buffer[..], &header).expect("room");
        for _ in 0..self.count {
            writer.event(&Event { name: &self.content.to_string(), ..Event::default() }).expect("room");
        }
        let frame = match self.trusted {
            true => writer.finish(&MacKey::new(header.alg, &[9; 32]).expect("a MAC")),
            false => writer.finish(&Unsigned),
        };
        Bytes::copy_from_slice(frame.expect("finished"))
    }

    pub(super) fn at(&self) -> At {
        let time = Timestamp::from_millis(NOW - self.ago * HOUR);
        At { time, region: Region::ANY, hop: WorkerId::new(self.hop.into()) }
    }

    fn numbers(&self) -> std::ops::Range<u64> {
        self.first..self.first + u64::from(self.count)
    }
}

pub(super) struct Store {
    pub(super) connection: Connection,
    pub(super) tables: Tables,
}

impl Store {
    pub(super) fn new(folder: &std::path::Path) -> Self {
        let connection = connection(folder);
        let tables = tables_of(&connection);
        Self { connection, tables }
    }

    pub(super) fn transact(&mut self, fails: bool, work: impl FnOnce(&Connection, &mut Tables, &mut Batch)) {
        let mut counts = Batch::default();
        self.connection.execute_batch("BEGIN").expect("begun");
        let before = (self.tables.last_frame, self.tables.quarantine);
        work(&self.connection, &mut self.tables, &mut counts);
        counts.write(&self.connection, 0).expect("counted");
        self.tables.seen.settle(&self.connection, self.tables.last_frame, 1).expect("settled");
        if fails {
            self.connection.execute_batch("ROLLBACK").expect("rolled back");
            (self.tables.last_frame, self.tables.quarantine) = before;
            self.tables.seen.undo();
        } else {
            self.connection.execute_batch("COMMIT").expect("committed");
            self.tables.seen.committed();
        }
    }

    pub(super) fn store(&mut self, sent: &Sent, fails: bool) {
        let body = sent.bytes();
        let frame = Frame::parse(&body).expect("a frame");
        let arrival =
            Arrival::new(&body, &frame, false, sent.at(), Some(&Annotation::default().into())).expect("an arrival");
        self.transact(fails, |connection, tables, counts| {
            tables.store(connection, &arrival, counts).expect("stored");
        });
    }

    pub(super) fn refuse(&mut self, sent: &Sent, vouched: bool, reason: &'static str) {
        let entry = SetAside {
            body: sent.bytes(),
            reason: reason.into(),
            events: sent.count,
            vouched,
            at: sent.at(),
            annotation: None,
            request: None,
        };
        self.transact(false, |connection, tables, counts| {
            set_aside(connection, tables, &entry, counts).expect("set aside");
        });
    }

    pub(super) fn balance(&self, scope: &Scope) -> Balance {
        self.connection.execute_batch("BEGIN").expect("begun");
        let balance = draw(&self.connection, scope).expect("drawn");
        self.connection.execute_batch("COMMIT").expect("ended");
        balance
    }

    /// The scan in slices of one row.
    fn slices(&self) -> (Vec<Missing>, u64) {
        let mut scan = Scan::begin(&self.connection).expect("begun");
        let mut found = Vec::new();
        while !scan.step(&self.connection, 1, |missing| found.push(missing)).expect("a step") {}
        (found, scan.noted)
    }
}

/// What is true.
#[derive(Default)]
struct Model {
    /// What was stored, and what it says.
    seen: BTreeMap<(u8, u64), u8>,
    claimed: BTreeSet<(u8, u64)>,
    /// Claimed by what nobody answers for.
    doubtful: BTreeSet<(u8, u64)>,
    bodies: BTreeSet<Bytes>,
    sources: BTreeMap<u8, Source>,
    counts: BTreeMap<&'static str, i64>,
}

/// What is known of a source besides.
#[derive(Default)]
struct Source {
    /// One more than the highest number that a session, or anybody, answers for; and when that was heard of last.
    trusted: (u64, u64),
    anybody: (u64, u64),
    /// Where what a frame or a claim proves begins, whether a session answers for it, and what it says was given up before.
    proofs: Vec<(u64, bool, u64)>,
}

impl Model {
    fn count(&mut self, outcome: &'static str, events: i64) {
        *self.counts.entry(outcome).or_default() += events;
    }

    fn prove(&mut self, sent: &Sent, last: u64, trusted: bool) {
        let source = self.sources.entry(sent.source).or_default();
        let time = NOW - sent.ago * HOUR;
        for (end, heard) in [Some(&mut source.anybody), trusted.then_some(&mut source.trusted)].into_iter().flatten() {
            (*end, *heard) = ((*end).max(last + 1), (*heard).max(time));
        }
    }

    fn store(&mut self, sent: &Sent) {
        let mut new = Vec::new();
        let mut conflicts = 0;
        for number in sent.numbers() {
            match self.seen.get(&(sent.source, number)) {
                None => new.push(number),
                Some(content) if *content == sent.content => self.count("duplicate", 1),
                Some(_) => conflicts += 1,
            }
        }
        if conflicts > 0 && self.bodies.insert(sent.bytes()) {
            self.count("quarantined", conflicts);
        }
        let Some(last) = new.last() else { return };
        self.prove(sent, *last, sent.trusted);
        self.count("stored", new.len() as i64);
        let dropped = if sent.trusted { sent.dropped } else { sent.dropped.min(4096) };
        self.count("dropped", dropped.into());
        self.sources.entry(sent.source).or_default().proofs.push((new[0], sent.trusted, dropped.into()));
        self.seen.extend(new.into_iter().map(|number| ((sent.source, number), sent.content)));
    }

    fn refuse(&mut self, sent: &Sent, vouched: bool, reason: &str) {
        if !self.bodies.insert(sent.bytes()) {
            return;
        }
        self.count(if reason == "payload" { "quarantined" } else { "damaged" }, sent.count.into());
        if reason == "bad-crc" {
            return;
        }
        let claims = if vouched { &mut self.claimed } else { &mut self.doubtful };
        claims.extend(sent.numbers().map(|number| (sent.source, number)));
        if vouched && sent.trusted {
            self.prove(sent, sent.numbers().end - 1, true);
            self.sources.entry(sent.source).or_default().proofs.push((sent.first, true, 0));
        }
    }

    fn correct(&mut self, from: &'static str, to: &'static str, events: u8) -> i64 {
        let events = i64::from(events).min(self.counts.get(from).copied().unwrap_or_default());
        self.count(from, -events);
        self.count(to, events);
        events
    }

    /// Events that are missing, by state, that no drop explains.
    fn missing(&self) -> BTreeMap<State, u64> {
        let mut missing = BTreeMap::new();
        for (id, source) in &self.sources {
            let count = |set: &std::ops::Range<u64>, known: BTreeSet<&(u8, u64)>| {
                known.iter().filter(|(other, number)| other == id && set.contains(number)).count() as u64
            };
            let sure = || self.seen.keys().chain(&self.claimed);
            let gaps = |set: std::ops::Range<u64>| set.end.saturating_sub(set.start) - count(&set, sure().collect());
            // Of those, that are in doubt.
            let doubtful = |set: std::ops::Range<u64>| {
                let sure: BTreeSet<_> = sure().collect();
                count(&set, self.doubtful.iter().filter(|number| !sure.contains(number)).collect())
            };
            let end = source.trusted.0;
            let mut proofs = source.proofs.clone();
            proofs.sort_unstable();
            let signed = proofs.iter().find(|(_, trusted, _)| *trusted).map_or(0, |(first, ..)| *first);
            let (mut explained, mut unsigned) = (0, 0);
            for (first, trusted, dropped) in proofs {
                if trusted || first <= signed {
                    explained = gaps(0..first).min(explained + dropped);
                }
                if !trusted && first >= end {
                    unsigned = gaps(end..first).min(unsigned + dropped);
                }
            }
            let doubts = doubtful(0..end);
            let lost = gaps(0..end) - doubts;
            let unexplained = lost.saturating_sub(explained);
            let doubts = doubts - (explained - (lost - unexplained));
            let late = NOW - source.trusted.1 >= GRACE_HOURS * HOUR;
            let mut add = |state, events| *missing.entry(state).or_default() += events;
            add(if late { State::Unaccounted } else { State::InFlight }, unexplained);
            add(if late { State::Doubtful } else { State::InFlight }, doubts);
            let rest = end..source.anybody.0.max(end);
            add(State::Untrusted, (gaps(rest.clone()) - doubtful(rest)).saturating_sub(unsigned));
        }
        missing.retain(|_, events| *events > 0);
        missing
    }
}

pub(super) fn scope(hours: bool) -> Scope {
    let grace = std::time::Duration::from_millis(GRACE_HOURS * HOUR);
    Scope { grace, hours, ..Scope::at(Timestamp::from_millis(NOW)) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_balance_always_closes(steps in prop::collection::vec(step(), 1..40)) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = Store::new(folder.path());
        let mut model = Model::default();
        let correction = At { time: Timestamp::from_millis(NOW), region: Region::ANY, hop: WorkerId::new(0) };
        for step in &steps {
            match step {
                Step::Store(sent) => { store.store(sent, false); model.store(sent); }
                Step::Refuse(sent, vouched, reason) => {
                    store.refuse(sent, *vouched, reason);
                    model.refuse(sent, *vouched, reason);
                }
                Step::Discard(most) => {
                    let events = model.correct("quarantined", "discarded", *most);
                    store.transact(false, |_, _, counts| {
                        counts.correct(correction, ("quarantined", "payload".into()), ("discarded", "".into()), events);
                    });
                }
                Step::Erase(most) => {
                    let events = model.correct("stored", "erased", *most);
                    store.transact(false, |_, _, counts| {
                        counts.correct(correction, ("stored", "".into()), ("erased", "".into()), events);
                    });
                }
                Step::Seal => store.tables.seen.seal(),
                Step::Restart => store.tables.seen = Seen::load(&store.connection).expect("read"),
                Step::Fail(sent) => store.store(sent, true),
            }
        }
        let balance = store.balance(&scope(false));
        prop_assert_eq!(&balance.faults, &Vec::<String>::new());

        let told: BTreeMap<_, _> = balance.gaps.iter().map(|(state, gaps)| (*state, gaps.events)).collect();
        let missing = model.missing();
        prop_assert_eq!(&told, &missing, "{:?}", balance.gaps);
        let total = &balance.total;
        let of = |state| missing.get(&state).copied().unwrap_or_default();
        prop_assert_eq!((total.in_flight, total.unaccounted, total.doubtful, total.untrusted),
            (of(State::InFlight), of(State::Unaccounted), of(State::Doubtful), of(State::Untrusted)));
        prop_assert_eq!(balance.holds(), of(State::Unaccounted) + of(State::Doubtful) == 0);
        for outcome in ["stored", "duplicate", "dropped", "discarded", "erased", "damaged"] {
            prop_assert_eq!(total.outcome(outcome), model.counts.get(outcome).copied().unwrap_or_default(), "{}", outcome);
        }
        prop_assert_eq!(total.all_quarantined(), model.counts.get("quarantined").copied().unwrap_or_default());
        // Every number that was given, and every event that came without one of its own, has one outcome.
        let dropped = model.counts.get("dropped").copied().unwrap_or_default();
        let refused = ["quarantined", "discarded"].map(|outcome| model.counts.get(outcome).copied().unwrap_or_default());
        let lost = of(State::InFlight) + of(State::Unaccounted);
        prop_assert_eq!(total.issued(), model.seen.len() as i64 + dropped + refused.iter().sum::<i64>() + lost as i64);

        // However it is cut up, it is the same.
        let hours = store.balance(&scope(true));
        prop_assert_eq!(&hours.total, &balance.total);
        for balance in [&balance, &hours] {
            let sum = |figure: fn(&super::Figures) -> i64| balance.lines.values().map(figure).sum::<i64>();
            prop_assert_eq!(sum(super::Figures::issued), total.issued());
            prop_assert_eq!(sum(|line| (line.untrusted + line.doubtful) as i64), (total.untrusted + total.doubtful) as i64);
        }
        let (slices, noted) = store.slices();
        prop_assert_eq!(noted, model.seen.len() as u64);
        prop_assert_eq!(slices.iter().map(|missing| missing.events).sum::<u64>(), missing.values().sum::<u64>());
        // What is named is what is missing.
        for gap in balance.gaps.values().flat_map(|gaps| &gaps.named).filter(|gap| gap.last - gap.first < 1000) {
            for number in gap.first..=gap.last {
                let id = gap.source.as_bytes()[15];
                prop_assert!(!model.seen.contains_key(&(id, number)) && !model.claimed.contains(&(id, number)));
            }
        }
    }
}
