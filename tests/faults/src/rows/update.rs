//! Updates: one server after another on the same folder.

use std::time::{Duration, Instant};

use crate::{
    Outcome,
    load::{Load, Log},
    row::{Bench, Figures, Row},
    stored::{judge, verify},
};

pub(super) const ROWS: &[Row] = &[Row {
    name: "updates",
    what: "20 updates (short: 3) under load, each by ending the server and starting the next. Producers that find nobody send again; the gap is the column for recovery.",
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
            let began = Instant::now();
            server.stop()?;
            server = folder.serve()?;
            log.await_acks(1, Duration::from_secs(20))?;
            longest = longest.max(began.elapsed());
        }
        log.await_acks(100, Duration::from_secs(20))?;
        Ok((server, longest))
    })?;
    let figures = judge(&tenant, &log)?.recovered(longest);
    let retries = log.retries();
    server.stop()?;
    verify(&folder)?;
    Ok(figures.noting(format!("{times} updates; {retries} attempts found nobody")))
}
