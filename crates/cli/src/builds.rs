//! A folder that builds are copied to, and the newest set in it that makes a release.
//!
//! Names are those of the original plan: `ENV_fw_1_2_0.bin`, `receiver_v1.2.0_20260203_143022.bin`,
//! in the folder or in one of its folders, which is then called after the role. A copy called
//! `…_latest.bin` is passed over: it may be half of one build and half of the next. With a
//! `system_manifest.json` in the folder the set is what that names, by hash where it has one, and
//! every image must be what it says; else the newest version of which every role has an image.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use lockstep_proto::id::Sha256;
use lockstep_proto::image::ChipId;
use lockstep_proto::manifest::FIRMWARE_SIZE_BYTES_MAX;
use lockstep_proto::version::{ProtocolRange, ReleaseVersion};
use serde::Deserialize;
use sha2::Digest as _;

use crate::args::RoleName;
use crate::error::CommandError;
use crate::facts::ImageFile;
use crate::files;
use crate::release::{ImagesArgs, ReleaseSpec};
use crate::ui::Ui;

/// One build.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Build {
    /// The folder's name, or what stands before the version in the file's.
    pub label: String,
    /// The version in its name.
    pub version: ReleaseVersion,
    /// When it was written last; the newest of one version counts.
    modified: SystemTime,
    size_bytes: u64,
    /// Where it is.
    pub path: PathBuf,
}

/// Builds that make a release, one for each role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// The version of the release.
    pub version: ReleaseVersion,
    /// One for each role.
    pub builds: Vec<Build>,
    plan: SystemManifest,
}

