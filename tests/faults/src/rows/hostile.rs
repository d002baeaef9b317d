//! Requests that lie, or mean two things, or are too much.

use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::Shutdown,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value as Json;

use crate::{
    Outcome,
    folder::{Folder, Tenant, resident},
    http::{Answer, connect, read},
    load::{Load, Log},
    producer::Producer,
    row::{Bench, Figures, Row},
    stored::{balanced, judge, open},
};

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "lengths",
        what: "Content-Length too long, too short, negative, huge, twice; chunks that lie; every length and count in a frame's header changed, with a CRC that fits. Refused with 4xx or cut off, \
               nothing of it stored, good clients served.",
        limit: 120,
        run: lengths,
    },
    Row {
        name: "encodings",
        what: "Compressed bodies, among them a bomb: 415 `unsupported-encoding`, said and counted, and nothing is unpacked.",
        limit: 60,
        run: encodings,
    },
    Row {
        name: "json",
        what: "JSON that is deep, wide, long, has numbers, texts and repeated names that are too much: each answered within a second (short: five), with 4xx or 200, never 5xx.",
        limit: 90,
        run: json,
    },
    Row {
        name: "smuggling",
        what: "Heads that two readers may understand differently (Content-Length and Transfer-Encoding, folded and bare lines, NUL, names with spaces), each with a second request hidden in its body: that \
               one is never carried out.",
        limit: 90,
        run: smuggling,
    },
];

/// Does something hostile while good clients send, and counts. What it does returns a note, and how many events it had stored itself.
fn beside(
    bench: &mut Bench,
    hostile: impl FnOnce(&mut Bench, &Folder, &Tenant) -> Outcome<(String, u64)>,
) -> Outcome<Figures> {
    let (folder, log) = (bench.folder()?, Log::default());
    let tenant = folder.tenant("shop", &[])?;
    let server = folder.serve()?;
    let load = Load { producers: 2, pause: Duration::from_millis(5), ..Load::new(folder.public, &tenant, &log) };
    let mut random = bench.random.fork();
    let (note, own) = load.during(&mut random, || hostile(bench, &folder, &tenant))?;
    if log.retries() > 0 {
        return Err(format!("good clients had to send {} times again", log.retries()).into());
    }
    let figures = judge(&tenant, &log)?;
    unharmed(&folder)?;
    server.stop()?;
    balanced(&folder)?;
    Ok(Figures { stored: figures.stored - own, ..figures }.noting(note))
}

/// Nothing was answered with 5xx, and nothing panicked.
pub(super) fn unharmed(folder: &Folder) -> Outcome<()> {
    let defects = folder.metric("firsthop_http_requests_total", &["status=\"5"])?;
    if defects > 0.0 {
        return Err(format!("{defects} requests were answered with 5xx").into());
    }
    if folder.log().contains("panicked") { Err("it panicked".into()) } else { Ok(()) }
}

/// Sends a whole request on a connection of its own, and reads its answer.
fn ask(folder: &Folder, bytes: &[u8]) -> Outcome<Answer> {
    Ok(folder.client().raw(bytes)?)
}

/// Sends bytes on a connection of their own and reads all answers. A request that is not whole has none until the sending side ends, so they are not waited
/// for long before that.
pub(super) fn send(folder: &Folder, bytes: &[u8]) -> Outcome<Vec<Answer>> {
    let mut stream = connect(folder.public, Duration::from_secs(10))?;
    // Cut off, it says why before that.
    let _ = stream.write_all(bytes);
    let mut reader = BufReader::new(stream);
    let mut answers = Vec::new();
    let mut patience = Duration::from_millis(800);
    loop {
        reader.get_ref().set_read_timeout(Some(patience))?;
        match reader.fill_buf() {
            Ok([]) => return Ok(answers),
            Ok(_) => answers.push(read(&mut reader)?),
            Err(error) if is_silence(&error) => break,
            Err(_) => return Ok(answers),
        }
        // Another answer would come at once.
        patience = Duration::from_millis(120);
    }
    let _ = reader.get_ref().shutdown(Shutdown::Write);
    reader.get_ref().set_read_timeout(Some(Duration::from_secs(10)))?;
    loop {
        match read(&mut reader) {
            Ok(answer) => answers.push(answer),
            Err(error) if is_silence(&error) => return Err("the connection does not end".into()),
            Err(_) => return Ok(answers),
        }
    }
}

