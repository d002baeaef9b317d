//! Quarantine is emptied by hand: what was wrong is put right and replayed, or it is discarded. Nothing is counted twice or lost.

use std::{process::Stdio, time::Duration};

use firsthop_core::{Annotation, Trust};
use serde_json::Value as Json;

use crate::{
    common::{Folder, Page, Server, Tenant, firsthop, now, served, until},
    edges::{Edge, envelope},
};

/// A key of the tenant's form that is not one of its keys yet.
fn other_key(tenant: &Tenant) -> String {
    format!("fh_{}_another0123456789abcdef", tenant.id)
}

/// Changes a tenant's file.
fn edit(tenant: &Tenant, change: impl Fn(&str) -> String) {
    let path = tenant.folder.join("tenant.toml");
    let text = std::fs::read_to_string(&path).expect("there");
    let changed = change(&text);
    assert_ne!(text, changed, "nothing to change");
    std::fs::write(path, changed).expect("written");
}

fn allow(tenant: &Tenant, key: &str) {
    edit(tenant, |text| text.replace(&format!("\"{}\"", tenant.key), &format!("\"{}\", \"{key}\"", tenant.key)));
}

/// The entries, as `list --json` says.
fn list(folder: &Folder, more: &[&str]) -> Vec<Json> {
    let said = folder.ok(&[&["quarantine", "list", "--json"], more].concat());
    said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn replay(folder: &Folder, more: &[&str]) -> Json {
    let said = folder.ok(&[&["quarantine", "replay", "--json"], more].concat());
    let json: Json = serde_json::from_str(&said).expect("JSON");
    json["replayed"].clone()
}

/// Every event that came is under one outcome, and `firsthop verify` finds the tables as the counters say.
fn balance(folder: &Folder, tenant: &Tenant, outcomes: &[(&str, i64)]) {
    for (outcome, events) in outcomes {
        let sql = format!("SELECT COALESCE(SUM(events), 0) FROM counters WHERE outcome = '{outcome}'");
        assert_eq!(tenant.journal(&sql), *events, "{outcome}");
    }
    assert!(folder.ok(&["verify"]).contains("all of it is as it was written"));
    // Nothing is missing once the time is over in which it could still come.
    folder.ok(&["reconcile", "--tenant", &tenant.id.to_string(), "--grace", "0s"]);
}

/// A frame and a call whose key is not known, and a call that is no call.
fn refused(server: &Server, tenant: &Tenant) -> Vec<u8> {
    let mut page = Page::new(tenant);
    page.key = other_key(tenant);
    let frame = page.frame(3);
    let mut client = server.client();
    assert_eq!(client.frame(&frame).code(), "wrong-write-key");
    let call = r#"{"event":"Signed Up","messageId":"m-1","userId":"u"}"#;
    assert_eq!(client.segment("/v1/track", &page.key, call).status, 401);
    let batch = r#"{"batch":[{"type":"track","event":"Good","messageId":"m-2","userId":"u"},{"type":"dance"}]}"#;
    assert_eq!(
        client.segment("/v1/batch", &tenant.key, batch).verdict(),
        "stored=1, duplicate=0, conflict=0, quarantined=1"
    );
    frame
}

#[test]
fn a_key_that_was_missing_is_added_and_the_events_are_stored_once() {
    let (folder, mut server, tenant) = served();
    let frame = refused(&server, &tenant);
    let entries = list(&folder, &[]);
    assert_eq!(entries.len(), 3, "{entries:?}");
    let id = entries[0]["id"].to_string();
    let shown = folder.ok(&["quarantine", "show", &id]);
    assert!(
        shown.contains("would be refused again") && shown.contains("event 2") && shown.contains("write_key"),
        "{shown}"
    );
    assert!(folder.fails(&["quarantine", "replay"]).contains("which entries?"));

    // Nothing is right yet: everything stays, and is counted as before.
    let said = replay(&folder, &["--all"]);
    assert_eq!((said["entries"].as_u64(), said["left"].as_u64()), (Some(3), Some(0)), "{said}");
    balance(&folder, &tenant, &[("quarantined", 5), ("stored", 1)]);

    allow(&tenant, &other_key(&tenant));
    assert!(folder.ok(&["quarantine", "show", &id]).contains("passes the checks now"));
    let said = folder.ok(&["quarantine", "replay", "--all", "--dry-run"]);
    assert!(said.contains("Of 3 entries, 2 would pass"), "{said}");
    assert_eq!(list(&folder, &[]).len(), 3, "nothing has changed");
    let said = replay(&folder, &["--all"]);
    assert_eq!((said["left"].as_u64(), said["stored"].as_u64()), (Some(2), Some(4)), "{said}");
    assert_eq!(said["stay"], serde_json::json!({ "malformed-json": 1 }), "{said}");
    balance(&folder, &tenant, &[("quarantined", 1), ("stored", 5), ("duplicate", 0)]);
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events WHERE trust = 'write-key'"), 5);

    // A page that did not hear of it sends the frame again; and so does one more replay.
    let mut again = server.client().frame(&frame);
    // The server looks at the files every second; a replay does at once.
    until("the key is known", || {
        again = server.client().frame(&frame);
        again.status != 401
    });
    assert_eq!(again.receipt().duplicate, 3);
    folder.ok(&["quarantine", "discard", "--yes", "--reason", "wrong-write-key"]);
    assert_eq!(replay(&folder, &["--all"])["left"], 0);
    assert_eq!(server.outcome(&tenant, "stored", ""), 5.0);
    server.stop();
    assert_eq!(tenant.quarantine(), [("malformed-json".to_owned(), 1)].into());
    balance(&folder, &tenant, &[("quarantined", 1), ("stored", 5), ("duplicate", 3)]);
}

/// A message that is refused alone is as much its sender's as one among others: who has shown a key for it answers for it.
#[test]
fn who_shows_a_key_answers_for_what_is_refused() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--origin", "https://shop.example"]);
    let server = folder.serve();
    let mut client = server.client();
    // No `event`, and with a stranger's key; with the tenant's and cut off, so that nothing of it could be counted.
    let wrong = r#"{"type":"track","userId":"u"}"#;
    assert_eq!(client.segment("/v1/track", &tenant.key, wrong).code(), "malformed-json");
    assert_eq!(client.segment("/v1/track", &other_key(&tenant), &wrong.replace('u', "v")).code(), "wrong-write-key");
    assert_eq!(client.segment("/v1/track", &tenant.key, &wrong[1..]).code(), "malformed-json");
    let vouched: Vec<_> = list(&folder, &[]).iter().map(|entry| entry["vouched"].clone()).collect();
    assert_eq!(vouched, [true, false, false]);
    assert!(folder.ok(&["quarantine", "list", "--reason", "too-deep"]).contains("nothing in quarantine matches"));
}

