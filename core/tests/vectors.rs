//! The vectors: what was written by a second implementation, this one writes and reads too. See `vectors/README.md`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use firsthop_core::{
    AgentClass, Alg, Annotation, Campaign, Consent, Context, Effects, Envelope, Epoch, Error, Event, EventId,
    ExtensionKind, ForeignId, Frame, FrameSigner, FrameVerifier, Holder, KeyId, LeaseKey, LeaseScope, MacKey, Network,
    Notes, Properties, ReferrerClass, Region, RootKey, SessionGrant, SourceId, TenantId, Timestamp, Traffic, Trust,
    Unsigned, Vendor, WorkerId, WriteKey,
    limits::{MAX_ENVELOPE, MAX_NOTES, MAX_SESSION_MS},
    seal_envelope,
};
use serde_json::Value as Json;

mod common;

use common::{ContextModel, EventModel, content, entries, frame, json, json::hex, postcard, written};

#[test]
fn properties() {
    for case in json::cases(include_str!("vectors/properties.json")) {
        let expected = json::entries(&case["entries"]);
        let bytes = json::bytes(&case, "hex");
        let halves = postcard(&(json::text(&case, "text"), json::bytes(&case, "shape")));
        assert_eq!(hex(&halves), hex(&bytes), "{case}");

        let writer = written(&expected).unwrap();
        assert_eq!(hex(&postcard(&writer.finish().unwrap())), hex(&bytes), "{case}");
        let read: Properties<'_> = ::postcard::from_bytes(&bytes).unwrap();
        assert_eq!(entries(read), expected, "{case}");
        assert_eq!(read, writer.finish().unwrap());
    }
}

#[test]
fn contexts() {
    for case in json::cases(include_str!("vectors/contexts.json")) {
        let model = json::context(&case["context"]);
        let bytes = json::bytes(&case, "hex");
        assert_eq!(hex(&model.with(|value| postcard(value))), hex(&bytes), "serde writes {case}");

        let frame = common::unsigned(&model, &[]).unwrap();
        let frame = Frame::parse(&frame).unwrap();
        assert_eq!(hex(frame.payload()), hex(&bytes), "{case}");
        let (context, _) = frame.open().unwrap();
        assert_eq!(ContextModel::of(&context), model, "{case}");
        let context: Context<'_> = ::postcard::from_bytes(&bytes).unwrap();
        assert_eq!(ContextModel::of(&context), model, "serde reads {case}");
    }
}

#[test]
fn events() {
    let no_context = common::unsigned(&ContextModel::default(), &[]).unwrap();
    let no_context = Frame::parse(&no_context).unwrap().payload().len();
    for case in json::cases(include_str!("vectors/events.json")) {
        let model = json::event(&case["event"]);
        let bytes = json::bytes(&case, "hex");
        assert_eq!(hex(&model.with(|value| postcard(value))), hex(&bytes), "serde writes {case}");

        let frame = common::unsigned(&ContextModel::default(), std::slice::from_ref(&model)).unwrap();
        let frame = Frame::parse(&frame).unwrap();
        assert_eq!(hex(&frame.payload()[no_context..]), hex(&bytes), "{case}");
        assert_eq!(content(&frame).unwrap().1, std::slice::from_ref(&model), "{case}");
        let event: Event<'_> = ::postcard::from_bytes(&bytes).unwrap();
        assert_eq!(EventModel::of(&event), model, "serde reads {case}");
    }
}

