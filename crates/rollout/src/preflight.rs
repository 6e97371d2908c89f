//! Preflight: may this rollout begin at all? Everything that can be known before anybody is
//! touched is looked at here, and every fault is named, not only the first.

use alloc::vec::Vec;
use core::fmt;

use lockstep_proto::compat::{Announced, Incompatible, check};
use lockstep_proto::frame::report::{Facts, Report, Rollback};
use lockstep_proto::id::{DeviceId, Generation, ImageHash};
use lockstep_proto::image::ChipId;
use lockstep_proto::version::ReleaseVersion;
use lockstep_proto::wire::{Board, Role};
use lockstep_proto::words::{self, Words};

use crate::policy::Policy;
use crate::record::{MEMBERS_MAX, Part, RolloutRecord, SeatRecord, Verdict};
use crate::release::{Artifact, Release};
use crate::seat::SeatView;

/// One reason why a rollout does not begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreflightFault {
    /// The member that it is about; `None` if it is about the group or the release.
    pub member: Option<DeviceId>,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong. Texts name both values; [`Fault::hint`] names a way out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the values that the text names")]
pub enum Fault {
    Unreachable { role: Role, waited_ms: u64 },
    NoDeviceForRole { role: Role },
    WrongChip { role: Role, image: ChipId, device: ChipId },
    WrongBoard { role: Role, image: Board, device: Board },
    TooLarge { role: Role, size_bytes: u32, slot_bytes: u32 },
    TooLargeToSpool { role: Role, size_bytes: u32, slot_bytes: u32 },
    EpochTooLow { role: Role, offered: u32, floor: u32 },
    NoRollback { role: Role },
    OnTrial { role: Role },
    LowHeap { role: Role, free_bytes: u32, needed_bytes: u32 },
    BadLink { role: Role, loss_percent: u8, allowed_percent: u8 },
    Mixed { role: Role, running: ImageHash, expected: ImageHash },
    SameVersionOtherImage { role: Role, number: u32, running: ImageHash, offered: ImageHash },
    NoWayBack { role: Role, other: ImageHash, wanted: ImageHash },
    Incompatible { role: Role, other: Role, why: Incompatible },
    TooManyMembers { found: usize, allowed: usize },
    UnknownPast { role: Role, seen: Generation, known: Generation },
    KeysLeftOut { role: Role },
    SecureVersionTooLow { role: Role, offered: u32, running: u32 },
    SecureVersionRises { role: Role, offered: u32, running: u32 },
    NotSigned { role: Role },
    NothingToDo,
}

