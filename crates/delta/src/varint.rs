//! Numbers of a patch's body: seven bits a byte, the lowest first; the highest bit says that more
//! come. Signed ones have their sign in the lowest bit.

/// A number that comes byte by byte.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Varint {
    value: u32,
    shift: u32,
}

impl Varint {
    pub(crate) const fn new() -> Self {
        Self { value: 0, shift: 0 }
    }

    /// The next byte. `Ok(Some)`: it was the last one. `Err`: no number of 32 bits is so long.
    pub(crate) const fn push(&mut self, byte: u8) -> Result<Option<u32>, ()> {
        let bits = (byte & 0x7F) as u32;
        if self.shift == LAST_SHIFT && byte > LAST_BYTE_MAX {
            return Err(());
        }
        self.value |= bits << self.shift;
        if byte & 0x80 == 0 {
            return Ok(Some(self.value));
        }
        self.shift += 7;
        Ok(None)
    }
}

/// The number that a signed one was written as.
#[cfg(feature = "encode")]
pub(crate) const fn from_signed(value: i32) -> u32 {
    (value << 1 ^ value >> 31).cast_unsigned()
}

/// The signed number that was written as this.
pub(crate) const fn to_signed(value: u32) -> i32 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// Appends a number.
#[cfg(feature = "encode")]
pub(crate) fn put(bytes: &mut alloc::vec::Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

/// The fifth byte has the bits 28 to 31.
const LAST_SHIFT: u32 = 28;
const LAST_BYTE_MAX: u8 = 0x0F;

#[cfg(all(test, feature = "encode"))]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<u32>, ()> {
        let mut varint = Varint::new();
        for &byte in bytes {
            if let Some(value) = varint.push(byte)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    #[test]
    fn a_number_is_read_as_it_was_written() {
        for value in [0, 1, 127, 128, 300, 0x1F_FFFF, 0x0FFF_FFFF, 0x1000_0000, u32::MAX] {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            assert_eq!(read(&bytes), Ok(Some(value)));
        }
        for value in [0, 1, -1, 63, -64, 64, i32::MAX, i32::MIN] {
            assert_eq!(to_signed(from_signed(value)), value);
        }
    }

    #[test]
    fn a_number_of_more_than_32_bits_is_none() {
        assert_eq!(read(&[0xFF, 0xFF, 0xFF, 0xFF, 0x10]), Err(()));
        assert_eq!(read(&[0xFF, 0xFF, 0xFF, 0xFF, 0x8F]), Err(()));
        assert_eq!(read(&[0x80, 0x80]), Ok(None));
    }
}
