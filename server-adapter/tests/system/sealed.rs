//! Frames that are sealed to their region: read here, and kept as they came.

use std::fs;

use base64::{Engine, prelude::BASE64_STANDARD};
use firsthop_core::{
    Context, ContextDelta, Event, ExtensionKind, ForeignId, FrameWriter, Header, Region, RegionKeyId, RegionPublicKey,
    RegionSecretKey, SourceId, Timestamp, Unsigned, Vendor,
};
use firsthop_intake::document::{Kind, RegionKeys, Signed};
use serde_json::json;

use crate::{
    common::{Folder, Page, Tenant, now, random, until},
    edges::{Edge, envelope},
    erase::grep,
};

fn eu() -> Region {
    "EU".parse().expect("a region")
}

/// What a page is built with: the key to seal to now.
fn pinned(folder: &Folder, tenant: &Tenant) -> (Region, RegionPublicKey) {
    let signed: Signed =
        serde_json::from_str(&folder.ok(&["region-key", "config", "--form", "signed"])).expect("a document");
    let keys = signed.read::<RegionKeys>(Kind::RegionKeys, tenant.id, 0).expect("the list").body;
    let key = keys.current(eu(), now()).expect("a key").clone();
    (eu(), RegionPublicKey::new(key.id, key.public).expect("a key"))
}

fn page(folder: &Folder, tenant: &Tenant) -> Page {
    Page { sealed_to: Some(pinned(folder, tenant)), ..Page::new(tenant) }
}

fn shop() -> (Folder, Tenant) {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--region", "EU"]);
    folder.ok(&["region-key", "new"]);
    (folder, tenant)
}

/// Takes the region keys out of `keys.toml`, and returns what puts them back.
fn take_keys(tenant: &Tenant) -> impl Fn() + use<> {
    let path = tenant.folder.join("keys.toml");
    let whole = fs::read_to_string(&path).expect("there");
    let without = &whole[..whole.find("[[region_keys]]").expect("region keys")];
    fs::write(&path, without).expect("written");
    move || fs::write(&path, &whole).expect("written")
}

/// A shop whose server has stopped, with two frames of five events that are sealed. The keys to them are gone until they are put back, and so
/// is the events table.
fn keyless() -> (Folder, Tenant, Page, impl Fn() + use<>) {
    let (folder, tenant) = shop();
    let mut server = folder.serve();
    let mut page = page(&folder, &tenant);
    page.begin(&mut server.client());
    assert_eq!(server.client().frame(&page.frame(4)).receipt().stored, 4);
    tenant.settle();
    server.stop();
    let put_back = take_keys(&tenant);
    fs::remove_file(tenant.folder.join("events.db")).expect("there");
    (folder, tenant, page, put_back)
}

