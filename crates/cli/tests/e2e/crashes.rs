//! Power cuts: either device, or both, in every phase. Whatever the moment, the group ends whole on
//! one release, and it is the one that the verdict names.
//!
//! A slow radio makes each phase long enough to hit, and that it was hit is asserted: a power cut
//! that came too late would prove nothing.

use lockstep_sim::firmware::Fault;

use super::desk::{BOTH, Desk, Receiver, Role, Running, Transmitter, firmware};

/// When the power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Preflight,
    Staging,
    Rest,
    Trial,
    Settling,
    Settled,
}

use Moment::{Preflight, Rest, Settled, Settling, Staging, Trial};

impl Moment {
    const fn phase(self) -> &'static str {
        match self {
            Preflight => "preflight",
            Staging => "staging",
            Rest => "rest",
            Trial => "trial",
            Settling => "settling",
            Settled => "settled",
        }
    }
}

/// Cuts the power of `who` in the middle of a good update, switches it on again, and returns the
/// verdict; `None` if there was no rollout in the end.
fn cut(moment: Moment, who: &[Role]) -> Option<String> {
    let mut desk = Desk::new();
    let receiver = firmware(Receiver, "1.1.0").make();
    let transmitter = firmware(Transmitter, "1.1.0").size(256 * 1024).make();
    // One boot after the other makes a trial long.
    let options = "--key a.key --order transmitter,receiver --reboot-delay 1";
    let bundle = desk.release_with("1.1.0", &[&transmitter, &receiver], options);
    let images = [receiver, transmitter];
    let update = begin_until(&mut desk, moment, &bundle);
    for &role in who {
        desk.board_mut(role).kill();
    }
    let last = desk.board(Receiver).last_phase();
    let expected = (moment != Preflight).then(|| moment.phase().to_owned());
    assert_eq!(last, expected, "the power was cut too late");
    for role in BOTH {
        match who.contains(&role) {
            true => desk.board_mut(role).switch_on(),
            false => desk.board_mut(role).order("impair none"),
        }
    }
    let said = update.end();
    let runs = desk.wait_whole(&[&desk.first, &images]);
    let history = desk.history();
    let Some(newest) = history.first() else {
        assert_eq!((runs, said.code), (0, Some(1)), "{}", said.text);
        return None;
    };
    let verdict = newest["verdict"].as_str().unwrap().to_owned();
    assert_eq!(runs, usize::from(verdict == "keep"), "{newest}\n{}", desk.consoles());
    assert_eq!(said.code, Some(i32::from(verdict != "keep")), "{}", said.text);
    // Whatever became of it, the way on is open.
    let (images, bundle) = desk.good_release("1.2.0", "");
    desk.wait_until_linked();
    desk.update(&bundle).succeeds();
    desk.assert_runs(&images);
    Some(verdict)
}

/// Begins an update, and comes back in the middle of that moment, which a slow radio makes long.
fn begin_until(desk: &mut Desk, moment: Moment, bundle: &str) -> Running {
    let mark = desk.board(Receiver).mark();
    let slow = format!("impair delay={DELAY_MS}");
    if moment == Preflight {
        desk.board_mut(Transmitter).order(&slow);
    }
    let update = desk.begin_update(bundle);
    let lead = desk.board(Receiver);
    match moment {
        // It begins without a word.
        Preflight => drop(desk.wait_phase("preflight")),
        Staging => desk.wait("bytes are in flash", || {
            let staged = desk.rollout()?["members"][1]["staged_bytes"].as_u64()?;
            (staged > 0).then_some(())
        }),
        Rest => drop(lead.wait_line(mark, "the transmitter has staged", |line| {
            line["kind"] == "staged" && line["member_role"] == "transmitter"
        })),
        Settling => lead.wait_entered(mark, "trial"),
        Trial | Settled => (),
    }
    if matches!(moment, Rest | Settling) {
        desk.board_mut(Transmitter).order(&slow);
    }
    if moment != Preflight {
        desk.board(Receiver).wait_entered(mark, moment.phase());
    }
    update
}

fn keep() -> Option<String> {
    Some("keep".to_owned())
}

/// Nothing is durable in preflight: the command begins anew when the lead is back.
#[test]
fn a_receiver_cut_in_preflight_is_asked_anew() {
    assert_eq!(cut(Preflight, &[Receiver]), keep());
}

