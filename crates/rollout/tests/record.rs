//! The lead's durable record: what old firmware wrote is read, what newer firmware appended is
//! kept, and no bytes do harm.
//!
//! A changed line in the golden file is a record that leads in the field cannot read any more.
//! After adding one, run `UPDATE_GOLDEN=1 cargo test -p lockstep-rollout --test record`.

use std::fmt::Write;

use lockstep_proto::frame::report::Refusal;
use lockstep_proto::id::{DeviceId, Generation, ImageHash, RolloutId, Sha256};
use lockstep_proto::wire::Role;
use lockstep_rollout::{
    Cause, Hold, Kind, MEMBERS_MAX, Part, Phase, RECORD_BYTES_MAX, RecordError, RolloutRecord,
    SeatRecord, Verdict,
};
use proptest::prelude::*;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/rollout-record-v2.txt");
const GOLDEN_V1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/rollout-record-v1.txt");
/// Where the byte with the kind stands; phase, verdict and cause follow.
const KIND_AT: usize = 14;

fn seat(number: u8, role: &str, part: Part) -> SeatRecord {
    SeatRecord {
        id: DeviceId([2, 0, 0, 0, 0, number]),
        role: Role::new(role).unwrap(),
        part,
        target: ImageHash([0x20 + number; 32]),
        before: ImageHash([0x10 + number; 32]),
        size_bytes: 0x000A_BC00 + u32::from(number),
        attempt: number,
        reactivations: number - 1,
        settled: number == 2,
    }
}

fn record(phase: Phase) -> RolloutRecord {
    RolloutRecord {
        id: RolloutId(0x0123_4567_89ab_cdef),
        generation: Generation { term: 2, counter: 77 },
        kind: Kind::Forward,
        phase,
        restarts: 3,
        number: 10_203,
        number_before: 10_100,
        epoch: 5,
        package: Sha256([0xAB; 32]),
        package_size_bytes: 1_234,
        trial_limit_ms: 60_000,
        reboot_delay_ms: 2_000,
        order: vec![Role::new("transmitter").unwrap(), Role::new("receiver").unwrap()],
        seats: vec![seat(1, "receiver", Part::Watch), seat(2, "transmitter", Part::Update)],
        raises_epoch: true,
        is_final: matches!(phase, Phase::Settled(_)),
        catches_up: false,
        hold: Hold::No,
        appended: Vec::new(),
    }
}

fn causes() -> Vec<Cause> {
    let member = DeviceId([2, 0, 0, 0, 0, 2]);
    vec![
        Cause::Aborted,
        Cause::StagingDeadline,
        Cause::NotNow(member),
        Cause::NotHealthy(member),
        Cause::FellBack(member),
        Cause::Refused(member, Refusal::TooLarge { size_bytes: 3, slot_bytes: 2 }),
        Cause::TooManyRestarts,
        Cause::BadUpload,
        Cause::ManifestLost,
    ]
}

fn named() -> Vec<(String, RolloutRecord)> {
    let mut all = vec![
        ("staging".to_owned(), record(Phase::Staging)),
        ("rest".to_owned(), record(Phase::Rest)),
        ("trial".to_owned(), record(Phase::Trial)),
        ("settling keep".to_owned(), record(Phase::Settling(Verdict::Keep))),
        ("settled keep".to_owned(), record(Phase::Settled(Verdict::Keep))),
    ];
    for cause in causes() {
        let name = format!("settling revert {}", cause.code());
        all.push((name, record(Phase::Settling(Verdict::Revert(cause)))));
    }
    for kind in [Kind::Back, Kind::Repair] {
        let name = format!("staging {}", kind.as_str());
        all.push((name, RolloutRecord { kind, ..record(Phase::Staging) }));
    }
    all
}

/// What only a record of version 2 can say.
fn held() -> Vec<(String, RolloutRecord)> {
    let record = |hold| RolloutRecord { hold, ..record(Phase::Staging) };
    vec![
        ("staging held".to_owned(), record(Hold::Held)),
        ("staging scheduled".to_owned(), record(Hold::Scheduled)),
    ]
}

fn encode(record: &RolloutRecord) -> Vec<u8> {
    record.encode(&mut [0; RECORD_BYTES_MAX]).unwrap().to_vec()
}

#[test]
fn the_bytes_of_every_record_are_those_of_the_golden_file() {
    let mut text = String::new();
    let all: Vec<_> = named().into_iter().chain(held()).collect();
    for (name, record) in &all {
        let hex = encode(record).iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        writeln!(text, "{name}: {hex}").unwrap();
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &text).unwrap();
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap();
    for ((found, expected), (_, record)) in text.lines().zip(golden.lines()).zip(all) {
        assert_eq!(found, expected);
        assert_eq!(RolloutRecord::decode(&bytes_of(expected)), Ok(record));
    }
    assert_eq!(text, golden);
}

