//! What fuzzing begins with: the golden files of the crates, and what no mutation would guess.

use lockstep_agent::MemberRecord;
use lockstep_agent::member::MEMBER_BYTES_MAX;
use lockstep_agent::package::Package;
use lockstep_delta::encode::{self, Image};
use lockstep_proto::manifest::Trust;
use lockstep_proto::otadata::{OtaEntry, OtaState};

use crate::node::{COMMANDS, Command};
use crate::world::{PASSWORD, password, releases};
use crate::{bundle, delta, frames, image, line, manifest, partition, record};

/// One input to begin with.
#[derive(Debug)]
pub struct Seed {
    /// For which target.
    pub target: &'static str,
    /// Tells it from the target's others.
    pub name: String,
    /// The input.
    pub bytes: Vec<u8>,
}

/// All of them.
pub fn all() -> Vec<Seed> {
    let targets: [(&'static str, Vec<Vec<u8>>); 11] = [
        ("frames", frames()),
        ("line", lines()),
        ("manifest", manifests()),
        ("bundle", bundles()),
        ("delta", patches()),
        ("image", images()),
        ("partition", partitions()),
        ("otadata", otadata()),
        ("record", records()),
        ("http", requests()),
        ("node", scripts()),
    ];
    let number = |(target, inputs): (&'static str, Vec<Vec<u8>>)| {
        let seed = move |(index, bytes)| Seed { target, name: format!("{index:02}"), bytes };
        inputs.into_iter().enumerate().map(seed)
    };
    targets.into_iter().flat_map(number).collect()
}

fn frames() -> Vec<Vec<u8>> {
    let inputs = [
        (frames::VERSION, VERSION_FRAMES, 0, 0),
        (frames::SIGNED, CONTROL_FRAMES, 6, frames::CONTROL_TAG_BYTES),
        (frames::ANY, BLOCK_FRAMES, 0, 0),
    ];
    let frame = |(choice, lines, header, tag): (u8, &'static str, usize, usize)| {
        lines.lines().map(move |line| {
            let frame = unhex(line.split(' ').next().unwrap_or_default());
            [&[choice][..], &frame[header..frame.len() - tag]].concat()
        })
    };
    // Their first byte says which of the kinds it is.
    let tagged = BLOCK_FRAMES.lines().map(|line| {
        let frame = unhex(line);
        let body = &frame[2..frame.len() - frames::BLOCK_TAG_BYTES];
        [&[frames::TAGGED, frame[0] - 0x50][..], body].concat()
    });
    inputs.into_iter().flat_map(frame).chain(tagged).collect()
}

fn lines() -> Vec<Vec<u8>> {
    let packets: Vec<Vec<u8>> = LINE_PACKETS
        .lines()
        .map(|line| unhex(line.split(' ').next().unwrap_or_default()))
        .collect();
    let text = b"rst:0x1 (POWERON_RESET)\r\n";
    let length = u8::try_from(text.len()).unwrap_or_default();
    let mixed = [&[line::PACKETS, length][..], text, &[3], &[0x40; 18], &[0, 1, 0, 1, 2, 3, 0, 0]];
    let whole = [&[line::LINE, 3, 1, 7, 0][..], text, &packets.concat()].concat();
    let each = packets.iter().map(|packet| [&[line::LINE, 0][..], packet].concat());
    each.chain([whole, mixed.concat()]).collect()
}

/// Two images that differ in little, their patches whole and as what is in them, of each format.
fn patches() -> Vec<Vec<u8>> {
    let old: Vec<u8> = (0..1024_u32).map(|at| ((at * at) >> 3).to_le_bytes()[0]).collect();
    let mut new = old.clone();
    new.splice(300..310, *b"something else");
    let image = |bytes| Image { bytes, id: [1; 32] };
    let front = |choice: u8| [&[choice, 64, 33][..], &old].concat();
    let with = |choice: u8, bytes: &[u8]| [front(choice), bytes.to_vec()].concat();
    let plain = encode::plain(&image(&old), &image(&new)).unwrap_or_default();
    let full = encode::full(&image(&new)).unwrap_or_default();
    // A copy, an insertion, a step, a copy: 28 bytes; and before that what says where code lies.
    let length = 28_u16.to_le_bytes();
    let stream = [&[20][..], &[0; 20], &[3, 1, 2, 3, 10, 5], &[0; 5]].concat();
    let aware = [&[0, 1, 0, 41, 0x80, 0x80, 2, 1, 0, 41, 0x80, 0x80, 2, 0][..], &stream].concat();
    vec![
        with(delta::PATCH, &plain),
        [&[delta::PATCH, 0, 5][..], &full].concat(),
        with(delta::PLAIN, &[&length, &stream[..]].concat()),
        with(delta::AWARE, &[&length, &aware[..]].concat()),
        with(delta::IMAGES, &new),
    ]
}

fn manifests() -> Vec<Vec<u8>> {
    let with = |choice: u8, bytes: &[u8]| [&[choice][..], bytes].concat();
    vec![
        with(manifest::MANIFEST, manifest::GOLDEN_MANIFEST),
        with(manifest::MANIFEST, PLAN),
        with(manifest::MANIFEST, ODD_MANIFEST.as_bytes()),
        with(manifest::SIGNATURE, manifest::GOLDEN_SIGNATURE),
        with(manifest::PUBLIC, manifest::GOLDEN_KEY),
        with(manifest::TRUST, TRUST),
        with(manifest::TRUST, &Trust::anybody().encode()),
    ]
}

fn bundles() -> Vec<Vec<u8>> {
    let head = |choice, lengths: &[u8]| {
        let count = u8::try_from(lengths.len()).unwrap_or_default();
        [&[choice, count, 100, 0][..], lengths].concat()
    };
    vec![
        [&head(bundle::AS_IT_IS, &[7, 0, 64])[..], BUNDLE].concat(),
        [&head(bundle::SUMMED, &[255]), &releases().bundle[..]].concat(),
    ]
}

fn images() -> Vec<Vec<u8>> {
    let file = |choice, bytes: &[u8]| [&[choice, 2, 0, 13, 100][..], bytes].concat();
    let unsealed = &IMAGE[..IMAGE.len() - 33];
    let built = &releases().new[0].bytes;
    let mut parts = vec![130, 5, 2];
    parts.extend(DESCRIPTOR);
    parts.extend(DESCRIPTOR);
    let mut fmta = b"ATMFolimex_v2".to_vec();
    fmta.resize(124, 0);
    fmta.extend(b"FDNE");
    vec![
        file(image::FILE, IMAGE),
        file(image::FILE, built),
        file(image::FILE, b"PK\x03\x04"),
        file(image::FILE, DESCRIPTOR),
        file(image::UNSEALED, unsealed),
        file(image::UNSEALED, &[&unsealed[..300], &fmta, &unsealed[428..]].concat()),
        file(image::PARTS, &[&parts[..], DESCRIPTOR].concat()),
    ]
}

fn partitions() -> Vec<Vec<u8>> {
    let end = TABLE.chunks(32).position(|row| row == [0xFF; 32]).unwrap_or_default() * 32;
    vec![
        [&[partition::WHOLE][..], &TABLE[..end + 32]].concat(),
        [&[partition::ROWS][..], &TABLE[..end - 32]].concat(),
    ]
}

fn otadata() -> Vec<Vec<u8>> {
    let entry = |seq, state| OtaEntry::new(seq, state).encode();
    let pairs = [
        [entry(1, OtaState::Valid), entry(2, OtaState::New)],
        [entry(3, OtaState::PendingVerify), entry(2, OtaState::Valid)],
        [[0xFF; 32], [0xFF; 32]],
    ];
    let inputs = pairs.iter().flat_map(|pair| {
        (0..16).step_by(3).map(move |operations: u8| {
            let (first, second) = (operations / 4, operations % 4);
            let head = [3, 0, first & 1, second << 4 | first, 33];
            [&head[..], pair.as_flattened()].concat()
        })
    });
    inputs.chain([[&[0, 0, 0, 0, 9][..], OTADATA].concat()]).collect()
}

fn records() -> Vec<Vec<u8>> {
    let (first, second) = LOG.split_at(LOG.len() / 2);
    let used = |half: &[u8]| half.iter().rposition(|&byte| byte != 0xFF).map_or(0, |at| at + 1);
    let length = used(first).max(used(second));
    let halves = [&first[..length], &second[..length]].concat();
    let entry = |kind: u8, words: u8| [&[kind, 1, words][..], &[kind; 40][..words.into()]].concat();
    let entries = [[entry(1, 0), entry(6, 0)].concat(), vec![2, 9, 2], vec![5; 8]].concat();
    let mut inputs = vec![
        [&[record::FLASH, 2, 1, 2, 100, 0][..], &halves].concat(),
        [&[record::ENTRIES, 9, 1, 1, 20, 0, 1][..], &entries].concat(),
        [&[record::ENTRIES, 40, 1, 1, 9, 0, 0][..], &entries, &[0, 0, 0]].concat(),
    ];
    let mut member = [0; MEMBER_BYTES_MAX];
    let length = MemberRecord::idle().encode(&mut member).unwrap_or_default();
    let mut package = [0; 300];
    let package_length = Package::write(b"{}", &[b"signature"], &mut package).unwrap_or_default();
    let payload = |number: u8, bytes: &[u8]| [&[record::PAYLOAD, number, 1][..], bytes].concat();
    inputs.extend([
        payload(KIND_MEMBER, &member[..length]),
        payload(6, &member[..length]),
        payload(KIND_HISTORY, &[&[1][..], &[0; 14], &[0, 1], &[0; 43]].concat()),
        payload(2, &[&[1][..], &[0; 14], &[0, 1], &[0; 43]].concat()),
        payload(3, &[&[1][..], &[7; 40], &[1, 2], &[0; 6]].concat()),
        payload(KIND_IMAGES, &[&[1][..], &[7; 40], &[1, 2], &[0; 6]].concat()),
        payload(4, &password()),
        payload(5, &package[..package_length]),
        payload(KIND_TRUST, TRUST),
        payload(KIND_GROUP, b"\x01\x02\0\0\0\0\x01receiver\0\0\0\0\0\0\0\0"),
        payload(KIND_CUT, &[&[0; 14][..], b"receiver\0\0\0\0\0\0\0\0", &[0; 36]].concat()),
    ]);
    // As a payload alone, and as what a lead finds at its start.
    let rollouts = ROLLOUTS.lines().filter_map(|line| line.split_once(": "));
    let rollouts = rollouts.map(|(_, hex)| unhex(hex)).step_by(3);
    let both = |bytes: Vec<u8>| [payload(1, &bytes), payload(KIND_ROLLOUT, &bytes)];
    inputs.extend(rollouts.flat_map(both));
    inputs
}

fn requests() -> Vec<Vec<u8>> {
    let connection = |patience: u8, head: &str, body: &[u8]| {
        let request = [format!("{head}\r\n\r\n").as_bytes(), body].concat();
        let length = u16::try_from(request.len()).unwrap_or(u16::MAX);
        let mut input = length.to_le_bytes().to_vec();
        input.extend([64, patience]);
        input.extend(request);
        input
    };
    let get = |path: &str| connection(3, &format!("GET {path} HTTP/1.1\r\nHost: desk"), b"");
    let bearer = format!("Authorization: Bearer {PASSWORD}");
    let post = |path: &str, more: &str, body: &[u8]| {
        let (length, host) = (body.len(), "HTTP/1.1\r\nHost: desk");
        let head = format!("POST {path} {host}\r\n{bearer}\r\nContent-Length: {length}{more}");
        connection(250, &head, body)
    };
    let bundle = &releases().bundle[..];
    let (first, rest) = bundle.split_at(2_000);
    let range = format!("\r\nContent-Range: bytes 2000-{}/{}", bundle.len() - 1, bundle.len());
    let mut inputs: Vec<Vec<u8>> = PATHS.iter().map(|path| get(path)).collect();
    inputs.extend([
        [post("/api/rollout", "", bundle), get("/api/rollout")].concat(),
        [post("/api/rollout", "", bundle), post("/api/rollout/abort", "", b"")].concat(),
        post("/api/rollout", "\r\nExpect: 100-continue", bundle),
        [post("/api/rollout", "", first), post("/api/rollout", &range, rest)].concat(),
        post("/api/rollout/abort", "", b""),
        post("/api/group/remove/02:00:00:00:00:01", "", b""),
        post("/api/group/remove/02%3A00:00:00:00:00", "", b""),
        post("/api/rollout/revert", "\r\nOrigin: http://desk", b""),
        connection(9, "POST /api/rollout HTTP/1.1\r\nAuthorization: Basic eDpzZXNhbWU=", b"x"),
        connection(9, "POST /api/rollout HTTP/1.1\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
        connection(9, "GET /api/rollout/events HTTP/1.1\r\nLast-Event-ID: 4", b""),
        connection(9, "PUT /api/version HTTP/1.1\r\nOrigin: http://else", b""),
    ]);
    inputs
}

fn scripts() -> Vec<Vec<u8>> {
    let number = |command| COMMANDS.iter().position(|&known| known == command);
    let step = |command: Command, arguments: &[u8]| {
        let number = number(command).and_then(|number| u8::try_from(number).ok());
        [&[number.unwrap_or_default()][..], arguments].concat()
    };
    let upload = step(Command::Upload, &[]);
    let (short, long) = (step(Command::Wait, &[20]), step(Command::Rest, &[60]));
    let order = |kind, hashes| step(Command::Order, &[1, 2, kind, 3, hashes, 0, 40]);
    let block = |object, index| step(Command::Block, &[1, object, index, 1]);
    let fetch = |object, count| (0..count).flat_map(|index| block(object, index)).collect();
    let package: Vec<u8> = fetch(0, 6);
    let artifact: Vec<u8> = fetch(2, 4);
    let second = step(Command::Rest, &[4]);
    let head: Vec<u8> = fetch(2, 3);
    // The first words of a stranger are answered by a challenge only; nothing is taken while flash
    // is erased, for the package and behind the head of the image.
    let pause = &short[..];
    let orders = [order(0, 0), order(2, 2)].concat();
    let staged = [&orders[..], pause, &package, pause, &head, pause, &artifact, pause].concat();
    let activated = [&staged[..], &order(3, 0), &second, &order(6, 2), &short].concat();
    let body = [&[0x30_u8][..], &[1; 52]].concat();
    vec![
        [&upload[..], &long].concat(),
        [&upload[..], &long, &step(Command::Revert, &[]), &long].concat(),
        [&upload[..], &short, &step(Command::Abort, &[]), &long].concat(),
        [&upload[..], &short, &step(Command::End, &[]), &long].concat(),
        [&step(Command::Lose, &[0b0010_0100])[..], &upload, &long].concat(),
        [&upload[..], &short, &step(Command::Cut, &[0]), &long].concat(),
        [&upload[..], &step(Command::Tear, &[1, 0, 9]), &long].concat(),
        [&step(Command::Lose, &[0xFF])[..], &long, &step(Command::Remove, &[1]), &short].concat(),
        [&activated[..], &order(7, 2), &long].concat(),
        [&activated[..], &order(8, 2), &long].concat(),
        [&staged[..], &order(4, 2), &order(5, 0), &short].concat(),
        [&order(0, 0)[..], &order(1, 0), &order(2, 1)].concat(),
        [step(Command::Say, &[0, 3, 53]), body.clone(), step(Command::Frame, &[0, 1, 53]), body]
            .concat(),
        (0..5).flat_map(|what| step(Command::Answer, &[0, 1, what, 2, 7, 0])).collect(),
    ]
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks_exact(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap_or_default(), 16);
    digits.map_while(|pair| byte(pair).ok()).collect()
}

macro_rules! golden {
    ($path:literal) => {
        concat!("../../crates/", $path)
    };
}

const VERSION_FRAMES: &str = include_str!(golden!("proto/tests/golden/version-frames.txt"));
const CONTROL_FRAMES: &str = include_str!(golden!("proto/tests/golden/control-frames.txt"));
const LINE_PACKETS: &str = include_str!(golden!("proto/tests/golden/line-packets.txt"));
const BLOCK_FRAMES: &str = include_str!(golden!("proto/tests/golden/block-frames.txt"));
const PLAN: &[u8] = include_bytes!(golden!("proto/tests/golden/plan-system-manifest.json"));
const TRUST: &[u8] = include_bytes!(golden!("proto/tests/golden/trust-v1.bin"));
const BUNDLE: &[u8] = include_bytes!(golden!("proto/tests/golden/release.lockstep"));
const IMAGE: &[u8] = include_bytes!(golden!("proto/tests/golden/image-esp32s3.bin"));
const DESCRIPTOR: &[u8] = include_bytes!(golden!("proto/tests/golden/descriptor-v1.bin"));
const TABLE: &[u8] = include_bytes!(golden!("proto/tests/golden/partition-table-desk.bin"));
const OTADATA: &[u8] = include_bytes!(golden!("proto/tests/golden/otadata-entries.bin"));
const LOG: &[u8] = include_bytes!(golden!("agent/tests/golden/record-v1.bin"));
const ROLLOUTS: &str = include_str!(golden!("rollout/tests/golden/rollout-record-v1.txt"));

/// Escapes, numbers and nesting that the golden manifests have not.
const ODD_MANIFEST: &str = r#"{"x":[{"a":[1.5e3,-0,"\u00fc\ud83d\ude00"]},null,true,[[]]],
"system":"d\u0065sk","system_version":"1.2.3","min_compatible_version":10000,"devices":{"a":{
"version":"1.2.3","version_number":10203,"firmware_size":1,"protocol_version":2,
"protocol_range":[1,3],"patches":[],"effect":"none","chip":"esp32s3","board":null}},
"update_instructions":{"order":["a"],"reboot_delay_seconds":1,"health_check_timeout_seconds":9},
"rollback":{"previous_version":"1.2.2","a_url":"u"},
"keys":{"threshold":1,"keys":["RWQ"]}}"#;

const PATHS: [&str; 10] = [
    "/",
    "/api/version",
    "/api/health",
    "/api/firmware_info",
    "/api/rollout",
    "/api/rollout/events",
    "/api/group",
    "/api/history",
    "/api/logs",
    "/ota?x=%41",
];

/// Numbers of entries as `record` understands them: `Kind` has no way back to its number.
const KIND_MEMBER: u8 = 2;
const KIND_ROLLOUT: u8 = 3;
const KIND_GROUP: u8 = 4;
const KIND_TRUST: u8 = 5;
const KIND_HISTORY: u8 = 9;
const KIND_IMAGES: u8 = 12;
const KIND_CUT: u8 = 13;

#[cfg(test)]
mod tests {
    use super::*;

    /// The very promises, without a fuzzer: a seed that breaks one is found by any toolchain.
    #[test]
    fn every_seed_keeps_the_promises_of_its_target() {
        for Seed { target, name, bytes } in all() {
            println!("{target} {name}");
            match target {
                "frames" => crate::frames::run(&bytes),
                "line" => crate::line::run(&bytes),
                "manifest" => crate::manifest::run(&bytes),
                "bundle" => crate::bundle::run(&bytes),
                "delta" => crate::delta::run(&bytes),
                "image" => crate::image::run(&bytes),
                "partition" => crate::partition::run(&bytes),
                "otadata" => crate::otadata::run(&bytes),
                "record" => crate::record::run(&bytes),
                "http" => crate::http::run(&bytes),
                "node" => crate::node::run(&bytes),
                other => panic!("no target `{other}`"),
            }
        }
    }
}
