//! WebAssembly bindings of Firsthop for web pages.
//!
//! ```text
//!   JavaScript                               exports            core
//!   texts of a context ──► staging buffer ──► text, begin ─────► FrameWriter::begin, context
//!   a key and a value ───► staging buffer ──► put ─────────────► PropertiesWriter
//!   an event's name ─────► staging buffer ──► event ───────────► FrameWriter::event
//!   copy of the frame ◄─── frame buffer ◄──── finish ◄────────── FrameWriter::finish
//! ```
//!
//! Only numbers cross the boundary. Text goes through one static buffer, which JavaScript writes and the next call
//! reads; a finished frame is copied out of another. So there is no allocator, no generated glue on the page, and a
//! call costs a few nanoseconds.
//!
//! The module decides nothing: when a frame is closed, sent, kept or given up is for `js/`.

#![cfg_attr(target_arch = "wasm32", no_std)]

mod exports;
mod fields;
mod memory;
mod page;
#[cfg(target_arch = "wasm32")]
mod runtime;
#[cfg(feature = "vectors")]
mod vectors;

pub use crate::exports::*;
#[cfg(feature = "vectors")]
pub use crate::vectors::*;
