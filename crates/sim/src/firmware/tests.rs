//! What images of ours say, and that esptool reads them as we do.

use std::{path::PathBuf, process::Command};

use lockstep_proto::{
    descriptor::{Board, Product, Role},
    image::{ImageFacts, ImageReader},
    version::{ProtocolRange, ReleaseVersion},
};

use super::*;

fn spec() -> FirmwareSpec {
    let descriptor = Descriptor {
        product: Product::new("desk").unwrap(),
        role: Role::new("receiver").unwrap(),
        board: Board::new("desk-s3").unwrap(),
        version: "1.2.3".parse().unwrap(),
        min_compatible: ReleaseVersion::from_number(10_100),
        protocol: ProtocolRange::new(2, 3).unwrap(),
        epoch: 4,
        config_schema: 5,
    };
    FirmwareSpec::new(descriptor, ChipId::ESP32_S3)
}

fn read(image: &[u8]) -> ImageFacts {
    let mut reader = ImageReader::new();
    reader.push(image).unwrap();
    reader.finish().unwrap()
}

#[test]
fn an_image_says_what_its_specification_says() {
    let spec = FirmwareSpec { fault: Fault::CrashAfterMs(1500), ..spec() };
    let image = spec.build().unwrap();
    let facts = read(&image);
    assert_eq!(facts.descriptor, Some(spec.descriptor));
    assert_eq!((facts.header.chip, facts.hash_appended), (ChipId::ESP32_S3, true));
    let app = facts.app.unwrap();
    assert_eq!((app.project.as_str(), app.version.as_str()), ("desk", "1.2.3"));
    assert_eq!((app.date.as_str(), app.time.as_str()), ("Jan  1 2026", "12:00:00"));

    // The places are part of the format: the desk board looks nowhere else.
    assert_eq!(image[0x20..0x24], 0xABCD_5432_u32.to_le_bytes());
    assert_eq!(image[0x120..0x128], *b"\xD6LockSte");
    assert_eq!(image[0x1A0..0x1B0], *b"LSDESK\x01\x02\xDC\x05\0\0\0\0\0\0");
}

#[test]
fn an_image_has_the_length_asked_for() {
    for size_bytes in [SIZE_MIN_BYTES, SIZE_MIN_BYTES + 16, 65_536, 300_000, 1_900_000] {
        let image = FirmwareSpec { size_bytes, ..spec() }.build().unwrap();
        assert_eq!(image.len(), size_bytes as usize);
        assert_eq!(read(&image).size_bytes, size_bytes);
    }
    let image = FirmwareSpec { size_bytes: 100_001, ..spec() }.build().unwrap();
    assert_eq!(image.len(), 100_016);
}

/// A chip maps its flash in pages, so where the two differ below a page, nothing could run.
#[test]
fn offsets_in_the_file_and_addresses_agree_within_a_page() {
    let image = FirmwareSpec { size_bytes: 300_000, ..spec() }.build().unwrap();
    let word = |at: usize| u32::from_le_bytes(*image[at..].first_chunk().unwrap());
    let mut at = 24;
    for segment in 0..3 {
        let (address, length) = (word(at), word(at + 4) as usize);
        let is_in_ram = segment == 1;
        assert!(is_in_ram || address as usize % 0x1_0000 == (at + 8) % 0x1_0000, "{segment}");
        assert_eq!(is_in_ram, address == word(4), "it starts where the code in RAM starts");
        at += 8 + length;
    }
}

#[test]
fn a_length_that_no_image_has_is_refused_with_the_limits() {
    for size_bytes in [0, SIZE_MIN_BYTES - 1, SIZE_MAX_BYTES + 1, u32::MAX] {
        let refusal = FirmwareSpec { size_bytes, ..spec() }.build().unwrap_err();
        assert_eq!(
            refusal.to_string(),
            format!("firmware of {size_bytes} bytes: must have 4096 to 16777216")
        );
    }
}

