//! An edge's enrolment token: what it shows to get leases.

use firsthop_core::{TenantId, WorkerId};

/// Whose a token says that it is: `fhe_{tenant, 16 hex digits}_{worker, 8 hex digits}_{32 letters or digits}`, in lower case but for the
/// secret. None: it has not that form, so nobody can have got it.
#[must_use]
pub fn parse_enrolment(token: &str) -> Option<(TenantId, WorkerId)> {
    let mut parts = token.strip_prefix("fhe_")?.split('_');
    let (tenant, worker, secret) = (parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let well_formed = parts.next().is_none()
        && worker.len() == 8
        && worker.bytes().all(is_hex)
        && secret.len() == 32
        && secret.bytes().all(|b| b.is_ascii_alphanumeric());
    if !well_formed {
        return None;
    }
    Some((tenant.parse().ok()?, WorkerId::new(u32::from_str_radix(worker, 16).ok()?)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_names_tenant_and_worker() {
        let secret = "aZ3".repeat(10) + "xy";
        let token = format!("fhe_00000000000000c8_0000001a_{secret}");
        assert_eq!(parse_enrolment(&token), Some((TenantId::new(0xc8), WorkerId::new(0x1a))));
        for bad in [
            "",
            "fhe_",
            "fh_00000000000000c8_00000007_x",
            &format!("fhe_00000000000000c8_7_{secret}"),
            &format!("fhe_00000000000000c8_+0000007_{secret}"),
            &format!("fhe_+0000000000000c8_00000007_{secret}"),
            &format!("fhe_00000000000000c8_0000001A_{secret}"),
            &format!("fhe_00000000000000C8_00000007_{secret}"),
            &format!("fhe_00000000000000c8_00000007_{secret}x"),
            &format!("fhe_00000000000000c8_00000007_{secret}_"),
            &format!("fhe_00000000000000c8_00000007_{}-", &secret[1..]),
            &format!(" {token}"),
        ] {
            assert_eq!(parse_enrolment(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(fhe_)?[0-9a-f_+é]{0,70}") {
            let _ = parse_enrolment(&text);
        }
    }
}
