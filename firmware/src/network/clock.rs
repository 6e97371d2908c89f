//! What time it is, asked of a time server: a schedule survives a restart only on a board that
//! knows.

use alloc::format;
use alloc::string::String;
use core::net::SocketAddr;

use embassy_net::Stack;
use embassy_net::udp::{PacketMetadata, UdpSocket};
use embassy_time::{Duration, Instant, Timer, with_timeout};
use lockstep_device::http::Shell as _;
use lockstep_device::journal::Level;
use sntpc::{NtpContext, NtpTimestampGenerator};
use sntpc_net_embassy::UdpSocketWrapper;

use super::{dial, say};
use crate::running::Running;

/// Asks, and asks again.
#[embassy_executor::task]
pub(super) async fn follow(stack: Stack<'static>, host: String, running: &'static Running) -> ! {
    let mut is_known = false;
    let mut is_said = false;
    loop {
        match with_timeout(ANSWER_LIMIT, ask(stack, &host)).await {
            Ok(Some(unix_s)) => {
                running.with(|now, node, _| node.application_mut().set_clock(now, unix_s));
                if !is_known {
                    say(running, Level::Info, format!("`{host}` tells the time"));
                }
                (is_known, is_said) = (true, false);
                Timer::after(EVERY).await;
            }
            Ok(None) | Err(_) => {
                if !is_said {
                    say(running, Level::Warning, format!("`{host}` does not tell the time"));
                    is_said = true;
                }
                Timer::after(RETRY).await;
            }
        }
    }
}

/// Seconds since 1970 in UTC.
async fn ask(stack: Stack<'static>, host: &str) -> Option<u64> {
    let address = dial::find(stack, host).await.ok()?;
    let (mut rx_meta, mut tx_meta) = ([PacketMetadata::EMPTY; 2], [PacketMetadata::EMPTY; 2]);
    let (mut rx, mut tx) = ([0; SPACE_BYTES], [0; SPACE_BYTES]);
    let mut socket = UdpSocket::new(stack, &mut rx_meta, &mut rx, &mut tx_meta, &mut tx);
    socket.bind(0).ok()?;
    let socket = UdpSocketWrapper::from(socket);
    let context = NtpContext::new(SinceReset::default());
    let told = sntpc::get_time(SocketAddr::new(address, NTP_PORT), &socket, context).await.ok()?;
    Some(told.sec().into())
}

/// The board's own clock, which the answer is measured with.
#[derive(Debug, Clone, Copy, Default)]
struct SinceReset(u64);

impl NtpTimestampGenerator for SinceReset {
    fn init(&mut self) {
        self.0 = Instant::now().as_micros();
    }

    fn timestamp_sec(&self) -> u64 {
        self.0 / 1_000_000
    }

    fn timestamp_subsec_micros(&self) -> u32 {
        // Less than a million.
        (self.0 % 1_000_000) as u32
    }
}

const NTP_PORT: u16 = 123;
const SPACE_BYTES: usize = 256;
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// A chip's clock is off by a second or two in a day.
const EVERY: Duration = Duration::from_secs(4 * 3600);
const RETRY: Duration = Duration::from_secs(60);
