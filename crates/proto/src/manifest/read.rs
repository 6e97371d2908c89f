//! From the bytes of `manifest.json` to a [`Manifest`]: every check that the bytes alone allow.
//!
//! Called by `trust::verify` only, after the signatures. A known field stands once, `null` means
//! that it is missing, and an unknown one is passed over.

use super::error::ROLE_EXPECTED;
use super::generations::GENERATIONS_EXPECTED;
use super::json::Reader;
use super::{
    DESCRIPTION_BYTES_MAX, DeviceEntry, Effect, Excerpt, FIRMWARE_SIZE_BYTES_MAX, Field,
    GenerationHashes, KeySet, MANIFEST_SIZE_BYTES_MAX, Manifest, ManifestError, NAME_BYTES_MAX,
    ROLES_MAX, Rollback, SCHEMA_NEWEST, SECONDS_MAX, SECURE_BOOT, Text, URL_BYTES_MAX,
    UpdateInstructions, generations_of, is_role,
};
use crate::id::{ImageHash, Sha256};
use crate::image::{ChipId, Guard};
use crate::signature::PublicKey;
use crate::version::{ProtocolRange, ReleaseVersion};

pub(super) fn manifest(bytes: &[u8]) -> Result<Manifest<'_>, ManifestError> {
    if bytes.len() > MANIFEST_SIZE_BYTES_MAX {
        return Err(ManifestError::TooLarge { size: bytes.len() });
    }
    let mut reader = Reader::new(bytes)?;
    let mut draft = Draft::default();
    reader.object(|reader, key| draft.member(reader, key))?;
    reader.end()?;
    draft.finish()
}

#[derive(Default)]
struct Draft<'a> {
    schema: Option<u32>,
    system: Option<Text<'a>>,
    system_version: Option<ReleaseVersion>,
    sequence: Option<u32>,
    epoch: Option<u32>,
    release_date: Option<Text<'a>>,
    min_compatible_version: Option<ReleaseVersion>,
    description: Option<Text<'a>>,
    devices: Option<heapless::Vec<DeviceEntry<'a>, ROLES_MAX>>,
    update_instructions: Option<UpdateInstructions<'a>>,
    rollback: Option<Rollback<'a>>,
    keys: Option<KeySet>,
}

impl<'a> Draft<'a> {
    fn member(&mut self, reader: &mut Reader<'a>, key: &'a str) -> Result<(), ManifestError> {
        let field = Field::top;
        match key {
            "schema" => once(reader, &mut self.schema, field("schema"), schema),
            "system" => once(reader, &mut self.system, field("system"), name),
            "system_version" => {
                once(reader, &mut self.system_version, field("system_version"), version)
            }
            "sequence" => once(reader, &mut self.sequence, field("sequence"), any_u32),
            "epoch" => once(reader, &mut self.epoch, field("epoch"), any_u32),
            "release_date" => once(reader, &mut self.release_date, field("release_date"), name),
            "min_compatible_version" => {
                let field = field("min_compatible_version");
                once(reader, &mut self.min_compatible_version, field, version_or_number)
            }
            "description" => {
                once(reader, &mut self.description, field("description"), |reader, field| {
                    text(reader, field, DESCRIPTION_BYTES_MAX)
                })
            }
            "devices" => once(reader, &mut self.devices, field("devices"), devices),
            "update_instructions" => {
                let field = field("update_instructions");
                once(reader, &mut self.update_instructions, field, update_instructions)
            }
            "rollback" => once(reader, &mut self.rollback, field("rollback"), rollback),
            "keys" => once(reader, &mut self.keys, field("keys"), keys),
            _ => Ok(reader.skip()?),
        }
    }

    fn finish(self) -> Result<Manifest<'a>, ManifestError> {
        let missing = |name| ManifestError::Missing { field: Field::top(name) };
        let manifest = Manifest {
            schema: self.schema.unwrap_or(0),
            system: self.system,
            system_version: self.system_version.ok_or_else(|| missing("system_version"))?,
            sequence: self.sequence.unwrap_or(0),
            epoch: self.epoch.unwrap_or(0),
            release_date: self.release_date.unwrap_or_default(),
            min_compatible_version: self
                .min_compatible_version
                .unwrap_or(ReleaseVersion::from_number(0)),
            description: self.description.unwrap_or_default(),
            devices: self.devices.ok_or_else(|| missing("devices"))?,
            update_instructions: self.update_instructions.unwrap_or_default(),
            rollback: self.rollback,
            keys: self.keys,
        };
        check_order(&manifest)?;
        Ok(manifest)
    }
}

