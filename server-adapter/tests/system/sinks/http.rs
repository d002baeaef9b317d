//! Batches of CloudEvents.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value as Json;

use super::{
    certificates::{authority, certificate},
    ids, listed,
    receiver::{Receiver, Request},
    send, table_ids,
};
use crate::common::{Folder, Page, number, own_port, served, until};

const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n-----END PRIVATE KEY-----\n";
/// The public half, from RFC 9421, B.1.4.
const PUBLIC: [u8; 32] = [
    0x26, 0xb4, 0x0b, 0x8f, 0x93, 0xff, 0xf3, 0xd8, 0x97, 0x11, 0x2f, 0x7e, 0xbc, 0x58, 0x2b, 0x23, 0x2d, 0xbd, 0x72,
    0x51, 0x7d, 0x08, 0x2f, 0xe8, 0x3c, 0xfb, 0x30, 0xdd, 0xce, 0x43, 0xd1, 0xbb,
];

fn sink(receiver: &Receiver, more: &str) -> String {
    format!("kind = 'http'\nname = 'hook'\nurl = 'http://{}/in?from=firsthop'\n{more}", receiver.address)
}

#[test]
fn batches_are_cloudevents_and_signed() {
    let receiver = Receiver::start(|_| Some((202, String::new())));
    let (folder, server, tenant) = served();
    fs::write(tenant.folder.join("sign.pem"), KEY).expect("written");
    fs::write(tenant.folder.join("auth"), "Bearer me\n").expect("written");
    let signed =
        "signing_key_file = 'sign.pem'\nsigning_key_id = 'shop-1'\nauthorization_file = 'auth'\nbatch_events = 100";
    tenant.add_sink(&sink(&receiver, signed));
    send(&server, &tenant, &[3, 640]);
    let json =
        r#"{"type":"track","event":"Löschen\u0000","userId":"u","messageId":"m","properties":{"n":12345678901234567}}"#;
    server.client().segment("/v1/track", &tenant.key, json);
    until("all are there", || receiver.taken().len() == 645);
    assert_eq!(ids(&receiver.taken()), table_ids(&tenant));
    let printed = folder.ok(&["events", "--json", "-n", "1000"]);
    let printed: Vec<Json> = printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(receiver.taken(), printed, "the shape of every sink");
    for (request, _) in receiver.requests() {
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/in?from=firsthop"));
        assert_eq!(request.header("content-type"), "application/cloudevents-batch+json");
        assert_eq!(request.header("authorization"), "Bearer me");
        assert_eq!(request.header("host"), receiver.address.to_string());
        request.verify(receiver.address, "ed25519", &PUBLIC);
        assert!(request.events().len() <= 100);
        for event in request.events() {
            assert_eq!(event["specversion"], "1.0");
            assert_eq!(event["id"], event["data"]["event_id"]);
            assert_eq!(event["source"], format!("urn:firsthop:{}", tenant.id));
            assert_eq!(event["type"], format!("dev.firsthop.{}", event["data"]["kind"].as_str().expect("a kind")));
            assert_eq!(
                (&event["time"], &event["datacontenttype"]),
                (&event["data"]["time"], &"application/json".into())
            );
        }
    }
    let last = receiver.requests().pop().expect("a request").0.events().pop().expect("an event");
    assert_eq!(
        (last["data"]["name"].as_str(), &last["subject"]),
        (Some("Löschen\0"), &Json::Null),
        "no control characters"
    );

    // Another algorithm, from then on.
    let secret = [7_u8; 32];
    fs::write(tenant.folder.join("sign.pem"), crate::common::base64(&secret)).expect("written");
    tenant.end_sinks(&server, "hook");
    tenant.add_sink(&sink(&receiver, &format!("{signed}\nalgorithm = 'hmac-sha256'")));
    send(&server, &tenant, &[1]);
    until("they are there", || receiver.taken().len() == 647);
    receiver.requests().last().expect("a request").0.verify(receiver.address, "hmac-sha256", &secret);
}

