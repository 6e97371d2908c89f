//! Compares our patches with those of others, on real images: `cargo xtask deltas FOLDER`.
//!
//! Sizes, times and ratios come from one run on one machine; a tool that is not here is named as
//! missing, and nothing is said of it. Images are pairs `NAME-VERSION.bin` of a folder.
//!
//! # Not here
//!
//! Making and applying our own patches: `crates/delta/examples/measure.rs` does, and is built for
//! speed, which this program is not.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{fs, iter};

use crate::machine::Machine;
use crate::shell::{self, Failure};

/// What to compare on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    folder: PathBuf,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Markdown,
    Json,
}

impl Plan {
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let (form, rest) = match words {
            ["--json", rest @ ..] => (Form::Json, rest),
            rest => (Form::Markdown, rest),
        };
        match rest {
            [folder] if !folder.starts_with('-') => Ok(Self { folder: folder.into(), form }),
            [other, ..] if other.starts_with('-') => Err(format!("unexpected argument `{other}`")),
            [_, other, ..] => Err(format!("unexpected argument `{other}`")),
            _ => Err("`deltas` needs a folder of images".into()),
        }
    }
}

/// Measures all pairs of a folder, and prints a table of them.
pub(crate) fn run(machine: &Machine, plan: &Plan) -> Result<(), Failure> {
    let pairs = pairs(&plan.folder)?;
    if pairs.is_empty() {
        let text = "no two versions `NAME-VERSION.bin` of anything".into();
        return Err(Failure::Content { path: plan.folder.clone(), text });
    }
    let mut cargo = machine.cargo();
    cargo.args(["build", "--quiet", "--release", "-p", "lockstep-delta", "--example", "measure"]);
    let status = cargo.status().map_err(|source| start("cargo", source))?;
    if !status.success() {
        return Err(Failure::Ended { program: "cargo".into(), status });
    }
    let bench = Bench::new(machine)?;
    let rows = pairs.iter().map(|pair| bench.measure(pair)).collect::<Result<Vec<_>, _>>()?;
    match plan.form {
        Form::Markdown => print!("{}", markdown(&rows)),
        Form::Json => print!("{}", json(&rows)),
    }
    for peer in PEERS.iter().filter(|peer| bench.find(peer).is_none()) {
        eprintln!("`{}` is missing: {}", peer.name, peer.way_to_get);
    }
    Ok(())
}

fn start(program: &str, source: std::io::Error) -> Failure {
    Failure::Start { program: program.into(), source }
}

/// Two versions of one firmware.
#[derive(Debug, PartialEq, Eq)]
struct Pair {
    name: String,
    versions: [String; 2],
    images: [PathBuf; 2],
}

/// Each version with the next one.
fn pairs(folder: &Path) -> Result<Vec<Pair>, Failure> {
    let failed = |source| Failure::File { path: folder.to_path_buf(), source };
    let mut firmware: BTreeMap<String, BTreeMap<Vec<u32>, (String, PathBuf)>> = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let is_image = path.extension().is_some_and(|extension| extension == "bin");
        if let Some((name, version)) = stem.rsplit_once('-').filter(|_| is_image) {
            let text = version.trim_start_matches('v');
            let numbers: Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
            if let Ok(numbers) = numbers {
                firmware.entry(name.into()).or_default().insert(numbers, (text.into(), path));
            }
        }
    }
    let following = firmware.into_iter().flat_map(|(name, versions)| {
        let versions: Vec<_> = versions.into_values().collect();
        let pairs = versions.windows(2).map(|two| Pair {
            name: name.clone(),
            versions: [0, 1].map(|at| two[at].0.clone()),
            images: [0, 1].map(|at| two[at].1.clone()),
        });
        pairs.collect::<Vec<_>>()
    });
    Ok(following.collect())
}

/// A program of somebody else's that makes patches.
struct Peer {
    name: &'static str,
    program: &'static str,
    way_to_get: &'static str,
    arguments: &'static [Word],
    /// How it makes the new image; nothing for what is only a part of a tool.
    applies: &'static [Word],
}

