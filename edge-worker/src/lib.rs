//! The regional first hop as a Cloudflare Worker: I/O around `firsthop-intake`, and no decision of its own.
//!
//! ```text
//!  request ──► body within bounds ──► may it be read here? ──► intake decides ──► seen? ──► envelope ──► server ──► receipt ──► answer
//!              arrival                gate, documents │        edge, lease        edge      forward      upstream               reply
//!                                                     │                                        │ away           ▲
//!                                                     │                                        └──► spool ──────┘ in order, by alarm
//!                                                     └──► unread ──► the region's host ──► its answer
//! ```
//!
//! An event is acknowledged when the server has acknowledged it, or, while the server is away, when the spool has it on
//! disk; and not before. Until then the sender keeps it: the answer is 503 with `Retry-After`, and nothing is remembered
//! as seen.

mod arrival;
mod config;
mod counters;
mod documents;
mod edge;
mod forward;
mod gate;
mod glue;
mod hop;
mod keys;
mod lease;
mod object;
mod platform;
mod reply;
mod sdk;
mod spool;
mod status;
mod steps;
mod tasks;
mod unread;
mod upstream;

use worker::{
    Context, Env,
    wasm_bindgen::{JsValue, prelude::wasm_bindgen},
    web_sys::Request,
    worker_sys,
};

/// Called once when the module is started.
#[wasm_bindgen(start, private)]
fn start() {
    steps::start(arrival::want());
}

/// The glue that this module is linked with: `js/worker.js` works with the same one.
#[wasm_bindgen]
pub fn glue() -> Result<JsValue, JsValue> {
    glue::shared()
}

/// Begins with a request: see `js/worker.js`.
///
/// Its head is asked for from here. To hand over a `String`, JavaScript writes it into the memory of the instance that it knows; after a failure
/// that is the old one, and the new one, which the call starts, would read and free what it never had.
#[wasm_bindgen]
pub fn begin(request: Request, env: Env, context: worker_sys::Context) -> JsValue {
    let context = Context::new(context);
    steps::begin(async move {
        let head = arrival::head(&request);
        let arrival = arrival::Arrival::new(&request, &head);
        let reply = hop::answer(&arrival, &env, &context).await;
        reply.into_response(arrival.method == "HEAD")
    })
}

/// Goes on with a request that has waited.
#[wasm_bindgen]
pub fn resume(task: u32, value: JsValue, because: u32) -> JsValue {
    steps::resume(task, value, because)
}
