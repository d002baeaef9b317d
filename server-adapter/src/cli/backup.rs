//! `firsthop backup` and `firsthop restore`

use std::path::PathBuf;

use clap::Args;

use super::{
    Folder,
    out::{Bar, Out},
    verify::closed,
};
use crate::{Error, backup};

#[derive(Debug, Args)]
pub(super) struct Backup {
    #[command(flatten)]
    folder: Folder,
    /// Where to: a folder that is not there yet.
    #[arg(long)]
    to: PathBuf,
    /// Name or id of a tenant; repeat for more. Without any: all.
    #[arg(long, short)]
    tenant: Vec<String>,
    /// The events tables too. Without it a server makes them again from the journals; where retention has removed what
    /// that would need, they are in it anyway.
    #[arg(long)]
    events: bool,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    #[command(flatten)]
    folder: Folder,
    /// The backup.
    #[arg(long)]
    from: PathBuf,
    /// Name or id of a tenant in it; repeat for more. Without any: all.
    #[arg(long, short)]
    tenant: Vec<String>,
}

impl Backup {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Error> {
        let store = self.folder.store()?;
        let tenants = store.chosen(&self.tenant)?;
        let mut bar = Bar::new("MiB");
        let made = backup::back_up(store.data(), &tenants, &self.to, self.events, &mut |what, done, total| {
            bar.show(what, done >> 20, total >> 20);
        })?;
        bar.clear();
        for tenant in made {
            let table = if tenant.events { ", with the events table" } else { "" };
            out.line(format_args!(
                "{}: {} bytes, frames up to {}{table}",
                tenant.name, tenant.bytes, tenant.last_frame
            ))?;
        }
        out.line(format_args!(
            "{} is a backup. It holds the root keys of these tenants: keep it as secret as the data folder.",
            self.to.display()
        ))
    }
}

impl Restore {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Error> {
        let store = self.folder.store()?;
        let mut bar = Bar::new("");
        let restored = backup::restore(&self.from, store.data(), &self.tenant, &mut |what, done, total| {
            bar.show(what, done, total);
        })?;
        bar.clear();
        for tenant in restored {
            match tenant.report {
                Some(report) => {
                    out.line(format_args!(
                        "{}: {} events in {} frames, all of it as it was written",
                        tenant.name, report.events, report.frames
                    ))?;
                    if let Some(said) = closed(&report) {
                        out.line(format_args!("{}: WARNING: {said}", tenant.name))?;
                    }
                }
                None => out.line(format_args!("{}: had no journal yet", tenant.name))?,
            }
        }
        out.line(format_args!("Restored into {}; `firsthop serve` goes on from there.", store.data().display()))
    }
}
