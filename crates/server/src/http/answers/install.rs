//! What is answered to a browser that installs firmware, in the form of esp-web-tools.

use serde::Serialize;
use utoipa::ToSchema;

/// What esp-web-tools installs. Paths begin at its own address.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebInstall)]
pub(in crate::http) struct Install {
    /// System and role.
    pub(in crate::http) name: String,
    pub(in crate::http) version: String,
    /// Whether it asks to erase a board that has other firmware.
    pub(in crate::http) new_install_prompt_erase: bool,
    /// One, for the chip of the firmware.
    pub(in crate::http) builds: Vec<Build>,
}

/// What is installed on one kind of chip.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebInstallBuild)]
pub(in crate::http) struct Build {
    /// Such as `ESP32-C3`.
    #[serde(rename = "chipFamily")]
    pub(in crate::http) chip_family: String,
    /// In the order of their places.
    pub(in crate::http) parts: Vec<Part>,
    pub(in crate::http) ota: Ota,
}

/// A piece of flash.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebInstallPart)]
pub(in crate::http) struct Part {
    pub(in crate::http) path: String,
    /// Where it goes.
    pub(in crate::http) offset: u32,
}

/// The firmware alone, for ESPHome.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebInstallOta)]
pub(in crate::http) struct Ota {
    pub(in crate::http) path: String,
    /// In hexadecimal digits.
    pub(in crate::http) md5: String,
    /// What is new, for people.
    pub(in crate::http) summary: String,
}
