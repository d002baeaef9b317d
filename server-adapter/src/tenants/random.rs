//! Random bytes of the system's.

/// Random bytes.
///
/// # Panics
/// If the system has none to give: nothing here could be safe without.
pub(crate) fn bytes(out: &mut [u8]) {
    if let Err(error) = getrandom::fill(out) {
        panic!("the system gives no random bytes: {error}");
    }
}

/// So many random letters and digits: just under six bits each.
pub(crate) fn alphanumeric(len: usize) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = String::with_capacity(len);
    let mut pool = [0; 64];
    while text.len() < len {
        bytes(&mut pool);
        // Six bits that name no character are thrown away, so that all characters are as likely.
        let chosen = pool.iter().filter_map(|byte| ALPHABET.get(usize::from(byte & 63)));
        text.extend(chosen.take(len - text.len()).map(|&c| char::from(c)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_comes_up_and_no_text_twice() {
        let text = alphanumeric(8192);
        assert_eq!(text.len(), 8192);
        let distinct: std::collections::BTreeSet<char> = text.chars().collect();
        assert_eq!(distinct.len(), 62);
        assert!(distinct.iter().all(char::is_ascii_alphanumeric));
        assert_ne!(alphanumeric(22), alphanumeric(22));
    }
}
