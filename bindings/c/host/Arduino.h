/* The few functions of Arduino that the examples use, for a host. */
#ifndef LOCKSTEP_HOST_ARDUINO_H
#define LOCKSTEP_HOST_ARDUINO_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "lockstep_port.h"

struct HostSerial {
    void begin(unsigned long) { setvbuf(stdout, nullptr, _IOLBF, 0); }

    void printf(const char *format, ...) __attribute__((format(printf, 2, 3))) {
        va_list arguments;
        va_start(arguments, format);
        vprintf(format, arguments);
        va_end(arguments);
    }
};

static HostSerial Serial;

static inline unsigned long millis() {
    return static_cast<unsigned long>(lockstep_port_now_ms());
}

static inline void delay(unsigned long ms) {
    const timespec time = {static_cast<time_t>(ms / 1000), static_cast<long>(ms % 1000) * 1000000L};
    nanosleep(&time, nullptr);
}

/* The sketch's. */
extern "C" void setup(void);
extern "C" void loop(void);

#endif
