//! What was set aside, decided again: by the same checks that a request goes through, with the keys and settings of today.
//!
//! An entry is let in if it would have been when it came, or would be now: a session that has ended since, or a root, was good when it
//! came, and that is when this server had it. What a replay knows of the request is what was noted then; where the origin was not noted
//! (an edge forwarded it, or an older version set it aside), what was refused for its origin stays, and of the rest the origin is not
//! asked, as of a sender that tells none.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use firsthop_core::{Annotation, Envelope, Error as CoreError, Flags, Frame, MAGIC, Timestamp, Trust, WorkerId};
use firsthop_intake::{Account, Contents, Facts, Problem, Refusal, Rooted, native, segment};

use super::{FRAME, FirstHop, asked, check_count, first_hop::facts_of, open_envelope, verify_envelope};
use crate::{
    journal::{
        Arrival, Asked, At, Noted, Readable, SetAside,
        quarantine::{CONFLICT, Item},
    },
    tenants::{KeyFile, TenantFile, random_bytes},
};

/// What becomes of an entry.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Frames to store, and what of it is refused all the same.
    Good(Vec<Arrival>, Vec<SetAside>),
    /// What contradicted a stored event: as it came, which the tables are asked about again, and as today's rules want what turns out to be
    /// new.
    Compare { said: Box<Arrival>, kept: Box<Arrival> },
    /// It stays, for this reason.
    Refused(Problem),
}

/// What a tenant's files say today.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Today<'a> {
    pub(crate) rooted: &'a Rooted,
    pub(crate) file: &'a TenantFile,
    pub(crate) keys: &'a KeyFile,
}

impl<'a> Today<'a> {
    const fn first_hop(self) -> FirstHop<'a> {
        FirstHop { file: self.file, keys: self.keys }
    }
}

/// Decides on an entry again.
pub(crate) fn judge(item: &Item, today: Today<'_>, now: Timestamp) -> Verdict {
    let came = Timestamp::from_millis(item.line.first_ms as u64);
    let mut problem = match decide(item, today, came) {
        Ok(good) => return good,
        Err(problem) => problem,
    };
    // What is wrong with the bytes is wrong at any time.
    let of_time = [CoreError::Epoch, CoreError::SessionExpired, CoreError::UnknownKey].map(Refusal::from);
    if of_time.contains(&problem.refusal()) || problem.refusal() == Refusal::Enrolment {
        match decide(item, today, now) {
            Ok(good) => return good,
            Err(later) => problem = later,
        }
    }
    Verdict::Refused(problem)
}

fn decide(item: &Item, today: Today<'_>, time: Timestamp) -> Result<Verdict, Problem> {
    let body = &item.body;
    if item.line.reason == CONFLICT {
        return conflict(item, today);
    }
    let region = item.line.region.parse().unwrap_or_default();
    let here = At { time: Timestamp::from_millis(item.line.first_ms as u64), region, hop: WorkerId::new(0) };
    let noted = item.annotation.as_deref().map(Noted::from_bytes).transpose()?.unwrap_or_default();
    let entry = Entry { item, today, time, at: here, noted };
    if !body.starts_with(&MAGIC) {
        return entry.segment(body, item.request.clone(), None);
    }
    let frame = Frame::parse(body)?;
    if !frame.header().flags.contains(Flags::ENVELOPE) {
        return entry.frame(&frame);
    }
    if frame.header().tenant != today.rooted.tenant.id {
        return Err(CoreError::WriteKey.into());
    }
    let envelope = verify_envelope(&frame, today.rooted, today.file, time)?;
    let noted = Noted { annotation: envelope.annotation, notes: envelope.notes };
    let at = At {
        time: Timestamp::from_millis(noted.annotation.received_ms).min(time),
        region: frame.header().region,
        hop: envelope.worker,
    };
    let entry = Entry { at, noted, ..entry };
    let first_hop = today.first_hop();
    if noted.annotation.refused.is_empty() {
        return one(open_envelope(&envelope, today.rooted, time)?.arrival(first_hop, &envelope, body, at)?);
    }
    entry.check_origin()?;
    if envelope.frame.starts_with(&MAGIC) {
        // The edge's word was no; here are all keys.
        let unchecked = Envelope { annotation: Annotation { trust: Trust::Unchecked, ..noted.annotation }, ..envelope };
        let mut opened = open_envelope(&unchecked, today.rooted, time)?;
        opened.annotation = opened.annotation.map(|annotation| Annotation { refused: "", ..annotation });
        return one(opened.arrival(first_hop, &unchecked, body, at)?);
    }
    // Messages of a call whose write key the edge had checked come without it. The frames that they become are this server's.
    let shown = (noted.annotation.trust == Trust::WriteKey).then(|| today.file.write_keys.first().cloned()).flatten();
    let entry = Entry { at: At { time: at.time, ..here }, ..entry };
    entry.segment(&Bytes::copy_from_slice(envelope.frame), None, shown)
}

