"""An ESP32-C3 in small: processor, memories, interrupts, and the peripherals of `peripherals`.

It has no radio and no caches, and its clock is the host's. The processor is Unicorn's (QEMU's
translator); where that is not the chip's own core, the difference is made up for here:

* Interrupts are the chip's own: 31 lines, of which each source is given one, in a vectored table.
  They are taken where the program lets them in again, and when it waits.
* Control registers of the chip's own exist and hold what was written; one of them counts cycles.
* Unicorn's memory protection (PMP) knows whole pages only, and esp-hal's regions end within them:
  the instructions that set it up do nothing.
"""

import ctypes
import os
import struct
import threading
import time

from elftools.elf.elffile import ELFFile
from unicorn import UC_ARCH_RISCV, UC_HOOK_CODE, UC_HOOK_INTR, UC_MODE_RISCV32, UC_PROT_ALL, Uc
from unicorn import UcError
from unicorn import riscv_const as register

from peripherals import RtcWatchdog, SystemTimer, TimerGroup, Uart
from rom import NATIVE, NATIVE_AT, Rom

ROM, ROM_BYTES, NATIVE_BASE = 0x40000000, 0x60000, 0x40050000
DRAM, IRAM, SRAM_BYTES = 0x3FC80000, 0x40380000, 0x60000
DROM, IROM, MAPPED_BYTES, PAGE_BYTES = 0x3C000000, 0x42000000, 0x800000, 0x10000
STACK = 0x3FCDE000
PERIPHERALS, PERIPHERALS_BYTES = 0x60000000, 0x100000
INTERRUPTS = 0x600C2000
SOFTWARE_INTERRUPTS = 0x600C0028
CYCLES_A_US = 160

MIE, MPIE, MPP = 1 << 3, 1 << 7, 3 << 11
# `csrr a4, 0x7e2`: no processor of Unicorn's has that register, so it stops there.
UNKNOWN = struct.pack("<I", 0x7E202773)
POLL_S = 0.0005
RTC = 0x60008000
# What ESP-IDF's bootloader gives the program until it looks after the watchdog itself.
BOOTLOADER_WATCHDOG_MS = 9000
WATCHDOG_LOOKS_S = 0.05


class Fault(Exception):
    """The program did what the chip would not survive either, or what is not here."""