/// Every step that a good frame passes, with the key from the vector.
fn check_frame(case: &Json) {
    let header = json::header(&case["header"]);
    let extensions = json::extensions(case);
    let (context, events) = (json::context(&case["context"]), json::events(&case["events"]));
    let bytes = json::bytes(case, "hex");
    let with_key = |signer: &dyn FrameSigner, verifier: Option<&dyn FrameVerifier>| {
        let written = frame(&header, &extensions, &context, &events, signer).unwrap();
        assert_eq!(hex(&written), hex(&bytes), "{case}");
        if let Some(verifier) = verifier {
            Frame::parse(&bytes).unwrap().verify(verifier).unwrap();
        }
    };
    match header.alg {
        Alg::None => with_key(&Unsigned, None),
        Alg::HmacSha256Trunc128 | Alg::HmacSha256 | Alg::Blake3 => {
            match MacKey::new(header.alg, &json::key(case, "key")) {
                Ok(key) => with_key(&key, Some(&key)),
                Err(error) => assert!(error == Error::Algorithm && !cfg!(feature = "blake3"), "{error}"),
            }
        }
        #[cfg(feature = "ed25519")]
        Alg::Ed25519 => {
            let key = firsthop_core::SecretKey::from_seed(&json::key(case, "key"));
            assert_eq!(hex(key.public().as_bytes()), json::text(case, "public"));
            with_key(&key, Some(&key.public()));
        }
        #[cfg(not(feature = "ed25519"))]
        Alg::Ed25519 => assert_eq!(MacKey::new(header.alg, &json::key(case, "key")).err(), Some(Error::Algorithm)),
        other => panic!("no algorithm of the vectors: {other:?}"),
    }

    let frame = Frame::parse(&bytes).unwrap();
    let header = firsthop_core::Header { count: events.len() as u16, ..header };
    assert_eq!(*frame.header(), header, "{case}");
    assert_eq!(firsthop_core::Header::peek(&bytes[..88]), Ok(header));
    let found: Vec<_> = frame.extensions().map(|extension| (extension.kind, extension.value.to_vec())).collect();
    assert_eq!(found, extensions, "{case}");
    assert_eq!(content(&frame), Ok((context, events)), "{case}");
    frame.check().unwrap();
}

#[test]
fn frames() {
    let cases = json::cases(include_str!("vectors/frames.json"));
    cases.iter().for_each(check_frame);

    let first = json::bytes(&cases[0], "hex");
    let first = Frame::parse(&first).unwrap();
    assert_eq!(first.write_key().unwrap().as_str(), "fh_00000000000a11ce_Kq7Zp0c3Vn8Rb5Ls");
    assert_eq!(first.session().err(), Some(Error::Session));
    assert_eq!(first.traceparent(), None);
    let traced = json::bytes(&cases[3], "hex");
    let traced = Frame::parse(&traced).unwrap();
    assert_eq!(traced.traceparent(), Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
    assert_eq!(traced.write_key().err(), Some(Error::WriteKey));
    assert_eq!(traced.extensions().get(ExtensionKind::Unknown(1000)), Some(&[][..]));
}

fn network(json: &Json) -> Network {
    let parts = |text: &str, radix| -> Vec<u8> {
        text.split(['.', ':']).map(|part| u8::from_str_radix(part, radix).unwrap()).collect()
    };
    match (json["v4"].as_str(), json["v6"].as_str()) {
        (Some(v4), _) => Network::V4(parts(v4, 10).try_into().unwrap()),
        (_, Some(v6)) => Network::V6(parts(v6, 16).try_into().unwrap()),
        _ => Network::Unknown,
    }
}

fn annotation(json: &Json) -> Annotation<'_> {
    let agents = [
        AgentClass::Unknown,
        AgentClass::Desktop,
        AgentClass::Phone,
        AgentClass::Tablet,
        AgentClass::Library,
        AgentClass::Robot,
        AgentClass::Tv,
    ];
    let traffic =
        [Traffic::Unknown, Traffic::Bot, Traffic::Prefetch, Traffic::Human, Traffic::AiAgent, Traffic::Scanner];
    Annotation {
        received_ms: json::number(json, "received_ms"),
        pop: json::text(json, "pop"),
        country: json::text(json, "country"),
        network: network(&json["network"]),
        agent: agents.into_iter().find(|agent| json["agent"] == agent.as_str()).unwrap(),
        traffic: traffic.into_iter().find(|traffic| json["traffic"] == traffic.as_str()).unwrap(),
        trust: [Trust::Unchecked, Trust::WriteKey, Trust::Session]
            .into_iter()
            .find(|trust| json["trust"] == trust.as_str())
            .unwrap(),
        refused: json::text(json, "refused"),
    }
}

