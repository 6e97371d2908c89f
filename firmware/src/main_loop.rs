//! The firmware's main loop: whatever comes, the node is asked what to do.

use alloc::string::ToString as _;

use embassy_futures::select::{Either4, select4};
use embassy_time::Timer;
use lockstep_device::http::Shell as _;
use lockstep_device::{Action, RebootReason};
use lockstep_proto::frame::LARGE_FRAME_BYTES_MAX;
use lockstep_proto::id::DeviceId;
use lockstep_proto::time::Instant;

use crate::console::{self, Console, Orders};
use crate::fault::{Fault, Stage};
use crate::halt::restart;
use crate::link::Link;
use crate::memory;
use crate::running::Running;
use crate::watchdog::Watchdog;

/// Runs until the chip resets.
pub(crate) async fn run(
    running: &'static Running,
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
                if let Some(reason) = console::obey(running, &order) {
                    restart(reason);
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
        let reboot = act(running, link, &mut held).await;
        running.with(|_, node, _| {
            console.print(node.journal());
            node.last_good_channel().map(memory::keep_channel);
        });
        fault.show(Running::now(), Stage::Running);
        if let Some(reason) = reboot {
            restart(&reason.to_string());
        }
        if let Some((at, reason)) = running.restart() {
            if Running::now() >= at {
                restart(&reason);
            }
            wake_at = wake_at.min(at);
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
async fn act(running: &Running, link: &Link, held: &mut Held) -> Option<RebootReason> {
    loop {
        send(running, link, held);
        match running.with(|_, node, _| node.poll_action())? {
            Action::Reboot(reason) => return Some(reason),
            Action::Tune(channel) => {
                link.tune(channel).await;
                running.note_channel(channel);
            }
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

/// Frames that are taken, and sent, before others get their turn.
const FRAMES_PER_TURN_MAX: usize = 16;
/// How long a full link gets before it is tried again: a short frame at 115,200 baud.
const LINK_FULL_MS: u64 = 5;
