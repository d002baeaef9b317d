//! Whether two events of one identity say the same.

use firsthop_core::{Campaign, Context, Event, List, Properties, Screen, Value};
use sha2::{Digest, Sha256};

use crate::segment::REST;

/// A digest of what an event says, to tell a retry from a conflict: the first 16 bytes of a SHA-256.
///
/// Identity is `(tenant, source, seq)` and never this. Two events of one identity are the same event sent twice if their
/// digests agree; otherwise the second is a conflict. Left out is what a sender or a hop changes from one attempt to the
/// next: the event's time as the hop set it right (the `timestamp` that was sent is in), and the sender's own bookkeeping (`_metadata`,
/// where Segment's browser SDK counts its attempts).
///
/// `context` is the event's whole context: [`ContextDelta::apply`](firsthop_core::ContextDelta::apply).
#[must_use]
pub fn content_digest(event: &Event<'_>, context: &Context<'_>) -> [u8; 16] {
    let mut hash = Sha256::new_with_prefix(b"firsthop/content/1");
    hash.update([event.kind as u8]);
    let (vendor, id) = event.id.map_or(("", ""), |id| (id.vendor.as_str(), id.id));
    for text in [vendor, id, event.name] {
        put(&mut hash, text.as_bytes());
    }
    hash_context(&mut hash, context);
    hash_map(&mut hash, event.properties, &[]);
    let mut digest = [0; 16];
    digest.copy_from_slice(&hash.finalize()[..16]);
    digest
}

/// What a sender changes from one attempt to the next.
const BOOKKEEPING: &[&str] = &["_metadata"];

fn hash_context(hash: &mut Sha256, context: &Context<'_>) {
    // Taken apart whole, so that a new field of the core's cannot be forgotten here.
    let Context {
        anonymous_id,
        user_id,
        session_id,
        locale,
        timezone,
        user_agent,
        url,
        title,
        referrer,
        screen,
        campaign,
        extra,
    } = *context;
    let Campaign { source, medium, name, term, content } = campaign.unwrap_or_default();
    for text in [
        anonymous_id,
        user_id,
        session_id,
        locale,
        timezone,
        user_agent,
        url,
        title,
        referrer,
        source,
        medium,
        name,
        term,
        content,
    ] {
        hash.update([u8::from(text.is_some())]);
        put(hash, text.unwrap_or_default().as_bytes());
    }
    let Screen { width, height } = screen.unwrap_or_default();
    hash.update(width.to_le_bytes());
    hash.update(height.to_le_bytes());
    for (key, value) in extra {
        hash.update([1]);
        put(hash, key.as_bytes());
        match value {
            Value::Map(rest) if key == REST => hash_map(hash, rest, BOOKKEEPING),
            value => hash_value(hash, value),
        }
    }
    hash.update([END]);
}

const END: u8 = 0xff;

fn hash_map(hash: &mut Sha256, map: Properties<'_>, without: &[&str]) {
    hash.update([9]);
    for (key, value) in map.iter().filter(|(key, _)| !without.contains(key)) {
        hash.update([1]);
        put(hash, key.as_bytes());
        hash_value(hash, value);
    }
    hash.update([END]);
}

fn hash_list(hash: &mut Sha256, list: List<'_>) {
    hash.update([8]);
    for value in list {
        hash_value(hash, value);
    }
    hash.update([END]);
}

/// A tag, then the value: no two values read alike. Recursion is bounded by the core's depth.
fn hash_value(hash: &mut Sha256, value: Value<'_>) {
    match value {
        Value::Null => hash.update([0]),
        Value::Bool(value) => hash.update([1, u8::from(value)]),
        Value::U64(value) => hash_number(hash, 3, value.to_le_bytes()),
        Value::I64(value) => hash_number(hash, 4, value.to_le_bytes()),
        Value::F64(value) => hash_number(hash, 5, value.to_le_bytes()),
        Value::Str(value) => {
            hash.update([6]);
            put(hash, value.as_bytes());
        }
        Value::Bytes(value) => {
            hash.update([7]);
            put(hash, value);
        }
        Value::List(list) => hash_list(hash, list),
        Value::Map(map) => hash_map(hash, map, &[]),
    }
}

fn hash_number(hash: &mut Sha256, tag: u8, number: [u8; 8]) {
    hash.update([tag]);
    hash.update(number);
}

/// Bytes behind their length.
fn put(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}
