//! Writing a frame: header, extensions, context, events, tag.

use crate::{
    Context, Error, Event, ExtensionKind, FrameSigner, Header, SourceId, TenantId, Timestamp,
    codec::Writer,
    context::most_sharing,
    crc::{crc32, joined},
    extension::{EXTENSION_HEAD, Extensions, write_extension},
    header::{CRC_AT, HEADER_LEN},
    limits::{MAX_FRAME, MAX_HEADER},
};
#[cfg(feature = "seal")]
use crate::{
    Flags, RegionPublicKey,
    frame::{ENCAPSULATED_LEN, SEAL_TAG_LEN},
};

/// Writes one frame after another into a buffer of the caller's.
///
/// A call that fails leaves the frame as it was before it, so that an event that no longer fits can go into the
/// next one.
#[derive(Debug)]
pub struct FrameWriter<B> {
    buffer: B,
    header: Header,
    header_len: usize,
    end: usize,
    /// How many events the context is small enough for.
    most: usize,
    stage: Stage,
    /// To whom the frame is sealed.
    #[cfg(feature = "seal")]
    region: Option<RegionPublicKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Extensions,
    Events,
    Finished,
}

impl<B: AsMut<[u8]>> FrameWriter<B> {
    /// Begins a frame. `count` in the header is ignored: the writer counts. [`MAX_FRAME`] bytes are enough for any
    /// frame, and more are not used.
    ///
    /// # Errors
    /// [`Error::BufferFull`] if not even the header and the tag fit, [`Error::Count`] if a sequence number is over
    /// [`MAX_SEQ`](crate::limits::MAX_SEQ).
    pub fn new(buffer: B, header: &Header) -> Result<Self, Error> {
        let mut writer = Self::idle(buffer);
        writer.begin(header)?;
        Ok(writer)
    }

    /// A writer that has no frame yet: [`begin`](Self::begin) begins one. For statics.
    #[must_use]
    pub const fn idle(buffer: B) -> Self {
        let header = Header::new(TenantId::new(0), SourceId::new([0; 16]), Timestamp::from_millis(0));
        Self {
            buffer,
            header,
            header_len: 0,
            end: 0,
            most: 0,
            stage: Stage::Finished,
            #[cfg(feature = "seal")]
            region: None,
        }
    }

    /// Begins the next frame in the same buffer.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn begin(&mut self, header: &Header) -> Result<(), Error> {
        let header = Header { count: 0, ..*header };
        header.check_numbers()?;
        if self.buffer.as_mut().len() < HEADER_LEN + header.alg.tag_len() {
            return Err(Error::BufferFull);
        }
        self.header = header;
        self.header_len = HEADER_LEN;
        self.end = HEADER_LEN;
        self.stage = Stage::Extensions;
        #[cfg(feature = "seal")]
        {
            self.region = None;
        }
        Ok(())
    }

    /// Adds an extension to the header. Only before the context and the events.
    ///
    /// # Errors
    /// [`Error::State`] after the first event; [`Error::HeaderLength`] over [`MAX_HEADER`]; [`Error::Extension`] if
    /// there is one of this kind; [`Error::BufferFull`].
    pub fn extension(&mut self, kind: ExtensionKind, value: &[u8]) -> Result<(), Error> {
        if self.stage != Stage::Extensions {
            return Err(Error::State);
        }
        if self.header_len + EXTENSION_HEAD + value.len() > MAX_HEADER {
            return Err(Error::HeaderLength);
        }
        if Extensions::new(&self.buffer.as_mut()[HEADER_LEN..self.header_len]).get(kind).is_some() {
            return Err(Error::Extension);
        }
        self.append(|writer| write_extension(writer, kind, value))?;
        self.header_len = self.end;
        Ok(())
    }

    /// Writes what the events share. Without it they share nothing.
    ///
    /// # Errors
    /// [`Error::State`] after the first event; [`Error::TooLarge`] over [`MAX_CONTEXT`](crate::limits::MAX_CONTEXT);
    /// [`Error::BufferFull`].
    pub fn context(&mut self, context: &Context<'_>) -> Result<(), Error> {
        if self.stage != Stage::Extensions {
            return Err(Error::State);
        }
        let sealed = self.sealed();
        self.append(|writer| {
            // The encapsulated key stands first.
            #[cfg(feature = "seal")]
            writer.raw(&[0; ENCAPSULATED_LEN][..sealed.0])?;
            context.encode_shared(writer)
        })?;
        self.most = most_sharing(&self.buffer.as_mut()[self.header_len + sealed.0..self.end]);
        self.stage = Stage::Events;
        Ok(())
    }

    /// Writes the next event: its sequence number is `first_seq` and the events before it.
    ///
    /// # Errors
    /// [`Error::BufferFull`] or [`Error::Count`] if it belongs into the next frame (or, in an empty one, into a larger
    /// buffer); [`Error::TooLarge`] if into none; [`Error::State`] after [`finish`](Self::finish).
    pub fn event(&mut self, event: &Event<'_>) -> Result<(), Error> {
        if self.stage == Stage::Finished {
            return Err(Error::State);
        }
        let before = (self.end, self.stage);
        // Neither is near the end of its type.
        self.header.count += 1;
        let result = self.header.check_numbers().and_then(|()| {
            self.end_header()?;
            if usize::from(self.header.count) > self.most {
                return Err(Error::Count);
            }
            self.append(|writer| event.encode(writer))
        });
        if result.is_err() {
            (self.end, self.stage) = before;
            self.header.count -= 1;
        }
        result
    }

    /// Events so far.
    #[must_use]
    pub const fn count(&self) -> u16 {
        self.header.count
    }

    /// Length of the frame so far, in bytes, without its tag.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.end
    }

    /// Whether no event was written yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.header.count == 0
    }

    /// Sets what the source had to give up since its last frame, in events; each had a number before this frame's.
    pub const fn set_dropped(&mut self, dropped: u32) {
        self.header.dropped = dropped;
    }

    /// Sets the number of the first event: those that were given up while the frame was open come before it.
    pub const fn set_first_seq(&mut self, first_seq: u64) {
        self.header.first_seq = first_seq;
    }

    /// Fills in lengths and CRC, signs, and returns the frame.
    ///
    /// # Errors
    /// [`Error::Algorithm`] if the signer's is not the header's, [`Error::State`] if the frame was finished or is to be
    /// sealed.
    pub fn finish(&mut self, signer: &(impl FrameSigner + ?Sized)) -> Result<&[u8], Error> {
        if self.stage == Stage::Finished || self.sealed().0 > 0 {
            return Err(Error::State);
        }
        self.end_header()?;
        let end = close(self.buffer.as_mut(), &self.header, self.header_len, self.end, None, signer)?;
        self.stage = Stage::Finished;
        Ok(&self.buffer.as_mut()[..end])
    }

    /// Events without a context share nothing.
    fn end_header(&mut self) -> Result<(), Error> {
        if self.stage == Stage::Extensions { self.context(&Context::EMPTY) } else { Ok(()) }
    }

    /// What a seal takes before what is sealed, and behind it; nothing of a frame that is not to be sealed.
    const fn sealed(&self) -> (usize, usize) {
        #[cfg(feature = "seal")]
        if self.header.flags.contains(Flags::SEALED) {
            return (ENCAPSULATED_LEN, SEAL_TAG_LEN);
        }
        (0, 0)
    }

    fn append(&mut self, write: impl FnOnce(&mut Writer<'_>) -> Result<(), Error>) -> Result<(), Error> {
        let (_, behind) = self.sealed();
        let buffer = self.buffer.as_mut();
        let room = buffer.len().min(MAX_FRAME).saturating_sub(self.header.alg.tag_len() + behind);
        let mut writer = Writer::new(&mut buffer[..room], self.end);
        write(&mut writer)?;
        self.end = writer.position();
        Ok(())
    }
}

