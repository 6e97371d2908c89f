//! The commands that need a device, before a device that does what a script says: refusals in the
//! middle of an upload, cuts, silences. What real devices do is tested with real devices.
//!
//! Snapshots are brought up to date with `UPDATE_EXPECT=1 cargo test --test scripted`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use expect_test::{Expect, ExpectFile, expect, expect_file};
use lockstep_proto::manifest::{GENERATION_BYTES, GenerationHash, write_generations};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What the device does with one request.
enum Reply {
    /// Reads so much of the body, answers, and closes the connection with the rest unread.
    After(usize, u16, Value),
    /// Reads so much of the body, and closes the connection.
    Cut(usize),
    /// Reads the whole body and answers.
    Whole(u16, Value),
}

/// One request, as the device heard it.
#[derive(Debug, Clone, Default)]
struct Request {
    line: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> Option<String> {
        self.headers.iter().find_map(|header| {
            let (key, value) = header.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }
}

/// A device that does what a script says, and remembers the `POST`s that it got.
struct Device {
    address: String,
    posts: Arc<Mutex<Vec<Request>>>,
}

impl Device {
    /// `script` is asked with `METHOD /path` and how many of these there were before.
    fn new(script: impl Fn(&str, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let posts = Arc::new(Mutex::new(Vec::new()));
        let (script, kept) = (Arc::new(script), Arc::clone(&posts));
        let counts = Arc::new(Mutex::new(std::collections::BTreeMap::<String, usize>::new()));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, kept) = (Arc::clone(&script), Arc::clone(&kept));
                let counts = Arc::clone(&counts);
                thread::spawn(move || {
                    let before = |line: &str| {
                        let mut counts = counts.lock().unwrap();
                        let count = counts.entry(line.to_owned()).or_default();
                        *count += 1;
                        *count - 1
                    };
                    let request = serve(&stream, |line| script(line, before(line)));
                    if let Some(request) = request.filter(|request| request.line.starts_with('P')) {
                        kept.lock().unwrap().push(request);
                    }
                });
            }
        });
        Self { address, posts }
    }
}

fn serve(mut stream: &TcpStream, script: impl Fn(&str) -> Reply) -> Option<Request> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut request = Request { line: lines.first()?.clone(), ..Request::default() };
    request.headers = lines.split_off(1);
    let length = request.header("Content-Length").map_or(0, |text| text.parse().unwrap());
    let line = request.line.strip_suffix(" HTTP/1.1")?.to_owned();
    let (read, answer) = match script(&line) {
        Reply::After(read, status, body) => (read, Some((status, body))),
        Reply::Cut(read) => (read, None),
        Reply::Whole(status, body) => (length, Some((status, body))),
    };
    request.body = vec![0; read.min(length)];
    reader.read_exact(&mut request.body).ok()?;
    if let Some((status, body)) = answer {
        let body = body.to_string();
        let head = format!("HTTP/1.1 {status} Text\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).ok()?;
    }
    Some(request)
}

/// A folder with `good.lockstep`, a bundle of 4 MB.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: TempDir::new().unwrap() };
        for (role, chip) in [("receiver", "esp32s3"), ("transmitter", "esp32")] {
            let shown = bench.run(&format!(
                "image make --role {role} --chip {chip} --version 1.1.0 --size 2M -o {role}.bin"
            ));
            assert!(shown.starts_with("Wrote"), "{shown}");
        }
        bench.run(
            "release create --version 1.1.0 --unsigned --receiver receiver.bin \
             --transmitter transmitter.bin -o good.lockstep",
        );
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, line: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
        command.current_dir(self.folder.path()).args(line.split_whitespace());
        command.env_remove("LOCKSTEP_DEVICE").env("LOCKSTEP_PASSWORD", "secret");
        let output = command.output().unwrap();
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text += &String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => text,
            code => text + &format!("exit {code:?}\n"),
        }
    }

    fn check(&self, device: &Device, line: &str, expected: &impl Snapshot) {
        let shown = self.run(&format!("{line} --device {}", device.address));
        expected.matches(&shown.replace(&device.address, "DEVICE"));
    }
}

/// A snapshot: in the test where its lines are short, else in a file.
trait Snapshot {
    fn matches(&self, shown: &str);
}

impl Snapshot for Expect {
    fn matches(&self, shown: &str) {
        self.assert_eq(shown);
    }
}

impl Snapshot for ExpectFile {
    fn matches(&self, shown: &str) {
        self.assert_eq(shown);
    }
}

