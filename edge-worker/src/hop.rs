//! One request: `intake` decides, this carries out.

use std::{borrow::Cow, rc::Rc};

use worker::{Context, Env, console_log};

use firsthop_core::{Annotation, Frame, Header, Noted, TenantId, Trust, Wrapped};
use firsthop_intake::{
    Facts, Leased, PREFLIGHT, Problem, Receipt, Refusal, Refused, Route, Verdict, native,
    policy::Policy,
    route,
    rules::{self, Rules},
    segment::{self, Call},
    spool::Inside,
};

use crate::{
    arrival::{self, Arrival},
    counters::{self, Became},
    edge::{Edge, remember, seen_id, was_seen},
    forward::{Outcome, envelope, forward},
    gate::{self, Passage},
    keys::Signable,
    lease::Enrolled,
    platform::{now, random},
    reply::Reply,
    sdk, status,
    unread::pass_on,
};

/// Answers a request.
pub(crate) async fn answer(arrival: &Arrival<'_>, env: &Env, ctx: &Context) -> Reply {
    let (method, path) = (arrival.method, path_of(arrival.url));
    let reply = match route(method, path) {
        Ok(Route::Live) => return live(),
        Ok(Route::Sdk(wanted)) => {
            let result = sdk::answer(&wanted, arrival).await;
            return result.unwrap_or_else(|refusal| Failure::from(refusal).reply(Problem::to_json));
        }
        Ok(Route::Preflight) => Reply::empty(204, &PREFLIGHT),
        Ok(Route::Frame) => {
            let result = native_frame(arrival, env, ctx).await;
            result.unwrap_or_else(|failure| failure.reply(Problem::to_json))
        }
        Ok(Route::Segment(call)) => {
            let result = segment_call(call, arrival, env, ctx).await;
            result.unwrap_or_else(|failure| failure.reply(Problem::to_segment_json))
        }
        Ok(Route::Status) => status::answer(arrival, env, status::to_json).await,
        Ok(Route::Metrics) => status::answer(arrival, env, status::to_metrics).await,
        // The other routes are the server's.
        Ok(_) => Failure::from(Refusal::NotFound).reply(Problem::to_json),
        Err(problem) => Failure::from(problem).reply(Problem::to_json),
    };
    if Route::is_public_path(path) { reply.with_cors() } else { reply }
}

