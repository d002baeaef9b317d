//! Laws, for any input: what is written is read again, by hand and by serde alike, and there is one encoding of everything.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use firsthop_core::{
    Alg, Annotation, Campaign, Computed, Consent, Context, ContextDelta, Effects, Envelope, Error, Event, EventKind,
    ExtensionKind, Frame, Header, Network, Notes, Properties, ReferrerClass, Unsigned, WorkerId, WriteKey,
    limits::{MAX_DEPTH, MAX_EVENT, MAX_NAME, MAX_NOTES},
    seal_envelope,
};
use proptest::prelude::*;

mod common;

use common::{ContextModel, Entries, EventModel, Tree, content, entries, fix_crc, header, postcard, unsigned, written};

fn text() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z_]{0,12}", 2 => ".{0,20}", 1 => "\\PC{100,200}"]
}

fn leaf() -> impl Strategy<Value = Tree> {
    prop_oneof![
        Just(Tree::Null),
        any::<bool>().prop_map(Tree::Bool),
        (any::<u64>(), 0..64u32).prop_map(|(number, bits)| Tree::U64(number >> bits)),
        (i64::MIN..0, 0..63u32).prop_map(|(number, bits)| Tree::I64((number >> bits).min(-1))),
        any::<u64>().prop_map(|bits| Tree::F64(f64::from_bits(bits))),
        any::<f64>().prop_map(Tree::F64),
        text().prop_map(Tree::Str),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Tree::Bytes),
    ]
}

fn tree() -> impl Strategy<Value = Tree> {
    leaf().prop_recursive(MAX_DEPTH as u32, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Tree::List),
            prop::collection::vec((text(), inner), 0..5).prop_map(Tree::Map),
        ]
    })
}

fn map() -> impl Strategy<Value = Entries> {
    prop::collection::vec((text(), tree()), 0..6)
}

fn context() -> impl Strategy<Value = ContextModel> {
    (
        prop::array::uniform9(prop::option::of(text())),
        prop::option::of(any::<(u32, u32)>()),
        prop::option::of(prop::array::uniform5(prop::option::of(text()))),
        map(),
    )
        .prop_map(|(texts, screen, campaign, extra)| ContextModel { texts, screen, campaign, extra })
}

