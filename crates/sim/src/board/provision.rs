//! What a factory and a first owner do to a new board: partition table, firmware, keys, password.
//!
//! The partition table is written last, so that a making that was cut off begins anew. A board that
//! was made keeps what it has; only a password that is given is always set, which is the way out
//! for whoever lost theirs and has the flash in their hands.

use std::fmt;

use embedded_storage::nor_flash::{NorFlash, ReadNorFlash};
use lockstep_agent::config::{self, ConfigError};
use lockstep_agent::layout::{Layout, LayoutError};
use lockstep_agent::record::{Kind, RecordError, RecordLog};
use lockstep_agent::{FlashFault, Region};
use lockstep_device::adopt;
use lockstep_device::identity::{ENTRY_IMAGES, IMAGES_BYTES_MAX, KnownImage, KnownImages};
use lockstep_device::password::Password;
use lockstep_proto::compat::Announced;
use lockstep_proto::frame::control::GroupKey;
use lockstep_proto::id::ImageHash;
use lockstep_proto::image::{ChipId, ImageError, ImageReader};
use lockstep_proto::manifest::Trust;
use lockstep_proto::partition::{PartitionTable, TABLE_BYTES, TABLE_OFFSET};

use crate::flash::{FileFlash, FlashError, write_erased};

/// What a new board is given.
#[derive(Debug, Clone)]
pub struct Provision {
    /// The firmware in `ota_0`.
    pub firmware: Vec<u8>,
    /// What is known of a firmware that says nothing of itself.
    pub announced: Option<Announced>,
    /// The password; without one a random one is made and printed.
    pub password: Option<String>,
    /// Whose releases are taken.
    pub trust: Trust,
    /// What that means for a board that was made before.
    pub keys: KeysAtStart,
}

/// What becomes of the keys of a board that was made before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeysAtStart {
    /// They stay: releases may have rotated them since.
    Stay,
    /// They are replaced, as somebody with a cable could.
    Replaced,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Provisioned {
    /// The board was made; the password was made up if none was given.
    Made {
        /// The password, if nobody else knows it.
        password: Option<String>,
    },
    /// The board was there already.
    Known,
}

/// Makes the board if the flash is new; one that waits to be set up is given no password.
pub(super) fn provision(
    provision: &Provision,
    waits_for_setup: bool,
    chip: ChipId,
    flash: &mut FileFlash,
) -> Result<Provisioned, ProvisionError> {
    let mut table = [0; TABLE_BYTES];
    flash.read(TABLE_OFFSET, &mut table)?;
    let given = provision.password.as_deref();
    if table.iter().any(|&byte| byte != 0xFF) {
        let layout = Layout::find(flash).map_err(ProvisionError::Layout)?;
        if provision.keys == KeysAtStart::Replaced {
            let mut record = RecordLog::open(flash, layout.record())?;
            record.write(flash, Kind::TRUST, ENTRY_VERSION, &provision.trust.encode())?;
        }
        if let Some(password) = given {
            set_password(&layout, password, flash)?;
        }
        return Ok(Provisioned::Known);
    }
    let made_up = match given {
        Some(_) => None,
        None if waits_for_setup => None,
        None => Some(random_password()?),
    };
    let password = made_up.as_deref().or(given);
    make(provision, password, chip, flash)?;
    Ok(Provisioned::Made { password: made_up })
}

/// Lays out a new flash, and fills it. Without a password nobody is let in until one is set over
/// the board's serial line.
pub fn make<F: NorFlash<Error = FlashError>>(
    provision: &Provision,
    password: Option<&str>,
    chip: ChipId,
    flash: &mut F,
) -> Result<(), ProvisionError> {
    let table = PartitionTable::desk_table();
    let layout = Layout::of(&table).map_err(ProvisionError::Layout)?;
    let [slot, _] = layout.slots;
    let Provision { firmware, announced, trust, .. } = provision;
    let mut reader = ImageReader::with_limit(slot.size_bytes);
    let facts = reader.push(firmware).and_then(|()| reader.finish());
    let facts = facts.map_err(ProvisionError::Image)?;
    if facts.header.chip != chip {
        return Err(ProvisionError::Chip { found: facts.header.chip, expected: chip });
    }
    write_erased(flash, slot.offset, firmware)?;
    let given = Given { trust: Some(trust), announced: *announced, password, ..Given::default() };
    give(&given, (facts.image_hash, None), &layout, flash)?;

    let mut bytes = [0; TABLE_BYTES];
    table.write(&mut bytes);
    write_erased(flash, TABLE_OFFSET, &bytes)?;
    Ok(())
}

