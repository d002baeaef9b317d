//! Hours are closed by a clock that the test turns, and whatever is changed in them afterwards shows.

use std::path::Path;

use bytes::Bytes;
use firsthop_core::{
    Annotation, Epoch, Event, Frame, FrameWriter, Header, Region, RootKey, SourceId, TenantId, Timestamp, Unsigned,
    WorkerId,
};
use rusqlite::Connection;

use super::{Checked, chain::check, check_ledger};
use crate::journal::Seals;
use crate::{
    Settings,
    journal::{Arrival, At, Journal, Memory},
    tenants::SigningKey,
};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
/// The beginning of an hour.
const NOON: Timestamp = Epoch::new(472_222).start();

struct Books {
    folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    journal: Journal,
    key: SigningKey,
    next: u64,
}

impl Books {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let journal =
            Journal::open(TenantId::new(7), folder.path().join("journal.db"), &Settings::default(), Seals::default())
                .expect("opens");
        Self { folder, runtime, journal, key: SigningKey::new(RootKey::new([5; 32])), next: 0 }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("journal.db")
    }

    /// Stores so many events, which a hop had at this moment.
    fn store(&mut self, events: u64, time: Timestamp, hop: u32) {
        let source = SourceId::v7(NOON, [1; 10]);
        let header = Header { first_seq: self.next, ..Header::new(TenantId::new(7), source, NOON) };
        self.next += events;
        let mut buffer = vec![0; 16 * 1024];
        let mut writer = FrameWriter::new(&mut buffer[..], &header).expect("room");
        (0..events).for_each(|_| writer.event(&Event { name: "x", ..Event::default() }).expect("room"));
        let body = Bytes::copy_from_slice(writer.finish(&Unsigned).expect("finished"));
        let frame = Frame::parse(&body).expect("a frame");
        let at = At { time, region: Region::ANY, hop: WorkerId::new(hop) };
        let arrival = Arrival::new(&body, &frame, false, at, Some(&Annotation::default().into())).expect("an arrival");
        let sent = self.journal.send_frame(arrival, &Memory::new(1 << 20).hold()).expect("memory");
        let verdict = self.runtime.block_on(self.journal.answer(sent)).expect("stored");
        assert_eq!(u64::from(verdict.stored), events);
    }

    fn close(&self, now: Timestamp) {
        self.journal.close_hours(&self.key, now).expect("closed");
    }

    /// Hours after noon that are closed, and events that are counted in each hour.
    fn hours(&self) -> (Vec<i64>, Vec<(i64, i64)>) {
        let connection = Connection::open(self.path()).expect("opens");
        let noon = i64::from(Epoch::at(NOON).get());
        let read = |sql: &str| -> Vec<(i64, i64)> {
            let mut statement = connection.prepare(sql).expect("a query");
            let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)? - noon, row.get(1)?))).expect("rows");
            rows.collect::<Result<_, _>>().expect("rows")
        };
        let closed = read("SELECT hour, 0 FROM ledger ORDER BY entry").into_iter().map(|(hour, _)| hour).collect();
        (closed, read("SELECT hour, SUM(events) FROM counters WHERE outcome = 'stored' GROUP BY hour ORDER BY hour"))
    }

    fn check(&self, known: Option<&str>) -> Checked {
        check_ledger(&self.path(), &self.key.public(), known).expect("read")
    }
}

#[test]
fn an_hour_is_closed_once_it_is_over_and_takes_nothing_more() {
    let mut books = Books::new();
    books.store(3, NOON.offset(MINUTE), 0);
    books.store(2, NOON.offset(2 * MINUTE), 4);
    books.close(NOON.offset(HOUR + 9 * MINUTE));
    assert_eq!(books.hours().0, [0_i64; 0], "what a hop took at its end may be on its way");
    books.close(NOON.offset(HOUR + 10 * MINUTE));
    books.close(NOON.offset(HOUR + 10 * MINUTE));
    assert_eq!(books.hours(), (vec![0], vec![(0, 5)]));
    // A delayed one: its hop had it in the hour that is closed.
    books.store(4, NOON.offset(3 * MINUTE), 4);
    assert_eq!(books.hours(), (vec![0], vec![(0, 5), (1, 4)]));
    // An hour in which nothing happened has no entry.
    books.store(1, NOON.offset(3 * HOUR), 0);
    books.close(NOON.offset(5 * HOUR));
    assert_eq!(books.hours().0, [0, 1, 3]);
    let checked = books.check(None);
    assert_eq!(checked.faults, Vec::<String>::new());
    assert_eq!((checked.entries, &*checked.tenant), (3, "0000000000000007"));
    let connection = Connection::open(books.path()).expect("opens");
    let body: String =
        connection.query_row("SELECT body FROM ledger WHERE entry = 1", [], |row| row.get(0)).expect("there");
    assert!(body.ends_with("\n-- 0 stored - 3 0 1\n-- 4 stored - 2 0 1\n"), "{body}");

    // A start in between changes nothing.
    books.journal.close();
    books.journal =
        Journal::open(TenantId::new(7), books.path(), &Settings::default(), Seals::default()).expect("opens");
    books.store(1, NOON.offset(MINUTE), 0);
    assert_eq!(books.hours().1, [(0, 5), (1, 4), (3, 1), (4, 1)]);
    books.close(NOON.offset(6 * HOUR));
    assert_eq!((books.check(None).entries, books.check(None).faults), (4, Vec::new()));
    books.journal.close();
}

