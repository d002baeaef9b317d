//! `docs/openapi.json` says of every path, method and status what a running server does, no more and no less.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    net::{SocketAddr, TcpStream},
    thread,
};

use serde_json::{Value, json};

use crate::{
    common::{Client, Folder, LONG, Page, Response, Server, Tenant, base64, read_response, sdk, until},
    edges::Edge,
};

/// The document.
pub(crate) struct Document(pub(crate) Value);

impl Document {
    pub(crate) fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
        Self(serde_json::from_str(&fs::read_to_string(path).expect("docs/openapi.json")).expect("JSON"))
    }

    /// What stands there, or what it refers to.
    pub(crate) fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(at) => self.0.pointer(at.strip_prefix('#').expect("local")).unwrap_or_else(|| panic!("{at}")),
            None => value,
        }
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0["paths"].as_object().expect("paths").iter().map(|(path, item)| (path, self.resolve(item)))
    }

    /// All that it promises: method, path, status.
    fn promises(&self) -> BTreeSet<(String, String, u16)> {
        let mut promises = BTreeSet::new();
        for (path, item) in self.paths() {
            for (method, operation) in
                item.as_object().expect("operations").iter().filter(|(name, _)| *name != "servers")
            {
                for status in operation["responses"].as_object().expect("responses").keys() {
                    promises.insert((method.to_uppercase(), path.clone(), status.parse().expect("a status")));
                }
            }
        }
        promises
    }

    /// Holds an answer to what is promised for it.
    pub(crate) fn check(&self, method: &str, path: &str, response: &Response) {
        let what = format!("{method} {path}: {response:?}");
        let (_, item) = self.paths().find(|(known, _)| *known == path).expect("a path");
        let promised = &item[method.to_lowercase()]["responses"][response.status.to_string()];
        assert!(!promised.is_null(), "not in the document: {what}");
        let promised = self.resolve(promised);
        let headers = promised["headers"].as_object().into_iter().flatten();
        for (name, header) in headers {
            let header = self.resolve(header);
            match response.headers.get(&name.to_lowercase()) {
                Some(value) => self.validate(&header["schema"], &json!(value), &format!("{name} of {what}")),
                None => assert_ne!(header["required"], json!(true), "{name} is missing: {what}"),
            }
        }
        let Some(content) = promised["content"].as_object() else {
            assert!(response.body.is_empty(), "{what}");
            return;
        };
        let kind = response.header("content-type").split(';').next().expect("a type");
        let schema = &content.get(kind).unwrap_or_else(|| panic!("content-type of {what}"))["schema"];
        let value = if kind.ends_with("json") { response.json() } else { json!(response.text()) };
        self.validate(schema, &value, &what);
        if response.status >= 400 {
            let status = &value["status"];
            assert_eq!(*status, json!(response.status), "{what}");
            // What the members of an `allOf` say together.
            let known = self.0["components"]["schemas"]["Problem"]["properties"].as_object().expect("members");
            assert!(value.as_object().expect("an object").keys().all(|name| known.contains_key(name)), "{what}");
        }
    }

    /// As much of JSON Schema (2020-12) as the document uses. A word that this does not know is an error, so that none stands there
    /// unchecked.
    fn validate(&self, schema: &Value, value: &Value, what: &str) {
        let schema = self.resolve(schema).as_object().expect("a schema");
        let count = |n: usize| n as u64;
        for (word, says) in schema {
            let holds = match word.as_str() {
                "description" | "format" => true,
                "type" => {
                    let is = |kind: &str| match kind {
                        "object" => value.is_object(),
                        "array" => value.is_array(),
                        "string" => value.is_string(),
                        "boolean" => value.is_boolean(),
                        "null" => value.is_null(),
                        "integer" => value.is_u64() || value.is_i64(),
                        other => panic!("type {other}"),
                    };
                    match says {
                        Value::Array(kinds) => kinds.iter().any(|kind| is(kind.as_str().expect("a type"))),
                        kind => is(kind.as_str().expect("a type")),
                    }
                }
                "const" => value == says,
                "enum" => says.as_array().expect("a list").contains(value),
                "minimum" => value.as_u64() >= says.as_u64(),
                "maximum" => value.as_u64() <= says.as_u64(),
                "maxLength" => value.as_str().is_none_or(|text| Some(count(text.len())) <= says.as_u64()),
                "maxItems" => value.as_array().is_none_or(|items| Some(count(items.len())) <= says.as_u64()),
                "maxProperties" => value.as_object().is_none_or(|members| Some(count(members.len())) <= says.as_u64()),
                "pattern" => value.as_str().is_none_or(|text| matches(says.as_str().expect("a pattern"), text)),
                "required" => {
                    let names = says.as_array().expect("names");
                    names.iter().all(|name| value.get(name.as_str().expect("a name")).is_some())
                }
                "dependentRequired" => {
                    let rules = says.as_object().expect("names");
                    let due = rules.iter().filter(|(name, _)| value.get(name.as_str()).is_some());
                    let mut names = due.flat_map(|(_, names)| names.as_array().expect("names"));
                    names.all(|name| value.get(name.as_str().expect("a name")).is_some())
                }
                "additionalProperties" => {
                    assert_eq!(*says, json!(false));
                    let known = schema["properties"].as_object().expect("properties");
                    value.as_object().is_none_or(|members| members.keys().all(|name| known.contains_key(name)))
                }
                "properties" => {
                    for (name, schema) in says.as_object().expect("schemas") {
                        if let Some(member) = value.get(name) {
                            self.validate(schema, member, &format!("{name} of {what}"));
                        }
                    }
                    true
                }
                "items" => {
                    value.as_array().into_iter().flatten().for_each(|item| self.validate(says, item, what));
                    true
                }
                "allOf" => {
                    says.as_array().expect("schemas").iter().for_each(|schema| self.validate(schema, value, what));
                    true
                }
                other => panic!("a word of JSON Schema that nothing checks: {other}"),
            };
            assert!(holds, "{word}: {says} does not hold for {value}\n{what}");
        }
    }
}