/// What a board is given besides its firmware; what is `None` stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Given<'a> {
    /// Whose releases are taken.
    pub trust: Option<&'a Trust>,
    /// What is known of a firmware that says nothing of itself.
    pub announced: Option<Announced>,
    /// The password.
    pub password: Option<&'a str>,
    /// The group's key, as if it had been adopted with it.
    pub group: Option<&'a GroupKey>,
    /// The application's configuration.
    pub configuration: Option<&'a [u8]>,
}

/// Puts what is given where the firmware looks for it. `images`: the one that will run, and what
/// the other slot holds, whose configuration stays.
pub fn give<F: NorFlash>(
    given: &Given<'_>,
    images: (ImageHash, Option<ImageHash>),
    layout: &Layout,
    flash: &mut F,
) -> Result<(), ProvisionError> {
    let (image, other) = images;
    let mut record = RecordLog::open(flash, layout.record())?;
    if let Some(trust) = given.trust {
        put(&mut record, Kind::TRUST, &trust.encode(), flash)?;
    }
    if let Some(announced) = given.announced {
        let mut images = KnownImages::default();
        images.learn(KnownImage { image, announced, config_schema: 0 });
        let mut buffer = [0; IMAGES_BYTES_MAX];
        // The buffer is made for more images than one.
        let len = images.encode(&mut buffer).unwrap_or(0);
        put(&mut record, ENTRY_IMAGES, buffer.get(..len).unwrap_or_default(), flash)?;
    }
    if let Some(group) = given.group {
        put(&mut record, adopt::ENTRY_KEY, &adopt::key_entry(group, &[0; 8]), flash)?;
    }
    if let Some(password) = given.password {
        set_password(layout, password, flash)?;
    }
    if let Some(configuration) = given.configuration {
        let store = layout.config().ok_or(ProvisionError::Config(ConfigError::NoRoom))?;
        config::store(flash, store, image, other, configuration)?;
    }
    Ok(())
}

/// Writes an entry, and nothing at all if it is there: even the log's care for what a power cut
/// may have left would be a change.
fn put<F: NorFlash>(
    record: &mut RecordLog,
    kind: Kind,
    payload: &[u8],
    flash: &mut F,
) -> Result<(), ProvisionError> {
    let mut known = vec![0; payload.len()];
    let found = record.read(flash, kind, &mut known)?;
    if found == Some((ENTRY_VERSION, payload.len())) && known == payload {
        return Ok(());
    }
    Ok(record.write(flash, kind, ENTRY_VERSION, payload)?)
}

/// Whether a board's record is here: who was made here has been told whose releases to take, and
/// who has booted counts that.
pub fn has_record<F: ReadNorFlash>(flash: &mut F, record: Region) -> Result<bool, FlashFault> {
    let log = RecordLog::open(flash, record)?;
    Ok(log.read(flash, Kind::TRUST, &mut [])?.is_some()
        || log.read(flash, Kind::BOOT_NUMBER, &mut [])?.is_some())
}

/// Sets the password, unless it is the board's already.
fn set_password<F: NorFlash>(
    layout: &Layout,
    password: &str,
    flash: &mut F,
) -> Result<(), ProvisionError> {
    let mut record = RecordLog::open(flash, layout.record())?;
    let mut entry = [0; Password::LEN_BYTES];
    let known = record.read(flash, Kind::PASSWORD, &mut entry)?;
    let known = known.and_then(|_| Password::decode(&entry).ok());
    if known.is_some_and(|known| known.is(password)) {
        return Ok(());
    }
    let mut salt = [0; 16];
    super::random(&mut salt)?;
    let password = Password::new(password, salt);
    record.write(flash, Kind::PASSWORD, ENTRY_VERSION, &password.encode())?;
    Ok(())
}