/// A word of its command line.
#[derive(Clone, Copy)]
enum Word {
    Is(&'static str),
    Old,
    New,
    /// `--patch-from=OLD`
    FromOld,
    /// What bsdiff says of the two.
    Controls,
    /// Where the patch goes; without one it is what is printed.
    Patch,
    /// Where the new image goes that is made from a patch.
    Made,
    /// The program itself is this one.
    Program(&'static str),
}

use Word::{Controls, FromOld, Is, Made, New, Old, Patch, Program};

const PYTHON: &str = "run `target/venv/bin/pip install detools==0.53.0 hdiffpatch==2.6.0`";
const HDIFFPATCH: &str = "import sys, hdiffpatch as it; old, new, patch = sys.argv[1:]; \
    read = lambda path: open(path, 'rb').read(); \
    open(patch, 'wb').write(it.diff(read(old), read(new), it.COMPRESSION_LZMA2))";
const HDIFFPATCH_APPLIES: &str = "import sys, hdiffpatch as it; old, patch, new = sys.argv[1:]; \
    read = lambda path: open(path, 'rb').read(); \
    open(new, 'wb').write(it.apply(read(old), read(patch)))";

const PEERS: &[Peer] = &[
    Peer {
        name: BSDIFF_XZ,
        program: "xz",
        way_to_get: "run `apt-get install xz-utils`",
        arguments: &[Is("-9e"), Is("--keep"), Is("--stdout"), Controls],
        applies: &[],
    },
    Peer {
        name: "bsdiff",
        program: "bsdiff",
        way_to_get: "run `apt-get install bsdiff`",
        arguments: &[Old, New, Patch],
        applies: &[Program("bspatch"), Old, Made, Patch],
    },
    Peer {
        name: HEATSHRINK,
        program: "detools",
        way_to_get: PYTHON,
        arguments: &[Is("create_patch"), Is("-c"), Is("heatshrink"), Old, New, Patch],
        applies: &[Is("apply_patch"), Old, Patch, Made],
    },
    Peer {
        name: "detools crle",
        program: "detools",
        way_to_get: PYTHON,
        arguments: &[Is("create_patch"), Is("-c"), Is("crle"), Old, New, Patch],
        applies: &[Is("apply_patch"), Old, Patch, Made],
    },
    Peer {
        name: "HDiffPatch lzma2",
        program: "python",
        way_to_get: PYTHON,
        arguments: &[Is("-c"), Is(HDIFFPATCH), Old, New, Patch],
        applies: &[Is("-c"), Is(HDIFFPATCH_APPLIES), Old, Patch, Made],
    },
    Peer {
        name: "zstd -22 --patch-from",
        program: "zstd",
        way_to_get: "run `apt-get install zstd`",
        arguments: &[Is("-q"), Is("-f"), Is("-22"), Is("--ultra"), FromOld, New, Is("-o"), Patch],
        applies: &[Is("-q"), Is("-f"), Is("-d"), FromOld, Patch, Is("-o"), Made],
    },
    Peer {
        name: "xdelta3 -9 -S lzma",
        program: "xdelta3",
        way_to_get: "run `apt-get install xdelta3`",
        arguments: &[Is("-9"), Is("-S"), Is("lzma"), Is("-e"), Is("-f"), Is("-s"), Old, New, Patch],
        applies: &[Is("-d"), Is("-f"), Is("-s"), Old, Patch, Made],
    },
];

/// The columns that ratios are taken of.
const BSDIFF_XZ: &str = "bsdiff + xz -9e";
const HEATSHRINK: &str = "detools heatshrink";

/// What a patch costs.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    bytes: u64,
    made_s: f64,
    /// Ours in memory, others as processes.
    applied_s: Option<f64>,
    /// What a process that applies it takes at most, in KiB, as GNU time says; only of others.
    memory_kib: Option<u64>,
}

/// A pair, and what the patches of it cost.
#[derive(Debug)]
struct Row {
    pair: String,
    new_bytes: u64,
    memory_bytes: u64,
    costs: Vec<(&'static str, Option<Cost>)>,
}

impl Row {
    fn cost(&self, name: &str) -> Option<Cost> {
        self.costs.iter().find(|(known, _)| *known == name).and_then(|(_, cost)| *cost)
    }

