//! Segment's HTTP API: what its SDKs send, and what becomes of it.
#![allow(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

mod common;

use std::collections::HashSet;

use base64::{Engine, prelude::BASE64_STANDARD};
use common::{calls::*, *};
use firsthop_core::{Consent, ExtensionKind, Frame, SourceId, Trust};
use firsthop_intake::{
    Facts, Rooted,
    segment::{Accepted, Call},
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// What `@segment/analytics-node` 3.1 sends for a `track`, but for the write key.
#[test]
fn a_batch_of_analytics_node() {
    let body = format!(
        r#"{{"batch":[{{"properties":{{"sku":"G-32","price":18.99,"quantity":2,"gift":false,"coupon":null,
        "tags":["a",{{"b":-1}}]}},"event":"Product Added","type":"track","userId":"u-1","anonymousId":"a-1",
        "integrations":{{"All":true}},"timestamp":"2023-11-14T22:13:19.500Z","_metadata":{{"nodeVersion":"22.1.0",
        "jsRuntime":"node"}},"context":{{"library":{{"name":"@segment/analytics-node","version":"3.1.0"}}}},
        "messageId":"node-next-1699999999500-d1"}}],"writeKey":"{KEY}","sentAt":"2023-11-14T22:13:20.000Z"}}"#
    );
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{KEY}:")));
    let facts = Facts {
        authorization: Some(&basic),
        content_type: Some("application/json"),
        user_agent: Some("analytics-node-next/latest"),
        ..Facts::at(NOW)
    };
    let accepted = send_as(Call::Batch, body.as_bytes(), &facts).unwrap();
    assert_eq!(accepted.annotation.trust, Trust::WriteKey);
    assert_eq!(accepted.annotation.agent.as_str(), "library");
    let expected = json!({
        "kind": "track",
        "id": "node-next-1699999999500-d1",
        "name": "Product Added",
        // Sent half a second after it happened; it arrived when it was sent.
        "time": 1_699_999_999_500u64,
        "context": {
            "userId": "u-1",
            "anonymousId": "a-1",
            "extra": {
                "library": { "name": "@segment/analytics-node", "version": "3.1.0" },
                "segment": {
                    "integrations": { "All": true },
                    "timestamp": "2023-11-14T22:13:19.500Z",
                    "_metadata": { "nodeVersion": "22.1.0", "jsRuntime": "node" },
                },
            },
        },
        "properties": { "sku": "G-32", "price": 18.99, "quantity": 2, "gift": false, "coupon": null, "tags": ["a", { "b": -1 }] },
    });
    assert_eq!(events(&accepted)[0].0, expected);

    let frame = Frame::parse(&accepted.frames[0]).unwrap();
    let header = frame.header();
    assert_eq!((header.tenant, header.count, header.batch_seq, header.first_seq), (TENANT, 1, 0, 0));
    assert_eq!((header.created, header.region), (NOW, region("EU")));
    assert_eq!(frame.extensions().get(ExtensionKind::WriteKey), Some(KEY.as_bytes()));
    // It is a frame like any other.
    let again = firsthop_intake::native::receive(&accepted.frames[0], &Facts::at(NOW), known(server())).unwrap();
    assert_eq!(again.annotation.trust, Trust::WriteKey);
}

