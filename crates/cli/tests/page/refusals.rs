//! What is refused, by the page before anything is sent, or by the device: said with the way out,
//! and nobody reboots.

use lockstep_proto::image::ChipId;

use crate::desk::{Desk, PASSWORD, Plan, Receiver, Transmitter, firmware};
use crate::view::View;

/// Nothing was sent, so nothing can have happened; and the button says why it cannot be pressed.
fn page_stops(file: &[u8], field: &str, says: &[&str]) {
    let desk = Plan::default().without_keys().start();
    let before = desk.seen();
    let Some(view) = View::open(&desk) else { return };
    desk.write("file.bin", file);
    view.choose(field, "file.bin");
    for part in says {
        view.wait("the page says why", || {
            let text = view.text(&format!("{field}Info")) + &view.text("judged");
            text.contains(part).then_some(())
        });
    }
    assert_eq!(view.property("updateBothBtn", "disabled"), true);
    assert!(!view.text("updateBothBtnWhy").is_empty());
    desk.assert_untouched(&before);
    view.assert_clean();
}

#[test]
fn a_web_page_that_was_saved_as_firmware_is_called_one() {
    let html = b"<!DOCTYPE html><html><body>404 Not Found</body></html>";
    page_stops(html, "receiverFile", &["This is a web page, not firmware", "Download it again"]);
}

#[test]
fn an_image_that_was_cut_off_is_refused_with_both_sizes() {
    let image = firmware(Receiver, "1.1.0").make();
    page_stops(&image.bytes[..40_000], "receiverFile", &["cut off: 40000 bytes of", "again"]);
}

#[test]
fn an_image_with_a_flipped_bit_is_refused() {
    let mut image = firmware(Receiver, "1.1.0").make();
    image.bytes[30_000] ^= 4;
    page_stops(&image.bytes, "receiverFile", &["The image is damaged", "again"]);
}

#[test]
fn an_image_for_another_chip_is_stopped_by_the_page() {
    let image = firmware(Receiver, "1.1.0").chip(ChipId::ESP32).make();
    page_stops(&image.bytes, "receiverFile", &["is for chip ESP32, this device is ESP32-S3"]);
}

#[test]
fn an_image_of_another_role_is_stopped_by_the_page() {
    let image = firmware(Transmitter, "1.1.0").make();
    page_stops(&image.bytes, "receiverFile", &["is firmware for transmitter"]);
}

/// One of a pair alone may change only to what the other understands.
#[test]
fn an_image_that_the_other_device_would_not_understand_is_stopped_by_the_page() {
    let image = firmware(Receiver, "2.0.0").protocol(2, 3).make();
    let says = ["would speak protocol 2 to 3", "Update both together"];
    page_stops(&image.bytes, "receiverFile", &says);
}

/// The page's stop is advice: who insists is refused by the device, with every reason.
#[test]
fn whoever_insists_is_refused_by_the_device_with_its_hint() {
    let desk = Plan::default().without_keys().start();
    let before = desk.seen();
    let Some(view) = View::open(&desk) else { return };
    let image = firmware(Receiver, "2.0.0").protocol(2, 3).make();
    desk.write("new.bin", &image.bytes);
    view.choose("receiverFile", "new.bin");
    view.browser.click("verifyCompatibility");
    view.press("updateReceiverBtn");
    let said = view.wait_text("refusals", "would not understand each other");
    assert!(said.contains("update both together") || said.contains("Update both"), "{said}");
    assert!(said.contains("No device was touched"), "{said}");
    view.browser.picture("refused");
    desk.assert_untouched(&before);
    view.assert_clean();
}

/// Of other devices the page knows no chip; preflight does.
#[test]
fn a_wrong_chip_of_another_device_is_refused_by_the_device_with_its_hint() {
    let desk = Desk::new();
    let image = firmware(Transmitter, "1.1.0").chip(ChipId::ESP32_C3).make();
    let bundle = desk.release("1.1.0", &[&image]);
    device_refuses(&desk, &bundle, "updateTransmitterBtn", &["ESP32-C3", "No device was touched"]);
}

/// A version is a label: one that is taken already, for another image, is no update.
#[test]
fn the_running_number_on_another_image_is_refused_by_the_device() {
    let desk = Desk::new();
    let image = firmware(Transmitter, "1.0.0").build(7).make();
    let bundle = desk.release("1.0.0", &[&image]);
    let says = ["Transmitter", "1.0.0", "No device was touched"];
    device_refuses(&desk, &bundle, "updateTransmitterBtn", &says);
}

