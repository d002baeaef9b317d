//! Passing on unread: the body goes to the region's host as it came, and the answer comes back as it is.
//!
//! Nothing of either is read, kept or logged. Both stay in the platform's memory.

use std::time::Duration;

use worker::js_sys::Uint8Array;

use firsthop_core::Timestamp;
use firsthop_intake::{Problem, Receipt, Refusal, Verdict, check_encoding, policy::FORWARDED, rules::is_gpc};

use crate::{
    arrival::{Arrival, GPC},
    gate::Onward,
    glue::Answer,
    hop::path_of,
    reply::Reply,
    upstream::post_on,
};

/// How long the region's host may take: it may have to ask its server, and wait for that.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Passes a request on.
pub(crate) async fn pass_on(arrival: &Arrival<'_>, onward: &Onward, body: &Uint8Array) -> Result<Reply, Problem> {
    let facts = arrival.facts(Timestamp::default());
    // The header is not passed on, so nobody behind could say it.
    check_encoding(facts.content_encoding)?;
    let gpc = is_gpc(facts.gpc).then_some("1");
    // Whose page it is, what the body is, whose key it shows, and what the visitor takes back. Nothing that says who sent it, or from where.
    let passed = [
        ("origin", facts.origin),
        ("content-type", facts.content_type),
        ("authorization", facts.authorization),
        (GPC, gpc),
    ];
    let passed = passed.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let headers: Vec<_> = passed.chain([(FORWARDED, onward.region.as_str())]).collect();
    let url = [onward.host(), path_of(arrival.url)].concat();
    let answer = post_on(&url, &headers, body, TIMEOUT).await.ok_or(Refusal::Unavailable)?;
    returned(&answer).ok_or_else(|| Refusal::Unavailable.into())
}

/// The answer, if it is one of a first hop: a receipt, a verdict, or a problem. What a proxy says, or somebody at the wrong address, says
/// nothing of the events, and must not make a page forget them.
fn returned(answer: &Answer) -> Option<Reply> {
    let (status, media, verdict) = (answer.status(), answer.media()?, answer.verdict());
    let is_answer = match status {
        200 => media.starts_with("application/json") && says_what_became(verdict.as_deref(), &answer.bytes()),
        400..=599 => media.starts_with("application/problem+json"),
        _ => false,
    };
    if !is_answer {
        return None;
    }
    let mut reply = Reply::foreign(status, answer.bytes()).with("content-type", media);
    // Who did what was asked says nothing of another time.
    let retry_after = if status == 200 { None } else { answer.retry_after() };
    for (name, value) in [("retry-after", retry_after), (Verdict::HEADER, verdict)] {
        if let Some(value) = value {
            reply = reply.with(name, value);
        }
    }
    Some(reply)
}

fn says_what_became(verdict: Option<&str>, body: &Uint8Array) -> bool {
    verdict.is_some_and(|verdict| Verdict::from_header(verdict).is_ok()) || Receipt::from_json(&body.to_vec()).is_ok()
}