/// What the browser's SDK sends for a page, on its short path, as text.
#[test]
fn a_page_of_the_browser() {
    let body = json!({
        "timestamp": "2023-11-14T22:13:00.000Z", "integrations": {}, "type": "page", "name": "Home", "category": "Shop",
        "properties": { "path": "/", "url": "https://www.shop.example/?utm_source=mail", "title": "Shop" },
        "context": {
            "page": { "path": "/", "referrer": "https://search.example/", "search": "?utm_source=mail", "title": "Shop", "url": "https://www.shop.example/?utm_source=mail" },
            "userAgent": "Mozilla/5.0", "locale": "de-CH", "timezone": "Europe/Zurich", "ip": "203.0.113.77",
            "campaign": { "source": "mail", "id": 7 }, "screen": { "width": 1440, "height": 900, "density": 2 },
            "library": { "name": "analytics.js", "version": "npm:next-1.84.3" },
        },
        "messageId": "ajs-next-1", "writeKey": KEY, "userId": null, "anonymousId": "a-1",
        // The page's clock is a minute behind.
        "sentAt": "2023-11-14T22:12:20.000Z", "_metadata": { "bundled": ["Segment.io"], "retryCount": 1 },
    });
    let facts = Facts { content_type: Some("text/plain;charset=UTF-8"), ..facts() };
    let body = body.to_string();
    let accepted = send_as(Call::Page, body.as_bytes(), &facts).unwrap();
    assert_eq!(
        events(&accepted)[0].0,
        json!({
            "kind": "page", "id": "ajs-next-1", "name": "Home", "time": 1_700_000_040_000u64,
            "properties": { "path": "/", "url": "https://www.shop.example/?utm_source=mail", "title": "Shop" },
            "context": {
                "anonymousId": "a-1", "locale": "de-CH", "timezone": "Europe/Zurich", "userAgent": "Mozilla/5.0",
                "url": "https://www.shop.example/?utm_source=mail", "title": "Shop", "referrer": "https://search.example/",
                "screen": { "width": 1440, "height": 900 }, "campaign": { "source": "mail" },
                "extra": {
                    "page": { "path": "/", "search": "?utm_source=mail" }, "campaign": { "id": 7 }, "screen": { "density": 2 },
                    "ip": "203.0.113.0/24", "library": { "name": "analytics.js", "version": "npm:next-1.84.3" },
                    "segment": { "timestamp": "2023-11-14T22:13:00.000Z", "integrations": {}, "category": "Shop", "_metadata": { "bundled": ["Segment.io"], "retryCount": 1 } },
                },
            },
        })
    );
}

/// Of each frame: its consent, its first number, and the ids in it.
fn frames(accepted: &Accepted<'_, Rooted>) -> Vec<(Consent, u64, Vec<String>)> {
    let of = |bytes: &Vec<u8>| {
        let frame = Frame::parse(bytes).unwrap();
        let ids = frame.open().unwrap().1.map(|event| event.unwrap().id.unwrap().id.to_owned()).collect();
        (frame.header().consent, frame.header().first_seq, ids)
    };
    accepted.frames.iter().map(of).collect()
}

