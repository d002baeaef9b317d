//! Keys in use: roots with rotation, and the few leases that a first hop holds. Fixed size, no allocation.

use crate::{Epoch, Error, KeyId, LeaseKey, RootKey, Timestamp, limits::ROOT_GRACE_MS};

/// A tenant's roots: one that signs, others that still verify.
///
/// Rotation adds a root and gives the old one an end. Until then frames of both are accepted, so none that was
/// valid when it was sent is refused.
#[derive(Clone, Debug)]
pub struct Keyring<const N: usize> {
    roots: [Option<Root>; N],
}

#[derive(Clone, Debug)]
struct Root {
    id: KeyId,
    key: RootKey,
    from: Timestamp,
    until: Option<Timestamp>,
}

impl<const N: usize> Default for Keyring<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Keyring<N> {
    /// No keys yet.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(N > 0, "a keyring holds at least one root") }
        Self { roots: [const { None }; N] }
    }

    /// Adds a root that signs from `from` on and verifies until `until` (exclusive), or without an end.
    ///
    /// # Errors
    /// [`Error::RingFull`]; [`Error::State`] if the id is taken.
    pub fn insert(&mut self, id: KeyId, key: RootKey, from: Timestamp, until: Option<Timestamp>) -> Result<(), Error> {
        if self.roots.iter().flatten().any(|root| root.id == id) {
            return Err(Error::State);
        }
        let slot = self.roots.iter_mut().find(|slot| slot.is_none()).ok_or(Error::RingFull)?;
        *slot = Some(Root { id, key, from, until });
        Ok(())
    }

    /// Adds a root that signs from `from` on, and lets those without an end verify for [`ROOT_GRACE_MS`] more: as long
    /// as a frame that one of them signed may still come in.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn rotate(&mut self, id: KeyId, key: RootKey, from: Timestamp) -> Result<(), Error> {
        self.insert(id, key, from, None)?;
        for root in self.roots.iter_mut().flatten().filter(|root| root.id != id && root.until.is_none()) {
            root.until = Some(Timestamp::from_millis(from.as_millis().saturating_add(ROOT_GRACE_MS)));
        }
        Ok(())
    }

    /// Lets a root end: at once when it was stolen. [`rotate`](Self::rotate) refuses no valid frame, this may.
    ///
    /// # Errors
    /// [`Error::UnknownKey`].
    pub fn retire(&mut self, id: KeyId, until: Timestamp) -> Result<(), Error> {
        let root = self.roots.iter_mut().flatten().find(|root| root.id == id).ok_or(Error::UnknownKey)?;
        root.until = Some(until);
        Ok(())
    }

    /// Forgets roots that ended before `now`, and zeroes them.
    pub fn purge(&mut self, now: Timestamp) {
        for slot in &mut self.roots {
            if slot.as_ref().is_some_and(|root| root.until.is_some_and(|until| until <= now)) {
                *slot = None;
            }
        }
    }

    /// The root that signs now: of those in force, the one that began last.
    ///
    /// # Errors
    /// [`Error::UnknownKey`] if none is in force.
    pub fn current(&self, now: Timestamp) -> Result<(KeyId, &RootKey), Error> {
        self.in_force(now)
            .filter(|root| root.from <= now)
            .max_by_key(|root| (root.from, root.id))
            .map(|root| (root.id, &root.key))
            .ok_or(Error::UnknownKey)
    }

    /// The root with this id, if it still verifies. One that signs only later verifies already: clocks differ.
    ///
    /// # Errors
    /// [`Error::UnknownKey`].
    pub fn get(&self, id: KeyId, now: Timestamp) -> Result<&RootKey, Error> {
        self.in_force(now).find(|root| root.id == id).map(|root| &root.key).ok_or(Error::UnknownKey)
    }

    fn in_force(&self, now: Timestamp) -> impl Iterator<Item = &Root> {
        self.roots.iter().flatten().filter(move |root| root.until.is_none_or(|until| now < until))
    }
}

/// The leases that a first hop holds for one tenant. Full, the one of the oldest epoch makes room.
#[derive(Clone, Debug)]
pub struct LeaseRing<const N: usize> {
    leases: [Option<Lease>; N],
}

#[derive(Clone, Debug)]
struct Lease {
    id: KeyId,
    epoch: Epoch,
    key: LeaseKey,
}

impl<const N: usize> Default for LeaseRing<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> LeaseRing<N> {
    /// No leases yet.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(N > 0, "a ring holds at least one lease") }
        Self { leases: [const { None }; N] }
    }

    /// Takes a lease in; one for the same root and epoch is replaced. A lease older than all of a full ring stays out.
    pub fn insert(&mut self, id: KeyId, epoch: Epoch, key: LeaseKey) {
        // A free slot is older than any lease.
        let age = |slot: &Option<Lease>| slot.as_ref().map(|lease| (lease.epoch, lease.id));
        let this = Some((epoch, id));
        let same = self.leases.iter().position(|slot| age(slot) == this);
        let slot = match same {
            Some(at) => Some(&mut self.leases[at]),
            None => self.leases.iter_mut().min_by_key(|slot| age(slot)).filter(|slot| age(slot) < this),
        };
        if let Some(slot) = slot {
            *slot = Some(Lease { id, epoch, key });
        }
    }

    /// The lease to sign with now: the current epoch's, of the newest root.
    ///
    /// # Errors
    /// [`Error::UnknownKey`] if none is held.
    pub fn current(&self, now: Timestamp) -> Result<(KeyId, Epoch, &LeaseKey), Error> {
        let epoch = Epoch::at(now);
        self.leases
            .iter()
            .flatten()
            .filter(|lease| lease.epoch == epoch)
            .max_by_key(|lease| lease.id)
            .map(|lease| (lease.id, lease.epoch, &lease.key))
            .ok_or(Error::UnknownKey)
    }

    /// The lease of a root and an epoch.
    ///
    /// # Errors
    /// [`Error::UnknownKey`] if it is not held.
    pub fn get(&self, id: KeyId, epoch: Epoch) -> Result<&LeaseKey, Error> {
        self.leases
            .iter()
            .flatten()
            .find(|lease| (lease.id, lease.epoch) == (id, epoch))
            .map(|lease| &lease.key)
            .ok_or(Error::UnknownKey)
    }

    /// The last epoch that a lease is held for.
    #[must_use]
    pub fn last_epoch(&self) -> Option<Epoch> {
        self.leases.iter().flatten().map(|lease| lease.epoch).max()
    }
}
