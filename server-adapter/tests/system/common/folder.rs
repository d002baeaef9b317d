//! A data folder, commands on it, and what its tenants have stored.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::Duration,
};

use firsthop_core::{TenantId, WriteKey};
use rusqlite::Connection;
use serde_json::json;
use sha2::Digest as _;
use tempfile::TempDir;

use super::{Server, base64, now, text, until};

/// `firsthop` with a clean environment.
pub(crate) fn firsthop(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firsthop"));
    clean(&mut command).env("FIRSTHOP_DATA", data);
    command
}

pub(crate) fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("FIRSTHOP_") || name == "PORT" {
            command.env_remove(name);
        }
    }
    command
}

/// A data folder that is removed at the end, and commands on it.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    _temp: TempDir,
}

impl Folder {
    pub(crate) fn new() -> Self {
        // Counters and leases are by the hour: no test begins shortly before one ends.
        let left = 3_600_000 - now().as_millis() % 3_600_000;
        if left < 40_000 {
            thread::sleep(Duration::from_millis(left));
        }
        let temp = tempfile::tempdir().expect("a temporary folder");
        Self { path: temp.path().join("data"), _temp: temp }
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        firsthop(&self.path).args(arguments).output().expect("firsthop runs")
    }

    /// Runs a command that must succeed, and returns what it printed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {}\n{out}\n{err}", output.status);
        out
    }

    /// Runs a command that must fail, and returns what it said.
    pub(crate) fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        said
    }

    /// Makes a tenant and returns its write key.
    pub(crate) fn tenant(&self, name: &str, more: &[&str]) -> Tenant {
        let said = self.ok(&[&["tenant", "add", name], more].concat());
        let key = said.split_whitespace().find(|word| word.starts_with("fh_")).expect("a write key").to_owned();
        let id = WriteKey::parse(&key).expect("well formed").tenant();
        Tenant { id, key, folder: self.path.join("tenants").join(id.to_string()) }
    }

    /// The process that serves it, as it says through the control socket.
    pub(crate) fn served_by(&self) -> Option<u64> {
        let said: serde_json::Value = serde_json::from_slice(&self.run(&["status", "--json"]).stdout).ok()?;
        said["server"]["pid"].as_u64()
    }

    pub(crate) fn serve(&self) -> Server {
        self.serve_with(&[])
    }

    pub(crate) fn serve_with(&self, more: &[&str]) -> Server {
        let mut command = firsthop(&self.path);
        command.arg("serve").args(more);
        Server::start(command)
    }

    /// The tenant that `serve` makes.
    pub(crate) fn only_tenant(&self) -> Tenant {
        let list = self.ok(&["tenant", "list"]);
        let key = list.split_whitespace().find(|word| word.starts_with("fh_")).expect("a write key").to_owned();
        let id = WriteKey::parse(&key).expect("well formed").tenant();
        Tenant { id, key, folder: self.path.join("tenants").join(id.to_string()) }
    }
}

/// A folder, a server for it, and the tenant that it makes.
pub(crate) fn served() -> (Folder, Server, Tenant) {
    let folder = Folder::new();
    let server = folder.serve();
    let tenant = folder.only_tenant();
    (folder, server, tenant)
}

#[derive(Clone, Debug)]
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    pub(crate) key: String,
    pub(crate) folder: PathBuf,
}

impl Tenant {
    /// One figure from the journal.
    pub(crate) fn journal(&self, sql: &str) -> i64 {
        number(&self.folder.join("journal.db"), sql)
    }

    /// One figure from the events table.
    pub(crate) fn events(&self, sql: &str) -> i64 {
        number(&self.folder.join("events.db"), sql)
    }

    /// Waits until the events table has what the journal has.
    pub(crate) fn settle(&self) {
        let journal = || self.journal("SELECT COALESCE(MAX(id), 0) FROM frames");
        until("the events table has caught up", || self.events("SELECT frame FROM firsthop_cursor") >= journal());
    }

    pub(crate) fn quarantine(&self) -> BTreeMap<String, i64> {
        let connection = Connection::open(self.folder.join("journal.db")).expect("opens");
        let mut statement =
            connection.prepare("SELECT reason, COUNT(*) FROM quarantine GROUP BY reason").expect("a query");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
        rows.collect::<Result<_, _>>().expect("rows")
    }
}

pub(crate) fn number(path: &Path, sql: &str) -> i64 {
    let connection = Connection::open(path).expect("opens");
    connection.busy_timeout(Duration::from_secs(30)).expect("a timeout");
    connection.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// A page SDK of one file, in the place of one that was built.
pub(crate) fn sdk() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "void 0;";
    let integrity = format!("sha384-{}", base64(&sha2::Sha384::digest(script)));
    let file = json!({ "path": "/sdk/0123456789abcdef/firsthop.js", "integrity": integrity, "size": script.len() });
    let listing = json!({ "version": "0.1.0", "build": "0123456789abcdef", "files": { "firsthop.js": file } });
    std::fs::write(folder.path().join("firsthop.js"), script).expect("written");
    std::fs::write(folder.path().join("integrity.json"), listing.to_string()).expect("written");
    folder
}
