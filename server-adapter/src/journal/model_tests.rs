//! The tables against a plain model: any frames, in any order, any number of times.

use std::collections::BTreeMap;

use bytes::Bytes;
use firsthop_core::{
    Annotation, Event, ForeignId, Frame, FrameWriter, Header, Region, SourceId, TenantId, Timestamp, Unsigned, Vendor,
    WorkerId,
};
use firsthop_intake::RegionSecrets;
use proptest::prelude::*;
use rusqlite::Connection;

use super::{
    arrival::{Arrival, Verdict},
    counters::{At, Batch},
    ledger::Chain,
    memory::Memory,
    quarantine::Quarantine,
    queue::{Journal, JournalStatus, Unavailable, Waited},
    schema,
    seen::Seen,
    store::{Accepted, READS, Tables},
    tombstone,
};
use crate::Settings;
use crate::journal::Seals;

const TENANT: TenantId = TenantId::new(7);
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const AT: At = At { time: NOW, region: Region::ANY, hop: WorkerId::new(0) };

/// One frame: its source, where it begins, and each of its events.
#[derive(Clone, Debug)]
struct Sent {
    source: u8,
    first: u64,
    events: Vec<Said>,
}

/// One event: what it says, and another vendor's id if it has one.
#[derive(Clone, Copy, Debug)]
struct Said {
    content: u8,
    foreign: Option<u8>,
}

fn source(i: u8) -> SourceId {
    SourceId::v7(NOW, [i; 10])
}

/// Few sources, few ids, few numbers, few contents: so that everything meets everything.
fn sent() -> impl Strategy<Value = Sent> {
    let said = (0..8_u8, prop::option::weighted(0.15, 0..6_u8)).prop_map(|(content, foreign)| Said {
        // Mostly the same, as with retries.
        content: content.saturating_sub(6),
        foreign,
    });
    (0..3_u8, prop_oneof![0..60_u64, Just(1 << 40)], prop::collection::vec(said, 1..25))
        .prop_map(|(source, first, events)| Sent { source, first, events })
}

impl Sent {
    fn bytes(&self) -> Vec<u8> {
        let header = Header { first_seq: self.first, ..Header::new(TENANT, source(self.source), NOW) };
        let mut buffer = vec![0; 128 * 1024];
        let mut writer = FrameWriter::new(&mut buffer[..], &header).expect("room");
        for said in &self.events {
            let id = said.foreign.map(|i| i.to_string());
            let id = id.as_deref().map(|id| ForeignId { vendor: Vendor::Segment, id });
            let name = said.content.to_string();
            writer.event(&Event { name: &name, id, ..Event::default() }).expect("room");
        }
        writer.finish(&Unsigned).expect("finished").to_vec()
    }

    /// Identity and content of each event.
    fn identities(&self) -> impl Iterator<Item = ((Option<u8>, u8, u64), u8)> {
        self.events.iter().zip(self.first..).map(|(said, seq)| match said.foreign {
            Some(id) => ((Some(id), 0, 0), said.content),
            None => ((None, self.source, seq), said.content),
        })
    }
}

/// The connection of a model's store.
pub(super) fn connection(folder: &std::path::Path) -> Connection {
    let connection = schema::open_writer(&folder.join("journal.db")).expect("opens");
    // A model of thousands of commits needs no disk.
    connection.pragma_update(None, "synchronous", "OFF").expect("set");
    connection
}

/// What a start finds there.
pub(super) fn tables_of(connection: &Connection) -> Tables {
    Tables {
        seen: Seen::load(connection).expect("read"),
        quarantine: Quarantine::load(connection, 1 << 30).expect("there"),
        last_frame: connection
            .query_row("SELECT COALESCE(MAX(id), 0) FROM frames", [], |row| row.get(0))
            .expect("read"),
        overflow: 0,
        chain: Chain::load(connection).expect("read"),
        seals: Seals::default(),
    }
}

struct Store {
    connection: Connection,
    tables: Tables,
}

impl Store {
    fn new(folder: &std::path::Path) -> Self {
        let connection = connection(folder);
        let tables = tables_of(&connection);
        Self { connection, tables }
    }

    /// What a restart finds.
    fn restart(&mut self) {
        self.tables.seen = Seen::load(&self.connection).expect("read");
    }

    /// What retention does, to all that is there.
    fn remove_bodies(&mut self) {
        self.tables.seen.settle_all(&self.connection).expect("settled");
        let ids: Vec<i64> = (1..=self.tables.last_frame).collect();
        tombstone::remove(&self.connection, &ids, &RegionSecrets::default()).expect("removed");
        assert_eq!(self.number("SELECT COUNT(*) FROM frames WHERE LENGTH(body) > 0"), 0);
    }

    fn store(&mut self, sent: &Sent) -> Verdict {
        self.store_or(sent, false)
    }

