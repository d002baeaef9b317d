//! What the operator has set: variables in `wrangler.toml`, and one secret.

use std::ops::RangeInclusive;

use worker::Env;

use firsthop_core::{Region, TenantId, WorkerId};
use firsthop_intake::{parse_enrolment, policy, spool::Pace};

/// Most bytes that may wait in one object. The platform lets an object have 10 GB, of which tables and indexes take their share.
const MOST_IN_SHARD: u64 = 8 << 30;

/// Settings, read once per isolate.
#[derive(Debug)]
pub(crate) struct Config {
    /// Where envelopes go.
    pub(crate) upstream: String,
    /// Where leases come from.
    pub(crate) leases: String,
    /// Where this edge stands.
    pub(crate) region: Region,
    /// Whether the operator answers for it that the host stands nowhere else.
    pub(crate) is_confined: bool,
    /// For whom it is enrolled.
    pub(crate) enrolments: Vec<Enrolment>,
    /// In which jurisdiction its objects are made; none where the platform has none.
    pub(crate) jurisdiction: Option<&'static str>,
    /// What keeps frames while the server is away.
    pub(crate) spool: SpoolConfig,
}

/// Settings of the spool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpoolConfig {
    /// Objects for each tenant. A source is always in the same one.
    pub(crate) shards: u32,
    /// Most frames that wait in one of them.
    pub(crate) frames: u64,
    /// Most bytes that wait in one of them.
    pub(crate) bytes: u64,
    /// How often it tries.
    pub(crate) pace: Pace,
}

/// A token that entitles this edge to one tenant's leases. It is a secret, so it is never printed.
#[derive(Clone)]
pub(crate) struct Enrolment {
    pub(crate) tenant: TenantId,
    pub(crate) worker: WorkerId,
    /// What the tenant's documents verify with.
    pub(crate) document_key: [u8; 32],
    pub(crate) token: String,
}

impl std::fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Enrolment({}, {}, …)", self.tenant, self.worker.get())
    }
}

impl Config {
    /// Reads the settings; what is wrong with them is for the operator's log.
    pub(crate) fn read(env: &Env) -> Result<Self, String> {
        let text =
            |name: &str| env.var(name).ok().map(|value| value.to_string()).filter(|text| !text.trim().is_empty());
        let required = |name: &str| text(name).ok_or_else(|| format!("{name} is not set"));
        let upstream = base_url("UPSTREAM", &required("UPSTREAM")?)?;
        let leases = match text("LEASES") {
            Some(url) => base_url("LEASES", &url)?,
            None => upstream.clone(),
        };
        let region: Region = required("REGION")?.trim().parse().map_err(|_| "REGION is not two capital letters")?;
        if region == Region::ANY {
            return Err("REGION names no region: an edge stands in one".into());
        }
        let is_confined = match text("CONFINED").as_deref().map(str::trim) {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err("CONFINED is neither true nor false".into()),
        };
        let enrolments: Vec<_> = required("ENROLMENTS")?
            .split_whitespace()
            .map(|token| {
                Enrolment::parse(token)
                    .ok_or("ENROLMENTS holds something that is no enrolment token: `firsthop edge add` prints one")
            })
            .collect::<Result<_, _>>()?;
        let jurisdiction = match text("JURISDICTION").as_deref().map(str::trim) {
            None => None,
            Some("eu") => Some("eu"),
            Some("fedramp") => Some("fedramp"),
            Some(_) => return Err("JURISDICTION is neither eu nor fedramp nor empty".into()),
        };
        let number = |name: &str, default: u64, bounds: RangeInclusive<u64>| {
            let Some(text) = text(name) else { return Ok(default) };
            let number = text.trim().replace('_', "").parse().ok().filter(|number| bounds.contains(number));
            number.ok_or_else(|| format!("{name} is not a whole number from {} to {}", bounds.start(), bounds.end()))
        };
        let shards = number("SPOOL_SHARDS", 4, 1..=64)?;
        let spool = SpoolConfig {
            shards: shards as u32,
            frames: number("SPOOL_FRAMES", 200_000, 1..=10_000_000)?.div_ceil(shards),
            bytes: number("SPOOL_BYTES", 1 << 30, 1..=shards * MOST_IN_SHARD)?.div_ceil(shards),
            pace: Pace { first_ms: number("SPOOL_RETRY_MS", 1_000, 10..=60_000)? },
        };
        Ok(Self { upstream, leases, region, is_confined, enrolments, jurisdiction, spool })
    }
}

impl Enrolment {
    fn parse(token: &str) -> Option<Self> {
        let said = parse_enrolment(token)?;
        Some(Self { tenant: said.tenant, worker: said.worker, document_key: said.document_key, token: token.into() })
    }
}

/// A URL to put a path behind.
fn base_url(name: &str, url: &str) -> Result<String, String> {
    policy::base_url(url.trim()).map(Into::into).map_err(|fault| format!("{name} {fault}"))
}
