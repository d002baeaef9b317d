//! What becomes of a body: `intake` decides, the journal makes it durable, and only then there is an answer.

#[cfg(feature = "cli")]
mod again;
mod first_hop;

use std::borrow::Cow;

use bytes::Bytes;
use firsthop_core::{
    Annotation, Effects, Envelope, Epoch, Error as CoreError, Flags, Frame, Header, LeaseScope, Timestamp, Trust,
    WorkerId,
};
use firsthop_intake::{Account, Contents, Facts, Problem, Receipt, Refusal, Refused, Verdict, native, segment};

#[cfg(feature = "cli")]
pub(crate) use self::again::{Today, Verdict as Again, judge};
pub(crate) use self::first_hop::FirstHop;
use crate::{
    journal::{self, Arrival, Asked, At, Held, JournalStatus, SetAside, Totals, Unavailable, quarantine::CONFLICT},
    server::Inner,
    tenants::{Found, NoTurn, TenantFile, Turn, kept, random_bytes},
    traces::Trace,
};

/// How long an edge's signature is accepted after its epoch: a page, or the edge, may have been offline.
const ENVELOPE_GRACE_EPOCHS: u32 = 7 * 24;

impl Inner {
    /// `POST /v1/f`
    pub(crate) async fn frame(
        &self,
        body: Bytes,
        facts: &Facts<'_>,
        held: Held,
        by: Sender,
        trace: &mut Trace,
    ) -> Result<Receipt, Problem> {
        let named = Header::peek(&body).ok().and_then(|header| self.tenants.find(header.tenant));
        let _turn = self.turn(named.as_ref(), by, body.len()).await?;
        let accepted = match native::receive(&body, facts, |_| named) {
            Ok(accepted) => accepted,
            Err(refused) => return Err(Box::pin(self.refuse(*refused, &body, facts, asked(FRAME, facts), held)).await),
        };
        let Found { live, known } = &accepted.account;
        trace.verified(live.id, accepted.frame.header().count.into(), accepted.frame.traceparent());
        let _place = live.usage.enter(&known.limits)?;
        let at = here(&accepted.account, facts.now);
        if let Err(problem) = check_count(&accepted.frame) {
            let entry = SetAside {
                body: body.clone(),
                reason: Cow::Borrowed(problem.code()),
                events: 0,
                vouched: true,
                at,
                annotation: Some(known.first_hop().aside(facts, &accepted.annotation)?),
                request: Some(asked(FRAME, facts)),
            };
            return Err(Box::pin(self.aside(&accepted.account, entry, problem, held)).await);
        }
        // All keys that there are are here: what is sealed was opened, or refused.
        let frame = accepted.readable().ok_or(CoreError::Sealed)?;
        let arrival = known.first_hop().arrive(&body, &frame, accepted.foreign > 0, at, facts, &accepted.annotation)?;
        let verdict = live.journal.store(arrival, held).await.map_err(unavailable)?;
        trace.committed();
        Ok(Receipt { session: accepted.session, ..receipt(&accepted.frame, verdict) })
    }

