//! Segment's HTTP API: `POST /v1/{track,identify,page,screen,group,alias,batch}` and the browser SDK's short paths.

use firsthop_core::EventKind;

/// Largest body, in bytes: what Segment takes for a batch.
pub const MAX_BODY: usize = 512_000;
/// Largest event, in bytes of JSON.
pub const MAX_EVENT: usize = 32 * 1024;
/// Most events of one request.
pub const MAX_BATCH: usize = 2_500;
/// Deepest nesting of JSON in an event; what is stored as properties has the tighter bound
/// [`limits::MAX_DEPTH`](firsthop_core::limits::MAX_DEPTH).
pub const MAX_DEPTH: usize = 32;

/// Which of the paths was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// `/v1/track`, `/v1/t`
    Track,
    /// `/v1/identify`, `/v1/i`
    Identify,
    /// `/v1/page`, `/v1/p`
    Page,
    /// `/v1/screen`, `/v1/s`
    Screen,
    /// `/v1/group`, `/v1/g`
    Group,
    /// `/v1/alias`, `/v1/a`
    Alias,
    /// `/v1/batch`, `/v1/b`: each message says its own type.
    Batch,
}

impl Call {
    /// The call of a path behind `/v1/`.
    #[must_use]
    pub fn from_path(name: &str) -> Option<Self> {
        Some(match name {
            "track" | "t" => Self::Track,
            "identify" | "i" => Self::Identify,
            "page" | "p" => Self::Page,
            "screen" | "s" => Self::Screen,
            "group" | "g" => Self::Group,
            "alias" | "a" => Self::Alias,
            "batch" | "b" => Self::Batch,
            _ => return None,
        })
    }

    /// The kind of the one event, or none for a batch.
    #[must_use]
    pub const fn kind(self) -> Option<EventKind> {
        Some(match self {
            Self::Track => EventKind::Track,
            Self::Identify => EventKind::Identify,
            Self::Page => EventKind::Page,
            Self::Screen => EventKind::Screen,
            Self::Group => EventKind::Group,
            Self::Alias => EventKind::Alias,
            Self::Batch => return None,
        })
    }
}
