//! Erasing a person, part by part: frames are looked through on a reader's connection, and only those that have something
//! are rewritten by the writer.

use std::path::Path;

use firsthop_core::Timestamp;
use rusqlite::{Connection, params};

use super::{
    counters::At,
    queue::{Journal, Unavailable},
    schema::open_reader,
    seen::settled,
    tombstone::{self, Subject},
};
use crate::Error;

/// Most bytes of bodies that one part looks through, and most frames that one transaction rewrites.
const LOOK: usize = 64 << 20;
const REWRITE: usize = 32;

/// What one part has found, and erased unless it was only to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Found {
    /// Frames that had events of the person.
    pub(crate) frames: u64,
    /// Events of those, where they were stored.
    pub(crate) events: u64,
    /// Entries in quarantine that name the person.
    pub(crate) entries: u64,
    /// Rows of the events table.
    pub(crate) rows: u64,
    /// What sinks had refused.
    pub(crate) letters: u64,
}

impl std::ops::AddAssign for Found {
    fn add_assign(&mut self, other: Self) {
        self.frames += other.frames;
        self.events += other.events;
        self.entries += other.entries;
        self.rows += other.rows;
        self.letters += other.letters;
    }
}

/// Whether any of the ids stands in these bytes. Text is stored as it is, so what has it is found; what is found may be another's.
fn names(subject: &Subject, bytes: &[u8]) -> bool {
    subject.ids().any(|id| memchr::memmem::find(bytes, id.as_bytes()).is_some())
}

impl Journal {
    /// Lets all runs up to the last frame settle: from then on no memory has what is rewritten. Returns that frame; none if other
    /// writers were always in between. Blocks.
    pub(crate) fn settle(&self, path: &Path) -> Result<Option<i64>, Error> {
        let tip = self.tip();
        let reader = open_reader(path)?;
        for _ in 0..100 {
            if settled(&reader).map_err(Error::database(path))? >= tip {
                return Ok(Some(tip));
            }
            self.change(0, |connection, tables, _| tables.seen.settle_now(connection)).map_err(unavailable)?;
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Ok(None)
    }

    /// Erases in frames after `after`, up to `until`, as far as one part goes. All of those must be settled. Returns how far it came.
    /// Blocks.
    pub(crate) fn erase_frames(
        &self,
        path: &Path,
        subject: &Subject,
        (after, until): (i64, i64),
        only_look: bool,
        now: Timestamp,
    ) -> Result<(Found, i64), Error> {
        let reader = open_reader(path)?;
        let (mut found, mut hits, mut at, mut size) = (Found::default(), Vec::new(), after, 0);
        let mut look = || -> rusqlite::Result<()> {
            let mut statement = reader
                .prepare("SELECT id, body, count, accepted FROM frames WHERE id > ?1 AND id <= ?2 ORDER BY id")?;
            let mut rows = statement.query([after, until])?;
            while let Some(row) = rows.next()? {
                if size >= LOOK || hits.len() >= 16 * REWRITE {
                    return Ok(());
                }
                at = row.get(0)?;
                let body = row.get_ref(1)?.as_blob()?;
                size += body.len();
                if names(subject, body) {
                    let places = subject.find(body);
                    if !places.is_empty() {
                        let accepted = super::Accepted::from_column(row.get_ref(3)?.as_blob_or_null()?);
                        found.frames += 1;
                        found.events += places.iter().filter(|&&place| accepted.has(place)).count() as u64;
                        hits.push(at);
                    }
                }
            }
            at = until;
            Ok(())
        };
        look().map_err(Error::database(path))?;
        drop(reader);
        if only_look {
            return Ok((found, at));
        }
        let mut erased = Found::default();
        for ids in hits.chunks(REWRITE) {
            let (ids, subject) = (ids.to_vec(), subject.clone());
            erased += self
                .change(0, move |connection, _, counts| {
                    let mut found = Found::default();
                    for id in &ids {
                        let Some(erased) = tombstone::erase(connection, *id, &subject)? else { continue };
                        let place = At { time: now, region: erased.region, hop: erased.hop };
                        let events = i64::from(erased.events);
                        counts.correct(place, ("stored", "".into()), ("erased", "".into()), events);
                        found.frames += 1;
                        found.events += u64::from(erased.events);
                    }
                    Ok(found)
                })
                .map_err(unavailable)?;
        }
        Ok((erased, at))
    }

    /// Takes out of quarantine what names the person: whole entries, since what is refused cannot be taken apart. Blocks.
    pub(crate) fn erase_quarantine(
        &self,
        path: &Path,
        subject: &Subject,
        only_look: bool,
        now: Timestamp,
    ) -> Result<Found, Error> {
        let reader = open_reader(path)?;
        let look = || -> rusqlite::Result<Vec<i64>> {
            let mut statement = reader.prepare("SELECT id, body FROM quarantine ORDER BY id")?;
            let mut rows = statement.query([])?;
            let mut hits = Vec::new();
            while let Some(row) = rows.next()? {
                if names(subject, row.get_ref(1)?.as_blob()?) {
                    hits.push(row.get(0)?);
                }
            }
            Ok(hits)
        };
        let hits = look().map_err(Error::database(path))?;
        let mut found = Found { entries: hits.len() as u64, ..Found::default() };
        if !only_look {
            found.entries = 0;
            for ids in hits.chunks(64 * REWRITE) {
                found.entries += self.take_out(ids.to_vec(), now).map_err(unavailable)?;
            }
        }
        Ok(found)
    }
}

fn unavailable(reason: Unavailable) -> Error {
    Error::Fault(format!("{}; what was erased until then stays erased: give the command again", reason.as_str()))
}

/// Moves the log of a database into it, so that nothing of what was removed is left there. False: a reader holds on to it.
pub(crate) fn scrub(path: &Path) -> Result<bool, Error> {
    if !path.exists() {
        return Ok(true);
    }
    let scrub = || -> rusqlite::Result<bool> {
        let connection = Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.busy_timeout(std::time::Duration::from_millis(500))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", params![], |row| row.get::<_, bool>(0))
            .map(|busy| !busy)
    };
    scrub().map_err(Error::database(path))
}
