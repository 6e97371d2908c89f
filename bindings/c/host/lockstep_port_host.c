/* The port for a host: flash in a file, the desk's radio, and a reset that ends the process.
 *
 *   PROGRAM --flash FILE --air FOLDER --id 24:a1:60:00:00:09 --slot 0 --reset 1
 *
 * Whoever starts it does the bootloader's work first, and says which slot it booted. A reset is the
 * end of the process with RESET_CODE; it is to be started again then, by the bootloader's rules.
 * `kill -9` is a power cut. The radio is that of desk devices (docs/air.md): UDP on loopback between
 * those that share a folder.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lockstep_port.h"

#define RESET_CODE 42
#define FLASH_BYTES (4u * 1024 * 1024)
#define PAGE_BYTES 256
#define HEADER_BYTES 17
#define FRAME_BYTES_MAX 1470
#define PEERS_MAX 64
#define PEERS_REFRESH_MS 500
#define FRAMES_PER_TURN_MAX 64
#define STACK_BYTES (256u * 1024)
#define STACK_PAINT 0xA5

void setup(void);
void loop(void);

typedef struct Peer {
    uint8_t id[6];
    struct sockaddr_in address;
} Peer;

static struct {
    const LockstepPort *port;
    Lockstep *lockstep;
    int flash;
    int socket;
    uint8_t id[6];
    uint8_t slot;
    uint8_t reset_reason;
    uint8_t channel;
    char air[PATH_MAX];
    char entry[PATH_MAX + 32];
    Peer peers[PEERS_MAX];
    size_t peer_count;
    uint64_t peers_read_ms;
    LockstepFrame held;
    bool holds;
} host = {.flash = -1, .socket = -1, .channel = 1};

static uint8_t memory[LOCKSTEP_LEAD_MEMORY_BYTES];
/* The stack of the one task, painted so that it tells how much of it was needed. */
static uint8_t stack[STACK_BYTES] __attribute__((aligned(4096)));

