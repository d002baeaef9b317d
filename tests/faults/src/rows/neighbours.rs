//! Others: a tenant that takes more than its share, and a second server.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use firsthop_core::SourceId;

use crate::{
    Outcome,
    folder::{Folder, Tenant},
    http::Client,
    load::{Load, Log, deliver},
    producer::{Made, Producer},
    receiver::Receiver,
    row::{Bench, Figures, Row},
    stored::{balanced, judge},
};

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "noisy-tenant",
        what: "One tenant, which may send 1,000 events/s, sends 100 times that over 40 connections; another sends as ever. Neither loses anything, what is too much is answered 429 with Retry-After, and in full the \
               other's p99 moves by at most 20 % or 1 ms.",
        limit: 180,
        run: noisy,
    },
    Row {
        name: "greedy-tenant",
        what: "Nobody has a limit, and one tenant sends all it can over 64 connections, frames of 300, again and again; another sends as ever. Neither loses anything, nobody is refused, and in full the other's p99 moves by at \
               most 20 % or 1 ms; the note says what it is in a server of its own meanwhile.",
        limit: 180,
        run: greedy,
    },
    Row {
        name: "two-servers",
        what: "A second server on the same data folder is refused. Two servers with a folder each get the same events: each stores them once (a journal knows nothing of another), and one sink of both, which \
               knows event ids, has each once.",
        limit: 60,
        run: two_servers,
    },
];

/// Connections of the tenant that sends too much. The server takes its time with a 429, so it needs some.
const NOISE: usize = 40;
/// Connections of the one that sends all it can.
const GREED: usize = 64;

/// 99 of 100 requests are answered within this time.
fn p99(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() * 99 / 100).copied().unwrap_or_default().as_secs_f64() * 1e3
}

/// One connection of the tenant that sends too much.
struct Noise<'a> {
    address: SocketAddr,
    log: &'a Log,
    stop: &'a AtomicBool,
    aloud: &'a AtomicBool,
    asked: &'a AtomicU64,
}

impl Noise<'_> {
    fn make(&self, mut next: impl FnMut() -> Outcome<Made>) -> Outcome<()> {
        // It stands for other machines, which take no processor from the server or from the other tenant's pages.
        #[cfg(target_os = "linux")]
        rustix::process::setpriority_process(None, 19)?;
        let mut client = Client::new(self.address);
        loop {
            while !self.aloud.load(Ordering::Relaxed) {
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(5));
            }
            let made = next()?;
            self.log.sent(&made);
            let answer = client.post("/v1/f", &made.bytes)?;
            match (answer.status, answer.receipt()) {
                (200, Some(receipt)) => self.log.acked(&made, receipt.duplicate),
                (429, _) if !answer.header("retry-after").is_empty() => {}
                _ => return Err(format!("{}: {}", answer.status, answer.text()).into()),
            }
            self.asked.fetch_add(made.count.into(), Ordering::Relaxed);
        }
    }
}

/// A tenant that sends as ever: where, and what it noted.
#[derive(Clone, Copy)]
struct Well<'a>(&'a Folder, &'a Tenant, &'a Log);

/// How it fares alone and beside another: its p99 in milliseconds, round by round.
struct Compared {
    alone: Vec<f64>,
    beside: Vec<f64>,
    /// In a server of its own while the other sends to the first, if that was tried: what processors and disk do to it, and no server can help.
    apart: Vec<f64>,
    /// Events a second that the other asked for, and it itself meanwhile.
    rate: f64,
    own: f64,
}

/// The one in the middle, and those between which the middle half is.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_unstable_by(f64::total_cmp);
    let at = |part: usize| values.get(values.len().saturating_sub(1) * part / 4).copied().unwrap_or_default();
    [at(1), at(2), at(3)]
}

