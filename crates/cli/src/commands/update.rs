//! `lockstep update`.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use lockstep_proto::image::ChipId;
use lockstep_proto::manifest::{Manifest, Trust};
use lockstep_server::bundle::Bundle;
use serde_json::json;

use crate::client::api::{Accepted, Rollout, Version};
use crate::client::{Client, ClientError, DeviceArgs, Watch};
use crate::commands::release::{refuse, warn_unlisted};
use crate::describe::manifest_lines;
use crate::error::CommandError;
use crate::facts::laid_out;
use crate::files;
use crate::follow::{self, POLL_EVERY, Progress, SILENCE_MAX};
use crate::patches;
use crate::release::{ImagesArgs, ReleaseSpec};
use crate::ui::{Ui, tame};

/// Bring a group to a release, and wait until it is kept or reverted
///
/// Give a bundle, or bare firmware images with --receiver, --transmitter and --artifact; those make
/// an unsigned release, which only a device without a key takes, or one that was set to.
///
/// The group updates itself: once the lead has everything, this command only watches, and may be
/// stopped. It exits with 0 only if the release was kept.
#[derive(Debug, clap::Args)]
pub(crate) struct UpdateArgs {
    /// The bundle
    #[arg(value_name = "BUNDLE")]
    bundle: Option<PathBuf>,

    #[command(flatten)]
    device: DeviceArgs,

    #[command(flatten)]
    images: ImagesArgs,

    /// Return as soon as the lead has everything
    #[arg(long)]
    detach: bool,

    /// Bring it to every member and let it wait there, until `lockstep schedule` says when the
    /// group goes over to it
    #[arg(long, conflicts_with = "dry_run")]
    hold: bool,

    /// Check the release, here and against the device, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn update(ui: &Ui, args: &UpdateArgs) -> Result<(), CommandError> {
    let (name, bytes) = release_bytes(ui, args)?;
    let bundle = Bundle::read(&mut bytes.as_slice(), &|_| ())
        .map_err(|error| CommandError::failed(format!("Cannot read {name}")).because(&error))?;
    refuse(&name, bundle.problems(&Trust::anybody()))
        .map_err(|error| error.hinted("Nothing was sent to the device."))?;
    let manifest = bundle.verify(&Trust::anybody()).map_err(|error| {
        CommandError::failed(format!("{name} has no good manifest")).because(&error)
    })?;
    if args.bundle.is_none() {
        warn_unlisted(ui, &manifest);
    }
    let client = args.device.client()?;
    let version: Version = client.get("/api/version")?;
    refuse_early(&client, &version, &manifest)?;
    if args.dry_run {
        return dry_run(ui, &client, &manifest);
    }
    let release = manifest.system_version.to_string();
    let id = deliver(ui, &client, &Arc::new(bytes), &release, args.hold)?;
    if args.hold {
        ui.line(format_args!("Rollout {id} to {release} waits once all have staged"))?;
        ui.note("Say when it goes on: lockstep schedule --now, --in 2h or --at 03:00");
        return ui.json(&json!({ "rollout": id, "release": release, "held": true }));
    }
    if args.detach {
        ui.line(format_args!("Rollout {id} to {release} has begun; watch it: lockstep status"))?;
        return ui.json(&json!({ "rollout": id, "release": release }));
    }
    let conclusion = follow::follow(ui, &client, &id)?;
    ui.json(&conclusion.to_json())?;
    if conclusion.is_kept() {
        return ui.line(conclusion.sentence());
    }
    Err(CommandError::failed(conclusion.sentence())
        .hinted("Every device runs what it ran before. What went wrong: lockstep logs"))
}