#[test]
fn what_is_sealed_arrives_and_the_journal_keeps_it_sealed() {
    let (folder, tenant) = shop();
    let mut server = folder.serve();
    let mut client = server.client();
    let mut page = page(&folder, &tenant);
    page.begin(&mut client);
    let second = page.frame(3);
    assert_eq!(client.frame(&second).receipt().stored, 3);
    assert_eq!(client.frame(&second).receipt().duplicate, 3, "the same bytes");
    let other = Page { batch: 1, ..page.clone() }.frame_at(1, 3, "Order Completed");
    assert_eq!(client.frame(&other).receipt().conflict, 3);
    // By way of an edge, which has not the key.
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    let mut edge = Edge::new(&server, &token);
    let third = page.frame(2);
    let (forwarded, _) = edge.forward(&third);
    assert_eq!(envelope(&mut client, &forwarded).receipt().stored, 2);
    let (again, _) = edge.forward(&third);
    assert_eq!(envelope(&mut client, &again).receipt().duplicate, 2);
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events WHERE name = 'Product Viewed' AND region = 'EU'"), 6);
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events WHERE pop = 'ZRH' AND trust = 'session'"), 2);
    assert!(folder.ok(&["events"]).contains("Product Viewed"));
    // The journal has none of it in clear, and each sealed payload as it came.
    let in_clear = grep(&folder.path, b"Product Viewed");
    assert!(in_clear.iter().any(|name| name.starts_with("events.db")), "{in_clear:?}");
    assert!(!in_clear.iter().any(|name| name.starts_with("journal.db")), "{in_clear:?}");
    assert!(grep(&folder.path, &second[200..260]).iter().any(|name| name.starts_with("journal.db")));
    let shown = folder.ok(&["quarantine", "show", "1"]);
    assert!(shown.contains("Order Completed") && shown.contains("seal_key"), "{shown}");

    // After a crash, from what is on disk.
    server.kill();
    fs::remove_file(tenant.folder.join("events.db")).expect("there");
    let mut server = folder.serve();
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 6);
    assert_eq!(server.client().frame(&second).receipt().duplicate, 3);
    let said = folder.ok(&["verify"]);
    assert!(said.contains("3 frames are sealed, and open") && said.contains("as it was written"), "{said}");
    // Whoever watches the shapes comes behind, and says nothing before it has looked.
    until("the shapes", || crate::common::text(&folder.run(&["schema"]).stdout).contains("price"));

    // A copy has the keys with it.
    let backup = folder.path.with_file_name("backup");
    folder.ok(&["backup", "--to", backup.to_str().expect("text")]);
    server.stop();
    folder.ok(&["reconcile"]);
    let other = Folder::new();
    other.ok(&["restore", "--from", backup.to_str().expect("text")]);
    let server = other.serve();
    assert_eq!(server.client().frame(&third).receipt().duplicate, 2);
    assert!(other.ok(&["verify"]).contains("3 frames are sealed"));
}

