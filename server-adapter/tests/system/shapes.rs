//! The shape of events: seen soon after they came, with names and types and no values.

use serde_json::Value as Json;

use crate::common::{Folder, Page, Server, Tenant, served, until};

/// What `firsthop schema --json` says of a name, once so many events of it were looked at.
fn schema(folder: &Folder, name: &str, events: u64) -> Json {
    let mut json = Json::Null;
    until(&format!("{events} events of {name:?} are looked at"), || {
        let said = folder.ok(&["schema", "--json", "--event", name]);
        json = said.lines().next().map(|line| serde_json::from_str(line).expect("JSON")).unwrap_or_default();
        json["seen"]["events"].as_u64() >= Some(events)
    });
    json
}

fn send(server: &Server, tenant: &Tenant, call: &str) {
    assert_eq!(server.client().segment("/v1/track", &tenant.key, call).status, 200, "{call}");
}

#[test]
fn a_change_of_type_is_seen_soon() {
    let (folder, mut server, tenant) = served();
    assert!(folder.ok(&["schema"]).contains("no events have been looked at yet"));
    let changes = format!("firsthop_schema_type_changes_total{{tenant=\"{}\"}}", tenant.id);
    send(
        &server,
        &tenant,
        r#"{"event":"Bought","userId":"ada","properties":{"price":18,"cart":{"items":[{"sku":"secret-1"}]}}}"#,
    );
    send(&server, &tenant, r#"{"event":"Bought","userId":"ada","properties":{"price":18.5}}"#);
    let said = schema(&folder, "Bought", 2);
    let properties = &said["properties"];
    assert_eq!(properties["price"]["integer"]["events"], 1);
    assert_eq!(properties["price"]["number"]["events"], 1);
    assert_eq!(properties["cart.items[].sku"]["string"]["events"], 1, "{said}");
    assert_eq!(server.metric(&changes), 0.0, "a price is a number");

    send(&server, &tenant, r#"{"event":"Bought","userId":"ada","properties":{"price":"18.99"}}"#);
    schema(&folder, "Bought", 3);
    until("it is counted", || server.metric(&changes) == 1.0);
    server.says("another type");
    let log = server.log();
    let line: Json = log
        .lines()
        .find(|line| line.contains("another type"))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .unwrap_or_else(|| panic!("no line in {log}"));
    assert!(
        !line.to_string().contains("Bought") && !line.to_string().contains("price"),
        "names may be a person's: {line}"
    );
    assert_eq!((line["before"].as_str(), line["now"].as_str()), (Some("integer number"), Some("string")), "{line}");
    assert!(!log.contains("18.99") && !log.contains("secret-1"), "no values: {log}");
    let text = folder.ok(&["schema"]);
    let differs = text.lines().filter(|line| line.trim_end().ends_with("differs")).count();
    assert_eq!(differs, 3, "{text}");

    // A restart goes on where it was: what was looked at counts once, what came meanwhile too. And a duplicate is no event.
    let mut page = Page::new(&tenant);
    let frame = page.frame(30);
    for _ in 0..3 {
        server.client().frame(&frame).receipt();
    }
    server.kill();
    let server = folder.serve();
    assert_eq!(schema(&folder, "Product Viewed", 30)["seen"]["events"], 30);
    server.client().frame(&page.frame(5)).receipt();
    assert_eq!(schema(&folder, "Product Viewed", 35)["properties"]["sku"]["string"]["events"], 35);
    assert_eq!(schema(&folder, "Bought", 3)["seen"]["events"], 3);
}
