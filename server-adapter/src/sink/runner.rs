//! The thread of a sink: waits for commits, delivers, goes on after errors.

use std::{
    convert::Infallible,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use firsthop_core::TenantId;
use tokio::sync::watch;

use super::{
    Delivery, Failure, Opened, Records, Rejected, Saved, Sink,
    batch::{Batch, Limits},
    kept::KeptRow,
    order::{Asked, Order},
    pace::{GATHER, gathers, pause},
    plan::Plan,
    records::{NOTING, SAYING},
    row::Buffers,
    way::{Way, yield_to_ingest},
};
use crate::{
    Error, clock,
    journal::{self, Follower, Waited},
    metrics::{Counter, Gauge, Histogram},
    traces::Delivering,
};

/// One sink of a tenant, kept up with the journal by a thread of its own.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(super) shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread and those who ask it share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) tenant: TenantId,
    pub(super) plan: Plan,
    pub(super) follower: Follower,
    /// The last frame of which all is delivered.
    delivered: AtomicI64,
    /// The last of which that holds after a power cut too.
    confirmed: AtomicI64,
    /// Whether something went wrong that is noted, and was not taken back yet.
    troubled: AtomicBool,
    state: Mutex<State>,
    pub(super) changed: Condvar,
    /// For a sink that waits for somebody else: true once it is to stop.
    stop: watch::Sender<bool>,
    pub(super) stats: SinkStats,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Leave what is not delivered for the next start.
    stop: bool,
    /// The thread is at its end.
    pub(super) ended: bool,
    /// Something to do in between.
    pub(super) order: Option<Asked>,
}

/// Why a sink that is open follows no longer.
enum Ended {
    /// It is to stop, or there will be nothing more.
    Over,
    /// It must be opened anew, for an order.
    Ordered,
}

/// The longest that what is delivered is not made to last.
const FLUSH: Duration = Duration::from_secs(1);
/// How long a thread that is to end may take to notice it.
const ENDING: Duration = Duration::from_secs(2);

const FULL: &str =
    "the disk is nearly full: a quarter of disk_reserve is left, and kept for cursors and retention. Make room";

/// Figures for `/metrics`.
#[derive(Debug, Default)]
pub(crate) struct SinkStats {
    pub(crate) rows: Counter,
    pub(crate) errors: Counter,
    pub(crate) unreadable: Counter,
    pub(crate) rewinds: Counter,
    /// Microseconds of rest for the sake of acknowledgements.
    pub(crate) yielded: Arc<Counter>,
    pub(crate) batches: Histogram,
    pub(crate) dead: Counter,
    /// Dead letters that are there.
    pub(crate) dead_now: Gauge,
    /// 1: the last attempt failed.
    pub(crate) down: Gauge,
    /// When the oldest frame that is being delivered was received, in milliseconds since 1970; 0: none waits.
    waiting_since: Gauge,
}

impl Runner {
    /// Starts to follow. `opened`: the sink, if it had to be seen that it opens.
    pub(super) fn start(plan: Plan, follower: Follower, opened: Option<Opened>) -> Result<Arc<Self>, Error> {
        let delivered = opened.as_ref().map_or(0, |opened| opened.saved.at.frame);
        let shared = Arc::new(Shared::new(plan, follower, delivered));
        let thread = std::thread::Builder::new()
            .name("sink".into())
            .stack_size(1 << 20)
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run(opened)
            })
            .map_err(Error::io(&shared.plan.journal))?;
        Ok(Arc::new(Self { shared, thread: Mutex::new(Some(thread)) }))
    }

    /// One without a thread, that has confirmed so much.
    #[cfg(test)]
    pub(super) fn at(plan: Plan, follower: Follower, confirmed: i64) -> Arc<Self> {
        let shared = Shared::new(plan, follower, confirmed);
        shared.confirmed.store(confirmed, Ordering::Relaxed);
        Arc::new(Self { shared: Arc::new(shared), thread: Mutex::default() })
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.shared.plan
    }

    pub(crate) fn name(&self) -> &str {
        self.shared.plan.name()
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
        self.shared.lag()
    }

    pub(crate) fn stats(&self) -> &SinkStats {
        &self.shared.stats
    }

    /// Tells it to leave what is not delivered for the next start.
    pub(super) fn stop(&self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        self.shared.stop.send_replace(true);
        self.shared.follower.wake();
    }

    /// Whether its thread is at its end.
    pub(super) fn has_ended(&self) -> bool {
        self.shared.lock().ended
    }

    /// Once the journal is closed: waits until everything is delivered, until `deadline` at the latest, and ends the
    /// thread. What is left is delivered after the next start. Says whether the thread has ended. Blocks.
    pub(super) fn close(&self, deadline: Instant) -> bool {
        self.shared.wait_for_end(deadline);
        self.stop();
        // One that hangs in a write that nobody reads holds up the process's end no longer than this.
        if !self.shared.wait_for_end(Instant::now() + ENDING) {
            tracing::error!(tenant = %self.shared.tenant, sink = self.name(), "a sink hangs and is left behind");
            return false;
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!(tenant = %self.shared.tenant, sink = self.name(), "a sink panicked");
        }
        true
    }
}

