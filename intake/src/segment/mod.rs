//! Segment's HTTP API: `POST /v1/{track,identify,page,screen,group,alias,batch}` and the browser SDK's short paths.
//!
//! ```text
//!  body ──► Request ──► Message ──► Event ──► unsigned native frames of a fresh source ──► the path of every frame
//!             │ JSON      │ one bad message spoils no other
//!             ▼           ▼
//!          Refused     Rejected ──► quarantine
//! ```
//!
//! | Segment | event |
//! |---|---|
//! | `messageId` | its [id](firsthop_core::ForeignId), and by it its identity; missing or empty: a random one |
//! | `event`, `name`, `groupId`, `previousId` | its name, as [`EventKind`] says |
//! | `properties`, `traits` | its properties |
//! | `userId`, `anonymousId` | fields of its context |
//! | `context.locale`, `.timezone`, `.userAgent`, `.page.{url,title,referrer}`, `.campaign.{source,medium,name,term,content}`, `.screen.{width,height}` | fields of its context |
//! | `context.consent.categoryPreferences` | its frame's consent, as [`granted`](receive) says; it stays in `extra`, too |
//! | all else in `context` | `extra` of its context, under its own name |
//! | all else in the message, `timestamp` and `originalTimestamp` as they were sent included | `extra.segment` of its context |
//! | all else in the batch | as if it stood in each message that has no member of that name |
//! | `ip` at any depth of `context` and of the message, properties and traits apart | cut to its network |
//! | `timestamp`, or `originalTimestamp` alone | its time; `+ (now − sentAt)` where `sentAt` is there, so that a sender's wrong clock does no harm |
//! | both of them | `timestamp` is its time: the message has been through Segment, which set it right |
//! | neither, or not RFC 3339 | its time is the hop's |
//! | `sentAt` | not kept: it belongs to the request, changes with every retry, and follows from the event's time, `timestamp` and the annotation's `received_ms` |
//!
//! A number for an id or a name counts as its text. Lone surrogates in texts become U+FFFD.
//!
//! ```
//! use firsthop_core::{Frame, Keyring, Region, TenantId, Timestamp, WorkerId};
//! use firsthop_intake::{Facts, Origins, RegionSecrets, Rooted, Tenant, rules::Rules, segment::{self, Call}};
//!
//! # fn main() -> Result<(), firsthop_core::Error> {
//! let account = Rooted {
//!     tenant: Tenant {
//!         id: TenantId::new(0xc8),
//!         name: "Shop".into(),
//!         region: Region::ANY,
//!         worker: WorkerId::new(0),
//!         write_keys: vec!["fh_00000000000000c8_Zm9vYmFyYmF6cXV4".into()],
//!         origins: Origins::any(),
//!     },
//!     roots: Keyring::new(),
//!     region_secrets: RegionSecrets::default(),
//!     sealed_only: false,
//! };
//! let body = br#"{ "writeKey": "fh_00000000000000c8_Zm9vYmFyYmF6cXV4", "batch": [
//!     { "type": "track", "event": "Signed Up", "userId": "u-1", "messageId": "m-1" },
//!     { "type": "no such type" }
//! ] }"#;
//! let facts = Facts::at(Timestamp::from_millis(1_700_000_000_000));
//! let mut random = |bytes: &mut [u8]| bytes.fill(4); // a hop's own generator
//! let accepted = segment::receive(Call::Batch, body, &facts, &mut random, |_| Some(&account), &|_, said| {
//!     Rules::none().consent.granted(said)
//! }).expect("accepted");
//!
//! // The good message is an event of a frame, the bad one is to be set aside.
//! assert_eq!(Frame::parse(&accepted.frames[0])?.header().count, 1);
//! assert_eq!(accepted.rejected[0].body, br#"{"batch":[{ "type": "no such type" }]}"#);
//! # Ok(())
//! # }
//! ```

mod frames;
mod lexical;
pub(crate) mod members;
mod message;
mod request;

use std::borrow::Cow;

use firsthop_core::{Annotation, Consent, Event, EventKind, SourceId, TenantId, Timestamp, Trust, WriteKey};

