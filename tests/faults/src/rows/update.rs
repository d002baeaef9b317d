//! Updates: one server after another on the same folder.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value as Json;

use crate::{
    Outcome,
    folder::{Folder, How, Server},
    http::Client,
    load::{Load, Log},
    row::{Bench, Figures, Row},
    stored::{balanced, judge},
};

pub(super) const ROWS: &[Row] = &[Row {
    name: "updates",
    what: "20 updates (short: 3) under load: a second server takes the listeners over from the first (`serve --take-over`), which ends with 0. Nobody who connects is refused, and nobody \
           waits for longer than 5 s.",
    limit: 180,
    run: updates,
}];

fn updates(bench: &mut Bench) -> Outcome<Figures> {
    let (folder, log) = (bench.folder()?, Log::default());
    let tenant = folder.tenant("shop", &[])?;
    let times = bench.times(3, 20);
    let server = folder.serve()?;
    let load = Load { pause: Duration::from_millis(2), ..Load::new(folder.public, &tenant, &log) };
    let ((server, longest), waited) = while_connecting(folder.public, || {
        load.during(&mut bench.random, || one_after_the_other(&folder, server, &log, times))
    })?;
    let figures = judge(&tenant, &log)?.recovered(longest);
    if log.nobody() > 0 {
        return Err(format!("{} connections were refused", log.nobody()).into());
    }
    let (retries, slowest) = (log.retries(), log.slowest());
    let gaps = gaps(&folder, times as usize)?;
    let gap = gaps.into_iter().max().ok_or("no updates")?;
    if waited.max(slowest) > Duration::from_secs(5) {
        return Err(format!("a new connection waited for {waited:?}, and a request for {slowest:?}").into());
    }
    server.stop()?;
    balanced(&folder)?;
    let [gap, waited, slowest] = [gap, waited, slowest].map(|time| time.as_millis());
    Ok(figures.noting(format!(
        "{times} updates; no connection refused, {retries} requests sent again; nobody accepted for {gap} ms at most, a new connection was answered after {waited} ms at most, a \
         request after {slowest} ms"
    )))
}

/// Updates, each once enough has come through. Returns the last server, and the longest time from one that is ready to the next acknowledgement.
fn one_after_the_other(folder: &Folder, server: Server, log: &Log, times: u32) -> Outcome<(Server, Duration)> {
    let (mut server, mut longest) = (server, Duration::ZERO);
    for _ in 0..times {
        log.await_acks(100, Duration::from_secs(20))?;
        let arguments = &["--take-over"][..];
        let next = folder.serve_with(How { arguments, ..How::default() })?;
        let began = Instant::now();
        log.await_acks(1, Duration::from_secs(20))?;
        longest = longest.max(began.elapsed());
        let status = server.wait(Duration::from_secs(30))?;
        if status.code() != Some(0) {
            return Err(format!("the server that handed over ended with {status}").into());
        }
        server = next;
    }
    log.await_acks(100, Duration::from_secs(20))?;
    Ok((server, longest))
}

/// Somebody connects anew every few milliseconds, while something happens. Returns also how long the slowest answer took, from before it connected.
fn while_connecting<T>(address: SocketAddr, happens: impl FnOnce() -> Outcome<T>) -> Outcome<(T, Duration)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                let answer = Client::new(address).get("/livez")?;
                longest = longest.max(began.elapsed());
                if answer.status != 200 {
                    return Err(format!("a new connection is answered {}", answer.status).into());
                }
                thread::sleep(Duration::from_millis(3));
            }
            Outcome::Ok(longest)
        });
        let happened = happens();
        stop.store(true, Ordering::Relaxed);
        let longest = connecting.join().unwrap_or_else(|_| Err("who connects panicked".into()));
        Ok((happened?, longest?))
    })
}

/// For how long nobody accepted, as each server that handed over has said at its end.
fn gaps(folder: &Folder, times: usize) -> Outcome<Vec<Duration>> {
    let began = Instant::now();
    loop {
        // What a server says last may be read after it has ended.
        let log = folder.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("handed over")).collect();
        if lines.len() < times && began.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(10));
            continue;
        }
        if lines.len() != times {
            return Err(format!("{times} updates, and {} servers said how long nobody accepted", lines.len()).into());
        }
        let seconds = lines.into_iter().map(|line| {
            let line: Json = serde_json::from_str(line)?;
            Ok(Duration::from_secs_f64(line["seconds"].as_f64().ok_or("no figure")?))
        });
        return seconds.collect();
    }
}
