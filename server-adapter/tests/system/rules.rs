//! First-hop processing: by the server, and what an edge has done before.

use firsthop_core::{
    Alg, Annotation, Consent, Context, Event, EventKind, ExtensionKind, Frame, FrameWriter, HashKey, Header,
    PropertiesWriter, SourceId, Timestamp, Unsigned, Value, limits::MAX_ENVELOPE, seal_envelope,
};
use firsthop_intake::{
    Account as _, Facts,
    rules::{Rules, apply},
};
use serde_json::Value as Json;

use crate::{
    common::{Client, Folder, Page, Server, Tenant, now, random, text, until},
    edges::{Edge, envelope},
};

const SUPPRESS: &str = "[policy.rules.consent]\nrequired = [\"analytics\"]\nwithout = \"suppress\"\n";

/// A tenant with rules, and a server for it.
fn shop(rules: &str) -> (Folder, Tenant, Server) {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--region", "EU"]);
    set(&tenant, rules);
    let server = folder.serve();
    (folder, tenant, server)
}

fn set(tenant: &Tenant, rules: &str) {
    let path = tenant.folder.join("tenant.toml");
    let file = std::fs::read_to_string(&path).expect("there");
    let before = file.split("[policy").next().unwrap_or(&file);
    std::fs::write(&path, format!("{before}\n{rules}")).expect("written");
}

/// A frame by write key of one event, with this consent.
fn frame(tenant: &Tenant, consent: Consent, source: SourceId) -> Vec<u8> {
    frame_of(tenant, consent, source, "Bought")
}

fn frame_of(tenant: &Tenant, consent: Consent, source: SourceId, name: &str) -> Vec<u8> {
    frame_begun(tenant, Header { consent, ..Header::new(tenant.id, source, now()) }, name)
}

fn frame_begun(tenant: &Tenant, header: Header, name: &str) -> Vec<u8> {
    let mut writer = FrameWriter::new(vec![0; 4096], &header).expect("room");
    writer.extension(ExtensionKind::WriteKey, tenant.key.as_bytes()).expect("room");
    let context = Context {
        user_id: Some("ada"),
        url: Some("https://shop.example/p?utm_source=news&gclid=G1"),
        referrer: Some("https://www.google.com/"),
        ..Context::default()
    };
    writer.context(&context).expect("room");
    let mut properties = PropertiesWriter::new(vec![0; 256], vec![0; 256]);
    properties.put("email", Value::Str("ada@example.com")).expect("room");
    properties.put("card", Value::Str("4111")).expect("room");
    let properties = properties.finish().expect("closed");
    writer.event(&Event { kind: EventKind::Track, name, properties, ..Event::default() }).expect("room");
    writer.finish(&Unsigned).expect("finished").to_vec()
}

fn reconcile(folder: &Folder) -> Json {
    let output = folder.run(&["reconcile", "--json"]);
    let said: Json = serde_json::from_str(&text(&output.stdout)).expect("JSON");
    assert_eq!(output.status.code(), Some(0), "{said}");
    said["total"].clone()
}

/// Bodies in the journal that have this text.
fn bodies_with(tenant: &Tenant, text: &str) -> i64 {
    tenant.journal(&format!("SELECT COUNT(*) FROM frames WHERE instr(body, CAST('{text}' AS BLOB)) > 0"))
}

#[test]
fn what_nobody_agreed_to_is_counted_and_not_kept() {
    let (folder, tenant, mut server) = shop(SUPPRESS);
    let mut client = server.client();
    let mut page = Page::new(&tenant);
    let first = page.frame(3);
    let receipt = client.frame(&first).receipt();
    assert_eq!((receipt.count, receipt.suppressed, receipt.stored, receipt.conflict), (3, 3, 0, 0));
    page.session = receipt.session;
    let second = page.frame(4);
    assert_eq!(client.frame(&second).receipt().suppressed, 4);
    let again = client.frame(&second).receipt();
    assert_eq!((again.duplicate, again.suppressed), (4, 0));
    let agreed = frame(&tenant, Consent::ANALYTICS, SourceId::v7(now(), random()));
    assert_eq!(client.frame(&agreed).receipt().stored, 1);

    // Also after a crash: what was seen, was seen.
    server.kill();
    let mut server = folder.serve();
    let mut client = server.client();
    for (sent, events) in [(&first, 3), (&second, 4), (&agreed, 1)] {
        assert_eq!(client.frame(sent).receipt().duplicate, events);
    }
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 1);
    assert_eq!((bodies_with(&tenant, "Product Viewed"), bodies_with(&tenant, "G-32")), (0, 0));
    assert_eq!(bodies_with(&tenant, &page.source.to_string()), 0, "the anonymous id is not kept");
    assert_eq!(server.outcome(&tenant, "suppressed", ""), 7.0);
    let total = reconcile(&folder);
    for (figure, events) in [("suppressed", 7), ("stored", 1), ("duplicate", 12), ("unaccounted", 0), ("issued", 8)] {
        assert_eq!(total[figure], events, "{figure} {total}");
    }
    server.stop();
    folder.ok(&["verify"]);
    reconcile(&folder);
}

