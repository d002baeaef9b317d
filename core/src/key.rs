//! Key derivation: root → lease → session and envelope keys. Nothing derived is ever stored.
//!
//! ```text
//! root (tenant, key_id; stays in the cluster)
//!   ├─ hash key = HKDF(root, "firsthop/hash/1" ‖ tenant ‖ region ‖ generation)             replaces values that are not to be kept
//!   └─ lease  = HKDF(root,  "firsthop/lease/1"   ‖ tenant ‖ region ‖ worker ‖ epoch)       one first hop, one hour
//!        ├─ envelope key = HKDF(lease, "firsthop/envelope/1")                             signs what the hop forwards
//!        └─ session key  = HKDF(lease, "firsthop/session/1" ‖ source ‖ holder ‖ expiry)   signs one page's frames
//! ```
//!
//! Whoever steals a lease can forge for one tenant, region, worker and epoch, and no more. HKDF is RFC 5869 with
//! SHA-256; every field of `info` is preceded by its length in one byte, so that no two inputs read alike.

use core::fmt;

use hkdf::Hkdf;
use hmac::Mac;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    Alg, Epoch, Error, ExtensionKind, Extensions, Flags, Frame, FrameVerifier, HEADER_LEN, Header, MacKey, Region,
    SourceId, TenantId, Timestamp, WorkerId,
    header::RawHeader,
    limits::{MAX_SESSION_MS, SESSION_GRACE_MS},
    sign::hmac,
};

type Secret = Zeroizing<[u8; 32]>;

/// Longest `info`: a session's label and fields, and their lengths.
const MAX_INFO: usize = 18 + 16 + 16 + 8 + 4;

/// A tenant's root key. It never leaves the customer's cluster.
#[derive(Clone)]
pub struct RootKey(Secret);

/// What a lease is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseScope {
    /// Whose events.
    pub tenant: TenantId,
    /// Where the first hop stands.
    pub region: Region,
    /// Which first hop.
    pub worker: WorkerId,
    /// Which hour.
    pub epoch: Epoch,
}

/// A first hop's key for one epoch.
#[derive(Clone)]
pub struct LeaseKey(Secret);

/// What first hops of a region replace a person's values with hashes by: the same for all of them and for years, so that what is the
/// same stays the same. Whoever has it can try values, and do nothing else with it.
#[derive(Clone)]
pub struct HashKey(Secret);

impl HashKey {
    /// From the 32 bytes that the server handed out.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self(secret.into())
    }

    /// The 32 bytes, for the answer that hands them out.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// What stands for a value: the first 16 bytes of its HMAC-SHA256.
    #[must_use]
    pub fn hash(&self, value: &[u8]) -> [u8; 16] {
        let mut hmac = hmac(&self.0);
        hmac.update(value);
        let mut hash = [0; 16];
        hash.copy_from_slice(&hmac.finalize().into_bytes()[..16]);
        hash
    }
}

