//! An edge's enrolment token: what it shows to get leases.

use firsthop_core::{TenantId, WorkerId};

/// The header by which an edge that may only pass on asks for the tenant's documents and no key. Its value is [`DOCUMENTS`]; a server gives no
/// key to whoever sends another one.
pub const WANT: &str = "firsthop-want";
/// The value of [`WANT`].
pub const DOCUMENTS: &str = "documents";

/// What a token says, but for its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// For whom the edge is enrolled.
    pub tenant: TenantId,
    /// Its number.
    pub worker: WorkerId,
    /// The Ed25519 key that the tenant's [documents](crate::document) verify with.
    pub document_key: [u8; 32],
}

/// Whose a token says that it is:
/// `fhe_{tenant, 16 hex digits}_{worker, 8 hex digits}_{32 letters or digits}_{document key, 64 hex digits}`, in lower case but for the
/// secret. None: it has not that form, so nobody can have got it.
#[must_use]
pub fn parse_enrolment(token: &str) -> Option<Enrolment> {
    let mut parts = token.strip_prefix("fhe_")?.split('_');
    let (tenant, worker, secret, key) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let well_formed = parts.next().is_none()
        && worker.len() == 8
        && worker.bytes().all(|digit| digit_of(digit).is_some())
        && secret.len() == 32
        && secret.bytes().all(|b| b.is_ascii_alphanumeric());
    if !well_formed {
        return None;
    }
    Some(Enrolment {
        tenant: tenant.parse().ok()?,
        worker: WorkerId::new(u32::from_str_radix(worker, 16).ok()?),
        document_key: key_from_hex(key)?,
    })
}

/// 32 bytes from 64 hex digits in lower case, as public keys are written.
#[must_use]
pub fn key_from_hex(text: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    if text.len() != 2 * key.len() {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit_of(pair[0])? << 4 | digit_of(pair[1])?;
    }
    Some(key)
}

fn digit_of(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_names_tenant_worker_and_what_documents_verify_with() {
        let secret = "aZ3".repeat(10) + "xy";
        let keyless = format!("fhe_00000000000000c8_0000001a_{secret}");
        let key = "0f".repeat(31) + "a9";
        let mut bytes = [0x0f; 32];
        bytes[31] = 0xa9;
        let token = format!("{keyless}_{key}");
        let said = Enrolment { tenant: TenantId::new(0xc8), worker: WorkerId::new(0x1a), document_key: bytes };
        assert_eq!(parse_enrolment(&token), Some(said));
        for bad in [
            "",
            "fhe_",
            "fh_00000000000000c8_00000007_x",
            &keyless,
            &format!("fhe_00000000000000c8_7_{secret}_{key}"),
            &format!("fhe_00000000000000c8_+0000007_{secret}_{key}"),
            &format!("fhe_+0000000000000c8_00000007_{secret}_{key}"),
            &format!("fhe_00000000000000c8_0000001A_{secret}_{key}"),
            &format!("fhe_00000000000000C8_00000007_{secret}_{key}"),
            &format!("{keyless}x_{key}"),
            &format!("{keyless}_"),
            &format!("fhe_00000000000000c8_00000007_{}-_{key}", &secret[1..]),
            &format!(" {token}"),
            &format!("{keyless}_{}", &key[1..]),
            &format!("{token}0"),
            &format!("{keyless}_{}", key.to_uppercase()),
            &format!("{keyless}_+{}", &key[1..]),
            &format!("{token}_{key}"),
            &format!("{token} "),
        ] {
            assert_eq!(parse_enrolment(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(fhe_)?[0-9a-f_+é]{0,140}") {
            let _ = (parse_enrolment(&text), key_from_hex(&text));
        }

        #[test]
        fn a_key_is_what_its_digits_say(key: [u8; 32]) {
            let text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert_eq!(key_from_hex(&text), Some(key));
        }
    }
}
