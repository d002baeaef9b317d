//! What a sink is to do in between: deliver again, try what was refused once more, or forget it.

use std::{collections::BTreeSet, sync::mpsc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Delivery, Failure, Rejected,
    batch::Batch,
    records::{Dead, ORDERED},
    runner::{Following, Runner, Shared},
};
use crate::Error;

/// How long who gives an order waits for it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Dead letters that are tried at once.
const LETTERS: usize = 256;

/// An order, and whom to tell.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) order: Order,
    reply: mpsc::Sender<Result<Ordered, Failure>>,
}

/// Something that a sink is to do in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Order {
    /// Deliver again what follows the frame before this one.
    From(i64),
    /// Try again what was refused.
    Retry,
    /// Forget what was refused.
    Discard,
}

/// What came of an order: events that were delivered or forgotten, and events that stay refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ordered {
    pub(crate) done: u64,
    pub(crate) refused: u64,
}

impl Runner {
    /// Has the sink do something in between, and waits for it. Blocks.
    pub(crate) fn order(&self, order: Order) -> Result<Ordered, Error> {
        let (reply, answer) = mpsc::channel();
        {
            let mut state = self.shared.lock();
            if state.ended {
                return Err(Error::Fault(format!("sink {}: it has ended; see the log", self.name())));
            }
            if state.order.is_some() {
                return Err(Error::Fault(format!("sink {}: it has another order to do first", self.name())));
            }
            state.order = Some(Asked { order, reply });
        }
        self.shared.changed.notify_all();
        self.shared.follower.wake();
        match answer.recv_timeout(PATIENCE) {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(failure)) => Err(Error::Fault(format!("sink {}: {}", self.name(), failure.what))),
            Err(_) => {
                self.shared.lock().order = None;
                Err(Error::Fault(format!("sink {}: it is busy or stopping; try again", self.name())))
            }
        }
    }
}

impl Shared {
    /// Orders that need an open sink; true: there is one that needs a closed one.
    pub(super) fn obey_open(&self, on: &mut Following) -> Result<bool, Failure> {
        let asked = {
            let mut state = self.lock();
            match &state.order {
                None => return Ok(false),
                Some(asked) if asked.order != Order::Retry => return Ok(true),
                Some(_) => state.order.take(),
            }
        };
        if let Some(asked) = asked {
            let result = self.retry(on);
            let failed = result.as_ref().err().cloned();
            // Whoever asked may have gone.
            let _ = asked.reply.send(result);
            self.count_dead(on)?;
            if let Some(failure) = failed {
                return Err(failure);
            }
        }
        Ok(false)
    }

    /// Orders that need a closed sink.
    pub(super) fn obey(&self) {
        let asked = {
            let mut state = self.lock();
            if state.order.as_ref().is_none_or(|asked| asked.order == Order::Retry) {
                return;
            }
            state.order.take()
        };
        if let Some(Asked { order, reply }) = asked {
            let result = match order {
                Order::From(frame) => self.plan.move_before(frame).map(|()| {
                    self.asks_again(frame);
                    Ordered::default()
                }),
                Order::Discard => self.discard(),
                // Left for an open sink, above.
                Order::Retry => Ok(Ordered::default()),
            };
            let _ = reply.send(result);
        }
    }

    fn discard(&self) -> Result<Ordered, Failure> {
        let records = self.plan.records(ORDERED)?;
        let mut done = 0;
        loop {
            let letters = records.dead(0, LETTERS)?;
            if letters.is_empty() {
                return Ok(Ordered { done, refused: 0 });
            }
            records.forget(&letters)?;
            done += letters.len() as u64;
        }
    }

    /// Tries every dead letter once.
    fn retry(&self, on: &mut Following) -> Result<Ordered, Failure> {
        let records = self.plan.records(ORDERED)?;
        let mut total = Ordered::default();
        let mut after = 0;
        loop {
            let mut letters = records.dead(after, LETTERS)?;
            let Some(last) = letters.last() else { return Ok(total) };
            after = last.id;
            let mut batch = Batch::of(letters.iter().map(|letter| letter.row.clone()).collect());
            while batch.len() > 0 {
                let Delivery { done, rejected, failed } = on.sink.deliver(&batch);
                on.sink.flush()?;
                let tried: Vec<Dead> = letters.drain(..done).collect();
                let refused: BTreeSet<usize> = rejected.iter().map(|rejected| rejected.index).collect();
                for Rejected { index, reason } in &rejected {
                    records.bury(&tried[*index].row.row(), reason)?;
                }
                let (refused, delivered): (Vec<_>, Vec<_>) =
                    tried.into_iter().enumerate().partition(|(index, _)| refused.contains(index));
                // The cursor stays, and the mark may have moved.
                on.saved.mark = on.sink.mark();
                if on.records.is_some() {
                    records.save(&on.saved, &[])?;
                }
                let delivered: Vec<Dead> = delivered.into_iter().map(|(_, letter)| letter).collect();
                records.forget(&delivered)?;
                total.done += delivered.len() as u64;
                total.refused += refused.len() as u64;
                self.stats.rows.add(delivered.len() as u64);
                batch.advance(done);
                if let Some(failure) = failed {
                    return Err(failure);
                }
            }
        }
    }
}
