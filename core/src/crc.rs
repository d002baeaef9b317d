//! CRC-32 (IEEE 802.3, reflected, as in gzip): finds bytes that changed on the way, before any costlier check.

const POLYNOMIAL: u32 = 0xedb8_8320;

/// CRC-32 over several parts, as if they stood one after the other.
#[must_use]
pub fn crc32(parts: &[&[u8]]) -> u32 {
    #[cfg(feature = "crc32fast")]
    {
        let mut hasher = crc32fast::Hasher::new();
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize()
    }
    #[cfg(all(feature = "crc-tables", not(feature = "crc32fast")))]
    {
        !parts.iter().fold(!0, |crc, part| tables::update(crc, part))
    }
    #[cfg(not(any(feature = "crc-tables", feature = "crc32fast")))]
    {
        !parts.iter().fold(!0, |crc, part| update(crc, part))
    }
}

/// The CRC-32 of two parts, one behind the other, from those of each.
pub(crate) fn joined(first: u32, second: u32, second_len: usize) -> u32 {
    behind_zeros(first, second_len) ^ second
}

/// What changes in a CRC-32 when four bytes that were zero become these, with so many bytes behind them.
pub(crate) fn changed(bytes: [u8; 4], behind: usize) -> u32 {
    behind_zeros(crc32(&[&bytes]) ^ crc32(&[&[0; 4]]), behind)
}

/// A remainder times x to the power of eight times `len`, modulo the polynomial: in steps of which there are as many as `len` has bits.
fn behind_zeros(mut remainder: u32, mut len: usize) -> u32 {
    // x to the eighth; the highest bit is x to the power of 0.
    let mut power = 1 << 23;
    while len > 0 {
        if len & 1 == 1 {
            remainder = product(power, remainder);
        }
        power = product(power, power);
        len >>= 1;
    }
    remainder
}

fn product(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    for bit in (0..32).rev() {
        if a >> bit & 1 == 1 {
            product ^= b;
        }
        b = b >> 1 ^ if b & 1 == 1 { POLYNOMIAL } else { 0 };
    }
    product
}

/// A byte at a time, by a table that is made on the stack: a kilobyte of table would not compress, and the code that
/// makes it costs a frame what some hundred bytes cost.
#[cfg(any(test, not(any(feature = "crc-tables", feature = "crc32fast"))))]
fn update(crc: u32, bytes: &[u8]) -> u32 {
    let mut table = [0u32; 256];
    for (byte, entry) in table.iter_mut().enumerate() {
        *entry = (0..8).fold(byte as u32, |rest, _| rest >> 1 ^ if rest & 1 == 1 { POLYNOMIAL } else { 0 });
    }
    bytes.iter().fold(crc, |crc, byte| crc >> 8 ^ table[usize::from(crc as u8 ^ byte)])
}

/// Sixteen bytes at a time, by tables that are made with the first frame: as fast as tables that stand in the program, which would be
/// sixteen kilobytes that do not compress.
#[cfg(any(test, feature = "crc-tables"))]
mod tables {
    use core::sync::atomic::{
        AtomicU32,
        Ordering::{Acquire, Relaxed, Release},
    };

    use super::POLYNOMIAL;

    static TABLES: [[AtomicU32; 256]; 16] = [const { [const { AtomicU32::new(0) }; 256] }; 16];

    fn entry(table: usize, byte: u8) -> u32 {
        TABLES[table][usize::from(byte)].load(Relaxed)
    }

    /// Four bytes, by four tables from this one on. Written out, because a build for size would make it a loop, at half the speed.
    #[inline(always)]
    fn four(table: usize, word: u32) -> u32 {
        let [a, b, c, d] = word.to_le_bytes();
        entry(table + 3, a) ^ entry(table + 2, b) ^ entry(table + 1, c) ^ entry(table, d)
    }

    /// Two threads that make them at once write the same; the entry that is looked at is written last.
    #[cold]
    fn make() {
        for byte in 0..=255u8 {
            let crc = (0..8).fold(u32::from(byte), |rest, _| rest >> 1 ^ if rest & 1 == 1 { POLYNOMIAL } else { 0 });
            TABLES[0][usize::from(byte)].store(crc, Relaxed);
        }
        for pair in TABLES.windows(2) {
            for (last, next) in pair[0].iter().zip(&pair[1]) {
                let last = last.load(Relaxed);
                next.store(last >> 8 ^ entry(0, last as u8), Release);
            }
        }
    }

    pub(super) fn update(mut crc: u32, bytes: &[u8]) -> u32 {
        if TABLES[15][255].load(Acquire) == 0 {
            make();
        }
        let (chunks, rest) = bytes.as_chunks::<16>();
        for chunk in chunks {
            let word = |at: usize| u32::from_le_bytes([chunk[at], chunk[at + 1], chunk[at + 2], chunk[at + 3]]);
            crc = four(12, crc ^ word(0)) ^ four(8, word(4)) ^ four(4, word(8)) ^ four(0, word(12));
        }
        rest.iter().fold(crc, |crc, byte| crc >> 8 ^ entry(0, crc as u8 ^ byte))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn check_value_of_the_crc_catalogue() {
        assert_eq!(crc32(&[b"1234", b"56789"]), 0xcbf4_3926);
        assert_eq!(!update(!0, b"123456789"), 0xcbf4_3926);
    }

    proptest! {
        #[test]
        fn all_ways_agree(bytes: std::vec::Vec<u8>, cut: proptest::sample::Index) {
            let (a, b) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(crc32(&[a, b]), !update(!0, &bytes));
            prop_assert_eq!(crc32(&[a, b]), !tables::update(tables::update(!0, a), b));
        }

        #[test]
        fn joined_is_as_if_gone_over_once(bytes: std::vec::Vec<u8>, cut: proptest::sample::Index) {
            let (a, b) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(joined(crc32(&[a]), crc32(&[b]), b.len()), crc32(&[&bytes]));
        }

        #[test]
        fn changed_is_as_if_gone_over_again(before: std::vec::Vec<u8>, four: [u8; 4], after: std::vec::Vec<u8>) {
            let zeroed = crc32(&[&before, &[0; 4], &after]);
            prop_assert_eq!(zeroed ^ changed(four, after.len()), crc32(&[&before, &four, &after]));
        }
    }
}
