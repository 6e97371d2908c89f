//! What a linked program costs, by crate: bytes of code and constants, read off its symbols.
//!
//! Every byte of code and constants in the file is counted once. A function belongs to the first
//! crate of ours that its name mentions, so that generic code of others, filled in with our types,
//! is ours; an entry point of the measuring program belongs to the core it enters, since the
//! compiler puts into it what is called from nowhere else.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use object::elf::FileHeader32;
use object::read::elf::ElfFile;
use object::{LittleEndian, Object, ObjectSection, ObjectSymbol, SectionKind};

/// The measuring program's own crate.
const PROGRAM: &str = "cores_size";
const OURS: &[&str] = &["lockstep_proto", "lockstep_agent", "lockstep_rollout"];

/// Where bytes without a name go: string and table constants that the linker has merged.
const UNNAMED: &str = "(unnamed constants)";
const COMPILER: &str = "compiler_builtins";

/// Smaller owners are shown together.
const ROW_BYTES_MIN: u64 = 128;

/// So many functions of ours are named, and so much of each name is shown.
const FUNCTIONS_SHOWN_MAX: usize = 8;
const NAME_LETTERS_MAX: usize = 72;

/// Bytes by owner.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    flash: BTreeMap<String, u64>,
    /// Initialized and zeroed variables.
    ram: u64,
    /// Functions of ours with their size, in the order of the file.
    functions: Vec<(u64, String)>,
}

impl Sizes {
    /// Reads a linked program for a 32-bit chip.
    pub(crate) fn of_elf(bytes: &[u8]) -> object::Result<Self> {
        let elf = ElfFile::<FileHeader32<LittleEndian>>::parse(bytes)?;
        let mut sizes = Self::default();
        let mut in_flash = HashSet::new();
        for section in elf.sections().filter(|section| !is_unwinding(section)) {
            let (is_flash, is_ram) = match section.kind() {
                SectionKind::Text | SectionKind::ReadOnlyData | SectionKind::ReadOnlyString => {
                    (true, false)
                }
                // What a variable starts with is kept in flash.
                SectionKind::Data => (true, true),
                SectionKind::UninitializedData => (false, true),
                // Notes, symbols and debugging information never reach a chip.
                _ => (false, false),
            };
            if is_flash {
                in_flash.insert(section.index());
                sizes.add(UNNAMED, section.size());
            }
            if is_ram {
                sizes.ram += section.size();
            }
        }
        let mut seen = HashSet::new();
        for symbol in elf.symbols() {
            let is_counted = symbol.section_index().is_some_and(|index| in_flash.contains(&index));
            // Two names for one function cost nothing more.
            if is_counted && symbol.size() > 0 && seen.insert(symbol.address()) {
                sizes.take_symbol(symbol.name()?, symbol.size());
            }
        }
        Ok(sizes)
    }

    fn take_symbol(&mut self, symbol: &str, bytes: u64) {
        let owner = owner(symbol);
        self.take_from_unnamed(&owner, bytes);
        if OURS.contains(&owner.as_str()) {
            let name = format!("{:#}", rustc_demangle::demangle(symbol));
            self.functions.push((bytes, name.chars().take(NAME_LETTERS_MAX).collect()));
        }
    }

    fn add(&mut self, owner: &str, bytes: u64) {
        *self.flash.entry(owner.into()).or_default() += bytes;
    }

    fn take_from_unnamed(&mut self, owner: &str, bytes: u64) {
        let unnamed = self.flash.entry(UNNAMED.into()).or_default();
        let bytes = bytes.min(*unnamed);
        *unnamed -= bytes;
        self.add(owner, bytes);
    }

    fn total(&self) -> u64 {
        self.flash.values().sum()
    }
}

