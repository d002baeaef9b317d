//! Sinks: what reaches them, whatever happens to them or to the server.

mod certificates;
mod database;
mod http;
mod lagging;
mod ndjson;
mod postgres;
mod receiver;

use std::{
    fs::OpenOptions,
    io::Write,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::Value as Json;

use crate::common::{Client, Folder, Page, Raise, Server, Tenant, served, until};

impl Tenant {
    /// Adds a sink to `tenant.toml`.
    fn add_sink(&self, toml: &str) {
        let mut file = OpenOptions::new().append(true).open(self.folder.join("tenant.toml")).expect("there");
        write!(file, "\n[[sinks]]\n{toml}\n").expect("written");
    }

    /// Takes all sinks out again.
    fn remove_sinks(&self) {
        let path = self.folder.join("tenant.toml");
        let text = std::fs::read_to_string(&path).expect("there");
        let end = text.find("\n[[sinks]]").expect("a sink");
        std::fs::write(&path, &text[..end]).expect("written");
    }

    /// Takes all sinks out, and waits until this one has ended: the next of its name has the settings of then.
    fn end_sinks(&self, server: &Server, sink: &str) {
        self.remove_sinks();
        let label = format!("sink=\"{sink}\"");
        until("it ended", || !server.internal_get("/metrics").text().contains(&label));
    }

    /// One of a sink's figures.
    fn sink(&self, server: &Server, figure: &str, sink: &str) -> f64 {
        let sample = format!("firsthop_sink_{figure}{{tenant=\"{}\",sink=\"{sink}\"}}", self.id);
        // A sink that has not begun has none, and none is equal to nothing.
        server.sample(&sample).unwrap_or(f64::NAN)
    }
}

/// A sink's row in `firsthop sinks list`.
fn listed(folder: &Folder, sink: &str) -> Vec<String> {
    let list = folder.ok(&["sinks", "list"]);
    let row = list.lines().find(|line| line.starts_with(&format!("{sink} "))).unwrap_or_else(|| panic!("{list}"));
    row.split_whitespace().map(str::to_owned).collect()
}

/// The ids of events, sorted.
fn ids(events: &[Json]) -> Vec<String> {
    let mut ids: Vec<String> =
        events.iter().map(|event| event["event_id"].as_str().expect("an id").to_owned()).collect();
    ids.sort_unstable();
    ids
}

/// The ids in the events table, sorted.
fn table_ids(tenant: &Tenant) -> Vec<String> {
    tenant.settle();
    let connection = rusqlite::Connection::open(tenant.folder.join("events.db")).expect("opens");
    let mut statement = connection.prepare("SELECT event_id FROM events ORDER BY event_id").expect("a query");
    let rows = statement.query_map([], |row| row.get(0)).expect("rows");
    rows.collect::<Result<_, _>>().expect("rows")
}

/// Sends frames of so many events, one after the other.
fn send(server: &Server, tenant: &Tenant, sizes: &[u64]) {
    let (mut client, mut page) = (server.client(), Page::new(tenant));
    page.begin(&mut client);
    for &size in sizes {
        assert_eq!(u64::from(client.frame(&page.frame(size)).receipt().stored), size);
    }
}

/// SIGKILL in the middle of delivery, twenty times, under load. `delivered` is a figure that moves with what the sink has.
fn kill_in_delivery<T: PartialEq>(
    folder: &Folder,
    mut server: Server,
    tenant: &Tenant,
    events: u64,
    delivered: impl Fn() -> T,
) -> Server {
    for round in 0..20 {
        let (killed, address) = (AtomicBool::new(false), server.public);
        thread::scope(|scope| {
            for i in 0..4 {
                let killed = &killed;
                scope.spawn(move || {
                    let (mut client, mut page) = (Client::new(address), Page::new(tenant));
                    while !killed.load(Ordering::Relaxed) {
                        if client.try_request("POST", "/v1/f", &[], &page.frame(1 + i * events)).is_err() {
                            return;
                        }
                        // The journal takes more than the sink does, which would be waited for at the end.
                        thread::sleep(Duration::from_millis(2));
                    }
                });
            }
            let _end = Raise(&killed);
            let before = delivered();
            until("something is delivered", || delivered() != before);
            thread::sleep(Duration::from_millis(round * 7));
            server.kill();
        });
        server = folder.serve();
    }
    server
}

/// Settings that nobody could have meant are refused, with the name of the sink and what to say instead.
#[test]
fn what_a_hand_got_wrong_is_said() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &[]);
    for (toml, says) in [
        ("kind = 'pigeon'\nname = 'a'", "unknown variant `pigeon`"),
        ("kind = 'ndjson'", "missing field `name`"),
        ("kind = 'ndjson'\nname = 'events'", "the events table is called so"),
        ("kind = 'ndjson'\nname = 'A b'", "small letters"),
        ("kind = 'ndjson'\nname = 'a'\nrotate = 1", "unknown field `rotate`"),
        ("kind = 'ndjson'\nname = 'a'\nrotate_bytes = 10", "at least 1MiB"),
        ("kind = 'ndjson'\nname = 'a'\nfrom = 'yesterday'", "unknown variant `yesterday`"),
        ("kind = 'http'\nname = 'a'\nurl = 'ftp://x'", "begins with https://"),
        ("kind = 'http'\nname = 'a'\nurl = 'https://me:secret@x'", "go into authorization_file"),
        ("kind = 'http'\nname = 'a'\nurl = 'https://x'\nsigning_key_file = 'k'", "signing_key_id"),
        (
            "kind = 'http'\nname = 'a'\nurl = 'https://x'\nauthorization_env = 'FIRSTHOP_A'",
            "does not begin with FIRSTHOP_",
        ),
        ("kind = 'http'\nname = 'a'\nurl = 'https://x'\nbatch_events = 0", "1 to 10000"),
        ("kind = 'http'\nname = 'a'\nurl = 'https://x'\ntimeout = '1ms'", "1s to 5m"),
        ("kind = 'postgres'\nname = 'a'", "one of url, url_file and url_env"),
        ("kind = 'postgres'\nname = 'a'\nurl = 'postgres://u:secret@h/d'", "no password here"),
        ("kind = 'postgres'\nname = 'a'\nurl = 'postgres://u@h/d'\ntable = 'a; drop'", "small letters"),
        ("kind = 'postgres'\nname = 'a'\nurl = 'postgres://u@h/d'\ntls = 'maybe'", "unknown variant `maybe`"),
        ("kind = 'ndjson'\nname = 'a'\n[[sinks]]\nkind = 'ndjson'\nname = 'a'", "stands twice"),
    ] {
        tenant.add_sink(toml);
        let said = folder.fails(&["sinks", "list"]);
        assert!(said.contains(says) && said.contains("tenant.toml"), "{toml}: {said}");
        tenant.remove_sinks();
    }
    // A command that writes the file anew leaves them as they are.
    tenant.add_sink("kind = 'http'\nname = 'a'\nurl = 'https://x'\nsigning_key_file = 'k'\nsigning_key_id = 'i'\nalgorithm = 'hmac-sha256'");
    tenant.add_sink("kind = 'postgres'\nname = 'b'\nurl = 'postgres://u@h/d'\ntable = 'a.b'\ntimeout = '5s'");
    tenant.add_sink("kind = 'ndjson'\nname = 'c'\npath = '-'\nrotate_after = '1h'\nfrom = 'now'");
    let before = folder.ok(&["sinks", "list"]);
    folder.ok(&["edge", "add", "--name", "fra", "--region", "EU"]);
    assert_eq!(folder.ok(&["sinks", "list"]), before);
    let file = std::fs::read_to_string(tenant.folder.join("tenant.toml")).expect("there");
    for kept in ["algorithm = \"hmac-sha256\"", "table = \"a.b\"", "timeout = \"5s\"", "from = \"now\"", "path = \"-\""]
    {
        assert!(file.contains(kept), "{kept}: {file}");
    }
}

