//! What a rollout's events mean to people, and to the history.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use embedded_storage::nor_flash::NorFlash;
use lockstep_agent::record::Kind as Entry;
use lockstep_proto::id::DeviceId;
use lockstep_proto::time::Instant;
use lockstep_proto::version::ReleaseVersion;
use lockstep_proto::wire::Role;
use lockstep_rollout::{Event, Hold, Kind, Part, Phase, Verdict};

use crate::history::HISTORY_BYTES_MAX;
use crate::node::Node;
use crate::setup::Application;

impl<A: Application> Node<A> {
    pub(crate) fn role_of_member(&self, id: DeviceId) -> Option<(DeviceId, Role)> {
        self.members().iter().copied().find(|(member, _)| *member == id)
    }

    pub(crate) fn tell<F: NorFlash>(&mut self, now: Instant, event: &Event, flash: &mut F) {
        let (kind, member, text) = self.describe(event);
        let phase = match event {
            Event::Entered(phase) => Some(phase.as_str()),
            _ => None,
        };
        let member = member.and_then(|id| self.role_of_member(id));
        self.journal.tell(now, kind, phase, member, text);
        match event {
            Event::Refused(faults) => {
                if let Some(lead) = &mut self.lead {
                    lead.refusals = faults.clone();
                    lead.rollout = lead.rollout_before.take();
                }
            }
            Event::Entered(Phase::Settling(verdict)) => {
                if let (Verdict::Keep, Some(lead)) = (verdict, &mut self.lead) {
                    lead.kept_at = Some(now);
                }
                self.note_outcome(flash);
            }
            Event::Entered(Phase::Settled(_)) => {
                self.note_outcome(flash);
                self.end_transfer(flash);
            }
            _ => (),
        }
    }

    /// An outcome is final with its verdict; settling only carries it out.
    pub(crate) fn note_outcome<F: NorFlash>(&mut self, flash: &mut F) {
        let Some(rollout) = self.lead.as_ref().and_then(|lead| lead.rollout.as_ref()) else {
            return;
        };
        let patched = self.patched(rollout.record().id, flash);
        if self.history.note(rollout.record(), patched).is_some() {
            self.store_history(flash);
        }
    }

    fn store_history<F: NorFlash>(&mut self, flash: &mut F) {
        let mut buffer = vec![0; HISTORY_BYTES_MAX];
        if let Ok(len) = self.history.encode(&mut buffer) {
            self.write_entry(Entry::HISTORY, buffer.get(..len).unwrap_or_default(), flash);
        }
    }

    /// Adds to the history how long members of the rollout that was kept ran different releases, as
    /// soon as all have announced themselves. What they announce while the lead boots, too, is
    /// lost; the next announce is some seconds later.
    pub(crate) fn note_disagreement<F: NorFlash>(&mut self, flash: &mut F) {
        let Some(seconds) = self.disagreed_s() else { return };
        let Some(lead) = &mut self.lead else { return };
        lead.kept_at = None;
        let rollout = lead.rollout.as_ref().map(|rollout| rollout.record().id);
        if rollout.is_some_and(|id| self.history.note_disagreement(id, seconds)) {
            self.store_history(flash);
        }
    }

    /// From the first boot of the new release to the last. Nobody has a clock, so it follows from
    /// what members announce of their time since boot; this device's own is 0.
    fn disagreed_s(&self) -> Option<u16> {
        let lead = self.lead.as_ref()?;
        // Known only in the boot that saw the verdict: any later one is not the first of the new
        // release.
        let kept_ms = i64::try_from(lead.kept_at?.ms).ok()?;
        let record = lead.rollout.as_ref()?.record();
        let updated = record.seats.iter().filter(|seat| seat.part == Part::Update);
        let mut booted_ms = Vec::new();
        for seat in updated {
            if seat.id == self.setup.id {
                booted_ms.push(0);
                continue;
            }
            let peer = self.peers.get(seat.id)?;
            let is_of_target = seat.target.0.first_chunk() == peer.announced_image.as_ref();
            // Who booted after the verdict had done so before.
            booted_ms.push(peer.booted_ms.filter(|at| is_of_target && *at <= kept_ms)?);
        }
        if booted_ms.len() < 2 {
            return None;
        }
        let (first, last) = (booted_ms.iter().min()?, booted_ms.iter().max()?);
        u16::try_from((last - first + 500) / 1000).ok()
    }

    pub(crate) fn describe(&self, event: &Event) -> (&'static str, Option<DeviceId>, String) {
        let name = |id: &DeviceId| match self.role_of_member(*id) {
            Some((_, role)) => format!("`{role}`"),
            None => format!("{id}"),
        };
        match event {
            Event::Refused(faults) => {
                let first = faults.first().map(|fault| format!("{}", fault.fault));
                let text = match first {
                    Some(text) => format!("rollout refused: {text}"),
                    None => String::from("rollout aborted before it began"),
                };
                ("refused", None, text)
            }
            Event::Entered(phase) => ("entered", None, self.describe_phase(phase)),
            Event::Staged(id) => ("staged", Some(*id), format!("{} has staged", name(id))),
            Event::AtRest(id) => ("at-rest", Some(*id), format!("{} is at rest", name(id))),
            Event::OnTarget(id) => {
                ("on-target", Some(*id), format!("{} runs its new image", name(id)))
            }
            Event::Healthy(id) => ("healthy", Some(*id), format!("{} is healthy", name(id))),
            Event::FellBack(id) => ("fell-back", Some(*id), format!("{} fell back", name(id))),
            Event::Reactivated { member, times } => {
                let text = format!("{} is activated again, time {times}", name(member));
                ("reactivated", Some(*member), text)
            }
            Event::RepairOpened { repair } => {
                ("repair-opened", None, format!("repair `{repair}`: all go back"))
            }
            Event::NoRepair(id) => {
                ("no-repair", Some(*id), format!("no repair: {} has no way back", name(id)))
            }
            Event::Settled(id) => ("settled", Some(*id), format!("{} has settled", name(id))),
            Event::Held(hold) => (
                "held",
                None,
                String::from(match hold {
                    Hold::No => "goes on once all have staged",
                    Hold::Held => "waits, once all have staged, until somebody says go",
                    Hold::Scheduled => "waits, once all have staged, for the moment that was named",
                }),
            ),
            Event::SteppedDown { term } => {
                ("stepped-down", None, format!("another lead conducts, term {term}"))
            }
        }
    }

    pub(crate) fn describe_phase(&self, phase: &Phase) -> String {
        let Some(conducting) = self.conducting() else { return String::from(phase.as_str()) };
        let record = conducting.record;
        let release = ReleaseVersion::from_number(record.number);
        match phase {
            Phase::Settling(Verdict::Revert(cause)) => format!("verdict: revert, {cause}"),
            Phase::Settling(Verdict::Keep) => format!("verdict: keep {release}"),
            Phase::Settled(verdict) => format!("settled: {} {release}", verdict.as_str()),
            Phase::Staging if record.kind == Kind::Forward => {
                format!("staging of forward to {release}: what the other slots hold is given up")
            }
            Phase::Preflight | Phase::Staging | Phase::Rest | Phase::Trial => {
                format!("{} of {} to {release}", phase.as_str(), record.kind.as_str())
            }
        }
    }
}
