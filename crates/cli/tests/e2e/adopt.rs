//! `lockstep adopt`: devices of the original project become a pair of ours.
//!
//! The old devices are stand-ins that speak the original's protocol, and become desk devices with
//! the image that they took. What a cable brings (here: the group's key) is brought by the test.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::desk::{
    BOTH, Http, Image, PASSWORD, Receiver, Role, Said, Transmitter, command, firmware,
};
use super::fielded::{Becomes, Fielded, Manner};

/// Two old devices, and a release for both.
struct Bench {
    transmitter: Fielded,
    receiver: Fielded,
    images: [Image; 2],
    folder: TempDir,
}

impl Bench {
    fn new(transmitter: Manner, receiver: Manner) -> Self {
        let images = BOTH.map(|role| firmware(role, "1.1.0").make());
        Self::with(transmitter, receiver, images)
    }

    fn with(transmitter: Manner, receiver: Manner, images: [Image; 2]) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path();
        say(path, "device --new-group --group pair.group").succeeds();
        fs::write(path.join("password"), PASSWORD).unwrap();
        fs::write(path.join("its-password"), "another good password").unwrap();
        let mut line = "release create --version 1.1.0 --unsigned -o new.lockstep".to_owned();
        for image in &images {
            let file = format!("{}.bin", image.role.name());
            fs::write(path.join(&file), &image.bytes).unwrap();
            line += &format!(" --{} {file}", image.role.name());
        }
        say(path, &line).succeeds();
        let transmitter = Fielded::new(path, Transmitter, "127.0.0.1:0", transmitter);
        let receiver = Fielded::new(path, Receiver, "127.0.0.1:0", receiver);
        Self { transmitter, receiver, images, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `lockstep adopt` of both with the release, and further options.
    fn line(&self, options: &str) -> String {
        let (transmitter, receiver) = (self.transmitter.address(), self.receiver.address());
        format!(
            "adopt new.lockstep --transmitter {transmitter} --receiver {receiver} \
             --password-file password --its-password-file its-password {options}"
        )
    }

    fn adopt(&self, options: &str) -> Said {
        say(self.folder.path(), &self.line(options))
    }

    fn lockstep(&self, line: &str) -> Said {
        say(self.folder.path(), line)
    }

    fn begin(&self, options: &str) -> Child {
        let mut command = command(self.folder.path(), &self.line(options));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn image(&self, role: Role) -> &Image {
        &self.images[role as usize]
    }

    fn version(&self, role: Role) -> Value {
        let device = match role {
            Receiver => &self.receiver,
            Transmitter => &self.transmitter,
        };
        let answer = Http::new(device.address(), PASSWORD).get("/api/version");
        answer.unwrap_or_else(|| panic!("the {} does not answer", role.name())).json
    }

    /// Both run the release and hear each other with the group's key.
    fn assert_pair(&self) {
        for role in BOTH {
            assert_eq!(self.version(role)["image"], self.image(role).hash);
        }
        let lead = self.version(Receiver);
        assert_eq!(lead["lead"], true);
        assert_eq!(lead["peers"][0]["role"], "transmitter", "{lead}");
        // Nothing ever went the way that ends in the wrong device.
        assert_eq!(self.receiver.passed_on(), 0);
    }

    fn assert_untouched(&self) {
        assert_eq!((self.transmitter.posts(), self.receiver.posts()), (0, 0));
        assert!(self.transmitter.is_old() && self.receiver.is_old());
    }
}

fn say(folder: &Path, line: &str) -> Said {
    Said::of(&command(folder, line).output().unwrap())
}

/// A server that answers whatever it is asked with this page; it stays as long as the test.
fn page_at(page: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            // Whatever it was: it is answered.
            let _ = stream.read(&mut head);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", page.len());
            let _ = stream.write_all((head + page).as_bytes());
        }
    });
    address
}

