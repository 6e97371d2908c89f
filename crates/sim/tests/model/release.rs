//! What the model's group consists of: its devices, the two images of each, the manifest package
//! of the release, and the policy by which it is rolled out.

use lockstep_agent::{Identity, Package, Setup, package};
use lockstep_proto::compat::Announced;
use lockstep_proto::descriptor::Descriptor;
use lockstep_proto::frame::report::Rollback;
use lockstep_proto::id::{DeviceId, ImageHash};
use lockstep_proto::image::{ChipId, Guard, ImageReader};
use lockstep_proto::manifest::{DeviceEntry, Effect, Manifest, Text, Trust, UpdateInstructions};
use lockstep_proto::text::Name;
use lockstep_proto::version::{ProtocolRange, ReleaseVersion};
use lockstep_proto::wire::{Board, Role};
use lockstep_rollout::{Artifact, Policy, Release};
use lockstep_sim::firmware::{FirmwareSpec, SIZE_MIN_BYTES};

/// The most devices that a configuration may have.
pub(crate) const DEVICES_MAX: usize = 3;
/// The device that conducts.
pub(crate) const LEAD: usize = 0;
pub(crate) const CHIP: ChipId = ChipId::ESP32_S3;
const BOARD: &str = "desk-board";
const ROLES: [&str; DEVICES_MAX] = ["receiver", "transmitter", "display"];

/// One image.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) file: Vec<u8>,
    pub(crate) hash: ImageHash,
}

/// Both images of each device, and what the group is told of the new ones.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) devices: usize,
    pub(crate) old: Vec<Image>,
    pub(crate) new: Vec<Image>,
    pub(crate) package: Vec<u8>,
    pub(crate) policy: Policy,
    order: Vec<Role>,
}

/// How the members start their trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `Arm`, then `Fire`.
    Together,
    /// Role by role, the lead's first.
    LeadFirst,
    /// Role by role, the lead's last.
    LeadLast,
}

impl Group {
    pub(crate) fn new(devices: usize, activation: Activation) -> Self {
        assert!((2..=DEVICES_MAX).contains(&devices));
        let images = |minor| (0..devices).map(|index| image(index, minor)).collect();
        let (old, new): (_, Vec<Image>) = (images(0), images(1));
        let roles = (0..devices).map(role);
        let order = match activation {
            Activation::Together => Vec::new(),
            Activation::LeadFirst => roles.collect(),
            Activation::LeadLast => roles.rev().collect(),
        };
        let package = package_of(&new);
        Self { devices, old, new, package, policy: policy(), order }
    }

    pub(crate) fn release(&self) -> Release {
        let artifact = |(index, image): (usize, &Image)| Artifact {
            role: role(index),
            image: image.hash,
            file: package::digest(&image.file),
            size_bytes: bytes_u32(&image.file),
            chip: CHIP,
            board: board(),
            announced: announced(1),
            config_schema: 1,
            guard: Guard::default(),
            is_reversible: true,
        };
        Release {
            number: announced(1).number,
            epoch: 1,
            package: package::digest(&self.package),
            package_size_bytes: u16::try_from(self.package.len()).unwrap(),
            artifacts: self.new.iter().enumerate().map(artifact).collect(),
            brings_keys: false,
            order: self.order.clone(),
            reboot_delay_ms: 0,
            trial_limit_ms: 0,
        }
    }

    pub(crate) fn ids_and_roles(&self) -> Vec<(DeviceId, Role)> {
        (0..self.devices).map(|index| (id(index), role(index))).collect()
    }
}

pub(crate) fn id(index: usize) -> DeviceId {
    DeviceId([2, 0, 0, 0, 0, u8::try_from(index + 1).unwrap()])
}

pub(crate) fn role(index: usize) -> Role {
    Role::new(ROLES[index]).unwrap()
}

pub(crate) fn setup(index: usize, running_slot: u8, minor: u8) -> Setup {
    Setup {
        identity: Identity {
            role: role(index),
            chip: CHIP,
            board: board(),
            announced: announced(minor),
            config_schema: 1,
        },
        rollback: Rollback::Bootloader,
        running_slot,
        reset_reason: 1,
        trust: Trust::anybody(),
        takes_large: false,
    }
}

