//! Updates that go well.

use std::collections::BTreeSet;

use lockstep_proto::manifest::{GENERATION_BYTES, GenerationHash, write_generations};

use crate::desk::{BOTH, Desk, Plan, Receiver, Transmitter, firmware};
use crate::view::View;

/// The whole point of the page: a file, a button, a password, and both run the release.
#[test]
fn a_bundle_is_installed_on_both_devices_by_clicking_and_followed_to_keep() {
    let desk = Desk::new();
    let Some(view) = View::open(&desk) else { return };
    let images = BOTH.map(|role| firmware(role, "1.1.0").size(1 << 20).make());
    let [receiver, transmitter] = &images;
    let bundle = desk.release("1.1.0", &[transmitter, receiver]);
    view.choose("bundleFile", &bundle);
    view.browser.picture("chosen");
    view.press("updateBothBtn");
    let mut phases = BTreeSet::new();
    let mut is_pictured = false;
    view.wait("it is kept", || {
        let script = "return document.querySelector('[aria-current]')?.textContent";
        phases.extend(view.browser.run(script, Vec::new()).as_str().map(str::to_owned));
        if !is_pictured && view.text("receiverProgressText").contains("staging") {
            is_pictured = true;
            view.browser.picture("running");
        }
        // Phase and verdict are looked at one after the other: the page may change between the two.
        (view.text("verdict").contains("run 1.1.0") && phases.contains("Settled")).then_some(())
    });
    desk.assert_runs(&images);
    assert!(view.text("verdict").contains("Kept: receiver and transmitter run 1.1.0"));
    assert!(phases.contains("Staging"), "{phases:?}");
    view.wait_text("receiverProgressText", "100 %");
    view.wait_text("transmitterProgressText", "kept");
    view.wait_text("receiverVersion", "1.1.0");
    view.wait_text("transmitterVersion", "1.1.0");
    view.wait_text("history", "keep");
    view.browser.picture("kept");
    view.assert_clean();
}

/// Every name that the original plan gives to a part of the page.
#[test]
fn all_elements_of_the_original_plan_are_there() {
    let desk = Desk::new();
    let Some(view) = View::open(&desk) else { return };
    let parts = [
        "Version",
        "Protocol",
        "Status",
        "File",
        "FileInfo",
        "Progress",
        "ProgressBar",
        "ProgressText",
    ];
    let of_roles = BOTH.iter().flat_map(|role| parts.map(|part| format!("{}{part}", role.name())));
    let others = [
        "verifyCompatibility",
        "autoReboot",
        "updateBothBtn",
        "updateReceiverBtn",
        "updateTransmitterBtn",
        "updateLog",
    ];
    for id in of_roles.chain(others.map(str::to_owned)) {
        let is_there = view
            .browser
            .run("return !!document.getElementById(arguments[0])", vec![id.clone().into()]);
        assert_eq!(is_there, true, "{id}");
    }
    view.wait_text("receiverVersion", "1.0.0");
    view.wait_text("transmitterProtocol", "1");
    view.wait_text("updateLog", "booted");
    // Nothing was refused and nobody rebooted: not even the network has anything to complain of.
    let said = view.browser.logged("browser");
    assert!(said.iter().all(|entry| entry["level"] != "SEVERE"), "{said:#?}");
    view.assert_clean();
}

/// Bare images become a bundle in the browser, which a device without a key takes. Its manifest has
/// the hashes of all generations, as that of a release that the command made.
#[test]
fn bare_images_are_taken_by_devices_without_a_key_which_say_that_they_trust_anybody() {
    let desk = Plan::default().without_keys().start();
    let Some(view) = View::open(&desk) else { return };
    view.wait_text("notes", "trusts anybody");
    // Nine generations and a short one: a list with padding at its end.
    let images = BOTH.map(|role| firmware(role, "1.1.0").size(260_000).make());
    for image in &images {
        let file = format!("{}.bin", image.role.name());
        desk.write(&file, &image.bytes);
        view.choose(&format!("{}File", image.role.name()), &file);
    }
    view.wait_text("receiverFileInfo", "1.1.0, ESP32-S3");
    view.press("updateBothBtn");
    view.wait_text("verdict", "Kept: receiver and transmitter run 1.1.0");
    desk.assert_runs(&images);
    let lists = images.each_ref().map(|image| list_of(&image.bytes));
    for member in BOTH {
        let flash = desk.read(&format!("{}.flash", member.name()));
        for list in &lists {
            let field = format!(r#""generations_sha256":"{list}""#);
            assert_eq!(list.len(), (10_usize * 8).div_ceil(3) * 4);
            assert!(holds(&flash, &field), "the {} has no {field}", member.name());
        }
    }
    view.assert_clean();
}

fn list_of(file: &[u8]) -> String {
    let mut text = String::new();
    let hashes = file.chunks(GENERATION_BYTES as usize).map(GenerationHash::of);
    write_generations(hashes, &mut text).unwrap();
    text
}

fn holds(flash: &[u8], text: &str) -> bool {
    flash.windows(text.len()).any(|part| part == text.as_bytes())
}

/// The lead gets its image by upload, and has the least use for a list. That the device complains
/// of the sizes and not of the manifest shows that this has room.
#[test]
fn hashes_that_the_manifest_of_bare_images_has_no_room_for_are_left_out_and_said_to_be() {
    let desk = Plan::default().without_keys().start();
    let before = desk.seen();
    let Some(view) = View::open(&desk) else { return };
    for image in BOTH.map(|role| firmware(role, "1.1.0").size(12 << 20).make()) {
        let file = format!("{}.bin", image.role.name());
        desk.write(&file, &image.bytes);
        view.choose(&format!("{}File", image.role.name()), &file);
    }
    view.browser.click("verifyCompatibility");
    view.press("updateBothBtn");
    view.wait_text("refusals", "No device was touched");
    view.wait_text("refusals", "12582912");
    view.wait_text("updateLog", "has no room for the hashes of generations of receiver: over");
    desk.assert_untouched(&before);
    view.assert_clean();
}

/// One role alone: the other is watched, and does not reboot.
#[test]
fn one_role_alone_is_updated_from_a_single_image() {
    let desk = Plan::default().without_keys().start();
    let Some(view) = View::open(&desk) else { return };
    let transmitter = firmware(Transmitter, "1.1.0").make();
    desk.write("new.bin", &transmitter.bytes);
    view.choose("transmitterFile", "new.bin");
    view.wait_text("updateReceiverBtnWhy", "Choose firmware for receiver");
    view.press("updateTransmitterBtn");
    view.wait_text("verdict", "Kept: ");
    let [receiver, _] = desk.first.clone();
    desk.assert_runs(&[receiver, transmitter]);
    assert_eq!(desk.seen_of(Receiver).boot_number, 1);
    view.wait_text("transmitterVersion", "1.1.0");
    view.wait_text("receiverVersion", "1.0.0");
    view.assert_clean();
}

/// Whoever looks sees the same, whoever began it.
#[test]
fn two_pages_show_the_same_rollout() {
    let desk = Desk::new();
    let Some(view) = View::open(&desk) else { return };
    let Some(other) = View::open(&desk) else { return };
    let (images, bundle) = desk.good_release("1.1.0", "");
    view.update(&bundle);
    let said = other.wait_text("verdict", "run 1.1.0");
    assert_eq!(said, view.wait_text("verdict", "run 1.1.0"));
    other.wait_text("history", "keep");
    desk.assert_runs(&images);
    assert_eq!(view.text("hRoll"), other.text("hRoll"));
    other.assert_clean();
}
