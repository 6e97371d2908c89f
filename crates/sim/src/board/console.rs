//! The serial console of a board: one line for everything that happens, for people or for programs.

use std::io::{self, Write as _};
use std::time::{Instant, SystemTime};

use lockstep_device::journal::{Journal, Level, RolloutEvent};
use serde_json::{Map, Value, json};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LineForm {
    /// Seconds since the process began, role, level, text.
    #[default]
    Human,
    /// One JSON object: `unix_ms`, `uptime_ms`, `boot`, `role`, `level`, `kind`, `text`, and what
    /// belongs to the kind.
    Json,
}

/// Prints, and knows what it has printed already.
#[derive(Debug)]
pub(super) struct Console {
    form: LineForm,
    role: String,
    powered_at: Instant,
    booted_at: Instant,
    boot_unix_ms: u64,
    boot: u32,
    printed_line: u32,
    printed_event: u32,
}

impl Console {
    pub(super) fn new(form: LineForm, role: &str) -> Self {
        let now = Instant::now();
        Self {
            form,
            role: role.to_owned(),
            powered_at: now,
            booted_at: now,
            boot_unix_ms: unix_ms(),
            boot: 0,
            printed_line: 0,
            printed_event: 0,
        }
    }

    /// A boot begins: times of the journal count from here, and so do its numbers.
    pub(super) fn begin_boot(&mut self) {
        self.booted_at = Instant::now();
        self.boot_unix_ms = unix_ms();
        self.printed_line = 0;
        self.printed_event = 0;
    }

    /// The node has counted this boot.
    pub(super) const fn set_boot(&mut self, boot: u32) {
        self.boot = boot;
    }

    /// A line of the board itself, with `facts` for programs.
    pub(super) fn say(&self, level: Level, kind: &str, text: &str, facts: Value) {
        let uptime_ms = u64::try_from(self.booted_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.print(uptime_ms, level, Some(kind), text, facts);
    }

    /// The same, where people read it in the journal anyway.
    pub(super) fn note(&self, kind: &str, text: &str, facts: Value) {
        if self.form == LineForm::Json {
            self.say(Level::Notice, kind, text, facts);
        }
    }

    /// What the journal has that was not printed yet. An event stands in the journal as a line too:
    /// the two are printed as one.
    pub(super) fn print_journal(&mut self, journal: &Journal) {
        let mut events = journal.events_after(self.printed_event).peekable();
        let mut last_line = self.printed_line;
        for line in journal.lines_after(self.printed_line) {
            let event = events.next_if(|event| (event.at, &event.text) == (line.at, &line.text));
            let kind = event.map(|event| event.kind);
            let facts = event.map_or(Value::Null, event_json);
            self.print(line.at.ms, line.level, kind, &line.text, facts);
            last_line = line.seq;
            if let Some(event) = event {
                self.printed_event = event.seq;
            }
        }
        self.printed_line = last_line;
    }

    fn print(&self, uptime_ms: u64, level: Level, kind: Option<&str>, text: &str, facts: Value) {
        let line = match self.form {
            LineForm::Human => {
                let booted_ms = self.booted_at.duration_since(self.powered_at).as_millis();
                let ms = booted_ms + u128::from(uptime_ms);
                let (seconds, rest) = (ms / 1000, ms % 1000);
                format!("{seconds:4}.{rest:03}s {} {:7} {text}\n", self.role, level.as_str())
            }
            LineForm::Json => {
                let mut object = Map::new();
                let unix_ms = self.boot_unix_ms.saturating_add(uptime_ms);
                object.insert("unix_ms".into(), json!(unix_ms));
                object.insert("uptime_ms".into(), json!(uptime_ms));
                object.insert("boot".into(), json!(self.boot));
                object.insert("role".into(), json!(self.role));
                object.insert("level".into(), json!(level.as_str()));
                object.insert("kind".into(), json!(kind));
                object.insert("text".into(), json!(text));
                if let Value::Object(facts) = facts {
                    object.extend(facts);
                }
                format!("{}\n", Value::Object(object))
            }
        };
        // A board does not stop because nobody reads its console.
        let mut out = io::stdout().lock();
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }
}

fn event_json(event: &RolloutEvent) -> Value {
    let (member, role) = match event.member {
        Some((id, role)) => (Some(id.to_string()), Some(role.to_string())),
        None => (None, None),
    };
    json!({ "phase": event.phase, "member": member, "member_role": role })
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
