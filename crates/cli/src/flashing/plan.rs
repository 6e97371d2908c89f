//! From what is wanted and what a board has to the regions of flash that are to be written.
//!
//! A board that was made before keeps its record (keys, password, group), its partition table and
//! its bootloader, unless another is given. A new one, or one that was erased, gets all of them.
//! The table comes last in the order of writing: a board whose making was cut off counts as new.

use espflash::target::XtalFrequency;
use lockstep_agent::config::CONFIG_STORE_BYTES;
use lockstep_agent::layout::{CONFIG_OFFSET, Layout};
use lockstep_proto::id::ImageHash;
use lockstep_proto::image::ChipId;
use lockstep_proto::manifest::Trust;
use lockstep_proto::partition::{PartitionTable, TABLE_OFFSET};
use lockstep_sim::board::{self, Given};
use lockstep_sim::flash::{MemFlash, SECTOR_SIZE_BYTES};
use serde_json::{Value, json};

use super::bootloader::{self, Bootloader, Net};
use super::{Wanted, table};
use crate::error::CommandError;

/// What a board has already; the default is a new one.
#[derive(Debug, Default)]
pub struct Found {
    /// How large its flash is, if that is known.
    pub flash_bytes: Option<u32>,
    /// The clock that its chip runs on.
    pub crystal: Option<XtalFrequency>,
    /// Its chip's revision, `major · 100 + minor`.
    pub revision: u16,
    /// What is in flash where its bootloader is looked for.
    pub bootloader: Vec<u8>,
    /// Its partition table, if it can be updated with that.
    pub table: Option<PartitionTable>,
    /// From the record's beginning on to the end of its store, if there is a record.
    pub store: Option<Vec<u8>>,
    /// What is in the slot that is not written.
    pub other_image: Option<ImageHash>,
}

/// A piece of flash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Where it begins; always at a sector.
    pub offset: u32,
    /// What it shall hold, in whole sectors.
    pub bytes: Vec<u8>,
    /// How many of these bytes mean something.
    pub size_bytes: usize,
    /// What it is, in a word.
    pub what: &'static str,
    /// More about it.
    pub text: String,
}

impl Region {
    fn new(what: &'static str, offset: u32, mut bytes: Vec<u8>, text: String) -> Self {
        let size_bytes = bytes.len();
        bytes.resize(size_bytes.next_multiple_of(SECTOR_SIZE_BYTES as usize), 0xFF);
        Self { offset, bytes, size_bytes, what, text }
    }

    /// As programs read it.
    pub fn to_json(&self) -> Value {
        json!({
            "what": self.what, "offset": self.offset, "size": self.size_bytes, "text": self.text,
        })
    }
}

/// What is to be done.
#[derive(Debug)]
pub struct Plan {
    /// The chip that it is for.
    pub chip: ChipId,
    /// How the flash is divided.
    pub table: PartitionTable,
    /// What is written, in the order of writing.
    pub regions: Vec<Region>,
    /// What stays, for people.
    pub stays: Vec<String>,
    /// The bootloader that the board will have, for people.
    pub bootloader: String,
    /// What that bootloader is as a net.
    pub net: Net,
    /// What that is known from; empty if it is not.
    pub net_known_by: String,
    /// Whether nobody can be let in, since there is no password.
    pub lacks_password: bool,
}

