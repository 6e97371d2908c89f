//! How things look on a page: moments, versions, sizes, shares.

use std::borrow::Borrow;
use std::fmt;

use askama::filters::HtmlSafe;
use jiff::Timestamp;
use lockstep_proto::version::ReleaseVersion;

use crate::campaign::Standing;

/// A moment; the script shows it in the zone of whoever looks, and how long ago it was.
#[derive(Debug, Clone, Copy)]
pub(super) struct When(Timestamp);

/// Templates hand over references where they can.
pub(super) fn when(at: impl Borrow<Timestamp>) -> When {
    When(*at.borrow())
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(at) = self;
        write!(f, "<time datetime=\"{at:.0}\">{}</time>", at.strftime("%Y-%m-%d %H:%M UTC"))
    }
}

// Digits and our own tags.
impl HtmlSafe for When {}

/// A release by its number; an en dash for none.
pub(super) fn version(number: impl Borrow<u32>) -> String {
    match *number.borrow() {
        0 => "–".to_owned(),
        number => ReleaseVersion::from_number(number).to_string(),
    }
}

/// The beginning of a hash, as people compare it.
pub(super) fn short(hash: &str) -> &str {
    hash.get(..SHORT).unwrap_or(hash)
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

/// How long ago a moment is.
pub(super) fn ago(at: impl Borrow<Timestamp>, now: impl Borrow<Timestamp>) -> String {
    format!("{} ago", between(at, now))
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

/// One part of a bar that shows shares of a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// What it stands for.
    pub(super) name: String,
    /// How it looks: a class of the style.
    pub(super) look: &'static str,
    /// So many.
    pub(super) count: u64,
    /// Where it begins, in thousandths of the whole bar.
    pub(super) from: u64,
    /// How wide it is, in thousandths of the whole bar.
    pub(super) wide: u64,
}

/// The parts of a bar, one behind the other; those of nothing are left out.
pub(super) fn parts(counts: impl IntoIterator<Item = (String, &'static str, u64)>) -> Vec<Part> {
    let counts: Vec<_> = counts.into_iter().filter(|(_, _, count)| *count > 0).collect();
    let total: u64 = counts.iter().map(|(_, _, count)| count).sum();
    let mut before = 0;
    let part = |(name, look, count): (String, &'static str, u64)| {
        let from = before * 1000 / total.max(1);
        before += count;
        Part { name, look, count, from, wide: before * 1000 / total.max(1) - from }
    };
    counts.into_iter().map(part).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_bar_fill_it_exactly() {
        let bar = parts([
            ("a".to_owned(), "x", 1),
            ("none".to_owned(), "x", 0),
            ("b".to_owned(), "x", 1),
            ("c".to_owned(), "x", 1),
        ]);
        assert_eq!(bar.len(), 3);
        assert_eq!(bar.iter().map(|part| part.wide).sum::<u64>(), 1000);
        assert!(bar.windows(2).all(|pair| pair[0].from + pair[0].wide == pair[1].from));
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
    }
}
