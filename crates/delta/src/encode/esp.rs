//! What an image of ESP-IDF says of itself: its processor, and where its parts lie.

use crate::predict::{Machine, Region, Regions};
use crate::riscv;

/// An image, as far as predictions need it.
#[derive(Debug)]
pub(super) struct Description {
    pub(super) machine: Machine,
    pub(super) regions: Regions,
    /// What `gp` holds on RISC-V, or 0.
    pub(super) global: u32,
}

impl Description {
    /// `None`: it is no image of ESP-IDF, of a chip that is not known, or has too many parts.
    pub(super) fn of(image: &[u8]) -> Option<Self> {
        if *image.first()? != MAGIC {
            return None;
        }
        let chip = u16::from_le_bytes([*image.get(12)?, *image.get(13)?]);
        let machine = match chip {
            0 | 2 | 9 => Machine::Xtensa,
            5 | 12 | 13 | 16 | 18 | 20 | 23 | 25 | 28 => Machine::RiscV,
            _ => return None,
        };
        let mut regions = Regions::EMPTY;
        let mut at = HEADER_BYTES;
        for _ in 0..*image.get(1)? {
            let [address, size] = [at, at + 4].map(|at| word(image, at));
            let start = at + SEGMENT_HEADER_BYTES;
            let bytes = image.get(start..start + size? as usize)?;
            at = start + bytes.len();
            let region = Region {
                start: u32::try_from(start).ok()?,
                end: u32::try_from(at).ok()?,
                address: address?,
                is_code: is_code(machine, bytes),
            };
            if !bytes.is_empty() && !regions.push(region) {
                return None;
            }
        }
        let global = global(image, &regions).unwrap_or(0);
        Some(Self { machine, regions, global })
    }
}

/// Functions return: so does no table of constants.
fn is_code(machine: Machine, bytes: &[u8]) -> bool {
    let returns = match machine {
        // `ret.n` and `retw.n`, at any byte.
        Machine::Xtensa => bytes.windows(2).filter(|it| matches!(it, [0x0D | 0x1D, 0xF0])).count(),
        // `c.jr ra`, at even ones.
        Machine::RiscV => bytes.chunks_exact(2).filter(|it| matches!(it, [0x82, 0x80])).count(),
    };
    returns > 0 && returns >= bytes.len() / BYTES_PER_RETURN_MAX
}

/// What the first instructions of a program for RISC-V put into `gp`, once and for all.
fn global(image: &[u8], regions: &Regions) -> Option<u32> {
    let code = regions.get().iter().filter(|region| region.is_code);
    code.flat_map(|region| (region.start..region.end).step_by(2).map(move |at| (region, at)))
        .find_map(|(region, at)| {
            let high = word(image, at as usize).filter(|code| code & 0xFFF == AUIPC_GP)?;
            let low = word(image, at as usize + 4).filter(|code| code & 0xF_FFFF == ADDI_GP_GP)?;
            let from = region.address.wrapping_add(at - region.start);
            Some((high & riscv::HIGH).wrapping_add(from).wrapping_add(riscv::low(low)))
        })
}

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map(|it| u32::from_le_bytes(*it))
}

const MAGIC: u8 = 0xE9;
const HEADER_BYTES: usize = 24;
/// Address and size.
const SEGMENT_HEADER_BYTES: usize = 8;
/// Real ones have one in 100 to 220 bytes of code, and one in 75,000 of anything else.
const BYTES_PER_RETURN_MAX: usize = 1024;
const AUIPC_GP: u32 = 0x197;
const ADDI_GP_GP: u32 = 0x1_8193;
