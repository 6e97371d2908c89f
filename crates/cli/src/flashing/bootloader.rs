//! The second stage bootloader of a board: which one, for which chip, and which net it is.
//!
//! ESP-IDF can build it with app rollback or without, and nothing in its bytes says which: there is
//! neither a field for it nor a message (what it says about rollback is said at log level debug).
//! So rollback is known of bootloaders that are known, and of those whose build says so: by its
//! settings beside the file, or by debug messages in the file. Of others it is not known, and said
//! to be so; a device finds out at its first trial and reports it.

use std::fmt;
use std::fs;
use std::path::Path;

use espflash::flasher::{FlashData, FlashSettings, FlashSize};
use espflash::image_format::idf::IdfBootloaderFormat;
use espflash::target::{Chip, XtalFrequency};
use lockstep_proto::image::{self, ChipId, ImageFacts};
use lockstep_proto::partition::TABLE_OFFSET;
use sha2::{Digest as _, Sha256};

use crate::error::CommandError;
use crate::files;

/// What catches an image that does not get as far as counting its own boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Net {
    /// The bootloader goes back after one boot that was not confirmed.
    Bootloader,
    /// The bootloader never goes back; the firmware counts its trial boots itself.
    Agent,
    /// Nothing says which of the two it is.
    NotKnown,
}

impl Net {
    /// For programs: `true`, `false` or `null`.
    pub const fn has_rollback(self) -> Option<bool> {
        match self {
            Self::Bootloader => Some(true),
            Self::Agent => Some(false),
            Self::NotKnown => None,
        }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bootloader => "with rollback",
            Self::Agent => "without rollback",
            Self::NotKnown => "rollback not known",
        })
    }
}

/// A bootloader that is going to be written.
#[derive(Debug, Clone)]
pub struct Bootloader {
    /// As it will stand in flash.
    pub bytes: Vec<u8>,
    /// Where it is from, for people.
    pub from: String,
    /// What is known of its rollback.
    pub net: Net,
    /// What that is known from; empty if it is not.
    pub known_by: String,
}

/// The one that espflash carries for the chip, for a flash of at least `flash_bytes`.
/// `revision` is the chip's, `major · 100 + minor`, since some chips have one for each.
pub fn bundled(
    chip: ChipId,
    crystal: Option<XtalFrequency>,
    revision: u16,
    flash_bytes: u32,
) -> Result<Bootloader, CommandError> {
    let none = |error: &dyn std::error::Error| {
        CommandError::failed(format!("There is no bootloader for {chip} in this program"))
            .because(error)
            .hinted("Give one: --bootloader FILE, from a build of ESP-IDF for this chip.")
    };
    let target = Chip::try_from(chip.0).map_err(|error| none(&error))?;
    let size = size_for(flash_bytes);
    let settings = FlashSettings::new(None, size.map(|(_, size)| size), None);
    let crystal = crystal.unwrap_or_else(|| usual_crystal(chip));
    let data = FlashData::new(settings, revision, None, target, crystal);
    // The one way to it that espflash offers is an application to go with it: an empty one.
    let made = IdfBootloaderFormat::new(&EMPTY_ELF, &data, None, None, None, None);
    let made = made.map_err(|error| none(&error))?;
    let segment = made.flash_segments().next().ok_or_else(|| none(&fmt::Error))?;
    Ok(Bootloader {
        bytes: segment.data.into_owned(),
        from: "espflash's own".to_owned(),
        net: Net::Agent,
        known_by: "it is built with ESP-IDF's defaults".to_owned(),
    })
}