/// An order that leaves roles out would leave it to chance when they reboot.
fn check_order(manifest: &Manifest<'_>) -> Result<(), ManifestError> {
    let order = manifest.order();
    if let Some(unknown) = order.iter().find(|role| manifest.entry(role).is_none()) {
        return Err(ManifestError::UnknownRole { found: Excerpt::new(unknown) });
    }
    match manifest.roles().find(|role| !order.contains(role)) {
        Some(missing) if !order.is_empty() => Err(ManifestError::OrderIncomplete {
            found: order.len(),
            expected: manifest.devices.len(),
            missing: Excerpt::new(missing),
        }),
        _ => Ok(()),
    }
}

fn devices<'a>(
    reader: &mut Reader<'a>,
    field: &Field,
) -> Result<heapless::Vec<DeviceEntry<'a>, ROLES_MAX>, ManifestError> {
    let mut devices = heapless::Vec::new();
    reader.object(|reader, role| {
        if !is_role(role) {
            let (field, found) = (field.clone(), Excerpt::new(role));
            return Err(ManifestError::BadText { field, found, expected: ROLE_EXPECTED });
        }
        if devices.iter().any(|entry: &DeviceEntry<'_>| entry.role == role) {
            return Err(ManifestError::Twice { field: Field::role(role) });
        }
        let mut draft = DeviceDraft::default();
        reader
            .object(|reader, key| draft.member(reader, role, key))
            .map_err(|error: ManifestError| error.in_field(&Field::role(role)))?;
        devices
            .push(draft.finish(role)?)
            .map_err(|_| ManifestError::TooMany { field: field.clone(), max: ROLES_MAX })
    })?;
    if devices.is_empty() { Err(ManifestError::NoDevices) } else { Ok(devices) }
}

#[derive(Default)]
struct DeviceDraft<'a> {
    version: Option<ReleaseVersion>,
    version_number: Option<u64>,
    device_type: Option<Text<'a>>,
    hardware: Option<Text<'a>>,
    firmware_url: Option<Text<'a>>,
    firmware_size: Option<u32>,
    md5_checksum: Option<Text<'a>>,
    protocol_version: Option<u8>,
    protocol_range: Option<ProtocolRange>,
    sha256: Option<Sha256>,
    image_sha256: Option<ImageHash>,
    generations: Option<GenerationHashes<'a>>,
    elf_sha256: Option<Sha256>,
    chip: Option<ChipId>,
    board: Option<Text<'a>>,
    min_compatible: Option<ReleaseVersion>,
    config_schema: Option<u32>,
    effect: Option<Effect>,
    secure_version: Option<u32>,
    secure_boot: Option<()>,
    patches: Option<()>,
}

impl<'a> DeviceDraft<'a> {
    fn member(
        &mut self,
        reader: &mut Reader<'a>,
        role: &str,
        key: &str,
    ) -> Result<(), ManifestError> {
        let field = |name| Field::of(role, name);
        match key {
            "version" => once(reader, &mut self.version, field("version"), version),
            "version_number" => {
                let field = field("version_number");
                once(reader, &mut self.version_number, field, |reader, _| Ok(reader.number()?))
            }
            "device_type" => once(reader, &mut self.device_type, field("device_type"), name),
            "hardware" => once(reader, &mut self.hardware, field("hardware"), hardware),
            "firmware_url" => once(reader, &mut self.firmware_url, field("firmware_url"), url),
            "firmware_size" => once(reader, &mut self.firmware_size, field("firmware_size"), size),
            "md5_checksum" => once(reader, &mut self.md5_checksum, field("md5_checksum"), hardware),
            "protocol_version" => {
                once(reader, &mut self.protocol_version, field("protocol_version"), protocol)
            }
            "protocol_range" => {
                once(reader, &mut self.protocol_range, field("protocol_range"), protocol_range)
            }
            "sha256" => once(reader, &mut self.sha256, field("sha256"), sha256),
            "image_sha256" => {
                once(reader, &mut self.image_sha256, field("image_sha256"), |r, f| {
                    Ok(ImageHash(sha256(r, f)?.0))
                })
            }
            "generations_sha256" => {
                once(reader, &mut self.generations, field("generations_sha256"), generations)
            }
            "elf_sha256" => once(reader, &mut self.elf_sha256, field("elf_sha256"), sha256),
            "chip" => once(reader, &mut self.chip, field("chip"), |reader, field| {
                word(reader, field, "a chip such as `esp32s3`", ChipId::from_name)
            }),
            "board" => once(reader, &mut self.board, field("board"), name),
            "min_compatible" => {
                once(reader, &mut self.min_compatible, field("min_compatible"), version_or_number)
            }
            "config_schema" => {
                once(reader, &mut self.config_schema, field("config_schema"), any_u32)
            }
            "effect" => once(reader, &mut self.effect, field("effect"), |reader, field| {
                let expected = "`none`, `link-interrupted`, `config-migration` or `not-reversible`";
                word(reader, field, expected, Effect::from_name)
            }),
            "secure_version" => {
                once(reader, &mut self.secure_version, field("secure_version"), any_u32)
            }
            "secure_boot" => {
                once(reader, &mut self.secure_boot, field("secure_boot"), |r, field| {
                    word(r, field, "`v2`", |name| (name == SECURE_BOOT).then_some(()))
                })
            }
            // Reserved: a reader without patches takes the whole artifact.
            "patches" => once(reader, &mut self.patches, field("patches"), |reader, _| {
                reader.array(|reader| Ok(reader.skip()?))
            }),
            _ => Ok(reader.skip()?),
        }
    }

