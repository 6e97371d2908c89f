//! From firmware images to a release: its manifest, and the bundle that carries it.
//!
//! A manifest made here has been read back by the reader that devices use, and its roles agree with
//! each other and with what their images say of themselves; what does not is refused. Signing is
//! `keys`.

use std::path::PathBuf;

use lockstep_proto::bundle::{
    END, EntryName, MANIFEST_NAME, artifact_name, header, padding_bytes, patch_name, signature_name,
};
use lockstep_proto::manifest::{
    DeviceEntry, Effect, GENERATION_BYTES, GenerationHash, GenerationHashes, KeySet,
    MANIFEST_SIZE_BYTES_MAX, Manifest, ROLES_MAX, Text, Trust, UpdateInstructions, verify,
    write_generations,
};
use lockstep_proto::version::{ProtocolRange, ReleaseVersion};
use lockstep_server::bundle::incompatible;
use md5::Digest as _;

use crate::args::{self, ForRole, RoleName};
use crate::error::CommandError;
use crate::facts::ImageFile;
use crate::patches::RolePatch;
use crate::ui::{Ui, listed};

/// Firmware images, and what is to be said of those that say nothing of themselves
#[derive(Debug, Default, clap::Args)]
pub struct ImagesArgs {
    /// The firmware of the receiver
    #[arg(long, value_name = "FILE", help_heading = "Images")]
    receiver: Option<PathBuf>,

    /// The firmware of the transmitter
    #[arg(long, value_name = "FILE", help_heading = "Images")]
    transmitter: Option<PathBuf>,

    /// The firmware of another role; as often as there are roles
    #[arg(long, value_name = "ROLE=FILE", help_heading = "Images",
          value_parser = args::role_value::<PathBuf>)]
    artifact: Vec<ForRole<PathBuf>>,

    /// The role of the lead: it is staged last, since it keeps the others' images until then
    #[arg(long, value_name = "ROLE", help_heading = "Images")]
    lead: Option<RoleName>,

    /// The version of an image without a descriptor
    #[arg(long, value_name = "ROLE=VERSION", help_heading = "Images",
          value_parser = args::role_value::<ReleaseVersion>)]
    role_version: Vec<ForRole<ReleaseVersion>>,

    /// The protocols that an image without a descriptor speaks [default: 1]
    #[arg(long, value_name = "ROLE=A..B", help_heading = "Images",
          value_parser = args::role_protocol)]
    role_protocol: Vec<ForRole<ProtocolRange>>,

    /// The oldest version that an image without a descriptor talks to [default: 0.0.0]
    #[arg(long, value_name = "ROLE=VERSION", help_heading = "Images",
          value_parser = args::role_value::<ReleaseVersion>)]
    role_min: Vec<ForRole<ReleaseVersion>>,
}

impl ImagesArgs {
    /// No image yet.
    pub fn of_lead(lead: Option<RoleName>) -> Self {
        Self { lead, ..Self::default() }
    }

    /// As if this file was given on the command line, with its role and version.
    pub fn add(&mut self, role: RoleName, path: PathBuf, version: ReleaseVersion) {
        self.role_version.push(ForRole { role: role.clone(), value: version });
        self.give(role, path);
    }

    /// As if this file was given on the command line, and nothing said of it.
    pub fn give(&mut self, role: RoleName, path: PathBuf) {
        self.artifact.push(ForRole { role, value: path });
    }

    /// What is said of an image without a descriptor.
    pub fn say(
        &mut self,
        role: &RoleName,
        protocol: Option<ProtocolRange>,
        minimum: Option<ReleaseVersion>,
    ) {
        let role = || role.clone();
        self.role_protocol.extend(protocol.map(|value| ForRole { role: role(), value }));
        self.role_min.extend(minimum.map(|value| ForRole { role: role(), value }));
    }

    /// Whether any image is named.
    pub const fn is_empty(&self) -> bool {
        self.receiver.is_none() && self.transmitter.is_none() && self.artifact.is_empty()
    }

    /// Whether nothing is said of any image.
    pub const fn names_nothing_but_the_lead(&self) -> bool {
        self.is_empty()
            && self.role_version.is_empty()
            && self.role_protocol.is_empty()
            && self.role_min.is_empty()
    }

