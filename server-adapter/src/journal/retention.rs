//! Retention: bodies whose time is over, or for which there is no room, are removed; the oldest first, and none that a sink
//! has yet to get. What was seen is known for ever.

use std::{
    path::Path,
    sync::PoisonError,
    time::{Duration, Instant},
};

use firsthop_core::Timestamp;
use rusqlite::{Connection, OptionalExtension};

use super::{
    aging::LEAP,
    queue::{Journal, Unavailable},
    room,
    schema::open_reader,
    seen::settled,
    tombstone,
};
use crate::Error;

/// What one transaction removes at most: those who wait for an acknowledgement wait for it too.
const FRAMES: i64 = 64;
const BYTES: u64 = 2 << 20;

/// How many frames are looked at to find one that tells when another came.
const AHEAD: i64 = 4096;

/// What the file may have of the disk and not use, while there is room: so much at least, and a quarter of what it uses. What is removed
/// today is the room for what comes tomorrow.
const SPARE: u64 = 64 << 20;
/// Once the disk is nearly full: what is less than that is not worth a checkpoint.
const LITTLE: u64 = 1 << 20;

/// What a tenant keeps. None: all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keep {
    pub(crate) max_age: Option<Duration>,
    /// Of the journal's file, without what is free in it.
    pub(crate) max_bytes: Option<u64>,
}

impl Keep {
    const fn is_all(&self) -> bool {
        self.max_age.is_none() && self.max_bytes.is_none()
    }
}

impl Journal {
    /// Removes what is due, as far as one step goes. `confirmed`: the last frame that all sinks have. Says whether there may be more to do.
    /// Blocks.
    pub(crate) fn retain(&self, path: &Path, keep: Keep, confirmed: i64, now: Timestamp) -> Result<bool, Error> {
        let reader = open_reader(path)?;
        let sql = || Error::database(path);
        let stats = self.stats();
        let (used, free) = used(&reader).map_err(sql())?;
        stats.bytes.set(used);
        stats.free.set(free);
        let aged = if keep.max_age.is_some() { self.age(&reader, now).map_err(sql())? } else { now };
        let (due, oldest) = due(&reader, keep, confirmed.min(self.tip()), used, (now, aged)).map_err(sql())?;
        stats.oldest_ms.set(oldest.unwrap_or(0));
        let Some(&last) = due.last().filter(|_| !keep.is_all()) else { return Ok(false) };
        if settled(&reader).map_err(sql())? < last && self.settle(path)?.is_none() {
            return Ok(false);
        }
        drop(reader);
        let secrets = self.seals().get();
        let removed = self.change(0, move |connection, _, _| {
            let removed = tombstone::remove(connection, &due, &secrets)?;
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('removed', ?1)", [last])?;
            Ok(removed)
        });
        let (frames, bytes) = removed.map_err(|reason: Unavailable| Error::Fault(reason.as_str().into()))?;
        stats.removed_frames.add(frames);
        stats.removed_bytes.add(bytes);
        Ok(true)
    }

    /// Gives the disk back what the file has of it and does not use, as far as one step goes: much of it, or, where the disk is nearly full,
    /// what there is, and that of the log. What is in use is as it was at the last [`retain`](Self::retain). Blocks.
    pub(crate) fn make_room(&self, path: &Path, is_low: bool) -> Result<(), Error> {
        let stats = self.stats();
        let (taken, used) = (room::taken(path), stats.bytes.get());
        stats.disk_bytes.set(taken);
        // Some file systems take room ahead for a file that grows: that is not free in it.
        let spare = taken.saturating_sub(used).min(stats.free.get());
        // What is in the log has yet to be moved, and the file grows by it: better as long as the reserve is there.
        let is_due = if is_low { spare + stats.wal_bytes.get() >= LITTLE } else { spare >= SPARE.max(used / 4) };
        if !is_due {
            return Ok(());
        }
        self.give_back().map_err(|reason| Error::Fault(reason.as_str().into()))
    }
}

