//! Clocks that are wrong, keys that change, and a key server that is away.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Outcome,
    edge::Edge,
    folder::{Folder, How, Tenant},
    load::{Load, Log, State},
    producer::Producer,
    row::{Bench, Figures, Row},
    shim::Shim,
    stored::{balanced, figure, judge},
};

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "clock",
        what: "The server's clock jumps by 24 h forwards and backwards and by seconds, under load (shim). Sessions from an hour to come are refused with their reason, \
               kept in quarantine, and stored by a replay once it is that hour.",
        limit: 120,
        run: clock,
    },
    Row {
        name: "rotation",
        what: "`firsthop key rotate`, 6 times (short: 2), while pages send in sessions and an edge in envelopes under the old root, and edges fetch new leases. Nothing is refused.",
        limit: 120,
        run: rotation,
    },
    Row {
        name: "keys-away",
        what: "The key server does not answer an edge for 2 h (virtual time on both sides). What the edge seals with the leases that it has is taken, also two hours late; once they \
               have ended, pages keep what they have; when the key server is back, all of it is stored.",
        limit: 90,
        run: keys_away,
    },
];

const HOUR: i64 = 3_600_000;

fn clock(bench: &mut Bench) -> Outcome<Figures> {
    let (folder, log) = (bench.folder()?, Log::default());
    let tenant = folder.tenant("shop", &[])?;
    let shim = Shim::new(&bench.path, false, &mut bench.random)?;
    let server = folder.serve_with(How { shim: Some(&shim), ..How::default() })?;
    let mut longest = Duration::ZERO;
    let load = Load { may_refuse: true, ..Load::new(folder.public, &tenant, &log) };
    let shifts = [24 * HOUR, 0, -24 * HOUR, 0, -1000, -5000, 30_000, 0, 24 * HOUR, -24 * HOUR, 0];
    load.during(&mut bench.random, || {
        for shift in shifts {
            log.await_acks(30, Duration::from_secs(20))?;
            shim.shift_clock(shift)?;
            longest = longest.max(log.await_acks(1, Duration::from_secs(20))?);
            folder.await_ready(200, Duration::from_secs(5))?;
        }
        log.await_acks(30, Duration::from_secs(20)).map(drop)
    })?;
    let codes = ["epoch-out-of-range", "bad-session"];
    let mut kept = 0;
    for sent in log.frames().values() {
        if let State::Refused(code) = &sent.state {
            if !codes.contains(&code.as_str()) {
                return Err(format!("a frame was refused as {code}").into());
            }
            kept += u64::from(sent.count);
        }
    }
    if kept == 0 {
        return Err("the clock went back by 48 h, and no session was of an hour to come: the row shows nothing".into());
    }
    let aside = figure(&tenant, "journal.db", "SELECT COALESCE(SUM(events), 0) FROM quarantine")?;
    if aside as u64 != kept {
        return Err(format!("{kept} events were refused, and quarantine has {aside}").into());
    }
    // Once it is that hour, it is good.
    shim.shift_clock(25 * HOUR)?;
    let said = folder.ok(&["quarantine", "replay", "--all"])?;
    log.replayed();
    let figures = judge(&tenant, &log).map_err(|error| format!("{error}; replay: {said}"))?.recovered(longest);
    server.stop()?;
    balanced(&folder)?;
    Ok(figures.noting(format!(
        "{} jumps; {kept} events were refused, kept, and stored by a replay in due time",
        shifts.len()
    )))
}

/// Pages behind an edge that send until they are told to stop.
fn behind(
    edge: &Edge,
    folder: &Folder,
    tenant: &Tenant,
    log: &Log,
    stop: &AtomicBool,
    bench: &mut Bench,
) -> Outcome<()> {
    let mut client = folder.client();
    let stopped = || stop.load(Ordering::Relaxed);
    while !stopped() {
        let mut page = Producer::new(tenant, &mut bench.random);
        while !stopped() && page.next < 1000 {
            edge.deliver(&mut client, &mut page, 1 + bench.random.below(30) as u32, log, &|| false)?;
        }
    }
    Ok(())
}