    fn finish(self, role: &'a str) -> Result<DeviceEntry<'a>, ManifestError> {
        let missing = |name| ManifestError::Missing { field: Field::of(role, name) };
        let version = self.version.ok_or_else(|| missing("version"))?;
        if let Some(found) = self.version_number
            && found != u64::from(version.number())
        {
            let field = Field::of(role, "version_number");
            return Err(ManifestError::NumberMismatch { field, found, version });
        }
        let protocol = self.protocol_version.ok_or_else(|| missing("protocol_version"))?;
        if let Some(range) = self.protocol_range
            && !range.contains(protocol)
        {
            let field = Field::of(role, "protocol_version");
            return Err(ManifestError::ProtocolOutside { field, protocol, range });
        }
        let firmware_size = self.firmware_size.ok_or_else(|| missing("firmware_size"))?;
        check_generations(role, self.generations, firmware_size)?;
        Ok(DeviceEntry {
            role,
            version,
            device_type: self.device_type.unwrap_or_default(),
            hardware: self.hardware.unwrap_or_default(),
            firmware_url: self.firmware_url.unwrap_or_default(),
            firmware_size,
            md5_checksum: self.md5_checksum.unwrap_or_default(),
            protocol_version: protocol,
            protocol_range: self.protocol_range,
            sha256: self.sha256,
            image_sha256: self.image_sha256,
            generations_sha256: self.generations,
            elf_sha256: self.elf_sha256,
            chip: self.chip,
            board: self.board,
            min_compatible: self.min_compatible,
            config_schema: self.config_schema.unwrap_or(0),
            effect: self.effect.unwrap_or_default(),
            guard: Guard {
                secure_version: self.secure_version.unwrap_or_default(),
                is_signed: self.secure_boot.is_some(),
            },
        })
    }
}

/// A list that is shorter would leave the rest unjudged, and a longer one is of another artifact.
fn check_generations(
    role: &str,
    list: Option<GenerationHashes<'_>>,
    size_bytes: u32,
) -> Result<(), ManifestError> {
    let expected = generations_of(size_bytes);
    match list.map(|list| list.count()).filter(|&found| found != expected) {
        None => Ok(()),
        Some(found) => {
            let field = Field::of(role, "generations_sha256");
            Err(ManifestError::Generations { field, found, expected, size_bytes })
        }
    }
}

fn update_instructions<'a>(
    reader: &mut Reader<'a>,
    _: &Field,
) -> Result<UpdateInstructions<'a>, ManifestError> {
    let (mut roles, mut delay, mut timeout) = (None, None, None);
    reader.object(|reader, key| match key {
        "order" => once(reader, &mut roles, Field::top("update_instructions.order"), order),
        "reboot_delay_seconds" => {
            let field = Field::top("update_instructions.reboot_delay_seconds");
            once(reader, &mut delay, field, |reader, field| integer(reader, field, 0, SECONDS_MAX))
        }
        "health_check_timeout_seconds" => {
            let field = Field::top("update_instructions.health_check_timeout_seconds");
            once(reader, &mut timeout, field, |reader, field| {
                integer(reader, field, 1, SECONDS_MAX)
            })
        }
        _ => Ok::<(), ManifestError>(reader.skip()?),
    })?;
    let default = UpdateInstructions::default();
    Ok(UpdateInstructions {
        order: roles.unwrap_or_default(),
        reboot_delay_seconds: delay.unwrap_or(default.reboot_delay_seconds),
        health_check_timeout_seconds: timeout.unwrap_or(default.health_check_timeout_seconds),
    })
}

