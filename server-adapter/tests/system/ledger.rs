//! Closed hours of a running server, checked with the public key alone; and what is missing, as metrics.

use std::fs;

use rusqlite::Connection;

use crate::common::{Folder, Page, served, until};

#[test]
fn closed_hours_are_checked_by_somebody_who_has_only_the_public_key() {
    let (folder, mut server, tenant) = served();
    let mut page = Page::new(&tenant);
    page.begin(&mut server.client());
    let frame = page.frame(20);
    server.client().frame(&frame).receipt();
    assert!(folder.ok(&["verify", "--ledger"]).contains("no hour is closed yet"));
    server.stop();
    // As if that had been three hours ago.
    let journal = tenant.folder.join("journal.db");
    Connection::open(&journal).expect("opens").execute("UPDATE counters SET hour = hour - 3", []).expect("moved");
    let mut server = folder.serve();
    until("an hour is closed", || tenant.journal("SELECT COUNT(*) FROM ledger") == 1);
    let id = format!("{{tenant=\"{}\"}}", tenant.id);
    until("and told", || server.metric(&format!("firsthop_ledger_closed_timestamp_seconds{id}")) > 0.0);
    // What comes now is counted in an hour that is open.
    let frame = page.frame(5);
    server.client().frame(&frame).receipt();
    let key = folder.ok(&["key", "ledger"]).trim().to_owned();
    let file = fs::read_to_string(tenant.folder.join("keys.toml")).expect("read");
    assert!(key.len() == 64 && file.contains("ledger = \"") && !file.contains(&key), "the secret half is not shown");
    let said = folder.ok(&["verify", "--ledger"]);
    assert!(said.contains("1 closed hours") && said.contains("the chain is whole"), "{said}");
    server.stop();
    assert!(folder.ok(&["verify"]).contains("all of it is as it was written"));

    // Elsewhere, with a copy of the journal and the key.
    let auditor = Folder::new();
    fs::create_dir_all(&auditor.path).expect("made");
    let copy = auditor.path.join("copy.db");
    fs::copy(&journal, &copy).expect("copied");
    let copied = copy.to_str().expect("text");
    let check = ["verify", "--ledger", "--journal", copied, "--public-key", &key];
    let said = auditor.ok(&check);
    assert!(said.contains(&format!("closed hours of tenant {}", tenant.id)), "{said}");
    let head =
        said.split("the last entry is ").nth(1).and_then(|rest| rest.split(':').next()).expect("a head").to_owned();
    auditor.ok(&[&check[..], &["--known", &head]].concat());
    // Read as it was signed, by other tools.
    let body =
        Connection::open(&copy).expect("opens").query_row("SELECT body FROM ledger", [], |row| row.get::<_, String>(0));
    assert!(body.expect("text").contains("\n-- 0 stored - 21 0 2\n"));

    Connection::open(&copy).expect("opens").execute("UPDATE counters SET events = events + 1", []).expect("changed");
    let said = auditor.fails(&check);
    assert!(said.contains("are not those that were signed") && said.contains("1 faults"), "{said}");
    let zeros = "0".repeat(64);
    assert!(auditor.fails(&[&check[..], &["--known", &zeros]].concat()).contains("is not there"));
    let other = auditor.tenant("other", &[]);
    let its = auditor.ok(&["key", "ledger"]);
    let said = auditor.fails(&["verify", "--ledger", "--journal", copied, "--public-key", its.trim()]);
    assert!(said.contains("the key has not signed this text"), "{said}");
    assert!(auditor.fails(&["verify", "--ledger", "--journal", copied, "--public-key", "x"]).contains("64 hex digits"));
    assert!(!other.folder.join("journal.db").exists());
    assert!(auditor.ok(&["verify", "--ledger"]).contains("no journal yet"));
}

#[test]
fn what_is_missing_is_a_metric() {
    let folder = Folder::new();
    let server = folder.serve_with(&["--ledger-interval", "10ms", "--ledger-grace", "8s"]);
    let tenant = folder.only_tenant();
    let id = format!("{{tenant=\"{}\"}}", tenant.id);
    let figure = |name: &str| server.metric(&format!("firsthop_ledger_{name}{id}"));
    until("a first look", || figure("checked_timestamp_seconds") > 0.0);
    let mut client = server.client();
    let mut page = Page::new(&tenant);
    page.begin(&mut client);
    let late = page.frame(7);
    let frame = page.frame(1);
    client.frame(&frame).receipt();
    client.frame(&Page::new(&tenant).frame_at(9, 1, "x")).receipt();
    until("in flight", || figure("in_flight_events") == 7.0);
    assert_eq!((figure("unaccounted_events"), figure("untrusted_events")), (0.0, 9.0));
    until("unaccounted for", || figure("unaccounted_events") == 7.0);
    client.frame(&late).receipt();
    until("all there", || figure("unaccounted_events") == 0.0 && figure("in_flight_events") == 0.0);
    assert_eq!(figure("untrusted_events"), 9.0);
}

/// A frame that was acknowledged and is damaged on disk: it is told, what follows it is delivered, and so is it once it can be read.
#[test]
fn what_sinks_went_past_is_told_and_delivered_after_the_repair() {
    let (folder, mut server, tenant) = served();
    let mut page = Page::new(&tenant);
    let mut client = server.client();
    page.begin(&mut client);
    for events in [3, 2] {
        assert_eq!(u64::from(client.frame(&page.frame(events)).receipt().stored), events);
    }
    tenant.settle();
    server.stop();
    let journal = || rusqlite::Connection::open(tenant.folder.join("journal.db")).expect("opens");
    let put = |body: &[u8]| {
        journal().execute("UPDATE frames SET body = ?1 WHERE id = 2", [body]).expect("put");
    };
    let whole: Vec<u8> =
        journal().query_row("SELECT body FROM frames WHERE id = 2", [], |row| row.get(0)).expect("there");
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    put(&damaged);
    std::fs::remove_file(tenant.folder.join("events.db")).expect("removed");

    let mut server = folder.serve();
    let rows = || tenant.events("SELECT COUNT(*) FROM events");
    until("what can be read is there", || tenant.folder.join("events.db").exists() && rows() == 1 + 2);
    let unreadable = format!("firsthop_sink_unreadable_total{{tenant=\"{}\",sink=\"events\"}}", tenant.id);
    assert_eq!(server.metric(&unreadable), 1.0);
    assert!(folder.fails(&["verify"]).contains("frame 2"));
    server.stop();
    put(&whole);
    let mut server = folder.serve();
    folder.ok(&["replay", "--sink", "events", "--from", "2"]);
    until("it is delivered", || rows() == 1 + 3 + 2);
    server.stop();
    folder.ok(&["verify"]);
}
