//! The search for the lead's channel, without a radio.

use std::vec::Vec;

use lockstep_rollout::Policy;

use super::*;

const LEAD: DeviceId = DeviceId([2, 0, 0, 0, 0, 1]);
const OTHER: DeviceId = DeviceId([2, 0, 0, 0, 0, 3]);
const TICK_MS: u64 = 10;

/// A member with its clock.
struct Member {
    tuner: Tuner,
    now_ms: u64,
    pace: Pace,
}

impl Member {
    fn new(last_good: Option<u8>) -> Self {
        Self::with(last_good, true)
    }

    fn with(last_good: Option<u8>, has_group: bool) -> Self {
        let last_good = last_good.and_then(Channel::new);
        let plan = ChannelPlan::Scan { first: Channel::FIRST, last: Channel::LAST, last_good };
        let tuner = Tuner::new(Instant::default(), plan, has_group);
        Self { tuner, now_ms: 0, pace: Pace::board() }
    }

    fn step(&mut self, ms: u64) -> Due {
        self.now_ms += ms;
        let due = self.tuner.step(Instant::from_ms(self.now_ms), &self.pace);
        if let Due::Ask(channel) | Due::Lost(channel) = due {
            self.tuner.at = Some(channel);
            if let State::Seeking { nonce, .. } = &mut self.tuner.state {
                *nonce = self.now_ms + 1;
            }
        }
        due
    }

    /// The channels that are asked on for so long, each with when.
    fn asks(&mut self, ms: u64) -> Vec<(u64, u8)> {
        let mut asked = Vec::new();
        for _ in 0..ms / TICK_MS {
            if let Due::Ask(channel) | Due::Lost(channel) = self.step(TICK_MS) {
                asked.push((self.now_ms, channel.number()));
            }
        }
        asked
    }

    /// The nonce of the last question.
    fn nonce(&self) -> u64 {
        match self.tuner.state {
            State::Seeking { nonce, .. } => nonce,
            State::Found { .. } => panic!("seeks nobody"),
        }
    }

    fn is_found(&self) -> bool {
        matches!(self.tuner.state, State::Found { .. })
    }
}

fn found() -> Member {
    let mut member = Member::new(Some(6));
    assert_eq!(member.step(0), Due::Ask(Channel(6)));
    let nonce = member.nonce();
    assert!(member.tuner.finds(LEAD, nonce));
    member
}

#[test]
fn every_channel_is_visited_for_a_dwell_and_the_last_good_one_more_often() {
    let mut member = Member::new(Some(6));
    let asked = member.asks(5_000);
    assert_eq!(
        asked[..9].iter().map(|(_, it)| *it).collect::<Vec<_>>(),
        [6, 6, 6, 6, 1, 2, 6, 3, 4]
    );
    let dwell_ms = member.pace.dwell_ms;
    assert!(asked.windows(2).all(|pair| pair[1].0 - pair[0].0 == dwell_ms), "{asked:?}");
    for channel in 1..=13 {
        assert!(asked.iter().any(|(_, it)| *it == channel), "{channel} of {asked:?}");
    }
    // Without one to begin with it goes from the lowest to the highest, and again.
    let all: Vec<u8> = Member::new(None).asks(3_000).into_iter().map(|(_, it)| it).collect();
    assert_eq!(all[..15], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 1, 2]);
}

#[test]
fn the_search_ends_where_the_lead_answers_the_question_of_this_channel() {
    let mut member = Member::new(None);
    assert!(!member.tuner.finds(LEAD, 0), "an answer to nothing");
    member.asks(210);
    let late = member.nonce();
    member.asks(200);
    assert!(!member.tuner.finds(LEAD, late), "an answer to what was asked on another channel");
    let nonce = member.nonce();
    assert!(member.tuner.finds(LEAD, nonce));
    assert_eq!(member.tuner.good, Some(Channel(3)));
    assert_eq!(member.asks(20_000), []);
}

#[test]
fn only_the_lead_keeps_a_member_on_a_channel() {
    let mut member = found();
    for _ in 0..member.pace.lost_ms / 1_000 {
        assert_eq!(member.asks(1_000).len(), usize::from(member.now_ms >= member.pace.lost_ms));
        member.tuner.heard(OTHER);
    }
    assert!(!member.is_found());
}

