//! The Durable Object `Spool`: takes frames, and wakes up to deliver them.

use std::{
    cell::{Cell, OnceCell, RefCell},
    panic::AssertUnwindSafe,
    rc::Rc,
};

use sha2::{Digest, Sha256};
use wasm_bindgen::{JsCast, JsValue, prelude::wasm_bindgen};
use worker::{
    Env, console_error,
    js_sys::{Error as JsError, Promise, futures::future_to_promise},
    web_sys::Request,
    worker_sys::types::DurableObjectState,
};

use firsthop_core::{Envelope, Frame, Header, Trust, limits::MAX_ENVELOPE};
use firsthop_intake::spool::{Fate, Pace};

use super::{
    deliver,
    report::Report,
    status,
    table::{Held, New, Part, Table},
};
use crate::{
    arrival,
    config::SpoolConfig,
    edge::Edge,
    object::{Own, Result, reply},
    platform::{chance, now},
};

/// One shard of a tenant's spool. Its storage is the platform's: SQLite, replicated, in the jurisdiction that the namespace was asked for.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Spool {
    object: Rc<Object>,
}

#[wasm_bindgen]
impl Spool {
    /// Made by the platform, before the object's first request or alarm.
    #[wasm_bindgen(constructor)]
    pub fn new(state: DurableObjectState, env: Env) -> Self {
        let own = Rc::new(Own::new(state, env));
        let (open, armed, busy, cursor) = Default::default();
        Self { object: Rc::new(Object { own, open, armed, busy, cursor }) }
    }

    /// Takes a frame, or says how things stand.
    pub fn fetch(&self, request: Request) -> Promise {
        let object = Rc::clone(&self.object);
        future_to_promise(AssertUnwindSafe(async move {
            let (status, body) = object.answer(&request).await?;
            reply(status, body.as_deref())
        }))
    }

    /// Delivers what waits.
    pub fn alarm(&self) -> Promise {
        let object = Rc::clone(&self.object);
        future_to_promise(AssertUnwindSafe(async move {
            object.armed.set(None);
            object.busy.set(true);
            let done = deliver::deliver(&object).await;
            object.busy.set(false);
            match done {
                Ok(rest) => object.arm_next(rest).await?,
                Err(error) => {
                    let why =
                        error.dyn_ref::<JsError>().map_or_else(|| error.as_string(), |it| it.message().as_string());
                    // Whatever the platform says, and a line of JSON in any case.
                    let why = serde_json::to_string(&why).unwrap_or_default();
                    console_error!(r#"{{"event":"spool-failed","why":{why}}}"#);
                    object.wake_at(now().as_millis() + deliver::SAFETY).await?;
                }
            }
            Ok(JsValue::UNDEFINED)
        }))
    }
}

/// How it stands with the server.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// Attempts in a row of which none got through.
    pub(super) failures: u32,
    /// What the last of them met with.
    pub(super) fate: Option<Fate>,
    /// Not to be tried again before.
    pub(super) next: u64,
}

/// What the object knows, once it has looked into its database.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) table: Table,
    pub(super) held: Cell<Held>,
    pub(super) standing: RefCell<Standing>,
}

#[derive(Debug)]
pub(super) struct Object {
    own: Rc<Own>,
    open: OnceCell<Open>,
    /// When it will wake up.
    armed: Cell<Option<u64>>,
    /// It is delivering.
    busy: Cell<bool>,
    /// The source whose turn it was last, if any had one since the object woke up.
    pub(super) cursor: Cell<Option<[u8; 16]>>,
}

/// What is left when a delivery ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Something may be due.
    Due,
    /// Nothing but what is held back.
    HeldBack,
}

/// Why a frame is left here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// Only if something of its source waits, or the server is known to be away.
    Behind,
    /// The server is away.
    Away,
    /// It will not pass, while others may.
    Itself,
}

impl Object {
    /// What is on disk, read the first time.
    pub(super) fn open(&self) -> Result<&Open> {
        if let Some(open) = self.open.get() {
            return Ok(open);
        }
        let table = Table::open(&self.own)?;
        let held = Cell::new(table.held()?);
        let standing = RefCell::new(Standing::read(&table)?);
        Ok(self.open.get_or_init(|| Open { table, held, standing }))
    }

    /// The edge that the object is part of.
    pub(super) fn edge(&self) -> Option<Rc<Edge>> {
        self.own.edge()
    }

