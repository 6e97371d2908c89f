//! How a group looks: devices above, the rollout in the middle, the log below.

use std::io::Stdout;
use std::time::Instant;

use anstream::{AutoStream, ColorChoice};
use lockstep_proto::version::ReleaseVersion;
use ratatui::backend::TestBackend;
use ratatui::buffer::Cell;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Table};
use ratatui::{Frame, Terminal};

use super::{Answers, Group};
use crate::client::api::{LogLine, Member, Peer, Rollout, Version};
use crate::ui::tame;

/// Whether there are any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colours {
    /// As the screen was made for.
    Shown,
    /// Somebody does not want them: bold and dim are left.
    Off,
}

impl Colours {
    /// What `NO_COLOR` and its likes ask for.
    pub(crate) fn of(stdout: &Stdout) -> Self {
        match AutoStream::choice(stdout) {
            ColorChoice::Never => Self::Off,
            ColorChoice::Auto | ColorChoice::AlwaysAnsi | ColorChoice::Always => Self::Shown,
        }
    }
}

/// The picture as lines of text, as high as its content.
pub(crate) fn picture(group: &Group, now: Instant, width: u16) -> String {
    let log = rows(group.answers.logs.len().min(LOG_LINES_ONCE)).saturating_add(2);
    let [devices, rollout] = heights(group);
    let height = devices.saturating_add(rollout).saturating_add(log).saturating_add(2);
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(drawn) = terminal.draw(|frame| draw(frame, group, now, Colours::Off));
    let lines = drawn.buffer.content.chunks(width.max(1).into()).map(|cells| {
        let line: String = cells.iter().map(Cell::symbol).collect();
        line.trim_end().to_owned()
    });
    // Keys mean nothing on paper.
    let lines: Vec<String> = lines.take(usize::from(height).saturating_sub(1)).collect();
    lines.join("\n")
}

/// Draws all of it.
pub(crate) fn draw(frame: &mut Frame<'_>, group: &Group, now: Instant, colours: Colours) {
    let version = &group.answers.version;
    let [devices, rollout] = heights(group);
    let [head, devices, rollout, log, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(devices),
        Constraint::Length(rollout),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(head_line(group, now), head);
    frame.render_widget(device_table(version), devices);
    draw_rollout(frame, group.answers.rollout.as_ref(), rollout);
    frame.render_widget(log_lines(&group.answers.logs, log.height), log);
    frame.render_widget(Paragraph::new("q: end, the group goes on by itself").style(DIM), foot);
    if colours == Colours::Off {
        for cell in &mut frame.buffer_mut().content {
            (cell.fg, cell.bg) = (Color::Reset, Color::Reset);
        }
    }
}

/// Rows of the devices and of the rollout, each with its frame.
fn heights(group: &Group) -> [u16; 2] {
    let Answers { version, rollout, .. } = &group.answers;
    let in_rollout = rollout_lines(rollout.as_ref()).len();
    [rows(version.peers.len()).saturating_add(4), rows(in_rollout).saturating_add(2)]
}

fn rows(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn head_line(group: &Group, now: Instant) -> Paragraph<'_> {
    let title = Span::styled(format!("Lockstep  {}  ", tame(&group.device)), BOLD);
    let state = match (&group.trouble, group.silent_since) {
        (Some(text), _) => Span::styled(tame(text), BAD),
        (None, Some(since)) => {
            let seconds = now.saturating_duration_since(since).as_secs();
            let text = format!("silent for {seconds} s, asked again; it reboots, perhaps");
            Span::styled(text, WARN)
        }
        (None, None) => Span::styled("answers", GOOD),
    };
    Paragraph::new(Line::from(vec![title, state]))
}

fn device_table(version: &Version) -> Table<'static> {
    let role = tame(version.role.as_deref().unwrap_or("unknown"));
    let role = if version.lead { format!("{role} (lead)") } else { role };
    let trial = if version.on_trial { ", on trial" } else { "" };
    let own = Row::new([role, format!("{}{trial}", tame(&version.version)), "asked".to_owned()]);
    let rows = std::iter::once(own).chain(version.peers.iter().map(peer_row));
    let widths = [Constraint::Length(18), Constraint::Length(16), Constraint::Min(20)];
    Table::new(rows, widths)
        .header(Row::new(["DEVICE", "VERSION", "LINK"]).style(DIM))
        .block(Block::bordered().title(" Devices "))
}