/// What counts of a `system_manifest.json`. Sizes, and MD5, are taken from the images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct SystemManifest {
    system_version: Option<String>,
    min_compatible_version: Option<String>,
    description: String,
    devices: BTreeMap<String, DevicePlan>,
    update_instructions: Instructions,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct DevicePlan {
    version: Option<String>,
    device_type: Option<String>,
    protocol_version: Option<u8>,
    /// Ours; the original plan has none.
    sha256: Option<String>,
    min_compatible: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Instructions {
    order: Vec<String>,
    reboot_delay_seconds: u32,
    health_check_timeout_seconds: Option<u32>,
}

/// The newest set of a folder; `None`: not every role has its image yet.
pub fn newest(folder: &Path) -> Result<Option<Set>, CommandError> {
    let mut builds = builds_in(folder, None)?;
    let inner_folders = folders_in(folder)?;
    // `lockstep.py` has put a role there, and writes the system's manifest once all are of one
    // version: a receiver alone is no release.
    let is_unfinished = inner_folders.iter().any(|inner| inner.join(ROLE_MANIFEST_NAME).is_file());
    for inner in inner_folders {
        let label = inner.file_name().map(|name| name.to_string_lossy().into_owned());
        builds.extend(builds_in(&inner, label.as_deref())?);
    }
    builds.sort();
    match system_manifest(folder)? {
        Some(plan) => planned(&builds, plan),
        None if is_unfinished => Ok(None),
        None => Ok(unplanned(&builds)),
    }
}

/// The newest version that is there of every label.
fn unplanned(builds: &[Build]) -> Option<Set> {
    let labels: BTreeSet<&str> = builds.iter().map(|build| build.label.as_str()).collect();
    let versions: BTreeSet<ReleaseVersion> = builds.iter().map(|build| build.version).collect();
    versions.into_iter().rev().find_map(|version| {
        let of_label = |label: &&str| pick(builds, label, version);
        let chosen: Option<Vec<Build>> = labels.iter().map(of_label).collect();
        let builds = chosen.filter(|builds| !builds.is_empty())?;
        Some(Set { version, builds, plan: SystemManifest::default() })
    })
}

fn planned(builds: &[Build], plan: SystemManifest) -> Result<Option<Set>, CommandError> {
    let text = plan.system_version.clone().unwrap_or_default();
    let version = version_of(&text, "system_version")?;
    let mut chosen = Vec::new();
    for (role, device) in &plan.devices {
        let of_role = match &device.version {
            Some(text) => version_of(text, "version")?,
            None => version,
        };
        let build = match &device.sha256 {
            Some(hash) => pick_by_hash(builds, role, of_role, hash)?,
            None => pick(builds, role, of_role),
        };
        match build {
            Some(build) => chosen.push(build),
            None => return Ok(None),
        }
    }
    if chosen.is_empty() {
        return Ok(None);
    }
    Ok(Some(Set { version, builds: chosen, plan }))
}

/// The build that was written last.
fn pick(builds: &[Build], label: &str, version: ReleaseVersion) -> Option<Build> {
    let is_it = |build: &&Build| build.label == label && build.version == version;
    builds.iter().filter(is_it).max_by_key(|build| build.modified).cloned()
}

/// The build that a manifest means, whatever has been built since.
fn pick_by_hash(
    builds: &[Build],
    label: &str,
    version: ReleaseVersion,
    hash: &str,
) -> Result<Option<Build>, CommandError> {
    let mut seen = false;
    for build in builds.iter().filter(|it| it.label == label && it.version == version) {
        seen = true;
        let bytes = files::read(&build.path, u64::from(FIRMWARE_SIZE_BYTES_MAX))?;
        if Sha256(sha2::Sha256::digest(&bytes).into()).to_string() == hash.to_ascii_lowercase() {
            return Ok(Some(build.clone()));
        }
    }
    if !seen {
        return Ok(None);
    }
    Err(CommandError::failed(format!(
        "No image of `{label}` {version} has the SHA-256 that `{MANIFEST_NAME}` names, {hash}"
    ))
    .hinted("An image was changed after it was built. Build it again."))
}

fn version_of(text: &str, field: &str) -> Result<ReleaseVersion, CommandError> {
    text.parse().map_err(|error| {
        CommandError::failed(format!("`{field}` in `{MANIFEST_NAME}` is `{text}`"))
            .because(&error)
            .hinted("Such as \"1.2.0\".")
    })
}

fn system_manifest(folder: &Path) -> Result<Option<SystemManifest>, CommandError> {
    let path = folder.join(MANIFEST_NAME);
    if !path.try_exists().unwrap_or(true) {
        return Ok(None);
    }
    let bytes = files::read(&path, MANIFEST_BYTES_MAX)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        CommandError::failed(format!("`{}` cannot be read", path.display())).because(&error)
    })
}

fn builds_in(folder: &Path, label: Option<&str>) -> Result<Vec<Build>, CommandError> {
    let mut builds = Vec::new();
    for entry in entries(folder)? {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((stem, version)) = read_name(&name) else { continue };
        // What goes away while we look is not there.
        let Ok(about) = entry.metadata() else { continue };
        let modified = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let label = label.unwrap_or(stem).to_owned();
        builds.push(Build { label, version, modified, size_bytes: about.len(), path });
    }
    Ok(builds)
}

