//! What a node does by itself as time passes: probes its links, samples its health, repeats what it
//! wants, and draws the conclusions of a kept release.

use alloc::format;
use alloc::string::String;

use embedded_storage::nor_flash::NorFlash;
use lockstep_agent::Health;
use lockstep_agent::package::digest;
use lockstep_proto::frame::control::Message;
use lockstep_proto::frame::report::{MemberState, Probe};
use lockstep_proto::id::DeviceId;
use lockstep_proto::planted::{self, Bug};
use lockstep_proto::time::Instant;

use crate::identity::KnownImage;
use crate::journal::Level;
use crate::lead::Lead;
use crate::node::{Node, is_due};
use crate::setup::{Application, Duty};

impl<A: Application> Node<A> {
    pub(crate) fn probe(&mut self, now: Instant) {
        // Whoever does not answer on the wrong channel says nothing of the links.
        if self.seeks_lead() {
            return;
        }
        let busy = self.agent.on_trial()
            || now.ms < BUSY_AFTER_BOOT_MS
            || self.lead.as_ref().is_some_and(Lead::is_busy);
        let pace = self.setup.pace;
        let every_ms = if busy { pace.probe_busy_ms } else { pace.probe_ms };
        if !is_due(&mut self.timers.probed, now, every_ms) {
            return;
        }
        self.peers.note_probe();
        let nonce = u32::try_from(self.draw() >> 32).unwrap_or_default();
        let (role, running) = (self.setup.role, self.agent.running());
        self.send_control(DeviceId::BROADCAST, Message::Probe(Probe { nonce, role, running }));
    }

    /// "I can still be updated" is one of the checks: a member that has not heard its lead in this
    /// boot is not healthy.
    pub(crate) fn sample_health(&mut self, now: Instant) {
        let pace = self.setup.pace;
        if !is_due(&mut self.timers.sampled, now, pace.sample_ms) {
            return;
        }
        let linked = self.peers.linked(now, pace.link_fresh_ms).count();
        let view = self.peers.view(now, pace.link_fresh_ms, self.setup.id, self.agent.running());
        self.agent.observe(
            now,
            Health {
                checks_ok: self.application.health(now).is_ok,
                // Whoever has no group has nobody to reach.
                link_ok: self.link_holds(now) || !self.has_group(),
                linked: u8::try_from(linked).unwrap_or(u8::MAX),
                view,
            },
        );
    }

    /// Whether the link is healthy: to the lead, and to everybody who was heard lately.
    pub fn link_holds(&self, now: Instant) -> bool {
        let fresh_ms = self.setup.pace.link_fresh_ms;
        let reaches_lead = match (self.setup.duty, self.conductor) {
            (Duty::Lead, _) => true,
            (Duty::Member, Some(lead)) => {
                self.peers.get(lead).is_some_and(|peer| peer.is_linked(now, fresh_ms))
            }
            (Duty::Member, None) => false,
        };
        reaches_lead && self.peers.links_hold(now, fresh_ms)
    }

    pub(crate) fn repeat_wants(&mut self, now: Instant) {
        let wants_ms = self.setup.pace.wants_ms;
        let Some(lead) = self.conductor.filter(|lead| *lead != self.setup.id) else { return };
        let misses = self.agent.misses_blocks(now, wants_ms);
        if misses
            && is_due(&mut self.timers.wanted, now, wants_ms)
            && let Some(wants) = self.agent.wants()
        {
            let sender = self.sender_of_session(wants.session).unwrap_or(lead);
            self.send_control(sender, Message::Wants(wants));
        }
    }

    /// Once a release is kept: remember the next keys it names. Once everybody has kept it, and
    /// after a soak: raise the epoch. Both are looked at again after every boot, since the power
    /// may go right after `Kept`.
    pub(crate) fn after_keep<F: NorFlash>(&mut self, now: Instant, flash: &mut F) {
        let state = self.agent.member().state;
        let runs_target = self.agent.running() == self.agent.member().target;
        let is_kept = state == MemberState::Kept && runs_target && !self.agent.on_trial();
        if is_kept && !self.is_kept {
            self.rotate_keys(now, flash);
        }
        self.is_kept = is_kept;
        if state == MemberState::Staged && self.last_state != MemberState::Staged {
            self.learn_from_manifest(flash);
        }
        self.last_state = state;
        self.soak(now, flash);
    }

    /// A repair could not go back below a raised epoch, and so there must be none any more.
    fn soak<F: NorFlash>(&mut self, now: Instant, flash: &mut F) {
        let may_raise =
            self.agent.has_settled() || (self.is_kept && planted::has(Bug::EpochBeforeSettled));
        if !may_raise {
            (self.settled_since, self.is_soaked) = (None, false);
            return;
        }
        let since = *self.settled_since.get_or_insert(now);
        if self.is_soaked || now.ms_since(since) < self.setup.pace.soak_ms {
            return;
        }
        self.is_soaked = true;
        let floor = self.agent.member().epoch;
        if floor <= self.agent.epoch_floor() {
            return;
        }
        let (level, text) = match self.agent.raise_epoch(floor, flash) {
            Ok(()) => {
                (Level::Notice, format!("releases below epoch {floor} are refused from now on"))
            }
            Err(error) => (Level::Error, format!("cannot raise the epoch: {error}")),
        };
        self.journal.log(now, level, text);
    }

    /// Firmware without a descriptor cannot say its version: remember what the manifest says of it.
    pub(crate) fn learn_from_manifest<F: NorFlash>(&mut self, flash: &mut F) {
        let (role, target) = (self.setup.role, self.agent.member().target);
        let known = self.with_manifest(flash, |manifest| {
            let entry = manifest.entry(role.as_str())?;
            (entry.image_sha256 == Some(target)).then_some(KnownImage {
                image: target,
                announced: manifest.announced(role.as_str())?,
                config_schema: u16::try_from(entry.config_schema).unwrap_or(u16::MAX),
            })
        });
        if let Some(known) = known.flatten() {
            self.learn_image(known, flash);
        }
    }

    pub(crate) fn rotate_keys<F: NorFlash>(&mut self, now: Instant, flash: &mut F) {
        // What is stored may be a later release's that was refused: it has nothing to say here.
        let kept = self.agent.member().package;
        if self.with_package(flash, |package| digest(package) == kept) != Some(true) {
            return;
        }
        let present = self.agent.trust().clone();
        let Some(next) = self.with_manifest(flash, |manifest| manifest.next_trust(&present)) else {
            return;
        };
        if let Some(next) = next.filter(|next| *next != present) {
            let text = match self.agent.set_trust(next, flash) {
                Ok(()) => String::from("the release brought the next set of keys"),
                Err(error) => format!("cannot store the next set of keys: {error}"),
            };
            self.journal.log(now, Level::Notice, text);
        }
    }
}

/// Links are probed at the busy pace for so long after a boot.
const BUSY_AFTER_BOOT_MS: u64 = 10_000;
