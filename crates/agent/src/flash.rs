//! The whole flash chip through one narrow door: reads, writes and erases at absolute offsets,
//! whatever the driver's own sizes are.
//!
//! Every failure becomes a [`FlashFault`] that names what was tried and where, so that it can
//! travel in a report. What the bytes mean is not known here.

use core::fmt;

use crc::{CRC_32_ISO_HDLC, Crc};
use embedded_storage::nor_flash::{NorFlash, ReadNorFlash};
use lockstep_proto::frame::report::Refusal;

/// The smallest part that this code erases, in bytes.
pub const SECTOR_BYTES: u32 = 4096;
/// What a chip programs at once, in bytes; a write never crosses a multiple of it.
pub const PAGE_BYTES: u32 = 256;
/// A chip erases an aligned block of this size faster than its 16 sectors one by one.
pub const ERASE_BLOCK_BYTES: u32 = 64 * 1024;
/// Offsets and lengths of writes are multiples of this; a shorter end is filled up with 0xFF.
pub const WORD_BYTES: u32 = 4;

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Erasing.
    Erase,
    /// Reading back what was written: it was not there.
    Verify,
    /// Choosing the next otadata sequence number: none is left.
    Number,
}

impl Operation {
    /// The number in reports. Append, never renumber.
    pub const fn number(self) -> u32 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
            Self::Erase => 3,
            Self::Verify => 4,
            Self::Number => 5,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Erase => "erase",
            Self::Verify => "verify",
            Self::Number => "number",
        }
    }
}

/// The flash did not do what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlashFault {
    /// What was tried.
    pub operation: Operation,
    /// Where, as an absolute offset in the chip.
    pub offset: u32,
}

impl fmt::Display for FlashFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "flash did not `{}` at offset {:#x}", self.operation.as_str(), self.offset)
    }
}

impl core::error::Error for FlashFault {}

impl From<FlashFault> for Refusal {
    fn from(fault: FlashFault) -> Self {
        Self::FlashFailed { operation: fault.operation.number(), offset: fault.offset }
    }
}

/// A part of the chip. Its end never lies beyond 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Where it begins.
    pub offset: u32,
    /// Its length in bytes.
    pub size_bytes: u32,
}

impl Region {
    /// The first byte behind it.
    pub const fn end(&self) -> u32 {
        self.offset.saturating_add(self.size_bytes)
    }
}

/// Fills `bytes` from `offset` on.
pub(crate) fn read<F: ReadNorFlash>(
    flash: &mut F,
    offset: u32,
    bytes: &mut [u8],
) -> Result<(), FlashFault> {
    const { assert!((WORD_BYTES as usize).is_multiple_of(F::READ_SIZE)) };
    let fault = |offset| FlashFault { operation: Operation::Read, offset };
    if F::READ_SIZE == 1 {
        return flash.read(offset, bytes).map_err(|_| fault(offset));
    }
    // A driver that reads whole words only: through a buffer that begins and ends on words.
    let (mut at, mut rest) = (offset, bytes);
    while !rest.is_empty() {
        let mut words = [0; 64];
        let skip = (at % WORD_BYTES) as usize;
        let length = rest.len().min(words.len() - skip);
        let (piece, tail) = rest.split_at_mut(length);
        let span = (skip + length).next_multiple_of(WORD_BYTES as usize);
        let start = at - at % WORD_BYTES;
        flash.read(start, &mut words[..span]).map_err(|_| fault(at))?;
        piece.copy_from_slice(&words[skip..skip + length]);
        at = at.saturating_add(bytes_u32(length));
        rest = tail;
    }
    Ok(())
}

/// Writes `bytes` at `offset`, a multiple of [`WORD_BYTES`]; the last word is filled up with 0xFF.
pub(crate) fn write<F: NorFlash>(
    flash: &mut F,
    offset: u32,
    bytes: &[u8],
) -> Result<(), FlashFault> {
    const { assert!((WORD_BYTES as usize).is_multiple_of(F::WRITE_SIZE)) };
    let fault = |offset| FlashFault { operation: Operation::Write, offset };
    let (words, rest) = bytes.split_at(bytes.len() - bytes.len() % WORD_BYTES as usize);
    if !words.is_empty() {
        flash.write(offset, words).map_err(|_| fault(offset))?;
    }
    if rest.is_empty() {
        return Ok(());
    }
    let mut word = [0xFF; WORD_BYTES as usize];
    word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let last = offset.saturating_add(bytes_u32(words.len()));
    flash.write(last, &word).map_err(|_| fault(last))
}

