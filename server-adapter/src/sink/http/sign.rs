//! HTTP Message Signatures (RFC 9421) and content digests (RFC 9530): what a receiver can check without TLS to itself.

use base64::{Engine, prelude::BASE64_STANDARD};
use ed25519_dalek::Signer as _;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::super::{Failure, spec::Algorithm};

/// The name of our signature in both headers.
const LABEL: &str = "firsthop";

/// A key, and what receivers know it by.
pub(super) struct Signer {
    key: Key,
    key_id: String,
}

enum Key {
    Ed25519(Box<ed25519_dalek::SigningKey>),
    HmacSha256(Zeroizing<Vec<u8>>),
}

/// The two headers of a signature.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) input: String,
    pub(super) signature: String,
}

/// What PKCS #8 (RFC 8410 §7) puts before the 32 bytes of an Ed25519 key.
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

impl Signer {
    /// Reads a key: PEM as `openssl genpkey -algorithm ed25519` writes it, or base64 of at least 32 bytes for HMAC.
    pub(super) fn new(algorithm: Algorithm, secret: &str, key_id: &str) -> Result<Self, Failure> {
        let decode = |text: &str| BASE64_STANDARD.decode(text).map(Zeroizing::new).ok();
        let key = match algorithm {
            Algorithm::Ed25519 => {
                let lines =
                    secret.lines().map(str::trim).skip_while(|line| *line != "-----BEGIN PRIVATE KEY-----").skip(1);
                let body: Zeroizing<String> =
                    Zeroizing::new(lines.take_while(|line| !line.starts_with('-')).collect::<String>());
                let bytes = decode(&body);
                let seed = bytes.as_ref().and_then(|bytes| bytes.strip_prefix(&PKCS8)?.first_chunk::<32>());
                let seed = seed.ok_or_else(|| {
                    Failure::new(
                        "the signing key is no Ed25519 key in PEM: make one with `openssl genpkey -algorithm ed25519`",
                    )
                })?;
                Key::Ed25519(Box::new(ed25519_dalek::SigningKey::from_bytes(seed)))
            }
            Algorithm::HmacSha256 => {
                let bytes = decode(secret.trim()).filter(|bytes| bytes.len() >= 32);
                Key::HmacSha256(bytes.ok_or_else(|| {
                    Failure::new(
                        "the signing key is not base64 of at least 32 bytes: make one with `openssl rand -base64 32`",
                    )
                })?)
            }
        };
        Ok(Self { key, key_id: key_id.to_owned() })
    }

    /// Signs these components, in their order: derived ones (`@method`) and headers, by their names in small letters.
    pub(super) fn sign(&self, components: &[(&str, &str)], created: u64) -> Signature {
        let alg = match self.key {
            Key::Ed25519(_) => "ed25519",
            Key::HmacSha256(_) => "hmac-sha256",
        };
        let parameters = format!("created={created};keyid=\"{}\";alg=\"{alg}\"", self.key_id);
        self.sign_as(LABEL, components, &parameters)
    }

    fn sign_as(&self, label: &str, components: &[(&str, &str)], parameters: &str) -> Signature {
        let names: Vec<String> = components.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let parameters = format!("({});{parameters}", names.join(" "));
        // RFC 9421 §2.5
        let mut base = String::new();
        for (name, value) in components {
            base.push_str(&format!("\"{name}\": {value}\n"));
        }
        base.push_str(&format!("\"@signature-params\": {parameters}"));
        let signature = match &self.key {
            Key::Ed25519(key) => BASE64_STANDARD.encode(key.sign(base.as_bytes()).to_bytes()),
            // A key of any length is one for HMAC.
            Key::HmacSha256(key) => Hmac::<Sha256>::new_from_slice(key)
                .map(|mac| BASE64_STANDARD.encode(mac.chain_update(base.as_bytes()).finalize().into_bytes()))
                .unwrap_or_default(),
        };
        Signature { input: format!("{label}={parameters}"), signature: format!("{label}=:{signature}:") }
    }
}

/// The value of `Content-Digest`.
pub(super) fn content_digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", BASE64_STANDARD.encode(Sha256::digest(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9421, B.1.4 and B.2.6.
    #[test]
    fn the_rfcs_ed25519_example() {
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n-----END PRIVATE KEY-----\n";
        let signer = Signer::new(Algorithm::Ed25519, pem, "test-key-ed25519").expect("a key");
        let components = [
            ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
            ("@method", "POST"),
            ("@path", "/foo"),
            ("@authority", "example.com"),
            ("content-type", "application/json"),
            ("content-length", "18"),
        ];
        let signed = signer.sign_as("sig-b26", &components, "created=1618884473;keyid=\"test-key-ed25519\"");
        assert_eq!(
            signed.input,
            "sig-b26=(\"date\" \"@method\" \"@path\" \"@authority\" \"content-type\" \"content-length\");created=1618884473;keyid=\"test-key-ed25519\""
        );
        assert_eq!(
            signed.signature,
            "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:"
        );
    }

    /// RFC 9421, B.1.5 and B.2.5.
    #[test]
    fn the_rfcs_hmac_example() {
        let secret = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";
        let signer = Signer::new(Algorithm::HmacSha256, secret, "test-shared-secret").expect("a key");
        let components = [
            ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
            ("@authority", "example.com"),
            ("content-type", "application/json"),
        ];
        let signed = signer.sign_as("sig-b25", &components, "created=1618884473;keyid=\"test-shared-secret\"");
        assert_eq!(signed.signature, "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:");
    }

    /// RFC 9530, appendix D: the sha-256 of a JSON body without a line break at its end.
    #[test]
    fn a_digest_of_a_body() {
        assert_eq!(content_digest(br#"{"hello": "world"}"#), "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:");
    }

    #[test]
    fn no_key_is_no_key() {
        for (algorithm, text) in [
            (Algorithm::Ed25519, ""),
            (
                Algorithm::Ed25519,
                "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+DYvh6\n-----END PRIVATE KEY-----",
            ),
            (Algorithm::HmacSha256, "c2hvcnQ="),
            (Algorithm::HmacSha256, "not base64, though it is long enough for what is asked"),
        ] {
            let said = Signer::new(algorithm, text, "k").err().expect("no key").what;
            assert!(said.contains("openssl") && !said.contains("MC4C"), "{said}");
        }
    }
}
