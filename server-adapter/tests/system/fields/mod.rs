//! Every field of every endpoint: what is just within its bound is taken, what is one step outside is refused, as the documents say it.
//!
//! One table, asked of a running server. It has a row for each field that there is: each operation of `docs/openapi.json`, each member of what it
//! takes, each header that decides on something, each field of `docs/wire-format.md`. What is new there and has no row fails the test. Status,
//! `retryable` and `Retry-After` of a refusal are those of the table in `docs/http-api.md`, and the counter of its code moves by one and no other.

mod bytes;
mod edge;
mod frame;
mod head;
mod message;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::{Value, json};

use crate::{
    common::{Client, Folder, Response, Server, Tenant, sdk, until},
    edges::Edge,
    openapi::{Document, matches},
};

/// What comes of a request.
#[derive(Clone, Debug)]
enum Expect {
    /// It is taken, with this status.
    Taken(u16),
    /// It is refused with this code: where it stands for what is within a bound, by another check than that bound's.
    Refused(&'static str),
    /// The same, and its detail has these words, since another bound has the same code.
    RefusedAs(&'static str, &'static str),
    /// It is answered with 200, and one message of it is set aside for this reason.
    Aside(&'static str),
    /// The same of what an edge has refused: its sender is told that it was taken.
    AsideBefore(&'static str),
    /// It is taken, and the events table has one event of which this holds.
    Stored(String),
}
use Expect::{Aside, AsideBefore, Refused, RefusedAs, Stored, Taken};

/// One field of one endpoint.
struct Row {
    /// Method and path, as the OpenAPI document has them.
    endpoint: (&'static str, String),
    field: String,
    inside: (Vec<u8>, Expect),
    outside: (Vec<u8>, Expect),
    /// Words of `http-api.md` or `wire-format.md` that state the bound.
    said: &'static str,
    /// The word of JSON Schema that states it, and its value.
    schema: Option<(&'static str, Value)>,
}

impl Row {
    fn new(endpoint: (&'static str, &str), field: impl Into<String>, said: &'static str) -> Self {
        let nothing = || (Vec::new(), Taken(200));
        let endpoint = (endpoint.0, endpoint.1.to_owned());
        Self { endpoint, field: field.into(), inside: nothing(), outside: nothing(), said, schema: None }
    }

    fn within(self, request: Vec<u8>, expect: Expect) -> Self {
        Self { inside: (request, expect), ..self }
    }

    fn beyond(self, request: Vec<u8>, expect: Expect) -> Self {
        Self { outside: (request, expect), ..self }
    }

    fn schema(self, word: &'static str, value: impl Into<Value>) -> Self {
        Self { schema: Some((word, value.into())), ..self }
    }
}

/// A request, with the length of its body.
fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let bodiless = ["GET", "OPTIONS"].contains(&method) && body.is_empty();
    if !bodiless && !headers.iter().any(|(name, _)| ["Content-Length", "Transfer-Encoding"].contains(name)) {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// Whom the rows are asked of.
struct World {
    server: Server,
    tenant: Tenant,
    token: String,
    edge: Edge,
    document: Document,
}

impl World {
    /// The client of a row: a peer of its own, so that the many that forge are not taken for one.
    fn client(&self, path: &str, row: usize) -> Client {
        let internal = ["/metrics", "/v1/leases"].contains(&path);
        let address = if internal { self.server.internal } else { self.server.public };
        Client::from(2 + (row % 200) as u8, address)
    }

    /// All that is counted as refused, and as set aside.
    fn counted(&self) -> BTreeMap<String, f64> {
        let page = self.server.internal_get("/metrics").text();
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            let code = if let Some(labels) = name.strip_prefix("firsthop_refused_total") {
                labels.split('"').nth(1)?.to_owned()
            } else if name.starts_with("firsthop_events_total{") && name.contains("outcome=\"quarantined\"") {
                format!("aside: {}", name.split("reason=\"").nth(1)?.split('"').next()?)
            } else {
                return None;
            };
            Some((code, value.parse::<f64>().ok()?))
        };
        let mut counted = BTreeMap::new();
        for (code, value) in page.lines().filter_map(sample) {
            *counted.entry(code).or_default() += value;
        }
        counted
    }
}

/// The table of refusals: code → status, whether to send it again, and whether it is kept at all.
fn refusals(api: &str) -> BTreeMap<String, (u16, bool, bool)> {
    let row = |line: &str| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, code, status, again, kept, ..] = cells[..] else { return None };
        let code = code.strip_prefix('`')?.strip_suffix('`')?;
        Some((code.to_owned(), (status.parse().ok()?, again == "yes", kept != "no")))
    };
    api.lines().filter_map(row).collect()
}

fn read(name: &str) -> String {
    let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_field_of_every_endpoint_is_bounded() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--region", "EU", "--origin", "https://shop.example"]);
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    folder.ok(&["region-key", "new", "--tenant", "shop"]);
    let sdk = sdk();
    let server = folder.serve_with(&["--sdk", sdk.path().to_str().expect("a path")]);
    let edge = Edge::new(&server, &token);
    let mut world = World { server, tenant, token, edge, document: Document::read() };
    // First, what is made for this very hour.
    let mut rows = frame::rows(&mut world);
    rows.extend(edge::rows(&mut world));
    rows.extend(head::rows(&world));
    rows.extend(message::rows(&world));
    let (api, wire) = (read("http-api.md"), read("wire-format.md"));
    nothing_is_missing(&rows, &world.document, &wire);
    schemas_state_the_bounds(&rows, &world.document);

    let refusals = refusals(&api);
    // Lines are broken where they are long.
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = flat(&api) + &flat(&wire);
    let (mut wrong, mut stored) = (Vec::new(), Vec::new());
    for (place, row) in rows.iter().enumerate() {
        if row.said.is_empty() || !said.contains(row.said) {
            wrong.push(format!("{:?} {}: no document says {:?}", row.endpoint, row.field, row.said));
        }
        for (side, (bytes, expect)) in [("inside", &row.inside), ("outside", &row.outside)] {
            let what = format!("{} {} · {} · {side}", row.endpoint.0, row.endpoint.1, row.field);
            let before = world.counted();
            let response = world.client(&row.endpoint.1, place).raw(bytes);
            let response = response.unwrap_or_else(|error| panic!("{what}: {error}"));
            let after = world.counted();
            let moved: Vec<_> = after
                .iter()
                .filter_map(|(code, now)| {
                    let by = now - before.get(code).copied().unwrap_or(0.0);
                    (by != 0.0).then_some((code.as_str(), by))
                })
                .collect();
            if let Err(why) = judge(expect, &response, &moved, &refusals) {
                wrong.push(format!("{what}: {why}"));
            }
            // What holds for every path stands once in the document, and not at each.
            let elsewhere = ["not-found", "method-not-allowed", "malformed-head"];
            if !matches!(expect, Refused(code) if elsewhere.contains(code)) {
                world.document.check(row.endpoint.0, &row.endpoint.1, &response);
            }
            if let Stored(holds) = expect {
                stored.push((what, holds.clone()));
            }
        }
    }
    until("the events table has what was taken", || {
        let frames = |sql| world.tenant.journal(sql);
        world.tenant.events("SELECT frame FROM firsthop_cursor") >= frames("SELECT COALESCE(MAX(id), 0) FROM frames")
    });
    for (what, holds) in stored {
        if world.tenant.events(&format!("SELECT COUNT(*) FROM events WHERE {holds}")) != 1 {
            wrong.push(format!("{what}: not stored as {holds}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    world.server.stop();
    assert!(!world.server.log().contains("panicked"), "{}", world.server.log());
    folder.ok(&["verify"]);
    println!("{} fields", rows.len());
}

/// Whether an answer, and what moved in the counters, is what was expected and what the table of refusals says of it.
fn judge(
    expect: &Expect,
    response: &Response,
    moved: &[(&str, f64)],
    refusals: &BTreeMap<String, (u16, bool, bool)>,
) -> Result<(), String> {
    let is = |holds: bool, what: &str| {
        if holds { Ok(()) } else { Err(format!("{what}: {} {} {moved:?}", response.status, response.text())) }
    };
    let refused: Vec<_> = moved.iter().filter(|(code, _)| !code.starts_with("aside: ")).collect();
    let (code, detail) = match expect {
        Taken(status) => {
            is(response.status == *status, "another status")?;
            return is(moved.is_empty(), "counted as refused, or set aside");
        }
        Stored(_) => {
            is(response.status == 200, "not taken")?;
            return is(moved.is_empty(), "counted as refused");
        }
        Aside(code) => {
            is(response.status == 200, "not taken")?;
            is(response.verdict().ends_with("quarantined=1"), "not set aside")?;
            return is(moved == [(format!("aside: {code}").as_str(), 1.0)], "another counter");
        }
        AsideBefore(code) => {
            is(response.status == 200, "not taken")?;
            return is(moved == [(format!("aside: {code}").as_str(), 1.0)], "another counter");
        }
        Refused(code) => (*code, ""),
        RefusedAs(code, detail) => (*code, *detail),
    };
    let &(status, again, kept) = refusals.get(code).ok_or("a code that no document has")?;
    is(response.status == status, "another status than the table's")?;
    is(response.code() == code, "another problem")?;
    let problem = response.json();
    is(problem["retryable"] == json!(again), "retryable is not what the table says")?;
    is(response.header("retry-after").is_empty() != [429, 503].contains(&status), "Retry-After")?;
    is(problem["detail"].as_str().unwrap_or_default().contains(detail), "another detail")?;
    is(kept || response.verdict().is_empty(), "kept, which the table denies")?;
    is(refused == [&(code, 1.0)], "another counter")
}

/// Whatever the documents have has a row.
fn nothing_is_missing(rows: &[Row], document: &Document, wire: &str) {
    let known: BTreeSet<(String, &str)> =
        rows.iter().map(|row| (format!("{} {}", row.endpoint.0, row.endpoint.1), row.field.as_str())).collect();
    let mut missing = Vec::new();
    let mut need = |endpoint: &str, field: &str| {
        if !known.contains(&(endpoint.to_owned(), field)) {
            missing.push(format!("{endpoint}: {field}"));
        }
    };
    for (path, item) in document.paths() {
        for (method, operation) in item.as_object().expect("operations").iter().filter(|(name, _)| *name != "servers") {
            let endpoint = format!("{} {path}", method.to_uppercase());
            head::ALL.iter().for_each(|field| need(&endpoint, field));
            if method == "post" {
                head::OF_POST.iter().for_each(|field| need(&endpoint, field));
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let (place, name) = (&parameter["in"], parameter["name"].as_str().expect("a name"));
                need(&endpoint, &format!("{} {}", place.as_str().expect("where"), name.to_lowercase()));
            }
            let content = operation["requestBody"]["content"].as_object();
            if content.is_some() {
                let headers = firsthop_intake::Facts::HEADERS;
                headers.iter().for_each(|name| need(&endpoint, &format!("header {name}")));
            }
            for (_, content) in content.into_iter().flatten() {
                members(document, &content["schema"], &mut |name, _| need(&endpoint, name));
            }
        }
    }
    for (of, field) in wire::fields(wire) {
        let name = format!("{of}.{field}");
        let endpoint =
            if ["annotation", "notes"].contains(&of) || name == "extensions.hop" || name == "extensions.notes" {
                "POST /v1/e"
            } else {
                "POST /v1/f"
            };
        need(endpoint, &name);
    }
    assert!(missing.is_empty(), "without a row:\n{}", missing.join("\n"));
}

/// Each member of a schema: `Message.event`, and what is said of it.
fn members<'a>(document: &'a Document, schema: &'a Value, each: &mut impl FnMut(&str, &'a Value)) {
    let of = schema["$ref"].as_str().and_then(|at| at.rsplit('/').next()).unwrap_or_default();
    let resolved = document.resolve(schema);
    for (name, member) in resolved["properties"].as_object().into_iter().flatten() {
        each(&format!("{of}.{name}"), member);
        members(document, member, each);
    }
    if !resolved["items"].is_null() {
        members(document, &resolved["items"], each);
    }
    resolved["allOf"].as_array().into_iter().flatten().for_each(|part| members(document, part, each));
}

/// What a schema says of a field's size is what its rows say, and where a row has a word for it the schema has it too.
fn schemas_state_the_bounds(rows: &[Row], document: &Document) {
    const WORDS: [&str; 8] =
        ["maxLength", "maxItems", "maxProperties", "minimum", "maximum", "pattern", "enum", "const"];
    let mut schemas: BTreeMap<String, &Value> = BTreeMap::new();
    for name in ["Message", "Batch"] {
        let top = &document.0["components"]["schemas"][name];
        for (member, schema) in top["properties"].as_object().expect("members") {
            schemas.insert(format!("{name}.{member}"), document.resolve(schema));
        }
    }
    let context = &document.0["components"]["schemas"]["Context"]["properties"];
    for (member, schema) in context.as_object().expect("members") {
        schemas.insert(format!("Context.{member}"), document.resolve(schema));
    }
    for (path, item) in document.paths() {
        for (method, operation) in item.as_object().expect("operations").iter().filter(|(name, _)| *name != "servers") {
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().expect("a name").to_lowercase();
                let place = parameter["in"].as_str().expect("where");
                schemas.insert(format!("{} {path} {place} {name}", method.to_uppercase()), &parameter["schema"]);
            }
            let binary = &operation["requestBody"]["content"]["application/octet-stream"]["schema"];
            if !binary.is_null() {
                schemas.insert(format!("{} {path} body", method.to_uppercase()), binary);
            }
        }
    }
    let of = |row: &Row| {
        let own = format!("{} {} {}", row.endpoint.0, row.endpoint.1, row.field);
        if schemas.contains_key(&own) { own } else { row.field.clone() }
    };
    let mut wrong = Vec::new();
    for (name, schema) in &schemas {
        let rows: Vec<_> = rows.iter().filter(|row| of(row) == *name).filter_map(|row| row.schema.as_ref()).collect();
        for word in WORDS.iter().filter(|word| !schema[**word].is_null()) {
            // A pattern is asked, since a row has no other.
            let shown = rows.iter().any(|(said, value)| {
                said == word && (value == &schema[*word] || *word == "pattern" && shows(&schema[*word], value))
            });
            if !shown {
                wrong.push(format!("{name}: {word} {} is shown by no row", schema[*word]));
            }
        }
        for (word, value) in rows {
            if schema[*word].is_null() {
                wrong.push(format!("{name}: {word} is {value}, and the document does not say so"));
            }
        }
        // Whatever has no bound of its own says within what it is.
        let has_own = WORDS.iter().any(|word| !schema[*word].is_null()) || !schema["properties"].is_null();
        let within = schema["description"].as_str().is_some_and(|text| text.contains("ithin the"));
        if !has_own && !within {
            wrong.push(format!("{name}: neither a bound nor what it is within"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a pattern takes the first text of a row, and not the second.
fn shows(pattern: &Value, texts: &Value) -> bool {
    let (pattern, text) = (pattern.as_str().expect("a pattern"), |at: usize| texts[at].as_str().expect("a text"));
    matches(pattern, text(0)) && !matches(pattern, text(1))
}
