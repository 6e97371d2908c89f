//! Images, releases and bundles of simulated worlds: made once, shared by every world after that.
//!
//! An image is known by its hash alone, so how it behaves stands beside it and not in its bytes. A
//! bundle is put together from the parts that exist already, so a release costs a manifest.

use std::collections::HashMap;
use std::rc::Rc;

use lockstep_proto::bundle::{
    END, MANIFEST_NAME, artifact_name, header, padding_bytes, patch_name, signature_name,
};
use lockstep_proto::compat::Announced;
use lockstep_proto::descriptor::{Board, Descriptor, Product, Role};
use lockstep_proto::id::{ImageHash, Sha256};
use lockstep_proto::image::{ChipId, ImageFacts, ImageReader};
use lockstep_proto::manifest::{GENERATION_BYTES, GenerationHash, write_generations};
use lockstep_proto::version::{ProtocolRange, ReleaseVersion};

use super::flash::ChipFlash;
use super::signing::Signing;
use crate::firmware::FirmwareSpec;
use crate::patches;

/// The size of a slot, and of the images of worlds without patches.
pub const IMAGE_BYTES: u32 = 64 * 1024;
/// The size of images in worlds with patches, which need a little room beside an image.
const AKIN_IMAGE_BYTES: u32 = 40 * 1024;
/// The lead's role.
pub const LEAD_ROLE: &str = "receiver";
/// Every role there is, the lead's first.
pub const ROLES: [&str; 3] = [LEAD_ROLE, "transmitter", "display"];

/// How a firmware behaves when it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Behaviour {
    /// As it should.
    #[default]
    Healthy,
    /// It crashes before it has done anything, in every boot.
    CrashesAtBoot,
    /// It crashes so many milliseconds after its start, in every boot.
    CrashesAfterMs(u32),
    /// It hangs so many milliseconds after its start, until the watchdog bites.
    HangsAfterMs(u32),
    /// It hears nothing over the radio.
    Deaf,
    /// It says nothing over the radio.
    Mute,
    /// Its own health check always fails.
    NeverHealthy,
    /// Its health comes and goes: so many milliseconds of each.
    FlapsEveryMs(u32),
    /// Its application never comes to rest.
    NeverRests,
    /// It says that it is healthy, and crashes so many milliseconds after its start.
    LiesUntilMs(u32),
}

impl Behaviour {
    /// What is wrong with it, for people.
    pub fn describe(self) -> String {
        match self {
            Self::Healthy => "healthy".into(),
            Self::CrashesAtBoot => "crashes at boot".into(),
            Self::CrashesAfterMs(ms) => format!("crashes after {ms} ms"),
            Self::HangsAfterMs(ms) => format!("hangs after {ms} ms"),
            Self::Deaf => "deaf".into(),
            Self::Mute => "mute".into(),
            Self::NeverHealthy => "never healthy".into(),
            Self::FlapsEveryMs(ms) => format!("health comes and goes every {ms} ms"),
            Self::NeverRests => "never comes to rest".into(),
            Self::LiesUntilMs(ms) => format!("lies about its health, crashes after {ms} ms"),
        }
    }

    /// A number that no other behaviour has.
    fn number(self) -> u64 {
        let (kind, ms) = match self {
            Self::Healthy => (0, 0),
            Self::CrashesAtBoot => (1, 0),
            Self::CrashesAfterMs(ms) => (2, ms),
            Self::HangsAfterMs(ms) => (3, ms),
            Self::Deaf => (4, 0),
            Self::Mute => (5, 0),
            Self::NeverHealthy => (6, 0),
            Self::FlapsEveryMs(ms) => (7, ms),
            Self::NeverRests => (8, 0),
            Self::LiesUntilMs(ms) => (9, ms),
        };
        kind << 32 | u64::from(ms)
    }
}

/// What an image is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageSpec {
    /// The role that it is for.
    pub role: &'static str,
    /// The chip that it is for.
    pub chip: ChipId,
    /// Its version: `MAJOR.MINOR.0`.
    pub version: (u16, u16),
    /// The protocols that it speaks, both ends included.
    pub protocol: (u8, u8),
    /// Its anti-rollback counter.
    pub epoch: u32,
    /// How it behaves.
    pub behaviour: Behaviour,
    /// Whether it shares most of its bytes with other versions, as releases of one program do.
    pub is_akin: bool,
}

/// One image.
#[derive(Debug)]
pub struct Image {
    /// What it was made from.
    pub spec: ImageSpec,
    /// The file.
    pub bytes: Vec<u8>,
    /// Its identity.
    pub hash: ImageHash,
    /// SHA-256 of the file.
    pub file: Sha256,
    /// What it announces.
    pub announced: Announced,
    /// The hashes of its generations, as a manifest has them.
    generations: String,
    /// What reading it tells.
    pub(crate) facts: ImageFacts,
}

