//! What is at an address, and what runs there.
//!
//! Only questions are asked, of kinds that no firmware answers with more than words. Old firmware
//! tells little and not always: what it did not say is not made up here.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use lockstep_proto::compat::Announced;
use lockstep_proto::version::{ProtocolRange, ReleaseVersion};
use serde_json::{Value, json};

use super::offer::Offer;
use super::shown;
use crate::client::api::Version;
use crate::client::{Client, ClientError};
use crate::error::CommandError;
use crate::ui::{Ui, listed, table, tame};

/// What a device of the original project is for. It has these two and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// On Ethernet, with the update page that takes images.
    Transmitter,
    /// With the screen; the lead of a group of ours.
    Receiver,
}

impl Part {
    /// The role.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Transmitter => "transmitter",
            Self::Receiver => "receiver",
        }
    }

    /// The only other one.
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Transmitter => Self::Receiver,
            Self::Receiver => Self::Transmitter,
        }
    }

    fn of(text: &str) -> Option<Self> {
        let named = |part: &Self| part.name().eq_ignore_ascii_case(text.trim());
        [Self::Transmitter, Self::Receiver].into_iter().find(named)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How old firmware takes an image for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// `POST /ota_upload`, and it restarts.
    OneStep,
    /// `POST /api/ota/upload` into its file system, then `POST /api/ota/install`.
    TwoSteps,
    /// None. (What a receiver takes at `/api/ota_upload` it passes on to the transmitter.)
    Nothing,
}

/// A device of the original project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Old {
    /// What it says it is.
    pub(super) part: Part,
    /// What it runs, as it puts it.
    pub(super) said: String,
    /// What it runs.
    pub(super) version: Option<ReleaseVersion>,
    /// The oldest version it talks to.
    pub(super) minimum: Option<u32>,
    /// The protocol it speaks.
    pub(super) protocol: Option<u8>,
    /// When it was built, as it puts it.
    pub(super) built: String,
    /// How it takes an image.
    pub(super) way: Way,
}

impl Old {
    /// What it announces to others, if it said which version it runs. A minimum that it keeps to
    /// itself is none, and the protocol that it does not name is the only one there was.
    pub(super) fn announced(&self) -> Option<Announced> {
        Some(Announced {
            number: self.version?.number(),
            min_compatible: self.minimum.unwrap_or(0),
            protocol: ProtocolRange::single(self.protocol.unwrap_or(1)),
        })
    }
}

/// What is at an address.
#[derive(Debug, Clone)]
pub(super) enum Found {
    /// No answer; why.
    Nobody(String),
    /// Something else.
    Stranger,
    /// A device of the original project.
    Old(Old),
    /// A device of ours.
    Ours(Box<Version>),
}

impl Found {
    /// What it is for.
    pub(super) fn part(&self) -> Option<Part> {
        match self {
            Self::Nobody(_) | Self::Stranger => None,
            Self::Old(old) => Some(old.part),
            Self::Ours(version) => Part::of(version.role.as_deref()?),
        }
    }

    /// What it runs, in a word.
    pub(super) fn runs(&self) -> String {
        match self {
            Self::Nobody(_) => "nothing that answers".to_owned(),
            Self::Stranger => "no firmware that is known here".to_owned(),
            Self::Old(old) => format!("the original firmware, {}", shown(&old.said)),
            Self::Ours(version) if version.on_trial => {
                format!("Lockstep, {} on trial", tame(&version.version))
            }
            Self::Ours(version) => format!("Lockstep, {}", tame(&version.version)),
        }
    }

    fn row(&self) -> [String; 3] {
        match self {
            Self::Nobody(why) => ["does not answer".into(), "-".into(), tame(why)],
            Self::Stranger => ["something else".into(), "-".into(), "-".into()],
            Self::Old(old) => ["original".into(), shown(&old.said), shown(&old.built)],
            Self::Ours(version) => ["Lockstep".into(), shown(&version.version), "-".into()],
        }
    }
}

