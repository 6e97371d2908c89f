//! Adoption: a device that does not have the group's key gets it over the air, from somebody who
//! knows its password; and who does not, does not.

mod group;

use std::cell::RefCell;
use std::rc::Rc;

use embedded_storage::nor_flash::NorFlash as _;
use group::{LEAD, TestGroup, images, pair_bundle};
use lockstep_agent::Layout;
use lockstep_device::adopt::AdoptFailure;
use lockstep_device::setup::Duty;
use lockstep_device::{AdoptError, AdoptionView, Node};
use lockstep_proto::frame::adopt::{ADOPT, AdoptFrame, AdoptMessage, NotAdopted};
use lockstep_proto::frame::control::GroupKey;
use lockstep_proto::id::DeviceId;
use lockstep_rollout::{Phase, Verdict};

const NEW: usize = 2;
const PASSWORD: &str = "correct horse battery";

/// A pair, and a transmitter that was given no key, with a password.
fn pair_and_new() -> TestGroup {
    let mut group = TestGroup::of(&["receiver", "transmitter", "transmitter"]);
    group.boards[NEW].key = None;
    group.run_ms(3_000);
    set_password(&mut group, NEW);
    group
}

fn set_password(group: &mut TestGroup, board: usize) {
    let board = &mut group.boards[board];
    let node = board.node.as_mut().expect("it is on");
    assert!(node.set_password(PASSWORD, [3; 16], &mut board.flash));
}

fn id_of(group: &TestGroup, board: usize) -> DeviceId {
    group.boards[board].id
}

fn adopt(group: &mut TestGroup, password: &str) -> Result<(), AdoptError> {
    let now = group.boards[LEAD].uptime(group.now);
    let id = id_of(group, NEW);
    group.lead().adopt(now, id, password)
}

fn end(group: &mut TestGroup) -> AdoptionView {
    let over = |group: &TestGroup| {
        let adoption = group.boards[LEAD].node.as_ref().and_then(Node::adoption);
        adoption.is_some_and(|it| matches!(it.stage, "adopted" | "failed"))
    };
    assert!(group.run_until(15_000, over), "{}", group.log());
    group.lead().adoption().unwrap()
}

fn failure(group: &mut TestGroup, password: &str) -> AdoptFailure {
    adopt(group, password).unwrap();
    end(group).failure.expect("it fails")
}

fn is_member(group: &mut TestGroup, board: usize) -> bool {
    let id = id_of(group, board);
    group.lead().members().iter().any(|(member, _)| *member == id)
}

fn strangers(group: &mut TestGroup) -> Vec<DeviceId> {
    let now = group.boards[LEAD].uptime(group.now);
    group.lead().strangers(now).map(|peer| peer.id).collect()
}

#[test]
fn a_stranger_is_seen_adopted_and_brought_along_by_the_next_rollout() {
    let mut group = pair_and_new();
    assert_eq!(strangers(&mut group), [id_of(&group, NEW)]);
    assert!(!is_member(&mut group, NEW));

    adopt(&mut group, PASSWORD).unwrap();
    let adopted = end(&mut group);
    assert_eq!((adopted.stage, adopted.failure), ("adopted", None), "{}", group.log());
    group.run_ms(1_000);
    assert!(is_member(&mut group, NEW) && strangers(&mut group).is_empty());

    let (receiver, transmitter) = images("1.1.0");
    group.upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
    group.assert_running(&[&receiver, &transmitter, &transmitter]);
}

#[test]
fn what_was_taken_survives_power_loss_until_another_key_is_given_at_start() {
    let mut group = pair_and_new();
    adopt(&mut group, PASSWORD).unwrap();
    end(&mut group);
    group.cut_power(NEW, 100);
    group.run_ms(3_000);
    let key = |group: &TestGroup| group.boards[NEW].node.as_ref().unwrap().group_key().clone();
    assert_eq!(Some(key(&group)), group.boards[LEAD].key);

    let given = GroupKey::new([78; 32]);
    group.boards[NEW].key = Some(given.clone());
    group.cut_power(NEW, 100);
    group.run_ms(3_000);
    assert_eq!(key(&group), given);
}

