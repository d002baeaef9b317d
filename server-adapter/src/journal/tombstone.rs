//! What remains of a frame whose body was rewritten or removed.
//!
//! ```text
//!            frames                                          tombstones                          seen
//!  erased    body: the frame with those events blank,        which; what the others said         as it was: a retry does not
//!            unsigned, and as long as it was                                                     bring anybody back
//!  removed   body: empty                                     what all of them said               as it was
//!  both      body: empty                                     what the others said                as it was
//! ```
//!
//! So a repeat is still told from a conflict: the same bytes by their hash, other bytes event by event. Of an erased event
//! nothing is kept but that it was there: whatever comes with its identity is the same again.

mod gone;
mod row;
mod subject;

use firsthop_core::{Error, Frame, Notes, Region, Timestamp, WorkerId};
use firsthop_intake::{RegionSecrets, content_digest};
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

pub(super) use self::gone::{erase_delivered, is_there};
use self::row::Row;
pub(crate) use self::{gone::Delivered, subject::Subject};
use super::{
    arrival::{NO_DIGEST, Noted, foreign_of, is_suppressed},
    quarantine,
    schema::{RowSum, row_sum},
    sealed::Readable,
    store::open_body,
};

/// What is kept of an event: enough to tell a repeat from a conflict.
pub(super) type Brief = [u8; 8];
/// Of an erased event.
const ERASED: Brief = [0; 8];

#[derive(Clone, Debug)]
pub(super) struct Tombstone {
    /// A bit for each event.
    erased: Option<Vec<u8>>,
    /// A bit for each event that had an id of another vendor's.
    foreign: Option<Vec<u8>>,
    /// Of the producer's bytes.
    hash: [u8; 16],
    briefs: Vec<u8>,
    /// As it is stored, to be compared with [`sum`](Self::sum).
    stored_sum: Option<i64>,
}

fn bit(bits: Option<&[u8]>, index: usize) -> bool {
    bits.and_then(|bits| bits.get(index / 8)).is_some_and(|byte| byte & 1 << (index % 8) != 0)
}

fn set(bits: &mut Option<Vec<u8>>, index: usize, count: usize) {
    bits.get_or_insert_with(|| vec![0; count.div_ceil(8)])[index / 8] |= 1 << (index % 8);
}

/// What is kept of an event that said this, then.
pub(super) fn brief(digest: [u8; 16], time: Timestamp) -> Brief {
    let mut hash = Sha256::new_with_prefix(b"firsthop/tombstone/1");
    hash.update(digest);
    hash.update(time.as_millis().to_le_bytes());
    let mut brief = [0; 8];
    brief.copy_from_slice(&hash.finalize()[..8]);
    if brief == ERASED { [1; 8] } else { brief }
}

impl Tombstone {
    /// Of a frame that is whole.
    fn of(frame: &Frame<'_>) -> Result<Self, Error> {
        let (context, events) = frame.open()?;
        let (created, count) = (frame.header().created, usize::from(frame.header().count));
        let mut briefs = Vec::with_capacity(count * size_of::<Brief>());
        let mut foreign = None;
        let rewritten = frame.rewritten().is_some();
        for (index, event) in events.enumerate() {
            let event = event?;
            let said =
                || Ok::<_, Error>(brief(content_digest(&event, &event.context.apply(&context)?), event.time(created)));
            // What was written anew, too, is the same as whatever comes with its identity.
            briefs.extend(if rewritten { ERASED } else { said()? });
            if event.id.is_some() {
                set(&mut foreign, index, count);
            }
        }
        Ok(Self { erased: None, foreign, hash: quarantine::hash(frame.bytes()), briefs, stored_sum: None })
    }

    /// Of a frame that nobody can open any more: by its bytes it is known again, and whatever else comes under its numbers is a repeat.
    /// `ids`: whether some of its events are known by another vendor's id. Which of them nobody knows, so each counts as one.
    fn unread(frame: &Frame<'_>, ids: bool) -> Self {
        let count = usize::from(frame.header().count);
        let foreign = ids.then(|| vec![0xff; count.div_ceil(8)]);
        let briefs = vec![0; count * size_of::<Brief>()];
        Self { erased: None, foreign, hash: quarantine::hash(frame.bytes()), briefs, stored_sum: None }
    }