pub(crate) use self::message::REST;
use self::{
    frames::Frames,
    members::{Members, malformed},
    message::{Encoder, Message},
    request::{Messages, Request, check_size, name_depth},
};
use crate::{
    Account, Facts, Problem, Refusal, Refused,
    annotate::{annotate, check_encoding},
};

/// Largest body, in bytes: what Segment takes for a batch.
pub const MAX_BODY: usize = 512_000;
/// Largest event, in bytes of JSON.
pub const MAX_EVENT: usize = 32 * 1024;
/// Most events of one request.
pub const MAX_BATCH: usize = 2_500;
/// Deepest nesting of JSON in an event; what is stored as properties has the tighter bound
/// [`limits::MAX_DEPTH`](firsthop_core::limits::MAX_DEPTH).
pub const MAX_DEPTH: usize = 32;

/// Which of the paths was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// `/v1/track`, `/v1/t`
    Track,
    /// `/v1/identify`, `/v1/i`
    Identify,
    /// `/v1/page`, `/v1/p`
    Page,
    /// `/v1/screen`, `/v1/s`
    Screen,
    /// `/v1/group`, `/v1/g`
    Group,
    /// `/v1/alias`, `/v1/a`
    Alias,
    /// `/v1/batch`, `/v1/b`: each message says its own type.
    Batch,
}

impl Call {
    /// The call of a path behind `/v1/`.
    #[must_use]
    pub fn from_path(name: &str) -> Option<Self> {
        Some(match name {
            "track" | "t" => Self::Track,
            "identify" | "i" => Self::Identify,
            "page" | "p" => Self::Page,
            "screen" | "s" => Self::Screen,
            "group" | "g" => Self::Group,
            "alias" | "a" => Self::Alias,
            "batch" | "b" => Self::Batch,
            _ => return None,
        })
    }

    /// Its long path.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Track => "/v1/track",
            Self::Identify => "/v1/identify",
            Self::Page => "/v1/page",
            Self::Screen => "/v1/screen",
            Self::Group => "/v1/group",
            Self::Alias => "/v1/alias",
            Self::Batch => "/v1/batch",
        }
    }

    /// The kind of the one event, or none for a batch.
    #[must_use]
    pub const fn kind(self) -> Option<EventKind> {
        Some(match self {
            Self::Track => EventKind::Track,
            Self::Identify => EventKind::Identify,
            Self::Page => EventKind::Page,
            Self::Screen => EventKind::Screen,
            Self::Group => EventKind::Group,
            Self::Alias => EventKind::Alias,
            Self::Batch => return None,
        })
    }
}

/// The write key that a request names in its `Authorization`, if it has the form of one.
#[must_use]
pub fn key_in_header<'a>(facts: &Facts<'a>) -> Option<Cow<'a, str>> {
    request::write_key(facts.authorization, None).ok()
}

/// The body of a 200.
pub const SUCCESS: &str = r#"{"success":true}"#;

/// A request that was accepted, though perhaps not all of its messages.
#[derive(Debug)]
pub struct Accepted<'a, T> {
    /// Whose it is.
    pub account: T,
    /// The events, as unsigned native frames with the write key: none if no message was good.
    pub frames: Vec<Vec<u8>>,
    /// What to note on the frames. For what is rejected, `refused` is set to its code.
    pub annotation: Annotation<'a>,
    /// The messages that are no events: set them aside *before* the answer goes out.
    pub rejected: Vec<Rejected>,
    /// The write key that the request showed, in a header or in its body.
    pub write_key: String,
}

/// Messages of a batch that were refused for the same reason.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Why.
    pub refusal: Refusal,
    /// Which, by their place in the batch, and what exactly was wrong.
    pub messages: Vec<(usize, String)>,
    /// What to set aside: a Segment batch of the messages as they came, but for IP addresses, which are cut.
    pub body: Vec<u8>,
}

impl Rejected {
    /// How many messages.
    #[must_use]
    pub fn count(&self) -> u16 {
        u16::try_from(self.messages.len()).unwrap_or(u16::MAX)
    }
}

