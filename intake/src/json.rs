//! JSON into properties, and properties and contexts into JSON.
//!
//! Both ways are exact, as far as the other side can say it: entries keep their order, whole numbers of 64 bits their
//! digits, doubles their value. Numbers over 64 bits become doubles, as they are in JavaScript. Where a native producer says what
//! JSON cannot, bytes become base64 text, and NaN and the infinities become null.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_STANDARD};
use firsthop_core::{Campaign, Context, Error, List, Properties, PropertiesWriter, Screen, Value};
use serde::{
    Deserialize, Serialize, Serializer,
    de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap, SerializeSeq},
};
use serde_json::value::RawValue;

use crate::Refusal;

/// What a visitor says of what it does not take. serde's own words would name the value, and for a number they bring six kilobytes of tables.
macro_rules! refuse_others {
    ($expected:literal $($other:ident)+) => {
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str($expected)
        }

        $($crate::json::refuse_other! { $other $expected })+
    };
}

macro_rules! refuse_other {
    (unit $expected:literal) => {
        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Err(E::custom($expected))
        }
    };
    (bool $expected:literal) => {
        fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
            Err(E::custom($expected))
        }
    };
    (numbers $expected:literal) => {
        fn visit_u64<E: de::Error>(self, _: u64) -> Result<Self::Value, E> {
            Err(E::custom($expected))
        }

        fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self::Value, E> {
            Err(E::custom($expected))
        }

        fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
            Err(E::custom($expected))
        }
    };
    (text $expected:literal) => {
        fn visit_str<E: de::Error>(self, _: &str) -> Result<Self::Value, E> {
            Err(E::custom($expected))
        }
    };
    (list $expected:literal) => {
        fn visit_seq<A: de::SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
            Err(de::Error::custom($expected))
        }
    };
    (map $expected:literal) => {
        fn visit_map<A: de::MapAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
            Err(de::Error::custom($expected))
        }
    };
}

pub(crate) use {refuse_other, refuse_others};

/// The code unit of a `\uXXXX` that stands at this place, which may be half a character.
#[must_use]
pub fn escaped_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let hex = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    hex.iter().try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)? as u16))
}

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

/// Writes a JSON value as an entry under `key`, or as an item where a list is open. After an error the writer holds a
/// part of it: [`clear`](PropertiesWriter::clear) it.
///
/// # Errors
/// [`Refusal::Json`] if it is not JSON; [`Error::TooDeep`] or [`Error::TooLarge`] if it is over the core's bounds.
pub fn read<B: AsRef<[u8]> + AsMut<[u8]>>(
    json: &str,
    key: Option<&str>,
    writer: &mut PropertiesWriter<B>,
) -> Result<(), Refusal> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let json = <&RawValue>::deserialize(&mut deserializer).map_err(|_| Refusal::Json)?;
    deserializer.end().map_err(|_| Refusal::Json)?;
    write(json.get(), key, writer)
}

/// Writes the entries of a JSON object into the map that is open. After an error as [`read`].
///
/// # Errors
/// As [`read`]; [`Refusal::Json`] if it is no object.
pub fn read_entries<B: AsRef<[u8]> + AsMut<[u8]>>(json: &str, writer: &mut PropertiesWriter<B>) -> Result<(), Refusal> {
    if json.trim_ascii_start().starts_with('{') { write_parts(json, writer) } else { Err(Refusal::Json) }
}

/// Writes what is well-formed, with nothing around it. Objects and lists are cut apart first, so that a number is met as it stands; the
/// writer bounds how often that is done to the same text.
fn write<B: AsRef<[u8]> + AsMut<[u8]>>(
    json: &str,
    key: Option<&str>,
    writer: &mut PropertiesWriter<B>,
) -> Result<(), Refusal> {
    let text;
    let value = match json.as_bytes() {
        [b'{', ..] => {
            writer.begin_map(key).map_err(too_large)?;
            write_parts(json, writer)?;
            return writer.end().map_err(too_large);
        }
        [b'[', ..] => {
            writer.begin_list(key).map_err(too_large)?;
            write_parts(json, writer)?;
            return writer.end().map_err(too_large);
        }
        [b'"', ..] => {
            text = self::text(json).ok_or(Refusal::Json)?;
            Value::Str(&text)
        }
        b"null" => Value::Null,
        b"true" => Value::Bool(true),
        b"false" => Value::Bool(false),
        _ => number(json).ok_or(Refusal::Json)?,
    };
    match key {
        Some(key) => writer.put(key, value),
        None => writer.push(value),
    }
    .map_err(too_large)
}

