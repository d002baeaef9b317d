//! A server process.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value as Json;

use super::{Client, LONG, Response, Tenant, until};

/// A server process. Killed when dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) public: SocketAddr,
    pub(crate) internal: SocketAddr,
    log: Arc<Mutex<String>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Server {
    /// Starts a server on free ports and waits until it says that it is ready.
    pub(crate) fn start(command: Command) -> Self {
        Self::try_start(command).unwrap_or_else(|said| panic!("the server did not start: {said}"))
    }

    pub(crate) fn try_start(mut command: Command) -> Result<Self, String> {
        command
            .env("FIRSTHOP_LOG_FORMAT", "json")
            .env("FIRSTHOP_INTERNAL_LISTEN", "127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if !command.get_envs().any(|(name, _)| name == "PORT") {
            command.env("FIRSTHOP_LISTEN", "127.0.0.1:0");
        }
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let log = Arc::new(Mutex::new(String::new()));
        let (ready, is_ready) = mpsc::channel();
        let stderr = child.stderr.take().expect("piped");
        let reader = thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let said: Json = serde_json::from_str(&line).unwrap_or_default();
                    if said["message"] == "ready" {
                        let address = |name: &str| said[name].as_str().and_then(|text| text.parse().ok());
                        let _ = ready.send((address("public"), address("internal")));
                    }
                    let mut log = log.lock().expect("not poisoned");
                    log.push_str(&line);
                    log.push('\n');
                }
            }
        });
        match is_ready.recv_timeout(Duration::from_secs(60)) {
            Ok((Some(public), Some(internal))) => Ok(Self { child, public, internal, log, reader: Some(reader) }),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                let _ = reader.join();
                let log = log.lock().expect("not poisoned").clone();
                Err(log)
            }
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.public)
    }

    /// What it has said as far as that is read. All of it is, once [`wait`](Self::wait) has returned.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("not poisoned").clone()
    }

    /// Waits until it says this.
    pub(crate) fn says(&self, words: &str) {
        until(words, || self.log().contains(words));
    }

    /// SIGKILL: nothing is flushed, nothing is closed.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(status.success());
    }

    pub(crate) fn wait(&mut self, most: Duration) -> ExitStatus {
        let due = Instant::now() + most;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                // What it said last is in the log, too.
                if let Some(reader) = self.reader.take() {
                    reader.join().expect("the log is read");
                }
                return status;
            }
            assert!(Instant::now() < due, "the server does not end within {most:?}\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGTERM, and the end.
    pub(crate) fn stop(&mut self) {
        self.signal("-TERM");
        let status = self.wait(LONG);
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }

    pub(crate) fn internal_get(&self, path: &str) -> Response {
        Client::new(self.internal).get(path)
    }

    /// The value of one sample: `name{labels}` as it stands in `/metrics`; 0 if it is not there.
    pub(crate) fn metric(&self, sample: &str) -> f64 {
        self.sample(sample).unwrap_or(0.0)
    }

    /// The same; none if it is not there.
    pub(crate) fn sample(&self, sample: &str) -> Option<f64> {
        let page = self.internal_get("/metrics").text();
        let value = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.map(|value| value.parse().expect("a number"))
    }

    /// Events of this outcome and reason.
    pub(crate) fn outcome(&self, tenant: &Tenant, outcome: &str, reason: &str) -> f64 {
        let page = self.internal_get("/metrics").text();
        let (id, outcome, reason) =
            (format!("tenant=\"{}\"", tenant.id), format!("outcome=\"{outcome}\""), format!("reason=\"{reason}\""));
        page.lines()
            .filter(|line| line.starts_with("firsthop_events_total"))
            .filter(|line| [&id, &outcome, &reason].iter().all(|label| line.contains(label.as_str())))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("--- the server's log\n{}", self.log());
        }
    }
}
