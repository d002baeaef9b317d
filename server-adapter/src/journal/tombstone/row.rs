//! A row of `frames`, to be written anew.

use firsthop_core::Frame;
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    super::{
        arrival::is_trusted,
        ledger::hop_of,
        schema::{LedgerColumns, RowSum},
        store::Accepted,
    },
    Tombstone,
};

/// A row of `frames`.
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) received_ms: i64,
    pub(super) source: Vec<u8>,
    pub(super) batch_seq: i64,
    pub(super) first_seq: i64,
    pub(super) count: u16,
    pub(super) ids: i64,
    pub(super) region: String,
    pub(super) annotation: Option<Vec<u8>>,
    pub(super) accepted: Accepted,
    pub(super) ledger: Option<LedgerColumns>,
    pub(super) body: Vec<u8>,
}

impl Row {
    pub(super) fn load(connection: &Connection, id: i64) -> rusqlite::Result<Option<Self>> {
        let mut statement = connection.prepare_cached(
            "SELECT received_ms, source, batch_seq, first_seq, count, ids, region, annotation, accepted, hop, trust, dropped, body
             FROM frames WHERE id = ?1",
        )?;
        statement
            .query_row([id], |row| {
                Ok(Self {
                    id,
                    received_ms: row.get(0)?,
                    source: row.get(1)?,
                    batch_seq: row.get(2)?,
                    first_seq: row.get(3)?,
                    count: row.get(4)?,
                    ids: row.get(5)?,
                    region: row.get(6)?,
                    annotation: row.get(7)?,
                    accepted: Accepted::from_column(row.get_ref(8)?.as_blob_or_null()?),
                    ledger: match (row.get(9)?, row.get(10)?, row.get(11)?) {
                        (Some(hop), Some(trust), Some(dropped)) => Some(LedgerColumns { hop, trust, dropped }),
                        _ => None,
                    },
                    body: row.get(12)?,
                })
            })
            .optional()
    }

    pub(super) fn columns(&self) -> RowSum<'_> {
        RowSum {
            id: self.id,
            received_ms: self.received_ms,
            source: &self.source,
            batch_seq: self.batch_seq,
            first_seq: self.first_seq,
            count: self.count.into(),
            ids: self.ids,
            region: &self.region,
            annotation: self.annotation.as_deref(),
            accepted: self.accepted.column(),
            ledger: self.ledger,
        }
    }

    /// Bytes that it takes in the file, but for what is always the same, and for its body.
    pub(super) fn len(&self) -> usize {
        // A column's type is a number that says its length: SQLite's "record format".
        let varint = |number: usize| {
            if number < 128 {
                1
            } else if number < 16_384 {
                2
            } else {
                3
            }
        };
        let blob = |bytes: Option<&[u8]>| bytes.map_or(1, |bytes| varint(bytes.len() * 2 + 13) + bytes.len());
        let number = |number: i64| match number {
            0 | 1 => 1,
            -0x80..0x80 => 2,
            -0x8000..0x8000 => 3,
            -0x80_0000..0x80_0000 => 4,
            -0x8000_0000..0x8000_0000 => 5,
            _ => 7,
        };
        let ledger = self.ledger.map_or(3, |row| number(row.hop) + number(row.trust) + number(row.dropped));
        blob(self.annotation.as_deref()) + blob(self.accepted.column()) + ledger
    }

    /// What its columns do not say and its body does, while that is whole.
    pub(super) fn note_body(&mut self, frame: &Frame<'_>) {
        let header = frame.header();
        self.ledger.get_or_insert(LedgerColumns {
            hop: hop_of(&self.body).get().into(),
            trust: is_trusted(header, frame.rewritten()).into(),
            dropped: header.dropped.into(),
        });
    }

    /// Writes a row without a body. Written in its place it would keep the page that it had; taken out and put in again it stands
    /// beside others as small.
    pub(super) fn move_together(&self, connection: &Connection) -> rusqlite::Result<()> {
        let sum: i64 = connection
            .prepare_cached("SELECT sum FROM frames WHERE id = ?1")?
            .query_row([self.id], |row| row.get(0))?;
        connection.prepare_cached("DELETE FROM frames WHERE id = ?1")?.execute([self.id])?;
        let ledger = self.ledger;
        connection
            .prepare_cached(
                "INSERT INTO frames (id, received_ms, source, batch_seq, first_seq, count, ids, region, accepted, sum, body,
                     hop, trust, dropped)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, x'', ?11, ?12, ?13)",
            )?
            .execute(params![
                self.id,
                self.received_ms,
                self.source,
                self.batch_seq,
                self.first_seq,
                self.count,
                self.ids,
                self.region,
                self.accepted.column(),
                sum,
                ledger.map(|ledger| ledger.hop),
                ledger.map(|ledger| ledger.trust),
                ledger.map(|ledger| ledger.dropped),
            ])?;
        Ok(())
    }

    pub(super) fn write(&self, connection: &Connection, tombstone: &Tombstone) -> rusqlite::Result<()> {
        let ledger = self.ledger;
        connection
            .prepare_cached(
                "UPDATE frames SET annotation = ?2, accepted = ?3, hop = ?4, trust = ?5, dropped = ?6, body = ?7 WHERE id = ?1",
            )?
            .execute(params![
                self.id,
                self.annotation,
                self.accepted.column(),
                ledger.map(|ledger| ledger.hop),
                ledger.map(|ledger| ledger.trust),
                ledger.map(|ledger| ledger.dropped),
                self.body,
            ])?;
        tombstone.write(connection, self)
    }
}
