//! What the events of a frame share: who, where, on what. Written once per frame; an event writes what differs.

use serde::{Deserialize, Serialize};

use crate::{Error, Properties, codec::Writer, limits::MAX_EVENT};

/// What the events of a frame share.
///
/// Field order is wire order (`docs/wire-format.md` §5).
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

    pub(crate) fn encode(&self, writer: &mut Writer<'_>) -> Result<(), Error> {
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

    /// Reads a context from the front of a payload and returns the rest.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Error> {
        let (context, rest): (Self, _) = postcard::take_from_bytes(bytes).map_err(|_| Error::Payload)?;
        context.extra.check()?;
        Ok((context, rest))
    }
}

/// What one event's context adds to its frame's or replaces there: an encoded [`Context`], or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContextDelta<'a>(&'a [u8]);

impl<'a> ContextDelta<'a> {
    /// Nothing differs.
    pub const NONE: Self = Self(&[]);

    /// Encodes what differs into the buffer.
    ///
    /// # Errors
    /// [`Error::BufferFull`] if it does not fit.
    pub fn encode(delta: &Context<'_>, buf: &'a mut [u8]) -> Result<Self, Error> {
        let mut writer = Writer::new(buf, 0);
        delta.encode(&mut writer)?;
        let end = writer.position();
        Ok(Self(&buf[..end]))
    }

    /// Whether the event shares its frame's context whole.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// The event's whole context: its frame's, with what differs put over it.
    ///
    /// # Errors
    /// [`Error::Payload`] if the delta is malformed; never for an event that [`Events`](crate::Events) returned.
    pub fn apply(&self, frame: &Context<'a>) -> Result<Context<'a>, Error> {
        if self.is_none() {
            return Ok(*frame);
        }
        let (delta, rest) = Context::decode(self.0)?;
        if rest.is_empty() { Ok(frame.with(&delta)) } else { Err(Error::Payload) }
    }

    pub(crate) const fn from_encoded(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.0.len() > MAX_EVENT {
            return Err(Error::TooLarge);
        }
        self.apply(&Context::default()).map(|_| ())
    }

    pub(crate) const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}
