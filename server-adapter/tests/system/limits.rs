//! What a tenant may send: its limits hold, change while the server runs, and nobody without a key can use them up.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use crate::{
    common::{Client, Folder, HeldUp, LONG, Page, Response, Server, Tenant, until},
    edges::{Edge, envelope},
};

impl Tenant {
    /// Writes `[limits]` into tenant.toml, in the place of those that were there.
    fn limit(&self, lines: &str) {
        let path = self.folder.join("tenant.toml");
        let text = fs::read_to_string(&path).expect("tenant.toml");
        let rest = text.split("\n[limits]\n").next().expect("a first part");
        // In one step, as an editor does it: the server never sees half a file.
        let beside = self.folder.join("tenant.toml.beside");
        fs::write(&beside, format!("{rest}\n[limits]\n{lines}\n")).expect("written");
        fs::rename(&beside, &path).expect("renamed");
    }
}

fn limited(server: &Server, tenant: &Tenant, limit: &str) -> f64 {
    server.metric(&format!("firsthop_limited_total{{tenant=\"{}\",limit=\"{limit}\"}}", tenant.id))
}

fn used(server: &Server, tenant: &Tenant, limit: &str) -> f64 {
    server.metric(&format!("firsthop_limit_used_ratio{{tenant=\"{}\",limit=\"{limit}\"}}", tenant.id))
}

/// The refusal of what is over a limit says when to come back. Returns that, in seconds.
fn refused(response: &Response, says: &str) -> u64 {
    assert_eq!((response.status, response.code().as_str()), (429, "rate-limited"), "{}", response.text());
    let problem = response.json();
    assert_eq!((problem["retryable"].as_bool(), problem["detail"].as_str()), (Some(true), Some(says)));
    assert_eq!(response.verdict(), "", "it was not kept");
    response.header("retry-after").parse().expect("seconds")
}

/// Sends until it is refused. How often it was not, and the refusal.
fn until_refused(mut send: impl FnMut() -> Response) -> (u64, Response) {
    for sent in 0..500 {
        let response = send();
        if response.status != 200 {
            return (sent, response);
        }
    }
    panic!("never refused");
}

#[test]
fn rates_hold_for_one_tenant_and_no_other() {
    let folder = Folder::new();
    let (busy, calm) = (folder.tenant("busy", &[]), folder.tenant("calm", &[]));
    busy.limit("requests = 2\nburst = '5s'");
    let server = folder.serve();
    let mut client = server.client();
    let mut page = Page::new(&busy);

    // Ten at once, and then two a second.
    let began = Instant::now();
    let (sent, refusal) = until_refused(|| client.frame(&page.frame(1)));
    let most = 11 + 2 * began.elapsed().as_secs();
    assert!((10..=most).contains(&sent), "{sent} requests in a burst of 10");
    assert_eq!(refused(&refusal, "at most 2 requests a second"), 1);
    assert_eq!(limited(&server, &busy, "requests"), 1.0);
    assert!(used(&server, &busy, "requests") > 0.0);
    // Half a second later one more would pass.
    let call = r#"{"event":"x","anonymousId":"a","messageId":"1"}"#;
    let (_, segment) = until_refused(|| client.segment("/v1/track", &busy.key, call));
    refused(&segment, "at most 2 requests a second");
    assert_eq!(segment.json()["success"], false, "as Segment's SDKs look for it");

    // Another tenant is not concerned.
    let mut other = Page::new(&calm);
    for _ in 0..50 {
        assert_eq!(client.frame(&other.frame(1)).receipt().stored, 1);
    }
    assert_eq!(limited(&server, &calm, "requests"), 0.0);

    // What was told when to come back, comes through then: the same bytes, once.
    let frame = page.frame_at(page.next - 1, 1, "Product Viewed");
    thread::sleep(Duration::from_secs(1));
    assert_eq!(client.frame(&frame).receipt().stored, 1);

    // A changed limit is in force within seconds, without a restart.
    busy.limit("requests = 0");
    let due = Instant::now() + LONG;
    let mut in_a_row = 0;
    while in_a_row < 30 {
        assert!(Instant::now() < due, "the limit is still in force");
        in_a_row = if client.frame(&page.frame(1)).status == 200 { in_a_row + 1 } else { 0 };
    }
    busy.limit("requests = 'many'");
    server.says("a tenant's files are wrong");
    assert_eq!(client.frame(&page.frame(1)).receipt().stored, 1, "what was known stays in force");
}

