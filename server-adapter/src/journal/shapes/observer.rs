//! The thread that looks: one for all tenants, and never for more than its share of a processor.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use firsthop_core::{TenantId, Timestamp};

use rusqlite::Connection;

use super::{
    Change, Shapes,
    store::{File, State},
};
use crate::{
    Error,
    background::Background,
    clock,
    journal::{self, Accepted, Seals},
    metrics::{Counter, Gauge},
    tenants::Tenants,
};

/// After it has worked, it rests so many times as long; and where so many requests wait for commits, longer.
const REST: u32 = 19;
const CROWD: usize = 8;
const REST_OF_CROWD: u32 = 99;
/// Between two looks at journals that had nothing new.
const LOOK: Duration = Duration::from_secs(1);
/// How long it keeps a tenant open of which nothing new comes.
const KEEP: Duration = Duration::from_secs(30);
/// The longest that it works for one tenant before it rests.
const SLICE: Duration = Duration::from_millis(5);
/// Later than this, it passes some over; but not of so few frames.
const LATE: Duration = Duration::from_secs(10);
const FEW: i64 = 64;
/// Of what it is behind then, the part that it passes over after every slice: so it looks at all times alike.
const PART: i64 = 32;
/// Lines in the log, of one tenant in one minute.
const LINES: u32 = 10;

/// Figures for `/metrics`, of one tenant.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// Properties that came as another type than before.
    pub(crate) changes: Counter,
    /// Frames that were passed over.
    pub(crate) skipped: Counter,
    /// Names that are known.
    pub(crate) names: Gauge,
    /// Events with something over a bound.
    pub(crate) overflow: Counter,
}

/// Looks at what comes, for as long as it lives.
pub(crate) fn watch(tenants: Arc<Tenants>) -> std::io::Result<Background> {
    Background::start("shapes", LOOK, || {
        yield_to_all();
        let mut round = Round { tenants, open: HashMap::new() };
        move |_| round.look()
    })
}

/// What the thread has open.
struct Round {
    tenants: Arc<Tenants>,
    open: HashMap<TenantId, Tenant>,
}

impl Round {
    /// Looks at some of what is new, and says for how long to rest.
    fn look(&mut self) -> Duration {
        let began = Clock::now();
        let (mut behind, mut crowd) = (false, false);
        for live in self.tenants.all() {
            crowd |= live.journal.waiting() >= CROWD;
            let new = || Tenant::new(live.id, self.tenants.folder(live.id));
            let tenant = self.open.entry(live.id).or_insert_with(new);
            behind |= tenant.look(live.journal.tip(), live.journal.seals(), &live.shapes);
        }
        let rest = began.elapsed() * if crowd { REST_OF_CROWD } else { REST };
        if behind { rest } else { rest.max(LOOK) }
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        self.open.drain().for_each(|(_, tenant)| tenant.end());
    }
}

/// What it knows of one tenant, and how it gets there.
struct Tenant {
    id: TenantId,
    journal: PathBuf,
    path: PathBuf,
    open: Option<Open>,
    /// Not before then, after an error.
    retry: Option<Instant>,
    lines: (Instant, u32),
}

struct Open {
    reader: Connection,
    file: File,
    shapes: Shapes,
    state: State,
    saved: Instant,
}

impl Tenant {
    fn new(id: TenantId, folder: PathBuf) -> Self {
        let (journal, path) = (folder.join("journal.db"), folder.join("schema.db"));
        Self { id, journal, path, open: None, retry: None, lines: (Instant::now(), 0) }
    }

    /// Looks at some of what is new up to `tip`. Says whether there is more.
    fn look(&mut self, tip: i64, seals: &Seals, watched: &Watched) -> bool {
        if self.retry.is_some_and(|retry| Instant::now() < retry) {
            return false;
        }
        if let Some(open) = self.open.as_ref().filter(|open| open.state.frame == tip && open.is_saved()) {
            // Nothing is new. After a while it gives its memory back: what it knows can be read again.
            if open.saved.elapsed() >= KEEP {
                self.open = None;
            }
            return false;
        }
        let result = match self.open.take() {
            Some(open) => Ok(open),
            // A journal without a frame needs no file.
            None if tip == 0 => return false,
            None => Open::new(&self.journal, &self.path, tip),
        };
        let looked = result.and_then(|mut open| {
            let mut changes = Vec::new();
            let before = open.shapes.overflow;
            let skipped = open.look(tip, seals, &mut changes).map_err(Error::database(&self.path))?;
            watched.changes.add(changes.len() as u64);
            watched.skipped.add(skipped);
            watched.names.set(open.shapes.len() as u64);
            let now = open.shapes.overflow;
            watched.overflow.add(now.names + now.paths - before.names - before.paths);
            Ok((open, changes))
        });
        match looked {
            Ok((open, changes)) => {
                changes.iter().for_each(|change| self.tell(change));
                let behind = open.state.frame < tip;
                self.open = Some(open);
                behind
            }
            Err(error) => {
                // Nothing depends on it.
                tracing::warn!(tenant = %self.id, %error, "the shape of events is not followed; again in a minute");
                self.retry = Some(Instant::now() + Duration::from_secs(60));
                false
            }
        }
    }