/// The tenant's switch: what is not sealed is refused by whatever way it comes, counted, and kept for a replay.
#[test]
fn a_tenant_may_take_only_what_is_sealed() {
    let (folder, tenant) = shop();
    let path = tenant.folder.join("tenant.toml");
    let before = fs::read_to_string(&path).expect("there");
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    let mut server = folder.serve();
    let mut client = server.client();
    let mut edge = Edge::new(&server, &token);
    let (mut bare, mut good) = (Page::new(&tenant), page(&folder, &tenant));
    bare.begin(&mut client);
    good.begin(&mut client);
    let enrolled = fs::read_to_string(&path).expect("there");
    fs::write(&path, format!("{enrolled}\n[policy]\nrefuse_unsealed = true\n")).expect("written");
    let refused = bare.frame(2);
    until("the switch", || client.frame(&refused).status == 400);
    let taken = tenant.quarantine().get("unsealed").copied();
    let answer = client.frame(&refused);
    assert_eq!((answer.status, &*answer.code(), &answer.json()["retryable"]), (400, "unsealed", &json!(false)));
    assert!(answer.header("firsthop-receipt").contains("quarantined=2"), "{answer:?}");
    assert_eq!(tenant.quarantine().get("unsealed").copied(), taken, "the same bytes are kept once");
    // What an edge of before the switch has taken, it may have acknowledged.
    let waited = bare.frame(3);
    let (forwarded, _) = edge.forward(&waited);
    assert_eq!(envelope(&mut client, &forwarded).code(), "unsealed");
    let vendor = client.segment("/v1/track", &tenant.key, r#"{"event":"Order Completed","userId":"u-1"}"#);
    assert_eq!((vendor.status, &*vendor.code()), (400, "unsealed"));
    let quarantined: i64 = tenant.quarantine().get("unsealed").copied().unwrap_or_default();
    assert_eq!(quarantined, taken.unwrap_or_default() + 2);
    assert!(server.metric(r#"firsthop_refused_total{code="unsealed"}"#) >= 4.0);
    // What is sealed is taken by either way.
    assert_eq!(client.frame(&good.frame(1)).receipt().stored, 1);
    let (forwarded, _) = edge.forward(&good.frame(1));
    assert_eq!(envelope(&mut client, &forwarded).receipt().stored, 1);
    // Judged by what is in force: with the switch again nothing, without it all of it.
    folder.ok(&["quarantine", "replay", "--all"]);
    assert_eq!(tenant.quarantine().get("unsealed").copied(), Some(quarantined));
    fs::write(&path, &enrolled).expect("written");
    until("the switch to be off", || client.frame(&bare.frame(1)).status == 200);
    folder.ok(&["quarantine", "replay", "--all"]);
    assert_eq!(tenant.quarantine().get("unsealed"), None);
    server.stop();

    // Without anything to seal to it would refuse everything: that is said, and no other tenant has to wait for it.
    let put_back = take_keys(&tenant);
    fs::write(&path, format!("{before}\n[policy]\nrefuse_unsealed = true\n")).expect("written");
    let other = folder.tenant("other", &["--region", "EU"]);
    let mut server = folder.serve();
    server.says("nothing to seal to: `firsthop region-key new`");
    let mut client = server.client();
    Page::new(&other).begin(&mut client);
    assert_eq!(client.frame(&Page::new(&tenant).frame(2)).code(), "unsealed");
    // With the key it takes what is sealed; and a change that takes it out again does not come into force.
    put_back();
    until("the key", || client.frame(&good.frame(1)).status == 200);
    drop(take_keys(&tenant));
    server.says("a tenant's files are wrong");
    assert_eq!(client.frame(&good.frame(1)).receipt().stored, 1);
    server.stop();
}

/// Pages that were built with the old key, with the new one, and one whose frame was on its way all the time.
#[test]
fn a_rotation_loses_nothing_that_is_on_its_way() {
    let (folder, tenant) = shop();
    let server = folder.serve();
    let mut client = server.client();
    let mut old = page(&folder, &tenant);
    old.begin(&mut client);
    let delayed = old.frame(2);
    folder.ok(&["region-key", "rotate", "--lead", "0s"]);
    let mut new = page(&folder, &tenant);
    let id = |page: &Page| page.sealed_to.as_ref().map(|(_, key)| key.id().get());
    assert_eq!((id(&old), id(&new)), (Some(1), Some(2)));
    let first = new.frame(1);
    // The server looks at its files every second; until then it sets aside what it cannot read.
    until("the new key", || client.frame(&first).status == 200);
    assert_eq!(client.frame(&old.frame(3)).receipt().stored, 3);
    folder.ok(&["region-key", "retire", "1"]);
    let listed = folder.ok(&["region-key", "list", "--json"]);
    let listed: Vec<serde_json::Value> = listed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let states: Vec<_> = listed.iter().map(|key| (&key["key"], &key["region"], &key["state"])).collect();
    let (one, two, region) = (json!(1), json!(2), json!("EU"));
    assert_eq!(states, [(&one, &region, &json!("ended")), (&two, &region, &json!("seals"))]);
    assert!(listed[0]["until"].is_string() && listed[1]["until"].is_null() && listed[1]["public"].is_string());
    let ended = format!("firsthop_key_expiry_seconds{{tenant=\"{}\",kind=\"region\",key_id=\"1\"}}", tenant.id);
    until("the end of the old one", || server.metric(&ended) < 0.0);
    assert_eq!(client.frame(&delayed).receipt().stored, 2);
    assert_eq!(client.frame(&new.frame(1)).receipt().count, 1);
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 1 + 3 + 2 + 2);
    folder.ok(&["verify"]);
}

#[test]
fn without_the_key_nothing_is_lost_and_with_it_all_is_there() {
    let (folder, tenant, mut page, put_back) = keyless();

    // What comes is set aside, and what is there waits: no sink passes it over.
    let mut server = folder.serve();
    let late = page.frame(2);
    let refused = server.client().frame(&late);
    assert_eq!((refused.status, refused.code().as_str()), (501, "sealed-unsupported"));
    assert!(refused.verdict().ends_with("quarantined=2"), "{refused:?}");
    server.says("sealed to region key 1 of EU, and keys.toml does not have it");
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 0);
    let said = folder.ok(&["verify"]);
    assert!(said.contains("2 frames are sealed to region keys that keys.toml does not have (1 of EU)"), "{said}");
    let shown = folder.ok(&["quarantine", "show", "1"]);
    assert!(shown.contains("would be refused again") && !shown.contains("Product Viewed"), "{shown}");
    let said = folder.ok(&["erase", "--dry-run", "--user", "somebody"]);
    assert!(said.contains("3 frames or entries in quarantine are sealed and do not open"), "{said}");

    put_back();
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 5);
    let shown = folder.ok(&["quarantine", "show", "1"]);
    assert!(shown.contains("passes the checks now") && shown.contains("Product Viewed"), "{shown}");
    let said = folder.ok(&["quarantine", "replay", "--all"]);
    assert!(said.contains('2'), "{said}");
    assert_eq!(server.client().frame(&late).receipt().duplicate, 2);
    tenant.settle();
    assert_eq!((tenant.events("SELECT COUNT(*) FROM events"), tenant.quarantine().len()), (7, 0));
    assert!(folder.ok(&["verify"]).contains("as it was written"));
    server.stop();
    folder.ok(&["reconcile"]);
}

