//! Delivery: what waits goes to the server, in order per source, some sources side by side.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use futures_util::future::join_all;
use worker::{console_error, console_log};

use firsthop_core::{Envelope, Frame, Header};
use firsthop_intake::spool::{Again, Fate, Inside, Outlook, Pace, Round, STRIKES};

use super::{
    object::{Object, Open, Rest},
    table::Waiting,
};
use crate::{
    edge::Edge,
    forward::{self, hand_over},
    keys::Signable,
    lease::Want,
    object::Result,
    platform::{chance, now},
};

/// Sources that are served at a time. The platform allows six connections that wait for an answer.
const LANES: usize = 6;
/// Frames of one source that are sent before it is another one's turn.
const TURN: u32 = 8;
/// Frames that were held back and are looked at at a time: more than can be on their way, or have failed for no reason of their own.
const WINDOW: u32 = 64;
/// How long one wake-up lasts at most before the next one, in milliseconds, besides what is under way by then.
const BUDGET: u64 = 20_000;
/// When the object wakes up again if it ends in the middle of a delivery, in milliseconds: later than any request to the server lasts.
pub(super) const SAFETY: u64 = 30_000;

/// Delivers what is due, as long as the server takes it.
pub(super) async fn deliver(object: &Rc<Object>) -> Result<Rest> {
    let open = object.open()?;
    let began = now().as_millis();
    if open.held.get().frames == 0 || open.standing.borrow().next > began {
        return Ok(Rest::Due);
    }
    // If this ends in the middle, by a restart or a defect, what waits is not forgotten.
    object.wake_at(began + SAFETY).await?;
    // Not set up: it is tried again later, and not at once.
    let edge = object.edge().ok_or("not set up")?;
    // Where nothing got through, it may be for those that were tried.
    if open.standing.borrow().failures > 0
        && let Some(source) = open.table.somewhere(chance())?
    {
        object.cursor.set(Some(source));
    }
    let delivery = Delivery {
        open,
        edge: &edge,
        cursor: &object.cursor,
        round: RefCell::default(),
        serving: RefCell::default(),
        failed: RefCell::default(),
        until: began + BUDGET,
    };
    let mut rest = Rest::HeldBack;
    for result in join_all((0..LANES).map(|_| delivery.run())).await {
        if result? == Rest::Due {
            rest = Rest::Due;
        }
    }
    delivery.settle(edge.config.spool.pace)?;
    Ok(rest)
}

/// One wake-up's work.
struct Delivery<'a> {
    open: &'a Open,
    edge: &'a Edge,
    /// The source whose turn it was last, if any had one.
    cursor: &'a Cell<Option<[u8; 16]>>,
    round: RefCell<Round>,
    /// The sources that have something on its way.
    serving: RefCell<Vec<[u8; 16]>>,
    failed: RefCell<Vec<Failed>>,
    until: u64,
}

struct Failed {
    frame: Waiting,
    bytes: u64,
    fate: Fate,
    asked: Option<u64>,
}

