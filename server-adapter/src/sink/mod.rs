//! Sinks: what reads the journal and brings its events to where people look at them.
//!
//! Each has a cursor of its own, so a slow one delays no other and no acknowledgement. The cursor moves in the same
//! transaction as the rows, and the event id is unique: after any crash a sink goes on where it was, and doubles
//! nothing.

pub(crate) mod events;
mod row;
mod runner;

pub(crate) use self::runner::Sink;