fn peer_row(peer: &Peer) -> Row<'static> {
    let role = tame(peer.role.as_deref().unwrap_or(&peer.id));
    let version = peer.version_number.map_or_else(
        || "unknown".to_owned(),
        |number| ReleaseVersion::from_number(number).to_string(),
    );
    let (link, style) = match (peer.compatible, peer.linked) {
        (Some(false), _) => {
            (format!("no data: {}", peer.why.as_deref().unwrap_or("not compatible")), BAD)
        }
        (_, true) => ("up".to_owned(), GOOD),
        (_, false) => match peer.heard_ms_ago {
            Some(ms) => (format!("down, heard {} s ago", ms / 1000), WARN),
            None => ("never heard".to_owned(), WARN),
        },
    };
    Row::new([Span::raw(role), Span::raw(version), Span::styled(tame(&link), style)])
}

fn draw_rollout(frame: &mut Frame<'_>, rollout: Option<&Rollout>, area: Rect) {
    let title = match rollout {
        Some(rollout) => format!(" Rollout {} to {} ", tame(&rollout.kind), tame(&rollout.release)),
        None => " Rollout ".to_owned(),
    };
    let lines = Paragraph::new(rollout_lines(rollout)).block(Block::bordered().title(title));
    frame.render_widget(lines, area);
}

fn rollout_lines(rollout: Option<&Rollout>) -> Vec<Line<'static>> {
    let Some(rollout) = rollout else {
        return vec![Line::styled("none yet, or ask the lead", DIM)];
    };
    let mut lines = vec![phases(rollout), verdict(rollout)];
    for member in &rollout.members {
        lines.push(member_line(member));
        if let Some(why) = &member.refused {
            lines.push(Line::styled(tame(&format!("{:ROLE_COLUMNS$}refused: {why}", "")), BAD));
        }
    }
    lines
}

/// `preflight ─ staging ─ [rest] ─ trial ─ settling ─ settled`
fn phases(rollout: &Rollout) -> Line<'static> {
    let present = PHASES.iter().position(|phase| *phase == rollout.phase);
    let mut spans = Vec::new();
    for (index, phase) in PHASES.iter().enumerate() {
        if index > 0 {
            spans.push(Span::styled(" ─ ", DIM));
        }
        spans.push(match present {
            Some(present) if index < present => Span::styled(*phase, GOOD),
            Some(present) if index == present => Span::styled(format!("[{phase}]"), BOLD),
            _ => Span::styled(*phase, DIM),
        });
    }
    Line::from(spans)
}

fn verdict(rollout: &Rollout) -> Line<'static> {
    let waits = match (rollout.held, rollout.schedule_lost, rollout.starts_in_s) {
        (false, ..) => None,
        (true, true, _) => Some("waits: a restart of the lead has lost its schedule".to_owned()),
        (true, false, Some(seconds)) => Some(format!("waits, goes on in {seconds} s")),
        (true, false, None) => Some("waits until somebody says so".to_owned()),
    };
    let (text, style) = match (rollout.verdict.as_deref(), &rollout.cause, waits) {
        (Some("keep"), ..) => ("verdict: keep".to_owned(), GOOD),
        (Some(other), Some(cause), _) => (format!("verdict: {other}, {}", cause.text), WARN),
        (Some(other), None, _) => (format!("verdict: {other}"), WARN),
        (None, _, Some(waits)) => (waits, WARN),
        (None, _, None) => ("no verdict yet".to_owned(), DIM),
    };
    Line::styled(tame(&text), style)
}

