//! Disks that are full, fail, lie or take their time. Answers are 503 with Retry-After until it is over, and then all goes on by itself.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Outcome,
    folder::{Folder, How, Server, Tenant},
    http::Client,
    load::{Load, Log},
    producer::Producer,
    row::{Bench, Figures, Row},
    shim::{EIO, ENOSPC, Failing, Shim},
    stored::{after_cut, balanced, judge},
};

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "enospc",
        what: "The disk is full (a small tmpfs; without the right to mount, a limit on the size of files): 503 with Retry-After and unready, not ended; given room, it goes on.",
        limit: 180,
        run: enospc,
    },
    Row {
        name: "enospc-now-and-then",
        what: "Some writes say that the disk is full, others succeed (shim), 8 times (short: 2), under load.",
        limit: 240,
        run: enospc_now_and_then,
    },
    Row {
        name: "eio",
        what: "Syncs or writes fail with EIO (shim), once, a few times, for a while or at random, 24 times (short: 4), under load; then the power goes, and what a \
               failed sync should have written is gone. Nothing that was acknowledged is.",
        limit: 400,
        run: eio,
    },
    Row {
        name: "checkpoint",
        what: "A sync of the database file fails (shim) while the log is moved into it, 4 times (short: 1), under load; the log begins again, and then the power goes.",
        limit: 240,
        run: checkpoint,
    },
    Row {
        name: "slow-disk",
        what: "Every sync takes 0.2 s, then 3 s with a commit timeout of 1 s (shim): answers are late and then 503, memory stays bounded, and it goes on afterwards.",
        limit: 240,
        run: slow,
    },
];

/// A small disk that is unmounted at the end.
pub(super) struct SmallDisk {
    pub(super) at: PathBuf,
    keep_in: Option<PathBuf>,
}