/// The key is lost for good. A sink stops before what was sealed to it, says what has it go on, and goes on so.
#[test]
fn a_sink_is_moved_behind_what_nobody_can_open() {
    let (folder, tenant) = shop();
    let mut server = folder.serve();
    page(&folder, &tenant).begin(&mut server.client());
    tenant.settle();
    server.stop();
    drop(take_keys(&tenant));
    fs::remove_file(tenant.folder.join("events.db")).expect("there");
    let mut server = folder.serve();
    assert_eq!(server.client().frame(&Page::new(&tenant).frame(2)).receipt().stored, 2);
    server.says("`firsthop replay --sink events --from 2`");
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 0);
    folder.ok(&["replay", "--sink", "events", "--from", "2"]);
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 2);
    server.stop();
}

/// The newest key is taken out by hand, another is made, and a hand gives that the number of the one before.
#[test]
fn another_key_in_the_place_of_one_loses_nothing() {
    let (folder, tenant, _, put_back) = keyless();
    folder.ok(&["region-key", "new"]);
    let listed: serde_json::Value =
        serde_json::from_str(folder.ok(&["region-key", "list", "--json"]).trim()).expect("one key");
    assert_eq!(listed["key"], 2, "a number is never given again");
    let path = tenant.folder.join("keys.toml");
    let file = fs::read_to_string(&path).expect("there");
    fs::write(&path, file.replace("\nid = 2\n", "\nid = 1\n")).expect("written");

    let mut server = folder.serve();
    server.says("what keys.toml has under that number does not open it");
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 0);
    let said = folder.ok(&["verify"]);
    assert!(said.contains("keys.toml does not have (1 of EU), or has others in their places"), "{said}");
    let backup = folder.path.with_file_name("backup");
    folder.ok(&["backup", "--to", backup.to_str().expect("text")]);
    Folder::new().ok(&["restore", "--from", backup.to_str().expect("text")]);
    put_back();
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 5);
    assert!(folder.ok(&["verify"]).contains("2 frames are sealed, and open"));
    server.stop();
}

/// A frame of three events, of which the second and the third have ids of another vendor's.
fn with_ids(tenant: &Tenant, key: Option<&(Region, RegionPublicKey)>, source: SourceId, title: &str) -> Vec<u8> {
    let mut header = Header::new(tenant.id, source, Timestamp::from_millis(1_790_000_000_000));
    header.region = eu();
    let mut writer = FrameWriter::new(vec![0; 8192], &header).expect("room");
    writer.extension(ExtensionKind::WriteKey, tenant.key.as_bytes()).expect("room");
    if let Some((_, key)) = key {
        writer.seal_to(key).expect("room");
    }
    writer.context(&Context { title: Some(title), ..Context::default() }).expect("room");
    for id in [None, Some("m-1"), Some("m-2")] {
        let id = id.map(|id| ForeignId { vendor: Vendor::Segment, id });
        writer.event(&Event { name: "Seen", id, ..Event::default() }).expect("room");
    }
    match key {
        Some(_) => writer.finish_sealed(&Unsigned, &random()).expect("finished").to_vec(),
        None => writer.finish(&Unsigned).expect("finished").to_vec(),
    }
}

