/* The port for ESP-IDF 5 and later, and for Arduino on top of it: the chip's flash, ESP-NOW, the
 * timer, and a restart.
 *
 * ESP-NOW hands over frames in the task of Wi-Fi; they wait in a queue for the task that calls
 * `lockstep_port_loop`, which is the only one that calls Lockstep. Nothing here is called from an
 * interrupt.
 */
#ifdef ESP_PLATFORM

#include <string.h>

#include "bootloader_random.h"
#include "esp_attr.h"
#include "esp_flash.h"
#include "esp_idf_version.h"
#include "esp_log.h"
#include "esp_mac.h"
#include "esp_now.h"
#include "esp_ota_ops.h"
#include "esp_random.h"
#include "esp_system.h"
#include "esp_timer.h"
#include "esp_wifi.h"
#include "freertos/FreeRTOS.h"
#include "freertos/queue.h"
#include "sdkconfig.h"

#include "lockstep_port.h"

#if ESP_IDF_VERSION < ESP_IDF_VERSION_VAL(5, 0, 0)
#error "needs ESP-IDF 5, or Arduino's core 3: ESP-NOW says less of a frame before"
#endif

static const char TAG[] = "lockstep";

/* Frames that wait for the task. While the flash is busy nobody takes any. */
#define FRAMES_WAITING_MAX 16
#define FRAMES_PER_TURN_MAX 16
/* Tells a channel that was kept over a reset from what memory holds after power on. */
#define CHANNEL_MARK 0x4C535443u

#ifdef ESP_NOW_MAX_DATA_LEN_V2
#define RADIO_FRAME_BYTES LOCKSTEP_FRAME_BYTES_MAX
#define TAKES_LARGE 1
#else
#define RADIO_FRAME_BYTES ESP_NOW_MAX_DATA_LEN
#define TAKES_LARGE 0
#endif

typedef struct Heard {
    uint8_t from[6];
    uint16_t length;
    uint8_t bytes[RADIO_FRAME_BYTES];
} Heard;

static struct {
    const LockstepPort *port;
    Lockstep *lockstep;
    QueueHandle_t heard;
    LockstepFrame held;
    bool holds;
    bool has_radio;
    /* The channel that the radio is to be on and is not yet; 0: it is where it belongs. */
    uint8_t tunes_to;
    bool said_untuned;
} chip;

/* A lead is built with -DLOCKSTEP_PORT_MEMORY_BYTES=LOCKSTEP_LEAD_MEMORY_BYTES. */
#ifndef LOCKSTEP_PORT_MEMORY_BYTES
#define LOCKSTEP_PORT_MEMORY_BYTES LOCKSTEP_MEMORY_BYTES
#endif
static uint8_t memory[LOCKSTEP_PORT_MEMORY_BYTES];

/* The channel on which the lead was found, over a reset. */
static RTC_NOINIT_ATTR uint32_t channel_mark;
static RTC_NOINIT_ATTR uint8_t channel_good;

void lockstep_panic(const char *message) {
    esp_system_abort(message);
}

uint64_t lockstep_port_now_ms(void) {
    return (uint64_t)esp_timer_get_time() / 1000;
}

/* Flash */

static int32_t flash_read(void *context, uint32_t offset, uint8_t *bytes, uint32_t length) {
    (void)context;
    return esp_flash_read(NULL, bytes, offset, length);
}

static int32_t flash_write(void *context, uint32_t offset, const uint8_t *bytes, uint32_t length) {
    (void)context;
    return esp_flash_write(NULL, bytes, offset, length);
}

static int32_t flash_erase(void *context, uint32_t offset, uint32_t length) {
    (void)context;
    return esp_flash_erase_region(NULL, offset, length);
}

static void log_line(void *context, int32_t level, const char *text) {
    (void)context;
    if (chip.port->log != NULL) {
        chip.port->log(chip.port->context, level, text);
        return;
    }
    switch (level) {
    case LOCKSTEP_LEVEL_ERROR:
        ESP_LOGE(TAG, "%s", text);
        break;
    case LOCKSTEP_LEVEL_WARNING:
        ESP_LOGW(TAG, "%s", text);
        break;
    default:
        ESP_LOGI(TAG, "%s", text);
        break;
    }
}

/* Radio */

/* In the task of Wi-Fi. What finds no room is lost, as from any radio. */
static void take(const esp_now_recv_info_t *info, const uint8_t *bytes, int length) {
    /* Too large for the stack of that task. */
    static Heard heard;
    if (length <= 0 || length > (int)sizeof heard.bytes) {
        return;
    }
    memcpy(heard.from, info->src_addr, sizeof heard.from);
    memcpy(heard.bytes, bytes, (size_t)length);
    heard.length = (uint16_t)length;
    xQueueSend(chip.heard, &heard, 0);
}

