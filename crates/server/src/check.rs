//! What will go wrong with a release in the field, said before anybody is offered it. No I/O.
//!
//! Preflight, on the devices, says the same and more, but to one group at a time and when it is
//! being updated. Of a lead the server knows what it says of itself; of a member it knows the image
//! that runs, and so what the release that brought it was for.

use std::collections::BTreeMap;

use lockstep_proto::version::ReleaseVersion;
use lockstep_proto::words::{self, Words};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::manifests::{Facts, RoleFacts};
use crate::route::{Stop, next_stop};
use crate::store::groups::Device;

/// A group as far as a release concerns it.
#[derive(Debug, Clone)]
pub struct FieldGroup {
    /// What people call it.
    pub name: String,
    /// Its devices.
    pub devices: Vec<Device>,
    /// What its lead says of itself; `None`: it has not come yet, or is too old to say.
    pub lead: Option<LeadFacts>,
}

/// What a lead says of itself in `GET /api/version`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LeadFacts {
    /// Its chip.
    #[serde(default)]
    pub chip: String,
    /// Its board.
    #[serde(default)]
    pub board: String,
    /// Whether it takes releases that nobody has signed.
    #[serde(default)]
    pub trusts_anybody: bool,
    /// Releases below are refused.
    #[serde(default)]
    pub epoch: u32,
    /// Size of its smaller slot; 0: it does not say.
    #[serde(default)]
    pub slot_bytes: u32,
    /// `bootloader`, `agent` or `none`.
    #[serde(default)]
    pub rollback: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// The groups would refuse it.
    Stops,
    /// It works, and somebody should know.
    Warns,
}

/// Something that will go wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Finding {
    /// How bad it is.
    pub weight: Weight,
    /// For programs.
    pub code: &'static str,
    /// What, for people.
    pub text: String,
    /// So many groups.
    pub groups: usize,
    /// The names of the first of them.
    pub names: Vec<String>,
}

impl Finding {
    /// Whether the groups would refuse it.
    pub const fn stops(&self) -> bool {
        matches!(self.weight, Weight::Stops)
    }
}

/// What will go wrong, the worst first.
pub fn check(
    release: &Facts,
    signatures: u32,
    field: &[FieldGroup],
    known: &[Facts],
) -> Vec<Finding> {
    let mut findings = Findings::default();
    for group in field {
        of_lead(release, signatures, group, &mut findings);
        of_devices(release, group, known, &mut findings);
    }
    of_ways(release, field, known, &mut findings);
    of_labels(release, known, &mut findings);
    findings.worst_first()
}

/// What will go wrong with one device of a group, the worst first.
pub fn check_device(
    release: &Facts,
    signatures: u32,
    group: &FieldGroup,
    device: &Device,
    known: &[Facts],
) -> Vec<Finding> {
    let mut findings = Findings::default();
    if device.is_lead {
        of_lead(release, signatures, group, &mut findings);
    }
    of_device(release, device, &group.name, known, &mut findings);
    let alone = FieldGroup { devices: vec![device.clone()], ..group.clone() };
    of_ways(release, &[alone], known, &mut findings);
    findings.worst_first()
}

