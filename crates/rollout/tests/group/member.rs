//! A model of one member: the rules by which a real one answers orders, without a flash.

use lockstep_proto::compat::Announced;
use lockstep_proto::frame::order::{Detail, Order, Source, Stage, Terms, Ticket};
use lockstep_proto::frame::report::{
    Facts, MemberState, Observed, Refusal, Refused, Report, Rollback, View,
};
use lockstep_proto::id::{DeviceId, Generation, ImageHash};
use lockstep_proto::image::{ChipId, Guard};
use lockstep_proto::otadata::OtaState;
use lockstep_proto::version::ProtocolRange;
use lockstep_proto::wire::{Board, Role};

pub const NO_IMAGE: ImageHash = ImageHash([0; 32]);
/// A boot of the model, in milliseconds.
pub const BOOT_MS: u64 = 400;
const STAGE_MS: u64 = 200;
const HEALTHY_AFTER_MS: u64 = 300;

/// What an image does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    CrashesAtBoot,
    CrashesAfterMs(u64),
    NeverHealthy,
    /// Believes itself healthy, but hears no peer.
    Deaf,
}

/// What the member's record holds.
#[derive(Debug, Clone, Copy)]
pub struct Durable {
    pub ticket: Ticket,
    pub state: MemberState,
    pub target: ImageHash,
    /// The generation that the lead has called settled.
    pub settled: Generation,
}

#[derive(Debug, Clone)]
pub struct Member {
    pub id: DeviceId,
    pub facts: Facts,
    // Flash.
    pub running: ImageHash,
    pub other: ImageHash,
    pub trial: bool,
    pub activated: bool,
    pub durable: Durable,
    // Memory.
    pub up_at: u64,
    pub at_rest: bool,
    pub armed: bool,
    pub fire_at: Option<u64>,
    pub refused: Option<Refused>,
    pub healthy: bool,
    /// When each activation happened, in this model's time.
    pub activated_at: Option<u64>,
    not_now_said: bool,
    reboot_at: Option<u64>,
    heard_at: u64,
    staged_at: Option<u64>,
    pub terms: Terms,
    // The world.
    pub flaws: Vec<(ImageHash, Flaw)>,
    pub ill: bool,
    pub not_now: bool,
    pub cut_off: bool,
    pub torn_confirms: u8,
    pub slot_spoilt: bool,
    pub refuses_stage: Option<Refusal>,
    /// Its bootloader knows no rollback and leaves the entry of what runs as it was written.
    pub leaves_new: bool,
    /// It does not soak: its epoch is that of the release as soon as that may be.
    pub raises_epoch: bool,
    pub knows_settled: bool,
    pub reboots: u32,
}

/// See [`super::image`] and [`super::release`].
fn epoch_of(image: ImageHash) -> u32 {
    image.0[1].into()
}

impl Member {
    pub fn new(id: DeviceId, role: Role, running: ImageHash) -> Self {
        Self {
            id,
            facts: facts(role),
            running,
            other: NO_IMAGE,
            trial: false,
            activated: false,
            durable: Durable {
                ticket: Ticket::default(),
                state: MemberState::Idle,
                target: NO_IMAGE,
                settled: Generation::default(),
            },
            up_at: 0,
            at_rest: false,
            armed: false,
            fire_at: None,
            refused: None,
            healthy: false,
            activated_at: None,
            not_now_said: false,
            reboot_at: None,
            heard_at: 0,
            staged_at: None,
            terms: Terms { lease_ms: 0, trial_limit_ms: 0, rest_lease_ms: 0 },
            flaws: Vec::new(),
            ill: false,
            not_now: false,
            cut_off: false,
            torn_confirms: 0,
            slot_spoilt: false,
            refuses_stage: None,
            leaves_new: false,
            raises_epoch: false,
            knows_settled: true,
            reboots: 0,
        }
    }

    pub fn is_up(&self, now: u64) -> bool {
        now >= self.up_at
    }

