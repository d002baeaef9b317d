//! Identifiers: who produced an event, for whom, when, and under which key.

use core::{fmt, str::FromStr};

use sha2::{Digest, Sha256};

use crate::{Error, ForeignId, limits::MAX_WRITE_KEY};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($inner);

        impl $name {
            /// Wraps the number.
            #[must_use]
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }
    };
}

number! {
    /// A tenant's public id. Text form: 16 lower-case hex digits.
    TenantId(u64)
}
number! {
    /// Which root key a derivation starts from.
    KeyId(u32)
}
number! {
    /// Which of a region's keys a frame is sealed to.
    RegionKeyId(u32)
}
number! {
    /// One deployment of a first hop. 0 is the server itself.
    WorkerId(u32)
}
number! {
    /// An hour since the Unix epoch: derived keys live for one, and are accepted in the neighbouring two.
    Epoch(u32)
}

impl KeyId {
    /// The first root of a tenant.
    pub const FIRST: Self = Self::new(1);

    /// The root after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::new(self.get().wrapping_add(1))
    }
}

impl Epoch {
    /// Length of an epoch in milliseconds.
    pub const MILLIS: u64 = 3_600_000;

    /// The epoch that contains this moment. Saturates 490,000 years from now.
    #[must_use]
    pub const fn at(now: Timestamp) -> Self {
        let hours = now.as_millis() / Self::MILLIS;
        Self(if hours > u32::MAX as u64 { u32::MAX } else { hours as u32 })
    }

    /// The first moment of the epoch.
    #[must_use]
    pub const fn start(self) -> Timestamp {
        Timestamp(self.0 as u64 * Self::MILLIS)
    }

    /// `Ok` if `self` is at most one epoch away from the current one.
    ///
    /// # Errors
    /// [`Error::Epoch`] outside that window.
    pub const fn check_current(self, now: Timestamp) -> Result<(), Error> {
        if self.0.abs_diff(Self::at(now).0) <= 1 { Ok(()) } else { Err(Error::Epoch) }
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for TenantId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(Error::Parse);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| Error::Parse)
    }
}

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This moment moved by some milliseconds, held at the ends of the range.
    #[must_use]
    pub const fn offset(self, millis: i64) -> Self {
        Self(self.0.saturating_add_signed(millis))
    }
}

/// Who produced events: one page session, process or spool. A UUIDv7 for native producers; for events that
/// came with an id of another vendor's, a UUIDv8 made of that id.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId([u8; 16]);

impl SourceId {
    /// From the sixteen bytes of a UUID.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// A UUIDv7 (RFC 9562 §5.7) of a moment and ten random bytes.
    #[must_use]
    pub const fn v7(now: Timestamp, random: [u8; 10]) -> Self {
        let t = now.as_millis().to_be_bytes();
        let r = random;
        Self([
            t[2],
            t[3],
            t[4],
            t[5],
            t[6],
            t[7],
            0x70 | (r[0] & 0x0f),
            r[1],
            0x80 | (r[2] & 0x3f),
            r[3],
            r[4],
            r[5],
            r[6],
            r[7],
            r[8],
            r[9],
        ])
    }

    /// A UUIDv8 (RFC 9562 §5.8) of the first sixteen bytes of a digest.
    #[must_use]
    pub const fn v8(digest: [u8; 16]) -> Self {
        let mut bytes = digest;
        bytes[6] = 0x80 | (bytes[6] & 0x0f);
        bytes[8] = 0x80 | (bytes[8] & 0x3f);
        Self(bytes)
    }

    /// The source of an event that came with another vendor's id: a UUIDv8 of the SHA-256 over tenant, vendor and id.
    #[must_use]
    pub fn of_foreign(tenant: TenantId, id: &ForeignId<'_>) -> Self {
        let vendor = id.vendor.as_str().as_bytes();
        let digest = Sha256::new()
            .chain_update(tenant.get().to_le_bytes())
            .chain_update([vendor.len() as u8])
            .chain_update(vendor)
            .chain_update(id.id)
            .finalize();
        let mut short = [0; 16];
        short.copy_from_slice(&digest[..16]);
        Self::v8(short)
    }

