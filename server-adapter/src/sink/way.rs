//! Giving way to acknowledgements: a table may be late, an answer should not.
//!
//! A low priority is not all of it: who has a processor keeps it for some milliseconds, whoever needs it. And a thread that got nothing at all
//! might hold what the journal's writer waits for. So while a crowd waits for commits and processors are short, a sink rests between two rows,
//! where it holds nothing that an acknowledgement needs. It rests only so long that it has its share: a little of a processor, and more the
//! later it is.

use std::{
    cell::{Cell, RefCell},
    fs::File,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::metrics::Counter;

/// Where nothing is left of the processors, it has a tenth of what a thread has that answers. Not the idle policy, by which it might stand
/// still in the middle of anything.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Lowers the priority of this thread. On Linux a thread has one of its own; elsewhere the process has one, which is left as it is.
pub(super) fn yield_to_ingest() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "the sink keeps its priority");
    }
}

/// Rows after which the clock is looked at, and the time after which there is something to see.
const ROWS: u32 = 16;
const SLICE: Duration = Duration::from_millis(1);
/// Requests that wait for a commit, from which on they are a crowd.
const CROWD: f64 = 8.0;
/// Processors are short if it stood in line for one for this part of the time that it had one.
const SHORT: f64 = 0.125;
/// What it has of a processor if it is not late.
const SHARE: f64 = 1.0 / 32.0;
/// So late, it gives no way at all; and half as late, a quarter of a processor is its own.
const LATE: Duration = Duration::from_secs(60);
/// The longest rest, and the longest within a batch: a sink may have a transaction of its own open, and somebody may wait for that. What it
/// owes then it rests before the next batch, at most so long.
const REST: Duration = Duration::from_millis(50);
const OF_BATCH: Duration = Duration::from_millis(500);
const OWED: Duration = Duration::from_secs(1);

/// Where a sink gives way. The default has nobody to give way to.
#[derive(Debug, Default)]
pub(super) struct Way {
    rows: Cell<u32>,
    seen: RefCell<Option<Seen>>,
}

/// What a sink sees of those who wait, and of itself.
#[derive(Debug)]
struct Seen {
    waiting: Arc<AtomicUsize>,
    /// What the kernel says of this thread.
    thread: File,
    had: Had,
    /// When that was so.
    since: Instant,
    load: Load,
    lag: Duration,
    /// What is left of [`OF_BATCH`].
    left: Duration,
    /// Rest for which there was no time.
    owed: Duration,
    /// What of that was rested since the last look.
    paid: Duration,
    /// Microseconds of rest.
    rested: Arc<Counter>,
}

/// For how many seconds a thread was on a processor, and stood in line for one.
#[derive(Clone, Copy, Debug, Default)]
struct Had {
    on: f64,
    in_line: f64,
}

/// Means, of which the last look is a quarter.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    waiting: f64,
    on: f64,
    in_line: f64,
}

impl Way {
    /// Of the thread that calls, to those who are `waiting`. Where the system does not say how long a thread stood in line, it gives no way.
    pub(super) fn of_this_thread(waiting: Arc<AtomicUsize>, rested: &Arc<Counter>) -> Self {
        Self::of(File::open("/proc/thread-self/schedstat").ok(), waiting, rested)
    }

    fn of(thread: Option<File>, waiting: Arc<AtomicUsize>, rested: &Arc<Counter>) -> Self {
        let seen = thread.and_then(|thread| {
            let (had, rested) = (Had::read(&thread)?, Arc::clone(rested));
            let (since, load) = (Instant::now(), Load::default());
            Some(Seen {
                waiting,
                thread,
                had,
                since,
                load,
                lag: Duration::ZERO,
                left: OF_BATCH,
                owed: Duration::ZERO,
                paid: Duration::ZERO,
                rested,
            })
        });
        Self { rows: Cell::new(0), seen: RefCell::new(seen) }
    }

    /// A batch begins, so late.
    pub(super) fn begin(&self, lag: Duration) {
        if let Some(seen) = &mut *self.seen.borrow_mut() {
            (seen.lag, seen.left) = (lag, OF_BATCH);
        }
    }

