//! Which of the last `N` ids were seen: exact, fixed in size, in constant time.

use core::fmt;

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

/// The last `N` ids, first in first out. `N` is a power of two from 8 to 2²⁴.
///
/// No false positives: a `Duplicate` was seen, for the whole id is compared. False negatives only beyond the last
/// `N`, and [`Insert::FreshForgetting`] says when that begins: what a window can no longer know, the store decides.
///
/// Ids are an attacker's to choose, so they are hashed with a key: [`new`](Self::new) wants it random.
/// 24 bytes per id: the id, and its share of an index. An all-zero window with a zero key is a valid empty one, so a
/// `static` costs nothing in a binary; being large, it belongs in one rather than on the stack.
pub struct DedupWindow<const N: usize> {
    ids: [u128; N],
    index: Index<N>,
    hash: Hash,
    len: usize,
    /// Where the next id goes; the oldest stands there once all places are taken.
    head: usize,
}

impl<const N: usize> fmt::Debug for DedupWindow<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DedupWindow").field("len", &self.len).field("capacity", &N).finish_non_exhaustive()
    }
}

impl<const N: usize> DedupWindow<N> {
    /// An empty window with a secret key.
    #[must_use]
    pub const fn new(key: (u64, u64)) -> Self {
        const {
            assert!(N.is_power_of_two() && N >= 8, "a bucket of the index serves eight ids");
            assert!(N <= 1 << 24, "an entry of the index has room for a place and eight bits of the hash");
        }
        Self { ids: [0; N], index: Index([[0; 2]; N]), hash: Hash::new(key), len: 0, head: 0 }
    }

    /// Forgets everything and takes a new key: for a `static`, which begins before there is randomness.
    pub fn reset(&mut self, key: (u64, u64)) {
        self.index.0.fill([0; 2]);
        (self.hash, self.len, self.head) = (Hash::new(key), 0, 0);
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
        self.index.contains(self.hash.of(id), id, &self.ids)
    }

    /// Remembers an id and says what became of it.
    pub fn insert(&mut self, id: u128) -> Insert {
        let hash = self.hash.of(id);
        if self.index.contains(hash, id, &self.ids) {
            return Insert::Duplicate;
        }
        let inserted = if self.len == N {
            let oldest = self.ids[self.head];
            self.index.remove(self.hash.of(oldest), self.head);
            Insert::FreshForgetting(oldest)
        } else {
            self.len += 1;
            Insert::Fresh
        };
        self.ids[self.head] = id;
        self.index.insert(hash, self.head);
        self.head = (self.head + 1) & (N - 1);
        inserted
    }
}

/// Where ids stand, by their hash: buckets of one cache line each.
///
/// A bucket has a head and fifteen entries, and serves eight ids, so that few overflow into the next one. An entry is
/// an id's place and, above it, as much of its hash as there is room for: the ids themselves are only looked at where
/// that agrees. No entry's state is a branch to mispredict, so the cache misses of successive calls overlap.
///
/// The head counts the entries in its low byte. Above, it counts those that belonged here or before and had to go
/// further: while it is zero, a search ends here. So an entry is removed without moving others, and without a tombstone.
#[repr(align(64))]
struct Index<const N: usize>([[u32; 2]; N]);

type Bucket = [u32; BUCKET];

/// Eight ids' share.
const BUCKET: usize = 16;
const ENTRIES: usize = BUCKET - 1;
/// One more that went further, in a bucket's head.
const PASSED: u32 = 1 << 8;

impl<const N: usize> Index<N> {
    const BUCKETS: usize = N / 8;
    const PLACE: u32 = N as u32 - 1;

    fn buckets(&self) -> &[Bucket] {
        self.0.as_flattened().as_chunks().0
    }

    fn bucket(&mut self, at: usize) -> &mut Bucket {
        &mut self.0.as_flattened_mut().as_chunks_mut().0[at & (Self::BUCKETS - 1)]
    }

