//! The bare primitives over the bytes, without frame or domain: the floor to measure against.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// HMAC-SHA256 with its key schedule kept, as a server that knows its keys would have it.
#[derive(Debug)]
pub struct BareHmac(Hmac<Sha256>);

impl BareHmac {
    /// Computes the key schedule.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
    }

    /// The tag.
    #[inline]
    #[must_use]
    pub fn tag(&self, bytes: &[u8]) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(bytes);
        mac.finalize().into_bytes().into()
    }
}

/// Keyed BLAKE3.
#[derive(Debug)]
pub struct BareBlake3([u8; 32]);

impl BareBlake3 {
    /// Keeps the key; there is no schedule.
    #[must_use]
    pub const fn new(key: &[u8; 32]) -> Self {
        Self(*key)
    }

    /// The tag.
    #[inline]
    #[must_use]
    pub fn tag(&self, bytes: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.0, bytes).as_bytes()
    }
}