impl Delivery<'_> {
    /// Serves one source after the other.
    async fn run(&self) -> Result<Rest> {
        while self.goes_on() {
            let Some(first) = self.next()? else { return Ok(Rest::HeldBack) };
            self.serving.borrow_mut().push(first.source);
            let done = self.serve(first).await;
            self.serving.borrow_mut().retain(|source| *source != first.source);
            done?;
        }
        Ok(Rest::Due)
    }

    /// Sends what waits of a source, for as long as it is its turn.
    async fn serve(&self, first: Waiting) -> Result<()> {
        let mut next = Some(first);
        for _ in 0..TURN {
            let Some(frame) = next.filter(|frame| frame.due <= now().as_millis()) else { break };
            if !self.goes_on() || !self.send(frame).await? {
                break;
            }
            next = self.open.table.first_of(&frame.source)?;
        }
        Ok(())
    }

    /// What goes next: first the sources that nothing is known against, in turn; then what was held back and is due.
    fn next(&self) -> Result<Option<Waiting>> {
        let table = &self.open.table;
        let (mut behind, mut is_around) = (self.cursor.get(), false);
        loop {
            match table.next_source(behind.as_ref().map_or(&[], |source| source))? {
                Some(frame) if self.is_free(&frame) => {
                    self.cursor.set(Some(frame.source));
                    return Ok(Some(frame));
                }
                Some(frame) => behind = Some(frame.source),
                None if is_around || behind.is_none() => break,
                None => (behind, is_around) = (None, true),
            }
        }
        let due = table.due(now().as_millis(), WINDOW)?;
        Ok(due.into_iter().find(|frame| self.is_free(frame)))
    }

    /// Neither of a source that is being served, nor one that has failed.
    fn is_free(&self, frame: &Waiting) -> bool {
        let has_failed = |failed: &Failed| failed.frame.source == frame.source;
        !self.serving.borrow().contains(&frame.source) && !self.failed.borrow().iter().any(has_failed)
    }

    /// Sends one frame. Whether the next one of its source may follow.
    async fn send(&self, waiting: Waiting) -> Result<bool> {
        let Self { open, edge, .. } = self;
        let Some(kept) = open.table.envelope(waiting.id)? else { return Ok(true) };
        let bytes = kept.len() as u64;
        let fail = |fate: Fate, asked| {
            self.round.borrow_mut().fail(waiting.strikes, &fate, asked);
            self.failed.borrow_mut().push(Failed { frame: waiting, bytes, fate, asked });
            Ok(false)
        };
        // It was one when it came: a Worker of another version may have taken it.
        let Ok(frame) = Frame::parse(&kept) else { return fail(Fate::Unfit, None) };
        let Ok(envelope) = Envelope::open(&frame) else { return fail(Fate::Unfit, None) };
        let header = *frame.header();
        let events = u64::from(header.count);
        let signed = self.sign_again(&frame, &envelope).await;
        let own = Header::peek(envelope.frame).ok().filter(|_| envelope.annotation.refused.is_empty());
        let inside = own.as_ref().map_or(Inside::Refused(header.count), Inside::Frame);
        self.round.borrow_mut().ask();
        let (fate, answer) = hand_over(&edge.config.upstream, signed.as_deref().unwrap_or(&kept), inside).await;
        match fate {
            Fate::Stored(receipt) => {
                let became =
                    [("stored", receipt.stored), ("duplicate", receipt.duplicate), ("conflict", receipt.conflict)];
                for (name, events) in became.into_iter().filter(|(_, events)| *events > 0) {
                    open.table.add_to_figure(name, events.into())?;
                }
            }
            // The server has looked at it and keeps it in quarantine: that is an end, too.
            Fate::SetAside => open.table.add_to_figure("quarantined", events)?,
            fate => {
                if let (Fate::Refused, Some(enrolled)) = (&fate, edge.enrolled(header.tenant)) {
                    enrolled.doubt();
                }
                return fail(fate, answer.and_then(|answer| answer.asked()));
            }
        }
        open.table.remove(waiting.id)?;
        let mut held = open.held.get();
        held.remove(events, bytes, waiting.strikes);
        open.held.set(held);
        self.round.borrow_mut().pass();
        let failures = open.standing.borrow().failures;
        if failures > 0 {
            console_log!(r#"{{"event":"server-back","failures":{failures},"waiting":{}}}"#, held.frames);
            open.standing.borrow_mut().succeeded(&open.table)?;
        }
        Ok(true)
    }

    /// Draws the conclusions: what has failed is held back, and what is behind it of its source waits for it; or all wait for the server.
    fn settle(&self, pace: Pace) -> Result<()> {
        let Open { table, held, standing } = self.open;
        let round = self.round.borrow();
        for Failed { frame, bytes, fate, asked } in self.failed.borrow().iter() {
            let Again { strikes, after_ms } = round.again(frame.strikes, fate, *asked, pace, chance());
            if strikes == STRIKES && frame.strikes < STRIKES {
                let refused = matches!(fate, Fate::Refused | Fate::Barred);
                console_error!(r#"{{"event":"spool-stuck","refused":{refused}}}"#);
            }
            table.hold_back(frame.id, strikes, now().as_millis() + after_ms)?;
            let mut all = held.get();
            all.strike(*bytes, frame.strikes, strikes);
            held.set(all);
        }
        match round.outlook() {
            Outlook::Same => Ok(()),
            Outlook::There => standing.borrow_mut().succeeded(table),
            Outlook::Failed(fate, asked) => standing.borrow_mut().failed(&fate, asked, pace, table),
        }
    }

    fn goes_on(&self) -> bool {
        now().as_millis() < self.until && self.round.borrow().goes_on()
    }

    /// The envelope, signed with what this edge holds now, if it was signed with something else. Nothing if it may go as it is.
    ///
    /// The producer's frame inside, and what was noted when it came, stay as they are: they are what the server knows an event by.
    async fn sign_again(&self, frame: &Frame<'_>, inside: &Envelope<'_>) -> Option<Signable> {
        let header = frame.header();
        let enrolled = self.edge.enrolled(header.tenant)?;
        if enrolled.account(now()).is_none() || enrolled.is_due(Want::Signing, now()) {
            // The platform counts it like any other request.
            self.round.borrow_mut().ask();
            enrolled.fetch(self.edge, Want::Signing, false).await;
        }
        let account = enrolled.account(now())?;
        if inside.worker == account.tenant.worker && account.leases.get(header.key_id, header.epoch).is_ok() {
            return None;
        }
        let noted = match &inside.notes {
            Some(notes) => (&inside.annotation, notes).into(),
            None => (&inside.annotation).into(),
        };
        forward::envelope(enrolled, &account, noted, inside.frame.into(), header.count, now()).await
    }
}
