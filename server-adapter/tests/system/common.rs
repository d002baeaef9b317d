//! A real server process, a plain HTTP client, and pages that make frames as the SDK does.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, ErrorKind, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use firsthop_core::{
    Context, Event, ExtensionKind, Flags, FrameSigner, FrameWriter, Header, MacKey, PropertiesWriter, Region,
    RegionPublicKey, SourceId, TenantId, Timestamp, Unsigned, Value, WriteKey,
};
use firsthop_intake::{Receipt, Session};
use rusqlite::Connection;
use serde_json::Value as Json;
use tempfile::TempDir;

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

fn number(path: &Path, sql: &str) -> i64 {
    let connection = Connection::open(path).expect("opens");
    connection.busy_timeout(Duration::from_secs(30)).expect("a timeout");
    connection.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// For what takes a moment, on a machine that has other things to do.
pub(crate) const LONG: Duration = Duration::from_secs(60);

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
        let page = self.internal_get("/metrics").text();
        let value = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Events of this outcome and reason.
    pub(crate) fn outcome(&self, tenant: &Tenant, outcome: &str, reason: &str) -> f64 {
        let page = self.internal_get("/metrics").text();
        let (id, outcome, reason) =
            (format!("tenant=\"{}\"", tenant.id), format!("outcome=\"{outcome}\""), format!("reason=\"{reason}\""));
        page.lines()
            .filter(|line| line.starts_with("firsthop_frames_total") || line.starts_with("firsthop_events_total"))
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

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn text(&self) -> String {
        text(&self.body)
    }

    pub(crate) fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        let code = problem["code"].as_str().expect("a code").to_owned();
        assert_eq!(problem["type"], format!("https://firsthop.dev/problems/{code}"));
        assert_eq!(problem["status"], self.status);
        assert!(problem["title"].is_string() && problem["retryable"].is_boolean());
        code
    }

    pub(crate) fn receipt(&self) -> Receipt {
        assert_eq!(self.status, 200, "{}", self.text());
        let receipt = Receipt::from_json(&self.body).expect("a receipt");
        let known = receipt.stored + receipt.suppressed + receipt.duplicate + receipt.conflict;
        assert_eq!(known, receipt.count, "{receipt:?}");
        receipt
    }

    pub(crate) fn verdict(&self) -> &str {
        self.header("firsthop-receipt")
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A client that keeps one connection and believes nothing.
pub(crate) struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// A client that is another peer.
    pub(crate) fn from(own: u8, address: SocketAddr) -> Self {
        Self { address, stream: Some(BufReader::new(connect_from(own, address))) }
    }

    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.request("GET", path, &[], b"")
    }

    pub(crate) fn frame(&mut self, body: &[u8]) -> Response {
        self.request("POST", "/v1/f", &[], body)
    }

    pub(crate) fn segment(&mut self, path: &str, key: &str, json: &str) -> Response {
        let credentials = base64(format!("{key}:").as_bytes());
        let authorization = format!("Basic {credentials}");
        self.request(
            "POST",
            path,
            &[("Authorization", &authorization), ("Content-Type", "application/json")],
            json.as_bytes(),
        )
    }

    pub(crate) fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.try_request(method, path, headers, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    pub(crate) fn try_request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Response> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.raw(&bytes)
    }

    /// Sends bytes as they are and reads one answer.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> std::io::Result<Response> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_read_timeout(Some(Duration::from_secs(30)))?;
                stream.set_nodelay(true)?;
                BufReader::new(stream)
            }
        };
        // An answer may come before all is sent, and the connection end: then it is still there to be read.
        let sent = stream.get_mut().write_all(bytes);
        let response = read_response(&mut stream, !bytes.starts_with(b"HEAD"));
        if let (Err(error), Err(_)) = (sent, &response) {
            return Err(error);
        }
        let response = response?;
        if response.header("connection") != "close" {
            self.stream = Some(stream);
        }
        Ok(response)
    }
}

/// Connects from another of the machine's own addresses, 127.0.0.`own`: to the server, another peer.
pub(crate) fn connect_from(own: u8, address: SocketAddr) -> TcpStream {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    }
    let connect = async {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 0, own], 0))).expect("an address");
        socket.connect(address).await.expect("connects").into_std().expect("a stream")
    };
    let stream = RUNTIME.with(|runtime| runtime.block_on(connect));
    stream.set_nonblocking(false).expect("blocking");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    stream
}

