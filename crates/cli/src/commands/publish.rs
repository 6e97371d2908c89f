//! `lockstep publish`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::{self, sleep};
use std::time::Duration;

use lockstep_proto::manifest::Trust;
use lockstep_server::bundle::Bundle;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::release::refuse;
use crate::args::{self, RoleName};
use crate::builds::{self, Set};
use crate::client::Watch;
use crate::error::CommandError;
use crate::files;
use crate::fleet::answers::{Foreseen, Release, Releases};
use crate::fleet::{FleetError, Server, ServerArgs};
use crate::keys::{PasswordArgs, Signer};
use crate::release::ReleaseSpec;
use crate::ui::{Ui, tame};

/// Upload releases to a fleet's server
///
/// Nobody is brought to a release by that: a campaign does it (`lockstep campaign create`). What
/// would go wrong in the groups that the server knows is said, with --check before it is published.
///
/// With --watch a folder that builds are copied to is followed: whenever its newest set changes, it
/// is made a release, signed and uploaded. Files are called ENV_fw_1_2_0.bin or
/// receiver_v1.2.0_DATE_TIME.bin; a system_manifest.json says which belong together:
///   lockstep publish --watch build --key team.key
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct PublishArgs {
    /// Bundles, as `lockstep release create` makes them
    #[arg(value_name = "FILE", required_unless_present = "watch")]
    files: Vec<PathBuf>,

    /// Only say what would go wrong, in the file and in all groups; nothing is published. Ends with
    /// an error if some groups would refuse it
    #[arg(long, conflicts_with = "watch")]
    check: bool,

    /// Follow this folder, and publish what is built
    #[arg(long, value_name = "DIR", conflicts_with = "files", help_heading = "Builds")]
    watch: Option<PathBuf>,

    /// Publish what is there, and end
    #[arg(long, requires = "watch", help_heading = "Builds")]
    once: bool,

    /// Which role the images of a build environment are for, if they do not say so themselves
    #[arg(long, value_name = "ENV=ROLE", value_parser = args::env_role, help_heading = "Builds")]
    env: Vec<(String, RoleName)>,

    /// The role of the lead [default: receiver]
    #[arg(long, value_name = "ROLE", help_heading = "Builds")]
    lead: Option<RoleName>,

    /// A secret key to sign what is built with; may be given several times
    #[arg(long = "key", value_name = "FILE.key", requires = "watch", help_heading = "Builds")]
    keys: Vec<PathBuf>,

    /// Do not sign what is built
    #[arg(long, requires = "watch", conflicts_with = "keys", help_heading = "Builds")]
    unsigned: bool,

    #[command(flatten, next_help_heading = "Builds")]
    password: PasswordArgs,

    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn publish(ui: &Ui, args: &PublishArgs) -> Result<(), CommandError> {
    let server = args.server.open()?;
    if let Some(folder) = &args.watch {
        return Builds::new(ui, args, &server, folder)?.follow(args.once);
    }
    let (mut published, mut refused) = (Vec::new(), Vec::new());
    for path in &args.files {
        let name = path.display().to_string();
        let bytes = files::read(path, lockstep_server::publish::BUNDLE_BYTES_MAX)?;
        // What is wrong with it on its own needs no upload to be found.
        let bundle = Bundle::read(&mut bytes.as_slice(), &|_| ()).map_err(|error| {
            CommandError::failed(format!("Cannot read `{name}`")).because(&error)
        })?;
        refuse(&format!("`{name}`"), bundle.problems(&Trust::anybody()))?;
        if args.check {
            let looked: Looked = send(ui, &server, "/api/releases/check", &name, bytes)?;
            say_looked(ui, &name, &looked)?;
            refused.extend(looked.foreseen.stops().then_some(name));
            published.push(json!({
                "system": looked.system, "version": looked.version,
                "signatures": looked.signatures, "foreseen": looked.foreseen,
            }));
            continue;
        }
        let taken = upload(ui, &server, &name, bytes)?;
        say(ui, &name, &taken)?;
        published.push(to_json(&taken));
    }
    let word = if args.check { "checked" } else { "published" };
    ui.json(&json!({ word: published }))?;
    match refused.first() {
        None => Ok(()),
        Some(name) => Err(CommandError::failed(format!("Some groups would refuse `{name}`"))
            .hinted("Mend it, or leave those groups out of its campaign: --labels KEY=VALUE")),
    }
}

/// The answer to an upload.
#[derive(Debug, Deserialize)]
pub(crate) struct Taken {
    release: Release,
    #[serde(default)]
    foreseen: Foreseen,
}

/// The answer to one that is only looked at.
#[derive(Debug, Deserialize)]
struct Looked {
    system: String,
    version: String,
    signatures: u32,
    foreseen: Foreseen,
}

fn say(ui: &Ui, name: &str, taken: &Taken) -> Result<(), CommandError> {
    let Taken { release, foreseen } = taken;
    let signed = signed_by(release.signatures);
    let (system, version) = (tame(&release.system), tame(&release.version));
    ui.line(format_args!("Published {name}: {system} {version}, {signed} ({})", release.id))?;
    say_foreseen(ui, foreseen)
}

fn say_looked(ui: &Ui, name: &str, looked: &Looked) -> Result<(), CommandError> {
    let signed = signed_by(looked.signatures);
    let (system, version) = (tame(&looked.system), tame(&looked.version));
    ui.line(format_args!("Checked {name}: {system} {version}, {signed}"))?;
    let groups = match looked.foreseen.checked {
        0 => "No group would get it".to_owned(),
        1 => "1 group looked at".to_owned(),
        many => format!("{many} groups looked at"),
    };
    let more = if looked.foreseen.more { ", the first by name" } else { "" };
    let nothing = if looked.foreseen.findings.is_empty() { "; nothing found" } else { "" };
    ui.line(format_args!("  {groups}{more}{nothing}"))?;
    say_foreseen(ui, &looked.foreseen)
}

fn signed_by(signatures: u32) -> String {
    match signatures {
        0 => "not signed".to_owned(),
        1 => "signed by one key".to_owned(),
        many => format!("signed by {many} keys"),
    }
}

fn say_foreseen(ui: &Ui, foreseen: &Foreseen) -> Result<(), CommandError> {
    for it in &foreseen.findings {
        let place = match it.names.as_slice() {
            [] => String::new(),
            [name] => format!("{}: ", tame(name)),
            [name, ..] => format!("{} and {} more: ", tame(name), it.groups - 1),
        };
        let (weight, text, code) = (tame(&it.weight), tame(&it.text), tame(&it.code));
        ui.line(format_args!("  {weight}  {place}{text} ({code})"))?;
    }
    Ok(())
}

fn to_json(taken: &Taken) -> Value {
    let release = &taken.release;
    json!({
        "id": release.id, "system": release.system, "version": release.version,
        "bundle_sha256": release.bundle_sha256, "size_bytes": release.size_bytes,
        "signatures": release.signatures, "foreseen": taken.foreseen,
    })
}

/// Uploads a bundle, which becomes a release.
pub(crate) fn upload(
    ui: &Ui,
    server: &Server,
    name: &str,
    bytes: Vec<u8>,
) -> Result<Taken, CommandError> {
    send(ui, server, "/api/releases", name, bytes)
}

/// Sends a bundle in a thread of its own, while this one shows how far it is.
fn send<T: DeserializeOwned + Send + 'static>(
    ui: &Ui,
    server: &Server,
    path: &'static str,
    name: &str,
    bytes: Vec<u8>,
) -> Result<T, CommandError> {
    let total_bytes = bytes.len() as u64;
    let watch = Arc::new(Watch::default());
    let (sender, outcome) = mpsc::channel::<Result<T, FleetError>>();
    let (uploader, sees) = (server.clone(), Arc::clone(&watch));
    thread::spawn(move || {
        // Nobody listens any more if this was given up.
        let _ = sender.send(uploader.upload(path, &bytes, &sees));
    });
    let bar = ui.bytes_bar(format!("Sending {name}"), total_bytes);
    loop {
        match outcome.recv_timeout(SHOW_EVERY) {
            Ok(result) => {
                bar.finish_and_clear();
                return Ok(result?);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bar.set_position(watch.sent_bytes().min(total_bytes));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(CommandError::failed("The upload ended without a word"));
            }
        }
    }
}

