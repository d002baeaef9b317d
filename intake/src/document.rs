//! Signed documents: what a server tells edges and pages about a tenant that they must be able to check without asking it.
//!
//! ```text
//! text       {"kind":"policy","tenant":"00000000000000c8","version":1700000000000,"issued":1700000000000,"body":{…}}
//! signature  Ed25519 over "firsthop-document-v1" 00 ‖ kind ‖ 00 ‖ text
//! ```
//!
//! The text is signed as it is, to the byte, and travels so; nobody writes it again. The signature is checked before anything in the text
//! is looked at: that is the caller's, who has the means (an edge WebCrypto, the server its own). A version only rises; who has seen one
//! takes no lower one.

use base64::{Engine, prelude::BASE64_STANDARD};
use firsthop_core::{Region, RegionKeyId, TenantId, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::fields::{self, Fault, Others, Raw, Read, fill, needed, optional};

/// Longest text of a document, in bytes.
pub const MAX_TEXT: usize = 128 * 1024;
/// Most that a tenant's documents come to together, in bytes of the JSON in which they travel: with keys beside them they are within what an
/// edge reads as an answer (256 KiB). The longest text is, but for one that is full of quotes and backslashes.
pub const MAX_ALL: usize = 192 * 1024;

/// What stands before everything that a document key signs.
const DOMAIN: &[u8] = b"firsthop-document-v1\0";

/// What a document is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Which region may do what with a frame, and by which rules: a [`Policy`](crate::policy::Policy), or null once the tenant has none
    /// any more.
    Policy,
    /// What frames are sealed to ([`RegionKeys`]).
    RegionKeys,
}

impl Kind {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::RegionKeys => "region-keys",
        }
    }
}

/// A document as it travels. Nothing in it is to be believed before its signature is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signed {
    /// As a text, so that a reader who does not know it passes the document over.
    pub kind: String,
    /// JSON of a [`Document`].
    pub text: String,
    /// In base64.
    #[serde(serialize_with = "in_base64")]
    pub signature: [u8; 64],
}

/// What a document's text says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document<T> {
    /// What it is about.
    pub kind: Kind,
    /// Whose it is.
    #[serde(with = "as_text")]
    pub tenant: TenantId,
    /// Higher than that of every other text of this tenant and kind that was signed before.
    pub version: u64,
    /// When it was signed.
    #[serde(with = "millis")]
    pub issued: Timestamp,
    /// What is said.
    pub body: T,
}

/// The body of [`Kind::RegionKeys`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RegionKeys {
    /// Those that have not ended, by region and then by when they begin.
    pub keys: Vec<RegionKey>,
}

/// What frames for a region are sealed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RegionKey {
    /// Its number in sealed frames; of one tenant no two keys have the same.
    #[serde(serialize_with = "number")]
    pub id: RegionKeyId,
    /// Who can open what is sealed to it.
    #[serde(serialize_with = "as_text::serialize")]
    pub region: Region,
    /// X25519, 32 bytes in base64.
    #[serde(serialize_with = "in_base64")]
    pub public: [u8; 32],
    /// Not to be used before.
    #[serde(serialize_with = "millis::serialize")]
    pub from: Timestamp,
    /// Not to be used from then on; what was sealed to it before is opened all the same.
    #[serde(serialize_with = "millis_or_none", skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl RegionKeys {
    /// What to seal to at this moment: of the keys that are in force, the one that began last.
    #[must_use]
    pub fn current(&self, region: Region, now: Timestamp) -> Option<&RegionKey> {
        let in_force =
            |key: &&RegionKey| key.region == region && key.from <= now && key.until.is_none_or(|until| now < until);
        self.keys.iter().filter(in_force).max_by_key(|key| (key.from, key.id))
    }
}

/// Why a document is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unfit {
    /// Its text is over [`MAX_TEXT`].
    TooLarge,
    /// Its text is not the JSON of such a document.
    Malformed,
    /// It is about something else than it says outside.
    Kind,
    /// It is another tenant's.
    Tenant,
    /// There was a newer one.
    Old,
}

impl Unfit {
    /// For logs and counters: lower case, hyphenated, stable.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "document-too-large",
            Self::Malformed => "document-malformed",
            Self::Kind => "document-of-another-kind",
            Self::Tenant => "document-of-another-tenant",
            Self::Old => "document-too-old",
        }
    }
}

impl Read for Signed {
    fn read(json: &str) -> Result<Self, Fault> {
        let mut signed = Self { kind: String::new(), text: String::new(), signature: [0; 64] };
        fill(
            json,
            Others::Skipped,
            &mut [
                needed("kind", &mut signed.kind),
                needed("text", &mut signed.text),
                needed("signature", &mut signed.signature),
            ],
        )?;
        Ok(signed)
    }
}

