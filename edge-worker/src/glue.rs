//! What `js/glue.js` does for us.

use wasm_bindgen::{JsValue, prelude::wasm_bindgen};
use worker::{
    js_sys::{Promise, Uint8Array},
    web_sys::{Request, Response},
};

#[wasm_bindgen(module = "/js/glue.js")]
extern "C" {
    /// What `js/worker.js` needs of it. It does not fail; but two functions with nothing to convert on the way would both be linked directly,
    /// which wasm-bindgen writes down as one key of an object twice, and esbuild and wrangler warn of that.
    #[wasm_bindgen(catch)]
    pub(crate) fn shared() -> Result<JsValue, JsValue>;

    /// Says which headers and facts a request's head consists of, one to a line.
    /// Returns how often that was said before in this isolate.
    pub(crate) fn want(headers: &str, facts: &str) -> u32;

    /// Writes a request's head into the buffer. Returns how long it is; where the buffer is shorter, how long one is that is enough.
    pub(crate) fn head(request: &Request, buffer: &mut [u8]) -> u32;

    /// Leaves with JavaScript what this step waits for.
    pub(crate) fn wait(promise: &Promise);

    /// Says that the task is to be gone on with as well when it is woken; `now` if it was already.
    pub(crate) fn sleep(task: u32, now: bool);

    /// Wakes a task.
    pub(crate) fn wake(task: u32);

    /// A request's body: [`Uint8Array`], or a number that says what is wrong. What it takes of the room for bodies it has under a number of its own, until
    /// that is given back; under 0 it takes none. All that come from one network have a part of it; 0 is one that is not known.
    pub(crate) fn body(request: &Request, number: u32, network: f64, most: u32, limit_ms: u32) -> Promise;

    /// Gives back what the body under this number has of the room.
    pub(crate) fn give(number: u32);

    /// Posts to whoever has a method `fetch`, undefined being the network; an [`Answer`] or undefined. `head` is the URL, and names and values of headers
    /// in turn, one to a line; nothing if it is that of the last one posted.
    pub(crate) fn post(whom: &JsValue, head: Option<&str>, body: Option<&[u8]>, limit_ms: u32, most: u32) -> Promise;

    /// Posts to the network what never was in our memory. Nothing of it is kept, so the head is said each time.
    #[wasm_bindgen(js_name = passOn)]
    pub(crate) fn pass_on(head: &str, body: &Uint8Array, limit_ms: u32, most: u32) -> Promise;

    /// The platform's key for HMAC-SHA256.
    #[wasm_bindgen(js_name = hmacKey)]
    pub(crate) fn hmac_key(secret: &[u8]) -> Promise;

    /// The HMAC-SHA256 of a message: an `ArrayBuffer`.
    pub(crate) fn hmac(key: &JsValue, message: &[u8]) -> Promise;

    /// What was deflated: a [`Uint8Array`].
    pub(crate) fn inflate(deflated: &[u8]) -> Promise;

    /// A response. `head` is names and values of headers in turn, one to a line; nothing if it is that of the last one.
    #[wasm_bindgen(catch)]
    pub(crate) fn respond(status: u16, head: Option<&str>, body: Option<&[u8]>) -> Result<Response, JsValue>;

    /// The same with a text, which is less work for the platform than bytes are.
    #[wasm_bindgen(catch, js_name = respond)]
    pub(crate) fn respond_text(status: u16, head: Option<&str>, body: &str) -> Result<Response, JsValue>;

    /// The same with a body that never was in our memory.
    #[wasm_bindgen(catch, js_name = respond)]
    pub(crate) fn respond_with(status: u16, head: Option<&str>, body: &Uint8Array) -> Result<Response, JsValue>;

    /// What came back.
    pub(crate) type Answer;

    #[wasm_bindgen(method, getter)]
    pub(crate) fn status(this: &Answer) -> u16;

    #[wasm_bindgen(method, getter)]
    pub(crate) fn media(this: &Answer) -> Option<String>;

    #[wasm_bindgen(method, getter, js_name = retryAfter)]
    pub(crate) fn retry_after(this: &Answer) -> Option<String>;

    #[wasm_bindgen(method, getter)]
    pub(crate) fn verdict(this: &Answer) -> Option<String>;

    #[wasm_bindgen(method, getter)]
    pub(crate) fn bytes(this: &Answer) -> Uint8Array;
}

/// What [`body`] says of one that is longer than allowed.
pub(crate) const TOO_LARGE: u32 = 1;
/// What [`body`] says of one that did not come in time.
pub(crate) const LATE: u32 = 3;
/// What [`body`] says of one for which there is no room beside the others.
pub(crate) const FULL: u32 = 4;