    /// How large one is, the other being 1.
    fn ratio(&self, one: &str, other: &str) -> Option<f64> {
        let [one, other] = [one, other].map(|name| self.cost(name).map(|cost| cost.bytes as f64));
        Some(one? / other?)
    }
}

/// Where it is measured.
struct Bench {
    folder: PathBuf,
    measure: PathBuf,
    venv: PathBuf,
}

impl Bench {
    fn new(machine: &Machine) -> Result<Self, Failure> {
        let folder = machine.target.join("deltas");
        fs::create_dir_all(&folder)
            .map_err(|source| Failure::File { path: folder.clone(), source })?;
        let measure = machine.target.join("release/examples/measure");
        Ok(Self { folder, measure, venv: machine.venv() })
    }

    fn find(&self, peer: &Peer) -> Option<PathBuf> {
        let ours = self.venv.join("bin").join(peer.program);
        let program = if ours.is_file() { ours } else { shell::on_path(peer.program)? };
        // Python is everywhere, the package is not.
        let has = |module: &str| {
            let mut python = Command::new(&program);
            shell::read(python.args(["-c", &format!("import {module}")])).is_ok()
        };
        (peer.program != "python" || has("hdiffpatch")).then_some(program)
    }

    fn measure(&self, pair: &Pair) -> Result<Row, Failure> {
        let controls = self.folder.join("controls");
        let mut measure = Command::new(&self.measure);
        let text = shell::read(measure.args(&pair.images).arg(&controls))?;
        let mut row = Row {
            pair: format!("{} {} to {}", pair.name, pair.versions[0], pair.versions[1]),
            new_bytes: size(&pair.images[1])?,
            memory_bytes: 0,
            costs: Vec::new(),
        };
        let lines: BTreeMap<&str, &str> =
            text.lines().filter_map(|line| line.split_once(' ')).collect();
        row.memory_bytes = lines.get("memory").and_then(|it| it.parse().ok()).unwrap_or(0);
        for name in OURS {
            row.costs.push((name, lines.get(name).and_then(|line| cost(line))));
        }
        for peer in PEERS {
            let program = self.find(peer);
            let cost = program.map(|program| self.measure_peer(peer, &program, pair, &controls));
            row.costs.push((peer.name, cost.transpose()?));
        }
        Ok(row)
    }

    fn measure_peer(
        &self,
        peer: &Peer,
        program: &Path,
        pair: &Pair,
        controls: &Path,
    ) -> Result<Cost, Failure> {
        let words = self.words(peer.arguments, pair, controls);
        let mut command = Command::new(program);
        let (made_s, printed_bytes) = timed(peer.name, command.args(words))?;
        let is_printed = !peer.arguments.iter().any(|word| matches!(word, Patch));
        let bytes = if is_printed { printed_bytes } else { size(&self.folder.join("patch"))? };
        let (applied_s, memory_kib) = self.apply_peer(peer, program, pair, controls)?;
        Ok(Cost { bytes, made_s, applied_s, memory_kib })
    }

    /// How long a peer takes to make the new image, and how much memory; it must be the right one.
    fn apply_peer(
        &self,
        peer: &Peer,
        program: &Path,
        pair: &Pair,
        controls: &Path,
    ) -> Result<(Option<f64>, Option<u64>), Failure> {
        let (other, words) = match peer.applies {
            [] => return Ok((None, None)),
            [Program(other), words @ ..] => (shell::on_path(other), words),
            words => (None, words),
        };
        let program = other.as_deref().unwrap_or(program);
        let words = self.words(words, pair, controls);
        let (made, memory) = (self.folder.join("made"), self.folder.join("memory"));
        let _ = fs::remove_file(&made);
        let (applied_s, _) = timed(peer.name, Command::new(program).args(&words))?;
        let read = |path: &Path| {
            fs::read(path).map_err(|source| Failure::File { path: path.into(), source })
        };
        if read(&made)? != read(&pair.images[1])? {
            return Err(Failure::Content { path: made, text: "another image was made".into() });
        }
        let memory_kib = shell::on_path("time").and_then(|time| {
            let mut command = Command::new(time);
            command.args(["-f", "%M", "-o"]).arg(&memory).arg(program).args(&words);
            timed(peer.name, &mut command).ok()?;
            fs::read_to_string(&memory).ok()?.trim().parse().ok()
        });
        Ok((Some(applied_s), memory_kib))
    }

