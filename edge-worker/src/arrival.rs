//! What a request says of itself and of where it comes from.

use std::{cell::Cell, ops::Deref};

use worker::{
    js_sys::{Reflect, Uint8Array},
    wasm_bindgen::JsCast as _,
    web_sys::Request,
};

use firsthop_core::{Network, Timestamp};
use firsthop_intake::{
    Facts, Problem, Refusal,
    policy::{FORWARDED, Place},
    rules::{Precision, Rules},
};

use crate::{glue, steps::settled};

/// How long a body may take to arrive, in milliseconds.
const BODY_TIMEOUT: u32 = 20_000;

/// The header in which the platform says whose connection it is.
const ADDRESS: &str = "cf-connecting-ip";
/// The visitor's signal of Global Privacy Control. It only ever takes back, so it counts whoever says it: a hop passes on its visitor's.
pub(crate) const GPC: &str = "sec-gpc";
/// What is asked of the platform's `request.cf`. It is missing where there is no Cloudflare in front of workerd.
const CF: [&str; 4] = ["country", "colo", "continent", "isEUCountry"];

/// A request's head, taken apart.
pub(crate) struct Arrival<'a> {
    /// For its body, and for headers that only some routes want.
    pub(crate) request: &'a Request,
    pub(crate) method: &'a str,
    pub(crate) url: &'a str,
    headers: [Option<&'a str>; Facts::HEADERS.len()],
    gpc: Option<&'a str>,
    /// The sender's: not of the hop that has passed the request on.
    network: Network,
    /// Where the connection itself comes from.
    peer: Network,
    country: Option<&'a str>,
    pop: Option<&'a str>,
    /// What the region gate looks at besides a frame's header.
    pub(crate) standing: Standing<'a>,
}

/// Where this edge stands and where the request comes from, as the platform says it.
pub(crate) struct Standing<'a> {
    /// The code of the point of presence. None: there is no platform that says such things.
    pub(crate) colo: Option<Option<&'a str>>,
    pub(crate) visitor: Place,
    /// For which region another hop has passed it on.
    pub(crate) forwarded: Option<&'a str>,
}

/// Says what is wanted of a request, once for each instance. Returns the how-manieth instance of the isolate this is, from 0.
pub(crate) fn want() -> u32 {
    let headers: Vec<_> = Facts::HEADERS.into_iter().chain([ADDRESS, FORWARDED, GPC]).collect();
    glue::want(&headers.join("\n"), &CF.join("\n"))
}

/// What stands in front of most bodies has room in so many bytes.
const HEAD: usize = 1536;

/// A request's head as one text, which `head` in `js/glue.js` writes.
pub(crate) fn head(request: &Request) -> String {
    let mut text = vec![0; HEAD];
    loop {
        let length = glue::head(request, &mut text) as usize;
        if length <= text.len() {
            text.truncate(length);
            return String::from_utf8(text).unwrap_or_default();
        }
        text.resize(length, 0);
    }
}

impl<'a> Arrival<'a> {
    /// `head` is the request's [`head`].
    pub(crate) fn new(request: &'a Request, head: &'a str) -> Self {
        let mut lines = head.split('\n');
        let (method, url) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let mut line = || lines.next().filter(|&line| line != "\0");
        let headers = Facts::HEADERS.map(|_| line());
        let [address, forwarded, gpc] = [line(), line(), line()];
        let [country, colo, continent, is_union] = CF.map(|_| line());
        // What another hop has passed on comes from there: what the platform says of the sender is said of that hop.
        let is_direct = forwarded.is_none();
        // The only place where an address is seen, and it is cut here.
        let peer = address.and_then(|address| address.parse().ok()).map_or(Network::Unknown, Network::of);
        Self {
            request,
            method,
            url,
            headers,
            gpc,
            network: if is_direct { peer } else { Network::Unknown },
            peer,
            // Cloudflare's XX is "not known", and T1 is Tor: no countries.
            country: country
                .filter(|&country| is_direct && country != "XX" && country.bytes().all(|b| b.is_ascii_uppercase())),
            pop: colo,
            standing: Standing {
                colo: (colo.is_some() || country.is_some()).then_some(colo),
                visitor: Place::visitor(country, continent, is_union.is_some()),
                forwarded,
            },
        }
    }

