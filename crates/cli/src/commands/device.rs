//! `lockstep device`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use lockstep_device::mqtt::{PREFIX_DEFAULT, Prefix};
use lockstep_device::setup::Duty;
use lockstep_device::uplink::ServerAtStart;
use lockstep_proto::compat::{Announced, Rule};
use lockstep_proto::descriptor::{Board, Descriptor, Product, Role};
use lockstep_proto::frame::control::GroupKey;
use lockstep_proto::frame::report::Rollback;
use lockstep_proto::id::{DeviceId, Sha256};
use lockstep_proto::image::ChipId;
use lockstep_proto::manifest::Trust;
use lockstep_proto::version::{ProtocolRange, ReleaseVersion};
use lockstep_proto::wire::Label;
use lockstep_sim::board::{
    self, BoardError, BoardOptions, Clock, ControlOptions, KeysAtStart, LineForm, Load, Manners,
    Provision, ProvisionError, RestManner,
};
use lockstep_sim::firmware::FirmwareSpec;
use lockstep_sim::flash::{OpenError, Timing};
use lockstep_sim::line::LinePlace;
use lockstep_sim::radio::Impairments;
use serde_json::json;

use crate::args::{self, ServerUrl, Tuning};
use crate::broker::BrokerUrl;
use crate::error::CommandError;
use crate::facts::ImageFile;
use crate::files::{self, Existing, Readers};
use crate::keys;
use crate::line;
use crate::ui::Ui;

/// Run a desk device: a board as a process, its flash a file
///
/// Devices with the same group file are one group and hear each other. The first start makes the
/// device: partition table, firmware 1.0.0 (or --firmware), keys, password. To kill the process is
/// a power cut, to start it again is power on.
///
/// A pair on a desk:
///   lockstep device --new-group --group pair.group
///   lockstep device --group pair.group --role receiver --flash receiver.flash
///   lockstep device --group pair.group --role transmitter --flash transmitter.flash
///
/// A board in its place that does not have the group's key, to be adopted over the air:
///   lockstep device --air pair.group.air --role transmitter --flash new.flash \
///       --id 02:00:00:00:00:03
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct DeviceArgs {
    /// The file with the group's secret, the same for all devices of a group; a device without one
    /// waits for `lockstep group adopt`, on the air that --air names
    #[arg(long, value_name = "FILE", required_unless_present = "air")]
    group: Option<PathBuf>,

    /// Make that file first; without --flash nothing else is done
    #[arg(long, requires = "group")]
    new_group: bool,

    /// The file that is the device's flash of 4 MiB; made if it is missing
    #[arg(long, value_name = "FILE", required_unless_present = "new_group")]
    flash: Option<PathBuf>,

    /// What the device is for, such as receiver or transmitter
    #[arg(long, value_name = "ROLE", required_unless_present = "new_group")]
    role: Option<Role>,

    /// Lead the group's rollouts [default: the receiver does]
    #[arg(long, conflicts_with = "member")]
    lead: bool,

    /// Do not lead
    #[arg(long)]
    member: bool,

    /// Where to serve the API; port 0 is any free one, and is written to FLASH.http
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    http: SocketAddr,

    /// Send log and events to this MQTT broker: mqtt://[USER:PASSWORD@]HOST[:PORT]; others on this
    /// machine can see it, so with a password better use the environment variable LOCKSTEP_MQTT
    #[arg(long, value_name = "URL", env = "LOCKSTEP_MQTT", hide_env_values = true)]
    mqtt: Option<BrokerUrl>,

    /// Where the topics begin; the device's address comes behind it
    #[arg(long, value_name = "TOPIC", default_value = PREFIX_DEFAULT, value_parser = Prefix::new)]
    mqtt_topic: Prefix,

    /// Let this server look after the group: http://HOST[:PORT]; the lead comes to it, and
    /// remembers it
    #[arg(long, value_name = "URL", conflicts_with = "member")]
    server: Option<ServerUrl>,

    /// The token that lets the lead in there, once, from the server's console; others on this
    /// machine can see it, so it is better in the environment variable LOCKSTEP_ENROLL
    #[arg(
        long,
        value_name = "TOKEN",
        requires = "server",
        env = "LOCKSTEP_ENROLL",
        hide_env_values = true
    )]
    enroll: Option<String>,

    /// Print what happens as one JSON object for each line
    #[arg(long)]
    json_log: bool,

    #[command(flatten, next_help_heading = "Hardware")]
    hardware: HardwareArgs,

    #[command(flatten, next_help_heading = "First start")]
    first: FirstArgs,

    #[command(flatten, next_help_heading = "Desk")]
    desk: DeskArgs,
}

