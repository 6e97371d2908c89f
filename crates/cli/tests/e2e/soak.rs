//! Many rollouts in a row on one desk, with `kill -9` at random moments: whatever was cut, both
//! devices end on one release, and nothing grows, leaks, fills up or wears out on the way.
//!
//! A few rollouts are part of the ordinary test run. The long run is
//! `cargo xtask soak --rollouts 500`; it prints what it saw.

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use lockstep_sim::flash::Wear;

use super::desk::{BOTH, Desk, Image, Plan, Receiver, Role, Transmitter};

/// What happened, for the line at the end.
#[derive(Debug, Default)]
struct Tally {
    verdicts: BTreeMap<String, u32>,
    kills: BTreeMap<String, u32>,
    refused: u32,
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    memory_kib: u64,
    descriptors: usize,
}

#[test]
fn rollouts_in_a_row_with_power_cuts_leave_nothing_behind() {
    let rollouts = number("LOCKSTEP_SOAK_ROLLOUTS", ROLLOUTS_DEFAULT);
    let seed = number("LOCKSTEP_SOAK_SEED", SEED_DEFAULT);
    let run = (rollouts / 9).clamp(RUN_ROLLOUTS_MIN, RUN_ROLLOUTS_MAX);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut desk = Plan::default()
        .with(Receiver, "--wear receiver.wear")
        .with(Transmitter, "--wear transmitter.wear")
        .start();
    let releases = ["1.1.0", "1.2.0"].map(|version| desk.good_release(version, ""));
    let whole = vec![desk.first.clone(), releases[0].0.clone(), releases[1].0.clone()];
    let mut tally = Tally::default();
    let (mut at, mut calm_since) = (0, None);
    for number in 1..=rollouts {
        // Two in three runs of rollouts are cut; in the third the processes grow old.
        let cuts = number % (3 * run) < 2 * run;
        let next = usize::from(at != 1) + 1;
        let next = if at == next { 3 - next } else { next };
        at = one(&mut desk, &releases[next - 1].1, cuts.then_some(&mut rng), &mut tally, &whole);
        calm_since = watch(&desk, cuts, calm_since);
        if number % REPORT_EVERY == 0 {
            eprintln!("{number} of {rollouts}: {tally:?}");
        }
    }
    let consoles = desk.consoles();
    for bad in ["cannot write", "record is full", "panicked"] {
        assert!(!consoles.contains(bad), "`{bad}`:\n{consoles}");
    }
    report(&desk, rollouts, seed, &tally);
}

/// One rollout, cut or not. Returns which of the pairs of images runs on both devices at its end.
fn one(
    desk: &mut Desk,
    bundle: &str,
    cuts: Option<&mut fastrand::Rng>,
    tally: &mut Tally,
    whole: &[[Image; 2]],
) -> usize {
    desk.wait_until_linked();
    let before = desk.rollout().map(|rollout| rollout["id"].clone());
    let update = desk.begin_update(bundle);
    if let Some(rng) = cuts {
        sleep(Duration::from_millis(rng.u64(0..CUT_WITHIN_MS)));
        let victims: &[Role] = [&[Receiver][..], &[Transmitter], &BOTH][rng.usize(0..3)];
        for role in victims {
            desk.board_mut(*role).kill();
            *tally.kills.entry(role.name().to_owned()).or_default() += 1;
        }
        sleep(Duration::from_millis(rng.u64(0..OFF_MS_MAX)));
        for role in victims {
            desk.board_mut(*role).switch_on();
        }
    }
    // Its upload goes on after a cut; how it ends is the group's affair.
    let said = update.end();
    let pairs: Vec<&[Image; 2]> = whole.iter().collect();
    let runs = desk.wait_whole(&pairs);
    match desk.rollout().filter(|rollout| Some(&rollout["id"]) != before.as_ref()) {
        Some(rollout) => {
            let verdict = rollout["verdict"].as_str().unwrap_or("none").to_owned();
            let cause = rollout["cause"]["code"].as_str().unwrap_or_default().to_owned();
            *tally.verdicts.entry(format!("{verdict} {cause}").trim().to_owned()).or_default() += 1;
        }
        None => {
            assert_ne!(said.code, Some(0), "{}", said.text);
            tally.refused += 1;
        }
    }
    runs
}

