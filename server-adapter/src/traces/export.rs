//! Spans → a collector, as OTLP over HTTP with JSON. A thread of its own, a bounded queue: tracing holds up nothing, and what finds no
//! room is counted and gone.

use std::{
    fmt,
    io::{BufRead, BufReader, Error, ErrorKind, Write},
    net::{TcpStream, ToSocketAddrs},
    str::FromStr,
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::json;

use super::Span;
use crate::metrics::Counter;

/// Where a collector listens, or nowhere: `http://host:port`, and a path if it is not `/v1/traces`. It stands beside the server, so
/// there is no TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collector {
    host: String,
    path: String,
}

impl Collector {
    pub(crate) fn is_none(&self) -> bool {
        self.host.is_empty()
    }
}

impl FromStr for Collector {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a collector is http://host:port, such as http://127.0.0.1:4318, or nothing";
        if text.is_empty() {
            return Ok(Self::default());
        }
        let rest = text.strip_prefix("http://").ok_or(WRONG)?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && !b"@?#\"<>\\".contains(&b));
        if !host.contains(':') || host.starts_with(':') || !is_plain(rest) {
            return Err(WRONG);
        }
        let path = if path.is_empty() { "/v1/traces".into() } else { format!("/{path}") };
        Ok(Self { host: host.into(), path })
    }
}

impl<'de> Deserialize<'de> for Collector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() { Ok(()) } else { write!(f, "http://{}{}", self.host, self.path) }
    }
}

/// What became of spans, since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    /// The queue was full.
    pub(crate) dropped: u64,
    /// The collector did not take them.
    pub(crate) failed: u64,
}

#[derive(Debug)]
pub(super) struct Exporter {
    queue: SyncSender<Message>,
    stats: Arc<Stats>,
}

#[derive(Debug, Default)]
struct Stats {
    sent: Counter,
    dropped: Counter,
    failed: Counter,
}

#[derive(Debug)]
enum Message {
    Span(Span),
    Flush(mpsc::Sender<()>),
}

/// Spans that wait, at most: about a megabyte.
const QUEUE: usize = 4096;
/// Spans of one request to the collector, at most.
const BATCH: usize = 512;
/// How long the first of them waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// How long a collector may take.
const PATIENCE: Duration = Duration::from_secs(5);

impl Exporter {
    pub(super) fn start(collector: Collector) -> std::io::Result<Self> {
        let (queue, messages) = mpsc::sync_channel(QUEUE);
        let stats = Arc::new(Stats::default());
        std::thread::Builder::new().name("traces".into()).stack_size(512 << 10).spawn({
            let stats = Arc::clone(&stats);
            move || run(&collector, &messages, &stats)
        })?;
        Ok(Self { queue, stats })
    }

    pub(super) fn send(&self, span: Span) {
        if self.queue.try_send(Message::Span(span)).is_err() {
            self.stats.dropped.add(1);
        }
    }

    pub(super) fn flush(&self, time: Duration) {
        let (done, is_done) = mpsc::channel();
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            // Late or not, the end goes on.
            let _ = is_done.recv_timeout(time);
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let Stats { sent, dropped, failed } = &*self.stats;
        Counts { sent: sent.get(), dropped: dropped.get(), failed: failed.get() }
    }
}

fn run(collector: &Collector, messages: &Receiver<Message>, stats: &Stats) {
    let mut well = true;
    while let Ok(first) = messages.recv() {
        let due = Instant::now() + GATHER;
        let (mut spans, mut flushed) = (Vec::new(), None);
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Span(span) => spans.push(span),
                Message::Flush(done) => {
                    flushed = Some(done);
                    break;
                }
            }
            if spans.len() == BATCH {
                break;
            }
            next = messages.recv_timeout(due.saturating_duration_since(Instant::now())).ok();
        }
        if !spans.is_empty() {
            let count = spans.len() as u64;
            match post(collector, &document(&spans)) {
                Ok(()) => {
                    stats.sent.add(count);
                    well = true;
                }
                Err(error) => {
                    stats.failed.add(count);
                    // Once, and not for every batch of an hour.
                    if std::mem::replace(&mut well, false) {
                        tracing::warn!(%collector, %error, "the collector takes no traces");
                    }
                }
            }
        }
        if let Some(done) = flushed {
            let _ = done.send(());
        }
    }
}

/// OTLP's `ExportTraceServiceRequest`, in JSON.
fn document(spans: &[Span]) -> String {
    let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let version = env!("CARGO_PKG_VERSION");
    let spans: Vec<_> = spans.iter().map(Span::to_json).collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": [text("service.name", "firsthop"), text("service.version", version)] },
        "scopeSpans": [{ "scope": { "name": "firsthop", "version": version }, "spans": spans }],
    }] })
    .to_string()
}

/// One request on one connection: a batch a second is not worth keeping one.
fn post(collector: &Collector, body: &str) -> std::io::Result<()> {
    let address = collector.host.to_socket_addrs()?.next().ok_or(ErrorKind::AddrNotAvailable)?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let Collector { host, path } = collector;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    match line.split(' ').nth(1) {
        Some(status) if status.starts_with('2') => Ok(()),
        _ => Err(Error::other(format!("it answered {:?}", line.trim_end()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_are_addresses() {
        let read = |text: &str| text.parse::<Collector>().map(|collector| collector.to_string());
        assert_eq!(read("http://127.0.0.1:4318").as_deref(), Ok("http://127.0.0.1:4318/v1/traces"));
        assert_eq!(read("http://otel:4318/").as_deref(), Ok("http://otel:4318/v1/traces"));
        assert_eq!(read("http://[::1]:4318/otlp/v1/traces").as_deref(), Ok("http://[::1]:4318/otlp/v1/traces"));
        assert_eq!(read("").as_deref(), Ok(""));
        for bad in [
            "https://otel:4318",
            "otel:4318",
            "http://otel",
            "http://:1",
            "http://a:1/ b",
            "http://u@a:1",
            "http://a:1/\r\nX: y",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