/// What the board is.
#[derive(Debug, clap::Args)]
struct HardwareArgs {
    /// Its address [default: 02:00:00:00:00:01 for a receiver, …:02 for a transmitter]
    #[arg(long, value_name = "MAC")]
    id: Option<DeviceId>,

    /// Its chip [default: esp32s3 for a receiver, else esp32]
    #[arg(long, value_parser = args::chip)]
    chip: Option<ChipId>,

    /// Its board, as images name it [default: t-display-s3 for a receiver, else esp32-poe-iso]
    #[arg(long)]
    board: Option<Board>,

    /// Its hardware, for people
    #[arg(long, value_name = "TEXT")]
    hardware: Option<String>,

    /// Who takes it back from a bad image
    #[arg(long, value_name = "WHO", default_value = "bootloader")]
    rollback: RollbackArg,

    /// How long the flash takes
    #[arg(long, default_value = "none")]
    timing: TimingArg,

    /// Count how often each sector of the flash is erased in this file, over all starts
    #[arg(long, value_name = "FILE")]
    wear: Option<PathBuf>,

    /// From reset to the firmware's first instruction
    #[arg(long, value_name = "MS", default_value_t = 200,
          value_parser = clap::value_parser!(u32).range(0..=60_000))]
    boot_ms: u32,
}

/// What a new device is given.
#[derive(Debug, clap::Args)]
struct FirstArgs {
    /// Its firmware [default: an image made for the role]
    #[arg(long, value_name = "FILE")]
    firmware: Option<PathBuf>,

    /// The version of that firmware, if it does not say so itself [default: 1.0.0]
    #[arg(long, value_name = "VERSION")]
    version: Option<ReleaseVersion>,

    /// The protocols that it speaks, if it does not say so itself [default: 1]
    #[arg(long, value_name = "A..B", value_parser = args::protocol)]
    protocol: Option<ProtocolRange>,

    /// The oldest version it talks to, if it does not say so itself [default: 0.0.0]
    #[arg(long, value_name = "VERSION")]
    min_compatible: Option<ReleaseVersion>,

    /// A public key whose releases are taken; may be given several times
    #[arg(long = "key", value_name = "FILE.pub")]
    keys: Vec<PathBuf>,

    /// How many of the keys must sign [default: all]
    #[arg(long, value_name = "K", requires = "keys")]
    threshold: Option<u8>,

    /// Take releases that nobody signed, too
    #[arg(long)]
    allow_unsigned: bool,

    /// Replace the keys of a device that was made before, as somebody with a cable could
    #[arg(long)]
    reset_keys: bool,

    /// A file with its password; sets a new one at later starts, too [default: a random one]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// What happens around the board.
#[derive(Debug, clap::Args)]
struct DeskArgs {
    /// Ask only whether peers are new enough for this device, not whether it is for them: for
    /// groups that still contain the original firmware
    #[arg(long)]
    one_sided: bool,

    /// The version of ESP-NOW that the radio speaks: 1 drops frames beyond 250 bytes, so that
    /// images come in small blocks
    #[arg(long, value_name = "VERSION", default_value_t = 2,
        value_parser = clap::value_parser!(u8).range(1..=2))]
    esp_now: u8,

    /// The channel that the radio is on, as an access point would say; with `scan` the device finds
    /// its lead on channels 1 to 13
    #[arg(long, value_name = "1..14|scan", default_value = "1")]
    channel: Tuning,

    /// The folder of devices that hear each other [default: the group file with `.air` behind it]
    #[arg(long, value_name = "DIR")]
    air: Option<PathBuf>,

    /// A line behind which other devices of the group are, such as a board at a serial port:
    /// serial:/dev/ttyUSB0[@BAUD] (115200 if none is given), tcp:HOST:PORT[@BAUD] where somebody
    /// listens, as an emulator does, tcp-listen:ADDRESS:PORT[@BAUD] to wait for one. Its port may
    /// come and go
    #[arg(long, value_name = "LINE")]
    link: Option<LinePlace>,

    /// How bad the radio is, for example loss=20,duplicate=5,delay=2-30,reorder=10,seed=7
    #[arg(long, value_name = "ORDER", default_value = "none")]
    impair: Impairments,

    /// Read orders from standard input, such as `impair loss=50`, `impair down` or `impair none`;
    /// with `channel 11` the access point goes there
    #[arg(long)]
    control: bool,

    /// The application never comes to rest: it answers "not now"
    #[arg(long)]
    not_now: bool,

    /// The application is busy: staging gets the flash for one erase or write at a time
    #[arg(long)]
    busy: bool,

    /// The device does not know the time, as a chip without a network
    #[arg(long)]
    no_clock: bool,

    /// Wait to be set up at /setup, as a new board does, without a password; the networks that it
    /// offers are made up
    #[arg(long)]
    first_start: bool,

    /// Switch off when standard input is closed
    #[arg(long, hide = true)]
    until_input_ends: bool,
}

