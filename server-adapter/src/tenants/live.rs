//! Tenants of a running server: their settings, kept up with their files, their journals and their sinks.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant, SystemTime},
};

use firsthop_core::{
    Error as CoreError, Frame, KeyId, LeaseKey, LeaseScope, Region, RegionKeyId, RegionSecretKey, SessionGrant,
    TenantId, Timestamp,
};
use firsthop_intake::{Account, Problem, Refusal, Rooted};

use super::{
    Documents, KeyFile, Limits, Store, StoredTenant, TenantFile, Usage, kept,
    turns::{Sharing, Turns},
};
use crate::{
    Error, Settings,
    background::Background,
    clock,
    disk::Disk,
    ingest::FirstHop,
    journal::{Journal, JournalStatus, Seals, shapes::Watched},
    sink::Sinks,
};

/// All tenants of a server.
#[derive(Debug)]
pub(crate) struct Tenants {
    pub(super) store: Store,
    pub(super) settings: Settings,
    tenants: RwLock<HashMap<TenantId, Arc<Live>>>,
    pub(crate) disk: Arc<Disk>,
    sharing: Arc<Sharing>,
    /// The turns of requests that are likely to name a tenant and prove nothing, whichever tenant that is: so these take no tenant's.
    pub(crate) strangers: Arc<Turns>,
    /// Tenants that could not be loaded, as their files were then: tried again when those change, or after a while.
    failed: Mutex<HashMap<TenantId, (Stamps, Instant)>>,
}

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// When a tenant that could not be loaded is tried again, though its files are as they were.
const RETRY: Duration = Duration::from_secs(30);

/// One tenant: what its files say now, and where its events go.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) id: TenantId,
    known: RwLock<Arc<Known>>,
    pub(crate) usage: Usage,
    pub(crate) turns: Arc<Turns>,
    pub(crate) journal: Journal,
    pub(crate) sinks: Sinks,
    pub(crate) shapes: Watched,
}

/// What a tenant's files say.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) rooted: Rooted,
    pub(crate) file: TenantFile,
    pub(crate) keys: KeyFile,
    pub(crate) documents: Documents,
    pub(crate) limits: Limits,
    stamps: Stamps,
    /// The lease that was asked for last.
    lease: Mutex<Option<(KeyId, LeaseScope, LeaseKey)>>,
}

impl Known {
    /// What this server does with a frame that nobody has read before.
    pub(crate) const fn first_hop(&self) -> FirstHop<'_> {
        FirstHop { file: &self.file, keys: &self.keys }
    }
}

/// A tenant as one request sees it: a change of its files in the middle does not reach it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) live: Arc<Live>,
    pub(crate) known: Arc<Known>,
}

impl Account for Found {
    fn tenant(&self) -> &firsthop_intake::Tenant {
        self.known.rooted.tenant()
    }

    fn current(&self, now: Timestamp) -> Result<(KeyId, LeaseScope, LeaseKey), CoreError> {
        self.known.rooted.current(now)
    }

    fn lease(&self, root: KeyId, scope: &LeaseScope, now: Timestamp) -> Result<Option<LeaseKey>, CoreError> {
        let key = self.known.rooted.roots.get(root, now)?;
        // An hour's sessions are nearly all of one lease, and to derive it takes half as long as to check a small frame.
        let mut last = self.known.lease.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((id, of, lease)) if (*id, of) == (root, scope) => Ok(Some(lease.clone())),
            _ => Ok(Some(last.insert((root, *scope, key.lease(scope))).2.clone())),
        }
    }

    fn verify_session(&self, lease: &LeaseKey, frame: &Frame<'_>, now: Timestamp) -> Result<SessionGrant, CoreError> {
        kept::verify_session(lease, frame, now)
    }

    fn region_secret(&self, region: Region, id: RegionKeyId) -> Result<Option<RegionSecretKey>, CoreError> {
        self.known.rooted.region_secret(region, id)
    }

    fn check_sealed(&self, is_sealed: bool) -> Result<(), Refusal> {
        self.known.rooted.check_sealed(is_sealed)
    }

    fn has_room(&self, bytes: usize) -> Result<(), Problem> {
        self.live.usage.check(&self.known.limits, bytes)
    }

    fn admit(&self, events: u16, bytes: usize) -> Result<(), Problem> {
        self.live.usage.take(&self.known.limits, events, bytes)
    }
}

/// Whether a file may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamps([Option<(SystemTime, u64, u64)>; 2]);

impl Stamps {
    fn of(folder: &Path) -> Self {
        Self(["tenant.toml", "keys.toml"].map(|name| {
            use std::os::unix::fs::MetadataExt;
            let meta = fs::metadata(folder.join(name)).ok()?;
            Some((meta.modified().ok()?, meta.len(), meta.ino()))
        }))
    }
}

impl Tenants {
    /// Opens every tenant of the data folder. One that cannot be opened is an error: its producers would be told that
    /// their keys are wrong, and throw their events away.
    pub(crate) fn open(store: Store, settings: Settings) -> Result<Self, Error> {
        let disk = Arc::new(Disk::new(settings.data.clone(), settings.disk_reserve));
        let sharing = Sharing::new(settings.sharing);
        let strangers = Turns::of_strangers(&sharing);
        let (loaded, failed) = (RwLock::default(), Mutex::default());
        let tenants = Self { store, settings, tenants: loaded, failed, disk, sharing, strangers };
        for id in tenants.store.ids()? {
            tenants.load(id)?;
        }
        Ok(tenants)
    }

