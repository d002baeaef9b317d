//! A data folder, commands on it, and the server that serves it.

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use firsthop_core::{TenantId, WriteKey};
use serde_json::Value as Json;

use crate::{Outcome, http::Client, random::Random, row::Watch, shim::Shim};

/// A data folder, with the addresses that its server has also after a restart.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) data: PathBuf,
    binary: PathBuf,
    pub(crate) public: SocketAddr,
    pub(crate) internal: SocketAddr,
    watch: Watch,
    log: Arc<Mutex<String>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    pub(crate) key: String,
    pub(crate) folder: PathBuf,
}

/// What a server is started with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct How<'a> {
    pub(crate) arguments: &'a [&'a str],
    pub(crate) shim: Option<&'a Shim>,
    /// Most bytes of a file, in KiB: a full disk for those who must not mount one.
    pub(crate) file_limit: Option<u64>,
}

impl Folder {
    pub(crate) fn new(data: PathBuf, binary: &Path, watch: Watch, random: &mut Random) -> Outcome<Self> {
        let log = watch.log();
        let (public, internal) = (free_port(random)?, free_port(random)?);
        Ok(Self { data, binary: binary.to_owned(), public, internal, watch, log })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("FIRSTHOP_") || text == "PORT" {
                command.env_remove(&name);
            }
        }
        command.env("FIRSTHOP_DATA", &self.data);
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome<Output> {
        Ok(self.command().args(arguments).stdin(Stdio::null()).output()?)
    }

    /// Runs a command that must succeed, and returns what it printed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> Outcome<String> {
        let output = self.run(arguments)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        Err(format!("firsthop {}: {}\n{out}{err}", arguments.join(" "), output.status).into())
    }

    pub(crate) fn tenant(&self, name: &str, more: &[&str]) -> Outcome<Tenant> {
        let said = self.ok(&[&["tenant", "add", name], more].concat())?;
        let key = said.split_whitespace().find(|word| word.starts_with("fh_")).ok_or("no write key is said")?;
        let id = WriteKey::parse(key)?.tenant();
        Ok(Tenant { id, key: key.to_owned(), folder: self.data.join("tenants").join(id.to_string()) })
    }

    pub(crate) fn serve(&self) -> Outcome<Server> {
        self.serve_with(How::default())
    }

    /// Starts the server and waits until it says that it is ready.
    pub(crate) fn serve_with(&self, how: How<'_>) -> Outcome<Server> {
        let mut command = self.command();
        if let Some(limit) = how.file_limit {
            // Its signal is ignored, so that writes fail as on a full disk.
            command = {
                let mut shell = Command::new("bash");
                shell.args(["-c", &format!("trap '' XFSZ; ulimit -S -f {limit}; exec \"$0\" \"$@\"")]);
                shell.arg(&self.binary);
                for (name, value) in command.get_envs() {
                    match value {
                        Some(value) => shell.env(name, value),
                        None => shell.env_remove(name),
                    };
                }
                shell
            };
        }
        command
            .arg("serve")
            .args(how.arguments)
            .env("FIRSTHOP_LISTEN", self.public.to_string())
            .env("FIRSTHOP_INTERNAL_LISTEN", self.internal.to_string())
            .env("FIRSTHOP_LOG_FORMAT", "json");
        if let Some(shim) = how.shim {
            shim.lay_under(&mut command);
        }
        let server = Server::start(command, Arc::clone(&self.log), self.watch.clone())?;
        match how.shim {
            Some(shim) if !shim.is_loaded()? => Err("the shim was not loaded into the server".into()),
            _ => Ok(server),
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.public)
    }

    /// What all of its servers have logged.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn metrics(&self) -> Outcome<String> {
        Ok(Client::new(self.internal).get("/metrics")?.text())
    }

    /// The sum of all samples whose names and labels contain these texts.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> Outcome<f64> {
        let page = self.metrics()?;
        let samples = page.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        Ok(samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Waits for `/readyz` to say this status, and says how long that took.
    pub(crate) fn await_ready(&self, status: u16, most: Duration) -> Outcome<Duration> {
        let began = Instant::now();
        loop {
            let said = Client::new(self.internal).get("/readyz").map(|answer| answer.status);
            if said.as_ref().is_ok_and(|said| *said == status) {
                return Ok(began.elapsed());
            }
            if began.elapsed() > most {
                return Err(format!("/readyz does not say {status} within {most:?}, but {said:?}").into());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A port that is free now and that the system gives to nobody by itself.
fn free_port(random: &mut Random) -> Outcome<SocketAddr> {
    for _ in 0..1000 {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 12_000 + random.below(20_000) as u16));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err("no port is free".into())
}

/// A server process. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    watch: Watch,
}

impl Server {
    fn start(mut command: Command, log: Arc<Mutex<String>>, watch: Watch) -> Outcome<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        watch.started(child.id());
        let (ready, is_ready) = mpsc::channel();
        let stderr = child.stderr.take().ok_or("no standard error")?;
        thread::spawn(move || {
            let mut said = String::new();
            // Whatever its bytes: what breaks off here would be taken for its end.
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                let json: Json = serde_json::from_str(&line).unwrap_or_default();
                if json["message"] == "ready" {
                    let _ = ready.send(Ok(()));
                }
                if said.len() < 4096 {
                    said = format!("{said}\n{line}");
                }
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&line);
                log.push('\n');
                // A server that complains for minutes shall not fill our memory.
                if log.len() > 4 << 20 {
                    let half = log.len() / 2;
                    let from = log[half..].find('\n').map_or(log.len(), |at| half + at + 1);
                    log.drain(..from);
                }
            }
            let _ = ready.send(Err(said));
        });
        let mut server = Self { child, watch };
        match is_ready.recv_timeout(Duration::from_secs(30)) {
            Ok(Ok(())) => Ok(server),
            // It has closed its standard error. One that dies without a word does so by a signal (a full disk below a mapped file is
            // SIGBUS), or because its file was being written at that moment.
            Ok(Err(said)) => {
                let how = server
                    .wait(Duration::from_secs(10))
                    .map_or_else(|error| error.to_string(), |status| status.to_string());
                let said = if said.is_empty() { " nothing" } else { &said };
                Err(format!("the server did not start ({how}); it said:{said}").into())
            }
            Err(_) => Err("the server is not ready after 30 s".into()),
        }
    }

    /// SIGKILL: nothing is flushed, nothing is closed.
    pub(crate) fn kill(mut self) -> Outcome<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) -> Outcome<()> {
        let status = Command::new("kill").args([name, &self.pid().to_string()]).status()?;
        if status.success() { Ok(()) } else { Err(format!("kill {name}: {status}").into()) }
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, most: Duration) -> Outcome<ExitStatus> {
        let due = Instant::now() + most;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > due {
                return Err(format!("the server does not end within {most:?}").into());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM, and the end: with 0.
    pub(crate) fn stop(mut self) -> Outcome<()> {
        self.signal("-TERM")?;
        let status = self.wait(Duration::from_secs(40))?;
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(()),
            (code, signal) => Err(format!("the server ended with {code:?}, signal {signal:?}").into()),
        }
    }

    /// The most memory that it has had, in bytes.
    pub(crate) fn resident(&self) -> Option<u64> {
        resident(self.pid())
    }
}

/// The most memory that a process has had, in bytes.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.watch.ended(self.child.id());
    }
}
