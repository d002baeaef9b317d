//! What the server answers (`POST /v1/leases`), read before it is believed.

use std::rc::Rc;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use firsthop_core::{
    Epoch, HashKey, KeyId, LeaseKey, LeaseRing, Region, RegionKeyId, RegionSecretKey, Timestamp, WorkerId,
};
use firsthop_intake::{
    Account as _, Leased, Origins, Tenant,
    document::Signed,
    fields::{Fault, Others, Read, fill, needed, optional},
};

use crate::config::Enrolment;

/// Bounds on what the server may ask for as time between two renewals, in seconds.
const REFRESH: std::ops::RangeInclusive<u64> = 10..=3600;

/// The keys of an answer, and what came with them.
pub(super) struct Held {
    pub(super) account: Rc<Leased>,
    /// When the server answered.
    pub(super) since: Timestamp,
    pub(super) refresh_ms: u64,
    /// What values are hashed with, and in which generation, if the tenant's rules hash any.
    pub(super) hash_key: Option<(u32, HashKey)>,
}

impl Held {
    /// Whether there is a lease in it to sign with now.
    pub(super) fn serves(&self, now: Timestamp) -> bool {
        self.account.current(now).is_ok()
    }

    /// Since when it is as it is, and until when it can be signed with.
    pub(super) fn span(&self) -> Option<(Timestamp, Timestamp)> {
        let last = self.account.leases.last_epoch()?;
        Some((self.since, Epoch::new(last.get() + 1).start()))
    }
}

/// The server's answer. One to whoever wants the documents alone ends with them.
#[derive(Default)]
pub(super) struct Answer {
    tenant: String,
    region: String,
    worker: u32,
    /// A server of before sends none.
    pub(super) documents: Vec<Signed>,
    refresh_after: u64,
    name: String,
    write_keys: Option<Vec<String>>,
    origins: Option<Vec<String>>,
    leases: Vec<Lease>,
    /// Only there if this edge may open what is sealed to its region.
    region_secrets: Vec<RegionSecret>,
    /// Only there if the tenant's rules hash anything.
    hash_key: Option<String>,
    hash_generation: u32,
}

impl Read for Answer {
    fn read(json: &str) -> Result<Self, Fault> {
        let mut answer = Self::default();
        fill(
            json,
            Others::Skipped,
            &mut [
                needed("tenant", &mut answer.tenant),
                needed("region", &mut answer.region),
                needed("worker", &mut answer.worker),
                optional("documents", &mut answer.documents),
                needed("refreshAfter", &mut answer.refresh_after),
                optional("name", &mut answer.name),
                optional("writeKeys", &mut answer.write_keys),
                optional("origins", &mut answer.origins),
                optional("leases", &mut answer.leases),
                optional("regionSecrets", &mut answer.region_secrets),
                optional("hashKey", &mut answer.hash_key),
                optional("hashGeneration", &mut answer.hash_generation),
            ],
        )?;
        Ok(answer)
    }
}

#[derive(Default)]
struct RegionSecret {
    id: u32,
    key: String,
}

impl Read for RegionSecret {
    fn read(json: &str) -> Result<Self, Fault> {
        let mut secret = Self::default();
        fill(json, Others::Skipped, &mut [needed("id", &mut secret.id), needed("key", &mut secret.key)])?;
        Ok(secret)
    }
}

#[derive(Default)]
struct Lease {
    key_id: u32,
    epoch: u32,
    key: String,
}

impl Read for Lease {
    fn read(json: &str) -> Result<Self, Fault> {
        let mut lease = Self::default();
        fill(
            json,
            Others::Skipped,
            &mut [needed("keyId", &mut lease.key_id), needed("epoch", &mut lease.epoch), needed("key", &mut lease.key)],
        )?;
        Ok(lease)
    }
}

impl Answer {
    pub(super) fn of(body: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(body).map_err(|_| "unreadable answer")?;
        Self::read(text).map_err(|_| "unreadable answer")
    }

    /// For which enrolment it says that it is.
    pub(super) const fn worker(&self) -> WorkerId {
        WorkerId::new(self.worker)
    }

    /// Whether it is for what was asked.
    pub(super) fn check(&self, enrolment: &Enrolment, region: Region) -> Result<(), &'static str> {
        let tenant = self.tenant.parse().map_err(|_| "bad tenant")?;
        if enrolment.tenant != tenant || enrolment.worker != self.worker() {
            return Err("answer for another enrolment");
        }
        if self.region != region.as_str() {
            return Err("enrolled for another region than REGION");
        }
        Ok(())
    }

    /// How long what it says is good, in milliseconds.
    pub(super) fn refresh_ms(&self) -> u64 {
        self.refresh_after.clamp(*REFRESH.start(), *REFRESH.end()) * 1000
    }

    /// Takes the keys of an answer that came at `since`, if it is for what was asked.
    pub(super) fn held(self, enrolment: &Enrolment, region: Region, since: Timestamp) -> Result<Held, &'static str> {
        self.check(enrolment, region)?;
        let refresh_ms = self.refresh_ms();
        let mut leases = LeaseRing::new();
        for lease in &self.leases {
            leases.insert(KeyId::new(lease.key_id), Epoch::new(lease.epoch), LeaseKey::new(key(&lease.key)?));
        }
        let secret =
            |secret: &RegionSecret| Ok((region, RegionSecretKey::new(RegionKeyId::new(secret.id), key(&secret.key)?)));
        let region_secrets = self.region_secrets.iter().map(secret).collect::<Result<_, &str>>()?;
        let tenant = Tenant {
            id: enrolment.tenant,
            name: self.name,
            region,
            worker: enrolment.worker,
            write_keys: self.write_keys.ok_or("unreadable answer")?,
            origins: Origins::parse(&self.origins.ok_or("unreadable answer")?).map_err(|_| "bad origins")?,
        };
        let hash_key = match &self.hash_key {
            Some(text) => Some((self.hash_generation, HashKey::new(key(text)?))),
            None => None,
        };
        Ok(Held { account: Rc::new(Leased { tenant, leases, region_secrets }), since, refresh_ms, hash_key })
    }
}

fn key(text: &str) -> Result<[u8; 32], &'static str> {
    let mut key = [0; 32];
    match BASE64.decode_slice(text, &mut key) {
        Ok(32) => Ok(key),
        _ => Err("bad key"),
    }
}
