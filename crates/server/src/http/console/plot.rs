//! Plots, drawn here as SVG: a bar of shares, steps that rise, layers over time, and how long
//! things took. All have the same units and the same colours, which the style knows by the names of
//! looks; each says in words what it shows, and a table or a legend beside it has the figures.
//!
//! A plot is as wide as there is room, so it has no letters and no circles: those would be
//! stretched.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use askama::filters::HtmlSafe;
use jiff::Timestamp;

use super::shown::{self, plain};
use crate::store::plots::{Moved, Took};

/// One part of a bar that shows shares of a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    /// What it stands for.
    name: String,
    /// How it looks: a class of the style.
    look: &'static str,
    /// So many.
    count: u64,
    /// Where it begins, in thousandths of the whole bar.
    from: u64,
    /// How wide it is, in thousandths of the whole bar.
    wide: u64,
}

/// Shares of a whole, one behind the other, with a legend.
#[derive(Debug, Clone)]
pub(super) struct Bar {
    label: String,
    parts: Vec<Part>,
}

impl Bar {
    /// Of these counts, each with its name and its look; those of nothing are left out.
    pub(super) fn of(
        label: impl Into<String>,
        counts: impl IntoIterator<Item = (String, &'static str, u64)>,
    ) -> Self {
        let counts: Vec<_> = counts.into_iter().filter(|(_, _, count)| *count > 0).collect();
        let total: u64 = counts.iter().map(|(_, _, count)| count).sum();
        let mut before = 0;
        let part = |(name, look, count): (String, &'static str, u64)| {
            let from = before * 1000 / total.max(1);
            before += count;
            Part { name, look, count, from, wide: before * 1000 / total.max(1) - from }
        };
        Self { label: label.into(), parts: counts.into_iter().map(part).collect() }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, parts } = self;
        let said: Vec<_> = parts.iter().map(|it| format!("{}: {}", it.name, it.count)).collect();
        write!(
            f,
            "<svg class=\"bar\" viewBox=\"0 0 1000 24\" preserveAspectRatio=\"none\" role=\"img\" \
             aria-label=\"{}: {}\">",
            plain(label),
            plain(&said.join(", "))
        )?;
        for Part { look, from, wide, .. } in parts {
            write!(f, "<rect class=\"look-{look}\" x=\"{from}\" width=\"{wide}\" height=\"24\"/>")?;
        }
        write!(f, "</svg>{}", Legend(parts.iter().map(|it| (&*it.name, it.look, it.count))))
    }
}

impl HtmlSafe for Bar {}

/// What the colours stand for, and how many there are of each.
struct Legend<I>(I);

impl<'a, I: Iterator<Item = (&'a str, &'static str, u64)> + Clone> fmt::Display for Legend<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<ul class=\"legend\">")?;
        for (name, look, count) in self.0.clone() {
            write!(
                f,
                "<li><svg width=\"12\" height=\"12\" aria-hidden=\"true\"><rect \
                 class=\"look-{look}\" width=\"12\" height=\"12\" rx=\"3\"/></svg> {} \
                 <b>{count}</b></li>",
                plain(name)
            )?;
        }
        f.write_str("</ul>")
    }
}

/// How a count rises to a total: one step for each moment.
#[derive(Debug, Clone)]
pub(super) struct Steps {
    path: String,
    kept: usize,
    total: usize,
    from: Timestamp,
    to: Timestamp,
}

impl Steps {
    /// Of groups that kept a release at these moments.
    pub(super) fn of(
        mut moments: Vec<Timestamp>,
        total: usize,
        from: Timestamp,
        to: Timestamp,
    ) -> Self {
        moments.sort_unstable();
        let span = Span { from, to };
        let up = |count: usize| {
            let share = HIGH * i128::try_from(count).unwrap_or(0);
            HIGH - share / i128::try_from(total.max(1)).unwrap_or(1)
        };
        let mut path = format!("M0 {HIGH}");
        for (before, at) in moments.iter().enumerate() {
            // Writing to a text does not fail.
            let _ = write!(path, "H{}V{}", span.across(*at), up(before + 1));
        }
        let _ = write!(path, "H{WIDE}");
        Self { path, kept: moments.len(), total, from, to }
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, kept, total, from, to } = self;
        write!(
            f,
            "<figure>{PLOT} aria-label=\"{kept} of {total} groups have kept the release\">{GRID}\
             <path class=\"area\" d=\"{path}V{HIGH}H0Z\"/><path class=\"line\" d=\"{path}\"/></svg>\
             <figcaption class=\"row far\"><span>{}</span><b>{kept} of {total} kept</b>\
             <span>{}</span></figcaption></figure>",
            shown::when(from),
            shown::when(to)
        )
    }
}