impl SmallDisk {
    /// None: mounting is not allowed here.
    pub(super) fn mount(bench: &Bench, mib: u32) -> Outcome<Option<Self>> {
        let at = bench.path.join("small");
        fs::create_dir_all(&at)?;
        let options = format!("size={mib}m,mode=700");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&at).output();
        let is_mounted = output.is_ok_and(|output| output.status.success());
        Ok(is_mounted.then(|| Self { at, keep_in: Some(bench.path.join("small-kept")) }))
    }

    fn resize(&self, mib: u32) -> Outcome<()> {
        let status = Command::new("mount").args(["-o", &format!("remount,size={mib}m")]).arg(&self.at).status()?;
        if status.success() { Ok(()) } else { Err("the small disk cannot be made larger".into()) }
    }

    /// All went well: nothing is to be kept.
    pub(super) fn done(mut self) {
        self.keep_in = None;
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A leftover is told of by the system; there is nothing more to do about it here.
        if let Some(keep) = &self.keep_in {
            let _ = Command::new("cp").arg("-a").arg(&self.at).arg(keep).status();
        }
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

fn enospc(bench: &mut Bench) -> Outcome<Figures> {
    // Where a sink takes the last bytes, the server sees that nothing is left before a commit fails, and the row shows nothing: then once more.
    for _ in 0..5 {
        let Some(disk) = SmallDisk::mount(bench, 12)? else { return small_files(bench) };
        let folder = bench.folder_at(disk.at.join("data"))?;
        let tenant = folder.tenant("shop", &[])?;
        // Without a reserve, so that writes do fail.
        let server = folder.serve_with(How { arguments: &["--disk-reserve", "1"], ..How::default() })?;
        let (figures, failed) = fill(bench, &folder, &tenant, server, &|_| disk.resize(400))?;
        disk.done();
        if failed {
            return Ok(figures.noting("a tmpfs of 12 MiB"));
        }
    }
    Err(NOTHING_FAILED.into())
}

const NOTHING_FAILED: &str = "no commit failed: the row shows nothing";

fn small_files(bench: &mut Bench) -> Outcome<Figures> {
    let folder = bench.folder()?;
    let tenant = folder.tenant("shop", &[])?;
    let server = folder.serve_with(How { file_limit: Some(3072), ..How::default() })?;
    let (figures, failed) = fill(bench, &folder, &tenant, server, &|server| {
        let status =
            Command::new("prlimit").args(["--pid", &server.pid().to_string(), "--fsize=unlimited"]).status()?;
        if status.success() { Ok(()) } else { Err("prlimit fails".into()) }
    })?;
    if !failed {
        return Err(NOTHING_FAILED.into());
    }
    Ok(figures.noting("files of at most 3 MiB, as mounting is not allowed"))
}

/// Fills the disk, looks at the server, makes room, and lets it go on. Also says whether a commit failed.
fn fill(
    bench: &mut Bench,
    folder: &Folder,
    tenant: &Tenant,
    server: Server,
    make_room: &dyn Fn(&Server) -> Outcome<()>,
) -> Outcome<(Figures, bool)> {
    let log = Log::default();
    let load = Load { events: 300, ..Load::new(folder.public, tenant, &log) };
    let mut took = Duration::ZERO;
    load.during(&mut bench.random, || {
        folder.await_ready(503, Duration::from_secs(60))?;
        // It is full, and stays so: no acknowledgement slips through but for what fits a moment after opening again.
        let live = Client::new(folder.internal).get("/livez")?.status;
        let refused = folder.metric("firsthop_http_requests_total", &["status=\"503\""])?;
        if live != 200 || refused == 0.0 {
            return Err(format!("/livez says {live}, and {refused} requests were answered with 503").into());
        }
        thread::sleep(Duration::from_millis(500));
        make_room(&server)?;
        let began = Instant::now();
        log.await_acks(1, Duration::from_secs(30))?;
        took = began.elapsed();
        folder.await_ready(200, Duration::from_secs(10))?;
        log.await_acks(20, Duration::from_secs(30))?;
        Ok(())
    })?;
    let figures = judge(tenant, &log)?.recovered(took);
    let failed = folder.metric("firsthop_journal_failures_total", &[])?;
    server.stop()?;
    balanced(folder)?;
    Ok((figures, failed > 0.0))
}

fn enospc_now_and_then(bench: &mut Bench) -> Outcome<Figures> {
    let (folder, log) = (bench.folder()?, Log::default());
    let tenant = folder.tenant("shop", &[])?;
    let shim = Shim::new(&bench.path, false, &mut bench.random)?;
    let server = folder.serve_with(How { shim: Some(&shim), ..How::default() })?;
    let times = bench.times(2, 8);
    let mut longest = Duration::ZERO;
    Load::new(folder.public, &tenant, &log).during(&mut bench.random, || {
        for _ in 0..times {
            log.await_acks(20, Duration::from_secs(20))?;
            shim.writes(Failing { errno: ENOSPC, times: -1, per_million: 20_000, ..Failing::default() })?;
            thread::sleep(Duration::from_millis(1500));
            shim.writes(Failing::default())?;
            longest = longest.max(log.await_acks(1, Duration::from_secs(30))?);
        }
        Ok(())
    })?;
    let figures = judge(&tenant, &log)?.recovered(longest);
    let (_, _, failed) = shim.counts()?;
    server.stop()?;
    balanced(&folder)?;
    if failed == 0 {
        return Err("no write failed: the row shows nothing".into());
    }
    Ok(figures.noting(format!("{failed} writes failed")))
}

fn eio(bench: &mut Bench) -> Outcome<Figures> {
    let (folder, log) = (bench.folder()?, Log::default());
    let tenant = folder.tenant("shop", &[])?;
    let shim = Shim::new(&bench.path, true, &mut bench.random)?;
    let times = bench.times(4, 24);
    let (mut longest, mut took) = (Duration::ZERO, 0);
    for time in 0..times {
        let server = folder.serve_with(How { shim: Some(&shim), ..How::default() })?;
        let mut random = bench.random.fork();
        let load = Load { events: 20, ..Load::new(folder.public, &tenant, &log) };
        load.until(&mut bench.random, || {
            log.await_acks(10 + random.below(40), Duration::from_secs(30))?;
            let failing = Failing { errno: EIO, skip: random.below(20) as i64, ..Failing::default() };
            match time % 4 {
                0 => shim.syncs(Failing { times: 1, ..failing })?,
                1 => shim.syncs(Failing { times: 2 + random.below(4) as i64, ..failing })?,
                2 => shim.syncs(Failing { times: -1, per_million: 200_000, ..failing })?,
                _ => shim.writes(Failing { times: -1, per_million: 20_000, ..failing })?,
            }
            thread::sleep(Duration::from_millis(400 + random.below(800)));
            let is_over = random.below(4) > 0;
            if is_over {
                shim.syncs(Failing::default())?;
                shim.writes(Failing::default())?;
                longest = longest.max(log.await_acks(1, Duration::from_secs(30))?);
                log.await_acks(random.below(20), Duration::from_secs(30))?;
            }
            server.kill()
        })?;
        shim.syncs(Failing::default())?;
        shim.writes(Failing::default())?;
        took += shim.cut_power(&folder.data, Some(&mut bench.random))?.lost;
        after_cut(&folder, &tenant, &log, time)?;
    }
    let (_, syncs, writes) = shim.counts()?;
    if syncs == 0 || writes == 0 || took == 0 {
        return Err(format!(
            "{syncs} syncs and {writes} writes failed, and the power cuts took {took}: the row shows nothing"
        )
        .into());
    }
    let server = folder.serve()?;
    let figures = judge(&tenant, &log)?.recovered(longest);
    server.stop()?;
    Ok(figures.noting(format!("{syncs} syncs and {writes} writes failed; the power cuts then took {took} writes")))
}

fn checkpoint(bench: &mut Bench) -> Outcome<Figures> {
    let (folder, log) = (bench.folder()?, Log::default());
    let tenant = folder.tenant("shop", &[])?;
    let mut shim = Shim::new(&bench.path, true, &mut bench.random)?;
    shim.syncs = "/journal.db";
    // Many bytes and few events: it is the log that has to grow.
    let text = "x".repeat(8000);
    let (mut longest, mut took) = (Duration::ZERO, 0);
    let times = bench.times(1, 4);
    for time in 0..times {
        let server = folder.serve_with(How { shim: Some(&shim), ..How::default() })?;
        let load = Load { events: 50, text: Some(&text), ..Load::new(folder.public, &tenant, &log) };
        load.until(&mut bench.random, || {
            let (_, before, _) = shim.counts()?;
            // The first, which the checkpoint's thread makes, or one of those after it.
            shim.syncs(Failing { errno: EIO, times: 1, skip: time as i64, ..Failing::default() })?;
            let due = Instant::now() + Duration::from_secs(60);
            while shim.counts()?.1 == before {
                if Instant::now() > due {
                    return Err("no sync of the database file".into());
                }
                thread::sleep(Duration::from_millis(5));
            }
            longest = longest.max(log.await_acks(1, Duration::from_secs(30))?);
            // Until the log has begun again, over what was moved.
            log.await_acks(800, Duration::from_secs(60))?;
            server.kill()
        })?;
        shim.syncs(Failing::default())?;
        took += shim.cut_power(&folder.data, Some(&mut bench.random))?.lost;
        after_cut(&folder, &tenant, &log, time)?;
    }
    if took == 0 {
        return Err("the power cuts took nothing: the row shows nothing".into());
    }
    let server = folder.serve()?;
    let figures = judge(&tenant, &log)?.recovered(longest);
    server.stop()?;
    Ok(figures.noting(format!("{times} syncs failed; the power cuts then took {took} writes")))
}

fn slow(bench: &mut Bench) -> Outcome<Figures> {
    const CEILING: u64 = 220 << 20;
    let (folder, log) = (bench.folder()?, Log::default());
    let tenant = folder.tenant("shop", &[])?;
    let shim = Shim::new(&bench.path, false, &mut bench.random)?;
    let arguments = &["--commit-timeout", "1s", "--memory", "16MiB", "--queue", "8MiB"][..];
    let server = folder.serve_with(How { shim: Some(&shim), arguments, ..How::default() })?;
    let mut took = Duration::ZERO;
    let load = Load { producers: 32, events: 400, ..Load::new(folder.public, &tenant, &log) };
    load.during(&mut bench.random, || {
        shim.syncs(Failing { delay: Duration::from_millis(200), ..Failing::default() })?;
        log.await_acks(32, Duration::from_secs(30))?;
        shim.syncs(Failing { delay: Duration::from_secs(3), ..Failing::default() })?;
        thread::sleep(Duration::from_secs(6));
        let refused = folder.metric("firsthop_http_requests_total", &["status=\"503\""])?;
        if refused == 0.0 {
            return Err("commits of 3 s are waited for, with a timeout of 1 s".into());
        }
        shim.syncs(Failing::default())?;
        took = log.await_acks(1, Duration::from_secs(30))?;
        Ok(())
    })?;
    let most = server.resident().unwrap_or(0);
    if most > CEILING {
        return Err(format!("it held {} MiB", most >> 20).into());
    }
    // Still the same process, and still exact.
    let made = Producer::new(&tenant, &mut bench.random).frame(1)?;
    crate::load::deliver(&mut folder.client(), &made, &log, &|| false)?;
    let figures = judge(&tenant, &log)?.recovered(took);
    server.stop()?;
    balanced(&folder)?;
    Ok(figures.noting(format!("at most {} MiB resident", most >> 20)))
}