impl Fault {
    /// A short word for programs. Never changed.
    pub const fn code(&self) -> &'static str {
        self.words().code
    }

    /// What a person can do about it.
    pub const fn hint(&self) -> &'static str {
        self.words().hint
    }

    const fn words(&self) -> Words {
        match self {
            Self::Unreachable { .. } => words::UNREACHABLE,
            Self::NoDeviceForRole { .. } => words::NO_DEVICE_FOR_ROLE,
            Self::WrongChip { .. } => words::WRONG_CHIP,
            Self::WrongBoard { .. } => words::WRONG_BOARD,
            Self::TooLarge { .. } => words::TOO_LARGE,
            Self::TooLargeToSpool { .. } => words::TOO_LARGE_TO_SPOOL,
            Self::EpochTooLow { .. } => words::EPOCH_TOO_LOW,
            Self::NoRollback { .. } => words::NO_ROLLBACK,
            Self::OnTrial { .. } => words::ON_TRIAL,
            Self::LowHeap { .. } => words::LOW_HEAP,
            Self::BadLink { .. } => words::BAD_LINK,
            Self::Mixed { .. } => words::MIXED_GROUP,
            Self::SameVersionOtherImage { .. } => words::SAME_VERSION_OTHER_IMAGE,
            Self::NoWayBack { .. } => words::NO_WAY_BACK,
            Self::Incompatible { .. } => words::INCOMPATIBLE,
            Self::TooManyMembers { .. } => words::TOO_MANY_MEMBERS,
            Self::UnknownPast { .. } => words::UNKNOWN_PAST,
            Self::KeysLeftOut { .. } => words::KEYS_LEFT_OUT,
            Self::SecureVersionTooLow { .. } => words::SECURE_VERSION_TOO_LOW,
            Self::SecureVersionRises { .. } => words::SECURE_VERSION_RISES,
            Self::NotSigned { .. } => words::NOT_SIGNED,
            Self::NothingToDo => words::NOTHING_TO_DO,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { role, waited_ms } => {
                write!(f, "`{role}` did not answer within {waited_ms} ms")
            }
            Self::NoDeviceForRole { role } => write!(f, "the group has no device of role `{role}`"),
            Self::WrongChip { role, image, device } => {
                write!(f, "image for `{role}` is for chip `{image}`, the device has `{device}`")
            }
            Self::WrongBoard { role, image, device } => {
                write!(f, "image for `{role}` is for board `{image}`, the device is a `{device}`")
            }
            Self::TooLarge { role, size_bytes, slot_bytes } => {
                write!(f, "image for `{role}` has {size_bytes} bytes, its slot {slot_bytes}")
            }
            Self::TooLargeToSpool { role, size_bytes, slot_bytes } => {
                write!(f, "image for `{role}` has {size_bytes} bytes, the lead's slot {slot_bytes}")
            }
            Self::EpochTooLow { role, offered, floor } => {
                write!(f, "release has epoch {offered}, `{role}` needs at least {floor}")
            }
            Self::NoRollback { role } => {
                write!(f, "`{role}` cannot go back by itself when an image fails")
            }
            Self::OnTrial { role } => write!(f, "`{role}` is still on trial"),
            Self::LowHeap { role, free_bytes, needed_bytes } => {
                write!(f, "`{role}` has {free_bytes} bytes of free heap, {needed_bytes} are needed")
            }
            Self::BadLink { role, loss_percent, allowed_percent } => write!(
                f,
                "the link to `{role}` loses {loss_percent} %, allowed are {allowed_percent} %"
            ),
            Self::Mixed { role, running, expected } => write!(
                f,
                "the group is not on one release: `{role}` runs {running:?}, not {expected:?}"
            ),
            Self::SameVersionOtherImage { role, number, running, offered } => write!(
                f,
                "`{role}` runs version {} as image {running:?}, the release calls {offered:?} so",
                ReleaseVersion::from_number(*number)
            ),
            Self::NoWayBack { role, other, wanted } => write!(
                f,
                "`{role}` holds {other:?} in its other slot, not {wanted:?} to go back to"
            ),
            Self::Incompatible { role, other, why } => {
                write!(f, "`{role}` and `{other}` would not understand each other: {why}")
            }
            Self::TooManyMembers { found, allowed } => {
                write!(f, "the group has {found} devices, a rollout can bring {allowed} together")
            }
            Self::UnknownPast { role, seen, known } => write!(
                f,
                "the group has seen generation {seen}, this lead knows {known}, and the release \
                 leaves out `{role}`"
            ),
            Self::KeysLeftOut { role } => {
                write!(f, "the release brings new keys, which `{role}` would not learn")
            }
            Self::SecureVersionTooLow { role, offered, running }
            | Self::SecureVersionRises { role, offered, running } => {
                fmt_secure_version(f, role, *offered, *running)
            }
            Self::NotSigned { role } => {
                write!(f, "image for `{role}` is not signed for secure boot, the running one is")
            }
            Self::NothingToDo => write!(f, "no device would change"),
        }
    }
}

/// Of both faults, since which one it is follows from the numbers.
fn fmt_secure_version(
    f: &mut fmt::Formatter<'_>,
    role: &Role,
    offered: u32,
    running: u32,
) -> fmt::Result {
    if offered < running {
        return write!(
            f,
            "image for `{role}` has secure version {offered}, the running one has {running}"
        );
    }
    write!(
        f,
        "image for `{role}` raises the secure version from {running} to {offered}, and the \
         release does not say that there is no way back"
    )
}

/// What the rollout is to bring about.
#[derive(Debug, Clone)]
pub(crate) enum Goal {
    Release(Release),
    /// What each member ran before.
    Back(Vec<(DeviceId, ImageHash)>),
}

/// Everything the evaluation looks at.
pub(crate) struct Preflight<'a> {
    pub(crate) goal: &'a Goal,
    pub(crate) lead: DeviceId,
    pub(crate) policy: &'a Policy,
    /// The group's last rollout, if it is known: says on which release the group should be.
    pub(crate) last: Option<&'a RolloutRecord>,
}

