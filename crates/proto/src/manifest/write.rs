//! From a [`Manifest`] to the text of `manifest.json`, for the host that makes a release.
//!
//! Indented by two blanks, fields in the order of the original plan with ours behind or beside
//! them; the same manifest always gives the same bytes. What reads it back is `read`.

use core::fmt::{self, Formatter, Write as _};

use super::{DeviceEntry, KeySet, Manifest, SECURE_BOOT, Text, UpdateInstructions};
use crate::image::{ChipId, Guard};

pub(super) struct Json<'m, 'a>(pub(super) &'m Manifest<'a>);

impl fmt::Display for Json<'_, '_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let manifest = self.0;
        let mut object = Object::open(f, 0)?;
        // The original plan knows none of these; without them, its manifests stay as they were.
        if manifest.schema != 0 {
            object.number("schema", manifest.schema)?;
        }
        object.optional("system", manifest.system.as_ref().map(Quoted))?;
        object.member("system_version", Shown(manifest.system_version))?;
        if manifest.schema != 0 || manifest.sequence != 0 {
            object.number("sequence", manifest.sequence)?;
        }
        if manifest.schema != 0 || manifest.epoch != 0 {
            object.number("epoch", manifest.epoch)?;
        }
        object.member("release_date", Quoted(&manifest.release_date))?;
        object.member("min_compatible_version", Shown(manifest.min_compatible_version))?;
        object.member("description", Quoted(&manifest.description))?;

        let mut devices = object.object("devices")?;
        for entry in &manifest.devices {
            device(devices.object(entry.role)?, entry)?;
        }
        devices.close()?;
        update_instructions(object.object("update_instructions")?, &manifest.update_instructions)?;
        if let Some(rollback) = &manifest.rollback {
            let mut inner = object.object("rollback")?;
            inner.member("previous_version", Shown(rollback.previous_version))?;
            for (role, url) in &rollback.urls {
                inner.member(format_args!("{role}_url"), Quoted(url))?;
            }
            inner.close()?;
        }
        if let Some(keys) = &manifest.keys {
            key_set(object.object("keys")?, keys)?;
        }
        object.close()?;
        f.write_char('\n')
    }
}

fn device(mut object: Object<'_, '_>, entry: &DeviceEntry<'_>) -> fmt::Result {
    object.member("version", Shown(entry.version))?;
    object.number("version_number", entry.version.number())?;
    object.member("device_type", Quoted(&entry.device_type))?;
    object.member("hardware", Quoted(&entry.hardware))?;
    object.member("firmware_url", Quoted(&entry.firmware_url))?;
    object.number("firmware_size", entry.firmware_size)?;
    object.member("md5_checksum", Quoted(&entry.md5_checksum))?;
    object.number("protocol_version", u32::from(entry.protocol_version))?;
    if let Some(range) = entry.protocol_range {
        object.member("protocol_range", format_args!("[{}, {}]", range.min(), range.max()))?;
    }
    object.optional("sha256", entry.sha256.map(Shown))?;
    object.optional("image_sha256", entry.image_sha256.map(Shown))?;
    object.optional("generations_sha256", entry.generations_sha256.map(Shown))?;
    object.optional("elf_sha256", entry.elf_sha256.map(Shown))?;
    object.optional("chip", entry.chip.and_then(ChipId::name).map(Shown))?;
    object.optional("board", entry.board.as_ref().map(Quoted))?;
    object.optional("min_compatible", entry.min_compatible.map(Shown))?;
    object.number("config_schema", entry.config_schema)?;
    object.member("effect", Shown(entry.effect.name()))?;
    let Guard { secure_version, is_signed } = entry.guard;
    object.optional("secure_version", (secure_version != 0).then_some(secure_version))?;
    object.optional("secure_boot", is_signed.then_some(Shown(SECURE_BOOT)))?;
    object.member("patches", "[]")?;
    object.close()
}

fn update_instructions(mut object: Object<'_, '_>, how: &UpdateInstructions<'_>) -> fmt::Result {
    object.member("order", List(&how.order))?;
    object.number("reboot_delay_seconds", how.reboot_delay_seconds)?;
    object.number("health_check_timeout_seconds", how.health_check_timeout_seconds)?;
    object.close()
}

fn key_set(mut object: Object<'_, '_>, keys: &KeySet) -> fmt::Result {
    object.number("threshold", u32::from(keys.threshold()))?;
    object.member("keys", List(keys.keys()))?;
    object.close()
}

/// An object that is being written.
struct Object<'o, 'f> {
    f: &'o mut Formatter<'f>,
    depth: usize,
    is_empty: bool,
}

impl<'o, 'f> Object<'o, 'f> {
    fn open(f: &'o mut Formatter<'f>, depth: usize) -> Result<Self, fmt::Error> {
        f.write_char('{')?;
        Ok(Self { f, depth, is_empty: true })
    }

    /// Names of members are ours, or roles: nothing in them needs an escape.
    fn key(&mut self, key: impl fmt::Display) -> fmt::Result {
        if !self.is_empty {
            self.f.write_char(',')?;
        }
        self.is_empty = false;
        self.new_line(self.depth + 1)?;
        write!(self.f, "\"{key}\": ")
    }

    fn member(&mut self, key: impl fmt::Display, value: impl fmt::Display) -> fmt::Result {
        self.key(key)?;
        write!(self.f, "{value}")
    }

    fn optional(&mut self, key: &str, value: Option<impl fmt::Display>) -> fmt::Result {
        value.map_or(Ok(()), |value| self.member(key, value))
    }

    fn number(&mut self, key: &str, value: u32) -> fmt::Result {
        self.member(key, value)
    }

    fn object(&mut self, key: &str) -> Result<Object<'_, 'f>, fmt::Error> {
        self.key(key)?;
        Object::open(self.f, self.depth + 1)
    }

    fn close(mut self) -> fmt::Result {
        if !self.is_empty {
            self.new_line(self.depth)?;
        }
        self.f.write_char('}')
    }

    fn new_line(&mut self, depth: usize) -> fmt::Result {
        self.f.write_char('\n')?;
        (0..depth).try_for_each(|_| self.f.write_str("  "))
    }
}

/// A text of the manifest as a JSON string.
struct Quoted<'t, 'a>(&'t Text<'a>);

impl fmt::Display for Quoted<'_, '_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for letter in self.0.chars() {
            match letter {
                '"' | '\\' => write!(f, "\\{letter}")?,
                '\n' => f.write_str("\\n")?,
                '\0'..='\u{1f}' => write!(f, "\\u{:04x}", u32::from(letter))?,
                _ => f.write_char(letter)?,
            }
        }
        f.write_char('"')
    }
}

/// A value whose own text needs no escape, as a JSON string.
struct Shown<T>(T);

impl<T: fmt::Display> fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// Values whose own text needs no escape, as a list of JSON strings.
struct List<'l, T>(&'l [T]);

impl<T: fmt::Display> fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('[')?;
        for (index, value) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}\"{value}\"")?;
        }
        f.write_char(']')
    }
}
