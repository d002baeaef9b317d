//! The process or the machine ends in the middle.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    Outcome,
    folder::{Folder, How},
    load::{Load, Log},
    row::{Bench, Figures, Row},
    shim::Shim,
    stored::{Stored, after_cut, balanced, figure, judge},
};

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "sigkill",
        what: "SIGKILL in the middle of commits, 200 times (short: 10), under load; producers send again what was not answered. After each start all that \
               was acknowledged is there.",
        limit: 480,
        run: sigkill,
    },
    Row {
        name: "power",
        what: "The power goes under load, 40 times (short: 6): after a kill, writes that no sync followed are taken back, all, some or by sectors, and the \
               server starts on what is left. What the events table had confirmed is in it.",
        limit: 300,
        run: power,
    },
    Row {
        name: "sigterm",
        what: "SIGTERM under load, 10 times (short: 2): the server ends by itself with 0, what it acknowledged is in the events table by then, and a new one \
               takes over.",
        limit: 240,
        run: sigterm,
    },
];

fn sigkill(bench: &mut Bench) -> Outcome<Figures> {
    let (folder, log) = (bench.folder()?, Log::default());
    let tenant = folder.tenant("shop", &[])?;
    let times: u64 = bench.times(10, 200);
    let mut random = bench.random.fork();
    let server = folder.serve()?;
    let mut longest = Duration::ZERO;
    let mut stored = Stored::default();
    let load = Load::new(folder.public, &tenant, &log);
    let server = load.during(&mut bench.random, || {
        let mut server = server;
        for time in 0..times {
            log.await_acks(1, Duration::from_secs(20))?;
            thread::sleep(Duration::from_micros(random.below(120_000)));
            server.kill()?;
            let began = Instant::now();
            server = folder.serve()?;
            log.await_acks(1, Duration::from_secs(20))?;
            longest = longest.max(began.elapsed());
            let acknowledged = log.acknowledged();
            stored.read(&tenant, &log)?;
            let missing = stored.missing(&acknowledged);
            if missing + stored.twice > 0 {
                return Err(format!("after kill {time}: {missing} missing, {} twice", stored.twice).into());
            }
        }
        Ok(server)
    })?;
    // A connection that breaks is a request that the kill met. Where none is, nothing was under way.
    let met = log.retries();
    if met < times {
        return Err(format!("{times} kills met {met} requests: the row shows nothing").into());
    }
    let figures = judge(&tenant, &log)?.recovered(longest);
    server.stop()?;
    balanced(&folder)?;
    Ok(figures.noting(format!("{times} kills; {met} requests were not answered and sent again")))
}

const CURSOR: &str = "SELECT frame FROM firsthop_cursor";

fn power(bench: &mut Bench) -> Outcome<Figures> {
    if lying_disk(bench)? == 0 {
        return Err("a disk that lies about syncs loses nothing here: the row shows nothing".into());
    }
    let (folder, log) = (bench.folder()?, Log::default());
    let tenant = folder.tenant("shop", &[])?;
    let times = bench.times(6, 40);
    let shim = Shim::new(&bench.path, true, &mut bench.random)?;
    let (mut longest, mut unsynced, mut took) = (Duration::ZERO, 0, 0);
    for time in 0..times {
        // In every fourth round until the table has said that more of what it has will stay.
        let mut confirmed = if time > 0 { figure(&tenant, "events.db", CURSOR)? } else { 0 };
        let began = Instant::now();
        let server = folder.serve_with(How { shim: Some(&shim), ..How::default() })?;
        let more = 20 + bench.random.below(200);
        let load = Load { events: 20, ..Load::new(folder.public, &tenant, &log) };
        load.until(&mut bench.random, || {
            let first = log.await_acks(1, Duration::from_secs(20))?;
            longest = longest.max(began.elapsed().max(first));
            log.await_acks(more, Duration::from_secs(60))?;
            if time % 4 == 0 {
                confirmed = await_confirmed(&folder, confirmed)?;
            }
            server.kill()
        })?;
        let cut = shim.cut_power(&folder.data, Some(&mut bench.random))?;
        unsynced += cut.unsynced;
        took += cut.lost;
        let has = figure(&tenant, "events.db", CURSOR)?;
        if has < confirmed {
            return Err(
                format!("after cut {time} the events table is at frame {has}, and had confirmed {confirmed}").into()
            );
        }
        after_cut(&folder, &tenant, &log, time)?;
    }
    if took == 0 {
        return Err("no write was ever under way: the row shows nothing".into());
    }
    let server = folder.serve()?;
    let figures = judge(&tenant, &log)?.recovered(longest);
    server.stop()?;
    Ok(figures.noting(format!("{times} cuts; of {unsynced} writes without a sync {took} gone or torn")))
}

/// Waits until the events table has confirmed more than this: what it will never ask for again, since it has it after a power cut too.
fn await_confirmed(folder: &Folder, before: i64) -> Outcome<i64> {
    let began = Instant::now();
    loop {
        let confirmed = folder.metric("firsthop_sink_confirmed_frame", &["sink=\"events\""])? as i64;
        if confirmed > before {
            return Ok(confirmed);
        }
        if began.elapsed() > Duration::from_secs(20) {
            return Err(format!("the events table confirms nothing beyond frame {before}").into());
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// What a disk that only says that it has synced loses of what was acknowledged: no server can help that, and this row must notice.
fn lying_disk(bench: &mut Bench) -> Outcome<u64> {
    let (folder, log) = (bench.folder()?, Log::default());
    let tenant = folder.tenant("shop", &[])?;
    let shim = Shim::new(&bench.path, true, &mut bench.random)?;
    shim.lie(true)?;
    let server = folder.serve_with(How { shim: Some(&shim), ..How::default() })?;
    Load::new(folder.public, &tenant, &log).until(&mut bench.random, || {
        log.await_acks(20, Duration::from_secs(20))?;
        server.kill()
    })?;
    shim.cut_power(&folder.data, None)?;
    let server = folder.serve()?;
    let mut stored = Stored::default();
    stored.read(&tenant, &log)?;
    server.kill()?;
    Ok(stored.missing(&log.acknowledged()))
}

fn sigterm(bench: &mut Bench) -> Outcome<Figures> {
    let (folder, log) = (bench.folder()?, Log::default());
    let tenant = folder.tenant("shop", &[])?;
    let times = bench.times(2, 10);
    let server = folder.serve()?;
    let mut longest = Duration::ZERO;
    let server = Load::new(folder.public, &tenant, &log).during(&mut bench.random, || {
        let mut server = server;
        for _ in 0..times {
            log.await_acks(100, Duration::from_secs(30))?;
            server.stop()?;
            let began = Instant::now();
            let acknowledged = log.acknowledged();
            let rows = crate::stored::table(&tenant, &acknowledged)?;
            if rows > 0 {
                return Err(
                    format!("{rows} acknowledged events are not in the table of a server that has ended").into()
                );
            }
            let waited = began.elapsed();
            server = folder.serve()?;
            log.await_acks(1, Duration::from_secs(20))?;
            longest = longest.max(began.elapsed().saturating_sub(waited));
        }
        Ok(server)
    })?;
    let figures = judge(&tenant, &log)?.recovered(longest).noting(format!("{times} times"));
    server.stop()?;
    balanced(&folder)?;
    Ok(figures)
}
