/* Stands in for the header of ESP-IDF of this name, with what the port uses of it. */
#pragma once
#define CONFIG_IDF_FIRMWARE_CHIP_ID 0x0000
#define CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE 1
