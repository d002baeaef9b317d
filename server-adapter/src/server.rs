//! A server: tenants, memory, readiness, figures. Listeners and mounted routers are ways into it.

use std::{
    fs::File,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use crate::{
    Error, Settings,
    background::Background,
    clock,
    http::{Shelf, Traffic},
    journal::{Memory, ledger, shapes},
    tenants::{Store, StoredTenant, Tenants, make_folder, watch_files, watch_retention},
};

/// A data folder, being served. A clone is the same server.
#[derive(Clone, Debug)]
pub struct Server {
    pub(crate) inner: Arc<Inner>,
}

/// Why a server takes no events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hindrance {
    /// It is at its end.
    Stopping,
    /// What is left of the disk is the reserve.
    Disk,
    /// No journal takes commits in time.
    Journals,
}

impl Hindrance {
    /// For machines, and for people.
    pub(crate) const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Stopping => ("stopping", "the server is stopping"),
            Self::Disk => ("disk-full", crate::disk::FULL),
            Self::Journals => ("journals-down", "no journal can be written"),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) traffic: Traffic,
    pub(crate) sdk: Arc<Shelf>,
    pub(crate) began: Instant,
    draining: AtomicBool,
    closed: AtomicBool,
    background: std::sync::Mutex<Vec<Background>>,
    made: Option<StoredTenant>,
    /// Who wants to take over.
    #[cfg(feature = "cli")]
    pub(crate) successors: crate::handover::Successors,
    /// Held until the files are closed: one server to a folder.
    lock: std::sync::Mutex<Option<File>>,
}

impl Server {
    /// Opens the data folder and every tenant in it. Without any, it makes one called `default`, so that there is
    /// something to write to: see [`made`](Self::made).
    ///
    /// # Errors
    /// [`Error::Settings`] if a folder of the page SDK is not what it should be; [`Error::Locked`] if another server has the folder; [`Error::Io`], [`Error::Database`], [`Error::Tenant`] if
    /// something in it cannot be opened.
    pub fn open(settings: Settings) -> Result<Self, Error> {
        let sdk = Arc::new(Shelf::open(&settings.sdk.0)?);
        Self::open_with(settings, sdk)
    }

    /// Opens it with a page SDK that has been read already.
    pub(crate) fn open_with(settings: Settings, sdk: Arc<Shelf>) -> Result<Self, Error> {
        make_folder(&settings.data).map_err(Error::io(&settings.data))?;
        let lock = try_lock(&settings.data)?.ok_or_else(|| Error::Locked(settings.data.display().to_string()))?;
        let store = Store::new(&settings.data);
        let made = if store.ids()?.is_empty() {
            Some(store.add("default", firsthop_core::Region::ANY, &["*".to_owned()], clock::now())?)
        } else {
            None
        };
        Self::start(settings, lock, sdk, made)
    }

    /// Opens a folder whose lock the caller has, as it is: for a command.
    #[cfg(feature = "cli")]
    pub(crate) fn open_locked(settings: Settings, lock: File) -> Result<Self, Error> {
        Self::start(settings, lock, Arc::default(), None)
    }

    fn start(settings: Settings, lock: File, sdk: Arc<Shelf>, made: Option<StoredTenant>) -> Result<Self, Error> {
        if !settings.otlp_endpoint.is_none() {
            crate::traces::start(settings.otlp_endpoint.clone()).map_err(Error::io(&settings.data))?;
        }
        let store = Store::new(&settings.data);
        let tenants = Arc::new(Tenants::open(store, settings.clone())?);
        let background = || {
            Ok(vec![
                watch_files(Arc::clone(&tenants))?,
                watch_retention(Arc::clone(&tenants))?,
                shapes::watch(Arc::clone(&tenants))?,
                ledger::keep(Arc::clone(&tenants), settings.ledger_interval.0, settings.ledger_grace.0)?,
            ])
        };
        let background = background().map_err(Error::io(&settings.data))?;
        let memory = Memory::new(usize::try_from(settings.memory.0).unwrap_or(usize::MAX));
        Ok(Self {
            inner: Arc::new(Inner {
                settings,
                tenants,
                memory,
                traffic: Traffic::default(),
                sdk,
                began: Instant::now(),
                draining: AtomicBool::new(false),
                closed: AtomicBool::new(false),
                background: std::sync::Mutex::new(background),
                made,
                #[cfg(feature = "cli")]
                successors: crate::handover::Successors::default(),
                lock: std::sync::Mutex::new(Some(lock)),
            }),
        })
    }

    /// The tenant that [`open`](Self::open) made because there was none.
    #[must_use]
    pub fn made(&self) -> Option<&StoredTenant> {
        self.inner.made.as_ref()
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Whether it takes events: a journal can be written, and the server is not at its end. One tenant's broken file is no reason to
    /// turn all others away; a full disk is every tenant's.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.hindrance().is_none()
    }

    /// Why it takes no events, if it takes none.
    pub(crate) fn hindrance(&self) -> Option<Hindrance> {
        let tenants = &self.inner.tenants;
        match () {
            () if self.is_draining() => Some(Hindrance::Stopping),
            () if tenants.disk.is_low() => Some(Hindrance::Disk),
            () if tenants.are_down() => Some(Hindrance::Journals),
            () => None,
        }
    }

    /// Begins the end: not ready from here on. Requests are still served, so that load balancers have time to notice.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Relaxed)
    }

    /// Ends it: commits what is queued, lets the events table catch up until `deadline`, closes the files. Requests
    /// after that are answered with 503. Blocks.
    pub fn close(&self, deadline: Instant) {
        self.drain();
        self.inner.close(deadline);
    }
}

impl Inner {
    fn close(&self, deadline: Instant) {
        if !self.closed.swap(true, Ordering::Relaxed) {
            self.background.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
            self.tenants.close(deadline);
            crate::traces::flush(std::time::Duration::from_secs(2));
            // Whoever still has a request under way keeps the server, and must not keep the folder.
            drop(self.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
        }
    }
}

/// A server that is dropped without [`close`](Server::close) commits what is queued.
impl Drop for Inner {
    fn drop(&mut self) {
        self.close(Instant::now());
    }
}

/// Takes a data folder for this process, until the file is dropped. None: another has it.
pub(crate) fn try_lock(data: &Path) -> Result<Option<File>, Error> {
    let path = data.join("server.lock");
    let file = File::options().create(true).append(true).open(&path).map_err(Error::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(Error::Io(path.display().to_string(), error)),
    }
}
