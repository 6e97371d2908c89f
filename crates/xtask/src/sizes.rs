//! What a linked program costs, by crate, read off its symbols and its line tables.
//!
//! Every byte of code, constants and variables in the file is counted once. A function belongs to
//! the first crate of ours that its name mentions, so that generic code of others, filled in with
//! our types, is ours; an entry point of the measuring program belongs to the core it enters, since
//! the compiler puts into it what is called from nowhere else.
//!
//! What was put into a function of another crate counts there, so a second column counts code by
//! the crate whose lines it was made from, where the program has line tables.

mod lines;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::ops::Range;

use object::elf::FileHeader32;
use object::read::elf::ElfFile;
use object::{LittleEndian, Object, ObjectSection, ObjectSymbol, SectionKind, SymbolSection};

/// The measuring program's own crate.
const PROGRAM: &str = "cores_size";
/// In whose order they are shown, and looked for in names: what is nearer to a chip names the
/// others.
const OURS: &[&str] = &[
    "lockstep_proto",
    "lockstep_agent",
    "lockstep_rollout",
    "lockstep_device",
    "lockstep_firmware",
];

/// Where bytes without a name go: string and table constants that the linker has merged.
const UNNAMED: &str = "(unnamed constants)";
const COMPILER: &str = "compiler_builtins";
/// What the compiler has taken out of several functions, since it was the same in all.
const SHARED: &str = "(shared by functions)";

/// Smaller owners are shown together.
const ROW_BYTES_MIN: u64 = 128;

/// So many functions and variables of ours are named, and so much of each name is shown.
const NAMES_SHOWN_MAX: usize = 8;
const NAME_LETTERS_MAX: usize = 72;

/// What one owner costs, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cost {
    /// Code and constants, and what variables begin with.
    flash: u64,
    /// Variables, and code that runs from RAM.
    ram: u64,
}

/// Bytes by owner.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    costs: BTreeMap<String, Cost>,
    /// Bytes of code by the crate whose lines they are made from.
    lines: BTreeMap<String, u64>,
    /// Functions of ours with their size, and variables of anybody, in the order of the file.
    functions: Vec<(u64, String)>,
    variables: Vec<(u64, String)>,
}

/// Which of both a section is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    is_flash: bool,
    is_ram: bool,
}

impl Sizes {
    /// Reads a linked program for a 32-bit chip.
    pub(crate) fn of_elf(bytes: &[u8]) -> Result<Self, String> {
        let elf = ElfFile::<FileHeader32<LittleEndian>>::parse(bytes).map_err(|it| it.to_string());
        let elf = elf?;
        let mut sizes = Self::default();
        let (mut places, mut code) = (HashMap::new(), Vec::<Range<u64>>::new());
        for section in elf.sections() {
            let Some(place) = place(&section) else { continue };
            places.insert(section.index(), place);
            sizes.add(UNNAMED, place, section.size());
            if section.kind() == SectionKind::Text {
                code.push(section.address()..section.address() + section.size());
            }
        }
        let mut seen = HashSet::new();
        for symbol in elf.symbols() {
            let SymbolSection::Section(index) = symbol.section() else { continue };
            let Some(place) = places.get(&index) else { continue };
            // Two names for one function cost nothing more.
            if symbol.size() > 0 && seen.insert(symbol.address()) {
                let name = symbol.name().map_err(|error| error.to_string())?;
                sizes.take_symbol(name, *place, symbol.size());
            }
        }
        sizes.lines =
            lines::bytes_by_crate(&elf, &code).map_err(|error| format!("line tables: {error}"))?;
        Ok(sizes)
    }

    fn take_symbol(&mut self, symbol: &str, place: Place, bytes: u64) {
        let owner = owner(symbol);
        self.take_from_unnamed(&owner, place, bytes);
        let name = || {
            let name = format!("{:#}", rustc_demangle::demangle(symbol));
            name.chars().take(NAME_LETTERS_MAX).collect()
        };
        if place.is_flash && !place.is_ram && OURS.contains(&owner.as_str()) {
            self.functions.push((bytes, name()));
        }
        if place.is_ram && !place.is_flash {
            self.variables.push((bytes, name()));
        }
    }

    fn add(&mut self, owner: &str, place: Place, bytes: u64) {
        let cost = self.costs.entry(owner.into()).or_default();
        cost.flash += if place.is_flash { bytes } else { 0 };
        cost.ram += if place.is_ram { bytes } else { 0 };
    }

    fn take_from_unnamed(&mut self, owner: &str, place: Place, bytes: u64) {
        let unnamed = self.costs.entry(UNNAMED.into()).or_default();
        let flash = if place.is_flash { bytes.min(unnamed.flash) } else { 0 };
        let ram = if place.is_ram { bytes.min(unnamed.ram) } else { 0 };
        unnamed.flash -= flash;
        unnamed.ram -= ram;
        let cost = self.costs.entry(owner.into()).or_default();
        cost.flash += flash;
        cost.ram += ram;
    }

