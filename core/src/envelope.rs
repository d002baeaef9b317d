//! Envelopes: another producer's frame, verbatim, with what a hop noted on it, in a signed frame of the hop's own.
//!
//! So the producer's signature is still there in the journal, and can be checked again years later.

use crate::{
    Annotation, Error, ExtensionKind, Flags, Frame, FrameSigner, Header, Notes, WorkerId,
    codec::Writer,
    extension::write_extension,
    header::HEADER_LEN,
    limits::{MAX_ENVELOPE, MAX_FRAME, MAX_HEADER, MAX_NOTE, MAX_NOTES},
    writer::{Known, close},
};

/// An envelope's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Which hop.
    pub worker: WorkerId,
    /// What the hop noted.
    pub annotation: Annotation<'a>,
    /// What the hop's rules found and did; none from a hop that has no rules.
    pub notes: Option<Notes<'a>>,
    /// The producer's bytes, as they came unless the notes say otherwise. A hop also forwards what it refuses, so these may not parse.
    pub frame: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Opens a frame that is an envelope. Verify it first.
    ///
    /// # Errors
    /// [`Error::State`] if it is none, [`Error::Extension`] if it names no hop, [`Error::Payload`] or
    /// [`Error::TooLarge`] if its annotation or notes are malformed.
    pub fn open(frame: &Frame<'a>) -> Result<Self, Error> {
        if !frame.header().flags.contains(Flags::ENVELOPE) {
            return Err(Error::State);
        }
        let worker = Self::worker(frame)?;
        let notes = frame.extensions().get(ExtensionKind::Notes).map(Notes::from_bytes).transpose()?;
        let (annotation, frame) = Annotation::decode(frame.payload())?;
        Ok(Self { worker, annotation, notes, frame })
    }

    /// Which hop says that it signed the envelope: needed to derive the key that verifies it.
    ///
    /// # Errors
    /// [`Error::Extension`] if it does not say.
    pub fn worker(frame: &Frame<'_>) -> Result<WorkerId, Error> {
        let value = frame.extensions().get(ExtensionKind::Worker).ok_or(Error::Extension)?;
        let bytes = value.try_into().map_err(|_| Error::Extension)?;
        Ok(WorkerId::new(u32::from_le_bytes(bytes)))
    }
}

/// What a hop notes on a frame: an annotation, or one and what its rules found and did.
#[derive(Clone, Copy, Debug)]
pub struct Noted<'a> {
    annotation: &'a Annotation<'a>,
    notes: Option<&'a Notes<'a>>,
}

impl<'a> From<&'a Annotation<'a>> for Noted<'a> {
    fn from(annotation: &'a Annotation<'a>) -> Self {
        Self { annotation, notes: None }
    }
}

impl<'a> From<(&'a Annotation<'a>, &'a Notes<'a>)> for Noted<'a> {
    fn from((annotation, notes): (&'a Annotation<'a>, &'a Notes<'a>)) -> Self {
        Self { annotation, notes: Some(notes) }
    }
}

/// What is wrapped: a frame's bytes, and what is known of them. Of a [`Frame`] that was parsed its CRC is, so that a long one is not gone over again.
#[derive(Clone, Copy, Debug)]
pub struct Wrapped<'a> {
    bytes: &'a [u8],
    crc: Option<u32>,
}

impl<'a> Wrapped<'a> {
    /// The bytes.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// From how many bytes on it is less work to find the CRC of all of a frame from its own.
const LONG: usize = 4096;

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for Wrapped<'a> {
    fn from(bytes: &'a T) -> Self {
        Self { bytes: bytes.as_ref(), crc: None }
    }
}

impl<'a> From<Frame<'a>> for Wrapped<'a> {
    fn from(frame: Frame<'a>) -> Self {
        let bytes = frame.bytes();
        Self { bytes, crc: (bytes.len() >= LONG).then(|| frame.crc_of_bytes()) }
    }
}

// Header, extensions, the longest annotation (two numbers, three texts, a network, three kinds) and the longest tag.
const _: () = assert!(HEADER_LEN + 8 + 4 + MAX_NOTES <= MAX_HEADER);
const _: () = assert!(MAX_HEADER + 10 + 3 * (2 + MAX_NOTE) + 7 + 3 + 64 + MAX_FRAME <= MAX_ENVELOPE);

/// Writes an envelope into the buffer and returns the used slice. The header's flag is set here; its `count` should
/// be the wrapped frame's, so that a hop can account for it without opening it. [`MAX_ENVELOPE`] bytes are enough for
/// any frame that is within [`MAX_FRAME`].
///
/// # Errors
/// [`Error::BufferFull`]; [`Error::TooLarge`] over [`MAX_ENVELOPE`], or for a text in what was noted; [`Error::Count`]
/// if a sequence number is over its bound; [`Error::Algorithm`] if the signer's is not the header's.
pub fn seal_envelope<'b, 'n, 'f>(
    buf: &'b mut [u8],
    header: &Header,
    worker: WorkerId,
    noted: impl Into<Noted<'n>>,
    frame: impl Into<Wrapped<'f>>,
    signer: &(impl FrameSigner + ?Sized),
) -> Result<&'b [u8], Error> {
    let header = Header { flags: header.flags.with(Flags::ENVELOPE), ..*header };
    header.check_numbers()?;
    let most = MAX_ENVELOPE - header.alg.tag_len();
    let mut writer = Writer::new(buf, HEADER_LEN);
    let Noted { annotation, notes } = noted.into();
    write_extension(&mut writer, ExtensionKind::Worker, &worker.get().to_le_bytes())?;
    if let Some(notes) = notes {
        write_extension(&mut writer, ExtensionKind::Notes, notes.encode(&mut [0; MAX_NOTES])?)?;
    }
    let header_len = writer.position();
    let noted = annotation.encode(writer.unwritten())?.len();
    writer.skip(noted);
    let Wrapped { bytes, crc } = frame.into();
    if writer.position() + bytes.len() > most {
        return Err(Error::TooLarge);
    }
    writer.raw(bytes)?;
    let end = writer.position();
    let known = crc.map(|crc| Known { crc, len: bytes.len() });
    let end = close(buf, &header, header_len, end, known, signer)?;
    Ok(&buf[..end])
}