/// What ids of other vendors' stand in a sealed frame only its key tells. Killed before anything has settled, and started without that
/// key, the server knows them all the same: while the key is away, and when it is back.
#[test]
fn what_is_sealed_is_known_again_without_its_key() {
    let (folder, tenant) = shop();
    let mut server = folder.serve();
    let (key, source) = (pinned(&folder, &tenant), SourceId::new(random()));
    let sealed = with_ids(&tenant, Some(&key), source, "one");
    assert_eq!(server.client().frame(&sealed).receipt().stored, 3);
    tenant.settle();
    server.kill();
    let put_back = take_keys(&tenant);
    let mut server = folder.serve();
    // The same two events in clear, and one that is new.
    let receipt = server.client().frame(&with_ids(&tenant, None, SourceId::new(random()), "one")).receipt();
    assert_eq!((receipt.stored, receipt.duplicate, receipt.conflict), (1, 2, 0));
    let missing = "1 frames are sealed to region keys that keys.toml does not have (1 of EU)";
    let said = folder.ok(&["verify"]);
    assert!(said.contains(missing) && said.contains("as it was written"), "{said}");
    server.stop();
    folder.ok(&["reconcile"]);
    let backup = folder.path.with_file_name("backup");
    folder.ok(&["backup", "--to", backup.to_str().expect("text")]);
    let restored = Folder::new().ok(&["restore", "--from", backup.to_str().expect("text")]);
    assert!(restored.contains(&format!("WARNING: {missing}")), "{restored}");

    put_back();
    let mut server = folder.serve();
    assert_eq!(server.client().frame(&sealed).receipt().duplicate, 3);
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 4);
    assert!(folder.ok(&["verify"]).contains("1 frames are sealed, and open"));
    server.stop();
    folder.ok(&["verify"]);
    folder.ok(&["reconcile"]);
}

/// The header is part of what is sealed, and so is for whom.
#[test]
fn a_seal_opens_under_its_own_header_only() {
    let (folder, tenant) = shop();
    let server = folder.serve();
    let mut client = server.client();
    let mut good = page(&folder, &tenant);
    let frame = good.frame(1);
    let change = |at: usize, to: &[u8]| {
        let mut frame = frame.clone();
        frame[at..at + to.len()].copy_from_slice(to);
        frame[80..84].fill(0);
        let crc = firsthop_core::crc32(&[&frame[..]]);
        frame[80..84].copy_from_slice(&crc.to_le_bytes());
        frame
    };
    let (last, payload) = (frame.len() - 1, usize::from(u16::from_le_bytes([frame[6], frame[7]])));
    let cases = [
        ("consent", change(43, &[7])),
        ("number", change(56, &[9])),
        ("encapsulated key", change(payload, &[frame[payload] ^ 1])),
        ("tag", change(last, &[frame[last] ^ 1])),
    ];
    for (what, bytes) in &cases {
        let refused = client.frame(bytes);
        assert_eq!((refused.status, refused.code().as_str()), (400, "bad-seal"), "{what}");
        assert!(refused.verdict().ends_with("quarantined=1"), "{what}: {refused:?}");
    }
    // To the same number, and another's key.
    let stranger = RegionSecretKey::new(RegionKeyId::new(1), random()).public();
    let mut wrong = Page { sealed_to: Some((eu(), stranger)), ..Page::new(&tenant) };
    assert_eq!(client.frame(&wrong.frame(1)).code(), "bad-seal");
    assert_eq!(tenant.quarantine(), [("bad-seal".to_owned(), 5)].into());
    assert_eq!(client.frame(&frame).receipt().stored, 1);
    folder.ok(&["verify"]);
}

const PERSON: &str = "person-4711@example.com";

/// A frame with events of two people, sealed.
fn of_two(tenant: &Tenant, key: &(Region, RegionPublicKey), source: SourceId, title: &str) -> Vec<u8> {
    let mut header = Header::new(tenant.id, source, Timestamp::from_millis(1_790_000_000_000));
    header.region = key.0;
    let mut writer = FrameWriter::new(vec![0; 8192], &header).expect("room");
    writer.extension(ExtensionKind::WriteKey, tenant.key.as_bytes()).expect("room");
    writer.seal_to(&key.1).expect("room");
    writer.context(&Context { user_id: Some("other-1"), ..Context::default() }).expect("room");
    for user in ["other-1", PERSON, "other-1"] {
        let mut buffer = [0; 256];
        let own = Context { user_id: Some(user), title: Some(title), ..Context::default() };
        let context = ContextDelta::encode(&own, &mut buffer).expect("room");
        writer.event(&Event { name: "Seen", context, ..Event::default() }).expect("room");
    }
    writer.finish_sealed(&Unsigned, &random()).expect("finished").to_vec()
}

