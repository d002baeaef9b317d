//! Damage: every truncation and every single-bit change of good frames is refused, all of them tried, none sampled. The
//! frames are those of the vectors: every algorithm, extensions, sessions, envelopes, sealed ones.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use firsthop_core::{Alg, Annotation, Envelope, Error, Frame, FrameVerifier, Header, MacKey, SessionGrant};
use serde_json::Value as Json;

mod common;

use common::json;

type Verifier = Box<dyn FrameVerifier>;

/// Frames with the keys that verify them, if this build can.
fn good() -> Vec<(Vec<u8>, Option<Verifier>)> {
    let frames = json::cases(include_str!("vectors/frames.json"));
    let sessions = json::cases(include_str!("vectors/sessions.json"));
    let envelopes = json::cases(include_str!("vectors/envelopes.json"));
    let sealed = json::cases(include_str!("vectors/sealed.json"));
    let cases =
        frames.into_iter().chain(sealed).chain(sessions.into_iter().map(|case| case["frame"].clone())).chain(envelopes);
    cases.map(|case| (json::bytes(&case, "hex"), verifier(&case))).collect()
}

fn verifier(case: &Json) -> Option<Verifier> {
    match json::alg(json::number(&case["header"], "alg")) {
        Alg::None => None,
        #[cfg(feature = "ed25519")]
        Alg::Ed25519 => Some(Box::new(firsthop_core::PublicKey::from_bytes(&json::key(case, "public")).unwrap())),
        alg => MacKey::new(alg, &json::key(case, "key")).ok().map(|key| Box::new(key) as Verifier),
    }
}

/// What somebody does who takes a frame in. It must be refused before anything is decoded.
fn take_in(bytes: &[u8], verifier: Option<&dyn FrameVerifier>) -> Result<(), Error> {
    let frame = Frame::parse(bytes)?;
    verifier.map_or(Ok(()), |verifier| frame.verify(verifier))
}

#[test]
fn every_truncation_is_refused() {
    for (bytes, verifier) in good() {
        assert_eq!(take_in(&bytes, verifier.as_deref()), Ok(()));
        for len in 0..bytes.len() {
            assert_eq!(Frame::parse(&bytes[..len]).err(), Some(Error::Truncated), "{len} of {}", bytes.len());
        }
        for more in 1..=64 {
            let longer = [&bytes[..], &vec![0; more]].concat();
            assert_eq!(Frame::parse(&longer).err(), Some(Error::TrailingBytes));
        }
    }
}

