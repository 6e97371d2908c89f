//! Images written, read, cut into pieces, damaged, and followed by all that may follow one.

use std::string::{String, ToString};
use std::vec::Vec;
use std::{format, vec};

use proptest::prelude::*;

use super::*;
use crate::descriptor::{Descriptor, OFFSET};
use crate::fmta;
use crate::id::{ImageHash, Sha256};
use crate::text::{FixedText, Name};
use crate::version::{ProtocolRange, ReleaseVersion};

const GOLDEN: &[u8] = include_bytes!("../../tests/golden/image-esp32s3.bin");

/// A small image with everything in it, and what is known about it.
#[derive(Debug)]
struct Fixture {
    header: ImageHeader,
    app: AppDescription,
    descriptor: Option<Descriptor>,
    segments: Vec<(u32, Vec<u8>)>,
}

impl Fixture {
    fn new() -> Self {
        let version = FixedText::new("v2.0.0-3-gdeadbeef").unwrap();
        let mut app = AppDescription::named(FixedText::new("companion").unwrap(), version);
        app.elf_sha256 = Sha256([0x5A; 32]);
        app.secure_version = 3;
        let descriptor = Descriptor {
            product: Name::new("battery-companion").unwrap(),
            role: Name::new("receiver").unwrap(),
            board: Name::new("lilygo-t-display-s3").unwrap(),
            version: ReleaseVersion::from_number(20_000),
            min_compatible: ReleaseVersion::from_number(10_200),
            protocol: ProtocolRange::new(1, 2).unwrap(),
            epoch: 1,
            config_schema: 2,
        };
        let words = |length: u8| (0..length).map(|index| index.wrapping_mul(7)).collect();
        Self {
            header: ImageHeader::for_chip(ChipId::ESP32_S3, 0x4037_5000),
            app,
            descriptor: Some(descriptor),
            segments: vec![(0x3C00_0020, words(96)), (0x4037_4000, words(41))],
        }
    }

    fn build(&self) -> Vec<u8> {
        let segments: Vec<_> = self
            .segments
            .iter()
            .map(|(load_address, data)| Segment { load_address: *load_address, data })
            .collect();
        let spec = ImageSpec {
            header: self.header,
            app: &self.app,
            descriptor: self.descriptor.as_ref(),
            segments: &segments,
        };
        let mut bytes = Vec::new();
        let built = build_image(&spec, &mut |piece| bytes.extend_from_slice(piece)).unwrap();
        assert_eq!(built.size_bytes as usize, bytes.len());
        assert_eq!(spec.size_bytes(), Ok(built.size_bytes));
        bytes
    }
}

fn image() -> Vec<u8> {
    Fixture::new().build()
}

fn read(bytes: &[u8]) -> Result<ImageFacts, ImageError> {
    read_in_pieces(bytes, usize::MAX)
}

fn read_in_pieces(bytes: &[u8], length: usize) -> Result<ImageFacts, ImageError> {
    let mut reader = ImageReader::new();
    for piece in bytes.chunks(length) {
        reader.push(piece)?;
    }
    reader.finish()
}

/// Reads an image from the start of `slot` and never beyond it.
fn walk(slot: &[u8]) -> Result<ImageFacts, ImageError> {
    let limit = u32::try_from(slot.len()).unwrap();
    let Ok(facts) = read_image(limit, |offset, piece| {
        piece.copy_from_slice(&slot[offset as usize..][..piece.len()]);
        Ok::<(), core::convert::Infallible>(())
    });
    facts
}

fn quick(slot: &[u8]) -> Result<ImageHash, ImageError> {
    let limit = u32::try_from(slot.len()).unwrap();
    let Ok(hash) = quick_hash(limit, |offset, piece| {
        piece.copy_from_slice(&slot[offset as usize..][..piece.len()]);
        Ok::<(), core::convert::Infallible>(())
    });
    hash
}

/// Pads `image` and appends a sector with a signature block, as `espsecure sign-data` does.
fn signed(image: Vec<u8>) -> Vec<u8> {
    signed_as(2, 0xFF, image)
}

