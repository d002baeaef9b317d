//! Envelopes: another producer's frame, verbatim, with what a hop noted on it, in a signed frame of the hop's own.
//!
//! So the producer's signature is still there in the journal, and can be checked again years later.

use crate::{
    Annotation, Error, Flags, Frame, FrameSigner, Header, header::HEADER_LEN, limits::MAX_ENVELOPE, writer::seal,
};

/// An envelope's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// What the hop noted.
    pub annotation: Annotation<'a>,
    /// The producer's bytes, as they came. A hop also forwards what it refuses, so these may not parse.
    pub frame: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Opens a frame that is an envelope. Verify it first.
    ///
    /// # Errors
    /// [`Error::State`] if it is none, [`Error::Payload`] if its annotation is malformed.
    pub fn open(frame: &Frame<'a>) -> Result<Self, Error> {
        if !frame.header().flags.contains(Flags::ENVELOPE) {
            return Err(Error::State);
        }
        let (annotation, frame) = Annotation::decode(frame.payload())?;
        Ok(Self { annotation, frame })
    }
}

/// Writes an envelope into the buffer and returns the used slice. The header's flag is set here; its `count` should
/// be the wrapped frame's, so that a hop can account for it without opening it.
///
/// # Errors
/// [`Error::BufferFull`]; [`Error::TooLarge`] over [`MAX_ENVELOPE`]; [`Error::Algorithm`] if the signer's is not the
/// header's.
pub fn seal_envelope<'b>(
    buf: &'b mut [u8],
    header: &Header,
    annotation: &Annotation<'_>,
    frame: &[u8],
    signer: &impl FrameSigner,
) -> Result<&'b [u8], Error> {
    let header = Header { flags: header.flags.with(Flags::ENVELOPE), ..*header };
    let payload = buf.get_mut(HEADER_LEN..).ok_or(Error::BufferFull)?;
    let noted = annotation.encode(payload)?.len();
    let end = HEADER_LEN + noted + frame.len();
    if end + header.alg.tag_len() > MAX_ENVELOPE {
        return Err(Error::TooLarge);
    }
    buf.get_mut(HEADER_LEN + noted..end).ok_or(Error::BufferFull)?.copy_from_slice(frame);
    let end = seal(buf, &header, HEADER_LEN, end, signer)?;
    Ok(&buf[..end])
}