#[test]
fn nothing_of_a_person_is_left_of_what_was_sealed() {
    let (folder, tenant) = shop();
    let mut server = folder.serve();
    let mut client = server.client();
    let key = pinned(&folder, &tenant);
    let source = SourceId::new(random());
    let (frame, contradiction) = (of_two(&tenant, &key, source, "one"), of_two(&tenant, &key, source, "two"));
    assert_eq!(client.frame(&frame).receipt().stored, 3);
    assert_eq!(client.frame(&contradiction).receipt().conflict, 3);
    assert_eq!(client.frame(&of_two(&tenant, &key, SourceId::new(random()), "three")).receipt().stored, 3);
    tenant.settle();
    let found = folder.ok(&["erase", "--dry-run", "--user", PERSON]);
    assert!(
        found.contains("2 stored events in 2 frames, 2 rows of the events table, 1 entries in quarantine"),
        "{found}"
    );
    assert!(!found.contains("do not open"), "{found}");
    folder.ok(&["erase", "--yes", "--user", PERSON]);

    assert_eq!(grep(&folder.path, PERSON.as_bytes()), Vec::<String>::new());
    // Nor what whoever has the key could open.
    for sealed in [&frame, &contradiction] {
        let middle = sealed.len() / 2 + 40;
        assert_eq!(grep(&folder.path, &sealed[middle..middle + 24]), Vec::<String>::new());
    }
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events WHERE user_id = 'other-1'"), 4);
    let said = folder.ok(&["verify"]);
    assert!(said.contains("erased from 2 frames") && said.contains("as it was written"), "{said}");
    assert_eq!(client.frame(&frame).receipt().duplicate, 3, "a retry brings nobody back");
    server.stop();
    fs::remove_file(tenant.folder.join("events.db")).expect("there");
    let mut server = folder.serve();
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 4);
    server.stop();
    folder.ok(&["reconcile"]);
}

/// Bodies whose time is over go, sealed or not; what was in them is known for ever.
#[test]
fn retention_removes_what_was_sealed() {
    let (folder, tenant) = shop();
    let path = tenant.folder.join("tenant.toml");
    let text = fs::read_to_string(&path).expect("there");
    fs::write(&path, format!("{text}\n[retention]\nmax_age = '1s'\n")).expect("written");
    let server = folder.serve();
    let mut client = server.client();
    let mut page = page(&folder, &tenant);
    page.begin(&mut client);
    let frame = page.frame(3);
    assert_eq!(client.frame(&frame).receipt().stored, 3);
    let (key, source) = (pinned(&folder, &tenant), SourceId::new(random()));
    let first = of_two(&tenant, &key, source, "one");
    assert_eq!(client.frame(&first).receipt().stored, 3);
    assert_eq!(client.frame(&of_two(&tenant, &key, source, "one")).receipt().duplicate, 3, "while its body is there");
    until("the bodies go", || tenant.journal("SELECT COUNT(*) FROM frames WHERE LENGTH(body) > 0") == 0);
    assert_eq!(client.frame(&frame).receipt().duplicate, 3);
    // Sealed once more it is other bytes, and what they say is compared.
    assert_eq!(client.frame(&of_two(&tenant, &key, source, "one")).receipt().duplicate, 3);
    assert_eq!(client.frame(&of_two(&tenant, &key, source, "two")).receipt().conflict, 3);
    folder.ok(&["verify"]);
}