fn live() -> Reply {
    const BODY: &str = concat!(r#"{"status":"ok","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);
    Reply::bytes(200, &[("content-type", "application/json"), ("cache-control", "no-store")], BODY.as_bytes())
}

async fn native_frame(arrival: &Arrival<'_>, env: &Env, ctx: &Context) -> Result<Reply, Failure> {
    let edge = Edge::get(env).ok_or(Refusal::Unavailable)?;
    let body = arrival::body(arrival, native::MAX_BODY).await?;
    if let Passage::Forward(onward) = gate::frame(&edge, ctx, arrival, &body).await? {
        return Ok(pass_on(arrival, &onward, &body).await?);
    }
    let body = Signable::of(&body);
    let facts = Facts { mac: edge.computed(&body).await, ..arrival.facts(now()) };
    let decide = |lookup: Lookup<'_>| native::receive(&body, &facts, lookup);
    let (decided, enrolled) = edge.decide(ctx, decide, refusal_of).await?;
    let way = Way::new(&edge, enrolled);
    let mut accepted = match decided {
        Ok(accepted) => accepted,
        Err(refused) => return Err(way.refuse(&refused).await),
    };
    let session = accepted.session.take();
    let frame = &accepted.frame;
    // Only what was proved here: of another frame, a second copy may not be one.
    let id = (accepted.annotation.trust == Trust::Session).then(|| seen_id(frame)).flatten();
    if id.is_some_and(was_seen) {
        counters::count(Became::Recognised);
        return Ok(Reply::receipt(&Receipt { session, ..Receipt::duplicate(frame.header()) }));
    }
    let policy = way.policy();
    let rules = rules_of(policy.as_deref());
    let asked = arrival.ask(rules);
    let (facts, account, readable) = (asked.beside(facts), &accepted.account, accepted.readable());
    match way.hand_on(rules, &facts, account, &accepted.annotation, frame, readable).await {
        Outcome::Acknowledged(receipt) => {
            // Another time, too, the server shall say which of the events it has otherwise.
            if let Some(id) = id
                && receipt.conflict == 0
            {
                remember(id);
            }
            Ok(Reply::receipt(&Receipt { session, ..receipt }))
        }
        Outcome::Spooled { again } => {
            id.into_iter().for_each(remember);
            Ok(Reply::receipt(&Receipt { session, ..spooled(frame.header(), again) }))
        }
        Outcome::Refused(answer) | Outcome::NotKept(answer) => Ok(Reply::passed_on(answer)),
        Outcome::Unfit(problem) | Outcome::Unknown(problem) => Err(way.fail(problem)),
    }
}

/// The receipt of what the spool has.
fn spooled(header: &Header, again: bool) -> Receipt {
    if again { Receipt::duplicate(header) } else { Receipt::spooled(header) }
}

async fn segment_call(call: Call, arrival: &Arrival<'_>, env: &Env, ctx: &Context) -> Result<Reply, Failure> {
    let edge = Edge::get(env).ok_or(Refusal::Unavailable)?;
    let body = arrival::body(arrival, segment::MAX_BODY).await?;
    if let Passage::Forward(onward) = gate::vendor(&edge, ctx, arrival).await? {
        return Ok(pass_on(arrival, &onward, &body).await?);
    }
    let body = body.to_vec();
    let facts = arrival.facts(now());
    let granted = |account: &Rc<Leased>, said: &str| {
        let policy = edge.enrolled(account.tenant.id).and_then(|enrolled| enrolled.documents.policy().flatten());
        rules_of(policy.as_deref()).consent.granted(said)
    };
    let decide = |lookup: Lookup<'_>| segment::receive(call, &body, &facts, &mut random, lookup, &granted);
    let (decided, enrolled) = edge.decide(ctx, decide, refusal_of).await?;
    let way = Way::new(&edge, enrolled);
    let accepted = match decided {
        Ok(accepted) => accepted,
        Err(refused) => return Err(way.refuse(&refused).await),
    };
    let mut verdict = Verdict::default();
    for rejected in &accepted.rejected {
        let problem = Problem::new(rejected.refusal);
        let annotation = Annotation { refused: problem.code(), ..accepted.annotation };
        // Somebody answers for the request that it came with.
        let kept = way.set_aside(&accepted.account, &annotation, &rejected.body, rejected.count(), true).await?;
        log(&problem, way.tenant());
        verdict.quarantined += if kept { rejected.count().into() } else { 0 };
    }
    let policy = way.policy();
    let rules = rules_of(policy.as_deref());
    for frame in &accepted.frames {
        let frame = Frame::parse(frame).map_err(|_| Refusal::Internal)?;
        let header = *frame.header();
        let asked = arrival.ask(rules);
        let (facts, account) = (asked.beside(facts), &accepted.account);
        match way.hand_on(rules, &facts, account, &accepted.annotation, &frame, Some(frame)).await {
            Outcome::Acknowledged(receipt) => verdict += &receipt,
            Outcome::Spooled { again } => verdict += &spooled(&header, again),
            // The server has set aside what this edge has just made: its verdict counts, not ours.
            Outcome::Refused(_) => verdict.quarantined += u32::from(header.count),
            Outcome::NotKept(_) => return Err(way.fail(Refusal::Unavailable.into())),
            Outcome::Unfit(problem) | Outcome::Unknown(problem) => return Err(way.fail(problem)),
        }
    }
    let reply = Reply::bytes(200, &[("content-type", "application/json")], segment::SUCCESS.as_bytes());
    Ok(reply.with_verdict(&verdict))
}

/// How a decision finds what is known of a tenant.
type Lookup<'a> = &'a dyn Fn(TenantId) -> Option<Rc<Leased>>;

fn refusal_of<A, T>(decided: &Result<A, Box<Refused<'_, T>>>) -> Option<Refusal> {
    decided.as_ref().err().map(|refused| refused.problem.refusal())
}

fn rules_of(policy: Option<&Policy>) -> &Rules {
    policy.map_or(Rules::none(), |policy| &policy.rules)
}

/// The way to the server for one request.
struct Way<'a> {
    edge: &'a Edge,
    enrolled: Option<&'a Enrolled>,
}

impl<'a> Way<'a> {
    const fn new(edge: &'a Edge, enrolled: Option<&'a Enrolled>) -> Self {
        Self { edge, enrolled }
    }

    const fn tenant(&self) -> Option<TenantId> {
        match self.enrolled {
            Some(enrolled) => Some(enrolled.tenant),
            None => None,
        }
    }

    /// Where it stands what the tenant wants done, as far as this edge has been told.
    fn policy(&self) -> Option<Rc<Policy>> {
        self.enrolled.and_then(|enrolled| enrolled.documents.policy().flatten())
    }