    /// Stores it in a transaction that perhaps fails.
    fn store_or(&mut self, sent: &Sent, fails: bool) -> Verdict {
        let body = Bytes::from(sent.bytes());
        let frame = Frame::parse(&body).expect("a frame");
        let annotation = Annotation::default();
        let arrival = Arrival::new(&body, &frame, true, AT, Some(&annotation.into())).expect("an arrival");
        let mut counts = Batch::default();
        self.connection.execute_batch("BEGIN").expect("begun");
        let before = (self.tables.last_frame, self.tables.quarantine);
        let verdict = self.tables.store(&self.connection, &arrival, &mut counts).expect("stored");
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
        verdict
    }

    fn number(&self, sql: &str) -> i64 {
        self.connection.query_row(sql, [], |row| row.get(0)).expect(sql)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Every event is stored exactly once, with the content that came first; the same content again is a duplicate,
    /// another one a conflict. It makes no difference what memory knows, what has settled, what failed in between, whether the
    /// bodies are still there, or when a server started.
    #[test]
    fn any_order_any_repetition(frames in prop::collection::vec((sent(), 0..8_u8), 1..40)) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = Store::new(folder.path());
        let mut model: BTreeMap<(Option<u8>, u8, u64), u8> = BTreeMap::new();
        let mut total = Verdict::default();
        for (sent, first) in &frames {
            match first {
                0 => store.tables.seen.forget_ends(),
                1 => store.restart(),
                2 | 3 => store.tables.seen.seal(),
                4 => drop(store.store_or(sent, true)),
                5 => store.remove_bodies(),
                _ => {}
            }
            let mut expected = Verdict::default();
            for (identity, content) in sent.identities() {
                match model.get(&identity) {
                    None => {
                        model.insert(identity, content);
                        expected.stored += 1;
                    }
                    Some(known) if *known == content => expected.duplicate += 1,
                    Some(_) => expected.conflict += 1,
                }
            }
            prop_assert_eq!(store.store(sent), expected, "{:?}", sent);
            // And the same bytes again bring nothing.
            let again = store.store(sent);
            prop_assert_eq!((again.stored, again.conflict), (0, expected.conflict), "{:?}", sent);
            total.stored += expected.stored;
        }
        prop_assert_eq!(model.len(), total.stored as usize);
        store.tables.seen.settle_all(&store.connection).expect("settled");
        prop_assert_eq!(store.number("SELECT SUM(last - first + 1) FROM seen"), model.len() as i64);
        prop_assert_eq!(store.number("SELECT SUM(events) FROM counters WHERE outcome = 'stored'"), model.len() as i64);
        prop_assert_eq!(
            store.number(
                "SELECT COUNT(*) FROM seen a JOIN seen b ON a.source = b.source AND a.first < b.first AND b.first <= a.last"
            ),
            0
        );
        prop_assert_eq!(accepted(&store.connection), model.len() as u32);
    }
}

/// Events that the rows say they brought.
fn accepted(connection: &Connection) -> u32 {
    let mut statement = connection.prepare("SELECT count, accepted FROM frames").expect("a query");
    let rows = statement.query_map([], |row| {
        let bits: Option<Vec<u8>> = row.get(1)?;
        Ok(Accepted::from_column(bits.as_deref()).count(row.get(0)?))
    });
    rows.expect("rows").map(|count| count.expect("a row")).sum()
}

fn send(journal: &Journal, arrival: Arrival) -> super::queue::Sent {
    journal.send_frame(arrival, &Memory::new(1 << 20).hold()).expect("memory")
}

