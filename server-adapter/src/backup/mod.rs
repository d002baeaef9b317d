//! A copy of tenants while a server writes, and a data folder made of such a copy.
//!
//! ```text
//! BACKUP/
//!   manifest.json            what is in it: sizes, SHA-256, the last frame of each journal
//!   tenants/ID/journal.db    one snapshot, compact: what was acknowledged before it began is in it
//!   tenants/ID/tenant.toml
//!   tenants/ID/keys.toml     the root keys: a backup is as secret as the data folder
//!   tenants/ID/documents.json  what edges and pages were told, signed; if there is any
//!   tenants/ID/sinks.db      where sinks are, and what they refused; if there are such
//!   tenants/ID/schema.db     what `firsthop schema` shows
//!   tenants/ID/events.db     only if the journal could not make it again
//! ```
//!
//! It is made beside its place and renamed at the end, after everything is on disk: what has the name is whole.

mod make;
mod manifest;
mod restore;

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

pub use self::{
    make::{Made, back_up},
    restore::{Restored, restore},
};
use crate::{
    Error,
    tenants::{make_folder, sync_folder},
};

/// How far it is: what, bytes done, bytes in all.
pub type Progress<'a> = &'a mut dyn FnMut(&str, u64, u64);

/// A folder that is being made, beside the one that it becomes. What a run that was ended has left is removed by the next.
struct Partial {
    path: PathBuf,
    /// Held while it is being made.
    _lock: File,
    done: bool,
}

impl Partial {
    /// Begins one. Its name begins with a dot, so that nobody takes it for what it becomes.
    fn begin(path: PathBuf) -> Result<Self, Error> {
        make_folder(&path).map_err(Error::io(&path))?;
        let lock = File::open(&path).map_err(Error::io(&path))?;
        if lock.try_lock().is_err() {
            return Err(Error::Fault(format!("{}: another firsthop is at it", path.display())));
        }
        let empty = || -> std::io::Result<()> {
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    fs::remove_dir_all(entry.path())?;
                } else {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        empty().map_err(Error::io(&path))?;
        Ok(Self { path, _lock: lock, done: false })
    }

    /// Puts it in its place, durably.
    fn finish(mut self, place: &Path) -> Result<(), Error> {
        let rename = || -> std::io::Result<()> {
            sync_folder(&self.path)?;
            // Over an empty folder a rename succeeds, over one with something in it it does not.
            fs::rename(&self.path, place)?;
            sync_folder(parent(place))
        };
        rename().map_err(Error::io(place))?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.done {
            // Also where this fails, the next run tidies it up.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The folder that something stands in.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The name of a folder that is being made.
fn partial(place: &Path) -> Result<PathBuf, Error> {
    let name =
        place.file_name().ok_or_else(|| Error::Fault(format!("{}: not a name for a folder", place.display())))?;
    Ok(parent(place).join(format!(".{}.partial", name.to_string_lossy())))
}

fn create(path: &Path) -> std::io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

/// Copies a file, durably. Returns its size and SHA-256.
fn copy(from: &Path, to: &Path, told: &mut dyn FnMut(u64)) -> std::io::Result<(u64, String)> {
    let mut target = create(to)?;
    let sum = read_all(from, |bytes| {
        told(bytes.len() as u64);
        std::io::Write::write_all(&mut target, bytes)
    })?;
    target.sync_all()?;
    Ok(sum)
}

/// Reads a file in pieces. Returns its size and SHA-256, in hex.
fn read_all(path: &Path, mut each: impl FnMut(&[u8]) -> std::io::Result<()>) -> std::io::Result<(u64, String)> {
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 1 << 20]);
    let (mut size, mut hash) = (0, Sha256::new());
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            let sum = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            return Ok((size, sum));
        }
        size += count as u64;
        hash.update(&buffer[..count]);
        each(&buffer[..count])?;
    }
}