fn version() -> Reply {
    Reply::Whole(
        200,
        json!({
            "device": "RECEIVER", "role": "receiver", "id": "02:00:00:00:00:01", "lead": true,
            "chip": "ESP32-S3", "version": "1.0.0", "image": "ab".repeat(32), "epoch": 0,
            "rollback": "bootloader", "trusts_anybody": true,
            "peers": [{
                "id": "02:00:00:00:00:02", "role": "transmitter", "version_number": 9900,
                "image": "cd".repeat(8), "compatible": false,
                "why": "the peer runs 0.99.0, this device needs it at 1.0.0 or newer",
                "linked": true, "heard_ms_ago": 120,
            }],
        }),
    )
}

/// The lead's view of rollout 0000000000000007.
fn rollout(phase: &str, more: &Value) -> Reply {
    let mut rollout = json!({
        "id": "0000000000000007", "kind": "forward", "phase": phase, "verdict": null,
        "release": "1.1.0",
        "members": [{ "id": "02:00:00:00:00:01", "role": "receiver", "state": "staging" },
                    { "id": "02:00:00:00:00:02", "role": "transmitter", "state": "staged" }],
    });
    for (key, value) in more.as_object().unwrap() {
        rollout[key] = value.clone();
    }
    Reply::Whole(200, json!({ "rollout": rollout }))
}

fn no_rollout() -> Reply {
    Reply::Whole(200, json!({ "rollout": null }))
}

fn accepted() -> Reply {
    Reply::Whole(202, json!({ "rollout": "0000000000000007" }))
}

fn refusal(status: u16, code: &str, message: &str, hint: &str) -> (u16, Value) {
    (status, json!({ "error": { "code": code, "message": message, "hint": hint } }))
}

fn unknown() -> Reply {
    let (status, body) = refusal(404, "not-found", "there is nothing here", "see the documents");
    Reply::Whole(status, body)
}