/// A defect that ends the writer: whoever waits is told, at once, and so is who comes after; and it can be closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_panics_leaves_nobody_waiting() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal =
        Journal::open(TENANT, folder.path().join("journal.db"), &Settings::default(), Seals::default()).expect("opens");
    let arrival = |content| {
        let body = Bytes::from(Sent { source: 0, first: 0, events: vec![Said { content, foreign: None }] }.bytes());
        let frame = Frame::parse(&body).expect("a frame");
        Arrival::new(&body, &frame, true, AT, Some(&Annotation::default().into())).expect("an arrival")
    };
    let begun = std::time::Instant::now();
    assert_eq!(journal.answer(send(&journal, arrival(0))).await.map(|verdict| verdict.stored), Ok(1));
    let follower = journal.follower();
    let follows = std::thread::spawn(move || follower.wait_beyond(1, None, || false));
    // It is to be compared with what is stored, and its frame stands where no bytes are.
    let mut broken = arrival(1);
    broken.frame = broken.body.len() + 1..broken.body.len() + 2;
    let sent: Vec<_> = [broken, arrival(0), arrival(0)].into_iter().map(|arrival| send(&journal, arrival)).collect();
    for sent in sent {
        assert_eq!(journal.answer(sent).await, Err(Unavailable::Down));
    }
    assert_eq!(follows.join().expect("ended"), Waited::Closed);
    assert_eq!(journal.status(), JournalStatus::Down);
    assert_eq!(journal.answer(send(&journal, arrival(0))).await, Err(Unavailable::Down));
    journal.close();
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// A row that the tables do not take, in a group with others: those are stored all the same, and what the failed
/// transaction put into the memory is not believed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_cannot_be_stored_spoils_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal.db");
    let journal = Journal::open(TENANT, path.clone(), &Settings::default(), Seals::default()).expect("opens");
    let memory = Memory::new(1 << 20);
    let arrival = |first| {
        let body = Bytes::from(Sent { source: 0, first, events: vec![Said { content: 0, foreign: None }] }.bytes());
        let frame = Frame::parse(&body).expect("a frame");
        Arrival::new(&body, &frame, true, AT, Some(&Annotation::default().into())).expect("an arrival")
    };
    let other = Connection::open(&path).expect("opens");
    other
        .execute_batch(
            "CREATE TRIGGER poison BEFORE INSERT ON frames WHEN new.first_seq = 13 BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
        .expect("made");
    // Sent at once, so that some share a transaction with it.
    let sent: Vec<_> = (0..30).map(|first| send(&journal, arrival(first))).collect();
    for (first, sent) in sent.into_iter().enumerate() {
        let expected = if first == 13 { Err(Unavailable::Down) } else { Ok(1) };
        assert_eq!(journal.answer(sent).await.map(|verdict| verdict.stored), expected, "{first}");
    }
    assert_eq!(journal.status(), JournalStatus::Up, "the disk is well");
    other.execute_batch("DROP TRIGGER poison").expect("dropped");
    for first in 0..30 {
        let verdict = journal.store(arrival(first), memory.hold()).await.expect("stored");
        let new = u32::from(first == 13);
        assert_eq!(verdict, Verdict { stored: new, duplicate: 1 - new, ..Verdict::default() }, "{first}");
    }
    tokio::task::spawn_blocking(move || journal.close()).await.expect("closed");
    let total: i64 = other
        .query_row("SELECT SUM(events) FROM counters WHERE outcome = 'stored'", [], |row| row.get(0))
        .expect("there");
    assert_eq!(total, 30);
}

/// One frame that meets thousands of runs is decided in time, and exactly.
#[test]
fn many_runs_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = Store::new(folder.path());
    let one = |seq| Sent { source: 0, first: seq, events: vec![Said { content: 0, foreign: None }] };
    for seq in (0..4000).step_by(2) {
        assert_eq!(store.store(&one(seq)).stored, 1);
    }
    store.tables.seen.settle_all(&store.connection).expect("settled");
    let all = Sent { source: 0, first: 0, events: vec![Said { content: 0, foreign: None }; 4000] };
    let began = std::time::Instant::now();
    assert_eq!(store.store(&all), Verdict { stored: 2000, duplicate: 2000, ..Verdict::default() });
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
}

/// A long frame between whose events those of a thousand others stand is read once for all its runs, not once for each.
#[test]
fn a_long_frame_with_many_runs_is_read_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = Store::new(folder.path());
    let said = |content| Said { content, foreign: None };
    for seq in (0..4000).step_by(2) {
        assert_eq!(store.store(&Sent { source: 0, first: seq, events: vec![said(0)] }).stored, 1);
    }
    let long = |content| Sent { source: 0, first: 0, events: vec![said(content); 4000] };
    assert_eq!(store.store(&long(0)).stored, 2000);
    store.tables.seen.settle_all(&store.connection).expect("settled");
    let before = READS.get();
    // As its retry has them, and as nothing has them; with one more, so that they are other bytes and are compared one by one.
    for (content, expected) in [
        (0, Verdict { stored: 1, duplicate: 4000, ..Verdict::default() }),
        (1, Verdict { duplicate: 1, conflict: 4000, ..Verdict::default() }),
    ] {
        let mut sent = long(content);
        sent.events.push(said(9));
        assert_eq!(store.store(&sent), expected);
    }
    // The 2000 of one event, the long one; and the second time the one that brought the last event.
    assert_eq!(READS.get() - before, 2001 + 2002);
    // As are those whose neighbours are known by another vendor's id.
    let mixed = |content| {
        let events = (0..3000_u32).map(|i| Said { content, foreign: (i % 2 == 1).then_some((i % 200) as u8) });
        Sent { source: 1, first: 0, events: events.collect() }
    };
    assert_eq!(store.store(&mixed(0)), Verdict { stored: 1600, duplicate: 1400, ..Verdict::default() });
    let before = READS.get();
    assert_eq!(store.store(&mixed(1)), Verdict { conflict: 3000, ..Verdict::default() });
    assert_eq!(READS.get() - before, 1);
}
