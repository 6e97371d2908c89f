//! Releases that carry patches: who takes one, who does not, and what comes of a bad one.

mod group;

use std::cell::Cell;
use std::rc::Rc;

use group::{IMAGE_BYTES, LEAD, MEMBER, TestGroup, image_hash, pair_bundle, spec};
use lockstep_delta::encode::{self, Image};
use lockstep_delta::{HEADER_BYTES, Header};
use lockstep_device::patched::Patched;
use lockstep_proto::frame::{FrameType, frame_type};
use lockstep_rollout::Verdict;
use lockstep_sim::firmware::FirmwareSpec;
use lockstep_sim::patches::{full, patch, with_patches};
use sha2::Digest as _;

/// An image that shares most of its bytes with its other versions.
fn image(role: &str, version: &str) -> Vec<u8> {
    FirmwareSpec { stock: 7, ..spec(role, version) }.build().unwrap()
}

fn pair_on(version: &str) -> TestGroup {
    let images = ["receiver", "transmitter"].map(|role| (role, image(role, version)));
    let mut group = TestGroup::running(&images);
    group.run_ms(3_000);
    group
}

/// What makes an image of 1.1.0 from the one of another version.
fn patch_from(role: &str, version: &str) -> Vec<u8> {
    patch(&image(role, version), &image(role, "1.1.0"))
}

/// The bundle of 1.1.0 with these patches: role, tag and bytes.
fn bundle(patches: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let whole = pair_bundle("1.1.0", &image("receiver", "1.1.0"), &image("transmitter", "1.1.0"));
    with_patches(&whole, patches)
}

/// The bundle with what makes both images from those of 1.0.0.
fn good_bundle() -> Vec<u8> {
    let (receiver, transmitter) =
        (patch_from("receiver", "1.0.0"), patch_from("transmitter", "1.0.0"));
    assert!(receiver.len() < IMAGE_BYTES as usize / 8, "{} bytes", receiver.len());
    bundle(&[("transmitter", "1a", &transmitter), ("receiver", "1b", &receiver)])
}

/// Counts the bytes of blocks and repair frames on the air from now on.
fn count_blocks(group: &mut TestGroup) -> Rc<Cell<usize>> {
    let count = Rc::new(Cell::new(0));
    let counted = Rc::clone(&count);
    group.air = Box::new(move |_, _, bytes| {
        if frame_type(bytes) == Some(FrameType::Block) {
            counted.set(counted.get() + bytes.len());
        }
        true
    });
    count
}

const MADE: &str = "is complete, the image is made from it";
const WHOLE: &str = "takes the whole image instead of the patch";

#[track_caller]
fn assert_kept(group: &mut TestGroup, bundle: &[u8]) -> String {
    group.upload(bundle).unwrap();
    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
    group.assert_running(&[&image("receiver", "1.1.0"), &image("transmitter", "1.1.0")]);
    group.log()
}

/// What the lead's history says of the last rollout's patches.
fn last_patched(group: &mut TestGroup) -> Patched {
    group.lead().history().outcomes().next().unwrap().patched
}

#[test]
fn both_make_their_images_from_patches() {
    let mut group = pair_on("1.0.0");
    let blocks = count_blocks(&mut group);

    let log = assert_kept(&mut group, &good_bundle());

    assert_eq!(log.matches(MADE).count(), 2, "{log}");
    assert_eq!(last_patched(&mut group), Patched { members: 2, ..Patched::default() });
    // Manifest and patch together: far from the image of 24 KiB.
    assert!(blocks.get() < IMAGE_BYTES as usize / 3, "{} bytes of blocks", blocks.get());
}

#[test]
fn whoever_runs_something_else_takes_the_whole_image_under_compression() {
    let mut group = pair_on("1.0.1");
    let blocks = count_blocks(&mut group);
    let from = ["receiver", "transmitter"].map(|role| patch_from(role, "1.0.0"));
    let whole = ["receiver", "transmitter"].map(|role| full(&image(role, "1.1.0")));
    let bundle = bundle(&[
        ("transmitter", "1a", &from[1]),
        ("transmitter", "full", &whole[1]),
        ("receiver", "1b", &from[0]),
        ("receiver", "full", &whole[0]),
    ]);

    let log = assert_kept(&mut group, &bundle);

    assert_eq!(log.matches(MADE).count(), 2, "{log}");
    assert!(!log.contains("is passed over"), "{log}");
    let (sent, image) = (blocks.get(), IMAGE_BYTES as usize);
    assert!(sent > image / 2 && sent < image * 7 / 8, "{sent} bytes of blocks");
}

