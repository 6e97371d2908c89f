"""The peripherals that the firmware uses, as far as it uses them. Registers by their offsets in the
ESP32-C3's technical reference manual."""

import time

FIFO_BYTES = 128
CRYSTAL_HZ = 40e6
# The oscillator that the RTC and its watchdog count with.
SLOW_CLOCK_HZ = 136e3


class Uart:
    """A serial port; the other end is `line`, with `send` and `receive`."""

    RX_FULL, TX_EMPTY, RX_TIMEOUT, TX_DONE, TX_IDLE = 1, 1 << 1, 1 << 8, 1 << 14, 1 << 15

    def __init__(self, line):
        self.line, self.received = line, bytearray()
        self.raised, self.enabled, self.stored = 0, 0, {}

    def poll(self):
        room = FIFO_BYTES - len(self.received)
        came = self.line.receive(room) if room else b""
        if came:
            self.received += came
            self.raised |= self.RX_FULL | self.RX_TIMEOUT

    def send(self, data):
        self.line.send(data)

    def status(self):
        status = self.raised | self.TX_EMPTY | self.TX_DONE | self.TX_IDLE
        return status if self.received else status & ~(self.RX_FULL | self.RX_TIMEOUT)

    def interrupts(self):
        return self.status() & self.enabled != 0

    def read(self, offset):
        if offset == 0x00:
            return self.received.pop(0) if self.received else 0
        if offset == 0x04:
            return self.status()
        if offset == 0x08:
            return self.status() & self.enabled
        if offset == 0x1C:
            return len(self.received)
        if offset == 0x80:  # the update of the registers is done
            return self.stored.get(offset, 0) & ~(1 << 31)
        return self.stored.get(offset, 0)

    def write(self, offset, value):
        self.stored[offset] = value
        if offset == 0x00:
            self.send(bytes([value & 0xFF]))
        elif offset == 0x0C:
            self.enabled = value
        elif offset == 0x10:
            self.raised &= ~value


class TimerGroup:
    """Timer 0 of a group, which the scheduler counts and wakes with, and the calibration of the slow
    clock."""

    CONFIG, LOW, HIGH, UPDATE = 0x00, 0x04, 0x08, 0x0C
    ALARM_LOW, ALARM_HIGH, LOAD_LOW, LOAD_HIGH, LOAD = 0x10, 0x14, 0x18, 0x1C, 0x20
    CALIBRATION, CALIBRATION_VALUE = 0x68, 0x6C
    ENABLED, RAW, STATUS, CLEAR = 0x70, 0x74, 0x78, 0x7C
    ON, ALARM_ON = 1 << 31, 1 << 10

    def __init__(self):
        self.stored, self.config, self.enabled, self.raised = {}, 0, 0, 0
        self.base, self.since, self.latched, self.alarm = 0, time.monotonic(), 0, None

    def count(self):
        if not self.config & self.ON:
            return self.base
        divider = self.config >> 13 & 0xFFFF or 65536
        clock = 40e6 if self.config >> 9 & 1 else 80e6
        return self.base + int((time.monotonic() - self.since) * clock / divider)

    def set_count(self, count):
        self.base, self.since = count, time.monotonic()

    def raw(self):
        if self.alarm is not None and self.config & self.ON and self.count() >= self.alarm:
            self.raised, self.alarm = self.raised | 1, None
            self.config &= ~self.ALARM_ON
        return self.raised

    def interrupts(self):
        return self.raw() & self.enabled != 0

    def read(self, offset):
        return {
            self.CONFIG: lambda: self.config,
            self.LOW: lambda: self.latched & 0xFFFFFFFF,
            self.HIGH: lambda: self.latched >> 32,
            self.UPDATE: lambda: 0,
            self.CALIBRATION: lambda: self.stored.get(offset, 0) & ~(1 << 31) | 1 << 15,
            self.CALIBRATION_VALUE: lambda: self.calibrated() << 7,
            self.ENABLED: lambda: self.enabled,
            self.RAW: self.raw,
            self.STATUS: lambda: self.raw() & self.enabled,
        }.get(offset, lambda: self.stored.get(offset, 0))()

    def calibrated(self):
        """Periods of the crystal in so many of a slow clock as were asked for."""
        asked = self.stored.get(self.CALIBRATION, 0)
        fast_divided = 17.5e6 / 256
        clock = (SLOW_CLOCK_HZ, fast_divided, 32768)[min(asked >> 13 & 3, 2)]
        return int((asked >> 16 & 0x7FFF) * CRYSTAL_HZ / clock)

    def pair(self, low, high):
        return (self.stored.get(high, 0) & 0x3FFFFF) << 32 | self.stored.get(low, 0)

    def write(self, offset, value):
        self.stored[offset] = value
        if offset == self.CONFIG:
            count = self.count()
            self.config = value
            self.set_count(count)
            if value & self.ALARM_ON:
                self.alarm = self.pair(self.ALARM_LOW, self.ALARM_HIGH)
        elif offset == self.UPDATE:
            self.latched = self.count()
        elif offset == self.LOAD:
            self.set_count(self.pair(self.LOAD_LOW, self.LOAD_HIGH))
        elif offset == self.ENABLED:
            self.enabled = value
        elif offset == self.CLEAR:
            self.raised &= ~value


