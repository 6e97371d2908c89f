//! Manifests that are right, wrong in every way we know, and signed by the real `minisign`.

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use proptest::prelude::*;
use sha2::Digest as _;

use super::*;
use crate::signature::{PublicKey, SignatureError};

/// The example of the original plan, byte for byte.
const PLAN: &[u8] = include_bytes!("../../tests/golden/plan-system-manifest.json");
/// [`release`] as we write it.
pub(crate) const GOLDEN: &[u8] = include_bytes!("../../tests/golden/release/manifest.json");
/// By key 1, as `minisign` signs today.
pub(crate) const SIGNATURE_1: &[u8] =
    include_bytes!("../../tests/golden/release/manifest.json.minisig");
/// By key 2, with `minisign -l`: not prehashed.
pub(crate) const SIGNATURE_2: &[u8] =
    include_bytes!("../../tests/golden/release/manifest.json.2.minisig");

pub(crate) fn key(number: u8) -> PublicKey {
    let text: &[u8] = match number {
        1 => include_bytes!("../../tests/golden/release/test-key-1.pub"),
        2 => include_bytes!("../../tests/golden/release/test-key-2.pub"),
        _ => include_bytes!("../../tests/golden/release/test-key-3.pub"),
    };
    PublicKey::parse(text).unwrap()
}

fn trust(keys: &[u8], threshold: u8) -> Trust {
    let keys: Vec<_> = keys.iter().copied().map(key).collect();
    Trust::signed_by(KeySet::new(&keys, threshold).unwrap())
}

/// The contents of the golden bundle's artifacts.
pub(crate) fn artifact(role: &str) -> Vec<u8> {
    (0..=250).cycle().take(if role == "receiver" { 700 } else { 1024 }).collect()
}

fn entry(role: &'static str) -> DeviceEntry<'static> {
    let bytes = artifact(role);
    let is_receiver = role == "receiver";
    let hash = |bytes: &[u8]| -> [u8; 32] { sha2::Sha256::digest(bytes).into() };
    DeviceEntry {
        role,
        version: "1.2.0".parse().unwrap(),
        device_type: if is_receiver { "ESP32-S3" } else { "ESP32" }.into(),
        hardware: if is_receiver { "LilyGo T-Display-S3" } else { "ESP32-POE-ISO" }.into(),
        firmware_url: if is_receiver { "receiver.bin" } else { "transmitter.bin" }.into(),
        firmware_size: u32::try_from(bytes.len()).unwrap(),
        md5_checksum: "0123456789abcdef0123456789abcdef".into(),
        protocol_version: 2,
        protocol_range: Some(ProtocolRange::new(1, 2).unwrap()),
        sha256: Some(Sha256(hash(&bytes))),
        image_sha256: Some(ImageHash(hash(&bytes[..64]))),
        generations_sha256: None,
        elf_sha256: (!is_receiver).then(|| Sha256(hash(b"elf"))),
        chip: ChipId::from_name(if is_receiver { "ESP32-S3" } else { "ESP32" }),
        board: Some(Text::new(if is_receiver { "t-display-s3" } else { "esp32-poe-iso" })),
        min_compatible: is_receiver.then(|| "1.1.0".parse().unwrap()),
        config_schema: 3,
        effect: if is_receiver { Effect::ConfigMigration } else { Effect::LinkInterrupted },
        guard: Guard::default(),
    }
}

/// What is not guarded says nothing of it, as manifests did before there was anything to say.
#[test]
fn what_guards_an_image_is_written_and_read() {
    let mut release = release();
    assert!(!release.to_json().to_string().contains("secure"));
    release.devices[0].guard = Guard { secure_version: 4, is_signed: true };
    let text = release.to_json().to_string();
    assert!(text.contains("\"secure_version\": 4") && text.contains("\"secure_boot\": \"v2\""));
    let read = verify(text.as_bytes(), &[], &Trust::anybody()).unwrap();
    assert_eq!(
        (read.devices[0].guard, read.devices[1].guard),
        (release.devices[0].guard, Guard::default())
    );
    let other = text.replace("\"v2\"", "\"v3\"");
    assert!(verify(other.as_bytes(), &[], &Trust::anybody()).is_err());
}

/// A release with every field of ours.
fn release() -> Manifest<'static> {
    Manifest {
        schema: SCHEMA_NEWEST,
        system: Some(Text::new("battery-link")),
        system_version: "1.2.0".parse().unwrap(),
        sequence: 7,
        epoch: 1,
        release_date: "2026-02-03T14:30:00Z".into(),
        min_compatible_version: "1.0.0".parse().unwrap(),
        description: "Both ends speak protocol 2.\nQuotes \" and \\ and \u{fc} survive.".into(),
        devices: heapless::Vec::from_array([entry("receiver"), entry("transmitter")]),
        update_instructions: UpdateInstructions {
            order: heapless::Vec::from_array(["transmitter", "receiver"]),
            reboot_delay_seconds: 5,
            health_check_timeout_seconds: 30,
        },
        rollback: Some(Rollback {
            previous_version: "1.1.0".parse().unwrap(),
            urls: heapless::Vec::from_array([("receiver", "http://192.168.1.100/r.bin".into())]),
        }),
        keys: Some(KeySet::new(&[key(2), key(3)], 2).unwrap()),
    }
}

