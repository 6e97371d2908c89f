//! Firmware for desk devices: valid ESP images that say who they are and which fault they show.
//!
//! The same specification gives the same bytes; anything changed in it gives another image. There
//! is no program in them: the segments hold noise, and the desk board plays what the *behaviour
//! block* orders, right behind the descriptor:
//!
//! | file offset | bytes | field |
//! |------------:|------:|-------|
//! |       0x1A0 |     6 | magic `LSDESK` |
//! |       0x1A6 |     1 | format, 1 |
//! |       0x1A7 |     1 | fault: 0 none, 1 crash at boot, 2 crash after a time, |
//! |             |       | 3 never healthy, 4 deaf radio, 5 hang |
//! |       0x1A8 |     4 | milliseconds until the crash, little endian; else 0 |
//! |       0x1AC |     4 | 0 |
//!
//! Real firmware has no such block and shows no fault. Playing the faults is the board's part.

use std::{fmt, str::FromStr};

use fastrand::Rng;
use lockstep_proto::{
    descriptor::{DESCRIPTOR_BYTES, Descriptor, OFFSET as DESCRIPTOR_OFFSET},
    id::Sha256,
    image::{
        AppDescription, BuildError, ChipId, HEADER_BYTES, ImageHeader, ImageSpec, Segment,
        build_image,
    },
    text::FixedText,
};
use sha2::Digest as _;

/// The smallest image that is made.
pub const SIZE_MIN_BYTES: u32 = 4 * 1024;
/// The largest image that is made: more than any slot.
pub const SIZE_MAX_BYTES: u32 = 16 * 1024 * 1024;
/// Where the behaviour block stands in an image: right behind the descriptor.
pub const BEHAVIOUR_OFFSET: u32 = 0x1A0;
const _: () = assert!(BEHAVIOUR_OFFSET as usize == DESCRIPTOR_OFFSET as usize + DESCRIPTOR_BYTES);
/// Length of the behaviour block.
pub const BEHAVIOUR_BYTES: usize = 16;

/// What is wrong with a firmware. As text: `none`, `crash-at-boot`, `crash-after=1500`,
/// `never-healthy`, `deaf-radio`, `hang`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// It crashes before it has done anything, in every boot.
    CrashAtBoot,
    /// It crashes this many milliseconds after its start, in every boot.
    CrashAfterMs(u32),
    /// It runs, and its own health check always fails.
    NeverHealthy,
    /// It runs, and hears nothing over the radio.
    DeafRadio,
    /// It starts and then does nothing any more; only a watchdog ends that.
    Hang,
}

impl Fault {
    /// Reads the [`BEHAVIOUR_BYTES`] at [`BEHAVIOUR_OFFSET`] of an image; no block, no fault.
    ///
    /// An order that is not understood is refused: a test must not take a fault for health.
    pub fn decode(block: &[u8; BEHAVIOUR_BYTES]) -> Result<Self, UnknownBehaviour> {
        let [magic @ .., format, code, a, b, c, d, _, _, _, _] = block;
        if magic != BEHAVIOUR_MAGIC {
            return Ok(Self::None);
        }
        let after_ms = u32::from_le_bytes([*a, *b, *c, *d]);
        match (*format, *code) {
            (BEHAVIOUR_FORMAT, 0) => Ok(Self::None),
            (BEHAVIOUR_FORMAT, 1) => Ok(Self::CrashAtBoot),
            (BEHAVIOUR_FORMAT, 2) => Ok(Self::CrashAfterMs(after_ms)),
            (BEHAVIOUR_FORMAT, 3) => Ok(Self::NeverHealthy),
            (BEHAVIOUR_FORMAT, 4) => Ok(Self::DeafRadio),
            (BEHAVIOUR_FORMAT, 5) => Ok(Self::Hang),
            (format, code) => Err(UnknownBehaviour { format, code }),
        }
    }

    /// The bytes for an image.
    pub fn encode(self) -> [u8; BEHAVIOUR_BYTES] {
        let (code, after_ms) = match self {
            Self::None => (0, 0),
            Self::CrashAtBoot => (1, 0),
            Self::CrashAfterMs(after_ms) => (2, after_ms),
            Self::NeverHealthy => (3, 0),
            Self::DeafRadio => (4, 0),
            Self::Hang => (5, 0),
        };
        let [m0, m1, m2, m3, m4, m5] = *BEHAVIOUR_MAGIC;
        let [a, b, c, d] = u32::to_le_bytes(after_ms);
        [m0, m1, m2, m3, m4, m5, BEHAVIOUR_FORMAT, code, a, b, c, d, 0, 0, 0, 0]
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.pad("none"),
            Self::CrashAtBoot => f.pad("crash-at-boot"),
            Self::CrashAfterMs(after_ms) => write!(f, "crash-after={after_ms}"),
            Self::NeverHealthy => f.pad("never-healthy"),
            Self::DeafRadio => f.pad("deaf-radio"),
            Self::Hang => f.pad("hang"),
        }
    }
}