/// Told when the thread ends, also by a panic.
struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.ended = true;
        // Who waits for it hears that there will be no answer.
        state.order = None;
        drop(state);
        self.0.changed.notify_all();
    }
}

/// A sink that is open, and how far it is.
pub(super) struct Following {
    pub(super) sink: Box<dyn Sink>,
    pub(super) records: Option<Records>,
    pub(super) saved: Saved,
    /// What was made to last, and when.
    flushed: (i64, Instant),
    /// It takes again, and that could not be noted: when to try once more.
    untold: Option<Instant>,
    buffers: Buffers,
}

impl Shared {
    fn new(plan: Plan, follower: Follower, delivered: i64) -> Self {
        Self {
            tenant: plan.tenant,
            follower,
            delivered: AtomicI64::new(delivered),
            confirmed: AtomicI64::new(0),
            // What the last server noted is no longer true, or will be noted again.
            troubled: AtomicBool::new(plan.has_records()),
            state: Mutex::default(),
            changed: Condvar::new(),
            stop: watch::Sender::new(false),
            stats: SinkStats::default(),
            plan,
        }
    }

    fn run(&self, mut opened: Option<Opened>) {
        let _end = End(self);
        yield_to_ingest();
        let (mut failures, mut was_busy) = (0, false);
        loop {
            self.obey();
            if self.lock().stop {
                return;
            }
            let open = match opened.take() {
                Some(opened) => Ok(opened),
                None => self.plan.open(self.stop.subscribe()),
            };
            let follow = |opened| {
                if std::mem::take(&mut was_busy) && failures == 0 {
                    // There may be nothing to deliver for long.
                    self.stats.down.set(0);
                }
                self.follow(opened, &mut failures)
            };
            let failure = match open.and_then(follow) {
                Ok(Ended::Over) => return,
                Ok(Ended::Ordered) => continue,
                Err(failure) => failure,
            };
            if self.lock().stop {
                return;
            }
            // What others write is soon over, and attempts to do so too cost the other side nothing.
            let pause = if failure.is_busy { pause(0, None) } else { pause(failures, failure.after) };
            if failure.is_busy {
                // What is noted of the sink stays.
                let what = "a sink waits for others, who write where it notes how far it is";
                self.waits_for_others(what, &failure, &mut was_busy);
            } else {
                was_busy = false;
                failures += 1;
                self.fails(&failure, pause);
            }
            self.wait(pause, true);
        }
    }

    /// Notes that it takes nothing, and why.
    fn fails(&self, failure: &Failure, pause: Duration) {
        self.stats.errors.add(1);
        self.stats.down.set(1);
        self.troubled.store(true, Ordering::Relaxed);
        tracing::warn!(
            tenant = %self.tenant, sink = self.plan.name(), error = failure.for_log.as_ref().unwrap_or(&failure.what),
            "a sink takes nothing; again in {pause:?}"
        );
        if let Err(failure) = self.plan.records(SAYING).and_then(|records| records.note(&failure.what)) {
            tracing::warn!(
                tenant = %self.tenant, sink = self.plan.name(), error = failure.what, "a sink's trouble cannot be noted"
            );
        }
    }

    /// It takes nothing meanwhile, by no fault of its own. Said once for each time.
    fn waits_for_others(&self, what: &str, failure: &Failure, was_busy: &mut bool) {
        self.stats.down.set(1);
        if !std::mem::replace(was_busy, true) {
            tracing::warn!(tenant = %self.tenant, sink = self.plan.name(), error = failure.what, "{what}; until it can");
        }
    }