/// Makes the plan; everything that can be wrong with the parts is said here.
pub fn plan(wanted: &Wanted, found: &Found) -> Result<Plan, CommandError> {
    let chip = wanted.chip();
    let (table, layout) = choose_table(wanted, found)?;
    check_sizes(wanted, found, &table, &layout)?;
    let (bootloader, kept) = choose_bootloader(wanted, found, &table)?;
    let mut plan = Plan {
        chip,
        bootloader: bootloader.from.clone(),
        net: bootloader.net,
        net_known_by: bootloader.known_by.clone(),
        regions: Vec::new(),
        stays: Vec::new(),
        lacks_password: wanted.password.is_none() && found.store.is_none(),
        table,
    };
    check_net(wanted, &plan)?;
    if kept {
        plan.stays.push(format!("its bootloader, {}", bootloader.net));
    } else {
        let at = chip.bootloader_offset();
        let text = format!("{}, {}", bootloader.from, bootloader.net);
        plan.regions.push(Region::new("bootloader", at, bootloader.bytes, text));
    }
    add_slot(&mut plan, wanted, &layout);
    add_store(&mut plan, wanted, found, &layout)?;
    if found.table.as_ref() == Some(&plan.table) {
        plan.stays.push("its partition table".to_owned());
    } else {
        let count = plan.table.entries().len();
        let text = format!("{count} partitions, two slots of {:#x}", layout.slot_size_bytes());
        let bytes = table::bytes_of(&plan.table);
        plan.regions.push(Region::new("table", TABLE_OFFSET, bytes, text));
    }
    Ok(plan)
}

/// What can be said of the parts before the board is there; its table may be another.
pub fn check_files(wanted: &Wanted) -> Result<(), CommandError> {
    if wanted.table.is_some() {
        plan(wanted, &Found::default())?;
    } else if let Some(path) = &wanted.bootloader {
        bootloader::read(path, wanted.chip(), 0)?;
    }
    Ok(())
}

fn choose_table(wanted: &Wanted, found: &Found) -> Result<(PartitionTable, Layout), CommandError> {
    let usual = PartitionTable::desk_table;
    let table = wanted.table.clone().or_else(|| found.table.clone()).unwrap_or_else(usual);
    let layout = table::check(&table).map_err(|error| {
        CommandError::failed("A board with this partition table cannot be updated")
            .detailed(error, None)
    })?;
    Ok((table, layout))
}

fn check_sizes(
    wanted: &Wanted,
    found: &Found,
    table: &PartitionTable,
    layout: &Layout,
) -> Result<(), CommandError> {
    let (needed, slot) = (wanted.app.len(), layout.slot_size_bytes());
    if needed > slot as usize {
        return Err(CommandError::failed(format!(
            "`{}` has {needed} bytes, the smaller slot has {slot} ({slot:#x})",
            wanted.app_name
        ))
        .hinted("Make the firmware smaller, or give a table with larger slots: --table FILE"));
    }
    let Some(flash_bytes) = found.flash_bytes.filter(|&bytes| bytes < table.end()) else {
        return Ok(());
    };
    Err(CommandError::failed(format!(
        "The partition table ends at {:#x}, the board's flash at {flash_bytes:#x} ({} MiB)",
        table.end(),
        flash_bytes >> 20
    ))
    .hinted("Give a table that fits: --table FILE. Two slots need much of a flash of 4 MiB."))
}

/// The bootloader, and whether it is the one that the board has.
fn choose_bootloader(
    wanted: &Wanted,
    found: &Found,
    table: &PartitionTable,
) -> Result<(Bootloader, bool), CommandError> {
    let chip = wanted.chip();
    if let Some(path) = &wanted.bootloader {
        return Ok((bootloader::read(path, chip, table.end())?, false));
    }
    // One that was cut off when it was written, or that takes the flash to be smaller, would not
    // start anything.
    if let Some(known) = bootloader::on_board(&found.bootloader, chip, table.end()) {
        return Ok((known, true));
    }
    Ok((bootloader::bundled(chip, found.crystal, found.revision, table.end())?, false))
}

fn check_net(wanted: &Wanted, plan: &Plan) -> Result<(), CommandError> {
    if !wanted.require_rollback || plan.net == Net::Bootloader {
        return Ok(());
    }
    let text = match plan.net {
        Net::NotKnown => {
            format!("Nothing says that the bootloader ({}) has rollback", plan.bootloader)
        }
        _ => format!("The bootloader ({}) has no rollback: {}", plan.bootloader, plan.net_known_by),
    };
    Err(CommandError::failed(text).hinted(
        "Build one with CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE=y and give it with --bootloader; its \
         build's folder `config` beside it says that it was.",
    ))
}