    /// The bucket where an id belongs: from other bits of its hash than the entry keeps.
    const fn home(hash: u64) -> usize {
        (hash >> 32) as usize & (Self::BUCKETS - 1)
    }

    #[inline]
    fn contains(&self, hash: u64, id: u128, ids: &[u128; N]) -> bool {
        let buckets = self.buckets();
        let mut at = Self::home(hash);
        loop {
            let bucket = &buckets[at & (Self::BUCKETS - 1)];
            let mut same = matches(bucket, hash as u32, !Self::PLACE);
            while same != 0 {
                let entry = bucket[1 + same.trailing_zeros() as usize];
                if ids[(entry & Self::PLACE) as usize] == id {
                    return true;
                }
                same &= same - 1;
            }
            if bucket[0] < PASSED {
                return false;
            }
            at += 1;
        }
    }

    #[inline]
    fn insert(&mut self, hash: u64, place: usize) {
        let mut at = Self::home(hash);
        loop {
            let bucket = self.bucket(at);
            let count = bucket[0] as usize & 0xff;
            if count < ENTRIES {
                bucket[1 + count] = hash as u32 & !Self::PLACE | place as u32;
                bucket[0] += 1;
                return;
            }
            bucket[0] += PASSED;
            at += 1;
        }
    }

    #[inline]
    fn remove(&mut self, hash: u64, place: usize) {
        let mut at = Self::home(hash);
        loop {
            let bucket = self.bucket(at);
            let found = matches(bucket, place as u32, Self::PLACE);
            if found != 0 {
                // The last entry fills the hole: entries stand without gaps.
                bucket[1 + found.trailing_zeros() as usize] = bucket[bucket[0] as usize & 0xff];
                bucket[0] -= 1;
                return;
            }
            bucket[0] -= PASSED;
            at += 1;
        }
    }
}

/// A keyed hash: the upper half of `a + b × low + c × high` modulo 2¹²⁸ (Lemire and Kaser, "Strongly universal string
/// hashing is fast", 2014, §3). For a random key, whoever chooses ids without seeing hashes finds no two that collide
/// more often than chance; and nobody sees hashes.
#[derive(Clone, Copy)]
struct Hash([u128; 3]);

impl Hash {
    /// A zero key gives zero, which works, slowly.
    const fn new((k0, k1): (u64, u64)) -> Self {
        /// The finaliser of SplitMix64, a bijection that keeps 0.
        const fn mix(z: u64) -> u64 {
            let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        }
        const fn wide(k0: u64, k1: u64, odd: u64) -> u128 {
            (mix(k0.wrapping_mul(odd)) as u128) << 64 | mix(k1.wrapping_mul(odd)) as u128
        }
        Self([wide(k0, k1, 1), wide(k0, k1, 0x9e37_79b9_7f4a_7c15), wide(k1, k0, 0xd1b5_4a32_d192_ed03)])
    }

    const fn of(&self, id: u128) -> u64 {
        let [a, b, c] = self.0;
        let low = b.wrapping_mul(id as u64 as u128);
        let high = c.wrapping_mul(id >> 64);
        (a.wrapping_add(low).wrapping_add(high) >> 64) as u64
    }
}