    /// The role of the lead, if it is said.
    pub const fn lead(&self) -> Option<&RoleName> {
        self.lead.as_ref()
    }

    /// Reads all images, the lead's last. `version` is that of images that tell none.
    pub fn open(
        &self,
        ui: &Ui,
        version: Option<ReleaseVersion>,
    ) -> Result<Vec<RoleImage>, CommandError> {
        let files = self.files()?;
        self.check_roles(&files)?;
        let mut images = Vec::new();
        for (role, path) in &files {
            let file = ImageFile::open(ui, path)?;
            images.push(self.role_image(role, file, version)?);
        }
        check_twice(&images)?;
        let lead = self.lead_of(&files)?;
        // Stable: apart from the lead, the order is the given one.
        images.sort_by_key(|image| image.role == lead);
        Ok(images)
    }

    fn files(&self) -> Result<Vec<(RoleName, PathBuf)>, CommandError> {
        let named = [("receiver", &self.receiver), ("transmitter", &self.transmitter)];
        let mut files = Vec::new();
        for (name, path) in named {
            if let (Some(path), Ok(role)) = (path, name.parse()) {
                files.push((role, path.clone()));
            }
        }
        files.extend(self.artifact.iter().map(|one| (one.role.clone(), one.value.clone())));
        if files.is_empty() {
            return Err(CommandError::usage("No firmware image is given").hinted(
                "Name at least one: --receiver FILE, --transmitter FILE or --artifact ROLE=FILE",
            ));
        }
        if files.len() > ROLES_MAX {
            let found = files.len();
            return Err(CommandError::usage(format!("{found} roles, the limit is {ROLES_MAX}")));
        }
        for (index, (role, _)) in files.iter().enumerate() {
            if files.iter().take(index).any(|(other, _)| other == role) {
                return Err(CommandError::usage(format!("Two images are given for role `{role}`")));
            }
        }
        Ok(files)
    }

    /// Whatever is said of a role must be said of one that has an image.
    fn check_roles(&self, files: &[(RoleName, PathBuf)]) -> Result<(), CommandError> {
        let named = self.role_version.iter().map(|one| ("--role-version", &one.role));
        let named =
            named.chain(self.role_protocol.iter().map(|one| ("--role-protocol", &one.role)));
        let named = named.chain(self.role_min.iter().map(|one| ("--role-min", &one.role)));
        for (option, role) in named.chain(self.lead.iter().map(|role| ("--lead", role))) {
            if !files.iter().any(|(known, _)| known == role) {
                let roles = listed(files.iter().map(|(role, _)| format!("`{role}`")));
                return Err(CommandError::usage(format!(
                    "{option} names the role `{role}`, images are given for {roles}"
                ))
                .hinted(format!("Give its image too: --artifact {role}=FILE")));
            }
        }
        Ok(())
    }

    fn lead_of(&self, files: &[(RoleName, PathBuf)]) -> Result<RoleName, CommandError> {
        if let Some(role) = &self.lead {
            return Ok(role.clone());
        }
        let receiver = files.iter().find(|(role, _)| role.as_str() == DEFAULT_LEAD);
        match (receiver, files) {
            (Some((role, _)), _) | (None, [(role, _)]) => Ok(role.clone()),
            _ => Err(CommandError::usage("None of these roles is known to be the lead's")
                .hinted("Say which: --lead ROLE")),
        }
    }

