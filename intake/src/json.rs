//! JSON into properties, and properties and contexts into JSON.
//!
//! Both ways are exact, as far as the other side can say it: entries keep their order, whole numbers of 64 bits their
//! digits, doubles their value. Numbers over 64 bits become doubles, as they are in JavaScript. Where a native producer says what
//! JSON cannot, bytes become base64 text, and NaN and the infinities become null.

use std::{borrow::Cow, fmt};

use base64::{Engine, prelude::BASE64_STANDARD};
use firsthop_core::{Campaign, Context, Error, List, Properties, PropertiesWriter, Screen, Value};
use serde::{
    Serialize, Serializer,
    de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap, SerializeSeq},
};

use crate::Refusal;

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
    read_as(json, Place::Under(key), writer)
}

/// Writes the entries of a JSON object into the map that is open. After an error as [`read`].
///
/// # Errors
/// As [`read`]; [`Refusal::Json`] if it is no object.
pub fn read_entries<B: AsRef<[u8]> + AsMut<[u8]>>(json: &str, writer: &mut PropertiesWriter<B>) -> Result<(), Refusal> {
    read_as(json, Place::Here, writer)
}

fn read_as<B: AsRef<[u8]> + AsMut<[u8]>>(
    json: &str,
    place: Place<'_>,
    writer: &mut PropertiesWriter<B>,
) -> Result<(), Refusal> {
    let mut failed = None;
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let read = Put { place, writer, failed: &mut failed }.deserialize(&mut deserializer);
    match (read.and_then(|()| deserializer.end()), failed) {
        // What the writer could not take, the body has too much of: the buffers are as large as an event may be.
        (_, Some(Error::BufferFull)) => Err(Error::TooLarge.into()),
        (_, Some(error)) => Err(error.into()),
        (Err(_), None) => Err(Refusal::Json),
        (Ok(()), None) => Ok(()),
    }
}

/// Where a value goes.
#[derive(Clone, Copy)]
enum Place<'k> {
    /// Under a key, or as an item.
    Under(Option<&'k str>),
    /// It is an object, and its entries go into the map that is open.
    Here,
}

/// Writes what it visits, without building a tree. The writer bounds the depth, so recursion is bounded too.
struct Put<'k, 'w, B> {
    place: Place<'k>,
    writer: &'w mut PropertiesWriter<B>,
    /// serde's errors are text: what the writer said is kept here.
    failed: &'w mut Option<Error>,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Put<'_, '_, B> {
    fn run<E: de::Error>(
        &mut self,
        write: impl FnOnce(&mut PropertiesWriter<B>, Option<&str>) -> Result<(), Error>,
    ) -> Result<(), E> {
        let Place::Under(key) = self.place else { return Err(E::custom("not an object")) };
        write(self.writer, key).map_err(|error| self.fail(error))
    }

    fn fail<E: de::Error>(&mut self, error: Error) -> E {
        *self.failed = Some(error);
        E::custom(error)
    }

    fn scalar<E: de::Error>(mut self, value: Value<'_>) -> Result<(), E> {
        self.run(|writer, key| match key {
            Some(key) => writer.put(key, value),
            None => writer.push(value),
        })
    }
}

impl<'de, B: AsRef<[u8]> + AsMut<[u8]>> DeserializeSeed<'de> for Put<'_, '_, B> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, B: AsRef<[u8]> + AsMut<[u8]>> Visitor<'de> for Put<'_, '_, B> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.scalar(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        self.scalar(Value::Bool(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.scalar(Value::U64(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.scalar(Value::I64(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.scalar(Value::F64(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        self.scalar(Value::Str(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.run(|writer, key| writer.begin_list(key))?;
        while items
            .next_element_seed(Put { place: Place::Under(None), writer: self.writer, failed: self.failed })?
            .is_some()
        {}
        self.writer.end().map_err(|error| self.fail(error))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        let nested = matches!(self.place, Place::Under(_));
        if nested {
            self.run(|writer, key| writer.begin_map(key))?;
        }
        while let Some(key) = entries.next_key_seed(Text)? {
            let place = Place::Under(Some(&key));
            entries.next_value_seed(Put { place, writer: self.writer, failed: self.failed })?;
        }
        if nested { self.writer.end().map_err(|error| self.fail(error)) } else { Ok(()) }
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
