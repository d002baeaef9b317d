//! A file with an event a line, put aside when it is large or old; or standard output.
//!
//! ```text
//! shop.ndjson              what is being written: whole lines up to the mark, then perhaps the rest of a write that was cut off
//! shop-00000001.ndjson     put aside: complete, never touched again
//! ```
//!
//! The mark (number of the file, and how much of it is confirmed) is saved with the cursor after the file is synced. What stands beyond
//! it at the start was never confirmed and comes again from the journal, so it is cut off: nothing is lost, nothing is there twice, no
//! line is torn. But where the data folder was put back from a backup and the file was not, the mark is older than the lines, and the
//! journal may not have them: so what is cut off at a start is copied to `shop.ndjson.cut-00000001` before. Such a copy stays for a month,
//! and a person who is erased is erased from it.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{
    Delivery, Failure, Sink,
    batch::{Batch, Limits},
    row::Buffers,
    spec::NdjsonSpec,
};
use crate::{
    Error,
    journal::{Subject, names_escaped},
    tenants::make_folder,
};

const LIMITS: Limits = Limits { events: 4096, bytes: 2 << 20 };
/// How long what was cut off is kept: whoever has put back a backup has noticed by then.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Opens what the settings name, as it was at the mark. `again`: what is beyond that was written since the server began.
pub(super) fn open(spec: &NdjsonSpec, folder: &Path, mark: &str, again: bool) -> Result<Box<dyn Sink>, Failure> {
    let Some(path) = path(spec, folder) else {
        return Ok(Box::new(Stdout { buffers: Buffers::default(), lines: Vec::new() }));
    };
    Ok(Box::new(Lines::open(path, spec, mark, again)?))
}

/// The file that the settings name. None: standard output.
fn path(spec: &NdjsonSpec, folder: &Path) -> Option<PathBuf> {
    match &spec.path {
        Some(path) if path == Path::new("-") => None,
        Some(path) => Some(folder.join(path)),
        None => Some(folder.join(format!("{}.ndjson", spec.name))),
    }
}

/// A file of lines.
#[derive(Debug)]
struct Lines {
    path: PathBuf,
    file: File,
    mark: Mark,
    most_bytes: u64,
    most_age: Duration,
    buffers: Buffers,
    lines: Vec<u8>,
}

/// Which file is being written, and how much of it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    number: u64,
    length: u64,
    /// When the file was begun, in seconds since 1970.
    begun: u64,
}

impl Mark {
    fn parse(text: &str, path: &Path) -> Option<Self> {
        let mut parts = text.splitn(4, ' ');
        let mut number = || parts.next()?.parse().ok();
        let mark = Self { number: number()?, length: number()?, begun: number()? };
        // Another file is nothing that the mark knows of.
        (parts.next()? == path.to_string_lossy()).then_some(mark)
    }

    fn text(&self, path: &Path) -> String {
        format!("{} {} {} {}", self.number, self.length, self.begun, path.to_string_lossy())
    }

