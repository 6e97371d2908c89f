//! `lockstep watch`.

use std::io::{self, IsTerminal as _, stdout};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::{DefaultTerminal, crossterm};

use crate::client::DeviceArgs;
use crate::error::CommandError;
use crate::ui::Ui;
use crate::watch::{Colours, Group, Poller, draw, picture};

/// Watch a group live, in the terminal
///
/// Devices and what they run, the rollout and how far every member is, the last log lines. Nothing
/// is changed, and no password is needed. `q` ends it; the group goes on by itself.
#[derive(Debug, clap::Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    device: DeviceArgs,

    /// Print the picture once, as text without colours, and end
    #[arg(long)]
    once: bool,
}

pub(super) fn watch(ui: &Ui, args: &WatchArgs) -> Result<(), CommandError> {
    if ui.is_json() {
        return Err(CommandError::usage("`watch` draws a picture, and has no JSON")
            .hinted("For programs: lockstep status --json, or GET /api/rollout/events"));
    }
    if !args.once && !stdout().is_terminal() {
        return Err(CommandError::usage("`watch` needs a terminal, and its output is none")
            .hinted("The same as text: --once. For programs: lockstep status --json"));
    }
    let client = args.device.client()?;
    // A device that is not there is an error before the screen is taken.
    let mut group = Group::first(&client)?;
    if args.once {
        let width = crossterm::terminal::size().map_or(WIDTH_DEFAULT, |(width, _)| width);
        return ui.line(picture(&group, Instant::now(), width.clamp(WIDTH_MIN, WIDTH_MAX)));
    }
    let poller = Poller::start(client);
    // From here on a panic puts the terminal back, too.
    let mut terminal = ratatui::try_init()
        .map_err(|error| CommandError::failed("Cannot use this terminal").because(&error))?;
    let result = show(&mut terminal, &poller, &mut group, Colours::of(&stdout()));
    ratatui::restore();
    result.map_err(|error| CommandError::failed("The terminal is gone").because(&error))
}

/// Draws until somebody ends it.
fn show(
    terminal: &mut DefaultTerminal,
    poller: &Poller,
    group: &mut Group,
    colours: Colours,
) -> io::Result<()> {
    loop {
        while let Some(news) = poller.news() {
            group.take(Instant::now(), news);
        }
        terminal.draw(|frame| draw(frame, group, Instant::now(), colours))?;
        if event::poll(LOOK_EVERY)? && is_end(&event::read()?) {
            return Ok(());
        }
    }
}

/// Whether it is a key that ends the command. The terminal is raw: Ctrl-C is a key like any other.
fn is_end(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let is_interrupt =
        key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    let is_end = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) || is_interrupt;
    key.kind == KeyEventKind::Press && is_end
}

/// How often the screen is drawn.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Columns of a picture where no terminal says how many it has.
const WIDTH_DEFAULT: u16 = 80;
/// With less nothing can be read.
const WIDTH_MIN: u16 = 40;
/// With more nothing is gained.
const WIDTH_MAX: u16 = 160;

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::KeyEvent;

    use super::*;

    #[test]
    fn three_keys_end_it_and_no_others() {
        let key = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
        for code in [KeyCode::Char('q'), KeyCode::Esc] {
            assert!(is_end(&key(code, KeyModifiers::NONE)));
        }
        assert!(is_end(&key(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(!is_end(&key(KeyCode::Char('c'), KeyModifiers::NONE)));
        assert!(!is_end(&Event::Resize(60, 20)));
    }
}
