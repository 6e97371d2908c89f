//! From reset to the main loop.
//!
//! The node comes first, with nothing around it but the flash and the watchdog: it counts a trial's
//! boots and may go back at once, before anything runs that a bad release could have broken.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString as _};

use embassy_executor::Spawner;
use embassy_futures::select::{Either4, select4};
use embassy_time::Timer;
use esp_hal::timer::timg::TimerGroup;
use esp_println::println;
use esp_storage::FlashStorage;
use lockstep_agent::Booted;
use lockstep_agent::layout::Layout;
use lockstep_device::channel::ChannelPlan;
use lockstep_device::http::Shell as _;
use lockstep_device::journal::Level;
use lockstep_device::setup::{Duty, Firmware, NodeSetup, Pace};
use lockstep_device::{Action, Node, RebootReason};
use lockstep_proto::descriptor::{Constant, Descriptor};
use lockstep_proto::frame::LARGE_FRAME_BYTES_MAX;
use lockstep_proto::frame::report::Rollback;
use lockstep_proto::id::{DeviceId, ImageHash};
use lockstep_proto::image::quick_hash;
use lockstep_proto::manifest::Trust;
use lockstep_proto::time::Instant;
use lockstep_proto::wire::{Board, Role};
use lockstep_rollout::Policy;

use crate::application::ChipApplication;
use crate::board;
use crate::chip;
use crate::console::{self, Console, Orders};
use crate::fault::{Fault, Stage};
use crate::link::Link;
use crate::running::Running;
use crate::watchdog::Watchdog;

/// What a device is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It shows what transmitters measure.
    Receiver,
    /// It measures, and sends what it measures.
    Transmitter,
}

impl Part {
    const fn role(self) -> &'static str {
        match self {
            Self::Receiver => "receiver",
            Self::Transmitter => "transmitter",
        }
    }
}

/// What an image of this firmware says of itself; the build may set what differs from release to
/// release.
pub const fn describe(part: Part) -> Constant {
    Constant {
        product: match option_env!("LOCKSTEP_PRODUCT") {
            Some(product) => product,
            None => "desk",
        },
        role: part.role(),
        board: board::NAME,
        version: match option_env!("LOCKSTEP_VERSION") {
            Some(version) => version,
            None => "1.0.0",
        },
        min_compatible: "1.0.0",
        protocol: (1, 1),
        epoch: 0,
        config_schema: 0,
    }
}

/// Runs the device; comes to an end only by a reset.
pub async fn run(spawner: Spawner, part: Part) -> ! {
    let peripherals = esp_hal::init(esp_hal::Config::default());
    esp_alloc::heap_allocator!(size: HEAP_BYTES);
    let parts = board::parts(peripherals);
    let watchdog = Watchdog::arm(parts.rtc_timer);
    println!();
    println!("lockstep {} {} on {}", part.role(), describe(part).version, board::HARDWARE);
    let fault = Fault::ordered()
        .unwrap_or_else(|code| stop(&format!("image orders fault {code}, which is none of these")));
    fault.show(Running::now(), Stage::BeforeNode);
    let mut flash = FlashStorage::new(parts.flash);
    let node = boot(part, &mut flash);
    let timers = TimerGroup::new(parts.scheduler_timer);
    esp_rtos::start(timers.timer0, parts.scheduler_interrupt);

    let link = Link::start(spawner, chip::id(), parts.wire, parts.wire_tx, parts.wire_rx);
    let link = link.unwrap_or_else(|error| stop(&format!("link does not start: {error}")));
    let opened = console::open(parts.console, parts.console_rx);
    let (uart, orders) =
        opened.unwrap_or_else(|error| stop(&format!("console does not start: {error}")));
    // It is started once.
    if let Ok(task) = console::listen(uart, orders) {
        spawner.spawn(task);
    }
    main_loop(&Rc::new(Running::new(node, flash)), &link, orders, watchdog, fault).await
}

/// Starts the node, or the chip again, as the node says.
fn boot(part: Part, flash: &mut FlashStorage<'static>) -> Node<ChipApplication> {
    let setup = match node_setup(part, flash) {
        Ok(setup) => setup,
        Err(why) => stop(&why),
    };
    match Node::boot(Running::now(), setup, ChipApplication::new(part), flash) {
        Ok((node, Booted::Run)) => node,
        Ok((node, Booted::RebootNow(reason))) => {
            Console::default().print(node.journal());
            restart(&reason.to_string())
        }
        Err(error) => stop(&describe_error(&error)),
    }
}

/// What this image and this chip are.
fn node_setup(part: Part, flash: &mut FlashStorage<'static>) -> Result<NodeSetup, String> {
    let layout = Layout::find(flash).map_err(|error| describe_error(&error))?;
    let running_slot = chip::running_slot(flash)
        .ok_or("chip was booted from no slot of its partition table: flash it anew")?;
    let constant = describe(part);
    let descriptor = Descriptor::decode(&constant.encode()).map_err(|error| error.to_string())?;
    let label = "role and board of the descriptor are names";
    let role = Role::new(constant.role).ok_or(label)?;
    let board = Board::new(constant.board).ok_or(label)?;
    Ok(NodeSetup {
        id: chip::id(),
        role,
        chip: board::CHIP,
        board,
        hardware: board::HARDWARE.to_string(),
        firmware: Firmware {
            image: running_image(&layout, running_slot, flash)?,
            announced: Some(descriptor.announced()),
            product: Some(descriptor.product.clone()),
            config_schema: descriptor.config_schema,
            build_date: esp_bootloader_esp_idf::BUILD_DATE.to_string(),
            build_time: esp_bootloader_esp_idf::BUILD_TIME.to_string(),
        },
        running_slot,
        reset_reason: chip::esp_reset_reason(),
        // Until a trial has shown what the bootloader does.
        rollback: Rollback::Agent,
        channels: ChannelPlan::Fixed,
        takes_large: false,
        group_key: None,
        trust: Trust::anybody(),
        // A lead takes releases by IP, which a wire has not.
        duty: Duty::Member,
        policy: Policy::board(),
        pace: Pace::board(),
        seed: chip::seed(),
    })
}

