//! `documents.json`: what a tenant's edges and pages are told, signed, as it was signed last.
//!
//! What is said stands in the tenant's two other files. A document is signed again only when that has changed, so that it is the same bytes
//! each time; and its version rises then, whatever has become of the file meanwhile: it is the time, and one more than the last where the
//! clock is behind.

use std::{fs, io::ErrorKind, path::Path};

use firsthop_core::{PublicKey, Timestamp};
use firsthop_intake::document::{Document, Kind, MAX_ALL, RegionKeys, Signed, signed_bytes};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{SigningKey, StoredTenant, file};
use crate::Error;

/// The file in a tenant's folder.
pub(crate) const NAME: &str = "documents.json";

/// The documents of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Documents {
    /// One of a kind.
    pub documents: Vec<Signed>,
}

/// When it is signed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renew {
    /// When it says another thing than it should.
    Changed,
    /// In any case: somebody may have seen a later one.
    All,
}

impl Documents {
    /// The one of a kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> Option<&Signed> {
        self.documents.iter().find(|document| document.kind == kind.as_str())
    }

    /// What the file says; nothing if there is none.
    pub(super) fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(NAME);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            text => text.map_err(Error::io(&path))?,
        };
        serde_json::from_slice(&text).map_err(|error| {
            let path = path.display();
            Error::tenant(format!("{path}: {error}. Remove it: what is in force is then signed again"))
        })
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(NAME);
        let text = serde_json::to_vec(self).map_err(|error| Error::tenant(format!("{}: {error}", path.display())))?;
        file::replace(&path, &text)
    }

    /// Whether one of them says another thing than the tenant's files do.
    pub(super) fn is_due(&self, stored: &StoredTenant) -> Result<bool, Error> {
        let key = stored.keys.document.as_ref().map(SigningKey::public);
        for kind in [Kind::Policy, Kind::RegionKeys] {
            let current = self.of(kind);
            if self.wants(stored, kind) && !current.is_some_and(|signed| holds(signed, stored, kind, key.as_ref())) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Signs what is due.
    pub(super) fn renew(
        &mut self,
        stored: &StoredTenant,
        key: &SigningKey,
        now: Timestamp,
        renew: Renew,
    ) -> Result<(), Error> {
        for kind in [Kind::Policy, Kind::RegionKeys] {
            let current = self.of(kind);
            let is_current = current.is_some_and(|signed| holds(signed, stored, kind, Some(&key.public())));
            if !self.wants(stored, kind) || is_current && renew == Renew::Changed {
                continue;
            }
            let last = current.and_then(head).map_or(0, |document| document.version);
            let body = body(stored, kind, now)?;
            let document = Document {
                kind,
                tenant: stored.tenant.id,
                version: last.saturating_add(1).max(now.as_millis()),
                issued: now,
                body,
            };
            let text = document.to_text().ok_or_else(|| {
                Error::tenant(format!("{kind:?}: too long to be signed as a document; use fewer entries"))
            })?;
            let signature = key.secret().sign_message(&signed_bytes(kind.as_str(), &text));
            self.documents.retain(|document| document.kind != kind.as_str());
            self.documents.push(Signed { kind: kind.as_str().into(), text, signature });
        }
        let length = serde_json::to_string(&self.documents).map_or(usize::MAX, |json| json.len());
        if length > MAX_ALL {
            let what = "policy and region keys come to more than an edge can be told";
            return Err(Error::tenant(format!(
                "{what}: {length} bytes of {MAX_ALL}; use fewer entries, or shorter ones"
            )));
        }
        Ok(())
    }

    /// Whether there is to be one of this kind: once there was, its end has to be told too.
    fn wants(&self, stored: &StoredTenant, kind: Kind) -> bool {
        self.of(kind).is_some()
            || match kind {
                Kind::Policy => stored.tenant.policy.is_some(),
                Kind::RegionKeys => !stored.keys.region_keys.is_empty(),
            }
    }
}

/// What a document has to say at a moment, as JSON.
fn body(stored: &StoredTenant, kind: Kind, at: Timestamp) -> Result<Box<RawValue>, Error> {
    match kind {
        Kind::Policy => serde_json::value::to_raw_value(&stored.tenant.policy),
        Kind::RegionKeys => serde_json::value::to_raw_value(&RegionKeys { keys: stored.keys.published(at) }),
    }
    .map_err(|error| Error::tenant(format!("{kind:?}: {error}")))
}

/// Whether a document says still what it has to, and its signature holds. A region key that has ended since it was signed says so itself.
fn holds(signed: &Signed, stored: &StoredTenant, kind: Kind, key: Option<&PublicKey>) -> bool {
    let Some(key) = key else { return false };
    let Ok(bytes) = signed.signed_bytes() else { return false };
    let Ok(document) = serde_json::from_str::<Document<&RawValue>>(&signed.text) else { return false };
    let same = |body: Box<RawValue>| body.get() == document.body.get();
    key.verify_message(&bytes, &signed.signature).is_ok()
        && document.tenant == stored.tenant.id
        && body(stored, kind, document.issued).is_ok_and(same)
}

/// All of a document but its body.
fn head(signed: &Signed) -> Option<Document<IgnoredAny>> {
    serde_json::from_str(&signed.text).ok()
}