    /// The tenant with this id.
    pub(crate) fn find(&self, id: TenantId) -> Option<Found> {
        let live = Arc::clone(self.tenants.read().unwrap_or_else(PoisonError::into_inner).get(&id)?);
        let known = live.known();
        Some(Found { live, known })
    }

    /// A tenant's folder.
    pub(crate) fn folder(&self, id: TenantId) -> std::path::PathBuf {
        self.store.folder(id)
    }

    /// All of them, by id.
    pub(crate) fn all(&self) -> Vec<Arc<Live>> {
        let mut all: Vec<_> = self.tenants.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_by_key(|live| live.id);
        all
    }

    /// Those who send at the moment, among whom the work under way is divided.
    pub(crate) fn senders(&self) -> usize {
        self.sharing.senders()
    }

    /// Whether there are journals, and none of them takes commits in time.
    pub(crate) fn are_down(&self) -> bool {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        !tenants.is_empty() && tenants.values().all(|live| live.journal.status() != JournalStatus::Up)
    }

    /// Looks for new tenants and changed files. What is wrong is logged, and what was known stays in force. Tenants
    /// whose folder is gone are served on: to stop that, restart.
    pub(crate) fn refresh(&self) {
        let ids = match self.store.ids() {
            Ok(ids) => ids,
            Err(error) => return tracing::error!(%error, "tenants cannot be listed"),
        };
        for id in ids {
            let stamps = Stamps::of(&self.store.folder(id));
            if self.find(id).is_some_and(|found| found.known.stamps == stamps) {
                continue;
            }
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            if failed.get(&id).is_some_and(|(then, when)| *then == stamps && when.elapsed() < RETRY) {
                continue;
            }
            match self.load(id) {
                Ok(()) => drop(failed.remove(&id)),
                Err(error) => {
                    failed.insert(id, (stamps, Instant::now()));
                    tracing::error!(tenant = %id, %error, "a tenant's files are wrong; what was known stays in force");
                }
            }
        }
    }

    fn load(&self, id: TenantId) -> Result<(), Error> {
        // Taken before reading: a change in between is seen the next time.
        let stamps = Stamps::of(&self.store.folder(id));
        let mut stored = self.store.load(id)?;
        if stored.keys.ledger.is_none() {
            // The file changes by this: the next look finds it so.
            stored.keys.ledger = Some(self.store.ledger_key(id)?);
        }
        let rooted = stored.tenant.account(&stored.keys, clock::now())?;
        if let Err(error) = stored.tenant.check_sealed(&stored.keys) {
            // A change that makes it so is an error. As it is found, it is this tenant's alone, and the others are served.
            if self.find(id).is_some_and(|found| found.known.file.check_sealed(&found.known.keys).is_ok()) {
                return Err(error);
            }
            tracing::warn!(tenant = %id, %error, "all that this tenant is sent is refused, and kept in quarantine as far as there is room");
        }
        let documents = self.store.documents(id, clock::now())?;
        let StoredTenant { tenant: file, keys, .. } = stored.clone();
        let limits = Limits::new(&self.settings, &file.limits);
        let known = Arc::new(Known { rooted, file, keys, documents, limits, stamps, lease: Mutex::default() });
        if let Some(found) = self.find(id) {
            *found.live.known.write().unwrap_or_else(PoisonError::into_inner) = known;
            found.live.journal.seals().set(stored.keys.region_secrets());
            tracing::info!(tenant = %id, "tenant changed");
            found.live.sinks.apply(&stored.tenant.sinks);
            return Ok(());
        }
        // Opened before the map is locked, which all requests of all tenants read; only one thread loads.
        let journal = Journal::open(id, stored.journal(), &self.settings, Seals::new(stored.keys.region_secrets()))?;
        let sinks = Sinks::open(
            id,
            &stored.folder,
            stored.journal(),
            stored.events(),
            &stored.tenant.sinks,
            journal.follower(),
            Arc::clone(&self.disk),
        );
        let sinks = match sinks {
            Ok(sinks) => sinks,
            Err(error) => {
                journal.close();
                return Err(error);
            }
        };
        let live = Arc::new(Live {
            id,
            known: RwLock::new(known),
            usage: Usage::default(),
            turns: Turns::new(&self.sharing),
            journal,
            sinks,
            shapes: Watched::default(),
        });
        self.tenants.write().unwrap_or_else(PoisonError::into_inner).insert(id, live);
        tracing::info!(tenant = %id, "tenant opened");
        Ok(())
    }

    /// Where a tenant's journal is.
    pub(crate) fn journal(&self, id: TenantId) -> PathBuf {
        self.store.folder(id).join("journal.db")
    }

    /// Commits what is queued and lets the sinks catch up. Blocks.
    pub(crate) fn close(&self, deadline: Instant) {
        let all = self.all();
        all.iter().for_each(|live| live.journal.close());
        all.iter().for_each(|live| live.sinks.close(deadline));
    }
}

impl Live {
    /// What its files say.
    pub(crate) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Looks at the tenants' files, and at the disk, every second.
pub(crate) fn watch_files(tenants: Arc<Tenants>) -> std::io::Result<Background> {
    Background::start("tenants", EVERY, || {
        move |_| {
            tenants.disk.look();
            tenants.refresh();
            for live in tenants.all() {
                live.sinks.start_missing();
                live.turns.look();
            }
            tenants.strangers.look();
            EVERY
        }
    })
}

/// Removes from the journals what they are not to keep.
pub(crate) fn watch_retention(tenants: Arc<Tenants>) -> std::io::Result<Background> {
    Background::start("retention", EVERY, || {
        move |stop| {
            tenants.retain(stop);
            EVERY
        }
    })
}
