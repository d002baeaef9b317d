//! A request's body → its messages and what they share; and whose it is.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_STANDARD};
use firsthop_core::{Error, WriteKey};

use crate::{
    Facts, Problem, Refusal, json,
    segment::{
        Call, MAX_BATCH, MAX_BODY, MAX_DEPTH, MAX_EVENT, lexical,
        members::{self, Members, malformed},
        message::{Shared, read_time},
    },
};

/// How much JSON a batch may be once what its messages share is written into each: so that a small body cannot make
/// a large journal.
const MAX_EXPANDED: usize = 4 * MAX_BODY;

/// A body, cut apart.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) write_key: Option<Cow<'a, str>>,
    pub(crate) messages: Messages<'a>,
    pub(crate) shared: Shared<'a>,
    /// Bytes of JSON of the largest message with what it shares, and of all.
    pub(crate) largest: usize,
    pub(crate) expanded: usize,
}

#[derive(Debug)]
pub(crate) enum Messages<'a> {
    /// Its members, and as it stands.
    One(Members<'a>, &'a str),
    /// Each as it stands; what is wrong with one spoils no other.
    Batch(Vec<&'a str>),
}

impl<'a> Request<'a> {
    pub(crate) fn read(call: Call, body: &'a str) -> Result<Self, Problem> {
        let mut members: Members<'a> = Members::cut(body).map_err(|error| malformed(error.to_string()))?;
        let write_key = members.get("writeKey")?.and_then(json::text);
        if call != Call::Batch {
            check_size(body)?;
            let messages = Messages::One(members, body);
            let len = body.len();
            return Ok(Self { write_key, messages, shared: Shared::default(), largest: len, expanded: len });
        }
        members.take("writeKey")?;
        let batch = members.take("batch")?.ok_or_else(|| malformed("a batch needs `batch`"))?;
        let batch = members::items(batch).map_err(|_| malformed("`batch` is not a list of messages"))?;
        if batch.len() > MAX_BATCH {
            return Err(Problem::new(Refusal::JsonSize).with_detail(format!("at most {MAX_BATCH} messages")));
        }
        let sent = members.take("sentAt")?.and_then(read_time);
        let context = members.take("context")?.unwrap_or("null");
        let context = Members::parse(context).ok_or_else(|| malformed("`context` is not an object"))?;
        let shared = Shared { context, rest: members, sent };
        shared.context.check_count()?;
        shared.rest.check_count()?;
        for (_, json) in shared.context.0.iter().chain(&shared.rest.0) {
            check_size(json)?;
            check_depth(json)?;
        }
        let each = shared.context.len() + shared.rest.len();
        let largest = each + batch.iter().map(|json| json.len()).max().unwrap_or_default().min(MAX_EVENT);
        let expanded = body.len() + each * batch.len();
        if expanded > MAX_EXPANDED {
            return Err(Problem::new(Refusal::JsonSize).with_detail("what the messages share is too large for so many"));
        }
        Ok(Self { write_key, messages: Messages::Batch(batch), shared, largest, expanded })
    }
}

/// The bound of one message, or of one member of what messages share.
pub(crate) fn check_size(json: &str) -> Result<(), Problem> {
    if json.len() <= MAX_EVENT {
        return Ok(());
    }
    Err(Problem::new(Refusal::JsonSize).with_detail(format!("at most {MAX_EVENT} bytes an event")))
}

fn check_depth(json: &str) -> Result<(), Problem> {
    if lexical::depth(json) > MAX_DEPTH { Err(Refusal::JsonDepth.into()) } else { Ok(()) }
}

/// Tells JSON that is too deep from properties that are. Properties have the tighter bound, and what is cut apart
/// is cut without recursion: so only what has failed for its depth needs the look.
pub(crate) fn name_depth(problem: Problem, json: &str) -> Problem {
    if problem.refusal() == Error::TooDeep.into() { check_depth(json).err().unwrap_or(problem) } else { problem }
}

/// Segment's SDKs send JSON, the browser's as text so that it needs no preflight.
pub(crate) fn check_media_type(facts: &Facts<'_>) -> Result<(), Problem> {
    let media_type = facts.content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let known = ["", "application/json", "text/plain"].iter().any(|known| media_type.eq_ignore_ascii_case(known));
    if known {
        Ok(())
    } else {
        Err(Problem::new(Refusal::MediaType).with_detail("send application/json or text/plain"))
    }
}

/// The write key that a request names: as user of `Basic`, as `Bearer`, or as `writeKey` in the body. What has not the form of
/// a write key counts as none, since a `Bearer` may be a token of another kind.
///
/// # Errors
/// [`Error::WriteKey`] if there is none, or two that differ.
pub(crate) fn write_key<'a>(authorization: Option<&'a str>, body: Option<Cow<'a, str>>) -> Result<Cow<'a, str>, Error> {
    let is_key = |key: &Cow<'_, str>| WriteKey::parse(key).is_ok();
    let header = authorization.and_then(from_header).filter(is_key);
    match (header, body.filter(is_key)) {
        (Some(header), Some(body)) if header != body => Err(Error::WriteKey),
        (header, body) => header.or(body).ok_or(Error::WriteKey),
    }
}

fn from_header(authorization: &str) -> Option<Cow<'_, str>> {
    let (scheme, rest) = authorization.trim().split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Cow::Borrowed(rest));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(BASE64_STANDARD.decode(rest).ok()?).ok()?;
    let user = pair.split(':').next()?;
    Some(Cow::Owned(user.into()))
}