impl Journal {
    /// The time by which age is measured: the machine's, unless its clock has leapt.
    fn age(&self, reader: &Connection, wall: Timestamp) -> rusqlite::Result<Timestamp> {
        let (stats, now) = (self.stats(), Instant::now());
        let mut aging = stats.aging.lock().unwrap_or_else(PoisonError::into_inner);
        if !aging.has_begun() {
            let mark = "SELECT value FROM meta WHERE key = 'aged'";
            let known = reader.query_row(mark, [], |row| row.get::<_, i64>(0)).optional()?;
            aging.begin(known.map(|known| known.max(0) as u64), wall, now);
        }
        let (time, ahead) = aging.look(wall, now);
        let mark = aging.due(now);
        drop(aging);
        let ahead = if ahead > LEAP { ahead / 1000 } else { 0 };
        if ahead > 0 && stats.ahead.get() == 0 {
            tracing::warn!(
                tenant = %self.tenant(), seconds = ahead,
                "the clock has leapt, or no server has run here for long: events grow old at twice the speed of time until that is made up"
            );
        }
        stats.ahead.set(ahead);
        if let Some(mark) = mark {
            // One that cannot be moved now is moved in an hour: a start would only believe less.
            let _ = self.change(0, move |connection, _, _| {
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('aged', ?1)", [mark as i64])
            });
        }
        Ok(time)
    }
}

/// Bytes of the file that are in use, and those that are free.
fn used(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let (all, free, size) = (number("page_count")?, number("freelist_count")?, number("page_size")?);
    Ok((((all - free) * size) as u64, (free * size) as u64))
}

