//! The API as strangers, guessers and careless programs find it.

mod desk;

use desk::Server;
use serde_json::{Value, json};

struct Scene {
    server: Server,
    token: String,
    _folder: tempfile::TempDir,
}

/// A server with its first admin.
async fn scene() -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let server = desk::serve(folder.path(), None).await;
    let word = server.setup_word.clone().unwrap();
    let setup = json!({ "word": word, "name": "ada", "password": "correct horse" });
    server.post("/api/setup", "", &setup).await;
    let login = json!({ "name": "ada", "password": "correct horse" });
    let token = server.post("/api/login", "", &login).await["token"].as_str().unwrap().to_owned();
    Scene { server, token, _folder: folder }
}

impl Scene {
    async fn ask(&self, method: &str, path: &str, secret: &str, body: &str) -> (u16, Value) {
        let headers = match secret {
            "" => String::new(),
            secret => format!("Authorization: Bearer {secret}\r\n"),
        };
        self.server.ask(method, path, &headers, body.as_bytes()).await
    }

    /// The status and the word for programs of a refusal.
    async fn refused(&self, method: &str, path: &str, secret: &str, body: &str) -> (u16, String) {
        let (status, answer) = self.ask(method, path, secret, body).await;
        let error = &answer["error"];
        let has_all = ["message", "hint"].iter().all(|name| error[name].is_string());
        assert!(has_all, "{method} {path}: {status} {answer}");
        (status, error["code"].as_str().unwrap().to_owned())
    }

