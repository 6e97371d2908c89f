/* Stands in for the header of ESP-IDF of this name, with what the port uses of it. */
#pragma once
#include <stdint.h>
int64_t esp_timer_get_time(void);
