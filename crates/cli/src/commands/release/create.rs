//! `lockstep release create`.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lockstep_proto::manifest::{SECONDS_MAX, Trust};
use lockstep_proto::version::ReleaseVersion;
use lockstep_server::bundle::Bundle;

use super::{refuse, warn_unlisted};
use crate::args::{self, RoleName};
use crate::builds;
use crate::describe::described_bundle;
use crate::error::CommandError;
use crate::files::{self, Existing, Readers};
use crate::keys::{self, PasswordArgs, Signer};
use crate::patches::{PatchArgs, RolePatch};
use crate::release::{ImagesArgs, ReleaseSpec, RoleImage};
use crate::ui::{Ui, listed};

/// Make a signed bundle from firmware images
///
/// Reads every image, refuses what would not work together, writes the manifest, signs it, and puts
/// all of it into one file. What an image says of itself (role, version, protocol) is taken from
/// its descriptor; of an image without one it is said here, with --role-version and so on.
///
/// With --folder the images are those that builds were copied to, the newest that belong together:
///   lockstep release create --folder ota --key team.key -o battery-link-1.2.0.lockstep
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct CreateArgs {
    /// The version of the release [default: that of the folder's]
    #[arg(long, value_name = "VERSION", required_unless_present = "folder")]
    version: Option<ReleaseVersion>,

    /// Where to write the bundle, for example battery-link-1.2.0.lockstep
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// The product [default: what the images say]
    #[arg(long, value_name = "NAME")]
    system: Option<String>,

    #[command(flatten)]
    images: ImagesArgs,

    /// Take the images of this folder, and what its system_manifest.json says of the release; see
    /// `lockstep publish --watch`
    #[arg(long, value_name = "DIR", help_heading = "Builds")]
    folder: Option<PathBuf>,

    /// Which role the images of a build environment are for, if they do not say so themselves
    #[arg(long, value_name = "ENV=ROLE", value_parser = args::env_role, requires = "folder",
          help_heading = "Builds")]
    env: Vec<(String, RoleName)>,

    /// A secret key to sign with; may be given several times
    #[arg(long = "key", value_name = "FILE.key", help_heading = "Signatures")]
    keys: Vec<PathBuf>,

    /// Do not sign: only devices without a key will take the release
    #[arg(long, conflicts_with = "keys", help_heading = "Signatures")]
    unsigned: bool,

    #[command(flatten, next_help_heading = "Signatures")]
    password: PasswordArgs,

    /// A public key that devices trust from this release on; may be given several times
    #[arg(long, value_name = "FILE.pub", help_heading = "Signatures")]
    next_keys: Vec<PathBuf>,

    /// How many of the next keys must sign [default: all]
    #[arg(long, value_name = "K", requires = "next_keys", help_heading = "Signatures")]
    next_threshold: Option<u8>,

    /// What is new, for people
    #[arg(long, value_name = "TEXT", help_heading = "Manifest")]
    description: Option<String>,

    /// The number of the release: higher than that of every release before it [default: 0, or with
    /// --folder the number of its version]
    #[arg(long, value_name = "N", help_heading = "Manifest")]
    sequence: Option<u32>,

    /// The anti-rollback counter [default: what the images say, else 0]
    #[arg(long, value_name = "N", help_heading = "Manifest")]
    epoch: Option<u32>,

    /// The oldest version that this release talks to [default: what the images say]
    #[arg(long, value_name = "VERSION", help_heading = "Manifest")]
    min_compatible: Option<ReleaseVersion>,

    /// When it was released [default: now, or what SOURCE_DATE_EPOCH says]
    #[arg(long, value_name = "RFC3339", help_heading = "Manifest")]
    date: Option<String>,

    /// The order in which roles switch to the release [default: all together]
    #[arg(long, value_name = "ROLE,ROLE", value_delimiter = ',', help_heading = "Manifest")]
    order: Vec<RoleName>,

    /// The pause between two of an order
    #[arg(long, value_name = "SECONDS", requires = "order",
          value_parser = clap::value_parser!(u32).range(0..=i64::from(SECONDS_MAX)),
          help_heading = "Manifest")]
    reboot_delay: Option<u32>,

    /// How long a device may take to become healthy [default: 30]
    #[arg(long, value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(SECONDS_MAX)),
          help_heading = "Manifest")]
    health_timeout: Option<u32>,

    /// Say that there is no way back once the release is kept: its images raise the secure version
    #[arg(long, help_heading = "Manifest")]
    not_reversible: bool,

    #[command(flatten)]
    patches: PatchArgs,

    /// Write over an existing file
    #[arg(long)]
    overwrite: bool,
}