#[test]
fn without_a_server_the_command_does_the_same() {
    let (folder, mut server, tenant) = served();
    let frame = refused(&server, &tenant);
    // Killed, so that the command finds what a crash leaves.
    server.kill();
    allow(&tenant, &other_key(&tenant));
    let said = replay(&folder, &["--reason", "wrong-write-key"]);
    assert_eq!((said["left"].as_u64(), said["stored"].as_u64()), (Some(2), Some(4)), "{said}");
    let id = list(&folder, &[])[0]["id"].to_string();
    let said = folder.ok(&["quarantine", "discard", &id, "--why", "a test", "--yes"]);
    assert!(said.contains("1 entries are discarded: 1 events"), "{said}");
    balance(&folder, &tenant, &[("quarantined", 0), ("discarded", 1), ("stored", 5)]);
    let server = folder.serve();
    assert_eq!(server.client().frame(&frame).receipt().duplicate, 3);
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 5);
}

#[test]
fn an_origin_that_was_not_allowed_is_allowed() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--origin", "https://shop.example"]);
    let server = folder.serve();
    let frames: Vec<_> = (0..2).map(|_| Page::new(&tenant).frame(2)).collect();
    for (origin, frame) in ["https://new.example", "https://evil.example"].iter().zip(&frames) {
        let answer = server.client().request("POST", "/v1/f", &[("Origin", origin)], frame);
        assert_eq!(answer.code(), "wrong-origin");
    }
    edit(&tenant, |text| text.replace("\"https://shop.example\"", "\"https://shop.example\", \"https://new.example\""));
    let said = replay(&folder, &["--all"]);
    assert_eq!((said["left"].as_u64(), said["stored"].as_u64()), (Some(1), Some(2)), "{said}");
    assert_eq!(said["stay"], serde_json::json!({ "wrong-origin": 1 }));
    let entries = list(&folder, &[]);
    assert!(folder.ok(&["quarantine", "show", &entries[0]["id"].to_string()]).contains("origin https://evil.example"));
    balance(&folder, &tenant, &[("quarantined", 2), ("stored", 2)]);
}

