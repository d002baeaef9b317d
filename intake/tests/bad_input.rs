//! Every way in which a request can be wrong: one status, one code, one answer to "again?", one to "kept?" — and the
//! same in `docs/http-api.md`.
#![allow(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::*;
use firsthop_core::{
    Alg, Annotation, Epoch, Error, ExtensionKind, Flags, Header, Holder, KeyId, LeaseScope, MacKey, RootKey,
    SessionGrant, Timestamp, Unsigned, WorkerId, crc32,
    limits::{MAX_FRAME, SESSION_GRACE_MS},
    seal_envelope,
};
use firsthop_intake::{
    Facts, Problem, Refusal, Rooted, Session, native, route,
    segment::{self, Call},
};

/// What a request comes to.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    status: u16,
    code: &'static str,
    retryable: bool,
    quarantined: bool,
}

fn verdict(problem: &Problem, quarantined: bool) -> Verdict {
    Verdict { status: problem.status(), code: problem.code(), retryable: problem.refusal().retryable(), quarantined }
}

fn of_frame(body: &[u8], facts: &Facts<'_>) -> Verdict {
    let refused = native::receive(body, facts, known(server())).expect_err("is to be refused");
    assert_eq!(refused.annotation.refused, refused.problem.code());
    verdict(&refused.problem, refused.quarantine.is_some())
}

fn of_segment(call: Call, body: &str, facts: &Facts<'_>) -> Verdict {
    let refused = common::calls::send_as(call, body.as_bytes(), facts).expect_err("is to be refused");
    assert_eq!(refused.annotation.refused, refused.problem.code());
    verdict(&refused.problem, refused.quarantine.is_some())
}

/// A good unsigned frame with bytes changed and its CRC set right.
fn resealed(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    reseal(first_frame(), change)
}

fn reseal(mut body: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    change(&mut body);
    let crc = crc32(&[&body[..80], &[0; 4], &body[84..]]);
    body[80..84].copy_from_slice(&crc.to_le_bytes());
    body
}

/// A good unsigned frame as if it were sealed: the flag, and to which key.
fn sealed() -> Vec<u8> {
    let key = KEY.as_bytes();
    let body = frame(
        &header(),
        &[(ExtensionKind::WriteKey, key), (ExtensionKind::SealKey, &[5, 0, 0, 0])],
        &[event(), event()],
        &Unsigned,
    );
    reseal(body, |b| b[5] |= 1)
}

/// A good unsigned frame with bytes changed, in a place that is looked at before the CRC.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = first_frame();
    change(&mut body);
    body
}

fn session() -> Session {
    Session::mint(&server(), SOURCE, Holder::new(ORIGIN, KEY), NOW).unwrap()
}

/// A session of a lease that no hop would use yet.
fn session_of_tomorrow() -> Session {
    let epoch = Epoch::new(Epoch::at(NOW).get() + 24);
    let scope = LeaseScope { tenant: TENANT, region: region("EU"), worker: WorkerId::new(0), epoch };
    let expires = Timestamp::from_millis(epoch.start().as_millis() + 1);
    let grant = SessionGrant { worker: scope.worker, region: scope.region, expires, holder: Holder::new(ORIGIN, KEY) };
    let secret = RootKey::new(ROOT).lease(&scope).session_secret(SOURCE, &grant);
    Session { epoch, grant, secret, ..session() }
}

fn envelope() -> Vec<u8> {
    let mut buf = vec![0; 4096];
    let key = MacKey::new(Alg::HmacSha256, &[1; 32]).unwrap();
    let header = Header { alg: Alg::HmacSha256, ..header() };
    seal_envelope(&mut buf, &header, WorkerId::new(7), &Annotation::default(), &first_frame(), &key).unwrap().to_vec()
}

