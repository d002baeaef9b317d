//! Sealed payloads: HPKE (RFC 9180) in base mode, with X25519, HKDF-SHA256 and ChaCha20-Poly1305, to the key of a region.
//!
//! One frame is one context and one message. What the recipient must agree on (tenant and region) is HPKE's `info`; the header,
//! with its extensions, is the associated data, so that a payload opens under its own header or not at all. Base mode does not
//! say who sealed: that is the frame's own signature, over the sealed bytes.

use core::{convert::Infallible, fmt};

use hpke::{
    Deserializable, Kem, OpModeR, OpModeS, Serializable,
    aead::{AeadTag, ChaCha20Poly1305},
    inout::InOutBuf,
    kdf::HkdfSha256,
    kem::X25519HkdfSha256,
    rand_core::{TryCryptoRng, TryRng},
};
use zeroize::Zeroizing;

use crate::{
    Error, Header, RegionKeyId, SEAL_LEN,
    frame::{ENCAPSULATED_LEN, SEAL_TAG_LEN},
    header::CRC_AT,
    limits::MAX_HEADER,
};

type Public = <X25519HkdfSha256 as Kem>::PublicKey;
type Private = <X25519HkdfSha256 as Kem>::PrivateKey;
type Encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey;

/// What stands before tenant and region in `info`.
const DOMAIN: &[u8; 16] = b"firsthop-seal-v1";

/// A region's public key: whoever has it can seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionPublicKey {
    id: RegionKeyId,
    bytes: [u8; 32],
}

impl RegionPublicKey {
    /// From the 32 bytes of an X25519 public key (RFC 7748).
    ///
    /// # Errors
    /// [`Error::Parse`] if it is of small order: what is sealed to such a key, anybody can open.
    pub fn new(id: RegionKeyId, bytes: [u8; 32]) -> Result<Self, Error> {
        let key = Self { id, bytes };
        // Every secret gives zero with such a key, so any will do to find out.
        seal(&key.bytes, &[], &[], &mut [], &[1; 32]).map_err(|_| Error::Parse)?;
        Ok(key)
    }

    /// Which of its region's keys it is.
    #[must_use]
    pub const fn id(&self) -> RegionKeyId {
        self.id
    }

    /// Its 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Seals a payload where it stands: its first bytes take the encapsulated key, its last the tag.
    pub(crate) fn seal(
        &self,
        header: &Header,
        head: &[u8],
        payload: &mut [u8],
        random: &[u8; 32],
    ) -> Result<(), Error> {
        let (encapsulated, rest) = payload.split_first_chunk_mut().ok_or(Error::BufferFull)?;
        let (message, tag) = rest.split_last_chunk_mut().ok_or(Error::BufferFull)?;
        (*encapsulated, *tag) = seal(&self.bytes, &info(header), head, message, random)?;
        Ok(())
    }
}

/// A region's private key: whoever has it can read what is sealed to the region.
#[derive(Clone)]
pub struct RegionSecretKey {
    id: RegionKeyId,
    secret: Zeroizing<[u8; 32]>,
}

impl RegionSecretKey {
    /// From 32 random bytes, an X25519 private key (RFC 7748).
    #[must_use]
    pub fn new(id: RegionKeyId, secret: [u8; 32]) -> Self {
        Self { id, secret: secret.into() }
    }

    /// Which of its region's keys it is.
    #[must_use]
    pub const fn id(&self) -> RegionKeyId {
        self.id
    }

    /// The key to seal with.
    #[must_use]
    pub fn public(&self) -> RegionPublicKey {
        let public = X25519HkdfSha256::sk_to_pk(&self.private());
        RegionPublicKey { id: self.id, bytes: public.to_bytes().into() }
    }

    /// The 32 bytes, for the store that keeps them.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.secret
    }

    /// Opens a payload into the buffer. `head` is the header with its extensions, as it came.
    pub(crate) fn open<'b>(
        &self,
        header: &Header,
        head: &[u8],
        payload: &[u8],
        buffer: &'b mut [u8],
    ) -> Result<&'b [u8], Error> {
        let (encapsulated, rest) = payload.split_first_chunk().ok_or(Error::Seal)?;
        let (sealed, tag) = rest.split_last_chunk().ok_or(Error::Seal)?;
        let message = buffer.get_mut(..payload.len() - SEAL_LEN).ok_or(Error::BufferFull)?;
        // It was sealed before there was a CRC.
        let mut associated = [0; MAX_HEADER];
        let associated = associated.get_mut(..head.len()).ok_or(Error::HeaderLength)?;
        associated.copy_from_slice(head);
        associated[CRC_AT..CRC_AT + 4].fill(0);
        open(&self.private(), &info(header), associated, encapsulated, sealed, tag, message)?;
        Ok(message)
    }

    fn private(&self) -> Private {
        match Private::from_bytes(&self.secret[..]) {
            Ok(key) => key,
            Err(_) => unreachable!("any 32 bytes are a key"),
        }
    }
}

