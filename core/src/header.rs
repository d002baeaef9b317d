//! The fixed header of a frame: enough to route, bound, attribute and verify it without decoding.

use serde::{Deserialize, Serialize};

use crate::{
    Alg, Epoch, Error, KeyId, Region, SourceId, TenantId, Timestamp,
    limits::{MAX_ENVELOPE, MAX_EVENTS, MAX_FRAME, MAX_HEADER, MAX_SEQ},
};

/// The first four bytes of a frame.
pub const MAGIC: [u8; 4] = *b"FHOP";
/// The version that this crate writes, and the only one that it reads.
pub const VERSION: u8 = 1;
/// Length of the header without extensions, in bytes.
pub const HEADER_LEN: usize = 88;

/// Where fields stand that are patched or skipped.
pub(crate) const CRC_AT: usize = 80;

/// What kind of frame it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// The payload is encrypted to a region's key.
    pub const SEALED: Self = Self(1);
    /// The producer has a session; without it a frame shows only its write key.
    pub const TRUST: Self = Self(1 << 1);
    /// The payload is another producer's frame and what a hop has noted on it.
    pub const ENVELOPE: Self = Self(1 << 2);

    /// Whether all of `flags` are set.
    #[must_use]
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These flags and `flags`.
    #[must_use]
    pub const fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }
}

/// The purposes that a visitor has granted: a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Consent(u8);

impl Consent {
    /// Nothing granted, nothing asked.
    pub const NONE: Self = Self(0);
    /// Needed for what the visitor asked for.
    pub const NECESSARY: Self = Self(1);
    /// Measuring use.
    pub const ANALYTICS: Self = Self(1 << 1);
    /// Remembering preferences.
    pub const PREFERENCES: Self = Self(1 << 2);
    /// Advertising.
    pub const MARKETING: Self = Self(1 << 3);

    /// From the bits on the wire. Bits without a name are kept: they are purposes of a later version.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The bits on the wire.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The purposes that have names, and their names in settings and tables.
    pub const NAMES: [(Self, &'static str); 4] = [
        (Self::NECESSARY, "necessary"),
        (Self::ANALYTICS, "analytics"),
        (Self::PREFERENCES, "preferences"),
        (Self::MARKETING, "marketing"),
    ];

    /// These purposes and `purposes`.
    #[must_use]
    pub const fn with(self, purposes: Self) -> Self {
        Self(self.0 | purposes.0)
    }

    /// These purposes without `purposes`.
    #[must_use]
    pub const fn without(self, purposes: Self) -> Self {
        Self(self.0 & !purposes.0)
    }

    /// Whether all of `purposes` are granted.
    #[must_use]
    pub const fn contains(self, purposes: Self) -> bool {
        self.0 & purposes.0 == purposes.0
    }
}

/// The fixed header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What kind of frame it is.
    pub flags: Flags,
    /// For whom.
    pub tenant: TenantId,
    /// Who produced it.
    pub source: SourceId,
    /// Which root key the signing key comes from.
    pub key_id: KeyId,
    /// Which epoch's.
    pub epoch: Epoch,
    /// Who may read it.
    pub region: Region,
    /// How it is signed.
    pub alg: Alg,
    /// What the visitor has agreed to.
    pub consent: Consent,
    /// Events in the payload: at most [`MAX_EVENTS`]. The writer counts them.
    pub count: u16,
    /// The how-manieth frame of its source, from 0 to [`MAX_SEQ`].
    pub batch_seq: u64,
    /// Sequence number of the first event; the others follow without a gap. With `count` at most [`MAX_SEQ`].
    pub first_seq: u64,
    /// The producer's clock when the frame was begun. Any number: clocks are wrong.
    pub created: Timestamp,
    /// Events that the source has had to give up since its last frame; all of them have numbers below `first_seq`.
    pub dropped: u32,
}

impl Header {
    /// A header with everything else at zero: no session, unsigned, any region.
    #[must_use]
    pub const fn new(tenant: TenantId, source: SourceId, created: Timestamp) -> Self {
        Self {
            flags: Flags(0),
            tenant,
            source,
            key_id: KeyId::new(0),
            epoch: Epoch::new(0),
            region: Region::ANY,
            alg: Alg::None,
            consent: Consent::NONE,
            count: 0,
            batch_seq: 0,
            first_seq: 0,
            created,
            dropped: 0,
        }
    }