/// Reads one that was given, and makes its header say how large the flash is, at least
/// `flash_bytes`: a bootloader that thinks less refuses the partition table.
pub fn read(path: &Path, chip: ChipId, flash_bytes: u32) -> Result<Bootloader, CommandError> {
    let name = path.display();
    let bytes = files::read(path, u64::from(TABLE_OFFSET - chip.bootloader_offset()))?;
    let facts = facts_of(&bytes).map_err(|error| {
        CommandError::failed(format!("`{name}` is no bootloader"))
            .because(&error)
            .hinted("ESP-IDF and PlatformIO leave it in the build's folder as `bootloader.bin`.")
    })?;
    let found = facts.header.chip;
    if found != chip {
        let text = format!("`{name}` is a bootloader for {found}, the firmware is for {chip}");
        return Err(
            CommandError::failed(text).hinted("Take the one from your build for this chip.")
        );
    }
    if facts.app.is_some() || facts.descriptor.is_some() {
        return Err(CommandError::failed(format!("`{name}` is an application, no bootloader"))
            .hinted("Give it with --app."));
    }
    let (net, known_by) = net_of(&bytes, &facts)
        .or_else(|| settings_beside(path))
        .unwrap_or((Net::NotKnown, String::new()));
    let bytes = for_flash_of(bytes, &facts, flash_bytes).ok_or_else(|| {
        let says = facts.header.flash.size_bytes().map_or(0, |size| size >> 20);
        CommandError::failed(format!(
            "`{name}` is made for a flash of {says} MiB, the partition table needs {} MiB, and \
             what is signed cannot be changed",
            flash_bytes.next_power_of_two() >> 20
        ))
        .hinted("Build it with a larger CONFIG_ESPTOOLPY_FLASHSIZE, and sign that.")
    })?;
    Ok(Bootloader { bytes, from: format!("`{name}`"), net, known_by })
}

/// What a bootloader is; padding and anything else behind it does not count.
pub fn facts_of(bytes: &[u8]) -> Result<ImageFacts, image::ImageError> {
    let limit_bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let read = |at: u32, piece: &mut [u8]| {
        let at = at as usize;
        let found = bytes.get(at..at + piece.len()).unwrap_or_default();
        piece.iter_mut().zip(found).for_each(|(to, from)| *to = *from);
        Ok::<(), std::convert::Infallible>(())
    };
    match image::read_image(limit_bytes, read) {
        Ok(result) => result,
        Err(never) => match never {},
    }
}

/// The one that is on a board, if it is whole and can work there with a table that needs
/// `flash_bytes`. `bytes` is what is in flash from its place on.
pub fn on_board(bytes: &[u8], chip: ChipId, flash_bytes: u32) -> Option<Bootloader> {
    let facts = facts_of(bytes).ok().filter(|facts| facts.header.chip == chip)?;
    facts.header.flash.size_bytes().filter(|&size| size >= flash_bytes)?;
    let (net, known_by) = net_of(bytes, &facts).unwrap_or((Net::NotKnown, String::new()));
    let bytes = bytes.get(..facts.size_bytes as usize)?.to_vec();
    Some(Bootloader { bytes, from: "the board's own".to_owned(), net, known_by })
}

/// What its bytes alone say; `None` if they do not.
fn net_of(bytes: &[u8], facts: &ImageFacts) -> Option<(Net, String)> {
    if bytes.windows(DEBUG_MESSAGE.len()).any(|window| window == DEBUG_MESSAGE) {
        return Some((Net::Bootloader, "its debug messages".to_owned()));
    }
    is_bundled(bytes, facts).then(|| (Net::Agent, "it is espflash's own".to_owned()))
}

/// A build of ESP-IDF leaves its settings in the folder `config` beside the bootloader.
fn settings_beside(path: &Path) -> Option<(Net, String)> {
    let place = path.parent()?.join("config/sdkconfig.json");
    let text = fs::read_to_string(&place).ok()?;
    let settings: serde_json::Value = serde_json::from_str(&text).ok()?;
    let said = settings.get("BOOTLOADER_APP_ROLLBACK_ENABLE")?.as_bool()?;
    let net = if said { Net::Bootloader } else { Net::Agent };
    Some((net, format!("`{}`", place.display())))
}

/// All but the header, which says how the flash is read, and the hash.
fn is_bundled(bytes: &[u8], facts: &ImageFacts) -> bool {
    let crystals = [XtalFrequency::_40Mhz, XtalFrequency::_26Mhz, XtalFrequency::_32Mhz];
    let revisions = [0, facts.header.min_chip_revision];
    let body = |bytes: &[u8]| bytes.get(HEADER_BYTES..bytes.len() - HASH_BYTES).map(<[u8]>::to_vec);
    let given = bytes.get(..facts.size_bytes as usize).and_then(body);
    crystals.iter().any(|&crystal| {
        revisions.iter().any(|&revision| {
            bundled(facts.header.chip, Some(crystal), revision, 0)
                .is_ok_and(|ours| body(&ours.bytes) == given)
        })
    })
}