/// Sinks write down in one file how far they are. Whoever keeps it to himself for long is no trouble of theirs, hides none that they have, and
/// has nothing delivered twice.
#[test]
fn who_writes_where_sinks_note_delays_them_and_no_more() {
    let well = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&well);
    let receiver =
        Receiver::start(move |_| Some((if answers.load(Ordering::Relaxed) { 200 } else { 503 }, String::new())));
    let (folder, server, tenant) = served();
    tenant.add_sink(&sink(&receiver, ""));
    send(&server, &tenant, &[3]);
    let trouble = || folder.ok(&["sinks", "list"]);
    until("it is noted", || trouble().contains("503"));
    let notes = rusqlite::Connection::open(tenant.folder.join("sinks.db")).expect("opens");
    notes.busy_timeout(Duration::from_secs(60)).expect("a timeout");
    notes.execute_batch("BEGIN IMMEDIATE").expect("locked");
    server.says("a sink waits for others");
    // The last attempt of its own was before.
    let errors = tenant.sink(&server, "errors_total", "hook");
    assert!(trouble().contains("503"), "{}", trouble());
    well.store(true, Ordering::Relaxed);
    notes.execute_batch("ROLLBACK").expect("unlocked");
    until("all are there", || tenant.sink(&server, "lag_frames", "hook") == 0.0 && receiver.taken().len() == 4);
    assert_eq!(tenant.sink(&server, "errors_total", "hook"), errors);
    assert_eq!(tenant.sink(&server, "up", "hook"), 1.0);
    until("it is well", || !trouble().contains("503"));

    // Delivered, and not noted yet.
    notes.execute_batch("BEGIN IMMEDIATE").expect("locked");
    send(&server, &tenant, &[5]);
    server.says("what a sink has delivered cannot be noted");
    assert_eq!(tenant.sink(&server, "up", "hook"), 0.0, "it goes no further meanwhile");
    notes.execute_batch("ROLLBACK").expect("unlocked");
    until("it is noted", || tenant.sink(&server, "lag_frames", "hook") == 0.0);
    assert_eq!(ids(&receiver.taken()), table_ids(&tenant), "each once");
    assert_eq!(tenant.sink(&server, "errors_total", "hook"), errors);
}

/// The table keeps its cursor itself, so it waits for nobody there, not even to say that it is well again.
/// A sink that waited when it was opened has nothing to show for it until an event comes: it is up all the same.
#[test]
fn who_writes_where_sinks_note_keeps_none_down_that_has_nothing_to_do() {
    let receiver = Receiver::start(|_| Some((200, String::new())));
    let (_folder, server, tenant) = served();
    tenant.add_sink(&sink(&receiver, ""));
    until("the first is there", || tenant.sink(&server, "up", "hook") == 1.0);
    let notes = rusqlite::Connection::open(tenant.folder.join("sinks.db")).expect("opens");
    notes.busy_timeout(Duration::from_secs(60)).expect("a timeout");
    notes.execute_batch("BEGIN IMMEDIATE").expect("locked");
    tenant.add_sink("kind = 'ndjson'\nname = 'lines'");
    server.says("a sink waits for others");
    until("it is down", || tenant.sink(&server, "up", "lines") == 0.0);
    notes.execute_batch("ROLLBACK").expect("unlocked");
    until("it is up", || tenant.sink(&server, "up", "lines") == 1.0);
}

#[test]
fn who_writes_where_sinks_note_does_not_delay_the_table() {
    let (folder, server, tenant) = served();
    let lock = |name: &str| {
        let connection = rusqlite::Connection::open(tenant.folder.join(name)).expect("opens");
        connection.busy_timeout(Duration::from_secs(60)).expect("a timeout");
        connection.execute_batch("BEGIN IMMEDIATE").expect("locked");
        connection
    };
    let lag = || tenant.sink(&server, "lag_frames", "events");
    send(&server, &tenant, &[1]);
    until("the table is there", || lag() == 0.0);
    let table = lock("events.db");
    send(&server, &tenant, &[1]);
    until("it is noted", || listed(&folder, "events")[2] == "fails");
    let notes = lock("sinks.db");
    drop(table);
    let began = Instant::now();
    for _ in 0..6 {
        until("the table has it", || lag() == 0.0);
        send(&server, &tenant, &[1]);
    }
    until("the last", || lag() == 0.0);
    assert!(began.elapsed() < Duration::from_secs(40), "each waited for whoever writes there: {:?}", began.elapsed());
    assert_eq!(tenant.sink(&server, "up", "events"), 1.0);
    assert_eq!(listed(&folder, "events")[2], "fails", "nobody could take that back");
    drop(notes);
    until("and nothing more has to come for that", || listed(&folder, "events")[2] == "well");
}

