//! Everything that can be wrong with a request: one status and problem type each, one counter, and quarantine for
//! what was meant to be an event of a known tenant.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use firsthop_core::{Epoch, SourceId, TenantId};

use crate::common::{Client, Folder, LONG, Page, Response, Server, Tenant, base64, connect_from, until};

struct Bad {
    server: Server,
    tenant: Tenant,
    client: Client,
    folder: Folder,
}

/// What becomes of what is refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// It is in quarantine, under its code.
    Quarantined,
    /// It names nobody, or is nothing that could be an event: it is counted.
    Counted,
}
use Kept::{Counted, Quarantined};

impl Bad {
    fn new(more: &[&str]) -> Self {
        let folder = Folder::new();
        let tenant = folder.tenant("shop", &["--region", "EU", "--origin", "https://shop.example"]);
        let server = folder.serve_with(more);
        let client = server.client();
        Self { server, tenant, client, folder }
    }

    /// One row: what is sent must be answered with this status and code, move this one counter, and be kept or not.
    fn row(&mut self, what: &str, status: u16, code: &str, kept: Kept, send: impl FnOnce(&mut Client) -> Response) {
        let counter = format!("firsthop_refused_total{{code=\"{code}\"}}");
        let in_quarantine = |tenant: &Tenant| tenant.quarantine().get(code).copied().unwrap_or(0);
        let (refused, aside) = (self.server.metric(&counter), in_quarantine(&self.tenant));
        let response = send(&mut self.client);
        assert_eq!((response.status, response.code().as_str()), (status, code), "{what}: {}", response.text());
        assert_eq!(self.server.metric(&counter), refused + 1.0, "{what}");
        let receipt = if kept == Quarantined { "stored=0, duplicate=0, conflict=0, quarantined=" } else { "" };
        assert!(
            response.verdict().starts_with(receipt) && response.verdict().is_empty() == receipt.is_empty(),
            "{what}"
        );
        let now = in_quarantine(&self.tenant);
        assert_eq!(now - aside, i64::from(kept == Quarantined), "{what}: in quarantine");
        let damage = ["bad-crc", "truncated", "trailing-bytes", "bad-signature"].contains(&code);
        let outcome = if damage { "damaged" } else { "quarantined" };
        let label = format!("outcome=\"{outcome}\",reason=\"{code}\"");
        let counted = self.server.internal_get("/metrics").text().lines().any(|line| line.contains(&label));
        assert_eq!(counted, now > 0, "{what}: in the ledger");
    }

    fn frame(&mut self, what: &str, status: u16, code: &str, kept: Kept, frame: &[u8]) {
        self.row(what, status, code, kept, |client| client.frame(frame));
    }

    fn segment(&mut self, what: &str, status: u16, code: &str, kept: Kept, path: &str, json: &str) {
        let key = self.tenant.key.clone();
        self.row(what, status, code, kept, |client| {
            let response = client.segment(path, &key, json);
            assert_eq!(response.json()["success"], false);
            response
        });
    }

    /// Nothing of it became an event, nothing crashed, and what is stored is whole.
    fn end(mut self, events: i64) {
        self.tenant.settle();
        assert_eq!(self.tenant.events("SELECT COUNT(*) FROM events"), events);
        self.server.stop();
        assert!(!self.server.log().contains("panicked"), "{}", self.server.log());
        self.folder.ok(&["verify"]);
    }
}

fn change(frame: &[u8], at: usize, to: &[u8]) -> Vec<u8> {
    let mut changed = frame.to_vec();
    changed[at..at + to.len()].copy_from_slice(to);
    changed
}

/// A changed frame whose CRC holds again: damage does not look like this, malice and defects do.
fn forge(frame: &[u8], tag: usize, at: usize, to: &[u8]) -> Vec<u8> {
    let mut forged = change(frame, at, to);
    forged[80..84].fill(0);
    let end = forged.len() - tag;
    let crc = firsthop_core::crc32(&[&forged[..end]]);
    forged[80..84].copy_from_slice(&crc.to_le_bytes());
    forged
}

