//! What JavaScript calls: numbers in, numbers out.
//!
//! Lengths are in bytes. "Staged" is what JavaScript has written into the staging buffer. A call that can fail returns a
//! code: see [`code`].

use firsthop_core::{Error, EventKind, Screen, TenantId, Timestamp};
use wasm_bindgen::prelude::wasm_bindgen;

use crate::memory::{staging_address, with};

/// 0: done. 1: full, so close the frame and try again. 2: over a size. 3: too deep. 4: anything else.
const fn code(result: Result<(), Error>) -> u32 {
    match result {
        Ok(()) => 0,
        Err(Error::BufferFull | Error::Count) => 1,
        Err(Error::TooLarge) => 2,
        Err(Error::TooDeep) => 3,
        Err(_) => 4,
    }
}

/// Where text is staged. [`STAGING`](crate::memory::STAGING) bytes further is the frame.
#[wasm_bindgen(js_name = stagingAt)]
pub fn staging_at() -> u32 {
    staging_address()
}

/// Says who writes. Staged: the sixteen bytes of the source, then the write key.
#[wasm_bindgen(js_name = startPage)]
pub fn start_page(tenant_low: u32, tenant_high: u32, write_key_len: u32) -> u32 {
    let tenant = TenantId::new(u64::from(tenant_high) << 32 | u64::from(tenant_low));
    with(|page| code(page.start(tenant, write_key_len as usize)))
}

/// Signs from the next frame on. Staged: the secret (32 bytes), then the grant (30). `alg` 0 ends the session.
#[wasm_bindgen(js_name = startSession)]
pub fn start_session(alg: u32, key_id: u32, epoch: u32) -> u32 {
    with(|page| code(page.session(alg, key_id, epoch)))
}

/// Seals every frame from the next on. Staged: the region's public key (32 bytes).
#[cfg(feature = "seal")]
#[wasm_bindgen(js_name = sealTo)]
pub fn seal_to(id: u32) -> u32 {
    with(|page| code(page.seal_to(firsthop_core::RegionKeyId::new(id))))
}

/// Sets a text of the next frame's context, by its place there. Staged: the text.
#[wasm_bindgen(js_name = setText)]
pub fn set_text(field: u32, len: u32) -> u32 {
    with(|page| code(page.text(field, len as usize)))
}

/// Begins a frame with the context that was set; the block is what its SDK adds to it. `region` is its two letters, the
/// first in the lower byte.
#[wasm_bindgen(js_name = beginFrame)]
pub fn begin_frame(consent: u32, region: u32, created_ms: f64, screen_width: u32, screen_height: u32) -> u32 {
    let [first, second, ..] = region.to_le_bytes();
    let screen = Screen { width: screen_width, height: screen_height };
    with(|page| code(page.begin(consent as u8, [first, second], timestamp(created_ms), screen)))
}

/// Begins a block of properties.
#[wasm_bindgen(js_name = beginBlock)]
pub fn begin_block() {
    with(|page| page.block());
}

/// Writes an entry of the map or list that is open. Staged: its key, if `key_len` is not −1. `kind` is one of: 0 null,
/// 1 false, 2 true, 3 the number `value`, 4 the text of length `value` that is staged behind the key, 5 a list, 6 a map,
/// 7 the end of what was opened last, 8 the whole number whose 64 bits are `value` and `high`, 9 the same with a sign.
#[wasm_bindgen(js_name = putEntry)]
pub fn put_entry(key_len: i32, kind: u32, value: f64, high: u32) -> u32 {
    with(|page| code(page.put(key_len, kind, value, high)))
}

/// Writes the event into the frame, with the block as its properties. Returns the frame's length; or a code, which is
/// less than any frame is long. Staged: its name.
#[wasm_bindgen(js_name = putEvent)]
pub fn put_event(kind: u32, name_len: u32, time_ms: f64) -> u32 {
    let kind = EventKind::from_wire(kind.into()).unwrap_or_default();
    with(|page| match page.event(kind, name_len as usize, timestamp(time_ms)) {
        Ok(len) => len as u32,
        Err(error) => code(Err(error)),
    })
}

/// Signs the frame, and returns its length. Of what was `dropped`, the `skipped` have no number yet: they get those before the frame's. In
/// the build that seals, 32 random bytes are staged.
#[wasm_bindgen(js_name = finishFrame)]
pub fn finish_frame(dropped: u32, skipped: u32) -> u32 {
    with(|page| page.finish(dropped, skipped).map_or(0, |len| len as u32))
}

const fn timestamp(millis: f64) -> Timestamp {
    Timestamp::from_millis(millis as u64)
}
