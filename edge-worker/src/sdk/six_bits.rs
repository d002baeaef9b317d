//! Six bits a character: how a script carries its module (`bindings/js/inlined.ts`). For `build.rs`, too.

/// The bytes that a text stands for, in an alphabet of 64 characters. None if it holds another one.
pub(super) fn decode(text: &[u8], alphabet: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 6 / 8);
    let (mut bits, mut count) = (0, 0);
    for character in text {
        let six = alphabet.iter().position(|known| known == character)?;
        bits = bits << 6 | six as u32;
        count += 6;
        if count > 7 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}
