//! Edges: enrolment, leases, envelopes, rotation; and tenants that are nothing to each other.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    thread,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use firsthop_core::{
    AgentClass, Alg, Annotation, Epoch, Header, KeyId, LeaseKey, LeaseRing, Network, Region, SourceId, TenantId, Trust,
    WorkerId, limits::MAX_ENVELOPE, seal_envelope,
};
use firsthop_intake::{Account, DOCUMENTS, Facts, Leased, Origins, RegionSecrets, Session, WANT, native};

use crate::common::{Client, Folder, Page, Raise, Response, Server, Tenant, now, random, until};

/// An edge that has its leases from the server, and does with them what the Worker does.
pub(crate) struct Edge {
    pub(crate) account: Leased,
    source: SourceId,
    batch: u64,
}

impl Edge {
    pub(crate) fn enrol(folder: &Folder, tenant: &str, name: &str, region: &str) -> String {
        folder.ok(&["edge", "add", "--tenant", tenant, "--name", name, "--region", region]).trim().to_owned()
    }

    pub(crate) fn leases(server: &Server, token: &str) -> Response {
        let bearer = format!("Bearer {token}");
        Client::new(server.internal).request("POST", "/v1/leases", &[("Authorization", &bearer)], b"")
    }

    /// The same, for the documents alone.
    pub(crate) fn told(server: &Server, token: &str) -> Response {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", &bearer[..]), (WANT, DOCUMENTS)];
        Client::new(server.internal).request("POST", "/v1/leases", &headers, b"")
    }

    pub(crate) fn new(server: &Server, token: &str) -> Self {
        let mut response = Self::leases(server, token);
        until("the server has looked at the files", || {
            response = Self::leases(server, token);
            response.status == 200
        });
        assert_eq!(response.header("cache-control"), "no-store");
        let said = response.json();
        assert_eq!(said["refreshAfter"], 300);
        let mut leases = LeaseRing::new();
        let given = said["leases"].as_array().expect("leases");
        let current = Epoch::at(now()).get();
        for lease in given {
            let key: [u8; 32] = BASE64_STANDARD.decode(lease["key"].as_str().unwrap()).unwrap().try_into().unwrap();
            let epoch = lease["epoch"].as_u64().unwrap() as u32;
            assert!((current - 2..=current + 2).contains(&epoch));
            leases.insert(KeyId::new(lease["keyId"].as_u64().unwrap() as u32), Epoch::new(epoch), LeaseKey::new(key));
        }
        let strings = |name: &str| -> Vec<String> {
            said[name].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        let tenant = firsthop_intake::Tenant {
            id: said["tenant"].as_str().unwrap().parse::<TenantId>().unwrap(),
            name: said["name"].as_str().unwrap().to_owned(),
            region: said["region"].as_str().unwrap().parse::<Region>().unwrap(),
            worker: WorkerId::new(said["worker"].as_u64().unwrap() as u32),
            write_keys: strings("writeKeys"),
            origins: Origins::parse(strings("origins")).unwrap(),
        };
        Self {
            account: Leased { tenant, leases, region_secrets: RegionSecrets::default() },
            source: SourceId::v7(now(), random()),
            batch: 0,
        }
    }

    /// What the edge makes of a page's bytes: an envelope, and the session that the page gets.
    pub(crate) fn forward(&mut self, body: &[u8]) -> (Vec<u8>, Option<Session>) {
        let facts =
            Facts { country: Some("CH"), pop: Some("ZRH"), network: Network::V4([192, 0, 2]), ..Facts::at(now()) };
        let account = self.account.clone();
        match native::receive(body, &facts, |_| Some(&account)) {
            Ok(accepted) => (self.seal(&accepted.annotation, body, accepted.frame.header().count), accepted.session),
            Err(refused) => (self.seal(&refused.annotation, body, refused.count), None),
        }
    }

    pub(crate) fn seal(&mut self, annotation: &Annotation<'_>, body: &[u8], count: u16) -> Vec<u8> {
        let (key_id, scope, lease) = self.account.current(now()).expect("a lease");
        let header = Header {
            key_id,
            epoch: scope.epoch,
            region: scope.region,
            alg: Alg::HmacSha256,
            count,
            batch_seq: self.batch,
            ..Header::new(scope.tenant, self.source, now())
        };
        self.batch += 1;
        let mut buffer = vec![0; MAX_ENVELOPE];
        let key = lease.envelope_key(header.alg).expect("a MAC");
        seal_envelope(&mut buffer, &header, scope.worker, annotation, body, &key).expect("sealed").to_vec()
    }
}

pub(crate) fn envelope(client: &mut Client, bytes: &[u8]) -> Response {
    client.request("POST", "/v1/e", &[], bytes)
}

#[test]
fn what_an_edge_forwards_is_stored_with_what_it_noted() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--region", "EU"]);
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    let mut server = folder.serve();
    let mut client = server.client();
    let mut edge = Edge::new(&server, &token);
    let mut page = Page::new(&tenant);