    pub(super) fn load(connection: &Connection, frame: i64) -> rusqlite::Result<Option<Self>> {
        let mut statement = connection
            .prepare_cached("SELECT erased, foreign_ids, hash, digests, sum FROM tombstones WHERE frame = ?1")?;
        statement
            .query_row([frame], |row| {
                Ok(Self {
                    erased: row.get(0)?,
                    foreign: row.get(1)?,
                    hash: row.get(2)?,
                    briefs: row.get(3)?,
                    stored_sum: row.get(4)?,
                })
            })
            .optional()
    }

    /// Whether the row and this are as they were written.
    pub(super) fn is_intact(&self, row: &RowSum<'_>) -> bool {
        self.stored_sum == Some(self.sum(row))
    }

    /// Whether the event at this place was stored with this frame, and erased since.
    pub(super) fn is_erased(&self, index: usize) -> bool {
        bit(self.erased.as_deref(), index)
    }

    pub(super) fn is_foreign(&self, index: usize) -> bool {
        bit(self.foreign.as_deref(), index)
    }

    pub(super) const fn has_erased(&self) -> bool {
        self.erased.is_some()
    }

    /// Whether these bytes are the producer's frame again.
    pub(super) fn is_of(&self, bytes: &[u8]) -> bool {
        self.hash == quarantine::hash(bytes)
    }

    /// Whether the event at this place may have been this one. None: there is no such place.
    pub(super) fn may_be(&self, index: usize, brief: Option<Brief>) -> Option<bool> {
        let known = self.briefs.as_chunks::<8>().0.get(index)?;
        Some(*known == ERASED || Some(*known) == brief)
    }

    /// Forgets the event at this place; `stored`: it was stored with this frame, and did not come with another before.
    fn erase(&mut self, index: usize, stored: bool) {
        let count = self.briefs.len() / size_of::<Brief>();
        let erased = self.erased.get_or_insert_with(|| vec![0; count.div_ceil(8)]);
        if stored {
            erased[index / 8] |= 1 << (index % 8);
        }
        self.briefs.as_chunks_mut::<8>().0[index] = ERASED;
    }

    /// Whether nothing is known of what the event at this place said.
    fn has_forgotten(&self, index: usize) -> bool {
        self.briefs.as_chunks::<8>().0.get(index) == Some(&ERASED)
    }

    /// CRC-32 of the frame's row as it is now, and of this. `frames.sum` stays what it was: by it a sink knows where it is.
    fn sum(&self, row: &RowSum<'_>) -> i64 {
        let bits = |bits: &Option<Vec<u8>>| bits.as_ref().map_or(-1, |bits| bits.len() as i64).to_le_bytes();
        firsthop_core::crc32(&[
            &row_sum(row).to_le_bytes(),
            &bits(&self.erased),
            self.erased.as_deref().unwrap_or_default(),
            &bits(&self.foreign),
            self.foreign.as_deref().unwrap_or_default(),
            &self.hash,
            &self.briefs,
        ])
        .into()
    }

    fn write(&self, connection: &Connection, row: &Row) -> rusqlite::Result<()> {
        connection
            .prepare_cached("INSERT OR REPLACE INTO tombstones VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![row.id, self.erased, self.foreign, self.hash, self.briefs, self.sum(&row.columns())])?;
        Ok(())
    }
}

/// What was erased of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Erased {
    /// Events that had been stored, for the ledger.
    pub(super) events: u32,
    pub(super) region: Region,
    pub(super) hop: WorkerId,
}

impl Erased {
    fn of(row: &Row, events: u32) -> Self {
        let hop = row.ledger.map_or(0, |ledger| u32::try_from(ledger.hop).unwrap_or(0));
        Self { events, region: row.region.parse().unwrap_or_default(), hop: WorkerId::new(hop) }
    }
}

