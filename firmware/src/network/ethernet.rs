//! The network at the end of a cable: the ESP32's own MAC, and a LAN8710A.

use alloc::boxed::Box;
use alloc::format;

use embassy_executor::Spawner;
use embassy_net::StackResources;
use embassy_time::{Duration, Timer};
use esp_emac::EmacDefault;
use esp_emac::config::{ClkGpio, EmacConfig, RmiiClockConfig, RmiiPins, XtalFreq};
use esp_emac::embassy_net::{EmacDefaultDriver, EmacDriverState};
use esp_emac::mdio::EspMdio;
use esp_hal::delay::Delay;
use esp_hal::gpio::{Level as Pin, Output, OutputConfig};
use esp_hal::interrupt::Priority;
use esp_hal::peripherals::IO_MUX;
use eth_mdio_phy::{LinkState, PhyDriver as _};
use eth_phy_lan87xx::PhyLan87xx;
use lockstep_device::journal::Level;
use lockstep_device::settings::Settings;
use static_cell::ConstStaticCell;

use super::{SOCKETS_MAX, board_name, dial, say, serve, station};
use crate::board::{Ethernet, MDC_GPIO, MDIO_GPIO, PHY_ADDRESS};
use crate::chip;
use crate::running::Running;

static EMAC: ConstStaticCell<EmacDefault> = ConstStaticCell::new(EmacDefault::new(EmacConfig {
    clock: RmiiClockConfig::InternalApll { gpio: ClkGpio::Gpio17, xtal: XtalFreq::Mhz40 },
    pins: RmiiPins { mdc: MDC_GPIO, mdio: MDIO_GPIO },
}));
static STATE: EmacDriverState = EmacDriverState::new();

#[esp_hal::handler(priority = Priority::Priority1)]
fn on_interrupt() {
    STATE.handle_emac_interrupt();
}

/// Waits for a cable, then serves people over it. What goes wrong here leaves the group as it is:
/// the board's radio does not need its cable.
#[embassy_executor::task]
pub(super) async fn run(
    spawner: Spawner,
    parts: Ethernet,
    settings: Settings,
    running: &'static Running,
) {
    // On for as long as the chip runs.
    core::mem::forget(Output::new(parts.power, Pin::High, OutputConfig::default()));
    Timer::after(POWER_UP).await;
    let emac = EMAC.take();
    emac.set_mac_address(chip::ethernet_id());
    if let Err(error) = emac.init(&mut Delay::new()) {
        return say(running, Level::Error, format!("Ethernet does not start: {error:?}"));
    }
    clock_to_gpio0();
    emac.bind_interrupt(on_interrupt);
    let (mut mdio, mut phy) = (EspMdio::new(), PhyLan87xx::new(PHY_ADDRESS));
    if let Err(error) = phy.init(&mut mdio) {
        return say(running, Level::Error, format!("LAN8710A does not answer: {error:?}"));
    }
    let first = until_linked(&mut phy, &mut mdio).await;
    emac.set_speed(first.speed);
    emac.set_duplex(first.duplex);
    STATE.set_link_up();
    if let Err(error) = emac.start() {
        return say(running, Level::Error, format!("Ethernet does not start: {error:?}"));
    }
    let driver = EmacDefaultDriver::new(emac, &STATE);
    let resources = Box::leak(Box::new(StackResources::<SOCKETS_MAX>::new()));
    let config = station::config(&board_name(running));
    let (stack, runner) = embassy_net::new(driver, config, resources, chip::seed());
    if let (Ok(run), Ok(watch)) = (run_stack(runner), station::watch(stack, running)) {
        spawner.spawn(run);
        spawner.spawn(watch);
    }
    serve::begin(spawner, stack, running);
    dial::begin(spawner, stack, settings, running);
    watch_cable(phy, mdio, first, running).await;
}

#[embassy_executor::task]
async fn run_stack(mut runner: embassy_net::Runner<'static, EmacDefaultDriver<'static>>) -> ! {
    runner.run().await
}

async fn until_linked(phy: &mut PhyLan87xx, mdio: &mut EspMdio) -> LinkState {
    loop {
        if let Ok(state) = phy.poll_link(mdio)
            && state.up
        {
            return state;
        }
        Timer::after(LOOK_EVERY).await;
    }
}

/// A cable may be drawn and put back; what it comes back as, the driver cannot change any more.
async fn watch_cable(
    mut phy: PhyLan87xx,
    mut mdio: EspMdio,
    first: LinkState,
    running: &'static Running,
) -> ! {
    let mut was_up = true;
    loop {
        Timer::after(LOOK_EVERY).await;
        let Ok(state) = phy.poll_link(&mut mdio) else { continue };
        match (was_up, state.up) {
            (true, false) => {
                STATE.set_link_down();
                say(running, Level::Warning, "its cable is out".into());
            }
            (false, true) if (state.speed, state.duplex) != (first.speed, first.duplex) => {
                running.restart_for("as its cable came back with another speed");
            }
            (false, true) => {
                STATE.set_link_up();
                say(running, Level::Notice, "its cable is in again".into());
            }
            (true, true) | (false, false) => (),
        }
        was_up = state.up;
    }
}

/// The PHY's clock also leaves the chip at GPIO0, as boards with the WROVER module want it: pin
/// function 1 there is `CLK_OUT1`, and 6 in `PIN_CTRL` is the audio PLL (ESP-IDF does the same in
/// `emac_hal_iomux_rmii_clk_ouput`).
fn clock_to_gpio0() {
    let io_mux = IO_MUX::regs();
    io_mux.pin_ctrl().modify(|_, to| unsafe { to.clk1().bits(AUDIO_PLL) });
    io_mux.gpio0().modify(|_, to| unsafe { to.mcu_sel().bits(CLK_OUT1) });
}

const AUDIO_PLL: u8 = 6;
const CLK_OUT1: u8 = 1;
/// The LAN8710A's data sheet: its power-up takes less.
const POWER_UP: Duration = Duration::from_millis(200);
const LOOK_EVERY: Duration = Duration::from_millis(500);