fn order<'a>(
    reader: &mut Reader<'a>,
    field: &Field,
) -> Result<heapless::Vec<&'a str, ROLES_MAX>, ManifestError> {
    let mut order = heapless::Vec::new();
    reader.array(|reader| {
        let text = reader.string()?;
        let role = text.as_plain().filter(|role| is_role(role)).ok_or_else(|| {
            let (field, found) = (field.clone(), Excerpt::of(text.chars()));
            ManifestError::BadText { field, found, expected: ROLE_EXPECTED }
        })?;
        if order.contains(&role) {
            let (field, found) = (field.clone(), Excerpt::new(role));
            return Err(ManifestError::BadText { field, found, expected: "each role once" });
        }
        order
            .push(role)
            .map_err(|_| ManifestError::TooMany { field: field.clone(), max: ROLES_MAX })
    })?;
    Ok(order)
}

fn rollback<'a>(reader: &mut Reader<'a>, field: &Field) -> Result<Rollback<'a>, ManifestError> {
    let mut previous_version = None;
    let mut urls = heapless::Vec::<(&str, Text<'_>), ROLES_MAX>::new();
    reader.object(|reader, key| {
        if key == "previous_version" {
            let field = Field::top("rollback.previous_version");
            return once(reader, &mut previous_version, field, version);
        }
        let Some(role) = key.strip_suffix("_url").filter(|role| is_role(role)) else {
            return Ok(reader.skip()?);
        };
        if urls.iter().any(|(known, _)| *known == role) {
            return Err(ManifestError::Twice { field: Field::top("rollback.*_url") });
        }
        if reader.take_null() {
            return Ok(());
        }
        let url = url(reader, &Field::top("rollback.*_url"))?;
        urls.push((role, url))
            .map_err(|_| ManifestError::TooMany { field: field.clone(), max: ROLES_MAX })
    })?;
    let missing = || ManifestError::Missing { field: Field::top("rollback.previous_version") };
    Ok(Rollback { previous_version: previous_version.ok_or_else(missing)?, urls })
}

fn keys(reader: &mut Reader<'_>, _: &Field) -> Result<KeySet, ManifestError> {
    let (mut threshold, mut list) = (None, None);
    reader.object(|reader, key| match key {
        "threshold" => {
            once(reader, &mut threshold, Field::top("keys.threshold"), |reader, field| {
                integer(reader, field, 1, u32::from(u8::MAX))
            })
        }
        "keys" => once(reader, &mut list, Field::top("keys.keys"), |reader, field| {
            let mut list = heapless::Vec::<PublicKey, { super::KEYS_MAX }>::new();
            reader.array(|reader| {
                let text = reader.string()?;
                let line = text.as_plain().unwrap_or_default();
                let key = line.parse().map_err(|error| ManifestError::Key { error })?;
                list.push(key).map_err(|_| ManifestError::TooMany {
                    field: field.clone(),
                    max: super::KEYS_MAX,
                })
            })?;
            Ok(list)
        }),
        _ => Ok(reader.skip()?),
    })?;
    let missing = |name| ManifestError::Missing { field: Field::top(name) };
    let list = list.ok_or_else(|| missing("keys.keys"))?;
    let threshold = threshold.ok_or_else(|| missing("keys.threshold"))?;
    // `integer` has kept it within a byte.
    let threshold = u8::try_from(threshold).unwrap_or(u8::MAX);
    KeySet::new(&list, threshold).map_err(|error| ManifestError::KeySet { error })
}

/// Reads the value of a known field into its place, which must be empty, for `null` too: to other
/// readers it would take the place of the value before. Made once for each type of value, not for
/// each field: on a chip that is code.
#[inline(never)]
fn once<'a, T>(
    reader: &mut Reader<'a>,
    place: &mut Option<T>,
    field: Field,
    read: fn(&mut Reader<'a>, &Field) -> Result<T, ManifestError>,
) -> Result<(), ManifestError> {
    if place.is_some() {
        return Err(ManifestError::Twice { field });
    }
    if reader.take_null() {
        return Ok(());
    }
    *place = Some(read(reader, &field).map_err(|error| error.in_field(&field))?);
    Ok(())
}

fn text<'a>(reader: &mut Reader<'a>, field: &Field, max: usize) -> Result<Text<'a>, ManifestError> {
    let text = reader.string()?;
    let length = text.len();
    if length > max {
        return Err(ManifestError::TooLong { field: field.clone(), length, max });
    }
    Ok(text)
}