fn is_silence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

pub(super) fn post(headers: &str, body: &[u8]) -> Vec<u8> {
    [format!("POST /v1/f HTTP/1.1\r\nHost: shop\r\n{headers}\r\n").as_bytes(), body].concat()
}

/// None of the answers is a good one.
pub(super) fn refused(what: &str, answers: &[Answer]) -> Outcome<()> {
    match answers.iter().find(|answer| !(400..500).contains(&answer.status)) {
        Some(answer) => Err(format!("{what}: {} {}", answer.status, answer.text()).into()),
        None => Ok(()),
    }
}

fn lengths(bench: &mut Bench) -> Outcome<Figures> {
    beside(bench, |bench, folder, tenant| {
        let mut tried = 0;
        let mut page = Producer::new(tenant, &mut bench.random);
        let frame = page.frame(3)?.bytes;
        let length = frame.len();
        let say = |length: &dyn std::fmt::Display| format!("Content-Length: {length}\r\n");
        for (what, bytes) in [
            ("a body that ends too soon", post(&say(&(length + 100)), &frame)),
            ("a body that goes on", post(&say(&(length - 100)), &frame)),
            ("half a body", post(&say(&length), &frame[..length / 2])),
            ("no length", post("", &frame)),
            ("a negative length", post(&say(&-1), &frame)),
            ("a length in words", post(&say(&"all"), &frame)),
            ("a length of 10^18", post(&say(&1_000_000_000_000_000_000_u64), &frame)),
            ("a length of 10^30", post(&say(&"1000000000000000000000000000000"), &frame)),
            ("two lengths", post(&format!("{}{}", say(&length), say(&(length + 1))), &frame)),
            ("a list of lengths", post(&say(&format!("{length}, {}", length + 1)), &frame)),
            ("a length with a sign", post(&say(&format!("+{length}")), &frame)),
            ("chunks with a length that is none", post("Transfer-Encoding: chunked\r\n", b"xyz\r\nabc\r\n0\r\n\r\n")),
            ("a chunk of 2^64", post("Transfer-Encoding: chunked\r\n", b"10000000000000000\r\nabc\r\n0\r\n\r\n")),
            ("a chunk that ends too soon", post("Transfer-Encoding: chunked\r\n", b"fff\r\nabc")),
            ("a chunk that goes on", post("Transfer-Encoding: chunked\r\n", b"1\r\nabc\r\n0\r\n\r\n")),
        ] {
            refused(what, &send(folder, &bytes)?)?;
            tried += 1;
        }
        // Every length and count in the header, to the least, the largest, and one beside what is right.
        for (at, width) in [(6, 2), (44, 2), (56, 8), (76, 4)] {
            let mut right = [0; 8];
            right[..width].copy_from_slice(&frame[at..at + width]);
            let right = u64::from_le_bytes(right);
            for wrong in [0, 1, right.wrapping_sub(1), right + 1, right + 256, 1 << 15, 1 << 31, u64::MAX / 2, u64::MAX]
            {
                let mut changed = frame.clone();
                changed[at..at + width].copy_from_slice(&wrong.to_le_bytes()[..width]);
                // Where the first number alone is another one, it is a good frame.
                if changed == frame || (at == 56 && wrong < u64::MAX / 2) {
                    continue;
                }
                changed[80..84].fill(0);
                let crc = firsthop_core::crc32(&[&changed]);
                changed[80..84].copy_from_slice(&crc.to_le_bytes());
                let answer = ask(folder, &post(&say(&changed.len()), &changed))?;
                if !(400..500).contains(&answer.status) || answer.code().is_empty() {
                    let answer = (answer.status, answer.text());
                    return Err(format!("bytes {at} to {} as {wrong}: {answer:?}", at + width).into());
                }
                tried += 1;
            }
        }
        // And the frame itself is as good as ever.
        let answers = send(folder, &post(&say(&length), &frame))?;
        if answers.first().and_then(Answer::receipt).is_none_or(|receipt| receipt.stored + receipt.duplicate != 3) {
            return Err("the frame itself is not taken".into());
        }
        Ok((format!("{tried} lies"), 3))
    })
}

