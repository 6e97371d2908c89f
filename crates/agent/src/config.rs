//! The application's configuration: bytes that it owns, kept for each of the two images.
//!
//! A configuration belongs to the image under which it was written. An image that has written none
//! begins with the latest there is, so a new release takes over what the old one had; and the old
//! one, when the group goes back, finds its own as it was. Nothing is copied for that, and nothing
//! is put back: whichever image boots, the right one is in force before the application starts.
//!
//! Three areas of three sectors: one for each image, and one to write into. An area begins with 64
//! bytes: magic `LSC1`, size u32, sequence u32, image 32, CRC-32 of the configuration u32, zeros,
//! CRC-32 of the first 60; the configuration follows. The header is written last, so that a cut
//! leaves the configuration before.

use core::fmt;

use embedded_storage::nor_flash::{NorFlash, ReadNorFlash};
use lockstep_proto::id::ImageHash;

use crate::flash::{self, CRC, FlashFault, Region, SECTOR_BYTES, bytes_u32};

/// The longest configuration, in bytes.
pub const CONFIG_BYTES_MAX: usize = 8 * 1024;
/// What the areas need.
pub const CONFIG_STORE_BYTES: u32 = AREAS * AREA_BYTES;

/// A configuration that is in flash, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    area: u32,
    size_bytes: u32,
    sequence: u32,
    image: ImageHash,
}

/// Copies the configuration that is in force for `image` into `buffer` and returns its length.
/// `None`: there is none.
pub fn load<F: ReadNorFlash>(
    flash: &mut F,
    store: Region,
    image: ImageHash,
    buffer: &mut [u8; CONFIG_BYTES_MAX],
) -> Result<Option<usize>, FlashFault> {
    let areas = areas(flash, store)?;
    let Some(found) = in_force(&areas, image) else { return Ok(None) };
    let size = found.size_bytes as usize;
    let Some(bytes) = buffer.get_mut(..size) else { return Ok(None) };
    flash::read(flash, store.offset + found.area * AREA_BYTES + HEADER_BYTES, bytes)?;
    Ok(Some(size))
}

/// Makes `bytes` the configuration of `image`; `other` is what the other slot holds, whose own is
/// left as it is. When this returns, it is in flash and was read back; when it fails, or the power
/// does, the one before it is in force.
pub fn store<F: NorFlash>(
    flash: &mut F,
    store: Region,
    image: ImageHash,
    other: Option<ImageHash>,
    bytes: &[u8],
) -> Result<(), ConfigError> {
    if bytes.len() > CONFIG_BYTES_MAX {
        return Err(ConfigError::TooLarge { found_bytes: bytes.len() });
    }
    let areas = areas(flash, store)?;
    let kept = [in_force(&areas, image), other.and_then(|other| in_force(&areas, other))];
    let is_free = |area: &u32| kept.iter().flatten().all(|found| found.area != *area);
    // Of three at most two are kept.
    let area = (0..AREAS).find(is_free).unwrap_or_default();
    let sequence = areas.iter().flatten().map(|found| found.sequence).max();
    let sequence = sequence.unwrap_or_default().wrapping_add(1);
    // What a cut left of an area may be read as whole some day: it must not be the latest then.
    for (found, free) in areas.iter().zip(0..).filter(|(_, free)| *free != area) {
        let at = store.offset + free * AREA_BYTES;
        if found.is_none() && flash::verify(flash, at, &CLEARED).is_err() {
            flash::write(flash, at, &CLEARED)?;
        }
    }
    let at = store.offset + area * AREA_BYTES;
    for sector in (at..at + AREA_BYTES).step_by(SECTOR_BYTES as usize) {
        flash::erase(flash, sector, sector + SECTOR_BYTES)?;
    }
    flash::write(flash, at + HEADER_BYTES, bytes)?;
    flash::verify(flash, at + HEADER_BYTES, bytes)?;
    let header = header(bytes_u32(bytes.len()), sequence, image, CRC.checksum(bytes));
    flash::write(flash, at, &header)?;
    flash::verify(flash, at, &header)?;
    Ok(())
}

