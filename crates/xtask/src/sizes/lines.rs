//! Whose lines the code of a program was made from, by its DWARF line tables.
//!
//! What the compiler has put into the function of another crate still counts for the crate that it
//! was written in, which the names of symbols cannot tell.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use gimli::{DwarfSections, EndianSlice, LineProgramHeader, LineRow, LittleEndian, SectionId};
use object::{Object, ObjectSection};

type Slice<'data> = EndianSlice<'data, LittleEndian>;

/// Where the path of a source tells nothing.
const ELSEWHERE: &str = "(elsewhere)";

/// Bytes of code by the crate whose lines they are made from; empty without line tables.
pub(super) fn bytes_by_crate<'data>(
    elf: &impl Object<'data>,
    code: &[Range<u64>],
) -> Result<BTreeMap<String, u64>, gimli::Error> {
    let load = |id: SectionId| -> Result<&[u8], gimli::Error> {
        let section = elf.section_by_name(id.name());
        Ok(section.and_then(|section| section.data().ok()).unwrap_or_default())
    };
    let sections = DwarfSections::load(load)?;
    let dwarf = sections.borrow(|bytes| EndianSlice::new(bytes, LittleEndian));
    let mut bytes = BTreeMap::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next()? {
        let unit = dwarf.unit(header)?;
        let Some(program) = unit.line_program.clone() else { continue };
        let folder = unit.comp_dir.map(|folder| folder.to_string_lossy().into_owned());
        let mut owners: HashMap<u64, String> = HashMap::new();
        let (mut rows, mut before) = (program.rows(), None::<(u64, u64)>);
        while let Some((header, row)) = rows.next_row()? {
            if let Some((at, file)) = before.filter(|(at, _)| code.iter().any(|it| it.contains(at)))
                && let Some(owner) = owners.get(&file)
            {
                *bytes.entry(owner.clone()).or_default() += row.address().saturating_sub(at);
            }
            before = (!row.end_sequence()).then(|| (row.address(), row.file_index()));
            owners.entry(row.file_index()).or_insert_with(|| {
                let path = path_of(&dwarf, &unit, header, row).unwrap_or_default();
                let whole = format!("{}/{path}", folder.as_deref().unwrap_or_default());
                owner(if path.starts_with('/') { &path } else { &whole })
            });
        }
    }
    Ok(bytes)
}

fn path_of<'data>(
    dwarf: &gimli::Dwarf<Slice<'data>>,
    unit: &gimli::Unit<Slice<'data>>,
    header: &LineProgramHeader<Slice<'data>>,
    row: &LineRow,
) -> Option<String> {
    let file = row.file(header)?;
    let text = |value| Some(dwarf.attr_string(unit, value).ok()?.to_string_lossy().into_owned());
    let name = text(file.path_name())?;
    match file.directory(header).and_then(text) {
        Some(folder) if !name.starts_with('/') => Some(format!("{folder}/{name}")),
        _ => Some(name),
    }
}

/// The crate that a source belongs to, as symbols would call it.
fn owner(path: &str) -> String {
    let names: Vec<&str> = path.split('/').collect();
    let behind = |folder: &str, by: usize| {
        let at = names.iter().rposition(|name| *name == folder)?;
        names.get(at + by).map(|name| name.replace('-', "_"))
    };
    if let Some(package) = path.contains("/registry/src/").then(|| behind("registry", 3)).flatten()
    {
        return without_version(&package).to_owned();
    }
    let ours = || behind("crates", 1).map(|name| format!("lockstep_{name}"));
    let firmware = || names.contains(&"firmware").then(|| "lockstep_firmware".to_owned());
    behind("library", 1).or_else(ours).or_else(firmware).unwrap_or_else(|| ELSEWHERE.into())
}

/// `NAME_1.2.3_beta.1` is `NAME`.
fn without_version(package: &str) -> &str {
    let is_version = |at: &usize| package[at + 1..].starts_with(|it: char| it.is_ascii_digit());
    let at = package.match_indices('_').map(|(at, _)| at).find(is_version);
    at.map_or(package, |at| &package[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_belongs_to_the_crate_whose_folder_it_lies_in() {
        let registry = "/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f";
        for (path, expected) in [
            (format!("{registry}/sha2-0.11.0/src/sha256.rs"), "sha2"),
            (format!("{registry}/curve25519-dalek-5.0.0/src/edwards.rs"), "curve25519_dalek"),
            (format!("{registry}/esp-radio-1.0.0-beta.1/src/lib.rs"), "esp_radio"),
            ("/usr/lib/rustlib/src/rust/library/core/src/fmt/mod.rs".into(), "core"),
            ("/home/a/lockstep/crates/agent/src/boot.rs".into(), "lockstep_agent"),
            ("/home/a/lockstep/firmware/src/start.rs".into(), "lockstep_firmware"),
            ("/somewhere/else.rs".into(), "(elsewhere)"),
        ] {
            assert_eq!(owner(&path), expected, "{path}");
        }
    }
}