fn event() -> impl Strategy<Value = EventModel> {
    (
        prop::sample::select(&EventKind::ALL[..]),
        prop_oneof![0..100_000i64, any::<i64>()],
        prop::option::of("[!-~]{0,80}"),
        text().prop_filter("longer than a name", |name| name.len() <= MAX_NAME),
        prop::option::weighted(0.2, context()),
        map(),
    )
        .prop_map(|(kind, offset_ms, id, name, context, properties)| EventModel {
            kind,
            offset_ms,
            id,
            name,
            context,
            properties,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn properties_are_read_as_written(model in map()) {
        let writer = written(&model).unwrap();
        let properties = writer.finish().unwrap();
        prop_assert_eq!(entries(properties), model.clone());
        for (key, _) in &model {
            let first = model.iter().find(|(k, _)| k == key).map(|(_, value)| value.clone());
            prop_assert_eq!(properties.get(key).map(Tree::from), first);
        }
        // Through serde, and back.
        let bytes = postcard(&properties);
        let again: Properties<'_> = ::postcard::from_bytes(&bytes).unwrap();
        prop_assert_eq!(again, properties);
        prop_assert_eq!(entries(again), model);
    }

    /// A container that stands encoded is copied as if it were written piece by piece.
    #[test]
    fn copies_of_containers_are_the_same_bytes(model in map()) {
        let writer = written(&model).unwrap();
        let mut copy = common::writer();
        for (key, value) in writer.finish().unwrap() {
            copy.put(key, value).unwrap();
        }
        prop_assert_eq!(copy.finish().unwrap(), writer.finish().unwrap());
    }

    /// serde is the second opinion on every byte, writing and reading.
    #[test]
    fn events_and_contexts_are_postcard(shared in context(), event in event()) {
        let frame = unsigned(&shared, std::slice::from_ref(&event)).unwrap();
        let frame = Frame::parse(&frame).unwrap();
        let mut theirs = shared.with(|shared| postcard(shared));
        theirs.extend(event.with(|event| postcard(event)));
        prop_assert_eq!(frame.payload(), &theirs);

        let (context, mut events) = frame.open().unwrap();
        let (their_context, rest): (Context<'_>, _) = ::postcard::take_from_bytes(&theirs).unwrap();
        let (their_event, rest): (Event<'_>, _) = ::postcard::take_from_bytes(rest).unwrap();
        prop_assert!(rest.is_empty());
        prop_assert_eq!(format!("{context:?}"), format!("{their_context:?}"));
        prop_assert_eq!(format!("{:?}", events.next().unwrap().unwrap()), format!("{their_event:?}"));
        prop_assert_eq!(ContextModel::of(&their_context), shared);
        prop_assert_eq!(EventModel::of(&their_event), event);
    }

    #[test]
    fn frames_are_read_as_written(shared in context(), events in prop::collection::vec(event(), 0..6)) {
        let bytes = unsigned(&shared, &events).unwrap();
        let frame = Frame::parse(&bytes).unwrap();
        prop_assert_eq!(usize::from(frame.header().count), events.len());
        prop_assert_eq!(content(&frame), Ok((shared, events)));
    }

    /// What an event's context sets stands in place of the frame's; what it does not set, stays.
    #[test]
    fn a_delta_is_put_over_the_frames_context(shared in context(), delta in context()) {
        let expected = ContextModel {
            texts: std::array::from_fn(|i| delta.texts[i].clone().or_else(|| shared.texts[i].clone())),
            screen: delta.screen.or(shared.screen),
            campaign: delta.campaign.clone().or_else(|| shared.campaign.clone()),
            extra: if delta.extra.is_empty() { shared.extra.clone() } else { delta.extra.clone() },
        };
        let mut buf = vec![0; MAX_EVENT];
        let delta = delta.with(|delta| ContextDelta::encode(delta, &mut buf)).unwrap();
        let whole = shared.with(|shared| delta.apply(shared).map(|whole| ContextModel::of(&whole))).unwrap();
        prop_assert_eq!(whole, expected);
    }

    /// There is one encoding of everything: a payload that is read is what writing it again gives.
    #[test]
    fn a_payload_that_is_read_is_written_the_same(
        shared in context(),
        events in prop::collection::vec(event(), 0..3),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = unsigned(&shared, &events).unwrap();
        for (at, byte) in changes {
            let at = 88 + at.index(bytes.len() - 88);
            bytes[at] = byte;
        }
        fix_crc(&mut bytes);
        let frame = Frame::parse(&bytes).unwrap();
        if let Ok((shared, events)) = content(&frame) {
            prop_assert_eq!(unsigned(&shared, &events), Ok(bytes));
        }
    }

    /// Any bytes at all: an answer, not a panic, and the same from looking as from decoding.
    #[test]
    fn any_payload_is_judged(payload in prop::collection::vec(prop_oneof![3 => 0..12u8, 1 => any::<u8>()], 0..200), count in 0..4u16) {
        let mut bytes = unsigned(&ContextModel::default(), &[]).unwrap();
        bytes.truncate(88);
        bytes.extend(&payload);
        bytes[44..46].copy_from_slice(&count.to_le_bytes());
        bytes[76..80].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        fix_crc(&mut bytes);
        let frame = Frame::parse(&bytes).unwrap();
        prop_assert_eq!(frame.check().err(), content(&frame).err());
    }

    #[test]
    fn annotations_are_read_as_written(received_ms: u64, texts in prop::array::uniform3("[a-z-]{0,64}"), net: [u8; 6], kind in 0..3u8) {
        let annotation = Annotation {
            received_ms,
            pop: &texts[0],
            country: &texts[1],
            refused: &texts[2],
            network: match kind {
                0 => Network::Unknown,
                1 => Network::V4([net[0], net[1], net[2]]),
                _ => Network::V6(net),
            },
            ..Annotation::default()
        };
        let mut buf = [0; 512];
        let bytes = annotation.encode(&mut buf).unwrap();
        prop_assert_eq!(Annotation::from_bytes(bytes), Ok(annotation));
        for len in 0..bytes.len() {
            prop_assert_eq!(Annotation::from_bytes(&bytes[..len]), Err(Error::Payload));
        }
    }

    #[test]
    fn notes_are_read_as_written(
        rules: u32,
        skew_ms: i64,
        withdrawn: u8,
        texts in prop::array::uniform3("[a-zé-]{0,32}"),
        parameters in prop::option::of(prop::array::uniform5(prop::option::of("[a-zé&-]{0,48}"))),
        later: [u8; 3],
    ) {
        let campaign = parameters.as_ref().map(|texts| {
            let [source, medium, name, term, content] = texts.each_ref().map(Option::as_deref);
            Campaign { source, medium, name, term, content }
        });
        let notes = Notes {
            rules,
            effects: Effects::GPC.with(Effects::SESSION),
            withdrawn: Consent::from_bits(withdrawn),
            referrer: ReferrerClass::Email,
            skew_ms,
            subdivision: &texts[0],
            city: &texts[1],
            campaign,
            click_id: &texts[2],
        };
        let mut buf = [0; MAX_NOTES];
        let len = notes.encode(&mut buf).unwrap().len();
        prop_assert_eq!(Notes::from_bytes(&buf[..len]), Ok(notes));
        for len in 0..len {
            prop_assert_eq!(Notes::from_bytes(&buf[..len]), Err(Error::Payload));
        }
        // What a later version has to say besides.
        let mut longer = buf[..len].to_vec();
        longer.extend(later);
        prop_assert_eq!(Notes::from_bytes(&longer).is_ok(), longer.len() <= MAX_NOTES);
        // In an envelope, and for who knows none the same envelope.
        let (mut buf, annotation) = ([0; 4096], Annotation { received_ms: 7, ..Annotation::default() });
        let sealed = seal_envelope(&mut buf, &header(), WorkerId::new(1), (&annotation, &notes), b"frame", &Unsigned).unwrap();
        let frame = Frame::parse(sealed).unwrap();
        let expected = Envelope { worker: WorkerId::new(1), annotation, notes: Some(notes), frame: b"frame" };
        prop_assert_eq!(Envelope::open(&frame), Ok(expected));
        prop_assert!(frame.extensions().get(ExtensionKind::Unknown(6)).is_some());
    }

    /// The CRC of a parsed frame is made use of where the frame is wrapped; of bytes it is made anew.
    #[test]
    fn a_frame_is_wrapped_as_its_bytes_are(payload in proptest::collection::vec(any::<u8>(), 0..20_000), alg in 0..2) {
        let alg = if alg == 0 { Alg::None } else { Alg::HmacSha256 };
        let signer = Computed::new(Alg::HmacSha256, [7; 32]).unwrap();
        let mut buf = vec![0; 32_000];
        // Any payload will do: an envelope's frame need not parse, and its own does.
        let header = Header { alg, ..header() };
        let inner = match alg {
            Alg::None => seal_envelope(&mut buf, &header, WorkerId::new(1), &Annotation::default(), &payload, &Unsigned),
            _ => seal_envelope(&mut buf, &header, WorkerId::new(1), &Annotation::default(), &payload, &signer),
        }
        .unwrap();
        let frame = Frame::parse(inner).unwrap();
        let outer = Header { alg: Alg::HmacSha256, ..header };
        let (mut a, mut b) = (vec![0; 40_000], vec![0; 40_000]);
        let of_bytes = seal_envelope(&mut a, &outer, WorkerId::new(2), &Annotation::default(), inner, &signer).unwrap();
        let of_frame = seal_envelope(&mut b, &outer, WorkerId::new(2), &Annotation::default(), frame, &signer).unwrap();
        prop_assert_eq!(of_bytes, of_frame);
    }

    #[test]
    fn write_keys_are_what_they_look_like(text in "(fh_)?[0-9a-fA-F]{15,17}_[0-9A-Za-z_-]{14,46}") {
        let (tenant, secret) = text.strip_prefix("fh_").and_then(|rest| rest.split_once('_')).unwrap_or(("", ""));
        let good = tenant.len() == 16
            && !tenant.bytes().any(|b| b.is_ascii_uppercase())
            && (16..=44).contains(&secret.len())
            && secret.bytes().all(|b| b.is_ascii_alphanumeric());
        prop_assert_eq!(WriteKey::parse(&text).is_ok(), good);
    }
}