    pub fn flaw(&self) -> Option<Flaw> {
        self.flaws.iter().find(|(image, _)| *image == self.running).map(|(_, flaw)| *flaw)
    }

    /// Any reset: what was on trial is over, what was activated boots, memory is gone.
    pub fn reset(&mut self, now: u64, off_ms: u64) {
        self.reboots += 1;
        self.up_at = now + off_ms + BOOT_MS;
        if self.trial {
            self.trial = false;
            core::mem::swap(&mut self.running, &mut self.other);
        } else if self.activated {
            core::mem::swap(&mut self.running, &mut self.other);
            self.trial = true;
        }
        self.activated = false;
        if self.trial && self.flaw() == Some(Flaw::CrashesAtBoot) {
            self.trial = false;
            core::mem::swap(&mut self.running, &mut self.other);
            self.up_at += BOOT_MS;
        }
        (self.at_rest, self.armed, self.healthy) = (false, false, false);
        (self.not_now_said, self.refused) = (false, None);
        (self.fire_at, self.reboot_at) = (None, None);
        self.heard_at = self.up_at;
        if self.durable.state == MemberState::Staging {
            // Progress is durable: staging goes on when the lead says so again.
            self.staged_at = None;
        }
    }

    pub fn tick(&mut self, now: u64) {
        if !self.is_up(now) {
            return;
        }
        if self.staged_at.is_some_and(|at| now >= at) {
            self.staged_at = None;
            self.other = self.durable.target;
            self.durable.state = MemberState::Staged;
        }
        if self.fire_at.is_some_and(|at| now >= at) {
            self.fire_at = None;
            self.activate(now, self.durable.ticket.attempt.max(1));
        }
        let uptime_ms = now - self.up_at;
        let ails = self.ill || self.flaw() == Some(Flaw::NeverHealthy);
        self.healthy = uptime_ms >= HEALTHY_AFTER_MS && !ails;
        let silent_ms = now.saturating_sub(self.heard_at);
        if self.at_rest && silent_ms >= u64::from(self.terms.rest_lease_ms) {
            (self.at_rest, self.armed, self.fire_at) = (false, false, None);
        }
        let crashes = matches!(self.flaw(), Some(Flaw::CrashesAfterMs(ms)) if uptime_ms >= ms);
        let lease_over = silent_ms >= u64::from(self.terms.lease_ms);
        let trial_over = !self.healthy && uptime_ms >= u64::from(self.terms.trial_limit_ms);
        let due = self.reboot_at.is_some_and(|at| now >= at);
        if due || (self.trial && (crashes || lease_over || trial_over)) {
            self.reset(now, 0);
        }
    }

    /// What it answers to an order: a report, with facts if they were asked for.
    pub fn handle(&mut self, now: u64, ticket: &Ticket, order: &Order) -> Option<Detail> {
        if ticket.rollout == self.durable.ticket.rollout {
            self.heard_at = now;
        }
        if matches!(order, Order::Serve(_)) {
            return Some(Detail::Report);
        }
        if let Order::Inspect(detail) = order {
            return Some(*detail);
        }
        if *order == Order::Settled && !self.knows_settled {
            return None;
        }
        match self.obey(now, ticket, order) {
            Ok(Done::Answered) => self.refused = None,
            Ok(Done::Rebooting) => return None,
            Err(why) => self.refused = Some(Refused::new(ticket.rollout, order, why)),
        }
        Some(Detail::Report)
    }

