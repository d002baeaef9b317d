//! Batches of CloudEvents 1.0 by HTTP, signed.
//!
//! | answer | what becomes of the batch |
//! |---|---|
//! | 2xx | delivered |
//! | 408, 425, 429, 5xx, none | again later, when `Retry-After` says if it does |
//! | 3xx, 401, 403, 404, 405, 407, 410, 421, 426 | again later: it is the address or the key that is wrong, and no event |
//! | 413 | again in halves; an event that is too large by itself is a dead letter |
//! | other 4xx | again in halves, until it is one event that is refused: that is a dead letter |

mod client;
mod sign;

use std::{ops::Range, path::Path, time::Duration};

use bytes::Bytes;
use firsthop_core::TenantId;
use http::{HeaderMap, Request, header};
use http_body_util::Full;
use tokio::sync::watch;
use zeroize::Zeroizing;

use self::{
    client::{Answer, Client},
    sign::{Signer, content_digest},
};
use super::{
    Delivery, Failure, Next, Sink,
    batch::{Batch, Limits},
    deliver_in_parts,
    row::{Buffers, Row, write_text},
    spec::HttpSpec,
    tls,
};
use crate::clock;

const MEDIA_TYPE: &str = "application/cloudevents-batch+json";
/// The longest that `Retry-After` is believed.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// A receiver of batches.
struct Http {
    client: Client,
    /// The address as it is signed and sent.
    target: String,
    path: String,
    authority: String,
    source: String,
    signer: Option<Signer>,
    authorization: Option<Zeroizing<String>>,
    limits: Limits,
    most_bytes: usize,
    buffers: Buffers,
    events: Events,
}

/// Events as JSON, one after the other.
#[derive(Debug, Default)]
struct Events {
    text: Vec<u8>,
    ends: Vec<usize>,
}

pub(super) fn open(
    spec: &HttpSpec,
    tenant: TenantId,
    folder: &Path,
    stop: watch::Receiver<bool>,
) -> Result<Box<dyn Sink>, Failure> {
    let uri = spec.target()?;
    let secure = uri.scheme_str() == Some("https");
    let tls =
        secure.then(|| tls::connector(spec.ca_file.as_deref().map(|file| folder.join(file)).as_deref())).transpose()?;
    let signer = match spec.signing_key(folder)? {
        Some(secret) => Some(Signer::new(spec.algorithm, &secret, spec.signing_key_id.as_deref().unwrap_or_default())?),
        None => None,
    };
    Ok(Box::new(Http {
        client: Client::new(&uri, tls, spec.timeout.0, stop)?,
        target: uri.to_string(),
        path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        authority: uri.authority().map(ToString::to_string).unwrap_or_default(),
        source: spec.source.clone().unwrap_or_else(|| format!("urn:firsthop:{tenant}")),
        signer,
        authorization: spec.authorization(folder)?,
        limits: Limits { events: spec.batch_events, bytes: usize::try_from(spec.batch_bytes.0).unwrap_or(usize::MAX) },
        most_bytes: usize::try_from(spec.batch_bytes.0).unwrap_or(usize::MAX),
        buffers: Buffers::default(),
        events: Events::default(),
    }))
}

impl Sink for Http {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn deliver(&mut self, batch: &Batch) -> Delivery {
        self.encode(batch);
        deliver_in_parts(self.events.ends.len(), |part| self.post(part))
    }
}

impl Http {
    /// As many events as one request takes; one at least.
    fn encode(&mut self, batch: &Batch) {
        let Self { events, buffers, source, limits, most_bytes, .. } = self;
        events.text.clear();
        events.ends.clear();
        // An error is only the end of it.
        let _ = batch.each(buffers, |index, row| {
            if index >= limits.events {
                return Err(());
            }
            let before = events.text.len();
            write_event(&mut events.text, source, row);
            if index > 0 && events.text.len() > *most_bytes {
                events.text.truncate(before);
                return Err(());
            }
            events.ends.push(events.text.len());
            Ok(())
        });
    }

