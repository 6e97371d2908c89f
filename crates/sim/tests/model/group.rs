//! The group as a model: what can happen next in a state, and what comes of it.
//!
//! A link holds two frames in each direction, which arrive in any order. What the lead says again
//! is not put beside itself; what finds no room is said again later. Boots, reboots, transfers,
//! health and every frame may take as long as they like. A fault is paid for from a budget: a lost
//! frame, one that arrives twice, a reset, a power cut between or within two changes of the flash,
//! a lease that ends although the lead is there, a lead that hears nobody although they are there.

use std::fmt;
use std::sync::Arc;

use lockstep_rollout::Phase;
use stateright::{Model, Property};

use crate::chip::Slot;
use crate::device::{Sight, Step, Wait};
use crate::properties;
use crate::release::{DEVICES_MAX, LEAD};
use crate::table::{Entry, Id, LeadLook, Outcome, Table};

/// Frames on their way in one direction of one link, at most.
pub(crate) const QUEUE_FRAMES_MAX: usize = 2;
/// A lead whose image fails activates it again for as long as a member that is off keeps it from a
/// repair: that is followed so far and no further.
pub(crate) const ATTEMPTS_MAX: u8 = 4;
/// No frame.
const NONE: u16 = u16::MAX;

/// What is wrong with the new image of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Flaw {
    None,
    /// It dies in every boot before anything of ours runs.
    Crashes,
    /// It runs, and never gets healthy.
    NeverHealthy,
    /// It gets healthy in its first trial only.
    OnceHealthy,
}

/// The exhausted configuration.
#[derive(Debug, Clone)]
pub(crate) struct GroupModel {
    pub(crate) table: Arc<Table>,
    pub(crate) faults: u8,
    /// What is wrong with the new images: one start for each.
    pub(crate) flaws: Vec<[Flaw; DEVICES_MAX]>,
    pub(crate) settling: Arc<properties::Settling>,
}

/// Frames on their way, sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Queue([u16; QUEUE_FRAMES_MAX]);

/// All of the group at one moment.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) devices: [Id; DEVICES_MAX],
    /// What the lead said last to each device and has not arrived.
    pub(crate) said: [u16; DEVICES_MAX],
    /// Late frames to each device.
    pub(crate) orders: [Queue; DEVICES_MAX],
    /// Late frames from each device.
    pub(crate) reports: [Queue; DEVICES_MAX],
    pub(crate) faults: u8,
    pub(crate) flaws: [Flaw; DEVICES_MAX],
    pub(crate) past: Past,
}

/// What the properties remember of the path; nothing is decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Past {
    /// Who has staged, by generation.
    pub(crate) staged: [u8; GENERATIONS],
    /// Who was healthy while all ran the image of the generation that was conducted.
    pub(crate) healthy: [u8; GENERATIONS],
    /// What the lead said: bit 0 `Confirm`, bit 1 `Revert`.
    pub(crate) said: [u8; GENERATIONS],
    /// The invariants that are broken, a bit each.
    pub(crate) broken: u8,
}

/// The rollout, and its repair.
pub(crate) const GENERATIONS: usize = 2;

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// An order arrives.
    Order {
        to: usize,
        frame: u16,
    },
    /// A report arrives.
    Report {
        from: usize,
        frame: u16,
    },
    /// What was said last becomes late: the lead may say something else before it arrives.
    Delay {
        to: usize,
    },
    /// A member is asked, or has news, and reports.
    Say(usize),
    Health(usize),
    Timer(usize, Wait),
    /// It starts: it was off, or reboots because it wants to.
    Boot(usize),
    /// It is reset.
    Reset(usize),
    Tick,
    Abort,
    Deadline,
    FireOver,
    Silence,
}

/// What goes wrong with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The frame comes once more.
    Twice,
    /// The power goes while it is carried out; which of the possible remains.
    Cut(u8),
    /// The report that comes of it stays on its way.
    Late,
    /// The power of the lead goes while it takes the report that comes of it.
    CutLead(u8),
}

/// One step of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) event: Event,
    pub(crate) fault: Fault,
    /// Taken from the budget.
    pub(crate) cost: u8,
}

