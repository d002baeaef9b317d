//! Native frames on both hops: sessions from first contact to renewal, and who answers for what.
#![allow(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

mod common;

use std::fmt::Debug;

use common::*;
use firsthop_core::{
    Alg, Error, ExtensionKind, Header, KeyId, Network, SourceId, Timestamp, Trust, Unsigned, limits::SESSION_GRACE_MS,
};
use firsthop_intake::{Account, Facts, Origins, RENEW_MS, Receipt, SESSION_MS, Session, native};
use proptest::prelude::*;

fn at(now: Timestamp) -> Facts<'static> {
    Facts { now, ..facts() }
}

fn later(millis: u64) -> Timestamp {
    Timestamp::from_millis(NOW.as_millis() + millis)
}

/// First contact on one hop: the session that it grants.
fn first_contact(account: &(impl Account + Debug)) -> Session {
    let body = first_frame();
    let accepted = native::receive(&body, &facts(), known(account)).unwrap();
    assert_eq!(accepted.annotation.trust, Trust::WriteKey);
    accepted.session.expect("a frame without a session brings one back")
}

#[test]
fn a_session_granted_by_either_hop_is_accepted_by_it() {
    fn check(account: impl Account + Debug) {
        let session = first_contact(&account);
        assert_eq!(session.grant.expires, later(SESSION_MS));
        let body = session_frame(&session);
        let accepted = native::receive(&body, &facts(), known(&account)).unwrap();
        assert_eq!(accepted.annotation.trust, Trust::Session);
        assert_eq!(accepted.session, None);
        assert_eq!(accepted.frame.bytes(), body);
    }
    check(server());
    check(edge(NOW));
}

/// The server knows every lease; an edge only its own, and leaves the rest to the server.
#[test]
fn hops_and_each_others_sessions() {
    let (server, edge) = (server(), edge(NOW));
    let of_edge = session_frame(&first_contact(&edge));
    let accepted = native::receive(&of_edge, &facts(), known(&server)).unwrap();
    assert_eq!(accepted.annotation.trust, Trust::Session);

    let of_server = session_frame(&first_contact(&server));
    let accepted = native::receive(&of_server, &facts(), known(&edge)).unwrap();
    assert_eq!(accepted.annotation.trust, Trust::Unchecked);
    assert_eq!(native::authenticate(&accepted.frame, &server, NOW).unwrap().0, Trust::Session);

    let mut forged = of_server;
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let accepted = native::receive(&forged, &facts(), known(&edge)).unwrap();
    assert_eq!(accepted.annotation.trust, Trust::Unchecked, "an edge cannot know better");
    assert_eq!(native::authenticate(&accepted.frame, &server, NOW), Err(Error::Signature), "the server does");
}

#[test]
fn a_session_is_renewed_before_it_ends_and_after() {
    let server = server();
    let session = first_contact(&server);
    let body = session_frame(&session);
    for (after, renewed) in [
        (SESSION_MS - RENEW_MS, false),
        (SESSION_MS - RENEW_MS + 1, true),
        (SESSION_MS + 1, true),
        (SESSION_MS + SESSION_GRACE_MS, true),
    ] {
        let accepted = native::receive(&body, &at(later(after)), known(&server)).unwrap();
        assert_eq!(accepted.annotation.trust, Trust::Session, "{after}");
        assert_eq!(accepted.session.is_some(), renewed, "{after}");
        if let Some(next) = accepted.session {
            assert_eq!(next.grant.expires, later(after + SESSION_MS));
            let body = session_frame(&next);
            let accepted = native::receive(&body, &at(later(after)), known(&server)).unwrap();
            assert_eq!(accepted.annotation.trust, Trust::Session);
        }
    }
    let ended = at(later(SESSION_MS + SESSION_GRACE_MS + 1));
    let refused = native::receive(&body, &ended, known(&server)).unwrap_err();
    assert_eq!(refused.problem.code(), "session-expired");
}