    /// `POST /v1/track` and its kin
    pub(crate) async fn segment(
        &self,
        call: segment::Call,
        body: Bytes,
        facts: &Facts<'_>,
        held: Held,
        by: Sender,
        trace: &mut Trace,
    ) -> Result<Verdict, Problem> {
        // Reading JSON is the larger part of the work.
        let named = segment::named(facts).and_then(|id| self.tenants.find(id));
        if let Some(found) = &named {
            found.has_room(body.len())?;
        }
        let mut turn = self.turn(named.as_ref(), by, body.len()).await?;
        let find = |id| self.tenants.find(id);
        let granted = |found: &Found, said: &str| found.known.first_hop().rules().consent.granted(said);
        let accepted = match segment::receive(call, &body, facts, &mut random_bytes, find, &granted) {
            Ok(accepted) => accepted,
            Err(refused) => {
                return Err(self.refuse(*refused, &body, facts, asked(call.path(), facts), held).await);
            }
        };
        if turn.is_none() {
            // Its key is in the body.
            turn = self.turn(Some(&accepted.account), by, body.len()).await?;
        }
        let Found { live, known } = &accepted.account;
        trace.verified(live.id, 0, None);
        let _place = live.usage.enter(&known.limits)?;
        let at = here(&accepted.account, facts.now);
        let mut verdict = Verdict::default();
        let mut waits = Vec::new();
        for frame in accepted.frames {
            let body = Bytes::from(frame);
            let frame = Frame::parse(&body)?;
            trace.holds(frame.header().count.into());
            let arrival = known.first_hop().arrive(&body, &frame, true, at, facts, &accepted.annotation)?;
            waits.push(live.journal.send_frame(arrival, &held).ok_or_else(full)?);
        }
        for rejected in accepted.rejected {
            let code = rejected.refusal.code();
            verdict.quarantined += u32::from(rejected.count());
            let annotation = known.first_hop().aside(facts, &Annotation { refused: code, ..accepted.annotation })?;
            let entry = SetAside {
                events: rejected.count(),
                vouched: true,
                body: rejected.body.into(),
                reason: Cow::Borrowed(code),
                at,
                annotation: Some(annotation),
                request: Some(Asked {
                    write_key: Some(accepted.write_key.clone()),
                    ..asked(segment::Call::Batch.path(), facts)
                }),
            };
            waits.push(live.journal.send_aside(entry, &held).ok_or_else(full)?);
        }
        // Sent first and awaited after: they share a commit. Had one failed, the sender sends all of it again, and
        // what is stored is then a duplicate.
        for wait in waits {
            let stored = live.journal.answer(wait).await.map_err(unavailable)?;
            verdict.stored += stored.stored;
            verdict.suppressed += stored.suppressed;
            verdict.duplicate += stored.duplicate;
            verdict.conflict += stored.conflict;
        }
        trace.committed();
        drop((held, turn));
        Ok(verdict)
    }

