//! What is sealed in a journal, and read with the region keys of today.
//!
//! A journal keeps a sealed frame as it came, so that its signature can be checked for ever. Whoever reads its events opens it on the way.

use std::sync::{Arc, PoisonError, RwLock};

use firsthop_core::{Error, Frame, SEAL_LEN};
use firsthop_intake::{Contents, RegionSecrets};

/// A tenant's region keys, as its files say now: shared by all who read its journal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seals(Arc<RwLock<Arc<RegionSecrets>>>);

impl Seals {
    pub(crate) fn new(secrets: RegionSecrets) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(secrets))))
    }

    /// From now on it is these.
    pub(crate) fn set(&self, secrets: RegionSecrets) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(secrets);
    }

    pub(crate) fn get(&self) -> Arc<RegionSecrets> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A stored frame whose events can be read, sealed or not.
pub(crate) struct Readable<'a> {
    frame: Frame<'a>,
    contents: Contents,
}

impl<'a> Readable<'a> {
    /// Of a producer's bytes.
    ///
    /// # Errors
    /// As [`Frame::parse`]; [`Error::Sealed`] if it is sealed and the key is not here, [`Error::Seal`] if it does not open.
    pub(crate) fn parse(bytes: &'a [u8], secrets: &RegionSecrets) -> Result<Self, Error> {
        Self::new(Frame::parse(bytes)?, secrets)
    }

    /// Of a frame that was parsed.
    ///
    /// # Errors
    /// As [`unseal`].
    pub(crate) fn new(frame: Frame<'a>, secrets: &RegionSecrets) -> Result<Self, Error> {
        Ok(Self { frame, contents: unseal(&frame, secrets)? })
    }

    pub(crate) fn frame(&self) -> Frame<'_> {
        self.contents.of_frame(&self.frame).unwrap_or(self.frame)
    }
}

/// What can be read of a frame.
///
/// # Errors
/// [`Error::Sealed`] if it is sealed and the key is not here, [`Error::Seal`] if it does not open.
pub(crate) fn unseal(frame: &Frame<'_>, secrets: &RegionSecrets) -> Result<Contents, Error> {
    let Some(id) = frame.sealed_to() else { return Ok(Contents::Clear) };
    let key = secrets.get(frame.header().region, id).ok_or(Error::Sealed)?;
    let mut payload = vec![0; frame.payload().len() - SEAL_LEN];
    frame.unseal(key, &mut payload)?;
    Ok(Contents::Opened(payload))
}