    async fn answer(&self, request: &Request) -> Result<(u16, Option<String>)> {
        let url = request.url();
        let (path, query) = url.split_once('?').unwrap_or((&url, ""));
        let left = match path.rsplit('/').next() {
            Some("behind") => Some(Left::Behind),
            Some("take") => Some(Left::Away),
            Some("keep") => Some(Left::Itself),
            _ => None,
        };
        let Some(left) = left else {
            self.arm_again().await?;
            return Ok((200, Some(self.report()?)));
        };
        let body = arrival::own_body(request, MAX_ENVELOPE).await.map_err(|_| "no body")?;
        let (status, due) = self.take(body, left, query.parse().ok().filter(|asked| *asked > 0))?;
        // Also for one that was here before: what took it may have failed before it came to this.
        if status == status::TAKEN || status == status::AGAIN {
            self.arm(due).await?;
        } else {
            self.arm_again().await?;
        }
        Ok((status, None))
    }

    /// Takes an envelope, for this reason; whoever did not take it asks for so long a pause, in seconds. Returns what it is answered with, and from when on it may be
    /// delivered.
    ///
    /// What is written here is on disk before the answer leaves: the platform holds it back until then.
    fn take(&self, envelope: Vec<u8>, left: Left, asked: Option<u64>) -> Result<(u16, u64)> {
        let Open { table, held, standing } = self.open()?;
        let edge = self.edge().ok_or("not set up")?;
        let config = edge.config.spool;
        let (source, name, events, since, trust) = {
            let frame = Frame::parse(&envelope).map_err(|error| error.code())?;
            let inside = Envelope::open(&frame).map_err(|error| error.code())?;
            let mut name = [0; 16];
            name.copy_from_slice(&Sha256::digest(inside.frame)[..16]);
            // What cannot say whose it is has nobody to wait for.
            let source = Header::peek(inside.frame).map_or(name, |header| *header.source.as_bytes());
            (source, name, frame.header().count, inside.annotation.received_ms, inside.annotation.trust)
        };
        if table.has(&name)? {
            return Ok((status::AGAIN, 0));
        }
        let is_behind = table.holds_up(&source)?;
        if left == Left::Behind && !is_behind && !standing.borrow().is_away() {
            let now_held = held.get();
            // Behind what holds up nobody, there is no place.
            return Ok((if now_held.frames == now_held.stuck { status::EMPTY } else { status::CLEAR }, 0));
        }
        // Anybody can make what nobody answers for, and the server may well refuse it: no word for that may be given here.
        if trust == Trust::Unchecked {
            return Ok((status::UNCHECKED, 0));
        }
        let bytes = envelope.len() as u64;
        if !self.has_room(config, &source, bytes, left)? {
            table.add_to_figure("full", 1)?;
            return Ok((status::FULL, 0));
        }
        // What one frame was told counts for that one; what follows for others shows when they are tried.
        let (fate, strikes) = if left == Left::Itself { (Fate::Unfit, 1) } else { (Fate::Away, 0) };
        let pause = config.pace.pause(strikes, &fate, asked, chance());
        let (strikes, due) = match left {
            _ if is_behind => (0, 0),
            Left::Itself => (strikes, now().as_millis() + pause),
            Left::Away if asked.is_some() => (strikes, now().as_millis() + pause),
            _ => (0, 0),
        };
        table.put(New { source: &source, name: &name, events, since, strikes, due, envelope: &envelope })?;
        table.add_to_figure("taken_frames", 1)?;
        table.add_to_figure("taken_events", events.into())?;
        let mut now_held = held.get();
        now_held.add(events.into(), bytes, strikes);
        held.set(now_held);
        if left == Left::Away && !standing.borrow().is_away() {
            standing.borrow_mut().failed(&Fate::Away, None, config.pace, table)?;
        }
        Ok((status::TAKEN, due))
    }

    /// Whether there is room for so many bytes more of this source: all have the whole, one source half of it, and what fails by itself a quarter.
    fn has_room(&self, config: SpoolConfig, source: &[u8], bytes: u64, left: Left) -> Result<bool> {
        let Open { table, held, .. } = self.open()?;
        let held = held.get();
        let fits = |part: Part, of: u64| {
            part.frames < config.frames.div_ceil(of) && part.bytes + bytes <= config.bytes.div_ceil(of)
        };
        let all = Part { frames: held.frames, bytes: held.bytes };
        if !fits(all, 1) || left == Left::Itself && !fits(held.struck, 4) {
            return Ok(false);
        }
        // No source has more than all have.
        Ok(fits(all, 2) || fits(table.of_source(source)?, 2))
    }

