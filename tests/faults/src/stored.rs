//! What is stored, as it is read from the files: not by what the server says of it.

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

use firsthop_core::{Envelope, Flags, Frame, SourceId};
use rusqlite::{Connection, OpenFlags};

use crate::{
    Outcome,
    folder::{Folder, Tenant},
    load::{Log, sum},
    row::Figures,
};

/// How often each event stands in a journal.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    times: HashMap<SourceId, Vec<u8>>,
    /// The last frame that was read.
    last: i64,
    pub(crate) events: u64,
    pub(crate) twice: u64,
    /// Frames that are not what was sent.
    pub(crate) altered: Vec<String>,
}

impl Stored {
    /// Reads what has come since the last time.
    pub(crate) fn read(&mut self, tenant: &Tenant, log: &Log) -> Outcome<()> {
        let connection = open(tenant, "journal.db")?;
        let mut statement =
            connection.prepare("SELECT id, count, accepted, body FROM frames WHERE id > ?1 ORDER BY id")?;
        let mut rows = statement.query([self.last])?;
        while let Some(row) = rows.next()? {
            let (id, count): (i64, u32) = (row.get(0)?, row.get(1)?);
            let (accepted, body): (Option<Vec<u8>>, Vec<u8>) = (row.get(2)?, row.get(3)?);
            self.last = id;
            let (source, batch, first, bytes) = producers(&body).map_err(|error| format!("frame {id}: {error}"))?;
            match log.frames().get(&(source, batch)) {
                Some(sent) if sent.sum != sum(bytes) || sent.count != count || sent.first != first => {
                    self.altered.push(format!("frame {id} of {source}, batch {batch}"));
                }
                _ => {}
            }
            let times = self.times.entry(source).or_default();
            for index in 0..count as usize {
                let is_new =
                    accepted.as_ref().is_none_or(|bits| bits.get(index / 8).is_some_and(|b| b >> (index % 8) & 1 == 1));
                if is_new {
                    let seq = first as usize + index;
                    if times.len() <= seq {
                        times.resize(seq + 1, 0);
                    }
                    self.twice += u64::from(times[seq] > 0);
                    times[seq] = times[seq].saturating_add(1);
                    self.events += 1;
                }
            }
        }
        Ok(())
    }

    /// Of these events, those that are not there.
    pub(crate) fn missing(&self, acknowledged: &[(SourceId, u64, u32)]) -> u64 {
        let missing = |(source, first, count): &(SourceId, u64, u32)| {
            let times = self.times.get(source);
            let has = |seq: &u64| times.and_then(|times| times.get(*seq as usize)).is_some_and(|&times| times > 0);
            (*first..*first + u64::from(*count)).filter(|seq| !has(seq)).count() as u64
        };
        acknowledged.iter().map(missing).sum()
    }
}

/// Source, batch number, first number and bytes of the producer's frame.
fn producers(body: &[u8]) -> Outcome<(SourceId, u64, u64, &[u8])> {
    let outer = Frame::parse(body)?;
    let (frame, bytes) = if outer.header().flags.contains(Flags::ENVELOPE) {
        let bytes = Envelope::open(&outer)?.frame;
        (Frame::parse(bytes)?, bytes)
    } else {
        (outer, body)
    };
    let header = frame.header();
    Ok((header.source, header.batch_seq, header.first_seq, bytes))
}

pub(crate) fn open(tenant: &Tenant, name: &str) -> Outcome<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(tenant.folder.join(name), flags)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    Ok(connection)
}

pub(crate) fn figure(tenant: &Tenant, name: &str, sql: &str) -> Outcome<i64> {
    Ok(open(tenant, name)?.query_row(sql, [], |row| row.get(0))?)
}

