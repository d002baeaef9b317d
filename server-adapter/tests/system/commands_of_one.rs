//! A command that is given for one tenant reads, changes and prints nothing of another's.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use rusqlite::{Connection, OpenFlags};

use crate::common::{Folder, Tenant, clean, text, until};

/// Every command that has `--tenant`, and what it is given besides.
const COMMANDS: [&[&str]; 27] = [
    &["events", "--json"],
    &["events", "--user", "a-person"],
    &["quarantine", "list"],
    &["quarantine", "show", "1"],
    &["sinks", "list"],
    &["sinks", "dead", "--json"],
    &["edge", "list"],
    &["key", "list"],
    &["key", "ledger"],
    &["key", "document"],
    &["region-key", "list"],
    &["region-key", "config"],
    &["schema"],
    &["verify"],
    &["reconcile", "--grace", "0s"],
    &["backup", "--events", "--to", "BACKUP"],
    &["restore", "--from", "BACKUP", "--data", "RESTORED"],
    &["quarantine", "replay", "--all"],
    &["replay", "--sink", "lines", "--from", "1"],
    &["erase", "--user", "a-person", "--undelivered", "--yes"],
    &["quarantine", "discard", "1", "--yes"],
    &["sinks", "discard", "--sink", "lines"],
    &["edge", "add", "--name", "second", "--region", "EU"],
    &["edge", "revoke", "zurich"],
    &["region-key", "new", "--region", "EU"],
    &["region-key", "retire", "1"],
    &["key", "rotate"],
];

/// All that a tenant's folder holds, but for what a server notes there by itself as time goes: texts as they are, databases row by row.
fn holds(tenant: &Tenant) -> BTreeMap<String, String> {
    let mut held = BTreeMap::new();
    for entry in fs::read_dir(&tenant.folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("db") if name != "schema.db" => {
                held.extend(rows(&path).map(|(table, rows)| (name.clone() + &table, rows)))
            }
            Some("toml" | "pem" | "json" | "ndjson") => {
                held.insert(name, fs::read_to_string(&path).expect("a text"));
            }
            _ => {}
        }
    }
    held
}

fn rows(path: &Path) -> impl Iterator<Item = (String, String)> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("opens");
    let named = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT IN ('meta', 'seen', 'ledger')";
    let mut named = connection.prepare(named).expect("a query");
    let tables: Vec<String> =
        named.query_map([], |row| row.get(0)).expect("rows").map(|name| name.expect("a name")).collect();
    drop(named);
    tables.into_iter().map(move |table| {
        let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).expect("a query");
        let columns = statement.column_count();
        let mut found = statement.query([]).expect("rows");
        let mut text = String::new();
        while let Some(row) = found.next().expect("a row") {
            text.extend((0..columns).map(|column| format!("{:?} ", row.get_ref(column).expect("a value"))));
            text.push('\n');
        }
        drop(found);
        drop(statement);
        (format!("/{table}"), text)
    })
}

/// Commands under this one that can be given for a tenant, as `--help` says.
fn with_tenant(under: &[&str]) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firsthop"));
    let help = text(&clean(&mut command).args(under).arg("--help").output().expect("runs").stdout);
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // The next words of a description that is longer than a line stand further in.
    let names = listed
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next());
    let below = names.filter(|name| *name != "help").flat_map(|name| with_tenant(&[under, &[name]].concat()));
    let own = help.contains("--tenant <TENANT>").then(|| under.join(" "));
    below.chain(own).collect()
}

/// Two tenants that hold the same under the same names, with a server and without one.
#[test]
fn a_command_for_one_tenant_leaves_the_other_as_it_is() {
    for with_server in [true, false] {
        let folder = Folder::new();
        let (a, b) = (folder.tenant("first", &["--region", "EU"]), folder.tenant("second", &["--region", "EU"]));
        for tenant in [&a, &b] {
            let id = tenant.id.to_string();
            folder.ok(&["edge", "add", "--tenant", &id, "--name", "zurich", "--region", "EU"]);
            folder.ok(&["region-key", "new", "--tenant", &id, "--region", "EU"]);
            let file = tenant.folder.join("tenant.toml");
            let settings = fs::read_to_string(&file).expect("there");
            fs::write(&file, settings + "\n[[sinks]]\nkind = 'ndjson'\nname = 'lines'\n").expect("written");
            // A dead letter: from a build of before, which the server brings up.
            let dead = include_str!("../fixtures/version-2/sinks.sql").replace("(1, 'events',", "(1, 'lines',");
            Connection::open(tenant.folder.join("sinks.db")).expect("opens").execute_batch(&dead).expect("SQL");
        }
        let mut server = folder.serve();
        for (tenant, event) in [(&a, "Of the first"), (&b, "Of the second")] {
            let call = format!(r#"{{"event":"{event}","userId":"a-person","messageId":"m"}}"#);
            assert_eq!(server.client().segment("/v1/track", &tenant.key, &call).status, 200);
            // Without a name.
            let call = r#"{"type":"track","userId":"another"}"#;
            assert_eq!(server.client().segment("/v1/track", &tenant.key, call).code(), "malformed-json");
            tenant.settle();
            let lines = tenant.folder.join("lines.ndjson");
            until("the sink has it", || fs::read_to_string(&lines).is_ok_and(|text| text.ends_with("}\n")));
        }
        server.stop();
        let (before, of_a) = (holds(&b), holds(&a));
        for table in ["journal.db/frames", "journal.db/quarantine", "events.db/events", "sinks.db/dead", "lines.ndjson"]
        {
            assert!(before[table].lines().count() == 1, "{table}: {before:?}");
        }

        let mut server = with_server.then(|| folder.serve());
        let aside = |name| folder.path.with_file_name(name).to_string_lossy().into_owned();
        let (backup, restored) = (aside("backup"), aside("restored"));
        for arguments in COMMANDS {
            let given = arguments.iter().map(|&argument| match argument {
                "BACKUP" => &backup,
                "RESTORED" => &restored,
                other => other,
            });
            let arguments: Vec<&str> = given.chain(["--tenant", "first"]).collect();
            let said = folder.ok(&arguments);
            for foreign in [&b.id.to_string(), &b.key, "Of the second", "tenant \"second\""] {
                assert!(!said.contains(foreign), "{arguments:?} tells of {foreign}: {said}");
            }
            assert_eq!(holds(&b), before, "{arguments:?}, with a server: {with_server}");
        }
        assert!(!Path::new(&backup).join("tenants").join(b.id.to_string()).exists());
        // And it was done where it was meant.
        let after = holds(&a);
        for what in ["journal.db/quarantine", "events.db/events", "sinks.db/dead"] {
            assert_eq!(after[what], "", "{what}");
        }
        assert!(["tenant.toml", "keys.toml"].iter().all(|name| after[*name] != of_a[*name]));
        if let Some(server) = &mut server {
            server.stop();
        }
        folder.ok(&["verify"]);
    }
}

/// A command that gets `--tenant` gets a row above.
#[test]
fn each_command_for_one_tenant_is_tried() {
    let tried = |name: &str| COMMANDS.iter().any(|arguments| arguments.join(" ").starts_with(name));
    let there = with_tenant(&[]);
    assert!(there.len() >= 20, "{there:?}");
    let missing: Vec<_> = there.iter().filter(|name| !tried(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
