/* Lockstep: devices that must agree move from one signed release to the next together.
 *
 * Made of `bindings/c/src` by cbindgen: `UPDATE_EXPECT=1 cargo test -p lockstep-c --test header`.
 * docs/c.md says how it is used. Times are milliseconds since the start of the chip, and never go
 * back. No call waits, and none may be made from an interrupt, from two tasks at once, or from a
 * callback: such a call is refused.
 */

#ifndef LOCKSTEP_H
#define LOCKSTEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * The longest frame, in bytes. Without `takes_large` none is longer than 250.
 */
#define LOCKSTEP_FRAME_BYTES_MAX 1041

/**
 * Room for a text with the NUL at its end; a longer one is cut.
 */
#define LOCKSTEP_TEXT_BYTES 96

/**
 * Memory that is enough for a member, in bytes: what was measured, and half of it once more.
 */
#define LOCKSTEP_MEMORY_BYTES 65536

/**
 * Memory that is enough for a lead, in bytes, which holds a release's manifest in it twice while
 * it begins a rollout: what was measured, and half of it once more. With less it is not started.
 */
#define LOCKSTEP_LEAD_MEMORY_BYTES 98304

/**
 * What came of a call. Below 0: an error, and nothing was changed.
 */
enum LockstepResult
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Done.
     */
    LOCKSTEP_OK = 0,
    /**
     * There is nothing to take.
     */
    LOCKSTEP_NONE = 1,
    /**
     * A pointer is null that must not be.
     */
    LOCKSTEP_ERROR_NULL = -1,
    /**
     * This is no running instance: it was never started, or has ended.
     */
    LOCKSTEP_ERROR_HANDLE = -2,
    /**
     * Another call is running, from another task or below this one.
     */
    LOCKSTEP_ERROR_BUSY = -3,
    /**
     * The memory that was handed in is too small to start.
     */
    LOCKSTEP_ERROR_MEMORY = -4,
    /**
     * A field of the setup is not as the header says it must be; the log says which.
     */
    LOCKSTEP_ERROR_SETUP = -5,
    /**
     * The bytes of the descriptor are none.
     */
    LOCKSTEP_ERROR_DESCRIPTOR = -6,
    /**
     * The device cannot start from its flash; the log says why.
     */
    LOCKSTEP_ERROR_BOOT = -7,
    /**
     * Too long, too short, or more than fits.
     */
    LOCKSTEP_ERROR_LENGTH = -8,
    /**
     * A number that stands for nothing here.
     */
    LOCKSTEP_ERROR_VALUE = -9,
    /**
     * A reboot was ordered and must come first.
     */
    LOCKSTEP_ERROR_REBOOT = -10,
    /**
     * A text is not UTF-8, or not fit to be a password.
     */
    LOCKSTEP_ERROR_TEXT = -11,
    /**
     * The flash failed.
     */
    LOCKSTEP_ERROR_FLASH = -12,
    /**
     * Only the lead of a group can do this.
     */
    LOCKSTEP_ERROR_NOT_LEAD = -13,
    /**
     * The release or the rollout was refused; the log says why.
     */
    LOCKSTEP_ERROR_REFUSED = -14,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum LockstepResult LockstepResult;
#else
typedef int32_t LockstepResult;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Whose a frame is that came over the radio, and whether its data may be used.
 */
enum LockstepGate
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It was for Lockstep, which has taken it.
     */
    LOCKSTEP_GATE_OURS = 0,
    /**
     * The application's, from a compatible peer: use it.
     */
    LOCKSTEP_GATE_PASSES = 1,
    /**
     * The application's, from a peer that is unknown, incompatible, or not yet heard: drop it.
     */
    LOCKSTEP_GATE_DROPPED = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum LockstepGate LockstepGate;
#else
typedef int32_t LockstepGate;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What the caller is to do.
 */
