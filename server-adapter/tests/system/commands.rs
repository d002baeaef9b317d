//! The commands, as a person uses them: settings, tenants, events, verify.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use rusqlite::Connection;

use crate::common::{Folder, LONG, Page, Server, Tenant, clean, firsthop, text};

#[test]
fn settings_come_in_layers_and_typing_errors_are_found() {
    let folder = Folder::new();
    let file = folder.path.with_extension("toml");
    let settings = |text: &str, variables: &[(&str, &str)], arguments: &[&str]| {
        std::fs::write(&file, text).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_firsthop"));
        clean(&mut command).arg("settings").args(arguments).env("FIRSTHOP_CONFIG", &file);
        command.envs(variables.iter().copied());
        let output = command.output().expect("runs");
        (output.status.code(), crate::common::text(&output.stdout) + &crate::common::text(&output.stderr))
    };
    let has = |said: &(Option<i32>, String), line: &str| {
        assert_eq!(said.0, Some(0), "{}", said.1);
        assert!(said.1.lines().any(|found| found == line), "{line} in {}", said.1);
    };
    let defaults = settings("", &[], &[]);
    has(&defaults, "listen = 127.0.0.1:8080");
    has(&defaults, "internal_listen = 127.0.0.1:9090");
    has(&defaults, "data = firsthop-data");
    let listen = "listen = '127.0.0.1:1'";
    has(&settings(listen, &[], &[]), "listen = 127.0.0.1:1");
    has(&settings(listen, &[("PORT", "2")], &[]), "listen = 0.0.0.0:2");
    has(&settings(listen, &[("PORT", "2"), ("FIRSTHOP_LISTEN", "127.0.0.1:3")], &[]), "listen = 127.0.0.1:3");
    let option = &["--listen", "127.0.0.1:4"];
    has(&settings(listen, &[("PORT", "2"), ("FIRSTHOP_LISTEN", "127.0.0.1:3")], option), "listen = 127.0.0.1:4");
    has(&settings("", &[("FIRSTHOP_MEMORY", "1GiB"), ("FIRSTHOP_BODY_TIMEOUT", "2m")], &[]), "memory = 1GiB");
    // What Kubernetes sets beside a Service of our name is not ours.
    has(
        &settings("", &[("FIRSTHOP_SERVICE_HOST", "10.0.0.1"), ("FIRSTHOP_PORT", "tcp://10.0.0.1:80")], &[]),
        "proxies = 0",
    );

    let wrong = |said: (Option<i32>, String), code: i32, says: &str| {
        assert_eq!(said.0, Some(code), "{}", said.1);
        assert!(said.1.contains(says), "{says} in {}", said.1);
    };
    wrong(settings("lisen = 'x'", &[], &[]), 1, "unknown field `lisen`");
    wrong(settings("listen = 7", &[], &[]), 1, "listen");
    wrong(settings("", &[("FIRSTHOP_LISEN", "x")], &[]), 1, "FIRSTHOP_LISEN: no such setting");
    wrong(settings("", &[("FIRSTHOP_MEMORY", "much")], &[]), 2, "such as 64MiB");
    wrong(settings("", &[("PORT", "http")], &[]), 1, "PORT=http: not a port");
    wrong(settings("", &[], &["--memory", "1MiB"]), 1, "at least queue");
    wrong(settings("", &[], &["--colour", "red"]), 2, "--colour");
    // A file system in which nothing can be made, and which says that something is missing.
    let output = firsthop("/proc/none/none".as_ref()).arg("serve").output().expect("runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("/proc/none"), "{output:?}");
    let help = Command::new(env!("CARGO_BIN_EXE_firsthop")).args(["serve", "--help"]).output().expect("runs");
    // Lines are broken where the terminal ends.
    let help = text(&help.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    // The table in docs/operations.md, row by row.
    let shown = defaults.1.lines().filter_map(|line| line.split_once(" ="));
    let shown: Vec<_> = shown.map(|(name, value)| (name, value.trim())).collect();
    let docs = include_str!("../../../docs/operations.md");
    let rows = docs.lines().skip_while(|line| *line != "| setting | default | what |").skip(2);
    let rows = rows.map_while(|line| line.strip_prefix("| `")?.split_once("` | "));
    let default = |rest: &'static str| rest.split('|').next().unwrap_or_default().trim_matches([' ', '`']);
    let documented: Vec<_> = rows.map(|(name, rest)| (name, default(rest))).collect();
    assert_eq!(documented, shown, "each, with its default");
    for (name, _) in shown {
        assert!(help.contains(&format!("--{}", name.replace('_', "-"))), "{name}");
        assert!(help.contains(&format!("[env: FIRSTHOP_{}]", name.to_uppercase())), "{name}");
    }
}

#[test]
fn tenants_are_made_listed_and_renamed() {
    let folder = Folder::new();
    let shop = folder
        .tenant("shop", &["--region", "EU", "--origin", "https://shop.example", "--origin", "https://*.shop.example"]);
    let list = folder.ok(&["tenant", "list"]);
    assert!(
        list.contains(&shop.id.to_string()) && list.contains("https://shop.example https://*.shop.example"),
        "{list}"
    );
    folder.ok(&["tenant", "rename", "shop", "store"]);
    assert_eq!(folder.only_tenant().id, shop.id, "the id stays");
    assert!(folder.fails(&["tenant", "rename", "shop", "x"]).contains("there are: store"));
    assert!(folder.fails(&["tenant", "add", "store"]).contains("already"));
    assert!(
        folder.fails(&["tenant", "add", "x", "--origin", "shop.example"]).contains("origins: \"shop.example\" is none")
    );
    assert_eq!(folder.run(&["tenant", "add", "x", "--region", "Europe"]).status.code(), Some(2));
    folder.tenant("other", &[]);
    assert!(folder.fails(&["events"]).contains("which tenant?"));
}

/// Lists for programs; and what is missing on a command line is said with what would do.
#[test]
fn commands_are_of_one_mould() {
    let folder = Folder::new();
    let shop = folder.tenant("shop", &["--region", "EU", "--origin", "https://shop.example"]);
    folder.ok(&["edge", "add", "--name", "fra", "--region", "EU"]);
    folder.ok(&["edge", "add", "--name", "gone", "--region", "EU"]);
    folder.ok(&["edge", "revoke", "gone"]);
    let json = |arguments: &[&str]| -> Vec<serde_json::Value> {
        let said = folder.ok(&[arguments, &["--json"]].concat());
        said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let tenants = json(&["tenant", "list"]);
    assert_eq!((&tenants[0]["name"], &tenants[0]["edges"]), (&"shop".into(), &1.into()));
    assert_eq!(tenants[0]["writeKeys"], serde_json::json!([shop.key]));
    let edges = json(&["edge", "list"]);
    assert_eq!((&edges[0]["name"], &edges[0]["revoked"]), (&"fra".into(), &serde_json::Value::Null));
    assert!(edges[1]["revoked"].is_string() && folder.ok(&["edge", "list"]).contains(" revoked 20"));
    let sinks = json(&["sinks", "list"]);
    assert_eq!((&sinks[0]["sink"], &sinks[0]["behindFrames"]), (&"events".into(), &0.into()));

    let refused = |arguments: &[&str], says: &str| {
        let output = folder.run(arguments);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(says), "{arguments:?}: {said}");
    };
    refused(&["replay", "--sink", "events"], "<--from <FROM>|--dead>");
    refused(&["replay", "--sink", "events", "--dead", "--from", "1"], "cannot be used with");
    refused(&["erase", "--yes"], "<--user <USER>|--anonymous <ANONYMOUS>>");
    refused(&["verify", "--ledger", "--known", "xx"], "64 hex digits");
}

/// A server with some events of two users.
fn some_events(folder: &Folder) -> (Server, Tenant) {
    let server = folder.serve();
    let tenant = folder.only_tenant();
    let mut client = server.client();
    for (path, json) in [
        (
            "/v1/track",
            r#"{"event":"Product Viewed","userId":"ada","messageId":"1","properties":{"price":18.99,"id":9007199254740993}}"#,
        ),
        (
            "/v1/page",
            r#"{"name":"Basket","anonymousId":"anon-1","messageId":"2","context":{"page":{"url":"https://shop.example/b"},"locale":"de-CH"}}"#,
        ),
        ("/v1/track", r#"{"event":"\u001b[31mred\u001b[0m","userId":"bob","messageId":"3"}"#),
        ("/v1/identify", r#"{"userId":"ada","messageId":"4","traits":{"plan":"pro"}}"#),
    ] {
        assert_eq!(client.segment(path, &tenant.key, json).status, 200);
    }
    tenant.settle();
    (server, tenant)
}

#[test]
fn events_are_shown_and_filtered() {
    let folder = Folder::new();
    let (_server, _) = some_events(&folder);
    let names = |arguments: &[&str]| -> Vec<String> {
        let shown = folder.ok(&[&["events", "--json"], arguments].concat());
        let json = shown.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        json.map(|event| event["foreign_id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(names(&[]), ["1", "2", "3", "4"]);
    assert_eq!(names(&["--limit", "2"]), ["3", "4"]);
    assert_eq!(names(&["--kind", "track"]), ["1", "3"]);
    assert_eq!(names(&["--name", "Basket"]), ["2"]);
    assert_eq!(names(&["--user", "ada"]), ["1", "4"]);
    assert_eq!(names(&["--user", "anon-1"]), ["2"]);
    assert_eq!(names(&["--from", "1h", "--to", "2999-01-01"]), ["1", "2", "3", "4"]);
    assert_eq!(names(&["--to", "1h"]).len(), 0);
    // As these were called before.
    assert_eq!(names(&["--since", "1h", "--until", "1h"]).len(), 0);
    assert_eq!(names(&["--user", "' OR 1=1 --"]).len(), 0);
    assert_eq!(folder.run(&["events", "--kind", "tracks"]).status.code(), Some(2));

    let first = folder.ok(&["events", "--json", "--name", "Product Viewed"]);
    assert!(first.contains(r#""properties":{"price":18.99,"id":9007199254740993}"#), "digits as they came: {first}");
    let basket: serde_json::Value =
        serde_json::from_str(&folder.ok(&["events", "--json", "--name", "Basket"])).expect("JSON");
    assert_eq!((&basket["url"], &basket["context"]["locale"]), (&"https://shop.example/b".into(), &"de-CH".into()));
    assert_eq!(basket["network"], "127.0.0.0/24");
    let table = folder.ok(&["events"]);
    assert!(table.starts_with("TIME ") && table.lines().count() == 5, "{table}");
    assert!(!table.contains('\u{1b}') && table.contains("\\u{1b}[31mred"), "a name steers no terminal: {table}");
}

#[test]
fn events_are_followed() {
    let folder = Folder::new();
    let (server, tenant) = some_events(&folder);
    let mut follow = firsthop(&folder.path)
        .args(["events", "--follow", "--json", "-n", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(follow.stdout.take().expect("piped")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    assert!(next().contains(r#""foreign_id":"4""#));
    let mut page = Page::new(&tenant);
    page.begin(&mut server.client());
    assert!(next().contains(&format!("{}/0", page.source)));
    let frame = page.frame(2);
    server.client().frame(&frame).receipt();
    assert!(next().contains(&format!("{}/1", page.source)));
    assert!(next().contains(&format!("{}/2", page.source)));
    follow.kill().expect("killed");
    follow.wait().expect("ended");
}

/// One byte of the journal changed, or one row too many or too few: found, named, and the end is not 0.
#[test]
fn verify_finds_what_changed() {
    let folder = Folder::new();
    let (mut server, tenant) = some_events(&folder);
    let mut client = server.client();
    let mut page = Page::new(&tenant);
    page.begin(&mut client);
    for n in [3, 40] {
        let frame = page.frame(n);
        client.frame(&frame).receipt();
    }
    let conflict = page.frame_at(0, 1, "Another");
    client.frame(&conflict).receipt();
    // While the server runs, and after.
    assert!(folder.ok(&["verify"]).contains("48 events in 7 frames (2 signed by a session"));
    server.stop();
    folder.ok(&["verify"]);

    let journal = tenant.folder.join("journal.db");
    let (good, good_events) =
        (std::fs::read(&journal).expect("there"), std::fs::read(tenant.folder.join("events.db")).expect("there"));
    let restore = || {
        for name in ["journal.db-wal", "journal.db-shm", "events.db-wal", "events.db-shm"] {
            let _ = std::fs::remove_file(tenant.folder.join(name));
        }
        std::fs::write(&journal, &good).expect("written");
        std::fs::write(tenant.folder.join("events.db"), &good_events).expect("written");
    };
    // A bit in the middle of a stored frame: in its text, and in its tag.
    let text_at = good.windows(14).position(|bytes| bytes == b"Product Viewed").expect("in clear");
    for at in [text_at, text_at + 5] {
        let mut changed = good.clone();
        changed[at] ^= 0x10;
        std::fs::write(&journal, &changed).expect("written");
        let said = folder.fails(&["verify"]);
        assert!(said.contains("FAULT: frame") && said.contains("CRC-32 does not match"), "{said}");
        restore();
    }
    let sql = |database: &str, statement: &str, says: &str| {
        let connection = Connection::open(tenant.folder.join(database)).expect("opens");
        assert!(
            connection.execute(statement, []).unwrap_or_else(|error| panic!("{statement}: {error}")) > 0,
            "{statement}"
        );
        drop(connection);
        let said = folder.fails(&["verify"]);
        assert!(said.contains("FAULT") && said.contains(says), "{statement}: {said}");
        restore();
    };
    let last = "(SELECT MAX(id) FROM frames)";
    sql("journal.db", &format!("UPDATE frames SET received_ms = received_ms + 1 WHERE id = {last}"), "its row changed");
    sql("journal.db", &format!("UPDATE frames SET annotation = x'00' WHERE id = {last}"), "its row changed");
    sql("journal.db", &format!("DELETE FROM frames WHERE id = {last}"), "events are noted");
    sql("journal.db", "UPDATE frames SET ids = 0 WHERE ids = 1", "its row changed");
    sql("journal.db", "DELETE FROM seen WHERE first = 4", "are not noted as seen");
    sql("journal.db", "UPDATE seen SET last = last + 1 WHERE first = 4", "are not noted as seen");
    sql("journal.db", "INSERT INTO seen VALUES (zeroblob(16), 0, 9, 1, NULL)", "events are noted");
    sql("journal.db", "UPDATE counters SET events = events - 1 WHERE outcome = 'stored'", "counters");
    sql("journal.db", "UPDATE quarantine SET body = x'00'", "quarantine");
    sql("journal.db", "UPDATE meta SET value = 7 WHERE key = 'quarantine_bytes'", "quarantine");
    sql("events.db", "DELETE FROM events WHERE seq = 5", "events table: has 47 rows");
    // A frame that is whole in itself, signed by a key that nobody has.
    let keys = tenant.folder.join("keys.toml");
    let text = std::fs::read_to_string(&keys).expect("there");
    std::fs::write(&keys, text.replace("id = 1", "id = 2")).expect("written");
    assert!(folder.fails(&["verify"]).contains("root 1 is not in keys.toml"));
    std::fs::write(&keys, text).expect("written");
    // A torn page.
    let mut torn = good.clone();
    let end = torn.len();
    torn[end - 16_384..].fill(0);
    std::fs::write(&journal, &torn).expect("written");
    assert!(folder.fails(&["verify"]).contains("FAULT"));
    restore();
    folder.ok(&["verify"]);

    // A server starts on it again and goes on; the table alone can be thrown away.
    std::fs::remove_file(tenant.folder.join("events.db")).expect("there");
    let mut server = folder.serve();
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 48);
    let frame = page.frame(1);
    assert_eq!(server.client().frame(&frame).receipt().stored, 1);
    server.signal("-INT");
    assert_eq!(server.wait(LONG).code(), Some(0));
    folder.ok(&["verify"]);
}