fn notes(json: &Json) -> Notes<'_> {
    let effects: Vec<&str> = json["effects"].as_array().unwrap().iter().filter_map(Json::as_str).collect();
    let referrers = [
        ReferrerClass::Unknown,
        ReferrerClass::Direct,
        ReferrerClass::Internal,
        ReferrerClass::Search,
        ReferrerClass::Social,
        ReferrerClass::Email,
        ReferrerClass::AiAssistant,
        ReferrerClass::Campaign,
        ReferrerClass::Other,
    ];
    let referrer = json::text(json, "referrer");
    Notes {
        rules: json::number(json, "rules"),
        effects: Effects::NAMES
            .into_iter()
            .filter(|(_, name)| effects.contains(name))
            .fold(Effects::default(), |all, (effect, _)| all.with(effect)),
        withdrawn: Consent::from_bits(json::number(json, "withdrawn")),
        referrer: referrers.into_iter().find(|class| class.as_str().unwrap_or("unknown") == referrer).unwrap(),
        skew_ms: json["skew_ms"].as_i64().unwrap(),
        subdivision: json::text(json, "subdivision"),
        city: json::text(json, "city"),
        campaign: json["campaign"].as_object().map(|campaign| {
            let text = |name| campaign.get(name).and_then(Json::as_str);
            Campaign {
                source: text("source"),
                medium: text("medium"),
                name: text("name"),
                term: text("term"),
                content: text("content"),
            }
        }),
        click_id: json::text(json, "click_id"),
    }
}

#[test]
fn envelopes() {
    for case in json::cases(include_str!("vectors/envelopes.json")) {
        let annotation = annotation(&case["annotation"]);
        let (bytes, inner) = (json::bytes(&case, "hex"), json::bytes(&case, "frame"));
        let encoded = json::bytes(&case, "annotation_hex");
        assert_eq!(hex(annotation.encode(&mut [0; 512]).unwrap()), hex(&encoded), "{case}");
        assert_eq!(Annotation::from_bytes(&encoded), Ok(annotation), "{case}");

        let header = json::header(&case["header"]);
        let worker = WorkerId::new(json::number(&case, "worker"));
        let notes = case.get("notes").map(notes);
        if let Some(notes) = &notes {
            assert_eq!(hex(notes.encode(&mut [0; MAX_NOTES]).unwrap()), json::text(&case, "notes_hex"), "{case}");
        }
        let expected = Envelope { worker, annotation, notes, frame: &inner };
        let frame = Frame::parse(&bytes).unwrap();
        assert_eq!(Envelope::open(&frame), Ok(expected), "{case}");
        let Ok(key) = MacKey::new(header.alg, &json::key(&case, "key")) else {
            assert!(header.alg == Alg::Blake3 && !cfg!(feature = "blake3"));
            continue;
        };
        let mut buf = vec![0; MAX_ENVELOPE];
        let written = match &notes {
            Some(notes) => seal_envelope(&mut buf, &header, worker, (&annotation, notes), &inner, &key),
            None => seal_envelope(&mut buf, &header, worker, &annotation, &inner, &key),
        };
        let written = written.unwrap();
        assert_eq!(hex(written), hex(&bytes), "{case}");
        frame.verify(&key).unwrap();
    }
}

fn grant(case: &Json) -> SessionGrant {
    let json = &case["grant"];
    SessionGrant {
        worker: WorkerId::new(json::number(json, "worker")),
        region: json::region(json),
        expires: Timestamp::from_millis(json::number(json, "expires_ms")),
        holder: Holder::new(json::text(json, "origin"), json::text(json, "write_key")),
    }
}

fn lease(case: &Json) -> LeaseKey {
    let scope = LeaseScope {
        tenant: json::tenant(&case["scope"]),
        region: json::region(&case["scope"]),
        worker: WorkerId::new(json::number(&case["scope"], "worker")),
        epoch: Epoch::new(json::number(&case["scope"], "epoch")),
    };
    let grant = grant(case);
    assert_eq!(grant.scope(scope.tenant, scope.epoch), scope);
    RootKey::new(json::key(case, "root")).lease(&scope)
}