/// Also what no tool makes: a block of another version, another filling behind the image.
fn signed_as(version: u8, filling: u8, mut image: Vec<u8>) -> Vec<u8> {
    use sha2::Digest as _;

    image.resize(image.len().next_multiple_of(4096), filling);
    let mut block = vec![0xE7, version, 0, 0];
    block.extend_from_slice(&sha2::Sha256::digest(&image));
    block.resize(1196, 0x11);
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&block);
    block.extend_from_slice(&crc.to_le_bytes());
    block.resize(1216, 0);
    block.resize(4096, 0xFF);
    image.extend_from_slice(&block);
    image
}

#[test]
fn the_written_image_is_frozen() {
    assert_eq!(image(), GOLDEN);
}

#[test]
fn everything_written_is_read() {
    let fixture = Fixture::new();
    let bytes = fixture.build();
    let facts = read(&bytes).unwrap();
    assert_eq!(facts.header, ImageHeader { segment_count: 2, ..fixture.header });
    assert_eq!(facts.app, Some(fixture.app));
    assert_eq!(facts.descriptor, fixture.descriptor);
    assert_eq!(facts.fmta, None);
    assert_eq!(facts.size_bytes as usize, bytes.len());
    assert!(facts.hash_appended);
    assert_eq!(facts.image_hash.0, bytes[bytes.len() - 32..]);
    assert_eq!(&bytes[OFFSET as usize..][..8], &crate::descriptor::MAGIC);
}

#[test]
fn an_image_without_appended_hash_has_the_same_identity() {
    let mut fixture = Fixture::new();
    fixture.header.hash_appended = false;
    let bytes = fixture.build();
    let facts = read(&bytes).unwrap();
    assert!(!facts.hash_appended);
    assert_eq!(quick(&bytes), Ok(facts.image_hash));
    assert_eq!(facts.image_hash.0, facts.file_sha256.0);
}

#[test]
fn the_descriptions_are_known_long_before_the_end() {
    let mut reader = ImageReader::new();
    let bytes = image();
    reader.push(&bytes[..24]).unwrap();
    assert_eq!(reader.header().unwrap().chip, ChipId::ESP32_S3);
    reader.push(&bytes[24..0x120]).unwrap();
    assert_eq!(reader.app_description().unwrap().project.as_str(), "companion");
    assert_eq!(reader.descriptor(), None);
    reader.push(&bytes[0x120..0x1A0]).unwrap();
    assert_eq!(reader.descriptor().unwrap().role, "receiver");
}

#[test]
fn a_descriptor_elsewhere_and_an_fmta_block_are_found() {
    let mut fixture = Fixture::new();
    let descriptor = fixture.descriptor.take().unwrap();
    let data = &mut fixture.segments[1].1;
    // A lone magic, and one that only the CRC tells from a descriptor, come before the real one.
    data.extend_from_slice(&crate::descriptor::MAGIC);
    let mut damaged = descriptor.encode();
    damaged[30] ^= 1;
    data.extend_from_slice(&damaged[..77]);
    data.extend_from_slice(&damaged);
    data.extend_from_slice(&descriptor.encode());
    let mut block = [0; 128];
    block[..4].copy_from_slice(&fmta::MAGIC);
    block[36..40].copy_from_slice(b"TEST");
    block[124..].copy_from_slice(&fmta::END_MAGIC);
    data.extend_from_slice(&block);
    let facts = read(&fixture.build()).unwrap();
    assert_eq!(facts.descriptor, Some(descriptor));
    assert_eq!(facts.fmta.unwrap().device_type.as_str(), "TEST");
}

#[test]
fn a_descriptor_is_found_where_a_cut_one_seemed_to_be() {
    let mut fixture = Fixture::new();
    let descriptor = fixture.descriptor.take().unwrap();
    let data = &mut fixture.segments[1].1;
    data.extend_from_slice(&descriptor.encode()[..77]);
    data.extend_from_slice(&descriptor.encode());
    assert_eq!(read(&fixture.build()).unwrap().descriptor, Some(descriptor));
}

