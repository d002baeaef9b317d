//! Sessions: granted without storing anything, renewed before they end.

use core::fmt;

use firsthop_core::{Alg, Epoch, Holder, KeyId, Region, SessionGrant, SourceId, Timestamp};
use zeroize::Zeroizing;

use crate::Account;

/// How long a session lasts, in milliseconds (1 h).
pub const SESSION_MS: u64 = 3_600_000;
/// A frame whose session ends sooner than this brings a new one back, in milliseconds (10 min).
pub const RENEW_MS: u64 = 600_000;

/// A session, as the answer brings it to the page.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// How to sign.
    pub alg: Alg,
    /// The header's `key_id`.
    pub key_id: KeyId,
    /// The header's `epoch`.
    pub epoch: Epoch,
    /// The header's `region`.
    pub region: Region,
    /// The session extension.
    pub grant: SessionGrant,
    /// The signing key.
    pub secret: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("alg", &self.alg)
            .field("key_id", &self.key_id)
            .field("epoch", &self.epoch)
            .field("region", &self.region)
            .field("grant", &self.grant)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Grants a session to a source and its holder. None if the hop has no key for now: the source goes on without.
    #[must_use]
    pub fn mint(account: &impl Account, source: SourceId, holder: Holder, now: Timestamp) -> Option<Self> {
        let (key_id, scope, lease) = account.current(now).ok()?;
        let grant = SessionGrant {
            worker: scope.worker,
            region: scope.region,
            expires: Timestamp::from_millis(now.as_millis().saturating_add(SESSION_MS)),
            holder,
        };
        let secret = lease.session_secret(source, &grant);
        Some(Self { alg: Alg::HmacSha256Trunc128, key_id, epoch: scope.epoch, region: scope.region, grant, secret })
    }

    /// What the answer to a frame brings that had this session: one for the same holder, if it ends soon or has ended.
    #[must_use]
    pub fn renewal(account: &impl Account, source: SourceId, had: &SessionGrant, now: Timestamp) -> Option<Self> {
        let lasts = had.expires.as_millis() >= now.as_millis().saturating_add(RENEW_MS);
        if lasts { None } else { Self::mint(account, source, had.holder, now) }
    }
}
