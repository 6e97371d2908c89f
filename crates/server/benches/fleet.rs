//! What a server carries: check-ins with their durable writes, polls of leads that have nothing new
//! to hear, and bytes of bundles; the last two beside nginx in the same run, if it is here; and
//! what memory open pages take.
//! `cargo bench -p lockstep-server --bench fleet`
//!
//! Load and server share the machine, so a figure says what both take. The ratios to nginx are
//! under the same load from the same program, and depend little on the machine.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jiff::{Span, Timestamp};
use lockstep_proto::id::Sha256;
use lockstep_server::run::{self, ServeOptions};
use lockstep_server::server::Server;
use lockstep_server::store::groups::{Enrolled, Settings};
use lockstep_server::store::new_id;
use lockstep_server::store::releases::Release;
use serde_json::{Value, json};
use sha2::Digest as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

fn main() {
    if let Some(folder) = std::env::var_os(SERVES_IN) {
        return serve(Path::new(&folder));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let _ = rlimit::increase_nofile_limit(FILES);
    let ours = Ours::start(folder.path());
    let at = |number: usize| ours.credentials[number].as_str();
    let check_ins = (0..LEADS).map(|number| check_in(number, at(number))).collect();
    let rate = requests(ours.address, check_ins, CONNECTIONS);
    println!("check-ins, each durable: {rate:.0} a second, {CONNECTIONS} connections");

    let polls = (0..LEADS).map(|number| get("/api/lead/desired", at(number))).collect();
    let our_polls = requests(ours.address, polls, CONNECTIONS);
    let fetches = vec![get(&format!("/api/lead/bundles/{}", ours.sha256), at(0))];
    let our_bytes = requests(ours.address, fetches, FETCHES) * BUNDLE_BYTES as f64;
    println!("polls: {our_polls:.0} a second; bundles: {:.0} MB/s", our_bytes / 1e6);
    match Nginx::start(folder.path(), &bundle()) {
        None => println!("nginx is not here: nothing to compare with"),
        Some(nginx) => {
            let polls = requests(nginx.address, vec![get("/poll", at(0))], CONNECTIONS);
            let fetches = vec![get("/bundle", at(0))];
            let bytes = requests(nginx.address, fetches, FETCHES) * BUNDLE_BYTES as f64;
            println!("nginx: {polls:.0} a second; {:.0} MB/s", bytes / 1e6);
            let (polls, bytes) = (our_polls / polls, our_bytes / bytes);
            println!("beside nginx: polls {polls:.2}, bytes {bytes:.2}");
        }
    }
    streams(&ours);
}

/// Pages that are open, each with its stream of events.
fn streams(ours: &Ours) {
    let before = ours.resident_bytes();
    let runtime = one_thread();
    let request = format!(
        "GET /console/events HTTP/1.1\r\nHost: bench\r\nCookie: lockstep_session={}\r\n\r\n",
        ours.session
    );
    runtime.block_on(async {
        let mut open = Vec::new();
        for _ in 0..STREAMS {
            let mut stream = TcpStream::connect(ours.address).await.expect("a connection");
            stream.write_all(request.as_bytes()).await.expect("is sent");
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.expect("an answer");
            assert_eq!(&head, b"HTTP/1.1 200");
            open.push(stream);
        }
        let after = ours.resident_bytes();
        let (all, each) = ((after - before) as f64, (after - before) as f64 / STREAMS as f64);
        println!(
            "{STREAMS} streams of events: {:.0} MB more, {each:.0} bytes each; {:.0} MB in all",
            all / 1e6,
            after as f64 / 1e6
        );
    });
}

/// Our server in a process of its own, and what lets its visitors in.
struct Ours {
    child: Child,
    address: SocketAddr,
    credentials: Vec<String>,
    session: String,
    sha256: String,
}

impl Ours {
    fn start(folder: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.env(SERVES_IN, folder.join("fleet")).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a server");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("its output");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let said: Value = serde_json::from_str(&line).expect("what lets visitors in");
        let text = |name: &str| said[name].as_str().expect("is there").to_owned();
        Self {
            child,
            address: text("address").parse().expect("an address"),
            credentials: serde_json::from_value(said["credentials"].clone()).expect("a list"),
            session: text("session"),
            sha256: text("sha256"),
        }
    }

    /// What of it is in memory.
    fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).expect("Linux tells");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).expect("a number");
        kib.parse::<u64>().expect("a number") * 1024
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the other process: serves, and says in one line what lets visitors in.
fn serve(folder: &Path) {
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let options = ServeOptions::in_folder(folder.to_owned());
        let ready = run::open(&options).await.expect("a server");
        let credentials = enrol(&ready.server).await;
        let sha256 = publish(&ready.server, &bundle()).await;
        let (store, now) = (&ready.server.store, Timestamp::now());
        store.add_first_person("bench", "no password", now).await.expect("somebody who looks");
        let people = store.people().await.expect("a table");
        let session = store.begin_session(&people[0], now).await.expect("a session");
        let said = json!({
            "address": ready.address.to_string(),
            "credentials": credentials,
            "session": session,
            "sha256": sha256,
        });
        println!("{said}");
        ready.serve(std::future::pending()).await.expect("it serves");
    });
}

