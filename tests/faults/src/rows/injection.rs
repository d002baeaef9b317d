//! Texts that end a line or a field where somebody reads on: in heads, in paths, and in events.

use std::{
    collections::BTreeSet,
    fs, thread,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value as Json, json};

use super::hostile::{post, refused, send, unharmed};
use crate::{
    Outcome,
    folder::{Folder, How, Tenant},
    http::Answer,
    load::{Load, Log},
    producer::Producer,
    receiver::Receiver,
    row::{Bench, Figures, Row},
    stored::{balanced, judge, open},
};

pub(super) const ROWS: &[Row] = &[Row {
    name: "injection",
    what: "Ends of lines in every form (CR, LF, both, folded, NUL, U+0085, U+2028, escaped, wide letters that end in them), each followed by a header, an object and an escape sequence: in names and values of headers, \
           in paths, in every text of an event. None comes back as a header or in an answer's body; events that have them are stored as they are, and are one line of NDJSON and one CloudEvent each; \
           the metrics have no line, the log no text of them, and a terminal gets them harmless.",
    limit: 240,
    run: injection,
}];

/// What ends a line, for one reader or another.
const ENDS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\r\n ",
    "\n\t",
    "\0",
    "\u{b}",
    "\u{c}",
    "\u{85}",
    "\u{2028}",
    "\u{1b}E",
    "%0d%0a",
    "%0A",
    "\\r\\n",
    "\u{560d}\u{560a}",
    "\"",
    "';--",
];
/// What is found where it should not be.
const MARK: &str = "fh-injected";

/// After an end, what a header, a line of JSON, a line of metrics and a terminal would take.
fn evil(end: &str) -> String {
    format!("x{end}Set-Cookie: {MARK}=1{end}{{\"{MARK}\":1}}{end}{MARK}_total 1{end}\u{1b}[31m")
}

/// The same for a reader of heads alone: with nothing in it that a head may not have, but for the end.
fn plain(end: &str) -> String {
    format!("x{end}Set-Cookie:{MARK}=1{end}{MARK}:1{end}")
}

/// The headers that the server reads, and some that others echo.
const HEADERS: &[&str] = &[
    "Origin",
    "Authorization",
    "Content-Type",
    "User-Agent",
    "Sec-CH-UA-Mobile",
    "Sec-CH-UA-Platform",
    "Sec-Purpose",
    "Sec-GPC",
    "traceparent",
    "tracestate",
    "Firsthop-Forwarded",
    "X-Forwarded-For",
    "X-Request-Id",
    "Idempotency-Key",
    "If-None-Match",
    "Access-Control-Request-Headers",
    "Referer",
    "Cookie",
];

/// All that an answer may have.
const ANSWERED: &[&str] = &[
    "accept-encoding",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "allow",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "cross-origin-resource-policy",
    "date",
    "etag",
    "firsthop-receipt",
    "location",
    "retry-after",
    "timing-allow-origin",
    "www-authenticate",
    "x-content-type-options",
];

/// Nothing of what was sent comes back.
fn harmless(what: &str, answers: &[Answer]) -> Outcome<()> {
    for answer in answers {
        let strange = answer
            .headers()
            .find(|(name, value)| !ANSWERED.contains(name) || value.contains(char::is_control) || value.contains(MARK));
        if strange.is_some() || answer.text().contains(MARK) {
            return Err(format!("{what:?} comes back: {answer:?}").into());
        }
    }
    Ok(())
}

/// A release of the page SDK, of one file: what is asked of another leads to it.
fn sdk(bench: &Bench) -> Outcome<String> {
    let folder = bench.path.join("sdk");
    fs::create_dir(&folder)?;
    let integrity = "sha384-BpFICzdPBNixK4o928oBOmMmx/LqAT37jxGYHs3bM0tYb4bgovLGDhlR6UcYd1LY";
    let file = json!({ "path": "/sdk/0123456789abcdef/firsthop.js", "integrity": integrity, "size": 7 });
    let listing = json!({ "version": "0.1.0", "build": "0123456789abcdef", "files": { "firsthop.js": file } });
    fs::write(folder.join("firsthop.js"), "void 0;")?;
    fs::write(folder.join("integrity.json"), listing.to_string())?;
    Ok(folder.to_string_lossy().into_owned())
}

