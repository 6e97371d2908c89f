//! What is searched: a chip, its images, and what people want of it.

use std::fmt;

use lockstep_agent::package::digest;
use lockstep_agent::{Pace, Package};
use lockstep_delta::HEADER_BYTES;
use lockstep_proto::bundle::{END, artifact_name, header, padding_bytes};
use lockstep_proto::descriptor::Descriptor;
use lockstep_proto::frame::order::Offer;
use lockstep_proto::frame::report::Rollback;
use lockstep_proto::id::{ImageHash, Sha256};
use lockstep_proto::image::{ChipId, Guard, ImageReader};
use lockstep_proto::partition::{
    PartitionEntry, PartitionTable, SUBTYPE_OTA_0, SUBTYPE_OTADATA, SUBTYPE_UNDEFINED, TABLE_BYTES,
    TABLE_OFFSET, TYPE_APP, TYPE_DATA,
};
use lockstep_proto::text::{FixedText, Name};
use lockstep_proto::version::{ProtocolRange, ReleaseVersion};
use lockstep_proto::wire::{Board, Role};
use lockstep_rollout::{Artifact, Release};
use lockstep_sim::bootloader::Bootloader;
use lockstep_sim::firmware::FirmwareSpec;
use lockstep_sim::patches;
use sha2::Digest as _;

use crate::bench::Bench;
use crate::places::{OTADATA, Places};

pub(crate) const CHIP: ChipId = ChipId::ESP32_S3;
pub(crate) const ROLE: &str = "receiver";
pub(crate) const BOARD: &str = "desk-board";
const SLOT_0: u32 = 0x1_0000;
const STORE_BYTES: u32 = 0x9000;

/// One thing that somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// The release with this index, to be kept if it is healthy.
    Update(usize),
    /// The same, but somebody aborts it as soon as the device is on trial.
    UpdateAborted(usize),
    /// Back to what ran before.
    Back,
}

/// A device, its releases and its tasks.
pub(crate) struct Scene {
    pub(crate) rollback: Rollback,
    pub(crate) pace: Pace,
    pub(crate) releases: Vec<Shipped>,
    pub(crate) tasks: Vec<Task>,
    /// The power is cut in this task, and in no other.
    pub(crate) cut_task: usize,
    /// How often the device was started before its first task: each start fills its record.
    pub(crate) idle_starts: u32,
    pub(crate) slot_bytes: u32,
}

/// Without its images: they never change.
impl fmt::Debug for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.tasks)
    }
}

/// A release with its one image.
pub(crate) struct Shipped {
    pub(crate) file: Vec<u8>,
    pub(crate) hash: ImageHash,
    pub(crate) package: Vec<u8>,
    pub(crate) bundle: Vec<u8>,
    pub(crate) release: Release,
    /// What makes it from the release before, or from nothing, and how that is offered.
    pub(crate) patch: Option<(Vec<u8>, Offer)>,
}

/// From what an image is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// The image before it: the patch fits a sector.
    Before,
    /// Nothing: the patch is as long as the image is when it is compressed.
    Nothing,
}

impl Scene {
    /// `sizes_bytes` are those of the factory image, version 1.0.0, and of the releases after it.
    pub(crate) fn new(rollback: Rollback, sizes_bytes: &[u32]) -> Self {
        let largest = sizes_bytes.iter().max().copied().unwrap_or_default();
        let releases = (0..).zip(sizes_bytes).map(|(minor, &size)| ship(minor, size)).collect();
        Self {
            rollback,
            pace: Pace::Fast,
            releases,
            tasks: Vec::new(),
            cut_task: 0,
            idle_starts: 0,
            slot_bytes: largest.next_multiple_of(SLOT_0),
        }
    }