/// Asks what is there.
pub(super) fn look(address: &str) -> Found {
    let Ok(client) = Client::new(address, None) else { return Found::Stranger };
    let version = match client.get::<Value>("/api/version") {
        Ok(answer) => Some(answer),
        Err(ClientError::NotOurs { .. } | ClientError::Refused { .. }) => None,
        Err(error) => return Found::Nobody(error.to_string()),
    };
    if let Some(answer) = &version {
        let ours = serde_json::from_value::<Version>(answer.clone()).unwrap_or_default();
        if ours.id.is_some() && ours.role.is_some() && !ours.image.is_empty() {
            return Found::Ours(Box::new(ours));
        }
    }
    let info = match client.get::<Value>("/api/firmware_info") {
        Ok(answer) => Some(answer),
        Err(error) if error.is_passing() => return Found::Nobody(error.to_string()),
        Err(_) => None,
    };
    // An answer that got lost is no "no": a receiver would be sent to the cable for it.
    let lost = RefCell::new(None);
    let takes = |path: &str| {
        is_known(&client, path).unwrap_or_else(|why| {
            lost.replace(Some(why));
            false
        })
    };
    let found = old(version.as_ref(), info.as_ref(), &takes);
    match (lost.into_inner(), found) {
        (Some(why), _) => Found::Nobody(why),
        (None, Some(old)) => Found::Old(old),
        (None, None) => Found::Stranger,
    }
}

/// The same for somebody who is known to be there: one that starts, or is asked by another one, may
/// not answer at once.
pub(super) fn look_patiently(address: &str) -> Found {
    for _ in 1..LOOKS_MAX {
        match look(address) {
            Found::Nobody(_) => thread::sleep(LOOK_AGAIN),
            found => return found,
        }
    }
    look(address)
}

/// Reads the answers of old firmware; `takes` says whether it knows a path that is posted to.
fn old(version: Option<&Value>, info: Option<&Value>, takes: &dyn Fn(&str) -> bool) -> Option<Old> {
    let text = |name: &str| {
        let found = [version, info].into_iter().flatten();
        let found = found.filter_map(|answer| answer.get(name)?.as_str());
        found.map(str::trim).find(|text| !text.is_empty()).unwrap_or_default().to_owned()
    };
    let number = |name: &str| version.and_then(|answer| answer.get(name)?.as_u64());
    let part = Part::of(&text("device")).or_else(|| {
        // An image without its block of metadata calls itself nothing; only transmitters are asked
        // this way, and only receivers have the other path.
        match info.is_some_and(|answer| answer.get("valid").is_some()) {
            true => Some(Part::Transmitter),
            false => takes("/api/ota_upload").then_some(Part::Receiver),
        }
    })?;
    let said = text("version");
    let way = match part {
        Part::Transmitter => Way::OneStep,
        Part::Receiver if takes("/api/ota/install") => Way::TwoSteps,
        Part::Receiver => Way::Nothing,
    };
    let by_number = number("version_number").and_then(|it| u32::try_from(it).ok());
    let by_text = said.trim_start_matches(['v', 'V']).parse().ok();
    Some(Old {
        part,
        version: by_text.or(by_number.map(ReleaseVersion::from_number)),
        minimum: number("min_compatible").and_then(|it| u32::try_from(it).ok()),
        protocol: number("protocol_version").and_then(|it| u8::try_from(it).ok()),
        built: format!("{} {}", text("build_date"), text("build_time")).trim().to_owned(),
        said,
        way,
    })
}

/// Whether there is something at a path that only takes `POST`: `405` and not `404`. `Err`: nobody
/// has answered.
fn is_known(client: &Client, path: &str) -> Result<bool, String> {
    match client.get::<Value>(path) {
        Ok(_) => Ok(true),
        Err(ClientError::NotOurs { status, .. } | ClientError::Refused { status, .. }) => {
            Ok(status == METHOD_NOT_ALLOWED)
        }
        Err(error @ (ClientError::Unreachable { .. } | ClientError::Cut { .. })) => {
            Err(error.to_string())
        }
    }
}

/// A network in the form `192.168.1.0/24`, of at most 256 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    first: u32,
    count: u32,
}

impl FromStr for Range {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, bits) = text.split_once('/').ok_or("expected such as 192.168.1.0/24")?;
        let address: Ipv4Addr = address.parse().map_err(|_| "is no address of IPv4")?;
        let bits: u32 = bits.parse().map_err(|_| "has no number behind the `/`")?;
        if !(24..=32).contains(&bits) {
            return Err("is too large or none: from /24 (256 addresses) to /32");
        }
        let count = 1 << (32 - bits);
        Ok(Self { first: address.to_bits() & !(count - 1), count })
    }
}

/// All that was looked at.
#[derive(Debug)]
pub(super) struct Survey {
    seen: Vec<(String, Found)>,
    chosen: BTreeMap<Part, usize>,
}