static void stop(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

void lockstep_panic(const char *message) {
    fprintf(stderr, "panic: %s\n", message);
    abort();
}

uint64_t lockstep_port_now_ms(void) {
    static uint64_t started;
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    uint64_t now = (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
    if (started == 0) {
        started = now;
    }
    return now - started;
}

/* Flash */

static int32_t flash_read(void *context, uint32_t offset, uint8_t *bytes, uint32_t length) {
    (void)context;
    return pread(host.flash, bytes, length, offset) == (ssize_t)length ? 0 : -1;
}

static int32_t flash_write(void *context, uint32_t offset, const uint8_t *bytes, uint32_t length) {
    uint8_t page[PAGE_BYTES];
    if (length > PAGE_BYTES || flash_read(context, offset, page, length) != 0) {
        return -1;
    }
    for (uint32_t i = 0; i < length; i++) {
        page[i] &= bytes[i];
    }
    return pwrite(host.flash, page, length, offset) == (ssize_t)length ? 0 : -1;
}

static int32_t flash_erase(void *context, uint32_t offset, uint32_t length) {
    (void)context;
    uint8_t erased[4096];
    memset(erased, 0xFF, sizeof erased);
    for (uint32_t at = 0; at < length; at += sizeof erased) {
        if (pwrite(host.flash, erased, sizeof erased, offset + at) != (ssize_t)sizeof erased) {
            return -1;
        }
    }
    return 0;
}

static void log_line(void *context, int32_t level, const char *text) {
    (void)context;
    static const char *const names[] = {"info", "notice", "warning", "error"};
    if (host.port->log != NULL) {
        host.port->log(host.port->context, level, text);
    } else {
        printf("%-7s %s\n", level >= 0 && level < 4 ? names[level] : "?", text);
    }
}

/* Radio */

static uint32_t air_tag(void) {
    uint32_t hash = 0x811C9DC5u;
    for (const char *at = host.air; *at != '\0'; at++) {
        hash = (hash ^ (uint8_t)*at) * 0x01000193u;
    }
    return hash;
}

static void leave_air(void) {
    unlink(host.entry);
}

bool lockstep_port_radio(void) {
    host.socket = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    if (host.socket < 0 || bind(host.socket, (struct sockaddr *)&address, length) != 0 ||
        getsockname(host.socket, (struct sockaddr *)&address, &length) != 0) {
        return false;
    }
    const uint8_t *id = host.id;
    snprintf(host.entry, sizeof host.entry, "%s/%02x%02x%02x%02x%02x%02x.addr", host.air, id[0],
             id[1], id[2], id[3], id[4], id[5]);
    /* Written aside and renamed, so that nobody reads half an address. */
    char aside[sizeof host.entry + 8];
    snprintf(aside, sizeof aside, "%s.new", host.entry);
    FILE *file = fopen(aside, "w");
    if (file == NULL) {
        return false;
    }
    fprintf(file, "127.0.0.1:%u\n", ntohs(address.sin_port));
    if (fclose(file) != 0 || rename(aside, host.entry) != 0) {
        return false;
    }
    atexit(leave_air);
    return true;
}

static bool read_peer(const char *name, Peer *peer) {
    unsigned part[6];
    int end = 0;
    if (sscanf(name, "%2x%2x%2x%2x%2x%2x.addr%n", &part[0], &part[1], &part[2], &part[3],
               &part[4], &part[5], &end) != 6 || end != 17 || name[end] != '\0') {
        return false;
    }
    for (int i = 0; i < 6; i++) {
        peer->id[i] = (uint8_t)part[i];
    }
    char path[PATH_MAX + 280];
    snprintf(path, sizeof path, "%s/%s", host.air, name);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return false;
    }
    unsigned port = 0;
    bool is_read = fscanf(file, "127.0.0.1:%u", &port) == 1 && port <= 65535;
    fclose(file);
    memset(&peer->address, 0, sizeof peer->address);
    peer->address.sin_family = AF_INET;
    peer->address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    peer->address.sin_port = htons((uint16_t)port);
    return is_read && memcmp(peer->id, host.id, 6) != 0;
}

static void refresh_peers(uint64_t now) {
    if (host.peers_read_ms != 0 && now - host.peers_read_ms < PEERS_REFRESH_MS) {
        return;
    }
    DIR *folder = opendir(host.air);
    if (folder == NULL) {
        return;
    }
    host.peers_read_ms = now;
    host.peer_count = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (host.peer_count < PEERS_MAX && read_peer(entry->d_name, &host.peers[host.peer_count])) {
            host.peer_count++;
        }
    }
    closedir(folder);
}

/* `false`: there is no room; the frame is to be sent again later. */
static bool radio_send(const LockstepFrame *frame) {
    static const uint8_t everybody[6] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
    uint8_t datagram[HEADER_BYTES + FRAME_BYTES_MAX];
    uint32_t tag = air_tag();
    for (int i = 0; i < 4; i++) {
        datagram[i] = (uint8_t)(tag >> (8 * i));
    }
    datagram[4] = host.channel;
    memcpy(datagram + 5, host.id, 6);
    memcpy(datagram + 11, frame->to, 6);
    memcpy(datagram + HEADER_BYTES, frame->bytes, frame->length);
    refresh_peers(lockstep_port_now_ms());
    for (size_t i = 0; i < host.peer_count; i++) {
        const Peer *peer = &host.peers[i];
        if (memcmp(frame->to, everybody, 6) == 0 || memcmp(frame->to, peer->id, 6) == 0) {
            ssize_t sent = sendto(host.socket, datagram, HEADER_BYTES + (size_t)frame->length, 0,
                                  (const struct sockaddr *)&peer->address, sizeof peer->address);
            if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS)) {
                return false;
            }
        }
    }
    return true;
}

