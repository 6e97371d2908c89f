//! The rollout's durable record: what a lead must know after it lost power at any moment.
//!
//! Layout, little endian; the *frozen core* is everything up to and with the seats. Later versions
//! append behind it, and an older firmware keeps those bytes as it found them. Version 2 appended
//! the flags, which a record of version 1 ends before.
//!
//! | size | field |
//! |---|---|
//! | 8 + 2 + 4 | rollout id, term, counter |
//! | 1 | kind: 0 forward, 1 back, 2 repair |
//! | 1 | phase: 1 staging, 2 rest, 3 trial, 4 settling, 5 settled |
//! | 1 | verdict: 0 none, 1 keep, 2 revert |
//! | 1 + 6 + 2 + 4 + 4 | cause of a revert: code, member, refusal number and its two values |
//! | 1 | restarts of the lead in this phase |
//! | 4 + 4 | release number, number before |
//! | 4 | epoch |
//! | 32 + 2 | manifest package: SHA-256 and size |
//! | 4 + 4 | trial limit, reboot delay, in ms |
//! | 1 + 16 n | order: number of roles, roles |
//! | 1 + 94 n | seats: number, then each as in [`SeatRecord`] |
//! | 1 | flags; bit 0: raises the epoch, 1: final, 2: held, 3: held until a time, 4: catches up |

use alloc::vec::Vec;
use core::fmt;

use lockstep_proto::frame::report::Refusal;
use lockstep_proto::id::{DeviceId, Generation, ImageHash, RolloutId, Sha256};
use lockstep_proto::wire::{Full, Reader, Role, TooShort, Writer};
use lockstep_proto::words;

/// Devices in a group, at most: so many seats fit the record's half of 8 KiB beside the rest.
pub const MEMBERS_MAX: usize = 32;
/// Version of the record as this code writes it.
pub const RECORD_VERSION: u8 = 2;
/// Largest record in bytes, later versions' additions included.
pub const RECORD_BYTES_MAX: usize = 3_800;
/// An order names roles that the group has, each once.
const ROLES_MAX: usize = MEMBERS_MAX;

/// Why there is a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To a release that somebody handed over.
    Forward,
    /// Back to what the members ran before, asked for by a person.
    Back,
    /// Back to what the members ran before, because one of them cannot hold the verdict `keep`.
    /// It has one direction: no revert, no abort, no deadline.
    Repair,
}

/// Whether a rollout goes on by itself once all have staged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hold {
    /// It does.
    #[default]
    No,
    /// It waits until somebody says so.
    Held,
    /// It waits for a moment that somebody named. When that is, the lead remembers as long as it is
    /// on; after a restart it waits like [`Hold::Held`].
    Scheduled,
}

/// Where a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Members are asked whether they fit. Nothing is durable yet.
    Preflight,
    /// Bytes go into the other slots.
    Staging,
    /// Applications come to rest.
    Rest,
    /// Members boot the new images and watch themselves.
    Trial,
    /// The verdict is durable and final; members are told.
    Settling(Verdict),
    /// All who can be reached have carried out the verdict.
    Settled(Verdict),
}

/// How a rollout ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All run the release for good.
    Keep,
    /// All run what they ran before.
    Revert(Cause),
}

/// Why a rollout is reverted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A person or a program asked for it.
    Aborted,
    /// Staging made no progress, or took too long.
    StagingDeadline,
    /// A member's application did not come to rest.
    NotNow(DeviceId),
    /// A member did not get healthy in time, or was not heard of.
    NotHealthy(DeviceId),
    /// A member came back with the old image.
    FellBack(DeviceId),
    /// A member refused an order.
    Refused(DeviceId, Refusal),
    /// The lead restarted too often in one phase.
    TooManyRestarts,
    /// The uploaded bytes are not what the manifest says.
    BadUpload,
    /// The lead lost the manifest that the rollout is about.
    ManifestLost,
}

/// What a rollout does with one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Brings it to another image.
    Update,
    /// It runs its target already, and must go on doing so.
    Watch,
}

/// One device in a rollout. 94 bytes in the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeatRecord {
    /// The device.
    pub id: DeviceId,
    /// Its role.
    pub role: Role,
    /// What the rollout does with it.
    pub part: Part,
    /// What it runs when the verdict is `keep`.
    pub target: ImageHash,
    /// What it ran at preflight, and runs when the verdict is `revert`: its way back.
    pub before: ImageHash,
    /// Size of its artifact in bytes; 0 if it needs none.
    pub size_bytes: u32,
    /// The last activation ordered; durable before the order.
    pub attempt: u8,
    /// How often it was activated again after the verdict.
    pub reactivations: u8,
    /// It has carried out the verdict.
    pub settled: bool,
}

