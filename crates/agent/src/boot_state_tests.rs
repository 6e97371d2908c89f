//! Otadata under power cuts: whatever is torn, one entry is usable, and the bootloader boots the
//! old image or the new one.

use std::vec;
use std::vec::Vec;

use lockstep_proto::otadata::OTADATA_BYTES;
use lockstep_sim::flash::MemFlash;

use super::*;

const OTADATA: Region = Region { offset: 0, size_bytes: OTADATA_BYTES };
const RUNNING: u8 = 0;
const OTHER: u8 = 1;

fn flash(a: Option<OtaEntry>, b: Option<OtaEntry>) -> MemFlash {
    let mut flash = MemFlash::new(OTADATA_BYTES);
    for (sector, entry) in [(Sector::A, a), (Sector::B, b)] {
        if let Some(entry) = entry {
            let at = sector.offset() as usize;
            flash.bytes[at..at + ENTRY_BYTES].copy_from_slice(&entry.encode());
        }
    }
    flash
}

fn entry(seq: u32, state: OtaState) -> Option<OtaEntry> {
    Some(OtaEntry::new(seq, state))
}

fn read(flash: &mut MemFlash) -> BootState {
    BootState::read(flash, OTADATA, 2, RUNNING).unwrap()
}

/// Which slot a bootloader with rollback boots after a reset, by the rules; a device without a
/// usable entry boots slot 0.
fn booted(flash: &mut MemFlash) -> u8 {
    let state = read(flash);
    let survives = |entry: OtaEntry| entry.state != OtaState::PendingVerify;
    let (a, b) = (state.a.filter(|&e| survives(e)), state.b.filter(|&e| survives(e)));
    active(a, b).and_then(|(_, entry)| slot_of(entry.seq, 2)).unwrap_or(0)
}

/// Everything that otadata can look like while slot 0 runs.
fn starts() -> Vec<MemFlash> {
    let states = [
        OtaState::New,
        OtaState::PendingVerify,
        OtaState::Valid,
        OtaState::Invalid,
        OtaState::Aborted,
        OtaState::Undefined,
    ];
    let mut all = vec![flash(None, None)];
    for state in states {
        for other in states {
            all.push(flash(entry(1, OtaState::Valid), entry(2, other)));
            all.push(flash(entry(3, state), entry(2, other)));
            all.push(flash(entry(2, other), entry(3, state)));
        }
        all.push(flash(entry(3, state), None));
        all.push(flash(None, entry(3, state)));
        all.push(flash(entry(1, state), entry(3, OtaState::Valid)));
    }
    all
}

/// Carries out `change` with every power budget and looks at what a bootloader would see.
fn with_every_cut(
    start: &MemFlash,
    mut change: impl FnMut(&mut BootState, &mut MemFlash) -> Result<(), FlashFault>,
    mut look: impl FnMut(&mut MemFlash, u64),
) -> MemFlash {
    for budget in 0.. {
        let mut flash = start.clone();
        flash.power_budget_bytes = Some(budget);
        let mut state = read(&mut flash);
        let result = change(&mut state, &mut flash);
        flash.power_on();
        look(&mut flash, budget);
        if result.is_ok() {
            return flash;
        }
    }
    unreachable!("some budget suffices")
}

#[test]
fn activation_touches_only_the_entry_that_does_not_run() {
    let start = flash(entry(1, OtaState::Valid), entry(2, OtaState::Aborted));
    let before = start.bytes[..0x1000].to_vec();
    let mut after = with_every_cut(&start, BootState::activate, |flash, budget| {
        assert!(flash.bytes[..0x1000] == before[..], "cut after {budget}");
    });
    assert_eq!(read(&mut after).b, entry(2, OtaState::New));
    assert!(read(&mut after).other_is_next());
}

#[test]
fn activation_lets_the_other_slot_boot_from_every_start() {
    for start in starts() {
        let mut after = with_every_cut(&start, BootState::activate, |_, _| {});
        let state = read(&mut after);
        let (_, entry) = active(state.a, state.b).unwrap();
        assert_eq!((slot_of(entry.seq, 2), entry.state), (Some(OTHER), OtaState::New));
        assert!(state.running().is_some(), "the running image has an entry to fall back to");
    }
}

// The rule of the whole file.
#[test]
fn no_cut_leaves_both_entries_unusable_if_one_was_usable() {
    type Change = fn(&mut BootState, &mut MemFlash) -> Result<(), FlashFault>;
    let changes: [Change; 4] = [
        BootState::activate,
        BootState::fall_back,
        BootState::cancel_activation,
        BootState::forget_other,
    ];
    for start in starts() {
        let usable_before = read(&mut start.clone()).running().is_some();
        for change in changes {
            with_every_cut(&start, change, |flash, budget| {
                let state = read(flash);
                let usable_after = active(state.a, state.b).is_some();
                assert!(usable_after || !usable_before, "{state:?} after {budget}");
            });
        }
    }
}

