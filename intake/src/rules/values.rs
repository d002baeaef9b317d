//! Which values of an event are kept, replaced by their hash, or left out.

use std::fmt::Write as _;

use firsthop_core::{Effects, Error, HashKey, List, Properties, PropertiesWriter, Value, limits::MAX_DEPTH};
use serde::Serialize;

use super::{RulesError, check_list, page::Urls};
use crate::fields::{fields, words};

/// Which values are kept. An entry names a value by the keys that lead to it, with dots between them: `customer.address.zip`; `*` is any
/// key, and what stands in lists counts as if it stood in their place. An entry means all that is below it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ValuesRule {
    /// Nothing but these. None: all.
    pub allow: Option<Vec<String>>,
    /// None of these.
    pub deny: Vec<String>,
    /// Of these a hash: each text and number below becomes 32 hexadecimal digits, the same for the same text.
    pub hash: Vec<String>,
}

/// What becomes of the ids that say who it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IdsRule {
    /// Of signed-in users.
    pub user: IdRule,
    /// Of visitors. The previous id of an `alias` is of either: the stricter of both holds for it.
    pub anonymous: IdRule,
}

/// What becomes of an id; the stricter is the greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdRule {
    /// It stays.
    #[default]
    Keep,
    /// Its hash stands in its place.
    Hash,
    /// It is left out.
    Remove,
}

fields! {
    ValuesRule { allow, deny, hash }
    IdsRule { user, anonymous }
}
words! { IdRule { Keep = "keep", Hash = "hash", Remove = "remove" } }

/// Bytes of a hash as text.
pub(super) const HASH: usize = 32;

