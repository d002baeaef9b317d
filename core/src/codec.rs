//! postcard's primitives by hand: varints, zigzag, length-prefixed bytes.
//!
//! serde's generic path costs several times as much on the hot types, so [`Event`](crate::Event) and
//! [`Context`](crate::Context) are read and written with these; the derived implementations stay, and the vectors hold
//! both to the same bytes. One difference: postcard also reads numbers with needless zero groups, and these refuse
//! them, so that there is one encoding of everything.

use crate::Error;

/// Most bytes that a varint of 64 bits takes.
pub(crate) const VARINT_MAX: usize = 10;

/// Appends to a caller's buffer. What a failed call of several parts has written stands behind the end that the caller
/// still has.
pub(crate) struct Writer<'b> {
    buf: &'b mut [u8],
    at: usize,
}

impl<'b> Writer<'b> {
    #[inline]
    pub(crate) const fn new(buf: &'b mut [u8], at: usize) -> Self {
        Self { buf, at }
    }

    #[inline]
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
        // No slice is longer than half the address space, so the sum does not wrap.
        let end = self.at + bytes.len();
        copy(self.buf.get_mut(self.at..end).ok_or(Error::BufferFull)?, bytes);
        self.at = end;
        Ok(())
    }

    #[inline]
    pub(crate) fn varint(&mut self, value: u64) -> Result<(), Error> {
        match value {
            0..0x80 => self.byte(value as u8),
            #[cfg(not(target_arch = "wasm32"))]
            0x80..0x4000 => self.raw(&[value as u8 | 0x80, (value >> 7) as u8]),
            _ => self.long_varint(value),
        }
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

/// Copies between slices of one length. Keys and values are short, and for those a call of `memcpy` costs more than the
/// copy; in WebAssembly size matters more.
#[inline]
fn copy(to: &mut [u8], from: &[u8]) {
    #[cfg(not(target_arch = "wasm32"))]
    {
        /// Two chunks that overlap cover every length from `N` to `2 * N`.
        #[inline]
        fn ends<const N: usize>(to: &mut [u8], from: &[u8]) -> Option<()> {
            let (first, last) = (*from.first_chunk::<N>()?, *from.last_chunk::<N>()?);
            *to.first_chunk_mut()? = first;
            *to.last_chunk_mut()? = last;
            Some(())
        }
        let copied = match from.len() {
            1 => ends::<1>(to, from),
            2..4 => ends::<2>(to, from),
            4..8 => ends::<4>(to, from),
            8..=16 => ends::<8>(to, from),
            17..=32 => ends::<16>(to, from),
            33..=64 => ends::<32>(to, from),
            _ => None,
        };
        if copied.is_some() {
            return;
        }
    }
    to.copy_from_slice(from);
}

/// Whether two slices are equal: as [`copy`], without a call for short ones.
#[inline]
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    #[cfg(not(target_arch = "wasm32"))]
    if let (8..=16, Some(a_first), Some(a_last), Some(b_first), Some(b_last)) =
        (a.len(), a.first_chunk::<8>(), a.last_chunk::<8>(), b.first_chunk(), b.last_chunk())
    {
        return a.len() == b.len() && a_first == b_first && a_last == b_last;
    }
    a == b
}

/// Reads from the front of borrowed bytes.
///
/// Inlined all the way: a reader that stays in registers is twice as fast as one in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[inline]
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline(always)]
    pub(crate) fn byte(&mut self) -> Result<u8, Error> {
        let (&byte, rest) = self.rest.split_first().ok_or(Error::Payload)?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline(always)]
    pub(crate) fn raw(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Error::Payload)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline(always)]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Error::Payload)?;
        self.rest = rest;
        Ok(*bytes)
    }

    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Result<u64, Error> {
        if let Some((&first @ 0..0x80, rest)) = self.rest.split_first() {
            self.rest = rest;
            return Ok(first.into());
        }
        #[cfg(not(target_arch = "wasm32"))]
        if let [first, second @ 1..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(first & 0x7f) | u64::from(*second) << 7);
        }
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(word) = self.rest.first_chunk()
            && let Some((value, len)) = short_varint(u64::from_le_bytes(*word))
        {
            self.rest = &self.rest[len..];
            return Ok(value);
        }
        let value;
        (value, self.rest) = long_varint(self.rest)?;
        Ok(value)
    }

    /// A varint that must fit a length; the bytes themselves are checked where they are taken.
    #[inline(always)]
    pub(crate) fn len(&mut self) -> Result<usize, Error> {
        usize::try_from(self.varint()?).map_err(|_| Error::Payload)
    }

    #[inline(always)]
    pub(crate) fn zigzag(&mut self) -> Result<i64, Error> {
        Ok(unzigzag(self.varint()?))
    }

    #[inline(always)]
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let len = self.len()?;
        self.raw(len)
    }

    #[inline(always)]
    pub(crate) fn str(&mut self) -> Result<&'a str, Error> {
        core::str::from_utf8(self.bytes()?).map_err(|_| Error::Payload)
    }

    /// What postcard calls an option: 0, or 1 and a value.
    #[inline]
    pub(crate) fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<Option<T>, Error> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Error::Payload),
        }
    }
}

