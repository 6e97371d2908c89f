//! What only this chip knows: who it is, which slot it was booted from, and why it was reset.

use esp_hal::efuse;
use esp_hal::rng::Rng;
use esp_hal::rtc_cntl::{SocResetReason, reset_reason};
use esp_hal::system::Cpu;
use esp_storage::FlashStorage;
use lockstep_proto::id::DeviceId;
use lockstep_proto::partition::TABLE_BYTES;

/// Its base MAC address, which is that of its Wi-Fi station, too.
pub(crate) fn id() -> DeviceId {
    let mut id = [0; 6];
    id.iter_mut().zip(efuse::base_mac_address().as_bytes()).for_each(|(to, from)| *to = *from);
    DeviceId(id)
}

/// Random bits of this boot. Without a radio that runs they are as good as the chip's clocks drift;
/// what is derived from them is mixed with the durable number of the boot.
pub(crate) fn seed() -> u64 {
    let rng = Rng::new();
    u64::from(rng.random()) << 32 | u64::from(rng.random())
}

/// The slot that the processor executes from, 0 or 1: where the flash is mapped from, and not what
/// otadata says, since a bootloader passes over an image that it does not like.
pub(crate) fn running_slot(flash: &mut FlashStorage<'static>) -> Option<u8> {
    let mut bytes = [0; TABLE_BYTES];
    let table = esp_bootloader_esp_idf::partitions::read_partition_table(flash, &mut bytes).ok()?;
    let running = table.booted_partition().ok()??;
    let layout = lockstep_agent::layout::Layout::find(flash).ok()?;
    let slot = layout.slots.iter().position(|slot| slot.offset == running.offset())?;
    u8::try_from(slot).ok()
}

/// As a number of `esp_reset_reason_t`.
pub(crate) fn esp_reset_reason() -> u8 {
    match reset_reason(Cpu::ProCpu) {
        Some(SocResetReason::ChipPowerOn) => 1,
        Some(SocResetReason::CoreSw | SocResetReason::Cpu0Sw) => 3,
        Some(SocResetReason::CoreMwdt0 | SocResetReason::Cpu0Mwdt0) => 6,
        Some(
            SocResetReason::CoreRtcWdt | SocResetReason::Cpu0RtcWdt | SocResetReason::SysRtcWdt,
        ) => 7,
        Some(SocResetReason::CoreDeepSleep) => 8,
        Some(SocResetReason::SysBrownOut) => 9,
        _ => 0,
    }
}

/// Starts the chip again.
pub(crate) fn reset() -> ! {
    esp_hal::system::software_reset()
}

/// A panic has been printed: whatever it was, the way back from a trial is a reset.
#[unsafe(no_mangle)]
extern "Rust" fn custom_halt() -> ! {
    reset()
}
