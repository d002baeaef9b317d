//! What frames are sealed to: made, and ended.

use std::time::Duration;

use firsthop_core::{Region, RegionKeyId, Timestamp};

use super::{
    RegionKeyPair, Store,
    store::{StoredTenant, new_root},
};
use crate::Error;

/// How long a key is published before it is used, where the region has another: longer than a page stays open, as a rule.
const LEAD: Duration = Duration::from_secs(24 * 3600);
/// Most keys of one region that are published at a time: pages carry all of them.
const MOST_PUBLISHED: usize = 8;

impl Store {
    /// Makes a key pair for a region. Producers seal to it once `lead` is over, so that all have heard of it then; the keys before it are
    /// published for `overlap` longer than that, for pages that were built with them.
    ///
    /// `lead`: none means at once for a region's first key, and a day for a later one.
    ///
    /// # Errors
    /// [`Error::Tenant`], [`Error::Io`].
    pub fn add_region_key(
        &self,
        said: Option<&str>,
        region: Option<Region>,
        lead: Option<Duration>,
        overlap: Duration,
        now: Timestamp,
    ) -> Result<(StoredTenant, RegionKeyPair), Error> {
        let _lock = self.lock()?;
        let mut stored = self.find(said)?;
        let region = region.unwrap_or(stored.tenant.region);
        if region == Region::ANY {
            return Err(Error::tenant("a key is for one region: say --region and two capitals, such as EU"));
        }
        check_region(&stored, region)?;
        let last = stored.keys.last_region_key().unwrap_or(0);
        let keys = &mut stored.keys.region_keys;
        let is_published = |key: &&RegionKeyPair| key.region == region && key.is_published(now);
        if keys.iter().filter(is_published).count() >= MOST_PUBLISHED {
            return Err(Error::tenant(format!(
                "{MOST_PUBLISHED} keys of {region} are published already; `firsthop region-key retire` ends one"
            )));
        }
        let lead = lead.unwrap_or(if keys.iter().any(|key| is_published(&key)) { LEAD } else { Duration::ZERO });
        let from = later(now, lead);
        let until = later(from, overlap);
        for key in keys.iter_mut().filter(|key| key.region == region && key.is_published(now)) {
            key.until = Some(key.until.map_or(until, |earlier| earlier.min(until)));
        }
        let made = RegionKeyPair::new(RegionKeyId::new(last + 1), region, from, new_root());
        keys.push(made.clone());
        stored.save_keys()?;
        Ok((stored, made))
    }

    /// Ends a key: nobody is told of it any more. Its private half stays, for what was sealed to it.
    ///
    /// # Errors
    /// [`Error::Tenant`], [`Error::Io`].
    pub fn retire_region_key(
        &self,
        said: Option<&str>,
        id: RegionKeyId,
        now: Timestamp,
    ) -> Result<(StoredTenant, RegionKeyPair), Error> {
        let _lock = self.lock()?;
        let mut stored = self.find(said)?;
        let key = stored.keys.region_keys.iter_mut().find(|key| key.id == id).ok_or_else(|| {
            Error::tenant(format!("no region key {}; `firsthop region-key list` shows them", id.get()))
        })?;
        if !key.is_published(now) {
            return Err(Error::tenant(format!("region key {} has ended already", id.get())));
        }
        key.until = Some(now);
        let ended = key.clone();
        stored.save_keys()?;
        Ok((stored, ended))
    }
}

/// Whether frames for a region come here at all.
fn check_region(stored: &StoredTenant, region: Region) -> Result<(), Error> {
    let home = stored.tenant.region;
    if home != Region::ANY && region != home {
        return Err(Error::tenant(format!(
            "the tenant's data may be read in {home} only, and a frame for {region} would be refused here"
        )));
    }
    match stored.tenant.policy.as_ref().filter(|policy| !policy.regions.is_empty()) {
        Some(policy) if policy.region(region).is_none() => Err(Error::tenant(format!(
            "the policy in tenant.toml has no region {region}: a frame for it would be refused everywhere"
        ))),
        _ => Ok(()),
    }
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.offset(i64::try_from(by.as_millis()).unwrap_or(i64::MAX))
}
