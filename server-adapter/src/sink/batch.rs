//! Frames of the journal, read for a sink, and the events in them as rows.

use std::{ops::Range, sync::Arc};

use firsthop_core::{Error, Frame, RegionKeyId, Timestamp};
use rusqlite::{Connection, OptionalExtension};

use super::{
    kept::KeptRow,
    row::{Buffers, FrameRow, Row},
    way::Way,
};
use crate::journal::{self, Accepted, Noted, Seals};

/// A place in the journal's events: all up to and with this frame, and so many events of what follows it. Those that were erased
/// since they were stored count, so that it stays the same place when more are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) frame: i64,
    pub(super) within: u32,
    /// Of that frame's row: by it one sees whether it is still the same journal.
    pub(super) sum: i64,
}

/// The most that a batch holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) events: usize,
    /// Of frames, as they are in the journal.
    pub(super) bytes: usize,
}

/// Some frames after a position, and how many of their events are done.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Annotations and bodies, one after the other.
    bytes: Vec<u8>,
    frames: Vec<Stored>,
    /// Rows that stand by themselves, in place of frames: dead letters that are tried again.
    kept: Vec<KeptRow>,
    from: Position,
    /// Of all frames here.
    events: usize,
    done: usize,
    /// Whether it has as much as it may hold: there is more, most likely.
    full: bool,
    /// Frames that could not be read: damaged on disk. `firsthop verify` names them.
    pub(super) unreadable: u64,
    /// Why what follows cannot be read yet.
    pub(super) closed: Option<(i64, String)>,
    /// Where its sink gives way.
    pub(super) way: Way,
}

#[derive(Debug)]
struct Stored {
    id: i64,
    received: Timestamp,
    region: Arc<str>,
    /// What the server noted itself.
    annotation: Option<Range<usize>>,
    accepted: Accepted,
    /// Events that were accepted too, and erased since. None: there are none.
    erased: Option<Accepted>,
    body: Range<usize>,
    /// What was sealed in it.
    opened: Option<Range<usize>>,
    sum: i64,
    /// Places in it, of events of any kind.
    count: u16,
    /// That are accepted.
    events: usize,
}

impl Batch {
    /// Reads what follows `from`, in place of what is here; up to a frame that is sealed to a key that is not here, or is another by now. A sink waits for
    /// that, since what it passes over it never gets.
    pub(super) fn read(
        &mut self,
        journal: &Connection,
        from: Position,
        limits: Limits,
        seals: &Seals,
    ) -> rusqlite::Result<()> {
        self.closed = None;
        self.bytes.clear();
        self.frames.clear();
        self.kept.clear();
        (self.from, self.events, self.done, self.unreadable, self.full) = (from, 0, 0, 0, false);
        let mut select = journal.prepare_cached(
            "SELECT id, received_ms, region, annotation, accepted, body, sum,
                 (SELECT erased FROM tombstones WHERE frame = frames.id)
             FROM frames WHERE id > ?1 ORDER BY id",
        )?;
        let mut rows = select.query([from.frame])?;
        while let Some(row) = rows.next()? {
            let annotation = row.get_ref(3)?.as_blob_or_null()?.map(|bytes| self.keep(bytes));
            let body = self.keep(row.get_ref(5)?.as_blob()?);
            let mut stored = Stored {
                id: row.get(0)?,
                received: Timestamp::from_millis(row.get::<_, i64>(1)? as u64),
                region: self.region(row.get_ref(2)?.as_str()?),
                annotation,
                accepted: Accepted::from_column(row.get_ref(4)?.as_blob_or_null()?),
                erased: row.get_ref(7)?.as_blob_or_null()?.map(|bits| Accepted::from_column(Some(bits))),
                body,
                opened: None,
                sum: row.get(6)?,
                count: 0,
                events: 0,
            };
            match stored.look(&self.bytes, seals) {
                Ok(Look { opened, count }) => {
                    stored.opened = opened.map(|payload| self.keep(&payload));
                    if let Some(count) = count {
                        (stored.count, stored.events) = (count, stored.accepted.count(count) as usize);
                    }
                }
                // Its events were erased, or their time is over; the row stays, for what came with them.
                Err(Closed::Damaged) if stored.body.is_empty() => {}
                Err(Closed::Damaged) => {
                    tracing::error!(
                        frame = stored.id,
                        "a stored frame cannot be read, and a sink goes past it: `firsthop verify` says more; once the journal is put back from \
                         a copy, `firsthop replay --sink NAME --from {}` delivers it",
                        stored.id
                    );
                    self.unreadable += 1;
                }
                Err(Closed::Sealed(why)) => {
                    self.closed = Some((stored.id, why));
                    self.bytes.truncate(stored.annotation.map_or(stored.body.start, |annotation| annotation.start));
                    break;
                }
            }
            if self.frames.is_empty() {
                self.done = stored.still_there(from.within);
            }
            self.events += stored.events;
            self.frames.push(stored);
            if self.events.saturating_sub(self.done) >= limits.events || self.bytes.len() >= limits.bytes {
                self.full = true;
                break;
            }
        }
        Ok(())
    }

