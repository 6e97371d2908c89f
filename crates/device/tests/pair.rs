//! Whole rollouts of a pair: real nodes over flash in memory, in virtual time.

mod group;

use group::{LEAD, MEMBER, TestGroup, images, pair_bundle, spec};
use lockstep_device::setup::StagingPace;
use lockstep_rollout::{Cause, Phase, Verdict};
use lockstep_sim::firmware::{Fault, FirmwareSpec};

#[test]
fn a_good_release_is_kept_by_both() {
    let mut group = TestGroup::pair();
    let (receiver, transmitter) = images("1.1.0");

    group.upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();

    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
    group.assert_running(&[&receiver, &transmitter]);
}

/// L2, L33: half of the pair works; the other half decides.
#[test]
fn a_transmitter_that_never_gets_healthy_takes_both_back() {
    let mut group = TestGroup::pair();
    let (old_receiver, old_transmitter) = images("1.0.0");
    let (receiver, _) = images("1.1.0");
    let sick = FirmwareSpec { fault: Fault::NeverHealthy, ..spec("transmitter", "1.1.0") };

    group.upload(&pair_bundle("1.1.0", &receiver, &sick.build().unwrap())).unwrap();

    let verdict = group.settle();
    let member = group.boards[MEMBER].id;
    assert_eq!(verdict, Verdict::Revert(Cause::NotHealthy(member)), "{}", group.log());
    group.assert_running(&[&old_receiver, &old_transmitter]);
}

#[test]
fn a_transmitter_that_crashes_at_boot_takes_both_back() {
    let mut group = TestGroup::pair();
    let (old_receiver, old_transmitter) = images("1.0.0");
    let (receiver, _) = images("1.1.0");
    let sick = FirmwareSpec { fault: Fault::CrashAtBoot, ..spec("transmitter", "1.1.0") };

    group.upload(&pair_bundle("1.1.0", &receiver, &sick.build().unwrap())).unwrap();

    let verdict = group.settle();
    assert_eq!(verdict, Verdict::Revert(Cause::FellBack(group.boards[MEMBER].id)));
    group.assert_running(&[&old_receiver, &old_transmitter]);
}

/// The lead's own new firmware crashes: its old one comes back and undoes the rest.
#[test]
fn a_lead_that_crashes_at_boot_takes_both_back() {
    let mut group = TestGroup::pair();
    let (old_receiver, old_transmitter) = images("1.0.0");
    let (_, transmitter) = images("1.1.0");
    let sick = FirmwareSpec { fault: Fault::CrashAtBoot, ..spec("receiver", "1.1.0") };

    group.upload(&pair_bundle("1.1.0", &sick.build().unwrap(), &transmitter)).unwrap();

    let verdict = group.settle();
    assert_eq!(verdict, Verdict::Revert(Cause::FellBack(group.boards[LEAD].id)));
    group.assert_running(&[&old_receiver, &old_transmitter]);
}

/// L12: whoever cannot hear the lead can never be updated again.
#[test]
fn a_deaf_transmitter_takes_both_back() {
    let mut group = TestGroup::pair();
    let (old_receiver, old_transmitter) = images("1.0.0");
    let (receiver, _) = images("1.1.0");
    let sick = FirmwareSpec { fault: Fault::DeafRadio, ..spec("transmitter", "1.1.0") };

    group.upload(&pair_bundle("1.1.0", &receiver, &sick.build().unwrap())).unwrap();

    assert!(matches!(group.settle(), Verdict::Revert(_)), "{}", group.log());
    group.assert_running(&[&old_receiver, &old_transmitter]);
}

#[test]
fn what_was_kept_can_be_reverted_without_a_download() {
    let mut group = TestGroup::pair();
    let (old_receiver, old_transmitter) = images("1.0.0");
    let (receiver, transmitter) = images("1.1.0");
    group.upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
    assert_eq!(group.settle(), Verdict::Keep);

    let now = lockstep_proto::time::Instant::from_ms(1_000_000);
    let board = &mut group.boards[LEAD];
    board.node.as_mut().unwrap().revert(now, &mut board.flash).unwrap();

    group.run_ms(500);
    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
    group.assert_running(&[&old_receiver, &old_transmitter]);
}

