/* Stands in for the header of ESP-IDF of this name, with what the port uses of it. */
#pragma once
#include "esp_err.h"
typedef enum { WIFI_IF_STA } wifi_interface_t;
typedef enum { WIFI_SECOND_CHAN_NONE } wifi_second_chan_t;
typedef enum { WIFI_PS_NONE } wifi_ps_type_t;
esp_err_t esp_wifi_set_ps(wifi_ps_type_t type);
esp_err_t esp_wifi_set_channel(uint8_t primary, wifi_second_chan_t second);
