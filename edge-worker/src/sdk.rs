//! The page SDK at `/sdk/…`, embedded in the Worker.
//!
//! Embedded rather than uploaded beside it as static assets: the Worker that was tested is then, to the byte, the one
//! that is deployed; page and edge are of one commit and speak the same frame version; and it runs wherever workerd
//! runs. The price is some kilobytes of Worker and an invocation per download, which caching keeps rare.
//!
//! A script has its module inside it, deflated. The same module as a file of its own is inflated from there: to have it twice is five kilobytes.

mod six_bits;

use std::ops::Range;

use wasm_bindgen::JsCast;

use firsthop_intake::{
    Refusal,
    sdk::{HEADERS, SHORT, Wanted, is_known, media},
};

use crate::{arrival::Arrival, glue, reply::Reply, steps::settled};

/// The current release first, then those of the folder `kept`.
static RELEASES: &[Release] = include!(concat!(env!("OUT_DIR"), "/sdk.rs"));

/// All their files.
static BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sdk.bin"));

struct Release {
    version: &'static str,
    build: &'static str,
    files: &'static [File],
}

struct File {
    name: &'static str,
    etag: &'static str,
    /// Where it stands in [`BYTES`].
    at: Range<usize>,
    /// Of a module that stands in a script: deflated, six bits for each character of this alphabet.
    alphabet: Option<Range<usize>>,
}

/// The answer to a request for a file.
pub(crate) async fn answer(wanted: &Wanted<'_>, arrival: &Arrival<'_>) -> Result<Reply, Refusal> {
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
            file.reply().await?.with("content-type", media(file.name).unwrap_or_default())
        };
        return Ok(reply.with("etag", file.etag).with("cache-control", wanted.caching()));
    }
    let current = RELEASES.first().and_then(of);
    match wanted.elsewhere().filter(|_| current.is_some() && release.is_none()) {
        Some(location) => Ok(Reply::empty(307, &HEADERS).with("location", location).with("cache-control", SHORT)),
        None => Err(Refusal::NotFound),
    }
}

impl File {
    async fn reply(&self) -> Result<Reply, Refusal> {
        let bytes = &BYTES[self.at.clone()];
        let Some(alphabet) = &self.alphabet else {
            return Ok(Reply::bytes(200, &HEADERS, bytes));
        };
        // `build.rs` has seen that the file comes out.
        let deflated = six_bits::decode(bytes, &BYTES[alphabet.clone()]).unwrap_or_default();
        let bytes = settled(glue::inflate(&deflated)).await.map_err(|_| Refusal::Internal)?;
        let reply = Reply::foreign(200, bytes.unchecked_into());
        Ok(HEADERS.into_iter().fold(reply, |reply, (name, value)| reply.with(name, value)))
    }
}
