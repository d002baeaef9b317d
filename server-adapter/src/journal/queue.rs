//! The way into a journal: a queue that is bounded in bytes, and an answer after the commit.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use firsthop_core::TenantId;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{
    aging::Aging,
    answers::{Answer, Lane, Reply},
    arrival::{Arrival, SetAside, Verdict},
    counters::{Batch, Totals},
    ledger::LedgerFigures,
    memory::Held,
    sealed::Seals,
    store::Tables,
    writer::Writer,
};
use crate::{
    Error,
    metrics::{Counter, Gauge, Histogram},
};

/// Why the journal did not take something. Nothing was stored, or nobody knows; the producer sends it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// The queue is full.
    Full,
    /// The disk failed, and the journal is being opened again.
    Down,
    /// The server stops.
    Closing,
    /// The commit took too long.
    Slow,
    /// Quarantine has no room for what belongs there. The rest of the request is stored.
    Quarantine,
}

impl Unavailable {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "the queue is full",
            Self::Down => "the journal cannot be written",
            Self::Closing => "the server is stopping",
            Self::Slow => "the disk is slow",
            Self::Quarantine => "quarantine is full",
        }
    }
}

/// Whether commits succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JournalStatus {
    /// They do.
    Up,
    /// One takes longer than a request waits for it.
    Slow,
    /// One failed; it is being opened again.
    Down,
}

/// One tenant's journal.
pub(crate) struct Journal {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    commit_timeout: Duration,
}

/// What the writer and those who send to it share.
pub(super) struct Shared {
    pub(super) tenant: TenantId,
    queue: Mutex<Queue>,
    arrived: Condvar,
    /// Jobs in the queue, and those that the writer has and has not answered.
    waiting: Arc<AtomicUsize>,
    most: usize,
    tip: Mutex<Tip>,
    moved: Condvar,
    pub(super) totals: Totals,
    pub(super) stats: Stats,
    /// What opens what is sealed.
    pub(super) seals: Seals,
    /// The file is to give room back after the next commit.
    room: AtomicBool,
}

struct Queue {
    jobs: VecDeque<Job>,
    /// Of the jobs here, and of those that the writer has and has not answered.
    bytes: usize,
    /// So many jobs wake the writer, or so many bytes.
    awaited: usize,
    awaited_bytes: usize,
    status: JournalStatus,
    /// Somebody waited for a commit in vain, and none has ended since.
    slow: bool,
    closing: bool,
}

impl Queue {
    /// Whether the writer should begin.
    fn is_enough(&self) -> bool {
        self.jobs.len() >= self.awaited || !self.jobs.is_empty() && self.bytes >= self.awaited_bytes
    }
}

/// The last frame that was committed, for those who follow.
#[derive(Clone, Copy, Debug, Default)]
struct Tip {
    frame: i64,
    closed: bool,
}

/// Figures for `/metrics`.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) commits: Histogram,
    pub(crate) failures: Counter,
    pub(crate) wal_bytes: Gauge,
    pub(crate) quarantine_bytes: Gauge,
    pub(crate) quarantine_overflow: Counter,
    /// A [`Room`](super::quarantine::Room), as a number.
    pub(crate) quarantine_room: Gauge,
    pub(crate) ledger: LedgerFigures,
    pub(super) aging: Mutex<Aging>,
    /// Seconds by which the machine's clock is ahead of the one that age goes by.
    pub(crate) ahead: Gauge,
    /// Of the file, in use.
    pub(crate) bytes: Gauge,
    /// Of the file, not in use.
    pub(crate) free: Gauge,
    /// What the file takes of the disk.
    pub(crate) disk_bytes: Gauge,
    /// When the oldest frame came whose body is there; 0: there is none.
    pub(crate) oldest_ms: Gauge,
    pub(crate) removed_frames: Counter,
    pub(crate) removed_bytes: Counter,
}

/// Something to write, and whom to tell.
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) reply: Reply,
    /// Where that is awaited.
    pub(super) lane: Lane,
    pub(super) size: usize,
    pub(super) _held: Option<Held>,
}

/// Something in the queue, or why it is not.
pub(crate) struct Sent(Result<oneshot::Receiver<Answer>, Unavailable>);

pub(super) enum Work {
    Store(Arrival),
    SetAside(SetAside),
    /// What a command does.
    Change(Change),
}

/// Run in the writer's transaction, beside what arrives. Run again if that transaction fails as a whole.
type Change = Box<dyn FnMut(&Connection, &mut Tables, &mut Batch) -> rusqlite::Result<()> + Send>;

impl Job {
    pub(super) fn answer(self, answer: Result<Verdict, Unavailable>) {
        // Whoever asked may have gone; what was committed stays.
        let _ = self.reply.send(Answer::one(answer));
    }
}