/* ESP-NOW sends to whom it has in its list, which is short. */
static esp_err_t know(const uint8_t to[6]) {
    if (esp_now_is_peer_exist(to)) {
        return ESP_OK;
    }
    esp_now_peer_info_t peer;
    memset(&peer, 0, sizeof peer);
    memcpy(peer.peer_addr, to, sizeof peer.peer_addr);
    peer.ifidx = WIFI_IF_STA;
    esp_err_t result = esp_now_add_peer(&peer);
    if (result == ESP_ERR_ESPNOW_FULL) {
        esp_now_peer_info_t oldest;
        if (esp_now_fetch_peer(true, &oldest) == ESP_OK) {
            esp_now_del_peer(oldest.peer_addr);
            result = esp_now_add_peer(&peer);
        }
    }
    return result;
}

bool lockstep_port_radio(void) {
    if (chip.heard == NULL) {
        chip.heard = xQueueCreate(FRAMES_WAITING_MAX, sizeof(Heard));
    }
    esp_err_t result = chip.heard == NULL ? ESP_ERR_NO_MEM : esp_now_init();
    if (result == ESP_OK) {
        result = esp_now_register_recv_cb(take);
    }
    /* A radio that sleeps between an access point's beacons hears nobody else meanwhile. */
    if (result == ESP_OK && esp_wifi_set_ps(WIFI_PS_NONE) != ESP_OK) {
        ESP_LOGW(TAG, "Wi-Fi goes on sleeping (Bluetooth?), and will miss frames");
    }
    chip.has_radio = result == ESP_OK;
    if (!chip.has_radio) {
        ESP_LOGE(TAG, "ESP-NOW does not start: %s", esp_err_to_name(result));
    }
    return chip.has_radio;
}

/* `false`: there is no room; the frame is to be sent again later. What cannot be sent at all is
 * lost, and said again by whoever misses the answer. */
static bool radio_send(const LockstepFrame *frame) {
    if (know(frame->to) != ESP_OK) {
        return true;
    }
    return esp_now_send(frame->to, frame->bytes, frame->length) != ESP_ERR_ESPNOW_NO_MEM;
}

static void hear(void) {
    static Heard heard;
    for (int turn = 0; turn < FRAMES_PER_TURN_MAX; turn++) {
        if (xQueueReceive(chip.heard, &heard, 0) != pdTRUE) {
            return;
        }
        LockstepGate gate;
        LockstepResult result = lockstep_receive(chip.lockstep, lockstep_port_now_ms(), heard.from,
                                                 heard.bytes, heard.length, &gate);
        if (result == LOCKSTEP_OK && gate == LOCKSTEP_GATE_PASSES &&
            chip.port->take_data != NULL) {
            chip.port->take_data(chip.port->context, heard.from, heard.bytes, heard.length);
        }
    }
}

static void speak(void) {
    for (int turn = 0; turn < FRAMES_PER_TURN_MAX; turn++) {
        if (!chip.holds) {
            chip.holds = lockstep_poll_frame(chip.lockstep, lockstep_port_now_ms(), &chip.held) ==
                         LOCKSTEP_OK;
            if (!chip.holds) {
                return;
            }
        }
        if (!radio_send(&chip.held)) {
            return;
        }
        chip.holds = false;
    }
}

/* Wi-Fi may not run yet, or scan, or be with an access point: it is tried until it works. The
 * country that Wi-Fi is set to must have the channel (`esp_wifi_set_country_code`). */
static void tune(void) {
    if (chip.tunes_to == 0) {
        return;
    }
    esp_err_t result = esp_wifi_set_channel(chip.tunes_to, WIFI_SECOND_CHAN_NONE);
    if (result == ESP_OK) {
        chip.tunes_to = 0;
        chip.said_untuned = false;
        if (chip.has_radio) {
            speak();
        }
    } else if (!chip.said_untuned) {
        ESP_LOGW(TAG, "channel %u: %s", (unsigned)chip.tunes_to, esp_err_to_name(result));
        chip.said_untuned = true;
    }
}

/* What is asked for */

static void restart(const char *reason) {
    LockstepState state;
    if (lockstep_state(chip.lockstep, &state) == LOCKSTEP_OK) {
        channel_good = state.channel_good;
        channel_mark = CHANNEL_MARK;
    }
    ESP_LOGW(TAG, "restarts %s", reason);
    esp_restart();
}

