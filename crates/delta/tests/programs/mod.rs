//! Images of programs that refer to their parts in one way, and where those parts lie differs.
//!
//! The instructions are assembled here, and not by what is tested.

/// How a program refers to its functions and data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// A table of addresses among the data.
    Words,
    XtensaCalls,
    XtensaLiterals,
    RiscVCalls,
    /// `LUI` and `ADDI`, with other instructions between them.
    RiscVAddresses,
    /// `LUI` and a load or a store.
    RiscVAccesses,
    /// `AUIPC` and `JALR`.
    RiscVFarCalls,
    /// Low bits alone, from `gp`.
    RiscVGlobals,
}

pub(crate) const WAYS: [Way; 8] = [
    Way::Words,
    Way::XtensaCalls,
    Way::XtensaLiterals,
    Way::RiscVCalls,
    Way::RiscVAddresses,
    Way::RiscVAccesses,
    Way::RiscVFarCalls,
    Way::RiscVGlobals,
];

impl Way {
    pub(crate) fn is_xtensa(self) -> bool {
        matches!(self, Self::Words | Self::XtensaCalls | Self::XtensaLiterals)
    }

    fn chip(self) -> u8 {
        if self.is_xtensa() { 9 } else { 5 }
    }
}

/// What data and code have grown by since the first release: at each twentieth function, and there
/// by once to eleven times as much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Release {
    pub(crate) data_grew: u32,
    pub(crate) code_grew: u32,
    pub(crate) functions: u32,
}

pub(crate) const FIRST: Release = Release { data_grew: 0, code_grew: 0, functions: FUNCTIONS };
pub(crate) const SECOND: Release = Release { data_grew: 4, code_grew: 12, functions: FUNCTIONS };

const FUNCTIONS: u32 = 150;
const FUNCTION_BYTES: u32 = 144;
const ITEM_BYTES: u32 = 28;
const DATA: u32 = 0x3FC9_0200;
const CODE: u32 = 0x4200_0020;
/// What `gp` holds lies in the middle of the data.
const GLOBAL: u32 = DATA + FUNCTIONS * ITEM_BYTES / 2;

/// An image of ESP-IDF: a header, then parts, each with its address and size before it.
pub(crate) fn image(chip: u8, parts: &[(u32, &[u8])]) -> Vec<u8> {
    let mut image = vec![0; 24];
    image[0] = 0xE9;
    image[1] = u8::try_from(parts.len()).unwrap();
    image[12] = chip;
    for (address, bytes) in parts {
        image.extend(address.to_le_bytes());
        image.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
        image.extend(*bytes);
    }
    image
}

pub(crate) fn program(way: Way, release: Release) -> Vec<u8> {
    let (mut data, mut code) = (Vec::new(), Vec::new());
    for index in 0..release.functions {
        // What is new costs a patch next to nothing.
        let [data_grows, code_grows] = [release.data_grew, release.code_grew].map(|unit| {
            grown(index, unit) - index.checked_sub(1).map_or(0, |before| grown(before, unit))
        });
        data.resize(data.len() + data_grows as usize, 0);
        code.resize(code.len() + code_grows as usize, 0);
        assert_eq!(DATA + size(&data), item(index, release));
        data.extend(noise(1000 + index).take(ITEM_BYTES as usize));
        assert_eq!(CODE + size(&code), function(index, release));
        code.extend(body(way, index, release));
    }
    let mut table = noise(3).take(64).collect::<Vec<_>>();
    if way == Way::Words {
        let order = (0..1500_u32).map(|at| (at.wrapping_mul(0x9E37_79B9) >> 9) % release.functions);
        table.extend(order.flat_map(|index| function(index, release).to_le_bytes()));
    }
    if !way.is_xtensa() {
        code.extend(auipc(3, GLOBAL, CODE + size(&code)));
        code.extend(addi(3, 3, GLOBAL.wrapping_sub(CODE + size(&code) - 4)));
    }
    image(way.chip(), &[(0x3C00_0020, &table), (DATA, &data), (CODE, &code)])
}

fn item(index: u32, release: Release) -> u32 {
    DATA + index * ITEM_BYTES + grown(index, release.data_grew)
}

fn function(index: u32, release: Release) -> u32 {
    CODE + index * FUNCTION_BYTES + grown(index, release.code_grew)
}

fn grown(index: u32, unit: u32) -> u32 {
    (2..=index).step_by(20).map(|index| unit * (index * 7 % 11 + 1)).sum()
}

