//! Runs a configuration to its end, says what was visited and reached, and fails with the path of
//! whatever is wrong.

use std::sync::Arc;
use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::group::{Flaw, GroupModel, QUEUE_FRAMES_MAX, State};
use crate::properties::Settling;
use crate::release::{Activation, DEVICES_MAX, Group};
use crate::table::Table;

/// A group, and what may go wrong with it.
#[derive(Debug)]
pub(crate) struct Configuration {
    pub(crate) devices: usize,
    pub(crate) faults: u8,
    pub(crate) activation: Activation,
    /// One start for each.
    pub(crate) flaws: Vec<[Flaw; DEVICES_MAX]>,
    /// What some path must reach: names of properties.
    pub(crate) reaches: &'static [&'static str],
    pub(crate) ends: Ends,
    /// How many pairs of device states that count as one are compared afterwards.
    pub(crate) twins: usize,
}

/// When a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// When every state was visited.
    Exhausted,
    /// When something is wrong.
    #[cfg_attr(not(feature = "planted"), expect(dead_code, reason = "only bugs are looked for so"))]
    AtFirstFailure,
}

impl Configuration {
    /// Visits every state. Panics if a property does not hold, or nothing reaches what it should.
    pub(crate) fn must_hold(&self) {
        let wrong = self.exhaust();
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    /// Visits every state, tells what was found, and returns what is wrong.
    pub(crate) fn exhaust(&self) -> Vec<&'static str> {
        let begun = Instant::now();
        let table = Arc::new(Table::new(Group::new(self.devices, self.activation), self.twins));
        let model = GroupModel {
            table: Arc::clone(&table),
            faults: self.faults,
            flaws: self.flaws.clone(),
            settling: Arc::new(Settling::new()),
        };
        let finish = match self.ends {
            // All of them: what must always hold is never discovered, so the states end it.
            Ends::Exhausted => HasDiscoveries::All,
            Ends::AtFirstFailure => HasDiscoveries::AnyFailures,
        };
        let checker = model.clone().checker().threads(THREADS).finish_when(finish);
        let checker = checker.spawn_bfs().join();
        assert!(checker.is_done(), "every state was visited");
        println!(
            "lead and {} members, {:?}, {} firmwares, {QUEUE_FRAMES_MAX} late frames a way, \
             {} faults:\n  {} states, {} transitions, depth {}, {:.1} s",
            self.devices - 1,
            self.activation,
            self.flaws.len(),
            self.faults,
            checker.unique_state_count(),
            checker.state_count(),
            checker.max_depth(),
            begun.elapsed().as_secs_f32(),
        );
        let (devices, frames) = table.sizes();
        println!("  {devices} device states, {frames} kinds of frames");
        let mut wrong = Vec::new();
        for property in model.properties() {
            let found = checker.discovery(property.name);
            match (&property.expectation, found) {
                (Expectation::Sometimes, Some(path)) => {
                    println!(
                        "  reached in {:2} steps: {}",
                        path.into_vec().len() - 1,
                        property.name
                    );
                }
                (Expectation::Sometimes, None) if self.reaches.contains(&property.name) => {
                    println!("  NOT REACHED: {}", property.name);
                    wrong.push(property.name);
                }
                (Expectation::Sometimes, None) | (_, None) => (),
                (_, Some(path)) => {
                    println!("  BROKEN: {}", property.name);
                    tell_path(&model, &path.into_vec());
                    wrong.push(property.name);
                }
            }
        }
        tell_stuck(&model);
        if wrong.is_empty() {
            println!("  {} pairs of states that count as one behave alike", table.compare_twins());
        }
        wrong
    }
}

fn tell_path(model: &GroupModel, path: &[(State, Option<crate::group::Action>)]) {
    for (_, action) in path {
        if let Some(action) = action {
            println!("    {}", model.describe(action));
        }
    }
    if let Some((state, _)) = path.last() {
        tell_state(model, state);
    }
}

/// Where a fair run got stuck, and how it went on from there.
fn tell_stuck(model: &GroupModel) {
    if let Some((state, events)) = &*model.settling.stuck() {
        println!("  stuck; the last fair steps:");
        for event in events.iter().rev().take(STUCK_STEPS_TOLD).rev() {
            println!("    {}", model.name(event));
        }
        tell_state(model, state);
    }
}

fn tell_state(model: &GroupModel, state: &State) {
    println!("    => {:?}", state.past);
    for index in 0..model.devices() {
        let entry = model.entry(state, index);
        println!("    => {index}: {:?}", entry.look);
        if let Some(lead) = &entry.lead {
            println!("       {lead:?}");
        }
    }
}

/// The check runs on so many cores.
const THREADS: usize = 2;
/// Of a fair run that never ends, its end is enough.
const STUCK_STEPS_TOLD: usize = 12;
