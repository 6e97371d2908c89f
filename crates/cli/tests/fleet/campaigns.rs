//! Campaigns from their beginning to what the devices run, with everything ended in the middle.

use lockstep_sim::firmware::Fault;

use super::desk::{Desk, Image, Receiver, Transmitter, firmware};
use super::server::Fleet;

#[test]
fn an_enrolled_pair_is_brought_to_the_release_of_a_campaign() {
    let fleet = Fleet::new();
    let desk = fleet.pair();
    let images = fleet.publish(&desk, "1.1.0");
    let id = fleet.campaign("1.1.0");
    fleet.operator(&format!("campaign watch {id} --limit 60s")).succeeds().says("1 kept");
    desk.assert_runs(&images);
    let group = fleet.wait(&desk, "the server knows", || {
        Some(fleet.group()).filter(|group| group["version"] == "1.1.0")
    });
    assert_eq!(group["name"], "bench");
    fleet.operator("group show bench").succeeds().says("receiver (lead)").says("keep");
    fleet.operator("audit").succeeds().says("campaign.make").says("group.enrol");
}

/// The server judges nothing: the group went back by itself, and is whole.
#[test]
fn a_release_that_never_gets_healthy_pauses_its_campaign_and_a_retry_goes_on() {
    let fleet = Fleet::new();
    let desk = fleet.pair();
    let receiver = firmware(Receiver, "1.1.0").make();
    let sick = firmware(Transmitter, "1.1.0").fault(Fault::NeverHealthy).make();
    let options = "--key a.key --health-timeout 2";
    let bundle = desk.release_with("1.1.0", &[&sick, &receiver], options);
    fleet.publish_bundle(&desk, &bundle);
    let id = fleet.campaign("1.1.0");
    let watched = fleet.operator(&format!("campaign watch {id} --limit 60s"));
    watched.fails().says("1 group failed, allowed are 0").says("not-healthy");
    desk.assert_runs(&desk.first);
    assert_eq!(desk.history().len(), 1, "it was tried once: {:?}", desk.history());

    fleet.operator(&format!("campaign resume {id}")).fails().says("it would pause again");
    fleet.operator(&format!("campaign retry {id}")).succeeds().says("gets another chance");
    fleet.operator(&format!("campaign resume {id}")).succeeds();
    fleet.wait_standing(&desk, &id, "failed");
    desk.assert_runs(&desk.first);
    assert_eq!(desk.history().len(), 2);
    fleet.operator(&format!("campaign abort {id}")).succeeds();
}

/// Large, over a bad radio: it takes so long that something can happen in the middle.
fn slow_release(fleet: &Fleet, desk: &mut Desk) -> [Image; 2] {
    let transmitter = firmware(Transmitter, "1.1.0").size(1_900_000).make();
    let receiver = firmware(Receiver, "1.1.0").size(1_900_000).make();
    let bundle = desk.release("1.1.0", &[&transmitter, &receiver]);
    fleet.publish_bundle(desk, &bundle);
    desk.board_mut(Receiver).order("impair loss=60");
    [receiver, transmitter]
}

fn wait_fetching(desk: &Desk) -> String {
    desk.wait("bytes are in flash", || {
        let rollout = desk.rollout()?;
        let staged = rollout["members"][1]["staged_bytes"].as_u64()?;
        (staged > 0).then(|| rollout["id"].as_str().unwrap().to_owned())
    })
}

#[test]
fn a_server_killed_while_a_lead_fetches_goes_on_with_its_campaign() {
    let mut fleet = Fleet::new();
    let mut desk = fleet.pair();
    let images = slow_release(&fleet, &mut desk);
    let id = fleet.campaign("1.1.0");
    let watch = fleet.begin("watch", &format!("campaign watch {id} --limit 80s"));
    fleet.wait(&desk, "somebody watches", || watch.printed().contains("wave 1").then_some(()));
    let rollout = wait_fetching(&desk);
    fleet.kill();
    fleet.operator("group list").fails().says("does not answer");
    desk.board_mut(Receiver).order("impair none");
    fleet.switch_on();
    desk.assert_runs(&images);
    watch.end().succeeds().says("1 kept");
    let history = desk.history();
    assert_eq!((history.len(), &history[0]["rollout"]), (1, &rollout.into()));
}

