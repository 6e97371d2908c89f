//! A descriptor that the compiler makes: firmware in Rust says what it is in its source, and what
//! it says wrong does not compile.

use super::{CRC, CRC_OFFSET, DESCRIPTOR_BYTES, FORMAT, MAGIC};

/// What a firmware says of itself, as its source has it. [`crate::descriptor!`] puts it into the
/// image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Constant {
    /// The system it belongs to: 1 to 23 printable ASCII letters.
    pub product: &'static str,
    /// What the device is for: 1 to 15.
    pub role: &'static str,
    /// The hardware that it runs on: 1 to 31.
    pub board: &'static str,
    /// Its release, as `1.2.3`.
    pub version: &'static str,
    /// The oldest firmware it exchanges data with, as `1.0.0`.
    pub min_compatible: &'static str,
    /// The oldest and the newest application protocol that it speaks.
    pub protocol: (u8, u8),
    /// The anti-rollback counter of its release.
    pub epoch: u32,
    /// Which layout of the application's configuration it reads and writes.
    pub config_schema: u16,
}

impl Constant {
    /// The bytes for the image.
    ///
    /// # Panics
    ///
    /// If a field is not as it says above; in a constant that is an error of the compiler.
    pub const fn encode(&self) -> [u8; DESCRIPTOR_BYTES] {
        let (oldest, newest) = self.protocol;
        assert!(oldest <= newest, "the oldest protocol is above the newest");
        let bytes = put([0; DESCRIPTOR_BYTES], 0, &MAGIC);
        let bytes = put(bytes, 8, &[FORMAT, oldest, newest]);
        let bytes = put(bytes, 12, &number(self.version).to_le_bytes());
        let bytes = put(bytes, 16, &number(self.min_compatible).to_le_bytes());
        let bytes = put(bytes, 20, &self.epoch.to_le_bytes());
        let bytes = put(bytes, 24, &self.config_schema.to_le_bytes());
        let bytes = put_name(bytes, 28, 24, self.product);
        let bytes = put_name(bytes, 52, 16, self.role);
        let bytes = put_name(bytes, 68, 32, self.board);
        let (covered, _) = bytes.split_at(CRC_OFFSET);
        put(bytes, CRC_OFFSET, &CRC.checksum(covered).to_le_bytes())
    }
}

const fn put(
    mut bytes: [u8; DESCRIPTOR_BYTES],
    offset: usize,
    field: &[u8],
) -> [u8; DESCRIPTOR_BYTES] {
    let mut at = 0;
    while at < field.len() {
        bytes[offset + at] = field[at];
        at += 1;
    }
    bytes
}

const fn put_name(
    bytes: [u8; DESCRIPTOR_BYTES],
    offset: usize,
    field_bytes: usize,
    name: &str,
) -> [u8; DESCRIPTOR_BYTES] {
    let name = name.as_bytes();
    assert!(!name.is_empty(), "a name of the descriptor is empty");
    assert!(name.len() < field_bytes, "a name of the descriptor is too long");
    let mut at = 0;
    while at < name.len() {
        assert!(
            name[at] >= b' ' && name[at] <= b'~',
            "a name of the descriptor has other letters than printable ascii"
        );
        at += 1;
    }
    put(bytes, offset, name)
}

/// The number of a version such as `1.2.3`.
const fn number(version: &str) -> u32 {
    let text = version.as_bytes();
    let (mut parts, mut part, mut digits, mut at) = ([0_u32; 3], 0, 0, 0);
    while at < text.len() {
        let letter = text[at];
        if letter == b'.' {
            assert!(digits > 0 && part < 2, "the version is not of the form 1.2.3");
            part += 1;
            digits = 0;
        } else {
            assert!(letter.is_ascii_digit(), "the version is not of the form 1.2.3");
            assert!(digits < 6, "a part of the version is too long");
            parts[part] = parts[part] * 10 + (letter - b'0') as u32;
            digits += 1;
        }
        at += 1;
    }
    assert!(digits > 0 && part == 2, "the version is not of the form 1.2.3");
    let [major, minor, patch] = parts;
    assert!(minor <= 99 && patch <= 99, "minor and patch of a version are at most 99");
    // Those that have a number for certain; see `ReleaseVersion`.
    assert!(major < 429_496, "the version is too high to have a number");
    major * 10_000 + minor * 100 + patch
}

/// Puts a [`Constant`](crate::descriptor::Constant) into the image, at the place where ESP-IDF has
/// a custom application description; once in each program.
///
/// ```
/// # #[cfg(target_os = "none")]
/// lockstep_proto::descriptor!(lockstep_proto::descriptor::Constant {
///     product: "battery-companion",
///     role: "receiver",
///     board: "t-display-s3",
///     version: "1.2.3",
///     min_compatible: "1.0.0",
///     protocol: (1, 2),
///     epoch: 0,
///     config_schema: 0,
/// });
/// ```
#[macro_export]
macro_rules! descriptor {
    ($constant:expr) => {
        /// What this image says of itself.
        #[used]
        #[unsafe(link_section = ".flash.appdesc.lockstep")]
        pub static LOCKSTEP_DESCRIPTOR: [u8; $crate::descriptor::DESCRIPTOR_BYTES] = {
            const CONSTANT: $crate::descriptor::Constant = $constant;
            CONSTANT.encode()
        };
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &[u8] = include_bytes!("../../tests/golden/descriptor-v1.bin");

    const SAMPLE: Constant = Constant {
        product: "battery-companion",
        role: "transmitter",
        board: "olimex-esp32-poe-iso",
        version: "1.2.3",
        min_compatible: "1.1.0",
        protocol: (2, 3),
        epoch: 7,
        config_schema: 4,
    };

    #[test]
    fn the_compiler_makes_the_very_bytes_that_are_frozen() {
        const BYTES: [u8; DESCRIPTOR_BYTES] = SAMPLE.encode();
        assert_eq!(BYTES, GOLDEN);
    }

    #[test]
    fn what_a_source_says_wrong_is_refused() {
        for wrong in [
            Constant { product: "", ..SAMPLE },
            Constant { product: "a name of 24 letters....", ..SAMPLE },
            Constant { role: "sixteen letters.", ..SAMPLE },
            Constant { board: "b\u{f6}ard", ..SAMPLE },
            Constant { version: "1.2", ..SAMPLE },
            Constant { version: "1.2.3.4", ..SAMPLE },
            Constant { version: "1..3", ..SAMPLE },
            Constant { version: "1.2.100", ..SAMPLE },
            Constant { version: "429496.0.0", ..SAMPLE },
            Constant { version: "1.2.x", ..SAMPLE },
            Constant { min_compatible: "", ..SAMPLE },
            Constant { protocol: (3, 2), ..SAMPLE },
        ] {
            let refused = std::panic::catch_unwind(|| wrong.encode());
            assert!(refused.is_err(), "{wrong:?}");
        }
    }
}
