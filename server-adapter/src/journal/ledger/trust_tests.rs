//! What nobody answers for hides nothing that a session says is missing.

use firsthop_core::{Annotation, Frame, Timestamp};

use super::{
    balance::Figures,
    model_tests::{Sent, Store, scope},
};
use crate::journal::{
    arrival::Arrival,
    quarantine::{Judged, Note, Sentence, discard, replay},
};

/// Of one source, long enough ago.
fn sent(first: u64, count: u16, trusted: bool, dropped: u32) -> Sent {
    Sent { source: 1, first, count, trusted, dropped, content: 0, ago: 4, hop: 0 }
}

fn store_of(frames: &[Sent]) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = Store::new(folder.path());
    frames.iter().for_each(|sent| store.store(sent, false));
    (folder, store)
}

fn total(store: &Store) -> Figures {
    store.balance(&scope(false)).total
}

#[test]
fn what_is_not_signed_explains_no_gap_between_signed_numbers() {
    let (_folder, mut store) = store_of(&[sent(0, 10, true, 0), sent(30, 10, true, 0)]);
    assert_eq!(total(&store).unaccounted, 20);
    // Behind them, and between them: there only its own number is one less.
    store.store(&sent(50, 1, false, u32::MAX), false);
    store.store(&sent(29, 1, false, u32::MAX), false);
    let total = total(&store);
    assert_eq!((total.unaccounted, total.untrusted), (19, 0));
    assert_eq!(total.outcome("dropped"), 2 * 4096, "no more than a frame could have brought");
}

#[test]
fn a_page_that_gave_something_up_before_its_session_raises_no_alarm() {
    let (_folder, store) = store_of(&[sent(3, 2, false, 3), sent(5, 5, true, 0)]);
    let balance = store.balance(&scope(false));
    assert!(balance.holds() && balance.gaps.is_empty(), "{balance:?}");
    assert_eq!(balance.total.issued(), 10);
}

#[test]
fn what_was_given_up_lies_before_the_frame_that_says_so() {
    // Refused numbers 10 to 19, told two frames later; 40 to 49 nobody told.
    let frames = [sent(0, 10, true, 0), sent(20, 10, true, 0), sent(30, 10, true, 10), sent(50, 10, true, 0)];
    let (_folder, store) = store_of(&frames);
    assert_eq!((total(&store).unaccounted, total(&store).issued()), (10, 60));
    // Five that never had a number are no five of the ten that were lost later.
    let (_folder, store) = store_of(&[sent(0, 10, true, 5), sent(20, 10, true, 0)]);
    assert_eq!(total(&store).unaccounted, 10);
}

#[test]
fn a_claim_that_nobody_answers_for_leaves_a_signed_number_in_doubt_until_somebody_decides() {
    for reason in ["unknown-key", "bad-signature"] {
        let (_folder, mut store) = store_of(&[sent(0, 10, true, 0), sent(30, 10, true, 0)]);
        // Wider than the gap, and once more within it.
        store.refuse(&sent(5, 20, true, 0), false, reason);
        store.refuse(&sent(12, 4, true, 0), false, reason);
        let before = total(&store);
        assert_eq!((before.unaccounted, before.doubtful), (5, 15), "{reason}");
        assert!(!store.balance(&scope(false)).holds());

        let note = Note { now: Timestamp::from_millis(1), who: "somebody".into(), why: "forged".into() };
        store.transact(false, |connection, tables, counts| {
            discard(connection, tables, counts, 1, &note).expect("discarded");
        });
        let after = total(&store);
        assert_eq!((after.unaccounted, after.doubtful), (5, 0), "{reason}");
        // Damaged on the way, the ten that were stored have come again. The others have not.
        let discarded = if reason == "bad-signature" { 15 } else { 20 };
        assert_eq!(after.outcome("discarded"), discarded, "{reason}");
    }
}

#[test]
fn what_was_damaged_on_the_way_claims_nothing() {
    let (_folder, mut store) = store_of(&[sent(0, 10, true, 0), sent(30, 10, true, 0)]);
    store.refuse(&sent(10, 20, true, 0), false, "bad-crc");
    assert_eq!((total(&store).unaccounted, total(&store).doubtful), (20, 0));
}

/// What was refused is good now, and comes out of quarantine.
fn put_right(store: &mut Store, id: i64, sent: &Sent, reason: &'static str) {
    let body = sent.bytes();
    let frame = Frame::parse(&body).expect("a frame");
    let noted = Annotation::default().into();
    let arrival = Arrival::new(&body, &frame, false, sent.at(), Some(&noted)).expect("an arrival");
    let judged = Judged { id, reason: reason.into(), now: Sentence::Leaves(vec![arrival], Vec::new()) };
    store.transact(false, |connection, tables, counts| {
        let replayed = replay(connection, tables, counts, &judged, Timestamp::from_millis(1)).expect("replayed");
        assert_eq!((replayed.entries, replayed.stored), (1, sent.count.into()));
    });
}

/// What a refused frame had to tell is told again by its source's next frame. So a replay of the refused one tells what is left, and hides nothing.
#[test]
fn a_replay_tells_what_was_given_up_only_where_nothing_else_has() {
    const REASON: &str = "unknown-key";
    let refused = sent(30, 10, true, 20);
    // What the frame behind it tells, how many are lost behind that, and what is missing and dropped before and after the replay.
    for (told, lost, before, after) in [
        (20, 0, (0, 20), (0, 20)),
        (20, 5, (5, 20), (5, 20)),
        // It had been acknowledged to its source, by an edge's spool: nobody tells it again.
        (0, 0, (20, 0), (0, 20)),
        (0, 5, (25, 0), (5, 20)),
        (12, 0, (8, 12), (0, 20)),
        // Three of its own besides.
        (23, 0, (0, 23), (0, 23)),
    ] {
        let (_folder, mut store) = store_of(&[sent(0, 10, true, 0)]);
        store.refuse(&refused, true, REASON);
        store.store(&sent(if told > 20 { 43 } else { 40 }, 10, true, told), false);
        let end = if told > 20 { 53 } else { 50 };
        store.store(&sent(end + lost, 10, true, 0), false);
        let figures = |store: &Store| {
            let total = total(store);
            ((total.unaccounted, total.outcome("dropped")), total.issued())
        };
        let issued = (end + lost + 10) as i64;
        assert_eq!(figures(&store), (before, issued), "{told} told, {lost} lost");
        put_right(&mut store, 1, &refused, REASON);
        assert_eq!(figures(&store), (after, issued), "{told} told, {lost} lost, replayed");
        assert_eq!(total(&store).outcome("quarantined"), 0);
    }
}
