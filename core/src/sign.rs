//! Signing: algorithms, keys and tags.
//!
//! Every tag is made over a domain string and the frame, so that a tag made for a frame is worth nothing elsewhere.

use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
#[cfg(feature = "blake3")]
use zeroize::Zeroize;

use crate::Error;

/// What stands before a frame's signed bytes when its tag is made.
pub const DOMAIN: &[u8; 16] = b"firsthop/frame/1";

/// How a frame is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Alg {
    /// Not at all: a page's first frame, before its session.
    #[default]
    None = 0,
    /// HMAC-SHA256 (RFC 2104), the first 128 bits.
    HmacSha256Trunc128 = 1,
    /// HMAC-SHA256 (RFC 2104).
    HmacSha256 = 2,
    /// Ed25519 (RFC 8032) over the domain and the SHA-256 of what is signed.
    Ed25519 = 3,
    /// Keyed BLAKE3, 256 bits.
    Blake3 = 4,
}

impl Alg {
    /// Length of the tag in bytes.
    #[must_use]
    pub const fn tag_len(self) -> usize {
        match self {
            Self::None => 0,
            Self::HmacSha256Trunc128 => 16,
            Self::HmacSha256 | Self::Blake3 => 32,
            Self::Ed25519 => 64,
        }
    }

    pub(crate) const fn from_wire(number: u8) -> Result<Self, Error> {
        Ok(match number {
            0 => Self::None,
            1 => Self::HmacSha256Trunc128,
            2 => Self::HmacSha256,
            3 => Self::Ed25519,
            4 => Self::Blake3,
            _ => return Err(Error::Algorithm),
        })
    }
}

/// A tag of up to 64 bytes.
#[derive(Clone, Copy)]
pub struct Tag {
    bytes: [u8; 64],
    len: usize,
}

impl Tag {
    fn new(bytes: &[u8]) -> Self {
        let mut tag = Self { bytes: [0; 64], len: bytes.len() };
        tag.bytes[..bytes.len()].copy_from_slice(bytes);
        tag
    }

    /// The tag's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({} bytes)", self.len)
    }
}

/// Signs frames.
pub trait FrameSigner {
    /// The algorithm that goes into the header.
    fn alg(&self) -> Alg;
    /// The tag over a frame's signed bytes.
    fn sign(&self, signed: &[u8]) -> Tag;
}

/// Verifies frames.
pub trait FrameVerifier {
    /// The one algorithm that this key verifies. A key is never used for another.
    fn alg(&self) -> Alg;
    /// Checks a tag, in constant time.
    ///
    /// # Errors
    /// [`Error::Signature`] if it does not match.
    fn verify(&self, signed: &[u8], tag: &[u8]) -> Result<(), Error>;
}

/// Signs nothing: for frames before the session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unsigned;

impl FrameSigner for Unsigned {
    fn alg(&self) -> Alg {
        Alg::None
    }

    fn sign(&self, _signed: &[u8]) -> Tag {
        Tag::new(&[])
    }
}

/// A symmetric key, bound to its algorithm. HMAC's key schedule is computed once and kept.
#[derive(Clone)]
pub struct MacKey(Inner);

#[derive(Clone)]
enum Inner {
    Hmac(Hmac<Sha256>, Alg),
    #[cfg(feature = "blake3")]
    Blake3(zeroize::Zeroizing<[u8; 32]>),
}

impl MacKey {
    /// A key for one algorithm.
    ///
    /// # Errors
    /// [`Error::Algorithm`] if it is not symmetric, or this build lacks it.
    pub fn new(alg: Alg, key: &[u8; 32]) -> Result<Self, Error> {
        match alg {
            Alg::HmacSha256Trunc128 | Alg::HmacSha256 => Ok(Self(Inner::Hmac(hmac(key), alg))),
            #[cfg(feature = "blake3")]
            Alg::Blake3 => Ok(Self(Inner::Blake3((*key).into()))),
            _ => Err(Error::Algorithm),
        }
    }

    fn compute(&self, signed: &[u8]) -> ([u8; 32], usize) {
        match &self.0 {
            Inner::Hmac(hmac, alg) => {
                let mut hmac = hmac.clone();
                hmac.update(DOMAIN);
                hmac.update(signed);
                (hmac.finalize().into_bytes().into(), alg.tag_len())
            }
            #[cfg(feature = "blake3")]
            Inner::Blake3(key) => {
                let mut hasher = blake3::Hasher::new_keyed(key);
                hasher.update(DOMAIN);
                hasher.update(signed);
                let tag = *hasher.finalize().as_bytes();
                hasher.zeroize();
                (tag, 32)
            }
        }
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MacKey({:?}, …)", FrameSigner::alg(self))
    }
}

impl FrameSigner for MacKey {
    fn alg(&self) -> Alg {
        match &self.0 {
            Inner::Hmac(_, alg) => *alg,
            #[cfg(feature = "blake3")]
            Inner::Blake3(_) => Alg::Blake3,
        }
    }

    fn sign(&self, signed: &[u8]) -> Tag {
        let (tag, len) = self.compute(signed);
        Tag::new(&tag[..len])
    }
}

