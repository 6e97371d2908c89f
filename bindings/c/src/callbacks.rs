//! What the library calls: the flash of the chip, and where log lines go.

use core::ffi::{CStr, c_char, c_void};
use core::fmt;

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};

use crate::memory::outside_of_ours;

/// Functions of the port. Offsets count from the beginning of the whole flash chip, not of a
/// partition: where slots, otadata and record are, the partition table at 0x8000 says. A function
/// of the flash comes back when it is done, with 0, or any other number if it failed. None of them
/// may call this library: such a call is refused.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct LockstepCallbacks {
    /// Handed to each of them as it is.
    pub context: *mut c_void,
    /// Reads `length` bytes from any offset.
    pub flash_read: Option<
        unsafe extern "C" fn(context: *mut c_void, offset: u32, bytes: *mut u8, length: u32) -> i32,
    >,
    /// Writes `length` bytes, both multiples of 4, never across a multiple of 256: clears bits,
    /// and sets none. A few words are written again, with more of their bits cleared.
    pub flash_write: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            offset: u32,
            bytes: *const u8,
            length: u32,
        ) -> i32,
    >,
    /// Sets `length` bytes to 0xFF, both multiples of 4096. At a fast pace up to 64 KiB at once.
    pub flash_erase:
        Option<unsafe extern "C" fn(context: *mut c_void, offset: u32, length: u32) -> i32>,
    /// A line of the log, ended by NUL, valid until this comes back; `level` is a `LockstepLevel`.
    /// May be null.
    pub log: Option<unsafe extern "C" fn(context: *mut c_void, level: i32, text: *const c_char)>,
}

/// The flash as the port reaches it.
#[derive(Debug)]
pub(crate) struct PortFlash {
    callbacks: LockstepCallbacks,
    size_bytes: usize,
}

impl PortFlash {
    /// `None` if a function is missing that must be there.
    pub(crate) fn new(callbacks: LockstepCallbacks, size_bytes: u32) -> Option<Self> {
        let size_bytes = usize::try_from(size_bytes).ok()?;
        let LockstepCallbacks { flash_read, flash_write, flash_erase, .. } = callbacks;
        let is_whole = flash_read.is_some() && flash_write.is_some() && flash_erase.is_some();
        is_whole.then_some(Self { callbacks, size_bytes })
    }

    /// Hands a line to the port, if that wants lines.
    pub(crate) fn log(&self, level: i32, text: &CStr) {
        if let Some(log) = self.callbacks.log {
            // SAFETY: the port's function with the port's context; the text ends with NUL.
            outside_of_ours(|| unsafe { log(self.callbacks.context, level, text.as_ptr()) });
        }
    }

    fn place(&self, offset: u32, length: usize) -> Result<u32, FlashFailed> {
        let end = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(length));
        let fits = end.is_some_and(|end| end <= self.size_bytes);
        u32::try_from(length).ok().filter(|_| fits).ok_or(FlashFailed { code: i32::MIN })
    }
}

/// The port's function came back with this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlashFailed {
    code: i32,
}

impl fmt::Display for FlashFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the port's flash came back with {}", self.code)
    }
}

impl core::error::Error for FlashFailed {}

impl NorFlashError for FlashFailed {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl ErrorType for PortFlash {
    type Error = FlashFailed;
}

fn done(code: Option<i32>) -> Result<(), FlashFailed> {
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(FlashFailed { code }),
        None => Err(FlashFailed { code: i32::MIN }),
    }
}

impl ReadNorFlash for PortFlash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashFailed> {
        let length = self.place(offset, bytes.len())?;
        let (read, context) = (self.callbacks.flash_read, self.callbacks.context);
        let read = read.map(|read| {
            // SAFETY: the port's function with the port's context; it may write `length` bytes.
            outside_of_ours(|| unsafe { read(context, offset, bytes.as_mut_ptr(), length) })
        });
        done(read)
    }

    fn capacity(&self) -> usize {
        self.size_bytes
    }
}

impl NorFlash for PortFlash {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = 4096;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashFailed> {
        let length = to.saturating_sub(from);
        self.place(from, usize::try_from(length).unwrap_or(usize::MAX))?;
        let (erase, context) = (self.callbacks.flash_erase, self.callbacks.context);
        // SAFETY: the port's function with the port's context.
        let erase = erase.map(|erase| outside_of_ours(|| unsafe { erase(context, from, length) }));
        done(erase)
    }

    /// Page by page: a chip that is asked for more wraps within the page, and writes it wrong.
    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashFailed> {
        self.place(offset, bytes.len())?;
        let (write, context) = (self.callbacks.flash_write, self.callbacks.context);
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let room = PAGE_BYTES - at % PAGE_BYTES;
            let length = u32::try_from(rest.len()).unwrap_or(u32::MAX).min(room);
            let (page, behind) = rest.split_at(length as usize);
            let written = write.map(|write| {
                // SAFETY: the port's function with the port's context; it may read `length` bytes.
                outside_of_ours(|| unsafe { write(context, at, page.as_ptr(), length) })
            });
            done(written)?;
            (at, rest) = (at + length, behind);
        }
        Ok(())
    }
}

/// What a flash chip writes at once.
const PAGE_BYTES: u32 = 256;

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    unsafe extern "C" fn note(context: *mut c_void, at: u32, bytes: *const u8, length: u32) -> i32 {
        // SAFETY: the list of this test, and as many bytes as the library says.
        let (written, bytes) = unsafe {
            let bytes = core::slice::from_raw_parts(bytes, length as usize);
            (&mut *context.cast::<Vec<(u32, Vec<u8>)>>(), bytes)
        };
        written.push((at, bytes.to_vec()));
        0
    }

    unsafe extern "C" fn read(_: *mut c_void, _: u32, _: *mut u8, _: u32) -> i32 {
        0
    }

    unsafe extern "C" fn erase(_: *mut c_void, _: u32, _: u32) -> i32 {
        0
    }

    /// A chip that is asked for more than is left of a page begins it anew.
    #[test]
    fn a_write_is_handed_over_page_by_page() {
        let mut written: Vec<(u32, Vec<u8>)> = Vec::new();
        let callbacks = LockstepCallbacks {
            context: core::ptr::from_mut(&mut written).cast(),
            flash_read: Some(read),
            flash_write: Some(note),
            flash_erase: Some(erase),
            log: None,
        };
        let mut flash = PortFlash::new(callbacks, 4096).unwrap();
        let bytes: Vec<u8> = (0..600_u32).map(|at| at.to_le_bytes()[0]).collect();
        flash.write(200, &bytes).unwrap();
        let places: Vec<_> = written.iter().map(|(at, page)| (*at, page.len())).collect();
        assert_eq!(places, [(200, 56), (256, 256), (512, 256), (768, 32)]);
        let whole: Vec<u8> = written.into_iter().flat_map(|(_, page)| page).collect();
        assert_eq!(whole, bytes);
    }
}
