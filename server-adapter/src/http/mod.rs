//! HTTP: from a request to [`ingest`](crate::ingest), and back. One service, mounted on our own listener or in
//! somebody's router.

mod body;
mod connections;
mod documents;
mod health;
#[cfg(feature = "cli")]
pub(crate) mod lanes;
mod leases;
#[cfg(feature = "cli")]
pub(crate) mod listen;
mod sdk;
mod service;
mod traffic;
#[cfg(feature = "cli")]
mod wire;

pub use self::service::{ClientAddress, Internal, Public};
pub(crate) use self::{sdk::Shelf, traffic::Traffic};