    /// Between two rows: rests, if there is cause.
    pub(super) fn give(&self) {
        let rows = self.rows.get() + 1;
        self.rows.set(rows % ROWS);
        if rows == ROWS
            && let Some(seen) = &mut *self.seen.borrow_mut()
        {
            seen.give();
        }
    }

    /// Between two batches: how long to rest before this is asked again. None: there is no cause.
    pub(super) fn owes(&self) -> Option<Duration> {
        self.seen.borrow_mut().as_mut().and_then(Seen::owes)
    }
}

impl Seen {
    fn give(&mut self) {
        let passed = self.since.elapsed();
        if passed < SLICE {
            return;
        }
        let Some(had) = Had::read(&self.thread) else { return };
        let (on, in_line) = (had.on - self.had.on, had.in_line - self.had.in_line);
        self.load.look(self.waiting.load(Ordering::Relaxed), on, in_line);
        self.owed = match self.load.owed(on, passed, self.lag) {
            Some(more) => Duration::from_secs_f64((self.owed.as_secs_f64() + more).clamp(0.0, OWED.as_secs_f64())),
            None => Duration::ZERO,
        };
        self.paid = Duration::ZERO;
        let rest = self.owed.min(REST).min(self.left);
        if !rest.is_zero() {
            std::thread::sleep(rest);
            self.left -= rest;
            self.owed -= rest;
            self.note(rest);
        }
        (self.had, self.since) = (had, Instant::now());
    }

    /// What is rested now will be part of the time that has passed at the next look.
    fn owes(&mut self) -> Option<Duration> {
        self.load.look_at(self.waiting.load(Ordering::Relaxed));
        let rest = if self.load.is_crowd() { self.owed.saturating_sub(self.paid).min(REST) } else { Duration::ZERO };
        self.paid += rest;
        self.note(rest);
        (!rest.is_zero()).then_some(rest)
    }

    fn note(&self, rest: Duration) {
        self.rested.add(u64::try_from(rest.as_micros()).unwrap_or(u64::MAX));
    }
}

impl Had {
    /// Nanoseconds on a processor, and in line (Linux: Documentation/scheduler/sched-stats.rst).
    fn read(thread: &File) -> Option<Self> {
        let mut bytes = [0; 64];
        let len = thread.read_at(&mut bytes, 0).ok()?;
        let mut numbers = std::str::from_utf8(&bytes[..len]).ok()?.split_ascii_whitespace();
        let mut seconds = || Some(numbers.next()?.parse::<u64>().ok()? as f64 / 1e9);
        Some(Self { on: seconds()?, in_line: seconds()? })
    }
}

impl Load {
    fn look(&mut self, waiting: usize, on: f64, in_line: f64) {
        self.look_at(waiting);
        for (mean, last) in [(&mut self.on, on), (&mut self.in_line, in_line)] {
            *mean += (last - *mean) / 4.0;
        }
    }

    fn look_at(&mut self, waiting: usize) {
        self.waiting += (waiting as f64 - self.waiting) / 4.0;
    }

    fn is_crowd(&self) -> bool {
        self.waiting >= CROWD
    }

