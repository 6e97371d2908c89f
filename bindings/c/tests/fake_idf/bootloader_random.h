/* Stands in for the header of ESP-IDF of this name, with what the port uses of it. */
#pragma once
void bootloader_random_enable(void);
void bootloader_random_disable(void);