#[test]
fn a_receiver_cut_in_staging_goes_on_with_the_upload() {
    assert_eq!(cut(Staging, &[Receiver]), keep());
}

#[test]
fn a_receiver_cut_at_rest_goes_on_from_its_record() {
    assert_eq!(cut(Rest, &[Receiver]), keep());
}

/// The lead has not activated its own image yet: it comes back to a transmitter on trial.
#[test]
fn a_receiver_cut_in_trial_ends_on_one_release() {
    assert!(cut(Trial, &[Receiver]).is_some());
}

/// The verdict is durable before anybody is told.
#[test]
fn a_receiver_cut_in_settling_carries_out_its_verdict() {
    assert_eq!(cut(Settling, &[Receiver]), keep());
}

#[test]
fn a_receiver_cut_when_all_is_settled_stays_on_the_release() {
    assert_eq!(cut(Settled, &[Receiver]), keep());
}

/// Inspect is said again until it is answered.
#[test]
fn a_transmitter_cut_in_preflight_ends_on_one_release() {
    cut(Preflight, &[Transmitter]);
}

#[test]
fn a_transmitter_cut_in_staging_goes_on_where_it_was() {
    assert_eq!(cut(Staging, &[Transmitter]), keep());
}

#[test]
fn a_transmitter_cut_at_rest_ends_on_one_release() {
    assert!(cut(Rest, &[Transmitter]).is_some());
}

/// The transmitter has the first turn: a cut before its boot loses nothing, one after it reverts.
#[test]
fn a_transmitter_cut_in_trial_ends_on_one_release() {
    assert!(cut(Trial, &[Transmitter]).is_some());
}

/// A reset on trial falls back even after the verdict `keep`: it is activated again, from its slot.
#[test]
fn a_transmitter_cut_in_settling_is_activated_again() {
    assert_eq!(cut(Settling, &[Transmitter]), keep());
}

#[test]
fn a_transmitter_cut_when_all_is_settled_stays_on_the_release() {
    assert_eq!(cut(Settled, &[Transmitter]), keep());
}

#[test]
fn both_cut_in_preflight_are_asked_anew() {
    assert_eq!(cut(Preflight, &BOTH), keep());
}

#[test]
fn both_cut_in_staging_go_on_where_they_were() {
    assert_eq!(cut(Staging, &BOTH), keep());
}

#[test]
fn both_cut_at_rest_end_on_one_release() {
    assert!(cut(Rest, &BOTH).is_some());
}

#[test]
fn both_cut_in_trial_end_on_one_release() {
    assert!(cut(Trial, &BOTH).is_some());
}

/// The bootloaders of both take their images back, and the verdict brings them forward again.
#[test]
fn both_cut_in_settling_are_activated_again() {
    assert_eq!(cut(Settling, &BOTH), keep());
}

#[test]
fn both_cut_when_all_is_settled_stay_on_the_release() {
    assert_eq!(cut(Settled, &BOTH), keep());
}

/// The one boot of a trial is spent by any reset, power dips included (L7): the device is back on
/// its old image, and all go back with it.
#[test]
fn l7_a_power_dip_on_trial_takes_everybody_back() {
    for who in BOTH {
        let mut desk = Desk::new();
        let receiver = firmware(Receiver, "1.1.0").make();
        // It would get healthy: it does not within the time of this test.
        let transmitter = firmware(Transmitter, "1.1.0").fault(Fault::NeverHealthy).make();
        let options = "--key a.key --health-timeout 30";
        let bundle = desk.release_with("1.1.0", &[&transmitter, &receiver], options);
        let update = desk.begin_update(&bundle);
        desk.wait("both are on trial", || {
            let on_trial = desk.seen().iter().all(|seen| seen.is_on_trial);
            on_trial.then_some(())
        });
        desk.board_mut(who).kill();
        desk.board_mut(who).switch_on();
        let said = update.end();
        said.fails().says("fell back to its old image");
        desk.assert_runs(&desk.first);
        let cause = &desk.history()[0]["cause"];
        assert_eq!(cause["code"], "fell-back");
    }
}

/// Each frame of the transmitter is so late.
const DELAY_MS: u32 = 400;