/// The image's own, else the latest.
fn in_force(areas: &[Option<Found>; AREAS as usize], image: ImageHash) -> Option<Found> {
    let all = || areas.iter().flatten().copied();
    let own = all().filter(|found| found.image == image).max_by_key(|found| found.sequence);
    own.or_else(|| all().max_by_key(|found| found.sequence))
}

fn areas<F: ReadNorFlash>(
    flash: &mut F,
    store: Region,
) -> Result<[Option<Found>; AREAS as usize], FlashFault> {
    let mut all = [None; AREAS as usize];
    for (slot, area) in all.iter_mut().zip(0..) {
        *slot = area_at(flash, store.offset + area * AREA_BYTES, area)?;
    }
    Ok(all)
}

fn area_at<F: ReadNorFlash>(
    flash: &mut F,
    at: u32,
    area: u32,
) -> Result<Option<Found>, FlashFault> {
    let mut bytes = [0; HEADER_BYTES as usize];
    flash::read(flash, at, &mut bytes)?;
    let word = |index: usize| {
        let word = bytes.get(index..index + 4).and_then(|word| word.first_chunk::<4>());
        word.map_or(0, |word| u32::from_le_bytes(*word))
    };
    let (size_bytes, sequence, crc) = (word(4), word(8), word(44));
    let mut image = ImageHash([0; 32]);
    image.0.copy_from_slice(&bytes[12..44]);
    if bytes != header(size_bytes, sequence, image, crc)
        || size_bytes as usize > CONFIG_BYTES_MAX
        || flash::crc_of(flash, at + HEADER_BYTES, at + HEADER_BYTES + size_bytes)? != crc
    {
        return Ok(None);
    }
    Ok(Some(Found { area, size_bytes, sequence, image }))
}

fn header(
    size_bytes: u32,
    sequence: u32,
    image: ImageHash,
    crc: u32,
) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&size_bytes.to_le_bytes());
    header[8..12].copy_from_slice(&sequence.to_le_bytes());
    header[12..44].copy_from_slice(&image.0);
    header[44..48].copy_from_slice(&crc.to_le_bytes());
    let own = CRC.checksum(&header[..60]);
    header[60..].copy_from_slice(&own.to_le_bytes());
    header
}

/// Why a configuration was not stored. The one before it is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigError {
    /// The flash failed.
    Flash(FlashFault),
    /// It is longer than a device keeps.
    TooLarge {
        /// Its length.
        found_bytes: usize,
    },
    /// This device's flash has no room for configurations.
    NoRoom,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flash(_) => write!(f, "could not write the `configuration`"),
            Self::TooLarge { found_bytes } => write!(
                f,
                "`configuration` has {found_bytes} bytes, the limit is {CONFIG_BYTES_MAX}"
            ),
            Self::NoRoom => write!(
                f,
                "the flash of this device has no room for a `configuration`: a `lockstep` \
                 partition of 0x10000 bytes has"
            ),
        }
    }
}

impl core::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Flash(fault) => Some(fault),
            Self::TooLarge { .. } | Self::NoRoom => None,
        }
    }
}

impl From<FlashFault> for ConfigError {
    fn from(fault: FlashFault) -> Self {
        Self::Flash(fault)
    }
}

const AREAS: u32 = 3;
/// Three sectors: a header, and the longest configuration.
const AREA_BYTES: u32 = 0x3000;
const HEADER_BYTES: u32 = 64;
const MAGIC: [u8; 4] = *b"LSC1";
/// In its place: whatever else stands there, the area is none until it is erased.
const CLEARED: [u8; 4] = [0; 4];
const _: () = assert!(HEADER_BYTES as usize + CONFIG_BYTES_MAX <= AREA_BYTES as usize);

#[cfg(test)]
mod tests {
    use core::error::Error as _;
    use std::string::{String, ToString};
    use std::vec::Vec;

