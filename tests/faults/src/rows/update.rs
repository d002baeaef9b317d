//! Updates: one server after another on the same folder.

use std::time::{Duration, Instant};

use crate::{
    Outcome,
    folder::How,
    load::{Load, Log},
    row::{Bench, Figures, Row},
    stored::{balanced, judge},
};

pub(super) const ROWS: &[Row] = &[Row {
    name: "updates",
    what: "20 updates (short: 3) under load: a second server takes the listeners over from the first (`serve --take-over`), which ends with 0. Nobody who connects is refused.",
    short: true,
    limit: 180,
    run: updates,
}];

fn updates(bench: &mut Bench) -> Outcome<Figures> {
    let (folder, log) = (bench.folder()?, Log::default());
    let tenant = folder.tenant("shop", &[])?;
    let times = bench.times(3, 20);
    let server = folder.serve()?;
    let load = Load { pause: Duration::from_millis(2), ..Load::new(folder.public, &tenant, &log) };
    let (server, longest) = load.during(&mut bench.random, || {
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
    })?;
    let figures = judge(&tenant, &log)?.recovered(longest);
    if log.nobody() > 0 {
        return Err(format!("{} connections were refused", log.nobody()).into());
    }
    let retries = log.retries();
    server.stop()?;
    balanced(&folder)?;
    Ok(figures.noting(format!("{times} updates; no connection refused, {retries} requests sent again")))
}