impl DeskArgs {
    const fn manners(&self) -> Manners {
        Manners {
            rest: if self.not_now { RestManner::NotNow } else { RestManner::Obliges },
            load: if self.busy { Load::Busy } else { Load::Idle },
            clock: if self.no_clock { Clock::None } else { Clock::Runs },
        }
    }
}

/// Who takes a device back.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum RollbackArg {
    /// Any reset on trial goes back, as ESP-IDF can be built to do
    Bootloader,
    /// The firmware counts its trial boots; it cannot save an image that dies before it runs
    Agent,
    /// Nobody: a rollout that promises a way back is refused
    None,
}

/// How long the flash takes.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum TimingArg {
    /// As fast as this machine writes
    None,
    /// As long as a chip: 45 ms for each sector erased, 0.4 ms for each page written
    Chip,
}

pub(super) fn device(ui: &Ui, args: &DeviceArgs) -> Result<(), CommandError> {
    if let (true, Some(group)) = (args.new_group, &args.group) {
        make_group(group)?;
        let name = group.display().to_string();
        if args.flash.is_none() {
            ui.line(format_args!(
                "Made the group file {name}: give it to every device of the group"
            ))?;
            return ui.json(&json!({ "group": name }));
        }
    }
    let (Some(flash), Some(role)) = (&args.flash, &args.role) else {
        return Err(CommandError::usage("A device needs --flash FILE and --role ROLE"));
    };
    let options = options(ui, args, flash, role)?;
    board::run(&options).map_err(|error| board_error(&error, args))
}

fn options(
    ui: &Ui,
    args: &DeviceArgs,
    flash: &Path,
    role: &Role,
) -> Result<BoardOptions, CommandError> {
    let kind = Kind::of(role);
    let HardwareArgs { id, chip, board, hardware, rollback, timing, wear, boot_ms } =
        &args.hardware;
    let chip = chip.unwrap_or(kind.chip);
    let board = board.as_ref().map_or(kind.board, Board::as_str);
    let is_lead = args.lead || (!args.member && role.as_str() == LEAD_ROLE);
    if is_lead && args.group.is_none() {
        return Err(CommandError::usage("The lead of a group needs the group's key: --group FILE")
            .hinted("A new receiver for a group that has a lead is started with --member."));
    }
    let group_key = args.group.as_deref().map(read_group).transpose()?;
    let air = match (&args.desk.air, &args.group) {
        (Some(air), _) => air.clone(),
        (None, Some(group)) => with_ending(group, ".air"),
        (None, None) => {
            return Err(CommandError::usage("A device needs --group FILE or --air DIR"));
        }
    };
    Ok(BoardOptions {
        flash: flash.to_owned(),
        timing: match timing {
            TimingArg::None => Timing::None,
            TimingArg::Chip => Timing::chip(),
        },
        wear: wear.clone(),
        id: id.unwrap_or(kind.id),
        // Both are shorter than these labels.
        role: Label::new(role.as_str()).unwrap_or(Label::EMPTY),
        duty: if is_lead { Duty::Lead } else { Duty::Member },
        chip,
        board: Label::new(board).unwrap_or(Label::EMPTY),
        hardware: hardware.clone().unwrap_or_else(|| kind.hardware.to_owned()),
        rollback: match rollback {
            RollbackArg::Bootloader => Rollback::Bootloader,
            RollbackArg::Agent => Rollback::Agent,
            RollbackArg::None => Rollback::None,
        },
        boot_ms: *boot_ms,
        takes_large: args.desk.esp_now > 1,
        channel: args.desk.channel.at_first(),
        channels: args.desk.channel.plan(),
        group_key,
        air,
        impairments: args.desk.impair,
        line: args.desk.link.clone(),
        http: args.http,
        broker: args.mqtt.as_ref().map(|url| url.broker(&args.mqtt_topic)).transpose()?,
        server: server(args),
        rule: if args.desk.one_sided { Rule::OneSided } else { Rule::BothWays },
        manners: args.desk.manners(),
        provision: provision(ui, &args.first, role, chip, board)?,
        first_start: args.desk.first_start,
        lines: if args.json_log || ui.is_json() { LineForm::Json } else { LineForm::Human },
        control: ControlOptions {
            takes_orders: args.desk.control,
            ends_with_input: args.desk.until_input_ends,
        },
    })
}

