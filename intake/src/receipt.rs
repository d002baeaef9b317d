//! What became of a request's events: the receipt of a native frame, and the verdict in a header of a foreign one.

use std::ops::AddAssign;

use base64::{Engine, prelude::BASE64_STANDARD};
use firsthop_core::{Alg, Epoch, Error, Header, KeyId, SessionGrant, SourceId, Timestamp};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    Session,
    fields::{self, Fault, Others, Read, needed, optional},
};

/// The answer to a native frame. `stored + duplicate + conflict + spooled + suppressed` is `count`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The frame's source.
    pub source: SourceId,
    /// Its batch number.
    pub batch: u64,
    /// Sequence number of its first event.
    pub first: u64,
    /// How many events it held.
    pub count: u32,
    /// Stored by this request.
    pub stored: u32,
    /// Stored before.
    pub duplicate: u32,
    /// Of a known identity, but not the known content: in quarantine.
    pub conflict: u32,
    /// On disk at the edge, which hands them to the server when it is back.
    pub spooled: u32,
    /// Counted by this request, and not kept, because the visitor has not agreed.
    pub suppressed: u32,
    /// A session for the source.
    pub session: Option<Session>,
}

/// The receipt's JSON. `epoch` and the other numbers are far below 2⁵³, but `batch` and `first` are the producer's to
/// choose: a producer that reads JSON numbers as doubles should not go there.
#[derive(Default, Serialize)]
struct Wire {
    source: String,
    batch: u64,
    first: u64,
    count: u32,
    stored: u32,
    duplicate: u32,
    conflict: u32,
    // Said where there is something to say: only an edge has a spool.
    #[serde(skip_serializing_if = "is_zero")]
    spooled: u32,
    // And not every tenant holds back what nobody has agreed to.
    #[serde(skip_serializing_if = "is_zero")]
    suppressed: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<WireSession>,
}

// As serde calls it.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct WireSession {
    alg: u32,
    key_id: u32,
    epoch: u32,
    region: String,
    grant: String,
    secret: String,
    expires: u64,
}

impl Read for Wire {
    fn read(json: &str) -> Result<Self, Fault> {
        let mut wire = Self::default();
        fields::fill(
            json,
            Others::Skipped,
            &mut [
                needed("source", &mut wire.source),
                needed("batch", &mut wire.batch),
                needed("first", &mut wire.first),
                needed("count", &mut wire.count),
                needed("stored", &mut wire.stored),
                needed("duplicate", &mut wire.duplicate),
                needed("conflict", &mut wire.conflict),
                optional("spooled", &mut wire.spooled),
                optional("suppressed", &mut wire.suppressed),
                optional("session", &mut wire.session),
            ],
        )?;
        Ok(wire)
    }
}

impl Read for WireSession {
    fn read(json: &str) -> Result<Self, Fault> {
        let mut session = Self::default();
        fields::fill(
            json,
            Others::Skipped,
            &mut [
                needed("alg", &mut session.alg),
                needed("keyId", &mut session.key_id),
                needed("epoch", &mut session.epoch),
                needed("region", &mut session.region),
                needed("grant", &mut session.grant),
                needed("secret", &mut session.secret),
                needed("expires", &mut session.expires),
            ],
        )?;
        Ok(session)
    }
}

impl Receipt {
    /// The receipt of a frame whose events were all stored.
    #[must_use]
    pub fn stored(header: &Header) -> Self {
        let count = header.count.into();
        Self {
            source: header.source,
            batch: header.batch_seq,
            first: header.first_seq,
            count,
            stored: count,
            duplicate: 0,
            conflict: 0,
            spooled: 0,
            suppressed: 0,
            session: None,
        }
    }

    /// The receipt of a frame whose events were all stored before.
    #[must_use]
    pub fn duplicate(header: &Header) -> Self {
        Self { stored: 0, duplicate: header.count.into(), ..Self::stored(header) }
    }

    /// The receipt of a frame that an edge has in its spool.
    #[must_use]
    pub fn spooled(header: &Header) -> Self {
        Self { stored: 0, spooled: header.count.into(), ..Self::stored(header) }
    }

