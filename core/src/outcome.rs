//! What becomes of an event: exactly one outcome each.

use core::fmt;

use crate::Error;

/// The one thing that becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// In the journal.
    Stored,
    /// In the journal already.
    Duplicate,
    /// Set aside with a reason; can be listed, fixed and replayed.
    Quarantined(Reason),
    /// Not kept, because the visitor has not agreed.
    Suppressed,
    /// Given up by the producer, which told us the count.
    Dropped,
    /// Thrown away from quarantine, by somebody who had looked at it.
    Discarded,
    /// Erased on request; its count stays.
    Erased,
}

impl Outcome {
    /// The outcome's name in metrics and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Duplicate => "duplicate",
            Self::Quarantined(_) => "quarantined",
            Self::Suppressed => "suppressed",
            Self::Dropped => "dropped",
            Self::Discarded => "discarded",
            Self::Erased => "erased",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why something is in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// It failed a check of the core's.
    Refused(Error),
    /// Same identity as a stored event, different content. Both are kept.
    Conflict,
    /// JSON that is not what its vendor's format says.
    Json,
}

impl Reason {
    /// The reason's name in problem types, metrics and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused(error) => error.code(),
            Self::Conflict => "conflict",
            Self::Json => "malformed-json",
        }
    }
}

impl From<Error> for Reason {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