/// A clock that was a day ahead, and is set back: no closed hour changes, and nothing is lost.
#[test]
fn a_clock_that_goes_backwards_opens_no_closed_hour() {
    let mut books = Books::new();
    books.store(1, NOON, 0);
    let ahead = NOON.offset(24 * HOUR);
    books.store(2, ahead, 0);
    books.close(ahead.offset(2 * HOUR));
    assert_eq!(books.hours().0, [0, 24]);
    // Back at noon, and the clock of the hop as well.
    for hour in 0..3 {
        books.store(1, NOON.offset(hour * HOUR), 0);
        books.close(NOON.offset((hour + 1) * HOUR));
    }
    assert_eq!(books.hours(), (vec![0, 24], vec![(0, 1), (24, 2), (25, 3)]));
    // A day later it has caught up.
    books.store(1, NOON.offset(26 * HOUR), 0);
    books.close(NOON.offset(28 * HOUR));
    assert_eq!(books.hours(), (vec![0, 24, 25, 26], vec![(0, 1), (24, 2), (25, 3), (26, 1)]));
    assert_eq!(books.check(None).faults, Vec::<String>::new());
    books.journal.close();
}

/// A journal with hours that were never closed has them closed, however many.
#[test]
fn what_was_never_closed_is_closed_at_once() {
    let mut books = Books::new();
    for hour in 0..600 {
        books.store(1, NOON.offset(hour * HOUR), 0);
    }
    books.close(NOON.offset(700 * HOUR));
    let checked = books.check(None);
    assert_eq!((checked.entries, checked.faults), (600, Vec::new()));
    books.journal.close();
}

#[test]
fn whatever_is_changed_shows() {
    let mut books = Books::new();
    for hour in 0..5 {
        books.store(hour as u64 + 1, NOON.offset(hour * HOUR), 0);
    }
    books.close(NOON.offset(10 * HOUR));
    books.journal.close();
    let whole = books.check(None);
    assert_eq!((whole.entries, &whole.faults), (5, &Vec::new()));
    assert!(books.check(Some(&whole.head)).has_known);
    let other = SigningKey::new(RootKey::new([6; 32]));
    let by_other = |path: &Path| check_ledger(path, &other.public(), None).expect("read").faults;
    assert_eq!(by_other(&books.path()).len(), 5, "another key has signed none of it");

    let swap = "UPDATE ledger SET entry = -1 WHERE entry = 2; UPDATE ledger SET entry = 2 WHERE entry = 3;
                UPDATE ledger SET entry = 3 WHERE entry = -1;";
    for (what, sql, says) in [
        (
            "a count",
            "UPDATE counters SET events = events + 1 WHERE hour = (SELECT MIN(hour) FROM counters)",
            "not those that were signed",
        ),
        (
            "a count more",
            "INSERT INTO counters SELECT hour, 'US', hop, outcome, reason, events, taken, frames FROM counters LIMIT 1",
            "not those that were signed",
        ),
        (
            "a count less",
            "DELETE FROM counters WHERE hour = (SELECT MIN(hour) FROM counters)",
            "not those that were signed",
        ),
        (
            "its text",
            "UPDATE ledger SET body = replace(body, ' stored - 2 ', ' stored - 3 ') WHERE entry = 2",
            "not the one that its hash is of",
        ),
        (
            "its signature",
            "UPDATE ledger SET signature = (SELECT signature FROM ledger WHERE entry = 1) WHERE entry = 2",
            "has not signed",
        ),
        ("one removed", "DELETE FROM ledger WHERE entry = 3", "does not follow"),
        (
            "one removed, and its counts",
            "DELETE FROM counters WHERE hour = (SELECT hour FROM ledger WHERE entry = 3); DELETE FROM ledger WHERE entry = 3",
            "does not follow",
        ),
        (
            "the first removed, the others moved up",
            "DELETE FROM ledger WHERE entry = 1; UPDATE ledger SET entry = entry - 1",
            "in place 1",
        ),
        (
            "one inserted",
            "INSERT INTO ledger SELECT 6, hour + 9, body, hash, signature FROM ledger WHERE entry = 5",
            "in place 6",
        ),
        ("two swapped", swap, "in place 2"),
        ("the end cut off", "DELETE FROM ledger WHERE entry > 3", "cut off"),
    ] {
        let copy = books.folder.path().join("copy.db");
        std::fs::copy(books.path(), &copy).expect("copied");
        let connection = Connection::open(&copy).expect("opens");
        connection.execute_batch(sql).expect(what);
        let checked = check(&connection, &books.key.public(), Some(&whole.head)).expect("read");
        assert!(checked.faults.iter().any(|fault| fault.contains(says)), "{what}: {:?}", checked.faults);
    }
    // Who knows no entry sees it too, unless the server has closed the hours again since.
    let cut = books.folder.path().join("cut.db");
    std::fs::copy(books.path(), &cut).expect("copied");
    Connection::open(&cut).expect("opens").execute_batch("DELETE FROM ledger WHERE entry > 1").expect("cut");
    let faults = check_ledger(&cut, &books.key.public(), None).expect("read").faults;
    assert!(faults.len() == 1 && faults[0].contains("was never closed"), "{faults:?}");
    // Made anew by somebody without the key: all of it is consistent, and none of it is signed.
    let forged = books.folder.path().join("forged.db");
    std::fs::copy(books.path(), &forged).expect("copied");
    let connection = Connection::open(&forged).expect("opens");
    connection.execute_batch("UPDATE counters SET events = 1; DELETE FROM ledger;").expect("changed");
    let mut chain = super::chain::Chain::default();
    assert!(chain.close(&connection, TenantId::new(7), &other.secret(), NOON.offset(10 * HOUR)).expect("closed"));
    assert_eq!(by_other(&forged), Vec::<String>::new());
    let faults = check_ledger(&forged, &books.key.public(), None).expect("read").faults;
    assert!(faults.len() == 5 && faults.iter().all(|fault| fault.contains("has not signed")), "{faults:?}");
}
