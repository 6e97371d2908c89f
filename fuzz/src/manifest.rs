//! Manifests, signatures, keys, and what a device stores of its trust.
//!
//! The first byte chooses what the rest is.
//!
//! Promises: what our JSON reader takes, `serde_json` takes and understands the same; a manifest
//! that was read is written and reads back the same; nothing but the golden manifest verifies with
//! the golden signature, and nothing but a signature by the golden key verifies the golden
//! manifest; keys and trust survive being written again.

use std::sync::OnceLock;

use lockstep_proto::manifest::{
    DeviceEntry, KeySet, MANIFEST_SIZE_BYTES_MAX, Manifest, Text, Trust, generations_of, verify,
};
use lockstep_proto::signature::{PublicKey, Signature};
use serde_json::Value;

use crate::memory;

/// First byte of an input: what follows is a manifest.
pub const MANIFEST: u8 = 0;
/// First byte of an input: what follows is a signature file.
pub const SIGNATURE: u8 = 1;
/// First byte of an input: what follows is a file with a public key.
pub const PUBLIC: u8 = 2;
/// First byte of an input: what follows is a trust as it is stored.
pub const TRUST: u8 = 3;

/// One input.
pub fn run(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else { return };
    memory::within(MEMORY_BYTES_MAX, || match choice % 4 {
        MANIFEST => check_manifest(bytes),
        SIGNATURE => check_signature(bytes),
        PUBLIC => check_key(bytes),
        _ => check_trust(bytes),
    });
}

fn check_manifest(bytes: &[u8]) {
    let manifest = match verify(bytes, &[], &Trust::anybody()) {
        Ok(manifest) => manifest,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    compare(&manifest, bytes);
    let verified = verify(bytes, &[GOLDEN_SIGNATURE], golden_trust());
    assert!(verified.is_err() || bytes == GOLDEN_MANIFEST, "a changed manifest was verified");
    let written = manifest.to_json().to_string();
    // Indented, it may have become too long for a device.
    if written.len() <= MANIFEST_SIZE_BYTES_MAX {
        let again = verify(written.as_bytes(), &[], &Trust::anybody()).expect("what we write");
        assert_eq!(*again, *manifest);
        assert_eq!(again.to_json().to_string(), written);
    }
    for entry in &manifest.devices {
        let _ = (entry.installable(), entry.protocol(), manifest.announced(entry.role));
    }
}

/// Whether the strict, well-kept reader understands the same.
fn compare(manifest: &Manifest<'_>, bytes: &[u8]) {
    let syntax = serde_json::from_slice::<serde::de::IgnoredAny>(bytes);
    assert!(syntax.is_ok(), "not JSON: {syntax:?}");
    let value: Value = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        // A number that nobody asked for may be larger than any that it can hold.
        Err(error) => return assert!(error.to_string().starts_with("number out of range")),
    };
    same_text(&value["system"], manifest.system.as_ref());
    same_text(&value["description"], Some(&manifest.description));
    same_text(&value["release_date"], Some(&manifest.release_date));
    assert_eq!(value["system_version"], manifest.system_version.to_string());
    same_number(&value["schema"], manifest.schema);
    same_number(&value["sequence"], manifest.sequence);
    same_number(&value["epoch"], manifest.epoch);
    let devices = value["devices"].as_object().expect("an object");
    assert_eq!(devices.len(), manifest.devices.len());
    for entry in &manifest.devices {
        compare_entry(entry, &devices[entry.role]);
    }
    let order = &value["update_instructions"]["order"];
    let order = order.as_array().map(Vec::as_slice).unwrap_or_default();
    assert!(order.iter().eq(manifest.order().iter()));
    if let Some(rollback) = &manifest.rollback {
        let value = &value["rollback"];
        assert_eq!(value["previous_version"], rollback.previous_version.to_string());
        for (role, url) in &rollback.urls {
            same_text(&value[format!("{role}_url")], Some(url));
        }
    }
    assert_eq!(value["keys"].is_object(), manifest.keys.is_some());
}