enum LockstepEffectKind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Reset the chip, at once. Nothing else is done until then.
     */
    LOCKSTEP_EFFECT_KIND_REBOOT = 1,
    /**
     * Put the radio on `channel`, then poll for frames again: none is handed out before.
     */
    LOCKSTEP_EFFECT_KIND_TUNE = 2,
    /**
     * Stop what a reboot would hurt, and answer with `lockstep_answer_rest`. May come again.
     */
    LOCKSTEP_EFFECT_KIND_ASK_REST = 3,
    /**
     * No reboot is coming: go on working.
     */
    LOCKSTEP_EFFECT_KIND_RELEASE = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum LockstepEffectKind LockstepEffectKind;
#else
typedef int32_t LockstepEffectKind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Where a device stands in its last rollout.
 */
enum LockstepStep
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * No rollout has ever asked anything.
     */
    LOCKSTEP_STEP_IDLE = 0,
    /**
     * The new image is on its way into the other slot.
     */
    LOCKSTEP_STEP_STAGING = 1,
    /**
     * The other slot holds it, read back and verified.
     */
    LOCKSTEP_STEP_STAGED = 2,
    /**
     * It is booted next, or runs on trial.
     */
    LOCKSTEP_STEP_ACTIVATING = 3,
    /**
     * It is being made permanent.
     */
    LOCKSTEP_STEP_CONFIRMING = 4,
    /**
     * It is permanent.
     */
    LOCKSTEP_STEP_KEPT = 5,
    /**
     * The device went back, or never activated it.
     */
    LOCKSTEP_STEP_REVERTED = 6,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum LockstepStep LockstepStep;
#else
typedef int32_t LockstepStep;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a device does in its group.
 */
enum LockstepDuty
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Takes part.
     */
    LOCKSTEP_DUTY_MEMBER = 0,
    /**
     * Conducts the group's rollouts, and takes part in them.
     */
    LOCKSTEP_DUTY_LEAD = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum LockstepDuty LockstepDuty;
#else
typedef int32_t LockstepDuty;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How much a line of the log matters.
 */
enum LockstepLevel
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Detail.
     */
    LOCKSTEP_LEVEL_INFO = 0,
    /**
     * A step of an update.
     */
    LOCKSTEP_LEVEL_NOTICE = 1,
    /**
     * Something to look at.
     */
    LOCKSTEP_LEVEL_WARNING = 2,
    /**
     * Somebody must act.
     */
    LOCKSTEP_LEVEL_ERROR = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum LockstepLevel LockstepLevel;
#else
typedef int32_t LockstepLevel;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How far the application is on its way to rest.
 */
enum LockstepRest
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It is stopping what a reboot would hurt.
     */
    LOCKSTEP_REST_PENDING = 0,
    /**
     * A reboot hurts nothing now.
     */
    LOCKSTEP_REST_AT_REST = 1,
    /**
     * It cannot stop now; it is asked again.
     */
    LOCKSTEP_REST_NOT_NOW = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum LockstepRest LockstepRest;
#else
typedef int32_t LockstepRest;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What catches a failed trial.
 */
enum LockstepRollback
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The firmware itself, first thing at start: say so while it is not known what the bootloader
     * does. A trial finds out.
     */
    LOCKSTEP_ROLLBACK_AGENT = 0,
    /**
     * The bootloader (`CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE`).
     */
    LOCKSTEP_ROLLBACK_BOOTLOADER = 1,
    /**
     * Nothing: such a device takes no part in a rollout that promises a way back.
     */
    LOCKSTEP_ROLLBACK_NONE = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum LockstepRollback LockstepRollback;
#else
typedef int32_t LockstepRollback;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How fast a group lives: all of it alike.
 */
enum LockstepTempo
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * As chips do.
     */
    LOCKSTEP_TEMPO_BOARD = 0,
    /**
     * As desk devices do, which boot in no time.
     */
    LOCKSTEP_TEMPO_DESK = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum LockstepTempo LockstepTempo;
#else
typedef int32_t LockstepTempo;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A device of a group. Lies in the caller's memory, and is used through its address alone.
 */
typedef struct Lockstep Lockstep;

/**
 * What a device is. Filled with zeros first, then what is not optional is set. Everything that it
 * points to is copied.
 */
