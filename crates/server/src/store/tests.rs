//! The tables: on SQLite in a folder of their own, or on the PostgreSQL that
//! `LOCKSTEP_TEST_DATABASE` names, in a database of their own.

use jiff::Timestamp;

use sqlx::Connection as _;

use super::*;
use crate::campaign::{Standing, Wave};
use crate::lead::report::{Gist, Line, OfferAnswer, OfferState, Open, Past, Report};
use crate::store::campaigns::{Made, NewCampaign};
use crate::store::checkins::Arrival;
use crate::store::groups::{Device, Enrolled, Settings};
use crate::store::releases::Release;

struct Desk {
    store: Store,
    url: String,
    _folder: tempfile::TempDir,
}

async fn desk() -> Desk {
    let folder = tempfile::tempdir().unwrap();
    let url = match std::env::var("LOCKSTEP_TEST_DATABASE") {
        Err(_) => Store::url_in(folder.path()),
        Ok(server) => database_at(&server).await,
    };
    Desk { store: Store::open(&url).await.unwrap(), url, _folder: folder }
}

/// A new database on that server.
async fn database_at(server: &str) -> String {
    sqlx::any::install_default_drivers();
    let name = format!("test_{}", new_id().unwrap());
    let mut connection = AnyConnection::connect(server).await.unwrap();
    let sql = format!("CREATE DATABASE {name}");
    connection.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
    let (server, _) = server.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

const LEAD: &str = "02:00:00:00:00:01";

impl Desk {
    async fn token(&self, name: &str) -> String {
        let settings = Settings { name: name.into(), ..Settings::default() };
        self.store.make_enrolment(&settings, None, "ada", at(0), at(60)).await.unwrap()
    }

    async fn enrol(&self, name: &str) -> String {
        let token = self.token(name).await;
        match self.store.enrol(&token, LEAD, at(1)).await.unwrap() {
            Enrolled::Welcome { group, .. } => group,
            other => panic!("{other:?}"),
        }
    }

    async fn release(&self) -> String {
        self.release_of(10_100, NEW, [1, 1]).await
    }

    /// A pair's release: every image has this hash, and speaks these protocols.
    async fn release_of(&self, number: u32, image: &str, protocol: [u8; 2]) -> String {
        let version = lockstep_proto::version::ReleaseVersion::from_number(number).to_string();
        let entry = serde_json::json!({
            "version": version, "version_number": number, "device_type": "ESP32-S3",
            "hardware": "desk", "firmware_url": "receiver.bin", "firmware_size": 1000,
            "md5_checksum": "", "protocol_version": protocol[1], "protocol_range": protocol,
            "sha256": "77".repeat(32), "image_sha256": image, "chip": "ESP32-S3",
        });
        let manifest = serde_json::json!({
            "schema": 1, "system": "desk", "system_version": version, "release_date": "",
            "min_compatible_version": "0.0.0", "description": "",
            "devices": { "receiver": entry, "transmitter": entry },
        });
        let release = Release {
            id: new_id().unwrap(),
            system: "desk".into(),
            version,
            number,
            sequence: 0,
            epoch: 0,
            bundle_sha256: hash_of(&number.to_string()),
            bundle_bytes: 1000,
            manifest: manifest.to_string(),
            signatures: 0,
            signers: Vec::new(),
            places: "{}".into(),
            description: String::new(),
            uploaded_at: at(0),
            uploaded_by: "ada".into(),
            withdrawn_at: None,
        };
        self.store.add_release(&release).await.unwrap()
    }

    /// A campaign for one group, offered.
    async fn campaign(&self, group: &str) -> String {
        let release = self.release().await;
        self.campaign_to(&release, group).await
    }

    async fn campaign_to(&self, release: &str, group: &str) -> String {
        let (needs_approval, is_approved, patience_s) = (false, false, None);
        let wave = Wave { percent: 100, needs_approval, is_approved, soak_s: 0, patience_s };
        let new = NewCampaign {
            name: "desk 1.1.0".into(),
            release: release.into(),
            waves: vec![wave],
            failures_max: 0,
            not_before: None,
            groups: vec![(group.into(), 0, 10_000, None)],
        };
        let made = self.store.make_campaign(&new, "ada", at(2)).await.unwrap();
        let Made::Campaign(id) = made else { panic!("{made:?}") };
        self.store.advance_campaign(&id, at(2)).await.unwrap();
        id
    }

    async fn standing(&self, campaign: &str) -> (Standing, String) {
        let participants = self.store.participants(campaign).await.unwrap();
        (participants[0].standing, participants[0].cause.clone())
    }

    async fn arrives(&self, arrival: Arrival) {
        self.store.take_arrivals(&[arrival]).await.unwrap();
    }
}

/// What a lead says whose group runs the image of this hash.
fn arrival(group: &str, image: &str, second: i64) -> Arrival {
    let device = Device {
        id: LEAD.into(),
        role: "receiver".into(),
        is_lead: true,
        number: 10_000,
        image: image.into(),
        is_linked: true,
    };
    let report = Report {
        system: Some("desk".into()),
        devices: vec![device],
        number: 10_000,
        boot: 1,
        open: None,
        attention: String::new(),
        past: Vec::new(),
    };
    Arrival {
        group: group.into(),
        at: at(second),
        report,
        gist: Gist(second),
        documents: "{}".into(),
        lines: Vec::new(),
        offer: None,
        orders: Vec::new(),
    }
}

const OLD: &str = "a4afd3dcdf93298832eda7fca4afd3dcdf93298832eda7fc0123456789abcdef";
const BRIDGE: &str = "10cc574e60e520ad10cc574e60e520ad10cc574e60e520ad10cc574e60e520ad";
const NEW: &str = "5fe04b4b84c017723c9fff865fe04b4b84c017723c9fff860123456789abcdef";

#[tokio::test]
async fn a_database_is_opened_again_and_one_of_a_later_version_is_refused() {
    let desk = desk().await;
    desk.enrol("bench").await;
    drop(Store::open(&desk.url).await.unwrap());
    let mut connection = desk.store.read().await.unwrap();
    connection.execute("INSERT INTO step (number) VALUES (999)").await.unwrap();
    let error = Store::open(&desk.url).await.unwrap_err();
    assert!(error.to_string().contains("later"), "{error}");
}

#[tokio::test]
async fn a_token_lets_one_board_in_and_the_same_board_again_until_its_credential_was_used() {
    let desk = desk().await;
    let token = desk.token("bench").await;
    let enrol =
        async |lead: &str, second| desk.store.enrol(&token, lead, at(second)).await.unwrap();
    let Enrolled::Welcome { group, credential: lost } = enrol(LEAD, 1).await else { panic!() };
    assert_eq!(enrol("02:00:00:00:00:09", 2).await, Enrolled::Used);
    let Enrolled::Welcome { group: same, credential } = enrol(LEAD, 3).await else { panic!() };
    assert_eq!(group, same);
    let known = async |secret: &str| {
        desk.store.group_of_credential(&hash_of(secret)).await.unwrap().map(|(group, _)| group)
    };
    assert_eq!((known(&lost).await, known(&credential).await), (None, Some(group.clone())));
    desk.arrives(arrival(&group, OLD, 4)).await;
    assert_eq!(enrol(LEAD, 5).await, Enrolled::Used);
    assert_eq!(desk.store.enrol("0000", LEAD, at(5)).await.unwrap(), Enrolled::Unknown);
}

#[tokio::test]
async fn a_token_that_has_expired_lets_nobody_in() {
    let desk = desk().await;
    let token = desk.token("bench").await;
    assert_eq!(desk.store.enrol(&token, LEAD, at(60)).await.unwrap(), Enrolled::Unknown);
}

#[tokio::test]
async fn two_groups_of_one_name_are_told_apart() {
    let desk = desk().await;
    desk.enrol("bench").await;
    let second = desk.enrol("bench").await;
    assert_eq!(desk.store.group(&second).await.unwrap().unwrap().name, "bench 2");
}

/// L23: a server must not believe a label.
#[tokio::test]
async fn a_group_has_kept_a_release_when_its_devices_run_its_image_and_not_when_they_say_so() {
    let desk = desk().await;
    let group = desk.enrol("bench").await;
    let campaign = desk.campaign(&group).await;
    assert_eq!(desk.standing(&campaign).await.0, Standing::Offered);
    let mut says_so = arrival(&group, OLD, 3);
    says_so.report.number = 10_100;
    says_so.report.devices[0].number = 10_100;
    desk.arrives(says_so).await;
    assert_eq!(desk.standing(&campaign).await.0, Standing::Offered);
    let mut on_trial = arrival(&group, NEW, 4);
    let (id, kind, phase) = ("17".into(), "forward".into(), "trial".into());
    on_trial.report.open = Some(Open { id, kind, phase, number: 10_100 });
    desk.arrives(on_trial).await;
    assert_eq!(desk.standing(&campaign).await.0, Standing::Began);
    desk.arrives(arrival(&group, NEW, 5)).await;
    assert_eq!(desk.standing(&campaign).await.0, Standing::Kept);
    assert!(desk.store.desired(&group).await.unwrap().offer.is_none());
}

#[tokio::test]
async fn a_failure_is_counted_once_and_not_for_a_rollout_that_was_known_before() {
    let desk = desk().await;
    let group = desk.enrol("bench").await;
    let past = |id: &str| Past {
        id: id.into(),
        kind: "forward".into(),
        verdict: "revert".into(),
        cause: "not-healthy".into(),
        why: "not healthy in time".into(),
        number: 10_100,
        number_before: 10_000,
        disagreed_s: None,
    };
    let report = |second, ids: &[&str]| {
        let mut arrival = arrival(&group, OLD, second);
        arrival.report.past = ids.iter().map(|id| past(id)).collect();
        arrival
    };
    // Somebody has tried it by hand before.
    desk.arrives(report(2, &["16"])).await;
    let campaign = desk.campaign(&group).await;
    desk.arrives(report(3, &["16"])).await;
    assert_eq!(desk.standing(&campaign).await.0, Standing::Offered);
    desk.arrives(report(4, &["17", "16"])).await;
    assert_eq!(desk.standing(&campaign).await, (Standing::Failed, "not-healthy".into()));
    let (changed, has_changed) = desk.store.advance_campaign(&campaign, at(5)).await.unwrap();
    assert!(changed.is_empty() && has_changed);
    let paused = desk.store.campaign(&campaign).await.unwrap().unwrap();
    assert_eq!(paused.why, "1 group failed, allowed are 0");
}

#[tokio::test]
async fn a_group_is_in_one_open_campaign_at_most() {
    let desk = desk().await;
    let group = desk.enrol("bench").await;
    desk.campaign(&group).await;
    let release = desk.store.releases().await.unwrap()[0].id.clone();
    let new = NewCampaign {
        name: "again".into(),
        release,
        waves: Vec::new(),
        failures_max: 0,
        not_before: None,
        groups: vec![(group, 0, 0, None)],
    };
    let made = desk.store.make_campaign(&new, "ada", at(9)).await.unwrap();
    assert_eq!(made, Made::Taken("bench".into(), "desk 1.1.0".into()));
    assert_eq!(desk.store.campaigns().await.unwrap().len(), 1);
}

/// A release that speaks the old protocol and the new one is a stop on the way.
#[tokio::test]
async fn a_group_whose_release_does_not_speak_to_the_new_one_goes_by_way_of_one_that_speaks_both() {
    let desk = desk().await;
    let group = desk.enrol("bench").await;
    desk.release_of(10_000, OLD, [1, 1]).await;
    desk.release_of(10_200, BRIDGE, [1, 3]).await;
    let last = desk.release_of(10_300, NEW, [3, 3]).await;
    let arrives = async |image: &str, number, second| {
        let mut arrival = arrival(&group, image, second);
        (arrival.report.number, arrival.report.devices[0].number) = (number, number);
        desk.arrives(arrival).await;
    };
    let offered = async || desk.store.desired(&group).await.unwrap().offer.map(|it| it.version);
    arrives(OLD, 10_000, 1).await;
    let campaign = desk.campaign_to(&last, &group).await;
    assert_eq!(offered().await.as_deref(), Some("1.2.0"));
    arrives(BRIDGE, 10_200, 3).await;
    assert_eq!(desk.standing(&campaign).await.0, Standing::Waits);
    desk.store.advance_campaign(&campaign, at(4)).await.unwrap();
    assert_eq!(offered().await.as_deref(), Some("1.3.0"));
    arrives(NEW, 10_300, 5).await;
    assert_eq!(desk.standing(&campaign).await.0, Standing::Kept);
}

#[tokio::test]
async fn how_long_a_rollout_took_is_known_from_when_it_was_first_heard_of() {
    let desk = desk().await;
    let group = desk.enrol("bench").await;
    let open = |phase: &str| {
        let (id, kind) = ("17".into(), "forward".into());
        Some(Open { id, kind, phase: phase.into(), number: 10_100 })
    };
    for (second, phase) in [(3, "staging"), (5, "trial")] {
        let mut arrival = arrival(&group, OLD, second);
        arrival.report.open = open(phase);
        desk.arrives(arrival).await;
    }
    let mut over = arrival(&group, OLD, 9);
    over.report.past = vec![Past {
        id: "17".into(),
        kind: "forward".into(),
        verdict: "keep".into(),
        cause: String::new(),
        why: String::new(),
        number: 10_100,
        number_before: 10_000,
        disagreed_s: None,
    }];
    desk.arrives(over).await;
    let past = desk.store.past_rollouts(&group).await.unwrap();
    assert_eq!((past[0].began_at, past[0].told_at), (Some(at(3)), at(9)));
}

/// The device's uptime and free heap are on the page, and no reason to look at a campaign.
#[tokio::test]
async fn a_check_in_without_news_is_taken_down_and_nothing_is_concluded_from_it() {
    let desk = desk().await;
    let group = desk.enrol("bench").await;
    desk.arrives(arrival(&group, OLD, 3)).await;
    let mut again = arrival(&group, NEW, 9);
    (again.gist, again.documents) = (Gist(3), "{\"later\":true}".into());
    desk.arrives(again).await;
    let known = desk.store.group(&group).await.unwrap().unwrap();
    assert_eq!((known.seen_at, known.documents.as_str()), (Some(at(9)), "{\"later\":true}"));
    assert_eq!(desk.store.devices(&group).await.unwrap()[0].image, OLD);
}

/// A lead that has just started has not heard its members; patches are made of what they ran.
#[tokio::test]
async fn a_device_that_is_not_heard_is_known_by_what_it_ran_and_counts_for_nothing_else() {
    let desk = desk().await;
    let group = desk.enrol("bench").await;
    let images = async || {
        let now = desk.store.devices(&group).await.unwrap();
        let before = desk.store.devices_as_last_heard(&group).await.unwrap();
        (now[0].image.clone(), before[0].image.clone())
    };
    desk.arrives(arrival(&group, OLD, 3)).await;
    assert_eq!(images().await, (OLD.into(), OLD.into()));
    for second in [4, 5] {
        desk.arrives(arrival(&group, "", second)).await;
        assert_eq!(images().await, (String::new(), OLD.into()));
    }
    desk.arrives(arrival(&group, &NEW[..16], 6)).await;
    assert_eq!(images().await, (NEW[..16].into(), NEW[..16].into()));
}

/// It was killed after it took the line down and before it said so, perhaps.
#[tokio::test]
async fn a_line_that_a_lead_says_again_stands_once_and_one_of_another_boot_is_another() {
    let desk = desk().await;
    let group = desk.enrol("bench").await;
    let says = async |second: i64, boot: u32, seqs: &[u32]| {
        let mut arrival = arrival(&group, OLD, second);
        let line = |&seq: &u32| Line {
            seq,
            level: "notice".into(),
            text: format!("line {seq} of boot {boot}"),
        };
        (arrival.report.boot, arrival.lines) = (boot, seqs.iter().map(line).collect());
        desk.arrives(arrival).await;
    };
    says(3, 1, &[1, 2]).await;
    says(4, 1, &[1, 2, 3]).await;
    says(5, 2, &[1, 2]).await;
    says(6, 2, &[1, 2]).await;
    // Who does not count is believed.
    says(7, 2, &[0]).await;
    says(8, 0, &[1]).await;
    says(9, 0, &[1]).await;
    let events = desk.store.events(&group).await.unwrap();
    let said: Vec<_> = events.iter().rev().map(|it| it.said.as_str()).collect();
    let expected = [
        "line 1 of boot 1",
        "line 2 of boot 1",
        "line 3 of boot 1",
        "line 1 of boot 2",
        "line 2 of boot 2",
        "line 0 of boot 2",
        "line 1 of boot 0",
        "line 1 of boot 0",
    ];
    assert_eq!(said, expected);
}

/// Of two servers one is a day ahead.
#[tokio::test]
async fn what_happened_later_stands_behind_what_happened_before_whatever_the_clock_says() {
    let desk = desk().await;
    let group = desk.enrol("bench").await;
    for (second, text) in [(86_400, "first"), (1, "second"), (86_400, "third"), (2, "fourth")] {
        let mut arrival = arrival(&group, OLD, second);
        arrival.lines = vec![Line { seq: 0, level: "notice".into(), text: text.into() }];
        desk.arrives(arrival).await;
    }
    let events = desk.store.events(&group).await.unwrap();
    let said: Vec<_> = events.iter().rev().map(|it| it.said.as_str()).collect();
    assert_eq!(said, ["first", "second", "third", "fourth"]);
}

/// What runs while a rollout is open is on trial, and a lead that has just booted does not know its
/// members: neither is a move.
#[tokio::test]
async fn a_group_has_moved_when_its_rollout_is_over_and_only_once() {
    let desk = desk().await;
    let group = desk.enrol("bench").await;
    let says = async |second: i64, number: u32, is_open: bool| {
        let mut arrival = arrival(&group, OLD, second);
        (arrival.report.number, arrival.report.devices[0].number) = (number, number);
        let (id, kind, phase) = ("17".into(), "forward".into(), "trial".into());
        arrival.report.open = is_open.then_some(Open { id, kind, phase, number: 10_100 });
        desk.arrives(arrival).await;
    };
    says(60, 10_000, false).await;
    says(120, 10_100, true).await;
    says(180, 0, false).await;
    says(240, 10_100, false).await;
    says(300, 10_100, false).await;
    desk.store.remove_group(&group, "ada", at(360)).await.unwrap();
    let moves = desk.store.moves(at(0)).await.unwrap();
    let moves: Vec<_> = moves.iter().map(|it| (it.from, it.to, it.groups)).collect();
    let (old, new) = (Some(10_000), Some(10_100));
    assert_eq!(moves, [(None, old, 1), (old, new, 1), (new, None, 1)]);
    assert!(desk.store.settled_census().await.unwrap().is_empty());
    assert!(desk.store.moves(at(1000)).await.unwrap().is_empty());
}

#[tokio::test]
async fn groups_that_move_in_the_same_ten_seconds_are_counted_together() {
    let desk = desk().await;
    for name in ["a", "b", "c"] {
        let group = desk.enrol(name).await;
        desk.arrives(arrival(&group, OLD, 2)).await;
    }
    let moves = desk.store.moves(at(-60)).await.unwrap();
    assert_eq!((moves.len(), moves[0].groups), (1, 3));
    assert_eq!(desk.store.settled_census().await.unwrap(), [(10_000, 3)]);
}

/// A lead hears some seconds after the end when its members booted.
#[tokio::test]
async fn how_long_members_disagreed_is_taken_down_when_it_is_known_and_then_stays() {
    let desk = desk().await;
    let group = desk.enrol("bench").await;
    for (second, disagreed_s) in [(2, None), (12, Some(3)), (90, None)] {
        let mut arrival = arrival(&group, OLD, second);
        arrival.report.past = vec![Past {
            id: "17".into(),
            kind: "forward".into(),
            verdict: "keep".into(),
            cause: String::new(),
            why: String::new(),
            number: 10_100,
            number_before: 10_000,
            disagreed_s,
        }];
        desk.arrives(arrival).await;
    }
    let past = desk.store.past_rollouts(&group).await.unwrap();
    assert_eq!(past[0].disagreed_s, Some(3));
    let took = desk.store.rollouts_took(Some(10_100)).await.unwrap();
    assert_eq!((took.len(), took[0].took_ms, took[0].disagreed_s), (1, None, Some(3)));
    assert!(desk.store.rollouts_took(Some(10_200)).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_a_group_refused_has_its_code_beside_the_leads_own_words() {
    let desk = desk().await;
    let group = desk.enrol("bench").await;
    let campaign = desk.campaign(&group).await;
    let offer = desk.store.desired(&group).await.unwrap().offer.unwrap();
    let mut says_no = arrival(&group, OLD, 3);
    says_no.offer = Some(OfferAnswer {
        id: offer.id,
        state: OfferState::Refused,
        refusals: vec!["too-large".into(), "no-rollback".into()],
        text: "image for `receiver` has 9 bytes, its slot 8".into(),
    });
    desk.arrives(says_no).await;
    let participant = desk.store.participants(&campaign).await.unwrap().remove(0);
    assert_eq!((participant.standing, participant.code.as_str()), (Standing::Failed, "too-large"));
    assert_eq!(participant.cause, "image for `receiver` has 9 bytes, its slot 8");
    let known = desk.store.group(&group).await.unwrap().unwrap();
    assert_eq!(known.offer_codes, "too-large no-rollback");
    desk.store.retry_group(&campaign, &group, "ada", at(5)).await.unwrap();
    assert_eq!(desk.store.participants(&campaign).await.unwrap()[0].code, "");
}

/// A server that is brought up to date keeps what it has.
#[tokio::test]
async fn a_database_of_the_first_step_gets_the_columns_of_the_later_ones() {
    let folder = tempfile::tempdir().unwrap();
    let url = Store::url_in(folder.path());
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(&url).await.unwrap();
    connection.execute("CREATE TABLE step (number BIGINT PRIMARY KEY)").await.unwrap();
    for statement in schema::STEPS[0] {
        connection.execute(*statement).await.unwrap();
    }
    connection.execute("INSERT INTO step (number) VALUES (0)").await.unwrap();
    let sql = "INSERT INTO release (id, system, version, number, sequence, epoch, bundle_sha256, \
        bundle_bytes, manifest, signatures, places, description, uploaded_at, uploaded_by) VALUES \
        ('1', 'desk', '1.0.0', 10000, 0, 0, 'ab', 1, '{}', 2, '{}', '', '2026-01-01T00:00:00Z', \
        '')";
    connection.execute(sql).await.unwrap();
    connection.close().await.unwrap();
    let store = Store::open(&url).await.unwrap();
    let release = store.release("1").await.unwrap().unwrap();
    assert_eq!((release.signatures, release.signers.len()), (2, 0));
}