    fn post(&mut self, part: Range<usize>) -> Next {
        let request = match self.request(&part) {
            Ok(request) => request,
            Err(error) => return Next::Later(Failure::new(error)),
        };
        match self.client.send(request) {
            Ok(answer) => next(&answer),
            Err(failure) => Next::Later(failure),
        }
    }

    fn request(&self, part: &Range<usize>) -> Result<Request<Full<Bytes>>, http::Error> {
        let start = |index: usize| if index == 0 { 0 } else { self.events.ends[index - 1] };
        let mut body = Vec::with_capacity(start(part.end) - start(part.start) + part.len() + 1);
        for index in part.clone() {
            body.push(if index == part.start { b'[' } else { b',' });
            body.extend_from_slice(&self.events.text[start(index)..self.events.ends[index]]);
        }
        body.push(b']');
        let digest = content_digest(&body);
        let mut request = Request::post(&self.path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, MEDIA_TYPE)
            .header(header::USER_AGENT, concat!("firsthop/", env!("CARGO_PKG_VERSION")))
            .header("content-digest", &digest);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization.as_str());
        }
        if let Some(signer) = &self.signer {
            let components = [
                ("@method", "POST"),
                ("@target-uri", self.target.as_str()),
                ("content-digest", &digest),
                ("content-type", MEDIA_TYPE),
            ];
            let signature = signer.sign(&components, clock::now().as_millis() / 1000);
            request = request.header("signature-input", signature.input).header("signature", signature.signature);
        }
        request.body(Full::new(body.into()))
    }
}

/// CloudEvents 1.0, JSON format: `data` is the event in the shape that all sinks share.
fn write_event(out: &mut Vec<u8>, source: &str, row: &Row<'_>) {
    out.extend_from_slice(b"{\"specversion\":\"1.0\"");
    let mut attribute = |name: &str, value: &str| {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        write_text(out, value);
    };
    attribute("id", row.event_id);
    attribute("source", source);
    attribute("type", &format!("dev.firsthop.{}", row.kind));
    // An attribute is not empty and has no control characters.
    if !row.name.is_empty() && !row.name.chars().any(char::is_control) {
        attribute("subject", row.name);
    }
    attribute("time", row.time);
    attribute("datacontenttype", "application/json");
    if let Some(traceparent) = row.traceparent {
        attribute("traceparent", traceparent);
    }
    out.extend_from_slice(b",\"data\":");
    row.write_json(out);
    out.push(b'}');
}

fn next(answer: &Answer) -> Next {
    let status = answer.status;
    let later = |what: &str| {
        // Without what the receiver said: this goes to the log, and who knows whom that names.
        Next::Later(Failure { after: retry_after(&answer.headers), ..Failure::new(format!("{status}{what}")) })
    };
    match status.as_u16() {
        200..=299 => Next::Delivered,
        408 | 425 | 429 | 500.. | ..=199 => later(""),
        300..=399 => later(": redirects are not followed; put the address that is meant into url"),
        401 | 403 | 404 | 405 | 407 | 410 | 421 | 426 => later(": is it the right url and authorization?"),
        _ => Next::Refused(format!("{status}: {}", answer.text.trim())),
    }
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = http_date(text)?;
            Duration::from_millis(until.as_millis().saturating_sub(clock::now().as_millis()))
        }
    };
    Some(wait.min(LONGEST_WAIT))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7).
fn http_date(text: &str) -> Option<firsthop_core::Timestamp> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = text.strip_suffix(" GMT")?.split(' ').skip(1);
    let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    clock::parse(&format!("{year}-{month:02}-{day}T{time}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_come_back() {
        let after = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().expect("a value"));
            retry_after(&headers)
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("99999999"), Some(LONGEST_WAIT));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(after("Fri, 31 Dec 9999 23:59:59 GMT"), Some(LONGEST_WAIT));
        assert_eq!(after("soon"), None);
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT").map(|time| time.as_millis()), Some(784_111_777_000));
    }
}