#[test]
fn of_two_descriptors_the_first_in_the_file_counts() {
    let mut fixture = Fixture::new();
    let first = fixture.descriptor.clone();
    let mut other = first.clone().unwrap();
    other.role = Name::new("transmitter").unwrap();
    fixture.segments[0].1.extend_from_slice(&other.encode());
    assert_eq!(read(&fixture.build()).unwrap().descriptor, first);
}

#[test]
fn an_image_without_application_description_is_read() {
    let mut bytes = image();
    bytes[0x20] ^= 1;
    reseal(&mut bytes);
    let facts = read(&bytes).unwrap();
    assert_eq!(facts.app, None);
    assert!(facts.descriptor.is_some());
}

/// Puts the right checksum and hash behind a changed image, which has no padding to change.
fn reseal(bytes: &mut [u8]) {
    use sha2::Digest as _;

    let mut at = 24;
    let mut checksum = 0xEF;
    for _ in 0..bytes[1] {
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        checksum = bytes[at + 8..][..length].iter().fold(checksum, |sum, byte| sum ^ byte);
        at += 8 + length;
    }
    let end = bytes.len() - 32;
    bytes[end - 1] = checksum;
    let hash = sha2::Sha256::digest(&bytes[..end]);
    bytes[end..].copy_from_slice(&hash);
}

#[test]
fn any_flipped_bit_is_noticed() {
    let bytes = image();
    for index in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[index] ^= 0x40;
        assert!(read(&damaged).is_err(), "byte {index}");
        assert!(walk(&damaged).is_err(), "byte {index}");
    }
}

#[test]
fn damage_is_named_by_what_noticed_it() {
    let mut data = image();
    data[0x1A8] ^= 1;
    assert!(matches!(read(&data), Err(ImageError::Checksum { .. })));
    let mut load_address = image();
    load_address[0x19] ^= 1;
    assert!(matches!(read(&load_address), Err(ImageError::Hash { .. })));
}

#[test]
fn a_truncated_image_is_refused_with_both_sizes() {
    let bytes = image();
    for length in 0..bytes.len() {
        let error = read(&bytes[..length]).unwrap_err();
        let ImageError::TooShort { found_bytes, needed_bytes } = error else {
            panic!("{length} bytes: {error}");
        };
        assert_eq!(found_bytes as usize, length);
        assert!(needed_bytes as usize > length && needed_bytes as usize <= bytes.len());
    }
    assert_eq!(
        read(&bytes[..bytes.len() - 1]).unwrap_err().to_string(),
        format!(
            "the `image` ends after {} bytes, its headers call for {}",
            bytes.len() - 1,
            bytes.len()
        )
    );
}

// L15: an image just over the slot is refused with both numbers, at the first segment header that
// tells, not after the whole of it.
#[test]
fn l15_an_image_over_the_slot_is_refused_by_its_headers() {
    let mut fixture = Fixture::new();
    fixture.segments[0].1.resize(300_000, 1);
    let bytes = fixture.build();
    let size = u32::try_from(bytes.len()).unwrap();
    let mut reader = ImageReader::with_limit(290_000);
    let error = reader.push(&bytes[..32]).unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { limit_bytes: 290_000, .. }));
    assert_eq!(reader.push(&bytes[32..]), Err(error));
    assert_eq!(reader.finish(), Err(error));

    let mut reader = ImageReader::with_limit(size - 1);
    assert_eq!(
        reader.push(&bytes),
        Err(ImageError::TooLarge { needed_bytes: size.into(), limit_bytes: size - 1 })
    );
    let mut reader = ImageReader::with_limit(size);
    reader.push(&bytes).unwrap();
    assert!(reader.clone().finish().is_ok());
    assert!(matches!(reader.push(&[0xFF]), Err(ImageError::TooLarge { .. })));
}