impl HtmlSafe for Steps {}

/// Releases in the order of plots, and how each looks: the newest first, and what is no one release
/// last. Plots that stand beside each other share it, so that a release has one colour.
#[derive(Debug, Clone)]
pub(super) struct Looks(Vec<u32>);

impl Looks {
    pub(super) fn of(numbers: impl IntoIterator<Item = u32>) -> Self {
        let numbers: BTreeSet<u32> = numbers.into_iter().filter(|number| *number > 0).collect();
        Self(numbers.into_iter().rev().collect())
    }

    /// Name and look of a release by its number.
    pub(super) fn name(&self, number: u32) -> (String, &'static str) {
        if number == 0 {
            return ("no one release".to_owned(), "none");
        }
        let place = self.0.iter().position(|it| *it == number).unwrap_or(usize::MAX);
        (shown::version(number), NAMED.get(place).copied().unwrap_or("older"))
    }

    /// In which layer a release is: those behind the named ones share one.
    fn layer(&self, number: u32) -> usize {
        let place = self.0.iter().position(|it| *it == number);
        match number {
            0 => NAMED.len() + 1,
            _ => place.unwrap_or(usize::MAX).min(NAMED.len()),
        }
    }

    /// All layers, from below.
    fn layers(&self) -> Vec<(String, &'static str)> {
        let named = self.0.iter().take(NAMED.len()).map(|number| self.name(*number));
        let mut layers: Vec<_> = named.collect();
        layers.resize(NAMED.len(), (String::new(), "older"));
        layers.extend([("older".to_owned(), "older"), self.name(0)]);
        layers
    }
}

