//! An event's properties: an encoded block with a writer and an iterator.
//!
//! A block is two postcard values: `shape` (tags, lengths, numbers) and `text` (every key and string, one after
//! the other). So one UTF-8 check covers all text of an event, where a check per string would cost more than
//! the rest of decoding. Byte by byte in `docs/wire-format.md` §7.

use serde::{Deserialize, Serialize};

use crate::{
    Error,
    codec::{Reader, Writer},
    limits::{MAX_DEPTH, MAX_EVENT, MAX_VALUES},
};

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

/// An encoded map of properties, borrowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Properties<'a> {
    shape: &'a [u8],
    text: &'a str,
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

/// An encoded list of values, borrowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct List<'a> {
    shape: &'a [u8],
    text: &'a str,
}

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Self = Self { shape: &[], text: "" };

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.shape.is_empty()
    }

    /// The entries, in the order in which they were written.
    #[must_use]
    pub const fn iter(&self) -> Entries<'a> {
        Entries(Walk { reader: Reader::new(self.shape), text: self.text })
    }

    /// The first value under a key. Linear: an event has a handful of properties.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.iter().find_map(|(k, value)| (k == key).then_some(value))
    }

    /// Checks tags, lengths, nesting and bounds of the whole block. After it, iterating ends where the block ends.
    ///
    /// # Errors
    /// [`Error::Payload`], [`Error::TooDeep`] or [`Error::TooLarge`].
    pub fn check(&self) -> Result<(), Error> {
        if self.shape.len() + self.text.len() > MAX_EVENT {
            return Err(Error::TooLarge);
        }
        let mut walk = Walk { reader: Reader::new(self.shape), text: self.text };
        walk.skip_entries()?;
        if walk.text.is_empty() { Ok(()) } else { Err(Error::Payload) }
    }

    #[inline]
    pub(crate) fn encode(&self, writer: &mut Writer<'_>) -> Result<(), Error> {
        writer.bytes(self.shape)?;
        writer.bytes(self.text.as_bytes())
    }

    #[inline]
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Result<Self, Error> {
        let properties = Self { shape: reader.bytes()?, text: reader.str()? };
        properties.check()?;
        Ok(properties)
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
    pub const fn iter(&self) -> Items<'a> {
        Items(Walk { reader: Reader::new(self.shape), text: self.text })
    }
}

impl<'a> IntoIterator for List<'a> {
    type Item = Value<'a>;
    type IntoIter = Items<'a>;

    fn into_iter(self) -> Items<'a> {
        self.iter()
    }
}

/// The entries of a map. Ends early where a block that was not checked is malformed.
#[derive(Clone, Debug)]
pub struct Entries<'a>(Walk<'a>);

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a str, Value<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let walk = &mut self.0;
        if walk.reader.is_empty() {
            return None;
        }
        let tag = walk.reader.byte().ok()?;
        let key = walk.take_text().ok()?;
        Some((key, walk.value(tag).ok()?))
    }
}

/// The items of a list. Ends early where a block that was not checked is malformed.
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
    reader: Reader<'a>,
    text: &'a str,
}

