//! The one thread that writes a journal: takes what has arrived, commits once, answers all of it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use firsthop_core::{Error as CoreError, Frame};
use rusqlite::{Connection, ErrorCode};

use super::{
    answers::answer_all,
    arrival::{SetAside, Verdict},
    checkpoint::Checkpoints,
    counters::{Batch, Totals},
    ledger::{Chain, Claim, note_old},
    log,
    quarantine::{Entry, Kept, Quarantine, Room},
    queue::{Job, JournalStatus, Shared, Unavailable, Work},
    schema,
    seen::Seen,
    store::Tables,
};
use crate::Error;

/// Jobs in one commit from which on there is a crowd: the next commit then waits until half of it is here again, and at most for [`GATHER`].
/// Whoever is alone waits for nobody. A commit costs several pages and a sync, however little is in it: so fewer of them, with more in each,
/// leave the processors to the requests. Half, so that those who were answered send while the others are written.
const CROWD: usize = 8;
const GATHER: Duration = Duration::from_millis(2);

pub(super) struct Writer {
    shared: Arc<Shared>,
    path: PathBuf,
    /// None while the disk does not take commits.
    connection: Option<Connection>,
    tables: Tables,
    checkpoints: Checkpoints,
    most_quarantine: u64,
    /// When it was last said that quarantine is full.
    said_full: Option<Instant>,
}

impl Writer {
    pub(super) fn open(shared: Arc<Shared>, path: PathBuf, most_quarantine: u64) -> Result<Self, Error> {
        let mut connection = schema::open_writer(&path)?;
        let tables = load(&connection, &shared, most_quarantine).map_err(Error::database(&path))?;
        let checkpoints = Checkpoints::new(path.clone());
        checkpoints.watch(&mut connection).map_err(Error::database(&path))?;
        shared.advance(tables.last_frame);
        Ok(Self { shared, path, connection: Some(connection), tables, checkpoints, most_quarantine, said_full: None })
    }

    pub(super) fn run(mut self) {
        let _end = End(Arc::clone(&self.shared));
        while let Some(jobs) = self.shared.take() {
            let count = jobs.len();
            self.commit(jobs);
            if self.connection.is_none() {
                self.reopen();
            } else if count >= CROWD {
                self.shared.gather(count, GATHER);
            }
        }
        self.finish();
    }

    /// Leaves nothing for the next start, or for who copies the file, to recover.
    fn finish(&mut self) {
        let moved = self.checkpoints.join();
        let again = if moved.is_err() { self.checkpoints.move_again() } else { Ok(()) };
        let Some(connection) = self.connection.take() else { return };
        if again.is_err() {
            return std::mem::forget(connection);
        }
        if let Err(error) = self.tables.seen.settle_all(&connection).and_then(|()| log::truncate(&connection)) {
            // The next start does it.
            tracing::warn!(tenant = %self.shared.tenant, %error, "tidying up at the end");
        }
    }

    fn commit(&mut self, mut jobs: Vec<Job>) {
        match self.transact(&mut jobs) {
            Ok(verdicts) => self.answer(jobs, verdicts),
            Err(error) if is_of_the_disk(&error) => self.give_up(jobs, &error),
            // One of them has something that the tables do not take: a defect of ours. The others shall not pay.
            Err(error) if jobs.len() > 1 => {
                tracing::warn!(tenant = %self.shared.tenant, %error, "a group did not commit; one by one now");
                for job in jobs {
                    if self.connection.is_some() {
                        self.commit(vec![job]);
                    } else {
                        self.shared.done(std::slice::from_ref(&job));
                        job.answer(Err(Unavailable::Down));
                    }
                }
            }
            Err(error) => {
                tracing::error!(tenant = %self.shared.tenant, %error, "a frame cannot be stored");
                self.shared.stats.failures.add(1);
                self.shared.done(&jobs);
                jobs.into_iter().for_each(|job| job.answer(Err(Unavailable::Down)));
            }
        }
    }