fn message(rest: &str) -> String {
    format!(r#"{{"writeKey":"{KEY}","event":"X"{rest}}}"#)
}

/// Every row of the table, each by a request that comes to it.
fn rows() -> Vec<(&'static str, Verdict)> {
    let good = session();
    let signed = session_header(&good);
    let grant = good.grant.to_bytes();
    let mac = MacKey::new(Alg::HmacSha256Trunc128, &good.secret).unwrap();
    let us = Header { region: region("US"), ..header() };
    let late = NOW.as_millis() + firsthop_intake::SESSION_MS + SESSION_GRACE_MS + 1;
    let key: &[u8] = KEY.as_bytes();
    let deep = format!(r#","properties":{{"a":{}{}}}"#, "[".repeat(32), "]".repeat(32));
    let nested = format!(r#","properties":{{"a":{}{}}}"#, "[".repeat(9), "]".repeat(9));
    let elsewhere = Facts { origin: Some("https://evil.example"), ..facts() };
    let gzip = Facts { content_encoding: Some("gzip"), ..facts() };
    let form = Facts { content_type: Some("multipart/form-data"), ..facts() };
    let frame_of = |body: &[u8]| of_frame(body, &facts());
    let track = |body: &str| of_segment(Call::Track, body, &facts());
    let routed = |method, path| verdict(&route(method, path).unwrap_err(), false);
    let hop = |refusal: Refusal| verdict(&Problem::new(refusal), false);
    vec![
        ("wrong magic", frame_of(&changed(|b| b[0] = b'G'))),
        ("not a frame at all", frame_of(b"GET / HTTP/1.1")),
        ("wrong version", frame_of(&changed(|b| b[4] = 2))),
        ("unknown flag", frame_of(&changed(|b| b[5] = 0x80))),
        ("reserved field", frame_of(&changed(|b| b[46] = 1))),
        ("an envelope from outside", frame_of(&envelope())),
        ("header too short", frame_of(&changed(|b| b[6] = 12))),
        ("unknown algorithm", frame_of(&changed(|b| b[42] = 9))),
        ("no region", frame_of(&changed(|b| b[40] = b'e'))),
        ("payload length over the bound", frame_of(&changed(|b| b[76..80].fill(0xff)))),
        ("truncated body", frame_of(&first_frame()[..120])),
        ("empty body", frame_of(b"")),
        ("bytes behind the frame", frame_of(&changed(|b| b.push(0)))),
        ("wrong CRC", frame_of(&changed(|b| b[130] ^= 1))),
        ("sealed", frame_of(&sealed())),
        ("sealed to no key", frame_of(&resealed(|b| b[5] |= 1))),
        ("an extension twice", {
            let two = [(ExtensionKind::Unknown(9), key), (ExtensionKind::Unknown(10), key)];
            let body = frame(&header(), &two, &[event()], &Unsigned);
            frame_of(&reseal(body, |b| b[88 + 4 + KEY.len()] = 9))
        }),
        ("wrong count", frame_of(&resealed(|b| b[44] += 1))),
        ("malformed payload", frame_of(&resealed(|b| b[88 + 4 + KEY.len()] = 7))),
        ("for another region", frame_of(&frame(&us, &[(ExtensionKind::WriteKey, key)], &[event()], &Unsigned))),
        ("wrong write key", frame_of(&with_key(OTHER_KEY))),
        ("malformed write key", frame_of(&with_key("fh_x"))),
        ("no write key", frame_of(&frame(&header(), &[], &[event()], &Unsigned))),
        ("wrong tag", {
            let mut body = session_frame(&good);
            *body.last_mut().unwrap() ^= 1;
            frame_of(&body)
        }),
        ("unknown key", frame_of(&session_frame_as(&Header { key_id: KeyId::new(9), ..signed }, &good))),
        ("epoch to come", frame_of(&session_frame(&session_of_tomorrow()))),
        ("expired session", of_frame(&session_frame(&good), &Facts { now: Timestamp::from_millis(late), ..facts() })),
        ("no session where one is claimed", frame_of(&frame(&signed, &[], &[event()], &mac))),
        ("signed without a session", {
            let header = Header { flags: Flags::default(), ..signed };
            frame_of(&frame(&header, &[(ExtensionKind::Session, &grant)], &[event()], &mac))
        }),
        ("wrong origin", of_frame(&first_frame(), &elsewhere)),
        ("a session's origin", of_frame(&session_frame(&good), &Facts { origin: None, ..facts() })),
        ("oversized body", frame_of(&vec![0; MAX_FRAME + 1])),
        ("compressed body", of_frame(&first_frame(), &gzip)),
        ("Segment: no JSON", track(&format!(r#"{{"writeKey":"{KEY}","#))),
        ("Segment: no object", track("[1]")),
        ("Segment: wrong form", track(&message(r#","properties":7"#))),
        ("Segment: JSON too deep", track(&message(&deep))),
        ("Segment: properties too deep", track(&message(&nested))),
        ("Segment: event too large", track(&message(&format!(r#","a":"{}""#, "x".repeat(33_000))))),
        ("Segment: name too long", track(&message("").replace(":\"X\"", &format!(":\"{}\"", "x".repeat(600))))),
        ("Segment: oversized body", track(&" ".repeat(segment::MAX_BODY + 1))),
        ("Segment: wrong write key", track(&message("").replace(KEY, OTHER_KEY))),
        ("Segment: a stranger's write key", track(&message("").replace(KEY, STRANGE_KEY))),
        ("Segment: wrong origin", of_segment(Call::Track, &message(""), &elsewhere)),
        ("Segment: form", of_segment(Call::Track, &message(""), &form)),
        ("Segment: compressed", of_segment(Call::Track, &message(""), &gzip)),
        ("no HTTP", hop(Refusal::Head)),
        ("headers too large", hop(Refusal::HeadTooLarge)),
        ("unknown path", routed("POST", "/v1/nothing")),
        ("wrong method", routed("GET", "/v1/f")),
        ("a frame where an envelope goes", hop(Error::State.into())),
        ("passed on twice", hop(Refusal::ForwardLoop)),
        ("a seal that does not open", hop(Error::Seal.into())),
        ("not sealed, where nothing else is taken", hop(Refusal::Unsealed)),
        ("slow body", hop(Refusal::BodyTimeout)),
        ("unknown enrolment", hop(Refusal::Enrolment)),
        ("another token than the edge's operator has set", hop(Refusal::StatusToken)),
        ("too much", hop(Refusal::RateLimited)),
        ("no room in quarantine", hop(Refusal::QuarantineFull)),
        ("server away", hop(Refusal::Unavailable)),
        ("our defect", hop(Refusal::Internal)),
    ]
}

#[test]
fn every_bad_input_has_its_answer() {
    let expected = [
        // what, status, code, again?, kept?
        ("wrong magic", 400, "bad-magic", false, false),
        ("not a frame at all", 400, "bad-magic", false, false),
        ("wrong version", 400, "unknown-version", false, false),
        ("unknown flag", 400, "reserved-bits", false, false),
        ("reserved field", 400, "reserved-bits", false, false),
        ("an envelope from outside", 400, "reserved-bits", false, true),
        ("header too short", 400, "bad-header-length", false, false),
        ("unknown algorithm", 400, "unknown-algorithm", false, false),
        ("no region", 400, "bad-region", false, false),
        ("payload length over the bound", 413, "too-large", false, false),
        ("truncated body", 400, "truncated", true, true),
        ("empty body", 400, "truncated", true, false),
        ("bytes behind the frame", 400, "trailing-bytes", true, true),
        ("wrong CRC", 400, "bad-crc", true, true),
        ("sealed", 501, "sealed-unsupported", false, true),
        ("sealed to no key", 400, "bad-extension", false, true),
        ("an extension twice", 400, "bad-extension", false, true),
        ("wrong count", 400, "bad-count", false, true),
        ("malformed payload", 400, "malformed-payload", false, true),
        ("for another region", 421, "wrong-region", false, false),
        ("wrong write key", 401, "wrong-write-key", false, true),
        ("malformed write key", 401, "wrong-write-key", false, true),
        ("no write key", 401, "wrong-write-key", false, true),
        ("wrong tag", 401, "bad-signature", true, true),
        ("unknown key", 401, "unknown-key", false, true),
        ("epoch to come", 401, "epoch-out-of-range", false, true),
        ("expired session", 401, "session-expired", false, true),
        ("no session where one is claimed", 401, "bad-session", false, true),
        ("signed without a session", 400, "unknown-algorithm", false, true),
        ("wrong origin", 403, "wrong-origin", false, true),
        ("a session's origin", 403, "wrong-origin", false, true),
        ("oversized body", 413, "body-too-large", false, false),
        ("compressed body", 415, "unsupported-encoding", false, false),
        ("Segment: no JSON", 400, "malformed-json", false, true),
        ("Segment: no object", 400, "malformed-json", false, false),
        ("Segment: wrong form", 400, "malformed-json", false, true),
        ("Segment: JSON too deep", 400, "json-too-deep", false, true),
        ("Segment: properties too deep", 400, "too-deep", false, true),
        ("Segment: event too large", 413, "json-too-large", false, true),
        ("Segment: name too long", 413, "too-large", false, true),
        ("Segment: oversized body", 413, "body-too-large", false, false),
        ("Segment: wrong write key", 401, "wrong-write-key", false, true),
        ("Segment: a stranger's write key", 401, "wrong-write-key", false, false),
        ("Segment: wrong origin", 403, "wrong-origin", false, true),
        ("Segment: form", 415, "unsupported-media-type", false, false),
        ("Segment: compressed", 415, "unsupported-encoding", false, false),
        ("no HTTP", 400, "malformed-head", false, false),
        ("headers too large", 431, "head-too-large", false, false),
        ("unknown path", 404, "not-found", false, false),
        ("wrong method", 405, "method-not-allowed", false, false),
        ("a frame where an envelope goes", 400, "wrong-state", false, false),
        ("passed on twice", 508, "forward-loop", true, false),
        ("a seal that does not open", 400, "bad-seal", false, false),
        ("not sealed, where nothing else is taken", 400, "unsealed", false, false),
        ("slow body", 408, "body-timeout", true, false),
        ("unknown enrolment", 401, "wrong-enrolment", false, false),
        ("another token than the edge's operator has set", 401, "wrong-token", false, false),
        ("too much", 429, "rate-limited", true, false),
        ("no room in quarantine", 503, "quarantine-full", true, false),
        ("server away", 503, "unavailable", true, false),
        ("our defect", 500, "internal", true, false),
    ];
    let rows = rows();
    assert_eq!(rows.len(), expected.len());
    for ((what, verdict), (name, status, code, retryable, quarantined)) in rows.into_iter().zip(expected) {
        assert_eq!((what, verdict), (name, Verdict { status, code, retryable, quarantined }));
    }
}

/// The table of `docs/http-api.md` §6 says of every code what the code says, and has every code that a request came to.
#[test]
fn the_document_says_the_same() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/http-api.md");
    let text = std::fs::read_to_string(path).unwrap();
    let documented: BTreeMap<&str, (u16, bool)> = text
        .lines()
        .filter_map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let [_, code, status, again, ..] = cells[..] else { return None };
            let code = code.strip_prefix('`')?.strip_suffix('`')?;
            Some((code, (status.parse().ok()?, again == "yes")))
        })
        .collect();
    let met: BTreeMap<&str, (u16, bool)> =
        rows().into_iter().map(|(_, row)| (row.code, (row.status, row.retryable))).collect();
    assert_eq!(documented, met);
}

#[test]
fn a_problem_is_what_rfc_9457_says() {
    let problem = Problem::body_too_large(7);
    let value: serde_json::Value = serde_json::from_str(&problem.to_json()).unwrap();
    assert_eq!(
        value,
        serde_json::json!({
            "type": "https://firsthop.dev/problems/body-too-large",
            "title": "body over the size limit",
            "status": 413,
            "detail": "at most 7 bytes",
            "code": "body-too-large",
            "retryable": false,
        })
    );
    let header = |problem: &Problem, name: &str| {
        problem.headers().into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.into_owned())
    };
    assert_eq!(header(&problem, "content-type").as_deref(), Some("application/problem+json"));
    assert_eq!(header(&problem, "retry-after"), None);
    assert_eq!(header(&Refusal::Unavailable.into(), "retry-after").as_deref(), Some("5"));
    assert_eq!(header(&Problem::new(Refusal::RateLimited).with_retry_after(60), "retry-after").as_deref(), Some("60"));
    assert_eq!(header(&Problem::not_allowed("GET, HEAD"), "allow").as_deref(), Some("GET, HEAD"));
    assert_eq!(header(&Refusal::Enrolment.into(), "www-authenticate").as_deref(), Some("Bearer"));
    assert_eq!(header(&problem, "firsthop-receipt"), None);
    for (events, quarantined) in [(20, 20), (0, 1)] {
        let problem = Problem::new(Error::Signature).with_quarantined(events);
        let expected = format!("stored=0, duplicate=0, conflict=0, quarantined={quarantined}");
        assert_eq!(header(&problem, "firsthop-receipt"), Some(expected));
    }
    assert_eq!(header(&Refusal::ContentEncoding.into(), "accept-encoding").as_deref(), Some("identity"));
}

/// Codes label a counter and name a problem: no two refusals may share one, whatever a request can come to.
#[test]
fn codes_are_names() {
    let mut codes = BTreeSet::new();
    for &refusal in Refusal::ALL {
        let code = refusal.code();
        assert!(code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{code}");
        assert!(codes.insert(code), "{code} twice");
        assert!((400..600).contains(&refusal.status()), "{code}");
        assert_eq!(Refusal::from_code(code), Some(refusal));
    }
    for (what, row) in rows() {
        assert!(codes.contains(row.code), "{what}: {} is missing in the list", row.code);
    }
    assert_eq!(Refusal::from_code("made-up"), None);
}

/// Nothing that a refusal says comes from another tenant: an unknown key and a wrong one read alike.
#[test]
fn refusals_do_not_tell_tenants_apart() {
    let text = |key: &str, who: Option<Rooted>| {
        let body = with_key(key);
        native::receive(&body, &facts(), |_| who).map(|_| ()).unwrap_err().problem.to_json()
    };
    assert_eq!(text(OTHER_KEY, Some(server())), text(OTHER_KEY, None));
}
