//! The console's doors: who is let in, who may do what, what a page of another site cannot do, and
//! that whatever people and devices say stays text. The router answers here without a network; what
//! a browser makes of the pages is tested with one.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use jiff::Timestamp;
use lockstep_server::access::{Role, hash_password};
use lockstep_server::http::router;
use lockstep_server::run::{ServeOptions, open};
use lockstep_server::server::{Change, Server};
use lockstep_server::store::groups::{Enrolled, Settings};
use lockstep_server::store::releases::Release;
use tempfile::TempDir;
use tower::ServiceExt as _;

/// A server without a network.
struct World {
    router: Router,
    server: Arc<Server>,
    _folder: TempDir,
}

/// What came back.
struct Answer {
    status: StatusCode,
    location: String,
    cookie: String,
    text: String,
}

impl World {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let options = ServeOptions::in_folder(folder.path().to_owned());
        let server = open(&options).await.unwrap().server;
        Self { router: router(Arc::clone(&server)), server, _folder: folder }
    }

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
            places: "{}".to_owned(),
            description: description.to_owned(),
            uploaded_at: Timestamp::now(),
            uploaded_by: EVIL.to_owned(),
            withdrawn_at: None,
        };
        self.server.store.add_release(&release).await.unwrap()
    }
}

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
