//! The device's API and pages, on port 80 of its network.

use alloc::vec::Vec;

use embassy_executor::Spawner;
use embassy_net::Stack;
use embassy_net::tcp::TcpSocket;
use embassy_time::{Duration, Timer};
use lockstep_device::http::{self, CONNECTIONS_MAX, HTTP_BUFFER_BYTES};

use crate::running::Running;

/// As many tasks as connections may be served at once.
pub(super) fn begin(spawner: Spawner, stack: Stack<'static>, running: &'static Running) {
    for _ in 0..CONNECTIONS_MAX {
        if let Ok(task) = serve(stack, running) {
            spawner.spawn(task);
        }
    }
}

#[embassy_executor::task(pool_size = CONNECTIONS_MAX)]
async fn serve(stack: Stack<'static>, running: &'static Running) -> ! {
    let mut rx = alloc::vec![0; RX_BYTES];
    let mut tx = alloc::vec![0; TX_BYTES];
    loop {
        let mut socket = TcpSocket::new(stack, &mut rx, &mut tx);
        socket.set_keep_alive(Some(KEEP_ALIVE));
        socket.set_timeout(Some(SILENCE_MAX));
        if socket.accept(PORT).await.is_err() {
            Timer::after(PAUSE).await;
            continue;
        }
        let mut head = Vec::new();
        // A board that is short of memory hangs up, and goes on.
        if head.try_reserve_exact(HTTP_BUFFER_BYTES).is_err() {
            socket.abort();
            continue;
        }
        head.resize(HTTP_BUFFER_BYTES, 0);
        http::serve(running, &running.api, socket, &mut head).await;
    }
}

const PORT: u16 = 80;
/// Two segments, and some: an upload waits for the flash, not for the window.
const RX_BYTES: usize = 4 * 1024;
const TX_BYTES: usize = 2 * 1024;
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const SILENCE_MAX: Duration = Duration::from_secs(45);
const PAUSE: Duration = Duration::from_millis(100);
