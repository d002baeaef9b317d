//! The Durable Object `Leases`: one for each tenant and region. It has the server's last answer on disk and renews it ahead of time, so
//! that isolates that come and go, a restart and a server that is away cost no event.
//!
//! What it keeps are keys for one tenant, region, edge and hour, once an isolate has asked for them that may read; never the tenant's root. They
//! lie in the region's jurisdiction, and nothing answers for them but this Worker. The documents it keeps for good, the newest that were signed: whoever
//! sends an isolate that has just started an older one, the region knows better.

use std::{
    cell::{Cell, OnceCell},
    panic::AssertUnwindSafe,
    rc::Rc,
};

use wasm_bindgen::{JsValue, prelude::wasm_bindgen};
use worker::{
    Env, console_error,
    js_sys::{Promise, futures::future_to_promise},
    web_sys::Request,
    worker_sys::types::DurableObjectState,
};

use firsthop_core::{TenantId, Timestamp};
use firsthop_intake::{
    document::Signed,
    fields::Read as _,
    spool::{Fate, Pace},
};

use super::{Enrolled, Failure, Given, Held, Kept, PATIENCE, PAUSE, PAUSE_WITHOUT, Want, age, no_lease, turn::Turn};
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
        let (open, turns, failures) = Default::default();
        Self { store: Rc::new(Store { own, open, turns, failures }) }
    }

    /// Gives out what is there.
    pub fn fetch(&self, request: Request) -> Promise {
        let store = Rc::clone(&self.store);
        future_to_promise(AssertUnwindSafe(async move {
            let url = request.url();
            let (path, query) = url.split_once('?').unwrap_or((&url, ""));
            let tenant = path.rsplit('/').next().and_then(|name| name.parse().ok()).ok_or("no tenant")?;
            let says = |word| query.split('&').any(|said| said == word);
            let want = match (says(DOCUMENTS), says(SIGNING)) {
                (true, _) => Want::Documents,
                (_, true) => Want::Signing,
                _ => Want::Keys,
            };
            let (status, body) = store.give(tenant, want, says(NEWS)).await?;
            reply(status, body.as_deref())
        }))
    }

    /// Renews what is there.
    pub fn alarm(&self) -> Promise {
        let store = Rc::clone(&self.store);
        future_to_promise(AssertUnwindSafe(async move { store.renew().await.map(|()| JsValue::UNDEFINED) }))
    }
}

/// When somebody has asked for them last.
const WANTED_DOCUMENTS: &str = "looked";
const WANTED_KEYS: &str = "wanted";

/// How the store answers: by status.
const GIVEN: u16 = 200;
const REVOKED: u16 = 401;
const NOTHING: u16 = 404;

/// What is asked of it: by words in the query. Without one of these two, for keys.
const DOCUMENTS: &str = "documents";
/// For keys, by a spool in which something waits.
const SIGNING: &str = "signing";
/// After a look whether the server has newer ones.
const NEWS: &str = "news";

/// How it is kept that a tenant has no policy. A version before wrote `[]` also where it could check none: that says nothing.
const WITHOUT: &str = "[ ]";

/// Asks a tenant's store. Nothing if it does not answer.
pub(super) async fn ask(edge: &Edge, tenant: TenantId, want: Want, news: bool) -> Option<Given> {
    let name = format!("{tenant}/{}", edge.config.region);
    let words = match want {
        Want::Documents => DOCUMENTS,
        Want::Keys => "",
        Want::Signing => SIGNING,
    };
    let news = if news && want != Want::Documents { NEWS } else { "" };
    let mut answer = edge.lease_stores.post(&name, &format!("/{tenant}?{words}&{news}"), None).await?;
    match answer.status {
        GIVEN => {
            let end = answer.body.iter().position(|&byte| byte == b'\n')?;
            let kept = Kept::read(std::str::from_utf8(&answer.body[..end]).ok()?).ok()?;
            Some(Given::Kept(kept, answer.body.split_off(end + 1)))
        }
        REVOKED => Some(Given::Revoked),
        NOTHING => Some(Given::Nothing),
        _ => None,
    }
}

#[derive(Debug)]
struct Store {
    own: Own,
    open: OnceCell<()>,
    /// With the server: one for each that may be wanted.
    turns: [Turn; 2],
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

    fn text(&self, name: &str) -> Result<Option<String>> {
        Ok(self.kept(name)?.and_then(|value| value.as_string()))
    }