    /// Of a sink that gives way.
    pub(super) fn giving(way: Way) -> Self {
        Self { way, ..Self::default() }
    }

    /// Rows that stand by themselves.
    pub(super) fn of(rows: Vec<KeptRow>) -> Self {
        Self { events: rows.len(), kept: rows, ..Self::default() }
    }

    /// A region, in the memory of the frame before where that is of the same.
    fn region(&self, name: &str) -> Arc<str> {
        match self.frames.last() {
            Some(last) if *last.region == *name => Arc::clone(&last.region),
            _ => name.into(),
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Range<usize> {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        from..self.bytes.len()
    }

    pub(super) fn frames(&self) -> usize {
        self.frames.len()
    }

    /// Events that are to be delivered.
    pub(super) fn len(&self) -> usize {
        self.events - self.done
    }

    /// Whether it has as much as it may hold, in events or in bytes.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// The `traceparent` of each frame here that has one, and how many events are to be delivered of it.
    pub(super) fn traces(&self) -> impl Iterator<Item = (Option<&str>, u64)> {
        self.frames.iter().map(|stored| {
            let frame = journal::open_frame(&self.bytes[stored.body.clone()]).ok();
            (frame.and_then(|(_, frame)| frame.traceparent()), stored.events as u64)
        })
    }

    /// When the first frame here was received.
    pub(super) fn received(&self) -> Option<Timestamp> {
        self.frames.first().map(|frame| frame.received)
    }

    /// So many events, from the front, need no more thought.
    pub(super) fn advance(&mut self, events: usize) {
        self.done = (self.done + events).min(self.events);
    }

    /// Where a sink is that has had `events` more.
    pub(super) fn position_after(&self, events: usize) -> Position {
        let mut left = self.done + events;
        let mut at = Position { within: 0, ..self.from };
        for frame in &self.frames {
            if left < frame.events {
                return Position { within: frame.ever_there(left), ..at };
            }
            left -= frame.events;
            at = Position { frame: frame.id, within: 0, sum: frame.sum };
        }
        at
    }

    /// Where a sink is that has had all of it.
    pub(super) fn end(&self) -> Position {
        self.position_after(self.len())
    }

    /// Every event that is to be delivered, as a row, with its place among them; until one is an error.
    pub(super) fn each<E>(
        &self,
        buffers: &mut Buffers,
        mut visit: impl FnMut(usize, &Row<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for (index, kept) in self.kept.iter().skip(self.done).enumerate() {
            visit(index, &kept.row())?;
        }
        let mut count = 0;
        for stored in &self.frames {
            // One without events may be one that cannot be read.
            if stored.events == 0 || count + stored.events <= self.done {
                count += stored.events;
                continue;
            }
            // Was read before, in `read`.
            let Some(open) = stored.open(&self.bytes) else { continue };
            let Ok((context, events)) = open.frame.open() else { continue };
            let mut events = events.enumerate().peekable();
            let first = events.peek().and_then(|(_, event)| event.as_ref().ok());
            let shared =
                FrameRow::new(buffers, &open.frame, context, first, open.noted, stored.received, &stored.region);
            // Whether the row before is of this frame, and of an event that adds nothing to what they share.
            let mut shares = false;
            for (index, event) in events {
                if let Ok(event) = event
                    && stored.accepted.has(index)
                {
                    if count >= self.done {
                        self.way.give();
                        let shared_before = std::mem::replace(&mut shares, event.context.is_none());
                        let repeats = shared_before && shares;
                        visit(count - self.done, &Row { repeats, ..shared.row(buffers, index, &event) })?;
                    }
                    count += 1;
                }
            }
            shared.end(buffers);
        }
        Ok(())
    }
}

/// What a first look at a stored frame finds.
struct Look {
    /// What was sealed in it.
    opened: Option<Arc<[u8]>>,
    /// Places of events. None: it was suppressed, which is counted, and nothing of it goes anywhere.
    count: Option<u16>,
}

/// Why a stored frame cannot be read.
enum Closed {
    Damaged,
    /// Its key is not here, or is another by now.
    Sealed(String),
}

/// A stored frame that can be decoded.
struct Open<'a> {
    frame: Frame<'a>,
    noted: Noted<'a>,
}

impl Stored {
    /// Whether each event is there that was accepted, one that was erased since is not.
    fn ever_accepted(&self) -> impl Iterator<Item = bool> {
        let has = |bits: &Option<Accepted>, index| bits.as_ref().is_some_and(|bits| bits.has(index));
        (0..self.count.into()).filter_map(move |index| {
            let there = self.accepted.has(index);
            (there || has(&self.erased, index)).then_some(there)
        })
    }

    /// Of so many events, from its front, that it ever had: those that it has.
    fn still_there(&self, within: u32) -> usize {
        self.ever_accepted().take(within as usize).filter(|there| *there).count()
    }

    /// Of so many events, from its front, that it has: with those that it had among them.
    fn ever_there(&self, events: usize) -> u32 {
        let mut left = events;
        let passed = self.ever_accepted().take_while(|there| {
            let goes_on = left > 0;
            left -= usize::from(goes_on && *there);
            goes_on
        });
        passed.count() as u32
    }

    /// Reads all of it once, so that it can be read again without a doubt.
    fn look(&self, bytes: &[u8], seals: &Seals) -> Result<Look, Closed> {
        let frame = self.open(bytes).ok_or(Closed::Damaged)?.frame;
        let opened = match seals.open(self.id, &frame) {
            Ok(opened) => opened,
            Err(error @ (Error::Sealed | Error::Seal)) => {
                // The CRC holds, and it was opened before it was stored: if that key does not open it, it is another one.
                let why = match error {
                    Error::Sealed => "keys.toml does not have it: put it back",
                    _ => {
                        "what keys.toml has under that number does not open it: put back the one that it was sealed to"
                    }
                };
                let (id, region) = (frame.sealed_to().map_or(0, RegionKeyId::get), frame.header().region);
                let why = format!("frame {} is sealed to region key {id} of {region}, and {why}", self.id);
                return Err(Closed::Sealed(why));
            }
            Err(_) => return Err(Closed::Damaged),
        };
        let readable = opened.as_ref().map_or(frame, |payload| frame.with_opened(payload));
        readable.check().map_err(|_| Closed::Damaged)?;
        let count = (!journal::is_suppressed(&frame)).then_some(frame.header().count);
        Ok(Look { opened, count })
    }

    fn open<'a>(&self, bytes: &'a [u8]) -> Option<Open<'a>> {
        let (enveloped, mut frame) = journal::open_frame(&bytes[self.body.clone()]).ok()?;
        // The server's own note is the later word.
        let noted = match &self.annotation {
            Some(own) => Noted::from_bytes(&bytes[own.clone()]).ok()?,
            None => enveloped?,
        };
        if let Some(opened) = &self.opened {
            frame = frame.with_opened(&bytes[opened.clone()]);
        }
        Some(Open { frame, noted })
    }
}

