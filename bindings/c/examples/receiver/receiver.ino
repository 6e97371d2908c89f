// A receiver: shows what transmitters measure, warns when a peer does not fit, and is updated with
// its group. For a LilyGo T-Display-S3, and as it is on a host, where the console is its screen.

#include <Arduino.h>

#include <string.h>

#include "lockstep_port.h"

#ifdef ESP_PLATFORM
#include <WiFi.h>
// A manifest is judged on the stack; 8 KiB is what the task has otherwise.
SET_LOOP_TASK_STACK_SIZE(64 * 1024);
#endif

#ifndef VERSION_MINOR
#define VERSION_MINOR 0
#endif

#ifndef ROLE
#define ROLE "receiver"
#endif

LOCKSTEP_DESCRIPTOR(
    "desk",                 // the system: one name for all its devices
    ROLE,                   // what this device is for
    "t-display-s3",         // the board
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
static LockstepPort port;

// ---------------------------------------------------------------------------------------------------

// One line of the screen, drawn when it has changed.
static void show(int row, const char *text) {
    static char shown[3][LOCKSTEP_TEXT_BYTES];
    if (strncmp(shown[row], text, sizeof shown[row] - 1) == 0) {
        return;
    }
    snprintf(shown[row], sizeof shown[row], "%s", text);
    // With a screen: tft.drawString(text, 0, row * 40).
    Serial.printf("screen %d: %s\n", row, text);
}

// Only what the gate has passed comes here.
static void take_data(void *, const uint8_t *, const uint8_t *bytes, size_t length) {
    if (length != 11 || bytes[0] != 0x01) {
        return;
    }
    const unsigned charge = bytes[5] | static_cast<unsigned>(bytes[6]) << 8;
    char text[LOCKSTEP_TEXT_BYTES];
    snprintf(text, sizeof text, "battery %u.%02u %%", charge / 100, charge % 100);
    show(0, text);
}

// Which device needs what, if data of a peer is dropped.
static void show_peers() {
    LockstepPeer peer;
    for (size_t index = 0; lockstep_peer(lockstep, index, &peer) == LOCKSTEP_OK; index++) {
        if (peer.is_known && !peer.is_compatible) {
            show(1, reinterpret_cast<const char *>(peer.warning));
            return;
        }
    }
    show(1, "");
}

static void show_update() {
    LockstepState state;
    if (lockstep_state(lockstep, &state) != LOCKSTEP_OK) {
        return;
    }
    char text[LOCKSTEP_TEXT_BYTES];
    if (state.step == LOCKSTEP_STEP_STAGING) {
        snprintf(text, sizeof text, "update: %u KiB", static_cast<unsigned>(state.staged_bytes / 1024));
    } else if (state.on_trial) {
        snprintf(text, sizeof text, "on trial");
    } else {
        snprintf(text, sizeof text, "version %u.%u.%u", static_cast<unsigned>(state.version / 10000),
                 static_cast<unsigned>(state.version / 100 % 100),
                 static_cast<unsigned>(state.version % 100));
    }
    show(2, text);
}

// ---------------------------------------------------------------------------------------------------

void setup() {
    Serial.begin(115200);
    port.hardware = "LilyGo T-Display-S3";
    port.build_date = __DATE__;
    port.build_time = __TIME__;
    port.channel_first = 1;
    port.channel_last = 13;
    // For a product: another one for each device, shown on its screen until it was adopted.
    port.first_password = "correct horse";
    port.take_data = take_data;
    // First thing: a trial that must end restarts in here. It has nothing that a reboot would hurt.
    lockstep = lockstep_port_begin(&port);
    if (lockstep == nullptr) {
        return;
    }
#ifdef ESP_PLATFORM
    WiFi.mode(WIFI_STA);
#endif
    lockstep_port_radio();
    lockstep_set_pause(lockstep, 0);
}

void loop() {
    show_peers();
    show_update();
    lockstep_set_health(lockstep, lockstep_port_now_ms(), true);
    lockstep_port_loop();
    delay(1);
}
