//! Firsthop's core: encode, deduplicate and sign tracking events.
//!
//! ```text
//!   Event ──► FrameWriter ──► frame bytes ──► Frame::parse ──► verify ──► events
//!     ▲          │ sign (MacKey)                 lengths, CRC     MAC        │
//!   Properties   ▼                                                          ▼
//!             Keyring → LeaseKey → session key            SeqWindow, DedupWindow → Outcome
//! ```
//!
//! The crate is `no_std`, needs no allocator and does no I/O: clock, randomness, ids and buffers are
//! arguments. Everything that comes from outside is bounded before it is used, in one order:
//! lengths, then CRC, then signature, then decoding.
//!
//! The bytes are specified in [`docs/wire-format.md`]; the vectors in `tests/vectors/` bind every implementation to
//! them.
//!
//! [`docs/wire-format.md`]: https://github.com/firsthop/firsthop/blob/main/docs/wire-format.md
//!
//! # Example
//!
//! ```
//! use firsthop_core::{
//!     Alg, Context, Event, EventKind, Frame, FrameWriter, Header, MacKey, PropertiesWriter, SourceId,
//!     TenantId, Timestamp, Value,
//! };
//!
//! # fn main() -> Result<(), firsthop_core::Error> {
//! // The properties of one event, written into two buffers of the caller's.
//! let (mut shape, mut text) = ([0; 256], [0; 1024]);
//! let mut properties = PropertiesWriter::new(&mut shape[..], &mut text[..]);
//! properties.put("sku", Value::Str("G-32"))?;
//! properties.put("price", Value::F64(18.99))?;
//!
//! // A frame of one event, signed with a session key.
//! let key = MacKey::new(Alg::HmacSha256Trunc128, &[7; 32])?;
//! let mut header = Header::new(TenantId::new(1), SourceId::new([9; 16]), Timestamp::from_millis(1_700_000_000_000));
//! header.alg = Alg::HmacSha256Trunc128;
//! let mut buffer = [0; 2048];
//! let mut writer = FrameWriter::new(&mut buffer[..], &header)?;
//! writer.context(&Context { locale: Some("de-CH"), ..Context::default() })?;
//! writer.event(&Event { kind: EventKind::Track, name: "Product Viewed", properties: properties.finish()?, ..Event::default() })?;
//! let bytes = writer.finish(&key)?;
//!
//! // The other side: lengths and CRC, then the signature, then the events.
//! let frame = Frame::parse(bytes)?;
//! frame.verify(&key)?;
//! let (context, mut events) = frame.open()?;
//! assert_eq!(context.locale, Some("de-CH"));
//! let event = events.next().expect("one event")?;
//! assert_eq!(event.name, "Product Viewed");
//! assert_eq!(event.properties.get("price"), Some(Value::F64(18.99)));
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! Features only add; none is on by default.
//!
//! | feature | adds |
//! |---|---|
//! | `crc32fast` | CRC-32 by the processor's own instructions, and with `std` on Unix and Windows, to see which it has; 17 KB (gzip) larger in WebAssembly |
//! | `crc-tables` | CRC-32 by tables that are made with the first frame: for WebAssembly, where it is about as fast and adds nothing to the program |
//! | `blake3` | keyed BLAKE3 as a frame algorithm |
//! | `ed25519` | Ed25519 as a frame algorithm and for receipts |
//! | `seal` | sealing a frame to a region's key, and opening it: HPKE (RFC 9180) |

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod annotation;
mod codec;
mod context;
mod crc;
mod dedup;
mod envelope;
mod error;
mod event;
mod extension;
mod frame;
mod header;
mod id;
mod key;
mod keyring;
pub mod limits;
mod notes;
mod outcome;
mod properties;
#[cfg(feature = "seal")]
mod seal;
mod sequence;
mod sign;
mod writer;

/// The README's example compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(feature = "seal")]
pub use crate::seal::{RegionPublicKey, RegionSecretKey};
#[cfg(feature = "ed25519")]
pub use crate::sign::{PublicKey, SecretKey};
pub use crate::{
    annotation::{AgentClass, Annotation, Network, Traffic, Trust},
    context::{Campaign, Context, ContextDelta, Screen},
    crc::crc32,
    dedup::{DedupWindow, Insert},
    envelope::{Envelope, Noted, Wrapped, seal_envelope},
    error::Error,
    event::{Event, EventKind, ForeignId, Vendor},
    extension::{Extension, ExtensionKind, Extensions},
    frame::{Events, Frame, SEAL_LEN, is_traceparent},
    header::{Consent, Flags, HEADER_LEN, Header, MAGIC, VERSION},
    id::{Epoch, EventId, KeyId, Region, RegionKeyId, SourceId, TenantId, Timestamp, WorkerId, WriteKey},
    key::{Claim, HashKey, Holder, LeaseKey, LeaseScope, RootKey, SESSION_GRANT_LEN, SessionGrant},
    keyring::{Keyring, LeaseRing},
    notes::{Effects, Notes, ReferrerClass, Rewritten},
    outcome::{Outcome, Reason},
    properties::{Entries, Items, List, Properties, PropertiesWriter, Value},
    sequence::{SeqVerdict, SeqWindow},
    sign::{Alg, Computed, DOMAIN, FrameSigner, FrameVerifier, MacKey, Tag, Unsigned},
    writer::FrameWriter,
};

/// The repository's documents, where their readers look first. Examples in them are compiled.
#[cfg(any(doc, doctest))]
pub mod documents {
    #[doc = include_str!("../docs/architecture.md")]
    pub mod architecture {}
    #[doc = include_str!("../docs/wire-format.md")]
    pub mod wire_format {}
}
