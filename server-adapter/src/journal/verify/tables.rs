//! The tables by themselves: their pages, what was seen, what was counted.

use firsthop_core::SourceId;
use rusqlite::Connection;

use super::Check;

impl Check<'_> {
    pub(super) fn structure(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare("PRAGMA quick_check(20)")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let says: String = row.get(0)?;
            if says != "ok" {
                self.report.fault(format!("journal: {says}"));
            }
        }
        Ok(())
    }

    /// No run shares an event with another, and the table holds none that no frame brought.
    pub(super) fn seen(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare("SELECT source, first, last FROM seen ORDER BY source, first")?;
        let mut rows = statement.query([])?;
        // Those that are not in the table yet, in its order: both are walked at once.
        let mut gathering = std::mem::take(&mut self.gathering);
        gathering.sort_unstable();
        let mut gathering = gathering.into_iter().peekable();
        let (mut previous, mut events) = (None::<(SourceId, u64)>, 0);
        loop {
            let row = rows.next()?;
            let run = match row {
                Some(row) => {
                    let (first, last): (i64, i64) = (row.get(1)?, row.get(2)?);
                    if first < 0 || last < first {
                        self.report.fault(format!("seen: a run from {first} to {last}"));
                        continue;
                    }
                    events += (last - first) as u64 + 1;
                    Some((SourceId::new(row.get(0)?), first as u64, last as u64))
                }
                None => None,
            };
            while let Some(before) = gathering.next_if(|before| run.is_none_or(|run| *before < run)) {
                self.follow(&mut previous, before);
            }
            match run {
                Some(run) => self.follow(&mut previous, run),
                None => break,
            }
        }
        if events != self.noted {
            let noted = self.noted;
            self.report.fault(format!("seen: {events} events are noted, and frames brought {noted} of them"));
        }
        Ok(())
    }

    fn follow(&mut self, previous: &mut Option<(SourceId, u64)>, (source, first, last): (SourceId, u64, u64)) {
        if previous.is_some_and(|(other, end)| other == source && first <= end) {
            self.report.fault(format!("seen: event {source}/{first} was stored twice"));
        }
        *previous = Some((source, last));
    }

    pub(super) fn counters(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let stored: i64 = connection.query_row(
            "SELECT COALESCE(SUM(events), 0) FROM counters WHERE outcome = 'stored'",
            [],
            |row| row.get(0),
        )?;
        if stored as u64 != self.report.events {
            let brought = self.report.events;
            self.report.fault(format!("counters: {stored} events stored, and the frames brought {brought}"));
        }
        Ok(())
    }
}
