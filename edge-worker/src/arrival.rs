//! What a request says of itself and of where it comes from.

use std::time::Duration;

use worker::{
    js_sys::Reflect,
    wasm_bindgen::JsValue,
    web_sys::{Headers, Request},
};

use firsthop_core::{Network, Timestamp};
use firsthop_intake::{Facts, Problem, Refusal};

use crate::platform::{Unread, read, within};

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// The facts of a request, copied out of the platform's objects.
pub(crate) struct Arrival {
    headers: [Option<String>; Facts::HEADERS.len()],
    network: Network,
    country: Option<String>,
    pop: Option<String>,
}

impl Arrival {
    pub(crate) fn new(request: &Request) -> Self {
        let headers = request.headers();
        // What workerd says of a request's origin is missing where there is no Cloudflare in front of it.
        let cf = Reflect::get(request, &"cf".into()).unwrap_or(JsValue::UNDEFINED);
        let fact = |name: &str| Reflect::get(&cf, &name.into()).ok()?.as_string();
        Self {
            headers: Facts::HEADERS.map(|name| header(&headers, name)),
            // The only place where an address is seen, and it is cut here.
            network: header(&headers, "cf-connecting-ip")
                .and_then(|address| address.parse().ok())
                .map_or(Network::Unknown, Network::of),
            // Cloudflare's XX is "not known", and T1 is Tor: no countries.
            country: fact("country")
                .filter(|country| country != "XX" && country.bytes().all(|b| b.is_ascii_uppercase())),
            pop: fact("colo"),
        }
    }

    /// The facts at a moment.
    pub(crate) fn facts(&self, now: Timestamp) -> Facts<'_> {
        let mut headers = self.headers.iter();
        let facts = Facts {
            network: self.network,
            country: self.country.as_deref(),
            pop: self.pop.as_deref(),
            ..Facts::at(now)
        };
        // Asked in the order in which they were copied.
        facts.with_headers(|_| headers.next()?.as_deref())
    }
}

/// Reads a request's body, if it is within the bound and comes in time.
pub(crate) async fn body(request: &Request, most: usize) -> Result<Vec<u8>, Problem> {
    let declared = header(&request.headers(), "content-length").and_then(|length| length.parse().ok());
    match within(BODY_TIMEOUT, read(request.body(), declared, most)).await {
        Some(Ok(body)) => Ok(body),
        Some(Err(Unread::TooLarge)) => Err(Problem::body_too_large(most)),
        Some(Err(Unread::Broken)) => Err(Problem::new(firsthop_core::Error::Truncated)),
        None => Err(Problem::new(Refusal::BodyTimeout)),
    }
}

fn header(headers: &Headers, name: &str) -> Option<String> {
    headers.get(name).ok().flatten()
}
