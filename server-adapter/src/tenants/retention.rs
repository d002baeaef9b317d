//! What a tenant's journal keeps, and a thread that removes the rest.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Live, Tenants};
use crate::{
    Error, Settings,
    background::Stop,
    clock,
    journal::Keep,
    settings::{Bytes, Span},
};

/// `[retention]` of `tenant.toml`: what differs from the server's settings `retention_…`. 0 keeps everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionFile {
    /// Events that are older are removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
    /// While the journal uses more of its file, its oldest events are removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<Bytes>,
}

impl RetentionFile {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is in force: the tenant's own, the server's for the rest.
    fn keep(&self, settings: &Settings) -> Keep {
        let age = self.max_age.unwrap_or(settings.retention_age).0;
        let bytes = self.max_bytes.unwrap_or(settings.retention_bytes).0;
        Keep { max_age: (!age.is_zero()).then_some(age), max_bytes: (bytes > 0).then_some(bytes) }
    }
}

/// How long one tenant's turn is. What is left comes at the next: ingest goes first.
const TURN: Duration = Duration::from_millis(300);

impl Tenants {
    /// Removes what is due, of every tenant in its turn.
    pub(super) fn retain(&self, stop: &Stop) {
        for live in self.all() {
            let began = Instant::now();
            loop {
                match self.retain_one(&live) {
                    Ok(true) if began.elapsed() < TURN && !stop.is_asked_for() => {}
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!(tenant = %live.id, %error, "retention; again in a moment");
                        break;
                    }
                }
            }
            let journal = self.journal(live.id);
            if let Err(error) = live.journal.make_room(&journal, self.disk.is_low()) {
                tracing::warn!(tenant = %live.id, %error, "room for the disk; again in a moment");
            }
        }
        if self.disk.is_low() {
            self.disk.look();
        }
    }

    fn retain_one(&self, live: &Live) -> Result<bool, Error> {
        let keep = live.known().file.retention.keep(&self.settings);
        live.journal.retain(&self.journal(live.id), keep, live.sinks.confirmed(), clock::now())
    }
}
