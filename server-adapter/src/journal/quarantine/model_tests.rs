//! Quarantine against a plain model: whatever is stored, refused, replayed and discarded, in any order, every event is under one outcome.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use firsthop_core::{
    Annotation, Event, Frame, FrameWriter, Header, Region, SourceId, TenantId, Timestamp, Unsigned, WorkerId,
};
use proptest::prelude::*;
use rusqlite::Connection;

use super::{CONFLICT, Judged, Note, Sentence, change, verify};
use crate::journal::{
    arrival::{Arrival, SetAside},
    counters::{At, Batch},
    model_tests::{connection, tables_of},
    store::Tables,
    writer::{is_damage, set_aside},
};

const AT: At = At { time: Timestamp::from_millis(1_700_000_000_000), region: Region::ANY, hop: WorkerId::new(0) };
const LATER: Timestamp = Timestamp::from_millis(1_700_050_000_000);

/// A frame of a source: where it begins, how many events, and what all of them say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sent {
    source: u8,
    first: u64,
    count: u16,
    content: u8,
}

#[derive(Clone, Debug)]
enum Step {
    Store(Sent),
    /// Refused for one of the reasons.
    Refuse(Sent, u8, bool),
    /// An entry, by its place, passes the checks now.
    Pass(u8),
    /// An entry is refused again, perhaps for another reason.
    Stay(u8, u8),
    /// An entry of which a part passes, as of a batch: one frame does, and another is refused.
    Part(u8, Sent, Sent),
    Discard(u8),
    /// The step before it, once more.
    Fail(Box<Step>),
    Restart,
}

fn sent() -> impl Strategy<Value = Sent> {
    (0..2_u8, 0..12_u64, 1..6_u16, 0..6_u8).prop_map(|(source, first, count, content)| Sent {
        source,
        first,
        count,
        // Mostly the same, as with retries.
        content: content.saturating_sub(4),
    })
}

fn step() -> impl Strategy<Value = Step> {
    let step = prop_oneof![
        3 => sent().prop_map(Step::Store),
        4 => (sent(), 0..4_u8, any::<bool>()).prop_map(|(sent, reason, vouched)| Step::Refuse(sent, reason, vouched)),
        3 => any::<u8>().prop_map(Step::Pass),
        1 => (any::<u8>(), 0..4_u8).prop_map(|(at, reason)| Step::Stay(at, reason)),
        1 => (any::<u8>(), sent(), sent()).prop_map(|(at, good, bad)| Step::Part(at, good, bad)),
        1 => any::<u8>().prop_map(Step::Discard),
    ]
    .boxed();
    prop_oneof![
        10 => step.clone(),
        1 => step.prop_map(|step| Step::Fail(Box::new(step))),
        1 => Just(Step::Restart),
    ]
}

/// Two that are final, and two that are damage.
fn reason(number: u8) -> &'static str {
    use firsthop_core::Error;
    [Error::WriteKey, Error::Payload, Error::Crc, Error::Signature][usize::from(number)].code()
}

impl Sent {
    fn bytes(self) -> Bytes {
        let source = SourceId::v7(AT.time, [self.source; 10]);
        let header = Header { first_seq: self.first, ..Header::new(TenantId::new(7), source, AT.time) };
        let mut buffer = vec![0; 8 * 1024];
        let mut writer = FrameWriter::new(&mut buffer[..], &header).expect("room");
        for _ in 0..self.count {
            writer.event(&Event { name: &self.content.to_string(), ..Event::default() }).expect("room");
        }
        Bytes::copy_from_slice(writer.finish(&Unsigned).expect("finished"))
    }

    fn arrival(self) -> Arrival {
        arrival(&self.bytes())
    }

    fn refused(self, reason: &'static str, vouched: bool) -> SetAside {
        SetAside {
            body: self.bytes(),
            reason: Cow::Borrowed(reason),
            events: self.count,
            vouched,
            at: AT,
            annotation: None,
            request: None,
        }
    }
}

fn arrival(body: &Bytes) -> Arrival {
    let frame = Frame::parse(body).expect("a frame");
    Arrival::new(body, &frame, true, AT, Some(&Annotation::default().into())).expect("an arrival")
}

struct Store {
    connection: Connection,
    tables: Tables,
    /// Events that came, but for those of bytes that were in quarantine already.
    came: i64,
    /// Of those that were damaged and are no longer in quarantine, since those come again.
    gone: i64,
    /// Every event that was ever let in, by its identity.
    identities: BTreeMap<(u8, u64), u8>,
}

