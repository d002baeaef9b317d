//! The sinks of one tenant.

use std::{path::PathBuf, time::Instant};

use firsthop_core::TenantId;

use super::runner::Runner;
use crate::{Error, journal::Follower};

/// All sinks of a tenant, each on its own.
#[derive(Debug)]
pub(crate) struct Sinks {
    runners: Vec<Runner>,
}

impl Sinks {
    /// Opens all of them, and starts to deliver.
    pub(crate) fn open(tenant: TenantId, journal: PathBuf, events: PathBuf, follower: Follower) -> Result<Self, Error> {
        Ok(Self { runners: vec![Runner::open(tenant, journal, events, follower)?] })
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[Runner] {
        &self.runners
    }

    /// The last frame that no sink will ask for again: what comes after it must stay in the journal.
    #[allow(dead_code, reason = "retention asks for it")]
    pub(crate) fn confirmed(&self) -> i64 {
        self.runners.iter().map(Runner::confirmed).min().unwrap_or(0)
    }

    /// Once the journal is closed: lets them catch up until `deadline`, and ends them. Blocks.
    pub(crate) fn close(&self, deadline: Instant) {
        self.runners.iter().for_each(|runner| runner.close(deadline));
    }
}
