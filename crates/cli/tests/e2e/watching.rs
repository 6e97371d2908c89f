//! `lockstep watch` beside a pair: as text, and on the screen of a terminal.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use crate::desk::{Desk, Receiver};

#[test]
fn one_picture_has_the_pair_and_how_its_rollout_ended() {
    let desk = Desk::new();
    let (_, bundle) = desk.good_release("1.1.0", "");
    desk.update(&bundle).succeeds();
    let said = desk.ask_lead("watch --once");
    said.succeeds().says("receiver (lead)").says("transmitter").says("1.1.0");
    said.says("[settled]").says("verdict: keep").says("settled: keep 1.1.0");
}

#[test]
fn without_a_terminal_it_says_what_else_there_is() {
    let desk = Desk::new();
    let said = desk.ask_lead("watch");
    assert_eq!(said.code, Some(2), "{}", said.text);
    said.says("needs a terminal").says("--once");
}

/// `script`, which is part of every Debian, is the terminal.
#[test]
fn a_terminal_is_given_back_as_it_was() {
    let desk = Desk::new();
    let program = env!("CARGO_BIN_EXE_lockstep");
    let device = desk.board(Receiver).address();
    // A terminal that a program makes has no size of its own.
    let line = format!("stty rows 24 cols 80 && exec {program} watch --device {device}");
    let mut terminal = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("TERM", "xterm")
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut keys, mut screen) = (terminal.stdin.take().unwrap(), terminal.stdout.take().unwrap());
    let mut seen = Vec::new();
    let mut read_more = |seen: &mut Vec<u8>| {
        let mut buffer = [0; 4096];
        // The end of a terminal is an error on some systems.
        let count = screen.read(&mut buffer).unwrap_or(0);
        seen.extend(&buffer[..count]);
        count > 0
    };
    while !String::from_utf8_lossy(&seen).contains("q: end") {
        assert!(read_more(&mut seen), "{}", String::from_utf8_lossy(&seen));
    }
    keys.write_all(b"q").unwrap();
    while read_more(&mut seen) {}
    let seen = String::from_utf8_lossy(&seen);
    assert!(terminal.wait().unwrap().success(), "{seen}");
    assert!(seen.contains("transmitter"), "{seen}");
    // Into the other screen, and back.
    let (enter, leave) = (seen.find("\u{1b}[?1049h"), seen.rfind("\u{1b}[?1049l"));
    assert!(enter.is_some() && enter < leave, "{seen}");
    assert!(!seen.contains("\u{1b}[38;5;"), "{seen}");
}
