//! The answers of one commit.
//!
//! To wake a task from outside its runtime costs more than the task has to do then. So the writer answers one of those who wait, and
//! hands it all other answers: they go out from there, inside the runtime, with one wake-up for a whole commit.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU32, Ordering},
    vec::IntoIter,
};

use tokio::sync::oneshot;

use super::{
    arrival::Verdict,
    queue::{Job, Unavailable},
};

/// A runtime that has one thread: those who wait there are woken there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lane(u32);

thread_local! {
    static LANE: Cell<Lane> = const { Cell::new(Lane(0)) };
}

impl Lane {
    /// The lane of this thread: of all that have none of their own, one.
    pub(super) fn here() -> Self {
        LANE.get()
    }

    /// Gives this thread a lane of its own.
    pub(crate) fn enter() {
        static LAST: AtomicU32 = AtomicU32::new(0);
        LANE.set(Self(LAST.fetch_add(1, Ordering::Relaxed) + 1));
    }
}

/// How a job's sender is told.
pub(super) type Reply = oneshot::Sender<Answer>;

/// What a job's sender receives.
pub(super) struct Answer {
    pub(super) verdict: Result<Verdict, Unavailable>,
    rest: Option<Rest>,
}

/// The others of the same commit. They are answered when this is dropped, wherever that is: also if whoever was to pass it on has
/// gone, or has stopped waiting.
struct Rest(IntoIter<(Job, Verdict)>);

impl Drop for Rest {
    fn drop(&mut self) {
        for (job, verdict) in self.0.by_ref() {
            job.answer(Ok(verdict));
        }
    }
}

impl Answer {
    pub(super) fn one(verdict: Result<Verdict, Unavailable>) -> Self {
        Self { verdict, rest: None }
    }

    /// Passes the others' answers on.
    pub(super) fn pass(self) -> Result<Verdict, Unavailable> {
        drop(self.rest);
        self.verdict
    }
}

/// Answers all jobs of a commit: those of each lane through the first of them whose sender still waits. It must be the first: who has sent
/// several waits for them in their order, so an answer to the first is the one that is looked at.
pub(super) fn answer_all(jobs: Vec<Job>, verdicts: Vec<Verdict>) {
    let count = jobs.len();
    let mut lanes: Vec<(Lane, Vec<(Job, Verdict)>)> = Vec::new();
    for (job, verdict) in jobs.into_iter().zip(verdicts) {
        let at = lanes.iter().position(|(lane, _)| *lane == job.lane).unwrap_or_else(|| {
            lanes.push((job.lane, Vec::with_capacity(count)));
            lanes.len() - 1
        });
        lanes[at].1.push((job, verdict));
    }
    lanes.into_iter().for_each(|(_, jobs)| answer_lane(jobs));
}

fn answer_lane(jobs: Vec<(Job, Verdict)>) {
    let mut rest = Rest(jobs.into_iter());
    while let Some((job, verdict)) = rest.0.next() {
        match job.reply.send(Answer { verdict: Ok(verdict), rest: Some(rest) }) {
            Ok(()) => return,
            Err(Answer { rest: Some(others), .. }) => rest = others,
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::queue::Work;

    fn job() -> (Job, oneshot::Receiver<Answer>) {
        let (reply, answer) = oneshot::channel();
        (
            Job { work: Work::Change(Box::new(|_, _, _| Ok(()))), reply, lane: Lane::here(), size: 0, _held: None },
            answer,
        )
    }

    fn verdict(stored: u32) -> Verdict {
        Verdict { stored, ..Verdict::default() }
    }

    #[test]
    fn everyone_gets_their_own_answer_also_from_one_who_has_gone() {
        let (jobs, answers): (Vec<_>, Vec<_>) = (0..6).map(|_| job()).unzip();
        let mut answers = answers.into_iter();
        // Two have gone before the commit; the third goes without looking at its answer.
        drop(answers.by_ref().take(2).collect::<Vec<_>>());
        answer_all(jobs, (0..6).map(verdict).collect());
        let third = answers.next();
        let mut others: Vec<_> = answers.collect();
        assert!(others.iter_mut().all(|answer| answer.try_recv().is_err()), "one is told, and no other yet");
        drop(third);
        for (i, answer) in (3..).zip(&mut others) {
            assert_eq!(answer.try_recv().ok().map(Answer::pass), Some(Ok(verdict(i))));
        }
    }

    /// As a batch that became several frames, or an event and a refusal.
    #[test]
    fn one_who_sent_several_and_waits_in_their_order_waits_for_nothing_else() {
        let (jobs, answers): (Vec<_>, Vec<_>) = (0..3).map(|_| job()).unzip();
        answer_all(jobs, (0..3).map(verdict).collect());
        for (i, mut answer) in (0..).zip(answers) {
            assert_eq!(answer.try_recv().ok().map(Answer::pass), Some(Ok(verdict(i))));
        }
    }

    /// Each lane has one who passes on, and those of another wait for nobody there.
    #[test]
    fn of_each_lane_one_is_told() {
        let (mut jobs, answers): (Vec<_>, Vec<_>) = (0..6).map(|_| job()).unzip();
        jobs.iter_mut().zip([1, 2, 1, 2, 1, 2]).for_each(|(job, lane)| job.lane = Lane(lane));
        answer_all(jobs, (0..6).map(verdict).collect());
        let mut told: Vec<_> = (0..).zip(answers).map(|(i, mut answer)| (i, answer.try_recv().ok(), answer)).collect();
        let at_once: Vec<u32> = told.iter().filter(|(_, told, _)| told.is_some()).map(|(i, ..)| *i).collect();
        assert_eq!(at_once, [0, 1]);
        for first in [1, 0] {
            assert_eq!(told[first].1.take().map(Answer::pass), Some(Ok(verdict(first as u32))));
            let others = told.iter_mut().filter(|(i, ..)| *i as usize > 1 && *i as usize % 2 == first);
            for (i, _, answer) in others {
                assert_eq!(answer.try_recv().ok().map(Answer::pass), Some(Ok(verdict(*i))));
            }
        }
    }
}
