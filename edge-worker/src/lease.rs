//! Leases: what the server hands out so that this edge can act for a tenant without ever holding the tenant's root.
//!
//! An isolate has them from the region's store, a Durable Object ([`object`]), and that has them from the server: it renews them ahead of
//! time, and keeps them through restarts and while the server is away. They end by themselves with their epoch. An enrolment that the
//! server no longer knows ends at once.
//!
//! ```text
//!            gate                                   decide
//!  isolate ── Documents: is there a policy? ──►       ── Keys: may be read here ──►   store ── the same ──► server
//! ```
//!
//! An isolate asks for the tenant's documents first, and for keys only when they say that it may read: where it may not, no key ever comes.

mod answer;
mod object;
mod turn;

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
    time::Duration,
};

use worker::console_error;

use firsthop_core::{HashKey, Region, SourceId, TenantId, Timestamp};
use firsthop_intake::{
    DOCUMENTS, Leased, Refusal, WANT,
    document::Signed,
    fields::{Fault, Others, Read, fill, needed, optional, without},
    policy::Hop,
    rules::Rules,
};

use self::{
    answer::{Answer, Held},
    turn::Turn,
};
use crate::{
    config::Enrolment,
    documents::Documents,
    edge::Edge,
    keys,
    platform::{now, random_bytes},
    spool::Known,
    upstream::post,
};

/// How long the server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long an isolate waits for another request's look into the store, in milliseconds: as long as the store may take, and some.
const PATIENCE: u64 = 12_000;
/// Least time between two fetches, in milliseconds, while what is held still serves: to renew it, or because a request
/// names a key that is not known.
const PAUSE: u64 = 10_000;
/// The same while nothing serves: no event can be taken until the server is back.
const PAUSE_WITHOUT: u64 = 1_000;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// What the tenant tells its edges, and no key.
    Documents,
    /// The same, and the keys.
    Keys,
    /// Keys to sign what waits in the spool: also where nobody may read any longer, since it was taken when somebody might.
    Signing,
}

impl Want {
    /// Whose turn it is: one for the documents, and one for keys.
    const fn turn(self) -> usize {
        match self {
            Self::Documents => 0,
            Self::Keys | Self::Signing => 1,
        }
    }
}

/// One tenant that this edge is enrolled for.
pub(crate) struct Enrolled {
    pub(crate) tenant: TenantId,
    /// More than one while an operator replaces a token.
    tokens: Vec<Enrolment>,
    held: RefCell<Option<Held>>,
    pub(crate) documents: Documents,
    /// When the server was asked for the documents, and for how long its answer is good, in milliseconds.
    asked: Cell<(Timestamp, u64)>,
    /// One for each that may be wanted.
    turns: [Turn; 2],
    /// The server has refused what was signed with them: there may be others by now.
    doubted: Cell<bool>,
    /// The server does not know the enrolment, as far as this isolate has heard.
    revoked: Cell<bool>,
    /// This isolate as a source of envelopes, one per tenant so that each tenant's numbers have no gaps.
    source: Cell<Option<SourceId>>,
    next_batch: Cell<u64>,
    /// What is known of each of the tenant's spools.
    pub(crate) spools: Vec<Cell<Known>>,
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
                    documents: Documents::new(enrolment.tenant, enrolment.document_key),
                    asked: Cell::default(),
                    turns: Default::default(),
                    doubted: Cell::default(),
                    revoked: Cell::default(),
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

    /// Whether this isolate has ever had keys.
    pub(crate) fn has_keys(&self) -> bool {
        self.held.borrow().is_some()
    }

    /// Whether the enrolment has ended, and the tenant's policy with it.
    pub(crate) fn has_ended(&self) -> bool {
        self.revoked.get() && self.documents.policy().is_none()
    }

    const fn turn(&self, want: Want) -> &Turn {
        &self.turns[want.turn()]
    }

    /// What values are hashed with by these rules. None: the keys that are held are older or newer than the rules.
    pub(crate) fn hash_key(&self, rules: &Rules) -> Option<HashKey> {
        let held = self.held.borrow();
        let (generation, key) = held.as_ref()?.hash_key.as_ref()?;
        (*generation == rules.hash_generation).then(|| key.clone())
    }