#[test]
fn a_conflict_stays_one_until_it_is_discarded() {
    let (folder, server, tenant) = served();
    let page = Page::new(&tenant);
    let mut client = server.client();
    client.frame(&page.frame_at(0, 3, "Product Viewed"));
    // One event is new, two contradict.
    assert_eq!(client.frame(&page.frame_at(1, 3, "Product Bought")).receipt().conflict, 2);
    balance(&folder, &tenant, &[("quarantined", 2), ("stored", 4)]);
    let entry = &list(&folder, &[])[0];
    let id = entry["id"].to_string();
    let said = folder.ok(&["quarantine", "replay", &id]);
    assert!(said.contains("1 stay: conflict") && said.contains("does not choose between them"), "{said}");
    assert_eq!(list(&folder, &[])[0]["id"], entry["id"], "it is the same entry still");
    balance(&folder, &tenant, &[("quarantined", 2), ("stored", 4), ("duplicate", 0)]);
    assert!(folder.ok(&["quarantine", "show", &id]).contains("discard this one if that one is right"));

    // A terminal would be asked; here is nobody to ask.
    assert!(folder.fails(&["quarantine", "discard", &id]).contains("say --yes"));
    assert!(folder.ok(&["quarantine", "discard", &id, "--dry-run"]).contains("Would throw away 1 entries"));
    folder.ok(&["quarantine", "discard", "--all", "--yes", "--why", "the first is right"]);
    balance(&folder, &tenant, &[("quarantined", 0), ("discarded", 2), ("stored", 4)]);
    assert_eq!(
        tenant.journal("SELECT COUNT(*) FROM discards WHERE why = 'the first is right' AND events = 2 AND bytes > 0"),
        1
    );
    assert_eq!(server.metric(&format!("firsthop_quarantine_bytes{{tenant=\"{}\"}}", tenant.id)), 0.0);
    assert!(folder.fails(&["quarantine", "show", &id]).contains("no entry"));
    assert!(folder.fails(&["quarantine", "discard", &id, "--yes"]).contains("no entry"));
}

#[test]
fn what_is_wrong_and_where_is_told() {
    let (folder, server, tenant) = served();
    let mut damaged = Page::new(&tenant).frame(3);
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    assert_eq!(server.client().frame(&damaged).code(), "bad-crc");
    let long = [&Page::new(&tenant).frame(1)[..], b"\x1b[31mred"].concat();
    assert_eq!(server.client().frame(&long).code(), "trailing-bytes");
    let entries = list(&folder, &["--reason", "bad-crc"]);
    let shown = folder.ok(&["quarantine", "show", &entries[0]["id"].to_string()]);
    assert!(shown.contains("fault at byte 80") && shown.contains("the bytes have"), "{shown}");
    let entries = list(&folder, &["--reason", "trailing-bytes"]);
    let id = entries[0]["id"].to_string();
    let shown = folder.ok(&["quarantine", "show", &id]);
    assert!(shown.contains(&format!("fault at byte {}", long.len() - 8)), "{shown}");
    assert!(!shown.contains('\u{1b}'), "a terminal is not steered from outside");
    let json: Json = serde_json::from_str(&folder.ok(&["quarantine", "show", &id, "--json"])).expect("JSON");
    assert_eq!(
        (json["decoded"]["kind"].as_str(), json["entry"]["id"].as_i64()),
        (Some("frame"), entries[0]["id"].as_i64())
    );
    assert_eq!(folder.ok(&["quarantine", "show", &id, "--hex"]).matches("\n0000").count(), long.len().div_ceil(16));

    assert_eq!(list(&folder, &["--from", "1h"]).len(), 2);
    assert_eq!(list(&folder, &["--to", "1h"]).len(), 0);
    assert_eq!(list(&folder, &["--limit", "1"]).len(), 1);
    let text = folder.ok(&["quarantine", "list"]);
    assert!(text.contains("bad-crc") && text.contains("bytes are used; these settings allow 256MiB"), "{text}");
}