impl<'a> Walk<'a> {
    #[inline]
    fn take_text(&mut self) -> Result<&'a str, Error> {
        let len = self.reader.len()?;
        // Cuts at a character's boundary or not at all; the text itself was checked when it was read.
        let (text, rest) = self.text.split_at_checked(len).ok_or(Error::Payload)?;
        self.text = rest;
        Ok(text)
    }

    #[inline]
    fn value(&mut self, tag: u8) -> Result<Value<'a>, Error> {
        Ok(match tag {
            tag::NULL => Value::Null,
            tag::FALSE => Value::Bool(false),
            tag::TRUE => Value::Bool(true),
            tag::U64 => Value::U64(self.reader.varint()?),
            tag::I64 => Value::I64(self.reader.zigzag()?),
            tag::F64 => Value::F64(f64::from_le_bytes(self.reader.array()?)),
            tag::STR => Value::Str(self.take_text()?),
            tag::BYTES => Value::Bytes(self.reader.bytes()?),
            tag::LIST | tag::MAP => self.container(tag)?,
            _ => return Err(Error::Payload),
        })
    }

    fn container(&mut self, tag: u8) -> Result<Value<'a>, Error> {
        let (shape, text) = (self.reader.rest(), self.text);
        self.skip_container(tag)?;
        // Without its END byte, a container is what a block is at the top.
        let inner = shape.len() - self.reader.rest().len() - 1;
        let (shape, text) = (&shape[..inner], &text[..text.len() - self.text.len()]);
        Ok(if tag == tag::MAP { Value::Map(Properties { shape, text }) } else { Value::List(List { shape, text }) })
    }

    /// Walks the entries of a block, to its end.
    fn skip_entries(&mut self) -> Result<(), Error> {
        let mut values = 0;
        while !self.reader.is_empty() {
            let tag = self.reader.byte()?;
            let key = self.reader.len()?;
            self.skip_text(key)?;
            values += 1;
            if tag >= tag::LIST {
                values += self.skip_container(tag)?;
            } else {
                self.skip_scalar(tag)?;
            }
            if values > MAX_VALUES {
                return Err(Error::TooLarge);
            }
        }
        Ok(())
    }

    /// Walks to the end of a container whose tag was read, without recursion, and counts its values.
    fn skip_container(&mut self, tag: u8) -> Result<usize, Error> {
        let mut stack = Containers::default();
        stack.open(tag)?;
        let mut values = 0;
        while stack.depth > 0 {
            let tag = self.reader.byte()?;
            if tag == tag::END {
                stack.close();
                continue;
            }
            values += 1;
            if values > MAX_VALUES {
                return Err(Error::TooLarge);
            }
            if stack.in_map() {
                let key = self.reader.len()?;
                self.skip_text(key)?;
            }
            if tag >= tag::LIST {
                stack.open(tag)?;
            } else {
                self.skip_scalar(tag)?;
            }
        }
        Ok(values)
    }

    #[inline]
    fn skip_scalar(&mut self, tag: u8) -> Result<(), Error> {
        match tag {
            tag::NULL | tag::FALSE | tag::TRUE => Ok(()),
            tag::U64 | tag::I64 => self.reader.varint().map(|_| ()),
            tag::F64 => self.reader.raw(8).map(|_| ()),
            tag::STR => {
                let len = self.reader.len()?;
                self.skip_text(len)
            }
            tag::BYTES => self.reader.bytes().map(|_| ()),
            _ => Err(Error::Payload),
        }
    }

    #[inline]
    fn skip_text(&mut self, len: usize) -> Result<(), Error> {
        self.text = self.text.split_at_checked(len).ok_or(Error::Payload)?.1;
        Ok(())
    }
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

    fn close(&mut self) {
        self.depth -= 1;
        self.maps >>= 1;
    }

    const fn in_map(&self) -> bool {
        self.depth == 0 || self.maps & 1 == 1
    }
}