fn encodings(bench: &mut Bench) -> Outcome<Figures> {
    beside(bench, |bench, folder, tenant| {
        let frame = Producer::new(tenant, &mut bench.random).frame(3)?.bytes;
        let bomb = gzipped_zeros(BOMB)?;
        if bomb.len() > 500_000 {
            return Err(format!("{BOMB} zeros became {} bytes: more than a body may have", bomb.len()).into());
        }
        let before = server_memory(folder)?;
        let mut tried = 0;
        for name in
            ["gzip", "deflate", "br", "zstd", "x-gzip", "compress", "gzip, gzip", "identity, gzip", "GZIP", "nonsense"]
        {
            for body in [&frame, &bomb] {
                let headers = format!("Content-Encoding: {name}\r\nContent-Length: {}\r\n", body.len());
                let answer = ask(folder, &post(&headers, body))?;
                if (answer.status, answer.code().as_str(), answer.header("accept-encoding"))
                    != (415, "unsupported-encoding", "identity")
                {
                    return Err(format!("{name}: {answer:?}").into());
                }
                tried += 1;
            }
        }
        let counted = folder.metric("firsthop_refused_total", &["code=\"unsupported-encoding\""])?;
        if counted != f64::from(tried) {
            return Err(format!("{tried} compressed bodies, {counted} counted").into());
        }
        // Had one of them been unpacked, it would show.
        let grown = server_memory(folder)?.saturating_sub(before);
        if grown > BOMB / 4 {
            return Err(format!("the server held {} MiB more", grown >> 20).into());
        }
        Ok((
            format!(
                "{tried} compressed bodies, half of them {} KB for {} MiB; the server held at most {} MiB more",
                bomb.len() / 1000,
                BOMB >> 20,
                grown >> 20
            ),
            0,
        ))
    })
}

/// What the bomb is when it is unpacked.
const BOMB: u64 = 200 << 20;

