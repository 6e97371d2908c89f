//! ESP-IDF's application description: who built what, when (`esp_app_desc.h`).
//!
//! What it calls the version is, in most firmware in the field, that of a library: a label to show,
//! never an identity.

use crate::id::Sha256;
use crate::text::FixedText;

/// Length of the description.
pub const APP_DESCRIPTION_BYTES: usize = 256;

/// Where it stands in an image: behind the header (24) and the first segment's header (8).
pub(super) const APP_DESCRIPTION_OFFSET: u32 = 0x20;

/// The description, without its reserved bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppDescription {
    /// Compared with the chip's anti-rollback fuses.
    pub secure_version: u32,
    /// What the build called its version.
    pub version: FixedText<32>,
    /// What the build called itself; `arduino-lib-builder` under Arduino.
    pub project: FixedText<32>,
    /// Time of the build.
    pub time: FixedText<16>,
    /// Date of the build.
    pub date: FixedText<16>,
    /// The ESP-IDF it was built with.
    pub idf_version: FixedText<32>,
    /// SHA-256 of the ELF file; zero if the build tool left it out.
    pub elf_sha256: Sha256,
    /// Oldest revision of the chip's eFuse block, `major · 100 + minor`.
    pub min_efuse_block_revision: u16,
    /// Newest revision of the chip's eFuse block, `major · 100 + minor`.
    pub max_efuse_block_revision: u16,
    /// Size of a page of the memory mapping, as a power of two; 0 in older images.
    pub mmu_page_size_log2: u8,
}

impl AppDescription {
    /// Reads the description at the start of `bytes`; `None` without its magic.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<APP_DESCRIPTION_BYTES>()?;
        if !bytes.starts_with(&MAGIC) {
            return None;
        }
        Some(Self {
            secure_version: u32::from_le_bytes(field(bytes, 4)),
            version: FixedText::from_bytes(field(bytes, 16)),
            project: FixedText::from_bytes(field(bytes, 48)),
            time: FixedText::from_bytes(field(bytes, 80)),
            date: FixedText::from_bytes(field(bytes, 96)),
            idf_version: FixedText::from_bytes(field(bytes, 112)),
            elf_sha256: Sha256(field(bytes, 144)),
            min_efuse_block_revision: u16::from_le_bytes(field(bytes, 176)),
            max_efuse_block_revision: u16::from_le_bytes(field(bytes, 178)),
            mmu_page_size_log2: bytes[180],
        })
    }

    /// The secure version in the first bytes of a description.
    pub(super) fn secure_version_of(head: [u8; 8]) -> Option<u32> {
        let [magic @ .., a, b, c, d] = head;
        (magic == MAGIC).then(|| u32::from_le_bytes([a, b, c, d]))
    }

    /// The bytes for an image.
    pub fn encode(&self) -> [u8; APP_DESCRIPTION_BYTES] {
        let mut bytes = [0; APP_DESCRIPTION_BYTES];
        let mut put = |offset: usize, field: &[u8]| {
            bytes[offset..offset + field.len()].copy_from_slice(field);
        };
        put(0, &MAGIC);
        put(4, &self.secure_version.to_le_bytes());
        put(16, self.version.bytes());
        put(48, self.project.bytes());
        put(80, self.time.bytes());
        put(96, self.date.bytes());
        put(112, self.idf_version.bytes());
        put(144, &self.elf_sha256.0);
        put(176, &self.min_efuse_block_revision.to_le_bytes());
        put(178, &self.max_efuse_block_revision.to_le_bytes());
        put(180, &[self.mmu_page_size_log2]);
        bytes
    }

    /// A description with nothing but names: any eFuse revision, no build time, no ELF.
    pub fn named(project: FixedText<32>, version: FixedText<32>) -> Self {
        Self {
            secure_version: 0,
            version,
            project,
            time: FixedText::default(),
            date: FixedText::default(),
            idf_version: FixedText::default(),
            elf_sha256: Sha256([0; 32]),
            min_efuse_block_revision: 0,
            max_efuse_block_revision: u16::MAX,
            mmu_page_size_log2: 16,
        }
    }
}

/// The `N` bytes at `offset`, which is a constant of ESP-IDF's structure.
fn field<const N: usize>(bytes: &[u8; APP_DESCRIPTION_BYTES], offset: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[offset..offset + N]);
    field
}

const MAGIC: [u8; 4] = 0xABCD_5432_u32.to_le_bytes();