fn folders_in(folder: &Path) -> Result<Vec<PathBuf>, CommandError> {
    let entries = entries(folder)?.into_iter();
    Ok(entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
}

fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>, CommandError> {
    let failed = |error: std::io::Error| {
        CommandError::failed(format!("Cannot look into the folder `{}`", folder.display()))
            .because(&error)
            .hinted("Name the folder that builds are copied to: --watch DIR")
    };
    let entries = fs::read_dir(folder).map_err(failed)?;
    entries.take(ENTRIES_MAX).collect::<Result<_, _>>().map_err(failed)
}

/// What a file's name says: what was built, and its version.
fn read_name(name: &str) -> Option<(&str, ReleaseVersion)> {
    let stem = name.strip_suffix(".bin")?;
    let named = stem
        .rsplit_once("_fw_")
        .and_then(|(label, numbers)| Some((label, numbers.replace('_', ".").parse().ok()?)));
    if named.is_some() {
        return named;
    }
    // From the right: a role may be called `sensor_v2`.
    stem.rmatch_indices("_v").find_map(|(at, mark)| {
        let (label, rest) = (stem.get(..at)?, stem.get(at + mark.len()..)?);
        let (version, _moment) = rest.split_once('_').unwrap_or((rest, ""));
        Some((label, version.parse().ok()?))
    })
}

impl Set {
    /// The release that these builds make; `lead` is staged last.
    pub fn release(
        &self,
        ui: &Ui,
        envs: &BTreeMap<String, RoleName>,
        lead: Option<&RoleName>,
    ) -> Result<ReleaseSpec, CommandError> {
        let mut args = ImagesArgs::of_lead(lead.cloned());
        for build in &self.builds {
            let image = ImageFile::open(ui, &build.path)?;
            let role = role_of(&image, build, envs)?;
            args.add(role.clone(), build.path.clone(), build.version);
            let Some(plan) = self.plan.devices.get(&build.label) else { continue };
            check_plan(&image, plan)?;
            if image.facts.descriptor.is_none() {
                let protocol = plan.protocol_version.map(ProtocolRange::single);
                let minimum = plan.min_compatible.as_deref();
                let minimum = minimum.map(|it| version_of(it, "min_compatible")).transpose()?;
                args.say(&role, protocol, minimum);
            }
        }
        let images = args.open(ui, Some(self.version))?;
        let plan = &self.plan;
        let order: Result<Vec<RoleName>, String> =
            plan.update_instructions.order.iter().map(|role| role.parse()).collect();
        let order = order.map_err(|error| {
            CommandError::failed(format!("`order` in `{MANIFEST_NAME}`: {error}"))
        })?;
        let oldest = plan.min_compatible_version.as_deref();
        let spec = ReleaseSpec::of_images(self.version, images);
        let instructions = &plan.update_instructions;
        let usual_s = spec.health_timeout_s;
        Ok(ReleaseSpec {
            sequence: self.version.number(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            description: plan.description.clone(),
            min_compatible: oldest
                .map(|it| version_of(it, "min_compatible_version"))
                .transpose()?,
            order,
            reboot_delay_s: instructions.reboot_delay_seconds,
            health_timeout_s: instructions.health_check_timeout_seconds.unwrap_or(usual_s),
            ..spec
        })
    }
}

/// What the image says, else what the command line says of its environment, else its label.
fn role_of(
    image: &ImageFile,
    build: &Build,
    envs: &BTreeMap<String, RoleName>,
) -> Result<RoleName, CommandError> {
    let (name, label) = (&image.name, &build.label);
    let ours = image.facts.descriptor.as_ref();
    let fmta = image.facts.fmta.as_ref();
    let says = ours.map(|it| it.version).or(fmta.and_then(|it| it.version().ok()));
    if let Some(found) = says.filter(|found| *found != build.version) {
        return Err(CommandError::failed(format!(
            "`{name}` says {found} of itself, its name says {}",
            build.version
        ))
        .hinted("Build it again with the version that its name is made of."));
    }
    let role = ours.map(|it| it.role.to_string());
    let role = role.or(fmta.map(|it| it.device_type.as_str().to_lowercase()));
    if let Some(role) = role.and_then(|role| role.parse().ok()) {
        return Ok(role);
    }
    if let Some(role) = envs.get(label) {
        return Ok(role.clone());
    }
    label.parse().map_err(|error: String| {
        CommandError::failed(format!("`{name}` does not say its role, and `{label}` is none"))
            .hinted(format!("Say it: --env {label}=receiver ({error})."))
    })
}

/// An image is for the chip that the manifest names, and speaks its protocol.
fn check_plan(image: &ImageFile, plan: &DevicePlan) -> Result<(), CommandError> {
    let name = &image.name;
    let differs = |what: &str, found: String, expected: String| {
        CommandError::failed(format!("`{name}` {what} {found}, `{MANIFEST_NAME}` says {expected}"))
            .hinted("Build it again, so that the manifest is written anew.")
    };
    let found = image.facts.header.chip;
    if let Some(expected) = plan.device_type.as_deref().and_then(ChipId::from_name)
        && found != expected
    {
        return Err(differs("is for the chip", found.to_string(), expected.to_string()));
    }
    let spoken = image.facts.descriptor.as_ref().map(|ours| ours.protocol);
    if let (Some(spoken), Some(expected)) = (spoken, plan.protocol_version)
        && !(spoken.min()..=spoken.max()).contains(&expected)
    {
        return Err(differs("speaks the protocols", spoken.to_string(), expected.to_string()));
    }
    Ok(())
}

/// The plan's own name.
const ROLE_MANIFEST_NAME: &str = "manifest.json";
const MANIFEST_NAME: &str = "system_manifest.json";
/// Many times what the plan's example has.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024;
/// Files of one folder that are looked at.
const ENTRIES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> ReleaseVersion {
        text.parse().unwrap()
    }

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        folder
    }

    #[test]
    fn a_name_tells_what_was_built_and_its_version() {
        assert_eq!(read_name("esp32-poe_fw_1_2_0.bin"), Some(("esp32-poe", version("1.2.0"))));
        let stamped = read_name("receiver_v1.0.1_20260203_151530.bin");
        assert_eq!(stamped, Some(("receiver", version("1.0.1"))));
        let numbered = read_name("sensor_v2_v1.0.1_20260203_151530.bin");
        assert_eq!(numbered, Some(("sensor_v2", version("1.0.1"))));
        assert_eq!(read_name("my_fw_v1.2.0.bin"), Some(("my_fw", version("1.2.0"))));
        for other in ["receiver_latest.bin", "firmware.bin", "a_fw_1_2.bin", "a_v1.2.0.elf"] {
            assert_eq!(read_name(other), None, "{other}");
        }
    }

    /// Only the receiver has been built: half of a release would leave the transmitter behind.
    #[test]
    fn a_role_that_was_built_before_the_others_is_no_release() {
        let folder =
            folder(&["receiver/receiver_v1.0.0_20260203_143022.bin", "receiver/manifest.json"]);
        assert!(newest(folder.path()).unwrap().is_none());
    }

    #[test]
    fn the_newest_version_that_every_role_has_is_the_set() {
        let folder = folder(&[
            "receiver/receiver_v1.0.0_20260203_143022.bin",
            "receiver/receiver_v1.1.0_20260203_151530.bin",
            "receiver/receiver_latest.bin",
            "transmitter/transmitter_v1.0.0_20260203_143045.bin",
        ]);
        let set = newest(folder.path()).unwrap().unwrap();
        assert_eq!((set.version, set.builds.len()), (version("1.0.0"), 2));
        let late = "transmitter/transmitter_v1.1.0_20260203_151545.bin";
        fs::write(folder.path().join(late), "x").unwrap();
        assert_eq!(newest(folder.path()).unwrap().unwrap().version, version("1.1.0"));
    }

    #[test]
    fn a_system_manifest_says_which_versions_belong_together() {
        let names = ["receiver_fw_1_1_0.bin", "transmitter_fw_1_0_0.bin", "other_fw_9_0_0.bin"];
        let folder = folder(&names);
        let manifest = folder.path().join(MANIFEST_NAME);
        let text = r#"{"system_version":"2.0.0","devices":{"receiver":{"version":"1.1.0"},
            "transmitter":{"version":"1.0.0"}},"unknown":1}"#;
        fs::write(&manifest, text).unwrap();
        let set = newest(folder.path()).unwrap().unwrap();
        assert_eq!((set.version, set.builds.len()), (version("2.0.0"), 2));
        fs::write(&manifest, text.replace("1.1.0", "1.2.0")).unwrap();
        assert_eq!(newest(folder.path()).unwrap(), None, "one image is not there");
        fs::write(&manifest, "{").unwrap();
        assert!(newest(folder.path()).is_err());
    }
}
