//! Delivery: what waits goes to the server, in order per source, some sources side by side.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use futures_util::future::join_all;
use worker::{console_error, console_log};

use firsthop_core::{Envelope, Frame, Header};
use firsthop_intake::spool::{Fate, Pace, STRIKES, lanes};

use super::{
    object::{Object, Open},
    table::Waiting,
};
use crate::{
    edge::Edge,
    forward::{self, hand_over},
    lease::Want,
    object::Result,
    platform::{chance, now},
};

/// Sources that are served at a time. The platform allows six connections that wait for an answer.
const LANES: usize = 6;
/// Frames that are looked at at a time.
const WINDOW: u32 = 256;
/// How long one wake-up lasts at most before the next one, in milliseconds, besides what is under way by then.
const BUDGET: u64 = 20_000;
/// When the object wakes up again if it ends in the middle of a delivery, in milliseconds: later than any request to the server lasts.
pub(super) const SAFETY: u64 = 30_000;

/// Delivers what is due, as long as the server takes it.
pub(super) async fn deliver(object: &Rc<Object>) -> Result<()> {
    let open = object.open()?;
    let began = now().as_millis();
    if open.held.get().frames == 0 || open.standing.borrow().next > began {
        return Ok(());
    }
    // If this ends in the middle, by a restart or a defect, what waits is not forgotten.
    object.wake_at(began + SAFETY).await?;
    // Not set up: it is tried again later, and not at once.
    let edge = object.edge().ok_or("not set up")?;
    loop {
        let due = open.table.due(now().as_millis(), WINDOW)?;
        if due.is_empty() {
            return Ok(());
        }
        let lanes = lanes(due.into_iter().map(|frame| (frame.source, frame)));
        let round = Round {
            lanes: RefCell::new(lanes.into_iter().map(|(_, lane)| lane).collect()),
            delivered: Cell::default(),
            failed: RefCell::default(),
            until: began + BUDGET,
        };
        for result in join_all((0..LANES).map(|_| round.run(open, &edge))).await {
            result?;
        }
        if !round.settle(open, edge.config.spool.pace)? || round.is_late() {
            return Ok(());
        }
    }
}

/// What is due, on its way.
struct Round {
    lanes: RefCell<VecDeque<Vec<Waiting>>>,
    delivered: Cell<u32>,
    failed: RefCell<Vec<Failed>>,
    until: u64,
}

struct Failed {
    frame: Waiting,
    fate: Fate,
    asked: Option<u64>,
}

impl Failed {
    /// Whether it says nothing of the others.
    fn is_its_own(&self) -> bool {
        self.fate == Fate::Unfit || self.frame.strikes >= STRIKES && !self.is_of_the_server()
    }

    /// Whether it says nothing of the frame, even if others got through: the server wants less, or names a time for what it cannot do now.
    const fn is_of_the_server(&self) -> bool {
        match self.fate {
            Fate::Limited => true,
            Fate::Away => self.asked.is_some(),
            _ => false,
        }
    }
}