impl FromStr for Fault {
    type Err = ParseFaultError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseFaultError { text: text.to_owned() };
        match text {
            "none" => Ok(Self::None),
            "crash-at-boot" => Ok(Self::CrashAtBoot),
            "never-healthy" => Ok(Self::NeverHealthy),
            "deaf-radio" => Ok(Self::DeafRadio),
            "hang" => Ok(Self::Hang),
            _ => {
                let after_ms = text.strip_prefix("crash-after=").ok_or_else(error)?;
                after_ms.parse().map(Self::CrashAfterMs).map_err(|_| error())
            }
        }
    }
}

/// A text that names no fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseFaultError {
    /// The text.
    pub text: String,
}

impl fmt::Display for ParseFaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "fault `{}` is none of none, crash-at-boot, crash-after=MILLISECONDS, never-healthy, \
             deaf-radio, hang",
            self.text
        )
    }
}

impl std::error::Error for ParseFaultError {}

/// A behaviour block of a later desk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownBehaviour {
    /// The block's format.
    pub format: u8,
    /// The fault it orders.
    pub code: u8,
}

impl fmt::Display for UnknownBehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "image orders fault {} in format {}; this desk knows 0 to 5 in format \
             {BEHAVIOUR_FORMAT}",
            self.code, self.format
        )
    }
}

impl std::error::Error for UnknownBehaviour {}

/// A firmware to be made.
#[derive(Debug, Clone)]
pub struct FirmwareSpec {
    /// What it says about itself.
    pub descriptor: Descriptor,
    /// The chip it is for.
    pub chip: ChipId,
    /// The length of the file, [`SIZE_MIN_BYTES`] to [`SIZE_MAX_BYTES`], rounded up to 16.
    pub size_bytes: u32,
    /// What is wrong with it.
    pub fault: Fault,
    /// Another number, another image that says the same about itself.
    pub build: u64,
    /// If it is not 0: most of its bytes are those of every image of this stock and size, so that
    /// two of them differ as releases of one program do.
    pub stock: u64,
    /// The date of the build, as a C compiler writes it: `Jan  1 2026`.
    pub built_date: FixedText<16>,
    /// The time of the build: `12:00:00`.
    pub built_time: FixedText<16>,
}

impl FirmwareSpec {
    /// A healthy firmware of 256 KiB, always built at the same time.
    pub fn new(descriptor: Descriptor, chip: ChipId) -> Self {
        Self {
            descriptor,
            chip,
            size_bytes: 256 * 1024,
            fault: Fault::None,
            build: 0,
            stock: 0,
            built_date: FixedText::new("Jan  1 2026").unwrap_or_default(),
            built_time: FixedText::new("12:00:00").unwrap_or_default(),
        }
    }

    /// Makes the image.
    pub fn build(&self) -> Result<Vec<u8>, FirmwareError> {
        let found_bytes = self.size_bytes;
        if !(SIZE_MIN_BYTES..=SIZE_MAX_BYTES).contains(&found_bytes) {
            return Err(FirmwareError::Size { found_bytes });
        }
        let size_bytes = found_bytes.next_multiple_of(CHECKSUM_BLOCK_BYTES);
        let elf_sha256 = self.elf_sha256();
        let version = self.descriptor.version.to_string();
        let app = AppDescription {
            date: self.built_date,
            time: self.built_time,
            idf_version: FixedText::new("lockstep-desk").unwrap_or_default(),
            elf_sha256,
            ..AppDescription::named(
                FixedText::new(self.descriptor.product.as_str()).unwrap_or_default(),
                FixedText::new(&version).unwrap_or_default(),
            )
        };
        let layout = Layout::of_size(size_bytes);
        let map = MemoryMap::of(self.chip);
        let (mut data, code_start) = layout.noise(elf_sha256, self.stock);
        if let Some(block) = data.first_chunk_mut() {
            *block = self.fault.encode();
        }
        let (constants, code) = data.split_at(code_start.min(data.len()));
        let (ram, flash) = code.split_at(layout.ram_bytes.min(code.len()));
        let segments = [
            Segment { load_address: map.constants + layout.constants_at, data: constants },
            Segment { load_address: map.ram, data: ram },
            Segment { load_address: map.code + layout.code_at % MMU_PAGE_BYTES, data: flash },
        ];
        let spec = ImageSpec {
            header: ImageHeader::for_chip(self.chip, map.ram),
            app: &app,
            descriptor: Some(&self.descriptor),
            segments: &segments,
        };
        let mut image = Vec::with_capacity(size_bytes as usize);
        build_image(&spec, &mut |bytes| image.extend_from_slice(bytes))
            .map_err(FirmwareError::Build)?;
        Ok(image)
    }

    /// No ELF file exists, but what would be in it is this: it differs whenever the image does.
    fn elf_sha256(&self) -> Sha256 {
        let mut hasher = sha2::Sha256::new();
        hasher.update(self.descriptor.encode());
        hasher.update(self.fault.encode());
        hasher.update(self.chip.0.to_le_bytes());
        hasher.update(self.size_bytes.to_le_bytes());
        hasher.update(self.build.to_le_bytes());
        if self.stock != 0 {
            hasher.update(self.stock.to_le_bytes());
        }
        Sha256(hasher.finalize().into())
    }
}

