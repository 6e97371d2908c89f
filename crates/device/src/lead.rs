//! The conducting half of a lead: members, the open rollout, its record, and the blocks that are on
//! their way. A thin shell around `lockstep_rollout`; what happens next is decided there.

use alloc::vec::Vec;
use core::fmt;

use embedded_storage::nor_flash::NorFlash;
use lockstep_agent::Agent;
use lockstep_agent::record::Kind as Entry;
use lockstep_proto::id::{DeviceId, RolloutId};
use lockstep_proto::time::Instant;
use lockstep_proto::wire::{Reader, Role, Writer};
use lockstep_rollout::offers::has_staged;
use lockstep_rollout::transfer::Sender;
use lockstep_rollout::{
    Input, Latecomers, MEMBERS_MAX, Offers, Part, PreflightFault, RECORD_BYTES_MAX, Rollout,
    RolloutRecord, SeatView, Verdict,
};

use crate::adopt::Adoption;
use crate::bare::Bare;
use crate::node::{Node, read_entry};
use crate::setup::{Application, NodeSetup};
use crate::upload::Upload;

/// The lead's half of a node.
#[derive(Debug)]
pub(crate) struct Lead {
    /// Every device of the group, this one included; durable.
    pub(crate) members: Vec<(DeviceId, Role)>,
    pub(crate) rollout: Option<Rollout>,
    /// Comes back when preflight refuses the one that took its place.
    pub(crate) rollout_before: Option<Rollout>,
    /// What preflight found of the last rollout that did not begin.
    pub(crate) refusals: Vec<PreflightFault>,
    pub(crate) upload: Option<Upload>,
    /// What came without a bundle.
    pub(crate) bare: Option<Bare>,
    /// Where a cut upload goes on after a restart.
    pub(crate) cut: Option<crate::cut::Cut>,
    pub(crate) package: Option<Sender>,
    pub(crate) artifact: Option<(Role, Sender)>,
    /// The patch that is served as such, and to whom it was offered.
    pub(crate) offers: Option<Offers>,
    /// The patch in the other slot is for this device, and everybody else is done with it.
    pub(crate) may_patch_own: bool,
    /// When a rollout goes on that waits for a moment.
    pub(crate) goes_at: Option<Instant>,
    /// Whether a moment from before the restart was looked for.
    pub(crate) has_looked_for_schedule: bool,
    /// The rollout of the present upload is to wait.
    pub(crate) holds_upload: bool,
    /// Members that came later, and how often they were brought along.
    pub(crate) latecomers: Latecomers,
    /// The device that is being adopted, or was last.
    pub(crate) adoption: Option<Adoption>,
    /// When the present rollout was kept, in this boot, until it is known how long its members ran
    /// different releases.
    pub(crate) kept_at: Option<Instant>,
    rates: Vec<Rate>,
}

/// How fast one member's bytes reach its flash.
#[derive(Debug, Clone, Copy)]
struct Rate {
    device: DeviceId,
    staged_bytes: u32,
    since: Instant,
    bytes_per_s: u32,
}

/// Why a wish was not granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConductError {
    /// This device conducts nothing.
    NotTheLead,
    /// Another rollout is open.
    Busy(RolloutId),
    /// No rollout is open.
    NothingToAbort,
    /// The verdict is durable; only a new rollout reverses it.
    VerdictIsFinal(RolloutId),
    /// Nothing was kept that could be reversed.
    NothingToRevert,
    /// No rollout is open that could wait.
    NothingToSchedule,
    /// The applications have been asked to rest: it goes on.
    TooLateToSchedule(RolloutId),
    /// A rollout does not wait so long.
    TooFarAhead {
        /// The longest wait.
        limit_ms: u64,
    },
}

impl fmt::Display for ConductError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTheLead => write!(f, "this device does not conduct the group's rollouts"),
            Self::Busy(rollout) => write!(f, "rollout `{rollout}` is still running"),
            Self::NothingToAbort => write!(f, "no rollout is running"),
            Self::VerdictIsFinal(rollout) => {
                write!(f, "the verdict of rollout `{rollout}` is final")
            }
            Self::NothingToRevert => write!(f, "there is no kept release to go back from"),
            Self::NothingToSchedule => write!(f, "no rollout is running that could wait"),
            Self::TooLateToSchedule(rollout) => {
                write!(f, "rollout `{rollout}` does not wait any more")
            }
            Self::TooFarAhead { limit_ms } => {
                write!(f, "a rollout waits for less than {} s", limit_ms / 1000)
            }
        }
    }
}

impl core::error::Error for ConductError {}

/// A rollout as pages and programs see it.
#[derive(Debug)]
pub struct Conducting<'a> {
    /// Its record.
    pub record: &'a RolloutRecord,
    /// What was heard of each seat.
    pub views: &'a [SeatView],
    /// Whether an abort would still change anything.
    pub can_abort: bool,
    /// Next byte and size of an upload that is not complete.
    pub upload: Option<(u32, u32)>,
}

