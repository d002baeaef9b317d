//! JSON of our own making → the structs that it fills, by a table of their fields.
//!
//! Code that is derived for each struct is a twelfth of an edge, which every point of presence loads cold; a table is a few bytes a field.
//! The server reads its TOML the same way, through JSON ([`deserialize`]), so that there is one list of a struct's fields.

use std::{borrow::Cow, fmt};

use base64::{Engine, prelude::BASE64_STANDARD};
use firsthop_core::{Region, RegionKeyId, TenantId, Timestamp};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    json,
    segment::members::{Members, items},
};

/// What a value may be read from.
pub trait Read: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong, and where.
    fn read(json: &str) -> Result<Self, Fault>;
}

/// What is wrong with a text, and the names that lead to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(String);

impl Fault {
    /// What is wrong with the value.
    #[must_use]
    pub fn new(what: &str) -> Self {
        Self(what.to_owned())
    }

    fn named(what: &str, name: &str) -> Self {
        Self([what, " `", name, "`"].concat())
    }

    fn within(self, name: &str) -> Self {
        Self([name, ": ", &self.0].concat())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

/// Where what is read goes.
pub trait Slot {
    /// Reads into it.
    ///
    /// # Errors
    /// As [`Read::read`].
    fn fill(&mut self, json: &str) -> Result<(), Fault>;
}

impl<T: Read> Slot for T {
    fn fill(&mut self, json: &str) -> Result<(), Fault> {
        *self = T::read(json)?;
        Ok(())
    }
}

/// A field: its name, whether it must be there, and where it goes.
#[allow(missing_debug_implementations, reason = "nobody keeps one")]
pub struct Field<'a>(&'static str, bool, &'a mut dyn Slot);

/// A field that has to be there.
pub fn needed<'a>(name: &'static str, slot: &'a mut dyn Slot) -> Field<'a> {
    Field(name, true, slot)
}

/// A field that keeps its value if it is not there.
pub fn optional<'a>(name: &'static str, slot: &'a mut dyn Slot) -> Field<'a> {
    Field(name, false, slot)
}

/// What is done with a member that is none of the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// It is passed over: who wrote it may be newer.
    Skipped,
    /// It is a fault: what it asks for would not be done.
    Refused,
}

/// Fills at most 32 fields from an object.
///
/// # Errors
/// The first fault.
pub fn fill(json: &str, others: Others, fields: &mut [Field<'_>]) -> Result<(), Fault> {
    let members = Members::cut(json).map_err(|_| Fault::new("not an object"))?;
    let mut seen = 0_u32;
    for (name, json) in &members.0 {
        let Some(at) = fields.iter().position(|field| field.0 == name) else {
            match others {
                Others::Skipped => continue,
                Others::Refused => return Err(Fault::named("unknown field", name)),
            }
        };
        if seen & 1 << at != 0 {
            return Err(Fault::named("twice the field", name));
        }
        seen |= 1 << at;
        fields[at].2.fill(json).map_err(|fault| fault.within(name))?;
    }
    match fields.iter().enumerate().find(|(at, field)| field.1 && seen & 1 << at == 0) {
        Some((_, field)) => Err(Fault::named("missing field", field.0)),
        None => Ok(()),
    }
}

/// An object without a member. None of ours has a name that is written with escapes; such a one is left out, too.
#[must_use]
pub fn without(json: &str, name: &str) -> Option<String> {
    let mut rest = String::with_capacity(json.len());
    for (own, value) in &Members::cut(json).ok()?.0 {
        if own != name && matches!(own, Cow::Borrowed(_)) {
            for part in [if rest.is_empty() { "{\"" } else { ",\"" }, own, "\":", value] {
                rest.push_str(part);
            }
        }
    }
    rest.push_str(if rest.is_empty() { "{}" } else { "}" });
    Some(rest)
}

/// Reads one of a few words.
///
/// # Errors
/// That it is none of them.
pub fn word<T: Copy>(json: &str, words: &[(&str, T)]) -> Result<T, Fault> {
    let text = text(json)?;
    match words.iter().find(|(word, _)| *word == text) {
        Some(&(_, value)) => Ok(value),
        None => Err(Fault::named("unknown variant", &text)),
    }
}

/// Reads what another format holds, as JSON would.
///
/// # Errors
/// As the deserialiser, and as [`Read::read`].
pub fn deserialize<'de, T: Read, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let tree = serde_json::Value::deserialize(deserializer)?;
    T::read(&tree.to_string()).map_err(D::Error::custom)
}

/// Gives structs whose every field has a default a [`Read`] of the fields that are named.
macro_rules! fields {
    ($($struct:ty { $($field:ident),+ $(,)? })+) => {$(
        impl $crate::fields::Read for $struct {
            fn read(json: &str) -> Result<Self, $crate::fields::Fault> {
                let mut value = Self::default();
                let fields = &mut [$($crate::fields::optional(stringify!($field), &mut value.$field)),+];
                $crate::fields::fill(json, $crate::fields::Others::Refused, fields)?;
                Ok(value)
            }
        }
    )+};
}

/// Gives an enum a [`Read`] of its variants' names.
macro_rules! words {
    ($($enum:ident { $($variant:ident = $word:literal),+ $(,)? })+) => {$(
        impl $crate::fields::Read for $enum {
            fn read(json: &str) -> Result<Self, $crate::fields::Fault> {
                $crate::fields::word(json, &[$(($word, Self::$variant)),+])
            }
        }
    )+};
}

/// Gives types that have a [`Read`] the `Deserialize` that goes through it.
macro_rules! deserialised {
    ($($type:ty),+ $(,)?) => {$(
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::fields::deserialize(deserializer)
            }
        }
    )+};
}

