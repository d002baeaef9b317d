//! Rules on whole frames: what is left of one, what is noted, and that its identity is the producer's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use firsthop_core::{
    Alg, Annotation, Consent, Context, ContextDelta, Effects, Event, EventKind, ExtensionKind, Flags, ForeignId, Frame,
    FrameWriter, HashKey, Header, MacKey, Network, PropertiesWriter, ReferrerClass, SourceId, TenantId, Timestamp,
    Value, Vendor,
    limits::{MAX_EVENT, MAX_FRAME},
};
use firsthop_intake::{
    Facts,
    json::{Json, read_entries, to_string},
    rules::{Applied, Rules, apply, unread},
};
use serde_json::{Value as Tree, json};

const NOW: u64 = 1_700_000_000_000;
const URL: &str = "https://shop.example/p?a=1&utm_source=news&gclid=G1#top";
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn rules(json: Tree) -> Rules {
    let rules: Rules = serde_json::from_value(json).unwrap();
    rules.check().unwrap();
    rules
}

fn key() -> HashKey {
    HashKey::new([9; 32])
}

/// A signed frame of four events, with everything in it that says who it was.
fn frame(consent: Consent) -> Vec<u8> {
    let key = MacKey::new(Alg::HmacSha256Trunc128, &[7; 32]).unwrap();
    let mut header = Header::new(TenantId::new(1), SourceId::new([2; 16]), Timestamp::from_millis(NOW - 5_000));
    header = Header { flags: Flags::TRUST, alg: Alg::HmacSha256Trunc128, consent, ..header };
    (header.batch_seq, header.first_seq, header.dropped, header.region) = (3, 40, 2, "EU".parse().unwrap());
    let mut writer = FrameWriter::new(vec![0; 8192], &header).unwrap();
    writer.extension(ExtensionKind::Traceparent, TRACE.as_bytes()).unwrap();
    writer.extension(ExtensionKind::Session, &[0; 30]).unwrap();
    let (mut extra, mut values) = (block(), block());
    read_entries(r#"{"traits":{"email":"ada@example.com"},"app":"shop"}"#, &mut extra).unwrap();
    read_entries(r#"{"sku":"G-32","customer":{"email":"ada@example.com","tier":2}}"#, &mut values).unwrap();
    let shared = Context {
        anonymous_id: Some("anon-1"),
        user_id: Some("ada"),
        user_agent: Some("agent"),
        url: Some(URL),
        referrer: Some("https://www.google.com/search?q=x"),
        extra: extra.finish().unwrap(),
        ..Context::default()
    };
    writer.context(&shared).unwrap();
    let other = Context { user_id: Some("bob"), session_id: Some("s-1"), ..Context::default() };
    let mut delta = [0; 256];
    let delta = ContextDelta::encode(&other, &mut delta).unwrap();
    let properties = values.finish().unwrap();
    let track = Event { name: "Bought", properties, ..Event::default() };
    for event in [
        track,
        Event { kind: EventKind::Identify, name: "", context: delta, ..track },
        Event { kind: EventKind::Alias, name: "old-ada", ..Event::default() },
        Event { id: Some(ForeignId { vendor: Vendor::Segment, id: "m-1" }), ..track },
    ] {
        writer.event(&event).unwrap();
    }
    writer.finish(&key).unwrap().to_vec()
}

fn block() -> PropertiesWriter<Vec<u8>> {
    PropertiesWriter::new(vec![0; 4096], vec![0; 4096])
}

fn facts() -> Facts<'static> {
    Facts {
        network: Network::V4([192, 0, 2]),
        country: Some("CH"),
        pop: Some("ZRH"),
        subdivision: Some("ZH"),
        city: Some("Zürich"),
        ..Facts::at(Timestamp::from_millis(NOW))
    }
}

const NOTED: Annotation<'static> = Annotation {
    received_ms: NOW,
    pop: "ZRH",
    country: "CH",
    network: Network::V4([192, 0, 2]),
    agent: firsthop_core::AgentClass::Desktop,
    traffic: firsthop_core::Traffic::Human,
    trust: firsthop_core::Trust::Session,
    refused: "",
};