    /// Sees to it that the object wakes up for what it has just taken, which is due then.
    async fn arm(&self, due: u64) -> Result<()> {
        let next = self.open()?.standing.borrow().next.max(due);
        match self.armed.get() {
            Some(armed) if armed > next && !self.busy.get() => self.wake_at(next.max(now().as_millis())).await,
            _ => self.arm_again().await,
        }
    }

    /// Sees to it that the object wakes up if it was to and has not: an alarm is gone once it has failed often enough, and what waits must not wait for the next
    /// frame that is taken.
    async fn arm_again(&self) -> Result<()> {
        let Open { held, standing, .. } = self.open()?;
        let now = now().as_millis();
        let is_armed = self.armed.get().is_some_and(|armed| armed >= now);
        if self.busy.get() || is_armed || held.get().frames == 0 {
            return Ok(());
        }
        let next = standing.borrow().next.max(now);
        self.wake_at(next).await
    }

    /// Sees to it that the object wakes up for what it still has.
    async fn arm_next(&self, rest: Rest) -> Result<()> {
        let Open { table, held, standing } = self.open()?;
        if held.get().frames == 0 {
            self.armed.set(None);
            return self.own.sleep().await;
        }
        let due = match rest {
            Rest::Due => 0,
            Rest::HeldBack => table.next_due()?.unwrap_or_default(),
        };
        let next = standing.borrow().next.max(due);
        self.wake_at(next.max(now().as_millis())).await
    }

    pub(super) async fn wake_at(&self, at: u64) -> Result<()> {
        self.own.wake_at(at).await?;
        // Not before: one that was not set is none.
        self.armed.set(Some(at));
        Ok(())
    }

    /// How things stand, for `/statusz` and `/metrics`.
    fn report(&self) -> Result<String> {
        let Open { table, held, standing } = self.open()?;
        let (held, standing) = (held.get(), standing.borrow());
        let waits = held.frames > 0;
        let report = Report {
            frames: held.frames,
            events: held.events,
            bytes: held.bytes,
            oldest: if waits { table.oldest()? } else { None },
            next: self.armed.get().filter(|_| waits),
            failures: standing.failures,
            stuck: held.stuck,
            taken_frames: table.figure("taken_frames")?,
            taken_events: table.figure("taken_events")?,
            stored: table.figure("stored")?,
            duplicate: table.figure("duplicate")?,
            conflict: table.figure("conflict")?,
            quarantined: table.figure("quarantined")?,
            full: table.figure("full")?,
        };
        serde_json::to_string(&report).map_err(|_| "no report".into())
    }
}

impl Standing {
    fn read(table: &Table) -> Result<Self> {
        let fate = match table.figure("fate")? {
            1 => Some(Fate::Away),
            2 => Some(Fate::Limited),
            3 => Some(Fate::Refused),
            _ => None,
        };
        Ok(Self { failures: table.figure("failures")? as u32, fate, next: table.figure("next")? })
    }

    fn write(&self, table: &Table) -> Result<()> {
        let fate = match &self.fate {
            Some(Fate::Away) => 1,
            Some(Fate::Limited) => 2,
            Some(Fate::Refused) => 3,
            _ => 0,
        };
        table.set_figure("failures", self.failures.into())?;
        table.set_figure("fate", fate)?;
        table.set_figure("next", self.next)
    }

    /// Whether there is no use in trying the server at the moment. Where it is there and refuses, its refusal is the better answer.
    fn is_away(&self) -> bool {
        self.failures > 0 && self.fate == Some(Fate::Away)
    }

    pub(super) fn failed(&mut self, fate: &Fate, asked: Option<u64>, pace: Pace, table: &Table) -> Result<()> {
        self.failures = self.failures.saturating_add(1);
        self.next = now().as_millis() + pace.pause(self.failures, fate, asked, chance());
        self.fate = Some(fate.clone());
        self.write(table)
    }

    pub(super) fn succeeded(&mut self, table: &Table) -> Result<()> {
        if self.failures == 0 {
            return Ok(());
        }
        *self = Self::default();
        self.write(table)
    }
}