#[test]
fn a_session_is_for_one_origin_and_one_source() {
    let server = server();
    let session = first_contact(&server);
    let elsewhere = Facts { origin: Some("https://m.shop.example"), ..facts() };
    let body = session_frame(&session);
    let refused = native::receive(&body, &elsewhere, known(&server)).unwrap_err();
    assert_eq!((refused.problem.status(), refused.problem.code()), (403, "wrong-origin"));
    let no_browser = Facts { origin: None, ..facts() };
    assert!(native::receive(&body, &no_browser, known(&server)).is_err());

    let other = Header { source: SourceId::new([8; 16]), ..session_header(&session) };
    let body = session_frame_as(&other, &session);
    let refused = native::receive(&body, &facts(), known(&server)).unwrap_err();
    assert_eq!(refused.problem.code(), "bad-signature");

    let first = first_frame();
    let session = native::receive(&first, &no_browser, known(&server)).unwrap().session.unwrap();
    assert!(native::receive(&session_frame(&session), &no_browser, known(&server)).is_ok());
}

/// A page under `Referrer-Policy: no-referrer` fetches with its origin and leaves with a beacon that says `null`.
#[test]
fn a_hidden_origin_is_for_the_tenant_to_allow() {
    let with_origins = |list: &[&str]| {
        let mut account = server();
        account.tenant.origins = Origins::parse(list).unwrap();
        account
    };
    let beacon = Facts { origin: Some("null"), ..facts() };
    for (list, allowed) in
        [(&["*"][..], true), (&["https://*.shop.example", "null"], true), (&["https://*.shop.example"], false)]
    {
        let mut account = with_origins(list);
        let body = session_frame(&first_contact(&account));
        let answer = native::receive(&body, &beacon, known(&account)).map(|accepted| accepted.annotation.trust);
        match answer {
            Ok(trust) => assert_eq!((allowed, trust), (true, Trust::Session), "{list:?}"),
            Err(refused) => assert_eq!((allowed, refused.problem.code()), (false, "wrong-origin"), "{list:?}"),
        }
        // Where it is allowed, any other origin is still not the session's, and a write key's end is still the session's.
        let elsewhere = Facts { origin: Some("https://m.shop.example"), ..facts() };
        assert_eq!(native::receive(&body, &elsewhere, known(&account)).unwrap_err().problem.code(), "wrong-origin");
        account.tenant.write_keys = vec![OTHER_KEY.into()];
        assert!(native::receive(&body, &beacon, known(&account)).is_err());
    }
}

/// A write key that is removed takes its sessions with it, however fresh; another one's go on.
#[test]
fn a_session_ends_with_its_write_key() {
    fn check<T: Account + Debug>(account: &T, with_keys: impl Fn(&[&str]) -> T) {
        let session = first_contact(account);
        let body = session_frame(&session);
        let soon = at(later(SESSION_MS));
        let both = with_keys(&[OTHER_KEY, KEY]);
        let renewed = native::receive(&body, &soon, known(&both)).unwrap().session.expect("it has ended");
        let of_renewed = session_frame(&renewed);
        assert!(native::receive(&of_renewed, &soon, known(&both)).is_ok());
        let removed = with_keys(&[OTHER_KEY]);
        for body in [&body, &of_renewed] {
            let refused = native::receive(body, &soon, known(&removed)).unwrap_err();
            assert_eq!((refused.problem.status(), refused.problem.code()), (401, "wrong-write-key"));
        }
        // A session of the key that stays.
        let first = with_key(OTHER_KEY);
        let session = native::receive(&first, &facts(), known(&both)).unwrap().session.unwrap();
        assert!(native::receive(&session_frame(&session), &facts(), known(&removed)).is_ok());
    }
    let keys = |keys: &[&str]| keys.iter().map(|&key| key.to_owned()).collect();
    check(&server(), |wanted| {
        let mut account = server();
        account.tenant.write_keys = keys(wanted);
        account
    });
    check(&edge(NOW), |wanted| {
        let mut account = edge(NOW);
        account.tenant.write_keys = keys(wanted);
        account
    });
}

#[test]
fn a_hop_without_keys_grants_nothing_and_loses_nothing() {
    let mut edge = edge(NOW);
    edge.leases = Default::default();
    let body = first_frame();
    let accepted = native::receive(&body, &facts(), known(&edge)).unwrap();
    assert_eq!(accepted.annotation.trust, Trust::WriteKey);
    assert_eq!(accepted.session, None);
}