    fn words(&self, words: &[Word], pair: &Pair, controls: &Path) -> Vec<OsString> {
        let word = |word: &Word| match word {
            Is(text) | Program(text) => text.into(),
            Old => pair.images[0].clone().into(),
            New => pair.images[1].clone().into(),
            FromOld => format!("--patch-from={}", pair.images[0].display()).into(),
            Controls => controls.into(),
            Patch => self.folder.join("patch").into(),
            Made => self.folder.join("made").into(),
        };
        words.iter().map(word).collect()
    }
}

/// Runs it to its end: how long that took in seconds, and how many bytes it printed.
fn timed(name: &str, command: &mut Command) -> Result<(f64, u64), Failure> {
    command.stdin(Stdio::null());
    let begun = Instant::now();
    let output = command.output().map_err(|source| start(name, source))?;
    let took_s = begun.elapsed().as_secs_f64();
    match output.status.success() {
        true => Ok((took_s, output.stdout.len() as u64)),
        false => Err(Failure::Ended { program: name.into(), status: output.status }),
    }
}

const OURS: &[&str] = &["full", "plain", "address-aware", "smallest"];

fn size(path: &Path) -> Result<u64, Failure> {
    let failed = |source| Failure::File { path: path.to_path_buf(), source };
    fs::metadata(path).map(|it| it.len()).map_err(failed)
}

/// What `measure` prints behind a name.
fn cost(line: &str) -> Option<Cost> {
    let mut words = line.split(' ');
    Some(Cost {
        bytes: words.next()?.parse().ok()?,
        made_s: words.next()?.parse().ok()?,
        applied_s: Some(words.next()?.parse().ok()?),
        memory_kib: None,
    })
}

/// Sizes in bytes and of the new image, then times, then ratios.
fn markdown(rows: &[Row]) -> String {
    let names = rows.first().map_or(&[][..], |row| &row.costs);
    let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
    let mut text = String::new();
    let mut table = |head: &[&str], line: &dyn Fn(&Row) -> Vec<String>| {
        let cells = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let head: Vec<String> = head.iter().map(ToString::to_string).collect();
        text += &cells(&head);
        text += &format!("{}|\n", "|---".repeat(head.len()));
        rows.iter().for_each(|row| text += &cells(&line(row)));
        text += "\n";
    };
    let or_missing = |text: Option<String>| text.unwrap_or_else(|| "missing".into());
    let head = |first: &[&'static str]| [first, &names].concat();
    table(&head(&["bytes", "new image"]), &|row| {
        let sizes = row.costs.iter().map(|(_, cost)| {
            or_missing(cost.map(|cost| {
                let share = cost.bytes as f64 * 100.0 / row.new_bytes as f64;
                format!("{} ({share:.2} %)", cost.bytes)
            }))
        });
        [row.pair.clone(), row.new_bytes.to_string()].into_iter().chain(sizes).collect()
    });
    // bsdiff has run before xz does.
    table(&head(&["made in seconds, xz without bsdiff"]), &|row| {
        let times = row.costs.iter().map(|(_, it)| or_missing(it.map(|it| seconds(it.made_s))));
        iter::once(row.pair.clone()).chain(times).collect()
    });
    // What was not measured, of a tool that is there.
    let or_none =
        |text: Option<Option<String>>| or_missing(text.map(|it| it.unwrap_or("-".into())));
    table(&head(&["applied in seconds, others as processes"]), &|row| {
        let times = row.costs.iter().map(|(_, it)| or_none(it.map(|it| it.applied_s.map(seconds))));
        iter::once(row.pair.clone()).chain(times).collect()
    });
    table(&head(&["memory of a process that applies it, KiB"]), &|row| {
        let memory = |it: Cost| it.memory_kib.map(|kib| kib.to_string());
        let memory = row.costs.iter().map(|(_, it)| or_none(it.map(memory)));
        iter::once(row.pair.clone()).chain(memory).collect()
    });
    let ratios = RATIOS.map(|(one, other)| format!("{one} / {other}"));
    let mut heads = vec!["ratios"];
    heads.extend(ratios.iter().map(String::as_str));
    heads.extend(["applied, seconds per MB", "memory, bytes"]);
    table(&heads, &|row| {
        let ratios = RATIOS.map(|(one, other)| {
            or_missing(row.ratio(one, other).map(|ratio| format!("{ratio:.2}")))
        });
        let applied = row.cost("smallest").and_then(|cost| cost.applied_s);
        let per_mb = applied.map(|it| format!("{:.3}", it * 1e6 / row.new_bytes as f64));
        iter::once(row.pair.clone())
            .chain(ratios)
            .chain([or_missing(per_mb), row.memory_bytes.to_string()])
            .collect()
    });
    text
}

const RATIOS: [(&str, &str); 4] = [
    ("address-aware", "plain"),
    ("plain", BSDIFF_XZ),
    ("smallest", BSDIFF_XZ),
    ("smallest", HEATSHRINK),
];

fn seconds(seconds: f64) -> String {
    format!("{seconds:.2}")
}

fn json(rows: &[Row]) -> String {
    let row = |row: &Row| {
        let costs = row.costs.iter().map(|(name, cost)| {
            let Some(Cost { bytes, made_s, applied_s, memory_kib }) = cost else {
                return format!("\"{name}\": null");
            };
            let mut text = format!("\"{name}\": {{\"bytes\": {bytes}, \"made_s\": {made_s:.3}");
            if let Some(applied_s) = applied_s {
                let _ = write!(text, ", \"applied_s\": {applied_s:.4}");
            }
            if let Some(memory_kib) = memory_kib {
                let _ = write!(text, ", \"memory_kib\": {memory_kib}");
            }
            text + "}"
        });
        let costs: Vec<String> = costs.collect();
        let (pair, new_bytes, memory) = (&row.pair, row.new_bytes, row.memory_bytes);
        format!(
            "{{\"pair\": \"{pair}\", \"new_bytes\": {new_bytes}, \"memory_bytes\": {memory}, {}}}",
            costs.join(", ")
        )
    };
    let rows: Vec<String> = rows.iter().map(row).collect();
    format!("[\n{}\n]\n", rows.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_needed_and_json_can_be_asked_for() {
        let plan = |form| Ok(Plan { folder: "images".into(), form });
        assert_eq!(Plan::parse(&["images"]), plan(Form::Markdown));
        assert_eq!(Plan::parse(&["--json", "images"]), plan(Form::Json));
        for words in [&[][..], &["--json"], &["--fast", "images"], &["images", "more"]] {
            assert!(Plan::parse(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn each_version_is_paired_with_the_next_and_what_has_none_is_left_out() {
        let folder = std::env::temp_dir().join(format!("xtask-deltas-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let files =
            ["a-b-v1.10.0.bin", "a-b-v1.9.0.bin", "a-b-v1.2.0.bin", "c-1.bin", "d.bin", "a-2.txt"];
        files.iter().for_each(|name| fs::write(folder.join(name), name).expect("a file"));
        let pairs = pairs(&folder).expect("readable");
        fs::remove_dir_all(&folder).expect("ours");
        let found: Vec<_> = pairs.iter().map(|it| (&*it.name, it.versions.join(" "))).collect();
        assert_eq!(found, [("a-b", "1.2.0 1.9.0".into()), ("a-b", "1.9.0 1.10.0".to_string())]);
    }

    #[test]
    fn a_missing_tool_is_named_and_no_figure_is_made_up() {
        let cost = |bytes| Some(Cost { bytes, made_s: 1.0, ..Cost::default() });
        let costs = vec![("plain", cost(50)), (BSDIFF_XZ, cost(100)), (HEATSHRINK, None)];
        let row = Row { pair: "a 1 to 2".into(), new_bytes: 1000, memory_bytes: 7, costs };
        let text = markdown(&[row]);
        assert!(text.contains("| a 1 to 2 | 1000 | 50 (5.00 %) | 100 (10.00 %) | missing |"));
        assert!(text.contains("| a 1 to 2 | missing | 0.50 | missing | missing |"), "{text}");
    }

    #[test]
    fn json_says_the_same() {
        let costs = vec![("plain", super::cost("50 1.5 0.25")), (HEATSHRINK, None)];
        let row = Row { pair: "a 1 to 2".into(), new_bytes: 1000, memory_bytes: 7, costs };
        let expected = "[\n{\"pair\": \"a 1 to 2\", \"new_bytes\": 1000, \"memory_bytes\": 7, \
            \"plain\": {\"bytes\": 50, \"made_s\": 1.500, \"applied_s\": 0.2500}, \
            \"detools heatshrink\": null}\n]\n";
        assert_eq!(json(&[row]), expected);
    }
}
