//! The invariants, each a function that looks at what can be observed: the air, the flash, what
//! boots, what the application was given. What a node claims about itself is used only to tell
//! which rollout something belongs to.

use std::rc::Rc;

use lockstep_device::setup::Duty;
use lockstep_proto::compat::{Announced, check};
use lockstep_proto::frame::order::Ticket;
use lockstep_proto::frame::report::Rollback;
use lockstep_proto::id::{ImageHash, RolloutId};
use lockstep_proto::otadata::{OtaEntry, OtaState, active, slot_of};
use lockstep_rollout::{Kind, Phase, Policy, RolloutRecord};

use super::board::{Board, GroupSetup};
use super::images::Image;

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its number in the list of the design; 0: a rule of the rollout that has none there.
    pub invariant: u8,
    /// When, in milliseconds of the world's time.
    pub at_ms: u64,
    /// What was observed.
    pub text: String,
}

/// Which of the world's images.
pub(crate) type ImageIndex = usize;

/// What was observed of a board.
#[derive(Debug, Clone, Default)]
struct BoardView {
    /// What each slot holds, as far as it is one of the world's images, whole.
    slots: [Option<ImageIndex>; 2],
    otadata: [Option<OtaEntry>; 2],
    running_slot: u8,
    running: Option<ImageIndex>,
    epoch_floor: u32,
    /// When an order last reached it.
    order_at: u64,
    /// Since when its application is at rest, while it is.
    rests_since: Option<u64>,
    /// What each other board announced last, as it arrived here.
    announced: Vec<Option<Announced>>,
    /// The last activation that was seen.
    activated: Option<Ticket>,
    /// When it last heard each other board, in its present boot.
    heard_at: Vec<Option<u64>>,
    /// It was healthy at some time since it booted, as far as its application knows.
    was_healthy: bool,
}

/// What was observed of a rollout.
#[derive(Debug)]
struct RolloutView {
    id: RolloutId,
    /// How long a trial may take to become healthy, as its release says.
    trial_limit_ms: u32,
    /// For each board: the image that `keep` leaves it with.
    targets: Vec<Option<ImageHash>>,
    /// Boards that held their targets whole, as bits; they may have been spoilt since.
    staged: u32,
    /// Boards that were healthy on their targets, as bits.
    healthy: u32,
    /// For each board: whom it heard while both ran their targets, as bits.
    heard: Vec<u32>,
    confirmed: bool,
    reverted: bool,
}

/// What the invariants know.
#[derive(Debug)]
pub(crate) struct Observer {
    images: Vec<Rc<Image>>,
    /// Images that nobody may run, by hash.
    forbidden: Vec<ImageHash>,
    boards: Vec<BoardView>,
    rollouts: Vec<RolloutView>,
    /// The last look at the lead's record.
    pub(crate) last: Option<Seen>,
    pub(crate) violation: Option<Violation>,
}

/// What of the lead's record tells that something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) id: RolloutId,
    pub(crate) kind: Kind,
    pub(crate) phase: Phase,
    pub(crate) reactivations: u32,
    pub(crate) restarts: u8,
}

impl Observer {
    pub(crate) fn new(boards: usize) -> Self {
        let (announced, heard_at) = (vec![None; boards], vec![None; boards]);
        let view = BoardView { announced, heard_at, ..BoardView::default() };
        Self {
            images: Vec::new(),
            forbidden: Vec::new(),
            boards: vec![view; boards],
            rollouts: Vec::new(),
            last: None,
            violation: None,
        }
    }

    /// From here on this image may run: it stands in a manifest that devices trust, or was there
    /// from the factory.
    pub(crate) fn allow(&mut self, image: &Rc<Image>) {
        if !self.images.iter().any(|known| known.hash == image.hash) {
            self.images.push(Rc::clone(image));
        }
    }

    /// Nobody may ever run this image: it stands in no manifest that a device would believe.
    pub(crate) fn forbid(&mut self, image: &Rc<Image>) {
        self.allow(image);
        self.forbidden.push(image.hash);
    }

