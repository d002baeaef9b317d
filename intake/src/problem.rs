//! Why a request was refused: one table from every refusal to its status, code and problem type (RFC 9457).

use std::{borrow::Cow, fmt, time::Duration};

use firsthop_core::{Annotation, Error};
use serde::Serialize;

use crate::{
    Verdict,
    fields::{Others, fill, needed},
};

/// Why a request, or one event of it, was refused.
///
/// Its [`code`](Self::code) is the problem type, the label of the counter `firsthop_refused_total{code}` and the reason in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// A frame or event failed a check of the core's.
    Core(Error),
    /// What came is no HTTP/1.1 request.
    Head,
    /// The request line and the headers are over the hop's bound.
    HeadTooLarge,
    /// No such path.
    NotFound,
    /// The path has other methods.
    MethodNotAllowed,
    /// The body is over the route's bound; the rest of it was not read.
    BodyTooLarge,
    /// The body took too long to come.
    BodyTimeout,
    /// A `Content-Type` that the route does not read.
    MediaType,
    /// A `Content-Encoding` other than `identity`.
    ContentEncoding,
    /// Not JSON, or not the JSON that the vendor's format asks for.
    Json,
    /// JSON nested deeper than [`segment::MAX_DEPTH`](crate::segment::MAX_DEPTH).
    JsonDepth,
    /// One event over [`segment::MAX_EVENT`](crate::segment::MAX_EVENT), or too many of them.
    JsonSize,
    /// The frame is for a region that this hop does not serve.
    WrongRegion,
    /// The frame is not sealed, and the tenant takes no other.
    Unsealed,
    /// One hop has passed the body on, and the next would have to again.
    ForwardLoop,
    /// An edge's enrolment token that the server does not know.
    Enrolment,
    /// `/statusz` or `/metrics` of an edge, without the token that its operator has set.
    StatusToken,
    /// More than the tenant may send.
    RateLimited,
    /// Quarantine has no room for what belongs there. Other events are stored.
    QuarantineFull,
    /// The event could not be made durable now.
    Unavailable,
    /// A defect of ours.
    Internal,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

impl Refusal {
    /// All that this build knows.
    pub const ALL: &[Self] = &[
        Self::Head,
        Self::HeadTooLarge,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::BodyTooLarge,
        Self::BodyTimeout,
        Self::MediaType,
        Self::ContentEncoding,
        Self::Json,
        Self::JsonDepth,
        Self::JsonSize,
        Self::WrongRegion,
        Self::Unsealed,
        Self::ForwardLoop,
        Self::Enrolment,
        Self::StatusToken,
        Self::RateLimited,
        Self::QuarantineFull,
        Self::Unavailable,
        Self::Internal,
        Self::Core(Error::Truncated),
        Self::Core(Error::TrailingBytes),
        Self::Core(Error::TooLarge),
        Self::Core(Error::Magic),
        Self::Core(Error::Version),
        Self::Core(Error::Reserved),
        Self::Core(Error::Sealed),
        Self::Core(Error::Algorithm),
        Self::Core(Error::Region),
        Self::Core(Error::HeaderLength),
        Self::Core(Error::Extension),
        Self::Core(Error::Crc),
        Self::Core(Error::Signature),
        Self::Core(Error::UnknownKey),
        Self::Core(Error::Epoch),
        Self::Core(Error::SessionExpired),
        Self::Core(Error::Session),
        Self::Core(Error::Origin),
        Self::Core(Error::WriteKey),
        Self::Core(Error::Count),
        Self::Core(Error::Payload),
        Self::Core(Error::TooDeep),
        Self::Core(Error::BufferFull),
        Self::Core(Error::RingFull),
        Self::Core(Error::Parse),
        Self::Core(Error::State),
        Self::Core(Error::Seal),
    ];

