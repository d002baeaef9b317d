//! Signed documents and region keys: what edges and pages are told, and how they check it.

use std::fs;

use firsthop_intake::{
    document::{Document, Kind, RegionKeys, Signed},
    fields::{Raw, Read},
    parse_enrolment,
    policy::Policy,
};
use serde_json::Value;

use crate::{
    common::{Client, Folder, Response, Server, Tenant, until},
    edges::Edge,
};

const POLICY: &str = r#"
[policy]
regions = [{ code = "EU", host = "https://eu.events.example", forward = ["*"], unseal = true }]
"#;

/// Checks a document as an edge does, by another implementation than the one that signs.
fn check(signed: &Signed, token: &str) {
    let key = parse_enrolment(token).expect("a token").document_key;
    let message = signed.signed_bytes().expect("well-formed");
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key);
    key.verify(&message, &signed.signature).expect("signed with the key of the token");
}

fn read<T: Read>(signed: &Signed, kind: Kind, tenant: &Tenant) -> Document<T> {
    signed.read(kind, tenant.id, 0).expect("of this kind and tenant")
}

fn granted(server: &Server, token: &str) -> (Vec<Signed>, Value) {
    let response = Edge::leases(server, token);
    assert_eq!(response.status, 200, "{}", response.text());
    let said = response.json();
    let documents = serde_json::from_value(said["documents"].clone()).expect("documents");
    (documents, said["regionSecrets"].clone())
}

/// Asks until the server has seen what was changed in its files.
fn once<T>(server: &Server, token: &str, is: impl Fn(&(Vec<Signed>, Value)) -> Option<T>) -> T {
    let mut found = None;
    until("the server has looked at the files", || {
        found = is(&granted(server, token));
        found.is_some()
    });
    found.expect("found")
}

fn of(documents: &[Signed], kind: Kind) -> Option<Signed> {
    documents.iter().find(|document| document.kind == kind.as_str()).cloned()
}

fn append(tenant: &Tenant, text: &str) {
    let path = tenant.folder.join("tenant.toml");
    let before = fs::read_to_string(&path).expect("there");
    fs::write(&path, before + text).expect("written");
}

#[test]
fn an_edge_is_told_the_policy_and_can_check_it() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--region", "EU"]);
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    let plain = fs::read_to_string(tenant.folder.join("tenant.toml")).expect("there");
    let mut server = folder.serve();
    assert_eq!(granted(&server, &token), (Vec::new(), Value::Null), "no policy, and nothing is sealed");

    append(&tenant, POLICY);
    let first = once(&server, &token, |(documents, _)| of(documents, Kind::Policy));
    check(&first, &token);
    let said: Document<Option<Policy>> = read(&first, Kind::Policy, &tenant);
    assert_eq!(said.body.expect("a policy").regions[0].host.as_deref(), Some("https://eu.events.example"));
    let mut forged = first.clone();
    forged.text = forged.text.replace("eu.events.example", "my.events.example");
    assert!(std::panic::catch_unwind(|| check(&forged, &token)).is_err(), "changed on the way");

    // Nothing changed: the same bytes, also after a restart and after a change of something else.
    assert_eq!(of(&granted(&server, &token).0, Kind::Policy).as_ref(), Some(&first));
    server.stop();
    let mut server = folder.serve();
    assert_eq!(of(&granted(&server, &token).0, Kind::Policy).as_ref(), Some(&first));
    let other = Edge::enrol(&folder, "shop", "fra", "EU");
    Edge::new(&server, &other);
    assert_eq!(of(&granted(&server, &token).0, Kind::Policy).as_ref(), Some(&first));

    // Changed: a higher version. Removed: that is told as well.
    let path = tenant.folder.join("tenant.toml");
    let text = fs::read_to_string(&path).expect("there");
    fs::write(&path, text.replace("eu.events.example", "europe.events.example")).expect("written");
    let newer = |old: &Signed| {
        let old = old.clone();
        move |(documents, _): &(Vec<Signed>, Value)| of(documents, Kind::Policy).filter(|document| *document != old)
    };
    let second = once(&server, &token, newer(&first));
    check(&second, &token);
    let version = |signed: &Signed| read::<Raw>(signed, Kind::Policy, &tenant).version;
    assert!(version(&second) > version(&first));
    fs::write(&path, text.replace(&text[text.find("[[policy.regions]]").expect("there")..], "")).expect("written");
    let third = once(&server, &token, newer(&second));
    check(&third, &token);
    assert!(version(&third) > version(&second));
    assert_eq!(read::<Option<Policy>>(&third, Kind::Policy, &tenant).body, None);
    assert!(!plain.contains("policy"));

    // A copy elsewhere is signed again: whoever has seen later ones would take none that is older.
    let backup = folder.path.with_file_name("backup");
    let to = backup.to_str().expect("text");
    folder.ok(&["backup", "--to", to]);
    server.stop();
    let restored = Folder::new();
    restored.ok(&["restore", "--from", to]);
    let server = restored.serve();
    let fourth = of(&granted(&server, &token).0, Kind::Policy).expect("a policy");
    check(&fourth, &token);
    assert!(version(&fourth) > version(&third));
    assert_eq!(read::<Option<Policy>>(&fourth, Kind::Policy, &tenant).body, None);
}

