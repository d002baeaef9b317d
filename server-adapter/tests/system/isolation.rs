//! Tenants are nothing to each other: whatever a holds is worth nothing at b, on any endpoint; and what a sends does not hold b up.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use firsthop_core::{Annotation, Trust, WorkerId};
use rusqlite::Connection;
use serde_json::json;

use crate::{
    common::{Client, Folder, HeldUp, Page, Response, Server, Tenant, now, until},
    edges::{Edge, envelope},
};

const SEGMENT: [&str; 14] =
    ["track", "identify", "page", "screen", "group", "alias", "batch", "t", "i", "p", "s", "g", "a", "b"];

/// All that a tenant's people and machines have in their hands.
struct Hands {
    tenant: Tenant,
    token: String,
    edge: Edge,
    /// With a session from the server.
    page: Page,
    /// With a session from the edge.
    at_edge: Page,
}

impl Hands {
    fn new(server: &Server, tenant: &Tenant, token: String) -> Self {
        let mut edge = Edge::new(server, &token);
        let (mut page, mut at_edge) = (Page::new(tenant), Page::new(tenant));
        page.begin(&mut server.client());
        let (sealed, session) = edge.forward(&at_edge.frame(1));
        assert_eq!(envelope(&mut server.client(), &sealed).receipt().stored, 1);
        at_edge.session = session;
        Self { tenant: tenant.clone(), token, edge, page, at_edge }
    }
}

/// One row of the table: an endpoint of b's, a credential of a's, and what comes of it.
struct Row {
    endpoint: &'static str,
    credential: &'static str,
    code: &'static str,
    response: Response,
}