// On a trial both outcomes of a cut are fine: the old image, or the new one, confirmed.
#[test]
fn a_cut_confirmation_leaves_the_other_entry_in_force() {
    let start = flash(entry(3, OtaState::PendingVerify), entry(2, OtaState::Valid));
    let mut fell_back = 0;
    let mut after = with_every_cut(&start, BootState::confirm, |flash, _| {
        let state = read(flash);
        assert!(active(state.a, state.b).is_some());
        fell_back += u32::from(booted(flash) == OTHER);
    });
    assert!(fell_back > 0, "a cut between erase and write falls back");
    assert_eq!(booted(&mut after), RUNNING);
    assert_eq!(read(&mut after).running_state(), OtaState::Valid);
}

// L5: no bootloader helps, so the confirmation is all that says that the image stays.
#[test]
fn a_confirmation_that_was_cut_can_be_repeated_in_the_same_boot() {
    for budget in 0..40 {
        let mut flash = flash(entry(3, OtaState::PendingVerify), entry(2, OtaState::Valid));
        let mut state = read(&mut flash);
        flash.power_budget_bytes = Some(budget);
        let _ = state.confirm(&mut flash);
        flash.power_on();
        let mut state = read(&mut flash);
        state.confirm(&mut flash).unwrap();
        assert_eq!((state.running_state(), booted(&mut flash)), (OtaState::Valid, RUNNING));
    }
}

#[test]
fn falling_back_boots_the_other_slot_from_every_start_and_after_every_cut() {
    for start in starts() {
        let on_trial = read(&mut start.clone()).running_state() == OtaState::PendingVerify;
        let mut after = with_every_cut(&start, BootState::fall_back, |flash, budget| {
            let other = read(flash).entries().any(|(_, entry)| {
                usable(&entry)
                    && entry.state != OtaState::PendingVerify
                    && slot_of(entry.seq, 2) == Some(OTHER)
            });
            // On a trial the bootloader helps: once there is a way back, any cut leads there.
            assert!(!on_trial || !other || booted(flash) == OTHER, "cut after {budget}");
        });
        assert_eq!(booted(&mut after), OTHER, "from {:?}", read(&mut start.clone()));
    }
}

// Whatever is cut, the bootloader finds the old image's entry as it was.
#[test]
fn a_watched_trial_ends_without_touching_the_way_back() {
    let start = flash(entry(3, OtaState::PendingVerify), entry(2, OtaState::Valid));
    let way_back = start.bytes[0x1000..].to_vec();
    let mut after = with_every_cut(&start, BootState::fall_back, |flash, budget| {
        assert!(flash.bytes[0x1000..] == way_back[..], "cut after {budget}");
    });
    assert_eq!(read(&mut after).a, entry(3, OtaState::Invalid));
}

#[test]
fn a_confirmed_image_that_is_left_stays_confirmed() {
    let start = flash(entry(3, OtaState::Valid), entry(2, OtaState::Valid));
    let running = start.bytes[..0x1000].to_vec();
    let mut after = with_every_cut(&start, BootState::fall_back, |flash, budget| {
        assert!(flash.bytes[..0x1000] == running[..], "cut after {budget}");
    });
    assert_eq!(read(&mut after).b, entry(4, OtaState::Valid));
}

#[test]
fn a_cancelled_activation_leaves_the_running_image_in_force() {
    for start in starts() {
        let mut flash = start.clone();
        read(&mut flash).activate(&mut flash).unwrap();
        let mut after = with_every_cut(&flash, BootState::cancel_activation, |_, _| {});
        assert!(!read(&mut after).other_is_next());
        let state = read(&mut after);
        assert_eq!(active(state.a, state.b).map(|(_, e)| slot_of(e.seq, 2)), Some(Some(RUNNING)));
    }
}

#[test]
fn the_other_slots_entry_is_gone_before_the_slot_is_touched() {
    for start in starts() {
        let mut after = with_every_cut(&start, BootState::forget_other, |_, _| {});
        let state = read(&mut after);
        assert!(state.running().is_some());
        assert!(!state.entries().any(|(_, entry)| state.is_other(&entry)), "{state:?}");
    }
}

#[test]
fn an_activation_after_the_last_number_is_refused_and_changes_nothing() {
    let start = flash(entry(0xFFFF_FFFD, OtaState::Valid), entry(2, OtaState::Valid));
    let mut flash = start.clone();
    let mut state = read(&mut flash);
    assert_eq!(state.activate(&mut flash), Ok(()));
    // 0xFFFF_FFFF marks an erased entry, so slot 0 has no number left above 0xFFFF_FFFE.
    let mut state = BootState::read(&mut flash, OTADATA, 2, OTHER).unwrap();
    let before = flash.bytes.clone();
    let fault = state.activate(&mut flash).unwrap_err();
    assert_eq!(fault.operation, Operation::Number);
    assert!(flash.bytes == before);
}