/// L25: a label is no identity, so tests need two images with one label.
#[test]
fn the_same_specification_gives_the_same_bytes_and_any_change_another_image() {
    let hash = |spec: FirmwareSpec| read(&spec.build().unwrap()).image_hash;
    assert_eq!(hash(spec()), hash(spec()));

    let mut newer = spec();
    newer.descriptor.version = "1.2.4".parse().unwrap();
    let changed = [
        newer,
        FirmwareSpec { build: 1, ..spec() },
        FirmwareSpec { fault: Fault::Hang, ..spec() },
        FirmwareSpec { chip: ChipId::ESP32, ..spec() },
    ];
    for changed in changed {
        assert_ne!(hash(changed.clone()), hash(spec()), "{changed:?}");
    }
    let rebuilt = FirmwareSpec { build: 1, ..spec() };
    assert_eq!(read(&rebuilt.build().unwrap()).descriptor, Some(spec().descriptor));
}

#[test]
fn every_fault_has_a_name_and_a_block() {
    let names =
        ["none", "crash-at-boot", "crash-after=1500", "never-healthy", "deaf-radio", "hang"];
    for (code, name) in (0..).zip(names) {
        let fault: Fault = name.parse().unwrap();
        assert_eq!(fault.to_string(), name);
        assert_eq!(fault.encode()[7], code, "{name}");
        assert_eq!(Fault::decode(&fault.encode()), Ok(fault));
    }
    for name in ["", "crash", "crash-after=", "crash-after=-1", "crash-after=4294967296", "Hang"] {
        let refusal = name.parse::<Fault>().unwrap_err();
        assert!(refusal.to_string().starts_with(&format!("fault `{name}` is none of ")));
    }
}

/// Real firmware has anything there, and is not to be taken for broken.
#[test]
fn firmware_without_a_block_is_healthy() {
    assert_eq!(Fault::decode(&[0xFF; BEHAVIOUR_BYTES]), Ok(Fault::None));
    assert_eq!(Fault::decode(b"\0\0\0\0\0\0\x01\x01\0\0\0\0\0\0\0\0"), Ok(Fault::None));
}

#[test]
fn an_order_of_a_later_desk_is_refused() {
    let mut block = Fault::Hang.encode();
    block[7] = 6;
    let refusal = Fault::decode(&block).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "image orders fault 6 in format 1; this desk knows 0 to 5 in format 1"
    );
}

/// The judge of an image is not its author.
#[test]
fn esptool_finds_nothing_wrong_with_an_image() {
    let esptool = std::env::var_os("LOCKSTEP_ESPTOOL").unwrap_or_else(|| "esptool".into());
    if Command::new(&esptool).arg("version").output().is_err() {
        println!("skipped: no `{}`", PathBuf::from(esptool).display());
        return;
    }
    let chips = [ChipId::ESP32, ChipId::ESP32_S2, ChipId::ESP32_S3, ChipId::ESP32_C3]
        .into_iter()
        .chain([ChipId::ESP32_C6, ChipId::ESP32_H2, ChipId::ESP32_P4]);
    for chip in chips {
        let file = format!("lockstep-firmware-{}-{}.bin", std::process::id(), chip.0);
        let path = std::env::temp_dir().join(file);
        std::fs::write(&path, FirmwareSpec { chip, ..spec() }.build().unwrap()).unwrap();
        let output = Command::new(&esptool).arg("image-info").arg(&path).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        std::fs::remove_file(&path).unwrap();

        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let detected = format!("Detected image type: {chip}");
        for expected in [
            &detected,
            "Segments: 3",
            "(valid)\nValidation hash: ",
            "Project name: desk",
            "App version: 1.2.3",
            "Compile time: Jan  1 2026 12:00:00",
        ] {
            assert!(text.contains(expected), "`{expected}` is not in:\n{text}");
        }
        assert!(!text.contains("invalid") && !text.to_lowercase().contains("warning"), "{text}");
    }
}
