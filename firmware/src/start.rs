//! From reset to the main loop.
//!
//! The node comes first, with nothing around it but the flash and the watchdog: it counts a trial's
//! boots and may go back at once, before anything runs that a bad release could have broken.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString as _};

use embassy_executor::Spawner;
use esp_hal::timer::timg::TimerGroup;
use esp_println::println;
use esp_storage::FlashStorage;
use lockstep_agent::Booted;
use lockstep_agent::layout::Layout;
use lockstep_device::Node;
use lockstep_device::settings::Settings;
use lockstep_device::setup::{Firmware, NodeSetup, Pace};
use lockstep_proto::descriptor::{Constant, Descriptor};
use lockstep_proto::frame::report::Rollback;
use lockstep_proto::id::ImageHash;
use lockstep_proto::image::quick_hash;
use lockstep_proto::manifest::Trust;
use lockstep_proto::wire::{Board, Role};
use lockstep_rollout::Policy;
use static_cell::StaticCell;

use crate::application::ChipApplication;
use crate::console::{self, Console, Orders};
use crate::fault::{Fault, Stage};
use crate::halt::{describe as describe_error, restart, stop};
use crate::running::Running;
#[cfg(feature = "t-display-s3")]
use crate::screen;
use crate::watchdog::Watchdog;
use crate::{board, button, chip, heap, main_loop, place, told};

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
    heap::begin();
    let board::Parts { common, place } = board::parts(peripherals);
    let watchdog = Watchdog::arm(common.rtc_timer);
    println!();
    println!("lockstep {} {} on {}", part.role(), describe(part).version, board::HARDWARE);
    let fault = Fault::ordered()
        .unwrap_or_else(|code| stop(&format!("image orders fault {code}, which is none of these")));
    fault.show(Running::now(), Stage::BeforeNode);
    let (running, settings) = boot(part, FlashStorage::new(common.flash));
    let timers = TimerGroup::new(common.scheduler_timer);
    esp_rtos::start(timers.timer0, common.scheduler_interrupt);

    static ORDERS: StaticCell<Orders> = StaticCell::new();
    let orders = ORDERS.init(Orders::new());
    let console =
        common.console.unwrap_or_else(|error| stop(&format!("console does not start: {error}")));
    // It is started once.
    if let Ok(task) = console::listen(console, orders) {
        spawner.spawn(task);
    }
    #[cfg(feature = "t-display-s3")]
    if let Ok(task) = screen::show(common.screen, running) {
        spawner.spawn(task);
    }
    let begun = place::begin(spawner, place, settings, running).await;
    let link = begun.unwrap_or_else(|why| stop(&why));
    if let Ok(task) = button::watch(common.button, running) {
        spawner.spawn(task);
    }
    main_loop::run(running, &link, orders, watchdog, fault).await
}

/// Starts the node, or the chip again, as the node says. It stays where it is from here on: what an
/// async function moves about, it keeps room for.
fn boot(part: Part, mut flash: FlashStorage<'static>) -> (&'static Running, Settings) {
    let (setup, settings) = match node_setup(part, &mut flash) {
        Ok(setup) => setup,
        Err(why) => stop(&why),
    };
    match Node::boot(Running::now(), setup, ChipApplication::new(part), &mut flash) {
        Ok((node, Booted::Run)) => (Box::leak(Box::new(Running::new(node, flash))), settings),
        Ok((node, Booted::RebootNow(reason))) => {
            Console::default().print(node.journal());
            restart(&reason.to_string())
        }
        Err(error) => stop(&describe_error(&error)),
    }
}

/// What this image and this chip are, and what the board was told.
fn node_setup(
    part: Part,
    flash: &mut FlashStorage<'static>,
) -> Result<(NodeSetup, Settings), String> {
    let layout = Layout::find(flash).map_err(|error| describe_error(&error))?;
    let running_slot = chip::running_slot(flash)
        .ok_or("chip was booted from no slot of its partition table: flash it anew")?;
    let image = running_image(&layout, running_slot, flash)?;
    let settings = told::settings(&layout, image, flash);
    let constant = describe(part);
    let descriptor = Descriptor::decode(&constant.encode()).map_err(|error| error.to_string())?;
    let label = "role and board of the descriptor are names";
    let setup = NodeSetup {
        id: chip::id(),
        role: Role::new(constant.role).ok_or(label)?,
        chip: board::CHIP,
        board: Board::new(constant.board).ok_or(label)?,
        hardware: board::HARDWARE.to_string(),
        firmware: Firmware {
            image,
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
        channels: place::channels(&settings),
        takes_large: place::TAKES_LARGE,
        group_key: None,
        trust: Trust::anybody(),
        duty: place::duty(part, &settings),
        policy: Policy::board(),
        pace: Pace::board(),
        seed: chip::seed(),
    };
    Ok((setup, settings))
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
