//! `POST /v1/leases`: an enrolled edge gets what it needs for the current hour and its neighbours, and never a root. One that stands where it may
//! only pass on asks for the documents alone, and gets no key.

use base64::{Engine, prelude::BASE64_STANDARD};
use firsthop_core::{Epoch, LeaseScope, Timestamp, limits::ROOT_GRACE_MS};
use firsthop_intake::{Problem, Refusal, WANT, document::Signed, parse_enrolment, policy::Place};
use http::HeaderMap;
use serde::Serialize;
use subtle::ConstantTimeEq;

use crate::{
    clock,
    server::Inner,
    tenants::{Enrolment, Found, token_hash},
};

/// How soon an edge should ask again, in seconds.
const REFRESH_AFTER: u32 = 300;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    tenant: String,
    region: &'a str,
    worker: u32,
    /// What the edge is told of the tenant that it must be able to check.
    documents: &'a [Signed],
    refresh_after: u32,
    /// Not where only the documents were asked for.
    #[serde(flatten)]
    keys: Option<Keys<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Keys<'a> {
    name: &'a str,
    write_keys: &'a [String],
    origins: &'a [String],
    leases: Vec<Lease>,
    /// What was sealed to its region it may open.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    region_secrets: Vec<RegionSecret>,
    /// What values are hashed with, if the tenant's rules hash any.
    #[serde(skip_serializing_if = "Option::is_none")]
    hash_key: Option<String>,
    /// Of which generation: an edge hashes only by rules of the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    hash_generation: Option<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Lease {
    key_id: u32,
    epoch: u32,
    key: String,
}

#[derive(Serialize)]
struct RegionSecret {
    id: u32,
    key: String,
}

/// The answer's JSON.
pub(super) fn grant(inner: &Inner, headers: &HeaderMap) -> Result<String, Problem> {
    let token = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or(Refusal::Enrolment)?;
    let said = parse_enrolment(token).ok_or(Refusal::Enrolment)?;
    let (tenant, worker) = (said.tenant, said.worker);
    let found = inner.tenants.find(tenant).ok_or(Refusal::Enrolment)?;
    let now = clock::now();
    let hash = token_hash(token);
    let enrolled = |edge: &&Enrolment| {
        edge.worker == worker
            && edge.removed.is_none_or(|end| now < end)
            && bool::from(edge.token_sha256.to_ascii_lowercase().as_bytes().ct_eq(hash.as_bytes()))
    };
    let edge = found.known.file.enrolments.iter().find(enrolled).ok_or(Refusal::Enrolment)?;
    // Whatever else it may say: who says that it wants less gets no key.
    let wants_keys = !headers.contains_key(WANT);
    tracing::info!(tenant = %tenant, edge = edge.name, keys = wants_keys, "leases granted");
    let answer = Answer {
        tenant: tenant.to_string(),
        region: edge.region.as_str(),
        worker: edge.worker.get(),
        documents: &found.known.documents.documents,
        refresh_after: REFRESH_AFTER,
        keys: wants_keys.then(|| keys(&found, edge, now)),
    };
    // Strings and numbers: nothing in it can fail.
    Ok(serde_json::to_string(&answer).unwrap_or_default())
}

fn keys<'a>(found: &'a Found, edge: &Enrolment, now: Timestamp) -> Keys<'a> {
    let file = &found.known.file;
    let current = Epoch::at(now).get();
    let mut leases = Vec::new();
    // A root that begins later would be taken for the newest.
    let in_force = |root: &&crate::tenants::Root| root.from <= now && root.until.is_none_or(|until| now < until);
    for root in found.known.keys.roots.iter().filter(in_force) {
        for epoch in [current.saturating_sub(1), current, current + 1] {
            let scope =
                LeaseScope { tenant: file.id, region: edge.region, worker: edge.worker, epoch: Epoch::new(epoch) };
            let key = BASE64_STANDARD.encode(root.secret.lease(&scope).expose());
            leases.push(Lease { key_id: root.id.get(), epoch, key });
        }
    }
    let first_hop = found.known.first_hop();
    let hash_key = first_hop.hash_key(edge.region);
    let is_hashed = hash_key.is_some();
    Keys {
        name: &file.name,
        write_keys: &file.write_keys,
        origins: &file.origins,
        leases,
        region_secrets: region_secrets(found, edge, now),
        hash_key: hash_key.map(|key| BASE64_STANDARD.encode(key.expose())),
        hash_generation: is_hashed.then(|| first_hop.rules().hash_generation),
    }
}

/// The private keys of the edge's own region, if the tenant's policy says that its edges open what is sealed: those that frames come sealed
/// to now, soon, and for as long as one may be on its way.
fn region_secrets(found: &Found, edge: &Enrolment, now: Timestamp) -> Vec<RegionSecret> {
    let opens = found.known.file.policy.as_ref().is_some_and(|policy| {
        let region = policy.region(edge.region);
        region.is_some_and(|region| region.unseal && policy.may_process(region, Place::Region(edge.region)))
    });
    let grace = i64::try_from(ROOT_GRACE_MS).unwrap_or(i64::MAX);
    let keys =
        found.known.keys.region_keys.iter().filter(|key| {
            opens && key.region == edge.region && key.until.is_none_or(|until| now < until.offset(grace))
        });
    keys.map(|key| RegionSecret { id: key.id.get(), key: BASE64_STANDARD.encode(key.secret().expose()) }).collect()
}