#[test]
fn what_an_edge_refused_is_replayed_too() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--region", "EU"]);
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    let server = folder.serve();
    let mut edge = Edge::new(&server, &token);
    let mut page = Page::new(&tenant);
    page.key = other_key(&tenant);
    let (sealed, session) = edge.forward(&page.frame(2));
    assert!(session.is_none(), "the edge does not know the key either");
    assert_eq!(envelope(&mut server.client(), &sealed).status, 200);
    // A message of a call whose key the edge had checked: it comes without one.
    let annotation = Annotation {
        received_ms: now().as_millis(),
        pop: "ZRH",
        trust: Trust::WriteKey,
        refused: "malformed-json",
        ..Annotation::default()
    };
    let batch = br#"{"batch":[{"type":"track","event":"Late","userId":"u","messageId":"m"}]}"#;
    assert_eq!(envelope(&mut server.client(), &edge.seal(&annotation, batch, 1)).status, 200);
    assert_eq!(list(&folder, &[]).len(), 2);
    let said = replay(&folder, &["--reason", "wrong-write-key"]);
    assert_eq!((said["entries"].as_u64(), said["left"].as_u64()), (Some(1), Some(0)), "{said}");

    allow(&tenant, &page.key);
    let said = replay(&folder, &["--all"]);
    assert_eq!((said["left"].as_u64(), said["stored"].as_u64()), (Some(2), Some(3)), "{said}");
    balance(&folder, &tenant, &[("quarantined", 0), ("stored", 3)]);
    assert_eq!(tenant.journal("SELECT SUM(events) FROM counters WHERE outcome = 'stored' AND hop = 1"), 2);
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events WHERE pop = 'ZRH' AND trust = 'write-key'"), 3);
}

