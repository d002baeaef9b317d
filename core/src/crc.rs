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

/// Half a byte at a time: a table of 64 bytes, where the fast one's weigh more than a whole page SDK.
#[cfg(any(test, not(feature = "crc32fast")))]
fn update(crc: u32, bytes: &[u8]) -> u32 {
    const TABLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut i = 0;
        while i < 16 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 4 {
                crc = crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    bytes.iter().fold(crc, |crc, &byte| {
        let crc = crc ^ u32::from(byte);
        let crc = crc >> 4 ^ TABLE[(crc & 15) as usize];
        crc >> 4 ^ TABLE[(crc & 15) as usize]
    })
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