typedef struct {
    /**
     * Its base MAC address, which is that of its Wi-Fi station, too.
     */
    uint8_t id[6];
    /**
     * The 128 bytes that `LOCKSTEP_DESCRIPTOR` has made.
     */
    const uint8_t *descriptor;
    /**
     * The chip's number in images: ESP32 is 0, ESP32-S3 9, ESP32-C3 5, ESP32-C6 13
     * (`CONFIG_IDF_FIRMWARE_CHIP_ID`).
     */
    uint16_t chip;
    /**
     * Its hardware, for people. May be null.
     */
    const char *hardware;
    /**
     * `__DATE__`. May be null.
     */
    const char *build_date;
    /**
     * `__TIME__`. May be null.
     */
    const char *build_time;
    /**
     * The whole flash, in bytes.
     */
    uint32_t flash_bytes;
    /**
     * The slot that the chip executes from, 0 or 1.
     */
    uint8_t running_slot;
    /**
     * Why it was reset: the number of `esp_reset_reason_t`.
     */
    uint8_t reset_reason;
    /**
     * What catches a failed trial: a `LockstepRollback`.
     */
    int32_t rollback;
    /**
     * What it does in its group: a `LockstepDuty`.
     */
    int32_t duty;
    /**
     * How fast its group lives: a `LockstepTempo`.
     */
    int32_t tempo;
    /**
     * The lowest channel on which it may look for its lead. 0: its access point or its wire says
     * where it is, as for every lead.
     */
    uint8_t channel_first;
    /**
     * The highest.
     */
    uint8_t channel_last;
    /**
     * Where it found its lead last, if it remembers that over a reset; else 0.
     */
    uint8_t channel_good;
    /**
     * 1 if its radio takes and sends frames of `LOCKSTEP_FRAME_BYTES_MAX` bytes, as ESP-NOW
     * version 2 does (ESP-IDF 5.4 and later); else 0.
     */
    uint8_t takes_large;
    /**
     * The 32 bytes of the group's key. Null: it waits for adoption, or was adopted before. A lead
     * needs one.
     */
    const uint8_t *group_key;
    /**
     * `key_count` texts, each the base64 line of a minisign key that releases are signed with.
     * What a release has changed about keys counts more.
     */
    const char *const *keys;
    /**
     * How many: 0 is anybody, up to 8.
     */
    uint8_t key_count;
    /**
     * How many of them must sign.
     */
    uint8_t keys_needed;
    /**
     * 64 random bits of this boot (`esp_random`, with the radio on or `bootloader_random_enable`).
     */
    uint64_t seed;
} LockstepSetup;

/**
 * Functions of the port. Offsets count from the beginning of the whole flash chip, not of a
 * partition: where slots, otadata and record are, the partition table at 0x8000 says. A function
 * of the flash comes back when it is done, with 0, or any other number if it failed. None of them
 * may call this library: such a call is refused.
 */
typedef struct {
    /**
     * Handed to each of them as it is.
     */
    void *context;
    /**
     * Reads `length` bytes from any offset.
     */
    int32_t (*flash_read)(void *context, uint32_t offset, uint8_t *bytes, uint32_t length);
    /**
     * Writes `length` bytes, both multiples of 4, never across a multiple of 256: clears bits,
     * and sets none. A few words are written again, with more of their bits cleared.
     */
    int32_t (*flash_write)(void *context, uint32_t offset, const uint8_t *bytes, uint32_t length);
    /**
     * Sets `length` bytes to 0xFF, both multiples of 4096. At a fast pace up to 64 KiB at once.
     */
    int32_t (*flash_erase)(void *context, uint32_t offset, uint32_t length);
    /**
     * A line of the log, ended by NUL, valid until this comes back; `level` is a `LockstepLevel`.
     * May be null.
     */
    void (*log)(void *context, int32_t level, const char *text);
} LockstepCallbacks;

/**
 * A frame to send.
 */
typedef struct {
    /**
     * To whom: six times 0xFF is everybody.
     */
    uint8_t to[6];
    /**
     * How many of `bytes` it has.
     */
    uint16_t length;
    /**
     * The frame.
     */
    uint8_t bytes[LOCKSTEP_FRAME_BYTES_MAX];
} LockstepFrame;

/**
 * What the caller is to do, and with what.
 */
