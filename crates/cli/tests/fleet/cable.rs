//! A cable to a server that can be cut: connections go through it while it is whole.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// The cable; it is whole at first.
#[derive(Debug)]
pub(crate) struct Cable {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    server: Mutex<String>,
    is_cut: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Cable {
    /// To a server at this address. Its end here is open for as long as the test runs.
    pub(crate) fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (server, is_cut) = (Mutex::new(server.to_owned()), AtomicBool::new(false));
        let state = Arc::new(State { server, is_cut, open: Mutex::default() });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if !shared.is_cut.load(Ordering::SeqCst) {
                    connect(client, &shared);
                }
            }
        });
        Self { address, state }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends what goes through it, and lets nothing through.
    pub(crate) fn cut(&self) {
        self.state.is_cut.store(true, Ordering::SeqCst);
        for stream in self.state.open.lock().unwrap().drain(..) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn mend(&self) {
        self.state.is_cut.store(false, Ordering::SeqCst);
    }

    /// Leads to another server from now on, as a balancer does.
    pub(crate) fn plug_into(&self, server: &str) {
        self.cut();
        server.clone_into(&mut self.state.server.lock().unwrap());
        self.mend();
    }
}

fn connect(client: TcpStream, state: &State) {
    let server = state.server.lock().unwrap().clone();
    let Ok(server) = TcpStream::connect(server) else { return };
    let mut open = state.open.lock().unwrap();
    open.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
    let (other_client, other_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || carry(client, server));
    thread::spawn(move || carry(other_server, other_client));
}

/// Until one side ends.
fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
