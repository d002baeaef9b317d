//! Bounds on everything that comes from outside. Over a bound is an [`Error`](crate::Error), never a panic.

/// Largest frame in bytes, header and tag included.
pub const MAX_FRAME: usize = 512 * 1024;
/// Largest envelope in bytes: a frame and what a hop adds to it.
pub const MAX_ENVELOPE: usize = MAX_FRAME + 2048;
/// Largest header with its extensions, in bytes.
pub const MAX_HEADER: usize = 1024;
/// Most events in a frame. What a small frame may grow to where each event is a row, [`MAX_SHARED`] bounds.
pub const MAX_EVENTS: u16 = 4096;
/// Highest sequence number of a frame, and one more than that of an event: what a signed 64-bit column holds.
pub const MAX_SEQ: u64 = i64::MAX as u64;
/// Largest encoded context that the events of a frame share, in bytes.
pub const MAX_CONTEXT: usize = 16 * 1024;
/// Most that a frame's context may come to where it stands beside each of the events: its encoded bytes times their
/// number, those under 0x20 counted six times, since that is what JSON makes of a control character (2 MiB).
pub const MAX_SHARED: usize = 4 * MAX_FRAME;
/// Largest encoded event in bytes, what its context adds included.
pub const MAX_EVENT: usize = 32 * 1024;
/// Longest event name, in bytes of UTF-8.
pub const MAX_NAME: usize = 512;
/// Longest id given by a foreign SDK, in bytes of UTF-8.
pub const MAX_FOREIGN_ID: usize = 256;
/// Longest write key in bytes.
pub const MAX_WRITE_KEY: usize = 64;
/// Longest text in an annotation, in bytes of UTF-8.
pub const MAX_NOTE: usize = 64;
/// Longest notes of a hop's rules, in bytes: with the header around them they are within [`MAX_HEADER`].
pub const MAX_NOTES: usize = 896;
/// Longest campaign parameter in notes, in bytes of UTF-8.
pub const MAX_PARAMETER: usize = 96;
/// Longest click id in notes, its name included, in bytes of UTF-8.
pub const MAX_CLICK_ID: usize = 208;
/// Deepest nesting of maps and lists in properties; the properties themselves are depth 0.
pub const MAX_DEPTH: usize = 8;
/// Most values in one event's properties, nested ones included.
pub const MAX_VALUES: usize = 1024;
/// Longest session a first hop may grant, in milliseconds (24 h).
pub const MAX_SESSION_MS: u64 = 24 * 3600 * 1000;
/// How long after its session ended a delayed frame is still accepted, in milliseconds (7 days).
pub const SESSION_GRACE_MS: u64 = 7 * 24 * 3600 * 1000;
/// How long a root must verify after it stopped signing, in milliseconds: the longest session granted under it by a
/// hop whose lease was an epoch old, and the grace after that.
pub const ROOT_GRACE_MS: u64 = MAX_SESSION_MS + SESSION_GRACE_MS + 2 * crate::Epoch::MILLIS;
