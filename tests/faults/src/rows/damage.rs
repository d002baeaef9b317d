//! Files that were damaged or cut while no server had them: what is whole is used, what is not is said.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags};

use crate::{
    Outcome,
    folder::{Folder, Tenant},
    load::{Log, deliver},
    producer::Producer,
    row::{Bench, Figures, Row},
    stored::{Stored, judge, verify},
};

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "tail",
        what: "After a kill, the write-ahead log is cut at every byte of its last transactions (short: at some), and bits in it are flipped. What is left is whole \
               transactions from the front, `verify` reports what is missing of what the events table had, and a server starts on it, says so, and takes events: all that is left is there once. Lost is what is gone and not reported; stored is of before the cuts.",
        limit: 600,
        run: tail,
    },
    Row {
        name: "damage",
        what: "After a stop, bits of the journal's file are flipped, pages zeroed, its end cut off, the file emptied or removed. `verify` reports it, unless all that can be \
               read is as it was; a server refuses or starts, and does not panic. Each damage is done to a new copy: the columns are of the whole one.",
        limit: 240,
        run: damage,
    },
];

/// A folder with events in its journal, and the path of that.
struct Made {
    folder: Folder,
    tenant: Tenant,
    log: Log,
    figures: Figures,
}

/// Frames one by one, so that each is a transaction.
fn make(bench: &mut Bench, frames: u32, is_killed: bool) -> Outcome<Made> {
    let (folder, log) = (bench.folder()?, Log::default());
    let tenant = folder.tenant("shop", &[])?;
    let server = folder.serve()?;
    let (mut client, mut producer) = (folder.client(), Producer::new(&tenant, &mut bench.random));
    for count in (1..=5).cycle().take(frames as usize) {
        let made = producer.frame(count)?;
        deliver(&mut client, &made, &log, &|| false)?;
    }
    let figures = judge(&tenant, &log)?;
    if is_killed {
        server.kill()?
    } else {
        server.stop()?
    }
    Ok(Made { folder, tenant, log, figures })
}

/// What a journal holds: every frame with its body, in order. The files stay as they are.
fn contents(journal: &Path) -> rusqlite::Result<Vec<(i64, Vec<u8>)>> {
    let connection = Connection::open_with_flags(journal, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut statement = connection.prepare("SELECT id, body FROM frames ORDER BY id")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// All rows of all tables, also by their indices, as text.
fn dump(journal: &Path) -> rusqlite::Result<String> {
    let connection = Connection::open(journal)?;
    let mut statement = connection.prepare("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")?;
    let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut text = String::new();
    for name in names.iter().filter(|name| !name.starts_with("sqlite_")) {
        let mut statement = connection.prepare(&format!("SELECT * FROM {name}"))?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            text.push_str(name);
            for column in 0..columns {
                text.push_str(&format!(" {:?}", row.get_ref(column)?));
            }
            text.push('\n');
        }
    }
    Ok(text)
}

/// The files of a journal, to be put back again and again.
struct Copy {
    of: PathBuf,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Copy {
    fn of(tenant: &Tenant) -> Outcome<Self> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&tenant.folder)? {
            let path = entry?.path();
            // What is shared between processes is made anew from the log.
            if !path.extension().is_some_and(|ending| ending.to_string_lossy().ends_with("-shm")) && path.is_file() {
                files.push((path.clone(), fs::read(&path)?));
            }
        }
        Ok(Self { of: tenant.folder.clone(), files })
    }

    fn put_back(&self) -> Outcome<()> {
        for entry in fs::read_dir(&self.of)? {
            let path = entry?.path();
            if path.is_file() {
                fs::remove_file(path)?;
            }
        }
        self.files.iter().try_for_each(|(path, bytes)| Ok(fs::write(path, bytes)?))
    }

    /// The journal and its log, put into another folder.
    fn put_journal(&self, to: &Path) -> Outcome<PathBuf> {
        for (path, bytes) in &self.files {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("journal.db") {
                fs::write(to.join(&name), bytes)?;
            }
        }
        Ok(to.join("journal.db"))
    }

    fn log(&self) -> Outcome<&(PathBuf, Vec<u8>)> {
        let log = self.files.iter().find(|(path, _)| path.ends_with("journal.db-wal"));
        Ok(log.ok_or("there is no write-ahead log to damage")?)
    }
}