impl Queue {
    const EMPTY: Self = Self([NONE; QUEUE_FRAMES_MAX]);

    pub(crate) fn frames(&self) -> impl Iterator<Item = u16> {
        self.0.into_iter().filter(|frame| *frame != NONE)
    }

    fn push(&mut self, frame: u16) {
        if self.0.contains(&frame) {
            return;
        }
        if let Some(free) = self.0.iter_mut().find(|slot| **slot == NONE) {
            *free = frame;
            self.0.sort_unstable();
        }
    }

    fn remove(&mut self, frame: u16) {
        self.0.iter_mut().filter(|slot| **slot == frame).for_each(|slot| *slot = NONE);
        self.0.sort_unstable();
    }
}

impl GroupModel {
    pub(crate) fn devices(&self) -> usize {
        self.table.group.devices
    }

    pub(crate) fn entry(&self, state: &State, index: usize) -> &Entry {
        self.table.entry(state.devices[index])
    }

    pub(crate) fn lead(&self, state: &State) -> &LeadLook {
        self.entry(state, LEAD).lead.as_ref().expect("the rollout is in the lead's record")
    }

    fn start(&self, flaws: [Flaw; DEVICES_MAX]) -> State {
        let mut state = State {
            devices: [Id::MAX; DEVICES_MAX],
            said: [NONE; DEVICES_MAX],
            orders: [Queue::EMPTY; DEVICES_MAX],
            reports: [Queue::EMPTY; DEVICES_MAX],
            faults: self.faults,
            flaws,
            past: Past::default(),
        };
        for (index, outcome) in self.table.start().iter().enumerate() {
            state.devices[index] = outcome.next;
            if index == LEAD {
                self.send(&mut state, outcome);
            }
        }
        state
    }

    /// Whether this device's firmware can get healthy now.
    pub(crate) fn can_be_healthy(&self, state: &State, index: usize) -> bool {
        let look = self.entry(state, index).look;
        match state.flaws[index] {
            _ if !look.is_up || look.running != Slot::New => true,
            Flaw::None => true,
            Flaw::Crashes | Flaw::NeverHealthy => false,
            Flaw::OnceHealthy => look.attempt <= 1 || !look.on_trial,
        }
    }

    fn sight(&self, state: &State) -> Sight {
        let all = |image| {
            (0..self.devices()).all(|index| {
                let look = self.entry(state, index).look;
                look.is_up && look.running == image
            })
        };
        match () {
            () if all(Slot::New) => Sight::AllNew,
            () if all(Slot::Old) => Sight::AllOld,
            () => Sight::Mixed,
        }
    }

    /// The device that an event is about, and what it is for it.
    fn step(&self, state: &State, event: Event) -> Option<(usize, Step)> {
        let sight = self.sight(state);
        Some(match event {
            Event::Order { to, frame } => (to, Step::Order(frame, sight)),
            Event::Report { from, frame } => (LEAD, Step::Report(from, frame, sight)),
            Event::Delay { .. } => return None,
            Event::Say(index) => (index, Step::Say(sight)),
            Event::Health(index) => (index, Step::Health(sight)),
            Event::Timer(index, wait) => (index, Step::Timer(sight, wait)),
            Event::Boot(index) => {
                let crashes = state.flaws[index] == Flaw::Crashes;
                (index, Step::Boot { crashes })
            }
            Event::Reset(index) => (index, Step::Reset),
            Event::Tick => (LEAD, Step::Tick(sight)),
            Event::Abort => (LEAD, Step::Abort(sight)),
            Event::Deadline => (LEAD, Step::Deadline(sight)),
            Event::FireOver => (LEAD, Step::FireOver(sight)),
            Event::Silence => (LEAD, Step::Silence(sight)),
        })
    }