    /// Delivers what is there and what comes, until there will be nothing more or it is to stop.
    fn follow(&self, opened: Opened, failures: &mut u32) -> Result<Ended, Failure> {
        let Opened { sink, saved, records, rewound } = opened;
        if rewound {
            self.stats.rewinds.add(1);
            tracing::error!(
                tenant = %self.tenant,
                sink = self.plan.name(),
                "the journal is not the one that the sink was at: another, or an older state of it; all of it is delivered again"
            );
        }
        let reader = journal::open_reader(&self.plan.journal)?;
        let mut batch = Batch::giving(Way::of_this_thread(self.follower.waiting(), &self.stats.yielded));
        let mut on = Following {
            sink,
            records,
            saved,
            flushed: (-1, Instant::now()),
            untold: None,
            buffers: Buffers::default(),
        };
        self.delivered.store(on.saved.at.frame, Ordering::Relaxed);
        self.flush(&mut on)?;
        self.count_dead(&on)?;
        loop {
            if self.lock().stop {
                self.flush(&mut on)?;
                return Ok(Ended::Over);
            }
            if self.obey_open(&mut on)? {
                return Ok(Ended::Ordered);
            }
            let began = Instant::now();
            let at = on.saved.at;
            let fits = self.plan.fit(on.sink.limits());
            // Nothing fits: whether there is anything is still to be seen.
            let limits = fits.unwrap_or(Limits { events: 1, bytes: 1 });
            batch.read(&reader, at, limits, self.follower.seals())?;
            if batch.frames() == 0 {
                if let Some((frame, why)) = &batch.closed {
                    self.flush(&mut on)?;
                    return Err(Failure::new(format!(
                        "{why}. If nobody has that key any more: `firsthop replay --sink {} --from {}`, or a later frame or time, has this \
                         sink go on behind what was sealed to it",
                        self.plan.name(),
                        frame + 1
                    )));
                }
                self.stats.waiting_since.set(0);
                let flush = (on.flushed.0 != at.frame).then(|| on.flushed.1 + FLUSH);
                let until = flush.into_iter().chain(on.untold).min();
                match self.follower.wait_beyond(at.frame, until, || self.is_wanted()) {
                    Waited::Beyond => {}
                    Waited::Closed => {
                        self.flush(&mut on)?;
                        return Ok(Ended::Over);
                    }
                    Waited::Otherwise => {
                        self.flush(&mut on)?;
                        if on.untold.is_some() {
                            self.well(&mut on)?;
                        }
                    }
                }
                continue;
            }
            if fits.is_none() && batch.len() > 0 {
                return Err(Failure::new(FULL));
            }
            self.stats.waiting_since.set(batch.received().map_or(0, |received| received.as_millis()));
            batch.way.begin(self.lag());
            self.stats.unreadable.add(batch.unreadable);
            let gathers = gathers(&batch);
            let traces = Delivering::begin(batch.traces());
            self.deliver(&mut on, &mut batch, failures)?;
            traces.end(self.tenant, self.plan.name());
            self.stats.batches.observe(began.elapsed());
            if on.flushed.1.elapsed() >= FLUSH {
                self.flush(&mut on)?;
            }
            while let Some(rest) = batch.way.owes() {
                self.wait(rest, true);
                if self.is_wanted() {
                    break;
                }
            }
            if gathers {
                self.wait(GATHER.saturating_sub(began.elapsed()), false);
            }
        }
    }

    /// How long the oldest event that is not delivered has waited.
    fn lag(&self) -> Duration {
        let since = self.stats.waiting_since.get();
        let waited = if since == 0 { 0 } else { clock::now().as_millis().saturating_sub(since) };
        Duration::from_millis(waited)
    }

    /// Delivers a whole batch, in as many steps as the sink wants. The cursor follows each step.
    fn deliver(&self, on: &mut Following, batch: &mut Batch, failures: &mut u32) -> Result<(), Failure> {
        loop {
            // Frames without events are nothing to send; a sink that keeps its cursor itself moves it past them.
            let nothing = batch.len() == 0 && on.records.is_some();
            let delivery = if nothing { Delivery::default() } else { on.sink.deliver(batch) };
            let Delivery { done, rejected, failed } = delivery;
            let refused = self.refused(on, batch, &rejected)?;
            on.saved.at = batch.position_after(done);
            if done > 0 || batch.len() == 0 {
                self.save(on, &refused)?;
                *failures = 0;
                self.well(on)?;
            }
            if !rejected.is_empty() {
                self.count_dead(on)?;
            }
            self.stats.rows.add((done - rejected.len().min(done)) as u64);
            self.stats.dead.add(rejected.len() as u64);
            batch.advance(done);
            self.delivered.store(on.saved.at.frame, Ordering::Relaxed);
            match failed {
                Some(failure) => return Err(failure),
                None if batch.len() == 0 || self.lock().stop => return Ok(()),
                None => {}
            }
        }
    }

