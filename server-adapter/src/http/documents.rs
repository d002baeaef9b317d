//! `GET /v1/region-keys/{tenant}`: what frames are sealed to, for whoever builds pages and for whoever checks it.

use firsthop_core::TenantId;
use firsthop_intake::{Problem, Refusal, document::Kind};
use http::HeaderMap;

use crate::server::Inner;

/// How long a copy is good, in seconds: a new key is published long before it is used.
pub(super) const MAX_AGE: &str = "public, max-age=300";

/// A signed document, as an answer.
pub(super) struct Published {
    /// None: the copy that the client has is still good.
    pub(super) json: Option<String>,
    /// Names the text, version and all.
    pub(super) etag: String,
}

/// The signed list of a tenant's region keys. A tenant that has none reads as one that does not exist.
pub(super) fn region_keys(inner: &Inner, tenant: &str, headers: &HeaderMap) -> Result<Published, Problem> {
    let id: TenantId = tenant.parse().map_err(|_| Refusal::NotFound)?;
    let found = inner.tenants.find(id).ok_or(Refusal::NotFound)?;
    let signed = found.known.documents.of(Kind::RegionKeys).ok_or(Refusal::NotFound)?;
    // Another text has another signature.
    let etag = format!("\"{}\"", crate::ledger::hex(&signed.signature[..16]));
    let known = headers.get("if-none-match").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_known = known.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag);
    // Texts and numbers: nothing in it can fail.
    let json = (!is_known).then(|| serde_json::to_string(signed).unwrap_or_default());
    Ok(Published { json, etag })
}