typedef struct {
    /**
     * What.
     */
    LockstepEffectKind kind;
    /**
     * The channel, 1 to 14; else 0.
     */
    uint8_t channel;
    /**
     * Why, for people; ends with NUL.
     */
    uint8_t reason[LOCKSTEP_TEXT_BYTES];
} LockstepEffect;

/**
 * How this device stands.
 */
typedef struct {
    /**
     * Where it stands in its last rollout.
     */
    LockstepStep step;
    /**
     * Bytes of the new image that are in flash, while it stages.
     */
    uint32_t staged_bytes;
    /**
     * The version that it announces: `MAJOR * 10000 + MINOR * 100 + PATCH`.
     */
    uint32_t version;
    /**
     * Counts its boots.
     */
    uint32_t boot_number;
    /**
     * Seconds until this trial ends by itself; 0 when not on trial.
     */
    uint16_t trial_left_s;
    /**
     * The channel on which it found its lead last, to be given to the setup after a reset; else 0.
     */
    uint8_t channel_good;
    /**
     * Whether it runs an image that is not confirmed.
     */
    bool on_trial;
    /**
     * Whether data goes both ways between it and its lead, and everybody who was heard lately.
     */
    bool linked;
    /**
     * Whether a password was ever set.
     */
    bool has_password;
    /**
     * The hash of the running image.
     */
    uint8_t image[32];
} LockstepState;

/**
 * Another device in reach.
 */
typedef struct {
    /**
     * Its address.
     */
    uint8_t id[6];
    /**
     * Its role, once it said so with the group's key; else empty. Ends with NUL.
     */
    uint8_t role[16];
    /**
     * The version that it announces, 0 before it did.
     */
    uint32_t version;
    /**
     * Whether data goes both ways.
     */
    bool linked;
    /**
     * Whether it has announced anything.
     */
    bool is_known;
    /**
     * Whether its data passes the gate.
     */
    bool is_compatible;
    /**
     * Which device needs what, for a screen, if it does not; else empty. Ends with NUL.
     */
    uint8_t warning[LOCKSTEP_TEXT_BYTES];
} LockstepPeer;

/**
 * What became of the memory that was handed in, in bytes.
 */
typedef struct {
    /**
     * What there is for the node.
     */
    uintptr_t size_bytes;
    /**
     * What it uses now.
     */
    uintptr_t used_bytes;
    /**
     * The most that it has used since it was started.
     */
    uintptr_t peak_bytes;
} LockstepMemory;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * What a result means and what to do about it, in English; never null, whatever the number.
 */
const char *lockstep_error_text(int32_t result);

/**
 * Starts a device: first thing at start, before anything that a bad release could have broken.
 * `memory` is the library's until `lockstep_end`; any alignment will do. Everything else may be
 * gone when this comes back. `out` is set to the instance, or to null.
 *
 * Poll for effects right after it: a trial that must end has ordered its reboot.
 */
LockstepResult lockstep_init(void *memory,
                             uintptr_t size_bytes,
                             uint64_t now_ms,
                             const LockstepSetup *setup,
                             const LockstepCallbacks *callbacks,
                             Lockstep **out);

/**
 * Ends an instance without a reset; its memory is the caller's again. What is durable stays.
 */
LockstepResult lockstep_end(Lockstep *lockstep);

/**
 * Time has passed. Call it when `lockstep_next_wake` says so; more often does no harm.
 */
LockstepResult lockstep_tick(Lockstep *lockstep, uint64_t now_ms);

/**
 * When `lockstep_tick` is due at the latest, in milliseconds of the caller's time. Frames bring it
 * forward: ask after every call.
 */
LockstepResult lockstep_next_wake(Lockstep *lockstep, uint64_t *at_ms);

/**
 * A frame that the radio has received, whoever it is for. `gate` is set to whose it is, and
 * whether the application may use it: a `LockstepGate`. Lockstep's own frames begin with 0x10 to
 * 0x13 or, now or in a later version, with 0x40 to 0x6F; all others are the application's.
 */
LockstepResult lockstep_receive(Lockstep *lockstep,
                                uint64_t now_ms,
                                const uint8_t *from,
                                const uint8_t *bytes,
                                uintptr_t length,
                                LockstepGate *gate);

