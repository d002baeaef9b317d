//! Leases: what the server hands out so that this edge can act for a tenant without ever holding the tenant's root.
//!
//! An isolate has them from the region's store, a Durable Object ([`object`]), and that has them from the server: it renews them ahead of
//! time, and keeps them through restarts and while the server is away. They end by themselves with their epoch. An enrolment that the
//! server no longer knows ends at once.

mod object;

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::Deserialize;
use worker::{Delay, console_error};

use firsthop_core::{
    Epoch, KeyId, LeaseKey, LeaseRing, Region, RegionKeyId, RegionSecretKey, SourceId, TenantId, Timestamp, WorkerId,
};
use firsthop_intake::{Account as _, Leased, Origins, Refusal, Tenant, document::Signed};

use crate::{
    config::Enrolment,
    documents::Documents,
    edge::Edge,
    platform::{now, random_bytes},
    spool::Known,
    upstream::post,
};

/// How long the server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long an isolate waits for another request's look into the store, in milliseconds: as long as the store may take, and some.
const PATIENCE: u64 = 12_000;
/// How often a request looks whether another one's fetch is done.
const POLL: Duration = Duration::from_millis(10);
/// Least time between two fetches, in milliseconds, while what is held still serves: to renew it, or because a request
/// names a key that is not known.
const PAUSE: u64 = 10_000;
/// The same while nothing serves: no event can be taken until the server is back.
const PAUSE_WITHOUT: u64 = 1_000;
/// Bounds on what the server may ask for as time between two renewals, in seconds.
const REFRESH: std::ops::RangeInclusive<u64> = 10..=3600;

/// One tenant that this edge is enrolled for.
pub(crate) struct Enrolled {
    pub(crate) tenant: TenantId,
    /// More than one while an operator replaces a token.
    tokens: Vec<Enrolment>,
    held: RefCell<Option<Held>>,
    pub(crate) documents: Documents,
    /// When the fetch under way began.
    fetching: Cell<Option<Timestamp>>,
    /// The server has refused what was signed with them: there may be others by now.
    doubted: Cell<bool>,
    /// When the last fetch ended.
    fetched: Cell<Timestamp>,
    /// This isolate as a source of envelopes, one per tenant so that each tenant's numbers have no gaps.
    source: Cell<Option<SourceId>>,
    next_batch: Cell<u64>,
    /// What is known of each of the tenant's spools.
    pub(crate) spools: Vec<Cell<Known>>,
}

struct Held {
    account: Rc<Leased>,
    /// When the server answered.
    since: Timestamp,
    refresh_ms: u64,
    /// As they came: nobody has verified them yet.
    documents: Vec<Signed>,
}

impl Held {
    /// Whether there is a lease in it to sign with now.
    fn serves(&self, now: Timestamp) -> bool {
        self.account.current(now).is_ok()
    }
}