fn applied(rules: &Rules, facts: &Facts<'static>, bytes: &[u8]) -> Applied<'static> {
    apply(rules, Some(&key()), facts, &NOTED, &Frame::parse(bytes).unwrap()).unwrap()
}

/// What a frame says, as JSON: each event with its whole context.
fn says(bytes: &[u8]) -> Vec<Tree> {
    let frame = Frame::parse(bytes).unwrap();
    let (shared, events) = frame.open().unwrap();
    let each = events.map(|event| {
        let event = event.unwrap();
        let parse = |text: String| serde_json::from_str::<Tree>(&text).unwrap();
        json!({
            "kind": event.kind.as_str(),
            "name": event.name,
            "id": event.id.map(|id| id.id),
            "context": parse(to_string(Json(event.context.apply(&shared).unwrap()))),
            "properties": parse(to_string(Json(event.properties))),
        })
    });
    each.collect()
}

/// What no rule changes: by it an event is the same event.
fn assert_same_identity(before: &[u8], after: &[u8]) {
    let (before, after) = (Frame::parse(before).unwrap(), Frame::parse(after).unwrap());
    let unsigned = Header { flags: Flags::default(), alg: Alg::None, ..*before.header() };
    assert_eq!(*after.header(), unsigned);
    let rewritten = after.rewritten().unwrap();
    assert_eq!(after.traceparent(), (!rewritten.suppressed).then_some(TRACE));
    let others = after.extensions().count() - usize::from(!rewritten.suppressed);
    assert_eq!(others, 1, "neither a session nor a write key");
    assert!(rewritten.trusted && before.rewritten().is_none());
    let ids = |frame: &Frame<'_>| {
        let (_, events) = frame.open().unwrap();
        events.map(|event| event.unwrap().id.map(|id| id.id.to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(ids(&before), ids(&after));
}

#[test]
fn without_rules_a_frame_stays_as_it_came() {
    let granted = Consent::ANALYTICS.with(Consent::MARKETING);
    let bytes = frame(granted);
    let applied = applied(&Rules::default(), &facts(), &bytes);
    assert_eq!((applied.frame.as_deref(), applied.annotation), (None, NOTED));
    let notes = applied.notes();
    assert_eq!((notes.rules, notes.effects, notes.withdrawn), (0, Effects::default(), Consent::NONE));
    assert_eq!((notes.referrer, notes.click_id), (ReferrerClass::Campaign, "gclid=G1"));
    assert_eq!(notes.campaign.unwrap().source, Some("news"));
    assert_eq!((notes.skew_ms, notes.subdivision, notes.city), (0, "", ""));
}

#[test]
fn gpc_takes_consent_back() {
    let gpc = Facts { gpc: Some("1"), ..facts() };
    let needs = rules(json!({"consent": {"required": ["marketing"], "without": "suppress"}}));
    let deaf = rules(json!({"consent": {"required": ["marketing"], "without": "suppress", "gpc": []}}));
    let (all, little) = (Consent::ANALYTICS.with(Consent::MARKETING), Consent::ANALYTICS);
    let (gpc_effect, gone) = (Effects::GPC, Effects::SUPPRESSED.with(Effects::REWRITTEN));
    for (rules, facts, granted, effects, withdrawn, click_id) in [
        (&Rules::default(), &gpc, all, gpc_effect, Consent::MARKETING, ""),
        (&Rules::default(), &gpc, little, Effects::default(), Consent::NONE, ""),
        (&Rules::default(), &facts(), all, Effects::default(), Consent::NONE, "gclid=G1"),
        (&needs, &facts(), all, Effects::default(), Consent::NONE, "gclid=G1"),
        (&needs, &gpc, all, gone.with(gpc_effect), Consent::MARKETING, ""),
        (&needs, &facts(), little, gone, Consent::NONE, ""),
        (&deaf, &gpc, all, Effects::default(), Consent::NONE, "gclid=G1"),
    ] {
        let bytes = frame(granted);
        let applied = applied(rules, facts, &bytes);
        let notes = applied.notes();
        assert_eq!((notes.effects, notes.withdrawn, notes.click_id), (effects, withdrawn, click_id), "{rules:?}");
        assert_eq!(notes.rules, rules.fingerprint());
    }
}

#[test]
fn what_is_suppressed_leaves_numbers_and_nothing_else() {
    let bytes = frame(Consent::NECESSARY);
    let rules =
        rules(json!({"consent": {"required": ["analytics"], "without": "suppress"}, "place": {"precision": "city"}}));
    let applied = applied(&rules, &facts(), &bytes);
    let written = applied.frame.clone().unwrap();
    assert_same_identity(&bytes, &written);
    let blank = |id: Option<&str>| json!({"kind": "track", "name": "", "id": id, "context": {}, "properties": {}});
    assert_eq!(says(&written), [blank(None), blank(None), blank(None), blank(Some("m-1"))]);
    let notes = applied.notes();
    assert_eq!((notes.subdivision, notes.city, notes.campaign, notes.click_id), ("", "", None, ""));
    assert_eq!((notes.referrer, applied.annotation.network), (ReferrerClass::Unknown, Network::Unknown));
    for trace in [&b"ada"[..], TRACE.as_bytes(), b"anon", b"gclid", b"Bought", b"shop", b"G-32"] {
        assert!(!written.windows(trace.len()).any(|part| part == trace), "{}", trace.escape_ascii());
    }
}

#[test]
fn who_it_was_is_taken_out() {
    let bytes = frame(Consent::NECESSARY);
    let rules = rules(json!({"consent": {"required": ["analytics"], "without": "anonymise"}, "session": "source",
        "campaign": {"keep_click_ids": "always"}, "place": {"precision": "city"}}));
    let applied = applied(&rules, &facts(), &bytes);
    let written = applied.frame.clone().unwrap();
    assert_same_identity(&bytes, &written);
    let context = json!({"url": "https://shop.example/p", "referrer": "https://www.google.com/search"});
    let values = json!({"sku": "G-32", "customer": {"email": "ada@example.com", "tier": 2}});
    let event = |kind, name, id: Option<&str>, properties: &Tree| json!({"kind": kind, "name": name, "id": id, "context": context, "properties": properties});
    assert_eq!(
        says(&written),
        [
            event("track", "Bought", None, &values),
            event("identify", "", None, &json!({})),
            event("alias", "", None, &json!({})),
            event("track", "Bought", Some("m-1"), &values),
        ]
    );
    let notes = applied.notes();
    assert_eq!(notes.effects, Effects::ANONYMISED.with(Effects::REWRITTEN));
    assert_eq!((notes.click_id, notes.subdivision, notes.city), ("", "", ""));
    assert_eq!((applied.annotation.network, applied.annotation.country), (Network::Unknown, "CH"));
    assert_eq!(notes.campaign.unwrap().source, Some("news"), "a campaign is nobody");
}

#[test]
fn lists_ids_and_urls() {
    let bytes = frame(Consent::ANALYTICS);
    let rules = rules(json!({
        "ids": {"user": "hash", "anonymous": "remove"},
        "properties": {"deny": ["customer.tier"], "hash": ["customer.email"]},
        "traits": {"allow": ["sku"]},
        "context": {"hash": ["traits.email"]},
        "campaign": {"cut_click_ids": true},
    }));
    let applied = applied(&rules, &facts(), &bytes);
    let written = applied.frame.clone().unwrap();
    assert_same_identity(&bytes, &written);
    let hash = |text: &str| key().hash(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let email = hash("ada@example.com");
    let context = |user: &str| {
        json!({"userId": hash(user), "userAgent": "agent", "url": "https://shop.example/p?a=1&utm_source=news#top",
            "referrer": "https://www.google.com/search?q=x", "extra": {"traits": {"email": email}, "app": "shop"}})
    };
    let values = json!({"sku": "G-32", "customer": {"email": email}});
    let mut identify = context("bob");
    identify["sessionId"] = "s-1".into();
    let said = says(&written);
    assert_eq!(
        said[0],
        json!({"kind": "track", "name": "Bought", "id": null, "context": context("ada"), "properties": values})
    );
    assert_eq!((&said[1]["context"], &said[1]["properties"]), (&identify, &json!({"sku": "G-32"})));
    assert_eq!(said[2]["name"], json!(""), "it may be a visitor's");
    assert_eq!((&said[3]["id"], &said[3]["properties"]), (&json!("m-1"), &values));
    let effects = [Effects::REWRITTEN, Effects::REMOVED, Effects::HASHED, Effects::CUT_CLICK_IDS];
    assert_eq!(applied.notes().effects, effects.into_iter().fold(Effects::default(), Effects::with));
    // Again, and elsewhere: the same bytes.
    assert_eq!(self::applied(&rules, &facts(), &bytes).frame, Some(written));
}

/// The previous id of an alias is a user's or a visitor's, and nobody says which.
#[test]
fn the_stricter_rule_for_ids_holds_for_an_alias() {
    let hash: String = key().hash(b"old-ada").iter().map(|byte| format!("{byte:02x}")).collect();
    for (user, anonymous, expected) in [
        ("hash", "keep", &*hash),
        ("keep", "hash", &*hash),
        ("hash", "hash", &*hash),
        ("keep", "remove", ""),
        ("remove", "hash", ""),
    ] {
        let rules = rules(json!({"ids": {"user": user, "anonymous": anonymous}}));
        let written = applied(&rules, &facts(), &frame(Consent::NONE)).frame.unwrap();
        assert_eq!(says(&written)[2]["name"], json!(expected), "{user} {anonymous}");
    }
}

/// A page's URL also stands where libraries put it: among the properties, in another context, as an event's name.
#[test]
fn urls_in_values_are_cut_too() {
    let header = Header::new(TenantId::new(1), SourceId::new([2; 16]), Timestamp::from_millis(NOW));
    let mut writer = FrameWriter::new(vec![0; 8192], &header).unwrap();
    let (mut extra, mut values) = (block(), block());
    read_entries(r#"{"page":{"search":"?a=1&gclid=G1"}}"#, &mut extra).unwrap();
    let said = r#"{"url":"https://shop.example/p?mail=a%40b&gclid=G1#top","seen":["/p?GCLID=G2&b=2",{"ask":"who? me?gclid=G3"}],"n":1}"#;
    read_entries(said, &mut values).unwrap();
    writer.context(&Context { extra: extra.finish().unwrap(), ..Context::default() }).unwrap();
    let properties = values.finish().unwrap();
    for (kind, name) in [(EventKind::Page, "/p?fbclid=F1"), (EventKind::Identify, "")] {
        writer.event(&Event { kind, name, properties, ..Event::default() }).unwrap();
    }
    let bytes = writer.finish(&firsthop_core::Unsigned).unwrap().to_vec();

    let cut = applied(&rules(json!({"campaign": {"cut_click_ids": true}})), &facts(), &bytes);
    assert_eq!(cut.notes().effects, Effects::CUT_CLICK_IDS.with(Effects::REWRITTEN));
    let said = says(&cut.frame.unwrap());
    let values = json!({"url": "https://shop.example/p?mail=a%40b#top", "seen": ["/p?b=2", {"ask": "who? me?gclid=G3"}], "n": 1});
    assert_eq!((&said[0]["name"], &said[0]["properties"]), (&json!("/p"), &values));
    assert_eq!((&said[0]["context"]["extra"], &said[1]["properties"]), (&json!({"page": {"search": "?a=1"}}), &values));

    let rules = rules(json!({"consent": {"required": ["analytics"], "without": "anonymise"}}));
    let said = says(&applied(&rules, &facts(), &bytes).frame.unwrap());
    let values = json!({"url": "https://shop.example/p", "seen": ["/p", {"ask": "who? me?gclid=G3"}], "n": 1});
    assert_eq!((&said[0]["name"], &said[0]["properties"]), (&json!("/p"), &values));
    assert_eq!((&said[1]["context"], &said[1]["properties"]), (&json!({}), &json!({})));
}

/// What no entry names stays as the producer signed it.
#[test]
fn where_lists_find_nothing_a_frame_stays_as_it_came() {
    let bytes = frame(Consent::NONE);
    let rules = rules(json!({"properties": {"deny": ["card"], "hash": ["phone"]}, "session": "source",
        "place": {"precision": "subdivision", "network": false}}));
    let applied = applied(&rules, &facts(), &bytes);
    assert_eq!(applied.frame, None);
    let notes = applied.notes();
    assert_eq!((notes.effects, notes.subdivision, notes.city), (Effects::SESSION, "ZH", ""));
    assert_eq!(applied.annotation, Annotation { network: Network::Unknown, ..NOTED });
}

#[test]
fn a_hop_that_cannot_read_or_hash_leaves_it_to_the_next() {
    let bytes = frame(Consent::MARKETING);
    let parsed = Frame::parse(&bytes).unwrap();
    let rules = rules(json!({"ids": {"user": "hash"}, "place": {"precision": "city", "network": false}}));
    assert_eq!(apply(&rules, None, &facts(), &NOTED, &parsed).unwrap_err(), firsthop_core::Error::UnknownKey);
    let gpc = Facts { gpc: Some("1"), ..facts() };
    let applied = unread(&rules, &gpc, &NOTED, parsed.header());
    let notes = applied.notes();
    assert_eq!((applied.frame.as_deref(), applied.annotation.network), (None, Network::Unknown));
    assert_eq!((notes.effects, notes.withdrawn), (Effects::UNREAD.with(Effects::GPC), Consent::MARKETING));
    assert_eq!((notes.city, notes.referrer, notes.campaign), ("Zürich", ReferrerClass::Unknown, None));
}

/// An event of nothing but short texts that are to be hashed, as large as one may be: there is no room for their hashes, and what was to be
/// hashed is not there in the clear either.
#[test]
fn where_hashes_do_not_fit_values_are_left_out() {
    let mut values = PropertiesWriter::new(vec![0; MAX_EVENT], vec![0; MAX_EVENT]);
    for number in 0..1000 {
        values.put(&format!("k{number:03}"), Value::Str("abcd")).unwrap();
    }
    let header = Header::new(TenantId::new(1), SourceId::new([2; 16]), Timestamp::from_millis(NOW));
    let mut writer = FrameWriter::new(vec![0; MAX_FRAME], &header).unwrap();
    writer.context(&Context::EMPTY).unwrap();
    writer.event(&Event { name: "e", properties: values.finish().unwrap(), ..Event::default() }).unwrap();
    let bytes = writer.finish(&firsthop_core::Unsigned).unwrap().to_vec();
    let rules = rules(json!({"properties": {"hash": ["*"]}}));
    let applied = applied(&rules, &facts(), &bytes);
    assert_eq!(applied.notes().effects, Effects::REMOVED.with(Effects::REWRITTEN));
    assert_eq!(says(&applied.frame.unwrap())[0]["properties"], json!({}));
}
