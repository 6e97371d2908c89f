//! What somebody can do whose device has no line.

use std::io;

use lockstep_sim::line::{LineError, serial_ports};

/// What to do about it.
pub(crate) fn hint(error: &LineError) -> String {
    match error {
        LineError::Listen { address, source } if source.kind() == io::ErrorKind::AddrInUse => {
            let host = address.ip();
            format!("Another program listens there. Any free port: --link tcp-listen:{host}:0")
        }
        LineError::Listen { .. } => {
            "The address has to be one of this machine, such as 127.0.0.1.".to_owned()
        }
        LineError::Serial { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            "Serial ports belong to a group, most often dialout: sudo usermod -aG dialout $USER, \
             then log in anew."
                .to_owned()
        }
        LineError::Serial { .. } => {
            let ports: Vec<_> =
                serial_ports().iter().map(|port| port.display().to_string()).collect();
            match ports.as_slice() {
                [] => "This machine has no serial port now: is the board plugged in?".to_owned(),
                ports => format!("Serial ports of this machine: {}", ports.join(", ")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_own_way_out() {
        let serial = |kind: io::ErrorKind| LineError::Serial {
            path: "/dev/ttyUSB0".into(),
            source: kind.into(),
        };
        let listen = |kind: io::ErrorKind| LineError::Listen {
            address: "127.0.0.1:5555".parse().unwrap(),
            source: kind.into(),
        };
        for (error, way_out) in [
            (serial(io::ErrorKind::PermissionDenied), "dialout"),
            (serial(io::ErrorKind::NotFound), "serial port"),
            (listen(io::ErrorKind::AddrInUse), "tcp-listen:127.0.0.1:0"),
            (listen(io::ErrorKind::AddrNotAvailable), "one of this machine"),
        ] {
            assert!(hint(&error).to_lowercase().contains(way_out), "{error}: {}", hint(&error));
        }
    }
}
