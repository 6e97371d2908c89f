//! What goes over the air of a world: frames from a board's node to those that hear it, and into
//! their nodes; orders of which some are heard once more, much later.

use std::rc::Rc;

use lockstep_proto::frame::control::{ControlFrame, Message};
use lockstep_proto::frame::order::Order;
use lockstep_proto::frame::version::VersionFrame;
use lockstep_proto::frame::{FRAME_BYTES_MAX, FrameType, LARGE_FRAME_BYTES_MAX, frame_type};
use lockstep_proto::id::DeviceId;

use super::board::GroupSetup;
use super::images::Behaviour;
use super::{World, air, name};

impl World {
    pub(super) fn deliver(&mut self, flight: &air::Flight) {
        let now = self.now;
        let (from, to) = (flight.from, flight.to);
        let board = &mut self.boards[to];
        if board.channel != flight.channel {
            self.air.counts.off_channel += 1;
            return;
        }
        if board.behaviour == Behaviour::Deaf || board.hangs(now) {
            return;
        }
        let uptime = board.uptime(now);
        let Some(node) = &mut board.node else { return };
        let kind = frame_type(&flight.frame);
        let taken_before = node.application().frames_taken;
        let from_id = self.boards[from].id;
        let board = &mut self.boards[to];
        let Some(node) = &mut board.node else { return };
        if let Some(FrameType::Version) = kind
            && let Ok(frame) = VersionFrame::decode(&flight.frame)
            && let VersionFrame::Announce(announce) | VersionFrame::Response { announce, .. } =
                frame
        {
            self.observer.note_announce(from, to, announce.announced);
        }
        if kind == Some(FrameType::Control) && flight.is_intact {
            self.observer.note_heard(now, from, to);
            if is_order(&flight.frame) {
                self.observer.note_order(now, to);
                if !board.orders_heard.insert(flight.number) {
                    return self.deliver_again(flight);
                }
            }
        }
        node.handle_frame(uptime, from_id, &flight.frame, &mut board.flash);
        if node.application().frames_taken != taken_before {
            self.observer.invariant_5_gate(now, (from, to), &self.group);
        }
        self.after(to);
    }

    /// An order that this boot has heard already must not be answered.
    fn deliver_again(&mut self, flight: &air::Flight) {
        let now = self.now;
        let (from_id, to) = (self.boards[flight.from].id, flight.to);
        while self.send_one(to) {}
        let board = &mut self.boards[to];
        let uptime = board.uptime(now);
        let Some(node) = &mut board.node else { return };
        node.handle_frame(uptime, from_id, &flight.frame, &mut board.flash);
        let before = core::mem::take(&mut board.last_report);
        while self.send_one(to) {
            // A report that is due for another reason says something else than the last one.
            let board = &mut self.boards[to];
            if !before.is_empty() && board.last_report == before {
                self.observer.rule_a_replay_is_not_obeyed(now, board);
            }
        }
        self.census.count("replay", "heard twice");
        self.after(to);
    }

    /// What the node has to say, as far as its radio takes it.
    pub(super) fn send(&mut self, index: usize) {
        let now = self.now;
        let board = &mut self.boards[index];
        if board.sends_at != u64::MAX && board.sends_at > now {
            return;
        }
        board.sends_at = u64::MAX;
        if (0..FRAMES_PER_MS).all(|_| self.send_one(index)) {
            self.boards[index].sends_at = now + 1;
        }
    }

    /// One frame. `false`: there is none.
    fn send_one(&mut self, index: usize) -> bool {
        let now = self.now;
        let board = &mut self.boards[index];
        let uptime = board.uptime(now);
        let Some(node) = &mut board.node else { return false };
        let mut buffer = [0; LARGE_FRAME_BYTES_MAX];
        let polled = node.poll_frame(uptime, &mut buffer, &mut board.flash);
        let Some((to, len)) = polled else { return false };
        let bytes = &buffer[..len];
        if let (Some(FrameType::Control), Some(REPORT)) = (frame_type(bytes), bytes.get(KIND_AT)) {
            board.last_report.clear();
            let body = bytes.get(KIND_AT..len - TAG_BYTES).unwrap_or_default();
            board.last_report.extend_from_slice(body);
        }
        let is_mute = board.behaviour == Behaviour::Mute || board.hangs(now);
        if !is_mute {
            self.broadcast(index, to, bytes);
        }
        true
    }

    fn broadcast(&mut self, from: usize, to: DeviceId, bytes: &[u8]) {
        let now = self.now;
        if let Some((rollout, keeps)) = verdict_of(&self.group, bytes) {
            self.observer.note_verdict(now, rollout, keeps);
        }
        if self.timeline.shows_frames() {
            let text = describe(&self.group, to, bytes);
            self.timeline.say(now, &name(&self.boards[from]), || text);
        }
        let frame: Rc<[u8]> = bytes.into();
        let count = self.boards.len();
        let channel = self.boards[from].channel;
        if to == DeviceId::BROADCAST {
            let is_long = frame.len() > FRAME_BYTES_MAX;
            for target in (0..count).filter(|&target| target != from) {
                if is_long && !self.boards[target].setup.takes_large {
                    continue;
                }
                self.air.send(now, (from, target), channel, &frame);
            }
        } else if let Some(target) = index_of(to).filter(|&target| target < count) {
            let number = self.air.send(now, (from, target), channel, &frame);
            if frame_type(bytes) == Some(FrameType::Control) && is_order(bytes) {
                let heard = &mut self.heard[target];
                if heard.len() == ORDERS_KEPT_MAX {
                    heard.pop_front();
                }
                heard.push_back((from, frame, number));
            }
        }
    }
}

pub(super) fn index_of(id: DeviceId) -> Option<usize> {
    usize::from(id.0[5]).checked_sub(1)
}

/// Where a control frame's kind stands, and which kinds are orders.
fn is_order(frame: &[u8]) -> bool {
    frame.get(KIND_AT).is_some_and(|kind| (0x10..=0x18).contains(kind))
}

/// The rollout that a frame confirms or reverts.
fn verdict_of(group: &GroupSetup, frame: &[u8]) -> Option<(lockstep_proto::id::RolloutId, bool)> {
    let is_verdict = frame.get(KIND_AT).is_some_and(|kind| matches!(kind, 0x16 | 0x17));
    if frame_type(frame) != Some(FrameType::Control) || !is_verdict {
        return None;
    }
    match ControlFrame::decode(&group.key, frame).ok()?.message {
        Message::Order(ticket, Order::Confirm { .. }) => Some((ticket.rollout, true)),
        Message::Order(ticket, Order::Revert) => Some((ticket.rollout, false)),
        _ => None,
    }
}

fn describe(group: &GroupSetup, to: DeviceId, frame: &[u8]) -> String {
    match frame_type(frame) {
        Some(FrameType::Control) => match ControlFrame::decode(&group.key, frame) {
            Ok(frame) => format!("→ {to} {:?}", frame.message),
            Err(error) => format!("→ {to} {error}"),
        },
        Some(FrameType::Block) => format!("→ {to} block"),
        Some(FrameType::Version) => format!("→ {to} version"),
        _ => format!("→ {to} data"),
    }
}

const KIND_AT: usize = 26;
const TAG_BYTES: usize = 8;
const REPORT: &u8 = &0x21;
/// Orders to each board that may be heard once more.
const ORDERS_KEPT_MAX: usize = 64;
/// What a radio takes: some 2 Mbit/s, so that a window of blocks takes longer than its answer.
const FRAMES_PER_MS: u32 = 1;
