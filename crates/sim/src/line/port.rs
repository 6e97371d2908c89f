//! The port at this end of a line: a serial port or a connection, opened so that the board at the
//! other end runs.

use std::io;
use std::path::{Path, PathBuf};

use serial2_tokio::SerialPort;
use tokio::net::{TcpSocket, TcpStream, lookup_host};

/// An open port. Both directions take `&self`: one task may wait in each.
#[derive(Debug)]
pub(super) enum Port {
    Serial(SerialPort),
    Tcp(TcpStream),
}

impl Port {
    /// Opens a serial port, 8N1, at a speed.
    ///
    /// A system raises DTR and RTS when it opens a port. On boards for development they drive EN
    /// and GPIO0 of the chip through two transistors: RTS alone holds it in reset, DTR alone makes
    /// the next reset end in its ROM's loader, and both or none let it run. So RTS goes down first.
    pub(super) fn serial(path: &Path, baud: u32) -> io::Result<Self> {
        let port = SerialPort::open(path, baud)?;
        // Pseudo terminals and the simplest adapters have no such pins.
        let _ = port.set_rts(false);
        let _ = port.set_dtr(false);
        Ok(Self::Serial(port))
    }

    pub(super) async fn dial(host: &str, port: u16) -> io::Result<Self> {
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for address in lookup_host((host, port)).await? {
            let socket =
                if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_send_buffer_size(TCP_SEND_BYTES)?;
            match socket.connect(address).await {
                Ok(stream) => return Self::tcp(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    pub(super) fn tcp(stream: TcpStream) -> io::Result<Self> {
        // Packets are written whole, and each may be waited for.
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    /// What has come, at least a byte; none means that the other end has closed.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Serial(port) => port.read(buffer).await,
            Self::Tcp(stream) => loop {
                stream.readable().await?;
                match stream.try_read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                    done => return done,
                }
            },
        }
    }

    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = match self {
                Self::Serial(port) => port.write(bytes).await?,
                Self::Tcp(stream) => {
                    stream.writable().await?;
                    match stream.try_write(bytes) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                        done => done?,
                    }
                }
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }
}

/// The serial ports of this machine, as far as it tells.
pub fn serial_ports() -> Vec<PathBuf> {
    let mut ports = SerialPort::available_ports().unwrap_or_default();
    ports.sort();
    ports
}

/// A few frames: what lies in here is behind our back, and is not held for anybody. A host doubles
/// it for its own books.
pub(super) const TCP_SEND_BYTES: u32 = 4096;