/// `None`: it would have to be changed, and something behind it forbids that.
fn for_flash_of(mut bytes: Vec<u8>, facts: &ImageFacts, flash_bytes: u32) -> Option<Vec<u8>> {
    if facts.header.flash.size_bytes().is_some_and(|size| size >= flash_bytes) {
        return Some(bytes);
    }
    let (power, _) = size_for(flash_bytes)?;
    let (image, behind) = bytes.split_at_mut_checked(facts.size_bytes as usize)?;
    if !behind.iter().all(|&byte| byte == 0xFF) {
        return None;
    }
    let (hashed, hash) = match facts.hash_appended {
        true => image.split_last_chunk_mut::<HASH_BYTES>()?,
        false => (image, &mut [0; HASH_BYTES]),
    };
    // A signature counts as part of the image; the hash is not at its end then.
    if facts.hash_appended && *hash != facts.image_hash.0 {
        return None;
    }
    let config = hashed.get_mut(FLASH_CONFIG_AT)?;
    *config = (*config & 0x0F) | (power << 4);
    *hash = Sha256::digest(hashed).into();
    Some(bytes)
}

/// The header's number for the smallest flash that holds `flash_bytes`, and espflash's name for it.
fn size_for(flash_bytes: u32) -> Option<(u8, FlashSize)> {
    let sizes = [
        FlashSize::_1Mb,
        FlashSize::_2Mb,
        FlashSize::_4Mb,
        FlashSize::_8Mb,
        FlashSize::_16Mb,
        FlashSize::_32Mb,
        FlashSize::_64Mb,
        FlashSize::_128Mb,
    ];
    (0..).zip(sizes).find(|(_, size)| size.size() >= flash_bytes.max(FLASH_BYTES_MIN))
}

/// What nearly all boards of that chip have.
const fn usual_crystal(chip: ChipId) -> XtalFrequency {
    match chip {
        ChipId::ESP32_H2 | ChipId::ESP32_H4 => XtalFrequency::_32Mhz,
        _ => XtalFrequency::_40Mhz,
    }
}

const HEADER_BYTES: usize = 24;
const HASH_BYTES: usize = 32;
/// Size and speed of the flash, in the header.
const FLASH_CONFIG_AT: usize = 3;
/// No board that is updated has less; espflash's own bootloaders are built for 2 MiB.
const FLASH_BYTES_MIN: u32 = 0x20_0000;
/// `bootloader_utility.c`, where it makes a new image one on trial.
const DEBUG_MESSAGE: &[u8] = b"marked PENDING_VERIFY";

/// A program without anything in it, for any chip: 52 bytes of header.
const EMPTY_ELF: [u8; 52] = {
    let mut elf = [0; 52];
    let head: [u8; 7] = [0x7F, b'E', b'L', b'F', 1, 1, 1];
    let mut at = 0;
    while at < head.len() {
        elf[at] = head[at];
        at += 1;
    }
    elf[16] = 2; // a program
    elf[18] = 243; // RISC-V; nobody looks
    elf[20] = 1;
    elf[40] = 52; // its own length
    elf[42] = 32; // that of an entry of its program headers, of which there are none
    elf[46] = 40; // and of its section headers
    elf
};

#[cfg(test)]
mod tests {
    use super::*;

    const FLASH_BYTES: u32 = 4 << 20;

    fn ours(chip: ChipId) -> Vec<u8> {
        bundled(chip, None, 0, FLASH_BYTES).unwrap().bytes
    }