    fn number(&self, name: &str) -> Result<u64> {
        Ok(self.kept(name)?.and_then(|value| value.as_f64()).unwrap_or(0.0) as u64)
    }

    fn keep_number(&self, name: &str, number: u64) -> Result<()> {
        self.keep(name, JsValue::from_f64(number as f64))
    }

    fn age_of(&self, name: &str) -> Result<u64> {
        Ok(age(Timestamp::from_millis(self.number(name)?), now()))
    }

    /// The keys on disk that serve: there is a lease for now in them, for a token that this edge has.
    fn keys(&self, edge: &Edge, enrolled: &Enrolled) -> Result<Option<(String, Held)>> {
        let Some(answer) = self.text("answer")? else { return Ok(None) };
        let since = Timestamp::from_millis(self.number("since")?);
        let held = enrolled.read(answer.as_bytes(), edge.config.region, since).ok();
        Ok(held.filter(|held| held.serves(now())).map(|held| (answer, held)))
    }

    /// The documents on disk, as text.
    fn documents(&self) -> Result<Option<String>> {
        Ok(self.text("documents")?.filter(|text| text != "[]"))
    }

    /// What is on disk and serves, as it is given out.
    fn has(&self, edge: &Edge, enrolled: &Enrolled, want: Want) -> Result<Option<String>> {
        if self.number("revoked")? > 0 {
            return Ok(None);
        }
        let (keys, documents) = (self.keys(edge, enrolled)?, self.documents()?);
        let is_there = match want {
            Want::Documents => documents.is_some(),
            // Whoever still comes for keys has not heard yet that nobody may read.
            Want::Keys => keys.is_some() || documents.is_some() && !enrolled.may_be_read(edge),
            Want::Signing => keys.is_some(),
        };
        if !is_there {
            return Ok(None);
        }
        let span = keys.as_ref().and_then(|(_, held)| held.span());
        let span =
            span.map_or("null".into(), |(since, until)| format!("[{},{}]", since.as_millis(), until.as_millis()));
        let documents = documents.as_deref().unwrap_or("null");
        let (told, asked, refresh) = (self.number("told")?, self.number("asked")?, self.number("refresh")?);
        let head =
            format!(r#"{{"told":{told},"asked":{asked},"refresh":{refresh},"documents":{documents},"leases":{span}}}"#);
        // Not a byte of a key goes to whoever wants none.
        let answer = keys.filter(|_| want != Want::Documents).map_or_else(String::new, |(answer, _)| answer);
        Ok(Some(format!("{head}\n{answer}")))
    }

    /// Gives out what is on disk; what is not, is old, or may have changed, is asked for.
    async fn give(&self, tenant: TenantId, want: Want, news: bool) -> Result<(u16, Option<String>)> {
        let edge = self.own.edge().ok_or("not set up")?;
        let Some(enrolled) = edge.enrolled(tenant) else {
            self.forget()?;
            return Ok((NOTHING, None));
        };
        if let Some(name) = noted(want)
            && self.age_of(name)? > NOTED
        {
            self.keep_number(name, now().as_millis())?;
            self.keep("tenant", tenant.to_string().into())?;
        }
        let mut revoked = false;
        self.recall(enrolled).await?;
        let serves = self.has(&edge, enrolled, want)?.is_some();
        let is_old = want == Want::Documents && self.age_of("asked")? > self.number("refresh")?;
        if !serves || news || is_old {
            let turn = &self.turns[want.turn()];
            turn.wait(PATIENCE / 2).await;
            if turn.is_over(if serves { PAUSE } else { PAUSE_WITHOUT }) {
                revoked = self.ask_server(&edge, enrolled, want).await?;
            }
        }
        Ok(match self.has(&edge, enrolled, want)? {
            Some(given) => (GIVEN, Some(given)),
            None if revoked || self.number("revoked")? > 0 => (REVOKED, None),
            None => (NOTHING, None),
        })
    }

    /// Asks the server and keeps what it says, also that it does not know the enrolment. Whether it said that.
    async fn ask_server(&self, edge: &Edge, enrolled: &Enrolled, want: Want) -> Result<bool> {
        let (tenant, turn) = (enrolled.tenant, &self.turns[want.turn()]);
        turn.begin();
        let has_use = || want == Want::Signing || enrolled.may_be_read(edge);
        // Where nobody may read, no key comes.
        let (next, revoked) = match enrolled.ask(edge, if has_use() { want } else { Want::Documents }).await {
            Ok(fresh) => {
                self.failures.set(0);
                if self.take(enrolled, &fresh.documents).await? {
                    self.keep_number("told", now().as_millis())?;
                }
                self.keep_number("asked", now().as_millis())?;
                self.keep_number("refresh", fresh.refresh_ms)?;
                self.keep_number("revoked", 0)?;
                match fresh.keys {
                    Some(keys) if has_use() => {
                        self.keep("answer", keys.into())?;
                        self.keep_number("since", now().as_millis())?;
                    }
                    // It may be these documents that say so.
                    _ if !has_use() => self.forget()?,
                    _ => {}
                }
                // Ahead of the time at which isolates come for it.
                (Some(fresh.refresh_ms / 5 * 4), false)
            }
            Err(Failure::Revoked) => {
                console_error!("{{\"event\":\"enrolment-refused\",\"tenant\":\"{tenant}\"}}");
                self.forget()?;
                self.keep_number("revoked", 1)?;
                (None, true)
            }
            Err(failure) => {
                no_lease(tenant, failure);
                self.failures.set(self.failures.get().saturating_add(1));
                let has_some = self.kept("answer")?.is_some() || self.kept("documents")?.is_some();
                (has_some.then(|| PACE.pause(self.failures.get(), &Fate::Away, None, chance())), false)
            }
        };
        // Only now: who waits for it shall find what it brought.
        turn.end();
        match next {
            Some(pause) => self.own.wake_at(now().as_millis() + pause).await?,
            // Nothing to keep alive: it begins anew when somebody asks.
            None => self.own.sleep().await?,
        }
        Ok(revoked)
    }

    /// Has the isolate know what is on disk, if it knows nothing.
    async fn recall(&self, enrolled: &Enrolled) -> Result<()> {
        if enrolled.documents.policy().is_none() { self.remind(enrolled).await } else { Ok(()) }
    }

    /// Has the isolate know what is on disk, which may be newer than what it knows.
    async fn remind(&self, enrolled: &Enrolled) -> Result<()> {
        let kept = self.documents()?.and_then(|text| Vec::<Signed>::read(&text).ok());
        if let Some(kept) = kept {
            enrolled.documents.take(&kept).await;
        }
        Ok(())
    }

    /// Keeps the documents, if they hold and are no older than those that were kept before. Whether they do.
    async fn take(&self, enrolled: &Enrolled, fresh: &[Signed]) -> Result<bool> {
        self.remind(enrolled).await?;
        let Some(taken) = enrolled.documents.take(fresh).await else { return Ok(false) };
        let text =
            if taken.is_empty() { WITHOUT.into() } else { serde_json::to_string(taken).map_err(|_| "no JSON")? };
        self.keep("documents", text.into())?;
        Ok(true)
    }

    /// Renews what is kept, as long as somebody wants it.
    async fn renew(&self) -> Result<()> {
        let Some(edge) = self.own.edge() else { return Ok(()) };
        let tenant = self.text("tenant")?.and_then(|id| id.parse().ok());
        let Some(enrolled) = tenant.and_then(|tenant| edge.enrolled(tenant)) else { return self.forget() };
        self.recall(enrolled).await?;
        let is_wanted = |name| Ok::<_, JsValue>(self.age_of(name)? <= WANTED);
        let (wants_keys, wants_documents) = (is_wanted(WANTED_KEYS)?, is_wanted(WANTED_DOCUMENTS)?);
        // Keys that nobody asks for, or that nobody may use, are not to lie about: whoever comes again gets new ones.
        if !wants_keys || !enrolled.may_be_read(&edge) {
            self.forget()?;
        }
        match (wants_keys, wants_documents) {
            (true, _) => self.ask_server(&edge, enrolled, Want::Keys).await.map(drop),
            (false, true) => self.ask_server(&edge, enrolled, Want::Documents).await.map(drop),
            (false, false) => Ok(()),
        }
    }

    /// Forgets the keys.
    fn forget(&self) -> Result<()> {
        self.open()?;
        self.own.run("DELETE FROM kept WHERE name IN ('answer', 'since')", &[])
    }
}

/// Under which name it is noted that somebody asks for it. What waits in a spool keeps no keys alive: it comes again.
const fn noted(want: Want) -> Option<&'static str> {
    match want {
        Want::Documents => Some(WANTED_DOCUMENTS),
        Want::Keys => Some(WANTED_KEYS),
        Want::Signing => None,
    }
}
