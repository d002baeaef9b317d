//! `firsthop verify`

use std::{
    io::{IsTerminal, Write, stderr},
    time::{Duration, Instant},
};

use clap::Args;

use super::{Folder, out::Out};
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
        let tenants = if self.tenant.is_empty() {
            store.all()?
        } else {
            self.tenant.iter().map(|said| store.find(Some(said))).collect::<Result<Vec<_>, _>>()?
        };
        if tenants.is_empty() {
            return Err(Error::Tenant(format!("no tenants in {}", store.data().display())));
        }
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
        out.line(format_args!("{name}: no journal yet"))?;
        return Ok(0);
    }
    let began = Instant::now();
    let mut bar = Bar::new(name);
    let report = crate::verify(stored, |done, total| bar.show(done, total))?;
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

/// How far it is, on a terminal's standard error.
struct Bar<'a> {
    name: &'a str,
    shown: Option<Instant>,
    terminal: bool,
}

impl<'a> Bar<'a> {
    fn new(name: &'a str) -> Self {
        Self { name, shown: None, terminal: stderr().is_terminal() }
    }

    fn show(&mut self, done: u64, total: u64) {
        let due = self.shown.is_none_or(|shown| shown.elapsed() >= Duration::from_millis(100));
        if !self.terminal || !due {
            return;
        }
        self.shown = Some(Instant::now());
        const WIDTH: u64 = 40;
        let full = (done * WIDTH).checked_div(total).unwrap_or(WIDTH) as usize;
        let (name, rest) = (self.name, WIDTH as usize - full);
        // A bar that cannot be drawn is not worth an error.
        let _ = write!(stderr(), "\r\x1b[K{name} [{}{}] {done}/{total} frames", "#".repeat(full), " ".repeat(rest));
    }

    fn clear(&self) {
        if self.shown.is_some() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
