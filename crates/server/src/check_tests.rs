//! Checks before a release is offered, one at a time.

use lockstep_proto::compat::Announced;
use lockstep_proto::image::Guard;
use lockstep_proto::version::ProtocolRange;

use super::*;

const OLD: &str = "a4afd3dcdf93298832eda7fc";
const NEW: &str = "5fe04b4b84c017723c9fff86";

fn facts(number: u32, image: &str) -> Facts {
    let protocol = ProtocolRange::single(1);
    let role = RoleFacts {
        announced: Announced { number, min_compatible: 0, protocol },
        image_sha256: image.into(),
        chip: "ESP32-S3".into(),
        board: "t-display-s3".into(),
        size_bytes: 1000,
        flash: "DIO, 4 MiB".into(),
        guard: Guard::default(),
        is_reversible: true,
    };
    let transmitter = RoleFacts { chip: "ESP32".into(), board: String::new(), ..role.clone() };
    let roles = [("receiver".to_owned(), role), ("transmitter".to_owned(), transmitter)].into();
    Facts { system: "desk".into(), number, epoch: 1, brings_keys: false, roles }
}

fn device(role: &str, is_lead: bool) -> Device {
    let (id, role) = (role.to_owned(), role.to_owned());
    Device { id, role, is_lead, number: 10_000, image: OLD.into(), is_linked: true }
}

fn group() -> FieldGroup {
    let lead = LeadFacts {
        chip: "ESP32-S3".into(),
        board: "t-display-s3".into(),
        trusts_anybody: false,
        epoch: 1,
        slot_bytes: 2000,
        rollback: "bootloader".into(),
    };
    let devices = vec![device("receiver", true), device("transmitter", false)];
    FieldGroup { name: "bench".into(), devices, lead: Some(lead) }
}

/// The codes of what is found, after `edit`.
fn codes(edit: impl FnOnce(&mut Facts, &mut FieldGroup)) -> Vec<&'static str> {
    let (mut release, mut group) = (facts(10_100, NEW), group());
    edit(&mut release, &mut group);
    let known = [facts(10_000, OLD)];
    check(&release, 1, &[group], &known).iter().map(|finding| finding.code).collect()
}

fn role<'a>(release: &'a mut Facts, name: &str) -> &'a mut RoleFacts {
    release.roles.get_mut(name).unwrap()
}

#[test]
fn nothing_is_said_of_what_fits() {
    assert_eq!(codes(|_, _| ()), Vec::<&str>::new());
}

#[test]
fn an_unsigned_release_stops_where_there_are_keys() {
    let findings = check(&facts(10_100, NEW), 0, &[group(), group()], &[facts(10_000, OLD)]);
    assert_eq!(findings[0].code, "unsigned");
    assert_eq!(
        (findings[0].weight, findings[0].names.as_slice()),
        (Weight::Stops, &["bench".into()][..])
    );
}

/// L8, L9: found after the whole download elsewhere.
#[test]
fn an_image_for_other_hardware_stops_at_the_lead_and_at_a_member() {
    assert_eq!(
        codes(|release, _| role(release, "receiver").chip = "ESP32".into())[0],
        "wrong-hardware"
    );
    assert_eq!(
        codes(|release, _| role(release, "receiver").board = "x".into())[0],
        "wrong-hardware"
    );
    let member = codes(|release, _| role(release, "transmitter").chip = "ESP32-C3".into());
    assert_eq!(member, ["wrong-hardware"]);
}

/// L15: 4,304 bytes over, and a silent loop of reboots.
#[test]
fn an_image_beyond_the_slot_stops_with_both_numbers() {
    let mut release = facts(10_100, NEW);
    role(&mut release, "transmitter").size_bytes = 2001;
    let findings = check(&release, 1, &[group()], &[facts(10_000, OLD)]);
    assert_eq!(findings[0].text, "transmitter has 2001 bytes, the lead's slot 2000");
}

/// L16: DIO to QIO over the air, and no boot.
#[test]
fn another_flash_is_warned_of() {
    let found = codes(|release, _| role(release, "transmitter").flash = "QIO, 4 MiB".into());
    assert_eq!(found, ["flash-changed"]);
}

#[test]
fn epochs_are_compared_both_ways() {
    assert_eq!(codes(|release, _| release.epoch = 0), ["epoch-too-low"]);
    assert_eq!(codes(|release, _| release.epoch = 2), ["epoch-raised"]);
}

#[test]
fn roles_are_compared_both_ways() {
    let more = codes(|_, group| group.devices.truncate(1));
    assert_eq!(more, ["no-device-for-role"]);
    let fewer = codes(|release, _| drop(release.roles.remove("transmitter")));
    assert_eq!(fewer, ["role-stays"]);
}