    /// `POST /v1/e`: an edge's word counts once its signature holds; what it did not vouch for is checked here, or
    /// set aside.
    pub(crate) async fn envelope(
        &self,
        body: Bytes,
        now: Timestamp,
        held: Held,
        by: Sender,
        trace: &mut Trace,
    ) -> Result<Receipt, Problem> {
        let outer = match Frame::parse(&body) {
            Ok(outer) if outer.header().flags.contains(Flags::ENVELOPE) => outer,
            Ok(_) => {
                return Err(Problem::new(CoreError::State).with_detail("a frame without an envelope goes to /v1/f"));
            }
            Err(error) => return Err(error.into()),
        };
        let header = *outer.header();
        let Some(found) = self.tenants.find(header.tenant) else { return Err(CoreError::UnknownKey.into()) };
        found.has_room(body.len())?;
        let _turn = self.turn(Some(&found), by, body.len()).await?;
        // What is wrong with an envelope says nothing of the frame inside, and without a signature it could be
        // anybody's: it is only counted. Its edge has acknowledged nothing, so the page still has the frame.
        let envelope = verify_envelope(&outer, &found, &found.known.file, now)?;
        // The edge's clock may be ahead: nothing was received later than now.
        let time = Timestamp::from_millis(envelope.annotation.received_ms).min(now);
        let at = At { time, region: header.region, hop: envelope.worker };
        let set_aside = |reason: Cow<'static, str>| SetAside {
            body: body.clone(),
            reason,
            events: header.count,
            vouched: is_vouched(envelope.frame, &found, now),
            at,
            annotation: None,
            request: None,
        };
        if !envelope.annotation.refused.is_empty() {
            // Anybody can send to an edge what it will refuse, and that must not cost the tenant its share.
            if !found.live.usage.take_unvouched(&found.known.limits, body.len()) {
                return Err(unavailable(Unavailable::Quarantine));
            }
            let reason = refused_by_edge(envelope.annotation.refused, found.live.journal.totals());
            found.live.journal.set_aside(set_aside(reason), held).await.map_err(unavailable)?;
            // The edge answers its client itself; of the envelope there is nothing to acknowledge but that it is kept.
            return Ok(Receipt { count: 0, stored: 0, ..Receipt::stored(&header) });
        }
        let opened = open_envelope(&envelope, &found, now).and_then(|opened| {
            let arrival = opened.arrival(found.known.first_hop(), &envelope, &body, at)?;
            Ok((opened.frame, arrival))
        });
        match opened {
            Ok((frame, arrival)) => {
                trace.verified(found.live.id, frame.header().count.into(), frame.traceparent());
                let _place = found.live.usage.enter(&found.known.limits)?;
                let verdict = found.live.journal.store(arrival, held).await.map_err(unavailable)?;
                trace.committed();
                Ok(receipt(&frame, verdict))
            }
            Err(problem) if problem.refusal() == Refusal::RateLimited => Err(problem),
            Err(problem) => {
                let (entry, refusal) = (set_aside(problem.code().into()), problem.refusal());
                let told = self.aside(&found, entry, problem, held).await;
                // To an edge, a refusal that does not say so would not be of the frame inside.
                Err(if told.refusal() == refusal { told.or_not_kept() } else { told })
            }
        }
    }

    /// Waits for the turn of a request that names a tenant.
    async fn turn(&self, named: Option<&Found>, by: Sender, bytes: usize) -> Result<Option<Turn>, Problem> {
        let Some(Found { live, .. }) = named else { return Ok(None) };
        let most = usize::try_from(self.settings.queue.0).unwrap_or(usize::MAX);
        let turns = if by == Sender::Stranger { &self.tenants.strangers } else { &live.turns };
        let turn = turns.take(bytes, self.settings.commit_timeout.0, most).await;
        turn.map(Some).map_err(|NoTurn| match live.journal.status() {
            JournalStatus::Up => live.usage.no_turn(),
            JournalStatus::Slow => unavailable(Unavailable::Slow),
            JournalStatus::Down => unavailable(Unavailable::Down),
        })
    }

    /// Sets aside what was refused, if it names a tenant, and says what to answer.
    async fn refuse(
        &self,
        refused: Refused<'_, Found>,
        body: &Bytes,
        facts: &Facts<'_>,
        request: Asked,
        held: Held,
    ) -> Problem {
        let Refused { problem, quarantine, body: kept, count, annotation, .. } = refused;
        let Some(found) = quarantine else { return problem };
        let body = match kept {
            Cow::Borrowed(_) => body.clone(),
            Cow::Owned(bytes) => bytes.into(),
        };
        let now = facts.now;
        let vouched = annotation.trust != Trust::Unchecked || is_vouched(&body, &found, now);
        let annotation = match found.known.first_hop().aside(facts, &annotation) {
            Ok(annotation) => annotation,
            Err(error) => return error.into(),
        };
        let entry = SetAside {
            vouched,
            body,
            reason: Cow::Borrowed(problem.code()),
            events: count,
            at: here(&found, now),
            annotation: Some(annotation),
            request: Some(request),
        };
        self.aside(&found, entry, problem, held).await
    }

    /// The refusal, once what was refused is on disk; until then it is not decided.
    async fn aside(&self, found: &Found, entry: SetAside, problem: Problem, held: Held) -> Problem {
        let events = entry.events;
        // Of a key that is shown from a page that it is not for, nobody answers either.
        let vouched = entry.vouched && problem.refusal() != CoreError::Origin.into();
        if !vouched && !found.live.usage.take_unvouched(&found.known.limits, entry.body.len()) {
            return problem;
        }
        match found.live.journal.set_aside(entry, held).await {
            Ok(()) => problem.with_quarantined(events),
            // Refused it is all the same, but nobody says that it is kept.
            Err(Unavailable::Quarantine) => problem,
            Err(reason) => unavailable(reason),
        }
    }
}

