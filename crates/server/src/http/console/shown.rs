//! How things look on a page: moments, versions, sizes, shares.

use std::borrow::Borrow;
use std::fmt;

use askama::filters::HtmlSafe;
use jiff::Timestamp;
use lockstep_proto::version::ReleaseVersion;

use crate::campaign::Standing;

/// A moment as how long ago it is, with the moment itself as its title. The script keeps it fresh,
/// and says the moment in the zone of whoever looks.
pub(super) fn when(at: impl Borrow<Timestamp>) -> When {
    When { at: *at.borrow(), now: Timestamp::now(), first: First::Distance }
}

/// A moment as such, for lists that are read for it; how long ago it is, is its title.
pub(super) fn exact(at: impl Borrow<Timestamp>) -> When {
    When { at: *at.borrow(), now: Timestamp::now(), first: First::Moment }
}

/// A moment on a page.
#[derive(Debug, Clone, Copy)]
pub(super) struct When {
    at: Timestamp,
    now: Timestamp,
    first: First,
}

/// What is shown of a moment; the other is its title.
#[derive(Debug, Clone, Copy)]
enum First {
    Distance,
    Moment,
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, now, first } = self;
        let moment = at.strftime("%Y-%m-%d %H:%M UTC");
        let distance = distance(at, now);
        match first {
            First::Distance => {
                write!(f, "<time datetime=\"{at:.0}\" title=\"{moment}\">{distance}</time>")
            }
            First::Moment => write!(
                f,
                "<time class=\"exact\" datetime=\"{at:.0}\" title=\"{distance}\">{moment}</time>"
            ),
        }
    }
}

// Digits and our own tags.
impl HtmlSafe for When {}

/// How far away a moment is; the script has the same words.
fn distance(at: &Timestamp, now: &Timestamp) -> String {
    match now.duration_since(*at).as_secs() {
        0..10 => "just now".to_owned(),
        gone_s @ 10.. => format!("{} ago", seconds(gone_s)),
        left_s => format!("in {}", seconds(-left_s)),
    }
}

/// A release by its number; an en dash for none.
pub(super) fn version(number: impl Borrow<u32>) -> String {
    match *number.borrow() {
        0 => "–".to_owned(),
        number => ReleaseVersion::from_number(number).to_string(),
    }
}

/// The oldest release that one understands.
pub(super) fn oldest(version: &str) -> &str {
    if version == "0.0.0" { "any release" } else { version }
}

/// The beginning of a hash, as people compare it.
pub(super) fn short(hash: &str) -> &str {
    hash.get(..SHORT).unwrap_or(hash)
}

/// Enough of a hash to know an image by.
pub(super) fn start(hash: &str) -> &str {
    hash.get(..START).unwrap_or(hash)
}

/// A size, rounded up.
pub(super) fn bytes(size: impl Borrow<u64>) -> String {
    let size = *size.borrow();
    match size {
        0..1_048_576 => format!("{} KiB", size.div_ceil(1024)),
        _ => format!("{}.{} MiB", size >> 20, ((size % (1 << 20)) * 10) >> 20),
    }
}

/// A length of time in one unit, for waits that nobody counts.
pub(super) fn seconds(seconds: impl Borrow<i64>) -> String {
    let seconds = *seconds.borrow();
    match seconds {
        ..90 => format!("{} s", seconds.max(0)),
        90..5400 => format!("{} min", (seconds + 30) / 60),
        5400..172_800 => format!("{} h", (seconds + 1800) / 3600),
        _ => format!("{} days", (seconds + 43_200) / 86_400),
    }
}

/// How long something took: tenths of a second where they count.
pub(super) fn took(ms: u64) -> String {
    match ms {
        0..100 => "under 0.1 s".to_owned(),
        100..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => seconds(i64::try_from(ms / 1000).unwrap_or(i64::MAX)),
    }
}

/// How long it is from one moment to another.
pub(super) fn between(from: impl Borrow<Timestamp>, to: impl Borrow<Timestamp>) -> String {
    seconds(to.borrow().duration_since(*from.borrow()).as_secs())
}

/// So many of a thing.
pub(super) fn counted(count: impl Borrow<u64>, one: &str) -> String {
    match *count.borrow() {
        1 => format!("1 {one}"),
        count => format!("{count} {one}s"),
    }
}

/// Part of an address, in letters that mean nothing there.
pub(super) fn escaped(text: &str) -> String {
    let mut address = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                address.push(char::from(byte));
            }
            _ => address += &format!("%{byte:02X}"),
        }
    }
    address
}

