//! That everybody can use the console: on a phone, in the dark, by keyboard; with a fleet to show.

use serde_json::{Value, json};

use super::fleet::{Fleet, Words};
use crate::desk::{BOTH, Desk, firmware};
use crate::view::View;

/// A fleet in which a campaign goes on, one group has failed, and some need somebody.
fn populate<'a>(fleet: &'a Fleet, token: &str) -> (Vec<Words<'a>>, String) {
    let names = ["Berlin 1", "Berlin 2", "Bergen", "Cadiz", "Dublin", "Essen", "Faro", "Genoa"];
    let mut leads = Vec::new();
    for (number, name) in (1..).zip(names) {
        let site = name.split(' ').next().unwrap().to_lowercase();
        let stage = if number <= 2 { ",stage=canary" } else { "" };
        let labels = format!("site={site}{stage}");
        let lead = Words::enrol(fleet, token, number, name, &labels);
        lead.report(if number == 8 { "0.9.0" } else { "1.0.0" }, |_| ());
        leads.push(lead);
    }
    leads[5].report("1.0.0", |it| {
        it["documents"]["group"]["members"][1]["linked"] = false.into();
    });
    // A name may be one long word.
    let name = "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch";
    Words::enrol(fleet, token, 9, name, &format!("site={}", &name[..40])).report("1.0.0", |_| ());
    // Only for its images: it is not of this fleet.
    let desk = Desk::new();
    let images = BOTH.map(|role| firmware(role, "1.1.0").make());
    let bundle = desk.release("1.1.0", &[&images[1], &images[0]]);
    let release = fleet.send("/api/releases", token, &desk.read(&bundle));
    let campaign = json!({
        "name": "Spring release", "release": release["release"]["id"], "canary": "stage=canary",
        "waves": "40,60!", "failures_max": 1,
    });
    let made = fleet.post("/api/campaigns", token, &campaign);
    let campaign = made["campaign"]["id"].as_str().unwrap().to_owned();
    for lead in &leads[..2] {
        rolls_out(lead, "17762bb28297659e");
        keep(lead, &images[0].hash, &images[1].hash);
    }
    // One that the groups, which have keys, would refuse.
    let images = BOTH.map(|role| firmware(role, "1.2.0").make());
    let bundle = desk.release_with("1.2.0", &[&images[1], &images[0]], "--unsigned");
    fleet.send("/api/releases", token, &desk.read(&bundle));
    leads[2].report("1.0.0", |it| {
        it["documents"]["history"]["history"] = json!([past("revert")]);
    });
    rolls_out(&leads[3], "4332809e2fac7d82");
    (leads, campaign)
}

fn keep(lead: &Words<'_>, receiver: &str, transmitter: &str) {
    lead.report("1.1.0", |it| {
        it["documents"]["version"]["image"] = receiver.into();
        it["documents"]["version"]["peers"][0]["image"] = transmitter[..16].into();
        it["documents"]["history"]["history"] = json!([past("keep")]);
    });
}

fn past(verdict: &str) -> Value {
    let cause = (verdict == "revert").then(|| {
        json!({ "code": "not-healthy", "member": null,
            "text": "02:00:00:00:03:02 did not get healthy in time" })
    });
    let cause_free = cause.is_none();
    json!({ "rollout": "17762bb28297659e", "kind": "forward", "verdict": verdict, "cause": cause,
        "release": "1.1.0", "release_before": "1.0.0", "disagreed_s": cause_free.then_some(1) })
}

fn rolls_out(lead: &Words<'_>, rollout: &str) {
    lead.report("1.0.0", |it| {
        let member = |id: &Value, role: &str, staged: u64| {
            json!({ "id": id, "role": role, "part": "update", "state": "staging",
                "staged_bytes": staged, "size_bytes": 1_024_000, "remaining_s": 7,
                "at_rest": false, "on_trial": false, "healthy": true, "settled": false,
                "refused": null })
        };
        let ids = it["documents"]["group"]["members"].clone();
        it["documents"]["rollout"]["rollout"] = json!({
            "id": rollout, "kind": "forward", "phase": "staging", "verdict": null,
            "cause": null, "release": "1.1.0", "release_before": "1.0.0", "can_abort": true,
            "held": false, "members": [
                member(&ids[1]["id"], "transmitter", 700_000),
                member(&ids[0]["id"], "receiver", 120_000),
            ],
        });
    });
}

