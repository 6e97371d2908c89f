//! The agent: what it knows, what it says of itself, and its time.
//!
//! What it does is in the files beside this one: `boot` finds out where the device stands, `orders`
//! decides about the lead's orders, `staging` brings an image into the other slot, `trial`
//! activates, confirms and goes back, `local` serves the lead's own device.

use alloc::boxed::Box;

use embedded_storage::nor_flash::{NorFlash, ReadNorFlash};
use lockstep_proto::compat::Announced;
use lockstep_proto::frame::block::Session;
use lockstep_proto::frame::coding::Shape;
use lockstep_proto::frame::order::{Order, Stage};
use lockstep_proto::frame::report::{
    Facts, Lacking, MemberState, Observed, Readiness, Refusal, Refused, Report, Rollback, View,
    Wants,
};
use lockstep_proto::id::{ImageHash, RolloutId};
use lockstep_proto::image::{ChipId, Guard};
use lockstep_proto::manifest::Trust;
use lockstep_proto::planted::{self, Bug};
use lockstep_proto::time::Instant;
use lockstep_proto::wire::{Board, Role};

use crate::applying::Applying;
use crate::boot_state::BootState;
use crate::config::{self, CONFIG_BYTES_MAX, ConfigError};
use crate::effects::{Effect, Effects, FallBackCause, Trace};
use crate::flash::{self, FlashFault, Region};
use crate::layout::Layout;
use crate::member::{MEMBER_BYTES_MAX, MemberRecord, NO_IMAGE};
use crate::package;
use crate::patch::Offered;
use crate::receiver::Receiver;
use crate::record::{Kind, RecordError, RecordLog};
use crate::slot::Pace;
use crate::trial::Wellness;

/// What the device is, and what its running firmware says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// What it is for.
    pub role: Role,
    /// Its chip.
    pub chip: ChipId,
    /// Its board; empty if nobody named it.
    pub board: Board,
    /// Version, minimum and protocols of the running firmware.
    pub announced: Announced,
    /// Layout version of the application's configuration.
    pub config_schema: u16,
}

/// What the device knows when it starts.
#[derive(Debug, Clone)]
pub struct Setup {
    /// What the device is.
    pub identity: Identity,
    /// What is taken to take it back from a failed trial. What a trial has shown of the bootloader
    /// beats it.
    pub rollback: Rollback,
    /// Which slot runs: 0 or 1.
    pub running_slot: u8,
    /// Why it booted: the number of `esp_reset_reason_t`.
    pub reset_reason: u8,
    /// Whose releases it takes, unless its record says otherwise.
    pub trust: Trust,
    /// Whether its radio takes frames of ESP-NOW version 2, and so large blocks.
    pub takes_large: bool,
}

/// One sample of the device's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// The device's own required checks pass; "I can still be updated" is one of them.
    pub checks_ok: bool,
    /// The link to every peer that runs the new release carries data both ways.
    pub link_ok: bool,
    /// To how many peers the link carries data both ways.
    pub linked: u8,
    /// Who runs what, as far as this device has heard.
    pub view: View,
}

/// What to answer to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// [`Agent::report`].
    Report,
    /// [`Agent::facts`], then [`Agent::report`].
    FactsAndReport,
    /// Nothing yet: the answer comes after a reboot, when the lead asks again.
    Nothing,
}

/// One device's update.
#[derive(Debug, Clone)]
pub struct Agent {
    pub(crate) identity: Identity,
    pub(crate) rollback: Rollback,
    pub(crate) running_slot: u8,
    pub(crate) reset_reason: u8,
    pub(crate) trust: Trust,
    pub(crate) layout: Layout,
    pub(crate) record: RecordLog,
    pub(crate) boot: BootState,
    pub(crate) member: MemberRecord,
    pub(crate) boot_number: u32,
    pub(crate) epoch_floor: u32,
    pub(crate) flash_mode: [u8; 2],
    pub(crate) guard: Guard,
    pub(crate) running: ImageHash,
    pub(crate) other: Option<ImageHash>,
    pub(crate) trial: Option<Trial>,
    pub(crate) leaving: Option<Leaving>,
    pub(crate) rest: Rest,
    pub(crate) armed: Option<Armed>,
    pub(crate) wellness: Wellness,
    pub(crate) refused: Option<Refused>,
    pub(crate) receiver: Receiver,
    /// The patch that the lead has offered last.
    pub(crate) offered: Option<Offered>,
    /// The patch that is being applied; not within the agent, as the memory of a transfer.
    pub(crate) applying: Option<Box<Applying>>,
    /// Why staging of the record's image cannot go on, until another rollout begins.
    pub(crate) staging_refusal: Option<Refusal>,
    pub(crate) staging_restarts: u8,
    pub(crate) pace: Pace,
    pub(crate) flash_used_at: Option<Instant>,
    pub(crate) spool_used_at: Option<Instant>,
    /// Since when something is to be said unasked.
    pub(crate) wants_due: Option<Instant>,
    /// How long this device waits before it speaks unasked.
    pub(crate) unasked_wait_ms: u64,
    /// When it does.
    pub(crate) unasked_at: Option<Instant>,
    /// When to answer the question to all what is lacking.
    pub(crate) answer_at: Option<Instant>,
    /// When to say that repair frames were too few.
    pub(crate) answer_lacking_at: Option<Instant>,
    /// Questions to others in a row.
    pub(crate) unnamed: u8,
    /// When a frame of the session came that this device takes.
    pub(crate) session_heard: Option<Instant>,
    pub(crate) report_due: bool,
    pub(crate) booted_at: Instant,
    pub(crate) last_frame: Instant,
    pub(crate) now: Instant,
    pub(crate) effects: Effects,
}

