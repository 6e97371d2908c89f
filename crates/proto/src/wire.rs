//! Little-endian bytes, one field at a time, without a panic and without a copy.
//!
//! Frames and durable records are written by hand with these two, because their layouts are
//! promises to devices in the field and must not follow from a library's version.

use core::fmt;

/// Takes fields off the front of a byte string.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// The bytes ended before the field did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooShort {
    /// Bytes the field needs.
    pub wanted_bytes: usize,
    /// Bytes that were left.
    pub left_bytes: usize,
}

impl fmt::Display for TooShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "needs {} more bytes, has {}", self.wanted_bytes, self.left_bytes)
    }
}

impl core::error::Error for TooShort {}

impl<'a> Reader<'a> {
    /// Reads from the first byte of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been taken yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `len_bytes` bytes.
    pub fn take(&mut self, len_bytes: usize) -> Result<&'a [u8], TooShort> {
        let error = TooShort { wanted_bytes: len_bytes, left_bytes: self.rest.len() };
        let (head, rest) = self.rest.split_at_checked(len_bytes).ok_or(error)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], TooShort> {
        let error = TooShort { wanted_bytes: N, left_bytes: self.rest.len() };
        let (head, rest) = self.rest.split_first_chunk().ok_or(error)?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, TooShort> {
        self.array().map(u8::from_le_bytes)
    }

    /// Two bytes, little endian.
    pub fn u16(&mut self) -> Result<u16, TooShort> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes, little endian.
    pub fn u32(&mut self) -> Result<u32, TooShort> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little endian.
    pub fn u64(&mut self) -> Result<u64, TooShort> {
        self.array().map(u64::from_le_bytes)
    }
}

/// Puts fields into a caller's buffer.
#[derive(Debug)]
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    len_bytes: usize,
}

/// The buffer ended before the field did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// Bytes that the buffer holds in all.
    pub capacity_bytes: usize,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "does not fit into {} bytes", self.capacity_bytes)
    }
}

impl core::error::Error for Full {}

impl<'a> Writer<'a> {
    /// Writes from the first byte of `buffer`.
    pub const fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len_bytes: 0 }
    }

    /// Bytes written so far.
    pub const fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// What has been written so far.
    pub fn written(&self) -> &[u8] {
        self.buffer.get(..self.len_bytes).unwrap_or_default()
    }

    /// Appends `bytes`, or leaves the buffer as it was.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let error = Full { capacity_bytes: self.buffer.len() };
        let end = self.len_bytes.checked_add(bytes.len()).ok_or(error)?;
        self.buffer.get_mut(self.len_bytes..end).ok_or(error)?.copy_from_slice(bytes);
        self.len_bytes = end;
        Ok(())
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> Result<(), Full> {
        self.put(&[value])
    }

    /// Two bytes, little endian.
    pub fn u16(&mut self, value: u16) -> Result<(), Full> {
        self.put(&value.to_le_bytes())
    }

    /// Four bytes, little endian.
    pub fn u32(&mut self, value: u32) -> Result<(), Full> {
        self.put(&value.to_le_bytes())
    }

    /// Eight bytes, little endian.
    pub fn u64(&mut self, value: u64) -> Result<(), Full> {
        self.put(&value.to_le_bytes())
    }
}

/// A short ASCII text in a fixed field: role, board, product. The bytes after it are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label<const N: usize>([u8; N]);

impl<const N: usize> Label<N> {
    /// No text at all.
    pub const EMPTY: Self = Self([0; N]);

    /// `None` if `text` is longer than `N` bytes or has anything but visible ASCII and spaces.
    pub fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; N];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Self::from_bytes(bytes)
    }

    /// The field as it stands in a frame; `None` unless it is visible ASCII followed by zeros.
    pub fn from_bytes(bytes: [u8; N]) -> Option<Self> {
        let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(N);
        let (text, padding) = bytes.split_at(len);
        let visible = text.iter().all(|byte| matches!(byte, b' '..=b'~'));
        (visible && padding.iter().all(|&byte| byte == 0)).then_some(Self(bytes))
    }

    /// The field as it stands in a frame.
    pub const fn bytes(&self) -> &[u8; N] {
        &self.0
    }

    /// The text without its padding.
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|&byte| byte == 0).unwrap_or(N);
        // Only visible ASCII gets in, so this is never the empty fallback by accident.
        core::str::from_utf8(self.0.get(..len).unwrap_or_default()).unwrap_or_default()
    }
}

impl<const N: usize> fmt::Display for Label<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl<const N: usize> fmt::Debug for Label<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// What a device is for within its group, as in the manifest: `receiver`, `transmitter`.
pub type Role = Label<16>;
/// The board a firmware is built for.
pub type Board = Label<32>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_in_order() {
        let mut buffer = [0; 15];
        let mut writer = Writer::new(&mut buffer);
        writer.u8(1).unwrap();
        writer.u16(0x0203).unwrap();
        writer.u32(0x0405_0607).unwrap();
        writer.u64(8).unwrap();
        assert_eq!(writer.u8(0), Err(Full { capacity_bytes: 15 }));
        let mut reader = Reader::new(&buffer);
        assert_eq!((reader.u8(), reader.u16()), (Ok(1), Ok(0x0203)));
        assert_eq!((reader.u32(), reader.u64()), (Ok(0x0405_0607), Ok(8)));
        assert_eq!(reader.u8(), Err(TooShort { wanted_bytes: 1, left_bytes: 0 }));
    }

    #[test]
    fn a_label_with_text_after_its_end_is_refused() {
        assert_eq!(Label::<4>::from_bytes(*b"a\0b\0"), None);
        assert_eq!(Label::<4>::new("abcde"), None);
        assert_eq!(Label::<4>::new("ab\n"), None);
        assert_eq!(Label::<4>::new("ab").unwrap().as_str(), "ab");
    }
}