/// A varint of two to eight bytes at the low end of a word, without a branch on its length; and its length.
#[cfg(not(target_arch = "wasm32"))]
#[inline(always)]
const fn short_varint(word: u64) -> Option<(u64, usize)> {
    let ends = !word & 0x8080_8080_8080_8080;
    // Everything up to the first byte that ends it; all, if none does.
    let groups = word & (ends ^ ends.wrapping_sub(1));
    let len = ends.trailing_zeros() as usize / 8 + 1;
    // Nine of eight bytes, or a last group of zeros, is for the long way to judge.
    if ends == 0 || groups >> (8 * (len - 1)) == 0 {
        return None;
    }
    let value = groups & 0x7f7f_7f7f_7f7f_7f7f;
    let value = value & 0x007f_007f_007f_007f | (value & 0x7f00_7f00_7f00_7f00) >> 1;
    let value = value & 0x0000_3fff_0000_3fff | (value & 0x3fff_0000_3fff_0000) >> 2;
    let value = value & 0x0fff_ffff | (value & 0x0fff_ffff_0000_0000) >> 4;
    Some((value, len))
}

/// A varint of any length, and what follows it.
fn long_varint(bytes: &[u8]) -> Result<(u64, &[u8]), Error> {
    let mut value = 0;
    for (group, &byte) in bytes.iter().enumerate().take(VARINT_MAX) {
        // The tenth byte holds the 64th bit and nothing else.
        if group == VARINT_MAX - 1 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << (7 * group);
        if byte < 0x80 {
            // The last group of several is never zero: it would say nothing.
            return if byte == 0 && group > 0 { Err(Error::Payload) } else { Ok((value, &bytes[group + 1..])) };
        }
    }
    Err(Error::Payload)
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
        fn varints_are_postcards(bits in 0..=64u32, value: u64, signed: i64) {
            // Numbers of every length, where random ones are nearly all long.
            let (value, signed) = (value.checked_shr(bits).unwrap_or(0), signed.checked_shr(bits).unwrap_or(0));
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

        /// Whatever is read is what writing the number gives.
        #[test]
        fn a_varint_has_one_encoding(bytes in prop::collection::vec(prop_oneof![Just(0x80), Just(0), any::<u8>()], 0..12)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(value) = reader.varint() {
                let mut again = [0; 16];
                let mut writer = Writer::new(&mut again, 0);
                writer.varint(value).unwrap();
                let end = writer.position();
                prop_assert_eq!(&again[..end], &bytes[..bytes.len() - reader.rest().len()]);
            }
        }

        #[test]
        fn copies_of_every_length(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut to = std::vec![0; bytes.len()];
            copy(&mut to, &bytes);
            prop_assert_eq!(to, bytes);
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
    fn a_varint_with_a_needless_group_is_refused() {
        for bytes in [&[0x80, 0][..], &[0x81, 0x80, 0], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0]] {
            assert_eq!(Reader::new(bytes).varint(), Err(Error::Payload));
        }
    }

    #[test]
    fn a_full_buffer_takes_nothing() {
        let mut buf = [0; 3];
        let mut writer = Writer::new(&mut buf, 0);
        assert_eq!(writer.bytes(&[1, 2, 3]), Err(Error::BufferFull));
        assert_eq!(Writer::new(&mut buf, 3).byte(1), Err(Error::BufferFull));
        // As where a header is expected in front and the buffer is shorter than that.
        assert_eq!(Writer::new(&mut buf, 88).raw(&[]), Err(Error::BufferFull));
    }
}
