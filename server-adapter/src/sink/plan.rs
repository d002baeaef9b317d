//! What a sink is opened from: again after every failure.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use firsthop_core::TenantId;
use tokio::sync::watch;

use super::{
    Failure, Opened, Records, Saved, Sink,
    batch::{self, Limits, Position, meet},
    events::{self, Doubt, Events},
    ndjson,
    records::{NOTING, ORDERED},
    spec::{Begin, EVENTS, SinkSpec},
};
use crate::{disk::Disk, journal};

/// A sink as its settings say, and the files around it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) tenant: TenantId,
    /// The tenant's folder.
    pub(super) folder: PathBuf,
    pub(super) journal: PathBuf,
    pub(super) kind: Kind,
    pub(super) disk: Arc<Disk>,
    /// Whether it was open before: what is beyond its mark then is what it wrote itself.
    pub(super) was_open: AtomicBool,
    /// Of the events table.
    pub(super) doubt: Arc<Doubt>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The events table.
    Events(PathBuf),
    /// One that was asked for.
    Asked(Box<SinkSpec>),
}

impl Plan {
    pub(super) fn name(&self) -> &str {
        match &self.kind {
            Kind::Events(_) => EVENTS,
            Kind::Asked(spec) => spec.name(),
        }
    }

    /// What a batch may hold. A sink that keeps events on this disk leaves of it what others need to go on, so there it is the less the fuller
    /// the disk is; none: nothing fits any more.
    pub(super) fn fit(&self, limits: Limits) -> Option<Limits> {
        let keeps_here = match &self.kind {
            Kind::Events(_) => true,
            Kind::Asked(spec) => matches!(&**spec, SinkSpec::Ndjson(spec) if spec.is_in_folder()),
        };
        if !keeps_here {
            return Some(limits);
        }
        let room = usize::try_from(self.disk.room_for_copies()).unwrap_or(usize::MAX);
        (room > 0).then(|| Limits { bytes: limits.bytes.min(room), ..limits })
    }

    fn path_of_records(&self) -> PathBuf {
        self.folder.join("sinks.db")
    }

    /// Whether any sink has noted anything.
    pub(super) fn has_records(&self) -> bool {
        self.path_of_records().exists()
    }

    pub(super) fn records(&self, patience: Duration) -> Result<Records, Failure> {
        Records::open(&self.path_of_records(), self.name(), patience).map_err(Failure::of_records)
    }

    /// Opens it where it was.
    pub(super) fn open(&self, stop: watch::Receiver<bool>) -> Result<Opened, Failure> {
        let spec = match &self.kind {
            // Waits for nobody.
            Kind::Events(table) => {
                return Ok(Events::open(&self.journal, table, &self.path_of_records(), &self.doubt)?);
            }
            Kind::Asked(spec) => &**spec,
        };
        let records = self.records(NOTING)?;
        let journal = journal::open_reader(&self.journal)?;
        let was = match records.saved()? {
            Some(saved) => saved,
            None => {
                let at = match spec.begin() {
                    Begin::Start => Position::default(),
                    Begin::Now => batch::before(&journal, i64::MAX)?,
                };
                let saved = Saved { at, journal: journal::read_id(&journal)?, mark: String::new() };
                // Now means now, though the other side may be away.
                records.save(&saved, &[])?;
                saved
            }
        };
        let met = meet(&journal, was.at, was.journal)?;
        let sink = self.open_asked(spec, &was.mark, stop)?;
        self.was_open.store(true, Ordering::Relaxed);
        let saved = Saved { at: met.at, journal: met.journal, mark: sink.mark() };
        // Noted before anything is delivered from there.
        records.save(&saved, &[])?;
        Ok(Opened { sink, saved, records: Some(records), rewound: met.rewound })
    }

    #[cfg_attr(
        not(any(feature = "sink-http", feature = "sink-postgres")),
        allow(unused_variables, reason = "a file waits for nobody")
    )]
    fn open_asked(&self, spec: &SinkSpec, mark: &str, stop: watch::Receiver<bool>) -> Result<Box<dyn Sink>, Failure> {
        match spec {
            SinkSpec::Ndjson(spec) => ndjson::open(spec, &self.folder, mark, self.was_open.load(Ordering::Relaxed)),
            #[cfg(feature = "sink-http")]
            SinkSpec::Http(spec) => super::http::open(spec, self.tenant, &self.folder, stop),
            #[cfg(feature = "sink-postgres")]
            SinkSpec::Postgres(spec) => super::postgres::open(spec, &self.folder, stop),
            #[cfg(not(feature = "sink-postgres"))]
            SinkSpec::Postgres(_) => {
                Err(Failure::new("this build has no PostgreSQL sinks: build it with the feature sink-postgres"))
            }
            #[cfg(not(feature = "sink-http"))]
            SinkSpec::Http(_) => Err(Failure::new("this build has no HTTP sinks: build it with the feature sink-http")),
        }
    }

    /// Has the sink ask again for this frame and all that follow it. It must not be open.
    pub(super) fn move_before(&self, frame: i64) -> Result<(), Failure> {
        let journal = journal::open_reader(&self.journal)?;
        let at = batch::before(&journal, frame)?;
        match &self.kind {
            Kind::Events(table) => Ok(events::move_to(table, at)?),
            Kind::Asked(_) => {
                let records = self.records(ORDERED)?;
                let was = records.saved()?.unwrap_or_default();
                records.save(&Saved { at, journal: journal::read_id(&journal)?, ..was }, &[])
            }
        }
    }
}
