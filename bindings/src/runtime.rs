//! What a `no_std` module for WebAssembly brings itself.

use core::{
    alloc::{GlobalAlloc, Layout},
    panic::PanicInfo,
    ptr,
};

/// A panic is a trap, which JavaScript sees as an exception: its message would be most of the module.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

/// `wasm-bindgen` links `alloc`, and that wants an allocator to be named. Nothing allocates: what tried would get
/// nothing, and `build.mjs` checks that no instruction asks for memory.
struct Refuse;

#[global_allocator]
static ALLOCATOR: Refuse = Refuse;

// SAFETY: returning null is how an allocator refuses; nothing was ever given out that could be given back.
unsafe impl GlobalAlloc for Refuse {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}
