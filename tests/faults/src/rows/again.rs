//! The same events again.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use crate::{
    Outcome,
    http::Client,
    load::{Log, deliver},
    producer::{Made, Producer},
    row::{Bench, Figures, Row},
    stored::{balanced, figure, judge},
};

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "any-order",
        what: "Each of 1,500 frames (short: 200), half of them in sessions, is sent one to five times, in any order, over four connections at a time. Receipts and rows add up.",
        limit: 120,
        run: any_order,
    },
    Row {
        name: "replay",
        what: "One captured frame is sent 100,000 times (short: 2,000) over eight connections: every answer says duplicate, and the journal does not grow.",
        limit: 180,
        run: replay,
    },
];

fn any_order(bench: &mut Bench) -> Outcome<Figures> {
    let (folder, log) = (bench.folder()?, Log::default());
    let tenant = folder.tenant("shop", &[])?;
    let server = folder.serve()?;
    let mut client = folder.client();
    let mut frames: Vec<Made> = Vec::new();
    for i in 0..bench.times(40, 300) {
        let mut page = Producer::new(&tenant, &mut bench.random);
        if i % 2 == 0 {
            let first = page.frame(1)?;
            let answer = deliver(&mut client, &first, &log, &|| false)?;
            page.session = answer.and_then(|answer| answer.receipt()?.session);
            if page.session.is_none() {
                return Err("no session".into());
            }
        }
        for _ in 0..5 {
            frames.push(page.frame(1 + bench.random.below(100) as u32)?);
        }
    }
    let mut queue = Vec::new();
    let mut extra = 0;
    for frame in &frames {
        let times = 1 + bench.random.below(5);
        extra += (times - 1) * u64::from(frame.count);
        (0..times).for_each(|_| queue.push(frame));
    }
    bench.random.shuffle(&mut queue);
    thread::scope(|scope| {
        let workers: Vec<_> = queue
            .chunks(queue.len().div_ceil(4))
            .map(|part| {
                let (folder, log) = (&folder, &log);
                scope.spawn(move || -> Outcome<()> {
                    let mut client = folder.client();
                    part.iter().try_for_each(|frame| deliver(&mut client, frame, log, &|| false).map(drop))
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| Err("a sender panicked".into())))
    })?;
    let figures = judge(&tenant, &log)?;
    server.stop()?;
    balanced(&folder)?;
    if figures.duplicates != extra {
        return Err(format!("{extra} events were sent again, and receipts say {}", figures.duplicates).into());
    }
    Ok(figures.noting(format!("{} requests", queue.len())))
}

fn replay(bench: &mut Bench) -> Outcome<Figures> {
    let (folder, log) = (bench.folder()?, Log::default());
    let tenant = folder.tenant("shop", &[])?;
    let server = folder.serve()?;
    let mut page = Producer::new(&tenant, &mut bench.random);
    let first = page.frame(1)?;
    page.session = deliver(&mut folder.client(), &first, &log, &|| false)?.and_then(|answer| answer.receipt()?.session);
    let made = page.frame(20)?;
    deliver(&mut folder.client(), &made, &log, &|| false)?;
    let pages = || figure(&tenant, "journal.db", "SELECT page_count FROM pragma_page_count");
    let before = pages()?;
    let (times, done) = (bench.times(2000, 100_000), AtomicU64::new(0));
    thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| -> Outcome<()> {
                    let mut client = Client::new(folder.public);
                    while done.fetch_add(1, Ordering::Relaxed) < times {
                        let answer = client.post("/v1/f", &made.bytes)?;
                        match answer.receipt() {
                            Some(receipt) if (receipt.stored, receipt.duplicate) == (0, made.count) => {
                                log.acked(&made, receipt.duplicate);
                            }
                            _ => return Err(format!("{}: {}", answer.status, answer.text()).into()),
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| Err("a sender panicked".into())))
    })?;
    let figures = judge(&tenant, &log)?;
    let after = pages()?;
    if figures.duplicates != times * u64::from(made.count) || after > before + 2 {
        return Err(format!("{} duplicates, {before} pages before and {after} after", figures.duplicates).into());
    }
    server.stop()?;
    balanced(&folder)?;
    Ok(figures.noting(format!("{times} times; the journal has {before} pages before and {after} after")))
}