impl Compared {
    /// Has it send alone and beside the noise in turn, so that what else the machine does weighs on both.
    fn by<N: FnMut() -> Outcome<Made> + Send>(
        well: Well<'_>,
        elsewhere: Option<Well<'_>>,
        loud_log: &Log,
        noise: Vec<N>,
        bench: &mut Bench,
    ) -> Outcome<Self> {
        let (rounds, lasts) = (bench.times(1, 13), Duration::from_secs(bench.times(2, 3)));
        let (stop, aloud, asked) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
        let (mut alone, mut beside, mut apart) = (Vec::new(), Vec::new(), Vec::new());
        let (mut noisy, mut own) = (Duration::ZERO, 0);
        thread::scope(|scope| -> Outcome<()> {
            let (stop, aloud, asked) = (&stop, &aloud, &asked);
            let noise: Vec<_> = noise
                .into_iter()
                .map(|next| {
                    let noise = Noise { address: well.0.public, log: loud_log, stop, aloud, asked };
                    scope.spawn(move || noise.make(next))
                })
                .collect();
            let mut turn = |well: Well<'_>, is_loud| {
                aloud.store(is_loud, Ordering::Relaxed);
                let began = Instant::now();
                let times = quiet(well, lasts, bench);
                if is_loud {
                    noisy += began.elapsed();
                    own += times.as_ref().map_or(0, Vec::len) * EVENTS as usize;
                }
                aloud.store(false, Ordering::Relaxed);
                // What is under way shall not be the next one's.
                thread::sleep(PAUSE);
                times.map(p99)
            };
            let mut turns = || -> Outcome<()> {
                for round in 0..rounds {
                    // Each comes after the other as often as before it.
                    let first = round % 2 == 1;
                    for is_loud in [first, !first] {
                        let took = turn(well, is_loud)?;
                        if is_loud { &mut beside } else { &mut alone }.push(took);
                    }
                    apart.extend(elsewhere.map(|well| turn(well, true)).transpose()?);
                }
                Ok(())
            };
            let result = turns();
            stop.store(true, Ordering::Relaxed);
            let made = noise.into_iter().map(|one| one.join().unwrap_or_else(|_| Err("the noise panicked".into())));
            made.fold(result, Result::and)
        })?;
        let seconds = noisy.as_secs_f64();
        Ok(Self { alone, beside, apart, rate: asked.into_inner() as f64 / seconds, own: own as f64 / seconds })
    }

    /// What it is judged by, and said of it. What moved is told round by round: of two turns, one behind the other, on the same machine
    /// with the same other work. Of rounds the one in the middle counts, which the machine's mishaps in some do not move.
    fn verdict(&self, bench: &Bench) -> Outcome<String> {
        let rounds = || self.alone.iter().zip(&self.beside);
        let [_, alone, _] = quartiles(self.alone.clone());
        let [_, beside, _] = quartiles(self.beside.clone());
        let [low, moved, high] = quartiles(rounds().map(|(alone, beside)| beside / alone * 100.0 - 100.0).collect());
        let [_, by, _] = quartiles(rounds().map(|(alone, beside)| beside - alone).collect());
        let said = format!("the other's p99 {alone:.2} ms alone, {beside:.2} ms beside it");
        if bench.short {
            return Ok(format!("{said} (not judged: the short version has one round)"));
        }
        let mut said =
            format!("{said}: {moved:+.0} %, in half of {} rounds {low:+.0} to {high:+.0} %", self.alone.len());
        if !self.apart.is_empty() {
            let [_, apart, _] = quartiles(self.apart.clone());
            said += &format!("; {apart:.2} ms in a server of its own meanwhile");
        }
        if moved > 20.0 && by > 1.0 { Err(said.into()) } else { Ok(said) }
    }
}

/// Between two turns.
const PAUSE: Duration = Duration::from_millis(300);
/// Events of its frames.
const EVENTS: u32 = 10;

