//! Releases made from the ones before: what they carry, and how devices get there with less.

use serde_json::Value;

use super::desk::{BOTH, Desk, Image, Plan, Said, firmware};

const MADE: &str = "is complete, the image is made from it";

/// Images that share most bytes with their other versions.
fn images(version: &str) -> [Image; 2] {
    BOTH.map(|role| firmware(role, version).size(256 * 1024).stock(7).make())
}

/// A pair on such images, and the release that it runs as a bundle.
fn desk_on(version: &str, plan: Plan) -> Desk {
    let [receiver, transmitter] = images(version);
    let desk = plan.first(receiver, transmitter).start();
    release(&desk, version, "");
    desk
}

fn release(desk: &Desk, version: &str, options: &str) -> String {
    let [receiver, transmitter] = images(version);
    let options = format!("--key a.key {options}");
    desk.release_with(version, &[&transmitter, &receiver], &options)
}

#[test]
fn a_release_that_is_made_from_the_one_before_reaches_both_as_patches() {
    let desk = desk_on("1.0.0", Plan::default());
    let bundle = release(&desk, "1.1.0", "--from 1.0.0.lockstep");
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images("1.1.0"));
    let consoles = desk.consoles();
    assert_eq!(consoles.matches(MADE).count(), 2, "{consoles}");
}

/// The patches are for others; both still get less than the images, since these are compressed.
#[test]
fn who_runs_an_older_release_gets_the_whole_image_under_compression() {
    let desk = desk_on("0.9.0", Plan::default());
    release(&desk, "1.0.0", "");
    let bundle = release(&desk, "1.1.0", "--from 1.0.0.lockstep");
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images("1.1.0"));
    let consoles = desk.consoles();
    assert_eq!(consoles.matches(MADE).count(), 2, "{consoles}");
    let (small, whole) = (32 * 1024, 128 * 1024);
    for bytes in patch_sizes(&consoles) {
        assert!((whole..256 * 1024).contains(&bytes) && bytes > small, "{bytes}: {consoles}");
    }
}

/// The sizes of the patches that devices have made their images from.
fn patch_sizes(consoles: &str) -> Vec<usize> {
    let lines = consoles.lines().filter(|line| line.contains(MADE));
    lines
        .filter_map(|line| {
            let (_, rest) = line.split_once("patch of ")?;
            rest.split(' ').next()?.parse().ok()
        })
        .collect()
}

/// They would be the compressed image once more.
#[test]
fn a_release_that_has_nothing_in_common_with_the_one_before_carries_no_patches_from_it() {
    let desk = desk_on("1.0.0", Plan::default());
    let others = BOTH.map(|role| firmware(role, "1.1.0").size(256 * 1024).stock(8).make());
    for image in &others {
        desk.write(&format!("1.1.0-{}.bin", image.role.name()), &image.bytes);
    }
    let line = "release create --version 1.1.0 -o new.lockstep --unsigned --from 1.0.0.lockstep \
                --receiver 1.1.0-receiver.bin --transmitter 1.1.0-transmitter.bin";
    desk.lockstep(line)
        .succeeds()
        .says("no patch for receiver from 1.0.0: the whole image is hardly larger, compressed")
        .says("no patch for transmitter from 1.0.0: ");
    let inspected = told(&desk.lockstep("--json inspect new.lockstep"));
    let patches = inspected[0]["facts"]["patches"].as_array().unwrap();
    assert!(patches.iter().all(|it| it["from_image_sha256"].is_null()), "{patches:?}");
    assert_eq!(patches.len(), 2);
}

/// `kill -9` while the image is made, of either: it is made again, or the whole image is taken.
#[test]
fn a_device_that_loses_its_power_while_it_makes_its_image_gets_there_all_the_same() {
    for role in BOTH {
        let mut desk = desk_on("1.0.0", Plan::default());
        let bundle = release(&desk, "1.1.0", "--from 1.0.0.lockstep");
        let update = desk.begin_update(&bundle);
        desk.wait("the image is being made", || desk.consoles().contains(MADE).then_some(()));
        desk.board_mut(role).kill();
        desk.board_mut(role).switch_on();
        update.end();
        let settled = desk.wait_settled();
        assert_eq!(settled["verdict"], "keep", "{}", desk.consoles());
        desk.assert_runs(&images("1.1.0"));
    }
}

/// The JSON that a command printed, before what it warned of.
fn told(said: &Said) -> Value {
    let text = &said.succeeds().text;
    let mut values = serde_json::Deserializer::from_str(text).into_iter();
    values.next().expect("it printed JSON").expect("it is JSON")
}

#[test]
fn a_release_says_what_its_patches_are_and_what_they_cost() {
    let desk = desk_on("1.0.0", Plan::default());
    let line = "release create --json --version 1.1.0 -o new.lockstep --unsigned \
                --receiver 1.1.0-receiver.bin --transmitter 1.1.0-transmitter.bin";
    for image in &images("1.1.0") {
        desk.write(&format!("1.1.0-{}.bin", image.role.name()), &image.bytes);
    }
    let said = desk.lockstep(&format!("{line} --from 1.0.0.lockstep"));
    let release = told(&said);
    let patches = release["patches"].as_array().unwrap();
    let short: Vec<_> = patches.iter().map(|it| (&it["role"], &it["from"])).collect();
    let (receiver, transmitter) = (Value::from("receiver"), Value::from("transmitter"));
    let (before, none) = (Value::from("1.0.0"), Value::Null);
    let expected = [(&transmitter, &before), (&transmitter, &none)];
    assert_eq!(short[..2], expected, "{patches:?}");
    assert_eq!(short[2..], [(&receiver, &before), (&receiver, &none)]);
    assert!(patches[0]["size"].as_u64().unwrap() < 32 * 1024, "{patches:?}");
    assert_eq!(patches[0]["image_size"], 256 * 1024);
    let base = patches[0]["from_image_sha256"].as_str().unwrap();
    desk.lockstep("inspect new.lockstep")
        .succeeds()
        .says(&format!("bytes, for image {base}"))
        .says("transmitter.full.patch, ")
        .says("bytes, the image under compression");
    let inspected = told(&desk.lockstep("--json inspect new.lockstep"));
    let found = &inspected[0]["facts"]["patches"][0];
    let same = ["role", "name", "size", "from_image_sha256"].map(|name| (&found[name], name));
    assert!(same.iter().all(|(found, name)| **found == patches[0][*name]), "{inspected}");

    desk.write("rubbish.lockstep", b"no bundle");
    let plain = line.replace("--json ", "--overwrite ");
    desk.lockstep(&format!("{plain} --from rubbish.lockstep"))
        .fails()
        .says("`rubbish.lockstep` is not a good bundle");
    let missing = desk.lockstep(&format!("{plain} --from missing.lockstep"));
    assert_eq!(missing.says("Cannot read `missing.lockstep`").code, Some(1));
    // A release of one role only: it is said, and there is none for the other.
    let only = "release create --version 1.0.0 -o one.lockstep --unsigned --receiver";
    desk.lockstep(&format!("{only} 1.0.0-receiver.bin")).succeeds();
    desk.lockstep(&format!("{plain} --from one.lockstep"))
        .succeeds()
        .says("`one.lockstep` has no image for `transmitter`");
    // Without any.
    let said = desk.lockstep(&format!("{line} --overwrite --uncompressed"));
    let release = told(&said);
    assert_eq!(release["patches"], Value::from(Vec::<Value>::new()));
}