/// Erases a person's events in one frame, in the transaction that is open. All runs of the frame must be settled.
pub(super) fn erase(
    connection: &Connection,
    id: i64,
    subject: &Subject,
    secrets: &RegionSecrets,
) -> rusqlite::Result<Option<Erased>> {
    let Some(mut row) = Row::load(connection, id)? else { return Ok(None) };
    let known = Tombstone::load(connection, id)?;
    // What is blank already is nobody's.
    let places = subject.find(&row.body, secrets);
    if places.is_empty() {
        return Ok(None);
    }
    let mut events = 0;
    let work = |row: &mut Row| -> Result<(Tombstone, Vec<_>), Error> {
        let body = std::mem::take(&mut row.body);
        let (noted, bytes) = open_body(&body)?;
        let readable = Readable::parse(bytes, secrets)?;
        let frame = readable.frame();
        let mut tombstone = known.map_or_else(|| Tombstone::of(&frame), Ok)?;
        let foreign: Vec<_> =
            foreign_of(&frame)?.into_iter().filter(|event| places.contains(&event.index.into())).collect();
        let before = row.len();
        let own = row.annotation.as_deref().map(Noted::from_bytes).transpose()?;
        if let Some(Noted { annotation, notes }) = own.or(noted) {
            // An id of a click is a person's: most likely this one's.
            let notes = notes.map(|notes| Notes { click_id: "", ..notes });
            let kept = Noted { annotation, notes }.encode()?.into();
            row.annotation = Some(kept);
        }
        row.body.clone_from(&body);
        row.note_body(&frame);
        for &place in &places {
            let stored = row.accepted.has(place);
            tombstone.erase(place, stored);
            events += u32::from(stored);
            row.accepted.clear(place, row.count);
        }
        if row.accepted.count(row.count) == 0 {
            // What was noted of the request was of theirs alone.
            row.annotation = Some(Noted::default().encode()?.into());
        }
        row.body.clear();
        // As long as the row was, it is written over where it stands. A shorter one would let the database move its neighbours
        // about, and leave copies of them where they were; and some of those are to be erased next.
        let size = (body.len() + before).saturating_sub(row.len());
        row.body = subject.redact(&frame, &places, &tombstone, size)?;
        Ok((tombstone, foreign))
    };
    let Ok((tombstone, foreign)) = work(&mut row) else {
        // It was read a moment ago: only the writing can have failed, and nothing that was read is too large to be written smaller.
        return Err(rusqlite::Error::InvalidQuery);
    };
    row.write(connection, &tombstone)?;
    let mut forget =
        connection.prepare_cached("UPDATE seen SET digest = ?3 WHERE source = ?1 AND first = 0 AND frame = ?2")?;
    for event in foreign {
        forget.execute(params![&event.source.as_bytes()[..], id, NO_DIGEST])?;
    }
    Ok(Some(Erased::of(&row, events)))
}

/// Removes the bodies of frames, in the transaction that is open. All their runs must be settled. Returns how many had one, and their
/// bytes. One that cannot be read stays, for `firsthop verify` to name.
pub(super) fn remove(connection: &Connection, ids: &[i64], secrets: &RegionSecrets) -> rusqlite::Result<(u64, u64)> {
    let (mut rows, mut bytes) = (Vec::new(), 0);
    // Written over where they stand, all of them before one is moved: no copy of what they said is left behind.
    let mut blank = connection.prepare_cached("UPDATE frames SET body = zeroblob(LENGTH(body)) WHERE id = ?1")?;
    for &id in ids {
        let Some(mut row) = Row::load(connection, id)?.filter(|row| !row.body.is_empty()) else { continue };
        let known = Tombstone::load(connection, id)?;
        let size = row.body.len() as u64;
        let body = std::mem::take(&mut row.body);
        let read = || -> Result<(Tombstone, Frame<'_>), Error> {
            let (_, bytes) = open_body(&body)?;
            let frame = Frame::parse(bytes)?;
            let tombstone = match known {
                Some(known) => known,
                None => match Readable::parse(bytes, secrets) {
                    Ok(readable) => Tombstone::of(&readable.frame())?,
                    // Its key was taken away, or another has its number. Its time is over all the same.
                    Err(Error::Sealed | Error::Seal) => Tombstone::unread(&frame, row.ids > 0),
                    Err(error) => return Err(error),
                },
            };
            Ok((tombstone, frame))
        };
        let Ok((mut tombstone, frame)) = read() else {
            tracing::error!(frame = id, "a stored frame cannot be read, and is not removed");
            continue;
        };
        row.body.clone_from(&body);
        row.note_body(&frame);
        if is_suppressed(&frame) {
            // The body said that they were never stored.
            for place in 0..usize::from(row.count) {
                tombstone.erase(place, row.accepted.has(place));
                row.accepted.clear(place, row.count);
            }
        }
        (row.body, row.annotation) = (Vec::new(), None);
        blank.execute([id])?;
        bytes += size;
        rows.push((row, tombstone));
    }
    for (row, tombstone) in &rows {
        row.move_together(connection)?;
        tombstone.write(connection, row)?;
    }
    Ok((rows.len() as u64, bytes))
}