/// Images that were made already, and the flashes of worlds that have ended.
#[derive(Debug, Default)]
pub struct Library {
    images: HashMap<ImageSpec, Rc<Image>>,
    /// By what they are applied to, if to anything, and what comes of it.
    patches: HashMap<(Option<ImageHash>, ImageHash), Rc<Vec<u8>>>,
    /// As they leave the factory.
    fresh: HashMap<ImageHash, ChipFlash>,
    used: Vec<ChipFlash>,
}

impl Library {
    /// The image of this specification.
    ///
    /// # Panics
    ///
    /// When the specification is none that an image can be made from.
    pub fn image(&mut self, spec: ImageSpec) -> Rc<Image> {
        if let Some(image) = self.images.get(&spec) {
            return Rc::clone(image);
        }
        if self.images.len() >= LIBRARY_IMAGES_MAX {
            self.images.clear();
            self.patches.clear();
            self.fresh.clear();
        }
        let image = Rc::new(build(spec));
        self.images.insert(spec, Rc::clone(&image));
        image
    }

    /// What makes one image of another, or of nothing.
    pub fn patch(&mut self, old: Option<&Image>, new: &Image) -> Rc<Vec<u8>> {
        let patch = self.patches.entry((old.map(|old| old.hash), new.hash));
        let make = || match old {
            Some(old) => patches::patch(&old.bytes, &new.bytes),
            None => patches::full(&new.bytes),
        };
        Rc::clone(patch.or_insert_with(|| Rc::new(make())))
    }

    /// A flash with this image in its first slot, as it leaves the factory.
    pub(crate) fn flash(&mut self, image: &Image) -> ChipFlash {
        let fresh =
            self.fresh.entry(image.hash).or_insert_with(|| ChipFlash::with_image(&image.bytes));
        match self.used.pop() {
            Some(mut flash) => {
                flash.copy_from(fresh);
                flash
            }
            None => fresh.clone(),
        }
    }

    /// Takes back a flash that nobody needs any more: its memory is used again.
    pub(crate) fn take_back(&mut self, flash: ChipFlash) {
        self.used.push(flash);
    }
}

fn build(spec: ImageSpec) -> Image {
    let (major, minor) = spec.version;
    let version: ReleaseVersion = format!("{major}.{minor}.0").parse().expect("a version");
    let (min, max) = spec.protocol;
    let descriptor = Descriptor {
        product: Product::new(SYSTEM).expect("a short name"),
        role: Role::new(spec.role).expect("a short name"),
        board: Board::new(board_of(spec.role)).expect("a short name"),
        version,
        min_compatible: "1.0.0".parse().expect("a version"),
        protocol: ProtocolRange::new(min, max).expect("a range"),
        epoch: spec.epoch,
        config_schema: 1,
    };
    let announced = descriptor.announced();
    let firmware = FirmwareSpec {
        size_bytes: if spec.is_akin { AKIN_IMAGE_BYTES } else { IMAGE_BYTES },
        build: spec.behaviour.number(),
        stock: spec.is_akin.into(),
        ..FirmwareSpec::new(descriptor, spec.chip)
    };
    let bytes = firmware.build().expect("an image of a legal size");
    let mut reader = ImageReader::new();
    reader.push(&bytes).expect("an image");
    let facts = reader.finish().expect("a whole image");
    let (hash, file) = (facts.image_hash, facts.file_sha256);
    let hashes = bytes.chunks(GENERATION_BYTES as usize).map(GenerationHash::of);
    let mut generations = String::new();
    write_generations(hashes, &mut generations).expect("a text takes it");
    Image { spec, bytes, hash, file, announced, generations, facts }
}

/// A healthy image for the lead: any will do.
pub fn any_image(library: &mut Library) -> Rc<Image> {
    library.image(ImageSpec {
        role: LEAD_ROLE,
        chip: ChipId::ESP32_S3,
        version: (1, 0),
        protocol: (1, 1),
        epoch: 0,
        behaviour: Behaviour::Healthy,
        is_akin: false,
    })
}

/// The board that a device of this role has.
pub(super) fn board_of(role: &str) -> &'static str {
    match role {
        LEAD_ROLE => "t-display-s3",
        "transmitter" => "esp32-poe-iso",
        _ => "c3-panel",
    }
}

/// A release to be put together.
#[derive(Debug, Clone)]
pub struct Release {
    /// Its version: `MAJOR.MINOR.0`.
    pub version: (u16, u16),
    /// Its anti-rollback counter.
    pub epoch: u32,
    /// One image for each role in it, the lead's last.
    pub images: Vec<Rc<Image>>,
    /// Roles in the order of their activation; none: all together.
    pub order: Vec<&'static str>,
    /// The pause between two of them, in seconds.
    pub reboot_delay_s: u32,
    /// How long a member may take to get healthy, in seconds.
    pub health_timeout_s: u32,
    /// Who vouches for it.
    pub signing: Signing,
    /// Whether its manifest has the hashes of generations.
    pub lists: Lists,
    /// What is in its bundle for those who need not fetch a whole image: for which role.
    pub patches: Vec<(&'static str, Rc<Vec<u8>>)>,
}

/// Whether a manifest has the hashes of generations of its images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lists {
    /// As the command writes it.
    #[default]
    Written,
    /// As older commands wrote it: what came over the air is judged only when all of it has come.
    LeftOut,
}