/// A new password: sixteen letters and digits that cannot be mistaken for each other, 80 bits.
pub fn random_password() -> Result<String, getrandom::Error> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0; 16];
    super::random(&mut bytes)?;
    let mut password = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 && index % 4 == 0 {
            password.push('-');
        }
        let letter = LETTERS.get(usize::from(byte % 32)).copied().unwrap_or(b'a');
        password.push(char::from(letter));
    }
    Ok(password)
}

/// Why a board was not made.
#[derive(Debug)]
pub enum ProvisionError {
    /// The firmware is no whole image, or too large for the slot.
    Image(ImageError),
    /// The firmware is for another chip.
    Chip {
        /// The image's.
        found: ChipId,
        /// The board's.
        expected: ChipId,
    },
    /// The flash is not laid out for updates.
    Layout(LayoutError),
    /// The record could not be read.
    Read(FlashFault),
    /// The record could not be written.
    Record(RecordError),
    /// The configuration could not be written.
    Config(ConfigError),
    /// The flash failed.
    Flash(FlashError),
    /// The host gave no random numbers.
    Random(getrandom::Error),
}

impl fmt::Display for ProvisionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(_) => f.write_str("firmware of the new board cannot be used"),
            Self::Chip { found, expected } => {
                write!(f, "firmware is for chip `{found}`, the board has `{expected}`")
            }
            Self::Layout(_) => f.write_str("flash is not laid out for updates"),
            Self::Config(_) => f.write_str("configuration cannot be used"),
            Self::Read(_) | Self::Record(_) | Self::Flash(_) => {
                f.write_str("could not write the flash of the board")
            }
            Self::Random(_) => f.write_str("host gives no random numbers"),
        }
    }
}

impl std::error::Error for ProvisionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Image(error) => Some(error),
            Self::Chip { .. } => None,
            Self::Layout(error) => Some(error),
            Self::Read(error) => Some(error),
            Self::Record(error) => Some(error),
            Self::Config(error) => Some(error),
            Self::Flash(error) => Some(error),
            Self::Random(error) => Some(error),
        }
    }
}

impl From<FlashFault> for ProvisionError {
    fn from(fault: FlashFault) -> Self {
        Self::Read(fault)
    }
}

impl From<RecordError> for ProvisionError {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}

impl From<ConfigError> for ProvisionError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<FlashError> for ProvisionError {
    fn from(error: FlashError) -> Self {
        Self::Flash(error)
    }
}

impl From<getrandom::Error> for ProvisionError {
    fn from(error: getrandom::Error) -> Self {
        Self::Random(error)
    }
}

