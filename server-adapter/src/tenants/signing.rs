//! What a tenant signs for others, and with which keys: its ledger, and its documents.

use firsthop_core::{TenantId, Timestamp};

use super::{
    Store,
    documents::{Documents, Renew},
    file::{KeyFile, SigningKey},
    store::{StoredTenant, new_root},
};
use crate::Error;

impl Store {
    /// The key that signs this tenant's ledger. Made now, if there is none yet.
    ///
    /// # Errors
    /// [`Error::Tenant`], [`Error::Io`].
    pub fn ledger_key(&self, id: TenantId) -> Result<SigningKey, Error> {
        self.signing_key(id, |keys| &mut keys.ledger)
    }

    /// The key that signs this tenant's documents. Made now, if there is none yet.
    ///
    /// # Errors
    /// [`Error::Tenant`], [`Error::Io`].
    pub fn document_key(&self, id: TenantId) -> Result<SigningKey, Error> {
        self.signing_key(id, |keys| &mut keys.document)
    }

    fn signing_key(
        &self,
        id: TenantId,
        which: impl Fn(&mut KeyFile) -> &mut Option<SigningKey>,
    ) -> Result<SigningKey, Error> {
        if let Some(key) = which(&mut self.load(id)?.keys).take() {
            return Ok(key);
        }
        let _lock = self.lock()?;
        // Another process may have been faster.
        let mut stored = self.load(id)?;
        let (key, is_new) = stored.signing_key(which);
        if is_new {
            stored.save_keys()?;
        }
        Ok(key)
    }

    /// What the tenant's edges and pages are told, signed: as it was signed last, if that still holds, else anew.
    ///
    /// # Errors
    /// [`Error::Tenant`], [`Error::Io`].
    pub fn documents(&self, id: TenantId, now: Timestamp) -> Result<Documents, Error> {
        let stored = self.load(id)?;
        let documents = Documents::read(&stored.folder)?;
        if !documents.is_due(&stored)? {
            return Ok(documents);
        }
        let _lock = self.lock()?;
        // Another process may have been faster.
        self.load(id)?.publish(now, Renew::Changed)
    }
}

impl StoredTenant {
    /// One of the tenant's signing keys, and whether it was made now and is to be saved.
    pub(super) fn signing_key(
        &mut self,
        which: impl Fn(&mut KeyFile) -> &mut Option<SigningKey>,
    ) -> (SigningKey, bool) {
        let key = which(&mut self.keys);
        let is_new = key.is_none();
        (key.get_or_insert_with(|| SigningKey::new(new_root())).clone(), is_new)
    }

    /// Signs the documents that are due, in a folder that nobody else changes meanwhile.
    fn publish(&mut self, now: Timestamp, renew: Renew) -> Result<Documents, Error> {
        let before = Documents::read(&self.folder)?;
        let (key, is_new) = self.signing_key(|keys| &mut keys.document);
        let mut documents = before.clone();
        documents.renew(self, &key, now, renew)?;
        if documents != before {
            if is_new {
                self.save_keys()?;
            }
            documents.write(&self.folder)?;
        }
        Ok(documents)
    }

    /// Signs the documents of a folder that comes from elsewhere, if it has any: where it was, later ones may have been signed since, and
    /// who has seen those takes none that is older.
    pub(crate) fn publish_again(&mut self, now: Timestamp) -> Result<(), Error> {
        self.publish(now, Renew::All).map(drop)
    }
}
