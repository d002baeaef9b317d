//! The primitives that the core is built from, with the features that it builds them with, against the vectors of those
//! who specified them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use firsthop_core::crc32;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

mod common;

use common::json::{self, hex};

fn file() -> serde_json::Value {
    serde_json::from_str(include_str!("vectors/primitives.json")).unwrap()
}

fn cases(name: &str) -> Vec<serde_json::Value> {
    file()[name].as_array().filter(|cases| !cases.is_empty()).unwrap().clone()
}

#[test]
fn hmac_sha256() {
    for case in cases("hmac_sha256") {
        let mut mac = Hmac::<Sha256>::new_from_slice(&json::bytes(&case, "key")).unwrap();
        mac.update(&json::bytes(&case, "data"));
        let tag = json::bytes(&case, "tag");
        assert_eq!(hex(&mac.finalize().into_bytes()[..tag.len()]), hex(&tag), "{case}");
    }
}

#[test]
fn hkdf_sha256() {
    for case in cases("hkdf_sha256") {
        let salt = json::bytes(&case, "salt");
        let salt = (!salt.is_empty()).then_some(&salt[..]);
        let (prk, hkdf) = hkdf::Hkdf::<Sha256>::extract(salt, &json::bytes(&case, "ikm"));
        assert_eq!(hex(&prk), json::text(&case, "prk"));
        let mut okm = vec![0; json::bytes(&case, "okm").len()];
        hkdf.expand(&json::bytes(&case, "info"), &mut okm).unwrap();
        assert_eq!(hex(&okm), json::text(&case, "okm"), "{case}");
    }
}

#[cfg(feature = "ed25519")]
#[test]
fn ed25519() {
    use firsthop_core::{Error, PublicKey, SecretKey};
    for case in cases("ed25519") {
        let key = SecretKey::from_seed(&json::key(&case, "seed"));
        let message = json::bytes(&case, "message");
        assert_eq!(hex(key.public().as_bytes()), json::text(&case, "public"));
        assert_eq!(hex(&key.sign_message(&message)), json::text(&case, "signature"), "{case}");
        let public = PublicKey::from_bytes(&json::key(&case, "public")).unwrap();
        let mut signature: [u8; 64] = json::bytes(&case, "signature").try_into().unwrap();
        public.verify_message(&message, &signature).unwrap();
        signature[0] ^= 1;
        assert_eq!(public.verify_message(&message, &signature), Err(Error::Signature));
    }
    // The neutral point and another of small order: anybody could sign for them.
    for small in ["0100000000000000000000000000000000000000000000000000000000000000", &"00".repeat(32)] {
        let public = PublicKey::from_bytes(&json::unhex(small).try_into().unwrap()).unwrap();
        let mut signature = [0; 64];
        signature[0] = 1;
        assert_eq!(public.verify_message(b"anything", &signature), Err(Error::Signature));
    }
}

#[cfg(feature = "blake3")]
#[test]
fn blake3_keyed() {
    let file = file();
    let vectors = &file["blake3_keyed"];
    for case in vectors["cases"].as_array().unwrap() {
        let len: usize = json::number(case, "input_len");
        let input: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let tag = blake3::keyed_hash(&json::key(vectors, "key"), &input);
        assert_eq!(hex(tag.as_bytes()), json::text(case, "tag"), "{case}");
    }
}

#[test]
fn crc() {
    for case in cases("crc32") {
        assert_eq!(format!("{:08x}", crc32(&[&json::bytes(&case, "data")])), json::text(&case, "crc"));
    }
}

/// Keys and what is derived from them are wiped when they are dropped: of the crates' state, by their own word.
#[test]
fn state_is_wiped() {
    fn wiped<T: zeroize::ZeroizeOnDrop>() {}
    wiped::<Sha256>();
    wiped::<zeroize::Zeroizing<[u8; 32]>>();
    #[cfg(feature = "ed25519")]
    wiped::<ed25519_dalek::SigningKey>();
}