#[test]
fn the_annotation_says_what_the_request_was() {
    let server = server();
    let facts = Facts {
        network: Network::of("203.0.113.77".parse().unwrap()),
        country: Some("CH"),
        pop: Some("ZRH"),
        user_agent: Some("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"),
        ..facts()
    };
    let body = first_frame();
    let annotation = native::receive(&body, &facts, known(&server)).unwrap().annotation;
    assert_eq!(annotation.received_ms, NOW.as_millis());
    assert_eq!((annotation.pop, annotation.country), ("ZRH", "CH"));
    assert_eq!(annotation.network.to_string(), "203.0.113.0/24");
    assert_eq!((annotation.agent.as_str(), annotation.traffic.as_str()), ("robot", "bot"));
    assert_eq!(annotation.refused, "");
    let strange = Facts { country: Some("<b>"), pop: Some("a very long code"), ..facts };
    let annotation = native::receive(&body, &strange, known(&server)).unwrap().annotation;
    assert_eq!((annotation.pop, annotation.country), ("", ""));
}

#[test]
fn what_is_refused_is_set_aside_for_the_tenant_it_names() {
    let server = server();
    let body = with_key(OTHER_KEY);
    let refused = native::receive(&body, &facts(), known(&server)).unwrap_err();
    assert_eq!(refused.quarantine.map(|account| account.tenant.id), Some(TENANT));
    assert_eq!((&*refused.body, refused.count), (&body[..], 2));
    assert_eq!(refused.annotation.refused, "wrong-write-key");
    // Damaged behind the header, it still says whose it is.
    let mut damaged = first_frame();
    damaged[100] ^= 4;
    let refused = native::receive(&damaged, &facts(), known(&server)).unwrap_err();
    assert_eq!((refused.problem.code(), refused.quarantine.is_some()), ("bad-crc", true));
    // Of a tenant that nobody knows, it is counted only.
    let refused = native::receive(&body, &facts(), |_| None::<&firsthop_intake::Rooted>).unwrap_err();
    assert_eq!((refused.problem.code(), refused.quarantine.is_some()), ("wrong-write-key", false));
}

/// The gate opens before anything is decoded or kept: not even a broken frame for elsewhere stays here.
#[test]
fn what_is_for_another_region_is_not_kept_here() {
    let server = server();
    let us = Header { region: region("US"), ..header() };
    let body = frame(&us, &[(ExtensionKind::WriteKey, KEY.as_bytes())], &[event()], &Unsigned);
    let refused = native::receive(&body, &facts(), known(&server)).unwrap_err();
    assert_eq!((refused.problem.status(), refused.problem.code()), (421, "wrong-region"));
    assert!(refused.quarantine.is_none());
    let mut broken = body;
    broken[100] ^= 1;
    let refused = native::receive(&broken, &facts(), known(&server)).unwrap_err();
    assert_eq!((refused.problem.code(), refused.quarantine.is_some()), ("bad-crc", false));
    for open in ["EU", "--"] {
        let header = Header { region: region(open), ..header() };
        let body = frame(&header, &[(ExtensionKind::WriteKey, KEY.as_bytes())], &[event()], &Unsigned);
        assert!(native::receive(&body, &facts(), known(&server)).is_ok(), "{open}");
    }
}

#[test]
fn a_receipt_survives_its_json() {
    let server = server();
    let body = first_frame();
    let accepted = native::receive(&body, &facts(), known(&server)).unwrap();
    let receipt = Receipt { session: accepted.session, ..Receipt::stored(accepted.frame.header()) };
    let json = receipt.to_json();
    assert_eq!(Receipt::from_json(json.as_bytes()).unwrap(), receipt);
    for end in 0..json.len() {
        assert_eq!(Receipt::from_json(&json.as_bytes()[..end]), Err(Error::Parse));
    }
    // The contract with the page, member by member.
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["source"], SOURCE.to_string());
    let session = &value["session"];
    assert_eq!((&value["batch"], &value["count"], &value["stored"]), (&0.into(), &2.into(), &2.into()));
    assert_eq!((&session["alg"], &session["keyId"], &session["epoch"]), (&1.into(), &1.into(), &472_222.into()));
    assert_eq!((&session["region"], &session["expires"]), (&"EU".into(), &1_700_003_600_000u64.into()));
    assert_eq!(session["grant"].as_str().unwrap().len(), 40);
    assert_eq!(session["secret"].as_str().unwrap().len(), 44);
    assert!(!format!("{receipt:?}").contains(session["secret"].as_str().unwrap()), "no secret in logs");
}

