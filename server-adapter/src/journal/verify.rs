//! Checks everything that is stored: CRC and signature of every frame, every row against its frame, every identity
//! against the frames, and the counts.

mod report;
mod tables;

use firsthop_core::{Alg, Envelope, Error as CoreError, Flags, Frame, LeaseScope, RegionKeyId, SourceId, TenantId};
use firsthop_intake::RegionSecrets;
use rusqlite::{Connection, OptionalExtension, Row, params};

pub use self::report::Report;
use super::{
    arrival::{Foreign, Noted, foreign_of, is_suppressed, is_trusted},
    ledger, quarantine,
    schema::{LedgerColumns, RowSum, admit, open_reader, row_sum},
    sealed::Readable,
    seen::{Run, own_runs, settled},
    store::Accepted,
    tombstone::Tombstone,
};
use crate::{
    Error, sink,
    tenants::{KeyFile, StoredTenant},
};

/// Checks one tenant's journal and events table, as they are at this moment; a server may go on writing.
/// `progress` is told how many of how many frames are done.
///
/// # Errors
/// [`Error::Database`] if a file cannot be opened. What is wrong inside is in the report.
pub fn verify(stored: &StoredTenant, mut progress: impl FnMut(u64, u64)) -> Result<Report, Error> {
    let (tenant, keys) = (stored.tenant.id, &stored.keys);
    let (journal, events) = (&*stored.journal(), &*stored.events());
    let mut report = Report::default();
    admit(journal)?;
    // The table first: its cursor must not be ahead of what is then read of the journal.
    let table = sink::events::State::read(events, &stored.sinks())?;
    let connection = open_reader(journal)?;
    // One snapshot for all of it.
    connection.execute_batch("BEGIN").map_err(Error::database(journal))?;
    let mut check = Check {
        tenant,
        keys,
        secrets: keys.region_secrets(),
        report: &mut report,
        settled: 0,
        noted: 0,
        gathering: Vec::new(),
        cursor: table.as_ref().map(|table| table.cursor),
        delivered: 0,
        gone: 0,
    };
    let read = (|| -> rusqlite::Result<()> {
        check.structure(&connection)?;
        check.settled = settled(&connection)?;
        check.frames(&connection, &mut progress)?;
        check.seen(&connection)?;
        check.counters(&connection)?;
        if let Some(key) = &keys.ledger {
            let checked = ledger::check(&connection, &key.public(), None)?;
            check.report.closed_hours = checked.entries;
            checked.faults.into_iter().for_each(|fault| check.report.fault(format!("ledger: {fault}")));
        }
        let (count, faults) = quarantine::verify(&connection)?;
        check.report.quarantined = count;
        faults.into_iter().for_each(|fault| check.report.fault(fault));
        Ok(())
    })();
    let (delivered, gone) = (check.delivered, check.gone);
    if let Err(error) = read {
        report.fault(format!("journal: cannot be read further: {error}"));
        return Ok(report);
    }
    if let Some(table) = table {
        report.rows = table.rows;
        table.faults.into_iter().for_each(|fault| report.fault(fault));
        // Of frames whose bodies are gone the table may have the events, or have been made again since.
        let there = table.rows + table.refused;
        if there > delivered || there < delivered.saturating_sub(gone) {
            report.fault(format!(
                "events table: has {} rows and {} dead letters, and the frames up to its cursor ({}) brought {delivered} events",
                table.rows, table.refused, table.cursor
            ));
        }
    }
    Ok(report)
}

struct Check<'a> {
    tenant: TenantId,
    keys: &'a KeyFile,
    secrets: RegionSecrets,
    report: &'a mut Report,
    /// The last frame whose runs must be in the table.
    settled: i64,
    /// Events of the frames whose runs are there.
    noted: u64,
    /// The runs that are not there yet.
    gathering: Vec<(SourceId, u64, u64)>,
    /// Where the events table is.
    cursor: Option<i64>,
    /// Events of the frames up to there.
    delivered: u64,
    /// Those of them whose bodies are gone.
    gone: u64,
}

