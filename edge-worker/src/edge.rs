//! What an isolate knows: settings, tenants, and the frames that it has seen acknowledged.

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
};

use worker::{Context, Env, console_error};

use firsthop_core::{DedupWindow, Error, Frame, Header, Insert, TenantId};
use firsthop_intake::{
    Leased, Problem, Refusal, native,
    policy::{Hop, Policy},
};

use crate::{
    config::Config,
    keys::{Key, Signable},
    lease::{Enrolled, Want},
    object::Objects,
    platform::{now, random_bytes},
};

/// How many acknowledged frames an isolate remembers, in less than a hundredth of its memory. A page repeats a frame
/// within minutes or not at all, and what is forgotten here, the server still knows.
const REMEMBERED: usize = 1 << 15;

thread_local! {
    static EDGE: OnceCell<Rc<Edge>> = const { OnceCell::new() };
    // Const and all zero, so that it costs nothing in the Worker's bytes; it gets its key with the first frame.
    static SEEN: RefCell<DedupWindow<REMEMBERED>> = const { RefCell::new(DedupWindow::new((0, 0))) };
}

/// Settings, tenants, and the objects that keep things.
pub(crate) struct Edge {
    pub(crate) config: Config,
    pub(crate) spools: Objects,
    pub(crate) lease_stores: Objects,
    tenants: Vec<Enrolled>,
    /// What this edge is as a hop at the point of presence that was named last.
    hop: RefCell<Option<(Colo, Hop)>>,
}

/// The code of a point of presence; none is said, or there is no platform that says such things.
type Colo = Option<Option<Box<str>>>;

impl Edge {
    /// This isolate's edge. None if it is not set up; the operator's log says why.
    pub(crate) fn get(env: &Env) -> Option<Rc<Self>> {
        if let Some(edge) = EDGE.with(|edge| edge.get().cloned()) {
            return Some(edge);
        }
        match Self::read(env) {
            Ok(edge) => Some(EDGE.with(|cell| cell.get_or_init(|| Rc::new(edge)).clone())),
            Err(why) => {
                console_error!("{{\"event\":\"not-set-up\",\"why\":\"{why}\"}}");
                None
            }
        }
    }

    fn read(env: &Env) -> Result<Self, String> {
        let config = Config::read(env)?;
        let bound = |binding| Objects::bound(env, binding, config.jurisdiction);
        let (spools, lease_stores) = (bound("SPOOL")?, bound("LEASE_STORE")?);
        let tenants = Enrolled::all(&config.enrolments, config.spool.shards);
        Ok(Self { config, spools, lease_stores, tenants, hop: RefCell::default() })
    }

    /// The tenants that this edge is enrolled for.
    pub(crate) fn tenants(&self) -> &[Enrolled] {
        &self.tenants
    }

    /// What is known of a tenant that this edge is enrolled for.
    pub(crate) fn enrolled(&self, tenant: TenantId) -> Option<&Enrolled> {
        self.tenants.iter().find(|enrolled| enrolled.tenant == tenant)
    }

    /// What this edge is at a point of presence. To find where that stands is to read a long table, and an isolate stays where it is.
    pub(crate) fn hop(&self, colo: Option<Option<&str>>) -> Hop {
        let mut last = self.hop.borrow_mut();
        if let Some((of, hop)) = last.as_ref()
            && of.as_ref().map(Option::as_deref) == colo
        {
            return *hop;
        }
        let hop = Hop::new(self.config.region, self.config.is_confined, colo);
        last.insert((colo.map(|code| code.map(Box::from)), hop)).1
    }

    /// The tag that a frame should have. Nothing for one that claims no session, or whose lease is not here.
    pub(crate) async fn computed(&self, body: &Signable) -> Option<[u8; 32]> {
        let account = self.enrolled(Header::peek(body).ok()?.tenant)?.account(now())?;
        let (lease, claim) = native::claimed(body, &account, now())?;
        Some(Key::of_session(&lease, &claim)?.tag(body, claim.signed.len()).await)
    }

