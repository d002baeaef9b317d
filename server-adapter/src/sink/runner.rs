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

use super::{
    Delivery, Failure, Opened, Rejected, Sink,
    batch::{Batch, Position},
    events::Events,
};
use crate::{
    Error, clock,
    journal::{self, Follower, Waited},
    metrics::{Counter, Gauge, Histogram},
    tenants::random_bytes,
};

/// One sink of a tenant, kept up with the journal by a thread of its own.
#[derive(Debug)]
pub(crate) struct Runner {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    tenant: TenantId,
    name: String,
    journal: PathBuf,
    table: PathBuf,
    follower: Follower,
    /// The last frame of which all is delivered.
    delivered: AtomicI64,
    /// The last of which that holds after a power cut too.
    confirmed: AtomicI64,
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

/// After a batch with fewer events than this, the next one begins no sooner than [`GATHER`] after it: a few rows cost nearly as
/// many pages as many do. The first event after a silence waits for nothing.
const SMALL: usize = 2048;
const GATHER: Duration = Duration::from_millis(50);
/// The longest that what is delivered is not made to last.
const FLUSH: Duration = Duration::from_secs(1);
/// The first pause after a failure, and the longest.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a thread that is to end may take to notice it.
const ENDING: Duration = Duration::from_secs(2);

/// Figures for `/metrics`.
#[derive(Debug, Default)]
pub(crate) struct SinkStats {
    pub(crate) rows: Counter,
    pub(crate) errors: Counter,
    pub(crate) unreadable: Counter,
    pub(crate) rewinds: Counter,
    pub(crate) batches: Histogram,
    /// When the oldest frame that is being delivered was received, in milliseconds since 1970; 0: none waits.
    waiting_since: Gauge,
}

impl Runner {
    /// Opens the events table, makes it if need be, and starts to follow.
    pub(super) fn open(tenant: TenantId, journal: PathBuf, table: PathBuf, follower: Follower) -> Result<Self, Error> {
        let opened = Events::open(&journal, &table)?;
        let shared = Arc::new(Shared {
            tenant,
            name: "events".into(),
            journal,
            follower,
            delivered: AtomicI64::new(opened.at.frame),
            confirmed: AtomicI64::new(0),
            stop: Mutex::default(),
            stopped: Condvar::new(),
            stats: SinkStats::default(),
            table: table.clone(),
        });
        let thread = std::thread::Builder::new()
            .name("sink".into())
            .stack_size(512 << 10)
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run(opened)
            })
            .map_err(Error::io(&table))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    pub(crate) fn name(&self) -> &str {
        &self.shared.name
    }

    /// The last frame of which everything is delivered.
    pub(crate) fn delivered(&self) -> i64 {
        self.shared.delivered.load(Ordering::Relaxed)
    }

    /// The last frame that the sink will never ask for again.
    pub(crate) fn confirmed(&self) -> i64 {
        self.shared.confirmed.load(Ordering::Relaxed)
    }

    /// How long the oldest event that is not delivered has waited.
    pub(crate) fn lag(&self) -> Duration {
        let since = self.shared.stats.waiting_since.get();
        let waited = if since == 0 { 0 } else { clock::now().as_millis().saturating_sub(since) };
        Duration::from_millis(waited)
    }

    pub(crate) fn stats(&self) -> &SinkStats {
        &self.shared.stats
    }

    /// Once the journal is closed: waits until everything is delivered, until `deadline` at the latest, and ends the
    /// thread. What is left is delivered after the next start. Blocks.
    pub(super) fn close(&self, deadline: Instant) {
        self.shared.wait_for_end(deadline);
        self.shared.lock().now = true;
        self.shared.stopped.notify_all();
        self.shared.follower.wake();
        // One that hangs in a write that nobody reads holds up the process's end no longer than this.
        if !self.shared.wait_for_end(Instant::now() + ENDING) {
            tracing::error!(tenant = %self.shared.tenant, sink = self.shared.name, "a sink hangs and is left behind");
            return;
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!(tenant = %self.shared.tenant, sink = self.shared.name, "a sink panicked");
        }
    }
}

/// Told when the thread ends, also by a panic.
struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.stopped.notify_all();
    }
}

impl Shared {
    fn run(&self, opened: Opened) {
        let _end = End(self);
        yield_to_ingest();
        let mut failures = 0;
        let mut opened = Some(opened);
        while !self.is_stopped() {
            let result = match opened.take() {
                Some(opened) => Ok(opened),
                None => Events::open(&self.journal, &self.table).map_err(Failure::from),
            };
            let failure = match result.and_then(|opened| self.follow(opened, &mut failures)) {
                Ok(()) => return,
                Err(failure) => failure,
            };
            self.stats.errors.add(1);
            let pause = pause(failures, failure.after);
            failures += 1;
            tracing::warn!(
                tenant = %self.tenant, sink = self.name, error = failure.what, "a sink takes nothing; again in {pause:?}"
            );
            self.wait(pause);
        }
    }

