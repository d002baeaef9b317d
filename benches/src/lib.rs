//! Benchmarks of Firsthop beside what people use instead.
//!
//! Two comparisons, kept apart because they answer different questions:
//!
//! - **body**: one event's own fields (kind, time, name, seven properties), the same in every codec. What the encodings cost.
//! - **wire**: what travels today, Segment's JSON `batch` with its context in every message, beside a Firsthop frame with the
//!   context written once. What a page, a network and a hop save.
//!
//! `make bench` runs everything and prints one table; `docs/performance.md` says how to read it.

mod body;
mod codec;
mod frame;
mod mac;
mod sample;
mod wire;

pub use crate::{
    body::{Body, Kind, ProductViewed},
    codec::{Bincode, Codec, Json, MessagePack, Postcard, Prost, Rkyv, Wincode},
    frame::{FrameKit, read_frame, read_frame_typed},
    mac::{BareBlake3, BareHmac},
    sample::{DEDUP_KEY, FRAME, Random, bodies, random_ids},
    wire::{Visit, read_batch},
};
