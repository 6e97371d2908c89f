//! The console's doors: who is let in, who may do what, what a page of another site cannot do, and
//! that whatever people and devices say stays text. The router answers here without a network; what
//! a browser makes of the pages is tested with one.

mod world;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use jiff::Timestamp;
use lockstep_proto::version::ReleaseVersion;
use lockstep_server::access::{Role, hash_password};
use lockstep_server::server::Change;
use lockstep_server::store::groups::{Enrolled, Settings};
use lockstep_server::store::releases::{Release, Signer};
use lockstep_server::store::{hash_of, new_id};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use world::World;

/// What came back.
struct Answer {
    status: StatusCode,
    location: String,
    cookie: String,
    text: String,
}

impl World {
    /// With somebody of each role, all with the same password.
    async fn with_people() -> Self {
        let world = Self::new().await;
        let (store, now) = (&world.server.store, Timestamp::now());
        let hash = hash_password(PASSWORD).unwrap();
        store.add_first_person("ada", &hash, now).await.unwrap().unwrap();
        for role in [Role::Viewer, Role::Operator] {
            store.add_person(role.as_str(), role, &hash, "ada", now).await.unwrap();
        }
        world
    }

    async fn ask(&self, request: Request<Body>) -> Answer {
        let response: Response<Body> = self.router.clone().oneshot(request).await.unwrap();
        let header = |name| {
            let value = response.headers().get(name).and_then(|it| it.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (status, location) = (response.status(), header(header::LOCATION));
        let cookie = header(header::SET_COOKIE);
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        Answer { status, location, cookie, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    async fn get(&self, path: &str, cookie: &str) -> Answer {
        self.ask(request(Method::GET, path, cookie).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, cookie: &str, fields: &str) -> Answer {
        let request = request(Method::POST, path, cookie)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.ask(request.body(Body::from(fields.to_owned())).unwrap()).await
    }

    /// The cookie of somebody who has signed in, and the token of its forms.
    async fn sign_in(&self, name: &str) -> (String, String) {
        let fields = format!("name={name}&password={}", PASSWORD.replace(' ', "+"));
        let answer = self.post("/login", "", &fields).await;
        assert_eq!((answer.status, answer.location.as_str()), (StatusCode::SEE_OTHER, "/"));
        let cookie = answer.cookie.split(';').next().unwrap().to_owned();
        let page = self.get("/", &cookie).await.text;
        let (_, form) = page.split_once("/logout?form=").unwrap();
        let form = form.split('"').next().unwrap().to_owned();
        (cookie, form)
    }

    /// A group of this name; its identity.
    async fn group(&self, name: &str) -> String {
        let (store, now) = (&self.server.store, Timestamp::now());
        let settings = Settings { name: name.to_owned(), ..Settings::default() };
        let later = now + jiff::SignedDuration::from_hours(1);
        let token = store.make_enrolment(&settings, None, "ada", now, later).await.unwrap();
        match store.enrol(&token, "02:00:00:00:00:01", now).await.unwrap() {
            Enrolled::Welcome { group, .. } => group,
            other => panic!("{other:?}"),
        }
    }

    /// A release with this description.
    async fn release(&self, description: &str) -> String {
        let release = Release {
            id: "0123456789abcdef0123".to_owned(),
            system: "desk".to_owned(),
            version: "1.1.0".to_owned(),
            number: 10_100,
            sequence: 1,
            epoch: 0,
            bundle_sha256: "ab".repeat(32),
            bundle_bytes: 1000,
            manifest: format!(
                r#"{{"release_date":"{EVIL}","devices":{{"{EVIL}":{{"version":"{EVIL}"}}}}}}"#
            ),
            signatures: 1,
            signers: Vec::new(),
            places: "{}".to_owned(),
            description: description.to_owned(),
            uploaded_at: Timestamp::now(),
            uploaded_by: EVIL.to_owned(),
            withdrawn_at: None,
        };
        self.server.store.add_release(&release).await.unwrap()
    }
}

impl World {
    /// A pair on 1.0.0 whose lead says what `edit` makes of its words; group and credential.
    async fn pair(&self, name: &str, edit: impl FnOnce(&mut Value)) -> Pair {
        let (store, now) = (&self.server.store, Timestamp::now());
        let settings = Settings { name: name.to_owned(), ..Settings::default() };
        let later = now + jiff::SignedDuration::from_hours(1);
        let token = store.make_enrolment(&settings, None, "ada", now, later).await.unwrap();
        let Enrolled::Welcome { group, credential } = store.enrol(&token, LEAD, now).await.unwrap()
        else {
            panic!("not let in");
        };
        let pair = Pair { group, credential };
        self.says(&pair, edit).await;
        pair
    }

    /// What its lead is told.
    async fn says(&self, pair: &Pair, edit: impl FnOnce(&mut Value)) -> Value {
        let mut body = check_in();
        edit(&mut body);
        let request = request(Method::POST, "/api/lead/check-in", "")
            .header(header::AUTHORIZATION, format!("Bearer {}", pair.credential))
            .header(header::CONTENT_TYPE, "application/json");
        let answer = self.ask(request.body(Body::from(body.to_string())).unwrap()).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        serde_json::from_str(&answer.text).unwrap()
    }

    /// A release for the pair, by these keys; its identity.
    async fn pair_release(&self, version: &str, signers: Vec<Signer>) -> String {
        let number = version.parse::<ReleaseVersion>().unwrap().number();
        let entry = json!({
            "version": version, "version_number": number, "device_type": "ESP32-S3",
            "hardware": "desk", "firmware_url": "receiver.bin", "firmware_size": 1000,
            "md5_checksum": "", "protocol_version": 1, "protocol_range": [1, 1],
            "sha256": "77".repeat(32), "image_sha256": "5f".repeat(32), "chip": "ESP32-S3",
        });
        let manifest = json!({
            "schema": 1, "system": "desk", "system_version": version, "release_date": "",
            "min_compatible_version": "0.0.0", "description": "",
            "devices": { "receiver": entry, "transmitter": entry },
        });
        let release = Release {
            id: new_id().unwrap(),
            system: "desk".to_owned(),
            version: version.to_owned(),
            number,
            sequence: 0,
            epoch: 0,
            bundle_sha256: hash_of(version),
            bundle_bytes: 1000,
            manifest: manifest.to_string(),
            signatures: u32::try_from(signers.len()).unwrap(),
            signers,
            places: json!({ "receiver": {
                "first": 512, "size_bytes": 1000, "flash": "", "bases": ["", "5e".repeat(32)],
            } })
            .to_string(),
            description: String::new(),
            uploaded_at: Timestamp::now(),
            uploaded_by: "ada".to_owned(),
            withdrawn_at: None,
        };
        self.server.store.add_release(&release).await.unwrap()
    }
}

/// A group, and its lead's credential.
struct Pair {
    group: String,
    credential: String,
}

/// What the lead of a pair says that trusts one key.
fn check_in() -> Value {
    json!({ "id": LEAD, "documents": {
        "version": {
            "id": LEAD, "role": "receiver", "product": "desk", "version_number": 10_000,
            "image": "a4".repeat(32), "hardware": "LilyGo T-Display-S3", "chip": "ESP32-S3",
            "board": "t-display-s3", "protocol_range": [1, 1], "slot": 1, "slot_bytes": 1_966_080,
            "ota_state": "valid", "rollback": "bootloader", "keys": 1, "trusts_anybody": false,
            "uptime_seconds": 7200, "free_heap": 150_000, "boot_number": 9,
            "reset_reason": "brownout",
            "peers": [{
                "id": MEMBER, "role": "transmitter", "version_number": 10_000,
                "image": "10cc574e60e520ad", "compatible": true, "linked": true,
                "protocol_range": [1, 1], "min_compatible": 900,
            }],
        },
        "group": { "members": [
            { "id": LEAD, "role": "receiver", "lead": true, "linked": true, "heard_ms_ago": 0 },
            { "id": MEMBER, "role": "transmitter", "lead": false, "linked": true,
              "heard_ms_ago": 142 },
        ] },
        "health": { "errors": [], "checks": [
            { "name": "link", "required": true, "ok": true, "detail": "0 % of frames are lost" },
        ] },
        "rollout": { "rollout": null },
        "history": { "history": [] },
    }, "lines": [
        { "level": "notice", "text": "booted" },
        { "level": "notice", "text": "`transmitter` has staged" },
    ] })
}

const LEAD: &str = "02:00:00:00:00:01";
const MEMBER: &str = "02:00:00:00:00:02";

fn request(method: Method, path: &str, cookie: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header(header::COOKIE, cookie)
}

const PASSWORD: &str = "correct horse";
const EVIL: &str = "<script>alert(1)</script>";
const PAGES: [&str; 7] =
    ["/", "/groups", "/releases", "/campaigns", "/campaigns/new", "/settings", "/audit"];

#[tokio::test]
async fn before_anybody_is_let_in_the_first_page_says_where_to_begin() {
    let world = World::new().await;
    let answer = world.get("/", "").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.text.contains("Open the link that the server printed"));
    assert_eq!(world.get("/login", "").await.location, "/");
}

#[tokio::test]
async fn the_printed_link_makes_the_first_admin_once_and_signs_it_in() {
    let world = World::new().await;
    let word = world.server.setup_word.clone().unwrap();
    let page = world.get(&format!("/setup?word={word}"), "").await;
    assert!(page.text.contains(&word));
    let wrong = world.post("/setup", "", "word=x&name=eve&password=correct+horse").await;
    assert_eq!(wrong.status, StatusCode::FORBIDDEN);
    let weak = world.post("/setup", "", &format!("word={word}&name=ada&password=short")).await;
    assert_eq!(weak.status, StatusCode::BAD_REQUEST);
    assert!(weak.text.contains("The password has 5 characters"), "{}", weak.text);
    let fields = format!("word={word}&name=ada&password=correct+horse");
    let answer = world.post("/setup", "", &fields).await;
    assert_eq!((answer.status, answer.location.as_str()), (StatusCode::SEE_OTHER, "/"));
    assert!(answer.cookie.contains("HttpOnly; SameSite=Lax"), "{}", answer.cookie);
    assert_eq!(world.post("/setup", "", &fields).await.status, StatusCode::CONFLICT);
    assert_eq!(world.get("/setup?word=x", "").await.location, "/login");
}

#[tokio::test]
async fn without_a_session_every_page_leads_to_the_sign_in_and_back() {
    let world = World::with_people().await;
    for page in PAGES {
        let answer = world.get(page, "").await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{page}");
        assert!(answer.location.starts_with("/login"), "{page}: {}", answer.location);
    }
    let answer = world.get("/groups?name=a&labels=b", "").await;
    assert_eq!(answer.location, "/login?to=%2Fgroups%3Fname%3Da%26labels%3Db");
    for (to, expected) in [
        ("/groups?name=a", "/groups?name=a"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
    ] {
        let fields = format!("name=ada&password=correct+horse&to={}", to.replace('&', "%26"));
        assert_eq!(world.post("/login", "", &fields).await.location, expected);
    }
    let wrong = world.post("/login", "", "name=ada&password=wrong").await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert!(wrong.cookie.is_empty() && wrong.text.contains("Name or password is wrong"));
}

#[tokio::test]
async fn a_form_of_another_site_changes_nothing() {
    let world = World::with_people().await;
    let (cookie, form) = world.sign_in("ada").await;
    let group = world.group("bench 1").await;
    let fields = "name=taken+over";
    for path in [
        format!("/groups/{group}/settings"),
        format!("/groups/{group}/settings?form="),
        format!("/groups/{group}/settings?form=0123"),
    ] {
        assert_eq!(world.post(&path, &cookie, fields).await.status, StatusCode::FORBIDDEN);
    }
    let group_now = world.server.store.group(&group).await.unwrap().unwrap();
    assert_eq!(group_now.name, "bench 1");
    let own = format!("/groups/{group}/settings?form={form}");
    let answer = world.post(&own, &cookie, "name=bench+2").await;
    assert_eq!(answer.location, format!("/groups/{group}"), "{}", answer.text);
    // A browser says so when a form that signs somebody in comes from elsewhere.
    let request = request(Method::POST, "/login", "")
        .header("sec-fetch-site", "cross-site")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let body = Body::from("name=ada&password=correct+horse");
    let answer = world.ask(request.body(body).unwrap()).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.cookie.is_empty());
}

#[tokio::test]
async fn a_viewer_sees_no_button_and_is_refused_what_has_none() {
    let world = World::with_people().await;
    let group = world.group("bench 1").await;
    let release = world.release("").await;
    let (cookie, form) = world.sign_in("viewer").await;
    let group_page = format!("/groups/{group}");
    let release_page = format!("/releases/{release}");
    for page in ["/", "/groups", "/releases", "/campaigns", "/audit", &group_page, &release_page] {
        let answer = world.get(page, &cookie).await;
        assert_eq!(answer.status, StatusCode::OK, "{page}");
        let forms = answer.text.matches("method=\"post\"").count();
        assert_eq!(forms, 1, "{page} has more than the one to sign out");
        assert!(!answer.text.contains("data-upload"), "{page}");
        assert!(!answer.text.contains("/campaigns/new"), "{page}");
    }
    for page in ["/settings", "/campaigns/new"] {
        assert_eq!(world.get(page, &cookie).await.status, StatusCode::FORBIDDEN, "{page}");
    }
    for path in [
        format!("{group_page}/abort"),
        format!("{group_page}/revert"),
        format!("{group_page}/remove"),
        format!("{group_page}/replace-lead"),
        format!("{release_page}/withdraw"),
        "/releases/upload".to_owned(),
        "/settings/tokens".to_owned(),
        "/campaigns/x/pause".to_owned(),
    ] {
        let answer = world.post(&format!("{path}?form={form}"), &cookie, "").await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
    }
}

#[tokio::test]
async fn an_operator_moves_groups_and_lets_nobody_in() {
    let world = World::with_people().await;
    let group = world.group("bench 1").await;
    let (cookie, form) = world.sign_in("operator").await;
    let post = async |path: String| world.post(&path, &cookie, "").await.status;
    assert_eq!(post(format!("/groups/{group}/abort?form={form}")).await, StatusCode::SEE_OTHER);
    assert_eq!(post(format!("/groups/{group}/remove?form={form}")).await, StatusCode::FORBIDDEN);
    assert_eq!(world.get("/settings", &cookie).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn what_people_and_devices_say_stays_text() {
    let world = World::with_people().await;
    let group = world.group(EVIL).await;
    let release = world.release(EVIL).await;
    let (cookie, form) = world.sign_in("ada").await;
    let fields = format!("release={release}&name=%3Cscript%3Ealert(1)%3C/script%3E&waves=100");
    let made = world.post(&format!("/campaigns/new?form={form}"), &cookie, &fields).await;
    assert!(made.location.starts_with("/campaigns/"), "{}", made.text);
    let pages = [
        "/".to_owned(),
        "/groups".to_owned(),
        "/groups?name=%22%3E%3Cscript%3Ealert(1)%3C/script%3E".to_owned(),
        "/groups?labels=%3Cscript%3Ealert(1)%3C/script%3E".to_owned(),
        format!("/groups/{group}"),
        "/groups/%3Cscript%3Ealert(1)%3C%2Fscript%3E".to_owned(),
        "/releases".to_owned(),
        format!("/releases/{release}"),
        "/campaigns".to_owned(),
        made.location,
        "/audit".to_owned(),
        "/login?to=/%22%3E%3Cscript%3Ealert(1)%3C/script%3E".to_owned(),
    ];
    let mut escaped = 0;
    for page in pages {
        let text = world.get(&page, &cookie).await.text;
        assert!(!text.contains("<script>alert"), "{page}: {text}");
        escaped += usize::from(text.contains("alert(1)"));
    }
    assert!(escaped >= 10, "only {escaped} pages show it at all");
}

#[tokio::test]
async fn every_answer_of_the_console_says_what_a_browser_may() {
    let world = World::with_people().await;
    for page in ["/", "/login", "/groups/none", "/console/app.js", "/console/app.css"] {
        let request = request(Method::GET, page, "").body(Body::empty()).unwrap();
        let response = world.router.clone().oneshot(request).await.unwrap();
        let header = |name: &str| response.headers().get(name).and_then(|it| it.to_str().ok());
        let policy = header("content-security-policy").unwrap_or_default();
        assert!(policy.contains("default-src 'none'"), "{page}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{page}: {policy}");
        assert!(!policy.contains("unsafe"), "{page}: {policy}");
        assert_eq!(header("x-content-type-options"), Some("nosniff"), "{page}");
        assert_eq!(header("referrer-policy"), Some("no-referrer"), "{page}");
    }
}

#[tokio::test]
async fn the_exported_audit_has_no_formula() {
    let world = World::with_people().await;
    world.group("=HYPERLINK(\"http://evil.example\")").await;
    let (cookie, _) = world.sign_in("viewer").await;
    let text = world.get("/audit.csv", &cookie).await.text;
    assert!(text.starts_with("at,who,did,about,detail\r\n"));
    assert!(text.contains(r#","'=HYPERLINK(""http://evil.example"")""#), "{text}");
    assert!(!text.contains(",\"="), "{text}");
    // More than one page of the tables.
    for _ in 0..250 {
        world.server.store.note(Timestamp::now(), "ada", "x.y", "z", "").await.unwrap();
    }
    let text = world.get("/audit.csv", &cookie).await.text;
    assert_eq!(text.matches("\"x.y\"").count(), 250);
}

/// Else a server would wait at its end for every open page.
#[tokio::test]
async fn events_name_what_changed_and_end_with_the_server() {
    let world = World::with_people().await;
    assert_eq!(world.get("/console/events", "").await.status, StatusCode::SEE_OTHER);
    let (cookie, _) = world.sign_in("viewer").await;
    let request = request(Method::GET, "/console/events", &cookie).body(Body::empty()).unwrap();
    let response = world.router.clone().oneshot(request).await.unwrap();
    world.server.changed(Change::Group("7".to_owned()));
    world.server.changed(Change::Releases);
    world.server.changed(Change::Ends);
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    assert_eq!(bytes, "data: group:7\n\ndata: releases\n\n");
}

/// A page that fell too far behind looks at everything.
#[tokio::test]
async fn who_missed_changes_is_told_that_everything_changed() {
    let world = World::with_people().await;
    let (cookie, _) = world.sign_in("viewer").await;
    let request = request(Method::GET, "/console/events", &cookie).body(Body::empty()).unwrap();
    let response = world.router.clone().oneshot(request).await.unwrap();
    for _ in 0..5000 {
        world.server.changed(Change::Releases);
    }
    world.server.changed(Change::Ends);
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    assert!(bytes.starts_with(b"data: all\n\n"));
}

#[tokio::test]
async fn who_signs_out_is_out() {
    let world = World::with_people().await;
    let (cookie, form) = world.sign_in("ada").await;
    let answer = world.post(&format!("/logout?form={form}"), &cookie, "").await;
    assert!(answer.cookie.contains("Max-Age=0"));
    assert_eq!(world.get("/groups", &cookie).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_secret_is_shown_once_and_lets_a_lead_in() {
    let world = World::with_people().await;
    let (cookie, form) = world.sign_in("ada").await;
    let path = format!("/settings/enrolments?form={form}");
    let answer = world.post(&path, &cookie, "name=bench+1&labels=site%3Ddesk").await;
    let (_, secret) = answer.text.split_once("id=\"secret\">").unwrap();
    let secret = secret.split('<').next().unwrap();
    let settings = world.get("/settings", &cookie).await.text;
    assert!(settings.contains("bench 1") && !settings.contains(secret));
    let now = Timestamp::now();
    let enrolled = world.server.store.enrol(secret, "02:00:00:00:00:01", now).await.unwrap();
    assert!(matches!(enrolled, Enrolled::Welcome { .. }));
}

#[tokio::test]
async fn what_is_wrong_with_a_campaign_is_said_beside_what_was_given() {
    let world = World::with_people().await;
    world.group("bench 1").await;
    let release = world.release("").await;
    let (cookie, form) = world.sign_in("operator").await;
    let path = format!("/campaigns/new?form={form}");
    let fields = format!("release={release}&waves=10,20&soak_min=7&name=spring");
    let answer = world.post(&path, &cookie, &fields).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text.contains("The waves are 30 percent together, expected 100"));
    assert!(answer.text.contains("value=\"spring\"") && answer.text.contains("value=\"7\""));
}

#[tokio::test]
async fn a_page_that_is_not_there_is_a_page_for_people_and_json_for_programs() {
    let world = World::with_people().await;
    let ask = async |path: &str, accept: &str| {
        let request = request(Method::GET, path, "").header(header::ACCEPT, accept);
        world.ask(request.body(Body::empty()).unwrap()).await.text
    };
    assert!(ask("/nothing", "text/html,*/*").await.contains("<h1>This did not work</h1>"));
    assert!(ask("/nothing", "*/*").await.starts_with("{\"error\""));
    assert!(ask("/api/nothing", "text/html").await.starts_with("{\"error\""));
}

#[tokio::test]
async fn a_device_has_a_page_of_what_a_lead_says_of_itself_and_of_what_it_has_heard() {
    let world = World::with_people().await;
    let pair = world.pair("bench 1", |_| ()).await;
    world.pair_release("1.1.0", vec![signer("C2", true)]).await;
    let (cookie, _) = world.sign_in("viewer").await;
    let page = async |device: &str| {
        world.get(&format!("/groups/{}/devices/{device}", pair.group), &cookie).await
    };
    let group = world.get(&format!("/groups/{}", pair.group), &cookie).await.text;
    for device in [LEAD, MEMBER] {
        assert!(group.contains(&format!("/devices/{device}\"")), "{group}");
    }
    let lead = page(LEAD).await.text;
    for said in [
        "Receiver <small>02:00:00:00:00:01",
        "<code>ota_1</code>, valid",
        "the bootloader: any reset on trial goes back",
        "2 h ago</time>, brownout, boot 9",
        "147 KiB",
        "0 % of frames are lost",
        "booted",
    ] {
        assert!(lead.contains(said), "{said} in\n{lead}");
    }
    let member = page(MEMBER).await.text;
    for said in [
        "Only leads speak to this server",
        "releases from 0.9.0 on",
        "its image came by no release of this server",
        "`transmitter` has staged",
        "<code class=\"code\">unknown-image</code>",
    ] {
        assert!(member.contains(said), "{said} in\n{member}");
    }
    assert!(!member.contains("booted</p>") && !member.contains("brownout"), "{member}");
    let nobody = page("02:00:00:00:00:09").await;
    assert_eq!(nobody.status, StatusCode::NOT_FOUND);
    let evil = world
        .pair("evil", |it| {
            it["documents"]["version"]["reset_reason"] = EVIL.into();
            it["documents"]["version"]["rollback"] = EVIL.into();
            it["documents"]["version"]["peers"][0]["why"] = EVIL.into();
            it["documents"]["version"]["peers"][0]["compatible"] = false.into();
        })
        .await;
    for device in [LEAD, MEMBER] {
        let path = format!("/groups/{}/devices/{device}", evil.group);
        let text = world.get(&path, &cookie).await.text;
        assert!(text.contains("alert(1)") && !text.contains("<script>alert"), "{text}");
    }
}

fn signer(key: &str, is_verified: bool) -> Signer {
    Signer { key: key.to_owned(), is_verified, comment: format!("{EVIL} by {key}") }
}

#[tokio::test]
async fn what_a_group_would_refuse_is_said_before_the_button_and_on_the_releases_page() {
    let world = World::with_people().await;
    let pair = world.pair("bench 1", |_| ()).await;
    let release = world.pair_release("1.1.0", Vec::new()).await;
    let (cookie, form) = world.sign_in("operator").await;
    let group_page = format!("/groups/{}", pair.group);
    let group = world.get(&group_page, &cookie).await.text;
    assert!(group.contains("desk 1.1.0 (would be refused)"), "{group}");
    assert!(group.contains("The group would refuse 1.1.0"), "{group}");
    let page = world.get(&format!("/releases/{release}"), &cookie).await.text;
    for text in [&group, &page] {
        assert!(text.contains("Takes signed releases alone, and this one is not signed."));
        assert!(text.contains("Sign it, and upload it again: <code>lockstep release create"));
        assert!(text.contains("<code class=\"code\">unsigned</code>"));
    }
    assert!(page.contains("1 group: bench 1"), "{page}");
    let update = format!("{group_page}/update?form={form}");
    let refused = world.post(&update, &cookie, &format!("release={release}")).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    let fields = format!("release={release}&despite_findings=yes");
    assert_eq!(world.post(&update, &cookie, &fields).await.location, group_page);
}

#[tokio::test]
async fn what_is_foreseen_of_a_campaign_stands_in_its_form_and_follows_what_is_chosen() {
    let world = World::with_people().await;
    world.pair("bench 1", |_| ()).await;
    let (cookie, _) = world.sign_in("operator").await;
    let look = async |query: &str| {
        let text = world.get(&format!("/campaigns/new?{query}"), &cookie).await.text;
        let found = text.split_once("<div id=\"found\"").map(|(_, rest)| rest.to_owned());
        found.map(|rest| rest.split_once("</div>\n<noscript>").unwrap().0.to_owned())
    };
    assert_eq!(look("").await, None, "there is no release");
    let signed = world.pair_release("1.1.0", vec![signer("C2", true)]).await;
    let unsigned = world.pair_release("1.2.0", Vec::new()).await;
    // Nobody chose: a browser shows the first one.
    for query in [String::new(), format!("release={unsigned}")] {
        let found = look(&query).await.unwrap();
        assert!(found.contains("Some groups would refuse 1.2.0"), "{found}");
        assert!(found.contains("Takes signed releases alone"), "{found}");
        assert!(found.contains("1 group: bench 1"), "{found}");
        assert!(found.contains("name=\"despite_findings\""), "{found}");
    }
    let found = look(&format!("release={signed}")).await.unwrap();
    assert!(found.contains("Before you bring 1.1.0") && !found.contains("refuse"), "{found}");
    assert!(!found.contains("despite_findings"), "{found}");
    let found = look(&format!("release={unsigned}&labels=site%3Dnowhere")).await.unwrap();
    assert!(found.contains("There is nobody to bring 1.2.0 to"), "{found}");
    assert!(!found.contains("despite_findings"), "{found}");
    // What cannot be read is said beside the field.
    let found = look(&format!("release={unsigned}&labels=site")).await.unwrap();
    assert!(!found.contains("1.2.0"), "{found}");
}

#[tokio::test]
async fn what_a_group_of_another_product_would_refuse_stops_no_campaign() {
    let world = World::with_people().await;
    let product = |it: &mut Value| it["documents"]["version"]["product"] = "lamp".into();
    world.pair("lamp 1", product).await;
    let anybody = |it: &mut Value| it["documents"]["version"]["trusts_anybody"] = true.into();
    world.pair("bench 1", anybody).await;
    let release = world.pair_release("1.2.0", Vec::new()).await;
    let (cookie, form) = world.sign_in("operator").await;
    let text = world.get(&format!("/campaigns/new?release={release}"), &cookie).await.text;
    assert!(!text.contains("would refuse"), "{text}");
    let fields = format!("release={release}&waves=100");
    let made = world.post(&format!("/campaigns/new?form={form}"), &cookie, &fields).await;
    assert_eq!(made.status, StatusCode::SEE_OTHER, "{}", made.text);
}

#[tokio::test]
async fn a_release_that_fits_is_said_to_fit_all_that_do_not_run_it() {
    let world = World::with_people().await;
    let release = world.pair_release("1.1.0", vec![signer("C2", true)]).await;
    let path = format!("/releases/{release}");
    let (cookie, _) = world.sign_in("viewer").await;
    assert!(world.get(&path, &cookie).await.text.contains("There is no group for it yet."));
    let pair = world.pair("bench 1", |_| ()).await;
    world.pair_release("1.0.0", vec![signer("C2", true)]).await;
    let runs = |it: &mut Value, number: u32, image: &str| {
        it["documents"]["version"]["version_number"] = number.into();
        it["documents"]["version"]["image"] = image.into();
        it["documents"]["version"]["peers"][0]["version_number"] = number.into();
        it["documents"]["version"]["peers"][0]["image"] = image[..16].into();
    };
    world.says(&pair, |it| runs(it, 10_000, &"5f".repeat(32))).await;
    let text = world.get(&path, &cookie).await.text;
    assert!(text.contains("Nothing found") && text.contains("1 group would take it"), "{text}");
    world.says(&pair, |it| runs(it, 10_100, &"5f".repeat(32))).await;
    let text = world.get(&path, &cookie).await.text;
    assert!(text.contains("Every group that it is for runs it."), "{text}");
}

#[tokio::test]
async fn a_release_says_in_which_forms_its_images_come_and_where_a_browser_gets_them() {
    let world = World::with_people().await;
    let release = world.pair_release("1.1.0", Vec::new()).await;
    let (cookie, form) = world.sign_in("operator").await;
    let path = format!("/releases/{release}");
    let text = world.get(&path, &cookie).await.text;
    assert_eq!(text.matches("also compressed, and as 1 patch<").count(), 1, "{text}");
    let manifest = "href=\"/firmware/receiver/1.1.0/esp-web-tools.json\"";
    assert!(text.contains(manifest), "{text}");
    let withdrawn = world.post(&format!("{path}/withdraw?form={form}"), &cookie, "").await;
    assert_eq!(withdrawn.status, StatusCode::SEE_OTHER, "{}", withdrawn.text);
    assert!(!world.get(&path, &cookie).await.text.contains(manifest));
}

#[tokio::test]
async fn a_release_says_who_signed_it_on_its_page_and_to_programs() {
    let world = World::with_people().await;
    let both = vec![signer("C23055B9E4DE80E8", true), signer("0123456789ABCDEF", false)];
    let signed = world.pair_release("1.1.0", both).await;
    let unsigned = world.pair_release("1.2.0", Vec::new()).await;
    let (cookie, _) = world.sign_in("viewer").await;
    let page = world.get(&format!("/releases/{signed}"), &cookie).await.text;
    assert!(page.contains("<code>C23055B9E4DE80E8</code> <span class=\"pill good\">verified"));
    assert!(page.contains("<code>0123456789ABCDEF</code> <span class=\"pill\">not verified here"));
    assert!(page.contains("by C23055B9E4DE80E8") && !page.contains("<script>alert"), "{page}");
    let page = world.get(&format!("/releases/{unsigned}"), &cookie).await.text;
    assert!(page.contains("Nobody has signed it"), "{page}");
    let answer = world.get(&format!("/api/releases/{signed}"), &cookie).await.text;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let first = &answer["release"]["signers"][0];
    assert_eq!(first["key"], "C23055B9E4DE80E8");
    assert_eq!(
        (&first["verified"], &answer["release"]["signers"][1]["verified"]),
        (&Value::Bool(true), &Value::Bool(false))
    );
}

#[tokio::test]
async fn a_failure_is_told_in_words_wherever_it_stands() {
    let world = World::with_people().await;
    let pair = world.pair("bench 1", |_| ()).await;
    let release = world.pair_release("1.1.0", vec![signer("C2", true)]).await;
    let (cookie, form) = world.sign_in("operator").await;
    let fields = format!("release={release}&waves=100&failures_max=0");
    let made = world.post(&format!("/campaigns/new?form={form}"), &cookie, &fields).await;
    let over = |verdict: &str, id: &str| {
        json!({ "rollout": id, "kind": "forward", "verdict": verdict, "release": "1.1.0",
            "release_before": "1.0.0", "disagreed_s": 3, "cause": { "code": "not-healthy",
            "member": MEMBER, "text": format!("{MEMBER} did not get healthy in time") } })
    };
    world
        .says(&pair, |it| it["documents"]["history"]["history"] = json!([over("revert", "17")]))
        .await;
    let group = format!("/groups/{}", pair.group);
    for page in ["/", &made.location, &group, &format!("{group}/devices/{MEMBER}")] {
        let text = world.get(page, &cookie).await.text;
        assert!(text.contains("did not get healthy in time."), "{page}: {text}");
        assert!(text.contains("The log of that device says which check failed."), "{page}");
        assert!(text.contains("<code class=\"code\">not-healthy</code>"), "{page}");
    }
    let text = world.get(&group, &cookie).await.text;
    assert!(text.contains(&format!("The transmitter {MEMBER} did not get healthy")), "{text}");
    assert!(text.contains("members differed for 3 s"), "{text}");
}

#[tokio::test]
async fn the_overview_draws_what_was_taken_down_and_says_so_where_there_is_nothing() {
    let world = World::with_people().await;
    let (cookie, _) = world.sign_in("viewer").await;
    let text = world.get("/", &cookie).await.text;
    assert!(text.contains("Nothing to draw yet") && text.contains("No rollout has ended yet"));
    let pair = world.pair("bench 1", |_| ()).await;
    let rollout = json!({ "id": "17", "kind": "forward", "phase": "trial", "release": "1.1.0" });
    world.says(&pair, |it| it["documents"]["rollout"]["rollout"] = rollout).await;
    let over = json!({ "rollout": "17", "kind": "forward", "verdict": "keep", "release": "1.1.0",
        "release_before": "1.0.0", "disagreed_s": 2 });
    world.says(&pair, |it| it["documents"]["history"]["history"] = json!([over])).await;
    let text = world.get("/", &cookie).await.text;
    assert!(text.contains("<title>Groups by release over time</title>"), "{text}");
    assert!(text.contains("<desc>Now 1.0.0: 1."), "{text}");
    assert!(text.contains("Rollouts of 1.1.0: half within "), "{text}");
    assert!(text.contains("Disagreement of 1.1.0: half within 2 s"), "{text}");
}

/// Whoever has no script fills the field in in UTC; the script says which moment is meant.
#[tokio::test]
async fn a_campaign_begins_at_the_moment_that_was_meant() {
    let world = World::with_people().await;
    world.pair("bench 1", |_| ()).await;
    let release = world.pair_release("1.1.0", vec![signer("C2", true)]).await;
    let (cookie, form) = world.sign_in("operator").await;
    let fields = format!(
        "release={release}&waves=100&not_before=2126-05-01T22:00\
         &not_before_at=2126-05-01T20:00:00.000Z"
    );
    let made = world.post(&format!("/campaigns/new?form={form}"), &cookie, &fields).await;
    let text = world.get(&made.location, &cookie).await.text;
    assert!(text.contains("datetime=\"2126-05-01T20:00:00Z\""), "{text}");
    assert!(text.contains(">2126-05-01 20:00 UTC</time>"), "{text}");
}
