//! Reading a frame: lengths, CRC, signature, events; in that order.

use crate::{
    Context, Error, Event, ExtensionKind, Extensions, Flags, FrameVerifier, Header, RegionKeyId, Rewritten,
    SessionGrant, WriteKey,
    codec::Reader,
    crc::{changed, crc32, joined},
    event::Names,
    header::{CRC_AT, HEADER_LEN, RawHeader},
};

/// Bytes that a seal adds to a payload: the encapsulated key in front, the authentication tag behind.
pub const SEAL_LEN: usize = ENCAPSULATED_LEN + SEAL_TAG_LEN;
/// The encapsulated key, an X25519 public key.
pub(crate) const ENCAPSULATED_LEN: usize = 32;
/// The tag of ChaCha20-Poly1305.
pub(crate) const SEAL_TAG_LEN: usize = 16;

/// A frame whose lengths and CRC hold. Its signature is [`verify`](Self::verify)'s to check.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    bytes: &'a [u8],
    header: Header,
    header_len: usize,
    payload_end: usize,
    /// What was sealed, once it is open.
    opened: Option<&'a [u8]>,
}

impl<'a> Frame<'a> {
    /// Checks lengths, header and CRC. The bytes must be the frame and nothing else.
    ///
    /// # Errors
    /// As [`Header::peek`]; then [`Error::Truncated`] or [`Error::TrailingBytes`], [`Error::Crc`],
    /// [`Error::Extension`]; [`Error::Payload`] if it is sealed and shorter than a seal.
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
        Extensions::new(&bytes[HEADER_LEN..raw.header_len]).check()?;
        let frame = Self { bytes, header: raw.header, header_len: raw.header_len, payload_end, opened: None };
        if raw.header.flags.contains(Flags::SEALED) {
            frame.sealed_to().ok_or(Error::Extension)?;
            if raw.payload_len < SEAL_LEN {
                return Err(Error::Payload);
            }
        }
        Ok(frame)
    }

    /// Checks the signature, in constant time.
    ///
    /// # Errors
    /// [`Error::Algorithm`] if the key is for another algorithm than the header names, [`Error::Signature`].
    pub fn verify(&self, key: &(impl FrameVerifier + ?Sized)) -> Result<(), Error> {
        if key.alg() != self.header.alg {
            return Err(Error::Algorithm);
        }
        key.verify(self.signed(), self.tag())
    }

    /// The context that the events share, and the events.
    ///
    /// # Errors
    /// [`Error::Sealed`] if it is sealed and not what `unseal` returned; [`Error::Payload`] and the bounds' errors if the context is malformed; [`Error::TooLarge`] if it is too large for
    /// so many events; [`Error::State`] for an envelope.
    pub fn open(&self) -> Result<(Context<'a>, Events<'a>), Error> {
        if self.header.flags.contains(Flags::ENVELOPE) {
            return Err(Error::State);
        }
        if self.header.flags.contains(Flags::SEALED) && self.opened.is_none() {
            return Err(Error::Sealed);
        }
        let (context, rest) = Context::decode_shared(self.payload(), self.header.count)?;
        Ok((context, Events { reader: Reader::new(rest), left: self.header.count, names: Names::default() }))
    }

    /// Decodes all of it once and throws it away: after it, [`open`](Self::open) and its events cannot fail. Returns how many of the
    /// events have an id of another vendor's.
    ///
    /// # Errors
    /// What is wrong with the payload.
    pub fn check(&self) -> Result<usize, Error> {
        let (_, mut events) = self.open()?;
        events.try_fold(0, |foreign, event| Ok(foreign + usize::from(event?.id.is_some())))
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

    /// The write key of a producer that has no session yet.
    ///
    /// # Errors
    /// [`Error::WriteKey`] if there is none, it is malformed, or it names another tenant than the header.
    pub fn write_key(&self) -> Result<WriteKey<'a>, Error> {
        let text = self.extensions().get(ExtensionKind::WriteKey).ok_or(Error::WriteKey)?;
        let key = WriteKey::parse(core::str::from_utf8(text).map_err(|_| Error::WriteKey)?)?;
        if key.tenant() == self.header.tenant { Ok(key) } else { Err(Error::WriteKey) }
    }

    /// What a hop says of a frame that its rules have written anew. None: it is as its producer made it, or says so. Only a hop may say it,
    /// so believe it of none that comes from outside.
    #[must_use]
    pub fn rewritten(&self) -> Option<Rewritten> {
        Rewritten::from_bytes(self.extensions().get(ExtensionKind::Rewritten)?).ok()
    }

    /// The W3C `traceparent` of the request that made the frame, if there is one of version 00.
    #[must_use]
    pub fn traceparent(&self) -> Option<&'a str> {
        let text = core::str::from_utf8(self.extensions().get(ExtensionKind::Traceparent)?).ok()?;
        is_traceparent(text).then_some(text)
    }

    /// Which of its region's keys the frame is sealed to, if it is sealed.
    #[must_use]
    pub fn sealed_to(&self) -> Option<RegionKeyId> {
        if !self.header.flags.contains(Flags::SEALED) {
            return None;
        }
        let id = self.extensions().get(ExtensionKind::SealKey)?.try_into().ok()?;
        Some(RegionKeyId::new(u32::from_le_bytes(id)))
    }

    /// The payload: as it stands, or of a frame that was unsealed what was sealed.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.opened.unwrap_or(&self.bytes[self.header_len..self.payload_end])
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

    /// The CRC-32 of the whole frame, which follows from its own: that was made with zeros in its place, and without the tag.
    pub(crate) fn crc_of_bytes(&self) -> u32 {
        let (signed, tag) = self.bytes.split_at(self.payload_end);
        let own = [signed[CRC_AT], signed[CRC_AT + 1], signed[CRC_AT + 2], signed[CRC_AT + 3]];
        let signed = u32::from_le_bytes(own) ^ changed(own, signed.len() - CRC_AT - 4);
        joined(signed, crc32(&[tag]), tag.len())
    }
}

