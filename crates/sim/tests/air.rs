//! Whole transfers in the channel model: real agents, the real sender.

use lockstep_sim::channel::{Loss, Outcome, Rate, Rival, Setup, run, run_rival};

fn setup(members: usize, share: f64) -> Setup {
    Setup {
        members,
        size_bytes: 500_000,
        rate: Rate::Dsss1,
        loss: Loss::Independent { share },
        takes_large: false,
        data_every_ms: 0,
        seed: 1,
    }
}

/// How many times the least possible it took.
fn ratio(setup: &Setup, outcome: &Outcome) -> f64 {
    outcome.transfer_s / setup.bound_s(outcome.shape)
}

#[test]
fn without_loss_ten_members_take_hardly_longer_than_one() {
    let (one, ten) = (run(&setup(1, 0.0)), run(&setup(10, 0.0)));
    assert!(ratio(&setup(1, 0.0), &one) < 1.03, "{one:?}");
    assert!(ten.transfer_s < one.transfer_s * 1.02, "{ten:?} for {one:?}");
    assert_eq!((one.repairs, ten.overflowed), (0, 0));
}

/// Some frames of every member get lost, at each of them others: what is sent to mend that stays
/// near to what any one of them has lost.
#[test]
fn the_worst_of_many_members_decides_and_not_all_that_got_lost() {
    for (members, share, most) in [(1, 0.2, 1.15), (10, 0.1, 1.2), (10, 0.2, 1.2), (50, 0.2, 1.25)]
    {
        let setup = setup(members, share);
        let outcome = run(&setup);
        let ratio = ratio(&setup, &outcome);
        assert!(ratio < most, "{members} members, {share} lost: {ratio:.3}, {outcome:?}");
    }
}

#[test]
fn bursts_of_loss_cost_little_more_than_single_frames() {
    let bursts = Loss::Bursts { share: 0.2, mean_frames: 4.0 };
    let setup = Setup { loss: bursts, ..setup(10, 0.2) };
    let outcome = run(&setup);
    assert!(ratio(&setup, &outcome) < 1.35, "{:.3}, {outcome:?}", ratio(&setup, &outcome));
}

#[test]
fn it_takes_half_as_long_as_the_best_known_way_and_less_with_many_members() {
    for (members, share, least) in [(1, 0.0, 2.0), (50, 0.2, 2.8)] {
        let setup = setup(members, share);
        let (ours, theirs) = (run(&setup).transfer_s, run_rival(Rival::EspnowOta, &setup));
        assert!(theirs / ours > least, "{members}: {theirs:.1} s for our {ours:.1} s");
    }
}

#[test]
fn application_data_goes_on_meanwhile() {
    let alone = run(&setup(3, 0.1));
    let busy = Setup { data_every_ms: 100, ..setup(3, 0.1) };
    let outcome = run(&busy);
    let (due, heard) = outcome.data;
    // A tenth gets lost anyway, and of four frames that wait for the lead's to end one collides
    // with its next.
    assert!(heard * 100 > due * 50, "{heard} of {due}");
    assert!(outcome.transfer_s < alone.transfer_s * 1.3, "{outcome:?} for {alone:?}");
}

#[test]
fn the_same_seed_is_the_same_transfer() {
    assert_eq!(run(&setup(3, 0.2)), run(&setup(3, 0.2)));
    let other = Setup { seed: 2, ..setup(3, 0.2) };
    assert_ne!(run(&setup(3, 0.2)), run(&other));
}
