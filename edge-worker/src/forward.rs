//! Forwarding: a frame goes to the server in an envelope, and only the server's word makes it stored.

use std::time::Duration;

use firsthop_core::{Alg, Computed, Header, Noted, SourceId, Timestamp, Wrapped, limits::MAX_NOTES, seal_envelope};
use firsthop_intake::{
    Account as _, Leased, Problem, Receipt, Refusal,
    spool::{Fate, Inside},
};

use crate::{
    counters::{self, Became},
    edge::Edge,
    keys::{Key, Signable},
    lease::Enrolled,
    spool::{Shard, Taken, Why},
    upstream::{Answer, post},
};

/// How long the server may take to make a frame durable.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What an envelope adds to a frame, in bytes: header, worker, annotation and tag come to less than 250.
const AROUND: usize = 512 + MAX_NOTES;

const FULL: &str = "the spool is full";

/// What became of a forwarded frame.
pub(crate) enum Outcome {
    /// The server has it.
    Acknowledged(Receipt),
    /// The spool has it; `again` if it had it before.
    Spooled { again: bool },
    /// The server has set it aside, and says why.
    Refused(Answer),
    /// The server will not have it, says why, and has no room to set it aside.
    NotKept(Answer),
    /// Nobody will have these very bytes, and nobody has them.
    Unfit(Problem),
    /// The server does not have it, or nobody knows: the sender must keep it.
    Unknown(Problem),
}

/// Hands an envelope to the server; to the spool, if the server is away, will not have this one, or the spool has something that goes first.
///
/// `source` is whose frame is inside. Not `spooled` is what was refused: anybody can send that, and it must not fill a tenant's spool. What the server has not got of it
/// then, nobody has. Of the rest the spool takes what somebody answers for.
pub(crate) async fn forward(
    edge: &Edge,
    enrolled: &Enrolled,
    source: SourceId,
    inside: Inside<'_>,
    envelope: &[u8],
    spooled: bool,
) -> Outcome {
    let outcome = hand_on(edge, enrolled, source, inside, envelope, spooled).await;
    counters::count(match &outcome {
        Outcome::Acknowledged(_) => Became::Forwarded,
        Outcome::Spooled { .. } => Became::Spooled,
        Outcome::Refused(_) => Became::SetAside,
        Outcome::NotKept(_) | Outcome::Unfit(_) | Outcome::Unknown(_) => Became::Unknown,
    });
    outcome
}

async fn hand_on(
    edge: &Edge,
    enrolled: &Enrolled,
    source: SourceId,
    inside: Inside<'_>,
    envelope: &[u8],
    spooled: bool,
) -> Outcome {
    let spool = spooled.then(|| Shard::of(edge, enrolled, source));
    if let Some(spool) = &spool {
        match spool.behind(envelope).await {
            Taken::No => {}
            taken => return taken.into(),
        }
    }
    let (fate, answer) = hand_over(&edge.config.upstream, envelope, inside).await;
    let problem = |refusal| patient(refusal, answer.as_ref());
    let taken = match (fate, &spool) {
        (Fate::Stored(receipt), _) => return Outcome::Acknowledged(receipt),
        (fate @ (Fate::SetAside | Fate::NotKept), _) => {
            let Some(answer) = answer else { return Outcome::Unknown(Refusal::Internal.into()) };
            return if fate == Fate::SetAside { Outcome::Refused(answer) } else { Outcome::NotKept(answer) };
        }
        (Fate::Away, Some(spool)) => spool.take(Why::Away, envelope, answer.as_ref()).await,
        // One that others do not have to wait for: a page sends one after the other, and would send this one for ever.
        (Fate::Unfit | Fate::Barred, Some(spool)) => spool.take(Why::Itself, envelope, answer.as_ref()).await,
        (Fate::Unfit, None) => return Outcome::Unfit(problem(Refusal::Unavailable)),
        // The server is there and wants less of the tenant: what it does not get now, the page keeps.
        (Fate::Limited, _) => return Outcome::Unknown(problem(Refusal::RateLimited)),
        (fate, _) => {
            if fate == Fate::Refused {
                enrolled.doubt();
            }
            return Outcome::Unknown(problem(Refusal::Unavailable));
        }
    };
    match taken {
        Taken::Yes | Taken::Again => taken.into(),
        Taken::Full => Outcome::Unknown(problem(Refusal::Unavailable).with_detail(FULL)),
        _ => Outcome::Unknown(problem(Refusal::Unavailable)),
    }
}

/// Posts an envelope with this inside, and reads what the answer says of it.
pub(crate) async fn hand_over(upstream: &str, envelope: &[u8], inside: Inside<'_>) -> (Fate, Option<Answer>) {
    let url = format!("{upstream}/v1/e");
    let headers = [("content-type", "application/octet-stream")];
    match post(&url, &headers, Some(envelope), TIMEOUT).await {
        Some(answer) => (Fate::of(answer.status, answer.verdict.as_deref(), &answer.body, inside), Some(answer)),
        None => (Fate::Away, None),
    }
}

/// Wraps a frame and signs the envelope. Nothing if there is no lease to sign with.
pub(crate) async fn envelope(
    enrolled: &Enrolled,
    account: &Leased,
    noted: Noted<'_>,
    frame: Wrapped<'_>,
    count: u16,
    now: Timestamp,
) -> Option<Signable> {
    let (key_id, scope, lease) = account.current(now).ok()?;
    let (source, batch_seq) = enrolled.next_envelope(now);
    let header = Header {
        key_id,
        epoch: scope.epoch,
        region: scope.region,
        alg: Alg::HmacSha256,
        count,
        batch_seq,
        ..Header::new(scope.tenant, source, now)
    };
    let mut envelope = Signable::new(frame.bytes().len() + AROUND);
    // The tag stands behind all that is signed, so it can be put there afterwards.
    let unsigned = Computed::new(header.alg, [0; 32]).ok()?;
    let length = seal_envelope(&mut envelope, &header, scope.worker, noted, frame, &unsigned).ok()?.len();
    envelope.truncate(length);
    let signed = length - header.alg.tag_len();
    let tag = Key::of_envelopes(&lease)?.tag(&envelope, signed).await;
    envelope[signed..].copy_from_slice(&tag);
    Some(envelope)
}

/// A refusal with the pause that the server asked for.
fn patient(refusal: Refusal, answer: Option<&Answer>) -> Problem {
    let problem = Problem::new(refusal);
    match answer.and_then(Answer::asked).and_then(|seconds| seconds.try_into().ok()) {
        Some(seconds) => problem.with_retry_after(seconds),
        None => problem,
    }
}

impl From<Taken> for Outcome {
    fn from(taken: Taken) -> Self {
        match taken {
            Taken::Yes => Self::Spooled { again: false },
            Taken::Again => Self::Spooled { again: true },
            Taken::Full => Self::Unknown(Problem::new(Refusal::Unavailable).with_detail(FULL)),
            Taken::No | Taken::Unchecked | Taken::Unknown => Self::Unknown(Refusal::Unavailable.into()),
        }
    }
}