    // First contact by write key, then a session that the edge alone granted: the server never saw it.
    let first = page.frame(2);
    let (sealed, session) = edge.forward(&first);
    let receipt = envelope(&mut client, &sealed).receipt();
    assert_eq!((receipt.stored, receipt.count, receipt.source), (2, 2, page.source));
    assert!(receipt.session.is_none(), "sessions at the edge are the edge's");
    page.session = session;
    let second = page.frame(3);
    let (sealed, _) = edge.forward(&second);
    assert_eq!(envelope(&mut client, &sealed).receipt().stored, 3);
    // Sent again, it is in another envelope; the same frame is the same frame, also straight to the server.
    let (again, _) = edge.forward(&second);
    assert_ne!(sealed, again);
    assert_eq!(envelope(&mut client, &again).receipt().duplicate, 3);
    assert_eq!(client.frame(&second).receipt().duplicate, 3);
    // And a page that has its session from the edge may go to the server.
    let third = page.frame(1);
    assert_eq!(client.frame(&third).receipt().stored, 1);

    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 6);
    let noted = "country = 'CH' AND pop = 'ZRH' AND network = '192.0.2.0/24' AND region = 'EU'";
    assert_eq!(tenant.events(&format!("SELECT COUNT(*) FROM events WHERE {noted}")), 5);
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events WHERE trust = 'session'"), 4);
    // Counted by the hop that had it first: the edge is number 1, the server 0.
    let balance: serde_json::Value = serde_json::from_str(&folder.ok(&["reconcile", "--json"])).expect("JSON");
    let lines = balance["lines"].as_array().expect("lines").iter();
    let hops: Vec<_> =
        lines.map(|line| [&line["hop"], &line["stored"], &line["duplicate"]].map(|n| n.as_i64())).collect();
    assert_eq!(hops, [[0, 1, 3], [1, 5, 3]].map(|line| line.map(Some)), "{balance}");
    let said = folder.ok(&["verify"]);
    assert!(
        said.contains("6 events in 3 frames (2 signed by a session, 1 unsigned; 2 in an edge's envelope)"),
        "{said}"
    );
    server.stop();
}