/// The lead's other slot is the spool of what others fetch; its own turn comes last.
#[test]
fn devices_of_the_leads_own_role_take_the_patch_before_the_lead_does() {
    let roles = ["receiver", "receiver", "transmitter", "receiver"];
    let mut group = TestGroup::running(&roles.map(|role| (role, image(role, "1.0.0"))));
    for board in &mut group.boards[1..] {
        board.duty = lockstep_device::setup::Duty::Member;
    }
    group.run_ms(3_000);

    group.upload(&good_bundle()).unwrap();

    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
    let images = roles.map(|role| image(role, "1.1.0"));
    group.assert_running(&images.each_ref().map(|image| &image[..]));
    assert_eq!(group.log().matches(MADE).count(), 4, "{}", group.log());
}

#[test]
fn without_a_patch_that_fits_the_image_goes_as_it_is() {
    let mut group = pair_on("1.0.1");
    let from = patch_from("transmitter", "1.0.0");
    let log = assert_kept(&mut group, &bundle(&[("transmitter", "1a", &from)]));
    assert!(!log.contains(MADE), "{log}");
}

/// Whatever is wrong with a patch: the whole image is taken, and the log says why.
#[test]
fn a_patch_that_is_broken_forged_or_for_another_image_costs_nothing_but_time() {
    let good = patch_from("transmitter", "1.0.0");
    let (old, new) = (image("transmitter", "1.0.0"), image("transmitter", "1.1.0"));
    let named = |change: &dyn Fn(&mut Header, &mut Vec<u8>)| {
        let mut header = Header::decode(&good).unwrap();
        let mut body = good[HEADER_BYTES..].to_vec();
        change(&mut header, &mut body);
        header.body_sha256 = sha2::Sha256::digest(&body).into();
        header.body_bytes = u32::try_from(body.len()).unwrap();
        [&header.encode()[..], &body].concat()
    };
    let mut flipped = good.clone();
    flipped[HEADER_BYTES + 200] ^= 1;
    let other = encode::plain(
        &Image { bytes: &old, id: image_hash(&old).0 },
        &Image { bytes: &image("transmitter", "1.2.0"), id: image_hash(&new).0 },
    );
    let cases: [(&str, Vec<u8>, &str); 10] = [
        ("a flipped bit", flipped, "is passed over: slot holds"),
        ("cut", good[..good.len() - 9].to_vec(), "is passed over: it has"),
        ("nothing but a header", named(&|_, body| body.clear()), "is passed over: patch needs"),
        ("no header", vec![7; 50], "is passed over: patch has 50 bytes"),
        ("no patch", vec![7; 500], "is passed over: begins with"),
        ("garbage of the right length", named(&|_, body| body.fill(0x5A)), WHOLE),
        ("a body that ends early", named(&|_, body| body.truncate(100)), WHOLE),
        ("another image comes of it", other.unwrap(), "patch made"),
        (
            "another image is said to come of it",
            named(&|header, _| header.new = [9; 32]),
            "the manifest names",
        ),
        ("no slot is that large", named(&|header, _| header.room_bytes = 1 << 28), "needs a slot"),
    ];
    for (what, patch, said) in cases {
        let mut group = pair_on("1.0.0");
        let log = assert_kept(&mut group, &bundle(&[("transmitter", "1a", &patch)]));
        assert!(log.contains(said), "{what}: `{said}` is not in\n{log}");
        let patched = last_patched(&mut group);
        assert_eq!((patched.members, patched.refused), (0, 1), "{what}");
        assert!(patched.why.is_some(), "{what}");
    }
}