#[cfg(feature = "seal")]
impl<'a> Frame<'a> {
    /// Opens a sealed frame into the caller's buffer, which needs the room of its payload less [`SEAL_LEN`]. Verify the
    /// frame first: who sealed it, the seal does not say, because the region's key is public.
    ///
    /// What is returned is the same frame (its bytes, header and tag are the sealed ones) with a payload that can be read.
    ///
    /// # Errors
    /// [`Error::State`] if it is not sealed; [`Error::UnknownKey`] if it is sealed to another key than this one;
    /// [`Error::BufferFull`]; [`Error::Seal`] if it does not open. The buffer is as it was then.
    pub fn unseal<'b>(&self, key: &crate::RegionSecretKey, buffer: &'b mut [u8]) -> Result<Frame<'b>, Error>
    where
        'a: 'b,
    {
        let id = self.sealed_to().filter(|_| self.opened.is_none()).ok_or(Error::State)?;
        if id != key.id() {
            return Err(Error::UnknownKey);
        }
        let (head, sealed) = self.signed().split_at(self.header_len);
        let opened = key.open(&self.header, head, sealed, buffer)?;
        Ok(self.with_opened(opened))
    }

    /// The frame as [`unseal`](Self::unseal) returned it, from the bytes that it wrote: for whoever keeps those and not the borrow. Of a
    /// frame that is not sealed, the frame.
    #[must_use]
    pub fn with_opened<'b>(&self, payload: &'b [u8]) -> Frame<'b>
    where
        'a: 'b,
    {
        Frame { opened: self.sealed_to().map(|_| payload), ..*self }
    }
}

/// Whether a text is a `traceparent` (W3C Trace Context): version 00, lower-case hexadecimal digits, ids that are not all zero.
#[must_use]
pub fn is_traceparent(text: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |text: &str| is_hex(text) && text.bytes().any(|b| b != b'0');
    let mut parts = text.split('-');
    text.len() == 55
        && parts.next() == Some("00")
        && parts.next().is_some_and(|trace| trace.len() == 32 && is_id(trace))
        && parts.next().is_some_and(|parent| parent.len() == 16 && is_id(parent))
        && parts.next().is_some_and(|flags| flags.len() == 2 && is_hex(flags))
}

/// The events of a frame. The first error is the last item; a payload that holds more or fewer events than the
/// header says is [`Error::Count`].
#[derive(Clone, Debug)]
pub struct Events<'a> {
    reader: Reader<'a>,
    left: u16,
    names: Names<'a>,
}

impl Events<'_> {
    /// Bytes of the payload that are not read yet: where the next event begins, counted from the end. 0 after an error.
    #[must_use]
    pub const fn unread(&self) -> usize {
        self.reader.rest().len()
    }

    fn end(&mut self) {
        *self = Self { reader: Reader::new(&[]), left: 0, names: Names::default() };
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Result<Event<'a>, Error>;

    #[cfg_attr(not(target_arch = "wasm32"), inline(always))]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 || self.reader.is_empty() {
            // Both ended, or only one of them.
            let ended = self.left == 0 && self.reader.is_empty();
            self.end();
            return (!ended).then_some(Err(Error::Count));
        }
        match Event::decode(&mut self.reader, &mut self.names) {
            Ok(event) => {
                self.left -= 1;
                Some(Ok(event))
            }
            Err(error) => {
                self.end();
                Some(Err(error))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(usize::from(self.left) + 1))
    }
}
