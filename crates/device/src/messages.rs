//! Frames in, frames out: version frames, authenticated control, blocks. Who may speak is decided
//! here (key, addressee, counter); what follows from it is not.

use alloc::format;

use embedded_storage::nor_flash::NorFlash;
use lockstep_agent::Reply;
use lockstep_agent::receiver::Dropped;
use lockstep_proto::frame::FRAME_BYTES_MAX;
use lockstep_proto::frame::block::{BlockFrame, Session};
use lockstep_proto::frame::control::{ControlError, ControlFrame, Counter, Message};
use lockstep_proto::frame::order::Order;
use lockstep_proto::frame::report::{Echo, Probe};
use lockstep_proto::frame::version::{Announce, VersionFrame};
use lockstep_proto::id::DeviceId;
use lockstep_proto::time::Instant;
use lockstep_proto::version::ReleaseVersion;
use lockstep_proto::wire::{Label, Role};

use crate::heard::one_more;
use crate::journal::Level;
use crate::node::{Node, OutFrame};
use crate::peers::{Freshness, Peers};
use crate::setup::Application;

impl<A: Application> Node<A> {
    pub(crate) fn handle_version(&mut self, now: Instant, from: DeviceId, frame: &[u8]) {
        // Unauthenticated and of any firmware: what cannot be read is dropped without a word.
        let Ok(frame) = VersionFrame::decode(frame) else { return };
        self.note_company();
        let announce = match frame {
            VersionFrame::Announce(announce) | VersionFrame::Response { announce, .. } => announce,
            VersionFrame::Request { request_id } => {
                let announce = self.announce(now);
                return self.send_version(from, &VersionFrame::Response { request_id, announce });
            }
        };
        let rule = self.setup.policy.rule;
        let mine = self.announced;
        let changed = self.peers.announced(now, from, announce.announced, &mine, rule);
        if let Some(peer) = self.peers.heard(now, from) {
            peer.device_type = announce.device_type;
            peer.announced_image = announce.image;
            if let Some(uptime_s) = announce.uptime_s {
                peer.note_uptime(now, uptime_s);
            }
        }
        let version = ReleaseVersion::from_number(announce.announced.number);
        let name = announce.device_type;
        match changed {
            Some(Ok(())) => {
                self.journal.log(now, Level::Info, format!("{name} {from} {version}: compatible"));
            }
            Some(Err(why)) => {
                let text = format!("{name} {from} {version}: data is dropped, {why}");
                self.journal.log(now, Level::Warning, text);
            }
            None => (),
        }
    }

    pub(crate) fn handle_control<F: NorFlash>(
        &mut self,
        now: Instant,
        frame: &[u8],
        flash: &mut F,
    ) {
        let frame = match ControlFrame::decode(&self.key, frame) {
            Ok(frame) => frame,
            Err(why) => {
                self.heard.note_unreadable(&why);
                // Another group in reach is normal; a wrong tag is an attack or a bug.
                if matches!(why, ControlError::OtherGroup { .. }) {
                    return;
                }
                self.peers.rejected = self.peers.rejected.saturating_add(1);
                return;
            }
        };
        let me = self.setup.id;
        if frame.from == me || (frame.to != me && frame.to != DeviceId::BROADCAST) {
            return;
        }
        match frame.message {
            Message::Challenge { nonce } => {
                one_more(&mut self.heard.taken);
                self.peers.heard(now, frame.from);
                self.send_control(frame.from, Message::ChallengeAnswer { nonce });
            }
            Message::ChallengeAnswer { nonce } => {
                let fits = self.peers.challenge_answered(now, frame.from, frame.counter, nonce);
                self.note_answer(fits);
            }
            // The nonce proves as much as a counter would.
            Message::Seek { nonce } => {
                one_more(&mut self.heard.taken);
                self.answer_seek(frame.from, nonce);
            }
            Message::Here { nonce } => {
                let fits = self.note_here(now, frame.from, nonce);
                self.note_answer(fits);
            }
            message => {
                let nonce = self.draw();
                match self.peers.judge(now, frame.from, frame.counter, nonce) {
                    Freshness::Fresh => {
                        one_more(&mut self.heard.taken);
                        self.tuner.heard(frame.from);
                        self.handle_message(now, frame.from, &message, flash);
                    }
                    Freshness::Challenge(nonce) => {
                        one_more(&mut self.heard.unproved);
                        self.send_control(frame.from, Message::Challenge { nonce });
                    }
                    Freshness::Waiting => one_more(&mut self.heard.unproved),
                    Freshness::Replayed => one_more(&mut self.heard.replayed),
                }
            }
        }
    }

    /// An answer counts if its nonce was asked with.
    const fn note_answer(&mut self, fits: bool) {
        one_more(if fits { &mut self.heard.taken } else { &mut self.heard.replayed });
    }