    /// The one with this code, if this build knows it.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|refusal| refusal.code() == code)
    }

    /// Stable name: lower case, hyphenated.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Core(error) => error.code(),
            Self::Head => "malformed-head",
            Self::HeadTooLarge => "head-too-large",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::BodyTooLarge => "body-too-large",
            Self::BodyTimeout => "body-timeout",
            Self::MediaType => "unsupported-media-type",
            Self::ContentEncoding => "unsupported-encoding",
            Self::Json => "malformed-json",
            Self::JsonDepth => "json-too-deep",
            Self::JsonSize => "json-too-large",
            Self::WrongRegion => "wrong-region",
            Self::Unsealed => "unsealed",
            Self::ForwardLoop => "forward-loop",
            Self::Enrolment => "wrong-enrolment",
            Self::StatusToken => "wrong-token",
            Self::RateLimited => "rate-limited",
            Self::QuarantineFull => "quarantine-full",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Core(error) => match error {
                Error::Signature
                | Error::UnknownKey
                | Error::Epoch
                | Error::SessionExpired
                | Error::Session
                | Error::WriteKey => 401,
                Error::Origin => 403,
                Error::TooLarge => 413,
                Error::Sealed => 501,
                _ => 400,
            },
            Self::Head | Self::Json | Self::JsonDepth | Self::Unsealed => 400,
            Self::Enrolment | Self::StatusToken => 401,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::BodyTimeout => 408,
            Self::BodyTooLarge | Self::JsonSize => 413,
            Self::MediaType | Self::ContentEncoding => 415,
            Self::WrongRegion => 421,
            Self::RateLimited => 429,
            Self::HeadTooLarge => 431,
            Self::Internal => 500,
            Self::QuarantineFull | Self::Unavailable => 503,
            Self::ForwardLoop => 508,
        }
    }

    /// Whether the same bytes may be accepted later: because it was the hop's fault, or because they may have been
    /// damaged on the way.
    #[must_use]
    pub const fn retryable(self) -> bool {
        match self {
            Self::Core(error) => {
                matches!(error, Error::Crc | Error::Truncated | Error::TrailingBytes | Error::Signature)
            }
            _ => matches!(self.status(), 408 | 429 | 500..),
        }
    }

    /// What a person reads first. The same for every occurrence.
    #[must_use]
    pub fn title(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Core(error) => return Cow::Owned(error.to_string()),
            Self::Head => "not an HTTP/1.1 request",
            Self::HeadTooLarge => "request line and headers over the size limit",
            Self::NotFound => "no such path",
            Self::MethodNotAllowed => "method not allowed on this path",
            Self::BodyTooLarge => "body over the size limit",
            Self::BodyTimeout => "body took too long to arrive",
            Self::MediaType => "media type not supported on this path",
            Self::ContentEncoding => "content encoding not supported",
            Self::Json => "not the JSON that this path expects",
            Self::JsonDepth => "JSON nested too deeply",
            Self::JsonSize => "event or batch over the size limit",
            Self::WrongRegion => "frame is for a region that is not served here",
            Self::Unsealed => "not sealed, and this tenant takes only what is",
            Self::ForwardLoop => "the hop that this was passed on to may not read it either",
            Self::Enrolment => "enrolment token not known",
            Self::StatusToken => "not the token that was set for this",
            Self::RateLimited => "too many events",
            Self::QuarantineFull => "no room to keep what cannot be stored",
            Self::Unavailable => "events cannot be stored at the moment",
            Self::Internal => "internal error",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title())
    }
}

impl std::error::Error for Refusal {}

/// A refusal with what is particular to one request: the body and headers of an RFC 9457 answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    refusal: Refusal,
    detail: Cow<'static, str>,
    reason: &'static str,
    retry_after: Option<u32>,
    allow: Option<&'static str>,
    quarantined: Option<u32>,
    pause: Duration,
}

/// Media type of a problem.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";
/// What a problem's type begins with; its code follows.
const TYPES: &str = "https://firsthop.dev/problems/";
/// What `Retry-After` says unless the hop knows better, in seconds.
const RETRY_AFTER: u32 = 5;

impl<R: Into<Refusal>> From<R> for Problem {
    fn from(refusal: R) -> Self {
        Self::new(refusal)
    }
}

impl Problem {
    /// A problem without detail; one that comes from the hop's own state says to come back in 5 seconds.
    #[must_use]
    pub fn new(refusal: impl Into<Refusal>) -> Self {
        let refusal = refusal.into();
        let retry_after = matches!(refusal.status(), 429 | 503).then_some(RETRY_AFTER);
        Self {
            refusal,
            detail: Cow::Borrowed(""),
            reason: "",
            retry_after,
            allow: None,
            quarantined: None,
            pause: Duration::ZERO,
        }
    }

