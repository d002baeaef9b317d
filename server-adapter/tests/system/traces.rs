//! One event, followed from page to sink by its `traceparent`; and logs, in which nobody is followed.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value as Json;

use crate::{
    common::{Client, Folder, LONG, Page, own_port, until},
    edges::{Edge, envelope},
};

/// A collector: takes OTLP over HTTP in JSON, and believes nothing.
struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Json>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (address, spans) = (listener.local_addr().expect("an address"), Arc::default());
        let all: Arc<Mutex<Vec<Json>>> = Arc::clone(&spans);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut stream = BufReader::new(stream);
                let mut head = Vec::new();
                loop {
                    let mut line = String::new();
                    stream.read_line(&mut line).expect("a line");
                    match line.trim_end() {
                        "" => break,
                        line => head.push(line.to_lowercase()),
                    }
                }
                assert_eq!(head[0], "post /v1/traces http/1.1");
                assert!(head.contains(&"content-type: application/json".to_owned()), "{head:?}");
                let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
                let mut body = vec![0; length.parse().expect("a number")];
                stream.read_exact(&mut body).expect("a body");
                let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
                stream.get_mut().write_all(answer.as_bytes()).expect("answered");
                all.lock().expect("not poisoned").extend(spans_of(&body));
            }
        });
        Self { address, spans }
    }

    /// Waits for so many spans of a trace.
    fn wait(&self, trace: &str, count: usize) -> BTreeMap<String, Json> {
        let due = Instant::now() + LONG;
        loop {
            let spans = self.spans.lock().expect("not poisoned");
            let of_trace: Vec<_> = spans.iter().filter(|span| span["traceId"] == trace).cloned().collect();
            if of_trace.len() >= count {
                assert_eq!(of_trace.len(), count, "{of_trace:?}");
                return of_trace
                    .into_iter()
                    .map(|span| (span["name"].as_str().expect("a name").to_owned(), span))
                    .collect();
            }
            assert!(Instant::now() < due, "{} of {count} spans: {of_trace:?}", of_trace.len());
            drop(spans);
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The spans of an `ExportTraceServiceRequest`, each as the specification of OTLP's JSON wants it.
fn spans_of(body: &[u8]) -> Vec<Json> {
    let document: Json = serde_json::from_slice(body).expect("JSON");
    let resource = &document["resourceSpans"][0];
    assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "firsthop");
    let spans = resource["scopeSpans"][0]["spans"].as_array().expect("spans").clone();
    for span in &spans {
        let hex = |name: &str, digits: usize| {
            let text = span[name].as_str().expect(name);
            assert!(
                text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()),
                "{span}"
            );
        };
        hex("traceId", 32);
        hex("spanId", 16);
        hex("parentSpanId", 16);
        let time = |name: &str| span[name].as_str().expect(name).parse::<u64>().expect("nanoseconds as text");
        assert!(time("startTimeUnixNano") <= time("endTimeUnixNano"), "{span}");
        assert!(time("startTimeUnixNano") > 1_700_000_000_000_000_000, "{span}");
        assert!((1..=5).contains(&span["kind"].as_u64().expect("a kind")));
    }
    spans
}

fn about<'a>(span: &'a Json, key: &str) -> &'a Json {
    let attributes = span["attributes"].as_array().expect("attributes");
    &attributes.iter().find(|about| about["key"] == key).unwrap_or_else(|| panic!("{key} of {span}"))["value"]
}