/// A tenant that sends a frame of ten events every few milliseconds, and how long each answer took.
fn quiet(Well(folder, tenant, log): Well<'_>, lasts: Duration, bench: &mut Bench) -> Outcome<Vec<Duration>> {
    let mut page = Producer::new(tenant, &mut bench.random);
    let (mut client, mut times, began) = (folder.client(), Vec::new(), Instant::now());
    while began.elapsed() < lasts {
        let made = page.frame(EVENTS)?;
        let sent = Instant::now();
        deliver(&mut client, &made, log, &|| false)?;
        times.push(sent.elapsed());
        thread::sleep(Duration::from_millis(3));
    }
    Ok(times)
}

fn noisy(bench: &mut Bench) -> Outcome<Figures> {
    let (folder, loud_log, log) = (bench.folder()?, Log::default(), Log::default());
    let (loud, well) = (folder.tenant("loud", &[])?, folder.tenant("well", &[])?);
    let file = loud.folder.join("tenant.toml");
    let limits = "\n[limits]\nevents = 1000\nburst = \"1s\"\n";
    std::fs::write(&file, std::fs::read_to_string(&file)? + limits)?;
    let server = folder.serve()?;
    let noise = again_and_again(&loud, NOISE, 2, bench)?;
    let compared = Compared::by(Well(&folder, &well, &log), None, &loud_log, noise, bench)?;
    let refused = folder.metric("firsthop_http_requests_total", &["status=\"429\""])?;
    if refused == 0.0 || compared.rate < 50_000.0 {
        return Err(format!("{:.0} events/s, {refused} answers 429: that is no noise", compared.rate).into());
    }
    let said = compared.verdict(bench)?;
    // Later it gets in what it could not.
    std::fs::write(&file, std::fs::read_to_string(&file)?.replace("events = 1000\n", ""))?;
    loud_log.send_open(folder.public)?;
    let figures = of_both((&loud, &loud_log), (&well, &log))?;
    server.stop()?;
    balanced(&folder)?;
    let rate = compared.rate;
    Ok(figures.noting(format!("{rate:.0} events/s of a tenant that may send 1,000, {refused} answers 429; {said}")))
}

fn greedy(bench: &mut Bench) -> Outcome<Figures> {
    let (folder, loud_log, log) = (bench.folder()?, Log::default(), Log::default());
    let (loud, well) = (folder.tenant("loud", &[])?, folder.tenant("well", &[])?);
    let server = folder.serve()?;
    let noise = again_and_again(&loud, GREED, 10, bench)?;
    let (elsewhere, other_log) = (bench.folder()?, Log::default());
    let other = elsewhere.tenant("well", &[])?;
    let other_server = elsewhere.serve()?;
    let apart = Some(Well(&elsewhere, &other, &other_log));
    let compared = Compared::by(Well(&folder, &well, &log), apart, &loud_log, noise, bench)?;
    if let Some(fault) = judge(&other, &other_log)?.fault() {
        return Err(format!("in a server of its own: {fault}").into());
    }
    other_server.stop()?;
    let refused = folder.metric("firsthop_http_requests_total", &["status=\"429\""])?;
    if refused > 0.0 {
        return Err(format!("{refused} answers 429, and nobody has a limit").into());
    }
    if compared.rate < 100.0 * compared.own {
        return Err(format!("{:.0} events/s beside {:.0}: that is not greedy", compared.rate, compared.own).into());
    }
    let said = compared.verdict(bench)?;
    let figures = of_both((&loud, &loud_log), (&well, &log))?;
    server.stop()?;
    balanced(&folder)?;
    Ok(figures.noting(format!("{:.0} events/s of a tenant without a limit; {said}", compared.rate)))
}

/// For each connection so many frames, over and over: made beforehand, so that the noise costs the server and not this program.
fn again_and_again(
    tenant: &Tenant,
    connections: usize,
    frames: usize,
    bench: &mut Bench,
) -> Outcome<Vec<impl FnMut() -> Outcome<Made> + Send + use<>>> {
    let mut one = || -> Outcome<_> {
        let mut page = Producer::new(tenant, &mut bench.random);
        let frames = (0..frames).map(|_| page.frame(300)).collect::<Outcome<Vec<Made>>>()?;
        let mut frames = frames.into_iter().cycle();
        Ok(move || frames.next().ok_or_else(|| "no frames".into()))
    };
    (0..connections).map(|_| one()).collect()
}

