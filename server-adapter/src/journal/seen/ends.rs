//! Where the numbers of sources end, as far as memory goes.

use std::collections::HashMap;

use firsthop_core::SourceId;

/// Sources that are remembered, in each of two generations. About 50 bytes each.
const GENERATION: usize = 32 * 1024;

/// Where the numbers of the sources end that were used last: two generations, of which the older is dropped whole, so
/// that keeping order costs nothing.
#[derive(Debug, Default)]
pub(super) struct Ends {
    young: HashMap<SourceId, u64>,
    old: HashMap<SourceId, u64>,
}

impl Ends {
    pub(super) fn get(&mut self, source: SourceId) -> Option<u64> {
        if let Some(&end) = self.young.get(&source) {
            return Some(end);
        }
        let end = self.old.get(&source).copied()?;
        self.set(source, end);
        Some(end)
    }

    pub(super) fn set(&mut self, source: SourceId, end: u64) {
        if self.young.len() == GENERATION && !self.young.contains_key(&source) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(source, end);
    }

    pub(super) fn raise(&mut self, source: SourceId, end: u64) {
        let end = self.get(source).map_or(end, |known| known.max(end));
        self.set(source, end);
    }

    /// Raises the end of a source that is remembered, and remembers no other.
    pub(super) fn raise_known(&mut self, source: SourceId, end: u64) {
        if let Some(known) = self.get(source) {
            self.set(source, known.max(end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_forgets_the_oldest_and_never_wrongly() {
        let mut ends = Ends::default();
        let source = |i: u64| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&i.to_le_bytes());
            SourceId::new(bytes)
        };
        for i in 0..3 * GENERATION as u64 {
            ends.set(source(i), i);
            // In use all the time, so never forgotten.
            assert_eq!(ends.get(source(0)), Some(0));
        }
        assert!(ends.young.len() <= GENERATION && ends.old.len() <= GENERATION);
        assert_eq!(ends.get(source(3 * GENERATION as u64 - 1)), Some(3 * GENERATION as u64 - 1));
        assert_eq!(ends.get(source(1)), None, "forgotten, and the table is asked");
    }
}