/// A folder of builds, and what becomes of them.
struct Builds<'a> {
    ui: &'a Ui,
    server: &'a Server,
    folder: &'a Path,
    signers: Vec<Signer>,
    envs: BTreeMap<String, RoleName>,
    lead: Option<RoleName>,
    /// What was dealt with last, whether it was published or refused.
    done: Option<Set>,
}

impl<'a> Builds<'a> {
    fn new(
        ui: &'a Ui,
        args: &'a PublishArgs,
        server: &'a Server,
        folder: &'a Path,
    ) -> Result<Self, CommandError> {
        if args.keys.is_empty() && !args.unsigned {
            return Err(CommandError::usage("No key is given to sign what is built with").hinted(
                "Sign it with --key FILE.key (made by `lockstep keygen`), or say --unsigned.",
            ));
        }
        let open = |path: &PathBuf| Signer::open(path, &args.password);
        let signers = args.keys.iter().map(open).collect::<Result<_, _>>()?;
        let envs = args.env.iter().cloned().collect();
        Ok(Self { ui, server, folder, signers, envs, lead: args.lead.clone(), done: None })
    }

    /// Until it is interrupted, or for one set.
    fn follow(&mut self, once: bool) -> Result<(), CommandError> {
        if once {
            let set = builds::newest(self.folder)?.ok_or_else(|| {
                let folder = self.folder.display();
                CommandError::failed(format!("`{folder}` holds no image for every role"))
                    .hinted("Files are called ENV_fw_1_2_0.bin or receiver_v1.2.0_DATE_TIME.bin.")
            })?;
            return self.publish(&set);
        }
        self.ui.note(format_args!("Following {} until Ctrl-C", self.folder.display()));
        let mut before = None;
        loop {
            let set = builds::newest(self.folder)?;
            // Twice the same: nobody is writing it any more.
            if let Some(set) = set.as_ref().filter(|_| set == before)
                && self.done.as_ref() != Some(set)
            {
                // What cannot be is said once; the next build may be better.
                if let Err(error) = self.publish(set) {
                    self.ui.report(&error);
                }
                self.done = Some(set.clone());
            }
            before = set;
            sleep(LOOK_EVERY);
        }
    }

