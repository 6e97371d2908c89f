//! What is to be done, and in which order: decided before anything is written, from what was seen.
//!
//! Between the first and the second update one device runs the old firmware and the other the new.
//! They talk then if the new one takes the old one's version, and the old one takes the new one's:
//! old firmware asks only whether the other is new enough for itself, ours asks both ways. The
//! order is the one in which that holds. If it holds in both, the transmitter comes first: it is
//! reached by cable, whatever the radio does, and the receiver, which leads, finds a member when it
//! starts.

use lockstep_proto::compat::{Rule, check};
use serde_json::{Value, json};

use super::offer::Offer;
use super::survey::{Found, Part, Survey, Way};
use crate::error::CommandError;

/// One device's update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The image is posted to it.
    Network(Part, Way),
    /// Somebody has to go there.
    Cable(Part),
}

impl Step {
    pub(super) const fn part(self) -> Part {
        match self {
            Self::Network(part, _) | Self::Cable(part) => part,
        }
    }
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// In this order.
    pub(super) steps: Vec<Step>,
    /// Why the two do not talk between the first and the second.
    pub(super) gap: Option<String>,
    /// What was not said, and so is not known.
    unsure: Vec<String>,
}

impl Plan {
    /// Refuses what cannot be done at all.
    pub(super) fn make(
        survey: &Survey,
        offer: &Offer,
        slot_bytes: u32,
    ) -> Result<Self, CommandError> {
        let olds: Vec<Part> = BOTH.into_iter().filter(|&part| survey.old(part).is_some()).collect();
        for &part in &olds {
            let Some(new) = offer.of(part) else {
                return Err(CommandError::failed(format!(
                    "There is a {part} of the original project, and no image for it"
                ))
                .hinted("Nothing was written. A release for both brings both along."));
            };
            if survey.old(part).is_some_and(|old| old.way != Way::Nothing) {
                new.check_slot(slot_bytes)?;
            }
        }
        let (order, gap) = order(survey, offer, &olds);
        let step = |part: Part| match survey.old(part).map(|old| old.way) {
            Some(Way::Nothing) | None => Step::Cable(part),
            Some(way) => Step::Network(part, way),
        };
        let steps = order.into_iter().map(step).collect();
        Ok(Self { steps, gap, unsure: unsure(survey, offer, &olds) })
    }

    /// For people.
    pub(super) fn lines(&self, offer: &Offer, slot_bytes: u32) -> Vec<String> {
        let mut lines = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            let part = step.part();
            let version = offer.of(part).map(|new| new.version.to_string()).unwrap_or_default();
            let how = match step {
                Step::Network(_, Way::TwoSteps) => "over the network, by way of its file system",
                Step::Network(..) => "over the network",
                Step::Cable(_) => "by cable, once: its old firmware takes no image for itself",
            };
            lines.push(format!("{}. The {part} comes to {version}, {how}.", index + 1));
        }
        if self.steps.is_empty() {
            lines.push("Nobody runs the original firmware any more.".to_owned());
            return lines;
        }
        if self.steps.len() > 1 && self.gap.is_none() && self.unsure.is_empty() {
            lines.push("In this order they go on talking in between.".to_owned());
        }
        lines.extend(
            self.gap.iter().map(|gap| format!("Until both are done they do not talk: {gap}.")),
        );
        lines.push(format!(
            "Not asked for, since old firmware does not tell: chip and partition table. Taken for \
             granted: slots of {slot_bytes} bytes, and a partition `lockstep`, `spiffs` or \
             `coredump` in which the new firmware keeps its record (the end of `spiffs` is \
             overwritten). Without one it does not start as a device of a group, and says so on \
             its console."
        ));
        lines.extend(self.unsure.iter().cloned());
        lines
    }

    /// For programs.
    pub(super) fn to_json(&self) -> Value {
        let steps = self.steps.iter().map(|step| {
            let way = match step {
                Step::Network(..) => "network",
                Step::Cable(_) => "cable",
            };
            json!({ "part": step.part().name(), "way": way })
        });
        json!({ "steps": steps.collect::<Vec<_>>(), "gap": self.gap, "unsure": self.unsure })
    }
}

/// The order, and why there is a gap in any order.
fn order(survey: &Survey, offer: &Offer, olds: &[Part]) -> (Vec<Part>, Option<String>) {
    let first = |part: Part| vec![part, part.other()];
    match olds {
        [] => (Vec::new(), None),
        // The other one is of ours, or is not there. A release keeps its own roles talking.
        [part] => {
            let other = part.other();
            let is_there =
                offer.of(other).is_some_and(|new| survey.runs(other, &new.image.to_string()));
            let gap = if is_there { None } else { talks(survey, offer, *part).err() };
            (vec![*part], gap)
        }
        _ => match BOTH.map(|part| talks(survey, offer, part)) {
            [Ok(()), _] => (first(Part::Transmitter), None),
            [Err(_), Ok(())] => (first(Part::Receiver), None),
            [Err(why), Err(_)] => (first(Part::Transmitter), Some(why)),
        },
    }
}

/// Whether the two talk when only `part` is updated. What is not known does not keep them apart.
fn talks(survey: &Survey, offer: &Offer, part: Part) -> Result<(), String> {
    let other = part.other();
    let (Some(new), Some(old)) = (offer.of(part), survey.announced(other)) else { return Ok(()) };
    check(Rule::BothWays, &new.announced, &old).map_err(|why| {
        format!("with the {part} at {} and the {other} as it is, {why}", new.version)
    })
}

fn unsure(survey: &Survey, offer: &Offer, olds: &[Part]) -> Vec<String> {
    let unknown = |part: Part| match survey.found(part) {
        None if offer.of(part).is_some() => Some(format!("No {part} was looked at")),
        Some(Found::Old(old)) if old.version.is_none() && olds.len() > 1 => {
            Some(format!("The {part} does not say its version"))
        }
        _ => None,
    };
    let unknown = BOTH.into_iter().filter_map(unknown);
    unknown.map(|what| format!("{what}: whether the two go on talking is not known.")).collect()
}

/// Who comes first where it does not matter.
const BOTH: [Part; 2] = [Part::Transmitter, Part::Receiver];