impl Store {
    fn new(folder: &std::path::Path) -> Self {
        let connection = connection(folder);
        let tables = tables_of(&connection);
        Self { connection, tables, came: 0, gone: 0, identities: BTreeMap::new() }
    }

    /// In a transaction that perhaps fails.
    fn transact<T>(&mut self, fails: bool, work: impl FnOnce(&Connection, &mut Tables, &mut Batch) -> T) -> Option<T> {
        let mut counts = Batch::default();
        self.connection.execute_batch("BEGIN").expect("begun");
        let before = (self.tables.last_frame, self.tables.quarantine);
        let did = work(&self.connection, &mut self.tables, &mut counts);
        counts.write(&self.connection, 0).expect("counted");
        self.tables.seen.settle(&self.connection, self.tables.last_frame, 1).expect("settled");
        if fails {
            self.connection.execute_batch("ROLLBACK").expect("rolled back");
            (self.tables.last_frame, self.tables.quarantine) = before;
            self.tables.seen.undo();
            return None;
        }
        self.connection.execute_batch("COMMIT").expect("committed");
        self.tables.seen.committed();
        Some(did)
    }

    fn number(&self, sql: &str) -> i64 {
        self.connection.query_row(sql, [], |row| row.get(0)).expect(sql)
    }

    fn outcome(&self, outcome: &str) -> i64 {
        self.number(&format!("SELECT COALESCE(SUM(events), 0) FROM counters WHERE outcome = '{outcome}'"))
    }

