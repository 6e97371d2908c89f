//! Which Wi-Fi channel the radio is on. ESP-NOW is heard on one channel at a time, the lead's is
//! that of its access point, and that may change at any moment: a member goes looking for it.
//!
//! ```text
//!          heard nothing of the lead for `lost_ms`
//!   Found ────────────────────────────────────────► Seeking ─┐ nobody answers for `dwell_ms`:
//!     ▲                                               │  ▲   │ the next channel, and asked there
//!     └───────────────────────────────────────────────┘  └───┘
//!          the lead answers, with the group's key and this question's nonce
//! ```
//!
//! Only the lead's word counts: members that hear each other would keep each other where the lead
//! is not. Only the time in which the device listens counts as silence: what came while it erased,
//! or did long sums, is still in the radio's queue.

use alloc::format;
use core::fmt;

use lockstep_proto::frame::control::Message;
use lockstep_proto::frame::version::VersionFrame;
use lockstep_proto::id::DeviceId;
use lockstep_proto::planted::{self, Bug};
use lockstep_proto::time::Instant;

use crate::journal::Level;
use crate::node::{Action, Node};
use crate::setup::{Application, Duty, NodeSetup, Pace, StagingPace};

/// A channel of the 2.4 GHz band, 1 to 14.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Channel(u8);

impl Channel {
    /// The lowest.
    pub const FIRST: Self = Self(1);
    /// The highest that is allowed nearly everywhere.
    pub const LAST: Self = Self(13);