/// What the edge will not vouch for it sends all the same: some of it the server can judge, the rest it keeps.
#[test]
fn what_an_edge_does_not_vouch_for() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--region", "EU"]);
    let (one, two) = (Edge::enrol(&folder, "shop", "one", "EU"), Edge::enrol(&folder, "shop", "two", "EU"));
    let server = folder.serve();
    let mut client = server.client();
    let (mut one, mut two) = (Edge::new(&server, &one), Edge::new(&server, &two));

    // A session of another edge's: unchecked there, checked here.
    let mut page = Page::new(&tenant);
    let (sealed, session) = one.forward(&page.frame(1));
    assert_eq!(envelope(&mut client, &sealed).receipt().stored, 1);
    page.session = session;
    let frame = page.frame(2);
    let (sealed, _) = two.forward(&frame);
    assert_eq!(envelope(&mut client, &sealed).receipt().stored, 2);
    tenant.settle();
    assert_eq!(
        tenant.events("SELECT COUNT(*) FROM events WHERE trust = 'session'"),
        2,
        "the server's word, not the edge's"
    );
    let mut forged = page.frame(1);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let (sealed, _) = two.forward(&forged);
    let refused = envelope(&mut client, &sealed);
    assert_eq!((refused.status, refused.code().as_str()), (401, "bad-signature"));
    assert!(refused.verdict().ends_with("quarantined=1"), "marked as a refusal of the frame: {refused:?}");

    // What the edge refuses itself is kept under the edge's reason, and that is acknowledged.
    let mut broken = page.frame(5);
    broken[90] ^= 1;
    let (sealed, _) = one.forward(&broken);
    let receipt = envelope(&mut client, &sealed).receipt();
    assert_eq!((receipt.count, receipt.stored), (0, 0));
    assert_eq!(tenant.quarantine(), [("bad-crc".to_owned(), 1), ("bad-signature".to_owned(), 1)].into());
    assert_eq!(server.outcome(&tenant, "damaged", "bad-crc"), 5.0);
    // A reason becomes a label, so it must look like one.
    let odd = Annotation { refused: "Not \"a\" code", received_ms: now().as_millis(), ..Annotation::default() };
    broken[91] ^= 1;
    let sealed = one.seal(&odd, &broken, 1);
    envelope(&mut client, &sealed).receipt();
    assert_eq!(tenant.quarantine()["refused-by-edge"], 1);
    // Nor does one that makes up codes without end make a figure of each.
    for number in 0..200 {
        let code = format!("made-up-{number}");
        let made_up = Annotation { refused: &code, received_ms: now().as_millis(), ..Annotation::default() };
        let bytes = one.seal(&made_up, code.as_bytes(), 1);
        assert_eq!(envelope(&mut client, &bytes).status, 200);
    }
    let reasons = tenant.journal("SELECT COUNT(DISTINCT reason) FROM counters");
    assert!((100..=129).contains(&reasons), "{reasons} reasons");
    assert!(tenant.quarantine()["refused-by-edge"] > 1);
    // But what the server knows itself is what it is: another edge's words for it, too.
    broken[92] ^= 1;
    for (refused, bytes) in [("wrong-origin", page.frame(2)), ("truncated", broken)] {
        let said = Annotation { refused, received_ms: now().as_millis(), ..Annotation::default() };
        assert_eq!(envelope(&mut client, &two.seal(&said, &bytes, 2)).status, 200);
    }
    assert_eq!((tenant.quarantine()["wrong-origin"], server.outcome(&tenant, "damaged", "truncated")), (1, 2.0));
    // A replay finds out why under whatever reason it stands, such as that of an older version.
    let journal = rusqlite::Connection::open(tenant.folder.join("journal.db")).expect("opens");
    journal.busy_timeout(std::time::Duration::from_secs(10)).expect("set");
    for table in ["quarantine", "counters"] {
        let sql = format!("UPDATE {table} SET reason = 'older' WHERE reason = 'wrong-origin'");
        assert_eq!(journal.execute(&sql, []).expect("updated"), 1);
    }
    drop(journal);
    let said = folder.ok(&["quarantine", "replay", "--reason", "older", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["replayed"]["stay"], serde_json::json!({ "wrong-origin": 1 }));
    folder.ok(&["verify"]);
}