    /// The body of the answer.
    #[must_use]
    pub fn to_json(&self) -> String {
        let wire = Wire {
            source: self.source.to_string(),
            batch: self.batch,
            first: self.first,
            count: self.count,
            stored: self.stored,
            duplicate: self.duplicate,
            conflict: self.conflict,
            spooled: self.spooled,
            suppressed: self.suppressed,
            session: self.session.as_ref().map(|session| WireSession {
                alg: session.alg as u32,
                key_id: session.key_id.get(),
                epoch: session.epoch.get(),
                region: session.region.to_string(),
                grant: BASE64_STANDARD.encode(session.grant.to_bytes()),
                secret: BASE64_STANDARD.encode(&session.secret[..]),
                expires: session.grant.expires.as_millis(),
            }),
        };
        // Strings and numbers: nothing in it can fail.
        serde_json::to_string(&wire).unwrap_or_default()
    }

    /// Reads a receipt. Members that this version does not know are skipped.
    ///
    /// # Errors
    /// [`Error::Parse`] if it is none.
    pub fn from_json(body: &[u8]) -> Result<Self, Error> {
        let body = std::str::from_utf8(body).map_err(|_| Error::Parse)?;
        let wire = Wire::read(body).map_err(|_| Error::Parse)?;
        Ok(Self {
            source: wire.source.parse()?,
            batch: wire.batch,
            first: wire.first,
            count: wire.count,
            stored: wire.stored,
            duplicate: wire.duplicate,
            conflict: wire.conflict,
            spooled: wire.spooled,
            suppressed: wire.suppressed,
            session: wire.session.map(Session::try_from).transpose()?,
        })
    }
}

impl TryFrom<WireSession> for Session {
    type Error = Error;

    fn try_from(wire: WireSession) -> Result<Self, Error> {
        let mut secret = Zeroizing::new([0; 32]);
        let len = BASE64_STANDARD.decode_slice(&wire.secret, &mut secret[..]).map_err(|_| Error::Parse)?;
        let grant = BASE64_STANDARD.decode(wire.grant).map_err(|_| Error::Parse)?;
        let session = Self {
            alg: match wire.alg {
                1 => Alg::HmacSha256Trunc128,
                _ => return Err(Error::Algorithm),
            },
            key_id: KeyId::new(wire.key_id),
            epoch: Epoch::new(wire.epoch),
            region: wire.region.parse()?,
            grant: SessionGrant::from_bytes(&grant)?,
            secret,
        };
        let whole = len == session.secret.len() && session.grant.expires == Timestamp::from_millis(wire.expires);
        if whole { Ok(session) } else { Err(Error::Parse) }
    }
}

/// What became of a request's events, as the header `Firsthop-Receipt` says it: for answers whose body is another
/// vendor's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Stored by this request.
    pub stored: u32,
    /// Stored before.
    pub duplicate: u32,
    /// Of a known identity, but not the known content: in quarantine.
    pub conflict: u32,
    /// Refused, and set aside.
    pub quarantined: u32,
    /// On disk at the edge, which hands them to the server when it is back.
    pub spooled: u32,
    /// Counted, and not kept, because the visitor has not agreed.
    pub suppressed: u32,
}

impl AddAssign<&Receipt> for Verdict {
    fn add_assign(&mut self, receipt: &Receipt) {
        self.stored += receipt.stored;
        self.duplicate += receipt.duplicate;
        self.conflict += receipt.conflict;
        self.spooled += receipt.spooled;
        self.suppressed += receipt.suppressed;
    }
}

impl Verdict {
    /// The header's name, in lower case.
    pub const HEADER: &'static str = "firsthop-receipt";

    /// The header's value: a dictionary of integers (RFC 9651 §3.2). `spooled` and `suppressed` are said where there is something to say.
    #[must_use]
    pub fn to_header(&self) -> String {
        let Self { stored, duplicate, conflict, quarantined, spooled, suppressed } = self;
        let mut header =
            format!("stored={stored}, duplicate={duplicate}, conflict={conflict}, quarantined={quarantined}");
        if *spooled > 0 {
            header += &format!(", spooled={spooled}");
        }
        if *suppressed > 0 {
            header += &format!(", suppressed={suppressed}");
        }
        header
    }

