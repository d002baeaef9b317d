//! The shape of a tenant's events: which properties come with which types, under which names, since when and how often.
//!
//! ```text
//! journal.db ──► observer (one thread, a twentieth of a processor) ──► Shapes ──► schema.db ──► `firsthop schema`
//!                                                                        └─ another type than before: a metric, a line
//! ```
//!
//! It reads what is committed, behind everybody's back: no acknowledgement and no sink waits for it. Where more comes than its share of
//! the processor can read, it looks at a part, evenly spread, and counts the frames that it passed over. What it knows is derived and
//! bounded: over a bound it counts, and learns nothing new.
//!
//! Names and paths are kept, values never.

mod observer;
mod store;

use std::collections::HashMap;

use firsthop_core::{Event, EventKind, Properties, Value};

pub(crate) use self::observer::{Watched, watch};
#[cfg(feature = "cli")]
pub(crate) use self::store::read;

/// Names of a tenant.
const NAMES: usize = 200;
/// Properties under one name.
const PATHS: usize = 200;
/// Longest name or path, in bytes.
const LENGTH: usize = 160;
/// How deep it looks into maps and lists.
const DEPTH: usize = 4;

/// What type a property had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Type {
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Bytes,
    Array,
    Object,
}

impl Type {
    pub(crate) const ALL: [Self; 8] =
        [Self::Null, Self::Boolean, Self::Integer, Self::Number, Self::String, Self::Bytes, Self::Array, Self::Object];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Array => "array",
            Self::Object => "object",
        }
    }

    fn of(value: &Value<'_>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Boolean,
            Value::U64(_) | Value::I64(_) => Self::Integer,
            Value::F64(_) => Self::Number,
            Value::Str(_) => Self::String,
            Value::Bytes(_) => Self::Bytes,
            Value::List(_) => Self::Array,
            Value::Map(_) => Self::Object,
        }
    }

    /// Whether one after the other is a change. 18 and 18.99 are prices both, and what is not there has no type.
    pub(crate) fn contradicts(self, other: Self) -> bool {
        let number = |this: Self| matches!(this, Self::Integer | Self::Number);
        self != other && self != Self::Null && other != Self::Null && !(number(self) && number(other))
    }
}

/// When something was seen, and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) first_ms: i64,
    pub(crate) last_ms: i64,
    /// Events, each once.
    pub(crate) events: u64,
    /// The last event that counted.
    stamp: u64,
    /// Not written yet.
    changed: bool,
}

impl Seen {
    fn note(&mut self, now_ms: i64, stamp: u64) {
        if self.events == 0 {
            (self.first_ms, self.last_ms) = (now_ms, now_ms);
        }
        if self.events == 0 || self.stamp != stamp {
            self.events += 1;
        }
        (self.first_ms, self.last_ms) = (self.first_ms.min(now_ms), self.last_ms.max(now_ms));
        (self.stamp, self.changed) = (stamp, true);
    }
}

/// A property by its types.
pub(crate) type Types = [Seen; Type::ALL.len()];

/// What is known of one name.
#[derive(Debug, Default)]
pub(crate) struct Named {
    pub(crate) seen: Seen,
    pub(crate) paths: HashMap<Box<str>, Types>,
}

/// What was over a bound, in events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overflow {
    /// Of a name that is one too many, or too long.
    pub(crate) names: u64,
    /// With a property that is one too many under its name, too long, or too deep.
    pub(crate) paths: u64,
}

/// A property that came as another type than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) name: String,
    pub(crate) path: String,
    /// The types that were known.
    pub(crate) before: Vec<Type>,
    pub(crate) now: Type,
}

/// All that is known of a tenant's events.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    /// By kind.
    names: [HashMap<Box<str>, Named>; EventKind::ALL.len()],
    overflow: Overflow,
    stamp: u64,
    path: String,
}

impl Shapes {
    /// How many names are known.
    fn len(&self) -> usize {
        self.names.iter().map(HashMap::len).sum()
    }

    /// Every name, in order, with what is known of it.
    pub(crate) fn each(&self) -> impl Iterator<Item = (EventKind, &str, &Named)> {
        let kinds = EventKind::ALL.into_iter().zip(&self.names);
        kinds.flat_map(|(kind, names)| names.iter().map(move |(name, named)| (kind, &**name, named)))
    }

    /// Those that are not written as they are.
    fn changed(&self) -> impl Iterator<Item = (EventKind, &str, &Named)> {
        self.each().filter(|(_, _, named)| named.seen.changed)
    }

    /// All of it is written.
    fn saved(&mut self) {
        for named in self.names.iter_mut().flat_map(HashMap::values_mut).filter(|named| named.seen.changed) {
            named.seen.changed = false;
            named.paths.values_mut().flatten().for_each(|seen| seen.changed = false);
        }
    }