/// Regular expressions, as far as the document has them: `^`, `$`, characters, sets, groups of alternatives, `{n}`, `{n,m}`, `*`, `+`.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let pattern =
        pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix('$').or(Some(rest))).expect("from the start");
    run(pattern, text).contains(&"")
}

/// All that may be left of a text once the pattern has had its part.
fn run<'t>(pattern: &str, text: &'t str) -> BTreeSet<&'t str> {
    if pattern.is_empty() {
        return [text].into();
    }
    let (atom, rest): (&str, &str) = match pattern.as_bytes()[0] {
        b'[' => pattern.split_at(pattern.find(']').expect("an end") + 1),
        b'(' => pattern.split_at(pattern.find(')').expect("an end") + 1),
        b'\\' => pattern.split_at(2),
        _ => pattern.split_at(1),
    };
    let one = |text: &'t str| -> BTreeSet<&'t str> {
        if let Some(group) = atom.strip_prefix('(') {
            return group.trim_end_matches(')').split('|').flat_map(|pattern| run(pattern, text)).collect();
        }
        let Some(c) = text.chars().next() else { return BTreeSet::new() };
        let is = match atom.strip_prefix('[').and_then(|set| set.strip_suffix(']')) {
            Some(set) => {
                let set: Vec<char> = set.chars().collect();
                let ranges =
                    set.windows(3).filter(|range| range[1] == '-').any(|range| (range[0]..=range[2]).contains(&c));
                ranges || set.contains(&c) && (c != '-' || set.last() == Some(&'-'))
            }
            None => atom.trim_start_matches('\\') == c.to_string(),
        };
        if is { [&text[c.len_utf8()..]].into() } else { BTreeSet::new() }
    };
    let (least, most, rest) = match rest.as_bytes().first() {
        Some(b'*') => (0, 1000, &rest[1..]),
        Some(b'+') => (1, 1000, &rest[1..]),
        Some(b'{') => {
            let (counts, rest) = rest[1..].split_once('}').expect("an end");
            let (least, most) = counts.split_once(',').unwrap_or((counts, counts));
            (least.parse().expect("a number"), most.parse().expect("a number"), rest)
        }
        _ => (1, 1, rest),
    };
    let mut ends: BTreeSet<&str> = [text].into();
    let mut all = BTreeSet::new();
    for n in 0..=most {
        if n >= least {
            all.extend(ends.iter().copied());
        }
        if ends.is_empty() {
            break;
        }
        ends = ends.into_iter().flat_map(one).collect();
    }
    all.into_iter().flat_map(|left| run(rest, left)).collect()
}

