//! `lockstep watch`.

use std::io::{IsTerminal as _, stdout};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::client::DeviceArgs;
use crate::error::CommandError;
use crate::ui::Ui;
use crate::watch::{Group, Poller, draw};

/// Watch a group live, in the terminal
///
/// Devices and what they run, the rollout and how far every member is, the last log lines. Nothing
/// is changed, and no password is needed. `q` ends it; the group goes on by itself.
#[derive(Debug, clap::Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn watch(ui: &Ui, args: &WatchArgs) -> Result<(), CommandError> {
    let client = args.device.client()?;
    if ui.is_json() || !stdout().is_terminal() {
        return Err(CommandError::usage("`watch` shows a picture and needs a terminal for it")
            .hinted("For programs: lockstep status --json, or GET /api/rollout/events"));
    }
    // A device that is not there is an error before the screen is taken.
    let mut group = Group::first(&client)?;
    let poller = Poller::start(client);
    let mut terminal = ratatui::try_init()
        .map_err(|error| CommandError::failed("Cannot use this terminal").because(&error))?;
    let result = loop {
        while let Some(news) = poller.news() {
            group.take(news);
        }
        if let Err(error) = terminal.draw(|frame| draw(frame, &group)) {
            break Err(error);
        }
        match is_over() {
            Ok(false) => (),
            Ok(true) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    ratatui::restore();
    result.map_err(|error| CommandError::failed("The terminal is gone").because(&error))
}

/// Waits a moment for a key; whether it is one that ends the command.
fn is_over() -> std::io::Result<bool> {
    if !event::poll(LOOK_EVERY)? {
        return Ok(false);
    }
    let Event::Key(key) = event::read()? else { return Ok(false) };
    let is_interrupt =
        key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    let is_end = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) || is_interrupt;
    Ok(key.kind == KeyEventKind::Press && is_end)
}

/// How often the screen is drawn.
const LOOK_EVERY: Duration = Duration::from_millis(100);