impl Read for RegionKeys {
    fn read(json: &str) -> Result<Self, Fault> {
        let mut keys = Self::default();
        fill(json, Others::Skipped, &mut [needed("keys", &mut keys.keys)])?;
        Ok(keys)
    }
}

impl Read for RegionKey {
    fn read(json: &str) -> Result<Self, Fault> {
        let (region, from) = Default::default();
        let mut key = Self { id: RegionKeyId::new(0), region, public: [0; 32], from, until: None };
        fill(
            json,
            Others::Skipped,
            &mut [
                needed("id", &mut key.id),
                needed("region", &mut key.region),
                needed("public", &mut key.public),
                needed("from", &mut key.from),
                optional("until", &mut key.until),
            ],
        )?;
        Ok(key)
    }
}

fields::deserialised! { Signed, RegionKeys, RegionKey }

/// What the signature of a document is made over.
#[must_use]
pub fn signed_bytes(kind: &str, text: &str) -> Vec<u8> {
    [DOMAIN, kind.as_bytes(), &[0], text.as_bytes()].concat()
}

impl Signed {
    /// What its signature must have been made over.
    ///
    /// # Errors
    /// [`Unfit::TooLarge`]; [`Unfit::Kind`] for a kind that no document has, which would make the bytes ambiguous.
    pub fn signed_bytes(&self) -> Result<Vec<u8>, Unfit> {
        if self.text.len() > MAX_TEXT {
            return Err(Unfit::TooLarge);
        }
        if self.kind.is_empty()
            || self.kind.len() > 32
            || !self.kind.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
        {
            return Err(Unfit::Kind);
        }
        Ok(signed_bytes(&self.kind, &self.text))
    }

    /// What it says. Only to be asked once its signature is verified. `newest` is the version of the last one of this tenant and kind that
    /// was taken, 0 if there was none; the same again is taken too.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn read<T: Read>(&self, kind: Kind, tenant: TenantId, newest: u64) -> Result<Document<T>, Unfit> {
        if self.text.len() > MAX_TEXT {
            return Err(Unfit::TooLarge);
        }
        // Whose and how new first: the body of a document that is not for us, or of a kind to come, need not be readable.
        let (mut said, mut whose, mut version) = (String::new(), TenantId::new(0), 0_u64);
        let (mut issued, mut body) = <(Timestamp, Raw)>::default();
        fill(
            &self.text,
            Others::Skipped,
            &mut [
                needed("kind", &mut said),
                needed("tenant", &mut whose),
                needed("version", &mut version),
                needed("issued", &mut issued),
                needed("body", &mut body),
            ],
        )
        .map_err(|_| Unfit::Malformed)?;
        if said != kind.as_str() || self.kind != kind.as_str() {
            return Err(Unfit::Kind);
        }
        if whose != tenant {
            return Err(Unfit::Tenant);
        }
        if version < newest {
            return Err(Unfit::Old);
        }
        let body = T::read(&body.0).map_err(|_| Unfit::Malformed)?;
        Ok(Document { kind, tenant, version, issued, body })
    }
}

impl<T: Serialize> Document<T> {
    /// The text that is to be signed. None if the body is no JSON, or too long.
    #[must_use]
    pub fn to_text(&self) -> Option<String> {
        serde_json::to_string(self).ok().filter(|text| text.len() <= MAX_TEXT)
    }
}

mod as_text {
    use super::*;

    pub(super) fn serialize<T: ToString, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.to_string())
    }

    pub(super) fn deserialize<'de, T: std::str::FromStr, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|_| D::Error::custom("no id and no region"))
    }
}

fn number<S: Serializer>(value: &RegionKeyId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u32(value.get())
}

mod millis {
    use super::*;

    pub(super) fn serialize<S: Serializer>(value: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(value.as_millis())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        u64::deserialize(deserializer).map(Timestamp::from_millis)
    }
}

fn millis_or_none<S: Serializer>(value: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(Timestamp::as_millis).serialize(serializer)
}