fn running_image(
    layout: &Layout,
    running_slot: u8,
    flash: &mut FlashStorage<'static>,
) -> Result<ImageHash, String> {
    let slot = layout.slots.get(usize::from(running_slot)).ok_or("slot is not laid out")?;
    // The heads of an image's segments lie at whole words, as this flash wants it.
    let read = |offset: u32, bytes: &mut [u8]| flash.read(slot.offset + offset, bytes);
    match quick_hash(slot.size_bytes, read) {
        Ok(image) => image.map_err(|error| describe_error(&error)),
        Err(error) => Err(format!("flash cannot be read: {error:?}")),
    }
}

/// The firmware's main loop.
async fn main_loop(
    running: &Rc<Running>,
    link: &Link,
    orders: &'static Orders,
    mut watchdog: Watchdog,
    fault: Fault,
) -> ! {
    let mut console = Console::default();
    let mut held = None;
    let mut wake_at = Running::now();
    loop {
        let sleep_ms = wake_at.ms_since(Running::now());
        let timer = Timer::after_millis(sleep_ms);
        match select4(orders.receive(), link.recv(), running.changed.wait(), timer).await {
            Either4::First(order) => {
                if console::obey(running, &order) {
                    restart("as somebody with a cable ordered");
                }
            }
            Either4::Second(received) => {
                let mut next = Some(received);
                for _ in 0..FRAMES_PER_TURN_MAX {
                    let Some(received) = next.filter(|_| fault != Fault::Deaf) else { break };
                    running.with(|now, node, flash| {
                        node.handle_frame(now, received.from, received.frame(), flash);
                    });
                    next = link.try_recv();
                }
            }
            Either4::Third(()) | Either4::Fourth(()) => (),
        }
        if Running::now() >= wake_at {
            running.with(|now, node, flash| node.tick(now, flash));
            wake_at = Instant::from_ms(u64::MAX);
        }
        watchdog.feed();
        let reboot = act(running, link, &mut held);
        running.with(|_, node, _| console.print(node.journal()));
        fault.show(Running::now(), Stage::Running);
        if let Some(reason) = reboot {
            restart(&reason.to_string());
        }
        // Frames bring the next tick forward, and never put it off.
        wake_at = wake_at.min(running.with(|now, node, _| node.next_wake(now)));
        if held.is_some() {
            wake_at = wake_at.min(Running::now() + LINK_FULL_MS);
        }
        // Other tasks get their turn, however much there is to hear.
        embassy_futures::yield_now().await;
    }
}

/// A frame that the link had no room for yet.
type Held = Option<(DeviceId, [u8; LARGE_FRAME_BYTES_MAX], usize)>;

/// Sends what there is, and does what the node asks for but a reboot, which is returned.
fn act(running: &Running, link: &Link, held: &mut Held) -> Option<RebootReason> {
    loop {
        send(running, link, held);
        match running.with(|_, node, _| node.poll_action())? {
            Action::Reboot(reason) => return Some(reason),
            // A wire has no channels.
            Action::Tune(_) => (),
        }
    }
}

/// Hands frames to the link until there are none or it is full.
fn send(running: &Running, link: &Link, held: &mut Held) {
    for _ in 0..FRAMES_PER_TURN_MAX {
        let next = held.take().or_else(|| {
            let mut buffer = [0; LARGE_FRAME_BYTES_MAX];
            let (to, len) =
                running.with(|now, node, flash| node.poll_frame(now, &mut buffer, flash))?;
            Some((to, buffer, len))
        });
        let Some((to, buffer, len)) = next else { return };
        if link.try_send(to, buffer.get(..len).unwrap_or_default()).is_err() {
            *held = Some((to, buffer, len));
            return;
        }
    }
}

fn restart(reason: &str) -> ! {
    console::say(Running::now().ms, Level::Notice, &format!("restarts {reason}"));
    chip::reset()
}

/// The firmware cannot go on. It does not reset at once: on a trial the watchdog does, which is the
/// way back, and otherwise somebody can read why.
fn stop(why: &str) -> ! {
    console::say(Running::now().ms, Level::Error, why);
    loop {
        core::hint::spin_loop();
    }
}

/// An error with all its causes.
fn describe_error(error: &dyn core::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What the node and everything beside it has.
const HEAP_BYTES: usize = 96 * 1024;
/// Frames that are taken, and sent, before others get their turn.
const FRAMES_PER_TURN_MAX: usize = 16;
/// How long a full link gets before it is tried again: a short frame at 115,200 baud.
const LINK_FULL_MS: u64 = 5;