fn one_thread() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The credentials of many leads.
async fn enrol(server: &Server) -> Vec<String> {
    let now = Timestamp::now();
    let later = now.checked_add(Span::new().hours(1)).expect("is near");
    let mut credentials = Vec::new();
    for number in 0..LEADS {
        let settings = Settings { name: format!("group {number}"), ..Settings::default() };
        let token = server.store.make_enrolment(&settings, None, "bench", now, later).await;
        let lead = lead_of(number);
        match server.store.enrol(&token.expect("a token"), &lead, now).await.expect("is let in") {
            Enrolled::Welcome { credential, .. } => credentials.push(credential),
            other => panic!("{other:?}"),
        }
    }
    credentials
}

fn lead_of(number: usize) -> String {
    format!("02:00:00:00:{:02x}:{:02x}", number / 256, number % 256)
}

/// A pair's check-in, as long as a real one is.
fn check_in(number: usize, credential: &str) -> Vec<u8> {
    let (id, member) = (lead_of(number), "02:FF:00:00:00:02");
    let image = "a4afd3dcdf93298832eda7fc1789481c83d75748818e921d4064a4e7d79144ac";
    let peer = json!({ "id": member, "role": "transmitter", "version_number": 10_000,
        "image": "10cc574e60e520ad", "compatible": true, "why": null });
    let documents = json!({
        "version": { "id": id, "role": "receiver", "product": "desk", "version_number": 10_000,
            "image": image, "peers": [peer] },
        "group": { "members": [
            { "id": id, "role": "receiver", "lead": true, "linked": true },
            { "id": member, "role": "transmitter", "lead": false, "linked": true }] },
        "health": { "errors": [], "filler": "x".repeat(1_500) },
        "rollout": { "rollout": null }, "history": { "history": [] },
    });
    let body = json!({ "id": id, "documents": documents }).to_string();
    let length = body.len();
    let head = format!(
        "POST /api/lead/check-in HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {credential}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

fn get(path: &str, credential: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {credential}\r\n\r\n")
        .into_bytes()
}

fn bundle() -> Vec<u8> {
    (0..BUNDLE_BYTES).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect()
}

async fn publish(server: &Server, bundle: &[u8]) -> String {
    let digest = Sha256(sha2::Sha256::digest(bundle).into());
    server.objects.put(digest, &mut &bundle[..]).await.expect("is put away");
    let release = Release {
        id: new_id().expect("random"),
        system: "desk".into(),
        version: "1.1.0".into(),
        number: 10_100,
        sequence: 0,
        epoch: 0,
        bundle_sha256: digest.to_string(),
        bundle_bytes: bundle.len() as u64,
        manifest: "{}".into(),
        signatures: 0,
        signers: Vec::new(),
        places: "{}".into(),
        description: String::new(),
        uploaded_at: Timestamp::now(),
        uploaded_by: "bench".into(),
        withdrawn_at: None,
    };
    server.store.add_release(&release).await.expect("is taken down");
    digest.to_string()
}

/// Answers a second, over connections that stay open.
fn requests(address: SocketAddr, requests: Vec<Vec<u8>>, connections: usize) -> f64 {
    let (requests, answers) = (Arc::new(requests), Arc::new(AtomicU64::new(0)));
    let runtime = one_thread();
    let start = Instant::now();
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for number in 0..connections {
            let (requests, answers) = (Arc::clone(&requests), Arc::clone(&answers));
            tasks.push(tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.expect("a connection");
                let _ = stream.set_nodelay(true);
                let mut buffer = vec![0; 256 * 1024];
                let mut at = number;
                while start.elapsed() < MEASURED {
                    let request = &requests[at % requests.len()];
                    stream.write_all(request).await.expect("is sent");
                    read_answer(&mut stream, &mut buffer).await;
                    answers.fetch_add(1, Ordering::Relaxed);
                    at += connections;
                }
            }));
        }
        for task in tasks {
            task.await.expect("a load");
        }
    });
    answers.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}

