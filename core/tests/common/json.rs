//! The vectors' notation: `tests/vectors/README.md`.

use firsthop_core::{
    Alg, Consent, Epoch, EventKind, ExtensionKind, Flags, Header, KeyId, Region, SourceId, TenantId, Timestamp,
};
use serde_json::Value as Json;

use super::{ContextModel, Entries, EventModel, Tree};

/// The cases of one file.
pub(crate) fn cases(text: &str) -> Vec<Json> {
    let Json::Array(cases) = serde_json::from_str(text).expect("JSON") else { panic!("not a list") };
    assert!(!cases.is_empty());
    cases
}

pub(crate) fn text<'j>(json: &'j Json, field: &str) -> &'j str {
    json[field].as_str().unwrap_or_else(|| panic!("{field} in {json}"))
}

pub(crate) fn bytes(json: &Json, field: &str) -> Vec<u8> {
    unhex(text(json, field))
}

/// A number in decimal, or nothing for zero.
pub(crate) fn number<T: std::str::FromStr + Default>(json: &Json, field: &str) -> T {
    match &json[field] {
        Json::Null => T::default(),
        Json::String(text) => text.parse().ok().unwrap_or_else(|| panic!("{field}: {text}")),
        number => number.to_string().parse().ok().unwrap_or_else(|| panic!("{field}: {number}")),
    }
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "half a byte: {text}");
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hex")).collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn entries(json: &Json) -> Entries {
    match json {
        Json::Null => Entries::new(),
        Json::Array(entries) => {
            entries.iter().map(|entry| (entry[0].as_str().expect("a key").into(), tree(&entry[1]))).collect()
        }
        other => panic!("no entries: {other}"),
    }
}

fn tree(json: &Json) -> Tree {
    let fields = match json {
        Json::Null => return Tree::Null,
        Json::Bool(value) => return Tree::Bool(*value),
        Json::String(text) => return Tree::Str(text.clone()),
        Json::Object(fields) => fields,
        other => panic!("no value: {other}"),
    };
    let (kind, value) = fields.iter().next().expect("one field");
    let text = || value.as_str().expect("text");
    match kind.as_str() {
        "u64" => Tree::U64(text().parse().expect("a number")),
        "i64" => Tree::I64(text().parse().expect("a number")),
        "f64" => Tree::F64(text().parse().expect("a number")),
        "bytes" => Tree::Bytes(unhex(text())),
        "list" => Tree::List(value.as_array().expect("a list").iter().map(tree).collect()),
        "map" => Tree::Map(entries(value)),
        other => panic!("no kind of value: {other}"),
    }
}

pub(crate) fn context(json: &Json) -> ContextModel {
    let owned = |json: &Json, field: &str| json[field].as_str().map(String::from);
    ContextModel {
        texts: [
            "anonymous_id",
            "user_id",
            "session_id",
            "locale",
            "timezone",
            "user_agent",
            "url",
            "title",
            "referrer",
        ]
        .map(|field| owned(json, field)),
        screen: json["screen"]
            .is_object()
            .then(|| (number(&json["screen"], "width"), number(&json["screen"], "height"))),
        campaign: json["campaign"]
            .is_object()
            .then(|| ["source", "medium", "name", "term", "content"].map(|field| owned(&json["campaign"], field))),
        extra: entries(&json["extra"]),
    }
}

pub(crate) fn event(json: &Json) -> EventModel {
    let kind = text(json, "kind");
    EventModel {
        kind: EventKind::ALL.into_iter().find(|known| known.as_str() == kind).expect("a kind"),
        offset_ms: number(json, "offset_ms"),
        id: json["id"].is_object().then(|| {
            assert_eq!(json["id"]["vendor"], "segment");
            text(&json["id"], "id").into()
        }),
        name: json["name"].as_str().unwrap_or_default().into(),
        context: json["context"].is_object().then(|| context(&json["context"])),
        properties: entries(&json["properties"]),
    }
}

pub(crate) fn events(json: &Json) -> Vec<EventModel> {
    json.as_array().expect("events").iter().map(event).collect()
}

pub(crate) fn alg(number: u64) -> Alg {
    [Alg::None, Alg::HmacSha256Trunc128, Alg::HmacSha256, Alg::Ed25519, Alg::Blake3][number as usize]
}

pub(crate) fn header(json: &Json) -> Header {
    let mut header = Header::new(tenant(json), source(json), Timestamp::from_millis(number(json, "created_ms")));
    for flag in json["flags"].as_array().into_iter().flatten() {
        header.flags = header.flags.with(match flag.as_str() {
            Some("trust") => Flags::TRUST,
            Some("envelope") => Flags::ENVELOPE,
            _ => panic!("no flag: {flag}"),
        });
    }
    header.alg = alg(number(json, "alg"));
    header.key_id = KeyId::new(number(json, "key_id"));
    header.epoch = Epoch::new(number(json, "epoch"));
    header.region = region(json);
    header.consent = Consent::from_bits(number(json, "consent"));
    header.count = number(json, "count");
    header.batch_seq = number(json, "batch_seq");
    header.first_seq = number(json, "first_seq");
    header.dropped = number(json, "dropped");
    header
}

pub(crate) fn tenant(json: &Json) -> TenantId {
    text(json, "tenant").parse().expect("a tenant")
}

pub(crate) fn source(json: &Json) -> SourceId {
    text(json, "source").parse().expect("a source")
}

pub(crate) fn region(json: &Json) -> Region {
    json["region"].as_str().unwrap_or("--").parse().expect("a region")
}

pub(crate) fn extensions(json: &Json) -> Vec<(ExtensionKind, Vec<u8>)> {
    json["extensions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|extension| {
            let kind = match number(extension, "kind") {
                1 => ExtensionKind::Traceparent,
                2 => ExtensionKind::WriteKey,
                3 => ExtensionKind::Session,
                4 => ExtensionKind::Worker,
                5 => ExtensionKind::SealKey,
                other => ExtensionKind::Unknown(other),
            };
            (kind, bytes(extension, "value"))
        })
        .collect()
}

/// 32 bytes: a key or a seed.
pub(crate) fn key(json: &Json, field: &str) -> [u8; 32] {
    bytes(json, field).try_into().expect("32 bytes")
}