    fn answer(&mut self, jobs: Vec<Job>, verdicts: Vec<Verdict>) {
        self.shared.done(&jobs);
        answer_all(jobs, verdicts);
        self.shared.advance(self.tables.last_frame);
        let tended = self.connection.as_ref().map_or(Ok(()), |connection| {
            self.checkpoints.tend(connection)?;
            if self.shared.takes_room() { self.checkpoints.give_back(connection) } else { Ok(()) }
        });
        self.shared.stats.wal_bytes.set(self.checkpoints.pages().max(0) as u64 * schema::PAGE as u64);
        match tended {
            Ok(()) => {}
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) => {
                self.give_up(Vec::new(), &error)
            }
            // Nothing acknowledged depends on it; but a disk that fails here will fail the next commit too.
            Err(error) => tracing::warn!(tenant = %self.shared.tenant, %error, "checkpoint"),
        }
    }

    /// One transaction. On an error nothing of it is left, here or on disk.
    fn transact(&mut self, jobs: &mut [Job]) -> rusqlite::Result<Vec<Verdict>> {
        let began = Instant::now();
        let tables = &self.tables;
        let before = (tables.last_frame, tables.quarantine, tables.overflow, tables.chain);
        let Some(connection) = &self.connection else { return Err(rusqlite::Error::InvalidQuery) };
        let mut counts = Batch::default();
        let result = write(connection, &mut self.tables, jobs, &mut counts);
        match &result {
            Ok(_) => {
                self.tables.seen.committed();
                self.shared.totals.add(counts);
                let stats = &self.shared.stats;
                stats.commits.observe(began.elapsed());
                stats.quarantine_bytes.set(self.tables.quarantine.bytes());
                stats.quarantine_overflow.add(self.tables.overflow - before.2);
                stats.quarantine_room.set(self.tables.quarantine.room() as u64);
                if self.tables.overflow > before.2 {
                    say_full(&mut self.said_full, &self.shared, &self.tables.quarantine);
                }
                stats.ledger.closed.set(self.tables.chain.closed_until().as_millis() / 1000);
            }
            Err(_) => {
                let tables = &mut self.tables;
                (tables.last_frame, tables.quarantine, tables.overflow, tables.chain) = before;
                self.tables.seen.undo();
                if !connection.is_autocommit() {
                    // Some errors have rolled back already, and then this one fails; either way nothing is left.
                    let _ = connection.execute_batch("ROLLBACK");
                }
            }
        }
        result
    }

    /// The disk failed. A failed sync is never tried again on the same connection: the kernel may have dropped the
    /// pages and would call the second one a success.
    fn give_up(&mut self, jobs: Vec<Job>, error: &rusqlite::Error) {
        tracing::error!(tenant = %self.shared.tenant, %error, "the journal cannot be written");
        self.shared.stats.failures.add(1);
        // Whatever it says: all of it is moved again.
        let _ = self.checkpoints.join();
        let again = self.checkpoints.move_again();
        if let (Some(connection), Err(error)) = (self.connection.take(), again) {
            // The last one that closes moves what the index calls not moved yet, and removes the log.
            tracing::warn!(tenant = %self.shared.tenant, %error, "the journal is kept open");
            std::mem::forget(connection);
        }
        self.shared.done(&jobs);
        self.shared.set_status(JournalStatus::Down);
        jobs.into_iter().for_each(|job| job.answer(Err(Unavailable::Down)));
    }

    /// Opens the journal again, until it works or the server stops.
    fn reopen(&mut self) {
        let acknowledged = self.tables.last_frame;
        let mut pause = Duration::from_millis(100);
        loop {
            if self.shared.pause(pause) {
                return;
            }
            match self.try_open(acknowledged) {
                Ok((connection, tables)) => {
                    (self.connection, self.tables) = (Some(connection), tables);
                    self.shared.advance(self.tables.last_frame);
                    self.shared.set_status(JournalStatus::Up);
                    tracing::info!(tenant = %self.shared.tenant, "the journal can be written again");
                    return;
                }
                Err(error) => {
                    tracing::warn!(tenant = %self.shared.tenant, %error, "the journal cannot be opened yet");
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
            }
        }
    }

    fn try_open(&mut self, acknowledged: i64) -> Result<(Connection, Tables), Error> {
        let mut connection = schema::open_writer(&self.path)?;
        self.checkpoints.watch(&mut connection).map_err(Error::database(&self.path))?;
        self.checkpoints.move_again().map_err(Error::io(&self.path))?;
        let sql = Error::database(&self.path);
        let prove = || -> rusqlite::Result<Tables> {
            // What the log says may be in memory only, though its sync failed. This writes all of it anew, into the
            // database, and syncs that: what is found from here on is on disk.
            log::truncate(&connection)?;
            // And a commit must succeed.
            connection.execute_batch("INSERT OR REPLACE INTO meta VALUES ('opened_again', unixepoch())")?;
            load(&connection, &self.shared, self.most_quarantine)
        };
        let tables = prove().map_err(sql)?;
        self.check_tail(&connection, acknowledged, &self.path)?;
        Ok((connection, tables))
    }

    /// The last frames that were acknowledged must be there, and whole.
    fn check_tail(&self, connection: &Connection, acknowledged: i64, path: &Path) -> Result<(), Error> {
        const TAIL: i64 = 1000;
        let from = (acknowledged - TAIL).max(0);
        let count = || -> rusqlite::Result<i64> {
            let mut statement = connection.prepare("SELECT body FROM frames WHERE id > ?1 AND id <= ?2")?;
            let mut rows = statement.query([from, acknowledged])?;
            let mut whole = 0;
            while let Some(row) = rows.next()? {
                // Of one whose events were erased, nothing is left to be whole.
                let whole_body = |body: &[u8]| body.is_empty() || Frame::parse(body).is_ok();
                whole += i64::from(row.get_ref(0)?.as_blob().is_ok_and(whole_body));
            }
            Ok(whole)
        };
        let whole = count().map_err(Error::database(path))?;
        if whole == acknowledged - from {
            return Ok(());
        }
        Err(Error::Fault(format!(
            "{}: of the last {} frames that were acknowledged, {whole} are there and whole: restore the file from a copy",
            path.display(),
            acknowledged - from
        )))
    }
}