/// What an SDK of Segment's says of consent counts as what a page of ours says, by the tenant's own categories.
#[test]
fn segments_consent_is_judged_by_the_same_rule() {
    let own = "[policy.rules.consent.categories]\nanalytics = [\"Statistics\"]\n";
    let (folder, tenant, mut server) = shop(&format!("{SUPPRESS}{own}"));
    let mut client = server.client();
    let message = |id: &str, name: &str, said: Json| {
        let context = serde_json::json!({ "consent": { "categoryPreferences": said } });
        serde_json::json!({ "type": "track", "event": name, "userId": "ada", "messageId": id, "context": context })
    };
    let send = |client: &mut Client, batch: Json| {
        let answer = client.segment("/v1/batch", &tenant.key, &serde_json::json!({ "batch": batch }).to_string());
        assert_eq!(answer.status, 200);
    };
    let yes = serde_json::json!({ "Statistics": true, "Advertising": true });
    let no = [serde_json::json!({ "Statistics": false }), serde_json::json!({ "Analytics": true }), Json::Null];
    send(
        &mut client,
        serde_json::json!([
            message("m-1", "Bought", yes.clone()),
            message("m-2", "Hidden", no[0].clone()),
            message("m-3", "Hidden", no[1].clone()),
            message("m-4", "Hidden", no[2].clone()),
            message("m-5", "Bought", yes.clone()),
        ]),
    );
    tenant.settle();
    let stored =
        "SELECT COUNT(*) FROM events WHERE name = 'Bought' AND consent = 'analytics marketing' AND effects = ''";
    assert_eq!(tenant.events(stored), 2);
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 2);
    assert_eq!(bodies_with(&tenant, "Hidden"), 0);
    assert_eq!(server.outcome(&tenant, "suppressed", ""), 3.0);
    assert_eq!(reconcile(&folder)["suppressed"], 3);
    server.stop();
}

/// An edge that applies rules as the Worker does.
fn processed(edge: &mut Edge, rules: &Rules, key: Option<&HashKey>, body: &[u8]) -> Vec<u8> {
    let facts = Facts { country: Some("CH"), ..Facts::at(now()) };
    let account = edge.account.clone();
    let accepted = firsthop_intake::native::receive(body, &facts, |_| Some(&account)).expect("accepted");
    let applied = apply(rules, key, &facts, &accepted.annotation, &accepted.frame).expect("applied");
    let (key_id, scope, lease) = account.current(now()).expect("a lease");
    let header = Header {
        key_id,
        epoch: scope.epoch,
        region: scope.region,
        alg: Alg::HmacSha256,
        count: accepted.frame.header().count,
        ..Header::new(scope.tenant, SourceId::v7(now(), random()), now())
    };
    let (key, notes) = (lease.envelope_key(header.alg).expect("a MAC"), applied.notes());
    let inner = applied.frame.as_deref().unwrap_or(body);
    let noted = (&applied.annotation, &notes);
    seal_envelope(&mut vec![0; MAX_ENVELOPE], &header, scope.worker, noted, inner, &key).expect("sealed").to_vec()
}