/// The frame as if it were sealed to a key: the flag and the extension.
fn sealed(frame: &[u8]) -> Vec<u8> {
    let (head, rest) = frame.split_at(88);
    let sealed = [head, &[5, 0, 4, 0, 5, 0, 0, 0], rest].concat();
    let header_len = u16::from_le_bytes([frame[6], frame[7]]) + 8;
    forge(&change(&sealed, 6, &header_len.to_le_bytes()), 0, 5, &[1])
}

#[test]
fn frames_that_are_broken() {
    let mut bad = Bad::new(&[]);
    let mut page = Page::new(&bad.tenant);
    let frame = page.frame(2);
    bad.frame("magic", 400, "bad-magic", Counted, &change(&frame, 0, b"X"));
    bad.frame("no events", 400, "bad-count", Quarantined, &page.frame_at(0, 0, "x"));
    bad.frame("version", 400, "unknown-version", Counted, &change(&frame, 4, &[9]));
    bad.frame("unknown flag", 400, "reserved-bits", Counted, &change(&frame, 5, &[0x80]));
    bad.frame("header length", 400, "bad-header-length", Counted, &change(&frame, 6, &[1, 0]));
    bad.frame("region", 400, "bad-region", Counted, &change(&frame, 40, b"e1"));
    bad.frame("algorithm", 400, "unknown-algorithm", Counted, &change(&frame, 42, &[77]));
    bad.frame("CRC", 400, "bad-crc", Quarantined, &change(&frame, 80, &[frame[80] ^ 1]));
    bad.frame("truncated", 400, "truncated", Quarantined, &frame[..frame.len() - 1]);
    bad.frame("truncated in the header", 400, "truncated", Counted, &frame[..50]);
    bad.frame("empty", 400, "truncated", Counted, b"");
    bad.frame("trailing bytes", 400, "trailing-bytes", Quarantined, &[&frame[..], b"\0"].concat());
    bad.frame("sealed", 501, "sealed-unsupported", Quarantined, &sealed(&frame));
    bad.frame("sealed to no key", 400, "bad-extension", Quarantined, &forge(&frame, 0, 5, &[1]));
    bad.frame("an envelope", 400, "reserved-bits", Quarantined, &forge(&frame, 0, 5, &[4]));
    bad.frame("too many events promised", 400, "bad-count", Quarantined, &forge(&frame, 0, 44, &[3, 0]));
    bad.frame("too few events promised", 400, "bad-count", Quarantined, &forge(&frame, 0, 44, &[1, 0]));
    bad.frame("sequence overflows", 400, "bad-count", Counted, &forge(&frame, 0, 56, &[0xff; 8]));
    let beyond = (1_u64 << 63).to_le_bytes();
    bad.frame("sequence beyond tables", 400, "bad-count", Counted, &forge(&frame, 0, 56, &beyond));
    let word = frame.windows(4).position(|bytes| bytes == b"G-32").expect("a text of the event's");
    bad.frame("text that is not UTF-8", 400, "malformed-payload", Quarantined, &forge(&frame, 0, word, &[0xff]));
    bad.frame("says that it is too large", 413, "too-large", Counted, &change(&frame, 76, &[0xff; 4]));
    bad.frame("another region", 421, "wrong-region", Counted, &forge(&frame, 0, 40, b"US"));
    bad.frame("signed without a session", 400, "unknown-algorithm", Quarantined, &signed_without_session(&frame));
    assert_eq!(bad.client.frame(&frame).receipt().stored, 2, "and the good one is good");
    bad.end(2);
}

fn signed_without_session(frame: &[u8]) -> Vec<u8> {
    let mut signed = forge(frame, 0, 42, &[1]);
    signed.extend_from_slice(&[0; 16]);
    signed
}

