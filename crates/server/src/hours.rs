//! Hours in which a group may be touched, by its own clock: `mon-fri 22:00-05:00`.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// When a group may be touched, and by whose clock.
#[derive(Debug, Clone)]
pub struct Hours {
    window: Option<Window>,
    zone: TimeZone,
}

/// Hours of the day, on some days.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// On these days; empty: every day. A window over midnight belongs to the day it begins on.
    days: Vec<Weekday>,
    /// From this time of day on.
    from: Time,
    /// Until this one; before `from`: of the next day; the same: the whole day.
    until: Time,
}

impl Hours {
    /// At any time.
    pub const fn any() -> Self {
        Self { window: None, zone: TimeZone::UTC }
    }

    /// `window` as [`Window`] is written, empty for any time; `zone` as `Europe/Berlin`, empty for
    /// UTC.
    pub fn new(window: &str, zone: &str) -> Result<Self, HoursError> {
        let window = if window.is_empty() { None } else { Some(window.parse()?) };
        let zone = if zone.is_empty() { "UTC" } else { zone };
        let error = |_| HoursError::NoZone { found: crate::fleet::excerpt(zone) };
        Ok(Self { window, zone: TimeZone::get(zone).map_err(error)? })
    }

    /// Whether the group may be touched at this moment. Where a clock is set forward, an hour that
    /// it leaves out is no hour of the window.
    pub fn has(&self, now: Timestamp) -> bool {
        let Some(Window { days, from, until }) = &self.window else { return true };
        let here = self.zone.to_datetime(now);
        let (day, time) = (here.date().weekday(), here.time());
        let is_day = |day| days.is_empty() || days.contains(&day);
        if from == until {
            return is_day(day);
        }
        if from < until {
            return is_day(day) && time >= *from && time < *until;
        }
        let yesterday = here.date().checked_sub(Span::new().days(1));
        let began_yesterday = yesterday.is_ok_and(|date| is_day(date.weekday()));
        (is_day(day) && time >= *from) || (began_yesterday && time < *until)
    }
}

impl FromStr for Window {
    type Err = HoursError;

    fn from_str(text: &str) -> Result<Self, HoursError> {
        let error = || HoursError::NoWindow { found: crate::fleet::excerpt(text) };
        let (days, hours) = match text.trim().rsplit_once(' ') {
            Some((days, hours)) => (days.trim(), hours),
            None => ("", text.trim()),
        };
        let mut on = Vec::new();
        for part in days.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (mut day, last) =
                (day_of(first).ok_or_else(error)?, day_of(last).ok_or_else(error)?);
            on.push(day);
            while day != last {
                day = day.next();
                on.push(day);
            }
        }
        let (from, until) = hours.split_once('-').ok_or_else(error)?;
        let is_whole_day = until.trim() == DAY_END;
        let (from, until) = (time_of(from).ok_or_else(error)?, time_of(until).ok_or_else(error)?);
        if from == until && !is_whole_day {
            return Err(error());
        }
        Ok(Self { days: on, from, until })
    }
}

fn day_of(text: &str) -> Option<Weekday> {
    let day = DAYS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.trim()));
    day.map(|&(_, day)| day)
}

/// `24:00` is the end of the day.
fn time_of(text: &str) -> Option<Time> {
    let (hour, minute) = text.trim().split_once(':')?;
    let (hour, minute): (i8, i8) = (hour.parse().ok()?, minute.parse().ok()?);
    if text.trim() == DAY_END {
        return Time::new(0, 0, 0, 0).ok();
    }
    Time::new(hour, minute, 0, 0).ok()
}

/// Why a text says no hours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoursError {
    /// It is no window.
    NoWindow {
        /// Its beginning.
        found: String,
    },
    /// There is no such time zone.
    NoZone {
        /// Its beginning.
        found: String,
    },
}

impl fmt::Display for HoursError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWindow { found } => write!(
                f,
                "`{found}` is no maintenance window, expected such as `22:00-05:00` or \
                 `mon-fri 22:00-05:00`"
            ),
            Self::NoZone { found } => {
                write!(f, "`{found}` is no time zone, expected such as `Europe/Berlin`")
            }
        }
    }
}

impl std::error::Error for HoursError {}

/// The end of a day, which no clock shows.
const DAY_END: &str = "24:00";
const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn hours_over_midnight_belong_to_the_day_they_begin_on() {
        let hours = Hours::new("mon,thu-fri 22:00-05:00", "Europe/Berlin").unwrap();
        // A Monday in winter: 22:00 in Berlin is 21:00 in UTC.
        for (moment, expected) in [
            ("2026-11-23T20:59:00Z", false),
            ("2026-11-23T21:00:00Z", true),
            ("2026-11-24T03:59:00Z", true),
            ("2026-11-24T04:00:00Z", false),
            ("2026-11-24T22:00:00Z", false),
            ("2026-11-28T03:00:00Z", true),
            ("2026-11-28T22:00:00Z", false),
        ] {
            assert_eq!(hours.has(at(moment)), expected, "{moment}");
        }
    }

    #[test]
    fn the_clock_of_the_group_is_set_forward_with_it() {
        let hours = Hours::new("02:00-03:00", "Europe/Berlin").unwrap();
        // On this night 02:00 to 03:00 does not exist there.
        for minute in 0..180 {
            let moment = at("2026-03-29T00:00:00Z").as_second() + minute * 60;
            assert!(!hours.has(Timestamp::from_second(moment).unwrap()));
        }
        assert!(hours.has(at("2026-03-30T00:30:00Z")));
    }

    #[test]
    fn what_says_no_hours_is_refused() {
        for wrong in ["22:00", "25:00-05:00", "22:00-22:00", "moon 22:00-05:00", "mon", "-"] {
            assert!(Hours::new(wrong, "").is_err(), "{wrong}");
        }
        assert!(Hours::new("22:00-24:00", "").unwrap().has(at("2026-11-23T23:59:00Z")));
        let weekend = Hours::new("sat-sun 00:00-24:00", "").unwrap();
        assert!(weekend.has(at("2026-11-28T00:00:00Z")) && weekend.has(at("2026-11-29T23:59:00Z")));
        assert!(
            !weekend.has(at("2026-11-27T23:59:00Z")) && !weekend.has(at("2026-11-30T00:00:00Z"))
        );
        assert!(Hours::new("", "Mars/Olympus").is_err());
        assert!(Hours::new("", "").unwrap().has(at("2026-11-23T20:59:00Z")));
    }
}