#[test]
fn events_bytes_and_bodies_have_limits_of_their_own() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &[]);
    let server = folder.serve_with(&["--limit-burst", "1s", "--limit-events", "10"]);
    let mut client = server.client();
    let mut page = Page::new(&tenant);
    // One request may be larger than what is left; those after it wait for longer.
    assert_eq!(client.frame(&page.frame(500)).receipt().stored, 500);
    let wait = refused(&client.frame(&page.frame(1)), "at most 10 events a second");
    assert!((20..=49).contains(&wait), "{wait}");
    let message = r#"{"type":"track","event":"x","anonymousId":"a"}"#;
    let batch = format!(r#"{{"batch":[{}]}}"#, [message; 10].join(","));
    refused(&client.segment("/v1/batch", &tenant.key, &batch), "at most 10 events a second");

    // The tenant's own file over the server's setting.
    tenant.limit("events = 0\nbytes = '1KiB'\nbody = '16KiB'");
    until("the limit is no longer in force", || client.frame(&page.frame(1)).status == 200);
    let large = page.frame(400);
    assert!(large.len() > 16 << 10);
    let response = client.frame(&large);
    assert_eq!((response.status, response.code().as_str()), (413, "body-too-large"));
    assert_eq!(response.json()["detail"], "at most 16384 bytes");
    assert_eq!(limited(&server, &tenant, "body"), 1.0);
    // Each is what may come in ten seconds.
    let (_, refusal) = until_refused(|| client.frame(&page.frame(250)));
    refused(&refusal, "at most 1024 bytes a second");
    assert_eq!(limited(&server, &tenant, "bytes"), 1.0);
}

#[test]
fn requests_under_way_have_a_limit() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &[]);
    tenant.limit("concurrent = 3");
    let server = folder.serve_with(&["--commit-timeout", "20s"]);
    let waiting = HeldUp::new(&server, &tenant, 3);
    let mut page = Page::new(&tenant);
    let refusal = server.client().frame(&page.frame(1));
    assert_eq!(refused(&refusal, "at most 3 requests under way"), 1);
    assert_eq!(limited(&server, &tenant, "concurrent"), 1.0);
    waiting.let_go();
    let under_way = format!("firsthop_requests_under_way{{tenant=\"{}\"}}", tenant.id);
    until("places are given back", || server.metric(&under_way) == 0.0);
    until("the journal comes back", || server.client().frame(&page.frame(1)).status == 200);
}

/// Who does not know a write key, or shows one from a page that it is not for, spends nothing of the tenant's share, whichever way
/// they come; and what quarantine writes for them has a limit of its own.
#[test]
fn noise_spends_nothing() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--region", "EU", "--origin", "https://shop.example"]);
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    tenant.limit("requests = 5\nevents = 50\nbytes = '8KiB'\nburst = '2s'\nunvouched = '4KiB'");
    let server = folder.serve();
    let mut client = server.client();
    let mut edge = Edge::new(&server, &token);
    let stranger = format!("fh_{}_{}", tenant.id, "a".repeat(22));
    let mut page = Page { key: stranger.clone(), ..Page::new(&tenant) };
    let began = Instant::now();
    let mut kept = 0;
    let mut noise = |what: &str, response: Response| {
        assert!([400, 401, 403, 413, 503].contains(&response.status), "{what}: {response:?}");
        kept += u64::from(!response.verdict().is_empty());
    };
    for i in 0..25 {
        noise("unknown key", client.frame(&page.frame(1)));
        let mut broken = page.frame(1);
        broken[100] ^= 1;
        noise("broken", client.frame(&broken));
        let json = format!(r#"{{"event":"x{i}","anonymousId":"a"}}"#);
        noise("unknown key", client.segment("/v1/track", &stranger, &json));
        noise("no JSON", client.segment("/v1/track", &tenant.key, &json[1..]));
        let from = |origin: &str, client: &mut Client, frame: &[u8]| {
            client.request("POST", "/v1/f", &[("Origin", origin)], frame)
        };
        let elsewhere = Page::new(&tenant).frame(1);
        noise("another origin", from("https://evil.example", &mut client, &elsewhere));
        let (mut sealed, _) = edge.forward(&broken);
        let last = sealed.len() - 1;
        sealed[last] ^= 1;
        noise("an envelope of nobody's", envelope(&mut client, &sealed));
        // What an edge refuses, and hands over, the server answers for; the tenant does not pay.
        let (sealed, _) = edge.forward(&broken);
        let handed = envelope(&mut client, &sealed).status;
        assert!([200, 503].contains(&handed), "{handed}");
    }
    for limit in ["requests", "events", "bytes"] {
        assert_eq!((used(&server, &tenant, limit), limited(&server, &tenant, limit)), (0.0, 0.0), "{limit}");
    }
    let rows: i64 = tenant.quarantine().values().sum();
    // 8 KiB at once and 4 a second, at 4 KiB a row.
    let most = 3.0 + began.elapsed().as_secs_f64();
    assert!(kept > 0 && (rows as f64) < most, "{rows} rows of at most {most}, {kept} said to be kept");
    let over = limited(&server, &tenant, "unvouched");
    assert!(over > 0.0 && over + rows as f64 > 100.0, "{over} over the limit, {rows} rows");

    // The whole share is there for whom the tenant answers for.
    let (mut page, began) = (Page::new(&tenant), Instant::now());
    let (sent, _) = until_refused(|| client.frame(&page.frame(1)));
    assert!((10..=11 + 5 * (began.elapsed().as_secs() + 1)).contains(&sent), "{sent}");
    // And once it is spent, noise is told the same before any work is done for it, and still moves nothing.
    let mut noisy = Page { key: stranger, ..page.clone() };
    let mut told = client.frame(&noisy.frame(1));
    until("it is spent, and nothing of it is back yet", || {
        until_refused(|| client.frame(&page.frame(1)));
        told = client.frame(&noisy.frame(1));
        told.status == 429
    });
    refused(&told, "at most 5 requests a second");
}
