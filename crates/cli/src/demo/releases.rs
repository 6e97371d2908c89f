//! What is rolled out: releases, signed with a key made for the occasion, and what is expected.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use lockstep_proto::descriptor::Role;
use lockstep_proto::version::{ProtocolRange, ReleaseVersion};
use lockstep_sim::firmware::{Fault, FirmwareSpec};

use super::Seat;
use crate::args::RoleName;
use crate::commands::device::{FIRST_VERSION, Kind, PRODUCT, descriptor, make_image};
use crate::error::CommandError;
use crate::facts::{self, ImageFile};
use crate::files::{self, Existing, Readers};
use crate::keys::{self, PasswordArgs, Signer};
use crate::release::{ReleaseSpec, RoleImage};
use crate::ui::Ui;

/// The roles, the lead first.
pub(crate) const ROLES: [&str; 2] = ["receiver", "transmitter"];

/// What the demo does.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What the devices are given.
    pub(crate) seats: Vec<Seat>,
    /// All releases, the one that the devices begin with first.
    pub(crate) releases: Vec<Release>,
    /// What happens, in order.
    pub(crate) steps: Vec<Step>,
}

/// A release, and what its images are.
#[derive(Debug)]
pub(crate) struct Release {
    /// Its version.
    pub(crate) version: ReleaseVersion,
    /// The hash of each role's image.
    pub(crate) images: Vec<(&'static str, String)>,
    /// The bundle; none of what the devices begin with.
    pub(crate) bundle: Option<Bundle>,
}

/// A bundle, in memory and as a file.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

/// One rollout, and what is expected of it.
#[derive(Debug)]
pub(crate) struct Step {
    /// What is special about it.
    pub(crate) title: String,
    /// What is done.
    pub(crate) act: Act,
    /// The verdict.
    pub(crate) verdict: &'static str,
    /// What both devices run afterwards.
    pub(crate) ends_on: ReleaseVersion,
    /// What is expected, in words.
    pub(crate) expected: String,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// A release is rolled out.
    Update(ReleaseVersion),
    /// The last release is taken back.
    Revert,
    /// A release is rolled out, and aborted while it is staged.
    AbortWhileStaging(ReleaseVersion),
}

impl Plan {
    /// The release that is called `version`.
    pub(crate) fn release(&self, version: ReleaseVersion) -> Option<&Release> {
        self.releases.iter().find(|release| release.version == version)
    }

    /// The release that an image belongs to.
    pub(crate) fn release_of(&self, image: &str) -> Option<String> {
        let has = |release: &&Release| release.images.iter().any(|(_, hash)| hash == image);
        Some(self.releases.iter().find(has)?.version.to_string())
    }
}

/// The plan with images made here: one good release, and two with a transmitter that fails.
pub(crate) fn generated(folder: &Path) -> Result<Plan, CommandError> {
    let key = Key::make(folder)?;
    let version = |minor| ReleaseVersion::new(1, minor, 0).unwrap_or(FIRST_VERSION);
    let (good, unhealthy, crashing) = (version(1), version(2), version(3));
    let faults =
        [(good, Fault::None), (unhealthy, Fault::NeverHealthy), (crashing, Fault::CrashAtBoot)];
    let mut releases = vec![Release::of_images(FIRST_VERSION, &made(FIRST_VERSION, Fault::None)?)];
    for (version, fault) in faults {
        releases.push(key.release(folder, PRODUCT, version, made(version, fault)?)?);
    }
    let step = |title: &str, to: ReleaseVersion, verdict: &'static str, ends_on| Step {
        title: format!("Release {to}: {title}"),
        act: Act::Update(to),
        verdict,
        ends_on,
        expected: match verdict {
            "keep" => format!("both devices keep {to}"),
            _ => format!("both devices go back to {ends_on}"),
        },
    };
    let steps = vec![
        step("two good images", good, "keep", good),
        step("the transmitter's image never gets healthy", unhealthy, "revert", good),
        step("the transmitter's image crashes at boot", crashing, "revert", good),
    ];
    let seats = ROLES.map(|role| Seat { role, arguments: key.arguments() });
    Ok(Plan { seats: seats.to_vec(), releases, steps })
}

/// The plan with real firmware: one good release, the way back, and an abort.
pub(crate) fn real(ui: &Ui, folder: &Path, firmware: &Path) -> Result<Plan, CommandError> {
    let key = Key::make(folder)?;
    let [old, new] = [120_100, 120_200].map(ReleaseVersion::from_number);
    let images = |version| real_images(ui, firmware, version);
    let begin = images(old)?;
    let seats = begin.iter().map(|image| {
        let mut arguments = key.arguments();
        let version = old.to_string();
        let path = image.file.name.clone();
        arguments.extend(["--firmware".to_owned(), path, "--version".to_owned(), version]);
        let role = ROLES.into_iter().find(|role| *role == image.role.as_str());
        Seat { role: role.unwrap_or_default(), arguments }
    });
    let seats = seats.rev().collect();
    let releases = vec![
        Release::of_images(old, &begin),
        key.release(folder, REAL_PRODUCT, new, images(new)?)?,
    ];
    let step = |title: String, act, verdict, ends_on, expected| Step {
        title,
        act,
        verdict,
        ends_on,
        expected,
    };
    let steps = vec![
        step(
            format!("Release {new}: real firmware"),
            Act::Update(new),
            "keep",
            new,
            format!("both devices keep {new}"),
        ),
        step(
            format!("Revert: back to {old}"),
            Act::Revert,
            "keep",
            old,
            format!("both devices run {old} again"),
        ),
        step(
            format!("Release {new} again, aborted in the middle of staging"),
            Act::AbortWhileStaging(new),
            "revert",
            old,
            format!("both devices stay on {old}, none restarts"),
        ),
    ];
    Ok(Plan { seats, releases, steps })
}

