//! Clients that take their time, to keep others out.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Outcome,
    folder::{Folder, How},
    http::{connect, read},
    load::{Load, Log},
    row::{Bench, Figures, Row},
    stored::{balanced, judge},
};

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "slowloris",
        what: "5,000 connections (short: 800) trickle a head that never ends, and come again when they are cut off, for 25 s (short: 5 s), while good clients send. Every request of a good \
               client is answered with 200 at the first attempt; the slow ones are cut off in time.",
        limit: 200,
        run: slowloris,
    },
    Row {
        name: "stalled-body",
        what: "400 connections (short: 100) stop in the middle of a body. Each is answered 408 in time, what it held of the memory is given back, and good clients notice nothing.",
        limit: 60,
        run: stalled,
    },
];

/// Good clients were answered 200 at the first attempt, each time.
fn untroubled(log: &Log) -> Outcome<()> {
    match log.retries() {
        0 => Ok(()),
        retries => Err(format!("good clients had to send {retries} times again").into()),
    }
}

/// Lets this process, and the servers that it starts, have so many files open.
fn allow_files(count: usize) -> Outcome<()> {
    let pid = std::process::id().to_string();
    for limit in [format!("--nofile={count}:"), format!("--nofile={count}:{count}")] {
        if Command::new("prlimit").args(["--pid", &pid, &limit]).stderr(std::process::Stdio::null()).status()?.success()
        {
            return Ok(());
        }
    }
    Err(format!("{count} open files are not allowed here (ulimit -n)").into())
}

fn slowloris(bench: &mut Bench) -> Outcome<Figures> {
    let count = bench.times(800, 5000);
    let lasts = Duration::from_secs(bench.times(5, 25));
    allow_files(2 * count + 500)?;
    let (folder, log) = (bench.folder()?, Log::default());
    let tenant = folder.tenant("shop", &[])?;
    let timeout = bench.times("4s", "8s");
    // All of them come from one address, which by default has fewer places than that.
    let arguments = &["--header-timeout", timeout, "--connections-per-address", "10000"][..];
    let server = folder.serve_with(How { arguments, ..How::default() })?;
    let load = Load { producers: 3, pause: Duration::from_millis(2), ..Load::new(folder.public, &tenant, &log) };
    let (mut most, mut cut, mut opened) = (0.0_f64, 0, Duration::ZERO);
    load.during(&mut bench.random, || {
        let (mut slow, began) = (Vec::new(), Instant::now());
        while slow.len() < count {
            slow.push(trickler(&folder)?);
        }
        opened = began.elapsed();
        most = folder.metric("firsthop_connections", &[])?;
        let began = Instant::now();
        while began.elapsed() < lasts {
            for connection in &mut slow {
                if !trickle(connection)? {
                    cut += 1;
                    *connection = trickler(&folder)?;
                }
            }
            most = most.max(folder.metric("firsthop_connections", &[])?);
            thread::sleep(Duration::from_millis(100));
        }
        // Every one of them ends by itself.
        let due = Instant::now() + Duration::from_secs(20);
        for connection in &mut slow {
            while is_open(connection)? {
                if Instant::now() > due {
                    // The two tell apart a server that waits on from a connection that it has never got.
                    let (from, has) = (connection.local_addr()?, folder.metric("firsthop_connections", &[])?);
                    return Err(format!(
                        "a connection without a request is not cut off: from {from}; the server has {has}"
                    )
                    .into());
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    })?;
    untroubled(&log)?;
    if most < count as f64 || cut == 0 {
        return Err(format!(
            "at most {most} connections were open at a time, {cut} were cut off, and to open {count} took {opened:?}, where a head has {timeout}: the row shows nothing"
        )
        .into());
    }
    let requests = log.acks();
    let memory = server.resident().unwrap_or(0) >> 20;
    let figures = judge(&tenant, &log)?;
    server.stop()?;
    balanced(&folder)?;
    Ok(figures.noting(format!("{most} connections at a time, opened within {opened:.1?}, {cut} cut off; all {requests} good requests answered at once; {memory} MiB resident")))
}

fn trickler(folder: &Folder) -> Outcome<TcpStream> {
    let mut stream = connect(folder.public, Duration::from_secs(10))?;
    stream.write_all(b"POST /v1/f HTTP/1.1\r\nHost: shop\r\nX-Slow: ")?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// One byte more. False: the server has cut it off.
fn trickle(stream: &mut TcpStream) -> Outcome<bool> {
    match stream.write(b"x") {
        Ok(_) => is_open(stream),
        Err(error) if error.kind() == ErrorKind::WouldBlock => is_open(stream),
        Err(error) if is_end(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_open(stream: &mut TcpStream) -> Outcome<bool> {
    match stream.read(&mut [0; 512]) {
        Ok(0) => Ok(false),
        // What it says to it.
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
        Err(error) if is_end(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_end(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
}

fn stalled(bench: &mut Bench) -> Outcome<Figures> {
    let count = bench.times(100, 400);
    let (folder, log) = (bench.folder()?, Log::default());
    let tenant = folder.tenant("shop", &[])?;
    let arguments = &["--body-timeout", "2s"][..];
    let server = folder.serve_with(How { arguments, ..How::default() })?;
    let load = Load { producers: 3, pause: Duration::from_millis(2), ..Load::new(folder.public, &tenant, &log) };
    let (mut held, mut late) = (0.0, Duration::ZERO);
    load.during(&mut bench.random, || {
        let mut slow = Vec::new();
        for i in 0..count {
            let mut stream = connect(folder.public, Duration::from_secs(20))?;
            stream.write_all(b"POST /v1/f HTTP/1.1\r\nHost: shop\r\nContent-Length: 400000\r\n\r\n")?;
            // Of some nothing more comes, of others half.
            stream.write_all(&vec![b'F'; if i % 4 == 0 { 1 } else { 20_000 }])?;
            slow.push((Instant::now(), stream));
        }
        thread::sleep(Duration::from_millis(300));
        held = folder.metric("firsthop_memory_bytes", &[])?;
        for (began, stream) in slow {
            let answer = read(&mut std::io::BufReader::new(stream))?;
            late = late.max(began.elapsed());
            if (answer.status, answer.code().as_str()) != (408, "body-timeout") {
                return Err(format!("a stalled body is answered {}: {}", answer.status, answer.text()).into());
            }
        }
        Ok(())
    })?;
    untroubled(&log)?;
    let left = folder.metric("firsthop_memory_bytes", &[])?;
    let counted = folder.metric("firsthop_refused_total", &["code=\"body-timeout\""])?;
    if held == 0.0 || left > 0.0 || counted < f64::from(count) || late > Duration::from_secs(15) {
        return Err(format!("{held} bytes held, {left} after it, {counted} counted, answered after {late:?}").into());
    }
    let figures = judge(&tenant, &log)?;
    server.stop()?;
    balanced(&folder)?;
    Ok(figures.noting(format!(
        "{count} answered 408 within {:.1} s; they held {:.0} MiB",
        late.as_secs_f64(),
        held / 1048576.0
    )))
}