/// Writes a block of properties into two buffers of the caller's, one for each half.
///
/// A call that fails leaves the block as it was before it.
///
/// ```
/// use firsthop_core::{PropertiesWriter, Value};
///
/// # fn main() -> Result<(), firsthop_core::Error> {
/// let (mut shape, mut text) = ([0; 64], [0; 256]);
/// let mut writer = PropertiesWriter::new(&mut shape[..], &mut text[..]);
/// writer.put("order_id", Value::Str("50314b8e"))?;
/// writer.begin_list(Some("products"))?;
/// writer.begin_map(None)?;
/// writer.put("sku", Value::Str("G-32"))?;
/// writer.end()?;
/// writer.end()?;
/// assert!(writer.finish()?.get("products").is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PropertiesWriter<B> {
    shape: B,
    text: B,
    shape_len: usize,
    text_len: usize,
    values: usize,
    open: Containers,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> PropertiesWriter<B> {
    /// An empty block in these buffers.
    pub const fn new(shape: B, text: B) -> Self {
        Self { shape, text, shape_len: 0, text_len: 0, values: 0, open: Containers { depth: 0, maps: 0 } }
    }

    /// Forgets all that was written.
    pub fn clear(&mut self) {
        (self.shape_len, self.text_len, self.values) = (0, 0, 0);
        self.open = Containers::default();
    }

    /// Writes an entry of the map that is open.
    ///
    /// # Errors
    /// [`Error::BufferFull`], [`Error::TooLarge`], [`Error::TooDeep`]; [`Error::State`] where a list is open.
    #[inline]
    pub fn put(&mut self, key: &str, value: Value<'_>) -> Result<(), Error> {
        self.write(Some(key), value)
    }

    /// Writes an item of the list that is open.
    ///
    /// # Errors
    /// As [`put`](Self::put); [`Error::State`] where a map is open.
    #[inline]
    pub fn push(&mut self, value: Value<'_>) -> Result<(), Error> {
        self.write(None, value)
    }

    /// Opens a list: under a key in a map, without one in a list.
    ///
    /// # Errors
    /// As [`put`](Self::put); [`Error::TooDeep`] over [`MAX_DEPTH`].
    pub fn begin_list(&mut self, key: Option<&str>) -> Result<(), Error> {
        self.begin(key, tag::LIST)
    }

    /// Opens a map: under a key in a map, without one in a list.
    ///
    /// # Errors
    /// As [`begin_list`](Self::begin_list).
    pub fn begin_map(&mut self, key: Option<&str>) -> Result<(), Error> {
        self.begin(key, tag::MAP)
    }

    /// Closes what was opened last.
    ///
    /// # Errors
    /// [`Error::State`] if nothing is open, [`Error::BufferFull`].
    pub fn end(&mut self) -> Result<(), Error> {
        if self.open.depth == 0 {
            return Err(Error::State);
        }
        let mut shape = Writer::new(self.shape.as_mut(), self.shape_len);
        shape.byte(tag::END)?;
        self.shape_len = shape.position();
        self.open.close();
        Ok(())
    }

    /// The block, encoded.
    ///
    /// # Errors
    /// [`Error::State`] if a list or map is open.
    pub fn finish(&self) -> Result<Properties<'_>, Error> {
        if self.open.depth > 0 {
            return Err(Error::State);
        }
        let text = core::str::from_utf8(&self.text.as_ref()[..self.text_len]).map_err(|_| Error::Payload)?;
        Ok(Properties { shape: &self.shape.as_ref()[..self.shape_len], text })
    }

    fn begin(&mut self, key: Option<&str>, tag: u8) -> Result<(), Error> {
        let mut open = self.open;
        open.open(tag)?;
        self.entry(key, tag, |_, _| Ok(()))?;
        self.open = open;
        Ok(())
    }

    #[inline]
    fn write(&mut self, key: Option<&str>, value: Value<'_>) -> Result<(), Error> {
        match value {
            Value::Null => self.entry(key, tag::NULL, |_, _| Ok(())),
            Value::Bool(false) => self.entry(key, tag::FALSE, |_, _| Ok(())),
            Value::Bool(true) => self.entry(key, tag::TRUE, |_, _| Ok(())),
            Value::U64(number) => self.entry(key, tag::U64, |shape, _| shape.varint(number)),
            Value::I64(number) => match u64::try_from(number) {
                Ok(number) => self.entry(key, tag::U64, |shape, _| shape.varint(number)),
                Err(_) => self.entry(key, tag::I64, |shape, _| shape.zigzag(number)),
            },
            Value::F64(number) => self.entry(key, tag::F64, |shape, _| shape.raw(&number.to_le_bytes())),
            Value::Str(string) => self.entry(key, tag::STR, |shape, text| {
                shape.varint(string.len() as u64)?;
                text.raw(string.as_bytes())
            }),
            Value::Bytes(bytes) => self.entry(key, tag::BYTES, |shape, _| shape.bytes(bytes)),
            Value::List(list) => self.block(key, tag::LIST, list.shape, list.text),
            Value::Map(map) => self.block(key, tag::MAP, map.shape, map.text),
        }
    }

    /// Copies a container that stands encoded in another block.
    fn block(&mut self, key: Option<&str>, tag: u8, shape: &[u8], text: &str) -> Result<(), Error> {
        let mut open = self.open;
        open.open(tag)?;
        let (values, depth) = measure(tag, shape)?;
        if open.depth - 1 + depth > MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        if self.values + values >= MAX_VALUES {
            return Err(Error::TooLarge);
        }
        self.entry(key, tag, |out, out_text| {
            out.raw(shape)?;
            out.byte(tag::END)?;
            out_text.raw(text.as_bytes())
        })?;
        self.values += values;
        Ok(())
    }

    #[inline]
    fn entry(
        &mut self,
        key: Option<&str>,
        tag: u8,
        value: impl FnOnce(&mut Writer<'_>, &mut Writer<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if key.is_some() != self.open.in_map() {
            return Err(Error::State);
        }
        if self.values == MAX_VALUES {
            return Err(Error::TooLarge);
        }
        let mut shape = Writer::new(self.shape.as_mut(), self.shape_len);
        let mut text = Writer::new(self.text.as_mut(), self.text_len);
        shape.byte(tag)?;
        if let Some(key) = key {
            shape.varint(key.len() as u64)?;
            text.raw(key.as_bytes())?;
        }
        value(&mut shape, &mut text)?;
        (self.shape_len, self.text_len) = (shape.position(), text.position());
        self.values += 1;
        Ok(())
    }
}

/// How many values a container holds and how deep it goes, itself included.
fn measure(tag: u8, shape: &[u8]) -> Result<(usize, usize), Error> {
    let mut reader = Reader::new(shape);
    let mut open = Containers::default();
    open.open(tag)?;
    let (mut values, mut depth) = (0, 1);
    while !reader.is_empty() {
        let tag = reader.byte()?;
        if tag == tag::END {
            if open.depth == 1 {
                return Err(Error::Payload);
            }
            open.close();
            continue;
        }
        values += 1;
        if open.in_map() {
            reader.varint()?;
        }
        match tag {
            tag::NULL | tag::FALSE | tag::TRUE => {}
            tag::U64 | tag::I64 | tag::STR => drop(reader.varint()?),
            tag::F64 => drop(reader.raw(8)?),
            tag::BYTES => drop(reader.bytes()?),
            _ => {
                open.open(tag)?;
                depth = depth.max(open.depth);
            }
        }
    }
    if open.depth == 1 { Ok((values, depth)) } else { Err(Error::Payload) }
}
