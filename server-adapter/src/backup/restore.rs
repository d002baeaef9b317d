//! A data folder made of a backup.

use std::{
    fs::{self, File},
    path::Path,
};

use firsthop_core::TenantId;

use super::{
    Partial, Progress, copy,
    manifest::{Entry, Manifest},
};
use crate::{
    Error, clock,
    journal::{
        self,
        verify::{Report, verify},
    },
    sink,
    tenants::{Store, StoredTenant, make_folder, sync_folder},
};

/// What was put back of a tenant.
#[derive(Debug)]
#[non_exhaustive]
pub struct Restored {
    /// The tenant's name.
    pub name: String,
    /// What `firsthop verify` found in it. It is in its place only if that is nothing wrong.
    pub report: Option<Report>,
}

/// Puts tenants of a backup into a data folder that does not have them. `only`: those, by name or id; none: all.
///
/// Each is checked twice before it is in its place: its files against the manifest, and then as `firsthop verify` does. A server
/// that runs on the folder notices it within a second.
///
/// # Errors
/// [`Error::Fault`] if the backup is not whole or a tenant is there already; [`Error::Tenant`], [`Error::Io`],
/// [`Error::Database`].
pub fn restore(from: &Path, data: &Path, only: &[String], progress: Progress<'_>) -> Result<Vec<Restored>, Error> {
    let manifest = Manifest::read(from)?;
    let chosen = choose(&manifest, only)?;
    let store = Store::new(data);
    let _lock = store.lock()?;
    let there = store.all()?;
    // All of them before any: half a restore is nobody's wish.
    for entry in &chosen {
        let id = id(entry)?;
        if store.folder(id).exists() {
            return Err(Error::Fault(format!(
                "{}: tenant {:?} is there already, and nothing is written over; restore into a new data folder",
                store.folder(id).display(),
                entry.name
            )));
        }
        if there.iter().any(|stored| stored.tenant.name == entry.name) {
            return Err(Error::Fault(format!(
                "{}: another tenant is called {:?}; `firsthop tenant rename` one of them first",
                data.display(),
                entry.name
            )));
        }
    }
    chosen.into_iter().map(|entry| tenant(entry, from, &store, progress)).collect()
}

fn choose<'a>(manifest: &'a Manifest, only: &[String]) -> Result<Vec<&'a Entry>, Error> {
    if only.is_empty() {
        return Ok(manifest.tenants.iter().collect());
    }
    let find = |said: &String| {
        manifest.tenants.iter().find(|entry| entry.name == *said || entry.id == *said).ok_or_else(|| {
            let names: Vec<&str> = manifest.tenants.iter().map(|entry| entry.name.as_str()).collect();
            Error::Tenant(format!("no tenant {said:?} in the backup; there are: {}", names.join(", ")))
        })
    };
    only.iter().map(find).collect()
}

fn id(entry: &Entry) -> Result<TenantId, Error> {
    entry.id.parse().map_err(|_| Error::Fault(format!("manifest: {:?} is not a tenant's id", entry.id)))
}

fn tenant(entry: &Entry, from: &Path, store: &Store, progress: Progress<'_>) -> Result<Restored, Error> {
    let (id, place) = (id(entry)?, store.folder(id(entry)?));
    let tenants = store.data().join("tenants");
    make_folder(&tenants).map_err(Error::io(&tenants))?;
    let folder = Partial::begin(super::partial(&place)?)?;
    let total = entry.files.iter().map(|file| file.bytes).sum();
    let mut done = 0;
    for file in &entry.files {
        let source = from.join("tenants").join(&entry.id).join(&file.name);
        let (bytes, sha256) = copy(&source, &folder.path.join(&file.name), &mut |more| {
            done += more;
            progress(&entry.name, done, total);
        })
        .map_err(Error::io(&source))?;
        if (bytes, &sha256) != (file.bytes, &file.sha256) {
            return Err(Error::Fault(format!(
                "{}: is not what was backed up: {bytes} bytes with SHA-256 {sha256}, and the manifest says {} with {}",
                source.display(),
                file.bytes,
                file.sha256
            )));
        }
    }
    let mut stored = StoredTenant { folder: folder.path.clone(), ..store.load_from(&folder.path, id)? };
    let mut report = None;
    if stored.journal().exists() {
        // An older build's is brought up to this one's, in the copy.
        journal::bring_up(&stored.journal())?;
        sink::bring_up(&stored.events(), &stored.sinks())?;
        let name = format!("{}: verify", entry.name);
        let found = verify(&stored, |done, total| progress(&name, done, total))?;
        if found.fault_count > 0 {
            let first = found.faults.first().cloned().unwrap_or_default();
            return Err(Error::Fault(format!(
                "{:?}: {} faults in what was backed up, the first: {first}. Nothing was restored of it",
                entry.name, found.fault_count
            )));
        }
        for file in [stored.journal(), stored.events(), stored.sinks()].iter().filter(|file| file.exists()) {
            File::open(file).and_then(|file| file.sync_all()).map_err(Error::io(file))?;
        }
        report = Some(found);
    }
    stored.publish_again(clock::now())?;
    folder.finish(&place)?;
    sync_folder(&tenants).map_err(Error::io(&tenants))?;
    debug_assert!(fs::exists(place.join("tenant.toml")).is_ok_and(|there| there));
    Ok(Restored { name: entry.name.clone(), report })
}