    use lockstep_sim::flash::MemFlash;
    use proptest::prelude::*;

    use super::*;
    use crate::flash::Operation;

    const STORE: Region = Region { offset: 0x1000, size_bytes: CONFIG_STORE_BYTES };
    const OLD: ImageHash = ImageHash([1; 32]);
    const NEW: ImageHash = ImageHash([2; 32]);
    const NEXT: ImageHash = ImageHash([3; 32]);

    fn flash() -> MemFlash {
        MemFlash::new(STORE.end())
    }

    fn of(flash: &mut MemFlash, image: ImageHash) -> Option<String> {
        let mut buffer = [0; CONFIG_BYTES_MAX];
        let length = load(flash, STORE, image, &mut buffer).unwrap()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    fn put(flash: &mut MemFlash, image: ImageHash, other: Option<ImageHash>, text: &str) {
        store(flash, STORE, image, other, text.as_bytes()).unwrap();
    }

    #[test]
    fn a_device_without_a_configuration_has_none() {
        assert_eq!(of(&mut flash(), OLD), None);
    }

    // A new release takes over what there is; what it makes of it is no business of the old one.
    #[test]
    fn each_image_finds_its_own_and_a_new_one_the_latest() {
        let mut flash = flash();
        put(&mut flash, OLD, None, "old 1");
        put(&mut flash, OLD, None, "old 2");
        assert_eq!(of(&mut flash, NEW).as_deref(), Some("old 2"));
        for text in ["new 1", "new 2", "new 3"] {
            put(&mut flash, NEW, Some(OLD), text);
            assert_eq!(of(&mut flash, NEW).as_deref(), Some(text));
            assert_eq!(of(&mut flash, OLD).as_deref(), Some("old 2"), "after `{text}`");
        }
        // Back, changed there, and forward again.
        put(&mut flash, OLD, Some(NEW), "old 3");
        assert_eq!(of(&mut flash, OLD).as_deref(), Some("old 3"));
        assert_eq!(of(&mut flash, NEW).as_deref(), Some("new 3"));
    }

    #[test]
    fn what_belongs_to_an_image_that_is_gone_makes_room() {
        let mut flash = flash();
        put(&mut flash, OLD, None, "old");
        put(&mut flash, NEW, Some(OLD), "new");
        // The slot of the old image holds the next one now.
        put(&mut flash, NEW, Some(NEXT), "new 2");
        assert_eq!(of(&mut flash, NEXT).as_deref(), Some("new 2"));
        put(&mut flash, NEXT, Some(NEW), "next");
        put(&mut flash, NEXT, Some(NEW), "next 2");
        assert_eq!(of(&mut flash, NEW).as_deref(), Some("new 2"));
        assert_eq!(of(&mut flash, NEXT).as_deref(), Some("next 2"));
    }

    #[test]
    fn a_cut_anywhere_leaves_the_old_or_the_new_one_and_the_other_images_own() {
        let mut start = flash();
        put(&mut start, OLD, None, "of the old image");
        put(&mut start, NEW, Some(OLD), "before");
        put(&mut start, NEW, Some(OLD), "present");
        for budget in 0.. {
            let mut flash = start.clone();
            flash.power_budget_bytes = Some(budget);
            let result = store(&mut flash, STORE, NEW, Some(OLD), b"the next one");
            flash.power_on();
            let found = of(&mut flash, NEW);
            let is_new = found.as_deref() == Some("the next one");
            assert!(is_new || found.as_deref() == Some("present"), "{budget}: {found:?}");
            assert!(is_new || result.is_err(), "{budget}");
            assert_eq!(of(&mut flash, OLD).as_deref(), Some("of the old image"), "{budget}");
            if result.is_ok() {
                return;
            }
        }
    }

    // The last byte of its header reads as written in some boots, and as erased in others.
    #[test]
    fn one_that_was_cut_never_takes_the_place_of_a_later_one() {
        let mut flash = flash();
        put(&mut flash, OLD, None, "of the old image");
        put(&mut flash, NEW, Some(OLD), "present");
        put(&mut flash, NEW, Some(OLD), "never finished");
        let last = (STORE.offset + 2 * AREA_BYTES + HEADER_BYTES - 1) as usize;
        let written = std::mem::replace(&mut flash.bytes[last], 0xFF);
        assert_ne!(written, 0xFF);
        assert_eq!(of(&mut flash, NEW).as_deref(), Some("present"));
        // The other slot is being written: what it had makes room.
        put(&mut flash, NEW, None, "the later one");
        flash.bytes[last] &= written;
        assert_eq!(of(&mut flash, NEW).as_deref(), Some("the later one"));
    }

    #[test]
    fn one_that_is_too_long_is_refused_and_the_longest_is_not() {
        let mut flash = flash();
        let longest = std::vec![b'x'; 8192];
        store(&mut flash, STORE, OLD, None, &longest).unwrap();
        let error = store(&mut flash, STORE, OLD, None, &[&longest[..], b"x"].concat());
        assert_eq!(error, Err(ConfigError::TooLarge { found_bytes: 8193 }));
        assert_eq!(of(&mut flash, OLD).unwrap().len(), 8192);
    }

    #[test]
    fn an_area_with_one_wrong_bit_anywhere_is_none() {
        let mut flash = flash();
        put(&mut flash, OLD, None, "text");
        let start = STORE.offset as usize;
        for at in start..start + HEADER_BYTES as usize + 4 {
            flash.bytes[at] ^= 1;
            assert_eq!(of(&mut flash, OLD), None, "{at:#x}");
            flash.bytes[at] ^= 1;
        }
        assert_eq!(of(&mut flash, OLD).as_deref(), Some("text"));
    }

    #[test]
    fn an_error_names_the_configuration_and_leaves_the_cause_to_its_source() {
        let fault = FlashFault { operation: Operation::Erase, offset: 0x3000 };
        let failed = ConfigError::from(fault);
        assert_eq!(failed.to_string(), "could not write the `configuration`");
        assert_eq!(failed.source().unwrap().to_string(), fault.to_string());
        let large = ConfigError::TooLarge { found_bytes: 8193 };
        assert_eq!(large.to_string(), "`configuration` has 8193 bytes, the limit is 8192");
        assert!(large.source().is_none());
        assert_eq!(
            ConfigError::NoRoom.to_string(),
            "the flash of this device has no room for a `configuration`: a `lockstep` partition \
             of 0x10000 bytes has"
        );
    }

    #[test]
    fn the_bytes_of_an_area_are_frozen() {
        let mut flash = flash();
        put(&mut flash, OLD, None, "{\"a\":1}");
        let mut expected = b"LSC1\x07\0\0\0\x01\0\0\0".to_vec();
        expected.extend([1; 32]);
        expected.extend(CRC.checksum(b"{\"a\":1}").to_le_bytes());
        expected.extend([0; 12]);
        expected.extend(CRC.checksum(&expected).to_le_bytes());
        expected.extend(b"{\"a\":1}\xFF");
        let start = STORE.offset as usize;
        assert_eq!(flash.bytes[start..start + expected.len()], expected);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut flash = flash();
            let start = STORE.offset as usize;
            flash.bytes[start..start + bytes.len()].copy_from_slice(&bytes);
            flash.bytes[start + 0x3000..start + 0x3004].copy_from_slice(b"LSC1");
            let mut buffer = [0; CONFIG_BYTES_MAX];
            prop_assert_eq!(load(&mut flash, STORE, OLD, &mut buffer), Ok(None));
            let known: Vec<u8> = bytes;
            store(&mut flash, STORE, OLD, None, &known).unwrap();
            let length = load(&mut flash, STORE, OLD, &mut buffer).unwrap();
            prop_assert_eq!(length, Some(known.len()));
        }
    }
}
