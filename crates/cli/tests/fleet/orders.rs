//! What a person orders of a group, by way of the server and on the device itself.

use super::desk::Receiver;
use super::server::Fleet;

#[test]
fn a_group_that_is_to_ask_first_waits_for_a_persons_word() {
    let fleet = Fleet::new();
    let desk = fleet.pair();
    let before = desk.seen();
    fleet.operator("group mode bench notify").succeeds().says("notify");
    let images = fleet.publish(&desk, "1.1.0");
    let id = fleet.campaign("1.1.0");
    fleet.wait(&desk, "the lead says that it waits", || {
        let shown = fleet.json("group show bench");
        let answer = shown["group"]["offer_answer"].as_str()?;
        answer.contains("waits for a person").then_some(())
    });
    assert_eq!(fleet.standing(&id).0, "offered");
    desk.assert_untouched(&before);
    assert!(desk.rollout().is_none());

    let answer = desk.lead().post("/api/server/install", &[]);
    assert!((200..300).contains(&answer.status), "{}", answer.json);
    desk.assert_runs(&images);
    fleet.wait_standing(&desk, &id, "kept");
    // There is nothing to say yes to any more.
    let again = desk.lead().post("/api/server/install", &[]);
    assert_eq!(again.status, 409, "{}", again.json);
}

/// Going back twice would be going forward.
#[test]
fn an_order_to_revert_is_carried_out_once_even_if_the_lead_loses_power_in_the_middle() {
    let fleet = Fleet::new();
    let mut desk = fleet.pair();
    let images = fleet.publish(&desk, "1.1.0");
    let id = fleet.campaign("1.1.0");
    desk.assert_runs(&images);
    fleet.wait_standing(&desk, &id, "kept");

    let mark = desk.board(Receiver).mark();
    fleet.operator("group revert bench").succeeds().says("take its last release back");
    desk.board(Receiver).wait_entered(mark, "trial");
    desk.board_mut(Receiver).kill();
    let mark = desk.board(Receiver).mark();
    desk.board_mut(Receiver).switch_on();
    desk.wait_settled();
    desk.assert_runs(&desk.first);
    fleet.wait(&desk, "the server knows", || (fleet.group()["version"] == "1.0.0").then_some(()));
    // The server said the order until it was answered, and nothing came of that.
    let kinds: Vec<_> = desk.history().iter().map(|it| it["kind"].clone()).collect();
    assert_eq!(kinds, ["back", "forward"], "{}", desk.consoles());
    let orders = desk.board(Receiver).lines_since(mark);
    let entered = orders.iter().filter(|line| line["phase"] == "preflight").count();
    assert_eq!(entered, 0, "no other rollout was begun");
}

#[test]
fn a_wave_is_taken_back_and_its_campaign_pauses() {
    let fleet = Fleet::new();
    let desk = fleet.pair();
    let images = fleet.publish(&desk, "1.1.0");
    let id = fleet.campaign("1.1.0 --soak 1h");
    desk.assert_runs(&images);
    fleet.wait_standing(&desk, &id, "kept");
    fleet.operator(&format!("campaign revert {id} 2")).fails().says("there is no wave `2`");
    fleet.operator(&format!("campaign revert {id} 1")).succeeds();
    desk.assert_runs(&desk.first);
    assert_eq!(fleet.standing(&id).1, "paused");
}