/// What survives power loss on the lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutRecord {
    /// The rollout.
    pub id: RolloutId,
    /// Its place in the group's sequence.
    pub generation: Generation,
    /// Why there is one.
    pub kind: Kind,
    /// Where it stands.
    pub phase: Phase,
    /// Restarts of the lead in this phase.
    pub restarts: u8,
    /// Number of the release it leads to.
    pub number: u32,
    /// Number of the release before; 0 if unknown.
    pub number_before: u32,
    /// Epoch of the release it leads to.
    pub epoch: u32,
    /// SHA-256 of the manifest package; zeros if it needs none.
    pub package: Sha256,
    /// Size of the manifest package in bytes; 0 if it needs none.
    pub package_size_bytes: u16,
    /// See [`crate::Release::trial_limit_ms`].
    pub trial_limit_ms: u32,
    /// See [`crate::Release::reboot_delay_ms`].
    pub reboot_delay_ms: u32,
    /// See [`crate::Release::order`].
    pub order: Vec<Role>,
    /// Every device of the group, sorted by id.
    pub seats: Vec<SeatRecord>,
    /// Once it is kept, members raise their epoch, which bars the way back.
    pub raises_epoch: bool,
    /// All have kept it and may be told so. No repair goes back behind it any more.
    pub is_final: bool,
    /// Whether it waits once all have staged.
    pub hold: Hold,
    /// It brings members that came later to the release that the others run; these send it.
    pub catches_up: bool,
    /// What a later version appended; kept as it is.
    pub appended: Vec<u8>,
}

/// Why bytes are not a rollout's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordError {
    /// The bytes end too early.
    TooShort(TooShort),
    /// A field has a value that it cannot have.
    Field {
        /// The field's name.
        field: &'static str,
        /// What the record says.
        found: u32,
    },
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(_) => write!(f, "rollout record is cut short"),
            Self::Field { field, found } => {
                write!(f, "rollout record has impossible `{field}` {found}")
            }
        }
    }
}

impl core::error::Error for RecordError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::TooShort(cause) => Some(cause),
            Self::Field { .. } => None,
        }
    }
}

impl From<TooShort> for RecordError {
    fn from(cause: TooShort) -> Self {
        Self::TooShort(cause)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aborted => write!(f, "aborted on request"),
            Self::StagingDeadline => write!(f, "staging made no progress in time"),
            Self::NotNow(device) => write!(f, "the application of {device} did not come to rest"),
            Self::NotHealthy(device) => write!(f, "{device} did not get healthy in time"),
            Self::FellBack(device) => write!(f, "{device} fell back to its old image"),
            Self::Refused(device, why) => write!(f, "{device} refused: {why}"),
            Self::TooManyRestarts => write!(f, "the lead restarted too often"),
            Self::BadUpload => write!(f, "the upload is not what its manifest says"),
            Self::ManifestLost => write!(f, "the lead lost the manifest"),
        }
    }
}

