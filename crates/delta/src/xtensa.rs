//! The two instructions of Xtensa that hold where something is: `CALLn` and `L32R`.
//!
//! Fields are those of the "Xtensa Instruction Set Architecture Reference Manual". Instructions
//! have 24 bits, or 16 when the lowest four of them are 8 to 13.

/// Bytes of the instruction that begins with this one.
pub(crate) const fn len_bytes(first: u8) -> u32 {
    if matches!(first & 0xF, 8..=13) { 2 } else { 3 }
}

/// `ENTRY`: what a function begins with, at an aligned place.
pub(crate) const fn is_entry(bytes: &[u8]) -> bool {
    matches!(bytes, [0x36, second, _, ..] if *second & 0xF == 1)
}

/// `CALL0`, `CALL4`, `CALL8`, `CALL12`: 18 bits of words from the word behind the one it begins in.
pub(crate) const fn is_call(code: u32) -> bool {
    code & 0xF == 5
}

pub(crate) const fn called(code: u32, at: u32) -> u32 {
    let words = (code << 8).cast_signed() >> 14;
    (at & !3).wrapping_add(4).wrapping_add((words << 2).cast_unsigned())
}

pub(crate) const fn call_of(code: u32, at: u32, target: u32) -> u32 {
    let words = target.wrapping_sub(4).wrapping_sub(at & !3) >> 2;
    code & 0x3F | (words & 0x3_FFFF) << 6
}

/// `L32R`: 16 bits of words, all of them before the word that follows where it begins.
pub(crate) const fn is_literal_load(code: u32) -> bool {
    code & 0xF == 1
}

pub(crate) const fn literal(code: u32, at: u32) -> u32 {
    (at.wrapping_add(3) & !3).wrapping_add(code >> 8 << 2).wrapping_sub(0x4_0000)
}

pub(crate) const fn literal_load_of(code: u32, at: u32, target: u32) -> u32 {
    let words = target.wrapping_sub(at.wrapping_add(3) & !3) >> 2;
    code & 0xFF | (words & 0xFFFF) << 8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As an assembler writes them: `call8 . + 0x100` at 0x400D1002, and back.
    #[test]
    fn a_call_is_read_and_written() {
        let code = 0x00_0FE5;
        assert!(is_call(code) && !is_literal_load(code) && len_bytes(0xE5) == 3);
        assert_eq!(called(code, 0x400D_1002), 0x400D_1100);
        assert_eq!(call_of(code, 0x400D_1002, 0x400D_1100), code);
        let back = call_of(code, 0x400D_1002, 0x400C_F000);
        assert_eq!((back & 0x3F, called(back, 0x400D_1002)), (0x25, 0x400C_F000));
    }

    /// `l32r a2, . - 8` at 0x400D1001.
    #[test]
    fn a_load_of_a_literal_is_read_and_written() {
        let code = 0xFF_FD21;
        assert!(is_literal_load(code) && !is_call(code) && len_bytes(0x21) == 3);
        assert_eq!(literal(code, 0x400D_1001), 0x400D_0FF8);
        assert_eq!(literal_load_of(code, 0x400D_1001, 0x400D_0FF8), code);
        let moved = literal_load_of(code, 0x400D_1001, 0x400C_2000);
        assert_eq!((moved & 0xFF, literal(moved, 0x400D_1001)), (0x21, 0x400C_2000));
    }

    #[test]
    fn a_narrow_instruction_has_two_bytes() {
        assert_eq!([0x08, 0x3D, 0x0E, 0x00].map(len_bytes), [2, 2, 3, 3]);
    }
}