/// Images for both roles, the lead's last; the transmitter's shows `fault`.
pub(super) fn made(version: ReleaseVersion, fault: Fault) -> Result<Vec<RoleImage>, CommandError> {
    let mut images = Vec::new();
    for name in ROLES.into_iter().rev() {
        let role = Role::new(name)
            .map_err(|error| CommandError::failed("Cannot make the images").because(&error))?;
        let kind = Kind::of(&role);
        let oldest = ReleaseVersion::from_number(0);
        let protocol = ProtocolRange::single(1);
        let descriptor = descriptor(&role, kind.board, version, oldest, protocol)?;
        let fault = if name == "transmitter" { fault } else { Fault::None };
        let spec = FirmwareSpec { fault, ..FirmwareSpec::new(descriptor, kind.chip) };
        let bytes = make_image(&spec)?;
        let facts = facts::read_image(&bytes)
            .map_err(|error| CommandError::failed("Made an image that is none").because(&error))?;
        let file = ImageFile { name: format!("{name} {version}"), bytes, facts };
        images.push(role_image(name, version, file)?);
    }
    Ok(images)
}

fn real_images(
    ui: &Ui,
    folder: &Path,
    version: ReleaseVersion,
) -> Result<Vec<RoleImage>, CommandError> {
    let mut images = Vec::new();
    for (role, name) in ROLES.into_iter().zip(REAL_NAMES).rev() {
        let path = folder.join(format!("{name}-v{version}.bin"));
        let file = ImageFile::open(ui, &path).map_err(|error| {
            error.hinted(format!(
                "The folder must hold {0}-v12.1.0.bin, {0}-v12.2.0.bin and the same of {1}.",
                REAL_NAMES[0], REAL_NAMES[1]
            ))
        })?;
        images.push(role_image(role, version, file)?);
    }
    Ok(images)
}

fn role_image(
    role: &str,
    version: ReleaseVersion,
    file: ImageFile,
) -> Result<RoleImage, CommandError> {
    let role: RoleName =
        role.parse().map_err(|error: String| CommandError::failed(format!("`{role}`: {error}")))?;
    let min_compatible = ReleaseVersion::from_number(0);
    Ok(RoleImage { role, version, protocol: ProtocolRange::single(1), min_compatible, file })
}

impl Release {
    pub(super) fn of_images(version: ReleaseVersion, images: &[RoleImage]) -> Self {
        let hash = |role: &'static str| {
            let image = images.iter().find(|image| image.role.as_str() == role)?;
            Some((role, image.file.facts.image_hash.to_string()))
        };
        Self { version, images: ROLES.into_iter().filter_map(hash).collect(), bundle: None }
    }
}

/// The key that signs, and that the devices trust.
pub(super) struct Key {
    signer: Signer,
    pub(super) public: PathBuf,
}

impl Key {
    pub(super) fn make(folder: &Path) -> Result<Self, CommandError> {
        let (secret, public) = (folder.join("demo.key"), folder.join("demo.pub"));
        keys::generate(&secret, &public, None)?;
        let signer = Signer::open(&secret, &PasswordArgs::default())?;
        Ok(Self { signer, public })
    }

    /// What a device that trusts this key is started with.
    pub(super) fn arguments(&self) -> Vec<String> {
        vec!["--key".to_owned(), self.public.display().to_string()]
    }

    pub(super) fn release(
        &self,
        folder: &Path,
        product: &str,
        version: ReleaseVersion,
        images: Vec<RoleImage>,
    ) -> Result<Release, CommandError> {
        let release = Release::of_images(version, &images);
        let spec = ReleaseSpec {
            system: Some(product.to_owned()),
            sequence: version.number(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            description: format!("{product} {version}, made by the demo"),
            health_timeout_s: HEALTH_TIMEOUT_S,
            ..ReleaseSpec::of_images(version, images)
        };
        let manifest = spec.manifest()?;
        let comment = format!("{product} {version}");
        let signature = self.signer.sign(manifest.as_bytes(), &comment)?;
        let bytes = spec.bundle_parts(&manifest, &[signature], &[])?.concat();
        let path = folder.join(format!("{product}-{version}.lockstep"));
        files::write(&path, &[&bytes], Existing::Keep, Readers::Anybody)?;
        Ok(Release { bundle: Some(Bundle { path, bytes }), ..release })
    }
}

/// Makes the files that devices and commands read: group and password.
pub(crate) fn write_secrets(folder: &Path, password: &str) -> Result<(), CommandError> {
    crate::commands::device::make_group(&folder.join(super::desk::GROUP_FILE))?;
    let text = format!("{password}\n");
    let path = folder.join(super::desk::PASSWORD_FILE);
    files::write(&path, &[text.as_bytes()], Existing::Keep, Readers::Owner)
}

/// Names of the real firmware, in the order of the roles.
const REAL_NAMES: [&str; 2] = ["be-2can-s3", "be-can485"];
const REAL_PRODUCT: &str = "battery-emulator";
/// Desk devices boot in a fraction of a second; who is not healthy by then never will be.
const HEALTH_TIMEOUT_S: u32 = 4;