/// Most bytes of one commit. More would make those at its front wait for those at its end.
const COMMIT: usize = 4 << 20;

impl Journal {
    /// Opens a tenant's journal, makes it if need be, and starts its writer.
    pub(crate) fn open(
        tenant: TenantId,
        path: PathBuf,
        settings: &crate::Settings,
        seals: Seals,
    ) -> Result<Self, Error> {
        let most = usize::try_from(settings.queue.0).unwrap_or(usize::MAX);
        let shared = Arc::new(Shared::new(tenant, most, seals));
        let writer = Writer::open(Arc::clone(&shared), path.clone(), settings.quarantine.0)?;
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .stack_size(512 << 10)
            .spawn(move || writer.run())
            .map_err(Error::io(&path))?;
        Ok(Self { shared, writer: Mutex::new(Some(thread)), commit_timeout: settings.commit_timeout.0 })
    }

    /// Stores what is new of a frame. Answered after the commit.
    pub(crate) async fn store(&self, arrival: Arrival, held: Held) -> Result<Verdict, Unavailable> {
        self.answer(self.send(arrival.size(), Work::Store(arrival), Some(held))).await
    }

    /// Puts something into quarantine. Answered after the commit.
    pub(crate) async fn set_aside(&self, entry: SetAside, held: Held) -> Result<(), Unavailable> {
        self.answer(self.send(entry.size(), Work::SetAside(entry), Some(held))).await.map(|_| ())
    }

    /// [`store`](Self::store) for one of several, whose answers the caller awaits in the order in which it sent them. Each has a share of
    /// the memory of its own: who gives up waiting for the first leaves all others in the queue. None: there is no more.
    pub(crate) fn send_frame(&self, arrival: Arrival, held: &Held) -> Option<Sent> {
        let held = held.also(arrival.size())?;
        Some(self.send(arrival.size(), Work::Store(arrival), Some(held)))
    }

    /// [`set_aside`](Self::set_aside) for one of several.
    pub(crate) fn send_aside(&self, entry: SetAside, held: &Held) -> Option<Sent> {
        let held = held.also(entry.size())?;
        Some(self.send(entry.size(), Work::SetAside(entry), Some(held)))
    }

    /// Changes the tables in the writer's thread, in one transaction with what it counts. Returns what `change` did, once it is on
    /// disk. An error in it takes back all of it. Those who wait for an acknowledgement wait for it too, so it should be short; and it
    /// may run twice, if the commit fails for another's sake. `size`: bytes that it may write. Blocks.
    pub(super) fn change<T: Send + 'static>(
        &self,
        size: usize,
        mut change: impl FnMut(&Connection, &mut Tables, &mut Batch) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let done = Arc::new(Mutex::new(None));
        let put = Arc::clone(&done);
        let change = Box::new(move |connection: &Connection, tables: &mut Tables, counts: &mut Batch| {
            let did = change(connection, tables, counts)?;
            *put.lock().unwrap_or_else(PoisonError::into_inner) = Some(did);
            Ok(())
        });
        let answer = self.send(size, Work::Change(change), None).0?.blocking_recv();
        // Without an answer the writer is gone: nobody will say.
        answer.map_or(Err(Unavailable::Down), Answer::pass)?;
        let did = done.lock().unwrap_or_else(PoisonError::into_inner).take();
        did.ok_or(Unavailable::Down)
    }

    /// Has the writer give the disk back what the file does not use. Blocks.
    pub(super) fn give_back(&self) -> Result<(), Unavailable> {
        self.shared.room.store(true, Ordering::Relaxed);
        // Whoever waits for it has nothing to write: it wakes the writer.
        self.change(0, |_, _, _| Ok(()))
    }

    fn send(&self, size: usize, work: Work, held: Option<Held>) -> Sent {
        let (reply, answer) = oneshot::channel();
        Sent(self.shared.push(Job { work, reply, lane: Lane::here(), size, _held: held }).map(|()| answer))
    }

    /// Waits for the commit of what was sent.
    pub(crate) async fn answer(&self, sent: Sent) -> Result<Verdict, Unavailable> {
        match tokio::time::timeout(self.commit_timeout, sent.0?).await {
            Ok(Ok(answer)) => match answer.pass() {
                Ok(verdict) if verdict.lost => Err(Unavailable::Quarantine),
                verdict => verdict,
            },
            // The writer is gone: nobody will say.
            Ok(Err(_)) => Err(Unavailable::Down),
            Err(_) => {
                self.shared.lock().slow = true;
                Err(Unavailable::Slow)
            }
        }
    }

    /// Takes no more, commits what is queued, and ends the writer. Blocks.
    pub(crate) fn close(&self) {
        self.shared.lock().closing = true;
        self.shared.arrived.notify_all();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!(tenant = %self.shared.tenant, "the journal's writer panicked");
        }
    }

    pub(crate) fn status(&self) -> JournalStatus {
        let queue = self.shared.lock();
        if queue.status == JournalStatus::Up && queue.slow { JournalStatus::Slow } else { queue.status }
    }

    /// Bytes that wait for the writer, and for the commit.
    pub(crate) fn queued(&self) -> usize {
        self.shared.lock().bytes
    }

    /// How many requests wait for a commit.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// The last frame that was committed.
    pub(crate) fn tip(&self) -> i64 {
        self.shared.tip().frame
    }

    /// What follows the journal waits here.
    pub(crate) fn follower(&self) -> Follower {
        Follower(Arc::clone(&self.shared))
    }

    pub(super) fn tenant(&self) -> TenantId {
        self.shared.tenant
    }

    /// What opens what is sealed in it.
    pub(crate) fn seals(&self) -> &Seals {
        &self.shared.seals
    }

    pub(crate) fn totals(&self) -> &Totals {
        &self.shared.totals
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.shared.stats
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("tenant", &self.shared.tenant).finish_non_exhaustive()
    }
}