#[test]
fn a_policy_that_means_nothing_is_named_and_the_old_one_stays() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--region", "EU"]);
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    assert!(folder.fails(&["edge", "add", "--name", "iad", "--region", "US"]).contains("[policy]"));
    append(&tenant, POLICY);
    let server = folder.serve();
    let first = of(&granted(&server, &token).0, Kind::Policy).expect("a policy");
    let path = tenant.folder.join("tenant.toml");
    let text = fs::read_to_string(&path).expect("there");
    // Quotes are twice as long on their way: within the bound of a text, and over that of an answer.
    let entries = format!("deny = [{}]\n", vec![format!("'{}'", "\"".repeat(128)); 64].join(", "));
    let values = ["properties", "traits", "context"]
        .map(|name| format!("[policy.rules.{name}]\n{entries}hash{}", &entries[4..]));
    fs::write(&path, format!("{text}{}", values.concat())).expect("written");
    server.says("policy and region keys come to more than an edge can be told");
    assert_eq!(of(&granted(&server, &token).0, Kind::Policy).as_ref(), Some(&first));
    fs::write(&path, text.replace("https://", "http://")).expect("written");
    server.says("policy: regions[0] (EU): host");
    assert_eq!(of(&granted(&server, &token).0, Kind::Policy), Some(first));
    assert!(folder.fails(&["edge", "list"]).contains("host"));
    // An edge that the policy lets pass things on may be outside the tenant's region; it gets no region's keys.
    fs::write(&path, text).expect("written");
    folder.ok(&["region-key", "new"]);
    let away = Edge::enrol(&folder, "shop", "iad", "US");
    let keys = once(&server, &token, |(documents, secrets)| Some((of(documents, Kind::RegionKeys)?, secrets.clone())));
    assert_eq!(keys.1.as_array().map(Vec::len), Some(1));
    let (documents, secrets) = granted(&server, &away);
    assert_eq!((of(&documents, Kind::RegionKeys), secrets), (Some(keys.0), Value::Null));
    fs::write(&path, fs::read_to_string(&path).expect("there").replace("forward = [\"*\"]", "forward = [\"CH\"]"))
        .expect("written");
    assert!(folder.fails(&["edge", "add", "--name", "sfo", "--region", "US"]).contains("neither read nor pass on"));
}

fn region_keys(server: &Server, tenant: &Tenant, headers: &[(&str, &str)]) -> Response {
    let path = format!("/v1/region-keys/{}", tenant.id);
    Client::new(server.public).request("GET", &path, headers, b"")
}