/// Somebody erased the board, or put another one in its place with the same address: its key, its
/// password and the number of its boots are gone.
#[test]
fn a_member_that_was_flashed_anew_is_seen_and_adopted_again() {
    let mut group = pair_and_new();
    adopt(&mut group, PASSWORD).unwrap();
    end(&mut group);
    group.cut_power(NEW, 100);
    group.run_ms(3_000);
    assert!(is_member(&mut group, NEW) && strangers(&mut group).is_empty());

    group.switch_off(NEW);
    let board = &mut group.boards[NEW];
    let record = Layout::find(&mut board.flash).unwrap().record();
    board.flash.erase(record.offset, record.end()).unwrap();
    group.cut_power(NEW, 100);
    group.run_ms(40_000);
    assert_eq!(strangers(&mut group), [id_of(&group, NEW)], "{}", group.log());
    set_password(&mut group, NEW);
    adopt(&mut group, PASSWORD).unwrap();
    assert_eq!(end(&mut group).stage, "adopted", "{}", group.log());
    group.run_ms(3_000);
    assert!(strangers(&mut group).is_empty());

    let (receiver, transmitter) = images("1.1.0");
    group.upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
    assert_eq!(group.settle(), Verdict::Keep, "{}", group.log());
    group.assert_running(&[&receiver, &transmitter, &transmitter]);
}

/// The frame that says so may get lost, or the power may go before it: the key counts.
#[test]
fn a_device_that_took_the_key_and_could_not_say_so_is_a_member() {
    let mut group = pair_and_new();
    group.air = Box::new(|_, _, bytes| {
        let taken = AdoptFrame::decode(bytes);
        !taken.is_ok_and(|frame| matches!(frame.message, AdoptMessage::Taken { .. }))
    });
    adopt(&mut group, PASSWORD).unwrap();
    assert_eq!(end(&mut group).stage, "adopted", "{}", group.log());
    assert!(is_member(&mut group, NEW));
}

#[test]
fn frames_of_an_adoption_may_be_lost() {
    let mut group = pair_and_new();
    let mut count = 0;
    group.air = Box::new(move |_, to, bytes| {
        let is_for_it = AdoptFrame::decode(bytes).is_ok_and(|frame| frame.to == to);
        count += u32::from(is_for_it);
        !is_for_it || count % 4 < 2
    });
    adopt(&mut group, PASSWORD).unwrap();
    assert_eq!(end(&mut group).stage, "adopted", "{}", group.log());
}

#[test]
fn a_wrong_password_gives_nothing_away_and_too_many_of_them_end_it() {
    let mut group = pair_and_new();
    for _ in 0..10 {
        let why = failure(&mut group, "wrong");
        assert_eq!(why, AdoptFailure::Refused(NotAdopted::WrongPassword), "{}", group.log());
    }
    let why = failure(&mut group, PASSWORD);
    assert_eq!(why, AdoptFailure::Refused(NotAdopted::TooManyTries));
    assert!(!is_member(&mut group, NEW));
    // The way out is to switch it off and on.
    group.cut_power(NEW, 100);
    group.run_ms(1_000);
    adopt(&mut group, PASSWORD).unwrap();
    assert_eq!(end(&mut group).stage, "adopted");
}

#[test]
fn who_has_no_password_or_leads_is_not_adopted() {
    let mut group = TestGroup::of(&["receiver", "transmitter", "transmitter"]);
    group.boards[NEW].key = None;
    group.run_ms(3_000);
    let why = failure(&mut group, PASSWORD);
    assert_eq!(why, AdoptFailure::Refused(NotAdopted::NoPassword));

    set_password(&mut group, NEW);
    group.boards[NEW].duty = Duty::Lead;
    group.cut_power(NEW, 100);
    group.run_ms(1_000);
    let why = failure(&mut group, PASSWORD);
    assert_eq!(why, AdoptFailure::Refused(NotAdopted::Leads));
}