static void hear(void) {
    uint8_t datagram[HEADER_BYTES + FRAME_BYTES_MAX + 1];
    for (int turn = 0; turn < FRAMES_PER_TURN_MAX; turn++) {
        ssize_t length = recv(host.socket, datagram, sizeof datagram, 0);
        if (length < 0) {
            return;
        }
        uint32_t tag = 0;
        for (int i = 0; i < 4; i++) {
            tag |= (uint32_t)datagram[i] << (8 * i);
        }
        bool is_frame = length > HEADER_BYTES && length < (ssize_t)sizeof datagram;
        if (!is_frame || tag != air_tag() || datagram[4] != host.channel) {
            continue;
        }
        bool is_for_all = memcmp(datagram + 11, "\xFF\xFF\xFF\xFF\xFF\xFF", 6) == 0;
        if (!is_for_all && memcmp(datagram + 11, host.id, 6) != 0) {
            continue;
        }
        LockstepGate gate;
        const uint8_t *from = datagram + 5, *frame = datagram + HEADER_BYTES;
        size_t frame_length = (size_t)length - HEADER_BYTES;
        LockstepResult result = lockstep_receive(host.lockstep, lockstep_port_now_ms(), from, frame,
                                                 frame_length, &gate);
        if (result == LOCKSTEP_OK && gate == LOCKSTEP_GATE_PASSES &&
            host.port->take_data != NULL) {
            host.port->take_data(host.port->context, from, frame, frame_length);
        }
    }
}

/* `false`: the radio is full. */
static bool speak(void) {
    for (int turn = 0; turn < FRAMES_PER_TURN_MAX; turn++) {
        if (!host.holds) {
            host.holds = lockstep_poll_frame(host.lockstep, lockstep_port_now_ms(), &host.held) ==
                         LOCKSTEP_OK;
            if (!host.holds) {
                return true;
            }
        }
        if (!radio_send(&host.held)) {
            return false;
        }
        host.holds = false;
    }
    return true;
}

/* What is asked for */

/* How deep the stack has ever been: below that it is as it was painted. */
static size_t stack_bytes(void) {
    size_t untouched = 0;
    while (untouched < sizeof stack && stack[untouched] == STACK_PAINT) {
        untouched++;
    }
    return sizeof stack - untouched;
}

static void restart(const char *reason) {
    LockstepMemory found;
    if (lockstep_memory(host.lockstep, &found) == LOCKSTEP_OK) {
        printf("memory: %zu of %zu bytes at most, and %zu bytes of stack\n", found.peak_bytes,
               found.size_bytes, stack_bytes());
    }
    printf("restarts %s\n", reason);
    /* As a checker of memory wants it; a chip has no need to. */
    lockstep_end(host.lockstep);
    exit(RESET_CODE);
}

static void obey(void) {
    LockstepEffect effect;
    while (lockstep_poll_effect(host.lockstep, &effect) == LOCKSTEP_OK) {
        switch (effect.kind) {
        case LOCKSTEP_EFFECT_KIND_REBOOT:
            restart((const char *)effect.reason);
            break;
        case LOCKSTEP_EFFECT_KIND_TUNE:
            host.channel = effect.channel;
            speak();
            break;
        case LOCKSTEP_EFFECT_KIND_ASK_REST:
            if (host.port->ask_rest != NULL) {
                host.port->ask_rest(host.port->context);
            } else {
                lockstep_answer_rest(host.lockstep, LOCKSTEP_REST_AT_REST);
            }
            break;
        case LOCKSTEP_EFFECT_KIND_RELEASE:
            if (host.port->release != NULL) {
                host.port->release(host.port->context);
            }
            break;
        }
    }
}

void lockstep_port_loop(void) {
    if (host.lockstep == NULL) {
        return;
    }
    if (host.socket >= 0) {
        hear();
    }
    uint64_t now = lockstep_port_now_ms(), due = 0;
    if (lockstep_next_wake(host.lockstep, &due) == LOCKSTEP_OK && now >= due) {
        lockstep_tick(host.lockstep, now);
    }
    if (host.socket >= 0) {
        speak();
    }
    obey();
}

