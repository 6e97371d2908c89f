//! Patches that a new bundle carries: from the images of earlier releases, and from nothing.

use std::path::{Path, PathBuf};

use lockstep_delta::encode::{self, Image};
use lockstep_proto::bundle::{PATCHES_MAX, patch_name};
use lockstep_proto::id::ImageHash;
use lockstep_proto::image::ImageFacts;
use lockstep_proto::manifest::Trust;
use lockstep_proto::version::ReleaseVersion;
use lockstep_server::bundle::Bundle;
use lockstep_server::patches::{self, TAG_DIGITS, is_worth_it};
use lockstep_server::publish::BUNDLE_BYTES_MAX;
use serde_json::{Value, json};

use crate::commands::release::refuse;
use crate::error::CommandError;
use crate::files;
use crate::release::RoleImage;
use crate::ui::Ui;

/// What makes the image of one role, as it stands in a bundle.
#[derive(Debug, Clone)]
pub struct RolePatch {
    /// The role.
    pub role: String,
    /// Tells those of one role apart.
    pub tag: String,
    /// The patch.
    pub bytes: Vec<u8>,
    /// What it is for; `None`: for whatever runs.
    base: Option<(ReleaseVersion, ImageHash)>,
    /// Size of the image that comes of it.
    image_bytes: usize,
}

impl RolePatch {
    /// How much of the image it has, in percent.
    fn percent(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "sizes of files, for people")]
        let share = self.bytes.len() as f64 / self.image_bytes.max(1) as f64;
        share * 100.0
    }

    /// A line for people.
    pub fn line(&self) -> String {
        let (role, size_bytes, percent) = (&self.role, self.bytes.len(), self.percent());
        match self.base {
            Some((version, _)) => {
                format!("{role} from {version}: {size_bytes} bytes, {percent:.2} % of the image")
            }
            None => format!("{role} compressed: {size_bytes} bytes, {percent:.2} % of the image"),
        }
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        json!({
            "role": self.role,
            "name": patch_name(&self.role, &self.tag).as_str(),
            "size": self.bytes.len(),
            "from": self.base.map(|(version, _)| version.to_string()),
            "from_image_sha256": self.base.map(|(_, image)| image.to_string()),
            "image_size": self.image_bytes,
        })
    }
}

/// An earlier release, which devices run when they are offered the new one.
#[derive(Debug)]
struct Earlier {
    name: String,
    version: ReleaseVersion,
    images: Vec<EarlierImage>,
}

#[derive(Debug)]
struct EarlierImage {
    role: String,
    facts: ImageFacts,
    bytes: Vec<u8>,
}

impl Earlier {
    /// Reads a bundle with its images.
    fn open(ui: &Ui, path: &Path) -> Result<Self, CommandError> {
        let name = path.display().to_string();
        let bytes = files::read(path, BUNDLE_BYTES_MAX)?;
        let bar = ui.bytes_bar(format!("Checking {name}"), bytes.len() as u64);
        let bundle = Bundle::read(&mut bytes.as_slice(), &|count| bar.inc(count));
        bar.finish_and_clear();
        let bundle = bundle.map_err(|error| {
            CommandError::failed(format!("Cannot read `{name}`")).because(&error)
        })?;
        refuse(&format!("`{name}`"), bundle.problems(&Trust::anybody()))?;
        let manifest = bundle.verify(&Trust::anybody()).map_err(|error| {
            CommandError::failed(format!("`{name}` has no manifest that can be read"))
                .because(&error)
        })?;
        let images = bundle.artifacts().iter().filter_map(|artifact| {
            let first = usize::try_from(artifact.first).ok()?;
            let facts = artifact.image.as_ref().ok()?.clone();
            let image = patches::running(bytes.get(first..)?, &facts).bytes.to_vec();
            Some(EarlierImage { role: artifact.role.clone(), facts, bytes: image })
        });
        Ok(Self { name, version: manifest.system_version, images: images.collect() })
    }
}

