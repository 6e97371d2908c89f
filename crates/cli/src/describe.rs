//! What a file is, whatever it is: its kind, what it says, and what is wrong with it.
//!
//! Every file gets a description; that it is none of ours is one, too. Nothing of a secret key is
//! told but its id.

use std::path::{Path, PathBuf};

use lockstep_proto::bundle::patch_name;
use lockstep_proto::id::ImageHash;
use lockstep_proto::image::{Foreign, ImageFacts, ImageReader, read_image};
use lockstep_proto::manifest::{KeySet, Manifest, Trust, VerifyError};
use lockstep_proto::otadata::OtaEntry;
use lockstep_proto::partition::{
    PartitionEntry, PartitionTable, SUBTYPE_OTADATA, TABLE_BYTES, TABLE_OFFSET, TYPE_DATA,
};
use lockstep_proto::signature::{PublicKey, Signature};
use lockstep_server::bundle::{Bundle, Problem, incompatible, with_causes};
use lockstep_server::patches::judged::ReadPatch;
use serde_json::{Value, json};

use crate::error::CommandError;
use crate::facts::{self, Line, numbered};
use crate::files;
use crate::keys;
use crate::ui::{Ui, listed, tame};

/// What a file is.
#[derive(Debug)]
pub struct Description {
    /// Its kind, as a word for programs: `image`, `bundle`, …
    pub kind: &'static str,
    /// Its kind and its name, as a line for people.
    pub title: String,
    /// What it says.
    pub lines: Vec<Line>,
    /// What is wrong with it, each with the way out where there is one.
    pub problems: Vec<Problem>,
    /// What it says, for programs.
    pub facts: Value,
}

impl Description {
    fn new(kind: &'static str, title: impl Into<String>) -> Self {
        let (lines, problems) = (Vec::new(), Vec::new());
        Self { kind, title: title.into(), lines, problems, facts: Value::Null }
    }

    fn problem(mut self, text: impl Into<String>) -> Self {
        self.problems.push(Problem::new(text));
        self
    }

    /// For programs.
    pub fn to_json(&self, file: &str) -> Value {
        let problems = self.problems.iter();
        json!({
            "file": file,
            "kind": self.kind,
            "facts": self.facts,
            "problems": problems
                .map(|problem| json!({ "message": problem.text, "hint": problem.hint }))
                .collect::<Vec<_>>(),
        })
    }
}

/// Describes a file; `keys`, if given, must have signed it if it is a bundle.
pub fn describe(ui: &Ui, path: &Path, keys: Option<&KeySet>) -> Result<Description, CommandError> {
    let bytes = files::read(path, FILE_BYTES_MAX)?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    if bytes.is_empty() {
        return Ok(Description::new("empty", "an empty file").problem("the file has 0 bytes"));
    }
    if bytes.get(257..262) == Some(b"ustar") || text.starts_with("manifest.json\0") {
        return bundle(ui, path, &bytes, keys);
    }
    if text.starts_with("untrusted comment:") {
        return Ok(key_or_signature(&bytes, text));
    }
    if let Some(table) = bytes.get(TABLE_OFFSET as usize..)
        && table.starts_with(&TABLE_MAGIC)
        && bytes.len().is_multiple_of(SECTOR_BYTES)
    {
        return Ok(flash_dump(&bytes, table));
    }
    if bytes.starts_with(&TABLE_MAGIC) {
        return Ok(partition_table(&bytes));
    }
    if text.trim_start().starts_with('{') {
        return Ok(manifest(path, &bytes));
    }
    Ok(image(&bytes))
}

fn image(bytes: &[u8]) -> Description {
    match facts::read_image(bytes) {
        Ok(facts) => {
            let title = facts::image_title(&facts);
            let mut described = Description::new("image", format!("firmware image, {title}"));
            described.lines = facts::image_lines(&facts);
            described.facts = facts::image_json(&facts);
            let blocks = facts::signed_by(bytes, &facts);
            described.lines.extend(blocks.iter().map(facts::signature_line));
            described.facts["secure_boot"] = blocks.iter().map(facts::signature_json).collect();
            for (index, block) in blocks.iter().enumerate() {
                if let Some(fault) = block.fault {
                    let text = format!("signature block {index} does not count: {fault}");
                    described.problems.push(Problem::hinted(text, Some(SIGN_AGAIN)));
                }
            }
            described
        }
        Err(error) => {
            let is_image = bytes.first() == Some(&0xE9);
            let mut described = match is_image {
                true => Description::new("image", "firmware image, not whole"),
                false => Description::new("unknown", "not a file of ours"),
            };
            if let Some(foreign) = Foreign::recognise(bytes) {
                described.title = foreign.to_string();
            }
            // A damaged image still says what it wanted to be.
            if is_image {
                described.lines = partial_image_lines(bytes);
            }
            let hint = lockstep_server::bundle::image_hint(&error);
            described.problems.push(Problem::hinted(error.to_string(), hint));
            described
        }
    }
}