/// A bit for each entry of the bucket that agrees with `value` where `mask` is set. Without a branch, for the sake of
/// vector instructions.
#[inline]
fn matches(bucket: &Bucket, value: u32, mask: u32) -> u32 {
    let mut same = 0;
    for (i, entry) in bucket.iter().enumerate() {
        same |= u32::from((entry ^ value) & mask == 0) << i;
    }
    same >> 1 & ((1 << (bucket[0] & 0xff)) - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a queue: few different ids, so that most collide, repeat, and are forgotten and come again. Under a
        /// zero key all of them belong in the first bucket.
        #[test]
        fn agrees_with_a_queue(
            key in prop_oneof![Just((0, 0)), any::<(u64, u64)>()],
            ids in prop::collection::vec(prop_oneof![0..24u128, 0..60u128, any::<u128>()], 0..300),
        ) {
            let (mut window, mut queue) = (DedupWindow::<32>::new(key), VecDeque::new());
            for id in ids {
                prop_assert_eq!(window.contains(id), queue.contains(&id));
                let expected = if queue.contains(&id) {
                    Insert::Duplicate
                } else {
                    queue.push_back(id);
                    if queue.len() > 32 { Insert::FreshForgetting(queue.pop_front().unwrap()) } else { Insert::Fresh }
                };
                prop_assert_eq!(window.insert(id), expected);
                prop_assert_eq!(window.len(), queue.len());
                prop_assert!(queue.iter().all(|&id| window.contains(id)));
            }
        }

        /// While nothing is forgotten, order and repetition change nothing.
        #[test]
        fn any_order_and_repetition_see_the_same(
            key: (u64, u64),
            mut ids in prop::collection::vec(0..64u128, 0..200).prop_shuffle(),
            order: u64,
        ) {
            let (mut one, mut other) = (DedupWindow::<64>::new(key), DedupWindow::<64>::new(key));
            let fresh = |window: &mut DedupWindow<64>, ids: &[u128]| {
                ids.iter().filter(|&&id| window.insert(id) == Insert::Fresh).count()
            };
            let count = fresh(&mut one, &ids);
            ids.sort_by_key(|&id| (id as u64 ^ order).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            prop_assert_eq!(fresh(&mut other, &ids), count);
            prop_assert_eq!(fresh(&mut other, &ids), 0);
            prop_assert!((0..64).all(|id| one.contains(id) == other.contains(id)));
        }
    }

    /// What a bucket says of ids that went further is true however long the window is in use: it does not slow with age.
    #[test]
    fn buckets_count_what_passed_them() {
        let mut window = DedupWindow::<32>::new((0, 0));
        for id in 0..5_000u128 {
            window.insert(id * id % 4_999);
            // Under a zero key all belong in the first bucket.
            let mut further = window.len();
            for bucket in window.index.buckets() {
                further -= bucket[0] as usize & 0xff;
                assert_eq!(bucket[0] as usize >> 8, further);
            }
        }
    }

    /// Ids in a row, as a careless producer or a careful attacker may choose them, fill the index evenly.
    #[test]
    fn ids_in_a_row_spread() {
        const N: usize = 1 << 12;
        for (step, key) in [(1, (3, 4)), (1 << 64, (5, 6)), (1 << 96 | 1 << 32, (7, 8)), (0xff << 56, (9, 10))] {
            let mut window = DedupWindow::<N>::new(key);
            for i in 0..N as u128 {
                assert_eq!(window.insert(i * step), Insert::Fresh);
            }
            let overflown = window.index.buckets().iter().filter(|bucket| bucket[0] >= PASSED).count();
            assert!(overflown < N / 8 / 10, "steps of {step:#x}: {overflown} of {} buckets overflow", N / 8);
        }
    }

    #[test]
    fn the_smallest_window() {
        let mut window = DedupWindow::<8>::new((1, 2));
        for id in 0..8 {
            assert_eq!(window.insert(id), Insert::Fresh);
        }
        assert_eq!(window.insert(0), Insert::Duplicate);
        assert_eq!(window.insert(8), Insert::FreshForgetting(0));
        assert!(!window.contains(0));
    }

    #[test]
    fn reset_forgets() {
        let mut window = DedupWindow::<8>::new((0, 0));
        window.insert(1);
        window.reset((3, 4));
        assert!(window.is_empty() && !window.contains(1));
        assert_eq!(window.insert(1), Insert::Fresh);
    }

    #[test]
    fn costs_24_bytes_an_id() {
        assert!(size_of::<DedupWindow<1024>>() <= 24 * 1024 + 128);
    }
}
