//! What a caller says of its device at the start, made into what a node is given.

use alloc::format;
use alloc::string::{String, ToString as _};
use core::ffi::{CStr, c_char};

use lockstep_agent::layout::Layout;
use lockstep_device::channel::{Channel, ChannelPlan};
use lockstep_device::setup::{Duty, Firmware, NodeSetup, Pace};
use lockstep_proto::descriptor::{DESCRIPTOR_BYTES, Descriptor};
use lockstep_proto::frame::control::GroupKey;
use lockstep_proto::frame::report::Rollback;
use lockstep_proto::id::DeviceId;
use lockstep_proto::image::{ChipId, quick_hash};
use lockstep_proto::manifest::{KeySet, Trust};
use lockstep_proto::signature::PublicKey;
use lockstep_proto::wire::{Board, Role};
use lockstep_rollout::Policy;

use embedded_storage::nor_flash::ReadNorFlash as _;

use crate::callbacks::PortFlash;
use crate::result::LockstepResult;

/// What catches a failed trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum LockstepRollback {
    /// The firmware itself, first thing at start: say so while it is not known what the bootloader
    /// does. A trial finds out.
    Agent = 0,
    /// The bootloader (`CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE`).
    Bootloader = 1,
    /// Nothing: such a device takes no part in a rollout that promises a way back.
    None = 2,
}

/// What a device does in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum LockstepDuty {
    /// Takes part.
    Member = 0,
    /// Conducts the group's rollouts, and takes part in them.
    Lead = 1,
}

/// How fast a group lives: all of it alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum LockstepTempo {
    /// As chips do.
    Board = 0,
    /// As desk devices do, which boot in no time.
    Desk = 1,
}

/// What a device is. Filled with zeros first, then what is not optional is set. Everything that it
/// points to is copied.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct LockstepSetup {
    /// Its base MAC address, which is that of its Wi-Fi station, too.
    pub id: [u8; 6],
    /// The 128 bytes that `LOCKSTEP_DESCRIPTOR` has made.
    pub descriptor: *const u8,
    /// The chip's number in images: ESP32 is 0, ESP32-S3 9, ESP32-C3 5, ESP32-C6 13
    /// (`CONFIG_IDF_FIRMWARE_CHIP_ID`).
    pub chip: u16,
    /// Its hardware, for people. May be null.
    pub hardware: *const c_char,
    /// `__DATE__`. May be null.
    pub build_date: *const c_char,
    /// `__TIME__`. May be null.
    pub build_time: *const c_char,
    /// The whole flash, in bytes.
    pub flash_bytes: u32,
    /// The slot that the chip executes from, 0 or 1.
    pub running_slot: u8,
    /// Why it was reset: the number of `esp_reset_reason_t`.
    pub reset_reason: u8,
    /// What catches a failed trial: a `LockstepRollback`.
    pub rollback: i32,
    /// What it does in its group: a `LockstepDuty`.
    pub duty: i32,
    /// How fast its group lives: a `LockstepTempo`.
    pub tempo: i32,
    /// The lowest channel on which it may look for its lead. 0: its access point or its wire says
    /// where it is, as for every lead.
    pub channel_first: u8,
    /// The highest.
    pub channel_last: u8,
    /// Where it found its lead last, if it remembers that over a reset; else 0.
    pub channel_good: u8,
    /// 1 if its radio takes and sends frames of `LOCKSTEP_FRAME_BYTES_MAX` bytes, as ESP-NOW
    /// version 2 does (ESP-IDF 5.4 and later); else 0.
    pub takes_large: u8,
    /// The 32 bytes of the group's key. Null: it waits for adoption, or was adopted before. A lead
    /// needs one.
    pub group_key: *const u8,
    /// `key_count` texts, each the base64 line of a minisign key that releases are signed with.
    /// What a release has changed about keys counts more.
    pub keys: *const *const c_char,
    /// How many: 0 is anybody, up to 8.
    pub key_count: u8,
    /// How many of them must sign.
    pub keys_needed: u8,
    /// 64 random bits of this boot (`esp_random`, with the radio on or `bootloader_random_enable`).
    pub seed: u64,
}

/// Why a setup is none, and what to say about it.
pub(crate) type Unfit = (LockstepResult, String);

/// # Safety
///
/// What `setup` points to must be as its fields say.
pub(crate) unsafe fn node_setup(
    setup: &LockstepSetup,
    flash: &mut PortFlash,
) -> Result<NodeSetup, Unfit> {
    let descriptor = if setup.descriptor.is_null() {
        return Err((LockstepResult::ErrorNull, String::from("`descriptor` is null")));
    } else {
        // SAFETY: it points to that many bytes, as the field says.
        let bytes = unsafe { core::slice::from_raw_parts(setup.descriptor, DESCRIPTOR_BYTES) };
        Descriptor::decode(bytes)
            .map_err(|error| (LockstepResult::ErrorDescriptor, error.to_string()))?
    };
    let label = |field: &str| unfit(format!("`{field}` of the descriptor is no name"));
    let role = Role::new(descriptor.role.as_str()).ok_or_else(|| label("role"))?;
    let board = Board::new(descriptor.board.as_str()).ok_or_else(|| label("board"))?;
    let (duty, tempo) = (duty(setup.duty)?, setup.tempo);
    let (policy, pace) = match tempo {
        TEMPO_BOARD => (Policy::board(), Pace::board()),
        TEMPO_DESK => (Policy::desk(), Pace::desk()),
        found => return Err(unfit(format!("`tempo` is {found}, expected 0 or 1"))),
    };
    let group_key = if setup.group_key.is_null() {
        None
    } else {
        // SAFETY: it points to that many bytes, as the field says.
        Some(GroupKey::new(unsafe { *setup.group_key.cast::<[u8; 32]>() }))
    };
    if duty == Duty::Lead && group_key.is_none() {
        return Err(unfit(String::from("`group_key` is null, and a lead needs one")));
    }
    // SAFETY: the texts are null, or as the fields say.
    let (hardware, build_date, build_time, trust) = unsafe {
        (
            text(setup.hardware, "hardware")?,
            text(setup.build_date, "build_date")?,
            text(setup.build_time, "build_time")?,
            trust(setup)?,
        )
    };
    Ok(NodeSetup {
        id: DeviceId(setup.id),
        role,
        chip: ChipId(setup.chip),
        board,
        hardware,
        firmware: Firmware {
            image: running_image(setup.running_slot, flash)?,
            announced: Some(descriptor.announced()),
            product: Some(descriptor.product.clone()),
            config_schema: descriptor.config_schema,
            build_date,
            build_time,
        },
        running_slot: setup.running_slot,
        reset_reason: setup.reset_reason,
        rollback: rollback(setup.rollback)?,
        channels: channels(setup)?,
        takes_large: setup.takes_large != 0,
        group_key,
        trust,
        duty,
        policy,
        pace,
        seed: setup.seed,
    })
}

