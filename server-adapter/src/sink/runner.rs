//! The thread of a sink: waits for commits, delivers, goes on after errors.

use std::{
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use firsthop_core::TenantId;

use super::events::Events;
use crate::{
    Error,
    journal::Follower,
    metrics::{Counter, Histogram},
};

/// One tenant's events table, kept up with the journal.
#[derive(Debug)]
pub(crate) struct Sink {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    tenant: TenantId,
    journal: PathBuf,
    table: PathBuf,
    cursor: AtomicI64,
    stop: Mutex<Stop>,
    stopped: Condvar,
    stats: SinkStats,
}

#[derive(Debug, Default)]
struct Stop {
    /// Leave what is not delivered for the next start.
    now: bool,
    /// The thread is at its end.
    ended: bool,
}

/// After a transaction with fewer rows than this, the next one begins no sooner than [`GATHER`] after it: a few rows
/// cost nearly as many pages as many do. The first event after a silence waits for nothing.
const SMALL: u64 = 2048;
const GATHER: Duration = Duration::from_millis(50);

/// Figures for `/metrics`.
#[derive(Debug, Default)]
pub(crate) struct SinkStats {
    pub(crate) rows: Counter,
    pub(crate) errors: Counter,
    pub(crate) unreadable: Counter,
    pub(crate) rewinds: Counter,
    pub(crate) batches: Histogram,
}

impl Sink {
    /// Opens the table, makes it if need be, and starts to follow.
    pub(crate) fn open(tenant: TenantId, journal: PathBuf, table: PathBuf, follower: Follower) -> Result<Self, Error> {
        let events = Events::open(&journal, &table)?;
        let shared = Arc::new(Shared {
            tenant,
            journal,
            cursor: AtomicI64::new(events.cursor),
            stop: Mutex::default(),
            stopped: Condvar::new(),
            stats: SinkStats::default(),
            table: table.clone(),
        });
        shared.stats.rewinds.add(events.rewound.into());
        let thread = std::thread::Builder::new()
            .name("sink".into())
            .stack_size(512 << 10)
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run(events, &follower)
            })
            .map_err(Error::io(&table))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// The last frame whose events are in the table.
    pub(crate) fn cursor(&self) -> i64 {
        self.shared.cursor.load(Ordering::Relaxed)
    }

    pub(crate) fn stats(&self) -> &SinkStats {
        &self.shared.stats
    }

    /// Once the journal is closed: waits until everything is delivered, until `deadline` at the latest, and ends the
    /// thread. What is left is delivered after the next start. Blocks.
    pub(crate) fn close(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let stop = self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut stop, _) = self
            .shared
            .stopped
            .wait_timeout_while(stop, left, |stop| !stop.ended)
            .unwrap_or_else(PoisonError::into_inner);
        stop.now = true;
        drop(stop);
        self.shared.stopped.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!(tenant = %self.shared.tenant, "the sink panicked");
        }
    }
}

impl Shared {
    fn run(&self, events: Events, follower: &Follower) {
        yield_to_ingest();
        let mut events = Some(events);
        let mut pause = Duration::from_millis(100);
        while !self.is_stopped() {
            let Some(open) = &mut events else {
                match Events::open(&self.journal, &self.table) {
                    Ok(opened) => {
                        self.stats.rewinds.add(opened.rewound.into());
                        self.cursor.store(opened.cursor, Ordering::Relaxed);
                        events = Some(opened);
                    }
                    Err(error) => self.back_off(&error, &mut pause),
                }
                continue;
            };
            let began = Instant::now();
            match open.deliver() {
                Ok(delivered) if delivered.frames == 0 => {
                    if follower.wait_beyond(open.cursor).is_none() {
                        break;
                    }
                }
                Ok(delivered) => {
                    if delivered.rows < SMALL {
                        self.wait(GATHER.saturating_sub(began.elapsed()));
                    }
                    pause = Duration::from_millis(100);
                    self.stats.batches.observe(began.elapsed());
                    self.stats.rows.add(delivered.rows);
                    self.stats.unreadable.add(delivered.unreadable);
                    self.cursor.store(open.cursor, Ordering::Relaxed);
                }
                Err(error) => {
                    events = None;
                    self.back_off(&error, &mut pause);
                }
            }
        }
        self.stop.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.stopped.notify_all();
    }

    /// Waits, or until it is to stop.
    fn wait(&self, time: Duration) {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.stopped.wait_timeout_while(stop, time, |stop| !stop.now));
    }

    fn is_stopped(&self) -> bool {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner).now
    }

    /// The journal keeps everything, so there is time: twice as long at every failure, up to half a minute.
    fn back_off(&self, error: &dyn std::fmt::Display, pause: &mut Duration) {
        tracing::warn!(tenant = %self.tenant, %error, "the events table cannot be written; again in {pause:?}");
        self.stats.errors.add(1);
        self.wait(*pause);
        *pause = (*pause * 2).min(Duration::from_secs(30));
    }
}

/// A table may be late; an acknowledgement should not. On Linux a thread has a priority of its own, elsewhere the
/// process has one, which is left as it is.
fn yield_to_ingest() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, 5) {
        tracing::debug!(%error, "the sink keeps its priority");
    }
}
