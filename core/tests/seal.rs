//! Sealed frames: the vectors, every change of a sealed frame, and the laws of sealing.
#![cfg(feature = "seal")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use firsthop_core::{
    Alg, Context, Envelope, Error, Event, ExtensionKind, Flags, Frame, FrameSigner, FrameWriter, Header, MacKey,
    Region, RegionKeyId, RegionPublicKey, RegionSecretKey, SEAL_LEN, TenantId, Unsigned,
    limits::{MAX_FRAME, MAX_HEADER},
};
use proptest::prelude::*;
use serde_json::Value as Json;

mod common;

use common::{ContextModel, EventModel, content, json, json::hex};

fn cases() -> Vec<Json> {
    json::cases(include_str!("vectors/sealed.json"))
}

/// The private key that a case is sealed to.
fn region_key(case: &Json) -> RegionSecretKey {
    let key = &case["region_key"];
    RegionSecretKey::new(RegionKeyId::new(json::number(key, "id")), json::key(key, "secret"))
}

fn signer(header: &Header, case: &Json) -> Box<dyn FrameSigner> {
    match header.alg {
        Alg::None => Box::new(Unsigned),
        alg => Box::new(MacKey::new(alg, &json::key(case, "key")).unwrap()),
    }
}

fn secret(id: u32, byte: u8) -> RegionSecretKey {
    RegionSecretKey::new(RegionKeyId::new(id), [byte; 32])
}

/// A sealed, unsigned frame of these events.
fn sealed(
    header: &Header,
    context: &ContextModel,
    events: &[EventModel],
    key: &RegionPublicKey,
    random: [u8; 32],
) -> Vec<u8> {
    let mut writer = FrameWriter::new(vec![0; MAX_FRAME], header).unwrap();
    writer.seal_to(key).unwrap();
    context.with(|context| writer.context(context)).unwrap();
    for event in events {
        event.with(|event| writer.event(event)).unwrap();
    }
    let signer: Box<dyn FrameSigner> = match header.alg {
        Alg::None => Box::new(Unsigned),
        alg => Box::new(MacKey::new(alg, &[9; 32]).unwrap()),
    };
    writer.finish_sealed(&*signer, &random).unwrap().to_vec()
}

