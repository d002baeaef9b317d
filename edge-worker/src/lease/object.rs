//! The Durable Object `Leases`: one for each tenant and region. It has the server's last answer on disk and renews it ahead of time, so
//! that isolates that come and go, a restart and a server that is away cost no event.
//!
//! What it keeps are keys for one tenant, region, edge and hour, and the documents that came with them; never the tenant's root. They lie in
//! the region's jurisdiction, and nothing answers for them but this Worker.

use std::{
    cell::{Cell, OnceCell},
    panic::AssertUnwindSafe,
    rc::Rc,
};

use wasm_bindgen::{JsValue, prelude::wasm_bindgen};
use worker::{
    Delay, Env, console_error,
    js_sys::{Promise, futures::future_to_promise},
    web_sys::Request,
    worker_sys::types::DurableObjectState,
};

use firsthop_core::{TenantId, Timestamp};
use firsthop_intake::spool::{Fate, Pace};

use super::{Failure, Held, Kept, PATIENCE, PAUSE, PAUSE_WITHOUT, POLL, age, no_lease};
use crate::{
    edge::Edge,
    object::{Own, Result, reply},
    platform::{chance, now},
};

/// How long the store renews what nobody has asked for, in milliseconds: a day.
const WANTED: u64 = 24 * 3_600_000;
/// How often it notes that somebody asks.
const NOTED: u64 = 3_600_000;
/// Pauses between attempts while the server is away.
const PACE: Pace = Pace { first_ms: 5_000 };

/// A tenant's leases in one region.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Leases {
    store: Rc<Store>,
}

#[wasm_bindgen]
impl Leases {
    /// Made by the platform, before the object's first request or alarm.
    #[wasm_bindgen(constructor)]
    pub fn new(state: DurableObjectState, env: Env) -> Self {
        let own = Own::new(state, env);
        let (open, fetching, asked, failures) = Default::default();
        Self { store: Rc::new(Store { own, open, fetching, asked, failures }) }
    }

    /// Gives out what is there.
    pub fn fetch(&self, request: Request) -> Promise {
        let store = Rc::clone(&self.store);
        future_to_promise(AssertUnwindSafe(async move {
            let url = request.url();
            let (path, query) = url.split_once('?').unwrap_or((&url, ""));
            let tenant = path.rsplit('/').next().and_then(|name| name.parse().ok()).ok_or("no tenant")?;
            let (status, body) = store.give(tenant, query == "news").await?;
            reply(status, body.as_deref())
        }))
    }

    /// Renews what is there.
    pub fn alarm(&self) -> Promise {
        let store = Rc::clone(&self.store);
        future_to_promise(AssertUnwindSafe(async move { store.renew().await.map(|()| JsValue::UNDEFINED) }))
    }
}

/// How the store answers: by status.
const GIVEN: u16 = 200;
const REVOKED: u16 = 401;
const NOTHING: u16 = 404;

/// Asks a tenant's store. Nothing if it does not answer.
pub(super) async fn ask(edge: &Edge, tenant: TenantId, news: bool) -> Option<Kept> {
    let name = format!("{tenant}/{}", edge.config.region);
    let path = format!("/{tenant}{}", if news { "?news" } else { "" });
    let answer = edge.lease_stores.post(&name, &path, None).await?;
    match answer.status {
        GIVEN => {
            let end = answer.body.iter().position(|&byte| byte == b'\n')?;
            let (since, rest) = answer.body.split_at(end);
            let since = std::str::from_utf8(since).ok()?.parse().ok()?;
            Some(Kept::Leases { answer: rest.to_vec(), since: Timestamp::from_millis(since) })
        }
        REVOKED => Some(Kept::Revoked),
        NOTHING => Some(Kept::Nothing),
        _ => None,
    }
}

#[derive(Debug)]
struct Store {
    own: Own,
    open: OnceCell<()>,
    /// When the request to the server that is under way began.
    fetching: Cell<Option<Timestamp>>,
    /// When the last one ended.
    asked: Cell<Timestamp>,
    /// Attempts in a row that failed.
    failures: Cell<u32>,
}

impl Store {
    fn open(&self) -> Result<()> {
        if self.open.get().is_none() {
            // Strict: otherwise a tenant's id that has no letters would be kept as a number.
            self.own.run(
                "CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID",
                &[],
            )?;
            self.open.get_or_init(|| ());
        }
        Ok(())
    }

    fn kept(&self, name: &str) -> Result<Option<JsValue>> {
        self.open()?;
        self.own.value("SELECT value FROM kept WHERE name = ?", &[name.into()])
    }

