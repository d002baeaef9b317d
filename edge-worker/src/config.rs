//! What the operator has set: variables in `wrangler.toml`, and one secret.

use worker::Env;

use firsthop_core::{Region, TenantId, WorkerId};
use firsthop_intake::{parse_enrolment, policy};

/// Settings, read once per isolate.
#[derive(Debug)]
pub(crate) struct Config {
    /// Where envelopes go.
    pub(crate) upstream: String,
    /// Where leases come from.
    pub(crate) leases: String,
    /// Where this edge stands.
    pub(crate) region: Region,
    /// For whom it is enrolled.
    pub(crate) enrolments: Vec<Enrolment>,
}

/// A token that entitles this edge to one tenant's leases. It is a secret, so it is never printed.
#[derive(Clone)]
pub(crate) struct Enrolment {
    pub(crate) tenant: TenantId,
    pub(crate) worker: WorkerId,
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
        let enrolments: Vec<_> = required("ENROLMENTS")?
            .split_whitespace()
            .map(|token| Enrolment::parse(token).ok_or("ENROLMENTS holds something that is no enrolment token"))
            .collect::<Result<_, _>>()?;
        Ok(Self { upstream, leases, region, enrolments })
    }
}

impl Enrolment {
    fn parse(token: &str) -> Option<Self> {
        let said = parse_enrolment(token)?;
        Some(Self { tenant: said.tenant, worker: said.worker, token: token.into() })
    }
}

/// A URL to put a path behind.
fn base_url(name: &str, url: &str) -> Result<String, String> {
    policy::base_url(url.trim()).map(Into::into).map_err(|fault| format!("{name} {fault}"))
}
