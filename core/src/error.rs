//! The one error of the core.

use core::fmt;

/// What was wrong with the bytes, a key or a buffer.
///
/// Copy and without strings: an adapter maps it to a status, a problem type and a log level in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error {
    /// Fewer bytes than the lengths in the header promise.
    Truncated,
    /// More bytes than the lengths in the header promise.
    TrailingBytes,
    /// Over a bound of [`limits`](crate::limits) that is not named by another error.
    TooLarge,
    /// The first four bytes are not `FHOP`.
    Magic,
    /// A version that this build does not know.
    Version,
    /// An unknown flag, flags that exclude each other, or a reserved field that is not zero.
    Reserved,
    /// The payload is sealed, and was not opened: only who has the region's key can.
    Sealed,
    /// An unknown algorithm, or one that this build lacks.
    Algorithm,
    /// The region is not two ASCII capital letters or `--`.
    Region,
    /// The header's length is under the minimum, over the bound, or cuts an extension.
    HeaderLength,
    /// An extension is malformed or stands twice.
    Extension,
    /// The CRC-32 does not match: the bytes changed on the way.
    Crc,
    /// The tag does not match: the bytes or the key are not what was signed.
    Signature,
    /// No key with this id.
    UnknownKey,
    /// The epoch is outside the accepted window.
    Epoch,
    /// The session ended, and the grace period for delayed frames too.
    SessionExpired,
    /// The session grant is malformed, missing, or longer than a first hop may grant.
    Session,
    /// The frame comes from an origin that its session, or the tenant, does not name.
    Origin,
    /// The write key is malformed or not one of the tenant's.
    WriteKey,
    /// The count in the header and the events in the payload differ, or it or a sequence number is over its bound.
    Count,
    /// The payload is not what the header says: a bad varint, UTF-8, tag or structure.
    Payload,
    /// Properties are nested deeper than [`MAX_DEPTH`](crate::limits::MAX_DEPTH).
    TooDeep,
    /// The caller's buffer is full; nothing was written.
    BufferFull,
    /// A fixed-size ring is full.
    RingFull,
    /// A text that should be an id, a key or a region is not.
    Parse,
    /// A call that this state of a writer does not allow.
    State,
    /// The seal does not open: it was made for another key, tenant or region, or header or payload were changed since.
    Seal,
}

impl Error {
    /// The error's name in problem types, metrics and logs: lower case, hyphenated, stable.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::TrailingBytes => "trailing-bytes",
            Self::TooLarge => "too-large",
            Self::Magic => "bad-magic",
            Self::Version => "unknown-version",
            Self::Reserved => "reserved-bits",
            Self::Sealed => "sealed-unsupported",
            Self::Seal => "bad-seal",
            Self::Algorithm => "unknown-algorithm",
            Self::Region => "bad-region",
            Self::HeaderLength => "bad-header-length",
            Self::Extension => "bad-extension",
            Self::Crc => "bad-crc",
            Self::Signature => "bad-signature",
            Self::UnknownKey => "unknown-key",
            Self::Epoch => "epoch-out-of-range",
            Self::SessionExpired => "session-expired",
            Self::Session => "bad-session",
            Self::Origin => "wrong-origin",
            Self::WriteKey => "wrong-write-key",
            Self::Count => "bad-count",
            Self::Payload => "malformed-payload",
            Self::TooDeep => "too-deep",
            Self::BufferFull => "buffer-full",
            Self::RingFull => "ring-full",
            Self::Parse => "unparseable",
            Self::State => "wrong-state",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "fewer bytes than the header promises",
            Self::TrailingBytes => "more bytes than the header promises",
            Self::TooLarge => "over a size limit",
            Self::Magic => "not a Firsthop frame",
            Self::Version => "unknown frame version",
            Self::Reserved => "unknown flags or non-zero reserved field",
            Self::Sealed => "sealed, and the region's key is not here",
            Self::Seal => "seal does not open with the region's key",
            Self::Algorithm => "unknown or unavailable algorithm",
            Self::Region => "region is not two capital letters or --",
            Self::HeaderLength => "header length out of bounds",
            Self::Extension => "malformed or repeated extension",
            Self::Crc => "CRC-32 does not match",
            Self::Signature => "signature does not match",
            Self::UnknownKey => "unknown key id",
            Self::Epoch => "epoch outside the accepted window",
            Self::SessionExpired => "session expired",
            Self::Session => "malformed or missing session grant",
            Self::Origin => "origin not allowed",
            Self::WriteKey => "wrong write key",
            Self::Count => "event count does not match the header",
            Self::Payload => "malformed payload",
            Self::TooDeep => "properties nested too deeply",
            Self::BufferFull => "buffer full",
            Self::RingFull => "ring full",
            Self::Parse => "not a valid id",
            Self::State => "call not allowed in this state",
        })
    }
}

impl core::error::Error for Error {}
