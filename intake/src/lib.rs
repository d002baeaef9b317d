//! What the first hop does with a request, free of I/O: it is told the body and the facts of a request, and says what
//! to do. The edge and the server mount the same functions, so a page notices no difference.
//!
//! ```text
//!  method, path ──► route ──► Frame ─────► native::receive ──┐
//!                         └─► Segment ───► segment::receive ─┤
//!  headers, address ──► Facts ───────────────────────────────┤
//!  tenant's settings and keys ──► Account ───────────────────┘
//!                                     │
//!            Ok:  account, frame(s), annotation, session ──► forward or store ──► Receipt, Verdict
//!            Err: Problem, and what to set aside for whom ──► quarantine ──────► RFC 9457 answer
//! ```
//!
//! No clock, no randomness, no async: `now` stands in [`Facts`], random bytes come from a function that the caller
//! passes. `docs/http-api.md` is the normative description of what a client sees.
//!
//! # Example
//!
//! ```
//! use firsthop_core::{
//!     Event, ExtensionKind, FrameWriter, Header, KeyId, Keyring, Region, RootKey, SourceId, TenantId, Timestamp,
//!     Unsigned, WorkerId,
//! };
//! use firsthop_intake::{Facts, Origins, Receipt, RegionSecrets, Rooted, Tenant, native};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let now = Timestamp::from_millis(1_700_000_000_000);
//! let key = "fh_00000000000000c8_Zm9vYmFyYmF6cXV4";
//! let mut roots = Keyring::new();
//! roots.insert(KeyId::FIRST, RootKey::new([7; 32]), now, None)?;
//! let account = Rooted {
//!     tenant: Tenant {
//!         id: TenantId::new(0xc8),
//!         name: "Shop".into(),
//!         region: "EU".parse()?,
//!         worker: WorkerId::new(0),
//!         write_keys: vec![key.into()],
//!         origins: Origins::parse(["https://*.shop.example"])?,
//!     },
//!     roots,
//!     region_secrets: RegionSecrets::default(),
//!     sealed_only: false,
//! };
//!
//! // A page's first frame: no session yet, only the write key.
//! let mut buffer = [0; 512];
//! let mut writer = FrameWriter::new(&mut buffer[..], &Header::new(TenantId::new(0xc8), SourceId::new([1; 16]), now))?;
//! writer.extension(ExtensionKind::WriteKey, key.as_bytes())?;
//! writer.event(&Event { name: "Product Viewed", ..Event::default() })?;
//! let body = writer.finish(&Unsigned)?;
//!
//! let facts = Facts { origin: Some("https://www.shop.example"), ..Facts::at(now) };
//! let accepted = native::receive(body, &facts, |id| (id == account.tenant.id).then_some(&account)).expect("accepted");
//!
//! // The hop stores or forwards `accepted.frame` with `accepted.annotation`; then it answers.
//! let receipt = Receipt { session: accepted.session, ..Receipt::stored(accepted.frame.header()) };
//! assert!(receipt.to_json().contains(r#""stored":1"#));
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod account;
mod annotate;
mod digest;
pub mod document;
mod enrolment;
mod facts;
pub mod fields;
pub mod json;
pub mod native;
pub mod policy;
mod problem;
mod receipt;
mod route;
pub mod rules;
pub mod sdk;
mod sealed;
pub mod segment;
mod session;
pub mod spool;
pub mod time;

pub use crate::{
    account::{Account, Leased, Origins, ROOTS, Rooted, Tenant},
    annotate::check_encoding,
    digest::content_digest,
    enrolment::{DOCUMENTS, Enrolment, WANT, key_from_hex, parse_enrolment},
    facts::Facts,
    problem::{Problem, Refusal, Refused},
    receipt::{Receipt, Verdict},
    route::{CORS, PREFLIGHT, Route, route},
    sealed::{Contents, RegionSecrets},
    session::{RENEW_MS, SESSION_MS, Session},
};
