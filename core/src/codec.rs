//! postcard's primitives by hand: varints, zigzag, length-prefixed bytes.
//!
//! serde's generic path costs two to three times as much on the hot types, so [`Event`](crate::Event) is
//! read and written with these; the derived implementations stay, and the vectors hold both to the same bytes.

use crate::Error;

/// Most bytes that a varint of 64 bits takes.
pub(crate) const VARINT_MAX: usize = 10;

/// Appends to a caller's buffer. A failed call leaves `at` where it was.
pub(crate) struct Writer<'b> {
    buf: &'b mut [u8],
    at: usize,
}

impl<'b> Writer<'b> {
    pub(crate) const fn new(buf: &'b mut [u8], at: usize) -> Self {
        Self { buf, at }
    }

    pub(crate) const fn position(&self) -> usize {
        self.at
    }

    /// What is free, for another encoder; [`skip`](Self::skip) then says how much of it was used.
    pub(crate) fn unwritten(&mut self) -> &mut [u8] {
        self.buf.get_mut(self.at..).unwrap_or_default()
    }

    pub(crate) const fn skip(&mut self, len: usize) {
        self.at += len;
    }

    #[inline]
    pub(crate) fn byte(&mut self, byte: u8) -> Result<(), Error> {
        *self.buf.get_mut(self.at).ok_or(Error::BufferFull)? = byte;
        self.at += 1;
        Ok(())
    }

    #[inline]
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let end = self.at + bytes.len();
        self.buf.get_mut(self.at..end).ok_or(Error::BufferFull)?.copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }

    #[inline]
    pub(crate) fn varint(&mut self, value: u64) -> Result<(), Error> {
        if value < 0x80 {
            return self.byte(value as u8);
        }
        self.long_varint(value)
    }

    fn long_varint(&mut self, mut value: u64) -> Result<(), Error> {
        let mut bytes = [0; VARINT_MAX];
        let mut len = 0;
        loop {
            bytes[len] = value as u8 & 0x7f;
            value >>= 7;
            if value == 0 {
                return self.raw(&bytes[..=len]);
            }
            bytes[len] |= 0x80;
            len += 1;
        }
    }

    #[inline]
    pub(crate) fn zigzag(&mut self, value: i64) -> Result<(), Error> {
        self.varint(zigzag(value))
    }

    #[inline]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.varint(bytes.len() as u64)?;
        self.raw(bytes)
    }

    #[inline]
    pub(crate) fn option_str(&mut self, text: Option<&str>) -> Result<(), Error> {
        match text {
            None => self.byte(0),
            Some(text) => {
                self.byte(1)?;
                self.bytes(text.as_bytes())
            }
        }
    }
}

/// Reads from the front of borrowed bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, Error> {
        let (&byte, rest) = self.rest.split_first().ok_or(Error::Payload)?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn raw(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Error::Payload)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Error::Payload)?;
        self.rest = rest;
        Ok(*bytes)
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Error> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        self.long_varint(first)
    }

    fn long_varint(&mut self, first: u8) -> Result<u64, Error> {
        let mut value = u64::from(first & 0x7f);
        for group in 1..VARINT_MAX {
            let byte = self.byte()?;
            // The tenth byte holds the 64th bit and nothing else.
            if group == VARINT_MAX - 1 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * group);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::Payload)
    }

    /// A varint that must fit a length; the bytes themselves are checked where they are taken.
    #[inline]
    pub(crate) fn len(&mut self) -> Result<usize, Error> {
        usize::try_from(self.varint()?).map_err(|_| Error::Payload)
    }

    #[inline]
    pub(crate) fn zigzag(&mut self) -> Result<i64, Error> {
        Ok(unzigzag(self.varint()?))
    }

    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let len = self.len()?;
        self.raw(len)
    }

    #[inline]
    pub(crate) fn str(&mut self) -> Result<&'a str, Error> {
        core::str::from_utf8(self.bytes()?).map_err(|_| Error::Payload)
    }
}

#[inline]
pub(crate) const fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

#[inline]
pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_are_postcards(value: u64, signed: i64) {
            let (mut ours, mut theirs) = ([0; 32], [0; 32]);
            let mut writer = Writer::new(&mut ours, 0);
            writer.varint(value).unwrap();
            writer.zigzag(signed).unwrap();
            let end = writer.position();
            prop_assert_eq!(&ours[..end], &*postcard::to_slice(&(value, signed), &mut theirs).unwrap());
            let mut reader = Reader::new(&ours[..end]);
            prop_assert_eq!((reader.varint().unwrap(), reader.zigzag().unwrap()), (value, signed));
            prop_assert!(reader.is_empty());
        }
    }

    #[test]
    fn a_varint_over_64_bits_is_refused() {
        assert_eq!(Reader::new(&[0xff; 11]).varint(), Err(Error::Payload));
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).varint(),
            Err(Error::Payload)
        );
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).varint(), Ok(u64::MAX));
    }

    #[test]
    fn a_full_buffer_takes_nothing() {
        let mut buf = [0; 3];
        let mut writer = Writer::new(&mut buf, 0);
        assert_eq!(writer.bytes(&[1, 2, 3]), Err(Error::BufferFull));
        assert_eq!(Writer::new(&mut buf, 3).byte(1), Err(Error::BufferFull));
    }
}