async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut have = 0;
    let (end, length) = loop {
        let count = stream.read(&mut buffer[have..]).await.expect("an answer");
        assert!(count > 0, "the connection was closed");
        have += count;
        if let Some(end) = buffer[..have].windows(4).position(|it| it == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
            let is_good = head.starts_with("http/1.1 2") || head.starts_with("http/1.1 304");
            assert!(is_good, "{head}");
            let length = head.lines().find_map(|it| it.strip_prefix("content-length: "));
            break (end + 4, length.map_or(0, |it| it.trim().parse::<usize>().expect("a number")));
        }
    };
    let mut left = length.saturating_sub(have - end);
    while left > 0 {
        let wanted = left.min(buffer.len());
        let count = stream.read(&mut buffer[..wanted]).await.expect("a body");
        assert!(count > 0, "the connection was closed");
        left -= count;
    }
}

/// nginx with one answer of a poll's length, and the bundle as a file.
struct Nginx {
    child: Child,
    address: SocketAddr,
}

impl Nginx {
    fn start(folder: &Path, bundle: &[u8]) -> Option<Self> {
        let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|it| it.local_addr());
        let address = free.expect("a free port");
        let root = folder.join("nginx");
        fs::create_dir_all(root.join("logs")).expect("a folder");
        fs::write(root.join("bundle"), bundle).expect("a file");
        let user = if is_root() { "user root;" } else { "" };
        let root = root.display();
        let config = format!(
            "{user} worker_processes 2; daemon off; pid {root}/pid;\n\
             error_log {root}/logs/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; sendfile on; keepalive_requests 100000000;\n\
             client_body_temp_path {root}/logs; proxy_temp_path {root}/logs;\n\
             fastcgi_temp_path {root}/logs; uwsgi_temp_path {root}/logs;\n\
             scgi_temp_path {root}/logs;\n\
             server {{ listen {address}; root {root};\n\
             location = /poll {{ default_type application/json;\n\
             return 200 '{{\"poll_s\":300,\"release\":null,\"orders\":[]}}'; }} }} }}\n"
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, config).expect("a file");
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().ok()?;
        for _ in 0..50 {
            if std::net::TcpStream::connect(address).is_ok() {
                return Some(Self { child, address });
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("nginx does not listen: see its configuration");
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its master tells its workers to end.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|it| it.stdout == b"0\n")
}

/// Tells this program to be the server, in this folder.
const SERVES_IN: &str = "LOCKSTEP_BENCH_SERVES_IN";
const STREAMS: usize = 10_000;
/// For as many connections, and what else is open.
const FILES: u64 = 20_000;
const LEADS: usize = 500;
const CONNECTIONS: usize = 64;
const FETCHES: usize = 16;
const BUNDLE_BYTES: usize = 1_870_000;
const MEASURED: Duration = Duration::from_secs(5);
