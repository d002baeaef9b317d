//! What the edge's benchmark puts behind a Worker: a server that takes everything, at once, and says so.
//!
//! ```text
//! POST /v1/leases   the keys of the one tenant, as `firsthop serve` would lease them, and its region policy: read within the EU, passed on elsewhere
//! POST /v1/e        a receipt for the frame in the envelope
//! POST /v1/f        the same for a frame that a Worker has passed on unread
//! POST /v1/batch    {"success":true}: the plain JavaScript Worker's
//! GET  /counts      how many requests came to each of the above
//! ```
//!
//! It prints one line of JSON with its address, the write key, the enrolment (and one for an edge that keeps to a region policy)
//! and the region's key to seal to, and runs until it is ended. It stores nothing and checks nothing, so that what is measured is the Worker.

use std::{cell::RefCell, collections::BTreeMap, error::Error, io, rc::Rc, time::SystemTime};

use base64::{Engine, prelude::BASE64_STANDARD};
use firsthop_core::{
    Envelope, Epoch, Frame, Header, KeyId, LeaseScope, Region, RegionKeyId, RegionSecretKey, RootKey, SecretKey,
    TenantId, Timestamp, WorkerId,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{LocalSet, spawn_local},
};

const TENANT: TenantId = TenantId::new(0xbe);
const WORKER: WorkerId = WorkerId::new(7);
/// What opens what is sealed to the region.
const REGION_SECRET: [u8; 32] = [5; 32];
/// What the secret of the token consists of whose edge keeps to a region policy.
const GOVERNED: &str = "g";
const REGION_KEY: RegionKeyId = RegionKeyId::new(1);

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(LocalSet::new().run_until(serve()))
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let enrolment = |secret: &str| {
        format!("fhe_{TENANT}_{:08x}_{}_{}", WORKER.get(), secret.repeat(32), hex(document_key().public().as_bytes()))
    };
    println!(
        "{}",
        json!({
            "address": address, "writeKey": write_key(), "region": "EU",
            "enrolment": enrolment("t"),
            // Who shows this is given a region policy.
            "governed": enrolment(GOVERNED),
            "seal": format!("{}:{}", REGION_KEY.get(), hex(RegionSecretKey::new(REGION_KEY, REGION_SECRET).public().as_bytes())),
        })
    );
    let address: Rc<str> = address.into();
    let counts = Rc::new(RefCell::new(BTreeMap::new()));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (counts, address) = (Rc::clone(&counts), Rc::clone(&address));
        // A connection that breaks is the Worker's affair: it shows in what the Worker answers.
        spawn_local(async move { drop(connection(stream, &address, &counts).await) });
    }
}

fn write_key() -> String {
    format!("fh_{TENANT}_{}", "k".repeat(24))
}

async fn connection(mut stream: TcpStream, address: &str, counts: &RefCell<BTreeMap<String, u64>>) -> io::Result<()> {
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
        let is_governed = buffer[..head].windows(32).any(|window| window == GOVERNED.repeat(32).as_bytes());
        let (status, body) = answer(&path, &buffer[head..total], is_governed.then_some(address), counts);
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

/// `policy_host`: where the region policy leads of whoever keeps to one.
fn answer(
    path: &str,
    body: &[u8],
    policy_host: Option<&str>,
    counts: &RefCell<BTreeMap<String, u64>>,
) -> (&'static str, String) {
    match path {
        "/v1/e" => said(inside(body)),
        "/v1/f" => said(Header::peek(body)),
        "/v1/batch" => ("200 OK", r#"{"success":true}"#.into()),
        "/v1/leases" => ("200 OK", leases(policy_host)),
        "/counts" => ("200 OK", json!(*counts.borrow()).to_string()),
        _ => ("404 Not Found", "{}".into()),
    }
}

/// The header of the frame in an envelope: a receipt names that one, or a Worker does not believe it.
fn inside(envelope: &[u8]) -> Result<Header, firsthop_core::Error> {
    Header::peek(Envelope::open(&Frame::parse(envelope)?)?.frame)
}

fn said(header: Result<Header, firsthop_core::Error>) -> (&'static str, String) {
    match header {
        Ok(header) => ("200 OK", receipt(&header)),
        Err(_) => ("400 Bad Request", "{}".into()),
    }
}

fn receipt(header: &Header) -> String {
    let Header { source, batch_seq, first_seq, count, .. } = header;
    format!(
        r#"{{"source":"{source}","batch":{batch_seq},"first":{first_seq},"count":{count},"stored":{count},"duplicate":0,"conflict":0}}"#
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn document_key() -> SecretKey {
    SecretKey::from_seed(&[9; 32])
}

/// The region policy, signed as `intake/src/document.rs` says.
fn policy(address: &str, now: u64) -> serde_json::Value {
    let body = json!({ "regions": [{ "code": "EU", "host": format!("http://{address}"), "process": ["EU", "CH"], "forward": ["*"] }] });
    let text = json!({ "kind": "policy", "tenant": TENANT.to_string(), "version": 1, "issued": now, "body": body })
        .to_string();
    let signature = document_key().sign_message(&[b"firsthop-document-v1\0policy\0", text.as_bytes()].concat());
    json!({ "kind": "policy", "text": text, "signature": BASE64_STANDARD.encode(signature) })
}

fn leases(policy_host: Option<&str>) -> String {
    let region = Region::new(*b"EU").expect("two capitals");
    let root = RootKey::new([7; 32]);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    let epoch = Epoch::at(Timestamp::from_millis(now)).get();
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
        "documents": policy_host.into_iter().map(|address| policy(address, now)).collect::<Vec<_>>(),
        "regionSecrets": [{ "id": REGION_KEY.get(), "key": BASE64_STANDARD.encode(REGION_SECRET) }],
    })
    .to_string()
}