impl Enrolled {
    /// The tenants that some tokens are for.
    pub(crate) fn all(enrolments: &[Enrolment], shards: u32) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for enrolment in enrolments {
            match all.iter_mut().find(|enrolled| enrolled.tenant == enrolment.tenant) {
                Some(enrolled) => enrolled.tokens.push(enrolment.clone()),
                None => all.push(Self {
                    tenant: enrolment.tenant,
                    tokens: vec![enrolment.clone()],
                    held: RefCell::default(),
                    documents: Documents::new(enrolment.tenant, document_key(enrolments, enrolment.tenant)),
                    fetching: Cell::default(),
                    doubted: Cell::default(),
                    fetched: Cell::default(),
                    source: Cell::default(),
                    next_batch: Cell::default(),
                    spools: (0..shards).map(|_| Cell::default()).collect(),
                }),
            }
        }
        all
    }

    /// What is known of the tenant, if it is enough to sign with.
    pub(crate) fn account(&self, now: Timestamp) -> Option<Rc<Leased>> {
        let held = self.held.borrow();
        held.as_ref().filter(|held| held.serves(now)).map(|held| Rc::clone(&held.account))
    }

    /// Since when what is held is as it is, and until when it can be signed with.
    pub(crate) fn span(&self) -> Option<(Timestamp, Timestamp)> {
        let held = self.held.borrow();
        let (since, last) = held.as_ref().map(|held| (held.since, held.account.leases.last_epoch()))?;
        Some((since, Epoch::new(last?.get() + 1).start()))
    }

    /// Whether it is time to renew what is held.
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        let due = self.held.borrow().as_ref().is_none_or(|held| age(held.since, now) >= held.refresh_ms);
        (due || self.doubted.get()) && !self.is_fetching(now) && self.may_fetch(now, PAUSE)
    }

    /// Notes that the server refuses what is signed with these leases: a root may have ended at once, or the enrolment.
    pub(crate) fn doubt(&self) {
        self.doubted.set(true);
    }

    /// Whether what is held may be too old to judge a request that names something unknown.
    pub(crate) fn may_be_old(&self, now: Timestamp) -> bool {
        self.may_fetch(now, PAUSE)
    }

    /// Whether a request is at it, and not one that should have been done long ago and must have been cut off.
    fn is_fetching(&self, now: Timestamp) -> bool {
        self.fetching.get().is_some_and(|began| age(began, now) <= PATIENCE)
    }

    fn may_fetch(&self, now: Timestamp, pause: u64) -> bool {
        age(self.fetched.get(), now) >= pause
    }

    /// The number of the next envelope, and whose it is.
    pub(crate) fn next_envelope(&self, now: Timestamp) -> (SourceId, u64) {
        let source = self.source.get().unwrap_or_else(|| SourceId::v7(now, random_bytes()));
        self.source.set(Some(source));
        let batch = self.next_batch.get();
        self.next_batch.set(batch + 1);
        (source, batch)
    }

    /// Fetches the tenant's leases from the store, unless that was tried a moment ago; `news` if the store shall look whether the server
    /// has newer ones. If another request is at it, waits for that.
    ///
    /// A request must not await another one's promise: the platform ties I/O to the request that began it, and ends
    /// it with that request. So it looks at the shared state by a timer of its own, and takes over when the other
    /// request should have been done long ago.
    pub(crate) async fn fetch(&self, edge: &Edge, news: bool) {
        while self.is_fetching(now()) {
            Delay::from(POLL).await;
        }
        let pause = if self.account(now()).is_some() { PAUSE } else { PAUSE_WITHOUT };
        if !self.may_fetch(now(), pause) {
            return;
        }
        self.fetching.set(Some(now()));
        let kept = object::ask(edge, self.tenant, news || self.doubted.take()).await;
        match kept {
            Some(Kept::Leases { answer, since }) => match self.read(&answer, edge.config.region, since) {
                Ok(mut held) => {
                    self.documents.take(&std::mem::take(&mut held.documents)).await;
                    *self.held.borrow_mut() = Some(held);
                }
                Err(why) => no_lease(self.tenant, Failure::Away(why)),
            },
            Some(Kept::Revoked) => *self.held.borrow_mut() = None,
            // The store has told the log why.
            Some(Kept::Nothing) => {}
            None => no_lease(self.tenant, Failure::Away("the store of leases does not answer")),
        }
        // Only now: who waits for it shall find what it brought.
        self.fetched.set(now());
        self.fetching.set(None);
    }

    /// Reads what the server answered at `since`, if it is for one of this edge's tokens.
    fn read(&self, answer: &[u8], region: Region, since: Timestamp) -> Result<Held, &'static str> {
        let answer = Answer::read(answer)?;
        let enrolment = self.tokens.iter().find(|token| token.worker == WorkerId::new(answer.worker));
        answer.held(enrolment.ok_or("answer for another enrolment")?, region, since)
    }

    /// Asks the server, with each token in turn. What it answers is read before it is believed.
    async fn ask(&self, edge: &Edge) -> Result<(Vec<u8>, Held), Failure> {
        let mut failure = Failure::Away("no token");
        for enrolment in &self.tokens {
            let bearer = format!("Bearer {}", enrolment.token);
            let url = format!("{}/v1/leases", edge.config.leases);
            let answer = post(&url, &[("authorization", &bearer)], None, TIMEOUT).await;
            match answer {
                Some(answer) if answer.status == 200 => {
                    let region = edge.config.region;
                    let held = Answer::read(&answer.body).and_then(|answer| answer.held(enrolment, region, now()));
                    match held {
                        Ok(held) => return Ok((answer.body, held)),
                        Err(why) => failure = Failure::Away(why),
                    }
                }
                // Only the server's own word: a proxy's 401 says nothing of the enrolment.
                Some(answer) if answer.is_problem(Refusal::Enrolment) => failure = failure.or_revoked(),
                Some(answer) => failure = Failure::Status(answer.status),
                None => failure = Failure::Away("no answer"),
            }
        }
        Err(failure)
    }
}