/// A function: what it refers to, instructions that refer to nothing, a return.
fn body(way: Way, index: u32, release: Release) -> Vec<u8> {
    let at = function(index, release);
    let others = (1..=4).map(|step| (index * 13 + step * 17) % release.functions);
    let targets = others.map(|other| (function(other, release), item(other, release)));
    let mut code = Vec::new();
    if way == Way::XtensaLiterals {
        // Literals of other places: what loads them is what moves.
        code.extend([0; 16]);
    }
    if way.is_xtensa() {
        // `entry a1, 32`
        code.extend([0x36, 0x41, 0x00]);
    }
    for (turn, (called, used)) in (0..).zip(targets) {
        let here = at + size(&code);
        let register = 10 + turn;
        match way {
            Way::Words => (),
            Way::XtensaCalls => code.extend(call8(called, here)),
            Way::XtensaLiterals => {
                let before = (index * 5 + turn * 31) % (index + 1);
                let literal = function(before, release);
                code.extend(l32r(2, literal, here));
            }
            Way::RiscVCalls => code.extend(jal(1, called, here)),
            Way::RiscVAddresses => {
                code.extend(lui(register, used));
                code.extend(ordinary(way, index * 4 + turn));
                code.extend(addi(register, register, used));
            }
            Way::RiscVAccesses => {
                code.extend(lui(register, used));
                code.extend(lw(register + 4, register, used));
                code.extend(sw(register + 4, register, used + 4));
            }
            Way::RiscVFarCalls => {
                code.extend(auipc(6, called, here));
                code.extend(jalr(1, 6, called.wrapping_sub(here)));
            }
            Way::RiscVGlobals => {
                // Those that twelve bits reach from there.
                let near = item(FUNCTIONS / 2 - 30 + (index * 13 + turn * 17) % 60, release);
                code.extend(lw(register, 3, near.wrapping_sub(GLOBAL)));
            }
        }
        code.extend(ordinary(way, index * 4 + turn));
    }
    if code.len() % 2 == 1 {
        // `or a1, a1, a1`.
        code.extend([0x10, 0x11, 0x20]);
    }
    let ends: [u8; 2] = if way.is_xtensa() { [0x1D, 0xF0] } else { [0x82, 0x80] };
    code.extend(ends);
    assert!(code.len() <= FUNCTION_BYTES as usize);
    // `nop.n`, `c.nop`.
    let nothing: [u8; 2] = if way.is_xtensa() { [0x3D, 0xF0] } else { [0x01, 0x00] };
    while code.len() < FUNCTION_BYTES as usize {
        code.extend(nothing);
    }
    code
}

/// Twelve bytes of instructions that refer to nothing.
fn ordinary(way: Way, seed: u32) -> Vec<u8> {
    let hash = seed.wrapping_mul(0x9E37_79B9);
    let [a, b, c, ..] = hash.to_be_bytes();
    if way.is_xtensa() {
        vec![0x20, a, b, 0x30, b, c, 0x32, c & 0x0F, a, 0x42, a & 0x0F, b]
    } else {
        // `add`, `xor` and the like, of registers that none of ours is written with.
        let code = |seed: u32| 0x33 | (seed >> 28 & 1 | 4) << 7 | seed << 12;
        let [first, second] = [hash, hash >> 8].map(code).map(u32::to_le_bytes);
        [&first[..], &second, &first].concat()
    }
}

fn noise(seed: u32) -> impl Iterator<Item = u8> {
    let mut dice = u64::from(seed) * 2 + 1;
    std::iter::repeat_with(move || {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        // No word of it is an address.
        dice.to_le_bytes()[7] & 0x1F
    })
}

fn size(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap()
}

fn call8(target: u32, here: u32) -> [u8; 3] {
    let words = (target.wrapping_sub((here & !3) + 4) >> 2) & 0x3_FFFF;
    low24(words << 6 | 0x25)
}

fn l32r(register: u32, literal: u32, here: u32) -> [u8; 3] {
    let words = (literal.wrapping_sub((here + 3) & !3) >> 2) & 0xFFFF;
    low24(words << 8 | register << 4 | 1)
}

fn low24(code: u32) -> [u8; 3] {
    let [a, b, c, _] = code.to_le_bytes();
    [a, b, c]
}

fn jal(register: u32, target: u32, here: u32) -> [u8; 4] {
    let offset = target.wrapping_sub(here);
    let bits = |from: u32, count: u32| offset >> from & ((1 << count) - 1);
    let upper = bits(20, 1) << 31 | bits(1, 10) << 21 | bits(11, 1) << 20 | bits(12, 8) << 12;
    (upper | register << 7 | 0x6F).to_le_bytes()
}

fn lui(register: u32, address: u32) -> [u8; 4] {
    (address.wrapping_add(0x800) & 0xFFFF_F000 | register << 7 | 0x37).to_le_bytes()
}

fn auipc(register: u32, target: u32, here: u32) -> [u8; 4] {
    let offset = target.wrapping_sub(here).wrapping_add(0x800);
    (offset & 0xFFFF_F000 | register << 7 | 0x17).to_le_bytes()
}

fn addi(to: u32, from: u32, low: u32) -> [u8; 4] {
    (low << 20 | from << 15 | to << 7 | 0x13).to_le_bytes()
}

fn jalr(to: u32, from: u32, low: u32) -> [u8; 4] {
    (low << 20 | from << 15 | to << 7 | 0x67).to_le_bytes()
}

fn lw(to: u32, from: u32, low: u32) -> [u8; 4] {
    (low << 20 | from << 15 | 2 << 12 | to << 7 | 0x03).to_le_bytes()
}

fn sw(value: u32, to: u32, low: u32) -> [u8; 4] {
    let (high, low) = (low >> 5 & 0x7F, low & 31);
    (high << 25 | value << 20 | to << 15 | 2 << 12 | low << 7 | 0x23).to_le_bytes()
}
