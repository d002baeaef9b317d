//! Sinks that are slow, away, silent, or want no part of an event. None of it is the producers' trouble, and all of it arrives.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use crate::{
    Outcome,
    folder::{Folder, How, Server, Tenant},
    load::{Load, Log},
    receiver::{Mode, Receiver},
    row::{Bench, Figures, Row},
    stored::{balanced, judge, settle, table},
};

use super::disk::SmallDisk;

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "sink-slow",
        what: "An HTTP sink takes ten times as long as what arrives allows. No acknowledgement waits for it, the events table has everything meanwhile, and when the sink is well, it catches up.",
        limit: 120,
        run: slow,
    },
    Row {
        name: "sink-away",
        what: "An HTTP sink goes away and comes back, 6 times (short: 2), and in between the server is killed. Everything arrives.",
        limit: 180,
        run: away,
    },
    Row {
        name: "sink-stalled",
        what: "An HTTP sink is away until a small disk (a tmpfs; without the right to mount, it is not filled) is full up to its reserve: 503 and unready, and the reserve is left. The sink comes back: it gets everything, retention \
               removes what it has, and the server is ready and takes events again, without a restart and without a hand.",
        limit: 180,
        run: stalled,
    },
    Row {
        name: "sink-silent",
        what: "An HTTP sink takes a batch and never answers, again and again, until the server gives up waiting. It gets the batch again, under the same ids.",
        limit: 120,
        run: silent,
    },
    Row {
        name: "poison",
        what: "An HTTP sink refuses each batch that has one of some events in it. Those become dead letters, all others arrive; once the sink takes them, `firsthop replay --dead` brings them.",
        limit: 120,
        run: poison,
    },
];

struct Made {
    folder: Folder,
    tenant: Tenant,
    server: Server,
    receiver: Receiver,
}

fn make(bench: &mut Bench, more: &str) -> Outcome<Made> {
    let folder = bench.folder()?;
    let tenant = folder.tenant("shop", &[])?;
    let receiver = Receiver::start()?;
    receiver.add_to(&tenant, more)?;
    let server = folder.serve()?;
    Ok(Made { folder, tenant, server, receiver })
}

/// Everything that was acknowledged is at the sink as well: what is not there is lost, though the journal has it.
fn judge_sink(tenant: &Tenant, log: &Log, receiver: &Receiver) -> Outcome<Figures> {
    let mut figures = judge(tenant, log)?;
    receiver.await_events(figures.stored, Duration::from_secs(90))?;
    figures.lost = figures.lost.max(receiver.missing(log));
    let (distinct, _) = receiver.counts();
    if distinct != figures.stored {
        return Err(format!("the journal has {} events, and the sink {distinct}", figures.stored).into());
    }
    Ok(figures)
}