    /// Events that were rejected, to be kept.
    fn refused(
        &self,
        on: &mut Following,
        batch: &Batch,
        rejected: &[Rejected],
    ) -> Result<Vec<(KeptRow, String)>, Failure> {
        if rejected.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(records) = &on.records {
            records.check_room(rejected)?;
        }
        let mut kept = Vec::with_capacity(rejected.len());
        let mut rejected = rejected.iter().peekable();
        let Ok(()) = batch.each(&mut on.buffers, |index, row| {
            if let Some(rejected) = rejected.next_if(|rejected| rejected.index == index) {
                kept.push((KeptRow::new(row), rejected.reason.clone()));
            }
            Ok::<(), Infallible>(())
        });
        tracing::warn!(
            tenant = %self.tenant, sink = self.plan.name(), events = kept.len(),
            "refused for good: dead letters now, which `firsthop sinks dead` shows"
        );
        Ok(kept)
    }

    /// Notes how far it is, where the sink does not do so itself.
    fn save(&self, on: &mut Following, refused: &[(KeptRow, String)]) -> Result<(), Failure> {
        if on.records.is_none() {
            return Ok(());
        }
        on.sink.flush()?;
        on.saved.mark = on.sink.mark();
        if let Some(records) = &on.records {
            // Opened anew, the sink would deliver the same again.
            let mut was_busy = false;
            while let Err(failure) = records.save(&on.saved, refused) {
                if !failure.is_busy || self.lock().stop {
                    return Err(failure);
                }
                let what = "what a sink has delivered cannot be noted while others write where it notes it";
                self.waits_for_others(what, &failure, &mut was_busy);
            }
        }
        self.confirm(on);
        Ok(())
    }

    fn flush(&self, on: &mut Following) -> Result<(), Failure> {
        if on.flushed.0 != on.saved.at.frame {
            on.sink.flush()?;
        }
        self.confirm(on);
        Ok(())
    }

    fn confirm(&self, on: &mut Following) {
        on.flushed = (on.saved.at.frame, Instant::now());
        self.confirmed.store(on.saved.at.frame, Ordering::Relaxed);
    }

    /// The sink will ask for this frame again, and has not had it until then.
    pub(super) fn asks_again(&self, frame: i64) {
        self.confirmed.fetch_min(frame - 1, Ordering::Relaxed);
        self.delivered.fetch_min(frame - 1, Ordering::Relaxed);
    }

    /// Notes that it takes again. While others write there that waits, and no delivery does.
    fn well(&self, on: &mut Following) -> Result<(), Failure> {
        self.stats.down.set(0);
        let now = Instant::now();
        if !self.troubled.load(Ordering::Relaxed) || on.untold.is_some_and(|again| now < again) {
            return Ok(());
        }
        match self.plan.records(SAYING).and_then(|records| records.well()) {
            Err(failure) if failure.is_busy => on.untold = Some(now + FLUSH),
            Err(failure) => return Err(failure),
            Ok(()) => {
                on.untold = None;
                self.troubled.store(false, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    pub(super) fn count_dead(&self, on: &Following) -> Result<(), Failure> {
        let dead = match &on.records {
            Some(records) => records.dead_count()?,
            None if self.plan.has_records() => self.plan.records(NOTING)?.dead_count()?,
            None => 0,
        };
        self.stats.dead_now.set(dead);
        Ok(())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, or until it is to stop, or is to do something that does not need the sink's other side.
    fn wait(&self, time: Duration, obey: bool) {
        let asked = |state: &State| state.order.as_ref().is_some_and(|asked| asked.order != Order::Retry);
        let idle = |state: &mut State| !(state.stop || obey && asked(state));
        drop(self.changed.wait_timeout_while(self.lock(), time, idle));
    }

    /// Whether the thread ended until then.
    fn wait_for_end(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.lock(), left, |state| !state.ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }

    /// Whether it is to stop or has an order.
    fn is_wanted(&self) -> bool {
        let state = self.lock();
        state.stop || state.order.is_some()
    }
}