    /// The release with index 1 comes as a patch.
    pub(crate) fn patched(mut self, from: From) -> Self {
        let (minor, size) = (1, u32::try_from(self.releases[1].file.len()).unwrap());
        // Others of its stock share most of its bytes.
        self.releases[0] = ship_stock(0, size, 7);
        let mut shipped = ship_stock(minor, size, 7);
        let (base, patch) = match from {
            From::Before => {
                let old = &self.releases[0];
                (Some(old.hash), patches::patch(&old.file, &shipped.file))
            }
            From::Nothing => (None, patches::full(&shipped.file)),
        };
        shipped.bundle = patches::with_patches(&shipped.bundle, &[(ROLE, "1a", &patch)]);
        let header = &patch[..HEADER_BYTES];
        let offer = Offer {
            image: shipped.hash,
            base,
            patch: Sha256(sha2::Sha256::digest(header).into()),
            size_bytes: u32::try_from(patch.len()).unwrap(),
        };
        shipped.patch = Some((patch, offer));
        self.releases[1] = shipped;
        self
    }

    /// The tasks; the power is cut in the last but one.
    pub(crate) fn with_tasks(mut self, tasks: &[Task]) -> Self {
        self.tasks = tasks.to_vec();
        self.cut_task = tasks.len() - 2;
        self
    }

    fn slots(&self) -> [u32; 2] {
        [SLOT_0, SLOT_0 + self.slot_bytes]
    }

    /// Where the store begins, and in it the record.
    pub(crate) fn store(&self) -> u32 {
        SLOT_0 + 2 * self.slot_bytes
    }

    pub(crate) fn bootloader(&self) -> Bootloader {
        Bootloader { chip: CHIP, rollback: self.rollback == Rollback::Bootloader }
    }

    /// A chip as the factory made it: partition table, image, nothing else.
    pub(crate) fn factory_flash(&self) -> Vec<u8> {
        let mut bytes = vec![0xFF; (self.store() + STORE_BYTES) as usize];
        let mut table = [0xFF; TABLE_BYTES];
        self.table().write(&mut table);
        let mut put = |at: u32, part: &[u8]| {
            bytes[at as usize..at as usize + part.len()].copy_from_slice(part);
        };
        put(TABLE_OFFSET, &table);
        put(SLOT_0, &self.releases[0].file);
        bytes
    }

    pub(crate) fn bench(&self, bytes: Vec<u8>) -> Bench {
        Bench::new(bytes, Places::new(self.slots(), self.slot_bytes, self.store()))
    }

    fn table(&self) -> PartitionTable {
        let row = |kind, subtype, offset, size_bytes, label: &str| PartitionEntry {
            kind,
            subtype,
            offset,
            size_bytes,
            label: FixedText::new(label).unwrap(),
            flags: 0,
        };
        let [first, second] = self.slots();
        PartitionTable::new(&[
            row(TYPE_DATA, SUBTYPE_OTADATA, OTADATA, 0x2000, "otadata"),
            row(TYPE_APP, SUBTYPE_OTA_0, first, self.slot_bytes, "app0"),
            row(TYPE_APP, SUBTYPE_OTA_0 + 1, second, self.slot_bytes, "app1"),
            row(TYPE_DATA, SUBTYPE_UNDEFINED, self.store(), STORE_BYTES, "lockstep"),
        ])
        .unwrap()
    }

    /// What runs before the power is cut.
    pub(crate) fn before_cut(&self) -> ImageHash {
        let before = self.tasks[..self.cut_task].iter().fold((0, 0), |(_, now), task| match task {
            Task::Update(index) => (now, *index),
            Task::UpdateAborted(_) | Task::Back => (now, now),
        });
        self.releases[before.1].hash
    }

