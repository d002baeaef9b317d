//! The module's memory: one page and its buffers. All `unsafe` of the module stands here and in `runtime`.

use core::{cell::UnsafeCell, str};

use firsthop_core::limits::{MAX_CONTEXT, MAX_EVENT};

use crate::page::Page;

/// Text for the next call. Longer text is in no valid event.
pub(crate) const STAGING: usize = MAX_EVENT + 1024;
/// A frame with the largest context or the largest event, well within the 64 KB that a browser still sends for a page
/// that is gone.
const FRAME: usize = 48 * 1024;

/// Zero at the start, so that they take no room in the file. JavaScript counts on the order of the first two.
#[repr(C)]
pub(crate) struct Buffers {
    pub(crate) staging: [u8; STAGING],
    pub(crate) frame: [u8; FRAME],
    pub(crate) shape: [u8; MAX_EVENT],
    pub(crate) text: [u8; MAX_EVENT],
    pub(crate) context: [u8; MAX_CONTEXT],
}

struct Single<T>(UnsafeCell<T>);

// SAFETY: a module of WebAssembly has one thread.
unsafe impl<T> Sync for Single<T> {}

static BUFFERS: Single<Buffers> = Single(UnsafeCell::new(Buffers {
    staging: [0; STAGING],
    frame: [0; FRAME],
    shape: [0; MAX_EVENT],
    text: [0; MAX_EVENT],
    context: [0; MAX_CONTEXT],
}));

// SAFETY: nothing else borrows the buffers, but for `context_buffer`.
static PAGE: Single<Page> = Single(UnsafeCell::new(Page::new(unsafe { &mut *BUFFERS.0.get() })));

/// Calls with the page.
#[inline(always)]
pub(crate) fn with<R>(call: impl FnOnce(&mut Page) -> R) -> R {
    // SAFETY: every export calls this once, and nothing that it calls leaves the module: no second borrow exists.
    call(unsafe { &mut *PAGE.0.get() })
}

/// Where JavaScript finds the buffers.
pub(crate) fn staging_address() -> u32 {
    BUFFERS.0.get() as usize as u32
}

/// The buffer of a context's texts, once more.
///
/// # Safety
/// Nothing that was borrowed from it may be in use.
pub(crate) unsafe fn context_buffer() -> &'static mut [u8] {
    // SAFETY: the caller's.
    unsafe { &mut (*BUFFERS.0.get()).context }
}

/// Staged text. JavaScript writes nothing but what `TextEncoder` makes, or ASCII.
#[inline(always)]
pub(crate) fn utf8(staged: &[u8]) -> &str {
    // SAFETY: so it is UTF-8. A check would be a tenth of the module, and whoever reads a frame makes it anyway; what
    // is done with text here is to copy it, which harms nothing should it be none.
    unsafe { str::from_utf8_unchecked(staged) }
}