fn slow(bench: &mut Bench) -> Outcome<Figures> {
    let Made { folder, tenant, server, receiver } = make(bench, "batch_events = 100")?;
    let log = Log::default();
    let lasts = Duration::from_secs(bench.times(2, 12));
    // 3 producers, 30 events each 10 ms at most: some 5,000 events a second, and the sink takes 500.
    receiver.be(Mode::Slow(Duration::from_millis(200)));
    let load = Load { producers: 3, pause: Duration::from_millis(10), ..Load::new(folder.public, &tenant, &log) };
    let (mut slowest, mut behind) = (Duration::ZERO, 0.0_f64);
    load.during(&mut bench.random, || {
        let began = Instant::now();
        while began.elapsed() < lasts {
            slowest = slowest.max(log.await_acks(1, Duration::from_secs(10))?);
            behind = behind.max(folder.metric("firsthop_sink_lag_frames", &["sink=\"hook\""])?);
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    })?;
    // The events table waits for nobody.
    judge(&tenant, &log)?;
    let (at_the_end, _) = receiver.counts();
    if log.retries() > 0 || slowest > Duration::from_secs(2) || at_the_end * 4 > log.totals().acked {
        return Err(format!(
            "{} requests sent again, {slowest:?} without an answer, {at_the_end} events at the slow sink",
            log.retries()
        )
        .into());
    }
    receiver.be(Mode::Well);
    let began = Instant::now();
    let figures = judge_sink(&tenant, &log, &receiver)?.recovered(began.elapsed());
    server.stop()?;
    balanced(&folder)?;
    Ok(figures.noting(format!("{behind} frames behind at most; no answer took longer than {} ms", slowest.as_millis())))
}

fn away(bench: &mut Bench) -> Outcome<Figures> {
    let Made { folder, tenant, server, receiver } = make(bench, "batch_events = 200")?;
    let log = Log::default();
    let times = bench.times(2, 6);
    let mut random = bench.random.fork();
    let load = Load { producers: 3, pause: Duration::from_millis(10), ..Load::new(folder.public, &tenant, &log) };
    let (server, longest) = load.during(&mut bench.random, || {
        let (mut server, mut longest) = (server, Duration::ZERO);
        for time in 0..times {
            log.await_acks(20, Duration::from_secs(20))?;
            receiver.be(Mode::Away);
            thread::sleep(Duration::from_millis(300 + random.below(1200)));
            if time % 2 == 1 {
                server.kill()?;
                server = folder.serve()?;
                log.await_acks(20, Duration::from_secs(20))?;
            }
            receiver.be(Mode::Well);
            let (before, _) = receiver.counts();
            longest = longest.max(receiver.await_events(before + 1, Duration::from_secs(60))?);
        }
        Ok((server, longest))
    })?;
    let figures = judge_sink(&tenant, &log, &receiver)?.recovered(longest);
    let (distinct, all) = receiver.counts();
    server.stop()?;
    balanced(&folder)?;
    Ok(figures.noting(format!("away {times} times; {} deliveries were repeated under their ids", all - distinct)))
}

fn stalled(bench: &mut Bench) -> Outcome<Figures> {
    const RESERVE: f64 = (32 << 20) as f64;
    let disk = SmallDisk::mount(bench, 160)?;
    let folder = match &disk {
        Some(disk) => bench.folder_at(disk.at.join("data"))?,
        None => bench.folder()?,
    };
    let tenant = folder.tenant("shop", &[])?;
    let receiver = Receiver::start()?;
    receiver.be(Mode::Away);
    let file = tenant.folder.join("tenant.toml");
    fs::write(&file, fs::read_to_string(&file)? + "\n[retention]\nmax_bytes = '4MiB'\n")?;
    receiver.add_to(&tenant, "")?;
    let arguments = &["--disk-reserve", "32MiB"][..];
    let server = folder.serve_with(How { arguments, ..How::default() })?;
    let log = Log::default();
    // Many bytes and few events. The events table, which keeps all of it, has to keep up: the reserve is not for all that it may lack.
    let text = "x".repeat(8000);
    let load = Load {
        producers: 3,
        text: Some(&text),
        pause: Duration::from_millis(20),
        ..Load::new(folder.public, &tenant, &log)
    };
    let free = || folder.metric("firsthop_disk_free_bytes", &[]);
    let (mut least, mut took) = (f64::MAX, Duration::ZERO);
    load.during(&mut bench.random, || {
        if disk.is_some() {
            folder.await_ready(503, Duration::from_secs(90))?;
            // It stays so while the sink is away, whatever is tried.
            let due = Instant::now() + Duration::from_secs(3);
            while Instant::now() < due {
                least = least.min(free()?);
                thread::sleep(Duration::from_millis(50));
            }
            let refused = folder.metric("firsthop_http_requests_total", &["status=\"503\""])?;
            if refused == 0.0 || least < RESERVE / 4.0 {
                return Err(format!("{refused} requests were answered with 503, and {least} bytes were left").into());
            }
            folder.await_ready(503, Duration::ZERO)?;
        } else {
            log.await_acks(50, Duration::from_secs(60))?;
        }
        receiver.be(Mode::Well);
        let began = Instant::now();
        folder.await_ready(200, Duration::from_secs(90))?;
        log.await_acks(1, Duration::from_secs(30))?;
        took = began.elapsed();
        Ok(())
    })?;
    let (totals, acknowledged) = (log.totals(), log.acknowledged());
    receiver.await_events(totals.acked, Duration::from_secs(60))?;
    let (distinct, _) = receiver.counts();
    settle(&tenant, totals.acked)?;
    let figures = Figures {
        sent: totals.sent,
        acked: totals.acked,
        stored: distinct,
        refused: totals.refused,
        duplicates: totals.duplicates,
        lost: receiver.missing(&log).max(table(&tenant, &acknowledged)?),
        ..Figures::default()
    };
    let removed = folder.metric("firsthop_retention_frames_total", &[])?;
    server.stop()?;
    balanced(&folder)?;
    let note = match disk {
        Some(disk) => {
            disk.done();
            format!(
                "a tmpfs of 160 MiB, {} MiB free at least of a reserve of 32; {removed} bodies removed since",
                least as u64 >> 20
            )
        }
        None => "the disk was not filled, as mounting is not allowed".to_owned(),
    };
    Ok(figures.recovered(took).noting(note))
}

fn silent(bench: &mut Bench) -> Outcome<Figures> {
    let Made { folder, tenant, server, receiver } = make(bench, "batch_events = 200\ntimeout = '1s'")?;
    let log = Log::default();
    let times = bench.times(2, 6);
    let load = Load { producers: 3, pause: Duration::from_millis(10), ..Load::new(folder.public, &tenant, &log) };
    let mut longest = Duration::ZERO;
    load.during(&mut bench.random, || {
        for _ in 0..times {
            log.await_acks(20, Duration::from_secs(20))?;
            receiver.be(Mode::Silent);
            // It must have something to say nothing of, and be given up.
            let (before, _) = receiver.counts();
            receiver.await_events(before + 1, Duration::from_secs(20))?;
            thread::sleep(Duration::from_millis(2500));
            receiver.be(Mode::Well);
            let (before, _) = receiver.counts();
            longest = longest.max(receiver.await_events(before + 1, Duration::from_secs(60))?);
        }
        Ok(())
    })?;
    let figures = judge_sink(&tenant, &log, &receiver)?.recovered(longest);
    let (distinct, all) = receiver.counts();
    server.stop()?;
    balanced(&folder)?;
    if all == distinct {
        return Err("nothing was delivered again: the row shows nothing".into());
    }
    Ok(figures.noting(format!("silent {times} times; {} deliveries were repeated under their ids", all - distinct)))
}

fn poison(bench: &mut Bench) -> Outcome<Figures> {
    const MODULUS: u64 = 211;
    let Made { folder, tenant, server, receiver } = make(bench, "batch_events = 100")?;
    let log = Log::default();
    receiver.be(Mode::Refuses(MODULUS));
    let load = Load { producers: 2, pause: Duration::from_millis(10), ..Load::new(folder.public, &tenant, &log) };
    let frames = bench.times(100, 600);
    load.during(&mut bench.random, || log.await_acks(frames, Duration::from_secs(40)))?;
    let bad: u64 = log
        .acknowledged()
        .iter()
        .map(|(_, first, count)| (*first..*first + u64::from(*count)).filter(|seq| seq % MODULUS == 13).count() as u64)
        .sum();
    let figures = judge(&tenant, &log)?;
    let took = receiver.await_events(figures.stored - bad, Duration::from_secs(60))?;
    let due = Instant::now() + Duration::from_secs(20);
    let mut dead = 0.0;
    while dead != bad as f64 {
        if Instant::now() > due {
            return Err(format!("{bad} events are refused, and {dead} are dead letters").into());
        }
        dead = folder.metric("firsthop_sink_dead_letters", &["sink=\"hook\""])?;
        thread::sleep(Duration::from_millis(20));
    }
    if receiver.missing(&log) != bad || bad == 0 {
        return Err(format!("{bad} events are refused, and {} are not at the sink", receiver.missing(&log)).into());
    }
    receiver.be(Mode::Well);
    folder.ok(&["replay", "--sink", "hook", "--dead"])?;
    let figures = judge_sink(&tenant, &log, &receiver)?.recovered(took);
    server.stop()?;
    balanced(&folder)?;
    Ok(figures.noting(format!("{bad} events were refused, became dead letters, and were delivered by a replay")))
}