    /// Reads the header. Keys that this version does not know and parameters are skipped; a repeated key counts as it
    /// stands last; a missing one is 0.
    ///
    /// # Errors
    /// [`Error::Parse`] if it is no dictionary, or one of the five is not a count.
    pub fn from_header(value: &str) -> Result<Self, Error> {
        let mut verdict = Self::default();
        let mut rest = value.trim_matches(' ');
        while !rest.is_empty() {
            let end = member_end(rest)?;
            let (member, tail) = rest.split_at(end);
            let (key, value) = member.split_once(['=', ';']).unwrap_or((member.trim_end_matches([' ', '\t']), ""));
            if !is_key(key) {
                return Err(Error::Parse);
            }
            let count = match key {
                "stored" => Some(&mut verdict.stored),
                "duplicate" => Some(&mut verdict.duplicate),
                "conflict" => Some(&mut verdict.conflict),
                "quarantined" => Some(&mut verdict.quarantined),
                "spooled" => Some(&mut verdict.spooled),
                "suppressed" => Some(&mut verdict.suppressed),
                _ => None,
            };
            if let Some(count) = count {
                let digits = value.split(';').next().unwrap_or_default().trim_end_matches([' ', '\t']);
                let whole = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
                *count = if whole { digits.parse().map_err(|_| Error::Parse)? } else { return Err(Error::Parse) };
            }
            rest = match tail.strip_prefix(',') {
                None => "",
                Some(tail) => match tail.trim_start_matches([' ', '\t']) {
                    // A comma at the end separates nothing.
                    "" => return Err(Error::Parse),
                    tail => tail,
                },
            };
        }
        Ok(verdict)
    }
}

/// Where the first member of a dictionary ends: at a comma outside of a quoted string.
fn member_end(text: &str) -> Result<usize, Error> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return Ok(at),
            _ => {}
        }
    }
    if quoted { Err(Error::Parse) } else { Ok(text.len()) }
}

/// RFC 9651 §3.1.2.
fn is_key(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_lowercase() || c == '*')
        && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_verdict_adds_up() {
        let header = Header { count: 3, ..Header::new(Default::default(), SourceId::default(), Timestamp::default()) };
        let mut verdict = Verdict { quarantined: 2, ..Verdict::default() };
        verdict += &Receipt::stored(&header);
        verdict += &Receipt::duplicate(&header);
        verdict += &Receipt { stored: 1, conflict: 2, ..Receipt::stored(&header) };
        assert_eq!(verdict.to_header(), "stored=4, duplicate=3, conflict=2, quarantined=2");
        verdict += &Receipt::spooled(&header);
        assert_eq!(verdict.to_header(), "stored=4, duplicate=3, conflict=2, quarantined=2, spooled=3");
    }

    #[test]
    fn what_is_spooled_is_said_only_where_something_is() {
        let header = Header { count: 3, ..Header::new(Default::default(), SourceId::default(), Timestamp::default()) };
        for (receipt, says) in [(Receipt::spooled(&header), true), (Receipt::stored(&header), false)] {
            let json = receipt.to_json();
            assert_eq!(json.contains("spooled"), says, "{json}");
            assert_eq!(Receipt::from_json(json.as_bytes()), Ok(receipt.clone()));
            assert_eq!(receipt.stored + receipt.duplicate + receipt.conflict + receipt.spooled, receipt.count);
        }
    }

    #[test]
    fn dictionaries_of_others() {
        let seven = Verdict { stored: 7, ..Verdict::default() };
        for (header, expected) in [
            ("", Verdict::default()),
            ("stored=7", seven),
            (" stored=7,\tlater=\"a, stored=9\\\"\" ", seven),
            ("stored=1;x=2, flag, stored=7;y", seven),
            ("flag;a=\"b\",stored=7", seven),
            ("list=(1 2), stored=7", seven),
        ] {
            assert_eq!(Verdict::from_header(header), Ok(expected), "{header}");
        }
        for header in [
            "stored",
            "stored=",
            "stored=?1",
            "stored=-1",
            "stored=1.5",
            "stored=+7",
            "stored=99999999999",
            "Stored=1",
            "=1",
            "stored=1,",
            "stored=1,,duplicate=1",
            "stored=1 duplicate=1",
            "a=\"open, stored=1",
            "7=1",
            "é=1",
        ] {
            assert_eq!(Verdict::from_header(header), Err(Error::Parse), "{header}");
        }
    }

    proptest! {
        #[test]
        fn a_verdict_survives_its_header(stored: u32, duplicate: u32, conflict: u32, quarantined: u32, spooled: u32, suppressed: u32) {
            let verdict = Verdict { stored, duplicate, conflict, quarantined, spooled, suppressed };
            prop_assert_eq!(Verdict::from_header(&verdict.to_header()), Ok(verdict));
        }

        #[test]
        fn any_header_is_read_without_a_panic(header in "[a-z*=,;\" \\\\0-9é]{0,40}") {
            let _ = Verdict::from_header(&header);
        }
    }
}
