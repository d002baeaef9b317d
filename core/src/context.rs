//! What the events of a frame share: who, where, on what. Written once per frame; an event writes what differs.

use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{
    Error, Properties,
    codec::{Reader, Writer},
    limits::{MAX_CONTEXT, MAX_EVENT, MAX_SHARED},
};

/// What the events of a frame share: at most [`MAX_CONTEXT`] bytes encoded.
///
/// Field order is wire order (`docs/wire-format.md` §7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Context<'a> {
    /// An id for a visitor who is not signed in.
    pub anonymous_id: Option<&'a str>,
    /// The id of a signed-in user.
    pub user_id: Option<&'a str>,
    /// The visit.
    pub session_id: Option<&'a str>,
    /// BCP 47 language tag.
    pub locale: Option<&'a str>,
    /// IANA time zone name.
    pub timezone: Option<&'a str>,
    /// Only from SDKs that send it in the body; a page's stands in the request and becomes a class.
    pub user_agent: Option<&'a str>,
    /// URL of the page.
    pub url: Option<&'a str>,
    /// Title of the page.
    pub title: Option<&'a str>,
    /// Where the visitor came from.
    pub referrer: Option<&'a str>,
    /// Screen of the device.
    pub screen: Option<Screen>,
    /// Campaign that led here.
    #[serde(borrow)]
    pub campaign: Option<Campaign<'a>>,
    /// All else that an SDK calls context.
    pub extra: Properties<'a>,
}

/// Screen size in CSS pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Screen {
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

/// The `utm_` parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Campaign<'a> {
    /// `utm_source`
    pub source: Option<&'a str>,
    /// `utm_medium`
    pub medium: Option<&'a str>,
    /// `utm_campaign`
    pub name: Option<&'a str>,
    /// `utm_term`
    pub term: Option<&'a str>,
    /// `utm_content`
    pub content: Option<&'a str>,
}

impl<'a> Context<'a> {
    /// Nothing is known.
    pub const EMPTY: Self = Self {
        anonymous_id: None,
        user_id: None,
        session_id: None,
        locale: None,
        timezone: None,
        user_agent: None,
        url: None,
        title: None,
        referrer: None,
        screen: None,
        campaign: None,
        extra: Properties::EMPTY,
    };

    /// This context with everything that `delta` sets in place of its own.
    #[must_use]
    pub fn with(&self, delta: &Self) -> Self {
        Self {
            anonymous_id: delta.anonymous_id.or(self.anonymous_id),
            user_id: delta.user_id.or(self.user_id),
            session_id: delta.session_id.or(self.session_id),
            locale: delta.locale.or(self.locale),
            timezone: delta.timezone.or(self.timezone),
            user_agent: delta.user_agent.or(self.user_agent),
            url: delta.url.or(self.url),
            title: delta.title.or(self.title),
            referrer: delta.referrer.or(self.referrer),
            screen: delta.screen.or(self.screen),
            campaign: delta.campaign.or(self.campaign),
            extra: if delta.extra.is_empty() { self.extra } else { delta.extra },
        }
    }

    /// Writes the context that a frame's events share.
    pub(crate) fn encode_shared(&self, writer: &mut Writer<'_>) -> Result<(), Error> {
        let start = writer.position();
        self.encode(writer)?;
        if writer.position() - start > MAX_CONTEXT { Err(Error::TooLarge) } else { Ok(()) }
    }