fn injection(bench: &mut Bench) -> Outcome<Figures> {
    let (folder, log, sdk) = (bench.folder()?, Log::default(), sdk(bench)?);
    let tenant = folder.tenant("shop", &[])?;
    let receiver = Receiver::start()?;
    receiver.add_to(&tenant, "[[sinks]]\nkind = 'ndjson'\nname = 'lines'")?;
    let server = folder.serve_with(How { arguments: &["--sdk", &sdk], ..How::default() })?;
    let load = Load { producers: 2, pause: Duration::from_millis(5), ..Load::new(folder.public, &tenant, &log) };
    let mut random = bench.random.fork();
    let ((tried, read), own) = load.during(&mut random, || {
        let tried = in_heads(&folder)?;
        Ok((tried, in_events(bench, &folder, &tenant)?))
    })?;
    let figures = judge(&tenant, &log)?;
    as_they_are(&tenant)?;
    receiver.await_events(figures.stored, Duration::from_secs(60))?;
    in_lines(&tenant, figures.stored)?;
    told(&folder)?;
    unharmed(&folder)?;
    server.stop()?;
    balanced(&folder)?;
    Ok(Figures { stored: figures.stored - own, ..figures }
        .noting(format!("{tried} heads, {read} of them requests; {own} events")))
}

fn in_heads(folder: &Folder) -> Outcome<(usize, usize)> {
    let (mut tried, mut read) = (0, 0);
    // Each on a connection of its own, that ends when it is answered.
    let mut all_of = |what: &str, head: &[u8]| -> Outcome<Vec<Answer>> {
        let answers = send(folder, head)?;
        harmless(what, &answers)?;
        tried += 1;
        read += usize::from(answers.iter().any(|answer| answer.code() != "malformed-head"));
        Ok(answers)
    };
    for evil in ENDS.iter().flat_map(|end| [evil(end), plain(end)]) {
        for name in HEADERS {
            let value = format!("Connection: close\r\n{name}: {evil}\r\nContent-Length: 1\r\n");
            // A text that ends the head is followed by what is no request.
            refused(&evil, &all_of(&evil, &post(&value, b"x"))?)?;
        }
        let name = format!("Connection: close\r\nX-{evil}: y\r\nContent-Length: 1\r\n");
        refused(&evil, &all_of(&evil, &post(&name, b"x"))?)?;
        for path in ["/", "/v1/", "/v1/f?", "/v1/region-keys/", "/sdk/", "/sdk/0.0.9/", "/sdk/0.0.9/firsthop.js?"] {
            for method in ["GET", "POST", "OPTIONS"] {
                let path = format!("{path}{}", evil.replace(' ', "%20"));
                let head = format!("{method} {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n");
                all_of(&evil, head.as_bytes())?;
            }
        }
        let head = format!("{} / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n", evil.replace(' ', ""));
        refused(&evil, &all_of(&evil, head.as_bytes())?)?;
    }
    // The one answer that leads elsewhere names nothing that was asked for.
    let asked = format!("/sdk/0.0.9/firsthop.js?%0d%0aSet-Cookie:{MARK}");
    let redirect = format!("GET {asked} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n");
    let answers = all_of(&asked, redirect.as_bytes())?;
    if answers.first().is_none_or(|answer| answer.status != 307 || answer.header("location") != "/sdk/firsthop.js") {
        return Err(format!("a release that is not there: {answers:?}").into());
    }
    // Were none of them read as a head, it would show nothing.
    if read * 5 < tried { Err(format!("of {tried} heads, {read} were read").into()) } else { Ok((tried, read)) }
}