/// Its firmware is older than patches: to it the offer is noise.
#[test]
fn who_does_not_answer_an_offer_is_passed_over() {
    let mut group = pair_on("1.0.0");
    let (lead, key) = (group.boards[LEAD].id, group::KEY.clone());
    group.air = Box::new(move |from, _, bytes| {
        let frame = lockstep_proto::frame::control::ControlFrame::decode(&key, bytes);
        let is_offer = frame.is_ok_and(|frame| {
            use lockstep_proto::frame::control::Message;
            use lockstep_proto::frame::order::Order;
            matches!(frame.message, Message::Order(_, Order::Offer(_)))
        });
        !(from == lead && is_offer)
    });
    let log = assert_kept(&mut group, &good_bundle());
    // The lead's own.
    assert_eq!(log.matches(MADE).count(), 1, "{log}");
}

/// An image of this size, which is worth leaving out.
fn large(role: &str, version: &str) -> Vec<u8> {
    FirmwareSpec { stock: 7, size_bytes: 100_000, ..spec(role, version) }.build().unwrap()
}

/// A pair, and a bundle from whose sender the lead can have left out what it needs not.
fn large_scene() -> (TestGroup, Vec<u8>) {
    let roles = ["receiver", "transmitter"];
    let mut group = TestGroup::running(&roles.map(|role| (role, large(role, "1.0.0"))));
    group.run_ms(3_000);
    group.skips = true;
    let [receiver, transmitter] = roles.map(|role| large(role, "1.1.0"));
    let [first, second] = roles.map(|role| patch(&large(role, "1.0.0"), &large(role, "1.1.0")));
    let whole = pair_bundle("1.1.0", &receiver, &transmitter);
    let bundle =
        with_patches(&whole, &[("transmitter", "1a", &second), ("receiver", "1b", &first)]);
    (group, bundle)
}

#[test]
fn images_that_nobody_needs_do_not_even_come_to_the_lead() {
    let (mut group, bundle) = large_scene();
    group.upload(&bundle).unwrap();
    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
    group.assert_running(&[&large("receiver", "1.1.0"), &large("transmitter", "1.1.0")]);
    assert!(group.sent_bytes < bundle.len() / 3, "{} of {}", group.sent_bytes, bundle.len());
}

/// It goes on where it was, and again leaves out what nobody needs.
#[test]
fn a_lead_that_loses_its_power_while_parts_are_left_out_gets_there_all_the_same() {
    let mut kept = 0;
    for cut_ms in (0..3_000).step_by(200) {
        let (mut group, bundle) = large_scene();
        group.begin_upload(&bundle).unwrap();
        group.run_ms(cut_ms);
        group.cut_power(LEAD, 500);
        group.run_until(60_000, |group| group.uploaded.is_some());
        if group.phase().is_none() {
            continue;
        }
        let is_kept = group.settle() == Verdict::Keep;
        let version = if is_kept { "1.1.0" } else { "1.0.0" };
        group.assert_running(&[&large("receiver", version), &large("transmitter", version)]);
        kept += u32::from(is_kept);
    }
    assert!(kept >= 5, "{kept} of 15 were kept");
}

/// At every moment of staging, of either: whatever the cut hits, the pair ends on one release, and
/// most of the time on the new one.
#[test]
fn a_pair_survives_a_power_cut_of_either_at_any_moment_of_a_patched_rollout() {
    let bundle = good_bundle();
    let (mut kept, mut made) = (0, 0);
    for board in [LEAD, MEMBER] {
        for cut_ms in (0..1_500).step_by(25) {
            let mut group = pair_on("1.0.0");
            group.begin_upload(&bundle).unwrap();
            group.run_ms(cut_ms);
            group.cut_power(board, 500);
            group.run_until(60_000, |group| group.uploaded.is_some());
            if group.phase().is_none() {
                continue;
            }
            match group.settle() {
                Verdict::Keep => {
                    let images = ["receiver", "transmitter"].map(|role| image(role, "1.1.0"));
                    group.assert_running(&[&images[0], &images[1]]);
                    kept += 1;
                }
                Verdict::Revert(_) => {
                    let images = ["receiver", "transmitter"].map(|role| image(role, "1.0.0"));
                    group.assert_running(&[&images[0], &images[1]]);
                }
            }
            made += group.log().matches(MADE).count();
        }
    }
    println!("{kept} kept, {made} images made from patches");
    assert!(kept > 60 && made > 120, "{kept} kept, {made} made");
}