#[test]
fn sessions() {
    /// HKDF without a salt, from the very bytes that the vector says go in.
    fn hkdf(secret: &[u8], info: &[u8]) -> String {
        let mut out = [0; 32];
        hkdf::Hkdf::<sha2::Sha256>::new(None, secret).expand(info, &mut out).unwrap();
        hex(&out)
    }
    for case in json::cases(include_str!("vectors/sessions.json")) {
        let (lease, grant, source) = (lease(&case), grant(&case), json::source(&case));
        assert_eq!(hex(lease.expose()), json::text(&case, "lease"));
        assert_eq!(hkdf(&json::bytes(&case, "root"), &json::bytes(&case, "lease_info")), json::text(&case, "lease"));
        for alg in [Alg::HmacSha256Trunc128, Alg::HmacSha256] {
            let (ours, theirs) = (lease.envelope_key(alg), MacKey::new(alg, &json::key(&case, "envelope_key")));
            assert_eq!(ours.unwrap().sign(b"x").as_bytes(), theirs.unwrap().sign(b"x").as_bytes());
        }
        assert_eq!(hkdf(lease.expose(), &json::bytes(&case, "envelope_info")), json::text(&case, "envelope_key"));
        assert_eq!(hex(&grant.to_bytes()[14..]), json::text(&case, "holder"));
        assert_eq!(hex(&grant.to_bytes()), json::text(&case, "grant_hex"));
        assert_eq!(SessionGrant::from_bytes(&grant.to_bytes()), Ok(grant));
        assert_eq!(hex(&lease.session_secret(source, &grant)[..]), json::text(&case, "session_secret"));
        assert_eq!(hkdf(lease.expose(), &json::bytes(&case, "session_info")), json::text(&case, "session_secret"));

        check_frame(&case["frame"]);
        let bytes = json::bytes(&case["frame"], "hex");
        let frame = Frame::parse(&bytes).unwrap();
        let checks = case["checks"].as_array().unwrap();
        assert!(checks.len() >= 4);
        for check in checks {
            let now = Timestamp::from_millis(json::number(check, "now_ms"));
            let verdict = lease.verify_session(&frame, now);
            assert_eq!(verdict.err().map(Error::code), check["error"].as_str(), "{check}");
            assert!(verdict.is_err() || verdict == Ok(grant));
        }
    }
}

#[test]
fn refused() {
    let sessions = json::cases(include_str!("vectors/sessions.json"));
    let mut codes = std::collections::BTreeSet::new();
    for case in json::cases(include_str!("vectors/refused.json")) {
        let bytes = json::bytes(&case, "hex");
        let error = match json::text(&case, "step") {
            "parse" => Frame::parse(&bytes).err(),
            step => {
                let frame = Frame::parse(&bytes).unwrap_or_else(|error| panic!("{error} in {case}"));
                match step {
                    "verify" => verify(&frame, &case),
                    "open" => frame.check().err(),
                    "unseal" => match unsealed(&frame, &case) {
                        Some(verdict) => verdict.err(),
                        None => continue,
                    },
                    "envelope" => Envelope::open(&frame).err(),
                    "session" => {
                        let now = Timestamp::from_millis(json::number(&case, "now_ms"));
                        lease(&sessions[0]).verify_session(&frame, now).err()
                    }
                    other => panic!("no step: {other}"),
                }
            }
        };
        let code = error.map(Error::code);
        assert_eq!(code, case["error"].as_str(), "{}", case["description"]);
        codes.extend(code);
    }
    // Every error that bytes from outside can cause in these steps is among them.
    let all = [
        "truncated",
        "trailing-bytes",
        "too-large",
        "bad-magic",
        "unknown-version",
        "reserved-bits",
        "sealed-unsupported",
        #[cfg(feature = "seal")]
        "bad-seal",
        #[cfg(feature = "seal")]
        "unknown-key",
        "unknown-algorithm",
        "bad-region",
        "bad-header-length",
        "bad-extension",
        "bad-crc",
        "bad-signature",
        "epoch-out-of-range",
        "bad-session",
        "bad-count",
        "malformed-payload",
        "too-deep",
        "wrong-state",
    ];
    assert_eq!(codes, all.into_iter().collect());
}