    /// Lets `intake` decide with what is known of the tenant, and once more when there may be news: when nothing is
    /// known of the tenant yet, or when the request was refused for what the operator may have allowed meanwhile.
    ///
    /// Returns the decision, and the tenant if this edge is enrolled for it.
    pub(crate) async fn decide<R>(
        self: &Rc<Self>,
        ctx: &Context,
        decide: impl Fn(&dyn Fn(TenantId) -> Option<Rc<Leased>>) -> R,
        refusal: impl Fn(&R) -> Option<Refusal>,
    ) -> Result<(R, Option<&Enrolled>), Problem> {
        let mut is_news = false;
        loop {
            let asked = Cell::new(None);
            let decided = decide(&|tenant| {
                let enrolled = self.enrolled(tenant)?;
                asked.set(Some(enrolled));
                enrolled.account(now())
            });
            let Some(enrolled) = asked.get() else { return Ok((decided, None)) };
            let is_known = enrolled.account(now()).is_some();
            let may_change = matches!(refusal(&decided), Some(Refusal::Core(Error::WriteKey | Error::Origin)));
            // A tenant of which the gate knew nothing, because its enrolment had ended: first it has to know, then there may be keys.
            if enrolled.documents.policy().is_none() {
                return Err(Refusal::Unavailable.into());
            }
            if !is_news && (!is_known || may_change && enrolled.may_be_old()) {
                enrolled.fetch(self, Want::Keys, is_known).await;
                is_news = true;
                continue;
            }
            if !is_known {
                return Err(Refusal::Unavailable.into());
            }
            self.renew(ctx, enrolled, Want::Keys);
            return Ok((decided, Some(enrolled)));
        }
    }

    /// A tenant's region policy, if it has one. What is not known yet is asked for; as long as it is not, nothing may be read.
    pub(crate) async fn policy(self: &Rc<Self>, enrolled: &Enrolled) -> Result<Option<Rc<Policy>>, Problem> {
        if enrolled.documents.policy().is_none() {
            enrolled.fetch(self, Want::Documents, false).await;
        }
        Ok(enrolled.documents.policy().ok_or(Refusal::Unavailable)?)
    }

    /// Fetches behind the request's back what has grown old.
    pub(crate) fn renew(self: &Rc<Self>, ctx: &Context, enrolled: &Enrolled, want: Want) {
        if !enrolled.is_due(want, now()) {
            return;
        }
        let (edge, tenant) = (Rc::clone(self), enrolled.tenant);
        ctx.wait_until(async move {
            if let Some(enrolled) = edge.enrolled(tenant) {
                enrolled.fetch(&edge, want, false).await;
            }
        });
    }
}

/// A frame's name among those seen: its tag, which nobody without the session's key can make for another frame, mixed
/// with its source. Only for frames whose signature was checked; others have none.
pub(crate) fn seen_id(frame: &Frame<'_>) -> Option<u128> {
    let tag: [u8; 16] = frame.tag().try_into().ok()?;
    Some(u128::from_be_bytes(tag) ^ frame.header().source.as_u128())
}

/// Whether the frame was acknowledged to this isolate.
pub(crate) fn was_seen(id: u128) -> bool {
    SEEN.with_borrow(|seen| seen.contains(id))
}

/// Remembers a frame that the server has acknowledged. Never before: a retry of what was not stored must go through.
pub(crate) fn remember(id: u128) {
    SEEN.with_borrow_mut(|seen| {
        if seen.is_empty() {
            let key: [u8; 16] = random_bytes();
            let (low, high) = key.split_at(8);
            let half = |bytes: &[u8]| bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
            seen.reset((half(low), half(high)));
        }
        // What is forgotten for it, the server decides.
        let _: Insert = seen.insert(id);
    });
}
