//! What the sender concludes from what it was told, one conclusion at a time. How transfers go is
//! in `tests/transfer.rs`.

use std::vec;
use std::vec::Vec;

use lockstep_proto::frame::report::Lacking;

use super::*;

/// Two generations of small blocks, and a bit of a third.
pub(super) const CUT: Cut = Cut { shape: Shape::Small, size_bytes: 60_000 };
const TIMING: Timing = Timing { slot_ms: 2, answer_ms: 20, mend_ms: 4 };

fn sender() -> Sender {
    Sender::new(Session(7), CUT.size_bytes, TIMING, 1)
}

pub(super) fn sender_of_large() -> Sender {
    let mut sender = sender();
    sender.cut.shape = Shape::Large;
    sender
}

/// A member that lacks these of the first generations: maps of large blocks, or numbers of small
/// ones.
pub(super) fn target(low: u8, shape: Shape, lacking: &[u32]) -> Target {
    let lacking = match shape {
        Shape::Large => Lacking::of_large(lacking.iter().copied()),
        Shape::Small => Lacking::of(lacking.iter().map(|&it| u8::try_from(it).unwrap())),
    };
    Target {
        device: DeviceId([2, 0, 0, 0, 0, low]),
        wants: Wants {
            session: Session(7),
            readiness: Readiness::Open,
            shape,
            takes_large: true,
            interval_ms: 0,
            staged_bytes: 0,
            erased_bytes: 0,
            first: 0,
            lacking,
        },
        has_answered: true,
        unanswered: 0,
        busy_since: None,
        due: 0,
        loss_permille: 0,
        is_loss_known: false,
        is_asked: true,
    }
}

#[test]
fn the_more_is_lost_the_more_often_a_question_is_said() {
    let copies = |loss_permille| {
        let mut sender = sender();
        sender.targets = vec![
            target(0, Shape::Small, &[]),
            Target { loss_permille, ..target(1, Shape::Small, &[]) },
        ];
        sender.copies()
    };
    assert_eq!(sender().copies(), 1, "to nobody");
    let said: Vec<u8> = [0, 29, 30, 149, 150, 1_000].into_iter().map(copies).collect();
    assert_eq!(said, [1, 1, 2, 2, 3, 3]);
}

#[test]
fn the_loss_is_what_is_lacking_of_what_was_sent_whole() {
    let mut sender = sender();
    let busy = Wants { readiness: Readiness::Busy, ..target(0, Shape::Small, &[9, 9]).wants };
    sender.targets = vec![
        target(0, Shape::Small, &[13, 3]),
        Target { has_answered: false, ..target(1, Shape::Small, &[13]) },
        Target { wants: busy, ..target(2, Shape::Small, &[13]) },
    ];
    let losses = |sender: &Sender| -> Vec<u16> {
        sender.targets.iter().map(|target| target.loss_permille).collect()
    };
    sender.note_loss();
    assert_eq!(losses(&sender), [0, 0, 0], "nothing was sent whole");
    sender.whole = vec![0, 1];
    sender.note_loss();
    assert_eq!(losses(&sender), [16_000 / 256, 0, 0], "who has not said so, or could not hear");
    // The last generation has 12 blocks: too few to tell.
    sender.targets[0].wants.lacking = Lacking::of([0, 0, 12]);
    sender.whole = vec![2];
    sender.note_loss();
    assert_eq!(losses(&sender), [62, 0, 0]);
}

#[test]
fn a_share_of_the_repair_frames_that_did_not_help_was_lost() {
    let mut sender = sender();
    let (before, after) = (target(0, Shape::Small, &[20]), target(0, Shape::Small, &[5]));
    let estimate = |sender: &Sender, after: &Target| sender.loss_of_repairs(&before, after);
    sender.repairs_sent = 20;
    assert_eq!(estimate(&sender, &after), None, "nobody was asked");
    let until = Instant::from_ms(0);
    sender.state = State::Mending { generation: 0, until, bursts: 1, more: 0 };
    assert_eq!(estimate(&sender, &after), Some(250), "15 of 20 helped");
    assert_eq!(estimate(&sender, &target(0, Shape::Small, &[0])), None, "they were enough");
    assert_eq!(estimate(&sender, &target(0, Shape::Small, &[20])), Some(1_000));
    sender.repairs_sent = 15;
    assert_eq!(estimate(&sender, &after), None, "too few to tell");
    sender.repairs_sent = 16;
    assert_eq!(estimate(&sender, &after), Some(62));
}

#[test]
fn somebody_lacks_something_if_one_that_answered_and_takes_blocks_says_so() {
    let lacks = |target: Target| {
        let mut sender = sender();
        sender.targets = vec![target];
        sender.answered_lack_something()
    };
    assert!(lacks(target(0, Shape::Small, &[0, 1])));
    assert!(!lacks(target(0, Shape::Small, &[0, 0])));
    assert!(!lacks(Target { has_answered: false, ..target(0, Shape::Small, &[1]) }));
    let busy = Wants { readiness: Readiness::Busy, ..target(0, Shape::Small, &[1]).wants };
    assert!(!lacks(Target { wants: busy, ..target(0, Shape::Small, &[1]) }));
}

#[test]
fn who_hears_a_head_and_is_silent_has_got_it() {
    let presumed = |unanswered, readiness, has_answered| {
        let mut sender = sender();
        let wants = Wants { readiness, ..target(0, Shape::Small, &[]).wants };
        let silent = target(0, Shape::Small, &[]);
        sender.targets = vec![Target { wants, unanswered, has_answered, ..silent }];
        sender.presume_busy(Instant::from_ms(5));
        sender.targets[0].wants.readiness == Readiness::Busy
    };
    assert!(presumed(3, Readiness::Head, false) && presumed(4, Readiness::Head, false));
    assert!(!presumed(2, Readiness::Head, false));
    assert!(!presumed(3, Readiness::Head, true));
    assert!(!presumed(3, Readiness::Open, false));
}
