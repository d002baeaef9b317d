//! The Durable Object `Spool`: takes frames, and wakes up to deliver them.

use std::{
    cell::{Cell, OnceCell, RefCell},
    panic::AssertUnwindSafe,
    rc::Rc,
};

use serde::Serialize;
use sha2::{Digest, Sha256};
use wasm_bindgen::{JsCast, JsValue, prelude::wasm_bindgen};
use worker::{
    Env, console_error,
    js_sys::{Error as JsError, Promise, futures::future_to_promise},
    web_sys::Request,
    worker_sys::types::DurableObjectState,
};

use firsthop_core::{Envelope, Frame, Header, limits::MAX_ENVELOPE};
use firsthop_intake::{
    fields::{self, Fault, Others, Read, needed, optional},
    spool::{Fate, Pace},
};

use super::{
    deliver, status,
    table::{Held, New, Table},
};
use crate::{
    arrival,
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
        let (open, armed, busy) = Default::default();
        Self { object: Rc::new(Object { own, open, armed, busy }) }
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
                Ok(()) => object.arm_next().await?,
                Err(error) => {
                    let why =
                        error.dyn_ref::<JsError>().map_or_else(|| error.as_string(), |it| it.message().as_string());
                    let why = why.unwrap_or_default();
                    console_error!(r#"{{"event":"spool-failed","why":{why:?}}}"#);
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
        let path = path.rsplit('/').next().unwrap_or_default();
        if path == "status" {
            return Ok((200, Some(self.report()?)));
        }
        let body = arrival::body(request, MAX_ENVELOPE).await.map_err(|_| "no body")?.to_vec();
        let taken = self.take(body, path == "behind", query.parse().unwrap_or_default())?;
        // Also for one that was here before: what took it may have failed before it came to this.
        if taken == status::TAKEN || taken == status::AGAIN {
            self.arm().await?;
        }
        Ok((taken, None))
    }

    /// Takes an envelope: in any case, or only if something goes before what is in it.
    ///
    /// What is written here is on disk before the answer leaves: the platform holds it back until then.
    fn take(&self, envelope: Vec<u8>, only_behind: bool, asked: u64) -> Result<u16> {
        let Open { table, held, standing } = self.open()?;
        let edge = self.edge().ok_or("not set up")?;
        let (source, name, events, since) = {
            let frame = Frame::parse(&envelope).map_err(|error| error.code())?;
            let inside = Envelope::open(&frame).map_err(|error| error.code())?;
            let mut name = [0; 16];
            name.copy_from_slice(&Sha256::digest(inside.frame)[..16]);
            // What cannot say whose it is has nobody to wait for.
            let source = Header::peek(inside.frame).map_or(name, |header| *header.source.as_bytes());
            (source, name, frame.header().count, inside.annotation.received_ms)
        };
        if table.has(&name)? {
            return Ok(status::AGAIN);
        }
        let mut now_held = held.get();
        if only_behind && !standing.borrow().is_away() && !table.holds_up(&source)? {
            return Ok(if now_held.frames == 0 { status::EMPTY } else { status::CLEAR });
        }
        let (bytes, config) = (envelope.len() as u64, edge.config.spool);
        if now_held.frames >= config.frames || now_held.bytes + bytes > config.bytes {
            table.add_to_figure("full", 1)?;
            return Ok(status::FULL);
        }
        table.put(New { source: &source, name: &name, events, since, envelope: &envelope })?;
        table.add_to_figure("taken_frames", 1)?;
        table.add_to_figure("taken_events", events.into())?;
        now_held.frames += 1;
        now_held.events += u64::from(events);
        now_held.bytes += bytes;
        held.set(now_held);
        if !only_behind && standing.borrow().failures == 0 {
            standing.borrow_mut().failed(&Fate::Away, Some(asked), config.pace, table)?;
        }
        Ok(status::TAKEN)
    }

    /// Sees to it that the object wakes up for what it has just taken.
    async fn arm(&self) -> Result<()> {
        if self.busy.get() {
            return Ok(());
        }
        let now = now().as_millis();
        let next = self.open()?.standing.borrow().next.max(now);
        // One that should have come already is not relied on.
        if self.armed.get().is_none_or(|armed| armed > next || armed < now) {
            self.wake_at(next).await?;
        }
        Ok(())
    }

    /// Sees to it that the object wakes up for what it still has.
    async fn arm_next(&self) -> Result<()> {
        let Open { table, held, standing } = self.open()?;
        if held.get().frames == 0 {
            self.armed.set(None);
            return self.own.sleep().await;
        }
        let due = table.next_due()?.unwrap_or_default();
        let next = standing.borrow().next.max(due);
        self.wake_at(next.max(now().as_millis())).await
    }

    pub(super) async fn wake_at(&self, at: u64) -> Result<()> {
        self.armed.set(Some(at));
        self.own.wake_at(at).await
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
            stuck: if waits { table.stuck()? } else { 0 },
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

/// What a shard says of itself.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// What waits.
    pub(crate) frames: u64,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    /// Since when the oldest frame waits, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) oldest: Option<u64>,
    /// When the next attempt is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<u64>,
    /// Attempts in a row of which none got through.
    pub(crate) failures: u32,
    /// Frames that failed while others got through, and that nothing waits for any longer.
    pub(crate) stuck: u64,
    /// What was ever taken, and what became of it.
    pub(crate) taken_frames: u64,
    pub(crate) taken_events: u64,
    pub(crate) stored: u64,
    pub(crate) duplicate: u64,
    pub(crate) conflict: u64,
    pub(crate) quarantined: u64,
    /// How often there was no room.
    pub(crate) full: u64,
}

impl Read for Report {
    fn read(json: &str) -> std::result::Result<Self, Fault> {
        let mut report = Self::default();
        fields::fill(
            json,
            Others::Skipped,
            &mut [
                needed("frames", &mut report.frames),
                needed("events", &mut report.events),
                needed("bytes", &mut report.bytes),
                optional("oldest", &mut report.oldest),
                optional("next", &mut report.next),
                needed("failures", &mut report.failures),
                needed("stuck", &mut report.stuck),
                needed("takenFrames", &mut report.taken_frames),
                needed("takenEvents", &mut report.taken_events),
                needed("stored", &mut report.stored),
                needed("duplicate", &mut report.duplicate),
                needed("conflict", &mut report.conflict),
                needed("quarantined", &mut report.quarantined),
                needed("full", &mut report.full),
            ],
        )?;
        Ok(report)
    }
}

impl std::iter::Sum for Report {
    fn sum<I: Iterator<Item = Self>>(reports: I) -> Self {
        let earliest = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        reports.fold(Self::default(), |a, b| Self {
            frames: a.frames + b.frames,
            events: a.events + b.events,
            bytes: a.bytes + b.bytes,
            oldest: earliest(a.oldest, b.oldest),
            next: earliest(a.next, b.next),
            failures: a.failures.max(b.failures),
            stuck: a.stuck + b.stuck,
            taken_frames: a.taken_frames + b.taken_frames,
            taken_events: a.taken_events + b.taken_events,
            stored: a.stored + b.stored,
            duplicate: a.duplicate + b.duplicate,
            conflict: a.conflict + b.conflict,
            quarantined: a.quarantined + b.quarantined,
            full: a.full + b.full,
        })
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