/// Who knows of the present trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trial {
    /// The running entry is PENDING_VERIFY: any reset goes back.
    ByBootloader,
    /// Our record only.
    ByRecord,
}

/// A reboot is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// Into the activated image, at once.
    ToTrial { asked_at: Instant },
    /// Back, as soon as the application is at rest or the limit is reached.
    Back { cause: FallBackCause, since: Instant, asked_at: Option<Instant> },
}

/// Where the application stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// It does what it is for.
    No,
    /// It was asked.
    Asked {
        /// It has answered "not now" since.
        not_now: bool,
    },
    /// It has stopped what a reboot would hurt.
    Yes,
}

/// Ready to be fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Armed {
    pub(crate) attempt: u8,
    pub(crate) image: ImageHash,
    pub(crate) running: ImageHash,
    pub(crate) fire_at: Option<Instant>,
}

impl Agent {
    /// How often this device has booted, this boot included.
    pub const fn boot_number(&self) -> u32 {
        self.boot_number
    }

    /// Whether what runs is activated and not confirmed.
    pub const fn on_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// What runs.
    pub const fn running(&self) -> ImageHash {
        self.running
    }

    /// What the other slot holds, if it is a whole image.
    pub const fn other(&self) -> Option<ImageHash> {
        self.other
    }

    /// This device's part in its last rollout.
    pub const fn member(&self) -> &MemberRecord {
        &self.member
    }

    /// What the device is.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where things are in its flash.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The durable record, for kinds that are not the agent's.
    pub const fn record(&self) -> &RecordLog {
        &self.record
    }

    /// The durable record, for kinds that are not the agent's: rollout, group, current release,
    /// password, history, settings.
    pub const fn record_mut(&mut self) -> &mut RecordLog {
        &mut self.record
    }

    /// See [`RecordLog::read`].
    pub fn read_record<F: ReadNorFlash>(
        &self,
        flash: &mut F,
        kind: Kind,
        payload: &mut [u8],
    ) -> Result<Option<(u8, usize)>, FlashFault> {
        self.record.read(flash, kind, payload)
    }

    /// See [`RecordLog::write`].
    pub fn write_record<F: NorFlash>(
        &mut self,
        flash: &mut F,
        kind: Kind,
        version: u8,
        payload: &[u8],
    ) -> Result<(), RecordError> {
        self.record.write(flash, kind, version, payload)
    }

    /// Whether this device runs the release that it has kept, and so does, as the lead has said,
    /// everybody else.
    pub fn has_settled(&self) -> bool {
        let member = &self.member;
        member.state == MemberState::Kept
            && member.settled == member.ticket.generation
            && self.running == member.target
            && !self.on_trial()
    }

    /// Releases below this epoch are refused.
    pub const fn epoch_floor(&self) -> u32 {
        self.epoch_floor
    }

    /// Raises the epoch floor; it never sinks. Only once [`Agent::has_settled`] and after a soak:
    /// the way back is refused from then on, if its epoch is lower.
    pub fn raise_epoch<F: NorFlash>(
        &mut self,
        floor: u32,
        flash: &mut F,
    ) -> Result<(), RecordError> {
        if floor > self.epoch_floor {
            self.record.write(flash, Kind::EPOCH, RECORD_VERSION, &floor.to_le_bytes())?;
            self.epoch_floor = floor;
        }
        Ok(())
    }

    /// Whose releases are taken.
    pub const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Changes whose releases are taken, durably: from now on it is the record that counts, not
    /// what the device is set up with.
    pub fn set_trust<F: NorFlash>(
        &mut self,
        trust: Trust,
        flash: &mut F,
    ) -> Result<(), RecordError> {
        self.record.write(flash, Kind::TRUST, RECORD_VERSION, &trust.encode())?;
        self.trust = trust;
        Ok(())
    }