/// The bundle that is given, or one made of the images that are.
fn release_bytes(ui: &Ui, args: &UpdateArgs) -> Result<(String, Vec<u8>), CommandError> {
    match &args.bundle {
        Some(_) if !args.images.is_empty() => {
            Err(CommandError::usage("Both a bundle and firmware images are given")
                .hinted("Give one bundle, or images with --receiver FILE and so on."))
        }
        Some(path) => Ok((format!("`{}`", path.display()), files::read(path, BUNDLE_BYTES_MAX)?)),
        None if args.images.is_empty() => Err(CommandError::usage(
            "Neither a bundle nor a firmware image is given",
        )
        .hinted("Such as: lockstep update battery-link-1.2.0.lockstep --device 192.168.1.20")),
        None => {
            let images = args.images.open(ui, None)?;
            let newest = images.iter().map(|image| image.version).max();
            let version = newest.unwrap_or(lockstep_proto::version::ReleaseVersion::from_number(0));
            let spec = ReleaseSpec::of_images(version, images);
            let patches = patches::of_nothing(ui, &spec.images)?;
            Ok(("The release of these images".to_owned(), spec.unsigned_bundle(&patches)?))
        }
    }
}

/// What the device would refuse anyway, before anything is sent to it.
fn refuse_early(
    client: &Client,
    version: &Version,
    manifest: &Manifest<'_>,
) -> Result<(), CommandError> {
    let device = client.device();
    if !version.lead {
        let role = tame(version.role.as_deref().unwrap_or("unknown"));
        return Err(CommandError::failed(format!(
            "Device `{device}` (role {role}) is not the lead of its group"
        ))
        .hinted("Rollouts go through the lead. Give its address with --device."));
    }
    if manifest.epoch < version.epoch {
        let (found, needed) = (manifest.epoch, version.epoch);
        return Err(CommandError::failed(format!(
            "The release is of epoch {found}, device `{device}` takes none below {needed}"
        ))
        .hinted("It is older than what the device must not go back behind. Use a newer release."));
    }
    let entry = version.role.as_deref().and_then(|role| manifest.entry(role));
    let found = entry.and_then(|entry| entry.installable().ok()).map(|artifact| artifact.chip);
    if let (Some(found), Some(chip)) = (found, ChipId::from_name(&version.chip))
        && found != chip
    {
        return Err(CommandError::failed(format!(
            "The image for the lead is for chip {found}, device `{device}` is {chip}"
        ))
        .hinted("Take the image that was built for this board."));
    }
    Ok(())
}

fn dry_run(ui: &Ui, client: &Client, manifest: &Manifest<'_>) -> Result<(), CommandError> {
    if let Some(rollout) = follow::current(client)?.filter(|rollout| !rollout.is_settled()) {
        ui.warn(format_args!("rollout {} is running: it would be refused now", tame(&rollout.id)));
    }
    ui.line(format_args!("Would bring the group to {}:", manifest.system_version))?;
    ui.line(laid_out(&manifest_lines(manifest)))?;
    ui.line("Nothing was changed. What only the members know, preflight will ask.")?;
    ui.json(&json!({ "dry_run": true, "release": manifest.system_version.to_string() }))
}

