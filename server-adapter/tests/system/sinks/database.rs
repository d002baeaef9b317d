//! A PostgreSQL server of the test's own, in a temporary folder, as a user who is not root: PostgreSQL refuses that one.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::common::{own_port, until};

/// A server. Ended when dropped.
pub(super) struct Database {
    bin: PathBuf,
    folder: TempDir,
    pub(super) port: u16,
    server: Option<Child>,
}

impl Database {
    pub(super) fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("firsthop-pg-").tempdir().expect("a temporary folder");
        let bin = binaries();
        if is_root() {
            let done = Command::new("chown")
                .arg("-R")
                .arg("postgres:postgres")
                .arg(folder.path())
                .status()
                .expect("chown runs");
            assert!(done.success(), "there is no user postgres: the package makes it (tools/setup postgres)");
        }
        let port = own_port().local_addr().expect("an address").port();
        let mut database = Self { bin, folder, port, server: None };
        let data = database.folder.path().join("data");
        let output = database
            .command("initdb")
            .args(["-U", "shop", "-A", "trust", "--no-sync", "-E", "UTF8", "-D"])
            .arg(&data)
            .output();
        let output = output.expect("initdb runs");
        assert!(output.status.success(), "{output:?}");
        database.up(&[]);
        database
    }

    /// Starts the server, and waits until it answers.
    pub(super) fn up(&mut self, more: &[&str]) {
        let data = self.folder.path().join("data");
        let port = self.port.to_string();
        let sockets = format!("unix_socket_directories={}", self.folder.path().display());
        let mut command = self.command("postgres");
        command.arg("-D").arg(data).args(["-p", &port, "-c", "listen_addresses=127.0.0.1", "-c", &sockets]);
        for setting in more {
            command.args(["-c", setting]);
        }
        self.server = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("postgres runs"));
        until("PostgreSQL answers", || self.psql("SELECT 1").status.success());
    }

    /// Ends the server at once: SIGQUIT, as a crash is for its clients.
    pub(super) fn down(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = Command::new("kill").args(["-QUIT", &server.id().to_string()]).status();
            let _ = server.wait();
        }
    }

    /// By name, as operators give it: a static binary has to look it up by itself.
    pub(super) fn url(&self) -> String {
        format!("postgres://shop@localhost:{}/postgres", self.port)
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs SQL; what it prints, without decoration.
    pub(super) fn sql(&self, sql: &str) -> String {
        let output = self.psql(sql);
        assert!(output.status.success(), "{sql}: {output:?}");
        crate::common::text(&output.stdout).trim().to_owned()
    }

    /// One figure; 0 if the table is not there yet.
    pub(super) fn number(&self, sql: &str) -> usize {
        let output = self.psql(sql);
        crate::common::text(&output.stdout).trim().parse().unwrap_or(0)
    }

    fn psql(&self, sql: &str) -> Output {
        let mut command = Command::new(self.bin.join("psql"));
        command.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "shop",
            "-d",
            "postgres",
            "-p",
            &self.port.to_string(),
        ]);
        command.args(["-h".as_ref(), self.folder.path().as_os_str()]).args(["-c", sql]).output().expect("psql runs")
    }

    /// One of PostgreSQL's programs, not as root, and not for longer than the test.
    pub(super) fn command(&self, name: &str) -> Command {
        let program = self.bin.join(name);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=KILL"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.folder.path()).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        command
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.down();
    }
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("this process")) == 0
}

/// Where PostgreSQL's programs are: Debian has those of the server in no PATH.
fn binaries() -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()))
        .filter(|path| ["initdb", "postgres", "psql"].iter().all(|name| path.join(name).exists()))
        .collect();
    found.sort_unstable();
    found.pop().expect("a PostgreSQL server to test with: tools/setup postgres")
}
