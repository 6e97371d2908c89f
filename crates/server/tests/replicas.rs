//! Two servers on one PostgreSQL are one fleet: what is said to one is known to the other, a lead
//! may come to either, and either may go. Runs where `LOCKSTEP_TEST_DATABASE` names a PostgreSQL
//! (`cargo xtask test --suite server`); elsewhere there is only one server.

mod desk;

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// A new one of this name; none where there is no PostgreSQL.
async fn database(name: &str) -> Option<String> {
    use sqlx::{AnyConnection, Connection as _, Executor as _};

    let Ok(server) = std::env::var("LOCKSTEP_TEST_DATABASE") else {
        eprintln!("skipped: LOCKSTEP_TEST_DATABASE names no PostgreSQL");
        return None;
    };
    sqlx::any::install_default_drivers();
    let name = format!("{name}_{}", std::process::id());
    let mut connection = AnyConnection::connect(&server).await.unwrap();
    let sql = format!("CREATE DATABASE {name}");
    connection.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
    Some(format!("{}/{name}", server.rsplit_once('/').unwrap().0))
}

/// Two servers, an admin's token, and a group `bench` with its lead's credential.
struct Two {
    one: desk::Server,
    other: desk::Server,
    token: String,
    group: String,
    credential: String,
}

impl Two {
    async fn start(folder: &Path, database: &str) -> Self {
        let one = desk::serve(folder, Some(database)).await;
        let other = desk::serve(folder, Some(database)).await;
        let word = one.setup_word.clone().unwrap();
        let admin = json!({ "name": "ada", "password": "correct horse" });
        let setup = json!({ "word": word, "name": "ada", "password": "correct horse" });
        one.post("/api/setup", "", &setup).await;
        let login = other.ask("POST", "/api/login", "", admin.to_string().as_bytes()).await.1;
        let token = login["token"].as_str().unwrap().to_owned();
        let made = one.post("/api/enrolments", &token, &json!({ "name": "bench" })).await;
        let enrol = json!({ "token": made["token"], "id": "02:00:00:00:00:01" });
        let welcome = other.post("/api/lead/enroll", "", &enrol).await;
        let group = welcome["group"].as_str().unwrap().to_owned();
        let credential = welcome["credential"].as_str().unwrap().to_owned();
        Self { one, other, token, group, credential }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_server_is_told_the_other_knows_and_a_lead_that_waits_there_hears_of_it() {
    let Some(database) = database("replicas").await else { return };
    let folder = tempfile::tempdir().unwrap();
    let Two { one, other, token, group, credential } = Two::start(folder.path(), &database).await;
    other.post("/api/lead/check-in", &credential, &desk::check_in()).await;

    // The lead waits at one server while somebody orders something at the other.
    let (_, before) = other.desired(&credential, 0).await;
    assert_eq!(before["orders"], json!([]));
    let waits = async {
        let mut answer = (304, Value::Null);
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            answer = other.desired(&credential, 0).await;
            if answer.1["orders"] != json!([]) {
                break;
            }
        }
        answer
    };
    let order = one.post(&format!("/api/groups/{group}/abort"), &token, &json!({})).await;
    let (_, after) = waits.await;
    assert_eq!(after["orders"][0]["id"], order["order"], "{after}");

    // One of them goes, and nothing is lost.
    one.task.abort();
    let (status, _) = other.desired(&credential, 0).await;
    assert_eq!(status, 200);
    let groups =
        other.ask("GET", "/api/groups", &format!("Authorization: Bearer {token}\r\n"), b"").await;
    assert_eq!(groups.1["groups"][0]["name"], "bench");
}

/// A lead that goes back and forth between servers, behind a balancer: what is old news to one of
/// them is none to the fleet.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_lead_says_again_after_it_said_otherwise_elsewhere_is_what_stands() {
    let Some(database) = database("says_again").await else { return };
    let folder = tempfile::tempdir().unwrap();
    let two = Two::start(folder.path(), &database).await;
    let mut elsewhere = desk::check_in();
    elsewhere["documents"]["version"]["version_number"] = 10_100.into();
    let headers = format!("Authorization: Bearer {}\r\n", two.token);
    let path = format!("/api/groups/{}", two.group);
    // More than once: each may still hear of the enrolment, and know nothing of the lead then.
    for _ in 0..5 {
        let said = [(&two.other, &elsewhere, "1.1.0"), (&two.one, &desk::check_in(), "1.0.0")];
        for (server, said, version) in said {
            server.post("/api/lead/check-in", &two.credential, said).await;
            let shown = two.other.ask("GET", &path, &headers, b"").await.1;
            assert_eq!(shown["group"]["version"], version, "{shown}");
        }
    }
}
