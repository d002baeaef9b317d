//! Entries, read beside the writer.

use std::path::Path;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use super::super::{arrival::Asked, schema::open_reader};
use crate::Error;

/// Which entries. What is empty does not choose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Select {
    pub(crate) ids: Vec<i64>,
    pub(crate) reasons: Vec<String>,
    /// Came, the last time, no earlier than this.
    pub(crate) from_ms: Option<i64>,
    /// Came first before this.
    pub(crate) to_ms: Option<i64>,
}

/// An entry without its body.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) id: i64,
    pub(crate) first_ms: i64,
    pub(crate) last_ms: i64,
    pub(crate) times: i64,
    pub(crate) reason: String,
    pub(crate) region: String,
    pub(crate) events: u16,
    pub(crate) vouched: bool,
    pub(crate) bytes: u64,
    /// In hex: of the producer's bytes.
    pub(crate) hash: String,
}

/// An entry whole.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) line: Line,
    pub(crate) annotation: Option<Vec<u8>>,
    pub(crate) body: Bytes,
    /// What else the request said; none if that was not noted.
    pub(crate) request: Option<Asked>,
}

/// How much of one reason.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sum {
    pub(crate) reason: String,
    pub(crate) entries: u64,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
}

/// A journal's quarantine, to read. A server may be writing to it.
#[derive(Debug)]
pub(crate) struct Reader(Connection);

/// The columns of a [`Line`].
const LINE: &str = "id, first_ms, last_ms, times, reason, region, events, vouched, LENGTH(body), LOWER(HEX(hash))";

impl Reader {
    pub(crate) fn open(journal: &Path) -> Result<Self, Error> {
        open_reader(journal).map(Self)
    }

    /// The newest that match, the oldest of them first.
    pub(crate) fn newest(&self, select: &Select, limit: u32) -> rusqlite::Result<Vec<Line>> {
        let (condition, values) = select.condition();
        let sql = format!(
            "SELECT * FROM (SELECT {LINE} FROM quarantine WHERE {condition} ORDER BY id DESC LIMIT {limit}) ORDER BY id"
        );
        let mut statement = self.0.prepare(&sql)?;
        let lines = statement.query_map(rusqlite::params_from_iter(values), line)?;
        lines.collect()
    }

    /// How much matches, by reason.
    pub(crate) fn sums(&self, select: &Select) -> rusqlite::Result<Vec<Sum>> {
        let (condition, values) = select.condition();
        let sql = format!(
            "SELECT reason, COUNT(*), SUM(events), SUM(LENGTH(body)) FROM quarantine WHERE {condition}
             GROUP BY reason ORDER BY reason"
        );
        let mut statement = self.0.prepare(&sql)?;
        let sums = statement.query_map(rusqlite::params_from_iter(values), |row| {
            let number = |at| row.get::<_, i64>(at).map(|number| number as u64);
            Ok(Sum { reason: row.get(0)?, entries: number(1)?, events: number(2)?, bytes: number(3)? })
        })?;
        sums.collect()
    }

    /// The last id that was given, and the bytes that all of it takes.
    pub(crate) fn state(&self) -> rusqlite::Result<(i64, u64)> {
        let figure =
            |key: &str| self.0.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get::<_, i64>(0));
        Ok((figure(super::LAST)?, figure(super::BYTES)? as u64))
    }

    pub(crate) fn item(&self, id: i64) -> rusqlite::Result<Option<Item>> {
        let sql = format!("SELECT {LINE}, annotation, path, origin, write_key, body FROM quarantine WHERE id = ?1");
        self.0.prepare_cached(&sql)?.query_row([id], item).optional()
    }

    /// Entries that match, above one and up to another, in order: so many, of so many bytes at the most, or one that is larger.
    pub(crate) fn part(&self, select: &Select, part: Part) -> rusqlite::Result<Vec<i64>> {
        let (condition, values) = select.condition();
        let Part { after, until, entries, bytes } = part;
        let sql = format!(
            "SELECT id, LENGTH(body) FROM quarantine WHERE id > {after} AND id <= {until} AND {condition}
             ORDER BY id LIMIT {entries}"
        );
        let mut statement = self.0.prepare(&sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(values))?;
        let (mut ids, mut size) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            size += row.get::<_, i64>(1)? as u64;
            if size > bytes && !ids.is_empty() {
                break;
            }
            ids.push(row.get(0)?);
        }
        Ok(ids)
    }
}

/// A part of what matches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) after: i64,
    pub(crate) until: i64,
    pub(crate) entries: u32,
    pub(crate) bytes: u64,
}

impl Select {
    fn condition(&self) -> (String, Vec<String>) {
        let mut parts = vec!["TRUE".to_owned()];
        if !self.ids.is_empty() {
            let ids: Vec<String> = self.ids.iter().map(ToString::to_string).collect();
            parts.push(format!("id IN ({})", ids.join(",")));
        }
        if !self.reasons.is_empty() {
            parts.push(format!("reason IN ({})", vec!["?"; self.reasons.len()].join(",")));
        }
        parts.extend(self.from_ms.map(|from| format!("last_ms >= {from}")));
        parts.extend(self.to_ms.map(|to| format!("first_ms < {to}")));
        (parts.join(" AND "), self.reasons.clone())
    }
}

fn line(row: &Row<'_>) -> rusqlite::Result<Line> {
    Ok(Line {
        id: row.get(0)?,
        first_ms: row.get(1)?,
        last_ms: row.get(2)?,
        times: row.get(3)?,
        reason: row.get(4)?,
        region: row.get(5)?,
        events: row.get(6)?,
        vouched: row.get(7)?,
        bytes: row.get::<_, i64>(8)? as u64,
        hash: row.get(9)?,
    })
}

fn item(row: &Row<'_>) -> rusqlite::Result<Item> {
    let path: Option<String> = row.get(11)?;
    let request = match path {
        Some(path) => Some(Asked { path: path.into(), origin: row.get(12)?, write_key: row.get(13)? }),
        None => None,
    };
    Ok(Item { line: line(row)?, annotation: row.get(10)?, body: row.get::<_, Vec<u8>>(14)?.into(), request })
}