#[test]
fn region_keys_are_published_rotated_and_ended() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--region", "EU"]);
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    let server = folder.serve();
    assert_eq!(region_keys(&server, &tenant, &[]).status, 404);
    assert!(folder.fails(&["region-key", "config"]).contains("region-key new"));
    assert!(folder.fails(&["region-key", "new", "--region", "US"]).contains("EU only"));
    assert!(folder.ok(&["region-key", "new"]).contains("Region key 1 of EU is published"));

    let list = once(&server, &token, |(documents, _)| of(documents, Kind::RegionKeys));
    check(&list, &token);
    let keys = read::<RegionKeys>(&list, Kind::RegionKeys, &tenant).body.keys;
    assert_eq!(keys.len(), 1);
    assert!(keys[0].from <= crate::common::now() && keys[0].until.is_none(), "the first is used at once");
    // Without a policy that says so, no edge gets the private half.
    assert_eq!(granted(&server, &token).1, Value::Null);
    let published = region_keys(&server, &tenant, &[("Origin", "https://shop.example")]);
    assert_eq!(serde_json::from_slice::<Signed>(&published.body).expect("a document"), list);
    assert_eq!(published.header("cache-control"), "public, max-age=300");
    assert_eq!(published.header("access-control-allow-origin"), "*");
    let again = region_keys(&server, &tenant, &[("If-None-Match", published.header("etag"))]);
    assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, published.header("etag")));

    // A second one is published before it is used, and the first stays for a while.
    assert!(folder.ok(&["region-key", "rotate"]).contains("Region key 1 is published until"));
    let grown = |count: usize| {
        let tenant = tenant.clone();
        move |(documents, secrets): &(Vec<Signed>, Value)| {
            let list = of(documents, Kind::RegionKeys)?;
            let keys = read::<RegionKeys>(&list, Kind::RegionKeys, &tenant).body;
            (keys.keys.len() == count).then(|| (list, keys, secrets.clone()))
        }
    };
    let (second, keys, _) = once(&server, &token, grown(2));
    let (now, eu) = (crate::common::now(), "EU".parse().expect("a region"));
    let current = |at| keys.current(eu, at).map(|key| key.id.get());
    assert_eq!((current(now), current(now.offset(2 * 86_400_000))), (Some(1), Some(2)));
    assert_eq!(current(now.offset(32 * 86_400_000)), Some(2));
    assert!(keys.keys[0].until > Some(keys.keys[1].from));
    assert_ne!(region_keys(&server, &tenant, &[]).header("etag"), published.header("etag"));
    let version = |signed: &Signed| read::<Raw>(signed, Kind::RegionKeys, &tenant).version;
    assert!(version(&second) > version(&list));

    // An edge that may open what is sealed gets both private halves.
    append(&tenant, POLICY);
    let (.., secrets) = once(&server, &token, |granted| grown(2)(granted).filter(|(.., secrets)| secrets.is_array()));
    assert_eq!(
        secrets.as_array().expect("secrets").iter().map(|key| key["id"].as_u64()).collect::<Vec<_>>(),
        [Some(1), Some(2)]
    );
    for (said, key) in secrets.as_array().expect("secrets").iter().zip(&keys.keys) {
        use base64::Engine;
        let secret = base64::prelude::BASE64_STANDARD.decode(said["key"].as_str().expect("a text")).expect("base64");
        let pair = firsthop_core::RegionSecretKey::new(key.id, secret.try_into().expect("32 bytes"));
        assert_eq!(*pair.public().as_bytes(), key.public);
    }
    // Ended: published no longer, and its private half still goes to the edges, for what is on its way.
    assert!(folder.ok(&["region-key", "retire", "1"]).contains("No key of EU is left to seal to"));
    let (_, keys, secrets) = once(&server, &token, grown(1));
    assert_eq!((keys.keys[0].id.get(), secrets.as_array().map(Vec::len)), (2, Some(2)));
    assert!(folder.fails(&["region-key", "retire", "1"]).contains("ended already"));
    assert!(folder.fails(&["region-key", "retire", "9"]).contains("no region key 9"));

    // What is told of them: never a private half.
    let lists = [
        folder.ok(&["region-key", "list"]),
        folder.ok(&["key", "list"]),
        folder.ok(&["key", "list", "--json"]),
        folder.ok(&["region-key", "config"]),
        folder.ok(&["region-key", "config", "--form", "json"]),
        folder.ok(&["region-key", "config", "--form", "signed"]),
        region_keys(&server, &tenant, &[]).text(),
    ];
    let file = fs::read_to_string(tenant.folder.join("keys.toml")).expect("there");
    let secrets: Vec<_> = file.lines().filter_map(|line| line.strip_prefix("secret = ")?.split('"').nth(1)).collect();
    assert_eq!(secrets.len(), 3, "a root and two region keys");
    assert!(lists.iter().all(|text| secrets.iter().all(|secret| !text.contains(secret))));
    assert!(lists[0].contains("ended") && lists[0].contains("to come"), "{}", lists[0]);
    assert!(lists[2].contains(r#""kind":"region""#) && lists[2].contains(r#""id":"2 EU""#));
    assert!(
        lists[3].contains("region: \"EU\",\nregionKeys: {\"keys\":[{") && !lists[3].contains(r#""id":1"#),
        "{}",
        lists[3]
    );
    for (kind, id) in [("region", 1), ("region", 2)] {
        let labels = format!("{{tenant=\"{}\",kind=\"{kind}\",key_id=\"{id}\"}}", tenant.id);
        let expires = server.metric(&format!("firsthop_key_expiry_seconds{labels}"));
        assert_eq!((expires < 0.0, id == 1), (expires < 0.0, expires < 0.0), "{id} ends in {expires} s");
    }
}

/// Somebody who has the public key alone can tell what was signed from what was not.
#[test]
fn a_document_is_checked_by_somebody_who_has_only_the_public_key() {
    let folder = Folder::new();
    folder.tenant("shop", &["--region", "EU"]);
    folder.ok(&["region-key", "new"]);
    let key = folder.ok(&["key", "document"]).trim().to_owned();
    let path = folder.path.with_file_name("list.json");
    let file = path.to_str().expect("text");
    let signed = folder.ok(&["region-key", "config", "--form", "signed"]);
    fs::write(&path, &signed).expect("written");
    let stranger = Folder::new();
    let said = stranger.ok(&["verify", "--document", file, "--public-key", &key]);
    assert!(said.contains("region-keys of tenant") && said.contains("\"region\": \"EU\""), "{said}");
    assert!(
        folder.ok(&["verify", "--document", file]).contains("with this key"),
        "the tenant's own, where it is at hand"
    );
    let other = folder.ok(&["key", "ledger"]).trim().to_owned();
    assert!(
        stranger.fails(&["verify", "--document", file, "--public-key", &other]).contains("not signed with this key")
    );
    fs::write(&path, signed.replacen("\\\"EU\\\"", "\\\"US\\\"", 1)).expect("written");
    assert!(stranger.fails(&["verify", "--document", file, "--public-key", &key]).contains("changed since"));
    fs::write(&path, "{}").expect("written");
    assert!(stranger.fails(&["verify", "--document", file, "--public-key", &key]).contains("no signed document"));
}

#[test]
fn whoever_wants_the_documents_alone_gets_no_key() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--region", "EU"]);
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    folder.ok(&["region-key", "new", "--tenant", "shop"]);
    append(&tenant, POLICY);
    let mut server = folder.serve();
    let full = Edge::leases(&server, &token).json();
    let keys = full["leases"].as_array().into_iter().chain(full["regionSecrets"].as_array()).flatten();
    let keys: Vec<_> = keys.map(|key| key["key"].as_str().expect("a key").to_owned()).collect();
    assert_eq!(keys.len(), 4, "three hours of one root, and the region's");
    // Also with a wish that nobody knows.
    for wish in ["documents", "keys", ""] {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", &bearer[..]), ("Firsthop-Want", wish)];
        let told = Client::new(server.internal).request("POST", "/v1/leases", &headers, b"");
        assert_eq!(told.status, 200);
        let said = told.json();
        let members: Vec<_> = said.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(members, ["documents", "refreshAfter", "region", "tenant", "worker"]);
        assert_eq!(said["documents"], full["documents"]);
        for secret in keys.iter().chain([&tenant.key]) {
            assert!(!told.text().contains(&**secret), "{wish}");
        }
    }
    server.stop();
}
