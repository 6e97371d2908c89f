//! A server in this process, and a client that says exactly what it is told.

// Not every test uses all of it.
#![allow(dead_code, unreachable_pub)]

use std::net::SocketAddr;
use std::path::Path;

use lockstep_server::run::{self, ServeOptions};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A server in this process.
pub struct Server {
    pub address: SocketAddr,
    pub setup_word: Option<String>,
    pub task: JoinHandle<()>,
}

/// On the database that is named, else on SQLite in the folder.
pub async fn serve(folder: &Path, database: Option<&str>) -> Server {
    let options = ServeOptions {
        database: database.map(str::to_owned),
        ..ServeOptions::in_folder(folder.to_owned())
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
    pub async fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, Value) {
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

    pub async fn post(&self, path: &str, secret: &str, body: &Value) -> Value {
        let headers = format!("Authorization: Bearer {secret}\r\n");
        let (status, answer) = self.ask("POST", path, &headers, body.to_string().as_bytes()).await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    /// What a lead should run, after waiting for something else than `tag`.
    pub async fn desired(&self, credential: &str, wait_s: u32) -> (u16, Value) {
        let headers = format!("Authorization: Bearer {credential}\r\nPrefer: wait={wait_s}\r\n");
        self.ask("GET", "/api/lead/desired", &headers, b"").await
    }
}

/// What a lead says that has nothing to say.
pub fn check_in() -> Value {
    let id = "02:00:00:00:00:01";
    json!({ "id": id, "documents": {
        "version": { "id": id, "role": "receiver", "version_number": 10000, "image": "a4" },
        "group": { "members": [{ "id": id, "role": "receiver", "lead": true, "linked": true }] },
        "health": { "errors": [] }, "rollout": { "rollout": null }, "history": { "history": [] },
    } })
}
