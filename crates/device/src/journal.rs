//! What happened on this device, for people and programs: recent log lines, and the few events of
//! rollouts that matter. Both are rings in RAM with a named size; a reader asks for what came
//! after a number it knows.

use alloc::collections::VecDeque;
use alloc::string::String;

use lockstep_proto::id::DeviceId;
use lockstep_proto::time::Instant;
use lockstep_proto::wire::Role;

/// How much a line matters, as in the plan's MQTT log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Detail.
    Info,
    /// A step of an update.
    Notice,
    /// Something to look at.
    Warning,
    /// Somebody must act.
    Error,
}

impl Level {
    /// The word that pages, the API and messages use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Counts the lines of this boot from 1.
    pub seq: u32,
    /// When.
    pub at: Instant,
    /// How much it matters.
    pub level: Level,
    /// What, readable alone.
    pub text: String,
}

/// One event of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutEvent {
    /// Counts the events of this boot from 1.
    pub seq: u32,
    /// When.
    pub at: Instant,
    /// What kind, for programs.
    pub kind: &'static str,
    /// The phase that began, if one did.
    pub phase: Option<&'static str>,
    /// The member that it is about.
    pub member: Option<(DeviceId, Role)>,
    /// What, for people.
    pub text: String,
}

/// Both rings.
#[derive(Debug, Default)]
pub struct Journal {
    lines: VecDeque<Line>,
    events: VecDeque<RolloutEvent>,
    last_line: u32,
    last_event: u32,
}

impl Journal {
    /// Appends a line; the oldest goes when the ring is full.
    pub fn log(&mut self, at: Instant, level: Level, text: impl Into<String>) {
        self.last_line = self.last_line.saturating_add(1);
        if self.lines.len() >= LINES_MAX {
            self.lines.pop_front();
        }
        let text = text.into();
        self.lines.push_back(Line { seq: self.last_line, at, level, text });
    }

    /// Appends an event, and its text as a line.
    pub fn tell(
        &mut self,
        at: Instant,
        kind: &'static str,
        phase: Option<&'static str>,
        member: Option<(DeviceId, Role)>,
        text: String,
    ) {
        self.log(at, EVENT_LEVEL, text.clone());
        self.last_event = self.last_event.saturating_add(1);
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        let seq = self.last_event;
        self.events.push_back(RolloutEvent { seq, at, kind, phase, member, text });
    }

    /// Lines with a number above `seq`, oldest first.
    pub fn lines_after(&self, seq: u32) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| line.seq > seq)
    }

    /// Lets go of the lines up to `seq`: somebody has taken them, and nobody else will ask.
    pub(crate) fn forget_lines(&mut self, seq: u32) {
        self.lines.retain(|line| line.seq > seq);
        self.lines.shrink_to(LINES_KEPT_READY);
    }

    /// Events with a number above `seq`, oldest first.
    pub fn events_after(&self, seq: u32) -> impl Iterator<Item = &RolloutEvent> {
        self.events.iter().filter(move |event| event.seq > seq)
    }
}

/// The level of an event's line.
pub const EVENT_LEVEL: Level = Level::Notice;
/// Log lines kept in RAM.
pub const LINES_MAX: usize = 200;
/// Room that stays when lines were taken.
const LINES_KEPT_READY: usize = 8;
/// Rollout events kept in RAM.
pub const EVENTS_MAX: usize = 64;
