//! The 512 bytes in front of each entry of a tar, written and read.
//!
//! Written always the same: mode 0644, owner 0, time 0. Read in the dialects that `tar` writes for
//! a plain file with a short name (ustar, and GNU's where it does not differ).

use super::{BundleError, ENTRY_NAME_BYTES_MAX, EntryName};

/// The header in front of an entry of `size_bytes`, for a `name` of this module.
pub fn header(name: &EntryName, size_bytes: u32) -> [u8; BLOCK_BYTES] {
    const _: () = assert!(ENTRY_NAME_BYTES_MAX < NAME.1);
    let mut block = [0; BLOCK_BYTES];
    let mut put = |field: Field, text: &[u8]| {
        for (byte, letter) in block.iter_mut().skip(field.0).zip(text.iter().take(field.1)) {
            *byte = *letter;
        }
    };
    put(NAME, name.as_bytes());
    put(MODE, b"0000644");
    put(OWNER, b"0000000");
    put(GROUP, b"0000000");
    put(SIZE, &octal::<11>(size_bytes));
    put(TIME, b"00000000000");
    put(CHECKSUM, b"        ");
    put(KIND, b"0");
    put(MAGIC, b"ustar\x0000");
    put(DEVICE_MAJOR, b"0000000");
    put(DEVICE_MINOR, b"0000000");
    let checksum = octal::<6>(sum(&block));
    for (byte, letter) in block.iter_mut().skip(CHECKSUM.0).zip(checksum.iter().chain(b"\0 ")) {
        *byte = *letter;
    }
    block
}

/// What a header says about its entry.
pub(super) struct Header {
    pub(super) name: EntryName,
    pub(super) size_bytes: u64,
}

impl Header {
    /// Reads the header at offset `at` of the bundle.
    pub(super) fn parse(block: &[u8; BLOCK_BYTES], at: u32) -> Result<Self, BundleError> {
        if !field(block, MAGIC).starts_with(b"ustar") {
            return Err(BundleError::NotTar { at });
        }
        let number = |which, field| parse_octal(which).ok_or(BundleError::NotANumber { at, field });
        let found = number(field(block, CHECKSUM), "checksum")?;
        let expected = sum(block);
        if found != u64::from(expected) {
            let found = u32::try_from(found).unwrap_or(u32::MAX);
            return Err(BundleError::Checksum { at, found, expected });
        }
        let mut name = EntryName::new();
        // What does not fit is no name of ours, cut or not; the prefix is a folder, and so is none.
        let _ = text(block, PREFIX).chain(text(block, NAME)).try_for_each(|letter| {
            name.push(if letter.is_ascii_graphic() { char::from(letter) } else { '?' })
        });
        let is_cut = text(block, PREFIX).chain(text(block, NAME)).count() > name.len();
        match field(block, KIND) {
            [b'0' | 0] => (),
            kind => {
                let kind = kind.first().copied().unwrap_or(0);
                return Err(BundleError::NotAFile { name, kind });
            }
        }
        if is_cut {
            return Err(BundleError::UnknownName { name });
        }
        Ok(Self { name, size_bytes: number(field(block, SIZE), "size")? })
    }
}

/// The sum of a header's bytes, its own field counted as blanks.
fn sum(block: &[u8; BLOCK_BYTES]) -> u32 {
    let checksum = CHECKSUM.0..CHECKSUM.0 + CHECKSUM.1;
    let bytes = block.iter().enumerate();
    bytes.map(|(at, &byte)| u32::from(if checksum.contains(&at) { b' ' } else { byte })).sum()
}

fn octal<const N: usize>(mut number: u32) -> [u8; N] {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number & 7) as u8;
        number >>= 3;
    }
    digits
}

/// Octal digits, blanks before them, and a blank or a zero behind.
fn parse_octal(field: &[u8]) -> Option<u64> {
    let field = field.trim_ascii_start();
    let end = field.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(field.len());
    let (digits, _) = field.split_at(end);
    if digits.is_empty() || !digits.iter().all(|digit| (b'0'..=b'7').contains(digit)) {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        number.checked_mul(8)?.checked_add(u64::from(digit - b'0'))
    })
}

fn field(block: &[u8; BLOCK_BYTES], Field(at, length): Field) -> &[u8] {
    block.get(at..at + length).unwrap_or_default()
}

fn text(block: &[u8; BLOCK_BYTES], which: Field) -> impl Iterator<Item = u8> {
    field(block, which).iter().copied().take_while(|&byte| byte != 0)
}

/// What tar is made of.
pub const BLOCK_BYTES: usize = BLOCK_U32 as usize;
pub(super) const BLOCK_U32: u32 = 512;

/// Offset and length.
#[derive(Clone, Copy)]
struct Field(usize, usize);

const NAME: Field = Field(0, 100);
const MODE: Field = Field(100, 8);
const OWNER: Field = Field(108, 8);
const GROUP: Field = Field(116, 8);
const SIZE: Field = Field(124, 12);
const TIME: Field = Field(136, 12);
const CHECKSUM: Field = Field(148, 8);
const KIND: Field = Field(156, 1);
/// With the version behind it.
const MAGIC: Field = Field(257, 8);
const DEVICE_MAJOR: Field = Field(329, 8);
const DEVICE_MINOR: Field = Field(337, 8);
const PREFIX: Field = Field(345, 155);