    fn publish(&self, set: &Set) -> Result<(), CommandError> {
        let spec = set.release(self.ui, &self.envs, self.lead.as_ref())?;
        if let Some(release) = self.published(&spec)? {
            let version = tame(&release.version);
            self.ui.line(format_args!("{version} is published already ({})", release.id))?;
            return self.ui.json(&json!({ "published": [], "already": release.id }));
        }
        let manifest = spec.manifest()?;
        let system = spec.product()?.unwrap_or_else(|| "release".to_owned());
        let comment = format!("{system} {}, sequence {}", spec.version, spec.sequence);
        let sign = |signer: &Signer| signer.sign(manifest.as_bytes(), &comment);
        let signatures = self.signers.iter().map(sign).collect::<Result<Vec<_>, _>>()?;
        let bytes = spec.bundle_parts(&manifest, &signatures, &[])?.concat();
        let name = format!("{system} {}", spec.version);
        let taken = upload(self.ui, self.server, &name, bytes)?;
        say(self.ui, &name, &taken)?;
        self.ui.json(&json!({ "published": [to_json(&taken)] }))
    }

    /// A release of this version with these very images, as it is after a restart of this command.
    fn published(&self, spec: &ReleaseSpec) -> Result<Option<Release>, CommandError> {
        let Releases { releases } = self.server.get("/api/releases")?;
        let version = spec.version.to_string();
        for release in releases.into_iter().filter(|release| release.version == version) {
            let shown: Value = self.server.get(&format!("/api/releases/{}", release.id))?;
            let has = |role: &str, hash: String| {
                let path = format!("/manifest/devices/{role}/image_sha256");
                shown.pointer(&path).and_then(Value::as_str) == Some(hash.as_str())
            };
            let mut images = spec.images.iter();
            if images.all(|it| has(it.role.as_str(), it.file.facts.image_hash.to_string())) {
                return Ok(Some(release));
            }
        }
        Ok(None)
    }
}

/// How often a folder is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a bar moves.
const SHOW_EVERY: Duration = Duration::from_millis(100);