/// One rollout with a power cut of `board` after `cut_ms`: whatever it was doing, the pair ends
/// whole, and on the side that the verdict names. Returns whether it kept the release.
fn rollout_with_a_cut(board: usize, cut_ms: u64, off_ms: u64, loss_percent: u64) -> Option<bool> {
    let mut group = TestGroup::pair();
    let mut dice = 0x9E37_79B9_7F4A_7C15_u64 ^ cut_ms;
    group.air = Box::new(move |_, _, _| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % 100 >= loss_percent
    });
    let (old_receiver, old_transmitter) = images("1.0.0");
    let (receiver, transmitter) = images("1.1.0");
    group.begin_upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
    group.run_ms(cut_ms);
    group.cut_power(board, off_ms);
    group.run_ms(off_ms + 500);
    // A lead that is booting knows of no rollout either.
    let is_over = |group: &TestGroup| {
        let is_on = group.boards[LEAD].node.is_some();
        is_on && matches!(group.phase(), Some(Phase::Settled(_)) | None)
    };
    let over = group.run_until(200_000, |group| group.uploaded.is_some() && is_over(group));
    assert!(over, "cut at {cut_ms}: no end, {:?}\n{}", group.phase(), group.log());
    group.run_ms(2_000);
    match group.settled() {
        Some(Verdict::Keep) => group.assert_running(&[&receiver, &transmitter]),
        Some(Verdict::Revert(_)) | None => {
            group.assert_running(&[&old_receiver, &old_transmitter]);
        }
    }
    group.settled().map(|verdict| verdict == Verdict::Keep)
}

/// At any moment of a rollout, staging included, on either device.
#[test]
fn a_pair_survives_a_power_cut_of_either_at_any_moment() {
    let mut ends = [0, 0, 0];
    for board in [LEAD, MEMBER] {
        for cut_ms in (0..2_000).step_by(30) {
            match rollout_with_a_cut(board, cut_ms, 700, 0) {
                Some(true) => ends[0] += 1,
                Some(false) => ends[1] += 1,
                None => ends[2] += 1,
            }
        }
    }
    // Cuts that reached no verdict but one would test nothing.
    let [kept, reverted, not_begun] = ends;
    println!("{kept} kept, {reverted} reverted, {not_begun} not begun");
    assert!(kept > 20 && reverted > 5, "{ends:?}");
}

#[test]
fn a_pair_survives_power_cuts_over_a_link_that_loses_a_fifth() {
    let mut kept = 0;
    for cut_ms in (0..2_600).step_by(130) {
        for board in [LEAD, MEMBER] {
            kept += u32::from(rollout_with_a_cut(board, cut_ms, 300, 20) == Some(true));
        }
    }
    assert!(kept > 3, "{kept} kept");
}

/// L24, L34: the uploader vanishes for good; a member that only repeats what it wants is no sign
/// of progress, and the pair is free again after the deadline.
#[test]
fn an_upload_that_never_comes_back_ends_staging() {
    let mut group = TestGroup::pair();
    let (old_receiver, old_transmitter) = images("1.0.0");
    let (receiver, transmitter) = images("1.1.0");
    let bundle = pair_bundle("1.1.0", &receiver, &transmitter);
    group.begin_upload(&bundle).unwrap();
    group.run_ms(150);
    group.forget_upload();

    assert_eq!(group.settle(), Verdict::Revert(Cause::StagingDeadline), "{}", group.log());
    group.assert_running(&[&old_receiver, &old_transmitter]);
    group.upload(&bundle).unwrap();
    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
}