    /// Hands on a frame that was accepted, as rules leave it; it may wait in the spool. They are applied as far as this edge can read the
    /// frame and knows who answers for it. The rest is the server's.
    async fn hand_on(
        &self,
        rules: &Rules,
        facts: &Facts<'_>,
        account: &Leased,
        annotation: &Annotation<'_>,
        frame: &Frame<'_>,
        readable: Option<Frame<'_>>,
    ) -> Outcome {
        let key = self.enrolled.and_then(|enrolled| enrolled.hash_key(rules));
        let readable = readable.filter(|_| annotation.trust != Trust::Unchecked);
        let applied = readable.and_then(|frame| rules::apply(rules, key.as_ref(), facts, annotation, &frame).ok());
        let applied = applied.unwrap_or_else(|| rules::unread(rules, facts, annotation, frame.header()));
        let notes = applied.notes();
        let wrapped = applied.frame.as_deref().map_or(Wrapped::from(*frame), Wrapped::from);
        let Ok(header) = Header::peek(wrapped.bytes()) else { return Outcome::Unknown(Refusal::Internal.into()) };
        self.send(account, (&applied.annotation, &notes).into(), Inside::Frame(&header), wrapped, true).await
    }

    /// Hands on what is inside of an envelope; `spooled` if it may wait in the spool.
    async fn send(
        &self,
        account: &Leased,
        noted: Noted<'_>,
        inside: Inside<'_>,
        body: Wrapped<'_>,
        spooled: bool,
    ) -> Outcome {
        let Some(enrolled) = self.enrolled else { return Outcome::Unknown(Refusal::Internal.into()) };
        match envelope(enrolled, account, noted, body, inside.count(), now()).await {
            Some(envelope) => {
                // What cannot say whose it is goes where all of that goes.
                let source = Header::peek(body.bytes()).map(|header| header.source).unwrap_or_default();
                forward(self.edge, enrolled, source, inside, &envelope, spooled).await
            }
            None => Outcome::Unknown(Refusal::Unavailable.into()),
        }
    }

    /// Leaves with the server, or with the spool, what is no event; only then may it be refused. Whether it is kept: if nobody has room for it, it
    /// is refused all the same.
    async fn set_aside(
        &self,
        account: &Leased,
        annotation: &Annotation<'_>,
        body: &[u8],
        count: u16,
        spooled: bool,
    ) -> Result<bool, Failure> {
        let (mut annotation, policy) = (*annotation, self.policy());
        rules_of(policy.as_deref()).place.limit(&mut annotation);
        match self.send(account, (&annotation).into(), Inside::Refused(count), body.into(), spooled).await {
            Outcome::Acknowledged(_) | Outcome::Spooled { .. } | Outcome::Refused(_) => Ok(true),
            Outcome::NotKept(_) | Outcome::Unfit(_) => Ok(false),
            Outcome::Unknown(problem) => Err(self.fail(problem)),
        }
    }

    /// Refuses a request: what was meant to be an event of a known tenant's is set aside first.
    async fn refuse(&self, refused: &Refused<'_, Rc<Leased>>) -> Failure {
        let problem = refused.problem.clone();
        let Some(account) = &refused.quarantine else { return self.fail(problem) };
        // Not in the spool: anybody can send what is refused, and so fill it.
        match self.set_aside(account, &refused.annotation, &refused.body, refused.count, false).await {
            Ok(true) => self.fail(problem.with_quarantined(refused.count)),
            Ok(false) => self.fail(problem),
            Err(unavailable) => unavailable,
        }
    }

    const fn fail(&self, problem: Problem) -> Failure {
        Failure { problem, tenant: self.tenant() }
    }
}

/// Why a request was not done, and whose it was.
pub(crate) struct Failure {
    problem: Problem,
    tenant: Option<TenantId>,
}

impl<P: Into<Problem>> From<P> for Failure {
    fn from(problem: P) -> Self {
        Self { problem: problem.into(), tenant: None }
    }
}

impl Failure {
    pub(crate) const fn of(problem: Problem, tenant: TenantId) -> Self {
        Self { problem, tenant: Some(tenant) }
    }

    /// Whether the same request may be good later.
    pub(crate) const fn passes(&self) -> bool {
        self.problem.refusal().retryable()
    }

    /// The answer, with a body in the sender's own format; and a line for the operator.
    fn reply(&self, body: fn(&Problem) -> String) -> Reply {
        log(&self.problem, self.tenant);
        counters::refused(self.problem.code());
        Reply::problem(&self.problem, Cow::Owned(body(&self.problem).into_bytes()))
    }
}

/// One line for the operator, with nothing in it that is about a person.
fn log(problem: &Problem, tenant: Option<TenantId>) {
    let (code, status) = (problem.code(), problem.status());
    match tenant {
        Some(tenant) => console_log!(r#"{{"event":"refused","code":"{code}","status":{status},"tenant":"{tenant}"}}"#),
        None => console_log!(r#"{{"event":"refused","code":"{code}","status":{status}}}"#),
    }
}

/// The path of a serialised URL: the platform has parsed it, so the first `/` behind the host begins it.
pub(crate) fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find('/').map_or("/", |at| &rest[at..]);
    path.split(['?', '#']).next().unwrap_or(path)
}
