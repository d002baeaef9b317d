//! Whatever is sent, in whatever order, however often, through whatever crash: acknowledged events are there, once.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use firsthop_core::Header;

use crate::common::{Client, Page, Raise, served, until};

/// A repeatable shuffle.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// The same frames five times, shuffled, over four connections at a time: each event is one row, in its source's order.
#[test]
fn five_times_shuffled_is_once() {
    let (folder, server, tenant) = served();
    let mut client = server.client();
    let mut frames = Vec::new();
    let mut sent = 0;
    for i in 0..12 {
        let mut page = Page::new(&tenant);
        // Half of them with a session, as a page has one after its first answer.
        if i % 2 == 0 {
            page.begin(&mut client);
            sent += 1;
        }
        for n in [1, 7, 40, 300, 3] {
            frames.push(page.frame(n));
            sent += n;
        }
    }
    let mut queue: Vec<&[u8]> = (0..5).flat_map(|_| frames.iter().map(Vec::as_slice)).collect();
    Random(7).shuffle(&mut queue);
    let counts = Mutex::new((0, 0, 0));
    thread::scope(|scope| {
        for part in queue.chunks(queue.len().div_ceil(4)) {
            let (server, counts) = (&server, &counts);
            scope.spawn(move || {
                let mut client = server.client();
                for frame in part {
                    let receipt = client.frame(frame).receipt();
                    let mut counts = counts.lock().unwrap();
                    counts.0 += u64::from(receipt.stored);
                    counts.1 += u64::from(receipt.duplicate);
                    counts.2 += u64::from(receipt.conflict);
                }
            });
        }
    });
    let first = 6; // Frames that brought the sessions.
    let (stored, duplicate, conflict) = *counts.lock().unwrap();
    assert_eq!((stored, duplicate, conflict), (sent - first, 4 * (sent - first), 0));
    assert_eq!(server.outcome(&tenant, "stored", ""), sent as f64);
    assert_eq!(server.outcome(&tenant, "duplicate", ""), (4 * (sent - first)) as f64);
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), sent as i64);
    assert_eq!(tenant.events("SELECT COUNT(DISTINCT event_id) FROM events"), sent as i64);
    // Each source without a gap, and each event with its own content.
    assert_eq!(tenant.events("SELECT COUNT(*) FROM (SELECT source, MAX(seq) + 1 - COUNT(*) AS gap FROM events GROUP BY source) WHERE gap <> 0"), 0);
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events WHERE properties ->> 'n' <> seq"), 0);
    assert_eq!(
        tenant.events("SELECT COUNT(*) FROM events WHERE anonymous_id = source AND trust IN ('session', 'write-key')"),
        sent as i64
    );
    folder.ok(&["verify"]);
}

/// Frames of one source that overlap in part: what is new in each is stored, and nothing twice.
#[test]
fn overlapping_frames_add_what_is_new() {
    let (folder, server, tenant) = served();
    let mut client = server.client();
    let page = Page { batch: 0, ..Page::new(&tenant) };
    // The time is part of what an event says, so these are made in one moment.
    let frames = same_moment(|| [(10, 10), (0, 5), (3, 20), (0, 40)].map(|(first, n)| page.frame_at(first, n, "x")));
    let verdicts = frames.map(|frame| {
        let receipt = client.frame(&frame).receipt();
        (receipt.stored, receipt.duplicate, receipt.conflict)
    });
    assert_eq!(verdicts, [(10, 0, 0), (5, 0, 0), (8, 12, 0), (17, 23, 0)]);
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 40);
    assert_eq!(tenant.events("SELECT COUNT(DISTINCT seq) FROM events WHERE properties ->> 'n' = seq"), 40);
    folder.ok(&["verify"]);
}

/// Makes something within one millisecond of the clock.
fn same_moment<T>(make: impl Fn() -> T) -> T {
    loop {
        let before = crate::common::now();
        let made = make();
        if crate::common::now() == before {
            return made;
        }
    }
}

/// The same identity with another content: both are kept, the second in quarantine, and it is said.
#[test]
fn another_content_is_a_conflict_and_kept() {
    let (folder, server, tenant) = served();
    let mut client = server.client();
    let page = Page::new(&tenant);
    let (first, second) = (page.frame_at(0, 3, "Product Viewed"), page.frame_at(0, 3, "Product Removed"));
    assert_eq!(client.frame(&first).receipt().stored, 3);
    for _ in 0..2 {
        assert_eq!(client.frame(&second).receipt().conflict, 3);
    }
    assert_eq!(tenant.quarantine(), [("conflict".to_owned(), 1)].into());
    assert_eq!(server.outcome(&tenant, "quarantined", "conflict"), 3.0, "the same bytes again are the same events");
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events WHERE name = 'Product Viewed'"), 3);
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 3);

    // And by another vendor's id: an event sent again may differ in its surroundings, not in what it says.
    let message = |n: u32, sent: &str| {
        format!(
            r#"{{"batch":[{{"type":"track","event":"x","messageId":"m","userId":"u","properties":{{"n":{n}}}}}],"sentAt":"{sent}"}}"#
        )
    };
    let mut send = |n, sent| client.segment("/v1/batch", &tenant.key, &message(n, sent)).verdict().to_owned();
    assert_eq!(send(1, "2026-01-01T00:00:00Z"), "stored=1, duplicate=0, conflict=0, quarantined=0");
    assert_eq!(send(1, "2026-01-01T00:00:09Z"), "stored=0, duplicate=1, conflict=0, quarantined=0");
    assert_eq!(send(2, "2026-01-01T00:00:09Z"), "stored=0, duplicate=0, conflict=1, quarantined=0");
    tenant.settle();
    assert_eq!(tenant.events("SELECT properties ->> 'n' FROM events WHERE vendor = 'segment' AND foreign_id = 'm'"), 1);
    folder.ok(&["verify"]);
}