    fn obey(&mut self, now: u64, ticket: &Ticket, order: &Order) -> Result<Done, Refusal> {
        let mine = self.durable.ticket;
        if ticket.generation < mine.generation {
            let (offered, known) = (ticket.generation.counter, mine.generation.counter);
            return Err(Refusal::StaleGeneration { offered, known });
        }
        let ours = ticket.rollout == mine.rollout;
        let other_rollout =
            Refusal::OtherRollout { offered: ticket.rollout.low(), known: mine.rollout.low() };
        if ticket.generation == mine.generation && !ours {
            return Err(other_rollout);
        }
        match order {
            Order::Stage(stage) => return self.stage(now, ticket, stage),
            Order::Revert => return self.revert(now, ticket),
            _ if !ours => return Err(other_rollout),
            Order::Rest if self.trial => return Err(Refusal::OnTrial),
            Order::Rest => {
                self.not_now_said = self.not_now;
                if self.not_now {
                    return Err(Refusal::NotNow);
                }
                self.at_rest = true;
            }
            Order::Arm { image, running } => {
                self.may_activate(ticket.attempt, *image, *running)?;
                self.armed = true;
            }
            Order::Activate { image, running } => {
                if self.activated && ticket.attempt == mine.attempt {
                    return Ok(Done::Answered);
                }
                self.may_activate(ticket.attempt, *image, *running)?;
                self.activate(now, ticket.attempt);
            }
            Order::Fire { in_ms } if self.armed => {
                self.fire_at = Some(now + u64::from(*in_ms));
            }
            // It knows no patches, and gets the whole image.
            Order::Fire { .. } | Order::Offer(_) => (),
            Order::Confirm { image } => return self.confirm(now, *image),
            Order::Settled if self.durable.state != MemberState::Kept => {
                return Err(Refusal::NotStaged);
            }
            Order::Settled => {
                self.durable.settled = mine.generation;
                if self.raises_epoch {
                    self.facts.epoch_floor = epoch_of(self.durable.target);
                }
            }
            Order::Inspect(_) | Order::Serve(_) => (),
        }
        Ok(Done::Answered)
    }

    fn stage(&mut self, now: u64, ticket: &Ticket, stage: &Stage) -> Result<Done, Refusal> {
        if let Some(why) = self.refuses_stage {
            return Err(why);
        }
        let newer = ticket.generation > self.durable.ticket.generation;
        if newer && self.trial {
            self.reset(now, 0);
            return Ok(Done::Rebooting);
        }
        let (offered, floor) = (epoch_of(stage.image), self.facts.epoch_floor);
        if offered < floor {
            return Err(Refusal::EpochTooLow { offered, floor });
        }
        if stage.image == self.running {
            return Err(Refusal::OtherRunning { running: 0, expected: 0 });
        }
        if !newer && self.durable.state == MemberState::Reverted {
            return Err(Refusal::NotStaged);
        }
        if !newer && self.durable.state != MemberState::Staging {
            return Ok(Done::Answered);
        }
        if !newer && self.staged_at.is_some() {
            return Ok(Done::Answered);
        }
        self.terms = stage.terms;
        if stage.source == Source::OtherSlot && self.other != stage.image {
            return Err(Refusal::NoWayBack { found: 0, expected: 0 });
        }
        (self.activated, self.reboot_at, self.fire_at) = (false, None, None);
        self.durable = Durable {
            ticket: Ticket { attempt: 0, ..*ticket },
            state: MemberState::Staging,
            target: stage.image,
            ..self.durable
        };
        self.heard_at = now;
        match stage.source {
            Source::Blocks => {
                self.other = NO_IMAGE;
                self.staged_at = Some(now + STAGE_MS);
            }
            Source::OtherSlot => self.durable.state = MemberState::Staged,
        }
        Ok(Done::Answered)
    }

    fn may_activate(
        &self,
        attempt: u8,
        image: ImageHash,
        running: ImageHash,
    ) -> Result<(), Refusal> {
        let holds = !matches!(
            self.durable.state,
            MemberState::Idle | MemberState::Staging | MemberState::Reverted
        );
        if self.trial {
            return Err(Refusal::OnTrial);
        }
        if running != self.running {
            return Err(Refusal::OtherRunning { running: 0, expected: 0 });
        }
        if attempt <= self.durable.ticket.attempt {
            let spent = self.durable.ticket.attempt.into();
            return Err(Refusal::AttemptSpent { offered: attempt.into(), spent });
        }
        if !holds || image != self.durable.target || self.other != image {
            return Err(Refusal::NotStaged);
        }
        if !self.at_rest {
            return Err(Refusal::NotAtRest);
        }
        if self.slot_spoilt {
            return Err(Refusal::SlotDiffers { found: 0, expected: 0 });
        }
        Ok(())
    }

