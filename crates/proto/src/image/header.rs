//! The first 24 bytes of an image: for which chip, how it starts, how its flash is driven.

use core::fmt;

use super::error::{Foreign, ImageError};

/// Length of the header.
pub const HEADER_BYTES: u32 = 24;
const HEADER_LENGTH: usize = HEADER_BYTES as usize;

/// The most segments an image can have.
pub const SEGMENTS_MAX: u8 = 16;

/// First byte of every image.
pub(super) const MAGIC: u8 = 0xE9;

/// A kind of chip, by Espressif's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChipId(pub u16);

macro_rules! chips {
    ($($constant:ident = $number:literal, $name:literal;)*) => {
        impl ChipId {
            $(#[doc = concat!($name, ".")] pub const $constant: Self = Self($number);)*

            /// The name as esptool prints it; `None` for a number that was given out since.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($name),)*
                    _ => None,
                }
            }

            /// All that have a name here.
            pub fn all() -> impl Iterator<Item = Self> {
                Self::NAMED.iter().map(|(_, chip)| *chip)
            }

            const NAMED: &[(&'static str, Self)] = &[$(($name, Self($number)),)*];
        }
    };
}

// `esp_app_format.h`, `esp_chip_id_t`.
chips! {
    ESP32 = 0x00, "ESP32";
    ESP32_S2 = 0x02, "ESP32-S2";
    ESP32_C3 = 0x05, "ESP32-C3";
    ESP32_S3 = 0x09, "ESP32-S3";
    ESP32_C2 = 0x0C, "ESP32-C2";
    ESP32_C6 = 0x0D, "ESP32-C6";
    ESP32_H2 = 0x10, "ESP32-H2";
    ESP32_P4 = 0x12, "ESP32-P4";
    ESP32_C61 = 0x14, "ESP32-C61";
    ESP32_C5 = 0x17, "ESP32-C5";
    ESP32_H21 = 0x19, "ESP32-H21";
    ESP32_H4 = 0x1C, "ESP32-H4";
    ESP32_S31 = 0x20, "ESP32-S31";
}

impl ChipId {
    /// Where the ROM of the chip looks for the bootloader in flash: `bootloader_offset` of
    /// ESP-IDF's `soc` component.
    pub const fn bootloader_offset(self) -> u32 {
        match self {
            Self::ESP32 | Self::ESP32_S2 => 0x1000,
            Self::ESP32_P4 | Self::ESP32_C5 => 0x2000,
            _ => 0,
        }
    }

    /// Takes the spellings in use: `ESP32-S3`, `esp32s3`, `esp32_s3`. `None` for an unknown chip.
    pub fn from_name(name: &str) -> Option<Self> {
        let letters = |text: &'static str| plain_letters(text.as_bytes());
        let is_named =
            |(known, _): &&(&'static str, Self)| plain_letters(name.as_bytes()).eq(letters(known));
        Self::NAMED.iter().find(is_named).map(|(_, chip)| *chip)
    }
}

fn plain_letters(text: &[u8]) -> impl Iterator<Item = u8> {
    text.iter().filter(|byte| !b"-_ ".contains(byte)).map(u8::to_ascii_uppercase)
}

impl fmt::Display for ChipId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "chip {:#06x}", self.0),
        }
    }
}

/// How many lines the flash is read over; a change between images is a danger (unreadable data).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpiMode(pub u8);

impl fmt::Display for SpiMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.pad("QIO"),
            1 => f.pad("QOUT"),
            2 => f.pad("DIO"),
            3 => f.pad("DOUT"),
            4 => f.pad("FAST_READ"),
            5 => f.pad("SLOW_READ"),
            other => write!(f, "mode {other}"),
        }
    }
}

/// Size and speed of the flash that the image was made for, as they stand in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlashConfig(pub u8);

impl FlashConfig {
    /// The flash size in bytes; `None` for a value that has no meaning yet.
    pub const fn size_bytes(self) -> Option<u32> {
        match self.0 >> 4 {
            power @ 0..=7 => Some(0x10_0000 << power),
            _ => None,
        }
    }

