//! What the console does for whoever looks: moments in their own zone, what would go wrong with the
//! release that they choose, and a device's page that stays fresh.

use serde_json::json;

use super::fleet::{Fleet, Words};
use crate::desk::{BOTH, Desk, firmware};
use crate::view::View;

/// A server with one pair, and two releases for it: one signed, one not.
fn one_pair() -> Option<(Fleet, String, View)> {
    let (fleet, token) = Fleet::start_with_admin();
    let desk = Desk::new();
    for (version, options) in [("1.1.0", "--key a.key"), ("1.2.0", "--unsigned")] {
        let images = BOTH.map(|role| firmware(role, version).make());
        let bundle = desk.release_with(version, &[&images[1], &images[0]], options);
        fleet.send("/api/releases", &token, &desk.read(&bundle));
    }
    let view = fleet.open_as_admin()?;
    Some((fleet, token, view))
}

fn in_zone(view: &View, zone: &str) {
    view.browser.cdp("Emulation.setTimezoneOverride", &json!({ "timezoneId": zone }));
}

#[test]
fn a_moment_is_entered_and_shown_in_the_zone_of_whoever_looks() {
    let Some((fleet, token, view)) = one_pair() else { return };
    let lead = Words::enrol(&fleet, &token, 1, "Berlin 1", "site=berlin");
    lead.report("1.0.0", |_| ());
    in_zone(&view, "Asia/Tokyo");
    view.browser.open(&format!("{}/campaigns/new", fleet.url));
    let label = "return document.querySelector('label[for=not_before]').innerText";
    let label = view.browser.run(label, Vec::new());
    assert_eq!(label, "Not before\nyour time, Asia/Tokyo; empty: now");
    let fill = "document.getElementById('not_before').value = '2126-05-01T22:00';
        const choice = document.getElementById('release');
        choice.value = [...choice.options].find(it => it.text.includes('1.1.0')).value";
    view.browser.run(fill, Vec::new());
    view.browser.click("begin");
    view.wait_text("head", "Nothing is offered before");
    let campaigns = fleet.get("/api/campaigns", &token);
    assert_eq!(campaigns["campaigns"][0]["not_before"], "2126-05-01T13:00:00Z");
    let shown = "const it = document.querySelector('#head time.exact');
        return [it.innerText, it.title]";
    let shown = view.browser.run(shown, Vec::new());
    assert!(shown[0].as_str().unwrap().contains("10:00"), "{shown}");
    assert!(shown[1].as_str().unwrap().starts_with("2126-05-01 13:00 UTC, in "), "{shown}");
    // What is not read for its moment says how long ago it is, and has the moment as its title.
    let begun = "const it = document.querySelector('#head time:not(.exact)');
        return [it.innerText, it.title]";
    let begun = view.browser.run(begun, Vec::new());
    let (text, title) = (begun[0].as_str().unwrap(), begun[1].as_str().unwrap());
    assert!(text == "just now" || text.ends_with(" ago"), "{begun}");
    assert!(title.ends_with(" UTC)"), "{begun}");
}

/// The clock of whoever looks may be wrong by years.
#[test]
fn how_long_ago_something_was_does_not_depend_on_the_clock_of_the_browser() {
    let Some((fleet, token, view)) = one_pair() else { return };
    let lead = Words::enrol(&fleet, &token, 1, "Berlin 1", "site=berlin");
    lead.report("1.0.0", |_| ());
    let late = json!({ "source": "const now = Date.now; Date.now = () => now() + 1e11" });
    view.browser.cdp("Page.addScriptToEvaluateOnNewDocument", &late);
    view.browser.open(&format!("{}/groups", fleet.url));
    view.wait("it was heard a moment ago", || {
        let text = view.text("list");
        (text.contains("just now") || text.contains(" s ago")).then_some(())
    });
}

#[test]
fn what_would_go_wrong_is_that_of_the_release_that_is_chosen() {
    let Some((fleet, token, view)) = one_pair() else { return };
    let lead = Words::enrol(&fleet, &token, 1, "Berlin 1", "site=berlin");
    lead.report("1.0.0", |_| ());
    view.browser.open(&format!("{}/groups/{}", fleet.url, lead.group));
    view.wait_text("foreseen", "The group would refuse 1.2.0");
    view.browser.picture("console-would-refuse");
    let choose = "const choice = document.getElementById('release');
        choice.value = [...choice.options].find(it => it.text.includes('1.1.0')).value;
        choice.dispatchEvent(new Event('change'))";
    view.browser.run(choose, Vec::new());
    let text = view.text("foreseen");
    assert!(!text.contains("refuse") && text.contains("Before you bring 1.1.0"), "{text}");
    // What the group says new does not bring back what was not chosen.
    lead.report("1.0.0", |it| {
        it["documents"]["group"]["members"][1]["linked"] = false.into();
    });
    view.wait_text("devices", "no link");
    assert!(!view.text("foreseen").contains("refuse"));
    view.browser.click("update");
    view.wait_text("head", "In the campaign");
}

#[test]
fn what_is_foreseen_of_a_campaign_follows_what_is_chosen() {
    let Some((fleet, token, view)) = one_pair() else { return };
    let lead = Words::enrol(&fleet, &token, 1, "Berlin 1", "site=berlin");
    lead.report("1.0.0", |_| ());
    view.browser.open(&format!("{}/campaigns/new", fleet.url));
    view.wait_text("found", "Some groups would refuse 1.2.0");
    let choose = "const choice = document.getElementById('release');
        choice.value = [...choice.options].find(it => it.text.includes(arguments[0])).value;
        choice.dispatchEvent(new Event('change'))";
    view.browser.run(choose, vec!["1.1.0".into()]);
    view.wait_text("found", "Before you bring 1.1.0");
    assert!(!view.text("found").contains("Begin all the same"));
    view.browser.run(choose, vec!["1.2.0".into()]);
    view.wait_text("found", "Begin all the same");
    let labels = "const field = document.getElementById('labels');
        field.value = 'site=' + arguments[0];
        field.dispatchEvent(new Event('input'))";
    view.browser.run(labels, vec!["nowhere".into()]);
    view.wait_text("found", "There is nobody to bring 1.2.0 to");
    view.browser.run(labels, vec!["berlin".into()]);
    view.wait_text("found", "Some groups would refuse 1.2.0");
    view.browser.run("document.querySelector('#found input').click()", Vec::new());
    view.browser.click("begin");
    view.wait_text("head", "1.2.0");
}

#[test]
fn the_page_of_a_device_stays_fresh() {
    let Some((fleet, token, view)) = one_pair() else { return };
    let lead = Words::enrol(&fleet, &token, 1, "Berlin 1", "site=berlin");
    lead.report("1.0.0", |_| ());
    view.browser.open(&format!("{}/groups/{}", fleet.url, lead.group));
    view.browser
        .run("document.querySelector('#devices tbody tr:last-child a').click()", Vec::new());
    view.wait_text("head", "What its lead knows of it");
    assert!(view.text("runs").contains("1.0.0, as it says"));
    lead.report("1.0.0", |it| {
        it["documents"]["version"]["peers"][0]["version_number"] = 10_100.into();
    });
    view.wait_text("runs", "1.1.0, as it says");
}