    fn keep(&self, name: &str, value: JsValue) -> Result<()> {
        self.open()?;
        let query = "INSERT INTO kept VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.own.run(query, &[name.into(), value])
    }

    fn number(&self, name: &str) -> Result<u64> {
        Ok(self.kept(name)?.and_then(|value| value.as_f64()).unwrap_or(0.0) as u64)
    }

    /// What is on disk and serves: there is a lease for now in it, for a token that this edge has.
    fn serving(&self, edge: &Edge, tenant: TenantId) -> Result<Option<(String, Held)>> {
        let Some(answer) = self.kept("answer")?.and_then(|value| value.as_string()) else { return Ok(None) };
        let since = Timestamp::from_millis(self.number("since")?);
        let Some(enrolled) = edge.enrolled(tenant) else { return Ok(None) };
        let held = enrolled.read(answer.as_bytes(), edge.config.region, since).ok();
        Ok(held.filter(|held| held.serves(now())).map(|held| (answer, held)))
    }

    /// Gives out what is on disk; what is not, or what there may be news of, is asked for.
    async fn give(&self, tenant: TenantId, news: bool) -> Result<(u16, Option<String>)> {
        let edge = self.own.edge().ok_or("not set up")?;
        if age(Timestamp::from_millis(self.number("wanted")?), now()) > NOTED {
            self.keep("wanted", JsValue::from_f64(now().as_millis() as f64))?;
            self.keep("tenant", tenant.to_string().into())?;
        }
        let mut revoked = false;
        let serves = self.serving(&edge, tenant)?.is_some();
        if !serves || news {
            while self.fetching.get().is_some_and(|began| age(began, now()) <= PATIENCE / 2) {
                Delay::from(POLL).await;
            }
            let pause = if serves { PAUSE } else { PAUSE_WITHOUT };
            if age(self.asked.get(), now()) >= pause {
                revoked = self.ask_server(&edge, tenant).await?;
            }
        }
        Ok(match self.serving(&edge, tenant)? {
            Some((answer, held)) => (GIVEN, Some(format!("{}\n{answer}", held.since.as_millis()))),
            None if revoked || self.number("revoked")? > 0 => (REVOKED, None),
            None => (NOTHING, None),
        })
    }

    /// Asks the server and keeps what it says, also that it does not know the enrolment. Whether it said that.
    async fn ask_server(&self, edge: &Edge, tenant: TenantId) -> Result<bool> {
        let Some(enrolled) = edge.enrolled(tenant) else {
            self.forget()?;
            return Ok(false);
        };
        self.fetching.set(Some(now()));
        let answer = enrolled.ask(edge).await;
        self.asked.set(now());
        self.fetching.set(None);
        let (next, revoked) = match answer {
            Ok((answer, held)) => {
                self.failures.set(0);
                self.keep("answer", String::from_utf8_lossy(&answer).into_owned().into())?;
                self.keep("since", JsValue::from_f64(held.since.as_millis() as f64))?;
                self.keep("revoked", JsValue::from_f64(0.0))?;
                // Ahead of the time at which isolates come for it.
                (Some(held.refresh_ms / 5 * 4), false)
            }
            Err(Failure::Revoked) => {
                console_error!("{{\"event\":\"enrolment-refused\",\"tenant\":\"{tenant}\"}}");
                self.forget()?;
                self.keep("revoked", JsValue::from_f64(1.0))?;
                (None, true)
            }
            Err(failure) => {
                no_lease(tenant, failure);
                self.failures.set(self.failures.get().saturating_add(1));
                let has_some = self.kept("answer")?.is_some();
                (has_some.then(|| PACE.pause(self.failures.get(), &Fate::Away, None, chance())), false)
            }
        };
        match next {
            Some(pause) => self.own.wake_at(now().as_millis() + pause).await?,
            // Nothing to keep alive: it begins anew when somebody asks.
            None => self.own.sleep().await?,
        }
        Ok(revoked)
    }

    /// Renews what is kept, as long as somebody wants it.
    async fn renew(&self) -> Result<()> {
        let Some(edge) = self.own.edge() else { return Ok(()) };
        let tenant = self.kept("tenant")?.and_then(|value| value.as_string()).and_then(|id| id.parse().ok());
        let wanted = age(Timestamp::from_millis(self.number("wanted")?), now()) <= WANTED;
        match tenant {
            Some(tenant) if wanted => self.ask_server(&edge, tenant).await.map(drop),
            // Keys that nobody asks for are not to lie about: whoever comes again gets new ones.
            _ => self.forget(),
        }
    }

    fn forget(&self) -> Result<()> {
        self.open()?;
        self.own.run("DELETE FROM kept WHERE name IN ('answer', 'since')", &[])
    }
}