/// The images of a release without any other, under compression.
pub fn of_nothing(ui: &Ui, images: &[RoleImage]) -> Result<Vec<RolePatch>, CommandError> {
    make(ui, images, &[], true)
}

/// Makes what the images of a new release are made from: of each earlier release and, unless it is
/// not wanted, of nothing. What would save too little is left out, and that is said.
fn make(
    ui: &Ui,
    images: &[RoleImage],
    earlier: &[Earlier],
    compresses: bool,
) -> Result<Vec<RolePatch>, CommandError> {
    let mut patches = Vec::new();
    for image in images {
        let (role, new) = (image.role.as_str(), image_of(&image.file.bytes, &image.file.facts));
        let failed = |error: &encode::EncodeError| {
            CommandError::failed(format!("Cannot make a patch for `{role}`")).because(error)
        };
        let patch = |tag: String, bytes: Vec<u8>, base| {
            let image_bytes = image.file.bytes.len();
            RolePatch { role: role.to_owned(), tag, bytes, base, image_bytes }
        };
        let mut of_role: Vec<RolePatch> = Vec::new();
        for release in earlier {
            let Some(old) = release.images.iter().find(|old| old.role == role) else {
                ui.warn(format_args!("`{}` has no image for `{role}`", release.name));
                continue;
            };
            let base = old.facts.image_hash;
            let tag: String = base.to_string().chars().take(TAG_DIGITS).collect();
            let is_there = of_role.iter().any(|it| it.tag == tag);
            if base == image.file.facts.image_hash || is_there {
                continue;
            }
            let spinner = ui.spinner(format!("Patch for {role} from {}", release.version));
            let old = Image { bytes: &old.bytes, id: base.0 };
            let made = patches::between(&old, &new).map_err(|error| failed(&error));
            spinner.finish_and_clear();
            match made? {
                Some(made) => of_role.push(patch(tag, made, Some((release.version, base)))),
                None => ui.warn(format_args!(
                    "no patch for {role} from {}: the whole image is hardly larger, compressed",
                    release.version
                )),
            }
        }
        if compresses {
            let whole = encode::full(&new).map_err(|error| failed(&error))?;
            if is_worth_it(whole.len(), new.bytes.len()) {
                of_role.push(patch("full".to_owned(), whole, None));
            }
        }
        patches.extend(not_too_many(of_role)?);
    }
    Ok(patches)
}

/// A bundle has so many for one role.
fn not_too_many(patches: Vec<RolePatch>) -> Result<Vec<RolePatch>, CommandError> {
    if patches.len() > usize::from(PATCHES_MAX) {
        return Err(CommandError::usage(format!(
            "{} patches for one role, the limit is {PATCHES_MAX}",
            patches.len()
        ))
        .hinted("Give --from for the releases that most devices run."));
    }
    Ok(patches)
}

fn image_of<'a>(bytes: &'a [u8], facts: &ImageFacts) -> Image<'a> {
    Image { bytes, id: facts.image_hash.0 }
}

/// The command's option, and those that go with it.
#[derive(Debug, Default, clap::Args)]
pub struct PatchArgs {
    /// A release that devices run now: for them the bundle carries what has changed since. May be
    /// given several times; whoever runs something else gets the whole image
    #[arg(long, value_name = "FILE.lockstep", help_heading = "Patches")]
    from: Vec<PathBuf>,

    /// Leave out the compressed images, by which those travel who have no patch
    #[arg(long, help_heading = "Patches")]
    uncompressed: bool,
}

impl PatchArgs {
    /// What the bundle of these images carries.
    pub fn make(&self, ui: &Ui, images: &[RoleImage]) -> Result<Vec<RolePatch>, CommandError> {
        let earlier: Result<Vec<_>, _> =
            self.from.iter().map(|path| Earlier::open(ui, path)).collect();
        make(ui, images, &earlier?, !self.uncompressed)
    }
}