fn rotation(bench: &mut Bench) -> Outcome<Figures> {
    let (folder, log) = (bench.folder()?, Log::default());
    let tenant = folder.tenant("shop", &["--region", "EU"])?;
    let times = bench.times(2, 6);
    let server = folder.serve()?;
    let edge = Edge::enrol(&folder, "zurich", &mut bench.random)?;
    let stop = AtomicBool::new(false);
    let load = Load { producers: 3, ..Load::new(folder.public, &tenant, &log) };
    let mut random = bench.random.fork();
    thread::scope(|scope| {
        let pages = scope.spawn(|| {
            let result = behind(&edge, &folder, &tenant, &log, &stop, bench);
            stop.store(true, Ordering::Relaxed);
            result
        });
        let rotated = load.during(&mut random, || {
            for _ in 0..times {
                log.await_acks(100, Duration::from_secs(20))?;
                folder.ok(&["key", "rotate"])?;
                // The server looks at the files every second; the edge goes on with the old lease for a while after that.
                log.await_acks(100, Duration::from_secs(20))?;
                thread::sleep(Duration::from_millis(1500));
                edge.refresh(&folder)?;
            }
            log.await_acks(100, Duration::from_secs(20)).map(drop)
        });
        stop.store(true, Ordering::Relaxed);
        let paged = pages.join().unwrap_or_else(|_| Err("the pages panicked".into()));
        rotated.and(paged)
    })?;
    let roots =
        folder.ok(&["key", "list"])?.lines().filter(|line| line.contains("verifies") || line.contains("signs")).count();
    let figures = judge(&tenant, &log)?;
    server.stop()?;
    balanced(&folder)?;
    if figures.refused > 0 || roots != times + 1 {
        return Err(format!("{} events refused, {roots} roots in force", figures.refused).into());
    }
    Ok(figures.noting(format!("{times} rotations")))
}

fn keys_away(bench: &mut Bench) -> Outcome<Figures> {
    let (folder, log) = (bench.folder()?, Log::default());
    let tenant = folder.tenant("shop", &["--region", "EU"])?;
    let shim = Shim::new(&bench.path, false, &mut bench.random)?;
    let server = folder.serve_with(How { shim: Some(&shim), ..How::default() })?;
    let mut edge = Edge::enrol(&folder, "zurich", &mut bench.random)?;
    let mut client = folder.client();
    let (mut old, mut longest) = (Producer::new(&tenant, &mut bench.random), Duration::ZERO);
    edge.deliver(&mut client, &mut old, 1, &log, &|| false)?;
    // Sealed at the beginning, on its way for 2 h.
    let late = Producer::new(&tenant, &mut bench.random).frame(7)?;
    log.sent(&late);
    let (sealed, _) = edge.forward(&late.bytes)?;
    let (mut direct, mut waiting) = (0, Vec::new());
    for minutes in (0..=120).step_by(10) {
        let shift = i64::from(minutes) * 60_000;
        shim.shift_clock(shift)?;
        edge.shift_clock(shift);
        // A page that has been there all the while, and one that comes now.
        let mut new = Producer::new(&tenant, &mut bench.random);
        for page in [&mut old, &mut new] {
            for _ in 0..5 {
                if edge.has_lease() {
                    edge.deliver(&mut client, page, 5, &log, &|| false)
                        .map_err(|error| format!("after {minutes} min: {error}"))?;
                    direct += 1;
                } else {
                    // The edge answers 503, and the page keeps what it has.
                    let made = page.frame(5)?;
                    log.sent(&made);
                    waiting.push(made);
                }
            }
        }
    }

    if edge.has_lease() || waiting.is_empty() {
        return Err("the leases last for more than two hours: the row shows nothing".into());
    }
    let answer = client.post("/v1/e", &sealed)?;
    if answer.receipt().is_none_or(|receipt| receipt.stored != late.count) {
        return Err(format!("an envelope of 2 h ago is answered {}: {}", answer.status, answer.text()).into());
    }
    log.acked(&late, 0);
    let began = Instant::now();
    edge.refresh(&folder)?;
    for (i, made) in waiting.iter().enumerate() {
        edge.deliver_made(&mut client, made, &log, &|| false)?;
        if i == 0 {
            longest = began.elapsed();
        }
    }
    let figures = judge(&tenant, &log)?.recovered(longest);
    server.stop()?;
    balanced(&folder)?;
    Ok(figures.noting(format!("{direct} frames under the leases that it had, {} waited at their pages", waiting.len())))
}