impl RootKey {
    /// From 32 random bytes.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self(secret.into())
    }

    /// The key of one first hop for one epoch.
    #[must_use]
    pub fn lease(&self, scope: &LeaseScope) -> LeaseKey {
        LeaseKey(derive(
            &self.0,
            b"firsthop/lease/1",
            [
                &scope.tenant.get().to_le_bytes(),
                scope.region.as_bytes(),
                &scope.worker.get().to_le_bytes(),
                &scope.epoch.get().to_le_bytes(),
            ],
        ))
    }

    /// The key that values are hashed with in one region; another `generation`, another key.
    #[must_use]
    pub fn hash_key(&self, tenant: TenantId, region: Region, generation: u32) -> HashKey {
        HashKey(derive(
            &self.0,
            b"firsthop/hash/1",
            [&tenant.get().to_le_bytes(), region.as_bytes(), &generation.to_le_bytes()],
        ))
    }

    /// The 32 bytes, for the store that keeps them.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl LeaseKey {
    /// From the 32 bytes that the server handed out.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self(secret.into())
    }

    /// The 32 bytes, for the answer that hands them out.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key that signs the hop's envelopes.
    ///
    /// # Errors
    /// [`Error::Algorithm`] if `alg` is not symmetric, or this build lacks it.
    pub fn envelope_key(&self, alg: Alg) -> Result<MacKey, Error> {
        MacKey::new(alg, &self.envelope_secret())
    }

    /// The secret of that key, for a hop whose platform computes the tag.
    #[must_use]
    pub fn envelope_secret(&self) -> Zeroizing<[u8; 32]> {
        derive(&self.0, b"firsthop/envelope/1", [])
    }

    /// The secret of one session, for the page that it is granted to.
    #[must_use]
    pub fn session_secret(&self, source: SourceId, grant: &SessionGrant) -> Zeroizing<[u8; 32]> {
        derive(
            &self.0,
            b"firsthop/session/1",
            [source.as_bytes(), &grant.holder.0, &grant.expires.as_millis().to_le_bytes()],
        )
    }

    /// Checks a page's frame against the session that it claims: its length, its end and its signature.
    ///
    /// The lease must be the one that the frame's header and grant name. The frame is accepted until
    /// [`SESSION_GRACE_MS`] after the session's end, for pages that were offline.
    ///
    /// # Errors
    /// [`Error::Session`], [`Error::SessionExpired`], [`Error::Algorithm`], [`Error::Signature`].
    pub fn verify_session(&self, frame: &Frame<'_>, now: Timestamp) -> Result<SessionGrant, Error> {
        let grant = frame.session()?;
        let header = frame.header();
        grant.check(header.epoch, now)?;
        let key = MacKey::new(header.alg, &self.session_secret(header.source, &grant))?;
        frame.verify(&key)?;
        Ok(grant)
    }
}

macro_rules! redacted {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
}
redacted!(RootKey);
redacted!(LeaseKey);
redacted!(HashKey);

/// Length of a session grant on the wire, in bytes.
pub const SESSION_GRANT_LEN: usize = 30;

/// What a session key is derived from and the header does not say. It travels with every frame of the session, so
/// that a stored frame can be checked again years later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionGrant {
    /// The first hop that granted the session.
    pub worker: WorkerId,
    /// The region of that first hop.
    pub region: Region,
    /// When the session ends.
    pub expires: Timestamp,
    /// Whom it was granted to.
    pub holder: Holder,
}

impl SessionGrant {
    /// The grant as it stands in the frame.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SESSION_GRANT_LEN] {
        let mut bytes = [0; SESSION_GRANT_LEN];
        bytes[0..4].copy_from_slice(&self.worker.get().to_le_bytes());
        bytes[4..6].copy_from_slice(self.region.as_bytes());
        bytes[6..14].copy_from_slice(&self.expires.as_millis().to_le_bytes());
        bytes[14..30].copy_from_slice(&self.holder.0);
        bytes
    }

    /// Reads a grant.
    ///
    /// # Errors
    /// [`Error::Session`] if it is not one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let b: &[u8; SESSION_GRANT_LEN] = bytes.try_into().map_err(|_| Error::Session)?;
        let mut expires = [0; 8];
        expires.copy_from_slice(&b[6..14]);
        let mut holder = [0; 16];
        holder.copy_from_slice(&b[14..30]);
        Ok(Self {
            worker: WorkerId::new(u32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            region: Region::new([b[4], b[5]]).map_err(|_| Error::Session)?,
            expires: Timestamp::from_millis(u64::from_le_bytes(expires)),
            holder: Holder(holder),
        })
    }

    /// The lease that the session's key comes from, with what the frame's header adds.
    #[must_use]
    pub const fn scope(&self, tenant: TenantId, epoch: Epoch) -> LeaseScope {
        LeaseScope { tenant, region: self.region, worker: self.worker, epoch }
    }

    /// Checks a frame's signature by the key of the session that it claims, which the caller has kept, or by what was
    /// [computed](crate::Computed) for it elsewhere; and the session's length and end.
    ///
    /// # Errors
    /// As [`LeaseKey::verify_session`].
    pub fn verify(frame: &Frame<'_>, now: Timestamp, key: &impl FrameVerifier) -> Result<Self, Error> {
        let grant = frame.session()?;
        grant.check(frame.header().epoch, now)?;
        frame.verify(key)?;
        Ok(grant)
    }

    /// Whether the session's length is one that a first hop may grant, and it and its grace have not ended.
    fn check(&self, epoch: Epoch, now: Timestamp) -> Result<(), Error> {
        let expires = self.expires.as_millis();
        let granted = epoch.start().as_millis();
        // A lease is used within one epoch of its own.
        if expires < granted || expires - granted > MAX_SESSION_MS + 2 * Epoch::MILLIS {
            return Err(Error::Session);
        }
        if epoch > Epoch::new(Epoch::at(now).get().saturating_add(1)) {
            return Err(Error::Epoch);
        }
        if now.as_millis() > expires.saturating_add(SESSION_GRACE_MS) {
            return Err(Error::SessionExpired);
        }
        Ok(())
    }
}

