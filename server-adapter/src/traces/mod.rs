//! Traces: one event, followed from the page that sent it to every sink, by the `traceparent` that the page or its backend gave it.
//!
//! ```text
//! page's span ─┬─ receive ─┬─ verify      from the body's last byte to knowing who answers for it and what is in it
//!              │           └─ commit      the queue, and the commit that it shared
//!              └─ deliver                 for each sink, whenever that is: the frame in the journal remembers its trace
//! ```
//!
//! Only what its sender says is sampled is traced, and only if a collector is set. Spans tell what became of a request and how long it
//! took; nothing of who sent it or what it says.

mod export;

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use firsthop_core::{TenantId, is_traceparent};
use serde_json::{Value, json};

pub use self::export::Collector;
pub(crate) use self::export::Counts;
use self::export::Exporter;
use crate::tenants::random_bytes;

/// Where spans go. One for the process, as is what they are about: whoever has several servers in it has one collector.
static EXPORTER: OnceLock<Exporter> = OnceLock::new();

/// Sends spans to a collector from here on. Without, nothing below does anything.
pub(crate) fn start(collector: Collector) -> std::io::Result<()> {
    let exporter = Exporter::start(collector)?;
    // A second server in one process uses what the first one has set.
    let _ = EXPORTER.set(exporter);
    Ok(())
}

/// Waits until what was traced so far is sent, for so long at most.
pub(crate) fn flush(time: Duration) {
    if let Some(exporter) = EXPORTER.get() {
        exporter.flush(time);
    }
}

/// What became of spans.
pub(crate) fn counts() -> Counts {
    EXPORTER.get().map(Exporter::counts).unwrap_or_default()
}

/// Whose trace a request is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parent {
    trace: u128,
    span: u64,
}

impl Parent {
    /// Of a `traceparent` that says it is sampled.
    fn sampled(text: &str) -> Option<Self> {
        if !is_traceparent(text) {
            return None;
        }
        let mut parts = text.split('-').skip(1);
        let trace = u128::from_str_radix(parts.next()?, 16).ok()?;
        let span = u64::from_str_radix(parts.next()?, 16).ok()?;
        let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
        (flags & 1 == 1).then_some(Self { trace, span })
    }
}

/// A span that is over.
#[derive(Debug)]
struct Span {
    parent: Parent,
    id: u64,
    name: &'static str,
    kind: Kind,
    began: u64,
    ended: u64,
    failed: bool,
    about: Vec<(&'static str, Value)>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Internal = 1,
    Server = 2,
    Producer = 4,
}

impl Span {
    /// As OTLP's JSON has it.
    fn to_json(&self) -> Value {
        let value = |value: &Value| match value {
            Value::Number(number) => json!({ "intValue": number.to_string() }),
            other => json!({ "stringValue": other }),
        };
        let attributes: Vec<_> =
            self.about.iter().map(|(key, about)| json!({ "key": key, "value": value(about) })).collect();
        json!({
            "traceId": format!("{:032x}", self.parent.trace),
            "spanId": format!("{:016x}", self.id),
            "parentSpanId": format!("{:016x}", self.parent.span),
            "name": self.name,
            "kind": self.kind as u8,
            "startTimeUnixNano": self.began.to_string(),
            "endTimeUnixNano": self.ended.to_string(),
            "attributes": attributes,
            "status": if self.failed { json!({ "code": 2 }) } else { json!({}) },
        })
    }
}

/// A request on its way. Nothing, if nobody collects.
#[derive(Debug)]
pub(crate) struct Trace(Option<Box<Open>>);

#[derive(Debug)]
struct Open {
    parent: Option<Parent>,
    wall: SystemTime,
    began: Instant,
    read: Option<Instant>,
    verified: Option<Instant>,
    committed: Option<Instant>,
    tenant: Option<TenantId>,
    events: u64,
}

impl Trace {
    /// A request's head is here; its `traceparent`, if it has one.
    pub(crate) fn begin(traceparent: Option<&str>) -> Self {
        Self(EXPORTER.get().map(|_| {
            Box::new(Open {
                parent: traceparent.and_then(Parent::sampled),
                wall: SystemTime::now(),
                began: Instant::now(),
                read: None,
                verified: None,
                committed: None,
                tenant: None,
                events: 0,
            })
        }))
    }

    /// Its body is here.
    pub(crate) fn read(&mut self) {
        self.at(|open| open.read = Some(Instant::now()));
    }

