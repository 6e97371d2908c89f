//! How far the broker has taken each group's log: no I/O. The lines themselves are in the tables,
//! so nothing waits here while a broker is away, and what it has not acknowledged is told again.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;

use crate::store::groups::Event;

/// Where everybody's log is.
#[derive(Debug)]
pub(super) struct Lines {
    /// What was before is nobody's news.
    since: Timestamp,
    /// The last line that the broker has acknowledged, by group.
    taken: BTreeMap<String, String>,
    /// The last line that was sent over this connection, by group.
    sent: BTreeMap<String, String>,
    /// Lines that are not acknowledged: which message it was, group, line.
    under_way: VecDeque<(u64, String, String)>,
}

impl Lines {
    pub(super) fn since(since: Timestamp) -> Self {
        let (taken, sent, under_way) = (BTreeMap::new(), BTreeMap::new(), VecDeque::new());
        Self { since, taken, sent, under_way }
    }

    /// A connection has begun: what was not acknowledged is sent again.
    pub(super) fn begin(&mut self) {
        self.sent.clear();
        self.under_way.clear();
    }

    /// What is to be sent of a group's events, which are given newest first; oldest first.
    pub(super) fn news(&self, group: &str, events: Vec<Event>) -> Vec<Event> {
        let last = self.sent.get(group).or_else(|| self.taken.get(group));
        let is_news = |event: &Event| {
            event.at >= self.since && last.is_none_or(|last| event.id.as_str() > last.as_str())
        };
        let mut news: Vec<_> = events.into_iter().filter(is_news).collect();
        news.sort_by(|one, other| one.id.cmp(&other.id));
        news
    }

    /// The message with this number was that line.
    pub(super) fn sent(&mut self, message: u64, group: &str, line: &str) {
        self.sent.insert(group.to_owned(), line.to_owned());
        self.under_way.push_back((message, group.to_owned(), line.to_owned()));
    }

    /// The broker has acknowledged so many messages of this connection, in their order.
    pub(super) fn acknowledged(&mut self, messages: u64) {
        while let Some((number, ..)) = self.under_way.front()
            && *number <= messages
            && let Some((_, group, line)) = self.under_way.pop_front()
        {
            self.taken.insert(group, line);
        }
    }

    /// There is no such group any more.
    pub(super) fn forget(&mut self, group: &str) {
        self.sent.remove(group);
        self.taken.remove(group);
        self.under_way.retain(|(_, of, _)| of != group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, second: i64) -> Event {
        let at = Timestamp::from_second(second).unwrap();
        let text = || "notice".to_owned();
        Event { id: id.to_owned(), at, level: text(), kind: text(), said: text() }
    }

    fn ids(lines: &Lines) -> Vec<String> {
        let events = ["4", "3", "2", "1"].map(|id| event(id, id.parse::<i64>().unwrap() * 10));
        lines.news("g", events.to_vec()).into_iter().map(|it| it.id).collect()
    }

    #[test]
    fn only_what_came_after_the_start_is_told_and_the_oldest_first() {
        let lines = Lines::since(Timestamp::from_second(20).unwrap());
        assert_eq!(ids(&lines), ["2", "3", "4"]);
    }

    #[test]
    fn what_a_broker_has_not_acknowledged_is_told_again_and_no_more() {
        let mut lines = Lines::since(Timestamp::from_second(0).unwrap());
        lines.begin();
        for (message, line) in [(7, "1"), (8, "2"), (9, "3")] {
            lines.sent(message, "g", line);
        }
        assert_eq!(ids(&lines), ["4"]);
        lines.acknowledged(8);
        lines.begin();
        assert_eq!(ids(&lines), ["3", "4"]);
        assert_eq!(lines.news("other", vec![event("1", 1)]).len(), 1);
        lines.forget("g");
        assert_eq!(ids(&lines).len(), 4);
    }
}