#[test]
fn what_runs_and_is_of_no_release_is_said_to_be_unknown() {
    assert_eq!(codes(|_, group| group.devices[1].image = "0".repeat(16)), ["unknown-image"]);
    assert_eq!(codes(|_, group| group.lead = None), ["unknown-lead"]);
}

/// The release that is looked at is not among those beside it.
#[test]
fn what_runs_the_release_already_is_known() {
    let found = codes(|_, group| group.devices.iter_mut().for_each(|it| it.image = NEW.into()));
    assert_eq!(found, Vec::<&str>::new());
}

/// Of one device only what is about it, or about all that passes through it.
#[test]
fn of_one_device_only_what_is_about_it_is_said() {
    let mut release = facts(10_100, NEW);
    role(&mut release, "transmitter").chip = "ESP32-C3".into();
    release.epoch = 0;
    let (group, known) = (group(), [facts(10_000, OLD)]);
    let codes = |device: &Device| -> Vec<_> {
        let found = check_device(&release, 1, &group, device, &known);
        found.iter().map(|finding| finding.code).collect()
    };
    assert_eq!(codes(&group.devices[0]), ["epoch-too-low"]);
    assert_eq!(codes(&group.devices[1]), ["wrong-hardware"]);
}

/// Else a person would read no more than the code.
#[test]
fn every_finding_has_words() {
    let all = [
        codes(|release, group| {
            release.epoch = 0;
            role(release, "receiver").chip = "x".into();
            role(release, "receiver").size_bytes = 9999;
            role(release, "transmitter").flash = "x".into();
            group.lead.as_mut().unwrap().rollback = "none".into();
            group.devices[1].number = 10_200;
        }),
        codes(|release, _| release.epoch = 2),
        codes(|release, group| {
            drop(release.roles.remove("transmitter"));
            group.lead = None;
        }),
        codes(|_, group| group.devices.truncate(1)),
        codes(|_, group| group.devices[0].image = "0".repeat(16)),
        vec!["unsigned", "no-overlap", "label-taken"],
    ];
    for code in all.concat() {
        assert!(crate::words::of(code).is_some(), "{code}");
    }
}

/// What the devices' own preflight would refuse, said before a campaign begins.
#[test]
fn what_guards_the_running_image_stops_one_without_it() {
    let with = |secure_version, is_signed, is_reversible| {
        let mut facts = facts(10_100, NEW);
        let transmitter = role(&mut facts, "transmitter");
        transmitter.guard = Guard { secure_version, is_signed };
        transmitter.is_reversible = is_reversible;
        facts
    };
    let runs = |secure_version, is_signed| {
        let mut known = facts(10_000, OLD);
        role(&mut known, "transmitter").guard = Guard { secure_version, is_signed };
        known
    };
    let codes = |release: &Facts, known: Facts| -> Vec<_> {
        let findings = check(release, 1, &[group()], &[known]);
        assert!(findings.iter().all(Finding::stops), "{findings:?}");
        findings.iter().map(|finding| finding.code).collect()
    };
    assert_eq!(codes(&with(2, true, true), runs(2, true)), Vec::<&str>::new());
    assert_eq!(codes(&with(2, false, true), runs(2, true)), ["not-signed"]);
    assert_eq!(codes(&with(1, true, true), runs(2, true)), ["secure-version-too-low"]);
    assert_eq!(codes(&with(3, true, true), runs(2, true)), ["secure-version-rises"]);
    assert_eq!(codes(&with(3, true, false), runs(2, true)), Vec::<&str>::new());
}

#[test]
fn a_missing_overlap_names_the_release_that_bridges_it() {
    let range = |min, max| ProtocolRange::new(min, max).unwrap();
    let with = |mut facts: Facts, protocol| {
        for role in facts.roles.values_mut() {
            role.announced.protocol = protocol;
        }
        facts
    };
    let release = with(facts(10_300, NEW), range(3, 3));
    let old = with(facts(10_000, OLD), range(1, 1));
    let bridge = with(facts(10_200, "77"), range(1, 3));
    let text = |known: &[Facts]| check(&release, 1, &[group()], known)[0].text.clone();
    assert!(text(&[old.clone(), bridge]).contains("by way of 1.2.0"));
    assert!(text(&[old]).contains("no release speaks to both"));
}

/// L25: one label for two images, and an update loop.
#[test]
fn a_label_that_is_taken_by_another_image_is_warned_of() {
    let known = [facts(10_000, OLD), facts(10_100, "88")];
    let findings = check(&facts(10_100, NEW), 1, &[group()], &known);
    let codes: Vec<_> = findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["label-taken", "label-taken"]);
}
