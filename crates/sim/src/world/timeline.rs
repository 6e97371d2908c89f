//! What happened in a world, as people read it. Nothing is written unless somebody will read it.

/// Whether lines are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Detail {
    /// None is: the quickest.
    #[default]
    Nothing,
    /// What boards do, and what is done to them.
    Events,
    /// Every control frame as well.
    Frames,
}

/// The lines.
#[derive(Debug, Default)]
pub struct Timeline {
    detail: Detail,
    lines: Vec<String>,
}

impl Timeline {
    pub(crate) const fn new(detail: Detail) -> Self {
        Self { detail, lines: Vec::new() }
    }

    /// Whether anything is kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.detail != Detail::Nothing
    }

    pub(crate) fn shows_frames(&self) -> bool {
        self.detail == Detail::Frames
    }

    /// Adds a line, if lines are kept. `who` is a board or the world.
    pub(crate) fn say(&mut self, now: u64, who: &str, text: impl FnOnce() -> String) {
        if self.is_kept() {
            self.lines.push(format!("{:>9}.{:03}  {who:14} {}", now / 1000, now % 1000, text()));
        }
    }

    /// Every line, in order.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The last lines, as many as a violation is reported with.
    pub fn tail(&self, lines_max: usize) -> &[String] {
        self.lines.get(self.lines.len().saturating_sub(lines_max)..).unwrap_or_default()
    }
}
