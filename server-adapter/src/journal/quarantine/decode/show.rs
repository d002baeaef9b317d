//! What stands in a frame, in words: names of its fields and where they are, values as people read them, and a dump of the rest.

use std::ops::Range;

use firsthop_core::{
    Annotation, Error, Extension, ExtensionKind, Header, MAGIC, SessionGrant, SourceId, TenantId, Timestamp, limits,
};
use serde_json::{Value, json};

use crate::clock;

type Show = fn(&[u8]) -> Value;

/// The fixed header: `docs/wire-format.md` §3.
pub(super) const HEADER: &[(&str, usize, usize, Show)] = &[
    ("magic", 0, 4, |raw| String::from_utf8_lossy(raw).into()),
    ("version", 4, 1, number),
    ("flags", 5, 1, |raw| flags(raw[0])),
    ("header_len", 6, 2, number),
    ("tenant", 8, 8, |raw| TenantId::new(u64_of(raw)).to_string().into()),
    ("source", 16, 16, |raw| {
        <[u8; 16]>::try_from(raw).map_or(Value::Null, |raw| SourceId::new(raw).to_string().into())
    }),
    ("key_id", 32, 4, number),
    ("epoch", 36, 4, number),
    ("region", 40, 2, |raw| String::from_utf8_lossy(raw).into()),
    ("alg", 42, 1, |raw| alg(raw[0])),
    ("consent", 43, 1, |raw| format!("{:08b}", raw[0]).into()),
    ("count", 44, 2, number),
    ("reserved", 46, 2, number),
    ("batch_seq", 48, 8, number),
    ("first_seq", 56, 8, number),
    ("created", 64, 8, |raw| clock::format(Timestamp::from_millis(u64_of(raw))).into()),
    ("dropped", 72, 4, number),
    ("payload_len", 76, 4, number),
    ("crc32", 80, 4, |raw| format!("{:08x}", u64_of(raw)).into()),
    ("reserved", 84, 4, number),
];

fn u64_of(raw: &[u8]) -> u64 {
    raw.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn number(raw: &[u8]) -> Value {
    u64_of(raw).into()
}

fn flags(bits: u8) -> Value {
    let names = [(1, "sealed"), (2, "trust"), (4, "envelope")];
    let mut said: Vec<String> =
        names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| (*name).to_owned()).collect();
    if bits & !7 != 0 {
        said.push(format!("unknown {:#04x}", bits & !7));
    }
    if said.is_empty() { "none".into() } else { said.join(" ").into() }
}

pub(super) fn alg(number: u8) -> Value {
    let name = match number {
        0 => "none",
        1 => "HMAC-SHA256-128",
        2 => "HMAC-SHA256-256",
        3 => "Ed25519",
        4 => "keyed BLAKE3-256",
        _ => return format!("unknown {number}").into(),
    };
    name.into()
}

/// Where the field is of which the header's check complains.
pub(super) fn header_fault(bytes: &[u8], error: Error) -> usize {
    let is_set = |range: Range<usize>| bytes.get(range).is_some_and(|raw| raw.iter().any(|byte| *byte != 0));
    match error {
        Error::Magic => bytes.iter().zip(&MAGIC).take_while(|(byte, magic)| byte == magic).count(),
        Error::Version => 4,
        Error::Reserved if bytes.get(5).is_some_and(|flags| *flags > 7 || *flags & 5 == 5) => 5,
        Error::Reserved if is_set(46..48) => 46,
        Error::Reserved => 84,
        Error::HeaderLength => 6,
        Error::Algorithm => 42,
        Error::TooLarge => 76,
        Error::Region => 40,
        Error::Count if bytes.get(44..46).is_some_and(|raw| u64_of(raw) > limits::MAX_EVENTS.into()) => 44,
        Error::Count if bytes.get(48..56).is_some_and(|raw| u64_of(raw) > limits::MAX_SEQ) => 48,
        Error::Count => 56,
        // Cut within the header.
        _ => bytes.len(),
    }
}

/// How long a frame is by its own word.
pub(super) fn frame_len(bytes: &[u8], header: &Header) -> usize {
    let at = |range: Range<usize>| bytes.get(range).map_or(0, u64_of) as usize;
    at(6..8) + at(76..80) + header.alg.tag_len()
}

/// What an extension is called, and what it says.
pub(super) fn extension(number: u16, value: &[u8]) -> (String, Value) {
    let kinds = [
        ExtensionKind::Traceparent,
        ExtensionKind::WriteKey,
        ExtensionKind::Session,
        ExtensionKind::Worker,
        ExtensionKind::SealKey,
    ];
    let kind = kinds.into_iter().find(|kind| kind.number() == number).unwrap_or(ExtensionKind::Unknown(number));
    let text = || String::from_utf8_lossy(value).into_owned().into();
    match (Extension { kind, value }).kind {
        ExtensionKind::Traceparent => ("traceparent".into(), text()),
        ExtensionKind::WriteKey => ("write_key".into(), text()),
        ExtensionKind::Worker if value.len() == 4 => ("worker".into(), u64_of(value).into()),
        ExtensionKind::SealKey if value.len() == 4 => ("seal_key".into(), u64_of(value).into()),
        ExtensionKind::Session => {
            let said = SessionGrant::from_bytes(value).map_or_else(
                |error| json!({ "fault": error.code(), "bytes": hex(value) }),
                |grant| {
                    json!({
                        "worker": grant.worker.get(),
                        "region": grant.region.as_str(),
                        "expires": clock::format(grant.expires),
                    })
                },
            );
            ("session".into(), said)
        }
        _ => (format!("extension {number}"), hex(value).into()),
    }
}

/// What a first hop noted, in its order.
pub(crate) fn annotation(noted: &Annotation<'_>) -> Vec<(&'static str, Value)> {
    vec![
        ("received", clock::format(Timestamp::from_millis(noted.received_ms)).into()),
        ("pop", noted.pop.into()),
        ("country", noted.country.into()),
        ("network", noted.network.to_string().into()),
        ("agent", noted.agent.as_str().into()),
        ("traffic", noted.traffic.as_str().into()),
        ("trust", noted.trust.as_str().into()),
        ("refused", noted.refused.into()),
    ]
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes as people read them: sixteen to a line, with their place and their text. `at`: where they stand.
pub(crate) fn dump(bytes: &[u8], at: usize) -> impl Iterator<Item = String> + '_ {
    bytes.chunks(16).zip((at..).step_by(16)).map(|(line, at)| {
        let numbers: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String =
            line.iter().map(|byte| if matches!(byte, 0x20..=0x7e) { char::from(*byte) } else { '.' }).collect();
        format!("{at:08x}  {:<47}  {text}", numbers.join(" "))
    })
}