    /// Code, constants, and what variables begin with, in bytes.
    pub(crate) fn flash_bytes(&self) -> u64 {
        self.costs.values().map(|cost| cost.flash).sum()
    }

    /// Variables and code that runs from RAM, in bytes.
    pub(crate) fn ram_bytes(&self) -> u64 {
        self.costs.values().map(|cost| cost.ram).sum()
    }

    fn row(&self, f: &mut fmt::Formatter<'_>, name: &str, owners: &[&str]) -> fmt::Result {
        let cost = |owner: &&str| self.costs.get(*owner).copied().unwrap_or_default();
        let flash: u64 = owners.iter().map(|owner| cost(owner).flash).sum();
        let ram: u64 = owners.iter().map(|owner| cost(owner).ram).sum();
        let written: u64 = owners.iter().filter_map(|owner| self.lines.get(*owner)).sum();
        write!(f, "  {name:24} {flash:8}")?;
        if !self.lines.is_empty() {
            write!(f, " {written:8}")?;
        }
        writeln!(f, " {ram:8}")
    }
}

/// A table: our crates first, then the others by size; then what is worth making smaller.
impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_lines = if self.lines.is_empty() { "" } else { "    lines" };
        writeln!(f, "  {:24}    flash{by_lines}      RAM   in bytes", "")?;
        for name in OURS {
            if self.costs.contains_key(*name) || self.lines.contains_key(*name) {
                self.row(f, name, &[name])?;
            }
        }
        let all: BTreeSet<&str> =
            self.costs.keys().chain(self.lines.keys()).map(String::as_str).collect();
        let size = |name: &str| {
            let cost = self.costs.get(name).copied().unwrap_or_default();
            let lines = self.lines.get(name).copied().unwrap_or_default();
            cost.flash.max(cost.ram).max(lines)
        };
        let mut others: Vec<&str> = all.into_iter().filter(|name| !OURS.contains(name)).collect();
        others.sort_by_key(|name| (std::cmp::Reverse(size(name)), *name));
        let first_small = others.partition_point(|name| size(name) >= ROW_BYTES_MIN);
        let (large, small) = others.split_at(first_small);
        for name in large {
            self.row(f, name, &[name])?;
        }
        self.row(f, "(smaller ones)", small)?;
        let everybody: BTreeSet<&str> =
            self.costs.keys().chain(self.lines.keys()).map(String::as_str).collect();
        self.row(f, "total", &everybody.into_iter().collect::<Vec<_>>())?;
        largest(f, "largest functions of ours, with what was put into them", &self.functions)?;
        largest(f, "largest variables", &self.variables)
    }
}

fn largest(f: &mut fmt::Formatter<'_>, title: &str, all: &[(u64, String)]) -> fmt::Result {
    let mut sorted: Vec<_> = all.iter().collect();
    sorted.sort_by_key(|&(bytes, name)| (std::cmp::Reverse(bytes), name));
    if !sorted.is_empty() {
        writeln!(f, "{title}:")?;
    }
    for (bytes, name) in sorted.iter().take(NAMES_SHOWN_MAX) {
        writeln!(f, "  {bytes:8} {name}")?;
    }
    Ok(())
}

/// Where a section ends up; `None`: on no chip, or it only keeps addresses free.
fn place<'data>(section: &impl ObjectSection<'data>) -> Option<Place> {
    let name = section.name().unwrap_or_default();
    if is_unwinding(section) || name.ends_with("_dummy") || name == ".stack" {
        return None;
    }
    // esp-hal's names of code that runs from RAM, and is kept in flash until then.
    let is_copied = name.starts_with(".rwtext") || name.starts_with(".trap");
    match section.kind() {
        SectionKind::Text if is_copied => Some(Place { is_flash: true, is_ram: true }),
        SectionKind::Text | SectionKind::ReadOnlyData | SectionKind::ReadOnlyString => {
            Some(Place { is_flash: true, is_ram: false })
        }
        // What a variable begins with is kept in flash.
        SectionKind::Data => Some(Place { is_flash: true, is_ram: true }),
        SectionKind::UninitializedData => Some(Place { is_flash: false, is_ram: true }),
        // Notes, symbols and debugging information never reach a chip.
        _ => None,
    }
}

/// Tables for unwinding are not linked into firmware that aborts on panic.
fn is_unwinding<'data>(section: &impl ObjectSection<'data>) -> bool {
    section.name().is_ok_and(|name| name.starts_with(".eh_frame"))
}

