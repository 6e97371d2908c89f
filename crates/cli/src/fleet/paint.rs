//! A campaign as people see it: each wave a bar, and below them whoever has failed and why.
//!
//! Text and nothing else, so that it can be looked at in a terminal, in a file, and by a test.

use anstyle::{AnsiColor, Style};

use super::answers::{Campaign, Participant};
use crate::ui::{listed, tame};

/// All lines, each in the colours of a terminal.
pub fn campaign(campaign: &Campaign) -> Vec<String> {
    let mut lines = vec![head(campaign)];
    let names: Vec<String> = (0..campaign.waves.len()).map(|wave| title(campaign, wave)).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    for (wave, name) in names.iter().enumerate() {
        let groups: Vec<_> = campaign.groups.iter().filter(|it| it.wave == wave).collect();
        let (bar, counts) = (bar(&groups), counts(&groups));
        lines.push(format!("  {name:width$}  {bar}  {counts}"));
    }
    let has_cause = |it: &&Participant| it.cause.as_ref().is_some_and(|cause| !cause.is_empty());
    let told = campaign.groups.iter().filter(has_cause);
    let told: Vec<&Participant> = told.collect();
    for group in told.iter().take(CAUSES_MAX) {
        let style = style_of(&group.standing);
        let (name, cause) = (tame(&group.name), tame(group.cause.as_deref().unwrap_or_default()));
        lines.push(format!("  {style}{}{style:#} {name}: {cause}", tame(&group.standing)));
    }
    if let Some(more) = told.len().checked_sub(CAUSES_MAX).filter(|more| *more > 0) {
        lines.push(format!("  and {more} more: --json has all of them"));
    }
    lines
}

fn head(campaign: &Campaign) -> String {
    let (name, state) = (tame(&campaign.name), tame(&campaign.state));
    let style = match state.as_str() {
        "running" => AnsiColor::Cyan.on_default(),
        "done" => AnsiColor::Green.on_default(),
        _ => AnsiColor::Yellow.on_default(),
    };
    let why = if campaign.why.is_empty() { "" } else { ": " };
    let (groups, why_text) = (campaign.groups.len(), tame(&campaign.why));
    let noun = if groups == 1 { "group" } else { "groups" };
    let bold = Style::new().bold();
    format!("{bold}{name}{bold:#}  {style}{state}{style:#}{why}{why_text}  ({groups} {noun})")
}

fn title(campaign: &Campaign, wave: usize) -> String {
    let Some(plan) = campaign.waves.get(wave) else { return String::new() };
    let share = match plan.percent {
        0 => "canary".to_owned(),
        percent => format!("{percent} %"),
    };
    let approval = match (plan.needs_approval, plan.is_approved) {
        (true, false) => ", to be approved",
        (true, true) => ", approved",
        (false, _) => "",
    };
    format!("wave {}  {share}{approval}", wave + 1)
}

/// Each standing has so much of the bar as it has groups; none that has any is left out while there
/// is room.
fn bar(groups: &[&Participant]) -> String {
    let shares = shares(&STANDINGS.map(|(standing, _)| count(groups, standing)), BAR_CELLS);
    let mut bar = String::from("[");
    for ((standing, cell), cells) in STANDINGS.into_iter().zip(shares) {
        let style = style_of(standing);
        if cells > 0 {
            bar += &format!("{style}{}{style:#}", cell.to_string().repeat(cells));
        }
    }
    bar + "]"
}

/// Divides so many cells by these counts; the largest remainders get what is left.
fn shares(counts: &[usize; 6], cells: usize) -> [usize; 6] {
    let total: usize = counts.iter().sum();
    let mut shares = [0; 6];
    if total == 0 {
        // Nobody: as if all were waiting.
        shares[5] = cells;
        return shares;
    }
    for (share, count) in shares.iter_mut().zip(counts) {
        *share = (count * cells / total).max(usize::from(*count > 0));
    }
    loop {
        let used: usize = shares.iter().sum();
        let wish = |at: usize| counts[at] * cells;
        let order = |at: &usize| wish(*at).abs_diff(shares[*at] * total);
        if used < cells {
            let lacks = |at: &usize| wish(*at) > shares[*at] * total;
            let next = (0..6).filter(lacks).max_by_key(order).unwrap_or(0);
            shares[next] += 1;
        } else if used > cells {
            let large = |at: &usize| shares[*at] > 1;
            let next = (0..6).filter(large).max_by_key(|at| shares[*at]).unwrap_or(0);
            shares[next] -= 1;
        } else {
            return shares;
        }
    }
}

fn counts(groups: &[&Participant]) -> String {
    let some = STANDINGS.into_iter().filter_map(|(standing, _)| {
        let count = count(groups, standing);
        let style = style_of(standing);
        (count > 0).then(|| format!("{style}{count} {standing}{style:#}"))
    });
    match groups {
        [] => "no group".to_owned(),
        _ => listed(some),
    }
}

fn count(groups: &[&Participant], standing: &str) -> usize {
    groups.iter().filter(|group| group.standing == standing).count()
}

fn style_of(standing: &str) -> Style {
    match standing {
        "kept" => AnsiColor::Green.on_default(),
        "failed" => AnsiColor::Red.on_default(),
        "began" | "offered" => AnsiColor::Cyan.on_default(),
        _ => Style::new().dimmed(),
    }
}

/// How a group may stand, and how a cell of it looks.
const STANDINGS: [(&str, char); 6] = [
    ("kept", '#'),
    ("failed", '!'),
    ("began", '>'),
    ("offered", '-'),
    ("skipped", '/'),
    ("waits", '.'),
];
const BAR_CELLS: usize = 30;
/// Causes that are told in lines of their own.
const CAUSES_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::answers::Wave;

    fn group(wave: usize, standing: &str, cause: Option<&str>) -> Participant {
        let (name, standing) = (format!("g{wave}"), standing.to_owned());
        Participant { name, wave, standing, cause: cause.map(str::to_owned), ..Default::default() }
    }

    #[test]
    fn a_bar_is_full_and_leaves_nobody_out() {
        for counts in [[1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 100_000], [7, 0, 3, 0, 0, 11], [0; 6]] {
            let shares = shares(&counts, BAR_CELLS);
            assert_eq!(shares.iter().sum::<usize>(), BAR_CELLS, "{counts:?}");
            let shown = counts.iter().zip(shares).all(|(count, share)| *count == 0 || share > 0);
            assert!(shown, "{counts:?}: {shares:?}");
        }
    }

    #[test]
    fn a_campaign_tells_its_waves_and_why_a_group_failed() {
        let wave = |percent| Wave { percent, ..Wave::default() };
        let shown = Campaign {
            name: "desk 1.2.0".into(),
            state: "paused".into(),
            why: "1 group failed".into(),
            waves: vec![wave(0), Wave { needs_approval: true, ..wave(9) }],
            groups: vec![
                group(0, "kept", Some("")),
                group(0, "failed", Some("never healthy")),
                group(1, "waits", None),
            ],
            ..Campaign::default()
        };
        let text = campaign(&shown).join("\n");
        let plain = anstream::adapter::strip_str(&text).to_string();
        let lines = [
            "desk 1.2.0  paused: 1 group failed  (3 groups)",
            "  wave 1  canary               [###############!!!!!!!!!!!!!!!]  1 kept and 1 failed",
            "  wave 2  9 %, to be approved  [..............................]  1 waits",
            "  failed g0: never healthy",
        ];
        assert_eq!(plain.lines().collect::<Vec<_>>(), lines);
    }
}
