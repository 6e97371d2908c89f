//! That everybody can use it: on a phone, by keyboard alone, in the dark, with a screen reader.

use crate::desk::{Desk, PASSWORD, Plan, Receiver, firmware};
use crate::view::View;

#[test]
fn a_narrow_screen_does_not_scroll_sideways() {
    let desk = Plan::default().without_keys().start();
    let Some(view) = View::open(&desk) else { return };
    let (_, bundle) = desk.good_release("1.1.0", "");
    view.update(&bundle);
    let image = firmware(Receiver, "2.0.0").protocol(2, 3).make();
    desk.write("a-file-with-a-name-that-is-longer-than-any-phone-is-wide-1.1.0.bin", &image.bytes);
    view.choose(
        "receiverFile",
        "a-file-with-a-name-that-is-longer-than-any-phone-is-wide-1.1.0.bin",
    );
    view.wait_text("judged", "does not fit");
    view.emulate_scheme("light");
    view.open_settings();
    for width in [360, 768, 1280] {
        view.emulate_width(width);
        let script = "const r = document.documentElement; return r.scrollWidth - r.clientWidth";
        assert_eq!(view.browser.run(script, Vec::new()), 0, "{width} pixels");
        view.browser.picture(&format!("wide-{width}"));
    }
    view.emulate_scheme("dark");
    view.browser.picture("dark");
    view.emulate_width(360);
    view.browser.picture("dark-360");
}

/// No mouse: the keys that everybody has lead from the file to the release.
#[test]
fn the_keyboard_alone_updates_both() {
    let desk = Desk::new();
    let Some(view) = View::open(&desk) else { return };
    let (images, bundle) = desk.good_release("1.1.0", "");
    // A file dialogue is the system's, so the file is named; all else is keys.
    view.choose("bundleFile", &bundle);
    view.wait_enabled("updateBothBtn");
    view.browser.run("document.activeElement.blur(); scrollTo(0, 0)", Vec::new());
    view.tab_to("updateBothBtn");
    let outline = "return getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(view.browser.run(outline, Vec::new()), "solid", "the focus can be seen");
    view.browser.press_keys("\u{e007}");
    view.wait_dialog("pass");
    assert_eq!(view.focused(), "password");
    view.browser.press_keys(&format!("{PASSWORD}\u{e007}"));
    view.wait_text("verdict", "run 1.1.0");
    desk.assert_runs(&images);
    // Out again with a key, and nothing happened.
    view.wait_enabled("revertBtn");
    view.tab_to("revertBtn");
    view.browser.press_keys(" ");
    view.wait_dialog("ask");
    view.browser.press_keys("\u{e00c}");
    view.wait("the dialogue is closed", || (view.property("ask", "open") == false).then_some(()));
    desk.assert_runs(&images);
    view.assert_clean();
}

#[test]
fn axe_finds_nothing_in_light_and_dark() {
    let desk = Plan::default().without_keys().start();
    let Some(view) = View::open(&desk) else { return };
    let (_, bundle) = desk.good_release("1.1.0", "");
    let check = |state: &str| {
        for scheme in ["light", "dark"] {
            view.emulate_scheme(scheme);
            let Some(found) = view.violations() else { return };
            assert!(found.is_empty(), "{state}, {scheme}: {found:#?}");
        }
    };
    check("at first");
    view.update(&bundle);
    check("kept");
    view.browser.click("more");
    let image = firmware(Receiver, "2.0.0").protocol(2, 3).make();
    desk.write("new.bin", &image.bytes);
    view.choose("receiverFile", "new.bin");
    view.wait_text("judged", "does not fit");
    check("stopped");
    view.click("revertBtn");
    view.wait_dialog("ask");
    check("asked");
}