/// A table: our crates first, then the others by size; then what is worth making smaller.
impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, bytes: u64| {
            writeln!(f, "  {name:24} {bytes:8} bytes")
        };
        for name in OURS {
            row(f, name, self.flash.get(*name).copied().unwrap_or_default())?;
        }
        let is_ours = |name: &str| OURS.contains(&name);
        let mut others: Vec<_> = self.flash.iter().filter(|(name, _)| !is_ours(name)).collect();
        others.sort_by_key(|&(name, bytes)| (std::cmp::Reverse(bytes), name));
        let small = others.iter().filter(|(_, bytes)| **bytes < ROW_BYTES_MIN);
        let small: u64 = small.map(|(_, bytes)| **bytes).sum();
        for (name, bytes) in others.iter().filter(|(_, bytes)| **bytes >= ROW_BYTES_MIN) {
            row(f, name, **bytes)?;
        }
        row(f, "(smaller ones)", small)?;
        row(f, "flash, total", self.total())?;
        row(f, "static RAM", self.ram)?;
        let mut largest: Vec<_> = self.functions.iter().collect();
        largest.sort_by_key(|&(bytes, name)| (std::cmp::Reverse(bytes), name));
        writeln!(f, "largest functions of ours, with what was inlined into them:")?;
        for (bytes, name) in largest.iter().take(FUNCTIONS_SHOWN_MAX) {
            writeln!(f, "  {bytes:8} {name}")?;
        }
        Ok(())
    }
}

/// Tables for unwinding are not linked into firmware that aborts on panic.
fn is_unwinding<'data>(section: &impl ObjectSection<'data>) -> bool {
    section.name().is_ok_and(|name| name.starts_with(".eh_frame"))
}

/// The crate that a symbol counts for.
fn owner(symbol: &str) -> String {
    let Ok(demangled) = rustc_demangle::try_demangle(symbol) else {
        let is_numbered = symbol.starts_with(".L");
        return if is_numbered { UNNAMED } else { COMPILER }.into();
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
    ];

    #[test]
    fn a_symbol_counts_for_the_crate_it_is_about() {
        for (symbol, expected) in SYMBOLS {
            assert_eq!(owner(symbol), *expected, "{:#}", rustc_demangle::demangle(symbol));
        }
    }

    #[test]
    fn what_has_no_name_is_still_counted() {
        let mut sizes = Sizes::default();
        sizes.add(UNNAMED, 1000);
        sizes.take_from_unnamed("lockstep_proto", 600);
        assert_eq!((sizes.flash[UNNAMED], sizes.total()), (400, 1000));
    }

    #[test]
    fn symbols_that_overlap_never_add_up_to_more_than_the_file() {
        let mut sizes = Sizes::default();
        sizes.add(UNNAMED, 10);
        sizes.take_from_unnamed("core", 8);
        sizes.take_from_unnamed("alloc", 8);
        assert_eq!((sizes.flash["alloc"], sizes.total()), (2, 10));
    }

    #[test]
    fn small_owners_share_a_row() {
        let mut sizes = Sizes::default();
        for (name, bytes) in [("heapless", 60), ("hmac", 70), ("sha2", 4000)] {
            sizes.add(name, bytes);
        }
        let table = sizes.to_string();
        assert!(table.contains("sha2") && !table.contains("hmac"), "{table}");
        assert!(table.contains("(smaller ones)                130 bytes"), "{table}");
    }

    #[test]
    fn the_largest_functions_of_ours_come_first_and_those_of_others_not_at_all() {
        let mut sizes = Sizes::default();
        sizes.add(UNNAMED, 1000);
        sizes.take_symbol("_RNvCs1234_14lockstep_proto6verify", 10);
        sizes.take_symbol("_RNvCs1234_14lockstep_proto4read", 20);
        sizes.take_symbol("_RNvNtCs9_4core3fmt5write", 30);
        let table = sizes.to_string();
        let (_, functions) = table.split_once("inlined into them:\n").expect("a list");
        let names: Vec<&str> = functions.split_whitespace().collect();
        assert_eq!(names, ["20", "lockstep_proto::read", "10", "lockstep_proto::verify"]);
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(Sizes::of_elf(b"\x7fELF, or not").is_err());
    }
}
