//! `lockstep sim`.

use std::thread;
use std::time::Instant;

use lockstep_sim::world::{
    BOARDS_MAX, Census, Detail, Found, Library, Many, Outcome, Reached, Scale, WORLDS_TO_JUDGE,
    reached, run_many, run_scaled, shortest,
};
use serde_json::{Value, json};

use crate::error::CommandError;
use crate::ui::{Ui, table};

/// Search simulated worlds for a rollout that breaks its promises
///
/// A seed is a world: a group of boards with the real device code, their flash and bootloaders, a
/// radio that loses frames, and whatever goes wrong. In virtual time, so a world takes
/// milliseconds; the same seed is always the same world. With one seed its timeline is printed,
/// with --seeds what many of them reached.
#[derive(Debug, clap::Args)]
pub(crate) struct SimArgs {
    /// The world to show
    #[arg(value_name = "SEED", required_unless_present = "seeds", conflicts_with = "seeds")]
    seed: Option<u64>,

    /// Live through so many worlds and print what they reached
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,

    /// The first of them
    #[arg(long, value_name = "SEED", default_value_t = 0, conflicts_with = "seed")]
    from: u64,

    /// Use so many cores [default: all]
    #[arg(long, value_name = "N", conflicts_with = "seed")]
    jobs: Option<usize>,

    /// A group of so many members beside the lead, with every kind of fault in each world
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=MEMBERS_MAX))]
    members: Option<u8>,

    /// So many of all frames get lost while there are faults, in percent
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=90))]
    loss: Option<u8>,

    /// Show every frame as well
    #[arg(long, conflicts_with = "seeds")]
    frames: bool,
}

impl SimArgs {
    fn scale(&self) -> Scale {
        Scale { members: self.members.map(usize::from), loss_percent: self.loss }
    }

    /// The options that make a world of this search from a seed.
    fn as_options(&self) -> String {
        let members = self.members.map(|members| format!(" --members {members}"));
        let loss = self.loss.map(|loss| format!(" --loss {loss}"));
        members.unwrap_or_default() + &loss.unwrap_or_default()
    }
}

pub(super) fn sim(ui: &Ui, args: &SimArgs) -> Result<(), CommandError> {
    match (args.seed, args.seeds) {
        (Some(seed), _) => show(ui, args, seed),
        (None, Some(count)) => live_through(ui, args, count),
        (None, None) => Err(CommandError::usage("Neither a seed nor --seeds is given")),
    }
}

/// One world, line by line.
fn show(ui: &Ui, args: &SimArgs, seed: u64) -> Result<(), CommandError> {
    let detail = if args.frames { Detail::Frames } else { Detail::Events };
    let outcome = run_scaled(args.scale(), seed, detail, &mut Library::default());
    for line in outcome.timeline.lines() {
        ui.line(line)?;
    }
    ui.json(&outcome_json(&outcome))?;
    match &outcome.violation {
        None => ui.line(format_args!("Seed {seed}: every invariant holds")),
        Some(violation) => Err(CommandError::failed(format!(
            "Seed {seed}: invariant {} does not hold at {} ms: {}",
            violation.invariant, violation.at_ms, violation.text
        ))),
    }
}

fn outcome_json(outcome: &Outcome) -> Value {
    json!({
        "seed": outcome.seed,
        "timeline": outcome.timeline.lines(),
        "reached": census_json(&outcome.census),
        "violation": outcome.violation.as_ref().map(|violation| json!({
            "invariant": violation.invariant,
            "at_ms": violation.at_ms,
            "message": violation.text,
        })),
    })
}

fn census_json(census: &Census) -> Value {
    census.iter().map(|(name, number)| (name.to_owned(), Value::from(number))).collect()
}

/// Many worlds, counted.
fn live_through(ui: &Ui, args: &SimArgs, count: u64) -> Result<(), CommandError> {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let jobs = args.jobs.unwrap_or(cores).max(1);
    let bar = ui.spinner(format!("0 of {count} worlds"));
    let start = Instant::now();
    let many = run_many(args.scale(), args.from, count, jobs, |worlds| {
        bar.set_message(format!("{worlds} of {count} worlds"));
    });
    let seconds = start.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let reach = reached(args.scale(), &many);
    ui.line(table(&rows(&many.census)))?;
    ui.line(speed(&many, seconds, jobs))?;
    let worst = shortest(args.scale(), &many.found);
    ui.json(&json!({
        "worlds": many.worlds,
        "reached": census_json(&many.census),
        "rare": reach.iter().filter(|it| it.is_rare).map(rare_json).collect::<Vec<_>>(),
        "violations": many.found.iter().map(found_json).collect::<Vec<_>>(),
        "shortest": worst.map(|found| found.seed),
        "seconds": seconds,
    }))?;
    judge(args, &many, worst, &reach)
}

fn judge(
    args: &SimArgs,
    many: &Many,
    worst: Option<&Found>,
    reach: &[Reached],
) -> Result<(), CommandError> {
    if let Some(worst) = worst {
        let count = many.found.len();
        let error = CommandError::failed(format!(
            "An invariant does not hold in {count} of {} worlds",
            many.worlds
        ));
        let error = many.found.iter().fold(error, |error, found| {
            let Found { seed, violation } = found;
            let (invariant, text) = (violation.invariant, &violation.text);
            error.detailed(format!("seed {seed}: invariant {invariant}, {text}"), None)
        });
        let hint = format!("The shortest: lockstep sim {}{}", worst.seed, args.as_options());
        return Err(error.hinted(hint));
    }
    let rare: Vec<&Reached> = reach.iter().filter(|it| it.is_rare).collect();
    if rare.is_empty() {
        return Ok(());
    }
    let error = CommandError::failed("What should be common was rare");
    Err(rare.iter().fold(error, |error, reached| {
        let (expected, times) = (reached.expected, reached.times);
        error.detailed(
            format!(
                "{}: {times} in {} worlds, expected {} in {WORLDS_TO_JUDGE}",
                expected.what, many.worlds, expected.per_thousand_min
            ),
            None,
        )
    }))
}

fn rows(census: &Census) -> Vec<Vec<String>> {
    let row = |(name, number): (&str, u64)| {
        let (group, what) = name.split_once(": ").unwrap_or((name, ""));
        vec![group.to_owned(), what.to_owned(), number.to_string()]
    };
    let head = ["WHAT", "WHICH", "TIMES"].map(String::from).to_vec();
    [head].into_iter().chain(census.iter().map(row)).collect()
}

fn speed(many: &Many, seconds: f64, jobs: usize) -> String {
    let rollouts = many.census.of_all("verdict: ");
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = rollouts as f64 / seconds;
    format!(
        "{} worlds, {rollouts} rollouts in {seconds:.1} s on {jobs} cores: {rate:.0} rollouts/s",
        many.worlds
    )
}

fn rare_json(reached: &Reached) -> Value {
    json!({
        "what": reached.expected.what,
        "times": reached.times,
        "per_thousand_min": reached.expected.per_thousand_min,
    })
}

fn found_json(found: &Found) -> Value {
    json!({
        "seed": found.seed,
        "invariant": found.violation.invariant,
        "at_ms": found.violation.at_ms,
        "message": found.violation.text,
    })
}

const MEMBERS_MAX: i64 = BOARDS_MAX as i64 - 1;
