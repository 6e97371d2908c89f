//! What must hold in every state, what must come from every state when the faults stop, and what
//! some path must reach so that the rest means something.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, RwLock};

use lockstep_proto::frame::report::MemberState;
use lockstep_rollout::{Kind, Phase, Verdict};
use stateright::Property;

use crate::chip::Slot;
use crate::device::{Seen, Sight, Step, Wait};
use crate::group::{Action, Event, Fault, GENERATIONS, GroupModel, Past, State};
use crate::release::LEAD;
use crate::table::Look;

/// Invariants that are noticed while a step is carried out: a bit each.
const ACTIVATED_EARLY: u8 = 1;
const CONFIRMED_EARLY: u8 = 2;
const CONFIRMED_UNHEALTHY: u8 = 4;
const SAID_BOTH: u8 = 8;
const NOTHING_BOOTS: u8 = 16;
const REVERTED_AFTER_KEEP: u8 = 32;
const SAID_UNSTORED: u8 = 64;

type Is = fn(&GroupModel, &State) -> bool;

pub(crate) fn all() -> Vec<Property<GroupModel>> {
    let always: [(&'static str, Is); 11] = [
        ("1: nobody activates before everybody has staged", |_, s| holds(s, ACTIVATED_EARLY)),
        ("2: nobody confirms before all were healthy together", |_, s| holds(s, CONFIRMED_EARLY)),
        ("2: nobody confirms without being healthy in this boot", |_, s| {
            holds(s, CONFIRMED_UNHEALTHY)
        }),
        ("3: one rollout never says both verdicts", |_, s| holds(s, SAID_BOTH)),
        ("3: whoever has kept does not revert", |_, s| holds(s, REVERTED_AFTER_KEEP)),
        ("4: every device boots a whole image", |_, s| holds(s, NOTHING_BOOTS)),
        ("what the lead says is in its record", |_, s| holds(s, SAID_UNSTORED)),
        ("whoever counts as settled has carried out the verdict", settled_is_true),
        ("9: every trial and every rest ends when the lead is silent", waits_end),
        ("9: every phase before the verdict has an end", phases_end),
        ("8: when faults stop, all run the image of the verdict", |m, s| m.settling.comes(m, s)),
    ];
    let sometimes: [(&'static str, Is); 7] = [
        ("keep", |m, s| ends(m, s, Kind::Forward, Slot::New)),
        ("revert", |m, s| ends(m, s, Kind::Forward, Slot::Old)),
        ("repair", |m, s| ends(m, s, Kind::Repair, Slot::Old)),
        ("keep, after a member was activated again", |m, s| {
            ends(m, s, Kind::Forward, Slot::New) && m.lead(s).reactivations > 0
        }),
        ("settled with a debt", |m, s| {
            let lead = m.lead(s);
            matches!(lead.phase, Phase::Settled(_)) && !lead.is_settled()
        }),
        ("the lead runs the old image after its verdict was keep", |m, s| {
            let lead = m.entry(s, LEAD).look;
            let kept = m.lead(s).verdict() == Some(Verdict::Keep);
            lead.is_up && lead.running == Slot::Old && kept && m.lead(s).kind == Kind::Forward
        }),
        ("a device is on trial and the verdict is revert", |m, s| {
            let reverts = matches!(m.lead(s).verdict(), Some(Verdict::Revert(_)));
            reverts && (0..m.devices()).any(|index| m.entry(s, index).look.on_trial)
        }),
    ];
    let always = always.map(|(name, is)| Property::always(name, is));
    let sometimes = sometimes.map(|(name, is)| Property::sometimes(name, is));
    always.into_iter().chain(sometimes).collect()
}

fn holds(state: &State, broken: u8) -> bool {
    state.past.broken & broken == 0
}

/// The rollout of this kind is over for everybody, and everybody runs this image for good.
fn ends(model: &GroupModel, state: &State, kind: Kind, image: Slot) -> bool {
    let lead = model.lead(state);
    lead.kind == kind && lead.image() == Some(image) && is_whole(model, state)
}

/// Everybody is up on the image that the verdict names, for good, and the lead knows it.
pub(crate) fn is_whole(model: &GroupModel, state: &State) -> bool {
    let lead = model.lead(state);
    lead.is_settled()
        && (0..model.devices()).all(|index| {
            let look = model.entry(state, index).look;
            look.is_up
                && Some(look.running) == lead.image()
                && !look.on_trial
                && !look.activated
                && !look.leaves
        })
}

fn settled_is_true(model: &GroupModel, state: &State) -> bool {
    let lead = model.lead(state);
    (0..model.devices()).all(|index| {
        let look = model.entry(state, index).look;
        let told = lead.settled[index] && !lead.watched[index];
        !told
            || look.generation != lead.generation
            || match lead.verdict() {
                Some(Verdict::Keep) => look.state == MemberState::Kept,
                Some(Verdict::Revert(_)) => look.state == MemberState::Reverted,
                None => true,
            }
    })
}

/// The lead's own rest is asked for again in the very step in which its lease ends.
fn waits_end(model: &GroupModel, state: &State) -> bool {
    (0..model.devices()).all(|index| {
        let look = model.entry(state, index).look;
        let waits = (look.on_trial || (look.at_rest && index != LEAD)) && !look.leaves;
        let id = state.devices[index];
        let step = Step::Timer(Sight::Mixed, Wait::Silent);
        !waits || model.table.step(id, step).next != id
    })
}

/// A repair has one direction and no deadline.
fn phases_end(model: &GroupModel, state: &State) -> bool {
    let waits = model.lead(state).can_abort && model.entry(state, LEAD).look.is_up;
    let ends = |step| {
        let next = model.table.step(state.devices[LEAD], step).next;
        model.table.entry(next).lead.as_ref().is_some_and(|lead| lead.verdict().is_some())
    };
    !waits || (ends(Step::Deadline(Sight::Mixed)) && ends(Step::Abort(Sight::Mixed)))
}

/// Takes down what happened to `index`, and which invariants it broke.
pub(crate) fn note(
    model: &GroupModel,
    before: &State,
    state: &mut State,
    index: usize,
    seen: &Seen,
) {
    let was = model.entry(before, index).look;
    let is = model.entry(state, index).look;
    let conducted = model.lead(state);
    let past = &mut state.past;
    let bit = 1 << index;
    let mut broken = 0;
    for (flag, found) in [
        (NOTHING_BOOTS, seen.nothing_boots),
        (CONFIRMED_UNHEALTHY, seen.confirmed_unhealthy),
        (SAID_UNSTORED, seen.said_unstored),
    ] {
        broken |= if found { flag } else { 0 };
    }
    note_said(past, seen);
    if past.said.contains(&3) {
        broken |= SAID_BOTH;
    }
    if let (Some(image), Some(now)) = (seen.healthy_on, place(conducted.generation))
        && image == image_of(now)
    {
        past.healthy[now] |= bit;
    }
    if let Some(now) = place(is.generation) {
        if has_staged(is.state) {
            past.staged[now] |= bit;
        }
        let all = (1 << model.devices()) - 1;
        let watched = (0..model.devices()).filter(|index| conducted.watched[*index]);
        let watched = watched.fold(0, |bits, index| bits | 1 << index);
        if activates(&was, &is) && (past.staged[now] | watched) & all != all {
            broken |= ACTIVATED_EARLY;
        }
        if confirms(&was, &is) && past.healthy[now] & all != all {
            broken |= CONFIRMED_EARLY;
        }
        let same = was.generation == is.generation;
        if same && was.state == MemberState::Kept && is.state == MemberState::Reverted {
            broken |= REVERTED_AFTER_KEEP;
        }
    }
    past.broken |= broken;
}

fn note_said(past: &mut Past, seen: &Seen) {
    for (generation, bit) in [(seen.said_confirm, 1), (seen.said_revert, 2)] {
        if let Some(now) = generation.and_then(place) {
            past.said[now] |= bit;
        }
    }
}

/// Where a generation is counted; `None` before the first.
fn place(generation: u32) -> Option<usize> {
    usize::try_from(generation).ok()?.checked_sub(1).filter(|place| *place < GENERATIONS)
}

/// The rollout leads to the new images, its repair to the old ones.
fn image_of(place: usize) -> Slot {
    if place == 0 { Slot::New } else { Slot::Old }
}

fn has_staged(state: MemberState) -> bool {
    matches!(state, MemberState::Staged | MemberState::Activating)
}

fn activates(was: &Look, is: &Look) -> bool {
    is.state == MemberState::Activating
        && (was.state != MemberState::Activating || was.attempt != is.attempt)
}

fn confirms(was: &Look, is: &Look) -> bool {
    let confirmed = |look: &Look| matches!(look.state, MemberState::Confirming | MemberState::Kept);
    confirmed(is) && !(confirmed(was) && was.generation == is.generation)
}

/// Invariant 8: from here, when nothing goes wrong any more and everybody goes on, does the group
/// get whole? Every state is asked; states from which it was seen to come are remembered.
#[derive(Debug)]
pub(crate) struct Settling {
    hasher: RandomState,
    known: Vec<RwLock<HashSet<u64>>>,
    /// The end of one path that does not get whole.
    stuck: Mutex<Option<(State, Vec<Event>)>>,
}

impl Settling {
    pub(crate) fn new() -> Self {
        let known = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { hasher: RandomState::new(), known, stuck: Mutex::new(None) }
    }

    /// Where a fair run ended without a whole group.
    pub(crate) fn stuck(&self) -> MutexGuard<'_, Option<(State, Vec<Event>)>> {
        self.stuck.lock().unwrap()
    }

    fn comes(&self, model: &GroupModel, state: &State) -> bool {
        let mut now = State { faults: 0, past: Past::default(), ..state.clone() };
        let mut path = Vec::new();
        let mut events: Vec<Event> = Vec::new();
        while !is_whole(model, &now) {
            let hash = self.hasher.hash_one(&now);
            if self.shard(hash).read().unwrap().contains(&hash) {
                break;
            }
            path.push(hash);
            let next = next_of_fair(model, &now, &events).filter(|_| path.len() < FAIR_STEPS_MAX);
            let Some((event, next)) = next else {
                *self.stuck.lock().unwrap() = Some((now, events));
                return false;
            };
            events.push(event);
            now = State { past: Past::default(), ..next };
        }
        for hash in path {
            self.shard(hash).write().unwrap().insert(hash);
        }
        true
    }

    fn shard(&self, hash: u64) -> &RwLock<HashSet<u64>> {
        let shards = u64::try_from(SHARDS).unwrap();
        &self.known[usize::try_from(hash % shards).unwrap()]
    }
}

/// The next step when everybody goes on: what has happened least often so far, and what ends by
/// time only when all else has had several turns.
fn next_of_fair(model: &GroupModel, state: &State, past: &[Event]) -> Option<(Event, State)> {
    let mut events = Vec::with_capacity(32);
    model.events(state, &mut events);
    events.retain(|(_, cost)| *cost == 0);
    let turns = |event: &Event| past.iter().filter(|other| *other == event).count();
    events.sort_by_key(|(event, _)| {
        let (patience, rank) = turn(model, state, event);
        (turns(event) + patience, rank)
    });
    events.into_iter().find_map(|(event, cost)| {
        let next = model.apply(state, Action { event, fault: Fault::None, cost })?;
        Some((event, next))
    })
}

/// After how many turns of the others an event gets its first one, and who comes first among those
/// that had as many.
fn turn(model: &GroupModel, state: &State, event: &Event) -> (usize, u8) {
    match event {
        Event::Boot(_) => (0, 0),
        Event::Order { .. } => (0, 1),
        Event::Report { .. } => (0, 2),
        Event::Health(_) => (0, 3),
        Event::FireOver => (0, 4),
        Event::Timer(index, _) if model.entry(state, *index).look.fires => (0, 5),
        Event::Say(_) => (0, 6),
        Event::Tick => (0, 7),
        Event::Timer(..) => (6, 8),
        Event::Deadline => (12, 9),
        Event::Silence => (18, 10),
        Event::Abort | Event::Reset(_) | Event::Delay { .. } => (usize::MAX / 2, 11),
    }
}

/// Parts of what is known, each behind a lock.
const SHARDS: usize = 64;
/// A fair path from anywhere is shorter.
const FAIR_STEPS_MAX: usize = 400;
