//! Two servers on one PostgreSQL are one fleet: what is said to one is known to the other, a lead
//! may come to either, and either may go. Runs where `LOCKSTEP_TEST_DATABASE` names a PostgreSQL
//! (`cargo xtask test --suite server`); elsewhere there is only one server.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use lockstep_proto::manifest::Trust;
use lockstep_server::run::{self, ServeOptions};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A server in this process.
struct Server {
    address: SocketAddr,
    setup_word: Option<String>,
    task: JoinHandle<()>,
}

async fn serve(folder: &Path, database: &str) -> Server {
    let options = ServeOptions {
        data: folder.to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        public_url: None,
        database: Some(database.to_owned()),
        objects: None,
        trust: Trust::anybody(),
        poll_s: 300,
        mqtt: None,
    };
    let ready = run::open(&options).await.unwrap();
    let (address, setup_word) = (ready.address, ready.server.setup_word.clone());
    let task = tokio::spawn(async move {
        ready.serve(std::future::pending()).await.unwrap();
    });
    Server { address, setup_word, task }
}

impl Server {
    /// Status and JSON of an answer; null for one without.
    async fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let text = String::from_utf8(answer).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_default())
    }

    async fn post(&self, path: &str, secret: &str, body: &Value) -> Value {
        let headers = format!("Authorization: Bearer {secret}\r\n");
        let (status, answer) = self.ask("POST", path, &headers, body.to_string().as_bytes()).await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    /// What a lead should run, after waiting for something else than `tag`.
    async fn desired(&self, credential: &str, wait_s: u32) -> (u16, Value) {
        let headers = format!("Authorization: Bearer {credential}\r\nPrefer: wait={wait_s}\r\n");
        self.ask("GET", "/api/lead/desired", &headers, b"").await
    }
}

async fn database() -> Option<String> {
    use sqlx::{AnyConnection, Connection as _, Executor as _};

    let server = std::env::var("LOCKSTEP_TEST_DATABASE").ok()?;
    sqlx::any::install_default_drivers();
    let name = format!("replicas_{}", std::process::id());
    let mut connection = AnyConnection::connect(&server).await.unwrap();
    let sql = format!("CREATE DATABASE {name}");
    connection.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
    Some(format!("{}/{name}", server.rsplit_once('/').unwrap().0))
}

fn check_in() -> Value {
    let id = "02:00:00:00:00:01";
    json!({ "id": id, "documents": {
        "version": { "id": id, "role": "receiver", "version_number": 10000, "image": "a4" },
        "group": { "members": [{ "id": id, "role": "receiver", "lead": true, "linked": true }] },
        "health": { "errors": [] }, "rollout": { "rollout": null }, "history": { "history": [] },
    } })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_server_is_told_the_other_knows_and_a_lead_that_waits_there_hears_of_it() {
    let Some(database) = database().await else {
        eprintln!("skipped: LOCKSTEP_TEST_DATABASE names no PostgreSQL");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let one = serve(folder.path(), &database).await;
    let other = serve(folder.path(), &database).await;
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
    other.post("/api/lead/check-in", &credential, &check_in()).await;

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
