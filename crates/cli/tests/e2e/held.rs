//! Rollouts that wait, and what a person does with one device: its configuration, its password.

use super::desk::{Desk, Plan, Receiver, Transmitter};

#[test]
fn a_rollout_that_is_held_waits_until_it_is_told_and_loses_its_schedule_with_the_power() {
    let mut desk = Plan::default().with(Receiver, "--no-clock").start();
    let (new, bundle) = desk.good_release("1.1.0", "");
    desk.update(&format!("{bundle} --hold")).succeeds().says("waits once all have staged");
    desk.wait("both have staged", || {
        let rollout = desk.rollout()?;
        let members = rollout["members"].as_array()?;
        members.iter().all(|member| member["state"] == "staged").then_some(())
    });
    desk.ask_lead("schedule --in 1h").succeeds().says("goes on in 1h");
    desk.ask_lead("status").succeeds().says("goes on in");

    desk.board_mut(Receiver).kill();
    desk.board_mut(Receiver).switch_on();
    assert_eq!(desk.wait_phase("staging")["schedule_lost"], true);
    desk.ask_lead("status").succeeds().says("a restart of the lead has lost its schedule");

    desk.ask_lead("schedule --now").succeeds().says("goes on as soon as all have staged");
    assert_eq!(desk.wait_settled()["verdict"], "keep");
    desk.assert_runs(&new);
    desk.ask_lead("schedule --now").fails().says("no rollout is running that could wait");
}

#[test]
fn a_schedule_survives_a_restart_of_a_lead_that_knows_the_time() {
    let mut desk = Desk::new();
    let (new, bundle) = desk.good_release("1.1.0", "");
    desk.update(&format!("{bundle} --hold")).succeeds();
    desk.ask_lead("schedule --in 1h").succeeds();
    desk.board_mut(Receiver).kill();
    desk.board_mut(Receiver).switch_on();
    let left = desk.wait("the moment is known again", || desk.rollout()?["starts_in_s"].as_u64());
    assert!((3_500..=3_600).contains(&left), "{left} s are left of an hour");
    desk.ask_lead("schedule --in 3s").succeeds();
    desk.board_mut(Receiver).kill();
    desk.board_mut(Receiver).switch_on();
    assert_eq!(desk.wait_settled()["verdict"], "keep");
    desk.assert_runs(&new);
}

#[test]
fn a_rollout_that_is_held_can_be_stopped() {
    let desk = Desk::new();
    let (_, bundle) = desk.good_release("1.1.0", "");
    desk.update(&format!("{bundle} --hold")).succeeds();
    desk.ask_lead("abort").succeeds();
    assert_eq!(desk.wait_settled()["cause"]["code"], "aborted");
    desk.assert_runs(&desk.first);
}

/// The new firmware begins with what the old one had; going back finds what that had.
#[test]
fn a_configuration_is_saved_put_back_and_goes_with_the_image() {
    let desk = Desk::new();
    let (_, bundle) = desk.good_release("1.1.0", "");
    desk.ask_lead("config backup").succeeds().says("{}");
    desk.write("old.json", br#"{"send_every_ms":200,"wifi_password":"s3cret"}"#);
    desk.ask_lead("config restore old.json").succeeds();
    let shown = desk.ask_lead("config backup");
    shown.succeeds().says("200");
    assert!(!shown.text.contains("s3cret"), "{}", shown.text);
    desk.ask_lead("config backup --secrets -o all.json").succeeds();
    assert!(String::from_utf8(desk.read("all.json")).unwrap().contains("s3cret"));

    desk.update(&bundle).succeeds();
    desk.ask_lead("config backup --secrets").succeeds().says("s3cret");
    desk.write("new.json", br#"{"send_every_ms":300}"#);
    desk.ask_lead("config restore new.json").succeeds();
    desk.write("bad.json", br#"{"send_every_ms":3}"#);
    desk.ask_lead("config restore bad.json").fails().says("allowed is a number from 50 to 60000");
    desk.ask_lead("config backup").succeeds().says("300");

    desk.ask_lead("revert").succeeds();
    desk.ask_lead("config backup").succeeds().says("200");
}

#[test]
fn a_changed_password_is_the_only_one_that_counts() {
    let desk = Desk::new();
    desk.write("next.password", b"staple battery\n");
    desk.ask_lead("password --new-password-file next.password").succeeds();
    desk.ask_lead("abort").fails().says("does not take this password");
    desk.write("password", b"staple battery\n");
    desk.ask_lead("abort").fails().says("no rollout is running");
}

#[test]
fn a_report_holds_what_a_device_says_of_itself_and_no_secrets() {
    let desk = Desk::new();
    desk.write("config.json", br#"{"name":"desk","mqtt_password":"s3cret"}"#);
    desk.ask_lead("config restore config.json").succeeds();
    desk.ask_lead("report -o report.json").succeeds().says("report.json");
    desk.ask_lead("report -o report.json").fails().says("report.json");
    let text = String::from_utf8(desk.read("report.json")).unwrap();
    assert!(!text.contains("s3cret"), "{text}");
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let answers = &report["answers"];
    assert_eq!(answers["version"]["role"], "receiver");
    assert_eq!(answers["health"]["status"], "healthy");
    assert_eq!(answers["config"]["name"], "desk");
    assert_eq!(answers["group"]["members"].as_array().unwrap().len(), 2);
    assert!(!answers["logs"]["logs"].as_array().unwrap().is_empty());

    let address = desk.board(Transmitter).address();
    desk.lockstep(&format!("report --device {address} -o member.json")).succeeds();
    let text = String::from_utf8(desk.read("member.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["answers"]["rollout"], serde_json::Value::Null, "it conducts nothing");
    desk.lockstep("report --device 127.0.0.1:1 -o none.json").fails();
    assert!(!desk.path("none.json").exists());
}
