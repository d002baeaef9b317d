//! What was seen: the core's structures against a queue and a set.

use std::collections::{BTreeSet, VecDeque};

use arbitrary::Arbitrary;
use firsthop_core::{DedupWindow, Insert, SeqVerdict, SeqWindow};

/// One thing that happens to both windows.
#[derive(Arbitrary, Debug)]
pub enum Step {
    /// One of a few ids, so that many come again.
    Known(u8),
    /// Any id.
    Any(u128),
    /// A number near the last one.
    Near(i8),
    /// A number ahead of it.
    Ahead(u16),
    /// Any number.
    Far(u64),
    /// Everything is forgotten.
    Reset(u64, u64),
}

const CAPACITY: usize = 64;
const WORDS: usize = 4;

/// The deduplicating structures.
pub fn windows(steps: &[Step]) {
    let mut ids = DedupWindow::<CAPACITY>::new((0, 0));
    let mut queue = VecDeque::new();
    let mut seqs = SeqWindow::<WORDS>::new();
    let mut seen = BTreeSet::new();
    for step in steps {
        let next = seqs.next();
        match *step {
            Step::Known(id) => insert(&mut ids, &mut queue, id.into()),
            Step::Any(id) => insert(&mut ids, &mut queue, id),
            Step::Near(by) => see(&mut seqs, &mut seen, next.saturating_add_signed(by.into())),
            Step::Ahead(by) => see(&mut seqs, &mut seen, next.saturating_add(by.into())),
            Step::Far(seq) => see(&mut seqs, &mut seen, seq),
            Step::Reset(a, b) => {
                ids.reset((a, b));
                queue.clear();
            }
        }
    }
}

fn insert(window: &mut DedupWindow<CAPACITY>, queue: &mut VecDeque<u128>, id: u128) {
    assert_eq!(window.contains(id), queue.contains(&id));
    let expected = if queue.contains(&id) {
        Insert::Duplicate
    } else {
        queue.push_back(id);
        match queue.len() > CAPACITY {
            true => Insert::FreshForgetting(queue.pop_front().expect("it is not empty")),
            false => Insert::Fresh,
        }
    };
    assert_eq!(window.insert(id), expected);
    assert_eq!(window.len(), queue.len());
}

fn see(window: &mut SeqWindow<WORDS>, seen: &mut BTreeSet<u64>, seq: u64) {
    let next = seen.last().map_or(0, |last| last + 1);
    assert_eq!(window.next(), next);
    let verdict = window.insert(seq);
    match verdict {
        SeqVerdict::Duplicate => assert!(seen.contains(&seq)),
        SeqVerdict::Fresh => assert!(!seen.contains(&seq) && seq <= next),
        SeqVerdict::FreshGap(gap) => assert_eq!(seq, next + gap),
        SeqVerdict::TooOld => {
            assert!(seq == u64::MAX || next - seq > 64 * (WORDS as u64 - 1));
            return;
        }
    }
    seen.insert(seq);
    assert_eq!(window.check(seq), SeqVerdict::Duplicate);
}