pub(super) fn create(ui: &Ui, args: &CreateArgs) -> Result<(), CommandError> {
    if args.keys.is_empty() && !args.unsigned {
        return Err(CommandError::usage("No key is given to sign the release with").hinted(
            "Sign it with --key FILE.key (made by `lockstep keygen`), or say --unsigned.",
        ));
    }
    let name = args.output.display().to_string();
    if !args.overwrite && args.output.try_exists().unwrap_or(true) {
        return Err(CommandError::failed(format!("`{name}` is there already")).hinted(
            "A release that was given out must not change. To replace the file: --overwrite",
        ));
    }
    let spec = spec(ui, args)?;
    let manifest = spec.manifest()?;
    let (signatures, ids) = sign(args, &spec, &manifest)?;
    let patches = args.patches.make(ui, &spec.images)?;
    let parts = spec.bundle_parts(&manifest, &signatures, &patches)?;
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();

    // What is given out has been read once, by the reader that a lead has.
    let bundle = Bundle::read(&mut parts.concat().as_slice(), &|_| ())
        .map_err(|error| CommandError::failed("Cannot read the new bundle").because(&error))?;
    refuse(&format!("`{name}`"), bundle.problems(&Trust::anybody()))?;
    let existing = if args.overwrite { Existing::Replace } else { Existing::Keep };
    files::write(&args.output, &parts, existing, Readers::Anybody)?;

    warn(ui, &spec);
    if let Ok(manifest) = bundle.verify(&Trust::anybody()) {
        warn_unlisted(ui, &manifest);
    }
    let roles = spec.images.iter().map(|image| format!("{} {}", image.role, image.version));
    let size_bytes = bundle.size_bytes();
    ui.line(format_args!("Wrote {name}: {size_bytes} bytes, {}", listed(roles)))?;
    for patch in &patches {
        ui.line(format_args!("  {}", patch.line()))?;
    }
    match ids.as_slice() {
        [] => ui.line("Not signed: only devices without a key will take it")?,
        ids => ui.line(format_args!("Signed by key {}", listed(ids)))?,
    }
    let mut described = described_bundle(&bundle, None).to_json(&name);
    if let Some(described) = described.as_object_mut() {
        let patches = patches.iter().map(RolePatch::json).collect::<Vec<_>>();
        described.insert("patches".to_owned(), patches.into());
    }
    ui.json(&described)
}

fn spec(ui: &Ui, args: &CreateArgs) -> Result<ReleaseSpec, CommandError> {
    let next_keys = match args.next_keys.as_slice() {
        [] => None,
        paths => Some(keys::read_key_set(paths, args.next_threshold)?),
    };
    let found = match &args.folder {
        Some(folder) => of_folder(ui, args, folder)?,
        None => {
            let images = args.images.open(ui, args.version)?;
            let newest = images.iter().map(|image| image.version).max();
            // The command line requires it, without a folder.
            let version = args.version.or(newest).unwrap_or(ReleaseVersion::from_number(0));
            ReleaseSpec::of_images(version, images)
        }
    };
    check_order(&args.order, &found.images.iter().map(|image| &image.role).collect::<Vec<_>>())?;
    let order = if args.order.is_empty() { found.order } else { args.order.clone() };
    Ok(ReleaseSpec {
        system: args.system.clone(),
        sequence: args.sequence.unwrap_or(found.sequence),
        epoch: args.epoch,
        date: date(args.date.as_deref())?,
        description: args.description.clone().unwrap_or(found.description),
        min_compatible: args.min_compatible.or(found.min_compatible),
        order,
        reboot_delay_s: args.reboot_delay.unwrap_or(found.reboot_delay_s),
        health_timeout_s: args.health_timeout.unwrap_or(found.health_timeout_s),
        is_reversible: !args.not_reversible,
        next_keys,
        ..found
    })
}