    /// What a slot of a board holds, as it was seen last.
    pub(crate) fn in_slot(&self, board: usize, slot: u8) -> Option<&Rc<Image>> {
        self.images.get(self.boards.get(board)?.slots[usize::from(slot)]?)
    }

    /// What a board runs, as far as it was seen to boot.
    pub(crate) fn running(&self, board: usize) -> Option<&Rc<Image>> {
        self.images.get(self.boards.get(board)?.running?)
    }

    fn violate(&mut self, invariant: u8, at_ms: u64, text: String) {
        self.violation.get_or_insert(Violation { invariant, at_ms, text });
    }

    /// Looks at a board after something happened to it.
    pub(crate) fn look(&mut self, now: u64, board: &mut Board, group: &GroupSetup) {
        let [slot_0, slot_1, otadata] = board.flash.take_touched();
        for slot in [0, 1] {
            if [slot_0, slot_1][usize::from(slot)] {
                let found = self.identify(board.flash.slot(slot));
                self.boards[board.index].slots[usize::from(slot)] = found;
            }
        }
        if slot_0 || slot_1 {
            self.note_staged(board.index);
        }
        // What makes a board healthy may also make it confirm, all in one event.
        self.note_health(board);
        if otadata {
            self.look_at_otadata(now, board);
        }
        if slot_0 || slot_1 || otadata {
            self.invariant_4_a_whole_image_boots(now, board);
        }
        if let Some(node) = &board.node {
            let floor = node.agent().epoch_floor();
            self.note_epoch_floor(now, board, floor);
            let view = &mut self.boards[board.index];
            let rests = node.application().is_resting();
            view.rests_since = rests.then(|| view.rests_since.unwrap_or(now));
            self.invariant_9_leases_end(now, board, group);
        }
    }

    fn identify(&self, slot: &[u8]) -> Option<ImageIndex> {
        // Images begin alike; how they end is their hash.
        let is_it = |image: &Rc<Image>| {
            let Some(front) = slot.get(..image.bytes.len()) else { return false };
            front.last_chunk::<32>() == image.bytes.last_chunk() && front == image.bytes
        };
        self.images.iter().position(is_it)
    }

    fn look_at_otadata(&mut self, now: u64, board: &Board) {
        let entries = board.flash.otadata();
        let before = core::mem::replace(&mut self.boards[board.index].otadata, entries);
        // What the bootloader does is its own business.
        let Some(node) = &board.node else { return };
        let rollout = node.agent().member().ticket.rollout;
        let running_slot = self.boards[board.index].running_slot;
        let is_other = |entry: &OtaEntry| slot_of(entry.seq, SLOTS) == Some(1 - running_slot);
        let next = |entries: [Option<OtaEntry>; 2]| {
            active(entries[0], entries[1]).map(|(_, entry)| entry).filter(is_other)
        };
        if let Some(entry) = next(entries)
            && entry.state == OtaState::New
            && next(before) != Some(entry)
        {
            self.invariant_1_staged_everywhere(now, board, rollout);
            self.invariant_7_epoch(now, board);
            self.rule_an_attempt_is_accepted_once(now, board, node.agent().member().ticket);
        }
        for (old, new) in before.into_iter().zip(entries) {
            let (Some(old), Some(new)) = (old, new) else { continue };
            let tried = matches!(old.state, OtaState::New | OtaState::PendingVerify);
            if tried && new.state == OtaState::Valid && new.seq == old.seq && !is_other(&new) {
                self.invariant_2_healthy_everywhere(now, board, rollout);
                if !self.boards[board.index].was_healthy {
                    let text = format!("{} confirms without being healthy in this boot", board.id);
                    self.violate(2, now, text);
                }
                self.note_verdict(now, rollout, true);
            }
        }
    }