fn unfit(text: String) -> Unfit {
    (LockstepResult::ErrorSetup, text)
}

fn rollback(number: i32) -> Result<Rollback, Unfit> {
    const AGENT: i32 = LockstepRollback::Agent as i32;
    const BOOTLOADER: i32 = LockstepRollback::Bootloader as i32;
    const NONE: i32 = LockstepRollback::None as i32;
    match number {
        AGENT => Ok(Rollback::Agent),
        BOOTLOADER => Ok(Rollback::Bootloader),
        NONE => Ok(Rollback::None),
        found => Err(unfit(format!("`rollback` is {found}, expected 0 to 2"))),
    }
}

fn duty(number: i32) -> Result<Duty, Unfit> {
    const MEMBER: i32 = LockstepDuty::Member as i32;
    const LEAD: i32 = LockstepDuty::Lead as i32;
    match number {
        MEMBER => Ok(Duty::Member),
        LEAD => Ok(Duty::Lead),
        found => Err(unfit(format!("`duty` is {found}, expected 0 or 1"))),
    }
}

fn channels(setup: &LockstepSetup) -> Result<ChannelPlan, Unfit> {
    let (first, last) = (setup.channel_first, setup.channel_last);
    if first == 0 {
        return Ok(ChannelPlan::Fixed);
    }
    match (Channel::new(first), Channel::new(last)) {
        (Some(first), Some(last)) if first <= last => {
            let last_good = Channel::new(setup.channel_good);
            Ok(ChannelPlan::Scan { first, last, last_good })
        }
        _ => Err(unfit(format!("channels are {first} to {last}, expected within 1 to 14"))),
    }
}

/// # Safety
///
/// `text` must be null or a C string.
unsafe fn text(text: *const c_char, field: &str) -> Result<String, Unfit> {
    if text.is_null() {
        return Ok(String::new());
    }
    // SAFETY: as said above.
    let text = unsafe { CStr::from_ptr(text) };
    let text = text.to_str().map_err(|_| unfit(format!("`{field}` is not UTF-8")))?;
    if text.len() > TEXT_BYTES_MAX {
        let found = text.len();
        return Err(unfit(format!("`{field}` has {found} bytes, limit {TEXT_BYTES_MAX}")));
    }
    Ok(text.to_string())
}

/// # Safety
///
/// `keys` must be as its field says.
unsafe fn trust(setup: &LockstepSetup) -> Result<Trust, Unfit> {
    if setup.key_count == 0 {
        return Ok(Trust::anybody());
    }
    let found = setup.key_count;
    if setup.keys.is_null() || usize::from(found) > KEYS_MAX {
        let text = format!("`keys` is null, or `key_count` {found} is above {KEYS_MAX}");
        return Err(unfit(text));
    }
    let mut keys = alloc::vec::Vec::new();
    for index in 0..usize::from(found) {
        // SAFETY: there are that many, as the field says.
        let line = unsafe { text(*setup.keys.add(index), "keys")? };
        let key = PublicKey::parse(line.as_bytes());
        keys.push(key.map_err(|error| unfit(format!("key {index} of `keys`: {error}")))?);
    }
    let keys = KeySet::new(&keys, setup.keys_needed);
    keys.map(Trust::signed_by).map_err(|error| unfit(format!("`keys_needed`: {error}")))
}

/// Where a failure of the port's flash is told apart from an image that cannot be read.
fn running_image(
    running_slot: u8,
    flash: &mut PortFlash,
) -> Result<lockstep_proto::id::ImageHash, Unfit> {
    let boot = |text: String| (LockstepResult::ErrorBoot, text);
    let layout = Layout::find(flash).map_err(|error| boot(with_causes(&error)))?;
    let slot = layout
        .slots
        .get(usize::from(running_slot))
        .ok_or_else(|| unfit(format!("`running_slot` is {running_slot}, expected 0 or 1")))?;
    let read = |offset: u32, bytes: &mut [u8]| flash.read(slot.offset + offset, bytes);
    match quick_hash(slot.size_bytes, read) {
        Ok(image) => image.map_err(|error| boot(with_causes(&error))),
        Err(error) => Err(boot(with_causes(&error))),
    }
}

/// An error with all its causes.
pub(crate) fn with_causes(error: &dyn core::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

const TEMPO_BOARD: i32 = LockstepTempo::Board as i32;
const TEMPO_DESK: i32 = LockstepTempo::Desk as i32;
const TEXT_BYTES_MAX: usize = 200;
const KEYS_MAX: usize = 8;