/// An event that the events table refuses for good is kept aside with its reason, and the rest goes on; once the cause is gone it is
/// delivered by command.
#[test]
fn a_poison_event_stops_nobody() {
    let (folder, server, tenant) = served();
    send(&server, &tenant, &[1]);
    tenant.settle();
    let table = || rusqlite::Connection::open(tenant.folder.join("events.db")).expect("opens");
    table()
        .execute_batch(
            "CREATE TRIGGER poison BEFORE INSERT ON events WHEN new.properties ->> 'n' = 3
             BEGIN SELECT RAISE(ABORT, 'three is not allowed here'); END",
        )
        .expect("made");
    send(&server, &tenant, &[5, 5]);
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 12, "all but one");
    until("it is counted", || tenant.sink(&server, "dead_letters", "events") == 1.0);
    until("it is listed", || listed(&folder, "events")[6] == "1");
    let said = folder.ok(&["sinks", "dead"]);
    assert!(said.contains("three is not allowed here"), "{said}");
    let event: Json = serde_json::from_str(&folder.ok(&["sinks", "dead", "--json"])).expect("one line of JSON");
    assert_eq!(event["properties"]["n"], 3);
    folder.ok(&["verify"]);
    assert!(folder.fails(&["sinks", "discard", "--sink", "events"]).contains("has all events"));
    // As long as the cause is there, it stays.
    let said = folder.fails(&["replay", "--sink", "events", "--dead"]);
    assert!(said.contains("1 events stay refused"), "{said}");
    table().execute_batch("DROP TRIGGER poison").expect("dropped");
    let said = folder.ok(&["replay", "--sink", "events", "--dead"]);
    assert!(said.contains("1 events that events had refused are delivered"), "{said}");
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 13);
    assert!(folder.ok(&["sinks", "dead"]).contains("no dead letters"));
    folder.ok(&["verify"]);
}
