//! Firsthop's server: verify, deduplicate, journal, deliver.
//!
//! ```text
//!  request ──► http ──► ingest ──► journal ──► answer          one folder for each tenant:
//!              bounds   intake     commit = acknowledgement      tenant.toml, keys.toml
//!              in bytes decides       │                           journal.db
//!              and time               └──► sinks ─► events table  events.db
//!                                              └──► files, HTTP, PostgreSQL
//! ```
//!
//! A 2xx means that the events are on disk: the answer follows the commit of the transaction that holds the frame, the
//! identities of its events and the counters. What cannot be taken is refused with 503 and `Retry-After`; nothing is
//! evicted to make room, and an event is a duplicate only if it is exactly that.
//!
//! There are two ways to run it: the binary `firsthop` (feature `cli`, on by default), or a router in a service of
//! your own.
//!
//! # A router in your own service
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use firsthop_server::{Server, Settings};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut settings = Settings::default();
//! settings.data = "/var/lib/shop/firsthop".into();
//! let server = Server::open(settings)?;
//!
//! let app = Router::new()
//!     .route("/", get(|| async { "the shop" }))
//!     .merge(server.router());
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! // With the address of whoever connects, so that its network can be noted.
//! let app = app.into_make_service_with_connect_info::<std::net::SocketAddr>();
//! axum::serve(listener, app).await?;
//!
//! // Blocks: commits what is queued, and gives the events table five seconds to catch up.
//! let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
//! tokio::task::spawn_blocking(move || server.close(deadline)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Leases, metrics and health are in [`Server::internal_router`]; keep that one inside. `axum::serve` sets no time
//! limit on headers: what stands in front should, or serve the [`Public`] service with `hyper-util` as the binary
//! does.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(feature = "cli"),
    allow(dead_code, unused_imports, reason = "what only commands use stands beside what it belongs to")
)]

mod background;
pub mod backup;
#[cfg(feature = "cli")]
pub mod cli;
mod clock;
#[cfg(feature = "cli")]
mod control;
mod disk;
mod error;
#[cfg(feature = "cli")]
mod handover;
mod http;
mod ingest;
mod journal;
mod metrics;
mod migrate;
mod router;
mod server;
pub mod settings;
mod sink;
pub mod tenants;
mod traces;

#[cfg(feature = "cli")]
pub use crate::control::ControlSocket;
pub use crate::{
    error::Error,
    http::{ClientAddress, Internal, Public},
    journal::ledger,
    journal::verify::{Report, verify},
    server::Server,
    settings::Settings,
};
