//! What arrives at the journal, and what it answers.

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;
use firsthop_core::{Annotation, Error, Flags, Frame, Header, SourceId, TenantId};
use firsthop_intake::content_digest;

use super::counters::At;

/// A frame that was checked and may be stored.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The body of the request: the frame, or the envelope around it.
    pub(super) body: Bytes,
    /// Where the frame stands in it.
    pub(super) frame: Range<usize>,
    /// The frame's header.
    pub(super) header: Header,
    /// When the first hop had it, and which that is.
    pub(super) at: At,
    /// What this server noted, encoded; none if all of it stands in the envelope.
    pub(super) annotation: Option<Box<[u8]>>,
    /// The events that have an id of another vendor's, in their order.
    pub(super) foreign: Vec<Foreign>,
}

/// An event that has an id of another vendor's: a source by itself, with one event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Foreign {
    /// Its place in the frame.
    pub(crate) index: u16,
    /// The source that its id makes.
    pub(crate) source: SourceId,
    /// What it says: [`content_digest`].
    pub(crate) digest: [u8; 16],
}

impl Arrival {
    /// A frame that a first hop has checked, in the body in which it came. `foreign`: whether any of its events has an id of another
    /// vendor's, which the check says. `annotation`: what this server noted on it; none if all of that stands in the envelope.
    ///
    /// # Errors
    /// What [`Frame::check`] says of events: none, if it was checked.
    pub(crate) fn new(
        body: &Bytes,
        frame: &Frame<'_>,
        foreign: bool,
        at: At,
        annotation: Option<&Annotation<'_>>,
    ) -> Result<Self, Error> {
        let header = *frame.header();
        // Where a slice of the body stands in it.
        let from = frame.bytes().as_ptr().addr() - body.as_ptr().addr();
        Ok(Self {
            body: body.clone(),
            frame: from..from + frame.bytes().len(),
            header,
            at,
            annotation: annotation.map(encode).transpose()?,
            foreign: if foreign { foreign_of(frame)? } else { Vec::new() },
        })
    }

    /// Bytes that it keeps in memory.
    pub(super) fn size(&self) -> usize {
        self.body.len() + self.foreign.len() * size_of::<Foreign>()
    }

    /// Whether its session's signature was checked: a frame that claims a session is let in by nothing else.
    pub(super) fn is_trusted(&self) -> bool {
        self.header.flags.contains(Flags::TRUST)
    }

    pub(super) fn frame_bytes(&self) -> &[u8] {
        &self.body[self.frame.clone()]
    }
}

/// An annotation as it is stored.
pub(crate) fn encode(annotation: &Annotation<'_>) -> Result<Box<[u8]>, Error> {
    let mut buffer = [0; 256];
    annotation.encode(&mut buffer).map(Box::from)
}

/// The events of a frame that have an id of another vendor's.
pub(super) fn foreign_of(frame: &Frame<'_>) -> Result<Vec<Foreign>, Error> {
    let tenant: TenantId = frame.header().tenant;
    let (context, events) = frame.open()?;
    let mut foreign = Vec::new();
    for (index, event) in events.enumerate() {
        let event = event?;
        if let Some(id) = event.id {
            let digest = content_digest(&event, &event.context.apply(&context)?);
            foreign.push(Foreign { index: index as u16, source: SourceId::of_foreign(tenant, &id), digest });
        }
    }
    Ok(foreign)
}

/// Something that was meant to be an event of this tenant, and was refused.
#[derive(Debug)]
pub(crate) struct SetAside {
    /// As it came.
    pub(crate) body: Bytes,
    /// Why.
    pub(crate) reason: Cow<'static, str>,
    /// How many events it says that it has.
    pub(crate) events: u16,
    /// Whether somebody answers for it: a session's signature holds, or a write key is the tenant's.
    pub(crate) vouched: bool,
    /// When the first hop had it, and which that is.
    pub(crate) at: At,
    /// What this server noted, encoded; none if all of it stands in the envelope.
    pub(crate) annotation: Option<Box<[u8]>>,
    /// What else the request said; none of what an edge forwarded.
    pub(crate) request: Option<Asked>,
}

/// What a request said besides its body, as far as it decides what becomes of it: so that it can be decided again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The path.
    pub(crate) path: Cow<'static, str>,
    /// `Origin`, if it was told.
    pub(crate) origin: Option<String>,
    /// The write key in its headers, if there was one.
    pub(crate) write_key: Option<String>,
}

/// What became of a frame's events. The three counts add up to its count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// New, and on disk.
    pub(crate) stored: u32,
    /// On disk already.
    pub(crate) duplicate: u32,
    /// Of a known identity, with another content: in quarantine.
    pub(crate) conflict: u32,
    /// What should be in quarantine is not: that is full. Nothing may be acknowledged by this verdict.
    pub(crate) lost: bool,
}