Lockstep *lockstep_port_begin(const LockstepPort *port) {
    host.port = port;
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed) {
        stop("getrandom");
    }
    LockstepSetup setup;
    memset(&setup, 0, sizeof setup);
    memcpy(setup.id, host.id, 6);
    setup.descriptor = lockstep_descriptor;
    setup.chip = LOCKSTEP_HOST_CHIP;
    setup.hardware = port->hardware;
    setup.build_date = port->build_date;
    setup.build_time = port->build_time;
    setup.flash_bytes = FLASH_BYTES;
    setup.running_slot = host.slot;
    setup.reset_reason = host.reset_reason;
    setup.rollback = LOCKSTEP_ROLLBACK_BOOTLOADER;
    setup.duty = port->duty;
    setup.tempo = LOCKSTEP_TEMPO_DESK;
    setup.channel_first = port->channel_first;
    setup.channel_last = port->channel_last;
    setup.takes_large = 1;
    setup.group_key = port->group_key;
    setup.keys = port->keys;
    setup.key_count = port->key_count;
    setup.keys_needed = port->keys_needed;
    setup.seed = seed;
    LockstepCallbacks callbacks = {
        .flash_read = flash_read,
        .flash_write = flash_write,
        .flash_erase = flash_erase,
        .log = log_line,
    };
    LockstepResult result = lockstep_init(memory, sizeof memory, lockstep_port_now_ms(), &setup,
                                          &callbacks, &host.lockstep);
    if (result != LOCKSTEP_OK) {
        fprintf(stderr, "lockstep_init: %s\n", lockstep_error_text(result));
        return NULL;
    }
    obey();
    LockstepState state;
    if (port->first_password != NULL && lockstep_state(host.lockstep, &state) == LOCKSTEP_OK &&
        !state.has_password) {
        lockstep_set_password(host.lockstep, lockstep_port_now_ms(), port->first_password);
    }
    return host.lockstep;
}

static void parse(int count, char **words) {
    const char *flash = NULL, *air = NULL;
    unsigned part[6];
    for (int i = 1; i + 1 < count; i += 2) {
        const char *name = words[i], *value = words[i + 1];
        if (strcmp(name, "--flash") == 0) {
            flash = value;
        } else if (strcmp(name, "--air") == 0) {
            air = value;
        } else if (strcmp(name, "--slot") == 0) {
            host.slot = (uint8_t)atoi(value);
        } else if (strcmp(name, "--reset") == 0) {
            host.reset_reason = (uint8_t)atoi(value);
        } else if (strcmp(name, "--id") == 0 &&
                   sscanf(value, "%2x:%2x:%2x:%2x:%2x:%2x", &part[0], &part[1], &part[2], &part[3],
                          &part[4], &part[5]) == 6) {
            for (int at = 0; at < 6; at++) {
                host.id[at] = (uint8_t)part[at];
            }
        }
    }
    if (flash == NULL || air == NULL) {
        fprintf(stderr, "usage: PROGRAM --flash FILE --air FOLDER --id MAC --slot N --reset N\n");
        exit(2);
    }
    host.flash = open(flash, O_RDWR | O_CLOEXEC);
    if (host.flash < 0) {
        stop(flash);
    }
    if (realpath(air, host.air) == NULL) {
        stop(air);
    }
}

static void *run(void *nothing) {
    setup();
    for (;;) {
        loop();
    }
    return nothing;
}

int main(int count, char **words) {
    /* Whoever started it is gone: so is the power. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    parse(count, words);
    memset(stack, STACK_PAINT, sizeof stack);
    pthread_attr_t attributes;
    pthread_t task;
    if (pthread_attr_init(&attributes) != 0 ||
        pthread_attr_setstack(&attributes, stack, sizeof stack) != 0 ||
        pthread_create(&task, &attributes, run, NULL) != 0) {
        stop("pthread_create");
    }
    pthread_join(task, NULL);
    return 1;
}