fn server(args: &DeviceArgs) -> Option<ServerAtStart> {
    let place = args.server.as_ref()?.place.clone();
    Some(ServerAtStart { place, token: args.enroll.clone() })
}

fn provision(
    ui: &Ui,
    args: &FirstArgs,
    role: &Role,
    chip: ChipId,
    board: &str,
) -> Result<Provision, CommandError> {
    let trust = match args.keys.as_slice() {
        [] => Trust::anybody(),
        paths => Trust::signed_by(keys::read_key_set(paths, args.threshold)?),
    };
    let trust = if args.allow_unsigned { trust.allowing_unsigned() } else { trust };
    let password = match &args.password_file {
        None => None,
        Some(path) => Some(read_password(path)?),
    };
    let version = args.version.unwrap_or(FIRST_VERSION);
    let protocol = args.protocol.unwrap_or(ProtocolRange::single(1));
    let min_compatible = args.min_compatible.unwrap_or(ReleaseVersion::from_number(0));
    let (firmware, announced) = match &args.firmware {
        None => {
            let descriptor = descriptor(role, board, version, min_compatible, protocol)?;
            (make_image(&FirmwareSpec::new(descriptor, chip))?, None)
        }
        Some(path) => {
            let image = ImageFile::open(ui, path)?;
            check_said(&image, args)?;
            let (number, min_compatible) = (version.number(), min_compatible.number());
            (image.bytes, Some(Announced { number, min_compatible, protocol }))
        }
    };
    let keys = if args.reset_keys { KeysAtStart::Replaced } else { KeysAtStart::Stay };
    Ok(Provision { firmware, announced, password, trust, keys })
}

/// What an image says of itself cannot be talked over.
fn check_said(image: &ImageFile, args: &FirstArgs) -> Result<(), CommandError> {
    let Some(ours) = &image.facts.descriptor else { return Ok(()) };
    let differs = args.version.is_some_and(|said| said != ours.version)
        || args.protocol.is_some_and(|said| said != ours.protocol)
        || args.min_compatible.is_some_and(|said| said != ours.min_compatible);
    if !differs {
        return Ok(());
    }
    let Descriptor { version, protocol, min_compatible, .. } = ours;
    Err(CommandError::failed(format!(
        "`{}` says of itself: version {version}, protocol {protocol}, oldest version \
         {min_compatible}",
        image.name
    ))
    .hinted("Leave out --version, --protocol and --min-compatible."))
}

/// What an image made for the desk says of itself.
pub(crate) fn descriptor(
    role: &Role,
    board: &str,
    version: ReleaseVersion,
    min_compatible: ReleaseVersion,
    protocol: ProtocolRange,
) -> Result<Descriptor, CommandError> {
    let bad = |error: &dyn std::error::Error| {
        CommandError::failed(format!("`{board}` is no board")).because(error)
    };
    Ok(Descriptor {
        product: Product::new(PRODUCT).map_err(|error| bad(&error))?,
        role: role.clone(),
        board: Board::new(board).map_err(|error| bad(&error))?,
        version,
        min_compatible,
        protocol,
        epoch: 0,
        config_schema: 0,
    })
}

/// Makes an image.
pub(crate) fn make_image(spec: &FirmwareSpec) -> Result<Vec<u8>, CommandError> {
    spec.build().map_err(|error| CommandError::failed("Cannot make the image").because(&error))
}

/// What is usual for a role.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// The address of the only device of that role.
    pub(crate) id: DeviceId,
    /// The chip.
    pub(crate) chip: ChipId,
    /// The board, as images name it.
    pub(crate) board: &'static str,
    /// The hardware, for people.
    pub(crate) hardware: &'static str,
}