impl Lead {
    /// Takes up what the record says.
    pub(crate) fn resume<F: NorFlash>(
        now: Instant,
        setup: &NodeSetup,
        agent: &Agent,
        flash: &mut F,
    ) -> Self {
        let record = read_entry::<F, RECORD_BYTES_MAX>(agent, flash, Entry::ROLLOUT)
            .and_then(|bytes| RolloutRecord::decode(&bytes).ok());
        let members = read_entry::<F, MEMBERS_BYTES_MAX>(agent, flash, Entry::GROUP)
            .map(|bytes| decode_members(&bytes))
            .unwrap_or_default();
        let cut = crate::cut::Cut::read(agent, flash);
        let rollout = record.map(|record| Rollout::resume(now, record, setup.id, setup.policy));
        let mut lead = Self {
            members,
            rollout,
            rollout_before: None,
            refusals: Vec::new(),
            upload: None,
            bare: None,
            cut,
            package: None,
            artifact: None,
            offers: None,
            may_patch_own: false,
            goes_at: None,
            has_looked_for_schedule: false,
            holds_upload: false,
            latecomers: Latecomers::default(),
            adoption: None,
            kept_at: None,
            rates: Vec::new(),
        };
        lead.add_member(setup.id, setup.role);
        lead
    }

    /// Whether links should be probed often.
    pub(crate) fn is_busy(&self) -> bool {
        self.rollout.as_ref().is_some_and(|rollout| !rollout.is_over())
    }

    pub(crate) fn next_wake(&self, now: Instant) -> Option<Instant> {
        let rollout =
            self.rollout.as_ref().filter(|rollout| !rollout.is_over()).map(|it| it.next_wake(now));
        let package = self.package.as_ref().and_then(|sender| sender.next_wake(now));
        let artifact = self.artifact.as_ref().and_then(|(_, sender)| sender.next_wake(now));
        let offers = self.offers.as_ref().and_then(|offers| offers.next_wake(now));
        [rollout, package, artifact, offers, self.goes_at].into_iter().flatten().min()
    }

    /// Whether every member of `role` that the rollout updates, but for this lead `me`, has staged
    /// its artifact.
    pub(crate) fn have_staged(&self, role: &Role, me: DeviceId) -> bool {
        let Some(rollout) = &self.rollout else { return false };
        let record = rollout.record();
        let mut seats = record.seats.iter().zip(rollout.views());
        seats.all(|(seat, view)| {
            let is_asked = seat.role == *role && seat.part == Part::Update && seat.id != me;
            !is_asked || has_staged(record, seat, view)
        })
    }

    /// An artifact is whole in this device's other slot: members may have it.
    pub(crate) fn serve_artifact(&mut self, role: Role, sender: Sender) {
        self.artifact = Some((role, sender));
    }

    pub(crate) fn stop_serving(&mut self) {
        (self.artifact, self.offers, self.may_patch_own) = (None, None, false);
    }

    /// `true` if the list changed.
    pub(crate) fn add_member(&mut self, id: DeviceId, role: Role) -> bool {
        if self.members.contains(&(id, role)) || self.members.len() >= MEMBERS_MAX {
            return false;
        }
        self.members.retain(|(known, _)| *known != id);
        self.members.push((id, role));
        self.members.sort_unstable();
        true
    }

    pub(crate) fn forget_receiver(&mut self, device: DeviceId) {
        let senders = self.package.iter_mut().chain(self.artifact.iter_mut().map(|(_, it)| it));
        senders.for_each(|sender| sender.remove(device));
    }

    pub(crate) fn note_progress(&mut self, now: Instant, device: DeviceId, staged_bytes: u32) {
        let fresh = Rate { device, staged_bytes, since: now, bytes_per_s: 0 };
        let Some(rate) = self.rates.iter_mut().find(|rate| rate.device == device) else {
            if self.rates.len() < MEMBERS_MAX {
                self.rates.push(fresh);
            }
            return;
        };
        let elapsed_ms = now.ms_since(rate.since);
        if staged_bytes < rate.staged_bytes {
            *rate = fresh;
        } else if elapsed_ms >= RATE_WINDOW_MS {
            let gained = u64::from(staged_bytes - rate.staged_bytes);
            let bytes_per_s = gained.saturating_mul(1000) / elapsed_ms;
            let bytes_per_s = u32::try_from(bytes_per_s).unwrap_or(u32::MAX);
            *rate = Rate { bytes_per_s, ..fresh };
        }
    }
}