    /// By how much the flash clock is divided; `None` for a value that has no meaning yet.
    pub const fn clock_divider(self) -> Option<u8> {
        match self.0 & 0x0F {
            0 => Some(2),
            1 => Some(3),
            2 => Some(4),
            0x0F => Some(1),
            _ => None,
        }
    }
}

/// The header of an image. Fields that nobody interprets here are kept as they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageHeader {
    /// How many segments follow, 1 to 16.
    pub segment_count: u8,
    /// How the flash is read.
    pub spi_mode: SpiMode,
    /// Which flash it was made for.
    pub flash: FlashConfig,
    /// Where the program starts.
    pub entry_address: u32,
    /// Write-protect pin; 0xEE: not used.
    pub wp_pin: u8,
    /// Drive strength of the flash pins.
    pub spi_pin_drive: [u8; 3],
    /// The chip it runs on.
    pub chip: ChipId,
    /// Oldest chip revision, in the form of the first ESP32 only.
    pub min_chip_revision_legacy: u8,
    /// Oldest chip revision, `major · 100 + minor`.
    pub min_chip_revision: u16,
    /// Newest chip revision, `major · 100 + minor`; 0xFFFF: any.
    pub max_chip_revision: u16,
    /// Without a meaning.
    pub reserved: [u8; 4],
    /// A SHA-256 follows the checksum.
    pub hash_appended: bool,
}

impl ImageHeader {
    /// Reads the header at the start of `bytes`; more of them help to name what is no image.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        if let Some(&found) = bytes.first()
            && found != MAGIC
        {
            return Err(ImageError::NotAnImage { found, looks_like: Foreign::recognise(bytes) });
        }
        let Some(head) = bytes.first_chunk::<HEADER_LENGTH>() else {
            return Err(ImageError::TooShort {
                found_bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
                needed_bytes: HEADER_BYTES,
            });
        };
        if !(1..=SEGMENTS_MAX).contains(&head[1]) {
            return Err(ImageError::Segments { found: head[1] });
        }
        Ok(Self {
            segment_count: head[1],
            spi_mode: SpiMode(head[2]),
            flash: FlashConfig(head[3]),
            entry_address: u32::from_le_bytes([head[4], head[5], head[6], head[7]]),
            wp_pin: head[8],
            spi_pin_drive: [head[9], head[10], head[11]],
            chip: ChipId(u16::from_le_bytes([head[12], head[13]])),
            min_chip_revision_legacy: head[14],
            min_chip_revision: u16::from_le_bytes([head[15], head[16]]),
            max_chip_revision: u16::from_le_bytes([head[17], head[18]]),
            reserved: [head[19], head[20], head[21], head[22]],
            // As the bootloader reads it: anything but zero.
            hash_appended: head[23] != 0,
        })
    }

    /// The bytes for an image.
    pub fn encode(&self) -> [u8; HEADER_LENGTH] {
        let mut head = [0; HEADER_LENGTH];
        head[..4].copy_from_slice(&[MAGIC, self.segment_count, self.spi_mode.0, self.flash.0]);
        head[4..8].copy_from_slice(&self.entry_address.to_le_bytes());
        head[8] = self.wp_pin;
        head[9..12].copy_from_slice(&self.spi_pin_drive);
        head[12..14].copy_from_slice(&self.chip.0.to_le_bytes());
        head[14] = self.min_chip_revision_legacy;
        head[15..17].copy_from_slice(&self.min_chip_revision.to_le_bytes());
        head[17..19].copy_from_slice(&self.max_chip_revision.to_le_bytes());
        head[19..23].copy_from_slice(&self.reserved);
        head[23] = u8::from(self.hash_appended);
        head
    }

    /// A header as build tools make it for `chip`: DIO, 4 MiB of flash at 40 MHz, any revision,
    /// hash appended. The writer fills in the number of segments.
    pub const fn for_chip(chip: ChipId, entry_address: u32) -> Self {
        Self {
            segment_count: 1,
            spi_mode: SpiMode(2),
            flash: FlashConfig(0x20),
            entry_address,
            wp_pin: 0xEE,
            spi_pin_drive: [0; 3],
            chip,
            min_chip_revision_legacy: 0,
            min_chip_revision: 0,
            max_chip_revision: u16::MAX,
            reserved: [0; 4],
            hash_appended: true,
        }
    }
}