/// Sends them as what events say; how many of those are stored.
fn in_events(bench: &mut Bench, folder: &Folder, tenant: &Tenant) -> Outcome<u64> {
    let basic = BASE64_STANDARD.encode(format!("{}:", tenant.key));
    let mut stored = 0;
    let taken = |bytes: &[u8]| -> Outcome<Answer> {
        let answer = folder.client().raw(bytes)?;
        harmless("an event", std::slice::from_ref(&answer))?;
        Ok(answer)
    };
    for evil in ENDS.iter().map(|end| evil(end)) {
        let made = Producer::new(tenant, &mut bench.random).frame_with(1, Some(&evil))?;
        let answer = taken(&post(&format!("Content-Length: {}\r\n", made.bytes.len()), &made.bytes))?;
        if answer.receipt().is_none_or(|receipt| receipt.stored != 1) {
            return Err(format!("{evil:?} in a frame: {} {}", answer.status, answer.text()).into());
        }
        let texts = json!({ &evil: evil, "n": 0 });
        let context = json!({ &evil: evil, "locale": evil, "userAgent": evil, "page": { "url": evil, "title": evil }, "campaign": { "source": evil } });
        let message = json!({
            "type": "track", "event": evil, "messageId": evil, "userId": evil, "anonymousId": evil, "properties": texts, "context": context, "timestamp": evil
        });
        // And one that is none, for quarantine.
        let body = json!({ "batch": [message, { "type": evil, "event": evil }] }).to_string();
        let head = format!("Authorization: Basic {basic}\r\nContent-Length: {}\r\n", body.len());
        let head = format!("POST /v1/batch HTTP/1.1\r\nHost: shop\r\n{head}\r\n");
        let answer = taken(&[head.as_bytes(), body.as_bytes()].concat())?;
        let verdict = answer.header("firsthop-receipt");
        if verdict != "stored=1, duplicate=0, conflict=0, quarantined=1" {
            return Err(format!("{evil:?} in a message: {} {verdict} {}", answer.status, answer.text()).into());
        }
        stored += 2;
    }
    Ok(stored)
}

/// The events table has each as it was sent.
fn as_they_are(tenant: &Tenant) -> Outcome<()> {
    let table = open(tenant, "events.db")?;
    for evil in ENDS.iter().map(|end| evil(end)) {
        let sql = "SELECT COUNT(*) FROM events WHERE name = ?1 AND user_id = ?1 AND url = ?1 AND foreign_id = ?1";
        let found: i64 = table.query_row(sql, [&evil], |row| row.get(0))?;
        let natives: i64 =
            table.query_row("SELECT COUNT(*) FROM events WHERE properties ->> '$.text' = ?1", [&evil], |row| {
                row.get(0)
            })?;
        if (found, natives) != (1, 1) {
            return Err(format!("{evil:?} stands in the table {found} and {natives} times").into());
        }
    }
    Ok(())
}

/// The file of lines has one line for each event, and no other.
fn in_lines(tenant: &Tenant, stored: u64) -> Outcome<()> {
    let due = Instant::now() + Duration::from_secs(60);
    loop {
        let (mut lines, mut ids) = (0, BTreeSet::new());
        for entry in fs::read_dir(&tenant.folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "ndjson") {
                continue;
            }
            let text = fs::read_to_string(path)?;
            // The last may be in the making.
            for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
                let event: Json = serde_json::from_str(line).map_err(|error| format!("{line:?}: {error}"))?;
                let id = event["event_id"].as_str().ok_or_else(|| format!("a line that is no event: {line:?}"))?;
                ids.insert(id.to_owned());
                lines += 1;
            }
        }
        if lines == stored && ids.len() as u64 == stored {
            return Ok(());
        }
        if lines > stored || Instant::now() > due {
            return Err(format!("{stored} events are {lines} lines, of {} events", ids.len()).into());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// What is told to operators: metrics, log, terminal.
fn told(folder: &Folder) -> Outcome<()> {
    if folder.metrics()?.contains(MARK) {
        return Err("it is in the metrics".into());
    }
    for line in folder.log().lines() {
        let is_object = serde_json::from_str::<Json>(line).is_ok_and(|line| line.is_object());
        if !is_object || line.contains(MARK) {
            return Err(format!("a line of the log: {line}").into());
        }
    }
    let commands: [&[&str]; 3] = [&["events", "-n", "100000"], &["schema"], &["quarantine", "list"]];
    let due = Instant::now() + Duration::from_secs(60);
    for command in commands {
        // What was seen of an event's shape is written down after a while.
        let said = loop {
            let said = folder.ok(command)?;
            if said.contains(MARK) || command[0] == "quarantine" {
                break said;
            }
            if Instant::now() > due {
                return Err(format!("firsthop {} does not show it, so this shows nothing", command.join(" ")).into());
            }
            thread::sleep(Duration::from_millis(100));
        };
        if said.contains(|c: char| c.is_control() && c != '\n')
            || said.lines().any(|line| line.starts_with("Set-Cookie"))
        {
            return Err(format!("firsthop {}: a terminal would obey what an event says", command.join(" ")).into());
        }
    }
    Ok(())
}