// An upload is refused as soon as the lead knows, and the lead does not wait for the rest of it.
#[test]
fn a_refusal_in_the_middle_of_an_upload_is_heard() {
    let bench = Bench::new();
    let device = Device::new(|line, _| match line {
        "GET /api/version" => version(),
        "GET /api/rollout" => no_rollout(),
        "POST /api/rollout" => {
            let (status, mut body) = refusal(422, "refused", "wrong chip", "take another image");
            body["error"]["refusals"] = json!([
                { "code": "wrong-chip", "member": "02:00:00:00:00:02", "role": "transmitter",
                  "message": "the image is for ESP32, this device is ESP32-C3",
                  "hint": "take another image" },
                { "code": "no-rollback", "member": "02:00:00:00:00:01", "role": "receiver",
                  "message": "nothing takes this device back", "hint": null },
            ]);
            Reply::After(20_000, status, body)
        }
        _ => unknown(),
    });
    let expected = expect![[r#"
        Error: Device `DEVICE` refuses the release
        - transmitter 02:00:00:00:00:02: the image is for ESP32, this device is ESP32-C3
          Hint: take another image
        - receiver 02:00:00:00:00:01: nothing takes this device back
        exit Some(1)
    "#]];
    // Whether the answer or the end of the connection comes first is chance.
    for _ in 0..5 {
        bench.check(&device, "update good.lockstep", &expected);
    }
}

// L13: the device says where it is, and the upload goes on there.
#[test]
fn a_cut_upload_goes_on_where_the_device_says() {
    let bench = Bench::new();
    let bundle = std::fs::read(bench.path("good.lockstep")).unwrap();
    let size_bytes = bundle.len();
    let device = Device::new(move |line, before| match (line, before) {
        ("GET /api/version", _) => version(),
        ("POST /api/rollout", 0) => Reply::Cut(100_000),
        ("POST /api/rollout", 1) => Reply::Cut(50_000),
        ("POST /api/rollout", _) => accepted(),
        ("GET /api/rollout", 0) => {
            let upload = json!({ "next_offset": 98_304, "size_bytes": size_bytes });
            rollout("staging", &json!({ "upload": upload }))
        }
        ("GET /api/rollout", 1) => {
            let upload = json!({ "next_offset": 131_072, "size_bytes": size_bytes });
            rollout("staging", &json!({ "upload": upload }))
        }
        ("GET /api/rollout", 2) => rollout("trial", &json!({})),
        ("GET /api/rollout", _) => rollout("settled", &json!({ "verdict": "keep" })),
        _ => unknown(),
    });
    bench.check(
        &device,
        "update good.lockstep",
        &expect![[r#"
        Kept: receiver and transmitter run 1.1.0
        The upload was cut; going on at byte 98304
        The upload was cut; going on at byte 131072
        Running 1.1.0 on trial
        Settled
    "#]],
    );
    let posts = device.posts.lock().unwrap();
    let ranges: Vec<_> = posts.iter().map(|post| post.header("Content-Range")).collect();
    let range = |from| Some(format!("bytes {from}-{}/{size_bytes}", size_bytes - 1));
    assert_eq!(ranges, [None, range(98_304), range(131_072)]);
    assert_eq!(posts[0].body, bundle[..100_000]);
    assert_eq!(posts[2].body, bundle[131_072..]);
    assert!(posts.iter().all(|post| post.header("Authorization").unwrap() == "Bearer secret"));
}

#[test]
fn a_lead_that_reboots_is_waited_for() {
    let bench = Bench::new();
    let device = Device::new(|line, before| match (line, before) {
        ("GET /api/version", _) => version(),
        ("POST /api/rollout", _) => accepted(),
        ("GET /api/rollout", 0) => rollout("trial", &json!({})),
        ("GET /api/rollout", 1..4) => Reply::Cut(0),
        ("GET /api/rollout", 4) => rollout("settling", &json!({ "verdict": "revert" })),
        // After its reboot it has forgotten, but the history has not.
        ("GET /api/rollout", _) => no_rollout(),
        ("GET /api/history", _) => Reply::Whole(
            200,
            json!({ "history": [
                { "rollout": "0000000000000007", "kind": "forward", "verdict": "revert",
                  "cause": { "code": "fell-back", "member": "02:00:00:00:00:02",
                             "text": "the transmitter fell back to the image before" },
                  "release": "1.1.0", "release_before": "1.0.0" },
                { "rollout": "0000000000000006", "kind": "back", "verdict": "keep",
                  "cause": null, "release": "1.0.0", "release_before": "0.9.0" },
            ] }),
        ),
        _ => unknown(),
    });
    bench.check(
        &device,
        "update good.lockstep",
        &expect_file!["snapshots/a_lead_that_reboots_is_waited_for.txt"],
    );
    bench.check(
        &device,
        "history",
        &expect_file!["snapshots/a_lead_that_reboots_is_waited_for-2.txt"],
    );
}

#[test]
fn a_wrong_password_and_a_busy_group_are_told_apart() {
    let bench = Bench::new();
    let device = Device::new(|line, before| match (line, before) {
        ("GET /api/version", _) => version(),
        ("GET /api/rollout", _) => no_rollout(),
        ("POST /api/rollout", 0) => {
            let (status, body) = refusal(401, "unauthorized", "the password is wrong", "");
            Reply::After(0, status, body)
        }
        ("POST /api/rollout", _) => {
            let message = "rollout 0000000000000005 is running";
            let (status, body) = refusal(409, "busy", message, "Wait for it, or stop it.");
            Reply::After(0, status, body)
        }
        ("POST /api/rollout/abort", _) => {
            let message = "the verdict is final";
            let (status, body) = refusal(409, "verdict-is-final", message, "lockstep revert");
            Reply::Whole(status, body)
        }
        _ => unknown(),
    });
    bench.check(
        &device,
        "update good.lockstep",
        &expect![[r#"
        Error: Device `DEVICE` does not take this password
        Hint: Give it with LOCKSTEP_PASSWORD or --password-file.
        exit Some(1)
    "#]],
    );
    bench.check(
        &device,
        "update good.lockstep",
        &expect![[r#"
        Error: Device `DEVICE` refuses: rollout 0000000000000005 is running
        Hint: Wait for it, or stop it.
        exit Some(1)
    "#]],
    );
    bench.check(
        &device,
        "abort",
        &expect![[r#"
        Error: Device `DEVICE` refuses: the verdict is final
        Hint: lockstep revert
        exit Some(1)
    "#]],
    );
}

#[test]
fn a_status_says_who_does_not_get_along() {
    let bench = Bench::new();
    let device = Device::new(|line, _| match line {
        "GET /api/version" => version(),
        "GET /api/rollout" => rollout("trial", &json!({})),
        "GET /api/health" => Reply::Whole(
            200,
            json!({ "status": "unhealthy", "errors": ["application: no data for 12 s"] }),
        ),
        _ => unknown(),
    });
    bench.check(
        &device,
        "status",
        &expect_file!["snapshots/a_status_says_who_does_not_get_along.txt"],
    );
    let shown = bench.run(&format!("status --json --device {}", device.address));
    let value: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(value["version"]["peers"][0]["compatible"], false);
    assert_eq!(value["rollout"]["phase"], "trial");
}

#[test]
fn nothing_is_sent_to_a_device_that_would_refuse() {
    let bench = Bench::new();
    for (field, value) in [("lead", json!(false)), ("epoch", json!(3)), ("chip", json!("ESP32"))] {
        let device = Device::new(move |line, _| match line {
            "GET /api/version" => match version() {
                Reply::Whole(status, mut body) => {
                    body[field] = value.clone();
                    Reply::Whole(status, body)
                }
                other => other,
            },
            _ => unknown(),
        });
        let shown = bench.run(&format!("update good.lockstep --device {}", device.address));
        assert!(shown.starts_with("Error: ") && shown.contains("Hint: "), "{shown}");
        assert!(device.posts.lock().unwrap().is_empty(), "{field}");
    }
}

#[test]
fn a_dry_run_changes_nothing() {
    let bench = Bench::new();
    let device = Device::new(|line, _| match line {
        "GET /api/version" => version(),
        "GET /api/rollout" => no_rollout(),
        _ => unknown(),
    });
    let shown = bench.run(&format!("update good.lockstep --dry-run --device {}", device.address));
    assert!(shown.starts_with("Would bring the group to 1.1.0:\n"), "{shown}");
    assert!(device.posts.lock().unwrap().is_empty());
}

/// As `release create` would write them: what is not signed is no worse protected on the air.
#[test]
fn bare_images_are_sent_with_the_hashes_of_their_generations() {
    let bench = Bench::new();
    let device = Device::new(|line, _| match line {
        "GET /api/version" => version(),
        "GET /api/rollout" => no_rollout(),
        "POST /api/rollout" => {
            let (status, body) = refusal(422, "refused", "wrong chip", "take another image");
            Reply::Whole(status, body)
        }
        _ => unknown(),
    });
    let images = "--receiver receiver.bin --transmitter transmitter.bin";
    let said = bench.run(&format!("update {images} --device {}", device.address));
    assert!(!said.contains("no room"), "{said}");
    let posts = device.posts.lock().unwrap();
    let sent = &posts.first().unwrap_or_else(|| panic!("{said}")).body;
    for role in ["receiver", "transmitter"] {
        let file = std::fs::read(bench.path(&format!("{role}.bin"))).unwrap();
        let mut list = String::new();
        let hashes = file.chunks(GENERATION_BYTES as usize).map(GenerationHash::of);
        write_generations(hashes, &mut list).unwrap();
        let is_sent = sent.windows(list.len()).any(|part| part == list.as_bytes());
        assert!(is_sent, "{role}: {list}");
    }
}

#[test]
fn bare_images_whose_hashes_have_no_room_in_a_manifest_are_sent_with_a_warning() {
    let bench = Bench::new();
    let device = Device::new(|line, _| match line {
        "GET /api/version" => version(),
        "GET /api/rollout" => no_rollout(),
        _ => unknown(),
    });
    let mut line = format!("update --dry-run --device {} --receiver receiver.bin", device.address);
    for role in ["a", "b", "c", "d", "e", "f"] {
        bench.run(&format!(
            "image make --role {role} --chip esp32 --version 1.1.0 --size 2M -o {role}.bin"
        ));
        line += &format!(" --artifact {role}={role}.bin");
    }
    let said = bench.run(&line);
    let told = "a manifest of 8192 bytes has no room for the hashes of generations of";
    let (_, roles) = said.split_once(told).unwrap_or_else(|| panic!("{said}"));
    let roles = roles.split_once(':').unwrap().0;
    assert!(roles.contains("`receiver`") && !roles.contains("`a`"), "{said}");
    assert!(said.contains("Would bring the group to 1.1.0:\n"), "{said}");
}

#[test]
fn another_kind_of_server_is_not_taken_for_a_device() {
    let bench = Bench::new();
    let device = Device::new(|_, _| Reply::Whole(404, json!("<html>Not Found</html>")));
    bench.check(
        &device,
        "status",
        &expect![[r#"
        Error: `DEVICE` is no device of ours: it answers with 404
        Hint: Is that its address and its port?
        exit Some(1)
    "#]],
    );
    // What a device says never reaches the terminal raw.
    let device = Device::new(|line, _| match line {
        "GET /api/logs" => Reply::Whole(
            200,
            json!({ "logs": [{ "uptime_ms": 61_005, "level": "info", "text": "a\u{1b}[2Jb" }] }),
        ),
        _ => unknown(),
    });
    let shown = bench.run(&format!("logs --device {}", device.address));
    assert_eq!(shown, "    61.005  info     a\u{FFFD}[2Jb\n");
}
