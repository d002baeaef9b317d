//! The answers of one commit.
//!
//! To wake a task from outside its runtime costs more than the task has to do then. So the writer answers one of those who wait, and
//! hands it all other answers: they go out from there, inside the runtime, with one wake-up for a whole commit.

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
    rest: Rest,
}

/// The others of the same commit. They are answered when this is dropped, wherever that is: also if whoever was to pass it on has
/// gone, or has stopped waiting.
#[derive(Default)]
struct Rest(Vec<(Job, Verdict)>);

impl Drop for Rest {
    fn drop(&mut self) {
        for (job, verdict) in self.0.drain(..) {
            job.answer(Ok(verdict));
        }
    }
}

impl Answer {
    pub(super) fn one(verdict: Result<Verdict, Unavailable>) -> Self {
        Self { verdict, rest: Rest::default() }
    }

    /// Passes the others' answers on.
    pub(super) fn pass(self) -> Result<Verdict, Unavailable> {
        drop(self.rest);
        self.verdict
    }
}

/// Answers all jobs of a commit through one of them whose sender still waits.
pub(super) fn answer_all(jobs: Vec<Job>, verdicts: Vec<Verdict>) {
    let mut rest: Vec<(Job, Verdict)> = jobs.into_iter().zip(verdicts).collect();
    while let Some((job, verdict)) = rest.pop() {
        match job.reply.send(Answer { verdict: Ok(verdict), rest: Rest(rest) }) {
            Ok(()) => return,
            Err(mut refused) => rest = std::mem::take(&mut refused.rest.0),
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
        let (jobs, mut answers): (Vec<_>, Vec<_>) = (0..5).map(|_| job()).unzip();
        // The first two to be asked have gone before the commit; the third goes without looking at its answer.
        drop(answers.pop());
        drop(answers.pop());
        answer_all(jobs, (0..5).map(verdict).collect());
        assert!(answers[0].try_recv().is_err(), "one is told, and no other yet");
        drop(answers.pop());
        for (i, answer) in answers.iter_mut().enumerate() {
            assert_eq!(answer.try_recv().expect("answered").pass(), Ok(verdict(i as u32)));
        }
    }
}