impl Preflight<'_> {
    /// Fills in the seats, or names every fault.
    pub(crate) fn evaluate(
        &self,
        seats: &mut [SeatRecord],
        views: &[SeatView],
    ) -> Result<(), Vec<PreflightFault>> {
        let mut faults = Vec::new();
        let mut results = Vec::new();
        for (seat, view) in seats.iter_mut().zip(views) {
            let (Some(facts), Some(report)) = (&view.facts, &view.report) else {
                let waited_ms = self.policy.preflight_ms;
                let fault = Fault::Unreachable { role: seat.role, waited_ms };
                faults.push(PreflightFault { member: Some(seat.id), fault });
                continue;
            };
            self.fill(seat, facts);
            let mut found = Vec::new();
            self.judge_member(seat, facts, report, &mut found);
            results.push((seat.role, self.resulting(seat, facts)));
            let member = Some(seat.id);
            faults.extend(found.into_iter().map(|fault| PreflightFault { member, fault }));
        }
        let mut found = self.judge_release(seats, views);
        if seats.len() > MEMBERS_MAX {
            found.push(Fault::TooManyMembers { found: seats.len(), allowed: MEMBERS_MAX });
        }
        found.extend(self.judge_pairs(&results));
        let updates = seats.iter().any(|seat| seat.part == Part::Update);
        if faults.is_empty() && found.is_empty() && !updates {
            found.push(Fault::NothingToDo);
        }
        faults.extend(found.into_iter().map(|fault| PreflightFault { member: None, fault }));
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// A member whose image does not change is only watched. What it is for, it knows best.
    fn fill(&self, seat: &mut SeatRecord, facts: &Facts) {
        seat.role = facts.role;
        seat.before = facts.running;
        seat.target = self.target(seat, facts);
        seat.part = if seat.target == seat.before { Part::Watch } else { Part::Update };
        seat.size_bytes = match (&self.goal, seat.part) {
            (Goal::Release(release), Part::Update) => {
                release.artifact(&seat.role).map_or(0, |artifact| artifact.size_bytes)
            }
            _ => 0,
        };
    }

    fn target(&self, seat: &SeatRecord, facts: &Facts) -> ImageHash {
        let wanted = match &self.goal {
            Goal::Release(release) => release.artifact(&seat.role).map(|artifact| artifact.image),
            Goal::Back(targets) => {
                targets.iter().find(|(id, _)| *id == seat.id).map(|(_, image)| *image)
            }
        };
        wanted.unwrap_or(facts.running)
    }

    fn artifact(&self, role: &Role) -> Option<&Artifact> {
        match &self.goal {
            Goal::Release(release) => release.artifact(role),
            Goal::Back(_) => None,
        }
    }

    fn judge_member(
        &self,
        seat: &SeatRecord,
        facts: &Facts,
        report: &Report,
        found: &mut Vec<Fault>,
    ) {
        let role = seat.role;
        if report.observed.on_trial {
            found.push(Fault::OnTrial { role });
        }
        found.extend(self.judge_mixed(seat, facts));
        if seat.part == Part::Watch {
            return;
        }
        if facts.rollback == Rollback::None {
            found.push(Fault::NoRollback { role });
        }
        let needed_bytes = self.policy.free_heap_bytes_min;
        if facts.free_heap_bytes < needed_bytes {
            let free_bytes = facts.free_heap_bytes;
            found.push(Fault::LowHeap { role, free_bytes, needed_bytes });
        }
        let allowed_percent = self.policy.link_loss_percent_max;
        if facts.link_loss_percent > allowed_percent {
            let loss_percent = facts.link_loss_percent;
            found.push(Fault::BadLink { role, loss_percent, allowed_percent });
        }
        match &self.goal {
            Goal::Release(release) => judge_artifact(release, role, facts, found),
            Goal::Back(_) if facts.other != seat.target => {
                let (other, wanted) = (facts.other, seat.target);
                found.push(Fault::NoWayBack { role, other, wanted });
            }
            Goal::Back(_) => (),
        }
    }

    /// A member on the losing side of the last rollout is a split that must be closed first; one
    /// that runs something else entirely was flashed by cable, which is its owner's business.
    fn judge_mixed(&self, seat: &SeatRecord, facts: &Facts) -> Option<Fault> {
        let role = seat.role;
        let last = self.last?;
        let past = last.seats.iter().find(|past| past.id == seat.id)?;
        let (expected, lost) = match last.phase.verdict()? {
            Verdict::Keep => (past.target, past.before),
            Verdict::Revert(_) => (past.before, past.target),
        };
        let finishes = self.artifact(&role).is_some_and(|artifact| artifact.image == expected)
            || matches!(self.goal, Goal::Back(_));
        let split = facts.running == lost && expected != lost && !finishes;
        split.then_some(Fault::Mixed { role, running: facts.running, expected })
    }

    fn judge_release(&self, seats: &[SeatRecord], views: &[SeatView]) -> Vec<Fault> {
        let Goal::Release(release) = &self.goal else { return Vec::new() };
        let mut found = self.judge_past(release, seats, views);
        let left_out = seats.iter().filter(|seat| release.brings_keys && seat.part == Part::Watch);
        found.extend(left_out.map(|seat| Fault::KeysLeftOut { role: seat.role }));
        for artifact in &release.artifacts {
            let role = artifact.role;
            if !seats.iter().any(|seat| seat.role == role) {
                found.push(Fault::NoDeviceForRole { role });
            }
            let lead = seats.iter().zip(views).find(|(seat, _)| seat.id == self.lead);
            let Some(facts) = lead.and_then(|(_, view)| view.facts) else { continue };
            let (size_bytes, slot_bytes) = (artifact.size_bytes, facts.slot_size_bytes);
            if role != facts.role && size_bytes > slot_bytes {
                found.push(Fault::TooLargeToSpool { role, size_bytes, slot_bytes });
            }
        }
        found
    }

    /// A lead that lost its record, or is a new board, does not know how the last rollout ended:
    /// the group may be mixed, and only a release for all roles is sure to close that.
    fn judge_past(
        &self,
        release: &Release,
        seats: &[SeatRecord],
        views: &[SeatView],
    ) -> Vec<Fault> {
        let known = self.last.map(|last| last.generation).unwrap_or_default();
        let seen = views.iter().filter_map(|view| view.facts).map(|facts| facts.generation);
        let Some(seen) = seen.max().filter(|&seen| seen > known) else { return Vec::new() };
        let left_out = seats.iter().filter(|seat| release.artifact(&seat.role).is_none());
        left_out.map(|seat| Fault::UnknownPast { role: seat.role, seen, known }).collect()
    }

    /// What the member will announce once the rollout is kept.
    fn resulting(&self, seat: &SeatRecord, facts: &Facts) -> Option<Announced> {
        match (&self.goal, seat.part) {
            (Goal::Release(release), Part::Update) => {
                release.artifact(&seat.role).map(|artifact| artifact.announced)
            }
            // What an image in the other slot will announce was judged when it was new.
            (Goal::Back(_), Part::Update) => None,
            (_, Part::Watch) => Some(facts.announced),
        }
    }

    fn judge_pairs(&self, results: &[(Role, Option<Announced>)]) -> Vec<Fault> {
        let mut found = Vec::new();
        for (index, (role, mine)) in results.iter().enumerate() {
            for (other, yours) in results.iter().skip(index + 1) {
                let (Some(mine), Some(yours)) = (mine, yours) else { continue };
                // The gates of both will ask, and the one-sided rule answers each for itself.
                if let Err(why) = check(self.policy.rule, mine, yours) {
                    found.push(Fault::Incompatible { role: *role, other: *other, why });
                } else if let Err(why) = check(self.policy.rule, yours, mine) {
                    found.push(Fault::Incompatible { role: *other, other: *role, why });
                }
            }
        }
        found
    }
}

