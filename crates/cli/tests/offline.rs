//! The commands that need no device, as a person sees them: whole outputs, refusals included, and
//! what the tools of others say about our files.
//!
//! Snapshots are brought up to date with `UPDATE_EXPECT=1 cargo test --test offline`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use expect_test::{Expect, ExpectFile, expect, expect_file};
use lockstep_proto::manifest::{
    GENERATION_BYTES, GenerationHash, MANIFEST_SIZE_BYTES_MAX, write_generations,
};
use tempfile::TempDir;

/// A folder to work in, with the keys of the golden release in it.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: TempDir::new().unwrap() };
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/tests/golden/release");
        for number in 1..=3 {
            for ending in ["key", "pub"] {
                let from = golden.join(format!("test-key-{number}.{ending}"));
                fs::copy(from, bench.path(&format!("key{number}.{ending}"))).unwrap();
            }
        }
        bench
    }

    /// With `receiver.bin` and `transmitter.bin` of version 1.2.0 of battery-link.
    fn with_images() -> Self {
        let bench = Self::new();
        bench.image("receiver", "esp32s3", "1.2.0", &[]);
        bench.image("transmitter", "esp32", "1.2.0", &[]);
        bench
    }

    /// With `good.lockstep`, signed by the first key.
    fn with_bundle() -> Self {
        let bench = Self::with_images();
        bench.ok(&format!("{CREATE} --key key1.key -o good.lockstep"));
        bench
    }

    fn image(&self, role: &str, chip: &str, version: &str, more: &[&str]) {
        let more = more.join(" ");
        self.ok(&format!(
            "image make --role {role} --chip {chip} --version {version} --product battery-link \
             --size 8K -o {role}.bin {more}"
        ));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Changes one byte of a file.
    fn damage(&self, from: &str, to: &str, at: usize) {
        let mut bytes = self.read(from);
        bytes[at] ^= 0x01;
        self.write(to, bytes);
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
        command.current_dir(self.folder.path()).args(line.split_whitespace());
        for name in ["LOCKSTEP_DEVICE", "LOCKSTEP_PASSWORD", "LOCKSTEP_KEY_PASSWORD"] {
            command.env_remove(name);
        }
        command.env("SOURCE_DATE_EPOCH", "1770129000").env("COLUMNS", "100");
        command
    }

    /// Everything a person sees of a command, and its exit code if it is not 0.
    fn run(&self, line: &str) -> String {
        shown(&self.command(line).output().unwrap())
    }

    fn ok(&self, line: &str) {
        let output = self.command(line).output().unwrap();
        assert!(output.status.success(), "{line}: {}", shown(&output));
    }

    fn check(&self, line: &str, expected: &impl Snapshot) {
        expected.matches(&steady(&self.run(line)));
    }
}

/// Without the hash of a signed bundle: no two signatures are the same.
fn steady(shown: &str) -> String {
    let is_bundle = shown.contains(".lockstep: bundle");
    let mut kept = String::new();
    for line in shown.lines().filter(|line| !is_bundle || !line.contains("file SHA-256")) {
        kept += line;
        kept += "\n";
    }
    kept
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

fn shown(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => text,
        code => text + &format!("exit {code:?}\n"),
    }
}

/// A release that is good but for its keys and its name.
const CREATE: &str = "release create --version 1.2.0 --sequence 7 \
                      --receiver receiver.bin --transmitter transmitter.bin";

/// A tool of others: what the variable says, or the first of that name on the path.
fn tool(variable: &str, name: &str) -> Option<PathBuf> {
    let found = match std::env::var_os(variable) {
        Some(path) => Some(PathBuf::from(path)),
        None => std::env::split_paths(&std::env::var_os("PATH")?)
            .map(|folder| folder.join(name))
            .find(|path| path.is_file()),
    };
    if found.is_none() {
        println!("skipped: there is no `{name}`, and {variable} is not set");
    }
    found
}

fn passes(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", shown(&output));
    shown(&output)
}

mod a_key {
    use super::*;

