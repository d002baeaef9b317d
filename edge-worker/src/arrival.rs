//! What a request says of itself and of where it comes from.

use worker::{js_sys::Uint8Array, wasm_bindgen::JsCast as _, web_sys::Request};

use firsthop_core::{Network, Timestamp};
use firsthop_intake::{Facts, Problem, Refusal};

use crate::{glue, steps::settled};

/// How long a body may take to arrive, in milliseconds.
const BODY_TIMEOUT: u32 = 20_000;

/// The header in which the platform says whose connection it is.
const ADDRESS: &str = "cf-connecting-ip";
/// What is asked of the platform's `request.cf`. It is missing where there is no Cloudflare in front of workerd.
const CF: [&str; 2] = ["country", "colo"];

/// A request's head, taken apart.
pub(crate) struct Arrival<'a> {
    /// For its body, and for headers that only some routes want.
    pub(crate) request: &'a Request,
    pub(crate) method: &'a str,
    pub(crate) url: &'a str,
    headers: [Option<&'a str>; Facts::HEADERS.len()],
    network: Network,
    country: Option<&'a str>,
    pop: Option<&'a str>,
}

/// Says what is wanted of a request, once for each instance.
pub(crate) fn want() {
    let headers: Vec<_> = Facts::HEADERS.into_iter().chain([ADDRESS]).collect();
    glue::want(&headers.join("\n"), &CF.join("\n"));
}

impl<'a> Arrival<'a> {
    /// `head` is what `headOf` in `js/glue.js` made of the request.
    pub(crate) fn new(request: &'a Request, head: &'a str) -> Self {
        let mut lines = head.split('\n');
        let (method, url) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let mut line = || lines.next().filter(|&line| line != "\0");
        Self {
            request,
            method,
            url,
            headers: Facts::HEADERS.map(|_| line()),
            // The only place where an address is seen, and it is cut here.
            network: line().and_then(|address| address.parse().ok()).map_or(Network::Unknown, Network::of),
            // Cloudflare's XX is "not known", and T1 is Tor: no countries.
            country: line().filter(|&country| country != "XX" && country.bytes().all(|b| b.is_ascii_uppercase())),
            pop: line(),
        }
    }

    /// The facts at a moment.
    pub(crate) fn facts(&self, now: Timestamp) -> Facts<'a> {
        let mut headers = self.headers.into_iter();
        let facts = Facts { network: self.network, country: self.country, pop: self.pop, ..Facts::at(now) };
        // Asked in the order in which they were copied.
        facts.with_headers(|_| headers.next()?)
    }
}

/// Reads a request's body, if it is within the bound and comes in time.
pub(crate) async fn body(request: &Request, most: usize) -> Result<Vec<u8>, Problem> {
    let body = settled(glue::body(request, most as u32, BODY_TIMEOUT)).await;
    match body.map(|body| body.dyn_into::<Uint8Array>()) {
        Ok(Ok(bytes)) => Ok(bytes.to_vec()),
        Ok(Err(wrong)) if wrong == glue::TOO_LARGE => Err(Problem::body_too_large(most)),
        Ok(Err(wrong)) if wrong == glue::LATE => Err(Problem::new(Refusal::BodyTimeout)),
        _ => Err(Problem::new(firsthop_core::Error::Truncated)),
    }
}