#[test]
fn the_console_fits_a_phone_and_the_dark() {
    let (fleet, token) = Fleet::start_with_admin();
    let (leads, campaign) = populate(&fleet, &token);
    let Some(view) = fleet.open_as_admin() else { return };
    let release = view.browser.run(
        "return fetch('/releases').then(it => it.text())
            .then(it => it.match(/releases\\/([0-9a-f]{20})\">1.1.0/)[1])",
        Vec::new(),
    );
    let pages = [
        ("overview", "/".to_owned()),
        ("groups", "/groups".to_owned()),
        ("group", format!("/groups/{}", leads[3].group)),
        ("group-2", format!("/groups/{}", leads[5].group)),
        ("group-3", format!("/groups/{}", leads[2].group)),
        ("device", format!("/groups/{}/devices/02:00:00:00:04:01", leads[3].group)),
        ("member", format!("/groups/{}/devices/02:00:00:00:04:02", leads[3].group)),
        ("releases", "/releases".to_owned()),
        ("one-release", format!("/releases/{}", release.as_str().unwrap())),
        ("campaigns", "/campaigns".to_owned()),
        ("new-campaign", "/campaigns/new".to_owned()),
        ("campaign", format!("/campaigns/{campaign}")),
        ("settings", "/settings".to_owned()),
        ("audit", "/audit".to_owned()),
        ("api", "/api/docs#makeCampaign".to_owned()),
    ];
    for (name, path) in &pages {
        view.browser.open(&format!("{}{path}", fleet.url));
        for (scheme, width) in [("light", 1280), ("light", 360), ("dark", 1280), ("dark", 360)] {
            view.emulate_scheme(scheme);
            view.emulate_width(width);
            let script = "const r = document.documentElement; return r.scrollWidth > r.clientWidth";
            assert_eq!(view.browser.run(script, Vec::new()), false, "{name} at {width} pixels");
            view.browser.picture(&format!("console-{name}-{scheme}-{width}"));
            let Some(found) = view.violations() else { continue };
            assert!(found.is_empty(), "{name}, {scheme}, {width}: {found:#?}");
        }
    }
    assert_silent(&view);
}

fn assert_silent(view: &View) {
    for entry in view.browser.logged("browser") {
        assert!(entry["level"] != "SEVERE", "{entry}");
    }
}

#[test]
fn the_keyboard_finds_the_content_and_the_filter() {
    let (fleet, token) = Fleet::start_with_admin();
    let lead = Words::enrol(&fleet, &token, 1, "Berlin 1", "site=berlin");
    lead.report("1.0.0", |_| ());
    let Some(view) = fleet.open_as_admin() else { return };
    view.browser.open(&format!("{}/groups", fleet.url));
    // The first stop leads past the navigation.
    view.browser.press_keys("\u{e004}\u{e007}");
    view.wait("the content has the focus", || (view.focused() == "main").then_some(()));
    view.browser.press_keys("/");
    assert_eq!(view.focused(), "name");
    let outline = "return getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(view.browser.run(outline, Vec::new()), "solid", "the focus can be seen");
    view.browser.press_keys("nobody\u{e007}");
    view.wait_text("list", "No group is like that");
    view.browser.press_keys("/ber\u{e007}");
    view.wait_text("list", "Berlin 1");
}

/// A group says something new while somebody looks: what the person was at stays.
#[test]
fn a_page_that_is_refreshed_keeps_focus_and_scroll() {
    let (fleet, token) = Fleet::start_with_admin();
    let lead = Words::enrol(&fleet, &token, 1, "Berlin 1", "site=berlin");
    lead.report("1.0.0", |_| ());
    let Some(view) = fleet.open_as_admin() else { return };
    view.emulate_size(360, 500);
    view.browser.open(&format!("{}/groups/{}", fleet.url, lead.group));
    view.wait_text("devices", "1.0.0");
    let begin = "document.querySelector('#acts .ask').open = true;
        document.getElementById('log').focus(); scrollTo(0, 400); return scrollY";
    let before = view.browser.run(begin, Vec::new());
    lead.report("1.0.0", |it| {
        it["documents"]["version"]["peers"][0]["compatible"] = false.into();
        it["documents"]["version"]["peers"][0]["why"] = "it needs 2.0.0".into();
    });
    view.wait_text("devices", "it needs 2.0.0");
    assert_eq!(view.focused(), "log");
    let after = "return [scrollY, document.querySelector('#acts .ask').open]";
    let after = view.browser.run(after, Vec::new());
    assert_eq!(after[1], true);
    let moved = after[0].as_f64().unwrap() - before.as_f64().unwrap();
    // The browser itself keeps in sight what was in sight: what came above it moves no line.
    assert!(moved >= 0.0, "{moved}");
}