pub(crate) fn read_response(stream: &mut impl BufRead, has_body: bool) -> std::io::Result<Response> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(ErrorKind::InvalidData)?;
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().expect("a length"));
    let mut body = vec![0; if has_body { length } else { 0 }];
    stream.read_exact(&mut body)?;
    Ok(Response { status, headers, body })
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp::from_millis(since.as_millis() as u64)
}

/// A page: a source that counts up, without a session at first.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) tenant: TenantId,
    pub(crate) key: String,
    pub(crate) source: SourceId,
    pub(crate) session: Option<Session>,
    pub(crate) next: u64,
    pub(crate) batch: u64,
    /// The region that its frames are for, and the key that they are sealed to.
    pub(crate) sealed_to: Option<(Region, RegionPublicKey)>,
}

impl Page {
    pub(crate) fn new(tenant: &Tenant) -> Self {
        Self {
            tenant: tenant.id,
            key: tenant.key.clone(),
            source: SourceId::v7(now(), random()),
            session: None,
            next: 0,
            batch: 0,
            sealed_to: None,
        }
    }

    /// The next frame, of so many events.
    pub(crate) fn frame(&mut self, events: u64) -> Vec<u8> {
        let frame = self.frame_at(self.next, events, "Product Viewed");
        self.next += events;
        self.batch += 1;
        frame
    }

    /// A first frame of one event, as part of a trace.
    pub(crate) fn traced(&self, traceparent: &str) -> Vec<u8> {
        let header = Header::new(self.tenant, self.source, now());
        let mut writer = FrameWriter::new(vec![0; 4096], &header).expect("room");
        writer.extension(ExtensionKind::Traceparent, traceparent.as_bytes()).expect("room");
        writer.extension(ExtensionKind::WriteKey, self.key.as_bytes()).expect("room");
        writer.event(&Event { name: "Product Viewed", ..Event::default() }).expect("room");
        writer.finish(&Unsigned).expect("finished").to_vec()
    }

    /// A frame of events from any number on.
    pub(crate) fn frame_at(&self, first: u64, events: u64, name: &str) -> Vec<u8> {
        let mut header = Header::new(self.tenant, self.source, now());
        (header.batch_seq, header.first_seq) = (self.batch, first);
        let mut buffer = vec![0; 512 * 1024];
        if let Some(session) = &self.session {
            header.flags = Flags::TRUST;
            (header.alg, header.key_id, header.epoch, header.region) =
                (session.alg, session.key_id, session.epoch, session.region);
        }
        if let Some((region, _)) = &self.sealed_to {
            header.region = *region;
        }
        let mut writer = FrameWriter::new(&mut buffer[..], &header).expect("room");
        match &self.session {
            Some(session) => writer.extension(ExtensionKind::Session, &session.grant.to_bytes()),
            None => writer.extension(ExtensionKind::WriteKey, self.key.as_bytes()),
        }
        .expect("room");
        if let Some((_, key)) = &self.sealed_to {
            writer.seal_to(key).expect("room");
        }
        let anonymous = self.source.to_string();
        let context =
            Context { anonymous_id: Some(&anonymous), url: Some("https://shop.example/p/1"), ..Context::default() };
        writer.context(&context).expect("room");
        for seq in first..first + events {
            let (mut shape, mut words) = ([0; 128], [0; 256]);
            let mut properties = PropertiesWriter::new(&mut shape[..], &mut words[..]);
            properties.put("n", Value::U64(seq)).expect("room");
            properties.put("sku", Value::Str("G-32")).expect("room");
            properties.put("price", Value::F64(18.99)).expect("room");
            let properties = properties.finish().expect("closed");
            writer.event(&Event { name, properties, ..Event::default() }).expect("room");
        }
        let key = self.session.as_ref().map(|session| MacKey::new(session.alg, &session.secret).expect("a MAC"));
        let signer: &dyn FrameSigner = match &key {
            Some(key) => key,
            None => &Unsigned,
        };
        match self.sealed_to {
            Some(_) => writer.finish_sealed(signer, &random()),
            None => writer.finish(signer),
        }
        .expect("finished")
        .to_vec()
    }

    /// Sends a first frame of one event, and takes the session that the answer brings.
    pub(crate) fn begin(&mut self, client: &mut Client) -> Receipt {
        let frame = self.frame(1);
        let receipt = client.frame(&frame).receipt();
        self.session = Some(receipt.session.clone().expect("a session"));
        receipt
    }
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("random bytes");
    bytes
}
