//! Memory for what is under way.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Memory for requests under way: a bound on what all of them hold together, from the first byte that is read to the
/// commit. What does not fit is answered with 503, not kept.
#[derive(Debug)]
pub(crate) struct Memory {
    used: AtomicUsize,
    most: usize,
}

/// A share of the memory, given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Memory {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), most })
    }

    /// A share of nothing yet.
    pub(crate) fn hold(self: &Arc<Self>) -> Held {
        Held { memory: Arc::clone(self), bytes: 0 }
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Held {
    /// Takes more. None: there is no more.
    pub(crate) fn grow(&mut self, bytes: usize) -> Option<()> {
        let most = self.memory.most;
        self.memory
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|&sum| sum <= most)
            })
            .ok()?;
        self.bytes += bytes;
        Some(())
    }
}

impl Held {
    /// Takes more, for something that may be held for longer than the rest. None: there is no more.
    pub(crate) fn also(&self, bytes: usize) -> Option<Self> {
        let mut held = self.memory.hold();
        held.grow(bytes)?;
        Some(held)
    }

    /// Gives all of it back.
    pub(crate) fn release(&mut self) {
        self.memory.used.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}
