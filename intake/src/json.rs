//! Properties and contexts as JSON, for tables and answers.
//!
//! What JSON cannot say: bytes become base64 text, NaN and the infinities become null. Everything else is exact:
//! whole numbers keep their digits, doubles their value, entries their order.

use base64::{Engine, prelude::BASE64_STANDARD};
use firsthop_core::{Campaign, Context, List, Properties, Screen, Value};
use serde::{
    Serialize, Serializer,
    ser::{SerializeMap, SerializeSeq},
};

/// Serialises what it holds as JSON, without copying it into another tree first.
///
/// ```
/// use firsthop_core::Properties;
/// use firsthop_intake::json::{Json, to_string};
///
/// assert_eq!(to_string(Json(Properties::EMPTY)), "{}");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

/// The JSON text of a value, context or block of properties.
#[must_use]
pub fn to_string<T>(json: Json<T>) -> String
where
    Json<T>: Serialize,
{
    // The serialisers below fail only where the writer fails, and a string takes everything.
    serde_json::to_string(&json).unwrap_or_default()
}

impl Serialize for Json<Properties<'_>> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in self.0 {
            map.serialize_entry(key, &Json(value))?;
        }
        map.end()
    }
}

impl Serialize for Json<List<'_>> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(None)?;
        for value in self.0 {
            seq.serialize_element(&Json(value))?;
        }
        seq.end()
    }
}

impl Serialize for Json<Value<'_>> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(value),
            Value::U64(value) => serializer.serialize_u64(value),
            Value::I64(value) => serializer.serialize_i64(value),
            Value::F64(value) => serializer.serialize_f64(value),
            Value::Str(value) => serializer.serialize_str(value),
            Value::Bytes(value) => serializer.serialize_str(&BASE64_STANDARD.encode(value)),
            Value::List(list) => Json(list).serialize(serializer),
            Value::Map(map) => Json(map).serialize(serializer),
        }
    }
}

/// An object of the members that are there: `anonymousId`, `userId`, `sessionId`, `locale`, `timezone`, `userAgent`, `url`,
/// `title`, `referrer`, `screen {width, height}`, `campaign {source, medium, name, term, content}`, `extra {…}`.
impl Serialize for Json<Context<'_>> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
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
        } = self.0;
        let mut map = serializer.serialize_map(None)?;
        for (key, text) in [
            ("anonymousId", anonymous_id),
            ("userId", user_id),
            ("sessionId", session_id),
            ("locale", locale),
            ("timezone", timezone),
            ("userAgent", user_agent),
            ("url", url),
            ("title", title),
            ("referrer", referrer),
        ] {
            if let Some(text) = text {
                map.serialize_entry(key, text)?;
            }
        }
        if let Some(screen) = screen {
            map.serialize_entry("screen", &Json(screen))?;
        }
        if let Some(campaign) = campaign {
            map.serialize_entry("campaign", &Json(campaign))?;
        }
        if !extra.is_empty() {
            map.serialize_entry("extra", &Json(extra))?;
        }
        map.end()
    }
}

impl Serialize for Json<Screen> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Screen { width, height } = self.0;
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("width", &width)?;
        map.serialize_entry("height", &height)?;
        map.end()
    }
}

impl Serialize for Json<Campaign<'_>> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Campaign { source, medium, name, term, content } = self.0;
        let mut map = serializer.serialize_map(None)?;
        for (key, text) in
            [("source", source), ("medium", medium), ("name", name), ("term", term), ("content", content)]
        {
            if let Some(text) = text {
                map.serialize_entry(key, text)?;
            }
        }
        map.end()
    }
}
