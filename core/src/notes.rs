//! What a first hop's rules made of a frame: facts that an [`Annotation`](crate::Annotation) has no room for, and what was done.

use serde::{Deserialize, Serialize};

use crate::{
    Campaign, Consent, Error,
    limits::{MAX_CLICK_ID, MAX_NOTE, MAX_NOTES, MAX_PARAMETER},
};

/// What a first hop's rules found in a request and did to its frame. At most [`MAX_NOTES`] bytes encoded. Field order is wire order
/// (`docs/wire-format.md` §9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes<'a> {
    /// Which rules: the first 4 bytes, little-endian, of the SHA-256 of their JSON; 0 for those that hold where nobody has set any.
    pub rules: u32,
    /// What was done.
    pub effects: Effects,
    /// Purposes that the request took back from what the frame's header grants.
    pub withdrawn: Consent,
    /// Where the visitor came from.
    pub referrer: ReferrerClass,
    /// The hop's clock less the producer's, as far as the rules let it count; 0 if they are near enough.
    pub skew_ms: i64,
    /// ISO 3166-2 subdivision without its country, or empty.
    pub subdivision: &'a str,
    /// City, or empty.
    pub city: &'a str,
    /// The campaign that the page's URL names.
    #[serde(borrow)]
    pub campaign: Option<Campaign<'a>>,
    /// An advertiser's id of the click, as `name=id`, or empty.
    pub click_id: &'a str,
}

impl<'a> Notes<'a> {
    /// Reads notes. What a later version has put behind them is skipped.
    ///
    /// # Errors
    /// [`Error::Payload`]; [`Error::TooLarge`] if they or one of their texts are over a bound.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_NOTES {
            return Err(Error::TooLarge);
        }
        let (notes, _): (Self, _) = postcard::take_from_bytes(bytes).map_err(|_| Error::Payload)?;
        notes.check().map(|()| notes)
    }

    /// Writes the notes and returns the used slice. [`MAX_NOTES`] bytes are enough for any.
    ///
    /// # Errors
    /// [`Error::BufferFull`]; [`Error::TooLarge`] if a text is over its bound.
    pub fn encode<'b>(&self, buf: &'b mut [u8]) -> Result<&'b [u8], Error> {
        self.check()?;
        postcard::to_slice(self, buf).map(|used| &*used).map_err(|_| Error::BufferFull)
    }

    fn check(&self) -> Result<(), Error> {
        let Campaign { source, medium, name, term, content } = self.campaign.unwrap_or_default();
        let parameter = [source, medium, name, term, content].iter().flatten().map(|text| text.len()).max();
        let within = self.subdivision.len().max(self.city.len()) <= MAX_NOTE
            && parameter.unwrap_or(0) <= MAX_PARAMETER
            && self.click_id.len() <= MAX_CLICK_ID;
        if within { Ok(()) } else { Err(Error::TooLarge) }
    }
}

// Four numbers, two kinds, two notes, five parameters, an id.
const _: () =
    assert!(5 + 3 + 1 + 1 + 10 + 2 * (1 + MAX_NOTE) + 1 + 5 * (2 + MAX_PARAMETER) + 2 + MAX_CLICK_ID <= MAX_NOTES);

/// What a hop's rules did: a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Effects(u16);

impl Effects {
    /// The request said `Sec-GPC: 1`.
    pub const GPC: Self = Self(1);
    /// The hop could not read or check the frame: the notes are of its request, and the rules for what is in it are still to be applied.
    pub const UNREAD: Self = Self(1 << 1);
    /// The frame is not the producer's bytes any more. Its header's identity, `created`, `dropped` and consent are; its events are told
    /// from others by their identity alone.
    pub const REWRITTEN: Self = Self(1 << 2);
    /// Nothing of the events is there: the visitor has not agreed. Their numbers count as seen.
    pub const SUPPRESSED: Self = Self(1 << 3);
    /// What says who the visitor is was taken out: the visitor has not agreed.
    pub const ANONYMISED: Self = Self(1 << 4);
    /// Values were taken out by a list.
    pub const REMOVED: Self = Self(1 << 5);
    /// Values were replaced by their keyed hash.
    pub const HASHED: Self = Self(1 << 6);
    /// Click ids were cut out of URLs.
    pub const CUT_CLICK_IDS: Self = Self(1 << 7);
    /// The source stands for the visit, since the producer names none.
    pub const SESSION: Self = Self(1 << 8);

    /// The names of the effects, in the order of their bits.
    pub const NAMES: [(Self, &'static str); 9] = [
        (Self::GPC, "gpc"),
        (Self::UNREAD, "unread"),
        (Self::REWRITTEN, "rewritten"),
        (Self::SUPPRESSED, "suppressed"),
        (Self::ANONYMISED, "anonymised"),
        (Self::REMOVED, "removed"),
        (Self::HASHED, "hashed"),
        (Self::CUT_CLICK_IDS, "cut-click-ids"),
        (Self::SESSION, "session"),
    ];

    /// Whether all of `effects` are among these.
    #[must_use]
    pub const fn contains(self, effects: Self) -> bool {
        self.0 & effects.0 == effects.0
    }

    /// These and `effects`.
    #[must_use]
    pub const fn with(self, effects: Self) -> Self {
        Self(self.0 | effects.0)
    }

    /// These without `effects`.
    #[must_use]
    pub const fn without(self, effects: Self) -> Self {
        Self(self.0 & !effects.0)
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What a hop says of a frame that its rules have written anew, in an extension of that frame. Its events are told from others by their
/// identity alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// Whether the signature of the producer's session was checked, which is not there any more.
    pub trusted: bool,
    /// Whether nothing of the events is there.
    pub suppressed: bool,
}

impl Rewritten {
    /// The extension's value.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 1] {
        [self.trusted as u8 | (self.suppressed as u8) << 1]
    }

    /// Reads the extension's value.
    ///
    /// # Errors
    /// [`Error::Extension`].
    pub const fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        match *bytes {
            [bits @ 0..4] => Ok(Self { trusted: bits & 1 != 0, suppressed: bits & 2 != 0 }),
            _ => Err(Error::Extension),
        }
    }
}

/// How a visitor came to the page, by its referrer and its URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ReferrerClass {
    /// Nobody said which page it was.
    #[default]
    Unknown,
    /// No page before it.
    Direct,
    /// A page of the same site.
    Internal,
    /// A search engine.
    Search,
    /// A social network.
    Social,
    /// A mail reader.
    Email,
    /// An AI assistant.
    AiAssistant,
    /// A link that names a campaign.
    Campaign,
    /// Another site.
    Other,
}

impl ReferrerClass {
    /// The class's name in tables; none for what is not known.
    #[must_use]
    pub const fn as_str(self) -> Option<&'static str> {
        Some(match self {
            Self::Unknown => return None,
            Self::Direct => "direct",
            Self::Internal => "internal",
            Self::Search => "search",
            Self::Social => "social",
            Self::Email => "email",
            Self::AiAssistant => "ai-assistant",
            Self::Campaign => "campaign",
            Self::Other => "other",
        })
    }
}