/// Told when the writer ends, also by a panic: nobody is left waiting for a commit or for a frame to follow.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(tenant = %self.0.tenant, "the journal's writer panicked; it takes nothing until the next start");
            self.0.set_status(JournalStatus::Down);
        }
        self.0.close_tip();
    }
}

/// What the writer keeps in memory, and the totals for the metrics.
fn load(connection: &Connection, shared: &Shared, most_quarantine: u64) -> rusqlite::Result<Tables> {
    let last_frame: Option<i64> = connection.query_row("SELECT MAX(id) FROM frames", [], |row| row.get(0))?;
    let quarantine = Quarantine::load(connection, most_quarantine)?;
    note_old(connection)?;
    let chain = Chain::load(connection)?;
    shared.stats.ledger.closed.set(chain.closed_until().as_millis() / 1000);
    shared.totals.set(Totals::load(connection)?);
    shared.stats.quarantine_bytes.set(quarantine.bytes());
    let seals = shared.seals.clone();
    let seen = Seen::load(connection)?;
    Ok(Tables { seen, seals, quarantine, last_frame: last_frame.unwrap_or(0), overflow: 0, chain })
}

fn write(
    connection: &Connection,
    tables: &mut Tables,
    jobs: &mut [Job],
    counts: &mut Batch,
) -> rusqlite::Result<Vec<Verdict>> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let before = tables.last_frame;
    let verdicts = jobs
        .iter_mut()
        .map(|job| match &mut job.work {
            Work::Store(arrival) => tables.store(connection, arrival, counts),
            Work::SetAside(entry) => set_aside(connection, tables, entry, counts),
            Work::Change(change) => change(connection, tables, counts).map(|()| Verdict::default()),
        })
        .collect::<rusqlite::Result<Vec<_>>>()?;
    counts.write(connection, tables.chain.open())?;
    if tables.last_frame > before {
        let bytes = jobs.iter().map(|job| job.size as u64).sum();
        tables.seen.settle(connection, tables.last_frame, bytes)?;
    }
    connection.prepare_cached("COMMIT")?.execute([])?;
    Ok(verdicts)
}