fn partial_image_lines(bytes: &[u8]) -> Vec<Line> {
    let mut reader = ImageReader::new();
    // The error is told elsewhere; the parts before it stand.
    let _ = reader.push(bytes);
    let mut lines = vec![];
    if let Some(header) = reader.header() {
        lines.push(("chip", header.chip.to_string()));
    }
    if let Some(ours) = reader.descriptor() {
        lines.push(("role", ours.role.to_string()));
        lines.push(("version", numbered(ours.version)));
    }
    lines.push(("size", format!("{} bytes in the file", bytes.len())));
    lines
}

fn bundle(
    ui: &Ui,
    path: &Path,
    mut bytes: &[u8],
    keys: Option<&KeySet>,
) -> Result<Description, CommandError> {
    let name = path.display();
    let bar = ui.bytes_bar(format!("Checking {name}"), bytes.len() as u64);
    let read = Bundle::read(&mut bytes, &|count| bar.inc(count));
    bar.finish_and_clear();
    let bundle = read
        .map_err(|error| CommandError::failed(format!("Cannot read `{name}`")).because(&error))?;
    Ok(described_bundle(&bundle, keys))
}

/// Describes a bundle that was read.
pub fn described_bundle(bundle: &Bundle, keys: Option<&KeySet>) -> Description {
    let trust = keys.map_or(Trust::anybody(), |keys| Trust::signed_by(keys.clone()));
    let mut described = Description::new("bundle", "bundle");
    let signers = signers(&bundle.signatures());
    if let Ok(manifest) = bundle.verify(&Trust::anybody()) {
        described.title = format!("bundle, {}", manifest_title(&manifest));
        described.lines = manifest_lines(&manifest);
        described.lines.push(("manifest hash", manifest.digest().to_string()));
        described.facts = manifest_json(&manifest);
    }
    let verified = keys.map(|keys| match bundle.verify(&trust) {
        Ok(manifest) => format!("{} ({} needed)", manifest.signed(), keys.threshold()),
        Err(_) => "not as demanded".to_owned(),
    });
    let by = match (signers.as_slice(), verified) {
        ([], _) => "none: only devices without a key take it".to_owned(),
        (ids, None) => format!("by key {}; not verified, give --key", listed(ids)),
        (ids, Some(verified)) => format!("by key {}; {verified}", listed(ids)),
    };
    described.lines.push(("signed", by));
    for artifact in bundle.artifacts() {
        let text = artifact.image.as_ref().map_or_else(ToString::to_string, |facts| {
            format!(
                "{}.bin, {}; {}",
                artifact.role,
                facts.header.chip,
                facts::fits(facts.size_bytes)
            )
        });
        described.lines.push(("artifact", text));
    }
    described.lines.extend(bundle.patches().iter().map(|patch| ("patch", patch_text(patch))));
    described.lines.push(("size", format!("{} bytes", bundle.size_bytes())));
    described.lines.push(("file SHA-256", bundle.sha256().to_string()));
    let artifacts = bundle.artifacts().iter().map(|artifact| {
        let image = artifact.image.as_ref().ok().map(facts::image_json);
        json!({ "role": artifact.role, "sha256": artifact.sha256.to_string(), "image": image })
    });
    described.facts = json!({
        "manifest": described.facts,
        "signed_by": signers,
        "artifacts": artifacts.collect::<Vec<_>>(),
        "patches": bundle.patches().iter().map(patch_json).collect::<Vec<_>>(),
        "size_bytes": bundle.size_bytes(),
        "sha256": bundle.sha256().to_string(),
    });
    described.problems = bundle.problems(&trust);
    described
}

/// What of a bundle is for devices that need not fetch a whole image.
fn patch_text(patch: &ReadPatch) -> String {
    let name = patch_name(&patch.role, &patch.tag);
    let size_bytes = patch.size_bytes;
    match (&patch.header, patch.base()) {
        (Err(error), _) => format!("{name}, {error}"),
        (Ok(_), Some(base)) => format!("{name}, {size_bytes} bytes, for image {base}"),
        (Ok(_), None) => format!("{name}, {size_bytes} bytes, the image under compression"),
    }
}

fn patch_json(patch: &ReadPatch) -> Value {
    let makes = patch.header.as_ref().ok().map(|header| ImageHash(header.new).to_string());
    json!({
        "role": patch.role,
        "name": patch_name(&patch.role, &patch.tag).as_str(),
        "size": patch.size_bytes,
        "from_image_sha256": patch.base().map(|base| base.to_string()),
        "makes_image_sha256": makes,
    })
}