#[test]
fn every_single_bit_is_covered() {
    for (mut bytes, verifier) in good() {
        let tag_at = bytes.len() - Frame::parse(&bytes).unwrap().tag().len();
        for bit in 0..bytes.len() * 8 {
            // Without the key, or the feature, nobody can tell: the CRC does not cover the tag.
            if bit / 8 >= tag_at && verifier.is_none() {
                break;
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = take_in(&bytes, verifier.as_deref()).expect_err("a changed bit");
            if bit / 8 >= tag_at {
                assert_eq!(error, Error::Signature);
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(take_in(&bytes, verifier.as_deref()), Ok(()));
    }
}

/// As somebody would who knows the CRC but not the key.
#[test]
fn every_single_bit_is_signed() {
    for (bytes, verifier) in good() {
        let Some(verifier) = verifier else { continue };
        let tag_at = bytes.len() - Frame::parse(&bytes).unwrap().tag().len();
        // Ed25519 costs more than all the others together: every eighth bit, another one in each byte.
        let step = if verifier.alg() == Alg::Ed25519 { 9 } else { 1 };
        for bit in (0..tag_at * 8).step_by(step).filter(|bit| !(80 * 8..84 * 8).contains(bit)) {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            changed[80..84].fill(0);
            let crc = firsthop_core::crc32(&[&changed[..tag_at]]);
            changed[80..84].copy_from_slice(&crc.to_le_bytes());
            assert!(take_in(&changed, Some(&*verifier)).is_err(), "bit {bit}");
        }
    }
}

/// Fault upon fault, from the last check to the first: it is always the first check that fails which answers.
#[test]
fn the_first_check_that_fails_is_the_answer() {
    let mut bytes = json::bytes(&json::cases(include_str!("vectors/frames.json"))[3], "hex");
    let fix_crc = |bytes: &mut [u8]| {
        bytes[80..84].fill(0);
        let crc = firsthop_core::crc32(&[&bytes[..bytes.len() - 16]]);
        bytes[80..84].copy_from_slice(&crc.to_le_bytes());
    };
    type Fault<'f> = &'f dyn Fn(&mut Vec<u8>);
    let faults: [(Error, Fault<'_>); 12] = [
        (Error::Extension, &|bytes| {
            bytes[90] = 0xff;
            fix_crc(bytes);
        }),
        (Error::Crc, &|bytes| bytes[8] ^= 1),
        (Error::TrailingBytes, &|bytes| bytes.push(0)),
        (Error::Count, &|bytes| bytes[63] = 0x80),
        (Error::Region, &|bytes| bytes[41] = b'-'),
        (Error::TooLarge, &|bytes| bytes[79] = 0xff),
        (Error::Algorithm, &|bytes| bytes[42] = 5),
        (Error::HeaderLength, &|bytes| bytes[7] = 0x80),
        (Error::Reserved, &|bytes| bytes[84] = 1),
        (Error::Version, &|bytes| bytes[4] = 2),
        (Error::Truncated, &|bytes| bytes.truncate(87)),
        (Error::Magic, &|bytes| bytes[0] = b'f'),
    ];
    for (error, fault) in faults {
        fault(&mut bytes);
        assert_eq!(Frame::parse(&bytes).err(), Some(error));
    }
}

/// Damage behind a right CRC and tag, as of a producer gone wrong: decoding says what it says, but it does say it.
#[test]
fn damaged_payloads_do_not_panic() {
    for (bytes, _) in good() {
        let frame = Frame::parse(&bytes).unwrap();
        let (start, end) = (bytes.len() - frame.payload().len() - frame.tag().len(), bytes.len() - frame.tag().len());
        for bit in start * 8..end * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            changed[80..84].fill(0);
            let crc = firsthop_core::crc32(&[&changed[..end]]);
            changed[80..84].copy_from_slice(&crc.to_le_bytes());
            let frame = Frame::parse(&changed).unwrap();
            if frame.check().is_ok() {
                common::content(&frame).unwrap();
            }
            let _ = Envelope::open(&frame);
        }
    }
}

/// The small parsers that stand alone: every truncation, and every value of every byte.
#[test]
fn parts_that_stand_alone() {
    for case in json::cases(include_str!("vectors/envelopes.json")) {
        let bytes = json::bytes(&case, "annotation_hex");
        for at in 0..bytes.len() {
            assert!(Annotation::from_bytes(&bytes[..at]).is_err());
            for value in 0..=255 {
                let mut changed = bytes.clone();
                changed[at] = value;
                if let Ok(annotation) = Annotation::from_bytes(&changed) {
                    // Or it says the same: postcard reads numbers with needless groups.
                    let mut buf = [0; 512];
                    let again = annotation.encode(&mut buf).unwrap();
                    assert_eq!(Annotation::from_bytes(again), Ok(annotation));
                }
            }
        }
    }
    for case in json::cases(include_str!("vectors/sessions.json")) {
        let bytes = json::bytes(&case, "grant_hex");
        for len in (0..60).filter(|&len| len != bytes.len()) {
            let other: Vec<u8> = bytes.iter().copied().cycle().take(len).collect();
            assert_eq!(SessionGrant::from_bytes(&other), Err(Error::Session));
        }
    }
    for (bytes, _) in good() {
        let header = Header::peek(&bytes).unwrap();
        assert_eq!(Header::peek(&bytes[..88]), Ok(header));
        for (at, value) in (0..88).flat_map(|at| (0..=255).map(move |value| (at, value))) {
            let mut changed = bytes[..88].to_vec();
            changed[at] = value;
            let _ = Header::peek(&changed);
        }
    }
}
