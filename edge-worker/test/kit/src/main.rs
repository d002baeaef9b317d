//! What the edge's tests cannot say in JavaScript, because only the core knows it: frames, leases, envelopes.
//!
//! One JSON request on standard input, one JSON answer on standard output:
//!
//! | `do` | takes | gives |
//! |---|---|---|
//! | `leases` | `root`, `tenant`, `region`, `worker`, `epochs` | a key for each epoch |
//! | `session` | `root`, `tenant`, `region`, `worker`, `epoch`, `source`, `origin`, `writeKey`, `expires` | a session |
//! | `frame` | a header's fields, `writeKey` or `session`, `context`, `events`; `sealTo` with `id`, `public` and 32 `random` bytes, if it is to be sealed | the frame |
//! | `read` | `frame` | its header, context and events |
//! | `open` | `envelope`, `root` | its header, worker, annotation, notes and the frame inside, if its signature holds |
//!
//! Bytes are base64, as in the protocol's JSON.

// The edge itself is built for wasm alone. What of it needs no platform has its tests here.
#[cfg(test)]
#[path = "../../../src/tasks.rs"]
mod tasks;

use std::{error::Error, io::Read as _};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use firsthop_core::{
    Alg, Consent, Context, Effects, Envelope, Epoch, Event, ExtensionKind, Flags, Frame, FrameSigner, FrameWriter,
    Header, Holder, KeyId, LeaseKey, LeaseScope, MacKey, Notes, PropertiesWriter, RegionKeyId, RegionPublicKey,
    RootKey, SessionGrant, SourceId, Timestamp, Unsigned, Value, WorkerId, limits::MAX_FRAME,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input)?;
    let answer = match serde_json::from_str(&input)? {
        Request::Leases { root, scope, epochs } => leases(&root, &scope, &epochs)?,
        Request::Session { root, scope, epoch, source, origin, write_key, expires } => {
            let grant = SessionGrant {
                worker: WorkerId::new(scope.worker),
                region: scope.region.parse()?,
                expires: Timestamp::from_millis(expires),
                holder: Holder::new(&origin, &write_key),
            };
            let lease = RootKey::new(secret(&root)?).lease(&scope.at(Epoch::new(epoch))?);
            json!({
                "keyId": 1,
                "epoch": epoch,
                "grant": BASE64.encode(grant.to_bytes()),
                "secret": BASE64.encode(lease.session_secret(source.parse()?, &grant)),
            })
        }
        Request::Frame(wanted) => json!({ "frame": BASE64.encode(frame(&wanted)?) }),
        Request::Read { frame } => read(&BASE64.decode(frame)?)?,
        Request::Open { envelope, root } => open(&BASE64.decode(envelope)?, &root)?,
    };
    println!("{answer}");
    Ok(())
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
enum Request {
    Leases {
        root: String,
        #[serde(flatten)]
        scope: Scope,
        epochs: Vec<u32>,
    },
    Session {
        root: String,
        #[serde(flatten)]
        scope: Scope,
        epoch: u32,
        source: String,
        origin: String,
        #[serde(rename = "writeKey")]
        write_key: String,
        expires: u64,
    },
    Frame(Box<Wanted>),
    Read {
        frame: String,
    },
    Open {
        envelope: String,
        root: String,
    },
}

#[derive(Deserialize)]
struct Scope {
    tenant: String,
    region: String,
    worker: u32,
}

