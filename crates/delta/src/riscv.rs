//! The instructions of RISC-V that hold where something is: `JAL` alone, and `LUI` or `AUIPC` with
//! what adds the low twelve bits to them: `ADDI`, `JALR`, loads and stores.
//!
//! Fields are those of "The RISC-V Instruction Set Manual", volume I. Instructions have 32 bits, or
//! 16 when the lowest two of them are not 3.

/// The upper twenty bits: what `LUI` and `AUIPC` hold, and where a jump has its offset.
pub(crate) const HIGH: u32 = 0xFFFF_F000;

pub(crate) const fn len_bytes(first: u8) -> u32 {
    if first & 3 == 3 { 4 } else { 2 }
}

/// The register that an instruction writes, where it writes one.
pub(crate) const fn destination(code: u32) -> usize {
    (code >> 7 & 31) as usize
}

/// The register that an address is made from.
pub(crate) const fn base(code: u32) -> usize {
    (code >> 15 & 31) as usize
}

/// `JAL` that leaves where to return to: others stay within a function, and move with it.
pub(crate) const fn is_call(code: u32) -> bool {
    code & 0x7F == 0x6F && matches!(destination(code), 1 | 5)
}

pub(crate) const fn called(code: u32, at: u32) -> u32 {
    let sign = ((code.cast_signed() >> 31) << 20).cast_unsigned();
    let offset = sign | code & 0xF_F000 | (code >> 20 & 1) << 11 | (code >> 21 & 0x3FF) << 1;
    at.wrapping_add(offset)
}

pub(crate) const fn call_of(code: u32, at: u32, target: u32) -> u32 {
    let offset = target.wrapping_sub(at);
    let low = (offset >> 1 & 0x3FF) << 21 | (offset >> 11 & 1) << 20;
    code & !HIGH | (offset >> 20 & 1) << 31 | low | offset & 0xF_F000
}

pub(crate) const fn is_lui(code: u32) -> bool {
    code & 0x7F == 0x37
}

pub(crate) const fn is_auipc(code: u32) -> bool {
    code & 0x7F == 0x17
}

/// Loads, `ADDI`, `JALR` and stores.
pub(crate) const fn has_low(code: u32) -> bool {
    matches!(code & 0x7F, 0x03 | 0x67 | 0x23) || code & 0x707F == 0x13
}

const fn is_store(code: u32) -> bool {
    code & 0x7F == 0x23
}

/// What such an instruction adds to its base.
pub(crate) const fn low(code: u32) -> u32 {
    let upper = code.cast_signed();
    if is_store(code) {
        ((upper >> 25) << 5).cast_unsigned() | code >> 7 & 31
    } else {
        (upper >> 20).cast_unsigned()
    }
}

pub(crate) const fn with_low(code: u32, low: u32) -> u32 {
    if is_store(code) {
        code & 0x01FF_F07F | (low & 31) << 7 | (low >> 5 & 0x7F) << 25
    } else {
        code & 0xF_FFFF | low << 20
    }
}

/// The upper bits that a register needs so that twelve signed bits reach an address from it.
pub(crate) const fn high_of(address: u32) -> u32 {
    address.wrapping_add(0x800) & HIGH
}

/// The register that a long instruction overwrites, if any: stores and branches do not.
pub(crate) const fn overwrites(code: u32) -> Option<usize> {
    if matches!(code & 0x7F, 0x23 | 0x63) { None } else { Some(destination(code)) }
}

/// The same of a short one, as far as it matters: what loads, moves and calculates.
pub(crate) const fn short_overwrites(code: u32) -> Option<usize> {
    match (code & 3, code >> 13 & 7) {
        (1, 0 | 2 | 3) | (2, 0 | 2 | 4) => Some((code >> 7 & 31) as usize),
        (0, 0 | 2) => Some(8 + (code >> 2 & 7) as usize),
        (1, 4) => Some(8 + (code >> 7 & 7) as usize),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `jal ra, . - 0x1234` and `jal ra, . + 0xABCDE` as an assembler writes them.
    #[test]
    fn a_call_is_read_and_written() {
        for (code, offset) in [(0xDCDF_E0EF, 0xFFFF_EDCC_u32), (0x4DFA_B0EF, 0x000A_BCDE)] {
            let (at, target) = (0x4200_0100, 0x4200_0100_u32.wrapping_add(offset));
            assert!(is_call(code));
            assert_eq!(called(code, at), target, "{code:#x}");
            assert_eq!(call_of(0xEF, at, target), code);
        }
        assert!(!is_call(0x0000_006F), "a jump within a function");
    }

    /// `lui a0, 0x3fc91` with `addi a0, a0, -16`, `lw a1, -16(a0)` and `sw a1, -16(a0)`.
    #[test]
    fn the_low_bits_are_read_and_written() {
        for code in [0xFF05_0513_u32, 0xFF05_2583, 0xFEB5_2823] {
            assert!(has_low(code));
            assert_eq!((base(code), low(code)), (10, 0xFFFF_FFF0));
            let changed = with_low(code, 0x7EC);
            assert_eq!((base(changed), low(changed)), (10, 0x7EC));
            assert_eq!(with_low(changed, low(code)), code);
        }
        assert_eq!(high_of(0x3FC9_0FF0), 0x3FC9_1000);
        assert!(!has_low(0x0015_1513), "`slli` has no address");
    }

    /// `c.li a0, 1`, `c.mv a0, a1`, `c.lw a0, 0(a1)`, `c.and a0, a1`; `c.sw`, `c.j`, `c.swsp`.
    #[test]
    fn what_overwrites_a_register_is_known() {
        for code in [0x4505, 0x852E, 0x4188, 0x8D6D] {
            assert_eq!(short_overwrites(code), Some(10), "{code:#x}");
        }
        for code in [0xC188, 0xA001, 0xC02A] {
            assert_eq!(short_overwrites(code), None, "{code:#x}");
        }
        // `add a0, a0, a1`; `sw a1, -16(a0)`, `beq a0, a1, . + 8`.
        assert_eq!(overwrites(0x00B5_0533), Some(10));
        assert_eq!([0xFEB5_2823, 0x00B5_0463].map(overwrites), [None, None]);
    }
}
