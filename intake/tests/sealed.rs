//! Sealed frames at the two hops: who reads them, who passes them on, who refuses them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use firsthop_core::{
    Alg, Error, Event, ExtensionKind, FrameSigner, FrameWriter, Header, MacKey, Region, RegionKeyId, RegionSecretKey,
    Trust, Unsigned,
};
use firsthop_intake::{Account, Contents, Leased, RegionSecrets, Rooted, Session, native};

mod common;

use common::{KEY, NOW, OTHER_KEY, edge, event, facts, header, known, region, server, session_header};

fn secret(id: u32, byte: u8) -> RegionSecretKey {
    RegionSecretKey::new(RegionKeyId::new(id), [byte; 32])
}

fn secrets(keys: &[(&str, u32, u8)]) -> RegionSecrets {
    keys.iter().map(|(of, id, byte)| (region(of), secret(*id, *byte))).collect()
}

/// A server that holds two keys of its region, and one of another.
fn reading_server() -> Rooted {
    Rooted { region_secrets: secrets(&[("EU", 4, 40), ("EU", 5, 50), ("US", 6, 60)]), ..server() }
}

fn reading_edge() -> Leased {
    Leased { region_secrets: secrets(&[("EU", 5, 50)]), ..edge(NOW) }
}

fn sealed_by(
    header: &Header,
    extension: (ExtensionKind, &[u8]),
    events: &[Event<'_>],
    key: &RegionSecretKey,
    signer: &impl FrameSigner,
) -> Vec<u8> {
    let mut writer = FrameWriter::new(vec![0; 64 * 1024], header).unwrap();
    writer.extension(extension.0, extension.1).unwrap();
    writer.seal_to(&key.public()).unwrap();
    for event in events {
        writer.event(event).unwrap();
    }
    writer.finish_sealed(signer, &[7; 32]).unwrap().to_vec()
}

fn first(key: &str, sealed_to: &RegionSecretKey) -> Vec<u8> {
    let header = Header { region: region("EU"), ..header() };
    sealed_by(&header, (ExtensionKind::WriteKey, key.as_bytes()), &[event(), event()], sealed_to, &Unsigned)
}

fn in_session(session: &Session, sealed_to: &RegionSecretKey) -> Vec<u8> {
    let key = MacKey::new(Alg::HmacSha256Trunc128, &session.secret).unwrap();
    sealed_by(
        &session_header(session),
        (ExtensionKind::Session, &session.grant.to_bytes()),
        &[event()],
        sealed_to,
        &key,
    )
}

fn refusal(body: &[u8], account: &(impl Account + std::fmt::Debug)) -> (&'static str, u16, bool) {
    let refused = native::receive(body, &facts(), known(account)).unwrap_err();
    (refused.problem.code(), refused.problem.refusal().status(), refused.quarantine.is_some())
}

#[test]
fn who_has_the_key_reads_and_who_has_not_passes_on() {
    for key in [secret(4, 40), secret(5, 50)] {
        let body = first(KEY, &key);
        let server = reading_server();
        let accepted = native::receive(&body, &facts(), known(&server)).unwrap();
        let frame = accepted.readable().unwrap();
        let names: Vec<_> = frame.open().unwrap().1.map(|event| event.unwrap().name.to_owned()).collect();
        assert_eq!(names, ["Product Viewed"; 2]);
        assert_eq!(frame.bytes(), body, "what is kept is what came");
        assert!(matches!(accepted.contents, Contents::Opened(_)));
        assert_eq!(format!("{:?}", accepted.contents), "Opened(…)");
        let session = accepted.session.expect("the first frame brings a session");
        assert_eq!(accepted.annotation.trust, Trust::WriteKey);

        // An edge without keys checks who answers for it, grants the session, and sees no event.
        let edge = edge(NOW);
        let accepted = native::receive(&body, &facts(), known(&edge)).unwrap();
        assert_eq!((accepted.contents.clone(), accepted.foreign), (Contents::Sealed, 0));
        assert!(accepted.readable().is_none() && accepted.session.is_some());
        assert_eq!(accepted.frame.open().err(), Some(Error::Sealed));
        assert_eq!((accepted.frame.header().count, accepted.frame.bytes()), (2, &body[..]));

        // And a frame of that session likewise.
        let body = in_session(&session, &key);
        assert_eq!(native::receive(&body, &facts(), known(&server)).unwrap().annotation.trust, Trust::Session);
        let of_edge = native::receive(&first(KEY, &key), &facts(), known(&edge)).unwrap().session.unwrap();
        let accepted = native::receive(&body, &facts(), known(&edge)).unwrap();
        assert_eq!(accepted.annotation.trust, Trust::Unchecked, "the server's session is the server's to check");
        let body = in_session(&of_edge, &key);
        let accepted = native::receive(&body, &facts(), known(&edge)).unwrap();
        assert_eq!(accepted.annotation.trust, Trust::Session);
        assert!(accepted.readable().is_none());
    }
}

/// An edge that may read: what it has the key for it reads, the rest goes on.
#[test]
fn an_edge_that_was_given_keys_reads() {
    let edge = reading_edge();
    let body = first(KEY, &secret(5, 50));
    assert!(native::receive(&body, &facts(), known(&edge)).unwrap().readable().is_some());
    let body = first(KEY, &secret(4, 40));
    assert_eq!(native::receive(&body, &facts(), known(&edge)).unwrap().contents, Contents::Sealed);
    // Another region's key does not open a frame of this one, whatever its number.
    let edge = Leased { region_secrets: secrets(&[("US", 5, 50)]), ..edge };
    let body = first(KEY, &secret(5, 50));
    assert_eq!(native::receive(&body, &facts(), known(&edge)).unwrap().contents, Contents::Sealed);
}

#[test]
fn what_does_not_open_is_refused_and_kept() {
    let server = reading_server();
    // Sealed to a key that nobody has, or that is another region's: kept, until somebody puts it back.
    assert_eq!(refusal(&first(KEY, &secret(9, 90)), &server), ("sealed-unsupported", 501, true));
    assert_eq!(refusal(&first(KEY, &secret(6, 60)), &server), ("sealed-unsupported", 501, true));
    // Under the number of a key that there is, but to another.
    assert_eq!(refusal(&first(KEY, &secret(5, 51)), &server), ("bad-seal", 400, true));
    // A hop that knows nothing of region keys.
    #[derive(Debug)]
    struct Old(Rooted);
    impl Account for Old {
        fn tenant(&self) -> &firsthop_intake::Tenant {
            self.0.tenant()
        }
        fn current(
            &self,
            now: firsthop_core::Timestamp,
        ) -> Result<(firsthop_core::KeyId, firsthop_core::LeaseScope, firsthop_core::LeaseKey), Error> {
            self.0.current(now)
        }
        fn lease(
            &self,
            root: firsthop_core::KeyId,
            scope: &firsthop_core::LeaseScope,
            now: firsthop_core::Timestamp,
        ) -> Result<Option<firsthop_core::LeaseKey>, Error> {
            self.0.lease(root, scope, now)
        }
    }
    assert_eq!(refusal(&first(KEY, &secret(5, 50)), &Old(reading_server())), ("sealed-unsupported", 501, true));
}

/// Nothing is opened for whom nobody answers: the signature comes first.
#[test]
fn the_signature_is_asked_before_the_seal() {
    let server = reading_server();
    assert_eq!(refusal(&first(OTHER_KEY, &secret(5, 51)), &server).0, "wrong-write-key");
    let session = native::receive(&first(KEY, &secret(5, 50)), &facts(), known(&server)).unwrap().session.unwrap();
    let mut forged = in_session(&session, &secret(5, 51));
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert_eq!(refusal(&forged, &server).0, "bad-signature");
    let elsewhere = Header { region: region("US"), ..header() };
    let body = sealed_by(&elsewhere, (ExtensionKind::WriteKey, KEY.as_bytes()), &[event()], &secret(6, 60), &Unsigned);
    assert_eq!(refusal(&body, &server).0, "wrong-region");
    let anywhere =
        Rooted { tenant: firsthop_intake::Tenant { region: Region::ANY, ..server.tenant.clone() }, ..reading_server() };
    assert!(native::receive(&body, &facts(), known(&anywhere)).unwrap().readable().is_some());
}

/// What was sealed is held to what an open payload is held to.
#[test]
fn what_opens_is_checked_as_any_payload() {
    let server = reading_server();
    let mut body = first(KEY, &secret(5, 50));
    // The number of events is part of what is sealed with.
    body[44] += 1;
    let crc = firsthop_core::crc32(&[&body[..80], &[0; 4], &body[84..]]);
    body[80..84].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(refusal(&body, &server).0, "bad-seal");
    let edge = edge(NOW);
    assert!(native::receive(&body, &facts(), known(&edge)).is_ok(), "who cannot look cannot tell");
}

#[test]
fn the_first_key_of_a_number_and_region_counts() {
    let keys = secrets(&[("EU", 5, 50), ("US", 5, 60)]);
    let get = |of: &str, id| keys.get(region(of), RegionKeyId::new(id)).map(|key| key.expose()[0]);
    assert_eq!([get("EU", 5), get("US", 5), get("EU", 6), get("CH", 5)], [Some(50), Some(60), None, None]);
    assert!(!keys.is_empty() && RegionSecrets::default().is_empty());
    assert!(!format!("{keys:?}").contains("50, 50"), "no secret is shown: {keys:?}");
}