#[test]
fn a_record_of_version_1_is_read_and_bars_nothing() {
    let golden = std::fs::read_to_string(GOLDEN_V1).unwrap();
    assert_eq!(golden.lines().count(), named().len());
    for (line, (_, record)) in golden.lines().zip(named()) {
        let record = RolloutRecord { raises_epoch: false, is_final: false, ..record };
        assert_eq!(RolloutRecord::decode(&bytes_of(line)), Ok(record));
    }
}

/// The bytes of a line `name: hex`.
fn bytes_of(line: &str) -> Vec<u8> {
    let (_, hex) = line.split_once(": ").unwrap();
    let byte = |pair| u8::from_str_radix(&hex[pair * 2..pair * 2 + 2], 16).unwrap();
    (0..hex.len() / 2).map(byte).collect()
}

// A lead that fell back to old firmware goes on with the rollout that the new one began.
#[test]
fn what_a_later_version_appended_is_kept_as_it_was() {
    let mut bytes = encode(&record(Phase::Trial));
    bytes.extend_from_slice(b"of a later version");
    let mut read = RolloutRecord::decode(&bytes).unwrap();
    assert_eq!(encode(&read), bytes);
    read.phase = Phase::Settling(Verdict::Keep);
    assert!(encode(&read).ends_with(b"of a later version"));
}

#[test]
fn a_cause_of_a_later_version_does_not_lose_the_verdict() {
    let cause = Cause::NotHealthy(DeviceId([2, 0, 0, 0, 0, 2]));
    let mut bytes = encode(&record(Phase::Settling(Verdict::Revert(cause))));
    bytes[KIND_AT + 3] = 200;
    let read = RolloutRecord::decode(&bytes).unwrap();
    assert!(matches!(read.phase, Phase::Settling(Verdict::Revert(Cause::FellBack(_)))));
}

#[test]
fn an_impossible_field_is_named_with_its_value() {
    let refused = |offset: usize, value: u8| {
        let mut bytes = encode(&record(Phase::Settling(Verdict::Keep)));
        bytes[offset] = value;
        RolloutRecord::decode(&bytes).unwrap_err()
    };
    let field = |field, found| RecordError::Field { field, found };
    assert_eq!(refused(KIND_AT, 3), field("kind", 3));
    assert_eq!(refused(KIND_AT + 1, 6), field("phase", 6));
    assert_eq!(refused(KIND_AT + 1, 3), field("phase", 3), "a trial has no verdict");
    assert_eq!(refused(KIND_AT + 2, 3), field("verdict", 3));
    assert_eq!(refused(KIND_AT, 3).to_string(), "rollout record has impossible `kind` 3");
}

#[test]
fn a_record_that_is_cut_anywhere_is_refused() {
    let bytes = encode(&record(Phase::Staging));
    // Without the flags it is a whole record of version 1.
    for len in 0..bytes.len() - 1 {
        let cut = RolloutRecord::decode(&bytes[..len]);
        assert!(matches!(cut, Err(RecordError::TooShort(_))), "{len}: {cut:?}");
    }
}

#[test]
fn the_largest_group_fits_with_room_for_a_later_version() {
    let mut largest = record(Phase::Trial);
    let role = |index: usize| Role::new(&format!("role-number-{index}")).unwrap();
    largest.order = (0..MEMBERS_MAX).map(role).collect();
    largest.seats = (0..MEMBERS_MAX).map(|_| seat(1, "receiver", Part::Update)).collect();
    let bytes = encode(&largest);
    assert!(bytes.len() + 100 <= RECORD_BYTES_MAX, "{}", bytes.len());
    assert_eq!(RolloutRecord::decode(&bytes), Ok(largest));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_do_harm_and_what_is_read_is_written_again(
        name in 0..named().len(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = encode(&named()[name].1);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(record) = RolloutRecord::decode(&bytes) {
            prop_assert_eq!(RolloutRecord::decode(&encode(&record)), Ok(record));
        }
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = RolloutRecord::decode(&bytes);
    }
}

#[test]
fn verdicts_and_causes_have_words_for_people() {
    let expected = [
        "aborted on request",
        "staging made no progress in time",
        "did not come to rest",
        "did not get healthy in time",
        "fell back to its old image",
        "refused: ",
        "the lead restarted too often",
        "the upload is not what its manifest says",
        "the lead lost the manifest",
    ];
    let texts: Vec<String> = causes().iter().map(ToString::to_string).collect();
    for word in expected {
        assert!(texts.iter().any(|text| text.contains(word)), "{word}: {texts:?}");
    }
    assert_eq!(Verdict::Keep.as_str(), "keep");
    assert_eq!(Verdict::Revert(Cause::Aborted).as_str(), "revert");
}

#[test]
fn a_record_that_ends_too_early_says_what_lay_behind_it() {
    let error = RolloutRecord::decode(&[]).unwrap_err();
    assert!(core::error::Error::source(&error).is_some(), "{error}");
}