impl Survey {
    /// Asks who was named, then the network. Whoever was named must be what it was named as.
    pub(super) fn make(
        ui: &Ui,
        named: Vec<(Part, String)>,
        range: Option<Range>,
        port: u16,
    ) -> Result<Self, CommandError> {
        let mut survey = Self { seen: Vec::new(), chosen: BTreeMap::new() };
        for (part, address) in named {
            let found = look_patiently(&address);
            expect(part, &address, &found)?;
            survey.chosen.insert(part, survey.seen.len());
            survey.seen.push((address, found));
        }
        if let Some(range) = range {
            survey.find(ui, range, port)?;
        }
        Ok(survey)
    }

    fn find(&mut self, ui: &Ui, range: Range, port: u16) -> Result<(), CommandError> {
        let spinner = ui.spinner(format!("Asking {} addresses", range.count));
        let found = scan(range, port);
        spinner.finish_and_clear();
        for (address, found) in found {
            if !self.seen.iter().any(|(known, _)| *known == address) {
                self.seen.push((address, found));
            }
        }
        for part in [Part::Transmitter, Part::Receiver] {
            if self.chosen.contains_key(&part) {
                continue;
            }
            let mut all = self.seen.iter().enumerate();
            let is_it = |(_, (_, found)): &(usize, &(String, Found))| found.part() == Some(part);
            let (Some((index, _)), more) = (all.find(is_it), all.filter(is_it).count()) else {
                continue;
            };
            if more > 0 {
                let addresses = self.seen.iter().filter(|(_, found)| found.part() == Some(part));
                let addresses = listed(addresses.map(|(address, _)| address));
                return Err(CommandError::failed(format!(
                    "There are several {part}s: {addresses}"
                ))
                .hinted(format!("Say which one: --{part} ADDRESS")));
            }
            self.chosen.insert(part, index);
        }
        Ok(())
    }

    /// What is at a part's address, as it was looked at.
    pub(super) fn found(&self, part: Part) -> Option<&Found> {
        self.seen.get(*self.chosen.get(&part)?).map(|(_, found)| found)
    }

    /// A part's address.
    pub(super) fn address(&self, part: Part) -> Option<&str> {
        self.seen.get(*self.chosen.get(&part)?).map(|(address, _)| address.as_str())
    }

    /// A part that runs the original firmware.
    pub(super) fn old(&self, part: Part) -> Option<&Old> {
        match self.found(part)? {
            Found::Old(old) => Some(old),
            Found::Nobody(_) | Found::Stranger | Found::Ours(_) => None,
        }
    }

    /// What a part announces to the other one, as far as it says so.
    pub(super) fn announced(&self, part: Part) -> Option<Announced> {
        match self.found(part)? {
            Found::Old(old) => old.announced(),
            Found::Ours(version) => {
                let [min, max] = version.protocol_range?;
                Some(Announced {
                    number: version.version_number?,
                    min_compatible: version.min_compatible?,
                    protocol: ProtocolRange::new(min, max).ok()?,
                })
            }
            Found::Nobody(_) | Found::Stranger => None,
        }
    }

    /// Whether a part runs this very image.
    pub(super) fn runs(&self, part: Part, image: &str) -> bool {
        matches!(self.found(part), Some(Found::Ours(version)) if version.image == image)
    }

    /// The parts that are there, and where.
    pub(super) fn parts(&self) -> impl Iterator<Item = (Part, &str)> {
        self.chosen.keys().filter_map(|&part| Some((part, self.address(part)?)))
    }

    /// For people.
    pub(super) fn table(&self, offer: Option<&Offer>) -> String {
        let head = ["ADDRESS", "PART", "FIRMWARE", "VERSION", "BUILT", "COMES TO"];
        let mut rows = vec![head.map(String::from).to_vec()];
        for (address, found) in &self.seen {
            let part = found.part();
            let comes_to = part.and_then(|part| offer?.of(part));
            let comes_to = comes_to.map_or_else(|| "-".to_owned(), |new| new.version.to_string());
            let part = part.map_or("-", Part::name).to_owned();
            let mut row = vec![address.clone(), part];
            row.extend(found.row());
            row.push(comes_to);
            rows.push(row);
        }
        match rows.len() {
            1 => "Nobody was found.".to_owned(),
            _ => table(&rows),
        }
    }

