//! What the platform gives: clock, randomness, timers, and bodies read within bounds.

use std::{future::Future, pin::pin, time::Duration};

use futures_util::future::{Either, select};
use wasm_bindgen::{JsCast, JsValue, prelude::wasm_bindgen};
use worker::{
    Delay,
    js_sys::{self, Reflect, Uint8Array, futures::JsFuture},
    web_sys::{ReadableStream, ReadableStreamDefaultReader},
};

use firsthop_core::Timestamp;

#[wasm_bindgen]
extern "C" {
    /// The platform refuses it in global scope: only while a request is handled.
    #[wasm_bindgen(js_namespace = crypto, js_name = getRandomValues)]
    fn get_random_values(buffer: &mut [u8]);
}

/// The platform's clock. It stands still between two I/O operations.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_millis(js_sys::Date::now() as u64)
}

/// Fills the buffer with random bytes.
pub(crate) fn random(buffer: &mut [u8]) {
    get_random_values(buffer);
}

/// Random bytes.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    random(&mut bytes);
    bytes
}

/// The future's result, or nothing if it takes longer.
pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    match select(pin!(future), pin!(Delay::from(limit))).await {
        Either::Left((result, _)) => Some(result),
        Either::Right(_) => None,
    }
}

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It is longer than the limit. What came of it is thrown away.
    TooLarge,
    /// The connection broke.
    Broken,
}

/// Reads a body of at most `limit` bytes; `declared` is its `Content-Length`, if it has one.
///
/// A body that declares more is not read at all, and one that declares nothing is cut off where it passes the limit.
pub(crate) async fn read(body: Option<ReadableStream>, declared: Option<u64>, limit: usize) -> Result<Vec<u8>, Unread> {
    let declared = match declared {
        Some(declared) => usize::try_from(declared).ok().filter(|&length| length <= limit).ok_or(Unread::TooLarge)?,
        None => 0,
    };
    let mut bytes = Vec::with_capacity(declared);
    let Some(body) = body else { return Ok(bytes) };
    let reader: ReadableStreamDefaultReader = body.get_reader().unchecked_into();
    loop {
        let chunk = JsFuture::from(reader.read()).await.map_err(|_| Unread::Broken)?;
        let value = Reflect::get(&chunk, &"value".into()).map_err(|_| Unread::Broken)?;
        if value.is_undefined() {
            return Ok(bytes);
        }
        let value: Uint8Array = value.dyn_into().map_err(|_: JsValue| Unread::Broken)?;
        let (start, length) = (bytes.len(), value.length() as usize);
        if length > limit - start {
            // Nobody waits for it: the answer goes out while the rest of the body is turned away.
            drop(reader.cancel());
            return Err(Unread::TooLarge);
        }
        bytes.resize(start + length, 0);
        value.copy_to(&mut bytes[start..]);
    }
}