/// Both tenants' events: all there, and the one that sends as ever was never sent away.
fn of_both((loud, loud_log): (&Tenant, &Log), (well, log): (&Tenant, &Log)) -> Outcome<Figures> {
    if log.retries() > 0 {
        return Err(format!("the other tenant had to send {} times again", log.retries()).into());
    }
    let theirs = judge(loud, loud_log)?;
    if let Some(fault) = theirs.fault() {
        return Err(format!("of the loud tenant {fault}").into());
    }
    let mut figures = judge(well, log)?;
    figures.sent += theirs.sent;
    figures.acked += theirs.acked;
    figures.stored += theirs.stored;
    figures.duplicates += theirs.duplicates;
    Ok(figures)
}

fn two_servers(bench: &mut Bench) -> Outcome<Figures> {
    let (folder, log) = (bench.folder()?, Log::default());
    let tenant = folder.tenant("shop", &[])?;
    let server = folder.serve()?;
    // The same folder: refused, and the first goes on.
    let second = bench.folder_at(folder.data.clone())?;
    match second.serve() {
        Ok(_) => return Err("a second server serves the same folder".into()),
        Err(error) if error.to_string().contains("another firsthop serves this folder") => {}
        Err(error) => return Err(error),
    }
    // Another folder, with the same tenant and keys.
    let other = bench.folder()?;
    let at = other.data.join("tenants").join(tenant.id.to_string());
    std::fs::create_dir_all(&at)?;
    for name in ["tenant.toml", "keys.toml"] {
        std::fs::copy(tenant.folder.join(name), at.join(name))?;
    }
    let there = Tenant { folder: at, ..tenant.clone() };
    // Both deliver to one sink, which knows event ids.
    let receiver = Receiver::start()?;
    receiver.add_to(&tenant, "batch_events = 100")?;
    receiver.add_to(&there, "batch_events = 100")?;
    let other_server = other.serve()?;
    let other_log = Log::default();
    let mut frames: Vec<(SourceId, Made)> = Vec::new();
    for _ in 0..bench.times(20, 200) {
        let mut page = Producer::new(&tenant, &mut bench.random);
        for _ in 0..5 {
            frames.push((page.source, page.frame(1 + bench.random.below(40) as u32)?));
        }
    }
    // A balancer that sends each to either, and a retry to the other.
    let (mut one, mut two) = (Client::new(folder.public), Client::new(other.public));
    for (_, made) in &frames {
        deliver(&mut one, made, &log, &|| false)?;
        deliver(&mut two, made, &other_log, &|| false)?;
        deliver(&mut one, made, &log, &|| false)?;
    }
    Load::new(folder.public, &tenant, &log)
        .during(&mut bench.random, || log.await_acks(50, Duration::from_secs(20)))?;
    let figures = judge(&tenant, &log)?;
    let theirs = judge(&there, &other_log)?;
    if let Some(fault) = theirs.fault() {
        return Err(format!("the second server: {fault}").into());
    }
    // All that the second has the first has too, so the sink has as many as that.
    receiver.await_events(figures.stored, Duration::from_secs(60))?;
    let due = Instant::now() + Duration::from_secs(60);
    let whole = figures.stored + theirs.stored;
    while receiver.counts().1 < whole {
        if Instant::now() > due {
            return Err(format!("the sink was given {} of {whole} events", receiver.counts().1).into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    let (distinct, all) = receiver.counts();
    if distinct != figures.stored || receiver.missing(&log) > 0 {
        return Err(format!("the sink has {distinct} events under their ids, and there are {}", figures.stored).into());
    }
    server.stop()?;
    other_server.stop()?;
    balanced(&folder)?;
    balanced(&other)?;
    Ok(figures.noting(format!(
        "the other server stored {} of the same events, each once; their sink was given {all} and has {distinct}",
        theirs.stored
    )))
}