#[test]
fn what_an_edge_has_held_back_or_rewritten_is_the_same_event() {
    let (folder, tenant, mut server) = shop(SUPPRESS);
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    let mut edge = Edge::new(&server, &token);
    let mut client = server.client();
    let suppress: Rules =
        serde_json::from_str(r#"{"consent":{"required":["analytics"],"without":"suppress"}}"#).expect("rules");
    let remove: Rules = serde_json::from_str(r#"{"properties":{"deny":["sku"]}}"#).expect("rules");

    // Held back at the edge; then again, and then by an edge that has other rules by now: no conflict.
    let mut page = Page::new(&tenant);
    page.session = edge.forward(&page.frame(1)).1;
    let held = page.frame(5);
    let sealed = processed(&mut edge, &suppress, None, &held);
    assert!(!sealed.windows(4).any(|part| part == b"G-32"));
    assert_eq!(envelope(&mut client, &sealed).receipt().suppressed, 5);
    for body in [processed(&mut edge, &suppress, None, &held), processed(&mut edge, &remove, None, &held)] {
        let receipt = envelope(&mut client, &body).receipt();
        assert_eq!((receipt.duplicate, receipt.conflict), (5, 0));
    }
    // Rewritten at the edge, and as it came straight to the server; and the other way about.
    let (one, two) = (page.frame(2), page.frame(2));
    assert_eq!(envelope(&mut client, &processed(&mut edge, &remove, None, &one)).receipt().stored, 2);
    assert_eq!(client.frame(&one).receipt().duplicate, 2);
    set(&tenant, "");
    until("the server has looked at the files", || {
        let probe = frame(&tenant, Consent::NONE, SourceId::v7(now(), random()));
        client.frame(&probe).receipt().stored == 1
    });
    assert_eq!(client.frame(&two).receipt().stored, 2);
    let receipt = envelope(&mut client, &processed(&mut edge, &remove, None, &two)).receipt();
    assert_eq!((receipt.duplicate, receipt.conflict), (2, 0));
    // Another frame with these numbers is no attempt, whichever of the two was rewritten: it is kept beside.
    assert_eq!(client.frame(&page.frame_at(6, 2, "Something Else")).receipt().conflict, 2);
    let other = processed(&mut edge, &remove, None, &page.frame_at(8, 2, "Something Else"));
    assert_eq!(envelope(&mut client, &other).receipt().conflict, 2);

    tenant.settle();
    let noted = "rules IS NOT NULL AND effects = 'removed' AND trust = 'session' AND country = 'CH'";
    assert_eq!(tenant.events(&format!("SELECT COUNT(*) FROM events WHERE {noted} AND properties NOT LIKE '%sku%'")), 2);
    let total = reconcile(&folder);
    assert_eq!(total["unaccounted"], 0, "{total}");
    server.stop();
    folder.ok(&["verify"]);
}

/// A conflict was let in before there were rules, and is replayed under those of today: directly sent, and by way of an edge.
#[test]
fn what_was_in_conflict_is_replayed_by_the_rules_of_today() {
    let (folder, tenant, mut server) = shop("");
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    let mut edge = Edge::new(&server, &token);
    let mut client = server.client();
    for by_edge in [false, true] {
        let source = SourceId::v7(now(), random());
        assert_eq!(client.frame(&frame(&tenant, Consent::ANALYTICS, source)).receipt().stored, 1);
        let other = frame_of(&tenant, Consent::ANALYTICS, source, "Sold");
        let answer = if by_edge { envelope(&mut client, &edge.forward(&other).0) } else { client.frame(&other) };
        assert_eq!(answer.receipt().conflict, 1);
    }
    tenant.settle();
    server.stop();
    // What they contradict is gone: as if the journal had lost it.
    lose_what_is_stored(&tenant);
    set(&tenant, "[policy.rules.properties]\ndeny = [\"card\"]\nhash = [\"email\"]\n");
    let mut server = folder.serve();
    let said = folder.ok(&["quarantine", "replay", "--all", "--json"]);
    let said: Json = serde_json::from_str(&said).expect("JSON");
    assert_eq!((&said["replayed"]["left"], &said["replayed"]["stored"]), (&2.into(), &2.into()), "{said}");
    tenant.settle();
    let sold = "SELECT COUNT(*) FROM events WHERE name = 'Sold' AND effects LIKE '%removed hashed%'";
    assert_eq!(tenant.events(sold), 2);
    assert_eq!((bodies_with(&tenant, "4111"), bodies_with(&tenant, "ada@example.com")), (0, 0));
    server.stop();
    folder.ok(&["verify"]);
}

/// What rules leave of an event contradicts nothing any more: so what it said is compared, and an entry stays that has the only copy of it.
#[test]
fn a_conflict_stays_one_whatever_rules_have_come_since() {
    let (folder, tenant, mut server) = shop("");
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    let mut edge = Edge::new(&server, &token);
    let mut client = server.client();
    for by_edge in [false, true] {
        let source = SourceId::v7(now(), random());
        assert_eq!(client.frame(&frame(&tenant, Consent::ANALYTICS, source)).receipt().stored, 1);
        for name in ["Sold", "Returned"] {
            let other = frame_of(&tenant, Consent::ANALYTICS, source, name);
            let answer = if by_edge { envelope(&mut client, &edge.forward(&other).0) } else { client.frame(&other) };
            assert_eq!(answer.receipt().conflict, 1);
        }
    }
    // By another vendor's id.
    let call = |name: &str| {
        let said = serde_json::json!({
            "event": name, "userId": "ada", "messageId": "m-1", "timestamp": "2026-11-21T21:18:03Z", "properties": { "card": "4111" },
        });
        said.to_string()
    };
    for name in ["Bought", "Sold", "Returned"] {
        assert_eq!(client.segment("/v1/track", &tenant.key, &call(name)).status, 200);
    }
    assert_eq!(tenant.quarantine()["conflict"], 6);
    tenant.settle();
    server.stop();
    set(&tenant, "[policy.rules.properties]\ndeny = [\"card\"]\nhash = [\"email\"]\n");
    let mut server = folder.serve();
    let replay = |left: i64, stored: i64, stay: Json| {
        let said = folder.ok(&["quarantine", "replay", "--all", "--json"]);
        let said: Json = serde_json::from_str(&said).expect("JSON");
        let expected =
            serde_json::json!({ "entries": 6, "left": left, "stored": stored, "duplicate": 0, "stay": stay });
        assert_eq!(said["replayed"], expected);
    };
    let whole = "SELECT COUNT(*) FROM quarantine WHERE instr(body, CAST('4111' AS BLOB)) > 0";
    for _ in 0..2 {
        replay(0, 0, serde_json::json!({ "conflict": 6 }));
        assert_eq!(tenant.journal(whole), 6, "to the byte");
    }
    reconcile(&folder);
    tenant.settle();
    server.stop();
    folder.ok(&["verify"]);

    // What they contradict is gone, as if the journal had lost it. One of each two is let in, and now the other contradicts that.
    lose_what_is_stored(&tenant);
    let mut server = folder.serve();
    replay(3, 3, serde_json::json!({ "conflict": 3 }));
    assert_eq!((tenant.journal(whole), bodies_with(&tenant, "4111")), (3, 0));
    assert_eq!(tenant.quarantine()["conflict"], 3);
    tenant.settle();
    server.stop();
    folder.ok(&["verify"]);
}

fn lose_what_is_stored(tenant: &Tenant) {
    let journal = rusqlite::Connection::open(tenant.folder.join("journal.db")).expect("opens");
    journal
        .execute_batch(
            "DELETE FROM frames; DELETE FROM seen; DELETE FROM counters WHERE outcome = 'stored';
             UPDATE meta SET value = 0 WHERE key = 'settled'",
        )
        .expect("deleted");
    drop(journal);
    std::fs::remove_file(tenant.folder.join("events.db")).expect("there");
}

/// Only a hop that answers for it may say that a frame was rewritten: its events are compared with nothing.
#[test]
fn a_producer_cannot_say_that_its_frame_was_rewritten() {
    let (folder, tenant, server) = shop("");
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    let mut edge = Edge::new(&server, &token);
    let mut client = server.client();
    let header = Header::new(tenant.id, SourceId::v7(now(), random()), now());
    let mut writer = FrameWriter::new(vec![0; 1024], &header).expect("room");
    writer.extension(ExtensionKind::WriteKey, tenant.key.as_bytes()).expect("room");
    writer.extension(ExtensionKind::Rewritten, &[3]).expect("room");
    writer.event(&Event::default()).expect("room");
    let forged = writer.finish(&Unsigned).expect("finished").to_vec();
    assert!(Frame::parse(&forged).expect("whole").rewritten().is_some());
    assert_eq!(client.frame(&forged).code(), "reserved-bits");
    // Nor through an edge that has looked at it, or could not.
    for trust in [firsthop_core::Trust::WriteKey, firsthop_core::Trust::Unchecked] {
        let annotation = Annotation { received_ms: now().as_millis(), trust, ..Annotation::default() };
        let sealed = edge.seal(&annotation, &forged, 1);
        assert_eq!(envelope(&mut client, &sealed).code(), "reserved-bits");
    }
    assert_eq!(tenant.journal("SELECT COUNT(*) FROM frames"), 0);
    assert_eq!(reconcile(&folder)["suppressed"], 0);
}

#[test]
fn rules_of_a_tenant_show_in_the_table() {
    let rules = "[policy.rules]\nsession = \"source\"\n[policy.rules.ids]\nuser = \"hash\"\n\
                 [policy.rules.properties]\ndeny = [\"card\"]\nhash = [\"email\"]\n";
    let (folder, tenant, mut server) = shop(rules);
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    let mut said = Edge::leases(&server, &token);
    until("the server has looked at the files", || {
        said = Edge::leases(&server, &token);
        said.status == 200
    });
    let mut client = server.client();
    let all = Consent::ANALYTICS.with(Consent::MARKETING);
    let post = |client: &mut Client, gpc: &str| {
        let body = frame(&tenant, all, SourceId::v7(now(), random()));
        let agent = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:144.0) Gecko/20100101 Firefox/144.0";
        let headers = [("Sec-GPC", gpc), ("User-Agent", agent), ("Origin", "https://shop.example")];
        assert_eq!(client.request("POST", "/v1/f", &headers, &body).receipt().stored, 1);
    };
    post(&mut client, "1");
    post(&mut client, "0");
    tenant.settle();
    let count = |what: &str| tenant.events(&format!("SELECT COUNT(*) FROM events WHERE {what}"));
    for (what, events) in [
        ("length(rules) = 8 AND session_id = source", 2),
        ("effects = 'gpc removed hashed session' AND consent = 'analytics' AND click_id IS NULL", 1),
        ("effects = 'removed hashed session' AND consent = 'analytics marketing' AND click_id = 'gclid=G1'", 1),
        ("utm_source = 'news' AND referrer_class = 'campaign' AND agent = 'desktop' AND traffic = 'human'", 2),
        ("length(user_id) = 32 AND user_id NOT LIKE '%ada%'", 2),
        ("properties LIKE '%ada@%' OR properties LIKE '%card%'", 0),
        ("skew_ms IS NULL AND city IS NULL AND subdivision IS NULL", 2),
    ] {
        assert_eq!(count(what), events, "{what}");
    }
    assert_eq!(tenant.events("SELECT COUNT(DISTINCT user_id) FROM events"), 1, "the same is the same");
    assert_eq!(bodies_with(&tenant, "ada"), 0);
    // What an edge of the region hashes with is what this server does.
    let key = text(&said.body);
    assert!(key.contains("\"hashKey\":\""), "{key}");
    server.stop();
    folder.ok(&["verify"]);
    reconcile(&folder);
    set(&tenant, "[policy.rules.properties]\ndeny = [\"a..b\"]\n");
    assert!(folder.fails(&["verify"]).contains("properties.deny"));
}

/// The query that `docs/sinks.md` has for clocks that are ahead.
#[test]
fn times_of_a_clock_that_is_ahead_are_set_right_by_what_was_noted() {
    let docs = include_str!("../../../docs/sinks.md");
    let corrected =
        docs.lines().find_map(|line| line.strip_prefix("SELECT strftime").and_then(|rest| rest.split(" AS ").next()));
    let corrected = format!("strftime{}", corrected.expect("the query"));
    let (_folder, tenant, server) = shop("");
    let mut client = server.client();
    const HOUR: i64 = 3_600_000;
    // By how much its page's clock is off, and whether that is corrected: a slow one may be a page that was offline.
    for (name, off, is_corrected) in
        [("Ahead", HOUR, true), ("Far", 40 * 24 * HOUR, false), ("Near", 2_000, false), ("Slow", -HOUR, false)]
    {
        let created = Timestamp::from_millis(now().as_millis().saturating_add_signed(off));
        let header = Header::new(tenant.id, SourceId::v7(now(), random()), created);
        let body = frame_begun(&tenant, header, name);
        let origin = [("Origin", "https://shop.example")];
        assert_eq!(client.request("POST", "/v1/f", &origin, &body).receipt().stored, 1);
        tenant.settle();
        // What is begun when it comes is of the time at which it comes; SQLite counts in fractions of a day.
        let apart =
            |time: &str| format!("CAST(ROUND((julianday({time}) - julianday(received_at)) * 86400000) AS INTEGER)");
        let of = |what: &str| tenant.events(&format!("SELECT {what} FROM events WHERE name = '{name}'"));
        let (stated, set_right) = (of(&apart("time")), of(&apart(&corrected)));
        assert!((stated - off).abs() < 60_000, "{name}: {stated}");
        if is_corrected {
            assert!(set_right.abs() <= 2, "{name}: {set_right}");
        } else if name == "Far" {
            // As far as the rules tell.
            assert!((set_right - (off - 30 * 24 * HOUR)).abs() < 60_000, "{name}: {set_right}");
        } else {
            assert_eq!(set_right, stated, "{name}");
        }
    }
}