    fn role_image(
        &self,
        role: &RoleName,
        file: ImageFile,
        default_version: Option<ReleaseVersion>,
    ) -> Result<RoleImage, CommandError> {
        let name = file.name.clone();
        let said = Said {
            version: find(&self.role_version, role),
            protocol: find(&self.role_protocol, role),
            minimum: find(&self.role_min, role),
        };
        if let Some(ours) = &file.facts.descriptor {
            if ours.role != role.as_str() {
                let found = &ours.role;
                return Err(CommandError::failed(format!(
                    "`{name}` is firmware for the role `{found}`, given for `{role}`"
                ))
                .hinted(format!("Give it as --artifact {found}={name}")));
            }
            must_agree(&name, "--role-version", said.version, &ours.version)?;
            must_agree(&name, "--role-protocol", said.protocol, &ours.protocol)?;
            must_agree(&name, "--role-min", said.minimum, &ours.min_compatible)?;
            let (version, protocol) = (ours.version, ours.protocol);
            let min_compatible = ours.min_compatible;
            return Ok(RoleImage { role: role.clone(), version, protocol, min_compatible, file });
        }
        let fmta = file.facts.fmta.as_ref();
        if let Some(fmta) = fmta
            && !fmta.device_type.as_str().eq_ignore_ascii_case(role.as_str())
        {
            let found = fmta.device_type;
            return Err(CommandError::failed(format!(
                "`{name}` is firmware for the role `{found}`, given for `{role}`"
            ))
            .hinted("Are two files given the wrong way round?"));
        }
        let from_fmta = fmta.and_then(|fmta| fmta.version().ok());
        let version = said.version.or(from_fmta).or(default_version).unwrap_or(UNKNOWN_VERSION);
        Ok(RoleImage {
            role: role.clone(),
            version,
            protocol: said.protocol.unwrap_or(ProtocolRange::single(1)),
            min_compatible: said.minimum.unwrap_or(UNKNOWN_VERSION),
            file,
        })
    }
}

/// What the command line says of one role.
struct Said {
    version: Option<ReleaseVersion>,
    protocol: Option<ProtocolRange>,
    minimum: Option<ReleaseVersion>,
}

/// What an image says of itself cannot be talked over.
fn must_agree<T: PartialEq + std::fmt::Display>(
    name: &str,
    option: &str,
    said: Option<T>,
    found: &T,
) -> Result<(), CommandError> {
    match said {
        Some(said) if said != *found => Err(CommandError::failed(format!(
            "`{name}` says `{found}` in its descriptor, {option} says `{said}`"
        ))
        .hinted(format!("Leave out {option}, or give the image that it was meant for."))),
        _ => Ok(()),
    }
}

fn find<T: Copy>(list: &[ForRole<T>], role: &RoleName) -> Option<T> {
    list.iter().rfind(|one| one.role == *role).map(|one| one.value)
}

fn check_twice(images: &[RoleImage]) -> Result<(), CommandError> {
    for (index, image) in images.iter().enumerate() {
        let hash = image.file.facts.image_hash;
        let twin = images.iter().take(index).find(|other| other.file.facts.image_hash == hash);
        if let Some(twin) = twin {
            return Err(CommandError::failed(format!(
                "The same image is given for the roles `{}` and `{}`: {hash}",
                twin.role, image.role
            ))
            .hinted("Each role has a firmware of its own. Check the file names."));
        }
    }
    Ok(())
}

/// An image for a role, and what is known of it.
#[derive(Debug, Clone)]
pub struct RoleImage {
    /// The role.
    pub role: RoleName,
    /// Its version: its own, or what was said of it.
    pub version: ReleaseVersion,
    /// The protocols it speaks.
    pub protocol: ProtocolRange,
    /// The oldest version it talks to.
    pub min_compatible: ReleaseVersion,
    /// The file.
    pub file: ImageFile,
}

/// A release to be made.
#[derive(Debug, Clone)]
pub struct ReleaseSpec {
    /// The product; without one, that of the images.
    pub system: Option<String>,
    /// Its version.
    pub version: ReleaseVersion,
    /// Rises with every release.
    pub sequence: u32,
    /// The anti-rollback counter; without one, that of the images.
    pub epoch: Option<u32>,
    /// When, in the words of RFC 3339.
    pub date: String,
    /// What is new.
    pub description: String,
    /// What the release says it talks to; without one, the newest of what its images say.
    pub min_compatible: Option<ReleaseVersion>,
    /// The order of activation; empty: all together.
    pub order: Vec<RoleName>,
    /// Seconds between two activations.
    pub reboot_delay_s: u32,
    /// Seconds that a device may take to become healthy.
    pub health_timeout_s: u32,
    /// Whether there is a way back once it is kept.
    pub is_reversible: bool,
    /// The keys to trust from then on.
    pub next_keys: Option<KeySet>,
    /// The images in the order of staging, the lead's last.
    pub images: Vec<RoleImage>,
}