/// Findings, each once, with the groups that it is about.
#[derive(Default)]
struct Findings(BTreeMap<(Weight, &'static str, String), Vec<String>>);

impl Findings {
    fn add(&mut self, weight: Weight, code: &'static str, text: String, group: Option<&str>) {
        let names = self.0.entry((weight, code, text)).or_default();
        names.extend(group.map(str::to_owned));
    }

    fn worst_first(self) -> Vec<Finding> {
        let finding = |((weight, code, text), mut names): ((_, _, _), Vec<String>)| {
            names.dedup();
            let groups = names.len();
            names.truncate(NAMES_MAX);
            Finding { weight, code, text, groups, names }
        };
        self.0.into_iter().map(finding).collect()
    }
}

fn of_lead(release: &Facts, signatures: u32, group: &FieldGroup, findings: &mut Findings) {
    let name = Some(group.name.as_str());
    let Some(lead) = &group.lead else {
        let text = "has not said yet what it is".to_owned();
        return findings.add(Weight::Warns, "unknown-lead", text, name);
    };
    let mut stops = |code, text| findings.add(Weight::Stops, code, text, name);
    if signatures == 0 && !lead.trusts_anybody {
        stops("unsigned", "takes signed releases alone, and this one is not signed".to_owned());
    }
    if release.epoch < lead.epoch {
        let text = format!("refuses epochs below {}, this one has {}", lead.epoch, release.epoch);
        stops("epoch-too-low", text);
    }
    if lead.rollback == "none" {
        stops("no-rollback", "the lead could not go back from a bad image".to_owned());
    }
    let role = group.devices.iter().find(|device| device.is_lead).map(|lead| lead.role.as_str());
    for (role_name, role_facts) in &release.roles {
        // Whatever the group is given passes through the lead's slot.
        if lead.slot_bytes > 0 && role_facts.size_bytes > lead.slot_bytes {
            let (found, room) = (role_facts.size_bytes, lead.slot_bytes);
            let text = format!("{role_name} has {found} bytes, the lead's slot {room}");
            stops("too-large", text);
        }
        if role == Some(role_name.as_str()) {
            let lead_is =
                [("chip", &role_facts.chip, &lead.chip), ("board", &role_facts.board, &lead.board)];
            for (what, wanted, found) in lead_is {
                if !wanted.is_empty() && !found.is_empty() && wanted != found {
                    let text =
                        format!("{role_name} is for the {what} {wanted}, the lead has {found}");
                    stops("wrong-hardware", text);
                }
            }
        }
    }
    if release.epoch > lead.epoch {
        let text = format!(
            "raises the epoch from {} to {}: once it is kept there is no way back to a release \
             below it",
            lead.epoch, release.epoch
        );
        findings.add(Weight::Warns, "epoch-raised", text, name);
    }
}

fn of_devices(release: &Facts, group: &FieldGroup, known: &[Facts], findings: &mut Findings) {
    let name = Some(group.name.as_str());
    for role in release.roles.keys() {
        if !group.devices.is_empty() && !group.devices.iter().any(|it| it.role == *role) {
            let text = format!("has no {role}, for which the release has an image");
            // A lead that came just now may not have heard of all its members yet.
            findings.add(Weight::Warns, "no-device-for-role", text, name);
        }
    }
    for device in &group.devices {
        of_device(release, device, &group.name, known, findings);
    }
}

fn of_device(
    release: &Facts,
    device: &Device,
    group: &str,
    known: &[Facts],
    findings: &mut Findings,
) {
    let name = Some(group);
    let Some(next) = release.roles.get(&device.role) else {
        let text = format!("{} is not in the release, and stays as it is", device.role);
        return findings.add(Weight::Warns, "role-stays", text, name);
    };
    if device.number > release.number {
        let version = ReleaseVersion::from_number(device.number);
        let text = format!("{} runs {version}, which is newer", device.role);
        findings.add(Weight::Warns, "downgrade", text, name);
    }
    // The release itself is not among those that are known beside it.
    let runs_it = device.says_its_image() && next.image_sha256.starts_with(&device.image);
    match running(device, known) {
        _ if runs_it => (),
        Some(now) => of_image(device, now, next, name, findings),
        None => {
            let text = format!(
                "{} runs an image of no release here: what it is made for cannot be checked",
                device.role
            );
            findings.add(Weight::Warns, "unknown-image", text, name);
        }
    }
}

/// What the release that a device runs says of its image.
fn running<'a>(device: &Device, known: &'a [Facts]) -> Option<&'a RoleFacts> {
    let is_it =
        |it: &&RoleFacts| device.says_its_image() && it.image_sha256.starts_with(&device.image);
    known.iter().filter_map(|facts| facts.roles.get(&device.role)).find(is_it)
}