    /// Looks at an event, and says what changed with it.
    fn observe(&mut self, event: &Event<'_>, now_ms: i64, changes: &mut Vec<Change>) {
        // Of these the name is an id of a group or of a person.
        let name = if matches!(event.kind, EventKind::Group | EventKind::Alias) { "" } else { event.name };
        self.stamp += 1;
        let full = self.len() >= NAMES || name.len() > LENGTH;
        let names = &mut self.names[event.kind as usize];
        let named = match names.get_mut(name) {
            Some(named) => named,
            None if full => {
                self.overflow.names += 1;
                return;
            }
            None => names.entry(name.into()).or_default(),
        };
        named.seen.note(now_ms, self.stamp);
        self.path.clear();
        let mut look = Look { name, named, path: &mut self.path, now_ms, stamp: self.stamp, over: false, changes };
        look.map(event.properties, 1);
        self.overflow.paths += u64::from(look.over);
    }
}

/// One event, being looked at.
struct Look<'a> {
    name: &'a str,
    named: &'a mut Named,
    path: &'a mut String,
    now_ms: i64,
    stamp: u64,
    over: bool,
    changes: &'a mut Vec<Change>,
}

impl Look<'_> {
    fn map(&mut self, map: Properties<'_>, depth: usize) {
        let from = self.path.len();
        for (key, value) in map {
            if from > 0 {
                self.path.push('.');
            }
            self.path.push_str(key);
            self.value(&value, depth);
            self.path.truncate(from);
        }
    }

    fn value(&mut self, value: &Value<'_>, depth: usize) {
        if !self.note(Type::of(value)) {
            self.over = true;
            return;
        }
        let from = self.path.len();
        match *value {
            Value::Map(map) if map.is_empty() => {}
            Value::Map(_) | Value::List(_) if depth == DEPTH => self.over = true,
            Value::Map(map) => self.map(map, depth + 1),
            Value::List(list) => {
                self.path.push_str("[]");
                for item in list {
                    self.value(&item, depth + 1);
                }
                self.path.truncate(from);
            }
            _ => {}
        }
    }

    /// False: that is over a bound.
    fn note(&mut self, now: Type) -> bool {
        if self.path.len() > LENGTH {
            return false;
        }
        let full = self.named.paths.len() >= PATHS;
        let types = match self.named.paths.get_mut(self.path.as_str()) {
            Some(types) => types,
            None if full => return false,
            None => self.named.paths.entry(self.path.as_str().into()).or_default(),
        };
        if types[now as usize].events == 0 {
            let known = |kind: &Type| types[*kind as usize].events > 0;
            let before: Vec<Type> = Type::ALL.into_iter().filter(known).collect();
            if before.iter().any(|before| before.contradicts(now)) {
                self.changes.push(Change { name: self.name.into(), path: self.path.clone(), before, now });
            }
        }
        types[now as usize].note(self.now_ms, self.stamp);
        true
    }
}

#[cfg(test)]
mod tests {
    use firsthop_core::PropertiesWriter;
    use firsthop_intake::json;
    use proptest::prelude::*;

    use super::*;

    /// Looks at an event whose properties are given as JSON, and says what changed.
    fn look(shapes: &mut Shapes, kind: EventKind, name: &str, object: &str) -> Vec<Change> {
        let mut writer = PropertiesWriter::new(vec![0; 32 << 10], vec![0; 32 << 10]);
        json::read_entries(object, &mut writer).expect("an object");
        let event = Event { kind, name, properties: writer.finish().expect("closed"), ..Event::default() };
        let mut changes = Vec::new();
        let now_ms = 1000 + shapes.stamp as i64;
        shapes.observe(&event, now_ms, &mut changes);
        changes
    }

    fn track(shapes: &mut Shapes, object: &str) -> Vec<Change> {
        look(shapes, EventKind::Track, "Viewed", object)
    }

    /// `path type events`, in order.
    fn told(shapes: &Shapes) -> Vec<String> {
        let mut told = Vec::new();
        for (_, _, named) in shapes.each() {
            for (path, types) in &named.paths {
                let known = Type::ALL.iter().zip(types).filter(|(_, seen)| seen.events > 0);
                told.extend(known.map(|(of, seen)| format!("{path} {} {}", of.as_str(), seen.events)));
            }
        }
        told.sort_unstable();
        told
    }