    /// Reads a header from the front of a frame, before its CRC is known to hold: to route it, or to say whose
    /// a broken frame seems to be. Believe nothing of it.
    ///
    /// # Errors
    /// The first of these that applies: [`Error::Magic`], [`Error::Truncated`], [`Error::Version`],
    /// [`Error::Reserved`], [`Error::HeaderLength`], [`Error::Algorithm`], [`Error::TooLarge`], [`Error::Region`],
    /// [`Error::Count`].
    pub fn peek(bytes: &[u8]) -> Result<Self, Error> {
        RawHeader::read(bytes).map(|raw| raw.header)
    }

    /// Whether the count and the sequence numbers are within bounds.
    pub(crate) fn check_numbers(&self) -> Result<(), Error> {
        let next = self.first_seq.checked_add(self.count.into());
        let within = self.count <= MAX_EVENTS && self.batch_seq <= MAX_SEQ && next.is_some_and(|next| next <= MAX_SEQ);
        if within { Ok(()) } else { Err(Error::Count) }
    }

    pub(crate) fn write(&self, out: &mut [u8; HEADER_LEN], header_len: u16, payload_len: u32) {
        out[0..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = self.flags.0;
        out[6..8].copy_from_slice(&header_len.to_le_bytes());
        out[8..16].copy_from_slice(&self.tenant.get().to_le_bytes());
        out[16..32].copy_from_slice(self.source.as_bytes());
        out[32..36].copy_from_slice(&self.key_id.get().to_le_bytes());
        out[36..40].copy_from_slice(&self.epoch.get().to_le_bytes());
        out[40..42].copy_from_slice(self.region.as_bytes());
        out[42] = self.alg as u8;
        out[43] = self.consent.0;
        out[44..46].copy_from_slice(&self.count.to_le_bytes());
        out[46..48].fill(0);
        out[48..56].copy_from_slice(&self.batch_seq.to_le_bytes());
        out[56..64].copy_from_slice(&self.first_seq.to_le_bytes());
        out[64..72].copy_from_slice(&self.created.as_millis().to_le_bytes());
        out[72..76].copy_from_slice(&self.dropped.to_le_bytes());
        out[76..80].copy_from_slice(&payload_len.to_le_bytes());
        out[80..88].fill(0);
    }
}

/// A header and its lengths.
pub(crate) struct RawHeader {
    pub(crate) header: Header,
    pub(crate) header_len: usize,
    pub(crate) payload_len: usize,
    pub(crate) crc: u32,
}

impl RawHeader {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.iter().zip(&MAGIC).any(|(byte, magic)| byte != magic) {
            return Err(Error::Magic);
        }
        let b: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(Error::Truncated)?;
        if b[4] != VERSION {
            return Err(Error::Version);
        }
        let flags = Flags(b[5]);
        // A hop's envelope is for whoever may read it: nobody seals one.
        let sealed_envelope = flags.contains(Flags::SEALED.with(Flags::ENVELOPE));
        if flags.0 > 7 || sealed_envelope || b[46..48] != [0; 2] || b[84..88] != [0; 4] {
            return Err(Error::Reserved);
        }
        let header_len = usize::from(u16_at(b, 6));
        if !(HEADER_LEN..=MAX_HEADER).contains(&header_len) {
            return Err(Error::HeaderLength);
        }
        let alg = Alg::from_wire(b[42])?;
        let payload_len = u32_at(b, 76);
        let most = if flags.contains(Flags::ENVELOPE) { MAX_ENVELOPE } else { MAX_FRAME };
        // In 64 bits: where usize has 32, the sum could wrap.
        if (header_len + alg.tag_len()) as u64 + u64::from(payload_len) > most as u64 {
            return Err(Error::TooLarge);
        }
        let header = Header {
            flags,
            tenant: TenantId::new(u64_at(b, 8)),
            source: SourceId::new(array_at(b, 16)),
            key_id: KeyId::new(u32_at(b, 32)),
            epoch: Epoch::new(u32_at(b, 36)),
            region: Region::new([b[40], b[41]])?,
            alg,
            consent: Consent(b[43]),
            count: u16_at(b, 44),
            batch_seq: u64_at(b, 48),
            first_seq: u64_at(b, 56),
            created: Timestamp::from_millis(u64_at(b, 64)),
            dropped: u32_at(b, 72),
        };
        header.check_numbers()?;
        Ok(Self { header, header_len, payload_len: payload_len as usize, crc: u32_at(b, CRC_AT) })
    }
}

fn array_at<const N: usize>(bytes: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

fn u16_at(bytes: &[u8; HEADER_LEN], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8; HEADER_LEN], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8; HEADER_LEN], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}