/// Every endpoint × every credential. `b` is told nothing, given nothing, and nothing is stored for it.
#[test]
fn what_one_tenant_holds_is_worth_nothing_at_another() {
    let folder = Folder::new();
    let (a, b) = (folder.tenant("a", &["--region", "EU"]), folder.tenant("b", &["--region", "EU"]));
    let (token_a, token_b) = (Edge::enrol(&folder, "a", "zurich", "EU"), Edge::enrol(&folder, "b", "zurich", "EU"));
    let mut server = folder.serve();
    let mut a = Hands::new(&server, &a, token_a);
    let b = Hands::new(&server, &b, token_b);
    let events =
        |tenant: &Tenant| tenant.journal("SELECT COALESCE(SUM(events), 0) FROM counters WHERE outcome = 'stored'");
    let (before_a, before_b) = (events(&a.tenant), events(&b.tenant));
    let mut client = server.client();
    let mut rows = Vec::new();
    let mut row = |endpoint, credential, code, response| rows.push(Row { endpoint, credential, code, response });

    // Frames that say that they are b's.
    let as_b = |page: &Page| Page { tenant: b.tenant.id, ..page.clone() };
    let mut with_key = Page { session: None, ..as_b(&Page::new(&a.tenant)) };
    row("/v1/f", "write key", "wrong-write-key", client.frame(&with_key.frame(1)));
    row("/v1/f", "session", "bad-signature", client.frame(&as_b(&a.page).frame_at(50, 1, "x")));
    row("/v1/f", "session of an edge", "bad-signature", client.frame(&as_b(&a.at_edge).frame_at(50, 1, "x")));
    // b's source with a's session: an id that is known, a key that is not its.
    let stolen = Page { source: b.page.source, ..as_b(&a.page) };
    row("/v1/f", "session, with b's source", "bad-signature", client.frame(&stolen.frame_at(50, 1, "x")));
    let stolen = Page { source: b.page.source, ..a.page.clone() };
    row("/v1/f", "session at home, with b's source", "bad-signature", client.frame(&stolen.frame_at(50, 1, "x")));

    // Segment's calls: one key in the header, another in the body; and a message of a batch that names another.
    for name in SEGMENT {
        let path = format!("/v1/{name}");
        let mut body =
            json!({ "event": "x", "groupId": "g", "previousId": "p", "userId": "u", "writeKey": b.tenant.key });
        if ["batch", "b"].contains(&name) {
            body["batch"] = json!([{ "type": "page" }]);
        }
        let response = client.segment(&path, &a.tenant.key, &body.to_string());
        row("/v1/track and its kin", "write key in the header, b's in the body", "wrong-write-key", response);
    }

    // Envelopes that say that they are b's, signed with a's lease; and a's honest ones around what is b's.
    let note = Annotation { received_ms: now().as_millis(), trust: Trust::Session, ..Annotation::default() };
    let theirs = b.page.frame_at(60, 1, "x");
    let own = a.edge.account.tenant.clone();
    a.edge.account.tenant.id = b.tenant.id;
    row("/v1/e", "lease", "bad-signature", envelope(&mut client, &a.edge.seal(&note, &theirs, 1)));
    a.edge.account.tenant.worker = WorkerId::new(7);
    row("/v1/e", "lease, another worker", "wrong-enrolment", envelope(&mut client, &a.edge.seal(&note, &theirs, 1)));
    a.edge.account.tenant = own;
    row(
        "/v1/e",
        "envelope around b's frame",
        "wrong-write-key",
        envelope(&mut client, &a.edge.seal(&note, &theirs, 1)),
    );
    let unchecked = Annotation { trust: Trust::Unchecked, ..note };
    let forged = as_b(&a.at_edge).frame_at(61, 1, "x");
    row(
        "/v1/e",
        "unchecked, around a forged frame",
        "wrong-write-key",
        envelope(&mut client, &a.edge.seal(&unchecked, &forged, 1)),
    );

    // a's token with b's name in it, and b's with a's secret.
    let secret = |token: &str| token.rsplit('_').next().expect("a secret").to_owned();
    let crossed = a.token.replace(&a.tenant.id.to_string(), &b.tenant.id.to_string());
    row("/v1/leases", "token that names b", "wrong-enrolment", Edge::leases(&server, &crossed));
    let crossed = b.token.replace(&secret(&b.token), &secret(&a.token));
    row("/v1/leases", "secret of another's token", "wrong-enrolment", Edge::leases(&server, &crossed));
    row("/v1/leases", "write key", "wrong-enrolment", Edge::leases(&server, &a.tenant.key));
    // What is for inside is not there outside, whatever is shown.
    for path in ["/metrics", "/v1/leases"] {
        let method = if path == "/metrics" { "GET" } else { "POST" };
        let bearer = format!("Bearer {}", a.token);
        row("public listener", "token", "not-found", client.request(method, path, &[("Authorization", &bearer)], b""));
    }

    for Row { endpoint, credential, code, response } in &rows {
        assert_eq!(response.code(), *code, "{endpoint} with a's {credential}: {}", response.text());
        for secret in [&b.tenant.key, &b.token, &b.tenant.id.to_string()] {
            assert!(!response.text().contains(secret.as_str()), "{endpoint} with a's {credential} tells of b");
        }
    }
    assert_eq!(rows.len(), 28);
    assert_eq!((events(&a.tenant), events(&b.tenant)), (before_a, before_b), "nothing was stored for either");

    // A frame of b's that a has seen is b's still: sent again, it is a duplicate at b and nothing at a.
    let seen = b.page.clone();
    let frame = seen.frame_at(70, 1, "x");
    assert_eq!(client.frame(&frame).receipt().stored, 1);
    assert_eq!(client.frame(&frame).receipt().duplicate, 1);
    assert_eq!((events(&a.tenant), events(&b.tenant)), (before_a, before_b + 1));
    // The same ids at both are two events.
    let message = r#"{"event":"x","userId":"u","messageId":"the same"}"#;
    for tenant in [&a.tenant, &b.tenant] {
        let response = client.segment("/v1/track", &tenant.key, message);
        assert_eq!(response.verdict(), "stored=1, duplicate=0, conflict=0, quarantined=0");
    }
    // What a's people may see of leases is a's.
    let leases = Edge::leases(&server, &a.token).text();
    assert!(leases.contains(&a.tenant.key) && !leases.contains(&b.tenant.key));
    server.stop();
    folder.ok(&["verify"]);
}

