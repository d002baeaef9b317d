//! One tracking event.

use serde::{Deserialize, Serialize};

use crate::{
    ContextDelta, Error, Properties, Timestamp,
    codec::{Reader, Writer, same},
    limits::{MAX_EVENT, MAX_FOREIGN_ID, MAX_NAME},
};

/// What kind of call made the event; the six that the analytics world shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventKind {
    /// Something happened; the name says what.
    #[default]
    Track,
    /// A page was seen; the name is the page's.
    Page,
    /// A screen of an app was seen; the name is the screen's.
    Screen,
    /// The user is known now; the properties are traits of the user.
    Identify,
    /// The user belongs to a group; the name is the group's id, the properties are its traits.
    Group,
    /// Two ids are one user; the name is the previous id.
    Alias,
}

impl EventKind {
    /// All kinds, in wire order.
    pub const ALL: [Self; 6] = [Self::Track, Self::Page, Self::Screen, Self::Identify, Self::Group, Self::Alias];

    /// The kind of a wire number.
    #[must_use]
    pub fn from_wire(number: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// The call's name: `track`, `page`, …
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Track => "track",
            Self::Page => "page",
            Self::Screen => "screen",
            Self::Identify => "identify",
            Self::Group => "group",
            Self::Alias => "alias",
        }
    }
}

/// Whose format an event arrived in, if not our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Vendor {
    /// Segment's HTTP API; the id is `messageId`.
    Segment,
}

impl Vendor {
    /// The vendor's name in digests, metrics and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Segment => "segment",
        }
    }
}

/// The id that another vendor's SDK gave the event. Where there is one, it is the event's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ForeignId<'a> {
    /// Whose SDK.
    pub vendor: Vendor,
    /// The id as it stood there.
    pub id: &'a str,
}

impl<'a> ForeignId<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Error> {
        let vendor = match reader.varint()? {
            0 => Vendor::Segment,
            _ => return Err(Error::Payload),
        };
        Ok(Self { vendor, id: reader.str()? })
    }
}

/// One tracking event, borrowed from the caller or from the bytes it was read from.
///
/// At most [`MAX_EVENT`] bytes encoded. Field order is wire order (`docs/wire-format.md` §8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Event<'a> {
    /// Which call made it.
    pub kind: EventKind,
    /// When it happened, in milliseconds after the frame's `created`.
    pub offset_ms: i64,
    /// The id that another vendor's SDK gave it.
    #[serde(borrow)]
    pub id: Option<ForeignId<'a>>,
    /// What happened, or what [`EventKind`] says that the name is.
    pub name: &'a str,
    /// What its context adds to the frame's.
    pub context: ContextDelta<'a>,
    /// All that the event says of itself.
    pub properties: Properties<'a>,
}

impl<'a> Event<'a> {
    /// When it happened, by the producer's clock.
    #[must_use]
    pub const fn time(&self, created: Timestamp) -> Timestamp {
        created.offset(self.offset_ms)
    }

    pub(crate) fn encode(&self, writer: &mut Writer<'_>) -> Result<(), Error> {
        if self.name.len() > MAX_NAME || self.id.is_some_and(|id| id.id.len() > MAX_FOREIGN_ID) {
            return Err(Error::TooLarge);
        }
        let start = writer.position();
        writer.byte(self.kind as u8)?;
        writer.zigzag(self.offset_ms)?;
        match self.id {
            None => writer.byte(0)?,
            Some(foreign) => {
                writer.byte(1)?;
                writer.byte(foreign.vendor as u8)?;
                writer.bytes(foreign.id.as_bytes())?;
            }
        }
        writer.bytes(self.name.as_bytes())?;
        writer.bytes(self.context.as_bytes())?;
        self.properties.encode(writer)?;
        if writer.position() - start > MAX_EVENT { Err(Error::TooLarge) } else { Ok(()) }
    }

    /// Reads one event and checks everything in it, so that what comes after needs no second look.
    #[cfg_attr(not(target_arch = "wasm32"), inline(always))]
    pub(crate) fn decode(reader: &mut Reader<'a>, names: &mut Names<'a>) -> Result<Self, Error> {
        let start = reader.rest().len();
        let event = Self {
            // All numbers of kinds are one byte.
            kind: EventKind::from_wire(reader.byte()?.into()).ok_or(Error::Payload)?,
            offset_ms: reader.zigzag()?,
            id: reader.option(ForeignId::decode)?,
            name: names.read(reader)?,
            context: ContextDelta::from_encoded(reader.bytes()?)?,
            properties: Properties::decode(reader)?,
        };
        if event.name.len() > MAX_NAME
            || event.id.is_some_and(|id| id.id.len() > MAX_FOREIGN_ID)
            || start - reader.rest().len() > MAX_EVENT
        {
            return Err(Error::TooLarge);
        }
        Ok(event)
    }
}

/// Names that were read. They come again and again, and what is the same needs no check of its own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Names<'a>([&'a str; 8]);

impl<'a> Names<'a> {
    #[inline(always)]
    fn read(&mut self, reader: &mut Reader<'a>) -> Result<&'a str, Error> {
        let bytes = reader.bytes()?;
        // One place for each length, more or less.
        let known = &mut self.0[bytes.len() % 8];
        if !same(bytes, known.as_bytes()) {
            *known = core::str::from_utf8(bytes).map_err(|_| Error::Payload)?;
        }
        Ok(known)
    }
}
