//! Images that are signed for secure boot v2, by the real `espsecure`: they go through a release
//! into a slot as they are, and a group that runs them refuses plain ones from then on.

use std::path::PathBuf;
use std::process::Command;

use super::desk::{BOTH, Desk, Image, Receiver, Transmitter, firmware};

/// It stands beside esptool, which the suite installs.
fn espsecure() -> Option<PathBuf> {
    let beside = std::env::var_os("LOCKSTEP_ESPTOOL").map(PathBuf::from)?;
    let found = Some(beside.with_file_name("espsecure")).filter(|path| path.is_file());
    if found.is_none() {
        println!("skipped: there is no `espsecure` beside LOCKSTEP_ESPTOOL");
    }
    found
}

/// Signs an image with a new key of this scheme.
fn signed(desk: &Desk, espsecure: &PathBuf, scheme: &str, image: &Image) -> Image {
    let run = |words: &[&str]| {
        let mut command = Command::new(espsecure);
        let output = command.current_dir(desk.path("")).args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let key = format!("{scheme}.pem");
    if !desk.path(&key).is_file() {
        run(&["generate-signing-key", "--version", "2", "--scheme", scheme, &key]);
    }
    desk.write("plain.bin", &image.bytes);
    run(&["sign-data", "--version", "2", "--keyfile", &key, "--output", "signed.bin", "plain.bin"]);
    Image::of(image.role, desk.read("signed.bin"))
}

#[test]
fn signed_images_lie_in_their_slots_as_they_were_signed_and_plain_ones_are_refused_then() {
    let Some(espsecure) = espsecure() else { return };
    let desk = Desk::new();
    let plain = |version| BOTH.map(|role| firmware(role, version).make());
    let [receiver, transmitter] = plain("1.1.0");
    let receiver = signed(&desk, &espsecure, "ecdsa256", &receiver);
    let transmitter = signed(&desk, &espsecure, "rsa3072", &transmitter);

    desk.update(&desk.release("1.1.0", &[&transmitter, &receiver])).succeeds();

    for (role, image) in [(Receiver, &receiver), (Transmitter, &transmitter)] {
        assert_eq!(desk.seen_of(role).image, image.hash);
        let flash = desk.read(&format!("{}.flash", role.name()));
        let slot = &flash[OTHER_SLOT..][..image.bytes.len()];
        assert!(slot == image.bytes, "{} was changed on its way", role.name());
    }
    let [next_receiver, next_transmitter] = plain("1.2.0");
    let before = desk.seen();
    desk.update(&desk.release("1.2.0", &[&next_transmitter, &next_receiver]))
        .fails()
        .says("image for `receiver` is not signed for secure boot, the running one is")
        .says("image for `transmitter` is not signed for secure boot, the running one is");
    desk.assert_untouched(&before);
}

/// Where `ota_1` begins.
const OTHER_SLOT: usize = 0x1F_0000;