    /// Asks for what only some tenants' rules want to know, and only where it can change something.
    pub(crate) fn ask(&self, rules: &Rules) -> Asked {
        // What the platform says of another hop's request says nothing of the visitor.
        let is_direct = self.standing.forwarded.is_none();
        let cf = |precision, name: &str| {
            let wanted = is_direct && rules.place.precision >= precision;
            let cf = wanted.then(|| Reflect::get(self.request, &"cf".into()).ok()).flatten()?;
            Reflect::get(&cf, &name.into()).ok()?.as_string()
        };
        Asked { subdivision: cf(Precision::Subdivision, "regionCode"), city: cf(Precision::City, "city") }
    }

    /// The facts at a moment.
    pub(crate) fn facts(&self, now: Timestamp) -> Facts<'a> {
        let mut headers = self.headers.into_iter();
        let Self { network, country, pop, gpc, .. } = *self;
        let facts = Facts { network, country, pop, gpc, ..Facts::at(now) };
        // Asked in the order in which they were copied.
        facts.with_headers(|_| headers.next()?)
    }
}

/// What only some tenants' rules want to know of a request.
#[derive(Default)]
pub(crate) struct Asked {
    subdivision: Option<String>,
    city: Option<String>,
}

impl Asked {
    /// Facts with this among them.
    pub(crate) fn beside<'f>(&'f self, facts: Facts<'f>) -> Facts<'f> {
        let Self { subdivision, city } = self;
        Facts { subdivision: subdivision.as_deref(), city: city.as_deref(), ..facts }
    }
}

/// A request's body, which has its part of the room for bodies until the request is answered, or given up.
///
/// It stays in the platform's memory: what is passed on unread need not come into ours.
pub(crate) struct Body {
    bytes: Uint8Array,
    _room: Room,
}

impl Deref for Body {
    type Target = Uint8Array;

    fn deref(&self) -> &Uint8Array {
        &self.bytes
    }
}

/// A part of the room for bodies.
struct Room(u32);

impl Room {
    fn new() -> Self {
        thread_local!(static LAST: Cell<u32> = const { Cell::new(0) });
        LAST.set(LAST.get() % u32::MAX + 1);
        Self(LAST.get())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        glue::give(self.0);
    }
}

/// Reads a request's body, if it is within the bound, comes in time, and has room beside the others.
pub(crate) async fn body(arrival: &Arrival<'_>, most: usize) -> Result<Body, Problem> {
    let room = Room::new();
    Ok(Body { bytes: read(arrival.request, (room.0, number(arrival.peer)), most).await?, _room: room })
}

/// A network as a number that JavaScript can hold, of 48 bits and some; 0 where it is not known.
fn number(network: Network) -> f64 {
    let of = |first: u64, bytes: &[u8]| bytes.iter().fold(first, |number, &byte| number << 8 | u64::from(byte)) as f64;
    match network {
        Network::Unknown => 0.0,
        Network::V4(bytes) => of(1, &bytes),
        Network::V6(bytes) => of(1, &bytes),
    }
}

/// Reads the body of a request of our own, which has been let in before.
pub(crate) async fn own_body(request: &Request, most: usize) -> Result<Vec<u8>, Problem> {
    Ok(read(request, (0, 0.0), most).await?.to_vec())
}

async fn read(request: &Request, (room, network): (u32, f64), most: usize) -> Result<Uint8Array, Problem> {
    let body = settled(glue::body(request, room, network, most as u32, BODY_TIMEOUT)).await;
    match body.map(|body| body.dyn_into::<Uint8Array>()) {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(wrong)) if wrong == glue::TOO_LARGE => Err(Problem::body_too_large(most)),
        Ok(Err(wrong)) if wrong == glue::LATE => Err(Problem::new(Refusal::BodyTimeout)),
        Ok(Err(wrong)) if wrong == glue::FULL => {
            Err(Problem::new(Refusal::Unavailable).with_detail("too much under way"))
        }
        _ => Err(Problem::new(firsthop_core::Error::Truncated)),
    }
}