    /// Everything that may happen, with what it costs.
    pub(crate) fn events(&self, state: &State, events: &mut Vec<(Event, u8)>) {
        let lead_is_up = self.entry(state, LEAD).look.is_up;
        for index in 0..self.devices() {
            let look = self.entry(state, index).look;
            if state.said[index] != NONE {
                events.push((Event::Delay { to: index }, 1));
            }
            if look.is_up {
                let said = Some(state.said[index]).filter(|frame| *frame != NONE);
                let late = state.orders[index].frames().filter(|frame| Some(*frame) != said);
                let orders = said.into_iter().chain(late);
                events.extend(orders.map(|frame| (Event::Order { to: index, frame }, 0)));
            }
            if lead_is_up {
                let reports = state.reports[index].frames();
                events.extend(reports.map(|frame| (Event::Report { from: index, frame }, 0)));
            }
            if !look.is_up {
                events.push((Event::Boot(index), 0));
                continue;
            }
            self.events_of(state, index, events);
        }
        if lead_is_up {
            self.events_of_lead(state, events);
        }
    }

    /// What a device that is on may do by itself.
    fn events_of(&self, state: &State, index: usize, events: &mut Vec<(Event, u8)>) {
        let look = self.entry(state, index).look;
        events.push((Event::Reset(index), 1));
        if index != LEAD && self.entry(state, LEAD).look.is_up {
            events.push((Event::Say(index), 0));
        }
        if look.leaves {
            events.push((Event::Boot(index), 0));
            return;
        }
        if !look.healthy && self.can_be_healthy(state, index) {
            events.push((Event::Health(index), 0));
        }
        if look.on_trial || look.at_rest || look.fires {
            self.timers_of(state, index, events);
        }
    }

    /// A countdown ends, and a trial that does not get healthy, whatever the lead says; a lease
    /// when the lead is off or conducts something else. All else takes a fault.
    fn timers_of(&self, state: &State, index: usize, events: &mut Vec<(Event, u8)>) {
        let look = self.entry(state, index).look;
        let lead = self.entry(state, LEAD).look;
        let conducted = self.lead(state);
        let is_open = !conducted.is_settled() && conducted.generation == look.generation;
        let is_left = !is_open || (index != LEAD && !lead.is_up);
        let fails = look.on_trial && !look.healthy && !self.can_be_healthy(state, index);
        let silent = u8::from(!look.fires && !is_left);
        events.push((Event::Timer(index, Wait::Silent), silent));
        if fails && silent > 0 {
            events.push((Event::Timer(index, Wait::Heard), 0));
        }
    }

    fn events_of_lead(&self, state: &State, events: &mut Vec<(Event, u8)>) {
        events.push((Event::Tick, 0));
        let lead = self.lead(state);
        if lead.can_abort {
            events.extend([(Event::Abort, 0), (Event::Deadline, 0)]);
        }
        if lead.counts_down {
            events.push((Event::FireOver, 0));
        }
        if matches!(lead.phase, Phase::Settling(_) | Phase::Settled(_)) {
            let waits = (1..self.devices())
                .any(|index| !lead.settled[index] && self.entry(state, index).look.is_up);
            events.push((Event::Silence, u8::from(waits)));
        }
    }

    /// Puts orders on their way, and returns reports.
    fn send(&self, state: &mut State, outcome: &Outcome) -> Vec<u16> {
        let mut reports = Vec::new();
        for (to, frame) in &outcome.sent {
            if !self.table.frame(*frame).is_order() {
                reports.push(*frame);
                continue;
            }
            for index in 1..self.devices() {
                if to.is_none_or(|to| to == index) {
                    state.said[index] = *frame;
                }
            }
        }
        reports
    }

    /// An action in words.
    pub(crate) fn describe(&self, action: &Action) -> String {
        let fault = match action.fault {
            Fault::None => String::new(),
            other => format!(", {other:?}"),
        };
        format!("{}{fault}", self.name(&action.event))
    }

    /// An event in words.
    pub(crate) fn name(&self, event: &Event) -> String {
        let frame = |frame: &u16| self.table.frame(*frame).name();
        match event {
            Event::Order { to, frame: it } => format!("Order to {to}: {}", frame(it)),
            Event::Report { from, frame: it } => format!("Report from {from}: {}", frame(it)),
            other => format!("{other:?}"),
        }
    }