/// Waits for commits.
#[derive(Clone)]
pub(crate) struct Follower(Arc<Shared>);

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Follower").field(&self.0.tenant).finish()
    }
}

/// Why a follower waits no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// There is a frame after the one that it knows.
    Beyond,
    /// There will be none.
    Closed,
    /// The time is over, or it was woken for another reason.
    Otherwise,
}

impl Follower {
    /// What opens what is sealed in the journal.
    pub(crate) fn seals(&self) -> &Seals {
        &self.0.seals
    }

    /// Waits until a frame after this one is committed, or until then, or until `woken` says so when it is [woken](Self::wake).
    pub(crate) fn wait_beyond(&self, frame: i64, until: Option<Instant>, woken: impl Fn() -> bool) -> Waited {
        let mut tip = self.0.tip();
        loop {
            if tip.frame > frame {
                return Waited::Beyond;
            } else if tip.closed {
                return Waited::Closed;
            } else if woken() || until.is_some_and(|until| until <= Instant::now()) {
                return Waited::Otherwise;
            }
            tip = match until {
                None => self.0.moved.wait(tip).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    self.0.moved.wait_timeout(tip, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// How many requests wait for a commit, at any time.
    pub(crate) fn waiting(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.0.waiting)
    }

    /// Has all who wait ask again whether they should.
    pub(crate) fn wake(&self) {
        // With the lock, so that nobody is between asking and waiting.
        let _tip = self.0.tip();
        self.0.moved.notify_all();
    }
}

impl Shared {
    fn new(tenant: TenantId, most: usize, seals: Seals) -> Self {
        Self {
            tenant,
            queue: Mutex::new(Queue {
                jobs: VecDeque::new(),
                bytes: 0,
                awaited: 1,
                awaited_bytes: COMMIT.min(most / 2),
                status: JournalStatus::Up,
                slow: false,
                closing: false,
            }),
            arrived: Condvar::new(),
            waiting: Arc::default(),
            most,
            tip: Mutex::default(),
            moved: Condvar::new(),
            totals: Totals::default(),
            stats: Stats::default(),
            seals,
            room: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic leaves the queue as it was between two statements; there is nothing in it to repair.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tip(&self) -> MutexGuard<'_, Tip> {
        self.tip.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job) -> Result<(), Unavailable> {
        let mut queue = self.lock();
        if queue.closing {
            return Err(Unavailable::Closing);
        }
        if queue.status == JournalStatus::Down {
            return Err(Unavailable::Down);
        }
        if queue.bytes + job.size > self.most {
            return Err(Unavailable::Full);
        }
        let was_enough = queue.is_enough();
        queue.bytes += job.size;
        queue.jobs.push_back(job);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let is_enough = queue.is_enough();
        drop(queue);
        // The writer sleeps only as long as it is not.
        if is_enough && !was_enough {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// What has arrived, up to one commit's worth; waits for the first. None: closed, and all is done.
    pub(super) fn take(&self) -> Option<Vec<Job>> {
        let mut queue = self
            .arrived
            .wait_while(self.lock(), |queue| queue.jobs.is_empty() && !queue.closing)
            .unwrap_or_else(PoisonError::into_inner);
        let mut size = 0;
        let within = queue.jobs.iter().take_while(|job| {
            let fits = size == 0 || size + job.size <= COMMIT;
            size += job.size;
            fits
        });
        let count = within.count();
        let jobs: Vec<Job> = queue.jobs.drain(..count).collect();
        if jobs.is_empty() { None } else { Some(jobs) }
    }

    /// After a commit that has `answered` so many: waits until half of those and of what has come meanwhile is here, or a commit's worth; no
    /// longer than `time`.
    pub(super) fn gather(&self, answered: usize, time: Duration) {
        let mut queue = self.lock();
        queue.awaited = (answered + queue.jobs.len()).div_ceil(2);
        let is_early = |queue: &mut Queue| !queue.is_enough() && !queue.closing;
        let waited = self.arrived.wait_timeout_while(queue, time, is_early);
        waited.unwrap_or_else(PoisonError::into_inner).0.awaited = 1;
    }

    /// The jobs were answered.
    pub(super) fn done(&self, jobs: &[Job]) {
        self.waiting.fetch_sub(jobs.len(), Ordering::Relaxed);
        let mut queue = self.lock();
        queue.bytes -= jobs.iter().map(|job| job.size).sum::<usize>();
        queue.slow = false;
    }

    /// Says whether commits succeed. What waits while they do not is answered.
    pub(super) fn set_status(&self, status: JournalStatus) {
        let mut queue = self.lock();
        queue.status = status;
        if status == JournalStatus::Down {
            let jobs: Vec<Job> = queue.jobs.drain(..).collect();
            queue.bytes -= jobs.iter().map(|job| job.size).sum::<usize>();
            drop(queue);
            self.waiting.fetch_sub(jobs.len(), Ordering::Relaxed);
            jobs.into_iter().for_each(|job| job.answer(Err(Unavailable::Down)));
        }
    }

    /// Whether the file is to give room back: said once.
    pub(super) fn takes_room(&self) -> bool {
        self.room.load(Ordering::Relaxed) && self.room.swap(false, Ordering::Relaxed)
    }

    /// Waits for a while, or until the journal is to close. Says whether it is.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let (queue, _) = self
            .arrived
            .wait_timeout_while(self.lock(), time, |queue| !queue.closing)
            .unwrap_or_else(PoisonError::into_inner);
        queue.closing
    }

    pub(super) fn advance(&self, frame: i64) {
        self.tip().frame = frame;
        self.moved.notify_all();
    }

    /// No frame will follow.
    pub(super) fn close_tip(&self) {
        self.tip().closed = true;
        self.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Duration = Duration::from_secs(100_000);

    fn shared(most: usize) -> Arc<Shared> {
        Arc::new(Shared::new(TenantId::new(7), most, Seals::default()))
    }

    fn push(shared: &Shared, size: usize) -> Result<(), Unavailable> {
        let work = Work::Change(Box::new(|_, _, _| Ok(())));
        shared.push(Job { work, reply: oneshot::channel().0, lane: Lane::here(), size, _held: None })
    }

    /// How many are in the commit after one that has answered so many. It waits for some already.
    fn next_commit(shared: &Arc<Shared>, answered: usize) -> JoinHandle<usize> {
        let writer = std::thread::spawn({
            let shared = Arc::clone(shared);
            move || {
                shared.gather(answered, NEVER);
                let jobs = shared.take().unwrap_or_default();
                shared.done(&jobs);
                jobs.len()
            }
        });
        while shared.lock().awaited == 1 {
            std::thread::yield_now();
        }
        writer
    }

    #[test]
    fn a_commit_waits_until_half_of_a_crowd_is_here() {
        let shared = shared(1 << 30);
        let writer = next_commit(&shared, 16);
        (0..8).for_each(|_| push(&shared, 1).unwrap());
        assert_eq!(writer.join().unwrap(), 8);
        // Of what came meanwhile half is awaited as well.
        (0..4).for_each(|_| push(&shared, 1).unwrap());
        let writer = next_commit(&shared, 16);
        (0..6).for_each(|_| push(&shared, 1).unwrap());
        assert_eq!(writer.join().unwrap(), 10);
        assert_eq!(shared.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn it_waits_no_longer_than_there_is_room_or_a_reason() {
        let large = shared(1 << 30);
        let writer = next_commit(&large, 16);
        (0..2).for_each(|_| push(&large, COMMIT / 2).unwrap());
        assert_eq!(writer.join().unwrap(), 2, "a commit's worth");
        let small = shared(100);
        let writer = next_commit(&small, 16);
        (0..5).for_each(|_| push(&small, 10).unwrap());
        assert_eq!(writer.join().unwrap(), 5, "half of what the queue holds");
        let closed = shared(100);
        let writer = next_commit(&closed, 16);
        closed.lock().closing = true;
        closed.arrived.notify_all();
        assert_eq!(writer.join().unwrap(), 0, "it is to close");
        let timed = shared(100);
        push(&timed, 1).unwrap();
        timed.gather(16, Duration::ZERO);
        assert_eq!(timed.take().map(|jobs| jobs.len()), Some(1), "its time is over");
    }
}