    /// The sixteen bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The sixteen bytes as one number, for [`DedupWindow`](crate::DedupWindow).
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        u128::from_be_bytes(self.0)
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // By hand: a server writes it for every event, and formatting each byte takes ten times as long.
        let mut text = [b'-'; 36];
        let mut at = 0;
        for (i, byte) in self.0.iter().enumerate() {
            at += usize::from(matches!(i, 4 | 6 | 8 | 10));
            text[at] = HEX[usize::from(byte >> 4)];
            text[at + 1] = HEX[usize::from(byte & 15)];
            at += 2;
        }
        f.write_str(core::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceId({self})")
    }
}

impl FromStr for SourceId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.as_bytes();
        if text.len() != 36 {
            return Err(Error::Parse);
        }
        let mut bytes = [0; 16];
        let mut digits = 0;
        for (i, &c) in text.iter().enumerate() {
            if matches!(i, 8 | 13 | 18 | 23) {
                if c != b'-' {
                    return Err(Error::Parse);
                }
                continue;
            }
            let digit = (c as char).to_digit(16).ok_or(Error::Parse)? as u8;
            bytes[digits / 2] = bytes[digits / 2] << 4 | digit;
            digits += 1;
        }
        Ok(Self(bytes))
    }
}

/// What an event *is*, within a tenant: its source and its number there. Text form: `{source}/{seq}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// Who produced the event.
    pub source: SourceId,
    /// The how-manieth event of that source, from 0.
    pub seq: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.seq)
    }
}

impl FromStr for EventId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (source, seq) = text.split_once('/').ok_or(Error::Parse)?;
        // One text for one id: no sign, no zeros in front.
        if seq.starts_with('+') || seq.len() > 1 && seq.starts_with('0') {
            return Err(Error::Parse);
        }
        Ok(Self { source: source.parse()?, seq: seq.parse().map_err(|_| Error::Parse)? })
    }
}

/// The region that may read a frame: two ASCII capitals (`EU`, `US`, `CH`), or `--` for any.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region([u8; 2]);

impl Region {
    /// Any region may read it.
    pub const ANY: Self = Self(*b"--");

    /// From two ASCII capitals, or `--`.
    ///
    /// # Errors
    /// [`Error::Region`] for anything else.
    pub const fn new(code: [u8; 2]) -> Result<Self, Error> {
        match code {
            [b'A'..=b'Z', b'A'..=b'Z'] | [b'-', b'-'] => Ok(Self(code)),
            _ => Err(Error::Region),
        }
    }

    /// The two letters.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 2] {
        &self.0
    }

    /// The two letters as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ASCII gets past `new`.
        core::str::from_utf8(&self.0).unwrap_or("--")
    }
}

impl Default for Region {
    fn default() -> Self {
        Self::ANY
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({self})")
    }
}

impl FromStr for Region {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::new(text.as_bytes().try_into().map_err(|_| Error::Region)?)
    }
}

/// A write key: the public name under which a page or an SDK may write to one tenant.
///
/// `fh_{tenant}_{secret}`: the tenant's sixteen hex digits, then 16 to 44 letters or digits. It is on the
/// page for all to see; it says where events belong, and lets an operator cut one user off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WriteKey<'a> {
    text: &'a str,
    tenant: TenantId,
}

impl<'a> WriteKey<'a> {
    /// Reads a write key.
    ///
    /// # Errors
    /// [`Error::WriteKey`] if it has not the form above.
    pub fn parse(text: &'a str) -> Result<Self, Error> {
        let rest = text.strip_prefix("fh_").ok_or(Error::WriteKey)?;
        let (tenant, secret) = rest.split_once('_').ok_or(Error::WriteKey)?;
        let tenant = tenant.parse().map_err(|_| Error::WriteKey)?;
        let well_formed =
            text.len() <= MAX_WRITE_KEY && secret.len() >= 16 && secret.bytes().all(|b| b.is_ascii_alphanumeric());
        if well_formed { Ok(Self { text, tenant }) } else { Err(Error::WriteKey) }
    }

    /// The tenant that the key names. Whether the key is the tenant's is for its key list to say.
    #[must_use]
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The whole key.
    #[must_use]
    pub const fn as_str(&self) -> &'a str {
        self.text
    }
}