#[test]
fn patterns_are_read_as_they_are_meant() {
    let key = "^fh_[0-9a-f]{16}_[A-Za-z0-9]{16,44}$";
    assert!(matches(key, &format!("fh_00000000000000c8_{}", "a".repeat(16))));
    assert!(!matches(key, &format!("fh_00000000000000c8_{}", "a".repeat(15))));
    assert!(!matches(key, &format!("fh_00000000000000c8_{}", "a".repeat(45))));
    assert!(matches("^([A-Z]{2}|--)$", "--") && matches("^([A-Z]{2}|--)$", "EU") && !matches("^([A-Z]{2}|--)$", "eu"));
    assert!(matches("^[a-z0-9-]+$", "a-1") && !matches("^[a-z0-9]+$", "a-1") && !matches("^[a-z]+$", ""));
    assert!(matches("^a\\.b$", "a.b") && !matches("^a\\.b$", "axb"));
}

/// What is asked, and of whom.
struct Asked<'a> {
    document: &'a Document,
    seen: BTreeSet<(String, String, u16)>,
}

impl Asked<'_> {
    /// One answer, held to the document and to what was expected.
    fn answer(&mut self, method: &str, path: &str, status: u16, response: &Response) {
        assert_eq!(response.status, status, "{method} {path}: {}", response.text());
        self.document.check(method, path, response);
        self.seen.insert((method.to_owned(), path.to_owned(), status));
    }
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

/// A body that does not come.
fn stall(address: SocketAddr, path: &str) -> thread::JoinHandle<Response> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 500\r\n\r\nF");
    thread::spawn(move || {
        let mut stream = TcpStream::connect(address).expect("connects");
        stream.write_all(head.as_bytes()).expect("sent");
        stream.set_read_timeout(Some(LONG)).expect("a timeout");
        read_response(&mut std::io::BufReader::new(stream), true).expect("an answer")
    })
}

fn large_head(address: SocketAddr, method: &str, path: &str) -> Response {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{}\r\n", "X-Filler: 0123456789\r\n".repeat(1000));
    Client::new(address).raw(head.as_bytes()).expect("an answer")
}

#[test]
fn every_path_method_and_status_is_as_documented() {
    let document = Document::read();
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--region", "EU", "--origin", "https://shop.example"]);
    let busy = folder.tenant("busy", &["--region", "EU"]);
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    let busy_token = Edge::enrol(&folder, "busy", "zurich", "EU");
    let path = busy.folder.join("tenant.toml");
    let text = fs::read_to_string(&path).expect("there");
    fs::write(&path, format!("{text}\n[limits]\nevents = 1\nburst = '1ms'\n")).expect("written");
    let sdk = sdk();
    let dist = sdk.path().to_str().expect("a path");
    let server = folder.serve_with(&["--body-timeout", "400ms", "--sdk", dist]);
    // Another one has no room on its disk.
    let full_folder = Folder::new();
    let full_tenant = full_folder.tenant("shop", &["--region", "EU"]);
    let full = full_folder.serve_with(&["--disk-reserve", "1000000GiB"]);
    let mut asked = Asked { document: &document, seen: BTreeSet::new() };
    frames(&mut asked, &server, &tenant, &busy, &full);
    envelopes(&mut asked, &server, [&tenant, &busy], [&token, &busy_token], &full);
    segment(&mut asked, &server, &tenant, &busy, (&full, &full_tenant));
    for (method, path, status, address) in [
        ("GET", "/livez", 200, server.public),
        ("GET", "/startupz", 200, server.public),
        ("GET", "/readyz", 200, server.public),
        ("GET", "/readyz", 200, server.internal),
        ("GET", "/readyz", 503, full.public),
        ("GET", "/metrics", 200, server.internal),
    ] {
        asked.answer(method, path, status, &Client::new(address).get(path));
    }
    for (token, status) in [(&token[..], 200), (&token[1..], 401)] {
        asked.answer("POST", "/v1/leases", status, &Edge::leases(&server, token));
        asked.answer("POST", "/v1/leases", status, &Edge::told(&server, token));
    }
    folder.ok(&["region-key", "new", "--tenant", "shop"]);
    let at = |tenant: &Tenant| format!("/v1/region-keys/{}", tenant.id);
    let mut list = server.client().get(&at(&tenant));
    until("the server has looked at the files", || {
        list = server.client().get(&at(&tenant));
        list.status == 200
    });
    let known = [("If-None-Match", list.header("etag"))];
    let unchanged = server.client().request("GET", &at(&tenant), &known, b"");
    for (status, response) in [(200, &list), (304, &unchanged), (404, &server.client().get(&at(&busy)))] {
        asked.answer("GET", "/v1/region-keys/{tenant}", status, response);
    }
    let listing = "/sdk/integrity.json";
    let list = server.client().get(listing);
    let known = [("If-None-Match", list.header("etag"))];
    let unchanged = server.client().request("GET", listing, &known, b"");
    for (status, response) in [(200, &list), (304, &unchanged), (404, &full.client().get(listing))] {
        asked.answer("GET", listing, status, response);
    }
    for (method, path, status) in document.promises() {
        if status == 431 {
            let address = if ["/metrics", "/v1/leases"].contains(&&*path) { server.internal } else { server.public };
            asked.answer(&method, &path, 431, &large_head(address, &method, &path));
        }
        if status == 408 {
            assert!(method == "POST");
        }
    }
    let stalled = document.promises().into_iter().filter(|(.., status)| *status == 408);
    let stalled: Vec<_> = stalled.map(|(_, path, _)| (stall(server.public, &path), path)).collect();
    for (response, path) in stalled {
        asked.answer("POST", &path, 408, &response.join().expect("an answer"));
    }
    assert_eq!(asked.seen, document.promises(), "what was answered, and what the document promises");
}