impl<A: Application> Node<A> {
    /// The last or present rollout, if this device conducts and there is one.
    pub fn conducting(&self) -> Option<Conducting<'_>> {
        let lead = self.lead.as_ref()?;
        let rollout = lead.rollout.as_ref()?;
        Some(Conducting {
            record: rollout.record(),
            views: rollout.views(),
            can_abort: rollout.can_abort(),
            upload: lead.upload_state(rollout),
        })
    }

    /// How fast bytes reach this member's flash, in bytes per second; 0 if unknown.
    pub fn staging_rate(&self, device: DeviceId) -> u32 {
        let rates = self.lead.iter().flat_map(|lead| &lead.rates);
        rates.filter(|rate| rate.device == device).map(|rate| rate.bytes_per_s).sum()
    }

    /// Devices of the group, as this lead knows them; empty on a member.
    pub fn members(&self) -> &[(DeviceId, Role)] {
        self.lead.as_ref().map(|lead| lead.members.as_slice()).unwrap_or_default()
    }

    /// Ends the open rollout: all go back, or stay, on what they ran before.
    pub fn abort<F: NorFlash>(
        &mut self,
        now: Instant,
        flash: &mut F,
    ) -> Result<RolloutId, ConductError> {
        let lead = self.lead.as_ref().ok_or(ConductError::NotTheLead)?;
        let rollout = lead.rollout.as_ref().ok_or(ConductError::NothingToAbort)?;
        let id = rollout.record().id;
        if rollout.is_over() {
            return Err(ConductError::NothingToAbort);
        }
        if !rollout.can_abort() {
            return Err(ConductError::VerdictIsFinal(id));
        }
        self.drive(now, Input::Abort, flash);
        self.after(now, flash);
        Ok(id)
    }

    /// Begins a rollout back to what the group ran before the last kept one.
    pub fn revert<F: NorFlash>(
        &mut self,
        now: Instant,
        flash: &mut F,
    ) -> Result<RolloutId, ConductError> {
        let id = RolloutId(self.draw());
        let lead = self.lead.as_ref().ok_or(ConductError::NotTheLead)?;
        let last = lead.rollout.as_ref().map(Rollout::record);
        let last = match last {
            None => return Err(ConductError::NothingToRevert),
            Some(_) if lead.is_busy() => {
                return Err(ConductError::Busy(last.map_or(id, |last| last.id)));
            }
            // Whoever came last has nothing to go back to but what it came with.
            Some(last) if last.catches_up => return Err(ConductError::NothingToRevert),
            Some(last) if last.phase.verdict() == Some(Verdict::Keep) => last.clone(),
            Some(_) => return Err(ConductError::NothingToRevert),
        };
        let (members, me, policy) = (lead.members.clone(), self.setup.id, self.setup.policy);
        let rollout = Rollout::back(now, id, &members, me, last, policy);
        self.open(now, rollout, flash);
        self.after(now, flash);
        Ok(id)
    }

    /// Why the last rollout did not begin, if it did not.
    pub fn refusals(&self) -> &[PreflightFault] {
        self.lead.as_ref().map(|lead| lead.refusals.as_slice()).unwrap_or_default()
    }

    /// A rollout takes the place of the last one.
    pub(crate) fn open<F: NorFlash>(&mut self, now: Instant, rollout: Rollout, flash: &mut F) {
        let Some(lead) = &mut self.lead else { return };
        lead.refusals.clear();
        lead.rates.clear();
        lead.package = None;
        lead.artifact = None;
        lead.cut = None;
        lead.goes_at = None;
        self.conductor = Some(self.setup.id);
        if let Some(lead) = &mut self.lead {
            lead.rollout_before = lead.rollout.replace(rollout);
        }
        self.drive(now, Input::Tick, flash);
    }
}

/// Layout, little endian: number of members u8, then id 6 and role 16 each.
pub(crate) fn encode_members(members: &[(DeviceId, Role)], buffer: &mut [u8]) -> usize {
    let mut writer = Writer::new(buffer);
    let count = u8::try_from(members.len()).unwrap_or(u8::MAX);
    // The buffer is made for the longest list.
    let _ = writer.u8(count);
    for (id, role) in members {
        let _ = writer.put(&id.0);
        let _ = writer.put(role.bytes());
    }
    writer.len_bytes()
}

pub(crate) fn decode_members(bytes: &[u8]) -> Vec<(DeviceId, Role)> {
    let mut reader = Reader::new(bytes);
    let count = reader.u8().unwrap_or(0);
    let member = |reader: &mut Reader<'_>| {
        let id = DeviceId(reader.array().ok()?);
        Some((id, Role::from_bytes(reader.array().ok()?)?))
    };
    (0..count).map_while(|_| member(&mut reader)).collect()
}

pub(crate) const MEMBERS_BYTES_MAX: usize = 1 + MEMBERS_MAX * 22;
const RATE_WINDOW_MS: u64 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    /// Leads in the field have this in their flash.
    #[test]
    fn the_bytes_of_the_list_of_members_are_frozen() {
        let role = |text| Role::new(text).unwrap();
        let members = [
            (DeviceId([2, 0, 0, 0, 0, 1]), role("receiver")),
            (DeviceId([2, 0, 0, 0, 0, 2]), role("transmitter")),
        ];
        let mut buffer = [0; MEMBERS_BYTES_MAX];
        let len = encode_members(&members, &mut buffer);
        let frozen =
            b"\x02\x02\0\0\0\0\x01receiver\0\0\0\0\0\0\0\0\x02\0\0\0\0\x02transmitter\0\0\0\0\0";
        assert_eq!(&buffer[..len], frozen);
        assert_eq!(decode_members(frozen), members);
        // A list that was cut keeps what is whole.
        assert_eq!(decode_members(&frozen[..30]), members[..1]);
    }
}
