//! Load for one server on loopback: keep-alive connections, bodies made beforehand, every one of them fresh.
//!
//! ```text
//! firsthop-load frames --address 127.0.0.1:8080 --write-key fh_… --events 300   native frames, signed in sessions
//! firsthop-load track  --address 127.0.0.1:8080 --write-key fh_…                Segment's POST /v1/track
//! firsthop-load batch  --address 127.0.0.1:8787 --write-key fh_… --events 50    JSON for the plain JavaScript Worker of `make bench-edge`
//! firsthop-load plain  --address 127.0.0.1:8081 --body FILE                     the same bytes again and again (nginx)
//! ```
//!
//! `--seal` seals the frames to a region's key; `--sessions` names another address that grants the sessions; `--again` sends so many requests again and again. It stops after `--seconds`, or when its bodies are used up, and prints one line of JSON. One thread: on two cores the rest is the
//! server's.

mod bodies;
mod drive;
mod http;

use std::{error::Error, process::ExitCode, time::Duration};

use firsthop_core::{RegionKeyId, RegionPublicKey};
use serde_json::json;

use crate::{
    bodies::Requests,
    drive::{Load, Tally},
};

/// What the command line says.
#[derive(Debug)]
struct Options {
    mode: String,
    address: String,
    write_key: String,
    connections: usize,
    events: usize,
    sources: usize,
    /// A file with the ids of sources that the server knows, 16 bytes each: those come back, instead of new ones.
    source_ids: Option<String>,
    seconds: f64,
    /// Requests per second; 0: as many as are answered.
    rate: f64,
    /// Bound on the bodies made beforehand, in bytes.
    memory: usize,
    /// So many requests are made, and sent again and again: for a receiver that does not look at them.
    again: Option<usize>,
    body: Option<String>,
    save_body: Option<String>,
    /// A region's key to seal frames to, as `number:hex`.
    seal: Option<RegionPublicKey>,
    /// Who grants the sessions; the same address as for the rest, unless it is said.
    sessions: Option<String>,
    /// Header fields that every request has besides those it needs, each with its line end: what a browser would send.
    headers: String,
}

impl Options {
    fn parse() -> Result<Self, Box<dyn Error>> {
        let mut args = std::env::args().skip(1);
        let mut options = Self {
            mode: args.next().ok_or("which mode? frames, track, batch or plain")?,
            address: "127.0.0.1:8080".into(),
            write_key: String::new(),
            connections: 64,
            events: 300,
            sources: 256,
            source_ids: None,
            seconds: 10.0,
            rate: 0.0,
            memory: 2_000_000_000,
            again: None,
            body: None,
            save_body: None,
            seal: None,
            sessions: None,
            headers: String::new(),
        };
        while let Some(name) = args.next() {
            let value = args.next().ok_or_else(|| format!("{name} wants a value"))?;
            match name.as_str() {
                "--address" => options.address = value,
                "--write-key" => options.write_key = value,
                "--connections" => options.connections = value.parse()?,
                "--events" => options.events = value.parse()?,
                "--sources" => options.sources = value.parse()?,
                "--source-ids" => options.source_ids = Some(value),
                "--seconds" => options.seconds = value.parse()?,
                "--rate" => options.rate = value.parse()?,
                "--memory-mb" => options.memory = value.parse::<usize>()? * 1_000_000,
                "--again" => options.again = Some(value.parse()?),
                "--body" => options.body = Some(value),
                "--header" => options.headers.extend([value.as_str(), "\r\n"]),
                "--seal" => options.seal = Some(region_key(&value).ok_or("--seal wants number:hex")?),
                "--sessions" => options.sessions = Some(value),
                "--save-body" => options.save_body = Some(value),
                _ => return Err(format!("unknown option {name}").into()),
            }
        }
        if options.connections == 0 || options.events == 0 || options.sources == 0 || options.again == Some(0) {
            return Err("connections, events, sources and what is sent again are at least 1".into());
        }
        Ok(options)
    }
}

fn region_key(text: &str) -> Option<RegionPublicKey> {
    let (id, hex) = text.split_once(':')?;
    let mut key = [0; 32];
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    RegionPublicKey::new(RegionKeyId::new(id.parse().ok()?), key).ok()
}

fn main() -> ExitCode {
    match Options::parse().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("firsthop-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let requests = match options.mode.as_str() {
        "frames" => Requests::frames(options)?,
        "track" => Requests::track(options)?,
        "batch" => Requests::batch(options)?,
        "plain" => Requests::plain(options)?,
        mode => return Err(format!("unknown mode {mode}: frames, track, batch or plain").into()),
    };
    if let Some(path) = &options.save_body {
        std::fs::write(path, requests.first_body())?;
    }
    let load = Load::new(options, &requests)?;
    let (tally, next, elapsed) = load.drive()?;
    report(options, &requests, tally, next, elapsed);
    Ok(())
}
fn report(options: &Options, requests: &Requests, mut tally: Tally, next: usize, elapsed: Duration) {
    tally.latencies.sort_unstable();
    let acknowledged = tally.latencies.len();
    let quantile = |q: f64| {
        let at = ((acknowledged as f64 * q) as usize).min(acknowledged.saturating_sub(1));
        f64::from(tally.latencies.get(at).copied().unwrap_or(0)) / 1000.0
    };
    let events = acknowledged * requests.events;
    let seconds = elapsed.as_secs_f64();
    println!(
        "{}",
        json!({
            "mode": options.mode,
            "connections": options.connections,
            "eventsPerRequest": requests.events,
            "bytesPerRequest": requests.first_body().len(),
            "seconds": seconds,
            "usedUp": requests.get(next).is_none(),
            "requests": next,
            "acknowledged": acknowledged,
            "acknowledgedEvents": events,
            "stored": tally.stored,
            "duplicate": tally.duplicate,
            "broken": tally.broken,
            "statuses": tally.statuses,
            "requestsPerSecond": acknowledged as f64 / seconds,
            "eventsPerSecond": events as f64 / seconds,
            "p50Ms": quantile(0.5),
            "p99Ms": quantile(0.99),
            "maxMs": quantile(1.0),
            // What was sent before the clock ran: one event for each session.
            "eventsBefore": requests.events_before,
        })
    );
}