fn judge_artifact(release: &Release, role: Role, facts: &Facts, found: &mut Vec<Fault>) {
    let Some(artifact) = release.artifact(&role) else { return };
    if artifact.chip != facts.chip {
        let (image, device) = (artifact.chip, facts.chip);
        found.push(Fault::WrongChip { role, image, device });
    }
    if artifact.board != Board::EMPTY && artifact.board != facts.board {
        let (image, device) = (artifact.board, facts.board);
        found.push(Fault::WrongBoard { role, image, device });
    }
    let (size_bytes, slot_bytes) = (artifact.size_bytes, facts.slot_size_bytes);
    if size_bytes > slot_bytes {
        found.push(Fault::TooLarge { role, size_bytes, slot_bytes });
    }
    if release.epoch < facts.epoch_floor {
        let (offered, floor) = (release.epoch, facts.epoch_floor);
        found.push(Fault::EpochTooLow { role, offered, floor });
    }
    let (offered, running) = (artifact.guard.secure_version, facts.guard.secure_version);
    if offered < running {
        // Its bootloader, if it watches this at all, would not boot it.
        found.push(Fault::SecureVersionTooLow { role, offered, running });
    } else if offered > running && artifact.is_reversible {
        found.push(Fault::SecureVersionRises { role, offered, running });
    }
    if facts.guard.is_signed && !artifact.guard.is_signed {
        found.push(Fault::NotSigned { role });
    }
    if artifact.announced.number == facts.announced.number {
        found.push(Fault::SameVersionOtherImage {
            role,
            number: facts.announced.number,
            running: facts.running,
            offered: artifact.image,
        });
    }
}
