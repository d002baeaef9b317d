//! Slow clients, and thousands of them: good ones are served all the same, and memory stays under its ceiling.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::common::{Client, Folder, HeldUp, Page, connect_from, until};

/// How many connections this process may have open, less those that it has for itself.
fn descriptors(most: usize) -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let limit = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok()).unwrap_or(1024);
    most.min(limit.saturating_sub(200))
}

/// How many may wait to be accepted where the system lets fewer wait than the server asks for.
fn somaxconn() -> usize {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn")
        .ok()
        .and_then(|most| most.trim().parse().ok())
        .unwrap_or(128)
}

fn is_open(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("nonblocking");
    matches!(stream.read(&mut [0; 256]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

fn half_a_head(own: u8, server: SocketAddr) -> TcpStream {
    let mut stream = connect_from(own, server);
    stream.write_all(b"POST /v1/f HTTP/1.1\r\nHost: te").expect("sent");
    stream
}

/// Far more slow connections than there are places: whoever comes with a whole request has one, also from the same address.
#[test]
fn slow_clients_make_room_for_good_ones() {
    let folder = Folder::new();
    let server =
        folder.serve_with(&["--connections", "300", "--connections-per-address", "200", "--header-timeout", "60s"]);
    let tenant = folder.only_tenant();
    let mut slow: Vec<TcpStream> = Vec::new();
    for own in [2, 3, 4] {
        slow.extend((0..220).map(|_| half_a_head(own, server.public)));
        for from in [2, 9] {
            // New ones each time: a place is found, and nobody waits for the timeout of sixty seconds.
            for _ in 0..5 {
                let (mut client, mut page) = (Client::from(from, server.public), Page::new(&tenant));
                let began = Instant::now();
                assert_eq!(client.frame(&page.frame(3)).receipt().stored, 3);
                assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
            }
        }
    }
    let shed = server.metric("firsthop_connections_closed_total{reason=\"shed\"}");
    assert!(shed >= 360.0, "{shed}");
    assert_eq!(server.metric("firsthop_connections_closed_total{reason=\"refused\"}"), 0.0);
    assert!(server.metric("firsthop_connections") <= 302.0);
    // The longest in waiting were let go, the latest were not: but for some that were not heard yet when others needed room. Let go without
    // regard to their age, 44 of these hundred would be left.
    let open = |slow: &[TcpStream]| slow.iter().filter(|stream| is_open(stream)).count();
    assert_eq!(open(&slow[..100]), 0);
    let left = open(&slow[560..]);
    assert!(left > 70, "{left}");
}

/// Hundreds that connect in a moment in which the server does not accept are connected at once, and all answered later. What is not queued
/// would have to try again, a second and more later. Where the system has fewer wait, it is as many as that.
#[test]
fn a_rush_of_connections_waits_for_nothing() {
    let folder = Folder::new();
    let server = folder.serve();
    server.signal("-STOP");
    let rush: Vec<_> = (0..somaxconn().min(400))
        .map(|number| {
            let connected = TcpStream::connect_timeout(&server.public, Duration::from_millis(900));
            connected.unwrap_or_else(|error| panic!("connection {number}: {error}"))
        })
        .collect();
    server.signal("-CONT");
    for mut stream in rush {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n").expect("sent");
        let answer = crate::common::read_response(&mut std::io::BufReader::new(stream), true).expect("an answer");
        assert_eq!(answer.status, 200);
    }
}

/// A connection whose request is being served is not parted with; then there is no room, and that is said.
#[test]
fn who_is_being_served_stays() {
    let folder = Folder::new();
    let server = folder.serve_with(&["--connections", "3", "--commit-timeout", "60s"]);
    let tenant = folder.only_tenant();
    let waiting = HeldUp::new(&server, &tenant, 3);
    let mut stream = std::io::BufReader::new(connect_from(2, server.public));
    let refusal = crate::common::read_response(&mut stream, true).expect("an answer before anything was asked");
    assert_eq!((refusal.status, refusal.code().as_str(), refusal.header("retry-after")), (503, "unavailable", "1"));
    assert_eq!(refusal.json()["detail"], "too many connections");
    assert_eq!(server.metric("firsthop_connections_closed_total{reason=\"refused\"}"), 1.0);
    waiting.let_go();
}

/// A body that comes by the byte is given up on long before the time that a whole one has.
#[test]
fn a_body_keeps_a_pace() {
    let folder = Folder::new();
    let server = folder.serve_with(&["--body-timeout", "60s", "--body-rate", "64KiB"]);
    let mut trickle = connect_from(2, server.public);
    let began = Instant::now();
    trickle.write_all(b"POST /v1/f HTTP/1.1\r\nHost: test\r\nContent-Length: 5000\r\n\r\n").expect("sent");
    let mut answer = [0; 12];
    trickle.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    while trickle.read_exact(&mut answer).is_err() {
        assert!(began.elapsed() < Duration::from_secs(45), "a trickle is waited for");
        let _ = trickle.write_all(b"x");
    }
    assert_eq!(&answer, b"HTTP/1.1 408");
    assert!(began.elapsed() > Duration::from_millis(2900), "three seconds are everybody's");
}

/// Who gives up waiting for a slow disk leaves what they sent in the queue: it is held, and counts as held, until it is committed.
#[test]
fn what_is_queued_counts_until_it_is_committed() {
    let folder = Folder::new();
    let server = folder.serve_with(&["--commit-timeout", "200ms"]);
    let tenant = folder.only_tenant();
    let messages: Vec<String> =
        (0..50).map(|i| format!(r#"{{"type":"track","event":"e","userId":"u","messageId":"m-{i}"}}"#)).collect();
    let batch = format!(r#"{{"batch":[{}]}}"#, messages.join(","));
    let (memory, queue) =
        ("firsthop_memory_bytes", format!("firsthop_journal_queue_bytes{{tenant=\"{}\"}}", tenant.id));
    until("nothing is held", || server.metric(memory) == 0.0);
    let journal = rusqlite::Connection::open(tenant.folder.join("journal.db")).expect("opens");
    journal.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let answer = server.client().segment("/v1/batch", &tenant.key, &batch);
    assert_eq!((answer.status, answer.json()["detail"].as_str()), (503, Some("the disk is slow")));
    // Asked in this order: what is committed in between is held no longer either.
    let (held, queued) = (server.metric(memory), server.metric(&queue));
    journal.execute_batch("ROLLBACK").expect("unlocked");
    assert!(queued > 1000.0 && held >= queued, "{queued} bytes wait, {held} count");
    until("all of it is committed", || server.metric(&queue) == 0.0);
    until("nothing is held", || server.metric(memory) == 0.0);
    assert_eq!(tenant.journal("SELECT SUM(count) FROM frames"), 50);
}

/// Thousands of connections that stall, in the middle of a head that is as large as it may be or of a body: what the process holds is
/// what `docs/operations.md` says at most.
#[test]
fn memory_has_a_ceiling_that_holds() {
    let folder = Folder::new();
    let many = descriptors(2000);
    let server = folder.serve_with(&[
        "--connections",
        &many.to_string(),
        "--memory",
        "32MiB",
        "--header-timeout",
        "60s",
        "--body-timeout",
        "60s",
    ]);
    let tenant = folder.only_tenant();
    let resident = || server.metric("process_resident_memory_bytes");
    let idle = resident();
    let head = format!("POST /v1/f HTTP/1.1\r\nHost: test\r\nX-Filler: {}", "x".repeat(15_000));
    let mut stalled = Vec::new();
    for i in 0..many - 20 {
        let mut stream = connect_from(2 + (i % 16) as u8, server.public);
        // Some are refused for want of memory, and hang up in the middle.
        let _ = if i % 2 == 0 {
            stream.write_all(head.as_bytes())
        } else {
            let _ = stream.write_all(b"POST /v1/f HTTP/1.1\r\nHost: test\r\nContent-Length: 500000\r\n\r\n");
            stream.write_all(&[b'x'; 40_000])
        };
        stalled.push(stream);
    }
    let ceiling = idle + many as f64 * 48.0 * 1024.0 + 32.0 * 1_048_576.0;
    let mut most = 0.0_f64;
    until("what has come is held", || {
        most = most.max(resident());
        most - idle > many as f64 / 2.0 * 15_000.0
    });
    // What has yet to be read comes now.
    thread::sleep(Duration::from_secs(1));
    most = most.max(resident());
    assert!(most < ceiling, "{most} over {ceiling}");
    let mut page = Page::new(&tenant);
    assert_eq!(Client::from(99, server.public).frame(&page.frame(1)).receipt().stored, 1, "and one more is served");
}
