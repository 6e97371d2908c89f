//! What a firmware image is, for people and for programs.
//!
//! The reading and the checks are `lockstep_proto::image`'s; here it is put into words. Not here:
//! whether an image fits a release (`bundle`, `release`).

use std::fmt::Display;
use std::path::Path;

use lockstep_proto::image::{ImageError, ImageFacts, ImageReader, SignedBy, signature_blocks};
use lockstep_proto::manifest::FIRMWARE_SIZE_BYTES_MAX;
use lockstep_proto::version::ReleaseVersion;
use serde_json::{Value, json};

use crate::error::CommandError;
use crate::files;
use crate::ui::{Ui, tame};

/// A line of a description: what, and its value.
pub type Line = (&'static str, String);

/// Reads an image that is in memory.
pub fn read_image(bytes: &[u8]) -> Result<ImageFacts, ImageError> {
    let mut reader = ImageReader::new();
    reader.push(bytes)?;
    reader.finish()
}

/// A firmware file that was read and is whole.
#[derive(Debug, Clone)]
pub struct ImageFile {
    /// Its path, as it was given.
    pub name: String,
    /// All of it.
    pub bytes: Vec<u8>,
    /// What it is.
    pub facts: ImageFacts,
}

impl ImageFile {
    /// Reads and checks a firmware file.
    pub fn open(ui: &Ui, path: &Path) -> Result<Self, CommandError> {
        let name = path.display().to_string();
        let bytes = files::read(path, u64::from(FIRMWARE_SIZE_BYTES_MAX))?;
        let bar = ui.bytes_bar(format!("Checking {name}"), bytes.len() as u64);
        let mut reader = ImageReader::new();
        let pushed = bytes.chunks(CHUNK_BYTES).try_for_each(|chunk| {
            bar.inc(chunk.len() as u64);
            reader.push(chunk)
        });
        bar.finish_and_clear();
        let facts = pushed.and_then(|()| reader.finish()).map_err(|error| {
            let refused = CommandError::failed(format!("`{name}` is not a whole firmware image"));
            let refused = refused.because(&error);
            match lockstep_server::bundle::image_hint(&error) {
                Some(hint) => refused.hinted(hint),
                None => refused,
            }
        })?;
        Ok(Self { name, bytes, facts })
    }
}

/// What an image is, as lines.
pub fn image_lines(facts: &ImageFacts) -> Vec<Line> {
    let mut lines = vec![("chip", facts.header.chip.to_string())];
    if let Some(ours) = &facts.descriptor {
        lines.extend([
            ("system", ours.product.to_string()),
            ("role", ours.role.to_string()),
            ("board", ours.board.to_string()),
            ("version", numbered(ours.version)),
            ("talks to", format!("{} or newer, protocol {}", ours.min_compatible, ours.protocol)),
            ("epoch", ours.epoch.to_string()),
            ("config schema", ours.config_schema.to_string()),
        ]);
    } else if let Some(fmta) = &facts.fmta {
        let version = match fmta.version() {
            Ok(version) => numbered(version),
            Err(error) => format!("{}.{}.{}: {error}", fmta.major, fmta.minor, fmta.patch),
        };
        lines.extend([
            ("role", fmta.device_type.to_string().to_lowercase()),
            ("environment", fmta.env_name.to_string()),
            ("version", version),
        ]);
    } else {
        lines.push(("descriptor", "none: role, version and protocol are up to a manifest".into()));
    }
    if let Some(app) = &facts.app {
        let label = |text: String| if text.is_empty() { "(nothing)".to_owned() } else { text };
        lines.extend([
            ("built as", format!("{} {}", label(app.project.to_string()), app.version)),
            ("built", format!("{} {}, ESP-IDF {}", app.date, app.time, app.idf_version)),
        ]);
    }
    match facts.guard().secure_version {
        0 => (),
        number => lines.push(("secure version", number.to_string())),
    }
    lines.extend([
        ("flash", flash_text(facts)),
        ("size", format!("{} bytes; {}", facts.size_bytes, fits(facts.size_bytes))),
        ("image hash", hash_text(facts)),
        ("file SHA-256", facts.file_sha256.to_string()),
    ]);
    if let Some(app) = &facts.app
        && app.elf_sha256.0 != [0; 32]
    {
        lines.push(("ELF SHA-256", app.elf_sha256.to_string()));
    }
    lines
}

/// The same as [`image_lines`], for programs.
pub fn image_json(facts: &ImageFacts) -> Value {
    let descriptor = facts.descriptor.as_ref().map(|ours| {
        json!({
            "system": ours.product.as_str(),
            "role": ours.role.as_str(),
            "board": ours.board.as_str(),
            "version": ours.version.to_string(),
            "version_number": ours.version.number(),
            "min_compatible": ours.min_compatible.to_string(),
            "protocol_range": [ours.protocol.min(), ours.protocol.max()],
            "epoch": ours.epoch,
            "config_schema": ours.config_schema,
        })
    });
    let fmta = facts.fmta.as_ref().map(|fmta| {
        json!({
            "env_name": fmta.env_name.to_string(),
            "device_type": fmta.device_type.to_string(),
            "version": fmta.version().ok().map(|version| version.to_string()),
        })
    });
    let app = facts.app.as_ref().map(|app| {
        json!({
            "project": app.project.to_string(),
            "version": app.version.to_string(),
            "date": app.date.to_string(),
            "time": app.time.to_string(),
            "idf_version": app.idf_version.to_string(),
            "secure_version": app.secure_version,
            "elf_sha256": app.elf_sha256.to_string(),
        })
    });
    let fit = SLOTS.map(|slot| json!({ "slot_bytes": slot, "fits": facts.size_bytes <= slot }));
    json!({
        "chip": facts.header.chip.to_string(),
        "descriptor": descriptor,
        "fmta": fmta,
        "app": app,
        "size_bytes": facts.size_bytes,
        "slots": fit,
        "signed": facts.guard().is_signed,
        "image_sha256": facts.image_hash.to_string(),
        "hash_appended": facts.hash_appended,
        "sha256": facts.file_sha256.to_string(),
    })
}

/// Who has signed an image for secure boot, block by block; empty without a signature.
pub fn signed_by(bytes: &[u8], facts: &ImageFacts) -> Vec<SignedBy> {
    let Some(at) = facts.signature_at.map(|at| at as usize) else { return Vec::new() };
    let (Some(signed), Some(sector)) = (bytes.get(..at), bytes.get(at..facts.size_bytes as usize))
    else {
        return Vec::new();
    };
    signature_blocks(signed, sector).into_iter().collect()
}

/// A signature block, as a line.
pub fn signature_line(block: &SignedBy) -> Line {
    let scheme = block.scheme.map_or_else(|| "an unknown kind".to_owned(), |it| it.to_string());
    let fits = if block.fault.is_none() { "made for this image" } else { "not this image's" };
    ("secure boot", format!("v2, {scheme}, key digest {}; {fits}", block.key_digest))
}

/// The same, for programs.
pub fn signature_json(block: &SignedBy) -> Value {
    json!({
        "scheme": block.scheme.map(|scheme| scheme.to_string()),
        "key_digest": block.key_digest.to_string(),
        "problem": block.fault.map(|fault| fault.to_string()),
    })
}

/// What an image calls itself, in a word: `receiver 1.2.0`.
pub fn image_title(facts: &ImageFacts) -> String {
    if let Some(ours) = &facts.descriptor {
        return format!("{} {}", ours.role, ours.version);
    }
    match (&facts.fmta, &facts.app) {
        (Some(fmta), _) => {
            let (role, version) = (fmta.device_type.to_string().to_lowercase(), fmta.version());
            version.map_or_else(|_| role.clone(), |version| format!("{role} {version}"))
        }
        (None, Some(app)) => tame(&format!("{} {}", app.project, app.version)),
        (None, None) => "without a description".to_owned(),
    }
}

/// A version the way it is announced, too.
pub fn numbered(version: ReleaseVersion) -> String {
    format!("{version} (number {})", version.number())
}

/// `label  value` lines under a title, the labels as wide as the widest of all descriptions.
pub fn laid_out(lines: &[Line]) -> String {
    let lines = lines.iter().map(|(label, value)| format!("  {label:13}  {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether so many bytes fit the slots that are in use.
pub fn fits(size_bytes: u32) -> String {
    let one = |slot: u32| match slot.checked_sub(size_bytes) {
        Some(_) => format!("fits a slot of {slot:#X}"),
        None => format!("{} too many for a slot of {slot:#X} ({slot})", size_bytes - slot),
    };
    SLOTS.map(one).join(", ")
}

fn flash_text(facts: &ImageFacts) -> String {
    let size: &dyn Display = match facts.header.flash.size_bytes() {
        Some(bytes) => &format!("{} MiB", bytes >> 20),
        None => &"unknown size",
    };
    format!("{}, {size}", facts.header.spi_mode)
}

fn hash_text(facts: &ImageFacts) -> String {
    let note = if facts.hash_appended { "" } else { " (computed; the image carries none)" };
    format!("{}{note}", facts.image_hash)
}

/// Arduino's default table, and its table with the largest slots on 4 MiB (`min_spiffs`).
const SLOTS: [u32; 2] = [0x14_0000, 0x1E_0000];
const CHUNK_BYTES: usize = 64 * 1024;