pub(super) fn set_aside(
    connection: &Connection,
    tables: &mut Tables,
    entry: &SetAside,
    counts: &mut Batch,
) -> rusqlite::Result<Verdict> {
    let kept = tables.set_aside(
        connection,
        &Entry {
            received_ms: entry.at.time.as_millis() as i64,
            reason: &entry.reason,
            region: entry.at.region.as_str(),
            events: entry.events,
            annotation: entry.annotation.as_deref(),
            body: &entry.body,
            vouched: entry.vouched,
            request: entry.request.as_ref(),
        },
    )?;
    let (events, frames) = match kept {
        Kept::New => (i64::from(entry.events), 1),
        // The same bytes again are the same events.
        Kept::Again => (0, 1),
        Kept::Full => (0, 0),
    };
    // What may have been damaged on the way comes again, whole, and is then stored: that is what becomes of its events.
    let outcome = if is_damage(&entry.reason) { "damaged" } else { "quarantined" };
    if kept == Kept::New
        && let Some(claim) = Claim::of_entry(&entry.reason, &entry.body, entry.vouched)
    {
        claim.note(connection, entry.at)?;
    }
    counts.add(entry.at, outcome, entry.reason.clone(), events, frames);
    Ok(Verdict { lost: kept == Kept::Full, ..Verdict::default() })
}

/// Tells what to do, once a minute.
fn say_full(said: &mut Option<Instant>, shared: &Shared, quarantine: &Quarantine) {
    if said.is_some_and(|said| said.elapsed() < Duration::from_secs(60)) {
        return;
    }
    *said = Some(Instant::now());
    let whose = if quarantine.room() == Room::None { "" } else { " for what nobody answers for" };
    tracing::warn!(
        tenant = %shared.tenant, bytes = quarantine.bytes(),
        "quarantine is full{whose}: what is refused is only counted, and what would be acknowledged is answered with 503. \
         `firsthop quarantine list` shows what is in it; `firsthop quarantine replay` and `discard` make room, or a larger `quarantine` in \
         the settings"
    );
}

/// Whether the producer sends it again after a refusal for this reason, also one that an edge gave.
pub(super) fn is_damage(reason: &str) -> bool {
    let codes = [CoreError::Crc, CoreError::Truncated, CoreError::TrailingBytes, CoreError::Signature];
    codes.iter().any(|error| error.code() == reason)
}

/// Whether the disk, and not a row, is what failed.
fn is_of_the_disk(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::SystemIoFailure
                | ErrorCode::DiskFull
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::NotADatabase
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::OutOfMemory
                | ErrorCode::PermissionDenied
        )
    )
}

#[cfg(test)]
mod tests {
    use firsthop_intake::Refusal;

    use super::*;

    /// What a sender is told to send again is what is counted apart.
    #[test]
    fn damage_is_what_is_retryable() {
        for error in [
            CoreError::Crc,
            CoreError::Truncated,
            CoreError::TrailingBytes,
            CoreError::Signature,
            CoreError::WriteKey,
            CoreError::Session,
            CoreError::Payload,
            CoreError::Count,
            CoreError::Origin,
            CoreError::Sealed,
            CoreError::Seal,
        ] {
            assert_eq!(is_damage(error.code()), Refusal::Core(error).retryable(), "{error}");
        }
    }
}
