//! The answers of one commit.
//!
//! To wake a task from outside its runtime costs more than the task has to do then. So the writer answers one of those who wait, and
//! hands it all other answers: they go out from there, inside the runtime, with one wake-up for a whole commit.

use std::{iter::Zip, vec::IntoIter};

use tokio::sync::oneshot;

use super::{
    arrival::Verdict,
    queue::{Job, Unavailable},
};

/// Where a job's sender waits.
pub(super) type Reply = oneshot::Sender<Answer>;

/// What a job's sender receives.
pub(super) struct Answer {
    pub(super) verdict: Result<Verdict, Unavailable>,
    rest: Option<Rest>,
}

/// The others of the same commit. They are answered when this is dropped, wherever that is: also if whoever was to pass it on has
/// gone, or has stopped waiting.
struct Rest(Zip<IntoIter<Job>, IntoIter<Verdict>>);

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

/// Answers all jobs of a commit through the first of them whose sender still waits. It must be the first: who has sent several waits for
/// them in their order, so an answer to the first is the one that is looked at.
pub(super) fn answer_all(jobs: Vec<Job>, verdicts: Vec<Verdict>) {
    let mut rest = Rest(jobs.into_iter().zip(verdicts));
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
        (Job { work: Work::Change(Box::new(|_, _, _| Ok(()))), reply, size: 0, _held: None }, answer)
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
}
