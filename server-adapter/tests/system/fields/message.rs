//! Segment's calls: the members of a message and of a batch.

use std::cell::Cell;

use firsthop_core::limits::{MAX_DEPTH, MAX_FOREIGN_ID, MAX_NAME, MAX_VALUES};
use firsthop_intake::segment::{self, MAX_BATCH, MAX_BODY, MAX_EVENT};
use serde_json::json;

use super::{Aside, Expect, Refused, RefusedAs, Row, Stored, Taken, World, request};

/// Long path, short path, and the member that is its event's name.
const CALLS: [(&str, &str, &str); 6] = [
    ("track", "t", "event"),
    ("identify", "i", ""),
    ("page", "p", "name"),
    ("screen", "s", "name"),
    ("group", "g", "groupId"),
    ("alias", "a", "previousId"),
];

const MESSAGE: &str = "one message at most 32,768 bytes of JSON and 32 levels deep";
const NAMES: &str = "names 512 bytes, `messageId` 256";
const DEEP: &str = "properties and context 8 levels and 1,024 values each";
const MEMBERS: &str = "2,048 members in a message, in its context, and in what messages share";
const SHARED: &str = "with what they share at most 2,048,000 bytes once that is written into each";

/// A message of a path, or a message in a batch.
struct Kind<'a> {
    path: String,
    kind: &'a str,
    name: &'a str,
    key: &'a str,
    in_batch: bool,
}

thread_local! {
    static COUNT: Cell<u32> = const { Cell::new(0) };
}

fn text(text: &str) -> String {
    json!(text).to_string()
}

/// An object of members as they stand.
fn object(members: &[(&str, String)]) -> String {
    let members: Vec<_> = members.iter().map(|(name, value)| format!("{}:{value}", text(name))).collect();
    format!("{{{}}}", members.join(","))
}

