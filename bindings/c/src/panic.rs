//! A fault of ours on a chip: the port is told what, and does not come back.

use core::ffi::{CStr, c_char};
use core::fmt::{self, Write as _};
use core::panic::PanicInfo;

unsafe extern "C" {
    /// The port's: prints the message and resets the chip.
    fn lockstep_panic(message: *const c_char) -> !;
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut text = Text { bytes: [0; MESSAGE_BYTES_MAX], length: 0 };
    // What does not fit is left out.
    let _ = write!(text, "{info}");
    let message = CStr::from_bytes_until_nul(&text.bytes).unwrap_or(c"panic");
    // SAFETY: it ends with NUL, and lives on, since the call never comes back.
    unsafe { lockstep_panic(message.as_ptr()) }
}

/// A C string in the making; its last byte stays NUL.
struct Text {
    bytes: [u8; MESSAGE_BYTES_MAX],
    length: usize,
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            match self.bytes.get_mut(self.length) {
                Some(place) if self.length + 1 < MESSAGE_BYTES_MAX => *place = byte,
                _ => return Err(fmt::Error),
            }
            self.length += 1;
        }
        Ok(())
    }
}

const MESSAGE_BYTES_MAX: usize = 160;