/// The tenant that a request's headers name, if they do: before its body is looked at, and before anybody answers for it.
#[must_use]
pub fn named(facts: &Facts<'_>) -> Option<TenantId> {
    let key = request::write_key(facts.authorization, None).ok()?;
    Some(WriteKey::parse(&key).ok()?.tenant())
}

/// Decides on a body of one of Segment's paths. `random` fills a buffer with random bytes; `lookup` finds what the hop
/// knows of a tenant and is asked at most once; `granted` says what a message's `context.consent` grants by the tenant's rules.
///
/// A caller whose knowledge may be old can look for news when the refusal is
/// [`Error::WriteKey`](firsthop_core::Error::WriteKey), and ask again.
///
/// # Errors
/// What is wrong with the request as a whole, or with the one message of a call that is no batch.
pub fn receive<'a, T: Account>(
    call: Call,
    body: &'a [u8],
    facts: &Facts<'a>,
    random: &mut dyn FnMut(&mut [u8]),
    lookup: impl FnOnce(TenantId) -> Option<T>,
    granted: &dyn Fn(&T, &str) -> Consent,
) -> Result<Accepted<'a, T>, Box<Refused<'a, T>>> {
    let mut annotation = annotate(facts);
    if let Err(problem) = check_readable(body, facts) {
        return Err(Refused::new(problem, None, body, 1, annotation));
    }
    let text = read_text(body);
    let request = match &text {
        Ok(text) => Request::read(call, text),
        Err(problem) => Err(problem.clone()),
    };
    let named = match &request {
        Ok(request) => request.write_key.clone(),
        Err(_) => lexical::find_text(body, "writeKey").map(Cow::Borrowed),
    };
    let key = request::write_key(facts.authorization, named);
    let account = key.as_ref().ok().and_then(|key| lookup(WriteKey::parse(key).ok()?.tenant()));
    let count = match &request {
        Ok(Request { messages: Messages::Batch(batch), .. }) => u16::try_from(batch.len()).unwrap_or(u16::MAX),
        _ => 1,
    };
    let events = request.and_then(|request| {
        let (key, account) =
            (key.as_deref().map_err(|error| *error)?, account.as_ref().ok_or(firsthop_core::Error::WriteKey)?);
        account.tenant().check_write_key(&WriteKey::parse(key)?)?;
        account.tenant().origins.check(facts.origin)?;
        account.has_room(body.len())?;
        account.admit(count, body.len())?;
        // Whatever becomes of what it says, its sender has shown a key for it, and has spent some of the tenant's share.
        annotation.trust = Trust::WriteKey;
        // No vendor's format is sealed.
        account.check_sealed(false)?;
        let text = text.as_deref().unwrap_or_default();
        let granted = &|said: &str| granted(account, said);
        Events { account, granted, key, traceparent: facts.traceparent, now: facts.now, random }.read(
            call,
            request,
            |message| {
                // Positions in the mended text are positions in the body.
                let at = message.as_ptr() as usize - text.as_ptr() as usize;
                lexical::without_addresses(&body[at..at + message.len()])
            },
        )
    });
    match (events, account) {
        (Ok((frames, rejected)), Some(account)) => {
            let write_key = key.map(Cow::into_owned).unwrap_or_default();
            Ok(Accepted { account, frames, annotation, rejected, write_key })
        }
        (Ok(_), None) => Err(Refused::new(Refusal::Internal, None, body, count, annotation)),
        (Err(problem), account) => {
            Err(Refused::new(problem, account, lexical::without_addresses(body), count, annotation))
        }
    }
}

fn check_readable(body: &[u8], facts: &Facts<'_>) -> Result<(), Problem> {
    check_encoding(facts.content_encoding)?;
    request::check_media_type(facts)?;
    if body.len() > MAX_BODY { Err(Problem::body_too_large(MAX_BODY)) } else { Ok(()) }
}

fn read_text(body: &[u8]) -> Result<Cow<'_, str>, Problem> {
    let text = str::from_utf8(body).map_err(|_| malformed("the body is not UTF-8"))?;
    Ok(lexical::mend_surrogates(text))
}

