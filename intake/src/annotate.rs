//! What a hop notes on a request: where it came from, and what kind of client sent it.

use firsthop_core::{Annotation, Trust};

use crate::{
    Facts, Problem, Refusal,
    rules::{agent, traffic},
};

/// The annotation of a request, before it is known who answers for it.
pub(crate) fn annotate<'a>(facts: &Facts<'a>) -> Annotation<'a> {
    let lower = agent::lower(facts);
    let agent = agent::agent_class(facts, &lower);
    Annotation {
        received_ms: facts.now.as_millis(),
        pop: short(facts.pop, 3..=8),
        country: short(facts.country, 2..=2),
        network: facts.network,
        agent,
        traffic: traffic::verdict(facts, agent, &lower),
        trust: Trust::Unchecked,
        refused: "",
    }
}

/// Checks a `Content-Encoding`. Bodies are read as they come: a decompressor here would be a bomb's fuse, and neither our SDK nor Segment's needs
/// it.
///
/// # Errors
/// [`Refusal::ContentEncoding`].
pub fn check_encoding(encoding: Option<&str>) -> Result<(), Problem> {
    match encoding.map(str::trim) {
        None | Some("") => Ok(()),
        Some(encoding) if encoding.eq_ignore_ascii_case("identity") => Ok(()),
        Some(_) => Err(Refusal::ContentEncoding.into()),
    }
}

/// Codes are letters and digits of a known length; anything else is not one.
fn short(code: Option<&str>, len: std::ops::RangeInclusive<usize>) -> &str {
    code.filter(|code| len.contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric())).unwrap_or_default()
}
