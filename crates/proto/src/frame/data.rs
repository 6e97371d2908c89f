//! The sample application's data frame: what a transmitter measures and a receiver shows.
//!
//! Application frames are the application's own; this one exists so that a pair on a desk has
//! something to gate.

use crate::wire::{Full, Reader, TooShort, Writer};

/// Type byte of `msg_data`, as in fielded firmware.
pub const DATA: u8 = 0x01;

/// One measurement. Layout: type `u8`, sequence `u32`, state of charge `u16`, power `i32`; 11
/// bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measurement {
    /// Counts frames of this boot, so that a receiver can tell loss.
    pub sequence: u32,
    /// State of charge in hundredths of a percent, 0 to 10,000.
    pub soc_centipercent: u16,
    /// Power in watts; negative while discharging.
    pub power_w: i32,
}

impl Measurement {
    /// Bytes of the frame.
    pub const LEN_BYTES: usize = 11;

    /// The frame.
    pub fn encode(&self) -> Result<[u8; Self::LEN_BYTES], Full> {
        let mut bytes = [0; Self::LEN_BYTES];
        let mut writer = Writer::new(&mut bytes);
        writer.u8(DATA)?;
        writer.u32(self.sequence)?;
        writer.u16(self.soc_centipercent)?;
        writer.put(&self.power_w.to_le_bytes())?;
        Ok(bytes)
    }

    /// Reads a frame whose type byte is [`DATA`]; longer ones of later versions are accepted.
    pub fn decode(frame: &[u8]) -> Result<Self, TooShort> {
        let mut reader = Reader::new(frame);
        reader.u8()?;
        Ok(Self {
            sequence: reader.u32()?,
            soc_centipercent: reader.u16()?,
            power_w: i32::from_le_bytes(reader.array()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_measurement_are_frozen() {
        let measurement = Measurement { sequence: 7, soc_centipercent: 8_050, power_w: -1_200 };
        let bytes = measurement.encode().unwrap();
        assert_eq!(bytes, [0x01, 7, 0, 0, 0, 0x72, 0x1f, 0x50, 0xfb, 0xff, 0xff]);
        assert_eq!(Measurement::decode(&bytes), Ok(measurement));
    }
}