/// Opens a sealed frame and decodes it, if this build can.
fn unsealed(frame: &Frame<'_>, case: &Json) -> Option<Result<(), Error>> {
    #[cfg(feature = "seal")]
    {
        let key = &case["region_key"];
        let id = firsthop_core::RegionKeyId::new(json::number(key, "id"));
        let key = firsthop_core::RegionSecretKey::new(id, json::key(key, "secret"));
        let mut buffer = vec![0; frame.payload().len()];
        Some(frame.unseal(&key, &mut buffer).and_then(|frame| frame.check().map(|_| ())))
    }
    #[cfg(not(feature = "seal"))]
    {
        let _ = (frame, case);
        None
    }
}

/// A case whose algorithm this build lacks is refused for that.
fn verify(frame: &Frame<'_>, case: &Json) -> Option<Error> {
    let key = json::key(case, "key");
    match json::alg(json::number(case, "alg")) {
        Alg::Ed25519 => {
            #[cfg(feature = "ed25519")]
            return frame.verify(&firsthop_core::PublicKey::from_bytes(&key).unwrap()).err();
            #[cfg(not(feature = "ed25519"))]
            Some(Error::Signature)
        }
        alg => match MacKey::new(alg, &key) {
            Ok(key) => frame.verify(&key).err(),
            Err(_) => (alg == Alg::Blake3 && !cfg!(feature = "blake3")).then_some(Error::Signature),
        },
    }
}

#[test]
fn ids() {
    let ids: Json = serde_json::from_str(include_str!("vectors/ids.json")).unwrap();
    let list = |json: &Json| json.as_array().filter(|list| !list.is_empty()).unwrap().clone();
    for case in list(&ids["foreign"]) {
        assert_eq!(json::text(&case, "vendor"), "segment");
        let id = ForeignId { vendor: Vendor::Segment, id: json::text(&case, "id") };
        assert_eq!(SourceId::of_foreign(json::tenant(&case), &id).to_string(), json::text(&case, "source"));
    }
    for case in list(&ids["v7"]) {
        let millis = Timestamp::from_millis(json::number(&case, "millis"));
        let random = json::bytes(&case, "random").try_into().unwrap();
        assert_eq!(SourceId::v7(millis, random), json::source(&case));
        assert_eq!(SourceId::v7(millis, random).to_string(), json::text(&case, "source"));
    }
    let texts = |json: &Json| list(json).iter().map(|text| text.as_str().unwrap().to_owned()).collect::<Vec<_>>();
    for text in texts(&ids["write_keys"]["accepted"]) {
        let key = WriteKey::parse(&text).unwrap();
        assert_eq!(key.as_str(), text);
        assert_eq!(key.tenant().to_string(), text[3..19]);
    }
    for text in texts(&ids["write_keys"]["refused"]) {
        assert_eq!(WriteKey::parse(&text).err(), Some(Error::WriteKey), "{text}");
    }
    for text in texts(&ids["event_ids"]["accepted"]) {
        assert_eq!(text.parse::<EventId>().unwrap().to_string(), text);
    }
    for text in texts(&ids["event_ids"]["refused"]) {
        assert_eq!(text.parse::<EventId>(), Err(Error::Parse), "{text}");
    }
}

/// What the vectors take for granted.
#[test]
fn constants() {
    assert_eq!(MAX_SESSION_MS, 24 * 3_600_000);
    assert_eq!(Epoch::at(Timestamp::from_millis(1_700_000_000_000)), Epoch::new(472_222));
    assert_eq!(Region::new(*b"--"), Ok(Region::ANY));
    assert_eq!((TenantId::new(1).to_string().as_str(), KeyId::FIRST.get()), ("0000000000000001", 1));
}