static void obey(void) {
    LockstepEffect effect;
    while (lockstep_poll_effect(chip.lockstep, &effect) == LOCKSTEP_OK) {
        switch (effect.kind) {
        case LOCKSTEP_EFFECT_KIND_REBOOT:
            restart((const char *)effect.reason);
            break;
        case LOCKSTEP_EFFECT_KIND_TUNE:
            chip.tunes_to = effect.channel;
            tune();
            break;
        case LOCKSTEP_EFFECT_KIND_ASK_REST:
            if (chip.port->ask_rest != NULL) {
                chip.port->ask_rest(chip.port->context);
            } else {
                lockstep_answer_rest(chip.lockstep, LOCKSTEP_REST_AT_REST);
            }
            break;
        case LOCKSTEP_EFFECT_KIND_RELEASE:
            if (chip.port->release != NULL) {
                chip.port->release(chip.port->context);
            }
            break;
        }
    }
}

void lockstep_port_loop(void) {
    if (chip.lockstep == NULL) {
        return;
    }
    if (chip.has_radio) {
        hear();
    }
    uint64_t now = lockstep_port_now_ms(), due = 0;
    if (lockstep_next_wake(chip.lockstep, &due) == LOCKSTEP_OK && now >= due) {
        lockstep_tick(chip.lockstep, now);
    }
    tune();
    if (chip.has_radio) {
        speak();
    }
    obey();
}

/* The slot that this program was booted from; another partition is none that Lockstep can use. */
static uint8_t running_slot(void) {
    const esp_partition_t *running = esp_ota_get_running_partition();
    int slot = running == NULL ? -1 : (int)running->subtype - ESP_PARTITION_SUBTYPE_APP_OTA_0;
    return slot >= 0 && slot <= 1 ? (uint8_t)slot : 0xFF;
}

Lockstep *lockstep_port_begin(const LockstepPort *port) {
    chip.port = port;
    LockstepSetup setup;
    memset(&setup, 0, sizeof setup);
    /* Without a radio there is no entropy but from this; it must be off again before Wi-Fi. */
    bootloader_random_enable();
    esp_fill_random(&setup.seed, sizeof setup.seed);
    bootloader_random_disable();
    uint32_t flash_bytes = 0;
    if (esp_read_mac(setup.id, ESP_MAC_WIFI_STA) != ESP_OK ||
        esp_flash_get_size(NULL, &flash_bytes) != ESP_OK) {
        ESP_LOGE(TAG, "the chip's address or flash cannot be read");
        return NULL;
    }
    setup.descriptor = lockstep_descriptor;
    setup.chip = CONFIG_IDF_FIRMWARE_CHIP_ID;
    setup.hardware = port->hardware;
    setup.build_date = port->build_date;
    setup.build_time = port->build_time;
    setup.flash_bytes = flash_bytes;
    setup.running_slot = running_slot();
    setup.reset_reason = (uint8_t)esp_reset_reason();
#ifdef CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE
    setup.rollback = LOCKSTEP_ROLLBACK_BOOTLOADER;
#else
    setup.rollback = LOCKSTEP_ROLLBACK_AGENT;
#endif
    setup.duty = port->duty;
    setup.tempo = LOCKSTEP_TEMPO_BOARD;
    setup.channel_first = port->channel_first;
    setup.channel_last = port->channel_last;
    setup.channel_good = channel_mark == CHANNEL_MARK && channel_good <= 14 ? channel_good : 0;
    setup.takes_large = TAKES_LARGE;
    setup.group_key = port->group_key;
    setup.keys = port->keys;
    setup.key_count = port->key_count;
    setup.keys_needed = port->keys_needed;
    LockstepCallbacks callbacks = {
        .flash_read = flash_read,
        .flash_write = flash_write,
        .flash_erase = flash_erase,
        .log = log_line,
    };
    LockstepResult result = lockstep_init(memory, sizeof memory, lockstep_port_now_ms(), &setup,
                                          &callbacks, &chip.lockstep);
    if (result != LOCKSTEP_OK) {
        ESP_LOGE(TAG, "lockstep_init: %s", lockstep_error_text(result));
        return NULL;
    }
    obey();
    LockstepState state;
    if (port->first_password != NULL && lockstep_state(chip.lockstep, &state) == LOCKSTEP_OK &&
        !state.has_password) {
        result = lockstep_set_password(chip.lockstep, lockstep_port_now_ms(), port->first_password);
        if (result != LOCKSTEP_OK) {
            ESP_LOGE(TAG, "first_password: %s", lockstep_error_text(result));
        }
    }
    return chip.lockstep;
}

#endif
