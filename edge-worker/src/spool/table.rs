//! What waits, in the object's SQLite database.

use std::rc::Rc;

use wasm_bindgen::JsValue;
use worker::js_sys::{Array, Uint8Array};

use firsthop_intake::spool::STRIKES;

use crate::object::{Own, Result};

/// What is kept on disk. A frame that is held back has a time at which it is `due`, and with it all that is behind it of its source waits; others have 0. The envelope stands last, so that what stands before it is read without it.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS waiting (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  source BLOB NOT NULL,
  name BLOB NOT NULL UNIQUE,
  events INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  since INTEGER NOT NULL,
  due INTEGER NOT NULL DEFAULT 0,
  strikes INTEGER NOT NULL DEFAULT 0,
  envelope BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS waiting_source ON waiting (source, id);
CREATE INDEX IF NOT EXISTS waiting_due ON waiting (due) WHERE due > 0;
CREATE TABLE IF NOT EXISTS figures (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;";

/// The table of one object.
#[derive(Debug)]
pub(super) struct Table(Rc<Own>);

/// A frame that comes.
pub(super) struct New<'a> {
    /// Whose events: 16 bytes.
    pub(super) source: &'a [u8],
    /// What the producer's bytes are known by: a retry has the same.
    pub(super) name: &'a [u8],
    pub(super) events: u16,
    pub(super) since: u64,
    pub(super) strikes: u32,
    pub(super) due: u64,
    pub(super) envelope: &'a [u8],
}

/// A frame that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) id: u64,
    pub(super) source: [u8; 16],
    pub(super) strikes: u32,
    pub(super) due: u64,
}

/// How much waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) frames: u64,
    pub(super) events: u64,
    pub(super) bytes: u64,
    /// Of these, what has strikes.
    pub(super) struck: Part,
    /// Of these, the frames that hold up nobody any longer.
    pub(super) stuck: u64,
}

/// A part of what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) frames: u64,
    pub(super) bytes: u64,
}

impl Held {
    /// Notes that a frame has come, with so many strikes.
    pub(super) fn add(&mut self, events: u64, bytes: u64, strikes: u32) {
        self.frames += 1;
        self.events += events;
        self.bytes += bytes;
        self.strike(bytes, 0, strikes);
    }

    /// Notes that a frame is gone.
    pub(super) fn remove(&mut self, events: u64, bytes: u64, strikes: u32) {
        self.strike(bytes, strikes, 0);
        self.frames = self.frames.saturating_sub(1);
        self.events = self.events.saturating_sub(events);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Notes that a frame has other strikes than before.
    pub(super) fn strike(&mut self, bytes: u64, before: u32, after: u32) {
        match (before > 0, after > 0) {
            (false, true) => self.struck = Part { frames: self.struck.frames + 1, bytes: self.struck.bytes + bytes },
            (true, false) => {
                let Part { frames, bytes: all } = self.struck;
                self.struck = Part { frames: frames.saturating_sub(1), bytes: all.saturating_sub(bytes) };
            }
            _ => {}
        }
        let is_stuck = |strikes| u64::from(strikes >= STRIKES);
        self.stuck = (self.stuck + is_stuck(after)).saturating_sub(is_stuck(before));
    }
}

impl Table {
    pub(super) fn open(own: &Rc<Own>) -> Result<Self> {
        own.run(SCHEMA, &[])?;
        Ok(Self(Rc::clone(own)))
    }

    /// How much waits. It reads every row, so it is asked for once, when the object wakes up.
    pub(super) fn held(&self) -> Result<Held> {
        let query = "SELECT COUNT(*), TOTAL(events), TOTAL(bytes), TOTAL(strikes > 0), \
                     TOTAL(bytes * (strikes > 0)), TOTAL(strikes >= ?) FROM waiting";
        let rows = self.0.rows(query, &[number(STRIKES.into())])?;
        let of = |column| rows.first().map_or(0, |row| whole(&row.get(column)));
        let struck = Part { frames: of(3), bytes: of(4) };
        Ok(Held { frames: of(0), events: of(1), bytes: of(2), struck, stuck: of(5) })
    }

    /// How much waits of one source. It reads every row of that source.
    pub(super) fn of_source(&self, source: &[u8]) -> Result<Part> {
        let rows = self.0.rows("SELECT COUNT(*), TOTAL(bytes) FROM waiting WHERE source = ?", &[blob(source)])?;
        let of = |column| rows.first().map_or(0, |row| whole(&row.get(column)));
        Ok(Part { frames: of(0), bytes: of(1) })
    }

    /// Whether this very frame waits.
    pub(super) fn has(&self, name: &[u8]) -> Result<bool> {
        Ok(self.0.value("SELECT 1 FROM waiting WHERE name = ?", &[blob(name)])?.is_some())
    }

    /// Whether anything of a source waits that later frames have to wait for.
    pub(super) fn holds_up(&self, source: &[u8]) -> Result<bool> {
        let query = "SELECT 1 FROM waiting WHERE source = ? AND strikes < ? LIMIT 1";
        Ok(self.0.value(query, &[blob(source), number(STRIKES.into())])?.is_some())
    }

    pub(super) fn put(&self, new: New<'_>) -> Result<()> {
        self.0.run(
            "INSERT INTO waiting (source, name, events, bytes, since, strikes, due, envelope) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            &[
                blob(new.source),
                blob(new.name),
                number(new.events.into()),
                number(new.envelope.len() as u64),
                number(new.since),
                number(new.strikes.into()),
                number(new.due),
                blob(new.envelope),
            ],
        )
    }