// L30: a page of a server, saved as firmware.
#[test]
fn l30_what_is_no_image_is_named() {
    let mut tar = vec![b'a'; 300];
    tar[257..262].copy_from_slice(b"ustar");
    let cases: [(&[u8], &str); 9] = [
        (b"<!DOCTYPE html><html><head>", "a web page"),
        (b"\n  <HTML lang=en><body>404", "a web page"),
        (b"{\"error\":{\"code\":\"not_found\"}}", "JSON"),
        (b"\x1F\x8B\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "gzip"),
        (b"\x7FELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "ELF"),
        (b"PK\x03\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "zip"),
        (b"manifest.json\0\0\0\0\0\0\0\0\0\0\0", "tar archive"),
        (b"UF2\nWQ]\x9E\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "UF2"),
        (&[0xFF; 64], "erased flash"),
    ];
    for (bytes, expected) in cases {
        for length in [1, 7, 64] {
            let text = read_in_pieces(bytes, length).unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
        }
    }
    let text = ImageHeader::parse(&tar).unwrap_err().to_string();
    assert!(text.contains("tar archive"), "{text}");
    assert_eq!(
        read(b"<html>").unwrap_err().to_string(),
        "the `image` is a web page (HTML): it begins with 0x3c, expected 0xe9"
    );
    assert_eq!(
        read(&[0x42; 100]).unwrap_err().to_string(),
        "the `image` begins with 0x42, expected 0xe9"
    );
    assert!(matches!(read(b""), Err(ImageError::TooShort { found_bytes: 0, .. })));
}

#[test]
fn senseless_segments_are_refused() {
    let with = |index: usize, value: u8| {
        let mut bytes = image();
        bytes[index] = value;
        (read(&bytes).unwrap_err(), quick(&bytes).unwrap_err())
    };
    for count in [0, 17, 255] {
        let error = ImageError::Segments { found: count };
        assert_eq!(with(1, count), (error, error));
    }
    for (index, value) in [(28, 0x21), (31, 1), (31, 0xFF)] {
        let (error, quick_error) = with(index, value);
        assert!(matches!(error, ImageError::SegmentLength { index: 0, .. }), "{error}");
        assert_eq!(error, quick_error);
    }
}

#[test]
fn padding_may_follow_and_anything_else_is_refused_with_both_sizes() {
    let bytes = image();
    let size = u32::try_from(bytes.len()).unwrap();
    let mut padded = bytes.clone();
    padded.resize(20_000, 0xFF);
    let facts = read(&padded).unwrap();
    assert_eq!(facts.size_bytes, size);
    assert_ne!(facts.file_sha256, read(&bytes).unwrap().file_sha256);
    for at in [bytes.len(), 4095, 4096, 8192, 19_999] {
        let mut trailed = padded.clone();
        trailed[at] = 0;
        let error = ImageError::Trailing { image_bytes: size, found_bytes: 20_000 };
        assert_eq!(read(&trailed), Err(error));
        assert_eq!(read_in_pieces(&trailed, 7), Err(error));
    }
}

#[test]
fn a_signature_sector_belongs_to_the_image_it_was_made_for() {
    let plain = read(&image()).unwrap();
    let bytes = signed(image());
    let facts = read(&bytes).unwrap();
    assert_eq!(facts.size_bytes as usize, bytes.len());
    assert_eq!(facts.image_hash, plain.image_hash);
    // Damaged: in its CRC, its hash, its kind; cut; and behind another image.
    let bad = |why| Err(ImageError::Signature { offset: 4096, why });
    for at in [4096 + 1196, 4096 + 5] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert_eq!(read(&damaged), bad(BadSignature::Crc), "byte {at}");
    }
    let odd_kind = signed_as(4, 0xFF, image());
    assert_eq!(read(&odd_kind), bad(BadSignature::Version { found: 4 }));
    assert!(matches!(read(&bytes[..4096 + 1300]), Err(ImageError::Trailing { .. })));
    let odd_filling = signed_as(2, 0, image());
    assert!(matches!(read(&odd_filling), Err(ImageError::Trailing { .. })));
    for odd in [odd_kind, odd_filling] {
        assert_eq!(walk(&odd).as_ref(), Ok(&plain));
    }
    let mut other = Fixture::new();
    other.app.secure_version = 4;
    let mut foreign = signed(other.build());
    foreign[..4096].copy_from_slice(&bytes[..4096]);
    assert_eq!(read(&foreign), bad(BadSignature::OtherImage));
}

fn guard(slot: &[u8]) -> Guard {
    let limit = u32::try_from(slot.len()).unwrap();
    let Ok(guard) = quick_guard(limit, |offset, piece| {
        piece.copy_from_slice(&slot[offset as usize..][..piece.len()]);
        Ok::<(), core::convert::Infallible>(())
    });
    guard.unwrap()
}

#[test]
fn what_guards_an_image_is_known_without_a_walk_over_it() {
    let mut fixture = Fixture::new();
    fixture.app.secure_version = 7;
    let plain = Guard { secure_version: 7, is_signed: false };
    let mut slot = fixture.build();
    assert_eq!((read(&slot).unwrap().guard(), guard(&slot)), (plain, plain));
    slot.resize(0x8000, 0xFF);
    assert_eq!(guard(&slot), plain);
    let mut slot = signed(fixture.build());
    let is_signed = Guard { is_signed: true, ..plain };
    assert_eq!(read(&slot).unwrap().guard(), is_signed);
    assert_eq!(guard(&slot), is_signed);
    // What an erase has left of a signature is none.
    slot[4096 + 600] = 0;
    assert_eq!(guard(&slot), plain);
}

#[test]
fn the_blocks_of_a_sector_are_read_until_one_is_none() {
    let bytes = signed(image());
    let (image, mut sector) = (bytes[..4096].to_vec(), bytes[4096..].to_vec());
    let first = sector[..1216].to_vec();
    sector[1216..2432].copy_from_slice(&first);
    sector[1216 + 700] ^= 1;
    let blocks = signature_blocks(&image, &sector);
    let faults: Vec<_> = blocks.iter().map(|block| block.fault).collect();
    assert_eq!(faults, [None, Some(BadSignature::Crc)]);
    assert_eq!(blocks[0].scheme, Some(Scheme::Rsa3072));
    let other = signature_blocks(&image[1..], &sector);
    assert_eq!(other[0].fault, Some(BadSignature::OtherImage));
    assert!(signature_blocks(&image, &[0xFF; 4096]).is_empty());
}

#[test]
fn what_an_older_image_left_in_the_slot_does_not_matter() {
    let bytes = image();
    let plain = read(&bytes).unwrap();
    for rest in [0xFF, 0x00, 0xE7, 0xE9] {
        let mut slot = vec![rest; 0x4000];
        slot[..bytes.len()].copy_from_slice(&bytes);
        assert_eq!(walk(&slot), Ok(plain.clone()));
        assert_eq!(quick(&slot), Ok(plain.image_hash));
    }
    // A signature of an older image of the same padded length.
    let mut older = Fixture::new();
    older.app.secure_version = 4;
    let mut slot = signed(older.build());
    slot[..bytes.len()].copy_from_slice(&bytes);
    slot.resize(0x4000, 0xFF);
    assert_eq!(walk(&slot), Ok(plain.clone()));
}

#[test]
fn a_signed_image_is_read_from_its_slot_with_its_signature() {
    let bytes = signed(image());
    let mut slot = bytes.clone();
    slot.resize(0x4000, 0);
    assert_eq!(walk(&slot), read(&bytes));
    // Where the slot ends before the sector, there is none.
    assert_eq!(walk(&bytes[..bytes.len() - 1]).unwrap().size_bytes as usize, image().len());
}

#[test]
fn an_empty_or_tiny_slot_holds_no_image() {
    assert!(matches!(
        walk(&[0xFF; 0x2000]),
        Err(ImageError::NotAnImage { looks_like: Some(Foreign::Erased), .. })
    ));
    assert!(quick(&[0xFF; 0x2000]).is_err());
    for length in 0..image().len() {
        assert!(walk(&image()[..length]).is_err());
        assert!(quick(&image()[..length]).is_err());
    }
}

#[test]
fn an_error_of_the_flash_is_passed_on() {
    let bytes = image();
    for failing in 0..bytes.len() {
        let limit = u32::try_from(bytes.len()).unwrap();
        let result = read_image(limit, |offset, piece| {
            let range = offset as usize..offset as usize + piece.len();
            if range.contains(&failing) {
                return Err("no flash");
            }
            piece.copy_from_slice(&bytes[range]);
            Ok(())
        });
        assert_eq!(result, Err("no flash"), "byte {failing}");
    }
}

#[test]
fn chips_are_known_by_every_spelling_in_use() {
    for name in ["ESP32-S3", "esp32s3", "esp32-s3", "Esp32_S3"] {
        assert_eq!(ChipId::from_name(name), Some(ChipId::ESP32_S3), "{name}");
    }
    assert_eq!(ChipId::from_name("ESP32"), Some(ChipId::ESP32));
    assert_eq!(ChipId::from_name("ESP32-S9"), None);
    assert_eq!(ChipId::from_name(""), None);
    for number in 0..64 {
        let chip = ChipId(number);
        assert_eq!(chip.name().map(ChipId::from_name), chip.name().map(|_| Some(chip)));
    }
    assert_eq!(ChipId::ESP32_C6.to_string(), "ESP32-C6");
    assert_eq!(ChipId(0x99).to_string(), "chip 0x0099");
}

#[test]
fn flash_settings_are_readable() {
    let config = |byte| (FlashConfig(byte).size_bytes(), FlashConfig(byte).clock_divider());
    assert_eq!(config(0x20), (Some(4 << 20), Some(2)));
    assert_eq!(config(0x7F), (Some(128 << 20), Some(1)));
    assert_eq!(config(0x8E), (None, None));
    assert_eq!(SpiMode(2).to_string(), "DIO");
    assert_eq!(SpiMode(77).to_string(), "mode 77");
}

#[test]
fn what_cannot_be_an_image_is_not_written() {
    let fixture = Fixture::new();
    let refusal = |segments: &[Segment<'_>]| {
        let spec =
            ImageSpec { header: fixture.header, app: &fixture.app, descriptor: None, segments };
        let mut written = 0;
        let error = build_image(&spec, &mut |piece| written += piece.len()).unwrap_err();
        assert_eq!(written, 0);
        error
    };
    let segment = Segment { load_address: 0, data: &[] };
    assert_eq!(refusal(&[]), BuildError::Segments { found: 0 });
    assert_eq!(refusal(&[segment; 17]), BuildError::Segments { found: 17 });
    let long = vec![0; 16 << 20];
    let long = Segment { load_address: 0, data: &long };
    assert!(matches!(
        refusal(&[segment, long]),
        BuildError::SegmentTooLong { index: 1, found_bytes: 0x100_0000 }
    ));
}

/// Made by others, for real boards, where they are at hand.
#[test]
fn real_firmware_is_read() {
    let folder = std::env::var("LOCKSTEP_FIRMWARE").unwrap_or_else(|_| {
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/firmware").into()
    });
    let Ok(files) = std::fs::read_dir(&folder) else {
        std::println!("skipped: no firmware images in {folder}");
        return;
    };
    let images = files.map(|file| file.unwrap().path());
    for path in images.filter(|path| path.extension().is_some_and(|end| end == "bin")) {
        let bytes = std::fs::read(&path).unwrap();
        let facts = read(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(facts.size_bytes as usize, bytes.len(), "{}", path.display());
        assert!(facts.hash_appended && facts.app.is_some(), "{}", path.display());
        assert_eq!(facts.descriptor, None, "{}", path.display());
        assert_eq!(facts.fmta, None, "{}", path.display());
        let name: String = path.file_name().unwrap().to_string_lossy().into();
        let chip = [
            ("be-2can-s3", ChipId::ESP32_S3),
            ("be-can485", ChipId::ESP32),
            ("wled-c3", ChipId::ESP32_C3),
            ("tactility-esp32", ChipId::ESP32),
            ("idf-blink-s2", ChipId::ESP32_S2),
            ("pincheck-esp32", ChipId::ESP32),
        ];
        for (_, chip) in chip.iter().filter(|(prefix, _)| name.starts_with(prefix)) {
            assert_eq!(facts.header.chip, *chip, "{name}");
        }
        let mut slot = bytes.clone();
        slot.resize(0x1E_0000, 0xA5);
        assert_eq!(quick(&slot), Ok(facts.image_hash), "{name}");
        assert_eq!(walk(&slot), Ok(facts), "{name}");
    }
}

fn any_fixture() -> impl Strategy<Value = Fixture> {
    let data = proptest::collection::vec(any::<u8>(), 0..300);
    let segments = proptest::collection::vec((any::<u32>(), data), 1..=16);
    let header = (any::<[u8; 23]>(), any::<bool>());
    (segments, header, any::<bool>(), any::<[u8; 32]>()).prop_map(
        |(segments, (head, hash_appended), has_descriptor, version)| {
            let mut bytes = [0; 24];
            bytes[..23].copy_from_slice(&head);
            bytes[0] = 0xE9;
            bytes[1] = 1;
            bytes[23] = u8::from(hash_appended);
            let mut fixture = Fixture::new();
            fixture.header = ImageHeader::parse(&bytes).unwrap();
            assert_eq!(fixture.header.encode(), bytes);
            fixture.segments = segments;
            fixture.app.version = FixedText::from_bytes(version);
            if !has_descriptor {
                fixture.descriptor = None;
            }
            fixture
        },
    )
}

proptest! {
    #[test]
    fn whatever_is_written_is_read_however_it_is_cut(
        fixture in any_fixture(),
        cuts in proptest::collection::vec(1..200_usize, 1..20),
        follows in prop_oneof![Just(0), Just(1), Just(2)],
    ) {
        let mut bytes = fixture.build();
        let size = bytes.len();
        match follows {
            1 => bytes.extend_from_slice(&[0xFF; 5000]),
            2 => bytes = signed(bytes),
            _ => {}
        }
        let facts = read(&bytes).unwrap();
        let expected = if follows == 2 { bytes.len() } else { size };
        prop_assert_eq!(facts.size_bytes as usize, expected);
        prop_assert_eq!(facts.app, Some(fixture.app));
        prop_assert_eq!(&facts.descriptor, &fixture.descriptor);

        let mut reader = ImageReader::new();
        let mut rest = bytes.as_slice();
        for cut in cuts.iter().cycle() {
            let (piece, later) = rest.split_at(rest.len().min(*cut));
            reader.push(piece).unwrap();
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(reader.finish().unwrap(), facts.clone());

        prop_assert_eq!(quick(&bytes), Ok(facts.image_hash));
        bytes.truncate(expected);
        let mut facts = facts;
        facts.file_sha256 = read(&bytes).unwrap().file_sha256;
        bytes.resize(expected + 3000, 0x77);
        prop_assert_eq!(walk(&bytes), Ok(facts));
    }

    #[test]
    fn damage_gives_the_same_error_however_it_is_cut(
        at in any::<prop::sample::Index>(),
        value: u8,
        length in 1..50_usize,
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = image();
        let index = at.index(bytes.len());
        bytes[index] = value;
        bytes.truncate(1 + cut.index(bytes.len() * 2));
        prop_assert_eq!(read_in_pieces(&bytes, length), read(&bytes));
    }

    #[test]
    fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = (read(&bytes), walk(&bytes), quick(&bytes), Foreign::recognise(&bytes));
        // With a header and a first segment that lead further in.
        if bytes.len() > 40 {
            bytes[..2].copy_from_slice(&[0xE9, 3]);
            let length = [bytes[28] & 0xFC, 0, 0, 0];
            bytes[28..32].copy_from_slice(&length);
            let _ = (read(&bytes), walk(&bytes), quick(&bytes));
        }
    }
}