    /// A lead's credential.
    async fn lead(&self) -> String {
        let made = self.ask("POST", "/api/enrolments", &self.token, r#"{"name":"bench"}"#).await;
        let token = made.1["token"].as_str().unwrap();
        let body = format!(r#"{{"token":"{token}","id":"02:00:00:00:00:01"}}"#);
        let welcome = self.ask("POST", "/api/lead/enroll", "", &body).await;
        welcome.1["credential"].as_str().unwrap().to_owned()
    }
}

fn code(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn whatever_cannot_be_read_is_answered_in_one_form_with_a_way_out() {
    let scene = scene().await;
    let token = scene.token.as_str();
    let too_long = format!("{{\"name\":\"{}\"}}", "x".repeat(300_000));
    for (method, path, body, expected) in [
        ("GET", "/nothing", "", code(404, "not-found")),
        ("PUT", "/api/releases", "", code(405, "method-not-allowed")),
        ("POST", "/api/enrolments", "{", code(400, "bad-request")),
        ("POST", "/api/enrolments", r#"{"nmae":"x"}"#, code(400, "bad-request")),
        ("POST", "/api/enrolments", &too_long, code(413, "too-large")),
        ("POST", "/api/enrolments", r#"{"name":" x"}"#, code(400, "bad-request")),
        ("POST", "/api/campaigns", r#"{"release":"9.9.9"}"#, code(404, "not-found")),
        ("POST", "/api/campaigns/none/pause", "", code(404, "not-found")),
        ("POST", "/api/campaigns/none/waves/x/approve", "", code(404, "not-found")),
        ("GET", "/api/groups?labels=a", "", code(400, "bad-request")),
        ("GET", "/api/groups?attention=perhaps", "", code(400, "bad-request")),
        ("GET", "/api/groups?nmae=x", "", code(400, "bad-request")),
        ("GET", "/api/groups?name=a%00", "", code(400, "bad-request")),
        ("GET", "/api/groups/none", "", code(404, "not-found")),
        ("GET", "/api/groups/a%00", "", code(404, "not-found")),
        ("POST", "/api/campaigns", r#"{"release":"a\u0000"}"#, code(400, "bad-request")),
        ("POST", "/api/enrolments", r#"{"name":"x","expires_in_s":1}"#, code(400, "bad-request")),
        ("POST", "/api/enrolments", "{}", code(422, "no-name")),
        ("POST", "/api/campaigns/none/groups/none/retry", "", code(404, "not-found")),
        ("DELETE", "/api/people/none", "", code(404, "not-found")),
        ("POST", "/api/releases", "no bundle", code(422, "bad-bundle")),
        ("GET", "/manifest", "", code(404, "not-found")),
    ] {
        let found = scene.refused(method, path, token, body).await;
        assert_eq!(found, expected, "{method} {path} {}", body.get(..40).unwrap_or(body));
    }
}

#[tokio::test]
async fn nobody_is_let_in_without_a_secret_and_each_only_where_it_belongs() {
    let scene = scene().await;
    let new = r#"{"name":"screen","role":"viewer"}"#;
    let made = scene.ask("POST", "/api/tokens", &scene.token, new).await;
    let viewer = made.1["token"].as_str().unwrap();
    let lead = scene.lead().await;
    for (method, path) in [("GET", "/api/groups"), ("GET", "/metrics"), ("GET", "/api/audit")] {
        assert_eq!(scene.refused(method, path, "", "").await.0, 401, "{path}");
        assert_eq!(scene.refused(method, path, &lead, "").await.0, 401, "{path}: a lead");
        assert_eq!(scene.ask(method, path, viewer, "").await.0, 200, "{path}");
    }
    for (method, path) in
        [("POST", "/api/releases"), ("POST", "/api/campaigns/x/pause"), ("GET", "/api/people")]
    {
        let found = scene.refused(method, path, viewer, "").await;
        assert_eq!(found, code(403, "forbidden"), "{path}");
    }
    assert_eq!(scene.refused("GET", "/api/lead/desired", viewer, "").await.0, 401);
    assert_eq!(scene.ask("GET", "/api/lead/desired", &lead, "").await.0, 200);
}

#[tokio::test]
async fn a_credential_that_another_board_comes_with_is_refused_and_changes_nothing() {
    let scene = scene().await;
    let lead = scene.lead().await;
    let mut other = desk::check_in();
    other["id"] = "02:00:00:00:00:09".into();
    let found = scene.refused("POST", "/api/lead/check-in", &lead, &other.to_string()).await;
    assert_eq!(found, code(403, "other-lead"));
    let groups = scene.ask("GET", "/api/groups", &scene.token, "").await.1;
    assert_eq!(groups["groups"][0]["seen_at"], Value::Null);
    let own = desk::check_in().to_string();
    assert_eq!(scene.ask("POST", "/api/lead/check-in", &lead, &own).await.0, 200);
}

#[tokio::test]
async fn a_guesser_waits_and_the_setup_link_is_good_once() {
    let scene = scene().await;
    let word = scene.server.setup_word.clone().unwrap();
    let again = json!({ "word": word, "name": "eve", "password": "correct horse" }).to_string();
    assert_eq!(scene.refused("POST", "/api/setup", "", &again).await, code(409, "set-up"));
    for _ in 0..5 {
        let wrong = r#"{"name":"ada","password":"wrong"}"#;
        assert_eq!(scene.refused("POST", "/api/login", "", wrong).await.0, 401);
    }
    let right = r#"{"name":"ada","password":"correct horse"}"#;
    let found = scene.refused("POST", "/api/login", "", right).await;
    assert_eq!(found, code(429, "too-many-attempts"));
}

/// Behind a router or a proxy all come from one address.
#[tokio::test]
async fn a_good_token_is_let_in_whatever_others_at_its_address_did() {
    let scene = scene().await;
    let lead = scene.lead().await;
    for _ in 0..5 {
        assert_eq!(scene.refused("GET", "/api/me", "wrong", "").await.0, 401);
    }
    let found = scene.refused("GET", "/api/me", "wrong", "").await;
    assert_eq!(found, code(429, "too-many-attempts"));
    assert_eq!(scene.refused("GET", "/api/lead/desired", "wrong", "").await.0, 429);
    assert_eq!(scene.ask("GET", "/api/me", &scene.token, "").await.0, 200);
    assert_eq!(scene.ask("GET", "/api/lead/desired", &lead, "").await.0, 200);
}

#[tokio::test]
async fn a_token_that_signs_out_is_good_no_more_and_others_are() {
    let scene = scene().await;
    let new = r#"{"name":"screen","role":"viewer"}"#;
    let made = scene.ask("POST", "/api/tokens", &scene.token, new).await;
    let viewer = made.1["token"].as_str().unwrap();
    assert_eq!(scene.ask("POST", "/api/logout", viewer, "").await.0, 204);
    assert_eq!(scene.refused("GET", "/api/me", viewer, "").await.0, 401);
    assert_eq!(scene.refused("POST", "/api/logout", viewer, "").await.0, 401);
    assert_eq!(scene.ask("GET", "/api/me", &scene.token, "").await.0, 200);
    let audit = scene.ask("GET", "/api/audit", &scene.token, "").await.1;
    let newest = (&audit["audit"][0]["who"], &audit["audit"][0]["did"]);
    assert_eq!(newest, (&"token screen".into(), &"token.revoke".into()));
}

/// What a lead says is worth more than one character of it.
#[tokio::test]
async fn a_check_in_with_a_nul_in_it_is_taken_down_without_it() {
    let scene = scene().await;
    let lead = scene.lead().await;
    let said = desk::check_in().to_string().replace("\"errors\":[]", "\"errors\":[\"a\\u0000b\"]");
    assert!(said.contains("u0000"), "{said}");
    assert_eq!(scene.ask("POST", "/api/lead/check-in", &lead, &said).await.0, 200);
    let groups = scene.ask("GET", "/api/groups", &scene.token, "").await.1;
    assert_eq!(groups["groups"][0]["attention"], "a\u{fffd}b");
}

/// A password in the tables, or in the log, would be everybody's who has a backup.
#[tokio::test]
async fn no_secret_is_told_twice() {
    let scene = scene().await;
    scene.lead().await;
    for path in ["/api/tokens", "/api/people", "/api/enrolments", "/api/audit", "/api/groups"] {
        let (status, answer) = scene.ask("GET", path, &scene.token, "").await;
        assert_eq!(status, 200, "{path}");
        let text = answer.to_string();
        assert!(!text.contains(&scene.token) && !text.contains("horse"), "{path}: {text}");
        assert!(!text.contains("argon2") && !text.contains("credential"), "{path}: {text}");
    }
}