#[test]
fn a_full_quarantine_is_seen_and_room_can_be_made() {
    let folder = Folder::new();
    let server = folder.serve_with(&["--quarantine", "2KiB"]);
    let tenant = folder.only_tenant();
    let mut client = server.client();
    let bad = |client: &mut crate::common::Client, i: usize| {
        let batch = format!(r#"{{"batch":[{{"type":"dance","number":{i},"pad":"{}"}}]}}"#, "x".repeat(200));
        client.segment("/v1/batch", &tenant.key, &batch).status
    };
    let answers: Vec<u16> = (0..10).map(|i| bad(&mut client, i)).collect();
    assert_eq!((answers[0], answers[9]), (200, 503), "{answers:?}");
    let full = format!("firsthop_quarantine_full{{tenant=\"{}\"}}", tenant.id);
    assert_eq!(server.metric(&full), 2.0);
    let ready = server.internal_get("/readyz");
    assert_eq!(ready.status, 200, "the others are served");
    assert_eq!(ready.json()["trouble"][0]["reason"], "quarantine-full", "{}", ready.text());
    server.says("firsthop quarantine list");
    let hints = server.log().lines().filter(|line| line.contains("firsthop quarantine list")).count();
    assert_eq!(hints, 1, "once a minute: {}", server.log());
    folder.ok(&["quarantine", "discard", "--all", "--yes", "--why", "a test"]);
    assert_eq!(bad(&mut client, 11), 200);
    assert_eq!(server.metric(&full), 0.0);
    assert_eq!(server.internal_get("/readyz").json()["trouble"], Json::Null);
}

/// An edge has a spool, so it has to know whether the server is away or has no room for this one.
#[test]
fn an_edge_is_told_what_there_is_no_room_for() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--region", "EU"]);
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    let server = folder.serve_with(&["--quarantine", "16KiB"]);
    let mut client = server.client();
    let mut edge = Edge::new(&server, &token);
    let noted = |trust, refused| Annotation { received_ms: now().as_millis(), trust, refused, ..Annotation::default() };
    let mut page = Page::new(&tenant);
    let mut broken = page.frame(1);
    broken[100] ^= 1;
    let mut of_the_edge = |edge: &mut Edge, i: usize| {
        let body = format!(r#"{{"batch":[{{"type":"dance","number":{i},"pad":"{}"}}]}}"#, "x".repeat(200));
        envelope(&mut client, &edge.seal(&noted(Trust::WriteKey, "malformed-json"), body.as_bytes(), 1))
    };
    let full = (0..20).map(|i| of_the_edge(&mut edge, i)).find(|answer| answer.status != 200).expect("it is full");
    assert_eq!((full.status, full.code().as_str(), full.header("retry-after")), (503, "quarantine-full", "60"));
    // What the server refuses itself, it refuses all the same; and says that it is not kept.
    let damaged = edge.seal(&noted(Trust::Unchecked, ""), &broken, 1);
    let refused = envelope(&mut server.client(), &damaged);
    assert_eq!((refused.status, refused.code().as_str()), (400, "bad-crc"));
    assert!(refused.verdict().contains("quarantined=0"), "{refused:?}");
    // What is well is stored.
    let (sealed, _) = edge.forward(&page.frame(1));
    assert_eq!(envelope(&mut server.client(), &sealed).receipt().stored, 1);
    folder.ok(&["quarantine", "discard", "--all", "--yes", "--why", "a test"]);
    assert_eq!(of_the_edge(&mut edge, 99).status, 200);
    assert!(envelope(&mut server.client(), &damaged).verdict().contains("quarantined=1"));
}

/// The server is killed in the middle of replays and discards, time and again: what was done is done whole, and the rest is there.
#[test]
fn a_kill_in_the_middle_leaves_every_event_somewhere() {
    const FRAMES: u64 = 1500;
    let (folder, mut server, tenant) = served();
    let key = other_key(&tenant);
    let mut client = server.client();
    let frames: Vec<Vec<u8>> = (0..FRAMES)
        .map(|_| {
            let mut page = Page::new(&tenant);
            page.key = key.clone();
            page.frame(3)
        })
        .collect();
    for frame in &frames {
        assert_eq!(client.frame(frame).status, 401);
    }
    allow(&tenant, &key);
    let total = FRAMES as i64 * 3;
    let mut kills = 0;
    loop {
        let mut command = firsthop(&folder.path);
        command.args(["quarantine", "replay", "--all"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut replay = command.spawn().expect("runs");
        std::thread::sleep(Duration::from_millis(15 + 10 * (kills % 4)));
        server.kill();
        // It is told that the server is gone, or goes on without it: the folder is free.
        replay.wait().expect("ended");
        kills += 1;
        server = folder.serve();
        let sum = |outcome: &str| {
            tenant.journal(&format!("SELECT COALESCE(SUM(events), 0) FROM counters WHERE outcome = '{outcome}'"))
        };
        assert_eq!(sum("stored") + sum("quarantined"), total, "after {kills} kills");
        if sum("quarantined") == 0 || kills == 20 {
            break;
        }
    }
    folder.ok(&["quarantine", "replay", "--all"]);
    balance(&folder, &tenant, &[("stored", total), ("quarantined", 0), ("duplicate", 0)]);
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(DISTINCT event_id) FROM events"), total);
    for frame in frames.iter().step_by(100) {
        assert_eq!(server.client().frame(frame).receipt().duplicate, 3);
    }
}