    /// Whether it is time to renew what is held.
    pub(crate) fn is_due(&self, want: Want, now: Timestamp) -> bool {
        let is_old = match want {
            Want::Documents => age(self.asked.get().0, now) >= self.asked.get().1,
            Want::Keys | Want::Signing => {
                let held = self.held.borrow();
                self.doubted.get() || held.as_ref().is_none_or(|held| age(held.since, now) >= held.refresh_ms)
            }
        };
        is_old && !self.turn(want).is_taken(PATIENCE) && self.turn(want).is_over(PAUSE)
    }

    /// Notes that the server refuses what is signed with these leases: a root may have ended at once, or the enrolment.
    pub(crate) fn doubt(&self) {
        self.doubted.set(true);
    }

    /// Whether what is held may be too old to judge a request that names something unknown.
    pub(crate) fn may_be_old(&self) -> bool {
        self.turn(Want::Keys).is_over(PAUSE)
    }

    /// The number of the next envelope, and whose it is.
    pub(crate) fn next_envelope(&self, now: Timestamp) -> (SourceId, u64) {
        let source = self.source.get().unwrap_or_else(|| SourceId::v7(now, random_bytes()));
        self.source.set(Some(source));
        let batch = self.next_batch.get();
        self.next_batch.set(batch + 1);
        (source, batch)
    }

    /// Fetches what is wanted from the store, unless that was tried a moment ago; `news` if the store shall look whether the server
    /// has newer. If another request is at it, waits for that.
    pub(crate) async fn fetch(&self, edge: &Edge, want: Want, news: bool) {
        let turn = self.turn(want);
        turn.wait(PATIENCE).await;
        let serves = match want {
            Want::Documents => self.documents.policy().is_some(),
            Want::Keys | Want::Signing => self.account(now()).is_some(),
        };
        if !turn.is_over(if serves { PAUSE } else { PAUSE_WITHOUT }) {
            return;
        }
        turn.begin();
        let _ = self.look(edge, want, news || want != Want::Documents && self.doubted.take()).await;
        // Only now: who waits for it shall find what it brought.
        turn.end();
    }

    /// Asks the store, and takes what it has. Returns what it says of itself, if it has what is wanted.
    pub(crate) async fn look(&self, edge: &Edge, want: Want, news: bool) -> Result<Option<Kept>, Silent> {
        match object::ask(edge, self.tenant, want, news).await {
            Some(Given::Kept(kept, answer)) => {
                self.revoked.set(false);
                if let Some(documents) = &kept.documents {
                    self.documents.take(documents).await;
                }
                self.asked.set((Timestamp::from_millis(kept.asked), kept.refresh));
                match kept.leases {
                    _ if want == Want::Documents => {}
                    Some((since, _)) => match self.read(&answer, edge.config.region, Timestamp::from_millis(since)) {
                        Ok(held) => self.hold(Some(held)),
                        Err(why) => no_lease(self.tenant, Failure::Away(why)),
                    },
                    // The documents say that nobody may read.
                    None => self.hold(None),
                }
                Ok(Some(kept))
            }
            Some(Given::Revoked) => {
                self.hold(None);
                self.documents.forget();
                self.asked.take();
                self.revoked.set(true);
                Ok(None)
            }
            // The store has told the log why.
            Some(Given::Nothing) => Ok(None),
            None => {
                no_lease(self.tenant, Failure::Away("the store of leases does not answer"));
                Err(Silent)
            }
        }
    }

    /// Has these keys in place of those of before, of which nothing stays.
    fn hold(&self, held: Option<Held>) {
        *self.held.borrow_mut() = held;
        keys::forget();
    }

    /// Whether this edge may read anything of the tenant's, at whatever place: if not, there is no use for keys.
    fn may_be_read(&self, edge: &Edge) -> bool {
        let policy = self.documents.policy().flatten();
        Hop::may_ever_read(edge.config.region, edge.config.is_confined, policy.as_deref())
    }