/// Which keys the signatures claim to be by.
fn signers(signatures: &[&[u8]]) -> Vec<String> {
    let one = |file: &&[u8]| match Signature::parse(file) {
        Ok(signature) => signature.key_id().to_string(),
        Err(_) => "(damaged)".to_owned(),
    };
    signatures.iter().map(one).collect()
}

fn manifest(path: &Path, bytes: &[u8]) -> Description {
    let beside = {
        let mut name = path.as_os_str().to_owned();
        name.push(".minisig");
        PathBuf::from(name)
    };
    match lockstep_proto::manifest::verify(bytes, &[], &Trust::anybody()) {
        Ok(manifest) => {
            let title = format!("manifest, {}", manifest_title(&manifest));
            let mut described = Description::new("manifest", title);
            described.lines = manifest_lines(&manifest);
            described.lines.push(("manifest hash", manifest.digest().to_string()));
            if let Ok(signature) = files::read(&beside, keys::KEY_FILE_BYTES_MAX) {
                let ids = listed(signers(&[&signature]));
                described.lines.push(("signed", format!("by key {ids}, in the file beside it")));
            }
            described.facts = manifest_json(&manifest);
            let missing = manifest.devices.iter().filter_map(|entry| entry.installable().err());
            described.problems = missing
                .map(|error| Problem::new(format!("nothing can be installed from this: {error}")))
                .chain(incompatible(&manifest))
                .collect();
            described
        }
        Err(VerifyError::Manifest(error)) => {
            Description::new("manifest", "JSON, not a manifest").problem(with_causes(&error))
        }
        Err(error) => {
            Description::new("manifest", "JSON, not a manifest").problem(with_causes(&error))
        }
    }
}

fn manifest_title(manifest: &Manifest<'_>) -> String {
    let system =
        manifest.system.map_or_else(|| "release".to_owned(), |name| tame(&name.to_string()));
    format!("{system} {}", manifest.system_version)
}

/// What a manifest says, as lines.
pub fn manifest_lines(manifest: &Manifest<'_>) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut text = |label, text: String| {
        if !text.is_empty() {
            lines.push((label, tame(&text)));
        }
    };
    text("date", manifest.release_date.to_string());
    text("what is new", manifest.description.to_string());
    lines.push(("sequence", manifest.sequence.to_string()));
    lines.push(("epoch", manifest.epoch.to_string()));
    for entry in &manifest.devices {
        let chip = entry.chip.map_or_else(|| entry.device_type.to_string(), |c| c.to_string());
        let minimum = entry.min_compatible.unwrap_or(manifest.min_compatible_version);
        let (role, version) = (entry.role, entry.version);
        lines.push((
            "device",
            tame(&format!(
                "{role} {version}, {chip}, {} bytes, protocol {}, talks to {minimum} or newer",
                entry.firmware_size,
                entry.protocol()
            )),
        ));
        if let Some(hash) = entry.image_sha256 {
            lines.push(("image hash", hash.to_string()));
        }
    }
    let how = &manifest.update_instructions;
    let order = match manifest.order() {
        [] => "all together".to_owned(),
        roles => {
            let delay = how.reboot_delay_seconds;
            format!("{}, {delay} s between them", roles.join(", then "))
        }
    };
    lines.push(("activation", order));
    lines.push(("health limit", format!("{} s", how.health_check_timeout_seconds)));
    if let Some(keys) = &manifest.keys {
        let ids = listed(keys.keys().iter().map(PublicKey::id));
        let total = keys.keys().len();
        lines.push(("next keys", format!("{} of {total} must sign: {ids}", keys.threshold())));
    }
    lines
}

/// A manifest as the object that it is.
pub fn manifest_json(manifest: &Manifest<'_>) -> Value {
    // What our own writer writes is JSON.
    serde_json::from_str(&manifest.to_json().to_string()).unwrap_or_default()
}

fn key_or_signature(bytes: &[u8], text: &str) -> Description {
    if let Ok(key) = PublicKey::parse(bytes) {
        let mut described = Description::new("public-key", format!("public key {}", key.id()));
        described.lines.push(("key", key.to_string()));
        described.facts = json!({ "key_id": key.id().to_string(), "key": key.to_string() });
        return described;
    }
    if let Some(is_encrypted) = keys::needs_password(text) {
        let mut described = Description::new("secret-key", "secret key for signing releases");
        let password = if is_encrypted { "needs one" } else { "none: keep it well" };
        described.lines.push(("password", password.to_owned()));
        described.facts = json!({ "encrypted": is_encrypted });
        return described;
    }
    match Signature::parse(bytes) {
        Ok(signature) => {
            let id = signature.key_id();
            let comment = tame(signature.trusted_comment());
            let mut described = Description::new("signature", format!("signature by key {id}"));
            described.facts = json!({ "key_id": id.to_string(), "trusted_comment": comment });
            described.lines.push(("comment", format!("{comment} (not verified)")));
            described
        }
        Err(error) => Description::new("signature", "neither a key nor a signature")
            .problem(with_causes(&error)),
    }
}