impl ReleaseSpec {
    /// A release of these images, of which nothing else is known.
    pub fn of_images(version: ReleaseVersion, images: Vec<RoleImage>) -> Self {
        Self {
            system: None,
            version,
            sequence: 0,
            epoch: None,
            date: String::new(),
            description: String::new(),
            min_compatible: None,
            order: Vec::new(),
            reboot_delay_s: 0,
            health_timeout_s: 30,
            is_reversible: true,
            next_keys: None,
            images,
        }
    }

    /// The text of `manifest.json`.
    pub fn manifest(&self) -> Result<String, CommandError> {
        let text = self.text()?;
        let read = verify(text.as_bytes(), &[], &Trust::anybody()).map_err(|error| {
            CommandError::failed("No device would take the manifest of this release")
                .because(&error)
        })?;
        let conflicts = incompatible(&read);
        drop(read);
        if conflicts.is_empty() {
            return Ok(text);
        }
        let refused =
            CommandError::failed("The devices of this release would not talk to each other");
        Err(conflicts
            .into_iter()
            .fold(refused, |refused, conflict| refused.detailed(conflict.text, None))
            .hinted("Give a newer firmware for the older role, or one that speaks both protocols."))
    }

    /// The manifest with the hashes of all generations, if it is not too long for a device then.
    /// Else they are left out, the last image's first: that is the lead's, which comes to it by
    /// upload.
    fn text(&self) -> Result<String, CommandError> {
        let mut texts: Vec<ImageTexts> = self.images.iter().map(ImageTexts::of).collect();
        loop {
            let text = self.text_of(&texts)?;
            let listed = texts.iter_mut().rev().find_map(|texts| texts.generations.take());
            if text.len() <= MANIFEST_SIZE_BYTES_MAX || listed.is_none() {
                return Ok(text);
            }
        }
    }

    fn text_of(&self, texts: &[ImageTexts]) -> Result<String, CommandError> {
        let system = self.product()?;
        let pairs = self.images.iter().zip(texts);
        let devices = pairs.map(|(image, texts)| image.entry(texts, self.is_reversible)).collect();
        let order = self.order.iter().map(RoleName::as_str).collect();
        let newest = self.images.iter().map(|image| image.min_compatible).max();
        let manifest = Manifest {
            schema: lockstep_proto::manifest::SCHEMA_NEWEST,
            system: system.as_deref().map(Text::new),
            system_version: self.version,
            sequence: self.sequence,
            epoch: self.epoch()?,
            release_date: Text::new(&self.date),
            min_compatible_version: self.min_compatible.or(newest).unwrap_or(UNKNOWN_VERSION),
            description: Text::new(&self.description),
            devices,
            update_instructions: UpdateInstructions {
                order,
                reboot_delay_seconds: self.reboot_delay_s,
                health_check_timeout_seconds: self.health_timeout_s,
            },
            rollback: None,
            keys: self.next_keys.clone(),
        };
        Ok(manifest.to_json().to_string())
    }

    /// The whole bundle without signatures.
    pub fn unsigned_bundle(&self, patches: &[RolePatch]) -> Result<Vec<u8>, CommandError> {
        let manifest = self.manifest()?;
        Ok(self.bundle_parts(&manifest, &[], patches)?.concat())
    }

    /// The parts of a bundle, to be written one behind the other.
    pub fn bundle_parts(
        &self,
        manifest: &str,
        signatures: &[String],
        patches: &[RolePatch],
    ) -> Result<Vec<Vec<u8>>, CommandError> {
        let name = EntryName::try_from(MANIFEST_NAME).unwrap_or_default();
        let mut parts = entry(&name, manifest.as_bytes())?;
        for (index, signature) in signatures.iter().enumerate() {
            parts.extend(entry(&signature_name(index), signature.as_bytes())?);
        }
        for image in &self.images {
            for patch in patches.iter().filter(|patch| patch.role == image.role.as_str()) {
                parts.extend(entry(&patch_name(&patch.role, &patch.tag), &patch.bytes)?);
            }
            parts.extend(entry(&artifact_name(image.role.as_str()), &image.file.bytes)?);
        }
        parts.push(END.to_vec());
        Ok(parts)
    }

