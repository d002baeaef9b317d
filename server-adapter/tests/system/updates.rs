//! From one build to the next: files that an older one has written, and one that a newer one has.

use std::{fs, path::Path};

use rusqlite::Connection;

use crate::common::{Folder, Page, Server, Tenant, firsthop};

/// A tenant as the first released build left it when it was killed: frames of which some have not settled, an edge's, another
/// vendor's, with partial duplicates, and things in quarantine. The databases stand as SQL text.
fn version_2(folder: &Folder) -> Tenant {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/version-2");
    let read = |name: &str| fs::read_to_string(fixture.join(name)).expect(name);
    let file = read("tenant.toml");
    let value = |key: &str| file.split(key).nth(1).and_then(|rest| rest.split('"').nth(1)).expect(key).to_owned();
    let (id, key) = (value("id = "), value("write_keys = "));
    let tenant = Tenant { id: id.parse().expect("an id"), key, folder: folder.path.join("tenants").join(&id) };
    fs::create_dir_all(&tenant.folder).expect("made");
    for name in ["tenant.toml", "keys.toml"] {
        fs::copy(fixture.join(name), tenant.folder.join(name)).expect("copied");
    }
    for name in ["journal", "events"] {
        let connection = Connection::open(tenant.folder.join(format!("{name}.db"))).expect("opens");
        connection.execute_batch(&read(&format!("{name}.sql"))).expect("SQL");
        assert_eq!(connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).expect("a number"), 2);
    }
    tenant
}

#[test]
fn what_the_first_release_wrote_is_read_and_gone_on_with() {
    let folder = Folder::new();
    let tenant = version_2(&folder);
    let frames = |tenant: &Tenant| tenant.journal("SELECT COUNT(*) FROM frames");
    let before = (frames(&tenant), tenant.journal("SELECT SUM(events) FROM counters"));
    let said = folder.fails(&["verify"]);
    assert!(said.contains("schema version 2") && said.contains("firsthop serve"), "{said}");

    let mut server = folder.serve();
    let log = server.log();
    let line = log.lines().find(|line| line.contains("migrated")).expect("told");
    assert!(line.contains(r#""from":2"#) && line.contains("seconds"), "{line}");
    assert_eq!((frames(&tenant), tenant.journal("SELECT SUM(events) FROM counters")), before);
    // What it had seen is seen.
    let event = r#"{"event":"Order 1","userId":"u-1","messageId":"m-1","properties":{"n":1}}"#;
    let response = server.client().segment("/v1/track", &tenant.key, event);
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(frames(&tenant), before.0, "a duplicate");
    let mut page = Page::new(&tenant);
    page.begin(&mut server.client());
    let frame = page.frame(20);
    assert_eq!(server.client().frame(&frame).receipt().stored, 20);
    tenant.settle();
    server.stop();
    let said = folder.ok(&["verify"]);
    assert!(said.contains("all of it is as it was written"), "{said}");
    let mut again = folder.serve();
    assert!(!again.log().contains("migrated"));
    again.stop();
}

/// `sinks.db` and `events.db` of an older build, of which nothing writes to the first any more: commands say what to do, a server that
/// starts brings both up, and so does a restore.
#[test]
fn what_sinks_noted_under_an_older_build_is_read() {
    let folder = Folder::new();
    let tenant = version_2(&folder);
    let records = || Connection::open(tenant.folder.join("sinks.db")).expect("opens");
    let version = || records().query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).expect("a number");
    let older = include_str!("../fixtures/version-2/sinks.sql");
    records().execute_batch(older).expect("SQL");
    // What was refused is not in the table.
    let table = Connection::open(tenant.folder.join("events.db")).expect("opens");
    table.execute("DELETE FROM events WHERE rowid = 1", []).expect("deleted");
    drop(table);
    let backup = folder.path.with_file_name("backup");
    folder.ok(&["backup", "--events", "--to", backup.to_str().expect("text")]);
    for command in [&["sinks", "list"][..], &["sinks", "dead"], &["events"]] {
        let said = folder.fails(command);
        assert!(
            said.contains("schema version") && said.contains("`firsthop serve` brings it up"),
            "{command:?}: {said}"
        );
    }
    let mut server = folder.serve();
    assert_eq!(version(), 2);
    let dead = folder.ok(&["sinks", "dead", "--sink", "events", "--json"]);
    assert!(dead.contains("Refused by an older build"), "{dead}");
    server.stop();

    let other = Folder::new();
    other.ok(&["restore", "--from", backup.to_str().expect("text")]);
    for command in [&["sinks", "list"][..], &["sinks", "dead"], &["events"]] {
        other.ok(command);
    }
    other.serve().stop();
}

/// A build that is older than the file does not touch it, and says what to do.
#[test]
fn what_a_newer_build_wrote_is_refused() {
    let folder = Folder::new();
    let tenant = version_2(&folder);
    Connection::open(tenant.folder.join("journal.db"))
        .expect("opens")
        .execute_batch("PRAGMA user_version = 1000")
        .expect("set");
    let before = fs::read(tenant.folder.join("journal.db")).expect("read");
    let mut command = firsthop(&folder.path);
    command.arg("serve");
    assert!(Server::try_start(command).is_err());
    let said = folder.fails(&["serve", "--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0"]);
    assert!(said.contains("a newer firsthop has written it (schema version 1000"), "{said}");
    assert!(folder.fails(&["verify"]).contains("a newer firsthop"));
    assert!(fs::read(tenant.folder.join("journal.db")).expect("read") == before, "it was written to");
}
