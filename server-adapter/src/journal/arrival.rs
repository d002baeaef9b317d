//! What arrives at the journal, and what it answers.

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;
use firsthop_core::{Annotation, Error, Flags, Frame, Header, Notes, Rewritten, SourceId, TenantId, limits::MAX_NOTES};
use firsthop_intake::content_digest;

use super::{counters::At, ledger::given_up};

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
    /// What a hop says that has written it anew.
    pub(super) rewritten: Option<Rewritten>,
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
    /// What it says: [`content_digest`]; of a frame that was written anew, [`NO_DIGEST`].
    pub(crate) digest: [u8; 16],
}

impl Arrival {
    /// A frame that a first hop has checked, in the body in which it came. `foreign`: whether any of its events has an id of another
    /// vendor's, which the check says. `noted`: what this server noted on it; none if all of that stands in the envelope.
    ///
    /// # Errors
    /// What [`Frame::check`] says of events: none, if it was checked.
    pub(crate) fn new(
        body: &Bytes,
        frame: &Frame<'_>,
        foreign: bool,
        at: At,
        noted: Option<&Noted<'_>>,
    ) -> Result<Self, Error> {
        Self::noted(body, frame, foreign, at, noted.map(Noted::encode).transpose()?)
    }

    /// The same with what was noted as it is stored.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn noted(
        body: &Bytes,
        frame: &Frame<'_>,
        foreign: bool,
        at: At,
        annotation: Option<Box<[u8]>>,
    ) -> Result<Self, Error> {
        let header = *frame.header();
        // Where a slice of the body stands in it.
        let from = frame.bytes().as_ptr().addr() - body.as_ptr().addr();
        Ok(Self {
            body: body.clone(),
            frame: from..from + frame.bytes().len(),
            header,
            at,
            annotation,
            rewritten: frame.rewritten(),
            foreign: if foreign { foreign_of(frame)? } else { Vec::new() },
        })
    }

    /// Bytes that it keeps in memory.
    pub(super) fn size(&self) -> usize {
        let annotation = self.annotation.as_ref().map_or(0, |annotation| annotation.len());
        self.body.len() + annotation + self.foreign.len() * size_of::<Foreign>()
    }

    /// Whether its session's signature was checked: a frame that claims a session is let in by nothing else.
    pub(super) fn is_trusted(&self) -> bool {
        is_trusted(&self.header, self.rewritten)
    }

    /// What its producer says it gave up, as far as that is believed.
    pub(super) fn given_up(&self) -> u32 {
        given_up(self.header.dropped, self.is_trusted())
    }

    /// Whether its events are counted, and nothing of them is kept.
    pub(super) fn is_suppressed(&self) -> bool {
        self.rewritten.is_some_and(|rewritten| rewritten.suppressed)
    }

    pub(super) fn frame_bytes(&self) -> &[u8] {
        &self.body[self.frame.clone()]
    }
}

/// Whether the signature of a frame's session was checked, by who stored it or by who wrote it anew.
pub(super) fn is_trusted(header: &Header, rewritten: Option<Rewritten>) -> bool {
    rewritten.map_or(header.flags.contains(Flags::TRUST), |rewritten| rewritten.trusted)
}

/// Whether a stored frame is one of which nothing is kept but its numbers.
pub(crate) fn is_suppressed(frame: &Frame<'_>) -> bool {
    frame.rewritten().is_some_and(|rewritten| rewritten.suppressed)
}

/// What first hops noted on a frame. As it is stored: an annotation, and if there are any, notes behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Noted<'a> {
    pub(crate) annotation: Annotation<'a>,
    pub(crate) notes: Option<Notes<'a>>,
}

impl<'a> From<Annotation<'a>> for Noted<'a> {
    fn from(annotation: Annotation<'a>) -> Self {
        Self { annotation, notes: None }
    }
}

impl<'a> Noted<'a> {
    pub(crate) fn from_bytes(bytes: &'a [u8]) -> Result<Self, Error> {
        let (annotation, rest) = Annotation::decode(bytes)?;
        let notes = if rest.is_empty() { None } else { Some(Notes::from_bytes(rest)?) };
        Ok(Self { annotation, notes })
    }

    pub(crate) fn encode(&self) -> Result<Box<[u8]>, Error> {
        match &self.notes {
            Some(notes) => stored_as(&self.annotation, notes.encode(&mut [0; MAX_NOTES])?),
            None => stored_as(&self.annotation, &[]),
        }
    }
}

/// What was noted as it is stored, of notes that are encoded.
pub(crate) fn stored_as(annotation: &Annotation<'_>, notes: &[u8]) -> Result<Box<[u8]>, Error> {
    let mut buffer = [0; 256];
    Ok([annotation.encode(&mut buffer)?, notes].concat().into())
}

/// In the place of a digest of what nobody may know any more: it is the same as any.
pub(super) const NO_DIGEST: [u8; 16] = [0; 16];

/// The events of a frame that have an id of another vendor's.
pub(super) fn foreign_of(frame: &Frame<'_>) -> Result<Vec<Foreign>, Error> {
    let tenant: TenantId = frame.header().tenant;
    let (context, events) = frame.open()?;
    let mut foreign = Vec::new();
    let rewritten = frame.rewritten().is_some();
    for (index, event) in events.enumerate() {
        let event = event?;
        if let Some(id) = event.id {
            let digest = if rewritten { NO_DIGEST } else { content_digest(&event, &event.context.apply(&context)?) };
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

impl SetAside {
    /// Bytes that it keeps in memory.
    pub(super) fn size(&self) -> usize {
        let annotation = self.annotation.as_ref().map_or(0, |annotation| annotation.len());
        let asked = self.request.iter().flat_map(|asked| [&asked.origin, &asked.write_key]).flatten();
        self.body.len() + annotation + asked.map(String::len).sum::<usize>()
    }
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

/// What became of a frame's events. The counts add up to its count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// New, and on disk.
    pub(crate) stored: u32,
    /// New, and counted; nothing of them is kept, because the visitor has not agreed.
    pub(crate) suppressed: u32,
    /// On disk already.
    pub(crate) duplicate: u32,
    /// Of a known identity, with another content: in quarantine.
    pub(crate) conflict: u32,
    /// What should be in quarantine is not: that is full. Nothing may be acknowledged by this verdict.
    pub(crate) lost: bool,
}
