//! `lockstep schedule`.

use std::time::Duration;

use jiff::civil::Time;
use jiff::{Span, ToSpan as _, ZonedDateTime};
use serde_json::json;

use crate::client::DeviceArgs;
use crate::client::api::Accepted;
use crate::error::CommandError;
use crate::ui::{Ui, tame};

/// Say when a rollout that waits goes on
///
/// A rollout begun with `lockstep update --hold` is brought to every member, and waits: nobody is
/// asked to rest before it goes on. The lead has no clock; this command makes a delay of a time of
/// day. If the lead loses power before that, it waits until it is told again.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("when").required(true)))]
pub(crate) struct ScheduleArgs {
    /// At once, or as soon as all have staged
    #[arg(long, group = "when")]
    now: bool,

    /// After so long, such as 90s, 30m or 2h
    #[arg(long = "in", value_name = "DURATION", group = "when")]
    #[arg(value_parser = humantime::parse_duration)]
    after: Option<Duration>,

    /// When this machine's clock shows this time next, such as 03:00
    #[arg(long, value_name = "HH:MM", group = "when", value_parser = time_of_day)]
    at: Option<Time>,

    /// Not before somebody says so: takes a schedule back
    #[arg(long, group = "when")]
    hold: bool,

    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn schedule(ui: &Ui, args: &ScheduleArgs) -> Result<(), CommandError> {
    let client = args.device.client()?;
    let in_s = match (args.after, args.at) {
        (Some(after), _) => Some(whole_seconds(after)),
        (None, Some(at)) => Some(whole_seconds(until(at, &ZonedDateTime::now())?)),
        (None, None) => args.now.then_some(0),
    };
    let accepted: Accepted = client.post_json("/api/rollout/schedule", &json!({ "in_s": in_s }))?;
    let id = tame(&accepted.rollout);
    match in_s {
        None => {
            ui.line(format_args!("Rollout {id} waits until you say so: lockstep schedule --now"))?;
        }
        Some(0) => ui.line(format_args!("Rollout {id} goes on as soon as all have staged"))?,
        Some(seconds) => {
            let when = humantime::format_duration(Duration::from_secs(seconds));
            ui.line(format_args!("Rollout {id} goes on in {when}"))?;
            ui.note("If the lead loses power before that, it waits until it is told again");
        }
    }
    ui.json(&json!({ "rollout": accepted.rollout, "in_s": in_s }))
}

fn time_of_day(text: &str) -> Result<Time, String> {
    Time::strptime("%H:%M", text).map_err(|_| "such as 03:00 or 23:30".to_owned())
}

/// How long it is until the clock shows `at`: today, or else tomorrow.
fn until(at: Time, now: &ZonedDateTime) -> Result<Duration, CommandError> {
    let wrong = |error: jiff::Error| CommandError::failed("Cannot tell that time").because(&error);
    let on = |day: Span| {
        let day = now.checked_add(day)?.date();
        day.to_datetime(at).to_zoned_datetime(now.time_zone().clone())
    };
    let mut moment = on(0.days()).map_err(wrong)?;
    if &moment <= now {
        moment = on(1.days()).map_err(wrong)?;
    }
    Duration::try_from(now.duration_until(&moment)).map_err(wrong)
}

/// Rather a moment late than a moment early.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(now: &str, at: &str) -> u64 {
        let at = time_of_day(at).unwrap();
        until(at, &now.parse().unwrap()).unwrap().as_secs()
    }

    #[test]
    fn a_time_of_day_is_the_next_one() {
        assert_eq!(wait("2026-03-01T22:00:00[UTC]", "23:30"), 5_400);
        assert_eq!(wait("2026-03-01T22:00:00[UTC]", "03:00"), 5 * 3_600);
        assert_eq!(wait("2026-03-01T22:00:00[UTC]", "22:00"), 86_400);
    }

    // The last Sunday in March: 02:00 to 03:00 does not exist, and the night is an hour short.
    #[test]
    fn a_night_in_which_clocks_change_has_the_hours_it_has() {
        let night = "2026-03-28T22:00:00+01:00[Europe/Berlin]";
        if night.parse::<ZonedDateTime>().is_err() {
            eprintln!("skipped: no time zones on this machine");
            return;
        }
        assert_eq!(wait(night, "04:00"), 5 * 3_600);
    }

    #[test]
    fn what_is_no_time_of_day_is_refused() {
        for text in ["", "3", "24:00", "12:60", "noon", "03:00:00"] {
            assert!(time_of_day(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_part_of_a_second_counts_as_a_second() {
        assert_eq!(whole_seconds(Duration::from_millis(1_001)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(1)), 1);
    }
}