fn frames(asked: &mut Asked<'_>, server: &Server, tenant: &Tenant, busy: &Tenant, full: &Server) {
    let mut client = server.client();
    let mut page = Page::new(tenant);
    let first = page.frame(1);
    let crossed = |at: usize, to: &[u8]| {
        let mut frame = first.clone();
        frame[at..at + to.len()].copy_from_slice(to);
        frame[80..84].fill(0);
        let crc = firsthop_core::crc32(&[&frame[..]]);
        frame[80..84].copy_from_slice(&crc.to_le_bytes());
        frame
    };
    let mut ask = |status: u16, response: Response| asked.answer("POST", "/v1/f", status, &response);
    let response = client.frame(&first);
    page.session = response.receipt().session;
    ask(200, response);
    ask(200, client.frame(&page.frame(3)));
    ask(200, client.frame(&first));
    ask(400, client.frame(b"FHOP"));
    ask(400, client.frame(&first[..first.len() - 1]));
    let stranger = Page { key: format!("fh_{}_{}", tenant.id, "a".repeat(22)), ..Page::new(tenant) };
    ask(401, client.frame(&stranger.clone().frame(1)));
    ask(403, client.request("POST", "/v1/f", &[("Origin", "https://evil.example")], &first));
    ask(413, client.frame(&vec![b'x'; 600_000]));
    ask(415, client.request("POST", "/v1/f", &[("Content-Encoding", "gzip")], &first));
    ask(421, client.frame(&crossed(40, b"US")));
    // Sealed to a key that nobody has.
    let key = firsthop_core::RegionSecretKey::new(firsthop_core::RegionKeyId::new(9), [9; 32]).public();
    let mut closed = Page { sealed_to: Some(("EU".parse().expect("a region"), key)), ..Page::new(tenant) };
    ask(501, client.frame(&closed.frame(1)));
    let mut busy = Page::new(busy);
    client.frame(&busy.frame(60)).receipt();
    ask(429, client.frame(&busy.frame(1)));
    ask(503, full.client().frame(&first));
    let preflight = client.request("OPTIONS", "/v1/f", &[("Origin", "https://shop.example")], b"");
    asked.answer("OPTIONS", "/v1/f", 204, &preflight);
}

