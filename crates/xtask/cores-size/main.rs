//! Links the cores as a chip's firmware would, so that their size can be read off the result.
//!
//! It is never run: what matters is that the linker believes that everything called here is used.

#![no_std]
#![no_main]

mod agent;
mod proto;
mod rollout;

use core::alloc::{GlobalAlloc, Layout};
use core::hint::black_box;
use core::panic::PanicInfo;
use core::ptr;

/// Where the linker starts to look for what is used.
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    let bytes: &[u8] = black_box(&[]);
    proto::run(bytes);
    agent::run(bytes);
    rollout::run(bytes);
    loop {}
}

/// A chip brings an allocator of its own; this one is here so that alloc can be linked, and costs
/// next to nothing, so that only its users are measured.
struct Nowhere;

#[global_allocator]
static ALLOCATOR: Nowhere = Nowhere;

// SAFETY: no memory is ever handed out, so there is none that could be misused.
unsafe impl GlobalAlloc for Nowhere {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        // The compiler must not learn that this always fails, or it removes what comes after.
        black_box(ptr::null_mut())
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    loop {}
}