/// Everything is said again in every step; no limit of the lead passes by itself.
fn policy() -> Policy {
    Policy {
        preflight_ms: LIMIT_MS,
        resend_ms: 1,
        poll_ms: 1,
        staging_idle_ms: LIMIT_MS,
        staging_limit_ms: LIMIT_MS,
        rest_limit_ms: LIMIT_MS,
        fire_lead_ms: FIRE_LEAD_MS,
        fire_every_ms: 1,
        boot_limit_ms: 0,
        unreachable_ms: UNREACHABLE_MS,
        backoff_ms: 0,
        reactivations_max: 1,
        restarts_max: u8::MAX,
        trial_limit_ms: 40_000_000,
        lease_ms: 80_000_000,
        rest_lease_ms: 60_000_000,
        ..Policy::desk()
    }
}

/// Beyond any path without such a jump.
const LIMIT_MS: u64 = 1 << 50;
/// A jump of this length ends every limit of the lead.
pub(crate) const DEADLINE_MS: u64 = 1 << 52;
/// A jump of this length makes everybody's last word old.
pub(crate) const UNREACHABLE_MS: u64 = 1 << 40;
/// A jump of this length ends the countdown, and nothing else.
pub(crate) const FIRE_LEAD_MS: u64 = 1 << 30;

fn image(index: usize, minor: u8) -> Image {
    let descriptor = Descriptor {
        product: Name::new("companion").unwrap(),
        role: Name::new(ROLES[index]).unwrap(),
        board: Name::new(BOARD).unwrap(),
        version: ReleaseVersion::new(1, minor, 0).unwrap(),
        min_compatible: ReleaseVersion::new(1, 0, 0).unwrap(),
        protocol: ProtocolRange::single(1),
        epoch: minor.into(),
        config_schema: 1,
    };
    let spec = FirmwareSpec { size_bytes: SIZE_MIN_BYTES, ..FirmwareSpec::new(descriptor, CHIP) };
    let file = spec.build().unwrap();
    let mut reader = ImageReader::new();
    reader.push(&file).unwrap();
    Image { hash: reader.finish().unwrap().image_hash, file }
}

fn package_of(new: &[Image]) -> Vec<u8> {
    let version = ReleaseVersion::new(1, 1, 0).unwrap();
    let text = Text::new;
    let entry = |(index, image): (usize, &Image)| DeviceEntry {
        role: ROLES[index],
        version,
        device_type: text("ESP32-S3"),
        hardware: text("a desk"),
        firmware_url: text("image.bin"),
        firmware_size: bytes_u32(&image.file),
        md5_checksum: text(""),
        protocol_version: 1,
        protocol_range: None,
        sha256: Some(package::digest(&image.file)),
        image_sha256: Some(image.hash),
        generations_sha256: None,
        elf_sha256: None,
        chip: Some(CHIP),
        board: Some(text(BOARD)),
        min_compatible: None,
        config_schema: 1,
        effect: Effect::None,
        guard: Guard::default(),
    };
    let manifest = Manifest {
        schema: 1,
        system: Some(text("companion")),
        system_version: version,
        sequence: 1,
        epoch: 1,
        release_date: text("2026-01-01"),
        min_compatible_version: version,
        description: text(""),
        devices: new.iter().enumerate().map(entry).collect(),
        update_instructions: UpdateInstructions::default(),
        rollback: None,
        keys: None,
    };
    let mut buffer = [0; package::PACKAGE_SIZE_BYTES_MAX];
    let json = manifest.to_json().to_string();
    let len = Package::write(json.as_bytes(), &[], &mut buffer).unwrap();
    buffer[..len].to_vec()
}

fn announced(minor: u8) -> Announced {
    let number = 10_000 + u32::from(minor) * 100;
    Announced { number, min_compatible: 10_000, protocol: ProtocolRange::single(1) }
}

fn board() -> Board {
    Board::new(BOARD).unwrap()
}

fn bytes_u32(file: &[u8]) -> u32 {
    u32::try_from(file.len()).unwrap()
}