/// Groups by their release, over time.
#[derive(Debug, Clone)]
pub(super) struct Adoption {
    span: Span,
    layers: Vec<Layer>,
    /// Some moments, with how many groups were in each layer.
    rows: Vec<(Timestamp, Vec<u64>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Layer {
    name: String,
    look: &'static str,
    path: String,
}

impl Adoption {
    /// From how many groups are on each release now, and who went from which to which since then.
    /// `None`: there is nothing to draw.
    pub(super) fn of(
        census: &[(u32, u64)],
        moves: &[Moved],
        looks: &Looks,
        since: Timestamp,
        now: Timestamp,
    ) -> Option<Self> {
        let mut counts = Counts::new(census);
        moves.iter().rev().for_each(|it| counts.go(it.to, it.from, it.groups));
        // A young fleet is as wide as it is old.
        let from = match moves.first() {
            Some(first) if counts.is_empty() => first.at.min(now),
            _ => since,
        };
        let span = Span { from, to: now };
        let mut columns = vec![(0, counts.by_layer(looks))];
        for it in moves {
            counts.go(it.from, it.to, it.groups);
            let across = span.across(it.at) / COLUMN * COLUMN;
            match columns.last_mut() {
                Some(last) if last.0 == across => last.1 = counts.by_layer(looks),
                _ => columns.push((across, counts.by_layer(looks))),
            }
        }
        let top = columns.iter().map(|(_, counts)| counts.iter().sum::<u64>()).max()?;
        if top == 0 {
            return None;
        }
        let has_any = |index: &usize| columns.iter().any(|(_, counts)| counts[*index] > 0);
        let shown: Vec<usize> = (0..counts_of(&columns)).filter(has_any).collect();
        let all = looks.layers();
        let layer = |index: &usize| {
            let (name, look) = all.get(*index).cloned().unwrap_or_default();
            Layer { name, look, path: layer_path(&columns, *index, top) }
        };
        let rows = (0..=ROWS).map(|row| {
            let at = span.at(row * WIDE / ROWS);
            let column = columns.iter().rev().find(|(across, _)| *across <= row * WIDE / ROWS);
            let counts = column.map(|(_, counts)| counts.as_slice()).unwrap_or_default();
            (at, shown.iter().map(|it| counts.get(*it).copied().unwrap_or(0)).collect())
        });
        Some(Self { span, layers: shown.iter().map(layer).collect(), rows: rows.collect() })
    }

    fn now(&self) -> &[u64] {
        self.rows.last().map(|(_, counts)| counts.as_slice()).unwrap_or_default()
    }
}

/// How many layers columns have.
fn counts_of(columns: &[(i128, Vec<u64>)]) -> usize {
    columns.first().map_or(0, |(_, counts)| counts.len())
}

/// What lies between the layers below and the upper edge of this one.
fn layer_path(columns: &[(i128, Vec<u64>)], index: usize, top: u64) -> String {
    let edge = |counts: &[u64], layers: usize| {
        let sum: u64 = counts.iter().take(layers).sum();
        HIGH - HIGH * i128::from(sum) / i128::from(top.max(1))
    };
    let mut path = String::new();
    for (across, counts) in columns {
        let up = edge(counts, index + 1);
        // Writing to a text does not fail.
        let _ = match path.is_empty() {
            true => write!(path, "M{across} {up}"),
            false => write!(path, "H{across}V{up}"),
        };
    }
    let _ = write!(path, "H{WIDE}");
    for (across, counts) in columns.iter().rev() {
        let _ = write!(path, "V{}H{across}", edge(counts, index));
    }
    path + "Z"
}

impl fmt::Display for Adoption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { span, layers, rows } = self;
        let now = layers.iter().zip(self.now());
        let said: Vec<_> = now.clone().map(|(it, count)| format!("{}: {count}", it.name)).collect();
        write!(
            f,
            "<figure>{PLOT}><title>Groups by release over time</title><desc>Now {}. The table \
             below has the days before.</desc>{GRID}",
            plain(&said.join(", "))
        )?;
        for Layer { look, path, .. } in layers {
            write!(f, "<path class=\"layer look-{look}\" d=\"{path}\"/>")?;
        }
        write!(
            f,
            "</svg><figcaption class=\"row far\"><span>{}</span><span>now</span></figcaption>\
             </figure>{}<details class=\"figures\"><summary>As a table</summary><table><thead><tr>\
             <th>When</th>",
            shown::when(span.from),
            Legend(now.map(|(it, count)| (&*it.name, it.look, *count)))
        )?;
        for layer in layers {
            write!(f, "<th>{}</th>", plain(&layer.name))?;
        }
        f.write_str("</tr></thead><tbody>")?;
        for (at, counts) in rows {
            write!(f, "<tr><th scope=\"row\">{}</th>", shown::exact(at))?;
            for (layer, count) in layers.iter().zip(counts) {
                write!(f, "<td data-h=\"{}\">{count}</td>", plain(&layer.name))?;
            }
            f.write_str("</tr>")?;
        }
        f.write_str("</tbody></table></details>")
    }
}

impl HtmlSafe for Adoption {}

/// Groups on each release. What was not taken down (an older server) must not go below nothing.
struct Counts(BTreeMap<u32, u64>);

impl Counts {
    fn new(census: &[(u32, u64)]) -> Self {
        Self(census.iter().copied().collect())
    }

    fn go(&mut self, from: Option<u32>, to: Option<u32>, groups: u64) {
        if let Some(from) = from {
            let count = self.0.entry(from).or_default();
            *count = count.saturating_sub(groups);
        }
        if let Some(to) = to {
            *self.0.entry(to).or_default() += groups;
        }
    }

    fn is_empty(&self) -> bool {
        self.0.values().all(|count| *count == 0)
    }

    fn by_layer(&self, looks: &Looks) -> Vec<u64> {
        let mut layers = vec![0; NAMED.len() + 2];
        for (number, count) in &self.0 {
            if let Some(layer) = layers.get_mut(looks.layer(*number)) {
                *layer += count;
            }
        }
        layers
    }
}