    /// Delivers what is there and what comes, until there will be nothing more or it is to stop.
    fn follow(&self, opened: Opened, failures: &mut u32) -> Result<(), Failure> {
        let Opened { mut sink, at, rewound } = opened;
        if rewound {
            self.stats.rewinds.add(1);
            tracing::error!(
                tenant = %self.tenant,
                sink = self.name,
                "the journal is not the one that the sink was at: another, or an older state of it; all of it is delivered again"
            );
        }
        let reader = journal::open_reader(&self.journal)?;
        let mut batch = Batch::default();
        let mut at = at;
        self.delivered.store(at.frame, Ordering::Relaxed);
        let mut flushed = Flushed { at: -1, when: Instant::now() };
        self.flush(&mut *sink, &mut flushed, at)?;
        loop {
            if self.is_stopped() {
                return self.flush(&mut *sink, &mut flushed, at);
            }
            let began = Instant::now();
            batch.read(&reader, at, sink.limits())?;
            if batch.frames() == 0 {
                self.stats.waiting_since.set(0);
                let until = (flushed.at != at.frame).then(|| flushed.when + FLUSH);
                match self.follower.wait_beyond(at.frame, until, || self.is_stopped()) {
                    Waited::Beyond => {}
                    Waited::Closed => return self.flush(&mut *sink, &mut flushed, at),
                    Waited::Otherwise => self.flush(&mut *sink, &mut flushed, at)?,
                }
                continue;
            }
            self.stats.waiting_since.set(batch.received().map_or(0, |received| received.as_millis()));
            self.stats.unreadable.add(batch.unreadable);
            let events = batch.len();
            self.deliver(&mut *sink, &mut batch, &mut at, failures)?;
            self.stats.batches.observe(began.elapsed());
            if flushed.when.elapsed() >= FLUSH {
                self.flush(&mut *sink, &mut flushed, at)?;
            }
            if events < SMALL {
                self.wait(GATHER.saturating_sub(began.elapsed()));
            }
        }
    }

    /// Delivers a whole batch, in as many steps as the sink wants.
    fn deliver(
        &self,
        sink: &mut dyn Sink,
        batch: &mut Batch,
        at: &mut Position,
        failures: &mut u32,
    ) -> Result<(), Failure> {
        loop {
            let Delivery { done, rejected, failed } = sink.deliver(batch);
            self.stats.rows.add((done - rejected.len().min(done)) as u64);
            for Rejected { index, reason } in &rejected {
                tracing::error!(tenant = %self.tenant, sink = self.name, index, reason, "a sink refused an event for good");
            }
            *at = batch.position_after(done);
            batch.advance(done);
            self.delivered.store(at.frame, Ordering::Relaxed);
            if done > 0 {
                *failures = 0;
            }
            match failed {
                Some(failure) => return Err(failure),
                None if batch.len() == 0 => return Ok(()),
                None if self.is_stopped() => return Ok(()),
                None => {}
            }
        }
    }

    fn flush(&self, sink: &mut dyn Sink, flushed: &mut Flushed, at: Position) -> Result<(), Failure> {
        if flushed.at != at.frame {
            sink.flush()?;
            self.confirmed.store(at.frame, Ordering::Relaxed);
        }
        *flushed = Flushed { at: at.frame, when: Instant::now() };
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Stop> {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, or until it is to stop.
    fn wait(&self, time: Duration) {
        drop(self.stopped.wait_timeout_while(self.lock(), time, |stop| !stop.now));
    }

    /// Whether the thread ended until then.
    fn wait_for_end(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.stopped.wait_timeout_while(self.lock(), left, |stop| !stop.ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }

    fn is_stopped(&self) -> bool {
        self.lock().now
    }
}

/// What was made to last, and when.
struct Flushed {
    at: i64,
    when: Instant,
}

/// The journal keeps everything, so there is time: twice as long at every failure, up to half a minute, and as long as the other side
/// asked for. Shaken by a quarter, so that many sinks do not come back to one place in one moment.
fn pause(failures: u32, after: Option<Duration>) -> Duration {
    let pause = (PAUSE * 2_u32.saturating_pow(failures.min(16))).min(LONGEST_PAUSE);
    let mut random = [0];
    random_bytes(&mut random);
    pause.mul_f64(0.75 + f64::from(random[0]) / 512.0).max(after.unwrap_or_default())
}

/// A table may be late; an acknowledgement should not. On Linux a thread has a priority of its own, elsewhere the
/// process has one, which is left as it is.
fn yield_to_ingest() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, 5) {
        tracing::debug!(%error, "the sink keeps its priority");
    }
}
