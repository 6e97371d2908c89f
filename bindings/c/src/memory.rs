//! The heap of an instance: the memory that its caller handed in.
//!
//! Rust has one allocator for a whole program, and an instance has its own memory. Both fit since a
//! node allocates only while it is called: each call says first whose memory serves until it comes
//! back. That word is the one piece of global state here.
//!
//! On a host it is a thread's own word, and outside of a call the system's allocator serves the
//! rest of the program. On a chip nothing allocates outside of a call.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;

use linked_list_allocator::Heap;

/// A heap in somebody's memory, and what it has been through.
pub(crate) struct Arena {
    heap: Heap,
    begin: usize,
    end: usize,
    peak_bytes: usize,
}

impl Arena {
    /// # Safety
    ///
    /// `size_bytes` from `begin` on must be the caller's to use until the arena is dropped.
    pub(crate) unsafe fn new(begin: *mut u8, size_bytes: usize) -> Self {
        let mut heap = Heap::empty();
        // SAFETY: it is the caller's, as said above.
        unsafe { heap.init(begin, size_bytes) };
        let begin = begin as usize;
        Self { heap, begin, end: begin + size_bytes, peak_bytes: 0 }
    }

    /// Of no memory: it serves until there is one.
    pub(crate) const fn empty() -> Self {
        Self { heap: Heap::empty(), begin: 0, end: 0, peak_bytes: 0 }
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.heap.size()
    }

    pub(crate) fn used_bytes(&self) -> usize {
        self.heap.used()
    }

    pub(crate) const fn peak_bytes(&self) -> usize {
        self.peak_bytes
    }

    fn allocate(&mut self, layout: Layout) -> *mut u8 {
        let Ok(found) = self.heap.allocate_first_fit(layout) else { return core::ptr::null_mut() };
        self.peak_bytes = self.peak_bytes.max(self.heap.used());
        found.as_ptr()
    }

    fn holds(&self, place: *mut u8) -> bool {
        (self.begin..self.end).contains(&(place as usize))
    }
}

/// Until it is dropped, an arena serves.
pub(crate) struct Serving(());

impl Serving {
    /// `None` if one serves already: a call is running.
    pub(crate) fn begin(arena: *mut Arena) -> Option<Self> {
        // Made only then: what is dropped here would end the call that is running.
        if current::claim(arena) { Some(Self(())) } else { None }
    }
}

impl Serving {
    /// From here on this one serves.
    pub(crate) fn serve(&self, arena: *mut Arena) {
        current::serve(arena);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        current::leave();
    }
}

/// Calls a function of the port, with whose memory ours has nothing to do. (One in C has an
/// allocator of its own in any case; one in Rust, on a host, has this one.)
pub(crate) fn outside_of_ours<T>(call: impl FnOnce() -> T) -> T {
    let _away = current::away();
    call()
}

struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

// SAFETY: each of the two heaps keeps the contract, and a place goes back to the heap it is of.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let arena = current::get();
        if arena.is_null() {
            return outside::alloc(layout);
        }
        // SAFETY: whoever claimed it keeps it in place until the claim ends, and is in this call:
        // nobody else looks at it meanwhile.
        unsafe { (*arena).allocate(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        let arena = current::get();
        // SAFETY: as above.
        let is_ours = !arena.is_null() && unsafe { (*arena).holds(place) };
        match NonNull::new(place).filter(|_| is_ours) {
            // SAFETY: it lies in this heap, and was given out with this layout.
            Some(place) => unsafe { (*arena).heap.deallocate(place, layout) },
            None => outside::dealloc(place, layout),
        }
    }
}

#[cfg(feature = "std")]
mod current {
    use core::cell::Cell;
    use std::thread_local;

    use super::Arena;

    thread_local! {
        static CURRENT: Cell<*mut Arena> = const { Cell::new(core::ptr::null_mut()) };
        /// A function of the port is running.
        static IS_AWAY: Cell<bool> = const { Cell::new(false) };
    }

    pub(super) fn get() -> *mut Arena {
        // A thread that ends frees what is not ours any more.
        let is_away = IS_AWAY.try_with(Cell::get).unwrap_or(true);
        let current = CURRENT.try_with(Cell::get).unwrap_or(core::ptr::null_mut());
        if is_away { core::ptr::null_mut() } else { current }
    }

    pub(super) struct Away;

    pub(super) fn away() -> Away {
        IS_AWAY.set(true);
        Away
    }

    impl Drop for Away {
        fn drop(&mut self) {
            IS_AWAY.set(false);
        }
    }

    pub(super) fn claim(arena: *mut Arena) -> bool {
        let is_free = CURRENT.get().is_null();
        if is_free {
            CURRENT.set(arena);
        }
        is_free
    }

    pub(super) fn serve(arena: *mut Arena) {
        CURRENT.set(arena);
    }

    pub(super) fn leave() {
        serve(core::ptr::null_mut());
    }
}

#[cfg(not(feature = "std"))]
mod current {
    use core::sync::atomic::{AtomicPtr, Ordering};

    use super::Arena;

    static CURRENT: AtomicPtr<Arena> = AtomicPtr::new(core::ptr::null_mut());

    pub(super) const fn away() {}

    pub(super) fn get() -> *mut Arena {
        CURRENT.load(Ordering::Acquire)
    }

    #[cfg(target_has_atomic = "ptr")]
    pub(super) fn claim(arena: *mut Arena) -> bool {
        let free = core::ptr::null_mut();
        CURRENT.compare_exchange(free, arena, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Such a chip (ESP32-C3) has one core. A callback that calls back is always found; a task that
    /// is interrupted just between these two steps by another one that calls is not.
    #[cfg(not(target_has_atomic = "ptr"))]
    pub(super) fn claim(arena: *mut Arena) -> bool {
        let is_free = get().is_null();
        if is_free {
            CURRENT.store(arena, Ordering::Release);
        }
        is_free
    }

    pub(super) fn serve(arena: *mut Arena) {
        CURRENT.store(arena, Ordering::Release);
    }

    pub(super) fn leave() {
        serve(core::ptr::null_mut());
    }
}

#[cfg(feature = "std")]
mod outside {
    use core::alloc::{GlobalAlloc as _, Layout};
    use std::alloc::System;

    pub(super) fn alloc(layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    pub(super) fn dealloc(place: *mut u8, layout: Layout) {
        // SAFETY: what is in no arena was the system's.
        unsafe { System.dealloc(place, layout) }
    }
}

#[cfg(not(feature = "std"))]
mod outside {
    use core::alloc::Layout;

    /// Nothing of ours runs outside of a call.
    pub(super) fn alloc(_layout: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }

    pub(super) fn dealloc(_place: *mut u8, _layout: Layout) {}
}