/// A hash as text.
pub(super) fn hashed(key: &HashKey, value: &[u8]) -> String {
    key.hash(value).iter().fold(String::with_capacity(HASH), |mut text, byte| {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl ValuesRule {
    pub(super) fn check(&self, of: &'static str) -> Result<(), RulesError> {
        let at = |list: usize| match (of, list) {
            ("properties", 0) => "properties.allow",
            ("properties", 1) => "properties.deny",
            ("properties", _) => "properties.hash",
            ("traits", 0) => "traits.allow",
            ("traits", 1) => "traits.deny",
            ("traits", _) => "traits.hash",
            (_, 0) => "context.allow",
            (_, 1) => "context.deny",
            (..) => "context.hash",
        };
        let is_path = |path: &str| path.split('.').all(|key| !key.is_empty()) && path.split('.').count() <= MAX_DEPTH;
        let allow = self.allow.as_deref().unwrap_or_default();
        for (list, entries) in [allow, &self.deny, &self.hash].into_iter().enumerate() {
            check_list(at(list), entries, "names between dots, at most 8", is_path)?;
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.allow.is_none() && self.deny.is_empty() && self.hash.is_empty()
    }

    /// What becomes of the value that these keys lead to.
    fn decide(&self, path: &[&str], container: bool) -> Fate {
        let below = |list: &[String]| list.iter().any(|entry| leads(entry, path) == Some(Lead::Below));
        if below(&self.deny) {
            return Fate::Remove;
        }
        if let Some(allow) = &self.allow {
            let on_the_way = |entry: &String| match leads(entry, path) {
                Some(Lead::Below) => true,
                Some(Lead::Above) => container,
                None => false,
            };
            if !allow.iter().any(on_the_way) {
                return Fate::Remove;
            }
        }
        if below(&self.hash) { Fate::Hash } else { Fate::Keep }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Keep,
    Hash,
    Remove,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lead {
    /// The path is the entry's, or goes on from there.
    Below,
    /// The entry's goes on from the path.
    Above,
}

/// How an entry and a path stand to each other. None: they part.
fn leads(entry: &str, path: &[&str]) -> Option<Lead> {
    let mut keys = entry.split('.');
    for key in path {
        match keys.next() {
            None => return Some(Lead::Below),
            Some(wanted) if wanted == "*" || wanted == *key => {}
            Some(_) => return None,
        }
    }
    Some(if keys.next().is_none() { Lead::Below } else { Lead::Above })
}

/// Copies values by a rule. What may not be hashed, for want of room, is left out.
pub(super) struct Copier<'r> {
    pub(super) rule: &'r ValuesRule,
    pub(super) key: Option<&'r HashKey>,
    /// What is left of texts that are URLs.
    pub(super) urls: Urls<'r>,
    /// What was done.
    pub(super) effects: Effects,
}

impl Copier<'_> {
    /// Copies a block into a writer that is empty.
    pub(super) fn block<B>(&mut self, from: Properties<'_>, to: &mut PropertiesWriter<B>) -> Result<(), Error>
    where
        B: AsRef<[u8]> + AsMut<[u8]>,
    {
        self.entries(from, &mut Vec::new(), to)
    }

    fn entries<'a, B>(
        &mut self,
        from: Properties<'a>,
        path: &mut Vec<&'a str>,
        to: &mut PropertiesWriter<B>,
    ) -> Result<(), Error>
    where
        B: AsRef<[u8]> + AsMut<[u8]>,
    {
        for (key, value) in from {
            path.push(key);
            self.value(Some(key), value, path, to)?;
            path.pop();
        }
        Ok(())
    }

    fn items<'a, B>(
        &mut self,
        from: List<'a>,
        path: &mut Vec<&'a str>,
        to: &mut PropertiesWriter<B>,
    ) -> Result<(), Error>
    where
        B: AsRef<[u8]> + AsMut<[u8]>,
    {
        from.iter().try_for_each(|value| self.value(None, value, path, to))
    }

    /// `path` leads to the value; an item's is its list's. The core bounds the depth.
    fn value<'a, B>(
        &mut self,
        key: Option<&str>,
        value: Value<'a>,
        path: &mut Vec<&'a str>,
        to: &mut PropertiesWriter<B>,
    ) -> Result<(), Error>
    where
        B: AsRef<[u8]> + AsMut<[u8]>,
    {
        let fate = self.rule.decide(path, matches!(value, Value::Map(_) | Value::List(_)));
        match value {
            _ if fate == Fate::Remove => {
                self.effects = self.effects.with(Effects::REMOVED);
                Ok(())
            }
            Value::Map(map) => {
                to.begin_map(key)?;
                self.entries(map, path, to)?;
                to.end()
            }
            Value::List(list) => {
                to.begin_list(key)?;
                self.items(list, path, to)?;
                to.end()
            }
            Value::Str(text) if fate == Fate::Keep => {
                to.write(key, Value::Str(&self.urls.in_text(text, &mut self.effects)))
            }
            _ if fate == Fate::Keep => to.write(key, value),
            Value::Str(text) => self.hash(key, text.as_bytes(), to),
            Value::Bytes(bytes) => self.hash(key, bytes, to),
            Value::U64(number) => self.hash(key, number.to_string().as_bytes(), to),
            Value::I64(number) => self.hash(key, number.to_string().as_bytes(), to),
            Value::F64(number) => self.hash(key, number.to_string().as_bytes(), to),
            // One of two says nothing when it is hashed, and as much.
            Value::Null | Value::Bool(_) => to.write(key, value),
        }
    }

    fn hash<B>(&mut self, key: Option<&str>, value: &[u8], to: &mut PropertiesWriter<B>) -> Result<(), Error>
    where
        B: AsRef<[u8]> + AsMut<[u8]>,
    {
        let Some(hash_key) = self.key else {
            self.effects = self.effects.with(Effects::REMOVED);
            return Ok(());
        };
        self.effects = self.effects.with(Effects::HASHED);
        to.write(key, Value::Str(&hashed(hash_key, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{Json, read_entries, to_string};

    fn list(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|&entry| entry.into()).collect()
    }

    /// What is left, with each hash as `#`.
    fn copied(rule: &ValuesRule, key: Option<&HashKey>, json: &str) -> (String, Effects) {
        let writer = || PropertiesWriter::new(vec![0; 4096], vec![0; 4096]);
        let (mut from, mut to) = (writer(), writer());
        read_entries(json, &mut from).expect("JSON");
        let urls = Urls { bare: false, cut: None };
        let mut copier = Copier { rule, key, urls, effects: Effects::default() };
        copier.block(from.finish().expect("whole"), &mut to).expect("copied");
        let mut text = to_string(Json(to.finish().expect("whole")));
        while let Some(at) = text.as_bytes().windows(32).position(|text| text.iter().all(u8::is_ascii_hexdigit)) {
            text.replace_range(at..at + 32, "#");
        }
        (text, copier.effects)
    }

    #[test]
    fn lists_of_values() {
        let key = HashKey::new([1; 32]);
        let json = r#"{"a":1,"b":{"c":"x","d":{"e":2}},"l":[{"c":3,"d":4},{"c":5},6],"n":null,"t":true}"#;
        let removed = Effects::REMOVED;
        for (allow, deny, hash, expected, effects) in [
            (None, &[][..], &[][..], json, Effects::default()),
            (None, &["x", "a.b", "b.x"], &[], json, Effects::default()),
            (None, &["a", "b.d"], &[], r#"{"b":{"c":"x"},"l":[{"c":3,"d":4},{"c":5},6],"n":null,"t":true}"#, removed),
            (None, &["*.c"], &[], r#"{"a":1,"b":{"d":{"e":2}},"l":[{"d":4},{},6],"n":null,"t":true}"#, removed),
            (None, &["*"], &[], "{}", removed),
            (Some(&["a", "b.d"][..]), &[], &[], r#"{"a":1,"b":{"d":{"e":2}}}"#, removed),
            (Some(&["l.c"]), &[], &[], r#"{"l":[{"c":3},{"c":5}]}"#, removed),
            (Some(&["b"]), &["b.c"], &[], r#"{"b":{"d":{"e":2}}}"#, removed),
            (Some(&[]), &[], &[], "{}", removed),
            (
                None,
                &[],
                &["a", "t", "n"],
                r##"{"a":"#","b":{"c":"x","d":{"e":2}},"l":[{"c":3,"d":4},{"c":5},6],"n":null,"t":true}"##,
                Effects::HASHED,
            ),
            (
                None,
                &["l"],
                &["b"],
                r##"{"a":1,"b":{"c":"#","d":{"e":"#"}},"n":null,"t":true}"##,
                removed.with(Effects::HASHED),
            ),
            (
                None,
                &[],
                &["l"],
                r##"{"a":1,"b":{"c":"x","d":{"e":2}},"l":[{"c":"#","d":"#"},{"c":"#"},"#"],"n":null,"t":true}"##,
                Effects::HASHED,
            ),
        ] {
            let rule = ValuesRule { allow: allow.map(list), deny: list(deny), hash: list(hash) };
            assert_eq!(copied(&rule, Some(&key), json), (expected.to_owned(), effects), "{rule:?}");
        }
        // Without a key nothing stays that was to be hashed.
        let rule = ValuesRule { hash: list(&["b"]), ..ValuesRule::default() };
        assert_eq!(copied(&rule, None, r#"{"b":"x","c":1}"#), (r#"{"c":1}"#.to_owned(), removed));
    }

    #[test]
    fn a_hash_is_the_same_for_the_same() {
        let key = HashKey::new([1; 32]);
        assert_eq!(hashed(&key, b"ada@example.com").len(), HASH);
        assert_eq!(hashed(&key, b"1"), hashed(&HashKey::new([1; 32]), b"1"));
        assert_ne!(hashed(&key, b"1"), hashed(&key, b"2"));
        assert_ne!(hashed(&key, b"1"), hashed(&HashKey::new([2; 32]), b"1"));
    }
}
