//! How a group looks: devices above, the rollout in the middle, the log below.

use lockstep_proto::version::ReleaseVersion;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Gauge, Paragraph, Row, Table};

use super::Group;
use crate::client::api::{LogLine, Member, Peer, Rollout, Version};
use crate::ui::tame;

/// Draws all of it.
pub(crate) fn draw(frame: &mut Frame<'_>, group: &Group) {
    let version = &group.answers.version;
    let members = group.answers.rollout.as_ref().map_or(0, |rollout| rollout.members.len());
    let rows = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    let [head, devices, rollout, log, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(rows(version.peers.len()).saturating_add(4)),
        Constraint::Length(rows(members).saturating_add(4)),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(head_line(group), head);
    frame.render_widget(device_table(version), devices);
    draw_rollout(frame, group.answers.rollout.as_ref(), rollout);
    frame.render_widget(log_lines(&group.answers.logs, log.height), log);
    frame.render_widget(Paragraph::new("q: end, the group goes on by itself").style(DIM), foot);
}

fn head_line(group: &Group) -> Paragraph<'_> {
    let title = Span::styled(format!("Lockstep  {}  ", tame(&group.device)), BOLD);
    let state = match (&group.trouble, group.silent_since) {
        (Some(text), _) => Span::styled(tame(text), BAD),
        (None, Some(since)) => {
            let seconds = since.elapsed().as_secs();
            let text = format!("no answer for {seconds} s; it is rebooting, perhaps");
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
    let widths = [Constraint::Length(24), Constraint::Length(20), Constraint::Min(20)];
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
    let Some(rollout) = rollout else {
        let text = "none yet, or ask the lead";
        let block = Block::bordered().title(" Rollout ");
        return frame.render_widget(Paragraph::new(text).style(DIM).block(block), area);
    };
    let title = format!(" Rollout {} to {} ", tame(&rollout.kind), tame(&rollout.release));
    let block = Block::bordered().title(title);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let heights = [Constraint::Length(1), Constraint::Length(1)]
        .into_iter()
        .chain(rollout.members.iter().map(|_| Constraint::Length(1)));
    let lines = Layout::vertical(heights).split(inside);
    let mut lines = lines.iter();
    if let Some(line) = lines.next() {
        frame.render_widget(phases(rollout), *line);
    }
    if let Some(line) = lines.next() {
        frame.render_widget(verdict(rollout), *line);
    }
    for (member, line) in rollout.members.iter().zip(lines) {
        draw_member(frame, member, *line);
    }
}

/// `preflight ─ staging ─ [rest] ─ trial ─ settling ─ settled`
fn phases(rollout: &Rollout) -> Paragraph<'static> {
    let present = PHASES.iter().position(|phase| *phase == rollout.phase);
    let mut spans = Vec::new();
    for (index, phase) in PHASES.iter().enumerate() {
        if index > 0 {
            spans.push(Span::styled(" ─ ", DIM));
        }
        spans.push(match present {
            Some(present) if index < present => Span::styled(*phase, GOOD),
            Some(present) if index == present => {
                Span::styled(format!("[{phase}]"), BOLD)
            }
            _ => Span::styled(*phase, DIM),
        });
    }
    Paragraph::new(Line::from(spans))
}

fn verdict(rollout: &Rollout) -> Paragraph<'static> {
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
    Paragraph::new(tame(&text)).style(style)
}

fn draw_member(frame: &mut Frame<'_>, member: &Member, area: Rect) {
    let [name, bar] =
        Layout::horizontal([Constraint::Length(24), Constraint::Min(20)]).areas(area);
    frame.render_widget(Paragraph::new(tame(&member.role)), name);
    let state = match &member.refused {
        Some(why) => format!("{}, refused: {why}", member.state),
        None => member.state.clone(),
    };
    if member.size_bytes == 0 {
        return frame.render_widget(Paragraph::new(tame(&state)), bar);
    }
    let percent = (member.staged_bytes.saturating_mul(100) / member.size_bytes).min(100);
    let percent = u16::try_from(percent).unwrap_or(100);
    let (staged, size) = (member.staged_bytes / 1024, member.size_bytes / 1024);
    let label = tame(&format!("{percent} % of {size} KiB in flash ({staged}), {state}"));
    frame.render_widget(Gauge::default().percent(percent).label(label).gauge_style(BAR), bar);
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

const PHASES: [&str; 6] = ["preflight", "staging", "rest", "trial", "settling", "settled"];
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const GOOD: Style = Style::new().fg(Color::Green);
const WARN: Style = Style::new().fg(Color::Yellow);
const BAD: Style = Style::new().fg(Color::Red);
const BAR: Style = Style::new().fg(Color::Cyan).bg(Color::DarkGray);

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::super::{Answers, News};
    use super::*;

    fn shown(group: &Group, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, group)).unwrap();
        let text = terminal.backend().to_string();
        text.lines().map(|line| line.trim_matches('"').trim_end()).collect::<Vec<_>>().join("\n")
    }

    fn group(rollout: serde_json::Value) -> Group {
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

    fn running() -> serde_json::Value {
        json!({
            "id": "17762bb28297659e", "kind": "forward", "phase": "staging", "release": "1.1.0",
            "members": [
                {"id": "a", "role": "receiver", "state": "staging", "staged_bytes": 0,
                    "size_bytes": 1_024_000},
                {"id": "b", "role": "transmitter", "state": "staged", "staged_bytes": 512_000,
                    "size_bytes": 512_000},
            ],
        })
    }

    fn assert_shown(expected: &Expect, rollout: serde_json::Value) {
        expected.assert_eq(&shown(&group(rollout), 78, 20));
    }

    #[test]
    fn a_rollout_that_is_staged_shows_how_far_everybody_is() {
        assert_shown(&expect![""], running());
    }

    #[test]
    fn a_rollout_that_went_back_says_why() {
        let mut rollout = running();
        rollout["phase"] = "settled".into();
        rollout["verdict"] = "revert".into();
        rollout["cause"] = json!({"code": "fell-back", "text": "transmitter fell back"});
        assert_shown(&expect![""], rollout);
    }

    #[test]
    fn without_a_rollout_there_is_still_something_to_see() {
        assert_shown(&expect![""], serde_json::Value::Null);
    }

    #[test]
    fn a_terminal_of_any_size_is_drawn_to() {
        for (width, height) in [(1, 1), (10, 3), (24, 80), (200, 60)] {
            shown(&group(running()), width, height);
        }
    }

    #[test]
    fn silence_is_said_until_the_device_is_heard_again() {
        let mut group = group(running());
        group.take(News::Silence);
        assert!(shown(&group, 78, 20).contains("no answer for 0 s"));
        let answers = group.answers.clone();
        group.take(News::Answers(Box::new(answers)));
        assert!(shown(&group, 78, 20).contains("answers"));
        group.take(News::Trouble("status 500".to_owned()));
        assert!(shown(&group, 78, 20).contains("status 500"));
    }
}
