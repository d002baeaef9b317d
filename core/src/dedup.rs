//! Which of the last `N` ids were seen: exact, fixed in size, in constant time.

use core::hash::Hasher;

use siphasher::sip::SipHasher13;

/// What became of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Insert {
    /// It was not among the last `N`, and is now.
    Fresh,
    /// It was not among the last `N`, and is now; this one, the oldest, is forgotten for it.
    FreshForgetting(u128),
    /// It was among the last `N`.
    Duplicate,
}

/// The last `N` ids, first in first out.
///
/// No false positives: a `Duplicate` was seen, for the whole id is compared. False negatives only beyond the last
/// `N`, and [`Insert::FreshForgetting`] says when that begins: what a window can no longer know, the store decides.
///
/// Ids are an attacker's to choose, so they are hashed with a key (SipHash-1-3): [`new`](Self::new) wants it random.
/// 32 bytes per id: the id, and two slots of an open-addressed index with linear probing, never more than half full.
/// An all-zero window with a zero key is a valid empty one, so a `static` costs nothing in a binary.
pub struct DedupWindow<const N: usize> {
    ids: [u128; N],
    /// Two slots per id. A slot holds the upper half of the hash above and the id's place plus one below; 0 is free.
    index: [[u64; 2]; N],
    key: (u64, u64),
    len: usize,
    /// Where the next id goes; the oldest stands there once all places are taken.
    head: usize,
}

impl<const N: usize> core::fmt::Debug for DedupWindow<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("DedupWindow").field("len", &self.len).field("capacity", &N).finish_non_exhaustive()
    }
}

impl<const N: usize> DedupWindow<N> {
    const SLOTS: usize = 2 * N;

    /// An empty window with a secret key.
    #[must_use]
    pub const fn new(key: (u64, u64)) -> Self {
        const {
            assert!(N.is_power_of_two(), "the index is masked, not divided");
            assert!(N <= 1 << 30, "a place must fit 32 bits, and the home slot the upper half of the hash");
        }
        Self { ids: [0; N], index: [[0; 2]; N], key, len: 0, head: 0 }
    }

    /// Forgets everything and takes a new key: for a `static`, which begins before there is randomness.
    pub fn reset(&mut self, key: (u64, u64)) {
        self.index.fill([0; 2]);
        (self.key, self.len, self.head) = (key, 0, 0);
    }

    /// How many ids are remembered.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none is.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the id is among the last `N`. Changes nothing: "seen" is for [`insert`](Self::insert) to say, once
    /// the next hop has the event durably.
    #[must_use]
    pub fn contains(&self, id: u128) -> bool {
        self.find(id, self.hash(id)).is_ok()
    }

    /// Remembers an id and says what became of it.
    pub fn insert(&mut self, id: u128) -> Insert {
        let hash = self.hash(id);
        let Err(mut free) = self.find(id, hash) else { return Insert::Duplicate };
        let forgotten = if self.len == N {
            let oldest = self.ids[self.head];
            self.remove(self.head);
            // The hole that was closed may lie before the free slot that was found.
            free = self.find(id, hash).unwrap_or_else(|slot| slot);
            Insert::FreshForgetting(oldest)
        } else {
            self.len += 1;
            Insert::Fresh
        };
        self.ids[self.head] = id;
        self.set(free, hash | (self.head as u64 + 1));
        self.head = (self.head + 1) & (N - 1);
        forgotten
    }

    /// The upper half of the hash; the lower half is for the place.
    fn hash(&self, id: u128) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        hasher.write(&id.to_le_bytes());
        hasher.finish() & !0xffff_ffff
    }

    const fn home(slot: u64) -> usize {
        (slot >> 32) as usize & (Self::SLOTS - 1)
    }

    const fn slot(&self, at: usize) -> u64 {
        self.index[at / 2][at % 2]
    }

    const fn set(&mut self, at: usize, slot: u64) {
        self.index[at / 2][at % 2] = slot;
    }

    /// The slot of the id, or the free one where it would go.
    fn find(&self, id: u128, hash: u64) -> Result<usize, usize> {
        let mut at = Self::home(hash);
        loop {
            let slot = self.slot(at);
            if slot == 0 {
                return Err(at);
            }
            if slot & !0xffff_ffff == hash && self.ids[(slot & 0xffff_ffff) as usize - 1] == id {
                return Ok(at);
            }
            at = (at + 1) & (Self::SLOTS - 1);
        }
    }

    /// Takes the id at a place out of the index and closes the hole by moving later ones back (Knuth, TAOCP 3,
    /// 6.4, algorithm R): no tombstones, so the window never slows with age.
    fn remove(&mut self, place: usize) {
        let hash = self.hash(self.ids[place]);
        let mut hole = Self::home(hash);
        while self.slot(hole) != hash | (place as u64 + 1) {
            hole = (hole + 1) & (Self::SLOTS - 1);
        }
        let mut at = hole;
        loop {
            at = (at + 1) & (Self::SLOTS - 1);
            let slot = self.slot(at);
            if slot == 0 {
                break;
            }
            // It may move to the hole if its home does not lie between hole and itself.
            let distance = at.wrapping_sub(Self::home(slot)) & (Self::SLOTS - 1);
            if distance >= at.wrapping_sub(hole) & (Self::SLOTS - 1) {
                self.set(hole, slot);
                hole = at;
            }
        }
        self.set(hole, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a queue: few different ids, so that most collide, repeat, and are forgotten and come again.
        #[test]
        fn agrees_with_a_queue(key: (u64, u64), ids in prop::collection::vec(prop_oneof![0..24u128, any::<u128>()], 0..300)) {
            let (mut window, mut queue) = (DedupWindow::<16>::new(key), VecDeque::new());
            for id in ids {
                prop_assert_eq!(window.contains(id), queue.contains(&id));
                let expected = if queue.contains(&id) {
                    Insert::Duplicate
                } else {
                    queue.push_back(id);
                    if queue.len() > 16 { Insert::FreshForgetting(queue.pop_front().unwrap()) } else { Insert::Fresh }
                };
                prop_assert_eq!(window.insert(id), expected);
                prop_assert_eq!(window.len(), queue.len());
                prop_assert!(queue.iter().all(|&id| window.contains(id)));
            }
        }
    }

    #[test]
    fn a_window_of_one() {
        let mut window = DedupWindow::<1>::new((1, 2));
        assert_eq!(window.insert(5), Insert::Fresh);
        assert_eq!(window.insert(5), Insert::Duplicate);
        assert_eq!(window.insert(6), Insert::FreshForgetting(5));
        assert!(!window.contains(5));
    }

    #[test]
    fn reset_forgets() {
        let mut window = DedupWindow::<4>::new((0, 0));
        window.insert(1);
        window.reset((3, 4));
        assert!(window.is_empty() && !window.contains(1));
        assert_eq!(window.insert(1), Insert::Fresh);
    }

    #[test]
    fn costs_32_bytes_an_id() {
        assert!(size_of::<DedupWindow<1024>>() <= 32 * 1024 + 64);
    }
}