/// How long things took, in one row for each release: a line for each of them on a common scale.
#[derive(Debug, Clone)]
pub(super) struct Strips {
    what: &'static str,
    /// A length in words.
    words: fn(u64) -> String,
    max_ms: u64,
    strips: Vec<Strip>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Strip {
    number: u32,
    kept_ms: Vec<u64>,
    reverted_ms: Vec<u64>,
}

impl Strips {
    /// How long rollouts took, by release, the newest first.
    pub(super) fn of_rollouts(took: &[Took]) -> Option<Self> {
        Self::of("rollouts", shown::took, took, |it| it.took_ms)
    }

    /// How long members of a group ran different releases in rollouts that were kept.
    pub(super) fn of_disagreement(took: &[Took]) -> Option<Self> {
        let length = |it: &Took| {
            let kept = it.disagreed_s.filter(|_| it.verdict == "keep");
            kept.map(|s| u64::from(s) * 1000)
        };
        Self::of("disagreement", whole_seconds, took, length)
    }

    fn of(
        what: &'static str,
        words: fn(u64) -> String,
        took: &[Took],
        length: fn(&Took) -> Option<u64>,
    ) -> Option<Self> {
        let mut strips: BTreeMap<u32, Strip> = BTreeMap::new();
        for it in took {
            let Some(length_ms) = length(it) else { continue };
            let empty = Strip { number: it.number, kept_ms: Vec::new(), reverted_ms: Vec::new() };
            let strip = strips.entry(it.number).or_insert(empty);
            match it.verdict.as_str() {
                "keep" => strip.kept_ms.push(length_ms),
                _ => strip.reverted_ms.push(length_ms),
            }
        }
        let mut strips: Vec<Strip> = strips.into_values().rev().take(STRIPS_MAX).collect();
        let all = |it: &Strip| it.kept_ms.iter().chain(&it.reverted_ms).copied().max();
        let max_ms = strips.iter().filter_map(all).max()?.max(1000);
        for strip in &mut strips {
            strip.kept_ms.sort_unstable();
            strip.reverted_ms.sort_unstable();
        }
        Some(Self { what, words, max_ms, strips })
    }
}

/// So many of a hundred took as long as this, or less; the lengths are sorted.
fn percentile(sorted_ms: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted_ms.len() * percent).div_ceil(100).max(1);
    sorted_ms.get(rank - 1).copied()
}

impl Strip {
    /// Upright lines, one for each length; those at the same place are one.
    fn lines(lengths_ms: &[u64], max_ms: u64) -> String {
        let places: BTreeSet<u64> = lengths_ms.iter().map(|ms| across_ms(*ms, max_ms)).collect();
        places.iter().fold(String::new(), |path, across| path + &format!("M{across} 5V19"))
    }

    fn put(&self, f: &mut fmt::Formatter<'_>, of_all: &Strips) -> fmt::Result {
        let Self { number, kept_ms, reverted_ms } = self;
        let Strips { words, max_ms, .. } = *of_all;
        let what = shown::capital(of_all.what);
        let version = shown::version(number);
        let of = |percent| percentile(kept_ms, percent).map_or("–".to_owned(), words);
        let (median, most) = (of(50), of(95));
        let said = match kept_ms.is_empty() {
            true => "none kept".to_owned(),
            false => format!("half within {median}, 95 of 100 within {most}"),
        };
        write!(
            f,
            "<tr><th scope=\"row\">{version}</th><td class=\"strip-cell\"><svg class=\"strip\" \
             viewBox=\"0 0 1000 24\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{what} \
             of {version}: {said}\"><path class=\"grid\" \
             d=\"M0 12H1000\"/><path class=\"tick\" d=\"{}\"/><path class=\"tick bad\" d=\"{}\"/>",
            Self::lines(kept_ms, max_ms),
            Self::lines(reverted_ms, max_ms)
        )?;
        if let Some(middle_ms) = percentile(kept_ms, 50) {
            write!(
                f,
                "<path class=\"tick middle\" d=\"M{} 0V24\"/>",
                across_ms(middle_ms, max_ms)
            )?;
        }
        write!(
            f,
            "</svg></td><td data-h=\"Median\">{median}</td><td data-h=\"95 % within\">{most}</td>\
             <td data-h=\"Rollouts\">{} kept",
            kept_ms.len()
        )?;
        if !reverted_ms.is_empty() {
            write!(f, ", {} reverted", reverted_ms.len())?;
        }
        f.write_str("</td></tr>")
    }
}