    /// 1. Nobody activates before everybody has staged.
    fn invariant_1_staged_everywhere(&mut self, now: u64, board: &Board, rollout: RolloutId) {
        let Some(view) = self.rollouts.iter().find(|view| view.id == rollout) else {
            let text = format!("{} activates for rollout `{rollout}` of no lead", board.id);
            return self.violate(1, now, text);
        };
        let mut targets = view.targets.iter().enumerate();
        let lacking =
            targets.find(|(index, target)| target.is_some() && view.staged & 1 << index == 0);
        let own = &self.boards[board.index];
        if own.slots[usize::from(1 - own.running_slot)].is_none() {
            let text = format!("{} activates what is no whole image", board.id);
            self.violate(4, now, text);
        } else if let Some((lacking, _)) = lacking {
            let text = format!(
                "{} activates for rollout `{rollout}`, but board {lacking} has not staged",
                board.id
            );
            self.violate(1, now, text);
        }
    }

    /// Orders are compare-and-set: an attempt is accepted once, and none of an older rollout.
    fn rule_an_attempt_is_accepted_once(&mut self, now: u64, board: &Board, ticket: Ticket) {
        let before = self.boards[board.index].activated.replace(ticket);
        let is_older = |before: Ticket| {
            ticket.generation < before.generation
                || (ticket.rollout == before.rollout && ticket.attempt <= before.attempt)
        };
        if before.is_some_and(is_older) {
            let text = format!("{} activates for {ticket:?} after {before:?}", board.id);
            return self.violate(0, now, text);
        }
        let last = self.rollouts.last().map(|view| view.id);
        if last != Some(ticket.rollout) {
            let text = format!(
                "{} activates for rollout `{}`, the last one is {last:?}",
                board.id, ticket.rollout
            );
            self.violate(0, now, text);
        }
    }

    /// A frame that arrives twice is obeyed once.
    pub(crate) fn rule_a_replay_is_not_obeyed(&mut self, now: u64, board: &Board) {
        let text = format!("{} answers an order that it had heard already", board.id);
        self.violate(0, now, text);
    }

    /// 2. Nobody confirms before everybody was healthy, in the same rollout and generation.
    fn invariant_2_healthy_everywhere(&mut self, now: u64, board: &Board, rollout: RolloutId) {
        let Some(view) = self.rollouts.iter().find(|view| view.id == rollout) else {
            let text = format!("{} confirms for rollout `{rollout}` of no lead", board.id);
            return self.violate(2, now, text);
        };
        let members = (0..view.targets.len()).filter(|&index| view.targets[index].is_some());
        let all = members.clone().fold(0, |all, index| all | 1_u32 << index);
        let mut missing = members.filter(|&index| {
            let others = all & !(1 << index);
            view.healthy & 1 << index == 0 || view.heard[index] & others != others
        });
        if let Some(missing) = missing.next() {
            let text = format!(
                "{} confirms for rollout `{rollout}`, but board {missing} was never healthy in it: \
                 boards that were {:b}, heard by it {:b}",
                board.id, view.healthy, view.heard[missing]
            );
            self.violate(2, now, text);
        }
    }

    /// 3. One rollout never sends both `Confirm` and `Revert`.
    pub(crate) fn note_verdict(&mut self, now: u64, rollout: RolloutId, keeps: bool) {
        let Some(view) = self.rollouts.iter_mut().find(|view| view.id == rollout) else { return };
        view.confirmed |= keeps;
        view.reverted |= !keeps;
        if view.confirmed && view.reverted {
            let text = format!("rollout `{rollout}` says both `Confirm` and `Revert`");
            self.violate(3, now, text);
        }
    }

    /// 4. Whatever happens to the power, every device boots a complete, verified image.
    /// 6. And one that it was told of by a manifest which it verified, or its factory image.
    fn invariant_4_a_whole_image_boots(&mut self, now: u64, board: &Board) {
        let view = &self.boards[board.index];
        let Some(image) = self.would_boot(board, view).and_then(|index| self.images.get(index))
        else {
            let text = format!("{} would not boot if the power went now", board.id);
            return self.violate(4, now, text);
        };
        if image.spec.role != board.setup.role {
            let text = format!("{} would boot an image for `{}`", board.id, image.spec.role);
            return self.violate(6, now, text);
        }
        if self.forbidden.contains(&image.hash) {
            let text = format!("{} would boot {}, which no manifest names", board.id, image.hash);
            self.violate(6, now, text);
        }
    }

