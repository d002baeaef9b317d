//! The page SDK at `/sdk/…`, embedded in the Worker.
//!
//! Embedded rather than uploaded beside it as static assets: the Worker that was tested is then, to the byte, the one
//! that is deployed; page and edge are of one commit and speak the same frame version; and it runs wherever workerd
//! runs. The price is some kilobytes of Worker and an invocation per download, which the caching below keeps rare.
//!
//! `/sdk/{file}` is the current SDK, cached shortly. `/sdk/{version}/{file}` never changes, so it is cached for ever; a
//! version that this Worker does not have leads to the current one, because a page without its SDK loses every event.

use firsthop_intake::{Problem, Refusal};

use crate::reply::Reply;

struct File {
    name: &'static str,
    media: &'static str,
    etag: &'static str,
    bytes: &'static [u8],
}

static FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/sdk.rs"));

/// The SDK's version: the workspace has one.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long the current SDK may be used without asking: five minutes, and a day longer while a newer one is fetched.
const SHORT: &str = "public, max-age=300, stale-while-revalidate=86400";
const FOREVER: &str = "public, max-age=31536000, immutable";

/// For pages of every origin, and for pages that are isolated from other origins.
const SHARED: [(&str, &str); 4] = [
    ("access-control-allow-origin", "*"),
    ("cross-origin-resource-policy", "cross-origin"),
    ("timing-allow-origin", "*"),
    ("x-content-type-options", "nosniff"),
];

/// Answers a request by the path behind `/sdk/`; `known` is its `If-None-Match`.
pub(crate) fn answer(method: &str, path: &str, known: Option<&str>) -> Reply {
    if !matches!(method, "GET" | "HEAD") {
        return refuse(&Problem::not_allowed("GET, HEAD"));
    }
    let (version, name) = match path.split_once('/') {
        Some((version, name)) => (Some(version), name),
        None => (None, path),
    };
    let file = FILES.iter().find(|file| file.name == name);
    match (file, version) {
        (Some(file), None) => send(file, known, SHORT),
        (Some(file), Some(VERSION)) => send(file, known, FOREVER),
        (Some(file), Some(other)) if is_version(other) => {
            Reply::empty(307, &SHARED).with("location", format!("/sdk/{}", file.name)).with("cache-control", SHORT)
        }
        _ => refuse(&Problem::new(Refusal::NotFound)),
    }
}

fn refuse(problem: &Problem) -> Reply {
    Reply::problem(problem, problem.to_json().into_bytes().into())
}

fn send(file: &'static File, known: Option<&str>, caching: &'static str) -> Reply {
    let same = known.is_some_and(|known| {
        // A proxy that compresses marks the tag as weak, which makes no difference here.
        known.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == file.etag)
    });
    let reply = match same {
        true => Reply::empty(304, &SHARED),
        false => Reply::bytes(200, &SHARED, file.bytes).with("content-type", file.media),
    };
    reply.with("etag", file.etag).with("cache-control", caching)
}

/// Whether a path segment is a version number: three numbers, and perhaps a pre-release behind a hyphen.
fn is_version(text: &str) -> bool {
    let (numbers, pre) = text.split_once('-').unwrap_or((text, "0"));
    let number = |part: &str| !part.is_empty() && part.len() <= 9 && part.bytes().all(|b| b.is_ascii_digit());
    numbers.split('.').count() == 3
        && numbers.split('.').all(number)
        && !pre.is_empty()
        && pre.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
}