impl fmt::Display for Strips {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { words, max_ms, strips, .. } = self;
        write!(
            f,
            "<table class=\"strips\"><thead><tr><th>Release</th><th class=\"strip-cell\"><span \
             class=\"row far\"><span>0 s</span><span>{}</span></span></th><th>Median</th>\
             <th>95 % within</th><th>Rollouts</th></tr></thead><tbody>",
            words(*max_ms)
        )?;
        for strip in strips {
            strip.put(f, self)?;
        }
        write!(f, "</tbody></table>")
    }
}

impl HtmlSafe for Strips {}

/// What is only known to a second.
fn whole_seconds(ms: u64) -> String {
    match ms / 1000 {
        0 => "under 1 s".to_owned(),
        s => shown::seconds(i64::try_from(s).unwrap_or(i64::MAX)),
    }
}

fn across_ms(length_ms: u64, max_ms: u64) -> u64 {
    // Not at the very edge, where half of a line is cut off.
    2 + length_ms * 996 / max_ms.max(1)
}

/// A stretch of time as wide as a plot.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: Timestamp,
    to: Timestamp,
}

impl Span {
    fn ms(self) -> i128 {
        self.to.duration_since(self.from).as_millis().max(1)
    }

    fn across(self, at: Timestamp) -> i128 {
        (at.duration_since(self.from).as_millis() * WIDE / self.ms()).clamp(0, WIDE)
    }

    fn at(self, across: i128) -> Timestamp {
        let ms = i64::try_from(self.ms() * across / WIDE).unwrap_or(0);
        let length = jiff::SignedDuration::from_millis(ms);
        self.from.checked_add(length).unwrap_or(self.to)
    }
}

/// The plots' own units.
const WIDE: i128 = 1000;
const HIGH: i128 = 200;
/// Two moves that are nearer to each other than this are drawn as one.
const COLUMN: i128 = 4;
/// Moments of a plot's table, less one.
const ROWS: i128 = 5;
/// Releases that have a row of their own, at most.
const STRIPS_MAX: usize = 5;
/// How the newest releases look.
const NAMED: [&str; 4] = ["first", "second", "third", "fourth"];
const PLOT: &str = "<svg class=\"plot\" viewBox=\"0 0 1000 200\" preserveAspectRatio=\"none\" \
    role=\"img\"";
