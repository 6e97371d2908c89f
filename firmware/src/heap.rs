//! The memory that is handed out while the chip runs.

/// Before anything is asked for.
pub(crate) fn begin() {
    // What the bootloader has run in is free now.
    #[cfg(feature = "radio")]
    esp_alloc::heap_allocator!(#[esp_hal::ram(reclaimed)] size: RECLAIMED_BYTES);
    esp_alloc::heap_allocator!(size: HEAP_BYTES);
}

/// What the node and everything beside it has; the radio's driver takes more than half of it.
#[cfg(feature = "radio")]
const HEAP_BYTES: usize = 108 * 1024;
#[cfg(feature = "radio")]
const RECLAIMED_BYTES: usize = 64 * 1024;
/// What the node and everything beside it has.
#[cfg(not(feature = "radio"))]
const HEAP_BYTES: usize = 96 * 1024;
