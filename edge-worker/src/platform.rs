//! What the platform gives: clock and randomness.

use wasm_bindgen::prelude::wasm_bindgen;
use worker::js_sys;

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

/// A random number, for what is spread by chance.
pub(crate) fn chance() -> u32 {
    u32::from_le_bytes(random_bytes())
}