/// The session that a body claims, before anything of it is known to hold: for a hop that keeps the keys of sessions, or whose platform computes
/// the tag.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The header as it stands there.
    pub header: Header,
    /// The session.
    pub grant: SessionGrant,
    /// What the tag is made over, behind [`DOMAIN`](crate::DOMAIN).
    pub signed: &'a [u8],
}

impl<'a> Claim<'a> {
    /// What a body claims. None if it claims no session, or is no frame.
    #[must_use]
    pub fn peek(body: &'a [u8]) -> Option<Self> {
        let RawHeader { header, header_len, .. } = RawHeader::read(body).ok()?;
        let extensions = Extensions::new(body.get(HEADER_LEN..header_len)?);
        let grant = extensions.get(ExtensionKind::Session).filter(|_| header.flags.contains(Flags::TRUST))?;
        let signed = body.get(..body.len().checked_sub(header.alg.tag_len())?)?;
        Some(Self { header, grant: SessionGrant::from_bytes(grant).ok()?, signed })
    }
}

/// Whom a session was granted to: a page's origin and the write key that it showed, as digests. Two halves, so that a session ends with
/// its write key also where a request hides its origin, and a refusal can say which of them is wrong.
///
/// 64 bits each are enough: a grant is signed by whoever uses it, so that a digest cannot be chosen to match; and who has the
/// session's secret outside a browser may call any origin its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder([u8; 16]);

impl Holder {
    /// The origin as browsers send it (`https://shop.example`; empty where there was none), and the write key.
    #[must_use]
    pub fn new(origin: &str, write_key: &str) -> Self {
        let mut halves = [0; 16];
        halves[..8].copy_from_slice(&half(origin));
        halves[8..].copy_from_slice(&half(write_key));
        Self(halves)
    }

    /// Whether the session was granted to this origin.
    #[must_use]
    pub fn has_origin(&self, origin: &str) -> bool {
        self.0[..8] == half(origin)
    }

    /// Whether the session was granted for this write key.
    #[must_use]
    pub fn has_write_key(&self, write_key: &str) -> bool {
        self.0[8..] == half(write_key)
    }
}

/// The first 8 bytes of the SHA-256.
fn half(text: &str) -> [u8; 8] {
    let mut half = [0; 8];
    half.copy_from_slice(&Sha256::digest(text.as_bytes())[..8]);
    half
}

/// HKDF-SHA256 with an empty salt. Every field of `info` has its length in front, in one byte.
fn derive<const N: usize>(secret: &Secret, label: &[u8], fields: [&[u8]; N]) -> Secret {
    let mut info = [0; MAX_INFO];
    let mut len = 0;
    for field in [label].into_iter().chain(fields) {
        info[len] = field.len() as u8;
        len += 1 + field.len();
        info[len - field.len()..len].copy_from_slice(field);
    }
    let mut out = Secret::default();
    match Hkdf::<Sha256>::new(None, &secret[..]).expand(&info[..len], &mut out[..]) {
        Ok(()) => out,
        Err(_) => unreachable!("HKDF gives up to 255 times 32 bytes"),
    }
}
