//! Sealed frames: what becomes of them at a hop that may read them, and at one that may not.

use firsthop_core::{Error, Frame, Region, RegionKeyId, RegionSecretKey, SEAL_LEN};

use crate::Account;

/// The private keys that a hop holds: of the regions that it may read for.
#[derive(Clone, Debug, Default)]
pub struct RegionSecrets(Vec<(Region, RegionSecretKey)>);

impl RegionSecrets {
    /// The key of a region with this number.
    #[must_use]
    pub fn get(&self, region: Region, id: RegionKeyId) -> Option<&RegionSecretKey> {
        self.0.iter().find(|(of, key)| (*of, key.id()) == (region, id)).map(|(_, key)| key)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Region, RegionSecretKey)> for RegionSecrets {
    fn from_iter<I: IntoIterator<Item = (Region, RegionSecretKey)>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

/// What a hop can read of a frame.
#[derive(Clone, PartialEq, Eq)]
pub enum Contents {
    /// All of it: it is not sealed.
    Clear,
    /// All of it: it was sealed, and this is what was.
    Opened(Vec<u8>),
    /// Its header: it is sealed, and the key is another hop's. It goes on as it came.
    Sealed,
}

impl Contents {
    /// Opens a frame if it is sealed and the account has the key. Its signature must hold already: a seal does not say who made it.
    ///
    /// # Errors
    /// [`Error::Sealed`] if no hop of the tenant's has the key; [`Error::Seal`] if it does not open.
    pub fn of(frame: &Frame<'_>, account: &impl Account) -> Result<Self, Error> {
        let Some(id) = frame.sealed_to() else { return Ok(Self::Clear) };
        let Some(key) = account.region_secret(frame.header().region, id)? else { return Ok(Self::Sealed) };
        let mut payload = vec![0; frame.payload().len() - SEAL_LEN];
        frame.unseal(&key, &mut payload)?;
        Ok(Self::Opened(payload))
    }

    /// The frame that these are the contents of, so that its events can be read; none if they cannot.
    #[must_use]
    pub fn of_frame<'b>(&'b self, frame: &Frame<'b>) -> Option<Frame<'b>> {
        match self {
            Self::Clear => Some(*frame),
            Self::Opened(payload) => Some(frame.with_opened(payload)),
            Self::Sealed => None,
        }
    }
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Clear => "Clear",
            Self::Opened(_) => "Opened(…)",
            Self::Sealed => "Sealed",
        })
    }
}
