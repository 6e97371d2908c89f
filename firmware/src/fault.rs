//! Faults on order, in bench builds alone, so that a really bad image can be tried on a chip.
//!
//! Each image carries the behaviour block of desk firmware (`lockstep-sim`, module `firmware`). As
//! it is built, that orders nothing. A test orders a fault there and hashes the image anew: one
//! build, many bad images.

use core::ptr;

use embassy_sync::blocking_mutex::CriticalSectionMutex;
use lockstep_proto::time::Instant;

/// What is wrong with this image, as its block says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It panics before the node has counted the boot.
    CrashAtBoot,
    /// It panics this many milliseconds after its start.
    CrashAfterMs(u32),
    /// It hears nothing over its link.
    Deaf,
    /// It stands still with interrupts off, once the node has booted.
    Hang,
}

impl Fault {
    /// As the image orders; a fault that is not shown here stops the chip, since a test must not
    /// take it for health.
    pub(crate) fn ordered() -> Result<Self, u8> {
        if cfg!(not(feature = "bench")) {
            return Ok(Self::None);
        }
        // SAFETY: it is a valid reference. What stands in the image is read, and not what the
        // compiler knows to have put there.
        let block = unsafe { ptr::read_volatile(&BLOCK) };
        let [.., code, a, b, c, d, _, _, _, _] = block;
        match code {
            0 => Ok(Self::None),
            1 => Ok(Self::CrashAtBoot),
            2 => Ok(Self::CrashAfterMs(u32::from_le_bytes([a, b, c, d]))),
            4 => Ok(Self::Deaf),
            5 => Ok(Self::Hang),
            other => Err(other),
        }
    }

    /// Panics or stands still, if it is time.
    pub(crate) fn show(self, now: Instant, stage: Stage) {
        match (self, stage) {
            (Self::CrashAtBoot, Stage::BeforeNode) => panic!("as its image orders"),
            (Self::CrashAfterMs(ms), Stage::Running) if now.ms >= u64::from(ms) => {
                panic!("after {ms} ms, as its image orders")
            }
            (Self::Hang, Stage::Running) => CriticalSectionMutex::new(()).lock(|()| {
                loop {
                    core::hint::spin_loop();
                }
            }),
            _ => (),
        }
    }
}

/// How far the start has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing has run but the watchdog's arming.
    BeforeNode,
    /// The main loop goes round.
    Running,
}

/// Magic, format, fault, its milliseconds.
static BLOCK: [u8; 16] = *b"LSDESK\x01\0\0\0\0\0\0\0\0\0";
