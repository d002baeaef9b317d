//! Header extensions: type, length, value. Unknown ones are skipped, so that a new one needs no new version.

use crate::{Error, codec::Writer};

/// What an extension says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExtensionKind {
    /// W3C Trace Context `traceparent`, version 00: 55 ASCII characters.
    Traceparent,
    /// The write key, in frames that have no session yet.
    WriteKey,
    /// The session grant that the signing key was derived from: see [`SessionGrant`](crate::SessionGrant).
    Session,
    /// Which first hop signed an envelope: its [`WorkerId`](crate::WorkerId), 4 bytes.
    Worker,
    /// Which of its region's keys a frame is sealed to: a [`RegionKeyId`](crate::RegionKeyId), 4 bytes.
    SealKey,
    /// What the first hop's rules found and did, in an envelope: [`Notes`](crate::Notes).
    Notes,
    /// A frame that a hop's rules have written anew, in one byte: see [`Rewritten`](crate::Rewritten). Never from a producer.
    Rewritten,
    /// One that this version does not know.
    Unknown(u16),
}

impl ExtensionKind {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Traceparent => 1,
            Self::WriteKey => 2,
            Self::Session => 3,
            Self::Worker => 4,
            Self::SealKey => 5,
            Self::Notes => 6,
            Self::Rewritten => 7,
            Self::Unknown(number) => number,
        }
    }

    const fn from_number(number: u16) -> Self {
        match number {
            1 => Self::Traceparent,
            2 => Self::WriteKey,
            3 => Self::Session,
            4 => Self::Worker,
            5 => Self::SealKey,
            6 => Self::Notes,
            7 => Self::Rewritten,
            _ => Self::Unknown(number),
        }
    }
}

/// One extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    /// What it says.
    pub kind: ExtensionKind,
    /// Its value, as it stands in the frame.
    pub value: &'a [u8],
}

/// Bytes before an extension's value: type and length, two bytes each.
pub(crate) const EXTENSION_HEAD: usize = 4;

/// Appends an extension.
pub(crate) fn write_extension(writer: &mut Writer<'_>, kind: ExtensionKind, value: &[u8]) -> Result<(), Error> {
    let len = u16::try_from(value.len()).map_err(|_| Error::HeaderLength)?;
    writer.raw(&kind.number().to_le_bytes())?;
    writer.raw(&len.to_le_bytes())?;
    writer.raw(value)
}

/// The extensions of a frame, in their order. [`Frame::parse`](crate::Frame::parse) has checked them.
#[derive(Clone, Copy, Debug)]
pub struct Extensions<'a> {
    rest: &'a [u8],
}

impl<'a> Extensions<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The value of one kind of extension, the first if an unknown kind stands there several times.
    #[must_use]
    pub fn get(self, kind: ExtensionKind) -> Option<&'a [u8]> {
        let mut extensions = self;
        core::iter::from_fn(|| extensions.advance())
            .find_map(|(number, value)| (number == kind.number()).then_some(value))
    }

    /// The next one: its number and value.
    fn advance(&mut self) -> Option<(u16, &'a [u8])> {
        let (head, rest) = self.rest.split_first_chunk::<EXTENSION_HEAD>()?;
        let (value, rest) = rest.split_at_checked(u16::from_le_bytes([head[2], head[3]]).into())?;
        self.rest = rest;
        Some((u16::from_le_bytes([head[0], head[1]]), value))
    }

    /// Whole extensions, and of the kinds up to 63 none twice.
    pub(crate) fn check(self) -> Result<(), Error> {
        let mut extensions = self;
        // A bit for each number: all kinds that are defined, and room for more.
        let mut seen = 0u64;
        while let Some((number, _)) = extensions.advance() {
            if number < 64 {
                if seen & 1 << number != 0 {
                    return Err(Error::Extension);
                }
                seen |= 1 << number;
            }
        }
        if extensions.rest.is_empty() { Ok(()) } else { Err(Error::Extension) }
    }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = Extension<'a>;

    fn next(&mut self) -> Option<Extension<'a>> {
        let (number, value) = self.advance()?;
        Some(Extension { kind: ExtensionKind::from_number(number), value })
    }
}