    /// Reads the context that this many events share from the front of their frame's payload, and returns the rest.
    pub(crate) fn decode_shared(payload: &'a [u8], events: u16) -> Result<(Self, &'a [u8]), Error> {
        let mut reader = Reader::new(payload);
        let context = Self::decode(&mut reader)?;
        let rest = reader.rest();
        let encoded = &payload[..payload.len() - rest.len()];
        // So many may share any context of that length; only for more its bytes are looked at.
        let any = MAX_SHARED / (1 + 6 * encoded.len());
        if encoded.len() > MAX_CONTEXT || usize::from(events) > any && usize::from(events) > most_sharing(encoded) {
            return Err(Error::TooLarge);
        }
        Ok((context, rest))
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), Error> {
        for text in [
            self.anonymous_id,
            self.user_id,
            self.session_id,
            self.locale,
            self.timezone,
            self.user_agent,
            self.url,
            self.title,
            self.referrer,
        ] {
            writer.option_str(text)?;
        }
        match self.screen {
            None => writer.byte(0)?,
            Some(screen) => {
                writer.byte(1)?;
                writer.varint(screen.width.into())?;
                writer.varint(screen.height.into())?;
            }
        }
        match self.campaign {
            None => writer.byte(0)?,
            Some(campaign) => {
                writer.byte(1)?;
                for text in [campaign.source, campaign.medium, campaign.name, campaign.term, campaign.content] {
                    writer.option_str(text)?;
                }
            }
        }
        self.extra.encode(writer)
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, Error> {
        // Fields are evaluated as they stand here.
        Ok(Self {
            anonymous_id: text(reader)?,
            user_id: text(reader)?,
            session_id: text(reader)?,
            locale: text(reader)?,
            timezone: text(reader)?,
            user_agent: text(reader)?,
            url: text(reader)?,
            title: text(reader)?,
            referrer: text(reader)?,
            screen: reader.option(|reader| Ok(Screen { width: pixels(reader)?, height: pixels(reader)? }))?,
            campaign: reader.option(|reader| {
                Ok(Campaign {
                    source: text(reader)?,
                    medium: text(reader)?,
                    name: text(reader)?,
                    term: text(reader)?,
                    content: text(reader)?,
                })
            })?,
            extra: Properties::decode(reader)?,
        })
    }
}

/// How many events may share this encoded context, at most [`MAX_SHARED`] bytes of it together. Never 0: the worst
/// context there is comes to far less.
pub(crate) fn most_sharing(context: &[u8]) -> usize {
    let written = context.iter().fold(1, |sum, &byte| sum + if byte < 0x20 { 6 } else { 1 });
    MAX_SHARED / written
}

const _: () = assert!(6 * MAX_CONTEXT < MAX_SHARED);

fn text<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a str>, Error> {
    reader.option(Reader::str)
}

fn pixels(reader: &mut Reader<'_>) -> Result<u32, Error> {
    reader.varint()?.try_into().map_err(|_| Error::Payload)
}

/// What one event's context adds to its frame's or replaces there: an encoded [`Context`], or nothing. Always
/// well-formed: whoever makes one has checked it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ContextDelta<'a>(&'a [u8]);

impl<'a> ContextDelta<'a> {
    /// Nothing differs.
    pub const NONE: Self = Self(&[]);

    /// Encodes what differs into the buffer.
    ///
    /// # Errors
    /// [`Error::BufferFull`]; [`Error::TooLarge`] over [`MAX_EVENT`].
    pub fn encode(delta: &Context<'_>, buf: &'a mut [u8]) -> Result<Self, Error> {
        let mut writer = Writer::new(buf, 0);
        delta.encode(&mut writer)?;
        let end = writer.position();
        if end > MAX_EVENT { Err(Error::TooLarge) } else { Ok(Self(&buf[..end])) }
    }

    /// Whether the event shares its frame's context whole.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// The event's whole context: its frame's, with what differs put over it.
    ///
    /// # Errors
    /// None: a delta is checked when it is made.
    pub fn apply(&self, frame: &Context<'a>) -> Result<Context<'a>, Error> {
        if self.is_none() {
            return Ok(*frame);
        }
        let mut reader = Reader::new(self.0);
        let delta = Context::decode(&mut reader)?;
        if reader.is_empty() { Ok(frame.with(&delta)) } else { Err(Error::Payload) }
    }

    /// Of bytes from outside.
    #[inline]
    pub(crate) fn from_encoded(bytes: &'a [u8]) -> Result<Self, Error> {
        let delta = Self(bytes);
        if bytes.len() > MAX_EVENT {
            return Err(Error::TooLarge);
        }
        if !delta.is_none() {
            delta.apply(&Context::default())?;
        }
        Ok(delta)
    }

    pub(crate) const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Debug for ContextDelta<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.apply(&Context::default()) {
            Ok(context) if !self.is_none() => context.fmt(f),
            _ => f.write_str("ContextDelta::NONE"),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ContextDelta<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_encoded(Deserialize::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