/// A text with a capital at its front, as a sentence has it.
pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().collect::<String>());
    first.unwrap_or_default() + letters.as_str()
}

/// A text as a whole sentence; some come as one.
pub(super) fn sentence(text: &str) -> String {
    let end = if text.ends_with(['.', '?', '!']) { "" } else { "." };
    capital(text) + end
}

/// A text as it may stand in an attribute or between tags.
pub(super) fn plain(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Why something did not go as it should, in plain words with what to do, and the code in small
/// type.
pub(super) fn cause(code: &str, text: impl AsRef<str>) -> Cause {
    Cause { code: code.to_owned(), text: text.as_ref().to_owned() }
}

/// See [`cause`].
#[derive(Debug, Clone)]
pub(super) struct Cause {
    /// Empty: there is none.
    code: String,
    /// What is known of this very case; empty, or the code itself: no more than the code.
    text: String,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, text } = self;
        let words = crate::words::of(if code.is_empty() { text } else { code });
        let code = words.map_or(code.as_str(), |words| words.code);
        let what = match words {
            Some(words) if text.is_empty() || text == code => words.what,
            _ if text.is_empty() => code,
            _ => text,
        };
        f.write_str(&plain(&sentence(what)))?;
        if let Some(words) = words.filter(|words| words.hint != what) {
            write!(f, " <span class=\"hint\">{}</span>", commands(&sentence(words.hint)))?;
        }
        match code {
            "" => Ok(()),
            code if code == what => Ok(()),
            code => write!(f, " <code class=\"code\">{}</code>", plain(code)),
        }
    }
}

// Whatever is not ours is made plain.
impl HtmlSafe for Cause {}

/// A text with what stands between backquotes as code.
fn commands(text: &str) -> String {
    let mut said = String::new();
    for (place, part) in plain(text).split('`').enumerate() {
        said += &if place % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() };
    }
    said
}

/// How a group's standing in a campaign looks.
pub(super) fn standing_look(standing: impl Borrow<Standing>) -> &'static str {
    match standing.borrow() {
        Standing::Waits => "waits",
        Standing::Offered => "offered",
        Standing::Began => "began",
        Standing::Kept => "kept",
        Standing::Failed => "failed",
        Standing::Skipped => "skipped",
    }
}

/// Digits of a hash that are shown.
const SHORT: usize = 8;
/// Digits of a hash that are shown where there is room.
const START: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_told_in_words_with_what_to_do() {
        let plain_words = cause("not-healthy", "not-healthy").to_string();
        assert_eq!(
            plain_words,
            "A device did not get healthy in time. <span class=\"hint\">The log of that device \
             says which check failed.</span> <code class=\"code\">not-healthy</code>"
        );
        // What a device says of its own case is better than what is said of all.
        let own = cause("too-large", "image for `x` has <3> bytes").to_string();
        assert!(own.starts_with("Image for `x` has &lt;3&gt; bytes. <span"), "{own}");
        let command = cause("unreachable", "").to_string();
        assert!(command.contains("<code>lockstep group remove</code>"), "{command}");
        assert_eq!(cause("", "runs it already").to_string(), "Runs it already.");
        assert!(cause("new-code", "").to_string().starts_with("New-code."));
    }

    #[test]
    fn an_address_within_an_address_stays_one() {
        assert_eq!(escaped("/groups?name=a&b"), "%2Fgroups%3Fname%3Da%26b");
    }

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!(bytes(529_408), "517 KiB");
        assert_eq!(bytes(2 << 20), "2.0 MiB");
        assert_eq!(seconds(89), "89 s");
        assert_eq!(seconds(7200), "2 h");
        assert_eq!((took(4250), took(42_900)), ("4.2 s".to_owned(), "42 s".to_owned()));
    }

    #[test]
    fn a_moment_is_told_by_its_distance_and_named_in_its_title() {
        let at: Timestamp = "2026-05-01T22:00:30Z".parse().unwrap();
        let after = |s| at + jiff::SignedDuration::from_secs(s);
        assert_eq!(distance(&at, &after(4)), "just now");
        assert_eq!(distance(&at, &after(89)), "89 s ago");
        assert_eq!(distance(&at, &after(3 * 86_400)), "3 days ago");
        assert_eq!(distance(&at, &after(-7200)), "in 2 h");
        let said = When { at, now: after(600), first: First::Distance }.to_string();
        assert_eq!(
            said,
            "<time datetime=\"2026-05-01T22:00:30Z\" title=\"2026-05-01 22:00 UTC\">10 min \
             ago</time>"
        );
    }
}