fn one(arrival: Arrival) -> Result<Verdict, Problem> {
    Ok(Verdict::Good(vec![arrival], Vec::new()))
}

/// Somebody answered for it when it came; what it contradicts may be gone, so the tables are asked again: about what its producer said. The
/// rules of today, as for whatever comes, are for what is stored then: after them, nobody could tell the two from each other.
fn conflict(item: &Item, today: Today<'_>) -> Result<Verdict, Problem> {
    let body = &item.body;
    let own = item.annotation.as_deref().map(Noted::from_bytes).transpose()?;
    let outer = Frame::parse(body)?;
    let envelope = outer.header().flags.contains(Flags::ENVELOPE).then(|| Envelope::open(&outer)).transpose()?;
    let at = At {
        time: Timestamp::from_millis(item.line.first_ms as u64),
        region: item.line.region.parse().unwrap_or_default(),
        hop: envelope.as_ref().map_or(WorkerId::new(0), |envelope| envelope.worker),
    };
    let bytes = envelope.as_ref().map_or(&body[..], |envelope| envelope.frame);
    let readable = Readable::parse(bytes, &today.rooted.region_secrets)?;
    let frame = readable.frame();
    frame.check()?;
    let first_hop = today.first_hop();
    let said = Arrival::new(body, &frame, true, at, own.as_ref())?;
    let kept = match (&envelope, own) {
        (Some(envelope), own) => {
            first_hop.arrive_from(body, (envelope, &frame), true, at, own.map(|own| own.annotation))?
        }
        (None, own) => {
            let noted = own.unwrap_or_default();
            first_hop.arrive(body, &frame, true, at, &facts_of(&noted, at), &noted.annotation)?
        }
    };
    Ok(Verdict::Compare { said: Box::new(said), kept: Box::new(kept) })
}

/// An entry at a time, as whoever had it first.
struct Entry<'a> {
    item: &'a Item,
    today: Today<'a>,
    time: Timestamp,
    at: At,
    noted: Noted<'a>,
}