/// What the lead had before is still there when it comes back, and is not fetched again.
#[test]
fn a_server_and_a_lead_killed_in_the_middle_of_a_bundle_go_on_from_where_the_lead_is() {
    let mut fleet = Fleet::new();
    let mut desk = fleet.pair();
    let images = slow_release(&fleet, &mut desk);
    let id = fleet.campaign("1.1.0");
    let rollout = wait_fetching(&desk);
    desk.board_mut(Receiver).kill();
    fleet.kill();
    desk.board_mut(Receiver).switch_on();
    let waiting = desk.wait("the lead knows where it goes on", || {
        desk.rollout().filter(|rollout| rollout["upload"]["next_offset"].as_u64() > Some(0))
    });
    assert_eq!(waiting["id"], rollout, "it is one rollout all the time");
    fleet.switch_on();
    desk.assert_runs(&images);
    fleet.wait_standing(&desk, &id, "kept");
    assert_eq!(desk.history().len(), 1);
}

/// From the moment on in which it has the release, the group needs nobody.
#[test]
fn a_server_killed_in_a_trial_hears_afterwards_how_it_ended() {
    let mut fleet = Fleet::new();
    let mut desk = fleet.pair();
    let images = fleet.publish(&desk, "1.1.0");
    let mark = desk.board(Receiver).mark();
    desk.board_mut(Transmitter).order("impair delay=300");
    let id = fleet.campaign("1.1.0");
    desk.board(Receiver).wait_entered(mark, "trial");
    fleet.kill();
    desk.board_mut(Transmitter).order("impair none");
    desk.assert_runs(&images);
    fleet.switch_on();
    fleet.wait_standing(&desk, &id, "kept");
    fleet.wait(&desk, "the campaign is done", || (fleet.standing(&id).1 == "done").then_some(()));
    assert_eq!(desk.history().len(), 1);
}

#[test]
fn a_lead_killed_while_it_fetches_goes_on_with_the_same_rollout() {
    let fleet = Fleet::new();
    let mut desk = fleet.pair();
    let images = slow_release(&fleet, &mut desk);
    let id = fleet.campaign("1.1.0");
    let rollout = wait_fetching(&desk);
    desk.board_mut(Receiver).kill();
    let mark = desk.board(Receiver).mark();
    desk.board_mut(Receiver).switch_on();
    desk.board(Receiver).wait_line(mark, "it fetches on", |line| {
        line["text"].as_str().is_some_and(|text| text.contains("fetches release 1.1.0"))
    });
    desk.assert_runs(&images);
    fleet.wait_standing(&desk, &id, "kept");
    let history = desk.history();
    assert_eq!((history.len(), &history[0]["rollout"]), (1, &rollout.into()));
}

/// Both name the same group: one campaign has it, and the other operator is told which.
#[test]
fn of_two_operators_at_once_one_has_the_group_and_the_other_is_told() {
    let fleet = Fleet::new();
    let desk = fleet.pair();
    fleet.publish(&desk, "1.1.0");
    for turn in 0..3 {
        // Nobody begins while they argue.
        let create = "campaign create 1.1.0 --not-before 2999-01-01T00:00:00Z --name";
        let both = ["one", "two"].map(|who| fleet.begin(who, &format!("{create} {who}-{turn}")));
        let said = both.map(super::server::Background::end);
        let mut codes = said.each_ref().map(|said| said.code);
        codes.sort();
        assert_eq!(codes, [Some(0), Some(1)], "{said:?}");
        let refused = said.iter().find(|said| said.code == Some(1)).unwrap();
        refused.fails().says("group `bench` is in the campaign");
        let lively = fleet.json("campaign list")["campaigns"][0]["id"].take();
        let id = lively.as_str().unwrap();
        fleet.operator(&format!("campaign abort {id}")).succeeds();
        // To end what is over is no other thing than to find it ended.
        assert_eq!(fleet.standing(id).1, "aborted");
    }
    desk.assert_runs(&desk.first);
}