class SystemTimer:
    """Two units that count at 16 MHz since the reset."""

    def __init__(self):
        self.started, self.latched, self.stored = time.monotonic(), [0, 0], {}

    def read(self, offset):
        if offset in (0x04, 0x08):
            return 1 << 29  # what was asked for is latched
        if 0x40 <= offset < 0x50:
            unit, is_low = divmod(offset - 0x40, 8)
            return self.latched[unit] & 0xFFFFFFFF if is_low else self.latched[unit] >> 32
        return self.stored.get(offset, 0)

    def write(self, offset, value):
        self.stored[offset] = value
        if offset in (0x04, 0x08) and value & 1 << 30:
            elapsed = time.monotonic() - self.started
            self.latched[offset // 4 - 1] = int(elapsed * 16e6)


class RtcWatchdog:
    """The RTC's watchdog: four stages, one after the other, each with its limit and what it does."""

    CONFIG, LIMITS, FEED, PROTECTION = 0x90, (0x94, 0x98, 0x9C, 0xA0), 0xA4, 0xA8
    REGISTERS = range(0x90, 0xAC)
    ON, KEY = 1 << 31, 0x50D83AA1
    # What a stage does: nothing, an interrupt, resets of the processor, of the core, of all.
    OFF, INTERRUPT, RESET_PROCESSOR, RESET_CORE, RESET_SYSTEM = range(5)
    # As what the chip then says why it was reset.
    REASONS = {RESET_PROCESSOR: 13, RESET_CORE: 9, RESET_SYSTEM: 16}
    # Stage 0 counts so many times as many ticks, by an eFuse that nobody has burnt.
    FIRST_STAGE_SHIFT = 1

    def __init__(self, clock, bootloader_ms):
        """Armed, as the bootloader leaves it to what it starts. `clock` gives seconds."""
        self.clock = clock
        ticks = int(bootloader_ms / 1000 * SLOW_CLOCK_HZ) >> self.FIRST_STAGE_SHIFT
        self.stored = {self.CONFIG: self.ON | self.RESET_SYSTEM << 28, self.LIMITS[0]: ticks}
        self.fed = clock()

    def read(self, offset):
        return 0 if offset == self.FEED else self.stored.get(offset, 0)

    def write(self, offset, value):
        if offset != self.PROTECTION and self.stored.get(self.PROTECTION) != self.KEY:
            return
        if offset == self.FEED or offset == self.CONFIG and not self.is_on():
            self.fed = self.clock()
        self.stored[offset] = value

    def is_on(self):
        return self.stored[self.CONFIG] & self.ON != 0

    def bite(self):
        """The reason of the reset that is due, if one is."""
        if not self.is_on():
            return None
        ticks, due = (self.clock() - self.fed) * SLOW_CLOCK_HZ, 0
        for stage, limit in enumerate(self.LIMITS):
            does = self.stored[self.CONFIG] >> 28 - 3 * stage & 7
            if does != self.OFF:
                due += self.stored.get(limit, 0) << (0 if stage else self.FIRST_STAGE_SHIFT)
                if ticks < due:
                    return None
                if does in self.REASONS:
                    return self.REASONS[does]
        return None
