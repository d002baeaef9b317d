//! What the edge's benchmark puts behind a Worker: a server that takes everything, at once, and says so.
//!
//! ```text
//! POST /v1/leases   the keys of the one tenant, as `firsthop serve` would lease them
//! POST /v1/e        a receipt for as many events as the envelope's header names
//! POST /v1/f        the same for a frame that a Worker has passed on unread
//! POST /v1/batch    {"success":true}: the plain JavaScript Worker's
//! GET  /counts      how many requests came to each of the above
//! ```
//!
//! It prints one line of JSON with its address, the write key and the enrolment, and runs until it is ended. It stores nothing and checks
//! nothing, so that what is measured is the Worker.

use std::{cell::RefCell, collections::BTreeMap, error::Error, io, rc::Rc};

use base64::{Engine, prelude::BASE64_STANDARD};
use firsthop_core::{Epoch, Header, KeyId, LeaseScope, Region, RootKey, TenantId, Timestamp, WorkerId};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{LocalSet, spawn_local},
};

const TENANT: TenantId = TenantId::new(0xbe);
const WORKER: WorkerId = WorkerId::new(7);

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(LocalSet::new().run_until(serve()))
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let enrolment = format!("fhe_{TENANT}_{:08x}_{}", WORKER.get(), "t".repeat(32));
    println!(
        "{}",
        json!({ "address": listener.local_addr()?.to_string(), "writeKey": write_key(), "enrolment": enrolment, "region": "EU" })
    );
    let counts = Rc::new(RefCell::new(BTreeMap::new()));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let counts = Rc::clone(&counts);
        // A connection that breaks is the Worker's affair: it shows in what the Worker answers.
        spawn_local(async move { drop(connection(stream, &counts).await) });
    }
}

fn write_key() -> String {
    format!("fh_{TENANT}_{}", "k".repeat(24))
}

async fn connection(mut stream: TcpStream, counts: &RefCell<BTreeMap<String, u64>>) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(256 * 1024);
    loop {
        let Some((path, head, total)) = request(&buffer)? else {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        };
        if buffer.len() < total {
            buffer.reserve(total - buffer.len());
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        }
        let (status, body) = answer(&path, &buffer[head..total], counts);
        let reply = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        *counts.borrow_mut().entry(path).or_default() += 1;
        stream.write_all(reply.as_bytes()).await?;
        buffer.drain(..total);
    }
}

/// Path, length of the head and of the whole request, once the head is there.
fn request(bytes: &[u8]) -> io::Result<Option<(String, usize, usize)>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let bad = |why: &'static str| io::Error::new(io::ErrorKind::InvalidData, why);
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| bad("not text"))?;
    let path = head.split(' ').nth(1).ok_or_else(|| bad("no path"))?;
    let field = |name: &str| {
        head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    };
    if field("transfer-encoding").is_some() {
        return Err(bad("a body without a length"));
    }
    let length: usize = field("content-length").unwrap_or("0").parse().map_err(|_| bad("no length"))?;
    Ok(Some((path.to_owned(), end + 4, end + 4 + length)))
}

fn answer(path: &str, body: &[u8], counts: &RefCell<BTreeMap<String, u64>>) -> (&'static str, String) {
    match path {
        "/v1/e" | "/v1/f" => match Header::peek(body) {
            Ok(header) => ("200 OK", receipt(&header)),
            Err(_) => ("400 Bad Request", "{}".into()),
        },
        "/v1/batch" => ("200 OK", r#"{"success":true}"#.into()),
        "/v1/leases" => ("200 OK", leases()),
        "/counts" => ("200 OK", json!(*counts.borrow()).to_string()),
        _ => ("404 Not Found", "{}".into()),
    }
}

fn receipt(header: &Header) -> String {
    let Header { source, batch_seq, first_seq, count, .. } = header;
    format!(
        r#"{{"source":"{source}","batch":{batch_seq},"first":{first_seq},"count":{count},"stored":{count},"duplicate":0,"conflict":0}}"#
    )
}

fn leases() -> String {
    let region = Region::new(*b"EU").expect("two capitals");
    let root = RootKey::new([7; 32]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let epoch = Epoch::at(Timestamp::from_millis(now.as_millis() as u64)).get();
    let leases: Vec<_> = [epoch - 1, epoch, epoch + 1]
        .into_iter()
        .map(|epoch| {
            let scope = LeaseScope { tenant: TENANT, region, worker: WORKER, epoch: Epoch::new(epoch) };
            let key = BASE64_STANDARD.encode(root.lease(&scope).expose());
            json!({ "keyId": KeyId::FIRST.get(), "epoch": epoch, "key": key })
        })
        .collect();
    json!({
        "tenant": TENANT.to_string(), "name": "bench", "region": "EU", "worker": WORKER.get(),
        "writeKeys": [write_key()], "origins": ["*"], "leases": leases, "refreshAfter": 300,
    })
    .to_string()
}