fn envelopes(asked: &mut Asked<'_>, server: &Server, tenants: [&Tenant; 2], tokens: [&str; 2], full: &Server) {
    let mut client = server.client();
    let mut edge = Edge::new(server, tokens[0]);
    let mut busy = Edge::new(server, tokens[1]);
    let mut page = Page::new(tenants[0]);
    let frame = page.frame(2);
    let (sealed, _) = edge.forward(&frame);
    let mut ask = |status: u16, client: &mut Client, bytes: &[u8]| {
        asked.answer("POST", "/v1/e", status, &client.request("POST", "/v1/e", &[], bytes));
    };
    ask(200, &mut client, &sealed);
    ask(400, &mut client, &frame);
    let mut forged = sealed.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    ask(401, &mut client, &forged);
    ask(413, &mut client, &vec![b'x'; 600_000]);
    let packed = Client::new(server.public).request("POST", "/v1/e", &[("Content-Encoding", "gzip")], &sealed);
    asked.answer("POST", "/v1/e", 415, &packed);
    let mut ask = |status: u16, client: &mut Client, bytes: &[u8]| {
        asked.answer("POST", "/v1/e", status, &client.request("POST", "/v1/e", &[], bytes));
    };
    // An edge that says it vouches for what it should not have let in.
    let vouch = firsthop_core::Annotation {
        received_ms: crate::common::now().as_millis(),
        trust: firsthop_core::Trust::WriteKey,
        ..firsthop_core::Annotation::default()
    };
    let mut change = |at: usize, to: &[u8]| {
        let mut frame = frame.clone();
        frame[at..at + to.len()].copy_from_slice(to);
        frame[80..84].fill(0);
        let crc = firsthop_core::crc32(&[&frame[..]]);
        frame[80..84].copy_from_slice(&crc.to_le_bytes());
        edge.seal(&vouch, &frame, 2)
    };
    let elsewhere = change(40, b"US");
    let key = firsthop_core::RegionSecretKey::new(firsthop_core::RegionKeyId::new(9), [9; 32]).public();
    let mut closed = Page { sealed_to: Some(("EU".parse().expect("a region"), key)), ..Page::new(tenants[0]) };
    let closed = edge.seal(&vouch, &closed.frame(2), 2);
    ask(421, &mut client, &elsewhere);
    ask(501, &mut client, &closed);
    let mut page = Page::new(tenants[1]);
    // Its frames have used up its share already.
    let (late, _) = busy.forward(&page.frame(1));
    ask(429, &mut client, &late);
    ask(503, &mut full.client(), &sealed);
}

fn segment(asked: &mut Asked<'_>, server: &Server, tenant: &Tenant, busy: &Tenant, full: (&Server, &Tenant)) {
    let mut client = server.client();
    let event = json!({ "event": "x", "groupId": "g", "previousId": "p", "userId": "u" }).to_string();
    let batch = json!({ "batch": [{ "type": "track", "event": "x" }, { "type": "none" }] }).to_string();
    let paths: Vec<String> = asked.document.paths().map(|(path, _)| path.clone()).collect();
    for path in paths.iter().filter(|path| asked.document.promises().contains(&("POST".into(), path.to_string(), 415)))
    {
        if ["/v1/f", "/v1/e"].contains(&&**path) {
            continue;
        }
        let good = if ["/v1/batch", "/v1/b"].contains(&&**path) { &batch } else { &event };
        let key = bearer(&tenant.key);
        let mut ask = |status: u16, client: &mut Client, headers: &[(&str, &str)], body: &str| {
            asked.answer("POST", path, status, &client.request("POST", path, headers, body.as_bytes()));
        };
        ask(200, &mut client, &[("Authorization", &key)], good);
        ask(400, &mut client, &[("Authorization", &key)], "{");
        ask(401, &mut client, &[("Authorization", &format!("{key}x"))], good);
        ask(403, &mut client, &[("Authorization", &key), ("Origin", "https://evil.example")], good);
        ask(413, &mut client, &[("Authorization", &key)], &" ".repeat(512_001));
        ask(415, &mut client, &[("Authorization", &key), ("Content-Type", "text/html")], good);
        let late = format!("Basic {}", base64(format!("{}:", busy.key).as_bytes()));
        client.request("POST", path, &[("Authorization", &late)], good.as_bytes());
        ask(429, &mut client, &[("Authorization", &late)], good);
        ask(503, &mut full.0.client(), &[("Authorization", &bearer(&full.1.key))], good);
        let preflight = client.request("OPTIONS", path, &[("Origin", "https://shop.example")], b"");
        asked.answer("OPTIONS", path, 204, &preflight);
    }
}