/// On a disk that is nearly full, what keeps copies waits, so that others can note how far they are: else retention could remove nothing.
#[test]
fn the_last_of_the_disk_is_for_cursors() {
    let receiver = Receiver::start(|_| Some((200, String::new())));
    let (folder, mut server, tenant) = served();
    // The table has none of it yet.
    let table = rusqlite::Connection::open(tenant.folder.join("events.db")).expect("opens");
    table.busy_timeout(Duration::from_secs(5)).expect("a timeout");
    table.execute_batch("BEGIN IMMEDIATE").expect("locked");
    send(&server, &tenant, &[3, 300]);
    server.kill();
    table.execute_batch("ROLLBACK").expect("unlocked");
    tenant.add_sink(&sink(&receiver, ""));
    tenant.add_sink("kind = 'ndjson'\nname = 'lines'");
    // No disk has so much room.
    let mut server = folder.serve_with(&["--disk-reserve", "1000000GiB"]);
    let last = tenant.journal("SELECT MAX(id) FROM frames");
    let cursor = "SELECT frame FROM cursors WHERE sink = 'hook'";
    let cursor = || number(&tenant.folder.join("sinks.db"), cursor);
    until("the other side has all", || receiver.taken().len() == 304);
    until("that is noted", || cursor() == last);
    for sink in ["events", "lines"] {
        until("it says why it waits", || listed(&folder, sink)[2] == "fails");
    }
    assert!(folder.ok(&["sinks", "list"]).contains("a quarter of disk_reserve is left"));
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 0);
    server.kill();
    let server = folder.serve();
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 304);
    until("so has the file", || tenant.sink(&server, "lag_frames", "lines") == 0.0);
    assert_eq!(receiver.taken().len(), 304);
}

/// TLS is spoken and the receiver's certificate verified: by the authority that is named and no other, for the host that is named.
#[test]
fn tls_is_verified() {
    let made = tempfile::tempdir().expect("a temporary folder");
    authority(made.path(), "ca");
    authority(made.path(), "other");
    certificate(made.path(), "ca", "good", "DNS:localhost");
    certificate(made.path(), "ca", "elsewhere", "DNS:elsewhere.example");
    let file = |name: &str| made.path().join(name);
    let receiver = |name: &str| {
        Receiver::tls(&file(&format!("{name}.pem")), &file(&format!("{name}.key")), |_| Some((200, String::new())))
    };
    let (good, elsewhere) = (receiver("good"), receiver("elsewhere"));
    let (folder, server, tenant) = served();
    send(&server, &tenant, &[3]);
    let sink = |receiver: &Receiver, ca: &str| {
        let ca = file(ca);
        let url = format!("https://localhost:{}/in", receiver.address.port());
        format!("kind = 'http'\nname = 'hook'\nurl = '{url}'\nca_file = '{}'", ca.display())
    };
    for (receiver, ca, says) in [(&good, "other.pem", "UnknownIssuer"), (&elsewhere, "ca.pem", "not valid for name")] {
        tenant.add_sink(&sink(receiver, ca));
        until(says, || folder.ok(&["sinks", "list"]).contains(says));
        assert_eq!(receiver.requests().len(), 0, "nothing is sent to who cannot show who it is: {says}");
        tenant.end_sinks(&server, "hook");
    }
    tenant.add_sink(&sink(&good, "ca.pem"));
    until("all are there", || good.taken().len() == 4);
    assert_eq!(ids(&good.taken()), table_ids(&tenant));
    // Made for two days, some seconds ago.
    let left = server.metric(&format!("firsthop_certificate_expiry_seconds{{tenant=\"{}\",sink=\"hook\"}}", tenant.id));
    assert!(left > 86_400.0 && left <= 2.0 * 86_400.0, "{left}");
}