/// Hands the bundle over, as often as it takes; returns the rollout that it led to.
pub(crate) fn deliver(
    ui: &Ui,
    client: &Client,
    bytes: &Arc<Vec<u8>>,
    release: &str,
    holds: bool,
) -> Result<String, CommandError> {
    let mut goes_on_at = None;
    for _ in 0..=RESUMES_MAX {
        match attempt(ui, client, bytes, goes_on_at, holds) {
            Ok(accepted) => return Ok(accepted.rollout),
            Err(error) if error.is_passing() || error.code() == Some("wrong-offset") => {
                match where_to_go_on(client, bytes.len() as u64, release)? {
                    GoOn::Follow { id } => return Ok(id),
                    GoOn::Anew => goes_on_at = None,
                    GoOn::Upload { offset } => {
                        ui.note(format_args!("The upload was cut; going on at byte {offset}"));
                        goes_on_at = Some(offset);
                    }
                }
            }
            // An earlier command was cut off in the middle of this very bundle.
            Err(error) if error.code() == Some("busy") && goes_on_at.is_none() => {
                match where_to_go_on(client, bytes.len() as u64, release)? {
                    GoOn::Upload { offset } => {
                        ui.note(format_args!("Going on with the upload at byte {offset}"));
                        goes_on_at = Some(offset);
                    }
                    GoOn::Follow { .. } | GoOn::Anew => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(CommandError::failed(format!("The upload was cut {RESUMES_MAX} times"))
        .hinted("Is the network bad? The lead keeps what it has; the same command goes on there."))
}

/// What to do after a cut.
enum GoOn {
    /// The lead has all of it.
    Follow { id: String },
    /// The lead wants the rest.
    Upload { offset: u64 },
    /// The lead knows nothing of it.
    Anew,
}

fn where_to_go_on(client: &Client, size_bytes: u64, release: &str) -> Result<GoOn, CommandError> {
    let since = Instant::now();
    loop {
        match follow::current(client) {
            Ok(Some(Rollout { upload: Some(upload), release: rollout_release, .. }))
                if rollout_release == release && upload.is_of(size_bytes) =>
            {
                return Ok(GoOn::Upload { offset: upload.next_offset });
            }
            // It has everything, or has given up already; following tells which.
            Ok(Some(rollout)) if rollout.release == release && !rollout.is_settled() => {
                return Ok(GoOn::Follow { id: rollout.id });
            }
            Ok(_) => return Ok(GoOn::Anew),
            Err(error) if error.is_passing() && since.elapsed() < SILENCE_MAX => {
                thread::sleep(POLL_EVERY);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// One upload, in a thread of its own, while this one shows what the devices say.
fn attempt(
    ui: &Ui,
    client: &Client,
    bytes: &Arc<Vec<u8>>,
    goes_on_at: Option<u64>,
    holds: bool,
) -> Result<Accepted, ClientError> {
    let watch = Arc::new(Watch::default());
    let (sender, outcome) = mpsc::channel();
    let (uploader, bundle, sees) = (client.clone(), Arc::clone(bytes), Arc::clone(&watch));
    thread::spawn(move || {
        // Nobody listens any more if this was given up.
        let _ = sender.send(uploader.upload(&bundle, goes_on_at, holds, &sees));
    });
    let bar = ui.bytes_bar("Sending", bytes.len() as u64);
    let mut progress = Progress::new(ui);
    let mut silent_since = None;
    loop {
        match outcome.recv_timeout(POLL_EVERY) {
            Ok(result) => {
                bar.finish_and_clear();
                return result;
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let error = ureq::Error::ConnectionFailed;
                return Err(ClientError::Cut { device: client.device().to_owned(), error });
            }
            Err(mpsc::RecvTimeoutError::Timeout) => (),
        }
        // The head of the request is in it, which nobody sees.
        bar.set_position((goes_on_at.unwrap_or(0) + watch.sent_bytes()).min(bytes.len() as u64));
        match follow::current(client) {
            Ok(rollout) => {
                let came_back =
                    silent_since.take().is_some_and(|since: Instant| since.elapsed() > REBOOT_MIN);
                if let Some(rollout) = rollout.filter(|rollout| !rollout.is_settled()) {
                    progress.show(&rollout);
                }
                if came_back {
                    // It has rebooted, and this connection leads nowhere.
                    watch.abandon();
                }
            }
            Err(error) if error.is_passing() => {
                let since = *silent_since.get_or_insert_with(Instant::now);
                if since.elapsed() > SILENCE_MAX {
                    watch.abandon();
                    return Err(error);
                }
            }
            // Whatever it means, the upload itself will say.
            Err(_) => (),
        }
    }
}

/// How often an upload goes on after a cut.
const RESUMES_MAX: u32 = 8;
/// Shorter silences happen to any device.
const REBOOT_MIN: Duration = Duration::from_secs(2);
/// Roles times the largest image, and some.
const BUNDLE_BYTES_MAX: u64 = 512 << 20;
