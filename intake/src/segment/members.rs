//! The members of a JSON object, each as it stands: cut apart once, parsed where it is known what they are.

use std::borrow::Cow;

use firsthop_core::{Error, limits::MAX_VALUES};
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::{
    Problem, Refusal,
    json::{Text, refuse_others},
};

/// Most members of a message or of its context. Those without a field of their own are values of one event, so that twice as many
/// are more than it can hold.
const MAX_MEMBERS: usize = 2 * MAX_VALUES;

/// The members of an object, in order; a name may stand more than once. Values are JSON that is well-formed but for what
/// only shows when it is read: numbers out of range, bad escapes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Members<'a>(pub(crate) Vec<(Cow<'a, str>, &'a str)>);

impl<'a> Members<'a> {
    /// Cuts an object apart.
    pub(crate) fn parse(json: &'a str) -> Option<Self> {
        if is_nothing(json) { Some(Self::default()) } else { Self::cut(json).ok() }
    }

    /// The same, and only of what is an object.
    ///
    /// # Errors
    /// What is wrong with the JSON.
    pub(crate) fn cut(json: &'a str) -> Result<Self, serde_json::Error> {
        whole(json, Cut).map(Self)
    }

    /// The value of a member, if it is there.
    ///
    /// # Errors
    /// [`Refusal::Json`] if it is there twice: which of them is meant, nobody knows.
    pub(crate) fn get(&self, name: &str) -> Result<Option<&'a str>, Problem> {
        let mut found = self.0.iter().filter(|(key, _)| key == name).map(|&(_, value)| value);
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(malformed(format!("`{name}` stands twice"))),
            (value, None) => Ok(value),
        }
    }

    /// The value of a member, which is no longer among the others then.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(crate) fn take(&mut self, name: &str) -> Result<Option<&'a str>, Problem> {
        let value = self.get(name)?;
        if value.is_some() {
            self.0.retain(|(key, _)| key != name);
        }
        Ok(value)
    }

    /// Adds those of `other` whose names do not stand here.
    pub(crate) fn or(&mut self, other: &Self) {
        // Not each name against all others, which a sender could make us spend seconds on; and no hash table, whose keys are
        // no secret where the platform has no randomness.
        let mut own: Vec<&str> = self.0.iter().map(|(key, _)| &**key).collect();
        own.sort_unstable();
        let is_missing = |key: &str| own.binary_search(&key).is_err();
        let missing: Vec<_> = other.0.iter().filter(|(key, _)| is_missing(key)).cloned().collect();
        self.0.extend(missing);
    }

    /// Checks that there are not more members than could be stored anyway, before any work is done for each.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub(crate) fn check_count(&self) -> Result<(), Problem> {
        if self.0.len() <= MAX_MEMBERS {
            return Ok(());
        }
        Err(Problem::new(Error::TooLarge).with_detail(format!("more than {MAX_MEMBERS} members")))
    }

    /// Bytes of JSON in names and values.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|(key, value)| key.len() + value.len() + 4).sum()
    }
}

/// The items of a list, each as it stands.
///
/// # Errors
/// What is wrong with the JSON.
pub(crate) fn items(json: &str) -> Result<Vec<&str>, serde_json::Error> {
    whole(json, Items)
}

/// Reads all of a text. By way of `deserialize_any`: the other ways say what stands there instead, and can say it of numbers, for which
/// they bring six kilobytes of tables.
fn whole<'a, V: Visitor<'a>>(json: &'a str, visitor: V) -> Result<V::Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let value = deserializer.deserialize_any(visitor)?;
    deserializer.end().map(|()| value)
}

struct Cut;

impl<'de> Visitor<'de> for Cut {
    type Value = Vec<(Cow<'de, str>, &'de str)>;

    refuse_others!("an object is expected" unit bool numbers text list);

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(key) = map.next_key_seed(Text)? {
            members.push((key, map.next_value::<&'de RawValue>()?.get()));
        }
        Ok(members)
    }
}

struct Items;

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de str>;

    refuse_others!("a list is expected" unit bool numbers text map);

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<&'de RawValue>()? {
            items.push(item.get());
        }
        Ok(items)
    }
}

/// Whether it is an object without members in disguise: `null` is what SDKs send for nothing, `[]` what PHP makes of an
/// empty array.
pub(crate) fn is_nothing(json: &str) -> bool {
    let list = json.strip_prefix('[').and_then(|json| json.strip_suffix(']'));
    json == "null" || list.is_some_and(|items| items.trim_ascii().is_empty())
}

/// [`Refusal::Json`], saying what is wrong.
pub(crate) fn malformed(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(Refusal::Json).with_detail(detail)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn object(names: impl Iterator<Item = usize>) -> String {
        let members: Vec<_> = names.map(|n| format!(r#""{n}":{n}"#)).collect();
        format!("{{{}}}", members.join(","))
    }

    #[test]
    fn what_is_there_stays() {
        let mut members = Members::parse(r#"{"a":1,"b":2,"a":3}"#).unwrap();
        members.or(&Members::parse(r#"{"b":4,"c":5,"c":6,"a":7}"#).unwrap());
        let names: Vec<_> = members.0.iter().map(|(name, value)| (&**name, *value)).collect();
        assert_eq!(names, [("a", "1"), ("b", "2"), ("a", "3"), ("c", "5"), ("c", "6")]);
    }

    /// Each against each is ten thousand million comparisons: minutes, where this takes a fraction of a second.
    #[test]
    fn many_members_meet_many_without_each_meeting_each() {
        let (own, other) = (object(0..100_000), object(100_000..200_000));
        let (mut own, other) = (Members::parse(&own).unwrap(), Members::parse(&other).unwrap());
        let began = Instant::now();
        own.or(&other);
        assert_eq!(own.0.len(), 200_000);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}
