//! Whose turn it is to fetch.

use std::{cell::Cell, time::Duration};

use worker::Delay;

use firsthop_core::Timestamp;

use super::age;
use crate::platform::now;

/// How soon a request looks whether another one's fetch is done. Then it waits twice as long each time, up to the longest: many may wait for
/// a server that hangs.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LONGEST_LOOK: Duration = Duration::from_millis(320);

/// One fetch at a time, and not too often.
///
/// A request must not await another one's promise: the platform ties I/O to the request that began it, and ends
/// it with that request. So it looks at the shared state by a timer of its own, and takes over when the other
/// request should have been done long ago.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// When the fetch under way began.
    began: Cell<Option<Timestamp>>,
    /// When the last one ended.
    ended: Cell<Timestamp>,
}

impl Turn {
    /// Whether somebody is at it, and not one that must have been cut off.
    pub(super) fn is_taken(&self, patience: u64) -> bool {
        self.began.get().is_some_and(|began| age(began, now()) <= patience)
    }

    /// Waits for whoever is at it.
    pub(super) async fn wait(&self, patience: u64) {
        let mut pause = FIRST_LOOK;
        while self.is_taken(patience) {
            Delay::from(pause).await;
            pause = (pause * 2).min(LONGEST_LOOK);
        }
    }

    pub(super) fn is_over(&self, pause: u64) -> bool {
        age(self.ended.get(), now()) >= pause
    }

    pub(super) fn begin(&self) {
        self.began.set(Some(now()));
    }

    pub(super) fn end(&self) {
        self.ended.set(now());
        self.began.set(None);
    }
}