/// When a frame came whose time is yet to be, by a clock that was ahead: not after the next one that has a time. Otherwise it would keep
/// all that came after it. Returns also up to which frame that holds.
fn came(connection: &Connection, id: i64, now: i64) -> rusqlite::Result<(i64, i64)> {
    let mut next = connection.prepare_cached(
        "SELECT id, received_ms FROM frames WHERE id > ?1 AND id <= ?1 + ?3 AND received_ms <= ?2 ORDER BY id LIMIT 1",
    )?;
    let next = next.query_row([id, now, AHEAD], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    Ok(next.unwrap_or((id + AHEAD, now)))
}

/// The frames of the next step, and when the oldest body came that is there. `aged`: the time by which age is measured.
fn due(
    connection: &Connection,
    keep: Keep,
    until: i64,
    used: u64,
    (now, aged): (Timestamp, Timestamp),
) -> rusqlite::Result<(Vec<i64>, Option<u64>)> {
    let mut statement = connection.prepare(
        "SELECT id, received_ms, LENGTH(body) FROM frames
         WHERE id > (SELECT COALESCE(MAX(value), 0) FROM meta WHERE key = 'removed') ORDER BY id LIMIT ?1",
    )?;
    let before = keep.max_age.map(|age| aged.as_millis().saturating_sub(age.as_millis() as u64));
    let too_much = keep.max_bytes.map_or(0, |most| used.saturating_sub(most));
    let today = now.as_millis() as i64;
    let (mut due, mut oldest, mut bytes, mut known) = (Vec::new(), None, 0, (0, today));
    let mut rows = statement.query([FRAMES])?;
    while let Some(row) = rows.next()? {
        let (id, mut received): (i64, i64) = (row.get(0)?, row.get(1)?);
        if received > today {
            if id >= known.0 {
                known = came(connection, id, today)?;
            }
            received = known.1;
        }
        oldest = oldest.or(Some(received as u64));
        let is_old = before.is_some_and(|before| (received as u64) < before);
        if id > until || bytes >= BYTES || !(is_old || bytes < too_much) {
            break;
        }
        bytes += row.get::<_, i64>(2)? as u64;
        due.push(id);
    }
    Ok((due, oldest))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use firsthop_core::{
        Annotation, Event, Frame, FrameWriter, Header, Region, SourceId, TenantId, Unsigned, WorkerId,
    };

    use super::*;
    use crate::{
        Settings,
        journal::{Arrival, At, Memory, Seals},
    };

    #[test]
    fn a_clock_that_was_ahead_keeps_nothing_that_came_later() {
        let connection = Connection::open_in_memory().expect("opens");
        connection
            .execute_batch(
                "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER);
                 CREATE TABLE frames (id INTEGER PRIMARY KEY, received_ms INTEGER, body BLOB)",
            )
            .expect("tables");
        // A thousand is now, and what is older than 100 goes.
        for received in [800, 9000, 9001, 850, 9002, 950, 9003, 9004] {
            connection.execute("INSERT INTO frames VALUES (NULL, ?1, x'00')", [received]).expect("a frame");
        }
        let keep = Keep { max_age: Some(Duration::from_millis(100)), max_bytes: None };
        let due = |until, now| {
            let now = Timestamp::from_millis(now);
            due(&connection, keep, until, 0, (now, now)).expect("read")
        };
        assert_eq!(due(8, 1000), (vec![1, 2, 3, 4], Some(800)), "the fifth came before one that is to stay");
        assert_eq!(due(2, 1000).0, [1, 2], "and no more than is delivered");
        assert_eq!(due(8, 1051).0, [1, 2, 3, 4, 5, 6]);
        connection.execute("DELETE FROM frames WHERE id <= 6", []).expect("removed");
        // Nothing tells when these came: they are taken for new.
        assert_eq!(due(8, 5000), (vec![], Some(5000)));
        assert_eq!(due(8, 9104).0, [7]);
    }

    /// What is removed does not come back when the clock is set right.
    #[test]
    fn a_clock_that_leaps_removes_nothing() {
        const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
        const HOUR: i64 = 3600 * 1000;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal.db");
        let tenant = TenantId::new(7);
        let open = || Journal::open(tenant, path.clone(), &Settings::default(), Seals::default()).expect("opens");
        let header = Header::new(tenant, SourceId::v7(NOW, [1; 10]), NOW);
        let mut writer = FrameWriter::new(vec![0; 512], &header).expect("room");
        writer.event(&Event::default()).expect("room");
        let body = Bytes::copy_from_slice(writer.finish(&Unsigned).expect("finished"));
        let frame = Frame::parse(&body).expect("a frame");
        let at = At { time: NOW, region: Region::ANY, hop: WorkerId::new(0) };
        let arrival = Arrival::new(&body, &frame, false, at, Some(&Annotation::default().into())).expect("an arrival");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let journal = open();
        let sent = journal.send_frame(arrival, &Memory::new(1 << 20).hold()).expect("memory");
        runtime.block_on(journal.answer(sent)).expect("stored");

        let keep = Keep { max_age: Some(Duration::from_secs(24 * 3600)), max_bytes: None };
        let removed = |journal: &Journal, wall| {
            while journal.retain(&path, keep, i64::MAX, wall).expect("read") {}
            let gone = "SELECT COUNT(*) FROM frames WHERE LENGTH(body) = 0";
            open_reader(&path).expect("opens").query_row(gone, [], |row| row.get::<_, i64>(0)).expect("a count")
        };
        assert_eq!(removed(&journal, NOW), 0);
        let leapt = NOW.offset(90 * 24 * HOUR);
        assert_eq!(removed(&journal, leapt), 0);
        assert!(journal.stats().ahead.get() > 89 * 24 * 3600);
        journal.close();
        // Nor does it when the next server finds such a clock. One that rested for a day finds what has grown old.
        let journal = open();
        assert_eq!(removed(&journal, leapt), 0);
        journal.close();
        let journal = open();
        assert_eq!((removed(&journal, NOW.offset(25 * HOUR)), journal.stats().ahead.get()), (1, 0));
        journal.close();
    }
}