/// Erases from `from` to `to`, both multiples of [`SECTOR_BYTES`].
pub(crate) fn erase<F: NorFlash>(flash: &mut F, from: u32, to: u32) -> Result<(), FlashFault> {
    const { assert!((SECTOR_BYTES as usize).is_multiple_of(F::ERASE_SIZE)) };
    let fault = FlashFault { operation: Operation::Erase, offset: from };
    flash.erase(from, to).map_err(|_| fault)
}

/// Whether `bytes` stand at `offset`.
pub(crate) fn verify<F: ReadNorFlash>(
    flash: &mut F,
    offset: u32,
    bytes: &[u8],
) -> Result<(), FlashFault> {
    let mut at = offset;
    for expected in bytes.chunks(64) {
        let mut found = [0; 64];
        let found = &mut found[..expected.len()];
        read(flash, at, found)?;
        if found != expected {
            return Err(FlashFault { operation: Operation::Verify, offset: at });
        }
        at = at.saturating_add(bytes_u32(expected.len()));
    }
    Ok(())
}

/// Whether everything from `from` to `to` is erased.
pub(crate) fn is_blank<F: ReadNorFlash>(
    flash: &mut F,
    from: u32,
    to: u32,
) -> Result<bool, FlashFault> {
    let mut at = from;
    while at < to {
        let mut piece = [0; 64];
        let length = (to - at).min(64);
        let piece = &mut piece[..length as usize];
        read(flash, at, piece)?;
        if piece.iter().any(|&byte| byte != 0xFF) {
            return Ok(false);
        }
        at += length;
    }
    Ok(true)
}

/// The checksum of everything from `from` to `to`.
pub(crate) fn crc_of<F: ReadNorFlash>(
    flash: &mut F,
    from: u32,
    to: u32,
) -> Result<u32, FlashFault> {
    let mut digest = CRC.digest();
    let mut at = from;
    while at < to {
        let mut piece = [0; 64];
        let length = (to - at).min(64);
        let piece = &mut piece[..length as usize];
        read(flash, at, piece)?;
        digest.update(piece);
        at += length;
    }
    Ok(digest.finalize())
}

/// With a table of 1 KiB: every boot reads a whole half of the record.
pub(crate) static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Lengths of buffers in this crate are far below 4 GiB.
pub(crate) fn bytes_u32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec::Vec;

    use embedded_storage::nor_flash::{ErrorType, NorFlashErrorKind};

    use super::*;

    /// A chip behind a driver that reads whole words and refuses everything else.
    struct WordFlash(Vec<u8>);

    impl ErrorType for WordFlash {
        type Error = NorFlashErrorKind;
    }

    impl ReadNorFlash for WordFlash {
        const READ_SIZE: usize = 4;

        fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
            let start = offset as usize;
            if !start.is_multiple_of(4) || !bytes.len().is_multiple_of(4) {
                return Err(NorFlashErrorKind::NotAligned);
            }
            let stored = self.0.get(start..start + bytes.len());
            bytes.copy_from_slice(stored.ok_or(NorFlashErrorKind::OutOfBounds)?);
            Ok(())
        }

        fn capacity(&self) -> usize {
            self.0.len()
        }
    }

    #[test]
    fn a_driver_that_reads_whole_words_gives_any_bytes_asked_for() {
        let mut flash = WordFlash((0..=255).collect());
        for offset in 0..9 {
            for length in 1..=200 {
                let mut found = std::vec![0; length];
                read(&mut flash, bytes_u32(offset), &mut found).unwrap();
                assert!(found == flash.0[offset..offset + length], "{length} bytes at {offset}");
            }
        }
    }

    #[test]
    fn a_read_beyond_the_chip_names_the_piece_that_is_not_there() {
        let mut flash = WordFlash(std::vec![0; 128]);
        let fault = FlashFault { operation: Operation::Read, offset: 124 };
        assert_eq!(read(&mut flash, 61, &mut [0; 68]), Err(fault));
        assert_eq!(read(&mut flash, 61, &mut [0; 67]), Ok(()));
    }

    // Numbers go over the air, words into logs.
    #[test]
    fn numbers_and_words_of_operations_are_frozen() {
        let expected = [
            (Operation::Read, 1, "read"),
            (Operation::Write, 2, "write"),
            (Operation::Erase, 3, "erase"),
            (Operation::Verify, 4, "verify"),
            (Operation::Number, 5, "number"),
        ];
        for (operation, number, word) in expected {
            let fault = FlashFault { operation, offset: 0x3E_1000 };
            assert_eq!(
                fault.to_string(),
                std::format!("flash did not `{word}` at offset 0x3e1000")
            );
            let refusal = Refusal::FlashFailed { operation: number, offset: 0x3E_1000 };
            assert_eq!(Refusal::from(fault), refusal);
        }
    }
}
