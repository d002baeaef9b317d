//! What an edge's spool decides, free of I/O: what an answer says of a frame, whose fault a failure is, and when to try again.
//!
//! The spool keeps envelopes while the server is away and hands them over in order per source. What it keeps them in, and the
//! clock by which it wakes up, are the edge's.

mod fate;
mod round;

pub use self::{
    fate::{Fate, Inside},
    round::{Again, Outlook, Pace, Round, STRIKES},
};
