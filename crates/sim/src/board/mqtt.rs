//! The board's way to a broker: TCP of the host.

use std::io;
use std::rc::Rc;

use embedded_io_adapters::tokio_1::FromTokio;
use lockstep_device::dial::Dial;
use lockstep_device::mqtt::{self, Broker};
use tokio::io::BufStream;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::boot::Running;

/// Begins to tell the broker what happens in this boot; ends with the value that is returned.
pub(super) fn start(broker: Option<&Broker>, running: &Rc<Running>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    if let Some(broker) = broker.cloned() {
        let running = Rc::clone(running);
        tasks.spawn_local(async move {
            match mqtt::run(&*running, &Tcp, &broker, &running.mqtt_connected).await {}
        });
    }
    tasks
}

/// TCP of the host.
pub(super) struct Tcp;

impl Dial for Tcp {
    type Link = FromTokio<BufStream<TcpStream>>;
    type Error = io::Error;

    async fn dial(&self, host: &str, port: u16) -> io::Result<Self::Link> {
        let stream = TcpStream::connect((host, port)).await?;
        // What is written is gathered here already.
        stream.set_nodelay(true)?;
        Ok(FromTokio::new(BufStream::new(stream)))
    }
}