/// Whose turn a request takes. Only its check says whether anybody answers for it, and that is most of its work: so who has just sent more
/// of what nobody answers for than of anything else is expected to do so again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// The tenant's that it names.
    Anybody,
    /// That of all such, whichever tenant they name.
    Stranger,
}

/// Whether anybody could have made what is refused so.
pub(crate) const fn is_forged(refusal: Refusal) -> bool {
    use CoreError::{
        Algorithm, Crc, Extension, HeaderLength, Reserved, Session, Signature, TrailingBytes, Truncated, UnknownKey,
        WriteKey,
    };
    matches!(
        refusal,
        Refusal::Enrolment
            | Refusal::Core(
                Truncated
                    | TrailingBytes
                    | Reserved
                    | Algorithm
                    | HeaderLength
                    | Extension
                    | Crc
                    | Signature
                    | UnknownKey
                    | Session
                    | WriteKey
            )
    )
}

/// The path of native frames.
const FRAME: &str = "/v1/f";
/// Longest origin that is kept. A longer one is nobody's, and stays so when it is cut.
const ORIGIN: usize = 256;

/// What a request says besides its body, for a replay.
fn asked(path: &'static str, facts: &Facts<'_>) -> Asked {
    Asked {
        path: path.into(),
        origin: facts.origin.map(|origin| origin.chars().take(ORIGIN).collect()),
        write_key: segment::key_in_header(facts).map(Cow::into_owned),
    }
}

/// What this server has as the first hop.
fn here(found: &Found, now: Timestamp) -> At {
    At { time: now, region: found.known.rooted.tenant.region, hop: WorkerId::new(0) }
}

/// Whether somebody answers for bytes that are refused all the same: a session, or a write key of the tenant's. Anybody can make
/// what nobody answers for, as much of it as they like.
fn is_vouched(bytes: &[u8], found: &Found, now: Timestamp) -> bool {
    let answers = |(trust, _)| trust != Trust::Unchecked;
    Frame::parse(bytes).and_then(|frame| native::authenticate(&frame, found, now)).is_ok_and(answers)
}

/// Whether an enrolled edge signed it, with a lease that it could have.
fn verify_envelope<'a>(
    outer: &Frame<'a>,
    account: &impl Account,
    file: &TenantFile,
    now: Timestamp,
) -> Result<Envelope<'a>, Problem> {
    let header = outer.header();
    let worker = Envelope::worker(outer)?;
    let enrolled = |edge: &&crate::tenants::Enrolment| {
        edge.worker == worker && edge.region == header.region && edge.removed.is_none_or(|end| now < end)
    };
    file.enrolments.iter().find(enrolled).ok_or(Refusal::Enrolment)?;
    let current = Epoch::at(now).get();
    if header.epoch.get() > current + 1 || header.epoch.get() < current.saturating_sub(ENVELOPE_GRACE_EPOCHS) {
        return Err(CoreError::Epoch.into());
    }
    let scope = LeaseScope { tenant: header.tenant, region: header.region, worker, epoch: header.epoch };
    let lease = account.lease(header.key_id, &scope, now)?.ok_or(CoreError::UnknownKey)?;
    kept::verify_envelope(&lease, outer)?;
    Ok(Envelope::open(outer)?)
}

/// A producer's frame that came in an envelope.
struct Opened<'a> {
    frame: Frame<'a>,
    contents: Contents,
    /// Whether any of its events has an id of another vendor's.
    foreign: bool,
    /// If there is more to it than the edge noted.
    annotation: Option<Annotation<'a>>,
}

