//! An event's properties: an encoded block with a writer and an iterator.
//!
//! A block is two postcard values: `text` (every key and string, one after the other) and `shape` (tags, lengths,
//! numbers). So one UTF-8 check covers all text of an event, where a check per string would cost more than the rest of
//! decoding. Byte by byte in `docs/wire-format.md` §6.

use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    Error,
    codec::{Reader, Writer},
    limits::{MAX_DEPTH, MAX_EVENT, MAX_VALUES},
};

mod writer;

pub use writer::PropertiesWriter;

mod tag {
    pub(super) const NULL: u8 = 0;
    pub(super) const FALSE: u8 = 1;
    pub(super) const TRUE: u8 = 2;
    pub(super) const U64: u8 = 3;
    pub(super) const I64: u8 = 4;
    pub(super) const F64: u8 = 5;
    pub(super) const STR: u8 = 6;
    pub(super) const BYTES: u8 = 7;
    pub(super) const LIST: u8 = 8;
    pub(super) const MAP: u8 = 9;
    pub(super) const END: u8 = 10;
}

/// An encoded map of properties, borrowed. Always well-formed: whoever makes one has checked it.
///
/// Two are equal if they are encoded alike: the same entries in the same order.
#[derive(Clone, Copy)]
pub struct Properties<'a> {
    text: Text<'a>,
    shape: &'a [u8],
}

/// One value of a property.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Null.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number from 0.
    U64(u64),
    /// A whole number; the reader gives this for negative ones only, the writer takes any.
    I64(i64),
    /// A double; NaN and the infinities travel as they are.
    F64(f64),
    /// Text.
    Str(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A list of values.
    List(List<'a>),
    /// A nested map.
    Map(Properties<'a>),
}

/// An encoded list of values, borrowed. Always well-formed: it comes out of [`Properties`].
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct List<'a> {
    text: &'a str,
    shape: &'a [u8],
}

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Self = Self { text: Text::Checked(""), shape: &[] };

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.shape.is_empty()
    }

    /// The entries, in the order in which they were written. A key may come twice.
    #[must_use]
    #[inline]
    pub const fn iter(&self) -> Entries<'a> {
        Entries(Walk { text: self.text.as_str(), reader: Reader::new(self.shape) })
    }

    /// The first value under a key. Linear: an event has a handful of properties.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.iter().find_map(|(k, value)| (k == key).then_some(value))
    }

    #[inline]
    pub(crate) fn encode(&self, writer: &mut Writer<'_>) -> Result<(), Error> {
        // In this order also because a writer's last stores are into the shape: by the time that the text is copied,
        // they have reached the cache.
        writer.bytes(self.text.as_bytes())?;
        writer.bytes(self.shape)
    }

    #[inline(always)]
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Result<Self, Error> {
        let (text, shape) = (reader.str()?, reader.bytes()?);
        check(text, shape)?;
        Ok(Self { text: Text::Checked(text), shape })
    }
}

/// Checks tags, lengths, nesting and bounds of a whole block.
#[inline]
fn check(text: &str, shape: &[u8]) -> Result<(), Error> {
    if text.len() + shape.len() > MAX_EVENT {
        return Err(Error::TooLarge);
    }
    let mut walk = Walk { text, reader: Reader::new(shape) };
    let flat = walk.skip_flat();
    if walk.reader.is_empty() && walk.text.is_empty() && flat <= MAX_VALUES {
        return Ok(());
    }
    check_rest(walk, flat)
}

/// After so many values that were checked.
#[inline(never)]
fn check_rest(mut walk: Walk<'_>, values: usize) -> Result<(), Error> {
    let size = walk.skip_all(true)?;
    if values + size.values > MAX_VALUES {
        return Err(Error::TooLarge);
    }
    if walk.text.is_empty() { Ok(()) } else { Err(Error::Payload) }
}

impl Default for Properties<'_> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl PartialEq for Properties<'_> {
    fn eq(&self, other: &Self) -> bool {
        (self.text.as_bytes(), self.shape) == (other.text.as_bytes(), other.shape)
    }
}

impl Eq for Properties<'_> {}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(*self).finish()
    }
}

impl Serialize for Properties<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Halves { text: self.text.as_str(), shape: self.shape }.serialize(serializer)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Properties<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Halves { text, shape } = Halves::deserialize(deserializer)?;
        check(text, shape).map_err(D::Error::custom)?;
        Ok(Self { text: Text::Checked(text), shape })
    }
}

/// A block as serde knows it.
#[derive(Serialize, Deserialize)]
struct Halves<'a> {
    text: &'a str,
    shape: &'a [u8],
}

