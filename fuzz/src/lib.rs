//! What the fuzz targets do with an input: each takes it in as the product would, and holds what comes out against a
//! second way of saying it. A panic is a finding.
//!
//! `make fuzz` runs them; `cargo +nightly fuzz run frame` does too. Seeds come from the vectors
//! (`core/tests/vectors/make.mjs`).

// The tests' own model of events, contexts and properties.
#[path = "../../core/tests/common/mod.rs"]
mod common;

mod codec;
mod intake;
mod seal;
mod windows;

pub use codec::{Map, annotation, event, frame, grant, header, ids, properties, properties_model};
pub use intake::{document, json, native, segment};
pub use seal::seal;
pub use windows::{Step, windows};

/// Puts the payload's length, the CRC and the tag right, so that an input gets past what a fuzzer cannot guess.
fn mended(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let head: &mut [u8; 88] = bytes.first_chunk_mut()?;
    head[..5].copy_from_slice(b"FHOP\x01");
    // One algorithm with a tag and one without.
    head[42] %= 2;
    let tag_len = if head[42] == 1 { 16 } else { 0 };
    let header_len = usize::from(u16::from_le_bytes([head[6], head[7]]));
    let payload_len = bytes.len().checked_sub(header_len + tag_len)?;
    bytes[76..80].copy_from_slice(&u32::try_from(payload_len).ok()?.to_le_bytes());
    bytes[80..84].fill(0);
    let signed = bytes.len() - tag_len;
    let crc = firsthop_core::crc32(&[&bytes[..signed]]);
    bytes[80..84].copy_from_slice(&crc.to_le_bytes());
    if tag_len > 0 {
        let tag = firsthop_core::FrameSigner::sign(&key(), &bytes[..signed]);
        bytes[signed..].copy_from_slice(tag.as_bytes());
    }
    Some(bytes)
}

fn key() -> firsthop_core::MacKey {
    firsthop_core::MacKey::new(firsthop_core::Alg::HmacSha256Trunc128, &[7; 32]).expect("a symmetric algorithm")
}

/// What the sealed frames of the vectors open with.
fn region_key() -> firsthop_core::RegionSecretKey {
    let secret = std::array::from_fn(|i| 0xc0 + i as u8);
    firsthop_core::RegionSecretKey::new(firsthop_core::RegionKeyId::new(5), secret)
}