    /// An entry by its place among all: id, reason, events, body.
    fn entry(&self, at: u8) -> Option<(i64, String, i64, Bytes)> {
        let count = self.number("SELECT COUNT(*) FROM quarantine");
        let place = i64::from(at).checked_rem(count)?;
        let sql = "SELECT id, reason, events, body FROM quarantine ORDER BY id LIMIT 1 OFFSET ?1";
        let entry = self.connection.query_row(sql, [place], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, Vec<u8>>(3)?.into()))
        });
        Some(entry.expect("there"))
    }

    fn let_in(&mut self, body: &Bytes) {
        let frame = Frame::parse(body).expect("a frame");
        let source = frame.header().source.as_bytes()[15];
        let (_, events) = frame.open().expect("opens");
        for (seq, event) in (frame.header().first_seq..).zip(events) {
            let content = event.expect("decodes").name.parse().expect("a number");
            self.identities.entry((source, seq)).or_insert(content);
        }
    }

    fn unseen(&self, body: &Bytes) -> i64 {
        let frame = Frame::parse(body).expect("a frame");
        let header = frame.header();
        let numbers = header.first_seq..header.first_seq + u64::from(header.count);
        numbers.filter(|seq| !self.identities.contains_key(&(header.source.as_bytes()[15], *seq))).count() as i64
    }

    fn step(&mut self, step: &Step, fails: bool) {
        match step {
            Step::Store(sent) => {
                let quarantined = self.outcome("quarantined");
                let arrival = sent.arrival();
                let verdict = self.transact(fails, |connection, tables, counts| {
                    tables.store(connection, &arrival, counts).expect("stored")
                });
                let Some(verdict) = verdict else { return };
                let conflicts = self.outcome("quarantined") - quarantined;
                self.came += i64::from(verdict.stored + verdict.duplicate) + conflicts;
                self.let_in(&sent.bytes());
            }
            Step::Refuse(sent, number, vouched) => {
                let entry = sent.refused(reason(*number), *vouched);
                let before = self.number("SELECT COUNT(*) FROM quarantine");
                self.transact(fails, |connection, tables, counts| {
                    set_aside(connection, tables, &entry, counts).expect("set")
                });
                if self.number("SELECT COUNT(*) FROM quarantine") > before {
                    self.came += i64::from(sent.count);
                }
            }
            Step::Pass(at) => {
                let Some((id, reason, events, body)) = self.entry(*at) else { return };
                let judged =
                    Judged { id, reason: reason.clone(), now: Sentence::Leaves(vec![arrival(&body)], Vec::new()) };
                let replayed = self.replay(&judged, fails);
                let Some(replayed) = replayed else { return };
                self.let_in(&body);
                let conflicts = self
                    .connection
                    .query_row("SELECT reason, events FROM quarantine WHERE id = ?1", [id], |row| {
                        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
                    })
                    .ok();
                assert_eq!(replayed.left, u64::from(conflicts.is_none()), "it stays only if it is a conflict");
                assert!(conflicts.as_ref().is_none_or(|(reason, _)| reason == CONFLICT), "{conflicts:?}");
                let conflicts = conflicts.map_or(0, |(_, events)| events);
                assert_eq!((replayed.stored + replayed.duplicate) as i64 + conflicts, events, "{judged:?}");
            }
            Step::Stay(at, number) => {
                let Some((id, was, ..)) = self.entry(*at) else { return };
                let now = if was == CONFLICT { CONFLICT } else { reason(*number) };
                let taken = self.number("SELECT COALESCE(SUM(taken), 0) FROM counters");
                let judged = Judged { id, reason: was.clone(), now: Sentence::Stays(reason(*number).into()) };
                if let Some(replayed) = self.replay(&judged, fails) {
                    assert_eq!((replayed.entries, replayed.left), (1, 0));
                    assert_eq!(self.number(&format!("SELECT reason = '{now}' FROM quarantine WHERE id = {id}")), 1);
                    let moved = self.number("SELECT COALESCE(SUM(taken), 0) FROM counters") - taken;
                    assert_eq!(moved == 0, was == now, "what stays as it is has not moved");
                }
            }
            Step::Part(at, good, bad) => {
                let Some((id, was, events, _)) = self.entry(*at).filter(|(_, was, ..)| was != CONFLICT) else { return };
                let now = Sentence::Leaves(vec![good.arrival()], vec![bad.refused(reason(0), true)]);
                let judged = Judged { id, reason: was, now };
                let (quarantined, others) = (self.in_quarantine(), self.outcome("stored") + self.outcome("duplicate"));
                if self.replay(&judged, fails).is_some() {
                    self.let_in(&good.bytes());
                    let now = self.outcome("stored") + self.outcome("duplicate");
                    // A batch is as many events as it turns out to have.
                    self.came += (self.in_quarantine() - quarantined) + (now - others);
                    assert!(self.in_quarantine() - quarantined >= -events);
                }
            }
            Step::Discard(at) => {
                let Some((id, reason, events, body)) = self.entry(*at) else { return };
                // What has not come again is discarded like the rest, where the numbers are sure: the CRC held.
                let lost = if reason == self::reason(3) { self.unseen(&body) } else { 0 };
                let note = Note { now: LATER, who: "me".into(), why: "a test".into() };
                let discarded = self.transact(fails, |connection, tables, counts| {
                    change::discard(connection, tables, counts, id, &note).expect("discarded")
                });
                if let Some(discarded) = discarded {
                    assert_eq!((discarded.entries, discarded.events as i64), (1, events));
                    self.gone += if is_damage(&reason) { events - lost } else { 0 };
                }
            }
            Step::Fail(step) => self.step(step, true),
            Step::Restart => self.tables = tables_of(&self.connection),
        }
    }

    fn replay(&mut self, judged: &Judged, fails: bool) -> Option<change::Replayed> {
        self.transact(fails, |connection, tables, counts| {
            change::replay(connection, tables, counts, judged, LATER).expect("replayed")
        })
    }

    fn in_quarantine(&self) -> i64 {
        self.number("SELECT COALESCE(SUM(events), 0) FROM quarantine")
    }

    fn check(&self) {
        let (_, faults) = verify(&self.connection).expect("read");
        assert_eq!(faults, Vec::<String>::new());
        let ends = ["stored", "duplicate", "quarantined", "damaged", "discarded"].map(|outcome| self.outcome(outcome));
        assert_eq!(ends.iter().sum::<i64>() + self.gone, self.came, "every event is under one outcome: {ends:?}");
        assert!(ends.iter().all(|events| *events >= 0), "{ends:?}");
        assert_eq!(self.outcome("stored"), self.identities.len() as i64, "stored once each");
        let traces = self.number("SELECT COUNT(*) FROM discards WHERE who = 'me' AND bytes > 0 AND LENGTH(hash) = 16");
        assert_eq!(traces, self.number("SELECT COUNT(*) FROM discards"));
        let ids = "SELECT COUNT(*) FROM discards WHERE id IN (SELECT id FROM quarantine)";
        assert_eq!(self.number(ids), 0, "an id is given once");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_event_has_one_outcome(steps in prop::collection::vec(step(), 1..40)) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = Store::new(folder.path());
        for step in &steps {
            store.step(step, false);
            store.check();
        }
    }
}