    /// The slot with this number holds one of the releases, byte for byte.
    pub(crate) fn assert_whole(&self, bench: &mut Bench, slot: u8, hash: ImageHash) {
        use embedded_storage::nor_flash::ReadNorFlash;
        let shipped = self.releases.iter().find(|shipped| shipped.hash == hash);
        let shipped = shipped.unwrap_or_else(|| panic!("boots {hash:?}, which nobody shipped"));
        let mut found = vec![0; shipped.file.len()];
        bench.read(self.slots()[usize::from(slot)], &mut found).unwrap();
        assert!(found == shipped.file, "slot {slot} boots and is not {hash:?} to the last byte");
    }
}

fn ship(minor: u32, size_bytes: u32) -> Shipped {
    ship_stock(minor, size_bytes, 0)
}

fn ship_stock(minor: u32, size_bytes: u32, stock: u64) -> Shipped {
    let descriptor = Descriptor {
        product: Name::new("desk").unwrap(),
        role: Name::new(ROLE).unwrap(),
        board: Name::new(BOARD).unwrap(),
        version: ReleaseVersion::from_number(10_000 + 100 * minor),
        min_compatible: ReleaseVersion::from_number(10_000),
        protocol: ProtocolRange::single(1),
        epoch: 0,
        config_schema: 1,
    };
    let announced = descriptor.announced();
    let spec = FirmwareSpec { size_bytes, stock, ..FirmwareSpec::new(descriptor, CHIP) };
    let file = spec.build().unwrap();
    let mut reader = ImageReader::new();
    reader.push(&file).unwrap();
    let facts = reader.finish().unwrap();
    let (hash, sha256) = (facts.image_hash, facts.file_sha256);
    let manifest = manifest(minor, file.len(), hash, sha256);
    let mut package = vec![0; 4096];
    let length = Package::write(manifest.as_bytes(), &[], &mut package).unwrap();
    package.truncate(length);
    let release = Release {
        brings_keys: false,
        number: announced.number,
        epoch: 0,
        package: digest(&package),
        package_size_bytes: u16::try_from(length).unwrap(),
        artifacts: vec![Artifact {
            role: Role::new(ROLE).unwrap(),
            image: hash,
            file: sha256,
            size_bytes: u32::try_from(file.len()).unwrap(),
            chip: CHIP,
            board: Board::new(BOARD).unwrap(),
            announced,
            config_schema: 1,
            guard: Guard::default(),
            is_reversible: true,
        }],
        order: Vec::new(),
        reboot_delay_ms: 0,
        trial_limit_ms: 0,
    };
    let bundle = bundle(&manifest, &file);
    Shipped { file, hash, package, bundle, release, patch: None }
}

fn manifest(minor: u32, size_bytes: usize, image: ImageHash, file: Sha256) -> String {
    let version = format!("1.{minor}.0");
    let number = 10_000 + 100 * minor;
    format!(
        r#"{{"schema":1,"system":"desk","system_version":"{version}","sequence":1,"epoch":0,
"release_date":"2026-01-01T00:00:00Z","min_compatible_version":"1.0.0","description":"",
"devices":{{"{ROLE}":{{"version":"{version}","version_number":{number},"device_type":"{CHIP}",
"hardware":"x","firmware_url":"{ROLE}.bin","firmware_size":{size_bytes},"md5_checksum":"",
"protocol_version":1,"protocol_range":[1,1],"sha256":"{file}","image_sha256":"{image}",
"chip":"{CHIP}","board":"{BOARD}","min_compatible":"1.0.0","config_schema":1,"effect":"none"}}}},
"update_instructions":{{"order":[],"reboot_delay_seconds":0,"health_check_timeout_seconds":5}}}}"#
    )
}

fn bundle(manifest: &str, image: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    let mut put = |name, bytes: &[u8]| {
        let size = u32::try_from(bytes.len()).unwrap();
        tar.extend(header(&name, size));
        tar.extend(bytes);
        tar.extend(std::iter::repeat_n(0, padding_bytes(size)));
    };
    put("manifest.json".try_into().unwrap(), manifest.as_bytes());
    put(artifact_name(ROLE), image);
    tar.extend(END);
    tar
}
