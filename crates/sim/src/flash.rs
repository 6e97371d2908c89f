//! NOR flash as a chip has it, in a file for a desk device and in memory for tests.
//!
//! Both keep a chip's rules: a write only clears bits, an erase sets whole sectors to 0xFF, and an
//! access outside the chip or across its granularity is refused with both values. What
//! [`FileFlash`] has written is there after `kill -9`, in the order in which it was written;
//! [`MemFlash`] runs out of power wherever a test wants it to. What the bytes mean is not known
//! here: see [`crate::bootloader`] and the agent.

use std::{fmt, io, time::Duration};

use embedded_storage::nor_flash::{NorFlash, NorFlashError, NorFlashErrorKind};

mod file;
mod mem;
mod wear;

pub use file::{FileFlash, OpenError};
pub use mem::MemFlash;
pub use wear::Wear;

/// The smallest part that can be erased.
pub const SECTOR_SIZE_BYTES: u32 = 4096;
/// A chip erases an aligned block of this size faster than its 16 sectors one by one.
pub const BLOCK_SIZE_BYTES: u32 = 64 * 1024;
/// What a chip writes in one go; a power cut falls between two of them.
pub const PAGE_SIZE_BYTES: u32 = 256;
/// The smallest part that can be written.
pub const WORD_SIZE_BYTES: u32 = 4;
/// What the boards of the desk have unless told otherwise.
pub const CAPACITY_DEFAULT_BYTES: u32 = 4 * 1024 * 1024;
/// The largest chip that the ESP image header can name.
pub const CAPACITY_MAX_BYTES: u32 = 128 * 1024 * 1024;

/// How long the flash takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Timing {
    /// As fast as the host writes: for tests.
    #[default]
    None,
    /// The calling thread sleeps as long as a chip would be busy.
    Chip {
        /// Erase of one 4 KiB sector.
        sector_erase: Duration,
        /// Erase of one aligned 64 KiB block.
        block_erase: Duration,
        /// Write of one page of up to 256 bytes.
        page_write: Duration,
    },
}

impl Timing {
    /// The typical figures of the W25Q32JV class of chips: 45 ms, 150 ms and 0.4 ms. The maxima
    /// of their data sheets are ten times as long.
    pub const fn chip() -> Self {
        Self::Chip {
            sector_erase: Duration::from_millis(45),
            block_erase: Duration::from_millis(150),
            page_write: Duration::from_micros(400),
        }
    }
}

/// What a flash has been through since it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statistics {
    /// Erases of each sector, in the order of the sectors: the wear.
    pub sector_erases: Vec<u32>,
    /// Bytes that were written, pages in which nothing changed included.
    pub bytes_written: u64,
    /// How long a chip would have been busy; zero with [`Timing::None`].
    pub busy: Duration,
}

impl Statistics {
    fn new(capacity_bytes: u32) -> Self {
        let sectors = capacity_bytes / SECTOR_SIZE_BYTES;
        Self { sector_erases: vec![0; sectors as usize], bytes_written: 0, busy: Duration::ZERO }
    }

    /// Erases of all sectors together.
    pub fn erases_total(&self) -> u64 {
        self.sector_erases.iter().map(|&erases| u64::from(erases)).sum()
    }

    fn count_erase(&mut self, sector_offset: u32) {
        let sector = (sector_offset / SECTOR_SIZE_BYTES) as usize;
        if let Some(erases) = self.sector_erases.get_mut(sector) {
            *erases = erases.saturating_add(1);
        }
    }
}

/// Why the flash did not do what it was asked for. Nothing was changed, except where power went.
#[derive(Debug)]
pub enum FlashError {
    /// The range ends behind the chip, or before it begins.
    OutOfBounds {
        /// `read`, `write` or `erase`.
        action: &'static str,
        /// Where the range starts.
        offset: u64,
        /// Where it ends.
        end: u64,
        /// How large the chip is.
        capacity_bytes: u64,
    },
    /// Offset or length is no multiple of what the chip can do at once.
    NotAligned {
        /// `write` or `erase`.
        action: &'static str,
        /// Where the range starts.
        offset: u64,
        /// Where it ends.
        end: u64,
        /// Both must be multiples of this.
        multiple_bytes: u32,
    },
    /// The power budget of the test is used up; nothing works until power is on again.
    PowerLost,
    /// The host could not do it.
    Io {
        /// `read`, `write` or `erase`.
        action: &'static str,
        /// Where.
        offset: u64,
        /// What the host says.
        source: io::Error,
    },
}

impl fmt::Display for FlashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfBounds { action, offset, end, capacity_bytes } => write!(
                f,
                "cannot {action} flash from {offset:#x} to {end:#x}: it ends at {capacity_bytes:#x}"
            ),
            Self::NotAligned { action, offset, end, multiple_bytes } => write!(
                f,
                "cannot {action} flash from {offset:#x} to {end:#x}: \
                 both must be multiples of {multiple_bytes}"
            ),
            Self::PowerLost => f.write_str("flash has no power"),
            Self::Io { action, offset, .. } => write!(f, "could not {action} flash at {offset:#x}"),
        }
    }
}

impl std::error::Error for FlashError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::OutOfBounds { .. } | Self::NotAligned { .. } | Self::PowerLost => None,
        }
    }
}

impl NorFlashError for FlashError {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            Self::OutOfBounds { .. } => NorFlashErrorKind::OutOfBounds,
            Self::NotAligned { .. } => NorFlashErrorKind::NotAligned,
            Self::PowerLost | Self::Io { .. } => NorFlashErrorKind::Other,
        }
    }
}

/// Writes `bytes` as a flasher does over the serial line: erases the sectors they touch, then
/// writes; a last word is filled up with 0xFF. `offset` must be the start of a sector.
pub fn write_erased<F: NorFlash>(flash: &mut F, offset: u32, bytes: &[u8]) -> Result<(), F::Error> {
    // Too long for the flash is the flash's to refuse: it has the message.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX - SECTOR_SIZE_BYTES);
    let end = offset.saturating_add(length);
    flash.erase(offset, end.checked_next_multiple_of(SECTOR_SIZE_BYTES).unwrap_or(u32::MAX))?;
    let (words, rest) = bytes.split_at(bytes.len() - bytes.len() % WORD_SIZE_BYTES as usize);
    flash.write(offset, words)?;
    if rest.is_empty() {
        return Ok(());
    }
    let mut word = [0xFF; WORD_SIZE_BYTES as usize];
    word.iter_mut().zip(rest).for_each(|(byte, new)| *byte = *new);
    flash.write(end - end % WORD_SIZE_BYTES, &word)
}

/// The rules for every access; nothing is changed if one of them is broken.
fn check_range(
    action: &'static str,
    (offset, end): (u64, u64),
    multiple_bytes: u32,
    capacity_bytes: u64,
) -> Result<(), FlashError> {
    if end < offset || end > capacity_bytes {
        return Err(FlashError::OutOfBounds { action, offset, end, capacity_bytes });
    }
    let multiple = u64::from(multiple_bytes);
    if !offset.is_multiple_of(multiple) || !end.is_multiple_of(multiple) {
        return Err(FlashError::NotAligned { action, offset, end, multiple_bytes });
    }
    Ok(())
}

/// What a write does to flash: a 1 over a 0 leaves a 0.
fn clear_bits(stored: &mut [u8], bytes: &[u8]) {
    stored.iter_mut().zip(bytes).for_each(|(stored, byte)| *stored &= byte);
}

#[cfg(test)]
mod tests;