/// A bad download that was also cut off leaves bytes in flash under the good file's name: the good
/// file that comes after it must not be built upon them.
#[test]
fn a_bad_upload_does_not_spoil_the_good_one_after_it() {
    // Long enough for progress that survives the rollout.
    const SIZE_BYTES: u32 = 100 * 1024;
    let image = |role| FirmwareSpec { size_bytes: SIZE_BYTES, ..spec(role, "1.1.0") }.build();
    let (receiver, transmitter) = (image("receiver").unwrap(), image("transmitter").unwrap());
    let good = pair_bundle("1.1.0", &receiver, &transmitter);
    // In the artifact of the transmitter, then in that of the receiver.
    for bad_at in [20_000, 20_000 + SIZE_BYTES as usize] {
        let mut group = TestGroup::pair();
        let mut bad = good.clone();
        bad[bad_at] ^= 1;
        bad.truncate(bad_at + 60_000);
        group.begin_upload(&bad).unwrap();
        assert!(group.run_until(60_000, TestGroup::has_sent_all), "{}", group.log());
        group.end_upload();
        assert_eq!(group.settle(), Verdict::Revert(Cause::BadUpload), "{}", group.log());

        group.upload(&good).unwrap();

        assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
        group.assert_running(&[&receiver, &transmitter]);
    }
}

/// A control loop feels every erase: a busy application gets its chip back after each operation,
/// and the release is kept all the same.
#[test]
fn staging_takes_the_flash_of_a_busy_application_one_operation_at_a_time() {
    const SECTOR_AND_PAGES_BYTES: u64 = 2_500;
    let most_bytes = |pace| {
        let mut group = TestGroup::of(&["receiver", "transmitter"]);
        for board in &mut group.boards {
            board.staging_pace = pace;
        }
        group.run_ms(3_000);
        let (receiver, transmitter) = images("1.1.0");
        group.begin_upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
        let mut most_bytes = [0; 2];
        for _ in 0..3_000 {
            if !matches!(group.phase(), None | Some(Phase::Preflight | Phase::Staging)) {
                break;
            }
            let before = [LEAD, MEMBER].map(|board| group.written_bytes(board));
            group.run_ms(10);
            for board in [LEAD, MEMBER] {
                most_bytes[board] =
                    (group.written_bytes(board) - before[board]).max(most_bytes[board]);
            }
        }
        assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
        group.assert_running(&[&receiver, &transmitter]);
        most_bytes
    };
    let busy = most_bytes(StagingPace::Background { ms_between: 2 });
    let idle = most_bytes(StagingPace::Fast);
    assert!(busy.iter().all(|&bytes| bytes < SECTOR_AND_PAGES_BYTES), "{busy:?}");
    assert!(idle.iter().all(|&bytes| bytes > SECTOR_AND_PAGES_BYTES), "{idle:?}");
}

/// Nothing is put back: each image finds what it had.
#[test]
fn the_configuration_goes_with_the_image_there_and_back() {
    let mut group = TestGroup::pair();
    let (receiver, transmitter) = images("1.1.0");
    let config = |group: &mut TestGroup, board: usize| {
        let board = &mut group.boards[board];
        let object = board.node.as_ref().unwrap().config(true, &mut board.flash);
        serde_json::Value::Object(object).to_string()
    };
    let set = |group: &mut TestGroup, text: &str| {
        let now = group.now;
        let board = &mut group.boards[MEMBER];
        let uptime = board.uptime(now);
        let node = board.node.as_mut().unwrap();
        node.set_config(uptime, text.as_bytes(), &mut board.flash).unwrap();
    };
    set(&mut group, r#"{"limit":1}"#);

    group.upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
    assert_eq!(group.settle(), Verdict::Keep);
    assert_eq!(config(&mut group, MEMBER), r#"{"limit":1}"#, "the new one begins with it");
    set(&mut group, r#"{"limits":[1,2]}"#);
    group.cut_power(MEMBER, 100);
    group.run_ms(3_000);
    assert_eq!(config(&mut group, MEMBER), r#"{"limits":[1,2]}"#);

    let now = group.boards[LEAD].uptime(group.now);
    let board = &mut group.boards[LEAD];
    board.node.as_mut().unwrap().revert(now, &mut board.flash).unwrap();
    assert_eq!(group.settle(), Verdict::Keep);
    assert_eq!(config(&mut group, MEMBER), r#"{"limit":1}"#, "the old one finds its own");
    assert_eq!(config(&mut group, LEAD), "{}");
}