/// Frames are lost all the time, and a lead that boots is silent for as long as that takes.
#[test]
fn one_frame_of_the_lead_in_two_of_its_boots_is_enough() {
    let mut member = found();
    for _ in 0..10 {
        assert_eq!(member.asks(2 * member.pace.lead_boot_ms), []);
        member.tuner.heard(LEAD);
    }
    // Blocks are as good.
    member.asks(2 * member.pace.lead_boot_ms);
    member.tuner.heard_blocks();
    assert_eq!(member.asks(2 * member.pace.lead_boot_ms), []);
}

/// What came meanwhile waits in the radio's queue, and has not been looked at yet.
#[test]
fn time_in_which_the_device_does_not_listen_is_no_silence() {
    let mut member = found();
    for _ in 0..20 {
        assert_eq!(member.step(member.pace.lost_ms), Due::Nothing);
    }
    assert!(member.is_found());
    // Nor does a long erase end a visit unheard.
    let mut member = Member::new(None);
    member.pace.dwell_ms = 2 * LISTENS_MS_MAX;
    assert_eq!(member.step(0), Due::Ask(Channel(1)));
    assert_eq!(member.step(5_000), Due::Nothing);
    assert_eq!(member.step(5_000), Due::Ask(Channel(2)));
}

#[test]
fn a_lost_lead_is_looked_for_where_it_was_first() {
    let mut member = found();
    let asked = member.asks(member.pace.lost_ms + 2_000);
    assert_eq!(asked[..7].iter().map(|(_, it)| *it).collect::<Vec<_>>(), [6, 6, 6, 6, 1, 2, 6]);
    assert_eq!(asked[0].0, member.pace.lost_ms);
}

#[test]
fn a_device_of_a_fixed_channel_never_asks() {
    let mut tuner = Tuner::new(Instant::default(), ChannelPlan::Fixed, true);
    assert_eq!(tuner.step(Instant::from_ms(1_000_000), &Pace::board()), Due::Nothing);
    assert!(!tuner.seeks() && tuner.next_wake().is_none());
    assert!(!tuner.finds(LEAD, 0));
}

/// It would be gone before anybody could give it a key.
#[test]
fn a_device_without_a_group_stays_where_devices_are_and_others_do_not() {
    let mut strange = Member::with(None, false);
    strange.step(0);
    let stay_ms = strange.pace.lost_ms;
    strange.tuner.meets(stay_ms);
    assert_eq!(strange.asks(stay_ms - TICK_MS), []);
    // Another one that waits, too, does not keep it.
    strange.tuner.meets(stay_ms);
    assert_eq!(strange.asks(TICK_MS).len(), 1);
    // Whoever adopts it does.
    strange.tuner.is_asked(stay_ms);
    assert_eq!(strange.asks(stay_ms - TICK_MS), []);
    let mut member = Member::new(None);
    member.step(0);
    member.tuner.meets(stay_ms);
    assert_eq!(member.asks(2_000).len(), 10);
}

/// Every visit that the lead may not have heard counts as one in three that fails.
#[test]
fn a_search_ends_before_what_waits_for_a_member_does() {
    for (policy, pace) in [(Policy::board(), Pace::board()), (Policy::desk(), Pace::desk())] {
        let others = u64::from(Channel::LAST.number() - Channel::FIRST.number());
        let round_ms = (others + others.div_ceil(2)) * pace.dwell_ms;
        let search_ms = u64::from(GOOD_FIRST) * pace.dwell_ms + ROUNDS * round_ms;
        // Longer than two boots of the lead, what makes a link gone, and what it says by itself.
        assert!(pace.lost_ms > 2 * pace.lead_boot_ms);
        assert!(pace.lost_ms > pace.link_fresh_ms && pace.lost_ms > pace.probe_ms);
        // Silent for two boots of the lead, or until it is looked for, whichever is longer.
        let silent_ms = pace.lost_ms + search_ms;
        assert!(u64::from(policy.lease_ms) > silent_ms, "the lease of a trial");
        assert!(u64::from(policy.rest_lease_ms) > silent_ms, "the lease of rest");
        assert!(policy.staging_idle_ms > silent_ms && policy.unreachable_ms > silent_ms);
        assert!(policy.boot_limit_ms > pace.lead_boot_ms + search_ms, "a boot with a search");
    }
}

/// How often a search goes through all channels until it may be taken for hopeless.
const ROUNDS: u64 = 3;
