//! CRC-32 (IEEE 802.3, reflected, as in gzip): finds bytes that changed on the way, before any costlier check.

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
    #[cfg(not(feature = "crc32fast"))]
    {
        !parts.iter().fold(!0, |crc, part| update(crc, part))
    }
}

/// A byte at a time, by a table that is made on the stack: a kilobyte of table would not compress, and the code that
/// makes it costs a frame what some hundred bytes cost.
#[cfg(any(test, not(feature = "crc32fast")))]
fn update(crc: u32, bytes: &[u8]) -> u32 {
    let mut table = [0u32; 256];
    for (byte, entry) in table.iter_mut().enumerate() {
        *entry = (0..8).fold(byte as u32, |rest, _| rest >> 1 ^ if rest & 1 == 1 { 0xedb8_8320 } else { 0 });
    }
    bytes.iter().fold(crc, |crc, byte| crc >> 8 ^ table[usize::from(crc as u8 ^ byte)])
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
        fn small_and_fast_agree(bytes: std::vec::Vec<u8>, cut: proptest::sample::Index) {
            let (a, b) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(crc32(&[a, b]), !update(!0, &bytes));
        }
    }
}