    /// The product: given, or that of the images, which must all be of one.
    pub fn product(&self) -> Result<Option<String>, CommandError> {
        let mut system = self.system.clone();
        for image in &self.images {
            let Some(ours) = &image.file.facts.descriptor else { continue };
            let found = ours.product.as_str();
            match &system {
                Some(expected) if expected != found => {
                    return Err(CommandError::failed(format!(
                        "`{}` belongs to the system `{found}`, the release is of `{expected}`",
                        image.file.name
                    ))
                    .hinted(
                        "All images of a release belong to one system. Name it with --system.",
                    ));
                }
                Some(_) => (),
                None => system = Some(found.to_owned()),
            }
        }
        Ok(system)
    }

    /// The epoch: given, or that of the images, which must all be of one.
    fn epoch(&self) -> Result<u32, CommandError> {
        let mut epoch = self.epoch;
        for image in &self.images {
            let Some(ours) = &image.file.facts.descriptor else { continue };
            match epoch {
                Some(expected) if expected != ours.epoch => {
                    return Err(CommandError::failed(format!(
                        "`{}` is of epoch {}, the release of {expected}",
                        image.file.name, ours.epoch
                    ))
                    .hinted("Build all firmware of a release with the same epoch."));
                }
                _ => epoch = Some(ours.epoch),
            }
        }
        Ok(epoch.unwrap_or(0))
    }
}

/// Texts of an image that its manifest entry borrows.
struct ImageTexts {
    url: String,
    md5: String,
    chip: String,
    board: Option<String>,
    generations: Option<String>,
}

impl ImageTexts {
    fn of(image: &RoleImage) -> Self {
        let digest = md5::Md5::digest(&image.file.bytes);
        let facts = &image.file.facts;
        Self {
            url: artifact_name(image.role.as_str()).to_string(),
            md5: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            chip: facts.header.chip.to_string(),
            board: facts.descriptor.as_ref().map(|ours| ours.board.to_string()),
            generations: Some(generations_text(&image.file.bytes)),
        }
    }
}

impl RoleImage {
    fn entry<'a>(&'a self, texts: &'a ImageTexts, is_reversible: bool) -> DeviceEntry<'a> {
        let facts = &self.file.facts;
        let elf = facts.app.as_ref().map(|app| app.elf_sha256).filter(|hash| hash.0 != [0; 32]);
        let board = texts.board.as_deref().map(Text::new);
        DeviceEntry {
            role: self.role.as_str(),
            version: self.version,
            device_type: Text::new(&texts.chip),
            hardware: board.unwrap_or_default(),
            firmware_url: Text::new(&texts.url),
            // No file is read beyond the limit for firmware, which is far below 4 GiB.
            firmware_size: u32::try_from(self.file.bytes.len()).unwrap_or(u32::MAX),
            md5_checksum: Text::new(&texts.md5),
            protocol_version: self.protocol.max(),
            protocol_range: Some(self.protocol),
            sha256: Some(facts.file_sha256),
            image_sha256: Some(facts.image_hash),
            generations_sha256: texts.generations.as_deref().and_then(GenerationHashes::from_text),
            elf_sha256: elf,
            chip: Some(facts.header.chip),
            board,
            min_compatible: Some(self.min_compatible),
            config_schema: facts.descriptor.as_ref().map_or(0, |d| u32::from(d.config_schema)),
            effect: if is_reversible { Effect::None } else { Effect::NotReversible },
            guard: facts.guard(),
        }
    }
}

fn generations_text(file: &[u8]) -> String {
    let mut text = String::new();
    let generations = file.chunks(GENERATION_BYTES as usize).map(GenerationHash::of);
    // A text takes what is written into it.
    let _ = write_generations(generations, &mut text);
    text
}

/// An entry of a tar: header, contents, padding.
fn entry(name: &EntryName, contents: &[u8]) -> Result<Vec<Vec<u8>>, CommandError> {
    let size_bytes = u32::try_from(contents.len())
        .map_err(|_| CommandError::failed(format!("`{name}` is too large for a bundle")))?;
    let padding = vec![0; padding_bytes(size_bytes)];
    Ok(vec![header(name, size_bytes).to_vec(), contents.to_vec(), padding])
}

const DEFAULT_LEAD: &str = "receiver";
/// Of firmware that tells nothing: older than everything, and content with everything.
const UNKNOWN_VERSION: ReleaseVersion = ReleaseVersion::from_number(0);