/**
 * The next frame to send. `None`: there is none. One that the radio has no room for is kept by the
 * caller, and sent before the next is taken.
 */
LockstepResult lockstep_poll_frame(Lockstep *lockstep, uint64_t now_ms, LockstepFrame *frame);

/**
 * What the caller is to do next. `None`: nothing. A reboot is told again until the chip is reset.
 */
LockstepResult lockstep_poll_effect(Lockstep *lockstep, LockstepEffect *effect);

/**
 * How far the application is on its way to rest: a `LockstepRest`. It counts once the application
 * has polled the effect that asks for it, and until one that releases it: what was said before
 * is about something else.
 */
LockstepResult lockstep_answer_rest(Lockstep *lockstep, int32_t answer);

/**
 * Whether all checks of the application pass. Say it again and again: it counts for ten seconds,
 * since an application that hangs says nothing. Until it was said once the device is not healthy.
 */
LockstepResult lockstep_set_health(Lockstep *lockstep, uint64_t now_ms, bool is_ok);

/**
 * How much of the flash's time staging may take. An erase stops a chip for tens of milliseconds,
 * which a control loop feels: with a pause it erases one sector or writes one page, and then
 * leaves the flash alone for so long. 0: the application is idle, everything at once. It is 10 ms
 * until somebody says otherwise.
 */
LockstepResult lockstep_set_pause(Lockstep *lockstep, uint32_t pause_ms);

/**
 * Sends a data frame of the application, of 1 to 250 bytes, to everybody: it goes out with the
 * next ticks. It must not begin with what Lockstep's own begin with. The application may as well
 * send its frames itself.
 */
LockstepResult lockstep_send(Lockstep *lockstep, const uint8_t *bytes, uintptr_t length);

/**
 * Sets the device's password, durably: 8 to 64 characters. Who knows it may adopt the device, and
 * on a lead order rollouts. Without one nobody may.
 */
LockstepResult lockstep_set_password(Lockstep *lockstep, uint64_t now_ms, const char *password);

/**
 * How this device stands, for its screen.
 */
LockstepResult lockstep_state(Lockstep *lockstep, LockstepState *state);

/**
 * The other device of this index, from 0 on. `None`: there is none; there are at most 64.
 */
LockstepResult lockstep_peer(Lockstep *lockstep, uintptr_t index, LockstepPeer *peer);

/**
 * What became of the memory that was handed in.
 */
LockstepResult lockstep_memory(Lockstep *lockstep, LockstepMemory *memory);

/**
 * A bundle of `size_bytes` begins to arrive, from wherever the application takes it: an SD card, a
 * web server of its own, another radio.
 */
LockstepResult lockstep_upload_begin(Lockstep *lockstep, uint32_t size_bytes);

/**
 * The next bytes of the bundle. `taken` is set to how many were taken: push the rest again, after
 * some ticks if it is 0, since the group is asked, or fetches what came before. `None`: the bundle
 * is complete, and the rollout goes on by itself. After an error the upload is over.
 */
LockstepResult lockstep_upload_push(Lockstep *lockstep,
                                    uint64_t now_ms,
                                    const uint8_t *bytes,
                                    uintptr_t length,
                                    uintptr_t *taken);

/**
 * All bytes have come, and the bundle was not complete: its rollout ends, and the log says what is
 * missing. Never `Ok`: `ErrorRefused` says that the upload is over.
 */
LockstepResult lockstep_upload_end(Lockstep *lockstep, uint64_t now_ms);

/**
 * Ends the open rollout: all stay on, or go back to, what they ran before.
 */
LockstepResult lockstep_abort(Lockstep *lockstep, uint64_t now_ms);

/**
 * Begins a rollout back to what the group ran before the last kept one.
 */
LockstepResult lockstep_revert(Lockstep *lockstep, uint64_t now_ms);

/**
 * Begins to give the group's key to the device `id` in reach, whose password this is. The log says
 * what came of it.
 */
LockstepResult lockstep_adopt(Lockstep *lockstep,
                              uint64_t now_ms,
                              const uint8_t *id,
                              const char *password);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LOCKSTEP_H */