/// What the producers know against what is in the files of a tenant whose server runs: journal and events table. Then, if the row is
/// over, the server's own check.
pub(crate) fn judge(tenant: &Tenant, log: &Log) -> Outcome<Figures> {
    let acknowledged = log.acknowledged();
    let mut stored = Stored::default();
    stored.read(tenant, log)?;
    if let Some(first) = stored.altered.first() {
        return Err(format!("{} frames are not what was sent: {first}", stored.altered.len()).into());
    }
    let totals = log.totals();
    settle(tenant, stored.events)?;
    let lost = stored.missing(&acknowledged).max(table(tenant, &acknowledged)?);
    Ok(Figures {
        sent: totals.sent,
        acked: totals.acked,
        stored: stored.events,
        refused: totals.refused,
        duplicates: totals.duplicates,
        lost,
        twice: stored.twice,
        ..Figures::default()
    })
}

/// Waits for the events table to have as many rows as the journal has events.
pub(crate) fn settle(tenant: &Tenant, events: u64) -> Outcome<()> {
    let due = Instant::now() + Duration::from_secs(60);
    loop {
        let rows = figure(tenant, "events.db", "SELECT COUNT(*) FROM events")?;
        if rows as u64 == events {
            return Ok(());
        }
        if Instant::now() > due {
            return Err(format!("the events table has {rows} rows, and the journal {events} events").into());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Looks at each row of the events table. Returns how many of these events are not there.
pub(crate) fn table(tenant: &Tenant, acknowledged: &[(SourceId, u64, u32)]) -> Outcome<u64> {
    let wrong = figure(
        tenant,
        "events.db",
        "SELECT COUNT(*) FROM events WHERE vendor IS NULL AND properties ->> 'n' IS NOT seq",
    )?;
    if wrong > 0 {
        return Err(format!("{wrong} rows of the events table do not say what was sent").into());
    }
    let connection = open(tenant, "events.db")?;
    let mut statement = connection.prepare("SELECT source, seq FROM events")?;
    let mut rows = statement.query([])?;
    let mut there: HashMap<String, Vec<u64>> = HashMap::new();
    while let Some(row) = rows.next()? {
        there.entry(row.get(0)?).or_default().push(row.get::<_, i64>(1)? as u64);
    }
    there.values_mut().for_each(|seqs| seqs.sort_unstable());
    let missing = acknowledged.iter().map(|(source, first, count)| {
        let seqs = there.get(&source.to_string()).map_or(&[][..], Vec::as_slice);
        let from = seqs.partition_point(|seq| seq < first);
        let to = seqs.partition_point(|seq| *seq < first + u64::from(*count));
        u64::from(*count).saturating_sub((to - from) as u64)
    });
    Ok(missing.sum())
}

/// `firsthop verify`: it must find nothing wrong.
pub(crate) fn verify(folder: &Folder) -> Outcome<()> {
    folder.ok(&["verify"]).map(drop)
}

/// After a power cut: a server starts on what it left, everything that was acknowledged is there once, and what is open can be sent. `round`
/// is for the message.
pub(crate) fn after_cut(folder: &Folder, tenant: &Tenant, log: &Log, round: u32) -> Outcome<()> {
    let acknowledged = log.acknowledged();
    let server = folder.serve()?;
    let mut stored = Stored::default();
    stored.read(tenant, log)?;
    let missing = stored.missing(&acknowledged);
    if missing + stored.twice > 0 {
        return Err(format!("after power cut {round}: {missing} missing, {} twice", stored.twice).into());
    }
    log.send_open(folder.public)?;
    server.stop()?;
    balanced(folder)
}

/// The server's own word at the end of a row: everything is as it was written, the ledger's chain holds, and every event that was issued has
/// its outcome, with nothing left in flight.
pub(crate) fn balanced(folder: &Folder) -> Outcome<()> {
    verify(folder)?;
    folder.ok(&["verify", "--ledger"])?;
    for entry in std::fs::read_dir(folder.data.join("tenants"))? {
        let tenant = entry?.file_name().to_string_lossy().into_owned();
        folder.ok(&["reconcile", "--tenant", &tenant, "--grace", "0s"])?;
    }
    Ok(())
}
