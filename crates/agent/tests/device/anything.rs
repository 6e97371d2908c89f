//! Anything in any order: orders of several rollouts, late ones and wrong ones, health, rest, time,
//! resets and power cuts. Whatever came, the promises hold, and in the end nothing waits.

use std::collections::BTreeSet;

use lockstep_agent::Effect;
use lockstep_proto::frame::order::{Order, Source, Stage};
use lockstep_proto::frame::report::MemberState;
use lockstep_proto::id::ImageHash;

use crate::fixture::{Firmware, Good, Release, Start, TestDevice, firmware, ticket};

const SEEDS: u64 = 600;
const STEPS: u32 = 70;

/// What the device has been through, as an onlooker knows it.
struct World {
    device: TestDevice,
    random: u64,
    /// One for each generation from 1 on; the last one is a return to the old image.
    releases: Vec<Firmware>,
    /// Good samples in a row in this boot.
    good_samples: u32,
    /// Images that were confirmed, and the factory's.
    permanent: BTreeSet<ImageHash>,
    /// Generations whose revert was accepted.
    reverted: BTreeSet<u32>,
    last: (u32, u8),
}

impl World {
    fn new(seed: u64) -> Self {
        let starts = [Start::Rollback, Start::NoRollback, Start::ConfirmsEarly];
        let device = TestDevice::started_as(starts[usize::try_from(seed % 3).unwrap()]);
        let releases = vec![device.new.clone(), firmware(2), device.old.clone()];
        Self {
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            releases,
            good_samples: 0,
            permanent: BTreeSet::from([device.old.hash]),
            reverted: BTreeSet::new(),
            last: (0, 0),
            device,
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % below
    }

    /// Power off and on, until it stays on.
    fn reset(&mut self) {
        self.good_samples = 0;
        let confirming = self.device.report().state == MemberState::Confirming;
        while self.device.try_power_cycle().is_none() {
            self.device.flash.power_on();
        }
        let report = self.device.report();
        if confirming && report.state == MemberState::Kept {
            self.permanent.insert(report.running);
        }
    }

    fn step(&mut self) {
        // Mostly the present rollout or the next one, now and then any.
        let present = self.device.report().ticket.generation.counter.max(1);
        let counter = match self.draw(16) {
            0 => u32::try_from(self.draw(4)).unwrap(),
            1 => present + 1,
            _ => present,
        };
        let attempt = self.device.report().ticket.attempt
            + u8::try_from(self.draw(3)).unwrap().saturating_sub(1).max(u8::from(self.draw(4) > 0));
        let image = self.image_of(counter);
        let running = self.device.running();
        let order = match self.draw(27) {
            0..=3 => return self.stage(counter),
            4..=5 => Order::Rest,
            6..=8 => {
                let now = self.device.now;
                return self.device.agent().application_at_rest(now);
            }
            9 => {
                let now = self.device.now;
                return self.device.agent().application_not_now(now);
            }
            10..=11 => Order::Activate { image, running },
            12 => Order::Arm { image, running },
            13 => Order::Fire { in_ms: u16::try_from(self.draw(500)).unwrap() },
            14..=15 | 24..=25 => Order::Confirm { image },
            16 if self.draw(4) == 0 => Order::Revert,
            17..=20 => return self.sample(),
            21 => {
                let ms = 1 + self.draw(4_000);
                return self.device.pass(ms);
            }
            22 if self.draw(4) == 0 => return self.reset(),
            26 => Order::Settled,
            23 => {
                let units = self.draw(1_500);
                self.device.flash.power_budget_bytes = Some(units);
                return;
            }
            _ => return,
        };
        self.give(counter, attempt, &order);
    }

    fn give(&mut self, counter: u32, attempt: u8, order: &Order) {
        let (was_healthy, before) = (self.good_samples >= 3, self.device.report());
        self.device.send(&ticket(counter, attempt), order);
        let report = self.device.report();
        if report.state == MemberState::Kept && before.state != MemberState::Kept {
            assert!(was_healthy, "confirmed without health in this boot");
            assert!(
                matches!(order, Order::Confirm { .. })
                    && counter == before.ticket.generation.counter
            );
            self.permanent.insert(report.running);
        }
        if *order == Order::Revert && report.refused.is_none() {
            self.reverted.insert(counter);
        }
        if report.observed.activated && !before.observed.activated {
            assert!(before.observed.at_rest, "activated under load");
            assert!(before.observed.staged, "activated without an image");
            assert!(!self.reverted.contains(&counter), "activated after a revert");
            assert!(report.ticket.attempt > before.ticket.attempt, "an attempt used twice");
        }
    }

    fn stage(&mut self, counter: u32) {
        let index = usize::try_from(counter.max(1) - 1).unwrap() % self.releases.len();
        let release = Release::of(self.releases[index].clone());
        let stage = if index == 2 {
            let (size_bytes, package_size_bytes) = (0, 0);
            Stage { source: Source::OtherSlot, size_bytes, package_size_bytes, ..release.stage() }
        } else {
            release.stage()
        };
        self.give(counter, 0, &Order::Stage(stage));
        let report = self.device.report();
        let is_wanted = report.refused.is_none() && report.ticket.generation.counter == counter;
        if is_wanted && !self.device.flash.power_lost() && self.draw(4) > 0 {
            self.device.feed(&release.package(), &release.firmware.file);
        }
    }

    fn image_of(&self, counter: u32) -> ImageHash {
        let index = usize::try_from(counter.max(1) - 1).unwrap() % self.releases.len();
        self.releases[index].hash
    }

    fn sample(&mut self) {
        let good = if self.draw(8) == 0 { Good::NoLink } else { Good::All };
        self.good_samples = if good == Good::All { self.good_samples + 1 } else { 0 };
        self.device.sample(good);
        if good == Good::All && self.draw(4) > 0 {
            (0..2).for_each(|_| self.device.sample(good));
            self.good_samples += 2;
        }
    }

    /// After every step: cuts come to pass, reboots are obeyed mostly, promises are looked at.
    fn settle_step(&mut self) {
        let wants_reboot =
            self.device.take_effects().iter().any(|effect| matches!(effect, Effect::Reboot(_)));
        if self.device.flash.power_lost() || (wants_reboot && self.draw(5) > 0) {
            self.device.flash.power_on();
            self.device.flash.power_budget_bytes = None;
            self.reset();
        }
        let report = self.device.report();
        let now = (report.ticket.generation.counter, report.ticket.attempt);
        assert!(
            now >= self.last,
            "generation and attempt only rise: {now:?} after {:?}",
            self.last
        );
        self.last = now;
        if !report.observed.on_trial {
            assert!(self.permanent.contains(&report.running), "runs for good, never confirmed");
        }
    }

    /// Everybody falls silent: every wait ends by itself, and the device runs something permanent.
    fn fall_silent(&mut self) {
        self.device.flash.power_on();
        for _ in 0..20 {
            let at = self.device.next_wake();
            let Some(at) = at else { break };
            self.device.now = at;
            self.device.tick();
            self.device.agent().take_wants(at);
            self.settle_step();
        }
        let report = self.device.report();
        assert_eq!(self.device.next_wake(), None, "something still waits: {report:?}");
        assert!(!report.observed.on_trial && !report.observed.at_rest && !report.observed.armed);
        assert!(self.permanent.contains(&report.running));
        self.reset();
        assert_eq!(self.device.running(), report.running, "and stays there");
    }
}

#[test]
fn no_order_of_events_breaks_a_promise_and_every_wait_ends() {
    let (mut kept, mut fell_back, mut reverted, mut on_trial) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            let mut tried = false;
            for _ in 0..STEPS {
                world.step();
                world.settle_step();
                tried |= world.device.report().observed.on_trial;
            }
            world.fall_silent();
            (world, tried)
        });
        let (world, tried) = run.unwrap_or_else(|_| panic!("replay with seed {seed}"));
        kept += u32::from(world.permanent.len() > 1);
        fell_back += u32::from(world.device.saw(lockstep_agent::Trace::FellBack));
        reverted += u32::from(!world.reverted.is_empty());
        on_trial += u32::from(tried);
    }
    // A world in which nothing is ever kept, or nothing ever fails, tests nothing.
    println!("{on_trial} on trial, {kept} kept, {fell_back} fell back, {reverted} reverted");
    let seeds = u32::try_from(SEEDS).unwrap();
    assert!(on_trial > seeds / 4 && kept > seeds / 20, "{on_trial} on trial, {kept} kept");
    assert!(fell_back > seeds / 20 && reverted > seeds / 20, "{fell_back}, {reverted}");
}
