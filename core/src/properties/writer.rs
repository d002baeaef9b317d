//! Writing a block of properties.

use super::{Containers, Properties, Text, Value, Walk, tag};
use crate::{
    Error,
    codec::{Reader, Writer, zigzag},
    limits::{MAX_DEPTH, MAX_EVENT, MAX_VALUES},
};

/// Writes a block of properties into two buffers of the caller's: one for tags, lengths and numbers, one for text.
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
    /// An empty block in these buffers. [`MAX_EVENT`] bytes each are enough for any block.
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
    /// [`Error::BufferFull`]; [`Error::TooLarge`] over [`MAX_EVENT`] or [`MAX_VALUES`]; [`Error::TooDeep`] over
    /// [`MAX_DEPTH`]; [`Error::State`] where a list is open.
    #[cfg_attr(not(target_arch = "wasm32"), inline(always))]
    pub fn put(&mut self, key: &str, value: Value<'_>) -> Result<(), Error> {
        self.write(Some(key), value)
    }

    /// Writes an item of the list that is open.
    ///
    /// # Errors
    /// As [`put`](Self::put); [`Error::State`] where a map is open.
    #[cfg_attr(not(target_arch = "wasm32"), inline(always))]
    pub fn push(&mut self, value: Value<'_>) -> Result<(), Error> {
        self.write(None, value)
    }

    /// Opens a list: under a key in a map, without one in a list.
    ///
    /// # Errors
    /// As [`put`](Self::put) and [`push`](Self::push).
    pub fn begin_list(&mut self, key: Option<&str>) -> Result<(), Error> {
        self.begin(key, tag::LIST)
    }

    /// Opens a map: under a key in a map, without one in a list.
    ///
    /// # Errors
    /// As [`put`](Self::put) and [`push`](Self::push).
    pub fn begin_map(&mut self, key: Option<&str>) -> Result<(), Error> {
        self.begin(key, tag::MAP)
    }

    /// Closes what was opened last.
    ///
    /// # Errors
    /// [`Error::State`] if nothing is open, [`Error::BufferFull`], [`Error::TooLarge`].
    pub fn end(&mut self) -> Result<(), Error> {
        if self.open.depth == 0 {
            return Err(Error::State);
        }
        let mut shape = Writer::new(self.shape.as_mut(), self.shape_len);
        shape.byte(tag::END)?;
        let ends = (shape.position(), self.text_len);
        self.advance(ends, 0)?;
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
        let text = Text::Written(&self.text.as_ref()[..self.text_len]);
        Ok(Properties { text, shape: &self.shape.as_ref()[..self.shape_len] })
    }

    fn begin(&mut self, key: Option<&str>, tag: u8) -> Result<(), Error> {
        let mut open = self.open;
        open.open(tag)?;
        let ends = self.entry(key, tag)?.ends();
        self.advance(ends, 1)?;
        self.open = open;
        Ok(())
    }

    /// Writes an entry of what is open: under a key in a map, without one in a list.
    ///
    /// # Errors
    /// As [`put`](Self::put) and [`push`](Self::push).
    // Always inlined: where the caller knows key and kind of value, so does the compiler, which makes it twice as fast, and
    // leaves out what writes kinds that never come.
    #[inline(always)]
    pub fn write(&mut self, key: Option<&str>, value: Value<'_>) -> Result<(), Error> {
        let (tag, number) = match value {
            Value::Null => (tag::NULL, 0),
            Value::Bool(false) => (tag::FALSE, 0),
            Value::Bool(true) => (tag::TRUE, 0),
            Value::U64(number) => (tag::U64, number),
            Value::I64(number) if number < 0 => (tag::I64, zigzag(number)),
            Value::I64(number) => (tag::U64, number as u64),
            Value::F64(number) => (tag::F64, number.to_bits()),
            Value::Str(text) => (tag::STR, text.len() as u64),
            Value::Bytes(bytes) => (tag::BYTES, bytes.len() as u64),
            Value::List(list) => return self.block(key, tag::LIST, list.text, list.shape),
            Value::Map(map) => return self.block(key, tag::MAP, map.text.as_str(), map.shape),
        };
        let mut entry = self.entry(key, tag)?;
        match tag {
            tag::NULL | tag::FALSE | tag::TRUE => {}
            tag::F64 => entry.shape.raw(&number.to_le_bytes())?,
            _ => entry.shape.varint(number)?,
        }
        match value {
            Value::Str(text) => entry.text.raw(text.as_bytes())?,
            Value::Bytes(bytes) => entry.shape.raw(bytes)?,
            _ => {}
        }
        let ends = entry.ends();
        self.advance(ends, 1)
    }

    /// Copies a container that stands encoded in another block.
    fn block(&mut self, key: Option<&str>, tag: u8, text: &str, shape: &[u8]) -> Result<(), Error> {
        let size = Walk { text, reader: Reader::new(shape) }.skip_all(tag == tag::MAP)?;
        if self.open.depth + 1 + size.depth > MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        let mut entry = self.entry(key, tag)?;
        entry.shape.raw(shape)?;
        entry.shape.byte(tag::END)?;
        entry.text.raw(text.as_bytes())?;
        let ends = entry.ends();
        self.advance(ends, 1 + size.values)
    }

    /// Begins an entry, or an item if it has no key. What is written counts once [`advance`](Self::advance) was told.
    #[cfg_attr(not(target_arch = "wasm32"), inline(always))]
    fn entry(&mut self, key: Option<&str>, tag: u8) -> Result<Entry<'_>, Error> {
        if key.is_some() != self.open.in_map() {
            return Err(Error::State);
        }
        let mut entry = Entry {
            shape: Writer::new(self.shape.as_mut(), self.shape_len),
            text: Writer::new(self.text.as_mut(), self.text_len),
        };
        entry.shape.byte(tag)?;
        if let Some(key) = key {
            entry.shape.varint(key.len() as u64)?;
            entry.text.raw(key.as_bytes())?;
        }
        Ok(entry)
    }

    #[inline]
    fn advance(&mut self, (shape_len, text_len): (usize, usize), values: usize) -> Result<(), Error> {
        if shape_len + text_len > MAX_EVENT || self.values + values > MAX_VALUES {
            return Err(Error::TooLarge);
        }
        (self.shape_len, self.text_len) = (shape_len, text_len);
        self.values += values;
        Ok(())
    }
}

/// Both halves of a block, while an entry is written.
struct Entry<'b> {
    shape: Writer<'b>,
    text: Writer<'b>,
}

impl Entry<'_> {
    #[inline]
    const fn ends(&self) -> (usize, usize) {
        (self.shape.position(), self.text.position())
    }
}