    fn written(folder: &tempfile::TempDir, bytes: &[u8]) -> std::path::PathBuf {
        let path = folder.path().join("bootloader.bin");
        fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn every_chip_that_has_one_gets_a_whole_bootloader_that_knows_its_flash() {
        let chips = [
            ChipId::ESP32,
            ChipId::ESP32_S2,
            ChipId::ESP32_S3,
            ChipId::ESP32_C2,
            ChipId::ESP32_C3,
            ChipId::ESP32_C5,
            ChipId::ESP32_C6,
            ChipId::ESP32_C61,
            ChipId::ESP32_H2,
            ChipId::ESP32_P4,
        ];
        for chip in chips {
            let bytes = ours(chip);
            let facts = facts_of(&bytes).unwrap();
            assert_eq!(facts.header.chip, chip);
            assert_eq!(facts.header.flash.size_bytes(), Some(FLASH_BYTES), "{chip}");
            assert!(bytes.len() < (TABLE_OFFSET - chip.bootloader_offset()) as usize, "{chip}");
        }
        let error = bundled(ChipId(0x7777), None, 0, FLASH_BYTES).unwrap_err();
        assert!(error.message().contains("no bootloader for chip 0x7777"), "{}", error.message());
    }

    #[test]
    fn a_bootloader_for_a_smaller_flash_is_told_the_size_and_stays_whole() {
        let folder = tempfile::tempdir().unwrap();
        let small = bundled(ChipId::ESP32_C3, None, 0, 2 << 20).unwrap().bytes;
        assert_eq!(facts_of(&small).unwrap().header.flash.size_bytes(), Some(2 << 20));
        let path = written(&folder, &small);
        let read = read(&path, ChipId::ESP32_C3, FLASH_BYTES).unwrap();
        assert_eq!(read.bytes, ours(ChipId::ESP32_C3));
    }

    /// The signature would not fit any more.
    #[test]
    fn a_signed_one_for_a_smaller_flash_is_refused_and_a_large_enough_one_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut signed = bundled(ChipId::ESP32_C3, None, 0, 2 << 20).unwrap().bytes;
        signed.resize(signed.len().next_multiple_of(4096), 0xFF);
        signed.extend([0xE7, 2, 0, 0]);
        let path = written(&folder, &signed);
        let error = read(&path, ChipId::ESP32_C3, FLASH_BYTES).unwrap_err();
        assert!(error.message().contains("flash of 2 MiB"), "{}", error.message());
        assert_eq!(read(&path, ChipId::ESP32_C3, 2 << 20).unwrap().bytes, signed);
    }

    #[test]
    fn what_is_known_of_its_rollback_is_said_with_what_it_is_known_from() {
        let folder = tempfile::tempdir().unwrap();
        let net = |path: &Path| {
            let read = read(path, ChipId::ESP32_C3, FLASH_BYTES).unwrap();
            (read.net, read.known_by)
        };
        let path = written(&folder, &ours(ChipId::ESP32_C3));
        assert_eq!(net(&path), (Net::Agent, "it is espflash's own".to_owned()));
        // As another build would be: one instruction differs.
        let other = rebuilt(|bytes| bytes[0x100] ^= 1);
        let path = written(&folder, &other);
        assert_eq!(net(&path).0, Net::NotKnown);
        fs::create_dir(folder.path().join("config")).unwrap();
        let settings = folder.path().join("config/sdkconfig.json");
        for (said, expected) in [("true", Net::Bootloader), ("false", Net::Agent)] {
            let text = format!("{{\"BOOTLOADER_APP_ROLLBACK_ENABLE\": {said}}}");
            fs::write(&settings, text).unwrap();
            assert_eq!(net(&path), (expected, format!("`{}`", settings.display())));
        }
        fs::remove_file(&settings).unwrap();
        let path = written(
            &folder,
            &rebuilt(|bytes| {
                bytes[0x100..0x100 + DEBUG_MESSAGE.len()].copy_from_slice(DEBUG_MESSAGE);
            }),
        );
        assert_eq!(net(&path), (Net::Bootloader, "its debug messages".to_owned()));
    }

    /// Espflash's own for the C3, changed in its first segment, with checksum and hash to match.
    fn rebuilt(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = ours(ChipId::ESP32_C3);
        let before = bytes.clone();
        change(&mut bytes);
        let differs = before.iter().zip(&bytes).fold(0, |sum, (one, other)| sum ^ one ^ other);
        let hashed = bytes.len() - HASH_BYTES;
        bytes[hashed - 1] ^= differs;
        let hash = Sha256::digest(&bytes[..hashed]);
        bytes[hashed..].copy_from_slice(&hash);
        bytes
    }
}
