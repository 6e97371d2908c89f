/* What a sketch needs of the place that it runs at: ESP-IDF or Arduino on a chip
 * (`port/esp_idf/lockstep_port_esp.c`), or a host (`host/lockstep_port_host.c`).
 *
 * The port owns the flash, the radio and the clock, and does what Lockstep asks for but what only
 * the application can do: come to rest, and say whether it is healthy. There is one device in a
 * program. All of it is for one task, the one that calls `lockstep_port_loop`.
 */
#ifndef LOCKSTEP_PORT_H
#define LOCKSTEP_PORT_H

#include "lockstep.h"
#include "lockstep_descriptor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the application is. Zeros where nothing is said. Must live as long as the program. */
typedef struct LockstepPort {
    /* The hardware, for people. */
    const char *hardware;
    /* __DATE__ and __TIME__. */
    const char *build_date;
    const char *build_time;
    /* 32 bytes, or null: the device waits for adoption. */
    const uint8_t *group_key;
    /* Base64 lines of the minisign keys that releases are signed with. */
    const char *const *keys;
    uint8_t key_count;
    uint8_t keys_needed;
    /* A LockstepDuty. */
    int32_t duty;
    /* Channels on which it looks for its lead; 0: its access point says where it is. */
    uint8_t channel_first;
    uint8_t channel_last;
    /* The password that a device without one is given; null: it has none until somebody calls
     * `lockstep_set_password`, and cannot be adopted before. */
    const char *first_password;
    /* Handed to the functions below, each of which may be null. */
    void *context;
    /* A data frame of a compatible peer. */
    void (*take_data)(void *context, const uint8_t from[6], const uint8_t *bytes, size_t length);
    /* Stop what a reboot would hurt, and answer with `lockstep_answer_rest`, now or later. Null:
     * nothing would be hurt, and the port answers. */
    void (*ask_rest)(void *context);
    /* No reboot is coming: go on. */
    void (*release)(void *context);
    /* A line of the log; null: to the console. */
    void (*log)(void *context, int32_t level, const char *text);
} LockstepPort;

/* Starts the device: as early as can be, before the radio and whatever could crash. Null: it could
 * not be started; the log says why. A device whose trial must end restarts in here. */
Lockstep *lockstep_port_begin(const LockstepPort *port);

/* On a chip: ESP-NOW. Wi-Fi must run by then; `false`: it does not, or ESP-NOW does not start. */
bool lockstep_port_radio(void);

/* Frames in, time, frames out, and what is asked for. Call it often: with every turn of `loop`. */
void lockstep_port_loop(void);

/* Milliseconds since the start: not `millis`, which begins anew after 49 days. */
uint64_t lockstep_port_now_ms(void);

/* What the library does when it has a fault of its own: says so, and resets. The port's. */
void lockstep_panic(const char *message) __attribute__((noreturn));

#ifdef __cplusplus
}
#endif

#endif