    #[test]
    fn is_never_written_over() {
        let bench = Bench::new();
        bench.check(
            "keygen --out key1 --no-password",
            &expect![[r#"
                Error: `key1.key` is there already
                Hint: A key that devices trust is worth keeping. Choose another name: --out NAME
                exit Some(1)
            "#]],
        );
        assert!(bench.read("key1.key").starts_with(b"untrusted comment: minisign"));
    }

    #[test]
    fn needs_a_password_or_a_word_that_it_has_none() {
        let bench = Bench::new();
        bench.check(
            "keygen --out new",
            &expect![[r#"
            Error: The key needs a password, and there is no terminal to ask on
            Hint: Set LOCKSTEP_KEY_PASSWORD, or use --password-stdin.
            exit Some(1)
        "#]],
        );
        assert!(!bench.path("new.key").exists());
        let output = bench.command("keygen --out new").env("LOCKSTEP_KEY_PASSWORD", "").output();
        assert!(shown(&output.unwrap()).starts_with("Error: The password is empty"));
    }

    #[test]
    fn that_is_secret_is_for_its_owner_only_and_inspect_does_not_show_it() {
        let bench = Bench::new();
        bench.ok("keygen --out new --no-password");
        let text = String::from_utf8(bench.read("new.key")).unwrap();
        let secret = text.lines().nth(1).unwrap();
        for line in ["inspect new.key", "--json inspect new.key"] {
            let shown = bench.run(line);
            assert!(shown.contains("secret") && !shown.contains(&secret[..20]), "{shown}");
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(bench.path("new.key")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn with_a_password_signs_only_with_it() {
        let bench = Bench::with_images();
        let made = bench.command("keygen --out new").env("LOCKSTEP_KEY_PASSWORD", "right").output();
        assert!(made.unwrap().status.success());
        let sign = |password: &str| {
            let line = format!("{CREATE} --key new.key -o {password}.lockstep");
            bench.command(&line).env("LOCKSTEP_KEY_PASSWORD", password).output().unwrap()
        };
        assert!(sign("right").status.success());
        expect![[r#"
            Error: Cannot use the secret key `new.key`
            Caused by: Wrong password for that key
            Hint: Its password comes from LOCKSTEP_KEY_PASSWORD or --password-stdin.
            exit Some(1)
        "#]]
        .assert_eq(&shown(&sign("wrong")));
        assert!(!bench.path("wrong.lockstep").exists());
        bench.ok("release verify right.lockstep --key new.pub");
    }

    #[test]
    fn of_the_wrong_kind_is_told_apart() {
        let bench = Bench::with_bundle();
        bench.check(
            &format!("{CREATE} --key key1.pub -o x.lockstep"),
            &expect![[r#"
            Error: `key1.pub` is a public key, it cannot sign
            Hint: The secret key is the file of the same name that ends in `.key`.
            exit Some(1)
        "#]],
        );
        bench.check(
            "release verify good.lockstep --key key1.key",
            &expect![[r#"
            Error: `key1.key` is a secret key
            Hint: Give the public key: the file of the same name that ends in `.pub`.
            exit Some(1)
        "#]],
        );
        bench.check(
            "release verify good.lockstep --key receiver.bin",
            &expect![[r#"
                Error: `receiver.bin` is larger than 4096 bytes, the limit for what it is read as
                Hint: Is it the right file? See `lockstep inspect`.
                exit Some(1)
            "#]],
        );
    }
}

mod inspect {
    use super::*;

    #[test]
    fn tells_what_an_image_is() {
        let bench = Bench::with_images();
        bench.check(
            "inspect receiver.bin",
            &expect![[r#"
                receiver.bin: firmware image, receiver 1.2.0
                  chip           ESP32-S3
                  system         battery-link
                  role           receiver
                  board          t-display-s3
                  version        1.2.0 (number 10200)
                  talks to       0.0.0 or newer, protocol 1
                  epoch          0
                  config schema  0
                  built as       battery-link 1.2.0
                  built          Jan  1 2026 12:00:00, ESP-IDF lockstep-desk
                  flash          DIO, 4 MiB
                  size           8192 bytes; fits a slot of 0x140000, fits a slot of 0x1E0000
                  image hash     f8809352bbf11ef14206963908f9caf5593e061b6022a5fd62b5c8c43e5b211b
                  file SHA-256   1a3c8846366d256c6d6a928ed598a986ba1b24de1d7b792b96085a9477eae2f0
                  ELF SHA-256    d5acf5295ae0ad4a5069adda1fc8cd9e52f64df058aa59e5db0ba330aedf37fc
            "#]],
        );
    }

    #[test]
    fn tells_what_a_bundle_is_and_who_signed_it() {
        let bench = Bench::with_bundle();
        bench.check(
            "inspect good.lockstep --key key1.pub",
            &expect_file!["snapshots/tells_what_a_bundle_is_and_who_signed_it.txt"],
        );
    }

    // L30: the error page of a server, saved under the name of a firmware.
    #[test]
    fn calls_a_web_page_a_web_page() {
        let bench = Bench::new();
        bench.write("firmware.bin", "<!DOCTYPE html>\n<html><body>404 Not Found</body></html>");
        bench.check(
            "inspect firmware.bin",
            &expect_file!["snapshots/calls_a_web_page_a_web_page.txt"],
        );
    }

    #[test]
    fn tells_where_a_file_was_cut_or_damaged() {
        let bench = Bench::with_images();
        bench.write("cut.bin", &bench.read("receiver.bin")[..5000]);
        bench.damage("receiver.bin", "damaged.bin", 6000);
        bench.check(
            "inspect cut.bin damaged.bin",
            &expect![[r#"
                cut.bin: firmware image, not whole
                  chip           ESP32-S3
                  role           receiver
                  version        1.2.0 (number 10200)
                  size           5000 bytes in the file
                  Wrong: the `image` ends after 5000 bytes, its headers call for 8192
                  Hint: The file was cut off. Copy or download it again.
                damaged.bin: firmware image, not whole
                  chip           ESP32-S3
                  role           receiver
                  version        1.2.0 (number 10200)
                  size           8192 bytes in the file
                  Wrong: the `checksum` of the image is 0x16, its data gives 0x17
                  Hint: The file was damaged. Build, copy or download it again.
                exit Some(1)
            "#]],
        );
    }

    #[test]
    fn tells_what_it_does_not_know() {
        let bench = Bench::new();
        bench.write("empty", "");
        bench.write("noise", [0x11; 300]);
        bench.write("table", [&[0xAA, 0x50][..], &[7; 62]].concat());
        bench.check(
            "inspect empty noise table missing",
            &expect![[r#"
            empty: an empty file
              Wrong: the file has 0 bytes
            noise: not a file of ours
              Wrong: the `image` begins with 0x11, expected 0xe9
            table: partition table
              Wrong: row 1 of the `partition table` begins with 07 07, expected aa 50
            Error: Cannot read `missing`
            Caused by: No such file or directory (os error 2)
            exit Some(1)
        "#]],
        );
    }

    // L15: an image just over the slot.
    #[test]
    fn gives_both_numbers_where_an_image_does_not_fit() {
        let bench = Bench::new();
        bench.ok("image make --role r --chip esp32 --version 1.0.0 --size 0x140010 -o big.bin");
        let shown = bench.run("inspect big.bin");
        assert!(shown.contains("16 too many for a slot of 0x140000 (1310720)"), "{shown}");
        assert!(shown.contains("fits a slot of 0x1E0000"), "{shown}");
    }

    #[test]
    fn speaks_json() {
        let bench = Bench::with_images();
        let shown = bench.run("inspect receiver.bin --json");
        let value: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(value[0]["kind"], "image");
        assert_eq!(value[0]["facts"]["descriptor"]["version_number"], 10_200);
        assert_eq!(value[0]["problems"], serde_json::json!([]));
    }

    #[test]
    fn reads_the_partition_table_of_a_whole_flash() {
        use lockstep_proto::partition::{PartitionTable, TABLE_BYTES};

        let bench = Bench::with_images();
        let mut table = [0; TABLE_BYTES];
        PartitionTable::desk_table().write(&mut table);
        let mut flash = vec![0xFF; 4 << 20];
        flash[0x8000..][..TABLE_BYTES].copy_from_slice(&table);
        let image = bench.read("receiver.bin");
        flash[0x1_0000..][..image.len()].copy_from_slice(&image);
        bench.write("flash.bin", flash);
        bench.check(
            "inspect flash.bin",
            &expect_file!["snapshots/reads_the_partition_table_of_a_whole_flash.txt"],
        );
    }
}

mod image_make {
    use super::*;

    #[test]
    fn makes_the_same_bytes_of_the_same_words() {
        let bench = Bench::with_images();
        let first = bench.read("receiver.bin");
        bench.image("receiver", "esp32s3", "1.2.0", &[]);
        assert_eq!(bench.read("receiver.bin"), first);
        bench.image("receiver", "esp32s3", "1.2.0", &["--build", "1"]);
        assert_ne!(bench.read("receiver.bin"), first);
    }

    #[test]
    fn says_what_it_does_not_take() {
        let bench = Bench::new();
        let make = |words: &str| {
            let basic = "image make --role r --chip esp32 --version 1.0.0 -o x.bin";
            bench.run(&format!("{basic} {words}"))
        };
        expect_file!["snapshots/says_what_it_does_not_take.txt"]
            .assert_eq(&make("--fault explodes"));
        expect![[r#"
            Error: Cannot make the image
            Caused by: firmware of 64 bytes: must have 4096 to 16777216
            Hint: Give another `--size`, for example `--size 256K`.
            exit Some(1)
        "#]]
        .assert_eq(&make("--size 64"));
        expect_file!["snapshots/says_what_it_does_not_take-2.txt"]
            .assert_eq(&bench.run("image make --role r --chip esp8266 --version 1.0.0 -o x.bin"));
        expect_file!["snapshots/says_what_it_does_not_take-3.txt"]
            .assert_eq(&bench.run("image make --role r --chip esp32 --version 1.0.100 -o x.bin"));
    }

    #[test]
    fn makes_images_that_esptool_finds_whole() {
        let Some(esptool) = tool("LOCKSTEP_ESPTOOL", "esptool") else { return };
        let bench = Bench::with_images();
        for (name, chip) in [("receiver.bin", "ESP32-S3"), ("transmitter.bin", "ESP32")] {
            let said = passes(Command::new(&esptool).arg("image-info").arg(bench.path(name)));
            assert!(said.contains(&format!("Detected image type: {chip}")), "{said}");
            assert!(!said.to_lowercase().contains("invalid"), "{said}");
            assert_eq!(said.to_lowercase().matches("(valid)").count(), 2, "{said}");
        }
    }
}

mod secure_boot {
    use super::*;

    fn espsecure(bench: &Bench, line: &str) -> Option<String> {
        let esptool = tool("LOCKSTEP_ESPTOOL", "esptool")?;
        let espsecure = Some(esptool.with_file_name("espsecure")).filter(|it| it.is_file())?;
        let mut command = Command::new(espsecure);
        Some(passes(command.current_dir(bench.path("")).args(line.split_whitespace())))
    }

    /// The digests that `espsecure` prints, in hex without gaps.
    fn digests(said: &str) -> Vec<String> {
        let line = |line: &str| {
            let (_, digest) = line.split_once("Public key digest for block")?.1.split_once(": ")?;
            Some(digest.split_whitespace().collect())
        };
        said.lines().filter_map(line).collect()
    }

    #[test]
    fn whoever_has_signed_an_image_is_shown_as_espsecure_shows_it() {
        let bench = Bench::with_images();
        for (scheme, name) in
            [("rsa3072", "RSA-3072"), ("ecdsa256", "ECDSA-256"), ("ecdsa384", "ECDSA-384")]
        {
            let sign = "sign-data --version 2 --keyfile";
            for key in ["one", "two"] {
                let make = format!("generate-signing-key --version 2 --scheme {scheme} {key}.pem");
                let _ = fs::remove_file(bench.path(&format!("{key}.pem")));
                let Some(_) = espsecure(&bench, &make) else { return };
            }
            espsecure(&bench, &format!("{sign} one.pem --output signed.bin receiver.bin"));
            espsecure(&bench, &format!("{sign} two.pem --append-signatures signed.bin"));
            let said = espsecure(&bench, "signature-info-v2 signed.bin").unwrap();
            let expected = digests(&said);
            assert_eq!(expected.len(), 2, "{said}");
            let shown = bench.run("inspect signed.bin");
            for digest in expected {
                let line = format!("v2, {name}, key digest {digest}; made for this image");
                assert!(shown.contains(&line), "`{line}` is not in {shown}");
            }
            // The second block counts too.
            bench.damage("signed.bin", "damaged.bin", bench.read("signed.bin").len() - 2000);
            let shown = bench.run("inspect damaged.bin");
            assert!(shown.contains("signature block 1 does not count: it was damaged"), "{shown}");
        }
        // Whatever is changed afterwards is not what was signed.
        bench.damage("signed.bin", "changed.bin", bench.read("signed.bin").len() - 4090);
        let shown = bench.run("inspect changed.bin");
        assert!(shown.contains("is not this image's: it was damaged"), "{shown}");
    }
}

mod image_merge {
    use super::*;

    /// With `receiver.bin` for a `c3-devkit`.
    fn bench() -> Bench {
        let bench = Bench::new();
        bench.image("receiver", "esp32c3", "1.2.0", &["--board", "c3-devkit"]);
        bench
    }

    /// What is between `from` and the end, without the 0xFF behind it.
    fn piece(flash: &[u8], from: usize, end: usize) -> &[u8] {
        let piece = &flash[from..end];
        let length = piece.iter().rposition(|&byte| byte != 0xFF).map_or(0, |last| last + 1);
        &piece[..length]
    }

    /// As the chip's ROM, the bootloader and the firmware find it: all where ESP-IDF has it.
    #[test]
    fn puts_all_of_a_board_where_the_chip_looks_for_it() {
        let bench = bench();
        bench.write("password", "long enough");
        bench.check(
            "image merge --app receiver.bin --password-file password -o flash.bin",
            &expect_file!["snapshots/puts_all_of_a_board_where_the_chip_looks_for_it.txt"],
        );
        let flash = bench.read("flash.bin");
        assert_eq!(flash.len(), 4 << 20);
        assert!(flash.starts_with(&[0xE9]));
        assert!(flash[0x1_0000..].starts_with(&bench.read("receiver.bin")));
        // Nothing is selected, so `ota_0` boots; the other slot is empty.
        assert!(flash[0xE000..0x1_0000].iter().all(|&byte| byte == 0xFF));
        assert!(flash[0x1F_0000..0x3D_0000].iter().all(|&byte| byte == 0xFF));
        let table = include_bytes!("../../proto/tests/golden/partition-table-desk.bin");
        assert!(flash[0x8000..].starts_with(table));
    }

    #[test]
    fn says_which_net_the_bootloader_is_and_what_it_is_known_from() {
        let bench = bench();
        bench.ok("image merge --app receiver.bin -o flash.bin");
        let mut bootloader = piece(&bench.read("flash.bin"), 0, 0x8000).to_vec();
        // Another build of it: a byte of its text, and the checksum that goes with it.
        let at = bootloader.windows(5).position(|text| text == b"abort").unwrap();
        bootloader[at] ^= 1;
        let end = bootloader.len() - 32;
        bootloader[end - 1] ^= 1;
        let hash = <sha2::Sha256 as sha2::Digest>::digest(&bootloader[..end]);
        bootloader[end..].copy_from_slice(&hash);
        bench.write("boot.bin", &bootloader);
        let merge = "image merge --app receiver.bin -o flash.bin --bootloader boot.bin";
        let strict = format!("{merge} --require-rollback");
        bench.check(merge, &expect_file!["snapshots/says_which_net_the_bootloader_is.txt"]);
        fs::create_dir(bench.path("config")).unwrap();
        bench.write("config/sdkconfig.json", r#"{"BOOTLOADER_APP_ROLLBACK_ENABLE": true}"#);
        bench.check(&strict, &expect_file!["snapshots/says_which_net_the_bootloader_is-2.txt"]);
        bench.write("config/sdkconfig.json", r#"{"BOOTLOADER_APP_ROLLBACK_ENABLE": false}"#);
        bench.check(&strict, &expect_file!["snapshots/says_which_net_the_bootloader_is-3.txt"]);
    }

    #[test]
    fn refuses_what_does_not_belong_together() {
        let bench = bench();
        bench.image("transmitter", "esp32", "1.2.0", &[]);
        let refusal = |options: &str| {
            bench.run(&format!("image merge --app receiver.bin -o other.bin {options}"))
        };
        bench.ok("image merge --app transmitter.bin -o esp32.bin");
        bench.write("boot.bin", piece(&bench.read("esp32.bin"), 0x1000, 0x8000));
        expect![[r#"
            Error: `boot.bin` is a bootloader for ESP32, the firmware is for ESP32-C3
            Hint: Take the one from your build for this chip.
            exit Some(1)
        "#]]
        .assert_eq(&refusal("--bootloader boot.bin"));
        expect![[r#"
            Error: `receiver.bin` is an application, no bootloader
            Hint: Give it with --app.
            exit Some(1)
        "#]]
        .assert_eq(&refusal("--bootloader receiver.bin"));
        expect![[r#"
            Error: `receiver.bin` is for board `c3-devkit`, the board is `c6-devkit`
            Hint: Give the firmware for it, or leave out --board c6-devkit.
            exit Some(1)
        "#]]
        .assert_eq(&refusal("--board c6-devkit"));
        expect![[r#"
            Error: `receiver.bin` is for role `receiver`, the board is `transmitter`
            Hint: Give the firmware for it, or leave out --role transmitter.
            exit Some(1)
        "#]]
        .assert_eq(&refusal("--role transmitter --chip esp32c3"));
        expect![[r#"
            Error: `receiver.bin` is for chip `ESP32-C3`, the board is `ESP32`
            Hint: Give the firmware for it, or leave out --chip ESP32.
            exit Some(1)
        "#]]
        .assert_eq(&refusal("--chip esp32"));
        bench.write("page.bin", "<!DOCTYPE html>");
        let shown = bench.run("image merge --app page.bin -o other.bin");
        assert!(shown.contains("`page.bin` is no firmware"), "{shown}");
        assert!(!bench.path("other.bin").exists());
    }

    #[test]
    fn refuses_a_partition_table_that_a_board_cannot_be_updated_with() {
        let bench = bench();
        let refusal = |rows: &str| {
            bench.write("table.csv", rows);
            let shown = bench.run("image merge --app receiver.bin --table table.csv -o other.bin");
            let (what, hint) = shown.split_once("Hint: ").unwrap();
            assert!(hint.contains("--table"), "{hint}");
            what.to_owned()
        };
        let otadata = "otadata,data,ota,0xe000,0x2000,";
        let (one, two) = ("a,app,ota_0,0x10000,1M,", "b,app,ota_1,0x110000,1M,");
        let record = "lockstep,data,undefined,0x210000,0x10000,";
        let table = |rows: &[&str]| refusal(&format!("{}\n", rows.join("\n")));
        expect![[r#"
            Error: A board with the partition table `table.csv` cannot be updated
            - the `partition table` has no otadata partition of 0x2000 bytes
        "#]]
        .assert_eq(&table(&["factory,app,factory,0x10000,1M,"]));
        expect![[r#"
            Error: A board with the partition table `table.csv` cannot be updated
            - the `partition table` has 1 ota slots, an update needs 2
        "#]]
        .assert_eq(&table(&[otadata, one, record]));
        expect![[r#"
            Error: A board with the partition table `table.csv` cannot be updated
            - the `partition table` has no otadata partition of 0x2000 bytes
        "#]]
        .assert_eq(&table(&[one, two, record]));
        let shown = table(&[otadata, one, two]);
        assert!(shown.contains("has room for the record: the largest has 0x0 bytes"), "{shown}");
        let small = ["a,app,ota_0,0x10000,4K,", "b,app,ota_1,0x20000,4K,"];
        expect![[r#"
            Error: `receiver.bin` has 8192 bytes, the smaller slot has 4096 (0x1000)
        "#]]
        .assert_eq(&table(&[otadata, small[0], small[1], record]));
        expect![[r#"
            Error: `table.csv` is no partition table that a board can have
            Caused by: Two partitions are overlapping each other: 'a' and 'b'
        "#]]
        .assert_eq(&table(&[otadata, one, "b,app,ota_1,0x100000,1M,", record]));
        expect![[r#"
            Error: `table.csv` is no partition table that a board can have
            Caused by: The partition is not correctly aligned
        "#]]
        .assert_eq(&table(&[otadata, "a,app,ota_0,0x11000,1M,", two, record]));
        assert!(!bench.path("other.bin").exists());
        bench.write("table.csv", [otadata, one, two, record].join("\n"));
        bench.ok("image merge --app receiver.bin --table table.csv -o other.bin");
    }

    /// Both images by esptool, the tables by Espressif's own code.
    #[test]
    fn makes_what_the_tools_of_espressif_find_whole() {
        let Some(esptool) = tool("LOCKSTEP_ESPTOOL", "esptool") else { return };
        let Some(python) = tool("LOCKSTEP_PYTHON", "no-such-python") else { return };
        let bench = bench();
        bench.write("table.csv", TABLE_CSV);
        for options in ["", "--table table.csv"] {
            bench.ok(&format!("image merge --app receiver.bin -o flash.bin {options}"));
            let flash = bench.read("flash.bin");
            bench.write("boot.bin", piece(&flash, 0, 0x8000));
            bench.write("app.bin", piece(&flash, 0x1_0000, 0x20_0000));
            for image in ["boot.bin", "app.bin"] {
                let said = passes(Command::new(&esptool).arg("image-info").arg(bench.path(image)));
                assert!(said.contains("Detected image type: ESP32-C3"), "{said}");
                assert_eq!(said.to_lowercase().matches("(valid)").count(), 2, "{said}");
                assert!(image != "boot.bin" || said.contains("Flash size: 4MB"), "{said}");
            }
            let mut check = Command::new(&python);
            check.arg("-c").arg(ESPRESSIFS_RULES).arg(bench.path("flash.bin"));
            let said = passes(check.args((!options.is_empty()).then(|| bench.path("table.csv"))));
            assert!(said.contains("lockstep"), "{said}");
        }
    }

    const TABLE_CSV: &str = "\
# Name, Type, SubType, Offset, Size, Flags
nvs,      data, nvs,       ,         20K,
otadata,  data, ota,       ,         8K,
one,      app,  ota_0,     ,         1M,
other,    app,  ota_1,     ,         1M,
lockstep, data, undefined, ,         64K,
";

    /// Of a whole flash, and of the CSV that its table is of, if there is one.
    const ESPRESSIFS_RULES: &str = "
import sys
from esp_idf_defs.partitions import PartitionTable
found = open(sys.argv[1], 'rb').read()[0x8000:0x8C00]
table = PartitionTable.from_binary(found)
table.verify(partition_table_offset=0x8000)
table.verify_size_fits(4 << 20)
assert table.to_binary() == found
for csv in sys.argv[2:]:
    assert PartitionTable.from_csv(open(csv).read()).to_binary() == found
print(table.to_csv())
";
}

mod flash {
    use super::*;

    #[test]
    fn says_which_port_it_cannot_open() {
        let bench = Bench::new();
        bench.image("receiver", "esp32c3", "1.2.0", &[]);
        expect![[r#"
            Error: Cannot open the port `/dev/no-such-port`
            Caused by: No such file or directory
            Hint: Is the board connected, by a cable that carries data? Or leave --port out.
            exit Some(1)
        "#]]
        .assert_eq(&bench.run("flash --app receiver.bin --port /dev/no-such-port"));
        expect![[r#"
            Error: Cannot open the port `receiver.bin`
            Caused by: Not a typewriter
            Hint: Is it a serial port, with a board at it?
            exit Some(1)
        "#]]
        .assert_eq(&bench.run("flash --app receiver.bin --port receiver.bin"));
    }

    /// What is wrong with the files is said before there is a board.
    #[test]
    fn looks_at_its_files_first() {
        let bench = Bench::new();
        bench.image("receiver", "esp32c3", "1.2.0", &[]);
        bench.image("transmitter", "esp32", "1.2.0", &[]);
        let shown = bench.run("flash --app receiver.bin --bootloader transmitter.bin --port none");
        assert!(shown.contains("is a bootloader for ESP32"), "{shown}");
        bench.write("table.csv", "factory,app,factory,0x10000,1M,\n");
        let shown = bench.run("flash --app receiver.bin --table table.csv --port none");
        assert!(shown.contains("cannot be updated"), "{shown}");
    }
}

mod release_create {
    use super::*;

    #[test]
    fn makes_a_bundle_with_the_lead_at_its_end() {
        let bench = Bench::with_images();
        bench.check(
            &format!("{CREATE} --key key1.key --key key2.key -o good.lockstep"),
            &expect![[r#"
            Wrote good.lockstep: 23040 bytes, transmitter 1.2.0 and receiver 1.2.0
            Signed by key EEE7B8A8C4C106DD and F51ECAEA3C751D43
        "#]],
        );
        bench.check(
            "release verify good.lockstep --key key1.pub --key key2.pub",
            &expect![[r#"
            `good.lockstep` is good: battery-link 1.2.0, signed by 2 trusted keys
        "#]],
        );
        bench.check(
            "release show good.lockstep",
            &expect_file!["snapshots/makes_a_bundle_with_the_lead_at_its_end.txt"],
        );
    }

    /// The manifest of a bundle, which is its first file.
    fn manifest_of(bundle: &[u8]) -> serde_json::Value {
        let size = str::from_utf8(&bundle[124..135]).unwrap();
        let size = usize::from_str_radix(size, 8).unwrap();
        assert!(size <= MANIFEST_SIZE_BYTES_MAX, "{size}");
        serde_json::from_slice(&bundle[512..512 + size]).unwrap()
    }

    fn list_of(file: &[u8]) -> String {
        let mut text = String::new();
        let hashes = file.chunks(GENERATION_BYTES as usize).map(GenerationHash::of);
        write_generations(hashes, &mut text).unwrap();
        text
    }

    #[test]
    fn names_the_hash_of_every_generation_of_every_image() {
        let bench = Bench::new();
        bench.image("transmitter", "esp32", "1.2.0", &[]);
        bench.ok(
            "image make --role receiver --chip esp32s3 --version 1.2.0 --product battery-link \
             --size 60K -o receiver.bin",
        );
        bench.ok(&format!("{CREATE} --key key1.key -o good.lockstep"));
        let manifest = manifest_of(&bench.read("good.lockstep"));
        for (role, generations) in [("receiver", 3), ("transmitter", 1)] {
            let list = manifest["devices"][role]["generations_sha256"].as_str().unwrap();
            assert_eq!(list, list_of(&bench.read(&format!("{role}.bin"))));
            assert_eq!(list.len(), (generations * 8_usize).div_ceil(3) * 4);
        }
    }

    // A device holds a manifest in memory: what has no room is what can be done without.
    #[test]
    fn leaves_out_hashes_of_generations_that_the_manifest_has_no_room_for() {
        let bench = Bench::new();
        let roles = ["a", "b", "c", "d", "e", "receiver"];
        let mut line = "release create --version 1.2.0 --unsigned -o big.lockstep".to_owned();
        for role in roles {
            bench.ok(&format!(
                "image make --role {role} --chip esp32 --version 1.2.0 --product battery-link \
                 --size 600K -o {role}.bin"
            ));
            line += &format!(" --artifact {role}={role}.bin");
        }
        line += &format!(" --description {}", "x".repeat(2_000));
        let said = bench.run(&line);
        let manifest = manifest_of(&bench.read("big.lockstep"));
        let has_list = |role: &&str| manifest["devices"][role]["generations_sha256"].is_string();
        let listed = roles.iter().take_while(|role| has_list(role)).count();
        assert!((1..roles.len()).contains(&listed), "{manifest}");
        assert!(!roles[listed..].iter().any(has_list), "the lead's goes first: {manifest}");
        let told = "has no room for the hashes of generations of";
        assert!(said.contains(told) && said.contains("`receiver`"), "{said}");
    }

    #[test]
    fn makes_a_bundle_that_tar_lists_and_minisign_verifies() {
        let Some(minisign) = tool("LOCKSTEP_MINISIGN", "minisign") else { return };
        let Some(tar) = tool("LOCKSTEP_TAR", "tar") else { return };
        let bench = Bench::with_bundle();
        let folder = bench.folder.path();
        passes(Command::new(tar).current_dir(folder).args(["xf", "good.lockstep"]));
        assert_eq!(bench.read("transmitter.bin").len(), 8192);
        let mut verify = Command::new(minisign);
        verify.current_dir(folder).args(["-Vm", "manifest.json", "-p", "key1.pub"]);
        let said = passes(&mut verify);
        assert!(said.contains("Trusted comment: battery-link 1.2.0, sequence 7"), "{said}");
        bench.write("manifest.json", String::from_utf8(bench.read("manifest.json")).unwrap() + " ");
        assert!(!verify.output().unwrap().status.success());
    }

    #[test]
    fn signs_with_a_key_that_minisign_made_and_minisign_with_one_of_ours() {
        let Some(minisign) = tool("LOCKSTEP_MINISIGN", "minisign") else { return };
        let bench = Bench::with_images();
        let mut run = Command::new(&minisign);
        passes(run.current_dir(bench.folder.path()).args(["-GW", "-p", "m.pub", "-s", "m.key"]));
        bench.ok(&format!("{CREATE} --key m.key -o m.lockstep"));
        bench.ok("release verify m.lockstep --key m.pub");

        bench.ok("keygen --out ours --no-password");
        let mut run = Command::new(&minisign);
        passes(run.current_dir(bench.folder.path()).args([
            "-Sm",
            "receiver.bin",
            "-s",
            "ours.key",
        ]));
        let mut run = Command::new(&minisign);
        passes(run.current_dir(bench.folder.path()).args([
            "-Vm",
            "receiver.bin",
            "-p",
            "ours.pub",
        ]));
    }

    #[test]
    fn needs_a_key_or_a_word_that_there_is_none() {
        let bench = Bench::with_images();
        bench.check(
            &format!("{CREATE} -o x.lockstep"),
            &expect![[r#"
            Error: No key is given to sign the release with
            Hint: Sign it with --key FILE.key (made by `lockstep keygen`), or say --unsigned.
            exit Some(2)
        "#]],
        );
        bench.check(
            &format!("{CREATE} --unsigned -o x.lockstep"),
            &expect![[r#"
            Wrote x.lockstep: 20992 bytes, transmitter 1.2.0 and receiver 1.2.0
            Not signed: only devices without a key will take it
        "#]],
        );
        bench.check(
            "release verify x.lockstep --key key1.pub",
            &expect![[r#"
                Error: `x.lockstep` is not a good bundle
                - `manifest` is not signed, expected signatures by 1 trusted keys
                  Hint: Sign it: lockstep release create --key
                exit Some(1)
            "#]],
        );
    }

    #[test]
    fn refuses_to_replace_a_release() {
        let bench = Bench::with_bundle();
        let before = bench.read("good.lockstep");
        bench.check(
            &format!("{CREATE} --unsigned -o good.lockstep"),
            &expect![[r#"
            Error: `good.lockstep` is there already
            Hint: A release that was given out must not change. To replace the file: --overwrite
            exit Some(1)
        "#]],
        );
        assert_eq!(bench.read("good.lockstep"), before);
        bench.ok(&format!("{CREATE} --unsigned --overwrite -o good.lockstep"));
        assert_ne!(bench.read("good.lockstep"), before);
    }

    // L9: the right chip, but the firmware of the other role.
    #[test]
    fn refuses_an_image_of_another_role() {
        let bench = Bench::with_images();
        bench.check(
            "release create --version 1.2.0 --unsigned --receiver transmitter.bin -o x.lockstep",
            &expect_file!["snapshots/refuses_an_image_of_another_role.txt"],
        );
        assert!(!bench.path("x.lockstep").exists());
    }

    #[test]
    fn refuses_one_image_for_two_roles() {
        let bench = Bench::new();
        bench.write("plain.bin", plain_image());
        bench.check(
            "release create --version 1.2.0 --unsigned --receiver plain.bin \
             --transmitter plain.bin -o x.lockstep",
            &expect_file!["snapshots/refuses_one_image_for_two_roles.txt"],
        );
    }

    // L25: the label says something other than the binary.
    #[test]
    fn refuses_a_label_that_is_not_what_the_image_says() {
        let bench = Bench::with_images();
        bench.check(
            &format!("{CREATE} --unsigned --role-version receiver=1.3.0 -o x.lockstep"),
            &expect![[r#"
                Error: `receiver.bin` says `1.2.0` in its descriptor, --role-version says `1.3.0`
                Hint: Leave out --role-version, or give the image that it was meant for.
                exit Some(1)
            "#]],
        );
        bench.check(
            &format!("{CREATE} --unsigned --epoch 3 -o x.lockstep"),
            &expect![[r#"
            Error: `transmitter.bin` is of epoch 0, the release of 3
            Hint: Build all firmware of a release with the same epoch.
            exit Some(1)
        "#]],
        );
        bench.check(
            &format!("{CREATE} --unsigned --system other -o x.lockstep"),
            &expect_file!["snapshots/refuses_a_label_that_is_not_what_the_image_says.txt"],
        );
    }

    // L1: two ends that do not understand each other, shipped together.
    #[test]
    fn refuses_devices_that_would_not_talk_to_each_other() {
        let bench = Bench::with_images();
        bench.image("receiver", "esp32s3", "1.2.0", &["--protocol 2..3"]);
        bench.check(
            &format!("{CREATE} --unsigned -o x.lockstep"),
            &expect_file!["snapshots/refuses_devices_that_would_not_talk_to_each_other.txt"],
        );
        bench.image("receiver", "esp32s3", "1.2.0", &["--min-compatible 1.2.1"]);
        bench.check(
            &format!("{CREATE} --unsigned -o x.lockstep"),
            &expect_file!["snapshots/refuses_devices_that_would_not_talk_to_each_other-2.txt"],
        );
    }

    #[test]
    fn refuses_a_web_page_as_firmware() {
        let bench = Bench::with_images();
        bench.write("receiver.bin", "<html><body>502 Bad Gateway</body></html>");
        bench.check(
            &format!("{CREATE} --unsigned -o x.lockstep"),
            &expect_file!["snapshots/refuses_a_web_page_as_firmware.txt"],
        );
    }

    #[test]
    fn refuses_roles_that_nobody_has() {
        let bench = Bench::with_images();
        bench.check(
            &format!("{CREATE} --unsigned --lead display -o x.lockstep"),
            &expect_file!["snapshots/refuses_roles_that_nobody_has.txt"],
        );
        bench.check(
            &format!("{CREATE} --unsigned --order receiver -o x.lockstep"),
            &expect![[r#"
            Error: --order names receiver; the release has transmitter and receiver
            Hint: Name every role once, or leave out --order to switch all together.
            exit Some(2)
        "#]],
        );
        bench.check(
            "release create --version 1.2.0 --unsigned -o x.lockstep",
            &expect![[r#"
            Error: No firmware image is given
            Hint: Name at least one: --receiver FILE, --transmitter FILE or --artifact ROLE=FILE
            exit Some(2)
        "#]],
        );
    }

    #[test]
    fn takes_the_version_of_an_image_that_says_nothing_from_the_command_line() {
        let bench = Bench::with_images();
        bench.write("plain.bin", plain_image());
        bench.ok("release create --version 12.2.0 --unsigned --receiver plain.bin --system be \
             --role-protocol receiver=2..4 --role-min receiver=12.0.0 -o x.lockstep");
        let shown = bench.run("release show x.lockstep");
        let expected = "receiver 12.2.0, ESP32-C3, 4336 bytes, protocol 2 to 4, talks to 12.0.0";
        assert!(shown.contains(expected), "{shown}");
    }

    #[test]
    fn carries_the_next_keys() {
        let bench = Bench::with_images();
        bench.ok(&format!(
            "{CREATE} --key key1.key --next-keys key2.pub --next-keys key3.pub \
             --next-threshold 1 -o x.lockstep"
        ));
        let shown = bench.run("release show x.lockstep");
        let expected = "1 of 2 must sign: F51ECAEA3C751D43 and EB52AAC84AAC73DA";
        assert!(shown.contains(expected), "{shown}");
    }

    /// A whole image for ESP32-C3 without our descriptor and without names.
    fn plain_image() -> Vec<u8> {
        use lockstep_proto::image::{
            AppDescription, ChipId, ImageHeader, ImageSpec, Segment, build_image,
        };

        let app = AppDescription::named(Default::default(), Default::default());
        let data = [7; 4000];
        let segments = [Segment { load_address: 0x3C00_0020, data: &data }];
        let header = ImageHeader::for_chip(ChipId::ESP32_C3, 0x4038_0000);
        let spec = ImageSpec { header, app: &app, descriptor: None, segments: &segments };
        let mut image = Vec::new();
        build_image(&spec, &mut |bytes| image.extend_from_slice(bytes)).unwrap();
        image
    }
}

mod release_verify {
    use super::*;

    #[test]
    fn refuses_a_key_that_did_not_sign() {
        let bench = Bench::with_bundle();
        bench.check(
            "release verify good.lockstep --key key2.pub",
            &expect![[r#"
                Error: `good.lockstep` is not a good bundle
                - `manifest` is signed by key `EEE7B8A8C4C106DD`, trusted is `F51ECAEA3C751D43`
                  Hint: Is it from somebody else, or is there a newer public key of theirs?
                exit Some(1)
            "#]],
        );
        bench.check(
            "release verify good.lockstep --key key1.pub --key key2.pub",
            &expect![[r#"
                Error: `good.lockstep` is not a good bundle
                - `manifest` is signed by 1 trusted keys, expected 2
                  Hint: Sign it with more of these keys, or say how many are enough: --threshold
                exit Some(1)
            "#]],
        );
        bench.check(
            "release verify good.lockstep --key key1.pub --key key2.pub --threshold 1",
            &expect![[r#"
                `good.lockstep` is good: battery-link 1.2.0, signed by 1 trusted key
            "#]],
        );
    }

    #[test]
    fn refuses_a_manifest_that_was_changed_after_it_was_signed() {
        let bench = Bench::with_bundle();
        let mut bytes = bench.read("good.lockstep");
        let at = find(&bytes, b"\"sequence\": 7") + 12;
        bytes[at] = b'9';
        bench.write("changed.lockstep", bytes);
        bench.check(
            "release verify changed.lockstep --key key1.pub",
            &expect_file!["snapshots/refuses_a_manifest_that_was_changed_after_it_was_signed.txt"],
        );
    }

    #[test]
    fn refuses_an_artifact_that_was_changed() {
        let bench = Bench::with_bundle();
        let length = bench.read("good.lockstep").len();
        bench.damage("good.lockstep", "damaged.lockstep", length - 3000);
        let shown = bench.run("release verify damaged.lockstep --key key1.pub");
        assert!(shown.contains("- `receiver.bin` has the SHA-256 "), "{shown}");
        assert!(shown.contains("- `receiver.bin`: the `checksum` of the image is"), "{shown}");
        assert!(shown.ends_with("exit Some(1)\n"), "{shown}");
    }

    // A member would refuse the image after a while, and nobody would know why.
    #[test]
    fn refuses_hashes_of_generations_that_are_not_the_images() {
        let bench = Bench::with_bundle();
        let mut bundle = bench.read("good.lockstep");
        let at = find(&bundle, b"\"generations_sha256\": \"") + 23;
        bundle[at..at + 4].copy_from_slice(b"AAAA");
        bench.write("lies.lockstep", bundle);
        let shown = bench.run("release verify lies.lockstep --key key1.pub");
        let lies = "- generation 0 of `transmitter.bin` is not what the manifest says";
        assert!(shown.contains(lies), "{shown}");
    }

    #[test]
    fn refuses_a_bundle_that_was_cut() {
        let bench = Bench::with_bundle();
        let bytes = bench.read("good.lockstep");
        bench.write("cut.lockstep", &bytes[..bytes.len() / 2]);
        bench.check(
            "release verify cut.lockstep --key key1.pub",
            &expect![[r#"
                Error: `cut.lockstep` is not a good bundle
                - `bundle` ends at byte 11008, before its end was reached
                  Hint: The file was cut off. Copy or download it again.
                exit Some(1)
            "#]],
        );
        bench.write("short.lockstep", &bytes[..300]);
        bench.check(
            "release verify short.lockstep --key key1.pub",
            &expect![[r#"
                Error: `short.lockstep` is not a good bundle
                - `bundle` ends at byte 300, before its end was reached
                  Hint: The file was cut off. Copy or download it again.
                exit Some(1)
            "#]],
        );
        bench.check(
            "release verify receiver.bin --key key1.pub",
            &expect_file!["snapshots/refuses_a_bundle_that_was_cut.txt"],
        );
    }

    #[test]
    fn notices_a_changed_byte_anywhere() {
        let bench = Bench::with_bundle();
        let length = bench.read("good.lockstep").len();
        for at in (0..length).step_by(length / 40) {
            bench.damage("good.lockstep", "damaged.lockstep", at);
            let output = bench.command("release verify damaged.lockstep --key key1.pub").output();
            let code = output.unwrap().status.code();
            assert_eq!(code, Some(1), "byte {at}");
        }
    }

    fn find(haystack: &[u8], needle: &[u8]) -> usize {
        haystack.windows(needle.len()).position(|window| window == needle).unwrap()
    }
}

mod update {
    use super::*;

    // Nobody listens there: what is refused is refused before anything is sent.
    const NOWHERE: &str = "--device 127.0.0.1:9";

    #[test]
    fn refuses_a_bad_bundle_before_it_talks_to_the_device() {
        let bench = Bench::with_bundle();
        let length = bench.read("good.lockstep").len();
        bench.damage("good.lockstep", "damaged.lockstep", length - 3000);
        let shown = bench.run(&format!("update damaged.lockstep {NOWHERE}"));
        assert!(shown.starts_with("Error: `damaged.lockstep` is not a good bundle\n"), "{shown}");
        assert!(shown.contains("Hint: Nothing was sent to the device"), "{shown}");
        bench.write("page.bin", "<html></html>");
        bench.check(
            &format!("update --receiver page.bin {NOWHERE}"),
            &expect_file!["snapshots/refuses_a_bad_bundle_before_it_talks_to_the_device.txt"],
        );
    }

    #[test]
    fn says_what_it_needs() {
        let bench = Bench::with_bundle();
        bench.check(
            &format!("update {NOWHERE}"),
            &expect![[r#"
            Error: Neither a bundle nor a firmware image is given
            Hint: Such as: lockstep update battery-link-1.2.0.lockstep --device 192.168.1.20
            exit Some(2)
        "#]],
        );
        bench.check(
            &format!("update good.lockstep --receiver x {NOWHERE}"),
            &expect![[r#"
            Error: Both a bundle and firmware images are given
            Hint: Give one bundle, or images with --receiver FILE and so on.
            exit Some(2)
        "#]],
        );
        bench.check(
            "update good.lockstep",
            &expect![[r#"
            error: the following required arguments were not provided:
              --device <ADDRESS>

            Usage: lockstep update --device <ADDRESS> <BUNDLE>

            For more information, try '--help'.
            exit Some(2)
        "#]],
        );
        bench.check(
            "status --device https://10.0.0.1",
            &expect![[r#"
                Error: `https://10.0.0.1` is not the address of a device
                Hint: Devices speak plain HTTP, and the signature protects a release. Use http://
                exit Some(2)
            "#]],
        );
    }

    #[test]
    fn says_how_to_go_on_when_the_device_is_not_there() {
        let bench = Bench::with_bundle();
        bench.check(
            &format!("update good.lockstep {NOWHERE}"),
            &expect![[r#"
            Error: Device `127.0.0.1:9` does not answer
            Caused by: Connection refused (os error 111)
            Hint: Is it on, in this network, and is that its address?
            exit Some(1)
        "#]],
        );
    }
}

#[test]
fn the_first_screen_is_what_one_needs_first() {
    let bench = Bench::new();
    expect![[r#"
        Update devices that must agree: all of a group move to a release together, or none does

        Usage: lockstep [OPTIONS] <COMMAND>

        Commands:
          keygen       Make a key pair for signing releases
          inspect      Say what a file is and what is wrong with it
          release      Make releases, and look into them
          image        Make firmware images for desk devices, and whole flashes for boards
          flash        Write all that a board needs over its serial port
          device       Run a desk device: a board as a process, its flash a file
          demo         Show what Lockstep does, on two desk devices
          adopt        Bring devices of the original project to Lockstep
          status       Show a group: its devices, what they run, whether they agree
          watch        Watch a group live, in the terminal
          update       Bring a group to a release, and wait until it is kept or reverted
          schedule     Say when a rollout that waits goes on
          abort        Stop the running rollout; the group goes back
          revert       Go back to the release before this one
          group        See and change groups: the one of a device, or all of a fleet
          config       Save the configuration of a device's application, or put one back
          password     Change a device's password
          history      List past rollouts and how they ended
          logs         Print the recent log of a device
          report       Save all that a device says of itself in one file, for a bug report
          serve        Look after many groups: releases, campaigns, and a console in the browser
          backup       Back up a server's folder into one file
          restore      Put a backup back into an empty folder
          login        Sign in to a fleet's server, so that other commands need only its name
          logout       Sign out of a fleet's server, and forget it
          publish      Upload releases to a fleet's server
          campaign     Bring many groups to a release in waves, with a fleet's server
          person       See who may sign in to a fleet's server, and let people in and out
          token        See and make what lets programs in to a fleet's server, and take it back
          audit        See who did what at a fleet's server, the newest first
          sim          Search simulated worlds for a rollout that breaks its promises
          bench        Measure what this program can do
          completions  Print a script that completes commands in a shell

        Options:
              --json     Print results as JSON, and errors too
          -h, --help     Print help (see more with '--help')
          -V, --version  Print version

        A release from two images, and its way onto a group:
          lockstep keygen --out team
          lockstep release create --system battery-link --version 1.2.0 --key team.key \
              --receiver receiver.bin --transmitter transmitter.bin -o battery-link-1.2.0.lockstep
          lockstep update battery-link-1.2.0.lockstep --device 192.168.1.20

        Exit codes: 0 done, 1 failed or refused, 2 wrong command line, 255 a bug.
    "#]]
    .assert_eq(&bench.run("-h"));
}

#[test]
fn errors_are_json_where_results_are() {
    let bench = Bench::new();
    let shown = bench.run("--json release show missing.lockstep");
    let json = shown.strip_suffix("exit Some(1)\n").unwrap();
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(value["error"]["message"], "Cannot read `missing.lockstep`");
}

#[test]
fn completions_know_every_command() {
    let bench = Bench::new();
    let script = bench.run("completions bash");
    for command in ["keygen", "inspect", "release", "update", "status", "abort", "revert"] {
        assert!(script.contains(&format!("lockstep__subcmd__{command}")), "{command}");
    }
}