    fn begin(number: u64) -> Self {
        Self { number, length: 0, begun: now() }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Lines {
    fn open(path: PathBuf, spec: &NdjsonSpec, mark: &str, again: bool) -> Result<Self, Failure> {
        let say = |error: io::Error| Failure::new(format!("{}: {error}", path.display()));
        let folder = path.parent().unwrap_or(Path::new("."));
        make_folder(folder).map_err(say)?;
        let mut known = Mark::parse(mark, &path);
        if let Some(mark) = &mut known
            && aside(&path, mark.number).exists()
        {
            // It was put aside, and the server ended before it could be noted.
            *mark = Mark::begin(free_number(&path, mark.number));
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(say)?;
        if file.try_lock().is_err() {
            return Err(Failure::new(format!("{}: another sink writes to this file", path.display())));
        }
        let length = file.metadata().map_err(say)?.len();
        let mark = match known {
            Some(mark) if mark.length <= length => mark,
            Some(mark) => {
                tracing::warn!(
                    path = %path.display(), length, known = mark.length,
                    "the file is shorter than what was written to it: taken away, or cut; what it has now stays, in whole lines"
                );
                Mark { length: whole_lines(&path, length).map_err(say)?, ..mark }
            }
            // Somebody else's lines, or ours of before: they stay.
            None => Mark {
                number: next_number(&path).map_err(say)?,
                length: whole_lines(&path, length).map_err(say)?,
                begun: now(),
            },
        };
        if mark.length < length && !again {
            let copy = keep_tail(&path, mark.length).map_err(say)?;
            tracing::warn!(
                path = %path.display(), copy = %copy.display(), bytes = length - mark.length,
                "the file has more than is confirmed: cut off, and kept beside it. After a crash it comes again from the journal; \
                 after a restore of an older backup it may be events that the journal has no more"
            );
        }
        forget_old_tails(&path).map_err(say)?;
        file.set_len(mark.length).map_err(say)?;
        file.seek(SeekFrom::End(0)).map_err(say)?;
        sync_folder(folder).map_err(say)?;
        let mut lines = Self {
            path: path.clone(),
            file,
            mark,
            most_bytes: spec.rotate_bytes.0,
            most_age: spec.rotate_after.0,
            buffers: Buffers::default(),
            lines: Vec::new(),
        };
        lines.rotate_if_due().map_err(say)?;
        Ok(lines)
    }

    /// Puts a file that is synced and confirmed aside, and begins the next.
    fn rotate_if_due(&mut self) -> io::Result<()> {
        let age = Duration::from_secs(now().saturating_sub(self.mark.begun));
        if self.mark.length == 0 || (self.mark.length < self.most_bytes && age < self.most_age) {
            return Ok(());
        }
        // Another file of this name is somebody's.
        self.mark.number = free_number(&self.path, self.mark.number);
        fs::rename(&self.path, aside(&self.path, self.mark.number))?;
        self.file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&self.path)?;
        self.file.try_lock()?;
        sync_folder(self.path.parent().unwrap_or(Path::new(".")))?;
        self.mark = Mark::begin(self.mark.number + 1);
        Ok(())
    }

    fn write(&mut self, batch: &Batch) -> io::Result<()> {
        // Before what is new: all that the file has is confirmed by now.
        self.rotate_if_due()?;
        self.lines.clear();
        let Self { lines, buffers, .. } = self;
        let Ok(()) = batch.each(buffers, |_, row| {
            row.write_json(lines);
            lines.push(b'\n');
            Ok::<(), std::convert::Infallible>(())
        });
        self.file.write_all(&self.lines)?;
        self.mark.length += self.lines.len() as u64;
        Ok(())
    }
}

impl Sink for Lines {
    fn limits(&self) -> Limits {
        LIMITS
    }

    fn deliver(&mut self, batch: &Batch) -> Delivery {
        match self.write(batch) {
            Ok(()) => Delivery { done: batch.len(), ..Delivery::default() },
            Err(error) => {
                let failure = Failure::new(format!("{}: {error}", self.path.display()));
                Delivery { failed: Some(failure), ..Delivery::default() }
            }
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.file.sync_data().map_err(|error| Failure::new(format!("{}: {error}", self.path.display())))
    }

    fn mark(&self) -> String {
        self.mark.text(&self.path)
    }
}

/// `shop.ndjson` as `shop-00000001.ndjson`.
fn aside(path: &Path, number: u64) -> PathBuf {
    let mut name = OsString::from(path.file_stem().unwrap_or_default());
    name.push(format!("-{number:08}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// The first number from this one on under which nothing is put aside.
fn free_number(path: &Path, from: u64) -> u64 {
    (from..).find(|&number| !fs::exists(aside(path, number)).unwrap_or(false)).unwrap_or(from)
}

/// What was cut off the first time, the second time …
fn tail_name(path: &Path, number: u64) -> OsString {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".cut-{number:08}"));
    name
}

/// What was cut off and is kept beside this file.
fn tails(path: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut tails = Vec::new();
    for entry in entries {
        let found = entry?.path();
        let number = found.extension().and_then(|name| name.to_str()?.strip_prefix("cut-")?.parse().ok());
        if number.is_some_and(|number| found.as_os_str() == tail_name(path, number)) {
            tails.push(found);
        }
    }
    Ok(tails)
}

/// Removes what was cut off long ago.
fn forget_old_tails(path: &Path) -> io::Result<()> {
    for tail in tails(path)? {
        // A clock that was set back makes nothing old.
        if fs::metadata(&tail)?.modified()?.elapsed().is_ok_and(|age| age > KEPT) {
            fs::remove_file(&tail)?;
            tracing::info!(path = %tail.display(), "what was cut off a month ago is removed");
        }
    }
    Ok(())
}

/// Erases a person from what was cut off and is kept: each line that has one of the ids, whatever it says of it, is made blank where it
/// stands.
pub(crate) fn erase_tails(spec: &NdjsonSpec, folder: &Path, subject: &Subject) -> Result<(), Error> {
    let Some(path) = path(spec, folder) else { return Ok(()) };
    tails(&path).map_err(Error::io(&path))?.iter().try_for_each(|tail| blank(tail, subject).map_err(Error::io(tail)))
}

fn blank(tail: &Path, subject: &Subject) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(tail)?;
    let (mut lines, mut line, mut at) = (BufReader::new(&file), Vec::new(), 0_u64);
    while lines.read_until(b'\n', &mut line)? > 0 {
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if names_escaped(subject, text) {
            file.write_all_at(&vec![b' '; text.len()], at)?;
        }
        at += line.len() as u64;
        line.clear();
    }
    file.sync_all()
}

/// Copies what the file has from there on to a new file beside it.
fn keep_tail(path: &Path, from: u64) -> io::Result<PathBuf> {
    let mut tail = File::open(path)?;
    tail.seek(SeekFrom::Start(from))?;
    for number in 1_u64.. {
        let name = tail_name(path, number);
        let mut copy = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            copy => copy?,
        };
        if let Err(error) = io::copy(&mut tail, &mut copy).and_then(|_| copy.sync_all()) {
            // Half of it would be one more file at each attempt.
            let _ = fs::remove_file(&name);
            return Err(error);
        }
        return Ok(name.into());
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// A number that no file beside this one has.
fn next_number(path: &Path) -> io::Result<u64> {
    let (stem, folder) =
        (path.file_stem().unwrap_or_default().to_string_lossy(), path.parent().unwrap_or(Path::new(".")));
    let mut next = 1;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = Path::new(&name).file_stem().and_then(|name| {
            let digits = name.to_str()?.strip_prefix(&*stem)?.strip_prefix('-')?;
            (digits.len() == 8).then(|| digits.parse::<u64>().ok())?
        });
        next = next.max(number.map_or(0, |number| number + 1));
    }
    Ok(next)
}

/// How much of a file is whole lines.
fn whole_lines(path: &Path, length: u64) -> io::Result<u64> {
    let file = File::open(path)?;
    let mut end = length;
    let mut part = [0; 4096];
    while end > 0 {
        let from = end.saturating_sub(part.len() as u64);
        let part = &mut part[..(end - from) as usize];
        file.read_exact_at(part, from)?;
        if let Some(at) = part.iter().rposition(|&byte| byte == b'\n') {
            return Ok(from + at as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Standard output: for a collector that reads what a container prints. Nobody confirms anything there, so after a crash lines may
/// come again.
#[derive(Debug)]
struct Stdout {
    buffers: Buffers,
    lines: Vec<u8>,
}

impl Sink for Stdout {
    fn limits(&self) -> Limits {
        LIMITS
    }

    fn deliver(&mut self, batch: &Batch) -> Delivery {
        self.lines.clear();
        let lines = &mut self.lines;
        let Ok(()) = batch.each(&mut self.buffers, |_, row| {
            row.write_json(lines);
            lines.push(b'\n');
            Ok::<(), std::convert::Infallible>(())
        });
        // In one piece: another tenant's lines go there too.
        let mut out = io::stdout().lock();
        match out.write_all(&self.lines).and_then(|()| out.flush()) {
            Ok(()) => Delivery { done: batch.len(), ..Delivery::default() },
            Err(error) => {
                Delivery { failed: Some(Failure::new(format!("standard output: {error}"))), ..Delivery::default() }
            }
        }
    }
}