    /// One line for each change, up to a bound. Neither the event's name nor the property's: a page may put a person's into either.
    fn tell(&mut self, change: &Change) {
        if self.lines.0.elapsed() > Duration::from_secs(60) {
            self.lines = (Instant::now(), 0);
        }
        self.lines.1 += 1;
        let Change { before, now, .. } = change;
        let before: Vec<&str> = before.iter().map(|before| before.as_str()).collect();
        match self.lines.1 {
            ..=LINES => tracing::warn!(
                tenant = %self.id, before = before.join(" "), now = now.as_str(),
                "a property comes as another type than before: `firsthop schema` shows which"
            ),
            line if line == LINES + 1 => tracing::warn!(
                tenant = %self.id, "more properties come as other types than before: `firsthop schema` shows them"
            ),
            _ => {}
        }
    }

    fn end(self) {
        if let Some(mut open) = self.open
            && let Err(error) = open.save()
        {
            // It is looked at again.
            tracing::debug!(tenant = %self.id, %error, "shapes are not saved");
        }
    }
}

impl Open {
    fn new(journal: &Path, path: &Path, tip: i64) -> Result<Self, Error> {
        let reader = journal::open_reader(journal)?;
        let id = journal::read_id(&reader).map_err(Error::database(journal))?;
        let file = File::open(path)?;
        let (shapes, mut state) = file.load().map_err(Error::database(path))?;
        if state.journal != id {
            // Another journal, such as one that was put back from a copy: what is known stays known.
            state = State { journal: id, frame: 0, ..state };
        }
        state.frame = state.frame.min(tip);
        Ok(Self { reader, file, shapes, state, saved: Instant::now() })
    }

    /// Looks at some frames, and passes some over if it is far behind. Returns how many of these.
    fn look(&mut self, tip: i64, seals: &Seals, changes: &mut Vec<Change>) -> rusqlite::Result<u64> {
        let began = Clock::now();
        let mut received = None;
        {
            let mut select = self.reader.prepare_cached(
                "SELECT id, received_ms, accepted, body FROM frames WHERE id > ?1 AND id <= ?2 ORDER BY id",
            )?;
            let mut rows = select.query([self.state.frame, tip])?;
            loop {
                let Some(row) = rows.next()? else {
                    self.state.frame = tip;
                    break;
                };
                let accepted = Accepted::from_column(row.get_ref(2)?.as_blob_or_null()?);
                let received_ms = row.get(1)?;
                received = Some(Timestamp::from_millis(received_ms as u64));
                let id = row.get(0)?;
                observe(&mut self.shapes, received_ms, &accepted, (id, row.get_ref(3)?.as_blob()?), seals, changes);
                self.state.frame = id;
                if began.elapsed() >= SLICE {
                    break;
                }
            }
        }
        let behind = tip - self.state.frame;
        let late = received.is_some_and(|received| received.offset(LATE.as_millis() as i64) < clock::now());
        let skip = if late && behind > FEW { behind / PART } else { 0 };
        self.state.frame += skip;
        self.state.skipped += skip as u64;
        self.state.overflow = self.shapes.overflow;
        if behind == 0 || self.saved.elapsed() >= LOOK {
            self.save()?;
        }
        Ok(skip as u64)
    }

    fn save(&mut self) -> rusqlite::Result<()> {
        self.file.save(&mut self.shapes, self.state)?;
        self.saved = Instant::now();
        Ok(())
    }

    fn is_saved(&self) -> bool {
        self.shapes.changed().next().is_none()
    }
}

/// Looks at what was new with a frame. One that cannot be read, or whose body is gone, says nothing.
fn observe(
    shapes: &mut Shapes,
    received_ms: i64,
    accepted: &Accepted,
    (id, body): (i64, &[u8]),
    seals: &Seals,
    changes: &mut Vec<Change>,
) {
    let Ok((_, frame)) = journal::open_frame(body) else { return };
    let Ok(opened) = seals.open_aside(id, &frame) else { return };
    let frame = opened.as_ref().map_or(frame, |payload| frame.with_opened(payload));
    if journal::is_suppressed(&frame) {
        return;
    }
    let Ok((_, events)) = frame.open() else { return };
    for (index, event) in events.enumerate() {
        if let Ok(event) = event
            && accepted.has(index)
        {
            shapes.observe(&event, received_ms, changes);
        }
    }
}

/// Time that this thread has worked. On Linux it is that of the processor, so that to wait for one is not to work.
struct Clock(#[cfg(target_os = "linux")] Duration, #[cfg(not(target_os = "linux"))] Instant);

impl Clock {
    #[cfg(target_os = "linux")]
    fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Self(Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec as u32))
    }

    #[cfg(target_os = "linux")]
    fn elapsed(&self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }

    #[cfg(not(target_os = "linux"))]
    fn now() -> Self {
        Self(Instant::now())
    }

    #[cfg(not(target_os = "linux"))]
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// On Linux a thread has a priority of its own: this one has the lowest.
fn yield_to_all() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, 19) {
        tracing::debug!(%error, "the observer of shapes keeps its priority");
    }
}