fn add_slot(plan: &mut Plan, wanted: &Wanted, layout: &Layout) {
    let [slot, _] = layout.slots;
    let erased = vec![0xFF; layout.otadata.size_bytes as usize];
    let text = "erased, so that the first slot boots".to_owned();
    plan.regions.push(Region::new("otadata", layout.otadata.offset, erased, text));
    let mut text = crate::facts::image_title(&wanted.facts);
    if let Some(ours) = &wanted.facts.descriptor {
        text += &format!(" for {}", ours.board);
    }
    plan.regions.push(Region::new("firmware", slot.offset, wanted.app.clone(), text));
}

fn add_store(
    plan: &mut Plan,
    wanted: &Wanted,
    found: &Found,
    layout: &Layout,
) -> Result<(), CommandError> {
    let anybody = Trust::anybody();
    let given = Given {
        trust: wanted.trust.as_ref().or_else(|| found.store.is_none().then_some(&anybody)),
        announced: None,
        password: wanted.password.as_deref(),
        group: wanted.group.as_ref(),
        configuration: wanted.configuration.as_deref(),
    };
    let from = layout.record().offset as usize;
    let range = from..from + store_bytes(layout) as usize;
    let mut flash = MemFlash::new(plan.table.end());
    let store = flash.bytes.get_mut(range.clone()).unwrap_or_default();
    if let Some(known) = &found.store {
        store.iter_mut().zip(known).for_each(|(to, from)| *to = *from);
    }
    let images = (wanted.facts.image_hash, found.other_image);
    board::give(&given, images, layout, &mut flash).map_err(|error| {
        CommandError::failed("The record of the board cannot be made").because(&error)
    })?;
    let store = flash.bytes.get(range).unwrap_or_default();
    let text = gifts(&given);
    let moved = found.table.as_ref().and_then(|table| Layout::of(table).ok());
    let moved = moved.is_none_or(|before| before.record() != layout.record());
    match &found.store {
        Some(known) if !moved => add_changed(plan, known, store, from, &text),
        _ => plan.regions.push(whole_store(from, store.to_vec(), found, text)),
    }
    if found.store.is_some() {
        let text = "its record (keys, password and group, unless given anew)";
        plan.stays.push(text.to_owned());
    }
    Ok(())
}

fn whole_store(from: usize, bytes: Vec<u8>, found: &Found, text: String) -> Region {
    let text = match found.store {
        Some(_) => format!("as it was, at its new place; {text}"),
        None => text,
    };
    Region::new("record", offset_of(from), bytes, text)
}

/// The sectors that differ, those next to each other as one.
fn add_changed(plan: &mut Plan, known: &[u8], store: &[u8], from: usize, text: &str) {
    let sector_bytes = SECTOR_SIZE_BYTES as usize;
    let sectors = store.chunks(sector_bytes).zip(known.chunks(sector_bytes));
    let mut at = from;
    for (new, old) in sectors {
        let last = plan.regions.last_mut();
        match last.filter(|last| last.offset as usize + last.bytes.len() == at) {
            Some(last) if new != old && last.what == "record" => {
                last.bytes.extend(new);
                last.size_bytes += new.len();
            }
            _ if new != old => {
                let region = Region::new("record", offset_of(at), new.to_vec(), text.to_owned());
                plan.regions.push(region);
            }
            _ => (),
        }
        at += sector_bytes;
    }
}

fn gifts(given: &Given<'_>) -> String {
    let trust = given.trust.map(|trust| match trust == &Trust::anybody() {
        true => "takes anybody's releases",
        false => "takes releases signed by your keys",
    });
    let parts = [
        trust,
        given.group.map(|_| "belongs to the group"),
        given.password.map(|_| "has your password"),
        given.configuration.map(|_| "has your configuration"),
    ];
    crate::ui::listed(parts.into_iter().flatten())
}

/// From the record's beginning to the end of what the firmware uses.
pub fn store_bytes(layout: &Layout) -> u32 {
    match layout.config() {
        Some(_) => CONFIG_OFFSET + CONFIG_STORE_BYTES,
        None => CONFIG_OFFSET,
    }
}

/// A table in hand has no place beyond 4 GiB.
fn offset_of(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
