//! `firsthop verify`

use std::time::Instant;

use clap::Args;

use super::{
    Folder,
    out::{Bar, Out},
};
use crate::{Error, tenants::StoredTenant};

#[derive(Debug, Args)]
pub(super) struct Verify {
    #[command(flatten)]
    folder: Folder,
    /// Name or id of a tenant; repeat for more. Without any: all.
    #[arg(long, short)]
    tenant: Vec<String>,
}

impl Verify {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Error> {
        let store = self.folder.store()?;
        let tenants = store.chosen(&self.tenant)?;
        let mut faults = 0;
        for stored in &tenants {
            faults += check(stored, out)?;
        }
        if faults == 0 { Ok(()) } else { Err(Error::Fault(format!("{faults} faults"))) }
    }
}

fn check(stored: &StoredTenant, out: &mut Out) -> Result<u64, Error> {
    let name = &stored.tenant.name;
    if !stored.journal().exists() {
        // The table comes from a journal: where there is one, there was the other.
        if stored.events().exists() {
            out.line(format_args!("{name}: FAULT: there is an events table, and its journal is gone"))?;
            return Ok(1);
        }
        out.line(format_args!("{name}: no journal yet"))?;
        return Ok(0);
    }
    let began = Instant::now();
    let mut bar = Bar::new("frames");
    let report = crate::verify(stored, |done, total| bar.show(name, done, total))?;
    bar.clear();
    let crate::Report { frames, events, envelopes, signed, unsigned, quarantined, rows, .. } = report;
    out.line(format_args!(
        "{name}: {events} events in {frames} frames ({signed} signed by a session, {unsigned} unsigned; {envelopes} in an \
         edge's envelope), {quarantined} in quarantine, {rows} rows in the events table; {:.1} s",
        began.elapsed().as_secs_f64()
    ))?;
    for fault in &report.faults {
        out.line(format_args!("{name}: FAULT: {fault}"))?;
    }
    let untold = report.fault_count - report.faults.len() as u64;
    if untold > 0 {
        out.line(format_args!("{name}: and {untold} faults more"))?;
    }
    if report.fault_count == 0 {
        out.line(format_args!("{name}: all of it is as it was written"))?;
    }
    Ok(report.fault_count)
}