pub(crate) use {deserialised, fields, words};

fn text(json: &str) -> Result<Cow<'_, str>, Fault> {
    json::text(json).ok_or_else(|| Fault::new("not a text"))
}

/// What a text says.
pub(crate) fn parsed<T: std::str::FromStr>(json: &str, what: &str) -> Result<T, Fault> {
    text(json)?.parse().map_err(|_| Fault::new(what))
}

/// JSON as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw(pub String);

impl Read for Raw {
    fn read(json: &str) -> Result<Self, Fault> {
        Ok(Self(json.to_owned()))
    }
}

impl Read for String {
    fn read(json: &str) -> Result<Self, Fault> {
        text(json).map(Into::into)
    }
}

impl Read for bool {
    fn read(json: &str) -> Result<Self, Fault> {
        match json {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(Fault::new("not true or false")),
        }
    }
}

impl Read for u64 {
    fn read(json: &str) -> Result<Self, Fault> {
        json.parse().map_err(|_| Fault::new("not a whole number that fits"))
    }
}

impl Read for u32 {
    fn read(json: &str) -> Result<Self, Fault> {
        u64::read(json)?.try_into().map_err(|_| Fault::new("not a whole number that fits"))
    }
}

impl<T: Read> Read for Option<T> {
    fn read(json: &str) -> Result<Self, Fault> {
        if json == "null" { Ok(None) } else { T::read(json).map(Some) }
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(json: &str) -> Result<Self, Fault> {
        items(json).map_err(|_| Fault::new("not a list"))?.into_iter().map(T::read).collect()
    }
}

/// So many bytes in base64.
impl<const N: usize> Read for [u8; N] {
    fn read(json: &str) -> Result<Self, Fault> {
        let bytes = BASE64_STANDARD.decode(&*text(json)?).ok();
        bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| Fault::new("not as many bytes in base64"))
    }
}

impl Read for Timestamp {
    fn read(json: &str) -> Result<Self, Fault> {
        u64::read(json).map(Self::from_millis)
    }
}

impl Read for RegionKeyId {
    fn read(json: &str) -> Result<Self, Fault> {
        u32::read(json).map(Self::new)
    }
}

impl Read for Region {
    fn read(json: &str) -> Result<Self, Fault> {
        parsed(json, "a region is two capital letters")
    }
}

impl Read for TenantId {
    fn read(json: &str) -> Result<Self, Fault> {
        parsed(json, "not the id of a tenant")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct Some {
        a: u32,
        b: Vec<String>,
        c: Option<bool>,
    }

    fields! { Some { a, b, c } }

    #[test]
    fn what_stands_in_a_text_and_what_is_wrong_with_one() {
        let some = |a, b: &[&str], c| Ok(Some { a, b: b.iter().map(|&b| b.into()).collect(), c });
        for (json, expected) in [
            ("{}", some(0, &[], None)),
            (r#"{"c":null}"#, some(0, &[], None)),
            (" {\"b\" : [ \"x\\u0041\" , \"\" ],\n\"a\": 7, \"c\":false} ", some(7, &["xA", ""], Option::Some(false))),
            (r#"{"a":4294967296}"#, Err("a: not a whole number that fits")),
            (r#"{"a":1.0}"#, Err("a: not a whole number that fits")),
            (r#"{"a":-1}"#, Err("a: not a whole number that fits")),
            (r#"{"a":null}"#, Err("a: not a whole number that fits")),
            (r#"{"b":null}"#, Err("b: not a list")),
            (r#"{"b":[1]}"#, Err("b: not a text")),
            (r#"{"c":0}"#, Err("c: not true or false")),
            (r#"{"d":0}"#, Err("unknown field `d`")),
            (r#"{"a":1,"a":1}"#, Err("twice the field `a`")),
            (r#"{"a":1"#, Err("not an object")),
            (r#"{"a":1} x"#, Err("not an object")),
            ("[]", Err("not an object")),
            ("null", Err("not an object")),
        ] {
            assert_eq!(Some::read(json).map_err(|fault| fault.0), expected.map_err(str::to_owned), "{json}");
        }
        let (mut a, mut b) = (0_u32, [0_u8; 3]);
        let mut read = |json| fill(json, Others::Skipped, &mut [needed("a", &mut a), needed("b", &mut b)]);
        assert_eq!(read(r#"{"a":1,"b":"AQID","c":{}}"#), Ok(()));
        assert_eq!(read(r#"{"a":1}"#), Err(Fault::new("missing field `b`")));
        assert_eq!(read(r#"{"a":1,"b":"AQI="}"#), Err(Fault::new("b: not as many bytes in base64")));
        assert_eq!((a, b), (1, [1, 2, 3]));
    }

    #[test]
    fn an_object_without_a_member_is_the_rest_of_it_as_it_stands() {
        for (json, rest) in [
            (r#"{"a":{"b":[1, 2]},"b":[{"c":"}\""}],"d":"\u0041"}"#, r#"{"a":{"b":[1, 2]},"d":"\u0041"}"#),
            (r#"{"b":1}"#, "{}"),
            (r#" { "b" : 1 , "a" : 2 , "b" : 3 } "#, r#"{"a":2}"#),
            (r#"{"a\n":1,"c":null}"#, r#"{"c":null}"#),
            ("{}", "{}"),
        ] {
            assert_eq!(without(json, "b").as_deref(), Option::Some(rest), "{json}");
        }
        for json in ["[]", "", r#"{"a":1"#, r#"{"a":1} x"#] {
            assert_eq!(without(json, "b"), None, "{json}");
        }
    }
}