    /// It is known whose it is and what is in it. A frame's own `traceparent` is nearer to the event than the request's.
    pub(crate) fn verified(&mut self, tenant: TenantId, events: u64, traceparent: Option<&str>) {
        self.at(|open| {
            open.verified = Some(Instant::now());
            (open.tenant, open.events) = (Some(tenant), events);
            if let Some(traceparent) = traceparent {
                open.parent = Parent::sampled(traceparent);
            }
        });
    }

    /// More events are found in it.
    pub(crate) fn holds(&mut self, events: u64) {
        self.at(|open| open.events += events);
    }

    /// The journal has answered.
    pub(crate) fn committed(&mut self) {
        self.at(|open| open.committed = Some(Instant::now()));
    }

    /// It is answered.
    pub(crate) fn end(self, route: &'static str, status: u16) {
        let (Some(open), Some(exporter)) = (self.0, EXPORTER.get()) else { return };
        let Some(parent) = open.parent else { return };
        let now = Instant::now();
        let wall = nanos(open.wall);
        let at = |instant: Instant| wall + (instant - open.began).as_nanos() as u64;
        let receive = Parent { span: fresh(), ..parent };
        let step = |name, from: Option<Instant>, to: Option<Instant>| {
            // What did not end, ended with the request.
            let (from, ended) = (from?, to.unwrap_or(now));
            let (kind, failed) = (Kind::Internal, to.is_none());
            Some(Span {
                parent: receive,
                id: fresh(),
                name,
                kind,
                began: at(from),
                ended: at(ended),
                failed,
                about: Vec::new(),
            })
        };
        let mut about = vec![("http.route", json!(route)), ("http.response.status_code", json!(status))];
        if let Some(tenant) = open.tenant {
            about.extend([("firsthop.tenant", json!(tenant.to_string())), ("firsthop.events", json!(open.events))]);
        }
        let (kind, failed) = (Kind::Server, status >= 500);
        let span = Span { parent, id: receive.span, name: "receive", kind, began: wall, ended: at(now), failed, about };
        exporter.send(span);
        [step("verify", open.read, open.verified), step("commit", open.verified, open.committed)]
            .into_iter()
            .flatten()
            .for_each(|span| exporter.send(span));
    }

    fn at(&mut self, mark: impl FnOnce(&mut Open)) {
        if let Some(open) = &mut self.0 {
            mark(open);
        }
    }
}

/// What a sink delivers, for the frames among it that are traced.
#[derive(Debug)]
pub(crate) struct Delivering(Option<(SystemTime, Vec<(Parent, u64)>)>);

impl Delivering {
    /// Frames with their events, as they are delivered: the `traceparent` of each, if it has one.
    pub(crate) fn begin<'a>(frames: impl Iterator<Item = (Option<&'a str>, u64)>) -> Self {
        Self(EXPORTER.get().map(|_| {
            let traced = frames.filter_map(|(traceparent, events)| Some((Parent::sampled(traceparent?)?, events)));
            (SystemTime::now(), traced.collect())
        }))
    }

    /// They are where they should be.
    pub(crate) fn end(self, tenant: TenantId, sink: &str) {
        let (Some((began, frames)), Some(exporter)) = (self.0, EXPORTER.get()) else { return };
        let (began, ended) = (nanos(began), nanos(SystemTime::now()));
        for (parent, events) in frames {
            let about = vec![
                ("firsthop.tenant", json!(tenant.to_string())),
                ("firsthop.sink", json!(sink)),
                ("firsthop.events", json!(events)),
            ];
            let (kind, failed) = (Kind::Producer, false);
            exporter.send(Span { parent, id: fresh(), name: "deliver", kind, began, ended, failed, about });
        }
    }
}

fn nanos(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// A span's id: any number but 0.
fn fresh() -> u64 {
    let mut bytes = [0; 8];
    random_bytes(&mut bytes);
    u64::from_le_bytes(bytes).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_sampled_is_traced() {
        let text = |flags: &str| format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
        let parent = Parent::sampled(&text("01")).expect("sampled");
        assert_eq!((parent.trace, parent.span), (0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xb7ad_6b71_6920_3331));
        assert_eq!(Parent::sampled(&text("03")), Some(parent));
        for other in [text("00"), text("02"), text("0x"), text("01-x"), String::new(), text("01").to_uppercase()] {
            assert_eq!(Parent::sampled(&other), None, "{other}");
        }
    }
}
