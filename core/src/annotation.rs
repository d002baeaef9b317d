//! What a first hop notes on a frame: facts of the request that the producer cannot know or must not say.

use serde::{Deserialize, Serialize};

use crate::{Error, limits::MAX_NOTE};

/// What a first hop notes on a frame. Its texts are at most [`MAX_NOTE`] bytes each. Field order is wire order
/// (`docs/wire-format.md` §9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation<'a> {
    /// The hop's clock when the frame came in, in milliseconds since the Unix epoch.
    pub received_ms: u64,
    /// Point of presence: the data centre's code, or empty.
    pub pop: &'a str,
    /// ISO 3166-1 alpha-2, or empty.
    pub country: &'a str,
    /// The sender's network: less than an address, and all of it that is kept.
    pub network: Network,
    /// What kind of client it was.
    pub agent: AgentClass,
    /// Who was at the other end.
    pub traffic: Traffic,
    /// How much the frame proves of itself.
    pub trust: Trust,
    /// Why the hop would not vouch for the frame ([`Error::code`](crate::Error::code)), or empty.
    pub refused: &'a str,
}

impl<'a> Annotation<'a> {
    /// Reads an annotation from the front of some bytes and returns the rest.
    ///
    /// # Errors
    /// [`Error::Payload`]; [`Error::TooLarge`] if a text is over [`MAX_NOTE`].
    pub fn decode(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Error> {
        let (annotation, rest): (Self, _) = postcard::take_from_bytes(bytes).map_err(|_| Error::Payload)?;
        annotation.check().map(|()| (annotation, rest))
    }

    /// Writes the annotation and returns the used slice.
    ///
    /// # Errors
    /// [`Error::BufferFull`]; [`Error::TooLarge`] if a text is over [`MAX_NOTE`].
    pub fn encode<'b>(&self, buf: &'b mut [u8]) -> Result<&'b [u8], Error> {
        self.check()?;
        postcard::to_slice(self, buf).map(|used| &*used).map_err(|_| Error::BufferFull)
    }

    /// An annotation that stands alone: nothing may follow it.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, Error> {
        let (annotation, rest) = Self::decode(bytes)?;
        if rest.is_empty() { Ok(annotation) } else { Err(Error::Payload) }
    }

    fn check(&self) -> Result<(), Error> {
        let longest = self.pop.len().max(self.country.len()).max(self.refused.len());
        if longest > MAX_NOTE { Err(Error::TooLarge) } else { Ok(()) }
    }
}

/// A network prefix: /24 for IPv4, /48 for IPv6. The rest of an address never reaches a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Network {
    /// Not known.
    #[default]
    Unknown,
    /// The first 24 bits of an IPv4 address.
    V4([u8; 3]),
    /// The first 48 bits of an IPv6 address.
    V6([u8; 6]),
}

impl Network {
    /// Cuts an address to its network. IPv4 mapped into IPv6 is IPv4; so is 6to4 (RFC 3056), whose first 48 bits hold a
    /// whole IPv4 address.
    #[must_use]
    pub const fn of(address: core::net::IpAddr) -> Self {
        match address.to_canonical() {
            core::net::IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Self::V4([a, b, c])
            }
            core::net::IpAddr::V6(address) => {
                let [a, b, c, d, e, f, ..] = address.octets();
                if a == 0x20 && b == 0x02 { Self::V4([c, d, e]) } else { Self::V6([a, b, c, d, e, f]) }
            }
        }
    }
}

impl core::fmt::Display for Network {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Unknown => Ok(()),
            Self::V4([a, b, c]) => write!(f, "{a}.{b}.{c}.0/24"),
            Self::V6([a, b, c, d, e, g]) => {
                let pair = |high, low| u16::from_be_bytes([high, low]);
                let network = core::net::Ipv6Addr::new(pair(a, b), pair(c, d), pair(e, g), 0, 0, 0, 0, 0);
                write!(f, "{network}/48")
            }
        }
    }
}

/// What kind of client sent the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AgentClass {
    /// Not known.
    #[default]
    Unknown,
    /// A browser on a desktop.
    Desktop,
    /// A browser on a phone.
    Phone,
    /// A browser on a tablet.
    Tablet,
    /// A server-side SDK or an HTTP library.
    Library,
    /// A declared robot.
    Robot,
    /// A browser on a television or a game console.
    Tv,
}

impl AgentClass {
    /// The class's name in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Desktop => "desktop",
            Self::Phone => "phone",
            Self::Tablet => "tablet",
            Self::Library => "library",
            Self::Robot => "robot",
            Self::Tv => "tv",
        }
    }
}

/// Who was at the other end, as far as the request shows. Marked, never dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Traffic {
    /// Nothing speaks for or against it.
    #[default]
    Unknown,
    /// A declared robot.
    Bot,
    /// A browser that loads ahead of its user.
    Prefetch,
    /// A browser on a page, that declares nothing else. No proof of a person.
    Human,
    /// A declared agent of an AI's: it trains one, or acts for somebody who asked one.
    AiAgent,
    /// A tool that looks for weaknesses, or maps the net, and says so.
    Scanner,
}

impl Traffic {
    /// The verdict's name in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Bot => "bot",
            Self::Prefetch => "prefetch",
            Self::Human => "human",
            Self::AiAgent => "ai-agent",
            Self::Scanner => "scanner",
        }
    }
}

/// How much a frame proves of itself. None of it proves that a person did it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Trust {
    /// The hop could not check the frame; whoever has the key can.
    #[default]
    Unchecked,
    /// A write key that anyone can read on the page.
    WriteKey,
    /// The signature of a session that a first hop granted to this source and origin.
    Session,
}

impl Trust {
    /// The level's name in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::WriteKey => "write-key",
            Self::Session => "session",
        }
    }
}