fn with_right_crc(mut bytes: Vec<u8>) -> Vec<u8> {
    let tag = Header::peek(&bytes).map_or(0, |header| header.alg.tag_len());
    let end = bytes.len().saturating_sub(tag);
    bytes[80..84].fill(0);
    let crc = firsthop_core::crc32(&[&bytes[..end]]);
    bytes[80..84].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// What somebody does who holds the key, and does not ask who signed.
fn opened(bytes: &[u8], key: &RegionSecretKey) -> Result<(ContextModel, Vec<EventModel>), Error> {
    let mut buffer = vec![0; bytes.len()];
    let frame = Frame::parse(bytes)?;
    let frame = frame.unseal(key, &mut buffer)?;
    frame.check()?;
    content(&frame)
}

#[test]
fn vectors() {
    for case in cases() {
        let header = json::header(&case["header"]);
        let extensions = json::extensions(&case);
        let (context, events) = (json::context(&case["context"]), json::events(&case["events"]));
        let (key, random) = (region_key(&case), json::key(&case, "random"));
        assert_eq!(hex(key.public().as_bytes()), json::text(&case["region_key"], "public"));
        let public = RegionPublicKey::new(key.id(), json::key(&case["region_key"], "public")).unwrap();
        assert_eq!(public, key.public());
        let signer = signer(&header, &case);

        let mut writer = FrameWriter::new(vec![0; MAX_FRAME], &header).unwrap();
        for (kind, value) in &extensions {
            writer.extension(*kind, value).unwrap();
        }
        writer.seal_to(&public).unwrap();
        context.with(|context| writer.context(context)).unwrap();
        for event in &events {
            event.with(|event| writer.event(event)).unwrap();
        }
        let bytes = json::bytes(&case, "hex");
        assert_eq!(hex(writer.finish_sealed(&*signer, &random).unwrap()), hex(&bytes), "{case}");

        let frame = Frame::parse(&bytes).unwrap();
        assert_eq!(frame.sealed_to(), Some(key.id()));
        assert!(frame.header().flags.contains(Flags::SEALED.with(header.flags)));
        assert_eq!(frame.open().err(), Some(Error::Sealed));
        assert_eq!(frame.check().err(), Some(Error::Sealed));
        assert_eq!(Envelope::open(&frame).err(), Some(Error::State));

        // The frame that was opened is the frame that was sealed, except for what can be read.
        let payload = json::bytes(&case, "payload");
        let mut buffer = vec![0xaa; payload.len() + 7];
        let open = frame.unseal(&key, &mut buffer).unwrap();
        assert_eq!(hex(open.payload()), hex(&payload));
        assert_eq!(content(&open), Ok((context, events)), "{case}");
        assert_eq!((open.bytes(), open.signed(), open.tag()), (frame.bytes(), frame.signed(), frame.tag()));
        assert_eq!((open.header(), open.sealed_to()), (frame.header(), frame.sealed_to()));
        assert_eq!(open.unseal(&key, &mut vec![0; MAX_FRAME]).err(), Some(Error::State), "it is open");
        assert_eq!(&buffer[payload.len()..], [0xaa; 7]);
        if header.alg != Alg::None {
            frame.verify(&MacKey::new(header.alg, &json::key(&case, "key")).unwrap()).unwrap();
        }
    }
}

/// With a CRC put right, as somebody would who has no key: whatever bit was changed, nothing opens.
#[test]
fn every_single_bit_is_sealed() {
    for case in cases() {
        let (bytes, key) = (json::bytes(&case, "hex"), region_key(&case));
        opened(&bytes, &key).unwrap();
        let signed = Frame::parse(&bytes).unwrap().signed().len();
        let mut refused_by_seal = 0;
        for bit in (0..signed * 8).filter(|bit| !(80 * 8..84 * 8).contains(bit)) {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let error = opened(&with_right_crc(changed), &key).expect_err("a changed bit");
            refused_by_seal += usize::from(error == Error::Seal);
        }
        // The others cannot be parsed, or name another key.
        assert!(refused_by_seal > signed * 8 * 3 / 4, "{refused_by_seal} of {}", signed * 8);
    }
}

/// Cut anywhere, with lengths and CRC put right.
#[test]
fn every_truncation_of_a_seal_is_refused() {
    let case = &cases()[0];
    let (bytes, key) = (json::bytes(case, "hex"), region_key(case));
    let head = usize::from(u16::from_le_bytes([bytes[6], bytes[7]]));
    for len in 0..bytes.len() - head {
        let mut cut = bytes[..head + len].to_vec();
        cut[76..80].copy_from_slice(&(len as u32).to_le_bytes());
        let expected = if len < SEAL_LEN { Error::Payload } else { Error::Seal };
        assert_eq!(opened(&with_right_crc(cut), &key).err(), Some(expected), "{len}");
    }
}

#[test]
fn only_the_right_key_tenant_and_region() {
    let (context, key) = (ContextModel::default(), secret(5, 7));
    let header = Header { region: Region::new(*b"EU").unwrap(), ..common::header() };
    let bytes = sealed(&header, &context, &[], &key.public(), [1; 32]);
    assert!(opened(&bytes, &key).is_ok());
    assert_eq!(opened(&bytes, &secret(6, 7)).err(), Some(Error::UnknownKey), "by its number");
    assert_eq!(opened(&bytes, &secret(5, 8)).err(), Some(Error::Seal), "by itself");

    // A payload under another good header: of another frame, of another tenant, of another region.
    let others = [
        Header { batch_seq: 1, ..header },
        Header { tenant: TenantId::new(0xa11cf), ..header },
        Header { region: Region::new(*b"US").unwrap(), ..header },
        Header { alg: Alg::HmacSha256Trunc128, ..header },
    ];
    for other in others {
        let theirs = sealed(&other, &context, &[], &key.public(), [1; 32]);
        assert!(opened(&theirs, &key).is_ok());
        let (ours, frame) = (Frame::parse(&bytes).unwrap(), Frame::parse(&theirs).unwrap());
        let head = frame.signed().len() - frame.payload().len();
        let swapped = with_right_crc([&theirs[..head], ours.payload(), frame.tag()].concat());
        assert!(Frame::parse(&swapped).is_ok());
        assert_eq!(opened(&swapped, &key).err(), Some(Error::Seal), "{other:?}");
    }
}

/// RFC 9180 §7.1.4, RFC 7748 §6.1: with these, what is sealed could be opened by anybody.
#[test]
fn keys_of_small_order_are_refused() {
    let small = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    let case = &cases()[0];
    let (key, bytes) = (region_key(case), json::bytes(case, "hex"));
    let at = bytes.len() - Frame::parse(&bytes).unwrap().payload().len();
    for small in small {
        for top in [0, 0x80] {
            let mut small: [u8; 32] = json::unhex(small).try_into().unwrap();
            small[31] |= top;
            assert_eq!(RegionPublicKey::new(RegionKeyId::new(1), small).err(), Some(Error::Parse), "{small:?}");
            let mut bytes = bytes.clone();
            bytes[at..at + 32].copy_from_slice(&small);
            assert_eq!(opened(&with_right_crc(bytes), &key).err(), Some(Error::Seal), "{small:?}");
        }
    }
}

#[test]
fn a_seal_is_no_signature() {
    // Whoever has the public key can seal: the frame's own tag says who did.
    let header = Header { alg: Alg::HmacSha256, ..common::header() };
    let bytes = sealed(&header, &ContextModel::default(), &[], &secret(5, 7).public(), [1; 32]);
    let frame = Frame::parse(&bytes).unwrap();
    let mut buffer = [0; 64];
    let open = frame.unseal(&secret(5, 7), &mut buffer).unwrap();
    assert_eq!(open.verify(&MacKey::new(Alg::HmacSha256, &[8; 32]).unwrap()), Err(Error::Signature));
    assert_eq!(open.verify(&MacKey::new(Alg::HmacSha256, &[9; 32]).unwrap()), Ok(()));
}

#[test]
fn other_randomness_is_another_seal() {
    let (key, context) = (secret(5, 7), ContextModel::default());
    let [first, again, other] =
        [1, 1, 2].map(|random| sealed(&common::header(), &context, &[], &key.public(), [random; 32]));
    assert_eq!(first, again, "a retry");
    let payload = |bytes: &[u8]| Frame::parse(bytes).unwrap().payload().to_vec();
    let equal = payload(&first).iter().zip(payload(&other)).filter(|(a, b)| **a == *b).count();
    assert!(equal < 16, "{equal} of {}", payload(&first).len());
}

/// A frame that is to be sealed does not leave in clear, and one that is not, not sealed.
#[test]
fn a_writer_seals_or_does_not() {
    let key = secret(5, 7).public();
    let mut buffer = vec![0; 1024];
    let mut writer = FrameWriter::new(&mut buffer[..], &common::header()).unwrap();
    writer.event(&Event::default()).unwrap();
    assert_eq!(writer.seal_to(&key), Err(Error::State), "after an event");
    assert_eq!(writer.finish_sealed(&Unsigned, &[1; 32]).err(), Some(Error::State));
    let clear = writer.finish(&Unsigned).unwrap().to_vec();
    assert!(Frame::parse(&clear).unwrap().check().is_ok());

    writer.begin(&common::header()).unwrap();
    writer.seal_to(&key).unwrap();
    assert_eq!(writer.seal_to(&key), Err(Error::Extension), "twice");
    writer.event(&Event { name: "opened", ..Event::default() }).unwrap();
    assert_eq!(writer.finish(&Unsigned).err(), Some(Error::State));
    let wrong = MacKey::new(Alg::HmacSha256, &[0; 32]).unwrap();
    assert_eq!(writer.finish_sealed(&wrong, &[1; 32]).err(), Some(Error::Algorithm));
    let bytes = writer.finish_sealed(&Unsigned, &[1; 32]).unwrap().to_vec();
    assert_eq!(writer.finish_sealed(&Unsigned, &[1; 32]).err(), Some(Error::State), "finished");
    assert_eq!(opened(&bytes, &secret(5, 7)).unwrap().1[0].name, "opened");

    // The next frame is sealed again only if it is said again.
    writer.begin(&common::header()).unwrap();
    assert_eq!(writer.finish_sealed(&Unsigned, &[1; 32]).err(), Some(Error::State));
    assert_eq!(Frame::parse(writer.finish(&Unsigned).unwrap()).unwrap().sealed_to(), None);

    let envelope = Header { flags: Flags::ENVELOPE, ..common::header() };
    writer.begin(&envelope).unwrap();
    assert_eq!(writer.seal_to(&key), Err(Error::State), "an envelope");
    let sealed = Header { flags: Flags::SEALED, ..common::header() };
    writer.begin(&sealed).unwrap();
    assert_eq!(writer.finish(&Unsigned).err(), Some(Error::State), "a flag is no seal");
    writer.begin(&common::header()).unwrap();
    writer.extension(ExtensionKind::Unknown(1000), &[0; MAX_HEADER - 88 - 4]).unwrap();
    assert_eq!(writer.seal_to(&key), Err(Error::HeaderLength));
}

/// The seal's room is kept free from the start: what the writer has taken, it can finish.
#[test]
fn a_full_buffer_can_still_be_sealed() {
    let key = secret(5, 7);
    for alg in [Alg::None, Alg::HmacSha256] {
        let header = Header { alg, ..common::header() };
        let signer: Box<dyn FrameSigner> = match alg {
            Alg::None => Box::new(Unsigned),
            alg => Box::new(MacKey::new(alg, &[9; 32]).unwrap()),
        };
        for len in 88..400 {
            let mut buffer = vec![0; len + 3];
            let Ok(mut writer) = FrameWriter::new(&mut buffer[..len], &header) else { continue };
            if writer.seal_to(&key.public()).is_err() || writer.context(&Context::EMPTY).is_err() {
                assert!(len < 88 + 8 + SEAL_LEN + 13 + alg.tag_len(), "{len}");
                continue;
            }
            while writer.event(&Event { name: "n", ..Event::default() }).is_ok() {}
            let (count, written) = (writer.count(), writer.len());
            let bytes = writer.finish_sealed(&*signer, &[1; 32]).unwrap().to_vec();
            assert_eq!(bytes.len(), written + 16 + alg.tag_len());
            assert!(bytes.len() + 8 > len, "{} of {len}", bytes.len());
            assert_eq!(opened(&bytes, &key).unwrap().1.len(), usize::from(count));
            assert_eq!(buffer[len..], [0; 3]);
        }
    }
    // And the bound of a frame holds with the seal in it.
    let mut writer = FrameWriter::new(vec![0; MAX_FRAME + 4096], &common::header()).unwrap();
    writer.seal_to(&key.public()).unwrap();
    let name = "n".repeat(500);
    while writer.event(&Event { name: &name, ..Event::default() }).is_ok() {}
    let bytes = writer.finish_sealed(&Unsigned, &[1; 32]).unwrap().to_vec();
    assert!(bytes.len() <= MAX_FRAME && bytes.len() > MAX_FRAME - 600, "{}", bytes.len());
    assert!(opened(&bytes, &key).unwrap().1.len() > 1000);
}

#[test]
fn the_buffer_needs_the_payload_and_no_more() {
    let key = secret(5, 7);
    let bytes = sealed(&common::header(), &ContextModel::default(), &[], &key.public(), [1; 32]);
    let frame = Frame::parse(&bytes).unwrap();
    let len = frame.payload().len() - SEAL_LEN;
    assert_eq!(frame.unseal(&key, &mut vec![0; len - 1]).err(), Some(Error::BufferFull));
    assert_eq!(frame.unseal(&key, &mut vec![0; len]).unwrap().payload().len(), len);
    // What does not open is not written: nobody sees bytes that nobody vouches for.
    let mut buffer = vec![0xaa; len];
    assert_eq!(frame.unseal(&secret(5, 8), &mut buffer).err(), Some(Error::Seal));
    assert_eq!(buffer, vec![0xaa; len]);
}

#[test]
fn secrets_are_not_shown() {
    let key = RegionSecretKey::new(RegionKeyId::new(5), [0xc7; 32]);
    assert_eq!(format!("{key:?}"), "RegionSecretKey(5, …)");
    assert_eq!(key.expose(), &[0xc7; 32]);
}

fn event() -> impl Strategy<Value = EventModel> {
    ("[a-z]{0,20}", any::<i64>()).prop_map(|(name, offset_ms)| EventModel {
        kind: firsthop_core::EventKind::Track,
        offset_ms,
        id: None,
        name,
        context: None,
        properties: vec![],
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// For any frame, key and randomness: it opens to what was sealed, with its key, and with no other.
    #[test]
    fn what_is_sealed_opens(
        events in prop::collection::vec(event(), 0..20),
        url in prop::option::of(".{0,40}"),
        (mine, other, random, id) in any::<([u8; 32], [u8; 32], [u8; 32], u32)>(),
        (tenant, region, batch_seq, first_seq, dropped, consent) in
            (any::<u64>(), "[A-Z]{2}", 0..1u64 << 62, 0..1u64 << 62, any::<u32>(), any::<u8>()),
        alg in prop::sample::select(vec![Alg::None, Alg::HmacSha256Trunc128, Alg::HmacSha256]),
    ) {
        let mut context = ContextModel::default();
        context.texts[6] = url;
        let header = Header {
            tenant: TenantId::new(tenant),
            region: region.parse().unwrap(),
            consent: firsthop_core::Consent::from_bits(consent),
            batch_seq, first_seq, dropped, alg,
            ..common::header()
        };
        let key = RegionSecretKey::new(RegionKeyId::new(id), mine);
        let bytes = sealed(&header, &context, &events, &key.public(), random);
        prop_assert_eq!(opened(&bytes, &key), Ok((context, events)));
        let other = RegionSecretKey::new(RegionKeyId::new(id), other);
        prop_assert_eq!(opened(&bytes, &other).err(), (key.public() != other.public()).then_some(Error::Seal));
    }

    /// Bytes that nobody sealed are no frame that opens, and no panic.
    #[test]
    fn noise_does_not_open(noise in prop::collection::vec(any::<u8>(), 0..200), at in 96..400usize) {
        let key = secret(5, 7);
        let mut bytes = sealed(&common::header(), &ContextModel::default(), &[], &key.public(), [1; 32]);
        bytes.resize(bytes.len().max(at + noise.len()), 0);
        bytes[at..at + noise.len()].copy_from_slice(&noise);
        let len = (bytes.len() - 96) as u32;
        bytes[76..80].copy_from_slice(&len.to_le_bytes());
        let whole = sealed(&common::header(), &ContextModel::default(), &[], &key.public(), [1; 32]);
        let verdict = opened(&with_right_crc(bytes.clone()), &key);
        prop_assert_eq!(verdict.is_ok(), with_right_crc(bytes) == whole);
    }
}
