//! Firmware of others, as it is in the field: images without a descriptor of ours.

use std::path::PathBuf;

use super::desk::{Image, Plan, Receiver, Role, Transmitter};

/// The folder with real images: what `LOCKSTEP_FIRMWARE` says, else a folder beside the repository.
fn images(names: [&str; 2]) -> Option<[Image; 2]> {
    let folder = match std::env::var_os("LOCKSTEP_FIRMWARE") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/firmware"),
    };
    let read = |role: Role, name: &str| {
        let path = folder.join(name);
        let bytes = std::fs::read(&path).ok();
        if bytes.is_none() {
            println!(
                "skipped: there is no `{}`; LOCKSTEP_FIRMWARE names the folder",
                path.display()
            );
        }
        Some(Image::of(role, bytes?))
    };
    let [receiver, transmitter] = names;
    Some([read(Receiver, receiver)?, read(Transmitter, transmitter)?])
}

/// Two megabytes over the link, and what the images do not say of themselves is in the manifest.
#[test]
fn a_pair_of_real_images_is_kept() {
    let (Some(old), Some(new)) = (
        images(["be-2can-s3-v12.1.0.bin", "be-can485-v12.1.0.bin"]),
        images(["be-2can-s3-v12.2.0.bin", "be-can485-v12.2.0.bin"]),
    ) else {
        return;
    };
    let [receiver, transmitter] = old;
    let desk = Plan::default()
        .first(receiver, transmitter)
        .with(Receiver, "--version 12.1.0")
        .with(Transmitter, "--version 12.1.0")
        .start();
    let before = desk.first.clone();
    let [receiver, transmitter] = &new;
    let bundle = desk.release("12.2.0", &[transmitter, receiver]);
    desk.update(&bundle).succeeds().says("Kept: receiver and transmitter run 12.2.0");
    desk.assert_runs(&new);
    // A peer that is busy is not heard for a moment.
    let version = desk.wait("the lead hears what its peer runs", || {
        let version = desk.lead().get("/api/version")?.json;
        (version["peers"][0]["version_number"] == 120_200).then_some(version)
    });
    assert_eq!((&version["version"], &version["chip"]), (&"12.2.0".into(), &"ESP32-S3".into()));
    desk.ask_lead("revert").succeeds();
    desk.assert_runs(&before);
}
