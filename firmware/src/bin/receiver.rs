//! The receiver: it shows what the transmitter measures.

#![no_std]
#![no_main]

use embassy_executor::Spawner;
use lockstep_firmware::Part;

lockstep_proto::descriptor!(lockstep_firmware::describe(Part::Receiver));
esp_bootloader_esp_idf::esp_app_desc!();

#[esp_rtos::main]
async fn main(spawner: Spawner) -> ! {
    lockstep_firmware::run(spawner, Part::Receiver).await
}