    /// Carries an action out.
    pub(crate) fn apply(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        state.faults = before.faults.checked_sub(action.cost)?;
        match action.event {
            Event::Order { to, frame } => {
                state.orders[to].remove(frame);
                if state.said[to] == frame {
                    state.said[to] = NONE;
                }
                if action.fault == Fault::Twice {
                    state.orders[to].push(frame);
                }
            }
            Event::Report { from, frame } if action.fault != Fault::Twice => {
                state.reports[from].remove(frame);
            }
            Event::Delay { to } => {
                let frame = std::mem::replace(&mut state.said[to], NONE);
                state.orders[to].push(frame);
            }
            // No answer is on its way for so long.
            Event::Silence | Event::Deadline => state.reports = [Queue::EMPTY; DEVICES_MAX],
            _ => (),
        }
        if let Some((index, step)) = self.step(before, action.event) {
            let which = match action.fault {
                Fault::Cut(which) => Some(which),
                _ => None,
            };
            let reports = self.carry_out(&mut state, index, step, which);
            self.report(&mut state, index, &reports, action.fault);
        }
        (state != *before).then_some(state)
    }

    /// One step of one device; the orders it gave are on their way, its reports are returned.
    fn carry_out(&self, state: &mut State, index: usize, step: Step, cut: Option<u8>) -> Vec<u16> {
        let before = state.clone();
        let id = state.devices[index];
        let outcome = match cut {
            None => self.table.step(id, step),
            Some(which) => Arc::new(self.table.cuts(id, step)[usize::from(which)].clone()),
        };
        state.devices[index] = outcome.next;
        let reports = self.send(state, &outcome);
        properties::note(self, &before, state, index, &outcome.seen);
        reports
    }

    /// Reports arrive at once, or stay on their way.
    fn report(&self, state: &mut State, from: usize, reports: &[u16], fault: Fault) {
        for frame in reports {
            if fault == Fault::Late {
                state.reports[from].push(*frame);
                continue;
            }
            if !self.entry(state, LEAD).look.is_up {
                continue;
            }
            let step = Step::Report(from, *frame, self.sight(state));
            let cut = match fault {
                Fault::CutLead(which) => Some(which),
                _ => None,
            };
            self.carry_out(state, LEAD, step, cut);
        }
    }

    /// How many ways there are for the lead's power to go while it takes what comes of the step.
    fn lead_cuts(&self, state: &State, index: usize, step: Step) -> usize {
        if index == LEAD || !self.entry(state, LEAD).look.is_up {
            return 0;
        }
        let mut then = state.clone();
        let reports = self.carry_out(&mut then, index, step, None);
        let Some(frame) = reports.first() else { return 0 };
        let step = Step::Report(index, *frame, self.sight(&then));
        self.table.cuts(state.devices[LEAD], step).len()
    }
}

impl Model for GroupModel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        self.flaws.iter().map(|flaws| self.start(*flaws)).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let tried = |index| self.entry(state, index).look.attempt;
        if state.past.broken != 0 || (0..self.devices()).any(|index| tried(index) > ATTEMPTS_MAX) {
            return;
        }
        let mut events = Vec::with_capacity(32);
        self.events(state, &mut events);
        for (event, cost) in events {
            if cost > state.faults {
                continue;
            }
            actions.push(Action { event, fault: Fault::None, cost });
            if cost + 1 > state.faults {
                continue;
            }
            if matches!(event, Event::Order { .. } | Event::Report { .. }) {
                actions.push(Action { event, fault: Fault::Twice, cost: cost + 1 });
            }
            if let Some((index, step)) = self.step(state, event) {
                let cuts = self.table.cuts(state.devices[index], step).len();
                let lead_cuts = self.lead_cuts(state, index, step);
                let cuts = (0..u8::try_from(cuts).unwrap()).map(Fault::Cut);
                let lead_cuts = (0..u8::try_from(lead_cuts).unwrap()).map(Fault::CutLead);
                let late = matches!(
                    event,
                    Event::Order { .. } | Event::Say(_) | Event::Health(_) | Event::Timer(..)
                );
                let late = late.then_some(Fault::Late);
                for fault in cuts.chain(lead_cuts).chain(late) {
                    actions.push(Action { event, fault, cost: cost + 1 });
                }
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.apply(state, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {:?} {:?}", self.devices, self.said, self.orders, self.reports)?;
        write!(f, " faults {} {:?} {:?}", self.faults, self.flaws, self.past)
    }
}