fn compare_entry(entry: &DeviceEntry<'_>, value: &Value) {
    assert_eq!(value["version"], entry.version.to_string());
    assert_eq!(value["firmware_size"], entry.firmware_size);
    assert_eq!(value["protocol_version"], entry.protocol_version);
    same_text(&value["device_type"], Some(&entry.device_type));
    same_text(&value["hardware"], Some(&entry.hardware));
    same_text(&value["firmware_url"], Some(&entry.firmware_url));
    same_text(&value["md5_checksum"], Some(&entry.md5_checksum));
    same_text(&value["board"], entry.board.as_ref());
    same_number(&value["config_schema"], entry.config_schema);
    for (name, hash) in [
        ("sha256", entry.sha256.map(|hash| hash.to_string())),
        ("image_sha256", entry.image_sha256.map(|hash| hash.to_string())),
        ("elf_sha256", entry.elf_sha256.map(|hash| hash.to_string())),
    ] {
        assert_eq!(value[name].as_str().map(str::to_ascii_lowercase), hash, "`{name}`");
    }
    let list = entry.generations_sha256;
    assert_eq!(value["generations_sha256"].as_str(), list.map(|list| list.text()));
    if let Some(list) = list {
        assert_eq!(list.count(), generations_of(entry.firmware_size));
        let count = u16::try_from(list.count()).expect("a manifest is short");
        assert!((0..count).all(|generation| list.get(generation).is_some()));
        assert_eq!(list.get(count), None);
    }
}

/// A missing text and `null` read as an empty one where there is a default.
fn same_text(value: &Value, text: Option<&Text<'_>>) {
    let found = text.map(Text::to_string).unwrap_or_default();
    assert_eq!(value.as_str().unwrap_or_default(), found);
}

fn same_number(value: &Value, number: u32) {
    assert_eq!(value.as_u64().unwrap_or_default(), u64::from(number));
}

fn check_signature(bytes: &[u8]) {
    let signature = match Signature::parse(bytes) {
        Ok(signature) => signature,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    if verify(GOLDEN_MANIFEST, &[bytes], golden_trust()).is_ok() {
        let golden = Signature::parse(GOLDEN_SIGNATURE).expect("the golden signature");
        assert_eq!(signature, golden, "another signature was verified");
    }
}

fn check_key(bytes: &[u8]) {
    match PublicKey::parse(bytes) {
        Ok(key) => {
            assert_eq!(PublicKey::parse(key.to_string().as_bytes()), Ok(key));
            assert_eq!(PublicKey::from_bytes(&key.to_bytes()), Ok(key));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn check_trust(bytes: &[u8]) {
    let trust = match Trust::decode(bytes) {
        Ok(trust) => trust,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let written = trust.encode();
    assert_eq!(Trust::decode(&written).as_ref(), Ok(&trust));
    assert_eq!(trust.takes_unsigned(), trust.keys().is_none() || bytes[1] & 1 == 1);
    // Of our own form every byte counts, save for flags that mean nothing and for a threshold of
    // no keys.
    if bytes[0] == 1 && bytes[1] & !1 == 0 && trust.keys().is_some() {
        assert_eq!(written, bytes);
    }
}

fn golden_trust() -> &'static Trust {
    static TRUST: OnceLock<Trust> = OnceLock::new();
    TRUST.get_or_init(|| {
        let key = PublicKey::parse(GOLDEN_KEY).expect("the golden key");
        Trust::signed_by(KeySet::new(&[key], 1).expect("one key"))
    })
}

/// A signed release, made by others.
pub const GOLDEN_MANIFEST: &[u8] =
    include_bytes!("../../crates/proto/tests/golden/release/manifest.json");
/// Its first signature.
pub const GOLDEN_SIGNATURE: &[u8] =
    include_bytes!("../../crates/proto/tests/golden/release/manifest.json.minisig");
/// The key of its first signature.
pub const GOLDEN_KEY: &[u8] =
    include_bytes!("../../crates/proto/tests/golden/release/test-key-1.pub");

const MEMORY_BYTES_MAX: usize = 1024 * 1024;