/// How much of its image a member has in its flash, and what it is doing.
fn member_line(member: &Member) -> Line<'static> {
    let role = Span::raw(format!("{:ROLE_COLUMNS$}", tame(&member.role)));
    let state = tame(&member.state);
    if member.size_bytes == 0 {
        return Line::from(vec![role, Span::raw(state)]);
    }
    let percent = (member.staged_bytes.saturating_mul(100) / member.size_bytes).min(100);
    let full = usize::try_from(percent).unwrap_or(100) * BAR_COLUMNS / 100;
    let bar = format!("{}{}", "█".repeat(full), "░".repeat(BAR_COLUMNS - full));
    let left = match member.remaining_s {
        Some(seconds) if percent < 100 => format!(", {seconds} s left"),
        _ => String::new(),
    };
    let text = format!(" {percent:3} % of {} KiB{left}, {state}", member.size_bytes / 1024);
    Line::from(vec![role, Span::styled(bar, BAR), Span::raw(text)])
}

fn log_lines(logs: &[LogLine], height: u16) -> Paragraph<'static> {
    let fit = usize::from(height.saturating_sub(2));
    let lines = logs.iter().skip(logs.len().saturating_sub(fit)).map(|line| {
        let style = match line.level.as_str() {
            "error" => BAD,
            "warning" => WARN,
            _ => Style::new(),
        };
        let seconds = format!("{:>6}.{} ", line.uptime_ms / 1000, line.uptime_ms % 1000 / 100);
        Line::from(vec![Span::styled(seconds, DIM), Span::styled(tame(&line.text), style)])
    });
    Paragraph::new(lines.collect::<Vec<_>>()).block(Block::bordered().title(" Log of this boot "))
}

