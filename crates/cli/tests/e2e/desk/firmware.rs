//! Images for the two devices, and bundles that no honest tool would make.

use lockstep_cli::facts::{ImageFile, read_image};
use lockstep_cli::keys::{PasswordArgs, Signer};
use lockstep_cli::release::{ReleaseSpec, RoleImage};
use lockstep_proto::descriptor::{Board, Descriptor, Product, Role as RoleName};
use lockstep_proto::image::ChipId;
use lockstep_proto::version::{ProtocolRange, ReleaseVersion};
use lockstep_sim::firmware::{Fault, FirmwareSpec};

use super::{Desk, Receiver, Role, Transmitter};

/// An image, and what it is known by.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) role: Role,
    pub(crate) bytes: Vec<u8>,
    /// The image hash: what a device says that it runs.
    pub(crate) hash: String,
}

impl Image {
    /// An image that is there already.
    pub(crate) fn of(role: Role, bytes: Vec<u8>) -> Self {
        let hash = read_image(&bytes).unwrap().image_hash.to_string();
        Self { role, bytes, hash }
    }
}

/// An image to be made.
#[derive(Debug, Clone)]
pub(crate) struct Firmware {
    role: Role,
    spec: FirmwareSpec,
}

/// A healthy image of 64 KiB for this role, its chip and its board.
pub(crate) fn firmware(role: Role, version: &str) -> Firmware {
    let (board, chip) = match role {
        Receiver => ("t-display-s3", ChipId::ESP32_S3),
        Transmitter => ("esp32-poe-iso", ChipId::ESP32),
    };
    let descriptor = Descriptor {
        product: Product::new("desk").unwrap(),
        role: RoleName::new(role.name()).unwrap(),
        board: Board::new(board).unwrap(),
        version: version.parse().unwrap(),
        min_compatible: ReleaseVersion::from_number(0),
        protocol: ProtocolRange::single(1),
        epoch: 0,
        config_schema: 0,
    };
    let spec = FirmwareSpec { size_bytes: 64 * 1024, ..FirmwareSpec::new(descriptor, chip) };
    Firmware { role, spec }
}

impl Firmware {
    pub(crate) const fn fault(mut self, fault: Fault) -> Self {
        self.spec.fault = fault;
        self
    }

    pub(crate) const fn size(mut self, size_bytes: u32) -> Self {
        self.spec.size_bytes = size_bytes;
        self
    }

    pub(crate) const fn chip(mut self, chip: ChipId) -> Self {
        self.spec.chip = chip;
        self
    }

    /// Another number, another image that says the same of itself.
    pub(crate) const fn build(mut self, build: u64) -> Self {
        self.spec.build = build;
        self
    }

    /// Most of its bytes are those of every image of this stock.
    pub(crate) const fn stock(mut self, stock: u64) -> Self {
        self.spec.stock = stock;
        self
    }

    pub(crate) const fn epoch(mut self, epoch: u32) -> Self {
        self.spec.descriptor.epoch = epoch;
        self
    }

    pub(crate) fn protocol(mut self, min: u8, max: u8) -> Self {
        self.spec.descriptor.protocol = ProtocolRange::new(min, max).unwrap();
        self
    }

    pub(crate) fn talks_to(mut self, version: &str) -> Self {
        self.spec.descriptor.min_compatible = version.parse().unwrap();
        self
    }

    /// Its descriptor names this role, whatever it is given for.
    pub(crate) fn says_it_is(mut self, role: Role) -> Self {
        self.spec.descriptor.role = RoleName::new(role.name()).unwrap();
        self
    }

    pub(crate) fn make(&self) -> Image {
        Image::of(self.role, self.spec.build().unwrap())
    }
}

/// A bundle that was tampered with: what the command would never make or send.
#[derive(Debug)]
pub(crate) struct Forgery {
    spec: ReleaseSpec,
    manifest: String,
    signatures: Vec<String>,
}

impl Forgery {
    /// As yet an honest one without signatures. The images come in this order.
    pub(crate) fn new(version: &str, images: &[&Image]) -> Self {
        let images = images.iter().map(|image| {
            let facts = read_image(&image.bytes).unwrap();
            let ours = facts.descriptor.clone().unwrap();
            RoleImage {
                role: image.role.name().parse().unwrap(),
                version: ours.version,
                protocol: ours.protocol,
                min_compatible: ours.min_compatible,
                file: ImageFile { name: "forged".to_owned(), bytes: image.bytes.clone(), facts },
            }
        });
        let spec = ReleaseSpec::of_images(version.parse().unwrap(), images.collect());
        let manifest = spec.manifest().unwrap();
        Self { spec, manifest, signatures: Vec::new() }
    }

    /// The manifest says `to` where it said `from`; before it is signed.
    #[track_caller]
    pub(crate) fn edit(mut self, from: &str, to: &str) -> Self {
        assert!(self.manifest.contains(from), "`{from}` is not in {}", self.manifest);
        self.manifest = self.manifest.replace(from, to);
        self
    }

    /// The same, but only in what it says of one role; its entries stand in the order of the
    /// images.
    #[track_caller]
    pub(crate) fn edit_entry(mut self, role: Role, from: &str, to: &str) -> Self {
        let name = format!("\"{}\": {{", role.name());
        let begin = self.manifest.find(&name).expect("the manifest names the role");
        let at = self.manifest[begin..].find(from).expect("the entry says so") + begin;
        self.manifest.replace_range(at..at + from.len(), to);
        self
    }

    /// Other bytes in place of an artifact.
    pub(crate) fn artifact(mut self, role: Role, bytes: &[u8]) -> Self {
        for image in &mut self.spec.images {
            if image.role.as_str() == role.name() {
                image.file.bytes = bytes.to_vec();
            }
        }
        self
    }

    /// Signs the manifest as it is now.
    pub(crate) fn sign(mut self, desk: &Desk, key: &str) -> Self {
        let signer = Signer::open(&desk.path(key), &PasswordArgs::default()).unwrap();
        self.signatures.push(signer.sign(self.manifest.as_bytes(), "forged").unwrap());
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.spec.bundle_parts(&self.manifest, &self.signatures, &[]).unwrap().concat()
    }
}