impl Check<'_> {
    fn frames(&mut self, connection: &Connection, progress: &mut impl FnMut(u64, u64)) -> rusqlite::Result<()> {
        let total: i64 = connection.query_row("SELECT COUNT(*) FROM frames", [], |row| row.get(0))?;
        let mut statement = connection.prepare(
            "SELECT id, received_ms, source, batch_seq, first_seq, count, ids, region, annotation, accepted, sum, body,
                    hop, trust, dropped
             FROM frames ORDER BY id",
        )?;
        let mut lookup = connection.prepare("SELECT last, frame, digest FROM seen WHERE source = ?1 AND first = ?2")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            if let Err(what) = self.frame(connection, id, row, &mut lookup)? {
                self.report.fault(format!("frame {id}: {what}"));
            }
            self.report.frames += 1;
            progress(self.report.frames, total as u64);
        }
        Ok(())
    }

    /// The outer result is the database's, the inner one the frame's.
    fn frame(
        &mut self,
        connection: &Connection,
        id: i64,
        row: &Row<'_>,
        lookup: &mut rusqlite::Statement<'_>,
    ) -> rusqlite::Result<Result<(), String>> {
        let blob = |index| row.get_ref(index).map(|value| value.as_blob_or_null().unwrap_or_default());
        let region = row.get_ref(7)?;
        let columns = RowSum {
            id,
            received_ms: row.get(1)?,
            source: blob(2)?.unwrap_or_default(),
            batch_seq: row.get(3)?,
            first_seq: row.get(4)?,
            count: row.get(5)?,
            ids: row.get(6)?,
            region: region.as_str_or_null().unwrap_or_default().unwrap_or_default(),
            annotation: blob(8)?,
            accepted: blob(9)?,
            ledger: match (row.get(12)?, row.get(13)?, row.get(14)?) {
                (Some(hop), Some(trust), Some(dropped)) => Some(LedgerColumns { hop, trust, dropped }),
                _ => None,
            },
        };
        let accepted = Accepted::from_column(columns.accepted);
        let count = u16::try_from(columns.count).unwrap_or(u16::MAX);
        let events = u64::from(accepted.count(count));
        let is_delivered = self.cursor.is_some_and(|cursor| id <= cursor);
        self.report.events += events;
        self.delivered += if is_delivered { events } else { 0 };
        if let Some(tombstone) = Tombstone::load(connection, id)? {
            let body = blob(11)?.unwrap_or_default();
            return self.tombstone(&tombstone, body, &columns, &accepted, lookup);
        }
        if row_sum(&columns) != row.get::<_, i64>(10)? {
            return Ok(Err("its row changed after it was written".into()));
        }
        let Some(body) = blob(11)? else { return Ok(Err("it has no body".into())) };
        let sealed = match self.body(body, &columns) {
            Ok(frame) => frame,
            Err(what) => return Ok(Err(what)),
        };
        let readable = match Readable::new(sealed, &self.secrets) {
            Ok(readable) => readable,
            // The key is not here; or another has its number: the frame was opened before it was stored, and its CRC holds.
            Err(CoreError::Sealed | CoreError::Seal) => return self.closed(&sealed, &columns, &accepted, lookup),
            Err(error) => return Ok(Err(error.to_string())),
        };
        let frame = readable.frame();
        if let Err(error) = frame.check() {
            return Ok(Err(error.to_string()));
        }
        self.report.sealed += u64::from(frame.sealed_to().is_some());
        if is_suppressed(&frame) {
            // Their numbers are noted, and nothing of them is stored.
            self.report.events -= events;
            self.report.suppressed += events;
            self.delivered -= if is_delivered { events } else { 0 };
        }
        let Ok(foreign) = foreign_of(&frame) else { return Ok(Err("its events cannot be read".into())) };
        if foreign.len() as i64 != columns.ids {
            return Ok(Err("its row says another number of ids".into()));
        }
        for (source, run) in runs(&frame, id, &accepted, &foreign) {
            if let Err(what) = self.run(source, run, lookup)? {
                return Ok(Err(what));
            }
        }
        Ok(Ok(()))
    }

    /// A frame whose region key is not here. It is the producer's, to the byte; what it says nobody can tell.
    fn closed(
        &mut self,
        frame: &Frame<'_>,
        columns: &RowSum<'_>,
        accepted: &Accepted,
        lookup: &mut rusqlite::Statement<'_>,
    ) -> rusqlite::Result<Result<(), String>> {
        let (header, id) = (frame.header(), frame.sealed_to().map_or(0, RegionKeyId::get));
        self.report.closed += 1;
        self.report.missing_keys.insert(format!("{id} of {}", header.region));
        if columns.ids > 0 {
            // Which of its events are known by another vendor's id is not known; `seen` is asked how many it has in all.
            self.noted += u64::from(accepted.count(header.count));
            return Ok(Ok(()));
        }
        for (source, run) in runs(frame, columns.id, accepted, &[]) {
            if let Err(what) = self.run(source, run, lookup)? {
                return Ok(Err(what));
            }
        }
        Ok(Ok(()))
    }

    /// A frame whose body was rewritten or removed: what is left of it, and that what it brought is still noted.
    fn tombstone(
        &mut self,
        tombstone: &Tombstone,
        body: &[u8],
        columns: &RowSum<'_>,
        accepted: &Accepted,
        lookup: &mut rusqlite::Statement<'_>,
    ) -> rusqlite::Result<Result<(), String>> {
        if !tombstone.is_intact(columns) {
            return Ok(Err("its row or what is kept of its events changed after it was written".into()));
        }
        let count = u16::try_from(columns.count).unwrap_or(u16::MAX);
        let left = accepted.count(count);
        self.report.redacted += u64::from(tombstone.has_erased());
        if body.is_empty() {
            self.report.removed += u64::from(left > 0);
            if self.cursor.is_some_and(|cursor| columns.id <= cursor) {
                self.gone += u64::from(left);
            }
        } else if let Err(what) = self.rest(body, columns) {
            return Ok(Err(what));
        }
        let source = SourceId::new(columns.source.try_into().unwrap_or_default());
        let mut brought = Accepted::none(count);
        let places = (0..count).filter(|&place| accepted.has(place.into()) || tombstone.is_erased(place.into()));
        let mut foreign = 0;
        for place in places {
            brought.add(place.into());
            foreign += u64::from(tombstone.is_foreign(place.into()));
        }
        // Which ids they had is not known any more; `seen` is asked how many it has in all.
        self.noted += foreign;
        for (first, last) in
            own_runs(columns.first_seq as u64, count, &brought, |place| tombstone.is_foreign(place.into()))
        {
            if let Err(what) = self.run(source, Run { first, last, frame: columns.id, digest: None }, lookup)? {
                return Ok(Err(what));
            }
        }
        Ok(Ok(()))
    }

    /// What is left of a body of which events were erased. It is signed by nobody.
    fn rest(&self, body: &[u8], columns: &RowSum<'_>) -> Result<(), String> {
        let say = |error: CoreError| error.to_string();
        let frame = Frame::parse(body).map_err(say)?;
        let header = frame.header();
        let same = header.tenant == self.tenant
            && header.source.as_bytes() == columns.source
            && header.batch_seq as i64 == columns.batch_seq
            && header.first_seq as i64 == columns.first_seq
            && i64::from(header.count) == columns.count;
        if !same {
            return Err("its header says another thing than its row".into());
        }
        if columns.annotation.is_none_or(|bytes| Noted::from_bytes(bytes).is_err()) {
            return Err("its annotation is missing or malformed".into());
        }
        frame.check().map(|_| ()).map_err(say)
    }

    /// A run that a frame brought must be noted; or be among those that gather still.
    fn run(
        &mut self,
        source: SourceId,
        run: Run,
        lookup: &mut rusqlite::Statement<'_>,
    ) -> rusqlite::Result<Result<(), String>> {
        let found = lookup
            .query_row(params![&source.as_bytes()[..], run.first as i64], |row| {
                Ok(Run {
                    first: run.first,
                    last: row.get::<_, i64>(0)? as u64,
                    frame: row.get(1)?,
                    digest: row.get(2)?,
                })
            })
            .optional()?;
        if found == Some(run) {
            self.noted += run.last - run.first + 1;
        } else if found.is_some() || run.frame <= self.settled {
            return Ok(Err(format!("its events {} to {} are not noted as seen", run.first, run.last)));
        } else {
            self.gathering.push((source, run.first, run.last));
        }
        Ok(Ok(()))
    }

    /// Lengths, CRC, signatures, columns.
    fn body<'b>(&mut self, body: &'b [u8], columns: &RowSum<'_>) -> Result<Frame<'b>, String> {
        let say = |error: CoreError| error.to_string();
        let outer = Frame::parse(body).map_err(say)?;
        if outer.header().tenant != self.tenant {
            return Err("it is another tenant's".into());
        }
        let (frame, hop) = if outer.header().flags.contains(Flags::ENVELOPE) {
            let envelope = self.envelope(&outer)?;
            self.report.envelopes += 1;
            (Frame::parse(envelope.frame).map_err(say)?, envelope.worker.get())
        } else if columns.annotation.is_some() {
            (outer, 0)
        } else {
            return Err("it has no annotation".into());
        };
        if columns.annotation.is_some_and(|bytes| Noted::from_bytes(bytes).is_err()) {
            return Err("its annotation is malformed".into());
        }
        let header = frame.header();
        let rewritten = frame.rewritten();
        let ledger = LedgerColumns {
            // What this server has written anew may have come in an envelope, which is not there any more.
            hop: match columns.ledger {
                Some(columns) if rewritten.is_some() && hop == 0 => columns.hop,
                _ => hop.into(),
            },
            trust: is_trusted(header, rewritten).into(),
            dropped: header.dropped.into(),
        };
        let same = header.tenant == self.tenant
            // A replay may have told less than the frame says, since the source's next frame had told it before.
            && columns.ledger.is_none_or(|columns| {
                columns.dropped <= ledger.dropped && LedgerColumns { dropped: ledger.dropped, ..columns } == ledger
            })
            && header.source.as_bytes() == columns.source
            && header.batch_seq as i64 == columns.batch_seq
            && header.first_seq as i64 == columns.first_seq
            && i64::from(header.count) == columns.count;
        if !same {
            return Err("its header says another thing than its row".into());
        }
        if header.flags.contains(Flags::TRUST) {
            let grant = frame.session().map_err(say)?;
            let root = self.keys.root(header.key_id).ok_or_else(|| no_root(header.key_id.get()))?;
            let lease = root.lease(&grant.scope(self.tenant, header.epoch));
            // Whether it came in time was decided then, by a clock that may have been wrong, or by a replay.
            lease.verify_session(&frame, grant.expires).map_err(say)?;
            self.report.signed += 1;
        } else if header.alg == Alg::None {
            self.report.unsigned += 1;
        } else {
            return Err("it is signed by nobody knows whom".into());
        }
        Ok(frame)
    }

    fn envelope<'b>(&self, outer: &Frame<'b>) -> Result<Envelope<'b>, String> {
        let say = |error: CoreError| format!("its envelope: {error}");
        let header = outer.header();
        let root = self.keys.root(header.key_id).ok_or_else(|| no_root(header.key_id.get()))?;
        let envelope = Envelope::open(outer).map_err(say)?;
        let scope =
            LeaseScope { tenant: self.tenant, region: header.region, worker: envelope.worker, epoch: header.epoch };
        let key = root.lease(&scope).envelope_key(header.alg).map_err(say)?;
        outer.verify(&key).map_err(say)?;
        Ok(envelope)
    }
}

fn no_root(id: u32) -> String {
    format!("root {id} is not in keys.toml, so its signature cannot be checked")
}

/// The runs that a frame brought: neighbours of its own source, and each event with another vendor's id.
fn runs(frame: &Frame<'_>, id: i64, accepted: &Accepted, foreign: &[Foreign]) -> Vec<(SourceId, Run)> {
    let header = frame.header();
    let is_foreign = |index| foreign.binary_search_by_key(&index, |event| event.index).is_ok();
    let own = own_runs(header.first_seq, header.count, accepted, is_foreign).into_iter();
    let own = own.map(|(first, last)| (header.source, Run { first, last, frame: id, digest: None }));
    let others = foreign.iter().filter(|event| accepted.has(event.index.into()));
    own.chain(others.map(|event| (event.source, Run { first: 0, last: 0, frame: id, digest: Some(event.digest) })))
        .collect()
}