/// What turning messages into events needs.
struct Events<'r, 'k, T> {
    account: &'r T,
    granted: &'r dyn Fn(&str) -> Consent,
    key: &'k str,
    traceparent: Option<&'k str>,
    now: Timestamp,
    random: &'r mut dyn FnMut(&mut [u8]),
}

impl<T: Account> Events<'_, '_, T> {
    /// The frames, and what is to be set aside; `raw` gives the bytes of a message as they came.
    fn read<'t>(
        mut self,
        call: Call,
        request: Request<'t>,
        raw: impl Fn(&'t str) -> Cow<'t, [u8]>,
    ) -> Result<(Vec<Vec<u8>>, Vec<Rejected>), Problem> {
        let count = match &request.messages {
            Messages::One(..) => 1,
            Messages::Batch(batch) => batch.len(),
        };
        let source = self.fresh();
        let mut frames =
            Frames::new(self.account.tenant(), self.key, self.traceparent, source, self.now, count, request.expanded)?;
        let mut encoder = Encoder::new(request.largest);
        let mut rejected = Vec::new();
        let shared = request.shared;
        match request.messages {
            Messages::One(members, json) => {
                let message = Message::read(members, call.kind(), &shared, self.key, self.now)?;
                frames.under(self.consent_of(&message))?;
                self.push(&message, &mut encoder, &mut frames).map_err(|problem| name_depth(problem, json))?;
            }
            Messages::Batch(batch) => {
                // Those of one visitor grant the same, nearly always. What grants something else waits for its turn, and is read again then: to
                // keep it read would take many times the memory of the body.
                let (mut turn, mut rest) = (None, Vec::new());
                let mut batch: Vec<_> =
                    batch.into_iter().enumerate().map(|(place, json)| (place, json, None)).collect();
                while !batch.is_empty() {
                    for (place, json, consent) in batch.drain(..) {
                        if consent.is_some() && turn.is_some() && consent != turn {
                            rest.push((place, json, consent));
                            continue;
                        }
                        let pushed = check_size(json)
                            .and_then(|()| {
                                Members::parse(json).ok_or_else(|| malformed("the message is not an object"))
                            })
                            .and_then(|members| Message::read(members, None, &shared, self.key, self.now))
                            .and_then(|message| {
                                let consent = self.consent_of(&message);
                                if *turn.get_or_insert(consent) != consent {
                                    rest.push((place, json, Some(consent)));
                                    return Ok(());
                                }
                                frames.under(consent)?;
                                self.push(&message, &mut encoder, &mut frames)
                            });
                        if let Err(problem) = pushed {
                            reject(&mut rejected, &name_depth(problem, json), place, &raw(json));
                        }
                    }
                    turn = None;
                    std::mem::swap(&mut batch, &mut rest);
                }
            }
        }
        for rejected in &mut rejected {
            rejected.body.extend_from_slice(b"]}");
        }
        Ok((frames.finish()?, rejected))
    }

    fn consent_of(&self, message: &Message<'_>) -> Consent {
        message.consent.map_or(Consent::NONE, self.granted)
    }

    fn push(&mut self, message: &Message<'_>, encoder: &mut Encoder, frames: &mut Frames<'_>) -> Result<(), Problem> {
        let now = self.now;
        encoder.encode(message, || self.fresh().to_string(), now, |event: &Event<'_>| frames.push(event))
    }

    /// A UUIDv7.
    fn fresh(&mut self) -> SourceId {
        let mut bytes = [0; 10];
        (self.random)(&mut bytes);
        SourceId::v7(self.now, bytes)
    }
}

/// Adds a message to those that were refused for the same reason.
fn reject(rejected: &mut Vec<Rejected>, problem: &Problem, place: usize, raw: &[u8]) {
    let refusal = problem.refusal();
    let at = rejected.iter().position(|group| group.refusal == refusal).unwrap_or_else(|| {
        rejected.push(Rejected { refusal, messages: Vec::new(), body: br#"{"batch":["#.to_vec() });
        rejected.len() - 1
    });
    let group = &mut rejected[at];
    if !group.messages.is_empty() {
        group.body.push(b',');
    }
    group.messages.push((place, problem.detail().into()));
    group.body.extend_from_slice(raw);
}
