//! Updates that go well.

use crate::desk::Desk;
use crate::view::View;

/// The whole point of the page: a file, a button, a password, and both run the release.
#[test]
fn a_bundle_is_installed_on_both_devices_by_clicking() {
    let desk = Desk::new();
    let Some(view) = View::open(&desk) else { return };
    let (images, bundle) = desk.good_release("1.1.0", "");
    view.choose("bundleFile", &bundle);
    view.browser.picture("chosen");
    view.press("updateBothBtn");
    view.wait_text("receiverProgressText", "%");
    view.wait_text("verdict", "Kept: receiver and transmitter run 1.1.0");
    desk.assert_runs(&images);
    view.wait_text("receiverVersion", "1.1.0");
    view.wait_text("transmitterVersion", "1.1.0");
    view.wait_text("history", "1.1.0");
    view.browser.picture("kept");
    view.assert_clean();
}