impl Release {
    /// Its bundle.
    pub fn bundle(&self) -> Bundle {
        let manifest = self.manifest();
        let mut parts = vec![Part::Bytes(entry(MANIFEST_NAME, manifest.as_bytes()))];
        if let Some(signature) = self.signing.of(&manifest) {
            parts.push(Part::Bytes(entry(&signature_name(0), signature.as_bytes())));
        }
        for image in &self.images {
            let of_role = self.patches.iter().filter(|(role, _)| *role == image.spec.role);
            for (number, (role, patch)) in of_role.enumerate() {
                parts.push(Part::Bytes(entry(&patch_name(role, &number.to_string()), patch)));
            }
            let name = artifact_name(image.spec.role);
            let size_bytes = u32::try_from(image.bytes.len()).expect("a small image");
            parts.push(Part::Bytes(header(&name, size_bytes).to_vec()));
            parts.push(Part::Image(Rc::clone(image)));
        }
        parts.push(Part::Bytes(END.to_vec()));
        let size_bytes = parts.iter().map(|part| part.bytes().len()).sum();
        let is_forged = self.signing == Signing::Forger;
        Bundle { parts, size_bytes, images: self.images.clone(), is_forged }
    }

    fn manifest(&self) -> String {
        let (major, minor) = self.version;
        let devices: Vec<String> =
            self.images.iter().map(|image| device_entry(image, self.lists)).collect();
        let order: Vec<String> = self.order.iter().map(|role| format!("\"{role}\"")).collect();
        format!(
            r#"{{"schema":1,"system":"{SYSTEM}","system_version":"{major}.{minor}.0","sequence":1,
"epoch":{},"release_date":"2026-01-01T00:00:00Z","min_compatible_version":"1.0.0",
"description":"","devices":{{{}}},"update_instructions":{{"order":[{}],
"reboot_delay_seconds":{},"health_check_timeout_seconds":{}}}}}"#,
            self.epoch,
            devices.join(","),
            order.join(","),
            self.reboot_delay_s,
            self.health_timeout_s,
        )
    }
}

fn device_entry(image: &Image, lists: Lists) -> String {
    let list = match lists {
        Lists::Written => format!(r#","generations_sha256":"{}""#, image.generations),
        Lists::LeftOut => String::new(),
    };
    let ImageSpec { role, chip, version: (major, minor), protocol: (min, max), .. } = image.spec;
    format!(
        r#""{role}":{{"version":"{major}.{minor}.0","version_number":{},"device_type":"{chip}",
"hardware":"x","firmware_url":"{role}.bin","firmware_size":{},"md5_checksum":"",
"protocol_version":{max},"protocol_range":[{min},{max}],"sha256":"{}","image_sha256":"{}",
"chip":"{chip}","board":"{}","min_compatible":"1.0.0","config_schema":1,"effect":"none"{list}}}"#,
        image.announced.number,
        image.bytes.len(),
        image.file,
        image.hash,
        board_of(role),
    )
}

fn entry(name: &str, bytes: &[u8]) -> Vec<u8> {
    let size_bytes = u32::try_from(bytes.len()).expect("a small file");
    let mut tar = header(&name.try_into().expect("a short name"), size_bytes).to_vec();
    tar.extend(bytes);
    tar.extend(std::iter::repeat_n(0, padding_bytes(size_bytes)));
    tar
}

/// A release as it travels.
#[derive(Debug)]
pub struct Bundle {
    parts: Vec<Part>,
    size_bytes: usize,
    /// The images in it.
    pub images: Vec<Rc<Image>>,
    /// Nobody may ever run what is in it.
    pub is_forged: bool,
}

#[derive(Debug)]
enum Part {
    Bytes(Vec<u8>),
    Image(Rc<Image>),
}

impl Part {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Image(image) => &image.bytes,
        }
    }
}

impl Bundle {
    /// Its length in bytes.
    pub fn size_bytes(&self) -> u32 {
        u32::try_from(self.size_bytes).expect("a few images")
    }

    /// Up to `length` bytes from `offset` on, as far as they lie in one piece.
    pub fn piece(&self, offset: u32, length: usize) -> &[u8] {
        let mut start = offset as usize;
        for part in &self.parts {
            let bytes = part.bytes();
            if let Some(rest) = bytes.get(start..).filter(|rest| !rest.is_empty()) {
                return rest.get(..length).unwrap_or(rest);
            }
            start -= bytes.len();
        }
        &[]
    }
}

/// The system that every release is for.
const SYSTEM: &str = "sim";
/// What is kept of images at most: some 40 MB.
const LIBRARY_IMAGES_MAX: usize = 600;
