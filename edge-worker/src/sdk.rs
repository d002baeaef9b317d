//! The page SDK at `/sdk/…`, embedded in the Worker.
//!
//! Embedded rather than uploaded beside it as static assets: the Worker that was tested is then, to the byte, the one
//! that is deployed; page and edge are of one commit and speak the same frame version; and it runs wherever workerd
//! runs. The price is some kilobytes of Worker and an invocation per download, which caching keeps rare.

use firsthop_intake::{
    Problem, Refusal,
    sdk::{HEADERS, SHORT, Wanted, is_known, media},
};

use crate::{arrival::Arrival, reply::Reply};

/// The current release first, then those of the folder `kept`.
static RELEASES: &[Release] = include!(concat!(env!("OUT_DIR"), "/sdk.rs"));

struct Release {
    version: &'static str,
    build: &'static str,
    files: &'static [File],
}

struct File {
    name: &'static str,
    etag: &'static str,
    bytes: &'static [u8],
}

/// The answer to a request for a file.
pub(crate) fn answer(wanted: &Wanted<'_>, arrival: &Arrival<'_>) -> Reply {
    let mut releases = RELEASES.iter();
    let release = match wanted.release {
        Some(name) => releases.find(|release| release.version == name || release.build == name),
        None => releases.next(),
    };
    let of = |release: &'static Release| release.files.iter().find(|file| file.name == wanted.file);
    if let Some(file) = release.and_then(of) {
        let known = arrival.request.headers().get("if-none-match").ok().flatten();
        let reply = if is_known(known.as_deref(), file.etag) {
            Reply::empty(304, &HEADERS)
        } else {
            Reply::bytes(200, &HEADERS, file.bytes).with("content-type", media(file.name).unwrap_or_default())
        };
        return reply.with("etag", file.etag).with("cache-control", wanted.caching());
    }
    let current = RELEASES.first().and_then(of);
    match wanted.elsewhere().filter(|_| current.is_some() && release.is_none()) {
        Some(location) => Reply::empty(307, &HEADERS).with("location", location).with("cache-control", SHORT),
        None => {
            let problem = Problem::new(Refusal::NotFound);
            Reply::problem(&problem, problem.to_json().into_bytes().into())
        }
    }
}