impl Opened<'_> {
    fn arrival(
        &self,
        first_hop: FirstHop<'_>,
        envelope: &Envelope<'_>,
        body: &Bytes,
        at: At,
    ) -> Result<Arrival, CoreError> {
        let frame = self.contents.of_frame(&self.frame).ok_or(CoreError::Sealed)?;
        first_hop.arrive_from(body, (envelope, &frame), self.foreign, at, self.annotation)
    }
}

/// Opens an envelope, and what is sealed in it.
fn open_envelope<'a>(envelope: &Envelope<'a>, account: &impl Account, now: Timestamp) -> Result<Opened<'a>, Problem> {
    let frame = Frame::parse(envelope.frame)?;
    let header = frame.header();
    let tenant = account.tenant();
    if header.tenant != tenant.id {
        return Err(Problem::new(CoreError::WriteKey).with_detail("the frame inside is another tenant's"));
    }
    if header.flags.contains(Flags::ENVELOPE) {
        return Err(Problem::new(CoreError::Reserved).with_detail("an envelope inside an envelope"));
    }
    tenant.admits(header.region)?;
    let annotation = match envelope.annotation.trust {
        // The edge held no lease for it; here are all roots.
        Trust::Unchecked => {
            let (trust, _) = native::authenticate(&frame, account, now)?;
            Some(Annotation { trust, ..envelope.annotation })
        }
        _ => None,
    };
    // Of what it has written anew the edge alone can answer.
    let is_anew = envelope.notes.is_some_and(|notes| notes.effects.contains(Effects::REWRITTEN));
    if annotation.is_some() || !is_anew {
        native::check_own(&frame)?;
    }
    account.admit(header.count, envelope.frame.len())?;
    if !is_anew {
        account.check_sealed(header.flags.contains(Flags::SEALED))?;
    }
    let contents = Contents::of(&frame, account)?;
    let foreign = contents.of_frame(&frame).ok_or(CoreError::Sealed)?.check()? > 0;
    check_count(&frame)?;
    Ok(Opened { frame, contents, foreign, annotation })
}

/// A frame without events has no identity by which it would be known again, so what its producer says it dropped could not be
/// counted once. The next frame with an event tells it.
fn check_count(frame: &Frame<'_>) -> Result<(), Problem> {
    if frame.header().count > 0 {
        return Ok(());
    }
    Err(Problem::new(CoreError::Count).with_detail("a frame without events"))
}

/// A reason that an edge gave. What this server calls so itself, it is: a replay asks it. Another is signed, but it becomes a label and rows of
/// the ledger: so it is held to the form that codes have, and there are as many as a newer edge may know.
fn refused_by_edge(code: &str, totals: &Totals) -> Cow<'static, str> {
    if let Some(known) = Refusal::from_code(code) {
        return Cow::Borrowed(known.code());
    }
    let is_code = code.len() <= 32 && code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    // What contradicts a stored event, this server alone finds out.
    let is_free = is_code && code != CONFLICT;
    if is_free && totals.take_reason(code) { Cow::Owned(code.to_owned()) } else { Cow::Borrowed("refused-by-edge") }
}

fn receipt(frame: &Frame<'_>, verdict: journal::Verdict) -> Receipt {
    Receipt {
        stored: verdict.stored,
        suppressed: verdict.suppressed,
        duplicate: verdict.duplicate,
        conflict: verdict.conflict,
        ..Receipt::stored(frame.header())
    }
}

pub(crate) fn unavailable(reason: Unavailable) -> Problem {
    // A queue is empty again in no time; room in quarantine somebody has to make. And it is wanted for this event alone, which an edge has to know.
    let (refusal, seconds) = match reason {
        Unavailable::Quarantine => (Refusal::QuarantineFull, 60),
        _ => (Refusal::Unavailable, 1),
    };
    Problem::new(refusal).with_detail(reason.as_str()).with_retry_after(seconds)
}

/// There is no memory for another request.
pub(crate) fn full() -> Problem {
    Problem::new(Refusal::Unavailable).with_detail("too much under way").with_retry_after(1)
}
