//! Reading what was seen from frames, as far as it may not be in the table.

use firsthop_core::{Flags, SourceId};
use rusqlite::{Connection, Row};

use super::{Run, Seen, own_runs, settled};
use crate::journal::{
    arrival::foreign_of,
    store::{Accepted, open_frame},
};

/// What was seen, while the frames are read whose runs may not be in the table: some at a time, since that may be much.
#[derive(Debug)]
pub(in crate::journal) struct Loading {
    pub(in crate::journal) seen: Seen,
    /// The last of them.
    last: i64,
}

/// Bytes of a body that are as much work as a row.
const BYTES_OF_ROW: u64 = 64;

impl Loading {
    /// Those that are there now: what comes after them is not its matter.
    pub(in crate::journal) fn begin(connection: &Connection) -> rusqlite::Result<Self> {
        let last: Option<i64> = connection.query_row("SELECT MAX(id) FROM frames", [], |row| row.get(0))?;
        let seen = Seen { young_frame: settled(connection)?, ..Seen::default() };
        Ok(Self { seen, last: last.unwrap_or(0) })
    }

    /// Reads about so many more, or one whose body is more. Says whether that was all.
    pub(in crate::journal) fn go_on(&mut self, connection: &Connection, rows: u64) -> rusqlite::Result<bool> {
        let seen = &mut self.seen;
        if seen.young_frame >= self.last {
            return Ok(true);
        }
        let mut frames = connection.prepare_cached(
            "SELECT id, source, first_seq, count, ids, accepted, LENGTH(body) FROM frames WHERE id > ?1 AND id <= ?2 ORDER BY id",
        )?;
        let mut body = connection.prepare_cached("SELECT body FROM frames WHERE id = ?1")?;
        let mut found = frames.query([seen.young_frame, self.last])?;
        let mut done = 0;
        while let Some(row) = found.next()? {
            let id: i64 = row.get(0)?;
            let bytes = row.get::<_, i64>(6)? as u64;
            for (source, run) in runs_of(row, id, &mut body)? {
                seen.young.insert((source, run.first), run);
            }
            seen.young_bytes += bytes;
            seen.young_frame = id;
            done += 1 + if has_foreign(row)? { bytes / BYTES_OF_ROW } else { 0 };
            if done >= rows {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether a row of those has events with another vendor's ids: which, only its body says.
fn has_foreign(row: &Row<'_>) -> rusqlite::Result<bool> {
    Ok(row.get::<_, i64>(4)? > 0)
}

/// The runs of a row of `frames`: id, source, first_seq, count, ids, accepted. The body is read only if it has to be.
fn runs_of(row: &Row<'_>, id: i64, body: &mut rusqlite::Statement<'_>) -> rusqlite::Result<Vec<(SourceId, Run)>> {
    let source = SourceId::new(row.get(1)?);
    let (first, count): (i64, u16) = (row.get(2)?, row.get(3)?);
    let accepted = Accepted::from_column(row.get_ref(5)?.as_blob_or_null()?);
    let mut foreign = Vec::new();
    if has_foreign(row)? {
        let body: Vec<u8> = body.query_row([id], |row| row.get(0))?;
        match open_frame(&body).map(|(_, frame)| frame) {
            // They are in the table.
            Ok(frame) if frame.header().flags.contains(Flags::SEALED) => return Ok(Vec::new()),
            frame => match frame.and_then(|frame| foreign_of(&frame)) {
                Ok(found) => foreign = found,
                // Damaged on disk; `firsthop verify` says so. What comes again may come in.
                Err(_) => return Ok(Vec::new()),
            },
        }
    }
    let own = own_runs(first as u64, count, &accepted, |index| foreign.iter().any(|event| event.index == index));
    let mut runs: Vec<_> =
        own.into_iter().map(|(first, last)| (source, Run { first, last, frame: id, digest: None })).collect();
    for event in foreign.iter().filter(|event| accepted.has(event.index.into())) {
        runs.push((event.source, Run { first: 0, last: 0, frame: id, digest: Some(event.digest) }));
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use rusqlite::params;

    use super::*;

    #[test]
    fn much_that_has_not_settled_is_read_in_many_steps() {
        let folder = tempfile::tempdir().unwrap();
        let connection = crate::journal::schema::open_writer(&folder.path().join("journal.db")).unwrap();
        for id in 1..=10 {
            // Every second one has ids that its body tells; what cannot be read of that costs as much.
            let (sql, ids) = (
                "INSERT INTO frames (id, received_ms, source, batch_seq, first_seq, count, ids, region, sum, body) VALUES (?1, 0, ?2, 0, ?1, 1, ?3, 'eu', 0, zeroblob(?4))",
                id % 2,
            );
            connection.execute(sql, params![id, [7_u8; 16], ids, 100 * BYTES_OF_ROW as i64]).unwrap();
        }
        let mut loading = Loading::begin(&connection).unwrap();
        let mut ends = Vec::new();
        while !loading.go_on(&connection, 50).unwrap() {
            ends.push(loading.seen.young_frame);
        }
        assert_eq!(ends, [1, 3, 5, 7, 9]);
        assert_eq!(loading.seen.young.len(), 5);
        let all = Seen::load(&connection).unwrap();
        assert_eq!((all.young, all.young_frame), (loading.seen.young, 10));
    }
}