/// A retry comes in another envelope. What is set aside is known again by the producer's bytes, and counts once.
#[test]
fn what_is_set_aside_again_through_an_edge_counts_once() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--region", "EU"]);
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    let server = folder.serve();
    let (mut client, mut edge) = (server.client(), Edge::new(&server, &token));
    let page = Page::new(&tenant);
    let (first, second) = (page.frame_at(0, 3, "Product Viewed"), page.frame_at(0, 3, "Product Removed"));
    assert_eq!(envelope(&mut client, &edge.forward(&first).0).receipt().stored, 3);
    let mut broken = page.frame_at(7, 5, "x");
    broken[90] ^= 1;
    for _ in 0..3 {
        assert_eq!(envelope(&mut client, &edge.forward(&second).0).receipt().conflict, 3);
        assert_eq!(envelope(&mut client, &edge.forward(&broken).0).receipt().count, 0);
    }
    // And straight to the server they are the same bytes still.
    assert_eq!(client.frame(&second).receipt().conflict, 3);
    assert_eq!(tenant.quarantine(), [("bad-crc".to_owned(), 1), ("conflict".to_owned(), 1)].into());
    assert_eq!(tenant.journal("SELECT SUM(times) FROM quarantine"), 7);
    assert_eq!(server.outcome(&tenant, "quarantined", "conflict"), 3.0);
    folder.ok(&["verify"]);
}

#[test]
fn an_envelope_must_be_an_enrolled_edges() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--region", "EU"]);
    let other = folder.tenant("other", &["--region", "EU"]);
    let (token, gone) = (Edge::enrol(&folder, "shop", "zurich", "EU"), Edge::enrol(&folder, "shop", "gone", "EU"));
    let server = folder.serve();
    let mut client = server.client();
    let mut edge = Edge::new(&server, &token);
    let mut removed = Edge::new(&server, &gone);
    let mut page = Page::new(&tenant);
    let note = || Annotation {
        received_ms: now().as_millis(),
        trust: Trust::WriteKey,
        agent: AgentClass::Desktop,
        ..Annotation::default()
    };
    let mut refused = |bytes: &[u8], status: u16, code: &str, of_the_frame: bool| {
        let response = envelope(&mut client, bytes);
        assert_eq!((response.status, response.code().as_str()), (status, code));
        assert_eq!(response.verdict().is_empty(), !of_the_frame, "{code}: only a refusal of the frame is the page's");
    };

    let frame = page.frame(1);
    let (sealed, _) = edge.forward(&frame);
    for at in [100, sealed.len() - 1] {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        let (status, code) = if at == 100 { (400, "bad-crc") } else { (401, "bad-signature") };
        refused(&changed, status, code, false);
    }
    refused(&frame, 400, "wrong-state", false);
    // Signed with the right leases, but for another worker, another region, another hour, another root.
    let with = |change: &dyn Fn(&mut Edge)| {
        let mut edge = Edge { account: edge.account.clone(), ..Edge::new(&server, &token) };
        change(&mut edge);
        edge.seal(&note(), &frame, 1)
    };
    refused(&with(&|edge| edge.account.tenant.worker = WorkerId::new(99)), 401, "wrong-enrolment", false);
    refused(&with(&|edge| edge.account.tenant.worker = WorkerId::new(2)), 401, "bad-signature", false);
    refused(&with(&|edge| edge.account.tenant.region = "US".parse().unwrap()), 401, "wrong-enrolment", false);
    let (key, epoch) = (edge.account.current(now()).unwrap().2, Epoch::at(now()));
    let relabelled = |id: u32, shift: i64| {
        let mut edge = Edge { account: edge.account.clone(), source: edge.source, batch: 0 };
        edge.account.leases = LeaseRing::new();
        edge.account.leases.insert(KeyId::new(id), epoch, key.clone());
        let mut sealed = edge.seal(&note(), &frame, 1);
        let shifted = (i64::from(epoch.get()) + shift) as u32;
        sealed[36..40].copy_from_slice(&shifted.to_le_bytes());
        sealed[80..84].fill(0);
        let crc = firsthop_core::crc32(&[&sealed[..sealed.len() - 32]]);
        sealed[80..84].copy_from_slice(&crc.to_le_bytes());
        sealed
    };
    refused(&relabelled(9, 0), 401, "unknown-key", false);
    refused(&relabelled(1, 2), 401, "epoch-out-of-range", false);
    refused(&relabelled(1, -7 * 24 - 1), 401, "epoch-out-of-range", false);
    refused(&relabelled(1, -3), 401, "bad-signature", false);
    // An honest envelope around something that is not its tenant's, or no frame, or another envelope.
    let theirs = Page::new(&other).frame(1);
    refused(&edge.seal(&note(), &theirs, 1), 401, "wrong-write-key", true);
    refused(&edge.seal(&note(), b"nonsense", 1), 400, "bad-magic", true);
    let inner = edge.seal(&note(), &frame, 1);
    refused(&edge.seal(&note(), &inner, 1), 400, "reserved-bits", true);

    assert_eq!(other.quarantine().len(), 0, "nothing of it is the other tenant's");
    // An edge that is removed gets no leases, and what it forwards is refused, though its lease has not ended.
    let (sealed, _) = removed.forward(&frame);
    folder.ok(&["edge", "revoke", "--tenant", "shop", "gone"]);
    until("the removal is noticed", || Edge::leases(&server, &gone).status == 401);
    refused(&sealed, 401, "wrong-enrolment", false);
    assert_eq!(tenant.journal("SELECT COUNT(*) FROM frames"), 0);
}