impl Round {
    /// Serves one source after the other.
    async fn run(&self, open: &Open, edge: &Edge) -> Result<()> {
        while !self.is_late() && !self.is_hopeless() {
            let Some(lane) = self.lanes.borrow_mut().pop_front() else { break };
            for frame in lane {
                if self.is_late() || !self.send(open, edge, frame).await? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Sends one frame. Whether the next one of its source may follow.
    async fn send(&self, open: &Open, edge: &Edge, frame: Waiting) -> Result<bool> {
        let Some(kept) = open.table.envelope(frame.id)? else { return Ok(true) };
        let signed = sign_again(edge, &kept).await;
        let (fate, answer) = hand_over(&edge.config.upstream, signed.as_deref().unwrap_or(&kept)).await;
        let (tenant, count) =
            Header::peek(&kept).map_or_else(|_| Default::default(), |it| (it.tenant, u64::from(it.count)));
        match fate {
            Fate::Stored(receipt) => {
                let became =
                    [("stored", receipt.stored), ("duplicate", receipt.duplicate), ("conflict", receipt.conflict)];
                for (name, events) in became.into_iter().filter(|(_, events)| *events > 0) {
                    open.table.add_to_figure(name, events.into())?;
                }
            }
            // The server has looked at it and keeps it in quarantine: that is an end, too.
            Fate::SetAside => open.table.add_to_figure("quarantined", count)?,
            fate => {
                if let (Fate::Refused, Some(enrolled)) = (&fate, edge.enrolled(tenant)) {
                    enrolled.doubt();
                }
                let asked = answer.and_then(|answer| answer.asked());
                self.failed.borrow_mut().push(Failed { frame, fate, asked });
                return Ok(false);
            }
        }
        open.table.remove(frame.id)?;
        let mut held = open.held.get();
        held.frames = held.frames.saturating_sub(1);
        held.events = held.events.saturating_sub(count);
        held.bytes = held.bytes.saturating_sub(kept.len() as u64);
        open.held.set(held);
        self.delivered.set(self.delivered.get() + 1);
        let failures = open.standing.borrow().failures;
        if failures > 0 {
            console_log!(r#"{{"event":"server-back","failures":{failures},"waiting":{}}}"#, held.frames);
            open.standing.borrow_mut().succeeded(&open.table)?;
        }
        Ok(true)
    }

    /// Draws the conclusions. Whether it is of use to go on.
    ///
    /// If some got through, the others' failures are their own, unless the server speaks of itself: each is held back, and with it what is
    /// behind it of its source. If none did, the server is away, and nothing is held against any of them but what is said of their very bytes.
    fn settle(&self, open: &Open, pace: Pace) -> Result<bool> {
        let some_got_through = self.delivered.get() > 0;
        let failed = self.failed.borrow();
        for failed in
            failed.iter().filter(|failed| failed.is_its_own() || some_got_through && !failed.is_of_the_server())
        {
            let strikes = failed.frame.strikes + 1;
            let pause = match strikes.checked_sub(STRIKES) {
                // It takes somebody to look into it.
                Some(more) => pace.pause(more + 1, &Fate::Refused, failed.asked, chance()),
                None => pace.pause(strikes, &failed.fate, failed.asked, chance()),
            };
            if strikes == STRIKES {
                console_error!(r#"{{"event":"spool-stuck","refused":{}}}"#, failed.fate == Fate::Refused);
            }
            open.table.hold_back(&failed.frame, strikes, now().as_millis() + pause)?;
        }
        // The most hopeful of what was met with: somebody who is away comes back by himself.
        let weight = |failed: &&Failed| match failed.fate {
            Fate::Refused => 2,
            Fate::Limited => 1,
            _ => 0,
        };
        let of_all = |failed: &&Failed| !failed.is_its_own() && (!some_got_through || failed.is_of_the_server());
        match failed.iter().filter(of_all).min_by_key(weight) {
            Some(first) => {
                let asked = failed.iter().filter_map(|failed| failed.asked).max();
                open.standing.borrow_mut().failed(&first.fate, asked, pace, &open.table)?;
                Ok(false)
            }
            None => {
                // Whoever has something against single frames is there.
                if failed.iter().all(|failed| failed.fate == Fate::Unfit) {
                    open.standing.borrow_mut().succeeded(&open.table)?;
                }
                Ok(true)
            }
        }
    }

    fn is_late(&self) -> bool {
        now().as_millis() >= self.until
    }

    /// None has got through, and not for reasons of its own; or the server wants no more for now.
    fn is_hopeless(&self) -> bool {
        let none_got_through = self.delivered.get() == 0;
        let failed = self.failed.borrow();
        failed.iter().any(|failed| !failed.is_its_own() && (none_got_through || failed.is_of_the_server()))
    }
}

/// The envelope, signed with what this edge holds now, if it was signed with something else. Nothing if it may go as it is.
///
/// The producer's frame inside, and what was noted when it came, stay as they are: they are what the server knows an event by.
async fn sign_again(edge: &Edge, envelope: &[u8]) -> Option<Vec<u8>> {
    let frame = Frame::parse(envelope).ok()?;
    let inside = Envelope::open(&frame).ok()?;
    let header = frame.header();
    let enrolled = edge.enrolled(header.tenant)?;
    if enrolled.account(now()).is_none() || enrolled.is_due(Want::Signing, now()) {
        enrolled.fetch(edge, Want::Signing, false).await;
    }
    let account = enrolled.account(now())?;
    if inside.worker == account.tenant.worker && account.leases.get(header.key_id, header.epoch).is_ok() {
        return None;
    }
    let noted = match &inside.notes {
        Some(notes) => (&inside.annotation, notes).into(),
        None => (&inside.annotation).into(),
    };
    forward::envelope(enrolled, &account, noted, inside.frame, header.count, now()).await
}
