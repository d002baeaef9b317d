//! The core's byte vectors through the server: what they say arrives in the table, what they refuse is refused by the
//! same name.

use std::path::Path;

use rusqlite::Connection;
use serde_json::{Map, Value as Json};

use crate::common::{Folder, base64};

fn vectors(name: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/vectors").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

fn bytes(hex: &Json) -> Vec<u8> {
    let hex = hex.as_str().expect("hex");
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex")).collect()
}

/// A folder with the tenant that the vectors are of.
fn folder_of_the_vectors(key: &str) -> Folder {
    let folder = Folder::new();
    let made = folder.tenant("vectors", &[]);
    let id = key.split('_').nth(1).expect("a tenant");
    let text = std::fs::read_to_string(made.folder.join("tenant.toml")).expect("there");
    let text = text.replace(&made.key, key).replace(&made.id.to_string(), id);
    std::fs::write(made.folder.join("tenant.toml"), text).expect("written");
    std::fs::rename(&made.folder, made.folder.with_file_name(id)).expect("renamed");
    folder
}

/// A value as the vectors write it, as the table has it.
fn value(vector: &Json) -> Json {
    let Json::Object(fields) = vector else { return vector.clone() };
    let (kind, inner) = fields.iter().next().expect("one field");
    let number = || inner.as_str().expect("digits").parse::<f64>().ok().filter(|number| number.is_finite());
    match kind.as_str() {
        "u64" => inner.as_str().expect("digits").parse::<u64>().expect("a number").into(),
        "i64" => inner.as_str().expect("digits").parse::<i64>().expect("a number").into(),
        "f64" => number().map_or(Json::Null, Json::from),
        "bytes" => base64(&bytes(inner)).into(),
        "list" => inner.as_array().expect("a list").iter().map(value).collect(),
        "map" => Json::Object(object(inner)),
        other => panic!("unknown value {other}"),
    }
}

fn object(entries: &Json) -> Map<String, Json> {
    let entries = entries.as_array().map(Vec::as_slice).unwrap_or_default();
    entries.iter().map(|entry| (entry[0].as_str().expect("a key").to_owned(), value(&entry[1]))).collect()
}

/// Every vector of a page that has no session yet: sent, stored, and read back from the table field by field.
#[test]
fn what_the_vectors_say_is_in_the_table() {
    let frames = vectors("frames.json");
    let write_key = |frame: &Json| {
        let extensions = frame["extensions"].as_array()?;
        let key = extensions.iter().find(|extension| extension["kind"] == 2)?;
        frame["header"]["alg"].as_u64().unwrap_or(0).eq(&0).then(|| String::from_utf8(bytes(&key["value"])).ok())?
    };
    let unsigned: Vec<_> = frames.iter().filter_map(|frame| Some((write_key(frame)?, frame))).collect();
    assert!(!unsigned.is_empty(), "no vector of a first frame");
    let folder = folder_of_the_vectors(&unsigned[0].0);
    let server = folder.serve();
    let tenant = folder.only_tenant();
    let mut client = server.client();
    for (key, frame) in unsigned {
        assert_eq!(key, tenant.key, "one tenant in all vectors");
        let events = frame["events"].as_array().expect("events");
        let receipt = client.frame(&bytes(&frame["hex"])).receipt();
        assert_eq!(receipt.stored as usize, events.len(), "{}", frame["description"]);
        tenant.settle();
        let table = Connection::open(tenant.folder.join("events.db")).expect("opens");
        for (seq, event) in (receipt.first..).zip(events) {
            let id = format!("{}/{seq}", receipt.source);
            let row = table.query_row(
                "SELECT kind, name, properties, anonymous_id, user_id, url, title, context FROM events WHERE event_id = ?",
                [&id],
                |row| {
                    let column = |i| row.get::<_, Option<String>>(i).map(|text| text.map_or(Json::Null, Json::from));
                    (0..8).map(column).collect::<Result<Vec<_>, _>>()
                },
            );
            let row = row.unwrap_or_else(|error| panic!("{id}: {error}"));
            let context = &frame["context"];
            let parsed = |i: usize| serde_json::from_str::<Json>(row[i].as_str().expect("text")).expect("JSON");
            assert_eq!((&row[0], &row[1]), (&event["kind"], &event["name"]));
            assert_eq!(parsed(2), Json::Object(object(&event["properties"])), "{id}");
            for (i, name) in [(3, "anonymous_id"), (4, "user_id"), (5, "url"), (6, "title")] {
                assert_eq!(row[i], context[name], "{id}: {name}");
            }
            for name in ["locale", "timezone", "screen"] {
                assert_eq!(parsed(7)[name], context[name], "{id}: {name}");
            }
        }
    }
    folder.ok(&["verify"]);
}

/// A vector that is sealed, opened with the key that it was made for.
#[test]
fn what_the_sealed_vectors_say_is_in_the_table() {
    let mut opened = 0;
    for vector in vectors("sealed.json") {
        let extensions = vector["extensions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(key) = extensions.iter().find(|extension| extension["kind"] == 2) else { continue };
        let folder = folder_of_the_vectors(&String::from_utf8(bytes(&key["value"])).expect("text"));
        let tenant = folder.only_tenant();
        let (region, key) = (vector["header"]["region"].as_str().expect("a region"), &vector["region_key"]);
        crate::sealed::region_key(&tenant, key["id"].as_u64().expect("a number"), region, &bytes(&key["secret"]));
        let server = folder.serve();
        let receipt = server.client().frame(&bytes(&vector["hex"])).receipt();
        tenant.settle();
        let names: Vec<_> = vector["events"].as_array().expect("events").iter().map(|event| &event["name"]).collect();
        assert_eq!(receipt.stored as usize, names.len());
        for (seq, name) in names.into_iter().enumerate() {
            let name = name.as_str().expect("a name");
            let sql =
                format!("SELECT COUNT(*) FROM events WHERE seq = {seq} AND name = '{name}' AND context LIKE '%de-CH%'");
            assert_eq!(tenant.events(&sql), 1, "{name}");
        }
        folder.ok(&["verify"]);
        opened += 1;
    }
    assert!(opened >= 1);
}

/// Every vector that is refused before anybody asks who it is from.
#[test]
fn what_the_vectors_refuse_is_refused_by_the_same_name() {
    let folder = Folder::new();
    let server = folder.serve();
    let mut client = server.client();
    let mut seen = 0;
    for refused in vectors("refused.json").iter().filter(|refused| refused["step"] == "parse") {
        let response = client.frame(&bytes(&refused["hex"]));
        assert_eq!(response.code(), refused["error"].as_str().expect("a code"), "{}", refused["description"]);
        seen += 1;
    }
    assert!(seen > 10, "{seen}");
}