/// One bit changed on the way, any bit: refused, counted, and no event from it.
#[test]
fn a_changed_bit_is_refused() {
    let (folder, server, tenant) = served();
    let mut client = server.client();
    let mut page = Page::new(&tenant);
    page.begin(&mut client);
    let frame = page.frame(2);
    let (mut refused, mut meant) = (0, 0);
    for bit in 0..frame.len() * 8 {
        let mut changed = frame.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let response = client.frame(&changed);
        assert!((400..500).contains(&response.status), "bit {bit}: {}", response.text());
        response.code();
        refused += 1;
        // What still says that it is a frame of this tenant's.
        meant += i64::from(Header::peek(&changed).is_ok_and(|header| header.tenant == tenant.id));
    }
    assert_eq!(server.metric("firsthop_http_requests_total{route=\"frame\",status=\"200\"}"), 1.0);
    let page_text = server.internal_get("/metrics").text();
    let counted: f64 = page_text
        .lines()
        .filter(|line| line.starts_with("firsthop_refused_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert_eq!(counted, f64::from(refused));
    let kept: i64 = tenant.quarantine().values().sum();
    assert_eq!(kept, meant, "of {refused}");
    assert!(meant > 2000);
    assert!(tenant.quarantine().contains_key("bad-crc") && tenant.quarantine().contains_key("bad-signature"));
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 1, "the one that began the session");
    assert_eq!(client.frame(&frame).receipt().stored, 2, "and the frame itself is as good as before");
    folder.ok(&["verify"]);
}

/// SIGKILL in the middle of load, four times: what was acknowledged is there, and sending everything again doubles
/// nothing.
#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    let (folder, mut server, tenant) = served();
    let mut sent: Vec<(Page, u64, Vec<u8>)> = Vec::new();
    let mut acknowledged = BTreeSet::new();
    for _ in 0..4 {
        let killed = AtomicBool::new(false);
        let round = Mutex::new((Vec::new(), BTreeSet::new()));
        let (tenant, address) = (&tenant, server.public);
        thread::scope(|scope| {
            for i in 0..8_u64 {
                let (killed, round) = (&killed, &round);
                scope.spawn(move || {
                    let (mut client, mut page) = (Client::new(address), Page::new(tenant));
                    while !killed.load(Ordering::Relaxed) {
                        let (first, n) = (page.next, 1 + i * 20);
                        let frame = page.frame(n);
                        round.lock().unwrap().0.push((page.clone(), n, frame.clone()));
                        match client.try_request("POST", "/v1/f", &[], &frame) {
                            Ok(response) => {
                                response.receipt();
                                let ids = (first..first + n).map(|seq| (page.source.to_string(), seq as i64));
                                round.lock().unwrap().1.extend(ids);
                            }
                            Err(_) => return,
                        }
                    }
                });
            }
            let _end = Raise(&killed);
            until("there is a load", || round.lock().unwrap().1.len() > 300);
            server.kill();
        });
        let (frames, ids) = round.into_inner().unwrap();
        sent.extend(frames);
        acknowledged.extend(ids);
        server = folder.serve();
        tenant.settle();
        assert_eq!(missing(tenant, &acknowledged), 0);
    }
    // Nobody knows of the frames that were under way. Their producers send them again.
    let mut client = server.client();
    for (_, n, frame) in &sent {
        let receipt = client.frame(frame).receipt();
        assert_eq!((u64::from(receipt.stored + receipt.duplicate), receipt.conflict), (*n, 0));
    }
    tenant.settle();
    let total: u64 = sent.iter().map(|(_, n, _)| n).sum();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), total as i64);
    assert_eq!(missing(&tenant, &acknowledged), 0);
    server.stop();
    folder.ok(&["verify"]);
}

/// Acknowledged events that are not in the table.
fn missing(tenant: &crate::common::Tenant, acknowledged: &BTreeSet<(String, i64)>) -> usize {
    let connection = rusqlite::Connection::open(tenant.folder.join("events.db")).expect("opens");
    let mut statement = connection.prepare("SELECT source, seq FROM events").expect("a query");
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
    let there: BTreeSet<(String, i64)> = rows.collect::<Result<_, _>>().expect("rows");
    acknowledged.difference(&there).count()
}