    /// The first frame of the next source, by ids and behind this one's, that is not held back.
    pub(super) fn next_source(&self, behind: &[u8]) -> Result<Option<Waiting>> {
        // From one source's first frame to the next one's, by the index: those that are held back cost a step each, whatever waits behind them.
        let query = "WITH RECURSIVE first AS (
              SELECT * FROM (SELECT id, source, strikes, due FROM waiting WHERE source > ?1 AND strikes < ?2 ORDER BY source, id LIMIT 1)
              UNION ALL
              SELECT next.id, next.source, next.strikes, next.due FROM first JOIN waiting AS next ON next.id =
                (SELECT id FROM waiting WHERE source > first.source AND strikes < ?2 ORDER BY source, id LIMIT 1)
              WHERE first.due > 0)
            SELECT id, source, strikes, due FROM first WHERE due = 0 LIMIT 1";
        self.waiting(query, &[blob(behind), number(STRIKES.into())]).map(|found| found.first().copied())
    }

    /// What waits first of a source, and may hold up what is behind it.
    pub(super) fn first_of(&self, source: &[u8]) -> Result<Option<Waiting>> {
        let query = "SELECT id, source, strikes, due FROM waiting WHERE source = ? AND strikes < ? ORDER BY id LIMIT 1";
        self.waiting(query, &[blob(source), number(STRIKES.into())]).map(|found| found.first().copied())
    }

    /// What was held back and is due, beginning with what has been due for longest.
    pub(super) fn due(&self, now: u64, most: u32) -> Result<Vec<Waiting>> {
        let query = "SELECT id, source, strikes, due FROM waiting WHERE due > 0 AND due <= ? ORDER BY due, id LIMIT ?";
        self.waiting(query, &[number(now), number(most.into())])
    }

    /// The source of some frame, by chance: a share of 2³² of the way through what waits.
    pub(super) fn somewhere(&self, chance: u32) -> Result<Option<[u8; 16]>> {
        let query = "SELECT id, source, strikes, due FROM waiting WHERE id >= (SELECT MIN(id) FROM waiting)
              + ((SELECT MAX(id) FROM waiting) - (SELECT MIN(id) FROM waiting)) * ? / 4294967296.0 ORDER BY id LIMIT 1";
        self.waiting(query, &[number(chance.into())]).map(|found| found.first().map(|frame| frame.source))
    }

    fn waiting(&self, query: &str, values: &[JsValue]) -> Result<Vec<Waiting>> {
        let waiting = |row: Array| {
            let mut source = [0; 16];
            let bytes = Uint8Array::new(&row.get(1));
            if bytes.length() as usize == source.len() {
                bytes.copy_to(&mut source);
            }
            Waiting { id: whole(&row.get(0)), source, strikes: whole(&row.get(2)) as u32, due: whole(&row.get(3)) }
        };
        Ok(self.0.rows(query, values)?.into_iter().map(waiting).collect())
    }

    /// When the next of those that are held back is due.
    pub(super) fn next_due(&self) -> Result<Option<u64>> {
        Ok(self.0.value("SELECT MIN(due) FROM waiting WHERE due > 0", &[])?.map(|due| whole(&due)))
    }

    /// Since when the oldest frame waits, by the hop's clock.
    pub(super) fn oldest(&self) -> Result<Option<u64>> {
        Ok(self.0.value("SELECT since FROM waiting ORDER BY id LIMIT 1", &[])?.map(|since| whole(&since)))
    }

    pub(super) fn envelope(&self, id: u64) -> Result<Option<Vec<u8>>> {
        let envelope = self.0.value("SELECT envelope FROM waiting WHERE id = ?", &[number(id)])?;
        Ok(envelope.map(|envelope| Uint8Array::new(&envelope).to_vec()))
    }

    pub(super) fn remove(&self, id: u64) -> Result<()> {
        self.0.run("DELETE FROM waiting WHERE id = ?", &[number(id)])
    }

    /// Holds a frame back until `due`, and with it what waits behind it, unless that need wait for it no longer.
    pub(super) fn hold_back(&self, id: u64, strikes: u32, due: u64) -> Result<()> {
        self.0.run(
            "UPDATE waiting SET due = ?, strikes = ? WHERE id = ?",
            &[number(due), number(strikes.into()), number(id)],
        )
    }

    /// A figure that outlives the object's memory.
    pub(super) fn figure(&self, name: &str) -> Result<u64> {
        let value = self.0.value("SELECT value FROM figures WHERE name = ?", &[name.into()])?;
        Ok(value.map_or(0, |value| whole(&value)))
    }

    pub(super) fn set_figure(&self, name: &str, value: u64) -> Result<()> {
        let query = "INSERT INTO figures VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.0.run(query, &[name.into(), number(value)])
    }

    pub(super) fn add_to_figure(&self, name: &str, more: u64) -> Result<()> {
        let query = "INSERT INTO figures VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value";
        self.0.run(query, &[name.into(), number(more)])
    }
}

fn blob(bytes: &[u8]) -> JsValue {
    Uint8Array::from(bytes).into()
}

/// Times in milliseconds and counts: far below what a double holds exactly.
fn number(number: u64) -> JsValue {
    JsValue::from_f64(number as f64)
}

fn whole(value: &JsValue) -> u64 {
    value.as_f64().unwrap_or(0.0) as u64
}