/// A whole gzip member, by the system's gzip.
fn gzipped_zeros(count: u64) -> Outcome<Vec<u8>> {
    let mut gzip = Command::new("gzip").arg("-9c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = gzip.stdin.take().ok_or("no input")?;
    let writing = thread::spawn(move || io::copy(&mut io::repeat(0).take(count), &mut input));
    let output = gzip.wait_with_output()?;
    match writing.join() {
        Ok(Ok(_)) if output.status.success() => Ok(output.stdout),
        _ => Err("gzip fails: the system's is needed".into()),
    }
}

/// The most that the server has held, in bytes.
fn server_memory(folder: &Folder) -> Outcome<u64> {
    let said: Json = serde_json::from_str(&folder.ok(&["status", "--json"])?)?;
    let pid = said["server"]["pid"].as_u64().ok_or("no server says which it is")?;
    resident(pid as u32).ok_or_else(|| "the system does not say what the server has held".into())
}

fn json(bench: &mut Bench) -> Outcome<Figures> {
    // The short version runs beside other tests.
    let most = Duration::from_secs(bench.times(5, 1));
    beside(bench, |_, folder, tenant| {
        let basic = BASE64_STANDARD.encode(format!("{}:", tenant.key));
        let deep = |depth: usize, open: &str, close: &str| format!("{}1{}", open.repeat(depth), close.repeat(depth));
        let with = |properties: &str| format!(r#"{{"event":"x","userId":"u","properties":{properties}}}"#);
        let wide = |count: usize| {
            let members: Vec<String> = (0..count).map(|i| format!(r#""k{i}":{i}"#)).collect();
            format!("{{{}}}", members.join(","))
        };
        let mut bodies = vec![
            String::new(),
            "{".repeat(400_000),
            "[".repeat(400_000),
            format!("\"{}\"", "x".repeat(400_000)),
            "1".repeat(400_000),
            with(&format!("{{\"n\":{}}}", "9".repeat(20_000))),
            with("{\"n\":1e999999999}"),
            with("{\"n\":-0.0000000000000000000000000000000000001e-999999}"),
            with(&format!("{{\"t\":\"{}\"}}", "\\u0000".repeat(4_000))),
            with(&format!("{{\"t\":\"{}\"}}", "\\ud800".repeat(4_000))),
            with(&format!("{{{}}}", vec!["\"a\":1"; 4_000].join(","))),
            format!("{{{}}}", vec![r#""event":"x""#; 30_000].join(",")),
            format!(r#"{{"batch":[{}]}}"#, vec!["{}"; 100_000].join(",")),
            format!(r#"{{"batch":[{}]}}"#, vec![r#"{"type":"track"}"#; 20_000].join(",")),
            format!(
                r#"{{"batch":[{}],"context":{}}}"#,
                vec![r#"{"type":"track","event":"x","userId":"u"}"#; 2_000].join(","),
                wide(1_000)
            ),
            with(&deep(5_000, "[", "]")),
            with(&format!("{{\"a\":{}}}", deep(40_000, "{\"a\":", "}"))),
        ];
        for depth in [8, 9, 31, 32, 33, 64, 1000] {
            bodies.push(with(&format!("{{\"a\":{}}}", deep(depth, "[", "]"))));
        }
        for count in [1_023, 1_025, 2_100, 10_000, 40_000] {
            bodies.push(with(&wide(count)));
        }
        let (mut slowest, mut taken, mut stored) = (Duration::ZERO, 0, 0);
        for body in &bodies {
            for path in ["/v1/track", "/v1/batch"] {
                let head = format!(
                    "POST {path} HTTP/1.1\r\nHost: shop\r\nAuthorization: Basic {basic}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                let began = Instant::now();
                let answer = ask(folder, &[head.as_bytes(), body.as_bytes()].concat())?;
                let took = began.elapsed();
                slowest = slowest.max(took);
                let begins: String = body.chars().take(60).collect();
                match (answer.status, answer.code()) {
                    (200, _) => {
                        let verdict = answer.header("firsthop-receipt");
                        taken += 1;
                        stored += u64::from(firsthop_intake::Verdict::from_header(verdict)?.stored);
                    }
                    (400..500, code) if !code.is_empty() => {}
                    other => return Err(format!("{path} {begins}…: {other:?}").into()),
                }
                if took > most {
                    return Err(format!("{path} {begins}…: answered after {took:?}").into());
                }
            }
        }
        let note = format!("{} bodies, {taken} taken; the slowest took {} ms", 2 * bodies.len(), slowest.as_millis());
        Ok((note, stored))
    })
}

fn smuggling(bench: &mut Bench) -> Outcome<Figures> {
    beside(bench, |bench, folder, tenant| {
        let mut sources = Vec::new();
        let mut hidden_in = |bench: &mut Bench| -> Outcome<Vec<u8>> {
            let made = Producer::new(tenant, &mut bench.random).frame(3)?;
            sources.push(made.source);
            Ok(post(&format!("Content-Length: {}\r\n", made.bytes.len()), &made.bytes))
        };
        // That a second request on a connection is carried out shows that one which is not would have been noticed.
        let pair = [hidden_in(bench)?, hidden_in(bench)?].concat();
        let answers = send(folder, &pair)?;
        if answers.iter().filter(|answer| answer.status == 200).count() != 2 {
            return Err(format!("two good requests on a connection are answered {answers:?}").into());
        }
        let mut shapes: Vec<Vec<u8>> = Vec::new();
        // For one reader the body is the hidden request, for the other it ends before that.
        for shape in SHAPES {
            let body = [b"0\r\n\r\n".as_slice(), &hidden_in(bench)?].concat();
            shapes.push(post(&shape.replace("{length}", &body.len().to_string()), &body));
        }
        // Lines that are no heads at all, each followed by a good request.
        for line in NO_HEADS {
            shapes.push([line.as_bytes(), b"\r\n", &hidden_in(bench)?].concat());
        }
        for bytes in &shapes {
            let answers = send(folder, bytes)?;
            if let Some(answer) = answers.iter().find(|answer| answer.status == 200) {
                let head = String::from_utf8_lossy(&bytes[..bytes.len().min(160)]).into_owned();
                return Err(format!("{head:?}: the hidden request is carried out: {}", answer.text()).into());
            }
        }
        // Answered or not, it must not have been carried out.
        let connection = open(tenant, "journal.db")?;
        for (i, source) in sources.iter().enumerate().skip(2) {
            let sql = "SELECT COUNT(*) FROM frames WHERE source = ?1";
            let frames: i64 = connection.query_row(sql, [&source.as_bytes()[..]], |row| row.get(0))?;
            if frames > 0 {
                let head = String::from_utf8_lossy(&shapes[i - 2][..120]).into_owned();
                return Err(format!("{head:?}: the hidden request is carried out").into());
            }
        }
        Ok((format!("{} shapes", shapes.len()), 6))
    })
}

/// Heads of which two readers may find two ends.
const SHAPES: &[&str] = &[
    "Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n",
    "Content-Length: {length}\r\nTransfer-Encoding: identity, chunked\r\n",
    "Content-Length: {length}\r\nTransfer-Encoding: chunked, identity\r\n",
    "Content-Length: {length}\r\nTransfer-Encoding: xchunked\r\n",
    "Content-Length: {length}\r\nTransfer-Encoding : chunked\r\n",
    "Content-Length: {length}\r\nTransfer-Encoding:\tchunked\r\n",
    "Content-Length: {length}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "Content-Length: {length}\r\n Transfer-Encoding: chunked\r\n",
    "Content-Length: {length}\r\nX: y\r\n\tTransfer-Encoding: chunked\r\n",
    "Content-Length: {length}\r\nX: y\nTransfer-Encoding: chunked\r\n",
    "Content-Length: {length}\r\nX: y\rTransfer-Encoding: chunked\r\n",
    "Content-Length: {length}\r\nX: \0\r\nTransfer-Encoding: chunked\r\n",
    "Content-Length: {length}\r\nContent-Length: 0\r\n",
    "Content-Length: 0\r\nContent-Length: {length}\r\n",
    "Content-Length: {length}, 0\r\n",
    "Content-Length: 0{length}\r\nTransfer-Encoding: Chunked\r\n",
    "Content\0-Length: {length}\r\nTransfer-Encoding: chunked\r\n",
];

const NO_HEADS: &[&str] = &[
    "POST /v1/f\r\n",
    "POST  /v1/f HTTP/1.1\r\nHost: shop\r\n",
    "POST /v1/f HTTP/1.1 x\r\nHost: shop\r\n",
    "POST /v1/f HTTP/9.9\r\nHost: shop\r\n",
    "POST /v1/f\0 HTTP/1.1\r\nHost: shop\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n",
    "POST /v1/f HTTP/1.1\r\nHost shop\r\n",
    "POST /v1/f HTTP/1.1\r\n: shop\r\n",
    "\0\0\0\0\r\n",
    "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}",
];