/// Bytes in base64.
fn in_base64<const N: usize, S: Serializer>(value: &[u8; N], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_STANDARD.encode(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TENANT: TenantId = TenantId::new(0xc8);
    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn keys() -> RegionKeys {
        let key = |id, region: &str, from: i64, until: Option<i64>| RegionKey {
            id: RegionKeyId::new(id),
            region: region.parse().expect("two capitals"),
            public: [id as u8; 32],
            from: NOW.offset(from),
            until: until.map(|until| NOW.offset(until)),
        };
        RegionKeys { keys: vec![key(1, "EU", -100, Some(50)), key(3, "EU", 20, None), key(2, "US", -100, Some(0))] }
    }

    fn signed() -> Signed {
        let document = Document { kind: Kind::RegionKeys, tenant: TENANT, version: 7, issued: NOW, body: keys() };
        Signed { kind: "region-keys".into(), text: document.to_text().expect("short"), signature: [9; 64] }
    }

    #[test]
    fn a_document_reads_as_it_was_written_and_its_bytes_are_those_that_the_description_says() {
        let signed = signed();
        assert!(signed.text.starts_with(
            r#"{"kind":"region-keys","tenant":"00000000000000c8","version":7,"issued":1700000000000,"body":{"keys":[{"id":1,"region":"EU","public":"AQEB"#
        ));
        let bytes = signed.signed_bytes().expect("well-formed");
        let expected = format!("firsthop-document-v1\0region-keys\0{}", signed.text);
        assert_eq!(bytes, expected.as_bytes());
        let read: Document<RegionKeys> = signed.read(Kind::RegionKeys, TENANT, 7).expect("the same again");
        assert_eq!((read.version, read.issued, read.body), (7, NOW, keys()));
        let travelled: Signed =
            serde_json::from_str(&serde_json::to_string(&signed).expect("JSON")).expect("as it was sent");
        assert_eq!(travelled, signed);
    }

    #[test]
    fn what_is_not_for_the_reader_or_older_is_not_taken() {
        let read = |signed: &Signed, kind, tenant, newest| signed.read::<RegionKeys>(kind, tenant, newest).err();
        let good = signed();
        assert_eq!(read(&good, Kind::RegionKeys, TENANT, 8), Some(Unfit::Old));
        assert_eq!(read(&good, Kind::RegionKeys, TenantId::new(1), 0), Some(Unfit::Tenant));
        assert_eq!(read(&good, Kind::Policy, TENANT, 0), Some(Unfit::Kind));
        let named_otherwise = Signed { kind: "policy".into(), ..good.clone() };
        assert_eq!(read(&named_otherwise, Kind::RegionKeys, TENANT, 0), Some(Unfit::Kind));
        assert_eq!(read(&named_otherwise, Kind::Policy, TENANT, 0), Some(Unfit::Kind));
        for text in ["", "{}", "[]", &good.text[1..], &format!("{} x", good.text), &good.text.replace("AQEB", "AQE")] {
            let bad = Signed { text: text.into(), ..good.clone() };
            assert_eq!(read(&bad, Kind::RegionKeys, TENANT, 0), Some(Unfit::Malformed), "{text}");
        }
        let long = Signed { text: " ".repeat(MAX_TEXT + 1), ..good.clone() };
        assert_eq!(read(&long, Kind::RegionKeys, TENANT, 0), Some(Unfit::TooLarge));
        assert_eq!(long.signed_bytes(), Err(Unfit::TooLarge));
        for kind in ["", "a\0b", "Policy", "policy ", &"a".repeat(33)] {
            assert_eq!(Signed { kind: kind.into(), ..good.clone() }.signed_bytes(), Err(Unfit::Kind), "{kind:?}");
        }
        // What a later version adds is no reason to refuse the rest.
        let more = Signed { text: good.text.replacen(r#""body":"#, r#""more":[1],"body":"#, 1), ..good };
        assert_eq!(read(&more, Kind::RegionKeys, TENANT, 0), None);
    }

    #[test]
    fn the_key_to_seal_to_is_the_last_that_has_begun_and_not_ended() {
        let keys = keys();
        let at = |region: &str, moment: i64| {
            keys.current(region.parse().expect("two capitals"), NOW.offset(moment)).map(|key| key.id.get())
        };
        assert_eq!(
            [-101, -100, 19, 20, 49, 50, 1 << 40].map(|moment| at("EU", moment)),
            [None, Some(1), Some(1), Some(3), Some(3), Some(3), Some(3)]
        );
        assert_eq!((at("US", -1), at("US", 0), at("CH", 0)), (Some(2), None, None));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(kind in "[a-z\\x00 -]{0,40}", text in "\\PC{0,200}", newest: u64) {
            let signed = Signed { kind, text, signature: [0; 64] };
            let _ = signed.signed_bytes();
            prop_assert!(signed.read::<RegionKeys>(Kind::RegionKeys, TENANT, newest).is_err());
        }

        #[test]
        fn two_documents_never_sign_the_same_bytes(a in "[a-z-]{1,32}", b in "[a-z-]{1,32}", x in "\\PC{0,20}", y in "\\PC{0,20}") {
            let bytes = |kind: &str, text: &str| {
                Signed { kind: kind.into(), text: text.into(), signature: [0; 64] }.signed_bytes().expect("well-formed")
            };
            prop_assert_eq!(bytes(&a, &x) == bytes(&b, &y), (a, x) == (b, y));
        }
    }
}