    /// The seconds of rest that it owes, having been `on` a processor for so much of the time that has `passed`: what it stood in line, or
    /// waited for a disk, is rest too, and may be more than was owed. None: nobody needs it.
    fn owed(&self, on: f64, passed: Duration, lag: Duration) -> Option<f64> {
        if !self.is_crowd() || self.in_line < SHORT * self.on {
            return None;
        }
        let late = (lag.as_secs_f64() / LATE.as_secs_f64()).min(1.0);
        let share = SHARE + (1.0 - SHARE) * late * late;
        Some(on / share - passed.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_sink_has_a_low_priority() {
        let nice = std::thread::spawn(|| {
            yield_to_ingest();
            rustix::process::getpriority_process(None)
        });
        assert_eq!(nice.join().unwrap(), Ok(NICE));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_says_how_long_a_thread_has_worked() {
        let thread = File::open("/proc/thread-self/schedstat").unwrap();
        let before = Had::read(&thread).expect("read").on;
        // Or this lasts for ever.
        while Had::read(&thread).expect("read again").on <= before {}
    }

    fn load(waiting: f64, on: f64, in_line: f64) -> Load {
        Load { waiting, on, in_line }
    }

    #[test]
    fn it_owes_what_is_not_its_share_and_less_the_later_it_is() {
        let pressed = load(CROWD, 1.0, 1.0);
        // Milliseconds, after two on a processor.
        let owed = |passed: u64, late: u64| {
            let owed = pressed.owed(0.002, Duration::from_millis(passed), Duration::from_secs(late));
            owed.map(|seconds| (seconds * 1000.0).round() as i64)
        };
        assert_eq!(owed(2, 0), Some(62), "a thirty-second part");
        assert_eq!(owed(12, 0), Some(52), "it stood in line for ten");
        assert_eq!(owed(100, 0), Some(-36), "it had less than its share");
        assert_eq!(owed(2, 30), Some(5), "half as late as it may be: a little more than a quarter");
        let all = [0, 10, 30, 59, 60, 3600].map(|late| owed(2, late));
        assert!(all[..4].is_sorted_by(|a, b| a > b), "{all:?}");
        assert_eq!(all[4..], [Some(0); 2]);
    }

    #[test]
    fn it_rests_only_for_a_crowd_and_where_processors_are_short() {
        let rests = |load: Load| load.owed(0.002, Duration::from_millis(2), Duration::ZERO).is_some();
        assert!(rests(load(CROWD, 1.0, SHORT)));
        assert!(!rests(load(CROWD - 1.0, 1.0, SHORT)), "few wait");
        assert!(!rests(load(CROWD, 1.0, SHORT / 2.0)), "there are processors enough");
    }

    /// A thread that has had so many more seconds on a processor each time, and stood in line as long.
    fn work(way: &Way, thread: &Path, seconds: &mut u64) {
        *seconds += 1;
        fs::write(thread, format!("{seconds}000000000 {seconds}000000000 1\n")).unwrap();
        std::thread::sleep(SLICE);
        (0..ROWS).for_each(|_| way.give());
    }

    #[test]
    fn between_rows_it_looks_and_rests_while_they_wait() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("schedstat");
        let mut seconds = 0;
        fs::write(&path, "0 0 0\n").unwrap();
        let (waiting, rested) = (Arc::new(AtomicUsize::new(0)), Arc::new(Counter::default()));
        let way = Way::of(File::open(&path).ok(), Arc::clone(&waiting), &rested);
        (0..3).for_each(|_| work(&way, &path, &mut seconds));
        assert_eq!(rested.get(), 0, "nobody waits");
        waiting.store(100, Ordering::Relaxed);
        (0..40).for_each(|_| work(&way, &path, &mut seconds));
        assert_eq!(rested.get(), OF_BATCH.as_micros() as u64, "so long within one batch");
        way.begin(Duration::ZERO);
        work(&way, &path, &mut seconds);
        assert_eq!(rested.get(), (OF_BATCH + REST).as_micros() as u64, "the next batch");
        // What it could not rest within batches.
        let between: Duration = std::iter::from_fn(|| way.owes()).sum();
        assert_eq!(between, OWED - REST);
        assert_eq!(rested.get(), (OF_BATCH + OWED).as_micros() as u64);
        assert!(way.owes().is_none(), "it is paid");
        work(&way, &path, &mut seconds);
        assert!(way.owes().is_some(), "and it owes again");
        waiting.store(0, Ordering::Relaxed);
        // Asked between batches, too, it sees who waits.
        while way.owes().is_some() {}
        way.begin(Duration::ZERO);
        // What it has seen of the crowd fades.
        while way.seen.borrow().as_ref().is_some_and(|seen| seen.load.waiting >= CROWD) {
            work(&way, &path, &mut seconds);
        }
        let before = rested.get();
        work(&way, &path, &mut seconds);
        assert_eq!(rested.get(), before, "nobody waits any more");
    }
}