/// What the store has.
enum Kept {
    /// The server's answer, and when it came.
    Leases { answer: Vec<u8>, since: Timestamp },
    /// The server does not know the enrolment.
    Revoked,
    /// Nothing that serves.
    Nothing,
}

fn no_lease(tenant: TenantId, failure: Failure) {
    console_error!("{{\"event\":\"no-lease\",\"tenant\":\"{tenant}\",\"why\":\"{failure}\"}}");
}

/// What a tenant's documents verify with, by any of its tokens: one of before there were any brings no key.
fn document_key(enrolments: &[Enrolment], tenant: TenantId) -> Option<[u8; 32]> {
    enrolments.iter().filter(|enrolment| enrolment.tenant == tenant).find_map(|enrolment| enrolment.document_key)
}

fn key(text: &str) -> Result<[u8; 32], &'static str> {
    let mut key = [0; 32];
    match BASE64.decode_slice(text, &mut key) {
        Ok(32) => Ok(key),
        _ => Err("bad key"),
    }
}

/// How long ago something was; 0 if the clock says that it is still to come.
fn age(then: Timestamp, now: Timestamp) -> u64 {
    now.as_millis().saturating_sub(then.as_millis())
}

/// Why there is no new lease.
#[derive(Clone, Copy)]
enum Failure {
    /// The server does not know the enrolment: what is held must not be used any longer.
    Revoked,
    /// The server could not say.
    Away(&'static str),
    /// Something answered, and not with leases: 404 is most often a LEASES that leads to the public address.
    Status(u16),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revoked => f.write_str("enrolment refused"),
            Self::Away(why) => f.write_str(why),
            Self::Status(404) => f.write_str("status 404: does LEASES name the server's internal address?"),
            Self::Status(status) => write!(f, "status {status}"),
        }
    }
}

impl Failure {
    /// Refused, unless another token has met with silence, which might have been better news.
    fn or_revoked(self) -> Self {
        match self {
            Self::Away("no token") | Self::Revoked => Self::Revoked,
            away => away,
        }
    }
}

/// The server's answer (`POST /v1/leases`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    tenant: &'a str,
    name: String,
    region: &'a str,
    worker: u32,
    write_keys: Vec<String>,
    origins: Vec<String>,
    #[serde(borrow)]
    leases: Vec<Lease<'a>>,
    /// A server of before sends none.
    #[serde(default)]
    documents: Vec<Signed>,
    /// Only there if this edge may open what is sealed to its region.
    #[serde(default, borrow)]
    region_secrets: Vec<RegionSecret<'a>>,
    refresh_after: u64,
}

#[derive(Deserialize)]
struct RegionSecret<'a> {
    id: u32,
    key: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lease<'a> {
    key_id: u32,
    epoch: u32,
    key: &'a str,
}

impl<'a> Answer<'a> {
    fn read(body: &'a [u8]) -> Result<Self, &'static str> {
        serde_json::from_slice(body).map_err(|_| "unreadable answer")
    }

    /// Takes the answer, if it is for what was asked.
    fn held(self, enrolment: &Enrolment, region: Region, now: Timestamp) -> Result<Held, &'static str> {
        let tenant: TenantId = self.tenant.parse().map_err(|_| "bad tenant")?;
        if tenant != enrolment.tenant || WorkerId::new(self.worker) != enrolment.worker {
            return Err("answer for another enrolment");
        }
        if self.region != region.as_str() {
            return Err("enrolled for another region than REGION");
        }
        let mut leases = LeaseRing::new();
        for lease in &self.leases {
            leases.insert(KeyId::new(lease.key_id), Epoch::new(lease.epoch), LeaseKey::new(key(lease.key)?));
        }
        let secret = |secret: &RegionSecret<'_>| {
            Ok((region, RegionSecretKey::new(RegionKeyId::new(secret.id), key(secret.key)?)))
        };
        let region_secrets = self.region_secrets.iter().map(secret).collect::<Result<_, &str>>()?;
        let tenant = Tenant {
            id: tenant,
            name: self.name,
            region,
            worker: enrolment.worker,
            write_keys: self.write_keys,
            origins: Origins::parse(&self.origins).map_err(|_| "bad origins")?,
        };
        let refresh_ms = self.refresh_after.clamp(*REFRESH.start(), *REFRESH.end()) * 1000;
        Ok(Held {
            account: Rc::new(Leased { tenant, leases, region_secrets }),
            since: now,
            refresh_ms,
            documents: self.documents,
        })
    }
}