fn name<'a>(reader: &mut Reader<'a>, field: &Field) -> Result<Text<'a>, ManifestError> {
    text(reader, field, NAME_BYTES_MAX)
}

fn hardware<'a>(reader: &mut Reader<'a>, field: &Field) -> Result<Text<'a>, ManifestError> {
    text(reader, field, 2 * NAME_BYTES_MAX)
}

fn url<'a>(reader: &mut Reader<'a>, field: &Field) -> Result<Text<'a>, ManifestError> {
    text(reader, field, URL_BYTES_MAX).map_err(|error| error.in_field(field))
}

/// A text that stands for one of a set of values.
fn word<'a, T>(
    reader: &mut Reader<'a>,
    field: &Field,
    expected: &'static str,
    meaning: impl FnOnce(&'a str) -> Option<T>,
) -> Result<T, ManifestError> {
    let text = reader.string()?;
    text.as_plain().and_then(meaning).ok_or_else(|| {
        let (field, found) = (field.clone(), Excerpt::of(text.chars()));
        ManifestError::BadText { field, found, expected }
    })
}

fn sha256(reader: &mut Reader<'_>, field: &Field) -> Result<Sha256, ManifestError> {
    word(reader, field, "64 hexadecimal digits", Sha256::from_hex)
}

fn generations<'a>(
    reader: &mut Reader<'a>,
    field: &Field,
) -> Result<GenerationHashes<'a>, ManifestError> {
    word(reader, field, GENERATIONS_EXPECTED, GenerationHashes::from_text)
}

fn version(reader: &mut Reader<'_>, field: &Field) -> Result<ReleaseVersion, ManifestError> {
    // A text with escapes is no version, and says so by what it looks like.
    let text = reader.string()?;
    let mut plain = heapless::String::<VERSION_BYTES_MAX>::new();
    // What is cut off here is too long for a version anyway.
    let _ = text.chars().try_for_each(|letter| plain.push(letter));
    plain.parse().map_err(|error| ManifestError::Version { field: field.clone(), error })
}

/// The original plan's manifest has a text here, its code a number.
fn version_or_number(
    reader: &mut Reader<'_>,
    field: &Field,
) -> Result<ReleaseVersion, ManifestError> {
    if reader.at_string() {
        version(reader, field)
    } else {
        Ok(ReleaseVersion::from_number(any_u32(reader, field)?))
    }
}

fn schema(reader: &mut Reader<'_>, _: &Field) -> Result<u32, ManifestError> {
    let found = reader.number()?;
    match u32::try_from(found) {
        Ok(schema) if schema <= SCHEMA_NEWEST => Ok(schema),
        _ => Err(ManifestError::SchemaTooNew { found }),
    }
}

fn size(reader: &mut Reader<'_>, field: &Field) -> Result<u32, ManifestError> {
    integer(reader, field, 1, FIRMWARE_SIZE_BYTES_MAX)
}

fn protocol(reader: &mut Reader<'_>, field: &Field) -> Result<u8, ManifestError> {
    let max = u8::MAX;
    let protocol = integer(reader, field, 0, u32::from(max))?;
    Ok(u8::try_from(protocol).unwrap_or(max))
}

fn protocol_range(reader: &mut Reader<'_>, field: &Field) -> Result<ProtocolRange, ManifestError> {
    let mut ends = heapless::Vec::<u8, 2>::new();
    reader.array(|reader| {
        let end = protocol(reader, field)?;
        ends.push(end).map_err(|_| ManifestError::TooMany { field: field.clone(), max: 2 })
    })?;
    let [min, max] = ends[..] else {
        let found = u64::try_from(ends.len()).unwrap_or(u64::MAX);
        return Err(ManifestError::OutOfRange { field: field.clone(), found, min: 2, max: 2 });
    };
    ProtocolRange::new(min, max)
        .map_err(|error| ManifestError::Range { field: field.clone(), error })
}

fn any_u32(reader: &mut Reader<'_>, field: &Field) -> Result<u32, ManifestError> {
    integer(reader, field, 0, u32::MAX)
}

fn integer(
    reader: &mut Reader<'_>,
    field: &Field,
    min: u32,
    max: u32,
) -> Result<u32, ManifestError> {
    let found = reader.number()?;
    match u32::try_from(found) {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(ManifestError::OutOfRange {
            field: field.clone(),
            found,
            min: u64::from(min),
            max: u64::from(max),
        }),
    }
}

/// Longer than any version, so that a cut one is none either.
const VERSION_BYTES_MAX: usize = 32;