#[test]
fn what_a_visitor_grants_is_the_consent_of_the_frame() {
    let (analytics, marketing) = (Consent::ANALYTICS, Consent::MARKETING);
    for (context, consent) in [
        (json!({ "consent": { "categoryPreferences": { "Advertising": true, "Analytics": false } } }), marketing),
        (
            json!({ "consent": { "categoryPreferences": { "Advertising": true, "Analytics": true } } }),
            analytics.with(marketing),
        ),
        (json!({ "consent": { "categoryPreferences": {} } }), Consent::NONE),
        (json!({ "consent": null }), Consent::NONE),
        (json!({ "consent": true }), Consent::NONE),
        (json!({}), Consent::NONE),
    ] {
        for call in [Call::Track, Call::Page, Call::Identify] {
            let body = json!({ "writeKey": KEY, "event": "A", "messageId": "m", "userId": "u", "context": context })
                .to_string();
            let accepted = send(call, &body).unwrap();
            assert_eq!(frames(&accepted), [(consent, 0, vec!["m".into()])], "{context}");
            // What was said stays, too.
            let said = context.get("consent");
            assert_eq!(events(&accepted)[0].0["context"]["extra"].get("consent"), said, "{context}");
        }
    }
    let twice = format!(r#"{{"writeKey":"{KEY}","event":"A","context":{{"consent":{{}},"consent":{{}}}}}}"#);
    assert_eq!(send(Call::Track, &twice).unwrap_err().problem.code(), "malformed-json");
}

#[test]
fn a_batch_of_several_consents_becomes_a_frame_for_each() {
    let (analytics, marketing) = (Consent::ANALYTICS, Consent::MARKETING);
    let message = |id: &str, said: Value| json!({ "type": "track", "event": "A", "userId": "u", "messageId": id, "context": { "consent": { "categoryPreferences": said } } });
    let of = |name: &str| json!({ name: true });
    let mut messages = vec![
        message("a", of("Analytics")),
        message("b", of("Advertising")),
        message("c", of("C0002")),
        json!({ "type": "track", "messageId": "bad" }),
        message("d", json!({})),
        // Its own does not say; that of the batch does.
        json!({ "type": "track", "event": "A", "userId": "u", "messageId": "e" }),
        message("f", of("Analytics")),
    ];
    let body = |messages: &[Value]| {
        let shared = json!({ "consent": { "categoryPreferences": { "Advertising": true } } });
        json!({ "writeKey": KEY, "context": shared, "batch": messages }).to_string()
    };
    let ids = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect::<Vec<_>>();
    let text = body(&messages);
    let accepted = send(Call::Batch, &text).unwrap();
    let expected =
        [(analytics, 0, ids(&["a", "c", "f"])), (marketing, 3, ids(&["b", "e"])), (Consent::NONE, 5, ids(&["d"]))];
    assert_eq!(frames(&accepted), expected);
    assert_eq!(accepted.rejected.len(), 1);
    assert_eq!(accepted.rejected[0].messages[0].0, 3, "its place in the batch");

    // However they alternate: a frame for each that there is, and all that was sent.
    messages = (0..1_000).map(|i| message(&i.to_string(), of(["Analytics", "Advertising", "x"][i % 3]))).collect();
    let text = body(&messages);
    let accepted = send(Call::Batch, &text).unwrap();
    let all = frames(&accepted);
    assert_eq!(all.iter().map(|(consent, ..)| *consent).collect::<Vec<_>>(), [analytics, marketing, Consent::NONE]);
    assert_eq!(
        all.iter().map(|(_, first, ids)| (*first, ids.len())).collect::<Vec<_>>(),
        [(0, 334), (334, 333), (667, 333)]
    );
    for (i, (.., ids)) in all.iter().enumerate() {
        assert!(ids.iter().enumerate().all(|(n, id)| id.parse::<usize>() == Ok(3 * n + i)), "in their order");
    }
}

#[test]
fn every_call_has_its_name_and_its_content() {
    for (call, message, kind, name, properties) in [
        (
            Call::Track,
            json!({ "event": "Signed Up", "properties": { "plan": "pro" } }),
            "track",
            "Signed Up",
            json!({ "plan": "pro" }),
        ),
        (Call::Page, json!({ "name": "Home", "properties": null }), "page", "Home", json!({})),
        (Call::Page, json!({}), "page", "", json!({})),
        (Call::Screen, json!({ "name": "Start", "properties": [] }), "screen", "Start", json!({})),
        (
            Call::Identify,
            json!({ "traits": { "email": "a@b.example" } }),
            "identify",
            "",
            json!({ "email": "a@b.example" }),
        ),
        (Call::Group, json!({ "groupId": "g", "traits": { "seats": 3 } }), "group", "g", json!({ "seats": 3 })),
        (Call::Group, json!({ "groupId": 42 }), "group", "42", json!({})),
        (Call::Alias, json!({ "previousId": "old", "userId": "new" }), "alias", "old", json!({})),
    ] {
        let event = one(call, message.clone());
        assert_eq!((&event["kind"], &event["name"], &event["properties"]), (&kind.into(), &name.into(), &properties));
        // The same as one of a batch.
        let mut message = message;
        message["type"] = kind.into();
        let body = batch(json!([message]));
        let accepted = send(Call::Batch, &body).unwrap();
        assert_eq!(events(&accepted)[0].0["name"], name);
    }
}

/// What has no place of its own is kept all the same.
#[test]
fn nothing_is_lost() {
    let event = one(
        Call::Track,
        json!({
            "event": "X", "type": "page", "version": 2, "traits": { "a": 1 }, "channel": "server",
            "originalTimestamp": "yesterday", "receivedAt": "2023-11-14T22:13:20Z",
            "context": {
                "locale": 7, "page": "home", "screen": { "width": 1.5, "height": 900 }, "campaign": null, "active": true,
                "segment": "mine", "ip": "unknown",
            },
        }),
    );
    assert_eq!(event["time"], NOW.as_millis());
    assert_eq!(
        event["context"]["extra"],
        json!({
            "locale": 7, "page": "home", "screen": { "width": 1.5, "height": 900 }, "active": true, "ip": null,
            // A member of the same name comes first; no JSON object can show both, the properties hold both.
            "segment": { "type": "page", "version": 2, "traits": { "a": 1 }, "channel": "server", "originalTimestamp": "yesterday", "receivedAt": "2023-11-14T22:13:20Z" },
        })
    );
    let ids = one(Call::Track, json!({ "event": "X", "userId": 18446744073709551615u64, "anonymousId": "" }));
    assert_eq!(ids["context"], json!({ "userId": "18446744073709551615" }));
}

#[test]
fn times() {
    let at = |message: Value| one(Call::Track, message)["time"].as_u64().unwrap();
    let now = NOW.as_millis();
    // 2023-11-14T22:13:20Z is now.
    for (message, expected) in [
        (json!({ "event": "X" }), now),
        (json!({ "event": "X", "sentAt": "2020-01-01T00:00:00Z" }), now),
        (json!({ "event": "X", "timestamp": "2020-01-01T00:00:00.250Z" }), 1_577_836_800_250),
        (json!({ "event": "X", "timestamp": "2020-01-01T00:00:00.250Z", "sentAt": "2020-01-01T00:00:01Z" }), now - 750),
        (
            json!({ "event": "X", "originalTimestamp": "2020-01-01T00:00:00Z", "sentAt": "2020-01-01T00:00:01Z" }),
            now - 1000,
        ),
        // A wrong clock, in the future, is set right too.
        (json!({ "event": "X", "timestamp": "2099-01-01T00:00:00Z", "sentAt": "2099-01-01T00:00:05Z" }), now - 5000),
        // It has been through Segment: its time stands.
        (
            json!({ "event": "X", "timestamp": "2020-01-01T00:00:00Z", "originalTimestamp": "2021-01-01T00:00:00Z", "sentAt": "2021-01-01T00:00:00Z" }),
            1_577_836_800_000,
        ),
        (json!({ "event": "X", "timestamp": "2020-01-01T00:00:00+02:00" }), 1_577_829_600_000),
        (json!({ "event": "X", "timestamp": "2020-01-01" }), now),
        (json!({ "event": "X", "timestamp": 1_577_836_800_000u64 }), now),
        (json!({ "event": "X", "timestamp": "1950-01-01T00:00:00Z" }), 0),
        (json!({ "event": "X", "timestamp": "2020-01-01T00:00:00Z", "sentAt": "whenever" }), 1_577_836_800_000),
    ] {
        assert_eq!(at(message.clone()), expected, "{message}");
    }
}

#[test]
fn what_a_batch_shares_counts_for_each() {
    let body = json!({
        "writeKey": KEY, "sentAt": "2020-01-01T00:00:10Z", "integrations": { "All": false }, "messageId": "shared",
        "context": { "locale": "de", "app": { "name": "shop" }, "ip": "2001:db8:1:2::3" },
        "batch": [
            { "type": "track", "event": "A", "timestamp": "2020-01-01T00:00:00Z" },
            { "type": "track", "event": "B", "context": { "locale": "fr" }, "integrations": {}, "sentAt": "2020-01-01T00:00:00Z", "timestamp": "2020-01-01T00:00:00Z" },
        ],
    })
    .to_string();
    let accepted = send(Call::Batch, &body).unwrap();
    let events = events(&accepted);
    let (a, b) = (&events[0].0, &events[1].0);
    assert_eq!(a["time"], NOW.as_millis() - 10_000);
    assert_eq!(b["time"], NOW.as_millis());
    assert_eq!((&a["context"]["locale"], &b["context"]["locale"]), (&json!("de"), &json!("fr")));
    for event in [a, b] {
        assert_eq!(event["context"]["extra"]["app"], json!({ "name": "shop" }));
        assert_eq!(event["context"]["extra"]["ip"], "2001:db8:1::/48");
        assert_ne!(event["id"], "shared", "an identity is a message's own");
    }
    assert_eq!(a["context"]["extra"]["segment"]["integrations"], json!({ "All": false }));
    assert_eq!(b["context"]["extra"]["segment"]["integrations"], json!({}));
}

#[test]
fn a_message_without_an_id_gets_one_of_its_own() {
    let messages = json!([
        { "type": "track", "event": "A" },
        { "type": "track", "event": "A", "messageId": "" },
        { "type": "track", "event": "A", "messageId": null },
        { "type": "track", "event": "A", "messageId": 7 },
    ]);
    let body = batch(messages);
    let accepted = send(Call::Batch, &body).unwrap();
    let ids: Vec<_> =
        events(&accepted).into_iter().map(|(event, _)| event["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids[3], "7");
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 4);
    assert!(ids[..3].iter().all(|id| id.parse::<SourceId>().is_ok()));
}

/// No address in full, wherever an SDK puts the sender's; what a tenant calls a property stays as it is.
#[test]
fn addresses_are_cut() {
    let event = one(
        Call::Track,
        json!({
            "event": "X",
            "ip": "203.0.113.77",
            "integrations": [{ "ip": "203.0.113.77" }],
            "properties": { "ip": "203.0.113.77" },
            "context": {
                "ip": "203.0.113.77:4711",
                "device": { "ip": ["203.0.113.77"], "of": { "ip": "203.0.113.77" } },
                "page": { "ip": "203.0.113.77" },
                "screen": { "ip": { "v4": "203.0.113.77" } },
            },
        }),
    );
    let network = "203.0.113.0/24";
    assert_eq!(
        event["context"]["extra"],
        json!({
            "ip": network,
            "device": { "ip": null, "of": { "ip": network } },
            "page": { "ip": network },
            "screen": { "ip": null },
            "segment": { "ip": network, "integrations": [{ "ip": network }] },
        })
    );
    assert_eq!(event["properties"], json!({ "ip": "203.0.113.77" }));
    let escaped =
        r#"{"event":"X","context":{"device":{"\u0069p":"203.0.113.77"}},"writeKey":"KEY"}"#.replace("KEY", KEY);
    let accepted = send(Call::Track, &escaped).unwrap();
    assert_eq!(events(&accepted)[0].0["context"]["extra"]["device"], json!({ "ip": network }));
}

/// A retry says the same; only the time of sending and the sender's own counter differ.
#[test]
fn a_retry_is_no_conflict() {
    let message = |name: &str, sent: u32, attempt: u32, user: Option<&str>| {
        let body = json!({
            "writeKey": KEY, "event": "X", "messageId": "m", "userId": user, "timestamp": "2023-11-14T22:13:19Z",
            "properties": { "n": name, "list": [1, 2.5, null, true, { "deep": "x" }] }, "context": { "page": { "url": "u", "path": "p" } },
            "sentAt": format!("2023-11-14T22:13:{sent}Z"), "_metadata": { "retryCount": attempt },
        })
        .to_string();
        events(&send(Call::Track, &body).unwrap()).remove(0)
    };
    let (first, retry) = (message("a", 20, 1, None), message("a", 50, 2, None));
    assert_ne!(first.0["time"], retry.0["time"]);
    assert_eq!(first.1, retry.1);
    assert_ne!(first.1, message("b", 20, 1, None).1, "other content");
    assert_ne!(first.1, message("a", 20, 1, Some("u")).1, "another user");
}

/// The browser cuts texts in the middle of a pair; the event is worth more than that half.
#[test]
fn half_an_emoji_costs_no_event() {
    let body =
        format!(r#"{{"writeKey":"{KEY}","event":"Search","properties":{{"q":"abc\ud83d","ok":"\ud83d\ude00"}}}}"#);
    let accepted = send(Call::Track, &body).unwrap();
    assert_eq!(events(&accepted)[0].0["properties"], json!({ "q": "abc\u{fffd}", "ok": "😀" }));
    // In quarantine stands what was sent.
    let body = format!(r#"{{"writeKey":"{KEY}","batch":[{{"type":"x","q":"\ud83d"}}]}}"#);
    let accepted = send(Call::Batch, &body).unwrap();
    assert_eq!(String::from_utf8_lossy(&accepted.rejected[0].body), r#"{"batch":[{"type":"x","q":"\ud83d"}]}"#);
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no others", |f| f.is_finite()).prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ]
}

fn tree() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    prop::collection::hash_map(any::<String>(), tree(), 0..6).prop_map(|map| Value::Object(map.into_iter().collect()))
}

proptest! {
    /// JSON → event → JSON is the identity on what JSON can say.
    #[test]
    fn properties_survive(properties in object()) {
        let event = one(Call::Track, json!({ "event": "X", "properties": properties }));
        prop_assert_eq!(&event["properties"], &properties);
    }

    /// So it is for what stands in the context.
    #[test]
    fn the_context_survives(context in object(), rest in tree()) {
        prop_assume!(!["page", "campaign", "screen", "locale", "timezone", "userAgent", "ip", "segment"].iter().any(|key| context.get(key).is_some()));
        let event = one(Call::Identify, json!({ "context": context, "strange": rest }));
        let mut expected = context;
        expected["segment"] = json!({ "strange": rest });
        prop_assert_eq!(&event["context"]["extra"], &expected);
    }

    #[test]
    fn anything_is_answered_without_a_panic(bytes: Vec<u8>, text in "[\\[\\]{}\",:0-9a-z\\\\ ]{0,80}", value in tree()) {
        for call in [Call::Track, Call::Batch, Call::Identify] {
            for body in [&bytes[..], text.as_bytes(), value.to_string().as_bytes(), batch(value.clone()).as_bytes()] {
                let _ = send_as(call, body, &facts());
            }
        }
    }
}