/// Writes the entries of an object, or the items of a list, where such a one is open.
fn write_parts<B: AsRef<[u8]> + AsMut<[u8]>>(json: &str, writer: &mut PropertiesWriter<B>) -> Result<(), Refusal> {
    let mut failed = None;
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let read = deserializer.deserialize_any(Parts { writer, failed: &mut failed });
    match (read.and_then(|()| deserializer.end()), failed) {
        (_, Some(refusal)) => Err(refusal),
        (Err(_), None) => Err(Refusal::Json),
        (Ok(()), None) => Ok(()),
    }
}

/// What the writer could not take, the body has too much of: the buffers are as large as an event may be.
fn too_large(error: Error) -> Refusal {
    if error == Error::BufferFull { Error::TooLarge.into() } else { error.into() }
}

/// A number as it stands: whole ones of 64 bits keep their digits, others are the double next to them. None for one that no double is near.
fn number(json: &str) -> Option<Value<'_>> {
    if !json.contains(['.', 'e', 'E']) {
        if let Ok(value) = json.parse() {
            return Some(Value::U64(value));
        }
        // The negative zero is a double.
        if let Some(value) = json.parse().ok().filter(|&value| value != 0) {
            return Some(Value::I64(value));
        }
    }
    double(json).filter(|value| value.is_finite()).map(Value::F64)
}

/// The double nearest to a number. The platform's way where there is one: the tables for it are ten kilobytes.
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
fn double(json: &str) -> Option<f64> {
    Some(js_sys::Number::parse_float(json))
}

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
fn double(json: &str) -> Option<f64> {
    json.parse().ok()
}

/// Writes what it visits, without building a tree.
struct Parts<'w, B> {
    writer: &'w mut PropertiesWriter<B>,
    /// serde's errors are text: what was wrong is kept here.
    failed: &'w mut Option<Refusal>,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Parts<'_, B> {
    fn part<E: de::Error>(&mut self, json: &RawValue, key: Option<&str>) -> Result<(), E> {
        write(json.get(), key, self.writer).map_err(|refusal| {
            *self.failed = Some(refusal);
            E::custom("refused")
        })
    }
}

impl<'de, B: AsRef<[u8]> + AsMut<[u8]>> Visitor<'de> for Parts<'_, B> {
    type Value = ();

    refuse_others!("an object or a list is expected" unit bool numbers text);

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element::<&RawValue>()? {
            self.part(item, None)?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        while let Some(key) = entries.next_key_seed(Text)? {
            self.part(entries.next_value()?, Some(&key))?;
        }
        Ok(())
    }
}

/// A text of JSON's, borrowed where it has no escapes. None if the JSON is something else.
pub(crate) fn text(json: &str) -> Option<Cow<'_, str>> {
    // Only a text begins with a quote.
    if !json.starts_with('"') {
        return None;
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let text = Text.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok().map(|()| text)
}

/// Borrows a string where it can; serde's own `Cow` never does.
pub(crate) struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    refuse_others!("a text is expected" unit bool numbers list map);

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back(json: &str) -> Result<String, Refusal> {
        let mut writer = PropertiesWriter::new(vec![0; 4096], vec![0; 4096]);
        read(json, Some("it"), &mut writer)?;
        Ok(to_string(Json(writer.finish().map_err(too_large)?)))
    }

    /// The Worker's own doubles are the platform's: `edge-worker/test/segment.test.mjs` has the same table.
    #[test]
    fn numbers_are_what_they_were() {
        for (json, back) in [
            ("0", "0"),
            ("-0", "-0.0"),
            ("-1", "-1"),
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("18446744073709551616", "1.8446744073709552e+19"),
            ("9007199254740993.0", "9007199254740992.0"),
            ("0.1", "0.1"),
            ("1e2", "100.0"),
            ("1E-7", "1e-7"),
            ("5e-324", "5e-324"),
            ("2.2250738585072011e-308", "2.225073858507201e-308"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("0.30000000000000004", "0.30000000000000004"),
            (" 1.5\n", "1.5"),
        ] {
            assert_eq!(read_back(json), Ok(format!(r#"{{"it":{back}}}"#)), "{json}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for json in [
            "",
            " ",
            "1e400",
            "-1e400",
            "01",
            "1.",
            ".5",
            "+1",
            "NaN",
            "nul",
            "nulll",
            "1 2",
            r#"{"a":1}}"#,
            "[1,]",
            r#"{"a"}"#,
            r#"["\ud800"]"#,
        ] {
            assert_eq!(read_back(json), Err(Refusal::Json), "{json}");
        }
    }

    #[test]
    fn depth_is_bounded_however_deep_the_text_is() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read_back(&nested(7)).is_ok());
        assert_eq!(read_back(&nested(100_000)), Err(Error::TooDeep.into()));
    }
}