fn partition_table(bytes: &[u8]) -> Description {
    match PartitionTable::parse(bytes) {
        Ok(table) => {
            let mut described = Description::new("partition-table", "partition table");
            described.lines = table.entries().iter().map(partition_line).collect();
            described.facts = json!({ "partitions": partitions_json(&table) });
            described
        }
        Err(error) => {
            Description::new("partition-table", "partition table").problem(with_causes(&error))
        }
    }
}

fn partition_line(entry: &PartitionEntry) -> Line {
    let (start, size) = (entry.offset, entry.size_bytes);
    let kind = match entry.ota_slot() {
        Some(slot) => format!("slot ota_{slot}"),
        None => format!("type {:#04X}, subtype {:#04X}", entry.kind, entry.subtype),
    };
    ("partition", format!("{} at {start:#X}, {size:#X} bytes, {kind}", entry.label))
}

fn partitions_json(table: &PartitionTable) -> Vec<Value> {
    let one = |entry: &PartitionEntry| {
        json!({
            "label": entry.label.to_string(),
            "type": entry.kind,
            "subtype": entry.subtype,
            "offset": entry.offset,
            "size_bytes": entry.size_bytes,
        })
    };
    table.entries().iter().map(one).collect()
}

fn flash_dump(bytes: &[u8], table: &[u8]) -> Description {
    let table = match PartitionTable::parse(table.get(..TABLE_BYTES).unwrap_or(table)) {
        Ok(table) => table,
        Err(error) => {
            return Description::new("flash", "copy of a whole flash").problem(with_causes(&error));
        }
    };
    let title = format!("copy of a whole flash, {} bytes", bytes.len());
    let mut described = Description::new("flash", title);
    described.lines = table.entries().iter().map(partition_line).collect();
    if let Some(otadata) = table.find(TYPE_DATA, SUBTYPE_OTADATA) {
        for (index, offset) in [(0, otadata.offset), (1, otadata.offset + 0x1000)] {
            if let Some(text) = ota_entry(bytes, offset) {
                described.lines.push(("otadata", format!("entry {index}: {text}")));
            }
        }
    }
    let mut images = Vec::new();
    for slot in table.ota_slots() {
        match slot_image(bytes, slot) {
            Some(Ok(facts)) => {
                let title = facts::image_title(&facts);
                let hash = facts.image_hash;
                described.lines.push(("image", format!("{}: {title}, {hash}", slot.label)));
                images.push(json!({
                    "slot": slot.label.to_string(),
                    "image": facts::image_json(&facts),
                }));
            }
            Some(Err(error)) => {
                described.lines.push(("image", format!("{}: none, {error}", slot.label)));
            }
            None => {
                described = described
                    .problem(format!("slot `{}` lies beyond the end of the file", slot.label));
            }
        }
    }
    described.facts = json!({ "partitions": partitions_json(&table), "images": images });
    described
}

fn ota_entry(bytes: &[u8], offset: u32) -> Option<String> {
    let entry = bytes.get(offset as usize..)?.first_chunk()?;
    Some(match OtaEntry::decode(entry) {
        Some(entry) => format!("sequence {}, {:?}", entry.seq, entry.state),
        None => "none".to_owned(),
    })
}

/// The image in a slot; `None` if the file ends before the slot does.
fn slot_image(
    bytes: &[u8],
    slot: &PartitionEntry,
) -> Option<Result<ImageFacts, lockstep_proto::image::ImageError>> {
    let contents = bytes.get(slot.offset as usize..slot.end() as usize)?;
    let read = |offset: u32, out: &mut [u8]| {
        let start = offset as usize;
        let found = contents.get(start..start + out.len()).ok_or(())?;
        out.copy_from_slice(found);
        Ok::<(), ()>(())
    };
    read_image(slot.size_bytes, read).ok()
}

/// The largest bundle that makes sense: some roles of 32 MiB; no flash is larger either.
const FILE_BYTES_MAX: u64 = 512 << 20;
const TABLE_MAGIC: [u8; 2] = [0xAA, 0x50];
const SECTOR_BYTES: usize = 0x1000;
const SIGN_AGAIN: &str = "Sign the image that the build tool made, with all keys at once.";