/// A key that was taken away for good keeps nothing for ever: what is delivered goes when its time is over.
#[test]
fn retention_removes_what_nobody_can_open_any_more() {
    let (folder, tenant) = shop();
    let mut server = folder.serve();
    let (key, source) = (pinned(&folder, &tenant), SourceId::new(random()));
    let frame = of_two(&tenant, &key, source, "one");
    assert_eq!(server.client().frame(&frame).receipt().stored, 3);
    let other = SourceId::new(random());
    let ids = with_ids(&tenant, Some(&key), other, "one");
    assert_eq!(server.client().frame(&ids).receipt().stored, 3);
    tenant.settle();
    server.stop();
    let put_back = take_keys(&tenant);
    let path = tenant.folder.join("tenant.toml");
    let text = fs::read_to_string(&path).expect("there");
    fs::write(&path, format!("{text}\n[retention]\nmax_age = '1s'\n")).expect("written");
    let server = folder.serve();
    until("the bodies go", || tenant.journal("SELECT COUNT(*) FROM frames WHERE LENGTH(body) > 0") == 0);
    assert!(folder.ok(&["verify"]).contains("removed the bodies of 2 frames"));
    // Its numbers are known still, and no more: whatever comes under them is a repeat.
    put_back();
    until("the key", || server.client().frame(&frame).status == 200);
    assert_eq!(server.client().frame(&frame).receipt().duplicate, 3);
    assert_eq!(server.client().frame(&of_two(&tenant, &key, source, "two")).receipt().duplicate, 3);
    // What is known by another vendor's id is compared still.
    assert_eq!(server.client().frame(&ids).receipt().duplicate, 3);
    let receipt = server.client().frame(&with_ids(&tenant, Some(&key), other, "two")).receipt();
    assert_eq!((receipt.stored, receipt.duplicate, receipt.conflict), (0, 1, 2));
    folder.ok(&["verify"]);
}

/// A key that somebody else has sealed to: the core's vectors.
pub(crate) fn region_key(tenant: &Tenant, id: u64, region: &str, secret: &[u8]) {
    let path = tenant.folder.join("keys.toml");
    let text = fs::read_to_string(&path).expect("there");
    let secret = BASE64_STANDARD.encode(secret);
    let pair = format!(
        "\n[[region_keys]]\nid = {id}\nregion = \"{region}\"\nfrom = \"2023-01-01T00:00:00Z\"\nsecret = \"{secret}\"\n"
    );
    fs::write(&path, text + &pair).expect("written");
}

/// What an edge outside the region posts here: the page's bytes, and the headers that say what they are and which page sent them.
#[test]
fn what_an_edge_passes_on_unread_is_a_pages_own_request() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--region", "EU", "--origin", "https://shop.example"]);
    folder.ok(&["region-key", "new"]);
    let mut server = folder.serve();
    let mut client = server.client();
    let mut page = page(&folder, &tenant);
    let headers = |origin| [("Origin", origin), ("Content-Type", "text/plain"), ("Firsthop-Forwarded", "EU")];
    let first = page.frame(2);
    let mut forward = |origin, body: &[u8]| client.request("POST", "/v1/f", &headers(origin), body);
    assert_eq!(forward("https://evil.example", &first).code(), "wrong-origin");
    let receipt = forward("https://shop.example", &first).receipt();
    assert_eq!(receipt.stored, 2);
    page.session = receipt.session;
    let second = page.frame(3);
    // The session is bound to the page's origin, and holds whichever way the frame comes.
    assert_eq!(forward("https://evil.example", &second).code(), "wrong-origin");
    assert_eq!(forward("https://shop.example", &second).receipt().stored, 3);
    assert_eq!(forward("https://shop.example", &second).receipt().duplicate, 3);
    let call = r#"{"event":"Forwarded","userId":"u","messageId":"m"}"#;
    let authorization = format!("Basic {}", BASE64_STANDARD.encode(format!("{}:", tenant.key)));
    let call = client.request(
        "POST",
        "/v1/track",
        &[("Authorization", &authorization), ("Origin", "https://shop.example"), ("Firsthop-Forwarded", "EU")],
        call.as_bytes(),
    );
    assert_eq!(call.verdict(), "stored=1, duplicate=0, conflict=0, quarantined=0");
    // A page that comes by itself has an address of its own; of the others it would be the edge's.
    let direct = client.request("POST", "/v1/f", &[("Origin", "https://shop.example")], &page.frame(1));
    assert_eq!(direct.receipt().stored, 1);
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events WHERE network IS NULL"), 6);
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events WHERE network = '127.0.0.0/24'"), 1);
    server.stop();
    folder.ok(&["verify"]);
}