/// Starts a server on a damaged folder: it refuses and says why, or takes a new frame, and says what it must, if there is something. True: it
/// started.
fn starts(folder: &Folder, tenant: &Tenant, must_say: Option<&str>, bench: &mut Bench) -> Outcome<bool> {
    let before = folder.log().len();
    let started = folder.serve();
    let log = folder.log();
    let said = log.get(before..).unwrap_or(&log);
    if said.contains("panicked") {
        return Err(format!("it panicked: {said}").into());
    }
    let server = match started {
        Ok(server) => server,
        Err(_) if said.contains("firsthop:") => return Ok(false),
        Err(error) => return Err(error),
    };
    let made = Producer::new(tenant, &mut bench.random).frame(3)?;
    let answer = folder.client().post("/v1/f", &made.bytes)?;
    match answer.receipt() {
        Some(receipt) if receipt.stored == 3 => {}
        _ if answer.status == 503 => {}
        _ => return Err(format!("it answers {}: {}", answer.status, answer.text()).into()),
    }
    // A sink says it, which begins when the server is ready.
    let due = Instant::now() + Duration::from_secs(10);
    while must_say.is_some_and(|text| !folder.log().get(before..).unwrap_or_default().contains(text)) {
        if Instant::now() > due {
            return Err("the server says nothing of what is gone".into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    server.kill()?;
    Ok(true)
}

fn tail(bench: &mut Bench) -> Outcome<Figures> {
    let Made { folder, tenant, log: sent, mut figures } = make(bench, 40, true)?;
    let copy = Copy::of(&tenant)?;
    let (log_path, log) = copy.log()?;
    let apart = bench.path.join("apart");
    fs::create_dir(&apart)?;
    let journal = copy.put_journal(&apart)?;
    let all = contents(&journal)?;
    let log_apart = apart.join("journal.db-wal");
    let mut length_now = log.len();
    // How many frames a log of this length gives: what stands in it in whole transactions. The files are only read.
    let mut cut_at = |length: usize, flip: Option<usize>| -> Outcome<usize> {
        if length > length_now {
            fs::write(&log_apart, log)?;
        }
        length_now = length;
        let file = File::options().write(true).open(&log_apart)?;
        file.set_len(length as u64)?;
        if let Some(at) = flip {
            file.write_all_at(&[log[at / 8] ^ 1 << (at % 8)], at as u64 / 8)?;
        }
        let shared = apart.join("journal.db-shm");
        if shared.exists() {
            fs::remove_file(shared)?;
        }
        let left = match contents(&journal) {
            Ok(left) => left,
            // Cut before the tables were made.
            Err(error) if error.to_string().contains("no such table") => Vec::new(),
            Err(error) => return Err(format!("the log cut at {length}: {error}").into()),
        };
        if left[..] != all[..left.len()] {
            return Err(format!("the log cut at {length}, flip {flip:?}: what is left is not its beginning").into());
        }
        if let Some(at) = flip {
            file.write_all_at(&[log[at / 8]], at as u64 / 8)?;
        }
        Ok(left.len())
    };
    // The last transactions: from where three frames are missing.
    let (mut low, mut high) = (0, log.len());
    while high - low > 1 {
        let middle = usize::midpoint(low, high);
        if cut_at(middle, None)? + 3 < all.len() { low = middle } else { high = middle }
    }
    let step = bench.times((log.len() - low).div_ceil(60).max(1), 1);
    let (mut cuts, mut longer) = (0, all.len());
    for length in (low..=log.len()).rev().step_by(step) {
        let left = cut_at(length, None)?;
        if left > longer {
            return Err(format!("a log of {length} bytes gives more than a longer one").into());
        }
        longer = left;
        cuts += 1;
    }
    let flips = bench.times(100, 4000);
    for _ in 0..flips {
        cut_at(log.len(), Some(bench.random.below(log.len() as u64 * 8) as usize))?;
    }
    // And the real server on some of them.
    let (mut reported, servers) = (0, bench.times(4, 40));
    let acknowledged = sent.acknowledged();
    let mut gone = 0;
    for turn in 0..servers {
        copy.put_back()?;
        let length = low + bench.random.below((log.len() - low) as u64) as usize;
        let file = File::options().write(true).open(log_path)?;
        if turn % 2 == 0 {
            file.set_len(length as u64)?;
        } else {
            file.write_all_at(&[log[length] ^ 1], length as u64)?;
        }
        drop(file);
        let left = contents(&tenant.folder.join("journal.db"))?.len();
        let is_whole = left == all.len();
        let is_clean = verify(&folder).is_ok();
        reported += u32::from(!is_clean);
        let must_say = (!is_whole).then_some("the journal is not the one");
        let is_started = starts(&folder, &tenant, must_say, bench);
        if !is_started.map_err(|error| format!("the log cut at {length}: {error}"))? {
            return Err(format!("the log cut at {length}: the server does not start").into());
        }
        // What stood in the log that is gone is gone, and that must be said; the rest is there, once, and the frame that came since.
        let mut stored = Stored::default();
        stored.read(&tenant, &sent)?;
        let missing = stored.missing(&acknowledged);
        gone = gone.max(missing);
        figures.twice += stored.twice;
        figures.lost += if is_clean { missing } else { 0 };
        let new = (stored.events + missing).checked_sub(figures.acked);
        if !matches!(new, Some(0 | 3)) || !stored.altered.is_empty() || is_whole != (missing == 0) {
            return Err(format!(
                "the log cut at {length}: {left} frames are left, {missing} of {} events gone, and then the journal has {}",
                figures.acked, stored.events
            )
            .into());
        }
    }
    if reported == 0 {
        return Err("nothing was ever missing: the row shows nothing".into());
    }
    Ok(figures.noting(format!(
        "{cuts} cuts, {flips} flips; {servers} starts, {reported} of them with a loss that was reported, of {gone} events at most"
    )))
}

fn damage(bench: &mut Bench) -> Outcome<Figures> {
    let Made { folder, tenant, figures, .. } = make(bench, 40, false)?;
    verify(&folder)?;
    let copy = Copy::of(&tenant)?;
    let path = tenant.folder.join("journal.db");
    let whole = dump(&path)?;
    let size = fs::metadata(&path)?.len();
    let (mut reported, mut harmless, mut refused, mut started) = (0, 0, 0, 0);
    let turns = bench.times(30, 400);
    let serve_each = bench.times(10, 8);
    for turn in 0..turns {
        copy.put_back()?;
        let at = bench.random.below(size);
        let what = match turn % 10 {
            0 => {
                let page = at / 4096 * 4096;
                File::options().write(true).open(&path)?.write_all_at(&[0; 4096], page)?;
                format!("zeros from {page}")
            }
            1 => {
                File::options().write(true).open(&path)?.set_len(at)?;
                format!("cut at {at}")
            }
            2 if turn == 2 => {
                fs::remove_file(&path)?;
                "removed".to_owned()
            }
            3 if turn == 3 => {
                fs::write(&path, b"")?;
                "emptied".to_owned()
            }
            _ => {
                let (file, mut byte) = (File::options().read(true).write(true).open(&path)?, [0]);
                file.read_exact_at(&mut byte, at)?;
                let bit = bench.random.below(8);
                file.write_all_at(&[byte[0] ^ 1 << bit], at)?;
                format!("bit {bit} of byte {at} flipped")
            }
        };
        let output = folder.run(&["verify"])?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if said.contains("panicked") {
            return Err(format!("{what}: verify panicked: {said}").into());
        }
        if output.status.success() {
            if !path.exists() || dump(&path)? != whole {
                return Err(format!("{what}: verify says nothing").into());
            }
            harmless += 1;
        } else {
            reported += 1;
        }
        if turn < 4 || turn % serve_each == 0 {
            let is_started = starts(&folder, &tenant, None, bench).map_err(|error| format!("{what}: {error}"))?;
            if is_started { started += 1 } else { refused += 1 }
        }
    }
    Ok(figures.noting(format!(
        "{turns} damages: {reported} reported, {harmless} in bytes that nothing reads; of {} starts {refused} refused",
        refused + started
    )))
}
