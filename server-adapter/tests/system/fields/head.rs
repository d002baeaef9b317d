//! What every request has: method, path, headers, a length.

use firsthop_core::limits::{MAX_ENVELOPE, MAX_FRAME};
use firsthop_intake::{Facts, segment::MAX_BODY};

use super::{Expect, Refused, Row, Taken, World, message, request};
use crate::{common::Page, edges::Edge};

/// Rows that each operation has.
pub(super) const ALL: &[&str] = &["method", "path", "query", "head", "headers", "header name", "header value"];
/// And each that takes a body.
pub(super) const OF_POST: &[&str] = &["body", "content-length", "transfer-encoding"];

/// Bytes of request line and headers, and how many of those.
const HEAD: usize = 16 << 10;
const HEADERS: usize = 100;
const HEAD_SAID: &str = "request line and headers over the hop's bound: 16,384 bytes, 100 headers at the server";

/// A request with a filler in one of its places.
type Filled<'a> = &'a dyn Fn(&str) -> Vec<u8>;

/// A good request of an operation.
struct Good {
    method: &'static str,
    /// As the document has it, and as it is asked.
    path: String,
    asked: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    status: u16,
}

impl Good {
    fn all(world: &World) -> Vec<Self> {
        let (frame, envelope) = {
            let frame = Page::new(&world.tenant).frame(1);
            let (envelope, _) = Edge::new(&world.server, &world.token).forward(&frame);
            (frame, envelope)
        };
        let mut all = Vec::new();
        for (path, item) in world.document.paths() {
            for method in item.as_object().expect("operations").keys().filter(|name| *name != "servers") {
                let (mut headers, mut body, mut status) = (Vec::new(), Vec::new(), 200);
                let method = match method.as_str() {
                    "options" => {
                        status = 204;
                        "OPTIONS"
                    }
                    "get" => "GET",
                    _ => "POST",
                };
                match path.as_str() {
                    _ if method != "POST" => {}
                    "/v1/f" => body.clone_from(&frame),
                    "/v1/e" => body.clone_from(&envelope),
                    "/v1/leases" => headers.push(("Authorization", format!("Bearer {}", world.token))),
                    path => body = message::good(world, path).into_bytes(),
                }
                let asked = path.replace("{tenant}", &world.tenant.id.to_string());
                all.push(Self { method, path: path.clone(), asked, headers, body, status });
            }
        }
        all
    }

    fn with(&self, asked: &str, more: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let own = self.headers.iter().map(|(name, value)| (*name, value.as_str()));
        let replaced = |name: &str| more.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        let headers: Vec<_> = own.filter(|(name, _)| !replaced(name)).chain(more.iter().copied()).collect();
        request(self.method, asked, &headers, body)
    }

    /// With a head of this many bytes: `make` gets a filler.
    fn filled(&self, length: usize, make: Filled<'_>) -> Vec<u8> {
        let least = make("").len() - self.body.len();
        make(&"x".repeat(length - least))
    }

    fn is_segment(&self) -> bool {
        self.method == "POST" && !["/v1/f", "/v1/e", "/v1/leases"].contains(&&*self.path)
    }