#[test]
fn keys_that_do_not_fit() {
    let mut bad = Bad::new(&[]);
    let tenant = bad.tenant.clone();
    let mut page = Page::new(&tenant);
    let receipt = page.begin(&mut bad.client);
    let session = receipt.session.expect("a session");
    let frame = page.frame(1);
    let key = |key: String| Page { key, session: None, ..page.clone() }.frame_at(9, 1, "x");
    bad.frame(
        "write key of nobody",
        401,
        "wrong-write-key",
        Quarantined,
        &key(format!("fh_{}_{}", tenant.id, "a".repeat(22))),
    );
    bad.frame("write key that is none", 401, "wrong-write-key", Quarantined, &key("fh_x".into()));
    let unknown = Tenant { id: TenantId::new(7), key: format!("fh_{:016x}_{}", 7, "a".repeat(22)), folder: "".into() };
    bad.frame("tenant of nobody", 401, "wrong-write-key", Counted, &Page::new(&unknown).frame(1));
    let last = frame.len() - 1;
    bad.frame("tag", 401, "bad-signature", Quarantined, &change(&frame, last, &[frame[last] ^ 1]));
    bad.frame("root", 401, "unknown-key", Quarantined, &forge(&frame, 16, 32, &[99]));
    bad.frame("another source with the same key", 401, "bad-signature", Quarantined, &forge(&frame, 16, 16, &[1; 16]));
    let mut early = session.clone();
    early.grant.expires = early.grant.expires.offset(5 * 3_600_000);
    early.epoch = Epoch::new(early.epoch.get() + 5);
    let early = Page { session: Some(early), ..page.clone() }.frame(1);
    bad.frame("epoch to come", 401, "epoch-out-of-range", Quarantined, &early);
    let mut old = page.clone();
    let mut ended = session.clone();
    let eight_days = 8 * 24 * 3_600_000;
    ended.grant.expires = ended.grant.expires.offset(-eight_days);
    ended.epoch = Epoch::new(ended.epoch.get() - 8 * 24);
    old.session = Some(ended);
    bad.frame("session that ended long ago", 401, "session-expired", Quarantined, &old.frame(1));
    let mut long = session.clone();
    long.grant.expires = long.grant.expires.offset(eight_days);
    let long = Page { session: Some(long), ..page.clone() }.frame(1);
    bad.frame("session longer than any", 401, "bad-session", Quarantined, &long);
    let mut longer = session;
    longer.grant.expires = longer.grant.expires.offset(3_600_000);
    let longer = Page { session: Some(longer), ..page.clone() }.frame(1);
    bad.frame("session made longer", 401, "bad-signature", Quarantined, &longer);

    let from = |origin: &'static str, frame: Vec<u8>| {
        move |client: &mut Client| client.request("POST", "/v1/f", &[("Origin", origin)], &frame)
    };
    let fresh = Page { source: SourceId::new([5; 16]), session: None, ..page.clone() }.frame_at(0, 1, "x");
    bad.row("origin that may not write", 403, "wrong-origin", Quarantined, from("https://evil.example", fresh));
    bad.row("session of another origin", 403, "wrong-origin", Quarantined, from("https://shop.example", frame.clone()));
    assert_eq!(bad.client.frame(&frame).receipt().stored, 1);
    bad.end(2);
}

