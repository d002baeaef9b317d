//! Reading a frame: lengths, CRC, signature, events; in that order.

use crate::{
    Context, Error, Event, ExtensionKind, Extensions, Flags, FrameVerifier, Header, SessionGrant,
    codec::Reader,
    crc::crc32,
    header::{CRC_AT, HEADER_LEN, RawHeader},
};

/// A frame whose lengths and CRC hold. Its signature is [`verify`](Self::verify)'s to check.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    bytes: &'a [u8],
    header: Header,
    header_len: usize,
    payload_end: usize,
}

impl<'a> Frame<'a> {
    /// Checks lengths, header and CRC. The bytes must be the frame and nothing else.
    ///
    /// # Errors
    /// As [`Header::peek`], and [`Error::TrailingBytes`], [`Error::Crc`], [`Error::Extension`], [`Error::Count`]
    /// (a sequence number over 64 bits), [`Error::Sealed`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let raw = RawHeader::read(bytes)?;
        let payload_end = raw.header_len + raw.payload_len;
        let end = payload_end + raw.header.alg.tag_len();
        if bytes.len() != end {
            return Err(if bytes.len() < end { Error::Truncated } else { Error::TrailingBytes });
        }
        if crc32(&[&bytes[..CRC_AT], &[0; 4], &bytes[CRC_AT + 4..payload_end]]) != raw.crc {
            return Err(Error::Crc);
        }
        if raw.header.flags.contains(Flags::SEALED) {
            return Err(Error::Sealed);
        }
        Extensions::new(&bytes[HEADER_LEN..raw.header_len]).check()?;
        raw.header.first_seq.checked_add(raw.header.count.into()).ok_or(Error::Count)?;
        Ok(Self { bytes, header: raw.header, header_len: raw.header_len, payload_end })
    }

    /// Checks the signature, in constant time.
    ///
    /// # Errors
    /// [`Error::Algorithm`] if the key is for another algorithm than the header names, [`Error::Signature`].
    pub fn verify(&self, key: &impl FrameVerifier) -> Result<(), Error> {
        if key.alg() != self.header.alg {
            return Err(Error::Algorithm);
        }
        key.verify(self.signed(), self.tag())
    }

    /// The context that the events share, and the events.
    ///
    /// # Errors
    /// [`Error::Payload`] and the bounds' errors if the context is malformed; [`Error::State`] for an envelope.
    pub fn open(&self) -> Result<(Context<'a>, Events<'a>), Error> {
        if self.header.flags.contains(Flags::ENVELOPE) {
            return Err(Error::State);
        }
        let (context, rest) = Context::decode(self.payload())?;
        Ok((context, Events { reader: Reader::new(rest), left: self.header.count, failed: false }))
    }

    /// Decodes all of it once and throws it away: after it, [`open`](Self::open) and its events cannot fail.
    ///
    /// # Errors
    /// What is wrong with the payload.
    pub fn check(&self) -> Result<(), Error> {
        let (_, mut events) = self.open()?;
        events.try_for_each(|event| event.map(|_| ()))
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The extensions.
    #[must_use]
    pub fn extensions(&self) -> Extensions<'a> {
        Extensions::new(&self.bytes[HEADER_LEN..self.header_len])
    }

    /// The grant of the session that signed the frame.
    ///
    /// # Errors
    /// [`Error::Session`] if there is none, or it is malformed.
    pub fn session(&self) -> Result<SessionGrant, Error> {
        SessionGrant::from_bytes(self.extensions().get(ExtensionKind::Session).ok_or(Error::Session)?)
    }

    /// The payload, as it stands.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header_len..self.payload_end]
    }

    /// The bytes that the tag covers.
    #[must_use]
    pub fn signed(&self) -> &'a [u8] {
        &self.bytes[..self.payload_end]
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> &'a [u8] {
        &self.bytes[self.payload_end..]
    }

    /// The whole frame.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// The events of a frame. The first error is the last item; a payload that holds more or fewer events than the
/// header says is [`Error::Count`].
#[derive(Clone, Debug)]
pub struct Events<'a> {
    reader: Reader<'a>,
    left: u16,
    failed: bool,
}

impl<'a> Iterator for Events<'a> {
    type Item = Result<Event<'a>, Error>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let result = match (self.left, self.reader.is_empty()) {
            _ if self.failed => return None,
            (0, true) => return None,
            (0, false) | (_, true) => Err(Error::Count),
            _ => Event::decode(&mut self.reader),
        };
        match result {
            Ok(_) => self.left -= 1,
            Err(_) => self.failed = true,
        }
        Some(result)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(usize::from(self.left) + 1))
    }
}
