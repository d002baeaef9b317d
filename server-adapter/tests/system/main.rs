//! The server as a whole: a real process, real files, real connections.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not know for tests")]

mod backup;
mod bad_input;
mod commands;
mod commands_of_one;
mod common;
mod control;
mod documents;
mod edges;
mod erase;
mod exactly_once;
mod fields;
mod isolation;
mod ledger;
mod life;
mod limits;
mod metrics;
mod mounted;
mod openapi;
mod quarantine;
mod reconcile;
mod retention;
mod rules;
mod sealed;
mod shapes;
mod sinks;
mod slow;
mod take_over;
mod traces;
mod updates;
mod vectors;
