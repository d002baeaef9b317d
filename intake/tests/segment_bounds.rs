//! Segment's HTTP API: bounds, bad messages, and who may send.
#![allow(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

mod common;

use base64::{Engine, prelude::BASE64_STANDARD};
use common::{calls::*, *};
use firsthop_core::{
    Error, Frame, Header,
    limits::{MAX_EVENT, MAX_FRAME, MAX_VALUES},
};
use firsthop_intake::{
    Facts,
    segment::{Call, MAX_BATCH, MAX_BODY},
};
use serde_json::{Value, json};

/// Doubles grow most: four bytes of JSON become nine. An event that is within its bound fits all the same.
#[test]
fn what_grows_still_fits() {
    for values in [1, 100, MAX_VALUES - 1] {
        let list = vec![json!(0.5); values];
        let event = one(Call::Track, json!({ "event": "X", "properties": { "a": list } }));
        assert_eq!(event["properties"]["a"].as_array().unwrap().len(), values);
    }
}

/// A bad message goes into quarantine, byte for byte but for its address; the others are stored.
#[test]
fn a_bad_message_spoils_no_other() {
    let deep = "[".repeat(40) + &"]".repeat(40);
    let nested = format!("{}1{}", r#"{"a":"#.repeat(9), "}".repeat(9));
    let long = "x".repeat(33 * 1024);
    let many = format!("[{}]", vec!["1"; MAX_VALUES + 1].join(","));
    let bad = [
        ("malformed-json", r#"7"#.to_owned()),
        ("malformed-json", r#"{"type":"track"}"#.to_owned()),
        ("malformed-json", r#"{ "type" : "trick", "event":"X","context":{"ip":"203.0.113.77"}}"#.to_owned()),
        ("malformed-json", r#"{"event":"X"}"#.to_owned()),
        ("malformed-json", r#"{"type":"track","event":{}}"#.to_owned()),
        ("malformed-json", r#"{"type":"track","event":"X","event":"Y"}"#.to_owned()),
        ("malformed-json", r#"{"type":"track","event":"X","properties":7}"#.to_owned()),
        ("malformed-json", r#"{"type":"track","event":"X","properties":{"a":1e999}}"#.to_owned()),
        ("malformed-json", r#"{"type":"track","event":"X","context":"here"}"#.to_owned()),
        ("malformed-json", r#"{"type":"track","event":"X","messageId":{}}"#.to_owned()),
        ("malformed-json", r#"{"type":"group","event":"X"}"#.to_owned()),
        ("malformed-json", r#"{"type":"alias","userId":"X"}"#.to_owned()),
        ("json-too-deep", format!(r#"{{"type":"track","event":"X","properties":{{"a":{deep}}}}}"#)),
        ("too-deep", format!(r#"{{"type":"track","event":"X","properties":{{"a":{nested}}}}}"#)),
        ("json-too-large", format!(r#"{{"type":"track","event":"X","properties":{{"a":"{long}"}}}}"#)),
        ("too-large", format!(r#"{{"type":"track","event":"{}"}}"#, "x".repeat(600))),
        ("too-large", format!(r#"{{"type":"track","event":"X","messageId":"{}"}}"#, "x".repeat(300))),
        ("too-large", format!(r#"{{"type":"track","event":"X","properties":{{"a":{many}}}}}"#)),
        ("wrong-write-key", format!(r#"{{"type":"track","event":"X","writeKey":"{STRANGE_KEY}"}}"#)),
    ];
    let good = r#"{"type":"track","event":"Good"}"#;
    let messages: Vec<_> = bad.iter().flat_map(|(_, message)| [good, message]).collect();
    let body = format!(r#"{{"writeKey":"{KEY}","batch":[{}]}}"#, messages.join(" , "));
    let accepted = send(Call::Batch, &body).unwrap();
    let stored = events(&accepted);
    assert_eq!(stored.len(), bad.len());
    assert!(stored.iter().all(|(event, _)| event["name"] == "Good"));
    let codes: Vec<_> = accepted.rejected.iter().map(|group| group.refusal.code()).collect();
    assert_eq!(
        codes,
        ["malformed-json", "json-too-deep", "too-deep", "json-too-large", "too-large", "wrong-write-key"]
    );
    for group in &accepted.rejected {
        let of_group: Vec<_> = bad.iter().enumerate().filter(|(_, (code, _))| *code == group.refusal.code()).collect();
        let places: Vec<_> = group.messages.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, of_group.iter().map(|(i, _)| 2 * i + 1).collect::<Vec<_>>());
        assert_eq!(usize::from(group.count()), of_group.len());
        let raw: Vec<_> =
            of_group.iter().map(|(_, (_, message))| message.replace("203.0.113.77", "203.0.113.0/24")).collect();
        let expected = format!(r#"{{"batch":[{}]}}"#, raw.join(","));
        assert_eq!(String::from_utf8_lossy(&group.body), expected);
        assert!(group.body.len() <= MAX_FRAME);
    }
    // The same message alone is refused whole, for the same reason. Where the path says the type, it may lack one; and
    // a message that names another key than the header names nobody.
    let header = format!("Bearer {KEY}");
    let facts = Facts { authorization: Some(&header), ..facts() };
    let mut refusals = 0;
    for (code, message) in &bad {
        if let Err(refused) = send_as(Call::Track, message.as_bytes(), &facts) {
            let known = *code != "wrong-write-key";
            assert_eq!((refused.problem.code(), refused.quarantine.is_some()), (*code, known), "{message}");
            refusals += 1;
        }
    }
    assert_eq!(refusals, bad.len() - 3);
}

#[test]
fn a_batch_of_bad_ones_is_answered_and_set_aside() {
    let body = batch(json!([{}, { "type": 1 }]));
    let accepted = send(Call::Batch, &body).unwrap();
    assert!(accepted.frames.is_empty());
    assert_eq!(accepted.rejected[0].count(), 2);
    let empty = batch(json!([]));
    let accepted = send(Call::Batch, &empty).unwrap();
    assert!(accepted.frames.is_empty() && accepted.rejected.is_empty());
}

/// More events than fit one frame become several of the same source, numbered without a gap.
#[test]
fn a_large_batch_becomes_several_frames() {
    // Numbers grow most: four bytes of JSON become ten.
    let list = vec!["0.5"; 1000].join(",");
    let message = format!(r#"{{"type":"track","event":"X","properties":{{"a":[{list}]}}}}"#);
    let count = (MAX_BODY - 100) / (message.len() + 1);
    let body = format!(r#"{{"writeKey":"{KEY}","batch":[{}]}}"#, vec![message; count].join(","));
    assert!(body.len() <= MAX_BODY);
    let accepted = send(Call::Batch, &body).unwrap();
    assert!(accepted.rejected.is_empty());
    assert!(accepted.frames.len() > 1, "{}", accepted.frames.len());
    let headers: Vec<Header> = accepted.frames.iter().map(|bytes| *Frame::parse(bytes).unwrap().header()).collect();
    let mut next = 0;
    for (place, header) in headers.iter().enumerate() {
        assert_eq!((header.source, header.batch_seq, header.first_seq), (headers[0].source, place as u64, next));
        next += u64::from(header.count);
    }
    assert_eq!(next, count as u64);
    assert_eq!(events(&accepted).len(), count);
}

#[test]
fn the_most_events_and_one_more() {
    let message = json!({ "type": "page" });
    let most = batch(Value::Array(vec![message.clone(); MAX_BATCH]));
    assert_eq!(events(&send(Call::Batch, &most).unwrap()).len(), MAX_BATCH);
    let more = batch(Value::Array(vec![message; MAX_BATCH + 1]));
    let refused = send(Call::Batch, &more).unwrap_err();
    assert_eq!((refused.problem.status(), refused.problem.code()), (413, "json-too-large"));
    assert_eq!((usize::from(refused.count), refused.quarantine.is_some()), (1, true));
}

/// A small body cannot make a large journal.
#[test]
fn what_is_shared_is_bounded() {
    let shared = |bytes: usize, count: usize| {
        json!({ "writeKey": KEY, "context": { "a": "x".repeat(bytes) }, "batch": vec![json!({ "type": "page" }); count] })
            .to_string()
    };
    assert!(send(Call::Batch, &shared(10_000, 100)).is_ok());
    for (bytes, count) in [(10_000, 300), (MAX_EVENT + 1, 1)] {
        let body = shared(bytes, count);
        let refused = send(Call::Batch, &body).unwrap_err();
        assert_eq!(refused.problem.code(), "json-too-large", "{bytes} × {count}");
    }
}

/// What could not be stored is refused before it is compared with what else there is.
#[test]
fn members_are_bounded() {
    let many = |count: usize| (0..count).map(|n| (n.to_string(), json!(n))).collect::<serde_json::Map<_, _>>();
    let too_large = |body: &Value| {
        let body = body.to_string();
        let answer = send(Call::Batch, &body);
        match answer {
            Ok(accepted) => accepted.rejected.iter().map(|rejected| rejected.refusal.code().to_owned()).collect(),
            Err(refused) => vec![format!("whole: {}", refused.problem.code())],
        }
    };
    let page = json!({ "type": "page" });
    let merged = |mut more: serde_json::Map<_, _>| {
        more.insert("type".into(), json!("page"));
        Value::Object(more)
    };
    for (body, expected) in [
        (json!({ "writeKey": KEY, "context": many(1_000), "batch": [page] }), vec![]),
        (json!({ "writeKey": KEY, "context": many(2_500), "batch": [page] }), vec!["whole: too-large".to_owned()]),
        (json!({ "writeKey": KEY, "batch": [merged(many(1_000)), page] }), vec![]),
        (json!({ "writeKey": KEY, "batch": [merged(many(2_500)), page] }), vec!["too-large".to_owned()]),
    ] {
        assert_eq!(too_large(&body), expected);
    }
    let mut shared = many(2_500);
    shared.extend([("writeKey".to_owned(), json!(KEY)), ("batch".to_owned(), json!([page]))]);
    assert_eq!(too_large(&Value::Object(shared)), ["whole: too-large"]);
}

#[test]
fn where_a_write_key_may_stand() {
    let basic = |user: &str| format!("Basic {}", BASE64_STANDARD.encode(user));
    let message = |key: Option<&str>| match key {
        Some(key) => format!(r#"{{"event":"X","writeKey":"{key}"}}"#),
        None => r#"{"event":"X"}"#.to_owned(),
    };
    for (header, body, accepted) in [
        (None, Some(KEY), true),
        (Some(basic(&format!("{KEY}:"))), None, true),
        (Some(basic(KEY)), None, true),
        (Some(format!("Bearer {KEY}")), None, true),
        (Some(format!("bEARER  {KEY} ")), Some(KEY), true),
        // A token of another kind, as Segment's OAuth sends it.
        (Some("Bearer eyJhbGciOiJ.x.y".into()), Some(KEY), true),
        (Some("Digest x".into()), Some(KEY), true),
        (None, None, false),
        (Some(basic("")), None, false),
        (Some("Basic %%%".into()), None, false),
        (Some(format!("Bearer {KEY}")), Some(OTHER_KEY), false),
        (Some(format!("Bearer {OTHER_KEY}")), None, false),
        (None, Some(STRANGE_KEY), false),
        (None, Some("fh_"), false),
    ] {
        let facts = Facts { authorization: header.as_deref(), ..facts() };
        let text = message(body);
        let answer = send_as(Call::Track, text.as_bytes(), &facts);
        assert_eq!(answer.is_ok(), accepted, "{header:?} {body:?}");
        if let Err(refused) = answer {
            assert_eq!((refused.problem.status(), refused.problem.code()), (401, "wrong-write-key"));
        }
    }
}

/// The body a cut-off connection leaves is refused, and set aside once it says whose it is.
#[test]
fn every_truncation_is_refused() {
    let whole = format!(
        r#"{{ "writeKey": "{KEY}", "sentAt": "2023-11-14T22:13:20Z", "context": {{ "ip": "203.0.113.77", "locale": "de" }},
        "batch": [{{ "type": "track", "event": "É😀\u0001", "properties": {{ "a": [1, -2.5e3, null, true, "x\\\"" ] }} }}] }}"#
    );
    assert!(send(Call::Batch, &whole).is_ok());
    for end in 0..whole.len() {
        let body = &whole.as_bytes()[..end];
        let refused = send_as(Call::Batch, body, &facts()).unwrap_err();
        assert_eq!((refused.problem.status(), refused.problem.code()), (400, "malformed-json"), "{end}");
        let named = String::from_utf8_lossy(body).contains(KEY);
        assert_eq!(refused.quarantine.is_some(), named, "{end}");
        assert!(!String::from_utf8_lossy(&refused.body).contains("203.0.113.7"), "{end}");
    }
}

#[test]
fn bodies_that_are_not_read() {
    let body = json!({ "writeKey": KEY, "event": "X" }).to_string();
    for (content_type, read) in [
        (None, true),
        (Some(""), true),
        (Some("application/json"), true),
        (Some("Application/JSON; charset=utf-8"), true),
        (Some("text/plain;charset=UTF-8"), true),
        (Some("application/x-www-form-urlencoded"), false),
        (Some("text/html"), false),
    ] {
        let facts = Facts { content_type, ..facts() };
        assert_eq!(send_as(Call::Track, body.as_bytes(), &facts).is_ok(), read, "{content_type:?}");
    }
    for (content_encoding, read) in [(None, true), (Some("identity"), true), (Some("gzip"), false), (Some("br"), false)]
    {
        let facts = Facts { content_encoding, ..facts() };
        assert_eq!(send_as(Call::Track, body.as_bytes(), &facts).is_ok(), read, "{content_encoding:?}");
    }
}

#[test]
fn a_page_elsewhere_may_not_write() {
    let body = json!({ "writeKey": KEY, "event": "X" }).to_string();
    let facts = Facts { origin: Some("https://evil.example"), ..facts() };
    let refused = send_as(Call::Track, body.as_bytes(), &facts).unwrap_err();
    assert_eq!((refused.problem.status(), refused.problem.code()), (403, "wrong-origin"));
    assert!(refused.quarantine.is_some());
    assert!(refused.problem.to_segment_json().contains(r#""success":false"#));
    assert_eq!(refused.problem.refusal(), Error::Origin.into());
}
