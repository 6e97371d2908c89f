/* Stands in for the header of ESP-IDF of this name, with what the port uses of it. */
#pragma once
typedef enum { ESP_PARTITION_SUBTYPE_APP_OTA_0 = 0x10 } esp_partition_subtype_t;
typedef struct {
    esp_partition_subtype_t subtype;
} esp_partition_t;
const esp_partition_t *esp_ota_get_running_partition(void);