#[test]
fn leases_are_for_enrolled_edges() {
    let folder = Folder::new();
    folder.tenant("shop", &["--region", "EU"]);
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    // An edge serves one region, so it can be enrolled for one only.
    let said = folder.fails(&["edge", "add", "--tenant", "shop", "--name", "everywhere", "--region=--"]);
    assert!(said.contains("region"), "{said}");
    let server = folder.serve();
    Edge::new(&server, &token);
    let mut secret = token.clone();
    let end = if secret.ends_with('x') { "y" } else { "x" };
    secret.replace_range(secret.len() - 1.., end);
    for wrong in ["", "fhe_", &secret, &token.replacen('_', "-", 1), &token.to_uppercase()] {
        let response = Edge::leases(&server, wrong);
        assert_eq!((response.status, response.code().as_str()), (401, "wrong-enrolment"), "{wrong}");
        assert_eq!(response.header("www-authenticate"), "Bearer");
    }
    let mut client = Client::new(server.internal);
    assert_eq!(client.request("POST", "/v1/leases", &[], b"").code(), "wrong-enrolment");
    assert_eq!(client.request("POST", "/v1/f", &[], b"x").code(), "not-found", "the internal side takes no events");
    let leases = Edge::leases(&server, &token);
    let keys = std::fs::read_to_string(folder.only_tenant().folder.join("keys.toml")).expect("there");
    let root = keys.split("secret = \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a root");
    assert!(!leases.text().contains(root), "the root stays");
    let list = folder.ok(&["edge", "list"]);
    assert!(list.contains("zurich") && !list.contains(&token));
}

/// After a rotation, what was signed under the old root is accepted until its end, and checked ever after.
#[test]
fn a_rotation_refuses_nothing_that_was_valid() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--region", "EU"]);
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    let mut server = folder.serve();
    let mut client = server.client();
    let mut edge = Edge::new(&server, &token);
    let mut page = Page::new(&tenant);
    page.begin(&mut client);
    let mut late = page.clone();
    folder.ok(&["key", "rotate", "--grace", "1h"]);
    let list = folder.ok(&["key", "list"]);
    assert!(list.contains("signs") && list.contains("verifies"), "{list}");
    let frame = page.frame(1);
    let (sealed, _) = edge.forward(&Page::new(&tenant).frame(1));
    assert_eq!(client.frame(&frame).receipt().stored, 1, "a session under the old root");
    assert_eq!(envelope(&mut client, &sealed).receipt().stored, 1, "a lease under the old root");
    // New sessions and leases come from the new one, as soon as it is noticed.
    let mut fresh = Page::new(&tenant);
    until("the rotation is noticed", || {
        fresh = Page::new(&tenant);
        fresh.begin(&mut client).session.expect("a session").key_id == KeyId::new(2)
    });
    assert_eq!(Edge::leases(&server, &token).json()["leases"].as_array().unwrap().len(), 6, "both roots");
    assert!(
        server.metric(&format!("firsthop_key_expiry_seconds{{tenant=\"{}\",kind=\"root\",key_id=\"1\"}}", tenant.id))
            > 0.0
    );
    let frame = fresh.frame(1);
    assert_eq!(client.frame(&frame).receipt().stored, 1);
    // Once it has ended, it has ended; what it signed is checked all the same.
    folder.ok(&["key", "rotate", "--grace", "0s"]);
    until("the old root has ended", || {
        let response = client.frame(&late.frame(7));
        response.status != 200 && {
            assert_eq!((response.status, response.code().as_str()), (401, "unknown-key"));
            true
        }
    });
    server.stop();
    assert!(folder.ok(&["key", "list"]).contains("ended"));
    folder.ok(&["verify"]);
}

