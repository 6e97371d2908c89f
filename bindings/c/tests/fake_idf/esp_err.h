/* Stands in for the header of ESP-IDF of this name, with what the port uses of it. */
#pragma once
#include <stdint.h>
typedef int esp_err_t;
#define ESP_OK 0
#define ESP_ERR_NO_MEM 0x101
const char *esp_err_to_name(esp_err_t code);