#[test]
fn a_bundle_that_nobody_signed_is_refused_by_devices_with_a_key() {
    let desk = Desk::new();
    let images = desk.good_release("1.1.0", "").0;
    let bundle = desk.release_with("1.1.0", &[&images[1], &images[0]], "--unsigned");
    device_refuses(&desk, &bundle, "updateBothBtn", &["sign the release", "No device was touched"]);
}

#[test]
fn a_bundle_with_a_strangers_signature_is_refused() {
    let desk = Desk::new();
    desk.lockstep("keygen --no-password --out b").succeeds();
    let images = desk.good_release("1.1.0", "").0;
    let bundle = desk.release_with("1.1.0", &[&images[1], &images[0]], "--key b.key");
    device_refuses(&desk, &bundle, "updateBothBtn", &["sign the release", "No device was touched"]);
}

fn device_refuses(desk: &Desk, bundle: &str, button: &str, says: &[&str]) {
    let before = desk.seen();
    let Some(view) = View::open(desk) else { return };
    view.choose("bundleFile", bundle);
    view.press(button);
    for part in says {
        view.wait_text("refusals", part);
    }
    desk.assert_untouched(&before);
    view.assert_clean();
}

/// Asked again at once, and told what was wrong; nothing was sent before that.
#[test]
fn a_wrong_password_is_said_and_asked_for_again() {
    let desk = Desk::new();
    let Some(view) = View::open(&desk) else { return };
    let (images, bundle) = desk.good_release("1.1.0", "");
    view.choose("bundleFile", &bundle);
    view.click("updateBothBtn");
    view.give_password("swordfish");
    view.wait_text("passWhy", "Password is wrong");
    view.browser.picture("password");
    assert!(desk.rollout().is_none());
    view.give_password(PASSWORD);
    view.wait_text("verdict", "run 1.1.0");
    desk.assert_runs(&images);
    view.assert_clean();
}

/// The device makes everybody wait who is wrong five times in a row; it locks nobody out.
#[test]
fn five_wrong_passwords_lock_nobody_out() {
    let desk = Desk::new();
    let Some(view) = View::open(&desk) else { return };
    let (images, bundle) = desk.good_release("1.1.0", "");
    view.choose("bundleFile", &bundle);
    view.click("updateBothBtn");
    for attempt in 1..=6 {
        view.give_password(&format!("swordfish {attempt}"));
        view.wait_dialog("pass");
        view.wait_text("passWhy", "Password is wrong");
        assert_eq!(view.property("password", "value"), "", "it is not kept");
    }
    assert!(desk.rollout().is_none());
    view.give_password(PASSWORD);
    view.wait_text("verdict", "run 1.1.0");
    desk.assert_runs(&images);
    view.assert_clean();
}

/// Who gives up at the password has ordered nothing.
#[test]
fn whoever_cancels_at_the_password_has_ordered_nothing() {
    let desk = Desk::new();
    let before = desk.seen();
    let Some(view) = View::open(&desk) else { return };
    let (_, bundle) = desk.good_release("1.1.0", "");
    view.choose("bundleFile", &bundle);
    view.click("updateBothBtn");
    view.wait_dialog("pass");
    view.browser.click("passNo");
    view.wait_enabled("updateBothBtn");
    assert!(desk.rollout().is_none());
    desk.assert_untouched(&before);
    view.assert_clean();
}

/// Devices that do not understand each other are told apart at once, with what to do.
#[test]
fn devices_that_do_not_understand_each_other_are_warned_of() {
    let receiver = firmware(Receiver, "2.0.0").protocol(2, 3).talks_to("1.5.0").make();
    let transmitter = firmware(Transmitter, "1.0.0").make();
    let desk = Plan::default().first(receiver, transmitter).start();
    let Some(view) = View::open_at(&desk, Receiver) else { return };
    let said = view.wait_text("notes", "do not understand each other");
    assert!(said.contains("transmitter runs 1.0.0, receiver needs it at 1.5.0 or newer"), "{said}");
    view.wait_text("transmitterStatus", "Incompatible");
    view.browser.picture("incompatible");
    view.assert_clean();
}
