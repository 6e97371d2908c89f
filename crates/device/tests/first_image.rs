//! An image that another tool installed, on a device that is nobody's yet.

mod group;

use group::{MEMBER, TestGroup, image_hash, images};
use lockstep_agent::FIRST_TRIAL_MS;
use lockstep_proto::otadata::{OtaEntry, OtaState};
use lockstep_sim::flash::write_erased;

/// A pair whose transmitter has no group, and boots this image on the bootloader's trial; its
/// record is empty.
fn brought_by_others(image: &[u8]) -> TestGroup {
    let (receiver, transmitter) = images("1.0.0");
    let mut group = TestGroup::running(&[("receiver", receiver), ("transmitter", transmitter)]);
    let board = &mut group.boards[MEMBER];
    board.key = None;
    write_erased(&mut board.flash, 0x1F_0000, image).unwrap();
    let entries = [OtaEntry::new(1, OtaState::Valid), OtaEntry::new(2, OtaState::New)];
    for (offset, entry) in [0xE000, 0xF000].into_iter().zip(entries) {
        write_erased(&mut board.flash, offset, &entry.encode()).unwrap();
    }
    group
}

#[test]
fn a_device_without_a_group_keeps_the_image_that_made_it_one_of_ours() {
    let (_, new) = images("1.1.0");
    let mut group = brought_by_others(&new);
    let trial = |group: &TestGroup| {
        let agent = group.boards[MEMBER].node.as_ref().expect("it is on").agent();
        assert_eq!(agent.running(), image_hash(&new));
        agent.on_trial()
    };
    group.run_ms(FIRST_TRIAL_MS - 5_000);
    assert!(trial(&group), "not at once");
    group.run_ms(10_000);
    assert!(!trial(&group), "{}", group.log());
    group.cut_power(MEMBER, 500);
    group.run_ms(3_000);
    assert!(!trial(&group), "and it stays");
}