/// Why a firmware was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirmwareError {
    /// No image has this length.
    Size {
        /// The length asked for.
        found_bytes: u32,
    },
    /// The format does not allow it.
    Build(BuildError),
}

impl fmt::Display for FirmwareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { found_bytes } => write!(
                f,
                "firmware of {found_bytes} bytes: must have {SIZE_MIN_BYTES} to {SIZE_MAX_BYTES}"
            ),
            Self::Build(_) => f.write_str("could not make the image"),
        }
    }
}

impl std::error::Error for FirmwareError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Size { .. } => None,
            Self::Build(error) => Some(error),
        }
    }
}

/// How the bytes of a file are shared out: constants, code in RAM, code in flash.
struct Layout {
    /// File offset of the constants, the two descriptions included.
    constants_at: u32,
    /// Bytes of constants behind the two descriptions.
    constants_bytes: usize,
    ram_bytes: usize,
    /// File offset of the code in flash.
    code_at: u32,
    code_bytes: usize,
}

impl Layout {
    const RAM_BYTES: u32 = 1024;

    /// `size_bytes` is at least [`SIZE_MIN_BYTES`] and a multiple of 16.
    const fn of_size(size_bytes: u32) -> Self {
        let constants_at = HEADER_BYTES + SEGMENT_HEADER_BYTES;
        let descriptions = BEHAVIOUR_OFFSET - constants_at;
        // A quarter is about what firmware in the field has, on whole words.
        let constants_bytes = (size_bytes / 4 - descriptions) / 4 * 4;
        let ram_at = constants_at + descriptions + constants_bytes + SEGMENT_HEADER_BYTES;
        let code_at = ram_at + Self::RAM_BYTES + SEGMENT_HEADER_BYTES;
        // One word is left for the checksum; before it stands no padding but the word's rest.
        let code_end = size_bytes - HASH_BYTES - 4;
        Self {
            constants_at,
            constants_bytes: constants_bytes as usize,
            ram_bytes: Self::RAM_BYTES as usize,
            code_at,
            code_bytes: (code_end - code_at) as usize,
        }
    }

    /// All data that is not descriptions, and where the code begins in it.
    fn noise(&self, seed: Sha256, stock: u64) -> (Vec<u8>, usize) {
        let Sha256([a, b, c, d, e, f, g, h, ..]) = seed;
        let mut data = vec![0; self.constants_bytes + self.ram_bytes + self.code_bytes];
        let mut own = Rng::with_seed(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        if stock == 0 {
            own.fill(&mut data);
            return (data, self.constants_bytes);
        }
        Rng::with_seed(stock).fill(&mut data);
        data.iter_mut().for_each(|byte| *byte &= STOCK_BITS);
        let words = data.as_chunks_mut::<4>().0;
        for _ in 0..=words.len() / STOCK_WORDS_PER_EDIT {
            let word = own.usize(..words.len());
            if let Some(word) = words.get_mut(word) {
                own.fill(word);
            }
        }
        (data, self.constants_bytes)
    }
}

/// Five of eight bits: it can be compressed as far as firmware can.
const STOCK_BITS: u8 = 0x1F;
/// Of so many words of an image of a stock one is its own.
const STOCK_WORDS_PER_EDIT: usize = 400;

/// Where a chip sees what: starts of the address ranges in its technical reference manual.
struct MemoryMap {
    /// Constants in flash.
    constants: u32,
    /// Code in flash.
    code: u32,
    /// Code in RAM, from where the program starts.
    ram: u32,
}

impl MemoryMap {
    const fn of(chip: ChipId) -> Self {
        match chip {
            ChipId::ESP32 => Self::new(0x3F40_0000, 0x400D_0000, 0x4008_0400),
            ChipId::ESP32_S2 => Self::new(0x3F00_0000, 0x4008_0000, 0x4002_4000),
            ChipId::ESP32_S3 => Self::new(0x3C00_0000, 0x4200_0000, 0x4037_4000),
            ChipId::ESP32_C2 | ChipId::ESP32_C3 => Self::new(0x3C00_0000, 0x4200_0000, 0x4038_0000),
            ChipId::ESP32_P4 => Self::new(0x4100_0000, 0x4000_0000, 0x4FF0_0000),
            // The later RISC-V chips see constants and code in one range.
            _ => Self::new(0x4280_0000, 0x4200_0000, 0x4080_0000),
        }
    }

    const fn new(constants: u32, code: u32, ram: u32) -> Self {
        Self { constants, code, ram }
    }
}

const BEHAVIOUR_MAGIC: &[u8; 6] = b"LSDESK";
const BEHAVIOUR_FORMAT: u8 = 1;
/// The flash is mapped in pages of this size, so offsets in the file and addresses agree below it.
const MMU_PAGE_BYTES: u32 = 64 * 1024;
const SEGMENT_HEADER_BYTES: u32 = 8;
const CHECKSUM_BLOCK_BYTES: u32 = 16;
const HASH_BYTES: u32 = 32;

#[cfg(test)]
mod tests;