    fn activate(&mut self, now: u64, attempt: u8) {
        self.durable.ticket.attempt = attempt;
        self.durable.state = MemberState::Activating;
        self.activated = true;
        self.activated_at = Some(now);
        self.reboot_at = Some(now + 20);
    }

    fn confirm(&mut self, now: u64, image: ImageHash) -> Result<Done, Refusal> {
        if self.durable.state == MemberState::Kept && self.running == image {
            return Ok(Done::Answered);
        }
        if !self.trial || self.running != image || !self.healthy {
            return Err(Refusal::NotHealthy);
        }
        self.durable.state = MemberState::Confirming;
        if self.torn_confirms > 0 {
            self.torn_confirms -= 1;
            self.reset(now, 0);
            return Ok(Done::Rebooting);
        }
        self.trial = false;
        self.durable.state = MemberState::Kept;
        Ok(Done::Answered)
    }

    fn revert(&mut self, now: u64, ticket: &Ticket) -> Result<Done, Refusal> {
        let ours = ticket.generation == self.durable.ticket.generation;
        if ours && self.durable.state == MemberState::Kept {
            return Err(Refusal::AlreadyKept);
        }
        if !ours {
            self.durable.ticket = Ticket { attempt: 0, ..*ticket };
        }
        self.durable.state = MemberState::Reverted;
        self.staged_at = None;
        (self.at_rest, self.armed, self.fire_at) = (false, false, None);
        if self.trial {
            self.reset(now, 0);
            return Ok(Done::Rebooting);
        }
        (self.activated, self.reboot_at) = (false, None);
        Ok(Done::Answered)
    }

    pub fn facts(&self) -> Facts {
        let mut facts = self.facts;
        facts.generation = self.durable.ticket.generation;
        facts.running = self.running;
        facts.other = self.other;
        facts
    }

    pub fn report(&self, view: View) -> Report {
        let staged = !matches!(self.durable.state, MemberState::Idle | MemberState::Staging);
        Report {
            ticket: self.durable.ticket,
            state: self.durable.state,
            refused: self.refused,
            running: self.running,
            other: self.other,
            ota_state: match (self.trial, self.leaves_new) {
                (true, _) => OtaState::PendingVerify,
                (false, true) => OtaState::New,
                (false, false) => OtaState::Valid,
            },
            observed: Observed {
                on_trial: self.trial,
                healthy: self.healthy,
                at_rest: self.at_rest,
                armed: self.armed,
                not_now: self.not_now_said,
                staged: staged && self.other == self.durable.target,
                activated: self.activated,
                settled: self.durable.settled == self.durable.ticket.generation,
            },
            staged_bytes: 0,
            linked: 0,
            view,
            trial_left_s: 0,
            reset_reason: 1,
        }
    }
}

enum Done {
    Answered,
    Rebooting,
}

fn facts(role: Role) -> Facts {
    Facts {
        role,
        chip: ChipId(0),
        board: Board::new("desk").unwrap(),
        slot_size_bytes: 0x1E_0000,
        rollback: Rollback::Bootloader,
        announced: Announced {
            number: 10_000,
            min_compatible: 0,
            protocol: ProtocolRange::single(1),
        },
        epoch_floor: 0,
        config_schema: 0,
        free_heap_bytes: 150_000,
        link_loss_percent: 0,
        flash_mode: [2, 0x2F],
        keys: 1,
        generation: Generation::default(),
        running: NO_IMAGE,
        other: NO_IMAGE,
        guard: Guard::default(),
    }
}