    /// The channel of this number; `None` if there is none.
    pub const fn new(number: u8) -> Option<Self> {
        if number >= 1 && number <= NUMBER_MAX { Some(Self(number)) } else { None }
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Which channels a device may choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelPlan {
    /// None: its access point chooses, or it is reached by wire. A lead has no other plan.
    Fixed,
    /// It finds its lead on one of these.
    Scan {
        /// The lowest.
        first: Channel,
        /// The highest.
        last: Channel,
        /// Where it last found its lead, if its board remembers that over a reset; tried first.
        last_good: Option<Channel>,
    },
}

impl ChannelPlan {
    /// Any that is allowed nearly everywhere.
    pub const ALL: Self =
        Self::Scan { first: Channel::FIRST, last: Channel::LAST, last_good: None };
}

/// Where the search for the lead stands.
#[derive(Debug)]
pub(crate) struct Tuner {
    plan: Option<Range>,
    state: State,
    /// Whether there is a lead that could answer: a device without a group's key has none.
    has_group: bool,
    at: Option<Channel>,
    good: Option<Channel>,
    /// The next channel beside the last good one.
    next: u8,
    /// When it looked at the time last.
    stepped_at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Range {
    first: u8,
    last: u8,
}

#[derive(Debug)]
enum State {
    Found {
        lead: DeviceId,
        silent_ms: u64,
    },
    /// `met`: others were heard on this visit already.
    Seeking {
        visits: u32,
        nonce: u64,
        left_ms: u64,
        met: bool,
    },
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Nothing,
    /// To ask on this channel.
    Ask(Channel),
    /// The lead is lost: to begin on this channel.
    Lost(Channel),
}

impl Tuner {
    /// Of a device that has just booted, and so knows of nobody.
    pub(crate) fn of(now: Instant, setup: &NodeSetup, has_group: bool) -> Self {
        let plan = match setup.duty {
            Duty::Lead => ChannelPlan::Fixed,
            Duty::Member => setup.channels,
        };
        Self::new(now, plan, has_group)
    }

    fn new(now: Instant, plan: ChannelPlan, has_group: bool) -> Self {
        let (plan, good) = match plan {
            ChannelPlan::Fixed => (None, None),
            ChannelPlan::Scan { first, last, last_good } => {
                let range = Range { first: first.0.min(last.0), last: first.0.max(last.0) };
                (Some(range), last_good)
            }
        };
        let next = plan.map_or(0, |range| range.first);
        let state = State::SEEKING;
        Self { plan, state, has_group, at: None, good, next, stepped_at: now }
    }

    /// The device has another group's key from now on, and looks for its lead.
    pub(crate) fn begin_anew(&mut self) {
        (self.state, self.has_group) = (State::SEEKING, true);
        // Whoever gave it the key is here.
        self.good = self.at.or(self.good);
    }

    /// Whether it has a group's key.
    pub(crate) const fn has_group(&self) -> bool {
        self.has_group
    }

    /// A fresh frame of the group came from there.
    pub(crate) fn heard(&mut self, from: DeviceId) {
        match &mut self.state {
            State::Found { lead, silent_ms }
                if *lead == from || planted::has(Bug::StaysWithMembers) =>
            {
                *silent_ms = 0;
            }
            State::Found { .. } | State::Seeking { .. } => (),
        }
    }

    /// A block of what this device takes came: a transfer is not left.
    pub(crate) const fn heard_blocks(&mut self) {
        if let State::Found { silent_ms, .. } = &mut self.state {
            *silent_ms = 0;
        }
    }

    /// Devices are on this channel. Whoever has no group stays among them for a while, to be
    /// adopted; to others that means nothing. Only the first of a visit counts, or two that wait
    /// for a lead would keep each other.
    const fn meets(&mut self, stay_ms: u64) {
        if let State::Seeking { left_ms, met: met @ false, .. } = &mut self.state
            && !self.has_group
        {
            (*left_ms, *met) = (stay_ms, true);
        }
    }

    /// It is being adopted.
    const fn is_asked(&mut self, stay_ms: u64) {
        if let State::Seeking { left_ms, .. } = &mut self.state {
            *left_ms = stay_ms;
        }
    }

    /// Whether that answers the question asked on this channel.
    fn finds(&mut self, from: DeviceId, answered: u64) -> bool {
        let State::Seeking { nonce, visits, .. } = self.state else { return false };
        if self.plan.is_none() || visits == 0 || nonce != answered {
            return false;
        }
        self.good = self.at;
        self.state = State::Found { lead: from, silent_ms: 0 };
        true
    }

    const fn seeks(&self) -> bool {
        self.plan.is_some() && matches!(self.state, State::Seeking { .. })
    }

    /// Time has passed, and this device has listened meanwhile, if not for all of it.
    fn step(&mut self, now: Instant, pace: &Pace) -> Due {
        let Some(range) = self.plan else { return Due::Nothing };
        let listened_ms = now.ms_since(self.stepped_at).min(LISTENS_MS_MAX);
        self.stepped_at = now;
        let is_lost = match &mut self.state {
            State::Found { silent_ms, .. } => {
                *silent_ms += listened_ms;
                if *silent_ms < pace.lost_ms {
                    return Due::Nothing;
                }
                self.state = State::SEEKING;
                true
            }
            State::Seeking { left_ms, .. } => {
                *left_ms = left_ms.saturating_sub(listened_ms);
                if *left_ms > 0 {
                    return Due::Nothing;
                }
                false
            }
        };
        let channel = self.choose(range);
        if let State::Seeking { visits, left_ms, met, .. } = &mut self.state {
            *visits = visits.saturating_add(1);
            (*left_ms, *met) = (pace.dwell_ms, false);
        }
        if is_lost { Due::Lost(channel) } else { Due::Ask(channel) }
    }

    /// The last good channel, at first several times, then two others, and again.
    fn choose(&mut self, range: Range) -> Channel {
        let visits = match self.state {
            State::Seeking { visits, .. } => visits,
            State::Found { .. } => 0,
        };
        if let Some(good) = self.good
            && (visits < GOOD_FIRST || visits.is_multiple_of(GOOD_EVERY))
        {
            return good;
        }
        let is_good = self.good.is_some_and(|good| good.0 == self.next);
        if is_good && range.first < range.last {
            self.next = range.after(self.next);
        }
        let channel = Channel(self.next);
        self.next = range.after(self.next);
        channel
    }

    fn next_wake(&self) -> Option<Instant> {
        match self.state {
            State::Seeking { left_ms, .. } if self.plan.is_some() => {
                Some(self.stepped_at + left_ms)
            }
            // Silence is counted in ticks, which come anyway.
            State::Seeking { .. } | State::Found { .. } => None,
        }
    }
}

impl State {
    const SEEKING: Self = Self::Seeking { visits: 0, nonce: 0, left_ms: 0, met: false };
}

impl Range {
    const fn after(self, channel: u8) -> u8 {
        if channel < self.last { channel + 1 } else { self.first }
    }
}

impl<A: Application> Node<A> {
    /// The channel that this device has asked for last; `None`: it chooses none.
    pub const fn channel(&self) -> Option<Channel> {
        self.tuner.at
    }

    /// Where it found its lead last: what a board may remember over a reset.
    pub const fn last_good_channel(&self) -> Option<Channel> {
        self.tuner.good
    }

    /// Whether it looks for its lead now.
    pub const fn seeks_lead(&self) -> bool {
        self.tuner.seeks()
    }

    /// Goes on with the search for the lead, if there is one.
    pub(crate) fn tune(&mut self, now: Instant) {
        if self.actions.iter().any(|action| matches!(action, Action::Reboot(_))) {
            return;
        }
        let pace = self.setup.pace;
        let channel = match self.tuner.step(now, &pace) {
            Due::Nothing => return,
            Due::Ask(channel) => channel,
            Due::Lost(channel) => {
                let text = format!(
                    "nothing heard of the lead for {} s: looking for its channel",
                    pace.lost_ms / 1000
                );
                self.journal.log(now, Level::Notice, text);
                channel
            }
        };
        if self.tuner.at != Some(channel) {
            self.tuner.at = Some(channel);
            self.actions.push_back(Action::Tune(channel));
        }
        let drawn = self.draw();
        if let State::Seeking { nonce, .. } = &mut self.tuner.state {
            *nonce = drawn;
        }
        if self.tuner.has_group {
            self.send_control(DeviceId::BROADCAST, Message::Seek { nonce: drawn });
        } else {
            // Nobody can answer it with a key. It says that it is there, and asks who is.
            let [low, high, ..] = drawn.to_le_bytes();
            let request_id = u16::from_le_bytes([low, high]).into();
            let announce = VersionFrame::Announce(self.announce(now));
            self.send_version(DeviceId::BROADCAST, &announce);
            self.send_version(DeviceId::BROADCAST, &VersionFrame::Request { request_id });
        }
    }

    /// Somebody of the group asks for the lead on this channel.
    pub(crate) fn answer_seek(&mut self, from: DeviceId, nonce: u64) {
        if self.lead.is_some() {
            self.send_control(from, Message::Here { nonce });
        }
    }

    /// Somebody of the group says that it leads, here. `false`: not to this device's last question.
    pub(crate) fn note_here(&mut self, now: Instant, from: DeviceId, nonce: u64) -> bool {
        if !self.tuner.finds(from, nonce) {
            return false;
        }
        if let Some(channel) = self.tuner.at {
            let text = format!("the lead {from} is on channel {channel}");
            self.journal.log(now, Level::Info, text);
        }
        // It learns at once who is there again, and what that runs.
        self.timers.probed = None;
        self.timers.announced = None;
        true
    }

    /// A version frame came: devices are on this channel.
    pub(crate) const fn note_company(&mut self) {
        self.tuner.meets(self.setup.pace.lost_ms);
    }

    /// A frame of an adoption came for this device.
    pub(crate) const fn note_adoption(&mut self) {
        self.tuner.is_asked(self.setup.pace.lost_ms);
    }

    /// How much of the flash's time staging may take. While the lead is looked for, one short
    /// operation in several visits: a chip that erases does not hear who answers.
    pub(crate) fn staging_pace(&self, now: Instant) -> StagingPace {
        if self.tuner.seeks() && self.tuner.has_group {
            let ms_between = self.setup.pace.dwell_ms.saturating_mul(VISITS_PER_FLASH_STEP);
            let ms_between = u32::try_from(ms_between).unwrap_or(u32::MAX);
            return StagingPace::Background { ms_between };
        }
        self.application.staging_pace(now)
    }

    /// When [`Node::tune`] has something to do.
    pub(crate) fn tunes_at(&self) -> Option<Instant> {
        self.tuner.next_wake()
    }
}

/// Channel 14 is Japan's.
const NUMBER_MAX: u8 = 14;
/// Every so many visits go to the channel where the lead was found last.
const GOOD_EVERY: u32 = 3;
/// So often it is asked there before another channel is looked at: an answer may be lost.
const GOOD_FIRST: u32 = 3;
/// Between two ticks a device has listened for so long at most: more of the time it did something
/// else.
const LISTENS_MS_MAX: u64 = 200;
const VISITS_PER_FLASH_STEP: u64 = 4;

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;