/// For the name of a member.
const ROLE_COLUMNS: usize = 14;
/// For how far it is.
const BAR_COLUMNS: usize = 12;
/// Lines of the log in a picture of text.
const LOG_LINES_ONCE: usize = 12;
const PHASES: [&str; 6] = ["preflight", "staging", "rest", "trial", "settling", "settled"];
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const GOOD: Style = Style::new().fg(Color::Green);
const WARN: Style = Style::new().fg(Color::Yellow);
const BAD: Style = Style::new().fg(Color::Red);
const BAR: Style = Style::new().fg(Color::Cyan);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use expect_test::{Expect, expect};
    use ratatui::buffer::Buffer;
    use serde_json::{Value, json};

    use super::super::News;
    use super::*;

    fn drawn(group: &Group, now: Instant, size: (u16, u16), colours: Colours) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
        terminal.draw(|frame| draw(frame, group, now, colours)).unwrap().buffer.clone()
    }

    fn shown(group: &Group, now: Instant, width: u16, height: u16) -> String {
        let buffer = drawn(group, now, (width, height), Colours::Shown);
        let lines = buffer.content.chunks(width.into()).map(|cells| {
            let line: String = cells.iter().map(Cell::symbol).collect();
            line.trim_end().to_owned()
        });
        lines.collect::<Vec<_>>().join("\n") + "\n"
    }

    fn group(rollout: Value) -> Group {
        let version = json!({
            "role": "receiver", "lead": true, "version": "1.0.0",
            "peers": [{"id": "02:00:00:00:00:02", "role": "transmitter", "version_number": 10_100,
                "linked": true, "compatible": false, "why": "protocol 2 is not spoken here"}],
        });
        let logs = json!([
            {"uptime_ms": 12, "level": "notice", "text": "booted 1.0.0"},
            {"uptime_ms": 2_990, "level": "warning", "text": "a \u{1b}[31mred\u{1b}[0m line"},
        ]);
        Group {
            device: "desk:8001".to_owned(),
            answers: Answers {
                version: serde_json::from_value(version).unwrap(),
                rollout: serde_json::from_value(rollout).unwrap(),
                logs: serde_json::from_value(logs).unwrap(),
            },
            silent_since: None,
            trouble: None,
        }
    }

    fn staging() -> Value {
        json!({
            "id": "17762bb28297659e", "kind": "forward", "phase": "staging", "release": "1.1.0",
            "members": [
                {"id": "a", "role": "receiver", "state": "staging", "staged_bytes": 409_600,
                    "size_bytes": 1_024_000, "remaining_s": 12},
                {"id": "b", "role": "transmitter", "state": "staged", "staged_bytes": 512_000,
                    "size_bytes": 512_000, "remaining_s": 0},
            ],
        })
    }

    fn assert_shown(expected: &Expect, rollout: Value) {
        expected.assert_eq(&shown(&group(rollout), Instant::now(), 78, 19));
    }

    #[test]
    fn a_rollout_that_is_staged_shows_how_far_everybody_is() {
        assert_shown(
            &expect![[r#"
                Lockstep  desk:8001  answers
                ┌ Devices ───────────────────────────────────────────────────────────────────┐
                │DEVICE             VERSION          LINK                                    │
                │receiver (lead)    1.0.0            asked                                   │
                │transmitter        1.1.0            no data: protocol 2 is not spoken here  │
                └────────────────────────────────────────────────────────────────────────────┘
                ┌ Rollout forward to 1.1.0 ──────────────────────────────────────────────────┐
                │preflight ─ [staging] ─ rest ─ trial ─ settling ─ settled                   │
                │no verdict yet                                                              │
                │receiver      ████░░░░░░░░  40 % of 1000 KiB, 12 s left, staging            │
                │transmitter   ████████████ 100 % of 500 KiB, staged                         │
                └────────────────────────────────────────────────────────────────────────────┘
                ┌ Log of this boot ──────────────────────────────────────────────────────────┐
                │     0.0 booted 1.0.0                                                       │
                │     2.9 a �[31mred�[0m line                                                │
                │                                                                            │
                │                                                                            │
                └────────────────────────────────────────────────────────────────────────────┘
                q: end, the group goes on by itself
            "#]],
            staging(),
        );
    }

    #[test]
    fn a_member_that_refuses_is_shown_with_its_reason() {
        let mut rollout = staging();
        rollout["members"][0]["refused"] = "the other slot is too small".into();
        assert_shown(
            &expect![[r#"
                Lockstep  desk:8001  answers
                ┌ Devices ───────────────────────────────────────────────────────────────────┐
                │DEVICE             VERSION          LINK                                    │
                │receiver (lead)    1.0.0            asked                                   │
                │transmitter        1.1.0            no data: protocol 2 is not spoken here  │
                └────────────────────────────────────────────────────────────────────────────┘
                ┌ Rollout forward to 1.1.0 ──────────────────────────────────────────────────┐
                │preflight ─ [staging] ─ rest ─ trial ─ settling ─ settled                   │
                │no verdict yet                                                              │
                │receiver      ████░░░░░░░░  40 % of 1000 KiB, 12 s left, staging            │
                │              refused: the other slot is too small                          │
                │transmitter   ████████████ 100 % of 500 KiB, staged                         │
                └────────────────────────────────────────────────────────────────────────────┘
                ┌ Log of this boot ──────────────────────────────────────────────────────────┐
                │     0.0 booted 1.0.0                                                       │
                │     2.9 a �[31mred�[0m line                                                │
                │                                                                            │
                └────────────────────────────────────────────────────────────────────────────┘
                q: end, the group goes on by itself
            "#]],
            rollout,
        );
    }

    #[test]
    fn a_release_that_preflight_refused_is_in_the_log() {
        let mut group = group(Value::Null);
        group.answers.logs = serde_json::from_value(json!([
            {"uptime_ms": 61_250, "level": "notice",
                "text": "rollout refused: `transmitter` cannot go back by itself"},
        ]))
        .unwrap();
        expect![[r#"
            Lockstep  desk:8001  answers
            ┌ Devices ───────────────────────────────────────────────────────────────────┐
            │DEVICE             VERSION          LINK                                    │
            │receiver (lead)    1.0.0            asked                                   │
            │transmitter        1.1.0            no data: protocol 2 is not spoken here  │
            └────────────────────────────────────────────────────────────────────────────┘
            ┌ Rollout ───────────────────────────────────────────────────────────────────┐
            │none yet, or ask the lead                                                   │
            └────────────────────────────────────────────────────────────────────────────┘
            ┌ Log of this boot ──────────────────────────────────────────────────────────┐
            │    61.2 rollout refused: `transmitter` cannot go back by itself            │
            │                                                                            │
            └────────────────────────────────────────────────────────────────────────────┘
            q: end, the group goes on by itself
        "#]]
        .assert_eq(&shown(&group, Instant::now(), 78, 14));
    }

    #[test]
    fn a_rollout_that_went_back_says_why() {
        let mut rollout = staging();
        rollout["phase"] = "settled".into();
        rollout["verdict"] = "revert".into();
        rollout["cause"] = json!({"code": "fell-back", "text": "transmitter fell back"});
        assert_shown(
            &expect![[r#"
                Lockstep  desk:8001  answers
                ┌ Devices ───────────────────────────────────────────────────────────────────┐
                │DEVICE             VERSION          LINK                                    │
                │receiver (lead)    1.0.0            asked                                   │
                │transmitter        1.1.0            no data: protocol 2 is not spoken here  │
                └────────────────────────────────────────────────────────────────────────────┘
                ┌ Rollout forward to 1.1.0 ──────────────────────────────────────────────────┐
                │preflight ─ staging ─ rest ─ trial ─ settling ─ [settled]                   │
                │verdict: revert, transmitter fell back                                      │
                │receiver      ████░░░░░░░░  40 % of 1000 KiB, 12 s left, staging            │
                │transmitter   ████████████ 100 % of 500 KiB, staged                         │
                └────────────────────────────────────────────────────────────────────────────┘
                ┌ Log of this boot ──────────────────────────────────────────────────────────┐
                │     0.0 booted 1.0.0                                                       │
                │     2.9 a �[31mred�[0m line                                                │
                │                                                                            │
                │                                                                            │
                └────────────────────────────────────────────────────────────────────────────┘
                q: end, the group goes on by itself
            "#]],
            rollout,
        );
    }

    #[test]
    fn a_group_at_rest_is_devices_and_a_log() {
        assert_shown(
            &expect![[r#"
                Lockstep  desk:8001  answers
                ┌ Devices ───────────────────────────────────────────────────────────────────┐
                │DEVICE             VERSION          LINK                                    │
                │receiver (lead)    1.0.0            asked                                   │
                │transmitter        1.1.0            no data: protocol 2 is not spoken here  │
                └────────────────────────────────────────────────────────────────────────────┘
                ┌ Rollout ───────────────────────────────────────────────────────────────────┐
                │none yet, or ask the lead                                                   │
                └────────────────────────────────────────────────────────────────────────────┘
                ┌ Log of this boot ──────────────────────────────────────────────────────────┐
                │     0.0 booted 1.0.0                                                       │
                │     2.9 a �[31mred�[0m line                                                │
                │                                                                            │
                │                                                                            │
                │                                                                            │
                │                                                                            │
                │                                                                            │
                └────────────────────────────────────────────────────────────────────────────┘
                q: end, the group goes on by itself
            "#]],
            Value::Null,
        );
    }

    #[test]
    fn a_narrow_terminal_still_tells_phase_and_progress() {
        expect![[r#"
            Lockstep  desk:8001  answers
            ┌ Devices ─────────────────────────────────────────────────┐
            │DEVICE             VERSION          LINK                  │
            │receiver (lead)    1.0.0            asked                 │
            │transmitter        1.1.0            no data: protocol 2 is│
            └──────────────────────────────────────────────────────────┘
            ┌ Rollout forward to 1.1.0 ────────────────────────────────┐
            │preflight ─ [staging] ─ rest ─ trial ─ settling ─ settled │
            │no verdict yet                                            │
            │receiver      ████░░░░░░░░  40 % of 1000 KiB, 12 s left, s│
            │transmitter   ████████████ 100 % of 500 KiB, staged       │
            └──────────────────────────────────────────────────────────┘
            ┌ Log of this boot ────────────────────────────────────────┐
            │     0.0 booted 1.0.0                                     │
            │     2.9 a �[31mred�[0m line                              │
            │                                                          │
            │                                                          │
            │                                                          │
            └──────────────────────────────────────────────────────────┘
            q: end, the group goes on by itself
        "#]]
        .assert_eq(&shown(&group(staging()), Instant::now(), 60, 20));
    }

    #[test]
    fn a_terminal_of_any_size_is_drawn_to() {
        for (width, height) in [(1, 1), (10, 3), (24, 80), (200, 60)] {
            shown(&group(staging()), Instant::now(), width, height);
        }
    }

    #[test]
    fn silence_is_said_until_the_device_is_heard_again() {
        let (mut group, began) = (group(staging()), Instant::now());
        let head = |group: &Group, now| {
            shown(group, now, 78, 20).lines().next().unwrap_or_default().to_owned()
        };
        group.take(began, News::Silence);
        group.take(began + Duration::from_secs(3), News::Silence);
        let said = head(&group, began + Duration::from_secs(7));
        let silent = "Lockstep  desk:8001  silent for 7 s, asked again; it reboots, perhaps";
        assert_eq!(said, silent);
        group.take(began, News::Trouble("status 500".to_owned()));
        assert_eq!(head(&group, began), "Lockstep  desk:8001  status 500");
        let answers = group.answers.clone();
        group.take(began, News::Answers(Box::new(answers)));
        assert_eq!(head(&group, began), "Lockstep  desk:8001  answers");
    }

    #[test]
    fn without_colours_no_cell_has_one() {
        let coloured = |colours| {
            let buffer = drawn(&group(staging()), Instant::now(), (78, 20), colours);
            let is_plain = |cell: &Cell| (cell.fg, cell.bg) == (Color::Reset, Color::Reset);
            buffer.content.iter().filter(|cell| !is_plain(cell)).count()
        };
        assert!(coloured(Colours::Shown) > 0);
        assert_eq!(coloured(Colours::Off), 0);
    }

    #[test]
    fn the_picture_of_once_is_as_high_as_what_is_in_it() {
        expect![[r#"
            Lockstep  desk:8001  answers
            ┌ Devices ─────────────────────────────────────────────────────────────┐
            │DEVICE             VERSION          LINK                              │
            │receiver (lead)    1.0.0            asked                             │
            │transmitter        1.1.0            no data: protocol 2 is not spoken │
            └──────────────────────────────────────────────────────────────────────┘
            ┌ Rollout forward to 1.1.0 ────────────────────────────────────────────┐
            │preflight ─ [staging] ─ rest ─ trial ─ settling ─ settled             │
            │no verdict yet                                                        │
            │receiver      ████░░░░░░░░  40 % of 1000 KiB, 12 s left, staging      │
            │transmitter   ████████████ 100 % of 500 KiB, staged                   │
            └──────────────────────────────────────────────────────────────────────┘
            ┌ Log of this boot ────────────────────────────────────────────────────┐
            │     0.0 booted 1.0.0                                                 │
            │     2.9 a �[31mred�[0m line                                          │
            └──────────────────────────────────────────────────────────────────────┘
        "#]]
        .assert_eq(&(picture(&group(staging()), Instant::now(), 72) + "\n"));
    }
}
