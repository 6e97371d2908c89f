//! What a factory and a first owner do to a new board: partition table, firmware, keys, password.
//!
//! The partition table is written last, so that a making that was cut off begins anew. A board that
//! was made keeps what it has; only a password that is given is always set, which is the way out
//! for whoever lost theirs and has the flash in their hands.

use std::fmt;

use embedded_storage::nor_flash::ReadNorFlash;
use lockstep_agent::FlashFault;
use lockstep_agent::layout::{Layout, LayoutError};
use lockstep_agent::record::{Kind, RecordError, RecordLog};
use lockstep_device::identity::{ENTRY_IMAGES, IMAGES_BYTES_MAX, KnownImage, KnownImages};
use lockstep_device::password::Password;
use lockstep_proto::compat::Announced;
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

/// Makes the board if the flash is new.
pub(super) fn provision(
    provision: &Provision,
    chip: ChipId,
    flash: &mut FileFlash,
) -> Result<Provisioned, ProvisionError> {
    let mut table = [0; TABLE_BYTES];
    flash.read(TABLE_OFFSET, &mut table)?;
    let given = provision.password.as_deref();
    if table.iter().any(|&byte| byte != 0xFF) {
        if let Some(password) = given {
            let layout = Layout::find(flash).map_err(ProvisionError::Layout)?;
            set_password(&layout, password, flash)?;
        }
        return Ok(Provisioned::Known);
    }
    let made_up = match given {
        Some(_) => None,
        None => Some(random_password()?),
    };
    let password = made_up.as_deref().or(given).unwrap_or_default();
    make(provision, password, chip, flash)?;
    Ok(Provisioned::Made { password: made_up })
}

fn make(
    provision: &Provision,
    password: &str,
    chip: ChipId,
    flash: &mut FileFlash,
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

    let mut record = RecordLog::open(flash, layout.record())?;
    record.write(flash, Kind::TRUST, ENTRY_VERSION, &trust.encode())?;
    if let Some(announced) = *announced {
        let mut images = KnownImages::default();
        images.learn(KnownImage { image: facts.image_hash, announced, config_schema: 0 });
        let mut buffer = [0; IMAGES_BYTES_MAX];
        // The buffer is made for more images than one.
        let len = images.encode(&mut buffer).unwrap_or(0);
        let entry = buffer.get(..len).unwrap_or_default();
        record.write(flash, ENTRY_IMAGES, ENTRY_VERSION, entry)?;
    }
    set_password(&layout, password, flash)?;

    let mut bytes = [0; TABLE_BYTES];
    table.write(&mut bytes);
    write_erased(flash, TABLE_OFFSET, &bytes)?;
    Ok(())
}

/// Sets the password, unless it is the board's already.
fn set_password(
    layout: &Layout,
    password: &str,
    flash: &mut FileFlash,
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