/// While nobody is cut, what the processes hold must stay what it was once they had warmed up.
fn watch(desk: &Desk, cuts: bool, since: Option<(u64, [Held; 2])>) -> Option<(u64, [Held; 2])> {
    if cuts {
        return None;
    }
    let now = BOTH.map(|role| held(desk, role));
    let Some((rollouts, first)) = since else { return Some((1, now)) };
    // Two rollouts on, every buffer has once been as large as it gets.
    if rollouts < WARM_ROLLOUTS {
        return Some((rollouts + 1, now));
    }
    for (first, now) in first.iter().zip(&now) {
        let grown_kib = now.memory_kib.saturating_sub(first.memory_kib);
        assert!(grown_kib <= GROWTH_MAX_KIB, "memory has grown: {first:?}, then {now:?}");
        let more = now.descriptors.saturating_sub(first.descriptors);
        assert!(more <= DESCRIPTORS_MORE_MAX, "descriptors leak: {first:?}, then {now:?}");
    }
    Some((rollouts + 1, first))
}

fn held(desk: &Desk, role: Role) -> Held {
    let process = desk.board(role).process_id().expect("the device is on");
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory_kib = memory.trim().trim_end_matches(" kB").parse().unwrap();
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
    Held { memory_kib, descriptors }
}

/// Prints what was seen, and holds the wear against what a chip's sectors bear.
fn report(desk: &Desk, rollouts: u64, seed: u64, tally: &Tally) {
    println!("{rollouts} rollouts, seed {seed}");
    println!("verdicts {:?}, not begun {}, kills {:?}", tally.verdicts, tally.refused, tally.kills);
    for role in BOTH {
        let wear = Wear::read(&desk.path(&format!("{}.wear", role.name()))).unwrap();
        let mut worst: Vec<(u32, usize)> = wear.iter().copied().zip(0..).collect();
        worst.sort_unstable_by_key(|&(erases, _)| std::cmp::Reverse(erases));
        let total: u64 = wear.iter().map(|&erases| u64::from(erases)).sum();
        let Held { memory_kib, descriptors } = held(desk, role);
        println!(
            "{}: {total} erases, worst sectors {}; {memory_kib} KiB, {descriptors} descriptors",
            role.name(),
            worst[..4]
                .iter()
                .map(|(erases, sector)| format!("{:#x}: {erases}", sector * 4096))
                .collect::<Vec<_>>()
                .join(", "),
        );
        let allowed = u64::from(ERASES_PER_500) * rollouts.max(50) / 500;
        assert!(u64::from(worst[0].0) <= allowed, "{worst:?}, allowed {allowed}");
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

const ROLLOUTS_DEFAULT: u64 = 9;
const SEED_DEFAULT: u64 = 1;
/// A run of rollouts is a ninth of all, but not shorter and not longer than this.
const RUN_ROLLOUTS_MIN: u64 = 3;
const RUN_ROLLOUTS_MAX: u64 = 25;
/// From the start of the upload to the end of settling on an idle machine.
const CUT_WITHIN_MS: u64 = 2_500;
const OFF_MS_MAX: u64 = 600;
const WARM_ROLLOUTS: u64 = 1;
const REPORT_EVERY: u64 = 50;
/// What an allocator keeps back is not a leak; one artifact in memory would be more than this.
const GROWTH_MAX_KIB: u64 = 1_024;
/// Connections that are still open when they are counted.
const DESCRIPTORS_MORE_MAX: usize = 4;
/// A hundredth of the 100,000 erases that a sector bears.
const ERASES_PER_500: u32 = 1_000;
