//! When two states of a device are one: everything that they say of themselves is the same, but for
//! what is left out here by name, with the reason. A time is told only as what a decision can ask
//! about it.

use std::fmt::Write as _;

use lockstep_proto::frame::report::{Refusal, Refused};
use lockstep_proto::time::Instant;
use lockstep_rollout::{Phase, Rollout, Verdict};

use crate::device::Device;
use crate::release::UNREACHABLE_MS;
use crate::text::{Node, Rule};

impl Device {
    /// The key under which states are the same.
    pub(crate) fn key(&self) -> String {
        let mut key = String::with_capacity(2_000);
        write!(key, "{}", self.index).unwrap();
        self.content.key(&mut key);
        if let Some(live) = &self.live {
            key.push('|');
            let text = format!("{:?}", live.agent);
            Node::read(&text).put(&mut key, &agent_rule);
            write!(key, "{:?}", live.agent.report().refused.filter(is_decisive)).unwrap();
            if let Some(rollout) = &live.rollout {
                key.push('|');
                rollout_key(rollout, live.now, &mut key);
            }
        }
        key
    }
}

/// Content tells flash and record; timers go off when the model says so, so no time matters.
fn agent_rule(field: &str) -> Rule {
    match field {
        "identity" | "layout" | "record" | "boot" | "boot_number" | "effects" | "trust"
        | "pace" | "flash_mode" | "reset_reason" | "wants_due" | "report_due" | "member"
        | "view" | "linked" | "size_bytes" | "sha256" | "writer" | "cause" => Rule::Leave,
        "booted_at" | "last_frame" | "now" | "since" => Rule::Leave,
        // Told beside, if anybody decides by it.
        "refused" => Rule::Leave,
        "flash_used_at" | "spool_used_at" => Rule::Leave,
        // Package and image come at once: nobody is asked what is lacking.
        "answer_at" | "answer_lacking_at" | "unasked_at" | "session_heard" | "unnamed"
        | "durable_bytes" => Rule::Leave,
        "asked_at" | "fire_at" | "unconfirmed_since" => Rule::Presence,
        _ => Rule::Keep,
    }
}

/// Whether a lead decides anything by this refusal: one that lasts, or a slot that is spoilt.
pub(crate) fn is_decisive(refused: &Refused) -> bool {
    const ACTIVATE: u8 = 0x15;
    match refused.why {
        Refusal::NotStaged => refused.order == ACTIVATE,
        Refusal::OtherRunning { .. }
        | Refusal::AttemptSpent { .. }
        | Refusal::NotAtRest
        | Refusal::NotNow
        | Refusal::OnTrial
        | Refusal::NotHealthy
        | Refusal::AlreadyKept
        | Refusal::OtherRollout { .. } => false,
        _ => true,
    }
}

/// The rollout's record and views; of each time what a decision can ask about it.
fn rollout_key(rollout: &Rollout, now: Instant, key: &mut String) {
    let text = format!("{rollout:?}");
    let tree = Node::read(&text);
    let phase = rollout.record().phase;
    let is_decided = phase.verdict().is_some();
    // A report is judged in the step that brings it, and what a revert says does not depend on it.
    let is_reverting = matches!(phase.verdict(), Some(Verdict::Revert(_)));
    tree.put(key, &|field| match field {
        "report" if is_reverting => Rule::Leave,
        // Preflight is over, its results are in the record.
        "goal" | "last" | "facts" => Rule::Leave,
        // Constant, for people, or ended by the model and not by the clock.
        "policy" | "lead" | "events" | "milestone" | "restarts" | "Revert" => Rule::Leave,
        "is_ailing" | "progress_at" | "said_at" | "at" => Rule::Leave,
        // Everything is due again in the next step, and no wait is left then.
        "asked_at" | "backoff_until" | "settled_said" => Rule::Leave,
        // Only a trial asks for them, and a repair begins with none.
        "all_on_target_since" | "healthy_since" if is_decided => Rule::Leave,
        "activate_said_at" if is_reverting => Rule::Leave,
        "all_on_target_since" | "healthy_since" | "activate_said_at" => Rule::Presence,
        // Told below, against each other.
        "entered_at" | "reported_at" | "heard_at" => Rule::Leave,
        _ => Rule::Keep,
    });
    let entered = tree.field("entered_at").ms();
    let together = tree.field("all_on_target_since").ms();
    let age_ms = |at: Option<u64>| at.map(|at| now.ms - at);
    let is_old = |at| age_ms(at).is_some_and(|age_ms| age_ms >= UNREACHABLE_MS);
    write!(key, "{}", u8::from(is_old(entered))).unwrap();
    let Node::Items(_, views) = tree.field("views") else { panic!("views are a list") };
    for (view, known) in views.iter().zip(rollout.views()) {
        let reported = view.field("reported_at").ms();
        let heard = view.field("heard_at").ms();
        let said = view.field("activate_said_at").ms();
        let after = |moment: Option<u64>| moment.is_some() && reported > moment;
        let is_refused =
            !is_reverting && known.report.is_some_and(|report| report.refused.is_some());
        if is_reverting {
            // Which attempt it was about tells later ones from outdated ones.
            write!(key, "{:?}", known.report.map(|report| report.ticket)).unwrap();
        }
        let bits = [
            !is_reverting && reported >= entered,
            phase == Phase::Rest && reported > entered,
            !is_decided && after(together),
            is_refused && after(said),
            // What contradicts it is believed then.
            is_old(reported),
        ];
        key.extend(bits.map(|bit| if bit { '1' } else { '0' }));
        key.push(if heard.is_none() || is_old(heard) { 's' } else { 'h' });
    }
}