fn of_image(
    device: &Device,
    now: &RoleFacts,
    next: &RoleFacts,
    group: Option<&str>,
    findings: &mut Findings,
) {
    let role = &device.role;
    for (what, found, wanted) in
        [("chip", &now.chip, &next.chip), ("board", &now.board, &next.board)]
    {
        if !found.is_empty() && !wanted.is_empty() && found != wanted {
            let text = format!("{role} is for the {what} {wanted}, the device has {found}");
            findings.add(Weight::Stops, "wrong-hardware", text, group);
        }
    }
    if !now.flash.is_empty() && !next.flash.is_empty() && now.flash != next.flash {
        let text = format!(
            "{role} is made for flash {}, what runs is for {}: an update over the air does not \
             change how the bootloader reads it",
            next.flash, now.flash
        );
        findings.add(Weight::Warns, "flash-changed", text, group);
    }
    of_guard(role, now, next, group, findings);
}

/// As preflight judges what the chip's bootloader may demand of an image.
fn of_guard(
    role: &str,
    now: &RoleFacts,
    next: &RoleFacts,
    group: Option<&str>,
    findings: &mut Findings,
) {
    let mut stops = |words: Words, text| findings.add(Weight::Stops, words.code, text, group);
    let (offered, running) = (next.guard.secure_version, now.guard.secure_version);
    if offered < running {
        let text = format!(
            "{role} has secure version {offered}, what runs has {running}: its chip may not boot it"
        );
        stops(words::SECURE_VERSION_TOO_LOW, text);
    } else if offered > running && next.is_reversible {
        let text = format!(
            "{role} raises the secure version from {running} to {offered}: once it is kept the \
             chip may not boot what it runs now again, and the release does not say so"
        );
        stops(words::SECURE_VERSION_RISES, text);
    }
    if now.guard.is_signed && !next.guard.is_signed {
        let text = format!("{role} is not signed for secure boot, what runs is");
        stops(words::NOT_SIGNED, text);
    }
}

/// Whether devices of what is in the field and devices of the release speak to each other, both
/// ways, or by way of another release.
fn of_ways(release: &Facts, field: &[FieldGroup], known: &[Facts], findings: &mut Findings) {
    let stops: Vec<Stop> = known
        .iter()
        .map(|it| Stop::of(&ReleaseVersion::from_number(it.number).to_string(), it))
        .collect();
    let to = Stop::of("", release);
    for from in stops.iter().filter(|stop| stop.number != release.number) {
        let is_on = |device: &Device| device.number == from.number;
        let mut groups = field.iter().filter(|group| group.devices.iter().any(is_on)).peekable();
        if groups.peek().is_none() || from.speaks_to(&to) {
            continue;
        }
        let version = &from.id;
        let text = match next_stop(from, &to, &stops) {
            Some(stop) => format!(
                "speaks to no device on {version}; goes by way of {}, which speaks to both",
                stop.id
            ),
            None => format!(
                "speaks to no device on {version}, and no release speaks to both: a member that is \
                 late is not heard until it is updated"
            ),
        };
        for group in groups {
            findings.add(Weight::Warns, "no-overlap", text.clone(), Some(&group.name));
        }
    }
}

/// A label that stands for two images.
fn of_labels(release: &Facts, known: &[Facts], findings: &mut Findings) {
    for other in
        known.iter().filter(|it| it.system == release.system && it.number == release.number)
    {
        for (role, facts) in &release.roles {
            let differs = |it: &RoleFacts| it.image_sha256 != facts.image_sha256;
            if other.roles.get(role).is_some_and(differs) {
                let version = ReleaseVersion::from_number(release.number);
                let text = format!("another release {version} has another image for {role}");
                findings.add(Weight::Warns, "label-taken", text, None);
            }
        }
    }
}

/// Names of groups that a finding lists.
const NAMES_MAX: usize = 10;

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
