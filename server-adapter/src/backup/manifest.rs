//! `manifest.json`: what a backup holds.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::Error;

pub(super) const NAME: &str = "manifest.json";
/// The arrangement of files that this build writes and reads.
const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) format: u32,
    /// The build that made it.
    pub(super) firsthop: String,
    /// When it began: what was acknowledged before is in it.
    pub(super) began: String,
    pub(super) tenants: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) name: String,
    /// The last frame of the journal; 0 if there is none.
    pub(super) last_frame: i64,
    /// The version of the journal's tables.
    pub(super) schema: i32,
    pub(super) files: Vec<Stored>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

impl Manifest {
    pub(super) fn new(began: String) -> Self {
        Self { format: FORMAT, firsthop: env!("CARGO_PKG_VERSION").into(), began, tenants: Vec::new() }
    }

    pub(super) fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(NAME);
        let text = fs::read(&path).map_err(|error| {
            let hint = if error.kind() == std::io::ErrorKind::NotFound { ", so this is no backup" } else { "" };
            Error::Fault(format!("{}: {error}{hint}", path.display()))
        })?;
        let manifest: Self =
            serde_json::from_slice(&text).map_err(|error| Error::Fault(format!("{}: {error}", path.display())))?;
        if manifest.format != FORMAT {
            return Err(Error::Fault(format!(
                "{}: format {}, made by firsthop {}; this build reads {FORMAT}",
                path.display(),
                manifest.format,
                manifest.firsthop
            )));
        }
        // They become paths.
        let plain =
            |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
        let names =
            |entry: &Entry| plain(&entry.id) && entry.files.iter().all(|file| plain(&file.name) && file.name != "..");
        if manifest.tenants.iter().all(names) {
            Ok(manifest)
        } else {
            Err(Error::Fault(format!("{}: names that are none of ours", path.display())))
        }
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(NAME);
        let write = || -> std::io::Result<()> {
            let mut file = super::create(&path)?;
            serde_json::to_writer_pretty(&mut file, self)?;
            std::io::Write::write_all(&mut file, b"\n")?;
            file.sync_all()
        };
        write().map_err(Error::io(&path))
    }
}
