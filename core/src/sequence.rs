//! Which sequence numbers of one source were seen: the sliding bitmap of RFC 6479.

/// What a window knows of a sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SeqVerdict {
    /// Not seen: the next one, or one that was missing.
    Fresh,
    /// Not seen, and so many before it were not either.
    FreshGap(u64),
    /// Seen.
    Duplicate,
    /// Too far behind for the window to know. *Not* a duplicate: ask the store.
    TooOld,
}

/// The last sequence numbers of one source: `W` words of 64 numbers each, of which the words in use slide.
///
/// Exact within its reach, and honest beyond it: [`SeqVerdict::TooOld`] says that the answer is not here. A false
/// `Duplicate` would be a lost event, and there is none; a false `Fresh` neither.
///
/// The bitmap is RFC 6479's: a ring of words, so that advancing clears whole words and shifts nothing. The word of
/// the highest number is only partly used, so the reach is at least `64 × (W − 1)` numbers behind the highest.
#[derive(Clone, Debug)]
pub struct SeqWindow<const W: usize> {
    words: [u64; W],
    /// One more than the highest number seen; 0 before the first.
    next: u64,
}

impl<const W: usize> Default for SeqWindow<W> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const W: usize> SeqWindow<W> {
    /// Nothing seen.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(W >= 2, "the word of the highest number may hold nothing else") }
        Self { words: [0; W], next: 0 }
    }

    /// One more than the highest number seen; 0 before the first.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// What the window knows of a number. Changes nothing: "seen" is for [`insert`](Self::insert) to say, once the
    /// next hop has the event durably.
    #[must_use]
    pub const fn check(&self, seq: u64) -> SeqVerdict {
        if seq >= self.next {
            return match seq - self.next {
                0 => SeqVerdict::Fresh,
                gap => SeqVerdict::FreshGap(gap),
            };
        }
        if self.is_too_old(seq) {
            return SeqVerdict::TooOld;
        }
        if self.words[Self::slot(seq)] & Self::bit(seq) == 0 { SeqVerdict::Fresh } else { SeqVerdict::Duplicate }
    }

    /// Marks a number as seen and says what the window knew of it. [`SeqVerdict::TooOld`] marks nothing.
    ///
    /// `u64::MAX` is no sequence number (nothing could come after it); it is answered with `TooOld`.
    pub const fn insert(&mut self, seq: u64) -> SeqVerdict {
        if seq == u64::MAX {
            return SeqVerdict::TooOld;
        }
        let verdict = self.check(seq);
        match verdict {
            SeqVerdict::Duplicate | SeqVerdict::TooOld => return verdict,
            SeqVerdict::Fresh | SeqVerdict::FreshGap(_) => {}
        }
        if seq >= self.next {
            self.advance(seq);
        }
        self.words[Self::slot(seq)] |= Self::bit(seq);
        verdict
    }

    /// Clears the words that come into use between the highest number and `seq`.
    const fn advance(&mut self, seq: u64) {
        let highest = self.next.saturating_sub(1) / 64;
        let words = seq / 64 - highest;
        let mut i = 0;
        while i < words && i < W as u64 {
            i += 1;
            self.words[((highest + i) % W as u64) as usize] = 0;
        }
        self.next = seq + 1;
    }

    const fn is_too_old(&self, seq: u64) -> bool {
        // The word of the highest number and the W − 1 before it are in the ring.
        (self.next - 1) / 64 - seq / 64 >= W as u64
    }

    const fn slot(seq: u64) -> usize {
        ((seq / 64) % W as u64) as usize
    }

    const fn bit(seq: u64) -> u64 {
        1 << (seq % 64)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const REACH: u64 = 64 * 3;

    /// A number relative to the next one: mostly near, now and then ahead, seldom anywhere.
    fn step() -> impl Strategy<Value = (i64, u64)> {
        prop_oneof![
            30 => (-300..3i64).prop_map(|by| (by, 0)),
            10 => (-70..70i64).prop_map(|by| (by, 0)),
            3 => (0..900i64).prop_map(|by| (by, 0)),
            1 => any::<u64>().prop_map(|seq| (0, seq >> 2)),
            1 => Just((0, u64::MAX)),
        ]
    }

    proptest! {
        /// Against a set: any numbers, in any order, any number of times.
        #[test]
        fn agrees_with_a_set(steps in prop::collection::vec(step(), 0..400)) {
            let (mut window, mut seen) = (SeqWindow::<4>::new(), BTreeSet::new());
            for (by, seq) in steps {
                let next = seen.last().map_or(0, |last: &u64| last + 1);
                let seq = if seq > 0 { seq } else { next.saturating_add_signed(by) };
                let verdict = window.check(seq);
                match verdict {
                    SeqVerdict::Duplicate => prop_assert!(seen.contains(&seq)),
                    SeqVerdict::Fresh => prop_assert!(!seen.contains(&seq) && seq <= next),
                    SeqVerdict::FreshGap(gap) => prop_assert_eq!(seq, next + gap),
                    SeqVerdict::TooOld => prop_assert!(next - seq > REACH),
                }
                let inserted = window.insert(seq);
                if seq == u64::MAX {
                    prop_assert_eq!(inserted, SeqVerdict::TooOld);
                    continue;
                }
                prop_assert_eq!(inserted, verdict);
                if verdict != SeqVerdict::TooOld {
                    seen.insert(seq);
                    prop_assert_eq!(window.check(seq), SeqVerdict::Duplicate);
                }
                prop_assert_eq!(window.next(), seen.last().map_or(0, |last| last + 1));
            }
        }
    }

    proptest! {
        /// Within its reach, order and repetition change nothing: the same is seen, and each number is fresh once.
        #[test]
        fn any_order_and_repetition_see_the_same(start in 0..1u64 << 40, mut offsets in prop::collection::vec(0..REACH, 0..300), order: u64) {
            let fresh = |window: &mut SeqWindow<4>, offsets: &[u64]| {
                let is_fresh = |verdict| matches!(verdict, SeqVerdict::Fresh | SeqVerdict::FreshGap(_));
                offsets.iter().filter(|&offset| is_fresh(window.insert(start + offset))).count()
            };
            let (mut one, mut other) = (SeqWindow::<4>::new(), SeqWindow::<4>::new());
            let count = fresh(&mut one, &offsets);
            prop_assert_eq!(count, offsets.iter().collect::<BTreeSet<_>>().len());
            offsets.sort_by_key(|offset| (offset ^ order).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            prop_assert_eq!(fresh(&mut other, &offsets), count);
            prop_assert_eq!(fresh(&mut other, &offsets), 0);
            prop_assert_eq!(one.next(), other.next());
            prop_assert!((start..start + REACH).all(|seq| one.check(seq) == other.check(seq)));
        }
    }

    #[test]
    fn a_check_marks_nothing() {
        let window = SeqWindow::<2>::new();
        assert_eq!(window.check(0), SeqVerdict::Fresh);
        assert_eq!(window.check(0), SeqVerdict::Fresh);
        assert_eq!(window.check(7), SeqVerdict::FreshGap(7));
    }
}
