//! Entry points of `lockstep-rollout`: what a lead calls.

use core::hint::black_box;

use lockstep_proto::frame::block::Session;
use lockstep_proto::frame::coding::BLOCK_BYTES_MAX;
use lockstep_proto::frame::report::Wants;
use lockstep_proto::id::{DeviceId, RolloutId};
use lockstep_proto::time::Instant;
use lockstep_rollout::transfer::{Sender, Timing};
use lockstep_rollout::{Input, Policy, Release, Rollout, RolloutRecord};

/// Everything here, with bytes that the compiler knows nothing about.
pub fn run(bytes: &[u8]) {
    resume(bytes);
    begin(bytes);
    send();
}

#[inline(never)]
fn resume(bytes: &[u8]) {
    let Ok(record) = RolloutRecord::decode(bytes) else { return };
    conduct(Rollout::resume(now(), record, DeviceId::BROADCAST, policy()));
}

#[inline(never)]
fn begin(bytes: &[u8]) {
    let (id, lead) = (RolloutId(black_box(1)), DeviceId::BROADCAST);
    let last = RolloutRecord::decode(bytes).ok();
    if let Some(last) = last.clone() {
        conduct(Rollout::back(now(), id, &[], lead, last, policy()));
    }
    let release: Option<Release> = black_box(None);
    if let Some(release) = release {
        conduct(Rollout::forward(now(), id, release, &[], lead, last, policy()));
    }
}

#[inline(never)]
fn conduct(mut rollout: Rollout) {
    let mut buffer = [0; 4096];
    // Which input it is must stay unknown, or only one is compiled.
    let step = black_box(rollout.step(now(), &black_box(Input::Tick)));
    if step.store {
        let _ = black_box(rollout.record().encode(&mut buffer));
    }
    rollout.note_heard(now(), DeviceId::BROADCAST);
    let _ = black_box((rollout.next_wake(now()), rollout.can_abort(), rollout.is_over()));
}

#[inline(never)]
fn send() {
    let wants: Option<Wants> = black_box(None);
    let timing = black_box(Timing { slot_ms: 2, answer_ms: 60, mend_ms: 6 });
    let mut sender = Sender::new(Session(black_box(1)), black_box(1), timing, black_box(1));
    if let Some(wants) = wants {
        sender.note_wants(now(), DeviceId::BROADCAST, wants);
    }
    let mut payload = [0; BLOCK_BYTES_MAX];
    let (session, cut) = (sender.session(), sender.cut());
    if let Some(due) = sender.next_frame(now()) {
        let _ = black_box(due.frame(session, cut, &mut payload, |_, into| {
            black_box(into);
            black_box(Some(()))
        }));
    }
    let _ = black_box(sender.next_wake(now()));
    sender.remove(DeviceId::BROADCAST);
}

fn now() -> Instant {
    Instant::from_ms(black_box(0))
}

fn policy() -> Policy {
    black_box(Policy::board())
}