/// Version of the entries that the agent and the node read.
const ENTRY_VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use lockstep_proto::descriptor::{Board, Descriptor, Product, Role};
    use lockstep_proto::version::{ProtocolRange, ReleaseVersion};

    use super::*;
    use crate::firmware::FirmwareSpec;
    use crate::flash::{CAPACITY_DEFAULT_BYTES, Timing};

    /// A flash file of one test, gone when the test is over.
    struct Desk(PathBuf);

    impl Desk {
        fn new(test: &str) -> Self {
            let name = format!("lockstep-provision-{test}-{}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        fn flash(&self) -> FileFlash {
            FileFlash::open(&self.0, CAPACITY_DEFAULT_BYTES, Timing::None).unwrap()
        }
    }

    impl Drop for Desk {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(Path::new(&self.0));
        }
    }

    fn given(password: Option<&str>) -> Provision {
        let descriptor = Descriptor {
            product: Product::new("desk").unwrap(),
            role: Role::new("receiver").unwrap(),
            board: Board::new("t-display-s3").unwrap(),
            version: ReleaseVersion::new(1, 0, 0).unwrap(),
            min_compatible: ReleaseVersion::from_number(0),
            protocol: ProtocolRange::single(1),
            epoch: 0,
            config_schema: 0,
        };
        Provision {
            firmware: FirmwareSpec::new(descriptor, ChipId::ESP32_S3).build().unwrap(),
            announced: None,
            password: password.map(str::to_owned),
            trust: Trust::anybody(),
            keys: KeysAtStart::Stay,
        }
    }

    fn stored(flash: &mut FileFlash) -> Password {
        let layout = Layout::find(flash).unwrap();
        let record = RecordLog::open(flash, layout.record()).unwrap();
        let mut entry = [0; Password::LEN_BYTES];
        record.read(flash, Kind::PASSWORD, &mut entry).unwrap().unwrap();
        Password::decode(&entry).unwrap()
    }

    #[test]
    fn a_board_is_made_once_and_tells_a_made_up_password_once() {
        let desk = Desk::new("once");
        let mut flash = desk.flash();
        let made = provision(&given(None), false, ChipId::ESP32_S3, &mut flash).unwrap();
        let Provisioned::Made { password: Some(password) } = made else { panic!("{made:?}") };
        assert!(stored(&mut flash).is(&password));
        let again = provision(&given(None), false, ChipId::ESP32_S3, &mut flash).unwrap();
        assert_eq!(again, Provisioned::Known);
        assert!(stored(&mut flash).is(&password));
    }

    /// The way out for whoever lost the password.
    #[test]
    fn a_password_that_is_given_later_takes_the_place_of_the_first() {
        let desk = Desk::new("password");
        let mut flash = desk.flash();
        provision(&given(Some("first")), false, ChipId::ESP32_S3, &mut flash).unwrap();
        provision(&given(Some("second")), false, ChipId::ESP32_S3, &mut flash).unwrap();
        assert!(stored(&mut flash).is("second") && !stored(&mut flash).is("first"));
    }

    #[test]
    fn firmware_for_another_chip_or_none_at_all_leaves_the_flash_as_it_was() {
        let desk = Desk::new("chip");
        let mut flash = desk.flash();
        let error = provision(&given(None), false, ChipId::ESP32, &mut flash).unwrap_err();
        let text = "firmware is for chip `ESP32-S3`, the board has `ESP32`";
        assert_eq!(error.to_string(), text);
        let html = Provision { firmware: b"<!DOCTYPE html>".to_vec(), ..given(None) };
        let error = provision(&html, false, ChipId::ESP32_S3, &mut flash).unwrap_err();
        assert!(matches!(error, ProvisionError::Image(_)), "{error:?}");
        assert_eq!(flash.statistics().erases_total(), 0);
    }

    /// The table comes last: without it the board does not count as made.
    #[test]
    fn a_making_that_was_cut_off_before_its_table_begins_anew() {
        let desk = Desk::new("cut");
        let mut flash = desk.flash();
        provision(&given(Some("first")), false, ChipId::ESP32_S3, &mut flash).unwrap();
        write_erased(&mut flash, TABLE_OFFSET, &[0xFF; TABLE_BYTES]).unwrap();
        let made = provision(&given(Some("second")), false, ChipId::ESP32_S3, &mut flash).unwrap();
        assert_eq!(made, Provisioned::Made { password: None });
        assert!(stored(&mut flash).is("second"));
    }

    /// A lost signing key must not cost the board: whoever can start it can give it others.
    #[test]
    fn keys_stay_at_a_later_start_unless_they_are_to_be_replaced() {
        let desk = Desk::new("keys");
        let mut flash = desk.flash();
        let mut given = given(Some("long enough"));
        provision(&given, false, ChipId::ESP32_S3, &mut flash).unwrap();
        given.trust = Trust::anybody().allowing_unsigned();
        for (keys, expected) in [
            (KeysAtStart::Stay, Trust::anybody()),
            (KeysAtStart::Replaced, Trust::anybody().allowing_unsigned()),
        ] {
            given.keys = keys;
            provision(&given, false, ChipId::ESP32_S3, &mut flash).unwrap();
            let layout = Layout::find(&mut flash).unwrap();
            let record = RecordLog::open(&mut flash, layout.record()).unwrap();
            let mut entry = [0; 512];
            let (_, len) = record.read(&mut flash, Kind::TRUST, &mut entry).unwrap().unwrap();
            assert_eq!(Trust::decode(&entry[..len]).unwrap(), expected);
        }
    }
}
