//! Files that are dropped on the page, and files that are something else.

use base64ct::{Base64, Encoding as _};
use serde_json::{Value, json};

use crate::desk::{BOTH, Desk, Plan, firmware};
use crate::view::View;

#[test]
fn a_bundle_that_is_dropped_on_the_page_is_taken() {
    let desk = Desk::new();
    let Some(view) = View::open(&desk) else { return };
    let (images, bundle) = desk.good_release("1.1.0", "");
    let dropped = drop_on(&view, "drop", &[(&bundle, desk.read(&bundle))]);
    assert_eq!(dropped, "taken");
    view.wait_text("bundleFileInfo", "Release 1.1.0");
    view.press("updateBothBtn");
    view.wait_text("verdict", "run 1.1.0");
    desk.assert_runs(&images);
    view.assert_clean();
}

/// Beside the frame as well: a browser left alone would go away from the page and show the file.
#[test]
fn images_that_are_dropped_anywhere_find_the_fields_of_their_roles() {
    let desk = Plan::default().without_keys().start();
    let Some(view) = View::open(&desk) else { return };
    let images = BOTH.map(|role| firmware(role, "1.1.0").make());
    let files = images.each_ref().map(|image| ("firmware.bin", image.bytes.clone()));
    assert_eq!(drop_on(&view, "updateLog", &files), "taken");
    view.wait_text("receiverFileInfo", "For receiver");
    view.wait_text("transmitterFileInfo", "For transmitter");
    view.wait_enabled("updateBothBtn");
    view.assert_clean();
}

/// What people take for firmware is called by its name, with what to do instead.
#[test]
fn what_is_no_firmware_is_called_by_its_name() {
    let desk = Desk::new();
    let before = desk.seen();
    let (_, bundle) = desk.good_release("1.1.0", "");
    let Some(view) = View::open(&desk) else { return };
    let mut tar = desk.read(&bundle);
    tar.truncate(tar.len() / 2);
    for (field, file, bytes, says) in [
        ("receiverFile", "a.bin", b"\x7fELF and more".to_vec(), "an ELF file, not firmware"),
        ("receiverFile", "b.bin", b"PK\x03\x04 and more".to_vec(), "an archive, not firmware"),
        ("receiverFile", "c.bin", b"{\"error\":1}".to_vec(), "JSON, not firmware"),
        ("receiverFile", "d.bin", Vec::new(), "empty, not firmware"),
        ("receiverFile", "e.bin", vec![0xFF; 4096], "erased flash, not firmware"),
        ("receiverFile", "f.bin", desk.read(&bundle), "a bundle, not firmware"),
        ("bundleFile", "g.lockstep", b"<html>404".to_vec(), "a web page, not a bundle"),
        ("bundleFile", "j.lockstep", b"hello".to_vec(), "something unknown (it begins with 104)"),
        ("bundleFile", "h.lockstep", desk.first[0].bytes.clone(), "a single firmware image"),
        ("bundleFile", "i.lockstep", tar, "The bundle was cut off"),
    ] {
        desk.write(file, &bytes);
        view.choose(field, file);
        let said = view.wait_text(&format!("{field}Info"), says);
        assert!(said.starts_with('✗') && said.ends_with('.'), "{said}");
        assert_eq!(view.property("updateBothBtn", "disabled"), true, "{said}");
    }
    desk.assert_untouched(&before);
    view.assert_clean();
}

#[test]
fn a_bundle_for_another_product_is_stopped_by_the_page() {
    let desk = Plan::default().without_keys().start();
    let before = desk.seen();
    for role in ["oven", "thermometer"] {
        let make = format!("image make --product kitchen --role {role} --version 2.0.0 -o");
        desk.lockstep(&format!("{make} {role}.bin")).succeeds();
    }
    let create = "release create --unsigned --version 2.0.0 --lead oven --artifact oven=oven.bin";
    let more = "--artifact thermometer=thermometer.bin -o kitchen.lockstep";
    desk.lockstep(&format!("{create} {more}")).succeeds();
    let Some(view) = View::open(&desk) else { return };
    view.choose("bundleFile", "kitchen.lockstep");
    let said = view.wait_text("judged", "another product");
    assert!(said.contains("here are receiver and transmitter"), "{said}");
    assert_eq!(view.property("updateBothBtn", "disabled"), true);
    view.browser.picture("another-product");
    desk.assert_untouched(&before);
    view.assert_clean();
}

/// The roles are the same: only the name of the product tells.
#[test]
fn firmware_of_another_product_with_the_same_roles_is_stopped_by_the_page() {
    let desk = Plan::default().without_keys().start();
    let before = desk.seen();
    desk.lockstep("image make --product kitchen --role receiver --version 2.0.0 -o oven.bin")
        .succeeds();
    let Some(view) = View::open(&desk) else { return };
    view.choose("receiverFile", "oven.bin");
    let said = view.wait_text("judged", "kitchen");
    assert!(said.contains("expected desk"), "{said}");
    assert_eq!(view.property("updateReceiverBtn", "disabled"), true);
    desk.assert_untouched(&before);
    view.assert_clean();
}

/// Drops files on an element, as a mouse would. `left`: the browser would have opened the file.
fn drop_on(view: &View, id: &str, files: &[(&str, Vec<u8>)]) -> Value {
    let files = files
        .iter()
        .map(|(name, bytes)| json!({ "name": name, "data": Base64::encode_string(bytes) }));
    let script = "const [id, files] = arguments, dataTransfer = new DataTransfer();
        for (const file of files) {
            const bytes = Uint8Array.from(atob(file.data), c => c.charCodeAt(0));
            dataTransfer.items.add(new File([bytes], file.name));
        }
        const say = kind => !document.getElementById(id).dispatchEvent(
            new DragEvent(kind, {dataTransfer, bubbles: true, cancelable: true}));
        return ['dragover', 'drop'].map(say).every(x => x) ? 'taken' : 'left'";
    view.browser.run(script, vec![id.into(), files.collect()])
}