    fn rows(&self, rows: &mut Vec<Row>) {
        let row = |field: &str, said| Row::new((self.method, &self.path), field, said);
        let plain = || self.with(&self.asked, &[], &self.body);
        let taken = || Taken(self.status);
        let method = |method: &str| [method.as_bytes(), &plain()[self.method.len()..]].concat();
        rows.push(
            row("method", "Paths and methods are exact")
                .within(plain(), taken())
                .beyond(method("BREW"), Refused("method-not-allowed")),
        );
        let other = self.asked.clone() + "/";
        rows.push(
            row("path", "Paths and methods are exact")
                .within(plain(), taken())
                .beyond(self.with(&other, &[], &self.body), Refused("not-found")),
        );
        let query = |filler: &str| self.with(&format!("{}?{filler}", self.asked), &[], &self.body);
        let head = |filler: &str| self.with(&self.asked, &[("X-Filler", filler)], &self.body);
        let name = |filler: &str| self.with(&self.asked, &[(&format!("X{filler}"), "")], &self.body);
        let makes: [(&str, Filled<'_>); 4] =
            [("query", &query), ("head", &head), ("header name", &name), ("header value", &head)];
        for (field, make) in makes {
            rows.push(
                row(field, HEAD_SAID)
                    .within(self.filled(HEAD, make), taken())
                    .beyond(self.filled(HEAD + 1, make), Refused("head-too-large")),
            );
        }
        let injected = |value: &str| self.with(&self.asked, &[("X-Filler", value)], &self.body);
        for (field, good, bad) in [("header value", "\u{85}\t~", "a\0b"), ("header value", "", "a\r\n b")] {
            let said = "a control character in it, a line that is folded";
            rows.push(
                row(field, said).within(injected(good), taken()).beyond(injected(bad), Refused("malformed-head")),
            );
        }
        let named = |name: &str| self.with(&self.asked, &[(name, "x")], &self.body);
        rows.push(
            row("header name", "a control character in it, a line that is folded")
                .within(named("X-!#$%&'*+.^_`|~"), taken())
                .beyond(named("X Y"), Refused("malformed-head")),
        );
        let count = String::from_utf8_lossy(&plain()[..plain().len() - self.body.len()]).lines().count() - 2;
        let many = |sum: usize| self.with(&self.asked, &vec![("X", ""); sum - count], &self.body);
        rows.push(
            row("headers", HEAD_SAID)
                .within(many(HEADERS), taken())
                .beyond(many(HEADERS + 1), Refused("head-too-large")),
        );
        if self.method == "POST" {
            self.rows_of_post(rows);
        }
        if self.asked.contains("region-keys") || self.asked.starts_with("/sdk") {
            let known = |tag: &str| self.with(&self.asked, &[("If-None-Match", tag)], &self.body);
            rows.push(
                row("header if-none-match", "`If-None-Match`")
                    .within(known("*"), Taken(304))
                    .beyond(known("x"), taken()),
            );
        }
    }

    fn rows_of_post(&self, rows: &mut Vec<Row>) {
        let row = |field: &str, said| Row::new((self.method, &self.path), field, said);
        let taken = || Taken(self.status);
        let plain = || self.with(&self.asked, &[], &self.body);
        let sized = |size: &str| self.with(&self.asked, &[("Content-Length", size)], &self.body);
        rows.push(
            row("content-length", "what came is no HTTP/1.1 request")
                .within(plain(), taken())
                .beyond(sized("-1"), Refused("malformed-head")),
        );
        let chunks = [format!("{:x}\r\n", self.body.len()).as_bytes(), &self.body[..], b"\r\n0\r\n\r\n"].concat();
        let chunks = if self.body.is_empty() { b"0\r\n\r\n".to_vec() } else { chunks };
        let coded = |coding: &str| self.with(&self.asked, &[("Transfer-Encoding", coding)], &chunks);
        rows.push(
            row("transfer-encoding", "what came is no HTTP/1.1 request")
                .within(coded("chunked"), taken())
                .beyond(coded("gzip"), Refused("malformed-head")),
        );
        let beyond = |most: usize| self.with(&self.asked, &[("Content-Length", &(most + 1).to_string())], b"");
        let (said, most, inside, outside): (_, _, _, Expect) = match self.path.as_str() {
            // Nobody reads it, however long it says that it is.
            "/v1/leases" => {
                let body = row("body", "no body, and none is read").within(plain(), taken());
                rows.push(body.beyond(beyond(1 << 40), taken()));
                return self.rows_of_leases(rows);
            }
            "/v1/f" => {
                ("exactly one frame, at most 524,288 bytes", MAX_FRAME, Refused("bad-magic"), Refused("body-too-large"))
            }
            "/v1/e" => ("an envelope 526,336", MAX_ENVELOPE, Refused("bad-magic"), Refused("body-too-large")),
            "/v1/batch" | "/v1/b" => ("JSON, at most 512,000 bytes", MAX_BODY, taken(), Refused("body-too-large")),
            // One message has a bound of its own, far below.
            _ => ("JSON, at most 512,000 bytes", MAX_BODY, Refused("json-too-large"), Refused("body-too-large")),
        };
        let fill = if self.is_segment() { b' ' } else { b'x' };
        let mut body = if self.is_segment() { self.body.clone() } else { Vec::new() };
        body.resize(most, fill);
        let whole = row("body", said).within(self.with(&self.asked, &[], &body), inside).beyond(beyond(most), outside);
        rows.push(if self.is_segment() { whole } else { whole.schema("maxLength", most) });
        self.rows_of_facts(rows);
    }

    fn rows_of_leases(&self, rows: &mut Vec<Row>) {
        let row = |field: &str, said| Row::new((self.method, &self.path), field, said);
        let token = self.headers[0].1.clone();
        let with = |headers: &[(&str, &str)]| self.with(&self.asked, headers, b"");
        for wrong in [&token[..token.len() - 1], &format!("{token}0"), "Bearer", ""] {
            rows.push(
                row("header authorization", "An unknown token is `wrong-enrolment`")
                    .within(with(&[]), Taken(200))
                    .beyond(with(&[("Authorization", wrong)]), Refused("wrong-enrolment")),
            );
        }
        rows.push(
            row("header firsthop-want", "Whoever sends this header gets no key, whatever its value")
                .within(with(&[("Firsthop-Want", "documents")]), Taken(200))
                .beyond(with(&[("Firsthop-Want", "everything")]), Taken(200))
                .schema("const", "documents"),
        );
    }

    /// The headers that decide on something, and some that do not: each is within the head, and has no more of it than that.
    fn rows_of_facts(&self, rows: &mut Vec<Row>) {
        let row = |field: String, said| Row::new((self.method, &self.path), field, said);
        let others =
            ["sec-gpc", "firsthop-forwarded", "referer", "cookie", "idempotency-key", "x-request-id", "forwarded"];
        for name in Facts::HEADERS.iter().chain(&others) {
            let is_envelope = self.path == "/v1/e";
            let (begin, inside) = match *name {
                "origin" if !is_envelope => ("https://", Refused("wrong-origin")),
                "content-type" => ("application/json; charset=", Taken(200)),
                "content-encoding" => ("br", Refused("unsupported-encoding")),
                "authorization" => ("Bearer ", Taken(200)),
                _ => ("", Taken(200)),
            };
            let make = |filler: &str| self.with(&self.asked, &[(name, &format!("{begin}{filler}"))], &self.body);
            rows.push(
                row(format!("header {name}"), HEAD_SAID)
                    .within(self.filled(HEAD, &make), inside)
                    .beyond(self.filled(HEAD + 1, &make), Refused("head-too-large")),
            );
        }
        let with = |name: &str, value: &str| self.with(&self.asked, &[(name, value)], &self.body);
        rows.push(
            row(
                "header content-encoding".into(),
                "a `Content-Encoding` other than `identity` is `unsupported-encoding`",
            )
            .within(with("Content-Encoding", "IDENTITY"), Taken(200))
            .beyond(with("Content-Encoding", "identity, identity"), Refused("unsupported-encoding")),
        );
        if self.path == "/v1/e" {
            return;
        }
        let origin = "No `Origin` passes the list";
        rows.push(
            row("header origin".into(), origin)
                .within(with("Origin", "https://shop.example"), Taken(200))
                .beyond(with("Origin", "https://shop.example."), Refused("wrong-origin")),
        );
        if !self.is_segment() {
            return;
        }
        rows.push(
            row("header content-type".into(), "other types are `unsupported-media-type`")
                .within(with("Content-Type", "text/plain;charset=UTF-8"), Taken(200))
                .beyond(with("Content-Type", "text/plains"), Refused("unsupported-media-type")),
        );
        // One of the form is a second key that differs; one that has it not is passed over.
        let prefix = &String::from_utf8_lossy(&self.body);
        let prefix = &prefix[prefix.find("fh_").expect("a key")..][..20];
        for (within, beyond) in [(44, 45), (16, 15)] {
            let bearer = |letters: usize| with("Authorization", &format!("Bearer {prefix}{}", "a".repeat(letters)));
            rows.push(
                row("header authorization".into(), "16 to 44 letters or digits")
                    .within(bearer(within), Refused("wrong-write-key"))
                    .beyond(bearer(beyond), Taken(200)),
            );
        }
    }
}

pub(super) fn rows(world: &World) -> Vec<Row> {
    let mut rows = Vec::new();
    Good::all(world).iter().for_each(|good| good.rows(&mut rows));
    let tenant = |text: String| request("GET", &format!("/v1/region-keys/{text}"), &[], b"");
    let id = world.tenant.id.to_string();
    rows.push(
        Row::new(("GET", "/v1/region-keys/{tenant}"), "path tenant", "16 hex digits of the tenant")
            .within(tenant(id.clone()), Taken(200))
            .beyond(tenant(id.clone() + "0"), Refused("not-found"))
            .schema("pattern", serde_json::json!([id, format!("{id}0")])),
    );
    rows
}
