//! What worlds reached, counted: so that a search can show what it searched.

use std::collections::BTreeMap;

/// Counts by name. A name is `group: what`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Census {
    counts: BTreeMap<String, u64>,
}

impl Census {
    /// One more of these.
    pub fn count(&mut self, group: &str, what: &str) {
        self.add(group, what, 1);
    }

    /// So many more of these.
    pub fn add(&mut self, group: &str, what: &str, number: u64) {
        *self.counts.entry(format!("{group}: {what}")).or_default() += number;
    }

    /// Takes in what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (name, number) in &other.counts {
            *self.counts.entry(name.clone()).or_default() += number;
        }
    }

    /// How many there were of this name.
    pub fn of(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or_default()
    }

    /// How many there were of all names that begin so.
    pub fn of_all(&self, prefix: &str) -> u64 {
        self.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, number)| number).sum()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counts.iter().map(|(name, number)| (name.as_str(), *number))
    }
}
