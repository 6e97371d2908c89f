/* Stands in for the header of ESP-IDF of this name, with what the port uses of it. */
#pragma once
#include <stdint.h>
typedef enum { ESP_RST_UNKNOWN } esp_reset_reason_t;
esp_reset_reason_t esp_reset_reason(void);
void esp_restart(void) __attribute__((noreturn));
void esp_system_abort(const char *details) __attribute__((noreturn));