const GRID: &str = "<path class=\"grid\" d=\"M0 1H1000M0 100H1000M0 199H1000\"/>";

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    fn moved(second: i64, from: Option<u32>, to: Option<u32>, groups: u64) -> Moved {
        Moved { at: at(second), from, to, groups }
    }

    fn took(number: u32, verdict: &str, took_ms: u64) -> Took {
        let verdict = verdict.to_owned();
        Took { number, verdict, took_ms: Some(took_ms), disagreed_s: None }
    }

    #[test]
    fn the_parts_of_a_bar_fill_it_exactly() {
        let part = |name: &str, count| (name.to_owned(), "x", count);
        let bar = Bar::of("of", [part("a", 1), part("none", 0), part("b", 1), part("c", 1)]);
        assert_eq!(bar.parts.len(), 3);
        assert_eq!(bar.parts.iter().map(|part| part.wide).sum::<u64>(), 1000);
        assert!(bar.parts.windows(2).all(|pair| pair[0].from + pair[0].wide == pair[1].from));
        let svg = bar.to_string();
        assert!(svg.contains("aria-label=\"of: a: 1, b: 1, c: 1\""), "{svg}");
    }

    #[test]
    fn a_name_in_a_plot_stays_text() {
        let bar = Bar::of("\"><script>", [("<b>&".to_owned(), "x", 1)]).to_string();
        assert!(!bar.contains("<script>") && !bar.contains("<b>&"), "{bar}");
        assert!(bar.contains("&lt;b&gt;&amp;"), "{bar}");
    }

    #[test]
    fn steps_rise_where_groups_kept_the_release_and_end_at_its_share() {
        let steps = Steps::of(vec![at(75), at(25)], 4, at(0), at(100));
        assert_eq!(steps.path, "M0 200H250V150H750V100H1000");
        assert!(steps.to_string().contains("<b>2 of 4 kept</b>"));
    }

    /// Three groups came on 1.0.0; two of them went on, one of these was removed.
    #[test]
    fn what_groups_ran_before_follows_from_what_they_run_now_and_where_they_went() {
        let (old, new) = (10_000, 10_100);
        let moves = [
            moved(0, None, Some(old), 3),
            moved(50, Some(old), Some(new), 2),
            moved(75, Some(new), None, 1),
        ];
        let looks = Looks::of([old, new]);
        let census = [(old, 1), (new, 1)];
        let plot = Adoption::of(&census, &moves, &looks, at(-1000), at(100)).unwrap();
        assert_eq!(plot.span.from, at(0), "a young fleet is as wide as it is old");
        let names: Vec<_> = plot.layers.iter().map(|it| (it.name.as_str(), it.look)).collect();
        assert_eq!(names, [("1.1.0", "first"), ("1.0.0", "second")]);
        // Of at most three groups: none, two, one on the new release.
        assert_eq!(plot.layers[0].path, "M0 200H500V67H748V134H1000V200H748V200H500V200H0Z");
        let counts: Vec<_> = plot.rows.iter().map(|(_, counts)| counts.as_slice()).collect();
        assert_eq!(counts, [[0, 3], [0, 3], [0, 3], [2, 1], [1, 1], [1, 1]]);
    }

    #[test]
    fn a_fleet_that_was_there_before_is_drawn_from_the_first_day_on() {
        let looks = Looks::of([10_000]);
        let plot = Adoption::of(&[(10_000, 2)], &[], &looks, at(0), at(100)).unwrap();
        assert_eq!(plot.span.from, at(0));
        assert_eq!(plot.layers[0].path, "M0 0H1000V200H0Z");
        assert!(Adoption::of(&[], &[], &looks, at(0), at(100)).is_none());
    }

    #[test]
    fn releases_behind_the_fourth_share_a_layer_and_what_is_none_has_its_own() {
        let numbers = [10_000, 10_100, 10_200, 10_300, 10_400, 10_500];
        let looks = Looks::of(numbers);
        let census: Vec<_> =
            numbers.map(|number| (number, 1)).into_iter().chain([(0, 1)]).collect();
        let plot = Adoption::of(&census, &[], &looks, at(0), at(100)).unwrap();
        let names: Vec<_> = plot.layers.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["1.5.0", "1.4.0", "1.3.0", "1.2.0", "older", "no one release"]);
        assert_eq!(plot.now(), [1, 1, 1, 1, 2, 1]);
    }

    #[test]
    fn half_and_95_of_a_hundred_are_those_that_were_measured() {
        let lengths: Vec<u64> = (1..=20).map(|it| it * 1000).collect();
        assert_eq!(percentile(&lengths, 50), Some(10_000));
        assert_eq!(percentile(&lengths, 95), Some(19_000));
        assert_eq!(percentile(&[7], 95), Some(7));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn strips_have_one_scale_and_count_what_was_reverted_apart() {
        let all = [
            took(10_100, "keep", 40_000),
            took(10_100, "keep", 20_000),
            took(10_100, "revert", 80_000),
            took(10_000, "keep", 10_000),
        ];
        let strips = Strips::of_rollouts(&all).unwrap();
        assert_eq!((strips.max_ms, strips.strips[0].number), (80_000, 10_100));
        assert_eq!(strips.strips[0].kept_ms, [20_000, 40_000]);
        let text = strips.to_string();
        assert!(text.contains("<span>80 s</span>"), "{text}");
        assert!(text.contains("2 kept, 1 reverted"), "{text}");
        assert!(text.contains("half within 20 s, 95 of 100 within 40 s"), "{text}");
        assert!(text.contains("d=\"M251 5V19M500 5V19\""), "{text}");
        assert!(Strips::of_disagreement(&all).is_none());
    }
}