/// Two rotations in the middle of load, by page and by edge: not one frame is refused, and none is stored twice.
#[test]
fn a_rotation_under_load_refuses_nothing() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--region", "EU"]);
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    let mut server = folder.serve();
    let stop = AtomicBool::new(false);
    // The root under which each page had its latest session.
    let newest = [const { AtomicU32::new(0) }; 3];
    let (server_ref, tenant_ref, token, stop_ref, newest_ref) = (&server, &tenant, &token, &stop, &newest);
    let stored: u64 = thread::scope(|scope| {
        let pages = (0..3).map(|i| {
            scope.spawn(move || {
                let (mut client, mut stored, mut roots) = (server_ref.client(), 0, Vec::new());
                let mut edge = (i == 0).then(|| Edge::new(server_ref, token));
                let mut page = Page::new(tenant_ref);
                while !stop_ref.load(Relaxed) || page.batch < 5 {
                    if page.batch == 40 {
                        // The next visitor.
                        page = Page::new(tenant_ref);
                    }
                    let frame = page.frame(2);
                    let (response, session) = match &mut edge {
                        Some(edge) => {
                            let (sealed, session) = edge.forward(&frame);
                            (envelope(&mut client, &sealed), session)
                        }
                        None => {
                            let response = client.frame(&frame);
                            let session = response.receipt().session;
                            (response, session)
                        }
                    };
                    assert_eq!(response.status, 200, "{}", response.text());
                    stored += u64::from(response.receipt().stored);
                    if let Some(session) = session {
                        roots.push(session.key_id.get());
                        newest_ref[i].store(session.key_id.get(), Relaxed);
                        page.session = Some(session);
                    }
                }
                (stored, roots)
            })
        });
        let pages: Vec<_> = pages.collect();
        let end = Raise(&stop);
        // The edge goes on with the leases that it has.
        let have = |root: u32| newest[1..].iter().all(|newest| newest.load(Relaxed) == root);
        for root in [1, 2] {
            until("all have sessions", || have(root) || pages.iter().any(thread::ScopedJoinHandle::is_finished));
            folder.ok(&["key", "rotate", "--tenant", "shop"]);
        }
        until("all have the newest root", || have(3) || pages.iter().any(thread::ScopedJoinHandle::is_finished));
        drop(end);
        let done: Vec<_> = pages.into_iter().map(|page| page.join().expect("no refusal")).collect();
        assert!(done[1..].iter().all(|(_, roots)| roots.first() == Some(&1) && roots.last() == Some(&3)), "{done:?}");
        done.iter().map(|(stored, _)| stored).sum()
    });
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events") as u64, stored);
    assert_eq!(tenant.quarantine().len(), 0);
    server.stop();
    folder.ok(&["verify"]);
}

