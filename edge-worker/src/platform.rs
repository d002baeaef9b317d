//! What the platform gives: clock, randomness, and HMAC in machine code.

use wasm_bindgen::{JsCast as _, prelude::wasm_bindgen};
use worker::js_sys::{self, Uint8Array};

use firsthop_core::{DOMAIN, Timestamp};

use crate::{glue, steps::settled};

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

/// From how many bytes on the platform's HMAC is worth the way there and back.
pub(crate) const LONG: usize = 4096;

/// The HMAC-SHA256 of a frame's signed bytes. Nothing if the platform does not do it.
pub(crate) async fn hmac(secret: &[u8; 32], signed: &[u8]) -> Option<[u8; 32]> {
    let mac = settled(glue::hmac(secret, DOMAIN, signed)).await.ok()?;
    mac.dyn_into::<Uint8Array>().ok()?.to_vec().try_into().ok()
}