class Chip:
    """From one reset to the next."""

    POWER_ON, SOFTWARE = 1, 3

    def __init__(self, flash, store, elf, slot_offset, mac, lines, reset_reason, say):
        """`store` makes a change of the flash durable; `elf` names the functions of the ROM; `lines`
        are what is connected to the UARTs."""
        self.flash, self.store_durably, self.slot_offset = flash, store, slot_offset
        self.mac, self.reset_reason, self.say = mac, reset_reason, say
        self.uarts = [Uart(line) for line in lines]
        self.timers, self.system_timer = [TimerGroup(), TimerGroup()], SystemTimer()
        self.processor, self.slept_s = time.pthread_getcpuclockid(threading.get_ident()), 0.0
        self.watchdog = RtcWatchdog(self.processor_time, BOOTLOADER_WATCHDOG_MS)
        self.registers, self.control, self.names = {}, {}, {}
        self.started, self.polled = time.monotonic(), 0.0
        self.rom, self.ended, self.fault = Rom(self), None, None
        self.unicorn = Uc(UC_ARCH_RISCV, UC_MODE_RISCV32)
        self.map_memory()
        self.name_rom(elf)
        self.unicorn.hook_add(UC_HOOK_INTR, self.on_exception)
        self.load()

    # Memory

    def map_memory(self):
        unicorn = self.unicorn
        # One memory under two addresses, for data and for code.
        self.sram = ctypes.create_string_buffer(SRAM_BYTES + 0x1000)
        aligned = (ctypes.addressof(self.sram) + 0xFFF) & ~0xFFF
        for address in (DRAM, IRAM):
            unicorn.mem_map_ptr(address, SRAM_BYTES, UC_PROT_ALL, aligned)
        unicorn.mem_map(0x4037C000, 0x4000)
        unicorn.mem_map(0x50000000, 0x2000)
        unicorn.mem_map(0x3FF00000, 0x20000)
        for address in (DROM, IROM):
            unicorn.mem_map(address, MAPPED_BYTES)
        unicorn.mem_map(ROM, ROM_BYTES)
        unicorn.mem_write(ROM, UNKNOWN * (ROM_BYTES // len(UNKNOWN)))
        unicorn.mem_write(NATIVE_BASE, NATIVE)
        unicorn.mmio_map(
            PERIPHERALS, PERIPHERALS_BYTES, self.on_read, None, self.on_write, None
        )

    def name_rom(self, elf):
        with open(elf, "rb") as file:
            for symbol in ELFFile(file).get_section_by_name(".symtab").iter_symbols():
                address, name = symbol["st_value"], symbol.name
                if ROM <= address < NATIVE_BASE:
                    self.names.setdefault(address, name)
                    if name in NATIVE_AT:
                        jump = jump_to(address, NATIVE_BASE + NATIVE_AT[name])
                        self.unicorn.mem_write(address, jump)

    def load(self):
        """As the bootloader does: code and constants are mapped, the rest is copied."""
        start = self.slot_offset
        (entry,) = struct.unpack_from("<I", self.flash, start + 4)
        at = start + 24
        for _ in range(self.flash[start + 1]):
            address, length = struct.unpack_from("<II", self.flash, at)
            at += 8
            if DROM <= address < DROM + MAPPED_BYTES or IROM <= address < IROM + MAPPED_BYTES:
                page, behind = address & ~(PAGE_BYTES - 1), address + length
                from_page = at & ~(PAGE_BYTES - 1)
                mapped = self.flash[from_page : from_page + (behind - page)]
                self.unicorn.mem_write(page, bytes(mapped))
                self.mend(page, bytes(mapped), page >= IROM)
            elif address:
                segment = bytes(self.flash[at : at + length])
                self.unicorn.mem_write(address, segment)
                self.mend(address, segment, address >= IRAM)
            at += length
        self.unicorn.reg_write(register.UC_RISCV_REG_PC, entry)
        self.unicorn.reg_write(register.UC_RISCV_REG_SP, STACK)
        # The bootloader leaves interrupts on.
        self.unicorn.reg_write(register.UC_RISCV_REG_MSTATUS, MIE | MPIE | MPP)

    def mend(self, base, code, is_code):
        """Protection is not set up, and behind each place that lets interrupts in they are looked
        for."""
        for at in range(0, len(code) - 4 if is_code else 0, 2):
            if code[at] & 0x7F != 0x73:
                continue
            (word,) = struct.unpack_from("<I", code, at)
            if 0x3A0 <= word >> 20 < 0x3C0 and word >> 12 & 3:
                no_operation = struct.pack("<I", 0x13 | word & 0xF80)
                self.unicorn.mem_write(base + at, no_operation)
            # csrs mstatus, x; csrsi mstatus, 8
            if word & 0xFFF07FFF == 0x30002073 or word == 0x30046073:
                behind = base + at + 4
                self.unicorn.hook_add(UC_HOOK_CODE, self.on_enabled, begin=behind, end=behind)

    def read_memory(self, address, length):
        return bytes(self.unicorn.mem_read(address, length))

    def write_memory(self, address, data):
        self.unicorn.mem_write(address, bytes(data))

    def store(self, offset, data):
        self.flash[offset : offset + len(data)] = data
        self.store_durably(offset, data)

    # Registers of peripherals

    def on_read(self, _, offset, size, __):
        address, shift = PERIPHERALS + (offset & ~3), (offset & 3) * 8
        return (self.read(address) & 0xFFFFFFFF) >> shift & (1 << 8 * size) - 1

    def on_write(self, _, offset, size, value, __):
        address, shift = PERIPHERALS + (offset & ~3), (offset & 3) * 8
        if size < 4:
            mask = (1 << 8 * size) - 1 << shift
            value = self.registers.get(address, 0) & ~mask | value << shift & mask
        self.write(address, value & 0xFFFFFFFF)

    def part_at(self, address):
        return {
            0x60000000: self.uarts[0],
            0x60010000: self.uarts[1],
            0x6001F000: self.timers[0],
            0x60020000: self.timers[1],
            0x60023000: self.system_timer,
        }.get(address & ~0xFFF)

    def read(self, address):
        part = self.part_at(address)
        if part is not None:
            return part.read(address & 0xFFF)
        if address - RTC in RtcWatchdog.REGISTERS:
            return self.watchdog.read(address - RTC)
        fixed = {
            0x60002000: lambda: 0,  # SPI1: the command is done
            0x60002058: lambda: 0x1640C8,  # SPI1: a flash of 4 MiB
            0x6000403C: lambda: 0xFFFFFFFF,  # GPIO: all pins are high, no button is held
            0x60008038: lambda: self.reset_reason,  # RTC: why it was reset
            0x60008844: lambda: int.from_bytes(self.mac[2:], "big"),  # eFuse: address
            0x60008848: lambda: int.from_bytes(self.mac[:2], "big"),
            0x60008850: lambda: 3 << 18,  # eFuse: revision 0.3
            0x600260B0: lambda: int.from_bytes(os.urandom(4), "little"),
            INTERRUPTS + 0xF8: lambda: self.sources() & 0xFFFFFFFF,
            INTERRUPTS + 0xFC: lambda: self.sources() >> 32,
            INTERRUPTS + 0x10C: lambda: 0,
            0x600C4028: lambda: 0xFFFFFFFF,  # caches are idle
            0x600C5000: lambda: self.slot_offset // PAGE_BYTES,  # MMU: the first page
        }.get(address)
        return fixed() if fixed else self.registers.get(address, 0)

    def write(self, address, value):
        self.registers[address] = value
        part = self.part_at(address)
        if part is not None:
            part.write(address & 0xFFF, value)
        elif address - RTC in RtcWatchdog.REGISTERS:
            self.watchdog.write(address - RTC, value)
        elif address == RTC and value & (1 << 31 | 1 << 5):
            self.reset(self.SOFTWARE)

    # Interrupts

    def sources(self):
        """A bit for each source that wants to be heard, by their numbers on this chip."""
        sources = 0
        for number, part in ((21, 0), (22, 1)):
            sources |= self.uarts[part].interrupts() << number
        for number, part in ((32, 0), (34, 1)):
            sources |= self.timers[part].interrupts() << number
        for number in range(4):
            raised = self.registers.get(SOFTWARE_INTERRUPTS + 4 * number, 0) & 1
            sources |= raised << 50 + number
        return sources

    def pending(self):
        """The line that is taken next, if any."""
        sources, best = self.sources(), None
        if not sources:
            return None
        setting = lambda offset: self.registers.get(INTERRUPTS + offset, 0)
        for source in range(sources.bit_length()):
            line = setting(4 * source) & 31
            if sources >> source & 1 and line and setting(0x104) >> line & 1:
                priority = setting(0x114 + 4 * line) & 15
                if priority >= setting(0x194) and (best is None or priority > best[0]):
                    best = (priority, line)
        return best and best[1]

    def interrupt(self, at):
        """Goes to the handler of the line that waits, if the program lets it."""
        line = self.pending()
        status = self.unicorn.reg_read(register.UC_RISCV_REG_MSTATUS)
        if line is None or not status & MIE:
            return False
        write = self.unicorn.reg_write
        write(register.UC_RISCV_REG_MEPC, at)
        write(register.UC_RISCV_REG_MCAUSE, 1 << 31 | line)
        write(register.UC_RISCV_REG_MSTATUS, status & ~(MIE | MPIE | MPP) | MPIE | MPP)
        table = self.unicorn.reg_read(register.UC_RISCV_REG_MTVEC) & ~3
        write(register.UC_RISCV_REG_PC, table + 4 * line)
        return True

    def on_enabled(self, _, address, __, ___):
        now = time.monotonic()
        if now - self.polled > POLL_S:
            self.polled = now
            for uart in self.uarts:
                uart.poll()
        self.interrupt(address)

    # Instructions that Unicorn does not know

    def on_exception(self, _, number, __):
        pc = self.unicorn.reg_read(register.UC_RISCV_REG_PC)
        is_handled = number == 2 and (self.call_rom(pc) or self.access_control(pc))
        if not is_handled:
            self.fault = f"exception {number} at {pc:#010x}"
            self.unicorn.emu_stop()

    def call_rom(self, pc):
        name = self.names.get(pc - 4)
        if name is None:
            return False
        result = self.rom.call(name)
        if result is not None:
            self.unicorn.reg_write(register.UC_RISCV_REG_A0, result & 0xFFFFFFFF)
        back = self.unicorn.reg_read(register.UC_RISCV_REG_RA)
        self.unicorn.reg_write(register.UC_RISCV_REG_PC, back)
        return True

    def access_control(self, pc):
        """csrrw, csrrs and csrrc, with a register or a number, on a register of the chip's own."""
        (word,) = struct.unpack("<I", self.read_memory(pc - 4, 4))
        kind, number = word >> 12 & 7, word >> 20
        if word & 0x7F != 0x73 or not kind & 3 or number < 0x7A0:
            return False
        into, source = word >> 7 & 31, word >> 15 & 31
        given = source
        if not kind & 4:
            given = self.unicorn.reg_read(register.UC_RISCV_REG_X0 + source)
        old = self.control.get(number, 0)
        if number == 0x7E2:
            old = int((time.monotonic() - self.started) * 1e6) * CYCLES_A_US & 0xFFFFFFFF
        new = {1: given, 2: old | given, 3: old & ~given}[kind & 3]
        self.control[number] = new & 0xFFFFFFFF
        if into:
            self.unicorn.reg_write(register.UC_RISCV_REG_X0 + into, old)
        self.unicorn.reg_write(register.UC_RISCV_REG_PC, pc)
        return True

    def argument(self, number):
        return self.unicorn.reg_read(register.UC_RISCV_REG_A0 + number)

    def set_second_result(self, value):
        self.unicorn.reg_write(register.UC_RISCV_REG_A1, value)

    # Running

    def reset(self, reason):
        self.ended = reason
        self.unicorn.emu_stop()

    def run(self):
        """Runs to the next reset, and returns its reason."""
        over = threading.Event()
        watching = threading.Thread(target=self.watch, args=(over,), daemon=True)
        watching.start()
        try:
            return self.execute()
        finally:
            over.set()
            watching.join()

    def watch(self, over):
        """The watchdog's own time: it bites a program that never comes back here."""
        while not over.wait(WATCHDOG_LOOKS_S):
            if self.ended is None:
                self.ended = self.watchdog.bite()
            if self.ended is not None:
                # Again and again, since a stop between two runs is not heard.
                self.unicorn.emu_stop()

    def processor_time(self):
        """Seconds that the program has run or waited for an interrupt. The watchdog counts by it:
        where others keep the host busy, a program that is late does not stand still."""
        return time.clock_gettime(self.processor) + self.slept_s

    def execute(self):
        while True:
            for uart in self.uarts:
                uart.poll()
            pc = self.unicorn.reg_read(register.UC_RISCV_REG_PC)
            if not self.interrupt(pc):
                time.sleep(POLL_S)
                self.slept_s += POLL_S
            pc = self.unicorn.reg_read(register.UC_RISCV_REG_PC)
            try:
                # Until it waits for an interrupt.
                self.unicorn.emu_start(pc, 0)
            except UcError as error:
                pc = self.unicorn.reg_read(register.UC_RISCV_REG_PC)
                raise Fault(f"{error} at {pc:#010x}") from error
            if self.ended is not None:
                return self.ended
            if self.fault is not None:
                raise Fault(self.fault)


def jump_to(address, target):
    """`j target`, as it stands at `address`."""
    by = target - address
    word = (by >> 20 & 1) << 31 | (by >> 1 & 0x3FF) << 21 | (by >> 11 & 1) << 20
    return struct.pack("<I", word | (by >> 12 & 0xFF) << 12 | 0x6F)