    /// For programs.
    pub(super) fn to_json(&self) -> Value {
        let one = |(address, found): &(String, Found)| {
            let kind = match found {
                Found::Nobody(_) => "silent",
                Found::Stranger => "other",
                Found::Old(_) => "original",
                Found::Ours(_) => "lockstep",
            };
            let [_, version, built] = found.row();
            let part = found.part().map(Part::name);
            json!({ "address": address, "part": part, "firmware": kind, "version": version,
                    "built": built })
        };
        self.seen.iter().map(one).collect()
    }
}

/// Refuses an address at which there is something else than was said.
pub(super) fn expect(part: Part, address: &str, found: &Found) -> Result<(), CommandError> {
    let hint = "Nothing was written. Is that its address, and its port?";
    match found {
        Found::Nobody(why) => {
            Err(CommandError::failed(format!("The {part} at `{address}` does not answer"))
                .hinted(format!("Nothing was written: {why}. Is it on, in this network?")))
        }
        Found::Stranger => Err(CommandError::failed(format!(
            "What is at `{address}` is no device of the original project, nor of Lockstep"
        ))
        .hinted(hint)),
        found if found.part() != Some(part) => {
            let is = found.part().map_or("device of another role", Part::name);
            Err(CommandError::failed(format!("At `{address}` is a {is}, not a {part}"))
                .hinted(hint))
        }
        Found::Old(_) | Found::Ours(_) => Ok(()),
    }
}

/// Everybody in a range who has a page, a few asked at a time.
fn scan(range: Range, port: u16) -> Vec<(String, Found)> {
    let next = AtomicU32::new(0);
    let found = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..ASKED_AT_ONCE {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= range.count {
                        return;
                    }
                    let ip = Ipv4Addr::from_bits(range.first + index);
                    let place = SocketAddr::new(IpAddr::V4(ip), port);
                    // Whoever does not listen there is nobody worth a line.
                    if TcpStream::connect_timeout(&place, KNOCK_MAX).is_err() {
                        continue;
                    }
                    let address = if port == 80 { ip.to_string() } else { place.to_string() };
                    let what = look(&address);
                    if let Ok(mut found) = found.lock() {
                        found.insert(index, (address, what));
                    }
                }
            });
        }
    });
    found.into_inner().unwrap_or_default().into_values().collect()
}

/// How often somebody who was named is asked.
const LOOKS_MAX: u32 = 3;
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const METHOD_NOT_ALLOWED: u16 = 405;
/// Small devices have few sockets, and routers count who knocks everywhere.
const ASKED_AT_ONCE: usize = 16;
/// Long for a network at home.
const KNOCK_MAX: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_256_addresses_at_most() {
        let range: Range = "192.168.1.77/24".parse().unwrap();
        assert_eq!((range.first, range.count), (0xC0A8_0100, 256));
        assert_eq!("10.0.0.1/32".parse(), Ok(Range { first: 0x0A00_0001, count: 1 }));
        for wrong in ["10.0.0.0/23", "10.0.0.0/33", "10.0.0.0", "a/24", "10.0.0.0/x"] {
            assert!(wrong.parse::<Range>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn old_firmware_is_known_by_whatever_it_says() {
        let nothing = |_: &str| false;
        let info = json!({ "valid": true, "env": "olimex", "device": "TRANSMITTER",
                           "version": "v1.2.3", "build_date": "Feb  3 2026" });
        let transmitter = old(None, Some(&info), &nothing).unwrap();
        assert_eq!(transmitter.part, Part::Transmitter);
        assert_eq!(transmitter.announced().unwrap().number, 10203);
        assert_eq!(transmitter.way, Way::OneStep);
        let plan = json!({ "device": "RECEIVER", "version": "1.0.0", "version_number": 10000,
                           "min_compatible": 10000, "protocol_version": 2 });
        let receiver = old(Some(&plan), None, &nothing).unwrap();
        assert_eq!((receiver.way, receiver.minimum), (Way::Nothing, Some(10000)));
        assert_eq!(receiver.announced().unwrap().protocol, ProtocolRange::single(2));
        let install = |path: &str| path == "/api/ota/install";
        assert_eq!(old(Some(&plan), None, &install).unwrap().way, Way::TwoSteps);
        // Without words of its own: by the paths it has.
        let mute = old(None, None, &|path: &str| path == "/api/ota_upload").unwrap();
        assert_eq!((mute.part, mute.announced()), (Part::Receiver, None));
        let invalid = json!({ "valid": false });
        assert_eq!(old(None, Some(&invalid), &nothing).unwrap().part, Part::Transmitter);
        assert_eq!(old(None, Some(&json!({ "name": "router" })), &nothing), None);
    }
}