#[cfg(feature = "seal")]
impl<B: AsMut<[u8]>> FrameWriter<B> {
    /// The frame is for this key of its region alone: [`finish_sealed`](Self::finish_sealed) ends it. Only before the context and the
    /// events. [`SEAL_LEN`](crate::SEAL_LEN) bytes of the buffer are the seal's.
    ///
    /// # Errors
    /// As [`extension`](Self::extension); [`Error::State`] for an envelope.
    pub fn seal_to(&mut self, key: &RegionPublicKey) -> Result<(), Error> {
        if self.header.flags.contains(Flags::ENVELOPE) {
            return Err(Error::State);
        }
        self.extension(ExtensionKind::SealKey, &key.id().get().to_le_bytes())?;
        self.header.flags = self.header.flags.with(Flags::SEALED);
        self.region = Some(key.clone());
        Ok(())
    }

    /// Seals the payload, fills in lengths and CRC, signs, and returns the frame. `random` are 32 bytes from the system's
    /// generator, for this frame and no other: whoever knows them can open it, and with those of one frame in another both are open.
    ///
    /// # Errors
    /// [`Error::Algorithm`] if the signer's is not the header's, [`Error::State`] if the frame was finished or is not to be sealed,
    /// [`Error::BufferFull`].
    pub fn finish_sealed(&mut self, signer: &(impl FrameSigner + ?Sized), random: &[u8; 32]) -> Result<&[u8], Error> {
        if self.stage == Stage::Finished || self.region.is_none() {
            return Err(Error::State);
        }
        self.end_header()?;
        if signer.alg() != self.header.alg {
            return Err(Error::Algorithm);
        }
        let Some(region) = &self.region else { return Err(Error::State) };
        let buffer = self.buffer.as_mut();
        let end = self.end + SEAL_TAG_LEN;
        let frame = buffer.get_mut(..end).ok_or(Error::BufferFull)?;
        let (head, payload) = frame.split_at_mut(self.header_len);
        self.header.write(
            head.first_chunk_mut().ok_or(Error::BufferFull)?,
            self.header_len as u16,
            payload.len() as u32,
        );
        region.seal(&self.header, head, payload, random)?;
        let end = close(buffer, &self.header, self.header_len, end, None, signer)?;
        self.stage = Stage::Finished;
        Ok(&self.buffer.as_mut()[..end])
    }
}

/// The CRC-32 of the last bytes in front of a tag, where it is known.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    pub(crate) crc: u32,
    pub(crate) len: usize,
}

/// Writes the header over the front, the CRC into it, and the tag behind the payload. Returns the frame's end.
pub(crate) fn close(
    buffer: &mut [u8],
    header: &Header,
    header_len: usize,
    end: usize,
    known: Option<Known>,
    signer: &(impl FrameSigner + ?Sized),
) -> Result<usize, Error> {
    if signer.alg() != header.alg {
        return Err(Error::Algorithm);
    }
    let tag_end = end + header.alg.tag_len();
    let frame = buffer.get_mut(..tag_end).ok_or(Error::BufferFull)?;
    let (signed, tag) = frame.split_at_mut(end);
    let fixed = signed.first_chunk_mut().ok_or(Error::BufferFull)?;
    header.write(fixed, header_len as u16, (end - header_len) as u32);
    let crc = match known {
        Some(Known { crc, len }) => joined(crc32(&[&signed[..end - len]]), crc, len),
        None => crc32(&[signed]),
    };
    signed[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    tag.copy_from_slice(signer.sign(signed).as_bytes());
    Ok(tag_end)
}
