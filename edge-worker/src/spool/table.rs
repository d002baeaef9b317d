//! What waits, in the object's SQLite database.

use std::rc::Rc;

use wasm_bindgen::JsValue;
use worker::js_sys::{Array, Uint8Array};

use firsthop_intake::spool::STRIKES;

use crate::object::{Own, Result};

/// What is kept on disk. The envelope stands last, so that what stands before it is read without it.
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
    pub(super) envelope: &'a [u8],
}

/// A frame that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) id: u64,
    pub(super) source: [u8; 16],
    pub(super) strikes: u32,
}

/// How much waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) frames: u64,
    pub(super) events: u64,
    pub(super) bytes: u64,
}

impl Table {
    pub(super) fn open(own: &Rc<Own>) -> Result<Self> {
        own.run(SCHEMA, &[])?;
        Ok(Self(Rc::clone(own)))
    }

    /// How much waits. It reads every row, so it is asked for once, when the object wakes up.
    pub(super) fn held(&self) -> Result<Held> {
        let query = "SELECT COUNT(*), COALESCE(SUM(events), 0), COALESCE(SUM(bytes), 0) FROM waiting";
        let rows = self.0.rows(query, &[])?;
        let of = |column| rows.first().map_or(0, |row| whole(&row.get(column)));
        Ok(Held { frames: of(0), events: of(1), bytes: of(2) })
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
        // Behind what waits of its source, and not before it is due.
        self.0.run(
            "INSERT INTO waiting (source, name, events, bytes, since, due, envelope) VALUES (?1, ?2, ?3, ?4, ?5, \
             (SELECT COALESCE(MAX(due), 0) FROM waiting WHERE source = ?1 AND strikes < ?6), ?7)",
            &[
                blob(new.source),
                blob(new.name),
                number(new.events.into()),
                number(new.envelope.len() as u64),
                number(new.since),
                number(STRIKES.into()),
                blob(new.envelope),
            ],
        )
    }

    /// What is due, in the order in which it came.
    pub(super) fn due(&self, now: u64, most: u32) -> Result<Vec<Waiting>> {
        let query = "SELECT id, source, strikes FROM waiting WHERE due <= ? ORDER BY id LIMIT ?";
        let rows = self.0.rows(query, &[number(now), number(most.into())])?;
        let waiting = |row: Array| {
            let mut source = [0; 16];
            let bytes = Uint8Array::new(&row.get(1));
            if bytes.length() as usize == source.len() {
                bytes.copy_to(&mut source);
            }
            Waiting { id: whole(&row.get(0)), source, strikes: whole(&row.get(2)) as u32 }
        };
        Ok(rows.into_iter().map(waiting).collect())
    }

    /// When the next frame is due.
    pub(super) fn next_due(&self) -> Result<Option<u64>> {
        Ok(self.0.value("SELECT MIN(due) FROM waiting", &[])?.map(|due| whole(&due)))
    }

    /// Since when the oldest frame waits, by the hop's clock.
    pub(super) fn oldest(&self) -> Result<Option<u64>> {
        Ok(self.0.value("SELECT since FROM waiting ORDER BY id LIMIT 1", &[])?.map(|since| whole(&since)))
    }

    /// How many frames do not hold up those behind them any longer.
    pub(super) fn stuck(&self) -> Result<u64> {
        let count = self.0.value("SELECT COUNT(*) FROM waiting WHERE strikes >= ?", &[number(STRIKES.into())])?;
        Ok(count.map_or(0, |count| whole(&count)))
    }

    pub(super) fn envelope(&self, id: u64) -> Result<Option<Vec<u8>>> {
        let envelope = self.0.value("SELECT envelope FROM waiting WHERE id = ?", &[number(id)])?;
        Ok(envelope.map(|envelope| Uint8Array::new(&envelope).to_vec()))
    }

    pub(super) fn remove(&self, id: u64) -> Result<()> {
        self.0.run("DELETE FROM waiting WHERE id = ?", &[number(id)])
    }

    /// Holds a frame back until `due`, and with it what waits behind it, unless that need wait for it no longer.
    pub(super) fn hold_back(&self, frame: &Waiting, strikes: u32, due: u64) -> Result<()> {
        self.0.run(
            "UPDATE waiting SET due = ?, strikes = ? WHERE id = ?",
            &[number(due), number(strikes.into()), number(frame.id)],
        )?;
        if strikes > STRIKES {
            return Ok(());
        }
        // At its last strike it lets the others go; before that they go when it goes.
        let others = if strikes < STRIKES { due } else { 0 };
        self.0.run(
            "UPDATE waiting SET due = ? WHERE source = ? AND id > ? AND strikes < ?",
            &[number(others), blob(&frame.source), number(frame.id), number(STRIKES.into())],
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