/// The coarse form of what `benches/isolation.mjs` measures: with a neighbour at a hundred times its share, every request of a quiet
/// tenant is served, and in time.
#[test]
fn a_noisy_neighbour_is_refused_and_a_quiet_one_is_not() {
    let folder = Folder::new();
    let (noisy, quiet) = (folder.tenant("noisy", &[]), folder.tenant("quiet", &[]));
    let path = noisy.folder.join("tenant.toml");
    let text = fs::read_to_string(&path).expect("there");
    fs::write(&path, format!("{text}\n[limits]\nrequests = 10\nburst = '1s'\n")).expect("written");
    let server = folder.serve();
    let began = Instant::now();
    let until = began + Duration::from_secs(3);
    let address = server.public;
    let (refused, accepted, slowest) = thread::scope(|scope| {
        let load: Vec<_> = (0..12)
            .map(|_| {
                let noisy = &noisy;
                scope.spawn(move || {
                    let (mut client, mut page) = (Client::new(address), Page::new(noisy));
                    let (mut refused, mut accepted) = (0, 0);
                    while Instant::now() < until {
                        match client.frame(&page.frame(200)).status {
                            429 => refused += 1,
                            200 => accepted += 1,
                            other => panic!("{other}"),
                        }
                    }
                    (refused, accepted)
                })
            })
            .collect();
        let (mut client, mut page) = (Client::new(address), Page::new(&quiet));
        let mut slowest = Duration::ZERO;
        while Instant::now() < until {
            let began = Instant::now();
            assert_eq!(client.frame(&page.frame(1)).receipt().stored, 1);
            slowest = slowest.max(began.elapsed());
            thread::sleep(Duration::from_millis(10));
        }
        let (refused, accepted): (Vec<u32>, Vec<u32>) = load.into_iter().map(|load| load.join().expect("load")).unzip();
        (refused.iter().sum::<u32>(), accepted.iter().sum::<u32>(), slowest)
    });
    // Ten at once, and then ten a second.
    let most = 11 + 10 * (began.elapsed().as_secs() as u32 + 1);
    assert!((10..=most).contains(&accepted) && refused > 100, "{accepted} accepted, {refused} refused");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}

/// Nobody has a limit. Alone, a tenant has under way whatever it sends; while another sends too, its share, and the rest waits: for itself
/// alone, and as far as there is room.
#[test]
fn without_limits_a_tenant_waits_for_itself_alone() {
    let folder = Folder::new();
    let (greedy, quiet) = (folder.tenant("greedy", &[]), folder.tenant("quiet", &[]));
    let server = folder.serve_with(&["--sharing", "48KiB", "--queue", "1100KiB", "--commit-timeout", "60s"]);
    let figure = |name: &str, tenant: &Tenant| server.metric(&format!("{name}{{tenant=\"{}\"}}", tenant.id));
    let limited = || server.metric(&format!("firsthop_limited_total{{tenant=\"{}\",limit=\"share\"}}", greedy.id));
    HeldUp::new(&server, &greedy, 6).let_go();
    assert_eq!((server.metric("firsthop_tenants_sending"), figure("firsthop_requests_waiting", &greedy)), (1.0, 0.0));
    let (mut client, mut page) = (server.client(), Page::new(&quiet));
    assert_eq!(client.frame(&page.frame(1)).receipt().stored, 1);
    assert_eq!(server.metric("firsthop_tenants_sending"), 2.0);

    let mut pages: Vec<Page> = (0..20).map(|_| Page::new(&greedy)).collect();
    let frames: Vec<Vec<u8>> = pages.iter_mut().map(|page| page.frame(4000)).collect();
    assert!(frames.iter().map(Vec::len).sum::<usize>() > 1200 << 10, "more than may wait");
    let mut refusal = None;
    // Should the server give the journal up meanwhile, because somebody else has it, it is tried again.
    until("one goes on, some wait, and for some there is no room", || {
        until("the journal takes commits", || client.frame(&Page::new(&greedy).frame(1)).status == 200);
        let before = limited();
        let journal = Connection::open(greedy.folder.join("journal.db")).expect("opens");
        journal.execute_batch("BEGIN IMMEDIATE").expect("locked");
        thread::scope(|scope| {
            let sent: Vec<_> = frames.iter().map(|frame| scope.spawn(|| server.client().frame(frame))).collect();
            until("all are there", || {
                let there =
                    figure("firsthop_requests_under_way", &greedy) + figure("firsthop_requests_waiting", &greedy);
                there + limited() - before >= frames.len() as f64 || sent.iter().any(|one| one.is_finished())
            });
            let under_way = figure("firsthop_requests_under_way", &greedy);
            let held = under_way == 1.0 && figure("firsthop_requests_waiting", &greedy) >= 2.0 && limited() > before;
            // And the other notices nothing of it.
            for _ in 0..10 {
                assert_eq!(client.frame(&page.frame(1)).receipt().stored, 1);
            }
            journal.execute_batch("ROLLBACK").expect("unlocked");
            for sent in sent {
                let response = sent.join().expect("an answer");
                match response.status {
                    200 | 503 => {}
                    _ => refusal = Some(response),
                }
            }
            held
        })
    });
    let refusal = refusal.expect("there was no room for all");
    assert_eq!((refusal.status, refusal.code().as_str()), (429, "rate-limited"), "{}", refusal.text());
    assert_eq!(refusal.json()["detail"], "too much under way beside other tenants");
    assert_eq!(refusal.header("retry-after"), "1");
    assert_eq!(figure("firsthop_requests_waiting", &quiet), 0.0);
    // All of them get in, each once.
    for frame in &frames {
        until("it is taken", || client.frame(frame).status == 200);
        assert_eq!(client.frame(frame).receipt().duplicate, 4000);
    }
    until("nobody waits", || figure("firsthop_requests_waiting", &greedy) == 0.0);
    drop(server);
    folder.ok(&["verify"]);
}