/// The crate that a symbol counts for.
fn owner(symbol: &str) -> String {
    let Ok(demangled) = rustc_demangle::try_demangle(symbol) else {
        return match symbol {
            _ if symbol.starts_with(".L") => UNNAMED,
            _ if symbol.starts_with("OUTLINED_FUNCTION_") => SHARED,
            _ => COMPILER,
        }
        .into();
    };
    let name = format!("{demangled:#}");
    let paths: Vec<&str> = name.split(|letter: char| !is_path_letter(letter)).collect();
    let of_program = paths.iter().find_map(|path| path.strip_prefix(PROGRAM)?.strip_prefix("::"));
    if let Some(core) = of_program.and_then(|path| path.split("::").next()) {
        let entered = format!("lockstep_{core}");
        return if OURS.contains(&entered.as_str()) { entered } else { PROGRAM.into() };
    }
    let crates = || paths.iter().filter_map(|path| path.split_once("::")).map(|(first, _)| first);
    crates()
        .find(|name| OURS.contains(name))
        .or_else(|| crates().find(|name| !name.is_empty()))
        .unwrap_or(COMPILER)
        .into()
}

fn is_path_letter(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_' || letter == ':'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Symbols as rustc writes them, with the crate that they must count for.
    const SYMBOLS: &[(&str, &str)] = &[
        // lockstep_proto::verify
        ("_RNvCs1234_14lockstep_proto6verify", "lockstep_proto"),
        // <sha2::Sha256>::update::<lockstep_agent::Slot>
        ("_RINvMCs1_4sha2NtB2_6Sha2566updateNtCs2_14lockstep_agent4SlotE", "lockstep_agent"),
        // core::fmt::write
        ("_RNvNtCs9_4core3fmt5write", "core"),
        // cores_size::rollout::step
        ("_RNvNtCs5_10cores_size7rollout4step", "lockstep_rollout"),
        // cores_size::main::start
        ("_RNvNtCs5_10cores_size4main5start", "cores_size"),
        ("memcpy", "compiler_builtins"),
        (".Lanon.68e001686ba50c2f5f4f0f1dbbfd83ad.51", "(unnamed constants)"),
        ("OUTLINED_FUNCTION_12", "(shared by functions)"),
    ];

    #[test]
    fn a_symbol_counts_for_the_crate_it_is_about() {
        for (symbol, expected) in SYMBOLS {
            assert_eq!(owner(symbol), *expected, "{:#}", rustc_demangle::demangle(symbol));
        }
    }

    const FLASH: Place = Place { is_flash: true, is_ram: false };
    const RAM: Place = Place { is_flash: false, is_ram: true };

    #[test]
    fn what_has_no_name_is_still_counted() {
        let mut sizes = Sizes::default();
        sizes.add(UNNAMED, FLASH, 1000);
        sizes.take_from_unnamed("lockstep_proto", FLASH, 600);
        assert_eq!((sizes.costs[UNNAMED].flash, sizes.flash_bytes()), (400, 1000));
    }

    #[test]
    fn symbols_that_overlap_never_add_up_to_more_than_the_file() {
        let mut sizes = Sizes::default();
        sizes.add(UNNAMED, FLASH, 10);
        sizes.take_from_unnamed("core", FLASH, 8);
        sizes.take_from_unnamed("alloc", FLASH, 8);
        assert_eq!((sizes.costs["alloc"].flash, sizes.flash_bytes()), (2, 10));
    }

    #[test]
    fn a_variable_with_a_first_value_costs_both() {
        let mut sizes = Sizes::default();
        sizes.add(UNNAMED, Place { is_flash: true, is_ram: true }, 12);
        sizes.add(UNNAMED, RAM, 100);
        assert_eq!((sizes.flash_bytes(), sizes.ram_bytes()), (12, 112));
    }

    #[test]
    fn small_owners_share_a_row() {
        let mut sizes = Sizes::default();
        for (name, bytes) in [("heapless", 60), ("hmac", 70), ("sha2", 4000)] {
            sizes.add(name, FLASH, bytes);
        }
        let table = sizes.to_string();
        assert!(table.contains("sha2") && !table.contains("hmac"), "{table}");
        assert!(table.contains("(smaller ones)                130        0"), "{table}");
    }

    #[test]
    fn the_largest_functions_of_ours_come_first_and_those_of_others_not_at_all() {
        let mut sizes = Sizes::default();
        sizes.add(UNNAMED, FLASH, 1000);
        sizes.take_symbol("_RNvCs1234_14lockstep_proto6verify", FLASH, 10);
        sizes.take_symbol("_RNvCs1234_14lockstep_proto4read", FLASH, 20);
        sizes.take_symbol("_RNvNtCs9_4core3fmt5write", FLASH, 30);
        let table = sizes.to_string();
        let (_, functions) = table.split_once("put into them:\n").expect("a list");
        let names: Vec<&str> = functions.split_whitespace().collect();
        assert_eq!(names, ["20", "lockstep_proto::read", "10", "lockstep_proto::verify"]);
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(Sizes::of_elf(b"\x7fELF, or not").is_err());
    }
}