/// The position at which a sink must stand for this frame to be what comes next.
pub(super) fn before(journal: &Connection, frame: i64) -> rusqlite::Result<Position> {
    let sql = "SELECT id, sum FROM frames WHERE id < ?1 ORDER BY id DESC LIMIT 1";
    let found = journal.query_row(sql, [frame], |row| Ok(Position { frame: row.get(0)?, within: 0, sum: row.get(1)? }));
    Ok(found.optional()?.unwrap_or_default())
}

/// Where to go on: at the position, if the journal still has the frame that it names. A journal that was put back from a copy gives
/// ids again that the sink has passed, and the events behind them would never reach it. Then it begins again, since nothing says how
/// far the two agree: what is missing at its end may have been given again already.
pub(super) fn meet(journal: &Connection, at: Position, known: i64) -> rusqlite::Result<Met> {
    let id = journal::read_id(journal)?;
    let sum: Option<i64> =
        journal.query_row("SELECT sum FROM frames WHERE id = ?1", [at.frame], |row| row.get(0)).optional()?;
    let same = known == id && (at.frame == 0 || sum == Some(at.sum));
    Ok(Met {
        journal: id,
        at: if same { at } else { Position::default() },
        rewound: !same && at != Position::default(),
    })
}

/// A sink's position, seen beside the journal.
#[derive(Debug)]
pub(super) struct Met {
    /// Which journal it is.
    pub(super) journal: i64,
    pub(super) at: Position,
    /// Whether that is not where the sink was.
    pub(super) rewound: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(accepted: Option<&[u8]>, erased: Option<&[u8]>) -> Stored {
        let accepted = Accepted::from_column(accepted);
        Stored {
            id: 1,
            received: Timestamp::from_millis(0),
            region: "".into(),
            annotation: None,
            events: accepted.count(8) as usize,
            accepted,
            erased: erased.map(|bits| Accepted::from_column(Some(bits))),
            body: 0..0,
            opened: None,
            sum: 0,
            count: 8,
        }
    }