    /// Reads what the server answered at `since`, if it is for one of this edge's tokens.
    fn read(&self, answer: &[u8], region: Region, since: Timestamp) -> Result<Held, &'static str> {
        let answer = Answer::of(answer)?;
        let enrolment = self.tokens.iter().find(|token| token.worker == answer.worker());
        answer.held(enrolment.ok_or("answer for another enrolment")?, region, since)
    }

    /// Asks the server, with each token in turn. What it answers is read before it is believed.
    async fn ask(&self, edge: &Edge, want: Want) -> Result<Fresh, Failure> {
        let mut failure = Failure::Away("no token");
        for enrolment in &self.tokens {
            let bearer = format!("Bearer {}", enrolment.token);
            let url = format!("{}/v1/leases", edge.config.leases);
            let headers = [("authorization", &bearer[..]), (WANT, DOCUMENTS)];
            let headers = &headers[..if want == Want::Documents { 2 } else { 1 }];
            match post(&url, headers, None, TIMEOUT).await {
                Some(answer) if answer.status == 200 => match Fresh::read(answer.body, enrolment, edge, want) {
                    Ok(fresh) => return Ok(fresh),
                    Err(why) => failure = Failure::Away(why),
                },
                // Only the server's own word: a proxy's 401 says nothing of the enrolment.
                Some(answer) if answer.is_problem(Refusal::Enrolment) => failure = failure.or_revoked(),
                Some(answer) => failure = Failure::Status(answer.status),
                None => failure = Failure::Away("no answer"),
            }
        }
        Err(failure)
    }
}

/// What the server has just said.
struct Fresh {
    documents: Vec<Signed>,
    refresh_ms: u64,
    /// The answer without them, if keys were asked for and are in it.
    keys: Option<String>,
}

impl Fresh {
    fn read(body: Vec<u8>, enrolment: &Enrolment, edge: &Edge, want: Want) -> Result<Self, &'static str> {
        let region = edge.config.region;
        let mut answer = Answer::of(&body)?;
        answer.check(enrolment, region)?;
        let (documents, refresh_ms) = (std::mem::take(&mut answer.documents), answer.refresh_ms());
        if want == Want::Documents {
            // A server of before knows no other wish than keys. They are not looked at, and not kept.
            return Ok(Self { documents, refresh_ms, keys: None });
        }
        answer.held(enrolment, region, now())?;
        // They are kept by themselves: twice the largest would be more than an answer may be.
        let keys = std::str::from_utf8(&body).ok().and_then(|body| without(body, "documents"));
        Ok(Self { documents, refresh_ms, keys })
    }
}

/// The store has not said anything: nobody knows what it has.
pub(crate) struct Silent;

/// What the store says of itself.
#[derive(Default)]
pub(crate) struct Kept {
    /// When the server said last that the documents are what they are; 0 if it never did.
    pub(crate) told: u64,
    /// When the server answered last, whether or not what it said could be believed.
    asked: u64,
    /// For how long that is good.
    refresh: u64,
    /// The newest that were signed. None: what the server has sent cannot be believed.
    documents: Option<Vec<Signed>>,
    /// If there are any to sign with: since when they are as they are, and until when.
    pub(crate) leases: Option<(u64, u64)>,
}

impl Read for Kept {
    fn read(json: &str) -> Result<Self, Fault> {
        let (mut kept, mut leases) = (Self::default(), None::<Vec<u64>>);
        fill(
            json,
            Others::Skipped,
            &mut [
                needed("told", &mut kept.told),
                optional("asked", &mut kept.asked),
                needed("refresh", &mut kept.refresh),
                optional("documents", &mut kept.documents),
                optional("leases", &mut leases),
            ],
        )?;
        // A store of a version before makes no difference between them.
        kept.asked = kept.asked.max(kept.told);
        kept.leases = match leases.as_deref() {
            None => None,
            Some(&[since, until]) => Some((since, until)),
            Some(_) => return Err(Fault::new("not two times")),
        };
        Ok(kept)
    }
}

/// What the store gives.
enum Given {
    /// What it has; if keys were wanted, the server's answer.
    Kept(Kept, Vec<u8>),
    /// The server does not know the enrolment.
    Revoked,
    /// Nothing that serves.
    Nothing,
}

fn no_lease(tenant: TenantId, failure: Failure) {
    console_error!("{{\"event\":\"no-lease\",\"tenant\":\"{tenant}\",\"why\":\"{failure}\"}}");
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
