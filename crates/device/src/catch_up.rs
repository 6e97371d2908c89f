//! Members that came later are brought to the release that the group runs, by those of their role
//! that run it: the lead sees who is behind, and the sender reads its own running slot.
//!
//! Who is behind, who sends, and how often that is tried is decided in `lockstep_rollout`.

use alloc::format;
use alloc::vec::Vec;

use embedded_storage::nor_flash::NorFlash;
use lockstep_agent::package::digest;
use lockstep_proto::frame::LARGE_FRAME_BYTES_MAX;
use lockstep_proto::frame::block::Session;
use lockstep_proto::frame::order::Serve;
use lockstep_proto::frame::report::Wants;
use lockstep_proto::id::{DeviceId, ImageHash, RolloutId};
use lockstep_proto::time::Instant;
use lockstep_rollout::transfer::Sender;
use lockstep_rollout::{Behind, Present, Rollout, Turn, behind};

use crate::intake::release_of;
use crate::journal::Level;
use crate::node::{Node, is_due};
use crate::serve::next_frame_of;
use crate::setup::Application;

/// The running image on its way to members of the same role.
#[derive(Debug)]
pub(crate) struct Served {
    image: ImageHash,
    sender: Sender,
    told_at: Instant,
}

impl<A: Application> Node<A> {
    /// Devices of the group that came after its last rollout and do not run its release.
    pub fn behind(&self, now: Instant) -> Vec<Behind> {
        let Some(record) = self.conducting().map(|it| it.record) else { return Vec::new() };
        let me = (self.setup.id, Some(self.setup.role), Some(self.agent.running()));
        let others = self.peers.linked(now, self.setup.pace.link_fresh_ms);
        let all = others.map(|peer| (peer.id, peer.role, peer.running)).chain([me]);
        let present: Vec<Present> = all
            .filter_map(|(id, role, running)| Some(Present { id, role: role?, running: running? }))
            .collect();
        behind(record, &present)
    }

    /// The part of a lead's tick that concerns members that came later.
    pub(crate) fn catch_up<F: NorFlash>(&mut self, now: Instant, flash: &mut F) {
        if !is_due(&mut self.timers.caught_up, now, LOOK_EVERY_MS) {
            return;
        }
        let is_free = |lead: &crate::lead::Lead| {
            !lead.is_busy() && lead.upload.is_none() && lead.bare.is_none()
        };
        if !self.lead.as_ref().is_some_and(is_free) {
            return;
        }
        let late = self.behind(now);
        if late.is_empty() {
            return;
        }
        let holds_manifest = self.holds_manifest_of_last(flash);
        let can_send = |it: Behind| Behind { has_sender: it.has_sender && holds_manifest, ..it };
        let late: Vec<Behind> = late.into_iter().map(can_send).collect();
        let Some(lead) = &mut self.lead else { return };
        let turns = lead.latecomers.turns(now, &late);
        for turn in &turns {
            self.tell_turn(now, turn);
        }
        if turns.iter().any(|turn| matches!(turn, Turn::Bring(_))) {
            self.begin_catch_up(now, flash);
        }
    }

    /// Whether the package in store is that of the release which the group runs: one that was
    /// refused since then has taken its place.
    fn holds_manifest_of_last<F: NorFlash>(&mut self, flash: &mut F) -> bool {
        let last = self.conducting().map(|it| (it.record.package, it.record.package_size_bytes));
        let stored = self.with_package(flash, digest);
        last.is_some_and(|(package, size_bytes)| size_bytes > 0 && stored == Some(package))
    }

    fn tell_turn(&mut self, now: Instant, turn: &Turn) {
        let (level, text) = match turn {
            Turn::Bring(Behind { id, role, .. }) => {
                let does = "does not run the group's release: it is brought to it";
                (Level::Notice, format!("`{role}` {id} {does}"))
            }
            Turn::AskForBundle(Behind { id, role, .. }) => {
                let does = "does not run the group's release, and nobody can send it";
                (Level::Warning, format!("`{role}` {id} {does}: hand over the bundle"))
            }
        };
        self.journal.log(now, level, text);
    }

    fn begin_catch_up<F: NorFlash>(&mut self, now: Instant, flash: &mut F) {
        let Some(last) = self.conducting().map(|it| it.record.clone()) else { return };
        let limit_ms = self.setup.policy.trial_limit_ms;
        let release = self.with_manifest(flash, |manifest| release_of(manifest, limit_ms).ok());
        let Some(Some(mut release)) = release else { return };
        release.package = last.package;
        release.package_size_bytes = last.package_size_bytes;
        let id = RolloutId(self.draw());
        let members = self.members().to_vec();
        let (me, policy) = (self.setup.id, self.setup.policy);
        let rollout = Rollout::catch_up(now, id, release, &members, me, last, policy);
        self.open(now, rollout, flash);
    }

    /// The lead wants the running image sent to members that lack it.
    pub(crate) fn serve_running<F: NorFlash>(&mut self, now: Instant, serve: Serve, flash: &mut F) {
        if let Some(served) = self.served.as_mut().filter(|it| it.image == serve.image) {
            served.told_at = now;
            return;
        }
        if self.agent.running() != serve.image {
            return;
        }
        let Ok(file) = self.agent.running_file(serve.size_bytes, flash) else { return };
        let sender = self.sender_of(&file, serve.size_bytes, serve.receivers.into());
        self.served = Some(Served { image: serve.image, sender, told_at: now });
    }

    /// Nobody has said for a while that it is needed.
    pub(crate) fn end_serving(&mut self, now: Instant) {
        if self.served.as_ref().is_some_and(|it| now.ms_since(it.told_at) >= SERVE_LEASE_MS) {
            self.served = None;
        }
    }

    /// What a member lacks of the running image. `false`: it is about something else.
    pub(crate) fn note_wants_of_running(
        &mut self,
        now: Instant,
        from: DeviceId,
        wants: Wants,
    ) -> bool {
        let served = self.served.as_mut().filter(|it| it.sender.session() == wants.session);
        served.is_some_and(|served| {
            served.sender.note_wants(now, from, wants);
            true
        })
    }

    pub(crate) fn next_served_wake(&self, now: Instant) -> Option<Instant> {
        self.served.as_ref().and_then(|served| served.sender.next_wake(now))
    }

    /// The next frame of the running image that somebody waits for.
    pub(crate) fn next_running_block<F: NorFlash>(
        &mut self,
        now: Instant,
        buffer: &mut [u8; LARGE_FRAME_BYTES_MAX],
        flash: &mut F,
    ) -> Option<usize> {
        let sender = &mut self.served.as_mut()?.sender;
        next_frame_of(sender, now, &self.key, buffer, |offset, into| {
            self.agent.running_read(offset, into, flash).ok()
        })
    }

    /// To whom it is said what is lacking: the package is the lead's, an image may be another's.
    pub(crate) fn sender_of_session(&self, session: Session) -> Option<DeviceId> {
        let is_package = session == Session::of(&self.agent.member().package.0);
        self.block_sender.filter(|_| !is_package).or(self.conductor)
    }
}

/// A lead looks for members that came later so often, in milliseconds.
const LOOK_EVERY_MS: u64 = 1_000;
/// Whoever sends its image stops when the lead has not asked for it so long: several times as long
/// as any lead waits before it asks again.
const SERVE_LEASE_MS: u64 = 10_000;