    /// A message that is authentic, for this device, and fresh.
    pub(crate) fn handle_message<F: NorFlash>(
        &mut self,
        now: Instant,
        from: DeviceId,
        message: &Message,
        flash: &mut F,
    ) {
        match *message {
            Message::Order(ref ticket, ref order) => {
                self.conductor = Some(from);
                self.note_sender(now, order, flash);
                self.agent.note_frame_of(now, ticket.rollout);
                let reply = self.agent.handle_order(now, ticket, order, flash);
                self.drain_effects(now);
                self.send_reply(now, from, reply);
            }
            Message::Probe(Probe { nonce, role, running }) => {
                self.peers.note_running(now, from, role, running);
                let (role, running) = (self.setup.role, self.agent.running());
                self.send_control(from, Message::Echo(Echo { nonce, role, running }));
                self.note_member(now, from, role_of(&self.peers, from), flash);
            }
            Message::Echo(Echo { role, running, .. }) => {
                self.peers.note_running(now, from, role, running);
                self.peers.note_echo(now, from);
                self.note_member(now, from, Some(role), flash);
            }
            Message::Facts(facts) => self.note_facts(now, from, facts, flash),
            Message::Report(report) => self.note_report(now, from, report, flash),
            Message::Wants(wants) => self.note_wants(now, from, wants, flash),
            Message::Challenge { .. }
            | Message::ChallengeAnswer { .. }
            | Message::Seek { .. }
            | Message::Here { .. } => (),
        }
    }

    /// What an order says of who sends blocks to whom.
    pub(crate) fn note_sender<F: NorFlash>(&mut self, now: Instant, order: &Order, flash: &mut F) {
        match order {
            Order::Stage(stage) => self.block_sender = stage.sender,
            Order::Serve(serve) => self.serve_running(now, *serve, flash),
            _ => (),
        }
    }

    /// Blocks, what mends them, and the question what is lacking.
    pub(crate) fn handle_block<F: NorFlash>(&mut self, now: Instant, frame: &[u8], flash: &mut F) {
        if !Session::named(frame).is_some_and(|session| self.agent.takes_session(session)) {
            self.blocks.note_dropped(Dropped::Unwanted);
            return;
        }
        match BlockFrame::decode(&self.key, frame) {
            Ok(frame) => {
                self.tuner.heard_blocks();
                let taken = self.agent.handle_block(now, self.setup.id, &frame, flash);
                self.blocks.note(taken);
                self.drain_effects(now);
            }
            Err(why) => {
                self.blocks.note_unreadable(&why);
                self.peers.rejected = self.peers.rejected.saturating_add(1);
            }
        }
    }

    pub(crate) fn send_reply(&mut self, now: Instant, to: DeviceId, reply: Reply) {
        if reply == Reply::FactsAndReport {
            let facts = self.facts(now);
            self.send_control(to, Message::Facts(facts));
        }
        if reply != Reply::Nothing {
            let report = self.agent.report();
            self.send_control(to, Message::Report(report));
        }
    }

    pub(crate) fn announce(&self, now: Instant) -> Announce {
        let role = self.setup.role.as_str().to_ascii_uppercase();
        let image = self.agent.running().0.first_chunk().copied();
        Announce {
            announced: self.announced,
            device_type: Label::new(&role).unwrap_or(Label::EMPTY),
            build_date: Label::new(&self.setup.firmware.build_date).unwrap_or(Label::EMPTY),
            build_time: Label::new(&self.setup.firmware.build_time).unwrap_or(Label::EMPTY),
            uptime_s: Some(u32::try_from(now.ms / 1000).unwrap_or(u32::MAX)),
            image,
        }
    }

    pub(crate) fn send_version(&mut self, to: DeviceId, frame: &VersionFrame) {
        let mut bytes = [0; FRAME_BYTES_MAX];
        if let Ok(len) = frame.encode(&mut bytes) {
            self.push_frame(to, bytes, len);
        }
    }

    pub(crate) fn send_control(&mut self, to: DeviceId, message: Message) {
        self.frames_sent = self.frames_sent.saturating_add(1);
        let counter = Counter { boot: self.agent.boot_number(), frame: self.frames_sent };
        let frame = ControlFrame { from: self.setup.id, to, counter, message };
        let mut bytes = [0; FRAME_BYTES_MAX];
        if let Ok(len) = frame.encode(&self.key, &mut bytes) {
            self.push_frame(to, bytes, len);
        }
    }

    /// A full outbox drops the oldest frame: whatever matters is said again.
    pub(crate) fn push_frame(&mut self, to: DeviceId, bytes: [u8; FRAME_BYTES_MAX], len: usize) {
        if self.outbox.len() >= OUTBOX_FRAMES_MAX {
            self.outbox.pop_front();
        }
        self.outbox.push_back(OutFrame { to, bytes, len });
    }
}

fn role_of(peers: &Peers, id: DeviceId) -> Option<Role> {
    peers.get(id).and_then(|peer| peer.role)
}

/// Frames waiting to be sent, at most. A report, facts and probes for a full group.
const OUTBOX_FRAMES_MAX: usize = 64;