#[test]
fn an_event_is_followed_from_page_to_sink() {
    let collector = Collector::start();
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--region", "EU"]);
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    let endpoint = format!("http://{}", collector.address);
    let mut server = folder.serve_with(&["--otlp-endpoint", &endpoint]);
    let mut client = server.client();
    let key = format!("Bearer {}", tenant.key);
    let parent = |trace: &str, flags: &str| format!("00-{trace}-b7ad6b7169203331-{flags}");
    let send = |client: &mut Client, traceparent: &str| {
        let headers = [("Authorization", &*key), ("traceparent", traceparent)];
        client.request("POST", "/v1/track", &headers, br#"{"event":"x","anonymousId":"a"}"#)
    };

    // Segment's call, by the header of the request.
    let trace = "0af7651916cd43dd8448eb211c80319c";
    assert_eq!(send(&mut client, &parent(trace, "01")).status, 200);
    let spans = collector.wait(trace, 4);
    let names: Vec<_> = spans.keys().map(String::as_str).collect();
    assert_eq!(names, ["commit", "deliver", "receive", "verify"]);
    let receive = &spans["receive"];
    assert_eq!(
        (&receive["parentSpanId"], &spans["deliver"]["parentSpanId"]),
        (&"b7ad6b7169203331".into(), &"b7ad6b7169203331".into())
    );
    for step in ["verify", "commit"] {
        assert_eq!(spans[step]["parentSpanId"], receive["spanId"], "{step}");
    }
    let start =
        |name: &str| spans[name]["startTimeUnixNano"].as_str().expect("a time").parse::<u64>().expect("a number");
    assert!(
        start("receive") <= start("verify")
            && start("verify") <= start("commit")
            && start("commit") <= start("deliver")
    );
    assert_eq!(about(receive, "firsthop.tenant")["stringValue"], tenant.id.to_string());
    assert_eq!(
        (&about(receive, "http.route")["stringValue"], &about(receive, "firsthop.events")["intValue"]),
        (&"/v1/track".into(), &"1".into())
    );
    assert_eq!(about(receive, "http.response.status_code")["intValue"], "200");
    assert_eq!(about(&spans["deliver"], "firsthop.sink")["stringValue"], "events");

    // A native frame, by its own extension; through an edge, which knows nothing of it.
    let (direct, through) = ("11111111111111111111111111111111", "22222222222222222222222222222222");
    let frame = Page::new(&tenant).traced(&parent(direct, "01"));
    assert_eq!(client.frame(&frame).receipt().stored, 1);
    assert_eq!(collector.wait(direct, 4).len(), 4);
    let frame = Page::new(&tenant).traced(&parent(through, "01"));
    let (sealed, _) = Edge::new(&server, &token).forward(&frame);
    assert_eq!(envelope(&mut client, &sealed).receipt().stored, 1);
    let spans = collector.wait(through, 4);
    assert_eq!(about(&spans["receive"], "http.route")["stringValue"], "/v1/e");

    // What is not sampled, or no traceparent, is not traced; a refusal is, as far as it came.
    let (unsampled, refused) = ("33333333333333333333333333333333", "44444444444444444444444444444444");
    assert_eq!(send(&mut client, &parent(unsampled, "00")).status, 200);
    assert_eq!(send(&mut client, "nonsense").status, 200);
    let wrong = client.request("POST", "/v1/track", &[("traceparent", &parent(refused, "01"))], b"{}");
    assert_eq!(wrong.status, 401);
    let spans = collector.wait(refused, 2);
    assert_eq!(about(&spans["receive"], "http.response.status_code")["intValue"], "401");
    assert_eq!(spans["verify"]["status"]["code"], 2);
    assert!(collector.spans.lock().expect("not poisoned").iter().all(|span| span["traceId"] != unsampled));
    until("it is counted", || server.metric("firsthop_trace_spans_total{result=\"sent\"}") >= 14.0);
    // Nothing is held up at the end, and what is traced last is sent.
    let last = "55555555555555555555555555555555";
    assert_eq!(send(&mut client, &parent(last, "01")).status, 200);
    server.stop();
    assert_eq!(collector.wait(last, 4).len(), 4);
    folder.ok(&["verify"]);
}

/// A collector that is away costs traces and nothing else.
#[test]
fn without_a_collector_events_go_on() {
    let gone = own_port().local_addr().expect("an address");
    let folder = Folder::new();
    let mut server = folder.serve_with(&["--otlp-endpoint", &format!("http://{gone}")]);
    let tenant = folder.only_tenant();
    let mut client = server.client();
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for _ in 0..20 {
        assert_eq!(client.frame(&Page::new(&tenant).traced(traceparent)).receipt().stored, 1);
    }
    until("it is noticed", || server.metric("firsthop_trace_spans_total{result=\"failed\"}") >= 60.0);
    server.stop();
    assert_eq!(server.log().matches("the collector takes no traces").count(), 1, "said once");
}

/// Whatever is sent, well or badly, and however much is logged: nothing of it that is about a person is in the log.
#[test]
fn logs_hold_no_personal_data() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &["--region", "EU", "--origin", "https://shop.example"]);
    let token = Edge::enrol(&folder, "shop", "zurich", "EU");
    let mut server = folder.serve_with(&["--log", "trace", "--proxies", "1"]);
    let mut client = server.client();
    let markers = [
        "user-4711",
        "ada@example.com",
        "203.0.113.77",
        "visitor-0815",
        "secret-query",
        "SuperBrowser/9.9",
        "session-cookie",
        "Ada Lovelace",
        "https://shop.example/private",
        "referrer.example",
        "m-4711",
    ];
    let person = r#"{"event":"Ada Lovelace","messageId":"m-4711","userId":"user-4711","anonymousId":"visitor-0815",
        "properties":{"email":"ada@example.com"},
        "context":{"ip":"203.0.113.77","page":{"url":"https://shop.example/private?secret-query=1","referrer":"https://referrer.example/"}}}"#;
    let key = format!("Bearer {}", tenant.key);
    let headers = |authorization: &'static str| {
        vec![
            ("Authorization", if authorization.is_empty() { key.clone() } else { authorization.to_owned() }),
            ("X-Forwarded-For", "203.0.113.77".to_owned()),
            ("User-Agent", "SuperBrowser/9.9".to_owned()),
            ("Cookie", "id=session-cookie".to_owned()),
            ("Referer", "https://referrer.example/".to_owned()),
            ("Origin", "https://shop.example".to_owned()),
        ]
    };
    let ask = |client: &mut Client, path: &str, headers: &[(&str, String)], body: &[u8]| {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        client.request("POST", path, &headers, body).status
    };
    let track = "/v1/track?secret-query=ada@example.com";
    assert_eq!(ask(&mut client, track, &headers(""), person.as_bytes()), 200);
    let elsewhere: Vec<_> = headers("").into_iter().filter(|(name, _)| *name != "Origin").collect();
    let elsewhere = [elsewhere, vec![("Origin", "https://ada@example.com".to_owned())]].concat();
    // Every way in which it can be wrong: half of it, another's key, another page, a wrong type, no such path, twice, too deep, too large.
    let deep =
        person.replace("\"ada@example.com\"", &format!("{}\"ada@example.com\"{}", "[".repeat(40), "]".repeat(40)));
    let large = person.replace("ada@example.com", &"ada@example.com ".repeat(4000));
    let twice = person.replace("\"user-4711\"", "\"user-4711\",\"userId\":\"user-4711\"");
    let typed = person.replace("\"Ada Lovelace\"", "{\"Ada Lovelace\":1}");
    let batch = format!(r#"{{"batch":[{person},{{"type":"Ada Lovelace","userId":"user-4711"}},"ada@example.com"]}}"#);
    for (path, headers, body, status) in [
        (track, headers(""), &person[..person.len() / 2], 400),
        (track, headers("Bearer ada@example.com"), person, 401),
        (track, headers("Basic dXNlci00NzExOmFkYQ=="), person, 401),
        (track, elsewhere, person, 403),
        (track, headers(""), &deep, 400),
        (track, headers(""), &large, 413),
        (track, headers(""), &twice, 400),
        (track, headers(""), &typed, 400),
        ("/v1/batch", headers(""), &batch, 200),
        ("/v1/ada@example.com", headers(""), person, 404),
        ("/v1/f?user-4711", headers(""), person, 400),
        ("/v1/e", headers(""), person, 400),
    ] {
        assert_eq!(ask(&mut client, path, &headers, body.as_bytes()), status, "{path}: {body:.80}");
    }
    // Native, well and broken; by an edge; in a conflict; and what is no HTTP.
    let page = Page { source: firsthop_core::SourceId::new([0x47; 16]), ..Page::new(&tenant) };
    let good = page.frame_at(0, 1, "Ada Lovelace");
    assert_eq!(client.frame(&good).receipt().stored, 1);
    assert_eq!(client.frame(&page.frame_at(0, 1, "ada@example.com")).receipt().conflict, 1);
    let mut broken = page.frame_at(1, 1, "Ada Lovelace");
    broken[120] ^= 1;
    assert_eq!(client.frame(&broken).status, 400);
    let mut edge = Edge::new(&server, &token);
    for bytes in [&broken, &page.frame_at(2, 1, "Ada Lovelace")] {
        let (sealed, _) = edge.forward(bytes);
        assert_eq!(envelope(&mut client, &sealed).status, 200);
    }
    let head = "GET /ada@example.com HTTP/9.9\r\nCookie: session-cookie\r\n\r\n";
    assert_eq!(Client::new(server.public).raw(head.as_bytes()).expect("an answer").status, 400);
    tenant.settle();
    server.stop();

    let log = server.log();
    assert!(log.lines().count() > 20, "much is logged");
    for line in log.lines() {
        let json: Json = serde_json::from_str(line).unwrap_or_else(|_| panic!("a line that is no JSON: {line}"));
        assert!(json["timestamp"].is_string() && json["level"].is_string() && json["message"].is_string(), "{line}");
    }
    for marker in markers.iter().chain(&[&*tenant.key, &*token, "47474747-4747", "192.0.2", "203.0.113", "127.0.0.1:5"])
    {
        // Where the server listens is no secret of anybody's.
        let said = log.lines().filter(|line| line.contains(marker) && !line.contains("\"ready\""));
        assert_eq!(said.collect::<Vec<_>>(), Vec::<&str>::new(), "{marker}");
    }
}