    /// What the bootloader's rules would choose, without running it.
    fn would_boot(&self, board: &Board, view: &BoardView) -> Option<ImageIndex> {
        let watches = board.setup.rollback == Rollback::Bootloader;
        let usable = |entry: &OtaEntry| !(watches && entry.state == OtaState::PendingVerify);
        let [a, b] = view.otadata.map(|entry| entry.filter(usable));
        let selected = active(a, b).and_then(|(_, entry)| slot_of(entry.seq, SLOTS)).unwrap_or(0);
        let fits = |slot: u8| {
            let index = view.slots[usize::from(slot)]?;
            (self.images.get(index)?.spec.chip == board.setup.chip).then_some(index)
        };
        fits(selected).or_else(|| fits(1 - selected))
    }

    /// A board has booted: 4 and 6 for what really runs, and 7 for the floor that it remembers.
    pub(crate) fn note_boot(&mut self, now: u64, board: &Board) {
        let Some(node) = &board.node else { return };
        let slot = node.setup().running_slot;
        let view = &mut self.boards[board.index];
        view.running_slot = slot;
        view.order_at = now;
        view.rests_since = None;
        view.running = view.slots[usize::from(slot)];
        view.announced.fill(None);
        view.was_healthy = false;
        view.heard_at.fill(None);
        let Some(image) = view.running.and_then(|index| self.images.get(index)) else {
            let text = format!("{} runs an image from slot {slot} that is none", board.id);
            return self.violate(4, now, text);
        };
        if image.hash != node.agent().running() {
            let found = node.agent().running();
            let text = format!("{} takes itself for {found}, it runs {}", board.id, image.hash);
            self.violate(4, now, text);
        }
    }

    fn note_epoch_floor(&mut self, now: u64, board: &Board, floor: u32) {
        let view = &mut self.boards[board.index];
        let known = view.epoch_floor;
        if floor == known {
            return;
        }
        view.epoch_floor = floor;
        let runs = view.running.and_then(|index| self.images.get(index));
        if floor < known {
            let text = format!("{} forgot its epoch: {known} became {floor}", board.id);
            self.violate(7, now, text);
        } else if runs.is_none_or(|image| image.spec.epoch < floor) {
            let text = format!("{} raises its epoch to {floor}, above what it runs", board.id);
            self.violate(7, now, text);
        }
    }

    /// 7. A release below the device's epoch is refused, whatever its version says.
    fn invariant_7_epoch(&mut self, now: u64, board: &Board) {
        let view = &self.boards[board.index];
        let other = view.slots[usize::from(1 - view.running_slot)];
        let Some(image) = other.and_then(|index| self.images.get(index)) else { return };
        if image.spec.epoch < view.epoch_floor {
            let (offered, floor) = (image.spec.epoch, view.epoch_floor);
            let text = format!("{} activates epoch {offered}, its floor is {floor}", board.id);
            self.violate(7, now, text);
        }
    }

    /// An announce has arrived as it stands here.
    pub(crate) fn note_announce(&mut self, from: usize, to: usize, announced: Announced) {
        self.boards[to].announced[from] = Some(announced);
    }

    /// 5. No application data is accepted between incompatible devices: judged by what the receiver
    ///    was told last, since a frame of data does not say what sent it.
    pub(crate) fn invariant_5_gate(
        &mut self,
        now: u64,
        (from, to): (usize, usize),
        group: &GroupSetup,
    ) {
        let Some(mine) = self.running(to).map(|image| image.announced) else { return };
        let told = self.boards[to].announced[from];
        if told.is_none_or(|yours| check(group.policy.rule, &mine, &yours).is_err()) {
            let text = format!("board {to} takes data of board {from}, told {told:?}");
            self.violate(5, now, text);
        }
    }