/// Its lead could not bring its own rollout to an end any more.
#[test]
fn a_device_with_an_open_rollout_is_not_adopted_by_another_group() {
    let mut group = pair_and_new();
    set_password(&mut group, 1);
    let answers: Rc<RefCell<Vec<AdoptMessage>>> = Rc::default();
    let ears = Rc::clone(&answers);
    group.air = Box::new(move |_, _, bytes| {
        ears.borrow_mut().extend(AdoptFrame::decode(bytes).map(|frame| frame.message));
        true
    });
    let (from, to) = (id_of(&group, LEAD), id_of(&group, 1));
    let ask = AdoptFrame { from, to, session: 7, message: AdoptMessage::Ask };
    let mut bytes = [0; 64];
    let len = ask.encode(&mut bytes).unwrap();
    let (receiver, transmitter) = images("1.1.0");
    group.begin_upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
    assert!(group.run_until(5_000, |group| group.phase() == Some(Phase::Staging)));
    group.run_ms(100);
    group.inject(1, from, &bytes[..len]);
    group.run_ms(100);
    let refused = AdoptMessage::Refused(NotAdopted::InRollout);
    assert!(answers.borrow().contains(&refused), "{:?}", answers.borrow());
}

#[test]
fn an_adoption_does_not_begin_where_it_cannot_end_well() {
    let mut group = pair_and_new();
    let now = group.boards[LEAD].uptime(group.now);
    let (me, member) = (id_of(&group, LEAD), id_of(&group, 1));
    let nobody = DeviceId([2, 0, 0, 0, 0, 99]);
    assert_eq!(group.lead().adopt(now, me, PASSWORD), Err(AdoptError::AMember(me)));
    assert_eq!(group.lead().adopt(now, member, PASSWORD), Err(AdoptError::AMember(member)));
    let node = group.boards[1].node.as_mut().unwrap();
    assert_eq!(node.adopt(now, nobody, PASSWORD), Err(AdoptError::NotTheLead));

    adopt(&mut group, PASSWORD).unwrap();
    let new = id_of(&group, NEW);
    assert_eq!(adopt(&mut group, PASSWORD), Err(AdoptError::Busy(new)));
    end(&mut group);

    // Members of an open rollout are fixed.
    let (receiver, transmitter) = images("1.1.0");
    group.begin_upload(&pair_bundle("1.1.0", &receiver, &transmitter)).unwrap();
    assert!(group.run_until(5_000, |group| group.phase().is_some()));
    let other = DeviceId([2, 0, 0, 0, 0, 50]);
    let error = group.lead().adopt(now, other, PASSWORD);
    assert!(matches!(error, Err(AdoptError::InRollout(_))), "{error:?}");
}

/// Who sent it, and what.
type Heard = (DeviceId, Vec<u8>);

/// What somebody recorded, said again to the device or to the lead, changes nothing.
#[test]
fn an_adoption_that_was_recorded_is_worth_nothing() {
    let mut group = pair_and_new();
    let heard: Rc<RefCell<Vec<Heard>>> = Rc::default();
    let ears = Rc::clone(&heard);
    group.air = Box::new(move |from, _, bytes| {
        if bytes.first() == Some(&ADOPT) {
            ears.borrow_mut().push((from, bytes.to_vec()));
        }
        true
    });
    adopt(&mut group, PASSWORD).unwrap();
    end(&mut group);
    let key = |group: &TestGroup| group.boards[NEW].node.as_ref().unwrap().group_key().clone();
    let adopted = key(&group);
    // It gets another key by cable, and somebody plays the old frames to it.
    group.boards[NEW].key = Some(GroupKey::new([78; 32]));
    group.cut_power(NEW, 100);
    group.run_ms(1_000);
    for (from, bytes) in heard.take() {
        group.inject(NEW, from, &bytes);
        group.run_ms(600);
    }
    assert_ne!(key(&group), adopted);
}

#[test]
fn silence_ends_an_adoption() {
    let mut group = pair_and_new();
    group.air = Box::new(|_, _, bytes| bytes.first() != Some(&ADOPT));
    assert_eq!(failure(&mut group, PASSWORD), AdoptFailure::Silent);
    assert_eq!(
        AdoptFailure::Silent.to_string(),
        "it did not answer within 10 s",
        "what a person reads"
    );
}
