//! What the operator has set: variables in `wrangler.toml`, and one secret.

use worker::Env;

use firsthop_core::{Region, TenantId, WorkerId};
use firsthop_intake::parse_enrolment;

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
        let (tenant, worker) = parse_enrolment(token)?;
        Some(Self { tenant, worker, token: token.into() })
    }
}

/// A URL to put a path behind. Leases and tokens travel there, so it is `https`, or on this very machine.
fn base_url(name: &str, url: &str) -> Result<String, String> {
    let url = url.trim().trim_end_matches('/');
    let rest = match url.split_once("://") {
        Some(("https", rest)) => rest,
        Some(("http", rest)) if is_loopback(rest) => rest,
        Some(("http", _)) => return Err(format!("{name} must be https: keys travel there")),
        _ => return Err(format!("{name} is no http(s) URL")),
    };
    if rest.is_empty() || rest.contains(['?', '#', '@', ' ']) {
        return Err(format!("{name} must be an address and no more: no user, no query"));
    }
    Ok(url.into())
}

fn is_loopback(rest: &str) -> bool {
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next(),
        None => authority.split(':').next(),
    };
    host.is_some_and(|host| {
        host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
    })
}
