// A transmitter: measures, sends, and is updated with its group. For an Olimex ESP32-POE-ISO, and as
// it is on a host.
//
// Its own work is between the two lines below. Everything else is what a firmware needs to take part.

#include <Arduino.h>

#include "lockstep_port.h"

#ifdef ESP_PLATFORM
#include <WiFi.h>
// A manifest is judged on the stack; 8 KiB is what the task has otherwise.
SET_LOOP_TASK_STACK_SIZE(64 * 1024);
#endif

#ifndef VERSION_MINOR
#define VERSION_MINOR 0
#endif

LOCKSTEP_DESCRIPTOR(
    "desk",                 // the system: one name for all its devices
    "transmitter",          // what this device is for
    "esp32-poe-iso",        // the board
    1, VERSION_MINOR, 0,    // its release
    1, 0, 0,                // the oldest firmware that it exchanges data with
    1, 1,                   // the application protocols that it speaks
    0,                      // the anti-rollback counter
    0);                     // the layout of its configuration

// Else Arduino confirms a new image before it was tried.
extern "C" bool verifyRollbackLater() {
    return true;
}

static Lockstep *lockstep;

// ---------------------------------------------------------------------------------------------------

static bool contactors_closed = true;
static uint64_t open_at_ms;
static uint64_t sent_at_ms;
static uint32_t sequence;

// The application's frame: type 0x01, sequence, state of charge in hundredths of a percent, watts.
static void measure_and_send(uint64_t now_ms) {
    if (!contactors_closed || now_ms - sent_at_ms < 500) {
        return;
    }
    sent_at_ms = now_ms;
    sequence++;
    const uint16_t charge = 5000;
    const int32_t power = -1200;
    uint8_t frame[11] = {0x01};
    for (int i = 0; i < 4; i++) {
        frame[1 + i] = static_cast<uint8_t>(sequence >> (8 * i));
        frame[7 + i] = static_cast<uint8_t>(static_cast<uint32_t>(power) >> (8 * i));
    }
    frame[5] = static_cast<uint8_t>(charge & 0xFF);
    frame[6] = static_cast<uint8_t>(charge >> 8);
    lockstep_send(lockstep, frame, sizeof frame);
}

// A reboot is near: what it would hurt is stopped first. Here contactors open within 50 ms.
static void ask_rest(void *) {
    if (!contactors_closed) {
        // They are open already, as when it is asked once more.
        lockstep_answer_rest(lockstep, LOCKSTEP_REST_AT_REST);
    } else if (open_at_ms == 0) {
        open_at_ms = lockstep_port_now_ms() + 50;
    }
}

static void come_to_rest(uint64_t now_ms) {
    if (open_at_ms != 0 && now_ms >= open_at_ms) {
        open_at_ms = 0;
        contactors_closed = false;
        lockstep_answer_rest(lockstep, LOCKSTEP_REST_AT_REST);
    }
}

// No reboot is coming: the group stays on what it runs.
static void release(void *) {
    open_at_ms = 0;
    contactors_closed = true;
}

// A broken release is one that says `false` here, or nothing, for longer than a trial lasts.
static bool is_healthy() {
#ifdef BROKEN
    return false;
#else
    return true;
#endif
}

// ---------------------------------------------------------------------------------------------------

static LockstepPort port;

void setup() {
    Serial.begin(115200);
    port.hardware = "Olimex ESP32-POE-ISO";
    port.build_date = __DATE__;
    port.build_time = __TIME__;
    // Where its lead is, it finds out: a radio without an access point looks on all channels.
    port.channel_first = 1;
    port.channel_last = 13;
    // For a product: another one for each device, printed on its label.
    port.first_password = "correct horse";
    port.ask_rest = ask_rest;
    port.release = release;
    // First thing: a trial that must end restarts in here.
    lockstep = lockstep_port_begin(&port);
    if (lockstep == nullptr) {
        return;
    }
#ifdef ESP_PLATFORM
    WiFi.mode(WIFI_STA);
#endif
    lockstep_port_radio();
    // This application has no loop that an erase of flash would disturb.
    lockstep_set_pause(lockstep, 0);
}

void loop() {
    const uint64_t now_ms = lockstep_port_now_ms();
    measure_and_send(now_ms);
    come_to_rest(now_ms);
    lockstep_set_health(lockstep, now_ms, is_healthy());
    lockstep_port_loop();
    delay(1);
}