impl fmt::Debug for RegionSecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegionSecretKey({}, …)", self.id.get())
    }
}

fn info(header: &Header) -> [u8; 26] {
    let mut info = [0; 26];
    info[..16].copy_from_slice(DOMAIN);
    info[16..24].copy_from_slice(&header.tenant.get().to_le_bytes());
    info[24..].copy_from_slice(header.region.as_bytes());
    info
}

type Sealed = ([u8; ENCAPSULATED_LEN], [u8; SEAL_TAG_LEN]);

/// `SealBase` of RFC 9180 §6.1, in place. The only error is a key of small order (§7.1.4).
fn seal(
    public: &[u8; 32],
    info: &[u8],
    associated: &[u8],
    message: &mut [u8],
    random: &[u8; 32],
) -> Result<Sealed, Error> {
    let public = Public::from_bytes(public).map_err(|_| Error::Parse)?;
    let (encapsulated, tag) = hpke::single_shot_seal_inout_detached_with_rng::<
        ChaCha20Poly1305,
        HkdfSha256,
        X25519HkdfSha256,
    >(
        &OpModeS::Base, &public, info, InOutBuf::from(message), associated, &mut Random(random)
    )
    .map_err(|_| Error::Parse)?;
    Ok((encapsulated.to_bytes().into(), tag.to_bytes().into()))
}

/// `OpenBase` of RFC 9180 §6.1. Writes nothing unless it opens.
fn open(
    secret: &Private,
    info: &[u8],
    associated: &[u8],
    encapsulated: &[u8; ENCAPSULATED_LEN],
    sealed: &[u8],
    tag: &[u8; SEAL_TAG_LEN],
    message: &mut [u8],
) -> Result<(), Error> {
    let encapsulated = Encapsulated::from_bytes(encapsulated).map_err(|_| Error::Seal)?;
    let tag = AeadTag::from_bytes(tag).map_err(|_| Error::Seal)?;
    let message = InOutBuf::new(sealed, message).map_err(|_| Error::BufferFull)?;
    hpke::single_shot_open_inout_detached::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        secret,
        &encapsulated,
        info,
        message,
        associated,
        &tag,
    )
    .map_err(|_| Error::Seal)
}

/// The caller's 32 bytes, as the generator that HPKE draws the ephemeral key's material from: once, and so many.
struct Random<'a>(&'a [u8; 32]);

impl TryRng for Random<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("HPKE draws bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("HPKE draws bytes")
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.copy_from_slice(self.0);
        Ok(())
    }
}

impl TryCryptoRng for Random<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The functions that the frames are sealed and opened by, against the RFC's own vector.
    #[test]
    fn rfc_9180() {
        let file = include_str!("../tests/vectors/primitives.json");
        let file: serde_json::Value = serde_json::from_str(file).expect("JSON");
        let cases = file["hpke_base"].as_array().expect("a list");
        assert!(!cases.is_empty());
        for case in cases {
            let bytes = |field: &str| -> Vec<u8> {
                let text = case[field].as_str().expect("a text");
                text.as_bytes()
                    .chunks(2)
                    .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).expect("digits"), 16).expect("digits"))
                    .collect()
            };
            let key = |field| -> [u8; 32] { bytes(field).try_into().expect("32 bytes") };
            let (info, aad, clear, sealed) = (bytes("info"), bytes("aad"), bytes("pt"), bytes("ct"));

            let mut message = clear.clone();
            let (encapsulated, tag) = seal(&key("pkRm"), &info, &aad, &mut message, &key("ikmE")).expect("a good key");
            assert_eq!(encapsulated, key("enc"));
            assert_eq!([&message[..], &tag].concat(), sealed);

            let secret = RegionSecretKey::new(RegionKeyId::new(1), key("skRm"));
            assert_eq!(secret.public().as_bytes(), &key("pkRm"));
            let mut message = vec![0; clear.len()];
            let (ciphertext, tag) = sealed.split_last_chunk().expect("a tag");
            let opened = open(&secret.private(), &info, &aad, &key("enc"), ciphertext, tag, &mut message);
            assert_eq!((opened, message), (Ok(()), clear));
        }
    }

    #[test]
    fn secrets_are_wiped() {
        fn wiped<T: zeroize::ZeroizeOnDrop>() {}
        wiped::<Zeroizing<[u8; 32]>>();
    }
}