#[test]
fn keys_are_listed_with_their_ages_and_without_secrets() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--region", "EU"]);
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    Edge::enrol(&folder, "shop", "gone", "EU");
    folder.ok(&["edge", "revoke", "gone"]);
    folder.ok(&["key", "rotate"]);
    let said: serde_json::Value = serde_json::from_str(&folder.ok(&["key", "list", "--json"])).expect("JSON");
    let keys = said["keys"].as_array().expect("keys");
    let found: Vec<_> = keys
        .iter()
        .map(|key| ["kind", "id", "state"].map(|name| key[name].as_str().expect("a text").to_owned()).join(" "))
        .collect();
    let write = format!("write {} in force", tenant.key);
    assert_eq!(found, ["root 1 verifies", "root 2 signs", &write, "edge 1 zurich enrolled", "edge 2 gone revoked"]);
    assert!(keys[0]["expiresSeconds"].as_i64().expect("an end") > 7 * 86400 && keys[1]["expiresSeconds"].is_null());
    assert!(keys[0]["ageSeconds"].as_u64().expect("an age") < 60 && keys[2]["ageSeconds"].is_null());
    assert!(keys[4]["expiresSeconds"].as_i64().expect("an end") <= 0);
    let both = folder.ok(&["key", "list"]) + &said.to_string();
    let files = ["tenant.toml", "keys.toml"].map(|name| std::fs::read_to_string(tenant.folder.join(name)).expect(name));
    let secrets =
        files.iter().flat_map(|text| text.lines()).filter(|line| line.contains("secret") || line.contains("sha256"));
    let secrets: Vec<_> = secrets.filter_map(|line| line.split('"').nth(1)).collect();
    assert_eq!(secrets.len(), 4);
    assert!(secrets.iter().all(|secret| !both.contains(secret)) && !both.contains(&token));
    let server = folder.serve();
    for (kind, id) in [("root", 1), ("root", 2), ("edge", 1)] {
        let label = format!("firsthop_key_age_seconds{{tenant=\"{}\",kind=\"{kind}\",key_id=\"{id}\"}}", tenant.id);
        let age = server.metric(&label);
        assert!(age > 0.0 && age < 60.0, "{label}: {age}");
    }
}

/// One tenant's keys, sessions and frames are worth nothing at another's.
#[test]
fn tenants_are_nothing_to_each_other() {
    let folder = Folder::new();
    let (a, b) = (folder.tenant("a", &[]), folder.tenant("b", &[]));
    let server = folder.serve();
    let mut client = server.client();
    let mut of_a = Page::new(&a);
    of_a.begin(&mut client);

    // a's write key in a frame for b, and the other way round in JSON.
    let crossed = Page { tenant: b.id, ..Page::new(&a) }.frame(1);
    assert_eq!(client.frame(&crossed).code(), "wrong-write-key");
    // a's session in a frame for b.
    let crossed = Page { tenant: b.id, ..of_a.clone() }.frame(1);
    assert_eq!(client.frame(&crossed).code(), "bad-signature");
    // Two keys at once.
    let both = format!(r#"{{"event":"x","userId":"u","writeKey":"{}"}}"#, b.key);
    assert_eq!(client.segment("/v1/track", &a.key, &both).code(), "wrong-write-key");
    // The same source, numbers and ids at both: two events, since identity begins with the tenant.
    let at_b = Page { source: of_a.source, ..Page::new(&b) }.frame_at(0, 1, "Product Viewed");
    assert_eq!(client.frame(&at_b).receipt().stored, 1);
    let event = r#"{"event":"x","userId":"u","messageId":"m"}"#;
    for tenant in [&a, &b] {
        let response = client.segment("/v1/track", &tenant.key, event);
        assert_eq!(response.verdict(), "stored=1, duplicate=0, conflict=0, quarantined=0");
    }
    for tenant in [&a, &b] {
        tenant.settle();
        assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 2);
    }
    let ids = |tenant: &Tenant| folder.ok(&["events", "--json", "--tenant", &tenant.id.to_string()]);
    assert!(ids(&a).lines().all(|line| !ids(&b).contains(line)));
    assert_eq!(a.quarantine().len(), 0);
    assert_eq!(b.quarantine().values().sum::<i64>(), 2, "what named b is b's to look at");
    folder.ok(&["verify"]);
}