#[test]
fn a_receipt_with_a_wrong_session_is_none() {
    let session = |alg: &str, grant: &str, secret: &str| {
        format!(
            r#"{{"source":"{SOURCE}","batch":0,"first":0,"count":1,"stored":1,"duplicate":0,"conflict":0,
            "session":{{"alg":{alg},"keyId":1,"epoch":1,"region":"EU","grant":"{grant}","secret":"{secret}","expires":0}}}}"#
        )
    };
    let (grant, secret) = ("AAAAAEVVAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    assert!(Receipt::from_json(session("1", grant, secret).as_bytes()).is_ok());
    for (alg, grant, secret) in
        [("0", grant, secret), ("1", "AAAA", secret), ("1", grant, "AAAA"), ("1", "…", secret), ("1", grant, "%")]
    {
        assert!(Receipt::from_json(session(alg, grant, secret).as_bytes()).is_err());
    }
}

fn forgeries() -> Vec<(&'static str, Vec<u8>)> {
    let session = first_contact(&server());
    let good = session_header(&session);
    let grant = session.grant.to_bytes();
    let unsigned = Header { alg: Alg::None, ..good };
    let trustless = Header { flags: Default::default(), ..good };
    let key = firsthop_core::MacKey::new(Alg::HmacSha256Trunc128, &[0; 32]).unwrap();
    vec![
        ("session claimed, not signed", frame(&unsigned, &[(ExtensionKind::Session, &grant)], &[event()], &Unsigned)),
        (
            "signed, no session claimed",
            frame(&trustless, &[(ExtensionKind::WriteKey, KEY.as_bytes())], &[event()], &key),
        ),
        ("session claimed, none there", frame(&good, &[], &[event()], &key)),
        ("key and no session", frame(&good, &[(ExtensionKind::WriteKey, KEY.as_bytes())], &[event()], &key)),
        ("another's key", frame(&good, &[(ExtensionKind::Session, &grant)], &[event()], &key)),
        ("unknown root", session_frame_as(&Header { key_id: KeyId::new(2), ..good }, &session)),
    ]
}

#[test]
fn nobody_gets_in_by_saying_so() {
    for (name, body) in forgeries() {
        let server = server();
        let refused = native::receive(&body, &facts(), known(&server)).unwrap_err();
        assert!(matches!(refused.problem.status(), 400 | 401), "{name}: {}", refused.problem);
        let edge = edge(NOW);
        if name == "session claimed, not signed" {
            // There is nothing that another hop could check.
            let refused = native::receive(&body, &facts(), known(&edge)).unwrap_err();
            assert_eq!(refused.problem.code(), "unknown-algorithm");
        }
        // What an edge lets through, it marks as unchecked, and the server refuses it.
        if let Ok(accepted) = native::receive(&body, &facts(), known(&edge)) {
            assert_eq!(accepted.annotation.trust, Trust::Unchecked, "{name}");
            native::authenticate(&accepted.frame, &server, NOW).unwrap_err();
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
        let server = server();
        prop_assert!(native::receive(&bytes, &facts(), known(&server)).is_err());
    }

    /// Every change of a byte is found out: by CRC, or by what the header then says.
    #[test]
    fn any_change_is_refused(at in 0..10_000usize, change in 1..=255u8) {
        let server = server();
        let session = first_contact(&server);
        for mut body in [first_frame(), session_frame(&session)] {
            let at = at % body.len();
            body[at] ^= change;
            prop_assert!(native::receive(&body, &facts(), known(&server)).is_err());
            prop_assert!(native::receive(&body[..at], &facts(), known(&server)).is_err());
        }
    }
}