impl Cause {
    /// A short word for programs: the API's and the history's `cause`. Never changed.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Aborted => words::ABORTED,
            Self::StagingDeadline => words::STAGING_DEADLINE,
            Self::NotNow(_) => words::NOT_NOW,
            Self::NotHealthy(_) => words::NOT_HEALTHY,
            Self::FellBack(_) => words::FELL_BACK,
            Self::Refused(..) => words::REFUSED,
            Self::TooManyRestarts => words::TOO_MANY_RESTARTS,
            Self::BadUpload => words::BAD_UPLOAD,
            Self::ManifestLost => words::MANIFEST_LOST,
        }
        .code
    }

    /// The member that it is about, if it is about one.
    pub const fn member(&self) -> Option<DeviceId> {
        match self {
            Self::NotNow(device)
            | Self::NotHealthy(device)
            | Self::FellBack(device)
            | Self::Refused(device, _) => Some(*device),
            Self::Aborted
            | Self::StagingDeadline
            | Self::TooManyRestarts
            | Self::BadUpload
            | Self::ManifestLost => None,
        }
    }

    const fn number(&self) -> u8 {
        match self {
            Self::Aborted => 1,
            Self::StagingDeadline => 2,
            Self::NotNow(_) => 3,
            Self::NotHealthy(_) => 4,
            Self::FellBack(_) => 5,
            Self::Refused(..) => 6,
            Self::TooManyRestarts => 7,
            Self::BadUpload => 8,
            Self::ManifestLost => 9,
        }
    }

    /// Writes 17 bytes: number, member, refusal number, its two values.
    pub fn put(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        writer.u8(self.number())?;
        writer.put(&self.member().unwrap_or(DeviceId([0; 6])).0)?;
        let (code, a, b) = match self {
            Self::Refused(_, why) => why.to_wire(),
            _ => (0, 0, 0),
        };
        writer.u16(code)?;
        writer.u32(a)?;
        writer.u32(b)
    }

    /// Reads what [`Cause::put`] wrote. A cause or a refusal of a later version reads as a fall
    /// back: the verdict is what must not be lost.
    pub fn take(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let found = reader.u8()?;
        let member = DeviceId(reader.array()?);
        let refusal = Refusal::from_wire(reader.u16()?, reader.u32()?, reader.u32()?);
        Ok(match (found, refusal) {
            (1, _) => Self::Aborted,
            (2, _) => Self::StagingDeadline,
            (3, _) => Self::NotNow(member),
            (4, _) => Self::NotHealthy(member),
            (6, Some(why)) => Self::Refused(member, why),
            (7, _) => Self::TooManyRestarts,
            (8, _) => Self::BadUpload,
            (9, _) => Self::ManifestLost,
            (0, _) => return Err(RecordError::Field { field: "cause", found: found.into() }),
            (5 | 6 | 10.., _) => Self::FellBack(member),
        })
    }
}

impl Phase {
    /// The word that pages, the API and messages use.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Staging => "staging",
            Self::Rest => "rest",
            Self::Trial => "trial",
            Self::Settling(_) => "settling",
            Self::Settled(_) => "settled",
        }
    }

    /// The verdict, once there is one.
    pub const fn verdict(&self) -> Option<Verdict> {
        match self {
            Self::Settling(verdict) | Self::Settled(verdict) => Some(*verdict),
            Self::Preflight | Self::Staging | Self::Rest | Self::Trial => None,
        }
    }
}

impl Verdict {
    /// `keep` or `revert`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Revert(_) => "revert",
        }
    }
}

impl Kind {
    /// `forward`, `back` or `repair`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Back => "back",
            Self::Repair => "repair",
        }
    }

    /// The number in records. Append, never renumber.
    pub const fn number(self) -> u8 {
        match self {
            Self::Forward => 0,
            Self::Back => 1,
            Self::Repair => 2,
        }
    }

    /// The kind with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Forward,
            1 => Self::Back,
            2 => Self::Repair,
            _ => return None,
        })
    }
}