/// Text that was checked when it was read; or that a writer put together of strings, which needs no check before
/// somebody reads it.
#[derive(Clone, Copy)]
enum Text<'a> {
    Checked(&'a str),
    Written(&'a [u8]),
}

impl<'a> Text<'a> {
    const fn as_bytes(&self) -> &'a [u8] {
        match self {
            Self::Checked(text) => text.as_bytes(),
            Self::Written(text) => text,
        }
    }

    const fn as_str(&self) -> &'a str {
        match self {
            Self::Checked(text) => text,
            Self::Written(text) => match core::str::from_utf8(text) {
                Ok(text) => text,
                // Strings one after the other are a string.
                Err(_) => "",
            },
        }
    }
}

impl<'a> IntoIterator for Properties<'a> {
    type Item = (&'a str, Value<'a>);
    type IntoIter = Entries<'a>;

    fn into_iter(self) -> Entries<'a> {
        self.iter()
    }
}

impl<'a> List<'a> {
    /// The items in order.
    #[must_use]
    #[inline]
    pub const fn iter(&self) -> Items<'a> {
        Items(Walk { text: self.text, reader: Reader::new(self.shape) })
    }
}

impl fmt::Debug for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

impl<'a> IntoIterator for List<'a> {
    type Item = Value<'a>;
    type IntoIter = Items<'a>;

    fn into_iter(self) -> Items<'a> {
        self.iter()
    }
}

/// The entries of a map.
#[derive(Clone, Debug)]
pub struct Entries<'a>(Walk<'a>);

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a str, Value<'a>);

    // As a call, it would give an entry back through memory, which costs more than reading it.
    #[cfg_attr(not(target_arch = "wasm32"), inline(always))]
    fn next(&mut self) -> Option<Self::Item> {
        // What most entries are, short text under a short key, in one step.
        if cfg!(not(target_arch = "wasm32"))
            && let [tag::STR, key @ 0..0x80, value @ 0..0x80, ref rest @ ..] = *self.0.reader.rest()
        {
            let (key, text) = self.0.text.split_at_checked(key.into())?;
            let (value, text) = text.split_at_checked(value.into())?;
            self.0 = Walk { text, reader: Reader::new(rest) };
            return Some((key, Value::Str(value)));
        }
        // Nothing fails after the first byte: the block was checked as a whole.
        let tag = self.0.reader.byte().ok()?;
        let key = self.0.take_text().ok()?;
        Some((key, self.0.value(tag).ok()?))
    }
}

/// The items of a list.
#[derive(Clone, Debug)]
pub struct Items<'a>(Walk<'a>);

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    #[inline]
    fn next(&mut self) -> Option<Value<'a>> {
        let tag = self.0.reader.byte().ok()?;
        self.0.value(tag).ok()
    }
}

/// A position in both halves of a block.
#[derive(Clone, Debug)]
struct Walk<'a> {
    text: &'a str,
    reader: Reader<'a>,
}