    /// An order has arrived.
    pub(crate) fn note_order(&mut self, now: u64, to: usize) {
        self.boards[to].order_at = now;
    }

    /// A control frame has arrived: a link that carries data.
    pub(crate) fn note_heard(&mut self, now: u64, from: usize, to: usize) {
        self.boards[to].heard_at[from] = Some(now);
        let runs = [from, to].map(|index| self.running(index).map(|image| image.hash));
        let Some(rollout) = self.rollouts.last_mut() else { return };
        let targets = [from, to].map(|index| rollout.targets[index]);
        if targets[0].is_some() && targets[1].is_some() && runs == targets {
            rollout.heard[to] |= 1 << from;
        }
    }

    fn note_staged(&mut self, index: usize) {
        let Some(rollout) = self.rollouts.last_mut() else { return };
        let holds = |slot: Option<ImageIndex>| {
            slot.and_then(|image| self.images.get(image)).map(|image| image.hash)
        };
        let target = rollout.targets[index];
        if target.is_some() && self.boards[index].slots.into_iter().any(|it| holds(it) == target) {
            rollout.staged |= 1 << index;
        }
    }

    /// Links between boards that a rollout only watches may be as old as a link counts as fresh.
    fn note_old_links(&mut self, now: u64) {
        for to in 0..self.boards.len() {
            for from in 0..self.boards.len() {
                let heard_at = self.boards[to].heard_at[from];
                if let Some(at) = heard_at.filter(|&at| now - at <= LINK_FRESH_MS_MAX) {
                    self.note_heard(at, from, to);
                }
            }
        }
    }

    fn note_health(&mut self, board: &Board) {
        let Some(node) = &board.node else { return };
        if node.application().healthy_answers < HEALTHY_ANSWERS {
            return;
        }
        self.boards[board.index].was_healthy = true;
        let runs = self.running(board.index).map(|image| image.hash);
        let Some(rollout) = self.rollouts.last_mut() else { return };
        if rollout.targets[board.index].is_some() && runs == rollout.targets[board.index] {
            rollout.healthy |= 1 << board.index;
        }
    }

    /// 9. A member is never BUSY for ever: without orders, every trial and every rest ends. The
    ///    lead's own are ended by its rollout, which invariant 8 looks at.
    fn invariant_9_leases_end(&mut self, now: u64, board: &Board, group: &GroupSetup) {
        let view = &self.boards[board.index];
        let silent_ms = now - view.order_at;
        let Some(node) = &board.node else { return };
        let rollout = node.agent().member().ticket.rollout;
        let allowed_ms = |lease_ms: u32| u64::from(lease_ms) * 5 / 4 + LEASE_SLACK_MS;
        let running = view.otadata.into_iter().flatten().find(|entry| {
            slot_of(entry.seq, SLOTS) == Some(view.running_slot)
                && matches!(entry.state, OtaState::New | OtaState::PendingVerify)
        });
        let way_back = view.slots[usize::from(1 - view.running_slot)];
        let can_go_back = way_back.is_some_and(|index| {
            self.images.get(index).is_some_and(|image| image.spec.role == board.setup.role)
        });
        let policy = &group.policy;
        if board.hangs(now) {
            return;
        }
        let limit_ms = allowed_ms(self.trial_limit_ms(rollout, policy));
        let trial_ms = now - board.booted_at;
        let is_sick = running.is_some() && !view.was_healthy;
        if is_sick && can_go_back && trial_ms > limit_ms {
            let text = format!("{} is on trial and never healthy for {trial_ms} ms", board.id);
            return self.violate(9, now, text);
        }
        if board.setup.duty == Duty::Lead {
            return;
        }
        // Who falls back because nobody spoke comes to rest for that, and reboots.
        let rests_ms = view.rests_since.map_or(0, |since| (now - since).min(silent_ms));
        if running.is_some() && can_go_back && silent_ms > allowed_ms(policy.lease_ms) {
            let text = format!("{} is on trial after {silent_ms} ms of silence", board.id);
            self.violate(9, now, text);
        }
        if rests_ms > allowed_ms(policy.rest_lease_ms) {
            let text = format!("{} is at rest after {rests_ms} ms of silence", board.id);
            self.violate(9, now, text);
        }
    }