impl RolloutRecord {
    /// Writes the record. Preflight has none: it writes as staging, and is never stored.
    pub fn encode<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], Full> {
        let mut writer = Writer::new(buffer);
        self.put(&mut writer)?;
        let len = writer.len_bytes();
        Ok(buffer.get(..len).unwrap_or_default())
    }

    fn put(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        writer.u64(self.id.0)?;
        writer.u16(self.generation.term)?;
        writer.u32(self.generation.counter)?;
        writer.u8(self.kind.number())?;
        writer.u8(match self.phase {
            Phase::Preflight | Phase::Staging => 1,
            Phase::Rest => 2,
            Phase::Trial => 3,
            Phase::Settling(_) => 4,
            Phase::Settled(_) => 5,
        })?;
        match self.phase.verdict() {
            None => writer.put(&[0; 18])?,
            Some(Verdict::Keep) => {
                writer.u8(1)?;
                writer.put(&[0; 17])?;
            }
            Some(Verdict::Revert(cause)) => {
                writer.u8(2)?;
                cause.put(writer)?;
            }
        }
        writer.u8(self.restarts)?;
        writer.u32(self.number)?;
        writer.u32(self.number_before)?;
        writer.u32(self.epoch)?;
        writer.put(&self.package.0)?;
        writer.u16(self.package_size_bytes)?;
        writer.u32(self.trial_limit_ms)?;
        writer.u32(self.reboot_delay_ms)?;
        writer.u8(u8::try_from(self.order.len()).unwrap_or(u8::MAX))?;
        self.order.iter().try_for_each(|role| writer.put(role.bytes()))?;
        writer.u8(u8::try_from(self.seats.len()).unwrap_or(u8::MAX))?;
        self.seats.iter().try_for_each(|seat| seat.put(writer))?;
        let hold = match self.hold {
            Hold::No => 0,
            Hold::Held => 4,
            Hold::Scheduled => 12,
        };
        let catches_up = u8::from(self.catches_up) << 4;
        writer
            .u8(u8::from(self.raises_epoch) | u8::from(self.is_final) << 1 | hold | catches_up)?;
        writer.put(&self.appended)
    }

    /// Reads a record of this version or a later one.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes);
        let id = RolloutId(reader.u64()?);
        let generation = Generation { term: reader.u16()?, counter: reader.u32()? };
        let found = reader.u8()?;
        let kind = Kind::from_number(found)
            .ok_or(RecordError::Field { field: "kind", found: found.into() })?;
        let phase = take_phase(&mut reader)?;
        let mut record = Self {
            id,
            generation,
            kind,
            phase,
            restarts: reader.u8()?,
            number: reader.u32()?,
            number_before: reader.u32()?,
            epoch: reader.u32()?,
            package: Sha256(reader.array()?),
            package_size_bytes: reader.u16()?,
            trial_limit_ms: reader.u32()?,
            reboot_delay_ms: reader.u32()?,
            order: take_list(&mut reader, "order", ROLES_MAX, take_role)?,
            seats: take_list(&mut reader, "seats", MEMBERS_MAX, SeatRecord::take)?,
            raises_epoch: false,
            is_final: false,
            hold: Hold::No,
            catches_up: false,
            appended: Vec::new(),
        };
        if let [flags, appended @ ..] = reader.rest() {
            record.raises_epoch = flags & 1 != 0;
            record.is_final = flags & 2 != 0;
            record.catches_up = flags & 16 != 0;
            record.hold = match flags & 12 {
                0 => Hold::No,
                12 => Hold::Scheduled,
                _ => Hold::Held,
            };
            record.appended = appended.to_vec();
        }
        Ok(record)
    }
}

fn take_phase(reader: &mut Reader<'_>) -> Result<Phase, RecordError> {
    let found = reader.u8()?;
    let verdict_code = reader.u8()?;
    let verdict = match verdict_code {
        0 | 1 => {
            reader.take(17)?;
            (verdict_code == 1).then_some(Verdict::Keep)
        }
        2 => Some(Verdict::Revert(Cause::take(reader)?)),
        found => return Err(RecordError::Field { field: "verdict", found: found.into() }),
    };
    match (found, verdict) {
        (1, None) => Ok(Phase::Staging),
        (2, None) => Ok(Phase::Rest),
        (3, None) => Ok(Phase::Trial),
        (4, Some(verdict)) => Ok(Phase::Settling(verdict)),
        (5, Some(verdict)) => Ok(Phase::Settled(verdict)),
        _ => Err(RecordError::Field { field: "phase", found: found.into() }),
    }
}

fn take_list<T>(
    reader: &mut Reader<'_>,
    field: &'static str,
    max: usize,
    take: impl Fn(&mut Reader<'_>) -> Result<T, RecordError>,
) -> Result<Vec<T>, RecordError> {
    let found = reader.u8()?;
    if usize::from(found) > max {
        return Err(RecordError::Field { field, found: found.into() });
    }
    (0..found).map(|_| take(reader)).collect()
}

fn take_role(reader: &mut Reader<'_>) -> Result<Role, RecordError> {
    Role::from_bytes(reader.array()?).ok_or(RecordError::Field { field: "role", found: 0 })
}

impl SeatRecord {
    fn put(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        writer.put(&self.id.0)?;
        writer.put(self.role.bytes())?;
        writer.u8(u8::from(self.part == Part::Watch))?;
        writer.put(&self.target.0)?;
        writer.put(&self.before.0)?;
        writer.u32(self.size_bytes)?;
        writer.u8(self.attempt)?;
        writer.u8(self.reactivations)?;
        writer.u8(u8::from(self.settled))
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            id: DeviceId(reader.array()?),
            role: take_role(reader)?,
            part: if reader.u8()? == 0 { Part::Update } else { Part::Watch },
            target: ImageHash(reader.array()?),
            before: ImageHash(reader.array()?),
            size_bytes: reader.u32()?,
            attempt: reader.u8()?,
            reactivations: reader.u8()?,
            settled: reader.u8()? != 0,
        })
    }
}