    /// A sink has the events 0, 2 and 3, the next is 4; then some of its frame are erased.
    #[test]
    fn a_place_in_a_frame_stays_when_events_are_erased() {
        let before = stored(Some(&[0b1111_1101]), None);
        let within = before.ever_there(3);
        assert_eq!((within, before.still_there(3)), (3, 3));
        // What follows is there, but for what was erased of it.
        for (erased, past) in [(0b0000_0001, 2), (0b0000_1101, 0), (0b0001_0000, 3), (0b1001_0100, 2), (0b1111_1101, 0)]
        {
            let after = stored(Some(&[0b1111_1101 & !erased]), Some(&[erased]));
            assert_eq!(after.still_there(within), past, "{erased:08b}");
            // And from there to the next, the same place by either.
            let next = after.ever_there(past);
            assert_eq!(after.still_there(next), past, "{erased:08b}");
            assert!(next <= within, "{erased:08b}");
        }
        // A batch that was read before says it as one that was read after does.
        let after = stored(Some(&[0b1111_0000]), Some(&[0b0000_1101]));
        assert_eq!(after.still_there(before.ever_there(5)), 2);
        assert_eq!(after.ever_there(2), 5);
        // Nothing is erased of one that has all.
        let whole = stored(None, None);
        assert_eq!((whole.ever_there(5), whole.still_there(5), whole.still_there(99)), (5, 5, 8));
    }
}
