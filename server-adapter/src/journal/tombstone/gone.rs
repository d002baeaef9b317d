//! Erasing an event whose body retention has removed: nothing in the journal names its person any more, but a row that was delivered does.

use firsthop_core::{EventId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::{Erased, NO_DIGEST, Row, Tombstone, brief};

/// An event as a delivered row knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivered {
    pub(crate) id: EventId,
    pub(crate) time: Option<Timestamp>,
}

/// A removed frame, and the place of an event in it.
struct Place {
    row: Row,
    tombstone: Tombstone,
    index: usize,
    is_foreign: bool,
}

/// Where a delivered event is, if its body is gone and it is not erased yet. All runs of such frames are settled.
fn find(connection: &Connection, event: &Delivered) -> rusqlite::Result<Option<Place>> {
    let EventId { source, seq } = event.id;
    let Ok(seq) = i64::try_from(seq) else { return Ok(None) };
    let run = connection
        .prepare_cached(
            "SELECT frame, digest FROM seen WHERE source = ?1 AND first <= ?2 AND last >= ?2 ORDER BY first DESC LIMIT 1",
        )?
        .query_row(params![&source.as_bytes()[..], seq], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))
        .optional()?;
    let Some((frame, digest)) = run else { return Ok(None) };
    let row = Row::load(connection, frame)?.filter(|row| row.body.is_empty());
    let (Some(row), Some(tombstone)) = (row, Tombstone::load(connection, frame)?) else { return Ok(None) };
    let is_foreign = row.source != source.as_bytes();
    let index = if is_foreign {
        tombstone.place_of(&row, digest, event.time)
    } else {
        usize::try_from(seq - row.first_seq)
            .ok()
            .filter(|&index| index < row.count.into() && !tombstone.is_erased(index))
    };
    Ok(index.map(|index| Place { row, tombstone, index, is_foreign }))
}

impl Tombstone {
    /// The place of an event of another vendor's id: its row does not say it, what it said does. Of what was written anew nothing is
    /// known to compare, and each such place is as good.
    fn place_of(&self, row: &Row, digest: Option<[u8; 16]>, time: Option<Timestamp>) -> Option<usize> {
        let said = match (digest?, time) {
            (NO_DIGEST, _) => None,
            (digest, time) => Some(brief(digest, time?)),
        };
        (0..row.count.into()).find(|&index| {
            let is_it = match said {
                Some(said) => self.briefs.as_chunks::<8>().0.get(index) == Some(&said),
                None => self.has_forgotten(index),
            };
            is_it && self.is_foreign(index) && row.accepted.has(index)
        })
    }
}

/// Whether such an event could be erased.
pub(in crate::journal) fn is_there(connection: &Connection, event: &Delivered) -> rusqlite::Result<bool> {
    Ok(find(connection, event)?.is_some_and(|place| place.row.accepted.has(place.index)))
}

/// Forgets what it said and that it was stored, in the transaction that is open. None: it is not there, or is erased.
pub(in crate::journal) fn erase_delivered(
    connection: &Connection,
    event: &Delivered,
) -> rusqlite::Result<Option<Erased>> {
    let Some(Place { mut row, mut tombstone, index, is_foreign }) = find(connection, event)? else { return Ok(None) };
    let stored = row.accepted.has(index);
    tombstone.erase(index, stored);
    row.accepted.clear(index, row.count);
    row.write(connection, &tombstone)?;
    if is_foreign {
        connection
            .prepare_cached("UPDATE seen SET digest = ?3 WHERE source = ?1 AND first = 0 AND frame = ?2")?
            .execute(params![&event.id.source.as_bytes()[..], row.id, NO_DIGEST])?;
    }
    Ok(Some(Erased::of(&row, stored.into())))
}
