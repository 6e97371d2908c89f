/* Stands in for the header of ESP-IDF of this name, with what the port uses of it. */
#pragma once
#include <stddef.h>
void esp_fill_random(void *buf, size_t len);
