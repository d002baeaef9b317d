//! Keys that follow from leases, as long as there is room for them: to derive one costs more than to check a short frame with it.
//!
//! A key is found by the lease that it follows from, which is looked up first: where a lease has ended, its keys are found no more. When a
//! tenant's leases are replaced or end, all that is kept is dropped. What is still needed, as what had to make room, is derived again.

use std::{
    cell::{OnceCell, RefCell},
    ops::{Deref, DerefMut},
    rc::Rc,
};

use wasm_bindgen::JsValue;
use worker::js_sys::Uint8Array;

use firsthop_core::{Alg, Claim, DOMAIN, FrameSigner as _, LeaseKey, MacKey, SessionGrant, SourceId};

use crate::{glue, steps::settled};

/// How many sessions' keys an isolate keeps, each in less than half a kilobyte.
const SESSIONS: usize = 1024;
/// How many leases' keys for envelopes: one is in use for each tenant.
const LEASES: usize = 64;
/// From how many bytes on the platform's HMAC, in machine code, is worth the way there and back.
const LONG: usize = 3072;

thread_local! {
    static KEPT: RefCell<Vec<Option<Rc<Key>>>> = const { RefCell::new(Vec::new()) };
}

/// A frame's bytes, with what a tag is made over in front of them: so the platform gets both in one piece.
pub(crate) struct Signable(Vec<u8>);

impl Signable {
    /// So many zeros, to be written over.
    pub(crate) fn new(len: usize) -> Self {
        // All at once: where a build is for size, to extend it would write zero by zero, which takes longer than to check a short frame.
        let mut bytes = vec![0; DOMAIN.len() + len];
        bytes[..DOMAIN.len()].copy_from_slice(DOMAIN);
        Self(bytes)
    }

    /// A copy of bytes of the platform's.
    pub(crate) fn of(bytes: &Uint8Array) -> Self {
        let mut copy = Self::new(bytes.length() as usize);
        bytes.copy_to(&mut copy);
        copy
    }

    /// Leaves so many bytes.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.0.truncate(DOMAIN.len() + len);
    }
}

impl Deref for Signable {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0[DOMAIN.len()..]
    }
}

impl DerefMut for Signable {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0[DOMAIN.len()..]
    }
}

/// Drops all that is kept. A request that has one of them in hand ends with it.
pub(crate) fn forget() {
    KEPT.take();
}

/// Whose key: one session's, or the lease's own for envelopes.
type Session = Option<(SourceId, SessionGrant)>;

/// A key for HMAC-SHA256, and what it follows from.
pub(crate) struct Key {
    lease: LeaseKey,
    session: Session,
    own: MacKey,
    /// The platform's, once it was wanted.
    platform: OnceCell<JsValue>,
}

impl Key {
    /// The key of the session that a body claims.
    pub(crate) fn of_session(lease: &LeaseKey, claim: &Claim<'_>) -> Option<Rc<Self>> {
        let source = claim.header.source;
        // The last bytes of an id are random; the first ones of a page's are its clock.
        Self::at(source.as_u128() as usize % SESSIONS, lease, Some((source, claim.grant)))
    }

    /// The key for a lease's envelopes.
    pub(crate) fn of_envelopes(lease: &LeaseKey) -> Option<Rc<Self>> {
        Self::at(SESSIONS + usize::from(lease.expose()[0]) % LEASES, lease, None)
    }

    /// The key, which has one place, and takes it from another one if need be.
    fn at(place: usize, lease: &LeaseKey, session: Session) -> Option<Rc<Self>> {
        KEPT.with_borrow_mut(|kept| {
            if kept.is_empty() {
                kept.resize(SESSIONS + LEASES, None);
            }
            let kept = kept.get_mut(place)?;
            if let Some(key) = kept.as_ref().filter(|key| key.follows_from(lease, &session)) {
                return Some(Rc::clone(key));
            }
            let own = MacKey::new(Alg::HmacSha256, &secret(lease, &session)).ok()?;
            let key = Rc::new(Self { lease: lease.clone(), session, own, platform: OnceCell::new() });
            Some(Rc::clone(kept.insert(key)))
        })
    }

    fn follows_from(&self, lease: &LeaseKey, session: &Session) -> bool {
        self.lease.expose() == lease.expose() && self.session == *session
    }

    /// The HMAC-SHA256 of the first bytes of a frame, so many of them as are signed.
    pub(crate) async fn tag(&self, frame: &Signable, signed: usize) -> [u8; 32] {
        if signed >= LONG
            && let Some(message) = frame.0.get(..DOMAIN.len() + signed)
            && let Some(tag) = self.platforms(message).await
        {
            return tag;
        }
        let mut tag = [0; 32];
        tag.copy_from_slice(self.own.sign(&frame[..signed]).as_bytes());
        tag
    }

    async fn platforms(&self, message: &[u8]) -> Option<[u8; 32]> {
        if self.platform.get().is_none() {
            let key = settled(glue::hmac_key(&*secret(&self.lease, &self.session))).await.ok()?;
            // Another request may have been sooner.
            let _ = self.platform.set(key);
        }
        let tag = settled(glue::hmac(self.platform.get()?, message)).await.ok()?;
        Uint8Array::new(&tag).to_vec().try_into().ok()
    }
}

fn secret(lease: &LeaseKey, session: &Session) -> impl Deref<Target = [u8; 32]> {
    match session {
        Some((source, grant)) => lease.session_secret(*source, grant),
        None => lease.envelope_secret(),
    }
}