impl FrameVerifier for MacKey {
    fn alg(&self) -> Alg {
        FrameSigner::alg(self)
    }

    fn verify(&self, signed: &[u8], tag: &[u8]) -> Result<(), Error> {
        let (expected, len) = self.compute(signed);
        if expected[..len].ct_eq(tag).into() { Ok(()) } else { Err(Error::Signature) }
    }
}

/// An HMAC-SHA256 that was computed elsewhere, over [`DOMAIN`] and a frame's signed bytes: for a hop whose platform has it in machine
/// code. It stands for a key and one frame, so it is the caller's to use it for that frame only.
pub struct Computed {
    alg: Alg,
    mac: [u8; 32],
}

impl Computed {
    /// What was computed for a frame of this algorithm.
    ///
    /// # Errors
    /// [`Error::Algorithm`] if it is not HMAC-SHA256.
    pub const fn new(alg: Alg, mac: [u8; 32]) -> Result<Self, Error> {
        match alg {
            Alg::HmacSha256Trunc128 | Alg::HmacSha256 => Ok(Self { alg, mac }),
            _ => Err(Error::Algorithm),
        }
    }
}

impl fmt::Debug for Computed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Computed({:?}, …)", self.alg)
    }
}

impl FrameSigner for Computed {
    fn alg(&self) -> Alg {
        self.alg
    }

    fn sign(&self, _signed: &[u8]) -> Tag {
        Tag::new(&self.mac[..self.alg.tag_len()])
    }
}

impl FrameVerifier for Computed {
    fn alg(&self) -> Alg {
        self.alg
    }

    fn verify(&self, _signed: &[u8], tag: &[u8]) -> Result<(), Error> {
        if self.mac[..self.alg.tag_len()].ct_eq(tag).into() { Ok(()) } else { Err(Error::Signature) }
    }
}

pub(crate) fn hmac(key: &[u8; 32]) -> Hmac<Sha256> {
    // A key of any length is a key; the error type is for MACs that are pickier.
    match Hmac::new_from_slice(key) {
        Ok(hmac) => hmac,
        Err(_) => unreachable!("HMAC takes keys of any length"),
    }
}

#[cfg(feature = "ed25519")]
mod ed25519 {
    use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
    use sha2::{Digest, Sha256};

    use super::{Alg, DOMAIN, FrameSigner, FrameVerifier, Tag};
    use crate::Error;

    /// An Ed25519 secret key (RFC 8032).
    #[derive(Clone)]
    pub struct SecretKey(SigningKey);

    impl SecretKey {
        /// From the 32 bytes of a seed.
        #[must_use]
        pub fn from_seed(seed: &[u8; 32]) -> Self {
            Self(SigningKey::from_bytes(seed))
        }

        /// The key that verifies what this one signs.
        #[must_use]
        pub fn public(&self) -> PublicKey {
            PublicKey(self.0.verifying_key())
        }

        /// Signs a message as it is. A key that also signs frames signs no message that begins as they do: put a
        /// domain of your own in front.
        #[must_use]
        pub fn sign_message(&self, message: &[u8]) -> [u8; 64] {
            self.0.sign(message).to_bytes()
        }
    }

    impl core::fmt::Debug for SecretKey {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            f.write_str("SecretKey(…)")
        }
    }

    impl FrameSigner for SecretKey {
        fn alg(&self) -> Alg {
            Alg::Ed25519
        }

        fn sign(&self, signed: &[u8]) -> Tag {
            Tag::new(&self.sign_message(&message(signed)))
        }
    }

    /// An Ed25519 public key (RFC 8032).
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct PublicKey(VerifyingKey);

    impl PublicKey {
        /// From its 32 bytes.
        ///
        /// # Errors
        /// [`Error::Parse`] if they are not a point of the curve.
        pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, Error> {
            VerifyingKey::from_bytes(bytes).map(Self).map_err(|_| Error::Parse)
        }

        /// Its 32 bytes.
        #[must_use]
        pub fn as_bytes(&self) -> &[u8; 32] {
            self.0.as_bytes()
        }

        /// Checks a signature over a message as it is, strictly: no key or signature component of small order.
        ///
        /// # Errors
        /// [`Error::Signature`] if it does not match.
        pub fn verify_message(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), Error> {
            self.0.verify_strict(message, &Signature::from_bytes(signature)).map_err(|_| Error::Signature)
        }
    }

    impl FrameVerifier for PublicKey {
        fn alg(&self) -> Alg {
            Alg::Ed25519
        }

        fn verify(&self, signed: &[u8], tag: &[u8]) -> Result<(), Error> {
            let signature = tag.try_into().map_err(|_| Error::Signature)?;
            self.verify_message(&message(signed), signature)
        }
    }

    /// Ed25519 reads its message twice; a digest lets the frame be read once.
    fn message(signed: &[u8]) -> [u8; 48] {
        let mut message = [0; 48];
        let (domain, digest) = message.split_at_mut(DOMAIN.len());
        domain.copy_from_slice(DOMAIN);
        digest.copy_from_slice(&Sha256::digest(signed));
        message
    }
}

#[cfg(feature = "ed25519")]
pub use ed25519::{PublicKey, SecretKey};
