//! A power cut: what was written and not synced is there, or not, or in part.
//!
//! A kill leaves everything in the kernel's memory, so a server that never syncs would survive it. Here the files are put into a state that a
//! disk could have kept: from the record of all writes, those are taken back that no sync has followed; a random part of them, by sectors,
//! stays. Writes before a sync that *failed* are gone for good, as on Linux, where the kernel drops such pages and calls the next sync a
//! success.

use std::{
    collections::HashMap,
    fs::{self, File},
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use crate::{Outcome, random::Random, shim::Shim};

/// What a power cut took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cut {
    /// Writes that no sync had followed.
    pub(crate) unsynced: u64,
    /// Of those and of those before a failed sync: gone, wholly or in part.
    pub(crate) lost: u64,
}

const WRITE: i64 = 1;
const TRUNCATE: i64 = 2;
const SYNC: i64 = 3;
const SYNC_FAILED: i64 = 4;
const UNLINK: i64 = 5;
const HEAD: usize = 48;
const SECTOR: usize = 512;

struct Entry {
    at: usize,
    kind: i64,
    offset: u64,
    /// How long the file was.
    size: u64,
    before: Range<usize>,
    data: Range<usize>,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Pending,
    Kept,
    Lost,
}

impl Shim {
    /// Plays it: the server has been killed. Without `luck` nothing stays that was not synced. The record begins anew.
    pub(crate) fn cut_power(&self, data: &Path, mut luck: Option<&mut Random>) -> Outcome<Cut> {
        let record = self.record.as_ref().ok_or("the shim has kept no record")?;
        let bytes = fs::read(record)?;
        let mut files = HashMap::new();
        find(data, &mut files)?;
        let mut entries: HashMap<u64, Vec<Entry>> = HashMap::new();
        let mut at = 0;
        while let Some(head) = bytes.get(at..at + HEAD) {
            let field = |i: usize| -> Outcome<i64> { Ok(i64::from_ne_bytes(head[i * 8..i * 8 + 8].try_into()?)) };
            let (kind, inode, offset) = (field(0)?, field(1)? as u64, field(2)? as u64);
            let (length, before, size) = (field(3)? as usize, field(4)? as usize, field(5)? as u64);
            let start = at + HEAD;
            if start + before + length > bytes.len() {
                // Torn by the kill: the write did not happen.
                break;
            }
            let of_file = entries.entry(inode).or_default();
            match kind {
                SYNC | SYNC_FAILED => {
                    let fate = if kind == SYNC { Fate::Kept } else { Fate::Lost };
                    let covered = of_file.iter_mut().filter(|entry| (entry.at as u64) < offset);
                    covered.filter(|entry| entry.fate == Fate::Pending).for_each(|entry| entry.fate = fate);
                }
                UNLINK => of_file.clear(),
                _ => {
                    let (before, data) = (start..start + before, start + before..start + before + length);
                    of_file.push(Entry { at, kind, offset, size, before, data, fate: Fate::Pending });
                }
            }
            at = start + before + length;
        }
        let mut cut = Cut::default();
        // In the order of their names: the seed shall repeat it.
        let mut files: Vec<_> =
            files.into_iter().filter_map(|(inode, path)| Some((path, entries.remove(&inode)?))).collect();
        files.sort_by(|a, b| a.0.cmp(&b.0));
        for (path, entries) in files {
            take_back(&path, &bytes, &entries, luck.as_deref_mut(), &mut cut)?;
        }
        fs::remove_file(record)?;
        Ok(cut)
    }
}

fn take_back(path: &Path, bytes: &[u8], entries: &[Entry], luck: Option<&mut Random>, cut: &mut Cut) -> Outcome<()> {
    let Some(from) = entries.iter().position(|entry| entry.fate != Fate::Kept) else { return Ok(()) };
    let file = File::options().read(true).write(true).open(path)?;
    for entry in entries[from..].iter().rev() {
        file.write_all_at(&bytes[entry.before.clone()], entry.offset)?;
        file.set_len(entry.size)?;
    }
    // Of this file's pending writes nothing is left, or all, or some, or some sectors.
    let mut none = Random::new(0);
    let (luck, random) = luck.map_or((0, &mut none), |random| (random.below(4), random));
    for entry in &entries[from..] {
        cut.unsynced += u64::from(entry.fate == Fate::Pending);
        let whole = match entry.fate {
            Fate::Kept => true,
            Fate::Lost => false,
            Fate::Pending => match luck {
                0 => false,
                1 => true,
                _ => random.below(2) == 0,
            },
        };
        let torn = !whole && entry.fate == Fate::Pending && luck == 3;
        cut.lost += u64::from(!whole);
        let data = &bytes[entry.data.clone()];
        match entry.kind {
            WRITE if whole => file.write_all_at(data, entry.offset)?,
            WRITE if torn => {
                for (i, sector) in data.chunks(SECTOR).enumerate().filter(|_| random.below(2) == 0) {
                    file.write_all_at(sector, entry.offset + (i * SECTOR) as u64)?;
                }
            }
            TRUNCATE if whole => file.set_len(entry.offset)?,
            _ => {}
        }
    }
    Ok(())
}

/// The files in a folder, by their numbers.
fn find(folder: &Path, files: &mut HashMap<u64, PathBuf>) -> Outcome<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_dir() {
            find(&entry.path(), files)?;
        } else if meta.is_file() {
            files.insert(meta.ino(), entry.path());
        }
    }
    Ok(())
}
