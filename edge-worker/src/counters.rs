//! What this isolate has done since it began. Isolates come and go as the platform likes, and each has its own numbers; what must not be
//! lost is counted where it is kept, in the spool.

use std::cell::{Cell, RefCell};

use crate::platform::now;

/// What became of a frame or a body that was to go to the server.
#[derive(Clone, Copy)]
pub(crate) enum Became {
    Forwarded,
    Spooled,
    /// The server's verdict is that it is no event.
    SetAside,
    /// Neither server nor spool has it: its sender keeps it.
    Unknown,
    /// It was acknowledged before by this isolate.
    Recognised,
}

/// Their names, in the order of [`Became`].
const NAMES: [&str; 5] = ["forwarded", "spooled", "set_aside", "unknown", "recognised"];

thread_local! {
    static SINCE: Cell<u64> = const { Cell::new(0) };
    static FRAMES: Cell<[u64; NAMES.len()]> = const { Cell::new([0; NAMES.len()]) };
    static REFUSED: RefCell<Vec<(&'static str, u64)>> = const { RefCell::new(Vec::new()) };
}

/// Counts a frame.
pub(crate) fn count(became: Became) {
    since();
    let mut frames = FRAMES.get();
    frames[became as usize] += 1;
    FRAMES.set(frames);
}

/// Counts a request that was answered with a problem.
pub(crate) fn refused(code: &'static str) {
    since();
    REFUSED.with_borrow_mut(|refused| match refused.iter_mut().find(|(known, _)| *known == code) {
        Some((_, count)) => *count += 1,
        None => refused.push((code, 1)),
    });
}

/// Since when this isolate counts, in milliseconds since the Unix epoch: its first frame, refusal or look at these figures.
pub(crate) fn since() -> u64 {
    if SINCE.get() == 0 {
        SINCE.set(now().as_millis());
    }
    SINCE.get()
}

/// Frames by what became of them.
pub(crate) fn frames() -> impl Iterator<Item = (&'static str, u64)> {
    NAMES.into_iter().zip(FRAMES.get())
}

/// Refused requests by code.
pub(crate) fn refusals() -> Vec<(&'static str, u64)> {
    REFUSED.with_borrow(Vec::clone)
}