#[test]
fn json_that_is_not_what_it_should_be() {
    let mut bad = Bad::new(&[]);
    let event = r#"{"event":"x","userId":"u"}"#;
    let nested = |depth: usize| {
        format!(r#"{{"event":"x","userId":"u","context":{{"d":{}1{}}}}}"#, "[".repeat(depth), "]".repeat(depth))
    };
    bad.segment("not JSON", 400, "malformed-json", Quarantined, "/v1/track", r#"{"event":"#);
    bad.segment("not an object", 400, "malformed-json", Quarantined, "/v1/track", "[1]");
    bad.segment("no event", 400, "malformed-json", Quarantined, "/v1/track", r#"{"userId":"u"}"#);
    bad.segment("too deep", 400, "json-too-deep", Quarantined, "/v1/track", &nested(40));
    bad.segment("deeper than properties go", 400, "too-deep", Quarantined, "/v1/track", &nested(20));
    let large = format!(r#"{{"event":"x","userId":"u","properties":{{"p":"{}"}}}}"#, "p".repeat(33_000));
    bad.segment("too large", 413, "json-too-large", Quarantined, "/v1/track", &large);
    let many = format!(r#"{{"batch":[{}]}}"#, vec![r#"{"type":"page"}"#; 2501].join(","));
    bad.segment("too many", 413, "json-too-large", Quarantined, "/v1/batch", &many);

    let key = bad.tenant.key.clone();
    let post = |headers: &'static [(&'static str, &'static str)], body: String| {
        move |client: &mut Client| client.request("POST", "/v1/track", headers, body.as_bytes())
    };
    bad.row("no key", 401, "wrong-write-key", Counted, post(&[], event.into()));
    let wrong = format!("fh_{}_{}", bad.tenant.id, "a".repeat(22));
    let with_key = |key: &str| event.replace("{\"event", &format!("{{\"writeKey\":\"{key}\",\"event"));
    bad.row("a key of nobody", 401, "wrong-write-key", Quarantined, post(&[], with_key(&wrong)));
    let form = &[("Content-Type", "application/x-www-form-urlencoded")];
    bad.row("media type", 415, "unsupported-media-type", Counted, post(form, with_key(&key)));
    let gzip = &[("Content-Encoding", "gzip")];
    bad.row("compressed", 415, "unsupported-encoding", Counted, post(gzip, with_key(&key)));
    let evil = &[("Origin", "https://evil.example")];
    bad.row("origin", 403, "wrong-origin", Quarantined, post(evil, with_key(&key)));

    // One bad message spoils no other, and is kept with its reason.
    let batch =
        r#"{"batch":[{"type":"track","event":"good","userId":"u"},{"type":"track","userId":"u"},{"type":"nothing"}]}"#;
    let response = bad.client.segment("/v1/batch", &key, batch);
    assert_eq!((response.status, response.text().as_str()), (200, r#"{"success":true}"#));
    assert_eq!(response.verdict(), "stored=1, duplicate=0, conflict=0, quarantined=2");
    bad.end(1);
}

#[test]
fn requests_that_are_none_of_ours() {
    let mut bad = Bad::new(&["--body-timeout", "500ms", "--header-timeout", "700ms"]);
    let plain =
        |method: &'static str, path: &'static str| move |client: &mut Client| client.request(method, path, &[], b"");
    bad.row("unknown path", 404, "not-found", Counted, plain("POST", "/v1/nothing"));
    bad.row("metrics are internal", 404, "not-found", Counted, plain("GET", "/metrics"));
    bad.row("leases are internal", 404, "not-found", Counted, plain("POST", "/v1/leases"));
    bad.row("wrong method", 405, "method-not-allowed", Counted, |client| {
        let response = client.request("PUT", "/v1/f", &[], b"");
        assert_eq!(response.header("allow"), "POST, OPTIONS");
        assert_eq!(response.header("access-control-allow-origin"), "*");
        response
    });
    bad.row("wrong method on health", 405, "method-not-allowed", Counted, plain("POST", "/livez"));
    // Told at the head already, before a byte of it is read.
    bad.row("a length over the bound", 413, "body-too-large", Counted, |client| {
        let response = client.request("POST", "/v1/f", &[("Content-Length", "1073741824")], b"");
        assert_eq!(response.header("connection"), "close");
        response
    });
    let large = vec![b'x'; 600 * 1024];
    bad.row("a body over the bound", 413, "body-too-large", Counted, |client| client.frame(&large));
    bad.row("in pieces without a length", 413, "body-too-large", Counted, |client| {
        let mut bytes = b"POST /v1/f HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in large.chunks(60_000) {
            bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            bytes.extend_from_slice(piece);
            bytes.extend_from_slice(b"\r\n");
        }
        client.raw(&bytes).expect("an answer")
    });
    bad.row("a body that stalls", 408, "body-timeout", Counted, |client| {
        let began = Instant::now();
        let response = client.request("POST", "/v1/f", &[("Content-Length", "500")], b"FHOP");
        assert!(began.elapsed() >= Duration::from_millis(450));
        response
    });
    let server = bad.server.public;

    // A head that never ends, and a connection that says nothing: closed in time, without an answer.
    for head in ["POST /v1/f HTTP/1.1\r\nHost: te", ""] {
        let mut stream = TcpStream::connect(server).expect("connects");
        stream.set_read_timeout(Some(LONG)).expect("a timeout");
        stream.write_all(head.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("closed by the server");
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{}", crate::common::text(&answer));
    }
    let filler = "X-Filler: 0123456789012345678901234567890123456789\r\n";
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000));
    let large = format!("GET /livez HTTP/1.1\r\nHost: test\r\n{}\r\n", filler.repeat(400));
    // The rest of it is read, for a while: else a reset could overtake the answer.
    for (what, head) in [("head over the bound", &large), ("request line over the bound", &long)] {
        bad.row(what, 431, "head-too-large", Counted, |client| client.raw(head.as_bytes()).expect("an answer"));
    }
    let many = format!("GET /livez HTTP/1.1\r\nHost: test\r\n{}\r\n", "X: y\r\n".repeat(150));
    bad.row("too many headers", 431, "head-too-large", Counted, |client| {
        client.raw(many.as_bytes()).expect("an answer")
    });
    for bytes in [
        &b"nonsense\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS client, for example\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /v1/f HTTP/1.1\r\nHost: test\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/f HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /v1/f HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: gzip\r\n\r\n",
    ] {
        bad.row("no HTTP", 400, "malformed-head", Counted, |_| {
            let response = Client::new(server).raw(bytes).expect("an answer");
            assert_eq!((response.header("connection"), response.header("cache-control")), ("close", "no-store"));
            response
        });
    }
    let closed = |reason: &str| bad.server.metric(&format!("firsthop_connections_closed_total{{reason=\"{reason}\"}}"));
    until("their ends are counted", || {
        closed("not-http") == 9.0 && closed("idle") >= 1.0 && closed("head-timeout") == 1.0
    });

    // None of it keeps a good client from being served.
    let slow: Vec<_> = (0..300).map(|_| TcpStream::connect(server).expect("connects")).collect();
    let mut page = Page::new(&bad.tenant);
    assert_eq!(page.begin(&mut bad.server.client()).stored, 1);
    drop(slow);
    bad.end(1);
}

/// A body over the bound is answered, and whoever goes on sending it drop by drop is cut off all the same.
#[test]
fn a_trickle_after_the_answer_ends() {
    let bad = Bad::new(&[]);
    let mut stream = TcpStream::connect(bad.server.public).expect("connects");
    stream.set_read_timeout(Some(Duration::from_millis(30))).expect("a timeout");
    stream.write_all(b"POST /v1/f HTTP/1.1\r\nHost: test\r\nContent-Length: 90000000\r\n\r\n").expect("sent");
    let begun = Instant::now();
    let mut answer = Vec::new();
    loop {
        let mut bytes = [0; 1024];
        match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&bytes[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
        assert!(begun.elapsed() < LONG, "the connection is held open");
        let _ = stream.write_all(b"x");
        thread::sleep(Duration::from_millis(10));
    }
    assert!(answer.starts_with(b"HTTP/1.1 413 "), "{}", String::from_utf8_lossy(&answer));
    bad.end(0);
}

/// Memory for requests under way has an end, for one address and for all, and what does not fit is told to come back.
#[test]
fn what_is_under_way_is_bounded() {
    let mut bad = Bad::new(&["--memory", "5MiB", "--queue", "2MiB", "--body-timeout", "60s"]);
    let server = bad.server.public;
    let stall = |own: u8| {
        let mut stream = connect_from(own, server);
        stream.write_all(b"POST /v1/f HTTP/1.1\r\nHost: test\r\nContent-Length: 500000\r\n\r\n").expect("sent");
        // Past the bound the server hangs up.
        let _ = stream.write_all(&vec![b'x'; 499_000]);
        stream
    };
    let used = |server: &Server| server.metric("firsthop_memory_bytes");
    // Bodies that came nearly whole, and stop. One address has its share and no more, whoever comes from elsewhere is served.
    let mut stalled: Vec<TcpStream> = (0..8).map(|_| stall(2)).collect();
    let most = 5.0 * 1_048_576.0;
    let label = "firsthop_refused_total{code=\"unavailable\"}";
    // Two have room, and each of the others has been told: none of them is counted later.
    until("its share is held", || used(&bad.server) > 900_000.0 && bad.server.metric(label) >= 6.0);
    let held = used(&bad.server);
    assert!(held < most / 4.0, "{held}");
    let large = Page::new(&bad.tenant).frame_at(0, 4000, &"Product Viewed ".repeat(4));
    assert!(large.len() > 300_000);
    assert_eq!(bad.client.frame(&large).receipt().stored, 4000);
    let again = "too much under way from this address";
    bad.row("the address's share", 503, "unavailable", Counted, |_| {
        let mut client = Client::from(2, server);
        let mut response = client.frame(&large);
        until("its share is used up", || {
            if response.status != 503 {
                response = client.frame(&large);
            }
            response.status == 503
        });
        assert_eq!((response.header("retry-after"), response.json()["detail"].as_str()), ("1", Some(again)));
        response
    });

    stalled.extend((3..12).flat_map(|own| [stall(own), stall(own)]));
    until("nearly all is held", || used(&bad.server) > most * 0.7);
    let held = used(&bad.server);
    assert!(held <= most, "{held}");
    let refused = bad.server.metric(label);
    // What the stalled ones have left over may be room for one or two.
    let mut others: Vec<TcpStream> = Vec::new();
    while used(&bad.server) < most - 150_000.0 {
        assert!(others.len() < 100, "memory is not used up: {}", used(&bad.server));
        let mut stream = connect_from(20 + others.len() as u8, server);
        stream.write_all(b"POST /v1/f HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n").expect("sent");
        let _ = stream.write_all(&vec![b'x'; 99_000]);
        others.push(stream);
        thread::sleep(Duration::from_millis(20));
    }
    let response = bad.client.frame(&large);
    assert_eq!((response.status, response.header("retry-after")), (503, "1"), "{}", response.text());
    assert_eq!(response.json()["detail"], "too much under way");
    assert!(bad.server.metric(label) > refused);
    drop((stalled, others));
    until("memory is given back", || used(&bad.server) == 0.0);
    assert_eq!(bad.client.frame(&large).receipt().duplicate, 4000);
    bad.end(4000);
}

/// Over its bound, quarantine keeps what it has; what it has no room for is neither acknowledged nor said to be kept. Those whom
/// nobody knows fill a part of it only.
#[test]
fn quarantine_is_bounded() {
    let mut bad = Bad::new(&["--quarantine", "40KiB"]);
    let page = Page::new(&bad.tenant);
    let label = format!("{{tenant=\"{}\"}}", bad.tenant.id);
    let bytes = |server: &Server| server.metric(&format!("firsthop_quarantine_bytes{label}"));
    let mut marked = 0;
    for i in 0..60_u64 {
        let frame = page.frame_at(i, 1, "x");
        let broken = change(&frame, 80, &[frame[80] ^ 1]);
        let response = bad.client.frame(&broken);
        assert_eq!(response.code(), "bad-crc");
        marked += i64::from(!response.verdict().is_empty());
    }
    let kept = bad.tenant.quarantine()["bad-crc"];
    assert!((10..30).contains(&kept), "{kept}");
    assert_eq!(marked, kept, "a refusal says that it was set aside if it was");
    let held = bytes(&bad.server);
    assert!(held > 8192.0 && held <= 10240.0, "{held}");

    // There is room for those who have a key.
    let conflict = |i: u64, name: &str| page.frame_at(100 + i, 1, name);
    let mut full = 0;
    let first = conflict(0, "another");
    for i in 0..80 {
        assert_eq!(bad.client.frame(&conflict(i, "x")).receipt().stored, 1);
        let response = bad.client.frame(&if i == 0 { first.clone() } else { conflict(i, "another") });
        if response.status == 200 {
            assert_eq!((response.receipt().conflict, full), (1, 0));
        } else {
            assert_eq!((response.status, response.code().as_str()), (503, "quarantine-full"));
            assert_eq!(response.json()["detail"], "quarantine is full");
            full += 1;
        }
    }
    let conflicts = bad.tenant.quarantine()["conflict"];
    assert!(full > 10 && conflicts == 80 - full, "{full} of 80 refused, {conflicts} kept");
    assert!(bytes(&bad.server) <= 40960.0);
    // What is there already needs no room.
    assert_eq!(bad.client.frame(&first).receipt().conflict, 1);
    // One bad message of a batch: the good one is stored, and the answer does not say that both are safe.
    let batch = format!(
        r#"{{"batch":[{{"type":"track","messageId":"a","anonymousId":"a","event":"x"}},{{"type":"none{}"}}]}}"#,
        "e".repeat(800)
    );
    for _ in 0..2 {
        let response = bad.client.segment("/v1/batch", &bad.tenant.key, &batch);
        assert_eq!((response.status, response.verdict()), (503, ""), "{}", response.text());
    }
    // The ledger has what is there, once each.
    assert_eq!(bad.server.outcome(&bad.tenant, "quarantined", "conflict"), conflicts as f64);
    let overflow = bad.server.metric(&format!("firsthop_quarantine_overflow_total{label}"));
    assert_eq!(overflow, (60 - kept + full + 2) as f64);
    bad.end(81);
}

#[test]
fn pages_may_ask_first() {
    let mut bad = Bad::new(&[]);
    for path in ["/v1/f", "/v1/t", "/v1/batch"] {
        let response = bad.client.request("OPTIONS", path, &[("Origin", "https://shop.example")], b"");
        assert_eq!((response.status, response.body.len()), (204, 0), "{path}");
        assert_eq!(response.header("access-control-allow-origin"), "*");
        assert!(response.header("access-control-allow-methods").contains("POST"));
        assert!(response.header("access-control-allow-headers").contains("Content-Type"));
    }
    let mut page = Page::new(&bad.tenant);
    let frame = page.frame(1);
    let response = bad.client.request("POST", "/v1/f", &[("Origin", "https://shop.example")], &frame);
    assert_eq!(response.header("access-control-allow-origin"), "*");
    assert_eq!(response.header("access-control-expose-headers"), "Firsthop-Receipt, Retry-After");
    assert_eq!((response.header("cache-control"), response.header("content-type")), ("no-store", "application/json"));
    // Any way of saying who one is: the browser's SDK sends text, with the key in the body.
    let event = format!(r#"{{"event":"x","anonymousId":"a","writeKey":"{}"}}"#, bad.tenant.key);
    let text = bad.client.request("POST", "/v1/t", &[("Content-Type", "text/plain")], event.as_bytes());
    assert_eq!(text.verdict(), "stored=1, duplicate=0, conflict=0, quarantined=0");
    let bearer = format!("Bearer {}", bad.tenant.key);
    let basic = format!("Basic {}", base64(format!("{}:", bad.tenant.key).as_bytes()));
    for authorization in [bearer, basic] {
        let response =
            bad.client.request("POST", "/v1/p", &[("Authorization", &authorization)], br#"{"anonymousId":"a"}"#);
        assert_eq!(response.verdict(), "stored=1, duplicate=0, conflict=0, quarantined=0");
    }
    bad.end(4);
}