    /// How much of the flash's time staging may take from now on. At first [`Pace::Fast`].
    pub const fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// How long this device waits before it says unasked what it lacks. Members that begin at the
    /// same moment, or are done with their flash, should not all speak at that moment: each should
    /// have another wait. At first 0.
    pub const fn set_unasked_wait(&mut self, wait_ms: u64) {
        self.unasked_wait_ms = wait_ms;
    }

    /// The stored manifest package, whole and checked against its digest, in `buffer`, which should
    /// have [`package::PACKAGE_SIZE_BYTES_MAX`] bytes.
    pub fn package<'b, F: ReadNorFlash>(
        &self,
        flash: &mut F,
        buffer: &'b mut [u8],
    ) -> Option<&'b [u8]> {
        package::load(flash, self.layout.package(), buffer).ok().flatten()
    }

    /// Fills `bytes` with what the package's store holds from `offset` on, for members, who check
    /// the whole. `None`: the flash failed, or that lies behind the longest package.
    pub fn package_part<F: ReadNorFlash>(
        &self,
        offset: u32,
        bytes: &mut [u8],
        flash: &mut F,
    ) -> Option<()> {
        let end = usize::try_from(offset).ok()?.checked_add(bytes.len())?;
        let start = package::body(self.layout.package()) + offset;
        let read = || flash::read(flash, start, bytes).ok();
        (end <= package::PACKAGE_SIZE_BYTES_MAX).then(read)?
    }

    /// Copies the configuration that is in force for the running image into `buffer` and returns
    /// its length; `None` if there is none. See [`crate::config`].
    pub fn load_config<F: ReadNorFlash>(
        &self,
        flash: &mut F,
        buffer: &mut [u8; CONFIG_BYTES_MAX],
    ) -> Result<Option<usize>, FlashFault> {
        let Some(store) = self.layout.config() else { return Ok(None) };
        config::load(flash, store, self.running, buffer)
    }

    /// Makes `bytes` the configuration of the running image.
    pub fn store_config<F: NorFlash>(
        &self,
        bytes: &[u8],
        flash: &mut F,
    ) -> Result<(), ConfigError> {
        let store = self.layout.config().ok_or(ConfigError::NoRoom)?;
        config::store(flash, store, self.running, self.other, bytes)
    }

    /// The next thing to do, if there is one. At most [`crate::effects::TRACES_MAX`] traces and one
    /// each of the others wait.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.poll()
    }

    /// What this device is.
    pub fn facts(&self, free_heap_bytes: u32, link_loss_percent: u8) -> Facts {
        let identity = &self.identity;
        let keys = self.trust.keys().map_or(0, |keys| keys.keys().len());
        Facts {
            role: identity.role,
            chip: identity.chip,
            board: identity.board,
            slot_size_bytes: self.layout.slot_size_bytes(),
            rollback: self.rollback,
            announced: identity.announced,
            epoch_floor: self.epoch_floor,
            config_schema: identity.config_schema,
            free_heap_bytes,
            link_loss_percent,
            flash_mode: self.flash_mode,
            keys: u8::try_from(keys).unwrap_or(u8::MAX),
            generation: self.member.ticket.generation,
            running: self.running,
            other: self.other.unwrap_or(NO_IMAGE),
            guard: self.guard,
        }
    }

    /// What this device observes of itself, and where its record stands.
    pub fn report(&self) -> Report {
        let mut report = self.observed_report();
        let believed = matches!(self.member.state, MemberState::Activating | MemberState::Kept);
        if planted::has(Bug::AnswersFromRecord) && believed {
            report.running = self.member.target;
            report.other = self.member.previous;
        }
        report
    }

    fn observed_report(&self) -> Report {
        Report {
            ticket: self.member.ticket,
            state: self.member.state,
            refused: self.refused,
            running: self.running,
            other: self.other.unwrap_or(NO_IMAGE),
            ota_state: self.boot.running_state(),
            observed: self.observed(),
            staged_bytes: self.staged_bytes(),
            linked: self.wellness.linked,
            view: self.wellness.view,
            trial_left_s: self.trial_left_s(),
            reset_reason: self.reset_reason,
        }
    }

    /// Whether something changed since the last call that the lead is waiting for: staged, refused,
    /// at rest, healthy. A device that reports then, unasked, makes a rollout quicker.
    pub const fn take_report_due(&mut self) -> bool {
        core::mem::replace(&mut self.report_due, false)
    }

    /// What this device lacks of the object that comes in blocks, if there is one; that it has all
    /// of it, if that was an image.
    pub fn wants(&self) -> Option<Wants> {
        let done = match (self.receiver.job(), &self.applying) {
            (Some(job), _) => return job.wants(self.pace),
            (None, Some(applying)) => Some(applying.patch()),
            (None, None) => {
                (self.member.state == MemberState::Staged).then_some(self.member.file_sha256)
            }
        };
        done.map(|done| Wants {
            session: Session::of(&done.0),
            readiness: Readiness::Done,
            shape: Shape::Small,
            takes_large: false,
            interval_ms: 0,
            staged_bytes: self.member.size_bytes,
            erased_bytes: 0,
            first: u16::MAX,
            lacking: Lacking::default(),
        })
    }

    /// Whether something comes in blocks, and nothing of it has been heard for `silence_ms`: then
    /// saying [`Agent::wants`] again makes it go on.
    pub fn misses_blocks(&self, now: Instant, silence_ms: u64) -> bool {
        let silence_ms = silence_ms + self.unasked_wait_ms;
        let heard = self.session_heard.is_some_and(|at| now.ms_since(at) < silence_ms);
        let job = self.receiver.job().filter(|job| job.comes_in_blocks());
        job.is_some_and(|job| !job.is_complete()) && !heard
    }

    fn observed(&self) -> Observed {
        Observed {
            on_trial: self.on_trial(),
            healthy: self.is_healthy(),
            at_rest: self.rest == Rest::Yes,
            armed: self.armed.is_some(),
            not_now: self.rest == Rest::Asked { not_now: true },
            staged: self.is_staged(),
            activated: self.boot.other_is_next()
                && !matches!(self.leaving, Some(Leaving::Back { .. })),
            settled: self.has_settled(),
        }
    }

    /// The other slot holds the image of the record, and was verified.
    pub(crate) fn is_staged(&self) -> bool {
        let verified = matches!(
            self.member.state,
            MemberState::Staged
                | MemberState::Activating
                | MemberState::Confirming
                | MemberState::Kept
        );
        verified && self.other == Some(self.member.target)
    }

    fn staged_bytes(&self) -> u32 {
        match self.receiver.job() {
            _ if let Some(bytes) = self.patched_bytes() => bytes,
            Some(job) => job.flashed_bytes(),
            None if self.is_staged() => self.member.size_bytes,
            None => 0,
        }
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.wellness.good_samples >= HEALTHY_SAMPLES
    }

    /// Size of the smaller slot in bytes: no image may be larger.
    pub fn slot_bytes(&self) -> u32 {
        let [first, second] = self.layout.slots;
        first.size_bytes.min(second.size_bytes)
    }

    /// The slot that does not run.
    pub(crate) fn other_slot(&self) -> Region {
        let [first, second] = self.layout.slots;
        if self.running_slot == 0 { second } else { first }
    }

    /// Every input brings the time.
    pub(crate) fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// Any authenticated frame of `rollout` renews the leases.
    pub fn note_frame_of(&mut self, now: Instant, rollout: RolloutId) {
        self.advance(now);
        if rollout == self.member.ticket.rollout && rollout != RolloutId(0) {
            self.last_frame = self.now;
        }
    }

    /// Makes `member` durable, then believes it.
    pub(crate) fn store_member<F: NorFlash>(
        &mut self,
        member: MemberRecord,
        flash: &mut F,
    ) -> Result<(), Refusal> {
        let mut buffer = [0; MEMBER_BYTES_MAX];
        // The buffer is made for the longest record.
        let length = member.encode(&mut buffer).unwrap_or_default();
        let payload = buffer.get(..length).unwrap_or_default();
        self.record.write(flash, Kind::MEMBER, member.version(), payload)?;
        self.member = member;
        Ok(())
    }

    /// Remembers a refusal, to be reported.
    pub(crate) fn refuse(&mut self, rollout: RolloutId, order: &Order, why: Refusal) {
        let refused = Some(Refused::new(rollout, order, why));
        if self.refused != refused {
            self.effects.trace(Trace::Refused(why));
            self.report_due = true;
        }
        self.refused = refused;
    }

    /// Remembers what went wrong after `Stage` had been answered.
    pub(crate) fn refuse_staging(&mut self, why: Refusal) {
        let member = &self.member;
        let stage = Order::Stage(Stage {
            image: member.target,
            size_bytes: member.size_bytes,
            package: member.package,
            package_size_bytes: member.package_size_bytes,
            source: member.source,
            terms: member.terms,
            sender: None,
        });
        self.refuse(member.ticket.rollout, &stage, why);
    }

    pub(crate) fn trace_fault(&mut self, fault: FlashFault) {
        self.effects.trace(Trace::FlashFailed(fault));
    }
}

/// The first four bytes of a hash, as refusals carry them.
pub(crate) const fn first4(hash: &ImageHash) -> u32 {
    let [a, b, c, d, ..] = hash.0;
    u32::from_le_bytes([a, b, c, d])
}

/// So many good samples in a row make a device healthy; one bad one ends it.
pub const HEALTHY_SAMPLES: u8 = 3;
/// Version of the small entries: boot number, epoch, trust, progress.
pub(crate) const RECORD_VERSION: u8 = 1;