    /// [`Refusal::MethodNotAllowed`] with the methods that are.
    #[must_use]
    pub fn not_allowed(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::new(Refusal::MethodNotAllowed) }
    }

    /// [`Refusal::BodyTooLarge`] with the bound, in bytes.
    #[must_use]
    pub fn body_too_large(most: usize) -> Self {
        Self::new(Refusal::BodyTooLarge).with_detail(format!("at most {most} bytes"))
    }

    /// What happened here, for whoever reads the answer. Says nothing of other tenants or of the hop's inside.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { detail: detail.into(), ..self }
    }

    /// What keeps a hop from taking anything, for machines: one word.
    #[must_use]
    pub fn with_reason(self, reason: &'static str) -> Self {
        Self { reason, ..self }
    }

    /// When to come back, in seconds.
    #[must_use]
    pub const fn with_retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// How long the answer waits before it goes out, where whoever gets it would ask again at once.
    #[must_use]
    pub const fn with_pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// What was refused is set aside, as this many events by its own word; at least 1. The answer says so
    /// ([`Verdict`]), and an edge hands a server's refusal on only if it does.
    #[must_use]
    pub const fn with_quarantined(mut self, events: u16) -> Self {
        self.quarantined = Some(if events == 0 { 1 } else { events as u32 });
        self
    }

    /// What was refused could not be set aside. The answer says so, since to an edge a refusal that says nothing is none of the frame.
    #[must_use]
    pub const fn or_not_kept(mut self) -> Self {
        if self.quarantined.is_none() {
            self.quarantined = Some(0);
        }
        self
    }

    /// Why.
    #[must_use]
    pub const fn refusal(&self) -> Refusal {
        self.refusal
    }

    /// HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.refusal.status()
    }

    /// The refusal's name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.refusal.code()
    }

    /// What happened here; may be empty.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// When to come back, in seconds.
    #[must_use]
    pub const fn retry_after(&self) -> Option<u32> {
        self.retry_after
    }

    /// How long the answer waits before it goes out.
    #[must_use]
    pub const fn pause(&self) -> Duration {
        self.pause
    }

    /// The methods that the path has, for a 405.
    #[must_use]
    pub const fn allow(&self) -> Option<&'static str> {
        self.allow
    }

    /// The code of the problem that the body of an answer is, if it is one of ours; this build need not know it.
    #[must_use]
    pub fn code_in(body: &[u8]) -> Option<String> {
        let mut kind = String::new();
        fill(std::str::from_utf8(body).ok()?, Others::Skipped, &mut [needed("type", &mut kind)]).ok()?;
        kind.strip_prefix(TYPES).map(Into::into)
    }

    /// The headers of the answer, without [`CORS`](crate::CORS): names in lower case.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, Cow<'static, str>)> {
        let mut headers = vec![("content-type", PROBLEM_JSON.into()), ("cache-control", "no-store".into())];
        if let Some(seconds) = self.retry_after {
            headers.push(("retry-after", seconds.to_string().into()));
        }
        if let Some(allow) = self.allow {
            headers.push(("allow", allow.into()));
        }
        if let Some(quarantined) = self.quarantined {
            let verdict = Verdict { quarantined, ..Verdict::default() };
            headers.push((Verdict::HEADER, verdict.to_header().into()));
        }
        match self.refusal {
            Refusal::ContentEncoding => headers.push(("accept-encoding", "identity".into())),
            Refusal::Enrolment | Refusal::StatusToken => headers.push(("www-authenticate", "Bearer".into())),
            _ => {}
        }
        headers
    }

    /// The body of the answer.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.json(None)
    }

    /// The body of an answer to a Segment SDK: the same, with the `success` that those look for.
    #[must_use]
    pub fn to_segment_json(&self) -> String {
        self.json(Some(false))
    }

    fn json(&self, success: Option<bool>) -> String {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: String,
            title: &'a str,
            status: u16,
            #[serde(skip_serializing_if = "str::is_empty")]
            detail: &'a str,
            code: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            reason: &'a str,
            retryable: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            success: Option<bool>,
        }
        let body = Body {
            r#type: [TYPES, self.code()].concat(),
            title: &self.refusal.title(),
            status: self.status(),
            detail: &self.detail,
            code: self.code(),
            reason: self.reason,
            retryable: self.refusal.retryable(),
            success,
        };
        // Strings and numbers: nothing in it can fail.
        serde_json::to_string(&body).unwrap_or_default()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refusal.fmt(f)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

impl std::error::Error for Problem {}

/// A request that was refused whole. Boxed where it is returned: it is the rare and the larger case.
#[derive(Debug)]
pub struct Refused<'a, T> {
    /// The answer, and by its code the counter.
    pub problem: Problem,
    /// The known tenant whom the request names: set the body aside for it *before* the answer goes out (an edge:
    /// in an envelope to the server). None: only count. What this hop's region may not keep has none.
    pub quarantine: Option<T>,
    /// What to set aside: the body as it came, but for IP addresses, which are cut.
    pub body: Cow<'a, [u8]>,
    /// How many events it holds by its own word; 1 if it does not say, or says none.
    pub count: u16,
    /// What the hop noted on the request; `refused` is the problem's code.
    pub annotation: Annotation<'a>,
}

impl<'a, T> Refused<'a, T> {
    /// A refusal as a whole. Bodies that were not read to their end, cannot be read at all, or may come again
    /// later, are never set aside.
    pub(crate) fn new(
        problem: impl Into<Problem>,
        quarantine: Option<T>,
        body: impl Into<Cow<'a, [u8]>>,
        count: u16,
        annotation: Annotation<'a>,
    ) -> Box<Self> {
        let problem = problem.into();
        let unread = matches!(
            problem.refusal,
            Refusal::BodyTooLarge
                | Refusal::MediaType
                | Refusal::ContentEncoding
                | Refusal::RateLimited
                | Refusal::Internal
        );
        let annotation = Annotation { refused: problem.code(), ..annotation };
        Box::new(Self { quarantine: quarantine.filter(|_| !unread), problem, body: body.into(), count, annotation })
    }
}
