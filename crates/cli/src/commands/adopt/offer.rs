//! The release that old devices come to, read and checked before anybody is asked anything.

use std::path::Path;

use lockstep_proto::compat::Announced;
use lockstep_proto::id::ImageHash;
use lockstep_proto::manifest::Trust;
use lockstep_proto::version::ReleaseVersion;
use lockstep_server::bundle::{Bundle, ReadArtifact};

use super::AdoptArgs;
use super::survey::Part;
use crate::commands::release::refuse;
use crate::error::CommandError;
use crate::facts::fits;
use crate::files;
use crate::release::{ImagesArgs, ReleaseSpec};
use crate::ui::Ui;

/// A bundle in memory, with an image for each part that it has one for.
#[derive(Debug)]
pub(super) struct Offer {
    /// The whole bundle.
    pub(super) bytes: Vec<u8>,
    /// The release's version.
    pub(super) version: ReleaseVersion,
    news: Vec<New>,
}

/// What one part comes to.
#[derive(Debug)]
pub(super) struct New {
    part: Part,
    /// For people.
    pub(super) name: String,
    /// The image.
    pub(super) bytes: Vec<u8>,
    /// Its identity, once it runs.
    pub(super) image: ImageHash,
    /// Its version.
    pub(super) version: ReleaseVersion,
    /// What it will say of itself to others.
    pub(super) announced: Announced,
}

impl Offer {
    /// The bundle, or one made of the images; `None` if neither is given.
    pub(super) fn open(ui: &Ui, args: &AdoptArgs) -> Result<Option<Self>, CommandError> {
        let images =
            [(Part::Transmitter, &args.transmitter_image), (Part::Receiver, &args.receiver_image)];
        match &args.bundle {
            Some(path) => {
                let bytes = files::read(path, lockstep_server::publish::BUNDLE_BYTES_MAX)?;
                Self::of_bundle(&format!("`{}`", path.display()), bytes).map(Some)
            }
            None if images.iter().all(|(_, path)| path.is_none()) => Ok(None),
            None => {
                let images =
                    images.into_iter().filter_map(|(part, path)| Some((part, path.as_deref()?)));
                let bytes = bundle_of(ui, images)?;
                Self::of_bundle("The release of these images", bytes).map(Some)
            }
        }
    }

    fn of_bundle(name: &str, bytes: Vec<u8>) -> Result<Self, CommandError> {
        let bundle = Bundle::read(&mut bytes.as_slice(), &|_| ())
            .map_err(|error| CommandError::failed(format!("Cannot read {name}")).because(&error))?;
        refuse(name, bundle.problems(&Trust::anybody()))
            .map_err(|error| error.hinted("Nothing was written."))?;
        let manifest = bundle.verify(&Trust::anybody()).map_err(|error| {
            CommandError::failed(format!("{name} has no good manifest")).because(&error)
        })?;
        let mut news = Vec::new();
        for part in [Part::Transmitter, Part::Receiver] {
            let artifact = bundle.artifacts().iter().find(|it| it.role == part.name());
            news.extend(artifact.map(|it| New::of(part, it, &bytes)).transpose()?);
        }
        if news.is_empty() {
            return Err(CommandError::failed(format!(
                "{name} has an image neither for a transmitter nor for a receiver"
            ))
            .hinted("The original project has no other devices."));
        }
        let version = manifest.system_version;
        Ok(Self { version, news, bytes })
    }

    /// What a part comes to.
    pub(super) fn of(&self, part: Part) -> Option<&New> {
        self.news.iter().find(|new| new.part == part)
    }
}

impl New {
    fn of(part: Part, artifact: &ReadArtifact, bundle: &[u8]) -> Result<Self, CommandError> {
        let range = usize::try_from(artifact.first).ok().and_then(|first| {
            Some(first..first.checked_add(usize::try_from(artifact.size_bytes).ok()?)?)
        });
        let bytes = range.and_then(|range| bundle.get(range)).unwrap_or_default().to_vec();
        let name = format!("{part}.bin");
        // Problems of the image were said with the bundle's.
        let facts = artifact.image.as_ref().map_err(|error| {
            CommandError::failed(format!("`{name}` is not a whole firmware image")).because(error)
        })?;
        let Some(ours) = &facts.descriptor else {
            return Err(CommandError::failed(format!(
                "`{name}` has no descriptor of Lockstep's, so it is old firmware, too"
            ))
            .hinted("Nothing was written. Build it with Lockstep in it: docs/boards.md"));
        };
        if ours.role.as_str() != part.name() {
            return Err(CommandError::failed(format!(
                "`{name}` is firmware for the role `{}`, not for a {part}",
                ours.role
            ))
            .hinted("Nothing was written. Are two files given the wrong way round?"));
        }
        let announced = Announced {
            number: ours.version.number(),
            min_compatible: ours.min_compatible.number(),
            protocol: ours.protocol,
        };
        Ok(Self { part, name, bytes, image: facts.image_hash, version: ours.version, announced })
    }

    /// Refuses an image that an old device has no room for.
    pub(super) fn check_slot(&self, slot_bytes: u32) -> Result<(), CommandError> {
        let size_bytes = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        if size_bytes <= slot_bytes {
            return Ok(());
        }
        Err(CommandError::failed(format!(
            "`{}` has {size_bytes} bytes, the {}'s slot is taken to have {slot_bytes}",
            self.name, self.part
        ))
        .hinted(format!(
            "Nothing was written. The image {}. If its table has larger slots say so (--slot \
             0x1E0000); else flash it by cable with another table.",
            fits(size_bytes)
        )))
    }
}

fn bundle_of<'a>(
    ui: &Ui,
    images: impl Iterator<Item = (Part, &'a Path)>,
) -> Result<Vec<u8>, CommandError> {
    let mut args = ImagesArgs::of_lead(None);
    for (part, path) in images {
        let role = part.name().parse().map_err(|error: String| CommandError::failed(error))?;
        args.give(role, path.to_owned());
    }
    // One part alone leads itself for as long as this bundle is read.
    let images = args.open(ui, None)?;
    let newest = images.iter().map(|image| image.version).max();
    let version = newest.unwrap_or(ReleaseVersion::from_number(0));
    ReleaseSpec::of_images(version, images).unsigned_bundle(&[])
}