fn read(text: &str) -> Result<VerifiedManifest<'_>, VerifyError> {
    verify(text.as_bytes(), &[], &Trust::anybody())
}

/// The error of the original plan's example with `old` replaced by `new`.
#[track_caller]
fn refusal(old: &str, new: &str) -> String {
    let plan = str::from_utf8(PLAN).unwrap();
    assert!(plan.contains(old), "{old}");
    let text = plan.replacen(old, new, 1);
    match read(&text) {
        Err(VerifyError::Manifest(error)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_example_of_the_original_plan_parses_byte_for_byte() {
    let manifest = verify(PLAN, &[], &Trust::anybody()).unwrap();
    assert_eq!(manifest.schema, 0);
    assert_eq!(manifest.system_version.number(), 10_000);
    assert_eq!(manifest.order(), ["receiver", "transmitter"]);
    assert_eq!(manifest.update_instructions.reboot_delay_seconds, 5);
    assert_eq!(manifest.update_instructions.health_check_timeout_seconds, 30);
    assert!(manifest.roles().eq(["receiver", "transmitter"]));
    let receiver = manifest.entry("receiver").unwrap();
    assert_eq!(receiver.hardware, "LilyGo T-Display-S3");
    assert_eq!(receiver.firmware_size, 1_458_624);
    assert_eq!(receiver.md5_checksum, "a1b2c3d4e5f6...");
    let rollback = manifest.rollback.as_ref().unwrap();
    assert_eq!(rollback.previous_version.to_string(), "0.9.5");
    assert_eq!(rollback.urls[1].0, "transmitter");
    let announced = manifest.announced("transmitter").unwrap();
    assert_eq!((announced.number, announced.min_compatible), (10_000, 10_000));
    assert_eq!(announced.protocol, ProtocolRange::single(1));
}

// It knows no hashes: what would be installed could be anything.
#[test]
fn the_example_of_the_original_plan_says_what_it_lacks_to_be_installed() {
    let manifest = verify(PLAN, &[], &Trust::anybody()).unwrap();
    let error = manifest.entry("receiver").unwrap().installable().unwrap_err();
    assert_eq!(error.to_string(), "`devices.receiver.sha256` is missing");
}

#[test]
fn a_devices_own_minimum_and_range_go_before_those_of_the_release() {
    let release = release();
    let receiver = release.announced("receiver").unwrap();
    assert_eq!((receiver.number, receiver.min_compatible), (10_200, 10_100));
    assert_eq!(receiver.protocol, ProtocolRange::new(1, 2).unwrap());
    assert_eq!(release.announced("transmitter").unwrap().min_compatible, 10_000);
    assert_eq!(release.announced("nobody"), None);
}

#[test]
fn the_chip_may_come_from_the_plans_device_type() {
    let mut entry = entry("receiver");
    assert_eq!(entry.installable().unwrap().chip, ChipId(9));
    entry.chip = None;
    assert_eq!(entry.installable().unwrap().chip, ChipId(9));
    entry.device_type = "Z80".into();
    let error = entry.installable().unwrap_err();
    assert_eq!(error.to_string(), "`devices.receiver.chip` is missing");
}

#[test]
fn the_minimum_is_text_in_the_plan_and_a_number_in_its_code() {
    let plan = str::from_utf8(PLAN).unwrap();
    let text =
        plan.replace(r#""min_compatible_version": "1.0.0""#, r#""min_compatible_version": 905"#);
    assert_eq!(read(&text).unwrap().min_compatible_version.to_string(), "0.9.5");
}

#[test]
fn what_we_write_is_frozen_and_reads_back_the_same() {
    let written = release().to_json().to_string();
    assert_eq!(written, str::from_utf8(GOLDEN).unwrap());
    assert_eq!(*read(&written).unwrap(), release());
}

// The golden manifest is signed, and has no such list: older ones stay as they are.
#[test]
fn hashes_of_generations_are_written_behind_the_hash_of_the_image_and_read_back() {
    let (bytes, mut list) = (artifact("receiver"), String::new());
    let mut release = release();
    write_generations([GenerationHash::of(&bytes)], &mut list).unwrap();
    release.devices[0].generations_sha256 = GenerationHashes::from_text(&list);
    let written = release.to_json().to_string();
    let line = format!("      \"generations_sha256\": \"{list}\",\n");
    let (before, behind) = written.split_once(&line).unwrap();
    assert!(before.lines().next_back().unwrap().starts_with("      \"image_sha256\""));
    assert_eq!(format!("{before}{behind}"), str::from_utf8(GOLDEN).unwrap());
    let manifest = read(&written).unwrap();
    assert_eq!(*manifest, release);
    let hashes = manifest.entry("receiver").unwrap().generations_sha256.unwrap();
    assert_eq!(hashes.get(0), Some(GenerationHash::of(&bytes)));
    assert_eq!(manifest.entry("transmitter").unwrap().generations_sha256, None);
}

#[test]
fn a_manifest_of_the_plan_keeps_every_field_when_written_again() {
    let manifest = verify(PLAN, &[], &Trust::anybody()).unwrap();
    let written = manifest.to_json().to_string();
    assert_eq!(*read(&written).unwrap(), *manifest);
    let (old, new): (serde_json::Value, serde_json::Value) =
        (serde_json::from_slice(PLAN).unwrap(), serde_json::from_str(&written).unwrap());
    contains(&new, &old);
}

#[track_caller]
fn contains(new: &serde_json::Value, old: &serde_json::Value) {
    match old.as_object() {
        Some(old) => old.iter().for_each(|(key, value)| contains(&new[key], value)),
        None => assert_eq!(new, old),
    }
}

#[test]
fn a_field_that_nobody_knows_is_passed_over() {
    let unknown = r#"{ "future": [{"a": [1.5e3, -0, "\u00fc"]}, null, true], "system_version""#;
    let text = str::from_utf8(PLAN).unwrap().replacen("{\n  \"system_version\"", unknown, 1);
    assert!(read(&text).is_ok());
}

// 8 KiB of brackets, in a field that nobody knows, must not use up a chip's stack.
#[test]
fn deep_nesting_is_refused_without_recursion() {
    let text = format!("{{\"x\":{}", "[".repeat(8000));
    let error = match read(&text) {
        Err(VerifyError::Manifest(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(error, "`manifest` has `[` at byte 38, expected less nesting: at most 32 levels");
}

// Found by fuzzing: to us the value counted, to others the `null` behind it.
#[test]
fn a_known_field_is_refused_the_second_time_though_it_is_null() {
    for (field, name) in [
        (r#""version": "1.0.0""#, "devices.receiver.version"),
        (r#""system_version": "1.0.0""#, "system_version"),
        (r#""reboot_delay_seconds": 5"#, "update_instructions.reboot_delay_seconds"),
        (r#""previous_version": "0.9.5""#, "rollback.previous_version"),
        (RECEIVER_URL, "rollback.*_url"),
    ] {
        let (key, _) = field.split_once(':').unwrap();
        let expected = format!("`{name}` stands there twice, expected once");
        assert_eq!(refusal(field, &format!("{field}, {key}: null")), expected);
    }
}

const RECEIVER_URL: &str = r#""receiver_url": "http://192.168.1.100/firmware/receiver_v0.9.5.bin""#;

#[test]
fn every_refusal_names_the_field_and_both_values() {
    for (old, new, text) in REFUSALS {
        assert_eq!(refusal(old, new), *text);
    }
}

/// What is changed in the original plan's example, and what is said to it.
const REFUSALS: &[(&str, &str, &str)] = &[
    (
        r#""version_number": 10000"#,
        r#""version_number": 10001"#,
        "`devices.receiver.version_number` is 10001, version 1.0.0 has the number 10000",
    ),
    (
        r#""version": "1.0.0""#,
        r#""version": "1.100.0""#,
        "`devices.receiver.version` is refused: `minor` of the version is 100, the limit is 99",
    ),
    (
        r#""order": ["receiver", "transmitter"]"#,
        r#""order": ["receiver", "sender"]"#,
        "`update_instructions.order` names `sender`, which `devices` does not",
    ),
    (
        r#""order": ["receiver", "transmitter"]"#,
        r#""order": ["receiver", "receiver"]"#,
        "`update_instructions.order` is `receiver`, expected each role once",
    ),
    (
        r#""order": ["receiver", "transmitter"]"#,
        r#""order": ["receiver"]"#,
        "`update_instructions.order` names 1 of 2 roles, `transmitter` not",
    ),
    ("1458624", "0", "`devices.receiver.firmware_size` is 0, expected 1 to 33554432"),
    (
        "1458624",
        "99999999999",
        "`devices.receiver.firmware_size` is 99999999999, expected 1 to 33554432",
    ),
    (
        "1458624",
        "\"big\"",
        "`devices.receiver.firmware_size` has `\"` at byte 421, expected a whole number",
    ),
    (
        "1458624",
        "1.5",
        "`devices.receiver.firmware_size` has `.` at byte 422, expected a whole number",
    ),
    ("1458624", "null", "`devices.receiver.firmware_size` is missing"),
    (
        r#""firmware_size": 1458624"#,
        r#""firmware_size": 1, "firmware_size": 2"#,
        "`devices.receiver.firmware_size` stands there twice, expected once",
    ),
    (
        r#""protocol_version": 1"#,
        r#""protocol_version": 300"#,
        "`devices.receiver.protocol_version` is 300, expected 0 to 255",
    ),
    (
        r#""protocol_version": 1"#,
        r#""protocol_version": 1, "protocol_range": [2, 3]"#,
        "`devices.receiver.protocol_version` is 1, outside of the protocol range 2 to 3",
    ),
    (
        r#""protocol_version": 1"#,
        r#""protocol_version": 1, "protocol_range": [3, 1]"#,
        "`devices.receiver.protocol_range` begins at 3, above its end 1",
    ),
    (
        r#""protocol_version": 1"#,
        r#""protocol_version": 1, "sha256": "abc""#,
        "`devices.receiver.sha256` is `abc`, expected 64 hexadecimal digits",
    ),
    (
        r#""protocol_version": 1"#,
        r#""protocol_version": 1, "chip": "Z80""#,
        "`devices.receiver.chip` is `Z80`, expected a chip such as `esp32s3`",
    ),
    (
        r#""protocol_version": 1"#,
        r#""protocol_version": 1, "effect": "big""#,
        "`devices.receiver.effect` is `big`, expected `none`, `link-interrupted`, \
          `config-migration` or `not-reversible`",
    ),
    (
        r#""protocol_version": 1"#,
        r#""protocol_version": 1, "generations_sha256": "paWlpaWlpaU""#,
        "`devices.receiver.generations_sha256` is `paWlpaWlpaU`, expected base64 of 8 bytes for \
          each generation",
    ),
    (
        r#""protocol_version": 1"#,
        r#""protocol_version": 1, "generations_sha256": "paWlpaWlpaU=""#,
        "`devices.receiver.generations_sha256` has 1 hashes, expected 51 for 1458624 bytes",
    ),
    (
        r#""protocol_version": 1"#,
        r#""protocol_version": 1, "generations_sha256": """#,
        "`devices.receiver.generations_sha256` has 0 hashes, expected 51 for 1458624 bytes",
    ),
    (
        r#""transmitter": {"#,
        r#""receiver": {"#,
        "`devices.receiver` stands there twice, expected once",
    ),
    (
        r#""transmitter": {"#,
        r#""../etc": {"#,
        "`devices` is `../etc`, expected a role of 1 to 16 letters, digits, `-` and `_`, \
          beginning with a letter or digit",
    ),
    (
        r#""reboot_delay_seconds": 5"#,
        r#""reboot_delay_seconds": 86401"#,
        "`update_instructions.reboot_delay_seconds` is 86401, expected 0 to 86400",
    ),
    (
        r#""health_check_timeout_seconds": 30"#,
        r#""health_check_timeout_seconds": 0"#,
        "`update_instructions.health_check_timeout_seconds` is 0, expected 1 to 86400",
    ),
    (
        r#""system_version""#,
        r#""schema": 2, "system_version""#,
        "`schema` is 2, this reader knows up to 1",
    ),
    (r#""system_version""#, r#""system_versio""#, "`system_version` is missing"),
    (
        r#""system_version""#,
        r#""system_v\u0065rsion""#,
        "`manifest` has `\\` at byte 4, expected a key without escapes",
    ),
    (
        r#""system_version": "1.0.0""#,
        r#""system_version": 1"#,
        "`system_version` has `1` at byte 22, expected a string",
    ),
    ("Initial", "\\x", "`description` has `\\` at byte 128, expected the escapes of JSON only"),
    ("  \"rollback\"", "\u{0}", "`manifest` has `\\x00` at byte 983, expected a string"),
];

#[test]
fn a_cut_manifest_is_refused_wherever_it_is_cut() {
    let end = PLAN.trim_ascii_end().len();
    for length in 0..end {
        assert!(verify(&PLAN[..length], &[], &Trust::anybody()).is_err(), "{length}");
    }
    assert!(verify(&PLAN[..end], &[], &Trust::anybody()).is_ok());
}

#[test]
fn a_manifest_above_8_kib_is_refused_unread() {
    let mut text = GOLDEN.to_vec();
    text.resize(MANIFEST_SIZE_BYTES_MAX, b' ');
    assert!(verify(&text, &[], &Trust::anybody()).is_ok());
    text.push(b' ');
    let error = verify(&text, &[], &Trust::anybody()).unwrap_err();
    let source = core::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "`manifest` is 8193 bytes, the limit is 8192");
}

#[test]
fn a_release_needs_as_many_keys_as_the_device_demands() {
    let both = [SIGNATURE_1, SIGNATURE_2];
    let signed = |signatures: &[&[u8]], trust: &Trust| {
        verify(GOLDEN, signatures, trust).map(|manifest| manifest.signed())
    };
    assert_eq!(signed(&both, &trust(&[1, 2, 3], 2)), Ok(Signed::By { keys: 2 }));
    assert_eq!(signed(&both[..1], &trust(&[1], 1)), Ok(Signed::By { keys: 1 }));
    // A key that the device has not learnt yet does no harm.
    assert_eq!(signed(&both, &trust(&[2], 1)), Ok(Signed::By { keys: 1 }));
    assert_eq!(
        signed(&both[..1], &trust(&[1, 2], 2)),
        Err(VerifyError::NotEnough { found: 1, needed: 2 })
    );
    assert_eq!(signed(&[], &trust(&[1], 1)), Err(VerifyError::NotEnough { found: 0, needed: 1 }));
}

#[test]
fn one_key_counts_once_however_often_it_signs() {
    let error = verify(GOLDEN, &[SIGNATURE_1; 3], &trust(&[1, 2], 2)).unwrap_err();
    assert_eq!(error.to_string(), "`manifest` is signed by 1 trusted keys, expected 2");
}

#[test]
fn a_release_by_a_stranger_is_refused_with_both_names() {
    let error = verify(GOLDEN, &[SIGNATURE_1], &trust(&[2, 3], 1)).unwrap_err();
    let (one, two, three) = (key(1).id(), key(2).id(), key(3).id());
    assert_eq!(
        error.to_string(),
        format!("`manifest` is signed by key `{one}`, trusted are `{two}`, `{three}`")
    );
}

#[test]
fn one_changed_byte_refuses_a_signed_release() {
    let mut changed = GOLDEN.to_vec();
    let at = changed.len() / 2;
    changed[at] ^= 1;
    let key = key(1).id();
    let expected = VerifyError::Signature(SignatureError::DoesNotVerify { key });
    assert_eq!(verify(&changed, &[SIGNATURE_1], &trust(&[1], 1)), Err(expected.clone()));
    // Allowing what nobody signed does not allow what was tampered with.
    let lax = trust(&[1], 1).allowing_unsigned();
    assert_eq!(verify(&changed, &[SIGNATURE_1], &lax), Err(expected));
}

// Parse and verify are one step: what is not signed is not even looked at.
#[test]
fn signatures_come_before_the_text() {
    let error = verify(b"not a manifest", &[], &trust(&[1], 1)).unwrap_err();
    assert_eq!(error, VerifyError::NotEnough { found: 0, needed: 1 });
}

#[test]
fn an_unsigned_release_says_why_it_was_taken() {
    let none = verify(PLAN, &[], &Trust::anybody()).unwrap();
    assert_eq!(none.signed(), Signed::Unsigned(Unsigned::NoKeyInstalled));
    let lax = verify(PLAN, &[], &trust(&[1], 1).allowing_unsigned()).unwrap();
    assert_eq!(lax.signed(), Signed::Unsigned(Unsigned::AllowedByDevice));
    // A stranger's release is no better than an unsigned one.
    let stranger = verify(GOLDEN, &[SIGNATURE_2], &trust(&[1], 1).allowing_unsigned()).unwrap();
    assert_eq!(stranger.signed(), Signed::Unsigned(Unsigned::AllowedByDevice));
}

#[test]
fn the_next_keys_come_only_from_a_manifest_that_the_present_ones_signed() {
    let present = trust(&[1], 1).allowing_unsigned();
    let manifest = verify(GOLDEN, &[SIGNATURE_1], &present).unwrap();
    assert_eq!(manifest.next_trust(&present), Some(trust(&[2, 3], 2).allowing_unsigned()));
    let unsigned = verify(GOLDEN, &[], &present).unwrap();
    assert_eq!(unsigned.next_trust(&present), None);
    let anybody = verify(GOLDEN, &[SIGNATURE_1], &Trust::anybody()).unwrap();
    assert_eq!(anybody.next_trust(&Trust::anybody()), None);
}

#[test]
fn a_stored_manifest_opens_again_only_if_it_is_the_one_of_the_record() {
    let verified = verify(GOLDEN, &[SIGNATURE_1], &trust(&[1], 1)).unwrap();
    let (digest, signed) = (verified.digest(), verified.signed());
    assert_eq!(VerifiedManifest::reopen(GOLDEN, &digest, signed), Ok(verified));
    let error = VerifiedManifest::reopen(PLAN, &digest, signed).unwrap_err();
    assert!(matches!(error, VerifyError::OtherDigest { .. }), "{error}");
}

#[test]
fn a_key_set_that_nobody_could_satisfy_is_refused() {
    let text = |keys: &[u8], threshold| {
        let keys: Vec<_> = keys.iter().copied().map(key).collect();
        KeySet::new(&keys, threshold).unwrap_err().to_string()
    };
    assert_eq!(text(&[1, 2], 3), "`threshold` is 3, expected 1 to 2, the number of keys");
    assert_eq!(text(&[1, 2], 0), "`threshold` is 0, expected 1 to 2, the number of keys");
    assert_eq!(
        text(&[1, 1], 1),
        format!("key `{}` stands there twice, expected once", key(1).id())
    );
}

// What a device wrote, a newer one must read for ever.
#[test]
fn the_stored_form_of_trust_is_frozen() {
    let trust = trust(&[1, 2, 3], 2).allowing_unsigned();
    let golden = include_bytes!("../../tests/golden/trust-v1.bin");
    assert_eq!(&trust.encode()[..], golden);
    assert_eq!(Trust::decode(golden), Ok(trust.clone()));
    assert_eq!(Trust::decode(&Trust::anybody().encode()), Ok(Trust::anybody()));

    let mut newer = golden.to_vec();
    newer[0] = 2;
    newer.extend(b"something new");
    assert_eq!(Trust::decode(&newer), Ok(trust));
}

#[test]
fn a_damaged_store_of_trust_is_refused() {
    let golden = trust(&[1, 2, 3], 2).encode();
    for length in 0..golden.len() {
        assert!(Trust::decode(&golden[..length]).is_err(), "{length}");
    }
    let error = Trust::decode(&golden[..golden.len() - 1]).unwrap_err();
    assert_eq!(error.to_string(), "`trust` is 123 bytes, expected 124");
}

#[test]
fn escapes_are_undone_and_equal_their_letters() {
    let plan = str::from_utf8(PLAN).unwrap();
    let text = plan.replace("Initial", r#"\"\\\/\b\f\n\r\t\u00fc\ud83d\ude00"#);
    let manifest = read(&text).unwrap();
    let expected = "\"\\/\u{8}\u{c}\n\r\t\u{fc}\u{1F600} synchronized release";
    assert_eq!(manifest.description, expected);
    assert_eq!(manifest.description, Text::new(expected));
    assert_eq!(manifest.description.to_string(), expected);
    assert_eq!(manifest.description.len(), expected.len());
    for lone in [r"\ud83d", r"\ud83d\u0041", r"\ude00", r"\u12", r"\u+123"] {
        assert!(refusal("Initial", lone).ends_with("expected the escapes of JSON only"), "{lone}");
    }
}

#[test]
fn every_control_character_survives_being_written() {
    let text: String = (0..0x80).map(char::from).collect();
    let written = Manifest { description: Text::new(&text), ..release() }.to_json().to_string();
    let value: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(value["description"], text);
    assert_eq!(read(&written).unwrap().description, &text[..]);
}

/// JSON of any kind, and what looks like it.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[0-9]{1,3}",
        "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{0,2})?([eE][+-]?[0-9]{0,2})?",
        "\"[a-z\\\\\"nu0é ]{0,6}\"",
        Just("null".into()),
        Just("tru".into()),
        Just("false".into()),
        Just(String::new()),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let separator = prop_oneof![9 => Just(","), 1 => Just(",,"), 1 => Just(" , ")];
        let list = prop::collection::vec(inner.clone(), 0..4);
        (list, separator, "[a-c]", any::<bool>()).prop_map(|(list, separator, key, is_list)| {
            if is_list {
                format!("[{}]", list.join(separator))
            } else {
                let members: Vec<_> = list.iter().map(|v| format!("\"{key}\":{v}")).collect();
                format!("{{{}}}", members.join(separator))
            }
        })
    })
}

proptest! {
    // What a strict, well-kept reader refuses, ours must refuse too, or a signed manifest would
    // mean one thing to the host and another to the device.
    #[test]
    fn what_is_passed_over_is_json_to_serde_json_too(json in any_json()) {
        let mut reader = json::Reader::new(json.as_bytes()).unwrap();
        let ours = reader.skip().and_then(|()| reader.end());
        let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&json);
        prop_assert!(ours.is_err() || theirs.is_ok(), "{}", json);
        // And nothing that is right is refused, save for lone surrogates, which mean no letter.
        prop_assert!(ours.is_ok() || theirs.is_err() || json.contains("\\u"), "{}", json);
    }

    #[test]
    fn a_string_means_what_it_means_to_serde_json(text in ".{0,40}") {
        let json = serde_json::to_string(&text).unwrap();
        let ours = json::Reader::new(json.as_bytes()).unwrap().string().unwrap();
        prop_assert_eq!(ours.to_string(), &text[..]);
    }

    #[test]
    fn any_description_survives_being_written(text in "\\PC{0,40}|.{0,40}") {
        let text: String = text.chars().take(200).collect();
        let manifest = Manifest { description: Text::new(&text), ..release() };
        let written = manifest.to_json().to_string();
        let value: serde_json::Value = serde_json::from_str(&written).unwrap();
        prop_assert_eq!(&value["description"], &text);
        prop_assert_eq!(&*read(&written).unwrap(), &manifest);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = verify(&bytes, &[&bytes], &Trust::anybody());
        let _ = verify(&bytes, &[&bytes], &trust(&[1], 1));
        let _ = Trust::decode(&bytes);
    }

    // Random bytes rarely get past the first brace; a damaged manifest gets everywhere.
    #[test]
    fn no_damage_panics(at in 0..GOLDEN.len(), byte: u8, cut in 0..GOLDEN.len()) {
        let mut damaged = GOLDEN.to_vec();
        damaged[at] = byte;
        let _ = verify(&damaged, &[], &Trust::anybody());
        damaged.remove(cut);
        let _ = verify(&damaged, &[], &Trust::anybody());
    }
}