impl Scope {
    fn at(&self, epoch: Epoch) -> Result<LeaseScope> {
        Ok(LeaseScope {
            tenant: self.tenant.parse()?,
            region: self.region.parse()?,
            worker: WorkerId::new(self.worker),
            epoch,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    tenant: String,
    source: String,
    region: String,
    #[serde(default)]
    batch_seq: u64,
    #[serde(default)]
    first_seq: u64,
    created: u64,
    #[serde(default)]
    consent: u8,
    #[serde(default)]
    context: Said,
    write_key: Option<String>,
    session: Option<Session>,
    seal_to: Option<SealTo>,
    events: Vec<Tracked>,
}

/// What a page says of its visitor.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    anonymous_id: Option<String>,
    user_id: Option<String>,
    session_id: Option<String>,
    url: Option<String>,
    referrer: Option<String>,
}

#[derive(Deserialize)]
struct SealTo {
    id: u32,
    public: String,
    random: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Session {
    key_id: u32,
    epoch: u32,
    grant: String,
    secret: String,
}

#[derive(Deserialize)]
struct Tracked {
    name: String,
    #[serde(default)]
    properties: serde_json::Map<String, Json>,
}

fn leases(root: &str, scope: &Scope, epochs: &[u32]) -> Result<Json> {
    let root = RootKey::new(secret(root)?);
    let keys: Vec<_> = epochs
        .iter()
        .map(|&epoch| {
            let key = root.lease(&scope.at(Epoch::new(epoch))?);
            Ok(json!({ "epoch": epoch, "key": BASE64.encode(key.expose()) }))
        })
        .collect::<Result<_>>()?;
    Ok(json!({ "leases": keys }))
}

fn frame(wanted: &Wanted) -> Result<Vec<u8>> {
    let source: SourceId = wanted.source.parse()?;
    let mut header = Header::new(wanted.tenant.parse()?, source, Timestamp::from_millis(wanted.created));
    header.region = wanted.region.parse()?;
    (header.batch_seq, header.first_seq) = (wanted.batch_seq, wanted.first_seq);
    header.consent = Consent::from_bits(wanted.consent);
    if let Some(session) = &wanted.session {
        header.alg = Alg::HmacSha256Trunc128;
        header.flags = Flags::TRUST;
        (header.key_id, header.epoch) = (KeyId::new(session.key_id), Epoch::new(session.epoch));
    }
    let mut writer = FrameWriter::new(vec![0; MAX_FRAME], &header)?;
    if let Some(key) = &wanted.write_key {
        writer.extension(ExtensionKind::WriteKey, key.as_bytes())?;
    }
    if let Some(session) = &wanted.session {
        writer.extension(ExtensionKind::Session, &BASE64.decode(&session.grant)?)?;
    }
    if let Some(SealTo { id, public, .. }) = &wanted.seal_to {
        writer.seal_to(&RegionPublicKey::new(RegionKeyId::new(*id), secret(public)?)?)?;
    }
    let Said { anonymous_id, user_id, session_id, url, referrer } = &wanted.context;
    writer.context(&Context {
        anonymous_id: anonymous_id.as_deref(),
        user_id: user_id.as_deref(),
        session_id: session_id.as_deref(),
        url: url.as_deref(),
        referrer: referrer.as_deref(),
        locale: Some("de-CH"),
        ..Context::default()
    })?;
    for event in &wanted.events {
        let mut properties = PropertiesWriter::new(vec![0; 4096], vec![0; 28 * 1024]);
        for (key, value) in &event.properties {
            properties.put(key, scalar(value)?)?;
        }
        let properties = properties.finish()?;
        writer.event(&Event { name: &event.name, properties, ..Event::default() })?;
    }
    let key = wanted
        .session
        .as_ref()
        .map(|session| Ok::<_, Box<dyn Error>>(MacKey::new(header.alg, &secret(&session.secret)?)?));
    let key = key.transpose()?;
    let signer: &dyn FrameSigner = key.as_ref().map_or(&Unsigned, |key| key);
    Ok(match &wanted.seal_to {
        Some(SealTo { random, .. }) => writer.finish_sealed(signer, &secret(random)?)?,
        None => writer.finish(signer)?,
    }
    .to_vec())
}

fn read(bytes: &[u8]) -> Result<Json> {
    let frame = Frame::parse(bytes)?;
    if frame.header().flags.contains(Flags::SEALED) {
        return Ok(json!({ "header": header_json(frame.header()) }));
    }
    let (context, events) = frame.open()?;
    let events: Vec<_> = events.map(|event| event_json(&context, &event?)).collect::<Result<_>>()?;
    let rewritten = frame.rewritten().map(|how| json!({ "suppressed": how.suppressed, "trusted": how.trusted }));
    Ok(json!({
        "header": header_json(frame.header()),
        "rewritten": rewritten,
        "context": context_json(&context),
        "events": events,
    }))
}

fn open(bytes: &[u8], root: &str) -> Result<Json> {
    let frame = Frame::parse(bytes)?;
    let header = frame.header();
    let worker = Envelope::worker(&frame)?;
    let scope = LeaseScope { tenant: header.tenant, region: header.region, worker, epoch: header.epoch };
    let lease: LeaseKey = RootKey::new(secret(root)?).lease(&scope);
    frame.verify(&lease.envelope_key(header.alg)?)?;
    let envelope = Envelope::open(&frame)?;
    let note = &envelope.annotation;
    Ok(json!({
        "header": header_json(header),
        "worker": worker.get(),
        "annotation": {
            "received": note.received_ms,
            "pop": note.pop,
            "country": note.country,
            "network": note.network.to_string(),
            "agent": note.agent.as_str(),
            "traffic": note.traffic.as_str(),
            "trust": note.trust.as_str(),
            "refused": note.refused,
        },
        "notes": envelope.notes.as_ref().map(notes_json),
        "frame": BASE64.encode(envelope.frame),
    }))
}

fn notes_json(notes: &Notes<'_>) -> Json {
    let effects: Vec<_> = Effects::NAMES.iter().filter(|(bit, _)| notes.effects.contains(*bit)).collect();
    json!({
        "rules": notes.rules,
        "effects": effects.iter().map(|(_, name)| name).collect::<Vec<_>>(),
        "withdrawn": notes.withdrawn.bits(),
        "referrer": notes.referrer.as_str(),
        "skew": notes.skew_ms,
        "subdivision": notes.subdivision,
        "city": notes.city,
        "campaign": notes.campaign.map(|campaign| json!({ "source": campaign.source, "medium": campaign.medium, "name": campaign.name })),
        "clickId": notes.click_id,
    })
}

fn header_json(header: &Header) -> Json {
    json!({
        "tenant": header.tenant.to_string(),
        "source": header.source.to_string(),
        "keyId": header.key_id.get(),
        "epoch": header.epoch.get(),
        "region": header.region.as_str(),
        "alg": header.alg as u8,
        "count": header.count,
        "batchSeq": header.batch_seq,
        "firstSeq": header.first_seq,
        "created": header.created.as_millis(),
        "consent": header.consent.bits(),
    })
}

fn event_json<'a>(context: &Context<'a>, event: &Event<'a>) -> Result<Json> {
    Ok(json!({
        "kind": event.kind.as_str(),
        "name": event.name,
        "id": event.id.map(|id| id.id),
        "context": context_json(&event.context.apply(context)?),
        "properties": event.properties.iter().filter_map(|(key, value)| Some((key.to_owned(), json_scalar(value)?))).collect::<serde_json::Map<_, _>>(),
    }))
}

fn context_json(context: &Context<'_>) -> Json {
    json!({
        "anonymousId": context.anonymous_id,
        "userId": context.user_id,
        "locale": context.locale,
        "sessionId": context.session_id,
        "url": context.url,
        "referrer": context.referrer,
        "userAgent": context.user_agent,
    })
}

fn scalar(json: &Json) -> Result<Value<'_>> {
    Ok(match json {
        Json::Bool(value) => Value::Bool(*value),
        Json::String(value) => Value::Str(value),
        Json::Number(value) => match value.as_u64() {
            Some(value) => Value::U64(value),
            None => Value::F64(value.as_f64().ok_or("not a number")?),
        },
        _ => return Err("only text, numbers and truth values".into()),
    })
}

/// Only what the tests look at; what is nested is left out.
fn json_scalar(value: Value<'_>) -> Option<Json> {
    Some(match value {
        Value::Bool(value) => value.into(),
        Value::U64(value) => value.into(),
        Value::I64(value) => value.into(),
        Value::F64(value) => value.into(),
        Value::Str(value) => value.into(),
        _ => return None,
    })
}

fn secret(text: &str) -> Result<[u8; 32]> {
    Ok(BASE64.decode(text)?.try_into().map_err(|_| "not 32 bytes")?)
}
