//! The rollout, exhausted: every state that a small group can get into is visited, with the real
//! `Rollout` conducting real `Agent`s, and the invariants are asked in each.
//!
//! **Real**: the lead's decisions, orders and record; each device's agent with its record, boot
//! state, staging and verification on real flash bytes; the bootloader's rules; the order in which
//! the node decides, stores and acts, mirrored in `device`. A power cut falls before each erase
//! and write and in the middle of it, wherever one happens.
//!
//! **Modelled**, because it would only multiply states: time (a limit ends when the model says so),
//! the link (what was said last, and late frames; no counters, so that orders must stand without
//! them), transfers (all bytes at once), health and the application's rest (a step, or at once),
//! preflight (nothing goes wrong in it), boots (not counted).
//!
//! Device states and frames have numbers, and each step of a device is worked out once (`table`).
//! Two states are one when everything that they say of themselves is the same, but for what `key`
//! leaves out by name; that this is right is tested by comparing such states step by step.
//! `docs/model.md` has the bounds, the counts and how to run it.

mod chip;
mod device;
mod exhaust;
mod group;
mod key;
mod properties;
mod release;
mod table;
mod text;

use exhaust::{Configuration, Ends};
use group::Flaw;
use release::{Activation, DEVICES_MAX, LEAD};

const SOUND: [Flaw; DEVICES_MAX] = [Flaw::None; DEVICES_MAX];
const MEMBER: usize = 1;

/// The new image of one device has a flaw. Members are alike, so the first stands for all.
fn flawed(device: usize, flaw: Flaw) -> [Flaw; DEVICES_MAX] {
    let mut flaws = SOUND;
    flaws[device] = flaw;
    flaws
}

fn every_flaw() -> Vec<[Flaw; DEVICES_MAX]> {
    let flaws = [Flaw::Crashes, Flaw::NeverHealthy, Flaw::OnceHealthy];
    let one = |device| flaws.map(|flaw| flawed(device, flaw));
    std::iter::once(SOUND).chain(one(LEAD)).chain(one(MEMBER)).collect()
}

#[test]
fn without_faults_a_pair_reaches_both_verdicts_and_breaks_nothing() {
    Configuration {
        devices: 2,
        faults: 0,
        activation: Activation::Together,
        flaws: vec![SOUND, flawed(MEMBER, Flaw::NeverHealthy)],
        reaches: &["keep", "revert"],
        ends: Ends::Exhausted,
        twins: 100,
    }
    .must_hold();
}

#[test]
#[ignore = "minutes, and only when optimised: `cargo xtask test --suite model`"]
fn a_pair_with_two_faults_breaks_nothing() {
    for activation in [Activation::Together, Activation::LeadFirst, Activation::LeadLast] {
        Configuration {
            devices: 2,
            faults: 2,
            activation,
            flaws: every_flaw(),
            reaches: EVERYTHING,
            ends: Ends::Exhausted,
            twins: 1_000,
        }
        .must_hold();
    }
}

#[test]
#[ignore = "minutes, and only when optimised: `cargo xtask test --suite model`"]
fn a_lead_and_two_members_with_one_fault_break_nothing() {
    Configuration {
        devices: 3,
        faults: 1,
        activation: Activation::Together,
        flaws: every_flaw(),
        reaches: EVERYTHING,
        ends: Ends::Exhausted,
        twins: 1_000,
    }
    .must_hold();
}

#[test]
#[ignore = "many minutes: `docs/model.md` has the command and what it printed"]
fn a_lead_and_two_members_with_two_faults_break_nothing() {
    Configuration {
        devices: 3,
        faults: 2,
        activation: Activation::Together,
        flaws: vec![SOUND],
        reaches: EVERYTHING,
        ends: Ends::Exhausted,
        twins: 1_000,
    }
    .must_hold();
}

/// Each bug stands for a rule that somebody could forget. The first state that is wrong ends its
/// run; the others do not concern what is modelled, see `docs/model.md`.
#[cfg(feature = "planted")]
#[test]
#[ignore = "many minutes: `docs/model.md` has the command and what it printed"]
fn planted_bugs_are_found() {
    use lockstep_proto::planted::{Bug, plant};
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        plant(Some(bug));
        println!("\n== {bug:?}");
        let wrong = Configuration {
            devices: 2,
            faults: 2,
            activation: Activation::Together,
            flaws: every_flaw(),
            reaches: &[],
            ends: Ends::AtFirstFailure,
            twins: 0,
        }
        .exhaust();
        println!("-- {bug:?}: {wrong:?}");
        if wrong.is_empty() {
            missed.push(bug);
        }
    }
    plant(None);
    assert_eq!(missed, OUT_OF_REACH);
}

/// What is not modelled: an older generation that leads to the same image, slots that are spoilt,
/// bits that a cut left in between, long transfers, a release with another epoch, the gate, the
/// guard against replays.
#[cfg(feature = "planted")]
const OUT_OF_REACH: [lockstep_proto::planted::Bug; 8] = {
    use lockstep_proto::planted::Bug;
    [
        Bug::StaleGeneration,
        Bug::NoReadBack,
        Bug::NoSlotCheck,
        Bug::WeakBitsBelieved,
        Bug::ProgressBeforeBytes,
        Bug::EpochIgnored,
        Bug::GateOpen,
        Bug::ReplayTaken,
    ]
};

/// Every end, and the roads that only exist to get there.
const EVERYTHING: &[&str] = &[
    "keep",
    "revert",
    "repair",
    "keep, after a member was activated again",
    "settled with a debt",
    "the lead runs the old image after its verdict was keep",
    "a device is on trial and the verdict is revert",
];
