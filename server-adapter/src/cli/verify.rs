//! `firsthop verify`

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Args;
use firsthop_core::PublicKey;
use firsthop_intake::document::{Document, Signed};
use serde_json::Value;

use super::{
    Folder,
    out::{Bar, Out},
};
use crate::{
    Error, clock, ledger,
    tenants::{self, StoredTenant},
};

#[derive(Debug, Args)]
pub(super) struct Verify {
    #[command(flatten)]
    folder: Folder,
    /// Name or id of a tenant; repeat for more. Without any: all.
    #[arg(long, short)]
    tenant: Vec<String>,
    /// Only the ledger: the chain of its closed hours, their signatures, and the counts against them.
    #[arg(long, group = "part")]
    ledger: bool,
    /// Only this file: a signed document, as `firsthop region-key config --form signed` prints it or as it is published.
    #[arg(long, group = "part", value_name = "FILE")]
    document: Option<PathBuf>,
    /// The public key to check with, as `firsthop key ledger` or `firsthop key document` prints it. Without it: the tenant's own.
    #[arg(long, requires = "part")]
    public_key: Option<String>,
    /// Check the ledger in this journal file, of which nothing else is at hand.
    #[arg(long, requires = "ledger", requires = "public_key", conflicts_with = "tenant")]
    journal: Option<PathBuf>,
    /// An entry that must be there: its SHA-256, as an earlier check printed it. So a chain shows whose end was cut off.
    #[arg(long, requires = "ledger", value_parser = digest)]
    known: Option<String>,
}

impl Verify {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Error> {
        let public = self.public_key.as_deref().map(ledger::parse_key).transpose()?;
        if let (Some(journal), Some(public)) = (&self.journal, &public) {
            let name = journal.display().to_string();
            return self.ledger(&name, journal, public, out).and_then(ended);
        }
        let store = self.folder.store()?;
        if let Some(file) = &self.document {
            let own = || -> Result<PublicKey, Error> {
                if self.tenant.len() > 1 {
                    return Err(Error::tenant("a document is of one tenant: say --tenant once"));
                }
                let id = store.find(self.tenant.first().map(String::as_str))?.tenant.id;
                Ok(store.document_key(id)?.public())
            };
            return document(file, &public.map_or_else(own, Ok)?, out);
        }
        let tenants = store.chosen(&self.tenant)?;
        let mut faults = 0;
        for stored in &tenants {
            faults += if let Some(faults) = absent(stored, out)? {
                faults
            } else if self.ledger {
                let own = stored.keys.ledger.as_ref().map(tenants::SigningKey::public);
                let none = || {
                    Error::tenant(format!("{}: there is no ledger yet; `firsthop serve` begins it", stored.tenant.name))
                };
                let public = public.as_ref().or(own.as_ref()).ok_or_else(none)?;
                self.ledger(&stored.tenant.name, &stored.journal(), public, out)?
            } else {
                check(stored, out)?
            };
        }
        ended(faults)
    }

    fn ledger(&self, name: &str, journal: &Path, public: &PublicKey, out: &mut Out) -> Result<u64, Error> {
        let checked = ledger::check_ledger(journal, public, self.known.as_deref())?;
        for fault in &checked.faults {
            out.line(format_args!("{name}: FAULT: {fault}"))?;
        }
        if checked.entries == 0 {
            out.line(format_args!("{name}: no hour is closed yet"))?;
        } else {
            let ledger::Checked { entries, tenant, last_hour, head, .. } = &checked;
            out.line(format_args!("{name}: {entries} closed hours of tenant {tenant}, the last {last_hour}"))?;
            out.line(format_args!("{name}: the last entry is {head}: keep it, and give it as --known the next time"))?;
        }
        if checked.faults.is_empty() {
            out.line(format_args!("{name}: the chain is whole, signed, and says what the tables say"))?;
        }
        Ok(checked.faults.len() as u64)
    }
}

