//! Forwarding: a frame goes to the server in an envelope, and only the server's word makes it stored.

use std::time::Duration;

use firsthop_core::{Alg, Annotation, Header, Timestamp, seal_envelope};
use firsthop_intake::{Account as _, Leased, Problem, Receipt, Refusal, Verdict};

use crate::{
    lease::Enrolled,
    platform::now,
    upstream::{Answer, post},
};

/// How long the server may take to make a frame durable.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What an envelope adds to a frame, in bytes: header, worker, annotation and tag come to less than 250.
const AROUND: usize = 512;

/// What became of a forwarded frame.
pub(crate) enum Outcome {
    /// The server has it.
    Acknowledged(Receipt),
    /// The server has set it aside, and says why.
    Refused(Answer),
    /// The server does not have it, or nobody knows: the sender must keep it.
    Unknown(Problem),
}

/// Wraps a frame, signs the envelope and posts it.
pub(crate) async fn forward(
    upstream: &str,
    enrolled: &Enrolled,
    account: &Leased,
    annotation: &Annotation<'_>,
    frame: &[u8],
    count: u16,
) -> Outcome {
    let Some(envelope) = envelope(enrolled, account, annotation, frame, count, now()) else {
        return Outcome::Unknown(Refusal::Unavailable.into());
    };
    let url = format!("{upstream}/v1/e");
    let headers = [("content-type", "application/octet-stream")];
    match post(&url, &headers, Some(&envelope), TIMEOUT).await {
        Some(answer) if answer.status / 100 == 2 => match Receipt::from_json(&answer.body) {
            Ok(receipt) => Outcome::Acknowledged(receipt),
            // What answers 2xx without a receipt is no Firsthop server: nothing is known to be stored.
            Err(_) => Outcome::Unknown(Refusal::Unavailable.into()),
        },
        Some(answer) if set_aside(&answer) => Outcome::Refused(answer),
        Some(answer) => Outcome::Unknown(away(&answer)),
        None => Outcome::Unknown(Refusal::Unavailable.into()),
    }
}

fn envelope(
    enrolled: &Enrolled,
    account: &Leased,
    annotation: &Annotation<'_>,
    frame: &[u8],
    count: u16,
    now: Timestamp,
) -> Option<Vec<u8>> {
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
    let key = lease.envelope_key(header.alg).ok()?;
    let mut envelope = vec![0; frame.len() + AROUND];
    let length = seal_envelope(&mut envelope, &header, scope.worker, annotation, frame, &key).ok()?.len();
    envelope.truncate(length);
    Some(envelope)
}

/// Whether a refusal is the server's verdict on the frame, which it has then set aside: it says so in its receipt.
///
/// Any other refusal is of the envelope or of somebody between here and the server, and says nothing of the frame:
/// to hand it on would make a page throw away what was never looked at.
fn set_aside(answer: &Answer) -> bool {
    let verdict = answer.verdict.as_deref().map(Verdict::from_header);
    matches!(answer.status, 400..=499 | 501) && matches!(verdict, Some(Ok(verdict)) if verdict.quarantined > 0)
}

fn away(answer: &Answer) -> Problem {
    let problem = Problem::new(if answer.status == 429 { Refusal::RateLimited } else { Refusal::Unavailable });
    match answer.retry_after.as_deref().and_then(|seconds| seconds.parse().ok()) {
        Some(seconds) => problem.with_retry_after(seconds),
        None => problem,
    }
}
