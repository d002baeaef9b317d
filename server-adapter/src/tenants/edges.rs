//! Edges: enrolled, and ended.

use firsthop_core::{Region, Timestamp, WorkerId};
use firsthop_intake::policy::Place;
use sha2::{Digest, Sha256};

use super::{
    Store, alphanumeric,
    file::{Enrolment, check_name},
};
use crate::{Error, ledger::hex};

/// A new edge.
#[derive(Debug)]
pub struct Enrolled {
    /// Its number.
    pub worker: WorkerId,
    /// What it shows to get leases. Nobody can ask for it again.
    pub token: String,
}

impl Store {
    /// Enrols an edge.
    ///
    /// # Errors
    /// [`Error::Tenant`], [`Error::Io`].
    pub fn enrol(&self, said: Option<&str>, name: &str, region: Region, now: Timestamp) -> Result<Enrolled, Error> {
        let _lock = self.lock()?;
        let mut stored = self.find(said)?;
        check_name(name)?;
        if stored.tenant.enrolments.iter().any(|edge| edge.removed.is_none() && edge.name == name) {
            return Err(Error::tenant(format!("there is an edge {name:?} already")));
        }
        if region == Region::ANY {
            return Err(Error::tenant("an edge stands in one region: two letters, such as EU"));
        }
        let home = stored.tenant.region;
        let place = Place::Region(region);
        match stored.tenant.policy.as_ref().filter(|policy| !policy.regions.is_empty()) {
            Some(policy) if !policy.regions.iter().any(|of| policy.may_forward(of, place)) => {
                return Err(Error::tenant(format!(
                    "by the policy in tenant.toml, an edge in {region} may neither read nor pass on anything"
                )));
            }
            None if home != Region::ANY && region != home => {
                return Err(Error::tenant(format!(
                    "the tenant's data may be read in {home} only, and the edge would be in {region}; for an edge that passes on what it \
                     may not read, say so in a [policy] in tenant.toml"
                )));
            }
            _ => {}
        }
        // Removed edges are kept, so that no number is given twice.
        let worker = stored.tenant.enrolments.iter().map(|edge| edge.worker.get()).max().unwrap_or(0) + 1;
        // The edge learns from its token what documents verify with: from nobody in between.
        let (document_key, is_new) = stored.signing_key(|keys| &mut keys.document);
        if is_new {
            stored.save_keys()?;
        }
        let document_key = hex(document_key.public().as_bytes());
        let token = format!("fhe_{}_{worker:08x}_{}_{document_key}", stored.tenant.id, alphanumeric(32));
        let worker = WorkerId::new(worker);
        let token_sha256 = token_hash(&token);
        stored.tenant.enrolments.push(Enrolment {
            worker,
            name: name.to_owned(),
            region,
            token_sha256,
            added: Some(now),
            removed: None,
        });
        stored.save_tenant()?;
        Ok(Enrolled { worker, token })
    }

    /// Ends an edge's enrolment: no more leases, and its envelopes are refused. Its entry stays, so that its number
    /// stays taken and what it forwarded can be checked.
    ///
    /// # Errors
    /// [`Error::Tenant`], [`Error::Io`].
    pub fn remove_edge(&self, said: Option<&str>, edge: &str, now: Timestamp) -> Result<Enrolment, Error> {
        let _lock = self.lock()?;
        let mut stored = self.find(said)?;
        let enrolment = stored
            .tenant
            .enrolments
            .iter_mut()
            .find(|enrolment| {
                enrolment.removed.is_none() && (enrolment.name == edge || enrolment.worker.get().to_string() == edge)
            })
            .ok_or_else(|| Error::tenant(format!("no edge {edge:?}; `firsthop edge list` shows them")))?;
        enrolment.removed = Some(now);
        let enrolment = enrolment.clone();
        stored.save_tenant()?;
        Ok(enrolment)
    }
}

/// What a server keeps of a token. The token has 190 random bits: a slow hash would add nothing.
pub(crate) fn token_hash(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{
        super::store::tests::{NOW, any, store},
        *,
    };

    #[test]
    fn an_edge_is_enrolled_once_and_its_number_never_again() {
        let (_folder, store) = store();
        let stored = store.add("shop", "EU".parse().unwrap(), &any(), NOW).expect("made");
        let eu = || "EU".parse().unwrap();
        let first = store.enrol(None, "fra", eu(), NOW).expect("enrolled");
        assert_eq!(first.worker.get(), 1);
        assert!(first.token.starts_with(&format!("fhe_{}_00000001_", stored.tenant.id)));
        // What the token says that documents verify with is what signs them.
        let said = firsthop_intake::parse_enrolment(&first.token).expect("a token").document_key;
        let key = store.document_key(stored.tenant.id).expect("made when the edge was enrolled");
        assert_eq!(*key.public().as_bytes(), said);
        let text = fs::read_to_string(stored.folder.join("tenant.toml")).expect("there");
        assert!(!text.contains(&first.token) && text.contains(&token_hash(&first.token)));
        assert!(store.enrol(None, "fra", eu(), NOW).is_err(), "the name is taken");
        assert!(store.enrol(None, "iad", "US".parse().unwrap(), NOW).is_err(), "outside the tenant's region");
        store.remove_edge(None, "fra", NOW).expect("removed");
        assert!(store.remove_edge(None, "fra", NOW).is_err(), "gone");
        assert_eq!(store.enrol(None, "fra", eu(), NOW).expect("enrolled again").worker.get(), 2);
    }
}