/// A good body of a path.
pub(super) fn good(world: &World, path: &str) -> String {
    let short = path.trim_start_matches("/v1/");
    let call = CALLS.iter().find(|(long, one, _)| [*long, one].contains(&short));
    let key = &world.tenant.key;
    match call {
        Some(&(kind, _, name)) => Kind { path: path.into(), kind, name, key, in_batch: false }.message(&[]),
        None => format!(r#"{{"writeKey":"{key}","batch":[{{"type":"page"}}]}}"#),
    }
}

impl Kind<'_> {
    /// What it needs, with these members in place of its own; each has an id of its own.
    fn message(&self, members: &[(&str, String)]) -> String {
        let id = COUNT.with(|count| count.replace(count.get() + 1));
        let mut all = vec![("messageId", text(&format!("m-{id:06}"))), ("userId", text(&format!("u-{id:06}")))];
        if !self.name.is_empty() {
            all.push((self.name, text("x")));
        }
        match self.in_batch {
            true => all.push(("type", text(self.kind))),
            false => all.push(("writeKey", text(self.key))),
        }
        all.retain(|(name, _)| members.iter().all(|(other, _)| other != name));
        all.extend_from_slice(members);
        all.retain(|(_, value)| !value.is_empty());
        object(&all)
    }

    /// A request with such a message.
    fn send(&self, message: &str) -> Vec<u8> {
        let basic = crate::common::base64(format!("{}:", self.key).as_bytes());
        let headers = [("Authorization", &*format!("Basic {basic}")), ("Content-Type", "application/json")];
        let body = if self.in_batch { format!(r#"{{"batch":[{message}]}}"#) } else { message.to_owned() };
        request("POST", &self.path, if self.in_batch { &headers } else { &headers[1..] }, body.as_bytes())
    }

    /// What is refused alone is set aside in a batch.
    fn refused(&self, code: &'static str) -> Expect {
        if self.in_batch { Aside(code) } else { Refused(code) }
    }

    fn row(&self, field: &str, said: &'static str, inside: &str, outside: &str, code: &'static str) -> Row {
        Row::new(("POST", &self.path), field, said)
            .within(self.send(inside), Taken(200))
            .beyond(self.send(outside), self.refused(code))
    }

    /// A field that has the rest of its message for itself: `make` gets a filler.
    fn rest(&self, field: &str, make: &dyn Fn(&str) -> Vec<(&'static str, String)>) -> Row {
        let filled = |length: usize| {
            let least = self.message(&make("")).len();
            self.message(&make(&"x".repeat(length - least)))
        };
        self.row(field, MESSAGE, &filled(MAX_EVENT), &filled(MAX_EVENT + 1), "json-too-large")
    }

    fn rows(&self, rows: &mut Vec<Row>) {
        let message = |name: &'static str, value: String| self.message(&[(name, value)]);
        // Texts that have a bound of their own, and the same where they mean nothing.
        for name in ["event", "name", "groupId", "previousId"] {
            let field = format!("Message.{name}");
            if name == self.name {
                let of = |length: usize| message(name, text(&"x".repeat(length)));
                let row = self.row(&field, NAMES, &of(MAX_NAME), &of(MAX_NAME + 1), "too-large");
                rows.push(row.schema("maxLength", MAX_NAME));
                // In bytes: a character may be two.
                let wide = |length: usize| message(name, text(&("é".repeat(length / 2) + &"x".repeat(length % 2))));
                rows.push(self.row(&field, NAMES, &wide(MAX_NAME), &wide(MAX_NAME + 1), "too-large"));
                if !["page", "screen"].contains(&self.kind) {
                    let said = "`track` needs `event`, `group` needs `groupId`, `alias` needs `previousId`";
                    rows.push(self.row(
                        &field,
                        said,
                        &message(name, "7".into()),
                        &message(name, text("")),
                        "malformed-json",
                    ));
                }
            } else {
                rows.push(self.rest(&field, &|filler| vec![(name, text(filler))]));
            }
        }
        let id = |length: usize| message("messageId", text(&format!("{:x<length$}", format!("{}-", COUNT.get()))));
        rows.push(
            self.row("Message.messageId", NAMES, &id(MAX_FOREIGN_ID), &id(MAX_FOREIGN_ID + 1), "too-large")
                .schema("maxLength", MAX_FOREIGN_ID),
        );
        for name in ["userId", "anonymousId", "timestamp", "originalTimestamp", "sentAt"] {
            rows.push(self.rest(&format!("Message.{name}"), &|filler| vec![(name, text(filler))]));
        }
        for name in ["userId", "anonymousId", "messageId"] {
            // One for each message: two of one id are one.
            let number = format!("7{}", COUNT.get());
            let said = "A number for an id or a name counts as its text";
            let row = self.row(
                &format!("Message.{name}"),
                said,
                &message(name, number),
                &message(name, "{}".into()),
                "malformed-json",
            );
            rows.push(row);
        }
        if self.in_batch {
            let said = "in a batch each message's `type`";
            let known = ["track", "identify", "page", "screen", "group", "alias"];
            rows.push(
                self.row("Message.type", said, &self.message(&[]), &message("type", text("Track")), "malformed-json")
                    .schema("enum", json!(known)),
            );
            let said = "so is a message, alone or of a batch, whose own `writeKey` is anything but that key";
            let key = message("writeKey", text(self.key));
            rows.push(self.row("Message.writeKey", said, &key, &message("writeKey", text("fh_x")), "wrong-write-key"));
        } else {
            // The path says it: whatever stands there is kept.
            rows.push(self.rest("Message.type", &|filler| vec![("type", text(filler))]));
            let longer = self.key.to_owned() + &"a".repeat(45 + 20 - self.key.len());
            let pattern = json!([self.key, longer]);
            rows.push(
                self.row(
                    "Message.writeKey",
                    "16 to 44 letters or digits",
                    &self.message(&[]),
                    &message("writeKey", text(&longer)),
                    "wrong-write-key",
                )
                .schema("pattern", pattern),
            );
            let pair = json!([self.key.to_owned() + &"a".repeat(64 - self.key.len()), longer]);
            assert_eq!(pair[0].as_str().map(str::len), Some(64));
            rows.push(
                self.row(
                    "Message.writeKey",
                    "16 to 44 letters or digits",
                    &self.message(&[]),
                    &message("writeKey", pair[1].to_string()),
                    "wrong-write-key",
                )
                .schema("maxLength", 64),
            );
        }
        self.rows_of_parts(rows);
        self.rows_of_context(rows);
    }

    /// Properties, traits and context: how many values, how deep, and that they are objects.
    fn rows_of_parts(&self, rows: &mut Vec<Row>) {
        let content = match self.kind {
            "identify" | "group" => "traits",
            "alias" => "",
            _ => "properties",
        };
        let wide = |count: usize| {
            let members: Vec<_> = (0..count).map(|n| format!("\"{n}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        let deep = |depth: usize| format!("{{\"a\":{}0{}}}", "[".repeat(depth), "]".repeat(depth));
        for name in ["properties", "traits", "context"] {
            let field = format!("Message.{name}");
            let part = |value: String| self.message(&[(name, value)]);
            // Where a message's kind has no use for one, it stands below `segment` in the context's.
            let (own, levels) = if [content, "context"].contains(&name) { (true, 0) } else { (false, 2) };
            let values = MAX_VALUES - levels;
            let row = self.row(&field, DEEP, &part(wide(values)), &part(wide(values + 1)), "too-large");
            rows.push(if own { row.schema("maxProperties", MAX_VALUES) } else { row });
            let depth = MAX_DEPTH - levels;
            rows.push(self.row(&field, DEEP, &part(deep(depth)), &part(deep(depth + 1)), "too-deep"));
            let least = segment::MAX_DEPTH - 2;
            let too_deep = self.row(&field, MESSAGE, &part(deep(least)), &part(deep(least + 1)), "json-too-deep");
            let inside = (too_deep.inside.0.clone(), self.refused("too-deep"));
            rows.push(Row { inside, ..too_deep });
            if own {
                rows.push(self.row(
                    &field,
                    "`null` and `[]` (PHP's empty array) count as an empty object",
                    &part("[]".into()),
                    &part("7".into()),
                    "malformed-json",
                ));
            }
            rows.push(self.rest(&field, &|filler| vec![(name, object(&[("a", text(filler))]))]));
        }
        // More members than could be stored are not looked at: both are refused, for two reasons.
        if !self.in_batch {
            let members: Vec<_> = (0..2100).map(|n| n.to_string()).collect();
            let many = |count: usize| {
                let own = if self.name.is_empty() { 3 } else { 4 };
                let more: Vec<_> = members[..count - own].iter().map(|name| (name.as_str(), "0".to_owned())).collect();
                self.send(&self.message(&more))
            };
            rows.push(
                Row::new(("POST", &self.path), "members of a message", MEMBERS)
                    .within(many(2048), Refused("too-large"))
                    .beyond(many(2049), RefusedAs("too-large", "more than 2048 members")),
            );
        }
    }

    fn rows_of_context(&self, rows: &mut Vec<Row>) {
        let context = |members: &[(&str, String)]| vec![("context", object(members))];
        for name in ["locale", "timezone", "userAgent", "ip", "library"] {
            rows.push(self.rest(&format!("Context.{name}"), &|filler| context(&[(name, text(filler))])));
        }
        for (of, members) in [
            ("page", &["url", "title", "referrer", "path"][..]),
            ("campaign", &["source", "medium", "name", "term", "content", "other"]),
            ("screen", &["density"]),
            ("consent", &["categoryPreferences"]),
        ] {
            for name in members {
                let make = |filler: &str| context(&[(of, object(&[(name, text(filler))]))]);
                rows.push(self.rest(&format!("Context.{of}"), &make));
            }
        }
        // What fits no field is kept beside the others.
        if self.in_batch {
            return;
        }
        let stored = |members: &[(&str, String)], holds: &str| {
            let id = COUNT.with(|count| count.replace(count.get() + 1));
            let id = format!("s-{id}");
            let message = self.message(&[("messageId", text(&id)), ("context", object(members))]);
            (self.send(&message), Stored(format!("foreign_id = '{id}' AND {holds}")))
        };
        let row = |field: &str, said, inside: (Vec<u8>, Expect), outside: (Vec<u8>, Expect)| Row {
            inside,
            outside,
            ..Row::new(("POST", &self.path), field, said)
        };
        let screen = |width: u64| vec![("screen", format!(r#"{{"width":{width},"height":1}}"#))];
        let most = u64::from(u32::MAX);
        rows.push(row(
            "Context.screen",
            "(sizes: whole numbers to 4,294,967,295)",
            stored(&screen(most), "context ->> '$.screen.width' = 4294967295"),
            stored(&screen(most + 1), "context ->> '$.extra.screen.width' = 4294967296"),
        ));
        let ip = |ip: &str| vec![("ip", text(ip))];
        rows.push(row(
            "Context.ip",
            "cut to its network",
            stored(&ip("203.0.113.77"), "context ->> '$.extra.ip' = '203.0.113.0/24'"),
            stored(&ip("203.0.113.777"), "context -> '$.extra.ip' = 'null'"),
        ));
        let consent = |count: usize| {
            let mut categories: Vec<_> = (1..count).map(|n| format!("\"{n}\":true")).collect();
            categories.push("\"Analytics\":true".into());
            vec![("consent", format!(r#"{{"categoryPreferences":{{{}}}}}"#, categories.join(",")))]
        };
        rows.push(row(
            "Context.consent",
            "more than 64 categories are read as none",
            stored(&consent(64), "consent LIKE '%analytics%'"),
            stored(&consent(65), "consent NOT LIKE '%analytics%'"),
        ));
    }
}

/// What messages share, and how many there are.
fn batch(world: &World, path: &str) -> Vec<Row> {
    let key = &world.tenant.key;
    let send = |members: &[(&str, String)]| {
        let mut all = vec![("writeKey", text(key)), ("batch", "[]".into())];
        all.retain(|(name, _)| members.iter().all(|(other, _)| other != name));
        all.extend_from_slice(members);
        request("POST", path, &[], object(&all).as_bytes())
    };
    let row = |field: &str, said, inside: Vec<u8>, outside: Vec<u8>, code| {
        Row::new(("POST", path), field, said).within(inside, Taken(200)).beyond(outside, Refused(code))
    };
    let pages = |count: usize| ("batch", format!("[{}]", vec![r#"{"type":"page"}"#; count].join(",")));
    let mut rows = vec![
        row(
            "Batch.batch",
            "a batch at most 2,500 messages",
            send(&[pages(MAX_BATCH)]),
            send(&[pages(MAX_BATCH + 1)]),
            "json-too-large",
        )
        .schema("maxItems", MAX_BATCH),
    ];
    let longer = key.to_owned() + &"a".repeat(65 - key.len());
    let other = || send(&[("writeKey", text(&longer))]);
    for (word, value) in [("pattern", json!([key, longer])), ("maxLength", json!(64))] {
        let key = row("Batch.writeKey", "16 to 44 letters or digits", send(&[]), other(), "wrong-write-key");
        rows.push(key.schema(word, value));
    }
    // Each member that messages share has the bound of a message.
    let quoted = |bytes: usize| text(&"x".repeat(bytes - 2));
    let shared = |bytes: usize| send(&[("other", quoted(bytes))]);
    let in_context = |bytes: usize| send(&[("context", format!(r#"{{"a":{}}}"#, quoted(bytes)))]);
    rows.push(row(
        "Batch.sentAt",
        "JSON, at most 512,000 bytes",
        send(&[("sentAt", quoted(MAX_EVENT))]),
        send(&[("sentAt", quoted(MAX_BODY))]),
        "body-too-large",
    ));
    rows.push(row(
        "Batch.context",
        "each member of what they share",
        in_context(MAX_EVENT),
        in_context(MAX_EVENT + 1),
        "json-too-large",
    ));
    rows.push(row(
        "members that messages share",
        "each member of what they share",
        shared(MAX_EVENT),
        shared(MAX_EVENT + 1),
        "json-too-large",
    ));
    let deep = |depth: usize| format!("{}0{}", "[".repeat(depth), "]".repeat(depth));
    let most = segment::MAX_DEPTH;
    for name in ["context", "other"] {
        let send = |depth| {
            send(&[(name, if name == "context" { format!(r#"{{"a":{}}}"#, deep(depth)) } else { deep(depth) })])
        };
        let field = if name == "context" { "Batch.context" } else { "members that messages share" };
        rows.push(row(field, "each member of what they share", send(most), send(most + 1), "json-too-deep"));
    }
    let names: Vec<_> = (0..2100).map(|n| n.to_string()).collect();
    let many = |count: usize| -> Vec<_> { names[..count].iter().map(|name| (name.as_str(), "0".to_owned())).collect() };
    rows.push(row(
        "Batch.context",
        MEMBERS,
        send(&[("context", object(&many(2048)))]),
        send(&[("context", object(&many(2049)))]),
        "too-large",
    ));
    // The key is none of them.
    rows.push(row("members that messages share", MEMBERS, send(&many(2048)), send(&many(2049)), "too-large"));
    // What is shared is bounded as it is once it stands in each message.
    let count = 100;
    let spread = |bytes: usize| send(&[pages(count), ("context", format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes)))]);
    let body =
        |request: &[u8]| request.len() - request.windows(4).position(|end| end == b"\r\n\r\n").expect("an end") - 4;
    // Name, quotes, and four bytes around them.
    let least = body(&spread(0)) + count * (1 + 2 + 4);
    let bytes = (4 * MAX_BODY - least) / (count + 1);
    rows.push(row("members that messages share", SHARED, spread(bytes), spread(bytes + 1), "json-too-large"));
    rows
}

pub(super) fn rows(world: &World) -> Vec<Row> {
    let mut rows = Vec::new();
    let key = &world.tenant.key;
    for (kind, short, name) in CALLS {
        for path in [format!("/v1/{kind}"), format!("/v1/{short}")] {
            Kind { path, kind, name, key, in_batch: false }.rows(&mut rows);
        }
        for path in ["/v1/batch", "/v1/b"] {
            Kind { path: path.into(), kind, name, key, in_batch: true }.rows(&mut rows);
        }
    }
    for path in ["/v1/batch", "/v1/b"] {
        rows.extend(batch(world, path));
    }
    rows
}
