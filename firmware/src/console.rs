//! The serial console: what happens, line by line, and a few orders for whoever has a cable.
//!
//! A cable is the way back of whoever lost the password: it can set another one, as it could flash
//! the chip anew.

use alloc::string::{String, ToString as _};

use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::channel::Channel;
use embassy_time::{Duration, Timer};
use embedded_io_async::Read;
use esp_println::println;
use lockstep_device::http::Shell as _;
use lockstep_device::journal::{Journal, Level};
use lockstep_device::password;

use crate::board::ConsoleRx;
use crate::memory;
use crate::running::Running;

/// Prints, and knows what it has printed already.
#[derive(Debug, Default)]
pub(crate) struct Console {
    printed_line: u32,
}

impl Console {
    /// What the journal has that was not printed yet.
    pub(crate) fn print(&mut self, journal: &Journal) {
        for line in journal.lines_after(self.printed_line) {
            say(line.at.ms, line.level, &line.text);
            self.printed_line = line.seq;
        }
    }
}

/// One line: seconds since the reset, level, text.
pub(crate) fn say(at_ms: u64, level: Level, text: &str) {
    println!("{:4}.{:03}s {:7} {text}", at_ms / 1000, at_ms % 1000, level.as_str());
}

/// What somebody with a cable wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// `password NEW`
    Password(String),
    /// `status`
    Status,
    /// `restart`
    Restart,
    /// `setup`: the set-up page comes back.
    Setup,
    /// `help`, or what is not understood.
    Help,
}

/// Where orders come from.
pub(crate) type Orders = Channel<NoopRawMutex, Order, ORDERS_MAX>;

/// Gathers lines. What is longer than an order is, is none.
#[embassy_executor::task]
pub(crate) async fn listen(mut line_in: ConsoleRx, orders: &'static Orders) -> ! {
    let (mut line, mut length) = ([0; LINE_BYTES_MAX], 0_usize);
    let mut bytes = [0; 16];
    loop {
        let Ok(count) = Read::read(&mut line_in, &mut bytes).await else {
            Timer::after(PAUSE).await;
            continue;
        };
        for &byte in bytes.get(..count).unwrap_or_default() {
            if byte != b'\n' && byte != b'\r' {
                if let Some(place) = line.get_mut(length) {
                    *place = byte;
                }
                length = length.saturating_add(1);
                continue;
            }
            let text = line.get(..length).and_then(|it| core::str::from_utf8(it).ok());
            if length > 0 {
                orders.send(text.map_or(Order::Help, understand)).await;
            }
            length = 0;
        }
    }
}

fn understand(line: &str) -> Order {
    match line.trim().split_once(' ').unwrap_or((line.trim(), "")) {
        ("password", new) if !new.trim().is_empty() => Order::Password(new.trim().to_string()),
        ("status", "") => Order::Status,
        ("restart", "") => Order::Restart,
        ("setup", "") if cfg!(feature = "radio") => Order::Setup,
        _ => Order::Help,
    }
}

/// Does what can be done here; why the chip is to start again, if it is.
pub(crate) fn obey(running: &Running, order: &Order) -> Option<&'static str> {
    match order {
        Order::Password(new) => set_password(running, new),
        Order::Status => say_status(running),
        Order::Restart => return Some("as somebody with a cable ordered"),
        Order::Setup => {
            memory::ask_for_setup();
            return Some("to be set up");
        }
        Order::Help => println!("orders: {ORDERS}"),
    }
    None
}

/// How it is, in a line or two.
fn say_status(running: &Running) {
    running.with(|now, node, _| {
        let agent = node.agent();
        let (id, image) = (node.setup().id, agent.running());
        let trial = if agent.on_trial() { ", on trial" } else { "" };
        let password = if node.has_password() { "is set" } else { "is not set" };
        let free = esp_alloc::HEAP.free();
        println!(
            "{id}: image {image} in ota_{}{trial}; password {password}; boot {}; up {} s; \
             {free} bytes of heap free",
            node.setup().running_slot,
            agent.boot_number(),
            now.ms / 1000,
        );
    });
    #[cfg(feature = "radio")]
    match (running.first_start_words(), running.found()) {
        (Some((network, password, address)), _) => {
            println!("join `{network}`, password `{password}`, and open {address}");
        }
        (None, Some(address)) => println!("found at {address}"),
        (None, None) => println!("in no network"),
    }
}

fn set_password(running: &Running, new: &str) {
    if let Err(unfit) = password::check(new) {
        println!("{unfit}; it was not set");
        return;
    }
    let stored = running.with(|now, node, flash| node.change_password(now, new, flash));
    if !stored {
        println!("password was not set: the flash failed");
    }
}

#[cfg(feature = "radio")]
const ORDERS: &str = "status, password NEW, setup, restart";
#[cfg(not(feature = "radio"))]
const ORDERS: &str = "status, password NEW, restart";
const LINE_BYTES_MAX: usize = 128;
const ORDERS_MAX: usize = 2;
const PAUSE: Duration = Duration::from_millis(1);