    #[test]
    fn properties_are_told_with_their_types() {
        let mut shapes = Shapes::default();
        track(
            &mut shapes,
            r#"{"sku":"a","price":18,"size":{"w":1.5,"unit":{"short":"cm"}},"tags":["x","y",{"z":true}],"none":null}"#,
        );
        track(&mut shapes, r#"{"sku":"b","price":18.99,"empty":{},"list":[]}"#);
        assert_eq!(
            told(&shapes),
            [
                "empty object 1",
                "list array 1",
                "none null 1",
                "price integer 1",
                "price number 1",
                "size object 1",
                "size.unit object 1",
                "size.unit.short string 1",
                "size.w number 1",
                "sku string 2",
                "tags array 1",
                "tags[] object 1",
                "tags[] string 1",
                "tags[].z boolean 1",
            ]
        );
        let (_, _, named) = shapes.each().next().expect("a name");
        assert_eq!((named.seen.events, named.seen.first_ms, named.seen.last_ms), (2, 1000, 1001));
    }

    #[test]
    fn another_type_is_told_once() {
        let mut shapes = Shapes::default();
        assert_eq!(track(&mut shapes, r#"{"price":18,"sku":null}"#), []);
        assert_eq!(track(&mut shapes, r#"{"price":18.5,"sku":"a"}"#), [], "a number is a number, and null is no type");
        let [change] = &track(&mut shapes, r#"{"price":"18.99","sku":null}"#)[..] else { panic!("one change") };
        assert_eq!((&*change.path, change.now), ("price", Type::String));
        assert_eq!(change.before, [Type::Integer, Type::Number]);
        assert_eq!(track(&mut shapes, r#"{"price":"19"}"#), [], "it is known now");
        assert_eq!(look(&mut shapes, EventKind::Track, "Bought", r#"{"price":"19"}"#), [], "another event's price");
    }

    #[test]
    fn ids_are_no_names() {
        let mut shapes = Shapes::default();
        look(&mut shapes, EventKind::Group, "acme-inc", r#"{"plan":"pro"}"#);
        look(&mut shapes, EventKind::Alias, "ada@example.com", "{}");
        assert!(shapes.each().all(|(_, name, _)| name.is_empty()));
    }

    #[test]
    fn bounds_hold_and_are_counted() {
        let mut shapes = Shapes::default();
        for i in 0..NAMES + 7 {
            look(&mut shapes, EventKind::Track, &format!("event {i}"), "{}");
        }
        look(&mut shapes, EventKind::Page, &"n".repeat(LENGTH + 1), "{}");
        assert_eq!((shapes.len(), shapes.overflow.names), (NAMES, 8));
        // A known name is counted on.
        look(&mut shapes, EventKind::Track, "event 0", r#"{"a":{"b":{"c":{"d":{"e":1}}}}}"#);
        assert_eq!((shapes.overflow.names, shapes.overflow.paths), (8, 1), "too deep");
        assert!(
            told(&shapes).contains(&"a.b.c.d object 1".to_owned())
                && !told(&shapes).iter().any(|path| path.contains(".e"))
        );
        for i in 0..2 * PATHS {
            look(&mut shapes, EventKind::Track, "event 1", &format!(r#"{{"{}{i}":1}}"#, "k".repeat(i % 2 * LENGTH)));
        }
        let named = shapes.names[EventKind::Track as usize].get("event 1").expect("known");
        assert!(named.paths.len() <= PATHS && named.paths.keys().all(|path| path.len() <= LENGTH));
        assert_eq!(shapes.overflow.paths, 1 + PATHS as u64, "the long ones");
    }

    #[test]
    fn what_is_saved_is_what_is_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("schema.db");
        let file = store::File::open(&path).expect("opens");
        let mut shapes = Shapes::default();
        track(&mut shapes, r#"{"a":1,"b":[{"c":null}]}"#);
        look(&mut shapes, EventKind::Identify, "", r#"{"plan":"pro"}"#);
        let state = store::State { journal: 7, frame: 9, skipped: 2, overflow: Overflow { names: 3, paths: 4 } };
        file.save(&mut shapes, state).expect("saved");
        assert_eq!(shapes.changed().count(), 0);
        track(&mut shapes, r#"{"a":"x"}"#);
        file.save(&mut shapes, state).expect("saved");
        let (read, at) = read(&path).expect("reads").expect("there");
        assert_eq!((told(&read), at), (told(&shapes), state));
        let seen = |shapes: &Shapes| shapes.each().map(|(_, _, named)| (named.seen.events, named.seen.last_ms)).max();
        assert_eq!(seen(&read), seen(&shapes));
    }

    proptest! {
        /// Against a model that keeps every path with every type of every event.
        #[test]
        fn counts_are_those_of_a_plain_model(
            events in prop::collection::vec(prop::collection::vec((0..4_u8, 0..5_u8), 0..6), 1..20),
        ) {
            let mut shapes = Shapes::default();
            let mut model = std::collections::BTreeMap::<String, std::collections::BTreeSet<usize>>::new();
            for (i, event) in events.iter().enumerate() {
                let entries = event.iter().map(|(key, of)| {
                    let (value, of) =
                        [("1", "integer"), ("1.5", "number"), ("\"x\"", "string"), ("null", "null"), ("[]", "array")][usize::from(*of)];
                    model.entry(format!("p{key} {of}")).or_default().insert(i);
                    format!("\"p{key}\":{value}")
                });
                let object = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
                track(&mut shapes, &object);
            }
            let expected: Vec<_> = model.iter().map(|(path, events)| format!("{path} {}", events.len())).collect();
            prop_assert_eq!(told(&shapes), expected);
        }
    }
}