/// The newest set of a folder of builds, as its manifest describes it.
fn of_folder(ui: &Ui, args: &CreateArgs, folder: &Path) -> Result<ReleaseSpec, CommandError> {
    let name = folder.display();
    if !args.images.names_nothing_but_the_lead() {
        return Err(CommandError::usage("Both a folder and firmware images are given")
            .hinted("Give one folder of builds, or images with --receiver FILE and so on."));
    }
    let set = builds::newest(folder)?.ok_or_else(|| {
        CommandError::failed(format!("`{name}` holds no image for every role"))
            .hinted("Files are called ENV_fw_1_2_0.bin or receiver_v1.2.0_DATE_TIME.bin.")
    })?;
    if let Some(expected) = args.version.filter(|version| *version != set.version) {
        return Err(CommandError::failed(format!(
            "The newest release of `{name}` is {}, --version says {expected}",
            set.version
        ))
        .hinted("Leave out --version, or build that one."));
    }
    let envs = args.env.iter().cloned().collect();
    set.release(ui, &envs, args.images.lead())
}

/// An order names every role of the release once.
fn check_order(order: &[RoleName], roles: &[&RoleName]) -> Result<(), CommandError> {
    let mut given: Vec<&RoleName> = order.iter().collect();
    let mut expected = roles.to_vec();
    given.sort();
    expected.sort();
    if order.is_empty() || given == expected {
        return Ok(());
    }
    let (found, roles) = (listed(order), listed(roles));
    Err(CommandError::usage(format!("--order names {found}; the release has {roles}"))
        .hinted("Name every role once, or leave out --order to switch all together."))
}

fn date(given: Option<&str>) -> Result<String, CommandError> {
    let (now, source) = match given {
        Some(text) => (humantime::parse_rfc3339_weak(text).ok(), "--date"),
        None => match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(text) => {
                let seconds = text.parse().ok();
                let time = seconds.and_then(|seconds| {
                    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
                });
                (time, "SOURCE_DATE_EPOCH")
            }
            Err(_) => (Some(SystemTime::now()), "the clock"),
        },
    };
    // Beyond the year 9999 there is no such text, and no way to ask but this one.
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(YEAR_10000_S - 1);
    match now {
        Some(time) if time <= last => Ok(humantime::format_rfc3339_seconds(time).to_string()),
        _ => Err(CommandError::usage(format!("{source} does not give a date"))
            .hinted("Such as 2026-02-03T14:30:00Z, or seconds since 1970 in SOURCE_DATE_EPOCH.")),
    }
}

fn sign(
    args: &CreateArgs,
    spec: &ReleaseSpec,
    manifest: &str,
) -> Result<(Vec<String>, Vec<String>), CommandError> {
    let system = spec.product()?.unwrap_or_else(|| "release".to_owned());
    let comment = format!("{system} {}, sequence {}", spec.version, spec.sequence);
    let (mut signatures, mut ids) = (Vec::new(), Vec::new());
    for path in &args.keys {
        let signer = Signer::open(path, &args.password)?;
        let id = signer.public().id().to_string();
        if ids.contains(&id) {
            return Err(CommandError::failed(format!("Key {id} is given twice"))
                .hinted("One key counts once, however often it signs."));
        }
        signatures.push(signer.sign(manifest.as_bytes(), &comment)?);
        ids.push(id);
    }
    Ok((signatures, ids))
}

fn warn(ui: &Ui, spec: &ReleaseSpec) {
    for image in spec.images.iter().filter(|_| spec.is_reversible) {
        let secure_version = image.file.facts.guard().secure_version;
        if secure_version > 0 {
            ui.warn(format_args!(
                "`{}` has secure version {secure_version}: a device that runs a lower one refuses \
                 the release, unless it is made with --not-reversible",
                image.role
            ));
        }
    }
    let is_signed = |image: &&RoleImage| image.file.facts.guard().is_signed;
    let (signed, plain): (Vec<_>, Vec<_>) = spec.images.iter().partition(is_signed);
    if !signed.is_empty() && !plain.is_empty() {
        let names = |images: Vec<&RoleImage>| {
            listed(images.into_iter().map(|image| image.role.to_string()))
        };
        ui.warn(format_args!(
            "{} is signed for secure boot, {} is not",
            names(signed),
            names(plain)
        ));
    }
    if spec.images.iter().all(|image| image.version != spec.version) {
        let versions = spec.images.iter().map(|image| format!("{} {}", image.role, image.version));
        ui.warn(format_args!(
            "no image of release {} is of that version: {}",
            spec.version,
            listed(versions)
        ));
    }
}

const YEAR_10000_S: u64 = 253_402_300_800;