/// Checks a document with nothing but the public key, and says what it is.
fn document(file: &Path, public: &PublicKey, out: &mut Out) -> Result<(), Error> {
    let name = file.display();
    let fault = |what: &str| Error::Fault(format!("{name}: {what}"));
    let text = fs::read(file).map_err(Error::io(file))?;
    let signed: Signed =
        serde_json::from_slice(&text).map_err(|error| fault(&format!("no signed document: {error}")))?;
    let bytes = signed.signed_bytes().map_err(|unfit| fault(unfit.code()))?;
    if public.verify_message(&bytes, &signed.signature).is_err() {
        return Err(fault("not signed with this key, or changed since"));
    }
    let said: Document<Value> =
        serde_json::from_str(&signed.text).map_err(|error| fault(&format!("signed, but no document: {error}")))?;
    if said.kind.as_str() != signed.kind {
        return Err(fault("signed, but it says another kind inside than outside"));
    }
    let (kind, tenant, version, issued) = (signed.kind, said.tenant, said.version, clock::format(said.issued));
    out.line(format_args!("{name}: {kind} of tenant {tenant}, version {version}, signed {issued} with this key"))?;
    out.line(format_args!("{:#}", said.body))
}

/// A SHA-256 in hex, in small letters as it is printed.
fn digest(text: &str) -> Result<String, String> {
    let is_digest = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_digest
        .then(|| text.to_ascii_lowercase())
        .ok_or_else(|| "an entry is 64 hex digits, as an earlier check printed it".into())
}

fn ended(faults: u64) -> Result<(), Error> {
    if faults == 0 { Ok(()) } else { Err(Error::Fault(format!("{faults} faults"))) }
}

/// What to say of a tenant that has no journal: how many faults that is.
fn absent(stored: &StoredTenant, out: &mut Out) -> Result<Option<u64>, Error> {
    let name = &stored.tenant.name;
    if stored.journal().exists() {
        return Ok(None);
    }
    // The table comes from a journal: where there is one, there was the other.
    if stored.events().exists() {
        out.line(format_args!("{name}: FAULT: there is an events table, and its journal is gone"))?;
        return Ok(Some(1));
    }
    out.line(format_args!("{name}: no journal yet"))?;
    Ok(Some(0))
}

/// What is to be said of frames whose region keys are not here.
pub(super) fn closed(report: &crate::Report) -> Option<String> {
    let keys: Vec<&str> = report.missing_keys.iter().map(String::as_str).collect();
    (report.closed > 0).then(|| {
        format!(
            "{} frames are sealed to region keys that keys.toml does not have ({}), or has others in their places: they are whole outside, and what is in them was not checked. \
             Put these keys back into keys.toml, from a copy that has them; until then no sink gets these events",
            report.closed,
            keys.join(", ")
        )
    })
}

fn check(stored: &StoredTenant, out: &mut Out) -> Result<u64, Error> {
    let name = &stored.tenant.name;
    let began = Instant::now();
    let mut bar = Bar::new("frames");
    let report = crate::verify(stored, |done, total| bar.show(name, done, total))?;
    bar.clear();
    let crate::Report { frames, events, envelopes, signed, unsigned, quarantined, rows, closed_hours, .. } = report;
    out.line(format_args!(
        "{name}: {events} events in {frames} frames ({signed} signed by a session, {unsigned} unsigned; {envelopes} in an \
         edge's envelope), {quarantined} in quarantine, {rows} rows in the events table, {closed_hours} closed hours; {:.1} s",
        began.elapsed().as_secs_f64()
    ))?;
    if report.sealed > 0 {
        out.line(format_args!(
            "{name}: {} frames are sealed, and open with the region keys that are here",
            report.sealed
        ))?;
    }
    if let Some(said) = closed(&report) {
        out.line(format_args!("{name}: {said}"))?;
    }
    let (redacted, removed) = (report.redacted, report.removed);
    if redacted > 0 {
        out.line(format_args!(
            "{name}: events were erased from {redacted} frames, whose signatures cannot be checked any more"
        ))?;
    }
    if removed > 0 {
        out.line(format_args!("{name}: retention has removed the bodies of {removed} frames"))?;
    }
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
