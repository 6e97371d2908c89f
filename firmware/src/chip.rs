//! What only this chip knows: who it is, which slot it was booted from, and why it was reset.

use esp_hal::efuse;
use esp_hal::rng::Rng;
use esp_hal::rtc_cntl::reset_reason;
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

/// The address of its Ethernet, as Espressif derives it.
#[cfg(feature = "esp32-poe-iso")]
pub(crate) fn ethernet_id() -> [u8; 6] {
    let [a, b, c, d, e, f] = id().0;
    [a, b, c, d, e, f.wrapping_add(3)]
}

/// Random bits of this boot. Without a radio that runs they are as good as the chip's clocks drift;
/// what is derived from them is mixed with the durable number of the boot.
pub(crate) fn seed() -> u64 {
    let rng = Rng::new();
    u64::from(rng.random()) << 32 | u64::from(rng.random())
}

/// Letters and digits that nobody can guess and that cannot be mistaken for each other.
#[cfg(feature = "radio")]
pub(crate) fn random_letters(count: usize) -> alloc::string::String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let rng = Rng::new();
    let letter = |_| char::from(LETTERS[rng.random() as usize % LETTERS.len()]);
    (0..count).map(letter).collect()
}

/// A secret. The radio must be on: its noise is what makes the bits random.
#[cfg(feature = "radio")]
pub(crate) fn secret() -> [u8; 32] {
    let mut bytes = [0; 32];
    Rng::new().read(&mut bytes);
    bytes
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

/// As a number of `esp_reset_reason_t`. The ROMs of all chips number what they know alike, in
/// `rom/rtc.h`.
pub(crate) fn esp_reset_reason() -> u8 {
    match reset_reason(Cpu::ProCpu).map(|reason| reason as u8) {
        Some(1) => 1,
        // By software: the whole chip, or this processor.
        Some(3 | 12) => 3,
        // By a timer's watchdog.
        Some(7 | 8 | 11) => 6,
        // By the RTC's.
        Some(9 | 13 | 16) => 7,
        // Out of deep sleep.
        Some(5) => 8,
        // Its power was low.
        Some(15) => 9,
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