#[track_caller]
fn wait(what: &str, mut is_it: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_it() {
        assert!(since.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        thread::sleep(Duration::from_millis(30));
    }
}

#[test]
fn the_transmitter_comes_first_and_talks_to_the_old_receiver_until_that_is_flashed() {
    let mut bench = Bench::new(Manner::default(), Manner::default());
    let said = bench.adopt("--dry-run");
    said.succeeds().says("1. The transmitter comes to 1.1.0, over the network.");
    said.says("2. The receiver comes to 1.1.0, by cable, once").says("go on talking");
    said.says("The receiver does not say its version").says("slots of 1310720 bytes");
    bench.assert_untouched();
    bench.adopt("").fails().says("Nobody is there to agree");
    bench.assert_untouched();

    let said = bench.adopt("--yes");
    said.fails().says("The transmitter runs 1.1.0").says("cannot take an image over the network");
    said.says("the receiver at `").says("runs the original firmware").says("runs Lockstep, 1.1.0");
    assert!(bench.receiver.is_old());
    // Each hears the other, and neither drops its data.
    wait("the old receiver hears the new transmitter", || bench.receiver.heard().contains(&10100));
    wait("the new transmitter takes the old receiver's data", || {
        let version = bench.version(Transmitter);
        version["peers"][0]["compatible"] == true && version["peers"][0]["version_number"] == 10000
    });

    let image = bench.image(Receiver).bytes.clone();
    bench.receiver.flash_by_cable(&image);
    let said = bench.adopt("");
    said.succeeds().says("Nobody runs the original firmware any more.");
    said.says("`transmitter` belongs to the group").says("they are on release 1.1.0");
    bench.assert_pair();
    // Once more: nothing is left to be done.
    bench.adopt("").succeeds().says("they are on release 1.1.0");
    assert_eq!(bench.transmitter.posts(), 1);
    let log = Http::new(bench.receiver.address(), PASSWORD).get("/api/logs").unwrap();
    assert!(log.json.to_string().contains("would change"), "{}", log.json);
}

#[test]
fn a_receiver_that_installs_is_updated_behind_the_transmitter_and_answers_are_not_needed() {
    let transmitter = Manner { answers: false, ..Manner::default() };
    let becomes = Becomes::OursWithKey;
    let receiver = Manner { answers: false, installs: true, becomes, ..Manner::default() };
    let bench = Bench::new(transmitter, receiver);
    let said = bench.adopt("--yes");
    said.succeeds().says("by way of its file system").says("The receiver runs 1.1.0");
    said.says("In this order they go on talking in between.");
    bench.assert_pair();
    assert_eq!((bench.transmitter.posts(), bench.receiver.posts()), (1, 1));
}

#[test]
fn a_lead_without_a_key_is_told_of_and_the_next_run_goes_on_when_it_has_one() {
    let receiver = Manner { installs: true, ..Manner::default() };
    let mut bench = Bench::new(Manner::default(), receiver);
    bench.adopt("--yes").fails().says("Neither of the two leads a group");
    // By cable, and with another firmware than the release's: that is the first rollout then.
    let other = firmware(Receiver, "1.0.9").make().bytes;
    bench.receiver.flash_by_cable(&other);
    bench.adopt("").succeeds().says("Kept: ");
    bench.assert_pair();
}

#[test]
fn who_is_not_what_it_was_said_to_be_gets_nothing() {
    let bench = Bench::new(Manner::default(), Manner { installs: true, ..Manner::default() });
    let (transmitter, receiver) = (bench.transmitter.address(), bench.receiver.address());
    let adopt = |line: &str| say(bench.folder.path(), &format!("adopt new.lockstep --yes {line}"));
    adopt(&format!("--transmitter {receiver}")).fails().says("is a receiver, not a transmitter");
    adopt(&format!("--receiver {transmitter}")).fails().says("is a transmitter, not a receiver");
    adopt("--transmitter 127.0.0.1:1").fails().says("does not answer");
    // A router's page, say.
    let page = page_at("<html>");
    adopt(&format!("--transmitter {page}")).fails().says("is no device of the original project");
    adopt("").says("No device is named");
    bench.assert_untouched();
}

#[test]
fn an_image_that_is_not_for_it_is_never_sent() {
    let bench = Bench::new(Manner::default(), Manner { installs: true, ..Manner::default() });
    let (transmitter, receiver) = (bench.transmitter.address(), bench.receiver.address());
    let adopt = |line: &str| {
        let line = format!("adopt --yes --transmitter {transmitter} --receiver {receiver} {line}");
        say(bench.folder.path(), &line)
    };
    adopt("--transmitter-image receiver.bin").fails().says("is firmware for the role `receiver`");
    adopt("--transmitter-image transmitter.bin").fails().says("no image for it");
    let large = firmware(Transmitter, "1.1.0").size(0x14_1000).make().bytes;
    fs::write(bench.path("large.bin"), large).unwrap();
    adopt("--receiver-image receiver.bin --transmitter-image large.bin")
        .fails()
        .says("has 1314816 bytes, the transmitter's slot is taken to have 1310720");
    let mut cut = fs::read(bench.path("transmitter.bin")).unwrap();
    cut.truncate(9000);
    fs::write(bench.path("cut.bin"), cut).unwrap();
    adopt("--transmitter-image cut.bin").fails().says("is not a whole firmware image");
    bench.assert_untouched();
}

#[test]
fn a_release_that_leaves_the_old_ones_behind_is_not_begun_without_a_word() {
    let images = BOTH.map(|role| firmware(role, "1.1.0").talks_to("1.1.0").make());
    let receiver = Manner { installs: true, ..Manner::default() };
    let bench = Bench::with(Manner::default(), receiver, images);
    let said = bench.adopt("--yes");
    said.fails().says("The two would not talk in between").says("needs it at 1.1.0 or newer");
    bench.assert_untouched();
}

#[test]
fn the_receiver_comes_first_where_only_that_keeps_them_talking() {
    // The new transmitter wants more of its peer than the old receiver is.
    let images = [
        firmware(Receiver, "1.1.0").make(),
        firmware(Transmitter, "1.1.0").talks_to("1.1.0").make(),
    ];
    let becomes = Becomes::OursWithKey;
    let receiver = Manner { installs: true, becomes, ..Manner::default() };
    let bench = Bench::with(Manner::default(), receiver, images);
    let said = bench.adopt("--yes");
    said.succeeds()
        .says("1. The receiver comes to 1.1.0")
        .says("2. The transmitter comes to 1.1.0");
    bench.assert_pair();
}

#[test]
fn a_device_that_dies_in_the_middle_of_its_image_gets_it_again() {
    let transmitter = Manner { dies_at: Some(20_000), ..Manner::default() };
    let bench = Bench::new(transmitter, Manner::default());
    let said = bench.adopt("--yes");
    said.fails().says("The upload was cut").says("The transmitter runs 1.1.0");
    assert_eq!(bench.transmitter.posts(), 2);
    assert_eq!(bench.version(Transmitter)["image"], bench.image(Transmitter).hash);
}

#[test]
fn a_device_that_does_not_come_back_is_the_last_that_is_touched() {
    for (becomes, says) in [
        (Becomes::Silent, "took the image, and has not answered"),
        (Becomes::Old, "runs its old firmware: the new one did not stay"),
        (Becomes::OnTrial, "runs 1.1.0 on trial, and does not get healthy"),
    ] {
        let receiver = Manner { installs: true, ..Manner::default() };
        let bench = Bench::new(Manner { becomes, ..Manner::default() }, receiver);
        let said = bench.adopt("--yes --wait 4");
        said.fails().says(says).says("the receiver at `").says("runs the original firmware, 1.0.0");
        assert_eq!(bench.receiver.posts(), 0);
    }
}

#[test]
fn two_at_once_do_not_disturb_each_other_and_one_that_is_killed_leaves_it_whole() {
    let chunk_takes = Duration::from_millis(4);
    let images =
        [firmware(Receiver, "1.1.0").make(), firmware(Transmitter, "1.1.0").size(1_200_000).make()];
    let transmitter = Manner { chunk_takes, ..Manner::default() };
    let bench = Bench::with(transmitter, Manner::default(), images);
    let mut first = bench.begin("--yes");
    wait("an upload", || bench.transmitter.posts() == 1);
    bench.adopt("--yes").fails().says("Another `lockstep adopt` is about");
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(bench.transmitter.is_old());
    // It goes on as soon as the old firmware has noticed.
    wait("the second run", || {
        let said = bench.adopt("--yes");
        said.text.contains("The transmitter runs 1.1.0")
            || said.text.contains("runs Lockstep, 1.1.0")
    });
    assert!(bench.transmitter.posts() > 1);
    assert_eq!(bench.version(Transmitter)["image"], bench.image(Transmitter).hash);
}

#[test]
fn a_network_is_asked_for_whoever_is_there() {
    let bench = Bench::new(Manner::default(), Manner::default());
    // Whoever else tests on this machine has other addresses.
    let port = TcpListener::bind("127.3.7.11:0").unwrap().local_addr().unwrap().port();
    let place = |last: u8| format!("127.3.7.{last}:{port}");
    let manner = || Manner { installs: true, ..Manner::default() };
    let folder = TempDir::new().unwrap();
    let _one = Fielded::new(folder.path(), Transmitter, &place(11), manner());
    let _two = Fielded::new(folder.path(), Receiver, &place(12), manner());
    let said = bench.lockstep(&format!("adopt --find 127.3.7.0/24 --port {port}"));
    said.succeeds().says(&place(11)).says(&place(12)).says("original");
    let adopt = format!("adopt new.lockstep --dry-run --find 127.3.7.0/24 --port {port}");
    bench.lockstep(&adopt).succeeds().says("1. The transmitter comes to 1.1.0");
    let more = TempDir::new().unwrap();
    let _three = Fielded::new(more.path(), Transmitter, &place(13), manner());
    bench.lockstep(&adopt).fails().says("There are several transmitters");
    let named = format!("{adopt} --transmitter {}", place(13));
    bench.lockstep(&named).succeeds();
}
