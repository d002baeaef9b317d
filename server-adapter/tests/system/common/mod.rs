//! A real server process, a plain HTTP client, and pages that make frames as the SDK does.

mod client;
mod folder;
mod page;
mod server;

use std::{
    net::TcpListener,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use firsthop_core::Timestamp;
use rusqlite::Connection;

pub(crate) use self::{
    client::{Client, Response, connect_from, read_response},
    folder::{Folder, Tenant, clean, firsthop, number, sdk, served},
    page::Page,
    server::Server,
};

/// Requests that are under way and stay so, because somebody else has the journal.
pub(crate) struct HeldUp {
    journal: Connection,
    waiting: Vec<JoinHandle<u16>>,
}

impl HeldUp {
    pub(crate) fn new(server: &Server, tenant: &Tenant, count: usize) -> Self {
        let journal = Connection::open(tenant.folder.join("journal.db")).expect("opens");
        journal.execute_batch("BEGIN IMMEDIATE").expect("locked");
        let waiting = (0..count).map(|_| {
            let (mut client, mut page) = (server.client(), Page::new(tenant));
            thread::spawn(move || client.frame(&page.frame(1)).status)
        });
        let waiting = waiting.collect();
        let under_way = format!("firsthop_requests_under_way{{tenant=\"{}\"}}", tenant.id);
        until("they are under way", || server.metric(&under_way) == count as f64);
        Self { journal, waiting }
    }

    /// Lets them have their answers.
    pub(crate) fn let_go(self) {
        self.journal.execute_batch("ROLLBACK").expect("unlocked");
        drop(self.journal);
        for status in self.waiting {
            assert!([200, 503].contains(&status.join().expect("an answer")));
        }
    }
}

/// For what takes a moment, on a machine that has other things to do.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Waits until something is so: for all that another thread or process has yet to do.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    // Longer than any pause between two attempts, on a machine that has other things to do.
    let due = Instant::now() + Duration::from_secs(120);
    while !is_so() {
        assert!(Instant::now() < due, "{what}: not so after two minutes");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Raises a flag at its end, however that comes: load in other threads goes on until the flag is up, and whoever waits for those
/// threads after a panic would wait for ever.
pub(crate) struct Raise<'a>(pub(crate) &'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A port that is free, and stays free while nobody listens on it: the system takes none of these for a connection of its own accord.
pub(crate) fn own_port() -> TcpListener {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768_u16);
    let port = || 10_000 + u16::from_le_bytes(random()) % first.saturating_sub(10_000).max(1);
    let bound = (0..1000).find_map(|_| TcpListener::bind(("127.0.0.1", port())).ok());
    bound.expect("a free port")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp::from_millis(since.as_millis() as u64)
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("random bytes");
    bytes
}
