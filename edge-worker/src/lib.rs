//! The regional first hop as a Cloudflare Worker: I/O around `firsthop-intake`, and no decision of its own.
//!
//! ```text
//!  request ──► body within bounds ──► intake decides ──► seen? ──► envelope ──► server ──► receipt ──► answer
//!              arrival                edge, lease        edge      forward      upstream               reply
//!                                                                     │ away           ▲
//!                                                                     └──► spool ──────┘ in order, by alarm
//! ```
//!
//! An event is acknowledged when the server has acknowledged it, or, while the server is away, when the spool has it on
//! disk; and not before. Until then the sender keeps it: the answer is 503 with `Retry-After`, and nothing is remembered
//! as seen.

mod arrival;
mod config;
mod edge;
mod forward;
mod hop;
mod lease;
mod object;
mod platform;
mod reply;
mod sdk;
mod spool;
mod upstream;

use std::{panic::AssertUnwindSafe, rc::Rc};

use worker::{
    Context, Env, Result, event,
    js_sys::futures::{JsFuture, future_to_promise},
    wasm_bindgen::{JsCast, JsValue},
    web_sys::{Request, Response},
};

/// Answers a request, and finishes it even if the client has gone: a page that closes has often just sent its last
/// events, and they are not to be lost half-way.
#[event(fetch)]
async fn fetch(request: Request, env: Env, context: Context) -> Result<Response> {
    let context = Rc::new(context);
    let own = Rc::clone(&context);
    let promise = future_to_promise(AssertUnwindSafe(async move {
        let head = request.method() == "HEAD";
        let reply = hop::answer(&request, &env, &own).await;
        reply.into_response(head).map(JsValue::from)
    }));
    Context::as_ref(&context).wait_until(&promise)?;
    Ok(JsFuture::from(promise).await?.dyn_into()?)
}