    /// A manifest in which bits were flipped is taken by a group that asks for no signature, and
    /// may name another limit than the bundle that set out.
    fn trial_limit_ms(&self, rollout: RolloutId, policy: &Policy) -> u32 {
        let view = self.rollouts.iter().find(|view| view.id == rollout);
        view.map_or(policy.trial_limit_ms, |view| view.trial_limit_ms)
    }

    /// Looks at the lead's record. Returns what was known before, if it is another now.
    pub(crate) fn look_at_record(
        &mut self,
        now: u64,
        record: &RolloutRecord,
    ) -> Option<Option<Seen>> {
        if record.phase == Phase::Preflight {
            return None;
        }
        let seen = Seen {
            id: record.id,
            kind: record.kind,
            phase: record.phase,
            reactivations: record.seats.iter().map(|seat| u32::from(seat.reactivations)).sum(),
            restarts: record.restarts,
        };
        if self.last == Some(seen) {
            return None;
        }
        if !self.rollouts.iter().any(|view| view.id == record.id) {
            let mut targets = vec![None; self.boards.len()];
            for seat in &record.seats {
                if let Some(target) = targets.get_mut(usize::from(seat.id.0[5]) - 1) {
                    *target = Some(seat.target);
                }
            }
            let heard = vec![0; self.boards.len()];
            let (id, confirmed, reverted) = (record.id, false, false);
            let (staged, healthy) = (0, 0);
            self.rollouts.push(RolloutView {
                id,
                trial_limit_ms: record.trial_limit_ms,
                targets,
                staged,
                healthy,
                heard,
                confirmed,
                reverted,
            });
            (0..self.boards.len()).for_each(|index| self.note_staged(index));
            self.note_old_links(now);
        }
        Some(self.last.replace(seen))
    }

    /// 8. When faults stop and every device can be reached, the group settles: every device on the
    ///    image that the verdict names for its role. `None`: it has. Else what is missing.
    pub(crate) fn unsettled(
        &self,
        boards: &[Board],
        record: Option<&RolloutRecord>,
    ) -> Option<String> {
        for board in boards {
            let view = &self.boards[board.index];
            let Some(node) = &board.node else { return Some(format!("{} is off", board.id)) };
            let observed = node.agent().report().observed;
            if observed.on_trial || observed.activated {
                return Some(format!("{} is on trial or about to be", board.id));
            }
            if node.application().is_resting() || observed.armed {
                return Some(format!("{} is at rest", board.id));
            }
            if self.would_boot(board, view) != view.running {
                return Some(format!("{} would boot something else than it runs", board.id));
            }
        }
        let record = record?;
        let Phase::Settled(verdict) = record.phase else {
            return Some(format!("rollout `{}` is in {}", record.id, record.phase.as_str()));
        };
        for seat in &record.seats {
            let wanted = match verdict {
                lockstep_rollout::Verdict::Keep => seat.target,
                lockstep_rollout::Verdict::Revert(_) => seat.before,
            };
            let runs = self.running(usize::from(seat.id.0[5]) - 1).map(|image| image.hash);
            if runs != Some(wanted) {
                return Some(format!("{} runs {runs:?}, the verdict names {wanted}", seat.id));
            }
            if !seat.settled {
                return Some(format!("{} has not settled", seat.id));
            }
        }
        None
    }
}

const SLOTS: u8 = 2;
/// Longer than any world's link counts as fresh.
const LINK_FRESH_MS_MAX: u64 = 3_000;
/// Samples that make a device healthy.
const HEALTHY_ANSWERS: u32 = lockstep_agent::agent::HEALTHY_SAMPLES as u32;
/// Rest before a fall back, the reboot, and a tick.
const LEASE_SLACK_MS: u64 = 3_000;
