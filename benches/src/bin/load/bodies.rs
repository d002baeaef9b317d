//! Requests made before the clock runs, so that none of the time is spent on making them.

use std::{
    error::Error,
    ops::Range,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use firsthop_benches::{Body, FrameKit, Random, Visit, bodies};
use firsthop_core::{Alg, Epoch, ExtensionKind, Flags, Header, KeyId, MacKey, SourceId, Timestamp, Unsigned, WriteKey};
use serde::Deserialize;

use crate::{Options, http::Connection};

/// Whole requests, one after the other in one block of memory.
pub(crate) struct Requests {
    bytes: Vec<u8>,
    ranges: Vec<Range<usize>>,
    first_body: Range<usize>,
    /// Whether the last request is followed by the first.
    repeat: bool,
    /// Events in each.
    pub(crate) events: usize,
    /// Events that were sent to get sessions.
    pub(crate) events_before: usize,
}

/// A session as the receipt brings it.
#[derive(Deserialize)]
struct Receipt {
    session: Option<Session>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Session {
    key_id: u32,
    epoch: u32,
    region: String,
    grant: String,
    secret: String,
}

/// Where sources go on that the server knows: beyond everything that it has of them.
const FAR: u64 = 1_000_000;

impl Requests {
    /// Native frames. Every source gets its session as a page does: by an unsigned frame of one event with the write key.
    pub(crate) fn frames(options: &Options) -> Result<Self, Box<dyn Error>> {
        let head = |len| head(options, "/v1/f", "text/plain", "", len);
        let tenant = WriteKey::parse(&options.write_key).map_err(|_| "--write-key fh_… is needed")?.tenant();
        let (visit, sample) = (Visit::new(0), bodies(4096.max(options.events), 1));
        let now = now()?;
        let mut random = Random::new(now.as_millis() ^ u64::from(std::process::id()) << 48);
        let mut connection = Connection::open(options.sessions.as_ref().unwrap_or(&options.address))?;

        let known = options.source_ids.as_ref().map(std::fs::read).transpose()?.unwrap_or_default();
        let mut known = known.chunks_exact(16);
        let mut producers = Vec::new();
        for _ in 0..options.sources {
            let mut ten = [0; 10];
            ten.iter_mut().for_each(|byte| *byte = random.next() as u8);
            let mut header = Header::new(tenant, SourceId::v7(now, ten), now);
            if let Some(id) = known.next() {
                header.source = SourceId::new(id.try_into()?);
                header.first_seq = FAR;
                header.batch_seq = FAR;
            }
            let extension = Some((ExtensionKind::WriteKey, options.write_key.clone().into_bytes()));
            let mut kit = FrameKit::with(header, extension);
            let frame = kit.page(&visit, &sample[..1], &Unsigned)?;
            let mut request = head(frame.len());
            request.extend_from_slice(frame);
            let answer = connection.ask(&request)?;
            let refused = || format!("no session: {} {}", answer.status, String::from_utf8_lossy(answer.body));
            let receipt: Receipt = serde_json::from_slice(answer.body).map_err(|_| refused())?;
            let session = receipt.session.ok_or_else(refused)?;

            header.alg = Alg::HmacSha256Trunc128;
            header.flags = Flags::TRUST;
            header.key_id = KeyId::new(session.key_id);
            header.epoch = Epoch::new(session.epoch);
            header.region = session.region.parse()?;
            let secret = BASE64_STANDARD.decode(session.secret)?;
            let key = MacKey::new(header.alg, secret.as_slice().try_into()?)?;
            let grant = (ExtensionKind::Session, BASE64_STANDARD.decode(session.grant)?);
            let mut kit = FrameKit::with(header, Some(grant));
            kit.advance(1);
            producers.push((kit, key));
        }

        let mut requests = Self { repeat: options.again.is_some(), ..Self::empty(options.events) };
        requests.events_before = options.sources;
        while requests.room(options) {
            for (kit, key) in &mut producers {
                let bodies = some(&sample, options.events, &mut random);
                let frame = match &options.seal {
                    Some(region) => kit.sealed(&visit, bodies, key, region)?,
                    None => kit.page(&visit, bodies, key)?,
                };
                requests.add(&head(frame.len()), frame);
                kit.advance(options.events);
            }
        }
        Ok(requests)
    }

    /// Segment's `POST /v1/track`, one event each, with an id that was never used before.
    pub(crate) fn track(options: &Options) -> Result<Self, Box<dyn Error>> {
        WriteKey::parse(&options.write_key).map_err(|_| "--write-key fh_… is needed")?;
        let key = BASE64_STANDARD.encode(format!("{}:", options.write_key));
        let authorization = format!("Authorization: Basic {key}\r\n");
        let (visit, sample) = (Visit::new(0), bodies(4096, 1));
        let now = now()?.as_millis();
        let mut random = Random::new(now ^ u64::from(std::process::id()) << 48);
        let mut requests = Self::empty(1);
        while requests.room(options) {
            let (a, b) = (random.next(), random.next());
            let id = format!("ajs-next-{now}-{:08x}-{:04x}-{:04x}-{:016x}", a >> 32, a >> 16 & 0xffff, a & 0xffff, b);
            let body = &some(&sample, 1, &mut random)[0];
            let json = serde_json::to_vec(&visit.track(body, &id, "2026-03-02T10:15:31.456Z"))?;
            requests.add(&head(options, "/v1/track", "application/json", &authorization, json.len()), &json);
        }
        Ok(requests)
    }

    /// Batches of JSON for the plain JavaScript Worker: the same events as in the frames, each with an id that was never used before.
    pub(crate) fn batch(options: &Options) -> Result<Self, Box<dyn Error>> {
        WriteKey::parse(&options.write_key).map_err(|_| "--write-key fh_… is needed")?;
        let (visit, sample) = (Visit::new(0), bodies(4096.max(options.events), 1));
        let mut random = Random::new(now()?.as_millis() ^ u64::from(std::process::id()) << 48);
        let mut requests = Self::empty(options.events);
        while requests.room(options) {
            let ids: Vec<_> = (0..options.events).map(|_| uuid(&mut random)).collect();
            let batch = visit.lean(some(&sample, options.events, &mut random), &ids, &options.write_key);
            let json = serde_json::to_vec(&batch)?;
            requests.add(&head(options, "/v1/batch", "application/json", "", json.len()), &json);
        }
        Ok(requests)
    }

    /// One body from a file, again and again.
    pub(crate) fn plain(options: &Options) -> Result<Self, Box<dyn Error>> {
        let body = std::fs::read(options.body.as_ref().ok_or("--body FILE is needed")?)?;
        let mut requests = Self { repeat: true, ..Self::empty(0) };
        requests.add(&head(options, "/", "text/plain", "", body.len()), &body);
        Ok(requests)
    }

    fn empty(events: usize) -> Self {
        Self { bytes: Vec::new(), ranges: Vec::new(), first_body: 0..0, repeat: false, events, events_before: 0 }
    }

    fn room(&self, options: &Options) -> bool {
        // Nothing on two cores answers more requests in a second.
        let rate = if options.rate > 0.0 { options.rate + 1.0 } else { 200_000.0 };
        self.bytes.len() < options.memory
            && (self.ranges.len() as f64) < options.seconds * rate
            && options.again.is_none_or(|most| self.ranges.len() < most)
    }

    fn add(&mut self, head: &[u8], body: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(head);
        if self.ranges.is_empty() {
            self.first_body = head.len()..head.len() + body.len();
        }
        self.bytes.extend_from_slice(body);
        self.ranges.push(start..self.bytes.len());
    }

    /// The request with this number, if there are so many.
    pub(crate) fn get(&self, number: usize) -> Option<&[u8]> {
        let number = if self.repeat { number % self.ranges.len() } else { number };
        self.ranges.get(number).map(|range| &self.bytes[range.clone()])
    }

    pub(crate) fn first_body(&self) -> &[u8] {
        &self.bytes[self.first_body.clone()]
    }
}

/// So many events in a row, from anywhere.
fn some<'a>(sample: &'a [Body<'a>], count: usize, random: &mut Random) -> &'a [Body<'a>] {
    let start = random.below((sample.len() - count + 1) as u64) as usize;
    &sample[start..start + count]
}

/// A request up to its body, with the fields that this kind needs and those of the command line.
fn head(options: &Options, path: &str, content_type: &str, own: &str, len: usize) -> Vec<u8> {
    let Options { address, headers, .. } = options;
    format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {content_type}\r\n{own}{headers}Content-Length: {len}\r\n\r\n"
    )
    .into_bytes()
}

/// A random UUID, as `crypto.randomUUID()` makes them.
fn uuid(random: &mut Random) -> String {
    let (a, b) = (random.next(), random.next());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        a >> 32,
        a >> 16 & 0xffff,
        a & 0xfff,
        0x8000 | b >> 48 & 0x3fff,
        b & 0xffff_ffff_ffff
    )
}

fn now() -> Result<Timestamp, Box<dyn Error>> {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    Ok(Timestamp::from_millis(u64::try_from(millis)?))
}
