//! A board that is flashed from a browser: what esp-web-tools fetches, put together as it does, is
//! what `lockstep image merge` makes, but for the record.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use super::desk::{BOTH, Role, Transmitter, firmware};
use super::server::Fleet;

/// Status, head and body, as whoever is not signed in gets them.
fn get(fleet: &Fleet, path: &str) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(fleet.address()).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nOrigin: https://other.example\r\n");
    stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, answer[end + 4..].to_vec())
}

fn publish(fleet: &Fleet, version: &str, make: impl Fn(Role) -> Vec<u8>) {
    let mut line = format!("release create --version {version} --key a.key -o {version}.lockstep");
    for role in BOTH {
        let file = format!("{version}-{}.bin", role.name());
        fs::write(fleet.path(&file), make(role)).unwrap();
        line += &format!(" --{} {file}", role.name());
    }
    fleet.operator(&line).succeeds();
    fleet.operator(&format!("publish {version}.lockstep")).succeeds();
}

/// The manifest, and a flash with all its parts in their places.
fn installed(fleet: &Fleet, role: &str, version: &str) -> (Value, Vec<u8>) {
    let folder = format!("/firmware/{role}/{version}");
    let (status, head, body) = get(fleet, &format!("{folder}/esp-web-tools.json"));
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    assert!(head.contains("access-control-allow-origin: *"), "{head}");
    let manifest: Value = serde_json::from_slice(&body).unwrap();
    let mut flash = vec![0xFF; FLASH_BYTES];
    for part in manifest["builds"][0]["parts"].as_array().unwrap() {
        // A path that begins at the manifest's own place.
        let path = part["path"].as_str().unwrap();
        let (status, head, bytes) = get(fleet, &format!("{folder}/{path}"));
        assert_eq!(status, 200, "{path}");
        assert!(head.contains("access-control-allow-origin: *"), "{path}: {head}");
        let at = usize::try_from(part["offset"].as_u64().unwrap()).unwrap();
        flash[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    (manifest, flash)
}

#[test]
fn a_browser_is_given_what_image_merge_makes_without_anything_of_a_group() {
    let fleet = Fleet::new();
    publish(&fleet, "1.1.0", |role| firmware(role, "1.1.0").make().bytes);
    for (role, chip) in BOTH.iter().zip(["ESP32-S3", "ESP32"]) {
        let (manifest, flash) = installed(&fleet, role.name(), "1.1.0");
        assert_eq!(manifest["version"], "1.1.0");
        assert_eq!(manifest["name"], format!("desk {}", role.name()));
        assert_eq!(manifest["new_install_prompt_erase"], true);
        assert_eq!(manifest["builds"][0]["chipFamily"], chip);
        assert_eq!(manifest["builds"][0]["ota"]["path"], "firmware.bin");
        let merge = format!("image merge --app 1.1.0-{}.bin -o merged", role.name());
        fleet.operator(&merge).succeeds();
        let merged = fs::read(fleet.path("merged")).unwrap();
        assert!(flash[..RECORD] == merged[..RECORD], "{role:?}");
        assert!(flash[RECORD..].iter().all(|&byte| byte == 0xFF));
    }
}

#[test]
fn the_bootloader_that_the_server_was_given_takes_the_place_of_espflashs_own() {
    let folder = tempfile::tempdir().unwrap();
    // One that differs: espflash's, with another byte in its text, and a checksum to match.
    let maker = Fleet::new();
    fs::write(maker.path("app.bin"), firmware(Transmitter, "1.0.0").make().bytes).unwrap();
    maker.operator("image merge --app app.bin -o merged").succeeds();
    let merged = fs::read(maker.path("merged")).unwrap();
    let mut boot = merged[0x1000..0x8000].to_vec();
    boot.truncate(boot.iter().rposition(|&byte| byte != 0xFF).unwrap() + 1);
    let at = boot.windows(5).position(|text| text == b"abort").unwrap();
    let end = boot.len() - 32;
    boot[at] ^= 1;
    boot[end - 1] ^= 1;
    let hash = <sha2::Sha256 as sha2::Digest>::digest(&boot[..end]);
    boot[end..].copy_from_slice(&hash);
    fs::write(folder.path().join("boot.bin"), &boot).unwrap();
    let file = folder.path().join("boot.bin");
    let options = format!("--bootloader esp32={}", file.display());
    let fleet = Fleet::in_folder(folder, &options);
    publish(&fleet, "1.1.0", |role| firmware(role, "1.1.0").make().bytes);
    let (_, flash) = installed(&fleet, "transmitter", "1.1.0");
    assert!(flash[0x1000..].starts_with(&boot));
}

#[test]
fn firmware_that_cannot_be_installed_is_refused_with_the_reason() {
    let fleet = Fleet::new();
    let large = |role| firmware(role, "1.2.0").size(0x1E_0000 + 16).make().bytes;
    publish(&fleet, "1.2.0", large);
    let (status, _, body) = get(&fleet, "/firmware/receiver/1.2.0/esp-web-tools.json");
    let text = String::from_utf8_lossy(&body);
    assert_eq!(status, 409, "{text}");
    assert!(text.contains("no-install") && text.contains("does not fit a slot"), "{text}");
    let (status, _, _) = get(&fleet, "/firmware/receiver/9.9.9/esp-web-tools.json");
    assert_eq!(status, 404);
    let (status, _, _) = get(&fleet, "/firmware/receiver/9.9.9/bootloader.bin");
    assert_eq!(status, 404);
}

const FLASH_BYTES: usize = 4 << 20;
const RECORD: usize = 0x3E_0000;