/// Whoever sends what proves nothing takes no turns of the tenant that it names: forged frames wait for one another.
#[test]
fn who_forges_takes_no_turn_of_the_tenants() {
    let folder = Folder::new();
    let (shop, other) = (folder.tenant("shop", &[]), folder.tenant("other", &[]));
    let server = folder.serve_with(&["--sharing", "48KiB", "--commit-timeout", "60s"]);
    let figure = |name: &str| server.metric(&format!("{name}{{tenant=\"{}\"}}", shop.id));
    let strangers = || server.metric("firsthop_strangers_waiting");
    let (mut client, mut page, mut beside) = (Client::from(2, server.public), Page::new(&shop), Page::new(&other));
    // One connection stays: who has none any more is forgotten.
    let mut forger = Client::from(9, server.public);
    let forge = |count| Page { tenant: shop.id, session: None, ..Page::new(&other) }.frame(count);
    // Should the server give the journal up meanwhile, because somebody else has it, it is tried again.
    until("the forged ones wait, and the tenant's own does not", || {
        for _ in 0..12 {
            assert_eq!(forger.frame(&forge(1)).code(), "wrong-write-key");
        }
        assert_eq!(client.frame(&beside.frame(1)).receipt().stored, 1);
        until("the journal takes commits", || client.frame(&page.frame(1)).status == 200);
        let journal = Connection::open(shop.folder.join("journal.db")).expect("opens");
        journal.execute_batch("BEGIN IMMEDIATE").expect("locked");
        let (forged, own): (Vec<_>, _) = ((0..4).map(|_| forge(1000)).collect(), page.frame(1));
        thread::scope(|scope| {
            let from = |own, frame| scope.spawn(move || Client::from(own, server.public).frame(frame));
            let mut sent: Vec<_> = forged.iter().map(|frame| from(9, frame)).collect();
            until("three wait", || strangers() == 3.0 || sent.iter().any(|one| one.is_finished()));
            sent.push(from(2, &own));
            let there = || figure("firsthop_requests_under_way") + figure("firsthop_requests_waiting");
            until("it is there", || there() >= 1.0 || sent.iter().any(|one| one.is_finished()));
            let held = (strangers(), figure("firsthop_requests_waiting"), figure("firsthop_requests_under_way"));
            journal.execute_batch("ROLLBACK").expect("unlocked");
            let codes: Vec<_> = sent.into_iter().map(|one| one.join().expect("an answer").status).collect();
            assert!(codes.iter().all(|code| [200, 401, 403, 503].contains(code)), "{codes:?}");
            held == (3.0, 0.0, 1.0)
        })
    });
    until("nobody waits", || strangers() == 0.0);
}