impl Entry<'_> {
    /// A native frame that came here directly.
    fn frame(&self, frame: &Frame<'_>) -> Result<Verdict, Problem> {
        let account = self.today.rooted;
        let (trust, contents) = match self.item.request.as_ref().filter(|request| request.path == FRAME) {
            Some(request) => {
                let facts = Facts { origin: request.origin.as_deref(), ..Facts::at(self.time) };
                let accepted =
                    native::receive(&self.item.body, &facts, |id| (id == account.tenant.id).then_some(account))
                        .map_err(|refused| refused.problem)?;
                (accepted.annotation.trust, accepted.contents)
            }
            None => {
                self.check_origin()?;
                if frame.header().tenant != account.tenant.id {
                    return Err(CoreError::WriteKey.into());
                }
                account.tenant.admits(frame.header().region)?;
                let (trust, _) = native::authenticate(frame, account, self.time)?;
                let contents = Contents::of(frame, account)?;
                contents.of_frame(frame).ok_or(CoreError::Sealed)?.check()?;
                (trust, contents)
            }
        };
        check_count(frame)?;
        let annotation = Annotation { trust, refused: "", ..self.noted.annotation };
        let frame = contents.of_frame(frame).ok_or(CoreError::Sealed)?;
        let facts = facts_of(&self.noted, self.at);
        one(self.today.first_hop().arrive(&self.item.body, &frame, true, self.at, &facts, &annotation)?)
    }

    /// A call of Segment's. `shown`: a write key that stands for the one that was shown.
    fn segment(&self, body: &Bytes, request: Option<Asked>, shown: Option<String>) -> Result<Verdict, Problem> {
        let account = self.today.rooted;
        let call = match &request {
            Some(request) => request.path.strip_prefix("/v1/").and_then(segment::Call::from_path),
            None => {
                self.check_origin()?;
                guess(body)
            }
        };
        let Some(call) = call else {
            return Err(Problem::new(Refusal::Json).with_detail("neither a frame nor a call of Segment's"));
        };
        let noted = request.as_ref().and_then(|request| request.write_key.clone());
        // A version before noted no key; what it set aside of a call with others was of one whose key was checked.
        let old = || (request.is_none() && self.item.line.vouched).then(|| self.today.file.write_keys.first().cloned());
        let key = noted.or(shown).or_else(|| old().flatten());
        let authorization = key.map(|key| format!("Basic {}", BASE64_STANDARD.encode(format!("{key}:"))));
        let facts = Facts {
            origin: request.as_ref().and_then(|request| request.origin.as_deref()),
            authorization: authorization.as_deref(),
            ..Facts::at(self.time)
        };
        let find = |id| (id == account.tenant().id).then_some(account);
        let consent = &self.today.first_hop().rules().consent;
        let accepted = segment::receive(call, body, &facts, &mut random_bytes, find, &|_, said| consent.granted(said))
            .map_err(|refused| refused.problem)?;
        if let ([], [all]) = (&*accepted.frames, &*accepted.rejected) {
            let detail = all.messages.first().map(|(_, detail)| detail.clone()).unwrap_or_default();
            return Err(Problem::new(all.refusal).with_detail(detail));
        }
        let noted = Annotation { trust: Trust::WriteKey, refused: "", ..self.noted.annotation };
        let first_hop = self.today.first_hop();
        let known = facts_of(&self.noted, self.at);
        let arrivals = accepted.frames.into_iter().map(|frame| {
            let body = Bytes::from(frame);
            let frame = Frame::parse(&body)?;
            first_hop.arrive(&body, &frame, true, self.at, &known, &noted)
        });
        let arrivals = arrivals.collect::<Result<Vec<_>, _>>()?;
        let rejected = accepted.rejected.into_iter().map(|rejected| {
            let code = rejected.refusal.code();
            Ok(SetAside {
                events: rejected.count(),
                vouched: true,
                body: rejected.body.into(),
                reason: Cow::Borrowed(code),
                at: self.at,
                annotation: Some(first_hop.aside(&known, &Annotation { refused: code, ..noted })?),
                request: Some(Asked {
                    write_key: Some(accepted.write_key.clone()),
                    ..asked(segment::Call::Batch.path(), &facts)
                }),
            })
        });
        Ok(Verdict::Good(arrivals, rejected.collect::<Result<_, CoreError>>()?))
    }

    /// For what came from an origin that nobody noted.
    fn check_origin(&self) -> Result<(), Problem> {
        // The reason is the last one: at the first it may have been another, or a name for all that an edge said.
        if ![&*self.item.line.reason, self.noted.annotation.refused].contains(&CoreError::Origin.code()) {
            return Ok(());
        }
        Err(Problem::new(CoreError::Origin).with_detail("nobody noted which origin it was"))
    }
}

/// Which of Segment's calls a body without a path is: the edge forwards bodies only.
fn guess(body: &[u8]) -> Option<segment::Call> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    if json.get("batch").is_some() {
        return Some(segment::Call::Batch);
    }
    segment::Call::from_path(json.get("type")?.as_str()?)
}