impl<'a> Walk<'a> {
    #[inline(always)]
    fn take_text(&mut self) -> Result<&'a str, Error> {
        let len = self.reader.len()?;
        // Cuts at a character's boundary or not at all; the text itself was checked when it was read.
        let (text, rest) = self.text.split_at_checked(len).ok_or(Error::Payload)?;
        self.text = rest;
        Ok(text)
    }

    #[cfg_attr(not(target_arch = "wasm32"), inline(always))]
    fn value(&mut self, tag: u8) -> Result<Value<'a>, Error> {
        Ok(match tag {
            tag::NULL => Value::Null,
            tag::FALSE => Value::Bool(false),
            tag::TRUE => Value::Bool(true),
            tag::U64 => Value::U64(self.reader.varint()?),
            tag::I64 => Value::I64(self.negative()?),
            tag::F64 => Value::F64(f64::from_le_bytes(self.reader.array()?)),
            tag::STR => Value::Str(self.take_text()?),
            tag::BYTES => Value::Bytes(self.reader.bytes()?),
            _ => {
                // By value: a walk whose address nobody has stays in registers.
                let (container, walk) = self.clone().container(tag)?;
                *self = walk;
                container
            }
        })
    }

    /// A number under `I64`: those from 0 stand under `U64`.
    #[inline(always)]
    fn negative(&mut self) -> Result<i64, Error> {
        let number = self.reader.zigzag()?;
        if number < 0 { Ok(number) } else { Err(Error::Payload) }
    }

    #[inline(never)]
    fn container(mut self, tag: u8) -> Result<(Value<'a>, Self), Error> {
        let (text, shape) = (self.text, self.reader.rest());
        self.skip_container(tag)?;
        // Without its END byte, a container is what a block is at the top.
        let inner = shape.len() - self.reader.rest().len() - 1;
        let (text, shape) = (&text[..text.len() - self.text.len()], &shape[..inner]);
        let container = match tag {
            tag::MAP => Value::Map(Properties { text: Text::Checked(text), shape }),
            _ => Value::List(List { text, shape }),
        };
        Ok((container, self))
    }

    /// Walks to the end of a block that holds a map's entries or a list's items, and says how large it is.
    fn skip_all(&mut self, is_map: bool) -> Result<Size, Error> {
        let mut size = Size::default();
        while !self.reader.is_empty() {
            let tag = self.reader.byte()?;
            if is_map {
                self.take_text()?;
            }
            size.values += 1;
            if tag < tag::LIST {
                self.skip_scalar(tag)?;
            } else {
                let inner = self.skip_container(tag)?;
                size.values += inner.values;
                size.depth = size.depth.max(inner.depth);
            }
            if size.values > MAX_VALUES {
                return Err(Error::TooLarge);
            }
        }
        Ok(size)
    }

    /// Walks over entries that are short and not nested, as nearly all are, and says how many. What it does not know,
    /// and what is wrong, is left to the long way.
    #[inline]
    fn skip_flat(&mut self) -> usize {
        let (text, mut shape) = (self.text.as_bytes(), self.reader.rest());
        let (mut at, mut count) = (0, 0);
        // A byte in the middle of a character is `10…`. Beyond the end there is none; that is seen when all is done.
        let splits = |at: usize| text.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
        while let Some((&[tag, key @ 0..0x80], rest)) = shape.split_first_chunk() {
            let (numbers, string) = match (tag, rest) {
                (tag::STR, &[len @ 0..0x80, ..]) => (1, len),
                (tag::F64, _) => (8, 0),
                (tag::U64, [0..0x80, ..]) => (1, 0),
                (tag::NULL | tag::FALSE | tag::TRUE, _) => (0, 0),
                _ => break,
            };
            let key_end = at + usize::from(key);
            let end = key_end + usize::from(string);
            let Some(rest) = rest.get(numbers..) else { break };
            if splits(key_end) || splits(end) {
                break;
            }
            (at, shape) = (end, rest);
            count += 1;
        }
        match self.text.get(at..) {
            Some(rest) => {
                (self.text, self.reader) = (rest, Reader::new(shape));
                count
            }
            None => 0,
        }
    }

    /// Walks to the end of a container whose tag was read, without recursion. Counts the container itself for its depth,
    /// not for its values.
    fn skip_container(&mut self, tag: u8) -> Result<Size, Error> {
        let mut open = Containers::default();
        open.open(tag)?;
        let mut size = Size { values: 0, depth: 1 };
        while open.depth > 0 {
            let tag = self.reader.byte()?;
            if tag == tag::END {
                open.close();
                continue;
            }
            if open.in_map() {
                self.take_text()?;
            }
            size.values += 1;
            if tag < tag::LIST {
                self.skip_scalar(tag)?;
            } else {
                open.open(tag)?;
                size.depth = size.depth.max(open.depth);
            }
            if size.values > MAX_VALUES {
                return Err(Error::TooLarge);
            }
        }
        Ok(size)
    }

    #[inline(always)]
    fn skip_scalar(&mut self, tag: u8) -> Result<(), Error> {
        match tag {
            tag::NULL | tag::FALSE | tag::TRUE => {}
            tag::U64 => drop(self.reader.varint()?),
            tag::I64 => drop(self.negative()?),
            tag::F64 => drop(self.reader.raw(8)?),
            tag::STR => drop(self.take_text()?),
            tag::BYTES => drop(self.reader.bytes()?),
            _ => return Err(Error::Payload),
        }
        Ok(())
    }
}

/// How many values something holds, nested ones included, and how many containers deep it goes.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    values: usize,
    depth: usize,
}

/// Which containers are open: a bit each, set for a map.
#[derive(Clone, Copy, Debug, Default)]
struct Containers {
    depth: usize,
    maps: u32,
}

impl Containers {
    fn open(&mut self, tag: u8) -> Result<(), Error> {
        if tag != tag::LIST && tag != tag::MAP {
            return Err(Error::Payload);
        }
        if self.depth == MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        self.depth += 1;
        self.maps = self.maps << 1 | u32::from(tag == tag::MAP);
        Ok(())
    }

    const fn close(&mut self) {
        self.depth -= 1;
        self.maps >>= 1;
    }

    /// Whether what comes next has a key. At the top it has.
    const fn in_map(&self) -> bool {
        self.depth == 0 || self.maps & 1 == 1
    }
}
