//! Tenants: who may write, under which keys.
//!
//! ```text
//! DATA/tenants/<id>/tenant.toml   name, region, write keys, origins, limits, edges      0600, made to be edited by hand
//!                   keys.toml     roots, each with its beginning and end                0600
//!                   documents.json  what edges and pages are told, signed              0600
//!                   journal.db    frames, identities, counters, quarantine              journal
//!                   events.db     the events table                                      sink
//!                   sinks.db      cursors of other sinks, and what they refused        sink
//!                   schema.db     the shape of the events                               journal::shapes
//! ```
//!
//! Files change by a new file in the old one's place, so that a reader sees the old or the new and never half of one.
//! A running server looks at them every second.

mod documents;
mod edges;
mod file;
pub(crate) mod kept;
mod limits;
mod live;
mod random;
mod region_keys;
mod retention;
mod signing;
mod store;
mod turns;

pub use crate::sink::{Algorithm, Begin, HttpSpec, NdjsonSpec, PostgresSpec, PostgresTls, SinkSpec};

pub use self::{
    documents::Documents,
    edges::Enrolled,
    file::{Enrolment, KeyFile, RegionKeyPair, Root, SigningKey, TenantFile},
    limits::LimitsFile,
    retention::RetentionFile,
    store::{Store, StoredTenant},
};
pub(crate) use self::{
    documents::NAME as DOCUMENTS,
    edges::token_hash,
    file::{make_folder, sync_folder},
    limits::{Kind as LimitKind, Limits, Usage},
    live::{Found, Live, Tenants, watch_files, watch_retention},
    random::alphanumeric,
    random::bytes as random_bytes,
    turns::{NoTurn, Turn},
};