/// A frame of which a part is delivered when a person of the other part is erased: the rest comes once, without them.
#[test]
fn an_erasure_within_a_frame_that_is_half_delivered() {
    let open = Arc::new(AtomicBool::new(false));
    let receiver = Receiver::start({
        let (open, first) = (Arc::clone(&open), AtomicBool::new(true));
        move |_| {
            let takes = first.swap(false, Ordering::Relaxed) || open.load(Ordering::Relaxed);
            Some((if takes { 200 } else { 503 }, String::new()))
        }
    });
    let (folder, mut server, tenant) = served();
    tenant.add_sink(&sink(&receiver, "batch_events = 2"));
    let messages: Vec<String> = ["ada", "bob", "eve", "bob", "ada"]
        .iter()
        .enumerate()
        .map(|(n, user)| format!(r#"{{"type":"track","event":"E{n}","userId":"{user}","messageId":"m{n}"}}"#))
        .collect();
    let batch = format!(r#"{{"batch":[{}]}}"#, messages.join(","));
    until("the sink runs", || server.internal_get("/metrics").text().contains("sink=\"hook\""));
    assert_eq!(server.client().segment("/v1/batch", &tenant.key, &batch).status, 200);
    tenant.settle();
    until("a part is delivered, and the next is refused", || {
        receiver.taken().len() == 2 && receiver.requests().len() > 1
    });
    // The sink has not got all of it yet, so it has to be said.
    let said = folder.ok(&["erase", "--user", "bob", "--yes", "--undelivered"]);
    assert!(said.contains("erased 2 stored events in 1 frames"), "{said}");
    open.store(true, Ordering::Relaxed);
    until("the rest is delivered", || listed(&folder, "hook")[4] == "0" && receiver.taken().len() >= 4);
    let taken = receiver.taken();
    let names: Vec<_> = taken.iter().map(|event| event["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["E0", "E1", "E2", "E4"], "each once, and of whom was erased only what had gone before");
    server.stop();
    folder.ok(&["verify"]);
}

/// A receiver that is away, comes back, wants us to wait, and breaks off after it took everything: all comes, with the same ids, and who
/// knows ids has nothing twice. Meanwhile nobody else waits.
#[test]
fn away_and_back_and_gone_after_the_commit() {
    let address = own_port().local_addr().expect("an address");
    let (folder, mut server, tenant) = served();
    tenant.add_sink(&format!("kind = 'http'\nname = 'hook'\nurl = 'http://{address}'\nbatch_events = 50"));
    tenant.add_sink("kind = 'ndjson'\nname = 'lines'");
    until("it is tried", || {
        tenant.sink(&server, "errors_total", "hook") > 0.0 || {
            send(&server, &tenant, &[20]);
            false
        }
    });
    let expected = table_ids(&tenant).len();
    until("the file has all of it", || {
        fs::read_to_string(tenant.folder.join("lines.ndjson")).unwrap_or_default().lines().count() == expected
    });
    assert_eq!(tenant.sink(&server, "up", "hook"), 0.0);
    until("and has noted it", || tenant.sink(&server, "lag_frames", "lines") == 0.0);
    assert!(tenant.sink(&server, "lag_frames", "hook") > 0.0);
    until("it is listed", || listed(&folder, "hook")[2] == "fails");
    // An attempt may also have failed because somebody else had `sinks.db` for long.
    until("and why", || folder.ok(&["sinks", "list"]).contains(&format!("connect to {address}")));
    send(&server, &tenant, &[300]);

    let count = AtomicUsize::new(0);
    let receiver = Receiver::on(TcpListener::bind(address).expect("bound again"), move |_| {
        match count.fetch_add(1, Ordering::Relaxed) {
            0 => Some((503, "retry-after: 1\r\n".into())),
            // Taken, and nobody hears of it.
            2 => None,
            5 => Some((429, String::new())),
            6 => Some((302, "location: http://127.0.0.1:1/\r\n".into())),
            7 => Some((401, String::new())),
            _ => Some((200, String::new())),
        }
    });
    let expected = table_ids(&tenant);
    until("all are there", || ids(&receiver.taken()).into_iter().collect::<BTreeSet<_>>().len() == expected.len());
    assert_eq!(ids(&receiver.taken()), expected, "each was taken once by who said so");
    until("it is well", || listed(&folder, "hook")[2] == "well" && listed(&folder, "hook")[4] == "0");
    assert_eq!(tenant.sink(&server, "dead_letters", "hook"), 0.0);
    let all: Vec<Json> = receiver.requests().iter().flat_map(|(request, _)| request.events()).collect();
    let distinct: BTreeSet<&str> = all.iter().map(|event| event["id"].as_str().expect("an id")).collect();
    assert!(all.len() > distinct.len() && distinct.len() == expected.len(), "what came again had its id");
    server.stop();
}

/// Events that a receiver refuses are found one by one, and the rest is delivered; what is too large comes in parts.
#[test]
fn poison_is_found_and_the_rest_goes_on() {
    let cured = Arc::new(AtomicBool::new(false));
    let receiver = Receiver::start({
        let cured = Arc::clone(&cured);
        move |request: &Request| {
            let events = request.events();
            let poison = |event: &Json| event["data"]["properties"]["n"].as_u64().is_some_and(|n| n % 80 == 13);
            match () {
                () if events.len() > 40 => Some((413, String::new())),
                () if !cured.load(Ordering::Relaxed) && events.iter().any(poison) => Some((422, String::new())),
                () => Some((200, String::new())),
            }
        }
    });
    let (folder, server, tenant) = served();
    tenant.add_sink(&sink(&receiver, ""));
    send(&server, &tenant, &[400]);
    let expected = table_ids(&tenant);
    until("the rest is there", || receiver.taken().len() + 5 == expected.len());
    until("they are counted", || tenant.sink(&server, "dead_letters", "hook") == 5.0);
    until("those too", || tenant.sink(&server, "refused_total", "hook") == 5.0);
    let said = folder.ok(&["sinks", "dead", "--sink", "hook"]);
    assert!(said.matches("422").count() >= 5 && said.contains("as the receiver says"), "{said}");
    assert!(!server.log().contains("as the receiver says"), "who knows whom it names: {}", server.log());
    cured.store(true, Ordering::Relaxed);
    let said = folder.ok(&["replay", "--sink", "hook", "--dead"]);
    assert!(said.contains("5 events that hook had refused are delivered"), "{said}");
    assert_eq!(ids(&receiver.taken()), expected);
    cured.store(false, Ordering::Relaxed);
    // The whole of it again: those five are refused again, and this time nobody wants them.
    folder.ok(&["replay", "--sink", "hook", "--from", "1"]);
    until("they are back", || tenant.sink(&server, "dead_letters", "hook") == 5.0);
    assert!(folder.ok(&["sinks", "discard", "--sink", "hook"]).contains("5 dead letters"));
    assert!(folder.ok(&["sinks", "dead"]).contains("no dead letters"));
}

/// A receiver that is much too slow holds up no other sink, no acknowledgement, and the end of the server for as long as it may.
#[test]
fn too_slow_is_its_own_affair() {
    let receiver = Receiver::start(|_| {
        thread::sleep(Duration::from_secs(30));
        Some((200, String::new()))
    });
    let folder = Folder::new();
    let mut server = folder.serve_with(&["--drain-timeout", "1s"]);
    let tenant = folder.only_tenant();
    tenant.add_sink(&sink(&receiver, "batch_events = 10\ntimeout = '60s'"));
    until("it began", || {
        send(&server, &tenant, &[10]);
        tenant.sink(&server, "lag_frames", "hook") > 0.0
    });
    let (mut client, mut page) = (server.client(), Page::new(&tenant));
    let mut slowest = Duration::ZERO;
    for _ in 0..200 {
        let began = Instant::now();
        client.frame(&page.frame(5)).receipt();
        slowest = slowest.max(began.elapsed());
    }
    tenant.settle();
    assert!(slowest < Duration::from_secs(15), "{slowest:?}");
    until("the table has all of it", || tenant.sink(&server, "lag_frames", "events") == 0.0);
    assert!(tenant.sink(&server, "lag_frames", "hook") > 100.0);
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