impl Kind {
    pub(crate) fn of(role: &Role) -> Self {
        let transmitter = Self {
            id: DeviceId([2, 0, 0, 0, 0, 2]),
            chip: ChipId::ESP32,
            board: "esp32-poe-iso",
            hardware: "ESP32-POE-ISO",
        };
        match role.as_str() {
            LEAD_ROLE => Self {
                id: DeviceId([2, 0, 0, 0, 0, 1]),
                chip: ChipId::ESP32_S3,
                board: "t-display-s3",
                hardware: "LilyGo T-Display-S3",
            },
            "transmitter" => transmitter,
            other => Self { id: id_of(other), ..transmitter },
        }
    }
}

/// The same role, the same address: a hash of its name, marked as locally administered.
fn id_of(role: &str) -> DeviceId {
    use sha2::Digest as _;

    let [a, b, c, d, e, ..]: [u8; 32] = sha2::Sha256::digest(role.as_bytes()).into();
    DeviceId([2, a, b, c, d, e])
}

/// Makes a group file with a new secret.
pub(crate) fn make_group(path: &Path) -> Result<(), CommandError> {
    let key = board::new_group_key()
        .map_err(|error| CommandError::failed("Cannot make a group").because(&error))?;
    let text = format!("{GROUP_COMMENT}\n{}\n", Sha256(*key.bytes()));
    files::write(path, &[text.as_bytes()], Existing::Keep, Readers::Owner).map_err(|error| {
        error.hinted(
            "A group that devices belong to is worth keeping. Leave out --new-group to use it.",
        )
    })
}

pub(crate) fn read_group(path: &Path) -> Result<GroupKey, CommandError> {
    let name = path.display();
    if !path.try_exists().unwrap_or(true) {
        return Err(CommandError::failed(format!("There is no group file `{name}`"))
            .hinted(format!("Make it: lockstep device --new-group --group {name}")));
    }
    let text = String::from_utf8(files::read(path, GROUP_BYTES_MAX)?).unwrap_or_default();
    let key = text.lines().nth(1).and_then(|line| Sha256::from_hex(line.trim()));
    match key {
        Some(key) => Ok(GroupKey::new(key.0)),
        None => Err(CommandError::failed(format!("`{name}` is no group file"))
            .hinted("Its second line has 64 hexadecimal digits. Make one with --new-group.")),
    }
}

pub(crate) fn read_password(path: &Path) -> Result<String, CommandError> {
    let text = String::from_utf8(files::read(path, PASSWORD_BYTES_MAX)?).unwrap_or_default();
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.contains(char::is_control) {
        return Err(CommandError::failed(format!("`{}` holds no password", path.display()))
            .hinted("It needs one line of text, the password."));
    }
    Ok(password.to_owned())
}

fn board_error(error: &BoardError, args: &DeviceArgs) -> CommandError {
    let failed = CommandError::failed("The device cannot run").because(error);
    let hint = match error {
        BoardError::Open(OpenError::Locked { .. }) => {
            "Each device needs a flash file of its own: --flash FILE".to_owned()
        }
        BoardError::Open(OpenError::WrongSize { .. }) => {
            "Is it the flash of a desk device? Name another file, and it will be made.".to_owned()
        }
        BoardError::Listen { .. } => {
            format!("Another program listens at {}. Any free port: --http 127.0.0.1:0", args.http)
        }
        BoardError::Line(error) => line::hint(error),
        BoardError::Provision(ProvisionError::Chip { found, .. }) => {
            format!("Say which chip the board has: --chip {found}")
        }
        BoardError::Provision(ProvisionError::Image(cause)) => {
            match lockstep_server::bundle::image_hint(cause) {
                Some(hint) => hint.to_owned(),
                None => return failed,
            }
        }
        BoardError::Bootloader(_) | BoardError::Node(_) => {
            "Its flash holds no firmware that works. To make the device anew, delete the file."
                .to_owned()
        }
        _ => return failed,
    };
    failed.hinted(hint)
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

const LEAD_ROLE: &str = "receiver";
/// The system that desk images belong to.
pub(crate) const PRODUCT: &str = "desk";
/// What a new device runs.
pub(crate) const FIRST_VERSION: ReleaseVersion = ReleaseVersion::from_number(10_000);
const GROUP_COMMENT: &str = "lockstep group: whoever can read this can give orders to its devices";
const GROUP_BYTES_MAX: u64 = 1024;
const PASSWORD_BYTES_MAX: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_file_is_read_back_and_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pair.group");
        make_group(&path).unwrap();
        let key = read_group(&path).unwrap();
        assert!(make_group(&path).is_err());
        assert_eq!(read_group(&path).unwrap(), key);
        std::fs::write(&path, "lockstep\n00\n").unwrap();
        assert!(read_group(&path).is_err());
    }
}
