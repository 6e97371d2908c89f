//! What the board was told, as it is needed before the node runs: the same configuration that the
//! node hands to the application.

use alloc::boxed::Box;

use esp_storage::FlashStorage;
use lockstep_agent::config::{CONFIG_BYTES_MAX, load};
use lockstep_agent::layout::Layout;
use lockstep_device::settings::Settings;
use lockstep_proto::id::ImageHash;

/// What is in force for the running image. A configuration that makes no sense is as good as none
/// here; the node says so in its log.
pub(crate) fn settings(
    layout: &Layout,
    image: ImageHash,
    flash: &mut FlashStorage<'static>,
) -> Settings {
    let mut read = || {
        let mut buffer = Box::new([0; CONFIG_BYTES_MAX]);
        let length = load(flash, layout.config()?, image, &mut buffer).ok()??;
        let text = core::str::from_utf8(buffer.get(..length)?).ok()?;
        Settings::read(text).ok()
    };
    read().unwrap_or_default()
}
